//! Transfers of a node: one file by TFTP, or one request on the connection that it has.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bootstorm_proto::http::client::RequestHead;
use bootstorm_proto::http::server::{Connection, Method};
use bootstorm_proto::tftp::client as tftp;
use bootstorm_proto::tftp::wire::{Options, ReadRequest};

use super::{Action, Bodies, Doing, Ending, Node, Open, Security};
use crate::fetch::{Channel, Exchange, Response, Sink};
use crate::firmware::{self, Speaker};
use crate::limits::*;
use crate::reason::Reason;
use crate::script::{Location, Outcome, Url};

/// What a transfer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The file's size, before the file itself.
    Size(Url, Box<Purpose>),
    /// A loader from there.
    Loader(Location),
    /// A script from there.
    Script(Location),
    /// A part of a loader.
    Module,
    /// A part of a loader from there, which says what else it needs.
    Library(Location),
    Kernel,
    Initrd,
    Redeem,
    Manifest,
    /// The next part of an image.
    Part,
    Report,
    Ready,
    Metadata,
    PhoneHome,
}

impl Purpose {
    /// Whether a script decides what happens if it fails.
    fn is_of_script(&self) -> bool {
        match self {
            Purpose::Script(_) | Purpose::Module | Purpose::Library(_) | Purpose::Kernel | Purpose::Initrd => true,
            Purpose::Size(_, then) => then.is_of_script(),
            Purpose::Loader(_)
            | Purpose::Redeem
            | Purpose::Manifest
            | Purpose::Part
            | Purpose::Report
            | Purpose::Ready
            | Purpose::Metadata
            | Purpose::PhoneHome => false,
        }
    }
}

/// A request, to be sent once or, where it fails, again.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) server: SocketAddr,
    pub(super) security: Security,
    pub(super) method: Method,
    pub(super) bytes: Vec<u8>,
    /// Times it was told to come later.
    pub(super) later: u32,
    /// Times it needed a new connection.
    pub(super) connects: u32,
}

/// A request under way.
pub(super) struct Fetch {
    pub(super) request: Request,
    pub(super) exchange: Exchange,
    /// Last sign of life.
    pub(super) heard: Duration,
}

/// A file under way by TFTP.
pub(super) struct Read {
    pub(super) client: Box<tftp::Client>,
    purpose: Purpose,
    kept: Vec<u8>,
    /// Bytes that may be kept; `None` once there were more, or if none are wanted.
    keep_max: Option<usize>,
    is_too_long: bool,
}

impl Read {
    /// Takes a datagram.
    pub(super) fn handle_datagram(&mut self, now: Duration, from: SocketAddr, bytes: &[u8]) {
        let Ok(payload) = self.client.handle_datagram(now, from, bytes) else { return };
        let Some(keep_max) = self.keep_max else { return };
        if self.kept.len() + payload.len() > keep_max {
            self.keep_max = None;
            self.kept = Vec::new();
            self.is_too_long = true;
        } else {
            self.kept.extend_from_slice(payload);
        }
    }
}

impl Node {
    /// Fetches a file, by the protocol that its place says.
    pub(super) fn fetch(&mut self, now: Duration, from: &Location, purpose: Purpose) -> Result<(), Reason> {
        match from {
            Location::Http(url) => self.get(now, url, Method::Get, None, purpose),
            Location::Tftp(server, name) => self.read(now, SocketAddr::new(IpAddr::V4(*server), 69), name, purpose),
        }
    }

    /// Fetches a file after its size, as firmware does by HTTP.
    pub(super) fn fetch_sized(&mut self, now: Duration, from: &Location, purpose: Purpose) -> Result<(), Reason> {
        match from {
            Location::Http(url) => {
                self.get(now, url, Method::Head, None, Purpose::Size(url.clone(), Box::new(purpose)))
            }
            Location::Tftp(..) => self.fetch(now, from, purpose),
        }
    }

    // ---- TFTP

    fn read(&mut self, now: Duration, server: SocketAddr, name: &str, purpose: Purpose) -> Result<(), Reason> {
        let address = self.lease.as_ref().ok_or(Reason::NoBootFile)?.address;
        let manner = firmware::tftp(self.speaker, self.settings.patience);
        let options = Options {
            block_bytes: Some(manner.block_bytes),
            window_blocks: manner.window_blocks,
            timeout_seconds: None,
            transfer_bytes: Some(0),
        };
        let client = tftp::Client::with_waits(now, server, &ReadRequest { name, options }, manner.waits);
        let keep_max = match &purpose {
            Purpose::Script(_) => Some(SCRIPT_BYTES_MAX),
            Purpose::Library(_) => Some(MODULE_BYTES_MAX),
            Purpose::Initrd => Some(CA_BYTES_MAX),
            _ => None,
        };
        self.close();
        self.actions.push_back(Action::OpenUdp(address));
        let read = Read { client: Box::new(client), purpose, kept: Vec::new(), keep_max, is_too_long: false };
        self.doing = Doing::Tftp(Box::new(read));
        self.drain_tftp(now);
        Ok(())
    }

    pub(super) fn drain_tftp(&mut self, now: Duration) {
        let Doing::Tftp(read) = &mut self.doing else { return };
        let mut end = None;
        while let Some(output) = read.client.poll_output() {
            match output {
                tftp::Output::Send { to, bytes } => self.actions.push_back(Action::SendUdp(to, bytes.to_vec())),
                tftp::Output::Finished(outcome) => end = Some(outcome),
            }
        }
        let Some(outcome) = end else { return };
        let Doing::Tftp(read) = std::mem::replace(&mut self.doing, Doing::Off) else { return };
        self.actions.push_back(Action::CloseUdp);
        let result = match outcome {
            tftp::Outcome::Complete { file_bytes } => {
                self.bytes += file_bytes;
                match read.purpose {
                    Purpose::Script(_) if read.is_too_long => self.failed(now, &read.purpose, Reason::TooLong),
                    purpose => self.fetched(now, purpose, read.kept),
                }
            }
            failed => self.failed(now, &read.purpose, Reason::Tftp(failed)),
        };
        self.check(now, result);
    }

    // ---- HTTP

    /// A GET or HEAD, of the whole or of a range.
    pub(super) fn get(
        &mut self,
        now: Duration,
        url: &Url,
        method: Method,
        range: Option<(u64, Option<u64>)>,
        purpose: Purpose,
    ) -> Result<(), Reason> {
        let request = self.request(url, method, range, purpose)?;
        self.send(now, request)
    }

    pub(super) fn request(
        &self,
        url: &Url,
        method: Method,
        range: Option<(u64, Option<u64>)>,
        purpose: Purpose,
    ) -> Result<Request, Reason> {
        let head = RequestHead {
            method,
            target: &url.target,
            host: &url.server.to_string(),
            range,
            user_agent: Some(firmware::http(self.speaker, self.settings.patience).agent),
            connection: Connection::KeepAlive,
        };
        let mut buffer = vec![0; url.target.len() + REQUEST_BYTES_BESIDES];
        let length = head.write(&mut buffer).ok_or(Reason::Url)?;
        buffer.truncate(length);
        Ok(request(purpose, url.server, Security::Plain, method, buffer))
    }

    /// Sends a request, on the connection at hand if it leads there, else on a new one.
    pub(super) fn send(&mut self, now: Duration, mut request: Request) -> Result<(), Reason> {
        if let Some(server) = self.settings.server_http.filter(|_| request.security == Security::Plain) {
            request.server = server;
        }
        let sink = match request.purpose {
            Purpose::Script(_) => Sink::Keep(SCRIPT_BYTES_MAX),
            Purpose::Library(_) => Sink::Keep(MODULE_BYTES_MAX),
            Purpose::Initrd => Sink::KeepIfSmall(CA_BYTES_MAX),
            Purpose::Redeem | Purpose::Report | Purpose::Ready => Sink::Keep(ANSWER_BYTES_MAX),
            Purpose::Manifest => Sink::Keep(MANIFEST_BYTES_MAX),
            Purpose::Size(..)
            | Purpose::Loader(_)
            | Purpose::Module
            | Purpose::Kernel
            | Purpose::Metadata
            | Purpose::PhoneHome => Sink::Discard,
            Purpose::Part => match self.download.as_mut().and_then(|download| download.verifier.take()) {
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

    /// When nothing having come means that nothing will.
    pub(super) fn silent_at(&self, fetch: &Fetch) -> Option<Duration> {
        let manner = firmware::http(self.speaker, self.settings.patience);
        let stands = self.connection.as_ref().is_some_and(|open| open.channel.is_some());
        let wait = if stands { manner.silence } else { Some(manner.connect) };
        wait.map(|wait| fetch.heard + wait)
    }

    pub(super) fn open_channel(&mut self) -> Result<(), Reason> {
        let Some(open) = &mut self.connection else { return Ok(()) };
        open.channel = Some(match open.security {
            Security::Plain => Channel::Plain,
            Security::Anonymous | Security::Certified => {
                let authority = self.authority.as_deref().ok_or(Reason::NoCa)?;
                let install = self.install.as_ref().ok_or(Reason::NoClaim)?;
                let with = open.security == Security::Certified;
                Channel::Tls(Box::new(install.identity.connect(authority, open.server.ip(), with)?))
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

    pub(super) fn take_bytes(&mut self, now: Duration, wire: &[u8]) -> Result<(), Reason> {
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
    pub(super) fn go_on(&mut self, now: Duration) -> Result<(), Reason> {
        let Doing::Fetch(fetch) = &mut self.doing else { return Ok(()) };
        if !fetch.exchange.is_complete() {
            let is_plain =
                self.connection.as_ref().and_then(|open| open.channel.as_ref()).is_some_and(Channel::is_plain);
            let left = fetch.exchange.discardable();
            self.actions.push_back(if is_plain && left > 0 && self.settings.bodies == Bodies::Trunc {
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
        let comes_again = firmware::http(self.speaker, self.settings.patience).comes_again;
        let status = response.status;
        match status {
            200 | 206 => {}
            409 | 429 | 503 if comes_again && request.later < LATER_MAX => {
                if let Some(download) = &mut self.download {
                    download.verifier = response.verifier;
                }
                request.later += 1;
                let pause = response.later.unwrap_or(LATER_PAUSE_DEFAULT).min(LATER_PAUSE_MAX);
                self.doing = Doing::Pause(now + pause, Some(Box::new(request)));
                return Ok(());
            }
            409 | 429 | 503 if comes_again => return self.failed(now, &request.purpose, Reason::Busy),
            // What a machine posts may be taken without an answer to read.
            201 | 202 | 204 if request.purpose == Purpose::PhoneHome => {}
            _ => return self.failed(now, &request.purpose, Reason::Status(status)),
        }
        match request.purpose {
            Purpose::Size(url, purpose) => self.get(now, &url, Method::Get, None, *purpose),
            Purpose::Part => self.part_came(now, response),
            purpose => self.fetched(now, purpose, response.body),
        }
    }

    /// A transfer has come to nothing: a script may have an alternative, else the boot ends with the reason.
    fn failed(&mut self, now: Duration, purpose: &Purpose, reason: Reason) -> Result<(), Reason> {
        if self.script.is_none() || !purpose.is_of_script() {
            return Err(reason);
        }
        self.follow(now, Outcome::Failure).map_err(|end| match end {
            // It had none: what counts is why the transfer failed.
            Reason::Script(why) if why.starts_with("script failed at") => reason,
            other => other,
        })
    }

    /// Tries the request at hand again on a new connection after a pause, unless that has been tried enough.
    pub(super) fn reconnect(&mut self, now: Duration, reason: Reason) {
        let Doing::Fetch(fetch) = std::mem::replace(&mut self.doing, Doing::Off) else { return };
        self.close();
        let mut request = fetch.request;
        let tries_max = firmware::http(self.speaker, self.settings.patience).connects_max;
        if request.purpose == Purpose::Part {
            match self.part_broke(&mut request, fetch.exchange.into_response()) {
                Ok(()) => {}
                Err(Reason::Closed) => return self.end(now, Ending::Failed(reason)),
                Err(other) => return self.end(now, Ending::Failed(other)),
            }
        }
        request.connects += 1;
        if request.connects > tries_max {
            let result = self.failed(now, &request.purpose, reason);
            return self.check(now, result);
        }
        self.doing = Doing::Pause(now + CONNECT_PAUSE, Some(Box::new(request)));
    }

    pub(super) fn close(&mut self) {
        if self.connection.take().is_some() {
            self.actions.push_back(Action::Close);
        }
    }
}

/// A request that has not been sent.
pub(super) fn request(
    purpose: Purpose,
    server: SocketAddr,
    security: Security,
    method: Method,
    bytes: Vec<u8>,
) -> Request {
    Request { purpose, server, security, method, bytes, later: 0, connects: 0 }
}

/// Whether this one asks for a file's size before the file, by HTTP.
pub(super) fn asks_sizes(speaker: Speaker) -> bool {
    match speaker {
        Speaker::Firmware(_) | Speaker::Grub => true,
        Speaker::Ipxe | Speaker::Pxelinux | Speaker::System => false,
    }
}
