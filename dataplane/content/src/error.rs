//! What can go wrong, by who can mend it.

use std::io;

use bootstorm_snapshot::manifest::ManifestError;
use bootstorm_snapshot::{ChunkName, ManifestDigest};

/// An error of the content store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer's: the bytes are not those of the name. Nothing was stored; fetch from somewhere else.
    #[error("bytes offered as chunk `{name}` hash to `{actual}`; fetch the chunk again, from another source")]
    Mismatch {
        /// Name under which the bytes were offered.
        name: ChunkName,
        /// What they hash to.
        actual: ChunkName,
    },
    /// The peer's: empty, or over [`bootstorm_snapshot::limits::CHUNK_STORED_BYTES_MAX`].
    #[error("chunk `{name}` of `{bytes}` stored bytes is empty or too long")]
    ChunkSize {
        /// Name of the chunk.
        name: ChunkName,
        /// Octets offered.
        bytes: usize,
    },
    /// The chunk on disk was bad. It has been quarantined: it is missing now and should be fetched again.
    #[error("chunk `{name}` was damaged on disk and has been dropped; fetch it again")]
    Corrupt {
        /// Name of the chunk.
        name: ChunkName,
    },
    /// The chunk is not here; fetch it.
    #[error("chunk `{name}` is not in the content store")]
    ChunkMissing {
        /// Name of the chunk.
        name: ChunkName,
    },
    /// The manifest is not here; fetch it.
    #[error("manifest `{digest}` is not in the content store")]
    ManifestMissing {
        /// Digest of the manifest.
        digest: ManifestDigest,
    },
    /// The manifest on disk was bad. Put it again, or remove it.
    #[error("manifest `{digest}` is damaged on disk; import or fetch it again")]
    ManifestCorrupt {
        /// Digest of the manifest.
        digest: ManifestDigest,
    },
    /// The peer's: bytes offered as a manifest are none.
    #[error("bytes offered as a manifest are not one")]
    ManifestInvalid(#[source] ManifestError),
    /// The peer's: a manifest says another stored length of a chunk than the chunk with this name has.
    #[error("manifest gives chunk `{name}` `{claimed}` stored bytes, but it has `{actual}`; the manifest is wrong")]
    LengthClaim {
        /// Name of the chunk.
        name: ChunkName,
        /// Stored bytes by the manifest.
        claimed: u32,
        /// Stored bytes in the store.
        actual: u32,
    },
    /// The caller's: a range that is not inside the stored stream.
    #[error("range `{start}..{end}` is outside the stored stream of `{stored_bytes}` bytes")]
    OutOfRange {
        /// First octet asked for.
        start: u64,
        /// Octet after the last.
        end: u64,
        /// Length of the stored stream.
        stored_bytes: u64,
    },
    /// A chunk's zstd frame does not decode to the length that its manifest gives.
    #[error("chunk does not decode to `{raw_bytes}` bytes; the image must be imported again")]
    Undecodable {
        /// Raw bytes by the manifest.
        raw_bytes: u32,
    },
    /// The environment's: the disk refused an operation.
    #[error("content store: {operation} `{name}` failed; check the disk and its free space")]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// File inside the store's directory.
        name: String,
        /// The disk's answer.
        #[source]
        source: io::Error,
    },
    /// The source that is being packed could not be read.
    #[error("reading the file to store failed")]
    Source(#[source] io::Error),
    /// An earlier write of this writer failed, so what it holds is not known; take a new writer.
    #[error("writer of the content store is stopped after a failed write; begin the import or fetch again")]
    WriterStopped,
    /// A sweep needs the store without writers; finish them and try again.
    #[error("content store has `{writers}` writers at work; sweep when they are done")]
    WritersActive {
        /// Writers alive.
        writers: usize,
    },
    /// [`crate::limits::PACKS_MAX`] is reached; sweep.
    #[error("content store holds `{packs}` packs, the limit; remove images and sweep")]
    TooManyPacks {
        /// Packs now.
        packs: usize,
    },
    /// Another process has the directory.
    #[error("content store `{directory}` is in use by another process; stop it first")]
    InUse {
        /// The directory.
        directory: String,
    },
}

impl Error {
    /// Whether the disk has no room: what was to be stored may still be passed on.
    pub fn is_disk_full(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        match self {
            Error::Disk { source, .. } => kinds.contains(&source.kind()),
            Error::TooManyPacks { .. } => true,
            Error::Mismatch { .. }
            | Error::ChunkSize { .. }
            | Error::Corrupt { .. }
            | Error::ChunkMissing { .. }
            | Error::ManifestMissing { .. }
            | Error::ManifestCorrupt { .. }
            | Error::ManifestInvalid(_)
            | Error::LengthClaim { .. }
            | Error::OutOfRange { .. }
            | Error::Undecodable { .. }
            | Error::Source(_)
            | Error::WriterStopped
            | Error::WritersActive { .. }
            | Error::InUse { .. } => false,
        }
    }

    /// Whether fetching (the chunk, the manifest) or waiting and trying again can mend it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Mismatch { .. }
            | Error::Corrupt { .. }
            | Error::ChunkMissing { .. }
            | Error::ManifestMissing { .. }
            | Error::ManifestCorrupt { .. }
            | Error::WritersActive { .. } => true,
            Error::ChunkSize { .. }
            | Error::ManifestInvalid(_)
            | Error::LengthClaim { .. }
            | Error::OutOfRange { .. }
            | Error::Undecodable { .. }
            | Error::Disk { .. }
            | Error::Source(_)
            | Error::WriterStopped
            | Error::TooManyPacks { .. }
            | Error::InUse { .. } => false,
        }
    }
}

/// Gives an I/O error its place.
pub(crate) fn at(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let name = name.to_owned();
    move |source| Error::Disk { operation, name, source }
}
