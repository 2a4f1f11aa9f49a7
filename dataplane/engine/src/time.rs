//! Time as an argument.

use core::time::Duration;

/// A moment on both clocks. The monotonic one decides about deadlines of this process, the wall clock about what
/// outlives it (leases, claims).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Since an origin of the caller's choice; never goes back.
    pub monotonic: Duration,
    /// Microseconds since 1970-01-01 UTC.
    pub unix_micros: u64,
}

impl Time {
    /// Whole seconds since 1970-01-01 UTC.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_micros / 1_000_000
    }

    /// Whole milliseconds since 1970-01-01 UTC.
    pub fn unix_milliseconds(&self) -> u64 {
        self.unix_micros / 1000
    }
}

/// Randomness for one input: what is needed of it is taken, the rest is thrown away. From a generator fit for keys.
#[derive(Clone, Copy)]
pub struct Entropy {
    /// For a claim.
    pub claim: [u8; 16],
    /// For a UUIDv7.
    pub id: [u8; 10],
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy(***)")
    }
}
