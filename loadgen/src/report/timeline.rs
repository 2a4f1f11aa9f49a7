//! What came when: counters by slots of equal width. When all slots are used, neighbours are joined and the width doubles, so
//! that a run of any length has at most [`SLOTS_MAX`] of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Slots kept: more than a plot on a screen can show.
const SLOTS_MAX: usize = 1_200;
/// Width at the beginning: two minutes fit before the first joining.
const WIDTH_FIRST: Duration = Duration::from_millis(100);

/// Columns of the same length, one slot after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// Width of a slot.
    pub slot_milliseconds: u64,
    /// Bytes received in it.
    pub bytes: Vec<u64>,
    /// Nodes or exchanges that came to their end in it.
    pub done: Vec<u64>,
    /// Those that failed in it.
    pub failed: Vec<u64>,
    /// Nodes in each stage at its end, by stage.
    pub live: Vec<Vec<u64>>,
}

impl Timeline {
    /// Without slots yet.
    pub(super) fn new(stages: usize) -> Timeline {
        Timeline {
            slot_milliseconds: WIDTH_FIRST.as_millis() as u64,
            bytes: Vec::new(),
            done: Vec::new(),
            failed: Vec::new(),
            live: vec![Vec::new(); stages],
        }
    }

    /// The slot of this time. Slots up to it are made; until now as many nodes were in each stage as `live` says.
    pub(super) fn slot(&mut self, now: Duration, live: &[u64]) -> usize {
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        while milliseconds / self.slot_milliseconds >= SLOTS_MAX as u64 {
            self.halve();
        }
        let slot = (milliseconds / self.slot_milliseconds) as usize;
        if self.bytes.len() <= slot {
            let counters = [&mut self.bytes, &mut self.done, &mut self.failed];
            counters.into_iter().for_each(|column| column.resize(slot + 1, 0));
            self.live.iter_mut().zip(live).for_each(|(column, live)| column.resize(slot + 1, *live));
        }
        slot
    }

    fn halve(&mut self) {
        self.slot_milliseconds *= 2;
        for column in [&mut self.bytes, &mut self.done, &mut self.failed] {
            *column = column.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        for column in &mut self.live {
            *column = column.chunks(2).filter_map(|pair| pair.last().copied()).collect();
        }
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the columns fit one another, and `stages`.
    pub(super) fn is_consistent(&self, stages: usize) -> bool {
        let columns = [&self.bytes, &self.done, &self.failed].into_iter().chain(&self.live);
        self.slot_milliseconds > 0
            && self.live.len() == stages
            && self.len() <= SLOTS_MAX
            && columns.into_iter().all(|column| column.len() == self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_few_slots_and_loses_nothing() {
        let mut timeline = Timeline::new(1);
        for second in 0..10_000 {
            let slot = timeline.slot(Duration::from_secs(second), &[second]);
            timeline.bytes[slot] += 1;
        }
        assert!(timeline.len() <= SLOTS_MAX && timeline.is_consistent(1) && !timeline.is_consistent(2));
        assert_eq!(timeline.bytes.iter().sum::<u64>(), 10_000);
        assert_eq!(timeline.slot_milliseconds, 12_800);
        assert!(timeline.live[0].is_sorted());
        let slot = timeline.slot(Duration::from_secs(1 << 40), &[7]);
        assert_eq!((timeline.live[0][slot], timeline.bytes.iter().sum::<u64>()), (7, 10_000));
        assert!(timeline.len() <= SLOTS_MAX);
    }
}
