//! Octets of segments and records. Reading never panics: every length is checked against what is there, and a record
//! counts only if its keyed checksum does.

use crate::limits::RECORD_BYTES_MAX;

pub(crate) const HEADER_BYTES: usize = 96;
pub(crate) const FRAME_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"BSTJRNL1";
const FLAG_BATCH_END: u32 = 1;
const FLAG_SNAPSHOT: u32 = 2;

/// Key of the directory's checksums.
pub(crate) type Key = [u8; 32];

/// First octets of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub epoch: u64,
    /// Sequence of the last record that the snapshot stands for.
    pub base_sequence: u64,
    /// Octets that the snapshot's records take after the header. They were synced before the segment got its name.
    pub snapshot_bytes: u64,
    pub key: Key,
}

impl SegmentHeader {
    pub(crate) fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.base_sequence.to_le_bytes());
        out.extend_from_slice(&self.snapshot_bytes.to_le_bytes());
        out.extend_from_slice(&self.key);
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<SegmentHeader, &'static str> {
        let Some((body, sum)) = bytes.get(..HEADER_BYTES).and_then(|header| header.split_at_checked(64)) else {
            return Err("shorter than a header");
        };
        if !body.starts_with(MAGIC) {
            return Err("unknown format");
        }
        if blake3::hash(body).as_bytes() != sum {
            return Err("checksum of the header");
        }
        let read = || {
            Some(SegmentHeader {
                epoch: u64_at(body, 8)?,
                base_sequence: u64_at(body, 16)?,
                snapshot_bytes: u64_at(body, 24)?,
                key: body.get(32..64)?.try_into().ok()?,
            })
        };
        read().ok_or("shorter than a header")
    }
}

/// Everything of a record but its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub epoch: u64,
    pub sequence: u64,
    /// Last sequence known to be durable when the record was written.
    pub durable_sequence: u64,
    pub batch_end: bool,
    pub snapshot: bool,
}

impl Frame {
    /// Appends frame and payload to `out`. The payload is within [`RECORD_BYTES_MAX`]; the caller has checked it.
    pub(crate) fn emit(&self, key: &Key, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(payload.len() <= RECORD_BYTES_MAX);
        let start = out.len();
        let flags = if self.batch_end { FLAG_BATCH_END } else { 0 } | if self.snapshot { FLAG_SNAPSHOT } else { 0 };
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.durable_sequence.to_le_bytes());
        let sum = checksum(key, out.get(start..).unwrap_or_default(), payload);
        out.extend_from_slice(&sum);
        out.extend_from_slice(payload);
    }

    /// Reads the record at `offset` of a segment: the frame, and the payload as a range of `segment`.
    /// None if anything at all does not hold.
    pub(crate) fn parse(
        key: &Key,
        epoch: u64,
        segment: &[u8],
        offset: usize,
    ) -> Option<(Frame, std::ops::Range<usize>)> {
        let body = segment.get(offset..)?.get(..FRAME_BYTES)?;
        // Cheap tests first: the search behind a bad record tries every offset.
        if u64_at(body, 8)? != epoch {
            return None;
        }
        let length = usize::try_from(u32_at(body, 0)?).ok()?;
        let flags = u32_at(body, 4)?;
        if length > RECORD_BYTES_MAX || flags & !(FLAG_BATCH_END | FLAG_SNAPSHOT) != 0 {
            return None;
        }
        let start = offset.checked_add(FRAME_BYTES)?;
        let range = start..start.checked_add(length)?;
        let payload = segment.get(range.clone())?;
        if checksum(key, body.get(..32)?, payload) != *body.get(32..48)? {
            return None;
        }
        let frame = Frame {
            epoch,
            sequence: u64_at(body, 16)?,
            durable_sequence: u64_at(body, 24)?,
            batch_end: flags & FLAG_BATCH_END != 0,
            snapshot: flags & FLAG_SNAPSHOT != 0,
        };
        Some((frame, range))
    }
}

fn checksum(key: &Key, head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(head);
    hasher.update(payload);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn frame() -> Frame {
        Frame { epoch: 3, sequence: 9, durable_sequence: 8, batch_end: true, snapshot: false }
    }

    #[test]
    fn round_trip_and_every_change_refused() {
        let mut bytes = Vec::new();
        frame().emit(&KEY, b"payload", &mut bytes);
        assert_eq!(Frame::parse(&KEY, 3, &bytes, 0), Some((frame(), FRAME_BYTES..FRAME_BYTES + 7)));
        assert_eq!(Frame::parse(&[8; 32], 3, &bytes, 0), None, "another journal's key");
        assert_eq!(Frame::parse(&KEY, 4, &bytes, 0), None, "another epoch");
        for length in 0..bytes.len() {
            assert_eq!(Frame::parse(&KEY, 3, &bytes[..length], 0), None, "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::parse(&KEY, 3, &changed, 0), None, "bit {bit}");
        }
        assert_eq!(Frame::parse(&KEY, 3, &bytes, usize::MAX), None);
    }

    #[test]
    fn header_round_trip_and_every_change_refused() {
        let header = SegmentHeader { epoch: 1, base_sequence: 2, snapshot_bytes: 3, key: KEY };
        let bytes = header.emit();
        assert_eq!(SegmentHeader::parse(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&changed).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SegmentHeader::parse(&bytes[..length]).is_err());
        }
    }
}
