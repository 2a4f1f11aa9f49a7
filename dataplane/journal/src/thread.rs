//! The thread that owns a journal: whatever waits in its queue shares one sync, and a compaction goes on between the syncs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, QUEUE_BYTES_MAX, QUEUE_REQUESTS_MAX, RECORD_BYTES_MAX};
use crate::record::FRAME_BYTES;
use crate::{Committed, Disk, Error, Journal, Live};

/// What the journal's thread tells, in the order in which it happened. Given to `notify` on that thread, which must
/// neither block nor take long: hand it on and wake the reader.
#[derive(Debug)]
pub enum Report {
    /// All records up to and with [`Committed::last_sequence`] are durable.
    Committed(Committed),
    /// A compaction is done; everything submitted before it is durable.
    Compacted(Committed),
    /// A compaction failed and the old segment stays in use; nothing is lost. Try again when there is room.
    CompactionFailed(Error),
    /// A write failed. Nothing submitted after the last [`Report::Committed`] counts, nothing more is accepted; the
    /// rack role ends and is started again, which opens the journal anew. Always the last report.
    Stopped(Error),
}

/// Why the queue did not take a request; the payloads come back.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError<T> {
    /// The queue is full: answer nobody, try again after the next report.
    #[error("journal is busy: its queue is full; try again after the next report")]
    Busy(T),
    /// The journal has stopped ([`Report::Stopped`] was given).
    #[error("journal is stopped after a failed write; start the rack again")]
    Stopped(T),
    /// A record or batch is over the limits.
    #[error("batch is empty or over the limits of records, record bytes or batch bytes; split it")]
    TooLarge(T),
}

impl<T> SubmitError<T> {
    /// Whether the same request may be taken later.
    pub fn is_retryable(&self) -> bool {
        match self {
            SubmitError::Busy(_) => true,
            SubmitError::Stopped(_) | SubmitError::TooLarge(_) => false,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> SubmitError<U> {
        match self {
            SubmitError::Busy(payloads) => SubmitError::Busy(change(payloads)),
            SubmitError::Stopped(payloads) => SubmitError::Stopped(change(payloads)),
            SubmitError::TooLarge(payloads) => SubmitError::TooLarge(change(payloads)),
        }
    }

    /// The payloads, for another try.
    pub fn into_inner(self) -> T {
        match self {
            SubmitError::Busy(payloads) | SubmitError::Stopped(payloads) | SubmitError::TooLarge(payloads) => payloads,
        }
    }
}

enum Request {
    Append { batch: Vec<Vec<u8>>, bytes: usize },
    Compact { live: Live },
}

/// Handle of the journal's thread. There is one owner, so sequences can be given at once: a submitted batch has the
/// sequences that [`JournalThread::submit`] returns, and they are durable when a report says so.
#[derive(Debug)]
pub struct JournalThread {
    sender: Option<SyncSender<Request>>,
    queued_bytes: Arc<AtomicUsize>,
    last_sequence: u64,
    thread: Option<JoinHandle<()>>,
}

impl JournalThread {
    /// Starts the thread. `notify` is called on it for every [`Report`].
    pub fn spawn<D, N>(journal: Journal<D>, notify: N) -> io::Result<JournalThread>
    where
        D: Disk,
        N: Fn(Report) + Send + 'static,
    {
        let (sender, receiver) = sync_channel(QUEUE_REQUESTS_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let last_sequence = journal.last_sequence();
        let worker = Worker { receiver, journal, notify, queued_bytes: Arc::clone(&queued_bytes) };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || worker.run())?;
        Ok(JournalThread { sender: Some(sender), queued_bytes, last_sequence, thread: Some(thread) })
    }

    /// Queues one batch, which will be durable whole or not at all, and gives the sequence of its last record (those
    /// before it count down from there). Never blocks.
    pub fn submit(&mut self, batch: Vec<Vec<u8>>) -> Result<u64, SubmitError<Vec<Vec<u8>>>> {
        let mut bytes = 0usize;
        for payload in &batch {
            if payload.len() > RECORD_BYTES_MAX {
                return Err(SubmitError::TooLarge(batch));
            }
            bytes = bytes.saturating_add(FRAME_BYTES + payload.len());
        }
        if batch.is_empty() || batch.len() > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(SubmitError::TooLarge(batch));
        }
        let records = batch.len() as u64;
        if self.queued_bytes.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES_MAX {
            return Err(SubmitError::Busy(batch));
        }
        self.send(Request::Append { batch, bytes }, bytes).map_err(|refused| {
            refused.map(|request| match request {
                Request::Append { batch, .. } => batch,
                Request::Compact { .. } => Vec::new(),
            })
        })?;
        self.last_sequence += records;
        Ok(self.last_sequence)
    }

    /// Queues a compaction (see [`Journal::begin_compaction`]): `live` must stand for everything submitted before this call. It
    /// is bounded by the segment's limit, not by the queue's octets, and at most one should be under way.
    pub fn compact(&mut self, live: impl Into<Live>) -> Result<(), SubmitError<()>> {
        self.send(Request::Compact { live: live.into() }, 0).map_err(|refused| refused.map(drop))
    }

    /// Sequence of the last record submitted.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Finishes what is queued and ends the thread.
    pub fn close(mut self) {
        self.finish();
    }

    fn send(&mut self, request: Request, bytes: usize) -> Result<(), SubmitError<Request>> {
        let Some(sender) = &self.sender else { return Err(SubmitError::Stopped(request)) };
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        sender.try_send(request).map_err(|refused| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match refused {
                TrySendError::Full(request) => SubmitError::Busy(request),
                TrySendError::Disconnected(request) => SubmitError::Stopped(request),
            }
        })
    }

    fn finish(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic on the journal's thread has been printed there; this side is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Fields are dropped in this order: whoever sees the reporter gone finds the queue closed.
struct Worker<D: Disk, N> {
    receiver: Receiver<Request>,
    journal: Journal<D>,
    notify: N,
    queued_bytes: Arc<AtomicUsize>,
}

impl<D: Disk, N: Fn(Report)> Worker<D, N> {
    fn run(mut self) {
        let mut carried = None;
        loop {
            let next = match carried.take() {
                Some(request) => Some(request),
                None if self.journal.is_compacting() => self.receiver.try_recv().ok(),
                None => match self.receiver.recv() {
                    Ok(request) => Some(request),
                    Err(_) => return,
                },
            };
            let outcome = match next {
                Some(Request::Append { batch, bytes }) => {
                    let (group, left) = self.gather(batch, bytes);
                    carried = left;
                    let committed = self.journal.append(&group).and_then(|_| self.journal.commit());
                    committed.map(|committed| Some(Report::Committed(committed)))
                }
                Some(Request::Compact { live }) => {
                    let begun = self.journal.begin_compaction(live);
                    self.unless_stopped(begun.map(|()| None))
                }
                None => Ok(None),
            };
            let stepped = outcome.and_then(|report| {
                report.into_iter().for_each(|report| (self.notify)(report));
                let step = self.journal.step_compaction();
                self.unless_stopped(step.map(|committed| committed.map(Report::Compacted)))
            });
            match stepped {
                Ok(report) => report.into_iter().for_each(|report| (self.notify)(report)),
                Err(error) => {
                    (self.notify)(Report::Stopped(error));
                    return;
                }
            }
        }
    }

    /// A compaction that fails is told, and ends nothing but itself while the journal goes on.
    fn unless_stopped(&self, outcome: Result<Option<Report>, Error>) -> Result<Option<Report>, Error> {
        match outcome {
            Err(error) if !self.journal.is_stopped() => Ok(Some(Report::CompactionFailed(error))),
            outcome => outcome,
        }
    }

    /// Takes more batches from the queue into one, as many as are there and fit. What does not fit comes back.
    fn gather(&self, first: Vec<Vec<u8>>, first_bytes: usize) -> (Vec<Vec<u8>>, Option<Request>) {
        let mut group = first;
        let mut group_bytes = first_bytes;
        self.queued_bytes.fetch_sub(first_bytes, Ordering::Relaxed);
        loop {
            match self.receiver.try_recv() {
                Ok(Request::Append { mut batch, bytes })
                    if group.len() + batch.len() <= BATCH_RECORDS_MAX && group_bytes + bytes <= BATCH_BYTES_MAX =>
                {
                    self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    group_bytes += bytes;
                    group.append(&mut batch);
                }
                Ok(other) => return (group, Some(other)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return (group, None),
            }
        }
    }
}
