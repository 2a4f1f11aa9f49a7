//! Plays a storm: gives every node its turn and does what the nodes want, over one driver on one thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bootstorm_driver::socket::{self, Promiscuous, Udp};
use bootstorm_driver::{
    Completion, Config, ConnectionId, Destination, Driver, Event, More, Operation, OperationId, Refusal, Repeat,
    SendDatagram, SocketId, Token, limits,
};
use bootstorm_proto::dhcp::CLIENT_PORT;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::SockRef;

use crate::address::{self, Addresses};
use crate::faults::{Faults, Links, Weather};
use crate::limits::{
    LATE_DATAGRAMS_MAX, NODE_RECEIVE_BYTES, NODES_RECEIVE_MEMORY_PART, PACED_READ_BYTES, REBOOT_PAUSE,
};
use crate::link;
use crate::node::{Action, Ending, Node, Settings, Stage};
use crate::report::{End, Expected, Live, Outcome, Recorder, Report, Run, memory_bytes};
use crate::schedule::{Start, reboot};

/// What is to be played.
pub struct Storm {
    /// Interface to play on.
    pub interface: String,
    /// The nodes.
    pub starts: Vec<Start>,
    /// What they share.
    pub settings: Rc<Settings>,
    /// How often they boot.
    pub course: Course,
    /// What is wrong on purpose.
    pub faults: Faults,
    /// Decides about lost datagrams.
    pub seed: u64,
}

/// How often the nodes boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Once.
    Once,
    /// Again and again: each anew after its end, until this time, after which nobody starts any more.
    Again(Duration),
    /// Twice: once as scheduled and unmeasured, and when all have ended, all at once and measured.
    Twice,
}

/// Why a storm could not be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operator: the interface is not there, or a socket on it is refused.
    #[error("interface `{name}`: {source}")]
    Interface {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Environment: the driver cannot work here.
    #[error(transparent)]
    Driver(#[from] bootstorm_driver::Error),
    /// Environment: signals cannot be caught.
    #[error("catching signals: {0}")]
    Signals(io::Error),
}

/// Frames wait for this many at most while the nodes are busy; DHCP clients ask again for what is lost.
const PACKET_BUFFER_BYTES: usize = 16 << 20;

/// Plays it. Ctrl-C ends it early with a report of what was reached.
pub fn play(storm: Storm, mut run: Run, live: &mut Live) -> Result<Report, Error> {
    let mut player = Player::new(&storm)?;
    let stop = catch_signals(&player.driver)?;
    let starts = match storm.course {
        Course::Once | Course::Again(_) => storm.starts.clone(),
        Course::Twice => {
            player.play(&storm.starts, Course::Once, &stop, &mut Live::hidden())?;
            player.again(&storm)
        }
    };
    let (late, wall) = player.play(&starts, storm.course, &stop, live)?;
    if let Some(source) = player.fault.take() {
        return Err(Error::Interface { name: storm.interface, source });
    }
    run.finish(wall, late);
    Ok(player.recorder.into_report(run))
}

/// A flag that SIGINT and SIGTERM set, waking the driver.
fn catch_signals(driver: &Driver) -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, waker) = (Arc::clone(&stop), driver.waker());
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Error::Signals)?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        }
    });
    Ok(stop)
}

/// What a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Frames = 0,
    FrameSent = 1,
    Connected = 2,
    Sent = 3,
    Received = 4,
    Datagrams = 5,
    DatagramSent = 6,
}

/// Node, the serial number of its connection or socket (so that what is late is told apart), and what it is about.
fn token(node: u32, serial: u32, kind: Kind) -> Token {
    u64::from(node) << 32 | u64::from(serial & 0x00ff_ffff) << 8 | kind as u64
}

/// A node and what it holds of the driver.
struct Seat {
    node: Node,
    connection: Option<ConnectionId>,
    connecting: Option<OperationId>,
    socket: Option<SocketId>,
    /// Grows with each connection and socket.
    serial: u32,
    outbox: VecDeque<Vec<u8>>,
    is_sending: bool,
    /// The timer in the heap.
    due: Option<Duration>,
    /// What the next boot starts as.
    start: Start,
    /// Bytes reserved on its link for the read that is under way or waits.
    reserved: u32,
    /// Whether that read throws its bytes away.
    discards: bool,
}

/// A datagram that is late.
enum Late {
    /// On its way out.
    Out(u32, u32, Kind, SendDatagram),
    /// A DHCP message for this node.
    Dhcp(u32, Vec<u8>),
    /// A datagram for the socket of this node that had this serial.
    In(u32, u32, SocketAddr, Vec<u8>),
}

struct Player {
    driver: Driver,
    addresses: Addresses,
    interface: u32,
    link_address: [u8; 6],
    packet: SocketId,
    seats: Vec<Seat>,
    by_mac: HashMap<[u8; 6], u32>,
    timers: BinaryHeap<Reverse<(Duration, u32)>>,
    /// Nodes that boot anew, with when.
    reboots: VecDeque<(Duration, u32)>,
    /// Nodes that are on.
    live: u64,
    settings: Rc<Settings>,
    weather: Weather,
    delay: Duration,
    /// Datagrams on their way, in the order in which they are due.
    late: VecDeque<(Duration, Late)>,
    links: Links,
    /// Reads that wait for their turn on a link: when, whose, of which connection.
    paced: BinaryHeap<Reverse<(Duration, u32, u32)>>,
    /// Until when ended nodes boot anew.
    again_until: Option<Duration>,
    origin: Instant,
    recorder: Recorder,
    /// Whether frames are being received.
    listens: bool,
    /// The packet socket has failed: no node can go on.
    fault: Option<io::Error>,
}

impl Player {
    fn new(storm: &Storm) -> Result<Player, Error> {
        let name = &storm.interface;
        let told = |source| Error::Interface { name: name.clone(), source };
        let interface = socket::interface_index(name).map_err(told)?;
        let packet = socket::packet(interface, link::IPV4, Promiscuous::On).map_err(told)?;
        SockRef::from(&packet).attach_filter(&link::udp_filter(CLIENT_PORT)).map_err(told)?;
        socket::set_receive_buffer(packet.as_fd(), PACKET_BUFFER_BYTES).map_err(told)?;
        let nodes = storm.starts.len() as u32;
        let mut driver = Driver::new(&Config {
            in_flight_max: (nodes * 4 + 4_096).min(limits::IN_FLIGHT_MAX),
            sockets_max: nodes + 1,
            connections_max: nodes + 1,
            datagram_buffers: 4_096,
            stream_buffers: 512,
            stream_buffer_bytes: 64 << 10,
            connect_receive_bytes: Some(receive_bytes(memory_bytes(), nodes)),
            ..Config::default()
        })?;
        let packet = driver.add_socket(packet)?;
        let addresses = Addresses::new(name, storm.starts.len().max(1), driver.waker());
        let seats: Vec<Seat> = (0u32..).zip(&storm.starts).map(|(index, start)| seat(index, *start, storm)).collect();
        let by_mac = (0u32..).zip(&seats).map(|(index, seat)| (seat.node.mac(), index)).collect();
        Ok(Player {
            driver,
            addresses,
            interface,
            link_address: address::link_address(name).map_err(told)?,
            packet,
            seats,
            by_mac,
            timers: BinaryHeap::new(),
            reboots: VecDeque::new(),
            live: 0,
            settings: Rc::clone(&storm.settings),
            weather: Weather::new(&storm.faults, storm.seed),
            delay: storm.faults.delay,
            late: VecDeque::new(),
            links: Links::new(&storm.faults, &storm.starts),
            paced: BinaryHeap::new(),
            again_until: None,
            origin: Instant::now(),
            recorder: Recorder::new(Stage::NAMES),
            listens: false,
            fault: None,
        })
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Makes ready for the second boot of all nodes; what was recorded of the first is forgotten.
    fn again(&mut self, storm: &Storm) -> Vec<Start> {
        self.recorder = Recorder::new(Stage::NAMES);
        self.timers.clear();
        self.late.clear();
        self.paced.clear();
        let starts: Vec<Start> =
            storm.starts.iter().map(|start| Start { due: Duration::ZERO, ..reboot(start) }).collect();
        for (index, start) in (0u32..).zip(&starts) {
            self.renew(index, *start);
        }
        starts
    }

    /// Puts a machine that is off into a seat whose last one has ended.
    fn renew(&mut self, index: u32, start: Start) {
        if let Some(seat) = self.seats.get_mut(index as usize) {
            seat.start = start;
            seat.due = None;
            seat.node = Node::new(index, start, Rc::clone(&self.settings));
        }
    }

    fn power_on(&mut self, index: u32) {
        let now = self.now();
        self.live += 1;
        self.recorder.started(now);
        self.recorder.entered(now, None, Stage::Dhcp.index());
        self.turn(index, |node| node.start(now));
    }

    /// Runs until all nodes have ended; gives the largest lateness of a start, and the time it all took.
    fn play(
        &mut self,
        starts: &[Start],
        course: Course,
        stop: &AtomicBool,
        live: &mut Live,
    ) -> Result<(Duration, Duration), Error> {
        if !self.listens {
            self.submit(0, 0, Kind::Frames, Operation::ReceiveAhead { socket: self.packet });
            self.listens = true;
        }
        self.origin = Instant::now();
        self.again_until = match course {
            Course::Again(until) => Some(until),
            Course::Once | Course::Twice => None,
        };
        self.recorder.expect(self.again_until.map_or(Expected::Count(starts.len() as u64), Expected::Until));
        let mut late = Duration::ZERO;
        let mut started = 0;
        let mut completions = Vec::new();
        let is_over =
            |player: &Player, started| started == starts.len() && player.live == 0 && player.reboots.is_empty();
        while !is_over(self, started) && self.fault.is_none() && !stop.load(Ordering::Relaxed) {
            while let Some(start) = starts.get(started).filter(|start| start.due <= self.now()) {
                late = late.max(self.now() - start.due);
                self.power_on(started as u32);
                started += 1;
            }
            while let Some((_, index)) = self.reboots.pop_front_if(|(due, _)| *due <= self.origin.elapsed()) {
                if let Some(start) = self.seats.get(index as usize).map(|seat| reboot(&seat.start)) {
                    self.renew(index, start);
                    self.power_on(index);
                }
            }
            self.fire_timers();
            self.deliver();
            self.pace();
            while let Some((node, is_usable)) = self.addresses.poll() {
                let now = self.now();
                self.turn(node, |node| node.handle_address(now, is_usable));
            }
            let next_timer = self.timers.peek().map(|Reverse((due, _))| *due);
            let next_start = starts.get(started).map(|start| start.due);
            let next_reboot = self.reboots.front().map(|(due, _)| *due);
            let next_late = self.late.front().map(|(due, _)| *due);
            let next_paced = self.paced.peek().map(|Reverse((due, ..))| *due);
            let next =
                [next_timer, next_start, next_reboot, next_late, next_paced, live.next()].into_iter().flatten().min();
            self.driver.wait(next.map(|due| self.origin + due), &mut completions)?;
            completions.drain(..).for_each(|completion| self.handle(completion));
            live.show(self.now(), &self.recorder);
        }
        live.finish();
        Ok((late, self.now()))
    }

    /// A node has ended: notes how, and lets it boot anew if it is to.
    fn ended(&mut self, index: u32, ended: &crate::node::Ended) {
        self.live -= 1;
        let reason = match &ended.ending {
            Ending::Failed(reason) => reason.to_string(),
            Ending::Done | Ending::Died => String::new(),
        };
        let outcome = match &ended.ending {
            Ending::Done => Outcome::Done,
            Ending::Failed(_) => Outcome::Failed(&reason),
            Ending::Died => Outcome::Died,
        };
        let end = End {
            node: index,
            outcome,
            stage: ended.stage.index(),
            spans: &ended.spans,
            started: ended.started,
            bytes: ended.bytes,
        };
        self.recorder.ended(ended.at, &end);
        let due = ended.at + REBOOT_PAUSE;
        if self.again_until.is_some_and(|until| due < until) {
            self.reboots.push_back((due, index));
        }
    }

    fn fire_timers(&mut self) {
        let now = self.now();
        while let Some(Reverse((due, index))) = self.timers.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.timers.pop();
            let Some(seat) = self.seats.get_mut(index as usize) else { continue };
            if seat.due == Some(due) {
                seat.due = None;
                self.turn(index, |node| node.handle_timeout(now));
            }
        }
    }

    /// Gives a node an input, and does what it wants then.
    fn turn(&mut self, index: u32, input: impl FnOnce(&mut Node)) {
        let now = self.now();
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let before = seat.node.stage();
        input(&mut seat.node);
        while let Some(action) = self.seats.get_mut(index as usize).and_then(|seat| seat.node.poll_output()) {
            self.act(index, action);
        }
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let after = seat.node.stage();
        if after != before {
            self.recorder.entered(now, Some(before.index()), after.index());
        }
        if let Some(ended) = seat.node.take_ended() {
            self.ended(index, &ended);
        }
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let due = seat.node.next_timeout();
        // Timers that have moved stay in the heap and find nothing when they are due; to keep them few, a later time is only
        // entered when the earlier one has come.
        match (seat.due, due) {
            (Some(entered), Some(due)) if due >= entered => {}
            (_, None) => seat.due = None,
            (_, Some(due)) => {
                seat.due = Some(due);
                self.timers.push(Reverse((due, index)));
            }
        }
    }

    fn act(&mut self, index: u32, action: Action) {
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let serial = seat.serial;
        match action {
            Action::SendDhcp(message) => {
                let send = SendDatagram {
                    socket: self.packet,
                    to: Destination::Link { interface: self.interface },
                    source: None,
                    interface: None,
                    parts: link::dhcp_frame(seat.node.mac(), &message).into(),
                    segment_bytes: None,
                };
                self.send_datagram(index, serial, Kind::FrameSent, send);
            }
            Action::UseAddress(address, bits) => {
                if !self.addresses.request(index, address, bits) {
                    self.limit(index, "address requests");
                }
            }
            Action::Announce(address) => {
                let send = SendDatagram {
                    socket: self.packet,
                    to: Destination::Link { interface: self.interface },
                    source: None,
                    interface: None,
                    parts: link::announcement(self.link_address, address).into(),
                    segment_bytes: None,
                };
                self.submit(index, serial, Kind::FrameSent, Operation::SendDatagram(send));
            }
            Action::OpenUdp(address) => {
                seat.serial += 1;
                let serial = seat.serial;
                let made = socket::udp(SocketAddr::new(IpAddr::V4(address), 0), &Udp::default());
                let Some(socket) = made.ok().and_then(|fd| self.driver.add_socket(fd).ok()) else {
                    return self.limit(index, "UDP sockets");
                };
                self.seats[index as usize].socket = Some(socket);
                self.submit(index, serial, Kind::Datagrams, Operation::ReceiveDatagrams { socket });
            }
            Action::SendUdp(to, bytes) => {
                let Some(socket) = seat.socket else { return };
                let send = SendDatagram {
                    socket,
                    to: Destination::Address(to),
                    source: None,
                    interface: None,
                    parts: bytes.into(),
                    segment_bytes: None,
                };
                self.send_datagram(index, serial, Kind::DatagramSent, send);
            }
            Action::CloseUdp => {
                if let Some(socket) = seat.socket.take() {
                    self.driver.remove_socket(socket);
                }
            }
            Action::Connect(from, to) => {
                seat.serial += 1;
                let serial = seat.serial;
                let from = Some(SocketAddr::new(IpAddr::V4(from), 0));
                let operation = self.submit(index, serial, Kind::Connected, Operation::Connect { to, from });
                self.seats[index as usize].connecting = operation;
            }
            Action::Send(bytes) => {
                seat.outbox.push_back(bytes);
                self.flush(index);
            }
            Action::Receive => self.read(index, None),
            Action::Discard(length_max) => self.read(index, Some(length_max)),
            Action::Close => {
                self.came(index, 0);
                let Some(seat) = self.seats.get_mut(index as usize) else { return };
                seat.serial += 1;
                seat.outbox.clear();
                seat.is_sending = false;
                let (connection, connecting) = (seat.connection.take(), seat.connecting.take());
                connection.into_iter().for_each(|connection| self.driver.close(connection));
                connecting.into_iter().for_each(|operation| self.driver.cancel(operation));
            }
            Action::Vanish(address) => {
                // Without its address nothing of it answers any more; what it had open stays as it is until the end,
                // so that not even a farewell goes out.
                seat.serial += 1;
                seat.outbox.clear();
                seat.is_sending = false;
                seat.connecting.take().into_iter().for_each(|operation| self.driver.cancel(operation));
                address.into_iter().for_each(|address| self.addresses.release(address));
            }
        }
    }

    /// Sends a datagram, unless it is to be lost; later, if it is to be late.
    fn send_datagram(&mut self, index: u32, serial: u32, kind: Kind, send: SendDatagram) {
        if self.weather.loses() {
            return;
        }
        if self.delay.is_zero() {
            // One for which there is no room is a lost one: the client sends again.
            self.submit(index, serial, kind, Operation::SendDatagram(send));
        } else {
            self.delay(Late::Out(index, serial, kind, send));
        }
    }

    fn delay(&mut self, late: Late) {
        if self.late.len() < LATE_DATAGRAMS_MAX {
            self.late.push_back((self.now() + self.delay, late));
        }
    }

    /// Delivers what was late and is due.
    fn deliver(&mut self) {
        while let Some((_, late)) = self.late.pop_front_if(|(due, _)| *due <= self.origin.elapsed()) {
            let now = self.now();
            match late {
                Late::Out(index, serial, kind, send) => {
                    self.submit(index, serial, kind, Operation::SendDatagram(send));
                }
                Late::Dhcp(index, message) => self.turn(index, |node| node.handle_dhcp(now, &message)),
                Late::In(index, serial, from, bytes) => {
                    if self.seats.get(index as usize).is_some_and(|seat| seat.serial & 0x00ff_ffff == serial) {
                        self.turn(index, |node| node.handle_datagram(now, from, &bytes));
                    }
                }
            }
        }
    }

    /// Reads from a node's connection, or throws away at most so many bytes of it; when its link has room for them.
    fn read(&mut self, index: u32, discard: Option<u32>) {
        let now = self.now();
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let serial = seat.serial;
        let Some((bytes, begin)) = self.links.reserve(index, now, discard.unwrap_or(PACED_READ_BYTES)) else {
            return self.submit_read(index, serial, discard);
        };
        seat.reserved = bytes;
        seat.discards = discard.is_some();
        if begin <= now {
            self.submit_read(index, serial, discard.map(|_| bytes));
        } else {
            self.paced.push(Reverse((begin, index, serial)));
        }
    }

    /// Begins the reads whose turn has come.
    fn pace(&mut self) {
        let now = self.now();
        while let Some(Reverse((_, index, serial))) =
            self.paced.peek().copied().filter(|Reverse((due, ..))| *due <= now)
        {
            self.paced.pop();
            let Some(seat) = self.seats.get(index as usize).filter(|seat| seat.serial == serial) else { continue };
            let discard = seat.discards.then_some(seat.reserved);
            self.submit_read(index, serial, discard);
        }
    }

    fn submit_read(&mut self, index: u32, serial: u32, discard: Option<u32>) {
        let Some(connection) = self.seats.get(index as usize).and_then(|seat| seat.connection) else { return };
        let operation = match discard {
            Some(length_max) => Operation::Discard { connection, length_max },
            None => Operation::Receive { connection, repeat: Repeat::Once },
        };
        self.submit(index, serial, Kind::Received, operation);
    }

    /// A read has brought so many bytes: what was reserved beyond them is given back.
    fn came(&mut self, index: u32, bytes: usize) {
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let unused = std::mem::take(&mut seat.reserved).saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        if unused > 0 {
            self.links.refund(index, unused);
        }
    }

    /// Sends the next piece, one at a time.
    fn flush(&mut self, index: u32) {
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let (Some(connection), false) = (seat.connection, seat.is_sending) else { return };
        let Some(bytes) = seat.outbox.pop_front() else { return };
        seat.is_sending = true;
        let serial = seat.serial;
        let operation = Operation::Send { connection, parts: bytes.into(), more: More::Done };
        self.submit(index, serial, Kind::Sent, operation);
    }

    fn submit(&mut self, index: u32, serial: u32, kind: Kind, operation: Operation) -> Option<OperationId> {
        match self.driver.submit(token(index, serial, kind), operation) {
            Ok(id) => Some(id),
            Err(refused) => {
                match (kind, refused.reason) {
                    (Kind::FrameSent | Kind::DatagramSent, _) => {}
                    (_, Refusal::NoSocket(kind)) => self.broken_later(index, kind),
                    _ => self.limit(index, "operations"),
                }
                None
            }
        }
    }

    fn limit(&mut self, index: u32, what: &'static str) {
        let now = self.now();
        // From inside the node's own turn: its further actions are drained there.
        if let Some(seat) = self.seats.get_mut(index as usize) {
            seat.node.handle_limit(now, what);
        }
    }

    fn broken_later(&mut self, index: u32, kind: io::ErrorKind) {
        let now = self.now();
        if let Some(seat) = self.seats.get_mut(index as usize) {
            seat.node.handle_broken(now, kind);
        }
    }

    fn handle(&mut self, completion: Completion) {
        let index = (completion.token >> 32) as u32;
        let serial = (completion.token >> 8 & 0x00ff_ffff) as u32;
        let now = self.now();
        let kind = completion.token & 0xff;
        let is_current = self.seats.get(index as usize).is_some_and(|seat| seat.serial & 0x00ff_ffff == serial);
        match &completion.event {
            Event::Datagram(datagram) if kind != Kind::Frames as u64 => {
                self.recorder.received(now, datagram.bytes.len() as u64);
            }
            Event::Bytes(bytes) => self.recorder.received(now, bytes.len() as u64),
            Event::Discarded(count) => self.recorder.received(now, *count as u64),
            _ => {}
        }
        match completion.event {
            Event::Woken => {}
            Event::Datagram(datagram) if kind == Kind::Frames as u64 => {
                let message = link::dhcp_message(&datagram.bytes).filter(|_| !datagram.is_truncated);
                let client = message.and_then(link::client_of).and_then(|mac| self.by_mac.get(&mac).copied());
                let (Some(message), Some(client)) = (message, client) else { return };
                if self.weather.loses() {
                    return;
                }
                if self.delay.is_zero() {
                    self.turn(client, |node| node.handle_dhcp(now, message));
                } else {
                    self.delay(Late::Dhcp(client, message.to_vec()));
                }
            }
            Event::Datagram(datagram) => {
                let (bootstorm_driver::Peer::Address(from), true) = (datagram.peer, is_current) else { return };
                if self.weather.loses() {
                    return;
                }
                if self.delay.is_zero() {
                    self.turn(index, |node| node.handle_datagram(now, from, &datagram.bytes));
                } else {
                    self.delay(Late::In(index, serial, from, datagram.bytes.to_vec()));
                }
            }
            Event::Failed(error) if kind == Kind::Frames as u64 => self.fault = Some(error),
            Event::Connected(connection) if !is_current => self.driver.close(connection),
            _ if !is_current => {}
            Event::Connected(connection) => {
                let seat = &mut self.seats[index as usize];
                seat.connection = Some(connection);
                seat.connecting = None;
                self.turn(index, |node| node.handle_connected(now));
            }
            Event::Sent(_) if kind == Kind::Sent as u64 => {
                self.seats[index as usize].is_sending = false;
                self.flush(index);
                self.turn(index, |_| {});
            }
            Event::Bytes(bytes) => {
                self.came(index, bytes.len());
                self.turn(index, |node| node.handle_bytes(now, &bytes));
            }
            Event::Discarded(count) => {
                self.came(index, count);
                self.turn(index, |node| node.handle_discarded(now, count));
            }
            Event::EndOfStream => self.turn(index, |node| node.handle_end(now)),
            Event::Failed(error) if matches!(kind, 2..=4) => {
                self.seats[index as usize].connecting = None;
                self.turn(index, |node| node.handle_broken(now, error.kind()));
            }
            // Sends of datagrams may fail (no route yet); a receiver of datagrams ends when its socket is removed.
            Event::Sent(_) | Event::Failed(_) | Event::Cancelled | Event::Accepted(_) | Event::Read(_) => {}
        }
    }
}

/// Bytes of the receive buffer of each of so many nodes.
fn receive_bytes(memory_bytes: u64, nodes: u32) -> usize {
    let share = memory_bytes / NODES_RECEIVE_MEMORY_PART / u64::from(nodes.max(1));
    share.clamp(*NODE_RECEIVE_BYTES.start(), *NODE_RECEIVE_BYTES.end()) as usize
}

fn seat(index: u32, start: Start, storm: &Storm) -> Seat {
    Seat {
        node: Node::new(index, start, Rc::clone(&storm.settings)),
        connection: None,
        connecting: None,
        socket: None,
        serial: 0,
        outbox: VecDeque::new(),
        is_sending: false,
        due: None,
        start,
        reserved: 0,
        discards: false,
    }
}

#[cfg(test)]
mod tests {
    use super::receive_bytes;

    #[test]
    fn nodes_share_what_tcp_may_have_and_each_has_what_firmware_has() {
        let memory = 24 << 30;
        assert_eq!(receive_bytes(memory, 1), 1 << 20);
        assert_eq!(receive_bytes(memory, 1_000), 402_653);
        assert_eq!(receive_bytes(memory, 50_000), 64 << 10);
        assert_eq!(receive_bytes(0, 0), 64 << 10);
    }
}
