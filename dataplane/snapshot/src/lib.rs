//! The view a rack has of the site, and what a rack observes: record types, their ids, and one codec.
//!
//! Control publishes [`record::Record`]s ahead of time; a rack answers machines from a [`view::View`] of them and
//! sends back [`observation::Observation`]s. Nothing here reads a clock, draws randomness or does I/O, and nothing
//! here is secret: user-data and keys travel beside the snapshot (`bootstorm-api`, `link`), never in it.
//!
//! Unknown fields and unknown record kinds are ignored on reading, so that a rack may be one version behind.

pub mod codec;
pub mod dhcp;
pub mod dns;
pub mod ids;
pub mod inventory;
pub mod limits;
pub mod manifest;
pub mod names;
pub mod net;
pub mod observation;
pub mod plan;
pub mod record;
pub mod view;

pub use dns::DnsName;
pub use ids::{
    AttemptId, ChunkName, ClaimHash, CredentialHash, DiskId, EnrolmentId, EventId, FabricId, Generation, ImageId,
    InterfaceId, KeyHash, MachineId, ManifestDigest, OperationId, RackId, RangeId, SubnetId, VlanId,
};
pub use inventory::Inventory;
pub use manifest::{Encoding, Manifest};
pub use names::Names;
pub use net::{Architecture, Ipv4Net, Ipv4Range, Mac};
pub use observation::{Observation, Observed, Stage, Subject};
pub use plan::{Plan, Task};
pub use record::{Key, Line, Record};
pub use view::View;
