//! Cases, their measures and goals, and the lines that the contract names (`RATIO …`, `ABSENT …`).

use std::fmt;

use serde::Serialize;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// CPU seconds of the server for one unit of work.
    ServerCpu,
    /// CPU seconds of server and client together for one unit of work.
    TotalCpu,
    /// Units of work a second.
    Throughput,
}

impl Measure {
    /// One word, as in the lines and the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::ServerCpu => "server_cpu",
            Self::TotalCpu => "total_cpu",
            Self::Throughput => "throughput",
        }
    }
}

/// What the ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl Goal {
    /// Whether a ratio reaches it.
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<={most:.2}"),
            Self::AtLeast(least) => write!(f, ">={least:.2}"),
        }
    }
}

/// One side of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Requests, or octets for bulk work.
    pub units: f64,
    /// How long the load lasted.
    pub seconds: f64,
    /// CPU seconds of the server in that time.
    pub server_cpu_seconds: f64,
    /// CPU seconds of the client.
    pub client_cpu_seconds: f64,
}

impl Sample {
    /// The measure's figure of this side.
    pub fn figure(&self, measure: Measure) -> f64 {
        match measure {
            Measure::ServerCpu => self.server_cpu_seconds / self.units,
            Measure::TotalCpu => (self.server_cpu_seconds + self.client_cpu_seconds) / self.units,
            Measure::Throughput => self.units / self.seconds,
        }
    }
}

/// Both sides of a pair, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// Ours.
    pub ours: Sample,
    /// The peer's.
    pub peer: Sample,
}

/// A measured ratio.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Name of the case.
    pub case: &'static str,
    /// What is compared.
    pub measure: Measure,
    /// Beside whom.
    pub peer: &'static str,
    /// What it is to be.
    pub goal: Goal,
    /// Ours ÷ peer: the median of the pairs.
    pub median: f64,
    /// The least of the pairs.
    pub least: f64,
    /// The greatest of the pairs.
    pub greatest: f64,
    /// Median of our own figure, in the measure's unit.
    pub ours: f64,
    /// Median of the peer's.
    pub theirs: f64,
}

impl Ratio {
    /// The ratio of pairs; `None` without pairs.
    pub fn of(case: &'static str, measure: Measure, peer: &'static str, goal: Goal, pairs: &[Pair]) -> Option<Self> {
        let each = |figure: &dyn Fn(&Pair) -> f64| pairs.iter().map(figure).collect::<Vec<_>>();
        let ratios = each(&|pair| pair.ours.figure(measure) / pair.peer.figure(measure));
        Some(Self {
            case,
            measure,
            peer,
            goal,
            median: median(&ratios)?,
            least: ratios.iter().copied().reduce(f64::min)?,
            greatest: ratios.iter().copied().reduce(f64::max)?,
            ours: median(&each(&|pair| pair.ours.figure(measure)))?,
            theirs: median(&each(&|pair| pair.peer.figure(measure)))?,
        })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, measure, median, goal, peer, .. } = self;
        write!(f, "RATIO {case} {} {median:.2} goal {goal} peer {peer}", measure.word())
    }
}

/// A case that cannot be run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// Name of the case.
    pub case: &'static str,
    /// Why, in one word with dashes.
    pub reason: &'static str,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ABSENT {} {}", self.case, self.reason)
    }
}

/// The middle of the values, or of the two in the middle; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(ours: f64, peer: f64) -> Pair {
        let sample = |cpu| Sample { units: 16.0, seconds: 2.0, server_cpu_seconds: cpu, client_cpu_seconds: 1.0 };
        Pair { ours: sample(ours), peer: sample(peer) }
    }

    #[test]
    fn a_ratio_is_the_median_of_pairs_and_shows_its_spread() {
        let pairs = [pair(1.0, 2.0), pair(3.0, 2.0), pair(1.5, 2.0)];
        let ratio = Ratio::of("c", Measure::ServerCpu, "p", Goal::AtMost(0.75), &pairs).expect("pairs");
        assert_eq!((ratio.median, ratio.least, ratio.greatest), (0.75, 0.5, 1.5));
        assert_eq!(ratio.to_string(), "RATIO c server_cpu 0.75 goal <=0.75 peer p");
        assert!(ratio.goal.is_met(ratio.median) && !ratio.goal.is_met(0.76));
        assert!(Ratio::of("c", Measure::Throughput, "p", Goal::AtLeast(1.0), &[]).is_none());
    }

    #[test]
    fn figures_are_per_unit_of_work() {
        let Pair { ours, .. } = pair(4.0, 1.0);
        assert_eq!(ours.figure(Measure::ServerCpu), 0.25);
        assert_eq!(ours.figure(Measure::TotalCpu), 0.3125);
        assert_eq!(ours.figure(Measure::Throughput), 8.0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }
}
