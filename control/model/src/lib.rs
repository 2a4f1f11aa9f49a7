//! The domain: machines, networks, addresses, images, operations, and the lifecycle that moves machines.
//!
//! Pure: no I/O, no async, no SQL; time, ids and randomness are arguments. What a rack must know too (ids, addresses, plans,
//! stages, inventories) is `bootstorm-snapshot`'s and used from there.

pub mod image;
pub mod ipam;
pub mod lifecycle;
pub mod limits;
pub mod machine;
pub mod name;
pub mod network;
pub mod operation;
pub mod rack;
pub mod time;

pub use image::{BootEnvironment, Image, ImageState};
pub use lifecycle::{Effect, Event, Flags, Refused, State, Status, Step};
pub use machine::{Installed, Interface, InventorySummary, Machine, Power, PowerState};
pub use name::{Domain, Hostname, Name, NameError};
pub use network::{Address, AddressKind, Fabric, IpRange, RangeKind, Subnet, Vlan};
pub use operation::{Operation, OperationKind, OperationState, Outcome, Parameters, Span};
pub use rack::{LogEntry, NewLogEntry, Rack, Severity};
pub use time::Timestamp;
