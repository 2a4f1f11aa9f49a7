//! PID 1 of the boot environment: it never returns, and whatever happens ends in a reboot, a power-off or a new kernel.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bootstorm_api::agent::{CA_FILE, Report};
use bootstorm_snapshot::Stage;
use bootstorm_snapshot::limits::TEXT_BYTES_MAX;
use bootstorm_snapshot::observation::Failure;
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

use crate::command_line;
use crate::disk::fetch::Source;
use crate::modules::Loader;
use crate::session::{Current, Identity, Session, anonymous_client, report_last_words};
use crate::system::efi;
use crate::work::{Context, cut, run_heartbeat, run_plans};
use crate::{lease, limits, network, sys};

/// How the agent's time on the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The power goes off.
    PowerOff,
    /// The firmware starts anew, by the boot entry if one is given.
    Restart {
        /// Number of the firmware's entry for the installed system.
        entry: Option<u16>,
    },
    /// The kernel that was loaded starts; where it cannot, as `Restart`.
    Kexec {
        /// Number of the firmware's entry for the installed system.
        entry: Option<u16>,
    },
}

/// Runs the boot environment.
pub fn run() -> ! {
    mount_all();
    crate::log::open_kernel_log();
    let current = Current::default();
    die_well(current.clone());
    sys::ignore_children();
    let ending = match start(current) {
        Ok(ending) => ending,
        Err(why) => {
            crate::log!("cannot go on: {why}");
            std::thread::sleep(limits::RESTART_PAUSE);
            Ending::Restart { entry: None }
        }
    };
    finish(ending)
}

/// Everything between the mounts and the end; an error is one that only a new boot can mend.
fn start(current: Current) -> Result<Ending, String> {
    let text = crate::files::read_text(Path::new("/proc/cmdline"), limits::COMMAND_LINE_BYTES_MAX as u64);
    let command_line = command_line::parse(&text.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    crate::log!("agent {} with {command_line:?}", env!("CARGO_PKG_VERSION"));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut loader = Loader::open(&release);
    let loaded = loader.load_always() + loader.coldplug();
    // The firmware's variables need their driver, which may just have been loaded; a BIOS has none.
    let _ = rustix::mount::mount("efivarfs", efi::DIRECTORY, "efivarfs", MountFlags::empty(), None);
    let interface = network::start(&command_line, &mut loader).map_err(|e| e.to_string())?;
    crate::log!("{loaded} modules, {interface} up after {:.2} s", uptime());
    let ca_pem = std::fs::read(CA_FILE).map_err(|e| format!("{CA_FILE}: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async move {
        let client = anonymous_client(&ca_pem).map_err(|e| e.to_string())?;
        let source = Source { client, http: command_line.http };
        tokio::spawn(lease::run_renewal(command_line.clone()));
        let identity = Identity::new(command_line.rack, &ca_pem).map_err(|e| e.to_string())?;
        let session = Session::redeem(identity, &command_line.claim).await.map_err(|e| e.to_string())?;
        crate::log!("claim redeemed after {:.2} s", uptime());
        current.set(&Arc::new(session.again().map_err(|e| e.to_string())?));
        let heartbeat = tokio::spawn(run_heartbeat(current.clone()));
        let context = Context { command_line, ca_pem, loader: Arc::new(Mutex::new(loader)), source, current };
        tokio::select! {
            ending = run_plans(&context, session) => Ok(ending),
            _ = heartbeat => Err("the rack no longer takes this agent for the machine's".to_string()),
        }
    })
}

fn mount_all() {
    let plain = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, at, flags) in [
        ("proc", "/proc", plain),
        ("sysfs", "/sys", plain),
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("tmpfs", "/run", MountFlags::NODEV | MountFlags::NOSUID),
        ("tmpfs", "/tmp", MountFlags::NODEV | MountFlags::NOSUID),
    ] {
        // The directory may be there, and the file system mounted by the kernel; a real lack shows at the first use.
        let _ = std::fs::create_dir(at);
        let _ = rustix::mount::mount(kind, at, kind, flags, None);
    }
}

/// On a panic: says why on the console and, if it can, to the rack, and starts the machine anew.
fn die_well(current: Current) {
    std::panic::set_hook(Box::new(move |panic| {
        let evidence = cut(panic.to_string(), TEXT_BYTES_MAX);
        crate::log!("{evidence}");
        if let Some(session) = current.try_get() {
            let failure = Failure { stage: Stage::Agent, code: "agent-panic".to_string(), evidence };
            report_last_words(&session, Report::Failed { failure });
        }
        std::thread::sleep(limits::RESTART_PAUSE);
        finish(Ending::Restart { entry: None });
    }));
}

/// Ends the agent's time on the machine.
fn finish(ending: Ending) -> ! {
    rustix::fs::sync();
    loop {
        crate::log!("{ending:?} after {:.2} s", uptime());
        let refused = match ending {
            Ending::PowerOff => rustix::system::reboot(RebootCommand::PowerOff),
            Ending::Restart { entry } => restart(entry),
            Ending::Kexec { entry } => rustix::system::reboot(RebootCommand::Kexec).or_else(|error| {
                crate::log!("kexec: {error}");
                restart(entry)
            }),
        };
        if let Err(error) = refused {
            crate::log!("{ending:?}: {error}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn restart(entry: Option<u16>) -> rustix::io::Result<()> {
    if let Some(Err(error)) = entry.map(|number| efi::boot_next(Path::new(efi::DIRECTORY), number)) {
        crate::log!("BootNext: {error}");
    }
    rustix::system::reboot(RebootCommand::Restart)
}

/// Seconds since the kernel started.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}
