#!/usr/bin/env bash
# Installs the peers and clients that the benches compare with, on Debian or Ubuntu. Nothing is started by it.
set -euo pipefail
packages=(nginx-light wrk dnsmasq-base)
# These two shut each other out: they are unpacked and not installed.
unpacked=(atftpd tftpd-hpa)
missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
peers=$(dirname "$0")/../.lab/peers
libraries=(libwrap0 libpcre2-8-0)
for package in "${libraries[@]}"; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || [ ! -x "$peers/usr/sbin/atftpd" ] || [ ! -x "$peers/usr/sbin/in.tftpd" ] || exit 0
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
echo "bench: installing ${missing[*]} and unpacking ${unpacked[*]}"
# A server that its package starts by itself would be in the way.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod +x $policy
    trap '"${root[@]}" rm -f $policy' EXIT
fi
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
[ ${#missing[@]} -eq 0 ] ||
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null
mkdir -p "$peers"
cd "$peers"
apt-get -qq download "${unpacked[@]}"
for package in "${unpacked[@]}"; do
    dpkg-deb -x "$package"_*.deb .
done
rm -f -- *.deb
