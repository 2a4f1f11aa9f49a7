//! Which sockets have something to read: epoll, level-triggered.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use super::Error;

/// Readiness looked at in one turn.
const EVENTS_MAX: usize = 512;

/// What is waited for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or an end.
    Read,
    /// Room to write (for a connection under way: that it stands or has failed).
    Write,
}

/// A set of sockets, each under a number of its owner's.
pub struct Ready {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Ready {
    /// An empty set.
    pub fn new() -> Result<Ready, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::socket("making an epoll set"))?;
        Ok(Ready { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Puts a socket in. It goes out by itself when it is closed.
    pub fn add(&self, socket: impl AsFd, number: u64, interest: Interest) -> Result<(), Error> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number), flags(interest))
            .map_err(Error::socket("watching a socket"))
    }

    /// Waits for something else on a socket that is in.
    pub fn change(&self, socket: impl AsFd, number: u64, interest: Interest) -> Result<(), Error> {
        epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(number), flags(interest))
            .map_err(Error::socket("watching a socket"))
    }

    /// Waits until a socket is ready, at most so long (`None`: however long it takes; zero: only looks).
    pub fn wait(&mut self, longest: Option<Duration>) -> Result<(), Error> {
        self.events.clear();
        // epoll's own time has milliseconds, which is too coarse for due times: poll's has nanoseconds.
        if longest != Some(Duration::ZERO) {
            let longest = longest.map(timespec);
            let mut set = [PollFd::new(&self.epoll, PollFlags::IN)];
            match poll(&mut set, longest.as_ref()) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => {}
                Err(errno) => return Err(Error::socket("waiting for sockets")(errno)),
            }
        }
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::socket("waiting for sockets")(errno)),
        }
    }

    /// How many sockets the last wait found.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// The number of one of them.
    pub fn number(&self, index: usize) -> u64 {
        self.events[index].data.u64()
    }
}

/// A wait's length as the kernel takes it.
pub fn timespec(longest: Duration) -> Timespec {
    Timespec { tv_sec: longest.as_secs().min(3_600) as i64, tv_nsec: longest.subsec_nanos().into() }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
        Interest::Write => epoll::EventFlags::OUT,
    }
}
