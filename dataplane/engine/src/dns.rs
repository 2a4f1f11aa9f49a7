//! Authoritative DNS over UDP: one question in, one answer or nothing out.
//!
//! [`Responder::handle_query`] is a function of the question, the generation's names, the time and where it came from; what it keeps
//! is how much each source was sent in this second. Nothing here allocates after the start. What a rack does not have is refused:
//! it asks nobody. Answers are minimal (no additional records but glue), and what does not fit is left to another transport.
//!
//! | asked for | answered |
//! |---|---|
//! | a set that is there | the set, with authority |
//! | a name with an alias | the alias, and what it leads to inside the zone |
//! | ANY | one set (RFC 8482 §4.1) |
//! | a type that is not there, or an empty non-terminal | no error, the zone's SOA (RFC 2308 §2.2) |
//! | a name that a wildcard stands for | as the wildcard, with the name asked for as its owner (RFC 4592) |
//! | a name that is not there | NXDOMAIN, the zone's SOA (RFC 2308 §2.1) |
//! | a name at or below a delegation | its name servers and their glue, without authority (RFC 1034 §4.3.2) |
//! | a zone that is not here, a transfer, another class | REFUSED |

mod answer;
mod cookie;
mod rate;

use core::net::IpAddr;

use bootstorm_proto::dns::rcode;
use bootstorm_proto::dns::reply::{Authority, DoesNotFit, Reply};
pub use bootstorm_proto::dns::request::Refused;
use bootstorm_proto::dns::request::{LowerName, Request};
use bootstorm_snapshot::names::Query;

use crate::{Index, Time};
use answer::Answer;
use cookie::Cookies;
pub use rate::Rates;
use rate::{RateLimit, Verdict};

/// Class “internet” (RFC 1035 §3.2.4).
const CLASS_IN: u16 = 1;
/// A transfer of what has changed (RFC 1995), and of a whole zone (RFC 5936): not over UDP.
const TRANSFERS: core::ops::RangeInclusive<u16> = 251..=252;

/// What came of a question. Stable names for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What was asked for.
    Answer,
    /// The name is there, the type is not.
    NoData,
    /// The name is not there.
    NameError,
    /// Somebody else has it.
    Referral,
    /// It did not fit.
    Truncated,
    /// It is not ours.
    NotOurs,
    /// A kind of question that is not answered.
    NotImplemented,
    /// A version of EDNS that is not spoken.
    BadVersion,
    /// A type that no question has.
    BadType,
    /// Its source has had enough in this second.
    Limited,
}

impl Kind {
    /// All of them, in the order of the counters.
    pub const ALL: [Kind; 10] = [
        Kind::Answer,
        Kind::NoData,
        Kind::NameError,
        Kind::Referral,
        Kind::Truncated,
        Kind::NotOurs,
        Kind::NotImplemented,
        Kind::BadVersion,
        Kind::BadType,
        Kind::Limited,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Answer => "answer",
            Kind::NoData => "no_data",
            Kind::NameError => "nxdomain",
            Kind::Referral => "referral",
            Kind::Truncated => "truncated",
            Kind::NotOurs => "refused",
            Kind::NotImplemented => "notimp",
            Kind::BadVersion => "badvers",
            Kind::BadType => "formerr",
            Kind::Limited => "limited",
        }
    }

    fn code(self) -> (u8, Authority) {
        match self {
            Kind::Answer | Kind::NoData | Kind::Truncated => (rcode::NO_ERROR, Authority::Ours),
            Kind::NameError => (rcode::NAME_ERROR, Authority::Ours),
            Kind::Referral | Kind::Limited => (rcode::NO_ERROR, Authority::Elsewhere),
            Kind::NotOurs => (rcode::REFUSED, Authority::Elsewhere),
            Kind::NotImplemented => (rcode::NOT_IMPLEMENTED, Authority::Elsewhere),
            Kind::BadVersion => (rcode::BAD_VERSION, Authority::Elsewhere),
            Kind::BadType => (rcode::FORMAT_ERROR, Authority::Elsewhere),
        }
    }
}

/// What is to be sent for a datagram, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What it was.
    pub what: Result<Kind, Refused>,
    /// Octets of the answer in the caller's buffer; 0: nothing is sent.
    pub bytes: usize,
}

/// The answering of one shard.
#[derive(Debug)]
pub struct Responder {
    name: LowerName,
    cookies: Cookies,
    rates: RateLimit,
}

impl Responder {
    /// `secret` is random and the rack's own: cookies are made with it, and sources cannot foresee whom they share a count with.
    pub fn new(secret: [u8; 32], rates: Rates) -> Responder {
        Responder { name: LowerName::default(), cookies: Cookies::new(secret), rates: RateLimit::new(&secret, rates) }
    }

    /// Answers a datagram into `buffer`, which has room for [`bootstorm_proto::limits::DNS_REPLY_BYTES_MAX`].
    pub fn handle_query(
        &mut self,
        index: &Index,
        now: Time,
        from: IpAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Outcome {
        let request = match Request::parse(datagram, &mut self.name) {
            Ok(request) => request,
            Err(reason) => return self.refuse(index, now, from, reason, datagram, buffer),
        };
        let cookie = request.edns.and_then(|edns| edns.cookie);
        let cookie = cookie.map(|(client, server)| self.cookies.check(now.unix_seconds(), from, client, server));
        let Ok(mut reply) = Reply::begin(&request, cookie.map(|cookie| cookie.server), buffer) else {
            return Outcome { what: Err(Refused::TooLong), bytes: 0 };
        };
        let mut kind = match resolve(index, &request, &self.name, &mut reply) {
            Ok(kind) => kind,
            Err(DoesNotFit) => {
                reply.truncate();
                Kind::Truncated
            }
        };
        // Who repeats a cookie of ours is who it says.
        if !cookie.is_some_and(|cookie| cookie.is_proven) {
            match self.rates.count(index, now, from, kind as u8) {
                Verdict::Send => {}
                Verdict::Drop => return Outcome { what: Ok(Kind::Limited), bytes: 0 },
                Verdict::Slip => {
                    kind = Kind::Limited;
                    reply.truncate();
                    reply.without_cookie();
                }
            }
        }
        let (code, authority) = kind.code();
        Outcome { what: Ok(kind), bytes: reply.finish(code, authority) }
    }

    fn refuse(
        &mut self,
        index: &Index,
        now: Time,
        from: IpAddr,
        reason: Refused,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Outcome {
        let nothing = Outcome { what: Err(reason), bytes: 0 };
        let Some(answer) = reason.answer(datagram) else { return nothing };
        if self.rates.count(index, now, from, u8::MAX) != Verdict::Send {
            return Outcome { what: Ok(Kind::Limited), bytes: 0 };
        }
        let Some(place) = buffer.first_chunk_mut() else { return nothing };
        *place = answer;
        Outcome { what: Err(reason), bytes: answer.len() }
    }
}

fn resolve(index: &Index, request: &Request<'_>, name: &LowerName, reply: &mut Reply<'_>) -> Result<Kind, DoesNotFit> {
    if request.edns.is_some_and(|edns| edns.version != 0) {
        return Ok(Kind::BadVersion);
    }
    match request.kind {
        _ if request.class != CLASS_IN => return Ok(Kind::NotOurs),
        kind if TRANSFERS.contains(&kind) => return Ok(Kind::NotOurs),
        // Types of records that only messages have, and the reserved 0 (RFC 6895 §3.1).
        0 | 41 => return Ok(Kind::BadType),
        128..=250 | 253..=254 => return Ok(Kind::NotImplemented),
        _ => {}
    }
    Answer { names: index.names(), query: Query { wire: name.wire(), labels: name.labels() }, reply }
        .resolve(request.kind)
}

#[cfg(test)]
mod tests;
