//! Single protocols at full speed: one thread asks one server one kind of question, and times every answer.
//!
//! These are for finding out what a server can do, so the generator itself must cost as little as possible:
//! - Nothing is allocated per exchange. State is a flat table made at the start; messages are templates, patched in place.
//! - One system call per message, on non-blocking sockets, and one wait when there is nothing to do. Carrying many
//!   messages by one call (a ring, `sendmmsg`) would need each of them in memory of its own until the kernel has taken it,
//!   and measured below a tenth of what UDP itself costs.
//! - Answers are checked (identity, question, code, length), not only counted.
//!
//! An open loop ([`Pace`]) sends by due time whatever the server does, and measures from the due time, so that a server that
//! stalls is charged for those who waited behind it. A closed loop keeps a fixed number of questions outstanding and finds
//! out how fast they are answered.

pub mod answer;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub mod http;
mod pace;
mod ready;
pub mod saturate;
pub mod tftp;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

pub use pace::Pace;

use crate::report::{Expected, Live, Recorder};

/// Why a generator could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operator: the interface is not there, or a socket on it is refused.
    #[error("interface `{name}`: {source}")]
    Interface {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Environment: a socket could not be made or used.
    #[error("{what}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Operator: a file could not be read.
    #[error("reading `{path}`: {source}")]
    File {
        /// Its path.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Operator: something given makes no load; the text says what, and what would.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// A socket that failed.
    fn socket(what: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
        move |errno| Error::Socket { what, source: errno.into() }
    }
}

/// What a run of a generator came to, beside what its [`Recorder`] holds.
pub struct Outcome {
    /// Times and failures.
    pub recorder: Recorder,
    /// Exchanges begun.
    pub started: u64,
    /// Exchanges that came to their good end.
    pub done: u64,
    /// From the first start to the last end.
    pub wall: Duration,
    /// Largest lateness of a start against its due time; zero in a closed loop.
    pub late: Duration,
}

impl Outcome {
    /// Exchanges that did not come to a good end, as a share of those begun.
    pub fn lost(&self) -> f64 {
        (self.started - self.done.min(self.started)) as f64 / (self.started as f64).max(1.0)
    }
}

/// A recorder of these stages for a run that ends after this time.
fn recorder(stages: &'static [&'static str], duration: Duration) -> Recorder {
    let mut recorder = Recorder::new(stages);
    recorder.expect(Expected::Until(duration));
    recorder
}

/// The time of a run, whether it is to end early, and where it shows how it stands.
pub struct Clock {
    origin: Instant,
    stop: Arc<AtomicBool>,
    live: Live,
}

impl Clock {
    /// A clock that begins now. SIGINT and SIGTERM end the run early, with a report of what was reached.
    pub fn new(live: Live) -> Result<Clock, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|source| Error::Socket { what: "catching signals", source })?;
        }
        Ok(Clock { origin: Instant::now(), stop, live })
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        self.origin = Instant::now();
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Whether the run is to end early.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Shows how the run stands, when that is due.
    pub fn show(&mut self, now: Duration, recorder: &Recorder) {
        self.live.show(now, recorder);
    }

    /// Clears what was drawn.
    pub fn finish(&mut self) {
        self.live.finish();
    }
}
