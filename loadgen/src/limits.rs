//! Every number that bounds the load generator, with its unit and reason.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Simulated machines of one run: what one IPv4 subnet of a lab (a /16) can lease to.
pub const NODES_MAX: u32 = 65_000;

/// Bytes of a boot script that we follow; real ones are below 2 KiB.
pub const SCRIPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a GRUB module that are kept to see what it depends on; the largest of Debian 12 has 175 KiB.
pub const MODULE_BYTES_MAX: usize = 512 << 10;
/// Modules that one GRUB loads; Debian 12 has some 280.
pub const MODULES_MAX: usize = 512;
/// Bytes that a pattern of a GRUB configuration may become: a few KiB for what takes a MAC address apart.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Commands that one node executes before its scripts count as a loop that never ends.
pub const SCRIPT_STEPS_MAX: u32 = 2_000;
/// Scripts fetched one after the other without a pause between them before they count as a loop; real chains have a few, the menu
/// of Debian's installer 24.
pub const SCRIPTS_WITHOUT_PAUSE_MAX: u32 = 100;
/// Scripts that stand inside each other (`source`, menus, blocks).
pub const SCRIPT_DEPTH_MAX: usize = 32;
/// Variables of one node's scripts.
pub const SCRIPT_VARIABLES_MAX: usize = 64;
/// Bytes of one line after its variables are replaced.
pub const SCRIPT_LINE_BYTES_MAX: usize = 4 << 10;

/// Bytes of an initrd that is kept and searched for the site's CA; larger ones are thrown away as they come.
pub const CA_BYTES_MAX: usize = 64 << 10;
/// Bytes of a manifest (40 a chunk: enough for an image of 100 GiB).
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of an answer of the agent's API.
pub const ANSWER_BYTES_MAX: usize = bootstorm_api::limits::AGENT_MESSAGE_BYTES_MAX;
/// Bytes of one range of a stored stream.
pub const RANGE_BYTES: u64 = 16 << 20;
/// Bytes thrown away by one operation.
pub const DISCARD_BYTES: u32 = 1 << 20;

/// Times a node asks again when it is told to come later (429, 503).
pub const LATER_MAX: u32 = 60;
/// Longest pause that a node lets itself be told.
pub const LATER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause when the answer names none.
pub const LATER_PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// Times a node connects anew after a connection was refused or lost, as firmware and the agent do.
pub const CONNECTS_MAX: u32 = 5;
/// Pause before it does.
pub const CONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Time without a byte after which a connection counts as dead; iPXE gives up far sooner, the agent about then.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest sleep that a script can ask for.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);

/// One node in so many checks every chunk of its image; the others count bytes.
pub const VERIFY_EVERY: u32 = 50;

/// Stretches of one node's time that are told apart: an ordinary boot has nine.
pub const SPANS_MAX: usize = 32;
/// Part of the host's memory that may be received by all nodes together and not yet read: the kernel lets TCP have about three
/// of these before it presses, and drops what is on its way then. Machines of their own would not share it.
pub const NODES_RECEIVE_MEMORY_PART: u64 = 64;
/// Bytes of one node's receive buffer: at least what firmware has, at most what an agent on a fast link needs.
pub const NODE_RECEIVE_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 20;
/// Bytes of a request's head beside its path.
pub const REQUEST_BYTES_BESIDES: usize = 256;
/// Longest time between a stage's beginning and the death in it of a node that is to die.
pub const DEATH_DELAY_MAX: Duration = Duration::from_secs(2);
/// Largest window of a zstd image, as the power of two that its bytes are: 128 MiB, what `zstd --long` makes.
pub const DECODE_WINDOW_LOG_MAX: u32 = 27;
/// Bytes of one image that is kept in memory.
pub const SINK_MEMORY_BYTES_MAX: usize = 4 << 30;

/// Bytes of one read over a link of bounded rate: small against a second of a slow one, large against a segment.
pub const PACED_READ_BYTES: u32 = 64 << 10;
/// Datagrams that are on their way late; more are lost, as on a real link whose queue is full.
pub const LATE_DATAGRAMS_MAX: usize = 65_536;
/// Pause between the end of a node's boot and its next, where nodes boot again and again: so that one that fails at once does
/// not spin. Real machines take longer to come up.
pub const REBOOT_PAUSE: Duration = Duration::from_secs(1);

/// Addresses given to `ip` in one batch.
pub const ADDRESS_BATCH_MAX: usize = 256;

/// Clients of one DHCP generator: their index is three octets of a MAC address.
pub const CLIENTS_MAX: u32 = 1 << 24;
/// Messages sent, and received, before a generator looks at the other side and at the time again.
pub const BURST_MESSAGES: usize = 64;
/// Bytes of a frame that is looked at: Ethernet's 1,500 with its header and a VLAN tag.
pub const FRAME_BYTES_MAX: usize = 1_518;
/// Bytes of a stream read at once: a quarter of a busy socket's buffer.
pub const STREAM_BUFFER_BYTES: usize = 256 << 10;
/// Bytes read in search of a response's head where the body is to be thrown away: heads are below 1 KiB, and small bodies
/// that come with them cost less copied than with a second call.
pub const HEAD_READ_BYTES: usize = 2 << 10;
/// Bytes of a datagram, or of several that the kernel has joined.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Bytes of a DNS question: a name, its type and class.
pub const QUESTION_BYTES_MAX: usize = bootstorm_proto::limits::DNS_NAME_BYTES_MAX + 4;
/// Bits of a question's number that tell its row: 4,096 outstanding on a socket; the other bits tell late answers.
pub const QUESTION_ROW_BITS_MAX: u32 = 12;
/// Names made up that do not exist.
pub const NONEXISTENT_NAMES: u32 = 1_000;
/// Bytes of a generator's socket buffers: a tenth of a second of small answers at 100,000 a second.
pub const GENERATOR_SOCKET_BYTES: usize = 16 << 20;

const _: () = assert!(SCRIPTS_WITHOUT_PAUSE_MAX < SCRIPT_STEPS_MAX);
const _: () = assert!(CA_BYTES_MAX < MANIFEST_BYTES_MAX);
const _: () = assert!(NODES_MAX < 1 << 24, "the index has three bytes of a MAC address");
