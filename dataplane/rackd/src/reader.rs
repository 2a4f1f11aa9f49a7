//! The thread that reads and hashes content, so that no shard blocks on a disk for it. It alone loads the cache from packs,
//! one chunk after the other, as packs keep streams in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use bootstorm_content::{Error, Store};
use bootstorm_snapshot::{ChunkName, ManifestDigest};
use bytes::Bytes;

use crate::cache::{Cache, NotLoaded};
use crate::limits;
use crate::mail::{Absent, Ask, Fill, Mail, Mailbox, Waiter, tell};
use crate::metrics::Metrics;

/// Answers questions about content. Without `fill` nothing that is missing can be had.
pub(crate) struct Reader {
    pub(crate) store: Store,
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) fill: Option<SyncSender<Fill>>,
    /// Encoded manifests, the newest last.
    pub(crate) encoded: VecDeque<(ManifestDigest, Bytes)>,
}

impl Reader {
    /// Works until all askers are gone.
    pub(crate) fn run(mut self, asks: Receiver<Ask>) {
        while let Ok(ask) = asks.recv() {
            match ask {
                Ask::Manifest { waiter, digest } => {
                    let outcome = self.store.manifest(&digest).map_err(|error| self.absent(&error));
                    self.answer(waiter, Mail::Manifest { token: waiter.token, outcome });
                }
                Ask::ManifestBytes { waiter, digest } => {
                    let outcome = self.manifest_bytes(digest);
                    self.answer(waiter, Mail::Bytes { token: waiter.token, outcome });
                }
                Ask::Chunk { waiter, name } => {
                    let outcome = match self.store.read_chunk(&name) {
                        Ok(bytes) => Ok(Bytes::from(bytes)),
                        // Whoever names a chunk at will does not make us wish for it.
                        Err(Error::ChunkMissing { .. }) => Err(Absent::Unknown),
                        Err(error) => Err(self.absent(&error)),
                    };
                    self.answer(waiter, Mail::Bytes { token: waiter.token, outcome });
                }
                Ask::Load { name, stored_bytes } => self.load(&name, stored_bytes),
            }
        }
    }

    fn answer(&self, waiter: Waiter, mail: Mail) {
        if let Some(mailbox) = self.mailboxes.get(waiter.shard) {
            mailbox.send(mail);
        }
    }

    /// Reads a chunk into the cache and hashes it there. One that is bad or missing is fetched, and those who wait are told by
    /// whoever fetches.
    fn load(&self, name: &ChunkName, stored_bytes: u32) {
        let loaded = self.cache.load(name, stored_bytes, |bytes| self.store.read_chunk_into(name, bytes).map(drop));
        let waiters = self.cache.end_flight(name);
        let absent = match loaded {
            Ok(()) => return tell(&self.mailboxes, waiters, Ok(())),
            Err(NotLoaded::NoRoom) => {
                self.metrics.dropped("content", "cache_held");
                return tell(&self.mailboxes, waiters, Err(Absent::Later));
            }
            // The manifest contradicts the store: nothing that is fetched mends that.
            Err(NotLoaded::Failed(error @ Error::LengthClaim { .. })) => {
                tracing::error!(%error, "a chunk is not as its manifest says");
                return tell(&self.mailboxes, waiters, Err(Absent::Later));
            }
            Err(NotLoaded::Failed(error)) => self.absent(&error),
        };
        match &self.fill {
            Some(fill) => {
                waiters.into_iter().for_each(|waiter| drop(fill.send(Fill::Need { name: *name, waiter })));
            }
            None => tell(&self.mailboxes, waiters, Err(absent)),
        }
    }

    fn manifest_bytes(&mut self, digest: ManifestDigest) -> Result<Bytes, Absent> {
        if let Some((_, bytes)) = self.encoded.iter().find(|(known, _)| *known == digest) {
            return Ok(bytes.clone());
        }
        let manifest = self.store.manifest(&digest).map_err(|error| self.absent(&error))?;
        let bytes = Bytes::from(manifest.manifest().encode());
        self.encoded.push_back((digest, bytes.clone()));
        while self.encoded.len() > 1
            && self.encoded.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > limits::MANIFEST_BYTES_CACHED_MAX
        {
            self.encoded.pop_front();
        }
        Ok(bytes)
    }

    /// Logs what is odd; what was found bad is fetched again.
    fn absent(&self, error: &Error) -> Absent {
        match error {
            Error::ChunkMissing { .. } | Error::ManifestMissing { .. } => {}
            Error::ManifestCorrupt { digest } => {
                tracing::warn!(%error, "content is damaged");
                if let Err(error) = self.store.remove_manifest(digest) {
                    tracing::error!(%error, "a damaged manifest cannot be removed");
                }
            }
            error => tracing::warn!(%error, "content cannot be read"),
        }
        if let Some(fill) = &self.fill {
            let _ = fill.send(Fill::Lost);
        }
        Absent::Later
    }
}
