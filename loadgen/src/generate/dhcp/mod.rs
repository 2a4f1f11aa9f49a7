//! DHCPv4: whole exchanges (Discover, Offer, Request, Ack), renewals and releases of many clients.
//!
//! Frames leave with each client's own MAC address through a packet socket, so that a server sees what it would see of
//! real machines, and answers are taken whether they come as broadcasts or as link-level unicast. A kernel filter keeps
//! everything else away. The clients are a flat table; clients take turns, and one whose turn comes before its last exchange
//! has ended counts that as failed. Nothing is sent twice: what is lost is counted.

mod arp;
mod template;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bootstorm_driver::socket::{self, Promiscuous};
use bootstorm_proto::dhcp::brief::Brief;
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::{CLIENT_PORT, MacAddress};
use bootstorm_proto::eth::{Checksums, UdpFrame};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;

use super::ready::{Interest, Ready};
use super::{Clock, Error, Outcome, Pace, recorder};
use crate::report::Recorder;
use crate::schedule::Sequence;
use crate::{limits, link};
use arp::Question;
use template::Template;
pub use template::checksum;

/// What is timed.
pub const STAGES: &[&str] = &["discover-offer", "request-ack", "exchange", "renewal"];
const DISCOVER_OFFER: usize = 0;
const REQUEST_ACK: usize = 1;
const EXCHANGE: usize = 2;
const RENEWAL: usize = 3;

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Interface that faces the server.
    pub interface: String,
    /// Clients that take turns; up to [`limits::CLIENTS_MAX`].
    pub clients: u32,
    /// Exchanges begun a second.
    pub rate_per_second: f64,
    /// For how long.
    pub duration: Duration,
    /// Share of the turns, 0 to 1, in which a client that holds a lease prolongs it instead of asking anew.
    pub renew: f64,
    /// Whether a client gives its address back as soon as it has it.
    pub release: bool,
    /// Time after which an exchange that has not ended is lost.
    pub lost_after: Duration,
    /// Decides MAC addresses and transaction ids.
    pub seed: u64,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Without a lease.
    Idle,
    /// Has sent a Discover.
    Selecting,
    /// Has sent a Request for an offer.
    Requesting,
    /// Has a lease.
    Bound,
    /// Has sent a Request for what it has.
    Renewing,
}

impl State {
    /// Whether an answer is waited for: in which stage, and what it is called that none came.
    fn awaits(self) -> Option<(usize, &'static str)> {
        match self {
            State::Idle | State::Bound => None,
            State::Selecting => Some((DISCOVER_OFFER, "no offer")),
            State::Requesting => Some((REQUEST_ACK, "no ack")),
            State::Renewing => Some((RENEWAL, "no ack")),
        }
    }
}

/// A client's row.
#[derive(Clone, Copy)]
struct Client {
    state: State,
    transaction_id: u32,
    /// Number of its exchange.
    exchange: u64,
    /// When that was due.
    due: Duration,
    /// When it began.
    begun: Duration,
    /// When its last message was sent.
    sent: Duration,
    address: Ipv4Addr,
    server: Ipv4Addr,
    server_mac: MacAddress,
}

const NOBODY: Client = Client {
    state: State::Idle,
    transaction_id: 0,
    exchange: u64::MAX,
    due: Duration::ZERO,
    begun: Duration::ZERO,
    sent: Duration::ZERO,
    address: Ipv4Addr::UNSPECIFIED,
    server: Ipv4Addr::UNSPECIFIED,
    server_mac: [0; 6],
};

/// The sockets of one interface; kept over the steps of a search.
pub struct Link {
    frames: OwnedFd,
    /// Only where servers will ask who has an address.
    arp: Option<OwnedFd>,
    ready: Ready,
}

impl Link {
    /// Opens them. Needs CAP_NET_RAW.
    pub fn open(interface: &str, renews: bool) -> Result<Link, Error> {
        let told = |source| Error::Interface { name: interface.to_owned(), source };
        let index = socket::interface_index(interface).map_err(told)?;
        let frames = socket::packet(index, link::IPV4, Promiscuous::On).map_err(told)?;
        SockRef::from(&frames).attach_filter(&link::udp_filter(CLIENT_PORT)).map_err(told)?;
        socket::set_receive_buffer(frames.as_fd(), limits::GENERATOR_SOCKET_BYTES).map_err(told)?;
        let arp = renews.then(|| socket::packet(index, arp::ARP, Promiscuous::Off)).transpose().map_err(told)?;
        let ready = Ready::new()?;
        ready.add(&frames, 0, Interest::Read)?;
        if let Some(arp) = &arp {
            ready.add(arp, 1, Interest::Read)?;
        }
        Ok(Link { frames, arp, ready })
    }
}

/// Plays it.
pub fn play(settings: &Settings, link: &mut Link, clock: &mut Clock) -> Result<Outcome, Error> {
    let mut generator = Generator::new(settings, link);
    clock.restart();
    generator.run(clock)?;
    let late = generator.pace.late();
    let Generator { recorder, started, done, .. } = generator;
    Ok(Outcome { recorder, started, done, wall: clock.now(), late })
}

struct Generator<'a> {
    settings: &'a Settings,
    link: &'a mut Link,
    clients: Vec<Client>,
    /// First octets of all MAC addresses; the last three are the client's index.
    prefix: [u8; 3],
    random: Sequence,
    pace: Pace,
    discover: Template,
    request: Template,
    renewing: Template,
    release: Template,
    recorder: Recorder,
    started: u64,
    done: u64,
    /// Exchanges below this number have ended one way or the other.
    oldest: u64,
}

impl<'a> Generator<'a> {
    fn new(settings: &'a Settings, link: &'a mut Link) -> Generator<'a> {
        let mut random = Sequence::new(settings.seed);
        let [first, second, ..] = random.next().to_be_bytes();
        Generator {
            settings,
            link,
            clients: vec![NOBODY; settings.clients as usize],
            // Locally administered, unicast.
            prefix: [0x02, first, second],
            random,
            pace: Pace::new(settings.rate_per_second, settings.duration),
            discover: Template::discover(),
            request: Template::request(),
            renewing: Template::renewing(),
            release: Template::release(),
            recorder: recorder(STAGES, settings.duration),
            started: 0,
            done: 0,
            oldest: 0,
        }
    }

    fn run(&mut self, clock: &mut Clock) -> Result<(), Error> {
        loop {
            if clock.is_stopped() {
                self.pace.end();
            }
            self.start_due(clock)?;
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
                self.link.ready.wait(next.map(|next| next.saturating_sub(clock.now())))?;
            }
        }
    }

    fn start_due(&mut self, clock: &Clock) -> Result<(), Error> {
        for _ in 0..limits::BURST_MESSAGES {
            let now = clock.now();
            let Some((number, due)) = self.pace.take(now) else { break };
            self.start(now, number, due)?;
        }
        Ok(())
    }

    fn start(&mut self, now: Duration, number: u64, due: Duration) -> Result<(), Error> {
        self.started += 1;
        let index = (number % self.clients.len() as u64) as usize;
        let transaction_id = self.random.next() as u32;
        let renews = self.settings.renew > 0.0 && self.random.fraction() < self.settings.renew;
        let mac = mac(self.prefix, index);
        let client = &mut self.clients[index];
        if let Some((stage, _)) = client.state.awaits() {
            self.recorder.failed_exchange(now, stage, "its next turn came first: use more clients");
            client.state = State::Idle;
        }
        let is_renewal = client.state == State::Bound && renews;
        *client = Client { transaction_id, exchange: number, due, begun: now, sent: now, ..*client };
        let frame = if is_renewal {
            client.state = State::Renewing;
            let template = self.renewing.of(mac, transaction_id);
            template.unicast(client.address, client.server, client.server_mac)
        } else {
            client.state = State::Selecting;
            self.discover.of(mac, transaction_id)
        };
        transmit(&self.link.frames, frame)
    }

    /// Takes the frames that are there, a bounded number; how many those were.
    fn receive(&mut self, clock: &Clock) -> Result<usize, Error> {
        let mut buffer = [0; limits::FRAME_BYTES_MAX];
        let mut count = 0;
        while count < limits::BURST_MESSAGES {
            match recv(&self.link.frames, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    count += 1;
                    self.handle_frame(clock.now(), &buffer[..length])?;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => return Err(Error::socket("receiving frames")(errno)),
            }
        }
        if self.link.arp.is_some() {
            count += self.answer_questions(&mut buffer)?;
        }
        Ok(count)
    }

    fn handle_frame(&mut self, now: Duration, frame: &[u8]) -> Result<(), Error> {
        // What is not for one of our clients, or is no answer, is somebody else's.
        let Ok(datagram) = UdpFrame::parse(frame, Checksums::SkipUdp) else { return Ok(()) };
        let Ok(answer) = Brief::parse(datagram.payload) else { return Ok(()) };
        let Some(index) = index(self.prefix, answer.client_hardware_address) else { return Ok(()) };
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        if answer.transaction_id != client.transaction_id {
            return Ok(());
        }
        match (client.state, answer.message_type) {
            (State::Selecting, MessageType::Offer) => {
                let Some(server) = answer.server_identifier.filter(|_| !answer.your_ip.is_unspecified()) else {
                    client.state = State::Idle;
                    self.recorder.failed_exchange(now, DISCOVER_OFFER, "offer without address or server");
                    return Ok(());
                };
                self.recorder.timed(DISCOVER_OFFER, now.saturating_sub(client.due));
                client.state = State::Requesting;
                (client.sent, client.address, client.server) = (now, answer.your_ip, server);
                client.server_mac = datagram.source_mac;
                let template = self.request.of(answer.client_hardware_address, client.transaction_id);
                transmit(&self.link.frames, template.selecting(client.address, server))
            }
            (State::Requesting | State::Renewing, MessageType::Ack) => {
                let (stage, whole) = match client.state {
                    State::Renewing => (RENEWAL, RENEWAL),
                    _ => (REQUEST_ACK, EXCHANGE),
                };
                if answer.your_ip != client.address {
                    client.state = State::Idle;
                    self.recorder.failed_exchange(now, stage, "ack for another address");
                    return Ok(());
                }
                client.state = State::Bound;
                self.done += 1;
                if stage == REQUEST_ACK {
                    self.recorder.timed(stage, now.saturating_sub(client.sent));
                }
                self.recorder.exchange(now, whole, now.saturating_sub(client.due));
                if !self.settings.release {
                    return Ok(());
                }
                client.state = State::Idle;
                let template = self.release.of(answer.client_hardware_address, client.transaction_id);
                let template = template.leaving(client.server);
                transmit(&self.link.frames, template.unicast(client.address, client.server, client.server_mac))
            }
            (State::Requesting | State::Renewing, MessageType::Nak) => {
                let stage = client.state.awaits().map_or(REQUEST_ACK, |(stage, _)| stage);
                client.state = State::Idle;
                self.recorder.failed_exchange(now, stage, "nak");
                Ok(())
            }
            // A second server's offer, or a copy.
            _ => Ok(()),
        }
    }

    /// Says that our clients' addresses are theirs.
    fn answer_questions(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let Some(arp) = &self.link.arp else { return Ok(0) };
        for count in 0..limits::BURST_MESSAGES {
            let length = match recv(arp, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(count),
                Err(errno) => return Err(Error::socket("receiving ARP")(errno)),
            };
            let question = Question::parse(&buffer[..length]);
            // A server asks once a client: looking through all of them is rare enough.
            let owner = question.and_then(|question| {
                self.clients.iter().position(|client| {
                    client.address == question.target && matches!(client.state, State::Bound | State::Renewing)
                })
            });
            if let (Some(question), Some(owner)) = (question, owner) {
                send_frame(arp, &question.answer(mac(self.prefix, owner)))?;
            }
        }
        Ok(limits::BURST_MESSAGES)
    }

    /// Counts what has waited too long; when the next one will have.
    fn expire(&mut self, now: Duration) -> Option<Duration> {
        while self.oldest < self.started {
            let index = (self.oldest % self.clients.len() as u64) as usize;
            let client = &mut self.clients[index];
            if let Some((stage, reason)) = client.state.awaits().filter(|_| client.exchange == self.oldest) {
                let lost = client.begun + self.settings.lost_after;
                if lost > now {
                    return Some(lost);
                }
                client.state = State::Idle;
                self.recorder.failed_exchange(now, stage, reason);
            }
            self.oldest += 1;
        }
        None
    }
}

fn mac([a, b, c]: [u8; 3], index: usize) -> MacAddress {
    let [.., d, e, f] = index.to_be_bytes();
    [a, b, c, d, e, f]
}

fn index(prefix: [u8; 3], [a, b, c, d, e, f]: MacAddress) -> Option<usize> {
    ([a, b, c] == prefix).then_some(usize::from(d) << 16 | usize::from(e) << 8 | usize::from(f))
}

fn transmit(socket: &OwnedFd, template: &Template) -> Result<(), Error> {
    send_frame(socket, template.frame())
}

/// A frame for which there is no room counts as lost on its way: no answer will come.
fn send_frame(socket: &OwnedFd, frame: &[u8]) -> Result<(), Error> {
    match send(socket, frame, SendFlags::DONTWAIT) {
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::socket("sending a frame")(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_again_by_its_address() {
        let prefix = [2, 7, 9];
        for client in [0, 1, 255, 256, 70_000, (1 << 24) - 1] {
            assert_eq!(index(prefix, mac(prefix, client)), Some(client));
        }
        assert_eq!(index(prefix, [2, 7, 8, 0, 0, 0]), None);
    }
}
