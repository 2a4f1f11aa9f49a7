//! People and programs ⇄ control: the native REST API under `/api/v1`.
//!
//! Every request but `GET /healthz`, `GET /metrics` and `GET /openapi.json` carries `Authorization: Bearer TOKEN`.
//! `{machine}` in a path is an id or a host name. Long work answers 202 with an [`Operation`]. Lists are pages of at
//! most [`crate::limits::PAGE_ROWS_MAX`] rows with a cursor. A mutation may carry `Idempotency-Key: TEXT`; the same
//! key gets the same answer for a day.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /status` | → [`Status`] |
//! | `GET /machines?state=&name=&limit=&cursor=` | → [`Page`] of [`Machine`] |
//! | `POST /machines` | [`MachineCreate`] → 201 [`Machine`] |
//! | `GET/PATCH/DELETE /machines/{machine}` | [`MachineUpdate`] → [`Machine`]; 204 |
//! | `POST /machines/{machine}/commission` | [`CommissionRequest`] → 202 [`Operation`] |
//! | `POST /machines/allocate` | [`AllocateRequest`] → [`Machine`] |
//! | `POST /machines/{machine}/deploy` | [`DeployRequest`] → 202 [`Operation`] |
//! | `POST /machines/{machine}/release` | [`ReleaseRequest`] → 202 [`Operation`] |
//! | `POST /machines/{machine}/{abort,lock,unlock,mark-broken,mark-fixed}` | [`Comment`] → [`Machine`] |
//! | `POST /machines/{machine}/power` | [`PowerRequest`] → [`PowerAnswer`] |
//! | `GET /machines/{machine}/explain` | → [`Explanation`] |
//! | `GET /operations?machine=&limit=&cursor=`, `GET /operations/{id}` | → [`Page`] of [`Operation`]; [`Operation`] |
//! | `POST /operations/{id}/cancel` | → [`Operation`] |
//! | `GET /events?after=&limit=&wait_seconds=&machine=` | → [`Page`] of [`Event`], oldest first |
//! | `GET /images`, `GET/DELETE /images/{name}` | → [`Page`] of [`Image`]; [`Image`]; 204 |
//! | `POST /images?name=&architecture=&encoding=` | the image's bytes → 202 [`Operation`] |
//! | `GET /boot-environments`, `POST /boot-environments` | the tar's bytes → 201 [`BootEnvironment`] |
//! | `GET /fabrics`, `/vlans`, `/subnets`, `/ranges` | → [`Page`] of their types |
//! | `POST /apply` | [`ApplyRequest`] → [`ApplyAnswer`] |
//! | `GET /racks` | → [`Page`] of [`Rack`] |

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bootstorm_snapshot::{Inventory, Stage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::agent::base64_text::Base64;
use crate::bmc::{Action, PowerState};

/// An error answer of the API; the status says the class, `code` the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable code, lower case with dashes, e.g. `image-not-found`.
    pub code: String,
    /// What happened, with the value, and what to do.
    pub message: String,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Give this as `cursor` (events: as `after`) for the rows that follow; absent on the last page.
    pub next: Option<String>,
}

/// What the whole system is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of control.
    pub version: String,
    /// Generation that control has published.
    pub generation: u64,
    /// Machines by the name of their state.
    pub machines: BTreeMap<String, u64>,
    /// Operations in progress.
    pub operations: u64,
    /// Racks.
    pub racks: Vec<Rack>,
    /// Boot environments by architecture.
    pub boot_environments: Vec<BootEnvironment>,
    /// Images.
    pub images: u64,
    /// What a person should look at or do next, one sentence each (e.g. that there is no boot environment yet).
    pub notices: Vec<String>,
}

/// A rack as control knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rack {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether its link is up.
    pub connected: bool,
    /// Generation it serves.
    pub generation: u64,
    /// Files of that generation it still lacks.
    pub missing_files: u64,
    /// Interfaces it serves, as `NAME ADDRESS/BITS`.
    pub interfaces: Vec<String>,
    /// Version of its software.
    pub version: String,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Six lower-case characters.
    pub id: String,
    /// Host name, one label.
    pub name: String,
    /// Name of the state, as MAAS's `status_name` (`New`, `Ready`, `Deployed`, …).
    pub state: String,
    /// Architecture, if known.
    pub architecture: Option<String>,
    /// Whom it is allocated to.
    pub owner: Option<String>,
    /// Resource pool.
    pub pool: String,
    /// Whether actions are refused until it is unlocked.
    pub locked: bool,
    /// Why it is held (an alarm about it that a person must clear), if it is.
    pub held: Option<String>,
    /// Power driver.
    pub power_driver: String,
    /// Last known power state: `on`, `off` or `unknown`.
    pub power_state: String,
    /// Interfaces.
    pub interfaces: Vec<MachineInterface>,
    /// What the agent found, after enlistment.
    #[schema(value_type = Option<Object>)]
    pub inventory: Option<Inventory>,
    /// Image installed or being installed.
    pub image: Option<String>,
    /// Operation in progress.
    pub operation: Option<String>,
    /// Milliseconds since 1970.
    pub created_unix_ms: i64,
    /// Milliseconds since 1970.
    pub updated_unix_ms: i64,
}

/// A network interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineInterface {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: String,
    /// Addresses assigned or observed.
    pub addresses: Vec<String>,
    /// Whether the machine boots from it.
    pub boot: bool,
}

/// A new machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineCreate {
    /// Host name; made up if absent.
    pub name: Option<String>,
    /// MAC addresses; at least one.
    pub macs: Vec<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Power.
    pub power: Option<Power>,
}

/// Changes of a machine; what is absent stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineUpdate {
    /// Host name.
    pub name: Option<String>,
    /// Resource pool.
    pub pool: Option<String>,
    /// Power.
    pub power: Option<Power>,
    /// `false` clears the hold that an alarm put on it.
    pub held: Option<bool>,
}

/// How a machine's power is controlled.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// `manual` or `webhook`.
    pub driver: String,
    /// The driver's parameters; sealed on arrival, never shown again. `webhook`: `power_on_uri`, `power_off_uri`,
    /// `power_query_uri`, and optionally `power_on_regex`, `power_off_regex`, `power_user`, `power_pass`,
    /// `power_token`, `power_verify_ssl`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

impl std::fmt::Debug for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Power({}, ***)", self.driver)
    }
}

/// Commissioning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommissionRequest {
    /// A remark for the event log.
    pub comment: Option<String>,
}

/// Allocation of one ready machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocateRequest {
    /// This machine (id or name).
    pub machine: Option<String>,
    /// Architecture it must have.
    pub architecture: Option<String>,
    /// Least number of logical processors.
    pub cpu_count: Option<u32>,
    /// Least memory in MiB.
    pub memory_mib: Option<u64>,
    /// Resource pool it must be in.
    pub pool: Option<String>,
    /// A remark for the event log.
    pub comment: Option<String>,
}

/// Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Image by name, or by id (`blake3:` and 64 digits).
    pub image: String,
    /// cloud-init user-data, base64, at most 64 KiB.
    #[schema(value_type = Option<String>)]
    pub user_data: Option<Base64>,
    /// SSH keys for the image's default user.
    #[serde(default)]
    pub ssh_authorized_keys: Vec<String>,
    /// Serial number or kernel name of the disk; the smallest that fits by default.
    pub disk: Option<String>,
    /// `auto` (kexec, else reboot), `kexec` or `reboot`.
    pub start: Option<String>,
    /// Seconds from *written* until the system must be ready.
    pub ready_seconds_max: Option<u32>,
    /// A remark for the event log.
    pub comment: Option<String>,
}

/// Release.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// `none` or `quick`.
    pub erase: Option<String>,
    /// A remark for the event log.
    pub comment: Option<String>,
}

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Comment {
    /// A remark for the event log.
    pub comment: Option<String>,
}

/// A power command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// `on`, `off`, `cycle` or `query`.
    #[schema(value_type = String)]
    pub action: Action,
}

/// The outcome of a power command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerAnswer {
    /// `on`, `off` or `unknown`.
    #[schema(value_type = String)]
    pub state: PowerState,
}

/// An operation: what somebody asked of control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// UUIDv7.
    pub id: String,
    /// `commission`, `deploy`, `release`, `image-import`, …
    pub kind: String,
    /// The machine it is about, by id.
    pub machine: Option<String>,
    /// The machine's name at the time.
    pub machine_name: Option<String>,
    /// `running`, `done`, `failed` or `cancelled`.
    pub status: String,
    /// The stage reached, e.g. `queued`, `published`, `power`, `write`, `ready`.
    pub stage: String,
    /// Bytes done and in all, where the stage has them.
    pub bytes: Option<u64>,
    /// Bytes in all.
    pub bytes_total: Option<u64>,
    /// Milliseconds since 1970 by which the stage must be over.
    pub deadline_unix_ms: Option<i64>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Warnings that did not fail it (e.g. of cloud-init).
    pub warnings: Vec<String>,
    /// Name of what it made (e.g. the image), if anything.
    pub result: Option<String>,
    /// Milliseconds since 1970.
    pub created_unix_ms: i64,
    /// Milliseconds since 1970.
    pub ended_unix_ms: Option<i64>,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Stage in which it failed.
    pub stage: String,
    /// Stable code.
    pub code: String,
    /// The last evidence.
    pub evidence: String,
    /// What to try.
    pub suggestion: String,
}

/// What happened to a machine, in the order that a person wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The machine.
    pub machine: Machine,
    /// One sentence: what it is doing or why it does not.
    pub summary: String,
    /// Its last operation.
    pub operation: Option<Operation>,
    /// Boot trace of that operation.
    pub trace: Vec<Span>,
    /// Last events about it, newest first.
    pub events: Vec<Event>,
}

/// A step of a boot trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// The attempt, if the step belongs to one.
    pub attempt: Option<String>,
    /// The stage.
    #[schema(value_type = String)]
    pub stage: Stage,
    /// Microseconds since 1970 at which it was reached.
    pub reached_unix_us: i64,
    /// Milliseconds since the operation began.
    pub since_start_ms: i64,
    /// A short text.
    pub detail: String,
}

/// An entry of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Rising number.
    pub id: i64,
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// Stable code, e.g. `machine-enlisted`.
    pub code: String,
    /// The machine it is about, by id.
    pub machine: Option<String>,
    /// The operation it is about.
    pub operation: Option<String>,
    /// A sentence.
    pub message: String,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// `blake3:` and 64 digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Length of the raw image in bytes.
    pub raw_bytes: u64,
    /// Length of the stored stream in bytes.
    pub stored_bytes: u64,
    /// Digest of its manifest.
    pub manifest: String,
    /// Milliseconds since 1970.
    pub created_unix_ms: i64,
}

/// A boot environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootEnvironment {
    /// Architecture.
    pub architecture: String,
    /// Version.
    pub version: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Length of the initial RAM disk in bytes.
    pub initrd_bytes: u64,
    /// Names of its boot loaders.
    pub loaders: Vec<String>,
}

/// A fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fabric {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// A VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vlan {
    /// Its id.
    pub id: i64,
    /// Its fabric's name.
    pub fabric: String,
    /// 802.1Q number, 0 untagged.
    pub vid: u16,
    /// Its name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether racks answer DHCP on it.
    pub dhcp: bool,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subnet {
    /// Its id.
    pub id: i64,
    /// Its VLAN's id.
    pub vlan: i64,
    /// The network.
    pub cidr: String,
    /// Router.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    #[schema(value_type = Vec<String>)]
    pub dns_servers: Vec<Ipv4Addr>,
    /// Addresses in use.
    pub used: u64,
    /// Addresses that could be handed out in all.
    pub capacity: u64,
}

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// Its id.
    pub id: i64,
    /// Its subnet's network.
    pub subnet: String,
    /// `dynamic` or `reserved`.
    pub kind: String,
    /// First address.
    #[schema(value_type = String)]
    pub first: Ipv4Addr,
    /// Last address.
    #[schema(value_type = String)]
    pub last: Ipv4Addr,
}

/// Documents to apply: declarative and idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The documents, in any order; all or none take effect.
    pub documents: Vec<Document>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// One document of `apply -f`.
///
/// ```yaml
/// kind: subnet
/// cidr: 10.0.0.0/24
/// fabric: fabric-0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Document {
    /// A fabric.
    Fabric {
        /// Its name.
        name: String,
    },
    /// A VLAN; its fabric must exist or be in the same request.
    Vlan {
        /// Its fabric's name.
        fabric: String,
        /// 802.1Q number, 0 untagged.
        vid: u16,
        /// Its name.
        name: Option<String>,
        /// MTU in bytes, 1500 by default.
        mtu: Option<u16>,
        /// Whether racks answer DHCP on it; true by default.
        dhcp: Option<bool>,
    },
    /// A subnet.
    Subnet {
        /// The network.
        cidr: String,
        /// Its fabric's name.
        fabric: String,
        /// 802.1Q number of its VLAN, 0 by default.
        #[serde(default)]
        vid: u16,
        /// Router.
        #[schema(value_type = Option<String>)]
        gateway: Option<Ipv4Addr>,
        /// Name servers.
        #[serde(default)]
        #[schema(value_type = Vec<String>)]
        dns_servers: Vec<Ipv4Addr>,
        /// Time servers.
        #[serde(default)]
        #[schema(value_type = Vec<String>)]
        ntp_servers: Vec<Ipv4Addr>,
        /// Domain.
        domain: Option<String>,
    },
    /// A range of addresses.
    Range {
        /// Its subnet's network.
        subnet: String,
        /// `dynamic` or `reserved`.
        #[serde(rename = "type")]
        range_type: String,
        /// First address.
        #[schema(value_type = String)]
        first: Ipv4Addr,
        /// Last address.
        #[schema(value_type = String)]
        last: Ipv4Addr,
    },
    /// A machine: found by its name or any of its MAC addresses, else made.
    Machine {
        /// Host name.
        name: Option<String>,
        /// MAC addresses; at least one.
        macs: Vec<String>,
        /// Architecture.
        architecture: Option<String>,
        /// Power.
        power: Option<Power>,
        /// Fixed address of the boot interface; one is chosen when it is first needed otherwise.
        #[schema(value_type = Option<String>)]
        address: Option<Ipv4Addr>,
    },
}

/// What was, or would be, changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyAnswer {
    /// One line a document, in order: `created`, `changed` or `unchanged`, and what.
    pub changes: Vec<Change>,
}

/// The outcome of one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `created`, `changed` or `unchanged`.
    pub outcome: String,
    /// Kind and name, e.g. `subnet 10.0.0.0/24`.
    pub what: String,
    /// The fields that changed, as `FIELD: OLD → NEW`; secrets are not shown.
    pub fields: Vec<String>,
}

/// Query of machine lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachineQuery {
    /// Name of a state, e.g. `Ready`.
    pub state: Option<String>,
    /// Host name, or a pattern with `*`.
    pub name: Option<String>,
    /// Rows of a page, at most 1000; 100 by default.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Query of operation lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OperationQuery {
    /// Only of this machine (id or name).
    pub machine: Option<String>,
    /// Rows of a page.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Query of the event log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events with a larger number.
    pub after: Option<i64>,
    /// Rows of a page.
    pub limit: Option<u32>,
    /// Seconds to wait for the first event if there is none yet, at most 30.
    pub wait_seconds: Option<u64>,
    /// Only of this machine (id or name).
    pub machine: Option<String>,
}

/// Query of an image upload; the body is the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImageQuery {
    /// Name of the image: letters, digits, `.`, `_`, `-`, at most 63 characters.
    pub name: String,
    /// Architecture, `amd64` by default.
    pub architecture: Option<String>,
}
