//! DHCPv4 beyond one plain subnet: links of several subnets, relays, options by scope, other servers beside ours, attacks, and
//! a journal that is full or lost (RFC 2131, threat model T7 and its DHCPv4 row).

#[path = "support/dhcp.rs"]
mod clients;
mod support;

use std::net::{IpAddr, Ipv4Addr};

use bootstorm_engine::{Output, Time};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::{Delivery, Destination};
use bootstorm_snapshot::dhcp::{DhcpOption, DhcpOptions, Identity, NamedReservation, Octets, ProxyDhcp, Scope};
use bootstorm_snapshot::record::{Answer as Boot, Record, Subnet};
use bootstorm_snapshot::{Ipv4Range, Mac, SubnetId, View, VlanId};
use clients::*;
use support::*;

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 0, 7, 7);

/// A site whose link has a second subnet, of two addresses in the first's VLAN, and a third subnet elsewhere.
fn networks() -> View {
    let mut view = site();
    let first = view.subnets[&SubnetId(1)].clone();
    let range = |a: [u8; 4], b: [u8; 4]| vec![Ipv4Range { first: a.into(), last: b.into() }];
    view.put(Record::Subnet(Subnet { dynamic: range([10, 0, 9, 1], [10, 0, 9, 2]), ..first.clone() }));
    for (id, vlan, net, range) in [
        (2, 1, "10.2.0.0/24", range([10, 2, 0, 10], [10, 2, 0, 11])),
        (3, 3, "10.3.0.0/24", range([10, 3, 0, 10], [10, 3, 0, 99])),
    ] {
        let cidr = net.parse().expect("net");
        let (id, vlan, gateway) = (SubnetId(id), VlanId(vlan), None);
        view.put(Record::Subnet(Subnet { id, vlan, cidr, gateway, dynamic: range, ..first.clone() }));
    }
    put_machine(&mut view, 1, Boot::Wait);
    view
}

fn discover(mac: Mac) -> Say<'static> {
    say(MessageType::Discover, mac)
}

#[test]
fn a_link_of_two_subnets_uses_the_second_when_the_first_is_full() {
    let mut rack = Rack::new(networks());
    let given: Vec<Ipv4Addr> = (10..14).map(|n| rack.lease(at(0), mac(n), &[])).collect();
    assert_eq!(given[..2], [Ipv4Addr::new(10, 0, 9, 1), Ipv4Addr::new(10, 0, 9, 2)]);
    assert_eq!(given[2..], [Ipv4Addr::new(10, 2, 0, 10), Ipv4Addr::new(10, 2, 0, 11)]);
    assert_eq!(rack.kind(at(1), &discover(mac(14))), None);
    assert_eq!(rack.engine.count("dhcp_dropped", "range_exhausted"), 1);
    let mut renew = Say { client_ip: given[3], delivery: Delivery::Unicast, ..say(MessageType::Request, mac(13)) };
    let (ack, _) = rack.answer(at(2), &renew).expect("an answer");
    assert_eq!((ack.message_type, ack.subnet_mask), (MessageType::Ack, Some(Ipv4Addr::new(255, 255, 255, 0))));
    renew.client_ip = given[0];
    assert_eq!(rack.kind(at(3), &renew), Some(MessageType::Nak), "another's address of the other subnet");
    let reboot = Say { requested: Some(given[2]), ..say(MessageType::Request, mac(12)) };
    assert_eq!(rack.kind(at(4), &reboot), Some(MessageType::Ack));
    rack.restart(at(5));
    assert_eq!(rack.lease(at(6), mac(12), &[]), given[2], "its own address and not one of the first subnet");
    let inform = Say { client_ip: given[2], ..say(MessageType::Inform, mac(12)) };
    let (ack, _) = rack.answer(at(7), &inform).expect("an answer");
    assert_eq!(ack.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
    let elsewhere = Say { client_ip: Ipv4Addr::new(10, 3, 0, 10), ..inform };
    assert_eq!(rack.kind(at(8), &elsewhere), None, "not on this link");
}

#[test]
fn a_relay_selects_the_link_and_stands_for_the_server() {
    // RFC 3527: sub-option 5; RFC 5107: sub-option 11.
    let mut rack = Rack::new(networks());
    let information = [5, 4, 10, 3, 0, 1, 11, 4, 10, 3, 0, 254, 1, 2, 0, 7];
    let options: [(u8, &[u8]); 1] = [(82, &information)];
    let said = Say { relay: RELAY, options: &options, ..discover(mac(20)) };
    let (offer, to) = rack.answer(at(0), &said).expect("an offer");
    assert_eq!(offer.your_ip, Ipv4Addr::new(10, 3, 0, 10));
    assert_eq!(offer.server_identifier, Some(Ipv4Addr::new(10, 3, 0, 254)));
    assert_eq!(offer.relay_agent_information.as_deref(), Some(&information[..]), "echoed verbatim");
    assert_eq!(to, Destination::Relay("10.0.7.7:67".parse().expect("address")));
    let select = |server, requested| Say {
        requested: Some(requested),
        server: Some(server),
        kind: MessageType::Request,
        relay: RELAY,
        options: &options,
        ..discover(mac(20))
    };
    assert_eq!(rack.kind(at(1), &select(RACK, offer.your_ip)), None, "not the server it was told");
    let (offer, _) = rack.answer(at(2), &said).expect("an offer");
    let select = select(Ipv4Addr::new(10, 3, 0, 254), offer.your_ip);
    assert_eq!(rack.kind(at(3), &select), Some(MessageType::Ack));
    let unknown = [5, 4, 172, 16, 0, 1];
    let options: [(u8, &[u8]); 1] = [(82, &unknown)];
    assert_eq!(rack.kind(at(4), &Say { options: &options, ..said }), None);
    assert_eq!(rack.engine.count("dhcp_dropped", "unknown_relay"), 1);
}

#[test]
fn dhcp_4_spoofed_relays_reach_nobody_and_direct_clients_are_no_relays() {
    let mut rack = Rack::new(networks());
    for relay in [[192, 0, 2, 1], [127, 0, 0, 1], [255, 255, 255, 255], [224, 0, 0, 1]] {
        assert_eq!(rack.kind(at(0), &Say { relay: relay.into(), ..discover(mac(1)) }), None, "{relay:?}");
    }
    assert_eq!(rack.engine.count("dhcp_dropped", "unknown_relay"), 4);
    // A client that sends option 82 itself chooses neither link nor server with it (RFC 3046 §2.1).
    let options: [(u8, &[u8]); 1] = [(82, &[5, 4, 10, 3, 0, 1, 11, 4, 10, 3, 0, 254])];
    let (offer, _) = rack.answer(at(0), &Say { options: &options, ..discover(mac(21)) }).expect("an offer");
    assert_eq!((offer.your_ip, offer.server_identifier), (Ipv4Addr::new(10, 0, 9, 1), Some(RACK)));
}

#[test]
fn dhcp_4_request_by_unicast_that_cannot_be_answered_is_counted() {
    // After CVE-2025-40779: Kea ended on a unicast for which it found no subnet.
    let mut rack = Rack::new(networks());
    for options in [&[][..], &[(61, &[1, 2, 3][..])], &[(12, b"host")], &[(82, &[9, 0])]] {
        for kind in [MessageType::Discover, MessageType::Request, MessageType::Release, MessageType::Inform] {
            let client_ip = Ipv4Addr::new(172, 31, 0, 9);
            let delivery = Delivery::Unicast;
            rack.hear(at(0), &Say { client_ip, relay: client_ip, delivery, options, ..say(kind, mac(30)) });
            let outputs = rack.hear(at(0), &Say { client_ip, delivery, options, ..say(kind, mac(30)) });
            assert!(outputs.len() <= 1, "{kind:?}");
        }
    }
    assert_eq!(rack.engine.count("dhcp_dropped", "unknown_relay"), 16);
    rack.publish(at(1), |view| view.subnets.clear());
    assert_eq!(rack.kind(at(2), &Say { delivery: Delivery::Unicast, ..discover(mac(30)) }), None);
    assert_eq!(rack.engine.count("dhcp_dropped", "no_subnet"), 1);
}

#[test]
fn dhcp_4_deep_nesting_and_empty_options_harm_nobody() {
    let mut rack = Rack::new(networks());
    // Option 82 in option 82 in option 82, each one octet short of the next.
    let mut nested = vec![5, 4, 10, 3, 0, 1];
    while nested.len() < 250 {
        let length = nested.len() as u8;
        nested.splice(0..0, [82, length]);
    }
    let cases: [&[(u8, &[u8])]; 5] = [
        &[(82, &nested)],
        &[(82, &[1, 255, 0])],
        &[(82, &[5, 3, 10, 3, 0, 5, 0])],
        &[(43, &[]), (12, &[]), (116, &[])],
        &[(175, &[]), (12, &[0, 0])],
    ];
    for (n, options) in (40..).zip(cases) {
        let (offer, _) = rack.answer(at(0), &Say { relay: RELAY, options, ..discover(mac(n)) }).expect("an offer");
        assert_eq!(rack.engine.count("dhcp", "nak"), 0);
        rack.hear(
            at(0),
            &Say {
                server: Some([10, 0, 0, 2].into()),
                requested: Some(offer.your_ip),
                ..say(MessageType::Request, mac(n))
            },
        );
    }
    // An empty identifier is nobody's (dnsmasq and Kea cases): the message is not taken.
    for code in [55, 60, 61, 77, 82, 97] {
        let options: [(u8, &[u8]); 1] = [(code, &[])];
        if code != 55 {
            assert_eq!(rack.kind(at(0), &Say { options: &options, ..discover(mac(50)) }), None, "{code}");
        }
    }
    assert_eq!(rack.engine.count("dhcp_dropped", "bad_option_length"), 5);
}

#[test]
fn dhcp_4_what_is_for_another_server_is_not_ours() {
    let mut rack = Rack::new(networks());
    let other = Some(Ipv4Addr::new(10, 0, 0, 99));
    let (offer, _) = rack.answer(at(0), &discover(mac(50))).expect("an offer");
    let requested = Some(offer.your_ip);
    for kind in [MessageType::Request, MessageType::Decline] {
        assert_eq!(rack.hear(at(1), &Say { requested, server: other, ..say(kind, mac(50)) }), [], "{kind:?}");
    }
    assert_eq!(rack.engine.count("dhcp_dropped", "wrong_server"), 2);
    let again = rack.answer(at(2), &discover(mac(51))).expect("an offer").0.your_ip;
    assert_eq!(again, Ipv4Addr::new(10, 0, 9, 2), "who goes elsewhere gives its offer back; the next is taken first");
    let held = rack.lease(at(3), mac(52), &[]);
    let release = Say { client_ip: held, server: other, ..say(MessageType::Release, mac(52)) };
    assert_eq!(rack.hear(at(4), &release), []);
    assert!(rack.engine.lease_at(held).is_some(), "its lease goes on");
}

#[test]
fn dhcp_4_request_for_an_address_not_offered_or_held_is_refused_and_changes_nothing() {
    let mut rack = Rack::new(networks());
    let held = rack.lease(at(0), mac(60), &[]);
    for requested in [held, Ipv4Addr::new(10, 0, 9, 2), RACK, Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::BROADCAST] {
        let select = Say { requested: Some(requested), server: Some(RACK), ..say(MessageType::Request, mac(61)) };
        assert_eq!(rack.kind(at(1), &select), Some(MessageType::Nak), "{requested}");
    }
    // RFC 2131 §4.3.2: who has rebooted and is not known gets no answer, unless its network is another.
    let reboot = |requested| Say { requested: Some(requested), ..say(MessageType::Request, mac(61)) };
    assert_eq!(rack.kind(at(2), &reboot(held)), None);
    assert_eq!(rack.kind(at(2), &reboot(Ipv4Addr::new(192, 0, 2, 7))), Some(MessageType::Nak));
    assert_eq!(rack.engine.lease_at(held).map(|lease| lease.mac), Some(mac(60)));
    assert_eq!(rack.engine.stats().leases, 1);
}

#[test]
fn dhcp_4_option_82_comes_back_as_it_was_sent_in_every_answer() {
    let mut rack = Rack::new(networks());
    let longest = [&[1, 253][..], &[0xee; 253]].concat();
    for (n, information) in [(70, &b"\x01\x02\x00\x07\xfa\x00"[..]), (71, b"\xff"), (72, &longest)] {
        let options: [(u8, &[u8]); 1] = [(82, information)];
        let relay = Ipv4Addr::new(10, 3, 0, 200);
        let said = Say { relay, options: &options, ..discover(mac(n)) };
        let (offer, _) = rack.answer(at(0), &said).expect("an offer");
        assert_eq!(offer.relay_agent_information.as_deref(), Some(information));
        for (requested, expected) in [(offer.your_ip, MessageType::Ack), (RACK, MessageType::Nak)] {
            let (requested, server) = (Some(requested), Some(RACK));
            let said = Say { requested, server, relay, options: &options, ..say(MessageType::Request, mac(n)) };
            let (answer, to) = rack.answer(at(1), &said).expect("an answer");
            assert_eq!((answer.message_type, answer.relay_agent_information.as_deref()), (expected, Some(information)));
            assert_eq!(to, Destination::Relay(std::net::SocketAddrV4::new(relay, 67)));
        }
    }
}

#[test]
fn dhcp_4_host_names_of_clients_are_never_taken_over() {
    let mut rack = Rack::new(networks());
    for name in [&b"n001"[..], b"../../etc", b"a b;c", b"", &[b'x'; 64], &[0xff; 255]] {
        let options: [(u8, &[u8]); 1] = [(12, name)];
        let said = Say { options: &options, ..discover(mac(80)) };
        let (offer, _) = rack.answer(at(0), &said).expect("an offer");
        assert_eq!(offer.host_name, None, "{name:?}");
    }
}

#[test]
fn dhcp_4_packets_from_our_own_addresses_are_not_answered() {
    let mut rack = Rack::new(networks());
    let said = discover(mac(1));
    assert!(rack.kind(at(0), &said).is_some());
    let mut buffer = [0; 400];
    let length = bootstorm_proto::dhcp::wire::ClientMessage {
        message_type: MessageType::Discover,
        transaction_id: 1,
        seconds: 0,
        broadcast: true,
        hops: 0,
        client_ip: NONE,
        relay_agent_ip: RACK,
        client_hardware_address: mac(1).0,
        options: &[],
    }
    .encode(&mut buffer)
    .expect("fits");
    rack.engine.handle_dhcp(at(0), INTERFACE, IpAddr::V4(RACK), Delivery::Unicast, &buffer[..length]);
    assert_eq!(rack.drain(), []);
    assert_eq!(rack.engine.count("dhcp_dropped", "from_own_address"), 1);
}

fn octets(data: &[u8]) -> Octets {
    Octets(data.to_vec())
}

fn options(scope: Scope, options: &[(u8, &[u8])]) -> Record {
    let machines = if matches!(scope, Scope::Tag(_)) { vec![machine(1)] } else { vec![] };
    let options = options.iter().map(|(code, data)| DhcpOption { code: *code, data: octets(data) }).collect();
    Record::DhcpOptions(DhcpOptions { scope, machines, options })
}

#[test]
fn of_options_set_in_several_places_the_narrowest_wins() {
    let mut rack = Rack::new(networks());
    let unknown = mac(60);
    let domain = |rack: &mut Rack, now, mac| {
        let outputs = rack.hear(at(now), &discover(mac));
        let [Output::Dhcp { bytes, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
        let at = bytes.windows(2).position(|pair| pair == [15, 1]).map(|at| bytes[at + 2]);
        at.map(char::from)
    };
    let range = Scope::Range(Ipv4Addr::new(10, 0, 9, 1));
    let scopes = [
        (Scope::Site, 'a', 'a'),
        (Scope::Vlan(VlanId(1)), 'b', 'b'),
        (Scope::Subnet(SubnetId(1)), 'c', 'c'),
        (range, 'c', 'd'),
        (Scope::Tag("gpu".into()), 'e', 'd'),
        (Scope::Machine(machine(1)), 'f', 'd'),
    ];
    for ((scope, for_known, for_unknown), (n, own)) in scopes.into_iter().zip((0..).zip(b'a'..)) {
        rack.publish(at(n), |view| view.put(options(scope, &[(15, &[own])])));
        assert_eq!(domain(&mut rack, n, mac(1)), Some(for_known));
        assert_eq!(domain(&mut rack, n, unknown), Some(for_unknown));
    }
    rack.publish(at(9), |view| view.put(options(Scope::Machine(machine(1)), &[(15, &[]), (3, &[])])));
    let (offer, _) = rack.answer(at(9), &discover(mac(1))).expect("an offer");
    assert_eq!(offer.routers, [] as [Ipv4Addr; 0], "an empty one takes it away");
    assert_eq!(domain(&mut rack, 9, mac(1)), None);
}

#[test]
fn options_replace_what_the_subnet_says_and_only_what_is_the_operator_s() {
    let mut view = networks();
    let set: &[(u8, &[u8])] = &[
        (3, &[10, 0, 0, 9]),
        (6, &[10, 0, 0, 8, 10, 0, 0, 7]),
        (51, &[0, 0, 0, 1]),
        (54, &[10, 0, 0, 66]),
        (66, b"tftp.example.test"),
        (67, b"grub/own.efi"),
        (108, &[0, 0, 7, 8]),
        (150, &[10, 0, 0, 6]),
        (26, &[1]),
    ];
    view.put(options(Scope::Site, set));
    let mut rack = Rack::new(view);
    let pxe: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00007:UNDI:003000"), (93, &[0, 7])];
    let outputs = rack.hear(at(0), &Say { options: &pxe, ..discover(mac(1)) });
    let [Output::Dhcp { bytes, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    let offer = bootstorm_proto::dhcp::wire::Answer::parse(bytes).expect("ours");
    assert_eq!(offer.routers, [Ipv4Addr::new(10, 0, 0, 9)]);
    assert_eq!(offer.domain_name_servers, [Ipv4Addr::new(10, 0, 0, 8), Ipv4Addr::new(10, 0, 0, 7)]);
    assert_eq!((offer.lease_seconds, offer.server_identifier), (Some(600), Some(RACK)));
    assert_eq!(offer.boot_file.as_deref(), Some("grub/own.efi"));
    assert_eq!(offer.server_name.as_deref(), Some("tftp.example.test"));
    let has = |code: u8, data: &[u8]| {
        let option = [&[code, data.len() as u8], data].concat();
        bytes.windows(option.len()).any(|window| window == option)
    };
    assert!(has(150, &[10, 0, 0, 6]) && !has(26, &[1]));
    assert!(!has(108, &[0, 0, 7, 8]), "only for who asks (RFC 8925 §3.2)");
}

#[test]
fn addresses_are_kept_for_identifiers_and_for_a_relay_s_ports() {
    let mut view = networks();
    let named = |identity, last| {
        let address = Ipv4Addr::new(10, 0, 5, last);
        let hostname = Some(format!("port{last}"));
        Record::NamedReservation(NamedReservation { identity, subnet: SubnetId(1), address, hostname })
    };
    view.put(named(Identity::Client(octets(&[0, 7, 7])), 1));
    view.put(named(Identity::Circuit(octets(b"eth7")), 2));
    view.put(named(Identity::Remote(octets(b"rack9")), 3));
    let mut rack = Rack::new(view);
    let lease = |rack: &mut Rack, n, options: &[(u8, &[u8])], relay| {
        let (offer, _) = rack.answer(at(0), &Say { options, relay, ..discover(mac(n)) }).expect("an offer");
        let (requested, server, kind) = (Some(offer.your_ip), Some(RACK), MessageType::Request);
        let select = Say { requested, server, kind, options, relay, ..discover(mac(n)) };
        assert_eq!(rack.kind(at(0), &select), Some(MessageType::Ack));
        (offer.your_ip.octets()[2..].to_vec(), offer.host_name.as_deref().map(String::from))
    };
    let host = |last: u8| Some(format!("port{last}"));
    assert_eq!(lease(&mut rack, 70, &[(61, &[0, 7, 7])], NONE), (vec![5, 1], host(1)));
    let circuit: &[(u8, &[u8])] = &[(82, b"\x01\x04eth7\x02\x05rack0")];
    assert_eq!(lease(&mut rack, 71, circuit, RELAY), (vec![5, 2], host(2)));
    assert_eq!(lease(&mut rack, 72, &[(82, b"\x02\x05rack9")], RELAY), (vec![5, 3], host(3)));
    assert_eq!(lease(&mut rack, 73, circuit, RELAY).0, [9, 1], "the port's address is held by another machine");
    rack.hear(
        at(1),
        &Say {
            client_ip: [10, 0, 5, 2].into(),
            server: Some(RACK),
            relay: RELAY,
            options: circuit,
            ..say(MessageType::Release, mac(71))
        },
    );
    assert_eq!(lease(&mut rack, 73, circuit, RELAY).0, [5, 2], "and free for the next one there");
}

#[test]
fn beside_another_server_only_boot_firmware_is_told_and_only_what_to_boot() {
    let mut view = networks();
    let subnets: Vec<Subnet> = view.subnets.values().cloned().collect();
    subnets.into_iter().for_each(|subnet| view.put(Record::Subnet(Subnet { dhcp: false, ..subnet })));
    let mut rack = Rack::new(view);
    assert_eq!(rack.kind(at(0), &Say { options: IPXE, ..discover(mac(1)) }), None, "DHCP is off");
    rack.publish(at(1), |view| view.put(Record::ProxyDhcp(ProxyDhcp { vlan: VlanId(1) })));
    let uefi: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00007:UNDI:003000"), (93, &[0, 7])];
    let http: &[(u8, &[u8])] = &[(60, b"HTTPClient:Arch:00016:UNDI:003000"), (93, &[0, 16])];
    for (options, class, file) in [
        (uefi, &b"PXEClient"[..], "snponly.efi"),
        (http, b"HTTPClient", "http://10.0.0.1:5248/ipxe.efi"),
        (IPXE, b"PXEClient", "http://10.0.0.1:5248/boot.ipxe?mac=52-54-00-00-00-01"),
    ] {
        let (offer, to) = rack.answer(at(2), &Say { options, ..discover(mac(1)) }).expect("an offer");
        assert_eq!((offer.message_type, offer.your_ip, offer.lease_seconds), (MessageType::Offer, NONE, None));
        assert_eq!((offer.vendor_class.as_deref(), offer.boot_file.as_deref()), (Some(class), Some(file)));
        assert_eq!((offer.server_identifier, offer.next_server_ip), (Some(RACK), RACK));
        assert_eq!(to, Destination::Broadcast, "it has no address yet");
    }
    assert_eq!(rack.kind(at(3), &Say { options: &[(60, b"udhcp 1.35.0")], ..discover(mac(1)) }), None);
    let select = Say { requested: Some(address(1)), server: Some(RACK), ..say(MessageType::Request, mac(1)) };
    assert_eq!(rack.kind(at(3), &Say { options: uefi, ..select }), None, "addresses are the other server's");
    assert!(rack.journal.is_empty());
}

#[test]
fn a_full_disk_lets_leases_be_kept_and_grants_nothing() {
    let mut rack = Rack::new(networks());
    let kept = rack.lease(at(0), mac(80), &[]);
    rack.prompt = false;
    let renew = |n, client_ip| Say { client_ip, delivery: Delivery::Unicast, ..say(MessageType::Request, mac(n)) };
    // A second client's lease is on its way to the disk when that fills.
    let (offer, _) = rack.answer(at(0), &discover(mac(81))).expect("an offer");
    let select = Say { requested: Some(offer.your_ip), server: Some(RACK), ..say(MessageType::Request, mac(81)) };
    assert_eq!(rack.hear(at(0), &select), []);
    rack.engine.handle_journal_stopped();
    let (ack, _) = rack.answer(at(100_000), &renew(80, kept)).expect("an answer");
    assert_eq!((ack.message_type, ack.lease_seconds), (MessageType::Ack, Some(500)), "what is left of 600 s");
    assert_eq!(rack.hear(at(100_000), &renew(81, offer.your_ip)), [], "not durable");
    assert_eq!(rack.hear(at(100_000), &discover(mac(82))), []);
    assert_eq!(rack.engine.count("dhcp_dropped", "journal_stopped"), 1);
    assert_eq!(rack.hear(at(600_000), &renew(80, kept)), [], "it has ended");
    rack.restart(at(600_001));
    assert!(rack.engine.lease_at(offer.your_ip).is_none());
}

/// Invented MAC addresses, none of them a machine's.
fn stranger(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x06, 0xff, a, b, c, d])
}

/// A million with BOOTSTORM_LONG set.
#[test]
fn t7_invented_macs_starve_no_known_machine() {
    let count: u32 = if std::env::var_os("BOOTSTORM_LONG").is_some() { 1_000_000 } else { 100_000 };
    let mut view = networks();
    for n in 1..=100 {
        put_machine(&mut view, n, Boot::Wait);
    }
    let mut rack = Rack::new(view);
    let mut served = 0u32;
    for n in 0..count {
        let now: Time = at(u64::from(n) / 10);
        let options: [(u8, &[u8]); 1] = [(82, b"\x01\x04eth1")];
        let said = Say { relay: Ipv4Addr::new(10, 3, 0, 200), options: &options, ..discover(stranger(n)) };
        if let Some((offer, _)) = rack.answer(now, &said) {
            let (requested, server, kind) = (Some(offer.your_ip), Some(RACK), MessageType::Request);
            rack.hear(
                now,
                &Say { requested, server, kind, relay: said.relay, options: &options, ..discover(stranger(n)) },
            );
        }
        rack.hear(now, &discover(stranger(n)));
        if n % (count / 100) == 0 {
            let known = u16::try_from(n / (count / 100) + 1).expect("to 100");
            rack.lease(now, mac(known), &[]);
            served += 1;
        }
        if rack.engine.next_timeout(now).is_some_and(|due| due <= now.monotonic) {
            rack.engine.handle_timeout(now);
            rack.drain();
        }
        rack.engine.handle_acknowledged(u64::MAX);
        rack.drain();
        // Only the last sequence is looked at.
        let last = rack.journal.len().saturating_sub(1);
        rack.journal.drain(..last);
    }
    assert_eq!(served, 100, "every known machine");
    let stats = rack.engine.stats();
    // 100 known, 64 of the one port, four of the dynamic addresses of the link itself.
    assert!(stats.leases <= 100 + 64 + 4, "{stats:?}");
    assert!(rack.engine.count("dhcp_dropped", "circuit_quota") > 0);
    // Another port of the same relay is not the attacker's.
    let options: [(u8, &[u8]); 1] = [(82, b"\x01\x04eth2")];
    let honest = Say { relay: Ipv4Addr::new(10, 3, 0, 200), options: &options, ..discover(mac(999)) };
    assert!(rack.kind(at(u64::from(count)), &honest).is_some());
}

#[test]
fn unknown_machines_wait_for_the_disk_before_known_ones_do() {
    let mut view = site();
    for n in 1..=2 {
        put_machine(&mut view, n, Boot::Wait);
    }
    let dynamic = vec![Ipv4Range { first: [10, 0, 16, 0].into(), last: [10, 0, 63, 255].into() }];
    let subnet = view.subnets[&SubnetId(1)].clone();
    view.put(Record::Subnet(Subnet { dynamic, ..subnet }));
    let mut rack = Rack::new(view);
    rack.prompt = false;
    let select =
        |mac, requested| Say { requested: Some(requested), server: Some(RACK), ..say(MessageType::Request, mac) };
    let macs: Vec<Mac> = (0..3_000).map(stranger).collect();
    let offered = macs.iter().map(|mac| rack.answer(at(0), &discover(*mac)).expect("an offer").0.your_ip);
    for (mac, address) in macs.iter().zip(offered.collect::<Vec<_>>()) {
        assert_eq!(rack.hear(at(0), &select(*mac, address)), []);
    }
    let (acks, waiting) = (rack.engine.count("dhcp", "ack"), rack.engine.stats().waiting as u64);
    assert!(waiting > 1_000 && acks + waiting == 3_000, "{acks} promised, {waiting} wait");
    let (offer, _) = rack.answer(at(0), &discover(mac(1))).expect("an offer");
    rack.hear(at(0), &select(mac(1), offer.your_ip));
    assert_eq!(rack.engine.count("dhcp", "ack"), acks + 1, "a known one is taken");
    // A stranger's Discover waits behind those that have an offer; sent again it has one place, and so has its Request.
    let late = discover(stranger(9_000));
    (0..3).for_each(|_| assert_eq!(rack.hear(at(0), &late), []));
    assert_eq!(rack.engine.stats().waiting as u64, waiting + 1);
    let mut answers = 0;
    while rack.engine.stats().waiting > 0 || rack.engine.stats().uncommitted > 0 {
        rack.commit();
        rack.engine.handle_waiting(at(1));
        answers += rack.drain().len();
    }
    assert_eq!(answers, 3_000 + 1 + 1, "each of them, the known one, and the late one's offer");
    assert_eq!(rack.engine.count("dhcp_dropped", "journal_busy"), 0);
}

#[test]
fn who_has_waited_beyond_its_patience_is_not_answered() {
    let mut rack = Rack::new(networks());
    rack.prompt = false;
    let wide = vec![Ipv4Range { first: [10, 0, 16, 0].into(), last: [10, 0, 63, 255].into() }];
    rack.publish(at(0), |view| {
        let subnet = view.subnets[&SubnetId(1)].clone();
        view.put(Record::Subnet(Subnet { dynamic: wide, ..subnet }));
    });
    for n in 0..2_000 {
        let (offer, _) = rack.answer(at(0), &discover(stranger(n))).unwrap_or_else(|| panic!("an offer for {n}"));
        let select =
            Say { requested: Some(offer.your_ip), server: Some(RACK), ..say(MessageType::Request, stranger(n)) };
        rack.hear(at(0), &select);
        if rack.engine.stats().waiting > 0 {
            break;
        }
    }
    assert_eq!(rack.engine.stats().waiting, 1);
    rack.commit();
    rack.drain();
    rack.engine.handle_waiting(at(8_001));
    assert_eq!((rack.drain(), rack.engine.stats().waiting), (vec![], 0));
    assert_eq!(rack.engine.count("dhcp_dropped", "waited_too_long"), 1);
}

#[test]
fn a_request_again_is_answered_from_the_lease_and_writes_nothing() {
    let mut rack = Rack::new(networks());
    rack.prompt = false;
    let (offer, _) = rack.answer(at(0), &discover(mac(40))).expect("an offer");
    let (again, _) = rack.answer(at(500), &discover(mac(40))).expect("an offer");
    assert_eq!(offer.your_ip, again.your_ip, "the same offer");
    let select = Say { requested: Some(offer.your_ip), server: Some(RACK), ..say(MessageType::Request, mac(40)) };
    assert_eq!(rack.hear(at(1_000), &select), [], "not durable yet");
    let written = rack.journal.len();
    assert_eq!(rack.hear(at(2_000), &select), [], "nor is it for who asks again");
    assert_eq!(rack.journal.len(), written);
    rack.commit();
    assert_eq!(rack.drain().len(), 2, "each is answered when it is");
    let (ack, _) = rack.answer(at(6_000), &select).expect("at once");
    assert_eq!((ack.your_ip, ack.lease_seconds), (offer.your_ip, Some(595)), "what is left of 600 s");
    assert_eq!((rack.journal.len(), rack.engine.count("dhcp", "ack_again")), (written, 2));
    let renew = Say { client_ip: offer.your_ip, delivery: Delivery::Unicast, ..say(MessageType::Request, mac(40)) };
    assert_eq!(rack.hear(at(60_000), &renew), [], "a renewal is written");
    assert!(rack.journal.len() > written);
    let another = Say { requested: Some(offer.your_ip), server: Some(RACK), ..say(MessageType::Request, mac(41)) };
    assert_eq!(rack.kind(at(61_000), &another), Some(MessageType::Nak), "it is nobody else's");
}
