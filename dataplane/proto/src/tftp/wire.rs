//! TFTP packets. Octets: opcode 2, then
//! RRQ/WRQ name NUL mode NUL (option NUL value NUL)…; DATA block 2, 0–blksize octets; ACK block 2; ERROR code 2, text NUL;
//! OACK (option NUL value NUL)…
//!
//! Nothing here can panic on received bytes: strings are split at NULs, numbers come through `bytes::Reader`.

use super::DropReason;
use crate::bytes::{Full, Reader, Writer};
use crate::limits;

/// Error codes (RFC 1350 §5, RFC 2347 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 0.
    NotDefined,
    /// 1.
    FileNotFound,
    /// 2.
    AccessViolation,
    /// 3.
    DiskFull,
    /// 4.
    IllegalOperation,
    /// 5.
    UnknownTransferId,
    /// 6.
    FileExists,
    /// 7.
    NoSuchUser,
    /// 8: an option was refused; clients that only asked for the size end the transfer with it.
    OptionRefused,
    /// Any other number.
    Other(u16),
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            ErrorCode::NotDefined => 0,
            ErrorCode::FileNotFound => 1,
            ErrorCode::AccessViolation => 2,
            ErrorCode::DiskFull => 3,
            ErrorCode::IllegalOperation => 4,
            ErrorCode::UnknownTransferId => 5,
            ErrorCode::FileExists => 6,
            ErrorCode::NoSuchUser => 7,
            ErrorCode::OptionRefused => 8,
            ErrorCode::Other(code) => code,
        }
    }

    /// The error of a number.
    pub fn from_code(code: u16) -> ErrorCode {
        match code {
            0 => ErrorCode::NotDefined,
            1 => ErrorCode::FileNotFound,
            2 => ErrorCode::AccessViolation,
            3 => ErrorCode::DiskFull,
            4 => ErrorCode::IllegalOperation,
            5 => ErrorCode::UnknownTransferId,
            6 => ErrorCode::FileExists,
            7 => ErrorCode::NoSuchUser,
            8 => ErrorCode::OptionRefused,
            other => ErrorCode::Other(other),
        }
    }

    /// A text for the packet, the same for every peer.
    pub fn text(self) -> &'static str {
        match self {
            ErrorCode::NotDefined => "failed",
            ErrorCode::FileNotFound => "file not found",
            ErrorCode::AccessViolation => "read only",
            ErrorCode::DiskFull => "disk full",
            ErrorCode::IllegalOperation => "illegal operation",
            ErrorCode::UnknownTransferId => "unknown transfer id",
            ErrorCode::FileExists => "file exists",
            ErrorCode::NoSuchUser => "no such user",
            ErrorCode::OptionRefused => "option refused",
            ErrorCode::Other(_) => "error",
        }
    }
}

/// Options of a request or of its acknowledgement; `None` was not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `blksize`, octets of a block, 8–65464 (RFC 2348).
    pub block_bytes: Option<u16>,
    /// `windowsize`, blocks, 1–65535 (RFC 7440).
    pub window_blocks: Option<u16>,
    /// `timeout`, seconds, 1–255 (RFC 2349).
    pub timeout_seconds: Option<u8>,
    /// `tsize`, octets of the file; 0 in a request (RFC 2349).
    pub transfer_bytes: Option<u64>,
}

impl Options {
    /// Whether no option is there.
    pub fn is_empty(&self) -> bool {
        *self == Options::default()
    }

    /// Parses (name NUL value NUL)…; unknown options are ignored, as RFC 2347 §1 says.
    fn parse(mut rest: &[u8]) -> Result<Options, DropReason> {
        let mut options = Options::default();
        let mut names: Vec<&[u8]> = Vec::new();
        while !rest.is_empty() {
            let (name, after) = string(rest)?;
            let (value, after) = string(after)?;
            rest = after;
            if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(DropReason::RepeatedOption);
            }
            if names.len() == limits::TFTP_OPTIONS_MAX {
                return Err(DropReason::TooManyOptions);
            }
            names.push(name);
            if name.eq_ignore_ascii_case(b"blksize") {
                options.block_bytes = Some(number(value, 8, 65_464)?);
            } else if name.eq_ignore_ascii_case(b"windowsize") {
                options.window_blocks = Some(number(value, 1, 65_535)?);
            } else if name.eq_ignore_ascii_case(b"timeout") {
                options.timeout_seconds = Some(number(value, 1, 255)?);
            } else if name.eq_ignore_ascii_case(b"tsize") {
                options.transfer_bytes = Some(number(value, 0, u64::MAX)?);
            }
        }
        Ok(options)
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let fields = [
            ("tsize", self.transfer_bytes),
            ("blksize", self.block_bytes.map(u64::from)),
            ("windowsize", self.window_blocks.map(u64::from)),
            ("timeout", self.timeout_seconds.map(u64::from)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                use core::fmt::Write;
                write!(writer, "{name}\0{value}\0").map_err(|_| Full)?;
            }
        }
        Ok(())
    }
}

/// Splits a NUL-terminated string off the front.
fn string(bytes: &[u8]) -> Result<(&[u8], &[u8]), DropReason> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(DropReason::MissingNul)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or(DropReason::MissingNul)?;
    let (_, rest) = rest.split_first().ok_or(DropReason::MissingNul)?;
    Ok((text, rest))
}

/// A decimal number of 1–20 digits in a range.
fn number<T: TryFrom<u64>>(value: &[u8], min: u64, max: u64) -> Result<T, DropReason> {
    let digits = (1..=20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = core::str::from_utf8(value).ok().filter(|_| digits).ok_or(DropReason::BadOptionValue)?;
    let number: u64 = text.parse().map_err(|_| DropReason::BadOptionValue)?;
    if number < min || number > max {
        return Err(DropReason::BadOptionValue);
    }
    T::try_from(number).map_err(|_| DropReason::BadOptionValue)
}

/// A request to read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    /// The file's name as an opaque key: 1–255 octets of UTF-8 without control characters, one leading `/` dropped. It may
    /// hold `/` and `..`, which mean nothing: it is looked up, never joined to a path.
    pub name: &'a str,
    /// What the client asks for.
    pub options: Options,
}

impl ReadRequest<'_> {
    /// Writes the request in mode `octet`; gives its octets, `None` if the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        writer.put(&[0, 1]).ok()?;
        writer.put(self.name.as_bytes()).ok()?;
        writer.put(b"\0octet\0").ok()?;
        self.options.put(&mut writer).ok()?;
        Some(writer.len())
    }
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ (1).
    ReadRequest(ReadRequest<'a>),
    /// DATA (3).
    Data {
        /// Block number modulo 65,536, the first is 1.
        block: u16,
        /// Octets of the file; fewer than a block in the last.
        payload: &'a [u8],
    },
    /// ACK (4).
    Ack {
        /// Last block received in order.
        block: u16,
    },
    /// ERROR (5); its text is for people and not kept.
    Error {
        /// What went wrong.
        code: ErrorCode,
    },
    /// OACK (6).
    OptionAck(Options),
}

impl<'a> Packet<'a> {
    /// Parses a datagram.
    ///
    /// # Errors
    /// A reason; [`DropReason::answer`] tells whether and with what error a first request deserves an answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, DropReason> {
        let mut reader = Reader::new(bytes);
        match reader.u16().ok_or(DropReason::TooShort)? {
            1 if bytes.len() > limits::TFTP_REQUEST_BYTES_MAX => Err(DropReason::TooLong),
            1 => parse_read_request(reader.rest()).map(Packet::ReadRequest),
            2 => Err(DropReason::WriteRequest),
            3 => {
                let block = reader.u16().ok_or(DropReason::TooShort)?;
                Ok(Packet::Data { block, payload: reader.rest() })
            }
            4 => {
                let block = reader.u16().ok_or(DropReason::TooShort)?;
                if reader.is_empty() { Ok(Packet::Ack { block }) } else { Err(DropReason::TrailingBytes) }
            }
            5 => {
                // Some clients send no text or leave its NUL out; the code is enough.
                let code = reader.u16().ok_or(DropReason::TooShort)?;
                Ok(Packet::Error { code: ErrorCode::from_code(code) })
            }
            6 if bytes.len() > limits::TFTP_REQUEST_BYTES_MAX => Err(DropReason::TooLong),
            6 => Options::parse(reader.rest()).map(Packet::OptionAck),
            _ => Err(DropReason::UnknownOpcode),
        }
    }
}

fn parse_read_request(rest: &[u8]) -> Result<ReadRequest<'_>, DropReason> {
    let (name, rest) = string(rest)?;
    let (mode, rest) = string(rest)?;
    if !mode.eq_ignore_ascii_case(b"octet") && !mode.eq_ignore_ascii_case(b"netascii") {
        return Err(DropReason::BadMode);
    }
    let name = file_name(name).ok_or(DropReason::BadName)?;
    Ok(ReadRequest { name, options: Options::parse(rest)? })
}

fn file_name(name: &[u8]) -> Option<&str> {
    if name.len() > limits::TFTP_NAME_BYTES_MAX {
        return None;
    }
    let text = core::str::from_utf8(name).ok()?;
    let text = text.strip_prefix('/').unwrap_or(text);
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

/// The four octets before the file's octets in a data packet.
pub fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// An acknowledgement.
pub fn ack(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 4, high, low]
}

/// Octets enough for every [`encode_option_ack`] and [`encode_error`].
pub const CONTROL_BYTES_MAX: usize = 128;

/// Writes an option acknowledgement; gives its octets, `None` if the buffer is too small.
pub fn encode_option_ack(options: &Options, buffer: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(buffer);
    writer.put(&[0, 6]).ok()?;
    options.put(&mut writer).ok()?;
    Some(writer.len())
}

/// Writes an error packet with the code's own text; gives its octets, `None` if the buffer is too small.
pub fn encode_error(code: ErrorCode, buffer: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(buffer);
    writer.put(&[0, 5]).ok()?;
    writer.put(&code.code().to_be_bytes()).ok()?;
    writer.put(code.text().as_bytes()).ok()?;
    writer.put(&[0]).ok()?;
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &[u8]) -> Result<Packet<'_>, DropReason> {
        Packet::parse(text)
    }

    #[test]
    fn tftp_requests_are_read_strictly() {
        let good = b"\0\x01/a/b.efi\0OCTET\0blksize\x001468\0tsize\x000\0windowsize\x004\0".as_slice();
        let options = Options {
            block_bytes: Some(1_468),
            window_blocks: Some(4),
            timeout_seconds: None,
            transfer_bytes: Some(0),
        };
        assert_eq!(request(good), Ok(Packet::ReadRequest(ReadRequest { name: "a/b.efi", options })));
        let table: &[(&[u8], DropReason)] = &[
            (b"", DropReason::TooShort),
            (b"\0", DropReason::TooShort),
            (b"\0\x02a\0octet\0", DropReason::WriteRequest),
            (b"\0\x01a", DropReason::MissingNul),
            (b"\0\x01a\0octet", DropReason::MissingNul),
            (b"\0\x01a\0mail\0", DropReason::BadMode),
            (b"\0\x01\0octet\0", DropReason::BadName),
            (b"\0\x01/\0octet\0", DropReason::BadName),
            (b"\0\x01a\nb\0octet\0", DropReason::BadName),
            (b"\0\x01a\xff\0octet\0", DropReason::BadName),
            (b"\0\x01a\0octet\0blksize\x00512\0BLKSIZE\x00512\0", DropReason::RepeatedOption),
            (b"\0\x01a\0octet\0x\x001\0x\x001\0", DropReason::RepeatedOption),
            (b"\0\x01a\0octet\0blksize\x007\0", DropReason::BadOptionValue),
            (b"\0\x01a\0octet\0blksize\0+512\0", DropReason::BadOptionValue),
            (b"\0\x01a\0octet\0windowsize\x000\0", DropReason::BadOptionValue),
            (b"\0\x01a\0octet\0tsize\0-1\0", DropReason::BadOptionValue),
            (b"\0\x01a\0octet\0timeout\x00256\0", DropReason::BadOptionValue),
            (b"\0\x01a\0octet\0blksize\x00512", DropReason::MissingNul),
            (
                b"\0\x01a\0octet\x001\0\x002\0\x003\0\x004\0\x005\0\x006\0\x007\0\x008\0\x009\0\0",
                DropReason::TooManyOptions,
            ),
            (b"\0\x04\0\x01x", DropReason::TrailingBytes),
            (b"\0\x07", DropReason::UnknownOpcode),
        ];
        for (bytes, reason) in table {
            assert_eq!(request(bytes), Err(*reason), "{}", bytes.escape_ascii());
        }
        let long = [b"\0\x01".as_slice(), &[b'a'; 256], b"\0octet\0"].concat();
        assert_eq!(request(&long), Err(DropReason::BadName));
        assert_eq!(request(&[&long[..], &[b'x'; 300]].concat()), Err(DropReason::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn requests_and_acks_round_trip(
            name in "[a-zA-Z0-9._-][a-zA-Z0-9/._ -]{0,200}", block in proptest::option::of(8u16..65_465),
            window in proptest::option::of(1u16..), timeout in proptest::option::of(1u8..), size in proptest::option::of(any::<u64>()),
        ) {
            let options = Options {
                block_bytes: block, window_blocks: window, timeout_seconds: timeout, transfer_bytes: size,
            };
            let request = ReadRequest { name: &name, options };
            let mut buffer = [0; 512];
            let length = request.encode(&mut buffer).unwrap();
            prop_assert_eq!(Packet::parse(&buffer[..length]), Ok(Packet::ReadRequest(request)));
            let length = encode_option_ack(&options, &mut buffer).unwrap();
            prop_assert!(length <= CONTROL_BYTES_MAX);
            prop_assert_eq!(Packet::parse(&buffer[..length]), Ok(Packet::OptionAck(options)));
        }
    }
}
