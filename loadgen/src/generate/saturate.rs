//! Finds the highest rate that a server keeps up with: doubling until it does not, then halving the distance.

/// Steps at most, doubling and halving together.
const STEPS_MAX: u32 = 24;
/// The search ends when what was kept and what was not are this near each other.
const NEAR: f64 = 1.05;

/// A search; ask for [`Search::next_rate`], try it, tell with [`Search::handle`].
#[derive(Clone, Copy, Debug)]
pub struct Search {
    kept: Option<f64>,
    failed: Option<f64>,
    rate: f64,
    steps: u32,
}

impl Search {
    /// Begins at this rate.
    pub fn new(rate: f64) -> Search {
        Search { kept: None, failed: None, rate, steps: 0 }
    }

    /// The rate to try next; `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        let is_near = matches!((self.kept, self.failed), (Some(kept), Some(failed)) if failed <= kept * NEAR);
        (!is_near && self.steps < STEPS_MAX && self.rate >= 1.0).then_some(self.rate)
    }

    /// Takes what came of the last rate.
    pub fn handle(&mut self, is_kept: bool) {
        self.steps += 1;
        if is_kept {
            self.kept = Some(self.rate);
        } else {
            self.failed = Some(self.rate);
        }
        self.rate = match (self.kept, self.failed) {
            (Some(kept), Some(failed)) => (kept + failed) / 2.0,
            (Some(kept), None) => kept * 2.0,
            (None, Some(failed)) => failed / 2.0,
            (None, None) => self.rate,
        };
    }

    /// The highest rate that was kept.
    pub fn best(&self) -> Option<f64> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(first: f64, limit: f64) -> (Option<f64>, u32) {
        let mut search = Search::new(first);
        while let Some(rate) = search.next_rate() {
            search.handle(rate <= limit);
        }
        (search.best(), search.steps)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for first in [100.0, 1_000.0, 500_000.0] {
            let (best, steps) = find(first, 16_400.0);
            let best = best.unwrap();
            assert!((15_600.0..=16_400.0).contains(&best) && steps < STEPS_MAX, "{best} in {steps}");
        }
    }

    #[test]
    fn a_server_that_keeps_nothing_ends_the_search() {
        assert_eq!(find(1_000.0, 0.0).0, None);
    }
}
