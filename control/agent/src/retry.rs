//! Pauses between tries: exponential with jitter, so that a thousand agents do not come back at once.

use std::time::Duration;

use crate::limits;

/// How many tries have failed in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: between half and all of the first pause doubled by each failure before, never above the longest.
    /// `random` picks the place.
    pub fn next(&mut self, random: u64) -> Duration {
        let (first, longest) = limits::BACKOFF;
        let whole = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(random % nanos.max(1))
    }

    /// How many tries have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets the failures: something went forward.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number; zero if the system has none, which costs only the jitter.
pub fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_stay_inside_their_halves() {
        let mut backoff = Backoff::default();
        let mut whole = limits::BACKOFF.0;
        for round in 0..40u64 {
            let pause = backoff.next(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(pause >= whole / 2 && pause <= whole, "round {round}: {pause:?} of {whole:?}");
            whole = (whole * 2).min(limits::BACKOFF.1);
        }
        backoff.reset();
        assert!(backoff.next(0) <= limits::BACKOFF.0);
    }
}
