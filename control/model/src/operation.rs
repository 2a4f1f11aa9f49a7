//! Operations: what somebody asked for, how far it is, and when it has taken too long.
//!
//! An operation goes through the stages of its kind ([`stages`]). Each stage has a deadline ([`stage_seconds_max`]): how long the
//! machine may go without reaching the next one, or without progress inside it. [`Operation::advance`] moves, [`Operation::overdue`]
//! judges; both are pure.

use crate::Timestamp;
use bootstorm_snapshot::observation::{Failure, Progress};
use bootstorm_snapshot::plan::{DiskSelector, Erase, Start};
use bootstorm_snapshot::{AttemptId, ImageId, MachineId, OperationId, Stage};
use serde::{Deserialize, Serialize};

/// What somebody asked of control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The machine it is about; `None` for one about no machine, as an image's import.
    pub machine: Option<MachineId>,
    /// The first attempt, named in the boot answer; racks mint later ones.
    pub attempt: AttemptId,
    /// What was asked.
    pub parameters: Parameters,
    /// Whether it is over.
    pub state: OperationState,
    /// The last stage that was reached.
    pub stage: Stage,
    /// How far that stage is, where it can be said.
    pub progress: Option<Progress>,
    /// By when something must have happened; `None` once it is over.
    pub deadline: Option<Timestamp>,
    /// How it failed.
    pub failure: Option<Failure>,
    /// What the installed system warned of.
    pub warnings: Vec<String>,
    /// Who asked.
    pub requested_by: String,
    /// The caller's own name for the request: asking again under it finds this operation. Unique.
    pub idempotency_key: Option<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When something last happened.
    pub updated: Timestamp,
    /// When it was over.
    pub finished: Option<Timestamp>,
}

impl Operation {
    /// Takes note that a stage was reached or went on: true if the operation changed. A stage behind the current one (a late or
    /// repeated report) changes nothing but, within an attempt that starts over, see [`Operation::restart`].
    pub fn advance(&mut self, stage: Stage, progress: Option<Progress>, at: Timestamp) -> bool {
        if self.state != OperationState::Running || stage < self.stage {
            return false;
        }
        let further = |new: &Progress| self.progress.as_ref().is_none_or(|old| new.bytes > old.bytes);
        if stage == self.stage && !progress.as_ref().is_some_and(further) {
            return false;
        }
        self.stage = stage;
        self.progress = progress;
        self.updated = self.updated.max(at);
        self.deadline = Some(self.updated.plus_seconds(self.stage_seconds_max()));
        true
    }

    /// A new attempt boots: the stages from there on are ahead again.
    pub fn restart(&mut self, stage: Stage, at: Timestamp) -> bool {
        if self.state != OperationState::Running {
            return false;
        }
        self.stage = stage;
        self.progress = None;
        self.updated = self.updated.max(at);
        self.deadline = Some(self.updated.plus_seconds(self.stage_seconds_max()));
        true
    }

    /// The operation is over.
    pub fn finish(&mut self, outcome: Outcome, at: Timestamp) -> bool {
        if self.state != OperationState::Running {
            return false;
        }
        match outcome {
            Outcome::Done { warnings } => {
                self.state = OperationState::Done;
                self.stage = Stage::Ready;
                self.warnings = warnings;
            }
            Outcome::Failed(failure) => {
                self.state = OperationState::Failed;
                self.failure = Some(failure);
            }
            Outcome::Cancelled => self.state = OperationState::Cancelled,
        }
        self.deadline = None;
        self.updated = self.updated.max(at);
        self.finished = Some(self.updated);
        true
    }

    /// If its deadline has passed: the failure it ends with.
    pub fn overdue(&self, now: Timestamp) -> Option<Failure> {
        let deadline = self.deadline.filter(|deadline| self.state == OperationState::Running && *deadline < now)?;
        let waited = now.0.saturating_sub(self.updated.0) / 1_000_000;
        let allowed = deadline.0.saturating_sub(self.updated.0) / 1_000_000;
        let seen = match self.progress {
            Some(Progress { bytes, bytes_total }) => format!(", {bytes} of {bytes_total} bytes done"),
            None => String::new(),
        };
        Some(Failure {
            stage: self.stage,
            code: overdue_code(self.stage).to_string(),
            evidence: format!("nothing for {waited} s after `{}`{seen}; {allowed} s allowed", stage_word(self.stage)),
        })
    }

    /// Seconds the operation may stay in its stage: the plan's own figure for the installed system's first boot, else the table's.
    pub fn stage_seconds_max(&self) -> u32 {
        match (&self.parameters, self.stage) {
            (Parameters::Deploy(deploy), Stage::Written | Stage::FirstBoot) => deploy.ready_seconds_max,
            (parameters, stage) => stage_seconds_max(parameters.kind(), stage),
        }
    }
}

/// What kind of thing was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Take a machine's inventory.
    Commission,
    /// Install an image.
    Deploy,
    /// Give a machine back, erased or not.
    Release,
    /// Test the hardware.
    Test,
    /// Boot the rescue environment.
    EnterRescueMode,
    /// Leave the rescue environment.
    ExitRescueMode,
    /// Import an image.
    ImageImport,
}

impl OperationKind {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commission => "commission",
            Self::Deploy => "deploy",
            Self::Release => "release",
            Self::Test => "test",
            Self::EnterRescueMode => "enter_rescue_mode",
            Self::ExitRescueMode => "exit_rescue_mode",
            Self::ImageImport => "image_import",
        }
    }
}

/// What was asked, with all its choices made. Secrets (user-data) are sealed and stored beside, under the operation's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Parameters {
    /// Take a machine's inventory.
    Commission,
    /// Install an image.
    Deploy(Box<DeployParameters>),
    /// Give a machine back.
    Release {
        /// How its disks are erased first.
        erase: Option<Erase>,
    },
    /// Test the hardware.
    Test,
    /// Boot the rescue environment.
    EnterRescueMode,
    /// Leave the rescue environment.
    ExitRescueMode,
    /// Import an image.
    ImageImport {
        /// Its name.
        name: String,
    },
}

impl Parameters {
    /// Their kind.
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Commission => OperationKind::Commission,
            Self::Deploy(_) => OperationKind::Deploy,
            Self::Release { .. } => OperationKind::Release,
            Self::Test => OperationKind::Test,
            Self::EnterRescueMode => OperationKind::EnterRescueMode,
            Self::ExitRescueMode => OperationKind::ExitRescueMode,
            Self::ImageImport { .. } => OperationKind::ImageImport,
        }
    }
}

/// What to install, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployParameters {
    /// The image, fixed when the operation was accepted.
    pub image: ImageId,
    /// Its name then.
    pub image_name: String,
    /// Which disk is written.
    pub disk: DiskSelector,
    /// Whether the last partition is grown to the end of the disk.
    pub grow: bool,
    /// How the new system is started.
    pub start: Start,
    /// SSH keys for the default user.
    pub ssh_authorized_keys: Vec<String>,
    /// Whether user-data is stored, sealed, as a secret of the operation.
    pub user_data: bool,
    /// Seconds from *written* until the system must have reported that it is ready.
    pub ready_seconds_max: u32,
}

/// Whether an operation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Under way.
    Running,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl OperationState {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How an operation ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded.
    Done {
        /// What the installed system warned of.
        warnings: Vec<String>,
    },
    /// It failed.
    Failed(Failure),
    /// Somebody stopped it.
    Cancelled,
}

/// One step of a boot trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The operation.
    pub operation: OperationId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The stage that was reached.
    pub stage: Stage,
    /// When, by the clock of whoever saw it.
    pub at: Timestamp,
    /// A short text for people; may be empty.
    pub detail: String,
}

/// The stages that an operation of a kind goes through, in order.
pub const fn stages(kind: OperationKind) -> &'static [Stage] {
    use Stage::{
        Agent, Configure, Dhcp, Erase, FirstBoot, Inventory, Kernel, Loader, Power, Published, Queued, Ready, Script,
        Write, Written,
    };
    match kind {
        OperationKind::Commission => &[Queued, Published, Power, Dhcp, Loader, Script, Kernel, Agent, Inventory, Ready],
        OperationKind::Deploy => &[
            Queued, Published, Power, Dhcp, Loader, Script, Kernel, Agent, Write, Configure, Written, FirstBoot, Ready,
        ],
        OperationKind::Release => &[Queued, Published, Power, Dhcp, Loader, Script, Kernel, Agent, Erase, Ready],
        OperationKind::Test | OperationKind::EnterRescueMode => {
            &[Queued, Published, Power, Dhcp, Loader, Script, Kernel, Agent, Ready]
        }
        OperationKind::ExitRescueMode => &[Queued, Published, Power, Ready],
        OperationKind::ImageImport => &[Queued, Write, Ready],
    }
}

/// Seconds an operation of a kind may stay in a stage without reaching another and without progress in it.
pub const fn stage_seconds_max(kind: OperationKind, stage: Stage) -> u32 {
    const MINUTE: u32 = 60;
    match stage {
        // A rack may be restarting, or fetching a boot environment or an image.
        Stage::Queued => 10 * MINUTE,
        // The power queue may hold a machine back while racks are busy.
        Stage::Published => 15 * MINUTE,
        // Large servers test their memory for a quarter of an hour before their firmware asks for an address.
        Stage::Power => 20 * MINUTE,
        // Firmware retries for about two minutes; racks delay nobody for longer than that.
        Stage::Dhcp | Stage::Loader | Stage::Script => 5 * MINUTE,
        Stage::Kernel => 5 * MINUTE,
        Stage::Agent => match kind {
            OperationKind::Test => 24 * 60 * MINUTE,
            _ => 10 * MINUTE,
        },
        Stage::Inventory => 5 * MINUTE,
        // Whole-disk erasure reports progress; ten silent minutes are not progress.
        Stage::Erase | Stage::Write => 10 * MINUTE,
        Stage::Configure => 5 * MINUTE,
        Stage::Written | Stage::FirstBoot => 30 * MINUTE,
        Stage::Ready => MINUTE,
    }
}

/// The code of the failure of an operation that went no further than a stage; named after what did not happen.
pub const fn overdue_code(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "not-published",
        Stage::Published => "not-powered",
        Stage::Power => "no-dhcp",
        Stage::Dhcp => "no-loader",
        Stage::Loader => "no-script",
        Stage::Script => "no-kernel",
        Stage::Kernel => "no-agent",
        Stage::Agent => "agent-silent",
        Stage::Inventory => "inventory-not-finished",
        Stage::Erase => "erase-stalled",
        Stage::Write => "write-stalled",
        Stage::Configure => "configure-stalled",
        Stage::Written => "no-first-boot",
        Stage::FirstBoot | Stage::Ready => "not-ready",
    }
}

/// What a person may try, by the code of a failure; `None` for a code this table does not know.
pub fn suggested_fix(code: &str) -> Option<&'static str> {
    Some(match code {
        "not-published" => "see `bootstorm status`: is the rack connected, and does it have a boot environment?",
        "not-powered" => "check the power driver's parameters, or switch the machine on by hand",
        "no-dhcp" => {
            "check that it boots from the network first, its cable, and that the rack's interface is on its VLAN"
        }
        "no-loader" => "check that UDP 69 and the rack's HTTP port reach the machine",
        "no-script" => "check that the rack's HTTP port reaches the machine",
        "no-kernel" => "check the machine's memory and the rack's HTTP port; look at its console",
        "no-agent" => "look at its console: does the boot environment's kernel know its network interface?",
        "agent-silent" => "look at its console; check the way to the rack's agent port",
        "write-stalled" | "erase-stalled" => "look at the disk's health; check the network to the rack",
        "configure-stalled" => "look at its console; check that the image has a file system the agent can mount",
        "no-first-boot" | "not-ready" => {
            "look at the installed system's console: does it boot, reach the rack, and does cloud-init end?"
        }
        "disk-too-small" => "choose a larger disk, or a smaller image",
        "no-disk" => "check that the machine has a writable disk of that name or serial number",
        "power-failed" => "check the power driver's parameters and that its BMC can be reached",
        _ => return None,
    })
}

/// A stage's word in API and logs.
pub const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Published => "published",
        Stage::Power => "power",
        Stage::Dhcp => "dhcp",
        Stage::Loader => "loader",
        Stage::Script => "script",
        Stage::Kernel => "kernel",
        Stage::Agent => "agent",
        Stage::Inventory => "inventory",
        Stage::Erase => "erase",
        Stage::Write => "write",
        Stage::Configure => "configure",
        Stage::Written => "written",
        Stage::FirstBoot => "first_boot",
        Stage::Ready => "ready",
    }
}

#[cfg(test)]
mod tests;
