//! The GUID partition table (UEFI 2.10 §5.3): read, and grown to the end of a larger disk.
//!
//! Pure: bytes in, bytes out. A table that does not check out is not touched: no checksum is repaired, nothing guessed.
//!
//! ```text
//! block 0      protective MBR: one entry of type 0xee at byte 446, its length at byte 458
//! block 1      header: "EFI PART", …, CRC at 16, own block at 24, the other header's at 32, first and last usable
//!              block at 40 and 48, disk GUID at 56, block of the entries at 72, their number and length at 80 and 84,
//!              their CRC at 88
//! last block   the same header with the two blocks exchanged, its entries right before it
//! ```

use crate::limits;

/// Why a table is not grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// There is no such table here.
    #[error("the disk has no GUID partition table")]
    Absent,
    /// A checksum or a bound does not hold.
    #[error("the disk's partition table does not check out: {0}")]
    Invalid(&'static str),
    /// There is nothing to grow.
    #[error("the disk's partition table has no partition")]
    NoPartition,
}

/// Where the entries lie, as the header in block 1 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntriesAt {
    /// First block.
    pub block: u64,
    /// Length in bytes.
    pub bytes: usize,
}

/// A partition of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// Its type's GUID, in the byte order of the disk.
    pub kind: [u8; 16],
    /// Its own GUID, in the byte order of the disk.
    pub guid: [u8; 16],
    /// First block.
    pub first: u64,
    /// Last block.
    pub last: u64,
}

/// GUID of an EFI system partition, in the byte order of the disk.
pub const EFI_SYSTEM: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// A table that checks out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_bytes: usize,
    block_bytes: u64,
}

/// What is written where to grow a disk's table. Backup first: a break in between leaves one valid table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// Number of the partition that grows.
    pub number: u32,
    /// Its new length in bytes.
    pub bytes: u64,
    /// Byte offsets and bytes, in order, all whole blocks. The first block of the disk is not among them.
    pub writes: Vec<(u64, Vec<u8>)>,
}

/// Checks the header in block 1 and says where the entries are.
pub fn entries_at(header: &[u8]) -> Result<EntriesAt, GptError> {
    if header.get(..8) != Some(b"EFI PART") {
        return Err(GptError::Absent);
    }
    let invalid = GptError::Invalid;
    let length = usize::try_from(u32_at(header, 12)?).map_err(|_| invalid("header length"))?;
    let mut signed =
        header.get(..length).filter(|_| (92..=512).contains(&length)).ok_or(invalid("header length"))?.to_vec();
    put(&mut signed, 16, &[0; 4])?;
    if crc32(&signed) != u32_at(header, 16)? || u64_at(header, 24)? != 1 {
        return Err(invalid("header checksum"));
    }
    let (count, size) = (u64::from(u32_at(header, 80)?), u64::from(u32_at(header, 84)?));
    if !size.is_power_of_two() || size < 128 {
        return Err(invalid("length of an entry"));
    }
    let bytes = usize::try_from(count.saturating_mul(size)).unwrap_or(usize::MAX);
    if bytes == 0 || bytes > limits::GPT_ENTRIES_BYTES_MAX {
        return Err(invalid("number of entries"));
    }
    Ok(EntriesAt { block: u64_at(header, 72)?, bytes })
}

impl Table {
    /// A table from block 1 of a disk with blocks of `block_bytes`, and its entries.
    pub fn new(header: &[u8], entries: &[u8], block_bytes: u32) -> Result<Table, GptError> {
        let at = entries_at(header)?;
        let entries = entries.get(..at.bytes).ok_or(GptError::Invalid("number of entries"))?.to_vec();
        if crc32(&entries) != u32_at(header, 88)? {
            return Err(GptError::Invalid("checksum of the entries"));
        }
        let entry_bytes = usize::try_from(u32_at(header, 84)?).map_err(|_| GptError::Invalid("length of an entry"))?;
        Ok(Table { header: header.to_vec(), entries, entry_bytes, block_bytes: u64::from(block_bytes.max(512)) })
    }

    /// The partitions in use, in order of their numbers.
    pub fn partitions(&self) -> Vec<Entry> {
        let numbered = (1u32..).zip(self.entries.chunks_exact(self.entry_bytes));
        let entry = |(number, bytes): (u32, &[u8])| {
            let guid = |at: usize| bytes.get(at..at + 16)?.try_into().ok();
            let kind: [u8; 16] = guid(0)?;
            let used = kind != [0; 16];
            used.then_some(Entry {
                number,
                kind,
                guid: guid(16)?,
                first: u64_at(bytes, 32).ok()?,
                last: u64_at(bytes, 40).ok()?,
            })
        };
        numbered.filter_map(entry).collect()
    }

    /// The table for a disk of `disk_bytes`, its last partition reaching to the last usable block. Nothing if it does
    /// already.
    pub fn grow(&self, disk_bytes: u64) -> Result<Option<Grown>, GptError> {
        let partitions = self.partitions();
        let last = partitions.iter().max_by_key(|p| p.last).ok_or(GptError::NoPartition)?;
        let entries_blocks = u64::try_from(self.entries.len()).unwrap_or(u64::MAX).div_ceil(self.block_bytes);
        let blocks = disk_bytes / self.block_bytes;
        let backup = blocks.checked_sub(1).ok_or(GptError::Invalid("size of the disk"))?;
        let backup_entries = backup.checked_sub(entries_blocks).ok_or(GptError::Invalid("size of the disk"))?;
        let usable = backup_entries.checked_sub(1).ok_or(GptError::Invalid("size of the disk"))?;
        if last.last > usable || last.first > last.last {
            return Err(GptError::Invalid("a partition beyond the end of the disk"));
        }
        if last.last == usable && u64_at(&self.header, 32)? == backup {
            return Ok(None);
        }
        let mut entries = self.entries.clone();
        let index = usize::try_from(last.number - 1).map_err(|_| GptError::NoPartition)?;
        put(&mut entries, index * self.entry_bytes + 40, &usable.to_le_bytes())?;
        let primary_entries = u64_at(&self.header, 72)?;
        let primary = self.header_with(1, backup, usable, primary_entries, &entries)?;
        let second = self.header_with(backup, 1, usable, backup_entries, &entries)?;
        let padded = self.padded(entries);
        let at = |block: u64| block.saturating_mul(self.block_bytes);
        Ok(Some(Grown {
            number: last.number,
            bytes: (usable - last.first + 1).saturating_mul(self.block_bytes),
            writes: vec![
                (at(backup_entries), padded.clone()),
                (at(backup), second),
                (at(primary_entries), padded),
                (at(1), primary),
            ],
        }))
    }

    fn header_with(
        &self,
        own: u64,
        other: u64,
        usable: u64,
        entries_block: u64,
        entries: &[u8],
    ) -> Result<Vec<u8>, GptError> {
        let mut header = self.header.clone();
        put(&mut header, 24, &own.to_le_bytes())?;
        put(&mut header, 32, &other.to_le_bytes())?;
        put(&mut header, 48, &usable.to_le_bytes())?;
        put(&mut header, 72, &entries_block.to_le_bytes())?;
        put(&mut header, 88, &crc32(entries).to_le_bytes())?;
        put(&mut header, 16, &[0; 4])?;
        let length = usize::try_from(u32_at(&header, 12)?).unwrap_or(0);
        let checksum = crc32(header.get(..length).ok_or(GptError::Invalid("header length"))?);
        put(&mut header, 16, &checksum.to_le_bytes())?;
        Ok(self.padded(header))
    }

    fn padded(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let block = usize::try_from(self.block_bytes).unwrap_or(512);
        bytes.resize(bytes.len().next_multiple_of(block), 0);
        bytes
    }
}

/// Sets the length of the protective partition in a disk's first block to the whole disk; false if there is none.
pub fn grow_protective(block: &mut [u8], disk_blocks: u64) -> bool {
    if block.get(450) != Some(&0xee) || block.get(510..512) != Some(&[0x55, 0xaa]) {
        return false;
    }
    let length = u32::try_from(disk_blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    put(block, 458, &length.to_le_bytes()).is_ok()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), GptError> {
    let slot = bytes.get_mut(at..at + value.len()).ok_or(GptError::Invalid("too short"))?;
    slot.copy_from_slice(value);
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, GptError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(GptError::Invalid("too short"))?;
    Ok(u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, GptError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(GptError::Invalid("too short"))?;
    Ok(u64::from_le_bytes(*field))
}

/// CRC-32 of IEEE 802.3, reflected, as UEFI 2.10 §4.2 asks for; tables are short, so no table is kept.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 512;

    /// A disk image with a table of 128 entries, written independently of the code above.
    fn disk(blocks: usize, partitions: &[(usize, u64, u64)]) -> Vec<u8> {
        let mut disk = vec![0u8; blocks * BLOCK];
        disk[450] = 0xee;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut entries = vec![0u8; 128 * 128];
        for (number, first, last) in partitions {
            let at = (number - 1) * 128;
            entries[at..at + 16].copy_from_slice(&EFI_SYSTEM);
            entries[at + 16] = *number as u8;
            entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            entries[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        }
        let mut header = vec![0u8; BLOCK];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&[0, 0, 1, 0]);
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&1u64.to_le_bytes());
        header[32..40].copy_from_slice(&(blocks as u64 - 1).to_le_bytes());
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&(blocks as u64 - 34).to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[BLOCK..2 * BLOCK].copy_from_slice(&header);
        disk[2 * BLOCK..34 * BLOCK].copy_from_slice(&entries);
        disk
    }

    fn table(disk: &[u8]) -> Result<Table, GptError> {
        let header = &disk[BLOCK..2 * BLOCK];
        let at = entries_at(header)?;
        let from = at.block as usize * BLOCK;
        Table::new(header, &disk[from..from + at.bytes], 512)
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_last_partition_on_the_disk_grows_to_its_end() {
        let mut disk = disk(1000, &[(1, 500, 900), (14, 40, 49), (15, 50, 499)]);
        disk.resize(5000 * BLOCK, 0);
        let grown = table(&disk).expect("valid").grow(disk.len() as u64).expect("grows").expect("larger");
        assert_eq!((grown.number, grown.bytes), (1, (4966 - 500 + 1) * 512));
        for (at, bytes) in &grown.writes {
            disk[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
        }
        let after = table(&disk).expect("still valid");
        assert_eq!(after.grow(disk.len() as u64), Ok(None), "a second time changes nothing");
        let first = after.partitions()[0];
        assert_eq!((first.number, first.first, first.last, first.guid[0]), (1, 500, 4966, 1));
        // The backup is at the end, names the primary, and its entries stand right before it.
        let backup = &disk[4999 * BLOCK..];
        assert_eq!((u64_at(backup, 24), u64_at(backup, 32), u64_at(backup, 72)), (Ok(4999), Ok(1), Ok(4967)));
        assert_eq!(crc32(&disk[4967 * BLOCK..4999 * BLOCK]), u32_at(backup, 88).expect("there"));
        assert_eq!(u64_at(&disk[BLOCK..], 48), Ok(4966));
        assert!(grow_protective(&mut disk, 5000));
        assert_eq!(u32_at(&disk, 458), Ok(4999));
    }

    #[test]
    fn a_damaged_or_impossible_table_is_left_alone() {
        let good = disk(1000, &[(1, 500, 900)]);
        for at in (BLOCK..BLOCK + 92).chain([2 * BLOCK, 2 * BLOCK + 40, 20 * BLOCK]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(table(&bad).is_err(), "byte {at}");
        }
        assert!(table(&good).expect("valid").grow(800 * 512).is_err(), "a disk smaller than its table");
        assert!(table(&good).expect("valid").grow(0).is_err());
        assert_eq!(table(&disk(1000, &[])).expect("valid").grow(1 << 20), Err(GptError::NoPartition));
        assert_eq!(entries_at(&[0; 512]), Err(GptError::Absent));
        for end in 0..BLOCK {
            assert!(entries_at(&good[BLOCK..BLOCK + end]).is_err() || end >= 92);
        }
        assert!(!grow_protective(&mut [0; 512], 5));
    }
}
