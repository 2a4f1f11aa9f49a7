//! What waits for the gateway. A status is kept as a value and not as a frame, so that only the newest one is sent, and first
//! on each stream.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bootstorm_api::frame;
use bootstorm_api::local::ToGateway;
use bootstorm_snapshot::{Generation, ManifestDigest};

use crate::limits;

/// Frames for the gateway's stream, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of the stream in use; 0 before the first and while there is none.
    stream: u64,
    frames: VecDeque<Vec<u8>>,
    status: (Generation, Vec<ManifestDigest>),
    status_due: bool,
}

impl Outbox {
    /// A new stream is in use. What waited for the one before is gone with it.
    pub(crate) fn open(&self, stream: u64) {
        let mut inner = self.inner();
        inner.stream = stream;
        inner.frames.clear();
        inner.status_due = true;
        self.changed.notify_all();
    }

    /// That stream is not in use any more.
    pub(crate) fn close(&self, stream: u64) {
        let mut inner = self.inner();
        if inner.stream == stream {
            inner.stream = 0;
            inner.frames.clear();
        }
        self.changed.notify_all();
    }

    /// Queues a message. False if there is no stream or no room.
    pub(crate) fn send(&self, message: &ToGateway) -> bool {
        let Ok(frame) = frame::encode(message, &[]) else { return false };
        let mut inner = self.inner();
        if inner.stream == 0 || inner.frames.len() >= limits::GATEWAY_FRAMES_MAX {
            return false;
        }
        inner.frames.push_back(frame);
        self.changed.notify_all();
        true
    }

    /// Sets the status and has it sent.
    pub(crate) fn set_status(&self, generation: Generation, mut missing: Vec<ManifestDigest>) {
        missing.truncate(limits::STATUS_MISSING_MAX);
        let mut inner = self.inner();
        inner.status = (generation, missing);
        inner.status_due = true;
        self.changed.notify_all();
    }

    /// Has the status sent again.
    pub(crate) fn repeat_status(&self) {
        self.inner().status_due = true;
        self.changed.notify_all();
    }

    /// Waits for the next frame of a stream; `None` when it is not the one in use any more.
    pub(crate) fn next(&self, stream: u64) -> Option<Vec<u8>> {
        let idle = |inner: &mut Inner| inner.stream == stream && !inner.status_due && inner.frames.is_empty();
        let mut inner = self.changed.wait_while(self.inner(), idle).unwrap_or_else(PoisonError::into_inner);
        if inner.stream != stream {
            return None;
        }
        if std::mem::take(&mut inner.status_due) {
            let (generation, missing) = inner.status.clone();
            let message = ToGateway::Status { generation, missing };
            return frame::encode(&message, &[]).ok();
        }
        inner.frames.pop_front()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_api::frame::Decoder;
    use bootstorm_api::local::Answer;

    fn next(outbox: &Outbox, stream: u64) -> ToGateway {
        let mut decoder = Decoder::default();
        decoder.feed(&outbox.next(stream).expect("a frame"));
        decoder.poll_frame().expect("well formed").expect("whole").0
    }

    #[test]
    fn the_status_comes_first_on_each_stream_and_only_the_newest() {
        let outbox = Outbox::default();
        let answer = |number| ToGateway::Answer { number, answer: Answer::Done };
        assert!(!outbox.send(&answer(1)), "no stream");
        outbox.set_status(Generation(1), vec![]);
        outbox.open(7);
        assert!(outbox.send(&answer(2)));
        outbox.set_status(Generation(2), vec![]);
        assert_eq!(next(&outbox, 7), ToGateway::Status { generation: Generation(2), missing: vec![] });
        assert_eq!(next(&outbox, 7), answer(2));
        assert!(outbox.send(&answer(3)));
        outbox.open(8);
        assert_eq!(outbox.next(7), None);
        assert!(matches!(next(&outbox, 8), ToGateway::Status { .. }));
        outbox.close(8);
        assert_eq!(outbox.next(8), None);
    }
}
