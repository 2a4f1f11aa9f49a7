use core::net::Ipv4Addr;
use core::time::Duration;

use bootstorm_proto::dns::RecordType;
use bootstorm_proto::dns::query::write_question;
use bootstorm_proto::limits::DNS_REPLY_BYTES_MAX;
use bootstorm_snapshot::dhcp::Octets;
use bootstorm_snapshot::dns::{DnsName, Name, RecordSet, Zone, kind};
use bootstorm_snapshot::record::Record;
use bootstorm_snapshot::{SubnetId, View, VlanId, record};

use super::*;
use crate::limits;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const DS: u16 = kind::DS;

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn zone(text: &str) -> Record {
    Record::Zone(Zone {
        name: name(text),
        primary: name(&format!("ns.{text}")),
        contact: name("root.example"),
        serial: 7,
        refresh_seconds: 1,
        retry_seconds: 2,
        expire_seconds: 3,
        negative_seconds: 30,
        ttl_seconds: 60,
    })
}

fn index() -> Index {
    let a = |last| RecordSet::a(60, [[10, 0, 0, last].into()]);
    let names = |kind, targets: &[&str]| {
        let targets: Vec<DnsName> = targets.iter().map(|target| name(target)).collect();
        RecordSet::of_names(kind, 60, &targets)
    };
    let cname = |target: &str| names(kind::CNAME, &[target]);
    let text = |count: usize| RecordSet {
        kind: kind::TXT,
        ttl_seconds: 60,
        data: (0..count).map(|n| Octets([&[99][..], &[n as u8; 99]].concat())).collect(),
    };
    let mx = |target: &str| RecordSet {
        kind: kind::MX,
        ttl_seconds: 60,
        data: vec![Octets([&[0, 5], name(target).wire()].concat())],
    };
    let mut view = View::default();
    view.put(Record::Subnet(record::Subnet {
        id: SubnetId(1),
        vlan: VlanId(1),
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: None,
        dns_servers: vec![],
        ntp_servers: vec![],
        domain: None,
        mtu: None,
        dhcp: true,
        dynamic: vec![],
        ipv6_prefix: None,
    }));
    ["z.test", "deep.z.test", "10.in-addr.arpa", "y.test"].map(zone).into_iter().for_each(|zone| view.put(zone));
    for (owner, sets) in [
        ("z.test", vec![names(kind::NS, &["ns.z.test", "ns.other"]), mx("mail.z.test")]),
        ("deep.z.test", vec![names(kind::NS, &["ns.deep.z.test"])]),
        ("ns.z.test", vec![a(1)]),
        ("n1.z.test", vec![a(2), RecordSet::aaaa(60, ["2001:db8::1".parse().unwrap()]), text(1)]),
        ("a.b.c.z.test", vec![a(3)]),
        ("*.w.z.test", vec![a(4), mx("w.z.test")]),
        ("own.w.z.test", vec![a(5)]),
        ("*.alias.z.test", vec![cname("n1.z.test")]),
        ("alias1.z.test", vec![cname("alias2.z.test")]),
        ("alias2.z.test", vec![cname("n1.z.test")]),
        ("alias3.z.test", vec![cname("none.z.test")]),
        ("alias4.z.test", vec![cname("a.elsewhere")]),
        ("alias5.z.test", vec![cname("n1.y.test")]),
        ("alias6.z.test", vec![cname("b.c.z.test")]),
        ("alias7.z.test", vec![cname("z.test")]),
        ("alias8.z.test", vec![cname("x.sub.z.test")]),
        ("loop1.z.test", vec![cname("loop2.z.test")]),
        ("loop2.z.test", vec![cname("loop1.z.test")]),
        ("sub.z.test", vec![names(kind::NS, &["ns.sub.z.test", "sub.z.test", "ns.other"])]),
        ("ns.sub.z.test", vec![a(6)]),
        ("big.z.test", vec![text(20)]),
        ("n1.y.test", vec![a(7)]),
        ("2.0.0.10.in-addr.arpa", vec![names(kind::PTR, &["n1.z.test"])]),
    ] {
        view.put(Record::Name(Name { name: name(owner), sets }));
    }
    Index::new(view)
}

fn responder() -> Responder {
    Responder::new([7; 32], Rates { client: 1_000, stranger: 4 })
}

fn now(milliseconds: u64) -> Time {
    Time { monotonic: Duration::from_millis(milliseconds), unix_micros: 1_700_000_000_000_000 + milliseconds * 1_000 }
}

fn query(text: &str, kind: u16) -> Vec<u8> {
    let mut question = [0; 300];
    let length = write_question(text, RecordType::A, &mut question).unwrap();
    question[length - 4..length - 2].copy_from_slice(&kind.to_be_bytes());
    [&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &question[..length]].concat()
}

fn with_edns(mut query: Vec<u8>, bytes: u16, options: &[u8]) -> Vec<u8> {
    let [a, b] = bytes.to_be_bytes();
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41, a, b, 0, 0, 0, 0, 0, options.len() as u8]);
    [query, options.to_vec()].concat()
}

/// An answer as text: code, flags, then each section's records; names in data are followed through their pointers.
fn read(bytes: &[u8]) -> String {
    let code = bytes[3] & 15;
    let flags = [(bytes[2] & 4 != 0, "aa"), (bytes[2] & 2 != 0, "tc")];
    let mut text = code.to_string();
    flags.iter().filter(|(set, _)| *set).for_each(|(_, flag)| text += &format!(" {flag}"));
    let mut at = 12;
    name_at(bytes, &mut at);
    at += 4;
    for (section, count) in [("", bytes[7]), (" |", bytes[9]), (" +", bytes[11])] {
        for _ in 0..count {
            let owner = name_at(bytes, &mut at);
            let head: [u8; 10] = bytes[at..at + 10].try_into().unwrap();
            at += 10;
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let end = at + usize::from(u16::from_be_bytes([head[8], head[9]]));
            let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            let data = match kind {
                kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..end]).unwrap()).to_string(),
                kind::NS | kind::CNAME | kind::PTR => name_at(bytes, &mut at.clone()),
                kind::MX => name_at(bytes, &mut (at + 2)),
                kind::SOA => {
                    let mut place = at;
                    let names = [name_at(bytes, &mut place), name_at(bytes, &mut place)];
                    assert_eq!(place + 20, end, "five numbers");
                    format!("{} {} {ttl}", names[0], names[1])
                }
                _ => format!("{kind}"),
            };
            at = end;
            if kind != 41 {
                text += &format!("{section} {owner} {data}");
            }
        }
    }
    assert_eq!(at, bytes.len(), "octets after the last record");
    text
}

fn name_at(bytes: &[u8], at: &mut usize) -> String {
    let mut wire = Vec::new();
    let mut place = *at;
    let mut is_jumped = false;
    loop {
        let length = bytes[place];
        if length >= 0xc0 {
            let next = usize::from(u16::from_be_bytes([length & 0x3f, bytes[place + 1]]));
            assert!(next < place, "pointers lead backwards");
            if !std::mem::replace(&mut is_jumped, true) {
                *at = place + 2;
            }
            place = next;
            continue;
        }
        wire.extend_from_slice(&bytes[place..=place + usize::from(length)]);
        place += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    if !is_jumped {
        *at = place;
    }
    DnsName::from_wire(&wire).unwrap().to_string()
}

fn ask(responder: &mut Responder, index: &Index, from: Ipv4Addr, question: &[u8]) -> (Outcome, Vec<u8>) {
    let mut buffer = [0; DNS_REPLY_BYTES_MAX];
    let outcome = responder.handle_query(index, now(5_000), from.into(), question, &mut buffer);
    (outcome, buffer[..outcome.bytes].to_vec())
}

fn answer(text: &str, kind: u16) -> String {
    let (outcome, bytes) = ask(&mut responder(), &index(), CLIENT, &query(text, kind));
    assert!(outcome.what.is_ok());
    read(&bytes)
}

#[test]
fn dns_answers_follow_the_names_that_are_there() {
    let soa = |apex: &str| format!("| {apex} ns.{apex} root.example 30");
    let (z, deep) = (soa("z.test"), soa("deep.z.test"));
    for (asked, kind, expected) in [
        ("n1.z.test", kind::A, "0 aa n1.z.test 10.0.0.2".to_string()),
        ("N1.Z.Test", kind::A, "0 aa n1.z.test 10.0.0.2".to_string()),
        ("n1.z.test", kind::AAAA, "0 aa n1.z.test 28".into()),
        ("n1.z.test", kind::MX, format!("0 aa {z}")),
        ("n1.z.test", 65_280, format!("0 aa {z}")),
        // RFC 8482: one set of several.
        ("n1.z.test", 255, "0 aa n1.z.test 10.0.0.2".into()),
        ("2.0.0.10.in-addr.arpa", kind::PTR, "0 aa 2.0.0.10.in-addr.arpa n1.z.test".into()),
        ("z.test", kind::SOA, "0 aa z.test ns.z.test root.example 60".into()),
        ("z.test", kind::NS, "0 aa z.test ns.z.test z.test ns.other".into()),
        ("z.test", kind::MX, "0 aa z.test mail.z.test".into()),
        ("z.test", kind::A, format!("0 aa {z}")),
        // RFC 2308, RFC 8020, RFC 4592 §2.2.2: not there, and empty non-terminals.
        ("none.z.test", kind::A, format!("3 aa {z}")),
        ("x.n1.z.test", kind::A, format!("3 aa {z}")),
        ("1.2.3.4.5.z.test", kind::A, format!("3 aa {z}")),
        ("c.z.test", kind::A, format!("0 aa {z}")),
        ("b.c.z.test", 255, format!("0 aa {z}")),
        ("x.b.c.z.test", kind::A, format!("3 aa {z}")),
        // RFC 4592: wildcards.
        ("x.w.z.test", kind::A, "0 aa x.w.z.test 10.0.0.4".into()),
        ("x.y.w.z.test", kind::A, "0 aa x.y.w.z.test 10.0.0.4".into()),
        ("x.w.z.test", kind::MX, "0 aa x.w.z.test w.z.test".into()),
        ("x.w.z.test", kind::AAAA, format!("0 aa {z}")),
        ("*.w.z.test", kind::A, "0 aa *.w.z.test 10.0.0.4".into()),
        ("own.w.z.test", kind::A, "0 aa own.w.z.test 10.0.0.5".into()),
        ("own.w.z.test", kind::MX, format!("0 aa {z}")),
        ("x.own.w.z.test", kind::A, format!("3 aa {z}")),
        ("w.z.test", kind::A, format!("0 aa {z}")),
        // RFC 1034 §4.3.2: aliases, as far as the zone has them.
        ("alias1.z.test", kind::CNAME, "0 aa alias1.z.test alias2.z.test".into()),
        (
            "alias1.z.test",
            kind::A,
            "0 aa alias1.z.test alias2.z.test alias2.z.test n1.z.test n1.z.test 10.0.0.2".into(),
        ),
        ("x.alias.z.test", kind::A, "0 aa x.alias.z.test n1.z.test n1.z.test 10.0.0.2".into()),
        ("alias1.z.test", kind::MX, format!("0 aa alias1.z.test alias2.z.test alias2.z.test n1.z.test {z}")),
        ("alias3.z.test", kind::A, format!("3 aa alias3.z.test none.z.test {z}")),
        ("alias4.z.test", kind::A, "0 aa alias4.z.test a.elsewhere".into()),
        ("alias5.z.test", kind::A, "0 aa alias5.z.test n1.y.test".into()),
        ("alias6.z.test", kind::A, format!("0 aa alias6.z.test b.c.z.test {z}")),
        ("alias7.z.test", kind::MX, "0 aa alias7.z.test z.test z.test mail.z.test".into()),
        ("alias8.z.test", kind::A, "0 aa alias8.z.test x.sub.z.test".into()),
        // Delegations: their servers with the addresses that nobody could find without us, and no authority.
        (
            "x.sub.z.test",
            kind::A,
            "0 | sub.z.test ns.sub.z.test | sub.z.test sub.z.test | sub.z.test ns.other + ns.sub.z.test 10.0.0.6"
                .into(),
        ),
        (
            "ns.sub.z.test",
            kind::A,
            "0 | sub.z.test ns.sub.z.test | sub.z.test sub.z.test | sub.z.test ns.other + ns.sub.z.test 10.0.0.6"
                .into(),
        ),
        // RFC 4035 §3.1.4.1: what the zone above says of a delegation, and of a zone that we have too.
        ("sub.z.test", DS, format!("0 aa {z}")),
        ("deep.z.test", DS, format!("0 aa {z}")),
        ("z.test", DS, format!("0 aa {z}")),
        ("x.deep.z.test", kind::A, format!("3 aa {deep}")),
        // Not ours.
        ("elsewhere", kind::A, "5".into()),
        ("test", kind::A, "5".into()),
        (".", kind::NS, "5".into()),
        ("z.test", 252, "5".into()),
        ("z.test", 251, "5".into()),
        ("z.test", 250, "4".into()),
        ("z.test", 41, "1".into()),
    ] {
        assert_eq!(answer(asked, kind), expected, "{asked} {kind}");
    }
    assert_eq!(answer("loop1.z.test", kind::A).split(' ').count(), 2 + 2 * limits::DNS_ALIASES_MAX, "a loop ends");
    let empty = ask(&mut responder(), &Index::default(), CLIENT, &query("a.test", 1)).1;
    assert_eq!(read(&empty), "5");
}

#[test]
fn dns_letters_of_the_question_come_back_as_they_came() {
    let (_, bytes) = ask(&mut responder(), &index(), CLIENT, &query("nOnE.z.tEsT", 1));
    assert_eq!(&bytes[12..25], b"\x04nOnE\x01z\x04tEsT\0");
}

#[test]
fn dns_compression_is_as_short_as_it_can_be() {
    let length = |text: &str, kind| ask(&mut responder(), &index(), CLIENT, &query(text, kind)).1.len();
    // Question, pointer, type, class, lifetime, length, label, pointer.
    assert_eq!(length("alias4.z.test", kind::CNAME), 12 + 15 + 4 + 12 + 13);
    assert_eq!(length("z.test", kind::NS), 12 + 8 + 4 + (12 + 3 + 2) + (12 + 10));
    assert_eq!(length("none.z.test", 1), 12 + 13 + 4 + 12 + (3 + 2) + 14 + 20);
    assert_eq!(length("x.w.z.test", kind::MX), 12 + 12 + 4 + 12 + 2 + 2);
}

#[test]
fn dns_what_does_not_fit_is_said_and_not_sent_in_part() {
    let index = index();
    let (outcome, bytes) = ask(&mut responder(), &index, CLIENT, &query("big.z.test", kind::TXT));
    assert_eq!((outcome.what, read(&bytes).as_str()), (Ok(Kind::Truncated), "0 aa tc"));
    let large = with_edns(query("big.z.test", kind::TXT), 4_096, &[]);
    let (outcome, bytes) = ask(&mut responder(), &index, CLIENT, &large);
    assert_eq!(outcome.what, Ok(Kind::Truncated), "never above 1,232 octets");
    assert!(bytes.len() <= large.len());
}

#[test]
fn dns_rcodes_of_rfc_8906_and_rfc_6891() {
    let index = index();
    let mut version = with_edns(query("n1.z.test", 1), 1_232, &[]);
    let at = version.len() - 5;
    version[at] = 1;
    let (outcome, bytes) = ask(&mut responder(), &index, CLIENT, &version);
    assert_eq!(outcome.what, Ok(Kind::BadVersion));
    assert_eq!((bytes[3] & 15, bytes[bytes.len() - 6], bytes[bytes.len() - 5]), (0, 1, 0), "BADVERS, and ours is 0");
    let mut chaos = query("version.bind", kind::TXT);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(read(&ask(&mut responder(), &index, CLIENT, &chaos).1), "5");
    for (opcode, code) in [(1, 4), (4, 4), (5, 4), (15, 4)] {
        let mut other = query("n1.z.test", 1);
        other[2] = opcode << 3;
        let (outcome, bytes) = ask(&mut responder(), &index, CLIENT, &other);
        assert_eq!((outcome.what, bytes.len(), bytes[3]), (Err(Refused::Opcode), 12, code));
        assert_eq!(bytes[2] >> 3 & 15, opcode);
    }
    // Flags without a meaning for us are no reason not to answer.
    let mut flags = query("n1.z.test", 1);
    (flags[2], flags[3]) = (0x07, 0xf0);
    assert_eq!(read(&ask(&mut responder(), &index, CLIENT, &flags).1), "0 aa n1.z.test 10.0.0.2");
}

#[test]
fn dns_a_response_is_never_answered() {
    let mut response = query("n1.z.test", 1);
    response[2] |= 0x80;
    let (outcome, _) = ask(&mut responder(), &index(), CLIENT, &response);
    assert_eq!(outcome, Outcome { what: Err(Refused::Response), bytes: 0 });
}

#[test]
fn t8_strangers_get_few_answers_and_none_that_is_longer_than_the_question() {
    let (index, mut responder) = (index(), responder());
    let cookie = &b"\0\x0a\0\x08abcdefgh"[..];
    for question in [query("n1.z.test", 255), with_edns(query("none.z.test", 1), 4_096, cookie)] {
        let mut bytes = Vec::new();
        let mut sent = 0;
        for last in 0..100 {
            // The whole /24 is one source.
            let from = Ipv4Addr::new(192, 0, 2, last);
            let (outcome, answer) = ask(&mut responder, &index, from, &question);
            if outcome.what == Ok(Kind::Limited) {
                assert!(answer.len() <= question.len(), "{} for {}", answer.len(), question.len());
                sent += usize::from(!answer.is_empty());
                bytes = answer;
            } else {
                assert!(last < 4, "the limit is four a second");
            }
        }
        assert_eq!(sent, 48, "every second one above the limit");
        assert_eq!(read(&bytes), "0 tc");
    }
    let (outcome, _) = ask(&mut responder, &index, Ipv4Addr::new(192, 0, 3, 1), &query("n1.z.test", 255));
    assert_eq!(outcome.what, Ok(Kind::Answer), "another network is another source");
    let mut buffer = [0; DNS_REPLY_BYTES_MAX];
    let later = responder.handle_query(&index, now(6_000), STRANGER.into(), &query("n1.z.test", 1), &mut buffer);
    assert_eq!(later.what, Ok(Kind::Answer), "the next second is another one");
}

#[test]
fn t8_malformed_questions_are_limited_too() {
    let (index, mut responder) = (index(), responder());
    let outcomes: Vec<usize> =
        (0..20).map(|_| ask(&mut responder, &index, STRANGER, &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).0.bytes).collect();
    assert_eq!(outcomes.iter().filter(|bytes| **bytes > 0).count(), 4);
}

#[test]
fn t8_a_cookie_lifts_the_limit_for_its_address_alone() {
    let (index, mut responder) = (index(), responder());
    let client = &b"\0\x0a\0\x08abcdefgh"[..];
    let (_, first) = ask(&mut responder, &index, STRANGER, &with_edns(query("n1.z.test", 1), 1_232, client));
    let ours = first[first.len() - 16..].to_vec();
    let both = [&b"\0\x0a\0\x18abcdefgh"[..], &ours].concat();
    let question = with_edns(query("n1.z.test", 1), 1_232, &both);
    for _ in 0..50 {
        assert_eq!(ask(&mut responder, &index, STRANGER, &question).0.what, Ok(Kind::Answer));
    }
    let forged: Vec<_> =
        (0..50).map(|_| ask(&mut responder, &index, Ipv4Addr::new(198, 51, 100, 1), &question).0.what).collect();
    assert_eq!(forged.iter().filter(|what| **what == Ok(Kind::Answer)).count(), 4);
}

#[test]
fn clients_on_our_subnets_are_told_apart() {
    let (index, mut responder) = (index(), responder());
    for _ in 0..100 {
        assert_eq!(ask(&mut responder, &index, CLIENT, &query("n1.z.test", 1)).0.what, Ok(Kind::Answer));
    }
    assert!(index.is_client(CLIENT) && index.is_client(Ipv4Addr::new(10, 0, 0, 255)));
    assert!(!index.is_client(Ipv4Addr::new(10, 0, 1, 0)) && !index.is_client(STRANGER));
}

#[test]
fn p9_every_prefix_and_every_changed_octet_is_answered_or_dropped() {
    let (index, mut responder) = (index(), Responder::new([7; 32], Rates { client: u32::MAX, stranger: 0 }));
    let good = with_edns(query("x.w.z.test", kind::MX), 1_232, b"\0\x0a\0\x08abcdefgh");
    let mut check = |bytes: &[u8]| {
        let (outcome, answer) = ask(&mut responder, &index, CLIENT, bytes);
        assert_eq!(answer.len(), outcome.bytes);
        assert!(answer.is_empty() || answer[2] & 0x80 != 0);
        if outcome.what.is_ok() {
            read(&answer);
        }
    };
    (0..good.len()).for_each(|end| check(&good[..end]));
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = value;
            check(&bytes);
        }
    }
}
