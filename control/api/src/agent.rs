//! Agent ⇄ gateway: HTTP/1.1 with JSON bodies over TLS 1.3 to `rack.agent`; and the paths of the rack's plain HTTP.
//!
//! | request | client certificate | body → answer |
//! |---|---|---|
//! | `POST /v1/redeem` | none | [`Redeem`] → [`Grant`] |
//! | `POST /v1/plan` | agent's | [`PlanRequest`] → [`PlanReply`] (held open up to `wait_seconds`) |
//! | `POST /v1/report` | agent's | [`ReportRequest`] → [`Accepted`] |
//! | `GET /v1/secrets` | agent's | → [`Secrets`], or 409 while they are not here (the body says why) |
//! | `POST /v1/ready` | none; `Authorization: Bearer CREDENTIAL` | [`ReadyRequest`] → [`Accepted`] |
//!
//! Errors are [`Problem`] with a status: 400 malformed, 401 no or wrong certificate or credential, 403 refused,
//! 409 not now, 413 too long, 429 too many, 503 the rack cannot promise anything.
//!
//! Kernel command line that a boot script gives the agent (all but the claim are public facts):
//! `bootstorm.rack=ADDRESS:PORT` (gateway), `bootstorm.http=ADDRESS:PORT` (rack), `bootstorm.claim=32 hex digits`,
//! `bootstorm.mac=MAC` of the boot interface, `bootstorm.ip=ADDRESS/BITS` its leased address,
//! `bootstorm.gateway=ADDRESS` if there is one. The site's CA is the file `/etc/bootstorm/ca.pem` of an extra initrd.

use base64_text::Base64;
use bootstorm_snapshot::{Plan, Subject, observation::ReadyResult};
use serde::{Deserialize, Serialize};

pub use crate::local::Report;

/// Path under the rack's HTTP of a manifest's encoded bytes: prefix + digest.
pub const MANIFEST_PATH: &str = "/manifest/";
/// Path under the rack's HTTP of a file's stored stream (ranges): prefix + manifest digest.
pub const STREAM_PATH: &str = "/stream/";
/// Path under the rack's HTTP of one chunk's stored bytes: prefix + chunk name.
pub const CHUNK_PATH: &str = "/chunk/";
/// Path under the rack's HTTP of the boot environment's files: prefix + architecture + `/` + `kernel` or `initrd`.
pub const ENVIRONMENT_PATH: &str = "/environment/";
/// Path under the rack's HTTP of the site's CA as an uncompressed cpio archive.
pub const CA_INITRD_PATH: &str = "/ca.cpio";
/// Path of the first script of iPXE; the machine's address is the query `mac`.
pub const SCRIPT_PATH: &str = "/boot.ipxe";
/// File in the boot environment that holds the site's CA.
pub const CA_FILE: &str = "/etc/bootstorm/ca.pem";

/// Redeems a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redeem {
    /// The claim from the kernel's command line: 32 hexadecimal digits.
    pub claim: String,
    /// Certificate signing request for the key made in memory (ECDSA P-256), PEM; its names are ignored.
    pub csr_pem: String,
}

/// A certificate, who it speaks for, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Certificate of the agent's key, and the rack's intermediate after it, PEM.
    pub certificate_pem: String,
    /// Whom it speaks for.
    pub subject: Subject,
    /// The plan.
    pub plan: Plan,
}

/// Asks for the plan in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Whom the agent believes to speak for.
    pub known: Option<Subject>,
    /// Seconds to hold the request if nothing has changed, at most [`crate::limits::PLAN_WAIT_SECONDS_MAX`].
    pub wait_seconds: u64,
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum PlanReply {
    /// Nothing new.
    Unchanged,
    /// A new plan, and a certificate of the same key for the subject it belongs to. Report sequences start at 1
    /// again.
    Changed(Box<Grant>),
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRequest {
    /// Number in this attempt, from 1, rising by one; the same number again is acknowledged and not applied twice.
    /// `Alive` and progress take 0.
    pub sequence: u64,
    /// The report.
    pub report: Report,
}

/// It is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Accepted {}

/// The installed system's signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyRequest {
    /// What it says.
    pub result: ReadyResult,
}

/// Secrets of an operation. Held in memory only by the gateway, fetched only by the operation's agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Secrets {
    /// cloud-init user-data, at most [`crate::limits::USER_DATA_BYTES_MAX`] bytes.
    pub user_data: Option<Base64>,
    /// cloud-init vendor-data.
    pub vendor_data: Option<Base64>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// Bytes that travel as base64 text (RFC 4648 §4).
pub mod base64_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    /// Bytes written as base64.
    #[derive(Clone, PartialEq, Eq, Default)]
    pub struct Base64(pub Vec<u8>);

    impl std::fmt::Debug for Base64 {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Base64({} bytes)", self.0.len())
        }
    }

    impl Serialize for Base64 {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        }
    }

    impl<'de> Deserialize<'de> for Base64 {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
            STANDARD.decode(text.as_bytes()).map(Base64).map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secrets = Secrets { user_data: Some(Base64(b"password: x".to_vec())), vendor_data: None };
        assert_eq!(format!("{secrets:?}"), "Secrets(***)");
        let json = serde_json::to_string(&secrets).expect("json");
        assert_eq!(serde_json::from_str::<Secrets>(&json).expect("back"), secrets);
    }

    #[test]
    fn a_changed_plan_survives_its_own_encoding() {
        let subject = Subject::Enrolment {
            enrolment: bootstorm_snapshot::EnrolmentId::new(1, [1; 10]),
            mac: bootstorm_snapshot::Mac([2, 0, 0, 0, 0, 1]),
        };
        let plan = Plan {
            operation: None,
            machine: None,
            hostname: None,
            task: bootstorm_snapshot::Task::Enlist,
            after: bootstorm_snapshot::plan::After::Wait,
        };
        let reply = PlanReply::Changed(Box::new(Grant { certificate_pem: "x".into(), subject, plan }));
        let json = serde_json::to_string(&reply).expect("json");
        assert_eq!(serde_json::from_str::<PlanReply>(&json).expect("back"), reply);
    }

    #[test]
    fn unknown_fields_of_an_agent_are_refused() {
        let bad = r#"{"claim":"00","csr_pem":"x","more":1}"#;
        assert!(serde_json::from_str::<Redeem>(bad).is_err());
    }
}
