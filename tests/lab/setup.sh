#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that building and testing Bootstorm needs.
# Does nothing, quickly, when all of them are there. Usage: setup.sh [--check]
# With --check it only says what is missing (status 1 if anything is).
set -euo pipefail

packages=(
    # Building: C parts of ring, zstd, blake3, SQLite.
    gcc libc6-dev make pkg-config
    # Guests.
    qemu-system-x86 qemu-utils ovmf ipxe-qemu
    # The boot environment: loaders and kernels are taken out of their packages, not installed.
    ipxe mmdebstrap kmod zstd xz-utils
    # The disk image, made without loop devices or mounts.
    gdisk mtools dosfstools e2fsprogs grub-common grub-pc-bin grub-efi-amd64-bin fakeroot python3
    # Networks of the lab and what logs in to the guests.
    iproute2 openssh-client curl tcpdump
    # A server of DHCP, DNS and TFTP that is not ours, for the load generators.
    dnsmasq-base
    # Clients that the byte path is tested with.
    wget aria2 wrk atftp tftp-hpa busybox
    # Clients and checkers of DNS.
    bind9-dnsutils knot-dnsutils ldnsutils python3-dnspython
)

# shellcheck source=/dev/null
. /etc/os-release
case " ${ID:-} ${ID_LIKE:-} " in
*" debian "* | *" ubuntu "*) ;;
*)
    echo "setup: this script knows Debian and Ubuntu; on ${PRETTY_NAME:-this system} install the counterparts of: ${packages[*]}" >&2
    exit 1
    ;;
esac
# Elsewhere than on Debian the keys of its archive come in a package of their own.
[ "${ID:-}" = debian ] || packages+=(debian-archive-keyring)

installed=$(dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null | awk '$1 == "ii" { print $2 }' || true)
# A store of S3's kind, out of PyPI and into the lab's own directory.
moto() {
    command -v moto_server >/dev/null || [ -x "$lab/moto/bin/moto_server" ]
}
lab=$(cd "$(dirname "$0")/../.." && pwd)/.lab
missing=()
for package in "${packages[@]}"; do
    grep -qx "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ] && moto; then
    echo "setup: all ${#packages[@]} system packages are there"
    exit 0
fi
if [ "${1:-}" = --check ]; then
    echo "setup: missing: ${missing[*]}$(moto || echo ' moto (from PyPI)')" >&2
    exit 1
fi
install_moto() {
    moto || { echo "setup: installing moto" && python3 -m venv "$lab/moto" && "$lab/moto/bin/pip" install --quiet 'moto[server]==5.2.1'; }
}
if [ ${#missing[@]} -eq 0 ]; then
    install_moto
    exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: run this as root, there is no sudo here: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    root=(sudo)
fi
echo "setup: installing ${missing[*]}"
apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}
apt update
# A backported qemu-utils breaks the distribution's qemu-system-x86: both are taken at the same version.
for package in "${missing[@]}"; do
    if [ "$package" = qemu-system-x86 ]; then
        version=$(apt-cache policy qemu-system-x86 | awk '$1 == "Candidate:" { print $2 }')
        missing+=("qemu-utils=$version")
    fi
done
apt install -y --no-install-recommends --allow-downgrades "${missing[@]}" >/dev/null
install_moto
echo "setup: done"
