#!/usr/bin/env python3
"""Writes GRUB's boot sector and core image into a raw disk image, as grub-bios-setup would, without a device.

    embed-grub.py DISK BOOT_IMG CORE_IMG OFFSET

OFFSET (octets) is the start of the BIOS boot partition. Field offsets are those of GRUB's
include/grub/i386/pc/boot.h and kernel.h.
"""
import struct
import sys

SECTOR = 512
# In boot.img: where the core image starts (64-bit sector), and the jump that trusts the BIOS's drive number.
BOOT_KERNEL_SECTOR = 0x5C
BOOT_DRIVE_CHECK = 0x66
# Of boot.img's sector, what belongs to the disk: its signature and partition table.
TABLE = slice(0x1B8, 0x1FE)
# In the first sector of the core image, its last block list entry: sector (64-bit), then length and segment.
CORE_BLOCK_LIST = SECTOR - 12


def main(disk: str, boot_path: str, core_path: str, offset: int) -> None:
    with open(boot_path, "rb") as file:
        boot = bytearray(file.read(SECTOR))
    with open(core_path, "rb") as file:
        core = bytearray(file.read())
    first = offset // SECTOR
    struct.pack_into("<Q", boot, BOOT_KERNEL_SECTOR, first)
    boot[BOOT_DRIVE_CHECK:BOOT_DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<Q", core, CORE_BLOCK_LIST, first + 1)
    with open(disk, "r+b") as file:
        present = file.read(SECTOR)
        boot[TABLE] = present[TABLE]
        file.seek(0)
        file.write(boot)
        file.seek(offset)
        file.write(core)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
