//! Every number that bounds this crate, with its unit and its reason.

use std::time::Duration;

/// Parts of one send. The kernel takes 1,024 (`UIO_MAXIOV`); a TFTP burst of 64 blocks needs 128 (header and block each).
pub const PARTS_MAX: usize = 256;

/// Segments of one `UDP_SEGMENT` send: the lowest limit among the kernels we support (`UDP_MAX_SEGMENTS`, 64 before 6.9).
pub const SEGMENTS_MAX: usize = 64;

/// Bytes of one datagram's payload: 65,535 less the IPv4 and UDP headers.
pub const DATAGRAM_BYTES_MAX: usize = 65_535 - 20 - 8;

/// Operations in flight that a driver may be configured for. The kernel allows 32,768 submission entries; operations in
/// flight may exceed the queue's length, as entries are free again as soon as they are submitted.
pub const IN_FLIGHT_MAX: u32 = 262_144;

/// Entries of the submission queue: how many new operations one system call carries.
pub const SUBMISSION_ENTRIES: u32 = 1_024;

/// The completion queue's length as a multiple of the submission queue's: multishot operations complete many times each.
pub const COMPLETION_FACTOR: u32 = 4;

/// Completions that one `wait` hands over, so that one turn of a shard is bounded.
pub const COMPLETIONS_PER_TURN_MAX: usize = 1_024;

/// Datagrams of one socket that comes ahead of the others in one turn: a quarter of the turn.
pub const AHEAD_PER_TURN_MAX: usize = 256;

/// Buffers of sockets that come ahead of the others: two turns' worth.
pub const AHEAD_BUFFERS: u16 = 512;

/// Bytes of the sends whose completions one `wait` of the ring hands over: who gets one sends about as much again, and what
/// a turn sends should still be in the processor's cache when the peers, or the kernel on their behalf, get to it. With all
/// completions at once a thousand connections sent 128 MiB in one system call, and each octet cost twice as much.
pub const SENT_BYTES_PER_TURN_MAX: usize = 4 << 20;

/// Times in a row that the epoll backend receives or accepts for one operation before others have their turn.
pub const EPOLL_GOES_MAX: usize = 32;

/// Deadlines nearer than this get a timer of their own in the wait for them; an alarm outlives many waits only if it is far.
pub const ALARM_AFTER_MIN: Duration = Duration::from_millis(100);

/// Buffers of one provided group: the kernel's limit is 32,768, and the count must be a power of two.
pub const GROUP_BUFFERS_MAX: u16 = 1 << 15;

/// Bytes of one stream buffer at most: more gains nothing over loopback or a NIC and pins memory of slow readers.
pub const STREAM_BUFFER_BYTES_MAX: u32 = 1 << 20;

/// Bytes kept for the peer's address in front of a received datagram (`sockaddr_storage` is 128; IPv6 needs 28, link level 20).
pub const NAME_BYTES: usize = 32;

/// Bytes kept for control messages of a datagram: one `IP_PKTINFO` (28) or `IPV6_PKTINFO` (36) and one `UDP_SEGMENT` (18), each padded to 8.
pub const CONTROL_BYTES: usize = 96;

/// Alignment of read buffers in bytes: what direct I/O needs on any disk with sectors of up to 4,096 bytes.
pub const BUFFER_ALIGN: usize = 4_096;

/// Bytes of one file read: a chunk is 256 KiB, the content store's runs are a few of them.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// Bytes of one block of an arena: a huge page on the platforms we run on. Also the unit of eviction.
pub const ARENA_BLOCK_BYTES: usize = 2 << 20;

/// Bytes of the smallest arena: 32 blocks, so that a few readers which hold a chunk each leave room for others.
pub const ARENA_BYTES_MIN: usize = 64 << 20;

/// Marks of use that a block keeps: something used more often than this in one round of the clock survives so many rounds.
pub const ARENA_MARKS_MAX: u8 = 3;

/// Slots of one block for each class of slots, in falling order of their size: 292 KiB for a chunk that compression made
/// longer, 256 KiB for a chunk, then steps of a fifth to a half, down to a page.
pub const ARENA_SLOTS_PER_BLOCK: [u16; 15] = [7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 102, 170, 256, 512];

/// How long dropping a driver waits for the kernel to give its buffers back, in milliseconds. After it the memory is
/// leaked rather than freed under the kernel's hands.
pub const DRAIN_MILLISECONDS_MAX: u64 = 2_000;

/// Connections that the kernel holds for a listener until they are accepted; `net.core.somaxconn` may allow fewer.
pub const LISTEN_BACKLOG: i32 = 4096;

const _: () = assert!(PARTS_MAX >= SEGMENTS_MAX * 2 && PARTS_MAX <= 1_024);
const _: () = assert!(NAME_BYTES >= 28 && NAME_BYTES.is_multiple_of(8));
const _: () = assert!(CONTROL_BYTES >= 40 + 24 && CONTROL_BYTES.is_multiple_of(8));
const _: () = assert!(SUBMISSION_ENTRIES.is_power_of_two() && SUBMISSION_ENTRIES <= IN_FLIGHT_MAX);
const _: () =
    assert!(ARENA_BYTES_MIN.is_multiple_of(ARENA_BLOCK_BYTES) && ARENA_BLOCK_BYTES.is_multiple_of(BUFFER_ALIGN));
const _: () = assert!(AHEAD_BUFFERS.is_power_of_two() && AHEAD_PER_TURN_MAX * 2 <= COMPLETIONS_PER_TURN_MAX);
const _: () = assert!(READ_BYTES_MAX.is_multiple_of(BUFFER_ALIGN));
