//! A strict reader of qcow2, version 2 and 3, after `docs/interop/qcow2.txt` of QEMU ("qcow2 specification").
//!
//! Read are the active tables only, front to back: header, L1, L2, data. Internal snapshots, bitmaps and reference
//! counts are not looked at. Everything that would name another file (backing file, external data file), needs a key
//! or a table layout that is not read here is refused, and so is a bit that the specification calls reserved.
//!
//! What cannot happen: a panic, reading outside the file, output other than the declared size, more memory than the
//! L1 table (32 MiB at most), one L2 table and one cluster with its compressed form (2 MiB each).

use std::io::{self, Read};

use super::ImportError;
use super::limits::{CLUSTER_BITS, CLUSTER_WINDOW_LOG_MAX, L1_BYTES_MAX};

/// Reading at an offset: as much as is there.
pub(crate) trait ReadAt {
    /// Fills `buffer` from `offset`, fewer octets only at the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for std::fs::File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match FileExt::read_at(self, rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// What is wrong with a qcow2 file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// The file is shorter than something that it points to.
    #[error("qcow2 file is cut short: {what} at byte `{offset}` is outside; fetch it again")]
    Truncated {
        /// What was looked for.
        what: &'static str,
        /// Where it should be.
        offset: u64,
    },
    /// A version other than 2 and 3.
    #[error("qcow2 version `{0}` is not supported; convert with `qemu-img convert -O qcow2`")]
    Version(u32),
    /// Content is in another file: never followed.
    #[error("qcow2 image has {0}; flatten it with `qemu-img convert -O qcow2`")]
    External(&'static str),
    /// A feature that is not read here.
    #[error("qcow2 image uses {0}; convert it with `qemu-img convert -O qcow2`")]
    Feature(&'static str),
    /// A field whose value breaks the specification or a limit.
    #[error("qcow2 file is damaged: {field} is `{value:#x}`; check it with `qemu-img check`")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A compressed cluster does not decode to a cluster.
    #[error("qcow2 file is damaged: compressed cluster at byte `{offset}` does not decode; fetch it again")]
    Cluster {
        /// Where it begins.
        offset: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Zlib,
    Zstd,
}

/// A qcow2 file whose header and L1 table were read.
pub(crate) struct Qcow2<R> {
    file: R,
    version: u32,
    cluster_bits: u32,
    virtual_bytes: u64,
    compression: Compression,
    l1: Vec<u64>,
}

/// `incompatible_features` of the header: name, and whether it can be read here (specification, "Header").
const INCOMPATIBLE: [(u64, Result<(), Qcow2Error>); 5] = [
    (0, Err(Qcow2Error::Feature("the dirty bit (it was not closed; run `qemu-img check -r all`)"))),
    (1, Err(Qcow2Error::Feature("the corrupt bit"))),
    (2, Err(Qcow2Error::External("an external data file"))),
    (3, Ok(())),
    (4, Err(Qcow2Error::Feature("extended L2 entries"))),
];
const COMPRESSION_BIT: u64 = 1 << 3;

/// Offset in an L1 or standard L2 entry: bits 9 to 55.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Reserved in an L1 entry: bits 0 to 8 and 56 to 62.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Reserved in a standard L2 entry: bits 1 to 8 and 56 to 61.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
const L2_COMPRESSED: u64 = 1 << 62;
const L2_ZERO: u64 = 1;
const SECTOR_BYTES: u64 = 512;

impl<R: ReadAt> Qcow2<R> {
    /// Reads header and L1 table. `raw_bytes_max` bounds the virtual size.
    pub(crate) fn open(mut file: R, raw_bytes_max: u64) -> Result<Qcow2<R>, ImportError> {
        let mut header = [0u8; 112];
        let there = file.read_at(0, &mut header).map_err(ImportError::Source)?;
        let header = header.get(..there).unwrap_or_default();
        let field = |at: usize| be32(header, at).ok_or(truncated("header", at as u64));
        let wide = |at: usize| be64(header, at).ok_or(truncated("header", at as u64));
        let version = field(4)?;
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version).into());
        }
        if wide(8)? != 0 || field(16)? != 0 {
            return Err(Qcow2Error::External("a backing file").into());
        }
        let cluster_bits = field(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(bad("cluster bits", u64::from(cluster_bits)).into());
        }
        let virtual_bytes = wide(24)?;
        if virtual_bytes > raw_bytes_max {
            return Err(ImportError::TooLarge { limit: raw_bytes_max });
        }
        if field(32)? != 0 {
            return Err(Qcow2Error::Feature("encryption").into());
        }
        let compression = if version == 3 { features(header)? } else { Compression::Zlib };
        let mut qcow2 = Qcow2 { file, version, cluster_bits, virtual_bytes, compression, l1: Vec::new() };
        let (l1_entries, l1_offset) = (u64::from(field(36)?), wide(40)?);
        qcow2.read_l1(l1_entries, l1_offset)?;
        Ok(qcow2)
    }

    /// Length of the disk inside.
    pub(crate) fn virtual_bytes(&self) -> u64 {
        self.virtual_bytes
    }

    fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn read_l1(&mut self, entries: u64, offset: u64) -> Result<(), ImportError> {
        // An L2 table is one cluster of entries of 8 octets, each for one cluster.
        let l2_span_bits = self.cluster_bits * 2 - 3;
        let needed = self.virtual_bytes.div_ceil(1 << l2_span_bits);
        if entries < needed {
            return Err(bad("number of L1 entries", entries).into());
        }
        if needed * 8 > L1_BYTES_MAX {
            return Err(bad("number of L1 entries needed", needed).into());
        }
        self.check_aligned("L1 table offset", offset, needed > 0)?;
        self.l1 = self.read_table("L1 table", offset, needed)?;
        Ok(())
    }

    fn check_aligned(&self, field: &'static str, offset: u64, used: bool) -> Result<(), Qcow2Error> {
        if used && (offset == 0 || !offset.is_multiple_of(self.cluster_bytes())) {
            Err(bad(field, offset))
        } else {
            Ok(())
        }
    }

    fn read_table(&mut self, what: &'static str, offset: u64, entries: u64) -> Result<Vec<u64>, ImportError> {
        let bytes = usize::try_from(entries * 8).map_err(|_| bad("table size", entries))?;
        let mut table = vec![0; bytes];
        if self.file.read_at(offset, &mut table).map_err(ImportError::Source)? < bytes {
            return Err(truncated(what, offset).into());
        }
        Ok(table.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// Gives the disk's octets in order to `sink`, a cluster at a time, exactly [`Qcow2::virtual_bytes`] of them.
    pub(crate) fn read_all(
        mut self,
        sink: &mut impl FnMut(&[u8]) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let cluster_bytes = usize::try_from(self.cluster_bytes()).map_err(|_| bad("cluster bits", 0))?;
        let zeros = vec![0; cluster_bytes];
        let mut cluster = vec![0; cluster_bytes];
        let entries_per_table = self.cluster_bytes() / 8;
        let mut left = self.virtual_bytes;
        for l1_entry in std::mem::take(&mut self.l1) {
            let table = self.read_l2(l1_entry, entries_per_table)?;
            for index in 0..entries_per_table {
                if left == 0 {
                    return Ok(());
                }
                let entry = usize::try_from(index).ok().and_then(|index| table.get(index)).copied().unwrap_or(0);
                let octets = if self.read_cluster(entry, &mut cluster)? { &cluster } else { &zeros };
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(cluster_bytes);
                sink(octets.get(..now).unwrap_or_default())?;
                left -= now as u64;
            }
        }
        Ok(())
    }

    /// The L2 table of an L1 entry; empty where nothing is allocated.
    fn read_l2(&mut self, l1_entry: u64, entries: u64) -> Result<Vec<u64>, ImportError> {
        if l1_entry & L1_RESERVED != 0 {
            return Err(bad("L1 entry", l1_entry).into());
        }
        let offset = l1_entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(Vec::new());
        }
        self.check_aligned("L1 entry", offset, true)?;
        self.read_table("L2 table", offset, entries)
    }

    /// Reads one guest cluster; false if it is all zeros.
    fn read_cluster(&mut self, entry: u64, cluster: &mut [u8]) -> Result<bool, ImportError> {
        if entry & L2_COMPRESSED != 0 {
            return self.read_compressed(entry, cluster).map(|()| true);
        }
        // Version 2 has no zero flag: its bit is reserved there.
        let reserved = if self.version == 2 { L2_RESERVED | L2_ZERO } else { L2_RESERVED };
        if entry & reserved != 0 {
            return Err(bad("L2 entry", entry).into());
        }
        let offset = entry & OFFSET_MASK;
        if entry & L2_ZERO != 0 || offset == 0 {
            return Ok(false);
        }
        self.check_aligned("L2 entry", offset, true)?;
        let there = self.file.read_at(offset, cluster).map_err(ImportError::Source)?;
        if there == 0 {
            return Err(truncated("cluster", offset).into());
        }
        // The file may end inside its last cluster: the rest reads as zeros, as QEMU has it.
        cluster.get_mut(there..).unwrap_or_default().fill(0);
        Ok(true)
    }

    /// Compressed cluster descriptor: offset in the low bits, then the number of sectors after the first
    /// (specification, "Compressed Clusters Descriptor").
    fn read_compressed(&mut self, entry: u64, cluster: &mut [u8]) -> Result<(), ImportError> {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (L2_COMPRESSED - 1)) >> offset_bits;
        let bytes = (sectors + 1) * SECTOR_BYTES - offset % SECTOR_BYTES;
        // The descriptor holds at most as many sectors as two clusters have.
        let mut compressed = vec![0; usize::try_from(bytes).map_err(|_| bad("L2 entry", entry))?];
        let there = self.file.read_at(offset, &mut compressed).map_err(ImportError::Source)?;
        if there == 0 {
            return Err(truncated("compressed cluster", offset).into());
        }
        let compressed = compressed.get(..there).unwrap_or_default();
        let decoded = match self.compression {
            Compression::Zlib => flate2::bufread::DeflateDecoder::new(compressed).read_exact(cluster),
            Compression::Zstd => decode_zstd(compressed, cluster),
        };
        decoded.map_err(|_| Qcow2Error::Cluster { offset }.into())
    }
}

/// One frame; what follows it up to the end of the sector is padding.
fn decode_zstd(compressed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?.single_frame();
    decoder.window_log_max(CLUSTER_WINDOW_LOG_MAX)?;
    decoder.read_exact(cluster)
}

/// Checks the features of a version 3 header and gives the compression type.
fn features(header: &[u8]) -> Result<Compression, Qcow2Error> {
    let incompatible = be64(header, 72).ok_or(truncated("header", 72))?;
    let mut known = 0;
    for (bit, readable) in INCOMPATIBLE {
        known |= 1 << bit;
        if incompatible & (1 << bit) != 0 {
            readable?;
        }
    }
    if incompatible & !known != 0 {
        return Err(bad("incompatible features", incompatible));
    }
    let length = be32(header, 100).ok_or(truncated("header", 100))?;
    if length < 104 || !length.is_multiple_of(8) {
        return Err(bad("header length", u64::from(length)));
    }
    let kind = if length > 104 { header.get(104).copied().ok_or(truncated("header", 104))? } else { 0 };
    match (kind, incompatible & COMPRESSION_BIT != 0) {
        (0, false) => Ok(Compression::Zlib),
        (1, true) => Ok(Compression::Zstd),
        _ => Err(bad("compression type", u64::from(kind))),
    }
}

fn truncated(what: &'static str, offset: u64) -> Qcow2Error {
    Qcow2Error::Truncated { what, offset }
}

fn bad(field: &'static str, value: u64) -> Qcow2Error {
    Qcow2Error::Field { field, value }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ReadAt for Vec<u8> {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        }
    }

    const CLUSTER: usize = 512;

    /// A version 3 file by hand: header, L1, L2 and two data clusters of 512 octets; the disk has 3 clusters and 10
    /// octets: data, zero flag, unallocated, data.
    fn by_hand() -> Vec<u8> {
        // Bit 63 says that nobody else refers to the cluster.
        let copied = |cluster: u64| (cluster * CLUSTER as u64) | (1 << 63);
        let mut file = vec![0u8; CLUSTER * 5];
        let mut set = |at: usize, octets: &[u8]| file[at..at + octets.len()].copy_from_slice(octets);
        set(0, b"QFI\xfb");
        set(4, &3u32.to_be_bytes());
        set(20, &9u32.to_be_bytes());
        set(24, &(3 * CLUSTER as u64 + 10).to_be_bytes());
        set(36, &1u32.to_be_bytes());
        set(40, &(CLUSTER as u64).to_be_bytes());
        set(100, &104u32.to_be_bytes());
        set(CLUSTER, &copied(2).to_be_bytes());
        for (index, entry) in [copied(3), 1, 0, copied(4)].iter().enumerate() {
            set(2 * CLUSTER + index * 8, &entry.to_be_bytes());
        }
        set(3 * CLUSTER, &[7; CLUSTER]);
        set(4 * CLUSTER, &[9; CLUSTER]);
        file
    }

    fn read(file: Vec<u8>) -> Result<Vec<u8>, ImportError> {
        let qcow2 = Qcow2::open(file, 1 << 20)?;
        let declared = qcow2.virtual_bytes();
        let mut out = Vec::new();
        qcow2.read_all(&mut |octets| {
            out.extend_from_slice(octets);
            Ok(())
        })?;
        assert_eq!(out.len() as u64, declared, "output is the declared size exactly");
        Ok(out)
    }

    fn with(at: usize, octets: &[u8]) -> Vec<u8> {
        let mut file = by_hand();
        file[at..at + octets.len()].copy_from_slice(octets);
        file
    }

    #[test]
    fn data_zero_and_unallocated_clusters() {
        let mut wanted = vec![7; CLUSTER];
        wanted.resize(3 * CLUSTER, 0);
        wanted.extend([9; 10]);
        assert_eq!(read(by_hand()).unwrap(), wanted);
        let mut cut = by_hand();
        cut.truncate(4 * CLUSTER + 10);
        assert_eq!(read(cut).unwrap(), wanted, "the file may end inside its last cluster");
    }

    #[test]
    fn every_truncation_and_every_changed_octet_is_read_or_refused_in_bounds() {
        let file = by_hand();
        for length in 0..file.len() {
            let _ = read(file[..length].to_vec());
        }
        assert!(read(file[..4 * CLUSTER].to_vec()).is_err());
        for at in 0..3 * CLUSTER {
            for value in [0x00, 0x01, 0x40, 0x7f, 0x80, 0xff] {
                let _ = read(with(at, &[value]));
            }
        }
    }

    #[test]
    fn what_is_not_read_here_is_refused_by_name() {
        let refused = |file: Vec<u8>| match read(file) {
            Err(ImportError::Qcow2(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(with(4, &4u32.to_be_bytes())), Qcow2Error::Version(4));
        assert_eq!(refused(with(4, &1u32.to_be_bytes())), Qcow2Error::Version(1));
        assert!(matches!(refused(with(8, &256u64.to_be_bytes())), Qcow2Error::External("a backing file")));
        assert!(matches!(refused(with(16, &5u32.to_be_bytes())), Qcow2Error::External("a backing file")));
        for bits in [0u32, 8, 22, 64, u32::MAX] {
            assert!(matches!(refused(with(20, &bits.to_be_bytes())), Qcow2Error::Field { field: "cluster bits", .. }));
        }
        for method in [1u32, 2, 3] {
            assert!(matches!(refused(with(32, &method.to_be_bytes())), Qcow2Error::Feature("encryption")));
        }
        for bit in [0u64, 1, 2, 4, 5, 63] {
            refused(with(72, &(1u64 << bit).to_be_bytes()));
        }
        assert!(matches!(refused(with(72, &8u64.to_be_bytes())), Qcow2Error::Field { field: "compression type", .. }));
        assert!(matches!(refused(with(36, &0u32.to_be_bytes())), Qcow2Error::Field { .. }));
        assert!(matches!(refused(with(40, &513u64.to_be_bytes())), Qcow2Error::Field { .. }));
        assert!(matches!(
            refused(with(40, &(1u64 << 40).to_be_bytes())),
            Qcow2Error::Truncated { what: "L1 table", .. }
        ));
        assert!(matches!(refused(with(CLUSTER, &1u64.to_be_bytes())), Qcow2Error::Field { field: "L1 entry", .. }));
        let l2 = |entry: u64| with(2 * CLUSTER, &entry.to_be_bytes());
        assert!(matches!(refused(l2(2)), Qcow2Error::Field { field: "L2 entry", .. }));
        assert!(matches!(refused(l2(1 << 50)), Qcow2Error::Truncated { what: "cluster", .. }));
        assert!(matches!(refused(l2(L2_COMPRESSED | 1536)), Qcow2Error::Cluster { offset: 1536 }));
        assert!(matches!(refused(l2(L2_COMPRESSED | (1 << 50))), Qcow2Error::Truncated { .. }));
        assert!(matches!(read(with(24, &(2u64 << 20).to_be_bytes())), Err(ImportError::TooLarge { limit: 1_048_576 })));
        // Version 2 knows no zero flag.
        assert!(matches!(refused(with(4, &2u32.to_be_bytes())), Qcow2Error::Field { field: "L2 entry", value: 1 }));
    }
}
