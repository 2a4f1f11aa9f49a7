//! The rack role: shards, wiring, limits, metrics.
//!
//! [`run`] is the rack of a site, [`serve`] the same HTTP and TFTP over the files of a directory. All decisions are those of
//! `bootstorm-engine`; all system calls on sockets and packs go through `bootstorm-driver`. What is here moves octets and
//! messages between them:
//!
//! | thread | does |
//! |---|---|
//! | `shard-N` | a driver, HTTP connections, TFTP transfers and DNS answers; shard 0 also DHCP, router solicitations and the engine |
//! | `journal` | writes and syncs what the engine promises |
//! | `content-read` | reads manifests, reads chunks into memory and hashes them there |
//! | `content-fill` | wishes for what is missing, verifies and writes it |
//! | `snapshot` | checks, persists and indexes generations |
//! | `gateway-in`, `gateway-out` | the gateway's stream |
//!
//! Queues between them are bounded ([`limits`]); a shard never waits for another thread, and no thread that a shard feeds
//! waits for anything but its mail. With control away everything goes on from what is on disk.
//!
//! ```text
//! DATA/snapshot   base and delta log of the last generation
//! DATA/journal    leases, claims, attempts, observations (bootstorm-journal)
//! DATA/content    packs and manifests (bootstorm-content)
//! ```
//! Deliberately absent: a runtime, templates, sweeping of the content store while it is being filled.

mod answers;
mod brain;
mod budget;
mod cache;
mod clock;
mod commits;
mod confine;
mod core;
mod dns;
mod error;
mod export;
mod fill;
mod gateway;
mod http;
pub mod limits;
mod mail;
mod metrics;
mod outbox;
mod rack;
mod reader;
mod room;
mod scrub;
mod serve;
mod shard;
mod slab;
mod snapshots;
mod stop;
mod tftp;

pub use bootstorm_api::role::Driver;
pub use bootstorm_snapshot::Encoding;
pub use confine::{Confined, confine, confine_serve};
pub use error::Error;
pub use export::export;
pub use rack::run;
pub use serve::{ServeOptions, Source, serve};
pub use snapshots::write_base;
pub use stop::Stop;
