//! Durable log of a rack: records, group commit, recovery.
//!
//! The journal is the only authority for a rack's leases, claims, attempts and observation spool. Payloads are opaque
//! octets: whoever writes them gives them their meaning. One thread owns a [`Journal`] and writes through a blocking
//! [`Disk`]; [`JournalThread`] is that thread with a bounded queue in front of it.
//!
//! # Contract
//! - A *batch* is what one [`Journal::append`] took. After a crash a batch is there whole or not at all, and batches
//!   are there in the order in which they were appended, without a gap.
//! - What [`Journal::commit`] has returned is durable. Nothing may be acknowledged to anybody before that.
//! - After a failed write or sync nothing more is accepted ([`Error::Stopped`]): the state of the file is unknown, and
//!   only opening it again, from what the disk really holds, makes it known (threat model T22).
//! - Sequences are given to records one by one, without a gap, for the life of the directory; compaction uses none.
//!
//! # On disk
//! One directory with one live segment, `journal-EPOCH.log` (epoch as 16 hexadecimal digits). Integers are
//! little-endian.
//!
//! ```text
//! segment header, 96 octets
//!   0  magic "BSTJRNL1"        8  epoch            16  base sequence      24  octets of the snapshot (records with it)
//!  32  key (32)               64  BLAKE3 of octets 0..64
//! record, 48 octets and payload
//!   0  length of the payload (4)   4  flags (4): 1 last of its batch, 2 part of the snapshot
//!   8  epoch                      16  sequence         24  sequence known durable when this was written
//!  32  first 16 octets of BLAKE3, keyed, over octets 0..32 and the payload
//! ```
//!
//! The records of the snapshot (what [`Journal::begin_compaction`] was given) follow the header and all carry the base
//! sequence; the records after them count up from there. The key is random for each directory, so octets that happen
//! to look like a record of another journal (an old block of the disk, a payload with a copy in it) are no record. It
//! guards against accidents; it is not a secret.
//!
//! A record that does not check is the torn tail of the last write if nothing after it shows otherwise, and is cut
//! off. If a later record says that the bad place was already durable, then the medium lost something that was
//! promised: opening is refused with [`Error::Damaged`] unless the operator chose [`OnDamage::KeepWholePrefix`].

mod compaction;
mod disk;
mod error;
mod journal;
pub mod limits;
mod record;
pub mod sim;
mod thread;

pub use compaction::Live;
pub use disk::{Disk, RealDisk};
pub use error::Error;
pub use journal::{Committed, Journal, OnDamage, Recovered};
pub use thread::{JournalThread, Report, SubmitError};
