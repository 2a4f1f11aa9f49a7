//! Why a role cannot be confined.

use std::io;
use std::path::PathBuf;

/// An error of [`Sandbox::enter`](crate::Sandbox::enter). None is retryable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Environment: a directory that the role writes cannot be opened.
    #[error("cannot confine the role to `{}`: {source}; make the directory and let this user write it", path.display())]
    Path {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Environment: the kernel refuses something that every supported one does.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Environment: there is no filter for this processor.
    #[error("system calls cannot be filtered on `{architecture}`: x86_64, aarch64 and riscv64 can")]
    Architecture {
        /// What the program was built for.
        architecture: &'static str,
    },
}

impl Error {
    pub(crate) fn system<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl Fn(E) -> Error {
        move |source| Error::System { what, source: io::Error::other(source) }
    }
}
