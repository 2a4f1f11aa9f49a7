//! Bounds of every message here, with unit and reason.

use bootstorm_snapshot::limits as snapshot;

/// Bytes of one frame's JSON header: a batch of observations.
pub const FRAME_HEADER_BYTES_MAX: usize = snapshot::FRAME_BYTES_MAX;
/// Bytes of one frame's attachment: a chunk, or a piece of a manifest or snapshot.
pub const FRAME_BLOB_BYTES_MAX: usize = snapshot::FRAME_BYTES_MAX;
/// Bytes of one message of an agent (`threat-model.md`, agent → rack).
pub const AGENT_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Reports one agent may send in a second (`threat-model.md`, agent → rack).
pub const AGENT_REPORTS_PER_SECOND: u32 = 20;
/// Bytes of user-data of one operation.
pub const USER_DATA_BYTES_MAX: usize = 64 << 10;
/// Bytes of one REST body other than an upload.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Rows of one page of a list.
pub const PAGE_ROWS_MAX: u32 = 1000;
/// Observations in one batch on a link.
pub const OBSERVATIONS_BATCH_MAX: usize = 256;
/// Chunks a rack may wish for at a time.
pub const WISHES_IN_FLIGHT_MAX: usize = 64;
/// Requests of a gateway in flight at its rack.
pub const LOCAL_REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// Seconds an agent's claim lives (`threat-model.md` T3).
pub const CLAIM_SECONDS_MAX: u64 = 30 * 60;
/// Seconds of silence after which an agent is taken for gone (`threat-model.md` T3).
pub const AGENT_SILENCE_SECONDS: u64 = 30;
/// Attempts of one operation (`threat-model.md` T3).
pub const ATTEMPTS_PER_OPERATION_MAX: u32 = 3;
/// Seconds an agent's certificate is valid.
pub const AGENT_CERTIFICATE_SECONDS: u64 = 24 * 60 * 60;
/// Seconds between an agent's heartbeats; well below [`AGENT_SILENCE_SECONDS`].
pub const AGENT_HEARTBEAT_SECONDS: u64 = 5;
/// Seconds for which a plan request may be held open.
pub const PLAN_WAIT_SECONDS_MAX: u64 = 20;
/// Answers over DNS in a second to one address on our subnets, of each kind: a host that looks everything up for itself.
pub const DNS_CLIENT_ANSWERS_DEFAULT: u32 = 2_000;
/// The same to all addresses of a /24 that is none of ours: what NSD allows (threat model T8).
pub const DNS_STRANGER_ANSWERS_DEFAULT: u32 = 200;

const _: () = assert!(AGENT_HEARTBEAT_SECONDS * 3 < AGENT_SILENCE_SECONDS);
const _: () = assert!(PLAN_WAIT_SECONDS_MAX < AGENT_SILENCE_SECONDS);
const _: () = assert!(snapshot::CHUNK_STORED_BYTES_MAX as usize <= FRAME_BLOB_BYTES_MAX);
