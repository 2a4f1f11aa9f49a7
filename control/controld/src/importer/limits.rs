//! Every bound of the importer: unit, reason, and how it relates to its neighbours.

use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, CHUNK_STORED_BYTES_MAX, MANIFEST_CHUNKS_MAX};

/// Raw octets of an image: what one manifest can hold, 1 TiB.
pub const RAW_BYTES_MAX: u64 = MANIFEST_CHUNKS_MAX as u64 * CHUNK_RAW_BYTES as u64;

/// Octets that a decoder may take for its window (threat model, images).
pub const DECODER_BYTES_MAX: u64 = 128 << 20;

/// The same for zstd, as the power of two of the window.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// zstd window inside a qcow2 file: a cluster is 2 MiB at most, so no frame needs more.
pub const CLUSTER_WINDOW_LOG_MAX: u32 = 23;

/// Octets looked at to tell formats apart: the furthest signature, of tar, ends at 262.
pub const SNIFF_BYTES: usize = 1024;

/// Octets moved at once between the parts.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Octets of a qcow2 file's L1 table; QEMU has the same limit.
pub const L1_BYTES_MAX: u64 = 32 << 20;

/// Smallest and largest cluster of a qcow2 file, as a power of two (qcow2 specification, header).
pub const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Octets of a summary or an error on the pipe.
pub const TEXT_FRAME_BYTES_MAX: u32 = 8192;

/// Characters of a message that came from the importer process.
pub const MESSAGE_CHARACTERS_MAX: usize = 1024;

const _: () = assert!(1u64 << ZSTD_WINDOW_LOG_MAX <= DECODER_BYTES_MAX);
const _: () = assert!(CLUSTER_WINDOW_LOG_MAX < ZSTD_WINDOW_LOG_MAX);
const _: () = assert!(1u32 << *CLUSTER_BITS.end() <= 1 << CLUSTER_WINDOW_LOG_MAX);
const _: () = assert!(CHUNK_STORED_BYTES_MAX > TEXT_FRAME_BYTES_MAX);
