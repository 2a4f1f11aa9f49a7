//! Claims, agents and attempts: who speaks for a machine, and how far it is. The table and its rules; `agent` and `boot`
//! bring the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use bootstorm_snapshot::{
    AttemptId, ClaimHash, CredentialHash, EnrolmentId, KeyHash, Mac, MachineId, OperationId, Stage, Subject,
};
use serde::{Deserialize, Serialize};

use crate::limits;

/// Whose state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "snake_case")]
pub(crate) enum Who {
    /// A known machine.
    Machine { machine: MachineId },
    /// An unknown one, by the rack's own name for it.
    Enrolment { enrolment: EnrolmentId, mac: Mac },
}

/// How an attempt ended, as far as this rack decides about booting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The image is on the disk: *local boot* wins.
    Written,
    /// The work is done.
    Finished,
    /// It cannot be done.
    Failed,
}

/// A claim that was handed out and not redeemed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub hash: ClaimHash,
    /// The claim itself, in memory only: after a restart a new one replaces it.
    #[serde(skip)]
    pub value: Option<ClaimValue>,
    pub minted_unix_seconds: u64,
    /// Whom it makes its redeemer.
    pub subject: Subject,
}

/// The 16 octets of a claim; never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimValue(pub [u8; 16]);

impl std::fmt::Debug for ClaimValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClaimValue(***)")
    }
}

/// The agent that speaks for the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub key: KeyHash,
    /// The claim it redeemed; absent when its key was carried over from an earlier subject.
    pub claim: Option<ClaimHash>,
    pub subject: Subject,
    /// When it was last heard; after a restart, the restart.
    #[serde(skip)]
    pub heard: Duration,
    /// It said that it will end (power off, start the system): its silence needs no waiting for.
    pub leaving: bool,
    /// Last report applied.
    pub report_sequence: u64,
}

/// All that the rack remembers of one machine or enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(flatten)]
    pub who: Who,
    /// The operation that the fields below are about; absent for an enrolment.
    pub operation: Option<OperationId>,
    /// Attempts redeemed under the operation.
    pub redeemed: u32,
    pub claim: Option<Claim>,
    pub agent: Option<Agent>,
    pub outcome: Option<Outcome>,
    /// The attempt whose agent reported *written*, and its credential's hash.
    pub written: Option<Written>,
    /// Stages observed, one bit each, of `staged_for`.
    pub staged: u32,
    pub staged_for: Option<Subject>,
    /// Second of the last change, for eviction.
    pub touched_unix_seconds: u64,
    /// When the last alarm about it was raised.
    #[serde(skip)]
    pub alarmed: Option<Duration>,
}

/// A written attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub subject: Subject,
    pub credential: CredentialHash,
    /// The installed system has reported.
    pub ready: bool,
}

impl State {
    pub(crate) fn new(who: Who) -> State {
        State {
            who,
            operation: None,
            redeemed: 0,
            claim: None,
            agent: None,
            outcome: None,
            written: None,
            staged: 0,
            staged_for: None,
            touched_unix_seconds: 0,
            alarmed: None,
        }
    }

    /// Whether an agent of the machine speaks: heard within 30 s and not on its way out.
    pub(crate) fn is_speaking(&self, now: Duration) -> bool {
        self.agent
            .as_ref()
            .is_some_and(|agent| !agent.leaving && now.saturating_sub(agent.heard) < limits::AGENT_SILENCE)
    }

    /// How long the agent has been silent.
    pub(crate) fn silence(&self, now: Duration) -> Option<Duration> {
        self.agent.as_ref().map(|agent| now.saturating_sub(agent.heard))
    }

    /// Notes that a stage of a subject is reached; true the first time.
    pub(crate) fn note_stage(&mut self, subject: Subject, stage: Stage) -> bool {
        if self.staged_for != Some(subject) {
            self.staged_for = Some(subject);
            self.staged = 0;
        }
        let bit = 1u32 << (stage as u32);
        let first = self.staged & bit == 0;
        self.staged |= bit;
        first
    }

    /// The subject that boots next, as far as it is known: of the claim handed out, or the first attempt.
    pub(crate) fn booting_subject(&self, first: Option<AttemptId>) -> Option<Subject> {
        match (&self.claim, self.who, self.operation, first) {
            (Some(claim), ..) => Some(claim.subject),
            (None, Who::Machine { machine }, Some(operation), Some(attempt)) if self.redeemed == 0 => {
                Some(Subject::Attempt { machine, operation, attempt })
            }
            (None, Who::Enrolment { enrolment, mac }, ..) => Some(Subject::Enrolment { enrolment, mac }),
            (None, Who::Machine { .. }, ..) => None,
        }
    }
}

/// The table, with ways in by claim, key and credential.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    states: BTreeMap<Who, State>,
    claims: BTreeMap<ClaimHash, Who>,
    keys: BTreeMap<KeyHash, Who>,
    credentials: BTreeMap<CredentialHash, Who>,
    enrolments: BTreeMap<Mac, EnrolmentId>,
}

impl Attempts {
    pub(crate) fn get(&self, who: Who) -> Option<&State> {
        self.states.get(&who)
    }

    /// Changes a state (a new one if there is none) and brings the ways in up to date. Gives it as it is then.
    pub(crate) fn change(&mut self, who: Who, change: impl FnOnce(&mut State)) -> &State {
        let mut state = self.states.remove(&who).unwrap_or_else(|| State::new(who));
        self.unlink(&state);
        change(&mut state);
        self.put(state)
    }

    /// Puts a state in its place.
    pub(crate) fn put(&mut self, state: State) -> &State {
        let who = state.who;
        if let Some(old) = self.states.remove(&who) {
            self.unlink(&old);
        }
        self.claims.extend(state.claim.iter().map(|claim| (claim.hash, who)));
        if let Some(agent) = &state.agent {
            self.keys.insert(agent.key, who);
            self.claims.extend(agent.claim.iter().map(|claim| (*claim, who)));
        }
        self.credentials.extend(state.written.iter().map(|written| (written.credential, who)));
        if let Who::Enrolment { enrolment, mac } = who {
            self.enrolments.insert(mac, enrolment);
        }
        self.states.entry(who).or_insert(state)
    }

    fn unlink(&mut self, state: &State) {
        let mut claims = state.claim.iter().map(|claim| claim.hash).collect::<Vec<_>>();
        if let Some(agent) = &state.agent {
            claims.extend(agent.claim);
            if self.keys.get(&agent.key) == Some(&state.who) {
                self.keys.remove(&agent.key);
            }
        }
        for claim in claims {
            self.claims.remove(&claim);
        }
        if let Some(written) = &state.written {
            self.credentials.remove(&written.credential);
        }
    }

    pub(crate) fn remove(&mut self, who: Who) -> Option<State> {
        let state = self.states.remove(&who)?;
        self.unlink(&state);
        if let Who::Enrolment { mac, .. } = who {
            self.enrolments.remove(&mac);
        }
        Some(state)
    }

    pub(crate) fn by_claim(&self, claim: ClaimHash) -> Option<&State> {
        self.states.get(self.claims.get(&claim)?)
    }

    pub(crate) fn by_key(&self, key: KeyHash) -> Option<&State> {
        self.states.get(self.keys.get(&key)?)
    }

    pub(crate) fn by_credential(&self, credential: CredentialHash) -> Option<&State> {
        self.states.get(self.credentials.get(&credential)?)
    }

    pub(crate) fn enrolment_of(&self, mac: Mac) -> Option<Who> {
        self.enrolments.get(&mac).map(|enrolment| Who::Enrolment { enrolment: *enrolment, mac })
    }

    pub(crate) fn enrolments(&self) -> usize {
        self.enrolments.len()
    }

    /// The enrolment that was touched longest ago and whose agent does not speak.
    pub(crate) fn stalest_enrolment(&self, now: Duration) -> Option<Who> {
        let idle = self.states.values().filter(|state| matches!(state.who, Who::Enrolment { .. }));
        idle.filter(|state| !state.is_speaking(now))
            .min_by_key(|state| state.touched_unix_seconds)
            .map(|state| state.who)
    }

    /// Notes that an agent was heard.
    pub(crate) fn heard(&mut self, key: KeyHash, now: Duration) {
        if let Some(agent) =
            self.keys.get(&key).and_then(|who| self.states.get_mut(who)).and_then(|state| state.agent.as_mut())
        {
            agent.heard = now;
        }
    }

    /// After a restart: nobody was heard, and nobody is taken for gone.
    pub(crate) fn restart(&mut self, now: Duration) {
        for agent in self.states.values_mut().filter_map(|state| state.agent.as_mut()) {
            agent.heard = now;
        }
    }

    /// Raises an alarm about a state at most once in a while; false if one was raised just now.
    pub(crate) fn may_alarm(&mut self, who: Who, now: Duration) -> bool {
        let Some(state) = self.states.get_mut(&who) else { return true };
        let quiet = state.alarmed.is_none_or(|last| now.saturating_sub(last) >= limits::ALARM_PAUSE);
        if quiet {
            state.alarmed = Some(now);
        }
        quiet
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &State> {
        self.states.values()
    }
}
