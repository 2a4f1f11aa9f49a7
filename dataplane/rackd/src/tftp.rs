//! TFTP transfers of a shard: first requests on port 69, then one connected socket each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bootstorm_content::IndexedManifest;
use bootstorm_driver::limits::{DATAGRAM_BYTES_MAX, SEGMENTS_MAX};
use bootstorm_driver::socket::{self, Udp};
use bootstorm_driver::{Datagram, Destination, Event, Operation, Parts, Peer, SendDatagram, SocketId};
use bootstorm_engine::http::{Resource, tftp};
use bootstorm_proto::http::server::Method;
use bootstorm_proto::tftp::server::{Control, Outcome, Output, Settings, Transfer, Window};
use bootstorm_proto::tftp::wire::{ErrorCode, Options, Packet, ReadRequest};
use bootstorm_snapshot::Stage;
use bytes::Bytes;

use crate::core::{Core, Kind, Next, token};
use crate::limits;
use crate::mail::{Absent, Ask, Mail, ScriptAsk};
use crate::slab::{Key, Slab};

/// The TFTP transfers of one shard.
pub(crate) struct Tftp {
    transfers: Slab<Session>,
    /// A request that comes again from the same port belongs to the transfer that it began.
    peers: HashMap<SocketAddr, Key>,
    sockets: Vec<SocketId>,
    /// Whether the kernel takes segmented sends out of the interface.
    segments: bool,
    stopping: bool,
}

struct Session {
    socket: SocketId,
    peer: SocketAddr,
    options: Options,
    stage: Option<Stage>,
    /// `None` until the file is known.
    transfer: Option<Transfer>,
    source: Source,
    /// What the transfer wants to send and whose octets are not all here.
    window: Option<Window>,
    /// When the file must be known.
    deadline: Instant,
    armed: Option<Instant>,
}

enum Source {
    Asking,
    Bytes(Bytes),
    Stored {
        manifest: Arc<IndexedManifest>,
        /// Octets of the window that is to be sent, from its start and in a row, as far as they are in memory.
        pieces: Vec<Bytes>,
        /// Whether the next ones are on their way into memory.
        waiting: bool,
    },
}

impl Tftp {
    pub(crate) fn new() -> Tftp {
        Tftp {
            transfers: Slab::new(limits::TRANSFERS_MAX),
            peers: HashMap::new(),
            sockets: Vec::new(),
            segments: true,
            stopping: false,
        }
    }

    /// Takes first requests from this socket.
    pub(crate) fn listen(&mut self, core: &mut Core, socket: SocketId) {
        let Ok(slot) = u32::try_from(self.sockets.len()) else { return };
        self.sockets.push(socket);
        let token = token(Kind::TftpReceive, Key { slot, generation: REQUESTS });
        // Firmware gives up where its first request waits behind the transfers of others.
        core.submit(token, Operation::ReceiveAhead { socket });
    }

    /// Takes no new requests; transfers under way go on.
    pub(crate) fn stop(&mut self, core: &mut Core) {
        self.stopping = true;
        self.sockets.iter().for_each(|socket| core.driver.remove_socket(*socket));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.transfers.len() == 0
    }

    /// A segmented send was refused: this link cannot do it. The transfer's timer sends again.
    pub(crate) fn handle_sent_segments(&mut self, event: &Event) {
        if let Event::Failed(error) = event
            && std::mem::take(&mut self.segments)
        {
            tracing::info!(%error, "datagrams are sent one by one from here on");
        }
    }

    pub(crate) fn handle_received(&mut self, core: &mut Core, key: Key, event: Event) {
        let datagram = match event {
            Event::Datagram(datagram) if !datagram.is_truncated => datagram,
            Event::Datagram(_) => return core.shared.metrics.dropped("tftp", "too_long"),
            // An ICMP error of an earlier send; the timers know what to do.
            Event::Failed(_) if key.generation != REQUESTS => return self.receive_again(core, key),
            Event::Failed(error) => return tracing::error!(%error, "receiving TFTP requests failed"),
            _ => return,
        };
        if key.generation == REQUESTS {
            if let Some(socket) = self.sockets.get(key.slot as usize).copied() {
                self.handle_request(core, socket, &datagram);
            }
            return;
        }
        let Some(session) = self.transfers.find(key) else { return };
        let Some(transfer) = &mut session.transfer else { return };
        let from = match datagram.peer {
            Peer::Address(from) => from,
            Peer::Link { .. } | Peer::Unknown => session.peer,
        };
        if let Err(reason) = transfer.handle_datagram(core.time.monotonic, from, &datagram.bytes) {
            core.shared.metrics.dropped("tftp", reason.name());
        }
        drop(datagram);
        self.drive(core, key);
    }

    fn receive_again(&mut self, core: &mut Core, key: Key) {
        if let Some(session) = self.transfers.find(key) {
            let receive = Operation::ReceiveConnected { socket: session.socket };
            core.submit(token(Kind::TftpReceive, key), receive);
        }
    }

    fn handle_request(&mut self, core: &mut Core, socket: SocketId, datagram: &Datagram) {
        let Peer::Address(peer) = datagram.peer else { return };
        if self.stopping || peer.port() == 0 {
            return;
        }
        let request = match Packet::parse(&datagram.bytes) {
            Ok(Packet::ReadRequest(request)) => request,
            Ok(Packet::Data { .. } | Packet::Ack { .. } | Packet::Error { .. } | Packet::OptionAck(_)) => {
                return core.shared.metrics.dropped("tftp", "unexpected");
            }
            Err(reason) => {
                core.shared.metrics.dropped("tftp", reason.name());
                if let Some(code) = reason.answer() {
                    refuse(core, socket, peer, code);
                }
                return;
            }
        };
        if let Some(key) = self.peers.get(&peer).copied() {
            let session = self.transfers.find(key);
            let transfer = session.and_then(|session| session.transfer.as_ref());
            // One that has said nothing for so long has not got what we sent: it begins anew.
            if transfer.is_none_or(|transfer| transfer.is_proven() || !transfer.is_out_of_sends()) {
                return core.shared.metrics.dropped("tftp", "repeated_request");
            }
            self.remove(core, key);
        }
        let bound = core.driver.socket_address(socket).map(|address| address.ip());
        let local = bound.filter(|address| !address.is_unspecified()).or(datagram.destination);
        let Some(local) = local else { return core.shared.metrics.dropped("tftp", "no_local_address") };
        let index = core.shared.index.load_full();
        let resource = tftp(&index, request.name);
        if matches!(resource, Resource::NotFound | Resource::BadMac | Resource::Manifest(_) | Resource::Chunk(_)) {
            core.shared.metrics.dropped("tftp", "file_not_found");
            return refuse(core, socket, peer, ErrorCode::FileNotFound);
        }
        if let Some(key) = self.open(core, local, peer, &request) {
            self.begin(core, key, local, resource);
        }
    }

    /// Makes the transfer's own socket.
    fn open(&mut self, core: &mut Core, local: IpAddr, peer: SocketAddr, request: &ReadRequest<'_>) -> Option<Key> {
        let metrics = Arc::clone(&core.shared.metrics);
        if self.transfers.len() >= limits::TRANSFERS_MAX {
            metrics.dropped("tftp", "transfers");
            return None;
        }
        if !core.shared.transfers.take(peer.ip()) {
            metrics.dropped("tftp", "source_transfers");
            return None;
        }
        let udp = Udp { connect: Some(peer), ..Udp::default() };
        let opened = socket::udp(SocketAddr::new(local, 0), &udp).map_err(|error| error.to_string());
        let socket = opened.and_then(|fd| core.driver.add_socket(fd).map_err(|error| error.to_string()));
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "no socket for a TFTP transfer");
                metrics.dropped("tftp", "no_socket");
                core.shared.transfers.give(peer.ip());
                return None;
            }
        };
        let session = Session {
            socket,
            peer,
            options: request.options,
            stage: None,
            transfer: None,
            source: Source::Asking,
            window: None,
            deadline: core.now + limits::WAIT_DEADLINE,
            armed: None,
        };
        let Ok(key) = self.transfers.insert(session) else {
            core.driver.remove_socket(socket);
            core.shared.transfers.give(peer.ip());
            return None;
        };
        self.peers.insert(peer, key);
        metrics.tftp_transfers.inc();
        core.submit(token(Kind::TftpReceive, key), Operation::ReceiveConnected { socket });
        Some(key)
    }

    fn begin(&mut self, core: &mut Core, key: Key, local: IpAddr, resource: Resource) {
        let waiter = core.waiter(token(Kind::TftpRead, key));
        let asked = match resource {
            Resource::Bytes(bytes) => return self.start(core, key, Source::Bytes(bytes)),
            Resource::File { manifest, stage } => {
                if let Some(session) = self.transfers.find(key) {
                    session.stage = stage;
                }
                match core.manifest(&manifest) {
                    Some(manifest) => return self.start(core, key, stored(manifest)),
                    None => core.ask(Ask::Manifest { waiter, digest: manifest }),
                }
            }
            Resource::Script { mac, format } => {
                let rack = match local {
                    IpAddr::V4(address) => address,
                    IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
                };
                core.tell_engine(Mail::AskScript(ScriptAsk { waiter, mac, rack, format, method: Method::Get }))
            }
            Resource::Manifest(_)
            | Resource::Chunk(_)
            | Resource::Metrics
            | Resource::Health
            | Resource::NotFound
            | Resource::BadMac => false,
        };
        if !asked {
            return self.abandon(core, key, ErrorCode::NotDefined);
        }
        if let Some(session) = self.transfers.find(key) {
            core.arm(&mut session.armed, session.deadline, token(Kind::TftpRead, key));
        }
    }

    pub(crate) fn handle_manifest(&mut self, core: &mut Core, key: Key, outcome: Result<Arc<IndexedManifest>, Absent>) {
        match outcome {
            Ok(manifest) => {
                core.keep_manifest(&manifest);
                self.start(core, key, stored(manifest));
            }
            Err(_) => self.abandon(core, key, ErrorCode::NotDefined),
        }
    }

    pub(crate) fn handle_script(&mut self, core: &mut Core, key: Key, text: Option<String>) {
        match text {
            Some(text) => self.start(core, key, Source::Bytes(text.into())),
            None => self.abandon(core, key, ErrorCode::FileNotFound),
        }
    }

    /// The file is known: the protocol begins.
    fn start(&mut self, core: &mut Core, key: Key, source: Source) {
        let Some(session) = self.transfers.find(key).filter(|session| session.transfer.is_none()) else { return };
        let file_bytes = match &source {
            Source::Asking => 0,
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Stored { manifest, .. } => manifest.manifest().stored_bytes(),
        };
        session.source = source;
        let request = ReadRequest { name: "", options: session.options };
        let settings = Settings { block_bytes_max: core.shared.block_bytes_max, ..Settings::default() };
        session.transfer = Some(Transfer::new(core.time.monotonic, session.peer, &request, file_bytes, &settings));
        self.drive(core, key);
    }

    /// Does what the transfer says until it has nothing to say.
    fn drive(&mut self, core: &mut Core, key: Key) {
        loop {
            let Some(session) = self.transfers.find(key) else { return };
            let Some(transfer) = &mut session.transfer else { return };
            match transfer.poll_output() {
                Some(Output::Control(control)) => {
                    let bytes = Bytes::copy_from_slice(control.as_bytes());
                    send(core, session.socket, bytes.into(), None);
                }
                Some(Output::Blocks(window)) => {
                    session.window = Some(window);
                    self.send_window(core, key);
                }
                Some(Output::Finished(outcome)) => return self.finish(core, key, outcome),
                None => {
                    if let Some(next) = transfer.next_timeout() {
                        session.deadline = core.shared.clock.instant(next);
                        core.arm(&mut session.armed, session.deadline, token(Kind::TftpRead, key));
                    }
                    return;
                }
            }
        }
    }

    /// Sends the window if its octets are here, else has the next ones brought in.
    fn send_window(&mut self, core: &mut Core, key: Key) {
        let segments = self.segments;
        let Some(session) = self.transfers.find(key) else { return };
        let Some(window) = session.window else { return };
        if let Source::Stored { manifest, pieces, waiting } = &mut session.source {
            if *waiting {
                return;
            }
            // What has come for an earlier window is no use for this one.
            pieces.clear();
            let mut held = window.file_start;
            while held < window.file_end {
                match core.gather((Kind::TftpRead, key), manifest, held..window.file_end, pieces) {
                    Next::Ready(bytes) => held += bytes,
                    Next::Waiting => {
                        pieces.clear();
                        *waiting = true;
                        return;
                    }
                    Next::Failed => return self.abandon(core, key, ErrorCode::NotDefined),
                }
            }
        }
        session.window = None;
        core.shared.metrics.tftp_bytes.inc_by(window.bytes());
        let segment = usize::from(window.block_bytes) + HEADER_BYTES;
        let burst = if segments { (DATAGRAM_BYTES_MAX / segment).clamp(1, SEGMENTS_MAX) } else { 1 };
        if window.blocks == 1 {
            // Of one block the octets are copied: one piece needs no message header.
            let mut packet = Vec::with_capacity(segment);
            for (header, range) in window.datagrams() {
                packet.extend_from_slice(&header);
                session.source.slices(window.file_start, &range, |part| packet.extend_from_slice(part.get()));
            }
            send(core, session.socket, packet.into(), None);
        } else {
            let headers: Bytes = window.datagrams().flat_map(|(header, _)| header).collect();
            let mut datagrams = window.datagrams().zip((0..headers.len()).step_by(HEADER_BYTES)).peekable();
            while datagrams.peek().is_some() {
                let mut parts = Vec::with_capacity(burst.min(usize::from(window.blocks)) * 2 + 1);
                let mut blocks = 0;
                for ((_, range), header) in datagrams.by_ref().take(burst) {
                    parts.push(headers.slice(header..header + HEADER_BYTES));
                    session.source.slices(window.file_start, &range, |part| parts.push(part.to_bytes()));
                    blocks += 1;
                }
                let size = u16::try_from(segment).ok().and_then(NonZeroU16::new).filter(|_| blocks > 1);
                send(core, session.socket, parts.into(), size);
            }
        }
        if let Source::Stored { pieces, .. } = &mut session.source {
            pieces.clear();
        }
    }

    pub(crate) fn handle_chunks(&mut self, core: &mut Core, key: Key, outcome: Result<(), Absent>) {
        let Some(session) = self.transfers.find(key) else { return };
        let Source::Stored { waiting, .. } = &mut session.source else { return };
        if !std::mem::take(waiting) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.send_window(core, key);
                self.drive(core, key);
            }
            Err(_) => self.abandon(core, key, ErrorCode::NotDefined),
        }
    }

    pub(crate) fn handle_timeout(&mut self, core: &mut Core, key: Key) {
        let Some(session) = self.transfers.find(key) else { return };
        session.armed = None;
        if session.deadline > core.now {
            return core.arm(&mut session.armed, session.deadline, token(Kind::TftpRead, key));
        }
        match &mut session.transfer {
            // While its octets are being fetched a window is not late.
            Some(transfer) => {
                transfer.handle_timeout(core.time.monotonic);
                self.drive(core, key);
            }
            None => self.abandon(core, key, ErrorCode::NotDefined),
        }
    }

    /// Ends a transfer with an error packet.
    fn abandon(&mut self, core: &mut Core, key: Key, code: ErrorCode) {
        let Some(session) = self.transfers.find(key) else { return };
        core.shared.metrics.dropped("tftp", "content_missing");
        match &mut session.transfer {
            Some(transfer) => {
                transfer.refuse(code);
                self.drive(core, key);
            }
            None => {
                let bytes = Bytes::copy_from_slice(Control::error(code).as_bytes());
                send(core, session.socket, bytes.into(), None);
                self.remove(core, key);
            }
        }
    }

    fn finish(&mut self, core: &mut Core, key: Key, outcome: Outcome) {
        if let (Outcome::Complete, Some(session)) = (outcome, self.transfers.find(key))
            && let Some(stage) = session.stage
        {
            let from = session.peer.ip();
            core.tell_engine(Mail::Fetched { from, stage });
        }
        let reason = match outcome {
            Outcome::Complete | Outcome::Aborted(_) => None,
            Outcome::PeerSilent => Some("peer_silent"),
            Outcome::TooSlow => Some("too_slow"),
            Outcome::Refused(_) => Some("refused"),
        };
        if let Some(reason) = reason {
            core.shared.metrics.dropped("tftp", reason);
        }
        self.remove(core, key);
    }

    fn remove(&mut self, core: &mut Core, key: Key) {
        if let Some(session) = self.transfers.remove(key) {
            self.peers.remove(&session.peer);
            core.driver.remove_socket(session.socket);
            core.shared.transfers.give(session.peer.ip());
            core.shared.metrics.tftp_transfers.dec();
        }
    }
}

/// The generation in the tokens of sockets for first requests; transfers' generations are below it.
const REQUESTS: u32 = crate::slab::GENERATION_MASK;

fn stored(manifest: Arc<IndexedManifest>) -> Source {
    Source::Stored { manifest, pieces: Vec::new(), waiting: false }
}

impl Source {
    /// Gives the octets of a range, which are here, in pieces that begin at `at`.
    fn slices(&self, at: u64, range: &Range<u64>, mut take: impl FnMut(Part<'_>)) {
        let mut cut = |start: u64, bytes: &Bytes| {
            let end = start + bytes.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                // Both are offsets inside the piece, which is in memory.
                take(Part { bytes, range: (from - start) as usize..(to - start) as usize });
            }
        };
        match self {
            Source::Asking => {}
            Source::Bytes(bytes) => cut(0, bytes),
            Source::Stored { pieces, .. } => {
                let mut start = at;
                for bytes in pieces {
                    cut(start, bytes);
                    start += bytes.len() as u64;
                }
            }
        }
    }
}

/// Octets of a block.
struct Part<'a> {
    bytes: &'a Bytes,
    range: Range<usize>,
}

impl Part<'_> {
    fn get(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }

    fn to_bytes(&self) -> Bytes {
        self.bytes.slice(self.range.clone())
    }
}

/// Octets in front of a block: opcode and number.
const HEADER_BYTES: usize = 4;

fn send(core: &mut Core, socket: SocketId, parts: Parts, segment_bytes: Option<NonZeroU16>) {
    let kind = if segment_bytes.is_some() { Kind::SentSegments } else { Kind::Sent };
    let to = Destination::Connected;
    let send = SendDatagram { socket, to, source: None, interface: None, parts, segment_bytes };
    core.submit(token(kind, Key { slot: 0, generation: 0 }), Operation::SendDatagram(send));
}

/// Answers a first request from the socket that it came to: no transfer, no state.
fn refuse(core: &mut Core, socket: SocketId, peer: SocketAddr, code: ErrorCode) {
    let parts = Bytes::copy_from_slice(Control::error(code).as_bytes()).into();
    let send = SendDatagram {
        socket,
        to: Destination::Address(peer),
        source: None,
        interface: None,
        parts,
        segment_bytes: None,
    };
    core.submit(token(Kind::Sent, Key { slot: 0, generation: 0 }), Operation::SendDatagram(send));
}
