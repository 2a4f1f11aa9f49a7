//! Zones and the records in them, as racks answer for them.
//!
//! A [`Zone`] says that racks have authority over a name and everything below it, and what its SOA is. [`Name`] holds all other records
//! of one owner name, so that a change of one host is one line. Data is kept as octets of the wire (RFC 1035 §3.3 and others,
//! names in it uncompressed): a rack serves types that it does not know as it serves any other (RFC 3597).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::dhcp::Octets;
use crate::ids::ParseIdError;
use crate::limits;

/// Numbers of the record types that mean something to us (RFC 1035 §3.2.2, RFC 3596, RFC 2782, RFC 4034).
pub mod kind {
    /// A host address.
    pub const A: u16 = 1;
    /// A name server.
    pub const NS: u16 = 2;
    /// The canonical name of an alias.
    pub const CNAME: u16 = 5;
    /// The start of a zone of authority.
    pub const SOA: u16 = 6;
    /// A domain name pointer.
    pub const PTR: u16 = 12;
    /// Mail exchange.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// An IPv6 host address.
    pub const AAAA: u16 = 28;
    /// The location of a service.
    pub const SRV: u16 = 33;
    /// A delegation's key, which the zone above has (RFC 4035 §3.1.4.1).
    pub const DS: u16 = 43;
}

/// A domain name: labels with their lengths, the root's 0 at the end, letters in lower case; at most 255 octets (RFC 1035 §3.1).
///
/// As text its labels are joined by dots, without one at the end but for the root, which is `.`. What is neither letter, digit,
/// `-`, `_` nor `*` is written as `\` and three decimal digits (RFC 1035 §5.1); read is also `\` before any other character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Box<[u8]>);

impl DnsName {
    /// The root.
    pub fn root() -> DnsName {
        DnsName(Box::new([0]))
    }

    /// Checks octets of the wire that hold one name and nothing else; a compressed name is none.
    pub fn from_wire(octets: &[u8]) -> Option<DnsName> {
        (name_bytes(octets)? == octets.len()).then(|| DnsName(octets.to_ascii_lowercase().into()))
    }

    /// The octets of the wire.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The name with one more label in front; `None` if the label or the whole is too long.
    pub fn child(&self, label: &str) -> Option<DnsName> {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        DnsName::from_wire(&[&[length], label.as_bytes(), &self.0].concat())
    }

    /// Whether it is `zone` or below it.
    pub fn is_in(&self, zone: &DnsName) -> bool {
        let mut rest = &self.0[..];
        loop {
            if rest == zone.wire() {
                return true;
            }
            match rest.split_first() {
                Some((length @ 1.., after)) => rest = after.get(usize::from(*length)..).unwrap_or_default(),
                _ => return false,
            }
        }
    }

    /// The name under which the address's PTR record stands (RFC 1035 §3.5).
    pub fn reverse(address: Ipv4Addr) -> DnsName {
        let [a, b, c, d] = address.octets();
        let mut wire = Vec::with_capacity(32);
        for octet in [d, c, b, a] {
            let digits = octet.to_string();
            wire.push(digits.len() as u8);
            wire.extend_from_slice(digits.as_bytes());
        }
        wire.extend_from_slice(b"\x07in-addr\x04arpa\0");
        DnsName(wire.into())
    }

    /// The same for an IPv6 address (RFC 3596 §2.5).
    pub fn reverse6(address: Ipv6Addr) -> DnsName {
        let mut wire = Vec::with_capacity(74);
        for octet in address.octets().iter().rev() {
            for digit in [octet & 15, octet >> 4] {
                wire.extend_from_slice(&[1, if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }]);
            }
        }
        wire.extend_from_slice(b"\x03ip6\x04arpa\0");
        DnsName(wire.into())
    }
}

/// Octets of the uncompressed name that `octets` begin with; `None` if they begin with none.
pub fn name_bytes(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = *octets.get(at)?;
        at += 1 + usize::from(length);
        match length {
            0 => return Some(at),
            1..=63 if at < limits::DNS_NAME_BYTES_MAX => {}
            _ => return None,
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        if rest == [0] {
            return f.write_str(".");
        }
        let mut is_first = true;
        while let Some((length @ 1.., after)) = rest.split_first() {
            let Some((label, after)) = after.split_at_checked(usize::from(*length)) else { break };
            if !std::mem::take(&mut is_first) {
                f.write_str(".")?;
            }
            for octet in label {
                match octet {
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' => write!(f, "{}", char::from(*octet))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            rest = after;
        }
        Ok(())
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for DnsName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "a domain name of labels of 1 to 63 octets, 255 together" };
        if text == "." {
            return Ok(DnsName::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut rest = text.strip_suffix('.').filter(|shorter| !shorter.ends_with('\\')).unwrap_or(text).bytes();
        loop {
            let octet = rest.next();
            match octet {
                None | Some(b'.') => {
                    let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
                    wire.push(length.ok_or_else(|| error.clone())?);
                    wire.append(&mut label);
                    if octet.is_none() {
                        break;
                    }
                }
                Some(b'\\') => {
                    let first = rest.next().ok_or_else(|| error.clone())?;
                    label.push(if first.is_ascii_digit() {
                        let digits = [first, rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
                        let all = digits.iter().all(u8::is_ascii_digit);
                        let number =
                            digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit.wrapping_sub(b'0')));
                        u8::try_from(number).ok().filter(|_| all).ok_or_else(|| error.clone())?
                    } else {
                        first
                    });
                }
                Some(octet @ (b'!'..=b'~')) => label.push(octet),
                Some(_) => return Err(error),
            }
            if wire.len() + label.len() > limits::DNS_NAME_BYTES_MAX {
                return Err(error);
            }
        }
        wire.push(0);
        DnsName::from_wire(&wire).ok_or(error)
    }
}

impl Serialize for DnsName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A zone that racks answer for: its SOA (RFC 1035 §3.3.13). Its NS records are those of the [`Name`] of its apex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The apex.
    pub name: DnsName,
    /// The primary name server, as secondaries are told.
    pub primary: DnsName,
    /// Who answers for the zone: a mailbox as a name.
    pub contact: DnsName,
    /// Rises with every change of the zone (RFC 1982).
    pub serial: u32,
    /// Seconds between two looks of a secondary.
    pub refresh_seconds: u32,
    /// Seconds until a look that failed is tried again.
    pub retry_seconds: u32,
    /// Seconds after which a secondary that cannot look stops answering.
    pub expire_seconds: u32,
    /// Seconds for which an answer that something is not there may be kept (RFC 2308 §4).
    pub negative_seconds: u32,
    /// Seconds for which the SOA itself may be kept.
    pub ttl_seconds: u32,
}

impl Zone {
    /// Its SOA's data.
    pub fn soa(&self) -> Vec<u8> {
        let mut data = [self.primary.wire(), self.contact.wire()].concat();
        let numbers =
            [self.serial, self.refresh_seconds, self.retry_seconds, self.expire_seconds, self.negative_seconds];
        numbers.iter().for_each(|number| data.extend_from_slice(&number.to_be_bytes()));
        data
    }
}

/// All records of one owner name, its SOA not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The owner; `*` as its first label makes it a wildcard (RFC 4592).
    pub name: DnsName,
    /// The sets in the order of their types, each type once.
    pub sets: Vec<RecordSet>,
}

/// Records of one type of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSet {
    /// The type's number.
    pub kind: u16,
    /// Seconds that it may be kept.
    pub ttl_seconds: u32,
    /// Data of each record, at least one, in the order in which they are sent.
    pub data: Vec<Octets>,
}

impl RecordSet {
    /// Address records.
    pub fn a(ttl_seconds: u32, addresses: impl IntoIterator<Item = Ipv4Addr>) -> RecordSet {
        let data = addresses.into_iter().map(|address| Octets(address.octets().to_vec())).collect();
        RecordSet { kind: kind::A, ttl_seconds, data }
    }

    /// IPv6 address records.
    pub fn aaaa(ttl_seconds: u32, addresses: impl IntoIterator<Item = Ipv6Addr>) -> RecordSet {
        let data = addresses.into_iter().map(|address| Octets(address.octets().to_vec())).collect();
        RecordSet { kind: kind::AAAA, ttl_seconds, data }
    }

    /// Records whose data is one name: NS, CNAME, PTR.
    pub fn of_names<'a>(kind: u16, ttl_seconds: u32, names: impl IntoIterator<Item = &'a DnsName>) -> RecordSet {
        let data = names.into_iter().map(|name| Octets(name.wire().to_vec())).collect();
        RecordSet { kind, ttl_seconds, data }
    }

    /// Whether a rack can serve it: not empty, within bounds, and data that holds names holds them whole (RFC 1035 §3.3).
    pub fn is_good(&self) -> bool {
        let fits = |data: &Octets| data.0.len() <= limits::DNS_DATA_BYTES_MAX;
        let is_name = |data: &[u8]| name_bytes(data) == Some(data.len());
        let is_right = |data: &Octets| match self.kind {
            kind::A => data.0.len() == 4,
            kind::AAAA => data.0.len() == 16,
            kind::NS | kind::CNAME | kind::PTR => is_name(&data.0),
            kind::MX => data.0.get(2..).is_some_and(is_name),
            kind::SRV => data.0.get(6..).is_some_and(is_name),
            // Made from the zone; and of questions there are no records (RFC 6895 §3.1).
            0 | kind::SOA | 41 | 128..=255 => false,
            _ => true,
        };
        let count = self.data.len();
        let is_single = self.kind != kind::CNAME || count == 1;
        (1..=limits::DNS_SET_RECORDS_MAX).contains(&count)
            && is_single
            && self.data.iter().all(|d| fits(d) && is_right(d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    #[test]
    fn names_round_trip_and_are_in_lower_case() {
        for (text, wire, again) in [
            (".", &b"\0"[..], "."),
            ("Bench.TEST.", b"\x05bench\x04test\0", "bench.test"),
            ("*.a", b"\x01*\x01a\0", "*.a"),
            (r"a\.b.c", b"\x03a.b\x01c\0", r"a\046b.c"),
            (r"\255\000x", b"\x03\xff\0x\0", r"\255\000x"),
            (r"a\.", b"\x02a.\0", r"a\046"),
        ] {
            assert_eq!((name(text).wire(), name(text).to_string().as_str()), (wire, again));
            assert_eq!(name(again), name(text));
            assert_eq!(DnsName::from_wire(wire), Some(name(text)));
        }
        let long = [["a"; 63].concat().as_str(); 4].join(".");
        for bad in ["", "..", "a..b", ".a", "a b", "\u{e4}", r"\256", r"\25", "\\", &["a"; 64].concat(), &long] {
            assert!(bad.parse::<DnsName>().is_err(), "{bad}");
        }
        assert_eq!(name(&long[..253]).wire().len(), 255);
        for bad in [&b""[..], b"\x01a", b"\x01a\0\0", b"\xc0\x0c", b"\x40"] {
            assert_eq!(DnsName::from_wire(bad), None);
        }
    }

    #[test]
    fn names_lie_in_zones_by_labels() {
        assert!(name("a.b.test").is_in(&name("b.test")) && name("b.test").is_in(&name("b.test")));
        assert!(!name("ab.test").is_in(&name("b.test")) && !name("test").is_in(&name("b.test")));
        assert!(name("x").is_in(&DnsName::root()));
    }

    #[test]
    fn addresses_have_reverse_names() {
        assert_eq!(DnsName::reverse([192, 0, 2, 1].into()), name("1.2.0.192.in-addr.arpa"));
        let six = DnsName::reverse6("2001:db8::567:89ab".parse().unwrap()).to_string();
        assert_eq!(six, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }

    #[test]
    fn sets_that_cannot_be_served_are_told() {
        let set = |kind, data: &[&[u8]]| RecordSet {
            kind,
            ttl_seconds: 1,
            data: data.iter().map(|data| Octets(data.to_vec())).collect(),
        };
        let good = [
            RecordSet::a(1, [[10, 0, 0, 1].into()]),
            RecordSet::of_names(kind::PTR, 1, [&name("a.test"), &name("b.test")]),
            set(kind::MX, &[b"\0\x0a\x01m\0"]),
            set(65_280, &[b""]),
        ];
        assert!(good.iter().all(RecordSet::is_good));
        let bad = [
            set(kind::A, &[]),
            set(kind::A, &[b"123"]),
            set(kind::NS, &[b"\x01a"]),
            set(kind::NS, &[b"\xc0\x0c"]),
            set(kind::CNAME, &[b"\x01a\0", b"\x01b\0"]),
            set(kind::SRV, &[b"\0\0\0\0\0"]),
            set(kind::SOA, &[b"\0\0"]),
            set(255, &[b""]),
        ];
        assert!(!bad.iter().any(RecordSet::is_good));
    }
}
