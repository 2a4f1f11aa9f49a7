//! The io_uring backend.
//!
//! Each operation has a slot in `operations`; its key is the submission's user data. The slot owns everything the kernel may touch
//! (message header, vectors, address, payload, descriptor) in places that do not move, and is emptied only when the kernel
//! has delivered the operation's last completion. Multishot operations that end early (no buffer left, queue overflow) rest
//! in a list and are armed again by the next turn.
//!
//! The ring is made for one thread (`SINGLE_ISSUER`, `DEFER_TASKRUN` where the kernel has them): completions are only
//! produced inside [`Backend::wait`]. It starts disabled and is restricted before it is enabled: it takes the operations of [`USED`] and no other,
//! and nothing more can be registered with it.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Handle, Table};
use crate::buffer::Pool;
use crate::completion::{Completion, Datagram, Event, Peer, WAKER_TOKEN};
use crate::error::Error;
use crate::limits::{
    AHEAD_BUFFERS, ALARM_AFTER_MIN, COMPLETION_FACTOR, COMPLETIONS_PER_TURN_MAX, DRAIN_MILLISECONDS_MAX,
    SENT_BYTES_PER_TURN_MAX, SUBMISSION_ENTRIES,
};
use crate::operation::{ConnectionId, Operation, OperationId, Refusal, Refused, Repeat, Token};
use crate::slab::{Key, Slab};
use crate::waker::Waker;
use crate::work::{
    DATAGRAM_HEAD_BYTES, DATAGRAMS, Looked, STREAMS, Slot, Work, accepted, datagram, receive_ahead, receive_header,
    send_sealed, stream_flags, work,
};
use crate::{Config, Counters};
use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

/// User data of the waker's poll. No slot has such a key: a slot's generation never gets that large.
const WAKER: u64 = u64::MAX;
/// User data of submissions whose completion says nothing (cancellations).
const NOTHING: u64 = u64::MAX - 1;
/// User data of the alarm.
const ALARM: u64 = u64::MAX - 2;

pub(crate) struct Ring {
    ring: IoUring,
    operations: Slab<Slot>,
    datagrams: Rc<Pool>,
    streams: Rc<Pool>,
    /// The sizes reserved for name and control of received datagrams. The kernel reads it when a receive is armed.
    receive_header: Box<libc::msghdr>,
    /// Receivers that come ahead of the others. The ring only rings for them: a multishot receive would be given 32 datagrams
    /// for each round of all sockets that are busy.
    ahead: Vec<Key>,
    ahead_buffers: Rc<Pool>,
    /// Operations to arm again at the next turn.
    resting: Vec<Key>,
    /// Completions of operations that were done when they were submitted.
    done: Vec<Completion>,
    /// Receivers that wait for a buffer.
    starved: Vec<Key>,
    /// Accepts that wait for the number of connections to fall below the number given.
    paused: Vec<(Key, u32)>,
    /// Connections accepted by the kernel beyond `connections_max`; bounded by the listeners' backlogs.
    parked: VecDeque<(Key, OwnedFd)>,
    /// Descriptors named by a cancellation that has not been submitted yet.
    held: Vec<Handle>,
    waker: Waker,
    is_waker_armed: bool,
    /// When the alarm rings, if one is set. A deadline that is as early needs no timer of its own: most turns have none to set.
    alarm: Option<Instant>,
    /// How long from its submission; the kernel reads it then.
    alarm_after: Box<Timespec>,
    batch: Vec<cqueue::Entry>,
    counters: Counters,
}

impl Ring {
    pub(crate) fn new(config: &Config, waker: Waker) -> Result<Ring, Error> {
        let ring = open(config.in_flight_max.next_power_of_two().min(SUBMISSION_ENTRIES))?;
        probe(&ring)?;
        let head = DATAGRAM_HEAD_BYTES as u32;
        let datagram_bytes = (head + config.datagram_bytes_max).next_multiple_of(64);
        let datagrams = Pool::new(config.datagram_buffers, datagram_bytes);
        let streams = Pool::new(config.stream_buffers, config.stream_buffer_bytes.next_multiple_of(64));
        register(&ring, &datagrams, DATAGRAMS)?;
        register(&ring, &streams, STREAMS)?;
        restrict(&ring)?;
        Ok(Ring {
            ring,
            operations: Slab::new(config.in_flight_max),
            datagrams,
            streams,
            receive_header: receive_header(),
            ahead: Vec::new(),
            ahead_buffers: Pool::new(AHEAD_BUFFERS, datagram_bytes),
            resting: Vec::new(),
            done: Vec::new(),
            starved: Vec::new(),
            paused: Vec::new(),
            parked: VecDeque::new(),
            held: Vec::new(),
            waker,
            is_waker_armed: false,
            alarm: None,
            alarm_after: Box::new(Timespec::new()),
            batch: Vec::with_capacity(COMPLETIONS_PER_TURN_MAX),
            counters: Counters::default(),
        })
    }

    /// Puts an entry into the submission queue, submitting what is there if it is full.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: all that an operation's entry points to is owned by its slot (or is the receive header, which lives as long as the
        // ring) and stays until its last completion; cancellations point to nothing.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return true;
        }
        if self.ring.submit().is_ok() {
            self.held.clear();
        }
        // SAFETY: as above.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Hands the operation in this slot to the kernel; false when there is no room now.
    fn arm(&mut self, key: Key) -> bool {
        let Some(slot) = self.operations.get_mut(key) else { return true };
        if let Work::SendSealed { sealed, done } = &mut slot.work {
            // The ring has no such operation that is not done by a thread of the kernel. The socket does not block.
            let event = match send_sealed(&slot.handle.fd, sealed, done) {
                Ok(false) => None,
                Ok(true) => Some(Event::Sent(sealed.len())),
                Err(error) => Some(Event::Failed(error)),
            };
            if let Some(event) = event {
                let ended = self.end(key, event);
                self.done.extend(ended);
                return true;
            }
        }
        let entry = entry(slot, &self.receive_header).user_data(key.to_bits());
        slot.is_armed = true;
        let is_pushed = self.push(&entry);
        if let Some(slot) = self.operations.get_mut(key) {
            slot.is_armed = is_pushed;
        }
        is_pushed
    }

    /// Arms what rests, as far as buffers and connections allow; ends what was cancelled while it rested.
    fn rearm(&mut self, table: &mut Table, completions: &mut Vec<Completion>) {
        while !table.connections.is_full()
            && let Some((key, fd)) = self.parked.pop_front()
        {
            // One whose listener has gone is closed, as the kernel does with its backlog.
            if let Some(slot) = self.operations.get(key).filter(|slot| !slot.is_ended()) {
                completions.extend(accepted(slot.token, fd, table));
            }
        }
        let can_receive = [self.datagrams.has_free(), self.streams.has_free()];
        let connections = table.connections.len();
        let no_parked = self.parked.is_empty();
        let mut ready = std::mem::take(&mut self.resting);
        let operations = &self.operations;
        let is_ended = |key: Key| operations.get(key).is_none_or(Slot::is_ended);
        self.starved.retain(|&key| {
            let group = operations.get(key).map_or(DATAGRAMS, |slot| slot.group());
            let stays = !can_receive[usize::from(group)] && !is_ended(key);
            if !stays {
                ready.push(key);
            }
            stays
        });
        self.paused.retain(|&(key, below)| {
            let stays = (connections >= below || !no_parked) && !is_ended(key);
            if !stays {
                ready.push(key);
            }
            stays
        });
        for key in ready {
            let Some(slot) = self.operations.get(key) else { continue };
            if slot.is_ended() {
                completions.extend(self.end(key, Event::Cancelled));
            } else if !self.arm(key) {
                self.resting.push(key);
            }
        }
        let handed = self.done.len().min(COMPLETIONS_PER_TURN_MAX / 2);
        completions.extend(self.done.drain(..handed));
        if !self.is_waker_armed {
            let poll = opcode::PollAdd::new(Fd(self.waker.descriptor().as_raw_fd()), libc::POLLIN as u32).multi(true);
            self.is_waker_armed = self.push(&poll.build().user_data(WAKER));
        }
    }

    /// Looks at the sockets that come ahead of the others; where nothing more is there the ring is to ring.
    fn look_ahead(&mut self, completions: &mut Vec<Completion>) {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.retain(|&key| {
            let Some(slot) = self.operations.get(key) else { return false };
            let is_armed = slot.is_armed;
            if slot.is_ended() {
                // An armed one ends when the kernel says so.
                if !is_armed {
                    completions.extend(self.end(key, Event::Cancelled));
                }
                return is_armed;
            }
            match receive_ahead(slot, &self.ahead_buffers, &self.receive_header, completions) {
                Looked::Paused if !completions.is_empty() => {}
                Looked::Drained | Looked::Paused if is_armed || self.arm(key) => {}
                Looked::Drained | Looked::Paused => self.resting.push(key),
                Looked::Failed(error) => {
                    // Its ring may still ring, for nobody.
                    completions.extend(self.end(key, Event::Failed(error)));
                    return false;
                }
            }
            true
        });
        self.ahead = ahead;
    }

    /// Empties a slot: the operation's last completion.
    fn end(&mut self, key: Key, event: Event) -> Option<Completion> {
        let slot = self.operations.remove(key)?;
        Some(Completion { token: slot.token, event, is_last: true })
    }

    /// Submits, and waits for a completion until the deadline.
    fn enter(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        let result = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => self.ring.submit_and_wait(1),
            Some(left) if self.has_alarm(deadline, left) => self.ring.submit_and_wait(1),
            Some(left) => {
                let left = Timespec::from(left);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&left))
            }
        };
        match result {
            Ok(_) => {
                self.held.clear();
                Ok(())
            }
            // ETIME: the deadline; EINTR: a signal; EBUSY, EAGAIN: completions have to be taken first.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(Error::Io { what: "entering the ring", source: error }),
            },
        }
    }

    /// Whether an alarm rings at the deadline or before; sets one if there is none and the deadline is far enough for it to be
    /// worth it. An alarm that rings early is a turn without completions.
    fn has_alarm(&mut self, deadline: Option<Instant>, left: Duration) -> bool {
        if self.alarm.is_some() || left < ALARM_AFTER_MIN {
            return self.alarm.is_some_and(|alarm| deadline.is_some_and(|deadline| alarm <= deadline));
        }
        *self.alarm_after = Timespec::from(left);
        // One at a time, so the place is not written before the kernel has read it.
        let timeout = opcode::Timeout::new(&raw const *self.alarm_after).build().user_data(ALARM);
        let is_set = self.push(&timeout);
        self.alarm = deadline.filter(|_| is_set);
        is_set
    }

    fn reap(&mut self, room: usize, table: &mut Table, completions: &mut Vec<Completion>) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut sent_bytes = 0;
        let mut queue = self.ring.completion();
        while batch.len() < room
            && sent_bytes < SENT_BYTES_PER_TURN_MAX
            && let Some(entry) = queue.next()
        {
            let slot = self.operations.get(Key::from_bits(entry.user_data()));
            sent_bytes += slot.map_or(0, |slot| slot.work.bytes_left());
            batch.push(entry);
        }
        drop(queue);
        for entry in batch.drain(..) {
            match entry.user_data() {
                NOTHING => {}
                ALARM => self.alarm = None,
                WAKER => {
                    self.is_waker_armed = cqueue::more(entry.flags());
                    self.waker.reset();
                    completions.push(Completion { token: WAKER_TOKEN, event: Event::Woken, is_last: false });
                }
                bits => self.handle(Key::from_bits(bits), entry.result(), entry.flags(), table, completions),
            }
        }
        self.batch = batch;
    }

    /// Turns one completion of the kernel into the caller's, or into another round.
    fn handle(&mut self, key: Key, result: i32, flags: u32, table: &mut Table, completions: &mut Vec<Completion>) {
        let Some(slot) = self.operations.get_mut(key) else { return };
        let has_more = cqueue::more(flags);
        slot.is_armed = has_more;
        let token = slot.token;
        let may_rearm = !slot.is_ended();
        let length = usize::try_from(result).unwrap_or(0);
        let pool = if slot.group() == DATAGRAMS { &self.datagrams } else { &self.streams };
        // Taken whatever the result is, so that a buffer which came with an error or an empty read goes back.
        let received = cqueue::buffer_select(flags).map(|index| pool.take(index, length));

        if result < 0 {
            if !has_more {
                self.handle_error(key, -result, may_rearm, table, completions);
            }
            return;
        }
        let mut deliver = |event, is_last| completions.push(Completion { token, event, is_last });
        match &mut slot.work {
            Work::ReceiveDatagrams => {
                if let Some(datagram) = received.and_then(|received| datagram(received, &self.receive_header)) {
                    deliver(Event::Datagram(datagram), false);
                }
                if !has_more {
                    self.rest_or_end(key, may_rearm, completions);
                }
            }
            Work::ReceiveAhead => {
                // It has rung: the next look brings what is there.
                if !may_rearm {
                    completions.extend(self.end(key, Event::Cancelled));
                }
            }
            Work::ReceiveConnected => {
                if let Some(bytes) = received {
                    // What fills its buffer may have been longer.
                    let is_truncated = length >= self.datagrams.buffer_bytes();
                    let (peer, interface, destination) = (Peer::Unknown, 0, None);
                    deliver(Event::Datagram(Datagram { bytes, peer, interface, destination, is_truncated }), false);
                }
                if !has_more {
                    self.rest_or_end(key, may_rearm, completions);
                }
            }
            Work::Receive(_) if result == 0 => completions.extend(self.end(key, Event::EndOfStream)),
            Work::Receive(Repeat::Once) => {
                completions.extend(received.and_then(|bytes| self.end(key, Event::Bytes(bytes))));
            }
            Work::Receive(Repeat::Continuous) => {
                if let Some(bytes) = received {
                    deliver(Event::Bytes(bytes), false);
                }
                if !has_more {
                    self.rest_or_end(key, may_rearm, completions);
                }
            }
            Work::Accept => {
                // SAFETY: a successful accept returns a new descriptor, which nobody else knows of.
                let fd = unsafe { OwnedFd::from_raw_fd(result) };
                match accepted(token, fd, table) {
                    Ok(completion) => completions.push(completion),
                    Err(fd) => self.parked.push_back((key, fd)),
                }
                if has_more && table.connections.is_full() {
                    // The kernel would go on accepting: stop it, and start again when there is room.
                    self.cancel_entry(key);
                } else if !has_more {
                    self.pause_or_rest(key, may_rearm, table, completions);
                }
            }
            Work::Connect(_) => {
                let handle = Rc::clone(&slot.handle);
                let event = match table.connections.insert(handle) {
                    Ok(key) => Event::Connected(ConnectionId(key)),
                    Err(_) => Event::Failed(io::Error::from_raw_os_error(libc::ENFILE)),
                };
                completions.extend(self.end(key, event));
            }
            Work::Discard(_) => {
                let event = if result == 0 { Event::EndOfStream } else { Event::Discarded(length) };
                completions.extend(self.end(key, event));
            }
            Work::SendDatagram(_) | Work::SendConnected(_) => completions.extend(self.end(key, Event::Sent(length))),
            Work::Send { .. } | Work::SendParts { .. } => {
                let (whole, done) = match &mut slot.work {
                    Work::Send { bytes, done, .. } => (bytes.len(), done),
                    Work::SendParts { length, done, .. } => (*length, done),
                    _ => return,
                };
                *done += length;
                let done = *done;
                if done >= whole {
                    completions.extend(self.end(key, Event::Sent(whole)));
                } else if length == 0 {
                    completions.extend(self.end(key, Event::Failed(io::ErrorKind::WriteZero.into())));
                } else {
                    self.rest_or_end(key, may_rearm, completions);
                }
            }
            // There is room again.
            Work::SendSealed { .. } => self.rest_or_end(key, may_rearm, completions),
            Work::Read { .. } => {
                let Some(slot) = self.operations.remove(key) else { return };
                if let Work::Read { mut buffer, .. } = slot.work {
                    buffer.set_length(length);
                    completions.push(Completion { token, event: Event::Read(buffer), is_last: true });
                }
            }
        }
    }

    fn handle_error(
        &mut self,
        key: Key,
        errno: i32,
        may_rearm: bool,
        table: &Table,
        completions: &mut Vec<Completion>,
    ) {
        let connections = table.connections.len();
        let Some(slot) = self.operations.get(key) else { return };
        let is_accept = matches!(slot.work, Work::Accept);
        match errno {
            // Our own pause of an accept looks like a cancellation, too.
            libc::ECANCELED if is_accept && may_rearm => self.pause(key, table.connections.capacity()),
            libc::ECANCELED => completions.extend(self.end(key, Event::Cancelled)),
            _ if !may_rearm => completions.extend(self.end(key, Event::Cancelled)),
            libc::ENOBUFS
                if matches!(slot.work, Work::ReceiveDatagrams | Work::ReceiveConnected | Work::Receive(_)) =>
            {
                self.counters.buffers_exhausted += 1;
                self.starved.push(key);
            }
            libc::EINTR | libc::EAGAIN => self.resting.push(key),
            libc::ECONNABORTED if is_accept => self.resting.push(key),
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS if is_accept && connections > 0 => {
                self.pause(key, connections);
            }
            _ => completions.extend(self.end(key, Event::Failed(io::Error::from_raw_os_error(errno)))),
        }
    }

    /// The operation goes on at the next turn, unless it has been cancelled meanwhile.
    fn rest_or_end(&mut self, key: Key, may_rearm: bool, completions: &mut Vec<Completion>) {
        if may_rearm {
            self.resting.push(key);
        } else {
            completions.extend(self.end(key, Event::Cancelled));
        }
    }

    fn pause_or_rest(&mut self, key: Key, may_rearm: bool, table: &Table, completions: &mut Vec<Completion>) {
        if may_rearm && table.connections.is_full() {
            self.pause(key, table.connections.capacity());
        } else {
            self.rest_or_end(key, may_rearm, completions);
        }
    }

    /// Accepting rests until there are fewer connections than `below`.
    fn pause(&mut self, key: Key, below: u32) {
        self.counters.accept_paused += 1;
        self.paused.push((key, below));
    }

    fn cancel_entry(&mut self, key: Key) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(key.to_bits())).build().user_data(NOTHING);
        // Without room the operation stays until its descriptor is released; the queue was just submitted, so this is the
        // kernel refusing to take anything, and `wait` will report that.
        self.push(&cancel);
    }
}

impl Backend for Ring {
    fn submit(&mut self, token: Token, operation: Operation, handle: Handle) -> Result<OperationId, Box<Refused>> {
        if self.operations.is_full() || self.done.len() >= self.operations.capacity() as usize {
            self.counters.queue_full += 1;
            return Err(Box::new(Refused { reason: Refusal::QueueFull, operation }));
        }
        let slot = Slot { token, handle, work: work(operation), is_cancelled: false, is_armed: false };
        let is_ahead = matches!(slot.work, Work::ReceiveAhead);
        let Ok(key) = self.operations.insert(slot) else { unreachable!("there is room: checked above") };
        if is_ahead {
            self.ahead.push(key);
        } else if !self.arm(key) {
            self.resting.push(key);
        }
        Ok(OperationId(key))
    }

    fn cancel(&mut self, operation: OperationId) {
        let Some(slot) = self.operations.get_mut(operation.0) else { return };
        slot.is_cancelled = true;
        if slot.is_armed {
            self.cancel_entry(operation.0);
        }
        // Else it is in one of the lists, and the next turn ends it.
    }

    fn cancel_all(&mut self, handle: &Handle) {
        let builder = CancelBuilder::fd(Fd(handle.fd.as_raw_fd())).all();
        self.held.push(Rc::clone(handle));
        self.push(&opcode::AsyncCancel2::new(builder).build().user_data(NOTHING));
    }

    fn wait(
        &mut self,
        deadline: Option<Instant>,
        table: &mut Table,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Error> {
        let before = completions.len();
        loop {
            self.rearm(table, completions);
            self.look_ahead(completions);
            let is_idle = completions.len() == before;
            // With something to hand over already, look only.
            let until = if is_idle { deadline } else { Some(Instant::now()) };
            self.enter(until)?;
            let handed = completions.len() - before;
            self.reap(COMPLETIONS_PER_TURN_MAX.saturating_sub(handed), table, completions);
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
        "ring"
    }
}

impl Drop for Ring {
    /// Cancels everything and waits until the kernel has let go of all memory; leaks it if that takes too long.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DRAIN_MILLISECONDS_MAX);
        let mut table =
            Table { sockets: Slab::new(0), listeners: Slab::new(0), connections: Slab::new(0), files: Slab::new(0) };
        let is_unarmed = |key: &Key| self.operations.get(*key).is_some_and(|slot| !slot.is_armed);
        let ahead: Vec<Key> = self.ahead.drain(..).filter(is_unarmed).collect();
        let resting = self.resting.drain(..).chain(self.starved.drain(..)).chain(ahead);
        for key in resting.chain(self.paused.drain(..).map(|(key, _)| key)).collect::<Vec<_>>() {
            self.operations.remove(key);
        }
        // Also those that complete and would be started again.
        self.operations.values_mut().for_each(|slot| slot.is_cancelled = true);
        self.push(&opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(NOTHING));
        let mut completions = Vec::new();
        while self.operations.len() > 0 && Instant::now() < deadline {
            if self.enter(Some(deadline)).is_err() {
                break;
            }
            self.reap(COMPLETIONS_PER_TURN_MAX, &mut table, &mut completions);
            completions.clear();
        }
        if self.operations.len() > 0 {
            tracing::warn!(operations = self.operations.len(), "kernel kept operations: leaking their memory");
            std::mem::forget(std::mem::replace(&mut self.operations, Slab::new(0)));
            std::mem::forget((Rc::clone(&self.datagrams), Rc::clone(&self.streams)));
        }
    }
}

/// The submission entry of what the slot holds (of what is left of it).
fn entry(slot: &mut Slot, receive_header: &libc::msghdr) -> squeue::Entry {
    let fd = Fd(slot.handle.fd.as_raw_fd());
    match &mut slot.work {
        Work::ReceiveDatagrams => opcode::RecvMsgMulti::new(fd, receive_header, DATAGRAMS).build(),
        Work::ReceiveAhead => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
        Work::ReceiveConnected => opcode::RecvMulti::new(fd, DATAGRAMS).build(),
        Work::SendConnected(bytes) => {
            opcode::Send::new(fd, bytes.as_ptr(), length_of(bytes)).flags(libc::MSG_NOSIGNAL).build()
        }
        Work::SendDatagram(message) => {
            opcode::SendMsg::new(fd, message.point(0)).flags(libc::MSG_NOSIGNAL as u32).build()
        }
        Work::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build(),
        Work::Connect(address) => opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build(),
        Work::Receive(Repeat::Continuous) => opcode::RecvMulti::new(fd, STREAMS).build(),
        Work::Receive(Repeat::Once) => opcode::Recv::new(fd, std::ptr::null_mut(), 0)
            .buf_group(STREAMS)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT),
        Work::Discard(length) => opcode::Recv::new(fd, std::ptr::null_mut(), *length).flags(libc::MSG_TRUNC).build(),
        Work::Send { bytes, done, more } => {
            let rest = &bytes[*done..];
            opcode::Send::new(fd, rest.as_ptr(), length_of(rest)).flags(stream_flags(*more)).build()
        }
        Work::SendParts { message, done, more, .. } => {
            opcode::SendMsg::new(fd, message.point(*done)).flags(stream_flags(*more) as u32).build()
        }
        Work::SendSealed { .. } => opcode::PollAdd::new(fd, libc::POLLOUT as u32).build(),
        Work::Read { buffer, offset } => {
            opcode::Read::new(fd, buffer.start(), buffer.capacity() as u32).offset(*offset).build()
        }
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Opens a ring with the best set of flags that the kernel has.
fn open(entries: u32) -> Result<IoUring, Error> {
    let attempt = |flags: &dyn Fn(&mut io_uring::Builder)| {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries * COMPLETION_FACTOR).setup_submit_all().setup_r_disabled();
        flags(&mut builder);
        builder.build(entries)
    };
    let is_invalid = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let ring = match attempt(&|builder| {
        builder.setup_single_issuer().setup_defer_taskrun();
    }) {
        Err(error) if is_invalid(&error) => attempt(&|builder| {
            builder.setup_coop_taskrun();
        }),
        other => other,
    };
    ring.map_err(|error| unavailable("the ring", error))
}

fn register(ring: &IoUring, pool: &Rc<Pool>, group: u16) -> Result<(), Error> {
    // SAFETY: the pool's ring is page-aligned memory of `count` entries; the pool lives until all operations have ended (see `drop`).
    unsafe { ring.submitter().register_buf_ring_with_flags(pool.ring_address(), pool.count(), group, 0) }
        .map_err(|error| unavailable("receive buffers", error))
}

/// Says in words why the kernel gave us nothing.
fn unavailable(what: &'static str, source: io::Error) -> Error {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let reason = match source.raw_os_error() {
        Some(libc::ENOMEM) => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
            return Error::LockedMemory { what, limit_bytes: limit.unwrap_or(u64::MAX), source };
        }
        Some(libc::EPERM) if matches!(disabled.trim(), "1" | "2") => {
            format!("sysctl kernel.io_uring_disabled is {}: set it to 0", disabled.trim())
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a seccomp filter or a security module forbids it (containers often do)".to_owned()
        }
        Some(libc::ENOSYS) => {
            "the kernel was built without it, or a seccomp filter hides it (containers often do)".to_owned()
        }
        Some(libc::EINVAL) => format!("the kernel is too old for {what}: Linux 6.1 or later is needed"),
        _ => format!("{what}: {source}"),
    };
    Error::Unavailable { kernel: kernel(), reason, source }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Operations that we use, and that must therefore be there.
const USED: &[(u8, &str)] = &[
    (opcode::RecvMsgMulti::CODE, "RECVMSG"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Read::CODE, "READ"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// `SEND_ZC` stands for multishot receive: both came with Linux 6.0, and the latter is a flag that cannot be probed.
const SIGN: (u8, &str) = (opcode::SendZc::CODE, "multishot RECV (6.0)");

fn probe(ring: &IoUring) -> Result<(), Error> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| unavailable("probing", error))?;
    let missing: Vec<&str> =
        USED.iter().chain([&SIGN]).filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::MissingOperations { kernel: kernel(), missing: missing.join(", ") })
}

/// Lets the ring take what we use and nothing else, and enables it.
fn restrict(ring: &IoUring) -> Result<(), Error> {
    let flags = Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits());
    let mut allowed: Vec<Restriction> =
        USED.iter().map(|(code, _)| Restriction::sqe_op(*code)).chain([flags]).collect();
    let submitter = ring.submitter();
    submitter.register_restrictions(&mut allowed).map_err(|error| unavailable("restrictions", error))?;
    submitter.register_enable_rings().map_err(|error| unavailable("the ring", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_takes_nothing_that_we_do_not_use() {
        let mut ring = Ring::new(&Config::default(), Waker::new().unwrap()).unwrap();
        let pipe = opcode::Splice::new(Fd(0), -1, Fd(1), -1, 1).build();
        let linked = opcode::PollAdd::new(Fd(0), libc::POLLIN as u32).build().flags(squeue::Flags::IO_LINK);
        for entry in [opcode::Nop::new().build(), opcode::OpenAt::new(Fd(0), c"/".as_ptr()).build(), pipe, linked] {
            assert!(ring.push(&entry.clone().user_data(NOTHING)));
            ring.ring.submit_and_wait(1).unwrap();
            let results: Vec<i32> = ring.ring.completion().map(|entry| entry.result()).collect();
            assert_eq!(results, [-libc::EACCES], "{entry:?}");
        }
        let refused = ring.ring.submitter().register_eventfd(0).expect_err("nothing more is registered");
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn refusals_of_the_kernel_are_told_in_words() {
        let told = |errno| unavailable("the ring", io::Error::from_raw_os_error(errno)).to_string();
        assert!(told(libc::ENOMEM).contains("RLIMIT_MEMLOCK"), "{}", told(libc::ENOMEM));
        assert!(told(libc::ENOSYS).contains("seccomp"));
        assert!(told(libc::EINVAL).contains("6.1"));
        assert!(told(libc::EPERM).contains(&kernel()));
    }
}
