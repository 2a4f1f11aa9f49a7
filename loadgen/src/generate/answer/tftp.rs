//! One file out of memory for every name, in bursts of a window (`UDP_SEGMENT`), all transfers from one port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bootstorm_driver::socket::{self, Udp};
use bootstorm_driver::{
    Config, Destination, Driver, Event, Operation, Parts, Peer, SendDatagram, SocketId, Token, limits,
};
use bootstorm_proto::tftp::server::{Output, Settings, Transfer};
use bootstorm_proto::tftp::wire::Packet;
use bytes::Bytes;

use super::super::{Clock, Error};

/// How often it looks whether it is to end.
const TURN: Duration = Duration::from_millis(200);
const RECEIVE: Token = 0;
const SEND: Token = 1;

/// Answers on this address until it is told to end. All transfers leave from the one port, which the RFC does not have but
/// every client takes: a transfer is told by its client's address.
pub fn serve(address: SocketAddr, file_bytes: usize, clock: &Clock) -> Result<(), Error> {
    let failed = |error: bootstorm_driver::Error| Error::Settings(error.to_string());
    let told = |source| Error::Socket { what: "making a UDP socket", source };
    let file = Bytes::from(vec![0x5a; file_bytes]);
    let options = Udp { receive_buffer_bytes: Some(crate::limits::GENERATOR_SOCKET_BYTES), ..Udp::default() };
    let socket = socket::udp(address, &options).map_err(told)?;
    let mut driver = Driver::new(&Config::default()).map_err(failed)?;
    let socket = driver.add_socket(socket).map_err(failed)?;
    driver
        .submit(RECEIVE, Operation::ReceiveDatagrams { socket })
        .map_err(|refused| Error::Settings(refused.reason.to_string()))?;
    let mut transfers: HashMap<SocketAddr, Transfer> = HashMap::new();
    let mut completions = Vec::new();
    while !clock.is_stopped() {
        driver.wait(Some(Instant::now() + TURN), &mut completions).map_err(failed)?;
        let now = clock.now();
        for completion in completions.drain(..) {
            let Event::Datagram(datagram) = completion.event else { continue };
            let Peer::Address(peer) = datagram.peer else { continue };
            match (Packet::parse(&datagram.bytes), transfers.get_mut(&peer)) {
                (Ok(Packet::ReadRequest(request)), None) => {
                    let size = file.len() as u64;
                    transfers.insert(peer, Transfer::new(now, peer, &request, size, &Settings::default()));
                }
                (_, Some(transfer)) => drop(transfer.handle_datagram(now, peer, &datagram.bytes)),
                (_, None) => continue,
            }
            flush(&mut driver, socket, peer, &file, &mut transfers);
        }
        let due: Vec<SocketAddr> = transfers
            .iter()
            .filter(|(_, transfer)| transfer.next_timeout().is_none_or(|due| due <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            if let Some(transfer) = transfers.get_mut(&peer) {
                transfer.handle_timeout(now);
            }
            flush(&mut driver, socket, peer, &file, &mut transfers);
        }
    }
    Ok(())
}

/// Sends what the transfer with this peer wants sent, and drops it when it has ended.
fn flush(
    driver: &mut Driver,
    socket: SocketId,
    peer: SocketAddr,
    file: &Bytes,
    transfers: &mut HashMap<SocketAddr, Transfer>,
) {
    let Some(transfer) = transfers.get_mut(&peer) else { return };
    let mut is_over = false;
    let mut send = |parts: Parts, segment_bytes: Option<NonZeroU16>| {
        let to = Destination::Address(peer);
        let send = SendDatagram { socket, to, source: None, interface: None, parts, segment_bytes };
        // What there is no room for is sent again when the peer asks.
        let _ = driver.submit(SEND, Operation::SendDatagram(send));
    };
    while let Some(output) = transfer.poll_output() {
        match output {
            Output::Control(control) => send(Bytes::copy_from_slice(control.as_bytes()).into(), None),
            Output::Blocks(window) => {
                let segment = usize::from(window.block_bytes) + 4;
                // One send takes a datagram's octets at most.
                let blocks_max = (limits::DATAGRAM_BYTES_MAX / segment).clamp(1, limits::SEGMENTS_MAX);
                let datagrams: Vec<_> = window.datagrams().collect();
                for burst in datagrams.chunks(blocks_max) {
                    let pieces = burst.iter().flat_map(|(header, range)| {
                        [Bytes::copy_from_slice(header), file.slice(range.start as usize..range.end as usize)]
                    });
                    send(pieces.collect::<Vec<_>>().into(), NonZeroU16::new(segment as u16));
                }
            }
            Output::Finished(_) => is_over = true,
        }
    }
    if is_over {
        transfers.remove(&peer);
    }
}
