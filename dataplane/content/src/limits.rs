//! Every bound of this crate: unit, reason, and how it relates to its neighbours.

use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, CHUNK_STORED_BYTES_MAX, MANIFEST_CHUNKS_MAX};

/// Octets after which a pack is closed and a new one begun: few files and descriptors, and a sweep rewrites little.
pub const PACK_BYTES_MAX: u64 = 1 << 30;

/// Packs of a store: each holds one open file. At the limit puts are refused until a sweep.
pub const PACKS_MAX: usize = 8192;

/// Octets that a writer gathers before it commits by itself: one sync for about 250 chunks.
pub const PENDING_BYTES_MAX: usize = 32 << 20;

/// Chunks that a writer gathers before it commits by itself; very small chunks reach this first.
pub const PENDING_CHUNKS_MAX: usize = 4096;

/// Octets of a manifest file: magic, length, header, and 40 octets for each chunk.
pub const MANIFEST_BYTES_MAX: u64 = 12 + 4096 + 40 * MANIFEST_CHUNKS_MAX as u64;

/// Manifests kept parsed in memory, the least recently used going first.
pub const MANIFESTS_CACHED_MAX: usize = 64;

/// Chunks named by all manifests kept parsed in memory: 48 octets each, so 192 MiB.
pub const MANIFEST_CHUNKS_CACHED_MAX: usize = 4 << 20;

/// Octets of a pack's index that are read: 64 for each chunk, and no chunk is shorter than a few octets.
pub const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Locks that the index is spread over: readers of different chunks rarely meet.
pub const INDEX_SHARDS: usize = 64;

/// A pack is rewritten by a sweep when fewer than this share of its octets, in percent, is named by a manifest.
pub const SWEEP_LIVE_PERCENT_MIN: u64 = 50;

/// Octets of the shortest chunk that content defines, but for the last of a file: below, names and requests outweigh what is saved.
pub const CONTENT_CHUNK_BYTES_MIN: u32 = 64 << 10;

/// Octets of a chunk that content defines, on average; the longest is that of a fixed one.
pub const CONTENT_CHUNK_BYTES_AVERAGE: u32 = 128 << 10;

const _: () = assert!(CONTENT_CHUNK_BYTES_MIN < CONTENT_CHUNK_BYTES_AVERAGE);
const _: () = assert!(CONTENT_CHUNK_BYTES_AVERAGE < CHUNK_RAW_BYTES);
const _: () = assert!(CHUNK_STORED_BYTES_MAX as usize <= PENDING_BYTES_MAX);
const _: () = assert!(PENDING_BYTES_MAX as u64 * 4 <= PACK_BYTES_MAX);
const _: () = assert!(MANIFEST_CHUNKS_CACHED_MAX >= MANIFEST_CHUNKS_MAX, "the largest manifest can be held");
const _: () = assert!(CHUNK_RAW_BYTES < CHUNK_STORED_BYTES_MAX);
const _: () = assert!(INDEX_SHARDS.is_power_of_two() && INDEX_SHARDS <= 256, "a shard is chosen by one octet");
