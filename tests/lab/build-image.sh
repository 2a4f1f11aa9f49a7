#!/usr/bin/env bash
# Builds a Debian 12 disk image: raw, GPT, boots by BIOS and by UEFI, with cloud-init and openssh, serial console on ttyS0.
# Uses no loop device and no mount of the result; works as root, and without root where mmdebstrap's unshare mode does.
#
#   build-image.sh OUT [--reuse]
#
# With --reuse an OUT that this very script built before is kept. Layout: 4 MiB BIOS boot, 64 MiB ESP, ext4 root to the end.
set -euo pipefail

usage() { echo "usage: build-image.sh OUT [--reuse]" >&2; exit 2; }
[ $# -ge 1 ] && [ $# -le 2 ] || usage
out=$1
[ "${2:---reuse}" = --reuse ] || usage
lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=mirror.sh
. "$lab/mirror.sh"

suite=bookworm
root_mib=1344
key=$(cat "$0" "$lab/embed-grub.py" | sha256sum | cut -c1-16)
if [ "${2:-}" = --reuse ] && [ -f "$out" ] && [ "$(cat "$out.key" 2>/dev/null)" = "$key" ]; then
    echo "image: $out is there"
    exit 0
fi

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$(realpath -m "$out")")/image.XXXXXX")
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin:/sbin

echo "image: installing Debian 12 into a directory"
packages=systemd-sysv,udev,dbus,init-system-helpers,linux-image-cloud-amd64,initramfs-tools,zstd
packages+=,cloud-init,cloud-guest-utils,openssh-server,sudo,iproute2,iputils-ping,netbase,systemd-resolved,e2fsprogs,dosfstools,ca-certificates,curl
mkdir "$work/etc"
cat >"$work/etc/90_image.cfg" <<'CLOUD'
# The image has no locales package and is to come up quickly on slow machines: each module costs seconds there. What is
# left out is not in the image (GRUB's package, snaps), is done by the deployment (growing the root), or is of no use to a lab.
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
datasource_list: [NoCloud, None]
cloud_init_modules: [bootcmd, write-files, disk_setup, mounts, set_hostname, update_hostname, ca-certs, users-groups, ssh]
cloud_config_modules: [ssh-import-id, set-passwords, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, write-files-deferred, scripts-vendor, scripts-per-once,
  scripts-per-boot, scripts-per-instance, scripts-user, phone-home, final-message, power-state-change]
system_info:
  network:
    renderers: [networkd]
CLOUD
cat >"$work/etc/kernel-img.conf" <<'CONF'
do_symlinks = yes
CONF
debian_sources "$suite" >"$work/sources.list"
sources=()
[ ! -s "$work/sources.list" ] || sources=("$work/sources.list")
mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --essential-hook="copy-in $work/etc/kernel-img.conf /etc" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo COMPRESS=zstd >"$1/etc/initramfs-tools/conf.d/lab"' \
    --customize-hook="copy-in $work/etc/90_image.cfg /etc/cloud/cloud.cfg.d" \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/var/lib/dbus/machine-id"' \
    --customize-hook='printf "uninitialized\n" >"$1/etc/machine-id"' \
    --customize-hook='ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"' \
    --customize-hook='chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved ssh' \
    --customize-hook='chroot "$1" systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/debconf/*-old "$1"/usr/share/locale/*' \
    --customize-hook="ls \"\$1/boot\" | sed -n 's/^vmlinuz-//p' >$work/version" \
    "$suite" "$work/root.tar" "${sources[@]}"
version=$(tail -n 1 "$work/version")

echo "image: making the file systems"
uuid=$(cat /proc/sys/kernel/random/uuid)
mkdir -p "$work/overlay/boot/grub" "$work/overlay/boot/efi"
cat >"$work/overlay/boot/grub/grub.cfg" <<GRUB
set default=0
set timeout=0
menuentry 'Debian GNU/Linux' {
    linux /boot/vmlinuz-$version root=UUID=$uuid ro console=tty0 console=ttyS0,115200n8
    initrd /boot/initrd.img-$version
}
GRUB
esp_uuid=$(head -c 4 /proc/sys/kernel/random/uuid | tr a-f A-F)-$(head -c 4 /proc/sys/kernel/random/uuid | tr a-f A-F)
mkdir -p "$work/overlay/etc"
cat >"$work/overlay/etc/fstab" <<FSTAB
UUID=$uuid / ext4 errors=remount-ro 0 1
UUID=$esp_uuid /boot/efi vfat umask=0077,nofail 0 2
FSTAB
# fakeroot keeps owners and modes where we are not root; device nodes come from devtmpfs.
cat >"$work/mkroot.sh" <<'MKROOT'
set -e
mkdir "$1/root"
tar -C "$1/root" -xf "$1/root.tar" --numeric-owner --exclude='./dev/*'
cp -r --no-preserve=ownership "$1/overlay/." "$1/root/"
chmod 755 "$1/root"
truncate -s "$3M" "$1/root.ext4"
# GRUB 2.06 reads no file system with these features; an older mke2fs does not know their names.
features=
for feature in metadata_csum_seed orphan_file; do
    truncate -s 1M "$1/probe.ext4"
    ! mke2fs -q -t ext4 -O "^$feature" "$1/probe.ext4" 2>/dev/null || features=$features,^$feature
done
mke2fs -q -t ext4 -L root -U "$2" ${features:+-O "${features#,}"} -d "$1/root" "$1/root.ext4"
rm -rf "$1/root"
MKROOT
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(fakeroot --)
"${as_root[@]}" sh "$work/mkroot.sh" "$work" "$uuid" "$root_mib"
rm "$work/root.tar"

echo "image: installing GRUB for BIOS and UEFI"
cat >"$work/grub-early.cfg" <<GRUB
search --no-floppy --fs-uuid --set=root $uuid
set prefix=(\$root)/boot/grub
configfile \$prefix/grub.cfg
GRUB
modules=(normal configfile linux search search_fs_uuid part_gpt part_msdos ext2 fat echo test minicmd)
grub-mkimage -O i386-pc -p /boot/grub -c "$work/grub-early.cfg" -o "$work/core.img" "${modules[@]}" biosdisk
grub-mkimage -O x86_64-efi -p /boot/grub -c "$work/grub-early.cfg" -o "$work/BOOTX64.EFI" "${modules[@]}"
truncate -s 64M "$work/esp.img"
mkfs.vfat -F 32 -i "${esp_uuid/-/}" -n ESP "$work/esp.img" >/dev/null
mmd -i "$work/esp.img" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$work/esp.img" "$work/BOOTX64.EFI" ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$work/esp.img" "$work/BOOTX64.EFI" ::/EFI/debian/grubx64.efi

raw=$work/disk.raw
truncate -s "$((1 + 4 + 64 + root_mib + 1))M" "$raw"
sgdisk --clear \
    --new=1:1M:+4M --typecode=1:ef02 --change-name=1:bios \
    --new=2:5M:+64M --typecode=2:ef00 --change-name=2:esp \
    --new=3:69M:+"${root_mib}"M --typecode=3:8304 --change-name=3:root "$raw" >/dev/null
dd if="$work/esp.img" of="$raw" bs=1M seek=5 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$raw" bs=1M seek=69 conv=notrunc,sparse status=none
python3 "$lab/embed-grub.py" "$raw" /usr/lib/grub/i386-pc/boot.img "$work/core.img" $((1 << 20))

mv "$raw" "$out"
echo "$key" >"$out.key"
echo "image: $out, kernel $version, $(du -m "$out" | cut -f1) MiB of data in $(($(stat -c %s "$out") >> 20)) MiB, in $SECONDS s"
