//! What a rack tells control. Numbered, spooled in the rack's journal, delivered at least once, applied once.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, EnrolmentId, KeyHash, MachineId, OperationId, SubnetId};
use crate::inventory::Inventory;
use crate::net::{Architecture, Mac};

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Number in this rack's spool, from 1, without gaps; 0 for what is worth sending but not keeping
    /// (progress, heartbeats), which may be lost.
    pub sequence: u64,
    /// The rack's wall clock in microseconds since 1970.
    pub unix_micros: u64,
    /// What was observed.
    pub observed: Observed,
}

/// Who an agent or a boot client is to this rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub enum Subject {
    /// A known machine in an attempt of an operation.
    Attempt {
        /// The machine.
        machine: MachineId,
        /// The operation.
        operation: OperationId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// A machine that control has no record of yet.
    Enrolment {
        /// The rack's name for it.
        enrolment: EnrolmentId,
        /// The interface it boots from.
        mac: Mac,
    },
}

/// A step of a machine's way, in order. Control adds *queued*, *published* and *power*; racks and agents the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The operation is accepted and committed.
    Queued,
    /// The racks concerned have its generation, its content and its secrets.
    Published,
    /// The machine is being powered on.
    Power,
    /// It has an address.
    Dhcp,
    /// It has fetched a boot loader.
    Loader,
    /// It has fetched its boot script.
    Script,
    /// It has fetched kernel and initial RAM disk.
    Kernel,
    /// Its agent has redeemed the claim.
    Agent,
    /// Its agent has reported the inventory.
    Inventory,
    /// Its disks are being erased.
    Erase,
    /// The image is being written.
    Write,
    /// Storage, network and seed are being set up.
    Configure,
    /// The system is on the disk and the boot entry set.
    Written,
    /// The installed system starts.
    FirstBoot,
    /// The installed system has reported that it is ready, or the operation is otherwise complete.
    Ready,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// A failure: which stage, a stable code, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// Stable code, lower case with dashes, e.g. `disk-too-small`.
    pub code: String,
    /// The last evidence, cut to [`crate::limits::TEXT_BYTES_MAX`].
    pub evidence: String,
}

/// What an installed system says about its first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ReadyResult {
    /// Errors and warnings of cloud-init's `result.json`, in its order; not failures by themselves.
    pub warnings: Vec<String>,
    /// Data source that cloud-init used.
    pub datasource: Option<String>,
}

/// What a rack has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "observed", rename_all = "snake_case")]
pub enum Observed {
    /// An address is leased (first time or to somebody else; renewals are not observed).
    Lease {
        /// The client.
        mac: Mac,
        /// The address.
        address: Ipv4Addr,
        /// Its subnet.
        subnet: SubnetId,
        /// When it ends, in seconds since 1970.
        until_unix_seconds: u64,
    },
    /// A lease has ended.
    LeaseEnded {
        /// The client.
        mac: Mac,
        /// The address.
        address: Ipv4Addr,
    },
    /// A machine that nobody knows asks to be booted.
    UnknownMachine {
        /// The rack's name for it.
        enrolment: EnrolmentId,
        /// The interface it boots from.
        mac: Mac,
        /// Its architecture, if it says so.
        architecture: Option<Architecture>,
    },
    /// A stage is reached (or its progress, in unnumbered observations).
    Stage {
        /// Whose.
        subject: Subject,
        /// Which.
        stage: Stage,
        /// How far, where it can be said.
        progress: Option<Progress>,
        /// A short text for people; may be empty.
        detail: String,
    },
    /// A claim was redeemed: the agent speaks.
    Redeemed {
        /// Whose.
        subject: Subject,
        /// Its key.
        key: KeyHash,
    },
    /// The inventory of an unknown machine.
    Enlisted {
        /// The rack's name for it.
        enrolment: EnrolmentId,
        /// The interface it booted from.
        mac: Mac,
        /// What the agent found.
        inventory: Box<Inventory>,
    },
    /// The inventory of a known machine.
    Inventory {
        /// Whose.
        subject: Subject,
        /// What the agent found.
        inventory: Box<Inventory>,
    },
    /// The plan's work is done (commissioned, erased); for a deployment see `Written` and `Ready`.
    Finished {
        /// Whose.
        subject: Subject,
    },
    /// The image is on the disk and the rack will boot it locally.
    Written {
        /// Whose.
        subject: Subject,
    },
    /// The installed system is ready.
    Ready {
        /// Whose.
        subject: Subject,
        /// What it says about its first boot.
        result: ReadyResult,
    },
    /// The attempt has failed.
    Failed {
        /// Whose.
        subject: Subject,
        /// How.
        failure: Failure,
    },
    /// Something that a person should look at; a hold where the threat model asks for one.
    Alarm {
        /// Stable code, e.g. `claim-redeemed-twice`.
        code: String,
        /// Whose, where it is known.
        subject: Option<Subject>,
        /// What was seen.
        detail: String,
    },
}
