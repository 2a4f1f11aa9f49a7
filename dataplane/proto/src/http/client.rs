//! The client half: heads of requests, heads of responses, and how much body follows.

use core::fmt::Write;

use super::scan::{HeadScanner, ScanError, content_length};
use super::server::{Connection, Method};
use crate::bytes::Writer;
use crate::limits;

/// A request to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, already encoded, beginning with `/`.
    pub target: &'a str,
    /// `Host`.
    pub host: &'a str,
    /// `Range`: first octet and, if bounded, one past the last.
    pub range: Option<(u64, Option<u64>)>,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// Whether to keep the connection.
    pub connection: Connection,
}

impl RequestHead<'_> {
    /// Writes the head; gives its octets. `None` if the buffer is too small or a text has a control character or a space.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let odd = |text: &str| text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
        let agent = self.user_agent.unwrap_or_default();
        if odd(self.target) || odd(self.host) || agent.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let mut writer = Writer::new(buffer);
        self.put(&mut writer).ok()?;
        Some(writer.len())
    }

    fn put(&self, writer: &mut Writer<'_>) -> core::fmt::Result {
        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
        };
        write!(writer, "{method} {} HTTP/1.1\r\nHost: {}\r\n", self.target, self.host)?;
        if let Some(agent) = self.user_agent {
            write!(writer, "User-Agent: {agent}\r\n")?;
        }
        match self.range {
            Some((first, Some(end))) => write!(writer, "Range: bytes={first}-{}\r\n", end.saturating_sub(1))?,
            Some((first, None)) => write!(writer, "Range: bytes={first}-\r\n")?,
            None => {}
        }
        writer.write_str(match self.connection {
            Connection::KeepAlive => "\r\n",
            Connection::Close => "Connection: close\r\n\r\n",
        })
    }
}

/// Why a response was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadResponse {
    /// The head's framing is not strict HTTP/1.1, or it is too large.
    #[error("malformed response head")]
    Malformed,
    /// `Content-Length` repeated or no plain number.
    #[error("odd Content-Length")]
    ContentLength,
    /// A transfer coding, which our servers do not use.
    #[error("Transfer-Encoding is not taken")]
    TransferEncoding,
    /// `Content-Range` is malformed.
    #[error("malformed Content-Range")]
    ContentRange,
    /// The connection ended before the body did.
    #[error("body ended early")]
    BodyTooShort,
}

impl From<ScanError> for BadResponse {
    fn from(_: ScanError) -> BadResponse {
        BadResponse::Malformed
    }
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The status, 100–599.
    pub status: u16,
    /// How the body ends.
    pub body: Body,
    /// `Content-Range` of a 206: first octet, one past the last, octets of the whole if said.
    pub part: Option<(u64, u64, Option<u64>)>,
    /// `ETag` as sent.
    pub entity_tag: Option<&'a str>,
    /// `Retry-After` in seconds; a date there is not read.
    pub retry_after_seconds: Option<u64>,
    /// Whether the connection stays open.
    pub connection: Connection,
}

/// How a body ends, and how much of it is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many octets more.
    Bytes(u64),
    /// All until the connection closes.
    UntilClose,
}

impl Body {
    /// Takes what belongs to the body off the front of `bytes`: (body, rest). The rest is the next response's.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match self {
            Body::UntilClose => (bytes, &[]),
            Body::Bytes(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                bytes.split_at_checked(count).unwrap_or((bytes, &[]))
            }
        }
    }

    /// Whether nothing more is to come; never before the end of a connection for [`Body::UntilClose`].
    pub fn is_complete(&self) -> bool {
        *self == Body::Bytes(0)
    }

    /// The connection was closed by the server.
    ///
    /// # Errors
    /// [`BadResponse::BodyTooShort`] if octets are missing.
    pub fn handle_close(&self) -> Result<(), BadResponse> {
        match self {
            Body::Bytes(0) | Body::UntilClose => Ok(()),
            Body::Bytes(_) => Err(BadResponse::BodyTooShort),
        }
    }
}

/// Parses one response head out of a growing buffer.
#[derive(Debug, Clone)]
pub struct ResponseParser {
    scanner: HeadScanner,
    method: Method,
}

impl ResponseParser {
    /// A parser for the response to a request of that method, which decides whether a body follows.
    pub fn new(method: Method) -> ResponseParser {
        ResponseParser { scanner: HeadScanner::new(), method }
    }

    /// Looks at the buffer, which starts at the response and only grows between calls. `Some` is the head and its octets.
    ///
    /// # Errors
    /// A [`BadResponse`]: close the connection.
    pub fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(ResponseHead<'a>, usize)>, BadResponse> {
        let Some(length) = self.scanner.scan(bytes)? else { return Ok(None) };
        let head = bytes.get(..length).ok_or(BadResponse::Malformed)?;
        Ok(Some((parse_head(head, self.method)?, length)))
    }
}

fn parse_head(head: &[u8], method: Method) -> Result<ResponseHead<'_>, BadResponse> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(BadResponse::Malformed),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(BadResponse::Malformed) };
    if !(100..600).contains(&status) {
        return Err(BadResponse::Malformed);
    }
    let mut length = None;
    let mut response = ResponseHead {
        status,
        body: Body::UntilClose,
        part: None,
        entity_tag: None,
        retry_after_seconds: None,
        connection: if version == 0 { Connection::Close } else { Connection::KeepAlive },
    };
    for header in parsed.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let value = content_length(header.value).ok_or(BadResponse::ContentLength)?;
            if length.replace(value).is_some() {
                return Err(BadResponse::ContentLength);
            }
        } else if is("transfer-encoding") {
            return Err(BadResponse::TransferEncoding);
        } else if is("content-range") && status == 206 {
            let part = core::str::from_utf8(header.value).ok().and_then(content_range);
            response.part = Some(part.ok_or(BadResponse::ContentRange)?);
        } else if is("etag") {
            response.entity_tag = core::str::from_utf8(header.value).ok();
        } else if is("retry-after") {
            response.retry_after_seconds = content_length(header.value);
        } else if is("connection") {
            let close = core::str::from_utf8(header.value)
                .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")));
            if close {
                response.connection = Connection::Close;
            }
        }
    }
    // RFC 9112 §6.3, first and second rule.
    let bodiless = method == Method::Head || status < 200 || status == 204 || status == 304;
    response.body = match length {
        _ if bodiless => Body::Bytes(0),
        Some(length) => Body::Bytes(length),
        None => Body::UntilClose,
    };
    if response.body == Body::UntilClose {
        response.connection = Connection::Close;
    }
    Ok(response)
}

/// `bytes FIRST-LAST/ALL` with `*` for an unknown whole.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, all) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (content_length(first.as_bytes())?, content_length(last.as_bytes())?);
    let all = if all == "*" { None } else { Some(content_length(all.as_bytes())?) };
    let end = last.checked_add(1)?;
    (first <= last && all.is_none_or(|all| end <= all)).then_some((first, end, all))
}

#[cfg(test)]
mod tests {
    use super::super::server;
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Option<(ResponseHead<'_>, usize)>, BadResponse> {
        ResponseParser::new(Method::Get).parse(text.as_bytes())
    }

    #[test]
    fn our_own_responses_are_read() {
        let mut buffer = [0; 1_024];
        let head = server::ResponseHead {
            part: Some((5..9, 20)),
            retry_after_seconds: Some(7),
            ..server::ResponseHead::new(server::Status::PartialContent, 4, Connection::Close)
        };
        let length = head.write(&mut buffer).unwrap();
        let (read, taken) = ResponseParser::new(Method::Get).parse(&buffer[..length]).unwrap().unwrap();
        assert_eq!((taken, read.status, read.part), (length, 206, Some((5, 9, Some(20)))));
        assert_eq!((read.body, read.connection), (Body::Bytes(4), Connection::Close));
        assert_eq!(read.retry_after_seconds, Some(7));
    }

    #[test]
    fn bodies_end_where_they_should() {
        let (mut head, _) = parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.body.take(b"abc"), (&b"abc"[..], &b""[..]));
        assert_eq!(head.body.handle_close(), Err(BadResponse::BodyTooShort));
        assert_eq!(head.body.take(b"deHTTP"), (&b"de"[..], &b"HTTP"[..]));
        assert!(head.body.is_complete());
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().0.body, Body::UntilClose);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".as_bytes();
        let (head, _) = ResponseParser::new(Method::Head).parse(head).unwrap().unwrap();
        assert!(head.body.is_complete());
    }

    #[test]
    fn odd_responses_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Range: bytes 5-4/9\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Range: bytes 5-9/9\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn requests_are_read_by_our_server(name in "[a-z0-9/._-]{0,60}", first in any::<u32>(), count in 1u32..) {
            prop_assume!(!name.split('/').any(|segment| segment == "." || segment == ".."));
            let (first, end) = (u64::from(first), u64::from(first) + u64::from(count));
            let target = format!("/{name}");
            let head = RequestHead {
                method: Method::Get, target: &target, host: "10.0.0.1:5248", range: Some((first, Some(end))),
                user_agent: Some("loadgen"), connection: Connection::KeepAlive,
            };
            let mut buffer = [0; 512];
            let length = head.write(&mut buffer).unwrap();
            let (request, taken) = server::RequestParser::new().parse(&buffer[..length]).unwrap().unwrap();
            prop_assert_eq!(taken, length);
            prop_assert_eq!(request.name.as_ref(), name.as_str());
            prop_assert_eq!(request.range, Some(server::ByteRange::FromTo(first, end - 1)));
        }

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ResponseParser::new(Method::Get).parse(&[b"HTTP/1.1 200 OK\r\n", &bytes[..], b"\r\n\r\n"].concat());
        }
    }
}
