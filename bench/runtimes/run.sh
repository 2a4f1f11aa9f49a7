#!/usr/bin/env bash
# One small sender of HTTP on our driver, on tokio-uring and on tokio, beside each other: run.sh [PAIRS [SECONDS]].
# Server and client have a processor each; wrk is the client.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=../../tests/lab/toolchain.sh
. ../../tests/lab/toolchain.sh
command -v wrk >/dev/null || { echo "runtimes: wrk is missing: apt-get install wrk" >&2; exit 1; }
nice cargo build --quiet --release --locked
exec target/release/bootstorm-runtimes compare "${1:-7}" "${2:-2}"
