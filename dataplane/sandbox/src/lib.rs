//! What a role gives up before it reads its first octet from a peer (threat model, T20).
//!
//! [`Sandbox::enter`] confines the *calling thread* and all that it starts from then on, for good: so a role calls it before
//! its first thread. In this order:
//!
//! 1. `RLIMIT_MEMLOCK` and the number of open files are raised as far as this process may, since afterwards it may not;
//! 2. every capability is dropped, out of the bounding set too;
//! 3. `no_new_privs` is set;
//! 4. Landlock leaves the files named, TCP only where it is said, and no way to signal or reach processes outside;
//! 5. a seccomp filter leaves the calls named ([`Calls`]).
//!
//! Steps 2 and 3 exist on every kernel that we run on. Landlock may be missing or old, seccomp may be compiled out: then the rest
//! still holds, and [`Entered`] says what does not, in words for the log and as values for metrics. Descriptors that are open
//! stay usable, whatever they are: that is how a role has sockets it could not open.
//!
//! Deliberately absent: namespaces and uids. Both need the one who starts the role.

mod calls;
mod error;
mod files;
mod privileges;

pub use calls::Calls;
pub use error::Error;

use std::fmt;
use std::path::Path;

/// What a role keeps.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox<'a> {
    /// Files, and directories with all below them, that may be read. What does not exist is skipped.
    pub read: &'a [&'a Path],
    /// Directories below which anything may be read, written, made, renamed and removed. They must exist.
    pub write: &'a [&'a Path],
    /// Files, and directories with all below them, that may be executed and read. What does not exist is skipped.
    pub execute: &'a [&'a Path],
    /// Whether TCP connections may be made and TCP ports taken. Sockets that are open stay as they are.
    pub tcp: Tcp,
    /// Which system calls are left.
    pub calls: Calls,
}

/// Whether a role may connect and bind by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    /// Neither.
    Refused,
    /// Both.
    Allowed,
}

/// How much of a sandbox there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Files and TCP.
    pub landlock: Enforced,
    /// System calls.
    pub seccomp: Enforced,
}

/// How much of one part is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All that was asked for.
    Fully,
    /// What this kernel knows of it; Landlock controls TCP from Linux 6.7 on and signals from 6.12 on.
    Partly,
    /// Nothing: this kernel does not have it, or it is not enabled.
    Missing,
}

impl Sandbox<'_> {
    /// Confines the calling thread and all that it starts.
    ///
    /// # Errors
    /// [`Error::Path`] for a directory to write that cannot be opened, [`Error::System`] when the kernel refuses what every
    /// supported kernel does. The thread may be confined in part then: end the role.
    pub fn enter(&self) -> Result<Entered, Error> {
        privileges::raise_locked_memory();
        privileges::raise_open_files();
        privileges::drop_all()?;
        let landlock = files::enter(self)?;
        let seccomp = calls::enter(self.calls)?;
        let entered = Entered { landlock, seccomp };
        if let Some(lacking) = entered.lacking() {
            tracing::warn!("{lacking}");
        }
        Ok(entered)
    }
}

impl Entered {
    /// What is not in force and how to get it, in one line; `None` if all is.
    pub fn lacking(&self) -> Option<String> {
        let landlock = match self.landlock {
            Enforced::Fully => None,
            Enforced::Partly => Some("Landlock of this kernel is older than 6.12 and confines in part"),
            Enforced::Missing => {
                Some("this kernel has no Landlock (5.13 or later with `landlock` in its `lsm=` list has it)")
            }
        };
        let seccomp = match self.seccomp {
            Enforced::Fully | Enforced::Partly => None,
            Enforced::Missing => Some("this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER has them)"),
        };
        let lacking: Vec<&str> = [landlock, seccomp].into_iter().flatten().collect();
        (!lacking.is_empty()).then(|| format!("the sandbox is not whole: {}; the rest is in force", lacking.join("; ")))
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Enforced::Fully => "full",
            Enforced::Partly => "part",
            Enforced::Missing => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_said_with_what_would_help() {
        let entered = |landlock, seccomp| Entered { landlock, seccomp };
        assert_eq!(entered(Enforced::Fully, Enforced::Fully).lacking(), None);
        let told = entered(Enforced::Missing, Enforced::Missing).lacking().unwrap();
        assert!(told.contains("lsm=") && told.contains("CONFIG_SECCOMP_FILTER"), "{told}");
        assert!(entered(Enforced::Partly, Enforced::Fully).lacking().unwrap().contains("6.12"));
    }
}
