//! The seam between the driver's front (ids, limits, ownership) and what does the work: a ring, or epoll where there is none.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use crate::completion::Completion;
use crate::operation::{ConnectionId, ListenerId, Operation, OperationId, Refused, SocketId, Token};
use crate::slab::Slab;
use crate::{Counters, Error, FileId};

/// A descriptor that operations in flight keep open, however early its owner lets go of it.
pub(crate) type Handle = Rc<Descriptor>;

/// An open descriptor.
pub(crate) struct Descriptor {
    pub(crate) fd: OwnedFd,
    /// Whether its owner has let go of it: then no operation on it is started again.
    pub(crate) released: Cell<bool>,
    /// Whether it is known not to block.
    pub(crate) nonblocking: Cell<bool>,
    /// Whether an epoll watches it.
    pub(crate) watched: Cell<bool>,
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Descriptor {
        Descriptor { fd, released: Cell::new(false), nonblocking: Cell::new(false), watched: Cell::new(false) }
    }
}

/// What does the work. Every operation accepted by `submit` gets exactly one last completion, and its buffers stay where they are until then.
pub(crate) trait Backend {
    /// Takes an operation on `handle`. [`Operation::Connect`] comes with the new socket as its handle.
    fn submit(&mut self, token: Token, operation: Operation, handle: Handle) -> Result<OperationId, Box<Refused>>;

    /// Asks for an operation to end; it may still complete otherwise. Unknown ids are ignored.
    fn cancel(&mut self, operation: OperationId);

    /// Asks for all operations on this descriptor to end.
    fn cancel_all(&mut self, handle: &Handle);

    /// Waits until there is a completion or the deadline has come, and appends what happened.
    fn wait(
        &mut self,
        deadline: Option<Instant>,
        table: &mut Table,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Error>;

    /// Operations in flight.
    fn in_flight(&self) -> u32;

    /// What has been counted so far.
    fn counters(&self) -> Counters;

    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;
}

/// Open descriptors by id.
pub(crate) struct Table {
    pub(crate) sockets: Slab<Handle>,
    pub(crate) listeners: Slab<Handle>,
    pub(crate) connections: Slab<Handle>,
    pub(crate) files: Slab<Handle>,
}

impl Table {
    pub(crate) fn socket(&self, id: SocketId) -> Option<&Handle> {
        self.sockets.get(id.0)
    }

    pub(crate) fn listener(&self, id: ListenerId) -> Option<&Handle> {
        self.listeners.get(id.0)
    }

    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Handle> {
        self.connections.get(id.0)
    }

    pub(crate) fn file(&self, id: FileId) -> Option<&Handle> {
        self.files.get(id.0)
    }
}
