//! Writes the part of docs/SPECIFICATION.md that tells ratios, from the committed records: nobody can better it by hand.
//!
//! What stands between [`BEGIN`] and [`END`] is replaced, nothing else; a test holds that the committed document is what the
//! committed records give.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use bootstorm_proto::http::server::format_date;
use bootstorm_tests::lab::Error;
use serde::Deserialize;

use crate::case::median;

/// Line before the generated part.
pub const BEGIN: &str = "<!-- From here on `make spec` writes, from bench/results/. -->";
/// Line after it.
pub const END: &str = "<!-- To here. -->";
/// Versions of the record format that are understood: the first had samples by case, which are not read here.
const VERSIONS: [u32; 2] = [1, 2];

/// A record as it is read back, as far as the document shows it.
#[derive(Debug, Deserialize)]
struct Record {
    version: u32,
    suite: String,
    started_unix_seconds: u64,
    quick: bool,
    machine: Machine,
    versions: BTreeMap<String, String>,
    ratios: Vec<Ratio>,
    absent: Vec<Absent>,
    #[serde(default)]
    notes: BTreeMap<String, serde_json::Value>,
}

/// One storm as the suite of storms notes it, by case and stack; see [`crate::storm`].
#[derive(Debug, Deserialize)]
struct Storm {
    makespan_seconds: f64,
    failed_nodes: u64,
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
    own_bytes: u64,
    socket_bytes: u64,
    report: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Machine {
    processor: String,
    processors: u32,
    memory_kib: u64,
    kernel: String,
    load_average_at_start: String,
}

#[derive(Debug, Deserialize)]
struct Ratio {
    case: String,
    measure: String,
    peer: String,
    goal: Goal,
    median: f64,
    least: f64,
    greatest: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Deserialize)]
struct Absent {
    case: String,
    reason: String,
}

impl Ratio {
    fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtMost(most) => self.median <= most,
            Goal::AtLeast(least) => self.median >= least,
        }
    }

    /// How many times worse than the peer, 1 for as good as it; `None` without a peer.
    fn loss(&self) -> Option<f64> {
        let loss = match self.goal {
            Goal::AtMost(_) => self.median,
            Goal::AtLeast(_) => 1.0 / self.median,
        };
        (self.peer != "none").then_some(loss)
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(most) => format!("≤ {}", figure(most)),
            Goal::AtLeast(least) => format!("≥ {}", figure(least)),
        }
    }

    fn spread(&self) -> String {
        format!("{} ({}–{})", figure(self.median), figure(self.least), figure(self.greatest))
    }
}

/// Three significant digits or so.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.0995 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Rewrites the document's generated part from the records in a directory; true when that changed something.
///
/// # Errors
/// When a file cannot be read or written, a record is of another version, or the document lacks the marks.
pub fn rewrite(results: &Path, document: &Path) -> Result<bool, Error> {
    let before = read(document)?;
    let after = replaced(&before, &generated(results)?)?;
    if before == after {
        return Ok(false);
    }
    fs::write(document, after).map_err(|source| Error::File { path: document.to_owned(), source })?;
    Ok(true)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// The document with another generated part.
fn replaced(document: &str, part: &str) -> Result<String, Error> {
    let cut = document.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = cut.ok_or_else(|| Error::Environment(format!("no `{BEGIN}` and `{END}` in the document")))?;
    Ok(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

/// The generated part.
fn generated(results: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: results.to_owned(), source };
    let entries: Result<Vec<_>, _> = fs::read_dir(results).map_err(failed)?.collect();
    let mut paths: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let records: Result<Vec<_>, _> = paths.iter().map(|path| parse(path, &read(path)?)).collect();
    Ok(written(&records?))
}

fn parse(path: &Path, text: &str) -> Result<Record, Error> {
    let record: Record = serde_json::from_str(text)
        .map_err(|error| Error::Environment(format!("`{}` is no record: {error}", path.display())))?;
    if !VERSIONS.contains(&record.version) {
        let (path, found) = (path.display(), record.version);
        return Err(Error::Environment(format!("`{path}` is of version {found}; {VERSIONS:?} are understood")));
    }
    Ok(record)
}

fn written(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        suite(&mut text, record);
    }
    losses(&mut text, records);
    text
}

fn suite(text: &mut String, record: &Record) {
    let Record { machine, versions, .. } = record;
    let _ = writeln!(text, "\n### {}", cell(&record.suite));
    if record.quick {
        text.push_str("**Shortened run (`QUICK=1`): for a look, no claim.** ");
    }
    let _ = writeln!(
        text,
        "{}; {}, {} processors, {:.1} GiB, Linux {}; load average at the start {}.",
        format_date(record.started_unix_seconds),
        cell(&machine.processor),
        machine.processors,
        machine.memory_kib as f64 / f64::from(1 << 20),
        cell(&machine.kernel),
        machine.load_average_at_start.split(' ').take(3).map(cell).collect::<Vec<_>>().join(" "),
    );
    let versions: Vec<String> =
        versions.iter().map(|(name, line)| format!("{} (`{}`)", cell(name), cell(line))).collect();
    let _ = writeln!(text, "{}.\n", versions.join(", "));
    if !record.ratios.is_empty() {
        text.push_str("| case | measure | peer | ratio | goal | |\n|---|---|---|---|---|---|\n");
    }
    for ratio in &record.ratios {
        let Ratio { case, measure, peer, .. } = ratio;
        let verdict = if ratio.is_met() { "met" } else { "**missed**" };
        let [case, measure, peer] = [case, measure, peer].map(|word| cell(word));
        let _ = writeln!(text, "| {case} | {measure} | {peer} | {} | {} | {verdict} |", ratio.spread(), ratio.goal());
    }
    for (case, note) in &record.notes {
        // Notes of any other shape are for who reads the record.
        let stacks: BTreeMap<String, Vec<Storm>> = serde_json::from_value(note.clone()).unwrap_or_default();
        if !stacks.is_empty() {
            storms(text, case, &stacks);
        }
    }
    if !record.absent.is_empty() {
        text.push_str("\nAbsent:\n");
    }
    for Absent { case, reason } in &record.absent {
        let _ = writeln!(text, "- {}: {}", cell(case), cell(reason).replace('-', " "));
    }
}

/// All stacks of one case of storms: medians of the rounds, and the stages of the round with the median makespan.
fn storms(text: &mut String, case: &str, stacks: &BTreeMap<String, Vec<Storm>>) {
    let _ =
        writeln!(text, "\nAll stacks of {}, medians of the rounds; failed nodes are the most of them:\n", cell(case));
    text.push_str("| stack | rounds | makespan s | failed | server CPU s | client CPU s | memory, sockets MiB |\n|---|---|---|---|---|---|---|\n");
    for (stack, rounds) in stacks {
        let mid =
            |of: &dyn Fn(&Storm) -> f64| figure(median(&rounds.iter().map(of).collect::<Vec<_>>()).unwrap_or_default());
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {}, {} |",
            cell(stack),
            rounds.len(),
            mid(&|storm| storm.makespan_seconds),
            rounds.iter().map(|storm| storm.failed_nodes).max().unwrap_or_default(),
            mid(&|storm| storm.server_cpu_seconds),
            mid(&|storm| storm.client_cpu_seconds),
            mid(&|storm| mebibytes(storm.own_bytes)),
            mid(&|storm| mebibytes(storm.socket_bytes)),
        );
    }
    text.push_str("\n| stack | stage, s | nodes | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|\n");
    for (stack, rounds) in stacks {
        let mut rounds: Vec<&Storm> = rounds.iter().collect();
        rounds.sort_by(|one, other| one.makespan_seconds.total_cmp(&other.makespan_seconds));
        let Some(Storm { report, .. }) = rounds.get(rounds.len().saturating_sub(1) / 2) else { continue };
        let stages = report["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stages = stages.iter().map(|stage| (stage["name"].as_str().unwrap_or_default(), &stage["latency"]));
        for (name, times) in stages.chain([("total", &report["total"])]) {
            let Some(count) = times["count"].as_u64().filter(|count| *count > 0) else { continue };
            let at =
                |key: &str| times["milliseconds"][key].as_f64().map_or("-".to_owned(), |value| figure(value / 1e3));
            let [p50, p99, p99_9, max] = ["p50", "p99", "p99.9", "max"].map(at);
            let _ = writeln!(text, "| {} | {} | {count} | {p50} | {p99} | {p99_9} | {max} |", cell(stack), cell(name));
        }
    }
}

/// What a reader who compares us with others should see first: where the peer is better, then what was promised and is not
/// there; the worst first.
fn losses(text: &mut String, records: &[Record]) {
    let all: Vec<&Ratio> = records.iter().filter(|record| !record.quick).flat_map(|record| &record.ratios).collect();
    let absent: usize = records.iter().map(|record| record.absent.len()).sum();
    let missed = all.iter().filter(|ratio| !ratio.is_met()).count();
    let _ = writeln!(
        text,
        "\n### Where we lose\nOf {} ratios and figures {missed} miss their goal; {absent} cases are absent. Shortened runs do not count.",
        all.len()
    );
    let mut worse: Vec<(f64, &Ratio)> =
        all.iter().filter_map(|ratio| Some((ratio.loss().filter(|loss| *loss > 1.0)?, *ratio))).collect();
    worse.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    text.push_str("\nThe peer is better:\n");
    for (loss, ratio) in &worse {
        let Ratio { case, measure, peer, .. } = ratio;
        let [case, measure, peer] = [case, measure, peer].map(|word| cell(word));
        let goal = if ratio.is_met() { "; the goal allows it" } else { "" };
        let _ = writeln!(text, "- {case}, {measure}: {} times worse than {peer}{goal}", figure(*loss));
    }
    none(text, worse.is_empty());
    text.push_str("\nNo worse than the peer, or without one, and short of the goal:\n");
    let short: Vec<&&Ratio> =
        all.iter().filter(|ratio| !ratio.is_met() && ratio.loss().is_none_or(|loss| loss <= 1.0)).collect();
    for ratio in &short {
        let Ratio { case, measure, peer, .. } = ratio;
        let [case, measure, peer] = [case, measure, peer].map(|word| cell(word));
        let _ = writeln!(text, "- {case}, {measure}, peer {peer}: {}, goal {}", figure(ratio.median), ratio.goal());
    }
    none(text, short.is_empty());
}

fn none(text: &mut String, is_empty: bool) {
    if is_empty {
        text.push_str("- nothing\n");
    }
}

/// Text that cannot end its table's cell, its code or the generated part.
fn cell(text: &str) -> String {
    text.chars()
        .map(
            |character| {
                if matches!(character, '|' | '`' | '<' | '>') || character.is_control() { ' ' } else { character }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    #[test]
    fn the_committed_document_is_what_the_committed_records_give() {
        let committed = read(&here("../docs/SPECIFICATION.md")).unwrap();
        let made = replaced(&committed, &generated(&here("results")).unwrap()).unwrap();
        assert!(made == committed, "docs/SPECIFICATION.md is not what bench/results/ gives: run `make spec`");
    }

    fn record(quick: bool) -> Record {
        let ratio = |case: &str, peer: &str, goal, median| Ratio {
            case: case.to_owned(),
            measure: "rate".to_owned(),
            peer: peer.to_owned(),
            goal,
            median,
            least: median * 0.9,
            greatest: median * 1.1,
        };
        Record {
            version: 2,
            suite: "s".to_owned(),
            started_unix_seconds: 0,
            quick,
            machine: Machine {
                processor: "P | `x`".to_owned(),
                processors: 2,
                memory_kib: 1 << 20,
                kernel: "6".to_owned(),
                load_average_at_start: "0.1 0.2 0.3 1/9 5".to_owned(),
            },
            versions: [("nginx".to_owned(), "1 <-->".to_owned())].into(),
            ratios: vec![
                ratio("cheaper", "p", Goal::AtMost(0.6), 0.5),
                ratio("dearer", "p", Goal::AtMost(0.6), 1.5),
                ratio("slow", "p", Goal::AtLeast(1.0), 0.25),
                ratio("short", "p", Goal::AtLeast(2.0), 1.5),
                ratio("allowed", "p", Goal::AtMost(1.2), 1.1),
                ratio("lost", "none", Goal::AtMost(0.0), 3.0),
            ],
            notes: [("image-raw-bytes".to_owned(), serde_json::json!({}))].into(),
            absent: vec![Absent { case: "later".to_owned(), reason: "not-built-yet".to_owned() }],
        }
    }

    #[test]
    fn every_ratio_stands_in_the_table_with_its_verdict() {
        let text = written(&[record(false)]);
        assert!(text.contains("| cheaper | rate | p | 0.50 (0.45–0.55) | ≤ 0.60 | met |"), "{text}");
        assert!(text.contains("| slow | rate | p | 0.25 (0.23–0.28) | ≥ 1.00 | **missed** |"), "{text}");
        assert!(text.contains("- later: not built yet") && text.contains("load average at the start 0.1 0.2 0.3."));
        assert!(!text.contains("<") && !text.contains("P |"), "{text}");
    }

    #[test]
    fn storms_are_shown_by_stack_and_stage() {
        let storm = |makespan: f64, failed: u64| {
            let latency = serde_json::json!({ "count": 9, "milliseconds": { "p50": makespan * 100.0, "p99": 20.0, "p99.9": 30.0, "max": 40.0 } });
            serde_json::json!({
                "stack": "ours", "nodes": 9, "makespan_seconds": makespan, "failed_nodes": failed, "server_cpu_seconds": 2.0,
                "client_cpu_seconds": 3.0, "own_bytes": 4 << 20, "socket_bytes": 1 << 20,
                "report": { "stages": [{ "name": "dhcp", "latency": latency }], "total": { "count": 0 } },
            })
        };
        let mut record = record(false);
        record
            .notes
            .insert("storm-1".to_owned(), serde_json::json!({ "ours": [storm(7.0, 0), storm(5.0, 2), storm(6.0, 1)] }));
        let text = written(&[record]);
        assert!(text.contains("| ours | 3 | 6.00 | 2 | 2.00 | 3.00 | 4.00, 1.00 |"), "{text}");
        assert!(text.contains("| ours | dhcp | 9 | 0.60 | 0.020 | 0.030 | 0.040 |"), "{text}");
        assert_eq!(text.matches("All stacks of").count(), 1);
    }

    #[test]
    fn losses_are_listed_the_worst_first_and_shortened_runs_claim_nothing() {
        let text = written(&[record(false)]);
        let list: Vec<&str> = text.lines().skip_while(|line| *line != "The peer is better:").collect();
        assert_eq!(list[1], "- slow, rate: 4.00 times worse than p");
        assert_eq!(list[2], "- dearer, rate: 1.50 times worse than p");
        assert_eq!(list[3], "- allowed, rate: 1.10 times worse than p; the goal allows it");
        assert_eq!(list[6], "- short, rate, peer p: 1.50, goal ≥ 2.00");
        assert_eq!(list[7], "- lost, rate, peer none: 3.00, goal ≤ 0");
        let quick = written(&[record(true)]);
        assert!(quick.contains("no claim") && quick.contains("Of 0 ratios and figures 0 miss their goal"), "{quick}");
    }

    #[test]
    fn only_the_part_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        assert_eq!(replaced(&document, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nz\n"));
        assert!(replaced("a\n", "new\n").is_err() && replaced(BEGIN, "").is_err());
        assert!(parse(Path::new("x"), "{}").is_err());
    }
}
