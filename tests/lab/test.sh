#!/usr/bin/env bash
# All checks, as `make test` runs them. Each step prints a heading with the time since the start and what the last one took.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=toolchain.sh
. tests/lab/toolchain.sh

step_name= step_started=0
step() {
    [ -z "$step_name" ] || echo "    $step_name: $((SECONDS - step_started)) s"
    step_name=$1 step_started=$SECONDS
    [ -z "$1" ] || printf '\n==> [%3d s] %s\n' "$SECONDS" "$1"
}

step "system packages"
tests/lab/setup.sh

# The image takes minutes of waiting for packages: it is built beside the compiler.
mkdir -p .lab
nice tests/lab/prepare.sh packages trees >.lab/packages.log 2>&1 &
packages=$!
trap 'kill "$packages" 2>/dev/null || true' EXIT

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps

step "tests"
cargo test --quiet --workspace

# Other people's clients, and kill -9 in the middle of transfers; BOOTSTORM_LONG_TESTS=1 makes the long form of this and of the
# tests of the content store.
step "clients and kills"
cargo build --quiet --package bootstorm --bins
cargo test --quiet --package bootstorm-tests --test conformance-clients --test conformance-dns --test conformance-kills -- --ignored

step "image and boot environment"
if ! wait "$packages"; then
    cat .lab/packages.log
    exit 1
fi
cat .lab/packages.log

# Simulated machines against other people's servers and boot trees; firmware and loaders in guests against ours.
step "trees and loaders"
cargo build --quiet --package loadgen --bins
tests/lab/as-root.sh cargo test --quiet --package bootstorm-tests --test conformance-trees --test conformance-loaders -- \
    --ignored --test-threads=2

# From bare to running, released and again; kill -9 of control and rack; control away. Only the large image is left out:
# it shows the same on more bytes.
step "machines"
E2E_ARGUMENTS="--skip two_gib" tests/lab/e2e.sh machines deploy faults

step ""
echo
echo "all checks passed in $SECONDS s"
