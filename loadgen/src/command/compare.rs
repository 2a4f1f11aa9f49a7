//! `loadgen compare A B`: what changed between two reports.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::report::{Histogram, PERCENTILES, Report, milliseconds};

/// What `--help` shows below; each is tested to parse.
pub const EXAMPLES: &str = "\
Examples:
  loadgen compare before.json after.json
      ratios of the second to the first: 0.50x is half the time

It exits with 0 when both could be read, whatever they say, and with 2 when not. Ratios of runs that differ in scenario,
arguments or machine are shown, but first it is said why they say little.";

/// Arguments of `compare`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArguments {
    /// A report of `--json`.
    a: PathBuf,
    /// Another.
    b: PathBuf,
}

/// Prints the comparison.
///
/// # Errors
/// When a report cannot be read.
pub fn run(arguments: &CompareArguments) -> Result<bool, String> {
    let read = |path| Report::read(path).map_err(|error| error.to_string());
    let (a, b) = (read(&arguments.a)?, read(&arguments.b)?);
    let mut out = std::io::stdout().lock();
    out.write_all(compare(&a, &b).as_bytes()).map_err(|error| format!("writing the comparison: {error}"))?;
    Ok(true)
}

/// The comparison as text.
fn compare(a: &Report, b: &Report) -> String {
    let mut text = String::new();
    for why in differences(a, b) {
        let _ = writeln!(text, "not comparable: {why}");
    }
    let _ = writeln!(text, "{:<15}{:<7}{:>14}{:>14}{:>10}", "stage", "ms", "A", "B", "B / A");
    for (name, a, b) in stages(a, b) {
        for (per_mille, percentile) in PERCENTILES {
            let (a, b) = (a.and_then(|times| times.quantile(per_mille)), b.and_then(|times| times.quantile(per_mille)));
            let show = |time: Option<Duration>| time.map_or("-".to_owned(), milliseconds);
            let of = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
            let _ =
                writeln!(text, "{name:<15}{percentile:<7}{:>14}{:>14}{:>10}", show(a), show(b), ratio(of(a), of(b)));
        }
    }
    let _ = writeln!(text, "{:<22}{:>14}{:>14}{:>10}", "whole run", "A", "B", "B / A");
    let per_done = |report: &Report| match report.done {
        0 => None,
        done => Some(report.run.cpu_seconds * 1e3 / done as f64),
    };
    let rows: [(&str, Option<f64>, Option<f64>); 9] = [
        ("makespan s", Some(a.run.wall_seconds), Some(b.run.wall_seconds)),
        ("done", Some(a.done as f64), Some(b.done as f64)),
        ("failed", Some(a.failed as f64), Some(b.failed as f64)),
        ("died as wanted", Some(deaths(a)), Some(deaths(b))),
        ("content MB", Some(a.content_bytes as f64 / 1e6), Some(b.content_bytes as f64 / 1e6)),
        ("received MB", Some(a.received_bytes as f64 / 1e6), Some(b.received_bytes as f64 / 1e6)),
        ("loadgen CPU s", Some(a.run.cpu_seconds), Some(b.run.cpu_seconds)),
        ("loadgen CPU ms/done", per_done(a), per_done(b)),
        ("loadgen memory MiB", Some(mebibytes(a)), Some(mebibytes(b))),
    ];
    for (name, a, b) in rows {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let _ = writeln!(text, "{name:<22}{:>14}{:>14}{:>10}", show(a), show(b), ratio(a, b));
    }
    let reasons = a.failures.keys().chain(b.failures.keys().filter(|reason| !a.failures.contains_key(*reason)));
    for reason in reasons {
        let count = |report: &Report| report.failures.get(reason).copied().unwrap_or(0);
        let _ = writeln!(text, "failed {:>8} {:>8}  {reason}", count(a), count(b));
    }
    text
}

fn deaths(report: &Report) -> f64 {
    report.died.values().sum::<u64>() as f64
}

fn mebibytes(report: &Report) -> f64 {
    report.run.rss_bytes_max as f64 / f64::from(1 << 20)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// B ÷ A; nothing where one is missing or A is nothing.
fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    let ratio = a.filter(|a| *a > 0.0).zip(b).map(|(a, b)| b / a);
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"))
}

/// Stages of A, then those that only B has, then the whole; each where at least one has times.
fn stages<'a>(a: &'a Report, b: &'a Report) -> Vec<(&'a str, Option<&'a Histogram>, Option<&'a Histogram>)> {
    let find = |report: &'a Report, name: &str| {
        report.stages.iter().find(|stage| stage.name == name).map(|stage| &stage.latency)
    };
    let names = a.stages.iter().map(|stage| stage.name.as_str());
    let only_b = b.stages.iter().map(|stage| stage.name.as_str()).filter(|name| find(a, name).is_none());
    let rows = names.chain(only_b).map(|name| (name, find(a, name), find(b, name)));
    let whole = std::iter::once(("total", Some(&a.total), Some(&b.total)));
    let has_times = |times: Option<&Histogram>| times.is_some_and(|times| times.count() > 0);
    rows.chain(whole).filter(|(_, a, b)| has_times(*a) || has_times(*b)).collect()
}

/// Why the two say little about one another.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let mut differences = Vec::new();
    let mut note = |what: &str, a: &str, b: &str| {
        if a != b {
            differences.push(format!("{what} `{a}` and `{b}`"));
        }
    };
    note("scenarios", &a.run.scenario, &b.run.scenario);
    let expected = |report: &Report| report.run.expected.map_or("none".to_owned(), |count| count.to_string());
    note("numbers expected", &expected(a), &expected(b));
    note("seeds", &a.run.seed.to_string(), &b.run.seed.to_string());
    note("versions of loadgen", &a.version, &b.version);
    let names =
        a.run.arguments.keys().chain(b.run.arguments.keys().filter(|name| !a.run.arguments.contains_key(*name)));
    for name in names {
        let value = |report: &Report| report.run.arguments.get(name).cloned().unwrap_or_else(|| "none".to_owned());
        note(&format!("arguments `{name}`:"), &value(a), &value(b));
    }
    note("processors", &processor(a), &processor(b));
    note("memories in GiB", &gibibytes(a), &gibibytes(b));
    note("kernels", &a.machine.kernel, &b.machine.kernel);
    let limits = &b.machine.limits;
    for (name, value) in a.machine.limits.iter().filter(|(name, _)| limits.contains_key(*name)) {
        note(&format!("limits `{name}`:"), value, &limits[name]);
    }
    differences
}

/// Without the clock, which changes from moment to moment.
fn processor(report: &Report) -> String {
    let name = report.machine.processor.rsplit_once(", ").map_or(report.machine.processor.as_str(), |(name, _)| name);
    format!("{} x {name}", report.machine.processors)
}

fn gibibytes(report: &Report) -> String {
    format!("{:.1}", report.machine.memory_kib as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_beside_itself_is_one_everywhere_and_comparable() {
        let report = sample(100);
        let text = compare(&report, &report);
        assert!(!text.contains("not comparable"), "{text}");
        let ratios: Vec<&str> =
            text.lines().filter_map(|line| line.split_whitespace().last()).filter(|word| word.ends_with('x')).collect();
        assert!(ratios.len() > 30 && ratios.iter().all(|ratio| *ratio == "1.00x"), "{text}");
    }

    #[test]
    fn what_differs_is_told_and_what_only_one_has_is_shown() {
        let a = sample(100);
        let mut b = a.clone();
        b.run.scenario = "avalanche".to_owned();
        b.run.seed = 10;
        b.run.wall_seconds = 2.0 * a.run.wall_seconds;
        b.machine.kernel = "9.9".to_owned();
        b.machine.processor = b.machine.processor.replace("MHz", "kHz");
        b.stages[4].name = "disk".to_owned();
        b.failures.insert("disk: full".to_owned(), 7);
        let text = compare(&a, &b);
        let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("not comparable: ")).collect();
        assert_eq!(told[0], "scenarios `storm` and `avalanche`");
        assert_eq!((told.len(), told[1]), (3, "seeds `9` and `10`"));
        let words = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start)).expect(start);
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words("makespan")[4], "2.00x");
        assert_eq!((words("disk")[2].as_str(), words("disk")[4].as_str()), ("-", "-"));
        assert_eq!((words("image")[3].as_str(), words("image")[4].as_str()), ("-", "-"));
        assert!(text.contains("failed        0        7  disk: full"), "{text}");
    }
}
