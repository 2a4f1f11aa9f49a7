//! Servers that know one answer: what the generators are measured against.
//!
//! These are calibration tools, no servers: they look at as little as they can, keep no leases and no zones, and are here so
//! that a generator's own speed can be told from that of whoever answers it.

pub mod dhcp;
pub mod dns;
pub mod http;
pub mod tftp;
