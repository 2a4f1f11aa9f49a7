//! Racks, and the log of what happened.

use crate::{Name, Timestamp};
use bootstorm_snapshot::{EventId, Generation, MachineId, OperationId, RackId};
use serde::{Deserialize, Serialize};

/// A rack that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Its id.
    pub id: RackId,
    /// Its name; unique.
    pub name: Name,
    /// When it joined.
    pub joined: Timestamp,
    /// When it was last heard of.
    pub seen: Timestamp,
    /// The last generation that it serves.
    pub generation: Generation,
    /// The last of its observations that has been applied; 0 before the first.
    pub observation_sequence: u64,
    /// BLAKE3 of the DER of its certificate in force, hexadecimal; empty on a local socket.
    pub certificate: String,
}

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It happened.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something failed.
    Error,
}

impl Severity {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// An entry of the event log, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLogEntry {
    /// When it happened.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// Stable code, lower case with dashes, e.g. `machine-deploying`.
    pub code: String,
    /// The machine it is about.
    pub machine: Option<MachineId>,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
    /// Who did it: a token's name, `rack NAME`, or `control`.
    pub actor: String,
    /// One sentence for people.
    pub text: String,
}

/// An entry of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number; later entries have larger ones.
    pub id: EventId,
    /// What it says.
    #[serde(flatten)]
    pub entry: NewLogEntry,
}
