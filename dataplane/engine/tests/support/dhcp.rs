//! What DHCP clients say to the rack of a test.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{IpAddr, Ipv4Addr};

use bootstorm_engine::{Output, Time};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::{Delivery, Destination};
use bootstorm_proto::dhcp::wire::{Answer, ClientMessage};
use bootstorm_snapshot::{Mac, Observed};

use crate::support::{INTERFACE, Rack};

pub const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub const IPXE: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0]), (77, b"iPXE"), (175, &[])];

/// What a client says; the rest is as clients are.
pub struct Say<'a> {
    pub kind: MessageType,
    pub mac: Mac,
    pub client_ip: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub relay: Ipv4Addr,
    pub options: &'a [(u8, &'a [u8])],
    pub delivery: Delivery,
}

/// A message of a type with nothing in it yet.
pub fn say(kind: MessageType, mac: Mac) -> Say<'static> {
    let (client_ip, relay, delivery) = (NONE, NONE, Delivery::Broadcast);
    Say { kind, mac, client_ip, requested: None, server: None, relay, options: &[], delivery }
}

impl Rack {
    pub fn hear(&mut self, now: Time, said: &Say<'_>) -> Vec<Output> {
        let requested = said.requested.map(|address| address.octets());
        let server = said.server.map(|address| address.octets());
        let mut options: Vec<(u8, &[u8])> = vec![(55, &[1, 3, 6, 12, 15, 66, 67])];
        options.extend(requested.as_ref().map(|octets| (50, octets.as_slice())));
        options.extend(server.as_ref().map(|octets| (54, octets.as_slice())));
        options.extend(said.options);
        let mut buffer = [0; 1400];
        let length = ClientMessage {
            message_type: said.kind,
            transaction_id: 7,
            seconds: 0,
            broadcast: false,
            hops: u8::from(said.relay != NONE),
            client_ip: said.client_ip,
            relay_agent_ip: said.relay,
            client_hardware_address: said.mac.0,
            options: &options,
        }
        .encode(&mut buffer)
        .expect("fits");
        let from = IpAddr::V4(if said.relay == NONE { said.client_ip } else { said.relay });
        self.engine.handle_dhcp(now, INTERFACE, from, said.delivery, &buffer[..length]);
        self.drain()
    }

    pub fn answer(&mut self, now: Time, said: &Say<'_>) -> Option<(Answer, Destination)> {
        let outputs = self.hear(now, said);
        match outputs.as_slice() {
            [] => None,
            [Output::Dhcp { interface: INTERFACE, to, bytes }] => Some((Answer::parse(bytes).expect("ours"), *to)),
            other => panic!("{other:?}"),
        }
    }

    pub fn kind(&mut self, now: Time, said: &Say<'_>) -> Option<MessageType> {
        self.answer(now, said).map(|(answer, _)| answer.message_type)
    }

    /// Discover and Request; gives the address.
    pub fn lease(&mut self, now: Time, mac: Mac, options: &[(u8, &[u8])]) -> Ipv4Addr {
        let discover = Say { options, ..say(MessageType::Discover, mac) };
        let (offer, _) = self.answer(now, &discover).expect("an offer");
        let (requested, server) = (Some(offer.your_ip), offer.server_identifier);
        let select = Say { requested, server, options, ..say(MessageType::Request, mac) };
        let (ack, _) = self.answer(now, &select).expect("an answer");
        assert_eq!((ack.message_type, ack.your_ip), (MessageType::Ack, offer.your_ip));
        ack.your_ip
    }

    pub fn observed(&self) -> Vec<Observed> {
        self.engine.observations(0, 10_000).into_iter().map(|observation| observation.observed).collect()
    }
}

/// An address of the site outside its range.
pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}
