//! Machines and their interfaces.

use crate::lifecycle::{Flags, Refused, State, Step};
use crate::{Hostname, Name, Timestamp, lifecycle};
use bootstorm_snapshot::inventory::Firmware;
use bootstorm_snapshot::{Architecture, EnrolmentId, ImageId, InterfaceId, Inventory, Mac, MachineId, OperationId};
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Its host name; unique.
    pub hostname: Hostname,
    /// Its state.
    pub state: State,
    /// The flags beside the state.
    pub flags: Flags,
    /// Why it is held, for people; `None` if it is not.
    pub hold_reason: Option<String>,
    /// Counts its changes, from 1: a change names the version it was made from, and is refused if that is no longer current.
    pub version: i64,
    /// Whom it belongs to; set where [`crate::Status::is_owned`].
    pub owner: Option<String>,
    /// The resource pool it is in.
    pub pool: Name,
    /// Architecture, if known.
    pub architecture: Option<Architecture>,
    /// How its firmware boots, if known.
    pub firmware: Option<Firmware>,
    /// How it is switched.
    pub power: Power,
    /// Its interfaces, by id.
    pub interfaces: Vec<Interface>,
    /// What the last inventory found, in short.
    pub inventory: Option<InventorySummary>,
    /// The system on its disk, as far as we installed it.
    pub installed: Option<Installed>,
    /// The operation under way.
    pub operation: Option<OperationId>,
    /// The enrolment that it was, if a rack found it.
    pub enrolment: Option<EnrolmentId>,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Machine {
    /// What an event would do: flags, then transition.
    ///
    /// # Errors
    /// [`Refused`] with the reason.
    pub fn decide(&self, event: &lifecycle::Event) -> Result<Step, Refused> {
        lifecycle::decide(self.flags, &self.state, event)
    }

    /// The interface it boots from: the one its inventory says, else the first.
    pub fn boot_interface(&self) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.boot).or_else(|| self.interfaces.first())
    }
}

/// A physical network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its id; 0 in an interface that is yet to be stored.
    pub id: InterfaceId,
    /// Its address; unique among all machines.
    pub mac: Mac,
    /// Its name in the system, e.g. `eth0`.
    pub name: String,
    /// Whether the machine was booted through it.
    pub boot: bool,
}

/// How a machine is switched. Its parameters (address, password) are sealed and stored as a secret of the machine, never here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// The driver, e.g. `manual`, `webhook`.
    pub driver: String,
    /// What was last seen.
    pub state: PowerState,
    /// When it was seen.
    pub checked: Option<Timestamp>,
}

impl Default for Power {
    fn default() -> Self {
        Self { driver: "manual".to_string(), state: PowerState::Unknown, checked: None }
    }
}

/// Whether a machine is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// Nobody has looked, or the driver cannot say.
    #[default]
    Unknown,
    /// On.
    On,
    /// Off.
    Off,
    /// The driver failed to find out.
    Error,
}

impl PowerState {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::On => "on",
            Self::Off => "off",
            Self::Error => "error",
        }
    }
}

/// The system on a machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The operation that put it there: a rack boots the disk for it.
    pub operation: OperationId,
    /// The image.
    pub image: ImageId,
    /// The image's name then.
    pub image_name: String,
}

/// An inventory in a few numbers, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventorySummary {
    /// Logical processors.
    pub cpu_threads: u32,
    /// Model of the first processor.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Fixed, writable disks.
    pub disks: u32,
    /// Their bytes in all.
    pub disk_bytes: u64,
    /// Vendor and product, as far as the firmware names them.
    pub product: Option<String>,
    /// Serial number, as far as the firmware names it.
    pub serial: Option<String>,
}

impl InventorySummary {
    /// The summary of an inventory.
    pub fn of(inventory: &Inventory) -> Self {
        let disks = || inventory.disks.iter().filter(|disk| !disk.read_only && !disk.removable);
        let named = [&inventory.dmi.system_vendor, &inventory.dmi.product_name];
        let product = named.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
        Self {
            cpu_threads: inventory.cpu.threads,
            cpu_model: inventory.cpu.model.clone(),
            memory_bytes: inventory.memory_bytes,
            disks: u32::try_from(disks().count()).unwrap_or(u32::MAX),
            disk_bytes: disks().fold(0, |sum, disk| sum.saturating_add(disk.bytes)),
            product: (!product.is_empty()).then_some(product),
            serial: inventory.dmi.system_serial.clone(),
        }
    }
}
