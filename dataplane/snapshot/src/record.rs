//! The records of a snapshot: everything a rack needs to answer machines without asking anybody.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::dhcp::{DhcpOptions, Identity, NamedReservation, ProxyDhcp, Scope};
use crate::dns::{DnsName, Name, Zone};
use crate::ids::{
    AttemptId, EnrolmentId, Generation, ImageId, MachineId, ManifestDigest, OperationId, SubnetId, VlanId,
};
use crate::manifest::Encoding;
use crate::net::{Architecture, Ipv4Net, Ipv4Range, Mac};
use crate::plan::Plan;

/// One line of a snapshot stream: a record, or the tombstone of one, and the generation that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The generation this line is part of; lines of one generation take effect together.
    pub generation: Generation,
    /// What is set or removed.
    pub change: Change,
}

/// What a line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts a record under its own key.
    Put(Box<Record>),
    /// Removes the record under a key.
    Remove(Key),
    /// A kind this version does not know; ignored.
    Unknown,
}

/// Name of a record: its kind and a key that is unique within the kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The one site record.
    Site,
    /// A subnet.
    Subnet(SubnetId),
    /// A fixed address of an interface, by MAC address.
    Reservation(Mac),
    /// What a machine boots.
    Boot(MachineId),
    /// The plan of an operation.
    Plan(OperationId),
    /// The boot environment of an architecture.
    Environment(Architecture),
    /// Which machine an enrolment has become.
    Enrolment(EnrolmentId),
    /// DHCP options of a scope.
    DhcpOptions(Scope),
    /// An address reserved by another name than a MAC address.
    NamedReservation(Identity),
    /// A VLAN with somebody else's DHCP server.
    ProxyDhcp(VlanId),
    /// A zone of DNS, by its apex.
    Zone(DnsName),
    /// The DNS records of a name.
    Name(DnsName),
}

/// A record's value; which key it stands under follows from it ([`Record::key`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Site-wide settings.
    Site(Site),
    /// A subnet that racks serve.
    Subnet(Subnet),
    /// A fixed address.
    Reservation(Reservation),
    /// What a machine boots.
    Boot(Boot),
    /// The plan of an operation (which must be present).
    Plan(OperationId, Plan),
    /// A boot environment.
    Environment(Environment),
    /// Which machine an enrolment has become.
    Enrolment(Enrolment),
    /// DHCP options of a scope.
    DhcpOptions(DhcpOptions),
    /// An address reserved by another name than a MAC address.
    NamedReservation(NamedReservation),
    /// A VLAN with somebody else's DHCP server.
    ProxyDhcp(ProxyDhcp),
    /// A zone of DNS.
    Zone(Zone),
    /// The DNS records of a name.
    Name(Name),
}

impl Record {
    /// The key under which the record stands.
    pub fn key(&self) -> Key {
        match self {
            Record::Site(_) => Key::Site,
            Record::Subnet(subnet) => Key::Subnet(subnet.id),
            Record::Reservation(reservation) => Key::Reservation(reservation.mac),
            Record::Boot(boot) => Key::Boot(boot.machine),
            Record::Plan(operation, _) => Key::Plan(*operation),
            Record::Environment(environment) => Key::Environment(environment.architecture),
            Record::Enrolment(enrolment) => Key::Enrolment(enrolment.enrolment),
            Record::DhcpOptions(options) => Key::DhcpOptions(options.scope.clone()),
            Record::NamedReservation(reservation) => Key::NamedReservation(reservation.identity.clone()),
            Record::ProxyDhcp(proxy) => Key::ProxyDhcp(proxy.vlan),
            Record::Zone(zone) => Key::Zone(zone.name.clone()),
            Record::Name(name) => Key::Name(name.name.clone()),
        }
    }
}

/// Site-wide settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Certificate of the site's CA, PEM; agents check the rack against it.
    pub ca_pem: String,
    /// What happens to a machine that nobody knows.
    pub unknown: Unknown,
    /// Lease of a known machine, in seconds.
    pub lease_seconds: u32,
    /// Lease of an unknown or booting machine, in seconds.
    pub boot_lease_seconds: u32,
}

/// What happens to a machine that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It gets a lease and the agent, which enlists it.
    #[default]
    Enlist,
    /// It gets no answer.
    Ignore,
}

/// A subnet that racks serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its record.
    pub id: SubnetId,
    /// The VLAN it is on.
    pub vlan: VlanId,
    /// The network.
    pub cidr: Ipv4Net,
    /// Router given to clients (option 3).
    pub gateway: Option<Ipv4Addr>,
    /// Name servers given to clients (option 6).
    pub dns_servers: Vec<Ipv4Addr>,
    /// Time servers given to clients (option 42).
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Domain given to clients (option 15).
    pub domain: Option<String>,
    /// MTU given to clients (option 26) where it is not 1500.
    pub mtu: Option<u16>,
    /// Whether racks answer DHCP on it.
    pub dhcp: bool,
    /// Addresses for machines without a reservation.
    pub dynamic: Vec<Ipv4Range>,
    /// Prefix (of 64 bits) announced with router lifetime 0, so that firmware stops waiting for a router.
    pub ipv6_prefix: Option<Ipv6Addr>,
}

/// A fixed address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The interface.
    pub mac: Mac,
    /// The subnet of the address.
    pub subnet: SubnetId,
    /// The address; outside every dynamic range.
    pub address: Ipv4Addr,
    /// Host name given to the client (option 12).
    pub hostname: Option<String>,
    /// The machine it belongs to, if there is one yet.
    pub machine: Option<MachineId>,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The machine.
    pub machine: MachineId,
    /// Its host name, one label.
    pub hostname: String,
    /// Addresses of its interfaces: any of them may boot.
    pub macs: Vec<Mac>,
    /// Its architecture, if known.
    pub architecture: Option<Architecture>,
    /// The answer.
    pub answer: Answer,
}

/// What to boot. A rack's own journal may say *local boot* for the operation named here; that wins until this names
/// another operation or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Nothing is asked of the machine: its script says so and asks again.
    Wait,
    /// The machine's own disk.
    Local {
        /// The operation that installed it, if known.
        operation: Option<OperationId>,
    },
    /// The agent, for an operation.
    Agent {
        /// The operation; its plan is a record of its own.
        operation: OperationId,
        /// The first attempt of the operation; racks mint later ones.
        attempt: AttemptId,
    },
}

/// A boot environment: what it takes to start the agent on one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The architecture.
    pub architecture: Architecture,
    /// Its version, shown to people.
    pub version: String,
    /// The kernel.
    pub kernel: File,
    /// The initial RAM disk that holds the agent and modules.
    pub initrd: File,
    /// Words put on the kernel's command line before the rack's own.
    pub command_line: Vec<String>,
    /// Boot loaders by the name that DHCP gives to firmware.
    pub loaders: Vec<File>,
}

/// A file that racks serve by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Opaque name, e.g. `snponly.efi`; never joined to a path.
    pub name: String,
    /// Its chunks.
    pub manifest: ManifestDigest,
    /// BLAKE3 of its raw bytes.
    pub raw: ImageId,
    /// Length of its raw bytes.
    pub raw_bytes: u64,
    /// Encoding of its chunks.
    pub encoding: Encoding,
}

/// Which machine an enrolment has become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The rack's name for the machine.
    pub enrolment: EnrolmentId,
    /// Control's record of it.
    pub machine: MachineId,
}
