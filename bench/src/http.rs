//! HTTP beside nginx: small files by wrk, a large one by a client that throws bodies away.
//!
//! Each server has one worker on processor 0. *samecore*: the client shares it, so that the work of both is all there is;
//! *twocore*: the client has processor 1. On loopback part of the server's work is done in the client's context; figures
//! of the server alone are therefore only taken for small responses.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bootstorm_tests::lab::{Error, process};

use crate::case::{Absent, Goal, Measure, Sample};
use crate::cgroup::Group;
use crate::client::{Bodies, Taken};
use crate::limits;
use crate::pairs::{Options, Time, interleaved};
use crate::server::{Server, accepts, confined, free_address};
use crate::suite::{Failed, Suite};

const PEER: &str = "nginx";
const SERVER_PROCESSOR: usize = 0;

/// How a case loads a server.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// wrk asks for a small file on so many connections, each kept or each for one request.
    Requests { file: &'static str, connections: usize, keep: bool },
    /// The bulk client asks for the large file.
    Bulk { connections: usize, processor: usize, bodies: Bodies },
}

struct Case {
    name: &'static str,
    work: Work,
    goals: &'static [(Measure, Goal)],
}

const fn requests(file: &'static str, connections: usize, keep: bool) -> Work {
    Work::Requests { file, connections, keep }
}

const CASES: [Case; 7] = [
    Case {
        name: "http-1k-keepalive-64",
        work: requests("1k", 64, true),
        goals: &[(Measure::ServerCpu, Goal::AtMost(0.60))],
    },
    Case {
        name: "http-1k-keepalive-1000",
        work: requests("1k", 1000, true),
        goals: &[(Measure::ServerCpu, Goal::AtMost(0.60))],
    },
    Case {
        name: "http-1k-close-64",
        work: requests("1k", 64, false),
        goals: &[(Measure::ServerCpu, Goal::AtMost(0.85))],
    },
    Case {
        name: "http-64k-keepalive-64",
        work: requests("64k", 64, true),
        goals: &[(Measure::ServerCpu, Goal::AtMost(0.75))],
    },
    Case {
        name: "http-bulk-100-samecore-trunc",
        work: Work::Bulk { connections: 100, processor: 0, bodies: Bodies::Trunc },
        goals: &[(Measure::TotalCpu, Goal::AtMost(0.60)), (Measure::Throughput, Goal::AtLeast(1.80))],
    },
    Case {
        name: "http-bulk-100-twocore-trunc",
        work: Work::Bulk { connections: 100, processor: 1, bodies: Bodies::Trunc },
        goals: &[(Measure::TotalCpu, Goal::AtMost(1.05)), (Measure::Throughput, Goal::AtLeast(0.95))],
    },
    Case {
        name: "http-bulk-100-twocore-copy",
        work: Work::Bulk { connections: 100, processor: 1, bodies: Bodies::Copy },
        goals: &[(Measure::TotalCpu, Goal::AtMost(0.95)), (Measure::Throughput, Goal::AtLeast(1.00))],
    },
];

const ABSENT: [Absent; 7] = [
    Absent { case: "http-bulk-1000-samecore-trunc", reason: "fairness-is-not-measured-yet" },
    Absent { case: "http-stream-memory-1000", reason: "memory-is-not-measured-yet" },
    Absent { case: "http-image-zstd-twocore", reason: "no-image-case-yet" },
    Absent { case: "http-image-zstd-samecore", reason: "no-image-case-yet" },
    Absent { case: "http-idle-memory", reason: "memory-is-not-measured-yet" },
    Absent { case: "http-epoll-1k-keepalive-64", reason: "no-epoll-backend-yet" },
    Absent { case: "http-epoll-bulk-100-twocore-trunc", reason: "no-epoll-backend-yet" },
];

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let once = (options.load(Time::Measured) + limits::BETWEEN_LOADS) * 2;
    let each = once * u32::try_from(options.rounds()).unwrap_or(u32::MAX);
    let cases = CASES.iter().map(|case| (case.name, each));
    let plan: Vec<_> = cases.chain(ABSENT.iter().map(|absent| (absent.case, Duration::ZERO))).collect();
    let mut suite = Suite::begin("http", options, &plan)?;
    let outcome = run_cases(&mut suite, options);
    suite.end(outcome)
}

fn run_cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let place = place.path();
    let files = place.join("files");
    write_files(&files, if options.quick { limits::BULK_BYTES_QUICK } else { limits::BULK_BYTES })?;
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(Path::new("nginx"), &["-v"]);
    suite.version_of(Path::new("wrk"), &["-v"]);

    let servers = Servers { ours: ours(options, place, &files)?, peer: nginx(place, &files)? };
    for case in &CASES {
        if !suite.takes(case.name) {
            continue;
        }
        let load = |server: &Server, time| load(options, &case.work, server, options.load(time));
        let peers = [(PEER, &servers.peer)];
        for comparison in interleaved(case.name, &servers.ours, &peers, options.rounds(), load)? {
            suite.measured(comparison, case.goals)?;
        }
    }
    for absent in ABSENT {
        if suite.takes(absent.case) {
            suite.absent(absent.case, absent.reason);
        }
    }
    Ok(())
}

struct Servers {
    ours: Server,
    peer: Server,
}

fn ours(options: &Options, place: &Path, files: &Path) -> Result<Server, Error> {
    let address = free_address()?;
    let words = ["serve", &files.display().to_string(), "--http", &address.to_string(), "--workers", "1", "--data"];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.push(place.join("store").display().to_string());
    let log = place.join("bootstorm.log");
    Server::start("bootstorm", (&options.bootstorm, &arguments), SERVER_PROCESSOR, address, &log, accepts)
}

fn nginx(place: &Path, files: &Path) -> Result<Server, Error> {
    let address = free_address()?;
    let own = place.join("nginx");
    let text = include_str!("../peers/nginx.conf")
        .replace("PLACE", &own.display().to_string())
        .replace("ADDRESS", &address.to_string())
        .replace("FILES", &files.display().to_string());
    // Its worker is nobody, who may look into the directories above as well.
    let configuration = own.join("nginx.conf");
    fs::create_dir_all(&own)
        .and_then(|()| fs::write(&configuration, text))
        .and_then(|()| fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
        .map_err(|source| Error::File { path: configuration.clone(), source })?;
    let arguments = ["-c".to_owned(), configuration.display().to_string(), "-p".to_owned(), own.display().to_string()];
    let log = place.join("nginx.log");
    Server::start(PEER, (Path::new("nginx"), &arguments), SERVER_PROCESSOR, address, &log, accepts)
}

/// One file a size; bytes that nothing can shorten.
fn write_files(directory: &Path, bulk_bytes: u64) -> Result<(), Error> {
    let write = || {
        fs::create_dir_all(directory)?;
        let mut random = File::open("/dev/urandom")?;
        for (name, bytes) in [("1k", 1 << 10), ("64k", 64 << 10), ("bulk", bulk_bytes)] {
            let mut file = File::create(directory.join(name))?;
            io::copy(&mut Read::by_ref(&mut random).take(bytes), &mut file)?;
            file.flush()?;
        }
        Ok(())
    };
    write().map_err(|source| Error::File { path: directory.to_owned(), source })
}

fn load(options: &Options, work: &Work, server: &Server, duration: Duration) -> Result<Sample, Error> {
    let group = Group::new("client")?;
    let before = server.cpu_seconds()?;
    let (units, seconds) = match *work {
        Work::Requests { file, connections, keep } => {
            let mut wrk = confined(&group, 1, Path::new("wrk"));
            wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs())]);
            if !keep {
                wrk.args(["-H", "Connection: close"]);
            }
            wrk.arg(format!("http://{}/{file}", server.address));
            wrk_figures(&mut wrk)?
        }
        Work::Bulk { connections, processor, bodies } => {
            let mut client = confined(&group, processor, &options.bench);
            let bodies = match bodies {
                Bodies::Trunc => "trunc",
                Bodies::Copy => "copy",
            };
            client.args(["client-http", &server.address.to_string(), "/bulk", "--bodies", bodies]);
            client.args(["--connections", &connections.to_string(), "--seconds", &duration.as_secs().to_string()]);
            let answer = process::run(&mut client)?;
            let taken: Taken = serde_json::from_str(&answer).map_err(|error| Error::Answer {
                command: "bench client".to_owned(),
                missing: error.to_string(),
                answer,
            })?;
            (taken.bytes as f64, taken.seconds)
        }
    };
    Ok(Sample {
        units,
        seconds,
        server_cpu_seconds: server.cpu_seconds()? - before,
        client_cpu_seconds: group.cpu_seconds()?,
        ..Sample::default()
    })
}

/// Requests and seconds of a run of wrk, which must have had no error and no other answer than 2xx.
fn wrk_figures(wrk: &mut Command) -> Result<(f64, f64), Error> {
    let answer = process::run(wrk)?;
    let wrong = ["Socket errors", "Non-2xx"].into_iter().find(|wrong| answer.contains(wrong));
    let figures = if wrong.is_none() { parse_wrk(&answer) } else { None };
    figures.ok_or_else(|| Error::Answer {
        command: "wrk".to_owned(),
        missing: wrong.map_or("`N requests in S`", |_| "a run without errors").to_owned(),
        answer,
    })
}

/// `  123456 requests in 3.10s, 150.00MB read` → (123456, 3.1).
fn parse_wrk(answer: &str) -> Option<(f64, f64)> {
    let line = answer.lines().find_map(|line| line.trim().split_once(" requests in "))?;
    let seconds = line.1.split_once("s,")?.0;
    Some((line.0.parse().ok()?, seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let answer = "Running 3s test @ http://127.0.0.1:1/1k\n  2 threads\n  31415 requests in 3.10s, 38.2MB read\n";
        assert_eq!(parse_wrk(answer), Some((31_415.0, 3.1)));
        assert_eq!(parse_wrk("unable to connect"), None);
    }

    #[test]
    fn every_case_is_there_once() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).chain(ABSENT.map(|absent| absent.case)).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(ABSENT.iter().all(|absent| !absent.reason.contains(' ')));
    }
}
