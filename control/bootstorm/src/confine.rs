//! What each role keeps when it has its descriptors (threat model, T20). The rack's part is `bootstorm_rackd::confine`.

use std::path::Path;

use bootstorm_api::origin::Origin;
use bootstorm_api::role::{BmcConfig, ControlConfig, GatewayConfig};
use bootstorm_sandbox::{Calls, Sandbox, Tcp};

/// What the C library reads to look up names, what TLS trusts, and what a runtime sizes itself by.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/share",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/urandom",
];

/// What starting this program again takes: itself, and the loader of its libraries.
const EXECUTED: &[&str] = &["/proc/self/exe", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Its key and certificate; agents, control and origins by TCP, or by a directory.
pub fn gateway(config: &GatewayConfig) -> Result<(), String> {
    make(&config.data)?;
    enter("gateway", &directories(&config.origins), &[&config.data], &[], Calls::Ordinary)
}

/// Origins by TCP, or by a directory.
pub fn fetcher(origins: &[Origin]) -> Result<(), String> {
    enter("fetcher", &directories(origins), &[], &[], Calls::Ordinary)
}

fn directories<'a>(origins: &'a [Origin]) -> Vec<&'a Path> {
    let directory = |origin: &'a Origin| match origin {
        Origin::Directory { path } => Some(path.as_path()),
        Origin::Http { .. } | Origin::S3 { .. } => None,
    };
    origins.iter().filter_map(directory).collect()
}

/// Its data directory, and importers.
pub fn control(config: &ControlConfig) -> Result<(), String> {
    make(&config.data)?;
    enter("control", &[], &[&config.data], EXECUTED, Calls::Ordinary)
}

/// The key of BMC credentials, to be read, and BMCs by TCP.
pub fn bmc(config: &BmcConfig) -> Result<(), String> {
    enter("bmc", &[&config.key_file], &[], &[], Calls::Ordinary)
}

/// The two descriptors it was started with.
pub fn importer() -> Result<(), String> {
    let sandbox = Sandbox { read: &[], write: &[], execute: &[], tcp: Tcp::Refused, calls: Calls::Filter };
    sandbox.enter().map(drop).map_err(|error| error.to_string())
}

fn make(directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| format!("cannot make `{}`: {error}", directory.display()))
}

fn enter(role: &str, read: &[&Path], write: &[&Path], execute: &[&str], calls: Calls) -> Result<(), String> {
    let read: Vec<&Path> = read.iter().copied().chain(SYSTEM.iter().map(Path::new)).collect();
    let execute: Vec<&Path> = execute.iter().map(Path::new).collect();
    let sandbox = Sandbox { read: &read, write, execute: &execute, tcp: Tcp::Allowed, calls };
    let entered = sandbox.enter().map_err(|error| error.to_string())?;
    tracing::info!(role, landlock = %entered.landlock, seccomp = %entered.seccomp, "the role is confined");
    Ok(())
}
