//! What racks say and do over DHCP beyond the fields of a subnet: options by scope, addresses reserved by other names than a MAC
//! address, and networks on which somebody else's server gives the addresses.
//!
//! All three are record kinds of their own, so that a rack of an earlier version ignores them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ids::{MachineId, ParseIdError, SubnetId, VlanId};

/// Octets, in JSON as lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Octets(pub Vec<u8>);

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl FromStr for Octets {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "an even number of lower-case hexadecimal digits" };
        let digit = |octet: u8| match octet {
            b'0'..=b'9' => Some(octet - b'0'),
            b'a'..=b'f' => Some(octet - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(error) };
        let octets = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>();
        octets.map(Octets).ok_or(error)
    }
}

/// What a set of options is for. In the order of width: of two sets that both apply, the later one's option wins.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everybody.
    Site,
    /// The clients of all subnets of a VLAN.
    Vlan(VlanId),
    /// The clients of a subnet.
    Subnet(SubnetId),
    /// The clients whose address is in the dynamic range that begins with this address.
    Range(Ipv4Addr),
    /// The machines with a tag; which these are stands in the record. Of two tags the later by name wins.
    Tag(String),
    /// One machine.
    Machine(MachineId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Site => f.write_str("site"),
            Scope::Vlan(id) => write!(f, "vlan:{id}"),
            Scope::Subnet(id) => write!(f, "subnet:{id}"),
            Scope::Range(first) => write!(f, "range:{first}"),
            Scope::Tag(name) => write!(f, "tag:{name}"),
            Scope::Machine(id) => write!(f, "machine:{id}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "site, or one of vlan:, subnet:, range:, tag:, machine: with its name" };
        if text == "site" {
            return Ok(Scope::Site);
        }
        match text.split_once(':').ok_or_else(|| error.clone())? {
            ("vlan", id) => id.parse().map(Scope::Vlan),
            ("subnet", id) => id.parse().map(Scope::Subnet),
            ("range", first) => first.parse().map(Scope::Range).map_err(|_| error),
            ("tag", name) if !name.is_empty() => Ok(Scope::Tag(name.to_string())),
            ("machine", id) => id.parse().map(Scope::Machine),
            _ => Err(error),
        }
    }
}

/// Options of one scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOptions {
    /// For whom.
    pub scope: Scope,
    /// The machines with the tag, for [`Scope::Tag`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    /// The options, each code once.
    pub options: Vec<DhcpOption>,
}

/// One option of DHCPv4, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Its code.
    pub code: u8,
    /// Its data. Empty, it takes the option away that a wider scope or the subnet sets.
    pub data: Octets,
}

/// Another name of a client than its MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// Option 61 whole, its type octet first.
    Client(Octets),
    /// The port of its relay (option 82, sub-option 1).
    Circuit(Octets),
    /// Who is at that port, as the relay says (option 82, sub-option 2).
    Remote(Octets),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Client(octets) => write!(f, "client:{octets}"),
            Identity::Circuit(octets) => write!(f, "circuit:{octets}"),
            Identity::Remote(octets) => write!(f, "remote:{octets}"),
        }
    }
}

impl FromStr for Identity {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once(':') {
            Some(("client", octets)) => octets.parse().map(Identity::Client),
            Some(("circuit", octets)) => octets.parse().map(Identity::Circuit),
            Some(("remote", octets)) => octets.parse().map(Identity::Remote),
            _ => Err(ParseIdError { expected: "client:, circuit: or remote: with hexadecimal digits" }),
        }
    }
}

/// An address kept for whoever has a name; a reservation by MAC address goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedReservation {
    /// The name.
    pub identity: Identity,
    /// The subnet of the address.
    pub subnet: SubnetId,
    /// The address; outside every dynamic range.
    pub address: Ipv4Addr,
    /// Host name given to the client (option 12).
    pub hostname: Option<String>,
}

/// A VLAN on which somebody else's server gives the addresses and racks only say what to boot (PXE 2.1 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyDhcp {
    /// The VLAN. Its subnets have `dhcp` off.
    pub vlan: VlanId,
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
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
    )*};
}

as_text!(Octets, Scope, Identity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_names_round_trip_and_widths_are_in_order() {
        let machine = MachineId::from_random([1; 8]);
        let scopes = [
            Scope::Site,
            Scope::Vlan(VlanId(900)),
            Scope::Subnet(SubnetId(2)),
            Scope::Range(Ipv4Addr::new(10, 0, 0, 7)),
            Scope::Tag("gpu:a".into()),
            Scope::Machine(machine),
        ];
        assert!(scopes.is_sorted(), "the narrowest is the last");
        for scope in scopes {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        let octets = Octets(vec![0, 0xab, 0xff]);
        for name in [Identity::Client(octets.clone()), Identity::Circuit(octets.clone()), Identity::Remote(octets)] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for bad in ["", "vlan", "vlan:x", "tag:", "range:10.0.0", "client:0", "client:0G", "other:00"] {
            assert!(bad.parse::<Scope>().is_err() && bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
