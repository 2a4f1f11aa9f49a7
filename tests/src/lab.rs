//! A laboratory of one rack: a network of its own, bare machines, and what switches them on.
//!
//! [`network`] makes the rack's namespace, [`guest`] the machines, [`power`] the controller in front of them, [`server`]
//! runs the `bootstorm` binary in the namespace and its command line against it, [`ssh`] logs in to what was installed,
//! [`site`] puts them together, [`assets`] names the built binaries, images and boot environments. Each cleans up when it is dropped, in a panic too;
//! whatever drops cannot do (we are killed), the kernel does: see [`process`].

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

pub mod accelerator;
pub mod assets;
pub mod guest;
pub mod limits;
pub mod neighbours;
pub mod network;
pub mod power;
pub mod process;
pub mod server;
pub mod site;
pub mod ssh;
pub mod timeline;
pub mod wait;

/// What goes wrong in the laboratory. The text says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot run the laboratory as it stands; the text says what to do.
    #[error("{0}")]
    Environment(String),
    /// A file, socket or device.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program did not start.
    #[error("`{command}` does not start: {source}")]
    Start {
        /// Which.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}`: {status}: {message}")]
    Command {
        /// Which.
        command: String,
        /// How.
        status: ExitStatus,
        /// What it wrote to standard error.
        message: String,
    },
    /// A program that was to stay ended.
    #[error("ended too early ({status}), see {log}:\n{tail}", log = log.display())]
    Ended {
        /// Its log.
        log: PathBuf,
        /// How.
        status: ExitStatus,
        /// The end of the log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("waited {after:?} in vain for {what}")]
    Timeout {
        /// What.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The power controller refused.
    #[error("{request} was refused: {answer}")]
    Refused {
        /// What was asked.
        request: String,
        /// The whole answer.
        answer: String,
    },
    /// An answer is not what the contract says.
    #[error("`{command}` answered what was not expected ({missing}): {answer}")]
    Answer {
        /// Of which command.
        command: String,
        /// What was looked for.
        missing: String,
        /// The answer.
        answer: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}
