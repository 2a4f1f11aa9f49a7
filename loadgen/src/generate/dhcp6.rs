//! DHCPv6: whole exchanges (Solicit, Advertise, Request, Reply), renewals and releases of many clients.
//!
//! All clients speak from one link-local address, as those behind a switch that forges nothing else would not, but a server
//! tells clients by identifier only (RFC 8415 §11). Each has a DUID of its own and one identity association. Clients take
//! turns, as in [`super::dhcp`].

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use bootstorm_driver::socket;
use bootstorm_proto::dhcp6::wire::{Answer, ClientMessage, Duid};
use bootstorm_proto::dhcp6::{ALL_SERVERS, CLIENT_PORT, MessageType, SERVER_PORT, code};
use bootstorm_proto::limits::{DHCP6_MESSAGE_BYTES_MAX, DUID_BYTES_MAX};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, sendto};
use socket2::{Domain, Protocol, Socket, Type};

use super::ready::{Interest, Ready};
use super::{Clock, Error, Outcome, Pace, recorder};
use crate::limits;
use crate::report::Recorder;
use crate::schedule::Sequence;

/// What is timed.
pub const STAGES: &[&str] = &["solicit-advertise", "request-reply", "exchange", "renewal"];
const SOLICIT_ADVERTISE: usize = 0;
const REQUEST_REPLY: usize = 1;
const EXCHANGE: usize = 2;
const RENEWAL: usize = 3;

/// Which identifier clients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Identifier {
    /// From a MAC address (DUID-LL).
    Ll,
    /// From a UUID (DUID-UUID), as boot firmware has it.
    Uuid,
}

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Interface that faces the server; it needs a link-local address.
    pub interface: String,
    /// Clients that take turns; up to [`limits::CLIENTS_MAX`].
    pub clients: u32,
    /// Exchanges begun a second.
    pub rate_per_second: f64,
    /// For how long.
    pub duration: Duration,
    /// Share of the turns, 0 to 1, in which a client that holds a lease prolongs it.
    pub renew: f64,
    /// Whether a client gives its address back as soon as it has it.
    pub release: bool,
    /// Clients' identifiers.
    pub identifier: Identifier,
    /// Whether they ask as boot firmware does: options 59 and 60, and their own 61 and 62.
    pub boot: bool,
    /// Time after which an exchange that has not ended is lost.
    pub lost_after: Duration,
    /// Decides identifiers and transaction ids.
    pub seed: u64,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Soliciting,
    Requesting,
    Bound,
    Renewing,
}

impl State {
    /// Whether an answer is waited for, and in which stage.
    fn awaits(self) -> Option<usize> {
        match self {
            State::Idle | State::Bound => None,
            State::Soliciting => Some(SOLICIT_ADVERTISE),
            State::Requesting => Some(REQUEST_REPLY),
            State::Renewing => Some(RENEWAL),
        }
    }
}

/// A client's row.
#[derive(Clone, Copy)]
struct Client {
    state: State,
    /// 24 bits.
    transaction_id: u32,
    exchange: u64,
    due: Duration,
    begun: Duration,
    sent: Duration,
    address: Ipv6Addr,
    /// The server by its place in the table of servers.
    server: u8,
}

const NOBODY: Client = Client {
    state: State::Idle,
    transaction_id: 0,
    exchange: u64::MAX,
    due: Duration::ZERO,
    begun: Duration::ZERO,
    sent: Duration::ZERO,
    address: Ipv6Addr::UNSPECIFIED,
    server: 0,
};

/// Servers that are told apart on one link.
const SERVERS_MAX: usize = 16;
/// UEFI amd64 by HTTP (RFC 5970 §3.3 with IANA's list).
const ARCHITECTURE: u16 = 16;
const BOOT_OPTIONS: &[u16] = &[code::BOOT_FILE_URL, code::BOOT_FILE_PARAMETERS];
const MESSAGE_BYTES_MAX: usize = 512;

/// Plays it.
pub fn play(settings: &Settings, clock: &mut Clock) -> Result<Outcome, Error> {
    let mut generator = Generator::new(settings)?;
    clock.restart();
    generator.run(clock)?;
    let late = generator.pace.late();
    let Generator { recorder, started, done, .. } = generator;
    Ok(Outcome { recorder, started, done, wall: clock.now(), late })
}

struct Generator<'a> {
    settings: &'a Settings,
    socket: UdpSocket,
    servers_address: SocketAddrV6,
    ready: Ready,
    clients: Vec<Client>,
    /// First octets of all identifiers; the index follows.
    run: [u8; 8],
    servers: Vec<Vec<u8>>,
    random: Sequence,
    pace: Pace,
    recorder: Recorder,
    started: u64,
    done: u64,
    oldest: u64,
}

impl<'a> Generator<'a> {
    fn new(settings: &'a Settings) -> Result<Generator<'a>, Error> {
        let told = |source| Error::Interface { name: settings.interface.clone(), source };
        let index = socket::interface_index(&settings.interface).map_err(told)?;
        let made = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).map_err(told)?;
        made.set_only_v6(true).map_err(told)?;
        made.bind_device(Some(settings.interface.as_bytes())).map_err(told)?;
        made.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0).into()).map_err(told)?;
        made.set_multicast_if_v6(index).map_err(told)?;
        socket::set_receive_buffer(made.as_fd(), limits::GENERATOR_SOCKET_BYTES).map_err(told)?;
        let ready = Ready::new()?;
        ready.add(&made, 0, Interest::Read)?;
        let mut random = Sequence::new(settings.seed);
        Ok(Generator {
            settings,
            socket: made.into(),
            servers_address: SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, index),
            ready,
            clients: vec![NOBODY; settings.clients as usize],
            run: random.next().to_be_bytes(),
            servers: Vec::new(),
            random,
            pace: Pace::new(settings.rate_per_second, settings.duration),
            recorder: recorder(STAGES, settings.duration),
            started: 0,
            done: 0,
            oldest: 0,
        })
    }

    fn run(&mut self, clock: &mut Clock) -> Result<(), Error> {
        loop {
            if clock.is_stopped() {
                self.pace.end();
            }
            for _ in 0..limits::BURST_MESSAGES {
                let now = clock.now();
                let Some((number, due)) = self.pace.take(now) else { break };
                self.start(now, number, due)?;
            }
            let received = self.receive(clock)?;
            let now = clock.now();
            clock.show(now, &self.recorder);
            let oldest_due = self.expire(now);
            let next_start = self.pace.next_due();
            if next_start.is_none() && oldest_due.is_none() {
                return Ok(());
            }
            if received == 0 {
                let next = next_start.into_iter().chain(oldest_due).min();
                self.ready.wait(next.map(|next| next.saturating_sub(clock.now())))?;
            }
        }
    }

    fn start(&mut self, now: Duration, number: u64, due: Duration) -> Result<(), Error> {
        self.started += 1;
        let index = (number % self.clients.len() as u64) as usize;
        let transaction_id = self.random.next() as u32 & 0x00ff_ffff;
        let renews = self.settings.renew > 0.0 && self.random.fraction() < self.settings.renew;
        let client = &mut self.clients[index];
        if let Some(stage) = client.state.awaits() {
            self.recorder.failed_exchange(now, stage, "its next turn came first: use more clients");
            client.state = State::Idle;
        }
        let is_renewal = client.state == State::Bound && renews;
        *client = Client { transaction_id, exchange: number, due, begun: now, sent: now, ..*client };
        client.state = if is_renewal { State::Renewing } else { State::Soliciting };
        self.send(index, now, if is_renewal { MessageType::Renew } else { MessageType::Solicit })
    }

    fn send(&self, index: usize, now: Duration, message_type: MessageType) -> Result<(), Error> {
        let client = &self.clients[index];
        let knows_server = message_type != MessageType::Solicit;
        let server = self.servers.get(usize::from(client.server)).map(Vec::as_slice);
        let is_boot = self.settings.boot && message_type != MessageType::Release;
        let message = ClientMessage {
            message_type,
            transaction_id: client.transaction_id,
            client: self.identifier(index),
            server: server.filter(|_| knows_server),
            elapsed_hundredths: u16::try_from(now.saturating_sub(client.begun).as_millis() / 10).unwrap_or(u16::MAX),
            association_id: index as u32,
            address: knows_server.then_some(client.address),
            option_request: if is_boot { BOOT_OPTIONS } else { &[] },
            architecture: is_boot.then_some(ARCHITECTURE),
        };
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let Some(length) = message.encode(&mut buffer) else { return Ok(()) };
        match sendto(&self.socket, &buffer[..length], SendFlags::DONTWAIT, &self.servers_address) {
            // What there is no room for is lost on its way.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::socket("sending to ff02::1:2 (is there a link-local address?)")(errno)),
        }
    }

    fn identifier(&self, index: usize) -> Duid {
        let [a, b, ..] = self.run;
        let [c, d, e, f] = (index as u32).to_be_bytes();
        match self.settings.identifier {
            // The index has 24 bits: its first octet is always zero.
            Identifier::Ll => Duid::LinkLayer([0x02, a, b, d, e, f]),
            Identifier::Uuid => {
                let mut uuid = [0; 16];
                uuid[..8].copy_from_slice(&self.run);
                uuid[12..].copy_from_slice(&[c, d, e, f]);
                Duid::Uuid(uuid)
            }
        }
    }

    fn receive(&mut self, clock: &Clock) -> Result<usize, Error> {
        let mut buffer = [0; DHCP6_MESSAGE_BYTES_MAX + 1];
        for count in 0..limits::BURST_MESSAGES {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => self.handle(clock.now(), &buffer[..length])?,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(count),
                Err(errno) => return Err(Error::socket("receiving an answer")(errno)),
            }
        }
        Ok(limits::BURST_MESSAGES)
    }

    fn handle(&mut self, now: Duration, message: &[u8]) -> Result<(), Error> {
        // What is no answer, or for nobody here, is somebody else's.
        let Ok(answer) = Answer::parse(message) else { return Ok(()) };
        let Some(index) = answer.client.last_chunk::<3>().map(|[d, e, f]| u32::from_be_bytes([0, *d, *e, *f])) else {
            return Ok(());
        };
        let index = index as usize;
        if index >= self.clients.len() || !self.identifier(index).is(answer.client) {
            return Ok(());
        }
        let client = self.clients[index];
        if client.transaction_id != answer.transaction_id {
            return Ok(());
        }
        let lease = answer.lease.filter(|lease| lease.association_id == index as u32 && lease.valid_seconds > 0);
        match (client.state, answer.message_type, lease) {
            (State::Soliciting, MessageType::Advertise, Some(lease)) => {
                let Some(server) = self.server(answer.server) else { return Ok(()) };
                self.recorder.timed(SOLICIT_ADVERTISE, now.saturating_sub(client.due));
                let state = State::Requesting;
                self.clients[index] = Client { state, address: lease.address, server, sent: now, ..client };
                self.send(index, now, MessageType::Request)
            }
            (State::Requesting | State::Renewing, MessageType::Reply, Some(lease)) => {
                // RFC 8415 §16.10 with the threat model's rule: an answer of another server is none.
                if self.servers.get(usize::from(client.server)).is_none_or(|server| server != answer.server) {
                    return Ok(());
                }
                self.done += 1;
                let whole = if client.state == State::Renewing { RENEWAL } else { EXCHANGE };
                if whole == EXCHANGE {
                    self.recorder.timed(REQUEST_REPLY, now.saturating_sub(client.sent));
                }
                self.recorder.exchange(now, whole, now.saturating_sub(client.due));
                self.clients[index] = Client { state: State::Bound, address: lease.address, ..client };
                if self.settings.release {
                    self.send(index, now, MessageType::Release)?;
                    self.clients[index].state = State::Idle;
                }
                Ok(())
            }
            (State::Soliciting, MessageType::Advertise, None)
            | (State::Requesting | State::Renewing, MessageType::Reply, None) => {
                let stage = client.state.awaits().unwrap_or(EXCHANGE);
                self.clients[index].state = State::Idle;
                match answer.status {
                    Some(status) => self.recorder.failed_exchange(now, stage, &format!("status {}", status.0)),
                    None => self.recorder.failed_exchange(now, stage, "no address"),
                }
                Ok(())
            }
            // The answer to a release, a second server's, or a copy.
            _ => Ok(()),
        }
    }

    /// A server's place in the table; `None` when that is full.
    fn server(&mut self, identifier: &[u8]) -> Option<u8> {
        debug_assert!(identifier.len() <= DUID_BYTES_MAX);
        let known = self.servers.iter().position(|known| known == identifier);
        let place = known.or_else(|| {
            (self.servers.len() < SERVERS_MAX).then(|| {
                self.servers.push(identifier.to_vec());
                self.servers.len() - 1
            })
        });
        place.and_then(|place| u8::try_from(place).ok())
    }

    /// Counts what has waited too long; when the next one will have.
    fn expire(&mut self, now: Duration) -> Option<Duration> {
        while self.oldest < self.started {
            let index = (self.oldest % self.clients.len() as u64) as usize;
            let client = &mut self.clients[index];
            if let Some(stage) = client.state.awaits().filter(|_| client.exchange == self.oldest) {
                let lost = client.begun + self.settings.lost_after;
                if lost > now {
                    return Some(lost);
                }
                client.state = State::Idle;
                let reason = if stage == SOLICIT_ADVERTISE { "no advertise" } else { "no reply" };
                self.recorder.failed_exchange(now, stage, reason);
            }
            self.oldest += 1;
        }
        None
    }
}
