//! The server half: heads of requests, what part of a resource they ask for, heads of responses.
//!
//! Contract: [`RequestParser::parse`] is given the connection's buffer after every read, until it gives a [`Request`], and
//! then a new parser is made for the next one. Requests have no body; octets after the head before the response is sent
//! are pipelining, which the caller refuses. After a [`Rejection`] its response is sent and the connection closed.
//!
//! Octets of the peer are read by slices and iterators that cannot go past their end; there is no index.

use core::fmt::Write;
use core::ops::Range;
use std::borrow::Cow;

use super::scan::{HeadScanner, ScanError, content_length};
use crate::bytes::Writer;
use crate::limits;

/// Status codes that the rack answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Status {
    /// 200.
    Ok = 200,
    /// 202.
    Accepted = 202,
    /// 206.
    PartialContent = 206,
    /// 304.
    NotModified = 304,
    /// 400.
    BadRequest = 400,
    /// 403.
    Forbidden = 403,
    /// 404.
    NotFound = 404,
    /// 405.
    MethodNotAllowed = 405,
    /// 408.
    RequestTimeout = 408,
    /// 416.
    RangeNotSatisfiable = 416,
    /// 429.
    TooManyRequests = 429,
    /// 431.
    HeaderFieldsTooLarge = 431,
    /// 500.
    InternalServerError = 500,
    /// 503.
    ServiceUnavailable = 503,
    /// 505.
    VersionNotSupported = 505,
}

impl Status {
    /// The three digits.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The phrase of RFC 9110 §15.
    pub fn phrase(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::Accepted => "Accepted",
            Status::PartialContent => "Partial Content",
            Status::NotModified => "Not Modified",
            Status::BadRequest => "Bad Request",
            Status::Forbidden => "Forbidden",
            Status::NotFound => "Not Found",
            Status::MethodNotAllowed => "Method Not Allowed",
            Status::RequestTimeout => "Request Timeout",
            Status::RangeNotSatisfiable => "Range Not Satisfiable",
            Status::TooManyRequests => "Too Many Requests",
            Status::HeaderFieldsTooLarge => "Request Header Fields Too Large",
            Status::InternalServerError => "Internal Server Error",
            Status::ServiceUnavailable => "Service Unavailable",
            Status::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// Why a request was refused. Stable names for counters; the connection is closed after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejection {
    /// Bare CR or LF, or another control character.
    #[error("control character in the head")]
    ControlByte,
    /// Obsolete line folding.
    #[error("folded header line")]
    Folding,
    /// No name, no colon, a space before it, or characters that no name has.
    #[error("malformed request line or header field")]
    Malformed,
    /// A line is too long.
    #[error("line is too long")]
    LineTooLong,
    /// The head is too long or has too many fields.
    #[error("head is too large")]
    HeadTooLarge,
    /// A version other than 1.0 and 1.1.
    #[error("HTTP version is not supported")]
    Version,
    /// A method other than GET and HEAD.
    #[error("method is not allowed")]
    Method,
    /// No `Host` in HTTP/1.1, several, or one that is no host.
    #[error("missing, repeated or malformed Host")]
    Host,
    /// A target in another form, for another host, with a bad escape, an encoded `/` or NUL, or a `.` or `..` segment.
    #[error("request target is not acceptable")]
    Target,
    /// `Content-Length` repeated or no plain number.
    #[error("odd Content-Length")]
    ContentLength,
    /// Any `Transfer-Encoding`, alone or beside `Content-Length`.
    #[error("Transfer-Encoding is not taken")]
    TransferEncoding,
    /// A body, which neither GET nor HEAD has here.
    #[error("request with a body")]
    Body,
    /// `Range`, `If-Range` or `If-None-Match` repeated or malformed.
    #[error("malformed or repeated conditional or range field")]
    Condition,
}

impl Rejection {
    /// All rejections, in the order of the counters.
    pub const ALL: [Rejection; 13] = [
        Rejection::ControlByte,
        Rejection::Folding,
        Rejection::Malformed,
        Rejection::LineTooLong,
        Rejection::HeadTooLarge,
        Rejection::Version,
        Rejection::Method,
        Rejection::Host,
        Rejection::Target,
        Rejection::ContentLength,
        Rejection::TransferEncoding,
        Rejection::Body,
        Rejection::Condition,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            Rejection::ControlByte => "control_byte",
            Rejection::Folding => "folding",
            Rejection::Malformed => "malformed",
            Rejection::LineTooLong => "line_too_long",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::Version => "version",
            Rejection::Method => "method",
            Rejection::Host => "host",
            Rejection::Target => "target",
            Rejection::ContentLength => "content_length",
            Rejection::TransferEncoding => "transfer_encoding",
            Rejection::Body => "body",
            Rejection::Condition => "condition",
        }
    }

    /// The status to answer with before closing.
    pub fn status(self) -> Status {
        match self {
            Rejection::Method => Status::MethodNotAllowed,
            Rejection::Version => Status::VersionNotSupported,
            Rejection::LineTooLong | Rejection::HeadTooLarge => Status::HeaderFieldsTooLarge,
            Rejection::ControlByte
            | Rejection::Folding
            | Rejection::Malformed
            | Rejection::Host
            | Rejection::Target
            | Rejection::ContentLength
            | Rejection::TransferEncoding
            | Rejection::Body
            | Rejection::Condition => Status::BadRequest,
        }
    }
}

impl From<ScanError> for Rejection {
    fn from(error: ScanError) -> Rejection {
        match error {
            ScanError::ControlByte => Rejection::ControlByte,
            ScanError::Folding => Rejection::Folding,
            ScanError::BadField => Rejection::Malformed,
            ScanError::LineTooLong => Rejection::LineTooLong,
            ScanError::HeadTooLong | ScanError::TooManyFields => Rejection::HeadTooLarge,
        }
    }
}

/// The methods that exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: the same head as GET, without the body. Firmware sends it first to learn the size.
    Head,
}

/// Whether the connection may carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connection {
    /// Stays open.
    KeepAlive,
    /// Closes after the response.
    Close,
}

/// What a `Range` field asks for (RFC 9110 §14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=FIRST-`.
    From(u64),
    /// `bytes=FIRST-LAST`, both inclusive.
    FromTo(u64, u64),
    /// `bytes=-COUNT`.
    Last(u64),
    /// Several ranges: refused as a whole, since a small request could ask for much (416).
    Several,
}

/// A request whose head is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path, decoded, as an opaque key without its leading `/`: UTF-8, no control characters, no `.` or `..` segment.
    /// It is looked up, never joined to a path.
    pub name: Cow<'a, str>,
    /// The query's parameters in order, decoded; `+` is a plus sign.
    pub query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// `Host` as sent, with or without a port (UEFI firmware leaves it out); empty for HTTP/1.0 without one.
    pub host: &'a str,
    /// Whether the connection stays open afterwards.
    pub connection: Connection,
    /// `Range`; `None` if absent, of another unit, or with a method other than GET (RFC 9110 §14.2).
    pub range: Option<ByteRange>,
    /// `If-Range` as sent.
    pub if_range: Option<&'a str>,
    /// `If-None-Match` as sent.
    pub if_none_match: Option<&'a str>,
    /// `User-Agent` as sent; to be escaped before it is logged.
    pub user_agent: Option<&'a str>,
}

impl Request<'_> {
    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }
}

/// Parses one request out of a growing buffer.
#[derive(Debug, Clone, Default)]
pub struct RequestParser {
    scanner: HeadScanner,
}

impl RequestParser {
    /// A parser for the next request of a connection.
    pub fn new() -> RequestParser {
        RequestParser::default()
    }

    /// Looks at the buffer, which starts at the request and only grows between calls. `Some` is the request and the octets
    /// of its head.
    ///
    /// # Errors
    /// A [`Rejection`]: answer with its status and close.
    pub fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Request<'a>, usize)>, Rejection> {
        let Some(length) = self.scanner.scan(bytes)? else { return Ok(None) };
        let head = bytes.get(..length).ok_or(Rejection::Malformed)?;
        Ok(Some((parse_head(head)?, length)))
    }
}

fn parse_head(head: &[u8]) -> Result<Request<'_>, Rejection> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Rejection::Malformed),
        Err(httparse::Error::Version) => return Err(Rejection::Version),
        Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadTooLarge),
        Err(_) => return Err(Rejection::Malformed),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Rejection::Malformed);
    };
    let fields = Fields::gather(parsed.headers)?;
    let host = match (fields.host, version) {
        (Some(host), _) => host,
        (None, 0) => "",
        (None, _) => return Err(Rejection::Host),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => return Err(Rejection::Method),
    };
    let (path, query) = split_target(target, host)?;
    let range = fields.range.filter(|_| method == Method::Get).map(parse_range).transpose()?.flatten();
    Ok(Request {
        method,
        name: decode_name(path)?,
        query: decode_query(query)?,
        host,
        connection: fields.connection(version),
        range,
        if_range: fields.if_range,
        if_none_match: fields.if_none_match,
        user_agent: fields.user_agent,
    })
}

/// The header fields that count, each at most once.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    content_length: Option<u64>,
    range: Option<&'a str>,
    if_range: Option<&'a str>,
    if_none_match: Option<&'a str>,
    user_agent: Option<&'a str>,
    close: bool,
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Rejection> {
        let mut fields = Fields::default();
        let text = |value: &'a [u8], reason| core::str::from_utf8(value).map(str::trim).map_err(|_| reason);
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                let host = text(header.value, Rejection::Host)?;
                if fields.host.replace(host).is_some() || !is_host(host) {
                    return Err(Rejection::Host);
                }
            } else if is("content-length") {
                let length = content_length(header.value).ok_or(Rejection::ContentLength)?;
                if fields.content_length.replace(length).is_some() {
                    return Err(Rejection::ContentLength);
                }
            } else if is("transfer-encoding") {
                return Err(Rejection::TransferEncoding);
            } else if is("range") {
                once(&mut fields.range, text(header.value, Rejection::Condition)?)?;
            } else if is("if-range") {
                once(&mut fields.if_range, text(header.value, Rejection::Condition)?)?;
            } else if is("if-none-match") {
                once(&mut fields.if_none_match, text(header.value, Rejection::Condition)?)?;
            } else if is("connection") {
                let tokens = core::str::from_utf8(header.value).unwrap_or_default().split(',').map(str::trim);
                for token in tokens {
                    fields.close |= token.eq_ignore_ascii_case("close");
                    fields.keep_alive |= token.eq_ignore_ascii_case("keep-alive");
                }
            } else if is("user-agent") {
                fields.user_agent = core::str::from_utf8(header.value).ok();
            }
        }
        match fields.content_length {
            None | Some(0) => Ok(fields),
            Some(_) => Err(Rejection::Body),
        }
    }

    fn connection(&self, version: u8) -> Connection {
        if self.close || (version == 0 && !self.keep_alive) { Connection::Close } else { Connection::KeepAlive }
    }
}

fn once<'a>(field: &mut Option<&'a str>, value: &'a str) -> Result<(), Rejection> {
    if field.replace(value).is_some() { Err(Rejection::Condition) } else { Ok(()) }
}

/// A host name, an IPv4 address or a bracketed IPv6 address, with or without a port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else { return false };
            if address.parse::<core::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("v6", Some(port)),
                None if after.is_empty() => ("v6", None),
                None => return false,
            }
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let name_bytes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let good_port =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    !name.is_empty() && name.len() <= limits::HOST_NAME_BYTES_MAX && name.bytes().all(name_bytes) && good_port
}

/// Path and query of a target in origin form, or in absolute form for the same host.
fn split_target<'a>(target: &'a str, host: &str) -> Result<(&'a str, &'a str), Rejection> {
    let origin = match target.strip_prefix("http://") {
        None => target,
        Some(rest) => {
            let at = rest.find('/').ok_or(Rejection::Target)?;
            let (authority, path) = rest.split_at_checked(at).ok_or(Rejection::Target)?;
            if host.is_empty() || !authority.eq_ignore_ascii_case(host) {
                return Err(Rejection::Target);
            }
            path
        }
    };
    if origin.contains('#') {
        return Err(Rejection::Target);
    }
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    Ok((path.strip_prefix('/').ok_or(Rejection::Target)?, query))
}

fn decode_name(path: &str) -> Result<Cow<'_, str>, Rejection> {
    let name = percent_decode(path, Slash::Refused)?;
    let dots = name.split('/').any(|segment| segment == "." || segment == "..");
    if dots || name.len() > limits::HTTP_NAME_BYTES_MAX { Err(Rejection::Target) } else { Ok(name) }
}

type Parameters<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn decode_query(query: &str) -> Result<Parameters<'_>, Rejection> {
    let mut parameters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if parameters.len() == limits::HTTP_QUERY_PARAMETERS_MAX {
            return Err(Rejection::Target);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.push((percent_decode(name, Slash::Allowed)?, percent_decode(value, Slash::Allowed)?));
    }
    Ok(parameters)
}

/// Whether an encoded slash is text or would make two readings of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Allowed,
    Refused,
}

/// Decodes `%XX`; the result is UTF-8 without control characters.
fn percent_decode(text: &str, slash: Slash) -> Result<Cow<'_, str>, Rejection> {
    let decoded = if text.contains('%') {
        let mut octets = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                octets.push(byte);
                continue;
            }
            let (Some(high), Some(low)) = (rest.next().and_then(hex_digit), rest.next().and_then(hex_digit)) else {
                return Err(Rejection::Target);
            };
            let octet = high << 4 | low;
            if octet == b'/' && slash == Slash::Refused {
                return Err(Rejection::Target);
            }
            octets.push(octet);
        }
        Cow::Owned(String::from_utf8(octets).map_err(|_| Rejection::Target)?)
    } else {
        Cow::Borrowed(text)
    };
    if decoded.chars().any(char::is_control) { Err(Rejection::Target) } else { Ok(decoded) }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `None` for another unit, which is ignored (RFC 9110 §14.2).
fn parse_range(value: &str) -> Result<Option<ByteRange>, Rejection> {
    let (unit, set) = value.split_once('=').ok_or(Rejection::Condition)?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    if set.contains(',') {
        return Ok(Some(ByteRange::Several));
    }
    let (first, last) = set.split_once('-').ok_or(Rejection::Condition)?;
    let number = |text: &str| content_length(text.as_bytes()).ok_or(Rejection::Condition);
    let range = match (first, last) {
        ("", last) => ByteRange::Last(number(last)?),
        (first, "") => ByteRange::From(number(first)?),
        (first, last) => ByteRange::FromTo(number(first)?, number(last)?),
    };
    match range {
        ByteRange::FromTo(first, last) if last < first => Err(Rejection::Condition),
        range => Ok(Some(range)),
    }
}

/// What a request gets of a resource that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// 200 with all of it.
    Whole,
    /// 206 with these octets, never empty.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 416.
    NotSatisfiable,
}

/// Decides what to send of a resource of `bytes` octets with that entity tag (without quotes), by the order of
/// RFC 9110 §13.2.2: `If-None-Match` first, then `If-Range`, then `Range`.
pub fn select(request: &Request<'_>, bytes: u64, entity_tag: Option<&str>) -> Selection {
    if let (Some(conditions), Some(tag)) = (request.if_none_match, entity_tag)
        && (conditions == "*" || conditions.split(',').any(|one| is_tag(one.trim().trim_start_matches("W/"), tag)))
    {
        return Selection::NotModified;
    }
    let Some(range) = request.range else { return Selection::Whole };
    // A date, or a weak tag, cannot show that the part belongs to what the client has.
    if let Some(condition) = request.if_range
        && !entity_tag.is_some_and(|tag| is_tag(condition, tag))
    {
        return Selection::Whole;
    }
    let part = match range {
        ByteRange::From(first) => first..bytes,
        ByteRange::FromTo(first, last) => first..last.saturating_add(1).min(bytes),
        ByteRange::Last(count) => bytes.saturating_sub(count)..bytes,
        ByteRange::Several => return Selection::NotSatisfiable,
    };
    if part.is_empty() { Selection::NotSatisfiable } else { Selection::Part(part) }
}

/// Whether a quoted tag is this one.
fn is_tag(quoted: &str, tag: &str) -> bool {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(tag)
}

/// The head of a response. Texts are ours, never a peer's: a control character in one makes [`ResponseHead::write`] fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: Status,
    /// Octets of the body (of a GET, for HEAD and GET alike); left out of a 304.
    pub content_length: u64,
    /// `Content-Range` of a 206: first octet, one past the last, all octets.
    pub part: Option<(Range<u64>, u64)>,
    /// `Content-Range: bytes */N` of a 416.
    pub unsatisfied_bytes: Option<u64>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `ETag`, without quotes.
    pub entity_tag: Option<&'a str>,
    /// `Cache-Control`.
    pub cache_control: Option<&'a str>,
    /// `Retry-After`, seconds.
    pub retry_after_seconds: Option<u32>,
    /// Whether the connection closes.
    pub connection: Connection,
    /// `Date` as [`format_date`] gives it; `None` leaves it out.
    pub date: Option<&'a str>,
}

/// The head does not fit the buffer, or one of our texts has a control character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("response head does not fit its buffer")]
pub struct HeadNotWritten;

impl<'a> ResponseHead<'a> {
    /// A head with a status and a length.
    pub fn new(status: Status, content_length: u64, connection: Connection) -> ResponseHead<'a> {
        ResponseHead {
            status,
            content_length,
            part: None,
            unsatisfied_bytes: None,
            content_type: None,
            entity_tag: None,
            cache_control: None,
            retry_after_seconds: None,
            connection,
            date: None,
        }
    }

    /// The answer to a refused request: no body, and the connection closes.
    pub fn rejection(rejection: Rejection) -> ResponseHead<'a> {
        ResponseHead::new(rejection.status(), 0, Connection::Close)
    }

    /// Writes the head with its empty line; gives its octets. [`limits::HTTP_RESPONSE_HEAD_BYTES`] are enough for short texts.
    /// A 405 says `Allow`; every answer with content says `Accept-Ranges`.
    ///
    /// # Errors
    /// [`HeadNotWritten`].
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, HeadNotWritten> {
        let texts = [self.content_type, self.entity_tag, self.cache_control, self.date];
        if texts.into_iter().flatten().any(|text| text.bytes().any(|byte| byte.is_ascii_control())) {
            return Err(HeadNotWritten);
        }
        let mut writer = Writer::new(buffer);
        self.put(&mut writer).map_err(|_| HeadNotWritten)?;
        Ok(writer.len())
    }

    fn put(&self, writer: &mut Writer<'_>) -> core::fmt::Result {
        write!(writer, "HTTP/1.1 {} {}\r\n", self.status.code(), self.status.phrase())?;
        if let Some(date) = self.date {
            write!(writer, "Date: {date}\r\n")?;
        }
        if self.status != Status::NotModified {
            write!(writer, "Content-Length: {}\r\n", self.content_length)?;
        }
        if let Some((part, all)) = &self.part {
            write!(writer, "Content-Range: bytes {}-{}/{all}\r\n", part.start, part.end.saturating_sub(1))?;
        }
        if let Some(bytes) = self.unsatisfied_bytes {
            write!(writer, "Content-Range: bytes */{bytes}\r\n")?;
        }
        if let Some(content_type) = self.content_type {
            write!(writer, "Content-Type: {content_type}\r\n")?;
        }
        if let Some(tag) = self.entity_tag {
            write!(writer, "ETag: \"{tag}\"\r\nAccept-Ranges: bytes\r\n")?;
        }
        if let Some(control) = self.cache_control {
            write!(writer, "Cache-Control: {control}\r\n")?;
        }
        if let Some(seconds) = self.retry_after_seconds {
            write!(writer, "Retry-After: {seconds}\r\n")?;
        }
        if self.status == Status::MethodNotAllowed {
            writer.write_str("Allow: GET, HEAD\r\n")?;
        }
        writer.write_str(match self.connection {
            Connection::KeepAlive => "Connection: keep-alive\r\n\r\n",
            Connection::Close => "Connection: close\r\n\r\n",
        })
    }
}

/// An IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7) from seconds since 1970-01-01 UTC.
pub fn format_date(unix_seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days to a date by years that begin in March, so that the leap day comes last (an era is 400 years, 146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Rejection> {
        RequestParser::new().parse(bytes)
    }

    fn get(target: &str) -> Result<(String, Vec<(String, String)>), Rejection> {
        let text = format!("GET {target} HTTP/1.1\r\nHost: rack:5248\r\n\r\n");
        parse(text.as_bytes()).map(|found| {
            let (request, _) = found.unwrap();
            let query =
                request.query.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            (request.name.into_owned(), query)
        })
    }

    fn with(fields: &str) -> Result<Option<(Request<'static>, usize)>, Rejection> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        parse(Box::leak(text.into_boxed_str()).as_bytes())
    }

    #[test]
    fn firmware_asks_like_this() {
        let bytes =
            b"HEAD /images/a%20b.efi?m=52:54&u=%2fx HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n";
        let (request, length) = parse(bytes).unwrap().unwrap();
        assert_eq!((length, request.method, request.host), (bytes.len(), Method::Head, "10.0.0.1"));
        assert_eq!(request.name, "images/a b.efi");
        assert_eq!((request.parameter("m"), request.parameter("u")), (Some("52:54"), Some("/x")));
        assert_eq!((request.user_agent, request.connection), (Some("UefiHttpBoot/1.0"), Connection::KeepAlive));
    }

    #[test]
    fn http_targets_have_one_reading() {
        assert_eq!(get("/a/b").unwrap().0, "a/b");
        assert_eq!(get("/").unwrap().0, "");
        assert_eq!(get("http://rack:5248/a").unwrap().0, "a");
        let refused = [
            "http://other/a",
            "http://rack:5248",
            "*",
            "a",
            "/%2e%2e/a",
            "/../a",
            "/a/.",
            "/a%2Fb",
            "/a%00",
            "/a%0a",
            "/%",
            "/%4",
            "/%zz",
            "/%ff",
            "/a#b",
            "//../a",
        ];
        for target in refused {
            assert_eq!(get(target).err(), Some(Rejection::Target), "{target}");
        }
        assert!(get("/a b").is_err());
        assert_eq!(get(&format!("/?{}", "a&".repeat(33))).err(), Some(Rejection::Target));
        assert_eq!(get(&format!("/{}", "a".repeat(1_025))).err(), Some(Rejection::Target));
    }

    #[test]
    fn http_doubt_is_a_400() {
        let table: &[(&str, Rejection)] = &[
            ("Host: b\r\n", Rejection::Host),
            ("Content-Length: +5\r\n", Rejection::ContentLength),
            ("Content-Length: 0x5\r\n", Rejection::ContentLength),
            ("Content-Length: 0\r\nContent-Length: 0\r\n", Rejection::ContentLength),
            ("Content-Length: 5\r\n", Rejection::Body),
            ("Transfer-Encoding: chunked\r\n", Rejection::TransferEncoding),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Rejection::TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", Rejection::TransferEncoding),
            ("Range: bytes=0-1\r\nRange: bytes=0-1\r\n", Rejection::Condition),
            ("Range: bytes=2-1\r\n", Rejection::Condition),
            ("Range: bytes=a-\r\n", Rejection::Condition),
            ("A : b\r\n", Rejection::Malformed),
            ("A: b\r\n c\r\n", Rejection::Folding),
            ("A: b\n", Rejection::ControlByte),
        ];
        for (fields, rejection) in table {
            assert_eq!(with(fields).err(), Some(*rejection), "{fields:?}");
            assert_eq!(rejection.status(), Status::BadRequest);
        }
        assert!(with("Content-Length: 0\r\n").is_ok());
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").err(), Some(Rejection::Host));
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
        assert_eq!(parse(b"GET / HTTP/2.0\r\n\r\n").err(), Some(Rejection::Version));
        assert_eq!(parse(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n").err(), Some(Rejection::Method));
        for host in ["a b", "a:b", "a:99999", "[::1", "[x]", "a/b", "", "u@a"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(parse(text.as_bytes()).err(), Some(Rejection::Host), "{host}");
        }
        for host in ["a", "a:", "[::1]", "[::1]:80", "10.0.0.1:5248"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(parse(text.as_bytes()).is_ok(), host != "a:", "{host}");
        }
    }

    #[test]
    fn connections_close_as_asked() {
        assert_eq!(with("Connection: foo, Close\r\n").unwrap().unwrap().0.connection, Connection::Close);
        let old = parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.connection;
        let kept = parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().unwrap().0.connection;
        assert_eq!((old, kept), (Connection::Close, Connection::KeepAlive));
    }

    #[test]
    fn ranges_and_conditions() {
        let table = [
            ("", Selection::Whole),
            ("Range: bytes=0-3\r\n", Selection::Part(0..4)),
            ("Range: bytes=5-\r\n", Selection::Part(5..10)),
            ("Range: bytes=5-99\r\n", Selection::Part(5..10)),
            ("Range: bytes=-3\r\n", Selection::Part(7..10)),
            ("Range: bytes=-99\r\n", Selection::Part(0..10)),
            ("Range: bytes=-0\r\n", Selection::NotSatisfiable),
            ("Range: bytes=10-\r\n", Selection::NotSatisfiable),
            ("Range: bytes=0-1,3-4\r\n", Selection::NotSatisfiable),
            ("Range: lines=0-1\r\n", Selection::Whole),
            ("Range: bytes=0-3\r\nIf-Range: \"t\"\r\n", Selection::Part(0..4)),
            ("Range: bytes=0-3\r\nIf-Range: W/\"t\"\r\n", Selection::Whole),
            ("Range: bytes=0-3\r\nIf-Range: \"u\"\r\n", Selection::Whole),
            ("If-None-Match: \"a\", W/\"t\"\r\n", Selection::NotModified),
            ("If-None-Match: *\r\n", Selection::NotModified),
            ("If-None-Match: \"u\"\r\nRange: bytes=0-0\r\n", Selection::Part(0..1)),
        ];
        for (fields, expected) in table {
            let (request, _) = with(fields).unwrap().unwrap();
            assert_eq!(select(&request, 10, Some("t")), expected, "{fields:?}");
        }
        let (empty, _) = with("Range: bytes=0-\r\n").unwrap().unwrap();
        assert_eq!(select(&empty, 0, None), Selection::NotSatisfiable);
    }

    #[test]
    fn response_heads() {
        let mut buffer = [0; limits::HTTP_RESPONSE_HEAD_BYTES];
        let date = format_date(784_111_777);
        let head = ResponseHead {
            part: Some((0..4, 10)),
            entity_tag: Some("t"),
            date: Some(&date),
            ..ResponseHead::new(Status::PartialContent, 4, Connection::KeepAlive)
        };
        let length = head.write(&mut buffer).unwrap();
        let text = core::str::from_utf8(&buffer[..length]).unwrap();
        let expected = "HTTP/1.1 206 Partial Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 4\r\n\
            Content-Range: bytes 0-3/10\r\nETag: \"t\"\r\nAccept-Ranges: bytes\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(text, expected);
        let length = ResponseHead::rejection(Rejection::Method).write(&mut buffer).unwrap();
        assert!(buffer[..length].windows(18).any(|window| window == b"Allow: GET, HEAD\r\n"));
        let bad = ResponseHead { entity_tag: Some("a\r\nX: y"), ..head.clone() };
        assert_eq!(bad.write(&mut buffer), Err(HeadNotWritten));
        assert_eq!(head.write(&mut [0; 20]), Err(HeadNotWritten));
    }

    #[test]
    fn dates_of_rfc_9110() {
        assert_eq!(format_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(format_date(4_102_444_799), "Thu, 31 Dec 2099 23:59:59 GMT");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"GET / HTTP/1.1\r\nHost: a\r\n", &bytes[..], b"\r\n\r\n"].concat());
        }

        #[test]
        fn names_round_trip(name in "[^\\p{Cc}/]{1,40}") {
            prop_assume!(name != "." && name != "..");
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(get(&format!("/{encoded}")).unwrap().0, name);
        }
    }
}
