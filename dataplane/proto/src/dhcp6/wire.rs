//! DHCPv6 messages on the wire.
//!
//! Octets (RFC 8415 §8): message type 1, transaction id 3, options; an option (§21.1) is code 2, length 2, data. An identity
//! association (§21.4) is id 4, T1 4, T2 4 and options, an address in it (§21.6) address 16, preferred 4, valid 4 and options:
//! two levels, which are read by two functions, so that no message can nest deeper.
//!
//! Nothing here can panic on received bytes: reading goes through `bytes::Reader`, which knows no index.

use core::net::Ipv6Addr;

use super::{DropReason, MessageType, code};
use crate::bytes::{Full, Reader, Writer};
use crate::dhcp::MacAddress;
use crate::limits;

/// A client's identifier (RFC 8415 §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duid {
    /// From a link-layer address, DUID-LL (§11.4).
    LinkLayer(MacAddress),
    /// From a UUID, DUID-UUID (§11.5, RFC 6355).
    Uuid([u8; 16]),
}

impl Duid {
    /// Octets on the wire.
    fn len(self) -> usize {
        match self {
            Duid::LinkLayer(_) => 2 + 2 + 6,
            Duid::Uuid(_) => 2 + 16,
        }
    }

    fn put(self, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            // Type 3, hardware type Ethernet.
            Duid::LinkLayer(mac) => writer.put(&[0, 3, 0, 1]).and_then(|()| writer.put(&mac)),
            Duid::Uuid(uuid) => writer.put(&[0, 4]).and_then(|()| writer.put(&uuid)),
        }
    }

    /// Whether these octets are this identifier.
    pub fn is(self, octets: &[u8]) -> bool {
        match (self, octets) {
            (Duid::LinkLayer(mac), [0, 3, 0, 1, rest @ ..]) => rest == mac,
            (Duid::Uuid(uuid), [0, 4, rest @ ..]) => rest == uuid,
            _ => false,
        }
    }
}

/// A client's message to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// Solicit, Request, Renew or Release.
    pub message_type: MessageType,
    /// The lower 24 bits are written.
    pub transaction_id: u32,
    /// Who asks.
    pub client: Duid,
    /// The server's identifier as it was received; absent in a Solicit.
    pub server: Option<&'a [u8]>,
    /// Hundredths of a second since the exchange began.
    pub elapsed_hundredths: u16,
    /// Identity association's id (“IAID”).
    pub association_id: u32,
    /// The address that it is about; absent in a Solicit.
    pub address: Option<Ipv6Addr>,
    /// Options asked for; none leaves the option out.
    pub option_request: &'a [u16],
    /// Option 61: the firmware's architecture (RFC 4578 §2.1), written with option 62 (UNDI 3.16, as EDK2 has it).
    pub architecture: Option<u16>,
}

impl ClientMessage<'_> {
    /// Writes the message; gives its octets, `None` if the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        self.put(&mut writer).ok()?;
        Some(writer.len())
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let [_, a, b, c] = self.transaction_id.to_be_bytes();
        writer.put(&[self.message_type.code(), a, b, c])?;
        put_head(writer, code::CLIENT_ID, self.client.len())?;
        self.client.put(writer)?;
        if let Some(server) = self.server {
            put_head(writer, code::SERVER_ID, server.len())?;
            writer.put(server)?;
        }
        put_head(writer, code::ELAPSED_TIME, 2)?;
        writer.put(&self.elapsed_hundredths.to_be_bytes())?;
        // T1, T2 and lifetimes are the server's to say: zeros (RFC 8415 §18.2.1).
        let address_bytes = 4 + ADDRESS_BYTES;
        put_head(writer, code::IA_NA, ASSOCIATION_BYTES + self.address.map_or(0, |_| address_bytes))?;
        writer.put(&self.association_id.to_be_bytes())?;
        writer.zeros(8)?;
        if let Some(address) = self.address {
            put_head(writer, code::IA_ADDRESS, ADDRESS_BYTES)?;
            writer.put(&address.octets())?;
            writer.zeros(8)?;
        }
        if !self.option_request.is_empty() {
            put_head(writer, code::OPTION_REQUEST, 2 * self.option_request.len())?;
            self.option_request.iter().try_for_each(|code| writer.put(&code.to_be_bytes()))?;
        }
        if let Some(architecture) = self.architecture {
            put_head(writer, code::CLIENT_ARCHITECTURE, 2)?;
            writer.put(&architecture.to_be_bytes())?;
            put_head(writer, code::NETWORK_INTERFACE, 3)?;
            writer.put(&[1, 3, 16])?;
        }
        Ok(())
    }
}

fn put_head(writer: &mut Writer<'_>, code: u16, length: usize) -> Result<(), Full> {
    writer.put(&code.to_be_bytes())?;
    writer.put(&u16::try_from(length).map_err(|_| Full)?.to_be_bytes())
}

/// Octets of an identity association before its options.
const ASSOCIATION_BYTES: usize = 12;
/// Octets of an address before its options.
const ADDRESS_BYTES: usize = 24;

/// A status other than success, as the server gave it (RFC 8415 §21.13): 1 unspecified failure, 2 no addresses available,
/// 3 no binding, 4 not on link, 5 use multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

/// An address that a server gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The identity association's id.
    pub association_id: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// “T1”, seconds; 0 leaves it to the client.
    pub renewal_seconds: u32,
    /// “T2”, seconds.
    pub rebinding_seconds: u32,
    /// Preferred lifetime, seconds.
    pub preferred_seconds: u32,
    /// Valid lifetime, seconds; 0 takes the address away.
    pub valid_seconds: u32,
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Advertise or Reply.
    pub message_type: MessageType,
    /// 24 bits.
    pub transaction_id: u32,
    /// Whom it is for, as sent.
    pub client: &'a [u8],
    /// Who sent it.
    pub server: &'a [u8],
    /// Preference, 255 to be taken at once; 0 if absent.
    pub preference: u8,
    /// The first failure in it: of the message, of an association, or of an address.
    pub status: Option<Status>,
    /// The first address in it.
    pub lease: Option<Lease>,
    /// Option 59, if it is UTF-8 and not empty.
    pub boot_file_url: Option<&'a str>,
}

/// What is gathered while options are read.
#[derive(Default)]
struct Gathered<'a> {
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    preference: Option<u8>,
    status: Option<u16>,
    failure: Option<Status>,
    lease: Option<Lease>,
    boot_file_url: Option<&'a [u8]>,
    associations: usize,
}

impl<'a> Answer<'a> {
    /// Parses a datagram that came to a client's port.
    ///
    /// # Errors
    /// A reason to count (RFC 8415 §16.3, §16.10: what lacks an identifier is discarded).
    pub fn parse(bytes: &'a [u8]) -> Result<Answer<'a>, DropReason> {
        if bytes.len() > limits::DHCP6_MESSAGE_BYTES_MAX {
            return Err(DropReason::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let [kind, a, b, c] = *reader.array::<4>().ok_or(DropReason::TooShort)?;
        let message_type = match kind {
            2 => MessageType::Advertise,
            7 => MessageType::Reply,
            _ => return Err(DropReason::UnsupportedMessageType),
        };
        let mut gathered = Gathered::default();
        each_option(&mut reader, |code, data| gathered.take(code, data))?;
        Ok(Answer {
            message_type,
            transaction_id: u32::from_be_bytes([0, a, b, c]),
            client: gathered.client.ok_or(DropReason::NoClientId)?,
            server: gathered.server.ok_or(DropReason::NoServerId)?,
            preference: gathered.preference.unwrap_or(0),
            status: gathered.failure,
            lease: gathered.lease,
            boot_file_url: gathered
                .boot_file_url
                .and_then(|octets| core::str::from_utf8(octets).ok())
                .filter(|url| !url.is_empty()),
        })
    }
}

/// Reads options to the end and hands over each.
fn each_option<'a>(
    reader: &mut Reader<'a>,
    mut take: impl FnMut(u16, &'a [u8]) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    while !reader.is_empty() {
        let code = reader.u16().ok_or(DropReason::OptionPastEnd)?;
        let length = reader.u16().ok_or(DropReason::OptionPastEnd)?;
        take(code, reader.take(usize::from(length)).ok_or(DropReason::OptionPastEnd)?)?;
    }
    Ok(())
}

impl<'a> Gathered<'a> {
    fn take(&mut self, code: u16, data: &'a [u8]) -> Result<(), DropReason> {
        match code {
            code::CLIENT_ID => once(&mut self.client, duid(data)?),
            code::SERVER_ID => once(&mut self.server, duid(data)?),
            code::PREFERENCE => match data {
                [preference] => once(&mut self.preference, *preference),
                _ => Err(DropReason::BadOptionLength),
            },
            code::STATUS_CODE => {
                let status = status(data)?;
                once(&mut self.status, status)?;
                self.note(status);
                Ok(())
            }
            code::IA_NA => self.take_association(data),
            code::BOOT_FILE_URL => once(&mut self.boot_file_url, data),
            // What was not asked for is not looked at (RFC 8415 §16).
            _ => Ok(()),
        }
    }

    fn note(&mut self, status: u16) {
        if status != 0 {
            self.failure.get_or_insert(Status(status));
        }
    }

    fn count(&mut self) -> Result<(), DropReason> {
        self.associations += 1;
        if self.associations > limits::DHCP6_ASSOCIATIONS_MAX {
            return Err(DropReason::TooManyAssociations);
        }
        Ok(())
    }

    fn take_association(&mut self, data: &'a [u8]) -> Result<(), DropReason> {
        self.count()?;
        let mut reader = Reader::new(data);
        let bad = DropReason::BadOptionLength;
        let association_id = reader.u32().ok_or(bad)?;
        let renewal_seconds = reader.u32().ok_or(bad)?;
        let rebinding_seconds = reader.u32().ok_or(bad)?;
        // RFC 8415 §21.4: such an association is discarded, which for one that is all there is means the message.
        if renewal_seconds > rebinding_seconds && rebinding_seconds > 0 {
            return Err(DropReason::Inconsistent);
        }
        let mut statuses = None;
        each_option(&mut reader, |code, data| match code {
            code::IA_ADDRESS => {
                self.count()?;
                let (address, preferred_seconds, valid_seconds) = self.take_address(data)?;
                self.lease.get_or_insert(Lease {
                    association_id,
                    address,
                    renewal_seconds,
                    rebinding_seconds,
                    preferred_seconds,
                    valid_seconds,
                });
                Ok(())
            }
            code::STATUS_CODE => {
                let status = status(data)?;
                self.note(status);
                once(&mut statuses, status)
            }
            _ => Ok(()),
        })
    }

    fn take_address(&mut self, data: &[u8]) -> Result<(Ipv6Addr, u32, u32), DropReason> {
        let mut reader = Reader::new(data);
        let bad = DropReason::BadOptionLength;
        let address = Ipv6Addr::from(*reader.array::<16>().ok_or(bad)?);
        let preferred_seconds = reader.u32().ok_or(bad)?;
        let valid_seconds = reader.u32().ok_or(bad)?;
        // RFC 8415 §21.6.
        if preferred_seconds > valid_seconds {
            return Err(DropReason::Inconsistent);
        }
        let mut statuses = None;
        each_option(&mut reader, |code, data| match code {
            code::STATUS_CODE => {
                let status = status(data)?;
                self.note(status);
                once(&mut statuses, status)
            }
            _ => Ok(()),
        })?;
        Ok((address, preferred_seconds, valid_seconds))
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), DropReason> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DropReason::RepeatedOption),
    }
}

/// A type of 2 octets and at most 128 more (RFC 8415 §11.1).
fn duid(data: &[u8]) -> Result<&[u8], DropReason> {
    if data.len() < 3 || data.len() > limits::DUID_BYTES_MAX { Err(DropReason::BadDuid) } else { Ok(data) }
}

/// The code of a status; its text is for people and not kept.
fn status(data: &[u8]) -> Result<u16, DropReason> {
    Reader::new(data).u16().ok_or(DropReason::BadOptionLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, v6};
    use proptest::prelude::*;

    const MAC: MacAddress = [2, 0, 0, 0, 0, 7];
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

    fn option(code: u16, data: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn message(message_type: MessageType) -> ClientMessage<'static> {
        let has_server = message_type != MessageType::Solicit;
        ClientMessage {
            message_type,
            transaction_id: 0x00ab_cdef,
            client: Duid::LinkLayer(MAC),
            server: has_server.then_some(SERVER),
            elapsed_hundredths: 5,
            association_id: 77,
            address: has_server.then_some(ADDRESS),
            option_request: &[code::BOOT_FILE_URL, code::BOOT_FILE_PARAMETERS],
            architecture: Some(16),
        }
    }

    fn address(preferred: u32, valid: u32) -> Vec<u8> {
        let fixed = [&ADDRESS.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes()].concat();
        option(code::IA_ADDRESS, &fixed)
    }

    fn association(inner: &[u8]) -> Vec<u8> {
        option(code::IA_NA, &[&77u32.to_be_bytes()[..], &[0, 0, 0, 10, 0, 0, 0, 20], inner].concat())
    }

    fn answer(options: &[Vec<u8>]) -> Vec<u8> {
        let identifiers = [option(code::CLIENT_ID, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 7]), option(code::SERVER_ID, SERVER)];
        [&[7, 0xab, 0xcd, 0xef][..], &identifiers.concat(), &options.concat()].concat()
    }

    #[test]
    fn another_decoder_reads_what_we_write() {
        for kind in [MessageType::Solicit, MessageType::Request, MessageType::Renew, MessageType::Release] {
            for client in [Duid::LinkLayer(MAC), Duid::Uuid([9; 16])] {
                let mut buffer = [0; 300];
                let length = ClientMessage { client, ..message(kind) }.encode(&mut buffer).unwrap();
                let read = v6::Message::from_bytes(&buffer[..length]).unwrap();
                assert_eq!((u8::from(read.msg_type()), read.xid()), (kind.code(), [0xab, 0xcd, 0xef]));
                let Some(v6::DhcpOption::ClientId(id)) = read.opts().get(v6::OptionCode::ClientId) else { panic!() };
                assert!(client.is(id), "{id:?}");
                let Some(v6::DhcpOption::IANA(association)) = read.opts().get(v6::OptionCode::IANA) else { panic!() };
                assert_eq!(association.id, 77);
                let given = association.opts.get(v6::OptionCode::IAAddr);
                assert_eq!(given.is_some(), kind != MessageType::Solicit);
                assert_eq!(read.opts().get(v6::OptionCode::ServerId).is_some(), kind != MessageType::Solicit);
            }
        }
        assert_eq!(message(MessageType::Solicit).encode(&mut [0; 40]), None);
    }

    #[test]
    fn a_lease_and_a_boot_file_are_read() {
        let url = option(code::BOOT_FILE_URL, b"http://[2001:db8::1]/boot.efi");
        let bytes = answer(&[association(&address(100, 200)), url, option(code::PREFERENCE, &[255])]);
        let read = Answer::parse(&bytes).unwrap();
        let lease = read.lease.unwrap();
        assert_eq!((read.message_type, read.transaction_id, read.preference), (MessageType::Reply, 0x00ab_cdef, 255));
        assert_eq!((lease.association_id, lease.address, lease.valid_seconds), (77, ADDRESS, 200));
        assert_eq!((lease.renewal_seconds, lease.rebinding_seconds), (10, 20));
        assert_eq!(read.boot_file_url, Some("http://[2001:db8::1]/boot.efi"));
        assert!(Duid::LinkLayer(MAC).is(read.client) && read.server == SERVER && read.status.is_none());
    }

    #[test]
    fn failures_are_found_wherever_they_stand() {
        let failed = option(code::STATUS_CODE, &[0, 2, b'n', b'o']);
        let fine = option(code::STATUS_CODE, &[0, 0]);
        for options in [vec![failed.clone()], vec![association(&failed)], vec![fine.clone(), association(&failed)]] {
            assert_eq!(Answer::parse(&answer(&options)).unwrap().status, Some(Status(2)));
        }
        assert_eq!(Answer::parse(&answer(&[fine])).unwrap().status, None);
    }

    #[test]
    fn dhcp6_odd_messages_have_their_reason() {
        use DropReason as R;
        let refused = |options: &[Vec<u8>]| Answer::parse(&answer(options)).unwrap_err();
        assert_eq!(refused(&[option(code::SERVER_ID, SERVER)]), R::RepeatedOption);
        assert_eq!(refused(&[option(code::STATUS_CODE, &[0])]), R::BadOptionLength);
        assert_eq!(refused(&[option(code::PREFERENCE, &[0, 0])]), R::BadOptionLength);
        assert_eq!(refused(&[association(&address(2, 1))]), R::Inconsistent);
        assert_eq!(refused(&[association(&[0, 5, 0, 9])]), R::OptionPastEnd);
        assert_eq!(refused(&[option(code::IA_NA, &[0; 11])]), R::BadOptionLength);
        assert_eq!(refused(&vec![association(&[]); 17]), R::TooManyAssociations);
        assert_eq!(refused(&[association(&address(1, 2).repeat(16))]), R::TooManyAssociations);
        let bare = |kind: u8, options: &[Vec<u8>]| [&[kind, 0, 0, 1][..], &options.concat()].concat();
        assert_eq!(Answer::parse(&bare(7, &[option(code::SERVER_ID, SERVER)])), Err(R::NoClientId));
        assert_eq!(Answer::parse(&bare(7, &[option(code::CLIENT_ID, SERVER)])), Err(R::NoServerId));
        assert_eq!(Answer::parse(&bare(7, &[option(code::CLIENT_ID, &[1; 131])])), Err(R::BadDuid));
        assert_eq!(Answer::parse(&bare(7, &[option(code::CLIENT_ID, &[0, 3])])), Err(R::BadDuid));
        assert_eq!(Answer::parse(&bare(12, &[])), Err(R::UnsupportedMessageType), "relayed");
        assert_eq!(Answer::parse(&[7, 0, 0]), Err(R::TooShort));
        assert_eq!(Answer::parse(&[7; 1_281]), Err(R::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Answer::parse(&answer(&[bytes]));
        }
    }
}
