//! The gateway's stream: a thread that reads it, one that writes it, and one that takes snapshots off the reader's hands.
//! Streams are used one at a time; a new one replaces the old.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;

use bootstorm_api::frame::{self, PREFIX_BYTES};
use bootstorm_api::local::ToRack;
use bootstorm_engine::Index;
use bootstorm_snapshot::Generation;

use crate::core::Shared;
use crate::mail::{Fill, FromGateway, Mail, Mailbox};
use crate::outbox::Outbox;
use crate::snapshots::{Snapshots, Step, Transfer};
use crate::stop::Stop;
use crate::{Error, limits};

/// A part of a snapshot, or that the stream it came by is gone.
pub(crate) enum Part {
    Part { generation: Generation, from: Option<Generation>, first: bool, last: bool, packed: Vec<u8> },
    StreamGone,
}

/// Where what comes from the gateway goes.
#[derive(Clone)]
pub(crate) struct Routes {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) engine: Mailbox,
    pub(crate) fill: SyncSender<Fill>,
    pub(crate) snapshots: SyncSender<Part>,
}

/// Serves streams as they come, until the role is to stop.
pub(crate) fn run_streams(routes: &Routes, peers: &Receiver<UnixStream>, stop: &Stop) {
    let mut current: Option<Served> = None;
    let mut number = 0;
    while !stop.is_triggered() {
        match peers.recv_timeout(limits::STREAM_POLL) {
            Ok(stream) => {
                if let Some(served) = current.take() {
                    served.end(routes);
                }
                number += 1;
                match serve(routes, stream, number) {
                    Ok(served) => current = Some(served),
                    Err(error) => tracing::error!(%error, "the gateway's stream cannot be used"),
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The supervisor has no more; what is there goes on.
            Err(RecvTimeoutError::Disconnected) => while !stop.wait(limits::IDLE_DEADLINE) {},
        }
    }
    if let Some(served) = current {
        served.end(routes);
    }
}

struct Served {
    number: u64,
    stream: UnixStream,
    threads: [JoinHandle<()>; 2],
}

fn serve(routes: &Routes, stream: UnixStream, number: u64) -> io::Result<Served> {
    stream.set_nonblocking(false)?;
    let (reader, writer) = (stream.try_clone()?, stream.try_clone()?);
    routes.outbox.open(number);
    let _ = routes.fill.send(Fill::StreamOpened);
    routes.engine.send(Mail::Gateway { stream: number, message: FromGateway::Opened });
    let outbox = Arc::clone(&routes.outbox);
    let write = move || write_frames(&outbox, number, writer);
    let write = std::thread::Builder::new().name("gateway-out".into()).spawn(write)?;
    let for_reader = routes.clone();
    let read = move || {
        match read_frames(&for_reader, number, reader) {
            Ok(()) => tracing::info!("the gateway's stream ended"),
            Err(error) => tracing::warn!(%error, "the gateway's stream failed"),
        }
        for_reader.gone(number);
    };
    let read = std::thread::Builder::new().name("gateway-in".into()).spawn(read)?;
    tracing::info!(number, "the gateway's stream is open");
    Ok(Served { number, stream, threads: [read, write] })
}

impl Served {
    fn end(self, routes: &Routes) {
        // Fails only if the peer has ended it already.
        let _ = self.stream.shutdown(Shutdown::Both);
        routes.outbox.close(self.number);
        for thread in self.threads {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

impl Routes {
    fn gone(&self, number: u64) {
        self.outbox.close(number);
        let _ = self.fill.send(Fill::StreamGone);
        let _ = self.snapshots.send(Part::StreamGone);
        self.engine.send(Mail::Gateway { stream: number, message: FromGateway::Gone });
    }
}

fn write_frames(outbox: &Outbox, number: u64, mut stream: UnixStream) {
    while let Some(frame) = outbox.next(number) {
        if let Err(error) = stream.write_all(&frame) {
            tracing::debug!(%error, "writing to the gateway");
            // The reader sees the end and tells the others.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read_frames(routes: &Routes, number: u64, mut stream: UnixStream) -> io::Result<()> {
    let odd = |error: frame::FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        match stream.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let (header, attachment) = frame::lengths(prefix).map_err(odd)?;
        let mut body = vec![0; header + attachment];
        stream.read_exact(&mut body)?;
        let (message, attachment) = frame::decode_body::<ToRack>(&body, header).map_err(odd)?;
        routes.take(number, message, attachment);
    }
}

impl Routes {
    /// Hands a message on. Waits where a queue is full: then the stream is read later.
    fn take(&self, stream: u64, message: ToRack, attachment: Vec<u8>) {
        let to_engine = |message| self.engine.send(Mail::Gateway { stream, message });
        // Sending fails only while the role ends.
        match message {
            ToRack::Snapshot { generation, from, first, last } => {
                let _ = self.snapshots.send(Part::Part { generation, from, first, last, packed: attachment });
            }
            ToRack::Fetched { wish, offset, bytes_total } => {
                let _ = self.fill.send(Fill::Fetched { wish, offset, bytes_total, bytes: attachment });
            }
            ToRack::NotFetched { wish, reason } => {
                let _ = self.fill.send(Fill::NotFetched { wish, reason });
            }
            ToRack::Acknowledged { through } => to_engine(FromGateway::Acknowledged { through }),
            ToRack::Control { connected } => {
                tracing::info!(connected, "link to control");
                if connected {
                    let _ = self.fill.send(Fill::ControlConnected);
                    to_engine(FromGateway::ControlConnected);
                }
            }
            // The peer's address carries no authority, and the gateway holds the limits that need it.
            ToRack::Request { number, peer: _, request } => to_engine(FromGateway::Request { number, request }),
        }
    }
}

/// Takes snapshots: checks, persists, then lets every part of the role see the new generation.
pub(crate) struct SnapshotThread {
    pub(crate) snapshots: Snapshots,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) engine: Mailbox,
    pub(crate) fill: SyncSender<Fill>,
}

impl SnapshotThread {
    /// Works until all senders are gone.
    pub(crate) fn run(mut self, parts: Receiver<Part>) {
        let mut transfer = Transfer::default();
        while let Ok(part) = parts.recv() {
            let (generation, from, first, last, packed) = match part {
                Part::Part { generation, from, first, last, packed } => (generation, from, first, last, packed),
                Part::StreamGone => {
                    transfer.abandon();
                    continue;
                }
            };
            match transfer.take(self.snapshots.view(), (generation, from), (first, last), &packed) {
                Step::More => {}
                Step::Resynchronise(why) => {
                    tracing::warn!(%generation, why, "a snapshot is not taken");
                    self.outbox.repeat_status();
                }
                Step::Whole(view, lines) => {
                    if let Err(error) = self.install(*view, lines.as_deref()) {
                        tracing::error!(%error, "a snapshot cannot be kept; the one before goes on");
                        self.outbox.repeat_status();
                    }
                }
            }
        }
    }

    fn install(
        &mut self,
        view: bootstorm_snapshot::View,
        lines: Option<&[bootstorm_snapshot::Line]>,
    ) -> Result<(), Error> {
        self.snapshots.commit(view.clone(), lines)?;
        let generation = view.generation;
        let index = Arc::new(Index::new(view));
        self.shared.index.store(Arc::clone(&index));
        self.shared.metrics.generation.set(i64::try_from(generation.0).unwrap_or(i64::MAX));
        self.engine.send(Mail::Index(Arc::clone(&index)));
        // Whoever fills says in the status what is missing now.
        let _ = self.fill.send(Fill::Index(index));
        tracing::info!(%generation, "a generation takes effect");
        Ok(())
    }
}
