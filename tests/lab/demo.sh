#!/usr/bin/env bash
# What `make demo` runs: system packages, build, image and boot environment, then the demo itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=toolchain.sh
. tests/lab/toolchain.sh

echo "==> system packages"
tests/lab/setup.sh
echo "==> Debian 12 image and kernel (in the background), release build"
mkdir -p .lab
nice tests/lab/prepare.sh packages >.lab/packages.log 2>&1 &
packages=$!
trap 'kill "$packages" 2>/dev/null || true' EXIT
cargo build --quiet --release --package bootstorm --package loadgen --package bootstorm-tests --bins
echo "    built after $SECONDS s"
if ! wait "$packages"; then
    cat .lab/packages.log
    exit 1
fi
cat .lab/packages.log
echo "==> agent and boot environment"
tests/lab/prepare.sh bootenv target/release
echo "==> demo, $SECONDS s after the start"
trap - EXIT
exec tests/lab/as-root.sh target/release/demo
