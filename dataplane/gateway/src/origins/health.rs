//! When an origin that failed is asked again. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::Failed;
use crate::limits;

/// What is known about an origin.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Health {
    /// How long it is still left alone.
    pub(crate) fn rests(&self, now: Instant) -> Option<Duration> {
        self.rests_until.filter(|until| *until > now).map(|until| until - now)
    }

    /// It gave what it was asked for.
    pub(crate) fn succeeded(&mut self) {
        *self = Health::default();
    }

    /// It did not. Returns how long it rests now, if this began a rest: what was under way when it began says nothing new.
    pub(crate) fn failed(&mut self, failed: &Failed, now: Instant) -> Option<Duration> {
        let rest = match failed {
            Failed::Absent => return None,
            // It may lie again, and each lie costs a transfer.
            Failed::Lied | Failed::TooLong(_) => limits::ORIGIN_REST.1,
            Failed::Stalled | Failed::Broken(_) => {
                let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
                limits::ORIGIN_REST.0.saturating_mul(factor).min(limits::ORIGIN_REST.1)
            }
        };
        if self.rests(now).is_some_and(|under_way| under_way >= rest || !matches!(failed, Failed::Lied)) {
            return None;
        }
        self.failures = self.failures.saturating_add(1).min(16);
        self.rests_until = Some(now + rest);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_one_success_ends_them() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..12 {
            let rest = health.failed(&Failed::Stalled, now).unwrap();
            // Sixty others that were under way fail too, and count once.
            assert_eq!(health.failed(&Failed::Broken("reset".into()), now), None);
            assert_eq!(health.rests(now), Some(rest));
            now += rest;
            assert_eq!(health.rests(now), None);
            rests.push(rest);
        }
        assert_eq!(rests[..3], [1, 2, 4].map(|factor| limits::ORIGIN_REST.0 * factor));
        assert_eq!(rests[11], limits::ORIGIN_REST.1);
        health.succeeded();
        assert_eq!(health.failed(&Failed::Stalled, now), Some(limits::ORIGIN_REST.0));
    }

    #[test]
    fn a_lie_rests_longest_and_absence_not_at_all() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(&Failed::Absent, now), None);
        assert_eq!(health.rests(now), None);
        health.failed(&Failed::Stalled, now);
        assert_eq!(health.failed(&Failed::Lied, now), Some(limits::ORIGIN_REST.1), "even while it rests");
        assert_eq!(health.failed(&Failed::Lied, now), None);
    }
}
