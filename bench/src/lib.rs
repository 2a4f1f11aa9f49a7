//! Speed as ratios beside named peers: the same work, on the same machine, in the same run, interleaved.
//!
//! A *case* is one kind of work; it is done by ours and by the peers in turns, at least five rounds. Each round gives one
//! ratio per *measure*, ours ÷ peer; the case's ratio is their median, its spread their least and greatest. Where there
//! is no peer our own figure stands in the ratio's place. What the figures cost is told by control groups, so that
//! short-lived threads and kernel work on a process's account count.

pub mod case;
pub mod cgroup;
pub mod client;
pub mod dhcp;
pub mod dns;
pub mod http;
pub mod image;
pub mod limits;
pub mod memory;
pub mod origin;
pub mod page_cache;
pub mod pairs;
pub mod peers;
pub mod record;
pub mod server;
pub mod specification;
pub mod store;
pub mod storm;
pub mod suite;
pub mod tftp;
pub mod up;
pub mod veth;
