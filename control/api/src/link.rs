//! Gateway ⇄ control: one stream per rack ([`crate::frame`]), over a unix socket on one host or mTLS between hosts.
//!
//! The gateway speaks first: `Join` (once in a rack's life, or again when its certificate runs out) or `Hello`.
//! Control then brings the rack to its generation, and both sides exchange messages until the stream ends.

use std::net::Ipv4Addr;

use bootstorm_snapshot::{Generation, ManifestDigest, Observation, OperationId, RackId};
use serde::{Deserialize, Serialize};

use crate::local::Wish;
use crate::role::RackInterface;

/// Gateway → control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToControl {
    /// A rack that has no certificate yet asks to join. Answer: `Joined` or `Refused`.
    Join {
        /// One-use token; not needed over a unix socket.
        token: Option<String>,
        /// Name shown to people.
        name: String,
        /// The rack's public key as a PEM certificate signing request. Control makes it an intermediate CA for
        /// server certificates of this rack and for agents' certificates.
        csr_pem: String,
        /// Addresses of the rack on boot networks.
        addresses: Vec<Ipv4Addr>,
    },
    /// A joined rack speaks. Over a unix socket the id is taken from here, over mTLS it must equal the
    /// certificate's.
    Hello {
        /// The rack.
        rack: RackId,
        /// Version of the software.
        version: String,
        /// Interfaces it serves.
        interfaces: Vec<RackInterface>,
        /// Generation it serves; 0 if none.
        generation: Generation,
    },
    /// What the rack serves and lacks; see `local::ToGateway::Status`.
    Status {
        /// Generation served.
        generation: Generation,
        /// Files of that generation that are not yet whole.
        missing: Vec<ManifestDigest>,
    },
    /// Observations, oldest first. Answer: `Acknowledged` once they are applied and durable.
    Observations {
        /// At most [`crate::limits::OBSERVATIONS_BATCH_MAX`].
        observations: Vec<Observation>,
    },
    /// Content the rack wants. Answer: `Fetched` (in parts) or `NotFetched`.
    Wish {
        /// What.
        wish: Wish,
    },
    /// The gateway holds an operation's secrets in memory.
    SecretsHeld {
        /// The operation.
        operation: OperationId,
    },
    /// The gateway has lost its secrets (it started anew) and wants those of operations in progress again.
    SecretsWanted,
}

/// Control → gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToGateway {
    /// The rack has joined.
    Joined {
        /// Its id from now on.
        rack: RackId,
        /// Its certificate (an intermediate CA, 30 days), PEM.
        certificate_pem: String,
        /// The site's CA, PEM.
        ca_pem: String,
    },
    /// The stream is refused and will be closed.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Part of a snapshot; see `local::ToRack::Snapshot`. The attachment is a zstd frame of JSON lines.
    Snapshot {
        /// The generation these parts lead to.
        generation: Generation,
        /// The generation the delta starts from; absent for a base.
        from: Option<Generation>,
        /// First part of the transfer.
        first: bool,
        /// Last part of the transfer.
        last: bool,
    },
    /// Observations up to and including this number are applied and durable.
    Acknowledged {
        /// Last number applied.
        through: u64,
    },
    /// Bytes of a wish in the attachment.
    Fetched {
        /// What was wished for.
        wish: Wish,
        /// Offset of the attachment.
        offset: u64,
        /// Length in all.
        bytes_total: u64,
    },
    /// A wish cannot be fulfilled.
    NotFetched {
        /// What was wished for.
        wish: Wish,
        /// Why, for the log.
        reason: String,
    },
    /// Secrets of an operation, to be held in memory only and at most 24 hours. The attachment is
    /// JSON of [`crate::agent::Secrets`]. Answer: `SecretsHeld`.
    Secrets {
        /// The operation.
        operation: OperationId,
    },
    /// The operation is over: forget its secrets.
    ForgetSecrets {
        /// The operation.
        operation: OperationId,
    },
}
