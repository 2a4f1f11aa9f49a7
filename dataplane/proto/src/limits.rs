//! Every bound of this crate: unit, reason, relation to its neighbours. The constants here are what the documents print.

use core::time::Duration;

/// Octets of an Ethernet payload; no datagram of ours is larger, because boot firmware does not reassemble fragments.
pub const ETHERNET_PAYLOAD_BYTES: usize = 1_500;
/// Octets of an IPv4 header without options and a UDP header.
pub const IPV4_UDP_HEADER_BYTES: usize = 28;

// ---- DHCPv4
/// Octets of the fixed part with the magic cookie (RFC 2131 §2, §3).
pub const DHCP_FIXED_BYTES: usize = 240;
/// Octets of a message we look at: what fits one frame.
pub const DHCP_MESSAGE_BYTES_MAX: usize = ETHERNET_PAYLOAD_BYTES - IPV4_UDP_HEADER_BYTES;
/// Octets of a BOOTP message; some relays and ROMs drop anything shorter (RFC 1542 §2.1), so replies are padded to it.
pub const DHCP_REPLY_BYTES_MIN: usize = 300;
/// Octets of the IP datagram that every client takes when it does not send option 57 (RFC 2131 §2).
pub const DHCP_DATAGRAM_BYTES_DEFAULT: usize = 576;
/// Hops of a relayed message (RFC 1542 §4.1.1 discards above 16).
pub const DHCP_HOPS_MAX: u8 = 16;
/// Octets of one option after its parts are joined (RFC 3396 sets no bound; nothing real needs more).
pub const DHCP_OPTION_JOINED_BYTES_MAX: usize = 1_024;
/// Octets of option 82, which is echoed, so that a reply holds it beside the rest.
pub const DHCP_RELAY_INFORMATION_BYTES_MAX: usize = 255;
/// Architectures in option 93; real firmware sends one.
pub const DHCP_ARCHITECTURES_MAX: usize = 8;
/// Octets of a host name (RFC 1035 §2.3.4).
pub const HOST_NAME_BYTES_MAX: usize = 253;
/// Octets of one label of a host name.
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// Octets of the `file` field that may hold a name, leaving its NUL.
pub const DHCP_FILE_FIELD_NAME_BYTES_MAX: usize = 127;
/// Times a client half sends one message before it gives up.
pub const DHCP_CLIENT_SENDS_MAX: usize = 8;

// ---- DHCPv6
/// Octets of a message we read: the smallest IPv6 MTU, which servers keep to.
pub const DHCP6_MESSAGE_BYTES_MAX: usize = 1_280;
/// Octets of an identifier: a type of 2 and 128 more (RFC 8415 §11.1).
pub const DUID_BYTES_MAX: usize = 130;
/// Identity associations and addresses of one message together; a client here asks for one.
pub const DHCP6_ASSOCIATIONS_MAX: usize = 16;

// ---- DNS
/// Octets of a message we read: the largest that questions with EDNS offer in practice (RFC 6891 §6.2.5).
pub const DNS_MESSAGE_BYTES_MAX: usize = 4_096;
/// Octets of a name with its lengths and its end (RFC 1035 §2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 255;
/// Records of one message; each takes 11 octets at least, so that more than this would not fit anyway.
pub const DNS_RECORDS_MAX: u32 = 372;
/// Labels of a name: 127 of one octet with their lengths, and the root's end (RFC 1035 §2.3.4).
pub const DNS_LABELS_MAX: usize = 127;
/// Octets of a datagram that can be a question: a name of 255, EDNS with a cookie and padding (RFC 8467 §4.1 pads to 128s).
pub const DNS_REQUEST_BYTES_MAX: usize = 1_232;
/// Additional records of a question: OPT, and a few that mean nothing to us.
pub const DNS_REQUEST_RECORDS_MAX: u16 = 4;
/// Octets of an answer to somebody without EDNS (RFC 1035 §2.3.4).
pub const DNS_PLAIN_BYTES_MAX: usize = 512;
/// Octets of any answer over UDP: what needs no fragments on any IPv6 path (threat model T8).
pub const DNS_REPLY_BYTES_MAX: usize = 1_232;

// ---- TFTP
/// Octets of a request; larger ones are not looked at (RFC 2347 §1 allows 512).
pub const TFTP_REQUEST_BYTES_MAX: usize = 512;
/// Octets of a file name.
pub const TFTP_NAME_BYTES_MAX: usize = 255;
/// Options in one request; the RFCs define five.
pub const TFTP_OPTIONS_MAX: usize = 8;
/// Octets of a block when the option is not used (RFC 1350 §2).
pub const TFTP_BLOCK_BYTES_DEFAULT: u16 = 512;
/// Octets of the smallest block (RFC 2348).
pub const TFTP_BLOCK_BYTES_MIN: u16 = 8;
/// Octets of the largest block we agree to: one frame without fragments (1,500 − 28 − 4).
pub const TFTP_BLOCK_BYTES_MAX: u16 = 1_468;
/// Blocks of the largest window we agree to (RFC 7440).
pub const TFTP_WINDOW_BLOCKS_MAX: u16 = 64;
/// Sends to a peer that has not acknowledged anything, first one included: its address may be forged.
pub const TFTP_UNPROVEN_SENDS_MAX: u32 = 3;
/// Octets to a peer that has not acknowledged anything (three first blocks of the default size).
pub const TFTP_UNPROVEN_BYTES_MAX: usize = 1_548;
/// Sends of one window without progress; then only the peer's own repetition brings another.
pub const TFTP_RESENDS_MAX: u32 = 6;
/// First guess of the retransmission time, before any round trip was measured.
pub const TFTP_RETRANSMIT_FIRST: Duration = Duration::from_millis(1_000);
/// Shortest retransmission time: firmware polls its network card at tens of milliseconds.
pub const TFTP_RETRANSMIT_MIN: Duration = Duration::from_millis(200);
/// Longest retransmission time.
pub const TFTP_RETRANSMIT_MAX: Duration = Duration::from_secs(8);
/// Silence after which a peer counts as gone: UEFI repeats itself six times, 4 s apart, and in a storm what it says may wait in
/// queues for seconds. Giving up sooner would leave it talking to a closed port until it gives up, too.
pub const TFTP_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time every transfer has, whatever its size: a storm of ten thousand takes minutes on a small rack.
pub const TFTP_DEADLINE_BASE: Duration = Duration::from_secs(300);
/// Octets a second below which a transfer is hopeless; with the base it makes the deadline of a whole transfer.
pub const TFTP_RATE_BYTES_PER_SECOND_MIN: u64 = 64 * 1_024;
/// Octets of the text in an error packet.
pub const TFTP_ERROR_TEXT_BYTES_MAX: usize = 64;

// ---- HTTP/1.1
/// Octets of one line of a head, its CR LF not counted.
pub const HTTP_LINE_BYTES_MAX: usize = 8 * 1_024;
/// Octets of a whole head.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1_024;
/// Header fields of a head.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Time from the first octet of a head (or the accept) to its last.
pub const HTTP_HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Octets of a decoded path.
pub const HTTP_NAME_BYTES_MAX: usize = 1_024;
/// Parameters of a query.
pub const HTTP_QUERY_PARAMETERS_MAX: usize = 32;
/// Octets that hold every response head which we write without extra fields.
pub const HTTP_RESPONSE_HEAD_BYTES: usize = 1_024;

// ---- Router discovery
/// Octets of a router solicitation or advertisement that we look at (the smallest IPv6 MTU).
pub const NDP_MESSAGE_BYTES_MAX: usize = 1_280;
/// Options of one message.
pub const NDP_OPTIONS_MAX: usize = 32;

const _: () = {
    assert!(DHCP_REPLY_BYTES_MIN >= DHCP_FIXED_BYTES);
    assert!(DHCP_DATAGRAM_BYTES_DEFAULT - IPV4_UDP_HEADER_BYTES >= DHCP_REPLY_BYTES_MIN);
    assert!(DHCP_MESSAGE_BYTES_MAX + IPV4_UDP_HEADER_BYTES <= ETHERNET_PAYLOAD_BYTES);
    assert!(DHCP_OPTION_JOINED_BYTES_MAX < DHCP_MESSAGE_BYTES_MAX);
    assert!(DHCP_RELAY_INFORMATION_BYTES_MAX + DHCP_FIXED_BYTES < DHCP_DATAGRAM_BYTES_DEFAULT - IPV4_UDP_HEADER_BYTES);
    assert!(2 * DUID_BYTES_MAX < DHCP6_MESSAGE_BYTES_MAX);
    assert!(DNS_RECORDS_MAX as usize * 11 <= DNS_MESSAGE_BYTES_MAX);
    assert!(DNS_LABELS_MAX * 2 < DNS_NAME_BYTES_MAX);
    // Header, question, OPT and cookie fit into the smallest answer.
    assert!(12 + DNS_NAME_BYTES_MAX + 4 + 11 + 28 <= DNS_PLAIN_BYTES_MAX);
    assert!(DNS_PLAIN_BYTES_MAX <= DNS_REPLY_BYTES_MAX && DNS_REPLY_BYTES_MAX <= DNS_MESSAGE_BYTES_MAX);
    assert!(TFTP_BLOCK_BYTES_MAX as usize + 4 + IPV4_UDP_HEADER_BYTES <= ETHERNET_PAYLOAD_BYTES);
    assert!((TFTP_BLOCK_BYTES_DEFAULT as usize + 4) * TFTP_UNPROVEN_SENDS_MAX as usize <= TFTP_UNPROVEN_BYTES_MAX);
    assert!(TFTP_NAME_BYTES_MAX < TFTP_REQUEST_BYTES_MAX);
    // A block number has 16 bits: a window must be far below half of its range, or old and new could not be told apart.
    assert!((TFTP_WINDOW_BLOCKS_MAX as u32) * 4 < 1 << 16);
    assert!(HTTP_LINE_BYTES_MAX <= HTTP_HEAD_BYTES_MAX);
    assert!(HTTP_NAME_BYTES_MAX <= HTTP_LINE_BYTES_MAX);
};
