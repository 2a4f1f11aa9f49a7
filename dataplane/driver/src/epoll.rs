//! The epoll backend, for kernels and containers that give us no ring.
//!
//! Each operation is tried when it is submitted (in the next turn), and waits for its descriptor only when the kernel has
//! answered that it would block. A descriptor is watched once, edge-triggered, for both directions, from the first operation
//! that waits on; an edge makes the operations that wait for its direction ready to be tried again. Nothing belongs to the kernel
//! between two system calls, so cancelling and dropping need not wait. File reads block the thread.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use crate::backend::{Backend, Handle, Table};
use crate::buffer::Pool;
use crate::completion::{Completion, Datagram, Event, Peer, WAKER_TOKEN};
use crate::error::Error;
use crate::limits::{AHEAD_BUFFERS, COMPLETIONS_PER_TURN_MAX, EPOLL_GOES_MAX};
use crate::operation::{ConnectionId, Operation, OperationId, Refusal, Refused, Repeat, Token};
use crate::slab::{Key, Slab};
use crate::waker::Waker;
use crate::work::{
    DATAGRAM_HEAD_BYTES, Looked, Slot, Work, accepted, checked, datagram, receive_ahead, receive_header,
    receive_message, send_sealed, stream_flags, work,
};
use crate::{Config, Counters};

/// What the waker's events carry; descriptors are never as large.
const WAKER: u64 = u64::MAX;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    operations: Slab<Slot>,
    datagrams: Rc<Pool>,
    streams: Rc<Pool>,
    /// The sizes reserved for name and control of received datagrams.
    receive_header: Box<libc::msghdr>,
    /// Receivers that come ahead of the others, looked at in every turn.
    ahead: Vec<Key>,
    ahead_buffers: Rc<Pool>,
    /// Operations to try in this turn. A key may be there twice or be stale: then it finds nothing or is tried again.
    ready: Vec<Key>,
    /// Who waits for an edge, by descriptor number; bounded by the process's descriptors.
    waiting: Vec<Waiting>,
    /// Receivers that wait for a buffer.
    starved: Vec<Key>,
    /// Accepts that wait for the number of connections to fall below the number given.
    paused: Vec<(Key, u32)>,
    waker: Waker,
    events: Vec<epoll::Event>,
    counters: Counters,
}

#[derive(Default)]
struct Waiting {
    readers: Vec<Key>,
    writers: Vec<Key>,
    /// The peer has ended or reset: there is no further edge, so what is there must be read to its end.
    is_hung_up: bool,
}

/// Which edge an operation waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Write,
}

impl Epoll {
    pub(crate) fn new(config: &Config, waker: Waker) -> Result<Epoll, Error> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| Error::io("making an epoll")(errno.into()))?;
        let data = epoll::EventData::new_u64(WAKER);
        epoll::add(&epoll, waker.descriptor(), data, epoll::EventFlags::IN)
            .map_err(|errno| Error::io("watching the waker")(errno.into()))?;
        let datagram_bytes = (DATAGRAM_HEAD_BYTES as u32 + config.datagram_bytes_max).next_multiple_of(64);
        Ok(Epoll {
            epoll,
            operations: Slab::new(config.in_flight_max),
            datagrams: Pool::new(config.datagram_buffers, datagram_bytes),
            streams: Pool::new(config.stream_buffers, config.stream_buffer_bytes.next_multiple_of(64)),
            receive_header: receive_header(),
            ahead: Vec::new(),
            ahead_buffers: Pool::new(AHEAD_BUFFERS, datagram_bytes),
            ready: Vec::new(),
            waiting: Vec::new(),
            starved: Vec::new(),
            paused: Vec::new(),
            waker,
            events: Vec::with_capacity(COMPLETIONS_PER_TURN_MAX),
            counters: Counters::default(),
        })
    }

    /// Tries what is ready, as far as the turn has room.
    fn try_ready(&mut self, most: usize, table: &mut Table, completions: &mut Vec<Completion>) {
        let mut ready = std::mem::take(&mut self.ready).into_iter();
        while completions.len() < most
            && let Some(key) = ready.next()
        {
            self.attempt(key, table, completions);
        }
        self.ready.extend(ready);
    }

    /// Looks at the sockets that come ahead of the others; where nothing more is there an edge is waited for.
    fn look_ahead(&mut self, completions: &mut Vec<Completion>) {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.retain(|&key| {
            let Some(slot) = self.operations.get(key) else { return false };
            if slot.is_ended() {
                self.end(key, Event::Cancelled, completions);
                return false;
            }
            let is_armed = slot.is_armed;
            match receive_ahead(slot, &self.ahead_buffers, &self.receive_header, completions) {
                Looked::Drained if !is_armed => self.block(key, Side::Read, completions),
                Looked::Drained => {}
                Looked::Paused => self.ready.push(key),
                Looked::Failed(error) => {
                    self.end(key, Event::Failed(error), completions);
                    return false;
                }
            }
            true
        });
        self.ahead = ahead;
    }

    /// Makes those ready that have waited for buffers or room, as far as there is some; and those that were cancelled meanwhile.
    fn revive(&mut self, table: &Table) {
        let has_free = [self.datagrams.has_free(), self.streams.has_free()];
        let connections = table.connections.len();
        let (operations, ready) = (&self.operations, &mut self.ready);
        let is_ended = |key: Key| operations.get(key).is_none_or(Slot::is_ended);
        self.starved.retain(|&key| {
            let group = operations.get(key).map_or(0, |slot| usize::from(slot.group()));
            let stays = !has_free[group] && !is_ended(key);
            if !stays {
                ready.push(key);
            }
            stays
        });
        self.paused.retain(|&(key, below)| {
            let stays = connections >= below && !is_ended(key);
            if !stays {
                ready.push(key);
            }
            stays
        });
    }

    fn attempt(&mut self, key: Key, table: &mut Table, completions: &mut Vec<Completion>) {
        let Some(slot) = self.operations.get_mut(key) else { return };
        slot.is_armed = false;
        if slot.is_ended() {
            return self.end(key, Event::Cancelled, completions);
        }
        let fd = slot.handle.fd.as_raw_fd();
        let (side, result) = match &mut slot.work {
            Work::ReceiveDatagrams | Work::ReceiveConnected | Work::Receive(_) => {
                return self.receive(key, completions);
            }
            // An edge: the next look brings what is there.
            Work::ReceiveAhead => return,
            Work::Accept => return self.accept(key, table, completions),
            Work::Connect(address) => {
                // SAFETY: the address lives in the slot through the call and has the length given.
                let result = checked(unsafe { libc::connect(fd, address.as_ptr().cast(), address.len()) } as isize);
                let handle = Rc::clone(&slot.handle);
                match result.map_err(|error| (error.raw_os_error(), error)) {
                    Ok(_) | Err((Some(libc::EISCONN), _)) => {
                        let event = match table.connections.insert(handle) {
                            Ok(key) => Event::Connected(ConnectionId(key)),
                            Err(_) => Event::Failed(io::Error::from_raw_os_error(libc::ENFILE)),
                        };
                        return self.end(key, event, completions);
                    }
                    Err((Some(libc::EINPROGRESS | libc::EALREADY), _)) => {
                        (Side::Write, Err(io::ErrorKind::WouldBlock.into()))
                    }
                    Err((_, error)) => (Side::Write, Err(error)),
                }
            }
            Work::Discard(length) => {
                let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
                // SAFETY: with MSG_TRUNC a TCP socket throws the bytes away and writes to no memory (tcp(7)).
                (Side::Read, checked(unsafe { libc::recv(fd, std::ptr::null_mut(), *length as usize, flags) }))
            }
            Work::Send { bytes, done, more } => {
                (Side::Write, send(fd, bytes.get(*done..).unwrap_or_default(), stream_flags(*more)))
            }
            Work::SendConnected(bytes) => (Side::Write, send(fd, bytes, libc::MSG_NOSIGNAL)),
            Work::SendParts { message, done, more, .. } => {
                let flags = stream_flags(*more) | libc::MSG_DONTWAIT;
                // SAFETY: the header points into the message, which lives in the slot through the call.
                (Side::Write, checked(unsafe { libc::sendmsg(fd, message.point(*done), flags) }))
            }
            Work::SendDatagram(message) => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                // SAFETY: as above.
                (Side::Write, checked(unsafe { libc::sendmsg(fd, message.point(0), flags) }))
            }
            Work::SendSealed { sealed, done } => match send_sealed(&slot.handle.fd, sealed, done) {
                Ok(true) => {
                    let length = sealed.len();
                    return self.end(key, Event::Sent(length), completions);
                }
                Ok(false) => (Side::Write, Err(io::ErrorKind::WouldBlock.into())),
                Err(error) => (Side::Write, Err(error)),
            },
            Work::Read { buffer, offset } => {
                (Side::Read, rustix::io::pread(&slot.handle.fd, buffer.room(), *offset).map_err(io::Error::from))
            }
        };
        match result {
            Ok(length) => self.succeed(key, length, completions),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.block(key, side, completions),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ready.push(key),
            Err(error) => self.end(key, Event::Failed(error), completions),
        }
    }

    /// The system call of an operation that is not continuous has done something.
    fn succeed(&mut self, key: Key, length: usize, completions: &mut Vec<Completion>) {
        let Some(slot) = self.operations.get_mut(key) else { return };
        let event = match &mut slot.work {
            Work::Discard(_) if length == 0 => Event::EndOfStream,
            Work::Discard(_) => Event::Discarded(length),
            Work::Send { bytes, done, .. } => {
                *done += length;
                if *done < bytes.len() {
                    // It took a part because the rest has no room.
                    return self.block(key, Side::Write, completions);
                }
                Event::Sent(bytes.len())
            }
            Work::SendParts { length: whole, done, .. } => {
                *done += length;
                if *done < *whole {
                    return self.block(key, Side::Write, completions);
                }
                Event::Sent(*whole)
            }
            Work::Read { .. } => {
                let Some(Slot { token, work: Work::Read { mut buffer, .. }, .. }) = self.operations.remove(key) else {
                    return;
                };
                buffer.set_length(length);
                return completions.push(Completion { token, event: Event::Read(buffer), is_last: true });
            }
            Work::SendDatagram(_)
            | Work::SendConnected(_)
            | Work::SendSealed { .. }
            | Work::ReceiveDatagrams
            | Work::ReceiveAhead
            | Work::ReceiveConnected
            | Work::Receive(_)
            | Work::Accept
            | Work::Connect(_) => Event::Sent(length),
        };
        self.end(key, event, completions);
    }

    /// Receives as long as something is there, at most [`EPOLL_GOES_MAX`] times, so that others have their turn.
    fn receive(&mut self, key: Key, completions: &mut Vec<Completion>) {
        for _ in 0..EPOLL_GOES_MAX {
            let Some(slot) = self.operations.get(key) else { return };
            let (token, fd) = (slot.token, slot.handle.fd.as_raw_fd());
            let is_stream = matches!(slot.work, Work::Receive(_));
            let has_names = matches!(slot.work, Work::ReceiveDatagrams);
            let is_once = matches!(slot.work, Work::Receive(Repeat::Once));
            let pool = Rc::clone(if is_stream { &self.streams } else { &self.datagrams });
            let Some(index) = pool.lend() else {
                self.counters.buffers_exhausted += 1;
                return self.starved.push(key);
            };
            let (start, room) = (pool.start(index), pool.buffer_bytes());
            let received = if has_names {
                receive_message(fd, start, room, &self.receive_header)
            } else {
                // SAFETY: the buffer was lent to us and has `room` bytes.
                checked(unsafe { libc::recv(fd, start.cast(), room, libc::MSG_DONTWAIT) })
            };
            let length = match received {
                Ok(0) if is_stream => {
                    pool.provide(index);
                    return self.end(key, Event::EndOfStream, completions);
                }
                Ok(length) => length,
                Err(error) => {
                    pool.provide(index);
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => self.block(key, Side::Read, completions),
                        io::ErrorKind::Interrupted => self.ready.push(key),
                        _ => self.end(key, Event::Failed(error), completions),
                    };
                }
            };
            let bytes = pool.take(index, length);
            let event = if is_stream {
                Event::Bytes(bytes)
            } else if has_names {
                let Some(datagram) = datagram(bytes, &self.receive_header) else { continue };
                Event::Datagram(datagram)
            } else {
                let (peer, interface, destination) = (Peer::Unknown, 0, None);
                let is_truncated = length >= room;
                Event::Datagram(Datagram { bytes, peer, interface, destination, is_truncated })
            };
            if is_once {
                return self.end(key, event, completions);
            }
            completions.push(Completion { token, event, is_last: false });
            // A stream that gave less than there was room for is drained, unless its end is behind that.
            if is_stream && length < room && !self.is_hung_up(fd) {
                return self.block(key, Side::Read, completions);
            }
        }
        self.ready.push(key);
    }

    fn accept(&mut self, key: Key, table: &mut Table, completions: &mut Vec<Completion>) {
        for _ in 0..EPOLL_GOES_MAX {
            let Some(slot) = self.operations.get(key) else { return };
            let (token, fd) = (slot.token, slot.handle.fd.as_raw_fd());
            let connections = table.connections.len();
            if table.connections.is_full() {
                return self.pause(key, connections);
            }
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: no address is asked for; the result is checked below.
            match checked(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) } as isize) {
                Ok(descriptor) => {
                    // SAFETY: a successful accept returns a new descriptor, which nobody else knows of.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
                    // There is room: checked above.
                    completions.extend(accepted(token, descriptor, table).ok());
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return self.block(key, Side::Read, completions),
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) if connections > 0 => {
                        return self.pause(key, connections);
                    }
                    _ => return self.end(key, Event::Failed(error), completions),
                },
            }
        }
        self.ready.push(key);
    }

    /// Accepting rests until there are fewer connections than `below`.
    fn pause(&mut self, key: Key, below: u32) {
        self.counters.accept_paused += 1;
        self.paused.push((key, below));
    }

    /// The operation waits for an edge; its descriptor is watched from here on.
    fn block(&mut self, key: Key, side: Side, completions: &mut Vec<Completion>) {
        let Some(slot) = self.operations.get_mut(key) else { return };
        slot.is_armed = true;
        let number = slot.handle.fd.as_raw_fd() as usize;
        if self.waiting.len() <= number {
            self.waiting.resize_with(number + 1, Waiting::default);
        }
        let waiting = &mut self.waiting[number];
        if !slot.handle.watched.replace(true) {
            // What waited for an earlier descriptor of this number has ended.
            *waiting = Waiting::default();
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(number as u64);
            if let Err(errno) = epoll::add(&self.epoll, &slot.handle.fd, data, flags) {
                slot.handle.watched.set(false);
                return self.end(key, Event::Failed(errno.into()), completions);
            }
        }
        match side {
            Side::Read => waiting.readers.push(key),
            Side::Write => waiting.writers.push(key),
        }
    }

    fn is_hung_up(&self, fd: i32) -> bool {
        self.waiting.get(fd as usize).is_some_and(|waiting| waiting.is_hung_up)
    }

    /// Waits for edges until the deadline and makes ready what they are for.
    fn collect(&mut self, timeout: Option<Timespec>, completions: &mut Vec<Completion>) -> Result<(), Error> {
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::Io { what: "waiting for events", source: errno.into() }),
        }
        for event in &self.events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == WAKER {
                self.waker.reset();
                completions.push(Completion { token: WAKER_TOKEN, event: Event::Woken, is_last: false });
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(data as usize) else { continue };
            let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            waiting.is_hung_up |= flags.intersects(ended);
            if flags.intersects(epoll::EventFlags::IN | ended) {
                self.ready.append(&mut waiting.readers);
            }
            if flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.ready.append(&mut waiting.writers);
            }
        }
        Ok(())
    }

    fn end(&mut self, key: Key, event: Event, completions: &mut Vec<Completion>) {
        let ended = self.operations.remove(key);
        completions.extend(ended.map(|slot| Completion { token: slot.token, event, is_last: true }));
    }
}

impl Backend for Epoll {
    fn submit(&mut self, token: Token, operation: Operation, handle: Handle) -> Result<OperationId, Box<Refused>> {
        if self.operations.is_full() {
            self.counters.queue_full += 1;
            return Err(Box::new(Refused { reason: Refusal::QueueFull, operation }));
        }
        if matches!(operation, Operation::Accept { .. } | Operation::Connect { .. }) {
            // These have no flag for it. A descriptor that cannot be set fails when it is used.
            let _ = rustix::io::ioctl_fionbio(&handle.fd, true);
        }
        let slot = Slot { token, handle, work: work(operation), is_cancelled: false, is_armed: false };
        let is_ahead = matches!(slot.work, Work::ReceiveAhead);
        let Ok(key) = self.operations.insert(slot) else { unreachable!("there is room: checked above") };
        if is_ahead { &mut self.ahead } else { &mut self.ready }.push(key);
        Ok(OperationId(key))
    }

    fn cancel(&mut self, operation: OperationId) {
        if let Some(slot) = self.operations.get_mut(operation.0) {
            slot.is_cancelled = true;
            self.ready.push(operation.0);
        }
    }

    fn cancel_all(&mut self, handle: &Handle) {
        if let Some(waiting) = self.waiting.get_mut(handle.fd.as_raw_fd() as usize) {
            self.ready.append(&mut waiting.readers);
            self.ready.append(&mut waiting.writers);
        }
        // Those that wait for buffers or room are looked at in each turn.
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        table: &mut Table,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Error> {
        let before = completions.len();
        let most = before + COMPLETIONS_PER_TURN_MAX;
        loop {
            self.revive(table);
            self.look_ahead(completions);
            self.try_ready(most, table, completions);
            let is_idle = completions.len() == before && self.ready.is_empty();
            let timeout = match deadline {
                _ if !is_idle => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                None => None,
                Some(deadline) => Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok(),
            };
            self.collect(timeout, completions)?;
            // At once, not in the next turn: each turn is a system call.
            self.try_ready(most, table, completions);
            if completions.len() == before {
                self.look_ahead(completions);
            }
            let handed = completions.len() - before;
            if handed > 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.counters.completions += handed as u64;
                return Ok(());
            }
        }
    }

    fn in_flight(&self) -> u32 {
        self.operations.len()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

fn send(fd: i32, bytes: &[u8], flags: i32) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a slice.
    checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags | libc::MSG_DONTWAIT) })
}
