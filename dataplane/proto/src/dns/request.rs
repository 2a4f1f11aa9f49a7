//! Queries as a server takes them: one pass over the octets, which follows no pointer and allocates nothing.
//!
//! What a resolver may send is narrow: one question, no answers, and at most a few additional records, of which only the OPT
//! record (RFC 6891 §6.1) and the presence of a TSIG record mean something. A question's name holds no pointer: nothing comes
//! before it that one could lead to (RFC 9267 §2). Everything else has a reason, and with it what its sender is told, if anything.

use super::{HEADER_BYTES, rcode};
use crate::bytes::Reader;
use crate::limits;

/// Opcode of a standard query.
const QUERY: u8 = 0;
/// Type of the EDNS(0) pseudo-record.
pub(super) const OPT: u16 = 41;
/// Type of a transaction signature (RFC 8945 §4.2).
const TSIG: u16 = 250;
/// Type of a transaction key (RFC 2930).
const TKEY: u16 = 249;
/// Type of a signature over a transaction (RFC 2931).
const SIG: u16 = 24;
/// Option code of a cookie (RFC 7873 §4).
pub(super) const COOKIE: u16 = 10;

/// A question, as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by who asks.
    pub id: u16,
    /// Recursion desired; repeated in the answer (RFC 1035 §4.1.1).
    pub recursion_desired: bool,
    /// Checking disabled; repeated in the answer (RFC 4035 §3.1.6).
    pub checking_disabled: bool,
    /// Name, type and class as they came: repeated in the answer to the letter, since askers mix cases on purpose.
    pub question: &'a [u8],
    /// The type's number.
    pub kind: u16,
    /// The class's number.
    pub class: u16,
    /// What EDNS(0) says; `None` without it.
    pub edns: Option<Edns<'a>>,
    /// Octets of the request.
    pub bytes: usize,
}

/// The OPT record of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns<'a> {
    /// Octets of the largest answer that the asker takes (RFC 6891 §6.2.3).
    pub payload_bytes: u16,
    /// Version; we speak 0.
    pub version: u8,
    /// DNSSEC records are welcome (RFC 3225); repeated in the answer.
    pub dnssec_ok: bool,
    /// The asker's cookie, and ours that it repeats; empty if it has none of ours.
    pub cookie: Option<(&'a [u8; 8], &'a [u8])>,
}

/// Why a datagram is no question that we answer. Stable names for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refused {
    /// Shorter than a header.
    #[error("message is shorter than a header")]
    TooShort,
    /// Longer than [`crate::limits::DNS_REQUEST_BYTES_MAX`].
    #[error("message is longer than any question")]
    TooLong,
    /// The response bit is set: answering it could go on for ever.
    #[error("a response")]
    Response,
    /// Another opcode than a query's.
    #[error("opcode is not query")]
    Opcode,
    /// Not exactly one question.
    #[error("not exactly one question")]
    QuestionCount,
    /// Records where a question has none, or more additional ones than [`crate::limits::DNS_REQUEST_RECORDS_MAX`].
    #[error("records that no question has")]
    Records,
    /// A label of another kind than plain, a pointer, or a name above its limit; in whichever record.
    #[error("name is malformed")]
    Name,
    /// Ends inside a question or record.
    #[error("message ends early")]
    CutShort,
    /// Octets behind the last record.
    #[error("octets after the last record")]
    TrailingBytes,
    /// Two OPT records, one with a name, or options that do not fill it.
    #[error("OPT record is malformed")]
    Edns,
    /// A cookie of a length that none has (RFC 7873 §5.2.2).
    #[error("cookie is malformed")]
    Cookie,
    /// Signed: no key is known here.
    #[error("signed with a key that is not known")]
    Signed,
}

impl Refused {
    /// All of them, in the order of the counters.
    pub const ALL: [Refused; 12] = [
        Refused::TooShort,
        Refused::TooLong,
        Refused::Response,
        Refused::Opcode,
        Refused::QuestionCount,
        Refused::Records,
        Refused::Name,
        Refused::CutShort,
        Refused::TrailingBytes,
        Refused::Edns,
        Refused::Cookie,
        Refused::Signed,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Refused::TooShort => "too_short",
            Refused::TooLong => "too_long",
            Refused::Response => "response",
            Refused::Opcode => "opcode",
            Refused::QuestionCount => "question_count",
            Refused::Records => "records",
            Refused::Name => "bad_name",
            Refused::CutShort => "cut_short",
            Refused::TrailingBytes => "trailing_bytes",
            Refused::Edns => "bad_edns",
            Refused::Cookie => "bad_cookie",
            Refused::Signed => "signed",
        }
    }

    /// What its sender is told; `None`: nothing at all.
    pub fn code(self) -> Option<u8> {
        match self {
            Refused::TooShort | Refused::TooLong | Refused::Response => None,
            Refused::Opcode => Some(rcode::NOT_IMPLEMENTED),
            // RFC 8945 §5.2.1.
            Refused::Signed => Some(rcode::NOT_AUTHORISED),
            Refused::QuestionCount
            | Refused::Records
            | Refused::Name
            | Refused::CutShort
            | Refused::TrailingBytes
            | Refused::Edns
            | Refused::Cookie => Some(rcode::FORMAT_ERROR),
        }
    }

    /// The answer to a datagram that was refused for this reason: its header alone, with the code (RFC 8906 §3). Never longer than
    /// the datagram.
    pub fn answer(self, datagram: &[u8]) -> Option<[u8; HEADER_BYTES]> {
        let code = self.code()?;
        let [a, b, flags, ..] = *datagram.first_chunk::<HEADER_BYTES>()?;
        // Response; opcode and “recursion desired” as they came.
        Some([a, b, 0x80 | flags & 0x79, code, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// A name in lower case, and where its labels begin: what is looked up. Kept by whoever parses, and filled anew by each question.
#[derive(Debug, Clone)]
pub struct LowerName {
    octets: [u8; limits::DNS_NAME_BYTES_MAX],
    length: u8,
    labels: [u8; limits::DNS_LABELS_MAX],
    count: u8,
}

impl Default for LowerName {
    fn default() -> LowerName {
        LowerName { octets: [0; limits::DNS_NAME_BYTES_MAX], length: 1, labels: [0; limits::DNS_LABELS_MAX], count: 0 }
    }
}

impl LowerName {
    /// The octets, the root's 0 included.
    pub fn wire(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Offsets of the labels.
    pub fn labels(&self) -> &[u8] {
        self.labels.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Reads the uncompressed name that `octets` begin with; gives its octets (RFC 1035 §3.1).
    #[inline]
    fn read(&mut self, octets: &[u8]) -> Result<usize, Refused> {
        self.count = 0;
        let mut at = 0_u8;
        loop {
            let length = *octets.get(usize::from(at)).ok_or(Refused::CutShort)?;
            if length == 0 {
                break;
            }
            if length > 63 {
                return Err(Refused::Name);
            }
            *self.labels.get_mut(usize::from(self.count)).ok_or(Refused::Name)? = at;
            self.count += 1;
            at = at.checked_add(1 + length).filter(|next| *next < u8::MAX).ok_or(Refused::Name)?;
        }
        let length = usize::from(at) + 1;
        let name = octets.get(..length).ok_or(Refused::CutShort)?;
        let place = self.octets.get_mut(..length).ok_or(Refused::Name)?;
        place.copy_from_slice(name);
        // Lengths are below 64 and so below all letters.
        place.make_ascii_lowercase();
        self.length = at + 1;
        Ok(length)
    }
}

impl<'a> Request<'a> {
    /// Parses a datagram; its name in lower case goes to `name`.
    ///
    /// # Errors
    /// A reason, which says what to answer.
    pub fn parse(datagram: &'a [u8], name: &mut LowerName) -> Result<Request<'a>, Refused> {
        let mut reader = Reader::new(datagram);
        let head = reader.array::<HEADER_BYTES>().ok_or(Refused::TooShort)?;
        let [a, b, flags, more, questions @ .., _, _, _, _, _, _] = *head;
        let [.., c, d, e, f, g, h] = *head;
        if flags & 0x80 != 0 {
            return Err(Refused::Response);
        }
        if datagram.len() > limits::DNS_REQUEST_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        if flags >> 3 & 15 != QUERY {
            return Err(Refused::Opcode);
        }
        if questions != [0, 1] {
            return Err(Refused::QuestionCount);
        }
        if [c, d, e, f] != [0; 4] {
            return Err(Refused::Records);
        }
        let body = reader.rest();
        let length = name.read(body)?;
        let question = body.get(..length + 4).ok_or(Refused::CutShort)?;
        let (kind, class) = match question.last_chunk::<4>() {
            Some([a, b, c, d]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
            None => return Err(Refused::CutShort),
        };
        reader.take(question.len()).ok_or(Refused::CutShort)?;
        let edns = additional(&mut reader, u16::from_be_bytes([g, h]))?;
        if !reader.is_empty() {
            return Err(Refused::TrailingBytes);
        }
        Ok(Request {
            id: u16::from_be_bytes([a, b]),
            recursion_desired: flags & 0x01 != 0,
            checking_disabled: more & 0x10 != 0,
            question,
            kind,
            class,
            edns,
            bytes: datagram.len(),
        })
    }
}

/// Reads the additional records.
fn additional<'a>(reader: &mut Reader<'a>, records: u16) -> Result<Option<Edns<'a>>, Refused> {
    if records > limits::DNS_REQUEST_RECORDS_MAX {
        return Err(Refused::Records);
    }
    let mut edns = None;
    for _ in 0..records {
        let is_root = skip_owner(reader)?;
        let kind = reader.u16().ok_or(Refused::CutShort)?;
        let class = reader.u16().ok_or(Refused::CutShort)?;
        let [_, version, flags, _] = *reader.array::<4>().ok_or(Refused::CutShort)?;
        let length = reader.u16().ok_or(Refused::CutShort)?;
        let data = reader.take(usize::from(length)).ok_or(Refused::CutShort)?;
        match kind {
            OPT if !is_root || edns.is_some() => return Err(Refused::Edns),
            OPT => {
                let cookie = options(data)?;
                edns = Some(Edns { payload_bytes: class, version, dnssec_ok: flags & 0x80 != 0, cookie });
            }
            TSIG | TKEY | SIG => return Err(Refused::Signed),
            _ => {}
        }
    }
    Ok(edns)
}

/// Reads past an owner's name, in which a pointer is an end; whether it is the root.
fn skip_owner(reader: &mut Reader<'_>) -> Result<bool, Refused> {
    let mut octets = 0_usize;
    loop {
        let length = reader.u8().ok_or(Refused::CutShort)?;
        match length {
            0 => return Ok(octets == 0),
            1..=63 => {
                reader.take(usize::from(length)).ok_or(Refused::CutShort)?;
                octets += usize::from(length) + 1;
                if octets >= limits::DNS_NAME_BYTES_MAX {
                    return Err(Refused::Name);
                }
            }
            // To the question's name or into it; where exactly is of no interest.
            0xc0 => return reader.u8().map(|_| false).ok_or(Refused::CutShort),
            64.. => return Err(Refused::Name),
        }
    }
}

/// A cookie as it came: the asker's, and ours that it repeats.
type Cookie<'a> = (&'a [u8; 8], &'a [u8]);

/// Reads options (code 2, length 2, data; RFC 6891 §6.1.2) for the first cookie; later ones count for nothing (RFC 7873 §5.2).
fn options(data: &[u8]) -> Result<Option<Cookie<'_>>, Refused> {
    let mut reader = Reader::new(data);
    let mut cookie = None;
    while !reader.is_empty() {
        let code = reader.u16().ok_or(Refused::Edns)?;
        let length = reader.u16().ok_or(Refused::Edns)?;
        let value = reader.take(usize::from(length)).ok_or(Refused::Edns)?;
        if code == COOKIE && cookie.is_none() {
            let (own, ours) = value.split_first_chunk::<8>().ok_or(Refused::Cookie)?;
            if !matches!(ours.len(), 0 | 8..=32) {
                return Err(Refused::Cookie);
            }
            cookie = Some((own, ours));
        }
    }
    Ok(cookie)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
