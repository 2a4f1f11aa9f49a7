//! What threads tell one another. All queues are bounded; a shard never blocks on another thread.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use bootstorm_api::local;
use bootstorm_content::IndexedManifest;
use bootstorm_driver::{Token, Waker};
use bootstorm_engine::Index;
use bootstorm_engine::script::Format;
use bootstorm_proto::http::server::Method;
use bootstorm_snapshot::{ChunkName, Mac, ManifestDigest, Stage};
use bytes::Bytes;

/// Who waits for an answer: a connection or transfer (by its token) of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) shard: usize,
    pub(crate) token: Token,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing by that name.
    Unknown,
    /// It is not here now and may come.
    Later,
}

/// To a shard.
pub(crate) enum Mail {
    /// A manifest that was asked for.
    Manifest { token: Token, outcome: Result<Arc<IndexedManifest>, Absent> },
    /// Octets that were asked for.
    Bytes { token: Token, outcome: Result<Bytes, Absent> },
    /// A chunk that these wait for is here, or cannot be had now: they look again.
    Chunks { tokens: Vec<Token>, outcome: Result<(), Absent> },
    /// A script that was asked for.
    Script { token: Token, text: Option<String> },
    /// To shard 0: somebody asks for a script.
    AskScript(ScriptAsk),
    /// To shard 0: a boot file was fetched.
    Fetched { from: IpAddr, stage: Stage },
    /// To shard 0: from the gateway's stream of this number.
    Gateway { stream: u64, message: FromGateway },
    /// To shard 0: a new generation.
    Index(Arc<Index>),
}

/// A request for a script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptAsk {
    pub(crate) waiter: Waiter,
    pub(crate) mac: Mac,
    pub(crate) rack: Ipv4Addr,
    pub(crate) format: Format,
    pub(crate) method: Method,
}

/// What of the gateway's messages concerns the engine.
pub(crate) enum FromGateway {
    Opened,
    Gone,
    Request { number: u64, request: local::Request },
    Acknowledged { through: u64 },
    ControlConnected,
}

/// To the thread that reads and verifies content.
#[derive(Debug)]
pub(crate) enum Ask {
    Manifest {
        waiter: Waiter,
        digest: ManifestDigest,
    },
    ManifestBytes {
        waiter: Waiter,
        digest: ManifestDigest,
    },
    Chunk {
        waiter: Waiter,
        name: ChunkName,
    },
    /// Bring a chunk of so many bytes into the cache, for those of its flight.
    Load {
        name: ChunkName,
        stored_bytes: u32,
    },
}

/// To the thread that fills the content store.
pub(crate) enum Fill {
    Index(Arc<Index>),
    Fetched {
        wish: local::Wish,
        offset: u64,
        bytes_total: u64,
        bytes: Vec<u8>,
    },
    NotFetched {
        wish: local::Wish,
        reason: String,
    },
    ControlConnected,
    StreamOpened,
    StreamGone,
    /// Somebody waits for a chunk that is not here.
    Need {
        name: ChunkName,
        waiter: Waiter,
    },
    /// Something that was here is not any more.
    Lost,
}

/// Tells all who waited for a chunk: one message to each shard.
pub(crate) fn tell(mailboxes: &[Mailbox], waiters: Vec<Waiter>, outcome: Result<(), Absent>) {
    for (shard, mailbox) in mailboxes.iter().enumerate() {
        let tokens: Vec<Token> = waiters.iter().filter(|w| w.shard == shard).map(|waiter| waiter.token).collect();
        if !tokens.is_empty() {
            mailbox.send(Mail::Chunks { tokens, outcome });
        }
    }
}

/// A shard's queue and the way to wake it.
#[derive(Clone)]
pub(crate) struct Mailbox {
    pub(crate) sender: SyncSender<Mail>,
    pub(crate) waker: Waker,
}

impl Mailbox {
    /// Puts mail in, waiting for room. Not for shards. Mail for a shard that has ended is dropped.
    pub(crate) fn send(&self, mail: Mail) {
        let mail = match self.sender.try_send(mail) {
            Ok(()) => return self.waker.wake(),
            Err(TrySendError::Full(mail)) => mail,
            Err(TrySendError::Disconnected(_)) => return,
        };
        self.waker.wake();
        let _ = self.sender.send(mail);
        self.waker.wake();
    }

    /// Puts mail in if there is room.
    pub(crate) fn try_send(&self, mail: Mail) -> bool {
        let sent = self.sender.try_send(mail).is_ok();
        self.waker.wake();
        sent
    }
}
