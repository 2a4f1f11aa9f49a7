//! Which accelerator really boots a kernel here. The presence of `/dev/kvm` does not tell: there are hosts whose device
//! runs firmware and then hangs in the kernel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::process::{self, Process};
use super::{Error, limits, wait};

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator, one thread per virtual processor.
    Tcg,
}

impl Accelerator {
    /// QEMU's arguments for it.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// Boots `kernel` under KVM with a short deadline, once; the verdict is kept in `cache` for later runs.
    ///
    /// # Errors
    /// When QEMU cannot be started at all or the verdict cannot be written.
    pub fn probe(kernel: &Path, cache: &Path) -> Result<Self, Error> {
        match fs::read_to_string(cache).as_deref().map(str::trim) {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            _ => {}
        }
        let verdict = if boots_under_kvm(kernel)? { Self::Kvm } else { Self::Tcg };
        let word = if verdict == Self::Kvm { "kvm\n" } else { "tcg\n" };
        fs::write(cache, word).map_err(|source| Error::File { path: cache.to_owned(), source })?;
        Ok(verdict)
    }
}

/// A kernel without a root file system ends in a panic that names it: then it has booted.
fn boots_under_kvm(kernel: &Path) -> Result<bool, Error> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let directory = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let console = directory.path().join("console");
    let mut qemu = process::command("qemu-system-x86_64");
    qemu.args(Accelerator::Kvm.arguments());
    qemu.args(["-machine", "q35", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot", "-serial"]);
    qemu.arg(format!("file:{}", console.display())).arg("-kernel").arg(kernel);
    qemu.args(["-append", "console=ttyS0 panic=-1"]);
    let mut qemu = Process::start(qemu, &directory.path().join("log"))?;
    let booted = || fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("Kernel panic"));
    let waited = wait::until("a kernel under KVM", limits::ACCELERATOR_PROBE, || {
        if booted() {
            return Ok(Some(true));
        }
        Ok(qemu.ended().map(|_| booted()))
    });
    qemu.kill();
    match waited {
        Ok(verdict) => Ok(verdict),
        Err(Error::Timeout { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How much longer than under KVM things take, for deadlines.
impl Accelerator {
    /// A deadline stretched for the accelerator: translated guests take several times as long on a busy host.
    pub fn stretch(self, deadline: Duration) -> Duration {
        match self {
            Self::Kvm => deadline,
            Self::Tcg => deadline * 4,
        }
    }
}
