//! Every number of the benches.

use std::time::Duration;

/// Turns of each side in a case: pairs of ours and a peer.
pub const ROUNDS: usize = 5;
/// The same under `QUICK=1`: enough for a median.
pub const ROUNDS_QUICK: usize = 3;
/// How long one side of a pair is loaded.
pub const LOAD: Duration = Duration::from_secs(3);
/// The same under `QUICK=1`.
pub const LOAD_QUICK: Duration = Duration::from_secs(1);
/// What starting and stopping a client adds to a load; for the expected time only.
pub const BETWEEN_LOADS: Duration = Duration::from_millis(300);
/// What one round of a TFTP case takes; for the expected time only: the slowest peer sends 200 MiB in lock-step.
pub const TFTP_CASE: Duration = Duration::from_secs(6);
/// How long a server may take until it accepts connections; ours imports the whole directory first.
pub const SERVER_START: Duration = Duration::from_secs(120);
/// Octets of the large file: more than the processor's caches hold, so that its source is memory.
pub const BULK_BYTES: u64 = 1 << 30;
/// The same under `QUICK=1`; still more than the caches.
pub const BULK_BYTES_QUICK: u64 = 256 << 20;
/// Octets that one read of a bulk client asks for.
pub const READ_BYTES: usize = 1 << 20;
/// Octets of a response's head.
pub const HEAD_BYTES: usize = 16 << 10;
/// Connections of a client process at most.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Octets of a TFTP block: what fits an Ethernet frame with IPv4 and UDP (1500 - 20 - 8 - 4).
pub const TFTP_BLOCK_BYTES: u16 = 1468;
/// How long a TFTP server may take to answer a probe.
pub const PROBE: Duration = Duration::from_millis(300);
/// How long a control group may take until it is empty, when its processes have been ended.
pub const GROUP_EMPTY: Duration = Duration::from_secs(5);
