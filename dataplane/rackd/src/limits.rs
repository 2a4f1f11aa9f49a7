//! Every bound of this crate: unit, reason, relation to its neighbours.

use std::time::Duration;

use bootstorm_snapshot::limits as snapshot;

/// Octets of one quantum of a response: one send, the unit of fairness between connections. Each wakes the peer once: with
/// 256 KiB and a hundred connections both sides together take a third more time for the same octets. That the processor's cache
/// is not left behind is seen to by the driver, which hands over few completed sends at a time.
pub const QUANTUM_BYTES: u64 = 1 << 20;
/// The same when a shard is crowded: a turn of all is over four times as soon, and a chunk of a disk image is of this size.
pub const QUANTUM_BYTES_CROWDED: u64 = 256 << 10;
/// Connections of a shard above which it is crowded.
pub const CROWDED_CONNECTIONS: usize = 500;
/// Share of the memory for chunks that the quanta of a shard's connections may hold together before it is crowded.
pub const QUANTA_SHARE: u64 = 4;
/// Chunks of one quantum: those of a disk image are five at most, only very short ones are more.
pub const QUANTUM_PARTS_MAX: usize = 64;

// ---- The driver of a shard
/// Sockets: one of each transfer, and those of the interfaces.
pub const SOCKETS_MAX: u32 = TRANSFERS_MAX as u32 + 256;
/// Operations in flight: a receive and a send of each socket, and of each connection a receive, a send and room for their end.
pub const IN_FLIGHT_MAX: u32 = 65_536;

// ---- HTTP
/// Connections of one shard.
pub const CONNECTIONS_MAX: u32 = 8_192;
/// Connections of one shard that are kept free for whoever comes next, by closing those that wait without a request; also how
/// many are closed at once.
pub const CONNECTIONS_RESERVE: usize = 512;
/// Connections of one source address over all shards of a rack: an agent uses a few, firmware one.
pub const CONNECTIONS_PER_SOURCE_MAX: u32 = 256;
/// Connections of one source address under `serve`, whose clients are a lab or a bench behind one address.
pub const SERVE_CONNECTIONS_PER_SOURCE_MAX: u32 = 4_096;
/// How long an open connection may say nothing between two requests.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long [`QUANTUM_BYTES_CROWDED`] may take to leave: 8.7 KB/s, below which nobody boots. A longer send has as much longer.
pub const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// How long a request may wait for a manifest, a chunk on its way or a script.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(20);
/// How long the peer's end of a finished connection is waited for, so that its last octets are not lost to a reset.
pub const LINGER_DEADLINE: Duration = Duration::from_secs(2);
/// What a client is told to wait after a 503, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 2;

/// Octets of a file whose answers are made whole, head and body in one piece: what costs less to copy once a second than to
/// gather each time.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Octets of an answer from which on it is cheaper to refer to its pages than to copy them (`bench http`, http-64k-keepalive-64).
pub const ANSWER_SEALED_BYTES_MIN: usize = 16 << 10;
/// Octets of a request whose answer is kept: what firmware and loaders send is far shorter.
pub const ANSWER_REQUEST_BYTES_MAX: usize = 1 << 10;
/// Octets of all answers that a shard keeps for a second.
pub const ANSWERS_BYTES_MAX: usize = 4 << 20;

// ---- TFTP
/// Transfers of one shard: ten thousand machines that were switched on together, on a rack with a single one.
pub const TRANSFERS_MAX: usize = 10_240;
/// Transfers of one source address over all shards (threat model, TFTP).
pub const TRANSFERS_PER_SOURCE_MAX: u32 = 16;
/// Transfers of one source address under `serve`.
pub const SERVE_TRANSFERS_PER_SOURCE_MAX: u32 = 1_024;
/// Octets of headers around a TFTP block: IPv4 20, UDP 8, TFTP 4.
pub const TFTP_OVERHEAD_BYTES: u16 = 32;

// ---- Queues between threads
/// Messages that wait for a shard. Replies are fewer than its connections and transfers; requests for scripts and the
/// gateway's requests share the rest.
pub const SHARD_MAIL_MAX: usize = 20_480;
/// Questions that wait for the thread that reads and verifies content.
pub const READER_QUEUE_MAX: usize = 16_384;
/// Messages that wait for the thread that fills the content store; each may hold one attachment of 1 MiB.
pub const FILL_QUEUE_MAX: usize = 128;
/// Parts of snapshots that wait for their thread.
pub const SNAPSHOT_QUEUE_MAX: usize = 4;
/// Frames that wait for the gateway. Answers are fewer than requests in flight, wishes than
/// [`bootstorm_api::limits::WISHES_IN_FLIGHT_MAX`]; observations stop before.
pub const GATEWAY_FRAMES_MAX: usize = 4_096;
/// Observations sent and not yet acknowledged.
pub const OBSERVATIONS_IN_FLIGHT_MAX: u64 = 1_024;
/// How long an acknowledgement is waited for before observations are sent again.
pub const OBSERVATIONS_RESEND: Duration = Duration::from_secs(30);
/// Scripts being made.
pub const SCRIPTS_PENDING_MAX: usize = 32_768;

// ---- Content
/// Share of the memory available at the start that chunks are kept in, unless the configuration says how much. The kernel
/// needs memory too: for sockets, and for the page cache behind this one.
pub const CACHE_SHARE: u64 = 4;
/// Largest share that a configuration is granted: beyond it the machine would run short.
pub const CACHE_SHARE_MAX: u64 = 2;
/// Share of the cache that is freed when it is full, so that not every chunk that comes in looks for room.
pub const CACHE_EVICTED_SHARE: usize = 64;
/// Locks that the cache's map is spread over: shards that look for different chunks rarely meet.
pub const CACHE_SHARDS: usize = 64;
/// Chunks on their way because somebody waits for them.
pub const FLIGHTS_MAX: usize = 4_096;
/// Requests that wait for chunks on their way.
pub const FLIGHT_WAITERS_MAX: usize = 16_384;
/// How long a wish may stay without an answer.
pub const WISH_DEADLINE: Duration = Duration::from_secs(60);
/// First pause before a file is wished for again.
pub const WISH_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
pub const WISH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Octets that are fetched before they are committed while more is waiting.
pub const FILL_BATCH_BYTES: usize = 8 << 20;
/// Manifests that a shard holds so as not to ask for them at each request.
pub const SHARD_MANIFESTS_MAX: usize = 32;
/// Chunks of the largest manifest that a shard holds: 48 MiB of entries.
pub const SHARD_MANIFEST_CHUNKS_MAX: usize = 1 << 20;
/// Octets of encoded manifests kept so that a thousand agents of one image share them.
pub const MANIFEST_BYTES_CACHED_MAX: usize = 64 << 20;
/// Digests in one status: a longer list would not fit a frame, and nobody reads it.
pub const STATUS_MISSING_MAX: usize = 8_192;

// ---- Journal
/// Least time between two syncs of the journal while there is more to write than fits one batch: what a client may wait longer
/// for its ACK than the disk takes. At 5,000 leases a second a sync is shared by 25.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(5);
/// Leases copied in one turn of shard 0 when the journal is to be compacted: half a millisecond.
pub const GATHERED_LEASES: usize = 4_096;
/// How long the role goes on after its journal has stopped, so that clients that renew keep what is durable: while a disk stays
/// full, each start of the role ends at its first write.
pub const JOURNAL_STOPPED_GRACE: Duration = Duration::from_secs(5);
/// Octets that the journal puts around a record; a batch's limit counts them.
pub const JOURNAL_FRAME_BYTES: usize = 48;

// ---- Room on the disk
/// Share of the disk that packs may take, in percent of what they have and what is free: the high mark of eviction. The journal and
/// the snapshot, without which nothing is promised to anybody, need the rest.
pub const CONTENT_HIGH_PERCENT: u64 = 90;
/// The same, down to which content is evicted: far enough below that it is not done again soon.
pub const CONTENT_LOW_PERCENT: u64 = 75;
/// How long after an eviction the next one is tried: it reads all manifests.
pub const EVICTION_PAUSE: Duration = Duration::from_secs(60);
/// Octets a second that are read again to find what has rotted: 1 TB in three days, and no disk notices.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;
/// How long the scrub rests after it has been through everything.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(3_600);

// ---- Snapshot
/// Lines of one transfer of a snapshot: a site of a million machines.
pub const TRANSFER_LINES_MAX: usize = 4 << 20;
/// Octets of the delta log below which it is not worth a new base.
pub const DELTA_BYTES_MIN: u64 = 1 << 20;
/// Octets of a snapshot file that are read.
pub const SNAPSHOT_FILE_BYTES_MAX: u64 = 4 << 30;

// ---- Files of `serve`
/// Files under the directory: names and manifests are held in memory.
pub const SERVE_FILES_MAX: usize = 65_536;
/// Directories below one another.
pub const SERVE_DEPTH_MAX: usize = 32;

/// How long work under way may go on after a stop was asked for.
pub const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// How often the engine's counters are laid out for `/metrics`.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the role looks whether it is to stop while it waits for a new stream.
pub const STREAM_POLL: Duration = Duration::from_millis(100);

const _: () =
    assert!(QUANTUM_BYTES_CROWDED <= QUANTUM_BYTES && QUANTUM_PARTS_MAX < bootstorm_driver::limits::PARTS_MAX);
const _: () = assert!(ANSWER_BYTES_MAX * 8 <= ANSWERS_BYTES_MAX);
const _: () = assert!(CACHE_SHARE_MAX >= 2 && CACHE_SHARE >= CACHE_SHARE_MAX);
const _: () = assert!(QUANTUM_BYTES_CROWDED == snapshot::CHUNK_RAW_BYTES as u64);
const _: () = assert!(QUANTUM_BYTES.is_multiple_of(QUANTUM_BYTES_CROWDED));
const _: () = assert!(CONNECTIONS_MAX as usize + TRANSFERS_MAX < SHARD_MAIL_MAX);
const _: () = assert!(SOCKETS_MAX * 2 + CONNECTIONS_MAX * 3 < IN_FLIGHT_MAX);
const _: () = assert!(CONTENT_LOW_PERCENT < CONTENT_HIGH_PERCENT && CONTENT_HIGH_PERCENT < 100);
const _: () = assert!(CONNECTIONS_RESERVE * 4 <= CONNECTIONS_MAX as usize);
const _: () = assert!(
    bootstorm_api::limits::LOCAL_REQUESTS_IN_FLIGHT_MAX + bootstorm_api::limits::WISHES_IN_FLIGHT_MAX + 8
        < GATEWAY_FRAMES_MAX
);
const _: () = assert!(OBSERVATIONS_IN_FLIGHT_MAX >= bootstorm_api::limits::OBSERVATIONS_BATCH_MAX as u64);
