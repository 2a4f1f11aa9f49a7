//! The report for people.

use std::fmt::Write;
use std::time::Duration;

use super::{Histogram, Report};

/// Percentiles shown, in a thousand, with their names.
pub const PERCENTILES: [(u32, &str); 5] = [(500, "p50"), (900, "p90"), (990, "p99"), (999, "p99.9"), (1_000, "max")];

impl Report {
    /// Its last line is `SCENARIO: DONE/EXPECTED`, or `SCENARIO: DONE done` where the run ended by time.
    pub fn table(&self) -> String {
        let mut text = format!("{:<15}{:>9}", "stage", "count");
        for (_, name) in PERCENTILES {
            let _ = write!(text, "{:>11}", format!("{name} ms"));
        }
        text.push('\n');
        for stage in &self.stages {
            row(&mut text, &stage.name, &stage.latency);
        }
        row(&mut text, "total", &self.total);
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "failed {count:>6}  {reason}");
        }
        for (stage, count) in &self.died {
            let _ = writeln!(text, "died   {count:>6}  {stage}: as the scenario wanted");
        }
        let run = &self.run;
        let seconds = run.wall_seconds.max(1e-3);
        let _ = writeln!(
            text,
            "{:.1} s wall, {:.1} s CPU and {:.0} MiB here, {:.1} MB received ({:.0} MB/s), {:.1} done a second, \
             starts at most {} ms late, seed {}",
            run.wall_seconds,
            run.cpu_seconds,
            run.rss_bytes_max as f64 / f64::from(1 << 20),
            self.received_bytes as f64 / 1e6,
            self.received_bytes as f64 / 1e6 / seconds,
            self.done as f64 / seconds,
            run.start_late_milliseconds_max,
            run.seed,
        );
        let _ = match run.expected {
            Some(expected) => writeln!(text, "{}: {}/{expected}", run.scenario, self.done),
            None => writeln!(text, "{}: {} done", run.scenario, self.done),
        };
        text
    }
}

/// One stage; nothing for none.
fn row(text: &mut String, name: &str, times: &Histogram) {
    if times.count() == 0 {
        return;
    }
    let _ = write!(text, "{name:<15}{:>9}", times.count());
    for (per_mille, _) in PERCENTILES {
        let _ = write!(text, "{:>11}", milliseconds(times.quantile(per_mille).unwrap_or_default()));
    }
    text.push('\n');
}

/// Milliseconds with as many digits as they deserve.
pub fn milliseconds(time: Duration) -> String {
    let value = time.as_secs_f64() * 1e3;
    match value {
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{End, Outcome, Recorder, Run, Span};
    use super::*;

    #[test]
    fn percentiles_failures_and_the_last_line() {
        let mut recorder = Recorder::new(&["dhcp", "script", "image"]);
        let at = Duration::from_millis;
        for time in 1..=100 {
            let spans =
                [Span { stage: 0, from: at(0), to: at(time) }, Span { stage: 1, from: at(time), to: at(2 * time) }];
            let (outcome, started) = (Outcome::Done, at(0));
            recorder.received(at(2 * time), 10_000);
            recorder.ended(at(2 * time), &End { node: 0, outcome, stage: 1, spans: &spans, started, bytes: 0 });
        }
        for outcome in [Outcome::Failed("http 404"), Outcome::Failed("http 404"), Outcome::Died] {
            recorder.ended(at(9), &End { node: 0, outcome, stage: 1, spans: &[], started: at(0), bytes: 0 });
        }
        let mut run = Run::new("storm", Some(103), 7);
        run.wall_seconds = 2.0;
        let table = recorder.into_report(run).table();
        let lines: Vec<&str> = table.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let number = |word: &str| word.parse::<f64>().unwrap();
        let dhcp = words(lines[1]);
        assert_eq!((dhcp[0].as_str(), dhcp[1].as_str(), dhcp[6].as_str()), ("dhcp", "100", "100.0"));
        for (word, exact) in dhcp[2..6].iter().zip([50.0, 90.0, 99.0, 100.0]) {
            assert!((number(word) - exact).abs() <= 0.01 * exact, "{table}");
        }
        assert_eq!((words(lines[2])[0].as_str(), words(lines[3])[0].as_str()), ("script", "total"));
        assert_eq!(lines[4..6], ["failed      2  script: http 404", "died        1  script: as the scenario wanted"]);
        assert!(lines[6].contains("1.0 MB received (0 MB/s), 50.0 done a second"), "{table}");
        assert_eq!(lines.last(), Some(&"storm: 100/103"));
    }

    #[test]
    fn a_run_by_time_has_no_number_to_reach() {
        let report = Recorder::new(&["dns"]).into_report(Run::new("dns", None, 1));
        assert_eq!(report.table().lines().last(), Some("dns: 0 done"));
        assert_eq!(milliseconds(Duration::from_micros(12)), "0.012");
    }
}
