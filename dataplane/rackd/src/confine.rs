//! What the rack role keeps when it has its sockets: its own directory, the files under `/proc` and `/sys` by which it sizes
//! itself, and the calls of [`Calls::Rack`]. It holds no secret, so whoever takes it over has little to take.

use std::path::Path;

use bootstorm_sandbox::{Calls, Entered, Sandbox, Tcp};

use crate::{Error, ServeOptions, Source};

/// Read at start and for `/metrics`: memory, control group, processors, sockets' counts, why there is no ring.
const SYSTEM: &[&str] = &[
    "/proc/meminfo",
    "/proc/self",
    "/proc/sys/kernel",
    "/proc/sys/net",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/sys/devices/system/cpu",
    "/sys/class/net",
    "/sys/devices",
    "/dev/null",
];

/// That a thread is confined, and how far. [`run`](crate::run) and [`serve`](crate::serve) want it from their caller, since a thread
/// that was started before would not be.
#[derive(Clone, Copy, Debug)]
pub struct Confined(pub(crate) Entered);

/// Confines the calling thread and all that it starts to what the rack role with this data directory needs; makes the
/// directory. Call it when all sockets are open and before any other thread is started.
///
/// # Errors
/// [`Error::File`] and [`Error::Sandbox`]; the process is to end then.
pub fn confine(data: &Path) -> Result<Confined, Error> {
    std::fs::create_dir_all(data).map_err(Error::file("making directory", data))?;
    enter(&[], data)
}

/// The same for [`serve`](crate::serve): its directory may be read, the store's parent written.
///
/// # Errors
/// As [`confine`].
pub fn confine_serve(options: &ServeOptions) -> Result<Confined, Error> {
    let store = options.store.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(store).map_err(Error::file("making directory", store))?;
    match &options.source {
        Source::Directory { path, .. } => enter(&[path], store),
        Source::Origins { .. } => enter(&[], store),
    }
}

fn enter(read: &[&Path], write: &Path) -> Result<Confined, Error> {
    let read: Vec<&Path> = read.iter().copied().chain(SYSTEM.iter().map(Path::new)).collect();
    let sandbox = Sandbox { read: &read, write: &[write], execute: &[], tcp: Tcp::Refused, calls: Calls::Rack };
    let entered = sandbox.enter()?;
    tracing::info!(landlock = %entered.landlock, seccomp = %entered.seccomp, "the role is confined");
    Ok(Confined(entered))
}
