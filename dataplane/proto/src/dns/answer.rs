//! Responses as views over octets: what a client checks before it believes one.
//!
//! [`Response::parse`] walks the whole message once: header, question, every record's name, fixed part and data. Nothing here
//! can panic: reading goes through `bytes::Reader`, and each step consumes at least an octet.

use super::{DropReason, RecordType, ResponseCode};
use crate::bytes::Reader;
use crate::limits;

/// A response whose lengths are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The question's number, chosen by who asked.
    pub id: u16,
    /// What the server says of it.
    pub code: ResponseCode,
    /// The answer did not fit and is incomplete (TC).
    pub is_truncated: bool,
    /// The server has the zone (AA).
    pub is_authoritative: bool,
    /// The question as the server repeats it: name, type, class.
    pub question: &'a [u8],
    /// Records in the answer section.
    pub answers: u16,
}

impl<'a> Response<'a> {
    /// Parses a datagram (RFC 1035 §4.1).
    ///
    /// # Errors
    /// A reason to count.
    pub fn parse(bytes: &'a [u8]) -> Result<Response<'a>, DropReason> {
        let short = DropReason::TooShort;
        if bytes.len() > limits::DNS_MESSAGE_BYTES_MAX {
            return Err(DropReason::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let id = reader.u16().ok_or(short)?;
        let [flags, code] = *reader.array::<2>().ok_or(short)?;
        let questions = reader.u16().ok_or(short)?;
        let answers = reader.u16().ok_or(short)?;
        let authorities = reader.u16().ok_or(short)?;
        let additionals = reader.u16().ok_or(short)?;
        if flags & 0x80 == 0 {
            return Err(DropReason::NotResponse);
        }
        if flags & 0x78 != 0 {
            return Err(DropReason::WrongOperation);
        }
        if questions != 1 {
            return Err(DropReason::QuestionCount);
        }
        let records = u32::from(answers) + u32::from(authorities) + u32::from(additionals);
        if records > limits::DNS_RECORDS_MAX {
            return Err(DropReason::TooManyRecords);
        }
        let body = reader.rest();
        skip_name(&mut reader, Pointers::Refused)?;
        reader.take(4).ok_or(short)?;
        let question = body.get(..body.len() - reader.rest().len()).ok_or(short)?;
        for _ in 0..records {
            skip_record(&mut reader)?;
        }
        if !reader.is_empty() {
            return Err(DropReason::TrailingBytes);
        }
        Ok(Response {
            id,
            code: ResponseCode::from_code(code),
            is_truncated: flags & 0x02 != 0,
            is_authoritative: flags & 0x04 != 0,
            question,
            answers,
        })
    }

    /// Whether it repeats this question, letters compared without their case (RFC 4343 §3).
    pub fn is_about(&self, question: &[u8]) -> bool {
        let (Some((name, tail)), Some((asked, asked_tail))) =
            (self.question.split_last_chunk::<4>(), question.split_last_chunk::<4>())
        else {
            return false;
        };
        tail == asked_tail && name.eq_ignore_ascii_case(asked)
    }
}

/// Whether a name may end in a pointer to an earlier one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Allowed,
    Refused,
}

/// Reads past a name (RFC 1035 §4.1.4); where a pointer leads is not looked at.
fn skip_name(reader: &mut Reader<'_>, pointers: Pointers) -> Result<(), DropReason> {
    let mut octets = 1;
    loop {
        let length = reader.u8().ok_or(DropReason::TooShort)?;
        match length {
            0 => return Ok(()),
            1..=63 => {
                reader.take(usize::from(length)).ok_or(DropReason::TooShort)?;
                octets += usize::from(length) + 1;
                if octets > limits::DNS_NAME_BYTES_MAX {
                    return Err(DropReason::BadName);
                }
            }
            0xc0.. if pointers == Pointers::Allowed => {
                reader.u8().ok_or(DropReason::TooShort)?;
                return Ok(());
            }
            64.. => return Err(DropReason::BadName),
        }
    }
}

/// Reads past a record: name, type 2, class 2, lifetime 4, length 2, data (RFC 1035 §4.1.3).
fn skip_record(reader: &mut Reader<'_>) -> Result<(), DropReason> {
    skip_name(reader, Pointers::Allowed)?;
    reader.take(8).ok_or(DropReason::TooShort)?;
    let length = reader.u16().ok_or(DropReason::TooShort)?;
    reader.take(usize::from(length)).ok_or(DropReason::TooShort)?;
    Ok(())
}

/// An answer section of one address record for the name at the message's start (RFC 1035 §4.1.4): what a server that knows one
/// answer says. For calibration and tests.
pub const fn address_record(seconds: u32, address: [u8; 4]) -> [u8; 16] {
    let [type_high, type_low] = RecordType::A.code().to_be_bytes();
    let [a, b, c, d] = seconds.to_be_bytes();
    let [e, f, g, h] = address;
    [0xc0, 12, type_high, type_low, 0, 1, a, b, c, d, 0, 4, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::super::query::{Recursion, header, write_question};
    use super::*;
    use proptest::prelude::*;

    fn response(name: &str) -> Vec<u8> {
        let mut question = [0; 300];
        let length = write_question(name, RecordType::A, &mut question).unwrap();
        let mut bytes = header(9, Recursion::Desired).to_vec();
        (bytes[2], bytes[7]) = (0x85, 1);
        bytes.extend_from_slice(&question[..length]);
        bytes.extend_from_slice(&address_record(60, [192, 0, 2, 7]));
        bytes
    }

    #[test]
    fn an_answer_is_read_and_compared_with_its_question() {
        let bytes = response("Host.Example");
        let read = Response::parse(&bytes).unwrap();
        assert_eq!((read.id, read.code, read.answers), (9, ResponseCode::NoError, 1));
        assert!(read.is_authoritative && !read.is_truncated);
        assert!(read.is_about(b"\x04host\x07eXample\0\0\x01\0\x01"));
        assert!(!read.is_about(b"\x04host\x07example\0\0\x1c\0\x01"), "another type");
        assert!(!read.is_about(b"\x04hosd\x07example\0\0\x01\0\x01"), "another name");
        assert!(!read.is_about(b""));
    }

    #[test]
    fn dns_odd_messages_have_their_reason() {
        let good = response("a.example");
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(Response::parse(&changed(2, 0)), Err(DropReason::NotResponse));
        assert_eq!(Response::parse(&changed(2, 0x90)), Err(DropReason::WrongOperation));
        assert_eq!(Response::parse(&changed(5, 2)), Err(DropReason::QuestionCount));
        assert_eq!(Response::parse(&changed(12, 0xc0)), Err(DropReason::BadName), "a pointer in the question");
        assert_eq!(Response::parse(&changed(12, 0x40)), Err(DropReason::BadName));
        assert_eq!(Response::parse(&changed(6, 255)), Err(DropReason::TooManyRecords));
        assert_eq!(Response::parse(&changed(7, 0)), Err(DropReason::TrailingBytes));
        assert_eq!(Response::parse(&changed(7, 2)), Err(DropReason::TooShort));
        assert_eq!(Response::parse(&[0x80; 4_097]), Err(DropReason::TooLong));
        let name = [&b"\x3f"[..], &[b'a'; 63]].concat().repeat(4);
        let long = [&good[..12], &name, &good[21..]].concat();
        assert_eq!(Response::parse(&long), Err(DropReason::BadName));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let whole = [&[0, 9, 0x80, 0, 0, 1], &bytes[..]].concat();
            if let Ok(response) = Response::parse(&whole) {
                prop_assert!(response.is_about(response.question));
            }
        }
    }
}
