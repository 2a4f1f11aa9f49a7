//! Bounds of the gateway, with unit and reason (`threat-model.md`, TLS and agent rows).

use std::time::Duration;

pub use bootstorm_api::limits::{
    AGENT_CERTIFICATE_SECONDS, AGENT_MESSAGE_BYTES_MAX, LOCAL_REQUESTS_IN_FLIGHT_MAX, PLAN_WAIT_SECONDS_MAX,
};

/// Agents' connections at a time: ten thousand machines with one to spare each.
pub const CONNECTIONS_MAX: usize = 20_000;
/// A TLS handshake must be over after this.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes in a second from all peers.
pub const HANDSHAKES_PER_SECOND: u32 = 1_000;
/// Handshakes in a second from one address: agents hold one connection, so this is only met by faults and attacks.
pub const HANDSHAKES_PER_SECOND_PER_SOURCE: u32 = 10;
/// A request's head must be complete after this; also how long an idle connection stays.
pub const REQUEST_HEAD: Duration = Duration::from_secs(60);
/// The rack must answer a request within this, beyond what the request itself may wait.
pub const RACK_ANSWER: Duration = Duration::from_secs(15);
/// Frames queued towards the rack.
pub const RACK_QUEUE_FRAMES: usize = LOCAL_REQUESTS_IN_FLIGHT_MAX;
/// Frames queued towards control; when they are full the link is closed and resynchronised.
pub const CONTROL_QUEUE_FRAMES: usize = 256;
/// First and longest wait before control is tried again.
pub const CONTROL_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Secrets of an operation are forgotten after this, whatever control says.
pub const SECRETS_HELD: Duration = Duration::from_secs(24 * 60 * 60);
/// Operations whose secrets are held at a time: 64 KiB each at most.
pub const SECRETS_MAX: usize = 20_000;
/// The rack's certificate is renewed when less than this is left of it.
pub const CERTIFICATE_RENEW_BEFORE: Duration = Duration::from_secs(10 * 24 * 60 * 60);
/// Clocks of machines may be behind by this when they check a fresh certificate.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Octets of a chunk from an origin.
pub const CHUNK_BYTES_MAX: usize = bootstorm_snapshot::limits::CHUNK_STORED_BYTES_MAX as usize;
/// Octets of a manifest from an origin: magic, length, header, and 40 for each chunk.
pub const MANIFEST_BYTES_MAX: usize = 12 + 4096 + 40 * bootstorm_snapshot::limits::MANIFEST_CHUNKS_MAX;
/// Octets of an origin's list of files: 65,536 of them at 512 octets each.
pub const FILES_BYTES_MAX: usize = 32 << 20;
/// An origin from which nothing comes for so long has stalled. A machine's request waits 20 s, so there is time for others.
pub const ORIGIN_STALL: Duration = Duration::from_secs(3);
/// How long one origin may take for a chunk in all: 36 KB/s, below which another may as well be tried.
pub const CHUNK_TIME_MAX: Duration = Duration::from_secs(8);
/// The same for a manifest, which may have 160 MiB, and for a list of files. Below the rack's own patience of 60 s.
pub const MANIFEST_TIME_MAX: Duration = Duration::from_secs(50);
/// Times that one transfer is resumed.
pub const ORIGIN_RESUMES_MAX: u32 = 8;
/// First and longest rest of an origin that fails.
pub const ORIGIN_REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Characters of an origin's failure in the log.
pub const ORIGIN_TEXT_MAX: usize = 200;
/// Octets of a manifest that go to the rack in one frame.
pub const FETCHED_PART_BYTES: usize = bootstorm_api::limits::FRAME_BLOB_BYTES_MAX;

const _: () = assert!(ORIGIN_STALL.as_secs() < CHUNK_TIME_MAX.as_secs());
const _: () = assert!(PLAN_WAIT_SECONDS_MAX < REQUEST_HEAD.as_secs());
