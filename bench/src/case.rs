//! Cases, their measures and goals, and the lines that the contract names (`RATIO …`, `ABSENT …`).

use std::collections::BTreeMap;
use std::fmt;

use bootstorm_tests::lab::Error;
use serde::Serialize;

/// What is compared. A figure is either stated by the suite ([`Sample::with`]) or follows from a load's units, seconds and
/// CPU seconds, as said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// CPU seconds of the server for one unit of work.
    ServerCpu,
    /// CPU seconds of server and client together for one unit of work.
    TotalCpu,
    /// CPU seconds of a program that works alone, for one unit of work; they stand where a server's stand.
    Cpu,
    /// Units of work a second.
    Throughput,
    /// The same where a unit is one exchange and the rate was searched for.
    Rate,
    /// Units a second of work that was of use.
    Goodput,
    /// How long the work took.
    Seconds,
    /// How long it took until the last of many was done.
    Makespan,
    /// The 99th percentile of how long one of many took. Stated.
    P99Seconds,
    /// Octets: [`crate::memory`] says of what. Stated.
    Memory,
    /// Octets of resident memory. Stated.
    Rss,
    /// Octets of memory that one more connection costs. Stated.
    BytesPerConnection,
    /// The least share ÷ the median share. Stated.
    Fairness,
    /// Nodes that did not reach their end. Stated.
    FailedNodes,
    /// Calls of `fdatasync` ÷ leases. Stated.
    FdatasyncPerLease,
    /// Octets read from the disk ÷ octets of the file. Stated.
    DiskBytes,
    /// Octets fetched from the origin ÷ octets of the file. Stated.
    OriginBytes,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::ServerCpu,
        Self::TotalCpu,
        Self::Cpu,
        Self::Throughput,
        Self::Rate,
        Self::Goodput,
        Self::Seconds,
        Self::Makespan,
        Self::P99Seconds,
        Self::Memory,
        Self::Rss,
        Self::BytesPerConnection,
        Self::Fairness,
        Self::FailedNodes,
        Self::FdatasyncPerLease,
        Self::DiskBytes,
        Self::OriginBytes,
    ];

    /// One word, as in the lines and the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::ServerCpu => "server_cpu",
            Self::TotalCpu => "total_cpu",
            Self::Cpu => "cpu",
            Self::Throughput => "throughput",
            Self::Rate => "rate",
            Self::Goodput => "goodput",
            Self::Seconds => "seconds",
            Self::Makespan => "makespan",
            Self::P99Seconds => "p99_seconds",
            Self::Memory => "memory",
            Self::Rss => "rss",
            Self::BytesPerConnection => "bytes_per_connection",
            Self::Fairness => "fairness",
            Self::FailedNodes => "failed_nodes",
            Self::FdatasyncPerLease => "fdatasync_per_lease",
            Self::DiskBytes => "disk_bytes",
            Self::OriginBytes => "origin_bytes",
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
        let (sign, bound) = match self {
            Self::AtMost(most) => ("<=", most),
            Self::AtLeast(least) => (">=", least),
        };
        write!(f, "{sign}{}", Figure(*bound))
    }
}

/// A ratio, a count or seconds as the lines show them: 0, 0.012, 0.60, 5.00, 60.0, 1234.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        // Whole hundredths stay as goals are written (0.05); below a tenth a measured figure needs one more digit.
        let is_hundredths = ((value * 100.0).round() - value * 100.0).abs() < 1e-9;
        let digits = match value.abs() {
            0.0 => 0,
            size if size < 0.1 && !is_hundredths => 3,
            size if size < 9.995 => 2,
            size if size < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{value:.digits$}")
    }
}

/// One side's part in one round: what was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Requests, or octets for bulk work.
    pub units: f64,
    /// How long the load lasted.
    pub seconds: f64,
    /// CPU seconds of the server in that time.
    pub server_cpu_seconds: f64,
    /// CPU seconds of the client.
    pub client_cpu_seconds: f64,
    /// Figures that do not follow from these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<Measure, f64>,
}

impl Sample {
    /// A sample of one stated figure and nothing else.
    pub fn of(measure: Measure, figure: f64) -> Self {
        Self::default().with(measure, figure)
    }

    /// States a figure, which then counts in place of what follows from the load.
    #[must_use]
    pub fn with(mut self, measure: Measure, figure: f64) -> Self {
        self.figures.insert(measure, figure);
        self
    }

    /// The measure's figure of this side; `None` where it was not stated and does not follow.
    pub fn figure(&self, measure: Measure) -> Option<f64> {
        let follows = match measure {
            Measure::ServerCpu | Measure::Cpu => Some(self.server_cpu_seconds / self.units),
            Measure::TotalCpu => Some((self.server_cpu_seconds + self.client_cpu_seconds) / self.units),
            Measure::Throughput | Measure::Rate | Measure::Goodput => Some(self.units / self.seconds),
            Measure::Seconds | Measure::Makespan => (self.seconds > 0.0).then_some(self.seconds),
            Measure::P99Seconds
            | Measure::Memory
            | Measure::Rss
            | Measure::BytesPerConnection
            | Measure::Fairness
            | Measure::FailedNodes
            | Measure::FdatasyncPerLease
            | Measure::DiskBytes
            | Measure::OriginBytes => None,
        };
        self.figures.get(&measure).copied().or(follows).filter(|figure| figure.is_finite())
    }
}

/// All rounds of a case beside one peer, or of ours alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the case.
    pub case: &'static str,
    /// Beside whom; `None` where our own figure is held against the goal.
    pub peer: Option<&'static str>,
    /// Ours, by round.
    pub ours: Vec<Sample>,
    /// The peer's, by round; empty without a peer.
    pub theirs: Vec<Sample>,
}

impl Comparison {
    /// Ours of it, without the peer.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { peer: None, theirs: Vec::new(), ..self.clone() }
    }

    /// What the rounds say of a measure: ours ÷ peer by round, or our own figure.
    ///
    /// # Errors
    /// When a round has no figure of the measure, or a peer's is 0.
    pub fn ratio(&self, measure: Measure, goal: Goal) -> Result<Ratio, Error> {
        let Self { case, peer, .. } = self;
        let figures = |samples: &[Sample]| -> Option<Vec<f64>> { samples.iter().map(|s| s.figure(measure)).collect() };
        let none = || Error::Environment(format!("{case} has no figure of {} in every round", measure.word()));
        let ours = figures(&self.ours).ok_or_else(none)?;
        let theirs = figures(&self.theirs).ok_or_else(none)?;
        let ratios: Vec<f64> = match peer {
            Some(_) => ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect(),
            None => ours.clone(),
        };
        if let Some(odd) = ratios.iter().find(|ratio| !ratio.is_finite()) {
            return Err(Error::Environment(format!("{case}: a ratio of {} is {odd}", measure.word())));
        }
        Ok(Ratio {
            case,
            measure,
            peer: peer.unwrap_or("none"),
            goal,
            median: median(&ratios).ok_or_else(none)?,
            least: ratios.iter().copied().reduce(f64::min).ok_or_else(none)?,
            greatest: ratios.iter().copied().reduce(f64::max).ok_or_else(none)?,
            ours: median(&ours).ok_or_else(none)?,
            theirs: median(&theirs),
        })
    }
}

/// A measured ratio, or our own figure where there is no peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Name of the case.
    pub case: &'static str,
    /// What is compared.
    pub measure: Measure,
    /// Beside whom; `none` where our own figure is held against the goal.
    pub peer: &'static str,
    /// What it is to be.
    pub goal: Goal,
    /// Ours ÷ peer: the median of the rounds.
    pub median: f64,
    /// The least of the rounds.
    pub least: f64,
    /// The greatest of the rounds.
    pub greatest: f64,
    /// Median of our own figure, in the measure's unit.
    pub ours: f64,
    /// Median of the peer's.
    pub theirs: Option<f64>,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, measure, median, goal, peer, .. } = self;
        write!(f, "RATIO {case} {} {} goal {goal} peer {peer}", measure.word(), Figure(*median))
    }
}

/// A case that cannot be run yet, or not here.
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

    fn sample(cpu: f64) -> Sample {
        Sample { units: 16.0, seconds: 2.0, server_cpu_seconds: cpu, client_cpu_seconds: 1.0, ..Sample::default() }
    }

    fn comparison(peer: Option<&'static str>, ours: &[Sample], theirs: &[Sample]) -> Comparison {
        Comparison { case: "c", peer, ours: ours.to_vec(), theirs: theirs.to_vec() }
    }

    #[test]
    fn a_ratio_is_the_median_of_rounds_and_shows_its_spread() {
        let ours = [1.0, 3.0, 1.5].map(sample);
        let theirs = [2.0, 2.0, 2.0].map(sample);
        let ratio = comparison(Some("p"), &ours, &theirs).ratio(Measure::ServerCpu, Goal::AtMost(0.75)).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.greatest), (0.75, 0.5, 1.5));
        assert_eq!((ratio.ours, ratio.theirs), (1.5 / 16.0, Some(0.125)));
        assert_eq!(ratio.to_string(), "RATIO c server_cpu 0.75 goal <=0.75 peer p");
        assert!(ratio.goal.is_met(ratio.median) && !ratio.goal.is_met(0.76));
        assert!(comparison(Some("p"), &[], &[]).ratio(Measure::ServerCpu, Goal::AtMost(1.0)).is_err());
    }

    #[test]
    fn without_a_peer_our_own_figure_is_the_ratio() {
        let ours = [0.0, 0.0, 2.0].map(|failed| Sample::of(Measure::FailedNodes, failed));
        let ratio = comparison(None, &ours, &[]).ratio(Measure::FailedNodes, Goal::AtMost(0.0)).unwrap();
        assert_eq!((ratio.median, ratio.greatest, ratio.theirs), (0.0, 2.0, None));
        assert_eq!(ratio.to_string(), "RATIO c failed_nodes 0 goal <=0 peer none");
    }

    #[test]
    fn a_missing_or_odd_figure_is_an_error_and_not_a_ratio() {
        let goal = Goal::AtLeast(0.9);
        let stated = Sample::of(Measure::Fairness, 0.95);
        let unstated = comparison(None, &[stated.clone(), sample(1.0)], &[]).ratio(Measure::Fairness, goal);
        assert!(unstated.unwrap_err().to_string().contains("fairness"));
        let zero = Sample::of(Measure::Memory, 0.0);
        assert!(
            comparison(Some("p"), std::slice::from_ref(&zero), std::slice::from_ref(&zero))
                .ratio(Measure::Memory, goal)
                .is_err()
        );
    }

    #[test]
    fn figures_are_per_unit_of_work_or_stated() {
        let ours = sample(4.0);
        assert_eq!(ours.figure(Measure::ServerCpu), Some(0.25));
        assert_eq!(ours.figure(Measure::TotalCpu), Some(0.3125));
        assert_eq!(ours.figure(Measure::Throughput), Some(8.0));
        assert_eq!(ours.figure(Measure::Makespan), Some(2.0));
        assert_eq!(ours.figure(Measure::Rss), None);
        assert_eq!(ours.with(Measure::Rate, 7.0).figure(Measure::Rate), Some(7.0));
        assert_eq!(Sample::default().figure(Measure::ServerCpu), None);
    }

    #[test]
    fn figures_and_goals_print_as_the_issues_write_them() {
        let goals = [0.0, 0.05, 0.60, 1.0, 5.0, 60.0, 240.0].map(|bound| Goal::AtMost(bound).to_string());
        assert_eq!(goals, ["<=0", "<=0.05", "<=0.60", "<=1.00", "<=5.00", "<=60.0", "<=240"]);
        let figures = [0.0, 0.0123, 0.5312, 1.8, 12.34, 1234.0].map(|figure| Figure(figure).to_string());
        assert_eq!(figures, ["0", "0.012", "0.53", "1.80", "12.3", "1234"]);
    }

    #[test]
    fn measures_have_the_same_word_in_lines_and_records() {
        for measure in Measure::ALL {
            assert_eq!(serde_json::to_value(measure).unwrap(), measure.word());
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }
}
