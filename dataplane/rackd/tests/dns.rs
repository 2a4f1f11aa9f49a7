//! The rack role's DNS on loopback: answers out of the snapshot on its disk, changes without a pause, the threat model's row.

#[allow(dead_code)] // Each test crate uses its part of it.
mod support;

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use bootstorm_api::frame;
use bootstorm_api::local::ToRack;
use bootstorm_proto::dns::answer::Response;
use bootstorm_proto::dns::query::{Recursion, header, write_question};
use bootstorm_proto::dns::{RecordType, ResponseCode};
use bootstorm_rackd::{Driver, write_base};
use bootstorm_snapshot::dns::{Name, RecordSet, Zone};
use bootstorm_snapshot::record::{Record, Subnet};
use bootstorm_snapshot::{Generation, SubnetId, View, VlanId, codec};
use support::{PATIENCE, Random, Role};

/// A zone with hosts; loopback is a subnet of ours.
fn view(generation: u64, hosts: &[(&str, u8)]) -> View {
    let mut view = View { generation: Generation(generation), ..View::default() };
    view.put(Record::Subnet(Subnet {
        id: SubnetId(1),
        vlan: VlanId(1),
        cidr: "127.0.0.0/24".parse().expect("net"),
        gateway: None,
        dns_servers: vec![],
        ntp_servers: vec![],
        domain: None,
        mtu: None,
        dhcp: false,
        dynamic: vec![],
        ipv6_prefix: None,
    }));
    view.put(Record::Zone(Zone {
        name: "z.test".parse().expect("name"),
        primary: "ns.z.test".parse().expect("name"),
        contact: "root.z.test".parse().expect("name"),
        serial: generation as u32,
        refresh_seconds: 1,
        retry_seconds: 1,
        expire_seconds: 1,
        negative_seconds: 1,
        ttl_seconds: 1,
    }));
    for (host, last) in hosts {
        let name = format!("{host}.z.test").parse().expect("name");
        view.put(Record::Name(Name { name, sets: vec![RecordSet::a(60, [[10, 0, 0, *last].into()])] }));
    }
    view
}

fn rack(data: &Path, view: View, driver: Driver) -> Role {
    let snapshot = data.join("snapshot");
    std::fs::create_dir_all(&snapshot).expect("made");
    write_base(&snapshot, view).expect("written");
    let role = Role::rack_by(data, driver);
    role.until_it_listens();
    role
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = [0; 300];
    let length = write_question(name, RecordType::A, &mut bytes).expect("a name");
    [&header(7, Recursion::NotDesired)[..], &bytes[..length]].concat()
}

/// A client at an address of loopback.
struct Client(UdpSocket);

impl Client {
    fn at(address: [u8; 4], role: &Role) -> Client {
        let socket = UdpSocket::bind((Ipv4Addr::from(address), 0)).expect("socket");
        // Connected: an answer from any other address than the one asked would not be seen.
        socket.connect(role.dns.expect("a rack")).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client(socket)
    }

    fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.0.send(datagram).expect("sent");
        let mut buffer = [0; 2_048];
        let length = self.0.recv(&mut buffer).expect("an answer in time");
        buffer[..length].to_vec()
    }

    /// The last octet of a host's address; `None` if the name is not there.
    fn host(&self, name: &str) -> Option<u8> {
        let answer = self.ask(&question(name));
        let read = Response::parse(&answer).expect("an answer");
        match read.code {
            ResponseCode::NoError => answer.last().copied(),
            ResponseCode::NameError => None,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rack_answers_from_its_disk_by_either_driver() {
    for driver in [Driver::Auto, Driver::Epoll] {
        let data = tempfile::tempdir().expect("directory");
        let role = rack(data.path(), view(3, &[("a", 1), ("b", 2)]), driver);
        let client = Client::at([127, 0, 0, 1], &role);
        assert_eq!(
            [client.host("a.z.test"), client.host("B.Z.test"), client.host("c.z.test")],
            [Some(1), Some(2), None]
        );
        let answer = client.ask(&question("a.elsewhere"));
        assert_eq!(Response::parse(&answer).expect("an answer").code, ResponseCode::Refused);
        role.until("bootstorm_rack_dns_answers_total{what=\"answer\"}", 2);
        role.until("bootstorm_rack_dns_answers_total{what=\"nxdomain\"}", 1);
        role.until("bootstorm_rack_dns_answers_total{what=\"refused\"}", 1);
    }
}

#[test]
fn a_change_is_served_without_a_pause() {
    let data = tempfile::tempdir().expect("directory");
    let mut now = view(1, &[("a", 1), ("gone", 9)]);
    let role = rack(data.path(), now.clone(), Driver::Auto);
    let client = Client::at([127, 0, 0, 1], &role);
    let mut gateway = role.gateway();
    for step in 2..20_u8 {
        let next = view(step.into(), &[("a", step), ("other", step)]);
        let mut text = Vec::new();
        now.delta(&next).iter().for_each(|line| codec::encode_line(line, &mut text));
        let message =
            ToRack::Snapshot { generation: next.generation, from: Some(now.generation), first: true, last: true };
        let packed = zstd::bulk::compress(&text, 1).expect("compressed");
        gateway.write_all(&frame::encode(&message, &packed).expect("frame")).expect("sent");
        now = next;
        let begin = Instant::now();
        // Every question on the way has an answer: the old one or the new one.
        while client.host("a.z.test") != Some(step) {
            assert!(begin.elapsed() < PATIENCE, "generation {step} is not served");
        }
        assert_eq!([client.host("other.z.test"), client.host("gone.z.test")], [Some(step), None]);
    }
}

#[test]
fn t8_strangers_get_no_more_than_they_send_once_the_limit_bites() {
    let data = tempfile::tempdir().expect("directory");
    let role = rack(data.path(), view(1, &[("a", 1)]), Driver::Auto);
    let stranger = Client::at([127, 9, 9, 9], &role);
    stranger.0.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let asked = question("a.z.test");
    let (mut whole, mut empty) = (0, 0);
    let mut buffer = [0; 2_048];
    for _ in 0..200 {
        (0..20).for_each(|_| assert_eq!(stranger.0.send(&asked).expect("sent"), asked.len()));
        stranger.0.set_nonblocking(true).expect("set");
        while let Ok(length) = stranger.0.recv(&mut buffer) {
            *if length > asked.len() { &mut whole } else { &mut empty } += 1;
        }
        stranger.0.set_nonblocking(false).expect("set");
    }
    while let Ok(length) = stranger.0.recv(&mut buffer) {
        *if length > asked.len() { &mut whole } else { &mut empty } += 1;
    }
    role.until("bootstorm_rack_dns_answers_total{what=\"limited\"}", 1);
    assert!(whole > 0 && empty > 0, "{whole} answers and {empty} empty ones");
    let limited = role.metric("bootstorm_rack_dns_answers_total{what=\"limited\"}");
    let answered = role.metric("bootstorm_rack_dns_answers_total{what=\"answer\"}");
    assert!(answered >= whole && limited >= empty);
    // Somebody on a subnet of ours is answered all the while.
    assert_eq!(Client::at([127, 0, 0, 2], &role).host("a.z.test"), Some(1));
}

#[test]
fn dns_bad_questions_are_counted_by_reason_and_the_rack_goes_on() {
    let data = tempfile::tempdir().expect("directory");
    let role = rack(data.path(), view(1, &[("a", 1)]), Driver::Auto);
    let client = Client::at([127, 0, 0, 1], &role);
    let good = question("a.z.test");
    let silent = |what: &str, bytes: &[u8], reason: &str| {
        client.0.send(bytes).expect("sent");
        role.until(&format!("bootstorm_rack_drops_total{{protocol=\"dns\",reason=\"{reason}\"}}"), 1);
        client.0.set_nonblocking(true).expect("set");
        assert!(client.0.recv(&mut [0; 64]).is_err(), "{what} was answered");
        client.0.set_nonblocking(false).expect("set");
    };
    silent("nothing", &[], "too_short");
    let mut response = good.clone();
    response[2] |= 0x80;
    silent("a response", &response, "response");
    silent("a long one", &[0; 1_500], "too_long");
    for (at, value, code) in [(2, 0x20, 4), (5, 2, 1), (12, 0xc0, 1), (7, 1, 1), (9, 1, 1)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        let answer = client.ask(&bytes);
        assert_eq!((answer.len(), answer[3]), (12, code));
    }
    let mut random = Random(5);
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        client.0.send(&bytes).expect("sent");
    }
    // Another socket: what answers the rubbish does not come to it. The burst may have left no room for the first question.
    let last = Client::at([127, 0, 0, 3], &role);
    last.0.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let (begin, mut buffer) = (Instant::now(), [0; 2_048]);
    let length = loop {
        last.0.send(&good).expect("sent");
        match last.0.recv(&mut buffer) {
            Ok(length) => break length,
            Err(_) => assert!(begin.elapsed() < PATIENCE, "the rack does not answer any more"),
        }
    };
    assert_eq!(buffer[..length].last(), Some(&1));
}
