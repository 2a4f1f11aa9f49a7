//! From a range of the stored stream to places in packs.

use std::ops::Range;

use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::{ChunkName, ManifestDigest};

use crate::index::Location;
use crate::store::Store;
use crate::{Error, PackId};

/// A manifest with the offsets of its chunks in the stored stream, so that a range is found by bisection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedManifest {
    manifest: Manifest,
    digest: ManifestDigest,
    /// For each chunk the octet after it in the stored stream; a hole ends where it begins.
    stored_ends: Vec<u64>,
}

impl IndexedManifest {
    /// Indexes a manifest.
    pub fn new(manifest: Manifest) -> IndexedManifest {
        let digest = manifest.digest();
        IndexedManifest::with_digest(manifest, digest)
    }

    pub(crate) fn with_digest(manifest: Manifest, digest: ManifestDigest) -> IndexedManifest {
        let stored_ends = manifest
            .entries()
            .iter()
            .scan(0u64, |end, entry| {
                *end += u64::from(entry.stored_bytes);
                Some(*end)
            })
            .collect();
        IndexedManifest { manifest, digest, stored_ends }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its digest.
    pub fn digest(&self) -> ManifestDigest {
        self.digest
    }

    /// Chunks of a range of the stored stream (without holes), in order, each with its offset in the stream.
    pub fn chunks(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Entry)> {
        let first = self.stored_ends.partition_point(|end| *end <= range.start);
        let entries = self.manifest.entries().iter().zip(&self.stored_ends).skip(first);
        entries
            .map(|(entry, end)| (end - u64::from(entry.stored_bytes), entry))
            .take_while(move |(start, _)| *start < range.end)
            .filter(|(_, entry)| !entry.is_hole())
    }
}

/// One chunk's part of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The chunk is here.
    Stored {
        /// Its name.
        name: ChunkName,
        /// The whole chunk's place.
        location: Location,
        /// Octets of the chunk in front of the range.
        skip: u32,
        /// Octets of the chunk inside the range.
        bytes: u32,
        /// False: call [`Store::verify`] before the first octet is sent.
        verified: bool,
    },
    /// The chunk must be fetched first.
    Missing {
        /// Its name.
        name: ChunkName,
        /// Its stored length by the manifest.
        stored_bytes: u32,
        /// Octets of the chunk in front of the range.
        skip: u32,
        /// Octets of the chunk inside the range.
        bytes: u32,
    },
}

/// Octets of one pack in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which pack.
    pub pack: PackId,
    /// First octet.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// Joins what lies in a row: the leading segments that may be sent now (stored and verified), as few reads as there
/// can be. The second value is how many segments that covers; the one after it is missing or to be verified.
pub fn runs(segments: &[Segment]) -> (Vec<Run>, usize) {
    let mut runs: Vec<Run> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let Segment::Stored { location, skip, bytes, verified: true, .. } = segment else {
            return (runs, index);
        };
        let offset = location.offset + u64::from(*skip);
        match runs.last_mut() {
            Some(run) if run.pack == location.pack && run.offset + run.bytes == offset => {
                run.bytes += u64::from(*bytes);
            }
            _ => runs.push(Run { pack: location.pack, offset, bytes: u64::from(*bytes) }),
        }
    }
    (runs, segments.len())
}

impl Store {
    /// Where each octet of a range of the manifest's stored stream lies: segments in order, whose `bytes` add up to
    /// the range. Under plain encoding the stored stream is the file itself, so this also serves whole files and
    /// their ranges.
    pub fn plan_range(&self, manifest: &IndexedManifest, range: Range<u64>) -> Result<Vec<Segment>, Error> {
        let stored_bytes = manifest.manifest.stored_bytes();
        if range.start > range.end || range.end > stored_bytes {
            return Err(Error::OutOfRange { start: range.start, end: range.end, stored_bytes });
        }
        let mut segments = Vec::new();
        if range.is_empty() {
            return Ok(segments);
        }
        for (start, entry) in manifest.chunks(range.clone()) {
            // Both differences are below a chunk's stored length, which is 32 bits.
            let skip = range.start.saturating_sub(start) as u32;
            let end = (range.end - start).min(u64::from(entry.stored_bytes)) as u32;
            let bytes = end - skip;
            segments.push(match self.find(&entry.name) {
                Some((location, _)) if location.stored_bytes != entry.stored_bytes => {
                    return Err(Error::LengthClaim {
                        name: entry.name,
                        claimed: entry.stored_bytes,
                        actual: location.stored_bytes,
                    });
                }
                Some((location, verified)) => Segment::Stored { name: entry.name, location, skip, bytes, verified },
                None => Segment::Missing { name: entry.name, stored_bytes: entry.stored_bytes, skip, bytes },
            });
        }
        Ok(segments)
    }
}
