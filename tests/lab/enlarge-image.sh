#!/usr/bin/env bash
# Makes a larger image out of one that build-image.sh made: its root grows to fill MIB in all, and half of what was added is
# filled by /ballast, bytes that compress to nothing smaller, with their sum in /ballast.sha256.
#
#   enlarge-image.sh IN OUT MIB
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: enlarge-image.sh IN OUT MIB" >&2; exit 2; }
in=$1 out=$2 mib=$3
PATH=$PATH:/usr/sbin:/sbin
root_start=69 # MiB, as build-image.sh lays it out
added=$((mib - $(stat -c %s "$in") / (1 << 20)))
[ "$added" -gt 16 ] || { echo "enlarge-image: $in has nearly $mib MiB already" >&2; exit 2; }

work=$(mktemp -d "$(dirname "$(realpath -m "$out")")/enlarge.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp --sparse=always "$in" "$work/disk.raw"
truncate -s "${mib}M" "$work/disk.raw"
sgdisk --move-second-header --delete=3 --new=3:${root_start}M:0 --typecode=3:8304 --change-name=3:root "$work/disk.raw" >/dev/null

dd if="$in" of="$work/root.ext4" bs=1M skip=$root_start count=$((mib - added - root_start - 1)) conv=sparse status=none
truncate -s "$((mib - root_start - 1))M" "$work/root.ext4"
e2fsck -fy "$work/root.ext4" >/dev/null 2>&1
resize2fs "$work/root.ext4" >/dev/null 2>&1
head -c "$((added / 2))M" /dev/urandom >"$work/ballast"
(cd "$work" && sha256sum ballast | sed 's, ballast, /ballast,' >ballast.sha256)
for file in ballast ballast.sha256; do
    debugfs -w -R "write $work/$file /$file" "$work/root.ext4" >/dev/null 2>&1
done
e2fsck -fn "$work/root.ext4" >/dev/null 2>&1
dd if="$work/root.ext4" of="$work/disk.raw" bs=1M seek=$root_start conv=notrunc,sparse status=none
mv "$work/disk.raw" "$out"
echo "image: $out, $(du -m "$out" | cut -f1) MiB of data in $mib MiB"
