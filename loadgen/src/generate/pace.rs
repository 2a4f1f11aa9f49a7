//! Due times of an open loop.

use std::time::Duration;

/// So many starts a second for some time, evenly: start number `n` is due at `n / rate`, whatever happened to the others.
///
/// A start that could not be made in time stays due, so nothing is left out; its lateness is part of what is measured.
#[derive(Clone, Debug)]
pub struct Pace {
    nanoseconds_per_start: f64,
    starts: u64,
    next: u64,
    due: Duration,
    late: Duration,
}

impl Pace {
    /// `rate` is above zero.
    pub fn new(rate_per_second: f64, duration: Duration) -> Pace {
        let starts = (rate_per_second * duration.as_secs_f64()).round().max(1.0) as u64;
        Pace {
            nanoseconds_per_start: 1e9 / rate_per_second,
            starts,
            next: 0,
            due: Duration::ZERO,
            late: Duration::ZERO,
        }
    }

    /// Takes the next start if its time has come: its number and its due time.
    pub fn take(&mut self, now: Duration) -> Option<(u64, Duration)> {
        if self.next >= self.starts || self.due > now {
            return None;
        }
        let (number, due) = (self.next, self.due);
        self.late = self.late.max(now - due);
        self.next += 1;
        self.due = Duration::from_nanos((self.next as f64 * self.nanoseconds_per_start) as u64);
        Some((number, due))
    }

    /// When the next start is due; `None` when all have been taken.
    pub fn next_due(&self) -> Option<Duration> {
        (self.next < self.starts).then_some(self.due)
    }

    /// Ends it: nothing more is due.
    pub fn end(&mut self) {
        self.starts = self.next;
    }

    /// Largest lateness with which a start was taken.
    pub fn late(&self) -> Duration {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_come_at_their_times_and_lateness_is_kept() {
        let mut pace = Pace::new(100.0, Duration::from_millis(30));
        let ten = Duration::from_millis(10);
        assert_eq!(pace.take(Duration::ZERO), Some((0, Duration::ZERO)));
        assert_eq!((pace.take(ten / 2), pace.next_due()), (None, Some(ten)));
        assert_eq!(pace.take(ten * 5), Some((1, ten)));
        assert_eq!(pace.take(ten * 5), Some((2, ten * 2)), "a late start is not left out");
        assert_eq!((pace.take(ten * 9), pace.next_due(), pace.late()), (None, None, ten * 4));
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let mut pace = Pace::new(7.0, Duration::from_secs(100));
        let last = std::iter::from_fn(|| pace.take(Duration::MAX)).last().unwrap();
        assert_eq!(last.0, 699);
        assert!(last.1.abs_diff(Duration::from_secs_f64(699.0 / 7.0)) < Duration::from_micros(1));
    }
}
