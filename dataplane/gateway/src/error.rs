//! What can go wrong in the gateway, by who can mend it.

use std::path::PathBuf;

/// An error that ends the role, or one attempt to reach control.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the gateway's directory cannot be used.
    #[error("cannot use `{path}`: {source}; check that the directory exists and belongs to this user")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The link to control failed; it is tried again.
    #[error("link to control: {0}")]
    Link(#[source] std::io::Error),
    /// Control or the rack sent something that is not a message.
    #[error("malformed frame: {0}")]
    Frame(#[from] bootstorm_api::frame::FrameError),
    /// Control refuses this rack.
    #[error("control refuses this rack: {reason}")]
    Refused {
        /// Control's words.
        reason: String,
    },
    /// Control sent a message out of turn.
    #[error("control sent `{got}` where `{expected}` was due")]
    OutOfTurn {
        /// What came.
        got: String,
        /// What was due.
        expected: &'static str,
    },
    /// A queue is full.
    #[error("the queue to the other side is full")]
    Overrun,
    /// The rack's stream was replaced, or a queue ran over: both sides begin again from what they know.
    #[error("the link starts anew")]
    Resynchronise,
    /// A key or certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The way to an origin cannot be prepared.
    #[error("origin: {0}")]
    Origin(String),
    /// The address form is not supported by this build.
    #[error("control at `{0}` cannot be reached: only `unix:PATH` is supported in this version")]
    Unsupported(String),
}

impl Error {
    /// Whether the same attempt may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::Link(_) | Error::Frame(_) | Error::OutOfTurn { .. } | Error::Overrun | Error::Resynchronise
        )
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Error {
        Error::Certificate(error.to_string())
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Error {
        Error::Certificate(error.to_string())
    }
}
