//! Gathers what happens while a run goes on. Nothing here grows with the run's length or the number of its nodes: histograms,
//! a timeline that coarsens itself, a bounded number of reasons, and a few nodes in full.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{End, Histogram, Machine, NodeReport, Outcome, Report, Run, SCHEMA, Span, StageReport, Timeline};

/// Reasons counted by name; those of any others are counted together.
const REASONS_MAX: usize = 64;
/// Name of the others.
const OTHER: &str = "other";
/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 160;
/// Nodes kept in full, of the slowest and of the first to fail: what one page can show.
const NODES_MAX: usize = 20;
/// Spans kept of such a node.
const SPANS_MAX: usize = 64;
/// Rates are over so many whole seconds: long enough to be steady, short enough to show a stall.
const RECENT_SECONDS: u64 = 8;

/// What there is to come: for the time that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nobody knows.
    #[default]
    Unknown,
    /// So many nodes or exchanges.
    Count(u64),
    /// The run ends at this time.
    Until(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    names: &'static [&'static str],
    stages: Vec<StageReport>,
    live: Vec<u64>,
    started: u64,
    done: u64,
    failed: u64,
    died: BTreeMap<String, u64>,
    content_bytes: u64,
    received_bytes: u64,
    total: Histogram,
    failures: BTreeMap<(usize, String), u64>,
    timeline: Timeline,
    recent: Recent,
    expected: Expected,
    stragglers: Vec<NodeReport>,
    first_failed: Vec<NodeReport>,
}

impl Recorder {
    /// Nothing yet, for stages of these names in this order.
    pub fn new(stages: &'static [&'static str]) -> Recorder {
        let report = |name: &&str| StageReport { name: (*name).to_owned(), ..StageReport::default() };
        Recorder {
            names: stages,
            stages: stages.iter().map(report).collect(),
            live: vec![0; stages.len()],
            started: 0,
            done: 0,
            failed: 0,
            died: BTreeMap::new(),
            content_bytes: 0,
            received_bytes: 0,
            total: Histogram::default(),
            failures: BTreeMap::new(),
            timeline: Timeline::new(stages.len()),
            recent: Recent::default(),
            expected: Expected::Unknown,
            stragglers: Vec::new(),
            first_failed: Vec::new(),
        }
    }

    /// Says what is to come, for the time that is left.
    pub fn expect(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// A node is powered on.
    pub fn started(&mut self, now: Duration) {
        self.timeline.slot(now, &self.live);
        self.started += 1;
    }

    /// A node goes from one stage to another, or into its first.
    pub fn entered(&mut self, now: Duration, from: Option<usize>, to: usize) {
        let slot = self.timeline.slot(now, &self.live);
        if let Some(from) = from {
            self.count_live(slot, from, |live| live.saturating_sub(1));
        }
        self.count_live(slot, to, |live| live + 1);
    }

    fn count_live(&mut self, slot: usize, stage: usize, change: impl FnOnce(u64) -> u64) {
        if let (Some(live), Some(column)) = (self.live.get_mut(stage), self.timeline.live.get_mut(stage)) {
            *live = change(*live);
            column[slot] = *live;
        }
    }

    /// Bytes have come, of any kind.
    pub fn received(&mut self, now: Duration, bytes: u64) {
        let slot = self.timeline.slot(now, &self.live);
        self.timeline.bytes[slot] += bytes;
        self.received_bytes += bytes;
        self.recent.at(now).bytes += bytes;
    }

    /// A node has ended; it leaves its stage.
    pub fn ended(&mut self, now: Duration, end: &End<'_>) {
        let slot = self.timeline.slot(now, &self.live);
        self.count_live(slot, end.stage, |live| live.saturating_sub(1));
        self.content_bytes += end.bytes;
        self.record_stages(end);
        match end.outcome {
            Outcome::Done => {
                self.count_done(now, slot);
                self.total.record(now.saturating_sub(end.started));
                self.keep_straggler(now, end);
            }
            Outcome::Failed(reason) => {
                let failure = self.count_failure(now, slot, end.stage, reason);
                if self.first_failed.len() < NODES_MAX {
                    self.first_failed.push(self.node(now, end, Some(failure)));
                }
            }
            Outcome::Died => *self.died.entry(self.name(end.stage).to_owned()).or_default() += 1,
        }
    }

    /// Notes the stages that the node has left behind; the one in which it failed or died is not.
    fn record_stages(&mut self, end: &End<'_>) {
        for (index, stage) in self.stages.iter_mut().enumerate() {
            if index == end.stage && end.outcome != Outcome::Done {
                continue;
            }
            let mut spans = end.spans.iter().filter(|span| span.stage == index).peekable();
            let Some(Span { from, .. }) = spans.peek().copied().copied() else { continue };
            let (mut time, mut to) = (Duration::ZERO, from);
            for span in spans {
                time += span.to.saturating_sub(span.from);
                to = span.to;
            }
            stage.latency.record(time);
            stage.began.record(from.saturating_sub(end.started));
            stage.ended.record(to.saturating_sub(end.started));
        }
    }

    fn keep_straggler(&mut self, now: Duration, end: &End<'_>) {
        let total = microseconds(now.saturating_sub(end.started));
        let place = self.stragglers.partition_point(|kept| kept.total_microseconds >= total);
        if place < NODES_MAX {
            self.stragglers.truncate(NODES_MAX - 1);
            self.stragglers.insert(place, self.node(now, end, None));
        }
    }

    fn node(&self, now: Duration, end: &End<'_>, failure: Option<String>) -> NodeReport {
        let since = |time: Duration| microseconds(time.saturating_sub(end.started));
        let span = |span: &Span| (self.name(span.stage).to_owned(), since(span.from), since(span.to));
        NodeReport {
            node: end.node,
            failure,
            started_microseconds: microseconds(end.started),
            total_microseconds: since(now),
            bytes: end.bytes,
            spans: end.spans.iter().take(SPANS_MAX).map(span).collect(),
        }
    }

    /// A single exchange has come to its end after this time.
    pub fn exchange(&mut self, now: Duration, stage: usize, latency: Duration) {
        let slot = self.timeline.slot(now, &self.live);
        if let Some(stage) = self.stages.get_mut(stage) {
            stage.latency.record(latency);
        }
        self.count_done(now, slot);
    }

    /// A part of a single exchange took this time; the exchange goes on.
    pub fn timed(&mut self, stage: usize, latency: Duration) {
        if let Some(stage) = self.stages.get_mut(stage) {
            stage.latency.record(latency);
        }
    }

    /// A single exchange has failed.
    pub fn failed_exchange(&mut self, now: Duration, stage: usize, reason: &str) {
        let slot = self.timeline.slot(now, &self.live);
        self.count_failure(now, slot, stage, reason);
    }

    fn count_done(&mut self, now: Duration, slot: usize) {
        self.done += 1;
        self.timeline.done[slot] += 1;
        self.recent.at(now).ended += 1;
    }

    /// Counts it under its reason while there is room for that; gives what it is counted under.
    fn count_failure(&mut self, now: Duration, slot: usize, stage: usize, reason: &str) -> String {
        self.failed += 1;
        self.timeline.failed[slot] += 1;
        self.recent.at(now).ended += 1;
        let mut key = (stage, reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned());
        if !self.failures.contains_key(&key) && self.failures.len() >= REASONS_MAX {
            key = (usize::MAX, OTHER.to_owned());
        }
        let name = self.failure_name(&key);
        *self.failures.entry(key).or_default() += 1;
        name
    }

    fn failure_name(&self, (stage, reason): &(usize, String)) -> String {
        match self.names.get(*stage) {
            Some(name) => format!("{name}: {reason}"),
            None => reason.clone(),
        }
    }

    fn name(&self, stage: usize) -> &'static str {
        self.names.get(stage).copied().unwrap_or(OTHER)
    }

    /// Nodes that the scenario let die.
    pub fn died(&self) -> u64 {
        self.died.values().sum()
    }

    /// How it stands, for people who wait.
    pub fn progress(&self, now: Duration) -> Progress {
        let recent = self.recent.rates(now);
        let ended = self.done + self.failed + self.died();
        let left = match self.expected {
            Expected::Until(end) => Some(end.saturating_sub(now)),
            Expected::Count(expected) if recent.ended_per_second > 0.0 => {
                Duration::try_from_secs_f64(expected.saturating_sub(ended) as f64 / recent.ended_per_second).ok()
            }
            Expected::Count(_) | Expected::Unknown => None,
        };
        let mut failures: Vec<(String, u64)> =
            self.failures.iter().map(|(key, count)| (self.failure_name(key), *count)).collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Progress {
            now,
            started: self.started,
            done: self.done,
            failed: self.failed,
            died: self.died(),
            expected: self.expected,
            live: self.names.iter().copied().zip(self.live.iter().copied()).collect(),
            bytes_per_second: recent.bytes_per_second,
            ended_per_second: recent.ended_per_second,
            failures,
            left,
        }
    }

    /// The report of a run that is over.
    pub fn into_report(self, run: Run) -> Report {
        let mut failures = BTreeMap::new();
        for (key, count) in &self.failures {
            *failures.entry(self.failure_name(key)).or_default() += count;
        }
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::here(),
            run,
            started: self.started,
            done: self.done,
            failed: self.failed,
            died: self.died,
            content_bytes: self.content_bytes,
            received_bytes: self.received_bytes,
            stages: self.stages,
            total: self.total,
            failures,
            timeline: self.timeline,
            stragglers: self.stragglers,
            first_failed: self.first_failed,
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Since the run's beginning.
    pub now: Duration,
    /// Nodes powered on.
    pub started: u64,
    /// Nodes or exchanges that are done.
    pub done: u64,
    /// Those that have failed.
    pub failed: u64,
    /// Nodes that the scenario let die.
    pub died: u64,
    /// What there is to come in all.
    pub expected: Expected,
    /// Nodes by stage, in the order of a boot.
    pub live: Vec<(&'static str, u64)>,
    /// Over the last seconds.
    pub bytes_per_second: f64,
    /// Nodes or exchanges that came to any end, over the last seconds.
    pub ended_per_second: f64,
    /// Failures by reason, the most frequent first.
    pub failures: Vec<(String, u64)>,
    /// Time that is left at the rate of the last seconds; `None` where nobody knows.
    pub left: Option<Duration>,
}

/// The last whole seconds, and the one that goes on.
#[derive(Debug, Default)]
struct Recent {
    seconds: [Second; RECENT_SECONDS as usize + 1],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    bytes: u64,
    ended: u64,
}

struct Rates {
    bytes_per_second: f64,
    ended_per_second: f64,
}

impl Recent {
    fn at(&mut self, now: Duration) -> &mut Second {
        let number = now.as_secs();
        let second = &mut self.seconds[(number % (RECENT_SECONDS + 1)) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }

    fn rates(&self, now: Duration) -> Rates {
        let current = now.as_secs();
        let whole = current.saturating_sub(RECENT_SECONDS)..current;
        // In the first second there is no whole one yet.
        let (range, width) = match whole.is_empty() {
            true => (0..1, now.as_secs_f64().max(1e-3)),
            false => (whole.clone(), (whole.end - whole.start) as f64),
        };
        let seconds = self.seconds.iter().filter(|second| range.contains(&second.number));
        let (bytes, ended) =
            seconds.fold((0, 0), |(bytes, ended), second| (bytes + second.bytes, ended + second.ended));
        Rates { bytes_per_second: bytes as f64 / width, ended_per_second: ended as f64 / width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [&str; 3] = ["dhcp", "loader", "image"];

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn span(stage: usize, from: u64, to: u64) -> Span {
        Span { stage, from: at(from), to: at(to) }
    }

    fn end<'a>(node: u32, outcome: Outcome<'a>, stage: usize, spans: &'a [Span]) -> End<'a> {
        End { node, outcome, stage, spans, started: at(100), bytes: 10 }
    }

    #[test]
    fn a_stage_that_comes_twice_is_summed_and_one_that_was_not_left_does_not_count() {
        let mut recorder = Recorder::new(&STAGES);
        let spans = [span(0, 100, 200), span(1, 200, 500), span(0, 500, 600)];
        recorder.ended(at(600), &end(0, Outcome::Done, 0, &spans));
        recorder.ended(at(600), &end(1, Outcome::Failed("late"), 0, &spans));
        recorder.ended(at(600), &end(2, Outcome::Died, 0, &spans));
        assert_eq!((recorder.done, recorder.failed, recorder.died()), (1, 1, 1));
        let report = recorder.into_report(Run::new("storm", Some(3), 1));
        let [dhcp, loader, image] = report.stages.as_slice() else { panic!("three stages") };
        assert_eq!((dhcp.latency.count(), loader.latency.count(), image.latency.count()), (1, 3, 0));
        assert_eq!(
            (dhcp.latency.max(), dhcp.began.max(), dhcp.ended.max()),
            (Some(at(200)), Some(at(0)), Some(at(500)))
        );
        assert_eq!((loader.began.max(), loader.ended.max()), (Some(at(100)), Some(at(400))));
        assert_eq!((report.total.count(), report.total.max()), (1, Some(at(500))));
        assert_eq!(report.failures, BTreeMap::from([("dhcp: late".to_owned(), 1)]));
        assert_eq!(report.died, BTreeMap::from([("dhcp".to_owned(), 1)]));
        assert_eq!(report.content_bytes, 30);
        assert_eq!(report.first_failed[0].spans[1], ("loader".to_owned(), 100_000, 400_000));
        assert!(!report.is_complete());
    }

    #[test]
    fn the_slowest_nodes_are_kept_slowest_first() {
        let mut recorder = Recorder::new(&STAGES);
        for node in 0..100u32 {
            let now = at(100 + u64::from(node * 37 % 101));
            recorder.ended(now, &end(node, Outcome::Done, 2, &[]));
        }
        let report = recorder.into_report(Run::new("storm", Some(100), 1));
        let totals: Vec<u64> = report.stragglers.iter().map(|node| node.total_microseconds).collect();
        assert_eq!(totals.len(), NODES_MAX);
        assert!(totals.is_sorted_by(|one, next| one >= next));
        let mut all: Vec<u32> = (0..100).map(|node| node * 37 % 101).collect();
        all.sort_unstable_by_key(|total| std::cmp::Reverse(*total));
        let expected: Vec<u64> = all[..NODES_MAX].iter().map(|total| u64::from(*total) * 1_000).collect();
        assert_eq!(totals, expected);
        assert!(report.is_complete());
    }

    #[test]
    fn reasons_beyond_the_limit_are_counted_together() {
        let mut recorder = Recorder::new(&STAGES);
        for reason in 0..200 {
            recorder.failed_exchange(at(1), 1, &format!("reason {reason} {}", "ä".repeat(200)));
        }
        let report = recorder.into_report(Run::new("dhcp", None, 1));
        assert_eq!((report.failures.len(), report.failures[OTHER]), (REASONS_MAX + 1, 200 - REASONS_MAX as u64));
        assert!(report.failures.keys().all(|reason| reason.len() <= REASON_BYTES_MAX + "loader: ".len()));
        assert!(!report.is_complete());
    }

    #[test]
    fn progress_tells_where_the_nodes_are_and_what_is_left() {
        let mut recorder = Recorder::new(&STAGES);
        recorder.expect(Expected::Count(10));
        for node in 0..4 {
            recorder.started(at(node));
            recorder.entered(at(node), None, 0);
        }
        recorder.entered(at(500), Some(0), 2);
        recorder.received(at(500), 4_000);
        assert_eq!(recorder.progress(at(500)).bytes_per_second, 8_000.0);
        assert_eq!(recorder.progress(at(500)).left, None);
        recorder.ended(at(2_500), &end(0, Outcome::Done, 2, &[]));
        recorder.ended(at(2_600), &end(1, Outcome::Failed("x"), 0, &[]));
        let progress = recorder.progress(at(4_000));
        assert_eq!(progress.live, [("dhcp", 2), ("loader", 0), ("image", 0)]);
        assert_eq!((progress.started, progress.done, progress.failed), (4, 1, 1));
        assert_eq!((progress.bytes_per_second, progress.ended_per_second), (1_000.0, 0.5));
        assert_eq!(progress.left, Some(Duration::from_secs(16)));
        assert_eq!(progress.failures, [("dhcp: x".to_owned(), 1)]);
        let later = recorder.progress(at(60_000));
        assert_eq!((later.bytes_per_second, later.left), (0.0, None));
        recorder.expect(Expected::Until(at(61_000)));
        assert_eq!(recorder.progress(at(60_000)).left, Some(at(1_000)));
        let report = recorder.into_report(Run::new("storm", Some(10), 1));
        assert_eq!((report.timeline.live[0][0], report.timeline.live[0][5], report.timeline.live[2][24]), (4, 3, 1));
    }

    #[test]
    fn exchanges_are_latencies_and_counts() {
        let mut recorder = Recorder::new(&STAGES);
        (1..=100).for_each(|time| recorder.exchange(at(time), 0, at(time)));
        let report = recorder.into_report(Run::new("dhcp", None, 1));
        assert_eq!((report.done, report.stages[0].latency.count(), report.timeline.done[0]), (100, 100, 99));
        assert!(report.is_complete());
    }
}
