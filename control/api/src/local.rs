//! Gateway ⇄ rack of one host, over the unix stream that the supervisor passes ([`crate::frame`]).
//!
//! The rack's engine decides and journals; the gateway ends TLS, signs after the rack's yes, holds secrets, fetches.
//! Each request of the gateway carries a number that is unique on the stream and gets exactly one answer, sent after
//! what it promises is durable. Requests about an attempt are idempotent by (subject, sequence).

use std::net::IpAddr;

use bootstorm_snapshot::{
    ChunkName, ClaimHash, CredentialHash, Generation, Inventory, KeyHash, ManifestDigest, Observation, Plan, Stage,
    Subject,
    observation::{Failure, Progress, ReadyResult},
};
use serde::{Deserialize, Serialize};

/// Gateway → rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToRack {
    /// Part of a snapshot; the attachment is a zstd frame of JSON lines. Parts come in order; the generation takes
    /// effect, and is persisted, when `last` is set.
    Snapshot {
        /// The generation these parts lead to.
        generation: Generation,
        /// Whether this transfer starts from nothing (a base) or from `from`.
        from: Option<Generation>,
        /// Whether this is the first part of the transfer.
        first: bool,
        /// Whether this is the last part.
        last: bool,
    },
    /// Bytes of a wish; the attachment holds them. The rack verifies them.
    Fetched {
        /// What was wished for.
        wish: Wish,
        /// Offset of the attachment in it (a manifest may take several parts; a chunk takes one).
        offset: u64,
        /// Length in all.
        bytes_total: u64,
    },
    /// A wish cannot be fulfilled now; the rack asks again later.
    NotFetched {
        /// What was wished for.
        wish: Wish,
        /// Why, for the log.
        reason: String,
    },
    /// Control has applied observations up to and including this number.
    Acknowledged {
        /// Last number applied.
        through: u64,
    },
    /// Whether the link to control is up.
    Control {
        /// Whether it is up.
        connected: bool,
    },
    /// An agent's request.
    Request {
        /// Number of the request, unique on this stream.
        number: u64,
        /// Address the agent spoke from (for logs and limits; no authority).
        peer: IpAddr,
        /// What it asks.
        request: Request,
    },
}

/// What an agent asks, once TLS is ended. `key` is the hash of the key that the TLS session proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Redeem a claim for a key. Answer: [`Answer::Granted`] or [`Answer::Refused`].
    Redeem {
        /// Hash of the claim.
        claim: ClaimHash,
        /// Hash of the agent's new public key.
        key: KeyHash,
    },
    /// The plan in force for a key's subject: [`Answer::Granted`] (with the subject as it is now), or
    /// [`Answer::Unchanged`] after at most `wait_seconds` if it is still the plan of `known`.
    Plan {
        /// Hash of the agent's key.
        key: KeyHash,
        /// The subject the agent believes to be; absent for the first request.
        known: Option<Subject>,
        /// How long to hold the request, at most [`crate::limits::PLAN_WAIT_SECONDS_MAX`].
        wait_seconds: u64,
    },
    /// Something the agent reports. Answer: [`Answer::Done`] after commit.
    Report {
        /// Hash of the agent's key.
        key: KeyHash,
        /// Number of the report in this attempt, from 1; a repeated number is acknowledged and not applied again.
        sequence: u64,
        /// The report.
        report: Report,
    },
    /// The installed system's signal. Answer: [`Answer::Done`] after commit.
    Ready {
        /// Hash of the credential that the agent left in the system.
        credential: CredentialHash,
        /// What the system says.
        result: ReadyResult,
    },
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// It lives. Needs no journal.
    Alive,
    /// A stage is reached, or how far it is. Progress needs no journal.
    Stage {
        /// The stage.
        stage: Stage,
        /// How far, if it can be said.
        progress: Option<Progress>,
        /// A short text for people.
        detail: String,
    },
    /// What the machine is made of.
    Inventory {
        /// The facts.
        inventory: Box<Inventory>,
    },
    /// The image is on the disk, the seed in place, the boot entry set. The rack journals *local boot* before it
    /// answers; only then does the agent start the new system.
    Written {
        /// Hash of the credential left in the system for the ready signal.
        credential: CredentialHash,
    },
    /// The plan's work is done.
    Finished,
    /// The plan cannot be done.
    Failed {
        /// How.
        failure: Failure,
    },
}

/// Rack → gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToGateway {
    /// First message on a stream, and again whenever it changes: what the rack serves and what it still lacks.
    Status {
        /// Generation served; 0 if none.
        generation: Generation,
        /// Files named by that generation (boot environments, images of plans) that are not yet whole in the
        /// rack's content store. An operation counts as published only when its image is not among them.
        missing: Vec<ManifestDigest>,
    },
    /// The answer to a request.
    Answer {
        /// Number of the request.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// Observations, oldest first; numbered ones are sent again until acknowledged.
    Observations {
        /// At most [`crate::limits::OBSERVATIONS_BATCH_MAX`].
        observations: Vec<Observation>,
    },
    /// Content the rack wants; at most [`crate::limits::WISHES_IN_FLIGHT_MAX`] without answer.
    Wish {
        /// What.
        wish: Wish,
    },
}

/// Content by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// A chunk's stored bytes.
    Chunk {
        /// Its name.
        name: ChunkName,
    },
    /// A manifest's encoded bytes.
    Manifest {
        /// Its digest.
        digest: ManifestDigest,
    },
}

/// The rack's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Yes: certify the key for this subject, with this plan.
    Granted {
        /// Who the key speaks for.
        subject: Subject,
        /// What it is to do.
        plan: Box<Plan>,
    },
    /// The plan has not changed.
    Unchanged,
    /// It is durable.
    Done,
    /// No.
    Refused {
        /// Stable code for the wire and metrics.
        code: Refusal,
        /// A sentence for people.
        detail: String,
    },
}

/// Why a rack refuses an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No such claim, or it has expired.
    UnknownClaim,
    /// The claim was redeemed with another key: alarm and hold.
    ClaimTaken,
    /// The key speaks for nobody (attempt over, superseded or never granted).
    UnknownKey,
    /// The operation's attempts are used up.
    TooManyAttempts,
    /// The report does not fit the state of the attempt.
    OutOfOrder,
    /// No such credential, or it was used.
    UnknownCredential,
    /// A limit was reached; try again later.
    Busy,
    /// The rack's journal has stopped: nothing can be promised.
    Stopped,
}
