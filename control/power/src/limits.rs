//! Every bound of the power drivers, with unit and reason.

use std::time::Duration;

/// Bytes of one reply of a webhook or BMC (`threat-model.md`, IPMI and Redfish replies).
pub const REPLY_BYTES_MAX: usize = 1 << 20;
/// Time of one request, from the look-up of the name to the last byte (`threat-model.md`, same row).
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// Redirects that are followed.
pub const REDIRECTS_MAX: usize = 3;
/// First pause between tries of a command or of a query; doubles each time.
pub const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause between tries.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Bytes of a compiled regular expression of an operator.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Bytes of one parameter.
pub const PARAMETER_BYTES_MAX: usize = 4096;
/// Bytes of a peer's text in an error.
pub const EVIDENCE_BYTES_MAX: usize = 200;

const _: () = assert!(PAUSE_MIN.as_millis() < PAUSE_MAX.as_millis());
const _: () = assert!(PAUSE_MAX.as_millis() < REQUEST_TIME_MAX.as_millis());
