//! Ending a role from another thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bootstorm_driver::Waker;

/// Asks a running role to end: listeners close, what is under way gets a bounded time, the journal is committed. Clones
/// are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    wakers: Vec<Waker>,
}

impl Stop {
    /// Not stopped.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks for the end. Idempotent; from any thread.
    pub fn trigger(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.wakers.iter().for_each(Waker::wake);
        self.0.changed.notify_all();
    }

    /// Whether the end was asked for.
    pub fn is_triggered(&self) -> bool {
        self.state().stopped
    }

    /// Wakes this driver too.
    pub(crate) fn register(&self, waker: Waker) {
        let mut state = self.state();
        if state.stopped {
            waker.wake();
        }
        state.wakers.push(waker);
    }

    /// Waits until the end is asked for, at most so long. True if it was.
    pub(crate) fn wait(&self, time_max: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.state(), time_max, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
