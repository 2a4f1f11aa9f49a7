//! One address for every question; names whose first label begins with `nx-` do not exist.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use bootstorm_driver::socket;
use bootstorm_proto::dns::HEADER_BYTES;
use bootstorm_proto::dns::answer::address_record;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use socket2::SockRef;

use super::super::dns::NONEXISTENT_PREFIX;
use super::super::{Clock, Error};
use crate::limits;

/// How often it looks whether it is to end.
const TURN: Duration = Duration::from_millis(200);
const RECORD: [u8; 16] = address_record(60, [192, 0, 2, 7]);

/// Answers on this address until it is told to end.
pub fn serve(address: SocketAddr, clock: &Clock) -> Result<(), Error> {
    let told = |source| Error::Socket { what: "making a UDP socket", source };
    let socket = std::net::UdpSocket::bind(address).map_err(told)?;
    socket::set_receive_buffer(socket.as_fd(), limits::GENERATOR_SOCKET_BYTES).map_err(told)?;
    SockRef::from(&socket).set_read_timeout(Some(TURN)).map_err(told)?;
    let mut message = [0; limits::FRAME_BYTES_MAX];
    while !clock.is_stopped() {
        let (length, peer) = match recvfrom(&socket, &mut message[..], RecvFlags::empty()) {
            Ok((length, _, Some(peer))) => (length, peer),
            Ok((_, _, None)) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED) => continue,
            Err(errno) => return Err(Error::socket("receiving a question")(errno)),
        };
        let Some(length) = turn(&mut message, length) else { continue };
        match sendto(&socket, &message[..length], SendFlags::empty(), &peer) {
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::CONNREFUSED) => {}
            Err(errno) => return Err(Error::socket("sending an answer")(errno)),
        }
    }
    Ok(())
}

/// Makes a question its own answer; the answer's octets.
fn turn(message: &mut [u8; limits::FRAME_BYTES_MAX], length: usize) -> Option<usize> {
    let label = message.get(HEADER_BYTES + 1..length)?;
    let is_there = !label.starts_with(NONEXISTENT_PREFIX.as_bytes());
    // A response with authority (RFC 1035 §4.1.1).
    message[2] |= 0x84;
    if !is_there {
        message[3] = 3;
        return Some(length);
    }
    message[7] = 1;
    message.get_mut(length..length + RECORD.len())?.copy_from_slice(&RECORD);
    Some(length + RECORD.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_proto::dns::answer::Response;
    use bootstorm_proto::dns::query::{Recursion, header, write_question};
    use bootstorm_proto::dns::{RecordType, ResponseCode};

    #[test]
    fn its_answers_are_read_by_the_client_half() {
        for (name, code) in [("a.example", ResponseCode::NoError), ("nx-1.example", ResponseCode::NameError)] {
            let mut message = [0; limits::FRAME_BYTES_MAX];
            message[..12].copy_from_slice(&header(5, Recursion::NotDesired));
            let length = 12 + write_question(name, RecordType::A, &mut message[12..]).unwrap();
            let question = message[12..length].to_vec();
            let length = turn(&mut message, length).unwrap();
            let response = Response::parse(&message[..length]).unwrap();
            assert_eq!((response.id, response.code), (5, code));
            assert!(response.is_about(&question));
        }
        assert_eq!(turn(&mut [0; limits::FRAME_BYTES_MAX], 12), None);
    }
}
