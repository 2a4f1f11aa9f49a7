//! The engine on shard 0 and what feeds it: DHCP, router solicitations, scripts, the gateway's requests, the journal.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bootstorm_api::limits::{LOCAL_REQUESTS_IN_FLIGHT_MAX, OBSERVATIONS_BATCH_MAX};
use bootstorm_api::local::{self, ToGateway};
use bootstorm_api::role::RackInterface;
use bootstorm_driver::{Datagram, Destination, Event, Operation, Peer, SendDatagram, SocketId, Waker};
use bootstorm_engine::{Answer, Engine, Output, Refusal, Report, Request, ScriptRequest};
use bootstorm_journal::{Committed, JournalThread, Report as JournalReport, SubmitError};
use bootstorm_proto::dhcp::server::{Delivery, Destination as DhcpDestination};
use bootstorm_proto::dhcp::{CLIENT_PORT, SERVER_PORT};
use bootstorm_proto::eth::{UDP_FRAME_HEADER_BYTES, UdpFrame};
use bootstorm_proto::ndp;
use bootstorm_snapshot::{Ipv4Net, Observation};
use bytes::Bytes;

use crate::clock::entropy;
use crate::commits::{Batch, Commits};
use crate::core::{Core, Kind, token};
use crate::mail::{FromGateway, Mail, ScriptAsk, Waiter};
use crate::outbox::Outbox;
use crate::slab::Key;
use crate::{Error, limits};

/// What the journal's thread has said and shard 0 has not yet looked at: merged, so it cannot grow.
#[derive(Debug, Default)]
pub(crate) struct JournalNews(Mutex<News>);

#[derive(Debug, Default)]
struct News {
    committed: Option<Committed>,
    compaction_ended: bool,
    stopped: Option<String>,
}

impl JournalNews {
    /// Called on the journal's thread.
    pub(crate) fn report(&self, report: JournalReport, waker: &Waker) {
        {
            let mut news = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match report {
                JournalReport::Committed(committed) => news.committed = Some(committed),
                JournalReport::Compacted(committed) => {
                    (news.committed, news.compaction_ended) = (Some(committed), true);
                }
                JournalReport::CompactionFailed(error) => {
                    tracing::warn!(%error, "the journal could not be compacted");
                    news.compaction_ended = true;
                }
                JournalReport::Stopped(error) => news.stopped = Some(error.to_string()),
            }
        }
        waker.wake();
    }

    fn take(&self) -> News {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An interface with shard 0's sockets on it.
pub(crate) struct Link {
    pub(crate) interface: RackInterface,
    pub(crate) dhcp: Option<SocketId>,
    pub(crate) packet: Option<SocketId>,
    pub(crate) icmp6: Option<SocketId>,
}

/// The engine and its surroundings.
pub(crate) struct Brain {
    engine: Engine,
    journal: JournalThread,
    news: Arc<JournalNews>,
    outbox: Arc<Outbox>,
    links: Vec<Link>,
    commits: Commits,
    compacting: bool,
    /// What the journal is to hold after its compaction is being gathered, some of it each turn.
    gathering: bool,
    /// Why the journal has stopped, and when the role ends for it.
    stopped: Option<(String, Instant)>,
    scripts: HashMap<u64, Waiter>,
    /// Requests of the gateway by the number that the engine knows them by.
    requests: HashMap<u64, (u64, u64)>,
    next_ticket: u64,
    /// The gateway's stream in use.
    stream: Option<u64>,
    acknowledged: u64,
    sent_through: u64,
    sent_at: Option<Instant>,
    observations_due: bool,
    metrics_at: Option<Instant>,
    metrics_due: bool,
}

impl Brain {
    pub(crate) fn new(
        engine: Engine,
        journal: JournalThread,
        news: Arc<JournalNews>,
        outbox: Arc<Outbox>,
        links: Vec<Link>,
    ) -> Brain {
        Brain {
            engine,
            journal,
            news,
            outbox,
            links,
            commits: Commits::default(),
            compacting: false,
            gathering: false,
            stopped: None,
            scripts: HashMap::new(),
            requests: HashMap::new(),
            next_ticket: 0,
            stream: None,
            acknowledged: 0,
            sent_through: 0,
            sent_at: None,
            observations_due: true,
            metrics_at: None,
            metrics_due: true,
        }
    }

    /// Begins to receive on its sockets.
    pub(crate) fn listen(&mut self, core: &mut Core) {
        for (link, slot) in self.links.iter().zip(0u32..) {
            let key = Key { slot, generation: 0 };
            for (kind, socket) in [(Kind::Dhcp, link.dhcp), (Kind::Solicitation, link.icmp6)] {
                if let Some(socket) = socket {
                    // Firmware gives up where DHCP waits behind the transfers of others.
                    core.submit(token(kind, key), Operation::ReceiveAhead { socket });
                }
            }
        }
    }

    /// Takes no more datagrams.
    pub(crate) fn stop(&mut self, core: &mut Core) {
        for link in &self.links {
            let sockets = [link.dhcp, link.icmp6];
            sockets.into_iter().flatten().for_each(|socket| core.driver.remove_socket(socket));
        }
    }

    /// Commits what was handed to the journal and ends its thread.
    pub(crate) fn close(mut self, core: &Core) {
        if let Err(error) = self.submit_all(core) {
            tracing::warn!(%error, "not everything was committed at the end");
        }
        self.journal.close();
    }

    pub(crate) fn handle_dhcp(&mut self, core: &mut Core, key: Key, event: Event) {
        let Some(link) = self.links.get(key.slot as usize) else { return };
        let datagram = match datagram(core, event, "dhcp") {
            Some(datagram) => datagram,
            None => return,
        };
        let Peer::Address(from) = datagram.peer else { return };
        let delivery = delivery(&link.interface, datagram.destination);
        self.engine.handle_dhcp(core.time, link.interface.index, from.ip(), delivery, &datagram.bytes);
    }

    pub(crate) fn handle_solicitation(&mut self, core: &mut Core, key: Key, event: Event) {
        let Some(link) = self.links.get(key.slot as usize) else { return };
        let Some(datagram) = datagram(core, event, "ndp") else { return };
        let Peer::Address(SocketAddr::V6(from)) = datagram.peer else { return };
        let destination = match datagram.destination {
            Some(IpAddr::V6(address)) => address,
            Some(IpAddr::V4(_)) | None => Ipv6Addr::UNSPECIFIED,
        };
        // The driver does not tell the hop limit. The socket is bound to its interface, and what an advertisement of ours
        // does to whoever is further away is nothing: it makes no router.
        let received = ndp::Received { source: *from.ip(), destination, hop_limit: 255, message: &datagram.bytes };
        self.engine.handle_solicitation(core.time, link.interface.index, &received);
    }

    pub(crate) fn handle_mail(&mut self, core: &mut Core, mail: Mail) -> Result<(), Error> {
        match mail {
            Mail::AskScript(ask) => self.ask_script(core, ask)?,
            Mail::Fetched { from, stage } => self.engine.handle_fetched(core.time, from, stage),
            Mail::Gateway { stream, message } => self.handle_gateway(core, stream, message),
            Mail::Index(index) => self.engine.handle_index(core.time, index),
            Mail::Manifest { .. } | Mail::Bytes { .. } | Mail::Chunks { .. } | Mail::Script { .. } => {}
        }
        Ok(())
    }

    fn ask_script(&mut self, core: &mut Core, ask: ScriptAsk) -> Result<(), Error> {
        if self.scripts.len() >= limits::SCRIPTS_PENDING_MAX {
            core.shared.metrics.dropped("scripts", "pending");
            core.tell_shard(ask.waiter.shard, Mail::Script { token: ask.waiter.token, text: None });
            return Ok(());
        }
        let ticket = self.ticket();
        self.scripts.insert(ticket, ask.waiter);
        let request = ScriptRequest { ticket, mac: ask.mac, rack: ask.rack, format: ask.format, method: ask.method };
        self.engine.handle_script(core.time, entropy()?, request);
        Ok(())
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn handle_gateway(&mut self, core: &mut Core, stream: u64, message: FromGateway) {
        if !matches!(message, FromGateway::Opened) && self.stream != Some(stream) {
            return;
        }
        match message {
            FromGateway::Opened => {
                self.forget_stream();
                self.stream = Some(stream);
                self.send_again();
            }
            FromGateway::Gone => self.forget_stream(),
            FromGateway::Request { number, request } => {
                if self.requests.len() >= LOCAL_REQUESTS_IN_FLIGHT_MAX {
                    core.shared.metrics.dropped("gateway", "requests");
                    let detail = "too many requests in flight".to_string();
                    let answer = local::Answer::Refused { code: local::Refusal::Busy, detail };
                    self.outbox.send(&ToGateway::Answer { number, answer });
                    return;
                }
                let ticket = self.ticket();
                self.requests.insert(ticket, (stream, number));
                self.engine.handle_request(core.time, ticket, to_engine(request));
            }
            FromGateway::Acknowledged { through } => {
                self.acknowledged = self.acknowledged.max(through);
                self.sent_through = self.sent_through.max(self.acknowledged);
                self.sent_at = (self.sent_through > self.acknowledged).then_some(core.now);
                self.engine.handle_acknowledged(through);
                self.observations_due = true;
            }
            FromGateway::ControlConnected => self.send_again(),
        }
    }

    fn forget_stream(&mut self) {
        if self.stream.take().is_some() {
            self.requests.clear();
            self.engine.handle_gateway_gone();
        }
    }

    /// What is not acknowledged may have been lost with the link.
    fn send_again(&mut self) {
        self.sent_through = self.acknowledged;
        self.sent_at = None;
        self.observations_due = true;
    }

    /// When something is due, on the driver's clock.
    pub(crate) fn next_timeout(&self, core: &Core) -> Option<Instant> {
        let engine = self.engine.next_timeout(core.time).map(|due| core.shared.clock.instant(due));
        let resend = self.sent_at.map(|at| at + limits::OBSERVATIONS_RESEND);
        let metrics = self.metrics_at.filter(|_| self.metrics_due).map(|at| at + limits::METRICS_INTERVAL);
        let commit = self.commits.due(core.now);
        let stopped = self.stopped.as_ref().map(|(_, until)| *until);
        let gathering = (self.gathering && self.commits.is_empty()).then_some(core.now);
        [engine, resend, metrics, commit, stopped, gathering].into_iter().flatten().min()
    }

    /// Once a turn, after its inputs: the journal's news, timers, and everything the engine wants done.
    pub(crate) fn turn(&mut self, core: &mut Core) -> Result<(), Error> {
        let news = self.news.take();
        if let Some(reason) = news.stopped {
            tracing::error!(%reason, "the journal has stopped: leases are kept, and nothing new is given, until the role ends");
            self.engine.handle_journal_stopped();
            self.stopped = Some((reason, core.now + limits::JOURNAL_STOPPED_GRACE));
        }
        if let Some((reason, until)) = &self.stopped
            && *until <= core.now
        {
            let reason = reason.clone();
            self.drain(core)?;
            return Err(Error::JournalStopped(reason));
        }
        self.compacting &= !news.compaction_ended;
        if let Some(committed) = news.committed {
            self.engine.handle_committed(committed.last_sequence);
            self.engine.handle_waiting(core.time);
            self.commits.committed(committed.last_sequence);
            self.observations_due = true;
        }
        if self.engine.next_timeout(core.time).is_some_and(|due| due <= core.time.monotonic) {
            self.engine.handle_timeout(core.time);
        }
        if self.sent_at.is_some_and(|at| at + limits::OBSERVATIONS_RESEND <= core.now) {
            self.send_again();
        }
        self.drain(core)?;
        while let Some(batch) = self.commits.take(core.now) {
            self.submit(batch)?;
        }
        self.gathering |= !self.compacting && news.committed.is_some_and(|committed| committed.compaction_due);
        if self.gathering && self.engine.gather_live_records(limits::GATHERED_LEASES) {
            self.compact(core)?;
        }
        self.send_observations(core);
        self.lay_out_metrics(core);
        Ok(())
    }

    fn drain(&mut self, core: &mut Core) -> Result<(), Error> {
        while let Some(output) = self.engine.poll_output() {
            self.metrics_due = true;
            match output {
                Output::Dhcp { interface, to, bytes } => self.send_dhcp(core, interface, to, bytes),
                Output::Advertise { interface, to, bytes } => self.advertise(core, interface, to.address(), bytes),
                Output::Script { ticket, text } => {
                    if let Some(waiter) = self.scripts.remove(&ticket) {
                        core.tell_shard(waiter.shard, Mail::Script { token: waiter.token, text });
                    }
                }
                Output::Answer { number, answer } => self.answer(core, number, answer),
                Output::Commit { records, last_sequence } => {
                    self.commits.push(records, last_sequence);
                }
                Output::Observe(observation) => {
                    if self.stream.is_some() {
                        self.outbox.send(&ToGateway::Observations { observations: vec![observation] });
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands a batch to the journal. What its queue has no room for waits for its next report; the engine bounds what is not
    /// committed.
    fn submit(&mut self, batch: Batch) -> Result<(), Error> {
        let Batch { records, last_sequence } = batch;
        match self.journal.submit(records) {
            Ok(given) if given == last_sequence => Ok(()),
            Ok(given) => {
                let why = format!("sequence `{given}` was given where the engine counts `{last_sequence}`");
                Err(Error::JournalStopped(why))
            }
            Err(SubmitError::Busy(records)) => {
                self.commits.give_back(Batch { records, last_sequence });
                Ok(())
            }
            // Its last report says why.
            Err(SubmitError::Stopped(_)) => Ok(()),
            Err(error @ SubmitError::TooLarge(_)) => Err(Error::JournalStopped(error.to_string())),
        }
    }

    /// Hands over what waits, whether it is time or not, as far as the journal's queue takes it.
    fn submit_all(&mut self, core: &Core) -> Result<(), Error> {
        while let Some(batch) = self.commits.take_any(core.now) {
            let (first, before) = (batch.last_sequence, self.journal.last_sequence());
            self.submit(batch)?;
            if self.journal.last_sequence() == before && first > before {
                break;
            }
        }
        Ok(())
    }

    /// The engine's state stands for all records that it has handed out: all of them must be the journal's first.
    fn compact(&mut self, core: &Core) -> Result<(), Error> {
        self.submit_all(core)?;
        if !self.commits.is_empty() {
            // The journal's queue is full: it is tried again in the next turn.
            return Ok(());
        }
        self.gathering = false;
        match self.journal.compact(self.engine.live_records()) {
            Ok(()) => self.compacting = true,
            Err(error) => tracing::warn!(%error, "the journal is not compacted now"),
        }
        Ok(())
    }

    fn answer(&mut self, core: &Core, ticket: u64, answer: Answer) {
        let Some((stream, number)) = self.requests.remove(&ticket) else { return };
        if self.stream != Some(stream) {
            return;
        }
        if !self.outbox.send(&ToGateway::Answer { number, answer: from_engine(answer) }) {
            core.shared.metrics.dropped("gateway", "answer_unsent");
        }
    }

    /// Sends numbered observations in batches, as many as may be without acknowledgement. A batch that is not full waits for
    /// the acknowledgement of those before it: what is noted of a storm's leases is then written together.
    fn send_observations(&mut self, core: &Core) {
        if self.stream.is_none() || !std::mem::take(&mut self.observations_due) {
            return;
        }
        let mut batch_max = OBSERVATIONS_BATCH_MAX;
        while self.sent_through.saturating_sub(self.acknowledged) < limits::OBSERVATIONS_IN_FLIGHT_MAX {
            if self.sent_through > self.acknowledged && !self.engine.has_observations(self.sent_through, batch_max) {
                return;
            }
            let observations: Vec<Observation> = self.engine.observations(self.sent_through, batch_max);
            let Some(last) = observations.last().map(|last| last.sequence) else { return };
            if self.outbox.send(&ToGateway::Observations { observations }) {
                self.sent_through = last;
                self.sent_at.get_or_insert(core.now);
            } else if batch_max > 1 {
                // A frame holds 1 MiB, and inventories are long.
                batch_max /= 4;
            } else {
                // No room, or no stream: it is tried again with the next acknowledgement or after a while.
                self.sent_at.get_or_insert(core.now);
                return;
            }
        }
    }

    fn lay_out_metrics(&mut self, core: &Core) {
        let rested = self.metrics_at.is_none_or(|at| at + limits::METRICS_INTERVAL <= core.now);
        if self.metrics_due && rested {
            self.metrics_due = false;
            self.metrics_at = Some(core.now);
            core.shared.metrics.set_engine(self.engine.counters().collect(), self.engine.stats());
        }
    }

    fn link(&self, interface: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.interface.index == interface)
    }

    fn send_dhcp(&self, core: &mut Core, interface: u32, to: DhcpDestination, bytes: Vec<u8>) {
        let Some(link) = self.link(interface) else { return };
        let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        let to = match to {
            DhcpDestination::Relay(to) | DhcpDestination::Unicast(to) => to,
            DhcpDestination::Broadcast => broadcast,
            DhcpDestination::LinkUnicast { mac, your_ip } => {
                if let Some(packet) = link.packet {
                    let frame = UdpFrame {
                        source_mac: link.interface.mac.0,
                        destination_mac: mac,
                        source: SocketAddrV4::new(link.interface.address, SERVER_PORT),
                        destination: SocketAddrV4::new(your_ip, CLIENT_PORT),
                        payload: &bytes,
                    };
                    let mut buffer = vec![0; UDP_FRAME_HEADER_BYTES + bytes.len()];
                    match frame.write(&mut buffer) {
                        Ok(length) => {
                            buffer.truncate(length);
                            let to = Destination::Link { interface };
                            return send(core, packet, to, (None, None), buffer.into());
                        }
                        Err(error) => tracing::error!(%error, "a frame could not be written"),
                    }
                }
                broadcast
            }
        };
        let Some(socket) = link.dhcp else { return };
        let source = Some(IpAddr::V4(link.interface.address));
        send(core, socket, Destination::Address(to.into()), (source, Some(interface)), bytes.into());
    }

    fn advertise(&self, core: &mut Core, interface: u32, to: Ipv6Addr, bytes: Vec<u8>) {
        let Some(socket) = self.link(interface).and_then(|link| link.icmp6) else { return };
        let to = SocketAddrV6::new(to, 0, 0, interface);
        send(core, socket, Destination::Address(to.into()), (None, Some(interface)), bytes.into());
    }
}

fn send(
    core: &mut Core,
    socket: SocketId,
    to: Destination,
    (source, interface): (Option<IpAddr>, Option<u32>),
    bytes: Bytes,
) {
    let send = SendDatagram { socket, to, source, interface, parts: bytes.into(), segment_bytes: None };
    core.submit(token(Kind::Sent, Key { slot: 0, generation: 0 }), Operation::SendDatagram(send));
}

/// The datagram of an event, if it is a whole one.
fn datagram(core: &Core, event: Event, protocol: &'static str) -> Option<Datagram> {
    match event {
        Event::Datagram(datagram) if !datagram.is_truncated => Some(datagram),
        Event::Datagram(_) => {
            core.shared.metrics.dropped(protocol, "too_long");
            None
        }
        Event::Failed(error) => {
            tracing::error!(%error, protocol, "receiving failed");
            None
        }
        _ => None,
    }
}

/// Whether a datagram was sent to this host alone.
fn delivery(interface: &RackInterface, destination: Option<IpAddr>) -> Delivery {
    let Some(IpAddr::V4(to)) = destination else { return Delivery::Broadcast };
    let network = Ipv4Net::containing(interface.address, interface.prefix_bits);
    let is_last = |network: Ipv4Net| {
        let host_bits = 32 - u32::from(interface.prefix_bits.min(32));
        let ones = u32::MAX.checked_shr(32 - host_bits).unwrap_or(0);
        host_bits > 1 && network.contains(to) && to.to_bits() & ones == ones
    };
    if to.is_broadcast() || to.is_multicast() || network.is_some_and(is_last) {
        Delivery::Broadcast
    } else {
        Delivery::Unicast
    }
}

fn to_engine(request: local::Request) -> Request {
    match request {
        local::Request::Redeem { claim, key } => Request::Redeem { claim, key },
        local::Request::Plan { key, known, wait_seconds } => {
            Request::Plan { key, known, wait: Duration::from_secs(wait_seconds) }
        }
        local::Request::Report { key, sequence, report } => {
            let report = match report {
                local::Report::Alive => Report::Alive,
                local::Report::Stage { stage, progress, detail } => Report::Stage { stage, progress, detail },
                local::Report::Inventory { inventory } => Report::Inventory { inventory },
                local::Report::Written { credential } => Report::Written { credential },
                local::Report::Finished => Report::Finished,
                local::Report::Failed { failure } => Report::Failed { failure },
            };
            Request::Report { key, sequence, report }
        }
        local::Request::Ready { credential, result } => Request::Ready { credential, result },
    }
}

fn from_engine(answer: Answer) -> local::Answer {
    match answer {
        Answer::Granted { subject, plan } => local::Answer::Granted { subject, plan },
        Answer::Unchanged => local::Answer::Unchanged,
        Answer::Done => local::Answer::Done,
        Answer::Refused { code, detail } => {
            let code = match code {
                Refusal::UnknownClaim => local::Refusal::UnknownClaim,
                Refusal::ClaimTaken => local::Refusal::ClaimTaken,
                Refusal::UnknownKey => local::Refusal::UnknownKey,
                Refusal::TooManyAttempts => local::Refusal::TooManyAttempts,
                Refusal::OutOfOrder => local::Refusal::OutOfOrder,
                Refusal::UnknownCredential => local::Refusal::UnknownCredential,
                Refusal::Busy => local::Refusal::Busy,
                Refusal::Stopped => local::Refusal::Stopped,
            };
            local::Answer::Refused { code, detail: detail.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::Mac;

    #[test]
    fn broadcasts_are_told_from_unicasts() {
        let interface = RackInterface {
            name: "x".into(),
            index: 2,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            address: [10, 1, 0, 1].into(),
            prefix_bits: 16,
            mtu: 1500,
        };
        let table = [
            ("255.255.255.255", Delivery::Broadcast),
            ("10.1.255.255", Delivery::Broadcast),
            ("10.1.0.1", Delivery::Unicast),
            ("10.2.255.255", Delivery::Unicast),
        ];
        for (to, expected) in table {
            assert_eq!(delivery(&interface, Some(to.parse().expect("address"))), expected, "{to}");
        }
        assert_eq!(delivery(&interface, None), Delivery::Broadcast);
    }
}
