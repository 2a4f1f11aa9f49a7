//! How a run stands, shown while it goes on: some lines redrawn on a terminal, one line every few seconds elsewhere.
//!
//! No thread and no timer of its own: the event loop asks [`Live::next`] when it has to come back, and calls [`Live::show`].

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Recorder;
use super::recorder::{Expected, Progress};

/// How often a terminal is redrawn: smooth enough for the eye.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// How often a line is written where nothing can be redrawn: a log of an hour stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Reasons of failures that are shown, the most frequent.
const REASONS_SHOWN: usize = 4;
/// Width of the bar in characters.
const BAR_WIDTH: usize = 40;

/// Where progress is shown.
#[derive(Debug)]
pub struct Live {
    scenario: String,
    sink: Sink,
    next: Duration,
}

#[derive(Debug)]
enum Sink {
    Terminal(ProgressBar),
    Lines,
    Nowhere,
}

impl Live {
    /// On standard error, in the way that suits it.
    pub fn new(scenario: &str) -> Live {
        let sink = if std::io::stderr().is_terminal() {
            // The template is a constant that parses; a style of the library's own shows the message, too.
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            Sink::Terminal(ProgressBar::new_spinner().with_style(style))
        } else {
            Sink::Lines
        };
        let next = if matches!(sink, Sink::Lines) { LINE_INTERVAL } else { Duration::ZERO };
        Live { scenario: scenario.to_owned(), sink, next }
    }

    /// Nowhere.
    pub fn hidden() -> Live {
        Live { scenario: String::new(), sink: Sink::Nowhere, next: Duration::MAX }
    }

    /// When there is something to be shown again; `None` for never.
    pub fn next(&self) -> Option<Duration> {
        (!matches!(self.sink, Sink::Nowhere)).then_some(self.next)
    }

    /// Shows how it stands, if that is due.
    pub fn show(&mut self, now: Duration, recorder: &Recorder) {
        if now < self.next {
            return;
        }
        match &self.sink {
            Sink::Terminal(bar) => {
                bar.set_message(recorder.progress(now).lines(&self.scenario));
                bar.tick();
                self.next = now + REDRAW_INTERVAL;
            }
            Sink::Lines => {
                eprintln!("{}", recorder.progress(now).line(&self.scenario));
                self.next = now + LINE_INTERVAL;
            }
            Sink::Nowhere => {}
        }
    }

    /// Clears what was drawn.
    pub fn finish(&mut self) {
        if let Sink::Terminal(bar) = &self.sink {
            bar.finish_and_clear();
        }
        self.sink = Sink::Nowhere;
    }
}

impl Progress {
    /// All in one line.
    fn line(&self, scenario: &str) -> String {
        let mut text = format!("{scenario}: {}", self.counts());
        let live = self.stages();
        let _ = write!(text, "; {}{}{}", self.rates(), if live.is_empty() { "" } else { "; " }, live);
        for (reason, count) in self.failures.iter().take(REASONS_SHOWN) {
            let _ = write!(text, "; {count} {reason}");
        }
        text
    }

    /// Some lines: counts with a bar, nodes by stage, rates, failures.
    fn lines(&self, scenario: &str) -> String {
        let mut text = format!("{scenario}  {}\n", self.counts());
        if let Some(part) = self.part() {
            let full = (part * BAR_WIDTH as f64) as usize;
            let _ = writeln!(text, "[{}{}] {:.0} %", "#".repeat(full), ".".repeat(BAR_WIDTH - full), part * 100.0);
        }
        let stages = self.stages();
        if !stages.is_empty() {
            let _ = writeln!(text, "{stages}");
        }
        let _ = write!(text, "{}", self.rates());
        for (reason, count) in self.failures.iter().take(REASONS_SHOWN) {
            let _ = write!(text, "\nfailed {count:>6}  {reason}");
        }
        text
    }

    /// How much of it is over, 0 to 1.
    fn part(&self) -> Option<f64> {
        let part = match self.expected {
            Expected::Unknown => return None,
            Expected::Count(expected) => (self.done + self.failed + self.died) as f64 / expected.max(1) as f64,
            Expected::Until(end) => self.now.as_secs_f64() / end.as_secs_f64().max(1e-9),
        };
        Some(part.clamp(0.0, 1.0))
    }

    fn counts(&self) -> String {
        let mut text = format!("{:.0} s, {}", self.now.as_secs_f64(), self.done);
        if let Expected::Count(expected) = self.expected {
            let _ = write!(text, "/{expected}");
        }
        text.push_str(" done");
        let others = [(self.failed, "failed"), (self.died, "died")];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            let _ = write!(text, ", {count} {what}");
        }
        if let Some(left) = self.left {
            let _ = write!(text, ", {:.0} s left", left.as_secs_f64());
        }
        text
    }

    fn rates(&self) -> String {
        format!("{:.1} MB/s, {:.1} ended/s", self.bytes_per_second / 1e6, self.ended_per_second)
    }

    /// The stages that nodes are in.
    fn stages(&self) -> String {
        let filled = self.live.iter().filter(|(_, count)| *count > 0);
        filled.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            now: Duration::from_secs(12),
            started: 900,
            done: 250,
            failed: 3,
            died: 0,
            expected: Expected::Count(1_000),
            live: vec![("dhcp", 20), ("loader", 0), ("image", 80)],
            bytes_per_second: 812.34e6,
            ended_per_second: 25.0,
            failures: vec![("dhcp: NoOffer".to_owned(), 2), ("image: http 404".to_owned(), 1)],
            left: Some(Duration::from_secs(29)),
        }
    }

    #[test]
    fn a_line_and_some_lines_tell_the_same() {
        assert_eq!(
            progress().line("storm"),
            "storm: 12 s, 250/1000 done, 3 failed, 29 s left; 812.3 MB/s, 25.0 ended/s; dhcp 20, image 80; \
             2 dhcp: NoOffer; 1 image: http 404"
        );
        let lines = progress().lines("storm");
        let bar = format!("[{}{}] 25 %", "#".repeat(10), ".".repeat(30));
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "storm  12 s, 250/1000 done, 3 failed, 29 s left",
                bar.as_str(),
                "dhcp 20, image 80",
                "812.3 MB/s, 25.0 ended/s",
                "failed      2  dhcp: NoOffer",
                "failed      1  image: http 404",
            ]
        );
    }

    #[test]
    fn a_run_by_time_shows_its_time() {
        let expected = Expected::Until(Duration::from_secs(10));
        let progress = Progress { expected, left: None, failures: Vec::new(), live: Vec::new(), ..progress() };
        assert_eq!(progress.part(), Some(1.0));
        assert_eq!(progress.line("dns"), "dns: 12 s, 250 done, 3 failed; 812.3 MB/s, 25.0 ended/s");
    }

    #[test]
    fn what_is_hidden_never_wakes_the_loop() {
        let mut live = Live::hidden();
        assert_eq!(live.next(), None);
        live.show(Duration::MAX, &Recorder::new(&["dhcp"]));
    }
}
