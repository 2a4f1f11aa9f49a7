//! Control ⇄ bmc: power commands. Only the bmc role opens the sealed parameters, for one command at a time.

use serde::{Deserialize, Serialize};

/// Control → bmc; the attachment of the frame is the sealed power parameters (JSON inside).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Number of the command, unique on the stream.
    pub number: u64,
    /// Power driver: `manual`, `webhook`, …
    pub driver: String,
    /// Context that the parameters were sealed with (table, row, column).
    pub context: String,
    /// What to do.
    pub action: Action,
    /// Seconds until it counts as failed.
    pub deadline_seconds: u32,
}

/// What to do with a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Switch on; nothing to do if on.
    On,
    /// Switch off; nothing to do if off.
    Off,
    /// Off, wait until off, on.
    Cycle,
    /// Tell the state.
    Query,
}

/// Bmc → control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Number of the command.
    pub number: u64,
    /// State after the command, or why it failed.
    pub result: Result<PowerState, PowerFailure>,
}

/// Whether a machine is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// The driver cannot tell (`manual`).
    Unknown,
}

/// Why a power command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerFailure {
    /// Stable code, e.g. `webhook-status-500`, `unreachable`, `timed-out`, `bad-parameters`.
    pub code: String,
    /// A sentence for people, without credentials.
    pub detail: String,
    /// Whether the same command may succeed later.
    pub retryable: bool,
}
