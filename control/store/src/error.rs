//! What can go wrong in the store, by who can do something about it.

use bootstorm_model::ipam::IpamError;

/// Result of a call to the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused. After any error the store is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Caller: something of that value is there already.
    #[error("{what} `{value}` is in use already")]
    Duplicate {
        /// What must be unique, e.g. `host name`, `MAC address`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Caller: there is no such thing.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// By which id or name.
        id: String,
    },
    /// Somebody else was faster: read again and decide again.
    #[error("{what} `{id}` has changed meanwhile; look again")]
    Conflict {
        /// What has changed.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// Caller: something depends on it.
    #[error("{what} `{id}` is in use by {by}")]
    InUse {
        /// What was to be deleted.
        what: &'static str,
        /// Which one.
        id: String,
        /// What depends on it.
        by: &'static str,
    },
    /// Caller: addresses do not work out.
    #[error(transparent)]
    Address(#[from] IpamError),
    /// Caller: larger than the store takes.
    #[error("{what} may have at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it may be.
        max: usize,
    },
    /// A rack's observations skip a number: it must send from `expected` on.
    #[error("observation {received} follows {}, expected {expected}", .expected.saturating_sub(1))]
    Gap {
        /// The next number.
        expected: u64,
        /// The first number received.
        received: u64,
    },
    /// Environment: the database does not answer in time, or its disk is full or broken.
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    /// Environment: the database's schema cannot be brought up to date.
    #[error("the database cannot be migrated: {0}")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Environment: the library is not one this store was written for.
    #[error("SQLite {found} is too old, at least {needed} is needed")]
    Library {
        /// The library's version.
        found: String,
        /// The least version.
        needed: &'static str,
    },
    /// Us, or a hand in the database: what is stored cannot be read.
    #[error("column `{column}` holds what cannot be read: {reason}")]
    Corrupt {
        /// Which column.
        column: &'static str,
        /// Why it cannot be read.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anything else being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database(error) => {
                matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed)
                    || is_busy(error)
            }
            Self::Duplicate { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::InUse { .. }
            | Self::Address(_)
            | Self::TooLarge { .. }
            | Self::Gap { .. }
            | Self::Migration(_)
            | Self::Library { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// SQLITE_BUSY (5), SQLITE_LOCKED (6) and their extended codes.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
