//! The engine itself: its state, its promises, its timers.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bootstorm_journal::Live;
use bootstorm_proto::dhcp::server::Destination;
use bootstorm_snapshot::{Ipv4Net, Mac, Observation, Observed, Stage, Subject, View};

use crate::agent::{Answer, HeldPlans};
use crate::attempts::{Attempts, Who};
use crate::counters::{Counter, Counters};
use crate::index::Index;
use crate::leases::{Copied, Leases};
use crate::ndp::AdvertiseTo;
use crate::record::{LEASE_BYTES, Record, RecordError};
use crate::spool::{Spool, Worth};
use crate::waiting::{Rank, Waiting};
use crate::{Time, limits};

/// What the engine must know of its rack; fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Interfaces served.
    pub interfaces: Vec<Interface>,
    /// Port of the rack's HTTP, as in URLs.
    pub http_port: u16,
    /// Port of agents' TLS, as in scripts.
    pub agent_port: u16,
}

/// One interface of the rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Kernel index.
    pub index: u32,
    /// Link-level address.
    pub mac: Mac,
    /// The rack's address on it.
    pub address: Ipv4Addr,
    /// Length of its mask in bits.
    pub prefix_bits: u8,
}

impl Interface {
    /// The network that the interface is in.
    pub fn network(&self) -> Option<Ipv4Net> {
        Ipv4Net::containing(self.address, self.prefix_bits)
    }
}

/// What the shard is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a DHCP reply: from the interface's address and port 67.
    Dhcp {
        /// The interface of the request.
        interface: u32,
        /// Where to.
        to: Destination,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Send a router advertisement with hop limit 255.
    Advertise {
        /// The interface of the solicitation.
        interface: u32,
        /// Where to.
        to: AdvertiseTo,
        /// The ICMPv6 message; its checksum is the kernel's business.
        bytes: Vec<u8>,
    },
    /// The answer to [`Engine::handle_script`].
    Script {
        /// The caller's number.
        ticket: u64,
        /// The script; `None` where there is none for this machine (404).
        text: Option<String>,
    },
    /// The answer to [`Engine::handle_request`].
    Answer {
        /// The gateway's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// Write these payloads as one batch. The last one has this sequence; then [`Engine::handle_committed`].
    Commit {
        /// Payloads, at least one.
        records: Vec<Vec<u8>>,
        /// Journal sequence of the last of them.
        last_sequence: u64,
    },
    /// Something for control that is not worth keeping; numbered observations come from [`Engine::observations`].
    Observe(Observation),
}

/// Sizes of the engine's tables, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Leases that have not ended.
    pub leases: usize,
    /// Observations that control has not acknowledged.
    pub spooled: usize,
    /// Unknown machines in enrolment.
    pub enrolments: usize,
    /// Records not yet durable.
    pub uncommitted: u64,
    /// Plan requests held open.
    pub held_plans: usize,
    /// DHCP requests that wait for room in the journal.
    pub waiting: usize,
}

/// The engine. The crate's documentation states its contract.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) index: Arc<Index>,
    pub(crate) leases: Leases,
    pub(crate) attempts: Attempts,
    pub(crate) spool: Spool,
    pub(crate) held_plans: HeldPlans,
    pub(crate) waiting: Waiting,
    pub(crate) counters: Counters,
    pub(crate) advertised: BTreeMap<u32, (u64, u32)>,
    ready: VecDeque<Output>,
    /// Outputs that wait for a journal sequence, in its order.
    held: VecDeque<(u64, Output)>,
    /// Payloads of this input.
    batch: Vec<Vec<u8>>,
    promised: Vec<Output>,
    submitted: u64,
    committed: u64,
    /// Octets of each batch not yet durable, by its last sequence, and all of them together.
    uncommitted: VecDeque<(u64, usize)>,
    uncommitted_bytes: usize,
    /// Addresses whose leases are not durable as they are now, by the sequence that makes them so.
    doubtful: VecDeque<(u64, Ipv4Addr)>,
    stopped: bool,
}

impl Engine {
    /// An engine without history, for a journal whose last sequence is `last_sequence`.
    pub fn new(config: Config, index: Arc<Index>, last_sequence: u64) -> Engine {
        Engine {
            config,
            index,
            leases: Leases::default(),
            attempts: Attempts::default(),
            spool: Spool::default(),
            held_plans: HeldPlans::default(),
            waiting: Waiting::default(),
            counters: Counters::default(),
            advertised: BTreeMap::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            batch: Vec::new(),
            promised: Vec::new(),
            submitted: last_sequence,
            committed: last_sequence,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            doubtful: VecDeque::new(),
            stopped: false,
        }
    }

    /// An engine with the journal's records, given in order with their sequences. Agents that spoke before count as heard
    /// just now: none is taken for gone because the rack was.
    pub fn recover<'a>(
        now: Time,
        config: Config,
        index: Arc<Index>,
        last_sequence: u64,
        records: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Result<Engine, RecordError> {
        let mut engine = Engine::new(config, index, last_sequence);
        for (sequence, payload) in records {
            engine.replay(sequence, Record::decode(payload)?, payload.len());
        }
        engine.attempts.restart(now.monotonic);
        Ok(engine)
    }

    fn replay(&mut self, sequence: u64, record: Record, bytes: usize) {
        match record {
            Record::Lease(lease) => drop(self.leases.put(lease)),
            Record::LeaseForgotten { address } => drop(self.leases.remove(address)),
            Record::Quarantine { address, until_unix_seconds } => {
                self.leases.quarantine(address, until_unix_seconds);
            }
            Record::State(state) => drop(self.attempts.put(*state).who),
            Record::MachineForgotten { machine } => drop(self.attempts.remove(Who::Machine { machine })),
            Record::EnrolmentForgotten { enrolment } => {
                let who = self
                    .attempts
                    .all()
                    .map(|state| state.who)
                    .find(|who| matches!(who, Who::Enrolment { enrolment: known, .. } if *known == enrolment));
                who.and_then(|who| self.attempts.remove(who));
            }
            Record::Observed(observation) => self.spool.push(*observation, sequence, bytes),
            Record::Spool { acknowledged, last_number } => self.spool.restore(acknowledged, last_number),
        }
    }

    /// Copies so many leases for [`Engine::live_records`], which then has the rest to do only; true when all are copied.
    /// A million at once would hold up everybody who waits for an answer.
    pub fn gather_live_records(&mut self, leases: usize) -> bool {
        self.leases.copy(leases)
    }

    /// What must be in the journal for [`Engine::recover`] to know everything: for its compaction. Stands for all records
    /// handed out so far. Leases are encoded where they are written.
    pub fn live_records(&mut self) -> Live {
        let Copied { leases, changed } = self.leases.take_copy();
        let count = leases.len() as u64;
        let leases = Live::new(leases.into_iter().map(|lease| lease.encode()), count, count * LEASE_BYTES as u64);
        let changed = changed.into_iter().map(|(address, lease)| match lease {
            Some(lease) => Record::Lease(lease),
            None => Record::LeaseForgotten { address },
        });
        let (acknowledged, last_number) = self.spool.marks();
        let marks = Record::Spool { acknowledged, last_number };
        let quarantine = self
            .leases
            .quarantined()
            .map(|(address, until_unix_seconds)| Record::Quarantine { address, until_unix_seconds });
        let states = self.attempts.all().cloned().map(|state| Record::State(Box::new(state)));
        let spool = self.spool.kept().cloned().map(|observation| Record::Observed(Box::new(observation)));
        let rest = changed.chain(quarantine).chain(states).chain(spool).chain([marks]);
        leases.chain(Live::from(rest.map(|record| record.encode()).collect::<Vec<_>>()))
    }

    /// The indexes in use.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// A new generation takes effect. Plan requests that it answers are answered.
    pub fn handle_index(&mut self, now: Time, index: Arc<Index>) {
        let had_site = self.index.view().site.is_some();
        self.index = index;
        // An empty view is a rack that has lost its snapshot, not a site without machines.
        if had_site && self.index.view().site.is_some() {
            self.forget_machines();
            self.finish_if_large();
        }
        self.review_held_plans(now);
        self.finish();
    }

    fn forget_machines(&mut self) {
        let gone = self.attempts.all().filter_map(|state| match state.who {
            Who::Machine { machine } if self.index.boot(machine).is_none() => Some(machine),
            Who::Machine { .. } | Who::Enrolment { .. } => None,
        });
        // Those left over go with the next generation.
        for machine in gone.take(limits::BATCH_RECORDS).collect::<Vec<_>>() {
            if !self.may_commit() {
                break;
            }
            self.attempts.remove(Who::Machine { machine });
            self.journal(Record::MachineForgotten { machine });
        }
    }

    /// All records up to and with this sequence are durable.
    pub fn handle_committed(&mut self, sequence: u64) {
        self.committed = self.committed.max(sequence.min(self.submitted));
        while let Some((_, output)) = self.held.pop_front_if(|(needed, _)| *needed <= self.committed) {
            self.ready.push_back(output);
        }
        while let Some((_, bytes)) = self.uncommitted.pop_front_if(|(last, _)| *last <= self.committed) {
            self.uncommitted_bytes -= bytes;
        }
        while self.doubtful.pop_front_if(|(needed, _)| *needed <= self.committed).is_some() {}
    }

    /// The journal has stopped: nothing can be promised any more, and what was held never comes.
    pub fn handle_journal_stopped(&mut self) {
        self.stopped = true;
        self.held.clear();
        self.waiting = Waiting::default();
    }

    /// Control has applied observations through this number.
    pub fn handle_acknowledged(&mut self, through: u64) {
        if self.spool.acknowledge(through) {
            let (acknowledged, last_number) = self.spool.marks();
            self.journal(Record::Spool { acknowledged, last_number });
            self.finish();
        }
    }

    /// Numbered, durable observations after a number, oldest first.
    pub fn observations(&self, after: u64, count: usize) -> Vec<Observation> {
        self.spool.after(after, count, self.committed)
    }

    /// Whether [`Engine::observations`] has so many after a number.
    pub fn has_observations(&self, after: u64, count: usize) -> bool {
        self.spool.has(after, count, self.committed)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        for address in self.leases.expire(now.monotonic, now.unix_seconds()) {
            if !self.may_commit() {
                break;
            }
            self.end_lease(now, address);
            self.finish_if_large();
        }
        self.expire_held_plans(now);
        self.finish();
    }

    /// When [`Engine::handle_timeout`] is due, on the monotonic clock.
    pub fn next_timeout(&self, now: Time) -> Option<Duration> {
        let lease = self.leases.next_lease_end().map(|second| {
            let seconds = second.saturating_sub(now.unix_seconds());
            now.monotonic + Duration::from_secs(seconds.max(1))
        });
        let plan = self.held_plans.next_timeout();
        [lease, self.leases.next_offer_end(), plan].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }

    /// Counters since the start.
    pub fn counters(&self) -> impl Iterator<Item = (Counter, u64)> {
        self.counters.iter()
    }

    /// One counter.
    pub fn count(&self, family: &'static str, label: &'static str) -> u64 {
        self.counters.get(family, label)
    }

    /// Sizes of the tables.
    pub fn stats(&self) -> Stats {
        Stats {
            leases: self.leases.active(),
            spooled: self.spool.len(),
            enrolments: self.attempts.enrolments(),
            uncommitted: self.submitted - self.committed,
            held_plans: self.held_plans.len(),
            waiting: self.waiting.len(),
        }
    }

    /// The lease that holds an address now.
    pub fn lease_at(&self, address: Ipv4Addr) -> Option<&crate::Lease> {
        self.leases.holder(address)
    }

    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.config.interfaces.iter().find(|interface| interface.index == index)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether something may be written to the journal now.
    pub(crate) fn may_commit(&self) -> bool {
        let records = self.submitted - self.committed + self.batch.len() as u64;
        let bytes = self.uncommitted_bytes;
        !self.stopped && records < limits::UNCOMMITTED_RECORDS_MAX && bytes < limits::UNCOMMITTED_BYTES_MAX
    }

    /// As [`Engine::may_commit`], for a client of this rank: who is less known waits earlier.
    pub(crate) fn may_commit_for(&self, rank: Rank) -> bool {
        let records = self.submitted - self.committed + self.batch.len() as u64;
        self.may_commit() && records < rank.uncommitted_records_max()
    }

    /// The lease of an address is durable as it is now only with the record added last. At most one is added by each
    /// record, so these are bounded as the records are.
    pub(crate) fn doubt(&mut self, address: Ipv4Addr) {
        self.doubtful.push_back((self.submitted + self.batch.len() as u64, address));
    }

    pub(crate) fn is_doubtful(&self, address: Ipv4Addr) -> bool {
        self.doubtful.iter().any(|(_, doubtful)| *doubtful == address)
    }

    /// Adds a record to the batch of this input.
    pub(crate) fn journal(&mut self, record: Record) {
        self.batch.push(record.encode());
    }

    /// Adds the state of somebody to the batch, as it is now.
    pub(crate) fn journal_state(&mut self, who: Who) {
        if let Some(state) = self.attempts.get(who) {
            let state = Box::new(state.clone());
            self.batch.push(Record::State(state).encode());
        }
    }

    /// An output that depends on nothing.
    pub(crate) fn emit(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// An output that comes when everything decided so far is durable.
    pub(crate) fn promise(&mut self, output: Output) {
        self.promised.push(output);
    }

    /// Keeps an observation for control. False if the spool has no room for one of this worth.
    pub(crate) fn observe(&mut self, now: Time, worth: Worth, observed: Observed) -> bool {
        if !self.spool.has_room(worth) {
            self.counters.add("observations_dropped", "spool_full");
            return false;
        }
        let number = self.spool.next_number();
        let observation = Observation { sequence: number, unix_micros: now.unix_micros, observed };
        let payload = Record::Observed(Box::new(observation.clone())).encode();
        let sequence = self.submitted + self.batch.len() as u64 + 1;
        // Its size in the journal is about its size in memory.
        self.spool.push(observation, sequence, payload.len());
        self.batch.push(payload);
        true
    }

    /// Observes a stage of somebody's subject, once.
    pub(crate) fn observe_stage(&mut self, now: Time, who: Who, subject: Subject, stage: Stage, detail: String) {
        let mut first = false;
        self.attempts.change(who, |state| first = state.note_stage(subject, stage));
        if first {
            self.journal_state(who);
            self.observe(now, Worth::Minor, Observed::Stage { subject, stage, progress: None, detail });
        }
    }

    /// Tells control that a person should look, not more often than makes sense.
    pub(crate) fn alarm(&mut self, now: Time, who: Who, code: &'static str, subject: Option<Subject>, detail: String) {
        self.counters.add("alarms", code);
        if self.may_commit() && self.attempts.may_alarm(who, now.monotonic) {
            self.observe(now, Worth::Minor, Observed::Alarm { code: code.to_string(), subject, detail });
        }
    }

    /// Between two decisions of one input: a batch that has grown large goes to the journal now, since one has its limits.
    pub(crate) fn finish_if_large(&mut self) {
        if self.batch.len() >= limits::BATCH_RECORDS {
            self.finish();
        }
    }

    /// Ends an input: its records go to the journal as one batch, its promises wait for them.
    pub(crate) fn finish(&mut self) {
        if self.stopped {
            self.batch.clear();
            self.promised.clear();
            return;
        }
        if !self.batch.is_empty() {
            let records = std::mem::take(&mut self.batch);
            self.submitted += records.len() as u64;
            let bytes = records.iter().map(Vec::len).sum();
            self.uncommitted.push_back((self.submitted, bytes));
            self.uncommitted_bytes += bytes;
            self.ready.push_back(Output::Commit { records, last_sequence: self.submitted });
        }
        // Also without records of its own a reply may rest on ones still on their way to the disk.
        for output in self.promised.drain(..) {
            if self.committed < self.submitted {
                self.held.push_back((self.submitted, output));
            } else {
                self.ready.push_back(output);
            }
        }
    }

    /// The view in use.
    pub(crate) fn view(&self) -> &View {
        self.index.view()
    }
}
