//! What came of a run: gathered while it goes on, shown as a table for people and as JSON for programs.
//!
//! A [`Recorder`] takes what happens, in constant memory; at the end it becomes a [`Report`]. All times count from the run's
//! beginning. A run is of one kind: whole nodes (`started`, `entered`, `ended`) or single exchanges (`exchange`,
//! `failed_exchange`); both may tell of received bytes.

mod files;
mod histogram;
mod live;
mod machine;
mod page;
mod recorder;
mod table;
mod timeline;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use files::Files;
pub use histogram::Histogram;
pub use live::Live;
pub use machine::{Machine, memory_bytes};
pub use recorder::{Expected, Recorder};
pub use table::{PERCENTILES, milliseconds};
pub use timeline::Timeline;

/// Version of the JSON's shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 2;

/// A whole node's end.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its index in the schedule.
    pub node: u32,
    /// How it ended.
    pub outcome: Outcome<'a>,
    /// The stage in which it ended: an index into the recorder's stages.
    pub stage: usize,
    /// Where it spent its time, in order, without overlap; a stage may come more than once.
    pub spans: &'a [Span],
    /// When it was powered on.
    pub started: Duration,
    /// Bytes of all files and bodies that it received.
    pub bytes: u64,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It got to its end.
    Done,
    /// It did not, for this reason: one of few, never a peer's bytes.
    Failed(&'a str),
    /// The scenario let it die; no fault of the server.
    Died,
}

/// A stretch of a node's time in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the recorder's stages.
    pub stage: usize,
    /// Since the run's beginning.
    pub from: Duration,
    /// Since the run's beginning.
    pub to: Duration,
}

/// How the run was set up, and what it took here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The scenario's name, one word.
    pub scenario: String,
    /// Nodes or exchanges asked for; absent where the run ends by time.
    pub expected: Option<u64>,
    /// The schedule's seed.
    pub seed: u64,
    /// What else was asked for, by option name.
    pub arguments: BTreeMap<String, String>,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// From the beginning to the last end.
    pub wall_seconds: f64,
    /// CPU time of this program, all threads.
    pub cpu_seconds: f64,
    /// The most memory that this program had resident.
    pub rss_bytes_max: u64,
    /// Largest lateness of a start against its due time: a large one means that this host was too slow to be a load.
    pub start_late_milliseconds_max: u64,
}

impl Run {
    /// A run that begins now, its costs not known yet.
    pub fn new(scenario: &str, expected: Option<u64>, seed: u64) -> Run {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Run {
            scenario: scenario.to_owned(),
            expected,
            seed,
            arguments: BTreeMap::new(),
            started_unix_seconds: since.as_secs(),
            wall_seconds: 0.0,
            cpu_seconds: 0.0,
            rss_bytes_max: 0,
            start_late_milliseconds_max: 0,
        }
    }

    /// The same with an argument that was given; `None` leaves it out.
    pub fn with(mut self, name: &str, value: Option<impl ToString>) -> Run {
        self.arguments.extend(value.map(|value| (name.to_owned(), value.to_string())));
        self
    }

    /// Notes what it took: time, lateness, and from the kernel this program's CPU and memory.
    pub fn finish(&mut self, wall: Duration, start_late_max: Duration) {
        let rounded = |seconds: f64| (seconds * 1e3).round() / 1e3;
        self.wall_seconds = rounded(wall.as_secs_f64());
        self.start_late_milliseconds_max = start_late_max.as_millis() as u64;
        let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        self.cpu_seconds = rounded(usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9);
        self.rss_bytes_max = machine::own_memory_bytes_max();
    }
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The load generator's version.
    pub version: String,
    /// The host that played the load.
    pub machine: Machine,
    /// Set-up and costs.
    pub run: Run,
    /// Nodes powered on; 0 for single exchanges.
    pub started: u64,
    /// Nodes that got to their end, or exchanges that came to one.
    pub done: u64,
    /// Those that did not.
    pub failed: u64,
    /// Nodes that the scenario let die, by the stage in which they did.
    pub died: BTreeMap<String, u64>,
    /// Bytes of files and bodies, of nodes that have ended.
    pub content_bytes: u64,
    /// All bytes that came, as they came.
    pub received_bytes: u64,
    /// By stage, in the order of a boot.
    pub stages: Vec<StageReport>,
    /// From power-on to the end, of the nodes that are done.
    pub total: Histogram,
    /// Failures by stage and reason.
    pub failures: BTreeMap<String, u64>,
    /// Throughput and nodes by stage over time.
    pub timeline: Timeline,
    /// The slowest of the nodes that are done, slowest first.
    pub stragglers: Vec<NodeReport>,
    /// The first nodes that failed, in the order of their ends.
    pub first_failed: Vec<NodeReport>,
}

/// One stage of all nodes. A node counts in a stage that it has left behind, whatever came of it later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Time spent in it: for a node that came more than once, the sum; for single exchanges, their latency.
    pub latency: Histogram,
    /// From power-on to its first beginning.
    pub began: Histogram,
    /// From power-on to its last end.
    pub ended: Histogram,
}

/// One node of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// Its index in the schedule.
    pub node: u32,
    /// Why it failed, with the stage; absent where it is done.
    pub failure: Option<String>,
    /// When it was powered on, since the run's beginning.
    pub started_microseconds: u64,
    /// From power-on to its end.
    pub total_microseconds: u64,
    /// Bytes of files and bodies.
    pub bytes: u64,
    /// Stage by name, beginning and end in microseconds after power-on.
    pub spans: Vec<(String, u64, u64)>,
}

impl Report {
    /// Whether all that was asked for came to its end; where nothing was counted out, whether nothing failed.
    pub fn is_complete(&self) -> bool {
        match self.run.expected {
            Some(expected) => self.done == expected,
            None => self.failed == 0,
        }
    }
}

/// A storm for tests: so many nodes over some seconds, one in ten of which fails or dies.
#[cfg(test)]
pub fn sample(nodes: u32) -> Report {
    let mut recorder = Recorder::new(&["dhcp", "loader", "script", "kernel+initrd", "image"]);
    let mut random = crate::schedule::Sequence::new(9);
    let mut now = Duration::ZERO;
    for node in 0..nodes {
        let started = Duration::from_millis(u64::from(node) * 20);
        now = started;
        recorder.started(now);
        let mut spans = Vec::new();
        for (stage, most) in [(0, 300u32), (1, 900), (0, 60), (2, 30), (3, 4_000), (4, 9_000)] {
            let from = now;
            now += Duration::from_micros((random.fraction() * random.fraction() * f64::from(most) * 1e3) as u64 + 900);
            recorder.entered(from, spans.last().map(|span: &Span| span.stage), stage);
            recorder.received(now, u64::from(most) * 9_000);
            spans.push(Span { stage, from, to: now });
            if spans.len() == 5 && node % 20 == 9 {
                break;
            }
        }
        let outcome = match node % 40 {
            9 => Outcome::Failed("http 404 <&\"'>"),
            29 => Outcome::Died,
            _ => Outcome::Done,
        };
        let stage = spans.last().map_or(0, |span| span.stage);
        recorder.ended(now, &End { node, outcome, stage, spans: &spans, started, bytes: 30 << 20 });
    }
    let mut run = Run::new("storm", Some(nodes.into()), 9).with("rate", Some("50"));
    run.finish(now, Duration::from_millis(3));
    recorder.into_report(run)
}
