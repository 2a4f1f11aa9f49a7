//! Points in time, as the database and the API hold them.

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z, by the wall clock of whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// That many seconds later; the end of time if that is past it.
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(i64::from(seconds).saturating_mul(1_000_000)))
    }

    /// Whole milliseconds since 1970, for a UUIDv7; 0 for a time before that.
    pub fn unix_milliseconds(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }
}
