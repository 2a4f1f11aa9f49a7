#!/usr/bin/env bash
# What `make bench-SUITE` runs: peers, release build, the suite. QUICK=1 shortens loads; such a record is no claim.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../tests/lab/toolchain.sh
. tests/lab/toolchain.sh
PATH=$PATH:/usr/sbin:/sbin
bench/setup.sh
cargo build --quiet --release --package bootstorm --package loadgen --package bootstorm-bench --bins
exec target/release/bench "$@"
