//! What an agent finds in a machine. Facts only: control decides what they mean.

use serde::{Deserialize, Serialize};

use crate::net::{Architecture, Mac};

/// Hardware of one machine as its agent sees it; every list is bounded by [`crate::limits::INVENTORY_ITEMS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Architecture the agent was built for.
    pub architecture: Architecture,
    /// How the firmware booted the agent.
    pub firmware: Firmware,
    /// Processors.
    pub cpu: Cpu,
    /// Usable memory in bytes.
    pub memory_bytes: u64,
    /// Block devices that can hold a system, without partitions, loop and RAM devices.
    pub disks: Vec<Disk>,
    /// Physical network interfaces.
    pub interfaces: Vec<Interface>,
    /// Strings of the firmware's DMI tables.
    pub dmi: Dmi,
    /// PCI functions.
    pub pci: Vec<PciDevice>,
    /// Version of the agent.
    pub agent_version: String,
    /// Release of the boot environment's kernel.
    pub kernel: String,
}

/// How a machine was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS, or another firmware without EFI.
    Bios,
    /// UEFI, Secure Boot off or unknown.
    Uefi,
    /// UEFI with Secure Boot on.
    UefiSecure,
}

/// Processors of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Cpu {
    /// Model name of the first processor.
    pub model: String,
    /// Packages.
    pub sockets: u32,
    /// Physical cores in all.
    pub cores: u32,
    /// Logical processors in all.
    pub threads: u32,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name, e.g. `vda`, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Logical block size in bytes (512 or 4096).
    pub block_bytes: u32,
    /// Whether it is spinning.
    pub rotational: bool,
    /// Whether the kernel says that it cannot be written.
    pub read_only: bool,
    /// Whether it is removable.
    pub removable: bool,
    /// Model, if known.
    pub model: Option<String>,
    /// Serial number, if known.
    pub serial: Option<String>,
    /// World-wide name, if known.
    pub wwn: Option<String>,
}

/// A physical network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name in the boot environment.
    pub name: String,
    /// Its (permanent, where known) address.
    pub mac: Mac,
    /// Whether it has carrier.
    pub link_up: bool,
    /// Link speed in Mbit/s, if known.
    pub speed_mbit: Option<u32>,
    /// Kernel driver, if known.
    pub driver: Option<String>,
    /// PCI address, if it is a PCI function.
    pub pci: Option<String>,
    /// Whether the machine was booted through it.
    pub boot: bool,
}

/// Strings that identify the machine, from DMI; absent where the firmware says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Dmi {
    /// System UUID in canonical text form (first three fields already byte-swapped as Linux does).
    pub system_uuid: Option<String>,
    /// System vendor.
    pub system_vendor: Option<String>,
    /// Product name.
    pub product_name: Option<String>,
    /// System serial number.
    pub system_serial: Option<String>,
    /// Board serial number.
    pub board_serial: Option<String>,
    /// Chassis asset tag.
    pub chassis_asset_tag: Option<String>,
    /// Firmware vendor.
    pub bios_vendor: Option<String>,
    /// Firmware version.
    pub bios_version: Option<String>,
    /// Firmware date.
    pub bios_date: Option<String>,
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciDevice {
    /// Address, e.g. `0000:00:02.0`.
    pub address: String,
    /// Vendor id, four hexadecimal digits.
    pub vendor: String,
    /// Device id, four hexadecimal digits.
    pub device: String,
    /// Class, six hexadecimal digits.
    pub class: String,
    /// Kernel driver, if bound.
    pub driver: Option<String>,
}
