//! The domain: machines, networks, IPAM, lifecycle; no I/O, no async, no SQL.

pub mod lifecycle;
