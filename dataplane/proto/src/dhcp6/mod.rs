//! DHCPv6 (RFC 8415) with the boot options of RFC 5970: the client half, messages only.
//!
//! [`wire::ClientMessage`] writes Solicit, Request, Renew and Release; [`wire::Answer`] reads Advertise and Reply. Who sends
//! what when is the caller's: a load generator keeps thousands of clients in a table.

pub mod wire;

use core::net::Ipv6Addr;

/// UDP port of clients (RFC 8415 §7.2).
pub const CLIENT_PORT: u16 = 546;
/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays of a link (RFC 8415 §7.1).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Option codes (RFC 8415 §21, RFC 5970 §3).
pub mod code {
    /// Client identifier.
    pub const CLIENT_ID: u16 = 1;
    /// Server identifier.
    pub const SERVER_ID: u16 = 2;
    /// Identity association for addresses that are not temporary.
    pub const IA_NA: u16 = 3;
    /// Address of an identity association.
    pub const IA_ADDRESS: u16 = 5;
    /// Options that the client asks for.
    pub const OPTION_REQUEST: u16 = 6;
    /// Preference of a server.
    pub const PREFERENCE: u16 = 7;
    /// Time since the exchange began, hundredths of a second.
    pub const ELAPSED_TIME: u16 = 8;
    /// Status of a message or of what it stands in.
    pub const STATUS_CODE: u16 = 13;
    /// URL of the boot file (RFC 5970 §3.1).
    pub const BOOT_FILE_URL: u16 = 59;
    /// Parameters of the boot file (RFC 5970 §3.2).
    pub const BOOT_FILE_PARAMETERS: u16 = 60;
    /// Architectures of the client (RFC 5970 §3.3).
    pub const CLIENT_ARCHITECTURE: u16 = 61;
    /// Network interface of the client (RFC 5970 §3.4).
    pub const NETWORK_INTERFACE: u16 = 62;
}

/// Types of messages between clients and servers (RFC 8415 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Looks for servers (1).
    Solicit,
    /// A server's offer (2).
    Advertise,
    /// Asks one server for what it advertised (3).
    Request,
    /// Prolongs what one server gave (5).
    Renew,
    /// A server's answer (7).
    Reply,
    /// Gives an address back (8).
    Release,
}

impl MessageType {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            MessageType::Solicit => 1,
            MessageType::Advertise => 2,
            MessageType::Request => 3,
            MessageType::Renew => 5,
            MessageType::Reply => 7,
            MessageType::Release => 8,
        }
    }
}

/// Why a datagram was not taken. Stable names for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Shorter than a message type and a transaction id.
    #[error("message is shorter than its fixed part")]
    TooShort,
    /// Longer than [`crate::limits::DHCP6_MESSAGE_BYTES_MAX`].
    #[error("message is longer than a server may send")]
    TooLong,
    /// Neither Advertise nor Reply; relayed messages are none for a client.
    #[error("message type is not one for a client")]
    UnsupportedMessageType,
    /// An option's length runs past what it stands in.
    #[error("option runs past the end")]
    OptionPastEnd,
    /// An option that we read has a length its definition does not allow.
    #[error("option has a length that its definition does not allow")]
    BadOptionLength,
    /// An option that may come once came twice.
    #[error("option is repeated")]
    RepeatedOption,
    /// No client identifier (RFC 8415 §16.3, §16.10).
    #[error("no client identifier")]
    NoClientId,
    /// No server identifier.
    #[error("no server identifier")]
    NoServerId,
    /// An identifier that is empty or above [`crate::limits::DUID_BYTES_MAX`].
    #[error("identifier has a length that RFC 8415 section 11.1 does not allow")]
    BadDuid,
    /// More identity associations or addresses than [`crate::limits::DHCP6_ASSOCIATIONS_MAX`].
    #[error("too many identity associations or addresses")]
    TooManyAssociations,
    /// Times that contradict each other (RFC 8415 §21.4, §21.6).
    #[error("times contradict each other")]
    Inconsistent,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 11] = [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::UnsupportedMessageType,
        DropReason::OptionPastEnd,
        DropReason::BadOptionLength,
        DropReason::RepeatedOption,
        DropReason::NoClientId,
        DropReason::NoServerId,
        DropReason::BadDuid,
        DropReason::TooManyAssociations,
        DropReason::Inconsistent,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::TooLong => "too_long",
            DropReason::UnsupportedMessageType => "unsupported_message_type",
            DropReason::OptionPastEnd => "option_past_end",
            DropReason::BadOptionLength => "bad_option_length",
            DropReason::RepeatedOption => "repeated_option",
            DropReason::NoClientId => "no_client_id",
            DropReason::NoServerId => "no_server_id",
            DropReason::BadDuid => "bad_duid",
            DropReason::TooManyAssociations => "too_many_associations",
            DropReason::Inconsistent => "inconsistent",
        }
    }
}
