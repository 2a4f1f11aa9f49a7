//! What an agent is to do in an attempt: the public part. Secrets (user-data, keys) are fetched over TLS beside it.

use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, MachineId, ManifestDigest, OperationId};
use crate::manifest::Encoding;
use crate::net::{Ipv4Net, Mac};

/// The plan of one operation on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The operation; absent for an enrolment, which no operation asked for.
    pub operation: Option<OperationId>,
    /// The machine; absent for an enrolment.
    pub machine: Option<MachineId>,
    /// Host name of the machine, one label; absent for an enrolment.
    pub hostname: Option<String>,
    /// The work.
    pub task: Task,
    /// What to do when the work is done and acknowledged.
    pub after: After,
}

/// The work of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Report the inventory of an unknown machine, then wait for what control decides.
    Enlist,
    /// Report the inventory of a known machine.
    Commission,
    /// Make the disks unreadable.
    Erase {
        /// How thoroughly.
        method: Erase,
    },
    /// Write an image and start it.
    Deploy(Box<Deploy>),
}

/// What follows a finished plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// Stay and ask for the next plan.
    Wait,
    /// Power the machine off.
    PowerOff,
    /// Start the installed system (a deploy plan only).
    StartSystem,
}

/// How disks are erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Erase {
    /// Signatures and tables: first and last 2 MiB of each disk and of each old partition.
    Quick,
}

/// How the installed system is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// kexec where it works, else reboot.
    #[default]
    Auto,
    /// kexec; falls back to reboot when the kernel refuses.
    Kexec,
    /// Reboot through the firmware.
    Reboot,
}

/// Writing an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Name of the image as its operator knows it.
    pub image_name: String,
    /// BLAKE3 of the raw image.
    pub image: ImageId,
    /// Manifest to follow; fetched from the rack and checked against this digest.
    pub manifest: ManifestDigest,
    /// Length of the raw image in bytes: the least size of the disk.
    pub raw_bytes: u64,
    /// Encoding of the chunks.
    pub encoding: Encoding,
    /// Which disk is written.
    pub disk: DiskSelector,
    /// Whether the last partition and its file system are grown to the end of the disk.
    pub grow: bool,
    /// How the new system is started.
    pub start: Start,
    /// Network configuration of the installed system.
    pub network: Network,
    /// Whether secrets (user-data) must be fetched before the seed is written.
    pub secrets: bool,
    /// SSH keys that cloud-init installs for the default user (public by nature).
    pub ssh_authorized_keys: Vec<String>,
    /// Seconds from *written* until the installed system must have reported ready.
    pub ready_seconds_max: u32,
}

/// Which disk of a machine holds the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum DiskSelector {
    /// The smallest writable, fixed disk that the image fits on; ties by kernel name.
    Smallest,
    /// The disk with this serial number.
    Serial {
        /// Serial number as the inventory shows it.
        serial: String,
    },
    /// The disk with this kernel name.
    Name {
        /// Kernel name as the inventory shows it.
        name: String,
    },
}

/// Network of the installed system; rendered by the agent as cloud-init network-config version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Network {
    /// Interfaces to configure, matched by MAC address.
    pub interfaces: Vec<NetworkInterface>,
    /// Name servers in order.
    pub dns_servers: Vec<std::net::IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
}

/// One interface of the installed system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Address by which it is matched.
    pub mac: Mac,
    /// Fixed address; DHCP where absent.
    pub address: Option<StaticAddress>,
    /// Maximum transmission unit in bytes, where it differs from 1500.
    pub mtu: Option<u16>,
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAddress {
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// Its network, which gives the mask.
    pub network: Ipv4Net,
    /// Default gateway, if this interface has it.
    pub gateway: Option<std::net::Ipv4Addr>,
}
