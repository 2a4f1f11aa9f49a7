//! What the laboratory runs and installs: built binaries, the Debian image, the boot environment.
//!
//! All of it is made by `tests/lab/prepare.sh` before the tests run; here it is only found. Variables override each
//! place: `BOOTSTORM_BIN_DIR`, `BOOTSTORM_LAB_DIR`.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::accelerator::Accelerator;
use super::limits;

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The `bootstorm` binary.
    pub bootstorm: PathBuf,
    /// The `loadgen` binary; there only where it was built.
    pub loadgen: PathBuf,
    /// The installable Debian disk image, raw.
    pub image: PathBuf,
    /// The boot environment, as `bootstorm bootenv build` made it.
    pub bootenv: PathBuf,
    /// The directory that all of the laboratory's files are below.
    pub lab: PathBuf,
}

impl Assets {
    /// Names the places without looking, for what needs machines only.
    ///
    /// # Errors
    /// When this program does not find itself.
    pub fn places() -> Result<Self, Error> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let lab = std::env::var_os("BOOTSTORM_LAB_DIR").map_or_else(|| root.join(".lab"), PathBuf::from);
        let binaries = match std::env::var_os("BOOTSTORM_BIN_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => built_beside()?,
        };
        Ok(Self {
            bootstorm: binaries.join("bootstorm"),
            loadgen: binaries.join("loadgen"),
            image: lab.join("debian-12.raw"),
            bootenv: lab.join("bootenv-amd64.tar"),
            lab,
        })
    }

    /// Finds what `tests/lab/prepare.sh` made; binaries of the profile that this program was built with.
    ///
    /// # Errors
    /// [`Error::Environment`] naming what is missing and what makes it.
    pub fn find() -> Result<Self, Error> {
        let assets = Self::places()?;
        for needed in [&assets.bootstorm, &assets.image, &assets.bootenv] {
            if !needed.exists() {
                return Err(Error::Environment(format!(
                    "{} is missing: run tests/lab/prepare.sh first, or `make test` or `make demo`, which do",
                    needed.display()
                )));
            }
        }
        Ok(assets)
    }

    /// The accelerator to use here. Probed once per checkout.
    ///
    /// # Errors
    /// When QEMU is missing.
    pub fn accelerator(&self) -> Result<Accelerator, Error> {
        Accelerator::probe(&self.lab.join("bootenv-cloud/vmlinuz"), &self.lab.join("accelerator"))
    }

    /// Makes a directory for one run, and removes those of dead runs, all but the newest few of those that failed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn run_directory(&self, name: &str) -> Result<RunDirectory, Error> {
        let runs = self.lab.join("run");
        sweep(&runs);
        let path = runs.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(RunDirectory { path, good: false })
    }
}

/// The directory of the running program's binaries: test programs are one level below, in `deps`.
fn built_beside() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|source| Error::File { path: "/proc/self/exe".into(), source })?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_owned())
}

/// Directories are called NAME-PID. What a killed run left goes, except the logs of the newest few.
fn sweep(runs: &Path) {
    let dead = |path: &Path| {
        let id = path.file_name()?.to_str()?.rsplit_once('-')?.1.parse::<u32>().ok()?;
        (!Path::new("/proc").join(id.to_string()).exists()).then_some(())
    };
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut old: Vec<_> = entries.filter(|path| dead(path).is_some()).collect();
    old.sort_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    let remove = old.len().saturating_sub(limits::KEPT_RUNS);
    for path in old.drain(..remove) {
        let _perhaps_next_time = fs::remove_dir_all(path);
    }
    for path in old {
        for guest in fs::read_dir(path).into_iter().flatten().flatten() {
            let _none_there = fs::remove_file(guest.path().join("disk.raw"));
        }
    }
}

/// A directory for one run. Dropping it keeps the logs, for a run that failed; [`RunDirectory::remove`] ends a good one.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    good: bool,
}

impl RunDirectory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with everything in it, when whatever uses it is gone.
    pub fn remove(mut self) {
        self.good = true;
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if self.good {
            let _left_for_the_sweep = fs::remove_dir_all(&self.path);
        } else {
            eprintln!("the logs of this run are in {}", self.path.display());
        }
    }
}
