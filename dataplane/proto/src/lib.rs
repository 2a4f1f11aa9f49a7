//! Codecs and protocol machines for DHCPv4, DHCPv6 clients, DNS questions, TFTP, HTTP/1.1 and IPv6 router discovery; no I/O.
//!
//! Contract of the whole crate:
//! - Everything is a function of its inputs. Clocks, sockets, files and randomness are arguments (`clippy.toml` holds this).
//! - Parsers take received bytes and return typed values or a reason out of a closed enum; the reason has a stable `name()`
//!   for a counter. No parser panics, indexes, or narrows a received number; [`limits`] bounds every size and count.
//! - Machines have inputs `handle_datagram` and `handle_timeout`, outputs `poll_output` and `next_timeout`. Every input is
//!   followed by draining the outputs until `None`, and `now` never goes back.
//! - Each protocol has a server half (used by the engine) and a client half (used by the load generator and the simulator).

pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub mod eth;

pub mod http;
pub mod limits;
pub mod ndp;

pub mod tftp;

mod bytes;

/// Monotonic time as the caller counts it: the time since an origin of its choice, the same for all calls of one process.
///
/// A `Duration` and not `std::time::Instant`, because a simulation must be able to make one.
pub type Monotonic = core::time::Duration;
