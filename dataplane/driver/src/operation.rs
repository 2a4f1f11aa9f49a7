//! Operations: plain values that say what the kernel is to do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use bytes::Bytes;

use crate::buffer::Buffer;
use crate::limits::{DATAGRAM_BYTES_MAX, PARTS_MAX, READ_BYTES_MAX, SEGMENTS_MAX};
use crate::sealed::Sealed;
use crate::slab::Key;

/// A caller's own number for an operation; comes back with each of its completions. The driver gives it no meaning.
pub type Token = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) Key);

        impl $name {
            /// As one integer, for tables and logs: unique in its driver while the object is open, and not reused soon.
            pub fn to_bits(self) -> u64 {
                self.0.to_bits()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.to_bits())
            }
        }
    };
}

id!(
    /// A datagram, raw or packet socket registered with [`Driver::add_socket`](crate::Driver::add_socket).
    SocketId
);
id!(
    /// A TCP listener registered with [`Driver::add_listener`](crate::Driver::add_listener).
    ListenerId
);
id!(
    /// A TCP connection: accepted, connected, or registered with [`Driver::add_connection`](crate::Driver::add_connection).
    ConnectionId
);
id!(
    /// A file registered with [`Driver::add_file`](crate::Driver::add_file).
    FileId
);
id!(
    /// An operation in flight, for [`Driver::cancel`](crate::Driver::cancel).
    OperationId
);

/// What the kernel is to do. Each submitted operation ends with exactly one completion whose
/// [`Completion::is_last`](crate::Completion::is_last) is true for it; continuous ones deliver any number before that.
#[derive(Debug)]
pub enum Operation {
    /// Receive datagrams, frames or raw packets until cancelled: an [`Event::Datagram`](crate::Event::Datagram) each. When the driver's
    /// buffers run out it rests and goes on by itself as soon as the caller has dropped some; the kernel's socket
    /// buffer takes what comes meanwhile.
    ReceiveDatagrams {
        /// From where.
        socket: SocketId,
    },
    /// As [`Operation::ReceiveDatagrams`], ahead of everything else: the socket is looked at in every turn, and what is there
    /// comes before all other completions. For the few sockets that must not wait behind thousands of busy ones.
    ReceiveAhead {
        /// From where.
        socket: SocketId,
    },
    /// As [`Operation::ReceiveDatagrams`], for a UDP socket with a peer: its datagrams come without sender, interface and
    /// destination, which costs less. One that fills the driver's buffer is marked as truncated.
    ReceiveConnected {
        /// From where.
        socket: SocketId,
    },
    /// Send one datagram (or a burst of equal segments to one peer), frame or raw packet. Ends with [`Event::Sent`](crate::Event::Sent).
    SendDatagram(SendDatagram),
    /// Accept connections until cancelled: an [`Event::Accepted`](crate::Event::Accepted) each. Connections are non-blocking and close on exec. At
    /// `connections_max` further ones stay in the listener's backlog until one is closed.
    Accept {
        /// From where.
        listener: ListenerId,
    },
    /// Open a TCP connection. Ends with [`Event::Connected`](crate::Event::Connected).
    Connect {
        /// The peer.
        to: SocketAddr,
        /// The local address (port 0 lets the kernel choose at connect time), of the same family.
        from: Option<SocketAddr>,
    },
    /// Receive bytes of a stream, each time as many as are there, at most a stream buffer: [`Event::Bytes`](crate::Event::Bytes).
    /// The peer's end of stream is [`Event::EndOfStream`](crate::Event::EndOfStream).
    Receive {
        /// From where.
        connection: ConnectionId,
        /// Once, or until cancelled or the end of the stream.
        repeat: Repeat,
    },
    /// Receive bytes of a stream and throw them away inside the kernel, uncopied: for load generators. Ends with
    /// [`Event::Discarded`](crate::Event::Discarded) or [`Event::EndOfStream`](crate::Event::EndOfStream).
    Discard {
        /// From where.
        connection: ConnectionId,
        /// At most this many bytes (not zero); fewer when fewer are there.
        length_max: u32,
    },
    /// Send all of `parts`, in order. Ends with [`Event::Sent`](crate::Event::Sent) when the kernel holds all of them. At most one send per
    /// connection at a time, or their bytes may interleave.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What; at least one byte.
        parts: Parts,
        /// Whether more follows at once, so that a short segment may wait for it.
        more: More,
    },
    /// Send all of a sealed memory file, by reference to its pages and not by a copy. Ends with [`Event::Sent`](crate::Event::Sent)
    /// when the kernel has taken all of them. As for [`Operation::Send`], one at a time.
    SendSealed {
        /// Where to.
        connection: ConnectionId,
        /// What.
        sealed: Sealed,
    },
    /// Read from a file at an offset into the caller's buffer, up to its capacity. Ends with [`Event::Read`](crate::Event::Read).
    Read {
        /// From which file.
        file: FileId,
        /// Byte offset in the file.
        offset: u64,
        /// Where to; comes back in the completion. At most [`READ_BYTES_MAX`].
        buffer: Buffer,
    },
}

impl Operation {
    /// Whether it keeps to the limits of its documentation.
    pub(crate) fn is_in_range(&self) -> bool {
        match self {
            Operation::ReceiveDatagrams { .. }
            | Operation::ReceiveAhead { .. }
            | Operation::ReceiveConnected { .. }
            | Operation::Accept { .. }
            | Operation::Receive { .. }
            | Operation::SendSealed { .. } => true,
            Operation::SendDatagram(send) => send.is_in_range(),
            Operation::Connect { to, from } => from.is_none_or(|from| from.is_ipv4() == to.is_ipv4()),
            Operation::Discard { length_max, .. } => *length_max > 0,
            Operation::Send { parts, .. } => !parts.is_empty() && parts.as_slice().len() <= PARTS_MAX,
            Operation::Read { buffer, .. } => (1..=READ_BYTES_MAX).contains(&buffer.capacity()),
        }
    }
}

/// One datagram to send.
#[derive(Debug)]
pub struct SendDatagram {
    /// From which socket.
    pub socket: SocketId,
    /// Where to.
    pub to: Destination,
    /// Source address to send from (`IP_PKTINFO`, `IPV6_PKTINFO`), for sockets bound to the wildcard address; of the
    /// family of `to`. Ignored for frames.
    pub source: Option<IpAddr>,
    /// Interface index to send out of (`IP_PKTINFO`, `IPV6_PKTINFO`), for broadcast and link-local peers. Ignored for frames.
    pub interface: Option<u32>,
    /// What; joined into one payload. At most [`DATAGRAM_BYTES_MAX`] bytes.
    pub parts: Parts,
    /// Cut the payload into datagrams of this many bytes (`UDP_SEGMENT`); only the last may be shorter. At most
    /// [`SEGMENTS_MAX`] segments.
    pub segment_bytes: Option<NonZeroU16>,
}

impl SendDatagram {
    fn is_in_range(&self) -> bool {
        let length = self.parts.len();
        let family_fits = match (self.to, self.source) {
            (Destination::Address(to), Some(source)) => to.is_ipv4() == source.is_ipv4(),
            _ => true,
        };
        let segments_fit =
            self.segment_bytes.is_none_or(|segment| length.div_ceil(usize::from(segment.get())) <= SEGMENTS_MAX);
        family_fits && segments_fit && length <= DATAGRAM_BYTES_MAX && self.parts.as_slice().len() <= PARTS_MAX
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The socket is connected: its peer.
    Connected,
    /// An address and port; port 0 for raw sockets.
    Address(SocketAddr),
    /// For packet sockets: out of the interface of this index; the parts are the whole frame, link header included.
    Link {
        /// Interface index.
        interface: u32,
    },
}

/// Once or again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// One completion.
    Once,
    /// Until cancelled or ended.
    Continuous,
}

/// Whether more is to be sent at once after this (`MSG_MORE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More follows: a short segment may wait.
    Follows,
    /// This is all for now.
    Done,
}

/// The pieces of one send, owned by the driver until its completion. Cheap to make from shared memory.
#[derive(Debug, Clone)]
pub struct Parts(Inner);

#[derive(Debug, Clone)]
enum Inner {
    One([Bytes; 1]),
    Two([Bytes; 2]),
    Many(Vec<Bytes>),
}

impl Parts {
    /// The pieces in order.
    pub fn as_slice(&self) -> &[Bytes] {
        match &self.0 {
            Inner::One(one) => one,
            Inner::Two(two) => two,
            Inner::Many(many) => many,
        }
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.as_slice().iter().map(Bytes::len).sum()
    }

    /// The first piece, for callers that know it is the only one.
    pub(crate) fn into_single(self) -> Bytes {
        match self.0 {
            Inner::One([one]) | Inner::Two([one, _]) => one,
            Inner::Many(many) => many.into_iter().next().unwrap_or_default(),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.as_slice().iter().all(Bytes::is_empty)
    }
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Parts {
        Parts(Inner::One([bytes]))
    }
}

impl From<Vec<u8>> for Parts {
    fn from(bytes: Vec<u8>) -> Parts {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Parts {
    fn from(bytes: &'static [u8]) -> Parts {
        Bytes::from_static(bytes).into()
    }
}

impl From<[Bytes; 2]> for Parts {
    fn from(two: [Bytes; 2]) -> Parts {
        Parts(Inner::Two(two))
    }
}

impl From<Vec<Bytes>> for Parts {
    fn from(many: Vec<Bytes>) -> Parts {
        Parts(Inner::Many(many))
    }
}

/// An operation that was not taken; it comes back whole, with its buffers.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// The operation as it was given.
    pub operation: Operation,
}

/// Why an operation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// As many operations are in flight as configured: try again after some completions. The only retryable one.
    #[error("the driver's queue is full")]
    QueueFull,
    /// The id's object has been closed.
    #[error("the socket, connection or file is closed")]
    Closed,
    /// The operation is outside the limits of its documentation (empty, too long, too many parts, address families that differ).
    #[error("the operation is outside its limits")]
    OutOfRange,
    /// The process has no descriptor or memory left for a new socket ([`Operation::Connect`]), or its local address is not ours.
    #[error("no socket could be made: {0}")]
    NoSocket(std::io::ErrorKind),
}
