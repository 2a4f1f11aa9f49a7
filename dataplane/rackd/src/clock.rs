//! The only place where clocks and randomness are read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bootstorm_engine::{Entropy, Time};

use crate::Error;

/// The process's clock: monotonic time counts from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Both clocks now.
    pub(crate) fn now(&self) -> Time {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { monotonic: self.origin.elapsed(), unix_micros: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX) }
    }

    /// A moment of monotonic time as the driver takes it.
    pub(crate) fn instant(&self, monotonic: Duration) -> Instant {
        self.origin + monotonic
    }
}

/// A secret for as long as the role runs.
pub(crate) fn secret() -> Result<[u8; 32], Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Error::System {
        what: "drawing randomness",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(secret)
}

/// Randomness for one input of the engine.
pub(crate) fn entropy() -> Result<Entropy, Error> {
    let mut entropy = Entropy { claim: [0; 16], id: [0; 10] };
    let drawn = getrandom::fill(&mut entropy.claim).and_then(|()| getrandom::fill(&mut entropy.id));
    drawn.map_err(|error| Error::System {
        what: "drawing randomness",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(entropy)
}
