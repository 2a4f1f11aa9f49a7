//! One connection and the request on it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bootstorm_proto::http::client::{BadResponse, Body, ResponseParser};
use bootstorm_proto::http::server::{self, Method};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with, sockopt,
};

use super::super::Error;
use super::super::ready::{Interest, Ready};
use super::{Bodies, Follow};
use crate::limits;

/// A request on a connection. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    /// Head and body.
    pub octets: Rc<[u8]>,
    /// Under which stage it is timed.
    pub stage: usize,
    /// What is made of its response.
    pub follow: Option<Follow>,
}

/// What became of the request.
pub enum Progress {
    /// It is under way, or there is none.
    Waiting,
    /// Its whole response has come.
    Done,
    /// It has none.
    Failed(Failure),
}

/// Why a request has no good response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another status than success.
    #[error("http {0}")]
    Status(u16),
    /// No HTTP, or a body that ended early.
    #[error("{0}")]
    Response(BadResponse),
    /// More octets than the response said.
    #[error("octets after the body")]
    Beyond,
    /// The connection was refused, reset, or could not be made.
    #[error("connection: {0}")]
    Connection(Errno),
    /// The server closed it without an answer.
    #[error("closed without a response")]
    Closed,
    /// Nothing came in time.
    #[error("lost")]
    Lost,
}

/// Where the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Idle,
    Connecting,
    /// So many of its octets are sent, not all.
    Sending(usize),
    Head,
    Body(Body),
}

/// See the module.
pub struct Connection {
    socket: Option<OwnedFd>,
    phase: Phase,
    job: Option<Job>,
    due: Duration,
    begun: Duration,
    connected: Option<Duration>,
    /// A head that has not come whole.
    partial: Vec<u8>,
    /// The body, where something is made of it.
    body: Vec<u8>,
    status: u16,
    is_kept: bool,
}

impl Connection {
    pub fn new() -> Connection {
        Connection {
            socket: None,
            phase: Phase::Idle,
            job: None,
            due: Duration::ZERO,
            begun: Duration::ZERO,
            connected: None,
            partial: Vec::new(),
            body: Vec::new(),
            status: 0,
            is_kept: true,
        }
    }

    /// Under which stage its request is timed, or its last one.
    pub fn stage(&self) -> usize {
        self.job.as_ref().map_or(0, |job| job.stage)
    }

    /// What follows the request that is done, and the body of which it is made.
    pub fn take_followed(&mut self) -> Option<(Follow, Vec<u8>)> {
        let follow = self.job.as_mut().and_then(|job| job.follow.take())?;
        Some((follow, std::mem::take(&mut self.body)))
    }

    /// When that was due.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// How long connecting took, once.
    pub fn take_connect_time(&mut self) -> Option<Duration> {
        self.connected.take()
    }

    /// Whether the request has waited this long.
    pub fn is_lost(&self, now: Duration, lost_after: Duration) -> bool {
        self.phase != Phase::Idle && self.begun + lost_after <= now
    }

    pub fn close(&mut self) {
        self.socket = None;
        self.phase = Phase::Idle;
    }

    /// Begins a request.
    pub fn begin(
        &mut self,
        now: Duration,
        due: Duration,
        job: Job,
        server: SocketAddr,
        number: u64,
        ready: &Ready,
    ) -> Result<Progress, Error> {
        (self.job, self.due, self.begun) = (Some(job), due, now);
        if self.socket.is_some() {
            return self.send(0, number, ready);
        }
        self.open(server, number, ready)
    }

    fn open(&mut self, server: SocketAddr, number: u64, ready: &Ready) -> Result<Progress, Error> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let made =
            socket_with(family, SocketType::STREAM, flags, None).map_err(Error::socket("making a TCP socket"))?;
        sockopt::set_tcp_nodelay(&made, true).map_err(Error::socket("setting TCP_NODELAY"))?;
        match connect(&made, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {
                ready.add(made.as_fd(), number, Interest::Write)?;
                self.socket = Some(made);
                self.phase = Phase::Connecting;
                Ok(Progress::Waiting)
            }
            Err(errno) => Ok(self.fail(Failure::Connection(errno))),
        }
    }

    fn send(&mut self, done: usize, number: u64, ready: &Ready) -> Result<Progress, Error> {
        let (Some(socket), Some(job)) = (&self.socket, &self.job) else { return Ok(Progress::Waiting) };
        let octets = &job.octets;
        match send(socket, &octets[done..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) if done + count == octets.len() => {
                if self.phase != Phase::Idle {
                    ready.change(socket, number, Interest::Read)?;
                }
                self.phase = Phase::Head;
                self.partial.clear();
                self.body.clear();
                Ok(Progress::Waiting)
            }
            Err(errno) if !matches!(errno, Errno::AGAIN | Errno::INTR) => Ok(self.fail(Failure::Connection(errno))),
            // The rest when there is room for it.
            taken => {
                if self.phase == Phase::Idle {
                    ready.change(socket, number, Interest::Write)?;
                }
                self.phase = Phase::Sending(done + taken.unwrap_or(0));
                Ok(Progress::Waiting)
            }
        }
    }

    /// Goes on with what the socket is ready for; also gives the octets received.
    pub fn advance(
        &mut self,
        now: Duration,
        bodies: Bodies,
        buffer: &mut [u8],
        number: u64,
        ready: &Ready,
    ) -> Result<(Progress, u64), Error> {
        let Some(socket) = &self.socket else { return Ok((Progress::Waiting, 0)) };
        match self.phase {
            Phase::Connecting => {
                if let Err(errno) = sockopt::socket_error(socket).and_then(|result| result) {
                    return Ok((self.fail(Failure::Connection(errno)), 0));
                }
                self.connected = Some(now.saturating_sub(self.begun));
                self.phase = Phase::Sending(0);
                Ok((self.send(0, number, ready)?, 0))
            }
            Phase::Sending(done) => Ok((self.send(done, number, ready)?, 0)),
            // Without a request only an end can come.
            Phase::Idle => {
                self.close();
                Ok((Progress::Waiting, 0))
            }
            Phase::Head | Phase::Body(_) => Ok(self.receive(bodies, buffer)),
        }
    }

    /// Receives until there is nothing more, or the response is whole.
    fn receive(&mut self, bodies: Bodies, buffer: &mut [u8]) -> (Progress, u64) {
        let bodies = if self.is_followed() { Bodies::Copy } else { bodies };
        let mut received = 0;
        loop {
            let Some(socket) = &self.socket else { return (Progress::Waiting, received) };
            let (room, flags) = match (self.phase, bodies) {
                (Phase::Body(Body::Bytes(left)), Bodies::Trunc) => {
                    (usize::try_from(left).unwrap_or(usize::MAX), RecvFlags::TRUNC)
                }
                (_, Bodies::Trunc) => (limits::HEAD_READ_BYTES, RecvFlags::empty()),
                (_, Bodies::Copy) => (buffer.len(), RecvFlags::empty()),
            };
            let room = room.min(buffer.len());
            let count = match recv(socket, &mut buffer[..room], RecvFlags::DONTWAIT | flags) {
                Ok((_, 0)) => return (self.handle_end(), received),
                Ok((_, count)) => count.min(room),
                Err(Errno::AGAIN | Errno::INTR) => return (Progress::Waiting, received),
                Err(errno) => return (self.fail(Failure::Connection(errno)), received),
            };
            received += count as u64;
            match self.handle_bytes(&buffer[..count]) {
                Progress::Waiting if count < room => return (Progress::Waiting, received),
                Progress::Waiting => {}
                ended => return (ended, received),
            }
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> Progress {
        let rest = match self.phase {
            Phase::Head if self.partial.is_empty() => match self.handle_head(bytes) {
                Ok(Some(length)) => &bytes[length..],
                Ok(None) => {
                    self.partial.extend_from_slice(bytes);
                    return Progress::Waiting;
                }
                Err(failure) => return self.fail(failure),
            },
            Phase::Head => {
                let before = self.partial.len();
                self.partial.extend_from_slice(bytes);
                let partial = std::mem::take(&mut self.partial);
                match self.handle_head(&partial) {
                    Ok(Some(length)) => &bytes[length.saturating_sub(before)..],
                    Ok(None) => {
                        self.partial = partial;
                        return Progress::Waiting;
                    }
                    Err(failure) => return self.fail(failure),
                }
            }
            Phase::Body(_) => bytes,
            Phase::Idle | Phase::Connecting | Phase::Sending(_) => return Progress::Waiting,
        };
        let Phase::Body(mut body) = self.phase else { return Progress::Waiting };
        let (part, beyond) = body.take(rest);
        if self.is_followed() {
            let room = limits::ANSWER_BYTES_MAX.saturating_sub(self.body.len());
            self.body.extend_from_slice(&part[..part.len().min(room)]);
        }
        if !beyond.is_empty() {
            return self.fail(Failure::Beyond);
        }
        self.phase = Phase::Body(body);
        if body.is_complete() { self.finish() } else { Progress::Waiting }
    }

    fn is_followed(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.follow.is_some())
    }

    /// Reads the head if it is whole; its octets.
    fn handle_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        // The method decides only for HEAD, which is not sent here.
        let parsed = ResponseParser::new(Method::Get).parse(bytes).map_err(Failure::Response)?;
        let Some((head, length)) = parsed else { return Ok(None) };
        self.status = head.status;
        self.is_kept = head.connection == server::Connection::KeepAlive;
        self.phase = Phase::Body(head.body);
        Ok(Some(length))
    }

    /// The server has ended the stream.
    fn handle_end(&mut self) -> Progress {
        match self.phase {
            Phase::Body(body) => match body.handle_close() {
                Ok(()) => {
                    self.is_kept = false;
                    self.finish()
                }
                Err(bad) => self.fail(Failure::Response(bad)),
            },
            _ => self.fail(Failure::Closed),
        }
    }

    fn finish(&mut self) -> Progress {
        self.phase = Phase::Idle;
        if !self.is_kept {
            self.close();
        }
        if (200..300).contains(&self.status) { Progress::Done } else { Progress::Failed(Failure::Status(self.status)) }
    }

    fn fail(&mut self, failure: Failure) -> Progress {
        self.phase = Phase::Idle;
        self.close();
        Progress::Failed(failure)
    }
}
