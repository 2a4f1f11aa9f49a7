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
/// Octets of the image at most; a tar of this machine's files may be shorter.
pub const IMAGE_BYTES: u64 = 1 << 30;
/// The same under `QUICK=1`.
pub const IMAGE_BYTES_QUICK: u64 = 256 << 20;
/// From so many connections on, what each of them gets is looked at over [`FAIRNESS_LOAD`].
pub const FAIRNESS_CONNECTIONS: usize = 1000;
/// How long fairness is looked at: long enough that each of a thousand connections has many turns.
pub const FAIRNESS_LOAD: Duration = Duration::from_secs(4);
/// Octets of the file whose streams' memory is looked at: more than one of a thousand gets while it is.
pub const STREAM_BYTES: u64 = 256 << 20;
/// How often memory is looked at while connections are busy.
pub const MEMORY_INTERVAL: Duration = Duration::from_millis(200);
/// Idle connections: as many as one worker of ours takes (8,192), less room for others.
pub const IDLE_CONNECTIONS: usize = 8_000;
/// What opening them takes; for the expected time only.
pub const IDLE_LOAD: Duration = Duration::from_secs(3);
/// Connections from one address of loopback: fewer than `bootstorm serve` takes from one source (4,096).
pub const CONNECTIONS_PER_SOURCE: usize = 2_000;
/// How long an answer to a small request may take.
pub const ANSWER: Duration = Duration::from_secs(10);
/// Readers who all begin at once.
pub const COLD_READERS: usize = 1000;
/// Octets of what they read: a thousand times this must pass a loopback in seconds.
pub const COLD_BYTES: u64 = 16 << 20;
/// The same under `QUICK=1`.
pub const COLD_BYTES_QUICK: u64 = 8 << 20;
/// How long all readers together may take.
pub const WHOLE_FILES: Duration = Duration::from_secs(300);
/// What one round of a case of the store takes; for the expected time only.
pub const STORE_CASE: Duration = Duration::from_secs(15);
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
/// Octets that a socket's receive buffer may have while a link is there: a burst of 10,000 DHCP messages, which the kernel
/// counts with their overhead.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
/// Frames that may wait for a processor between the two ends of a link, as the kernel takes it.
pub const BACKLOG_FRAMES: &str = "10000";
/// Rounds of the storm: one of a thousand nodes takes about a minute for each stack.
pub const STORM_ROUNDS: usize = 3;
/// What one storm of a thousand nodes takes with its servers' start; for the expected time only.
pub const STORM_1000: Duration = Duration::from_secs(75);
/// The same of ten thousand.
pub const STORM_10000: Duration = Duration::from_secs(300);
/// Under `QUICK=1` a storm has so many times fewer nodes, and files so many times smaller.
pub const STORM_QUICK_DIVISOR: u64 = 10;
/// From a node's power-on to its end: far above what the slowest stack takes, so that makespans are whole.
pub const STORM_DEADLINE: Duration = Duration::from_secs(1800);
/// Share of nodes that may fail in a storm whose makespan counts.
pub const STORM_LOST_MAX: f64 = 0.01;
/// Pause between two looks at the servers' memory during a storm: a look costs some milliseconds of both processors.
pub const STORM_SAMPLE: Duration = Duration::from_secs(2);
/// How long a DHCP server is loaded at one rate at most.
pub const DHCP_LOAD: Duration = Duration::from_secs(2);
/// How long an exchange may take before it counts as lost.
pub const DHCP_PATIENCE: Duration = Duration::from_secs(1);
/// What one load takes with the server's start; for the expected time only.
pub const DHCP_LOAD_EXPECTED: Duration = Duration::from_secs(4);
/// Share of exchanges that may be lost at a rate that is carried.
pub const DHCP_LOST_MAX: f64 = 0.01;
/// Share of the exchanges asked for that a client must have begun: below, the client was the limit.
pub const DHCP_BEGUN_MIN: f64 = 0.97;
/// Exchanges a second on the lowest step of the ladder; dnsmasq is near 100.
pub const DHCP_RATE_LEAST: f64 = 50.0;
/// Exchanges a second above the highest step: beyond what one processor's sockets do.
pub const DHCP_RATE_MOST: f64 = 40_000.0;
/// From one step to the next.
pub const DHCP_RATE_STEP: f64 = 1.15;
/// Leases a second at which syncs are counted.
pub const DHCP_FSYNC_RATE: f64 = 5_000.0;
/// Exchanges a second of the steady load before and after an avalanche.
pub const DHCP_STEADY_RATE: f64 = 1_000.0;
/// What a burst that loses an exchange counts as; a lost Discover is sent again after some seconds.
pub const DHCP_BURST_LOST: Duration = Duration::from_secs(30);
/// Leases in the journal that is reloaded.
pub const RELOAD_LEASES: u64 = 1_000_000;
/// The same under `QUICK=1`.
pub const RELOAD_LEASES_QUICK: u64 = 20_000;
/// How long a rack may take until it answers after a reload.
pub const RELOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Names of the zone that DNS servers are asked for.
pub const DNS_NAMES: u32 = 20_000;
/// Names of the zone whose memory is looked at.
pub const DNS_NAMES_MANY: u32 = 100_000;
/// What looking at the memory of all servers takes; for the expected time only.
pub const DNS_MEMORY_EXPECTED: Duration = Duration::from_secs(25);
/// Questions in a file, which dnsperf reads again and again.
pub const DNS_QUESTIONS: u32 = 200_000;
/// One question in so many is for a name that is not there: 5 %.
pub const DNS_MISS_EVERY: u32 = 20;
/// Share of queries that may be lost, or answered otherwise than the questions' file has them.
pub const DNS_LOST_MAX: f64 = 0.01;
