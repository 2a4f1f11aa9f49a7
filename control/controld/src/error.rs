//! What can go wrong in the control and bmc roles, by who can mend it.

use std::path::PathBuf;

use bootstorm_api::bmc::PowerFailure;
use bootstorm_model::Refused;

/// An error of the control or bmc role. Texts are for whoever asked; they hold no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Caller: the request cannot be understood.
    #[error("{what}: {problem}")]
    Invalid {
        /// Which part of the request.
        what: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Caller: too many bytes.
    #[error("{what} may have at most {max} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it may be.
        max: u64,
    },
    /// Caller: there is no such thing.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// By which id or name.
        id: String,
    },
    /// Caller: not in this state of affairs.
    #[error("{message}")]
    Conflict {
        /// Stable code.
        code: &'static str,
        /// What stands in the way, and what to do.
        message: String,
    },
    /// Caller: no token, or one that is not known.
    #[error("a valid token is needed: `Authorization: Bearer TOKEN`")]
    Unauthenticated,
    /// Caller: the token is not good for this.
    #[error("this token may only read")]
    Forbidden,
    /// Caller: the lifecycle or a flag forbids it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The machine's BMC.
    #[error("{}", .0.detail)]
    Power(PowerFailure),
    /// See [`bootstorm_store::Error`].
    #[error(transparent)]
    Store(#[from] bootstorm_store::Error),
    /// See [`bootstorm_content::Error`].
    #[error(transparent)]
    Content(#[from] bootstorm_content::Error),
    /// Environment: a file or socket.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Environment: a stream between roles ended or failed.
    #[error("the stream failed: {0}")]
    Stream(#[source] std::io::Error),
    /// Peer of a stream: not a frame of this link.
    #[error(transparent)]
    Frame(#[from] bootstorm_api::frame::FrameError),
    /// Peer of a stream: a message that does not fit.
    #[error("the rack's link: {0}")]
    Link(String),
    /// Environment: a certificate cannot be made or read.
    #[error("certificate: {0}")]
    Certificate(String),
    /// Environment: a sealed value does not open: another master key, or another place than it was sealed for.
    #[error("a sealed value does not open; is `master.key` the one it was sealed with?")]
    Unseal,
    /// Environment: the operating system gives no randomness.
    #[error("no randomness: {0}")]
    Random(String),
    /// Us: a task ended in a panic.
    #[error("an internal task failed")]
    Task,
}

/// Result of what may fail so.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A request that cannot be understood.
    pub fn invalid(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::Invalid { what: what.into(), problem: problem.to_string() }
    }

    /// A file or socket that failed.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Power(failure) => failure.retryable,
            Self::File { .. } | Self::Stream(_) | Self::Random(_) => true,
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::Refused(_)
            | Self::Content(_)
            | Self::Frame(_)
            | Self::Link(_)
            | Self::Certificate(_)
            | Self::Unseal
            | Self::Task => false,
        }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}
