//! One request and its response on a connection, plain or TLS. Sans-I/O: bytes in, bytes out.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::time::Duration;

use bootstorm_proto::http::client::{Body, ResponseParser};
use bootstorm_proto::http::server::{Connection, Method};
use rustls::ClientConnection;

use crate::reason::Reason;
use crate::verify::Verifier;

/// What carries the bytes.
pub enum Channel {
    /// TCP as it is.
    Plain,
    /// TLS over TCP.
    Tls(Box<ClientConnection>),
}

impl Channel {
    /// Encrypts `plain` where that is due; gives what goes on the wire, handshake included.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, Reason> {
        match self {
            Channel::Plain => Ok(plain.to_vec()),
            Channel::Tls(tls) => {
                tls.writer().write_all(plain).map_err(|error| Reason::Tls(error.to_string()))?;
                Ok(pending(tls))
            }
        }
    }

    /// Takes bytes off the wire: (plain bytes, bytes to send at once).
    pub fn open<'a>(&mut self, mut wire: &'a [u8]) -> Result<(Cow<'a, [u8]>, Vec<u8>), Reason> {
        let tls = match self {
            Channel::Plain => return Ok((Cow::Borrowed(wire), Vec::new())),
            Channel::Tls(tls) => tls,
        };
        let mut plain = Vec::new();
        while !wire.is_empty() {
            tls.read_tls(&mut wire).map_err(|error| Reason::Tls(error.to_string()))?;
            let state = tls.process_new_packets().map_err(|error| Reason::Tls(error.to_string()))?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[start..]).map_err(|error| Reason::Tls(error.to_string()))?;
        }
        Ok((Cow::Owned(plain), pending(tls)))
    }

    /// Whether bytes may be thrown away unseen.
    pub fn is_plain(&self) -> bool {
        matches!(self, Channel::Plain)
    }
}

fn pending(tls: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while tls.wants_write() && tls.write_tls(&mut wire).is_ok_and(|written| written > 0) {}
    wire
}

/// Where a body goes.
pub enum Sink {
    /// Kept, up to so many bytes.
    Keep(usize),
    /// Kept if it is no longer than so many bytes, else thrown away.
    KeepIfSmall(usize),
    /// Thrown away.
    Discard,
    /// Checked as they come.
    Verify(Box<Verifier>),
}

/// A response as it comes in.
pub struct Exchange {
    parser: ResponseParser,
    head: Vec<u8>,
    body: Option<Body>,
    sink: Sink,
    kept: Vec<u8>,
    status: u16,
    later: Option<Duration>,
    keeps_alive: bool,
    body_bytes: u64,
    part: Option<(u64, u64, Option<u64>)>,
}

/// A response, complete or as far as it came.
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its body, where that was kept.
    pub body: Vec<u8>,
    /// Bytes of the body, kept or not.
    pub body_bytes: u64,
    /// `Content-Range`: first byte, one past the last, bytes of the whole if said.
    pub part: Option<(u64, u64, Option<u64>)>,
    /// `Retry-After`.
    pub later: Option<Duration>,
    /// Whether the connection can carry another request.
    pub keeps_alive: bool,
    /// The verifier, for the next range.
    pub verifier: Option<Box<Verifier>>,
}

impl Exchange {
    /// Waits for the response to a request of this method.
    pub fn new(method: Method, sink: Sink) -> Exchange {
        Exchange {
            parser: ResponseParser::new(method),
            head: Vec::new(),
            body: None,
            sink,
            kept: Vec::new(),
            status: 0,
            later: None,
            keeps_alive: false,
            body_bytes: 0,
            part: None,
        }
    }

    /// Takes plain bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if self.body.is_some() {
            return self.take(bytes);
        }
        self.head.extend_from_slice(bytes);
        let Some((head, length)) = self.parser.parse(&self.head)? else { return Ok(()) };
        self.status = head.status;
        self.later = head.retry_after_seconds.map(Duration::from_secs);
        self.part = head.part;
        self.keeps_alive = head.connection == Connection::KeepAlive;
        self.body = Some(head.body);
        let size = match head.body {
            Body::Bytes(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Body::UntilClose => usize::MAX,
        };
        if let Sink::KeepIfSmall(limit) = self.sink {
            self.sink = if size <= limit { Sink::Keep(limit) } else { Sink::Discard };
        }
        let rest = self.head.split_off(length);
        self.head.clear();
        self.take(&rest)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let is_wanted = self.is_wanted();
        let Some(body) = &mut self.body else { return Ok(()) };
        let (part, _) = body.take(bytes);
        self.body_bytes += part.len() as u64;
        if !is_wanted {
            return Ok(());
        }
        match &mut self.sink {
            Sink::Keep(limit) if self.kept.len() + part.len() > *limit => return Err(Reason::TooLong),
            Sink::Keep(_) => self.kept.extend_from_slice(part),
            Sink::Verify(verifier) => verifier.handle_bytes(part)?,
            Sink::Discard | Sink::KeepIfSmall(_) => {}
        }
        Ok(())
    }

    /// Whether the body is what was asked for; an error's text is for people, and read only so that the connection stays usable.
    fn is_wanted(&self) -> bool {
        matches!(self.status, 200 | 206)
    }

    /// So many bytes of the body were thrown away unseen.
    pub fn handle_discarded(&mut self, count: u64) {
        self.body_bytes += count;
        if let Some(Body::Bytes(left)) = &mut self.body {
            *left = left.saturating_sub(count);
        }
    }

    /// Bytes of the body still to come that nobody looks at; 0 if somebody does.
    pub fn discardable(&self) -> u64 {
        match (&self.body, &self.sink) {
            (Some(Body::Bytes(left)), Sink::Discard) => *left,
            (Some(Body::Bytes(left)), _) if !self.is_wanted() => *left,
            _ => 0,
        }
    }

    /// The server has closed: whether the response is complete with that.
    pub fn handle_end(&mut self) -> Result<(), Reason> {
        let body = self.body.as_mut().ok_or(Reason::Closed)?;
        body.handle_close().map_err(|_| Reason::Closed)?;
        *body = Body::Bytes(0);
        self.keeps_alive = false;
        Ok(())
    }

    /// Whether all of it is here.
    pub fn is_complete(&self) -> bool {
        self.body.is_some_and(|body| body.is_complete())
    }

    /// The response; call it once [`is_complete`](Exchange::is_complete), or for what has come of it.
    pub fn into_response(self) -> Response {
        let verifier = match self.sink {
            Sink::Verify(verifier) => Some(verifier),
            Sink::Keep(_) | Sink::KeepIfSmall(_) | Sink::Discard => None,
        };
        Response {
            status: self.status,
            body: self.kept,
            body_bytes: self.body_bytes,
            part: self.part,
            later: self.later,
            keeps_alive: self.keeps_alive,
            verifier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sink: Sink, pieces: &[&[u8]]) -> Result<Exchange, Reason> {
        let mut exchange = Exchange::new(Method::Get, sink);
        for piece in pieces {
            exchange.handle_bytes(piece)?;
        }
        Ok(exchange)
    }

    #[test]
    fn a_response_in_pieces_is_kept_within_its_limit() {
        let pieces: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nhe", b"llo"];
        let response = answer(Sink::Keep(5), pieces).unwrap();
        assert!(response.is_complete());
        let response = response.into_response();
        assert_eq!((&response.body[..], response.status, response.keeps_alive), (&b"hello"[..], 200, true));
        assert_eq!(answer(Sink::Keep(4), pieces).err(), Some(Reason::TooLong));
        let large = answer(Sink::KeepIfSmall(4), pieces).unwrap().into_response();
        assert_eq!((large.body.len(), large.body_bytes), (0, 5));
    }

    #[test]
    fn discarded_bytes_count_and_an_early_end_is_told() {
        let mut exchange = answer(Sink::Discard, &[b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"]).unwrap();
        assert_eq!(exchange.discardable(), 997);
        exchange.handle_discarded(996);
        assert_eq!(exchange.handle_end(), Err(Reason::Closed));
        exchange.handle_discarded(1);
        assert!(exchange.is_complete() && exchange.into_response().body_bytes == 1_000);
    }

    #[test]
    fn an_error_tells_its_status_and_when_to_come_again() {
        let head = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno";
        let response = answer(Sink::Keep(1), &[head]).unwrap().into_response();
        assert_eq!((response.status, response.later), (503, Some(Duration::from_secs(7))));
    }
}
