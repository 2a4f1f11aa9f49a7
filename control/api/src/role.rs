//! Supervisor → roles: how a role is started, and which descriptors come with it.
//!
//! The supervisor re-executes the binary as `bootstorm role NAME` with a unix stream as standard input. On it go
//! frames ([`crate::frame`], message [`ToRole`]); the descriptors named in a message travel by SCM_RIGHTS with its
//! first byte, in the order of the list. End of the stream means: shut down cleanly.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bootstorm_snapshot::Mac;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::origin::Origin;

/// A message of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToRole {
    /// The first message: what to be.
    Start {
        /// The role's configuration.
        role: Box<RoleConfig>,
        /// What each descriptor of the message is, in order.
        descriptors: Vec<Descriptor>,
    },
    /// A new stream to another role (at start, and again after that role has died): one descriptor.
    Peer {
        /// The role at the other end.
        peer: RoleName,
    },
}

/// The roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// DHCP, TFTP, HTTP, DNS.
    Rack,
    /// Agents' TLS, link to control.
    Gateway,
    /// API, lifecycle.
    Control,
    /// Power.
    Bmc,
}

/// Configuration of a role; checked by the supervisor before any role starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum RoleConfig {
    /// For the rack role.
    Rack(RackConfig),
    /// For the gateway role.
    Gateway(GatewayConfig),
    /// For the control role.
    Control(ControlConfig),
    /// For the bmc role.
    Bmc(BmcConfig),
}

/// Configuration of the rack role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackConfig {
    /// Directory of the rack: `snapshot`, `journal`, `content` are below it; only this role writes them.
    pub data: PathBuf,
    /// Interfaces served.
    pub interfaces: Vec<RackInterface>,
    /// Port of the rack's HTTP server, as in URLs given to machines.
    pub http_port: u16,
    /// Port of the gateway's TLS, as in boot scripts.
    pub agent_port: u16,
    /// Number of shards (threads); HTTP, TFTP and DNS descriptors come once per shard.
    pub shards: u16,
    /// Octets of memory that chunks are kept in; `None` for a share of what is available.
    #[serde(default)]
    pub cache_bytes: Option<u64>,
    /// What does the rack's input and output.
    #[serde(default)]
    pub driver: Driver,
    /// How much DNS tells whom.
    #[serde(default)]
    pub dns: RackDns,
}

/// Answers over DNS in a second, of each kind (found, not found, refused, …), before a source has to prove its address with a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackDns {
    /// To one address on a subnet of ours.
    pub client_answers: u32,
    /// To all addresses of a /24 that is none of ours.
    pub stranger_answers: u32,
}

impl Default for RackDns {
    fn default() -> RackDns {
        RackDns {
            client_answers: limits::DNS_CLIENT_ANSWERS_DEFAULT,
            stranger_answers: limits::DNS_STRANGER_ANSWERS_DEFAULT,
        }
    }
}

/// What does a rack's input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring, and epoll where the kernel or a container gives no ring.
    #[default]
    Auto,
    /// io_uring, or the role does not start.
    Uring,
    /// epoll.
    Epoll,
}

/// One interface that a rack serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackInterface {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Link-level address.
    pub mac: Mac,
    /// The rack's own address on it: server identifier, next server, host of URLs.
    pub address: Ipv4Addr,
    /// Length of its mask in bits.
    pub prefix_bits: u8,
    /// MTU in bytes.
    pub mtu: u16,
}

/// What a passed descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "descriptor", rename_all = "snake_case")]
pub enum Descriptor {
    /// UDP port 67, bound to the interface, broadcast on.
    Dhcp {
        /// Kernel index of the interface.
        interface: u32,
    },
    /// Packet socket on the interface (protocol IPv4), for link-level replies.
    Packet {
        /// Kernel index of the interface.
        interface: u32,
    },
    /// Raw ICMPv6 socket bound to the interface, joined to all-routers.
    Icmp6 {
        /// Kernel index of the interface.
        interface: u32,
    },
    /// UDP port 69 on the interface's address, one of a SO_REUSEPORT group.
    Tftp {
        /// Kernel index of the interface.
        interface: u32,
        /// The shard that serves it.
        shard: u16,
    },
    /// UDP port 53 on the interface's address, one of a SO_REUSEPORT group.
    Dns {
        /// Kernel index of the interface.
        interface: u32,
        /// The shard that serves it.
        shard: u16,
    },
    /// TCP listener of HTTP on the interface's address, one of a SO_REUSEPORT group.
    Http {
        /// Kernel index of the interface.
        interface: u32,
        /// The shard that serves it.
        shard: u16,
    },
    /// TCP listener of agents' TLS (gateway role).
    AgentTls {
        /// Kernel index of the interface.
        interface: u32,
    },
}

/// Configuration of the gateway role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayConfig {
    /// Directory for the rack's key and certificate (`gateway` under the rack's directory).
    pub data: PathBuf,
    /// Where control is.
    pub control: ControlAddress,
    /// One-use token with which this rack joins; not needed over a unix socket.
    pub join_token: Option<String>,
    /// Name of this rack, shown to people (the host's name by default).
    pub name: String,
    /// The rack's addresses: names of its TLS certificate.
    pub addresses: Vec<Ipv4Addr>,
    /// Interfaces served, as reported to control.
    pub interfaces: Vec<RackInterface>,
    /// Where content is fetched before control is asked, in the order of preference.
    #[serde(default)]
    pub origins: Vec<Origin>,
}

/// Where a rack finds control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum ControlAddress {
    /// A unix socket on the same host; the file's permissions are the authority.
    Unix {
        /// Its path.
        path: PathBuf,
    },
    /// mTLS to a host.
    Tls {
        /// Its URL.
        url: String,
    },
}

/// Configuration of the control role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlConfig {
    /// Root of the data directory: `admin.token`, `ca.pem` are in it, `control/{db,content}` below it.
    pub data: PathBuf,
    /// Address of the API; plain HTTP on loopback, TLS elsewhere.
    pub api_listen: SocketAddr,
    /// Unix socket for racks on this host.
    pub racks_socket: PathBuf,
    /// What happens to a machine after it has enlisted.
    pub enlist_then: EnlistThen,
    /// Origins (scheme, host, port) that webhooks may reach besides public addresses (`fetch.allow`).
    pub fetch_allow: Vec<String>,
    /// Bytes an uploaded image may have.
    pub upload_bytes_max: u64,
}

/// What happens to a machine after it has enlisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EnlistThen {
    /// Its agent waits.
    #[default]
    Wait,
    /// It is commissioned in the same boot.
    Commission,
}

/// Configuration of the bmc role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcConfig {
    /// File with the key that BMC credentials are sealed with (made by control, mode 0600).
    pub key_file: PathBuf,
    /// Origins that webhooks may reach besides public addresses (`fetch.allow`).
    pub fetch_allow: Vec<String>,
}
