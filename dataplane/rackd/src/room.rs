//! Room for content on the disk: when to let something go, and that nothing is kept when there is none.
//!
//! Eviction belongs to the thread that fills the store, as a sweep needs the store without writers and that thread has the only
//! one. Readers go on meanwhile: a chunk that a send reads is in memory, and a pack's file stays readable for whoever holds it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use bootstorm_content::{Error, Marks, Store};
use bootstorm_snapshot::ManifestDigest;

use crate::limits;
use crate::metrics::Metrics;

/// What the filling thread knows about the disk below the store.
#[derive(Debug)]
pub(crate) struct Room {
    /// A directory on the same file system.
    directory: PathBuf,
    full: bool,
    next_eviction: Option<Instant>,
}

impl Room {
    pub(crate) fn new(directory: PathBuf) -> Room {
        Room { directory, full: false, next_eviction: None }
    }

    /// Something was stored.
    pub(crate) fn stored(&mut self, metrics: &Metrics) {
        if std::mem::take(&mut self.full) {
            tracing::info!("the content store has room again");
            metrics.content_full.set(0);
        }
    }

    /// The disk took nothing more. Said once, until something is stored again.
    pub(crate) fn refused(&mut self, metrics: &Metrics, error: &Error) {
        if !std::mem::replace(&mut self.full, true) {
            tracing::error!(%error, "the content store is full: what is fetched is passed on and not kept; give the disk room");
            metrics.content_full.set(1);
            // What was let go at the high mark was not enough, and now more may go.
            self.next_eviction = None;
        }
    }

    /// How much is to be let go, if packs take too much of the disk or it takes nothing more.
    pub(crate) fn lacking(&self, store: &Store, now: Instant) -> Option<Marks> {
        if self.next_eviction.is_some_and(|next| now < next) {
            return None;
        }
        let disk = rustix::fs::statvfs(&self.directory);
        let disk =
            disk.inspect_err(|error| tracing::warn!(%error, "the disk does not say how much room it has")).ok()?;
        let pack_bytes = store.pack_bytes();
        // On a disk that takes nothing more all goes that is not named, whoever has filled it: a pack gives its octets back only
        // when most of them are unnamed.
        let marks = match self.full {
            true => Marks { high_bytes: 0, low_bytes: 0 },
            false => marks(pack_bytes, disk.f_bavail.saturating_mul(disk.f_frsize)),
        };
        (pack_bytes > marks.high_bytes).then_some(marks)
    }

    /// Lets content go, the longest unused first and nothing of `keep`. The store must have no writer. A manifest that is damaged on
    /// the disk is removed, as nothing can be let go beside it: true if one was, and it is to be fetched again.
    pub(crate) fn evict(
        &mut self,
        store: &Store,
        marks: Marks,
        keep: &HashSet<ManifestDigest>,
        metrics: &Metrics,
    ) -> bool {
        match store.evict(marks, keep) {
            Ok(swept) => {
                let bytes = swept.pack_bytes_before.saturating_sub(swept.pack_bytes_after) + swept.punched_bytes;
                metrics.evicted("manifests", swept.manifests.len() as u64);
                metrics.evicted("chunks", swept.chunks);
                metrics.evicted("bytes", bytes);
                tracing::info!(manifests = swept.manifests.len(), chunks = swept.chunks, bytes, "content was let go");
            }
            Err(error) => {
                tracing::warn!(%error, "content cannot be let go now");
                if let Error::ManifestCorrupt { digest } = error {
                    return store.remove_manifest(&digest).is_ok();
                }
            }
        }
        self.next_eviction = Some(Instant::now() + limits::EVICTION_PAUSE);
        false
    }
}

/// The marks for packs of so many octets with so many free beside them.
fn marks(pack_bytes: u64, free_bytes: u64) -> Marks {
    let share = |percent: u64| pack_bytes.saturating_add(free_bytes) / 100 * percent;
    Marks { high_bytes: share(limits::CONTENT_HIGH_PERCENT), low_bytes: share(limits::CONTENT_LOW_PERCENT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_shares_of_what_packs_could_take() {
        let marks = marks(600, 400);
        assert_eq!((marks.high_bytes, marks.low_bytes), (900, 750));
    }
}
