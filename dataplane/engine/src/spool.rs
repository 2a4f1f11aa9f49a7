//! Observations until control has acknowledged them.

use std::collections::VecDeque;

use bootstorm_snapshot::Observation;

use crate::limits;

/// How much an observation is worth when room is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// A trace or a lease: may be left out when the spool is nearly full.
    Minor,
    /// A result: the request that brings it is refused rather than the result lost.
    Major,
}

/// The spool. Numbers rise by one, from 1, for the life of the journal.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    /// Kept observations with the journal's sequence and their size.
    kept: VecDeque<Kept>,
    bytes: usize,
    last_number: u64,
    acknowledged: u64,
}

#[derive(Debug)]
struct Kept {
    observation: Observation,
    journal_sequence: u64,
    bytes: usize,
}

impl Spool {
    /// Whether an observation of this worth may be added.
    pub(crate) fn has_room(&self, worth: Worth) -> bool {
        let percent = match worth {
            Worth::Minor => limits::SPOOL_MINOR_PERCENT_MAX,
            Worth::Major => 100,
        };
        self.kept.len() < limits::SPOOL_OBSERVATIONS_MAX / 100 * percent
            && self.bytes < limits::SPOOL_BYTES_MAX / 100 * percent
    }

    /// The number for the next observation.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Adds an observation with the next number, which the journal will hold as `journal_sequence`.
    pub(crate) fn push(&mut self, observation: Observation, journal_sequence: u64, bytes: usize) {
        self.last_number = self.last_number.max(observation.sequence);
        if observation.sequence > self.acknowledged {
            self.bytes += bytes;
            self.kept.push_back(Kept { observation, journal_sequence, bytes });
        }
    }

    /// Control has applied everything through `number`. Says whether that was news.
    pub(crate) fn acknowledge(&mut self, number: u64) -> bool {
        let number = number.min(self.last_number);
        if number <= self.acknowledged {
            return false;
        }
        self.acknowledged = number;
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.observation.sequence <= number) {
            self.bytes -= kept.bytes;
        }
        true
    }

    /// Restores the two marks from the journal.
    pub(crate) fn restore(&mut self, acknowledged: u64, last_number: u64) {
        self.last_number = self.last_number.max(last_number);
        self.acknowledge(acknowledged);
    }

    /// Durable observations with a number above `after`, oldest first, at most `count`.
    pub(crate) fn after(&self, after: u64, count: usize, committed: u64) -> Vec<Observation> {
        let start = self.kept.partition_point(|kept| kept.observation.sequence <= after);
        let rest = self.kept.range(start..).take_while(|kept| kept.journal_sequence <= committed);
        rest.take(count).map(|kept| kept.observation.clone()).collect()
    }

    /// Whether so many durable observations have a number above `after`.
    pub(crate) fn has(&self, after: u64, count: usize, committed: u64) -> bool {
        let start = self.kept.partition_point(|kept| kept.observation.sequence <= after);
        let last = (start + count).checked_sub(1).and_then(|last| self.kept.get(last));
        count > 0 && last.is_some_and(|last| last.journal_sequence <= committed)
    }

    /// All kept observations, oldest first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Observation> {
        self.kept.iter().map(|kept| &kept.observation)
    }

    /// Last number acknowledged, and last number given.
    pub(crate) fn marks(&self) -> (u64, u64) {
        (self.acknowledged, self.last_number)
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}
