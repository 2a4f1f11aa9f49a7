//! One response, of so many octets, for every request, whatever it asks for.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::super::ready::{Interest, Ready};
use super::super::{Clock, Error};
use crate::limits;

/// How often it looks whether it is to end.
const TURN: Duration = Duration::from_millis(200);
/// The listener's number; connections have their place in the table.
const LISTENER: u64 = u64::MAX;

struct Peer {
    socket: OwnedFd,
    /// The last octets of what came, in case the end of a head is split.
    tail: [u8; 3],
    closes: bool,
}

/// Answers on this address until it is told to end.
pub fn serve(address: SocketAddr, body_bytes: usize, clock: &Clock) -> Result<(), Error> {
    let told = |source| Error::Socket { what: "making a TCP listener", source };
    let listener = TcpListener::bind(address).map_err(told)?;
    listener.set_nonblocking(true).map_err(told)?;
    bootstorm_driver::socket::listen(listener.as_fd()).map_err(told)?;
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_bytes}\r\n\r\n").into_bytes();
    response.resize(response.len() + body_bytes, b'x');
    let mut ready = Ready::new()?;
    ready.add(&listener, LISTENER, Interest::Read)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; limits::STREAM_BUFFER_BYTES];
    while !clock.is_stopped() {
        ready.wait(Some(TURN))?;
        for event in 0..ready.count() {
            match ready.number(event) {
                LISTENER => accept_all(&listener, &mut peers, &mut free, &ready)?,
                number => {
                    let place = number as usize;
                    let Some(Some(peer)) = peers.get_mut(place) else { continue };
                    if !answer(peer, &response, &mut buffer) {
                        peers[place] = None;
                        free.push(place);
                    }
                }
            }
        }
    }
    Ok(())
}

fn accept_all(
    listener: &TcpListener,
    peers: &mut Vec<Option<Peer>>,
    free: &mut Vec<usize>,
    ready: &Ready,
) -> Result<(), Error> {
    for _ in 0..limits::BURST_MESSAGES {
        // Whatever else happens to one connection is its client's matter.
        let Ok(socket) = accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) else { break };
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let place = free.pop().unwrap_or_else(|| {
            peers.push(None);
            peers.len() - 1
        });
        ready.add(&socket, place as u64, Interest::Read)?;
        peers[place] = Some(Peer { socket, tail: [0; 3], closes: false });
    }
    Ok(())
}

/// Reads once and answers each head that ends in it; whether the connection goes on.
fn answer(peer: &mut Peer, response: &[u8], buffer: &mut [u8]) -> bool {
    let count = match recv(&peer.socket, &mut buffer[3..], RecvFlags::DONTWAIT) {
        Ok((_, 0)) => return false,
        Ok((count, _)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    buffer[..3].copy_from_slice(&peer.tail);
    let seen = &buffer[..3 + count];
    peer.closes |= seen.windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
    let heads = seen.windows(4).filter(|window| window == b"\r\n\r\n").count();
    peer.tail.copy_from_slice(&seen[seen.len() - 3..]);
    for _ in 0..heads {
        // One that does not read its answers is none to calibrate with.
        if send(&peer.socket, response, SendFlags::NOSIGNAL) != Ok(response.len()) {
            return false;
        }
    }
    heads == 0 || !peer.closes
}
