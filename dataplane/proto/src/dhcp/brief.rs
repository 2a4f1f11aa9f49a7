//! The few fields of an answer that a load generator goes by, read in place.
//!
//! [`Brief::parse`] is [`Answer::parse`](super::wire::Answer::parse) for a machine that answers a hundred thousand times a
//! second: nothing is allocated or copied, and of the options only 53 and 54 are kept. It is as strict about lengths. It does
//! not look into `file` and `sname`: a server that puts option 53 or 54 there is read by `Answer` only.

use core::net::Ipv4Addr;

use super::options::{MessageType, code};
use super::{DropReason, MacAddress, specified};
use crate::bytes::Reader;
use crate::limits;

/// What a server said, in brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief {
    /// Offer, Ack or Nak (option 53).
    pub message_type: MessageType,
    /// “xid”.
    pub transaction_id: u32,
    /// “chaddr”.
    pub client_hardware_address: MacAddress,
    /// “yiaddr”.
    pub your_ip: Ipv4Addr,
    /// Option 54.
    pub server_identifier: Option<Ipv4Addr>,
}

impl Brief {
    /// Parses a datagram that came to a client's port.
    ///
    /// # Errors
    /// A reason to count. An option 53 or 54 that is there twice has a bad length, as its joined parts have (RFC 3396 §7).
    pub fn parse(bytes: &[u8]) -> Result<Brief, DropReason> {
        if bytes.len() > limits::DHCP_MESSAGE_BYTES_MAX {
            return Err(DropReason::TooLong);
        }
        let mut reader = Reader::new(bytes);
        // Octets as RFC 2131 §2 draws them.
        let fixed = parse_fixed(&mut reader).ok_or(DropReason::TooShort)?;
        let [operation, hardware_type, hardware_length, hops] = fixed.head;
        let [first, ..] = fixed.client_hardware_address;
        if operation != 2 {
            return Err(DropReason::WrongOperation);
        }
        if hardware_type != 1 {
            return Err(DropReason::UnsupportedHardwareType);
        }
        if hardware_length != 6 {
            return Err(DropReason::BadHardwareLength);
        }
        if hops > limits::DHCP_HOPS_MAX {
            return Err(DropReason::TooManyHops);
        }
        if first & 1 == 1 || fixed.client_hardware_address == [0; 6] {
            return Err(DropReason::BadHardwareAddress);
        }
        if fixed.cookie != [99, 130, 83, 99] {
            return Err(DropReason::BadCookie);
        }
        let (mut message_type, mut server_identifier) = (None, None);
        while let Some(code) = reader.u8().filter(|code| *code != code::END) {
            if code == code::PAD {
                continue;
            }
            let length = reader.u8().ok_or(DropReason::OptionPastEnd)?;
            let data = reader.take(usize::from(length)).ok_or(DropReason::OptionPastEnd)?;
            match code {
                code::MESSAGE_TYPE => keep(&mut message_type, data)?,
                code::SERVER_IDENTIFIER => keep(&mut server_identifier, data)?,
                _ => {}
            }
        }
        let [message_type] = message_type.ok_or(DropReason::NoMessageType)?;
        let message_type = MessageType::from_code(message_type).filter(|kind| !kind.is_from_client());
        Ok(Brief {
            message_type: message_type.ok_or(DropReason::UnsupportedMessageType)?,
            transaction_id: fixed.transaction_id,
            client_hardware_address: fixed.client_hardware_address,
            your_ip: fixed.your_ip,
            server_identifier: server_identifier.map(|octets: [u8; 4]| Ipv4Addr::from(octets)).and_then(specified),
        })
    }
}

/// Takes an option's value; it may come once, with its defined length.
fn keep<const N: usize>(place: &mut Option<[u8; N]>, data: &[u8]) -> Result<(), DropReason> {
    let value = data.try_into().map_err(|_| DropReason::BadOptionLength)?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DropReason::BadOptionLength),
    }
}

struct Fixed {
    head: [u8; 4],
    transaction_id: u32,
    your_ip: Ipv4Addr,
    client_hardware_address: MacAddress,
    cookie: [u8; 4],
}

fn parse_fixed(reader: &mut Reader<'_>) -> Option<Fixed> {
    let head = *reader.array()?;
    let transaction_id = reader.u32()?;
    // secs, flags, ciaddr.
    reader.take(2 + 2 + 4)?;
    let your_ip = Ipv4Addr::from(*reader.array::<4>()?);
    // siaddr, giaddr.
    reader.take(4 + 4)?;
    let client_hardware_address = *reader.array()?;
    // The rest of chaddr, sname, file.
    reader.take(10 + 64 + 128)?;
    Some(Fixed { head, transaction_id, your_ip, client_hardware_address, cookie: *reader.array()? })
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Answer, ClientMessage};
    use super::*;

    /// An answer written by hand out of a client's message, with these options after 53.
    fn answer(message_type: MessageType, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut buffer = [0; 600];
        let message = ClientMessage {
            message_type,
            transaction_id: 7,
            seconds: 0,
            broadcast: false,
            hops: 0,
            client_ip: Ipv4Addr::UNSPECIFIED,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            client_hardware_address: [2, 0, 0, 0, 0, 9],
            options,
        };
        let length = message.encode(&mut buffer).unwrap();
        buffer[0] = 2;
        buffer[16..20].copy_from_slice(&[10, 0, 0, 9]);
        buffer[..length].to_vec()
    }

    #[test]
    fn it_says_what_the_whole_answer_says() {
        let server: &[u8] = &[10, 0, 0, 1];
        for options in [
            &[(code::SERVER_IDENTIFIER, server), (code::LEASE_SECONDS, &[0, 0, 1, 0])][..],
            &[(code::ROUTERS, server)],
            &[(code::SERVER_IDENTIFIER, &[0; 4])],
        ] {
            let bytes = answer(MessageType::Offer, options);
            let (brief, whole) = (Brief::parse(&bytes).unwrap(), Answer::parse(&bytes).unwrap());
            assert_eq!((brief.message_type, brief.transaction_id), (whole.message_type, whole.transaction_id));
            assert_eq!((brief.client_hardware_address, brief.your_ip), (whole.client_hardware_address, whole.your_ip));
            assert_eq!(brief.server_identifier, whole.server_identifier.and_then(specified));
        }
    }

    #[test]
    fn dhcp_4_it_refuses_what_the_whole_answer_refuses() {
        let server: &[u8] = &[10, 0, 0, 1];
        let good = answer(MessageType::Ack, &[(code::SERVER_IDENTIFIER, server)]);
        for at in (0..good.len()).filter(|at| !(44..236).contains(at)) {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let (brief, whole) = (Brief::parse(&bytes), Answer::parse(&bytes));
                // Other options than the two are the whole answer's to judge.
                assert!(brief.is_ok() || whole.is_err(), "octet {at} bit {bit}: {brief:?}, {whole:?}");
                if let (Ok(brief), Ok(whole)) = (brief, whole) {
                    assert_eq!(brief.your_ip, whole.your_ip);
                    assert_eq!(brief.server_identifier, whole.server_identifier.and_then(specified));
                }
            }
        }
        let twice = answer(MessageType::Ack, &[(code::SERVER_IDENTIFIER, server), (code::SERVER_IDENTIFIER, server)]);
        assert_eq!(Brief::parse(&twice), Err(DropReason::BadOptionLength));
        assert_eq!(Brief::parse(&answer(MessageType::Discover, &[])), Err(DropReason::UnsupportedMessageType));
        assert_eq!(Brief::parse(&good[..239]), Err(DropReason::TooShort));
        assert_eq!(Brief::parse(&good[..245]), Err(DropReason::OptionPastEnd));
    }
}
