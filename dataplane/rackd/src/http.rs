//! HTTP connections of a shard: one request at a time, answered from memory in quanta.
//!
//! A connection has one send in flight at most, and has the chunk after what it sends brought into memory meanwhile.
//!
//! Receiving is armed for one go at first, as many connections bring one request, and for good when a second one may come: so
//! a connection that ends with its first response is closed without anything to cancel. Octets that come with a request, or
//! while a response goes and receiving is armed, are pipelining: the response is finished, the connection closed.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bootstorm_content::IndexedManifest;
use bootstorm_driver::{ConnectionId, Event, ListenerId, More, Operation, OperationId, Parts, Repeat, Sealed};
use bootstorm_engine::http::{Resource, route};
use bootstorm_proto::http::server::{
    Connection, Method, Request, RequestParser, ResponseHead, Selection, Status, select,
};
use bootstorm_proto::limits as proto;
use bootstorm_snapshot::Stage;
use bytes::Bytes;

use crate::answers::{Answer, Answers, Octets};
use crate::core::{Core, Kind, Next, token};
use crate::limits;
use crate::mail::{Absent, Ask, Mail, ScriptAsk};
use crate::slab::{Key, Slab};

const OCTETS: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The HTTP connections of one shard.
pub(crate) struct Http {
    connections: Slab<Peer>,
    listeners: Vec<ListenerId>,
    answers: Answers,
    stopping: bool,
}

struct Peer {
    id: ConnectionId,
    source: IpAddr,
    parser: RequestParser,
    /// The request's head, kept until its response is made.
    buffer: Vec<u8>,
    state: State,
    /// Receiving that is armed.
    receive: Option<(OperationId, Repeat)>,
    close: bool,
    /// Whether it has sent a whole request: before, it has cost its peer nothing.
    proven: bool,
    deadline: Instant,
    armed: Option<Instant>,
}

enum State {
    /// Waits for a head.
    Head,
    /// Waits for what the request is about.
    Asking(Option<Stage>),
    Responding(Response),
    /// The response is out; waits for the peer's end.
    Lingering,
}

struct Response {
    head: Option<Bytes>,
    body: Body,
    sending: bool,
    /// The rest cannot be had: the connection ends when what is being sent has gone.
    cut: bool,
    stage: Option<Stage>,
}

enum Body {
    Bytes(Option<Bytes>),
    /// Head and body in one, sent by reference.
    Sealed(Option<Sealed>),
    Stored {
        manifest: Arc<IndexedManifest>,
        /// What is not sent yet.
        range: Range<u64>,
        /// Whether its first chunk is on its way into memory.
        waiting: bool,
    },
}

/// What a request is answered with.
enum Content {
    Bytes(Bytes, &'static str),
    Stored(Arc<IndexedManifest>),
    Status(Status),
}

impl Http {
    pub(crate) fn new() -> Http {
        Http {
            connections: Slab::new(limits::CONNECTIONS_MAX as usize),
            listeners: Vec::new(),
            answers: Answers::default(),
            stopping: false,
        }
    }

    pub(crate) fn listen(&mut self, core: &mut Core, listener: ListenerId) {
        self.listeners.push(listener);
        core.submit(token(Kind::Accept, Key { slot: 0, generation: 0 }), Operation::Accept { listener });
    }

    /// Closes the listeners and idle connections; responses under way go on.
    pub(crate) fn stop(&mut self, core: &mut Core) {
        self.stopping = true;
        self.listeners.drain(..).for_each(|listener| core.driver.remove_listener(listener));
        for key in self.connections.keys() {
            match self.connections.find(key) {
                Some(Peer { state: State::Responding(_), close, .. }) => *close = true,
                Some(_) => self.remove(core, key),
                None => {}
            }
        }
    }

    /// Whether no response is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.connections.len() == 0
    }

    pub(crate) fn handle_accepted(&mut self, core: &mut Core, event: Event) {
        let id = match event {
            Event::Accepted(id) => id,
            Event::Failed(error) => return tracing::warn!(%error, "accepting failed"),
            _ => return,
        };
        let Ok(source) = core.driver.peer_address(id).map(|peer| peer.ip()) else { return core.driver.close(id) };
        if self.connections.len() >= limits::CONNECTIONS_MAX as usize - limits::CONNECTIONS_RESERVE {
            self.make_room(core);
        }
        if self.stopping || !core.shared.connections.take(source) {
            core.shared.metrics.dropped("http", "source_connections");
            return core.driver.close(id);
        }
        let peer = Peer {
            id,
            source,
            parser: RequestParser::new(),
            buffer: Vec::new(),
            state: State::Head,
            receive: None,
            close: false,
            proven: false,
            deadline: core.now + proto::HTTP_HEAD_DEADLINE,
            armed: None,
        };
        let Ok(key) = self.connections.insert(peer) else {
            core.shared.connections.give(source);
            core.shared.metrics.dropped("http", "connections");
            return core.driver.close(id);
        };
        core.shared.metrics.http_connections.inc();
        if let Some(peer) = self.connections.find(key) {
            core.arm(&mut peer.armed, peer.deadline, token(Kind::Request, key));
        }
        self.receive(core, key, Repeat::Once);
    }

    /// Arms receiving, if it is not.
    fn receive(&mut self, core: &mut Core, key: Key, repeat: Repeat) {
        let Some(peer) = self.connections.find(key) else { return };
        if peer.receive.is_some() {
            return;
        }
        let receive = Operation::Receive { connection: peer.id, repeat };
        peer.receive = core.submit(token(Kind::HttpReceive, key), receive).map(|operation| (operation, repeat));
        if peer.receive.is_none() {
            self.remove(core, key);
        }
    }

    /// Closes connections without a request under way, so that many slow ones keep nobody out: first those that have never sent a
    /// whole one, then idle ones, and of each the longest waiting. As many at once as the reserve holds, as it looks at all.
    fn make_room(&mut self, core: &mut Core) {
        let keys = self.connections.keys();
        let waits = |key: Key| {
            let peer = self.connections.find(key)?;
            matches!(peer.state, State::Head).then_some((peer.proven, peer.deadline, key))
        };
        let mut waiting: Vec<(bool, Instant, Key)> = keys.into_iter().filter_map(waits).collect();
        waiting.sort_unstable();
        for (proven, _, key) in waiting.into_iter().take(limits::CONNECTIONS_RESERVE) {
            let reason = if proven { "idle_evicted" } else { "unproven_evicted" };
            core.shared.metrics.dropped("http", reason);
            self.remove(core, key);
        }
    }

    pub(crate) fn handle_received(&mut self, core: &mut Core, key: Key, event: Event) {
        let stopping = self.stopping;
        let Some(peer) = self.connections.find(key) else { return };
        if matches!((&event, &peer.receive), (Event::Bytes(_), Some((_, Repeat::Once)))) {
            peer.receive = None;
        }
        match event {
            Event::Bytes(bytes) => match peer.state {
                State::Head => {
                    if peer.buffer.is_empty() {
                        let index = core.shared.index.load();
                        if !stopping && let Some(answer) = self.answers.find(&index, core.time.unix_seconds(), &bytes) {
                            peer.proven = true;
                            drop((index, bytes));
                            return self.respond_again(core, key, answer);
                        }
                        drop(index);
                        peer.set_deadline(core, key, proto::HTTP_HEAD_DEADLINE);
                    }
                    peer.buffer.extend_from_slice(&bytes);
                    drop(bytes);
                    self.parse(core, key);
                    if self.connections.find(key).is_some_and(|peer| matches!(peer.state, State::Head)) {
                        self.receive(core, key, Repeat::Continuous);
                    }
                }
                State::Asking(_) | State::Responding(_) => {
                    if !peer.close {
                        core.shared.metrics.dropped("http", "pipelined");
                    }
                    peer.close = true;
                    if let Some((receive, _)) = peer.receive.take() {
                        core.driver.cancel(receive);
                    }
                }
                State::Lingering => {}
            },
            Event::EndOfStream => match peer.state {
                // The peer may have ended its half after the request; what it asked for it still gets.
                State::Asking(_) | State::Responding(_) => (peer.close, peer.receive) = (true, None),
                State::Head | State::Lingering => self.remove(core, key),
            },
            Event::Failed(_) => self.remove(core, key),
            _ => {}
        }
    }

    /// Looks whether the head is whole, and if it is, answers or asks.
    fn parse(&mut self, core: &mut Core, key: Key) {
        let Some(peer) = self.connections.find(key) else { return };
        let buffer = std::mem::take(&mut peer.buffer);
        let (request, length) = match peer.parser.parse(&buffer) {
            Ok(None) => {
                peer.buffer = buffer;
                return;
            }
            Ok(Some(parsed)) => parsed,
            Err(rejection) => {
                core.shared.metrics.dropped("http", rejection.name());
                let head = ResponseHead::rejection(rejection);
                // What the peer goes on sending must not reset the connection under the answer.
                self.receive(core, key, Repeat::Continuous);
                return self.respond_head(core, key, &head, Body::Bytes(None), None);
            }
        };
        if length != buffer.len() {
            core.shared.metrics.dropped("http", "pipelined");
            let head = ResponseHead::new(Status::BadRequest, 0, Connection::Close);
            self.receive(core, key, Repeat::Continuous);
            return self.respond_head(core, key, &head, Body::Bytes(None), None);
        }
        peer.parser = RequestParser::new();
        peer.proven = true;
        peer.set_deadline(core, key, limits::WAIT_DEADLINE);
        let index = core.shared.index.load_full();
        let resource = route(&index, &request);
        let content = match resource {
            Resource::Bytes(bytes) => Content::Bytes(bytes, OCTETS),
            Resource::Metrics => Content::Bytes(core.shared.metrics.text().into(), METRICS),
            Resource::Health => Content::Bytes(Bytes::from_static(b"ok\n"), TEXT),
            Resource::NotFound => Content::Status(Status::NotFound),
            Resource::BadMac => Content::Status(Status::BadRequest),
            Resource::File { manifest, stage } => match core.manifest(&manifest) {
                Some(manifest) => {
                    return self.respond(core, key, (&request, &buffer), Content::Stored(manifest), stage);
                }
                None => {
                    let waiter = core.waiter(token(Kind::Request, key));
                    return self
                        .wait(core, key, buffer, stage, |core| core.ask(Ask::Manifest { waiter, digest: manifest }));
                }
            },
            Resource::Manifest(digest) => {
                let waiter = core.waiter(token(Kind::Request, key));
                return self.wait(core, key, buffer, None, |core| core.ask(Ask::ManifestBytes { waiter, digest }));
            }
            Resource::Chunk(name) => {
                let waiter = core.waiter(token(Kind::Request, key));
                return self.wait(core, key, buffer, None, |core| core.ask(Ask::Chunk { waiter, name }));
            }
            Resource::Script { mac, format } => {
                // The rack's address as the peer sees it.
                let rack = match core.driver.local_address(peer.id).map(|local| local.ip()) {
                    Ok(IpAddr::V4(address)) => address,
                    Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
                    Err(_) => return self.remove(core, key),
                };
                let waiter = core.waiter(token(Kind::Request, key));
                let ask = ScriptAsk { waiter, mac, rack, format, method: request.method };
                return self.wait(core, key, buffer, None, |core| core.tell_engine(Mail::AskScript(ask)));
            }
        };
        self.respond(core, key, (&request, &buffer), content, None);
    }

    /// Asks another thread for what the request is about.
    fn wait(
        &mut self,
        core: &mut Core,
        key: Key,
        buffer: Vec<u8>,
        stage: Option<Stage>,
        ask: impl FnOnce(&mut Core) -> bool,
    ) {
        if let Some(peer) = self.connections.find(key) {
            peer.buffer = buffer;
            peer.state = State::Asking(stage);
            if !ask(core) {
                let status = if core.shared.has_engine { Status::ServiceUnavailable } else { Status::NotFound };
                self.answer(core, key, Content::Status(status));
            }
        }
    }

    pub(crate) fn handle_manifest(&mut self, core: &mut Core, key: Key, outcome: Result<Arc<IndexedManifest>, Absent>) {
        let content = match outcome {
            Ok(manifest) => {
                core.keep_manifest(&manifest);
                Content::Stored(manifest)
            }
            Err(absent) => Content::Status(status(absent)),
        };
        self.answer(core, key, content);
    }

    pub(crate) fn handle_bytes(&mut self, core: &mut Core, key: Key, outcome: Result<Bytes, Absent>) {
        let content = match outcome {
            Ok(bytes) => Content::Bytes(bytes, OCTETS),
            Err(absent) => Content::Status(status(absent)),
        };
        self.answer(core, key, content);
    }

    pub(crate) fn handle_script(&mut self, core: &mut Core, key: Key, text: Option<String>) {
        let content = text.map_or(Content::Status(Status::NotFound), |text| Content::Bytes(text.into(), TEXT));
        self.answer(core, key, content);
    }

    /// What the request was waiting for has come. Its head is parsed once more: that is less than keeping it in pieces.
    fn answer(&mut self, core: &mut Core, key: Key, content: Content) {
        let Some(peer) = self.connections.find(key) else { return };
        let State::Asking(stage) = peer.state else { return };
        let buffer = std::mem::take(&mut peer.buffer);
        match RequestParser::new().parse(&buffer) {
            Ok(Some((request, _))) => self.respond(core, key, (&request, &buffer), content, stage),
            // It was parsed before.
            Ok(None) | Err(_) => self.remove(core, key),
        }
    }

    /// Answers a request, given as parsed and in its octets.
    fn respond(
        &mut self,
        core: &mut Core,
        key: Key,
        (request, octets): (&Request<'_>, &[u8]),
        content: Content,
        stage: Option<Stage>,
    ) {
        let close = self.stopping || self.connections.find(key).is_some_and(|peer| peer.close);
        let connection = if close { Connection::Close } else { request.connection };
        let (bytes_total, kind, tag) = match &content {
            Content::Bytes(bytes, kind) => (bytes.len() as u64, *kind, None),
            Content::Stored(manifest) => {
                (manifest.manifest().stored_bytes(), OCTETS, Some(manifest.digest().to_string()))
            }
            Content::Status(status) => {
                // Whoever must come again may come by another connection: then a late answer finds nobody.
                let connection = if *status == Status::ServiceUnavailable { Connection::Close } else { connection };
                let mut head = ResponseHead::new(*status, 0, connection);
                if *status == Status::ServiceUnavailable {
                    head.retry_after_seconds = Some(limits::RETRY_AFTER_SECONDS);
                }
                return self.respond_head(core, key, &head, Body::Bytes(None), None);
            }
        };
        let base = |status, length| ResponseHead {
            content_type: Some(kind),
            entity_tag: tag.as_deref(),
            cache_control: tag.is_none().then_some("no-store"),
            ..ResponseHead::new(status, length, connection)
        };
        let (head, range) = match select(request, bytes_total, tag.as_deref()) {
            Selection::Whole => (base(Status::Ok, bytes_total), 0..bytes_total),
            Selection::Part(range) => {
                let mut head = base(Status::PartialContent, range.end - range.start);
                head.part = Some((range.clone(), bytes_total));
                (head, range)
            }
            Selection::NotModified => (base(Status::NotModified, 0), 0..0),
            Selection::NotSatisfiable => {
                let mut head = base(Status::RangeNotSatisfiable, 0);
                head.unsatisfied_bytes = Some(bytes_total);
                (head, 0..0)
            }
        };
        let stage = stage.filter(|_| request.method == Method::Get && range.end == bytes_total);
        if let (Content::Stored(manifest), Status::Ok, Method::Get) = (&content, head.status, request.method)
            && let Some(chunks) = core.whole(manifest, limits::ANSWER_BYTES_MAX)
        {
            let Some(mut bytes) = write_head(core, &head) else { return self.remove(core, key) };
            chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
            let whole = Octets::Copied(bytes.into());
            let answer = Answer { octets: whole, close: head.connection == Connection::Close, stage };
            if !close {
                let index = core.shared.index.load();
                self.answers.keep(&index, core.time.unix_seconds(), octets, &answer);
            }
            return self.respond_again(core, key, answer);
        }
        let range = if request.method == Method::Head { 0..0 } else { range };
        let body = match content {
            Content::Bytes(bytes, _) => {
                let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                Body::Bytes(bounds.map(|(start, end)| bytes.slice(start..end)).filter(|part| !part.is_empty()))
            }
            Content::Stored(manifest) => Body::Stored { manifest, range, waiting: false },
            Content::Status(_) => Body::Bytes(None),
        };
        self.respond_head(core, key, &head, body, stage);
    }

    fn respond_head(&mut self, core: &mut Core, key: Key, head: &ResponseHead<'_>, body: Body, stage: Option<Stage>) {
        let Some(buffer) = write_head(core, head) else { return self.remove(core, key) };
        let Some(peer) = self.connections.find(key) else { return };
        core.shared.metrics.response(head.status.code());
        peer.close |= head.connection == Connection::Close;
        peer.state = State::Responding(Response { head: Some(buffer.into()), body, sending: false, cut: false, stage });
        self.pump(core, key);
    }

    /// Sends an answer that is whole.
    fn respond_again(&mut self, core: &mut Core, key: Key, answer: Answer) {
        let Some(peer) = self.connections.find(key) else { return };
        core.shared.metrics.response(Status::Ok.code());
        peer.close |= answer.close;
        let (head, body) = match answer.octets {
            Octets::Copied(bytes) => (Some(bytes), Body::Bytes(None)),
            Octets::Sealed(sealed) => (None, Body::Sealed(Some(sealed))),
        };
        let stage = answer.stage;
        peer.state = State::Responding(Response { head, body, sending: false, cut: false, stage });
        self.pump(core, key);
    }

    /// Sends what is next, ends what is done.
    fn pump(&mut self, core: &mut Core, key: Key) {
        let quantum = quantum(self.connections.len(), core.shared.cache.capacity_bytes());
        let Some(peer) = self.connections.find(key) else { return };
        let State::Responding(response) = &mut peer.state else { return };
        if response.cut || response.sending {
            return;
        }
        let next = match response.next(core, key, quantum) {
            Ok(next) => next,
            Err(NotReady::Drained) => return self.finish(core, key),
            Err(NotReady::Waiting) => return peer.set_deadline(core, key, limits::WAIT_DEADLINE),
            Err(NotReady::Failed) => return self.give_up(core, key),
        };
        let bytes = next.len() as u64;
        // What ends a response is followed by the next quantum, or by the end of the stream, which then needs no segment of its own.
        let ends = peer.close && peer.receive.is_none();
        let more = if response.is_drained() && !ends { More::Done } else { More::Follows };
        let send = match next {
            NextSend::Parts(parts) => Operation::Send { connection: peer.id, parts, more },
            NextSend::Sealed(sealed) => Operation::SendSealed { connection: peer.id, sealed },
        };
        response.sending = true;
        if core.submit(token(Kind::HttpSend, key), send).is_none() {
            return self.remove(core, key);
        }
        core.shared.metrics.http_bytes.inc_by(bytes);
        if let Body::Stored { manifest, range, waiting } = &mut response.body
            && !range.is_empty()
        {
            match core.look_ahead((Kind::HttpRead, key), manifest, range.clone()) {
                Next::Waiting => *waiting = true,
                // A failure is met again when these octets are due.
                Next::Ready(_) | Next::Failed => {}
            }
        }
        peer.set_deadline(core, key, send_deadline(bytes));
    }

    pub(crate) fn handle_sent(&mut self, core: &mut Core, key: Key, event: Event) {
        let Some(peer) = self.connections.find(key) else { return };
        match (&mut peer.state, event) {
            (State::Responding(response), Event::Sent(_)) => {
                response.sending = false;
                if response.cut {
                    return self.remove(core, key);
                }
                if matches!(&response.body, Body::Stored { waiting: true, .. }) {
                    peer.set_deadline(core, key, limits::WAIT_DEADLINE);
                }
                self.pump(core, key);
            }
            _ => self.remove(core, key),
        }
    }

    /// Chunks that a response waited for can be planned again, or cannot be had.
    pub(crate) fn handle_chunks(&mut self, core: &mut Core, key: Key, outcome: Result<(), Absent>) {
        let Some(peer) = self.connections.find(key) else { return };
        let State::Responding(Response { body: Body::Stored { waiting, .. }, .. }) = &mut peer.state else { return };
        if !std::mem::take(waiting) {
            return;
        }
        match outcome {
            Ok(()) => self.pump(core, key),
            Err(_) => self.give_up(core, key),
        }
    }

    /// The body cannot be had: 503 if nothing has been said yet, else the connection ends short of its length, after
    /// what was read before: a client goes on from there with a range.
    fn give_up(&mut self, core: &mut Core, key: Key) {
        let Some(peer) = self.connections.find(key) else { return };
        core.shared.metrics.dropped("http", "content_missing");
        match &mut peer.state {
            State::Responding(Response { sending: true, cut, .. }) => return *cut = true,
            State::Responding(Response { head: Some(_), .. }) => {}
            _ => return self.remove(core, key),
        }
        let mut head = ResponseHead::new(Status::ServiceUnavailable, 0, Connection::Close);
        head.retry_after_seconds = Some(limits::RETRY_AFTER_SECONDS);
        self.respond_head(core, key, &head, Body::Bytes(None), None);
    }

    /// The response is with the kernel, whole.
    fn finish(&mut self, core: &mut Core, key: Key) {
        let Some(peer) = self.connections.find(key) else { return };
        if let State::Responding(Response { stage: Some(stage), .. }) = peer.state {
            let from = peer.source;
            core.tell_engine(Mail::Fetched { from, stage });
        }
        if !peer.close {
            peer.state = State::Head;
            peer.set_deadline(core, key, limits::IDLE_DEADLINE);
            return self.receive(core, key, Repeat::Continuous);
        }
        // Without receiving nothing of the peer is unread as far as we know, and closing loses nothing.
        if peer.receive.is_none() || core.driver.shutdown_write(peer.id).is_err() {
            return self.remove(core, key);
        }
        peer.state = State::Lingering;
        peer.set_deadline(core, key, limits::LINGER_DEADLINE);
    }

    pub(crate) fn handle_timeout(&mut self, core: &mut Core, key: Key) {
        let Some(peer) = self.connections.find(key) else { return };
        peer.armed = None;
        if peer.deadline > core.now {
            return core.arm(&mut peer.armed, peer.deadline, token(Kind::Request, key));
        }
        match &peer.state {
            State::Head if peer.buffer.is_empty() => self.remove(core, key),
            State::Head => {
                core.shared.metrics.dropped("http", "head_too_slow");
                self.remove(core, key);
            }
            State::Asking(_) => self.answer(core, key, Content::Status(Status::ServiceUnavailable)),
            State::Responding(Response { sending: true, .. }) => {
                core.shared.metrics.dropped("http", "reads_too_slowly");
                self.remove(core, key);
            }
            State::Responding(_) => self.give_up(core, key),
            State::Lingering => self.remove(core, key),
        }
    }

    fn remove(&mut self, core: &mut Core, key: Key) {
        if let Some(peer) = self.connections.remove(key) {
            core.driver.close(peer.id);
            core.shared.connections.give(peer.source);
            core.shared.metrics.http_connections.dec();
        }
    }
}

impl Peer {
    fn set_deadline(&mut self, core: &mut Core, key: Key, after: Duration) {
        self.deadline = core.now + after;
        core.arm(&mut self.armed, self.deadline, token(Kind::Request, key));
    }
}

/// What can be sent now.
enum NextSend {
    Parts(Parts),
    Sealed(Sealed),
}

impl NextSend {
    fn len(&self) -> usize {
        match self {
            NextSend::Parts(parts) => parts.len(),
            NextSend::Sealed(sealed) => sealed.len(),
        }
    }
}

/// Why nothing can be sent now.
enum NotReady {
    /// All was sent.
    Drained,
    /// The next chunk is on its way.
    Waiting,
    /// The next chunk cannot be had.
    Failed,
}

impl Response {
    /// What can be sent now. The head waits for the first octets of a stored body, so that a missing chunk is a 503.
    fn next(&mut self, core: &mut Core, key: Key, quantum: u64) -> Result<NextSend, NotReady> {
        let part = match &mut self.body {
            Body::Bytes(bytes) => bytes.take(),
            Body::Sealed(sealed) => return sealed.take().map(NextSend::Sealed).ok_or(NotReady::Drained),
            Body::Stored { waiting: true, .. } => return Err(NotReady::Waiting),
            Body::Stored { range, .. } if range.is_empty() => None,
            Body::Stored { manifest, range, waiting } => {
                let front = range.start..range.end.min(range.start + quantum);
                let mut parts = Vec::with_capacity(3);
                parts.extend(self.head.clone());
                match core.gather((Kind::HttpRead, key), manifest, front, &mut parts) {
                    Next::Ready(bytes) => range.start += bytes,
                    Next::Waiting => {
                        *waiting = true;
                        return Err(NotReady::Waiting);
                    }
                    Next::Failed => return Err(NotReady::Failed),
                }
                self.head = None;
                return Ok(NextSend::Parts(parts.into()));
            }
        };
        match (self.head.take(), part) {
            (Some(head), Some(part)) => Ok(NextSend::Parts([head, part].into())),
            (Some(bytes), None) | (None, Some(bytes)) => Ok(NextSend::Parts(bytes.into())),
            (None, None) => Err(NotReady::Drained),
        }
    }

    /// Whether nothing is left to send.
    fn is_drained(&self) -> bool {
        self.head.is_none()
            && match &self.body {
                Body::Bytes(bytes) => bytes.is_none(),
                Body::Sealed(sealed) => sealed.is_none(),
                Body::Stored { range, .. } => range.is_empty(),
            }
    }
}

/// Octets of one send: fewer when many share the shard, or would hold too much of the memory for chunks.
fn quantum(connections: usize, cache_bytes: u64) -> u64 {
    let held_bytes = limits::QUANTUM_BYTES.saturating_mul(connections as u64);
    let crowded = connections > limits::CROWDED_CONNECTIONS || held_bytes > cache_bytes / limits::QUANTA_SHARE;
    if crowded { limits::QUANTUM_BYTES_CROWDED } else { limits::QUANTUM_BYTES }
}

/// How long so many octets may take to leave.
fn send_deadline(bytes: u64) -> Duration {
    let quanta = u32::try_from(bytes.div_ceil(limits::QUANTUM_BYTES_CROWDED)).unwrap_or(u32::MAX);
    limits::SEND_DEADLINE.saturating_mul(quanta.max(1))
}

/// The octets of a head with the date of now.
fn write_head(core: &mut Core, head: &ResponseHead<'_>) -> Option<Vec<u8>> {
    let date = core.date();
    let head = ResponseHead { date: Some(&date), ..head.clone() };
    let mut buffer = vec![0; proto::HTTP_RESPONSE_HEAD_BYTES];
    let Ok(length) = head.write(&mut buffer) else {
        tracing::error!(status = head.status.code(), "a response head could not be written");
        return None;
    };
    buffer.truncate(length);
    Some(buffer)
}

fn status(absent: Absent) -> Status {
    match absent {
        Absent::Unknown => Status::NotFound,
        Absent::Later => Status::ServiceUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quanta_are_short_when_many_share_and_when_memory_is_small() {
        const MIB: u64 = 1 << 20;
        assert_eq!(quantum(100, 4096 * MIB), limits::QUANTUM_BYTES);
        assert_eq!(quantum(limits::CROWDED_CONNECTIONS + 1, 4096 * MIB), limits::QUANTUM_BYTES_CROWDED);
        assert_eq!((quantum(16, 64 * MIB), quantum(17, 64 * MIB)), (MIB, limits::QUANTUM_BYTES_CROWDED));
    }

    #[test]
    fn long_sends_may_take_longer() {
        assert_eq!(send_deadline(1), limits::SEND_DEADLINE);
        assert_eq!(send_deadline(limits::QUANTUM_BYTES), limits::SEND_DEADLINE * 4);
    }
}
