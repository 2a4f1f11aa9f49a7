//! What the parts of a shard share: its driver, timers, packs, and the way to other threads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use bootstorm_content::{IndexedManifest, PackId, Segment, Store, runs};
use bootstorm_driver::{Buffer, Driver, FileId, Operation, OperationId, Refusal, Token};
use bootstorm_engine::{Index, Time};
use bootstorm_snapshot::{ChunkName, ManifestDigest};

use crate::clock::Clock;
use crate::limits;
use crate::mail::{Ask, Mail, Mailbox, Waiter};
use crate::metrics::Metrics;
use crate::slab::{GENERATION_MASK, Key};

/// What all shards share.
pub(crate) struct Shared {
    pub(crate) index: ArcSwap<Index>,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Sources,
    pub(crate) transfers: Sources,
    pub(crate) clock: Clock,
    /// Whether shard 0 has an engine; `serve` has none.
    pub(crate) has_engine: bool,
    /// Largest TFTP block that the narrowest interface carries.
    pub(crate) block_bytes_max: u16,
}

/// How much each source address holds, over all shards.
#[derive(Debug)]
pub(crate) struct Sources {
    held: Mutex<HashMap<IpAddr, u32>>,
    limit: u32,
}

impl Sources {
    pub(crate) fn new(limit: u32) -> Sources {
        Sources { held: Mutex::default(), limit }
    }

    /// Takes one more for a source; false at the limit.
    pub(crate) fn take(&self, source: IpAddr) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(source).or_default();
        let may = *count < self.limit;
        *count += u32::from(may);
        may
    }

    /// Gives one back.
    pub(crate) fn give(&self, source: IpAddr) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&source);
            }
        }
    }
}

/// What an operation or timer belongs to; the high octet of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    HttpReceive,
    HttpSend,
    HttpRead,
    Request,
    TftpReceive,
    TftpRead,
    Dhcp,
    Solicitation,
    /// Nobody waits for it.
    Sent,
    /// A segmented TFTP send, whose failure turns segmentation off.
    SentSegments,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Accept,
        Kind::HttpReceive,
        Kind::HttpSend,
        Kind::HttpRead,
        Kind::Request,
        Kind::TftpReceive,
        Kind::TftpRead,
        Kind::Dhcp,
        Kind::Solicitation,
        Kind::Sent,
        Kind::SentSegments,
    ];
}

/// Kind in the high octet, generation in the next three, slot in the low four.
pub(crate) fn token(kind: Kind, key: Key) -> Token {
    let kind = Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default() as u64;
    kind << 56 | u64::from(key.generation & GENERATION_MASK) << 32 | u64::from(key.slot)
}

/// The parts of a token.
pub(crate) fn parse_token(token: Token) -> Option<(Kind, Key)> {
    let [kind, rest @ ..] = token.to_be_bytes();
    let [a, b, c, d, e, f, g] = rest;
    let key = Key { slot: u32::from_be_bytes([d, e, f, g]), generation: u32::from_be_bytes([0, a, b, c]) };
    Some((*Kind::ALL.get(usize::from(kind))?, key))
}

/// The next octets of a range.
pub(crate) enum Next {
    /// A read is under way; it brings so many octets.
    Reading { bytes: u32 },
    /// A message will say when to plan again.
    Waiting,
    /// It cannot be had: busy, or a manifest that contradicts the store.
    Failed,
}

/// One shard's hands.
pub(crate) struct Core {
    pub(crate) driver: Driver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) reader: SyncSender<Ask>,
    pub(crate) shard: usize,
    pub(crate) time: Time,
    pub(crate) now: Instant,
    /// Mail of this shard to itself.
    pub(crate) local: VecDeque<Mail>,
    packs: HashMap<PackId, FileId>,
    manifests: HashMap<ManifestDigest, Arc<IndexedManifest>>,
    timers: BinaryHeap<Reverse<(Instant, Token)>>,
}

impl Core {
    pub(crate) fn new(
        driver: Driver,
        shared: Arc<Shared>,
        mailboxes: Arc<[Mailbox]>,
        reader: SyncSender<Ask>,
        shard: usize,
    ) -> Core {
        let time = shared.clock.now();
        Core {
            driver,
            mailboxes,
            reader,
            shard,
            time,
            now: shared.clock.instant(time.monotonic),
            shared,
            local: VecDeque::new(),
            packs: HashMap::new(),
            manifests: HashMap::new(),
            timers: BinaryHeap::new(),
        }
    }

    /// Reads the clock: once a turn.
    pub(crate) fn tick(&mut self) {
        self.time = self.shared.clock.now();
        self.now = self.shared.clock.instant(self.time.monotonic);
    }

    /// Hands an operation to the driver; `None` if it was not taken, which is counted.
    pub(crate) fn submit(&mut self, token: Token, operation: Operation) -> Option<OperationId> {
        match self.driver.submit(token, operation) {
            Ok(id) => Some(id),
            Err(refused) => {
                let reason = match refused.reason {
                    Refusal::QueueFull => "queue_full",
                    Refusal::Closed => "closed",
                    Refusal::OutOfRange => "out_of_range",
                    Refusal::NoSocket(_) => "no_socket",
                };
                self.shared.metrics.dropped("driver", reason);
                None
            }
        }
    }

    /// Has the owner of `token` called back at `due` or later. The owner keeps its deadline itself, and asks again if it has
    /// moved: timers are never taken out early.
    pub(crate) fn arm(&mut self, armed: &mut Option<Instant>, due: Instant, token: Token) {
        if armed.is_none_or(|armed| due < armed) {
            *armed = Some(due);
            self.timers.push(Reverse((due, token)));
        }
    }

    /// The next timer that is due.
    pub(crate) fn pop_timer(&mut self) -> Option<Token> {
        let Reverse((due, token)) = *self.timers.peek()?;
        if due > self.now {
            return None;
        }
        self.timers.pop();
        Some(token)
    }

    /// When the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    pub(crate) fn waiter(&self, token: Token) -> Waiter {
        Waiter { shard: self.shard, token }
    }

    /// Asks the reading thread; false if its queue is full.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        let asked = self.reader.try_send(ask).is_ok();
        if !asked {
            self.shared.metrics.dropped("content", "reader_busy");
        }
        asked
    }

    /// Mail for the engine on shard 0; false if there is no engine or no room.
    pub(crate) fn tell_engine(&mut self, mail: Mail) -> bool {
        if !self.shared.has_engine {
            return false;
        }
        if self.shard == 0 {
            self.local.push_back(mail);
            return true;
        }
        self.mailboxes.first().is_some_and(|mailbox| mailbox.try_send(mail))
    }

    /// Mail for any shard.
    pub(crate) fn tell_shard(&mut self, shard: usize, mail: Mail) {
        if shard == self.shard {
            self.local.push_back(mail);
        } else if let Some(mailbox) = self.mailboxes.get(shard)
            && !mailbox.try_send(mail)
        {
            self.shared.metrics.dropped("shard", "mailbox_full");
        }
    }

    /// A manifest that this shard holds.
    pub(crate) fn manifest(&self, digest: &ManifestDigest) -> Option<Arc<IndexedManifest>> {
        self.manifests.get(digest).cloned()
    }

    /// Holds a manifest for the next request.
    pub(crate) fn keep_manifest(&mut self, manifest: &Arc<IndexedManifest>) {
        if manifest.manifest().entries().len() > limits::SHARD_MANIFEST_CHUNKS_MAX {
            return;
        }
        let held: usize = self.manifests.values().map(|known| known.manifest().entries().len()).sum();
        if self.manifests.len() >= limits::SHARD_MANIFESTS_MAX || held > limits::SHARD_MANIFEST_CHUNKS_MAX {
            self.manifests.clear();
        }
        self.manifests.insert(manifest.digest(), Arc::clone(manifest));
    }

    /// Begins to bring the front of a range of a stored stream into memory, at most a quantum: a read for `token` of `kind`, or
    /// a question whose answer comes by mail for the same key.
    pub(crate) fn read(&mut self, (kind, key): (Kind, Key), manifest: &IndexedManifest, range: Range<u64>) -> Next {
        let token = token(kind, key);
        // A sweep may take a pack away between the plan and its file: then the second plan has the new place.
        for _ in 0..2 {
            let front = range.start..range.end.min(range.start + limits::QUANTUM_BYTES);
            let segments = match self.shared.store.plan_range(manifest, front) {
                Ok(segments) => segments,
                Err(error) => {
                    tracing::error!(%error, "a range cannot be planned");
                    return Next::Failed;
                }
            };
            let (runs, _) = runs(&segments);
            let Some(run) = runs.first() else {
                let names = unready(&segments);
                let asked = !names.is_empty() && self.ask(Ask::Verify { waiter: self.waiter(token), names });
                return if asked { Next::Waiting } else { Next::Failed };
            };
            let Some(file) = self.pack(run.pack) else { continue };
            // A run is at most the quantum.
            let bytes = u32::try_from(run.bytes).unwrap_or(u32::MAX);
            let buffer = Buffer::with_capacity(bytes as usize);
            let read = Operation::Read { file, offset: run.offset, buffer };
            return if self.submit(token, read).is_some() { Next::Reading { bytes } } else { Next::Failed };
        }
        Next::Failed
    }

    /// Octets read are not those planned: a pack is shorter than it was. Its chunks are hashed before they are used again.
    pub(crate) fn distrust(&self, manifest: &IndexedManifest, range: Range<u64>) {
        manifest.chunks(range).for_each(|(_, entry)| self.shared.store.distrust(&entry.name));
    }

    fn pack(&mut self, pack: PackId) -> Option<FileId> {
        if let Some(file) = self.packs.get(&pack) {
            return Some(*file);
        }
        let file = self.shared.store.pack_file(pack)?;
        let file = file.try_clone().inspect_err(|error| tracing::error!(%error, "a pack cannot be opened")).ok()?;
        let id = match self.driver.add_file(file.into()) {
            Ok(id) => id,
            Err(error) => {
                // The table is full of other packs: they come back as they are used.
                tracing::debug!(%error, "packs are closed to make room");
                self.packs.drain().for_each(|(_, id)| self.driver.remove_file(id));
                let file = self.shared.store.pack_file(pack)?.try_clone().ok()?;
                self.driver.add_file(file.into()).ok()?
            }
        };
        self.packs.insert(pack, id);
        Some(id)
    }
}

/// Chunks that stand between us and the range's first octets.
fn unready(segments: &[Segment]) -> Vec<ChunkName> {
    let names = segments.iter().map_while(|segment| match segment {
        Segment::Stored { verified: true, .. } => None,
        Segment::Stored { name, .. } | Segment::Missing { name, .. } => Some(*name),
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_kind_and_key() {
        for kind in Kind::ALL {
            for key in [Key { slot: 0, generation: 0 }, Key { slot: u32::MAX, generation: GENERATION_MASK }] {
                assert_eq!(parse_token(token(kind, key)), Some((kind, key)));
                assert_ne!(token(kind, key), bootstorm_driver::WAKER_TOKEN);
            }
        }
        assert_eq!(parse_token(u64::MAX), None);
    }

    #[test]
    fn a_source_is_held_to_its_limit() {
        let sources = Sources::new(2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!([sources.take(a), sources.take(a), sources.take(a), sources.take(b)], [true, true, false, true]);
        sources.give(a);
        assert!(sources.take(a));
        [a, a, b].into_iter().for_each(|source| sources.give(source));
        assert!(sources.held.lock().expect("held").is_empty());
    }
}
