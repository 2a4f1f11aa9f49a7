#!/usr/bin/env bash
# Makes what guests are installed from, in .lab, and keeps it until the script that made it changes:
#
#   prepare.sh packages    the Debian image; kernel, modules and loaders of the boot environment; with a further word `trees`
#                          other people's boot trees and servers too
#   prepare.sh bootenv DIR the agent and the boot environment itself, packed by DIR/bootstorm
set -euo pipefail
cd "$(dirname "$0")/../.."
lab=.lab
target=x86_64-unknown-linux-gnu

case ${1:-} in
packages)
    tests/lab/bootenv-packages.sh $lab/bootenv-cloud cloud --reuse
    tests/lab/build-image.sh $lab/debian-12.raw --reuse
    [ "${2:-}" != trees ] || tests/lab/trees.sh $lab/trees --reuse
    ;;
bootenv)
    # shellcheck source=toolchain.sh
    . tests/lab/toolchain.sh
    # A directory of its own: the flags differ from those of everything else.
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --package bootstorm-agent --bins \
        --profile agent --target $target --target-dir target-agent
    agent=target-agent/$target/agent/bootstorm-agent
    key=$(cat $agent $lab/bootenv-cloud/.key "$2/bootstorm" | sha256sum)
    if [ "$(cat $lab/bootenv-amd64.key 2>/dev/null)" != "$key" ] || [ ! -f $lab/bootenv-amd64.tar ]; then
        "$2/bootstorm" bootenv build --kernel-dir $lab/bootenv-cloud --agent $agent --file $lab/bootenv-amd64.tar
        echo "$key" >$lab/bootenv-amd64.key
    fi
    echo "bootenv: $lab/bootenv-amd64.tar, $(du -m $lab/bootenv-amd64.tar | cut -f1) MiB"
    ;;
*)
    echo "usage: prepare.sh packages | bootenv DIR" >&2
    exit 2
    ;;
esac
