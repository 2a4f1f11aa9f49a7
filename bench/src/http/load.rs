//! How cases load a server.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bootstorm_tests::lab::{Error, process};

use crate::case::{Measure, Sample, median};
use crate::cgroup::Group;
use crate::client::{Bodies, Taken};
use crate::pairs::{Options, Time};
use crate::server::{Server, confined};
use crate::{limits, page_cache};

/// The clients', unless they share the server's.
pub const PROCESSOR: usize = 1;

/// How a case loads a server.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// wrk asks for a small file on so many connections, each kept or each for one request.
    Requests { file: &'static str, connections: usize, keep: bool },
    /// The bulk client asks for the large file.
    Bulk { connections: usize, processor: usize, bodies: Bodies },
    /// The memory of a server while so many connections are busy with the large file.
    BusyMemory { connections: usize },
    /// The memory that connections cost which are kept open after one request.
    IdleMemory { connections: usize },
}

impl Work {
    /// How long it lasts on one side.
    pub fn duration(&self, options: &Options, time: Time) -> Duration {
        match self {
            Self::Requests { .. } => options.load(time),
            Self::Bulk { connections, .. } if *connections >= limits::FAIRNESS_CONNECTIONS => match time {
                Time::Warm => options.load(time),
                Time::Measured => limits::FAIRNESS_LOAD,
            },
            Self::Bulk { .. } | Self::BusyMemory { .. } => options.load(time),
            Self::IdleMemory { .. } => limits::IDLE_LOAD,
        }
    }
}

/// Loads a server. `path` is the large file's, `content` the directory that the server reads it from.
///
/// # Errors
/// When the client does not do its work, or the server does not answer as it should.
pub fn load(
    options: &Options,
    work: &Work,
    server: &Server,
    (path, content): (&str, &Path),
    time: Time,
) -> Result<Sample, Error> {
    let duration = work.duration(options, time);
    let group = Group::new("client")?;
    let before = server.cpu_seconds()?;
    let sample = match *work {
        Work::Requests { file, connections, keep } => {
            let mut wrk = confined(&group, PROCESSOR, Path::new("wrk"));
            wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs())]);
            if !keep {
                wrk.args(["-H", "Connection: close"]);
            }
            wrk.arg(format!("http://{}/{file}", server.address));
            let (units, seconds) = wrk_figures(&mut wrk)?;
            Sample { units, seconds, ..Sample::default() }
        }
        Work::Bulk { connections, processor, bodies } => {
            let mut client = bulk_client(options, (&group, processor), (server, path), bodies, connections, duration);
            Taken::by(&mut client)?.into()
        }
        Work::BusyMemory { connections } => {
            let client =
                bulk_client(options, (&group, PROCESSOR), (server, path), Bodies::Trunc, connections, duration);
            busy_memory(server, content, client)?
        }
        Work::IdleMemory { connections } => idle_memory(server, connections)?,
    };
    let client_cpu_seconds = group.cpu_seconds()?;
    Ok(Sample { server_cpu_seconds: server.cpu_seconds()? - before, client_cpu_seconds, ..sample })
}

impl From<Taken> for Sample {
    fn from(taken: Taken) -> Self {
        let sample = Self { units: taken.bytes as f64, seconds: taken.seconds, ..Self::default() };
        match taken.median_bytes {
            0 => sample,
            median => sample.with(Measure::Fairness, taken.least_bytes as f64 / median as f64),
        }
    }
}

fn bulk_client(
    options: &Options,
    (group, processor): (&Group, usize),
    (server, path): (&Server, &str),
    bodies: Bodies,
    connections: usize,
    duration: Duration,
) -> Command {
    let mut client = confined(group, processor, &options.bench);
    let bodies = match bodies {
        Bodies::Trunc => "trunc",
        Bodies::Copy => "copy",
    };
    client.args(["client-http", &server.address.to_string(), path, "--bodies", bodies]);
    client.args(["--connections", &connections.to_string(), "--seconds", &duration.as_secs().to_string()]);
    client
}

/// The median of what the server, its sockets and the file hold while its connections are busy: all of it, not what a connection
/// adds, since what a server sets aside for them before is no less taken. Where a file is kept does not matter: pages of it
/// in the page cache count as a server's own copy of it does (ours has both), on either side from none when the load begins.
fn busy_memory(server: &Server, content: &Path, mut client: Command) -> Result<Sample, Error> {
    std::thread::scope(|scope| {
        // The client lives as long as the thread that started it, which waits for it.
        let running = scope.spawn(move || Taken::by(&mut client));
        let mut seen = Vec::new();
        while !running.is_finished() {
            std::thread::park_timeout(limits::MEMORY_INTERVAL);
            // Before the first connection and after the last one there are no sockets to look at.
            if let Ok(sockets) = server.socket_bytes() {
                seen.push((server.own_bytes()? + sockets + page_cache::resident_bytes(content)?) as f64);
            }
        }
        let taken = running.join().map_err(|_| Error::Environment("the client's thread panicked".to_owned()))??;
        let memory = median(&seen).ok_or_else(|| Error::Environment("no busy socket was seen".to_owned()))?;
        Ok(Sample::from(taken).with(Measure::Memory, memory))
    })
}

/// What so many idle connections add to what the server's processes hold, for each. The kernel's share is left out: it
/// is the same whoever holds the socket. Needs a fresh server: what earlier connections made it take it may still hold.
fn idle_memory(server: &Server, connections: usize) -> Result<Sample, Error> {
    let before = server.own_bytes()?;
    let started = Instant::now();
    let mut idle = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut stream = connect(server.address, number / limits::CONNECTIONS_PER_SOURCE)?;
        one_request(&mut stream, server.address)?;
        idle.push(stream);
    }
    let grown = server.own_bytes()?.saturating_sub(before);
    let seconds = started.elapsed().as_secs_f64();
    drop(idle);
    let sample = Sample { units: connections as f64, seconds, ..Sample::default() };
    Ok(sample.with(Measure::BytesPerConnection, grown as f64 / connections as f64))
}

/// Connects from one of loopback's many addresses: a server that bounds the connections of one source is not to be
/// hindered by all of them coming from one machine.
fn connect(to: SocketAddr, source: usize) -> Result<TcpStream, Error> {
    let failed = |source| Error::File { path: to.to_string().into(), source };
    let octet = u8::try_from(source + 2).unwrap_or(u8::MAX);
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, octet)), 0);
    let connect = || {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &from)?;
        connect(&socket, &to)?;
        Ok(TcpStream::from(socket))
    };
    let stream = connect().map_err(|errno: rustix::io::Errno| failed(errno.into()))?;
    stream.set_read_timeout(Some(limits::ANSWER)).map_err(failed)?;
    Ok(stream)
}

fn one_request(stream: &mut TcpStream, server: SocketAddr) -> Result<(), Error> {
    let failed = |source| Error::File { path: server.to_string().into(), source };
    write!(stream, "GET /1k HTTP/1.1\r\nHost: {server}\r\n\r\n").map_err(failed)?;
    let mut answer = Vec::with_capacity(limits::HEAD_BYTES);
    let mut piece = [0; 2048];
    loop {
        match stream.read(&mut piece).map_err(failed)? {
            0 => return Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
            read => answer.extend_from_slice(&piece[..read]),
        }
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + 1024) {
            break;
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    Err(Error::Answer { command: format!("GET http://{server}/1k"), missing: "status 200".to_owned(), answer })
}

/// Octets of a file, as the server tells them.
///
/// # Errors
/// When it does not.
pub fn length(server: SocketAddr, path: &str) -> Result<u64, Error> {
    let failed = |source| Error::File { path: server.to_string().into(), source };
    let mut stream = connect(server, 0)?;
    write!(stream, "HEAD {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let value = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    value.ok_or_else(|| Error::Answer {
        command: format!("HEAD http://{server}{path}"),
        missing: "Content-Length".to_owned(),
        answer,
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
    fn fairness_is_the_least_share_beside_the_median_share() {
        let taken = Taken { bytes: 100, seconds: 1.0, least_bytes: 9, median_bytes: 10 };
        assert_eq!(Sample::from(taken).figure(Measure::Fairness), Some(0.9));
        assert_eq!(Sample::from(Taken::default()).figure(Measure::Fairness), None);
    }
}
