//! DNS: NSD, Knot and BIND over a link of two namespaces, one worker each, the same zone, dnsperf as the client.
//!
//! Ours is the role of a rack that control is away from: it starts from the snapshot that is on its disk, as it would after a
//! power cut, and serves with all that it does for every question, counting what each source gets included. Only the bound of
//! that is raised, as all questions come from one address. It is measured by both of its drivers. What counts are CPU seconds
//! of all processes of a server for a million queries, and their resident memory.

pub mod zones;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootstorm_tests::lab::{Error, process, wait};
use serde_json::{Value, json};

use crate::case::{Comparison, Goal, Measure, Sample, median};
use crate::cgroup::Group;
use crate::limits;
use crate::pairs::{Options, Time};
use crate::peers::{self, unpacked};
use crate::suite::{Failed, Planned, Suite};
use crate::veth::{INTERFACE, Link, Pin, Port, SERVER, Servers, Side};

const SERVER_PROCESSOR: usize = 0;
const MEMORY: &str = "dns-memory-100k-names";

/// A load: its name, the client's processor, the questions.
struct Load {
    case: &'static str,
    processor: usize,
    questions: &'static str,
    sides: &'static [Server],
    goals: &'static [(Server, Goal)],
}

const LOADS: [Load; 3] = [
    Load {
        case: "dns-mix-samecore",
        processor: SERVER_PROCESSOR,
        questions: "mix",
        sides: &Server::ALL,
        goals: &[(Server::Nsd, Goal::AtMost(0.80)), (Server::Knot, Goal::AtMost(0.70))],
    },
    Load {
        case: "dns-mix-twocore",
        processor: 1,
        questions: "mix",
        sides: &Server::ALL,
        goals: &[(Server::Nsd, Goal::AtMost(0.95)), (Server::Knot, Goal::AtMost(0.95))],
    },
    // Held against our own mix, which has its turns too.
    Load { case: FLOOD, processor: SERVER_PROCESSOR, questions: "flood", sides: &Server::DEFAULTS, goals: &[] },
];
const FLOOD: &str = "dns-flood-samecore";
const FLOOD_GOAL: Goal = Goal::AtMost(1.10);
const MEMORY_GOAL: Goal = Goal::AtMost(1.00);

/// A server, with the port that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Ours, by io_uring.
    Ring,
    /// Ours, by epoll.
    Epoll,
    Nsd,
    Knot,
    Bind,
}

impl Server {
    const ALL: [Self; 5] = [Self::Ring, Self::Epoll, Self::Nsd, Self::Knot, Self::Bind];
    /// Ours as it is without being told, and the peers.
    const DEFAULTS: [Self; 4] = [Self::Ring, Self::Nsd, Self::Knot, Self::Bind];

    fn word(self) -> &'static str {
        match self {
            Self::Ring => "ours",
            Self::Epoll => "ours-epoll",
            Self::Nsd => "nsd",
            Self::Knot => "knot",
            Self::Bind => "bind",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Ring => 5310,
            Self::Epoll => 5320,
            Self::Nsd => 5301,
            Self::Knot => 5302,
            Self::Bind => 5303,
        }
    }

    fn program(self, options: &Options) -> PathBuf {
        match self {
            Self::Ring | Self::Epoll => options.bootstorm.clone(),
            Self::Nsd => unpacked("usr/sbin/nsd"),
            Self::Knot => unpacked("usr/sbin/knotd"),
            Self::Bind => unpacked("usr/sbin/named"),
        }
    }

    /// Its configuration, and the arguments in front of that's path.
    fn arguments(self, own: &Path) -> (&'static str, Vec<String>) {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        let own = own.display();
        match self {
            Self::Ring | Self::Epoll => {
                let away = format!("--control unix:{own}/control-is-away --interface {INTERFACE} --config");
                (include_str!("../peers/bootstorm-dns.toml"), words(&format!("rack --data {own}/data {away}")))
            }
            Self::Nsd => (include_str!("../peers/nsd.conf"), words("-d -c")),
            Self::Knot => (include_str!("../peers/knot.conf"), words("-c")),
            Self::Bind => (include_str!("../peers/named.conf"), words("-f -4 -n 1 -c")),
        }
    }

    /// Starts it with the zones in `place`.
    fn start<'a>(self, link: &'a Link, options: &Options, place: &Path) -> Result<Servers<'a>, Error> {
        let own = place.join(self.word());
        let configuration = own.join("configuration");
        let (text, mut arguments) = self.arguments(&own);
        arguments.push(configuration.display().to_string());
        let port = self.port().to_string();
        let [dhcp, tftp, http, agent] = [1, 2, 3, 4].map(|more| (self.port() + more).to_string());
        let driver = if self == Self::Epoll { "epoll" } else { "uring" };
        let words = [
            ("PLACE", own.to_str().unwrap_or_default()),
            ("PORT", &port),
            ("DRIVER", driver),
            ("DHCP", &dhcp),
            ("TFTP", &tftp),
            ("HTTP", &http),
            ("AGENT", &agent),
        ];
        peers::write(&configuration, text, &words)?;
        let mut servers = Servers::new(link, self.word(), Pin::Processor(SERVER_PROCESSOR))?;
        servers.start(&self.program(options), &arguments, &place.join(format!("{}.log", self.word())))?;
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

/// Writes the zones with so many names for everybody.
fn write_zones(place: &Path, names: u32) -> Result<(), Error> {
    zones::write(place, names)?;
    for server in [Server::Ring, Server::Epoll] {
        zones::write_snapshot(&place.join(server.word()).join("data/rack/snapshot"), names)?;
    }
    Ok(())
}

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let expected = |sides: usize| {
        let loads = u32::try_from(options.rounds() * sides).unwrap_or(u32::MAX);
        let warm = u32::try_from(sides).unwrap_or(u32::MAX);
        (options.load(Time::Measured) + limits::BETWEEN_LOADS) * loads
            + (options.load(Time::Warm) + limits::BETWEEN_LOADS) * warm
    };
    let loads = LOADS.iter().map(|load| (load.case, expected(load.sides.len() + usize::from(load.case == FLOOD))));
    let plan: Vec<Planned> = loads.chain([(MEMORY, limits::DNS_MEMORY_EXPECTED)]).collect();
    let mut suite = Suite::begin("dns", options, &plan)?;
    let outcome = cases(&mut suite, options);
    suite.end(outcome)
}

fn cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(&Server::Nsd.program(options), &["-v"]);
    suite.version_of(&Server::Knot.program(options), &["--version"]);
    suite.version_of(&Server::Bind.program(options), &["-v"]);
    suite.version_of(Path::new("dnsperf"), &["-h"]);
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let place = place.path();
    let link = Link::new(place)?;
    let names = limits::DNS_NAMES;
    write_zones(place, names)?;
    let questions = limits::DNS_QUESTIONS;
    for (name, text) in [
        ("mix", zones::mix(names, questions)),
        ("flood", zones::flood(questions)),
        ("probe", "n0.bench.test A\n".to_owned()),
    ] {
        let path = place.join(name);
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    }
    let wanted: Vec<&Load> = LOADS.iter().filter(|load| suite.wants(load.case)).collect();
    let is_needed = |server: &Server| wanted.iter().any(|load| load.sides.contains(server));
    let started = Server::ALL.into_iter().filter(is_needed);
    let servers = started.map(|server| Ok((server, server.start(&link, options, place)?)));
    let servers = servers.collect::<Result<Vec<_>, Error>>()?;
    for work in wanted {
        suite.takes(work.case);
        let of = |server: &Server| servers.iter().find(|(known, _)| known == server);
        let mut turns: Vec<Turn<'_, '_>> = work
            .sides
            .iter()
            .filter_map(of)
            .map(|(server, servers)| Turn { server: *server, servers, questions: work.questions, samples: Vec::new() })
            .collect();
        if let Some((server, servers)) = of(&Server::Ring).filter(|_| work.case == FLOOD) {
            turns.push(Turn { server: *server, servers, questions: "mix", samples: Vec::new() });
        }
        run_rounds(&mut turns, options.rounds(), |turn, time| {
            let questions = place.join(turn.questions);
            load(&link, turn.server, turn.servers, work.processor, &questions, options.load(time))
        })?;
        record(suite, work, &turns)?;
    }
    drop(servers);
    if suite.takes(MEMORY) {
        write_zones(place, limits::DNS_NAMES_MANY)?;
        let mut samples = Vec::new();
        let mut figures = serde_json::Map::new();
        for server in Server::DEFAULTS {
            let servers = server.start(&link, options, place)?;
            // One load, so that the zone is there and has been asked for.
            load(&link, server, &servers, 1, &place.join("mix"), options.load(Time::Warm))?;
            let bytes = servers.resident_bytes()?;
            eprintln!("bench: {} with {} names: {} MiB", server.word(), limits::DNS_NAMES_MANY, bytes >> 20);
            figures.insert(server.word().to_owned(), json!({ "rss_bytes": bytes }));
            samples.push((server, Sample::of(Measure::Rss, bytes as f64)));
        }
        suite.note(MEMORY, figures);
        let of = |server: Server| -> Vec<Sample> {
            samples.iter().filter(|(known, _)| *known == server).map(|(_, sample)| sample.clone()).collect()
        };
        let (ours, theirs) = (of(Server::Ring), of(Server::Nsd));
        let comparison = Comparison { case: MEMORY, peer: Some(Server::Nsd.word()), ours, theirs };
        suite.measured(comparison, &[(Measure::Rss, MEMORY_GOAL)])?;
    }
    Ok(())
}

/// A server's turn in each round, and what came of them.
struct Turn<'s, 'l> {
    server: Server,
    servers: &'s Servers<'l>,
    questions: &'static str,
    samples: Vec<Sample>,
}

/// Every one once to warm up, then all in turns, each round beginning with another.
fn run_rounds(
    turns: &mut [Turn<'_, '_>],
    rounds: usize,
    load: impl Fn(&Turn<'_, '_>, Time) -> Result<Sample, Error>,
) -> Result<(), Error> {
    for turn in turns.iter() {
        load(turn, Time::Warm)?;
    }
    for round in 0..rounds {
        for at in 0..turns.len() {
            let index = (round + at) % turns.len();
            let turn = &mut turns[index];
            let sample = load(turn, Time::Measured)?;
            turn.samples.push(sample);
        }
    }
    Ok(())
}

/// Notes the figures of all, and prints ours beside those that there are goals for.
fn record(suite: &mut Suite<'_>, work: &Load, turns: &[Turn<'_, '_>]) -> Result<(), Error> {
    let mut figures = serde_json::Map::new();
    for turn in turns {
        let mid = |measure| {
            let figures: Option<Vec<f64>> = turn.samples.iter().map(|sample| sample.figure(measure)).collect();
            median(&figures.unwrap_or_default()).unwrap_or(f64::NAN)
        };
        let cpu = mid(Measure::ServerCpu) * 1e6;
        let rate = mid(Measure::Throughput);
        let word = match turn.questions == work.questions {
            true => turn.server.word().to_owned(),
            false => format!("{}-{}", turn.server.word(), turn.questions),
        };
        eprintln!("bench: {word}: {cpu:.2} CPU s a million, {rate:.0} a second");
        let value =
            json!({ "server_cpu_seconds_per_million": cpu, "queries_per_second": rate, "samples": turn.samples });
        figures.insert(word, value);
    }
    suite.note(work.case, Value::Object(figures));
    let of = |server: Server, questions: &str| {
        let turn = turns.iter().find(|turn| turn.server == server && turn.questions == questions);
        turn.map(|turn| turn.samples.clone()).unwrap_or_default()
    };
    let ours = of(Server::Ring, work.questions);
    for (peer, goal) in work.goals {
        let theirs = of(*peer, work.questions);
        let comparison = Comparison { case: work.case, peer: Some(peer.word()), ours: ours.clone(), theirs };
        suite.measured(comparison, &[(Measure::ServerCpu, *goal)])?;
    }
    if work.case == FLOOD {
        let theirs = of(Server::Ring, "mix");
        let comparison = Comparison { case: work.case, peer: Some("own-mix"), ours, theirs };
        suite.measured(comparison, &[(Measure::ServerCpu, FLOOD_GOAL)])?;
    }
    Ok(())
}

/// Asks one server the questions of a file for a while.
fn load(
    link: &Link,
    server: Server,
    servers: &Servers<'_>,
    processor: usize,
    questions: &Path,
    duration: Duration,
) -> Result<Sample, Error> {
    let group = Group::new("client")?;
    let before = servers.cpu_seconds()?;
    let mut dnsperf = link.confined(Side::Client, &group, Pin::Processor(processor), Path::new("dnsperf"));
    dnsperf.args(["-s", &SERVER.to_string(), "-p", &server.port().to_string(), "-d"]).arg(questions);
    dnsperf.args(["-l", &duration.as_secs().to_string(), "-c", "16", "-T", "1", "-q", "200", "-t", "1"]);
    let answer = process::run(&mut dnsperf)?;
    let wrong = |missing: &str| Error::Answer {
        command: format!("dnsperf of {}", server.word()),
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
