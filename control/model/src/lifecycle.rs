//! The lifecycle of a machine: states, events, effects, and the one function that moves between them.
//!
//! Contract. [`transition`] is pure and total: for every state and event it gives a [`Step`] whose next state is reached by an edge
//! of [`LEGAL`], or a [`Refused`] with a reason a person can act on. [`permit`] is the one place where the flags *locked* and *held*
//! are looked at. [`decide`] is both, and what control calls. Nothing here knows how an effect is performed: a runner performs the
//! effects of a step in their order, at least once, after the step has been committed.
//!
//! The legal moves, status codes and names are those of MAAS (`NODE_STATUS` and its transition table), since clients compare them.

use bootstorm_snapshot::plan::Erase;
use serde::{Deserialize, Serialize};
use std::fmt;

mod table;

pub use table::{CREATED, LEGAL, diagram, is_legal};

/// What a state is called, without the data it carries: one word, one code, one name each.
///
/// The discriminant is MAAS's numeric status; [`Status::name`] is MAAS's `status_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// Known by its hardware addresses only; nobody has looked at it yet.
    New = 0,
    /// Its inventory is being taken.
    Commissioning = 1,
    /// Taking the inventory failed.
    FailedCommissioning = 2,
    /// Expected but not found.
    Missing = 3,
    /// Free for whoever asks.
    Ready = 4,
    /// Set aside for somebody, not yet theirs.
    Reserved = 5,
    /// An operating system runs on it for its owner.
    Deployed = 6,
    /// Out of service for good, kept for the record.
    Retired = 7,
    /// Somebody said that it does not work.
    Broken = 8,
    /// An operating system is being installed.
    Deploying = 9,
    /// Owned, not yet deployed.
    Allocated = 10,
    /// The installation failed.
    FailedDeployment = 11,
    /// On its way back to the free ones.
    Releasing = 12,
    /// It could not be given back.
    FailedReleasing = 13,
    /// Its disks are being erased.
    DiskErasing = 14,
    /// Its disks could not be erased; it may still hold its last owner's data.
    FailedDiskErasing = 15,
    /// Runs the rescue environment.
    RescueMode = 16,
    /// Is being booted into the rescue environment.
    EnteringRescueMode = 17,
    /// Did not come up in the rescue environment.
    FailedEnteringRescueMode = 18,
    /// Is leaving the rescue environment.
    ExitingRescueMode = 19,
    /// Did not leave the rescue environment.
    FailedExitingRescueMode = 20,
    /// Its hardware is being tested.
    Testing = 21,
    /// A hardware test failed.
    FailedTesting = 22,
}

impl Status {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 23] = [
        Self::New,
        Self::Commissioning,
        Self::FailedCommissioning,
        Self::Missing,
        Self::Ready,
        Self::Reserved,
        Self::Deployed,
        Self::Retired,
        Self::Broken,
        Self::Deploying,
        Self::Allocated,
        Self::FailedDeployment,
        Self::Releasing,
        Self::FailedReleasing,
        Self::DiskErasing,
        Self::FailedDiskErasing,
        Self::RescueMode,
        Self::EnteringRescueMode,
        Self::FailedEnteringRescueMode,
        Self::ExitingRescueMode,
        Self::FailedExitingRescueMode,
        Self::Testing,
        Self::FailedTesting,
    ];

    /// MAAS's numeric status.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status with that code; `None` if there is none.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// MAAS's `status_name`, to the letter: clients compare it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Commissioning => "Commissioning",
            Self::FailedCommissioning => "Failed commissioning",
            Self::Missing => "Missing",
            Self::Ready => "Ready",
            Self::Reserved => "Reserved",
            Self::Deployed => "Deployed",
            Self::Retired => "Retired",
            Self::Broken => "Broken",
            Self::Deploying => "Deploying",
            Self::Allocated => "Allocated",
            Self::FailedDeployment => "Failed deployment",
            Self::Releasing => "Releasing",
            Self::FailedReleasing => "Releasing failed",
            Self::DiskErasing => "Disk erasing",
            Self::FailedDiskErasing => "Failed disk erasing",
            Self::RescueMode => "Rescue mode",
            Self::EnteringRescueMode => "Entering rescue mode",
            Self::FailedEnteringRescueMode => "Failed to enter rescue mode",
            Self::ExitingRescueMode => "Exiting rescue mode",
            Self::FailedExitingRescueMode => "Failed to exit rescue mode",
            Self::Testing => "Testing",
            Self::FailedTesting => "Failed testing",
        }
    }

    /// The word used in the API, in filters and on the command line, e.g. `failed_deployment`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Commissioning => "commissioning",
            Self::FailedCommissioning => "failed_commissioning",
            Self::Missing => "missing",
            Self::Ready => "ready",
            Self::Reserved => "reserved",
            Self::Deployed => "deployed",
            Self::Retired => "retired",
            Self::Broken => "broken",
            Self::Deploying => "deploying",
            Self::Allocated => "allocated",
            Self::FailedDeployment => "failed_deployment",
            Self::Releasing => "releasing",
            Self::FailedReleasing => "failed_releasing",
            Self::DiskErasing => "disk_erasing",
            Self::FailedDiskErasing => "failed_disk_erasing",
            Self::RescueMode => "rescue_mode",
            Self::EnteringRescueMode => "entering_rescue_mode",
            Self::FailedEnteringRescueMode => "failed_entering_rescue_mode",
            Self::ExitingRescueMode => "exiting_rescue_mode",
            Self::FailedExitingRescueMode => "failed_exiting_rescue_mode",
            Self::Testing => "testing",
            Self::FailedTesting => "failed_testing",
        }
    }

    /// The status with that [`Self::word`]; `None` if there is none.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// For an in-progress status: where it goes when it fails, and how long it may take. `None` for a status in which nothing is
    /// under way.
    pub const fn in_progress(self) -> Option<InProgress> {
        let (failure, minutes) = match self {
            Self::Commissioning => (Self::FailedCommissioning, 30),
            Self::Deploying => (Self::FailedDeployment, 30),
            Self::Releasing => (Self::FailedReleasing, 5),
            // An erase of every sector takes hours; its stages are watched one by one, this only ends what no stage ended.
            Self::DiskErasing => (Self::FailedDiskErasing, 24 * 60),
            Self::EnteringRescueMode => (Self::FailedEnteringRescueMode, 30),
            Self::ExitingRescueMode => (Self::FailedExitingRescueMode, 5),
            // As for erasing: a memory test of a large machine takes hours.
            Self::Testing => (Self::FailedTesting, 24 * 60),
            Self::New
            | Self::FailedCommissioning
            | Self::Missing
            | Self::Ready
            | Self::Reserved
            | Self::Deployed
            | Self::Retired
            | Self::Broken
            | Self::Allocated
            | Self::FailedDeployment
            | Self::FailedReleasing
            | Self::FailedDiskErasing
            | Self::RescueMode
            | Self::FailedEnteringRescueMode
            | Self::FailedExitingRescueMode
            | Self::FailedTesting => return None,
        };
        Some(InProgress { failure, deadline_seconds: minutes * 60 })
    }

    /// What a machine in this status is given when it boots from the network.
    pub const fn boot_purpose(self) -> BootPurpose {
        match self {
            Self::New => BootPurpose::Enlist,
            Self::Commissioning => BootPurpose::Commission,
            Self::Deploying => BootPurpose::Deploy,
            Self::DiskErasing => BootPurpose::Erase,
            Self::Testing => BootPurpose::Test,
            Self::EnteringRescueMode | Self::RescueMode => BootPurpose::Rescue,
            Self::Deployed => BootPurpose::LocalDisk,
            Self::FailedCommissioning
            | Self::Missing
            | Self::Ready
            | Self::Reserved
            | Self::Retired
            | Self::Broken
            | Self::Allocated
            | Self::FailedDeployment
            | Self::Releasing
            | Self::FailedReleasing
            | Self::FailedDiskErasing
            | Self::FailedEnteringRescueMode
            | Self::ExitingRescueMode
            | Self::FailedExitingRescueMode
            | Self::FailedTesting => BootPurpose::PowerOff,
        }
    }

    /// Whether the machine belongs to somebody in this status (and its `owner` must be set).
    pub const fn is_owned(self) -> bool {
        matches!(
            self,
            Self::Reserved
                | Self::Allocated
                | Self::Deploying
                | Self::Deployed
                | Self::FailedDeployment
                | Self::Releasing
                | Self::FailedReleasing
                | Self::DiskErasing
                | Self::FailedDiskErasing
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How an in-progress status ends if nothing better happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InProgress {
    /// The status it fails into.
    pub failure: Status,
    /// Seconds after which it has failed, counted from the operation's last sign of progress.
    pub deadline_seconds: u32,
}

/// What a network boot is for; control turns it into the boot answer and the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootPurpose {
    /// The agent, to say who the machine is.
    Enlist,
    /// The agent, to take the inventory.
    Commission,
    /// The agent, to write an image.
    Deploy,
    /// The agent, to erase the disks.
    Erase,
    /// The agent, to test the hardware.
    Test,
    /// The agent, to stay and let its owner in.
    Rescue,
    /// The system on the disk.
    LocalDisk,
    /// Nothing: switch off again.
    PowerOff,
}

/// What a machine that does not work, or whose tests failed, is once somebody says that it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usable {
    /// Free.
    Ready,
    /// It still runs its owner's system.
    Deployed,
}

impl Usable {
    const fn state(self) -> State {
        match self {
            Self::Ready => State::Ready,
            Self::Deployed => State::Deployed,
        }
    }
}

/// A state in which nothing is under way: where a machine goes back to after a test, a rescue or an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resting {
    /// [`State::New`]
    New,
    /// [`State::FailedCommissioning`]
    FailedCommissioning,
    /// [`State::Missing`]
    Missing,
    /// [`State::Ready`]
    Ready,
    /// [`State::Reserved`]
    Reserved,
    /// [`State::Allocated`]
    Allocated,
    /// [`State::Deployed`]
    Deployed,
    /// [`State::FailedDeployment`]
    FailedDeployment,
    /// [`State::Retired`]
    Retired,
    /// [`State::FailedReleasing`]
    FailedReleasing,
    /// [`State::FailedDiskErasing`]
    FailedDiskErasing,
    /// [`State::Broken`]
    Broken(Usable),
    /// [`State::FailedTesting`]
    FailedTesting(Usable),
}

impl Resting {
    /// The state it stands for.
    pub const fn state(self) -> State {
        match self {
            Self::New => State::New,
            Self::FailedCommissioning => State::FailedCommissioning,
            Self::Missing => State::Missing,
            Self::Ready => State::Ready,
            Self::Reserved => State::Reserved,
            Self::Allocated => State::Allocated,
            Self::Deployed => State::Deployed,
            Self::FailedDeployment => State::FailedDeployment,
            Self::Retired => State::Retired,
            Self::FailedReleasing => State::FailedReleasing,
            Self::FailedDiskErasing => State::FailedDiskErasing,
            Self::Broken(usable) => State::Broken { usable },
            Self::FailedTesting(usable) => State::FailedTesting { usable },
        }
    }

    const fn usable(self) -> Usable {
        match self {
            Self::Deployed | Self::Broken(Usable::Deployed) | Self::FailedTesting(Usable::Deployed) => Usable::Deployed,
            Self::New
            | Self::FailedCommissioning
            | Self::Missing
            | Self::Ready
            | Self::Reserved
            | Self::Allocated
            | Self::FailedDeployment
            | Self::Retired
            | Self::FailedReleasing
            | Self::FailedDiskErasing
            | Self::Broken(Usable::Ready)
            | Self::FailedTesting(Usable::Ready) => Usable::Ready,
        }
    }

    /// Where an aborted commissioning goes. Failed tests are not a state commissioning may return to, hence `New`: it has to
    /// be looked at again before anybody may have it.
    const fn after_aborted_commissioning(self) -> Self {
        match self {
            Self::FailedTesting(_) => Self::New,
            other => other,
        }
    }
}

/// The state of a machine, with what is needed to leave it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "each variant is documented at the status of the same name; `previous` is where it returns to"
)]
pub enum State {
    New,
    Commissioning { previous: Resting },
    FailedCommissioning,
    Missing,
    Ready,
    Reserved,
    Deployed,
    Retired,
    Broken { usable: Usable },
    Deploying,
    Allocated,
    FailedDeployment,
    Releasing,
    FailedReleasing,
    DiskErasing { method: Erase },
    FailedDiskErasing,
    RescueMode { previous: Resting },
    EnteringRescueMode { previous: Resting },
    FailedEnteringRescueMode { previous: Resting },
    ExitingRescueMode { previous: Resting },
    FailedExitingRescueMode { previous: Resting },
    Testing { previous: Resting },
    FailedTesting { usable: Usable },
}

impl State {
    /// Its status: what it is called.
    pub const fn status(&self) -> Status {
        match self {
            Self::New => Status::New,
            Self::Commissioning { .. } => Status::Commissioning,
            Self::FailedCommissioning => Status::FailedCommissioning,
            Self::Missing => Status::Missing,
            Self::Ready => Status::Ready,
            Self::Reserved => Status::Reserved,
            Self::Deployed => Status::Deployed,
            Self::Retired => Status::Retired,
            Self::Broken { .. } => Status::Broken,
            Self::Deploying => Status::Deploying,
            Self::Allocated => Status::Allocated,
            Self::FailedDeployment => Status::FailedDeployment,
            Self::Releasing => Status::Releasing,
            Self::FailedReleasing => Status::FailedReleasing,
            Self::DiskErasing { .. } => Status::DiskErasing,
            Self::FailedDiskErasing => Status::FailedDiskErasing,
            Self::RescueMode { .. } => Status::RescueMode,
            Self::EnteringRescueMode { .. } => Status::EnteringRescueMode,
            Self::FailedEnteringRescueMode { .. } => Status::FailedEnteringRescueMode,
            Self::ExitingRescueMode { .. } => Status::ExitingRescueMode,
            Self::FailedExitingRescueMode { .. } => Status::FailedExitingRescueMode,
            Self::Testing { .. } => Status::Testing,
            Self::FailedTesting { .. } => Status::FailedTesting,
        }
    }

    /// Whether a machine in this state may be locked: only one that carries, or is getting, somebody's system.
    pub const fn may_lock(&self) -> bool {
        matches!(self, Self::Deployed | Self::Deploying)
    }

    /// Where the machine comes back to after a test or a rescue that starts now; `None` if something else is under way.
    const fn resting(&self) -> Option<Resting> {
        match *self {
            Self::New => Some(Resting::New),
            Self::FailedCommissioning => Some(Resting::FailedCommissioning),
            Self::Missing => Some(Resting::Missing),
            Self::Ready => Some(Resting::Ready),
            Self::Reserved => Some(Resting::Reserved),
            Self::Deployed => Some(Resting::Deployed),
            Self::Retired => Some(Resting::Retired),
            Self::Broken { usable } => Some(Resting::Broken(usable)),
            Self::Allocated => Some(Resting::Allocated),
            Self::FailedDeployment => Some(Resting::FailedDeployment),
            Self::FailedReleasing => Some(Resting::FailedReleasing),
            Self::FailedDiskErasing => Some(Resting::FailedDiskErasing),
            Self::FailedTesting { usable } => Some(Resting::FailedTesting(usable)),
            // A rescue is over when a test begins, or when it is begun again: go back to before it.
            Self::RescueMode { previous }
            | Self::FailedEnteringRescueMode { previous }
            | Self::FailedExitingRescueMode { previous } => Some(previous),
            Self::Commissioning { .. }
            | Self::Deploying
            | Self::Releasing
            | Self::DiskErasing { .. }
            | Self::EnteringRescueMode { .. }
            | Self::ExitingRescueMode { .. }
            | Self::Testing { .. } => None,
        }
    }

    /// What the machine is once it works, if it is marked broken now.
    const fn usable(&self) -> Usable {
        match *self {
            Self::Deployed => Usable::Deployed,
            Self::Broken { usable } | Self::FailedTesting { usable } => usable,
            Self::RescueMode { previous }
            | Self::EnteringRescueMode { previous }
            | Self::FailedEnteringRescueMode { previous }
            | Self::ExitingRescueMode { previous }
            | Self::FailedExitingRescueMode { previous }
            | Self::Testing { previous } => previous.usable(),
            Self::New
            | Self::Commissioning { .. }
            | Self::FailedCommissioning
            | Self::Missing
            | Self::Ready
            | Self::Reserved
            | Self::Retired
            | Self::Deploying
            | Self::Allocated
            | Self::FailedDeployment
            | Self::Releasing
            | Self::FailedReleasing
            | Self::DiskErasing { .. }
            | Self::FailedDiskErasing => Usable::Ready,
        }
    }
}

/// How the machine comes to run the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It is power-cycled and boots from the network.
    PowerCycle,
    /// Its agent already speaks (it has just been enlisted) and takes the next plan without a boot.
    InPlace,
}

/// What a finished commissioning leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterCommissioning {
    /// The machine is ready.
    Ready,
    /// The hardware is tested first, in the same boot.
    Test,
}

/// What happens to a machine: requests of people and programs, and reports of racks, agents and clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Request: take its inventory.
    Commission {
        /// How the agent comes to run.
        start: Start,
    },
    /// Request: set it aside.
    Reserve,
    /// Request: give it to its new owner.
    Allocate,
    /// Request: install an image.
    Deploy,
    /// Request: give it back.
    Release {
        /// How its disks are erased first; `None` leaves them.
        erase: Option<Erase>,
    },
    /// Request: stop what is under way.
    Abort,
    /// Request: test the hardware.
    Test,
    /// Request: boot the rescue environment.
    EnterRescueMode,
    /// Request: leave the rescue environment.
    ExitRescueMode,
    /// Request: it does not work.
    MarkBroken,
    /// Request: it works again.
    MarkFixed,
    /// Request: its failed tests do not matter.
    OverrideFailedTesting,
    /// Request: out of service for good.
    Retire,
    /// Request: a retired or missing machine comes back, as new.
    Restore,
    /// Request: it is not where it should be.
    MarkMissing,
    /// Report: the agent took the inventory.
    Commissioned {
        /// What comes next.
        then: AfterCommissioning,
    },
    /// Report: the installed system is ready.
    SystemReady,
    /// Report: every disk is erased.
    Erased,
    /// Report: the machine is off.
    PoweredOff,
    /// Report: all tests passed.
    TestsPassed,
    /// Report: the rescue environment runs.
    RescueEntered,
    /// Report: the machine has left the rescue environment.
    RescueExited,
    /// Report: what was under way failed; the operation holds stage, code and evidence.
    Failed,
    /// Report: what was under way did not end by its deadline.
    TimedOut,
}

impl Event {
    /// Whether somebody asks for it (`Request`) or it is a fact (`Report`).
    pub const fn origin(&self) -> Origin {
        match self {
            Self::Commission { .. }
            | Self::Reserve
            | Self::Allocate
            | Self::Deploy
            | Self::Release { .. }
            | Self::Abort
            | Self::Test
            | Self::EnterRescueMode
            | Self::ExitRescueMode
            | Self::MarkBroken
            | Self::MarkFixed
            | Self::OverrideFailedTesting
            | Self::Retire
            | Self::Restore
            | Self::MarkMissing => Origin::Request,
            Self::Commissioned { .. }
            | Self::SystemReady
            | Self::Erased
            | Self::PoweredOff
            | Self::TestsPassed
            | Self::RescueEntered
            | Self::RescueExited
            | Self::Failed
            | Self::TimedOut => Origin::Report,
        }
    }

    /// Whether it would make the machine boot something new.
    const fn boots(&self) -> bool {
        matches!(
            self,
            Self::Commission { .. }
                | Self::Deploy
                | Self::Test
                | Self::EnterRescueMode
                | Self::Release { erase: Some(_) }
        )
    }

    /// How a sentence about it calls it, e.g. `cannot deploy`.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Commission { .. } => "commission",
            Self::Reserve => "reserve",
            Self::Allocate => "allocate",
            Self::Deploy => "deploy",
            Self::Release { .. } => "release",
            Self::Abort => "abort",
            Self::Test => "test",
            Self::EnterRescueMode => "enter rescue mode",
            Self::ExitRescueMode => "exit rescue mode",
            Self::MarkBroken => "mark broken",
            Self::MarkFixed => "mark fixed",
            Self::OverrideFailedTesting => "override failed testing",
            Self::Retire => "retire",
            Self::Restore => "restore",
            Self::MarkMissing => "mark missing",
            Self::Commissioned { .. } => "finish commissioning",
            Self::SystemReady => "finish deploying",
            Self::Erased => "finish erasing",
            Self::PoweredOff => "finish releasing",
            Self::TestsPassed => "finish testing",
            Self::RescueEntered => "finish entering rescue mode",
            Self::RescueExited => "finish exiting rescue mode",
            Self::Failed => "fail",
            Self::TimedOut => "time out",
        }
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Somebody asks; it may be refused by a flag.
    Request,
    /// It has happened; flags do not undo it.
    Report,
}

/// What a machine boots from when it is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootFrom {
    /// The network, once.
    Network,
    /// Its disk.
    Disk,
}

/// What has to be done about a step once it is committed. A runner performs the effects of a machine in their order, each at
/// least once; each is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// The racks concerned serve the generation this step was committed with: done when they have acknowledged it.
    PublishSnapshot,
    /// The racks concerned hold the operation's secrets: done when they have said so.
    PushSecrets,
    /// The racks forget claims, credentials and secrets of the attempts of the operation that has ended.
    RevokeAttempt,
    /// Switch on.
    PowerOn {
        /// What it boots from.
        boot: BootFrom,
    },
    /// Switch off; done when it is off, which is then reported as [`Event::PoweredOff`] if the machine is releasing, or as
    /// [`Event::RescueExited`] if it is leaving rescue mode.
    PowerOff,
    /// Switch off if it is on, then on.
    PowerCycle {
        /// What it boots from.
        boot: BootFrom,
    },
}

impl Effect {
    /// Whether the effect is still owed when the machine has moved on before it was performed. Power and publication are
    /// superseded by those of the newer step; what must not be left lying about is not.
    pub const fn survives_newer_step(&self) -> bool {
        match self {
            Self::RevokeAttempt => true,
            Self::PublishSnapshot
            | Self::PushSecrets
            | Self::PowerOn { .. }
            | Self::PowerOff
            | Self::PowerCycle { .. } => false,
        }
    }

    /// Its word in logs and in the database.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::PublishSnapshot => "publish_snapshot",
            Self::PushSecrets => "push_secrets",
            Self::RevokeAttempt => "revoke_attempt",
            Self::PowerOn { .. } => "power_on",
            Self::PowerOff => "power_off",
            Self::PowerCycle { .. } => "power_cycle",
        }
    }
}

/// A legal move: the next state, and what has to be done about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The state it was computed for; the store commits the step only if the machine is still in it.
    pub from: State,
    /// The next state.
    pub next: State,
    /// What has to be done, in this order.
    pub effects: Vec<Effect>,
}

impl Step {
    /// This step and, from where it leads, the next event's: one step for the store, e.g. allocate and deploy.
    ///
    /// # Errors
    /// [`Refused`] if the second event is.
    pub fn then(mut self, event: &Event) -> Result<Self, Refused> {
        let second = transition(&self.next, event)?;
        self.effects.retain(|effect| effect.survives_newer_step());
        self.effects.extend(second.effects);
        Ok(Self { from: self.from, next: second.next, effects: self.effects })
    }
}

/// Why an event does not move a machine. `Display` is one sentence for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The state does not allow it.
    #[error("cannot {} a machine that is {}: {reason}", .event.verb(), .status.name())]
    Illegal {
        /// The machine's status.
        status: Status,
        /// What was asked.
        event: Event,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The machine is locked.
    #[error("cannot {} a locked machine: unlock it first", .event.verb())]
    Locked {
        /// What was asked.
        event: Event,
    },
    /// The machine is held.
    #[error("cannot {} a held machine: look at why it is held, then lift the hold", .event.verb())]
    Held {
        /// What was asked.
        event: Event,
    },
}

/// The two flags that stand beside the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// Somebody locked it: every request is refused until it is unlocked.
    pub locked: bool,
    /// Something about it is suspicious (e.g. its claim was redeemed twice): nothing boots until a person has looked.
    pub held: bool,
}

/// The one place where flags are looked at: may this event be tried at all? Reports always may, for they have happened.
///
/// # Errors
/// [`Refused::Locked`] for every request about a locked machine; [`Refused::Held`] for requests that would boot a held one.
pub fn permit(flags: Flags, event: &Event) -> Result<(), Refused> {
    if event.origin() == Origin::Request && flags.locked {
        return Err(Refused::Locked { event: *event });
    }
    if event.boots() && flags.held {
        return Err(Refused::Held { event: *event });
    }
    Ok(())
}

/// [`permit`], then [`transition`].
///
/// # Errors
/// As those two.
pub fn decide(flags: Flags, state: &State, event: &Event) -> Result<Step, Refused> {
    permit(flags, event)?;
    transition(state, event)
}

/// Moves a machine: the one transition function.
///
/// # Errors
/// [`Refused::Illegal`] with a reason if the state does not allow the event.
pub fn transition(state: &State, event: &Event) -> Result<Step, Refused> {
    let refuse = |reason| Err(Refused::Illegal { status: state.status(), event: *event, reason });
    match *event {
        Event::Commission { start } => match state {
            State::New
            | State::FailedCommissioning
            | State::Ready
            | State::Broken { .. }
            | State::Missing
            | State::FailedTesting { .. } => {
                let previous = state.resting().unwrap_or(Resting::New).after_aborted_commissioning();
                step(state, State::Commissioning { previous }, boot_agent(start))
            }
            _ => refuse(
                "only a new, ready, broken or missing machine, or one that failed commissioning or testing, is commissioned",
            ),
        },
        Event::Reserve => match state {
            State::Ready => step(state, State::Reserved, vec![Effect::PublishSnapshot]),
            _ => refuse("only a ready machine can be reserved"),
        },
        Event::Allocate => match state {
            State::Ready | State::Reserved => step(state, State::Allocated, vec![Effect::PublishSnapshot]),
            State::New => refuse("it has not been commissioned: commission it first"),
            State::Allocated | State::Deploying | State::Deployed => refuse("it belongs to somebody already"),
            _ => refuse("only a ready machine can be allocated"),
        },
        Event::Deploy => match state {
            State::Allocated => {
                let effects =
                    vec![Effect::PublishSnapshot, Effect::PushSecrets, Effect::PowerCycle { boot: BootFrom::Network }];
                step(state, State::Deploying, effects)
            }
            State::Ready | State::Reserved => refuse("allocate it first"),
            State::New => refuse("it has not been commissioned: commission it first"),
            State::Deployed => refuse("it is deployed already: release it first"),
            State::Deploying => refuse("it is being deployed already: abort that first"),
            State::FailedDeployment => refuse("release it first"),
            _ => refuse("only an allocated machine can be deployed"),
        },
        Event::Release { erase } => match state {
            State::Reserved
            | State::Allocated
            | State::Deploying
            | State::Deployed
            | State::FailedDeployment
            | State::FailedReleasing
            | State::FailedDiskErasing
            | State::Broken { .. } => match erase {
                None => step(state, State::Releasing, stop_and_switch_off()),
                Some(method) => {
                    let mut effects = vec![Effect::RevokeAttempt];
                    effects.extend(boot_agent(Start::PowerCycle));
                    step(state, State::DiskErasing { method }, effects)
                }
            },
            State::Releasing | State::DiskErasing { .. } => refuse("it is being released already"),
            State::New | State::Ready => refuse("it belongs to nobody"),
            _ => refuse("only a machine that belongs to somebody can be released"),
        },
        Event::Abort => match *state {
            State::Commissioning { previous } => step(state, previous.state(), stop_and_switch_off()),
            State::Deploying => step(state, State::Allocated, stop_and_switch_off()),
            State::DiskErasing { .. } => step(state, State::FailedDiskErasing, stop_and_switch_off()),
            State::Testing { previous } => step(state, previous.state(), stop_and_return(previous)),
            State::Releasing => refuse("it is being switched off; wait for it"),
            State::EnteringRescueMode { .. } => refuse("exit rescue mode instead"),
            _ => refuse("nothing is under way"),
        },
        Event::Test => match (state, state.resting()) {
            (_, Some(previous)) => {
                let effects = boot_agent(Start::PowerCycle);
                step(state, State::Testing { previous }, effects)
            }
            (State::Testing { .. }, None) => refuse("it is being tested already: abort that first"),
            (_, None) => refuse("something else is under way: wait for it, or abort it"),
        },
        Event::EnterRescueMode => match state {
            State::RescueMode { .. } => refuse("it is in rescue mode already"),
            State::FailedReleasing => refuse("it may be half released: release it again first"),
            State::FailedExitingRescueMode { .. } => refuse("exit rescue mode again first"),
            _ => match state.resting() {
                Some(previous) => step(state, State::EnteringRescueMode { previous }, boot_agent(Start::PowerCycle)),
                None => refuse("something else is under way: wait for it, or abort it"),
            },
        },
        Event::ExitRescueMode => match *state {
            State::RescueMode { previous }
            | State::EnteringRescueMode { previous }
            | State::FailedEnteringRescueMode { previous }
            | State::FailedExitingRescueMode { previous } => {
                step(state, State::ExitingRescueMode { previous }, stop_and_return(previous))
            }
            State::ExitingRescueMode { .. } => refuse("it is leaving rescue mode already"),
            _ => refuse("it is not in rescue mode"),
        },
        Event::MarkBroken => match state {
            State::Broken { .. } => refuse("it is marked broken already"),
            _ => step(
                state,
                State::Broken { usable: state.usable() },
                vec![Effect::RevokeAttempt, Effect::PublishSnapshot],
            ),
        },
        Event::MarkFixed => match *state {
            State::Broken { usable } => step(state, usable.state(), vec![Effect::PublishSnapshot]),
            _ => refuse("it is not marked broken"),
        },
        Event::OverrideFailedTesting => match *state {
            State::FailedTesting { usable } => step(state, usable.state(), vec![Effect::PublishSnapshot]),
            _ => refuse("its tests have not failed"),
        },
        Event::Retire => match state {
            State::New
            | State::Commissioning { .. }
            | State::FailedCommissioning
            | State::Ready
            | State::Reserved
            | State::Allocated => step(state, State::Retired, stop_and_switch_off()),
            State::Retired => refuse("it is retired already"),
            State::Deployed | State::Deploying => refuse("it carries somebody's system: release it first"),
            _ => refuse("bring it back to ready, or mark it broken, first"),
        },
        Event::Restore => match state {
            State::Retired | State::Missing => step(state, State::New, vec![Effect::PublishSnapshot]),
            _ => refuse("it is neither retired nor missing"),
        },
        Event::MarkMissing => match state {
            State::Missing => refuse("it is marked missing already"),
            State::Broken { .. } => refuse("it is marked broken, which says more"),
            _ if is_legal(state.status(), Status::Missing) => {
                step(state, State::Missing, vec![Effect::RevokeAttempt, Effect::PublishSnapshot])
            }
            _ => refuse("something that depends on it is under way: wait for it, or mark it broken"),
        },
        Event::Commissioned { then } => match state {
            State::Commissioning { .. } => match then {
                AfterCommissioning::Ready => step(state, State::Ready, stop_and_switch_off()),
                AfterCommissioning::Test => {
                    step(state, State::Testing { previous: Resting::Ready }, boot_agent(Start::InPlace))
                }
            },
            _ => refuse("it is not being commissioned; the report is late"),
        },
        Event::SystemReady => match state {
            State::Deploying => step(state, State::Deployed, vec![Effect::RevokeAttempt, Effect::PublishSnapshot]),
            _ => refuse("it is not being deployed; the report is late"),
        },
        Event::Erased => match state {
            State::DiskErasing { .. } => step(state, State::Releasing, stop_and_switch_off()),
            _ => refuse("its disks are not being erased; the report is late"),
        },
        Event::PoweredOff => match state {
            State::Releasing => step(state, State::Ready, vec![Effect::PublishSnapshot]),
            _ => refuse("its power state means nothing to this state"),
        },
        Event::TestsPassed => match *state {
            State::Testing { previous } => {
                let next = match previous {
                    Resting::FailedTesting(usable) => usable.state(),
                    other => other.state(),
                };
                step(state, next, stop_and_return(previous))
            }
            _ => refuse("it is not being tested; the report is late"),
        },
        Event::RescueEntered => match *state {
            State::EnteringRescueMode { previous } => step(state, State::RescueMode { previous }, vec![]),
            _ => refuse("it is not entering rescue mode; the report is late"),
        },
        Event::RescueExited => match *state {
            State::ExitingRescueMode { previous } => step(state, previous.state(), vec![Effect::PublishSnapshot]),
            _ => refuse("it is not leaving rescue mode; the report is late"),
        },
        Event::Failed | Event::TimedOut => {
            let next = match *state {
                State::Commissioning { .. } => State::FailedCommissioning,
                State::Deploying => State::FailedDeployment,
                State::Releasing => State::FailedReleasing,
                State::DiskErasing { .. } => State::FailedDiskErasing,
                State::EnteringRescueMode { previous } => State::FailedEnteringRescueMode { previous },
                State::ExitingRescueMode { previous } => State::FailedExitingRescueMode { previous },
                State::Testing { previous } => State::FailedTesting { usable: previous.usable() },
                _ => return refuse("nothing is under way that could fail; the report is late"),
            };
            // The power stays as it is: what is on the console is evidence.
            step(state, next, vec![Effect::RevokeAttempt, Effect::PublishSnapshot])
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the arms of `transition` read alike")]
fn step(from: &State, next: State, effects: Vec<Effect>) -> Result<Step, Refused> {
    Ok(Step { from: *from, next, effects })
}

fn boot_agent(start: Start) -> Vec<Effect> {
    match start {
        Start::PowerCycle => vec![Effect::PublishSnapshot, Effect::PowerCycle { boot: BootFrom::Network }],
        Start::InPlace => vec![Effect::PublishSnapshot],
    }
}

fn stop_and_switch_off() -> Vec<Effect> {
    vec![Effect::RevokeAttempt, Effect::PublishSnapshot, Effect::PowerOff]
}

/// Ends an excursion: a deployed machine starts its system again, any other is switched off.
fn stop_and_return(previous: Resting) -> Vec<Effect> {
    let power = match previous.usable() {
        Usable::Deployed => Effect::PowerCycle { boot: BootFrom::Disk },
        Usable::Ready => Effect::PowerOff,
    };
    vec![Effect::RevokeAttempt, Effect::PublishSnapshot, power]
}

#[cfg(test)]
mod tests;
