//! The storm: whole nodes, all powered on at once, against our server and the stacks that people use.
//!
//! Every node takes its address by DHCP, the loader by TFTP, the script by HTTP, kernel and initrd, then the image; one in
//! fifty decodes and verifies what it gets, the others discard it. Servers and clients have two namespaces joined by veth
//! and share all processors, none is bound to one. Stacks come in turns, one at a time, each new from its start.

pub mod files;
pub mod stack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bootstorm_tests::lab::{Error, process};
use serde::Serialize;
use serde_json::Value;

use crate::case::{Comparison, Goal, Measure, Sample, median};
use crate::cgroup::Group;
use crate::client::Bodies;
use crate::limits;
use crate::pairs::Options;
use crate::peers::unpacked;
use crate::suite::{Failed, Planned, Suite};
use crate::veth::{INTERFACE, Link, Pin, Side};
use files::{Files, Sizes};
use stack::{Kind, Stack};

/// What may be chosen about a storm.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Turns of each stack in a storm of a thousand.
    pub rounds: Option<usize>,
    /// What boots the nodes, in the load generator's words.
    pub firmware: String,
    /// Whether the peers have their turn in the storm of ten thousand too.
    pub peers_too: bool,
    /// One stack alone, for a look: there is no ratio then.
    pub stack: Option<Kind>,
}

const MIB: u64 = 1 << 20;
const THOUSAND: Sizes = Sizes { loader: MIB, kernel: 8 * MIB, initrd: 16 * MIB, image: 128 * MIB };
const TEN_THOUSAND: Sizes = Sizes { loader: MIB, kernel: 3 * MIB, initrd: 5 * MIB, image: 16 * MIB };
const TRUNC: &str = "storm-1000-trunc";
const COPY: &str = "storm-1000-copy";
const FIRMWARE: &str = "storm-10000";

/// What came of one storm.
#[derive(Debug, Clone, Serialize)]
struct Storm {
    stack: &'static str,
    nodes: u64,
    makespan_seconds: f64,
    failed_nodes: u64,
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
    /// Processes' own memory and sockets' memory at the moment when their sum was greatest.
    own_bytes: u64,
    socket_bytes: u64,
    /// The load generator's report.
    report: Value,
}

/// Runs the suite, prints its lines and the table, and writes its record.
///
/// # Errors
/// When a server does not come up or a client does not report; nothing is recorded then.
pub fn run(options: &Options, settings: &Settings) -> Result<(), Failed> {
    let rounds = settings.rounds.unwrap_or(if options.quick { 1 } else { limits::STORM_ROUNDS });
    if settings.stack.is_some() && options.case.is_none() {
        let source = Error::Environment("one stack alone makes no record: name a case with --case".to_owned());
        return Err(Failed::new("storm", source));
    }
    let kinds = settings.stack.map_or(Kind::ALL.len(), |_| 1);
    let stacks = u32::try_from(kinds * rounds).unwrap_or(u32::MAX);
    let peers = if settings.peers_too { 4 } else { 1 };
    let plan: [Planned; 3] = [
        (TRUNC, limits::STORM_1000 * stacks),
        (COPY, limits::STORM_1000 * stacks),
        (FIRMWARE, limits::STORM_10000 * peers),
    ];
    let mut suite = Suite::begin("storm", options, &plan)?;
    let outcome = cases(&mut suite, options, settings, rounds);
    suite.end(outcome)
}

fn cases(suite: &mut Suite<'_>, options: &Options, settings: &Settings, rounds: usize) -> Result<(), Error> {
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(&options.loadgen(), &["--version"]);
    suite.version_of(Path::new("dnsmasq"), &["--version"]);
    suite.version_of(Path::new("nginx"), &["-v"]);
    suite.version_of(&unpacked("usr/sbin/kea-dhcp4"), &["-V"]);
    suite.version_of(&unpacked("usr/sbin/in.tftpd"), &["--version"]);
    suite.note("firmware", settings.firmware.clone());
    if !knows(options, "storm", "--image") {
        for case in [TRUNC, COPY, FIRMWARE] {
            suite.absent(case, "loadgen-takes-no-image-yet");
        }
        return Ok(());
    }
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    // nginx's workers are nobody.
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(|source| Error::File { path: place.path().to_owned(), source })?;
    let link = Link::new(place.path())?;
    let ground = Ground { options, settings, link: &link, place: place.path() };
    let divisor = if options.quick { limits::STORM_QUICK_DIVISOR } else { 1 };

    let wanted: Vec<_> =
        [(TRUNC, Bodies::Trunc), (COPY, Bodies::Copy)].into_iter().filter(|(case, _)| suite.wants(case)).collect();
    if !wanted.is_empty() {
        let files = Files::make(&link, options, THOUSAND.divided(divisor), &place.path().join("thousand"))?;
        suite.note("files-1000", files.note.clone());
        for (case, bodies) in wanted {
            suite.takes(case);
            let plan = Plan { scenario: "storm", nodes: 1000 / divisor, bodies };
            let kinds = settings.stack.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
            let storms = ground.rounds(&plan, &files, &kinds, rounds)?;
            table(case, &storms);
            if settings.stack.is_some() {
                continue;
            }
            compare(suite, case, &storms)?;
            suite.note(case, serde_json::to_value(&storms).unwrap_or_default());
        }
    }
    if suite.takes(FIRMWARE) {
        if !knows(options, "avalanche", "--image") {
            suite.absent(FIRMWARE, "loadgen-has-no-avalanche-yet");
            return Ok(());
        }
        let files = Files::make(&link, options, TEN_THOUSAND.divided(divisor), &place.path().join("ten-thousand"))?;
        suite.note("files-10000", files.note.clone());
        let plan = Plan { scenario: "avalanche", nodes: 10_000 / divisor, bodies: Bodies::Trunc };
        let kinds = match settings.stack {
            Some(kind) => vec![kind],
            None if settings.peers_too => Kind::ALL.to_vec(),
            None => vec![Kind::Ours],
        };
        let storms = ground.rounds(&plan, &files, &kinds, 1)?;
        table(FIRMWARE, &storms);
        if settings.stack.is_some() {
            return Ok(());
        }
        let ours = storms[&Kind::Ours].iter().map(Storm::sample).collect();
        let comparison = Comparison { case: FIRMWARE, peer: None, ours, theirs: Vec::new() };
        suite.measured(comparison, &[(Measure::FailedNodes, Goal::AtMost(0.0))])?;
        suite.note(FIRMWARE, serde_json::to_value(&storms).unwrap_or_default());
    }
    Ok(())
}

/// Whether a command of the load generator has an option.
pub fn knows(options: &Options, command: &str, option: &str) -> bool {
    let help = process::command(options.loadgen()).args([command, "--help"]).output();
    help.is_ok_and(|help| help.status.success() && String::from_utf8_lossy(&help.stdout).contains(option))
}

/// Lines of a case of a thousand: beside the better of the tuned stacks, and beside the usual way. A makespan counts only
/// where nearly all nodes reached their end; what the others waited for is in table and record.
fn compare(suite: &mut Suite<'_>, case: &'static str, storms: &Storms) -> Result<(), Error> {
    let is_whole = |kind: &Kind| {
        let lost = |storm: &Storm| storm.failed_nodes as f64 / storm.nodes as f64;
        storms[kind].iter().all(|storm| lost(storm) <= limits::STORM_LOST_MAX)
    };
    if !is_whole(&Kind::Ours) {
        suite.absent(case, "nodes-of-ours-failed");
        return Ok(());
    }
    let makespan = |kind: &Kind| {
        let all: Vec<f64> = storms[kind].iter().map(|storm| storm.makespan_seconds).collect();
        median(&all).unwrap_or(f64::INFINITY)
    };
    let tuned = [Kind::Dnsmasq, Kind::Kea].into_iter().filter(is_whole);
    let best = tuned.min_by(|one, other| makespan(one).total_cmp(&makespan(other)));
    let samples = |kind: Kind| storms[&kind].iter().map(Storm::sample).collect::<Vec<_>>();
    let beside = |peer, kind| Comparison { case, peer: Some(peer), ours: samples(Kind::Ours), theirs: samples(kind) };
    let goal = if case == TRUNC { 0.80 } else { 1.05 };
    match best {
        Some(best) => suite.measured(beside("best-tuned-stack", best), &[(Measure::Makespan, Goal::AtMost(goal))])?,
        None => suite.absent(case, "nodes-of-every-tuned-stack-failed"),
    }
    if case == TRUNC && is_whole(&Kind::Usual) {
        suite.measured(beside("usual-way", Kind::Usual), &[(Measure::Makespan, Goal::AtMost(0.35))])?;
    } else if case == TRUNC {
        suite.absent(case, "nodes-of-the-usual-way-failed");
    }
    Ok(())
}

type Storms = BTreeMap<Kind, Vec<Storm>>;

/// What is played.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Command of the load generator.
    scenario: &'static str,
    nodes: u64,
    bodies: Bodies,
}

/// Where it is played.
struct Ground<'a> {
    options: &'a Options,
    settings: &'a Settings,
    link: &'a Link,
    place: &'a Path,
}

impl Ground<'_> {
    /// Each round begins with another stack, so that none always comes after the same other.
    fn rounds(&self, plan: &Plan, files: &Files, kinds: &[Kind], rounds: usize) -> Result<Storms, Error> {
        let mut storms = Storms::new();
        for round in 0..rounds {
            for turn in 0..kinds.len() {
                let kind = kinds[(round + turn) % kinds.len()];
                let storm = self.storm(plan, files, kind, round)?;
                eprintln!(
                    "bench: {} of {} nodes, {}: {:.1} s, {} failed, CPU {:.1} s server, {:.1} s clients",
                    plan.scenario,
                    storm.nodes,
                    storm.stack,
                    storm.makespan_seconds,
                    storm.failed_nodes,
                    storm.server_cpu_seconds,
                    storm.client_cpu_seconds
                );
                storms.entry(kind).or_default().push(storm);
            }
        }
        Ok(storms)
    }

    fn storm(&self, plan: &Plan, files: &Files, kind: Kind, round: usize) -> Result<Storm, Error> {
        let run = self.place.join("run");
        let mut stack = Stack::start(kind, self.link, self.options, files, &run)?;
        let json = self.place.join("report.json");
        let group = Group::new("clients")?;
        let mut loadgen = self.link.confined(Side::Client, &group, Pin::Free, &self.options.loadgen());
        let bodies = match plan.bodies {
            Bodies::Trunc => "trunc",
            Bodies::Copy => "copy",
        };
        loadgen.args([plan.scenario, "--interface", INTERFACE, "--nodes", &plan.nodes.to_string()]);
        loadgen.args(["--seed", &(round + 1).to_string(), "--firmware", &self.settings.firmware]);
        loadgen.args(["--deadline", &limits::STORM_DEADLINE.as_secs().to_string(), "--bodies", bodies]);
        loadgen.args(["--image", &stack.image(kind, files), "--verify-every", "50", "--json"]).arg(&json);
        let before = stack.cpu_seconds()?;
        let (output, (own_bytes, socket_bytes)) = self.watched(&stack, || loadgen.output())?;
        let shown = format!("loadgen {}", plan.scenario);
        let output = output.map_err(|source| Error::Start { command: shown.clone(), source })?;
        // 1 says that nodes failed, which is a result.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Command { command: shown, status: output.status, message });
        }
        stack.check()?;
        let server_cpu_seconds = stack.cpu_seconds()? - before;
        let text = std::fs::read_to_string(&json).map_err(|source| Error::File { path: json.clone(), source })?;
        let wrong =
            |missing: &str| Error::Answer { command: shown.clone(), missing: missing.to_owned(), answer: text.clone() };
        let mut report: Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        // Thousands of numbers that no ratio is made of.
        report.as_object_mut().and_then(|report| report.remove("timeline"));
        let makespan_seconds = report["run"]["wall_seconds"].as_f64().ok_or_else(|| wrong("run.wall_seconds"))?;
        let failed_nodes = report["failed"].as_u64().ok_or_else(|| wrong("failed"))?;
        drop(stack);
        std::fs::remove_dir_all(&run).map_err(|source| Error::File { path: run, source })?;
        Ok(Storm {
            stack: kind.word(),
            nodes: plan.nodes,
            makespan_seconds,
            failed_nodes,
            server_cpu_seconds,
            client_cpu_seconds: group.cpu_seconds()?,
            own_bytes,
            socket_bytes,
            report,
        })
    }

    /// Does `work` on this thread, which started what runs, and looks at the servers' memory on another.
    fn watched<T>(&self, stack: &Stack<'_>, work: impl FnOnce() -> T) -> Result<(T, (u64, u64)), Error> {
        let over = AtomicBool::new(false);
        let watch = || -> Result<(u64, u64), Error> {
            let mut most = (0, 0);
            loop {
                let now = (stack.own_bytes()?, self.link.socket_bytes()?);
                if now.0 + now.1 > most.0 + most.1 {
                    most = now;
                }
                if over.load(Ordering::Acquire) {
                    return Ok(most);
                }
                std::thread::park_timeout(limits::STORM_SAMPLE);
            }
        };
        std::thread::scope(|scope| {
            let watcher = scope.spawn(watch);
            let done = work();
            over.store(true, Ordering::Release);
            watcher.thread().unpark();
            let most = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((done, most))
        })
    }
}

impl Storm {
    fn sample(&self) -> Sample {
        let sample = Sample {
            units: self.nodes as f64,
            seconds: self.makespan_seconds,
            server_cpu_seconds: self.server_cpu_seconds,
            client_cpu_seconds: self.client_cpu_seconds,
            ..Sample::default()
        };
        let memory = (self.own_bytes + self.socket_bytes) as f64;
        sample.with(Measure::FailedNodes, self.failed_nodes as f64).with(Measure::Memory, memory)
    }
}

/// Prints medians of each stack, and how long each stage took in the round of the median makespan.
fn table(case: &str, storms: &Storms) {
    println!("{case}: medians of {} rounds; stages are of the round with the median makespan, in seconds", {
        storms.values().map(Vec::len).max().unwrap_or(0)
    });
    println!(
        "{:<22}{:>10}{:>8}{:>12}{:>12}{:>10}{:>12}{:>13}",
        "stack", "makespan", "failed", "server CPU", "client CPU", "own MiB", "sockets MiB", "clients' MiB"
    );
    for all in storms.values() {
        let mid = |figure: &dyn Fn(&Storm) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>()).unwrap_or(0.0);
        println!(
            "{:<22}{:>10.1}{:>8}{:>12.1}{:>12.1}{:>10.0}{:>12.0}{:>13.0}",
            all.first().map_or("", |storm| storm.stack),
            mid(&|storm| storm.makespan_seconds),
            all.iter().map(|storm| storm.failed_nodes).sum::<u64>(),
            mid(&|storm| storm.server_cpu_seconds),
            mid(&|storm| storm.client_cpu_seconds),
            mid(&|storm| storm.own_bytes as f64) / MIB as f64,
            mid(&|storm| storm.socket_bytes as f64) / MIB as f64,
            mid(&|storm| storm.report["run"]["rss_bytes_max"].as_f64().unwrap_or(0.0)) / MIB as f64,
        );
    }
    println!("{:<22}{:<16}{:>10}{:>10}{:>10}", "stack", "stage", "p50", "p99", "p99.9");
    for all in storms.values() {
        let mut sorted: Vec<&Storm> = all.iter().collect();
        sorted.sort_by(|one, other| one.makespan_seconds.total_cmp(&other.makespan_seconds));
        let Some(middle) = sorted.get(sorted.len().saturating_sub(1) / 2) else { continue };
        let stages = middle.report["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stages = stages.iter().map(|stage| (stage["name"].as_str().unwrap_or_default(), &stage["latency"]));
        for (name, times) in stages.chain([("total", &middle.report["total"])]) {
            let seconds = |key: &str| times["milliseconds"][key].as_f64().map(|value| value / 1e3);
            // Reports name every stage, those that no node was in as well.
            if seconds("p50").is_none() {
                continue;
            }
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            let (p50, p99, p999) = (shown(seconds("p50")), shown(seconds("p99")), shown(seconds("p99.9")));
            println!("{:<22}{name:<16}{p50:>10}{p99:>10}{p999:>10}", middle.stack);
        }
        if let Some(failures) = middle.report["failures"].as_object().filter(|failures| !failures.is_empty()) {
            println!("{:<22}failures: {}", middle.stack, serde_json::to_string(failures).unwrap_or_default());
        }
    }
}
