//! Identifiers: distinct types, one spelling each in API, snapshot, certificates and paths (`design.md` §4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// Why a text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError {
    /// What was expected, with its shape.
    pub expected: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for ParseIdError {}

/// A machine: six lower-case letters or digits, as MAAS's `system_id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId([u8; 6]);

impl MachineId {
    /// The characters an id is made of: MAAS's `system_id` alphabet, without look-alikes.
    pub const ALPHABET: &'static [u8; 24] = b"abcdefghkmnpqrstwxy34678";

    /// An id from 8 random bytes; 24⁶ ≈ 1.9·10⁸ ids, so the caller retries on the rare collision.
    pub fn from_random(random: [u8; 8]) -> MachineId {
        let mut value = u64::from_le_bytes(random);
        let mut id = [0u8; 6];
        for slot in &mut id {
            let digit = usize::try_from(value % 24).unwrap_or(0);
            *slot = Self::ALPHABET.get(digit).copied().unwrap_or(b'a');
            value /= 24;
        }
        MachineId(id)
    }

    /// The six characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??????")
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MachineId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "a machine id of six lower-case letters or digits" };
        let bytes: [u8; 6] = text.as_bytes().try_into().map_err(|_| error.clone())?;
        if bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(MachineId(bytes))
        } else {
            Err(error)
        }
    }
}

impl Serialize for MachineId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MachineId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A UUIDv7 (RFC 9562 §5.7) from the time and ten random bytes, both arguments.
            pub fn new(unix_milliseconds: u64, random: [u8; 10]) -> $name {
                $name(uuid::Builder::from_unix_timestamp_millis(unix_milliseconds, &random).into_uuid())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::parse_str(text).map($name).map_err(|_| ParseIdError { expected: "a UUID" })
            }
        }
    )* };
}

uuid_id! {
    /// What somebody asked of control (deploy, release, …).
    OperationId;
    /// One run of an operation on one machine, from power-on to the end.
    AttemptId;
    /// A rack's name for an unknown machine until control has a record of it.
    EnrolmentId;
    /// A rack.
    RackId;
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map($name).map_err(|_| ParseIdError { expected: "a whole number" })
            }
        }
    )* };
}

number_id! {
    /// A network interface of a machine.
    InterfaceId;
    /// A disk of a machine.
    DiskId;
    /// A fabric: a set of VLANs that can reach one another.
    FabricId;
    /// A VLAN's record (not its 802.1Q number, which is `vid`).
    VlanId;
    /// A subnet.
    SubnetId;
    /// A range of addresses in a subnet.
    RangeId;
    /// An entry of the event log.
    EventId;
}

/// Number of a published state of the site; later is larger, and a rack says which one it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// 64 lower-case hexadecimal digits, made at once: a digest is spelled in every head of a response.
fn hex32(bytes: &[u8; 32]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

macro_rules! digest {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The BLAKE3 digest of `bytes`.
            pub fn of(bytes: &[u8]) -> $name { $name(*blake3::hash(bytes).as_bytes()) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex32(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self}") }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex32(text).map($name).ok_or(ParseIdError { expected: "64 lower-case hexadecimal digits" })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )* };
}

digest! {
    /// An image or boot file: BLAKE3 of its raw bytes.
    ImageId;
    /// A manifest: BLAKE3 of its encoded bytes.
    ManifestDigest;
    /// A chunk: BLAKE3 of its *stored* bytes.
    ChunkName;
    /// BLAKE3 of a claim's 16 bytes; the claim itself is never written down.
    ClaimHash;
    /// BLAKE3 of an agent's public key (DER of its SubjectPublicKeyInfo).
    KeyHash;
    /// BLAKE3 of the credential with which an installed system reports that it is ready.
    CredentialHash;
}

fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0u8; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0u8;
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            value = (value << 4) | nibble;
        }
        *byte = value;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_id_has_one_spelling() {
        let id = MachineId::from_random([7, 1, 2, 3, 4, 5, 6, 0]);
        assert_eq!(id.to_string().parse::<MachineId>(), Ok(id));
        for bad in ["", "abc", "ABCDEF", "abc/ef", "abcdefg", "abcde\u{e9}"] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_has_one_spelling() {
        let digest = ChunkName::of(b"x");
        let text = digest.to_string();
        assert_eq!(text.parse::<ChunkName>(), Ok(digest));
        assert!(text.to_uppercase().parse::<ChunkName>().is_err());
        assert!(text.get(..63).is_some_and(|t| t.parse::<ChunkName>().is_err()));
    }

    #[test]
    fn uuids_are_version_7() {
        let id = OperationId::new(1_700_000_000_000, [9; 10]);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(serde_json::to_string(&id).ok(), Some(format!("\"{id}\"")));
    }
}
