//! The journal itself: opening, appending, committing, compacting.

use std::io;
use std::ops::{Range, RangeInclusive};

use crate::compaction::{Compaction, Live, Slice};
use crate::error::Error;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, COMPACT_BYTES_MIN, COMPACT_GROWTH, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX,
};
use crate::record::{FRAME_BYTES, Frame, HEADER_BYTES, Key, SegmentHeader};
use crate::{Disk, RealDisk};

const TEMPORARY: &str = "segment.tmp";

/// What to do when records that were durable cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// Fail with [`Error::Damaged`]: leases or claims are lost, and an operator should know before they are.
    #[default]
    Refuse,
    /// Keep the whole batches in front of the damage and drop the rest.
    KeepWholePrefix,
}

/// What a journal held when it was opened: the snapshot's records, then the records of whole batches, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    segment: Vec<u8>,
    records: Vec<(u64, Range<usize>)>,
    /// Sequence of the last durable record; 0 for a new journal.
    pub last_sequence: u64,
    /// Octets behind the last whole batch that were cut off: the unfinished write of a crash, never committed.
    pub torn_bytes: u64,
    /// Whether records that were durable have been dropped under [`OnDamage::KeepWholePrefix`].
    pub damaged: bool,
}

impl Recovered {
    /// Sequence and payload of each record, in order. Records of the snapshot all have the sequence of the last record
    /// that the snapshot stands for.
    pub fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        // The ranges come from the segment they point into.
        self.records.iter().filter_map(|(sequence, range)| Some((*sequence, self.segment.get(range.clone())?)))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Answer of [`Journal::commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// All records up to and with this sequence are durable.
    pub last_sequence: u64,
    /// Octets of the segment.
    pub segment_bytes: u64,
    /// Whether the segment has grown so far over its snapshot that a compaction is worth its cost, and none is under way.
    pub compaction_due: bool,
}

/// A durable log, owned by one thread. The crate's documentation states the contract.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    file: D::File,
    key: Key,
    epoch: u64,
    segment_bytes: u64,
    snapshot_bytes: u64,
    last_sequence: u64,
    durable_sequence: u64,
    stopped: bool,
    buffer: Vec<u8>,
    compaction: Option<Compaction<D::File>>,
}

impl Journal<RealDisk> {
    /// Opens the journal in a real directory (see [`RealDisk::open`]).
    pub fn open_directory(
        directory: &std::path::Path,
        on_damage: OnDamage,
    ) -> Result<(Journal<RealDisk>, Recovered), Error> {
        let disk = RealDisk::open(directory).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::InUse { directory: directory.display().to_string() },
            _ => Error::Disk { operation: "open directory", name: directory.display().to_string(), source },
        })?;
        Journal::open(disk, on_damage)
    }
}

impl<D: Disk> Journal<D> {
    /// Opens the journal, or makes a new one in an empty directory; cuts off an unfinished last batch and removes what
    /// an interrupted compaction left behind. On success everything in [`Recovered`] is durable.
    pub fn open(mut disk: D, on_damage: OnDamage) -> Result<(Journal<D>, Recovered), Error> {
        let names = disk.list().map_err(at("list", "."))?;
        if names.iter().any(|name| name == TEMPORARY) {
            disk.remove(TEMPORARY).map_err(at("remove", TEMPORARY))?;
        }
        let mut epochs: Vec<u64> = names.iter().filter_map(|name| segment_epoch(name)).collect();
        epochs.sort_unstable();
        let Some(epoch) = epochs.pop() else {
            return Journal::create(disk);
        };
        let name = segment_name(epoch);
        let segment = disk.read(&name, SEGMENT_BYTES_MAX).map_err(at("read", &name))?;
        let header = SegmentHeader::parse(&segment).map_err(|why| Error::BadHeader { name: name.clone(), why })?;
        if header.epoch != epoch {
            return Err(Error::BadHeader { name, why: "epoch differs from the file's name" });
        }
        let scan = Scan::run(&header, &segment);
        if let Some(offset) = scan.damaged_at
            && on_damage == OnDamage::Refuse
        {
            return Err(Error::Damaged { name, offset: offset as u64, last_sequence: scan.last_sequence });
        }
        let mut file = disk.open(&name).map_err(at("open", &name))?;
        let torn_bytes = (segment.len() - scan.whole_bytes) as u64;
        if torn_bytes > 0 {
            disk.truncate(&mut file, scan.whole_bytes as u64).map_err(at("truncate", &name))?;
        }
        // Also without a torn tail: the last batch may have reached the page cache only, and is shown from here on.
        disk.sync(&mut file).map_err(at("sync", &name))?;
        // The new segment's name is made durable before the old segment goes.
        disk.sync_dir().map_err(at("sync directory", "."))?;
        for old in epochs {
            let old = segment_name(old);
            disk.remove(&old).map_err(at("remove", &old))?;
        }
        let recovered = Recovered {
            last_sequence: scan.last_sequence,
            torn_bytes,
            damaged: scan.damaged_at.is_some(),
            records: scan.records,
            segment,
        };
        let mut journal = Journal {
            disk,
            file,
            key: header.key,
            epoch,
            segment_bytes: scan.whole_bytes as u64,
            snapshot_bytes: header.snapshot_bytes,
            last_sequence: recovered.last_sequence,
            durable_sequence: recovered.last_sequence,
            stopped: false,
            buffer: Vec::new(),
            compaction: None,
        };
        if recovered.damaged {
            // What is kept gets a sound segment of its own; a snapshot with a hole could not be appended to.
            let kept: Vec<&[u8]> = recovered.records().map(|(_, payload)| payload).collect();
            journal.compact(&kept)?;
        }
        Ok((journal, recovered))
    }

    fn create(mut disk: D) -> Result<(Journal<D>, Recovered), Error> {
        let key = disk.random_key().map_err(at("random key for", "."))?;
        let header = SegmentHeader { epoch: 1, base_sequence: 0, snapshot_bytes: 0, key };
        let mut file = begin_segment(&mut disk, &header)?;
        disk.sync(&mut file).map_err(at("sync", TEMPORARY))?;
        disk.rename(TEMPORARY, &segment_name(1)).map_err(at("rename", TEMPORARY))?;
        disk.sync_dir().map_err(at("sync directory", "."))?;
        let journal = Journal {
            disk,
            file,
            key,
            epoch: 1,
            segment_bytes: HEADER_BYTES as u64,
            snapshot_bytes: 0,
            last_sequence: 0,
            durable_sequence: 0,
            stopped: false,
            buffer: Vec::new(),
            compaction: None,
        };
        let recovered =
            Recovered { segment: Vec::new(), records: Vec::new(), last_sequence: 0, torn_bytes: 0, damaged: false };
        Ok((journal, recovered))
    }

    /// Appends one batch and gives the sequences of its records. Not durable before [`Journal::commit`].
    ///
    /// A payload or batch over the limits and a full segment are refused with nothing changed; a failed write stops
    /// the journal.
    pub fn append<P: AsRef<[u8]>>(&mut self, batch: &[P]) -> Result<RangeInclusive<u64>, Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        let mut bytes = 0usize;
        for payload in batch {
            bytes = bytes.saturating_add(record_bytes(payload.as_ref())?);
        }
        if batch.is_empty() || batch.len() > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { records: batch.len(), bytes });
        }
        if self.segment_bytes + bytes as u64 > SEGMENT_BYTES_MAX {
            return Err(Error::SegmentFull { bytes: self.segment_bytes });
        }
        let first = self.last_sequence + 1;
        self.buffer.clear();
        let mut sequence = self.last_sequence;
        for payload in batch {
            sequence += 1;
            let frame = Frame {
                epoch: self.epoch,
                sequence,
                durable_sequence: self.durable_sequence,
                batch_end: sequence - self.last_sequence == batch.len() as u64,
                snapshot: false,
            };
            frame.emit(&self.key, payload.as_ref(), &mut self.buffer);
        }
        if let Err(source) = self.disk.append(&mut self.file, &self.buffer) {
            self.stopped = true;
            return Err(at("append to", &segment_name(self.epoch))(source));
        }
        self.segment_bytes += bytes as u64;
        self.last_sequence = sequence;
        if let Some(compaction) = &mut self.compaction {
            compaction.keep(batch);
        }
        Ok(first..=sequence)
    }

    /// Makes all appended batches durable with one sync. With nothing to sync it only answers. A failed sync stops the
    /// journal: the kernel may have dropped the octets and say "fine" the next time.
    pub fn commit(&mut self) -> Result<Committed, Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        if self.durable_sequence != self.last_sequence {
            if let Err(source) = self.disk.sync(&mut self.file) {
                self.stopped = true;
                return Err(at("sync", &segment_name(self.epoch))(source));
            }
            self.durable_sequence = self.last_sequence;
        }
        Ok(self.committed())
    }

    fn committed(&self) -> Committed {
        let grown = self.segment_bytes.saturating_sub(self.snapshot_bytes + HEADER_BYTES as u64);
        let worth = COMPACT_BYTES_MIN.max(self.snapshot_bytes.saturating_mul(COMPACT_GROWTH));
        Committed {
            last_sequence: self.durable_sequence,
            segment_bytes: self.segment_bytes,
            compaction_due: self.compaction.is_none()
                && (grown >= worth || self.segment_bytes >= SEGMENT_BYTES_MAX / 2),
        }
    }

    /// Begins to replace everything written so far by `live`, which must stand for all records appended so far; those that
    /// were not committed yet are covered by it. [`Journal::step_compaction`] goes on, and batches may be appended and
    /// committed in between.
    ///
    /// A snapshot over the limit, a compaction that is under way and a full disk are refused, with nothing changed.
    pub fn begin_compaction(&mut self, live: impl Into<Live>) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        if self.compaction.is_some() {
            return Err(Error::Compacting);
        }
        let live = live.into();
        let snapshot_bytes = live.segment_bytes();
        if snapshot_bytes + HEADER_BYTES as u64 > SEGMENT_BYTES_MAX {
            return Err(Error::SegmentFull { bytes: snapshot_bytes });
        }
        let epoch = self.epoch + 1;
        let header = SegmentHeader { epoch, base_sequence: self.last_sequence, snapshot_bytes, key: self.key };
        let file = begin_segment(&mut self.disk, &header)?;
        self.compaction = Some(Compaction::new(file, header, live));
        Ok(())
    }

    /// Whether a compaction is under way.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Writes and syncs the next slice of a compaction; `None` until it is done, and if none is under way. With the last slice
    /// the new segment takes its name by rename, the directory is synced, and only then does the old segment go; everything
    /// appended so far is durable then.
    ///
    /// A failure before the rename (a full disk) ends the compaction, leaves the old segment in use and is reported; after it,
    /// the journal stops.
    pub fn step_compaction(&mut self) -> Result<Option<Committed>, Error> {
        let Some(mut compaction) = self.compaction.take() else { return Ok(None) };
        let slice = compaction.slice();
        let (bytes, last_sequence) = match &slice {
            Slice::Snapshot(bytes) => (bytes, None),
            Slice::Last(bytes, last_sequence) => (bytes, Some(*last_sequence)),
            Slice::Contradiction => {
                let _ = self.disk.remove(TEMPORARY);
                return Err(Error::Contradiction);
            }
        };
        let (disk, file) = (&mut self.disk, &mut compaction.file);
        if let Err(source) = disk.append(file, bytes).and_then(|()| disk.sync(file)) {
            // The first error is the one to report; a file that stays behind is removed when the journal is opened.
            let _ = self.disk.remove(TEMPORARY);
            return Err(at("write", TEMPORARY)(source));
        }
        let Some(last_sequence) = last_sequence else {
            self.compaction = Some(compaction);
            return Ok(None);
        };
        debug_assert_eq!(last_sequence, self.last_sequence, "the tail has every batch since the beginning");
        self.take_over(compaction).map(Some)
    }

    /// The new segment takes its name.
    fn take_over(&mut self, compaction: Compaction<D::File>) -> Result<Committed, Error> {
        let Compaction { file, header, bytes: segment_bytes, .. } = compaction;
        let (old, new) = (segment_name(self.epoch), segment_name(header.epoch));
        let renamed = self.disk.rename(TEMPORARY, &new).map_err(at("rename", TEMPORARY));
        if let Err(error) = renamed.and_then(|()| self.disk.sync_dir().map_err(at("sync directory", "."))) {
            self.stopped = true;
            return Err(error);
        }
        self.file = file;
        self.epoch = header.epoch;
        self.snapshot_bytes = header.snapshot_bytes;
        self.segment_bytes = segment_bytes;
        self.durable_sequence = self.last_sequence;
        // If this fails or is lost in a crash, the next opening removes it: the higher epoch counts.
        if let Err(source) = self.disk.remove(&old) {
            self.stopped = true;
            return Err(at("remove", &old)(source));
        }
        Ok(self.committed())
    }

    /// A compaction at one go: [`Journal::begin_compaction`], and every step of it.
    pub fn compact<P: AsRef<[u8]>>(&mut self, live: &[P]) -> Result<Committed, Error> {
        for payload in live {
            record_bytes(payload.as_ref())?;
        }
        self.begin_compaction(live.iter().map(|payload| payload.as_ref().to_vec()).collect::<Vec<_>>())?;
        loop {
            if let Some(committed) = self.step_compaction()? {
                return Ok(committed);
            }
        }
    }

    /// Sequence of the last appended record; 0 if there was none.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Whether an earlier failure has stopped the journal.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Octets of the segment in use.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Epoch of the segment in use; each compaction adds one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Makes the temporary file with a header. On an error it is removed if that can be done; opening removes it too.
fn begin_segment<D: Disk>(disk: &mut D, header: &SegmentHeader) -> Result<D::File, Error> {
    let begin = |disk: &mut D| -> io::Result<D::File> {
        let mut file = disk.create(TEMPORARY)?;
        disk.append(&mut file, &header.emit())?;
        Ok(file)
    };
    begin(disk).map_err(|source| {
        // The first error is the one to report.
        let _ = disk.remove(TEMPORARY);
        at("write", TEMPORARY)(source)
    })
}

/// Result of reading a segment from front to back.
struct Scan {
    records: Vec<(u64, Range<usize>)>,
    last_sequence: u64,
    /// Octets up to the end of the last whole batch.
    whole_bytes: usize,
    /// Offset of the first record that does not check although it was durable.
    damaged_at: Option<usize>,
}

impl Scan {
    fn run(header: &SegmentHeader, segment: &[u8]) -> Scan {
        let snapshot_end = usize::try_from(header.snapshot_bytes).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
        let mut scan = Scan {
            records: Vec::new(),
            last_sequence: header.base_sequence,
            whole_bytes: HEADER_BYTES,
            damaged_at: None,
        };
        let mut batch: Vec<(u64, Range<usize>)> = Vec::new();
        let mut offset = HEADER_BYTES;
        let mut sequence = header.base_sequence;
        while let Some((frame, payload)) = Frame::parse(&header.key, header.epoch, segment, offset) {
            let in_snapshot = offset < snapshot_end;
            let expected = if in_snapshot { header.base_sequence } else { sequence + 1 };
            if frame.sequence != expected || frame.snapshot != in_snapshot {
                break;
            }
            sequence = expected;
            offset = payload.end;
            batch.push((sequence, payload));
            if frame.batch_end {
                scan.records.append(&mut batch);
                scan.last_sequence = sequence;
                scan.whole_bytes = offset;
            }
        }
        if scan.whole_bytes < snapshot_end || promised_behind(header, segment, offset, sequence) {
            scan.damaged_at = Some(offset);
        }
        scan
    }
}

/// Whether a record behind `offset` says that a record after `sequence` was already durable: then the record at
/// `offset` was lost by the medium and not by a crash during its write.
fn promised_behind(header: &SegmentHeader, segment: &[u8], offset: usize, sequence: u64) -> bool {
    (offset..segment.len()).any(|at| {
        Frame::parse(&header.key, header.epoch, segment, at).is_some_and(|(frame, _)| frame.durable_sequence > sequence)
    })
}

fn record_bytes(payload: &[u8]) -> Result<usize, Error> {
    if payload.len() > RECORD_BYTES_MAX {
        return Err(Error::RecordTooLarge { bytes: payload.len(), limit: RECORD_BYTES_MAX });
    }
    Ok(FRAME_BYTES + payload.len())
}

fn segment_name(epoch: u64) -> String {
    format!("journal-{epoch:016x}.log")
}

fn segment_epoch(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal-")?.strip_suffix(".log")?;
    let epoch = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(epoch) == name).then_some(epoch)
}

fn at(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let name = name.to_owned();
    move |source| Error::Disk { operation, name, source }
}
