//! What the engine writes to the journal: states, not events, so that replay is putting them back in order.
//!
//! A payload is the octet `1` (version) and the JSON of a [`Record`]. The two that every new lease writes, the lease and its
//! observation, have a form of fixed fields instead (octets `L` and `O`): in a storm they are nearly all of the journal, and
//! a million of them are read at a start. The claim itself is never in a record, only its hash.

use std::net::Ipv4Addr;

use bootstorm_snapshot::{Architecture, EnrolmentId, Mac, MachineId, Observation, Observed, SubnetId};
use serde::{Deserialize, Serialize};

use crate::attempts::State;
use crate::leases::Lease;

const VERSION: u8 = b'1';
const LEASE: u8 = b'L';
const LEASE_OBSERVED: u8 = b'O';
/// Octets of a lease's form: kind, ended, architecture, whether there is a circuit, MAC, address, subnet, end, circuit.
pub(crate) const LEASE_BYTES: usize = 4 + 6 + 4 + 8 + 8 + 8;
/// Octets of an observed lease's form: kind, number, time, MAC, address, subnet, end.
const LEASE_OBSERVED_BYTES: usize = 1 + 8 + 8 + 6 + 4 + 8 + 8;

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
    /// A lease whose fields are not what they can be.
    #[error("journal record of a lease is malformed (`{0}` bytes)")]
    MalformedLease(usize),
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Record::Lease(lease) => return encode_lease(lease),
            Record::Observed(observation) => {
                if let Some(out) = encode_lease_observed(observation) {
                    return out;
                }
            }
            Record::LeaseForgotten { .. }
            | Record::Quarantine { .. }
            | Record::State(_)
            | Record::MachineForgotten { .. }
            | Record::EnrolmentForgotten { .. }
            | Record::Spool { .. } => {}
        }
        let mut out = vec![VERSION];
        // Records are structs of serialisable fields with string keys, so this cannot fail.
        out.extend(serde_json::to_vec(self).unwrap_or_default());
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Record, RecordError> {
        match payload.split_first() {
            Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
            Some((&LEASE, _)) => {
                decode_lease(payload).map(Record::Lease).ok_or(RecordError::MalformedLease(payload.len()))
            }
            Some((&LEASE_OBSERVED, _)) => decode_lease_observed(payload)
                .map(|observation| Record::Observed(Box::new(observation)))
                .ok_or(RecordError::MalformedLease(payload.len())),
            Some((version, _)) => Err(RecordError::Version(*version)),
            None => Err(RecordError::Version(0)),
        }
    }
}

impl Lease {
    /// The journal's payload of a lease: for tools that make or look at journals.
    pub fn encode(&self) -> Vec<u8> {
        encode_lease(self)
    }

    /// The lease of a journal's payload; `None` for any other record.
    pub fn decode(payload: &[u8]) -> Option<Lease> {
        payload.first().filter(|kind| **kind == LEASE).and_then(|_| decode_lease(payload))
    }
}

fn encode_lease(lease: &Lease) -> Vec<u8> {
    let architecture = match lease.architecture {
        None => 0,
        Some(Architecture::Amd64) => 1,
        Some(Architecture::Arm64) => 2,
        Some(Architecture::Ppc64el) => 3,
        Some(Architecture::S390x) => 4,
    };
    let mut out = Vec::with_capacity(LEASE_BYTES);
    out.extend([LEASE, u8::from(lease.ended), architecture, u8::from(lease.circuit.is_some())]);
    out.extend(lease.mac.0);
    out.extend(lease.address.octets());
    out.extend(lease.subnet.0.to_le_bytes());
    out.extend(lease.until_unix_seconds.to_le_bytes());
    out.extend(lease.circuit.unwrap_or(0).to_le_bytes());
    out
}

fn decode_lease(payload: &[u8]) -> Option<Lease> {
    let payload: &[u8; LEASE_BYTES] = payload.try_into().ok()?;
    let ([_, ended, architecture, has_circuit], rest) = payload.split_first_chunk::<4>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (address, rest) = rest.split_first_chunk::<4>()?;
    let (subnet, rest) = rest.split_first_chunk::<8>()?;
    let (until, circuit) = rest.split_first_chunk::<8>()?;
    let flag = |octet: u8| (octet < 2).then_some(octet == 1);
    let architecture = match architecture {
        0 => None,
        1 => Some(Architecture::Amd64),
        2 => Some(Architecture::Arm64),
        3 => Some(Architecture::Ppc64el),
        4 => Some(Architecture::S390x),
        _ => return None,
    };
    let circuit = u64::from_le_bytes(circuit.try_into().ok()?);
    Some(Lease {
        mac: Mac(*mac),
        address: Ipv4Addr::from(*address),
        subnet: SubnetId(i64::from_le_bytes(*subnet)),
        until_unix_seconds: u64::from_le_bytes(*until),
        ended: flag(*ended)?,
        architecture,
        circuit: flag(*has_circuit)?.then_some(circuit),
    })
}

/// The form of an observed lease; `None` for any other observation.
fn encode_lease_observed(observation: &Observation) -> Option<Vec<u8>> {
    let Observed::Lease { mac, address, subnet, until_unix_seconds } = &observation.observed else { return None };
    let mut out = Vec::with_capacity(LEASE_OBSERVED_BYTES);
    out.push(LEASE_OBSERVED);
    out.extend(observation.sequence.to_le_bytes());
    out.extend(observation.unix_micros.to_le_bytes());
    out.extend(mac.0);
    out.extend(address.octets());
    out.extend(subnet.0.to_le_bytes());
    out.extend(until_unix_seconds.to_le_bytes());
    Some(out)
}

fn decode_lease_observed(payload: &[u8]) -> Option<Observation> {
    let payload: &[u8; LEASE_OBSERVED_BYTES] = payload.try_into().ok()?;
    let (sequence, rest) = payload.get(1..)?.split_first_chunk::<8>()?;
    let (unix_micros, rest) = rest.split_first_chunk::<8>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (address, rest) = rest.split_first_chunk::<4>()?;
    let (subnet, until) = rest.split_first_chunk::<8>()?;
    let observed = Observed::Lease {
        mac: Mac(*mac),
        address: Ipv4Addr::from(*address),
        subnet: SubnetId(i64::from_le_bytes(*subnet)),
        until_unix_seconds: u64::from_le_bytes(until.try_into().ok()?),
    };
    let (sequence, unix_micros) = (u64::from_le_bytes(*sequence), u64::from_le_bytes(*unix_micros));
    Some(Observation { sequence, unix_micros, observed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::{AttemptId, ClaimHash, OperationId, Subject};

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
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let observed = Observed::LeaseEnded { mac, address };
        let (until_unix_seconds, subnet) = (7, SubnetId(-1));
        let lease = Lease { mac, address, subnet, until_unix_seconds, ended: true, architecture: None, circuit: None };
        let leased = Observed::Lease { mac, address, subnet, until_unix_seconds };
        let architecture = Some(Architecture::S390x);
        vec![
            Record::Lease(lease),
            Record::Lease(Lease { ended: false, architecture, circuit: Some(u64::MAX), ..lease }),
            Record::Observed(Box::new(Observation { sequence: 6, unix_micros: u64::MAX, observed: leased })),
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
    fn a_lease_of_impossible_fields_is_refused_and_an_older_one_in_json_is_read() {
        let Some(Record::Lease(lease)) = records().into_iter().next() else { panic!("the first is a lease") };
        let payload = encode_lease(&lease);
        for (at, value) in [(1, 2), (2, 5), (3, 2)] {
            let mut bad = payload.clone();
            bad[at] = value;
            assert!(matches!(Record::decode(&bad), Err(RecordError::MalformedLease(LEASE_BYTES))), "octet {at}");
        }
        assert!(Record::decode(&[payload, vec![0]].concat()).is_err(), "an octet too many");
        let json = serde_json::to_vec(&Record::Lease(lease)).expect("JSON");
        assert_eq!(Record::decode(&[b"1".as_slice(), &json].concat()).expect("as before"), Record::Lease(lease));
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
