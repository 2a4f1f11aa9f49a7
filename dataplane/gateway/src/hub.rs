//! What the gateway's tasks share: the ways to the rack and to control, requests in flight, secrets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bootstorm_api::frame;
use bootstorm_api::link::ToControl;
use bootstorm_api::local::{Answer, Request, ToRack};
use bootstorm_snapshot::{Generation, ManifestDigest};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::error::Error;
use crate::limits;
use crate::origins::Origins;
use crate::secrets::SecretStore;

/// The rack's last word on what it serves and lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub generation: Generation,
    pub missing: Vec<ManifestDigest>,
}

/// Why the rack gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// There is no stream to it, or it broke.
    Away,
    /// As many requests as allowed are in flight.
    Full,
    /// It took too long.
    Late,
}

/// The shared state.
pub(crate) struct Hub {
    pub(crate) rack: Outbound,
    pub(crate) control: Outbound,
    pub(crate) secrets: SecretStore,
    /// Where content is fetched before control is asked.
    pub(crate) origins: Origins,
    /// Set by each `Status` of the rack; `None` until the first.
    pub(crate) status: watch::Sender<Option<Status>>,
    /// Counts reasons to start the link to control anew: the rack's stream was replaced, or a queue ran over.
    pub(crate) resynchronise: watch::Sender<u64>,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next_number: AtomicU64,
    permits: Semaphore,
}

impl Hub {
    pub(crate) fn new(origins: Origins) -> Hub {
        Hub {
            origins,
            rack: Outbound::default(),
            control: Outbound::default(),
            secrets: SecretStore::default(),
            status: watch::Sender::new(None),
            resynchronise: watch::Sender::new(0),
            pending: Mutex::default(),
            next_number: AtomicU64::new(1),
            permits: Semaphore::new(limits::LOCAL_REQUESTS_IN_FLIGHT_MAX),
        }
    }

    /// Puts a request to the rack and waits for its answer.
    pub(crate) async fn ask(&self, peer: IpAddr, request: Request, hold: Duration) -> Result<Answer, NoAnswer> {
        let _permit = self.permits.try_acquire().map_err(|_| NoAnswer::Full)?;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(number, sender);
        let _forget = Forget { hub: self, number };
        self.rack.send(&ToRack::Request { number, peer, request }, &[]).await.map_err(|_| NoAnswer::Away)?;
        match tokio::time::timeout(hold + limits::RACK_ANSWER, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NoAnswer::Away),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    /// Hands an answer of the rack to whoever waits for it.
    pub(crate) fn answered(&self, number: u64, answer: Answer) {
        if let Some(waiting) = self.lock().remove(&number) {
            // A receiver that is gone has given up; the rack's decision stands all the same.
            let _ = waiting.send(answer);
        }
    }

    /// Fails every request in flight: the stream to the rack is gone.
    pub(crate) fn rack_gone(&self) {
        self.rack.close();
        self.lock().clear();
    }

    /// Queues a message for control; if there is no room the link starts anew, so that nothing is lost unseen.
    pub(crate) fn tell_control(&self, message: &ToControl) {
        if let Err(Error::Overrun) = self.control.try_send(message) {
            tracing::warn!("link to control cannot keep up; resynchronising");
            self.resynchronise.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Forget<'a> {
    hub: &'a Hub,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.hub.lock().remove(&self.number);
    }
}

/// A queue of frames to a stream that may come and go.
#[derive(Default)]
pub(crate) struct Outbound {
    queue: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
}

impl Outbound {
    /// Opens a new queue of at most `frames`; the receiver is the writer's.
    pub(crate) fn open(&self, frames: usize) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(frames);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Closes the queue and returns whether it was open; what is in it is lost with the stream.
    pub(crate) fn close(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// Whether there is a stream.
    pub(crate) fn is_open(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Queues a frame, waiting for room.
    pub(crate) async fn send<M: Serialize>(&self, message: &M, attachment: &[u8]) -> Result<(), Error> {
        let bytes = frame::encode(message, attachment)?;
        let sender = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(gone)?;
        sender.send(bytes).await.map_err(|_| gone())
    }

    /// Queues a frame if there is room at once.
    pub(crate) fn try_send<M: Serialize>(&self, message: &M) -> Result<(), Error> {
        let bytes = frame::encode(message, &[])?;
        let sender = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(gone)?;
        sender.try_send(bytes).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overrun,
            mpsc::error::TrySendError::Closed(_) => gone(),
        })
    }
}

fn gone() -> Error {
    Error::Link(std::io::ErrorKind::NotConnected.into())
}
