//! The order of work: ours and the peers in turns.

use std::path::PathBuf;
use std::time::Duration;

use bootstorm_tests::lab::Error;

use crate::case::{Comparison, Sample};
use crate::limits;

/// What a run of a suite needs.
#[derive(Debug)]
pub struct Options {
    /// The `bootstorm` binary.
    pub bootstorm: PathBuf,
    /// The running program, which is the client as well.
    pub bench: PathBuf,
    /// Where the records go.
    pub results: PathBuf,
    /// Shorter loads, smaller files, fewer rounds: for a look, not for a claim.
    pub quick: bool,
    /// One case alone: its lines are printed, and nothing is recorded.
    pub case: Option<String>,
}

impl Options {
    /// The load generator, which is built beside this program.
    pub fn loadgen(&self) -> PathBuf {
        self.bench.with_file_name("loadgen")
    }

    /// How often each side has its turn.
    pub fn rounds(&self) -> usize {
        if self.quick { limits::ROUNDS_QUICK } else { limits::ROUNDS }
    }

    /// How long a load lasts.
    pub fn load(&self, time: Time) -> Duration {
        match time {
            Time::Warm => limits::LOAD_QUICK,
            Time::Measured if self.quick => limits::LOAD_QUICK,
            Time::Measured => limits::LOAD,
        }
    }
}

/// Whether a load's figures are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Before the first round: caches, descriptors and socket buffers become what they will be.
    Warm,
    /// In a round.
    Measured,
}

/// Loads ours and every peer once to warm up and then `rounds` times in turns. Each round begins with another side, so
/// that none always comes after the same other.
///
/// Returns one comparison for each peer, in their order; ours are the same in all. Without a peer, one of ours alone.
///
/// # Errors
/// The first load's that fails.
pub fn interleaved<S: ?Sized>(
    case: &'static str,
    ours: &S,
    peers: &[(&'static str, &S)],
    rounds: usize,
    mut load: impl FnMut(&S, Time) -> Result<Sample, Error>,
) -> Result<Vec<Comparison>, Error> {
    let sides: Vec<&S> = std::iter::once(ours).chain(peers.iter().map(|(_, side)| *side)).collect();
    let mut samples = vec![Vec::with_capacity(rounds); sides.len()];
    for side in &sides {
        load(side, Time::Warm)?;
    }
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let index = (round + turn) % sides.len();
            samples[index].push(load(sides[index], Time::Measured)?);
        }
    }
    let mut samples = samples.into_iter();
    let ours = samples.next().unwrap_or_default();
    if peers.is_empty() {
        return Ok(vec![Comparison { case, peer: None, ours, theirs: Vec::new() }]);
    }
    let beside = |((peer, _), theirs): (&(&'static str, &S), _)| Comparison {
        case,
        peer: Some(*peer),
        ours: ours.clone(),
        theirs,
    };
    Ok(peers.iter().zip(samples).map(beside).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Measure;

    #[test]
    fn sides_take_turns_and_each_round_begins_with_another() {
        let mut order = String::new();
        let load = |side: &str, time: Time| {
            order.push_str(side);
            Ok(Sample::of(Measure::Rate, if time == Time::Warm { 0.0 } else { order.len() as f64 }))
        };
        let all = interleaved("c", "o", &[("peer-a", "a"), ("peer-b", "b")], 3, load).unwrap();
        assert_eq!(order, "oab oab abo boa".replace(' ', ""));
        assert_eq!(all.iter().map(|c| c.peer).collect::<Vec<_>>(), [Some("peer-a"), Some("peer-b")]);
        let turns = |samples: &[Sample]| samples.iter().map(|s| s.figures[&Measure::Rate]).collect::<Vec<_>>();
        assert_eq!(turns(&all[0].ours), [4.0, 9.0, 11.0]);
        assert_eq!(turns(&all[1].ours), [4.0, 9.0, 11.0]);
        assert_eq!((turns(&all[0].theirs), turns(&all[1].theirs)), (vec![5.0, 7.0, 12.0], vec![6.0, 8.0, 10.0]));
    }

    #[test]
    fn ours_alone_has_rounds_too() {
        let all = interleaved("c", "o", &[], 2, |_, _| Ok(Sample::default())).unwrap();
        assert_eq!((all.len(), all[0].peer, all[0].ours.len(), all[0].theirs.len()), (1, None, 2, 0));
    }
}
