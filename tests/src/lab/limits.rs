//! Every number of the laboratory.

use std::time::Duration;

/// Memory of a guest, MiB: Debian with cloud-init needs about half, the image writer's buffers the rest.
pub const GUEST_MEMORY_MIB: u32 = 1024;
/// Processors of a guest. Two shorten the first boot, which is mostly four starts of an interpreter.
pub const GUEST_CPUS: u32 = 2;
/// Disk of a guest, octets. Sparse; larger ones may really be allocated when they are zeroed through QEMU.
pub const GUEST_DISK_BYTES: u64 = 4 << 30;
/// How often an outside condition is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What a process gets between the request to end and its end by force.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// A kernel that has said nothing by then does not boot under the accelerator.
pub const ACCELERATOR_PROBE: Duration = Duration::from_secs(20);
/// One request to the power server, from connection to answer.
pub const POWER_REQUEST: Duration = Duration::from_secs(5);
/// Head of a request to the power server, octets.
pub const POWER_REQUEST_BYTES: usize = 8 << 10;
/// One ssh login attempt with its command. A translated machine that is still starting takes seconds for the handshake
/// alone; one that is not there yet refuses or is given up by ssh's own ConnectTimeout.
pub const SSH_ATTEMPT: Duration = Duration::from_secs(60);
/// Console lines shown when something failed.
pub const EVIDENCE_LINES: usize = 40;
/// The directory of a finished run that failed is kept for this many later runs of the same machine.
pub const KEPT_RUNS: usize = 4;

const _: () = assert!(POLL_INTERVAL.as_millis() < POWER_REQUEST.as_millis());
const _: () = assert!(GUEST_DISK_BYTES <= 4 << 30);
