//! One rack and 200 machines under one seed: virtual time; datagrams lost, repeated and late; agents' requests and answers
//! lost; a journal that commits late; the rack's host losing power.
//!
//! # Fault model
//! - A datagram is lost (1 in 10), comes twice (1 in 20), and takes 1 to 150 ms, so that order is not kept.
//! - A request over TCP or its answer is lost (1 in 20: the connection broke); the machine asks again after 2 s.
//! - A batch is durable 1 to 60 ms after it was written, in order. At a crash the disk keeps what its fault model says.
//! - After a crash the rack is away for 3 s, and every request in flight is lost.
//!
//! # What must hold at every seed
//! - Every machine comes to its agent's plan done, with the key it made.
//! - No address is acknowledged to two machines at a time.
//! - What was promised (a grant to a key, *written*) is the same after every crash.
//! - Control sees each result once, under numbers without a gap, whatever was repeated on the way.
//! - The same seed gives the same run.

mod support;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bootstorm_engine::script::Format;
use bootstorm_engine::{Answer, Engine, Entropy, Index, Output, Report, Request, ScriptRequest, Time};
use bootstorm_journal::sim::{Random, SimDisk};
use bootstorm_journal::{Journal, OnDamage};
use bootstorm_proto::dhcp::client::{Client, Output as Dhcp, Profile};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::Delivery;
use bootstorm_proto::dhcp::wire::Answer as DhcpAnswer;
use bootstorm_proto::http::server::Method;
use bootstorm_snapshot::plan::{After, Plan};
use bootstorm_snapshot::{
    ClaimHash, CredentialHash, Generation, KeyHash, Mac, Observation, Observed, Subject, Task, View,
};
use support::*;

const MACHINES: u16 = 200;
/// Every fourth machine is unknown to control.
const UNKNOWN_EACH: u16 = 4;
const CRASHES: u32 = 6;
const RETRY_MILLISECONDS: u64 = 2000;
const END_MILLISECONDS: u64 = 15 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    PowerOn(u16),
    /// A machine looks at its clock.
    Timer(u16, u32),
    ToRack(Vec<u8>),
    ToMachine(u16, Vec<u8>),
    ScriptAsked(u16, u32),
    Script(u16, u32, Option<String>),
    AgentAsked(u16, u32),
    AgentAnswered(u16, u32, u32),
    Durable(u64, u64),
    RackTimer,
    Publish,
    Acknowledge,
    Crash,
    RackUp,
}

/// Where a machine is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Off,
    Dhcp,
    Script,
    Redeem(ClaimHash),
    /// The next report's number; true once the plan's work is reported.
    Report(u64),
    Done,
}

struct Machine {
    stage: Stage,
    /// Changes with every step, so that late timers and answers are known for what they are.
    step: u32,
    dhcp: Client,
    key: KeyHash,
    subject: Option<Subject>,
    plan: Option<Box<Plan>>,
}

struct World {
    random: Random,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    machines: BTreeMap<u16, Machine>,
    view: View,
    disk: SimDisk,
    rack: Option<(Engine, Journal<SimDisk>)>,
    life: u64,
    /// Answers under way to (machine, step), kept out of the heap for their size.
    tickets: BTreeMap<u64, (u16, u32)>,
    answers: Vec<Answer>,
    next_ticket: u64,
    /// Address to (machine, end in milliseconds), as acknowledged.
    leases: BTreeMap<Ipv4Addr, (Mac, u64)>,
    /// What control has seen.
    seen: BTreeMap<u64, Observed>,
    grants: BTreeMap<KeyHash, BTreeSet<String>>,
    crashes: u32,
    trace: blake3::Hasher,
}

impl World {
    fn new(seed: u64) -> World {
        let mut view = site();
        for n in (1..=MACHINES).filter(|n| n % UNKNOWN_EACH != 0) {
            match n % 2 {
                0 => put_work(&mut view, n, u64::from(n), erase(), After::Wait),
                _ => put_work(&mut view, n, u64::from(n), deploy(), After::StartSystem),
            }
        }
        let mut random = Random(seed);
        let profiles = [Profile::IPXE_BIOS, Profile::IPXE_UEFI];
        let machines = (1..=MACHINES).map(|n| {
            let profile = profiles[usize::from(n) % 2];
            let transaction = u32::try_from(random.below(1 << 31)).expect("31 bits");
            let dhcp = Client::new(profile, mac(n).0, [u8::try_from(n % 251).expect("small"); 16], transaction);
            let key = KeyHash::of(&[seed.to_le_bytes().as_slice(), &n.to_le_bytes()].concat());
            (n, Machine { stage: Stage::Off, step: 0, dhcp, key, subject: None, plan: None })
        });
        let machines = machines.collect();
        let disk = SimDisk::new(seed);
        let mut world = World {
            random,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            machines,
            view,
            disk,
            rack: None,
            life: 0,
            tickets: BTreeMap::new(),
            answers: vec![],
            next_ticket: 0,
            leases: BTreeMap::new(),
            seen: BTreeMap::new(),
            grants: BTreeMap::new(),
            crashes: 0,
            trace: blake3::Hasher::new(),
        };
        world.rack_up();
        for n in 1..=MACHINES {
            let delay = world.between(0, 3000);
            world.after(delay, Event::PowerOn(n));
        }
        for _ in 0..CRASHES {
            let delay = world.between(1000, 30_000);
            world.after(delay, Event::Crash);
        }
        world.after(500, Event::Publish);
        world.after(700, Event::Acknowledge);
        world
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.random.next_u64() % (high - low + 1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.random.next_u64().is_multiple_of(count)
    }

    fn after(&mut self, milliseconds: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + milliseconds, self.order, event)));
    }

    fn time(&self) -> Time {
        at(self.now)
    }

    fn entropy(&mut self) -> Entropy {
        entropy(self.random.next_u64())
    }

    fn run(mut self) -> ([u8; 32], u32) {
        while let Some(Reverse((due, _, event))) = self.events.pop() {
            assert!(due <= END_MILLISECONDS, "machines left behind: {:?}", self.left_behind());
            self.now = due;
            self.trace.update(format!("{due} {event:?}").as_bytes());
            self.step(event);
            self.drain();
            if self.left_behind().is_empty() && self.crashes == CRASHES && self.rack.is_some() {
                break;
            }
        }
        self.acknowledge_all();
        self.check();
        (*self.trace.finalize().as_bytes(), self.crashes)
    }

    fn left_behind(&self) -> Vec<(u16, Stage)> {
        let waiting = self.machines.iter().filter(|(_, machine)| machine.stage != Stage::Done);
        waiting.map(|(n, machine)| (*n, machine.stage.clone())).collect()
    }

    fn step(&mut self, event: Event) {
        let now = self.time();
        match event {
            Event::PowerOn(n) => {
                let machine = self.machines.get_mut(&n).expect("there");
                machine.stage = Stage::Dhcp;
                machine.dhcp.start(now.monotonic);
                self.dhcp(n);
            }
            Event::Timer(n, step) => self.timer(n, step),
            Event::ToRack(bytes) => {
                if let Some((engine, _)) = &mut self.rack {
                    let from = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                    engine.handle_dhcp(now, INTERFACE, from, Delivery::Broadcast, &bytes);
                }
            }
            Event::ToMachine(n, bytes) => {
                let machine = self.machines.get_mut(&n).expect("there");
                // Late and repeated answers are refused by the client, as it should.
                let _ = machine.dhcp.handle_datagram(now.monotonic, &bytes);
                self.dhcp(n);
            }
            Event::ScriptAsked(n, step) => {
                let (ticket, entropy) = (self.ticket(n, step), self.entropy());
                let request =
                    ScriptRequest { ticket, mac: mac(n), rack: RACK, format: Format::Ipxe, method: Method::Get };
                if let Some((engine, _)) = &mut self.rack {
                    engine.handle_script(now, entropy, request);
                }
            }
            Event::Script(n, step, text) => self.script(n, step, text.as_deref()),
            Event::AgentAsked(n, step) => self.agent_asked(n, step),
            Event::AgentAnswered(n, step, at) => self.agent_answered(n, step, at),
            Event::Durable(life, sequence) => {
                if life == self.life
                    && let Some((engine, journal)) = &mut self.rack
                {
                    journal.commit().expect("the disk works");
                    engine.handle_committed(sequence);
                }
            }
            Event::RackTimer => {
                if let Some((engine, _)) = &mut self.rack {
                    engine.handle_timeout(now);
                }
                self.after(250, Event::RackTimer);
            }
            Event::Publish => self.publish(),
            Event::Acknowledge => {
                self.acknowledge();
                self.after(700, Event::Acknowledge);
            }
            Event::Crash => {
                self.crashes += 1;
                if self.rack.take().is_some() {
                    self.disk = self.disk.crash(self.random.next_u64());
                    self.after(3000, Event::RackUp);
                }
            }
            Event::RackUp => self.rack_up(),
        }
    }

    fn rack_up(&mut self) {
        let (journal, recovered) = Journal::open(self.disk.clone(), OnDamage::Refuse).expect("a whole prefix");
        let index = Arc::new(Index::new(self.view.clone()));
        let records = recovered.records();
        let engine = Engine::recover(self.time(), config(), index, recovered.last_sequence, records).expect("ours");
        self.life += 1;
        if self.life == 1 {
            self.after(250, Event::RackTimer);
        }
        self.rack = Some((engine, journal));
    }

    /// Control publishes the machines that have enlisted, with work for them.
    fn publish(&mut self) {
        let enlisted: Vec<_> = self
            .seen
            .values()
            .filter_map(|one| match one {
                Observed::Redeemed { subject: Subject::Enrolment { enrolment, mac: Mac([.., high, low]) }, .. } => {
                    Some((*enrolment, u16::from_be_bytes([*high, *low])))
                }
                _ => None,
            })
            .filter(|(enrolment, _)| !self.view.enrolments.contains_key(enrolment))
            .collect();
        for (enrolment, n) in enlisted {
            put_work(&mut self.view, n, u64::from(n), Task::Commission, After::Wait);
            put_enrolment(&mut self.view, enrolment, n);
        }
        self.view.generation = Generation(self.view.generation.0 + 1);
        let now = self.time();
        if let Some((engine, _)) = &mut self.rack {
            engine.handle_index(now, Arc::new(Index::new(self.view.clone())));
        }
        self.after(500, Event::Publish);
    }

    /// Control takes observations; sometimes its acknowledgement does not arrive, and they come again.
    fn acknowledge(&mut self) {
        let lost = self.one_in(3);
        let Some((engine, _)) = &mut self.rack else { return };
        let observations = engine.observations(0, 100_000);
        let through = observations.last().map(|one| one.sequence);
        if let (Some(through), false) = (through, lost) {
            engine.handle_acknowledged(through);
        }
        self.take(observations);
    }

    fn acknowledge_all(&mut self) {
        // Whatever is on its way to the disk arrives.
        while let Some(Reverse((due, _, event))) = self.events.pop() {
            if let Event::Durable(..) = event {
                self.now = due;
                self.step(event);
                self.drain();
            }
        }
        let observations = self.rack.as_ref().map(|(engine, _)| engine.observations(0, 100_000)).unwrap_or_default();
        self.take(observations);
    }

    fn take(&mut self, observations: Vec<Observation>) {
        for Observation { sequence, observed, .. } in observations {
            let before = self.seen.insert(sequence, observed.clone());
            assert!(before.is_none_or(|before| before == observed), "number {sequence} has two meanings");
        }
    }

    fn ticket(&mut self, n: u16, step: u32) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, (n, step));
        self.next_ticket
    }

    fn drain(&mut self) {
        while let Some(output) = self.rack.as_mut().and_then(|(engine, _)| engine.poll_output()) {
            match output {
                Output::Commit { records, last_sequence } => {
                    let (_, journal) = self.rack.as_mut().expect("it has just spoken");
                    let sequences = journal.append(&records).expect("the disk works");
                    assert_eq!(*sequences.end(), last_sequence);
                    let (delay, life) = (self.between(1, 60), self.life);
                    self.after(delay, Event::Durable(life, last_sequence));
                }
                Output::Dhcp { bytes, .. } => {
                    let answer = DhcpAnswer::parse(&bytes).expect("ours");
                    self.check_address(&answer);
                    let [.., high, low] = answer.client_hardware_address;
                    self.deliver(|bytes| Event::ToMachine(u16::from_be_bytes([high, low]), bytes), bytes);
                }
                Output::Script { ticket, text } => {
                    let (n, step) = self.tickets.remove(&ticket).expect("asked for");
                    if !self.one_in(20) {
                        let delay = self.between(1, 50);
                        self.after(delay, Event::Script(n, step, text));
                    }
                }
                Output::Answer { number, answer } => {
                    let (n, step) = self.tickets.remove(&number).expect("asked for");
                    self.check_grant(n, &answer);
                    if !self.one_in(20) {
                        self.answers.push(answer);
                        let place = u32::try_from(self.answers.len() - 1).expect("few");
                        let delay = self.between(1, 50);
                        self.after(delay, Event::AgentAnswered(n, step, place));
                    }
                }
                Output::Advertise { .. } | Output::Observe(_) => {}
            }
        }
    }

    /// No two machines hold one address: checked when an Ack leaves, which is when it is promised.
    fn check_address(&mut self, answer: &DhcpAnswer) {
        if answer.message_type != MessageType::Ack {
            return;
        }
        let mac = Mac(answer.client_hardware_address);
        if let Some((holder, until)) = self.leases.get(&answer.your_ip) {
            assert!(*holder == mac || *until <= self.now, "{} is {holder}'s and {mac}'s", answer.your_ip);
        }
        let seconds = u64::from(answer.lease_seconds.expect("a lease"));
        self.leases.insert(answer.your_ip, (mac, self.now + seconds * 1000));
    }

    /// A key speaks for one subject of each operation, before and after every crash.
    fn check_grant(&mut self, n: u16, answer: &Answer) {
        if let Answer::Granted { subject, plan } = answer {
            let operation = plan.operation.map_or("enrolment".to_string(), |operation| operation.to_string());
            let key = self.machines[&n].key;
            let grants = self.grants.entry(key).or_default();
            let same = grants.iter().filter(|grant| grant.starts_with(&operation)).count();
            if grants.insert(format!("{operation} {subject:?}")) {
                assert_eq!(same, 0, "machine {n} has two subjects: {grants:?}");
            }
        }
    }

    /// A datagram on its way.
    fn deliver(&mut self, event: impl Fn(Vec<u8>) -> Event, bytes: Vec<u8>) {
        let copies = if self.one_in(10) { 0 } else { 1 + u32::from(self.one_in(20)) };
        for _ in 0..copies {
            let delay = self.between(1, 150);
            self.after(delay, event(bytes.clone()));
        }
    }

    fn dhcp(&mut self, n: u16) {
        loop {
            let machine = self.machines.get_mut(&n).expect("there");
            match machine.dhcp.poll_output() {
                Some(Dhcp::Send(bytes)) => {
                    let bytes = bytes.to_vec();
                    self.deliver(Event::ToRack, bytes);
                }
                Some(Dhcp::Bound(answer)) => {
                    assert!(answer.boot_file.as_deref().is_some_and(|url| url.contains("/boot.ipxe?mac=")));
                    machine.stage = Stage::Script;
                    self.ask_again(n, 0);
                    return;
                }
                Some(Dhcp::Failed(_)) => {
                    // As firmware does: from the start.
                    let transaction = u32::try_from(self.random.below(1 << 31)).expect("31 bits");
                    let machine = self.machines.get_mut(&n).expect("there");
                    machine.dhcp = Client::new(Profile::IPXE_BIOS, mac(n).0, [1; 16], transaction);
                    self.after(500, Event::PowerOn(n));
                    return;
                }
                None => break,
            }
        }
        let machine = &self.machines[&n];
        if let Some(due) = machine.dhcp.next_timeout() {
            let due = u64::try_from(due.as_millis()).expect("small");
            let step = machine.step;
            self.after(due.saturating_sub(self.now), Event::Timer(n, step));
        }
    }

    /// Begins the next step after a while, with its own retry.
    fn ask_again(&mut self, n: u16, milliseconds: u64) {
        let machine = self.machines.get_mut(&n).expect("there");
        machine.step += 1;
        let step = machine.step;
        self.after(milliseconds, Event::Timer(n, step));
    }

    fn timer(&mut self, n: u16, step: u32) {
        let now = self.time();
        let machine = self.machines.get_mut(&n).expect("there");
        if machine.step != step {
            return;
        }
        match machine.stage {
            Stage::Dhcp => {
                machine.dhcp.handle_timeout(now.monotonic);
                self.dhcp(n);
            }
            Stage::Script | Stage::Redeem(_) | Stage::Report(_) => {
                let event = if machine.stage == Stage::Script { Event::ScriptAsked } else { Event::AgentAsked };
                if !self.one_in(20) {
                    let delay = self.between(1, 50);
                    self.after(delay, event(n, step));
                }
                self.after(RETRY_MILLISECONDS, Event::Timer(n, step));
            }
            Stage::Off | Stage::Done => {}
        }
    }

    fn script(&mut self, n: u16, step: u32, text: Option<&str>) {
        let machine = self.machines.get_mut(&n).expect("there");
        if machine.step != step {
            return;
        }
        let text = text.expect("every machine has a script");
        match text.split("bootstorm.claim=").nth(1).and_then(|rest| rest.get(..32)) {
            Some(digits) => {
                let octet = |at: usize| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).expect("hexadecimal");
                let claim: Vec<u8> = (0..16).map(octet).collect();
                machine.stage = Stage::Redeem(ClaimHash::of(&claim));
                let boot = self.between(1000, 3000);
                self.ask_again(n, boot);
            }
            None => {
                let seconds = text.split("sleep ").nth(1).and_then(|rest| rest.split('\n').next());
                let seconds: u64 = seconds.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{text}"));
                self.ask_again(n, seconds * 1000);
            }
        }
    }

    fn agent_asked(&mut self, n: u16, step: u32) {
        let machine = &self.machines[&n];
        if machine.step != step {
            return;
        }
        let key = machine.key;
        let is_enrolled = matches!(machine.subject, Some(Subject::Enrolment { .. }));
        let request = match machine.stage {
            Stage::Redeem(claim) => Request::Redeem { claim, key },
            Stage::Report(2) if is_enrolled => {
                Request::Plan { key, known: machine.subject, wait: Duration::from_secs(1) }
            }
            Stage::Report(sequence) => {
                let task = machine.plan.as_ref().map(|plan| &plan.task);
                let report = match task {
                    Some(Task::Deploy(_)) => Report::Written { credential: CredentialHash::of(&key.0) },
                    _ => Report::Finished,
                };
                Request::Report { key, sequence, report }
            }
            Stage::Off | Stage::Dhcp | Stage::Script | Stage::Done => return,
        };
        let (ticket, now) = (self.ticket(n, step), self.time());
        if let Some((engine, _)) = &mut self.rack {
            engine.handle_request(now, ticket, request);
        }
    }

    fn agent_answered(&mut self, n: u16, step: u32, place: u32) {
        let answer = self.answers[place as usize].clone();
        let machine = self.machines.get_mut(&n).expect("there");
        if machine.step != step {
            return;
        }
        match (machine.stage.clone(), answer) {
            (Stage::Redeem(_) | Stage::Report(_), Answer::Granted { subject, plan }) => {
                machine.subject = Some(subject);
                machine.plan = Some(plan);
                machine.stage = Stage::Report(1);
                let work = self.between(500, 2500);
                self.ask_again(n, work);
            }
            (Stage::Report(1), Answer::Done) => {
                let is_enrolled = matches!(machine.subject, Some(Subject::Enrolment { .. }));
                machine.stage = if is_enrolled { Stage::Report(2) } else { Stage::Done };
                self.ask_again(n, 100);
            }
            (Stage::Report(_), Answer::Unchanged) => self.ask_again(n, 0),
            // A claim that a crash has replaced: the agent gives up and the machine boots again.
            (Stage::Redeem(_), Answer::Refused { code, .. }) => {
                assert_eq!(code, bootstorm_engine::Refusal::UnknownClaim, "machine {n}");
                machine.stage = Stage::Script;
                self.ask_again(n, 1000);
            }
            (stage, answer) => panic!("machine {n} in {stage:?} is answered {answer:?}"),
        }
    }

    fn check(&self) {
        assert!(self.seen.keys().copied().eq(1..=self.seen.len() as u64), "numbers without a gap");
        let (mut redeemed, mut results, mut enrolled) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for observed in self.seen.values() {
            match observed {
                Observed::Redeemed { subject, key } => {
                    *redeemed.entry((*key, format!("{subject:?}"))).or_insert(0) += 1;
                    if let Subject::Enrolment { mac, .. } = subject {
                        enrolled.insert(*mac);
                    }
                }
                Observed::Written { subject } | Observed::Finished { subject } => {
                    *results.entry(format!("{subject:?}")).or_insert(0) += 1;
                }
                Observed::Failed { .. } => panic!("{observed:?}"),
                _ => {}
            }
        }
        let unknown = usize::from(MACHINES / UNKNOWN_EACH);
        assert_eq!(enrolled.len(), unknown, "each unknown machine has enlisted");
        assert!(redeemed.values().all(|count| *count == 1), "each grant is seen once");
        assert!(results.values().all(|count| *count == 1), "each result is seen once");
        assert_eq!(redeemed.len(), usize::from(MACHINES) + unknown);
        assert_eq!(results.len(), usize::from(MACHINES) + unknown);
    }
}

#[test]
fn two_hundred_machines_come_to_their_ends_whatever_happens_on_the_way() {
    for seed in 1..=4 {
        let (_, crashes) = World::new(seed).run();
        assert_eq!(crashes, CRASHES, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(World::new(77).run(), World::new(77).run());
    assert_ne!(World::new(77).run().0, World::new(78).run().0);
}
