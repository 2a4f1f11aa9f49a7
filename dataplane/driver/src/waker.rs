//! Waking a driver from another thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the driver it came from: its `wait` returns with [`Event::Woken`](crate::Event::Woken). Cheap to clone, usable from any
/// thread, harmless after the driver is gone. Several wakes before a turn are one event.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        Ok(Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Wakes the driver. Put what it is to look at in its place (a queue) before.
    pub fn wake(&self) {
        // The only failure is a counter at its maximum, and then a wake is pending anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// Takes the pending wakes, so that the next one is seen as new.
    pub(crate) fn reset(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }
}
