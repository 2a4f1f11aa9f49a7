//! Ethernet frames with UDP over IPv4, and with ICMPv6: what goes through a packet socket.
//!
//! Replies to a DHCP client without an address leave as such frames (RFC 2131 §4.1), and so do the load generator's
//! requests. Nothing is fragmented: a datagram is one frame or is refused.
//!
//! Octets: destination 6, source 6, type 2 (no VLAN tag: the interface adds it), then IPv4 20 (no options written, options
//! skipped when read), UDP 8, payload; or IPv6 40 (no extension headers), ICMPv6.
//! Reading goes through `bytes::Reader`, so that no length that was received can lead past the end.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::bytes::{Full, Reader, Writer};
use crate::dhcp::MacAddress;
use crate::limits;

/// Octets before the payload of a UDP frame.
pub const UDP_FRAME_HEADER_BYTES: usize = 14 + limits::IPV4_UDP_HEADER_BYTES;

/// The group address of all stations.
pub const BROADCAST: MacAddress = [0xff; 6];

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const TTL: u8 = 64;

/// Why a frame was not read. Most frames on a link are not for us, so these are no faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// Ends inside a header, or before the length that its headers claim.
    #[error("frame ends early")]
    TooShort,
    /// Not the protocol looked for.
    #[error("another protocol")]
    OtherProtocol,
    /// Part of a fragmented datagram.
    #[error("fragment")]
    Fragment,
    /// A header's fields contradict each other.
    #[error("malformed header")]
    Malformed,
    /// A checksum is wrong.
    #[error("wrong checksum")]
    BadChecksum,
    /// Written only: the payload or the buffer does not hold.
    #[error("frame does not fit")]
    DoesNotFit,
}

impl From<Full> for FrameError {
    fn from(Full: Full) -> FrameError {
        FrameError::DoesNotFit
    }
}

/// Whether checksums are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Both are verified; a UDP checksum of zero counts as none.
    Verify,
    /// UDP's is not: a packet socket sees frames of the same host before their checksum is filled in.
    SkipUdp,
}

/// A UDP datagram over IPv4 in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFrame<'a> {
    /// Sender's hardware address.
    pub source_mac: MacAddress,
    /// Receiver's hardware address.
    pub destination_mac: MacAddress,
    /// Sender.
    pub source: SocketAddrV4,
    /// Receiver.
    pub destination: SocketAddrV4,
    /// At most [`limits::DHCP_MESSAGE_BYTES_MAX`] octets.
    pub payload: &'a [u8],
}

impl<'a> UdpFrame<'a> {
    /// Writes the frame with both checksums; gives its octets.
    ///
    /// # Errors
    /// [`FrameError::DoesNotFit`].
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, FrameError> {
        let udp_bytes = u16::try_from(self.payload.len() + 8).map_err(|_| FrameError::DoesNotFit)?;
        if self.payload.len() > limits::DHCP_MESSAGE_BYTES_MAX {
            return Err(FrameError::DoesNotFit);
        }
        let mut ip = [0; 20];
        let mut header = Writer::new(&mut ip);
        header.put(&[0x45, 0])?;
        header.put(&(udp_bytes + 20).to_be_bytes())?;
        // Identification 0 and “don't fragment”: an atomic datagram needs no identification (RFC 6864 §4.1).
        header.put(&[0, 0, 0x40, 0, TTL, PROTOCOL_UDP, 0, 0])?;
        header.put(&self.source.ip().octets())?;
        header.put(&self.destination.ip().octets())?;
        let checksum = Checksum::new().add(header.written()).finish();
        header.patch_u16(10, checksum)?;

        let mut udp = [0; 8];
        let mut header = Writer::new(&mut udp);
        header.put(&self.source.port().to_be_bytes())?;
        header.put(&self.destination.port().to_be_bytes())?;
        header.put(&udp_bytes.to_be_bytes())?;
        header.zeros(2)?;
        let checksum = self.pseudo(udp_bytes).add(header.written()).add(self.payload).finish();
        // Zero would mean “no checksum” (RFC 768).
        header.patch_u16(6, if checksum == 0 { 0xffff } else { checksum })?;

        let mut frame = Writer::new(buffer);
        frame.put(&self.destination_mac)?;
        frame.put(&self.source_mac)?;
        frame.put(&TYPE_IPV4.to_be_bytes())?;
        frame.put(&ip)?;
        frame.put(&udp)?;
        frame.put(self.payload)?;
        Ok(frame.len())
    }

    /// Reads a frame; padding after the datagram is not part of the payload.
    ///
    /// # Errors
    /// A [`FrameError`]; most of them mean that the frame is for somebody else.
    pub fn parse(frame: &'a [u8], checksums: Checksums) -> Result<UdpFrame<'a>, FrameError> {
        let mut reader = Reader::new(frame);
        let short = FrameError::TooShort;
        let destination_mac = *reader.array::<6>().ok_or(short)?;
        let source_mac = *reader.array::<6>().ok_or(short)?;
        if reader.u16().ok_or(short)? != TYPE_IPV4 {
            return Err(FrameError::OtherProtocol);
        }
        let (source_ip, destination_ip, datagram) = parse_ipv4(reader.rest())?;
        let mut reader = Reader::new(datagram);
        let source = SocketAddrV4::new(source_ip, reader.u16().ok_or(short)?);
        let destination = SocketAddrV4::new(destination_ip, reader.u16().ok_or(short)?);
        let udp_bytes = reader.u16().ok_or(short)?;
        let checksum = reader.u16().ok_or(short)?;
        let payload_bytes = usize::from(udp_bytes).checked_sub(8).ok_or(FrameError::Malformed)?;
        let payload = reader.take(payload_bytes).ok_or(short)?;
        let parsed = UdpFrame { source_mac, destination_mac, source, destination, payload };
        if checksums == Checksums::Verify && checksum != 0 {
            let covered = datagram.get(..usize::from(udp_bytes)).ok_or(short)?;
            if parsed.pseudo(udp_bytes).add(covered).finish() != 0 {
                return Err(FrameError::BadChecksum);
            }
        }
        Ok(parsed)
    }

    /// The sum over the pseudo header (RFC 768).
    fn pseudo(&self, udp_bytes: u16) -> Checksum {
        Checksum::new()
            .add(&self.source.ip().octets())
            .add(&self.destination.ip().octets())
            .add(&[0, PROTOCOL_UDP])
            .add(&udp_bytes.to_be_bytes())
    }
}

/// Source, destination and payload of an IPv4 packet that carries UDP and is whole.
fn parse_ipv4(packet: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, &[u8]), FrameError> {
    let short = FrameError::TooShort;
    let mut reader = Reader::new(packet);
    let version_length = reader.u8().ok_or(short)?;
    let header_bytes = usize::from(version_length & 0x0f) * 4;
    reader.u8().ok_or(short)?;
    let total_bytes = usize::from(reader.u16().ok_or(short)?);
    reader.u16().ok_or(short)?;
    let fragment = reader.u16().ok_or(short)?;
    reader.u8().ok_or(short)?;
    let protocol = reader.u8().ok_or(short)?;
    reader.u16().ok_or(short)?;
    let source = Ipv4Addr::from(*reader.array::<4>().ok_or(short)?);
    let destination = Ipv4Addr::from(*reader.array::<4>().ok_or(short)?);
    if version_length >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return Err(FrameError::Malformed);
    }
    if protocol != PROTOCOL_UDP {
        return Err(FrameError::OtherProtocol);
    }
    // More fragments, or an offset.
    if fragment & 0x3fff != 0 {
        return Err(FrameError::Fragment);
    }
    let header = packet.get(..header_bytes).ok_or(short)?;
    if Checksum::new().add(header).finish() != 0 {
        return Err(FrameError::BadChecksum);
    }
    Ok((source, destination, packet.get(header_bytes..total_bytes).ok_or(short)?))
}

/// An ICMPv6 message in a frame, without extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmpv6Frame<'a> {
    /// Sender's hardware address.
    pub source_mac: MacAddress,
    /// Receiver's hardware address; see [`multicast_mac`] for a group.
    pub destination_mac: MacAddress,
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// Hop limit; 255 in neighbour discovery.
    pub hop_limit: u8,
    /// The message with its checksum in place.
    pub message: &'a [u8],
}

impl<'a> Icmpv6Frame<'a> {
    /// Writes the frame; gives its octets.
    ///
    /// # Errors
    /// [`FrameError::DoesNotFit`].
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, FrameError> {
        if self.message.len() > limits::NDP_MESSAGE_BYTES_MAX {
            return Err(FrameError::DoesNotFit);
        }
        let message_bytes = u16::try_from(self.message.len()).map_err(|_| FrameError::DoesNotFit)?;
        let mut frame = Writer::new(buffer);
        frame.put(&self.destination_mac)?;
        frame.put(&self.source_mac)?;
        frame.put(&TYPE_IPV6.to_be_bytes())?;
        frame.put(&[0x60, 0, 0, 0])?;
        frame.put(&message_bytes.to_be_bytes())?;
        frame.put(&[PROTOCOL_ICMPV6, self.hop_limit])?;
        frame.put(&self.source.octets())?;
        frame.put(&self.destination.octets())?;
        frame.put(self.message)?;
        Ok(frame.len())
    }

    /// Reads a frame; the message's checksum is for [`crate::ndp`] to verify.
    ///
    /// # Errors
    /// A [`FrameError`].
    pub fn parse(frame: &'a [u8]) -> Result<Icmpv6Frame<'a>, FrameError> {
        let short = FrameError::TooShort;
        let mut reader = Reader::new(frame);
        let destination_mac = *reader.array::<6>().ok_or(short)?;
        let source_mac = *reader.array::<6>().ok_or(short)?;
        if reader.u16().ok_or(short)? != TYPE_IPV6 {
            return Err(FrameError::OtherProtocol);
        }
        let version = reader.u32().ok_or(short)? >> 28;
        let message_bytes = usize::from(reader.u16().ok_or(short)?);
        let next_header = reader.u8().ok_or(short)?;
        let hop_limit = reader.u8().ok_or(short)?;
        let source = Ipv6Addr::from(*reader.array::<16>().ok_or(short)?);
        let destination = Ipv6Addr::from(*reader.array::<16>().ok_or(short)?);
        if version != 6 {
            return Err(FrameError::Malformed);
        }
        if next_header != PROTOCOL_ICMPV6 {
            return Err(FrameError::OtherProtocol);
        }
        let message = reader.take(message_bytes).ok_or(short)?;
        Ok(Icmpv6Frame { source_mac, destination_mac, source, destination, hop_limit, message })
    }
}

/// The hardware address of an IPv6 group (RFC 2464 §7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The Internet checksum (RFC 1071), fed in pieces; only the last piece may have an odd length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub(crate) fn new() -> Checksum {
        Checksum(0)
    }

    pub(crate) fn add(self, bytes: &[u8]) -> Checksum {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
        let odd = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
        Checksum(self.0 + sum + odd)
    }

    /// The complement of the sum; 0 over data that holds its right checksum.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [.., high, low] = sum.to_be_bytes();
        !u16::from_be_bytes([high, low])
    }
}

/// The ICMPv6 checksum over its pseudo header (RFC 8200 §8.1) and a message; 0 if the message holds its right checksum.
pub(crate) fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Checksum::new()
        .add(&source.octets())
        .add(&destination.octets())
        .add(&length.to_be_bytes())
        .add(&[0, 0, 0, PROTOCOL_ICMPV6])
        .add(message)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> UdpFrame<'_> {
        UdpFrame {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: BROADCAST,
            source: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 67),
            destination: SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
            payload,
        }
    }

    #[test]
    fn checksum_of_rfc_1071() {
        // RFC 1071 §3: the sum of these octets is ddf2.
        assert_eq!(Checksum::new().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish(), !0xddf2);
    }

    #[test]
    fn strange_frames_are_told_apart() {
        let mut buffer = [0; 1_600];
        let length = frame(b"hello").write(&mut buffer).unwrap();
        let good = &buffer[..length];
        let with = |at: usize, value: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = value;
            UdpFrame::parse(&bytes, Checksums::Verify).unwrap_err()
        };
        assert_eq!(with(12, 0x86), FrameError::OtherProtocol);
        assert_eq!(with(14, 0x65), FrameError::Malformed);
        assert_eq!(with(14, 0x44), FrameError::Malformed);
        assert_eq!(with(20, 0x20), FrameError::Fragment);
        assert_eq!(with(23, 6), FrameError::OtherProtocol);
        assert_eq!(with(24, 0), FrameError::BadChecksum);
        assert_eq!(with(42, b'j'), FrameError::BadChecksum);
        assert_eq!(with(39, 200), FrameError::TooShort);
        assert_eq!(with(39, 3), FrameError::Malformed);
        let mut unfilled = good.to_vec();
        unfilled[41] ^= 1;
        assert!(UdpFrame::parse(&unfilled, Checksums::SkipUdp).is_ok());
        assert_eq!(frame(&[0; 1_473]).write(&mut buffer), Err(FrameError::DoesNotFit));
        assert_eq!(frame(b"hello").write(&mut [0; 40]), Err(FrameError::DoesNotFit));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn frames_round_trip_with_padding(payload in proptest::collection::vec(any::<u8>(), 0..1_472), padding in 0usize..40) {
            let mut buffer = [0; 1_600];
            let written = frame(&payload);
            let length = written.write(&mut buffer).unwrap();
            prop_assert_eq!(length, UDP_FRAME_HEADER_BYTES + payload.len());
            prop_assert_eq!(UdpFrame::parse(&buffer[..length + padding], Checksums::Verify), Ok(written));
        }

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = UdpFrame::parse(&bytes, Checksums::Verify);
            let _ = UdpFrame::parse(&[&[0; 12], &[8, 0, 0x45][..], &bytes].concat(), Checksums::SkipUdp);
            let _ = Icmpv6Frame::parse(&bytes);
        }
    }
}
