//! Questions over DNS: read, and answered out of a table of names that has one of everything.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;

use bootstorm_engine::dns::{Kind, Rates, Responder};
use bootstorm_engine::{Index, Time};
use bootstorm_proto::dns::answer::Response;
use bootstorm_proto::dns::reply::{Authority, Reply};
use bootstorm_proto::dns::request::{LowerName, Request};
use bootstorm_proto::limits::{DNS_NAME_BYTES_MAX, DNS_PLAIN_BYTES_MAX, DNS_REPLY_BYTES_MAX};
use bootstorm_snapshot::View;
use bootstorm_snapshot::dns::{DnsName, Name, RecordSet, Zone, kind};
use bootstorm_snapshot::names::Labels;
use bootstorm_snapshot::record::Record;

/// A question; an answer to it repeats it. What is refused is told in less than it took to ask.
pub fn dns_request_parse(data: &[u8]) {
    let mut name = LowerName::default();
    match Request::parse(data, &mut name) {
        Ok(request) => {
            assert!(name.wire().len() <= DNS_NAME_BYTES_MAX && request.question.len() == name.wire().len() + 4);
            assert!(request.question[..name.wire().len()].eq_ignore_ascii_case(name.wire()));
            assert_eq!(Labels::of(name.wire()).expect("a name").starts(), name.labels());
            let mut buffer = [0; DNS_REPLY_BYTES_MAX];
            let reply = Reply::begin(&request, Some([7; 16]), &mut buffer).expect("room for the question");
            let length = reply.finish(0, Authority::Ours);
            assert!(Response::parse(&buffer[..length]).expect("our own answer").is_about(request.question));
        }
        Err(reason) => {
            if let Some(answer) = reason.answer(data) {
                assert!(answer.len() <= data.len() && answer[2] & 0x80 != 0);
            }
        }
    }
}

/// A question and what is answered; the first octet says whether its source is one of ours. What is sent can be read, is no longer than
/// its asker takes, and above the limit no longer than the question.
pub fn dns_process(data: &[u8]) {
    let Some((who, question)) = data.split_first() else { return };
    let from = Ipv4Addr::new(10, 0, who >> 1, 9);
    INDEX.with(|index| {
        RESPONDER.with_borrow_mut(|responder| {
            let mut buffer = [0; DNS_REPLY_BYTES_MAX];
            let now = Time { monotonic: Duration::from_secs(9), unix_micros: 1_700_000_000_000_000 };
            let outcome = responder.handle_query(index, now, from.into(), question, &mut buffer);
            let answer = &buffer[..outcome.bytes];
            let has_question = outcome.what.is_ok() && !answer.is_empty();
            if has_question {
                let read = Response::parse(answer).expect("our own answer can be read");
                let has_edns = question[11] > 0;
                assert!(has_edns || answer.len() <= DNS_PLAIN_BYTES_MAX);
                assert_eq!(&question[..2], &read.id.to_be_bytes());
            }
            if outcome.what == Ok(Kind::Limited) {
                assert!(answer.len() <= question.len());
            }
        });
    });
}

thread_local! {
    static INDEX: Index = index().expect("names that are names");
    static RESPONDER: RefCell<Responder> = RefCell::new(Responder::new([7; 32], Rates { client: 1_000_000, stranger: 1_000_000 }));
}

fn index() -> Result<Index, bootstorm_snapshot::ids::ParseIdError> {
    let mut view = View::default();
    for apex in ["z.test", "y.z.test"] {
        let name: DnsName = apex.parse()?;
        view.put(Record::Zone(Zone {
            name: name.clone(),
            primary: name.clone(),
            contact: "root.z.test".parse()?,
            serial: 1,
            refresh_seconds: 1,
            retry_seconds: 1,
            expire_seconds: 1,
            negative_seconds: 1,
            ttl_seconds: 1,
        }));
    }
    let addresses = |count: u8| RecordSet::a(1, (0..count).map(|last| Ipv4Addr::new(10, 0, 0, last)));
    let alias = |target: &str| Ok(RecordSet::of_names(kind::CNAME, 1, [&target.parse::<DnsName>()?]));
    let servers = [&"ns.d.z.test".parse::<DnsName>()?, &"d.z.test".parse()?, &"ns.other".parse()?];
    for (owner, set) in [
        ("a.z.test", addresses(1)),
        ("b.c.z.test", addresses(200)),
        ("*.w.z.test", alias("a.z.test")?),
        ("l.z.test", alias("m.z.test")?),
        ("m.z.test", alias("l.z.test")?),
        ("n.z.test", alias("x.w.z.test")?),
        ("d.z.test", RecordSet::of_names(kind::NS, 1, servers)),
        ("ns.d.z.test", addresses(20)),
    ] {
        view.put(Record::Name(Name { name: owner.parse()?, sets: vec![set] }));
    }
    Ok(Index::new(view))
}
