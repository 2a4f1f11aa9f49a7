//! Addresses and architectures.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ids::ParseIdError;

/// An Ethernet address; written with colons in lower case, read also with dashes or upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether this can be the address of one interface: not multicast, not all zeros.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Mac {
        Mac(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mac {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "a MAC address as 52:54:00:12:34:56" };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut out = [0u8; 6];
        let mut parts = text.split(separator);
        for byte in &mut out {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(|| error.clone())?;
        }
        if parts.next().is_some() { Err(error) } else { Ok(Mac(out)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// An IPv4 network in CIDR notation; host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Net {
    network: Ipv4Addr,
    prefix_bits: u8,
}

impl Ipv4Net {
    /// The network that holds `address` under a mask of `prefix_bits` (0 to 32) bits.
    pub fn containing(address: Ipv4Addr, prefix_bits: u8) -> Option<Ipv4Net> {
        let mask = mask_of(prefix_bits)?;
        Some(Ipv4Net { network: Ipv4Addr::from(u32::from(address) & mask), prefix_bits })
    }

    /// First address of the network.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Length of the mask in bits.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// The mask (option 1 of DHCP).
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(mask_of(self.prefix_bits).unwrap_or(u32::MAX))
    }

    /// Last address of the network.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !u32::from(self.mask()))
    }

    /// Whether `address` lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.mask()) == u32::from(self.network)
    }
}

fn mask_of(prefix_bits: u8) -> Option<u32> {
    match prefix_bits {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - u32::from(prefix_bits))),
        _ => None,
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

impl fmt::Debug for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Ipv4Net {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "an IPv4 network as 10.0.0.0/24 without host bits" };
        let (address, bits) = text.split_once('/').ok_or_else(|| error.clone())?;
        let address: Ipv4Addr = address.parse().map_err(|_| error.clone())?;
        let bits: u8 = bits.parse().map_err(|_| error.clone())?;
        Ipv4Net::containing(address, bits).filter(|net| net.network == address).ok_or(error)
    }
}

impl Serialize for Ipv4Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ipv4Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Addresses from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ipv4Range {
    /// Lowest address.
    pub first: Ipv4Addr,
    /// Highest address; not below `first`.
    pub last: Ipv4Addr,
}

impl Ipv4Range {
    /// Whether `address` lies in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    /// How many addresses the range holds; 0 if `last` is below `first`.
    pub fn count(&self) -> u64 {
        (u64::from(u32::from(self.last)) + 1).saturating_sub(u64::from(u32::from(self.first)))
    }
}

/// Processor architecture of a machine, by the names that Debian and MAAS use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
    /// 64-bit POWER, little-endian.
    Ppc64el,
    /// IBM Z.
    S390x,
}

impl Architecture {
    /// The name, as in the serialised form.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
            Architecture::Ppc64el => "ppc64el",
            Architecture::S390x => "s390x",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text {
            "amd64" | "x86_64" => Ok(Architecture::Amd64),
            "arm64" | "aarch64" => Ok(Architecture::Arm64),
            "ppc64el" | "ppc64le" => Ok(Architecture::Ppc64el),
            "s390x" => Ok(Architecture::S390x),
            _ => Err(ParseIdError { expected: "one of amd64, arm64, ppc64el, s390x" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_refuse_host_bits_and_know_their_edges() {
        let net: Ipv4Net = "10.1.2.0/23".parse().expect("a network");
        assert_eq!(net.mask(), Ipv4Addr::new(255, 255, 254, 0));
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 1, 3, 255));
        assert!(net.contains(Ipv4Addr::new(10, 1, 3, 7)) && !net.contains(Ipv4Addr::new(10, 1, 4, 0)));
        for bad in ["10.1.2.1/24", "10.1.2.0/33", "10.1.2.0", "x/24", "10.1.2.0/"] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_reads_both_separators_and_writes_one() {
        for text in ["52:54:00:aB:cd:ef", "52-54-00-ab-cd-ef"] {
            assert_eq!(text.parse::<Mac>().map(|m| m.to_string()), Ok("52:54:00:ab:cd:ef".to_string()));
        }
        for bad in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:00", "+2:54:00:ab:cd:ef", "52:54:00-ab:cd:ef"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
