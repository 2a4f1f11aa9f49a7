//! Socket addresses and control messages as octets: what goes with a datagram both ways.
//!
//! Everything here is safe code over byte slices. What the kernel hands over is laid out by the platform's C structures in
//! native byte order; lengths in it are checked nevertheless, and what does not parse is absent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use crate::completion::Peer;
use crate::limits::CONTROL_BYTES;

/// Octets of a control message's header (`cmsghdr`): length, level, type.
const HEADER_BYTES: usize = size_of::<usize>() + 8;

/// Control messages for one send, aligned as the kernel wants them.
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; CONTROL_BYTES],
    length: usize,
}

impl Control {
    /// The messages for sending from `source`, by `interface`, in segments, to a peer of this family.
    pub(crate) fn for_send(
        is_ipv6: bool,
        source: Option<IpAddr>,
        interface: Option<u32>,
        segment_bytes: Option<NonZeroU16>,
    ) -> Control {
        let mut control = Control { bytes: [0; CONTROL_BYTES], length: 0 };
        let index = interface.unwrap_or(0).to_ne_bytes();
        if source.is_some() || interface.is_some() {
            if is_ipv6 {
                // in6_pktinfo: address, interface index.
                let address = match source {
                    Some(IpAddr::V6(address)) => address,
                    _ => Ipv6Addr::UNSPECIFIED,
                };
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&address.octets(), &index]);
            } else {
                // in_pktinfo: interface index, local address to send from, header destination (unused).
                let address = match source {
                    Some(IpAddr::V4(address)) => address,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &[&index, &address.octets(), &[0; 4]]);
            }
        }
        if let Some(segment) = segment_bytes {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &[&segment.get().to_ne_bytes()]);
        }
        control
    }

    fn push(&mut self, level: i32, kind: i32, pieces: &[&[u8]]) {
        let length = HEADER_BYTES + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let mut at = self.length;
        let mut put = |octets: &[u8]| {
            self.bytes[at..at + octets.len()].copy_from_slice(octets);
            at += octets.len();
        };
        put(&length.to_ne_bytes());
        put(&level.to_ne_bytes());
        put(&kind.to_ne_bytes());
        pieces.iter().for_each(|piece| put(piece));
        self.length += padded(length);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Control messages start at multiples of the word size.
fn padded(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

/// Interface index and header destination of a received datagram; 0 and `None` where the kernel said nothing.
pub(crate) fn packet_information(mut control: &[u8]) -> (u32, Option<IpAddr>) {
    while let Some(message) = Message::first(control) {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let (Some(index), Some(to)) = (array::<4>(message.data, 0), array::<4>(message.data, 8)) {
                    return (u32::from_ne_bytes(index), Some(Ipv4Addr::from(to).into()));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(to), Some(index)) = (array::<16>(message.data, 0), array::<4>(message.data, 16)) {
                    return (u32::from_ne_bytes(index), Some(Ipv6Addr::from(to).into()));
                }
            }
            _ => {}
        }
        control = control.get(message.padded_bytes..).unwrap_or_default();
    }
    (0, None)
}

struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
    padded_bytes: usize,
}

impl<'a> Message<'a> {
    fn first(control: &'a [u8]) -> Option<Message<'a>> {
        let length = usize::from_ne_bytes(array(control, 0)?);
        let level = i32::from_ne_bytes(array(control, size_of::<usize>())?);
        let kind = i32::from_ne_bytes(array(control, size_of::<usize>() + 4)?);
        let data = control.get(HEADER_BYTES..length)?;
        Some(Message { level, kind, data, padded_bytes: padded(length) })
    }
}

/// The sender in a `sockaddr` of whichever family.
pub(crate) fn peer(name: &[u8]) -> Peer {
    parse_peer(name).unwrap_or(Peer::Unknown)
}

/// The interface of a link-level address (`sockaddr_ll`); `None` for other families.
pub(crate) fn link_interface(name: &[u8]) -> Option<u32> {
    let family = i32::from(u16::from_ne_bytes(array(name, 0)?));
    (family == libc::AF_PACKET).then_some(u32::from_ne_bytes(array(name, 4)?))
}

fn parse_peer(name: &[u8]) -> Option<Peer> {
    let port = || array(name, 2).map(u16::from_be_bytes);
    Some(match i32::from(u16::from_ne_bytes(array(name, 0)?)) {
        libc::AF_INET => {
            let address = Ipv4Addr::from(array::<4>(name, 4)?);
            Peer::Address(SocketAddr::V4(SocketAddrV4::new(address, port()?)))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(array(name, 4)?);
            let address = Ipv6Addr::from(array::<16>(name, 8)?);
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Peer::Address(SocketAddr::V6(SocketAddrV6::new(address, port()?, flow, scope)))
        }
        // sockaddr_ll: protocol at 2, interface at 4, address length at 11, address at 12.
        libc::AF_PACKET => Peer::Link { mac: array(name, 12)?, protocol: port()? },
        _ => return None,
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_information_survives_a_round_trip_with_a_segment_size() {
        for source in ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()] {
            let mut control = Control::for_send(source.is_ipv6(), Some(source), Some(9), NonZeroU16::new(1_472));
            assert!(control.as_slice().len() <= CONTROL_BYTES);
            if source.is_ipv4() {
                // What is sent as the local address is received in the next field, the header's destination.
                control.bytes.copy_within(20..24, 24);
            }
            assert_eq!(packet_information(control.as_slice()), (9, Some(source)));
        }
    }

    #[test]
    fn cut_control_and_names_are_absent_not_a_panic() {
        let control = Control::for_send(true, Some(Ipv6Addr::LOCALHOST.into()), None, None);
        for length in 0..control.as_slice().len() - 4 {
            assert_eq!(packet_information(&control.as_slice()[..length]), (0, None));
        }
        let mut name = [0u8; 32];
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, 77] {
            name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
            for length in 0..name.len() {
                let _ = peer(&name[..length]);
            }
        }
        assert_eq!(peer(&name), Peer::Unknown);
    }
}
