//! The thread that fills the content store: it alone writes there. It wishes for what the generation names and the store
//! lacks, each thing once, and says in the status which files are not whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use bootstorm_api::limits::WISHES_IN_FLIGHT_MAX;
use bootstorm_api::local::{ToGateway, Wish};
use bootstorm_content::limits::MANIFEST_BYTES_MAX;
use bootstorm_content::{Error, Flights, Joined, Put, Store, Writer};
use bootstorm_engine::Index;
use bootstorm_snapshot::{ChunkName, Generation, ManifestDigest};

use crate::cache::Cache;
use crate::limits;
use crate::mail::{self, Absent, Fill, Mailbox, Waiter};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::room::Room;

/// What is fetched before anybody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefetch {
    /// All that the generation names, which is then kept: control has chosen it.
    Everything,
    /// Manifests, so that chunks can be asked for; what is unused goes when room is needed.
    Manifests,
}

/// The state of the filling thread.
pub(crate) struct Filler {
    store: Store,
    cache: Arc<Cache>,
    writer: Option<Writer>,
    /// What the disk has left.
    room: Room,
    mailboxes: Arc<[Mailbox]>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    prefetch: Prefetch,
    generation: Generation,
    /// Files named by the generation, boot environments first.
    wants: Vec<Want>,
    in_flight: HashMap<Wish, Flight>,
    /// Requests that wait for chunks.
    flights: Flights<Waiter>,
    /// Chunks that requests wait for and that are not wished for yet.
    urgent: VecDeque<ChunkName>,
    /// Chunks put and not committed.
    pending: Vec<ChunkName>,
    pending_bytes: usize,
    online: bool,
    said: Option<(Generation, Vec<ManifestDigest>)>,
}

struct Want {
    digest: ManifestDigest,
    phase: Phase,
    failures: u32,
    not_before: Option<Instant>,
}

enum Phase {
    /// Not looked at since something changed.
    Unchecked,
    /// The manifest is not here.
    Manifest,
    /// Chunks are missing: those not yet wished for, once counted.
    Chunks(Option<VecDeque<ChunkName>>),
    /// All is here.
    Whole,
}

struct Flight {
    want: Option<ManifestDigest>,
    deadline: Instant,
    /// Of a manifest: what has come so far.
    bytes: Vec<u8>,
}

impl Filler {
    pub(crate) fn new(
        store: Store,
        cache: Arc<Cache>,
        room: Room,
        mailboxes: Arc<[Mailbox]>,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
        prefetch: Prefetch,
    ) -> Filler {
        Filler {
            store,
            cache,
            writer: None,
            room,
            mailboxes,
            outbox,
            metrics,
            prefetch,
            generation: Generation(0),
            wants: Vec::new(),
            in_flight: HashMap::new(),
            flights: Flights::new(limits::FLIGHTS_MAX, limits::FLIGHT_WAITERS_MAX),
            urgent: VecDeque::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            online: false,
            said: None,
        }
    }

    /// Works until all senders are gone, then commits what is pending.
    pub(crate) fn run(mut self, queue: Receiver<Fill>) {
        loop {
            let message = match self.next_due() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match message {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // What has come together is committed together.
            while self.pending_bytes < limits::FILL_BATCH_BYTES
                && let Ok(message) = queue.try_recv()
            {
                self.handle(message);
            }
            self.commit();
            self.make_room(Instant::now());
            self.expire(Instant::now());
            self.pump(Instant::now());
            self.say();
        }
        self.commit();
    }

    fn handle(&mut self, message: Fill) {
        match message {
            Fill::Index(index) => self.set_index(&index),
            Fill::Fetched { wish, offset, bytes_total, bytes } => self.fetched(wish, offset, bytes_total, &bytes),
            Fill::NotFetched { wish, reason } => {
                tracing::info!(?wish, %reason, "content cannot be had now");
                self.fail(wish, "not_fetched");
            }
            Fill::ControlConnected => {
                for want in &mut self.wants {
                    (want.failures, want.not_before) = (0, None);
                }
            }
            Fill::StreamOpened => self.online = true,
            Fill::StreamGone => {
                self.online = false;
                let lost: Vec<Wish> = self.in_flight.drain().map(|(wish, _)| wish).collect();
                lost.into_iter().for_each(|wish| self.release(wish));
                let unasked = std::mem::take(&mut self.urgent);
                unasked.into_iter().for_each(|name| self.release(Wish::Chunk { name }));
                for want in &mut self.wants {
                    want.recheck();
                }
            }
            Fill::Need { name, waiter } => self.need(name, waiter),
            Fill::Lost => self.wants.iter_mut().for_each(Want::recheck),
        }
    }

    fn set_index(&mut self, index: &Index) {
        self.generation = index.view().generation;
        let mut named: Vec<_> = index.manifests().iter().map(|(digest, named)| (*named, *digest)).collect();
        named.sort_unstable();
        let mut known: HashMap<ManifestDigest, Want> = self.wants.drain(..).map(|want| (want.digest, want)).collect();
        let fresh = |digest| Want { digest, phase: Phase::Unchecked, failures: 0, not_before: None };
        self.wants =
            named.into_iter().map(|(_, digest)| known.remove(&digest).unwrap_or_else(|| fresh(digest))).collect();
    }

    fn need(&mut self, name: ChunkName, waiter: Waiter) {
        if self.store.locate(&name).is_some() {
            return self.tell(vec![waiter], Ok(()));
        }
        if !self.online {
            return self.tell(vec![waiter], Err(Absent::Later));
        }
        match self.flights.join(name, waiter) {
            Joined::Leader if !self.in_flight.contains_key(&Wish::Chunk { name }) => self.urgent.push_back(name),
            Joined::Leader | Joined::Follower => {}
            Joined::Refused => self.tell(vec![waiter], Err(Absent::Later)),
        }
    }

    fn tell(&self, waiters: Vec<Waiter>, outcome: Result<(), Absent>) {
        mail::tell(&self.mailboxes, waiters, outcome);
    }

    fn fetched(&mut self, wish: Wish, offset: u64, bytes_total: u64, bytes: &[u8]) {
        if !self.in_flight.contains_key(&wish) {
            self.metrics.fetched("unasked", bytes.len());
            return self.metrics.wish("unasked");
        }
        match wish {
            Wish::Chunk { name } => match self.put_chunk(name, offset, bytes_total, bytes).inspect_err(|_| {
                self.metrics.fetched("refused", bytes.len());
            }) {
                Ok(Put::Pending) => {
                    self.metrics.fetched("chunks", bytes.len());
                    self.pending.push(name);
                    self.pending_bytes += bytes.len();
                }
                Ok(Put::Present) => {
                    self.metrics.fetched("chunks", bytes.len());
                    self.done(wish);
                }
                Err(error) => self.refuse(wish, &error),
            },
            Wish::Manifest { digest } => self.fetched_manifest(digest, offset, bytes_total, bytes),
        }
    }

    fn put_chunk(&mut self, name: ChunkName, offset: u64, bytes_total: u64, bytes: &[u8]) -> Result<Put, Error> {
        if offset != 0 || bytes_total != bytes.len() as u64 {
            return Err(Error::ChunkSize { name, bytes: bytes.len() });
        }
        let put = self.writer().put(name, bytes)?;
        // Its bytes are right and at hand: whoever waits for it, or asks soon, need not have them read again.
        self.cache.keep(&name, bytes);
        Ok(put)
    }

    fn fetched_manifest(&mut self, digest: ManifestDigest, offset: u64, bytes_total: u64, bytes: &[u8]) {
        let wish = Wish::Manifest { digest };
        self.metrics.fetched("manifests", bytes.len());
        let Some(flight) = self.in_flight.get_mut(&wish) else { return };
        let length = flight.bytes.len() as u64 + bytes.len() as u64;
        if offset != flight.bytes.len() as u64 || bytes_total > MANIFEST_BYTES_MAX || length > bytes_total {
            tracing::warn!(%digest, "parts of a manifest do not fit one another");
            return self.fail(wish, "malformed");
        }
        flight.bytes.extend_from_slice(bytes);
        flight.deadline = Instant::now() + limits::WISH_DEADLINE;
        if length < bytes_total {
            return;
        }
        let whole = std::mem::take(&mut flight.bytes);
        if ManifestDigest::of(&whole) != digest {
            tracing::warn!(%digest, "a manifest came that is another");
            return self.fail(wish, "mismatch");
        }
        self.commit();
        match self.writer().put_manifest(&whole) {
            Ok(_) => self.done(wish),
            Err(error) => self.refuse(wish, &error),
        }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.get_or_insert_with(|| self.store.writer())
    }

    /// Makes durable what was put, and lets it be found.
    fn commit(&mut self) {
        let names = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if names.is_empty() {
            return;
        }
        match self.writer().commit() {
            Ok(()) => {
                self.room.stored(&self.metrics);
                names.into_iter().for_each(|name| self.done(Wish::Chunk { name }));
            }
            Err(error) => {
                for name in names {
                    if error.is_disk_full() {
                        self.pass_on(name);
                    }
                    self.refuse(Wish::Chunk { name }, &error);
                }
            }
        }
    }

    /// A chunk came that cannot be kept on the disk. It was hashed, and whoever waits for it finds it in memory.
    fn pass_on(&mut self, name: ChunkName) {
        if self.cache.find(&name).is_some() {
            let waiters = self.flights.done(&name);
            self.metrics.wish("passed_on");
            self.tell(waiters, Ok(()));
        }
    }

    /// Lets content go that nothing names, if the disk needs room.
    fn make_room(&mut self, now: Instant) {
        // Before there is a generation nobody can say what is unused.
        let Some(marks) = self.room.lacking(&self.store, now).filter(|_| !self.wants.is_empty()) else { return };
        // A sweep needs the store without writers. What this one had pending is committed.
        self.writer = None;
        let keep: HashSet<ManifestDigest> = match self.prefetch {
            Prefetch::Everything => self.wants.iter().map(|want| want.digest).collect(),
            Prefetch::Manifests => HashSet::new(),
        };
        if self.room.evict(&self.store, marks, &keep, &self.metrics) || self.prefetch == Prefetch::Manifests {
            self.wants.iter_mut().for_each(Want::recheck);
        }
    }

    /// A wish has come true.
    fn done(&mut self, wish: Wish) {
        self.metrics.wish("fetched");
        if let Some(want) = self.in_flight.remove(&wish).and_then(|flight| flight.want) {
            let busy = self.in_flight.values().any(|flight| flight.want == Some(want));
            if let Some(want) = self.wants.iter_mut().find(|known| known.digest == want) {
                want.failures = 0;
                match &want.phase {
                    Phase::Chunks(Some(queue)) if busy || !queue.is_empty() => {}
                    Phase::Unchecked | Phase::Manifest | Phase::Chunks(_) | Phase::Whole => want.recheck(),
                }
            }
        }
        if let Wish::Chunk { name } = wish {
            let waiters = self.flights.done(&name);
            self.tell(waiters, Ok(()));
        }
    }

    fn refuse(&mut self, wish: Wish, error: &Error) {
        let outcome = match error {
            Error::Mismatch { .. } => "mismatch",
            Error::ManifestInvalid(_) | Error::ChunkSize { .. } => "malformed",
            _ => {
                // Of a failed write nothing is known: another writer begins a new pack.
                self.writer = None;
                if error.is_disk_full() {
                    self.room.refused(&self.metrics, error);
                    return self.fail(wish, "disk_full");
                }
                "write_failed"
            }
        };
        tracing::warn!(?wish, %error, "fetched content is not taken");
        self.fail(wish, outcome);
    }

    /// A wish was not fulfilled: those who wait are told, its file rests for a while.
    fn fail(&mut self, wish: Wish, outcome: &'static str) {
        let Some(flight) = self.in_flight.remove(&wish) else { return };
        self.metrics.wish(outcome);
        self.release(wish);
        let Some(want) = flight.want.and_then(|digest| self.wants.iter_mut().find(|want| want.digest == digest)) else {
            return;
        };
        let pause = limits::WISH_PAUSE_FIRST.saturating_mul(1u32.checked_shl(want.failures).unwrap_or(u32::MAX));
        want.not_before = Some(Instant::now() + pause.min(limits::WISH_PAUSE_MAX));
        want.failures = want.failures.saturating_add(1).min(16);
        want.recheck();
    }

    fn release(&mut self, wish: Wish) {
        if let Wish::Chunk { name } = wish {
            let waiters = self.flights.done(&name);
            self.tell(waiters, Err(Absent::Later));
        }
    }

    fn expire(&mut self, now: Instant) {
        let late: Vec<Wish> =
            self.in_flight.iter().filter(|(_, flight)| flight.deadline <= now).map(|(wish, _)| *wish).collect();
        late.into_iter().for_each(|wish| self.fail(wish, "unanswered"));
    }

    fn next_due(&self) -> Option<Instant> {
        let flights = self.in_flight.values().map(|flight| flight.deadline);
        // Without room a pause that is over is looked at when an answer comes.
        let may_wish = self.online && self.in_flight.len() < WISHES_IN_FLIGHT_MAX;
        let pauses = self.wants.iter().filter(|want| may_wish && !matches!(want.phase, Phase::Whole));
        flights.chain(pauses.filter_map(|want| want.not_before)).min()
    }

    /// Looks at files that were not looked at, and wishes for what is missing, as much as may be in flight.
    fn pump(&mut self, now: Instant) {
        for index in 0..self.wants.len() {
            self.check(index, now);
        }
        if !self.online {
            return;
        }
        while self.in_flight.len() < WISHES_IN_FLIGHT_MAX
            && let Some(name) = self.urgent.pop_front()
        {
            self.wish(Wish::Chunk { name }, None, now);
        }
        for index in 0..self.wants.len() {
            if self.in_flight.len() >= WISHES_IN_FLIGHT_MAX {
                return;
            }
            self.wish_for(index, now);
        }
    }

    fn check(&mut self, index: usize, now: Instant) {
        let Some(want) = self.wants.get_mut(index) else { return };
        if !matches!(want.phase, Phase::Unchecked) {
            return;
        }
        want.phase = match self.store.manifest(&want.digest) {
            Ok(_) if self.prefetch == Prefetch::Manifests => Phase::Whole,
            Ok(manifest) if self.store.missing(&manifest).is_empty() => Phase::Whole,
            Ok(_) => Phase::Chunks(None),
            Err(Error::ManifestMissing { .. }) => Phase::Manifest,
            Err(error) => {
                tracing::warn!(%error, "a manifest cannot be read and is fetched again");
                if let Err(error) = self.store.remove_manifest(&want.digest) {
                    tracing::error!(%error, "a damaged manifest cannot be removed");
                    want.not_before = Some(now + limits::WISH_PAUSE_MAX);
                }
                Phase::Manifest
            }
        };
    }

    fn wish_for(&mut self, index: usize, now: Instant) {
        let Some(want) = self.wants.get_mut(index).filter(|want| want.not_before.is_none_or(|due| due <= now)) else {
            return;
        };
        let digest = want.digest;
        want.not_before = None;
        match &mut want.phase {
            Phase::Unchecked | Phase::Whole => {}
            Phase::Manifest => {
                let wish = Wish::Manifest { digest };
                if !self.in_flight.contains_key(&wish) {
                    self.wish(wish, Some(digest), now);
                }
            }
            Phase::Chunks(queue) => {
                let mut names = match queue.take() {
                    Some(names) => names,
                    None => match self.store.manifest(&digest) {
                        Ok(manifest) => self.store.missing(&manifest).into(),
                        Err(_) => return want.recheck(),
                    },
                };
                let mut shared = Vec::new();
                while self.in_flight.len() < WISHES_IN_FLIGHT_MAX
                    && let Some(name) = names.pop_front()
                {
                    let wish = Wish::Chunk { name };
                    match self.in_flight.get_mut(&wish) {
                        None => self.wish(wish, Some(digest), now),
                        // A request's wish counts for the file too.
                        Some(flight) if flight.want.is_none() => flight.want = Some(digest),
                        Some(flight) if flight.want == Some(digest) => {}
                        Some(_) => shared.push(name),
                    }
                }
                names.extend(shared);
                if let Some(Want { phase: Phase::Chunks(queue), .. }) = self.wants.get_mut(index) {
                    *queue = Some(names);
                }
            }
        }
    }

    fn wish(&mut self, wish: Wish, want: Option<ManifestDigest>, now: Instant) {
        if self.outbox.send(&ToGateway::Wish { wish }) {
            self.metrics.wish("wished");
            let flight = Flight { want, deadline: now + limits::WISH_DEADLINE, bytes: Vec::new() };
            self.in_flight.insert(wish, flight);
        } else {
            self.release(wish);
            if let Some(want) = want.and_then(|digest| self.wants.iter_mut().find(|want| want.digest == digest)) {
                want.not_before = Some(now + limits::WISH_PAUSE_FIRST);
            }
        }
    }

    /// Says which files are missing, if that has changed.
    fn say(&mut self) {
        let lacking = self.wants.iter().filter(|want| !matches!(want.phase, Phase::Whole));
        let missing: Vec<ManifestDigest> = lacking.map(|want| want.digest).collect();
        let status = (self.generation, missing);
        if self.said.as_ref() != Some(&status) {
            self.metrics.files_missing.set(i64::try_from(status.1.len()).unwrap_or(i64::MAX));
            self.outbox.set_status(status.0, status.1.clone());
            self.said = Some(status);
        }
    }
}

impl Want {
    fn recheck(&mut self) {
        self.phase = Phase::Unchecked;
    }
}
