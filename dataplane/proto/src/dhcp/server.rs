//! The server half on the level of messages: what a request is about, and where its answer goes. Who gets which address is
//! the engine's decision.

use core::net::{Ipv4Addr, SocketAddrV4};

use super::options::MessageType;
use super::wire::Request;
use super::{CLIENT_PORT, DropReason, MacAddress, SERVER_PORT, specified};

/// How a request reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To one of our own addresses.
    Unicast,
    /// To a broadcast address.
    Broadcast,
}

/// What a client wants, with exactly the fields that count for it (RFC 2131 §4.3 and table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Discover: any address, `requested` preferred.
    Discover {
        /// Option 50.
        requested: Option<Ipv4Addr>,
    },
    /// Request in state SELECTING: takes the offer of `server`. Another server's name means that our offer is declined.
    Select {
        /// Option 54.
        server: Ipv4Addr,
        /// Option 50: the address offered.
        requested: Ipv4Addr,
    },
    /// Request in state INIT-REBOOT: confirms an address from an earlier boot. Silence unless we know the client or know
    /// that it is on the wrong network (RFC 2131 §4.3.2).
    Reboot {
        /// Option 50.
        requested: Ipv4Addr,
    },
    /// Request in state RENEWING: extends the lease; came by unicast.
    Renew {
        /// “ciaddr”.
        client_ip: Ipv4Addr,
    },
    /// Request in state REBINDING: as renewing, to any server, by broadcast.
    Rebind {
        /// “ciaddr”.
        client_ip: Ipv4Addr,
    },
    /// Decline: the address is in use by somebody else. Never answered.
    Decline {
        /// Option 54.
        server: Ipv4Addr,
        /// Option 50.
        address: Ipv4Addr,
    },
    /// Release: the address is given back. Never answered.
    Release {
        /// Option 54; some clients leave it out.
        server: Option<Ipv4Addr>,
        /// “ciaddr”.
        client_ip: Ipv4Addr,
    },
    /// Inform: has an address, wants options; the Ack carries neither address nor lease (RFC 2131 §4.3.5).
    Inform {
        /// “ciaddr”.
        client_ip: Ipv4Addr,
    },
}

/// Reads the intent out of a request.
///
/// Renewing and rebinding differ only by delivery. A relayed message counts as broadcast: relays forward only those.
///
/// # Errors
/// [`DropReason::Inconsistent`] when the fields that RFC 2131 table 5 requires are not there, or contradict each other.
pub fn intent(request: &Request, delivery: Delivery) -> Result<Intent, DropReason> {
    let client_ip = specified(request.client_ip);
    match request.message_type {
        MessageType::Discover => Ok(Intent::Discover { requested: request.requested_ip }),
        MessageType::Request => match (request.server_identifier, request.requested_ip, client_ip) {
            (Some(server), Some(requested), None) => Ok(Intent::Select { server, requested }),
            (None, Some(requested), None) => Ok(Intent::Reboot { requested }),
            // Some clients name the server when renewing; it is ignored, as the address decides.
            (_, None, Some(client_ip)) => {
                let direct = delivery == Delivery::Unicast && request.relay_agent_ip.is_unspecified();
                Ok(if direct { Intent::Renew { client_ip } } else { Intent::Rebind { client_ip } })
            }
            (_, None, None) | (_, Some(_), Some(_)) => Err(DropReason::Inconsistent),
        },
        MessageType::Decline => match (request.server_identifier, request.requested_ip) {
            (Some(server), Some(address)) => Ok(Intent::Decline { server, address }),
            _ => Err(DropReason::Inconsistent),
        },
        MessageType::Release => client_ip
            .map(|client_ip| Intent::Release { server: request.server_identifier, client_ip })
            .ok_or(DropReason::Inconsistent),
        MessageType::Inform => client_ip.map(|client_ip| Intent::Inform { client_ip }).ok_or(DropReason::Inconsistent),
        MessageType::Offer | MessageType::Ack | MessageType::Nak => Err(DropReason::UnsupportedMessageType),
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the relay's server port, by routing.
    Relay(SocketAddrV4),
    /// To the client's own address, by routing.
    Unicast(SocketAddrV4),
    /// To a client that has no address yet: a frame to its hardware address with `your_ip` as destination, port 68.
    LinkUnicast {
        /// “chaddr”.
        mac: MacAddress,
        /// “yiaddr”.
        your_ip: Ipv4Addr,
    },
    /// To 255.255.255.255 port 68 on the interface of the request.
    Broadcast,
}

/// Where the answer of a type with that `your_ip` goes (RFC 2131 §4.1).
pub fn destination(request: &Request, answer: MessageType, your_ip: Ipv4Addr) -> Destination {
    if let Some(relay) = specified(request.relay_agent_ip) {
        return Destination::Relay(SocketAddrV4::new(relay, SERVER_PORT));
    }
    if answer == MessageType::Nak {
        return Destination::Broadcast;
    }
    if let Some(client_ip) = specified(request.client_ip) {
        return Destination::Unicast(SocketAddrV4::new(client_ip, CLIENT_PORT));
    }
    match specified(your_ip) {
        Some(your_ip) if !request.broadcast => {
            Destination::LinkUnicast { mac: request.client_hardware_address, your_ip }
        }
        _ => Destination::Broadcast,
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::ClientMessage;
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const MAC: MacAddress = [2, 0, 0, 0, 0, 1];

    fn request(message_type: MessageType, client_ip: Ipv4Addr, requested: bool, server: bool) -> Request {
        let mut options: Vec<(u8, &[u8])> = Vec::new();
        let (address, server_octets) = (ADDRESS.octets(), SERVER.octets());
        if requested {
            options.push((50, &address));
        }
        if server {
            options.push((54, &server_octets));
        }
        let mut buffer = [0; 600];
        let length = ClientMessage {
            message_type,
            transaction_id: 1,
            seconds: 0,
            broadcast: false,
            hops: 0,
            client_ip,
            relay_agent_ip: NONE,
            client_hardware_address: MAC,
            options: &options,
        }
        .encode(&mut buffer)
        .unwrap();
        Request::parse(&buffer[..length]).unwrap()
    }

    #[test]
    fn intents_by_rfc_2131_table_4() {
        use Delivery::{Broadcast, Unicast};
        use MessageType::{Decline, Discover, Inform, Release, Request};
        let select = Intent::Select { server: SERVER, requested: ADDRESS };
        let table = [
            ((Discover, NONE, false, false), Broadcast, Ok(Intent::Discover { requested: None })),
            ((Discover, NONE, true, false), Broadcast, Ok(Intent::Discover { requested: Some(ADDRESS) })),
            ((Request, NONE, true, true), Broadcast, Ok(select)),
            ((Request, NONE, true, false), Broadcast, Ok(Intent::Reboot { requested: ADDRESS })),
            ((Request, ADDRESS, false, false), Unicast, Ok(Intent::Renew { client_ip: ADDRESS })),
            ((Request, ADDRESS, false, false), Broadcast, Ok(Intent::Rebind { client_ip: ADDRESS })),
            ((Request, ADDRESS, true, true), Broadcast, Err(DropReason::Inconsistent)),
            ((Request, NONE, false, true), Broadcast, Err(DropReason::Inconsistent)),
            ((Decline, NONE, true, true), Broadcast, Ok(Intent::Decline { server: SERVER, address: ADDRESS })),
            ((Decline, NONE, true, false), Broadcast, Err(DropReason::Inconsistent)),
            (
                (Release, ADDRESS, false, true),
                Unicast,
                Ok(Intent::Release { server: Some(SERVER), client_ip: ADDRESS }),
            ),
            ((Release, NONE, false, true), Unicast, Err(DropReason::Inconsistent)),
            ((Inform, ADDRESS, false, false), Unicast, Ok(Intent::Inform { client_ip: ADDRESS })),
            ((Inform, NONE, false, false), Broadcast, Err(DropReason::Inconsistent)),
        ];
        for ((kind, client_ip, requested, server), delivery, expected) in table {
            let request = request(kind, client_ip, requested, server);
            assert_eq!(intent(&request, delivery), expected, "{kind:?} {client_ip} {requested} {server}");
        }
        let relayed = super::Request { relay_agent_ip: SERVER, ..request(Request, ADDRESS, false, false) };
        assert_eq!(intent(&relayed, Unicast), Ok(Intent::Rebind { client_ip: ADDRESS }));
    }

    #[test]
    fn destinations_by_rfc_2131_section_4_1() {
        let plain = request(MessageType::Discover, NONE, false, false);
        let offer = MessageType::Offer;
        assert_eq!(destination(&plain, offer, ADDRESS), Destination::LinkUnicast { mac: MAC, your_ip: ADDRESS });
        assert_eq!(destination(&plain, MessageType::Nak, NONE), Destination::Broadcast);
        let flagged = Request { broadcast: true, ..plain.clone() };
        assert_eq!(destination(&flagged, offer, ADDRESS), Destination::Broadcast);
        let bound = Request { client_ip: ADDRESS, ..flagged };
        let unicast = Destination::Unicast(SocketAddrV4::new(ADDRESS, 68));
        assert_eq!(destination(&bound, MessageType::Ack, ADDRESS), unicast);
        assert_eq!(destination(&bound, MessageType::Nak, NONE), Destination::Broadcast);
        let relayed = Request { relay_agent_ip: SERVER, ..bound };
        let relay = Destination::Relay(SocketAddrV4::new(SERVER, 67));
        assert_eq!(destination(&relayed, MessageType::Nak, NONE), relay);
        assert_eq!(destination(&relayed, MessageType::Ack, ADDRESS), relay);
    }
}
