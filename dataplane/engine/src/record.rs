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

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::{AttemptId, ClaimHash, Observed, OperationId, Subject, SubnetId};

    use crate::attempts::{Claim, ClaimValue, Who};

    fn records() -> Vec<Record> {
        let machine = MachineId::from_random([3; 8]);
        let (operation, attempt) = (OperationId::new(1, [1; 10]), AttemptId::new(2, [2; 10]));
        let subject = Subject::Attempt { machine, operation, attempt };
        let mut state = State::new(Who::Machine { machine });
        state.operation = Some(operation);
        let (hash, value) = (ClaimHash::of(&[5; 16]), Some(ClaimValue([5; 16])));
        state.claim = Some(Claim { hash, value, minted_unix_seconds: 9, subject });
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let mac = bootstorm_snapshot::Mac([2, 0, 0, 0, 0, 1]);
        let observed = Observed::LeaseEnded { mac, address };
        let (until_unix_seconds, architecture, circuit) = (7, None, Some(u64::MAX));
        vec![
            Record::Lease(Lease {
                mac,
                address,
                subnet: SubnetId(1),
                until_unix_seconds,
                ended: true,
                architecture,
                circuit,
            }),
            Record::LeaseForgotten { address },
            Record::Quarantine { address, until_unix_seconds },
            Record::State(Box::new(state)),
            Record::MachineForgotten { machine },
            Record::EnrolmentForgotten { enrolment: EnrolmentId::new(3, [3; 10]) },
            Record::Observed(Box::new(Observation { sequence: 4, unix_micros: 5, observed })),
            Record::Spool { acknowledged: 3, last_number: 4 },
        ]
    }

    #[test]
    fn round_trip_without_the_claim_s_octets() {
        for record in records() {
            let mut expected = record.clone();
            if let Record::State(state) = &mut expected
                && let Some(claim) = &mut state.claim
            {
                claim.value = None;
            }
            assert_eq!(Record::decode(&record.encode()).expect("own record"), expected);
        }
    }

    #[test]
    fn every_truncation_and_another_version_are_refused() {
        for record in records() {
            let payload = record.encode();
            for end in 0..payload.len() {
                assert!(Record::decode(&payload[..end]).is_err(), "{record:?} cut to {end}");
            }
            let newer = [b"2", &payload[1..]].concat();
            assert!(matches!(Record::decode(&newer), Err(RecordError::Version(b'2'))));
        }
    }
}
