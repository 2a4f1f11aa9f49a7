//! Every bound of the control and bmc roles, with unit and reason. Those of messages are in `bootstorm_api::limits`.

use std::time::Duration;

/// Bytes of a boot environment's tar: kernels, initial RAM disks and loaders of one architecture.
pub const ENVIRONMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a refused body that are read and dropped, so that its sender hears why instead of a broken connection.
pub const DRAINED_BYTES_MAX: u64 = 64 << 20;
/// Seconds a client may take for a request's head.
pub const HEADER_SECONDS_MAX: u64 = 10;
/// Seconds an event request may wait.
pub const EVENT_WAIT_SECONDS_MAX: u64 = 30;
/// Seconds that requests under way are given when the role stops.
pub const STOP_SECONDS_MAX: u64 = 3;
/// Rows of a page that does not say.
pub const PAGE_ROWS_DEFAULT: u32 = 100;
/// Answers remembered for `Idempotency-Key`, and bytes of one; the oldest go first.
pub const REMEMBERED_ANSWERS_MAX: usize = 4096;
/// Bytes of a remembered answer: an operation or a machine.
pub const REMEMBERED_BYTES_MAX: usize = 256 << 10;
/// Seconds an answer is remembered.
pub const REMEMBERED_SECONDS: u64 = 24 * 60 * 60;
/// Characters of an `Idempotency-Key`.
pub const KEY_CHARACTERS_MAX: usize = 128;
/// Characters of a remark.
pub const COMMENT_CHARACTERS_MAX: usize = 1024;
/// Documents of one `apply`.
pub const DOCUMENTS_MAX: usize = 2000;
/// SSH keys of one deployment.
pub const SSH_KEYS_MAX: usize = 64;
/// Bytes of one SSH key: an RSA key of 16384 bits with its comment.
pub const SSH_KEY_BYTES_MAX: usize = 4096;
/// Seconds from *written* until *ready*, if the request does not say.
pub const READY_SECONDS_DEFAULT: u32 = 30 * 60;
/// Most seconds from *written* until *ready*.
pub const READY_SECONDS_MAX: u32 = 24 * 60 * 60;
/// Commits that are tried again because a machine changed in between.
pub const CONFLICT_TRIES_MAX: u32 = 16;

/// Effects performed at the same time: each waits for a rack or a BMC.
pub const EFFECTS_IN_FLIGHT_MAX: usize = 256;
/// Seconds for which an effect is claimed: longer than its longest wait, a power command.
pub const EFFECT_LEASE_SECONDS: u32 = 300;
/// Seconds that one performance of an effect waits for racks; it is then claimed anew unless superseded.
pub const RACK_WAIT_SECONDS: u64 = 60;
/// Seconds of one power command, off, wait and on included.
pub const POWER_SECONDS_MAX: u32 = 180;
/// Times a power command of an operation is tried before the operation fails.
pub const POWER_TRIES_MAX: u32 = 5;
/// How long a machine that is on may take to show that its waiting agent has the new plan; agents are told at once.
pub const TAKE_OVER_WAIT: Duration = Duration::from_secs(3);
/// Pause before an effect is tried again: first, and longest.
pub const EFFECT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Seconds after a start in which nothing is declared overdue: racks deliver what they spooled while control was away.
pub const START_GRACE_SECONDS: u64 = 60;

/// Racks connected at a time.
pub const RACKS_MAX: usize = 1024;
/// Frames queued for one rack beside the snapshot; its own requests wait when it is full.
pub const RACK_QUEUE_FRAMES: usize = 64;
/// Batches of observations of one rack waiting to be applied.
pub const OBSERVATION_QUEUE_BATCHES: usize = 4;
/// Observations that are written together: in a storm of leases what a commit costs is shared, and of the observations that make
/// the most changes (five) so many still fit one commit.
pub const OBSERVATIONS_COMMIT_MAX: usize = 768;
/// Seconds for a rack's first message.
pub const HELLO_SECONDS_MAX: u64 = 30;
/// Seconds one frame may take to be written before the rack counts as gone.
pub const RACK_WRITE_SECONDS_MAX: u64 = 60;
/// Earlier views kept to make deltas from; a rack further behind gets a base.
pub const VIEWS_KEPT: usize = 8;
/// Days a rack's certificate is valid.
pub const RACK_CERTIFICATE_DAYS: u64 = 30;
/// Days the site's CA is valid.
pub const SITE_CERTIFICATE_DAYS: u64 = 3650;
/// Days the API's certificate is valid; a new one is made at each start.
pub const API_CERTIFICATE_DAYS: u64 = 365;

/// Power commands waiting for the bmc role.
pub const BMC_QUEUE_COMMANDS: usize = 256;
/// Power commands the bmc role performs at the same time.
pub const BMC_IN_FLIGHT_MAX: usize = 128;
/// Bytes of sealed power parameters.
pub const SEALED_BYTES_MAX: usize = 256 << 10;

/// Seconds of a lease for a known machine, and for an unknown or booting one.
pub const LEASE_SECONDS: (u32, u32) = (3600, 600);

/// Seconds that names and addresses of machines may be kept: one that is released may be another's soon.
pub const DNS_TTL_SECONDS: u32 = 300;
/// Seconds that it may be kept that a name is not there: a machine that is enlisted is looked for at once.
pub const DNS_NEGATIVE_SECONDS: u32 = 30;
/// Seconds between two looks of a secondary that nobody tells.
pub const DNS_REFRESH_SECONDS: u32 = 3_600;
/// Seconds until a secondary tries again.
pub const DNS_RETRY_SECONDS: u32 = 600;
/// Seconds that a secondary goes on without us: two weeks (RFC 1912 §2.2).
pub const DNS_EXPIRE_SECONDS: u32 = 1_209_600;

const _: () = assert!(POWER_SECONDS_MAX < EFFECT_LEASE_SECONDS);
const _: () = assert!(RACK_WAIT_SECONDS < EFFECT_LEASE_SECONDS as u64);
const _: () = assert!(SEALED_BYTES_MAX <= bootstorm_api::limits::FRAME_BLOB_BYTES_MAX);
const _: () = assert!(READY_SECONDS_DEFAULT <= READY_SECONDS_MAX);
const _: () = assert!(OBSERVATIONS_COMMIT_MAX * 5 <= bootstorm_store::limits::CHANGES_MAX);
