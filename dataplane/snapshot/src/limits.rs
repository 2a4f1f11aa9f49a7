//! Every bound of the snapshot and its observations, with unit and reason.

/// Bytes of one snapshot or observation frame before compression (`design.md` §3).
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one JSON line: a plan with a full network configuration stays far below.
pub const LINE_BYTES_MAX: usize = 256 << 10;
/// Raw bytes in one chunk of a disk image: the common optimum of send quantum, compression and dedup.
pub const CHUNK_RAW_BYTES: u32 = 256 << 10;
/// Stored bytes of one chunk: a zstd frame of incompressible data is a little longer than the data.
pub const CHUNK_STORED_BYTES_MAX: u32 = CHUNK_RAW_BYTES + (CHUNK_RAW_BYTES >> 7) + 1024;
/// Chunks of one manifest: 1 TiB of raw bytes in chunks of 256 KiB.
pub const MANIFEST_CHUNKS_MAX: usize = 1 << 22;
/// Characters of a host name label (RFC 1123 §2.1).
pub const HOSTNAME_LABEL_MAX: usize = 63;
/// Bytes of free text (evidence, details) in one observation; longer text is cut by its writer.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of a domain name with its lengths and its end (RFC 1035 §2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 255;
/// Bytes of one record's data: far more than one answer over UDP carries, and a line of the snapshot holds a few.
pub const DNS_DATA_BYTES_MAX: usize = 8 << 10;
/// Records of one set: an answer over TCP holds as many addresses.
pub const DNS_SET_RECORDS_MAX: usize = 1024;
/// Bytes of all records of one name.
pub const DNS_NAME_RECORDS_BYTES_MAX: usize = 96 << 10;
/// MAC addresses, disks or PCI devices of one machine.
pub const INVENTORY_ITEMS_MAX: usize = 1024;

const _: () = assert!(LINE_BYTES_MAX < FRAME_BYTES_MAX);
// In a line every octet is two digits.
const _: () = assert!(2 * DNS_NAME_RECORDS_BYTES_MAX + (32 << 10) < LINE_BYTES_MAX);
const _: () = assert!((CHUNK_STORED_BYTES_MAX as usize) < FRAME_BYTES_MAX);
