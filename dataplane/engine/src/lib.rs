//! The decisions of a rack: who gets which address, what a machine boots, who speaks for it, what control is told.
//!
//! Sans-I/O. One [`Engine`] on one shard takes inputs (`handle_…`), each with the time and, where something is minted,
//! randomness; every input is followed by draining [`Engine::poll_output`] until `None`; [`Engine::next_timeout`] says when
//! [`Engine::handle_timeout`] is due. Time never goes back. What other shards need is read-only: the [`Index`] of a
//! generation, and [`http::route`], [`http::tftp`] and [`dns::Responder`] over it.
//!
//! # Promises
//! Leases, claims, agents' keys, attempts, *local boot* and the spool of observations live in the journal. An input that
//! changes them gives [`Output::Commit`]; what depends on it (an Ack, a script with a claim, an answer to an agent) comes
//! out of `poll_output` only after [`Engine::handle_committed`] for its last record, in order. After a restart,
//! [`Engine::recover`] is given the journal's records and knows all of it again, except the claims' own octets: a claim not
//! yet redeemed is replaced by a new one when its machine asks again.
//!
//! What would write more than the journal has room for waits, known machines before others: [`Engine::handle_waiting`].
//!
//! # Rules of a machine's way (`design.md` §5, threat model T3)
//! - The first GET of a script mints a claim; until it is redeemed the same one is given again.
//! - While an agent of the machine speaks, its script carries no claim; after 30 s of silence a claim stands for the
//!   next attempt, of which an operation has at most three.
//! - *Local boot* wins until the snapshot's answer names another operation or none. A finished or failed operation is
//!   not begun again: its machine waits until the snapshot changes.
//! - Addresses, MACs and names carry no authority over anything secret; they only lead to the trace of a boot.

pub mod admission;
mod agent;
mod attempts;
mod boot;
mod counters;
mod cpio;
mod dhcp;
pub mod dns;
mod engine;
pub mod http;
mod index;
mod leases;
pub mod limits;
mod ndp;
mod record;
pub mod script;
mod spool;
mod time;
mod waiting;

pub use agent::{Answer, Refusal, Report, Request};
pub use boot::ScriptRequest;
pub use counters::Counter;
pub use engine::{Config, Engine, Interface, Output, Stats};
pub use index::{Index, Named};
pub use leases::Lease;
pub use ndp::AdvertiseTo;
pub use record::RecordError;
pub use time::{Entropy, Time};
