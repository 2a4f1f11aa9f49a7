//! What the engine writes to the journal: states, not events, so that replay is putting them back in order.
//!
//! A payload is the octet `1` (version) and the JSON of a [`Record`]. The claim itself is never in it, only its hash.

use std::net::Ipv4Addr;

use bootstorm_snapshot::{EnrolmentId, MachineId, Observation};
use serde::{Deserialize, Serialize};

use crate::attempts::State;
use crate::leases::Lease;

const VERSION: u8 = b'1';

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    /// A lease as it is now, by its address.
    Lease(Lease),
    /// An address has no lease any more.
    LeaseForgotten { address: Ipv4Addr },
    /// An address is not to be given out until then.
    Quarantine { address: Ipv4Addr, until_unix_seconds: u64 },
    /// A machine's or enrolment's claim, agent and progress as they are now.
    State(Box<State>),
    /// A machine is gone from the snapshot.
    MachineForgotten { machine: MachineId },
    /// An enrolment is over.
    EnrolmentForgotten { enrolment: EnrolmentId },
    /// An observation in the spool.
    Observed(Box<Observation>),
    /// Marks of the spool.
    Spool { acknowledged: u64, last_number: u64 },
}

/// A journal's payload that is no record of this or an earlier version.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of the rack.
    #[error("journal record has version `{0}`, which this version cannot read; start the newer version again")]
    Version(u8),
    /// Not JSON of the right shape.
    #[error("journal record is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        // Records are structs of serialisable fields with string keys, so this cannot fail.
        out.extend(serde_json::to_vec(self).unwrap_or_default());
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Record, RecordError> {
        match payload.split_first() {
            Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
            Some((version, _)) => Err(RecordError::Version(*version)),
            None => Err(RecordError::Version(0)),
        }
    }
}
