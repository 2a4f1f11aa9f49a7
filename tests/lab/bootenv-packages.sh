#!/usr/bin/env bash
# Fetches what a boot environment is made of, out of Debian 12 packages and without installing them:
#
#   bootenv-packages.sh OUT [cloud|generic] [--reuse]
#
#   OUT/vmlinuz                          the kernel (cloud: virtual machines; generic: hardware as well)
#   OUT/modules/lib/modules/VERSION/     its modules, with modules.dep, modules.alias and so on
#   OUT/loaders/{undionly.kpxe,snponly.efi,ipxe.efi}
#
# The result is the input of `bootstorm bootenv build --kernel-dir OUT`.
set -euo pipefail

usage() { echo "usage: bootenv-packages.sh OUT [cloud|generic] [--reuse]" >&2; exit 2; }
out='' flavour=cloud reuse=''
for argument in "$@"; do
    case $argument in
    --reuse) reuse=yes ;;
    cloud | generic) flavour=$argument ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out=$argument ;;
    esac
done
[ -n "$out" ] || usage
lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mirror.sh
. "$lab/mirror.sh"
PATH=$PATH:/usr/sbin:/sbin

suite=bookworm
key=$flavour-$(sha256sum <"$0" | cut -c1-16)
if [ -n "$reuse" ] && [ "$(cat "$out/.key" 2>/dev/null)" = "$key" ]; then
    echo "bootenv: $out is there"
    exit 0
fi
package=linux-image-cloud-amd64
[ "$flavour" = cloud ] || package=linux-image-amd64

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$(realpath -m "$out")")/bootenv.XXXXXX")
trap 'rm -rf "$work"' EXIT

debian_sources "$suite" >"$work/sources.list"
sources=()
[ ! -s "$work/sources.list" ] || sources=("$work/sources.list")
echo "bootenv: fetching the $flavour kernel and the loaders"
mmdebstrap --quiet --variant=extract --include="$package,ipxe" "$suite" "$work/root" "${sources[@]}"

mkdir -p "$work/out/modules/lib/modules" "$work/out/loaders"
version=$(cd "$work/root/boot" && ls vmlinuz-* | head -n 1)
version=${version#vmlinuz-}
cp "$work/root/boot/vmlinuz-$version" "$work/out/vmlinuz"
# Debian 12 has /lib as a directory of its own in packages, later ones keep modules below /usr.
for base in "$work/root/lib" "$work/root/usr/lib"; do
    [ -d "$base/modules/$version" ] || continue
    cp -a "$base/modules/$version" "$work/out/modules/lib/modules/"
    break
done
rm -f "$work/out/modules/lib/modules/$version/"{build,source}
depmod -b "$work/out/modules" "$version"
for loader in undionly.kpxe snponly.efi ipxe.efi; do
    cp "$work/root/usr/lib/ipxe/$loader" "$work/out/loaders/"
done
echo "$key" >"$work/out/.key"
rm -rf "$out"
mv "$work/out" "$out"
echo "bootenv: $out, kernel $version, $(du -sm "$out/modules" | cut -f1) MiB of modules, in $SECONDS s"
