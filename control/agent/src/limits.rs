//! Bounds of everything the agent reads, holds and waits for, with unit and reason.

use std::time::Duration;

use bootstorm_api::limits as api;
use bootstorm_snapshot::limits as snapshot;

/// Bytes of the kernel's command line that are looked at; Linux itself stops at 2 to 4 KiB.
pub const COMMAND_LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of `modules.dep` or `modules.alias`; a distribution's full tables are about 1.5 MiB.
pub const MODULE_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of one decompressed module; the largest in a distribution's kernel are near 10 MiB with their symbols.
pub const MODULE_BYTES_MAX: usize = 64 << 20;
/// Directories of sysfs that one search for devices visits; a large server has some ten thousand.
pub const SYSFS_DIRECTORIES_MAX: usize = 200_000;
/// Rounds of loading drivers until no new device appears; each bus level takes one.
pub const COLDPLUG_ROUNDS_MAX: usize = 8;
/// Bytes of one answer of the gateway: a plan, or secrets whose base64 is a third longer than they are.
pub const ANSWER_BYTES_MAX: usize = 2 * api::AGENT_MESSAGE_BYTES_MAX;
/// Bytes of an encoded manifest: 40 bytes a chunk, and its header.
pub const MANIFEST_BYTES_MAX: usize = snapshot::MANIFEST_CHUNKS_MAX * 40 + (8 << 10);
/// Bytes of one string of the inventory; longer text is cut.
pub const INVENTORY_TEXT_BYTES_MAX: usize = 128;
/// Bytes of an inventory's JSON, so that its report stays below [`api::AGENT_MESSAGE_BYTES_MAX`].
pub const INVENTORY_JSON_BYTES_MAX: usize = api::AGENT_MESSAGE_BYTES_MAX - (8 << 10);
/// Bytes of stored stream asked for by one request: long enough that a request costs nothing.
pub const RANGE_BYTES_MAX: u64 = 64 << 20;
/// Chunks waiting between the network and each writer.
pub const CHUNKS_QUEUED_PER_WRITER: usize = 8;
/// Writers (threads that hash, decompress and write); more than the processors of a small machine help nobody.
pub const WRITERS_MAX: usize = 4;
/// Chunks of one image that may arrive damaged and be fetched once more by their names.
pub const BAD_CHUNKS_MAX: usize = 64;
/// Times that a request for content is repeated without a byte of progress.
pub const CONTENT_RETRIES_MAX: u32 = 12;
/// Bytes of a partition table's entries: 128 entries of 128 bytes are usual, 1024 of 512 bytes the most accepted.
pub const GPT_ENTRIES_BYTES_MAX: usize = 512 << 10;
/// Bytes cleared at each end of a disk or partition (`Erase::Quick`).
pub const ERASE_EDGE_BYTES: u64 = 2 << 20;
/// Bytes of `grub.cfg`.
pub const GRUB_BYTES_MAX: u64 = 1 << 20;
/// Bytes of cloud-init's `result.json`.
pub const RESULT_BYTES_MAX: u64 = 256 << 10;
/// Warnings of a first boot that are reported.
pub const WARNINGS_MAX: usize = 32;
/// Bytes of one EFI variable that is read.
pub const EFI_VARIABLE_BYTES_MAX: u64 = 64 << 10;

/// How long a TCP connection or TLS handshake may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an answer of the gateway may take, on top of the time a request asks it to hold.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a stream may stay silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// First and longest pause between two tries.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));
/// How long the boot interface may take to appear before the machine is started anew.
pub const INTERFACE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long disks may take to appear.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before the machine is started anew after something that only a new boot can mend; at least
/// [`api::AGENT_SILENCE_SECONDS`], so that the rack takes this agent for gone.
pub const RESTART_PAUSE: Duration = Duration::from_secs(35);
/// How long a dying agent may try to say why.
pub const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time between two progress reports.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long an installed system tries to report that it is ready, in one boot.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30 * 60);

const _: () = assert!(RESTART_PAUSE.as_secs() > api::AGENT_SILENCE_SECONDS);
const _: () = assert!(RANGE_BYTES_MAX > snapshot::CHUNK_STORED_BYTES_MAX as u64);
const _: () = assert!(api::USER_DATA_BYTES_MAX * 4 < ANSWER_BYTES_MAX);
