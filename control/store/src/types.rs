//! What goes into the store and comes out of it beside the model's own types.

use bootstorm_model::{
    Address, BootEnvironment, Flags, Hostname, Installed, Interface, IpRange, Machine, Name, NewLogEntry, Operation,
    OperationState, Outcome, Parameters, Power, Span, Status, Step, Subnet, Timestamp, Vlan,
};
use bootstorm_snapshot::inventory::Firmware;
use bootstorm_snapshot::observation::Progress;
use bootstorm_snapshot::{
    Architecture, AttemptId, EnrolmentId, Generation, Inventory, Mac, MachineId, OperationId, RackId, SubnetId,
};
use std::net::Ipv4Addr;

/// One change of a commit. Later changes of a commit see the earlier ones.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new machine, in state new.
    CreateMachine(NewMachine),
    /// A machine moves, with all that belongs to it.
    Transition(Transition),
    /// A machine's other properties change.
    UpdateMachine {
        /// Which.
        machine: MachineId,
        /// The version it was read at; `None` if it does not matter.
        version: Option<i64>,
        /// What changes.
        update: MachineUpdate,
    },
    /// A machine, its interfaces, inventory, addresses, effects and secrets are forgotten; operations and log stay.
    DeleteMachine {
        /// Which.
        machine: MachineId,
        /// The version it was read at.
        version: i64,
    },
    /// An agent took a machine's inventory; interfaces it found are added, those it did not find stay.
    Inventory {
        /// Whose.
        machine: MachineId,
        /// What was found.
        inventory: Box<Inventory>,
    },
    /// An operation about no machine begins.
    StartOperation(NewOperation),
    /// A running operation reached a stage or went on in it; without effect on one that is over.
    Progress {
        /// Which.
        operation: OperationId,
        /// The stage.
        stage: bootstorm_snapshot::Stage,
        /// How far it is.
        progress: Option<Progress>,
        /// Whether stages behind the current one count again: a new attempt has begun.
        restart: bool,
    },
    /// A running operation is over; without effect on one that is.
    FinishOperation {
        /// Which.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// A step of a boot trace; a second one of the same attempt and stage is ignored.
    Span(Span),
    /// A rack has leased an address: it is noted over an older lease, never over a reservation. Without a machine it is that of the
    /// machine that has the interface.
    Lease(Address),
    /// A lease has ended.
    LeaseEnded {
        /// The subnet, if it is known.
        subnet: Option<SubnetId>,
        /// The address.
        ip: Ipv4Addr,
        /// Whose it was.
        mac: Mac,
    },
    /// A secret is stored.
    PutSecret {
        /// What for.
        context: SecretContext,
        /// The sealed bytes.
        sealed: Vec<u8>,
    },
    /// Something to note in the log.
    Log(NewLogEntry),
}

/// A new machine.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// Its id.
    pub id: MachineId,
    /// Its host name.
    pub hostname: Hostname,
    /// The pool it goes into.
    pub pool: Name,
    /// Architecture, if known.
    pub architecture: Option<Architecture>,
    /// How its firmware boots, if known.
    pub firmware: Option<Firmware>,
    /// How it is switched.
    pub power: Power,
    /// Its interfaces; their ids are assigned.
    pub interfaces: Vec<Interface>,
    /// The enrolment that it was.
    pub enrolment: Option<EnrolmentId>,
}

/// A machine moves. State, effects, operations and log entries are stored together, or nothing is.
#[derive(Debug, Clone)]
pub struct Transition {
    /// Which machine.
    pub machine: MachineId,
    /// The version it was decided on.
    pub version: i64,
    /// The move.
    pub step: Step,
    /// The new owner, `Some(None)` for nobody; `None` leaves it.
    pub owner: Option<Option<String>>,
    /// The system now on its disk, `Some(None)` for none; `None` leaves it.
    pub installed: Option<Option<Installed>>,
    /// How the machine's current operation ends, if it does. Starting another one without ending it is a conflict.
    pub finish: Option<Outcome>,
    /// The operation that begins.
    pub start: Option<NewOperation>,
}

/// A new operation, at stage *queued*.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// Its first attempt.
    pub attempt: AttemptId,
    /// What was asked.
    pub parameters: Parameters,
    /// Who asked.
    pub requested_by: String,
    /// The caller's name for the request.
    pub idempotency_key: Option<String>,
}

/// What changes about a machine beside its state; `None` leaves a property as it is.
#[derive(Debug, Clone, Default)]
pub struct MachineUpdate {
    /// Host name.
    pub hostname: Option<Hostname>,
    /// Pool.
    pub pool: Option<Name>,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Firmware.
    pub firmware: Option<Firmware>,
    /// How it is switched, and what was last seen.
    pub power: Option<Power>,
    /// Flags.
    pub flags: Option<Flags>,
    /// Why it is held; `Some(None)` with the hold lifted.
    pub hold_reason: Option<Option<String>>,
    /// All its interfaces; those that are not in the list are removed.
    pub interfaces: Option<Vec<Interface>>,
    /// The enrolment that it was.
    pub enrolment: Option<EnrolmentId>,
}

/// The observations that a commit follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Whose.
    pub rack: RackId,
    /// Number of the first one; 1 after the last one applied.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It was applied; this is the generation in force with it.
    Now(Generation),
    /// Its observations had been applied before; nothing was changed.
    Before,
}

/// Number of an effect in the queue; later effects have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub i64);

/// An effect to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedEffect {
    /// Its number.
    pub id: EffectId,
    /// The machine.
    pub machine: MachineId,
    /// The operation it belongs to: the one that ended for `RevokeAttempt`, else the current one.
    pub operation: Option<OperationId>,
    /// What to do.
    pub effect: bootstorm_model::Effect,
    /// The generation that its step was committed with.
    pub generation: Generation,
    /// How often it has been started, this time included.
    pub tries: u32,
    /// When it was queued.
    pub queued: Timestamp,
}

/// Part of a list: what comes after a key, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// The key of the last item of the page before; `None` for the first page.
    pub after: Option<K>,
    /// How many items; at most [`crate::limits::PAGE_ITEMS_MAX`] are returned.
    pub limit: u32,
}

impl<K> Page<K> {
    /// The first page.
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }
}

/// Which machines; an empty list or `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineFilter {
    /// In one of these statuses.
    pub statuses: Vec<Status>,
    /// In this pool.
    pub pool: Option<Name>,
    /// Belonging to this owner.
    pub owner: Option<String>,
    /// With one of these host names (a nodeset, already unfolded); at most [`crate::limits::PAGE_ITEMS_MAX`].
    pub hostnames: Vec<Hostname>,
    /// With a host name that this pattern matches: `*` any characters, `?` one.
    pub hostname_glob: Option<String>,
}

/// Which operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// About this machine.
    pub machine: Option<MachineId>,
    /// In this state.
    pub state: Option<OperationState>,
}

/// Which entries of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// About this machine.
    pub machine: Option<MachineId>,
    /// Of this operation.
    pub operation: Option<OperationId>,
}

/// In which order a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest first: to follow it.
    OldestFirst,
    /// The newest first: to look at it.
    NewestFirst,
}

/// Everything a snapshot is made of, as of one generation. Images' bytes and secrets are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSource {
    /// The generation.
    pub generation: Generation,
    /// All machines.
    pub machines: Vec<Machine>,
    /// The operations under way.
    pub operations: Vec<Operation>,
    /// All images.
    pub images: Vec<bootstorm_model::Image>,
    /// All VLANs.
    pub vlans: Vec<Vlan>,
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// All ranges.
    pub ranges: Vec<IpRange>,
    /// The addresses that racks keep for somebody.
    pub reservations: Vec<Address>,
    /// The boot environments in force.
    pub environments: Vec<BootEnvironment>,
    /// All settings, by key.
    pub settings: Vec<(String, String)>,
}

/// A token, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name; unique.
    pub name: String,
    /// BLAKE3 of its value.
    pub hash: [u8; 32],
    /// What it is good for.
    pub scope: TokenScope,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None` for never.
    pub expires: Option<Timestamp>,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// Everything of the API.
    Admin,
    /// Reading.
    Read,
    /// One rack joining, once.
    Join,
}

impl TokenScope {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Read => "read",
            Self::Join => "join",
        }
    }
}

/// What a secret was sealed for: authenticated with it, so that it opens nowhere else. Table, row and column in the words of T17.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretContext {
    /// A machine's power parameters.
    MachinePower(MachineId),
    /// An operation's user-data.
    OperationUserData(OperationId),
    /// Something of the site's, e.g. `ca-key`.
    Site(String),
}

impl SecretContext {
    /// Its text form, e.g. `machine/abc123/power`: what is authenticated and what is stored.
    pub fn text(&self) -> String {
        match self {
            Self::MachinePower(machine) => format!("machine/{machine}/power"),
            Self::OperationUserData(operation) => format!("operation/{operation}/user-data"),
            Self::Site(name) => format!("site/{name}"),
        }
    }
}
