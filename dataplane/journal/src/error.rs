//! What can go wrong, by who can mend it.

use std::io;

/// An error of the journal. [`Error::RecordTooLarge`], [`Error::BatchTooLarge`], [`Error::SegmentFull`], [`Error::Compacting`] and
/// [`Error::Contradiction`] leave the journal as it was; after any other error of a write it is stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's: a payload over [`crate::limits::RECORD_BYTES_MAX`].
    #[error("record of `{bytes}` bytes is over the limit of `{limit}`; split it")]
    RecordTooLarge {
        /// Octets of the payload.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The caller's: a batch over [`crate::limits::BATCH_RECORDS_MAX`] or [`crate::limits::BATCH_BYTES_MAX`], or empty.
    #[error("batch of `{records}` records and `{bytes}` bytes is empty or over the limit; split it")]
    BatchTooLarge {
        /// Records of the batch.
        records: usize,
        /// Octets with frames.
        bytes: usize,
    },
    /// The segment has reached [`crate::limits::SEGMENT_BYTES_MAX`]; compact and go on.
    #[error("journal segment holds `{bytes}` bytes and is full; compact it")]
    SegmentFull {
        /// Octets in the segment.
        bytes: u64,
    },
    /// The caller's: a compaction is under way.
    #[error("journal is being compacted; try again after it")]
    Compacting,
    /// The caller's: the records of a compaction are not what was said of them; the old segment stays in use.
    #[error("records of a compaction are not as many or as long as was said; this is a defect, report it")]
    Contradiction,
    /// The environment's: the disk refused an operation.
    #[error("journal: {operation} `{name}` failed; check the disk and its free space, then start the rack again")]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// Name of the file inside the journal's directory.
        name: String,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed. Open the journal again to learn what is durable.
    #[error("journal is stopped after an earlier failed write; start the rack again")]
    Stopped,
    /// The environment's: another process has the directory.
    #[error("journal directory `{directory}` is in use by another process; stop it first")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// The operator's: something that was durable cannot be read any more.
    #[error(
        "journal `{name}` is damaged at byte `{offset}`: records after sequence `{last_sequence}` were durable and are \
         unreadable; restore the file, or keep the whole part in front of the damage (leases and claims after it are lost)"
    )]
    Damaged {
        /// Name of the segment.
        name: String,
        /// Offset of the first octet that does not check.
        offset: u64,
        /// Last sequence in front of the damage.
        last_sequence: u64,
    },
    /// The operator's: a segment's header does not check, or is of another format.
    #[error(
        "journal `{name}` has no valid header (`{why}`); restore the file, or move it away to start with an empty journal"
    )]
    BadHeader {
        /// Name of the segment.
        name: String,
        /// What did not hold.
        why: &'static str,
    },
}

impl Error {
    /// Whether the same call may succeed later on the same journal (after compaction, or with a smaller batch).
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::SegmentFull { .. } | Error::Compacting => true,
            Error::RecordTooLarge { .. }
            | Error::BatchTooLarge { .. }
            | Error::Contradiction
            | Error::Disk { .. }
            | Error::Stopped
            | Error::InUse { .. }
            | Error::Damaged { .. }
            | Error::BadHeader { .. } => false,
        }
    }
}
