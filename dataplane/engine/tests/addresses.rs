//! DHCP and router discovery, rule by rule (RFC 2131, threat model T7 and its DHCP row).

#[path = "support/dhcp.rs"]
mod clients;
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bootstorm_engine::script::Format;
use bootstorm_engine::{AdvertiseTo, Output, Report, Request, ScriptRequest};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::{Delivery, Destination};
use bootstorm_proto::dhcp::wire::ProxyDhcpWait;
use bootstorm_proto::http::server::Method;
use bootstorm_proto::ndp::{ALL_ROUTERS, Received, RouterAdvertisement, RouterSolicitation};
use bootstorm_snapshot::plan::After;
use bootstorm_snapshot::record::{Answer as Boot, Record, Site, Unknown};
use bootstorm_snapshot::{ClaimHash, KeyHash, Mac, Observed, Stage};
use clients::*;
use support::*;

/// A rack with machine 1, which waits.
fn rack() -> Rack {
    let mut view = site();
    put_machine(&mut view, 1, Boot::Wait);
    Rack::new(view)
}

#[test]
fn a_known_machine_gets_its_fixed_address_and_an_unknown_one_of_the_range() {
    let mut rack = rack();
    let (offer, to) = rack.answer(at(0), &say(MessageType::Discover, mac(1))).expect("an offer");
    assert_eq!(offer.your_ip, address(1));
    assert_eq!(offer.server_identifier, Some(RACK));
    assert_eq!(offer.lease_seconds, Some(86_400), "an installed system's lease is long");
    assert_eq!((offer.host_name.as_deref(), offer.subnet_mask), (Some("n001"), Some(Ipv4Addr::new(255, 255, 0, 0))));
    assert_eq!(offer.routers, [Ipv4Addr::new(10, 0, 0, 254)]);
    assert_eq!(offer.boot_file, None, "an operating system boots nothing");
    assert_eq!(to, Destination::LinkUnicast { mac: mac(1).0, your_ip: address(1) });
    let (offer, _) = rack.answer(at(0), &say(MessageType::Discover, mac(99))).expect("an offer");
    assert_eq!(offer.your_ip.octets()[2], 9);
    assert_eq!(offer.lease_seconds, Some(600), "an unknown machine's lease is short");
    let booting = Say { options: IPXE, ..say(MessageType::Discover, mac(1)) };
    let (offer, _) = rack.answer(at(0), &booting).expect("an offer");
    assert_eq!(offer.lease_seconds, Some(600), "so is a booting one's");
}

#[test]
fn each_boot_client_gets_the_file_it_can_use() {
    let class = |text: &'static str| (60u8, text.as_bytes());
    let url = |path: &str| Some(format!("http://10.0.0.1:5248/{path}"));
    let file = |name: &str| Some(name.to_string());
    type Case = (&'static str, Vec<(u8, &'static [u8])>, Option<String>);
    let cases: Vec<Case> = vec![
        ("iPXE", IPXE.to_vec(), url("boot.ipxe?mac=52-54-00-00-00-01")),
        ("PXE BIOS", vec![class("PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])], file("undionly.kpxe")),
        ("UEFI 7", vec![class("PXEClient:Arch:00007:UNDI:003000"), (93, &[0, 7])], file("snponly.efi")),
        ("UEFI 9", vec![class("PXEClient:Arch:00009:UNDI:003000"), (93, &[0, 9])], file("snponly.efi")),
        ("arm64", vec![class("PXEClient:Arch:00011:UNDI:003000"), (93, &[0, 11])], file("ipxe-arm64.efi")),
        ("HTTP amd64", vec![class("HTTPClient:Arch:00016:UNDI:003000"), (93, &[0, 16])], url("ipxe.efi")),
        ("HTTP arm64", vec![class("HTTPClient:Arch:00019:UNDI:003000"), (93, &[0, 19])], url("ipxe-arm64.efi")),
        ("udhcpc", vec![class("udhcp 1.35.0")], None),
    ];
    let mut rack = rack();
    for (name, options, expected) in cases {
        let said = Say { options: &options, ..say(MessageType::Discover, mac(1)) };
        let (offer, _) = rack.answer(at(0), &said).expect("an offer");
        assert_eq!(offer.boot_file.as_deref().map(String::from), expected, "{name}");
        let tftp = expected.as_ref().is_some_and(|file| !file.starts_with("http"));
        assert_eq!(offer.server_name.as_deref(), tftp.then_some("10.0.0.1"), "{name}");
        assert_eq!(offer.next_server_ip, if expected.is_some() { RACK } else { NONE }, "{name}");
        let skips = if name == "iPXE" { ProxyDhcpWait::Skip } else { ProxyDhcpWait::Unsaid };
        assert_eq!(offer.proxy_dhcp_wait, skips, "{name}");
        let pxe = tftp.then_some([6, 1, 8, 255].as_slice());
        assert_eq!(offer.vendor_specific.as_deref(), pxe, "{name}");
        let class = match (tftp, name.starts_with("HTTP")) {
            (true, _) => Some(b"PXEClient".as_slice()),
            (_, true) => Some(b"HTTPClient".as_slice()),
            _ => None,
        };
        assert_eq!(offer.vendor_class.as_deref(), class, "{name}");
    }
    rack.publish(at(1), |view| {
        let environments = &mut view.environments;
        environments.values_mut().for_each(|environment| environment.loaders.clear());
    });
    let options = [(60, b"PXEClient".as_slice()), (93, &[0, 7])];
    let said = Say { options: &options, ..say(MessageType::Discover, mac(1)) };
    assert_eq!(rack.answer(at(2), &said).expect("an offer").0.boot_file, None, "nothing that is not there");
}

#[test]
fn an_ack_leaves_only_when_the_lease_is_durable() {
    let mut rack = rack();
    rack.prompt = false;
    let select = Say { requested: Some(address(1)), server: Some(RACK), ..say(MessageType::Request, mac(1)) };
    assert_eq!(rack.hear(at(0), &select), []);
    assert_eq!(rack.hear(at(1), &select), [], "the repetition waits as well");
    rack.commit();
    assert_eq!(rack.drain().len(), 2);
    rack.restart(at(2));
    assert_eq!(rack.engine.lease_at(address(1)).map(|lease| lease.mac), Some(mac(1)));
    assert_eq!(rack.observed().iter().filter(|one| matches!(one, Observed::Lease { .. })).count(), 1);
}

#[test]
fn requests_for_addresses_that_are_not_the_client_s() {
    let mut rack = rack();
    let unknown = rack.lease(at(0), mac(50), &[]);
    let request = |mac: Mac| say(MessageType::Request, mac);
    let (nak, silent, ack) = (Some(MessageType::Nak), None, Some(MessageType::Ack));
    let elsewhere = Ipv4Addr::new(192, 168, 0, 9);
    let unicast = Delivery::Unicast;
    let other = Some(Ipv4Addr::new(10, 0, 0, 2));
    let cases = [
        ("never offered", Say { requested: Some(address(7)), server: Some(RACK), ..request(mac(60)) }, nak),
        ("another server's", Say { requested: Some(address(1)), server: other, ..request(mac(1)) }, silent),
        ("reboot elsewhere", Say { requested: Some(elsewhere), ..request(mac(1)) }, nak),
        ("reboot, wrong", Say { requested: Some(address(7)), ..request(mac(1)) }, nak),
        ("reboot, unknown", Say { requested: Some(address(7)), ..request(mac(61)) }, silent),
        ("reboot, right", Say { requested: Some(unknown), ..request(mac(50)) }, ack),
        ("renew, right", Say { client_ip: unknown, delivery: unicast, ..request(mac(50)) }, ack),
        ("renew, another's", Say { client_ip: unknown, delivery: unicast, ..request(mac(62)) }, nak),
        ("rebind, right", Say { client_ip: unknown, ..request(mac(50)) }, ack),
        ("rebind, unknown", Say { client_ip: address(7), ..request(mac(62)) }, silent),
        ("rebind elsewhere", Say { client_ip: elsewhere, ..request(mac(62)) }, nak),
    ];
    for (name, said, expected) in cases {
        assert_eq!(rack.kind(at(1000), &said), expected, "{name}");
    }
}

#[test]
fn a_lease_ends_by_time_and_by_release_and_control_is_told() {
    let mut rack = rack();
    let first = rack.lease(at(0), mac(50), &[]);
    let second = rack.lease(at(0), mac(51), &[]);
    assert_ne!(first, second);
    let strange = Say { client_ip: first, server: Some(RACK), ..say(MessageType::Release, mac(51)) };
    assert_eq!(rack.hear(at(1), &strange), []);
    assert_eq!(rack.engine.count("dhcp_dropped", "release_not_held"), 1);
    rack.hear(at(1), &Say { mac: mac(50), ..strange });
    assert!(rack.engine.lease_at(first).is_none());
    assert_eq!(rack.engine.next_timeout(at(1000)).map(|at| at.as_secs()), Some(600));
    rack.engine.handle_timeout(at(600_000));
    rack.drain();
    assert!(rack.engine.lease_at(second).is_none());
    let ended = rack.observed().into_iter().filter(|one| matches!(one, Observed::LeaseEnded { .. })).count();
    assert_eq!(ended, 2);
    rack.restart(at(600_001));
    assert_eq!(rack.lease(at(600_002), mac(51), &[]), second, "its address is remembered");
}

#[test]
fn a_declined_address_is_left_alone_for_a_while() {
    let mut rack = rack();
    let declined = rack.lease(at(0), mac(50), &[]);
    let decline = |mac| Say { requested: Some(declined), server: Some(RACK), ..say(MessageType::Decline, mac) };
    rack.hear(at(1), &decline(mac(51)));
    assert_eq!(rack.engine.count("dhcp_dropped", "decline_not_held"), 1, "only its client may");
    rack.hear(at(1), &decline(mac(50)));
    rack.restart(at(2));
    assert_ne!(rack.lease(at(3), mac(50), &[]), declined);
    let wish = Say { requested: Some(declined), ..say(MessageType::Discover, mac(52)) };
    assert_ne!(rack.answer(at(4), &wish).expect("an offer").0.your_ip, declined);
    rack.engine.handle_timeout(at(601_000));
    rack.drain();
    let wish = Say { mac: mac(53), ..wish };
    assert_eq!(rack.answer(at(602_000), &wish).expect("an offer").0.your_ip, declined);
}

#[test]
fn a_reservation_made_later_takes_its_address_from_the_range() {
    let mut rack = rack();
    let dynamic = rack.lease(at(0), mac(2), &[]);
    rack.publish(at(1), |view| put_machine(view, 2, Boot::Wait));
    let renew = Say { client_ip: dynamic, delivery: Delivery::Unicast, ..say(MessageType::Request, mac(2)) };
    assert_eq!(rack.kind(at(2), &renew), Some(MessageType::Nak));
    assert_eq!(rack.lease(at(3), mac(2), &[]), address(2));
    assert!(rack.engine.lease_at(dynamic).is_none(), "one client, one address in a subnet");
}

#[test]
fn relays_choose_the_subnet_and_must_be_in_one() {
    let mut rack = rack();
    let relayed = Say { relay: Ipv4Addr::new(10, 0, 7, 7), ..say(MessageType::Discover, mac(1)) };
    let (offer, to) = rack.answer(at(0), &relayed).expect("an offer");
    assert_eq!(offer.your_ip, address(1));
    assert_eq!(to, Destination::Relay("10.0.7.7:67".parse().expect("address")));
    let stranger = Say { relay: Ipv4Addr::new(172, 16, 0, 1), ..say(MessageType::Discover, mac(1)) };
    assert_eq!(rack.kind(at(0), &stranger), None);
    assert_eq!(rack.engine.count("dhcp_dropped", "unknown_relay"), 1);
}

#[test]
fn dhcp_noise_is_counted_and_not_answered() {
    let mut rack = rack();
    rack.engine.handle_dhcp(at(0), INTERFACE, IpAddr::V4(RACK), Delivery::Broadcast, &[1; 300]);
    rack.engine.handle_dhcp(at(0), INTERFACE, IpAddr::V4(NONE), Delivery::Broadcast, &[1; 30]);
    rack.engine.handle_dhcp(at(0), 77, IpAddr::V4(NONE), Delivery::Broadcast, &[1; 300]);
    assert_eq!(rack.drain(), []);
    for reason in ["from_own_address", "too_short", "interface"] {
        assert_eq!(rack.engine.count("dhcp_dropped", reason), 1, "{reason}");
    }
    if let Some(site) = rack.view.site.clone() {
        let ignore = Record::Site(Site { unknown: Unknown::Ignore, ..site });
        rack.publish(at(1), |view| view.put(ignore));
    }
    assert_eq!(rack.kind(at(2), &say(MessageType::Discover, mac(99))), None);
    assert!(rack.kind(at(2), &say(MessageType::Discover, mac(1))).is_some());
}

#[test]
fn an_inform_is_answered_without_a_lease() {
    let mut rack = rack();
    let inform = Say { client_ip: address(200), ..say(MessageType::Inform, mac(70)) };
    let (ack, _) = rack.answer(at(0), &inform).expect("an answer");
    assert_eq!((ack.message_type, ack.your_ip, ack.lease_seconds), (MessageType::Ack, NONE, None));
    assert!(rack.journal.is_empty());
}

#[test]
fn t7_a_flood_of_unknown_machines_takes_no_known_machine_s_address() {
    let mut rack = rack();
    let flood = |n: u16| say(MessageType::Discover, mac(1000 + n));
    let offers = (0..2000).filter(|n| rack.kind(at(u64::from(*n)), &flood(*n)).is_some()).count();
    assert!(offers <= 256, "{offers} offers from 256 addresses");
    assert!(rack.engine.count("dhcp_dropped", "range_exhausted") > 1000);
    assert_eq!(rack.lease(at(3000), mac(1), &[]), address(1));
    rack.engine.handle_timeout(at(40_000));
    assert!(rack.kind(at(40_000), &flood(5000)).is_some(), "offers that nobody took end");
}

#[test]
fn the_trace_has_dhcp_loader_and_kernel_of_machines_that_boot_the_agent() {
    let mut view = site();
    put_work(&mut view, 1, 10, erase(), After::Wait);
    put_machine(&mut view, 2, Boot::Local { operation: None });
    let mut rack = Rack::new(view);
    rack.lease(at(0), mac(1), IPXE);
    rack.lease(at(0), mac(2), IPXE);
    rack.engine.handle_fetched(at(1), IpAddr::V4(address(1)), Stage::Loader);
    rack.engine.handle_fetched(at(1), IpAddr::V4(address(1)), Stage::Loader);
    rack.engine.handle_fetched(at(2), IpAddr::V4(address(2)), Stage::Kernel);
    rack.engine.handle_fetched(at(2), IpAddr::V4(address(200)), Stage::Kernel);
    rack.engine.handle_fetched(at(3), IpAddr::V4(address(1)), Stage::Kernel);
    rack.lease(at(4), mac(1), IPXE);
    rack.drain();
    let stages: Vec<Stage> = rack
        .observed()
        .into_iter()
        .filter_map(|one| if let Observed::Stage { stage, .. } = one { Some(stage) } else { None })
        .collect();
    assert_eq!(stages, [Stage::Dhcp, Stage::Loader, Stage::Kernel]);
}

#[test]
fn a_solicitation_is_answered_without_making_a_router() {
    let mut rack = rack();
    let asker = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let solicitation = RouterSolicitation { source: asker, source_mac: Some(mac(1).0) };
    let mut buffer = [0; 64];
    let length = solicitation.write(&mut buffer).expect("fits");
    let received = Received { source: asker, destination: ALL_ROUTERS, hop_limit: 255, message: &buffer[..length] };
    rack.engine.handle_solicitation(at(0), INTERFACE, &received);
    let outputs = rack.drain();
    let [Output::Advertise { interface: INTERFACE, to: AdvertiseTo::Node(to), bytes }] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!(*to, asker);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    // The kernel writes source and checksum; a test does it by undoing ours.
    let source = Ipv6Addr::UNSPECIFIED;
    let ours = Received { source, destination: asker, hop_limit: 255, message: bytes };
    assert_eq!(RouterAdvertisement::parse(&ours).err().map(|reason| reason.name()), Some("bad_source"));
    assert_eq!(bytes.get(6..8), Some([0, 0].as_slice()), "router lifetime 0");
    assert_eq!(bytes.iter().rev().nth(15), Some(&0xfd), "a prefix of our own (RFC 4193): {link_local}");
    for now in 0..200 {
        rack.engine.handle_solicitation(at(now), INTERFACE, &received);
    }
    assert!(rack.drain().len() <= 100 && rack.engine.count("ndp_dropped", "rate") > 0);
}

/// The claim in a script's kernel command line.
fn claim(script: &str) -> ClaimHash {
    let (_, rest) = script.split_once("bootstorm.claim=").unwrap_or_else(|| panic!("no claim in {script}"));
    let digits = rest.get(..32).unwrap_or_else(|| panic!("a short claim in {script}"));
    let octets: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect();
    ClaimHash::of(&octets)
}

#[test]
fn a_short_lease_is_given_back_when_its_agent_leaves() {
    let mut view = site();
    put_work(&mut view, 2, 7, erase(), After::PowerOff);
    view.reservations.clear();
    let mut rack = Rack::new(view);
    let given = rack.lease(at(0), mac(2), IPXE);
    let entropy = rack.entropy();
    let request = ScriptRequest { ticket: 1, mac: mac(2), rack: RACK, format: Format::Ipxe, method: Method::Get };
    rack.engine.handle_script(at(1_000), entropy, request);
    let scripts = rack.drain();
    let [Output::Script { text: Some(text), .. }] = scripts.as_slice() else { panic!("{scripts:?}") };
    let key = KeyHash::of(b"key");
    rack.engine.handle_request(at(2_000), 1, Request::Redeem { claim: claim(text), key });
    rack.drain();
    // The agent renews as an operating system would, and is none.
    let renew = Say { client_ip: given, delivery: Delivery::Unicast, ..say(MessageType::Request, mac(2)) };
    let (ack, _) = rack.answer(at(60_000), &renew).expect("an answer");
    assert_eq!(ack.lease_seconds, Some(600), "short while there is work");
    let finished = Request::Report { key, sequence: 1, report: Report::Finished };
    rack.engine.handle_request(at(100_000), 2, finished);
    rack.drain();
    assert_eq!(rack.engine.lease_at(given).map(|lease| lease.until_unix_seconds), Some(at(130_000).unix_seconds()));
    rack.restart(at(100_001));
    rack.engine.handle_timeout(at(131_000));
    rack.drain();
    assert!(rack.engine.lease_at(given).is_none(), "it has ended");
    let (offer, _) = rack.answer(at(140_000), &say(MessageType::Discover, mac(2))).expect("an offer");
    assert_eq!((offer.your_ip, offer.lease_seconds), (given, Some(86_400)), "its system comes back to the address");
}
