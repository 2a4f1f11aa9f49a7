//! What ends the rack role, by who can mend it. What only concerns one peer is counted, not returned.

use std::io;

/// An error of the role.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Environment: the kernel gives no completion interface, or a socket could not be registered.
    #[error(transparent)]
    Driver(#[from] bootstorm_driver::Error),
    /// Environment: the role cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] bootstorm_sandbox::Error),
    /// Environment: the content store cannot be opened or written.
    #[error(transparent)]
    Content(#[from] bootstorm_content::Error),
    /// Environment or operator: the journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] bootstorm_journal::Error),
    /// Environment: the journal has stopped under way. Start the role again.
    #[error("the journal has stopped: {0}; start the rack again")]
    JournalStopped(String),
    /// Operator: the journal holds records of another version.
    #[error(transparent)]
    Record(#[from] bootstorm_engine::RecordError),
    /// Environment: a file or directory of the rack cannot be used.
    #[error("{what} `{path}`: {source}")]
    File {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Environment: no randomness, no thread, no socket option.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Supervisor: the descriptors passed do not make a rack.
    #[error("descriptors passed to the rack: {0}")]
    Descriptors(&'static str),
    /// Operator: the directory to serve cannot be imported.
    #[error("cannot serve `{name}`: {why}")]
    Import {
        /// The file's name under the directory.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Us: a thread has panicked; its message is in the log.
    #[error("the thread `{0}` has panicked; this is a fault of the program")]
    Panicked(String),
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::System { what, source }
    }

    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> Error + use<> {
        let path = path.display().to_string();
        move |source| Error::File { what, path: path.clone(), source }
    }
}
