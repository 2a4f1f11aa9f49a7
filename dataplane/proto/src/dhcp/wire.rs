//! DHCPv4 messages on the wire: [`Message`] (a view, lengths checked once), [`Request`] and [`Answer`] (owned values),
//! [`Reply`] and [`ClientMessage`] (what is written).
//!
//! Octets (RFC 2131 §2): op 1, htype 1, hlen 1, hops 1, xid 4, secs 2, flags 2, ciaddr 4, yiaddr 4, siaddr 4, giaddr 4,
//! chaddr 16, sname 64, file 128, cookie 4, options. Options stand in `options`, then, as option 52 says, in `file`, then in
//! `sname`; an option that comes more than once is one option whose parts are joined in that order (RFC 3396 §7).
//!
//! Nothing here can panic on received bytes: all reading goes through `bytes::Reader`, which knows no index, and every
//! number that was received is only compared or looked up.

use core::net::Ipv4Addr;
use std::borrow::Cow;

use super::options::{MessageType, code};
use super::{DropReason, MacAddress, specified};
use crate::bytes::{Full, Reader, Writer};
use crate::limits;

const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
const HARDWARE_TYPE_ETHERNET: u8 = 1;
const FLAG_BROADCAST: u16 = 0x8000;

/// Direction of a message, the field `op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// From a client (1).
    Request,
    /// From a server (2).
    Reply,
}

/// A view over a message whose lengths are checked. Options come joined from [`Message::option`].
pub struct Message<'a> {
    transaction_id: u32,
    seconds: u16,
    flags: u16,
    hops: u8,
    client_ip: Ipv4Addr,
    your_ip: Ipv4Addr,
    next_server_ip: Ipv4Addr,
    relay_agent_ip: Ipv4Addr,
    client_hardware_address: MacAddress,
    server_name: Option<&'a [u8; 64]>,
    file: Option<&'a [u8; 128]>,
    options: Options<'a>,
}

impl<'a> Message<'a> {
    /// Checks the fixed part and gathers all options.
    ///
    /// # Errors
    /// The first thing found wrong, in the order of the octets.
    pub fn parse(bytes: &'a [u8], direction: Operation) -> Result<Self, DropReason> {
        if bytes.len() > limits::DHCP_MESSAGE_BYTES_MAX {
            return Err(DropReason::TooLong);
        }
        Self::parse_fixed(Reader::new(bytes), direction).unwrap_or(Err(DropReason::TooShort))
    }

    fn parse_fixed(mut reader: Reader<'a>, direction: Operation) -> Option<Result<Self, DropReason>> {
        let operation = reader.u8()?;
        let hardware_type = reader.u8()?;
        let hardware_length = reader.u8()?;
        let hops = reader.u8()?;
        let transaction_id = reader.u32()?;
        let seconds = reader.u16()?;
        let flags = reader.u16()?;
        let client_ip = Ipv4Addr::from(*reader.array::<4>()?);
        let your_ip = Ipv4Addr::from(*reader.array::<4>()?);
        let next_server_ip = Ipv4Addr::from(*reader.array::<4>()?);
        let relay_agent_ip = Ipv4Addr::from(*reader.array::<4>()?);
        let client_hardware_address = *reader.array::<6>()?;
        reader.take(10)?;
        let server_name = reader.array::<64>()?;
        let file = reader.array::<128>()?;
        let cookie = *reader.array::<4>()?;
        let expected = match direction {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let refused = if operation != expected {
            Some(DropReason::WrongOperation)
        } else if hardware_type != HARDWARE_TYPE_ETHERNET {
            Some(DropReason::UnsupportedHardwareType)
        } else if hardware_length != 6 {
            Some(DropReason::BadHardwareLength)
        } else if hops > limits::DHCP_HOPS_MAX {
            Some(DropReason::TooManyHops)
        } else if client_hardware_address == [0; 6] || is_group(&client_hardware_address) {
            Some(DropReason::BadHardwareAddress)
        } else if cookie != MAGIC_COOKIE {
            Some(DropReason::BadCookie)
        } else {
            None
        };
        if let Some(reason) = refused {
            return Some(Err(reason));
        }
        let gathered = match Options::gather(reader.rest(), file, server_name) {
            Ok(gathered) => gathered,
            Err(reason) => return Some(Err(reason)),
        };
        Some(Ok(Message {
            transaction_id,
            seconds,
            flags,
            hops,
            client_ip,
            your_ip,
            next_server_ip,
            relay_agent_ip,
            client_hardware_address,
            server_name: (!gathered.overload.server_name).then_some(server_name),
            file: (!gathered.overload.file).then_some(file),
            options: gathered,
        }))
    }

    /// The joined data of an option, `None` if it is absent.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.find(code)
    }

    fn sized<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, DropReason> {
        self.option(code).map(|data| <[u8; N]>::try_from(data).map_err(|_| DropReason::BadOptionLength)).transpose()
    }

    fn address(&self, code: u8) -> Result<Option<Ipv4Addr>, DropReason> {
        Ok(self.sized::<4>(code)?.map(Ipv4Addr::from))
    }

    fn addresses(&self, code: u8) -> Result<Vec<Ipv4Addr>, DropReason> {
        let Some(data) = self.option(code) else { return Ok(Vec::new()) };
        let (addresses, rest) = data.as_chunks::<4>();
        if addresses.is_empty() || !rest.is_empty() {
            return Err(DropReason::BadOptionLength);
        }
        Ok(addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect())
    }

    /// An option kept as octets: absent, or 1–255 of them.
    fn opaque(&self, code: u8) -> Result<Option<Box<[u8]>>, DropReason> {
        match self.option(code) {
            None => Ok(None),
            Some(data) if data.is_empty() || data.len() > 255 => Err(DropReason::BadOptionLength),
            Some(data) => Ok(Some(data.into())),
        }
    }

    fn message_type(&self) -> Result<MessageType, DropReason> {
        let [octet] = self.sized::<1>(code::MESSAGE_TYPE)?.ok_or(DropReason::NoMessageType)?;
        MessageType::from_code(octet).ok_or(DropReason::UnsupportedMessageType)
    }
}

fn is_group(mac: &MacAddress) -> bool {
    let [first, ..] = mac;
    first & 1 == 1
}

/// Which header fields hold options (option 52).
#[derive(Clone, Copy, Default)]
struct Overload {
    file: bool,
    server_name: bool,
}

/// All options of a message, joined. At most 254 entries, found by linear search of the few that real messages have.
struct Options<'a> {
    entries: Vec<(u8, Cow<'a, [u8]>)>,
    overload: Overload,
}

impl<'a> Options<'a> {
    fn gather(options: &'a [u8], file: &'a [u8; 128], server_name: &'a [u8; 64]) -> Result<Self, DropReason> {
        // The position of each code in `entries`, so that a message of many small options costs no more than others.
        let mut positions = [None::<u8>; 256];
        let mut gathered = Options { entries: Vec::with_capacity(24), overload: Overload::default() };
        gathered.walk(options, &mut positions)?;
        let overload = match gathered.find(code::OVERLOAD) {
            None => Overload::default(),
            Some([1]) => Overload { file: true, server_name: false },
            Some([2]) => Overload { file: false, server_name: true },
            Some([3]) => Overload { file: true, server_name: true },
            Some(_) => return Err(DropReason::BadOverload),
        };
        let before = gathered.find(code::OVERLOAD).map(<[u8]>::len);
        if overload.file {
            gathered.walk(file, &mut positions)?;
        }
        if overload.server_name {
            gathered.walk(server_name, &mut positions)?;
        }
        // An option 52 inside a field that it opened would have been joined to the first one.
        if gathered.find(code::OVERLOAD).map(<[u8]>::len) != before {
            return Err(DropReason::BadOverload);
        }
        gathered.overload = overload;
        Ok(gathered)
    }

    /// Takes the options of one field up to its end option; a field may also end without one.
    fn walk(&mut self, field: &'a [u8], positions: &mut [Option<u8>; 256]) -> Result<(), DropReason> {
        let mut reader = Reader::new(field);
        while let Some(code) = reader.u8() {
            if code == code::PAD {
                continue;
            }
            if code == code::END {
                break;
            }
            let length = reader.u8().ok_or(DropReason::OptionPastEnd)?;
            let data = reader.take(usize::from(length)).ok_or(DropReason::OptionPastEnd)?;
            self.join(code, data, positions)?;
        }
        Ok(())
    }

    fn join(&mut self, code: u8, data: &'a [u8], positions: &mut [Option<u8>; 256]) -> Result<(), DropReason> {
        let Some(position) = positions.get_mut(usize::from(code)) else { return Ok(()) };
        let known = position.and_then(|at| self.entries.get_mut(usize::from(at)));
        match known {
            Some((_, joined)) => {
                if joined.len().saturating_add(data.len()) > limits::DHCP_OPTION_JOINED_BYTES_MAX {
                    return Err(DropReason::OptionTooLong);
                }
                joined.to_mut().extend_from_slice(data);
            }
            None => {
                *position = u8::try_from(self.entries.len()).ok();
                self.entries.push((code, Cow::Borrowed(data)));
            }
        }
        Ok(())
    }

    fn find(&self, code: u8) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| *known == code).map(|(_, data)| data.as_ref())
    }
}

/// What a client said, typed. All variable fields are bounded by the size of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Option 53; always one that clients send.
    pub message_type: MessageType,
    /// “xid”.
    pub transaction_id: u32,
    /// “secs”: seconds since the client began, as it says.
    pub seconds: u16,
    /// Relays passed.
    pub hops: u8,
    /// The broadcast bit of “flags”: the client cannot take unicast before it has an address.
    pub broadcast: bool,
    /// “ciaddr”: the address that the client has and can answer on; unspecified if none.
    pub client_ip: Ipv4Addr,
    /// “giaddr”: the relay that the answer goes to; unspecified if none.
    pub relay_agent_ip: Ipv4Addr,
    /// “chaddr”, never zero or a group address.
    pub client_hardware_address: MacAddress,
    /// Option 61, as sent (type octet first). It carries no authority.
    pub client_identifier: Option<Box<[u8]>>,
    /// Option 50.
    pub requested_ip: Option<Ipv4Addr>,
    /// Option 54: the server that a Request, Decline or Release is for.
    pub server_identifier: Option<Ipv4Addr>,
    /// Option 51: the lease time wished for, seconds.
    pub lease_seconds: Option<u32>,
    /// Option 55, in the client's order; empty if absent.
    pub parameter_request_list: Box<[u8]>,
    /// Option 57: octets of the largest IP datagram the client takes.
    pub message_bytes_max: Option<u16>,
    /// Option 12, only if it is letters, digits and hyphens in dotted labels (RFC 1123 §2.1); another one is ignored.
    pub host_name: Option<Box<str>>,
    /// Option 60.
    pub vendor_class: Option<Box<[u8]>>,
    /// Option 77 as sent: RFC 3004 length-prefixed strings, or, from iPXE, a bare string.
    pub user_class: Option<Box<[u8]>>,
    /// Option 93, in the client's order; empty if absent.
    pub architectures: Box<[u16]>,
    /// Option 94: type, major, minor of the network interface; present only with its defined length.
    pub network_interface: Option<[u8; 3]>,
    /// Option 97 as sent, type octet first. See [`Request::machine_uuid_bytes`] for its byte order.
    pub machine_identifier: Option<Box<[u8]>>,
    /// Option 82 as the relay sent it; echoed verbatim, never interpreted here.
    pub relay_agent_information: Option<Box<[u8]>>,
    /// Option 175 was there: iPXE or its forebears.
    pub ipxe_options: bool,
}

impl Request {
    /// Parses a datagram that came to a server's port.
    ///
    /// # Errors
    /// A reason to count; the datagram is not answered.
    pub fn parse(bytes: &[u8]) -> Result<Request, DropReason> {
        let message = Message::parse(bytes, Operation::Request)?;
        let message_type = message.message_type()?;
        if !message_type.is_from_client() {
            return Err(DropReason::UnsupportedMessageType);
        }
        let relay_agent_information = message.opaque(code::RELAY_AGENT_INFORMATION)?;
        let request = Request {
            message_type,
            transaction_id: message.transaction_id,
            seconds: message.seconds,
            hops: message.hops,
            broadcast: message.flags & FLAG_BROADCAST != 0,
            client_ip: message.client_ip,
            relay_agent_ip: message.relay_agent_ip,
            client_hardware_address: message.client_hardware_address,
            client_identifier: message.opaque(code::CLIENT_IDENTIFIER)?,
            requested_ip: message.address(code::REQUESTED_IP)?.and_then(specified),
            server_identifier: message.address(code::SERVER_IDENTIFIER)?.and_then(specified),
            lease_seconds: message.sized::<4>(code::LEASE_SECONDS)?.map(u32::from_be_bytes),
            parameter_request_list: message.opaque(code::PARAMETER_REQUEST_LIST)?.unwrap_or_default(),
            message_bytes_max: message.sized::<2>(code::MESSAGE_BYTES_MAX)?.map(u16::from_be_bytes),
            host_name: message.option(code::HOST_NAME).and_then(host_name),
            vendor_class: message.opaque(code::VENDOR_CLASS)?,
            user_class: message.opaque(code::USER_CLASS)?,
            architectures: architectures(message.option(code::ARCHITECTURE))?,
            network_interface: message.option(code::NETWORK_INTERFACE).and_then(|data| data.try_into().ok()),
            machine_identifier: message.opaque(code::MACHINE_IDENTIFIER)?,
            relay_agent_information,
            ipxe_options: message.option(code::IPXE).is_some(),
        };
        Ok(request)
    }

    /// The 16 octets of option 97 when it is a UUID (type 0, RFC 4578 §2.3).
    ///
    /// Byte order trap: firmware sends the SMBIOS octets as they are, whose first three fields are little-endian, so these
    /// octets read in order spell another UUID than `product_uuid` of Linux or `${uuid}` of iPXE.
    /// [`canonical_uuid`] swaps them; whether a given client needs that cannot be seen, so compare with both.
    pub fn machine_uuid_bytes(&self) -> Option<[u8; 16]> {
        match self.machine_identifier.as_deref()?.split_first()? {
            (0, uuid) => uuid.try_into().ok(),
            _ => None,
        }
    }

    /// Whether option 55 names this option.
    pub fn asks_for(&self, code: u8) -> bool {
        self.parameter_request_list.contains(&code)
    }

    /// Octets of the largest DHCP message (UDP payload) for this client: option 57 less the headers, at least the 576-octet
    /// datagram that every client takes, at most one Ethernet frame (RFC 2132 §9.10).
    pub fn reply_bytes_max(&self) -> usize {
        let datagram = self.message_bytes_max.map_or(0, usize::from);
        datagram.clamp(limits::DHCP_DATAGRAM_BYTES_DEFAULT, limits::ETHERNET_PAYLOAD_BYTES)
            - limits::IPV4_UDP_HEADER_BYTES
    }
}

/// Swaps the first three fields of a UUID between SMBIOS order and the order in which UUIDs are written (SMBIOS 3.4 §7.2.1).
/// It is its own inverse.
pub fn canonical_uuid(smbios: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = smbios;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn architectures(data: Option<&[u8]>) -> Result<Box<[u16]>, DropReason> {
    let Some(data) = data else { return Ok(Box::default()) };
    let (numbers, rest) = data.as_chunks::<2>();
    if numbers.is_empty() || !rest.is_empty() || numbers.len() > limits::DHCP_ARCHITECTURES_MAX {
        return Err(DropReason::BadOptionLength);
    }
    Ok(numbers.iter().map(|octets| u16::from_be_bytes(*octets)).collect())
}

/// A host name of letters, digits and hyphens; NULs at its end, which some clients send (RFC 2132 §2), are cut.
fn host_name(data: &[u8]) -> Option<Box<str>> {
    let text = core::str::from_utf8(data).ok()?.trim_end_matches('\0');
    is_host_name(text).then(|| text.into())
}

/// Whether a text is a host or domain name: labels of 1–63 letters, digits and inner hyphens, 253 octets in all
/// (RFC 1123 §2.1).
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::HOST_NAME_BYTES_MAX
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= limits::HOST_LABEL_BYTES_MAX
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// The times of a lease, seconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Option 51.
    pub lease_seconds: u32,
    /// Option 58, T1; less than T2.
    pub renewal_seconds: u32,
    /// Option 59, T2; less than the lease.
    pub rebinding_seconds: u32,
}

impl LeaseTimes {
    /// T1 and T2 as RFC 2131 §4.4.5 has them: a half and seven eighths.
    pub fn new(lease_seconds: u32) -> LeaseTimes {
        LeaseTimes {
            lease_seconds,
            renewal_seconds: lease_seconds / 2,
            rebinding_seconds: lease_seconds - lease_seconds / 8,
        }
    }
}

/// What a client is to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFile<'a> {
    /// TFTP name, path or URL. In the `file` field if it fits, and in option 67 if it does not or the client asks for it.
    pub name: &'a str,
    /// Option 66 and `sname`: the server by name or address text; `None` leaves both out.
    pub server_name: Option<&'a str>,
}

/// What PXE firmware is told about finding boot servers (option 43, PXE 2.1 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PxeDiscovery {
    /// No option 43.
    Unsaid,
    /// Sub-option 6 = 8: no discovery, load the boot file of this answer.
    UseBootFile,
}

/// What iPXE is told about ProxyDHCP (option 175, sub-option 176).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyDhcpWait {
    /// No option 175.
    Unsaid,
    /// Sub-option 176 = 1: do not wait for ProxyDHCP offers, which costs 2–3 s a boot.
    Skip,
}

/// An answer to a request: what the server decides. What follows from the request is filled in by [`Reply::encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Offer, Ack or Nak.
    pub message_type: MessageType,
    /// Option 54, and the address that a renewal goes to.
    pub server_identifier: Ipv4Addr,
    /// “yiaddr”; unspecified in a Nak and in the answer to an Inform.
    pub your_ip: Ipv4Addr,
    /// “siaddr”: where the boot file is; unspecified for none.
    pub next_server_ip: Ipv4Addr,
    /// Options 51, 58, 59; `None` in a Nak and in the answer to an Inform.
    pub lease: Option<LeaseTimes>,
    /// Option 1.
    pub subnet_mask: Option<Ipv4Addr>,
    /// Option 3.
    pub routers: &'a [Ipv4Addr],
    /// Option 6.
    pub domain_name_servers: &'a [Ipv4Addr],
    /// Option 12.
    pub host_name: Option<&'a str>,
    /// Option 15.
    pub domain_name: Option<&'a str>,
    /// Option 26, octets.
    pub mtu: Option<u16>,
    /// Option 28.
    pub broadcast_address: Option<Ipv4Addr>,
    /// Option 42.
    pub ntp_servers: &'a [Ipv4Addr],
    /// Boot file, in header fields and options 66 and 67.
    pub boot_file: Option<BootFile<'a>>,
    /// Option 60: `PXEClient` or `HTTPClient`, which the firmware wants to hear back.
    pub vendor_class: Option<&'a [u8]>,
    /// Option 43.
    pub pxe_discovery: PxeDiscovery,
    /// Option 175.
    pub proxy_dhcp_wait: ProxyDhcpWait,
    /// Option 56, the reason of a Nak.
    pub message: Option<&'a str>,
    /// Further options as (code, data of 1 to [`limits::DHCP_OPTION_JOINED_BYTES_MAX`] octets), written last and left out
    /// when there is no room.
    pub extra: &'a [(u8, &'a [u8])],
}

/// Result of [`Reply::encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Octets written at the front of the buffer.
    pub bytes: usize,
    /// Options that were wished for and had no room, also not in `file` and `sname` (never one that the client cannot boot
    /// without).
    pub omitted: u8,
}

/// Why a reply could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The options that the client cannot do without need more than its size or the buffer allows.
    #[error("required options do not fit into `{0}` bytes")]
    TooLong(usize),
    /// A field cannot be expressed: it is empty, or above [`limits::DHCP_OPTION_JOINED_BYTES_MAX`] octets.
    #[error("a field is longer than an option holds")]
    FieldTooLong,
}

impl<'a> Reply<'a> {
    /// An answer of a type with nothing in it yet.
    pub fn new(message_type: MessageType, server_identifier: Ipv4Addr) -> Reply<'a> {
        Reply {
            message_type,
            server_identifier,
            your_ip: Ipv4Addr::UNSPECIFIED,
            next_server_ip: Ipv4Addr::UNSPECIFIED,
            lease: None,
            subnet_mask: None,
            routers: &[],
            domain_name_servers: &[],
            host_name: None,
            domain_name: None,
            mtu: None,
            broadcast_address: None,
            ntp_servers: &[],
            boot_file: None,
            vendor_class: None,
            pxe_discovery: PxeDiscovery::Unsaid,
            proxy_dhcp_wait: ProxyDhcpWait::Unsaid,
            message: None,
            extra: &[],
        }
    }

    /// Writes the answer to `request` into `buffer`, which should hold [`limits::DHCP_MESSAGE_BYTES_MAX`] octets.
    ///
    /// Taken from the request: xid, secs 0, broadcast bit, ciaddr (not in a Nak), giaddr, chaddr, options 97 and 82 verbatim
    /// (82 last, RFC 3046 §2.1). Options are ordered by need: what the client cannot boot without, then what it can, each of
    /// these left out and counted if it does not fit. An option above 255 octets is written in parts (RFC 3396 §5). If options
    /// have no room, those header fields that hold no name take them (option 52). At least [`limits::DHCP_REPLY_BYTES_MIN`] octets.
    ///
    /// # Errors
    /// [`EncodeError`]; the buffer's contents are then undefined.
    pub fn encode(&self, request: &Request, buffer: &mut [u8]) -> Result<Encoded, EncodeError> {
        let plain = self.encode_with(request, buffer, Overload::default())?;
        let in_file = self.boot_file.is_none_or(|boot| boot.name.len() > limits::DHCP_FILE_FIELD_NAME_BYTES_MAX);
        let in_name = self.boot_file.is_none_or(|boot| boot.server_name.is_none());
        if plain.omitted == 0 || !(in_file || in_name) {
            return Ok(plain);
        }
        self.encode_with(request, buffer, Overload { file: in_file, server_name: in_name })
    }

    fn encode_with(&self, request: &Request, buffer: &mut [u8], overload: Overload) -> Result<Encoded, EncodeError> {
        let room = request.reply_bytes_max().min(buffer.len());
        let too_long = |Full| EncodeError::TooLong(room);
        let mut writer = Writer::new(buffer.get_mut(..room).unwrap_or_default());
        self.put_fixed(request, &mut writer).map_err(too_long)?;
        let mut fields = [Field::new(FILE_AT, overload.file), Field::new(SERVER_NAME_AT, overload.server_name)];
        let mut options = OptionWriter { writer, reserve: tail_bytes(request), omitted: 0, fields: &mut fields };
        self.put_required(request, &mut options)?;
        match (overload.file, overload.server_name) {
            (false, false) => {}
            (file, server_name) => options.require(code::OVERLOAD, &[u8::from(file) | u8::from(server_name) << 1])?,
        }
        self.put_wished(request, &mut options);
        let OptionWriter { mut writer, omitted, .. } = options;
        if let Some(information) = request.relay_agent_information.as_deref() {
            put_option(&mut writer, code::RELAY_AGENT_INFORMATION, information).map_err(too_long)?;
        }
        writer.put(&[code::END]).map_err(too_long)?;
        let padding = limits::DHCP_REPLY_BYTES_MIN.saturating_sub(writer.len()).min(writer.room());
        writer.zeros(padding).map_err(too_long)?;
        let bytes = writer.len();
        for field in &mut fields {
            field.put(buffer);
        }
        Ok(Encoded { bytes, omitted })
    }

    fn put_fixed(&self, request: &Request, writer: &mut Writer<'_>) -> Result<(), Full> {
        let nak = self.message_type == MessageType::Nak;
        // A relay must broadcast a Nak, since the client's idea of its address is what is refused (RFC 2131 §4.3.2).
        let relayed = !request.relay_agent_ip.is_unspecified();
        let flags = if request.broadcast || (nak && relayed) { FLAG_BROADCAST } else { 0 };
        let client_ip = if nak { Ipv4Addr::UNSPECIFIED } else { request.client_ip };
        put_header(
            writer,
            &Header {
                operation: 2,
                hops: 0,
                transaction_id: request.transaction_id,
                seconds: 0,
                flags,
                client_ip,
                your_ip: self.your_ip,
                next_server_ip: self.next_server_ip,
                relay_agent_ip: request.relay_agent_ip,
                client_hardware_address: request.client_hardware_address,
                server_name: self.boot_file.and_then(|boot| boot.server_name).unwrap_or(""),
                file: self.boot_file.map_or("", |boot| boot.name),
            },
        )
    }

    fn put_required(&self, request: &Request, options: &mut OptionWriter<'_>) -> Result<(), EncodeError> {
        options.require(code::MESSAGE_TYPE, &[self.message_type.code()])?;
        options.require(code::SERVER_IDENTIFIER, &self.server_identifier.octets())?;
        if let Some(lease) = self.lease {
            options.require(code::LEASE_SECONDS, &lease.lease_seconds.to_be_bytes())?;
            options.require(code::RENEWAL_SECONDS, &lease.renewal_seconds.to_be_bytes())?;
            options.require(code::REBINDING_SECONDS, &lease.rebinding_seconds.to_be_bytes())?;
        }
        if let Some(mask) = self.subnet_mask {
            options.require(code::SUBNET_MASK, &mask.octets())?;
        }
        if let Some(class) = self.vendor_class {
            options.require(code::VENDOR_CLASS, class)?;
        }
        if self.pxe_discovery == PxeDiscovery::UseBootFile {
            // Discovery control, length 1, bit 3: use the boot file name. Then the sub-options' own end.
            options.require(code::VENDOR_SPECIFIC, &[6, 1, 8, 255])?;
        }
        if self.proxy_dhcp_wait == ProxyDhcpWait::Skip {
            options.require(code::IPXE, &[176, 1, 1])?;
        }
        if let Some(boot) = self.boot_file {
            let in_header = boot.name.len() <= limits::DHCP_FILE_FIELD_NAME_BYTES_MAX;
            if !in_header || request.asks_for(code::BOOT_FILE) {
                options.require(code::BOOT_FILE, boot.name.as_bytes())?;
            }
        }
        match request.machine_identifier.as_deref() {
            Some(identifier) => options.require(code::MACHINE_IDENTIFIER, identifier),
            None => Ok(()),
        }
    }

    fn put_wished(&self, request: &Request, options: &mut OptionWriter<'_>) {
        options.wish_addresses(code::ROUTERS, self.routers);
        options.wish_addresses(code::DOMAIN_NAME_SERVERS, self.domain_name_servers);
        if let Some(name) = self.boot_file.and_then(|boot| boot.server_name)
            && request.asks_for(code::TFTP_SERVER_NAME)
        {
            options.wish(code::TFTP_SERVER_NAME, name.as_bytes());
        }
        if let Some(name) = self.host_name {
            options.wish(code::HOST_NAME, name.as_bytes());
        }
        if let Some(name) = self.domain_name {
            options.wish(code::DOMAIN_NAME, name.as_bytes());
        }
        if let Some(mtu) = self.mtu {
            options.wish(code::INTERFACE_MTU, &mtu.to_be_bytes());
        }
        if let Some(address) = self.broadcast_address {
            options.wish(code::BROADCAST_ADDRESS, &address.octets());
        }
        options.wish_addresses(code::NTP_SERVERS, self.ntp_servers);
        if let Some(text) = self.message {
            options.wish(code::MESSAGE, text.as_bytes());
        }
        for (code, data) in self.extra {
            options.wish(*code, data);
        }
    }
}

/// Octets that option 82 and the end option will need.
fn tail_bytes(request: &Request) -> usize {
    1 + request.relay_agent_information.as_deref().map_or(0, |information| 2 + information.len())
}

/// Where `sname` and `file` stand in a message, and how long they are.
const SERVER_NAME_AT: (usize, usize) = (44, 64);
const FILE_AT: (usize, usize) = (108, 128);

/// A header field that takes options, if option 52 says so.
struct Field {
    at: usize,
    bytes_max: usize,
    options: Vec<u8>,
}

impl Field {
    fn new((at, bytes_max): (usize, usize), is_open: bool) -> Field {
        Field { at, bytes_max: if is_open { bytes_max } else { 0 }, options: Vec::new() }
    }

    /// Takes an option whole, with its end option still to come.
    fn take(&mut self, code: u8, data: &[u8]) -> bool {
        let Ok(length) = u8::try_from(data.len()) else { return false };
        let fits = self.options.len() + 2 + data.len() < self.bytes_max;
        if fits {
            self.options.extend([code, length]);
            self.options.extend(data);
        }
        fits
    }

    fn put(&mut self, message: &mut [u8]) {
        if self.bytes_max > 0 {
            self.options.push(code::END);
            if let Some(field) = message.get_mut(self.at..self.at + self.options.len()) {
                field.copy_from_slice(&self.options);
            }
        }
    }
}

/// Writes options while keeping room for those that come last.
struct OptionWriter<'a> {
    writer: Writer<'a>,
    reserve: usize,
    omitted: u8,
    fields: &'a mut [Field; 2],
}

impl OptionWriter<'_> {
    fn require(&mut self, code: u8, data: &[u8]) -> Result<(), EncodeError> {
        if data.is_empty() || data.len() > limits::DHCP_OPTION_JOINED_BYTES_MAX {
            return Err(EncodeError::FieldTooLong);
        }
        if self.writer.room() < 2 * data.len().div_ceil(255) + data.len() + self.reserve {
            return Err(EncodeError::TooLong(self.writer.len() + self.writer.room()));
        }
        let mut parts = data.chunks(255);
        parts.try_for_each(|part| put_option(&mut self.writer, code, part)).map_err(|Full| EncodeError::FieldTooLong)
    }

    fn wish(&mut self, code: u8, data: &[u8]) {
        if self.require(code, data).is_err() && !self.fields.iter_mut().any(|field| field.take(code, data)) {
            self.omitted = self.omitted.saturating_add(1);
        }
    }

    fn wish_addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        if !addresses.is_empty() {
            let octets: Vec<u8> = addresses.iter().flat_map(Ipv4Addr::octets).collect();
            self.wish(code, &octets);
        }
    }
}

fn put_option(writer: &mut Writer<'_>, code: u8, data: &[u8]) -> Result<(), Full> {
    let length = u8::try_from(data.len()).map_err(|_| Full)?;
    if writer.room() < data.len() + 2 {
        return Err(Full);
    }
    writer.put(&[code, length])?;
    writer.put(data)
}

/// The fixed part of a message to write.
struct Header<'a> {
    operation: u8,
    hops: u8,
    transaction_id: u32,
    seconds: u16,
    flags: u16,
    client_ip: Ipv4Addr,
    your_ip: Ipv4Addr,
    next_server_ip: Ipv4Addr,
    relay_agent_ip: Ipv4Addr,
    client_hardware_address: MacAddress,
    server_name: &'a str,
    file: &'a str,
}

fn put_header(writer: &mut Writer<'_>, header: &Header<'_>) -> Result<(), Full> {
    writer.put(&[header.operation, HARDWARE_TYPE_ETHERNET, 6, header.hops])?;
    writer.put(&header.transaction_id.to_be_bytes())?;
    writer.put(&header.seconds.to_be_bytes())?;
    writer.put(&header.flags.to_be_bytes())?;
    for address in [header.client_ip, header.your_ip, header.next_server_ip, header.relay_agent_ip] {
        writer.put(&address.octets())?;
    }
    writer.put(&header.client_hardware_address)?;
    writer.zeros(10)?;
    put_text_field::<64>(writer, header.server_name)?;
    put_text_field::<128>(writer, header.file)?;
    writer.put(&MAGIC_COOKIE)
}

/// A text with at least one NUL after it; one that does not fit is left out (an option carries it then).
fn put_text_field<const N: usize>(writer: &mut Writer<'_>, text: &str) -> Result<(), Full> {
    let text = if text.len() < N { text.as_bytes() } else { &[] };
    writer.put(text)?;
    writer.zeros(N - text.len())
}

/// What a server said, typed (client half).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Offer, Ack or Nak.
    pub message_type: MessageType,
    /// “xid”.
    pub transaction_id: u32,
    /// “chaddr”.
    pub client_hardware_address: MacAddress,
    /// The broadcast bit of “flags”.
    pub broadcast: bool,
    /// “ciaddr”.
    pub client_ip: Ipv4Addr,
    /// “yiaddr”.
    pub your_ip: Ipv4Addr,
    /// “siaddr”.
    pub next_server_ip: Ipv4Addr,
    /// “giaddr”.
    pub relay_agent_ip: Ipv4Addr,
    /// Option 54.
    pub server_identifier: Option<Ipv4Addr>,
    /// Option 51, seconds.
    pub lease_seconds: Option<u32>,
    /// Option 58, seconds.
    pub renewal_seconds: Option<u32>,
    /// Option 59, seconds.
    pub rebinding_seconds: Option<u32>,
    /// Option 1.
    pub subnet_mask: Option<Ipv4Addr>,
    /// Option 3.
    pub routers: Vec<Ipv4Addr>,
    /// Option 6.
    pub domain_name_servers: Vec<Ipv4Addr>,
    /// Option 12, if it is a host name.
    pub host_name: Option<Box<str>>,
    /// Option 67, else the `file` field, as text without NULs; `None` if empty or not UTF-8.
    pub boot_file: Option<Box<str>>,
    /// Option 66, else the `sname` field, like the boot file.
    pub server_name: Option<Box<str>>,
    /// Option 60.
    pub vendor_class: Option<Box<[u8]>>,
    /// Option 43.
    pub vendor_specific: Option<Box<[u8]>>,
    /// Option 97 as echoed.
    pub machine_identifier: Option<Box<[u8]>>,
    /// Option 82 as echoed to a relay.
    pub relay_agent_information: Option<Box<[u8]>>,
    /// Option 175, sub-option 176, is 1.
    pub proxy_dhcp_wait: ProxyDhcpWait,
}

impl Answer {
    /// Parses a datagram that came to a client's port (or, for a relay, to its own).
    ///
    /// # Errors
    /// A reason to count.
    pub fn parse(bytes: &[u8]) -> Result<Answer, DropReason> {
        let message = Message::parse(bytes, Operation::Reply)?;
        let message_type = message.message_type()?;
        if message_type.is_from_client() {
            return Err(DropReason::UnsupportedMessageType);
        }
        let seconds = |code| Ok::<_, DropReason>(message.sized::<4>(code)?.map(u32::from_be_bytes));
        let text = |code, field: Option<&[u8]>| {
            let octets = message.option(code).or(field)?;
            let octets = octets.split(|octet| *octet == 0).next()?;
            core::str::from_utf8(octets).ok().filter(|text| !text.is_empty()).map(Box::from)
        };
        Ok(Answer {
            message_type,
            transaction_id: message.transaction_id,
            client_hardware_address: message.client_hardware_address,
            broadcast: message.flags & FLAG_BROADCAST != 0,
            client_ip: message.client_ip,
            your_ip: message.your_ip,
            next_server_ip: message.next_server_ip,
            relay_agent_ip: message.relay_agent_ip,
            server_identifier: message.address(code::SERVER_IDENTIFIER)?,
            lease_seconds: seconds(code::LEASE_SECONDS)?,
            renewal_seconds: seconds(code::RENEWAL_SECONDS)?,
            rebinding_seconds: seconds(code::REBINDING_SECONDS)?,
            subnet_mask: message.address(code::SUBNET_MASK)?,
            routers: message.addresses(code::ROUTERS)?,
            domain_name_servers: message.addresses(code::DOMAIN_NAME_SERVERS)?,
            host_name: message.option(code::HOST_NAME).and_then(host_name),
            boot_file: text(code::BOOT_FILE, message.file.map(<[u8; 128]>::as_slice)),
            server_name: text(code::TFTP_SERVER_NAME, message.server_name.map(<[u8; 64]>::as_slice)),
            vendor_class: message.opaque(code::VENDOR_CLASS)?,
            vendor_specific: message.opaque(code::VENDOR_SPECIFIC)?,
            machine_identifier: message.opaque(code::MACHINE_IDENTIFIER)?,
            relay_agent_information: message.opaque(code::RELAY_AGENT_INFORMATION)?,
            proxy_dhcp_wait: message.option(code::IPXE).map_or(ProxyDhcpWait::Unsaid, proxy_dhcp_wait),
        })
    }
}

/// Looks for sub-option 176 in the encapsulated options of option 175; a list that lies about its lengths says nothing.
fn proxy_dhcp_wait(data: &[u8]) -> ProxyDhcpWait {
    let mut reader = Reader::new(data);
    while let Some(code) = reader.u8() {
        let Some(value) = reader.u8().and_then(|length| reader.take(usize::from(length))) else { break };
        if code == 176 && value == [1] {
            return ProxyDhcpWait::Skip;
        }
    }
    ProxyDhcpWait::Unsaid
}

/// A client's message to write (client half, tests, vectors).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// Option 53, written first.
    pub message_type: MessageType,
    /// “xid”.
    pub transaction_id: u32,
    /// “secs”.
    pub seconds: u16,
    /// The broadcast bit.
    pub broadcast: bool,
    /// “hops”, for a simulated relay.
    pub hops: u8,
    /// “ciaddr”.
    pub client_ip: Ipv4Addr,
    /// “giaddr”, for a simulated relay.
    pub relay_agent_ip: Ipv4Addr,
    /// “chaddr”.
    pub client_hardware_address: MacAddress,
    /// Options after 53, in order; data above 255 octets is split (RFC 3396 §5).
    pub options: &'a [(u8, &'a [u8])],
}

impl ClientMessage<'_> {
    /// Writes the message, padded to the BOOTP minimum; gives its octets.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let room = buffer.len();
        self.put(&mut Writer::new(buffer)).map_err(|Full| EncodeError::TooLong(room))
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<usize, Full> {
        put_header(
            writer,
            &Header {
                operation: 1,
                hops: self.hops,
                transaction_id: self.transaction_id,
                seconds: self.seconds,
                flags: if self.broadcast { FLAG_BROADCAST } else { 0 },
                client_ip: self.client_ip,
                your_ip: Ipv4Addr::UNSPECIFIED,
                next_server_ip: Ipv4Addr::UNSPECIFIED,
                relay_agent_ip: self.relay_agent_ip,
                client_hardware_address: self.client_hardware_address,
                server_name: "",
                file: "",
            },
        )?;
        put_option(writer, code::MESSAGE_TYPE, &[self.message_type.code()])?;
        for (code, data) in self.options {
            if data.is_empty() {
                put_option(writer, *code, data)?;
            }
            for part in data.chunks(255) {
                put_option(writer, *code, part)?;
            }
        }
        writer.put(&[code::END])?;
        writer.zeros(limits::DHCP_REPLY_BYTES_MIN.saturating_sub(writer.len()))?;
        Ok(writer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::Decodable;
    use proptest::prelude::*;

    const MAC: MacAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn message<'a>(options: &'a [(u8, &'a [u8])]) -> Vec<u8> {
        let mut buffer = [0; 1_472];
        let length = ClientMessage {
            message_type: MessageType::Discover,
            transaction_id: 7,
            seconds: 4,
            broadcast: false,
            hops: 0,
            client_ip: Ipv4Addr::UNSPECIFIED,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            client_hardware_address: MAC,
            options,
        }
        .encode(&mut buffer)
        .unwrap();
        buffer[..length].to_vec()
    }

    fn with_byte(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = message(&[]);
        bytes[at] = value;
        bytes
    }

    #[test]
    fn dhcp_4_fixed_part_is_checked() {
        assert_eq!(Request::parse(&message(&[])[..239]), Err(DropReason::TooShort));
        assert_eq!(Request::parse(&[0; 1_473]), Err(DropReason::TooLong));
        assert_eq!(Request::parse(&with_byte(0, 2)), Err(DropReason::WrongOperation));
        assert_eq!(Request::parse(&with_byte(1, 6)), Err(DropReason::UnsupportedHardwareType));
        assert_eq!(Request::parse(&with_byte(2, 16)), Err(DropReason::BadHardwareLength));
        assert!(Request::parse(&with_byte(3, 16)).is_ok());
        assert_eq!(Request::parse(&with_byte(3, 17)), Err(DropReason::TooManyHops));
        assert_eq!(Request::parse(&with_byte(28, 0x53)), Err(DropReason::BadHardwareAddress));
        assert_eq!(Request::parse(&with_byte(239, 0)), Err(DropReason::BadCookie));
        assert_eq!(Request::parse(&with_byte(242, 0)), Err(DropReason::UnsupportedMessageType));
        assert_eq!(Request::parse(&with_byte(242, 2)), Err(DropReason::UnsupportedMessageType));
        assert_eq!(Request::parse(&with_byte(240, 255)), Err(DropReason::NoMessageType));
    }

    #[test]
    fn dhcp_4_option_past_the_end_is_refused_and_not_cut() {
        let mut bytes = message(&[]);
        bytes.truncate(243);
        bytes.extend([12, 5, b'n', b'o']);
        assert_eq!(Request::parse(&bytes), Err(DropReason::OptionPastEnd));
        bytes.truncate(244);
        assert_eq!(Request::parse(&bytes), Err(DropReason::OptionPastEnd));
    }

    #[test]
    fn dhcp_4_repeated_options_are_joined() {
        // RFC 3396 §7: parts in the order of their appearance.
        let request = Request::parse(&message(&[(60, b"PXE"), (12, b"n1"), (60, b"Client")])).unwrap();
        assert_eq!(request.vendor_class.as_deref(), Some(&b"PXEClient"[..]));
        assert_eq!(request.host_name.as_deref(), Some("n1"));
        assert_eq!(Request::parse(&message(&[(53, &[1])])), Err(DropReason::BadOptionLength));
        let parts = [0; 1_025];
        assert!(Request::parse(&message(&[(224, &parts[1..])])).is_ok());
        assert_eq!(Request::parse(&message(&[(224, &parts)])), Err(DropReason::OptionTooLong));
    }

    #[test]
    fn dhcp_4_overload_is_followed_once() {
        let mut bytes = message(&[(52, &[3]), (12, b"a")]);
        bytes[44..48].copy_from_slice(&[12, 1, b'c', 255]); // sname comes after file
        bytes[108..112].copy_from_slice(&[12, 1, b'b', 255]);
        assert_eq!(Request::parse(&bytes).unwrap().host_name.as_deref(), Some("abc"));
        bytes[108..112].copy_from_slice(&[52, 1, 1, 255]);
        assert_eq!(Request::parse(&bytes), Err(DropReason::BadOverload));
        assert_eq!(Request::parse(&message(&[(52, &[4])])), Err(DropReason::BadOverload));
        assert_eq!(Request::parse(&message(&[(52, &[1]), (52, &[1])])), Err(DropReason::BadOverload));
        // File and sname are plain text and not looked at when option 52 does not open them.
        let mut plain = message(&[]);
        plain[108..112].copy_from_slice(&[12, 200, 1, 1]);
        assert_eq!(Request::parse(&plain).unwrap().host_name, None);
    }

    #[test]
    fn host_names_are_letters_digits_hyphens() {
        for (text, good) in
            [("n1", true), ("a.b-c", true), ("", false), ("-a", false), ("a-", false), ("a..b", false), ("a b", false)]
        {
            assert_eq!(is_host_name(text), good, "{text}");
        }
        assert!(!is_host_name(&"a".repeat(64)));
        assert!(is_host_name(&"a".repeat(63)));
        let request = Request::parse(&message(&[(12, b"node\0")])).unwrap();
        assert_eq!(request.host_name.as_deref(), Some("node"));
        assert_eq!(Request::parse(&message(&[(12, b"$(id)")])).unwrap().host_name, None);
    }

    const ROUTERS: &[Ipv4Addr] = &[Ipv4Addr::new(10, 0, 0, 1)];
    const NAME_SERVERS: &[Ipv4Addr] = &[Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    const NTP_SERVERS: &[Ipv4Addr] = &[Ipv4Addr::new(10, 0, 0, 3)];

    fn full_reply<'a>() -> Reply<'a> {
        Reply {
            your_ip: Ipv4Addr::new(10, 0, 0, 9),
            next_server_ip: Ipv4Addr::new(10, 0, 0, 1),
            lease: Some(LeaseTimes::new(600)),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            routers: ROUTERS,
            domain_name_servers: NAME_SERVERS,
            host_name: Some("n1"),
            domain_name: Some("example.test"),
            mtu: Some(9_000),
            broadcast_address: Some(Ipv4Addr::new(10, 0, 0, 255)),
            ntp_servers: NTP_SERVERS,
            boot_file: Some(BootFile { name: "snponly.efi", server_name: Some("10.0.0.1") }),
            vendor_class: Some(b"PXEClient"),
            pxe_discovery: PxeDiscovery::UseBootFile,
            proxy_dhcp_wait: ProxyDhcpWait::Skip,
            ..Reply::new(MessageType::Offer, Ipv4Addr::new(10, 0, 0, 1))
        }
    }

    #[test]
    fn another_decoder_reads_our_reply() {
        let uuid = [&[0u8][..], &[7; 16]].concat();
        let bytes = message(&[(55, &[1, 3, 6, 66, 67]), (97, &uuid), (82, b"\x01\x03dn0")]);
        let request = Request::parse(&bytes).unwrap();
        let mut buffer = [0; 1_472];
        let encoded = full_reply().encode(&request, &mut buffer).unwrap();
        assert_eq!(encoded.omitted, 0);
        let bytes = &buffer[..encoded.bytes];
        let other = dhcproto::v4::Message::decode(&mut dhcproto::Decoder::new(bytes)).unwrap();
        assert_eq!(other.yiaddr(), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(other.fname(), Some(&b"snponly.efi\0"[..]));
        use dhcproto::v4::{DhcpOption, OptionCode};
        assert_eq!(other.opts().msg_type(), Some(dhcproto::v4::MessageType::Offer));
        assert_eq!(other.opts().get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(600)));
        assert_eq!(other.opts().get(OptionCode::Rebinding), Some(&DhcpOption::Rebinding(525)));
        assert_eq!(other.opts().get(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(9_000)));
        assert_eq!(
            other.opts().get(OptionCode::ClassIdentifier),
            Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
        );
        // Option 82 comes last and verbatim.
        let end = bytes.iter().rposition(|octet| *octet == 255).unwrap();
        assert_eq!(&bytes[end - 7..end], b"\x52\x05\x01\x03dn0");
        let answer = Answer::parse(bytes).unwrap();
        assert_eq!(answer.proxy_dhcp_wait, ProxyDhcpWait::Skip);
        assert_eq!(answer.machine_identifier.as_deref(), Some(&uuid[..]));
        assert_eq!(answer.boot_file.as_deref(), Some("snponly.efi"));
    }

    #[test]
    fn dhcp_4_reply_keeps_to_the_clients_size() {
        let name = format!("http://10.0.0.1:5248/{}", "x".repeat(180));
        let extra_data = [b'x'; 200];
        let extra: [(u8, &[u8]); 3] = [(224, &extra_data), (225, &extra_data), (226, &extra_data)];
        let reply =
            Reply { boot_file: Some(BootFile { name: &name, server_name: None }), extra: &extra, ..full_reply() };
        for (size, limit) in [(None, 548), (Some(300u16), 548), (Some(1_472), 1_444), (Some(65_280), 1_472)] {
            let octets = size.map(u16::to_be_bytes);
            let options: Vec<(u8, &[u8])> = octets.iter().map(|octets| (57, &octets[..])).collect();
            let request = Request::parse(&message(&options)).unwrap();
            assert_eq!(request.reply_bytes_max(), limit);
            let mut buffer = [0; 2_000];
            let encoded = reply.encode(&request, &mut buffer).unwrap();
            assert!(encoded.bytes <= limit);
            assert_eq!(encoded.omitted > 0, limit == 548);
            assert_eq!(Answer::parse(&buffer[..encoded.bytes]).unwrap().boot_file.as_deref(), Some(&name[..]));
        }
        let request = Request::parse(&message(&[])).unwrap();
        assert!(matches!(reply.encode(&request, &mut [0; 400]), Err(EncodeError::TooLong(400))));
        let small = Reply::new(MessageType::Nak, Ipv4Addr::LOCALHOST).encode(&request, &mut [0; 1_472]).unwrap();
        assert_eq!(small.bytes, limits::DHCP_REPLY_BYTES_MIN);
    }

    #[test]
    fn what_has_no_room_goes_into_header_fields_and_long_options_into_parts() {
        use dhcproto::v4::{DhcpOption, OptionCode};
        let request = Request::parse(&message(&[])).unwrap();
        let data = [b'x'; 110];
        let extra: [(u8, &[u8]); 4] = [(224, &data), (225, &data), (226, &data[..50]), (227, &data[..50])];
        let reply = Reply { boot_file: None, extra: &extra, ..full_reply() };
        let mut buffer = [0; 1_472];
        let encoded = reply.encode(&request, &mut buffer).unwrap();
        assert_eq!((encoded.omitted, encoded.bytes <= 548), (0, true));
        let mut message = Message::parse(&buffer[..encoded.bytes], Operation::Reply).unwrap();
        for (code, data) in extra {
            assert_eq!(message.option(code), Some(data), "{code}");
        }
        assert_eq!((message.option(52), message.file.is_none()), (Some(&[3][..]), true));
        let named = Reply { boot_file: Some(BootFile { name: "a", server_name: Some("b") }), ..reply };
        let encoded = named.encode(&request, &mut buffer).unwrap();
        assert!(encoded.omitted > 0, "the fields are taken");
        message = Message::parse(&buffer[..encoded.bytes], Operation::Reply).unwrap();
        assert_eq!(message.option(52), None);

        let size = 1_500u16.to_be_bytes();
        let request = Request::parse(&self::message(&[(57, &size)])).unwrap();
        let long = [7; 600];
        let reply = Reply { extra: &[(224, &long)], ..full_reply() };
        let encoded = reply.encode(&request, &mut buffer).unwrap();
        let other = dhcproto::v4::Message::decode(&mut dhcproto::Decoder::new(&buffer[..encoded.bytes])).unwrap();
        assert!(
            other.opts().get(OptionCode::Unknown(224)).is_some_and(|option| matches!(option, DhcpOption::Unknown(_)))
        );
        let message = Message::parse(&buffer[..encoded.bytes], Operation::Reply).unwrap();
        assert_eq!(message.option(224), Some(&long[..]), "its three parts are one");
    }

    #[test]
    fn uuid_order_swaps_both_ways() {
        // The pair that firmware and Linux showed for one machine.
        let smbios = [0x18, 0x28, 0x3f, 0x60, 0x65, 0x43, 0xc5, 0x4a, 1, 2, 3, 4, 5, 6, 7, 8];
        let canonical = canonical_uuid(smbios);
        assert_eq!(canonical[..8], [0x60, 0x3f, 0x28, 0x18, 0x43, 0x65, 0x4a, 0xc5]);
        assert_eq!(canonical_uuid(canonical), smbios);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Request::parse(&bytes);
            let _ = Answer::parse(&bytes);
        }

        #[test]
        fn requests_round_trip(
            xid in any::<u32>(), secs in any::<u16>(), broadcast in any::<bool>(), ip in any::<u32>(),
            class in proptest::collection::vec(any::<u8>(), 1..255), list in proptest::collection::vec(1u8..255, 1..100),
        ) {
            let mut buffer = [0; 1_472];
            let written = ClientMessage {
                message_type: MessageType::Request, transaction_id: xid, seconds: secs, broadcast, hops: 1,
                client_ip: Ipv4Addr::from(ip), relay_agent_ip: Ipv4Addr::LOCALHOST, client_hardware_address: MAC,
                options: &[(60, &class), (55, &list)],
            };
            let length = written.encode(&mut buffer).unwrap();
            let request = Request::parse(&buffer[..length]).unwrap();
            prop_assert_eq!(request.transaction_id, xid);
            prop_assert_eq!(request.seconds, secs);
            prop_assert_eq!(request.broadcast, broadcast);
            prop_assert_eq!(request.client_ip, Ipv4Addr::from(ip));
            prop_assert_eq!(request.vendor_class.as_deref(), Some(&class[..]));
            prop_assert_eq!(&request.parameter_request_list[..], &list[..]);
        }
    }
}
