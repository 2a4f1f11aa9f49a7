//! The order of work: ours and the peer in turns.

use std::path::PathBuf;

use bootstorm_tests::lab::Error;

use crate::case::{Pair, Sample};
use crate::limits;
use crate::server::Server;

/// What a run of a suite needs.
#[derive(Debug)]
pub struct Options {
    /// The `bootstorm` binary.
    pub bootstorm: PathBuf,
    /// The running program, which is the client as well.
    pub bench: PathBuf,
    /// Where the records go.
    pub results: PathBuf,
    /// Shorter loads and smaller files: for a look, not for a claim.
    pub quick: bool,
}

/// Whether a load's figures are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Before the first pair: caches, descriptors and socket buffers become what they will be.
    Warm,
    /// In a pair.
    Measured,
}

/// Loads both servers [`limits::PAIRS`] times in turns. Which side is first changes from pair to pair, so that neither
/// always comes after the other.
///
/// # Errors
/// The first load's that fails.
pub fn interleaved(
    ours: &Server,
    peer: &Server,
    mut load: impl FnMut(&Server, Time) -> Result<Sample, Error>,
) -> Result<Vec<Pair>, Error> {
    load(ours, Time::Warm)?;
    load(peer, Time::Warm)?;
    (0..limits::PAIRS)
        .map(|round| {
            let sides = if round % 2 == 0 { [ours, peer] } else { [peer, ours] };
            let [first, second] = [load(sides[0], Time::Measured)?, load(sides[1], Time::Measured)?];
            let (ours, peer) = if round % 2 == 0 { (first, second) } else { (second, first) };
            Ok(Pair { ours, peer })
        })
        .collect()
}
