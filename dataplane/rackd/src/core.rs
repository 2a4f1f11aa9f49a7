//! What the parts of a shard share: its driver, timers, content in memory, and the way to other threads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use bootstorm_content::{IndexedManifest, Joined};
use bootstorm_driver::{Chunk, Driver, Operation, OperationId, Refusal, Token};
use bootstorm_engine::dns::Rates;
use bootstorm_engine::{Index, Time};
use bootstorm_proto::http::server::format_date;
use bootstorm_snapshot::ManifestDigest;
use bootstorm_snapshot::manifest::Entry;
use bytes::Bytes;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::limits;
use crate::mail::{Absent, Ask, Mail, Mailbox, Waiter};
use crate::metrics::Metrics;
use crate::slab::{GENERATION_MASK, Key};

/// What all shards share.
pub(crate) struct Shared {
    pub(crate) index: ArcSwap<Index>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Sources,
    pub(crate) transfers: Sources,
    pub(crate) clock: Clock,
    /// Whether shard 0 has an engine; `serve` has none.
    pub(crate) has_engine: bool,
    /// With what DNS cookies are made; random.
    pub(crate) dns_secret: [u8; 32],
    /// How many DNS answers each source gets in a second.
    pub(crate) dns_rates: Rates,
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
    Dns,
    /// Nobody waits for it.
    Sent,
    /// A segmented TFTP send, whose failure turns segmentation off.
    SentSegments,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Accept,
        Kind::HttpReceive,
        Kind::HttpSend,
        Kind::HttpRead,
        Kind::Request,
        Kind::TftpReceive,
        Kind::TftpRead,
        Kind::Dhcp,
        Kind::Solicitation,
        Kind::Dns,
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
    /// So many octets were gathered.
    Ready(u64),
    /// Its first chunk is on its way into memory; a message will say when to look again.
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
    manifests: HashMap<ManifestDigest, Arc<IndexedManifest>>,
    timers: BinaryHeap<Reverse<(Instant, Token)>>,
    date: (u64, Arc<str>),
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
            manifests: HashMap::new(),
            timers: BinaryHeap::new(),
            date: (time.unix_seconds(), format_date(time.unix_seconds()).into()),
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

    /// Appends the front of a range of a stored stream to `parts`, as far as its chunks are in memory and at most
    /// [`limits::QUANTUM_PARTS_MAX`] of them. If the first one is not, it is brought in, and mail comes for `key` of `kind`.
    pub(crate) fn gather(
        &mut self,
        (kind, key): (Kind, Key),
        manifest: &IndexedManifest,
        range: Range<u64>,
        parts: &mut Vec<Bytes>,
    ) -> Next {
        let mut bytes = 0;
        for (start, entry) in manifest.chunks(range.clone()).take(limits::QUANTUM_PARTS_MAX) {
            let Some(chunk) = self.shared.cache.find(&entry.name) else {
                return if bytes > 0 { Next::Ready(bytes) } else { self.load((kind, key), entry) };
            };
            if chunk.len() as u64 != u64::from(entry.stored_bytes) {
                tracing::error!(chunk = %entry.name, "a chunk is not as its manifest says");
                return Next::Failed;
            }
            // Both are below a chunk's length.
            let skip = range.start.saturating_sub(start);
            let end = (range.end - start).min(chunk.len() as u64);
            parts.push(chunk.slice(skip as usize..end as usize));
            bytes += end - skip;
        }
        if bytes > 0 { Next::Ready(bytes) } else { Next::Failed }
    }

    /// Brings the first chunk of a range into memory, if it is not there: `Waiting`, as for [`Core::gather`].
    pub(crate) fn look_ahead(&mut self, owner: (Kind, Key), manifest: &IndexedManifest, range: Range<u64>) -> Next {
        match manifest.chunks(range).next() {
            Some((_, entry)) if self.shared.cache.find(&entry.name).is_none() => self.load(owner, entry),
            Some((_, entry)) => Next::Ready(u64::from(entry.stored_bytes)),
            None => Next::Ready(0),
        }
    }

    /// All octets of a stored stream that is in memory, whole and not longer than `bytes_max`.
    pub(crate) fn whole(&self, manifest: &IndexedManifest, bytes_max: usize) -> Option<Vec<Chunk>> {
        let bytes = manifest.manifest().stored_bytes();
        if bytes == 0 || bytes > bytes_max as u64 {
            return None;
        }
        let chunks = manifest.chunks(0..bytes).map(|(_, entry)| {
            self.shared.cache.find(&entry.name).filter(|chunk| chunk.len() == entry.stored_bytes as usize)
        });
        chunks.collect()
    }

    /// `Date` of now, spelled once a second.
    pub(crate) fn date(&mut self) -> Arc<str> {
        let second = self.time.unix_seconds();
        if self.date.0 != second {
            self.date = (second, format_date(second).into());
        }
        Arc::clone(&self.date.1)
    }

    /// Joins those who wait for a chunk; the first one has it read.
    fn load(&mut self, (kind, key): (Kind, Key), entry: &Entry) -> Next {
        let (name, stored_bytes) = (entry.name, entry.stored_bytes);
        let waiter = self.waiter(token(kind, key));
        match self.shared.cache.join(name, waiter) {
            Joined::Follower => Next::Waiting,
            Joined::Leader if self.ask(Ask::Load { name, stored_bytes }) => Next::Waiting,
            Joined::Leader => {
                // Whoever has joined since then is told; this one is told at once.
                let mut others = self.shared.cache.end_flight(&name);
                others.retain(|other| *other != waiter);
                for other in others {
                    self.tell_shard(
                        other.shard,
                        Mail::Chunks { tokens: vec![other.token], outcome: Err(Absent::Later) },
                    );
                }
                Next::Failed
            }
            Joined::Refused => {
                self.shared.metrics.dropped("content", "flights");
                Next::Failed
            }
        }
    }
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
