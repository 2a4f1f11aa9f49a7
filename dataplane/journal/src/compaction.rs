//! A compaction while it is under way: the new segment grows beside the old one, a slice at a time.
//!
//! With a million leases a snapshot is a hundred megabytes. Written at once it would hold up every answer that waits for a sync;
//! so it is written and synced in slices of [`COMPACT_SLICE_BYTES`], between the commits of the old segment. What is appended
//! there meanwhile is kept, and follows the snapshot before the new segment takes its name.

use std::fmt;

use crate::limits::{COMPACT_SLICE_BYTES, RECORD_BYTES_MAX};
use crate::record::{FRAME_BYTES, Frame, HEADER_BYTES, SegmentHeader};

/// The records that a journal is to hold in place of all it has. They are taken one by one, on the journal's thread, so that
/// whoever gives them need not have them encoded.
pub struct Live {
    records: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    count: u64,
    payload_bytes: u64,
}

impl Live {
    /// Records with what is known of them beforehand: their number, and the octets of their payloads. A compaction in which
    /// these turn out to be wrong fails, and changes nothing.
    pub fn new(records: impl Iterator<Item = Vec<u8>> + Send + 'static, count: u64, payload_bytes: u64) -> Live {
        Live { records: Box::new(records), count, payload_bytes }
    }

    /// More records behind these.
    pub fn chain(self, other: Live) -> Live {
        Live {
            records: Box::new(self.records.chain(other.records)),
            count: self.count + other.count,
            payload_bytes: self.payload_bytes + other.payload_bytes,
        }
    }

    /// Octets of the records in a segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.count.saturating_mul(FRAME_BYTES as u64).saturating_add(self.payload_bytes)
    }
}

impl From<Vec<Vec<u8>>> for Live {
    fn from(records: Vec<Vec<u8>>) -> Live {
        let payload_bytes = records.iter().map(|payload| payload.len() as u64).sum();
        let count = records.len() as u64;
        Live::new(records.into_iter(), count, payload_bytes)
    }
}

impl IntoIterator for Live {
    type Item = Vec<u8>;
    type IntoIter = Box<dyn Iterator<Item = Vec<u8>> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        self.records
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("count", &self.count).field("payload_bytes", &self.payload_bytes).finish()
    }
}

/// What the next slice is.
pub(crate) enum Slice {
    /// Octets to append and to sync.
    Snapshot(Vec<u8>),
    /// The last octets, after which the segment is whole; and the sequence of its last record.
    Last(Vec<u8>, u64),
    /// What [`Live`] said of itself is wrong.
    Contradiction,
}

/// The new segment as far as it is written.
pub(crate) struct Compaction<F> {
    pub(crate) file: F,
    pub(crate) header: SegmentHeader,
    live: Live,
    taken: u64,
    /// Octets of the snapshot not yet handed out.
    left: u64,
    /// Octets handed out, the header's included.
    pub(crate) bytes: u64,
    /// Batches that have been appended to the old segment since it began.
    tail: Vec<Vec<Vec<u8>>>,
}

impl<F> fmt::Debug for Compaction<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compaction").field("live", &self.live).field("left", &self.left).finish_non_exhaustive()
    }
}

impl<F> Compaction<F> {
    pub(crate) fn new(file: F, header: SegmentHeader, live: Live) -> Compaction<F> {
        let (left, bytes) = (header.snapshot_bytes, HEADER_BYTES as u64);
        Compaction { file, header, taken: 0, left, bytes, live, tail: Vec::new() }
    }

    /// Keeps a batch that the old segment has got.
    pub(crate) fn keep<P: AsRef<[u8]>>(&mut self, batch: &[P]) {
        self.tail.push(batch.iter().map(|payload| payload.as_ref().to_vec()).collect());
    }

    /// The next octets of the new segment.
    pub(crate) fn slice(&mut self) -> Slice {
        let mut bytes = Vec::new();
        while bytes.len() < COMPACT_SLICE_BYTES {
            let Some(payload) = self.live.records.next() else {
                if self.taken != self.live.count || self.left != 0 {
                    return Slice::Contradiction;
                }
                let last_sequence = self.emit_tail(&mut bytes);
                self.bytes += bytes.len() as u64;
                return Slice::Last(bytes, last_sequence);
            };
            self.taken += 1;
            let size = (FRAME_BYTES + payload.len()) as u64;
            let fits = self.taken <= self.live.count && payload.len() <= RECORD_BYTES_MAX;
            let Some(left) = self.left.checked_sub(size).filter(|_| fits) else { return Slice::Contradiction };
            self.left = left;
            let base = self.header.base_sequence;
            let batch_end = self.taken == self.live.count;
            let frame =
                Frame { epoch: self.header.epoch, sequence: base, durable_sequence: base, batch_end, snapshot: true };
            frame.emit(&self.header.key, &payload, &mut bytes);
        }
        self.bytes += bytes.len() as u64;
        Slice::Snapshot(bytes)
    }

    /// Each batch says that the one before it is durable: all of them are when the segment has its name.
    fn emit_tail(&self, bytes: &mut Vec<u8>) -> u64 {
        let mut sequence = self.header.base_sequence;
        for batch in &self.tail {
            let durable_sequence = sequence;
            for (index, payload) in batch.iter().enumerate() {
                sequence += 1;
                let batch_end = index + 1 == batch.len();
                let epoch = self.header.epoch;
                let frame = Frame { epoch, sequence, durable_sequence, batch_end, snapshot: false };
                frame.emit(&self.header.key, payload, bytes);
            }
        }
        sequence
    }
}
