//! Quick erase: the first and last bytes of every partition and every disk, then read back.
//!
//! This removes signatures and tables, so that nothing old is found again; it is not enough between owners.

use std::io;
use std::ops::Range;
use std::path::Path;

use bootstorm_snapshot::inventory::Disk;

use super::block::{Access, Buffer, Device, Partition, partitions};
use crate::limits;

/// Why a disk is not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The disk failed.
    #[error("disk {0}: {1}")]
    Disk(String, io::Error),
    /// It still shows something else than zeros.
    #[error("disk {0} does not read as zeros at byte {1} after it was erased")]
    NotErased(String, u64),
}

/// Erases a disk quickly and reads back. Returns how many bytes were cleared.
pub fn erase_quick(disk: &Disk) -> Result<u64, EraseError> {
    let failed = |error| EraseError::Disk(disk.name.clone(), error);
    let path = Path::new("/dev").join(&disk.name);
    let device = Device::open(&path, disk.block_bytes, Access::Direct).map_err(failed)?;
    let ranges = edges(device.bytes, &partitions(&disk.name), u64::from(disk.block_bytes));
    // Telling the disk that nothing is needed helps it; it is no part of the erase.
    let _ = device.discard(0, device.bytes);
    let cleared = clear(&device, &ranges, &disk.name)?;
    // The old partitions vanish from the kernel's view too; a disk without partitions may refuse.
    let _ = device.reread_partitions();
    Ok(cleared)
}

/// Clears both ends of a disk that is about to be written, so that no old table or signature survives beyond the image.
pub fn clear_edges(device: &Device, name: &str) -> Result<(), EraseError> {
    clear(device, &edges(device.bytes, &[], u64::from(device.block_bytes)), name).map(drop)
}

fn clear(device: &Device, ranges: &[Range<u64>], name: &str) -> Result<u64, EraseError> {
    let failed = |error| EraseError::Disk(name.to_string(), error);
    for range in ranges {
        device.zero(range.start, range.end - range.start).map_err(failed)?;
    }
    device.sync().map_err(failed)?;
    let mut buffer = Buffer::new(usize::try_from(limits::ERASE_EDGE_BYTES).unwrap_or(0));
    let mut cleared = 0;
    for range in ranges {
        let length = range.end - range.start;
        // The last block-sized rest of a short range is read together with what precedes it.
        let from = range.end.saturating_sub(limits::ERASE_EDGE_BYTES).min(range.start);
        if device.bytes >= from + limits::ERASE_EDGE_BYTES {
            device.read_at(&mut buffer, from).map_err(failed)?;
            let skip = usize::try_from(range.start - from).unwrap_or(0);
            let end = skip + usize::try_from(length).unwrap_or(0);
            let seen = buffer.get(skip..end).unwrap_or_default();
            if let Some(at) = seen.iter().position(|byte| *byte != 0) {
                return Err(EraseError::NotErased(name.to_string(), range.start + u64::try_from(at).unwrap_or(0)));
            }
        }
        cleared += length;
    }
    Ok(cleared)
}

/// What is cleared: both ends of the disk and of each partition, in whole blocks, each at most as long as the limit.
fn edges(disk_bytes: u64, partitions: &[Partition], block_bytes: u64) -> Vec<Range<u64>> {
    let block = block_bytes.max(1);
    let whole =
        partitions.iter().map(|p| p.start..p.start.saturating_add(p.bytes)).chain(std::iter::once(0..disk_bytes));
    let mut ranges = Vec::new();
    for part in whole {
        let start = part.start / block * block;
        let end = part.end.min(disk_bytes) / block * block;
        if start >= end {
            continue;
        }
        let edge = limits::ERASE_EDGE_BYTES.min(end - start);
        ranges.push(start..start + edge);
        if end - edge > start {
            ranges.push(end - edge..end);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::block::tests::Scratch;
    use super::*;

    fn partition(start: u64, bytes: u64) -> Partition {
        Partition { number: 1, node: "/dev/null".into(), start, bytes }
    }

    #[test]
    fn both_ends_of_disk_and_partitions() {
        const MIB: u64 = 1 << 20;
        let ranges = edges(100 * MIB, &[partition(10 * MIB, 20 * MIB), partition(40 * MIB, MIB)], 512);
        let mib: Vec<_> = ranges.iter().map(|r| (r.start / MIB, r.end / MIB)).collect();
        assert_eq!(mib, [(10, 12), (28, 30), (40, 41), (0, 2), (98, 100)]);
        assert!(edges(0, &[], 512).is_empty());
        assert_eq!(edges(MIB, &[partition(MIB, 5 * MIB)], 4096).first(), Some(&(0..MIB)));
    }

    #[test]
    fn what_is_cleared_reads_back_as_zeros() {
        let scratch = Scratch::new("erase", 8 << 20);
        let device = Device::open(&scratch.0, 512, Access::Cached).expect("open");
        let ranges = edges(device.bytes, &[partition(4 << 20, 4096)], 512);
        assert_eq!(clear(&device, &ranges, "test").expect("cleared"), (4 << 20) + 4096);
        let bytes = std::fs::read(&scratch.0).expect("read");
        assert!(bytes[..2 << 20].iter().chain(&bytes[6 << 20..]).all(|b| *b == 0));
        assert!(bytes[4 << 20..(4 << 20) + 4096].iter().all(|b| *b == 0) && bytes[3 << 20] == 0xaa);
    }
}
