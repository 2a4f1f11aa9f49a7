//! CPU time by control group, version 1 or 2: all threads of all processes in it, and those that have ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bootstorm_tests::lab::{Error, wait};

use crate::limits;

/// Where CPU accounting may be: version 2 alone, version 2 beside 1, version 1. First one that takes a group is used.
const HIERARCHIES: [(&str, Clock); 3] = [
    ("/sys/fs/cgroup/cpuacct", Clock::Nanoseconds),
    ("/sys/fs/cgroup", Clock::Stat),
    ("/sys/fs/cgroup/unified", Clock::Stat),
];

/// How a hierarchy tells the time used.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// `cpuacct.usage`.
    Nanoseconds,
    /// `cpu.stat`, `usage_usec`.
    Stat,
}

/// A group of processes. Dropping it removes it; its processes must have ended.
#[derive(Debug)]
pub struct Group {
    directory: PathBuf,
    clock: Clock,
}

impl Group {
    /// Makes an empty group; names need not differ.
    ///
    /// # Errors
    /// [`Error::Environment`] where no hierarchy takes one.
    pub fn new(name: &str) -> Result<Self, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = HIERARCHIES.iter().find_map(|(root, clock)| {
            let directory = Path::new(root).join(format!("bootstorm-bench-{}-{number}-{name}", std::process::id()));
            fs::create_dir(&directory).ok()?;
            let group = Self { directory, clock: *clock };
            group.cpu_seconds().ok().map(|_| group)
        });
        made.ok_or_else(|| {
            Error::Environment(
                "CPU time is taken from control groups, and none can be made here: run as root".to_owned(),
            )
        })
    }

    /// The file that a process writes its id to when it joins.
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// The processes in it at this moment.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn members(&self) -> Result<Vec<u32>, Error> {
        let path = self.processes();
        let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// CPU seconds that the group has used so far.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        let (name, per_second) = match self.clock {
            Clock::Nanoseconds => ("cpuacct.usage", 1e9),
            Clock::Stat => ("cpu.stat", 1e6),
        };
        let path = self.directory.join(name);
        let text = fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let figure = usage(&text).ok_or_else(|| Error::Answer {
            command: path.display().to_string(),
            missing: "the time used".to_owned(),
            answer: text.clone(),
        })?;
        Ok(figure / per_second)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes that were just ended leave their group a moment later.
        let gone = wait::until("an empty group", limits::GROUP_EMPTY, || Ok(fs::remove_dir(&self.directory).ok()));
        if let Err(error) = gone {
            eprintln!("bench: {} is left: {error}", self.directory.display());
        }
    }
}

/// The figure alone in a file, or behind `usage_usec`.
fn usage(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    line.unwrap_or(text).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::usage;

    #[test]
    fn both_kinds_of_file_are_read() {
        assert_eq!(usage("123456\n"), Some(123_456.0));
        assert_eq!(usage("usage_usec 77\nuser_usec 50\nsystem_usec 27\n"), Some(77.0));
        assert_eq!(usage("nr_periods 0\n"), None);
    }
}
