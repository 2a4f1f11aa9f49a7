//! Ethernet, IPv4 and UDP around a DHCP message: what a machine without an address sends and sees.
//!
//! Frames (RFC 894, RFC 791, RFC 768): destination 6, source 6, type 2; IPv4 header 20 or more; UDP header 8; payload.
//! Parsing is total: whatever is no such frame is `None`.

use std::net::Ipv4Addr;

use socket2::SockFilter;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const CLIENT_PORT: u16 = bootstorm_proto::dhcp::CLIENT_PORT;
const SERVER_PORT: u16 = bootstorm_proto::dhcp::SERVER_PORT;

/// A DHCP message as a broadcast from a machine that has no address yet (RFC 2131 §4.1).
pub fn dhcp_frame(mac: [u8; 6], message: &[u8]) -> Vec<u8> {
    let length = |head: usize| u16::try_from(head + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut ip = [0u8; IP_BYTES];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length(IP_BYTES + UDP_BYTES));
    ip[8] = 64;
    ip[9] = 17;
    ip[16..20].fill(255);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::with_capacity(ETHERNET_BYTES + IP_BYTES + UDP_BYTES + message.len());
    frame.extend_from_slice(&[255; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&IPV4.to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    frame.extend_from_slice(&SERVER_PORT.to_be_bytes());
    frame.extend_from_slice(&length(UDP_BYTES));
    // No UDP checksum, which IPv4 allows (RFC 768).
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(message);
    frame
}

/// A gratuitous ARP request (RFC 5227 §3): hosts that know the address change the entry they have, at once.
pub fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    /// Ethernet and IPv4 addresses, of 6 and 4 octets; a request (RFC 826).
    const HEAD: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let address = address.octets();
    [&[255; 6], &mac, &ARP.to_be_bytes()[..], &HEAD, &mac, &address, &[0; 6], &address].concat()
}

/// The DHCP message to a client in a frame. Checksums are not looked at: on virtual links they are often not filled in.
pub fn dhcp_message(frame: &[u8]) -> Option<&[u8]> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_BYTES)?;
    if ethernet.get(12..14)? != IPV4.to_be_bytes() {
        return None;
    }
    let first = *packet.first()?;
    let header_bytes = usize::from(first & 15) * 4;
    let is_udp = *packet.get(9)? == 17;
    let is_fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x3fff != 0;
    if first >> 4 != 4 || header_bytes < IP_BYTES || !is_udp || is_fragment {
        return None;
    }
    let udp = packet.get(header_bytes..)?;
    if udp.get(2..4)? != CLIENT_PORT.to_be_bytes() {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?));
    udp.get(UDP_BYTES..length)
}

/// “chaddr” of a DHCP message: whom an answer is for, before it is parsed.
pub fn client_of(message: &[u8]) -> Option<[u8; 6]> {
    message.get(28..34)?.try_into().ok()
}

/// A kernel filter that passes only IPv4 UDP datagrams to this port, so that the transfers of a storm are not copied to the
/// packet socket.
pub fn udp_filter(port: u16) -> [SockFilter; 9] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const INDEX_FROM_HEADER_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(JUMP_EQUAL, 0, 6, 17),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(JUMP_SET, 4, 0, 0x1fff),
        SockFilter::new(INDEX_FROM_HEADER_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 16),
        SockFilter::new(JUMP_EQUAL, 0, 1, port as u32),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request with its ports turned round, as an answer has them.
    fn answer(message: &[u8]) -> Vec<u8> {
        let mut frame = dhcp_frame([2, 0, 0, 0, 0, 1], message);
        frame[34..36].copy_from_slice(&SERVER_PORT.to_be_bytes());
        frame[36..38].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        frame
    }

    #[test]
    fn an_answer_is_found_in_its_frame_and_padding_is_not_part_of_it() {
        let message: Vec<u8> = (0..240).map(|index| index as u8).collect();
        let mut frame = answer(&message);
        frame.extend_from_slice(&[0; 20]);
        assert_eq!(dhcp_message(&frame), Some(&message[..]));
        assert_eq!(client_of(&message), Some([28, 29, 30, 31, 32, 33]));
        assert_eq!(checksum(&frame[14..34]), 0);
    }

    #[test]
    fn an_announcement_says_the_same_address_twice() {
        let frame = announcement([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(frame.len(), 42);
        assert_eq!(
            (&frame[..14], &frame[14..22]),
            (&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6][..], &[0, 1, 8, 0, 6, 4, 0, 1][..])
        );
        assert_eq!(
            (&frame[22..32], &frame[32..]),
            (&[2, 0, 0, 0, 0, 1, 10, 0, 0, 9][..], &[0, 0, 0, 0, 0, 0, 10, 0, 0, 9][..])
        );
    }

    #[test]
    fn anything_else_is_none_and_never_a_panic() {
        let frame = answer(&[7; 40]);
        assert_eq!(dhcp_message(&dhcp_frame([2; 6], &[7; 40])), None, "a request");
        for length in 0..frame.len() {
            assert_eq!(dhcp_message(&frame[..length]), None, "cut at {length}");
        }
        for index in 0..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[index] ^= 1 << bit;
                let _ = dhcp_message(&changed);
            }
        }
    }
}
