//! Everything that crosses a boundary of the system besides the snapshot: messages between roles, between racks and
//! control, between agents and racks, and the REST types of people and programs. No server, no client, no I/O.
//!
//! | module | between |
//! |---|---|
//! | [`frame`] | the framing of all stream links |
//! | [`role`] | supervisor → roles |
//! | [`local`] | gateway ⇄ rack of one host |
//! | [`link`] | gateway ⇄ control |
//! | [`bmc`] | control ⇄ bmc |
//! | [`agent`] | agent ⇄ gateway (HTTP over TLS) and agent ⇄ rack (plain HTTP paths) |
//! | [`origin`] | where a gateway fetches content besides control |
//! | [`native`] | people and programs ⇄ control (`/api/v1`) |

pub mod agent;
pub mod bmc;
pub mod frame;
pub mod limits;
pub mod link;
pub mod local;
pub mod native;
pub mod origin;
pub mod role;
