//! What came of a run: times by stage, failures by reason, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::node::{Ended, Stage};

/// Version of the JSON's shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What is gathered while the run goes on.
#[derive(Debug, Default)]
pub struct Tally {
    times: Vec<Vec<Duration>>,
    totals: Vec<Duration>,
    failures: BTreeMap<String, u64>,
    bytes: u64,
}

impl Tally {
    /// Adds a node that has ended.
    pub fn add(&mut self, ended: &Ended) {
        self.times.resize_with(Stage::ALL.len(), Vec::new);
        self.bytes += ended.bytes;
        match &ended.result {
            Ok(()) => {
                self.totals.push(ended.total);
                for (all, time) in self.times.iter_mut().zip(ended.times) {
                    all.extend(time);
                }
            }
            Err(reason) => *self.failures.entry(format!("{}: {reason}", ended.stage.name())).or_default() += 1,
        }
    }

    /// Nodes that are done.
    pub fn done(&self) -> u64 {
        self.totals.len() as u64
    }

    /// Nodes that have failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The report of a run.
    pub fn into_report(mut self, run: Run) -> Report {
        let stages = Stage::ALL.iter().zip(&mut self.times);
        let stages = stages.filter_map(|(stage, times)| Spread::of(stage.name(), times)).collect();
        let (done, failed) = (self.done(), self.failed());
        let total = Spread::of("total", &mut self.totals);
        Report {
            schema: SCHEMA,
            scenario: "storm",
            version: env!("CARGO_PKG_VERSION"),
            run,
            done,
            failed,
            bytes: self.bytes,
            stages,
            total,
            failures: self.failures,
        }
    }
}

/// How the run was set up, and where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Nodes asked for.
    pub nodes: u32,
    /// The schedule's seed.
    pub seed: u64,
    /// Starts a second; absent for a ramp or all at once.
    pub rate_per_second: Option<f64>,
    /// The ramp's length in seconds, if it was one.
    pub ramp_seconds: Option<f64>,
    /// From the first start to the last end.
    pub wall_seconds: f64,
    /// CPU time of this program.
    pub cpu_seconds: f64,
    /// Largest lateness of a start against its due time: a large one means that this host was too slow to be a load.
    pub start_late_milliseconds_max: u64,
    /// `uname -r`.
    pub kernel: String,
    /// Processors of this host.
    pub processors: usize,
}

/// How times are spread, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Of which stage.
    pub stage: &'static str,
    /// How many nodes were in it.
    pub count: usize,
    /// Half are at or below.
    pub p50: f64,
    /// Nine in ten are.
    pub p90: f64,
    /// Ninety-nine in a hundred are.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Spread {
    /// Sorts the times; `None` for none.
    fn of(stage: &'static str, times: &mut [Duration]) -> Option<Spread> {
        times.sort_unstable();
        // Nearest rank: the smallest value that so many per cent are at or below.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map(|time| time.as_secs_f64() * 1e3)
        };
        let (p50, p90, p99, max) = (at(50)?, at(90)?, at(99)?, at(100)?);
        Some(Spread { stage, count: times.len(), p50, p90, p99, max })
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The load generator's version.
    pub version: &'static str,
    /// Set-up and place.
    pub run: Run,
    /// Nodes that got to their end.
    pub done: u64,
    /// Nodes that did not.
    pub failed: u64,
    /// Bytes of files and bodies that nodes received.
    pub bytes: u64,
    /// Times by stage, of the nodes that are done.
    pub stages: Vec<Spread>,
    /// Times from power-on to the end, of the nodes that are done.
    pub total: Option<Spread>,
    /// Failures by stage and reason.
    pub failures: BTreeMap<String, u64>,
}

impl Report {
    /// Whether every node got to its end.
    pub fn is_complete(&self) -> bool {
        self.done == u64::from(self.run.nodes)
    }

    /// For people; its last line is `storm: DONE/N`.
    pub fn table(&self) -> String {
        let mut text =
            format!("{:<15}{:>8}{:>11}{:>11}{:>11}{:>11}\n", "stage", "nodes", "p50 ms", "p90 ms", "p99 ms", "max ms");
        for spread in self.stages.iter().chain(&self.total) {
            let Spread { stage, count, p50, p90, p99, max } = spread;
            let _ = writeln!(text, "{stage:<15}{count:>8}{p50:>11.1}{p90:>11.1}{p99:>11.1}{max:>11.1}");
        }
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "failed {count:>6}  {reason}");
        }
        let run = &self.run;
        let rate = self.bytes as f64 / 1e6 / run.wall_seconds.max(1e-3);
        let _ = writeln!(
            text,
            "{:.1} s wall, {:.1} s CPU here, {:.1} MB received ({rate:.0} MB/s), starts at most {} ms late, seed {}",
            run.wall_seconds,
            run.cpu_seconds,
            self.bytes as f64 / 1e6,
            run.start_late_milliseconds_max,
            run.seed,
        );
        let _ = writeln!(text, "storm: {}/{}", self.done, run.nodes);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn run(nodes: u32) -> Run {
        Run {
            nodes,
            seed: 1,
            rate_per_second: Some(10.0),
            ramp_seconds: None,
            wall_seconds: 2.0,
            cpu_seconds: 0.1,
            start_late_milliseconds_max: 0,
            kernel: "6.1".to_owned(),
            processors: 2,
        }
    }

    fn ended(result: Result<(), Reason>, milliseconds: u64) -> Ended {
        let mut times = [None; Stage::ALL.len()];
        times[0] = Some(Duration::from_millis(milliseconds));
        Ended { result, stage: Stage::Script, times, total: Duration::from_millis(2 * milliseconds), bytes: 10 }
    }

    #[test]
    fn percentiles_failures_and_the_last_line() {
        let mut tally = Tally::default();
        (1..=100).for_each(|milliseconds| tally.add(&ended(Ok(()), milliseconds)));
        tally.add(&ended(Err(Reason::Status(404)), 1));
        tally.add(&ended(Err(Reason::Status(404)), 1));
        let report = tally.into_report(run(102));
        assert_eq!((report.done, report.failed, report.bytes), (100, 2, 1_020));
        let dhcp = &report.stages[0];
        assert_eq!((dhcp.count, dhcp.p50, dhcp.p90, dhcp.p99, dhcp.max), (100, 50.0, 90.0, 99.0, 100.0));
        assert_eq!(report.failures, BTreeMap::from([("script: http 404".to_owned(), 2)]));
        assert!(!report.is_complete());
        assert_eq!(report.table().lines().last(), Some("storm: 100/102"));
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!((&json["schema"], &json["total"]["p50"]), (&1.into(), &100.0.into()));
    }

    #[test]
    fn a_run_of_nothing_is_a_report_too() {
        let report = Tally::default().into_report(run(0));
        assert!(report.is_complete() && report.total.is_none());
        assert!(report.table().ends_with("storm: 0/0\n"));
    }
}
