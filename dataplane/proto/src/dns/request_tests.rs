use super::super::reply::{Authority, Reply, Section};
use super::super::{answer::Response, rcode};
use super::*;
use proptest::prelude::*;

/// A query for `Host.Example A`, with these additional records behind it.
fn query(additional: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, additional.len() as u8];
    bytes.extend_from_slice(b"\x04Host\x07Example\0\0\x01\0\x01");
    additional.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

fn opt(options: &[u8]) -> Vec<u8> {
    [&[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, options.len() as u8], options].concat()
}

fn parse(bytes: &[u8]) -> Result<Request<'_>, Refused> {
    Request::parse(bytes, &mut LowerName::default())
}

#[test]
fn a_question_is_read_and_its_letters_are_kept() {
    let cookie = opt(b"\0\x0a\0\x0812345678\0\x03\0\0");
    let bytes = query(&[&cookie]);
    let mut name = LowerName::default();
    let request = Request::parse(&bytes, &mut name).unwrap();
    assert_eq!((request.id, request.kind, request.class), (0x1234, 1, 1));
    assert!(request.recursion_desired && request.checking_disabled);
    assert_eq!(request.question, b"\x04Host\x07Example\0\0\x01\0\x01");
    assert_eq!((name.wire(), name.labels()), (&b"\x04host\x07example\0"[..], &[0, 5][..]));
    let edns = request.edns.unwrap();
    assert_eq!((edns.payload_bytes, edns.version, edns.dnssec_ok), (4_096, 0, true));
    assert_eq!(edns.cookie, Some((b"12345678", &[][..])));
    let root = [&bytes[..7], &[0, 0, 0, 0, 0], b"\0\0\x02\0\x01"].concat();
    Request::parse(&root, &mut name).unwrap();
    assert_eq!((name.wire(), name.labels()), (&b"\0"[..], &[][..]));
}

#[test]
fn dns_odd_questions_have_their_reason_and_their_answer() {
    let good = query(&[]);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let whole = |name: &[u8]| [&good[..12], name, &good[26..]].concat();
    let deep = |labels: usize| [&b"\x01a".repeat(labels)[..], b"\0"].concat();
    let record = |owner: &[u8], kind: u16| [owner, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let (plain, cookie) = (opt(b""), |bytes: usize| opt(&[&[0, 10, 0, bytes as u8][..], &vec![7; bytes]].concat()));
    for (bytes, reason) in [
        (vec![], Refused::TooShort),
        (good[..11].to_vec(), Refused::TooShort),
        (vec![0; 1_233], Refused::TooLong),
        (changed(2, 0x81), Refused::Response),
        (changed(2, 0x28), Refused::Opcode),
        (changed(5, 0), Refused::QuestionCount),
        (changed(5, 2), Refused::QuestionCount),
        (changed(4, 1), Refused::QuestionCount),
        (changed(7, 1), Refused::Records),
        (changed(9, 1), Refused::Records),
        (changed(11, 5), Refused::Records),
        (changed(11, 1), Refused::CutShort),
        // RFC 9267 §2: pointers to themselves, forwards, backwards into the header, and beyond the end.
        (changed(12, 0xc0), Refused::Name),
        (whole(b"\xc0\x0c"), Refused::Name),
        (whole(b"\x01a\xc0\x0c"), Refused::Name),
        (whole(b"\x01a\xc0\x20"), Refused::Name),
        (whole(b"\x01a\xc0\0"), Refused::Name),
        (whole(b"\xff\xff"), Refused::Name),
        // §3: a name that does not end, labels and names above their limits, reserved kinds of labels.
        (good[..20].to_vec(), Refused::CutShort),
        (whole(&[&b"\x40"[..], &[b'a'; 64], b"\0"].concat()), Refused::Name),
        (whole(b"\x80a\0"), Refused::Name),
        (whole(&deep(128)), Refused::Name),
        (whole(&[&b"\x3f"[..], &[b'a'; 63]].concat().repeat(4)), Refused::Name),
        (good[..27].to_vec(), Refused::CutShort),
        // §4: lengths and counts that are not so.
        (query(&[&plain[..5]]), Refused::CutShort),
        (query(&[&[&plain[..9], &[0, 9]].concat()]), Refused::CutShort),
        ([&good[..], b"x"].concat(), Refused::TrailingBytes),
        (query(&[&record(b"\xc0\x0c", 41)]), Refused::Edns),
        (query(&[&record(b"\x01a\0", 41)]), Refused::Edns),
        (query(&[&plain, &plain]), Refused::Edns),
        (query(&[&opt(b"\0\x0a")]), Refused::Edns),
        (query(&[&opt(b"\0\x03\0\x02x")]), Refused::Edns),
        (query(&[&cookie(7)]), Refused::Cookie),
        (query(&[&cookie(9)]), Refused::Cookie),
        (query(&[&cookie(41)]), Refused::Cookie),
        (query(&[&record(b"\0", 250)]), Refused::Signed),
        (query(&[&plain, &record(b"\x03key\0", 250)]), Refused::Signed),
        (query(&[&record(b"\x40a\0", 1)]), Refused::Name),
    ] {
        assert_eq!(parse(&bytes), Err(reason), "{}", bytes.escape_ascii());
        let told = reason.answer(&bytes);
        assert_eq!(told.map(|answer| answer[3]), reason.code(), "{reason:?}");
        assert!(told.is_none_or(|answer| answer.len() <= bytes.len() && answer[2] & 0x80 != 0));
    }
    assert!(parse(&whole(&deep(127))).is_ok());
    assert!(parse(&query(&[&record(b"\xc0\x0c", 1), &plain])).is_ok(), "a record that says nothing to us");
    assert!(parse(&query(&[&cookie(16)])).is_ok() && parse(&query(&[&cookie(40)])).is_ok());
    // The first cookie counts (RFC 7873 §5.2).
    let two = opt(&[&b"\0\x0a\0\x0812345678"[..], b"\0\x0a\0\x01x"].concat());
    assert_eq!(parse(&query(&[&two])).unwrap().edns.unwrap().cookie.unwrap().0, b"12345678");
}

#[test]
fn every_prefix_and_every_changed_octet_is_safe() {
    let good = query(&[&opt(b"\0\x0a\0\x0812345678")]);
    for end in 0..good.len() {
        assert!(parse(&good[..end]).is_err(), "prefix of {end}");
    }
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Err(reason) = parse(&bytes) {
                let _ = reason.answer(&bytes);
            }
        }
    }
    for first in 0..=255 {
        assert_eq!(parse(&[first]), Err(Refused::TooShort));
        assert!((0..=255).all(|second| parse(&[first, second]) == Err(Refused::TooShort)));
    }
}

#[test]
fn an_answer_is_what_a_client_reads() {
    let bytes = query(&[&opt(b"\0\x0a\0\x0812345678")]);
    let request = parse(&bytes).unwrap();
    let mut buffer = [0; 1_500];
    let mut reply = Reply::begin(&request, Some([9; 16]), &mut buffer).unwrap();
    reply.record(Section::Answer, 12, b"\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01").unwrap();
    let length = reply.finish(rcode::NO_ERROR, Authority::Ours);
    let read = Response::parse(&buffer[..length]).unwrap();
    assert!(read.is_authoritative && !read.is_truncated && read.is_about(request.question));
    assert_eq!((read.id, read.answers, read.question), (0x1234, 1, request.question));
    assert_eq!(
        &buffer[length - 28..length],
        b"\0\x0a\0\x1812345678\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09"
    );
    assert_eq!(&buffer[length - 39..length - 28], b"\0\0\x29\x04\xd0\0\0\x80\0\0\x1c");
    assert_eq!(buffer[3] & 0x10, 0x10, "checking disabled is repeated");
}

#[test]
fn what_does_not_fit_is_not_sent_in_part() {
    let bytes = query(&[]);
    let request = parse(&bytes).unwrap();
    let mut buffer = [0; 1_500];
    let mut reply = Reply::begin(&request, None, &mut buffer).unwrap();
    let record = [&b"\0\x10\0\x01\0\0\0\x3c\0\xff"[..], &[b'x'; 255]].concat();
    reply.record(Section::Answer, 12, &record).unwrap();
    assert!(reply.record(Section::Answer, 12, &record).is_err(), "512 without EDNS");
    assert_eq!(reply.len(), bytes.len() + 2 + record.len());
    reply.truncate();
    let length = reply.finish(rcode::NO_ERROR, Authority::Ours);
    let read = Response::parse(&buffer[..length]).unwrap();
    assert!(read.is_truncated && read.answers == 0 && length == bytes.len());
}

#[test]
fn a_code_above_fifteen_stands_in_two_places() {
    let bytes = query(&[&opt(b"")]);
    let mut buffer = [0; 600];
    let length = Reply::begin(&parse(&bytes).unwrap(), None, &mut buffer)
        .unwrap()
        .finish(rcode::BAD_VERSION, Authority::Elsewhere);
    assert_eq!((buffer[3] & 15, buffer[length - 6]), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let whole = [&[0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], &bytes[..]].concat();
        if let Ok(request) = parse(&whole) {
            let mut buffer = [0; 1_500];
            let length = Reply::begin(&request, Some([1; 16]), &mut buffer).unwrap().finish(0, Authority::Ours);
            prop_assert!(Response::parse(&buffer[..length]).unwrap().is_about(request.question));
        }
    }
}
