#!/usr/bin/env bash
# Installs the peers and clients that the benches compare with, on Debian or Ubuntu. Nothing is started by it.
set -euo pipefail
packages=(nginx-light lighttpd wrk dnsmasq-base dnsperf kea-admin b3sum zstd)
# Not installed, because they would run as services or shut one another out; what they depend on is installed.
unpacked=(atftpd tftpd-hpa kea-dhcp4-server nsd knot bind9)
programs=(atftpd in.tftpd kea-dhcp4 nsd nsd-control knotd knotc named)
peers=$(dirname "$0")/../.lab/peers
# From crates.io, without what they can be built without. Cases beside one that cannot be built say so.
crate() {
    local program=$1
    [ -x "$peers/bin/$program" ] || nice cargo install --quiet --locked --root "$peers" "$@" ||
        echo "bench: $program cannot be built here" >&2
}
crate tftpd --version 1.0.0
crate static-web-server --version 2.44.1 --no-default-features
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
lacks=no
for program in "${programs[@]}"; do
    [ -x "$peers/usr/sbin/$program" ] || lacks=yes
done
[ ${#missing[@]} -gt 0 ] || [ $lacks = yes ] || exit 0
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
echo "bench: installing ${missing[*]} and unpacking ${unpacked[*]}"
apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}
# A server that its package starts by itself would be in the way.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod +x $policy
    trap '"${root[@]}" rm -f $policy' EXIT
fi
apt update
# One at a time, as some of them conflict: what apt would install with each, less those that are only unpacked.
for package in "${unpacked[@]}"; do
    while read -r needed; do
        [[ " ${unpacked[*]} " == *" $needed "* ]] || missing+=("$needed")
    done < <(apt-get install --simulate --no-install-recommends "$package" | awk '$1 == "Inst" { print $2 }')
done
[ ${#missing[@]} -eq 0 ] || apt install -y --no-install-recommends "${missing[@]}" >/dev/null
mkdir -p "$peers"
cd "$peers"
apt-get -qq download "${unpacked[@]}"
for package in "${unpacked[@]}"; do
    dpkg-deb -x "$package"_*.deb .
done
rm -f -- *.deb
