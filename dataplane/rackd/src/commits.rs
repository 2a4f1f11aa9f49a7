//! Batches on their way to the journal: when the disk is to be bothered.
//!
//! A sync costs the same for one lease as for five hundred. A batch goes at once when the last one went some milliseconds ago
//! and is durable; else it gathers what comes in the meantime, and goes with it when both hold or when it is full. So a lone
//! client waits for the disk alone, and a storm costs at most one sync each [`limits::COMMIT_INTERVAL`].

use std::collections::VecDeque;
use std::time::Instant;

use bootstorm_journal::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};

use crate::limits;

/// Payloads in their order, and the sequence of the last of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) last_sequence: u64,
}

/// What the engine wants written and the journal has not got yet. Bounded by what the engine lets be uncommitted.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// All but the last are full.
    waiting: VecDeque<Batch>,
    last_bytes: usize,
    /// Sequence handed over last, and when; until it is durable.
    handed: Option<(u64, Instant)>,
    durable: u64,
    /// The journal had no room: it is asked again when it has committed something.
    refused: bool,
}

impl Commits {
    /// Adds what one input of the engine wrote; it stays whole.
    pub(crate) fn push(&mut self, mut records: Vec<Vec<u8>>, last_sequence: u64) {
        let bytes: usize = records.iter().map(|record| record.len() + limits::JOURNAL_FRAME_BYTES).sum();
        if let Some(last) = self.waiting.back_mut()
            && last.records.len() + records.len() <= BATCH_RECORDS_MAX
            && self.last_bytes + bytes <= BATCH_BYTES_MAX
        {
            last.records.append(&mut records);
            last.last_sequence = last_sequence;
            self.last_bytes += bytes;
        } else {
            self.waiting.push_back(Batch { records, last_sequence });
            self.last_bytes = bytes;
        }
    }

    /// Everything through this sequence is durable.
    pub(crate) fn committed(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence);
        self.refused = false;
    }

    /// When the next batch may go without anything else happening first.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let first = self.waiting.front().filter(|_| !self.refused)?;
        if self.waiting.len() > 1 || first.records.len() >= BATCH_RECORDS_MAX {
            return Some(now);
        }
        match self.handed {
            None => Some(now),
            Some((sequence, at)) => (sequence <= self.durable).then(|| at + limits::COMMIT_INTERVAL),
        }
    }

    /// The next batch, if it may go now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Batch> {
        self.due(now).filter(|due| *due <= now)?;
        self.take_any(now)
    }

    /// The next batch, whether it is time or not.
    pub(crate) fn take_any(&mut self, now: Instant) -> Option<Batch> {
        let batch = self.waiting.pop_front()?;
        self.handed = Some((batch.last_sequence, now));
        Some(batch)
    }

    /// The journal had no room for the batch that was taken.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        if self.waiting.is_empty() {
            self.last_bytes = BATCH_BYTES_MAX;
        }
        self.waiting.push_front(batch);
        (self.handed, self.refused) = (None, true);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn push(commits: &mut Commits, sequence: u64) {
        commits.push(vec![vec![0; 45]], sequence);
    }

    fn taken(commits: &mut Commits, now: Instant) -> Option<(usize, u64)> {
        commits.take(now).map(|batch| (batch.records.len(), batch.last_sequence))
    }

    #[test]
    fn a_lone_batch_goes_at_once_and_a_storm_gathers() {
        let start = Instant::now();
        let mut commits = Commits::default();
        assert_eq!(commits.due(start), None);
        push(&mut commits, 1);
        assert_eq!(taken(&mut commits, start), Some((1, 1)));
        push(&mut commits, 2);
        let soon = start + Duration::from_millis(1);
        assert_eq!((commits.due(soon), taken(&mut commits, soon)), (None, None), "a sync is under way");
        push(&mut commits, 3);
        commits.committed(1);
        assert_eq!((commits.due(soon), taken(&mut commits, soon)), (Some(start + limits::COMMIT_INTERVAL), None));
        assert_eq!(taken(&mut commits, start + limits::COMMIT_INTERVAL), Some((2, 3)));
        commits.committed(3);
        push(&mut commits, 4);
        assert_eq!(taken(&mut commits, start + 3 * limits::COMMIT_INTERVAL), Some((1, 4)), "long after the last");
    }

    #[test]
    fn a_full_batch_does_not_wait_and_no_input_is_cut() {
        let start = Instant::now();
        let mut commits = Commits::default();
        push(&mut commits, 1);
        assert!(commits.take(start).is_some());
        for n in 0..171u64 {
            commits.push(vec![vec![0; 45]; 3], 4 + 3 * n);
        }
        assert_eq!(taken(&mut commits, start), Some((510, 511)));
        assert_eq!(taken(&mut commits, start), None, "the rest is not full");
        commits.committed(511);
        assert_eq!(taken(&mut commits, start + limits::COMMIT_INTERVAL), Some((3, 514)));
    }

    #[test]
    fn what_the_journal_refuses_goes_first_when_it_has_room() {
        let start = Instant::now();
        let mut commits = Commits::default();
        push(&mut commits, 1);
        let batch = commits.take(start).expect("at once");
        commits.give_back(batch);
        push(&mut commits, 2);
        assert_eq!(taken(&mut commits, start + limits::COMMIT_INTERVAL), None, "it would refuse again");
        commits.committed(0);
        assert_eq!(taken(&mut commits, start + limits::COMMIT_INTERVAL), Some((1, 1)));
        assert_eq!(commits.take_any(start).map(|batch| batch.last_sequence), Some(2));
        assert!(commits.is_empty());
    }
}
