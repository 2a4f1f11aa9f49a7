//! Frames of a DHCP client, written once and patched for each client: 342 octets, of which a few dozen differ.

use std::net::{Ipv4Addr, SocketAddrV4};

use bootstorm_proto::dhcp::options::{MessageType, code};
use bootstorm_proto::dhcp::wire::ClientMessage;
use bootstorm_proto::dhcp::{CLIENT_PORT, MacAddress, SERVER_PORT};
use bootstorm_proto::eth::{BROADCAST, UDP_FRAME_HEADER_BYTES, UdpFrame};

/// Octets of a frame: headers, then a message padded to BOOTP's minimum.
const FRAME_BYTES: usize = UDP_FRAME_HEADER_BYTES + bootstorm_proto::limits::DHCP_REPLY_BYTES_MIN;

// Where things are in a frame (RFC 894, RFC 791, RFC 768, RFC 2131 §2).
const DESTINATION_MAC: usize = 0;
const SOURCE_MAC: usize = 6;
const IP_HEADER: usize = 14;
const IP_CHECKSUM: usize = IP_HEADER + 10;
const SOURCE_IP: usize = IP_HEADER + 12;
const DESTINATION_IP: usize = IP_HEADER + 16;
const UDP_CHECKSUM: usize = IP_HEADER + 26;
const MESSAGE: usize = UDP_FRAME_HEADER_BYTES;
const TRANSACTION_ID: usize = MESSAGE + 4;
const CLIENT_IP: usize = MESSAGE + 12;
const HARDWARE_ADDRESS: usize = MESSAGE + 28;
/// Option 53 is first and takes 3; options 50 and 54 follow where they are sent.
const FIRST_OPTION: usize = MESSAGE + 240 + 3;

/// Options a client asks for: what an installer's or an operating system's client wants.
const PARAMETER_REQUEST_LIST: &[u8] = &[1, 3, 6, 12, 15, 26, 28, 42, 51, 54, 58, 59];

/// A frame to patch and to send.
pub struct Template([u8; FRAME_BYTES]);

impl Template {
    /// A message of this type with these options after 53, as a broadcast of a client without an address.
    fn new(message_type: MessageType, options: &[(u8, &[u8])]) -> Template {
        let mut message = [0; bootstorm_proto::limits::DHCP_REPLY_BYTES_MIN];
        let unset = Ipv4Addr::UNSPECIFIED;
        ClientMessage {
            message_type,
            transaction_id: 0,
            seconds: 0,
            broadcast: false,
            hops: 0,
            client_ip: unset,
            relay_agent_ip: unset,
            client_hardware_address: [0; 6],
            options,
        }
        .encode(&mut message)
        .expect("the options here fit into 60 octets; a test writes them all");
        let mut frame = [0; FRAME_BYTES];
        UdpFrame {
            source_mac: [0; 6],
            destination_mac: BROADCAST,
            source: SocketAddrV4::new(unset, CLIENT_PORT),
            destination: SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT),
            payload: &message,
        }
        .write(&mut frame)
        .expect("the frame has room for this message");
        // No UDP checksum, which IPv4 allows (RFC 768): nothing to compute again for each client.
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
        Template(frame)
    }

    /// A Discover (RFC 2131 §4.4.1).
    pub fn discover() -> Template {
        Template::new(MessageType::Discover, &[(code::PARAMETER_REQUEST_LIST, PARAMETER_REQUEST_LIST)])
    }

    /// A Request for what was offered: options 50 and 54 (RFC 2131 §4.3.2, SELECTING).
    pub fn request() -> Template {
        let options: &[(u8, &[u8])] = &[
            (code::REQUESTED_IP, &[0; 4]),
            (code::SERVER_IDENTIFIER, &[0; 4]),
            (code::PARAMETER_REQUEST_LIST, PARAMETER_REQUEST_LIST),
        ];
        Template::new(MessageType::Request, options)
    }

    /// A Request that prolongs a lease: “ciaddr” and neither option (RFC 2131 §4.3.2, RENEWING).
    pub fn renewing() -> Template {
        Template::new(MessageType::Request, &[(code::PARAMETER_REQUEST_LIST, PARAMETER_REQUEST_LIST)])
    }

    /// A Release (RFC 2131 §4.4.6).
    pub fn release() -> Template {
        Template::new(MessageType::Release, &[(code::SERVER_IDENTIFIER, &[0; 4])])
    }

    /// The frame of this client and transaction.
    pub fn of(&mut self, mac: MacAddress, transaction_id: u32) -> &mut Template {
        self.put(SOURCE_MAC, mac);
        self.put(HARDWARE_ADDRESS, mac);
        self.put(TRANSACTION_ID, transaction_id.to_be_bytes());
        self
    }

    /// Options 50 and 54 of a [`Template::request`].
    pub fn selecting(&mut self, address: Ipv4Addr, server: Ipv4Addr) -> &mut Template {
        self.put(FIRST_OPTION + 2, address.octets());
        self.put(FIRST_OPTION + 8, server.octets());
        self
    }

    /// Option 54 of a [`Template::release`].
    pub fn leaving(&mut self, server: Ipv4Addr) -> &mut Template {
        self.put(FIRST_OPTION + 2, server.octets());
        self
    }

    /// Sent by a client that has `address` to its server alone, as the station `mac`.
    pub fn unicast(&mut self, address: Ipv4Addr, server: Ipv4Addr, mac: MacAddress) -> &mut Template {
        self.put(DESTINATION_MAC, mac);
        self.put(SOURCE_IP, address.octets());
        self.put(DESTINATION_IP, server.octets());
        self.put(CLIENT_IP, address.octets());
        self.put(IP_CHECKSUM, [0, 0]);
        let sum = checksum(&self.0[IP_HEADER..IP_HEADER + 20]);
        self.put(IP_CHECKSUM, sum.to_be_bytes());
        self
    }

    /// The octets to send.
    pub fn frame(&self) -> &[u8] {
        &self.0
    }

    fn put<const N: usize>(&mut self, at: usize, octets: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&octets);
    }
}

/// The internet checksum over an IPv4 header (RFC 1071).
pub fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_proto::dhcp::wire::Request;
    use bootstorm_proto::eth::Checksums;

    const MAC: MacAddress = [2, 1, 2, 3, 4, 5];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn read(template: &Template) -> (UdpFrame<'_>, Request) {
        let frame = UdpFrame::parse(template.frame(), Checksums::Verify).unwrap();
        (frame, Request::parse(frame.payload).unwrap())
    }

    #[test]
    fn a_client_without_an_address_broadcasts() {
        let (mut discover, mut request) = (Template::discover(), Template::request());
        let (frame, message) = read(discover.of(MAC, 77));
        assert_eq!((message.message_type, message.transaction_id), (MessageType::Discover, 77));
        assert_eq!((message.client_hardware_address, frame.source_mac), (MAC, MAC));
        assert_eq!((frame.destination_mac, *frame.destination.ip()), (BROADCAST, Ipv4Addr::BROADCAST));
        let (_, message) = read(request.of(MAC, 78).selecting(ADDRESS, SERVER));
        assert_eq!((message.requested_ip, message.server_identifier), (Some(ADDRESS), Some(SERVER)));
        assert!(message.client_ip.is_unspecified() && message.asks_for(51));
    }

    #[test]
    fn a_client_with_an_address_speaks_to_its_server() {
        let (mut renewing, mut release) = (Template::renewing(), Template::release());
        let (frame, message) = read(renewing.of(MAC, 79).unicast(ADDRESS, SERVER, [2; 6]));
        assert_eq!((message.message_type, message.client_ip), (MessageType::Request, ADDRESS));
        assert_eq!((message.requested_ip, message.server_identifier), (None, None));
        assert_eq!((*frame.source.ip(), *frame.destination.ip(), frame.destination_mac), (ADDRESS, SERVER, [2; 6]));
        let (_, message) = read(release.of(MAC, 80).leaving(SERVER).unicast(ADDRESS, SERVER, [2; 6]));
        assert_eq!((message.message_type, message.server_identifier), (MessageType::Release, Some(SERVER)));
    }
}
