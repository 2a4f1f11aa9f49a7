//! The strict scan of a head: finds its end and refuses what could be read in two ways.

use crate::limits;

/// What a scan found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanError {
    /// CR without LF, LF without CR, or another control character.
    ControlByte,
    /// A line that begins with a space or a tab: obsolete folding (RFC 9112 §5.2).
    Folding,
    /// A space or a tab before the colon, or a field without a name or a colon (RFC 9112 §5.1).
    BadField,
    /// A line above [`limits::HTTP_LINE_BYTES_MAX`].
    LineTooLong,
    /// A head above [`limits::HTTP_HEAD_BYTES_MAX`].
    HeadTooLong,
    /// More fields than [`limits::HTTP_HEADERS_MAX`].
    TooManyFields,
}

/// Scans a head as it grows. Feed it the same buffer, longer each time; every octet is looked at once.
#[derive(Debug, Clone, Default)]
pub struct HeadScanner {
    scanned: usize,
    line_start: usize,
    lines: usize,
    after_cr: bool,
    colon_seen: bool,
}

impl HeadScanner {
    /// A scanner at the start of a head.
    pub fn new() -> HeadScanner {
        HeadScanner::default()
    }

    /// Looks at what was added to `bytes` since the last call. `Some` is the length of the head with its empty line.
    ///
    /// # Errors
    /// The first thing that is not allowed; the connection is beyond repair then.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        for byte in bytes.iter().skip(self.scanned) {
            let at = self.scanned;
            self.scanned += 1;
            if at >= limits::HTTP_HEAD_BYTES_MAX {
                return Err(ScanError::HeadTooLong);
            }
            if self.after_cr {
                if *byte != b'\n' {
                    return Err(ScanError::ControlByte);
                }
                if self.end_line(at - 1)? {
                    return Ok(Some(self.scanned));
                }
                continue;
            }
            self.byte_of_line(*byte, at)?;
        }
        Ok(None)
    }

    fn byte_of_line(&mut self, byte: u8, at: usize) -> Result<(), ScanError> {
        if byte == b'\r' {
            self.after_cr = true;
            return Ok(());
        }
        if at - self.line_start >= limits::HTTP_LINE_BYTES_MAX {
            return Err(ScanError::LineTooLong);
        }
        let in_field = self.lines > 0;
        match byte {
            b' ' | b'\t' if in_field && at == self.line_start => Err(ScanError::Folding),
            b' ' | b'\t' if in_field && !self.colon_seen => Err(ScanError::BadField),
            b':' if in_field && at == self.line_start => Err(ScanError::BadField),
            b':' if in_field => {
                self.colon_seen = true;
                Ok(())
            }
            b'\t' if in_field => Ok(()),
            0..=0x1f | 0x7f => Err(ScanError::ControlByte),
            _ => Ok(()),
        }
    }

    /// Ends the line before `end`; true if it was the empty one.
    fn end_line(&mut self, end: usize) -> Result<bool, ScanError> {
        let empty = end == self.line_start;
        if self.lines == 0 && empty {
            // RFC 9112 §2.2 lets a server skip an empty line before a request; there is no need to.
            return Err(ScanError::BadField);
        }
        if self.lines > 0 && !empty && !self.colon_seen {
            return Err(ScanError::BadField);
        }
        self.lines += 1;
        // The request line is not a field.
        if !empty && self.lines > limits::HTTP_HEADERS_MAX + 1 {
            return Err(ScanError::TooManyFields);
        }
        self.line_start = self.scanned;
        self.after_cr = false;
        self.colon_seen = false;
        Ok(empty)
    }
}

/// A decimal `Content-Length`: 1–19 digits, nothing else (RFC 9112 §6.2).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        let whole = HeadScanner::new().scan(bytes);
        // Octet by octet gives the same.
        let mut scanner = HeadScanner::new();
        let mut grown = Ok(None);
        for end in 0..=bytes.len() {
            grown = scanner.scan(&bytes[..end]);
            if grown != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, grown);
        whole
    }

    #[test]
    fn http_framing_is_strict() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), Ok(Some(27)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        let table: &[(&[u8], ScanError)] = &[
            (b"GET / HTTP/1.1\nHost: a\n\n", ScanError::ControlByte),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n", ScanError::ControlByte),
            (b"GET / HTTP/1.1\r\nA: \0\r\n", ScanError::ControlByte),
            (b"GET\t/ HTTP/1.1\r\n", ScanError::ControlByte),
            (b"GET / HTTP/1.1\r\nHost : a\r\n", ScanError::BadField),
            (b"GET / HTTP/1.1\r\nHost\r\n", ScanError::BadField),
            (b"GET / HTTP/1.1\r\n: a\r\n", ScanError::BadField),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n", ScanError::Folding),
            (b"\r\nGET / HTTP/1.1\r\n", ScanError::BadField),
        ];
        for (bytes, error) in table {
            assert_eq!(scan(bytes), Err(*error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn http_sizes_are_bounded() {
        let line = |count| [b"GET /".as_slice(), &vec![b'a'; count], b"\r\n\r\n"].concat();
        assert!(scan(&line(limits::HTTP_LINE_BYTES_MAX - 5)).is_ok());
        assert_eq!(scan(&line(limits::HTTP_LINE_BYTES_MAX - 4)), Err(ScanError::LineTooLong));
        let fields = |count| [b"G\r\n".to_vec(), b"a: b\r\n".repeat(count), b"\r\n".to_vec()].concat();
        assert!(matches!(scan(&fields(limits::HTTP_HEADERS_MAX)), Ok(Some(_))));
        assert_eq!(scan(&fields(limits::HTTP_HEADERS_MAX + 1)), Err(ScanError::TooManyFields));
        let long = [b"a: ".as_slice(), &[b'x'; 8_000], b"\r\n"].concat();
        assert_eq!(scan(&[b"G\r\n".to_vec(), long.repeat(5)].concat()), Err(ScanError::HeadTooLong));
    }

    #[test]
    fn content_lengths_are_plain_numbers() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709"), Some(18_446_744_073_709));
        for odd in [&b""[..], b"+5", b"-1", b"0x10", b"5 ", b"5,5", b"99999999999999999999"] {
            assert_eq!(content_length(odd), None);
        }
    }
}
