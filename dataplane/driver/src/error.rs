//! What can go wrong, by who can fix it.

use std::io;

/// A failure of the driver as a whole (not of one operation: those come as [`Event::Failed`](crate::Event::Failed)).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operator: a value of [`Config`](crate::Config) is outside its range.
    #[error("driver setting `{name}` is {value}: {allowed}")]
    Config {
        /// The field's name.
        name: &'static str,
        /// The value given.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Environment: this kernel or container gives us no ring.
    #[error("io_uring is not available on kernel {kernel}: {reason}")]
    Unavailable {
        /// `uname -r`.
        kernel: String,
        /// What was found, and which setting to look at.
        reason: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Environment: the ring exists, yet lacks operations that we cannot do without.
    #[error("kernel {kernel} lacks io_uring operations: {missing}; Linux 6.1 or later has them all")]
    MissingOperations {
        /// `uname -r`.
        kernel: String,
        /// Their names, separated by commas.
        missing: String,
    },
    /// Environment: memory for the ring may not be locked.
    #[error(
        "not enough lockable memory for {what} (RLIMIT_MEMLOCK is {limit_bytes} bytes): raise it with `ulimit -l` or \
         `LimitMEMLOCK=infinity` in the unit, or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// What was to be locked.
        what: &'static str,
        /// The limit in force; `u64::MAX` if there is none.
        limit_bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Operator: as many sockets, connections or files are registered as the configuration allows.
    #[error("the table of {what} is full ({limit}): close some, or raise the limit")]
    TableFull {
        /// Which table.
        what: &'static str,
        /// Its configured size.
        limit: u32,
    },
    /// Us: an id that was never given out, or whose object has been closed.
    #[error("no such {what}: it was closed, or belongs to another driver")]
    UnknownId {
        /// Which kind of id.
        what: &'static str,
    },
    /// Environment: a system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether trying again later can help without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::TableFull { .. } => true,
            Error::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
            }
            Error::Config { .. }
            | Error::Unavailable { .. }
            | Error::MissingOperations { .. }
            | Error::LockedMemory { .. }
            | Error::UnknownId { .. } => false,
        }
    }

    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}
