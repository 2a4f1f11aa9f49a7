//! Questions as octets.

use super::{HEADER_BYTES, RecordType};
use crate::bytes::{Full, Writer};
use crate::limits;

/// Class “internet” (RFC 1035 §3.2.4).
const CLASS_IN: u16 = 1;
/// Recursion desired, in the first octet of the flags (RFC 1035 §4.1.1).
const RECURSION_DESIRED: u8 = 1;

/// Why a question could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// A label is empty or above 63 octets, or the name above 255 (RFC 1035 §2.3.4).
    #[error("name has an empty label, one above 63 octets, or is above 255 octets")]
    Name,
    /// The buffer's end.
    #[error("question does not fit")]
    DoesNotFit,
}

impl From<Full> for BadQuestion {
    fn from(Full: Full) -> BadQuestion {
        BadQuestion::DoesNotFit
    }
}

/// Writes a question: labels with their lengths, root, type, class IN (RFC 1035 §4.1.2); gives its octets. `name` is dotted
/// text, with or without its last dot; backslashes mean nothing. The root is `.`.
///
/// # Errors
/// [`BadQuestion`]; the buffer's contents are then undefined.
pub fn write_question(name: &str, record_type: RecordType, buffer: &mut [u8]) -> Result<usize, BadQuestion> {
    let mut writer = Writer::new(buffer);
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        writer.put(&[length.ok_or(BadQuestion::Name)?])?;
        writer.put(label.as_bytes())?;
    }
    writer.put(&[0])?;
    if writer.len() > limits::DNS_NAME_BYTES_MAX {
        return Err(BadQuestion::Name);
    }
    writer.put(&record_type.code().to_be_bytes())?;
    writer.put(&CLASS_IN.to_be_bytes())?;
    Ok(writer.len())
}

/// Whether the server is asked to find out what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// It is to answer from what it has.
    NotDesired,
    /// It is to ask others.
    Desired,
}

/// The header of a standard query with one question (RFC 1035 §4.1.1).
pub fn header(id: u16, recursion: Recursion) -> [u8; HEADER_BYTES] {
    let [high, low] = id.to_be_bytes();
    let flags = if recursion == Recursion::Desired { RECURSION_DESIRED } else { 0 };
    [high, low, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Result<Vec<u8>, BadQuestion> {
        let mut buffer = [0; 300];
        write_question(name, RecordType::A, &mut buffer).map(|length| buffer[..length].to_vec())
    }

    #[test]
    fn names_become_labels() {
        assert_eq!(question("a.example").unwrap(), b"\x01a\x07example\0\0\x01\0\x01");
        assert_eq!(question("a.example."), question("a.example"));
        assert_eq!(question(".").unwrap(), b"\0\0\x01\0\x01");
    }

    #[test]
    fn names_outside_their_limits_are_refused() {
        let label = "a".repeat(63);
        assert!(question(&label).is_ok());
        assert_eq!(question(&"a".repeat(64)), Err(BadQuestion::Name));
        assert_eq!(question("a..b"), Err(BadQuestion::Name));
        let long = [label.as_str(); 4].join(".");
        assert_eq!(question(&long), Err(BadQuestion::Name), "257 octets");
        assert_eq!(question(&long[..253]).unwrap().len(), 255 + 4);
        assert_eq!(write_question("a", RecordType::A, &mut [0; 6]), Err(BadQuestion::DoesNotFit));
    }
}
