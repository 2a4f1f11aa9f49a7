//! The rack role: opens what is on disk, starts the threads, and ends them in order.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use bootstorm_api::role::{Descriptor, Driver, RackConfig};
use bootstorm_content::Store;
use bootstorm_driver::socket;
use bootstorm_engine::dns::Rates;
use bootstorm_engine::{Engine, Index, Interface};
use bootstorm_journal::{Journal, JournalThread, OnDamage};

use crate::brain::JournalNews;
use crate::clock::{self, Clock};
use crate::confine::Confined;
use crate::core::{Shared, Sources};
use crate::fill::{Filler, Prefetch};
use crate::gateway::{Routes, SnapshotThread, run_streams};
use crate::mail::{Fill, Mailbox};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::reader::Reader;
use crate::room::Room;
use crate::shard::{self, Begin, BrainParts, LinkSockets, Sockets};
use crate::snapshots::Snapshots;
use crate::stop::Stop;
use crate::{Error, budget, limits, scrub};

/// Runs the rack role until `stop` is triggered or something fails that only a new start can mend.
///
/// `descriptors` are those of [`Descriptor`]'s list for a rack: HTTP, TFTP and DNS once per interface and shard, DHCP, packet and
/// ICMPv6 sockets once per interface at most. `peers` yields the gateway's stream, and again whenever it is a new one.
/// What is under `config.data` is made if it is missing; no other process may have it open. `confined` shows that the caller's
/// thread is ([`confine`](crate::confine)).
///
/// # Errors
/// An [`Error`] that says who can mend it. Everything that was promised to anybody is durable then as well.
pub fn run(
    config: RackConfig,
    descriptors: Vec<(Descriptor, OwnedFd)>,
    peers: Receiver<UnixStream>,
    confined: Confined,
    stop: Stop,
) -> Result<(), Error> {
    let clock = Clock::start();
    std::fs::create_dir_all(&config.data).map_err(Error::file("making directory", &config.data))?;
    let sockets = sort(&config, descriptors)?;
    let snapshots = Snapshots::open(&config.data.join("snapshot"))?;
    let store = Store::open(&config.data.join("content"))?;
    let journal = config.data.join("journal");
    std::fs::create_dir_all(&journal).map_err(Error::file("making directory", &journal))?;
    let (journal, recovered) = Journal::open_directory(&journal, OnDamage::Refuse)?;
    let index = Arc::new(Index::new(snapshots.view().clone()));
    let interfaces = config.interfaces.iter().map(|interface| Interface {
        index: interface.index,
        mac: interface.mac,
        address: interface.address,
        prefix_bits: interface.prefix_bits,
    });
    let engine_config = bootstorm_engine::Config {
        interfaces: interfaces.collect(),
        http_port: config.http_port,
        agent_port: config.agent_port,
    };
    let (last, records) = (recovered.last_sequence, recovered.records());
    let engine = Engine::recover(clock.now(), engine_config, Arc::clone(&index), last, records)?;
    tracing::info!(generation = %index.view().generation, journal_sequence = last, "rack starts");

    let cache = Arc::new(budget::make_cache(config.cache_bytes)?);
    let metrics = Arc::new(Metrics::new(store.clone(), Arc::clone(&cache)));
    metrics.confined(confined);
    metrics.generation.set(i64::try_from(index.view().generation.0).unwrap_or(i64::MAX));
    let mtu = config.interfaces.iter().map(|interface| interface.mtu).min().unwrap_or(1500);
    let shared = Arc::new(Shared {
        index: ArcSwap::new(Arc::clone(&index)),
        cache: Arc::clone(&cache),
        metrics: Arc::clone(&metrics),
        connections: Sources::new(limits::CONNECTIONS_PER_SOURCE_MAX),
        transfers: Sources::new(limits::TRANSFERS_PER_SOURCE_MAX),
        clock,
        has_engine: true,
        dns_secret: clock::secret()?,
        dns_rates: Rates { client: config.dns.client_answers, stranger: config.dns.stranger_answers },
        block_bytes_max: mtu.saturating_sub(limits::TFTP_OVERHEAD_BYTES),
    });
    let outbox = Arc::new(Outbox::default());
    // Until the filling thread has looked, nothing is known to be whole.
    outbox.set_status(index.view().generation, index.manifests().keys().copied().collect());

    let mut team = Team::gather(sockets, config.driver, &stop)?;
    let news = Arc::new(JournalNews::default());
    let reported = Arc::clone(&news);
    let waker = team.mailbox(0)?.waker.clone();
    let journal = JournalThread::spawn(journal, move |report| reported.report(report, &waker))
        .map_err(Error::system("starting the journal's thread"))?;
    let (fill, fill_queue) = sync_channel(limits::FILL_QUEUE_MAX);
    let _ = fill.send(Fill::Index(index));
    let mailboxes = Arc::clone(&team.mailboxes);
    let room = Room::new(config.data.join("content"));
    let (filled, counters) = (store.clone(), Arc::clone(&metrics));
    let filler = Filler::new(filled, cache, room, mailboxes, Arc::clone(&outbox), counters, Prefetch::Everything);
    team.spawn("content-fill", move || filler.run(fill_queue))?;
    let (parts, part_queue) = sync_channel(limits::SNAPSHOT_QUEUE_MAX);
    let engine_mailbox = team.mailbox(0)?.clone();
    let snapshot_thread = SnapshotThread {
        snapshots,
        shared: Arc::clone(&shared),
        outbox: Arc::clone(&outbox),
        engine: engine_mailbox.clone(),
        fill: fill.clone(),
    };
    team.spawn("snapshot", move || snapshot_thread.run(part_queue))?;
    let (scrubbed, lost, until) = (store.clone(), fill.clone(), stop.clone());
    let counted = Arc::clone(&shared.metrics);
    team.spawn("content-scrub", move || scrub::run(&scrubbed, &counted, Some(&lost), &until))?;
    let brain = BrainParts { engine, journal, news, outbox: Arc::clone(&outbox) };
    team.begin(shared, store, Some(fill.clone()), Some(brain))?;

    let routes = Routes { outbox, engine: engine_mailbox, fill, snapshots: parts };
    run_streams(&routes, &peers, &stop);
    drop(routes);
    team.end()
}

/// The threads of a role.
pub(crate) struct Team {
    waiting: Vec<shard::Waiting>,
    shards: Vec<JoinHandle<Result<(), Error>>>,
    helpers: Vec<JoinHandle<()>>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    stop: Stop,
}

impl Team {
    /// Starts the shards' threads as far as their drivers.
    pub(crate) fn gather(sockets: Vec<Sockets>, driver: Driver, stop: &Stop) -> Result<Team, Error> {
        let mut waiting = Vec::new();
        for (index, sockets) in sockets.into_iter().enumerate() {
            waiting.push(shard::spawn(index, sockets, driver, stop.clone())?);
        }
        let mailboxes = waiting.iter().map(|shard| shard.mailbox.clone()).collect();
        Ok(Team { waiting, shards: Vec::new(), helpers: Vec::new(), mailboxes, stop: stop.clone() })
    }

    pub(crate) fn mailbox(&self, shard: usize) -> Result<&Mailbox, Error> {
        self.mailboxes.get(shard).ok_or(Error::Descriptors("a rack has at least one shard"))
    }

    pub(crate) fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(work);
        self.helpers.push(thread.map_err(Error::system("starting a thread"))?);
        Ok(())
    }

    /// Starts the reading thread and lets the shards serve.
    pub(crate) fn begin(
        &mut self,
        shared: Arc<Shared>,
        store: Store,
        fill: Option<std::sync::mpsc::SyncSender<Fill>>,
        mut brain: Option<BrainParts>,
    ) -> Result<(), Error> {
        let (reader, asks) = sync_channel(limits::READER_QUEUE_MAX);
        let worker = Reader {
            store,
            cache: Arc::clone(&shared.cache),
            metrics: Arc::clone(&shared.metrics),
            mailboxes: Arc::clone(&self.mailboxes),
            fill,
            encoded: VecDeque::new(),
        };
        self.spawn("content-read", move || worker.run(asks))?;
        for waiting in self.waiting.drain(..) {
            let begin = Begin {
                shared: Arc::clone(&shared),
                mailboxes: Arc::clone(&self.mailboxes),
                reader: reader.clone(),
                brain: brain.take(),
            };
            // A shard that has ended says why when it is joined.
            let _ = waiting.begin.send(begin);
            self.shards.push(waiting.thread);
        }
        Ok(())
    }

    /// Waits for the shards, whose end lets the other threads end. Shards that were never begun end at once.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.shards.extend(self.waiting.drain(..).map(|waiting| waiting.thread));
        let mut outcome = Ok(());
        for thread in self.shards.drain(..) {
            let ended = shard::join(thread);
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        for thread in self.helpers.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_string();
            if thread.join().is_err() && outcome.is_ok() {
                outcome = Err(Error::Panicked(name));
            }
        }
        outcome
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // If the role could not start, shards that wait end when their `begin` goes.
        if !self.waiting.is_empty() {
            self.stop.trigger();
        }
    }
}

/// Gives each shard its sockets.
fn sort(config: &RackConfig, descriptors: Vec<(Descriptor, OwnedFd)>) -> Result<Vec<Sockets>, Error> {
    let mut shards: Vec<Sockets> = (0..config.shards).map(|_| Sockets::default()).collect();
    let no_shard = Error::Descriptors("a socket is for a shard that the configuration does not have");
    let Some(first) = shards.first_mut() else { return Err(Error::Descriptors("a rack has at least one shard")) };
    first.links = config
        .interfaces
        .iter()
        .map(|interface| LinkSockets { interface: interface.clone(), dhcp: None, packet: None, icmp6: None })
        .collect();
    let option = Error::system("setting a socket's options");
    for (descriptor, fd) in descriptors {
        let place = match descriptor {
            Descriptor::Http { shard, .. } => {
                socket::set_stream_options(fd.as_fd()).map_err(&option)?;
                let Some(shard) = shards.get_mut(usize::from(shard)) else { return Err(no_shard) };
                shard.http.push(fd);
                continue;
            }
            Descriptor::Tftp { shard, .. } => {
                socket::report_packet_information(fd.as_fd(), false).map_err(&option)?;
                let Some(shard) = shards.get_mut(usize::from(shard)) else { return Err(no_shard) };
                shard.tftp.push(fd);
                continue;
            }
            // Bound to the address that is asked: nobody needs to be told which one it was.
            Descriptor::Dns { shard, .. } => {
                let Some(shard) = shards.get_mut(usize::from(shard)) else { return Err(no_shard) };
                shard.dns.push(fd);
                continue;
            }
            Descriptor::Dhcp { interface } => {
                socket::report_packet_information(fd.as_fd(), false).map_err(&option)?;
                link(&mut shards, interface).map(|link| &mut link.dhcp)
            }
            Descriptor::Packet { interface } => link(&mut shards, interface).map(|link| &mut link.packet),
            Descriptor::Icmp6 { interface } => {
                socket::report_packet_information(fd.as_fd(), true).map_err(&option)?;
                link(&mut shards, interface).map(|link| &mut link.icmp6)
            }
            Descriptor::AgentTls { .. } => return Err(Error::Descriptors("agents' TLS belongs to the gateway")),
        };
        let place =
            place.ok_or(Error::Descriptors("a socket is for an interface that the configuration does not have"))?;
        if place.replace(fd).is_some() {
            return Err(Error::Descriptors("an interface has two sockets of one kind"));
        }
    }
    Ok(shards)
}

fn link(shards: &mut [Sockets], interface: u32) -> Option<&mut LinkSockets> {
    shards.first_mut()?.links.iter_mut().find(|link| link.interface.index == interface)
}
