//! DHCPv4 (RFC 2131, 2132, 3396, 4578): messages, boot clients, replies, and the client half.
//!
//! One request goes through: [`wire::Request::parse`] → [`client_kind::classify`] → [`server::intent`] → a decision of the
//! engine → [`wire::Reply::encode`] and [`server::destination`].
//!
//! `dhcproto` is not used to receive: its borrowed walk ends quietly at an option that runs past the end, where we must
//! reject, and it neither joins repeated options nor looks into `file` and `sname`. With these three added, its part was
//! reading a header. It is not used to send either: its output goes by option code and knows no size limit. The tests
//! let it read what this module writes.

pub mod brief;
pub mod client;
pub mod client_kind;
pub mod options;
pub mod server;
pub mod wire;

use core::net::Ipv4Addr;

/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;

/// A 48-bit hardware address in the order of the wire.
pub type MacAddress = [u8; 6];

/// Why a datagram was not taken. Stable names for counters; a reason is never answered (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Shorter than the fixed part with its cookie.
    #[error("message is shorter than its fixed part")]
    TooShort,
    /// Longer than [`crate::limits::DHCP_MESSAGE_BYTES_MAX`].
    #[error("message is longer than one frame holds")]
    TooLong,
    /// `op` is not the direction expected: 1 towards a server, 2 towards a client.
    #[error("op is not the one expected")]
    WrongOperation,
    /// `htype` is not Ethernet.
    #[error("hardware type is not Ethernet")]
    UnsupportedHardwareType,
    /// `hlen` is not 6.
    #[error("hardware address length is not 6")]
    BadHardwareLength,
    /// `chaddr` is zero or a group address: nobody to answer to.
    #[error("hardware address is zero or a group address")]
    BadHardwareAddress,
    /// More than [`crate::limits::DHCP_HOPS_MAX`] relays.
    #[error("too many hops")]
    TooManyHops,
    /// No magic cookie (RFC 2131 §3): plain BOOTP or noise.
    #[error("bad magic cookie")]
    BadCookie,
    /// An option's length runs past its field.
    #[error("option runs past the end")]
    OptionPastEnd,
    /// Option 52 is not 1, 2 or 3, comes twice, or stands in a field that it opened itself.
    #[error("option overload is invalid or loops")]
    BadOverload,
    /// An option of [`crate::limits::DHCP_OPTION_JOINED_BYTES_MAX`] or more after joining its parts.
    #[error("joined option is too long")]
    OptionTooLong,
    /// An option that we read has a length its definition does not allow.
    #[error("option has a length that its definition does not allow")]
    BadOptionLength,
    /// No option 53.
    #[error("no message type")]
    NoMessageType,
    /// Option 53 is none of the eight of RFC 2131, or not one for this direction.
    #[error("message type is not one for this direction")]
    UnsupportedMessageType,
    /// Fields contradict each other or RFC 2131 table 5 (such as a Request that names no address).
    #[error("fields do not fit the message type")]
    Inconsistent,
    /// The answer belongs to another transaction or client (client half only).
    #[error("answer is not for this client")]
    NotOurs,
    /// The source is one of our own addresses (checked by the engine).
    #[error("sent from our own address")]
    FromOwnAddress,
    /// `giaddr` is no relay that is configured (checked by the engine).
    #[error("relay is not configured")]
    UnknownRelay,
    /// Option 54 names another server (checked by the engine).
    #[error("server identifier is not ours")]
    WrongServer,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 19] = [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::WrongOperation,
        DropReason::UnsupportedHardwareType,
        DropReason::BadHardwareLength,
        DropReason::BadHardwareAddress,
        DropReason::TooManyHops,
        DropReason::BadCookie,
        DropReason::OptionPastEnd,
        DropReason::BadOverload,
        DropReason::OptionTooLong,
        DropReason::BadOptionLength,
        DropReason::NoMessageType,
        DropReason::UnsupportedMessageType,
        DropReason::Inconsistent,
        DropReason::NotOurs,
        DropReason::FromOwnAddress,
        DropReason::UnknownRelay,
        DropReason::WrongServer,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::TooLong => "too_long",
            DropReason::WrongOperation => "wrong_operation",
            DropReason::UnsupportedHardwareType => "unsupported_hardware_type",
            DropReason::BadHardwareLength => "bad_hardware_length",
            DropReason::BadHardwareAddress => "bad_hardware_address",
            DropReason::TooManyHops => "too_many_hops",
            DropReason::BadCookie => "bad_cookie",
            DropReason::OptionPastEnd => "option_past_end",
            DropReason::BadOverload => "bad_overload",
            DropReason::OptionTooLong => "option_too_long",
            DropReason::BadOptionLength => "bad_option_length",
            DropReason::NoMessageType => "no_message_type",
            DropReason::UnsupportedMessageType => "unsupported_message_type",
            DropReason::Inconsistent => "inconsistent",
            DropReason::NotOurs => "not_ours",
            DropReason::FromOwnAddress => "from_own_address",
            DropReason::UnknownRelay => "unknown_relay",
            DropReason::WrongServer => "wrong_server",
        }
    }
}

/// `None` for the unspecified address, which DHCP uses for "not filled in".
pub(crate) fn specified(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}
