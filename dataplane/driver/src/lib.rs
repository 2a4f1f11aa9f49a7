//! One completion interface for the data plane's sockets, files and timers.
//!
//! A shard thread owns one [`Driver`]. It registers descriptors, submits [`Operation`]s (plain values with the caller's
//! [`Token`]), calls [`Driver::wait`] with its next deadline and gets [`Completion`]s (plain values with that token). There are
//! no callbacks, no futures and no timers but that deadline.
//!
//! ```no_run
//! # use bootstorm_driver::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut driver = Driver::new(&Config::default())?;
//! let socket = driver.add_socket(socket::udp("127.0.0.1:0".parse()?, &socket::Udp::default())?)?;
//! driver.submit(1, Operation::ReceiveDatagrams { socket }).map_err(|refused| refused.reason)?;
//! let mut completions = Vec::new();
//! loop {
//!     driver.wait(None, &mut completions)?;
//!     for completion in completions.drain(..) {
//!         if let Event::Datagram(datagram) = completion.event {
//!             println!("{} bytes from {:?}", datagram.bytes.len(), datagram.peer);
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! Invariants:
//! - Each accepted operation has exactly one last completion ([`Completion::is_last`]); until then its buffers belong to the kernel,
//!   cancellation and closing included. Dropping the driver cancels everything and waits for the kernel to let go.
//! - Everything is bounded by [`Config`]: operations in flight, connections, receive buffers. A full queue is
//!   [`Refusal::QueueFull`], which is not a failure: the operation comes back, and room appears with the next completions.
//! - A driver stays on its thread (it is not `Send`); [`Waker`] is how other threads reach it.
//! - Nothing here interprets bytes: protocols are the business of others.
//!
//! There are two backends behind a private trait: io_uring (Linux 6.1 or later), and epoll where a kernel or container gives
//! no ring ([`Choice`]). Both keep the same contract, shown by the same tests.

mod arena;
mod backend;
mod buffer;
mod completion;
mod epoll;
mod error;
pub mod limits;
mod message;
mod operation;
mod ring;
mod sealed;
mod slab;
pub mod socket;
mod sys;
mod waker;
mod work;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

pub use arena::{Arena, ArenaStats, BlockId, Chunk, Pages, Slot};
use backend::{Backend, Descriptor, Handle, Table};
pub use buffer::{Buffer, Received};
pub use completion::{Completion, Datagram, Event, Peer, WAKER_TOKEN};
pub use error::Error;
pub use operation::{
    ConnectionId, Destination, FileId, ListenerId, More, Operation, OperationId, Parts, Refusal, Refused, Repeat,
    SendDatagram, SocketId, Token,
};
pub use sealed::Sealed;
use slab::Slab;
pub use waker::Waker;

/// Sizes of a driver; all memory that grows with load is bounded by them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Operations in flight: 1 to [`limits::IN_FLIGHT_MAX`].
    pub in_flight_max: u32,
    /// Datagram, raw and packet sockets registered at a time.
    pub sockets_max: u32,
    /// Connections open at a time; at this number accepting rests.
    pub connections_max: u32,
    /// Files registered at a time.
    pub files_max: u32,
    /// Receive buffers for datagrams: a power of two up to [`limits::GROUP_BUFFERS_MAX`].
    pub datagram_buffers: u16,
    /// Longest payload (or frame) received whole, in bytes.
    pub datagram_bytes_max: u32,
    /// Receive buffers for streams: a power of two up to [`limits::GROUP_BUFFERS_MAX`].
    pub stream_buffers: u16,
    /// Bytes of each, up to [`limits::STREAM_BUFFER_BYTES_MAX`].
    pub stream_buffer_bytes: u32,
    /// Receive buffer of each connection that is opened, in bytes; `None`: as the kernel tunes it.
    pub connect_receive_bytes: Option<usize>,
    /// What does the work.
    pub choice: Choice,
}

/// Which backend a driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The ring; epoll, with a line in the log that says why, if there is none.
    #[default]
    Auto,
    /// The ring, or an error.
    Uring,
    /// Epoll.
    Epoll,
}

impl Default for Config {
    /// For a shard of a rack: 8,192 connections, 2 MiB of datagram and 2 MiB of stream buffers (touched as they are used).
    fn default() -> Config {
        Config {
            in_flight_max: 32_768,
            sockets_max: 8_192,
            connections_max: 8_192,
            files_max: 4_096,
            datagram_buffers: 1_024,
            datagram_bytes_max: 2_048,
            stream_buffers: 1_024,
            stream_buffer_bytes: 2_048,
            connect_receive_bytes: None,
            choice: Choice::Auto,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        let refuse = |name, value, allowed| Err(Error::Config { name, value, allowed });
        let is_count = |count: u16| count.is_power_of_two() && count <= limits::GROUP_BUFFERS_MAX;
        if self.in_flight_max == 0 || self.in_flight_max > limits::IN_FLIGHT_MAX {
            return refuse("in_flight_max", self.in_flight_max.into(), "1 to 262144");
        }
        if !is_count(self.datagram_buffers) {
            return refuse("datagram_buffers", self.datagram_buffers.into(), "a power of two up to 32768");
        }
        if !is_count(self.stream_buffers) {
            return refuse("stream_buffers", self.stream_buffers.into(), "a power of two up to 32768");
        }
        if self.datagram_bytes_max == 0 || self.datagram_bytes_max as usize > limits::DATAGRAM_BYTES_MAX {
            return refuse("datagram_bytes_max", self.datagram_bytes_max.into(), "1 to 65507");
        }
        if self.stream_buffer_bytes == 0 || self.stream_buffer_bytes > limits::STREAM_BUFFER_BYTES_MAX {
            return refuse("stream_buffer_bytes", self.stream_buffer_bytes.into(), "1 to 1048576");
        }
        Ok(())
    }
}

/// What a driver has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Completions handed over.
    pub completions: u64,
    /// Operations refused with [`Refusal::QueueFull`].
    pub queue_full: u64,
    /// Times a receiver had to rest because all buffers of its group were taken.
    pub buffers_exhausted: u64,
    /// Times accepting had to rest because `connections_max` or the process's descriptors were reached.
    pub accept_paused: u64,
}

/// One thread's way to the kernel; see the module's documentation.
pub struct Driver {
    backend: Box<dyn Backend>,
    table: Table,
    waker: Waker,
    connect_receive_bytes: Option<usize>,
}

impl Driver {
    /// Opens a driver for the calling thread. Probes the kernel first: the error names what is missing and which
    /// setting to look at.
    pub fn new(config: &Config) -> Result<Driver, Error> {
        config.check()?;
        let waker = Waker::new().map_err(Error::io("making an eventfd"))?;
        let backend = backend(config, &waker)?;
        let table = Table {
            sockets: Slab::new(config.sockets_max),
            listeners: Slab::new(config.sockets_max),
            connections: Slab::new(config.connections_max),
            files: Slab::new(config.files_max),
        };
        tracing::debug!(backend = backend.name(), in_flight_max = config.in_flight_max, "driver opened");
        Ok(Driver { backend, table, waker, connect_receive_bytes: config.connect_receive_bytes })
    }

    /// A handle with which other threads end a `wait`.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Registers a bound datagram, raw or packet socket (inherited, or from [`socket`]); the driver owns it from here.
    pub fn add_socket(&mut self, socket: OwnedFd) -> Result<SocketId, Error> {
        let limit = self.table.sockets.capacity();
        insert(&mut self.table.sockets, socket, "sockets", limit).map(SocketId)
    }

    /// Registers a listening TCP socket; the driver owns it from here.
    pub fn add_listener(&mut self, listener: OwnedFd) -> Result<ListenerId, Error> {
        let limit = self.table.listeners.capacity();
        insert(&mut self.table.listeners, listener, "listeners", limit).map(ListenerId)
    }

    /// Registers a connected stream socket that was made elsewhere (a unix stream from the supervisor, say).
    pub fn add_connection(&mut self, stream: OwnedFd) -> Result<ConnectionId, Error> {
        let limit = self.table.connections.capacity();
        insert(&mut self.table.connections, stream, "connections", limit).map(ConnectionId)
    }

    /// Registers a file opened for reading.
    pub fn add_file(&mut self, file: OwnedFd) -> Result<FileId, Error> {
        let limit = self.table.files.capacity();
        insert(&mut self.table.files, file, "files", limit).map(FileId)
    }

    /// Takes a socket out: its operations end with [`Event::Cancelled`], then it is closed. Unknown ids are ignored.
    pub fn remove_socket(&mut self, id: SocketId) {
        if let Some(handle) = self.table.sockets.remove(id.0) {
            self.release(handle);
        }
    }

    /// Takes a listener out: its operations end with [`Event::Cancelled`], then it is closed. Unknown ids are ignored.
    pub fn remove_listener(&mut self, id: ListenerId) {
        if let Some(handle) = self.table.listeners.remove(id.0) {
            self.release(handle);
        }
    }

    /// Takes a file out; reads in flight still complete, then it is closed. Unknown ids are ignored.
    pub fn remove_file(&mut self, id: FileId) {
        self.table.files.remove(id.0);
    }

    /// Closes a connection. Bytes whose send has completed are still delivered, the peer sees the end of the stream;
    /// operations in flight end ([`Event::EndOfStream`], [`Event::Cancelled`] or [`Event::Failed`]), after which the descriptor
    /// is gone. The id is stale at once. Unknown ids are ignored.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(handle) = self.table.connections.remove(id.0)
            && Rc::strong_count(&handle) > 1
        {
            // close(2) alone would leave an armed receive holding the connection open.
            let _ = rustix::net::shutdown(&handle.fd, rustix::net::Shutdown::Both);
            self.release(handle);
        }
    }

    /// Says that no more will be sent: the peer sees the end of the stream, receiving goes on. For the end of a response on a
    /// connection whose peer may still be sending: close only when it has ended too, or after a deadline.
    pub fn shutdown_write(&mut self, id: ConnectionId) -> Result<(), Error> {
        let handle = self.table.connection(id).ok_or(Error::UnknownId { what: "connection" })?;
        rustix::net::shutdown(&handle.fd, rustix::net::Shutdown::Write)
            .map_err(|errno| Error::io("ending a stream")(errno.into()))
    }

    /// The peer's address of a TCP connection (a system call).
    pub fn peer_address(&self, id: ConnectionId) -> Result<SocketAddr, Error> {
        let handle = self.table.connection(id).ok_or(Error::UnknownId { what: "connection" })?;
        socket::peer_address(handle.fd.as_fd()).map_err(Error::io("reading the peer's address"))
    }

    /// The local address of a TCP connection (a system call).
    pub fn local_address(&self, id: ConnectionId) -> Result<SocketAddr, Error> {
        let handle = self.table.connection(id).ok_or(Error::UnknownId { what: "connection" })?;
        socket::local_address(handle.fd.as_fd()).map_err(Error::io("reading the local address"))
    }

    /// The local address of a socket (a system call); `None` for packet sockets and unknown ids.
    pub fn socket_address(&self, id: SocketId) -> Option<SocketAddr> {
        socket::local_address(self.table.socket(id)?.fd.as_fd()).ok()
    }

    /// Hands an operation to the kernel, at the latest with the next [`wait`](Driver::wait). A refused operation comes back whole.
    pub fn submit(&mut self, token: Token, operation: Operation) -> Result<OperationId, Box<Refused>> {
        if !operation.is_in_range() {
            return Err(Box::new(Refused { reason: Refusal::OutOfRange, operation }));
        }
        match self.handle_of(&operation) {
            Ok(handle) => self.backend.submit(token, operation, handle),
            Err(reason) => Err(Box::new(Refused { reason, operation })),
        }
    }

    /// Asks for an operation to end. It ends with [`Event::Cancelled`], unless it was done already. Ids of ended operations are ignored.
    pub fn cancel(&mut self, operation: OperationId) {
        self.backend.cancel(operation);
    }

    /// Submits what is pending, waits until something has happened or the deadline has come (`None`: however long it
    /// takes; one in the past: only looks), and appends at most [`limits::COMPLETIONS_PER_TURN_MAX`] completions.
    ///
    /// Completions of one connection or socket come in the order of their bytes. Fails only if the ring itself fails: end the thread then.
    pub fn wait(&mut self, deadline: Option<Instant>, completions: &mut Vec<Completion>) -> Result<(), Error> {
        self.backend.wait(deadline, &mut self.table, completions)
    }

    /// Operations in flight.
    pub fn in_flight(&self) -> u32 {
        self.backend.in_flight()
    }

    /// Connections open.
    pub fn connections(&self) -> u32 {
        self.table.connections.len()
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.backend.counters()
    }

    /// The backend in use, for logs and metrics.
    pub fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    fn handle_of(&self, operation: &Operation) -> Result<Handle, Refusal> {
        let handle = match operation {
            Operation::ReceiveDatagrams { socket }
            | Operation::ReceiveAhead { socket }
            | Operation::ReceiveConnected { socket } => self.table.socket(*socket),
            Operation::SendDatagram(send) => self.table.socket(send.socket),
            Operation::Accept { listener } => self.table.listener(*listener),
            Operation::Receive { connection, .. }
            | Operation::Discard { connection, .. }
            | Operation::Send { connection, .. } => self.table.connection(*connection),
            Operation::SendSealed { connection, .. } => {
                let handle = self.table.connection(*connection);
                if let Some(handle) = handle.filter(|handle| !handle.nonblocking.replace(true)) {
                    // The call has no flag for it. A descriptor that cannot be set fails when it is used.
                    let _ = rustix::io::ioctl_fionbio(&handle.fd, true);
                }
                handle
            }
            Operation::Read { file, .. } => self.table.file(*file),
            Operation::Connect { to, from } => {
                if self.table.connections.is_full() {
                    return Err(Refusal::QueueFull);
                }
                return socket::for_connect(*to, *from, self.connect_receive_bytes)
                    .map(|fd| Rc::new(Descriptor::from(fd)))
                    .map_err(|error| Refusal::NoSocket(error.kind()));
            }
        };
        handle.cloned().ok_or(Refusal::Closed)
    }

    /// Lets go of a descriptor: operations in flight are cancelled and keep it open until they have ended.
    fn release(&mut self, handle: Handle) {
        handle.released.set(true);
        if Rc::strong_count(&handle) > 1 {
            self.backend.cancel_all(&handle);
        }
    }
}

fn backend(config: &Config, waker: &Waker) -> Result<Box<dyn Backend>, Error> {
    let refused = match config.choice {
        Choice::Epoll => return Ok(Box::new(epoll::Epoll::new(config, waker.clone())?)),
        Choice::Auto | Choice::Uring => match ring::Ring::new(config, waker.clone()) {
            Ok(ring) => return Ok(Box::new(ring)),
            Err(error) => error,
        },
    };
    match (config.choice, &refused) {
        (Choice::Auto, Error::Unavailable { .. } | Error::MissingOperations { .. } | Error::LockedMemory { .. }) => {
            tracing::warn!(reason = %refused, "no ring: epoll does its work, at a higher cost");
            Ok(Box::new(epoll::Epoll::new(config, waker.clone())?))
        }
        _ => Err(refused),
    }
}

fn insert(table: &mut Slab<Handle>, fd: OwnedFd, what: &'static str, limit: u32) -> Result<slab::Key, Error> {
    table.insert(Rc::new(fd.into())).map_err(|_| Error::TableFull { what, limit })
}
