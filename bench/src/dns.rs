//! DNS: NSD, Knot and BIND over a link of two namespaces, one worker each, the same zone, dnsperf as the client.
//!
//! Ours is not there yet. The peers are measured against one another all the same, so that their figures stand in the
//! record when ours comes: CPU seconds of the server for a million queries, queries a second, and resident memory.

pub mod zones;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootstorm_tests::lab::{Error, process, wait};
use serde_json::{Value, json};

use crate::case::{Measure, Sample, median};
use crate::cgroup::Group;
use crate::limits;
use crate::pairs::{Options, Time};
use crate::peers::{self, unpacked};
use crate::suite::{Failed, Planned, Suite};
use crate::up::Up;
use crate::veth::{Link, Pin, Port, SERVER, Servers, Side};

const SERVER_PROCESSOR: usize = 0;
const MEMORY: &str = "dns-memory-100k-names";

/// A load: its name, the client's processor, the questions.
const LOADS: [(&str, usize, &str); 3] = [
    ("dns-mix-samecore", SERVER_PROCESSOR, "mix"),
    ("dns-mix-twocore", 1, "mix"),
    ("dns-flood-samecore", SERVER_PROCESSOR, "flood"),
];

/// A peer, with the port that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Nsd,
    Knot,
    Bind,
}

impl Peer {
    const ALL: [Self; 3] = [Self::Nsd, Self::Knot, Self::Bind];

    fn word(self) -> &'static str {
        match self {
            Self::Nsd => "nsd",
            Self::Knot => "knot",
            Self::Bind => "bind",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Nsd => 5301,
            Self::Knot => 5302,
            Self::Bind => 5303,
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Nsd => unpacked("usr/sbin/nsd"),
            Self::Knot => unpacked("usr/sbin/knotd"),
            Self::Bind => unpacked("usr/sbin/named"),
        }
    }

    /// Starts it with the zones in `place`.
    fn start<'a>(self, link: &'a Link, place: &Path) -> Result<Servers<'a>, Error> {
        let own = place.join(self.word());
        let configuration = own.join("configuration");
        let text = match self {
            Self::Nsd => include_str!("../peers/nsd.conf"),
            Self::Knot => include_str!("../peers/knot.conf"),
            Self::Bind => include_str!("../peers/named.conf"),
        };
        let port = self.port().to_string();
        peers::write(&configuration, text, &[("PLACE", &own.display().to_string()), ("PORT", &port)])?;
        let options: &[&str] = match self {
            Self::Nsd => &["-d", "-c"],
            Self::Knot => &["-c"],
            Self::Bind => &["-f", "-4", "-n", "1", "-c"],
        };
        let mut arguments: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
        arguments.push(configuration.display().to_string());
        let mut servers = Servers::new(link, self.word(), Pin::Processor(SERVER_PROCESSOR))?;
        servers.start(&self.program(), &arguments, &place.join(format!("{}.log", self.word())))?;
        servers.wait_for_ports(&[Port::Udp(self.port())])?;
        // Sockets come before zones.
        wait::until(&format!("the zones of {}", self.word()), limits::SERVER_START, || {
            servers.check()?;
            let mut dnsperf = link.command(Side::Client, Path::new("dnsperf"));
            dnsperf.args(["-s", &SERVER.to_string(), "-p", &port, "-n", "1", "-q", "1", "-t", "1", "-d"]);
            let answer = parse(&process::run(dnsperf.arg(place.join("probe")))?);
            Ok(answer.filter(|taken| taken.completed == 1 && taken.others == 0).map(drop))
        })?;
        Ok(servers)
    }
}

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let rounds = u32::try_from((options.rounds() + 1) * Peer::ALL.len()).unwrap_or(u32::MAX);
    let load = (options.load(Time::Measured) + limits::BETWEEN_LOADS) * rounds;
    let plan: [Planned; 4] =
        [(LOADS[0].0, load), (LOADS[1].0, load), (LOADS[2].0, load), (MEMORY, limits::DHCP_LOAD_EXPECTED)];
    let mut suite = Suite::begin("dns", options, &plan)?;
    let outcome = cases(&mut suite, options);
    suite.end(outcome)
}

fn cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(&Peer::Nsd.program(), &["-v"]);
    suite.version_of(&Peer::Knot.program(), &["--version"]);
    suite.version_of(&Peer::Bind.program(), &["-v"]);
    suite.version_of(Path::new("dnsperf"), &["-h"]);
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let place = place.path();
    let link = Link::new(place)?;
    let reason = reason(&link, options, place)?;
    let names = limits::DNS_NAMES;
    zones::write(place, names)?;
    let questions = limits::DNS_QUESTIONS;
    for (name, text) in [
        ("mix", zones::mix(names, questions)),
        ("flood", zones::flood(questions)),
        ("probe", "n0.bench.test A\n".to_owned()),
    ] {
        let path = place.join(name);
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    }

    let peers =
        Peer::ALL.into_iter().map(|peer| Ok((peer, peer.start(&link, place)?))).collect::<Result<Vec<_>, Error>>()?;
    for (case, processor, questions) in LOADS {
        if suite.takes(case) {
            let load = |peer: Peer, servers: &Servers<'_>, time| {
                load(&link, peer, servers, processor, &place.join(questions), options.load(time))
            };
            let figures = rounds(&peers, options.rounds(), load)?;
            suite.note(case, figures);
            suite.absent(case, reason);
        }
    }
    drop(peers);
    if suite.takes(MEMORY) {
        zones::write(place, limits::DNS_NAMES_MANY)?;
        let mut figures = serde_json::Map::new();
        for peer in Peer::ALL {
            let servers = peer.start(&link, place)?;
            // One load, so that the zone is there and has been asked for.
            load(&link, peer, &servers, 1, &place.join("mix"), options.load(Time::Warm))?;
            let bytes = servers.resident_bytes()?;
            eprintln!("bench: {} with {} names: {} MiB", peer.word(), limits::DNS_NAMES_MANY, bytes >> 20);
            figures.insert(peer.word().to_owned(), json!({ "rss_bytes": bytes }));
        }
        suite.note(MEMORY, figures);
        suite.absent(MEMORY, reason);
    }
    Ok(())
}

/// Why ours is not measured: whether it answers on port 53 at all.
fn reason(link: &Link, options: &Options, place: &Path) -> Result<&'static str, Error> {
    let mut up = Up::start(link, &options.bootstorm, &place.join("data"), Pin::Processor(SERVER_PROCESSOR))?;
    let is_there = up.servers().are_bound(&[Port::Udp(53)])?;
    Ok(if is_there { "zones-are-not-given-to-it-by-this-suite-yet" } else { "no-dns-yet" })
}

/// Every peer once to warm up, then all in turns, each round beginning with another. Gives their figures.
fn rounds(
    peers: &[(Peer, Servers<'_>)],
    rounds: usize,
    load: impl Fn(Peer, &Servers<'_>, Time) -> Result<Sample, Error>,
) -> Result<Value, Error> {
    let mut samples = vec![Vec::new(); peers.len()];
    for (peer, servers) in peers {
        load(*peer, servers, Time::Warm)?;
    }
    for round in 0..rounds {
        for turn in 0..peers.len() {
            let index = (round + turn) % peers.len();
            let (peer, servers) = &peers[index];
            samples[index].push(load(*peer, servers, Time::Measured)?);
        }
    }
    let figures = peers.iter().zip(&samples).map(|((peer, _), samples)| {
        let mid = |measure| {
            let figures: Option<Vec<f64>> = samples.iter().map(|sample| sample.figure(measure)).collect();
            median(&figures.unwrap_or_default()).unwrap_or(f64::NAN)
        };
        let cpu = mid(Measure::ServerCpu) * 1e6;
        let rate = mid(Measure::Throughput);
        eprintln!("bench: {}: {cpu:.2} CPU s a million, {rate:.0} a second", peer.word());
        let figures = json!({ "server_cpu_seconds_per_million": cpu, "queries_per_second": rate, "samples": samples });
        (peer.word().to_owned(), figures)
    });
    Ok(Value::Object(figures.collect()))
}

/// Asks one server the questions of a file for a while.
fn load(
    link: &Link,
    peer: Peer,
    servers: &Servers<'_>,
    processor: usize,
    questions: &Path,
    duration: Duration,
) -> Result<Sample, Error> {
    let group = Group::new("client")?;
    let before = servers.cpu_seconds()?;
    let mut dnsperf = link.confined(Side::Client, &group, Pin::Processor(processor), Path::new("dnsperf"));
    dnsperf.args(["-s", &SERVER.to_string(), "-p", &peer.port().to_string(), "-d"]).arg(questions);
    dnsperf.args(["-l", &duration.as_secs().to_string(), "-c", "16", "-T", "1", "-q", "200", "-t", "1"]);
    let answer = process::run(&mut dnsperf)?;
    let wrong = |missing: &str| Error::Answer {
        command: format!("dnsperf of {}", peer.word()),
        missing: missing.to_owned(),
        answer: answer.clone(),
    };
    let taken = parse(&answer).ok_or_else(|| wrong("how many queries were answered"))?;
    if taken.others > 0 {
        return Err(wrong("answers of NOERROR and NXDOMAIN alone"));
    }
    if (taken.completed as f64) < taken.sent as f64 * (1.0 - limits::DNS_LOST_MAX) {
        return Err(wrong("answers to nearly all queries"));
    }
    let expected = if questions.ends_with("flood") { 1.0 } else { 1.0 / f64::from(limits::DNS_MISS_EVERY) };
    if (taken.misses as f64 / taken.completed as f64 - expected).abs() > limits::DNS_LOST_MAX {
        return Err(wrong("as many NXDOMAIN as there are missing names"));
    }
    Ok(Sample {
        units: taken.completed as f64,
        seconds: taken.seconds,
        server_cpu_seconds: servers.cpu_seconds()? - before,
        client_cpu_seconds: group.cpu_seconds()?,
        ..Sample::default()
    })
}

/// What dnsperf says at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Taken {
    sent: u64,
    completed: u64,
    misses: u64,
    /// Answers of another code than NOERROR and NXDOMAIN.
    others: u64,
    seconds: f64,
}

/// Reads lines such as `  Queries completed:    1000 (100.00%)` and `  Response codes:  NOERROR 950 (95.00%), NXDOMAIN …`.
fn parse(answer: &str) -> Option<Taken> {
    let field = |key: &str| answer.lines().find_map(|line| line.trim().strip_prefix(key));
    let first = |text: &str| text.split_whitespace().next().map(str::to_owned);
    let count = |key: &str| first(field(key)?)?.parse::<u64>().ok();
    let (mut misses, mut others) = (0, 0);
    for code in field("Response codes:")?.split(',') {
        let mut words = code.split_whitespace();
        let (name, number) = (words.next()?, words.next()?.parse::<u64>().ok()?);
        match name {
            "NOERROR" => {}
            "NXDOMAIN" => misses += number,
            _ => others += number,
        }
    }
    let seconds = first(field("Run time (s):")?)?.parse().ok()?;
    Some(Taken { sent: count("Queries sent:")?, completed: count("Queries completed:")?, misses, others, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperf_is_read() {
        let answer = "Statistics:\n\n  Queries sent:         1000\n  Queries completed:    999 (99.90%)\n  \
                      Queries lost:         1 (0.10%)\n\n  Response codes:       NOERROR 950 (95.10%), NXDOMAIN 48 (4.80%), \
                      SERVFAIL 1 (0.10%)\n  Average packet size:  request 38, response 60\n  Run time (s):         1.5\n";
        let taken = Taken { sent: 1000, completed: 999, misses: 48, others: 1, seconds: 1.5 };
        assert_eq!(parse(answer), Some(taken));
        assert_eq!(parse("no server"), None);
    }
}
