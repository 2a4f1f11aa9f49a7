//! One simulated machine, from power-on to the point where its agent has done what its plan says.
//!
//! Sans-I/O: inputs are `start`, `handle_*`; after each, drain [`Node::poll_output`] until `None` and look at
//! [`Node::next_timeout`]; `now` counts from the run's beginning and never goes back. The protocols are `proto`'s client halves.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bootstorm_api::agent::{self as api, Grant, ReadyRequest};
use bootstorm_api::local::Report;
use bootstorm_proto::dhcp::MacAddress;
use bootstorm_proto::dhcp::client::{self as dhcp, Profile};
use bootstorm_proto::dhcp::wire::Answer;
use bootstorm_proto::http::client::RequestHead;
use bootstorm_proto::http::server::{Connection, Method};
use bootstorm_proto::tftp::client as tftp;
use bootstorm_proto::tftp::wire::{Options, ReadRequest};
use bootstorm_snapshot::observation::ReadyResult;
use bootstorm_snapshot::plan::Deploy;
use bootstorm_snapshot::{CredentialHash, Manifest, ManifestDigest, Plan, Task};

use crate::agent::{self, CommandLine, Identity};
use crate::fetch::{Channel, Exchange, Response, Sink, Verifier};
use crate::limits::*;
use crate::reason::Reason;
use crate::report::Span;
use crate::schedule::{Firmware, Sequence, Start};
use crate::script::{Interpreter, Outcome, Step, Url};

/// Parts of a boot that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Both rounds of DHCP, and taking the address.
    Dhcp,
    /// The loader, by TFTP or HTTP.
    Loader,
    /// The scripts.
    Script,
    /// Kernel and initial RAM disks.
    Kernel,
    /// The claim.
    Redeem,
    /// Manifest and stored stream.
    Image,
    /// What the agent reports.
    Report,
}

impl Stage {
    /// All, in the order of a boot.
    pub const ALL: [Stage; 7] =
        [Stage::Dhcp, Stage::Loader, Stage::Script, Stage::Kernel, Stage::Redeem, Stage::Image, Stage::Report];

    /// The names of [`Stage::ALL`], for the recorder.
    pub const NAMES: [&str; Stage::ALL.len()] = {
        let mut names = [""; Stage::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Stage::ALL[index].name();
            index += 1;
        }
        names
    };

    /// Its place in [`Stage::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Dhcp => "dhcp",
            Stage::Loader => "loader",
            Stage::Script => "script",
            Stage::Kernel => "kernel+initrd",
            Stage::Redeem => "redeem",
            Stage::Image => "image",
            Stage::Report => "report",
        }
    }
}

/// What the node wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this DHCP message from the node's MAC address.
    SendDhcp(Vec<u8>),
    /// Make this address, of a subnet with so many bits, usable for sockets; answer with `handle_address`.
    UseAddress(Ipv4Addr, u8),
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
}

/// How it went.
#[derive(Debug)]
pub struct Ended {
    /// `Ok` when the agent has done all its plan says.
    pub result: Result<(), Reason>,
    /// The stage in which it ended.
    pub stage: Stage,
    /// Where it spent its time, in order; at most [`SPANS_MAX`].
    pub spans: Vec<Span>,
    /// When it was powered on.
    pub started: Duration,
    /// Bytes of all files and bodies.
    pub bytes: u64,
}

/// What all nodes of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The rack's HTTP, where it is to be another than DHCP and scripts say.
    pub server_http: Option<SocketAddr>,
    /// From power-on to the end at most.
    pub deadline: Duration,
}

/// A simulated machine.
pub struct Node {
    start: Start,
    settings: Settings,
    verifies: bool,
    random: Sequence,
    doing: Doing,
    stage: Stage,
    since: Duration,
    began: Duration,
    spans: Vec<Span>,
    bytes: u64,
    actions: VecDeque<Action>,
    lease: Option<Lease>,
    script: Option<Interpreter>,
    authority: Option<Vec<u8>>,
    command_line: Option<CommandLine>,
    identity: Option<Identity>,
    image: Option<Image>,
    reports: VecDeque<Report>,
    credential: Option<String>,
    sequence: u64,
    connection: Option<Open>,
    ended: Option<Ended>,
}

/// What the node is in the middle of.
enum Doing {
    Off,
    Dhcp(Box<dhcp::Client>, Who),
    Address(Who),
    Tftp(Box<tftp::Client>),
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
    server: Option<IpAddr>,
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

struct Fetch {
    request: Request,
    exchange: Exchange,
    /// Last sign of life.
    heard: Duration,
}

#[derive(Clone)]
struct Request {
    purpose: Purpose,
    server: SocketAddr,
    security: Security,
    method: Method,
    bytes: Vec<u8>,
    later: u32,
    connects: u32,
}

#[derive(Clone, PartialEq, Eq)]
enum Purpose {
    LoaderSize(Url),
    Loader,
    Script(Url),
    Kernel,
    Initrd,
    Redeem,
    Manifest,
    Stream,
    Report,
    Ready,
}

struct Image {
    deploy: Deploy,
    stored_bytes: u64,
    next: u64,
    verifier: Option<Box<Verifier>>,
}

impl Node {
    /// A machine that is off. One in [`VERIFY_EVERY`] checks its image.
    pub fn new(index: u32, start: Start, settings: Settings) -> Node {
        Node {
            start,
            settings,
            verifies: index.is_multiple_of(VERIFY_EVERY),
            random: Sequence::new(start.seed),
            doing: Doing::Off,
            stage: Stage::Dhcp,
            since: Duration::ZERO,
            began: Duration::ZERO,
            spans: Vec::new(),
            bytes: 0,
            actions: VecDeque::new(),
            lease: None,
            script: None,
            authority: None,
            command_line: None,
            identity: None,
            image: None,
            reports: VecDeque::new(),
            credential: None,
            sequence: 0,
            connection: None,
            ended: None,
        }
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddress {
        self.start.mac
    }

    /// Where it is.
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
            Doing::Tftp(client) => client.next_timeout(),
            Doing::Address(_) => None,
            Doing::Fetch(fetch) => Some(fetch.heard + SILENCE_MAX),
            Doing::Pause(until, _) => Some(*until),
        };
        let deadline = self.began + self.settings.deadline;
        Some(due.map_or(deadline, |due| due.min(deadline)))
    }

    /// Power on.
    pub fn start(&mut self, now: Duration) {
        self.began = now;
        self.since = now;
        self.start_dhcp(now, if self.start.firmware == Firmware::Ipxe { Who::Ipxe } else { Who::Firmware });
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
            if is_usable { self.boot(now, who) } else { self.end(now, Err(Reason::Address)) }
        }
    }

    /// A datagram for the UDP socket has come.
    pub fn handle_datagram(&mut self, now: Duration, from: SocketAddr, bytes: &[u8]) {
        if let Doing::Tftp(client) = &mut self.doing {
            let _ = client.handle_datagram(now, from, bytes);
            self.drain_tftp(now);
        }
    }

    /// The connection stands.
    pub fn handle_connected(&mut self, now: Duration) {
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
        self.end(now, Err(Reason::Limit(what)));
    }

    /// Looks at the timers.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        if now >= self.began + self.settings.deadline {
            return self.end(now, Err(Reason::Deadline));
        }
        match &mut self.doing {
            Doing::Dhcp(client, _) => {
                client.handle_timeout(now);
                self.drain_dhcp(now);
            }
            Doing::Tftp(client) => {
                client.handle_timeout(now);
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

    // ---- the way of a boot

    fn start_dhcp(&mut self, now: Duration, who: Who) {
        self.enter(now, Stage::Dhcp);
        let profile = match (who, self.start.firmware) {
            (Who::Firmware, Firmware::Bios) => Profile::PXE_BIOS,
            (Who::Firmware, Firmware::Uefi) => Profile::OVMF_PXE,
            (Who::Firmware, Firmware::Http) => Profile::OVMF_HTTP,
            (Who::Ipxe, Firmware::Uefi | Firmware::Http) => Profile::IPXE_UEFI,
            (_, Firmware::Ipxe) | (Who::Ipxe, Firmware::Bios) => Profile::IPXE_BIOS,
        };
        let transaction = (self.random.next() >> 32) as u32;
        let mut client = dhcp::Client::new(profile, self.start.mac, agent::uuid(self.start.mac), transaction);
        client.start(now);
        self.doing = Doing::Dhcp(Box::new(client), who);
        self.drain_dhcp(now);
    }

    fn drain_dhcp(&mut self, now: Duration) {
        let Doing::Dhcp(client, who) = &mut self.doing else { return };
        let who = *who;
        let mut end = None;
        while let Some(output) = client.poll_output() {
            match output {
                dhcp::Output::Send(message) => self.actions.push_back(Action::SendDhcp(message.to_vec())),
                dhcp::Output::Bound(answer) => end = Some(Ok(answer.clone())),
                dhcp::Output::Failed(failure) => end = Some(Err(Reason::Dhcp(failure))),
            }
        }
        match end {
            None => {}
            Some(Ok(answer)) => self.bound(now, &answer, who),
            Some(Err(reason)) => self.end(now, Err(reason)),
        }
    }

    fn bound(&mut self, now: Duration, answer: &Answer, who: Who) {
        let address = answer.your_ip;
        let is_known = self.lease.as_ref().is_some_and(|lease| lease.address == address);
        let next_server = Some(answer.next_server_ip).filter(|next| !next.is_unspecified());
        let named = answer.server_name.as_deref().and_then(|name| name.parse().ok());
        self.lease = Some(Lease {
            address,
            server: next_server.or(named).map(IpAddr::V4),
            boot_file: answer.boot_file.as_deref().map(str::to_owned),
        });
        if is_known {
            return self.boot(now, who);
        }
        self.doing = Doing::Address(who);
        let bits = answer.subnet_mask.map_or(32, |mask| u32::from(mask).leading_ones() as u8);
        self.actions.push_back(Action::UseAddress(address, bits));
    }

    /// Fetches what DHCP named.
    fn boot(&mut self, now: Duration, who: Who) {
        let result = match (who, self.start.firmware) {
            (Who::Ipxe, _) => self.start_script(now),
            (Who::Firmware, Firmware::Http) => self.start_http_boot(now),
            (Who::Firmware, _) => self.start_tftp(now),
        };
        self.check(now, result);
    }

    fn start_tftp(&mut self, now: Duration) -> Result<(), Reason> {
        self.enter(now, Stage::Loader);
        let lease = self.lease.as_ref().ok_or(Reason::NoBootFile)?;
        let (Some(server), Some(name)) = (lease.server, lease.boot_file.as_deref()) else {
            return Err(Reason::NoBootFile);
        };
        let (block_bytes, window_blocks) = match self.start.firmware {
            Firmware::Uefi => (1_468, Some(4)),
            Firmware::Bios | Firmware::Ipxe | Firmware::Http => (1_456, None),
        };
        let options =
            Options { block_bytes: Some(block_bytes), window_blocks, timeout_seconds: None, transfer_bytes: Some(0) };
        let timeout = Duration::from_secs(4);
        let client = tftp::Client::new(now, SocketAddr::new(server, 69), &ReadRequest { name, options }, timeout);
        self.actions.push_back(Action::OpenUdp(lease.address));
        self.doing = Doing::Tftp(Box::new(client));
        self.drain_tftp(now);
        Ok(())
    }

    fn drain_tftp(&mut self, now: Duration) {
        let Doing::Tftp(client) = &mut self.doing else { return };
        let mut end = None;
        while let Some(output) = client.poll_output() {
            match output {
                tftp::Output::Send { to, bytes } => self.actions.push_back(Action::SendUdp(to, bytes.to_vec())),
                tftp::Output::Finished(outcome) => end = Some(outcome),
            }
        }
        let Some(outcome) = end else { return };
        self.actions.push_back(Action::CloseUdp);
        match outcome {
            tftp::Outcome::Complete { file_bytes } => {
                self.bytes += file_bytes;
                self.start_dhcp(now, Who::Ipxe);
            }
            failed => self.end(now, Err(Reason::Tftp(failed))),
        }
    }

    fn start_http_boot(&mut self, now: Duration) -> Result<(), Reason> {
        self.enter(now, Stage::Loader);
        let url = self.boot_url()?;
        // Firmware asks for the size first.
        self.fetch(now, &url, Method::Head, Purpose::LoaderSize(url.clone()))
    }

    fn start_script(&mut self, now: Duration) -> Result<(), Reason> {
        self.enter(now, Stage::Script);
        let url = self.boot_url()?;
        let lease = self.lease.as_ref().ok_or(Reason::NoBootFile)?;
        let mac = bootstorm_snapshot::Mac(self.start.mac).to_string();
        let platform = match self.start.firmware {
            Firmware::Bios | Firmware::Ipxe => "pcbios",
            Firmware::Uefi | Firmware::Http => "efi",
        };
        let uuid = uuid::Uuid::from_bytes(agent::uuid(self.start.mac)).to_string();
        let server = lease.server.map(|server| server.to_string()).unwrap_or_default();
        let settings = [
            ("mac", mac.clone()),
            ("net0/mac", mac),
            ("ip", lease.address.to_string()),
            ("net0/ip", lease.address.to_string()),
            ("next-server", server.clone()),
            ("net0/next-server", server),
            ("filename", lease.boot_file.clone().unwrap_or_default()),
            ("platform", platform.to_owned()),
            ("buildarch", if platform == "efi" { "x86_64" } else { "i386" }.to_owned()),
            ("uuid", uuid),
            ("manufacturer", "Bootstorm".to_owned()),
            ("product", "Simulated machine".to_owned()),
        ];
        self.script = Some(Interpreter::new(settings.map(|(name, value)| (name.to_owned(), value))));
        self.fetch(now, &url, Method::Get, Purpose::Script(url.clone()))
    }

    fn boot_url(&self) -> Result<Url, Reason> {
        let file = self.lease.as_ref().and_then(|lease| lease.boot_file.as_deref()).ok_or(Reason::NoBootFile)?;
        Url::parse(file, None).ok_or(Reason::Url)
    }

    /// Goes on with the script after a step that went so.
    fn follow(&mut self, now: Duration, outcome: Outcome) -> Result<(), Reason> {
        let Some(script) = &mut self.script else { return Ok(()) };
        script.done(outcome);
        match script.next() {
            Step::Chain(url) => {
                self.enter(now, Stage::Script);
                self.fetch(now, &url, Method::Get, Purpose::Script(url.clone()))
            }
            Step::Kernel(url) => {
                self.enter(now, Stage::Kernel);
                self.fetch(now, &url, Method::Get, Purpose::Kernel)
            }
            Step::Initrd(url) => {
                self.enter(now, Stage::Kernel);
                self.fetch(now, &url, Method::Get, Purpose::Initrd)
            }
            Step::Sleep(time) => {
                self.doing = Doing::Pause(now + time, None);
                Ok(())
            }
            Step::Boot(line) => self.redeem(now, &line),
            Step::LocalDisk => Err(Reason::LocalDisk),
            Step::Failed(why) => Err(Reason::Script(why)),
        }
    }

    /// The kernel runs, and with it the agent.
    fn redeem(&mut self, now: Duration, line: &str) -> Result<(), Reason> {
        self.enter(now, Stage::Redeem);
        self.script = None;
        let line = CommandLine::parse(line).ok_or(Reason::NoClaim)?;
        let identity = Identity::new()?;
        let body = identity.redeem(&line.claim)?;
        self.command_line = Some(line);
        self.identity = Some(identity);
        self.post(now, "/v1/redeem", &body, Security::Anonymous, Purpose::Redeem)
    }

    fn granted(&mut self, now: Duration, body: &[u8]) -> Result<(), Reason> {
        let grant: Grant = serde_json::from_slice(body).map_err(|_| Reason::Answer)?;
        self.identity.as_mut().ok_or(Reason::Answer)?.certify(&grant.certificate_pem)?;
        self.sequence = 0;
        self.work(now, grant.plan)
    }

    fn work(&mut self, now: Duration, plan: Plan) -> Result<(), Reason> {
        let inventory =
            || Report::Inventory { inventory: Box::new(agent::inventory(self.start.mac, self.start.firmware)) };
        self.reports = match plan.task {
            Task::Enlist => [inventory()].into(),
            Task::Commission => [inventory(), Report::Finished].into(),
            Task::Erase { .. } => [Report::Finished].into(),
            Task::Deploy(deploy) => {
                self.enter(now, Stage::Image);
                let target = format!("{}{}", api::MANIFEST_PATH, deploy.manifest);
                self.image = Some(Image { deploy: *deploy, stored_bytes: 0, next: 0, verifier: None });
                let url = Url { server: self.rack_http()?, target };
                return self.fetch(now, &url, Method::Get, Purpose::Manifest);
            }
        };
        self.report_next(now)
    }

    fn start_stream(&mut self, now: Duration, manifest: &[u8]) -> Result<(), Reason> {
        let image = self.image.as_mut().ok_or(Reason::Answer)?;
        if ManifestDigest::of(manifest) != image.deploy.manifest {
            return Err(Reason::Content);
        }
        let manifest = Manifest::decode(manifest).map_err(|_| Reason::Content)?;
        image.stored_bytes = manifest.stored_bytes();
        image.verifier = self.verifies.then(|| Box::new(Verifier::new(&manifest)));
        self.stream_next(now)
    }

    fn stream_next(&mut self, now: Duration) -> Result<(), Reason> {
        let server = self.rack_http()?;
        let image = self.image.as_mut().ok_or(Reason::Answer)?;
        if image.next >= image.stored_bytes {
            if image.verifier.as_ref().is_some_and(|verifier| !verifier.is_complete()) {
                return Err(Reason::Content);
            }
            return self.written(now);
        }
        let end = (image.next + RANGE_BYTES).min(image.stored_bytes);
        let target = format!("{}{}", api::STREAM_PATH, image.deploy.manifest);
        let range = Some((image.next, Some(end)));
        let request = get(server, &target, Method::Get, range, Purpose::Stream)?;
        self.send(now, request)
    }

    fn written(&mut self, now: Duration) -> Result<(), Reason> {
        let credential = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        self.reports = [Report::Written { credential: CredentialHash::of(credential.as_bytes()) }].into();
        self.credential = Some(credential);
        self.report_next(now)
    }

    fn report_next(&mut self, now: Duration) -> Result<(), Reason> {
        self.enter(now, Stage::Report);
        match self.reports.pop_front() {
            Some(report) => {
                self.sequence += 1;
                let body = agent::report(self.sequence, report)?;
                self.post(now, "/v1/report", &body, Security::Certified, Purpose::Report)
            }
            None => match self.credential.take() {
                Some(credential) => self.ready(now, &credential),
                None => {
                    self.end(now, Ok(()));
                    Ok(())
                }
            },
        }
    }

    /// The installed system's signal.
    fn ready(&mut self, now: Duration, credential: &str) -> Result<(), Reason> {
        let result = ReadyResult { warnings: Vec::new(), datasource: Some("DataSourceNoCloud".to_owned()) };
        let body = serde_json::to_vec(&ReadyRequest { result }).map_err(|_| Reason::Answer)?;
        let rack = self.command_line.as_ref().ok_or(Reason::NoClaim)?.rack;
        let bytes = agent::post(rack, "/v1/ready", Some(credential), &body);
        self.send(now, request(Purpose::Ready, rack, Security::Anonymous, Method::Get, bytes))
    }

    // ---- requests and responses

    fn rack_http(&self) -> Result<SocketAddr, Reason> {
        self.command_line.as_ref().map(|line| line.http).ok_or(Reason::NoClaim)
    }

    fn fetch(&mut self, now: Duration, url: &Url, method: Method, purpose: Purpose) -> Result<(), Reason> {
        let request = get(url.server, &url.target, method, None, purpose)?;
        self.send(now, request)
    }

    fn post(
        &mut self,
        now: Duration,
        path: &str,
        body: &[u8],
        security: Security,
        purpose: Purpose,
    ) -> Result<(), Reason> {
        let rack = self.command_line.as_ref().ok_or(Reason::NoClaim)?.rack;
        let bytes = agent::post(rack, path, None, body);
        self.send(now, request(purpose, rack, security, Method::Get, bytes))
    }

    /// Sends a request, on the connection at hand if it leads there, else on a new one.
    fn send(&mut self, now: Duration, mut request: Request) -> Result<(), Reason> {
        if let Some(server) = self.settings.server_http.filter(|_| request.security == Security::Plain) {
            request.server = server;
        }
        let sink = match request.purpose {
            Purpose::Script(_) => Sink::Keep(SCRIPT_BYTES_MAX),
            Purpose::Initrd => Sink::KeepIfSmall(CA_BYTES_MAX),
            Purpose::Redeem | Purpose::Report | Purpose::Ready => Sink::Keep(ANSWER_BYTES_MAX),
            Purpose::Manifest => Sink::Keep(MANIFEST_BYTES_MAX),
            Purpose::LoaderSize(_) | Purpose::Loader | Purpose::Kernel => Sink::Discard,
            Purpose::Stream => match self.image.as_mut().and_then(|image| image.verifier.take()) {
                Some(verifier) => Sink::Verify(verifier),
                None => Sink::Discard,
            },
        };
        let (server, security) = (request.server, request.security);
        let exchange = Exchange::new(request.method, sink);
        self.doing = Doing::Fetch(Box::new(Fetch { request, exchange, heard: now }));
        let fits = |open: &Open| open.server == server && open.security == security && open.channel.is_some();
        if self.connection.as_ref().is_some_and(fits) {
            return self.send_request();
        }
        self.close();
        let from = self.lease.as_ref().ok_or(Reason::NoBootFile)?.address;
        self.connection = Some(Open { server, channel: None, security });
        self.actions.push_back(Action::Connect(from, server));
        Ok(())
    }

    fn open_channel(&mut self) -> Result<(), Reason> {
        let Some(open) = &mut self.connection else { return Ok(()) };
        open.channel = Some(match open.security {
            Security::Plain => Channel::Plain,
            Security::Anonymous | Security::Certified => {
                let authority = self.authority.as_deref().ok_or(Reason::NoCa)?;
                let identity = self.identity.as_ref().ok_or(Reason::NoClaim)?;
                let with = open.security == Security::Certified;
                Channel::Tls(Box::new(identity.connect(authority, open.server.ip(), with)?))
            }
        });
        self.send_request()
    }

    fn send_request(&mut self) -> Result<(), Reason> {
        let Doing::Fetch(fetch) = &self.doing else { return Ok(()) };
        let Some(channel) = self.connection.as_mut().and_then(|open| open.channel.as_mut()) else { return Ok(()) };
        let wire = channel.seal(&fetch.request.bytes)?;
        self.actions.push_back(Action::Send(wire));
        self.actions.push_back(Action::Receive);
        Ok(())
    }

    fn take_bytes(&mut self, now: Duration, wire: &[u8]) -> Result<(), Reason> {
        let Doing::Fetch(fetch) = &mut self.doing else { return Ok(()) };
        let Some(channel) = self.connection.as_mut().and_then(|open| open.channel.as_mut()) else { return Ok(()) };
        fetch.heard = now;
        let (plain, reply) = channel.open(wire)?;
        if !reply.is_empty() {
            self.actions.push_back(Action::Send(reply));
        }
        fetch.exchange.handle_bytes(&plain)?;
        self.go_on(now)
    }

    /// Asks for more of the response, or takes it if it is complete.
    fn go_on(&mut self, now: Duration) -> Result<(), Reason> {
        let Doing::Fetch(fetch) = &mut self.doing else { return Ok(()) };
        if !fetch.exchange.is_complete() {
            let is_plain =
                self.connection.as_ref().and_then(|open| open.channel.as_ref()).is_some_and(Channel::is_plain);
            let left = fetch.exchange.discardable();
            self.actions.push_back(if is_plain && left > 0 {
                Action::Discard(u32::try_from(left).unwrap_or(u32::MAX).min(DISCARD_BYTES))
            } else {
                Action::Receive
            });
            return Ok(());
        }
        let Doing::Fetch(fetch) = std::mem::replace(&mut self.doing, Doing::Off) else { return Ok(()) };
        let response = fetch.exchange.into_response();
        if !response.keeps_alive {
            self.close();
        }
        self.answered(now, fetch.request, response)
    }

    fn answered(&mut self, now: Duration, mut request: Request, response: Response) -> Result<(), Reason> {
        self.bytes += response.body_bytes;
        if let Some(image) = &mut self.image {
            image.verifier = response.verifier;
        }
        match response.status {
            200 | 206 => {}
            409 | 429 | 503 if request.later < LATER_MAX => {
                request.later += 1;
                let pause = response.later.unwrap_or(LATER_PAUSE_DEFAULT).min(LATER_PAUSE_MAX);
                self.doing = Doing::Pause(now + pause, Some(Box::new(request)));
                return Ok(());
            }
            409 | 429 | 503 => return Err(Reason::Busy),
            // A script may have an alternative.
            _ if self.script.is_some() => {
                return self.follow(now, Outcome::Failure).map_err(|reason| match reason {
                    Reason::Script(_) => Reason::Status(response.status),
                    other => other,
                });
            }
            status => return Err(Reason::Status(status)),
        }
        match request.purpose {
            Purpose::LoaderSize(url) => self.fetch(now, &url, Method::Get, Purpose::Loader),
            Purpose::Loader => {
                self.close();
                self.start_dhcp(now, Who::Ipxe);
                Ok(())
            }
            Purpose::Script(url) => {
                let script = self.script.as_mut().ok_or(Reason::Answer)?;
                script.chain(url, &response.body).map_err(Reason::Script)?;
                self.follow(now, Outcome::Success)
            }
            Purpose::Kernel => self.follow(now, Outcome::Success),
            Purpose::Initrd => {
                if let Some(authority) = agent::authority(&response.body) {
                    self.authority = Some(authority);
                }
                self.follow(now, Outcome::Success)
            }
            Purpose::Redeem => self.granted(now, &response.body),
            Purpose::Manifest => self.start_stream(now, &response.body),
            Purpose::Stream => {
                if let Some(image) = &mut self.image {
                    image.next += response.body_bytes;
                }
                if response.body_bytes == 0 { Err(Reason::Content) } else { self.stream_next(now) }
            }
            Purpose::Report => self.report_next(now),
            Purpose::Ready => {
                self.end(now, Ok(()));
                Ok(())
            }
        }
    }

    /// Tries the request at hand again on a new connection after a pause, unless that has been tried enough.
    fn reconnect(&mut self, now: Duration, reason: Reason) {
        let Doing::Fetch(fetch) = std::mem::replace(&mut self.doing, Doing::Off) else { return };
        self.close();
        let mut request = fetch.request;
        // A verifier stands in the middle of a chunk: such a node does not begin again.
        let is_verifying = fetch.exchange.into_response().verifier.is_some();
        request.connects += 1;
        if request.connects > CONNECTS_MAX || is_verifying {
            return self.end(now, Err(reason));
        }
        self.doing = Doing::Pause(now + CONNECT_PAUSE, Some(Box::new(request)));
    }

    fn close(&mut self) {
        if self.connection.take().is_some() {
            self.actions.push_back(Action::Close);
        }
    }

    // ---- bookkeeping

    fn enter(&mut self, now: Duration, stage: Stage) {
        if stage != self.stage {
            self.leave(now);
            self.stage = stage;
        }
    }

    /// Notes the time since the stage was entered. A script that goes to and fro beyond all measure is noted as one stretch.
    fn leave(&mut self, now: Duration) {
        let stage = self.stage.index();
        if self.spans.len() < SPANS_MAX {
            self.spans.push(Span { stage, from: self.since, to: now });
        } else if let Some(last) = self.spans.last_mut() {
            last.to = now;
        }
        self.since = now;
    }

    fn check(&mut self, now: Duration, result: Result<(), Reason>) {
        if let Err(reason) = result {
            self.end(now, Err(reason));
        }
    }

    fn end(&mut self, now: Duration, result: Result<(), Reason>) {
        if matches!(self.doing, Doing::Over) {
            return;
        }
        self.leave(now);
        if matches!(self.doing, Doing::Tftp(_)) {
            self.actions.push_back(Action::CloseUdp);
        }
        self.close();
        self.doing = Doing::Over;
        self.ended = Some(Ended {
            result,
            stage: self.stage,
            spans: std::mem::take(&mut self.spans),
            started: self.began,
            bytes: self.bytes,
        });
    }
}

fn request(purpose: Purpose, server: SocketAddr, security: Security, method: Method, bytes: Vec<u8>) -> Request {
    Request { purpose, server, security, method, bytes, later: 0, connects: 0 }
}

fn get(
    server: SocketAddr,
    target: &str,
    method: Method,
    range: Option<(u64, Option<u64>)>,
    purpose: Purpose,
) -> Result<Request, Reason> {
    let mut buffer = vec![0; SCRIPT_LINE_BYTES_MAX + 512];
    let head = RequestHead {
        method,
        target,
        host: &server.to_string(),
        range,
        user_agent: Some("iPXE/1.21 (loadgen)"),
        connection: Connection::KeepAlive,
    };
    let length = head.write(&mut buffer).ok_or(Reason::Url)?;
    buffer.truncate(length);
    Ok(request(purpose, server, Security::Plain, method, buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_proto::dhcp::options::MessageType;
    use bootstorm_proto::dhcp::wire::{BootFile, LeaseTimes, ProxyDhcpWait, Reply, Request as Asked};

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// A node with an iPXE ROM, and the time.
    struct Play {
        node: Node,
        now: Duration,
    }

    impl Play {
        fn new() -> Play {
            let start = Start { due: Duration::ZERO, mac: [2, 0, 0, 0, 0, 1], firmware: Firmware::Ipxe, seed: 1 };
            let settings = Settings { server_http: None, deadline: Duration::from_secs(300) };
            let mut node = Node::new(1, start, settings);
            node.start(Duration::ZERO);
            Play { node, now: Duration::ZERO }
        }

        fn actions(&mut self) -> Vec<Action> {
            std::iter::from_fn(|| self.node.poll_output()).collect()
        }

        /// Lets time pass up to the node's next timer.
        fn pass(&mut self) -> Vec<Action> {
            self.now = self.node.next_timeout().expect("the node waits for something");
            self.node.handle_timeout(self.now);
            self.actions()
        }

        /// Leases an address with this boot file; gives what the node does then.
        fn lease(&mut self, boot_file: Option<&str>) -> Vec<Action> {
            for message_type in [MessageType::Offer, MessageType::Ack] {
                let sent = self.actions();
                let [Action::SendDhcp(message)] = sent.as_slice() else { panic!("{sent:?}") };
                let reply = Reply {
                    your_ip: Ipv4Addr::new(10, 0, 0, 9),
                    lease: Some(LeaseTimes::new(600)),
                    subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                    boot_file: boot_file.map(|name| BootFile { name, server_name: None }),
                    proxy_dhcp_wait: ProxyDhcpWait::Skip,
                    ..Reply::new(message_type, SERVER)
                };
                let mut buffer = [0; 1_500];
                let length = reply.encode(&Asked::parse(message).unwrap(), &mut buffer).unwrap().bytes;
                self.node.handle_dhcp(self.now, &buffer[..length]);
            }
            assert_eq!(self.actions(), [Action::UseAddress(Ipv4Addr::new(10, 0, 0, 9), 24)]);
            self.node.handle_address(self.now, true);
            self.actions()
        }

        /// Answers a request on a connection that now stands.
        fn answer(&mut self, response: &[u8]) -> Vec<Action> {
            self.node.handle_connected(self.now);
            let sent = self.actions();
            assert!(matches!(sent.as_slice(), [Action::Send(_), Action::Receive]), "{sent:?}");
            self.node.handle_bytes(self.now, response);
            self.actions()
        }

        fn failure(&mut self) -> Reason {
            self.node.take_ended().expect("the node has ended").result.unwrap_err()
        }
    }

    #[test]
    fn without_a_server_the_node_asks_as_its_firmware_does_and_gives_up() {
        let mut play = Play::new();
        let mut sent = play.actions().len();
        while play.node.next_timeout().is_some() {
            sent += play.pass().len();
        }
        assert_eq!(sent, Profile::IPXE_BIOS.retry_seconds.len());
        assert_eq!(play.failure(), Reason::Dhcp(dhcp::Failure::NoOffer));
    }

    #[test]
    fn a_lease_without_boot_file_or_address_is_told() {
        let mut play = Play::new();
        play.lease(None);
        assert_eq!(play.failure(), Reason::NoBootFile);
        let mut play = Play::new();
        play.lease(Some("ftp://10.0.0.1/x"));
        assert_eq!(play.failure(), Reason::Url);
    }

    #[test]
    fn a_refused_connection_is_tried_again_after_a_pause_and_not_for_ever() {
        let mut play = Play::new();
        let mut actions = play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
        let mut connects = 0;
        while let Some(Action::Connect(from, to)) = actions.pop() {
            assert_eq!((from, to.port()), (Ipv4Addr::new(10, 0, 0, 9), 5248));
            connects += 1;
            play.node.handle_broken(play.now, ErrorKind::ConnectionRefused);
            assert_eq!(play.actions(), [Action::Close]);
            if play.node.next_timeout().is_none() {
                break;
            }
            let before = play.now;
            actions = play.pass();
            assert_eq!(play.now - before, CONNECT_PAUSE);
        }
        assert_eq!(connects, CONNECTS_MAX + 1);
        assert_eq!(play.failure(), Reason::Connection(ErrorKind::ConnectionRefused));
    }

    #[test]
    fn errors_of_the_server_are_told_by_status_and_busy_ones_waited_for() {
        let mut play = Play::new();
        play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
        let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(play.answer(busy), [Action::Close]);
        assert!(matches!(play.pass().as_slice(), [Action::Connect(..)]));
        assert_eq!(play.now, Duration::from_secs(9));
        let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(play.answer(missing), [Action::Close]);
        assert_eq!(play.failure(), Reason::Status(404));
    }

    #[test]
    fn a_script_that_leads_nowhere_or_a_silent_server_ends_the_boot() {
        let response = |script: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{script}", script.len());
        let mut play = Play::new();
        play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
        play.answer(response("#!ipxe\nsanboot --no-describe --drive 0x80 || exit\n").as_bytes());
        assert_eq!(play.failure(), Reason::LocalDisk);
        let mut play = Play::new();
        play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
        let kernel = "#!ipxe\nkernel /kernel quiet\nboot\n";
        assert!(matches!(play.answer(response(kernel).as_bytes()).as_slice(), [Action::Send(_), Action::Receive]));
        play.node.handle_bytes(play.now, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(play.actions(), [Action::Discard(5)]);
        play.node.handle_discarded(play.now, 5);
        assert_eq!(play.actions(), [Action::Close]);
        assert_eq!(play.failure(), Reason::NoClaim);
        let mut play = Play::new();
        play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
        play.node.handle_connected(Duration::ZERO);
        while play.node.next_timeout().is_some() {
            play.pass();
        }
        assert_eq!(play.failure(), Reason::Silent);
    }
}
