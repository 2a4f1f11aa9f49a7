//! DNS (RFC 1035): the client half, one question and a check of its answer; the server half, a question's parts and an answer.
//!
//! A message is a header of 12 octets (id 2, flags 2, four counts of 2), the question, and records (RFC 1035 §4.1).
//! Of the client [`query`] writes and [`answer`] reads, of the server [`request`] reads and [`reply`] writes; none of them follows
//! a compression pointer, so no message can make them loop.

pub mod answer;
pub mod query;
pub mod reply;
pub mod request;

/// UDP port of servers.
pub const SERVER_PORT: u16 = 53;
/// Octets of a header (RFC 1035 §4.1.1).
pub const HEADER_BYTES: usize = 12;

/// Codes of answers (RFC 1035 §4.1.1, RFC 6895 §2.3).
pub mod rcode {
    /// No error.
    pub const NO_ERROR: u8 = 0;
    /// The question could not be read.
    pub const FORMAT_ERROR: u8 = 1;
    /// The server has a problem of its own.
    pub const SERVER_FAILURE: u8 = 2;
    /// The name does not exist.
    pub const NAME_ERROR: u8 = 3;
    /// This kind of question is not answered.
    pub const NOT_IMPLEMENTED: u8 = 4;
    /// The server does not want to answer.
    pub const REFUSED: u8 = 5;
    /// Not authorised (RFC 8945 §5.2.1).
    pub const NOT_AUTHORISED: u8 = 9;
    /// A version of EDNS that the server does not speak (RFC 6891 §6.1.3); its upper bits stand in the OPT record.
    pub const BAD_VERSION: u8 = 16;
}

/// Why a response was not taken. Stable names for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Ends inside its header, its question or a record.
    #[error("message ends early")]
    TooShort,
    /// Longer than [`crate::limits::DNS_MESSAGE_BYTES_MAX`].
    #[error("message is longer than was agreed")]
    TooLong,
    /// The response bit is not set.
    #[error("not a response")]
    NotResponse,
    /// The opcode is not 0, a standard query.
    #[error("opcode is not query")]
    WrongOperation,
    /// Not exactly one question.
    #[error("not exactly one question")]
    QuestionCount,
    /// A label of a reserved kind, a pointer in the question, or a name above its limit.
    #[error("name is malformed")]
    BadName,
    /// More records than [`crate::limits::DNS_RECORDS_MAX`].
    #[error("too many records")]
    TooManyRecords,
    /// Octets after the last record.
    #[error("octets after the last record")]
    TrailingBytes,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 8] = [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::NotResponse,
        DropReason::WrongOperation,
        DropReason::QuestionCount,
        DropReason::BadName,
        DropReason::TooManyRecords,
        DropReason::TrailingBytes,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::TooLong => "too_long",
            DropReason::NotResponse => "not_response",
            DropReason::WrongOperation => "wrong_operation",
            DropReason::QuestionCount => "question_count",
            DropReason::BadName => "bad_name",
            DropReason::TooManyRecords => "too_many_records",
            DropReason::TrailingBytes => "trailing_bytes",
        }
    }
}

/// Record types that are asked for by name (RFC 1035 §3.2.2, RFC 3596 §2.1, RFC 2782).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// A host address (1).
    A,
    /// An authoritative name server (2).
    Ns,
    /// The canonical name of an alias (5).
    Cname,
    /// The start of a zone of authority (6).
    Soa,
    /// A domain name pointer (12).
    Ptr,
    /// Mail exchange (15).
    Mx,
    /// Text (16).
    Txt,
    /// An IPv6 host address (28).
    Aaaa,
    /// The location of a service (33).
    Srv,
    /// Everything there is (255, a question only).
    Any,
}

impl RecordType {
    const TABLE: [(RecordType, &'static str, u16); 10] = [
        (RecordType::A, "A", 1),
        (RecordType::Ns, "NS", 2),
        (RecordType::Cname, "CNAME", 5),
        (RecordType::Soa, "SOA", 6),
        (RecordType::Ptr, "PTR", 12),
        (RecordType::Mx, "MX", 15),
        (RecordType::Txt, "TXT", 16),
        (RecordType::Aaaa, "AAAA", 28),
        (RecordType::Srv, "SRV", 33),
        (RecordType::Any, "ANY", 255),
    ];

    /// By its mnemonic, in whatever case; `None` for one that is not in the list.
    pub fn from_name(name: &str) -> Option<RecordType> {
        RecordType::TABLE.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(name)).map(|(kind, _, _)| *kind)
    }

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Ns => 2,
            RecordType::Cname => 5,
            RecordType::Soa => 6,
            RecordType::Ptr => 12,
            RecordType::Mx => 15,
            RecordType::Txt => 16,
            RecordType::Aaaa => 28,
            RecordType::Srv => 33,
            RecordType::Any => 255,
        }
    }
}

/// What a response says of its question (RFC 1035 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseCode {
    /// No error (0).
    NoError,
    /// The server could not read the question (1).
    FormatError,
    /// The server has a problem of its own (2).
    ServerFailure,
    /// The name does not exist (3).
    NameError,
    /// This kind of question is not answered (4).
    NotImplemented,
    /// The server does not want to answer (5).
    Refused,
    /// Any other.
    Other(u8),
}

impl ResponseCode {
    /// From the four bits.
    pub fn from_code(code: u8) -> ResponseCode {
        match code & 15 {
            0 => ResponseCode::NoError,
            1 => ResponseCode::FormatError,
            2 => ResponseCode::ServerFailure,
            3 => ResponseCode::NameError,
            4 => ResponseCode::NotImplemented,
            5 => ResponseCode::Refused,
            other => ResponseCode::Other(other),
        }
    }

    /// The label of the counter.
    pub fn name(self) -> &'static str {
        match self {
            ResponseCode::NoError => "noerror",
            ResponseCode::FormatError => "formerr",
            ResponseCode::ServerFailure => "servfail",
            ResponseCode::NameError => "nxdomain",
            ResponseCode::NotImplemented => "notimp",
            ResponseCode::Refused => "refused",
            ResponseCode::Other(_) => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_name_and_have_their_code() {
        for (kind, name, code) in RecordType::TABLE {
            assert_eq!((RecordType::from_name(&name.to_lowercase()), kind.code()), (Some(kind), code));
        }
        assert_eq!(RecordType::from_name("nonsense"), None);
    }
}
