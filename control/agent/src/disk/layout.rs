//! Where each chunk of a manifest lies on the disk and in the stored stream.

use std::ops::Range;

use bootstorm_snapshot::Manifest;
use bootstorm_snapshot::manifest::Entry;

use super::block::Access;

/// A chunk and its two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The manifest's entry; not a hole.
    pub entry: Entry,
    /// First byte on the disk.
    pub raw_offset: u64,
    /// First byte in the stored stream.
    pub stored_offset: u64,
}

/// A manifest laid out on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Chunks with data, in order.
    pub chunks: Vec<Placed>,
    /// What must read as zeros, joined where holes touch, rounded up to whole blocks at the image's end.
    pub holes: Vec<Range<u64>>,
    /// Raw bytes of all chunks with data.
    pub data_bytes: u64,
    /// Whether every chunk starts and ends on a block, save for the image's last bytes.
    pub access: Access,
}

/// Lays a manifest out on a disk with blocks of `block_bytes` (a power of two).
pub fn lay_out(manifest: &Manifest, block_bytes: u32) -> Layout {
    let block = u64::from(block_bytes.max(1));
    let whole = manifest.header().raw_bytes;
    let mut layout = Layout { chunks: Vec::new(), holes: Vec::new(), data_bytes: 0, access: Access::Direct };
    let (mut raw, mut stored) = (0u64, 0u64);
    for entry in manifest.entries() {
        let end = raw + u64::from(entry.raw_bytes);
        if raw % block != 0 {
            layout.access = Access::Cached;
        }
        if entry.is_hole() {
            match layout.holes.last_mut() {
                Some(hole) if hole.end == raw => hole.end = end,
                _ => layout.holes.push(raw..end),
            }
        } else {
            layout.chunks.push(Placed { entry: *entry, raw_offset: raw, stored_offset: stored });
            layout.data_bytes += u64::from(entry.raw_bytes);
        }
        raw = end;
        stored += u64::from(entry.stored_bytes);
    }
    if let Some(hole) = layout.holes.last_mut().filter(|hole| hole.end == whole && layout.access == Access::Direct) {
        hole.end = hole.end.next_multiple_of(block);
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::{ChunkName, Encoding, ImageId};

    fn entry(raw_bytes: u32, stored_bytes: u32) -> Entry {
        let name = if stored_bytes == 0 { ChunkName([0; 32]) } else { ChunkName::of(&raw_bytes.to_le_bytes()) };
        Entry { name, raw_bytes, stored_bytes }
    }

    fn manifest(entries: Vec<Entry>) -> Manifest {
        let raw = entries.iter().map(|e| u64::from(e.raw_bytes)).sum();
        Manifest::new(Encoding::Zstd, ImageId([0; 32]), raw, "test", entries).expect("consistent")
    }

    #[test]
    fn holes_join_and_offsets_add_up() {
        let layout = lay_out(
            &manifest(vec![entry(4096, 10), entry(4096, 0), entry(4096, 0), entry(4096, 20), entry(100, 0)]),
            512,
        );
        assert_eq!(layout.holes, [4096..12288, 16384..16896]);
        assert_eq!(
            layout.chunks.iter().map(|c| (c.raw_offset, c.stored_offset)).collect::<Vec<_>>(),
            [(0, 0), (12288, 10)]
        );
        assert_eq!((layout.data_bytes, layout.access), (8192, Access::Direct));
    }

    #[test]
    fn chunks_off_the_blocks_go_through_the_cache() {
        let entries = vec![entry(4096, 10), entry(512, 0), entry(4096, 20)];
        assert_eq!(lay_out(&manifest(entries.clone()), 512).access, Access::Direct);
        assert_eq!(lay_out(&manifest(entries), 4096).access, Access::Cached);
    }
}
