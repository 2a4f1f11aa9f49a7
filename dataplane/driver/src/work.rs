//! What an operation in flight owns: the same for every backend.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use io_uring::types::RecvMsgOut;
use socket2::SockAddr;

use crate::backend::{Descriptor, Handle, Table};
use crate::buffer::{Buffer, Pool, Received};
use crate::completion::{Completion, Datagram, Event, Peer};
use crate::limits::{AHEAD_PER_TURN_MAX, CONTROL_BYTES, NAME_BYTES};
use crate::message::{self, Control};
use crate::operation::{ConnectionId, Destination, More, Operation, Parts, Repeat, SendDatagram, Token};
use crate::sealed::Sealed;
use crate::sys;

/// Buffer group of datagrams.
pub(crate) const DATAGRAMS: u16 = 0;

/// Buffer group of streams.
pub(crate) const STREAMS: u16 = 1;

/// Octets in front of a datagram in its buffer: `io_uring_recvmsg_out`, then name and control as reserved.
pub(crate) const DATAGRAM_HEAD_BYTES: usize = 16 + NAME_BYTES + CONTROL_BYTES;

/// An operation in flight or resting.
pub(crate) struct Slot {
    pub(crate) token: Token,
    pub(crate) handle: Handle,
    pub(crate) work: Work,
    pub(crate) is_cancelled: bool,
    /// Whether a submission entry of it is with the kernel (or in the queue to it).
    pub(crate) is_armed: bool,
}

impl Slot {
    /// Whether its owner has cancelled it or closed its descriptor.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_cancelled || self.handle.released.get()
    }

    /// The buffer group that it receives into.
    pub(crate) fn group(&self) -> u16 {
        match self.work {
            Work::ReceiveDatagrams | Work::ReceiveAhead | Work::ReceiveConnected => DATAGRAMS,
            _ => STREAMS,
        }
    }
}

/// What the operation is, and what of it the kernel may touch.
pub(crate) enum Work {
    ReceiveDatagrams,
    ReceiveAhead,
    /// From a connected socket, of which the kernel need not say who sent.
    ReceiveConnected,
    SendDatagram(Box<Message>),
    /// One piece on a connected socket, without control messages: it needs no header.
    SendConnected(Bytes),
    Accept,
    Connect(Box<SockAddr>),
    Receive(Repeat),
    Discard(u32),
    /// One piece: it needs no header.
    Send {
        bytes: Bytes,
        done: usize,
        more: More,
    },
    SendParts {
        message: Box<Message>,
        length: usize,
        done: usize,
        more: More,
    },
    SendSealed {
        sealed: Sealed,
        done: usize,
    },
    Read {
        buffer: Buffer,
        offset: u64,
    },
}

impl Work {
    /// Bytes that it has yet to send.
    pub(crate) fn bytes_left(&self) -> usize {
        match self {
            Work::SendConnected(bytes) => bytes.len(),
            Work::Send { bytes, done, .. } => bytes.len() - done,
            Work::SendParts { length, done, .. } => length - done,
            Work::SendDatagram(message) => message.parts.len(),
            Work::SendSealed { sealed, done } => sealed.len() - done,
            Work::ReceiveDatagrams
            | Work::ReceiveAhead
            | Work::ReceiveConnected
            | Work::Accept
            | Work::Connect(_)
            | Work::Receive(_)
            | Work::Discard(_)
            | Work::Read { .. } => 0,
        }
    }
}

/// A message header with all it points to. Lives in a box from the first submission to the last completion.
pub(crate) struct Message {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
    address: Option<SockAddr>,
    control: Control,
    parts: Parts,
}

impl Message {
    pub(crate) fn new(parts: Parts, address: Option<SockAddr>, control: Control) -> Box<Message> {
        // SAFETY: `msghdr` is a plain C struct for which all zeros is a valid value (null pointers, zero lengths).
        let header = unsafe { std::mem::zeroed() };
        Box::new(Message { header, vectors: Vec::with_capacity(parts.as_slice().len()), address, control, parts })
    }

    /// Points the header at everything after the first `done` bytes.
    pub(crate) fn point(&mut self, mut done: usize) -> *const libc::msghdr {
        self.vectors.clear();
        for part in self.parts.as_slice() {
            let skipped = done.min(part.len());
            done -= skipped;
            if skipped < part.len() {
                let rest = &part[skipped..];
                self.vectors.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        }
        if let Some(address) = &self.address {
            self.header.msg_name = address.as_ptr().cast_mut().cast();
            self.header.msg_namelen = address.len();
        }
        let control = self.control.as_slice();
        if !control.is_empty() {
            self.header.msg_control = control.as_ptr().cast_mut().cast();
            self.header.msg_controllen = control.len() as _;
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len() as _;
        &raw const self.header
    }
}

/// What the slot has to own for this operation.
pub(crate) fn work(operation: Operation) -> Work {
    match operation {
        Operation::ReceiveDatagrams { .. } => Work::ReceiveDatagrams,
        Operation::ReceiveAhead { .. } => Work::ReceiveAhead,
        Operation::ReceiveConnected { .. } => Work::ReceiveConnected,
        Operation::SendDatagram(SendDatagram {
            to: Destination::Connected,
            source: None,
            interface: None,
            segment_bytes: None,
            parts,
            ..
        }) if parts.as_slice().len() == 1 => Work::SendConnected(parts.into_single()),
        Operation::SendDatagram(send) => Work::SendDatagram(datagram_message(send)),
        Operation::Accept { .. } => Work::Accept,
        Operation::Connect { to, .. } => Work::Connect(Box::new(to.into())),
        Operation::Receive { repeat, .. } => Work::Receive(repeat),
        Operation::Discard { length_max, .. } => Work::Discard(length_max),
        Operation::Send { parts, more, .. } if parts.as_slice().len() == 1 => {
            Work::Send { bytes: parts.into_single(), done: 0, more }
        }
        Operation::Send { parts, more, .. } => {
            let length = parts.len();
            let message = Message::new(parts, None, Control::for_send(false, None, None, None));
            Work::SendParts { message, length, done: 0, more }
        }
        Operation::SendSealed { sealed, .. } => Work::SendSealed { sealed, done: 0 },
        Operation::Read { buffer, offset, .. } => Work::Read { buffer, offset },
    }
}

pub(crate) fn datagram_message(send: SendDatagram) -> Box<Message> {
    let (address, control) = match send.to {
        Destination::Link { interface } => {
            (Some(sys::link_address(interface, 0)), Control::for_send(false, None, None, None))
        }
        Destination::Address(to) => {
            (Some(to.into()), Control::for_send(to.is_ipv6(), send.source, send.interface, send.segment_bytes))
        }
        Destination::Connected => {
            let is_ipv6 = send.source.is_some_and(|source| source.is_ipv6());
            (None, Control::for_send(is_ipv6, send.source, send.interface, send.segment_bytes))
        }
    };
    Message::new(send.parts, address, control)
}

/// Hands a socket what is left of a sealed file, as far as it has room; whether that was all. There is no flag against SIGPIPE,
/// which the standard library has ignored since the process's start.
pub(crate) fn send_sealed(socket: &OwnedFd, sealed: &Sealed, done: &mut usize) -> io::Result<bool> {
    while *done < sealed.len() {
        let mut offset = *done as u64;
        match rustix::fs::sendfile(socket, sealed.file(), Some(&mut offset), sealed.len() - *done) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => *done += taken,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// All of it, however long that takes: the kernel waits for room, and there is one completion.
pub(crate) fn stream_flags(more: More) -> i32 {
    let more = if more == More::Follows { libc::MSG_MORE } else { 0 };
    libc::MSG_NOSIGNAL | libc::MSG_WAITALL | more
}

/// Gives an accepted descriptor its id; gives it back when the table is full.
pub(crate) fn accepted(token: Token, fd: OwnedFd, table: &mut Table) -> Result<Completion, OwnedFd> {
    if table.connections.is_full() {
        return Err(fd);
    }
    let descriptor = Descriptor::from(fd);
    // Both backends accept like that.
    descriptor.nonblocking.set(true);
    let Ok(key) = table.connections.insert(Rc::new(descriptor)) else { unreachable!("there is room: checked above") };
    Ok(Completion { token, event: Event::Accepted(ConnectionId(key)), is_last: false })
}

/// A received datagram out of its buffer: header, name, control, payload.
pub(crate) fn datagram(received: Received, header: &libc::msghdr) -> Option<Datagram> {
    let (peer, interface, destination, length, is_truncated) = {
        let out = RecvMsgOut::parse(&received, header).ok()?;
        let peer: Peer = message::peer(out.name_data());
        let (interface, destination) = match message::link_interface(out.name_data()) {
            Some(interface) => (interface, None),
            None => message::packet_information(out.control_data()),
        };
        (peer, interface, destination, out.payload_data().len(), out.is_payload_truncated())
    };
    let bytes = received.narrowed(DATAGRAM_HEAD_BYTES..DATAGRAM_HEAD_BYTES + length);
    Some(Datagram { bytes, peer, interface, destination, is_truncated })
}

/// How a look at a socket that comes ahead has ended.
pub(crate) enum Looked {
    /// Nothing more is there.
    Drained,
    /// More may be there.
    Paused,
    /// The kernel refuses.
    Failed(io::Error),
}

/// Takes what is there for an operation that comes ahead of the others, at most [`AHEAD_PER_TURN_MAX`] datagrams.
pub(crate) fn receive_ahead(
    slot: &Slot,
    pool: &Rc<Pool>,
    header: &libc::msghdr,
    completions: &mut Vec<Completion>,
) -> Looked {
    for _ in 0..AHEAD_PER_TURN_MAX {
        let Some(index) = pool.lend() else { return Looked::Paused };
        let received = receive_message(slot.handle.fd.as_raw_fd(), pool.start(index), pool.buffer_bytes(), header);
        let length = match received {
            Ok(length) => length,
            Err(error) => {
                pool.provide(index);
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Looked::Drained,
                    io::ErrorKind::Interrupted => Looked::Paused,
                    _ => Looked::Failed(error),
                };
            }
        };
        if let Some(datagram) = datagram(pool.take(index, length), header) {
            completions.push(Completion { token: slot.token, event: Event::Datagram(datagram), is_last: false });
        }
    }
    Looked::Paused
}

/// A length, or what the kernel says.
pub(crate) fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Receives into a buffer laid out as a ring's: lengths, name, control, payload ([`DATAGRAM_HEAD_BYTES`]). Gives the bytes of
/// the buffer that are filled.
pub(crate) fn receive_message(fd: i32, start: *mut u8, room: usize, reserved: &libc::msghdr) -> io::Result<usize> {
    let (name, control) = (reserved.msg_namelen, reserved.msg_controllen);
    let mut header = *reserved;
    // SAFETY: the buffer was lent to us with `room` bytes, more than `DATAGRAM_HEAD_BYTES`, which is the sum of 16 and the two
    // lengths reserved; so name, control and payload lie in it one after the other.
    let mut payload = unsafe {
        header.msg_name = start.add(16).cast();
        header.msg_control = start.add(16 + name as usize).cast();
        libc::iovec { iov_base: start.add(DATAGRAM_HEAD_BYTES).cast(), iov_len: room - DATAGRAM_HEAD_BYTES }
    };
    header.msg_iov = &raw mut payload;
    header.msg_iovlen = 1;
    debug_assert_eq!(16 + name as usize + control, DATAGRAM_HEAD_BYTES);
    // SAFETY: the header points to the buffer and to `payload`, which both live through the call.
    let length = checked(unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT) })?;
    // As `io_uring_recvmsg_out`: lengths of name, control and payload, and flags.
    let lengths = [header.msg_namelen, header.msg_controllen as u32, length as u32, header.msg_flags as u32];
    // SAFETY: the first 16 bytes of the buffer are ours; unaligned writes need no more.
    unsafe { start.cast::<[u32; 4]>().write_unaligned(lengths) };
    Ok(DATAGRAM_HEAD_BYTES + length)
}

/// The sizes reserved for name and control of received datagrams.
pub(crate) fn receive_header() -> Box<libc::msghdr> {
    // SAFETY: `msghdr` is a plain C struct for which all zeros is a valid value.
    let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
    header.msg_namelen = NAME_BYTES as u32;
    header.msg_controllen = CONTROL_BYTES as _;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_send_is_counted() {
        let one = Bytes::from_static(b"payload");
        let send = Work::Send { bytes: one.clone(), done: 3, more: More::Done };
        let parts = Parts::from([one.clone(), one.clone()]);
        let message = Message::new(parts, None, Control::for_send(false, None, None, None));
        let many = Work::SendParts { message, length: 14, done: 9, more: More::Done };
        assert_eq!([send, many, Work::SendConnected(one), Work::Accept].map(|work| work.bytes_left()), [4, 5, 7, 0]);
    }

    #[test]
    fn a_message_skips_what_is_done() {
        let parts = Parts::from([Bytes::from_static(b"head"), Bytes::from_static(b"payload")]);
        let mut message = Message::new(parts, None, Control::for_send(false, None, None, None));
        message.point(4 + 3);
        assert_eq!(message.vectors.iter().map(|vector| vector.iov_len).collect::<Vec<_>>(), [4]);
        message.point(2);
        assert_eq!(message.vectors.iter().map(|vector| vector.iov_len).collect::<Vec<_>>(), [2, 7]);
    }
}
