#!/usr/bin/env bash
# Tests that need machines, one after the other: e2e.sh [machines|deploy|faults]..., all of them by default.
# E2E_ARGUMENTS goes to the test programs, e.g. E2E_ARGUMENTS="--skip two_gib".
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=toolchain.sh
. tests/lab/toolchain.sh

[ $# -gt 0 ] || set -- machines deploy faults
tests/lab/prepare.sh packages
tests=()
for name in "$@"; do
    tests+=(--test "e2e-$name")
done
if [ "$*" != machines ]; then
    cargo build --quiet --package bootstorm --bins
    tests/lab/prepare.sh bootenv target/debug
fi
exec tests/lab/as-root.sh cargo test --quiet --package bootstorm-tests "${tests[@]}" -- --ignored --test-threads=1 ${E2E_ARGUMENTS:-}
