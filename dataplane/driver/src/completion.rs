//! Completions: plain values that say what happened.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::buffer::{Buffer, Received};
use crate::operation::{ConnectionId, Token};

/// Something happened to the operation with this token.
#[derive(Debug)]
pub struct Completion {
    /// The caller's number for the operation; [`WAKER_TOKEN`] for [`Event::Woken`].
    pub token: Token,
    /// What happened.
    pub event: Event,
    /// True on exactly one completion of each operation, the last: the driver and the kernel hold nothing of it any more.
    pub is_last: bool,
}

/// The token of [`Event::Woken`].
pub const WAKER_TOKEN: Token = u64::MAX;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A [`Waker`](crate::Waker) was used since the last such event, once or more.
    Woken,
    /// A datagram, raw packet or frame has come.
    Datagram(Datagram),
    /// A connection was accepted; its addresses are asked for with [`Driver::peer_address`](crate::Driver::peer_address).
    Accepted(ConnectionId),
    /// The connection stands.
    Connected(ConnectionId),
    /// Bytes of a stream, at least one.
    Bytes(Received),
    /// So many bytes of a stream were thrown away, at least one.
    Discarded(usize),
    /// The peer will send no more. Last.
    EndOfStream,
    /// The kernel has taken so many bytes: for streams all of them.
    Sent(usize),
    /// The buffer, its length set to the bytes read: less than its capacity only at the end of the file, 0 beyond it.
    Read(Buffer),
    /// The operation was cancelled, or its socket closed, before it was done. Last.
    Cancelled,
    /// The operation failed. Last. Its buffers have been dropped.
    Failed(io::Error),
}

/// A received datagram, raw packet or frame.
#[derive(Debug)]
pub struct Datagram {
    /// The payload; for packet sockets the whole frame; for raw IPv4 sockets with the IP header, for raw IPv6 without.
    pub bytes: Received,
    /// Who sent it.
    pub peer: Peer,
    /// Index of the interface it came in by; 0 if the kernel did not say (packet information was not turned on).
    pub interface: u32,
    /// The address it was sent to, as in its IP header; `None` for frames, or if packet information was not turned on.
    pub destination: Option<IpAddr>,
    /// The payload was longer than the driver's buffers and its end is lost. Such a datagram must not be acted upon.
    pub is_truncated: bool,
}

/// Who sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and port (port 0 or the protocol number for raw sockets).
    Address(SocketAddr),
    /// A link-level sender: the frame's source as the kernel saw it.
    Link {
        /// Source MAC address; zeros on interfaces without.
        mac: [u8; 6],
        /// EtherType, host order.
        protocol: u16,
    },
    /// The kernel named none (connected sockets of some families).
    Unknown,
}
