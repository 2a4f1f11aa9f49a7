//! The written disk: its partition table grown, its root file system found and grown.

use std::io;
use std::path::Path;

use super::mounted::{Purpose, Root};
use crate::disk::block::{Access, Buffer, Device, Partition, partitions};
use crate::disk::gpt::{self, GptError, Table};
use crate::sys;

/// Directory under which file systems are mounted.
const MOUNTS: &str = "/run/bootstorm";
/// Bytes from the start of a partition that hold every signature we look for.
const SIGNATURE_BYTES: usize = 128 << 10;

/// Why the installed system cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk failed, or the kernel refused.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// No partition holds an installed system that can be entered.
    #[error("no root file system (ext4, xfs or btrfs with /etc and os-release) on the disk: {0}")]
    NoRoot(String),
}

/// Grows the table and the last partition to the end of the disk and lets the kernel read it. Returns the partition's
/// number and new length, or why nothing was grown (which is no failure: the system boots as it is).
pub fn grow_table(device: &Device) -> Result<Result<(u32, u64), String>, StorageError> {
    let grown = match read_table(device).map(|table| table.map(|t| t.grow(device.bytes))) {
        Ok(Ok(Ok(Some(grown)))) => Ok(grown),
        Ok(Ok(Ok(None))) => Err("the last partition already reaches the end of the disk".to_string()),
        Ok(Ok(Err(error)) | Err(error)) => Err(error.to_string()),
        Err(error) => return Err(StorageError::Io("reading the partition table", error)),
    };
    let grown = match grown {
        Ok(grown) => grown,
        Err(why) => return Ok(Err(why)),
    };
    let written = |error| StorageError::Io("writing the partition table", error);
    for (offset, bytes) in &grown.writes {
        let mut buffer = Buffer::new(bytes.len());
        buffer.copy_from_slice(bytes);
        device.write_at(&buffer, bytes.len(), *offset).map_err(written)?;
    }
    let block = usize::try_from(device.block_bytes).unwrap_or(512);
    let mut first = Buffer::new(block);
    device.read_at(&mut first, 0).map_err(written)?;
    if gpt::grow_protective(&mut first, device.bytes / u64::from(device.block_bytes.max(1))) {
        device.write_at(&first, block, 0).map_err(written)?;
    }
    device.sync().map_err(written)?;
    Ok(Ok((grown.number, grown.bytes)))
}

/// Reads a disk's partition table.
pub fn read_table(device: &Device) -> io::Result<Result<Table, GptError>> {
    let block = usize::try_from(device.block_bytes).unwrap_or(512);
    let mut header = Buffer::new(block);
    device.read_at(&mut header, u64::from(device.block_bytes))?;
    let at = match gpt::entries_at(&header) {
        Ok(at) => at,
        Err(error) => return Ok(Err(error)),
    };
    let offset = at.block.saturating_mul(u64::from(device.block_bytes));
    let mut entries = Buffer::new(at.bytes.next_multiple_of(block));
    if offset.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX)) > device.bytes {
        return Ok(Err(GptError::Invalid("entries beyond the end of the disk")));
    }
    device.read_at(&mut entries, offset)?;
    Ok(Table::new(&header, &entries, device.block_bytes))
}

/// A file system's kind by its signature.
fn kind_of(start: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    if at(1080, &[0x53, 0xef]) {
        Some("ext4")
    } else if at(0, b"XFSB") {
        Some("xfs")
    } else if at(65_600, b"_BHRfS_M") {
        Some("btrfs")
    } else {
        None
    }
}

/// The root file system that was found, mounted for writing.
pub struct Found {
    /// It.
    pub root: Root,
    /// Its partition.
    pub partition: Partition,
    /// Its kind.
    pub kind: &'static str,
}

/// Finds and mounts the root file system among a disk's partitions: the first that holds `/etc` and an `os-release`.
pub fn find_root(disk: &str) -> Result<Found, StorageError> {
    let partitions = partitions(disk);
    let mut seen = Vec::new();
    for partition in &partitions {
        let Some(kind) = signature(partition) else { continue };
        let at = Path::new(MOUNTS).join(format!("root{}", partition.number));
        match Root::mount(&partition.node, kind, &at, Purpose::Write) {
            Ok(root) if root.exists("etc") && (root.exists("etc/os-release") || root.exists("usr/lib/os-release")) => {
                return Ok(Found { root, partition: partition.clone(), kind });
            }
            Ok(_) => seen.push(format!("{} {kind} without a system", partition.number)),
            Err(error) => seen.push(format!("{} {kind} {error}", partition.number)),
        }
    }
    Err(StorageError::NoRoot(format!("{} partitions, {}", partitions.len(), seen.join(", "))))
}

fn signature(partition: &Partition) -> Option<&'static str> {
    let length = SIGNATURE_BYTES.min(usize::try_from(partition.bytes).unwrap_or(SIGNATURE_BYTES));
    let device = Device::open(&partition.node, 512, Access::Cached).ok()?;
    let mut start = Buffer::new(length);
    device.read_at(&mut start, 0).ok()?;
    kind_of(&start)
}

/// Grows a mounted ext4 to the end of its partition. Returns its new length in bytes.
pub fn grow_ext4(found: &Found) -> Result<u64, StorageError> {
    let grown = |error| StorageError::Io("growing the root file system", error);
    let file = found.root.directory().map_err(grown)?;
    let block = rustix::fs::fstatvfs(&file).map_err(|e| grown(e.into()))?.f_bsize.max(1);
    let blocks = found.partition.bytes / block;
    sys::resize_ext4(&file, blocks).map_err(grown)?;
    Ok(blocks * block)
}

/// The EFI system partition of a table, and the loader on it that starts the installed system: the distribution's shim,
/// its GRUB, or the path for removable media.
pub fn find_loader(disk: &str, table: &Table) -> Result<(gpt::Entry, String), String> {
    let entry = table.partitions().into_iter().find(|p| p.kind == gpt::EFI_SYSTEM);
    let entry = entry.ok_or("the disk has no EFI system partition")?;
    let partition = partitions(disk).into_iter().find(|p| p.number == entry.number);
    let partition = partition.ok_or("the kernel does not show the EFI system partition")?;
    let (removable, names): (&str, &[&str]) = match std::env::consts::ARCH {
        "aarch64" => ("BOOTAA64.EFI", &["shimaa64.efi", "grubaa64.efi"]),
        _ => ("BOOTX64.EFI", &["shimx64.efi", "grubx64.efi"]),
    };
    let fallback = format!("\\EFI\\BOOT\\{removable}");
    let at = Path::new(MOUNTS).join("esp");
    let root = match Root::mount(&partition.node, "vfat", &at, Purpose::Read) {
        Ok(root) => root,
        // Without the file system's driver the path that every image for unknown machines has is the best guess.
        Err(error) => {
            crate::log!("EFI system partition: {error}; assuming {fallback}");
            return Ok((entry, fallback));
        }
    };
    let vendors = ["debian", "ubuntu", "fedora", "rhel", "centos", "rocky", "almalinux", "opensuse", "sles"];
    for name in names {
        for vendor in vendors {
            if root.exists(&format!("EFI/{vendor}/{name}")) {
                return Ok((entry, format!("\\EFI\\{vendor}\\{name}")));
            }
        }
    }
    if root.exists(&format!("EFI/BOOT/{removable}")) {
        return Ok((entry, fallback));
    }
    Err("the EFI system partition has no boot loader that we know".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_known_by_their_signatures() {
        let mut start = vec![0u8; SIGNATURE_BYTES];
        assert_eq!(kind_of(&start), None);
        assert_eq!(kind_of(b"XFSB"), Some("xfs"));
        start[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        assert_eq!(kind_of(&start), Some("btrfs"));
        start[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(kind_of(&start), Some("ext4"));
        assert_eq!(kind_of(&[]), None);
    }
}
