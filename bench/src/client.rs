//! A client for bulk work: keeps connections busy with one file and throws the bodies away, in the kernel or after
//! reading them. Runs as a process of its own, so that its CPU time can be told from everything else.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bootstorm_proto::http::client::{Body, RequestHead, ResponseParser};
use bootstorm_proto::http::server::{Connection, Method};
use bootstorm_tests::lab::{Error, process};
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

use crate::limits;

/// What becomes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bodies {
    /// Discarded by the kernel (`MSG_TRUNC`): the nearest thing on loopback to a network card that takes pages itself.
    Trunc,
    /// Read into memory.
    Copy,
}

/// What a client is to do.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The server.
    pub address: SocketAddr,
    /// Path of the file, with its `/`.
    pub path: &'a str,
    /// Connections, all open for the whole time.
    pub connections: usize,
    /// For how long; `None`: each connection fetches the file once.
    pub duration: Option<Duration>,
    /// What becomes of the bodies.
    pub bodies: Bodies,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Octets of bodies.
    pub bytes: u64,
    /// From the first request to the end.
    pub seconds: f64,
    /// Octets of the connection that had least.
    pub least_bytes: u64,
    /// Octets of the connection in the middle.
    pub median_bytes: u64,
}

impl Taken {
    /// Runs a client of ours and reads what it prints.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn by(client: &mut Command) -> Result<Self, Error> {
        let answer = process::run(client)?;
        serde_json::from_str(&answer).map_err(|error| Error::Answer {
            command: "bench client".to_owned(),
            missing: error.to_string(),
            answer,
        })
    }

    /// Sums up what each connection took.
    pub fn of(mut each: Vec<u64>, seconds: f64) -> Self {
        each.sort_unstable();
        let median_bytes = each.get(each.len() / 2).copied().unwrap_or(0);
        Self { bytes: each.iter().sum(), seconds, least_bytes: each.first().copied().unwrap_or(0), median_bytes }
    }
}

/// Loads a server until the time is over; bodies in flight are cut off, and what came of them counts. Without a time, until
/// all have the file.
///
/// # Errors
/// The first connection's that failed before its time: then the figures would be of something else.
pub fn run(load: &Load<'_>) -> io::Result<Taken> {
    if load.connections > limits::CONNECTIONS_MAX {
        return Err(io::Error::other(format!("at most {} connections", limits::CONNECTIONS_MAX)));
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut streams = Vec::with_capacity(load.connections);
        for _ in 0..load.connections {
            streams.push(TcpStream::connect(load.address).await?);
        }
        let started = Instant::now();
        let end = tokio::time::Instant::now() + load.duration.unwrap_or(limits::WHOLE_FILES);
        let mut tasks = tokio::task::JoinSet::new();
        for stream in streams {
            let (path, host, bodies) = (load.path.to_owned(), load.address.to_string(), load.bodies);
            let files_max = if load.duration.is_some() { u64::MAX } else { 1 };
            tasks.spawn(async move {
                let mut taken = 0;
                let working = keep_busy(stream, (&path, files_max), &host, bodies, &mut taken);
                match tokio::time::timeout_at(end, working).await {
                    Ok(Err(error)) => Err(error),
                    Err(_) if files_max == 1 => Err(io::ErrorKind::TimedOut.into()),
                    Ok(Ok(())) | Err(_) => Ok(taken),
                }
            });
        }
        let mut each = Vec::with_capacity(load.connections);
        while let Some(done) = tasks.join_next().await {
            each.push(done.map_err(io::Error::other)??);
        }
        Ok(Taken::of(each, started.elapsed().as_secs_f64()))
    })
}

/// One request after the other on one connection, so many times.
async fn keep_busy(
    mut stream: TcpStream,
    (path, files_max): (&str, u64),
    host: &str,
    bodies: Bodies,
    taken: &mut u64,
) -> io::Result<()> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut request = vec![0; limits::HEAD_BYTES];
    let head = RequestHead {
        method: Method::Get,
        target: path,
        host,
        range: None,
        user_agent: None,
        connection: Connection::KeepAlive,
    };
    let length = head.write(&mut request).ok_or_else(|| odd("the path is no path"))?;
    request.truncate(length);
    let mut buffer = vec![0; limits::READ_BYTES];
    for _ in 0..files_max {
        stream.write_all(&request).await?;
        let mut parser = ResponseParser::new(Method::Get);
        let mut filled = 0;
        // A small first read: what it takes of the body is copied whatever becomes of the rest.
        let mut body = loop {
            let room = buffer.get_mut(filled..limits::HEAD_BYTES).ok_or_else(|| odd("the head does not end"))?;
            let read = stream.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some((head, length)) = parser.parse(&buffer[..filled]).map_err(|error| odd(&error.to_string()))? {
                if head.status != 200 {
                    return Err(odd(&format!("status {}", head.status)));
                }
                let mut body = head.body;
                let (first, rest) = body.take(&buffer[length..filled]);
                *taken += first.len() as u64;
                if !rest.is_empty() {
                    return Err(odd("octets behind the body"));
                }
                break body;
            }
        };
        while let Body::Bytes(left @ 1..) = body {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = take(&stream, &mut buffer[..want], bodies).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *taken += read as u64;
            body = Body::Bytes(left.saturating_sub(read as u64));
        }
    }
    Ok(())
}

async fn take(stream: &TcpStream, buffer: &mut [u8], bodies: Bodies) -> io::Result<usize> {
    let flags = match bodies {
        Bodies::Trunc => RecvFlags::TRUNC,
        Bodies::Copy => RecvFlags::empty(),
    };
    // With MSG_TRUNC a TCP socket drops the octets and says how many: the second figure (tcp(7)).
    let receive = || rustix::net::recv(stream, &mut *buffer, flags).map(|(_, octets)| octets).map_err(io::Error::from);
    stream.async_io(Interest::READABLE, receive).await
}
