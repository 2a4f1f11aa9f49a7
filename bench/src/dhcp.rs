//! DHCP beside Kea with one thread, Kea with two and dnsmasq, over a link of two namespaces.
//!
//! Every server has processor 0, its clients processor 1; Kea with two threads has both. Receive buffers are as deep as
//! the kernel gives them. A server is started anew for every load, so that all clients are new to it. The unit of work is
//! one exchange that ended with an acknowledgement. Of ours the CPU time of the rack role counts, which is what answers;
//! what the other roles do with what they hear of leases is in the record's notes.

pub mod clients;
pub mod journal;
pub mod servers;

use std::path::Path;
use std::time::Duration;

use bootstorm_tests::lab::{Error, process};
use serde_json::json;

use crate::case::{Comparison, Goal, Measure, Sample};
use crate::limits;
use crate::pairs::{Options, Time};
use crate::peers::unpacked;
use crate::storm::{self, files::Files, files::Sizes};
use crate::suite::{Failed, Planned, Suite};
use crate::veth::{INTERFACE, Link, Pin, Side};
use clients::{Client, Taken};
use servers::{Ground, Kind, Server};

const PERFDHCP: &str = "dhcp-dora-perfdhcp";
const LOADGEN: &str = "dhcp-dora-loadgen";
const FSYNC: &str = "dhcp-fsync";
const BURST: &str = "dhcp-burst-10k";
const AVALANCHE: &str = "dhcp-avalanche-10k";
const RELOAD: &str = "dhcp-reload-1m";
const TAKEOVER: &str = "dhcp-takeover";

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let load = limits::DHCP_LOAD_EXPECTED;
    let rounds = u32::try_from(options.rounds()).unwrap_or(u32::MAX);
    let plan: [Planned; 7] = [
        (PERFDHCP, load * (12 + 2 * rounds)),
        (LOADGEN, load * (24 + 12 * rounds)),
        (FSYNC, load * rounds),
        (BURST, load * rounds),
        (AVALANCHE, load * 20),
        (RELOAD, load * 5),
        (TAKEOVER, Duration::ZERO),
    ];
    let mut suite = Suite::begin("dhcp", options, &plan)?;
    let outcome = cases(&mut suite, options);
    suite.end(outcome)
}

fn cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(&options.loadgen(), &["--version"]);
    suite.version_of(&unpacked("usr/sbin/kea-dhcp4"), &["-V"]);
    suite.version_of(Path::new("dnsmasq"), &["--version"]);
    suite.version_of(Path::new("perfdhcp"), &["-v"]);
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let link = Link::new(place.path())?;
    let ground = Ground { link: &link, options, place: place.path() };
    ground.prepare()?;
    let has_loadgen = storm::knows(options, "dhcp", "--lost-after");

    if suite.takes(PERFDHCP) {
        let rates = Rates::find(&ground, Client::Perfdhcp, &[Kind::Ours, Kind::Kea1])?;
        suite.note("perfdhcp-rates", rates.note());
        beside(suite, &ground, Client::Perfdhcp, PERFDHCP, Kind::Kea1, &rates, 0.30)?;
    }
    if suite.takes(LOADGEN) {
        if has_loadgen {
            let kinds = [Kind::Ours, Kind::Kea1, Kind::Kea2, Kind::Dnsmasq];
            let rates = Rates::find(&ground, Client::Loadgen, &kinds)?;
            suite.note("loadgen-rates", rates.note());
            for (peer, goal) in [(Kind::Kea1, 0.30), (Kind::Kea2, 0.20), (Kind::Dnsmasq, 0.05)] {
                beside(suite, &ground, Client::Loadgen, LOADGEN, peer, &rates, goal)?;
            }
            highest_beside(suite, &ground, &rates)?;
        } else {
            suite.absent(LOADGEN, "loadgen-dhcp-not-landed");
        }
    }
    if suite.takes(FSYNC) {
        fsync(suite, &ground, if has_loadgen { Client::Loadgen } else { Client::Perfdhcp })?;
    }
    if suite.takes(BURST) {
        if has_loadgen { burst(suite, &ground)? } else { suite.absent(BURST, "loadgen-dhcp-not-landed") }
    }
    if suite.takes(AVALANCHE) {
        if has_loadgen && storm::knows(options, "avalanche", "--image") {
            avalanche(suite, &ground)?;
        } else {
            suite.absent(AVALANCHE, "loadgen-avalanche-not-landed");
        }
    }
    if suite.takes(RELOAD) {
        reload(suite, &ground)?;
    }
    if suite.takes(TAKEOVER) {
        suite.absent(TAKEOVER, "no-pairs-yet");
    }
    Ok(())
}

/// One load of a server that is started for it.
fn load(ground: &Ground<'_>, client: Client, kind: Kind, rate: f64) -> Result<(Taken, Sample), Error> {
    let server = ground.start(kind, client)?;
    let before = [server.cpu_seconds()?, server.cpu_seconds_of_all()?];
    let duration = duration(ground.options);
    let taken = client.load(ground.link, ground.options, rate, duration, limits::DHCP_PATIENCE)?;
    let server_cpu_seconds = server.cpu_seconds()? - before[0];
    if let Server::Ours(_) = server {
        let all = server.cpu_seconds_of_all()? - before[1];
        eprintln!("bench: rack {server_cpu_seconds:.2} s, all roles {all:.2} s of CPU");
    }
    eprintln!(
        "bench: {} at {rate:.0}/s by {}: {} of {}, {:.1} ms CPU a thousand; the client took {:.2} s in {:.2} s",
        kind.word(),
        client.word(),
        taken.done,
        taken.begun,
        server_cpu_seconds / taken.done.max(1) as f64 * 1e6,
        taken.cpu_seconds,
        taken.seconds
    );
    let sample = Sample {
        units: taken.done as f64,
        seconds: duration.as_secs_f64(),
        server_cpu_seconds,
        client_cpu_seconds: taken.cpu_seconds,
        ..Sample::default()
    };
    Ok((taken, sample))
}

fn duration(options: &Options) -> Duration {
    options.load(Time::Measured).min(limits::DHCP_LOAD)
}

/// The rates on which servers are tried, exchanges a second: each so much above the one before.
fn ladder() -> Vec<f64> {
    std::iter::successors(Some(limits::DHCP_RATE_LEAST), |rate| Some(rate * limits::DHCP_RATE_STEP))
        .take_while(|rate| *rate <= limits::DHCP_RATE_MOST)
        .map(f64::round)
        .collect()
}

/// Index of the highest rate of `low..high` that is carried, by halving; `None` when not even the first is.
fn highest<E>(low: usize, high: usize, mut carries: impl FnMut(usize) -> Result<bool, E>) -> Result<Option<usize>, E> {
    let (mut low, mut high) = (low, high);
    let first = low;
    while low < high {
        let middle = low.midpoint(high);
        if carries(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok((low > first).then(|| low - 1))
}

/// The highest rate on the ladder that each server carries.
struct Rates {
    client: Client,
    ladder: Vec<f64>,
    found: Vec<(Kind, usize)>,
}

impl Rates {
    fn find(ground: &Ground<'_>, client: Client, kinds: &[Kind]) -> Result<Self, Error> {
        let ladder = ladder();
        let mut found = Vec::new();
        for kind in kinds {
            let carries = |index: usize| carries(ground, client, *kind, ladder[index]);
            let index = highest(0, ladder.len(), carries)?.ok_or_else(|| {
                let least = limits::DHCP_RATE_LEAST;
                Error::Environment(format!("{} loses more than 1 % at {least} exchanges a second", kind.word()))
            })?;
            found.push((*kind, index));
        }
        Ok(Self { client, ladder, found })
    }

    fn index(&self, kind: Kind) -> usize {
        self.found.iter().find(|(found, _)| *found == kind).map_or(0, |(_, index)| *index)
    }

    fn note(&self) -> serde_json::Value {
        let rate = |(kind, index): &(Kind, usize)| (kind.word().to_owned(), json!(self.ladder[*index]));
        self.found.iter().map(rate).collect::<serde_json::Map<_, _>>().into()
    }
}

fn carries(ground: &Ground<'_>, client: Client, kind: Kind, rate: f64) -> Result<bool, Error> {
    Ok(load(ground, client, kind, rate)?.0.carries(rate, duration(ground.options)))
}

/// Ours and a peer in turns, at the highest rate that both carry.
fn beside(
    suite: &mut Suite<'_>,
    ground: &Ground<'_>,
    client: Client,
    case: &'static str,
    peer: Kind,
    rates: &Rates,
    goal: f64,
) -> Result<(), Error> {
    let rate = rates.ladder[rates.index(Kind::Ours).min(rates.index(peer))];
    let mut sides = [(Kind::Ours, Vec::new()), (peer, Vec::new())];
    for round in 0..ground.options.rounds() {
        for turn in 0..2 {
            let (kind, samples) = &mut sides[(round + turn) % 2];
            let (taken, sample) = load(ground, client, *kind, rate)?;
            if !taken.carries(rate, duration(ground.options)) {
                // The sample's own figures say so too: its rate follows from what was done.
                eprintln!("bench: {} was not loaded with {rate:.0}/s in this round", kind.word());
            }
            samples.push(sample);
        }
    }
    let [(_, ours), (_, theirs)] = sides;
    let comparison = Comparison { case, peer: Some(peer.word()), ours, theirs };
    suite.measured(comparison, &[(Measure::ServerCpu, Goal::AtMost(goal))])
}

/// Ours and Kea with two threads in turns: each searches again near the rate that was found first.
fn highest_beside(suite: &mut Suite<'_>, ground: &Ground<'_>, rates: &Rates) -> Result<(), Error> {
    let mut sides = [(Kind::Ours, Vec::new()), (Kind::Kea2, Vec::new())];
    for round in 0..ground.options.rounds() {
        for turn in 0..2 {
            let (kind, samples) = &mut sides[(round + turn) % 2];
            let at = rates.index(*kind);
            let (low, high) = (at.saturating_sub(4), (at + 4).min(rates.ladder.len()));
            let found = highest(low, high, |index| carries(ground, rates.client, *kind, rates.ladder[index]))?;
            // A round in which it carries none of them has at most the one below.
            let rate = rates.ladder[found.unwrap_or(low.saturating_sub(1))];
            samples.push(Sample::of(Measure::Rate, rate));
        }
    }
    let [(_, ours), (_, theirs)] = sides;
    let comparison = Comparison { case: LOADGEN, peer: Some(Kind::Kea2.word()), ours, theirs };
    suite.measured(comparison, &[(Measure::Rate, Goal::AtLeast(1.50))])
}

/// Calls of `fdatasync` by the rack's journal thread for one lease, counted by strace on that thread alone.
fn fsync(suite: &mut Suite<'_>, ground: &Ground<'_>, client: Client) -> Result<(), Error> {
    suite.note("fdatasync-counted-by", "strace of the rack's journal thread");
    let mut samples = Vec::new();
    for _round in 0..ground.options.rounds() {
        let Server::Ours(up) = ground.start(Kind::Ours, client)? else { continue };
        let Some(counted) = journal::Counted::start(up.rack_id(), ground.place)? else {
            suite.absent(FSYNC, "strace-is-not-permitted-here");
            return Ok(());
        };
        let taken = client.load(
            ground.link,
            ground.options,
            limits::DHCP_FSYNC_RATE,
            duration(ground.options),
            limits::DHCP_PATIENCE,
        )?;
        let calls = counted.finish()?;
        eprintln!("bench: {calls} fdatasync for {} of {} leases", taken.done, taken.begun);
        if taken.done == 0 {
            return Err(Error::Environment("no lease was acknowledged".to_owned()));
        }
        samples.push(Sample::of(Measure::FdatasyncPerLease, calls as f64 / taken.done as f64));
    }
    alone(suite, FSYNC, samples, &[(Measure::FdatasyncPerLease, Goal::AtMost(0.05))])
}

/// 10,000 clients ask within one second; the time until the last is bound. One that is lost would ask again: a burst that
/// loses any counts as [`limits::DHCP_BURST_LOST`].
fn burst(suite: &mut Suite<'_>, ground: &Ground<'_>) -> Result<(), Error> {
    let nodes = 10_000.0 / if ground.options.quick { limits::STORM_QUICK_DIVISOR as f64 } else { 1.0 };
    let mut samples = Vec::new();
    for _round in 0..ground.options.rounds() {
        let server = ground.start(Kind::Ours, Client::Loadgen)?;
        let second = Duration::from_secs(1);
        let taken = Client::Loadgen.load(ground.link, ground.options, nodes, second, limits::DHCP_BURST_LOST)?;
        drop(server);
        eprintln!("bench: {} of {} bound after {:.2} s", taken.done, taken.begun, taken.seconds);
        let whole = taken.done == taken.begun && taken.begun as f64 >= nodes * limits::DHCP_BEGUN_MIN;
        let seconds = if whole { taken.seconds } else { limits::DHCP_BURST_LOST.as_secs_f64() };
        samples.push(Sample::of(Measure::Seconds, seconds));
    }
    alone(suite, BURST, samples, &[(Measure::Seconds, Goal::AtMost(5.0))])
}

/// 10,000 whole nodes at once, with the timers of firmware, and the goodput of a steady load before and after.
fn avalanche(suite: &mut Suite<'_>, ground: &Ground<'_>) -> Result<(), Error> {
    let small = Sizes { loader: 4 << 10, kernel: 64 << 10, initrd: 64 << 10, image: 1 << 20 };
    let files = Files::make(ground.link, ground.options, small, &ground.place.join("avalanche"))?;
    let nodes = 10_000 / if ground.options.quick { limits::STORM_QUICK_DIVISOR } else { 1 };
    let up = files.serve(ground.link, ground.options, &ground.place.join("avalanche-data"))?;
    let goodput = || -> Result<f64, Error> {
        let duration = duration(ground.options);
        let rate = limits::DHCP_STEADY_RATE;
        let taken = Client::Loadgen.load(ground.link, ground.options, rate, duration, limits::DHCP_PATIENCE)?;
        Ok(taken.done as f64 / duration.as_secs_f64())
    };
    let before = goodput()?;
    let json = ground.place.join("avalanche.json");
    let mut loadgen = ground.link.command(Side::Client, &ground.options.loadgen());
    loadgen.args(["avalanche", "--interface", INTERFACE, "--nodes", &nodes.to_string(), "--firmware", "uefi"]);
    loadgen
        .args(["--image", &format!("{},encoding=zstd,blake3={}", files.stream_url(), files.image), "--json"])
        .arg(&json);
    let output = loadgen.output().map_err(|source| Error::Start { command: "loadgen avalanche".to_owned(), source })?;
    let after = goodput()?;
    drop(up);
    let text = std::fs::read_to_string(&json).map_err(|source| Error::File { path: json, source })?;
    let mut report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    // Thousands of numbers that no ratio is made of.
    report.as_object_mut().and_then(|report| report.remove("timeline"));
    let dhcp = report["stages"].as_array().into_iter().flatten().find(|stage| stage["name"] == "dhcp");
    let slowest = dhcp.and_then(|stage| stage["latency"]["milliseconds"]["max"].as_f64());
    suite.note("avalanche", report.clone());
    let (Some(slowest), Some(0)) = (slowest, report["failed"].as_u64()) else {
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("bench: not all nodes were bound: {}", said.lines().last().unwrap_or_default());
        suite.absent(AVALANCHE, "not-all-nodes-were-bound");
        return Ok(());
    };
    let sample = Sample::of(Measure::Seconds, slowest / 1e3).with(Measure::Goodput, after / before);
    let goals = [(Measure::Seconds, Goal::AtMost(60.0)), (Measure::Goodput, Goal::AtLeast(0.95))];
    alone(suite, AVALANCHE, vec![sample], &goals)
}

/// The time from the start of a rack with a million leases in its journal to its first answer.
fn reload(suite: &mut Suite<'_>, ground: &Ground<'_>) -> Result<(), Error> {
    let leases = if ground.options.quick { limits::RELOAD_LEASES_QUICK } else { limits::RELOAD_LEASES };
    suite.note("reload-leases", leases);
    let Some(prepared) = journal::prepare(ground, leases)? else {
        suite.absent(RELOAD, "no-lease-was-found-in-the-journal");
        return Ok(());
    };
    let mut samples = Vec::new();
    for _round in 0..limits::ROUNDS_QUICK {
        match prepared.first_answer(ground, Pin::Processor(0))? {
            Some(seconds) => samples.push(Sample::of(Measure::Seconds, seconds)),
            None => {
                suite.absent(RELOAD, "no-answer-with-a-million-leases");
                return Ok(());
            }
        }
    }
    alone(suite, RELOAD, samples, &[(Measure::Seconds, Goal::AtMost(5.0))])
}

fn alone(suite: &mut Suite<'_>, case: &'static str, ours: Vec<Sample>, goals: &[(Measure, Goal)]) -> Result<(), Error> {
    suite.measured(Comparison { case, peer: None, ours, theirs: Vec::new() }, goals)
}

/// Whether a program is there.
pub(crate) fn is_installed(program: &str) -> bool {
    process::command("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_is_found_by_halving() {
        for limit in 0..=10 {
            let mut asked = 0;
            let found = highest(0, 10, |index| {
                asked += 1;
                Ok::<_, ()>(index < limit)
            });
            assert_eq!(found, Ok(limit.checked_sub(1)));
            assert!(asked <= 4, "{asked} loads for ten rates");
        }
    }

    #[test]
    fn rates_rise_in_equal_steps() {
        let ladder = ladder();
        assert!(ladder.len() < 64 && ladder.is_sorted());
        assert_eq!(ladder[0], limits::DHCP_RATE_LEAST);
        assert!(ladder[ladder.len() - 1] > limits::DHCP_RATE_MOST / limits::DHCP_RATE_STEP);
    }
}
