//! Content-addressed store: chunks, packs, index.
//!
//! Rack and control each have one, in a directory of their own. Chunks are named by the BLAKE3 of their stored bytes
//! (see `bootstorm_snapshot::manifest`); a [`Store`] finds, reads and plans, a [`Writer`] puts.
//!
//! # Never a bad chunk
//! What is served is what a name promises, by three rules:
//! 1. [`Writer::put`] hashes before it takes anything, so only right bytes come in.
//! 2. A chunk enters the index only after its bytes are synced; a torn write has no entry.
//! 3. Disks rot and crashes surprise, so *what was written in an earlier life of the process is not trusted*: until a
//!    chunk has been hashed once in this life, [`Segment::Stored`] says `verified: false` (and [`Store::needs_verify`]
//!    is true). Whoever lets the driver read packs by itself calls [`Store::verify`] on such chunks first, from a
//!    thread that may block. A chunk that fails is *quarantined*: its entry is dropped, so it counts as missing and is
//!    fetched again. [`Store::read_chunk`] verifies each time.
//!
//! The machine that uses the chunk hashes it once more, so rot within one life of a rack costs a repeated fetch there
//! and no wrong byte on a disk; [`Store::distrust`] takes its complaint.
//!
//! # On disk
//! `docs/CONTENT-STORE.md` draws every octet of packs, indexes and manifests, and says in which order they are written.

mod disk;
mod error;
mod flights;
mod index;
pub mod limits;
mod packer;
mod plan;
mod store;
mod sweep;
mod writer;

pub use disk::{Access, Disk, RealDisk};
pub use error::Error;
pub use flights::{Flights, Joined};
pub use index::{Location, PackId};
pub use packer::{Cut, Cutting, Packer, decode_chunk};
pub use plan::{IndexedManifest, Run, Segment, runs};
pub use store::{Stats, Store};
pub use sweep::{Marks, Swept};
pub use writer::{Put, Writer};
