//! Fabrics, VLANs, subnets, ranges and addresses.

use crate::{Domain, Name, Timestamp};
use bootstorm_snapshot::{FabricId, Ipv4Net, Ipv4Range, Mac, MachineId, RangeId, SubnetId, VlanId};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A set of VLANs that can reach one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    /// Its id; 0 in one that is yet to be stored.
    pub id: FabricId,
    /// Its name; unique.
    pub name: Name,
}

/// A VLAN of a fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Its id; 0 in one that is yet to be stored.
    pub id: VlanId,
    /// The fabric it belongs to.
    pub fabric: FabricId,
    /// Its 802.1Q number, 0 for untagged; unique in the fabric.
    pub vid: u16,
    /// Its name.
    pub name: Name,
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether racks answer DHCP on it.
    pub dhcp_on: bool,
}

/// An IPv4 subnet on a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id; 0 in one that is yet to be stored.
    pub id: SubnetId,
    /// The VLAN it is on.
    pub vlan: VlanId,
    /// Its name; unique.
    pub name: Name,
    /// The network; overlaps no other subnet of its fabric.
    pub cidr: Ipv4Net,
    /// The router given to machines.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers given to machines, at most [`crate::limits::SERVERS_MAX`].
    pub dns_servers: Vec<Ipv4Addr>,
    /// Time servers given to machines, at most [`crate::limits::SERVERS_MAX`].
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Domain given to machines.
    pub domain: Option<Domain>,
    /// IPv6 prefix (of 64 bits) announced with a router lifetime of 0.
    pub ipv6_prefix: Option<Ipv6Addr>,
}

/// A range of a subnet's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpRange {
    /// Its id; 0 in one that is yet to be stored.
    pub id: RangeId,
    /// The subnet it lies in.
    pub subnet: SubnetId,
    /// What it is for.
    pub kind: RangeKind,
    /// Its addresses.
    pub range: Ipv4Range,
    /// For people.
    pub comment: String,
}

/// What a range is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeKind {
    /// Racks lease its addresses to machines without one of their own.
    Dynamic,
    /// Nothing hands out its addresses.
    Reserved,
}

impl RangeKind {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Reserved => "reserved",
        }
    }
}

/// An address that is somebody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address; unique in its subnet.
    pub ip: Ipv4Addr,
    /// The subnet it lies in.
    pub subnet: SubnetId,
    /// How it was given.
    pub kind: AddressKind,
    /// The interface that has it; `None` for a static address outside our machines.
    pub mac: Option<Mac>,
    /// The machine that has it, if it is one of ours.
    pub machine: Option<MachineId>,
    /// When the lease ends, for [`AddressKind::Dhcp`].
    pub until: Option<Timestamp>,
    /// When it was given or seen.
    pub updated: Timestamp,
}

/// How an address was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressKind {
    /// We chose it; it is given back when its owner goes.
    Auto,
    /// We chose it, and it stays.
    Sticky,
    /// Somebody chose it: a reserved address.
    Static,
    /// Leased by a rack from a dynamic range.
    Dhcp,
    /// Seen on the network.
    Discovered,
}

impl AddressKind {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sticky => "sticky",
            Self::Static => "static",
            Self::Dhcp => "dhcp",
            Self::Discovered => "discovered",
        }
    }

    /// Whether racks are told to keep it for its interface.
    pub const fn is_reservation(self) -> bool {
        match self {
            Self::Auto | Self::Sticky | Self::Static => true,
            Self::Dhcp | Self::Discovered => false,
        }
    }
}
