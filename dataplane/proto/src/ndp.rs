//! IPv6 router discovery (RFC 4861 §4.1, §4.2, §6.1): solicitations in, advertisements out, others' advertisements observed.
//!
//! Our advertisement makes no router: its lifetime is 0. It exists because iPXE configures IPv6 beside DHCPv4 and waits up
//! to 16 s for any advertisement. Where another router advertises, ours stays off.
//!
//! Octets of a solicitation: type 133, code, checksum 2, reserved 4, options. Of an advertisement: type 134, code, checksum
//! 2, hop limit, flags, router lifetime 2, reachable time 4, retransmission timer 4, options. Options: type, length in units
//! of 8 octets (0 is refused), data. Reading goes through `bytes::Reader` and cannot pass the end.

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::bytes::{Full, Reader, Writer};
use crate::dhcp::MacAddress;
use crate::eth::icmpv6_checksum;
use crate::limits;

/// The group of all nodes, `ff02::1`.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of all routers, `ff02::2`.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Octets enough for [`RouterAdvertisement::write`].
pub const ADVERTISEMENT_BYTES_MAX: usize = 64;

const TYPE_SOLICITATION: u8 = 133;
const TYPE_ADVERTISEMENT: u8 = 134;
const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;
const OPTION_PREFIX: u8 = 3;
const HOP_LIMIT: u8 = 255;

/// Why a message was not taken (RFC 4861 §6.1.1, §6.1.2). Stable names for counters; never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DropReason {
    /// Shorter than its fixed part.
    #[error("message is shorter than its fixed part")]
    TooShort,
    /// Longer than [`limits::NDP_MESSAGE_BYTES_MAX`].
    #[error("message is too long")]
    TooLong,
    /// Another ICMPv6 type.
    #[error("another type")]
    OtherType,
    /// A code other than 0.
    #[error("code is not 0")]
    BadCode,
    /// A hop limit other than 255: it came through a router.
    #[error("hop limit is not 255")]
    BadHopLimit,
    /// The checksum is wrong.
    #[error("wrong checksum")]
    BadChecksum,
    /// An option of length 0 or past the end, or too many options.
    #[error("malformed option")]
    BadOption,
    /// A solicitation of the unspecified address with a source link-layer option, or an advertisement whose source is not
    /// link-local.
    #[error("source address does not fit")]
    BadSource,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 8] = [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::OtherType,
        DropReason::BadCode,
        DropReason::BadHopLimit,
        DropReason::BadChecksum,
        DropReason::BadOption,
        DropReason::BadSource,
    ];

    /// The label of the counter: lower case, stable.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::TooShort => "too_short",
            DropReason::TooLong => "too_long",
            DropReason::OtherType => "other_type",
            DropReason::BadCode => "bad_code",
            DropReason::BadHopLimit => "bad_hop_limit",
            DropReason::BadChecksum => "bad_checksum",
            DropReason::BadOption => "bad_option",
            DropReason::BadSource => "bad_source",
        }
    }
}

/// An ICMPv6 message as it came: from a raw socket with its ancillary data, or out of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Source of the packet.
    pub source: Ipv6Addr,
    /// Destination of the packet.
    pub destination: Ipv6Addr,
    /// Hop limit of the packet.
    pub hop_limit: u8,
    /// The ICMPv6 message.
    pub message: &'a [u8],
}

/// A solicitation that passed all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterSolicitation {
    /// Who asks; unspecified while it has no address.
    pub source: Ipv6Addr,
    /// Its hardware address, if it says so.
    pub source_mac: Option<MacAddress>,
}

impl RouterSolicitation {
    /// Checks a message by RFC 4861 §6.1.1.
    ///
    /// # Errors
    /// A [`DropReason`].
    pub fn parse(received: &Received<'_>) -> Result<RouterSolicitation, DropReason> {
        let mut body = checked_body(received, TYPE_SOLICITATION)?;
        body.u32().ok_or(DropReason::TooShort)?;
        let mut source_mac = None;
        walk_options(body, |kind, data| {
            if kind == OPTION_SOURCE_LINK_ADDRESS {
                source_mac = data.first_chunk::<6>().copied();
            }
        })?;
        if received.source.is_unspecified() && source_mac.is_some() {
            return Err(DropReason::BadSource);
        }
        Ok(RouterSolicitation { source: received.source, source_mac })
    }

    /// Where an advertisement in answer goes: to the asker, or to all nodes while it has no address (RFC 4861 §6.2.6).
    pub fn answer_to(&self) -> Ipv6Addr {
        if self.source.is_unspecified() { ALL_NODES } else { self.source }
    }

    /// Writes a solicitation to [`ALL_ROUTERS`] (client half, tests); gives its octets, `None` if the buffer is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        writer.put(&[TYPE_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]).ok()?;
        put_source_mac(&mut writer, self.source_mac).ok()?;
        fill_checksum(&mut writer, self.source, ALL_ROUTERS).ok()
    }
}

/// A prefix in an advertisement (RFC 4861 §4.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix; bits after its length are zero in what we write.
    pub address: Ipv6Addr,
    /// Its length, 0–128 bits.
    pub length_bits: u8,
    /// Whether addresses may be formed from it (the A flag).
    pub autonomous: bool,
    /// Whether its addresses are on the link (the L flag).
    pub on_link: bool,
    /// Valid lifetime, seconds.
    pub valid_seconds: u32,
    /// Preferred lifetime, seconds; at most the valid one.
    pub preferred_seconds: u32,
}

/// A router advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Who advertises: a link-local address.
    pub source: Ipv6Addr,
    /// Its hardware address, if it says so.
    pub source_mac: Option<MacAddress>,
    /// How long it is a default router; zero for none. Ours is always zero.
    pub router_lifetime: Duration,
    /// The M flag: addresses come by DHCPv6.
    pub managed: bool,
    /// The O flag: other things come by DHCPv6.
    pub other_config: bool,
    /// Prefixes, at most [`limits::NDP_OPTIONS_MAX`].
    pub prefixes: Vec<Prefix>,
}

impl RouterAdvertisement {
    /// Ours: no router, one prefix, no DHCPv6.
    pub fn without_router(source: Ipv6Addr, source_mac: MacAddress, prefix: Prefix) -> RouterAdvertisement {
        RouterAdvertisement {
            source,
            source_mac: Some(source_mac),
            router_lifetime: Duration::ZERO,
            managed: false,
            other_config: false,
            prefixes: vec![prefix],
        }
    }

    /// Checks and reads a message of another router by RFC 4861 §6.1.2.
    ///
    /// # Errors
    /// A [`DropReason`].
    pub fn parse(received: &Received<'_>) -> Result<RouterAdvertisement, DropReason> {
        let mut body = checked_body(received, TYPE_ADVERTISEMENT)?;
        if !received.source.is_unicast_link_local() {
            return Err(DropReason::BadSource);
        }
        let short = DropReason::TooShort;
        body.u8().ok_or(short)?;
        let flags = body.u8().ok_or(short)?;
        let router_lifetime = Duration::from_secs(body.u16().ok_or(short)?.into());
        body.take(8).ok_or(short)?;
        let (mut source_mac, mut prefixes) = (None, Vec::new());
        let mut bad_prefix = false;
        walk_options(body, |kind, data| match kind {
            OPTION_SOURCE_LINK_ADDRESS => source_mac = data.first_chunk::<6>().copied(),
            OPTION_PREFIX => match parse_prefix(data) {
                Some(prefix) => prefixes.push(prefix),
                None => bad_prefix = true,
            },
            _ => {}
        })?;
        if bad_prefix {
            return Err(DropReason::BadOption);
        }
        Ok(RouterAdvertisement {
            source: received.source,
            source_mac,
            router_lifetime,
            managed: flags & 0x80 != 0,
            other_config: flags & 0x40 != 0,
            prefixes,
        })
    }

    /// Writes the ICMPv6 message to `destination` with its checksum; gives its octets, `None` if the buffer is too small.
    /// Send it with hop limit 255.
    pub fn write(&self, destination: Ipv6Addr, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        self.put(&mut writer).ok()?;
        fill_checksum(&mut writer, self.source, destination).ok()
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let flags = if self.managed { 0x80 } else { 0 } | if self.other_config { 0x40 } else { 0 };
        let lifetime = u16::try_from(self.router_lifetime.as_secs()).unwrap_or(u16::MAX);
        // Current hop limit 64; reachable time and retransmission timer unspecified.
        writer.put(&[TYPE_ADVERTISEMENT, 0, 0, 0, 64, flags])?;
        writer.put(&lifetime.to_be_bytes())?;
        writer.zeros(8)?;
        put_source_mac(writer, self.source_mac)?;
        for prefix in &self.prefixes {
            let flags = if prefix.on_link { 0x80 } else { 0 } | if prefix.autonomous { 0x40 } else { 0 };
            writer.put(&[OPTION_PREFIX, 4, prefix.length_bits.min(128), flags])?;
            writer.put(&prefix.valid_seconds.to_be_bytes())?;
            writer.put(&prefix.preferred_seconds.to_be_bytes())?;
            writer.zeros(4)?;
            writer.put(&masked(prefix.address, prefix.length_bits).octets())?;
        }
        Ok(())
    }
}

fn masked(address: Ipv6Addr, length_bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128u32.saturating_sub(length_bits.into())).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

/// The checks that both messages share; gives what follows the checksum.
fn checked_body<'a>(received: &Received<'a>, expected: u8) -> Result<Reader<'a>, DropReason> {
    if received.message.len() > limits::NDP_MESSAGE_BYTES_MAX {
        return Err(DropReason::TooLong);
    }
    let mut reader = Reader::new(received.message);
    let kind = reader.u8().ok_or(DropReason::TooShort)?;
    let code = reader.u8().ok_or(DropReason::TooShort)?;
    reader.u16().ok_or(DropReason::TooShort)?;
    if kind != expected {
        Err(DropReason::OtherType)
    } else if received.hop_limit != HOP_LIMIT {
        Err(DropReason::BadHopLimit)
    } else if icmpv6_checksum(received.source, received.destination, received.message) != 0 {
        Err(DropReason::BadChecksum)
    } else if code != 0 {
        Err(DropReason::BadCode)
    } else {
        Ok(reader)
    }
}

/// Calls `see` with type and data of each option.
fn walk_options(mut reader: Reader<'_>, mut see: impl FnMut(u8, &[u8])) -> Result<(), DropReason> {
    let mut count = 0;
    while let Some(kind) = reader.u8() {
        let units = reader.u8().ok_or(DropReason::BadOption)?;
        let data_bytes = (usize::from(units) * 8).checked_sub(2).ok_or(DropReason::BadOption)?;
        let data = reader.take(data_bytes).ok_or(DropReason::BadOption)?;
        count += 1;
        if count > limits::NDP_OPTIONS_MAX {
            return Err(DropReason::BadOption);
        }
        see(kind, data);
    }
    Ok(())
}

fn parse_prefix(data: &[u8]) -> Option<Prefix> {
    let mut reader = Reader::new(data);
    let length_bits = reader.u8().filter(|bits| *bits <= 128)?;
    let flags = reader.u8()?;
    let valid_seconds = reader.u32()?;
    let preferred_seconds = reader.u32()?;
    reader.u32()?;
    let address = Ipv6Addr::from(*reader.array::<16>()?);
    reader.is_empty().then_some(Prefix {
        address,
        length_bits,
        autonomous: flags & 0x40 != 0,
        on_link: flags & 0x80 != 0,
        valid_seconds,
        preferred_seconds,
    })
}

fn put_source_mac(writer: &mut Writer<'_>, mac: Option<MacAddress>) -> Result<(), Full> {
    let Some(mac) = mac else { return Ok(()) };
    writer.put(&[OPTION_SOURCE_LINK_ADDRESS, 1])?;
    writer.put(&mac)
}

fn fill_checksum(writer: &mut Writer<'_>, source: Ipv6Addr, destination: Ipv6Addr) -> Result<usize, Full> {
    let checksum = icmpv6_checksum(source, destination, writer.written());
    writer.patch_u16(2, checksum)?;
    Ok(writer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const MAC: MacAddress = [2, 0, 0, 0, 0, 1];
    const PREFIX: Prefix = Prefix {
        address: Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 0),
        length_bits: 64,
        autonomous: true,
        on_link: true,
        valid_seconds: 3_600,
        preferred_seconds: 1_800,
    };

    fn received(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Received<'_> {
        Received { source, destination, hop_limit: 255, message }
    }

    #[test]
    fn advertisements_round_trip_and_make_no_router() {
        let ours = RouterAdvertisement::without_router(ROUTER, MAC, PREFIX);
        let mut buffer = [0; ADVERTISEMENT_BYTES_MAX];
        let length = ours.write(ALL_NODES, &mut buffer).unwrap();
        assert_eq!((length, &buffer[6..8]), (56, &[0, 0][..]));
        assert_eq!(RouterAdvertisement::parse(&received(ROUTER, ALL_NODES, &buffer[..length])), Ok(ours.clone()));
        let global = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(
            RouterAdvertisement::parse(&received(ROUTER, HOST, &buffer[..length])),
            Err(DropReason::BadChecksum)
        );
        let elsewhere = RouterAdvertisement { source: global, ..ours.clone() };
        let length = elsewhere.write(ALL_NODES, &mut buffer).unwrap();
        let read = RouterAdvertisement::parse(&received(global, ALL_NODES, &buffer[..length]));
        assert_eq!(read, Err(DropReason::BadSource));
        assert_eq!(ours.write(ALL_NODES, &mut [0; 55]), None);
    }

    #[test]
    fn solicitations_are_checked_by_rfc_4861_section_6_1_1() {
        let asked = RouterSolicitation { source: HOST, source_mac: Some(MAC) };
        let mut buffer = [0; 64];
        let length = asked.write(&mut buffer).unwrap();
        let good = received(HOST, ALL_ROUTERS, &buffer[..length]);
        assert_eq!(RouterSolicitation::parse(&good), Ok(asked));
        assert_eq!(asked.answer_to(), HOST);
        let parse = |received: &Received<'_>| RouterSolicitation::parse(received).unwrap_err();
        assert_eq!(parse(&Received { hop_limit: 64, ..good }), DropReason::BadHopLimit);
        assert_eq!(parse(&Received { message: &good.message[..3], ..good }), DropReason::TooShort);
        assert_eq!(parse(&Received { source: ROUTER, ..good }), DropReason::BadChecksum);
        let unnamed = RouterSolicitation { source: Ipv6Addr::UNSPECIFIED, source_mac: Some(MAC) };
        let length = unnamed.write(&mut buffer).unwrap();
        let message = received(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, &buffer[..length]);
        assert_eq!(parse(&message), DropReason::BadSource);
        let plain = RouterSolicitation { source: Ipv6Addr::UNSPECIFIED, source_mac: None };
        let length = plain.write(&mut buffer).unwrap();
        let message = received(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, &buffer[..length]);
        assert_eq!(RouterSolicitation::parse(&message).unwrap().answer_to(), ALL_NODES);
        let mut zero = vec![TYPE_SOLICITATION, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0];
        let checksum = icmpv6_checksum(HOST, ALL_ROUTERS, &zero);
        zero[2..4].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&received(HOST, ALL_ROUTERS, &zero)), DropReason::BadOption);
    }
}
