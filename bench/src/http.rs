//! HTTP beside nginx, and in two cases beside lighttpd and static-web-server: small files by wrk, large ones by a client
//! that throws bodies away, connections that do nothing.
//!
//! Each server has one worker on processor 0. *samecore*: the client shares it, so that the work of both is all there is;
//! *twocore*: the client has processor 1. On loopback part of the server's work is done in the client's context; figures
//! of the server alone are therefore only taken for small responses, and where the issue asks for them beside the total.

mod load;
mod servers;

use std::path::Path;
use std::time::Duration;

use bootstorm_tests::lab::Error;

use crate::case::{Goal, Measure, Sample};
use crate::client::Bodies;
use crate::pairs::{Options, Time, interleaved};
use crate::server::Server;
use crate::suite::{Failed, Suite};
use crate::{limits, page_cache};
use load::Work;
use servers::{Fleet, Peer, Place};

type Goals = &'static [(Measure, Goal)];

struct Case {
    name: &'static str,
    fleet: Fleet,
    work: Work,
    peers: &'static [Peer],
    goals: Goals,
    /// Held against our own figures, without a peer.
    alone: Goals,
}

const NGINX: &[Peer] = &[Peer::Nginx];
const ALL_PEERS: &[Peer] = &[Peer::Nginx, Peer::Lighttpd, Peer::StaticWebServer];

const fn case(name: &'static str, fleet: Fleet, work: Work, peers: &'static [Peer], goals: Goals) -> Case {
    Case { name, fleet, work, peers, goals, alone: &[] }
}

const fn requests(file: &'static str, connections: usize, keep: bool) -> Work {
    Work::Requests { file, connections, keep }
}

const fn bulk(connections: usize, processor: usize, bodies: Bodies) -> Work {
    Work::Bulk { connections, processor, bodies }
}

const SAMECORE: usize = servers::PROCESSOR;
const TWOCORE: usize = load::PROCESSOR;

/// By fleet, so that each is started once.
const CASES: [Case; 14] = [
    case(
        "http-1k-keepalive-64",
        Fleet::Files,
        requests("1k", 64, true),
        ALL_PEERS,
        &[(Measure::ServerCpu, Goal::AtMost(0.60))],
    ),
    case(
        "http-1k-keepalive-1000",
        Fleet::Files,
        requests("1k", 1000, true),
        NGINX,
        &[(Measure::ServerCpu, Goal::AtMost(0.60))],
    ),
    case(
        "http-1k-close-64",
        Fleet::Files,
        requests("1k", 64, false),
        NGINX,
        &[(Measure::ServerCpu, Goal::AtMost(0.85))],
    ),
    case(
        "http-64k-keepalive-64",
        Fleet::Files,
        requests("64k", 64, true),
        NGINX,
        &[(Measure::ServerCpu, Goal::AtMost(0.75))],
    ),
    case(
        "http-bulk-100-samecore-trunc",
        Fleet::Files,
        bulk(100, SAMECORE, Bodies::Trunc),
        NGINX,
        &[(Measure::TotalCpu, Goal::AtMost(0.60)), (Measure::Throughput, Goal::AtLeast(1.80))],
    ),
    case(
        "http-bulk-100-twocore-trunc",
        Fleet::Files,
        bulk(100, TWOCORE, Bodies::Trunc),
        ALL_PEERS,
        &[(Measure::TotalCpu, Goal::AtMost(1.05)), (Measure::Throughput, Goal::AtLeast(0.95))],
    ),
    case(
        "http-bulk-100-twocore-copy",
        Fleet::Files,
        bulk(100, TWOCORE, Bodies::Copy),
        NGINX,
        &[(Measure::TotalCpu, Goal::AtMost(0.95)), (Measure::Throughput, Goal::AtLeast(1.00))],
    ),
    Case {
        name: "http-bulk-1000-samecore-trunc",
        fleet: Fleet::Files,
        work: bulk(1000, SAMECORE, Bodies::Trunc),
        peers: NGINX,
        goals: &[(Measure::TotalCpu, Goal::AtMost(0.60)), (Measure::ServerCpu, Goal::AtMost(1.50))],
        alone: &[(Measure::Fairness, Goal::AtLeast(0.90))],
    },
    case(
        "http-stream-memory-1000",
        Fleet::Stream,
        Work::BusyMemory { connections: 1000 },
        NGINX,
        &[(Measure::Memory, Goal::AtMost(0.25))],
    ),
    case(
        "http-idle-memory",
        Fleet::Small,
        Work::IdleMemory { connections: limits::IDLE_CONNECTIONS },
        NGINX,
        &[(Measure::BytesPerConnection, Goal::AtMost(2.00))],
    ),
    case(
        "http-image-zstd-twocore",
        Fleet::Image,
        bulk(100, TWOCORE, Bodies::Trunc),
        NGINX,
        &[(Measure::TotalCpu, Goal::AtMost(0.42))],
    ),
    case(
        "http-image-zstd-samecore",
        Fleet::Image,
        bulk(100, SAMECORE, Bodies::Trunc),
        NGINX,
        &[(Measure::TotalCpu, Goal::AtMost(0.25))],
    ),
    case(
        "http-epoll-1k-keepalive-64",
        Fleet::Epoll,
        requests("1k", 64, true),
        NGINX,
        &[(Measure::ServerCpu, Goal::AtMost(0.75))],
    ),
    case(
        "http-epoll-bulk-100-twocore-trunc",
        Fleet::Epoll,
        bulk(100, TWOCORE, Bodies::Trunc),
        NGINX,
        &[(Measure::TotalCpu, Goal::AtMost(1.60))],
    ),
];

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let plan: Vec<_> = CASES.iter().map(|case| (case.name, expected(case, options))).collect();
    let mut suite = Suite::begin("http", options, &plan)?;
    let outcome = run_cases(&mut suite, options);
    suite.end(outcome)
}

fn expected(case: &Case, options: &Options) -> Duration {
    let sides = u32::try_from(1 + case.peers.len()).unwrap_or(u32::MAX);
    let rounds = u32::try_from(options.rounds()).unwrap_or(u32::MAX);
    let load = |time| case.work.duration(options, time) + limits::BETWEEN_LOADS;
    (load(Time::Warm) + load(Time::Measured) * rounds) * sides
}

fn run_cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let place = Place::new(directory.path())?;
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(Path::new("wrk"), &["-v"]);
    for fleet in [Fleet::Files, Fleet::Stream, Fleet::Small, Fleet::Image, Fleet::Epoll] {
        let cases: Vec<_> = CASES.iter().filter(|case| case.fleet == fleet && suite.wants(case.name)).collect();
        if cases.is_empty() {
            continue;
        }
        if fleet == Fleet::Epoll && !servers::can_choose_backend(options)? {
            for case in cases {
                suite.takes(case.name);
                suite.absent(case.name, "no-epoll-backend-yet");
            }
            continue;
        }
        if matches!(fleet, Fleet::Small | Fleet::Stream) {
            run_fresh(suite, options, &place, fleet, &cases)?;
        } else {
            run_fleet(suite, options, &place, fleet, &cases)?;
        }
    }
    Ok(())
}

/// Cases whose every load needs a server that has done nothing before, and content that is on the disk only.
fn run_fresh(
    suite: &mut Suite<'_>,
    options: &Options,
    place: &Place,
    fleet: Fleet,
    cases: &[&Case],
) -> Result<(), Error> {
    fleet.write_files(place, options)?;
    for case in cases {
        suite.takes(case.name);
        let peers: Vec<_> = case.peers.iter().map(|peer| (*peer, Some(*peer))).collect();
        let named: Vec<_> = peers.iter().map(|(peer, side)| (peer.word(), side)).collect();
        for (peer, _) in &peers {
            suite.version_of(&peer.program(), peer.version_argument());
        }
        let load = |side: &Option<Peer>, time| {
            let server = match side {
                None => fleet.start_ours(place, options)?,
                Some(peer) => peer.start(place, fleet)?,
            };
            let content = fleet.content(place, *side);
            page_cache::evict(&content)?;
            load::load(options, &case.work, &server, (fleet.large(&server), &content), time)
        };
        for comparison in interleaved(case.name, &None, &named, options.rounds(), load)? {
            suite.measured(comparison, case.goals)?;
        }
    }
    Ok(())
}

/// Cases that share one server of ours.
fn run_fleet(
    suite: &mut Suite<'_>,
    options: &Options,
    place: &Place,
    fleet: Fleet,
    cases: &[&Case],
) -> Result<(), Error> {
    let content = fleet.write_files(place, options)?;
    let ours = fleet.start_ours(place, options)?;
    // A stored octet stands for so many raw ones, on average over the image: connections that are cut off in its midst
    // would else count only how well its first part could be compressed.
    let raw_per_stored = match content.image {
        None => 1.0,
        Some(image) => {
            let stored_bytes = load::length(ours.address, fleet.large(&ours))?;
            suite.note("image_raw_bytes", image.raw_bytes);
            suite.note("image_stored_bytes", stored_bytes);
            image.raw_bytes as f64 / stored_bytes as f64
        }
    };
    for case in cases {
        suite.takes(case.name);
        let mut peers = Vec::new();
        for peer in case.peers {
            if peer.is_installed() {
                suite.version_of(&peer.program(), peer.version_argument());
                match peer.start(place, fleet) {
                    Ok(server) => peers.push(server),
                    Err(error) if *peer == Peer::Nginx => return Err(error),
                    Err(error) => {
                        eprintln!("bench: {} does not start: {error}", peer.word());
                        suite.absent(case.name, peer.broken());
                    }
                }
            } else {
                suite.absent(case.name, peer.missing());
            }
        }
        let named: Vec<_> = peers.iter().map(|server| (server.name, server)).collect();
        let load = |server: &Server, time| -> Result<Sample, Error> {
            let sample =
                load::load(options, &case.work, server, (fleet.large(server), &fleet.content(place, None)), time)?;
            let raw_per_octet = if server.name == ours.name { raw_per_stored } else { 1.0 };
            Ok(Sample { units: sample.units * raw_per_octet, ..sample })
        };
        let comparisons = interleaved(case.name, &ours, &named, options.rounds(), load)?;
        if let (Some(any), false) = (comparisons.first(), case.alone.is_empty()) {
            suite.measured(any.alone(), case.alone)?;
        }
        for comparison in comparisons {
            suite.measured(comparison, case.goals)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_there_once() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.iter().all(|case| case.peers.contains(&Peer::Nginx)));
    }
}
