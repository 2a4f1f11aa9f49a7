#!/usr/bin/env bash
# Takes other people's boot trees, and servers that would be started where they are installed, out of Debian 12 packages:
#
#   trees.sh OUT [--reuse]
#
#   OUT/installer/         Debian's installer for the network: a tree of PXELINUX with menus, and one of shim and GRUB
#   OUT/root/              what PXELINUX, its menus, shim and the signed GRUB stand in; nginx and Kea, with their libraries
#   OUT/run PROGRAM …      runs a program of OUT/root with its own libraries
set -euo pipefail

out='' reuse=''
for argument in "$@"; do
    case $argument in
    --reuse) reuse=yes ;;
    *) out=$argument ;;
    esac
done
[ -n "$out" ] || { echo "usage: trees.sh OUT [--reuse]" >&2; exit 2; }
lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mirror.sh
. "$lab/mirror.sh"

suite=bookworm
key=$(sha256sum <"$0" | cut -c1-16)
if [ -n "$reuse" ] && [ "$(cat "$out/.key" 2>/dev/null)" = "$key" ]; then
    echo "trees: $out is there"
    exit 0
fi
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$(realpath -m "$out")")/trees.XXXXXX")
trap 'rm -rf "$work"' EXIT

debian_sources "$suite" >"$work/sources.list"
sources=()
[ ! -s "$work/sources.list" ] || sources=("$work/sources.list")
echo "trees: fetching the installer, loaders, nginx and Kea"
packages=debian-installer-12-netboot-amd64,pxelinux,syslinux-common,shim-signed,grub-efi-amd64-signed,nginx-light,kea-dhcp4-server
mmdebstrap --quiet --variant=extract --include="$packages" "$suite" "$work/root" "${sources[@]}"

images=usr/lib/debian-installer/images
mkdir "$work/out"
mv "$work/root/$images/12/amd64/text" "$work/out/installer"
rm -rf "$work/root/$images" "$work/root/usr/share/doc" "$work/root/usr/share/locale"
mv "$work/root" "$work/out/root"
cat >"$work/out/run" <<'RUN'
#!/bin/sh
root=$(dirname "$0")/root program=$1
shift
libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/sbin/$program" "$@"
RUN
chmod +x "$work/out/run"
echo "$key" >"$work/out/.key"
rm -rf "$out"
mv "$work/out" "$out"
echo "trees: $out, $(du -sm "$out" | cut -f1) MiB, in $SECONDS s"
