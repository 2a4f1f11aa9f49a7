//! TFTP (RFC 1350) with options (RFC 2347), block size (2348), timeout and size (2349) and windows (7440).
//!
//! The server half is one [`server::Transfer`] per transfer, the client half one [`client::Client`]. `netascii` is accepted
//! and served like `octet`: boot files are binary, and every boot client asks for `octet`.

pub mod client;
pub mod server;
pub mod wire;

/// UDP port of first requests.
pub const SERVER_PORT: u16 = 69;

/// Why a datagram was not taken. Stable names for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Ends inside a field.
    #[error("packet ends inside a field")]
    TooShort,
    /// A request above [`crate::limits::TFTP_REQUEST_BYTES_MAX`], or more data than the block size.
    #[error("packet is longer than allowed")]
    TooLong,
    /// An opcode that no RFC above defines.
    #[error("unknown opcode")]
    UnknownOpcode,
    /// A packet that has no place here, such as data sent to a server.
    #[error("packet is not expected here")]
    Unexpected,
    /// Octets after the end of a packet of fixed form.
    #[error("octets after the end of the packet")]
    TrailingBytes,
    /// A request to write: nothing is ever written.
    #[error("write request")]
    WriteRequest,
    /// A string without its NUL.
    #[error("string without its end")]
    MissingNul,
    /// A name that is empty, above [`crate::limits::TFTP_NAME_BYTES_MAX`], not UTF-8, or has control characters.
    #[error("file name is not acceptable")]
    BadName,
    /// A mode other than `octet` and `netascii`.
    #[error("unknown mode")]
    BadMode,
    /// An option that is there twice.
    #[error("option is repeated")]
    RepeatedOption,
    /// More than [`crate::limits::TFTP_OPTIONS_MAX`] options.
    #[error("too many options")]
    TooManyOptions,
    /// An option value that is no decimal number or out of the RFC's range.
    #[error("option value is out of range")]
    BadOptionValue,
    /// From another address or port than the transfer's (RFC 1350 §4).
    #[error("from another transfer id")]
    WrongTransferId,
    /// Acknowledges a block that was not sent.
    #[error("acknowledgement is ahead of the window")]
    AheadOfWindow,
    /// Acknowledges what was acknowledged long ago.
    #[error("acknowledgement is stale")]
    Stale,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 15] = [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::UnknownOpcode,
        DropReason::Unexpected,
        DropReason::TrailingBytes,
        DropReason::WriteRequest,
        DropReason::MissingNul,
        DropReason::BadName,
        DropReason::BadMode,
        DropReason::RepeatedOption,
        DropReason::TooManyOptions,
        DropReason::BadOptionValue,
        DropReason::WrongTransferId,
        DropReason::AheadOfWindow,
        DropReason::Stale,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::TooLong => "too_long",
            DropReason::UnknownOpcode => "unknown_opcode",
            DropReason::Unexpected => "unexpected",
            DropReason::TrailingBytes => "trailing_bytes",
            DropReason::WriteRequest => "write_request",
            DropReason::MissingNul => "missing_nul",
            DropReason::BadName => "bad_name",
            DropReason::BadMode => "bad_mode",
            DropReason::RepeatedOption => "repeated_option",
            DropReason::TooManyOptions => "too_many_options",
            DropReason::BadOptionValue => "bad_option_value",
            DropReason::WrongTransferId => "wrong_transfer_id",
            DropReason::AheadOfWindow => "ahead_of_window",
            DropReason::Stale => "stale",
        }
    }

    /// The error packet that a well-meaning client should get for a refused first request; `None` where silence is the
    /// answer, since the source may be forged. An error packet is shorter than what it answers.
    pub fn answer(self) -> Option<wire::ErrorCode> {
        match self {
            DropReason::WriteRequest => Some(wire::ErrorCode::AccessViolation),
            DropReason::BadName => Some(wire::ErrorCode::FileNotFound),
            DropReason::BadMode | DropReason::RepeatedOption | DropReason::TooManyOptions => {
                Some(wire::ErrorCode::IllegalOperation)
            }
            DropReason::BadOptionValue => Some(wire::ErrorCode::OptionRefused),
            DropReason::TooShort
            | DropReason::TooLong
            | DropReason::UnknownOpcode
            | DropReason::Unexpected
            | DropReason::TrailingBytes
            | DropReason::MissingNul
            | DropReason::WrongTransferId
            | DropReason::AheadOfWindow
            | DropReason::Stale => None,
        }
    }
}
