//! One simulated machine, from power-on to the point where its agent has done what its plan says, or where it has its
//! image and has told so.
//!
//! Sans-I/O: inputs are `start`, `handle_*`; after each, drain [`Node::poll_output`] until `None` and look at
//! [`Node::next_timeout`]; `now` counts from the run's beginning and never goes back. The protocols are `proto`'s client halves.

mod boot;
mod image;
mod install;
mod stage;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bootstorm_proto::dhcp::MacAddress;
use bootstorm_proto::dhcp::client as dhcp;

pub use self::stage::Stage;
use crate::fetch::Channel;
use crate::firmware::{Patience, Speaker};
use crate::image::Source;
use crate::limits::*;
use crate::reason::Reason;
use crate::report::Span;
use crate::schedule::{Sequence, Start};
use crate::script::{Interpreter, Outcome, Url};
use crate::verify::SinkChoice;

use self::image::Download;
use self::install::Install;
use self::transfer::{Fetch, Read, Request};

/// What the node wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this DHCP message from the node's MAC address.
    SendDhcp(Vec<u8>),
    /// Make this address, of a subnet with so many bits, usable for sockets; answer with `handle_address`.
    UseAddress(Ipv4Addr, u8),
    /// Tell all hosts whose link address this address now has.
    Announce(Ipv4Addr),
    /// Open a UDP socket on the node's address; what it receives goes to `handle_datagram`.
    OpenUdp(Ipv4Addr),
    /// Send by it.
    SendUdp(SocketAddr, Vec<u8>),
    /// Close it.
    CloseUdp,
    /// Connect from the node's address; the one connection it has.
    Connect(Ipv4Addr, SocketAddr),
    /// Send on the connection.
    Send(Vec<u8>),
    /// Receive once.
    Receive,
    /// Throw away at most so many bytes; answer with `handle_discarded`.
    Discard(u32),
    /// Close the connection; nothing of it is to come any more.
    Close,
    /// The machine is gone: its address answers no more, its connection is left as it is.
    Vanish(Option<Ipv4Addr>),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It got to its end.
    Done,
    /// It did not.
    Failed(Reason),
    /// It vanished, as the run wanted it.
    Died,
}

/// How it went.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub ending: Ending,
    /// The stage in which it ended.
    pub stage: Stage,
    /// Stays in stages, in order; one stage may be entered several times.
    pub spans: Vec<Span>,
    /// Power-on.
    pub started: Duration,
    /// The end.
    pub at: Duration,
    /// Bytes of all files and bodies.
    pub bytes: u64,
}

/// What becomes of bodies that nobody looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Bodies {
    /// Thrown away inside the kernel (`MSG_TRUNC`).
    #[default]
    Trunc,
    /// Copied into memory, as a real machine would, then thrown away.
    Copy,
}

/// What the nodes take their loader for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LoaderChoice {
    /// What its name says; iPXE if it says nothing.
    #[default]
    Auto,
    /// iPXE.
    Ipxe,
    /// GRUB, or shim and then GRUB.
    Grub,
    /// PXELINUX.
    Pxelinux,
}

/// What all nodes of a run share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rack's HTTP, where it is to be another than DHCP and scripts say.
    pub server_http: Option<SocketAddr>,
    /// From power-on to the end at most.
    pub deadline: Duration,
    /// One node in so many checks its image.
    pub verify_every: u32,
    /// The image that follows the kernel; without it the kernel's command line says what does.
    pub image: Option<Source>,
    /// Whether the image is asked for at once instead of range by range.
    pub image_whole: bool,
    /// Fetched after the image; `{mac}` in the path stands for the node's MAC address.
    pub metadata: Option<Url>,
    /// Posted to at the end.
    pub phone_home: Option<Url>,
    /// What becomes of bodies.
    pub bodies: Bodies,
    /// Where verified bytes go.
    pub sink: SinkChoice,
    /// What loaders are.
    pub loader: LoaderChoice,
    /// The folder of GRUB's configuration; without it, the usual one of a loader of that name.
    pub grub_prefix: Option<String>,
    /// When nodes give up.
    pub patience: Patience,
    /// The part of the nodes that vanish in the midst of their boot.
    pub die: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            server_http: None,
            deadline: Duration::from_secs(300),
            verify_every: VERIFY_EVERY,
            image: None,
            image_whole: false,
            metadata: None,
            phone_home: None,
            bodies: Bodies::default(),
            sink: SinkChoice::default(),
            loader: LoaderChoice::default(),
            grub_prefix: None,
            patience: Patience::default(),
            die: 0.0,
        }
    }
}

/// A simulated machine.
pub struct Node {
    start: Start,
    settings: Rc<Settings>,
    verifies: bool,
    random: Sequence,
    doing: Doing,
    speaker: Speaker,
    stage: Stage,
    since: Duration,
    began: Duration,
    spans: Vec<Span>,
    bytes: u64,
    actions: VecDeque<Action>,
    lease: Option<Lease>,
    script: Option<Interpreter>,
    install: Option<Box<Install>>,
    authority: Option<Vec<u8>>,
    download: Option<Box<Download>>,
    connection: Option<Open>,
    fate: Option<Fate>,
    ended: Option<Ended>,
}

/// What the node is in the middle of.
enum Doing {
    Off,
    Dhcp(Box<dhcp::Client>, Who),
    Address(Who),
    Tftp(Box<Read>),
    Fetch(Box<Fetch>),
    /// Until then; then the request again, or the script goes on.
    Pause(Duration, Option<Box<Request>>),
    Over,
}

/// Who speaks DHCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Firmware,
    Ipxe,
}

struct Lease {
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    boot_file: Option<String>,
}

struct Open {
    server: SocketAddr,
    /// `None` until the connection stands.
    channel: Option<Channel>,
    security: Security,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    Anonymous,
    Certified,
}

/// When a node vanishes.
#[derive(Clone, Copy)]
enum Fate {
    /// So long after it enters this stage or a later one.
    Within(Stage, Duration),
    At(Duration),
}

impl Node {
    /// A machine that is off. One in [`Settings::verify_every`] checks its image.
    pub fn new(index: u32, start: Start, settings: Rc<Settings>) -> Node {
        // A sequence of its own, so that the other choices are the same whether nodes die or not.
        let mut fates = Sequence::new(start.seed.rotate_left(32));
        let fate = (fates.fraction() < settings.die).then(|| {
            const STAGES: [Stage; 4] = [Stage::Dhcp, Stage::Loader, Stage::Kernel, Stage::Image];
            let stage = STAGES[(fates.fraction() * STAGES.len() as f64) as usize % STAGES.len()];
            Fate::Within(stage, DEATH_DELAY_MAX.mul_f64(fates.fraction()))
        });
        Node {
            start,
            verifies: index.is_multiple_of(settings.verify_every.max(1)),
            settings,
            random: Sequence::new(start.seed),
            doing: Doing::Off,
            speaker: Speaker::Firmware(start.firmware),
            stage: Stage::Dhcp,
            since: Duration::ZERO,
            began: Duration::ZERO,
            spans: Vec::new(),
            bytes: 0,
            actions: VecDeque::new(),
            lease: None,
            script: None,
            install: None,
            authority: None,
            download: None,
            connection: None,
            fate,
            ended: None,
        }
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddress {
        self.start.mac
    }

    /// The stage that it is in.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How it went; once, at the end.
    pub fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` is due; `None` when the node is off or over.
    pub fn next_timeout(&self) -> Option<Duration> {
        let due = match &self.doing {
            Doing::Off | Doing::Over => return None,
            Doing::Dhcp(client, _) => client.next_timeout(),
            Doing::Tftp(read) => read.client.next_timeout(),
            Doing::Address(_) => None,
            Doing::Fetch(fetch) => self.silent_at(fetch),
            Doing::Pause(until, _) => Some(*until),
        };
        let death = match self.fate {
            Some(Fate::At(death)) => Some(death),
            Some(Fate::Within(..)) | None => None,
        };
        let deadline = Some(self.began + self.settings.deadline);
        [due, death, deadline].into_iter().flatten().min()
    }

    /// Power on.
    pub fn start(&mut self, now: Duration) {
        self.began = now;
        self.since = now;
        self.power_on(now);
    }

    /// A DHCP message for this machine has come.
    pub fn handle_dhcp(&mut self, now: Duration, message: &[u8]) {
        if let Doing::Dhcp(client, _) = &mut self.doing {
            // What is not for this client in this state is as if it had not come.
            let _ = client.handle_datagram(now, message);
            self.drain_dhcp(now);
        }
    }

    /// The address can be used, or not.
    pub fn handle_address(&mut self, now: Duration, is_usable: bool) {
        if let Doing::Address(who) = self.doing {
            if is_usable { self.boot(now, who) } else { self.end(now, Ending::Failed(Reason::Address)) }
        }
    }

    /// A datagram for the UDP socket has come.
    pub fn handle_datagram(&mut self, now: Duration, from: SocketAddr, bytes: &[u8]) {
        if let Doing::Tftp(read) = &mut self.doing {
            read.handle_datagram(now, from, bytes);
            self.drain_tftp(now);
        }
    }

    /// The connection stands.
    pub fn handle_connected(&mut self, now: Duration) {
        if let Doing::Fetch(fetch) = &mut self.doing {
            fetch.heard = now;
        }
        let result = self.open_channel();
        self.check(now, result);
    }

    /// The connection could not be made, or broke.
    pub fn handle_broken(&mut self, now: Duration, kind: ErrorKind) {
        self.reconnect(now, Reason::Connection(kind));
    }

    /// Bytes have come on the connection.
    pub fn handle_bytes(&mut self, now: Duration, wire: &[u8]) {
        let result = self.take_bytes(now, wire);
        self.check(now, result);
    }

    /// So many bytes were thrown away.
    pub fn handle_discarded(&mut self, now: Duration, count: usize) {
        if let Doing::Fetch(fetch) = &mut self.doing {
            fetch.heard = now;
            fetch.exchange.handle_discarded(count as u64);
            let result = self.go_on(now);
            self.check(now, result);
        }
    }

    /// The server has closed the connection.
    pub fn handle_end(&mut self, now: Duration) {
        let Doing::Fetch(fetch) = &mut self.doing else { return };
        match fetch.exchange.handle_end() {
            Ok(()) => {
                let result = self.go_on(now);
                self.check(now, result);
            }
            Err(reason) => self.reconnect(now, reason),
        }
    }

    /// The program cannot do what the node asked for.
    pub fn handle_limit(&mut self, now: Duration, what: &'static str) {
        self.end(now, Ending::Failed(Reason::Limit(what)));
    }

    /// Looks at the timers.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        if matches!(self.fate, Some(Fate::At(death)) if now >= death) {
            return self.end(now, Ending::Died);
        }
        if now >= self.began + self.settings.deadline {
            return self.end(now, Ending::Failed(Reason::Deadline));
        }
        match &mut self.doing {
            Doing::Dhcp(client, _) => {
                client.handle_timeout(now);
                self.drain_dhcp(now);
            }
            Doing::Tftp(read) => {
                read.client.handle_timeout(now);
                self.drain_tftp(now);
            }
            Doing::Fetch(_) => self.reconnect(now, Reason::Silent),
            Doing::Pause(_, request) => {
                let result = match request.take() {
                    Some(request) => self.send(now, *request),
                    None => self.follow(now, Outcome::Success),
                };
                self.check(now, result);
            }
            Doing::Off | Doing::Address(_) | Doing::Over => {}
        }
    }

    // ---- bookkeeping

    fn enter(&mut self, now: Duration, stage: Stage) {
        if let Some(Fate::Within(first, delay)) = self.fate
            && stage >= first
        {
            self.fate = Some(Fate::At(now + delay));
        }
        if stage != self.stage {
            self.account(now);
            self.stage = stage;
        }
    }

    /// Ends the stay in the stage at hand.
    fn account(&mut self, now: Duration) {
        let span = Span { stage: self.stage.index(), from: self.since, to: now };
        self.since = now;
        // A boot that goes round and round does not fill memory.
        if self.spans.len() < SPANS_MAX {
            self.spans.push(span);
        } else if let Some(last) = self.spans.last_mut() {
            last.to = now;
        }
    }

    fn check(&mut self, now: Duration, result: Result<(), Reason>) {
        if let Err(reason) = result {
            self.end(now, Ending::Failed(reason));
        }
    }

    fn end(&mut self, now: Duration, ending: Ending) {
        if matches!(self.doing, Doing::Over) {
            return;
        }
        self.account(now);
        if matches!(self.doing, Doing::Tftp(_)) {
            self.actions.push_back(Action::CloseUdp);
        }
        if ending == Ending::Died {
            self.actions.push_back(Action::Vanish(self.lease.as_ref().map(|lease| lease.address)));
            self.connection = None;
        }
        self.close();
        self.doing = Doing::Over;
        self.script = None;
        self.install = None;
        self.download = None;
        self.ended = Some(Ended {
            ending,
            stage: self.stage,
            spans: std::mem::take(&mut self.spans),
            started: self.began,
            at: now,
            bytes: self.bytes,
        });
    }
}
