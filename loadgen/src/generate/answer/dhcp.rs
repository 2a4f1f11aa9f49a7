//! An Offer for each Discover and an Ack for each Request, out of one template; the address is the client's index.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;

use bootstorm_driver::socket::{self, Promiscuous};
use bootstorm_proto::dhcp::options::{MessageType, code};
use bootstorm_proto::dhcp::wire::ClientMessage;
use bootstorm_proto::dhcp::{CLIENT_PORT, SERVER_PORT};
use bootstorm_proto::eth::{BROADCAST, UDP_FRAME_HEADER_BYTES, UdpFrame};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;

use super::super::dhcp::checksum;
use super::super::{Clock, Error};
use crate::{limits, link};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
const SERVER_MAC: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 1];
/// How often it looks whether it is to end.
const TURN: Duration = Duration::from_millis(200);

// Headers: Ethernet 14, IPv4 20, UDP 8.
const SOURCE_MAC: usize = 6;
const IP_HEADER: usize = 14;
const IP_CHECKSUM: usize = IP_HEADER + 10;
const DESTINATION_IP: usize = IP_HEADER + 16;
const DESTINATION_PORT: usize = IP_HEADER + 22;
// Where things are in both directions (RFC 2131 §2).
const MESSAGE: usize = UDP_FRAME_HEADER_BYTES;
const TRANSACTION_ID: usize = MESSAGE + 4;
const YOUR_IP: usize = MESSAGE + 16;
const RELAY_IP: usize = MESSAGE + 24;
const HARDWARE_ADDRESS: usize = MESSAGE + 28;
const MESSAGE_TYPE: usize = MESSAGE + 242;

/// Answers on this interface until it is told to end.
pub fn serve(interface: &str, clock: &Clock) -> Result<(), Error> {
    let told = |source| Error::Interface { name: interface.to_owned(), source };
    let index = socket::interface_index(interface).map_err(told)?;
    let frames = socket::packet(index, link::IPV4, Promiscuous::On).map_err(told)?;
    SockRef::from(&frames).attach_filter(&link::udp_filter(SERVER_PORT)).map_err(told)?;
    socket::set_receive_buffer(frames.as_fd(), limits::GENERATOR_SOCKET_BYTES).map_err(told)?;
    SockRef::from(&frames).set_read_timeout(Some(TURN)).map_err(told)?;
    let mut answer = template();
    let mut frame = [0; limits::FRAME_BYTES_MAX];
    while !clock.is_stopped() {
        let length = match recv(&frames, &mut frame, RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => return Err(Error::socket("receiving frames")(errno)),
        };
        if patch(&mut answer, &frame[..length]).is_none() {
            continue;
        }
        match send(&frames, &answer, SendFlags::empty()) {
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(errno) => return Err(Error::socket("sending a frame")(errno)),
        }
    }
    Ok(())
}

/// Makes the template the answer to this frame; `None` for one that has none.
fn patch(answer: &mut [u8], frame: &[u8]) -> Option<()> {
    let kind = match MessageType::from_code(*frame.get(MESSAGE_TYPE)?)? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request => MessageType::Ack,
        _ => return None,
    };
    let mac = frame.get(HARDWARE_ADDRESS..HARDWARE_ADDRESS + 6)?;
    answer[HARDWARE_ADDRESS..HARDWARE_ADDRESS + 6].copy_from_slice(mac);
    answer[YOUR_IP + 1..YOUR_IP + 4].copy_from_slice(mac.get(3..)?);
    answer[TRANSACTION_ID..TRANSACTION_ID + 4].copy_from_slice(frame.get(TRANSACTION_ID..TRANSACTION_ID + 4)?);
    answer[MESSAGE_TYPE] = kind.code();
    // A relay gets its answer at its own address and the server's port, a client as the station that it is (RFC 2131 §4.1).
    let relay = <[u8; 4]>::try_from(frame.get(RELAY_IP..RELAY_IP + 4)?).ok()?;
    let (station, ip, port) = match relay {
        [0, 0, 0, 0] => (mac, [255; 4], CLIENT_PORT),
        relay => (frame.get(SOURCE_MAC..SOURCE_MAC + 6)?, relay, SERVER_PORT),
    };
    answer[..6].copy_from_slice(station);
    answer[RELAY_IP..RELAY_IP + 4].copy_from_slice(&relay);
    answer[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&port.to_be_bytes());
    answer[DESTINATION_IP..DESTINATION_IP + 4].copy_from_slice(&ip);
    answer[IP_CHECKSUM..IP_CHECKSUM + 2].fill(0);
    let sum = checksum(&answer[IP_HEADER..IP_HEADER + 20]);
    answer[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn template() -> Vec<u8> {
    let mut message = [0; bootstorm_proto::limits::DHCP_REPLY_BYTES_MIN];
    let options: &[(u8, &[u8])] = &[
        (code::SERVER_IDENTIFIER, &SERVER.octets()),
        (code::LEASE_SECONDS, &3_600u32.to_be_bytes()),
        (code::SUBNET_MASK, &[255, 0, 0, 0]),
    ];
    let length = ClientMessage {
        message_type: MessageType::Offer,
        transaction_id: 0,
        seconds: 0,
        broadcast: false,
        hops: 0,
        client_ip: Ipv4Addr::UNSPECIFIED,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        client_hardware_address: [0; 6],
        options,
    }
    .encode(&mut message);
    debug_assert_eq!(length, Ok(message.len()));
    // “op” is a reply; “yiaddr” is 10.x.y.z.
    message[0] = 2;
    message[16] = 10;
    let mut frame = vec![0; MESSAGE + message.len()];
    let written = UdpFrame {
        source_mac: SERVER_MAC,
        destination_mac: BROADCAST,
        source: SocketAddrV4::new(SERVER, SERVER_PORT),
        destination: SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
        payload: &message,
    }
    .write(&mut frame);
    debug_assert_eq!(written, Ok(frame.len()));
    // Its octets change: no UDP checksum (RFC 768).
    frame[40..42].fill(0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_proto::dhcp::brief::Brief;
    use bootstorm_proto::eth::Checksums;

    #[test]
    fn its_answers_are_read_by_the_client_half() {
        let mut answer = template();
        let mut frame = vec![0; MESSAGE + 300];
        frame[HARDWARE_ADDRESS..HARDWARE_ADDRESS + 6].copy_from_slice(&[2, 9, 9, 1, 2, 3]);
        frame[TRANSACTION_ID + 3] = 7;
        for (asked, answered) in [(1, MessageType::Offer), (3, MessageType::Ack)] {
            frame[MESSAGE_TYPE] = asked;
            patch(&mut answer, &frame).unwrap();
            let datagram = UdpFrame::parse(&answer, Checksums::Verify).unwrap();
            let brief = Brief::parse(datagram.payload).unwrap();
            assert_eq!((brief.message_type, brief.transaction_id), (answered, 7));
            assert_eq!((brief.your_ip, brief.server_identifier), (Ipv4Addr::new(10, 1, 2, 3), Some(SERVER)));
        }
        frame[MESSAGE_TYPE] = 1;
        frame[RELAY_IP..RELAY_IP + 4].copy_from_slice(&[10, 0, 0, 7]);
        frame[SOURCE_MAC..SOURCE_MAC + 6].copy_from_slice(&[2; 6]);
        patch(&mut answer, &frame).unwrap();
        let datagram = UdpFrame::parse(&answer, Checksums::Verify).unwrap();
        assert_eq!((datagram.destination_mac, datagram.destination), ([2; 6], "10.0.0.7:67".parse().unwrap()));
        frame[MESSAGE_TYPE] = 7;
        assert_eq!(patch(&mut answer, &frame), None, "a release");
        assert_eq!(patch(&mut answer, &frame[..100]), None);
    }
}
