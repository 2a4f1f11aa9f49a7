//! Every bound of this crate: unit, reason, and how it relates to its neighbours.

/// Octets of one record's payload. A record is one lease, claim, attempt or observation; agents' reports, the largest
/// of them, are at most 256 KiB.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Records of one batch: what is grouped under one sync.
pub const BATCH_RECORDS_MAX: usize = 512;

/// Octets of one batch with its frames: one write, held in memory once.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Octets of a segment. It is read whole when it is opened, so this is also the memory that recovery may take.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Octets appended after the snapshot before compaction is asked for, at the least: below this, compaction costs more
/// than it saves.
pub const COMPACT_BYTES_MIN: u64 = 16 << 20;

/// Compaction is asked for when the records after the snapshot take this many times the snapshot's own octets.
pub const COMPACT_GROWTH: u64 = 2;

/// Octets of a new segment that are written and synced between two commits while a compaction is under way: a disk that writes
/// 100 MB/s takes 2.6 ms for them, less than a batch of leases gathers.
pub const COMPACT_SLICE_BYTES: usize = 256 << 10;

/// Requests that wait for the journal's thread. A sync takes 0.1 to 10 ms; at this depth the rack is told `Busy`.
pub const QUEUE_REQUESTS_MAX: usize = 8192;

/// Octets that wait for the journal's thread.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX, "a largest record must fit a batch");
const _: () = assert!(BATCH_BYTES_MAX <= QUEUE_BYTES_MAX, "a largest batch must fit the queue");
const _: () = assert!(COMPACT_BYTES_MIN < SEGMENT_BYTES_MAX / 4, "compaction must be asked for long before the limit");
const _: () = assert!(RECORD_BYTES_MAX < u32::MAX as usize, "a payload's length is 32 bits on disk");
