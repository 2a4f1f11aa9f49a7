//! DNS over UDP of a shard: datagrams in, answers out. Sockets are bound to the addresses that are asked, so that answers leave
//! from them.

use bootstorm_driver::{Destination, Event, Operation, Peer, SendDatagram, SocketId};
use bootstorm_engine::dns::Responder;
use bootstorm_proto::limits::DNS_REPLY_BYTES_MAX;
use bytes::Bytes;

use crate::core::{Core, Kind, token};
use crate::slab::Key;

/// The DNS sockets of one shard and what answers on them.
pub(crate) struct Dns {
    sockets: Vec<SocketId>,
    responder: Responder,
    buffer: Box<[u8; DNS_REPLY_BYTES_MAX]>,
}

impl Dns {
    pub(crate) fn new(responder: Responder) -> Dns {
        Dns { sockets: Vec::new(), responder, buffer: Box::new([0; DNS_REPLY_BYTES_MAX]) }
    }

    /// Takes questions from this socket.
    pub(crate) fn listen(&mut self, core: &mut Core, socket: SocketId) {
        let Ok(slot) = u32::try_from(self.sockets.len()) else { return };
        self.sockets.push(socket);
        core.submit(token(Kind::Dns, Key { slot, generation: 0 }), Operation::ReceiveDatagrams { socket });
    }

    /// Takes no more questions.
    pub(crate) fn stop(&mut self, core: &mut Core) {
        self.sockets.iter().for_each(|socket| core.driver.remove_socket(*socket));
    }

    pub(crate) fn handle_received(&mut self, core: &mut Core, key: Key, event: Event) {
        let datagram = match event {
            Event::Datagram(datagram) => datagram,
            Event::Failed(error) => return tracing::error!(%error, "receiving DNS questions failed"),
            _ => return,
        };
        let Some(socket) = self.sockets.get(key.slot as usize).copied() else { return };
        let Peer::Address(peer) = datagram.peer else { return };
        let index = core.shared.index.load();
        let outcome =
            self.responder.handle_query(&index, core.time, peer.ip(), &datagram.bytes, self.buffer.as_mut_slice());
        // Its buffer goes back to the kernel before anything else is done.
        drop(datagram);
        drop(index);
        match outcome.what {
            Ok(kind) => core.shared.metrics.dns_answered(kind),
            Err(reason) => core.shared.metrics.dropped("dns", reason.name()),
        }
        let Some(answer) = self.buffer.get(..outcome.bytes).filter(|answer| !answer.is_empty()) else { return };
        let send = SendDatagram {
            socket,
            to: Destination::Address(peer),
            source: None,
            interface: None,
            parts: Bytes::copy_from_slice(answer).into(),
            segment_bytes: None,
        };
        core.submit(token(Kind::Sent, Key { slot: 0, generation: 0 }), Operation::SendDatagram(send));
    }
}
