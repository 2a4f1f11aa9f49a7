//! What the engine counts, by reason.

use std::collections::BTreeMap;

/// A counter's name and its one label, both out of closed sets of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// Family, e.g. `dhcp_dropped`.
    pub family: &'static str,
    /// Reason or kind.
    pub label: &'static str,
}

/// The engine's counters since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters(BTreeMap<Counter, u64>);

impl Counters {
    pub(crate) fn add(&mut self, family: &'static str, label: &'static str) {
        *self.0.entry(Counter { family, label }).or_default() += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Counter, u64)> {
        self.0.iter().map(|(counter, value)| (*counter, *value))
    }

    pub(crate) fn get(&self, family: &'static str, label: &'static str) -> u64 {
        self.0.get(&Counter { family, label }).copied().unwrap_or(0)
    }
}
