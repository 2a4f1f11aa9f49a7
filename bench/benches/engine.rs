//! What the rack's decisions cost: a Discover answered, a boot answer looked up, an index built.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bootstorm_engine::{Config, Engine, Index, Interface, Time};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::Delivery;
use bootstorm_proto::dhcp::wire::ClientMessage;
use bootstorm_snapshot::record::{Answer, Boot, Record, Reservation, Site, Subnet, Unknown};
use bootstorm_snapshot::{Generation, Mac, MachineId, SubnetId, View, VlanId};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const INTERFACE: u32 = 2;
const RACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Machines of the site: a large hall's.
const MACHINES: u16 = 10_000;

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0x52, 0x54, 0, 0, high, low])
}

/// One subnet, and so many machines with fixed addresses that wait.
fn site(machines: u16) -> View {
    let mut view = View { generation: Generation(1), ..View::default() };
    view.put(Record::Site(Site {
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        unknown: Unknown::Enlist,
        lease_seconds: 86_400,
        boot_lease_seconds: 600,
    }));
    view.put(Record::Subnet(Subnet {
        id: SubnetId(1),
        vlan: VlanId(1),
        cidr: "10.0.0.0/16".parse().expect("a network"),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 254)),
        dns_servers: vec![Ipv4Addr::new(10, 0, 0, 253)],
        ntp_servers: vec![],
        domain: Some("example.test".into()),
        mtu: None,
        dhcp: true,
        dynamic: vec![],
        ipv6_prefix: None,
    }));
    for number in 0..machines {
        let [high, low] = number.to_be_bytes();
        let machine = MachineId::from_random((u64::from(number) * 7919).to_le_bytes());
        let hostname = format!("n{number:05}");
        view.put(Record::Boot(Boot {
            machine,
            hostname: hostname.clone(),
            macs: vec![mac(number)],
            architecture: None,
            answer: Answer::Wait,
        }));
        view.put(Record::Reservation(Reservation {
            mac: mac(number),
            subnet: SubnetId(1),
            address: Ipv4Addr::new(10, 0, high + 1, low),
            hostname: Some(hostname),
            machine: Some(machine),
        }));
    }
    view
}

fn discover(number: u16, buffer: &mut [u8]) -> usize {
    ClientMessage {
        message_type: MessageType::Discover,
        transaction_id: u32::from(number),
        seconds: 0,
        broadcast: false,
        hops: 0,
        client_ip: Ipv4Addr::UNSPECIFIED,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        client_hardware_address: mac(number).0,
        options: &[(55, &[1, 3, 6, 12, 15, 66, 67]), (93, &[0, 7]), (60, b"PXEClient:Arch:00007:UNDI:003016")],
    }
    .encode(buffer)
    .expect("the buffer holds a Discover")
}

fn decisions(c: &mut Criterion) {
    let index = Arc::new(Index::new(site(MACHINES)));
    let interface = Interface { index: INTERFACE, mac: Mac([2, 0, 0, 0, 0, 1]), address: RACK, prefix_bits: 16 };
    let config = Config { interfaces: vec![interface], http_port: 5248, agent_port: 5249 };
    let mut engine = Engine::new(config, index.clone(), 0);
    let (mut number, mut buffer) = (0, [0; 1400]);
    c.bench_function("engine/discover_of_10000_machines", |b| {
        b.iter(|| {
            number = (number + 1) % MACHINES;
            let length = discover(number, &mut buffer);
            let now = Time { monotonic: Duration::ZERO, unix_micros: 1_800_000_000_000_000 };
            let from = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            engine.handle_dhcp(now, INTERFACE, from, Delivery::Broadcast, &buffer[..length]);
            let mut outputs = 0;
            while let Some(output) = engine.poll_output() {
                black_box(output);
                outputs += 1;
            }
            assert!(outputs > 0, "a machine with a fixed address gets an offer");
        });
    });
    c.bench_function("engine/boot_answer_by_mac", |b| {
        b.iter(|| {
            number = (number + 1) % MACHINES;
            let machine = index.machine(black_box(mac(number))).expect("it is there");
            index.boot(machine).expect("it has an answer")
        });
    });
}

fn snapshot(c: &mut Criterion) {
    let view = site(MACHINES);
    c.bench_function("snapshot/index_of_10000_machines", |b| {
        b.iter_batched(|| view.clone(), Index::new, BatchSize::LargeInput);
    });
}

criterion_group! {
    name = engine;
    config = Criterion::default().sample_size(20);
    targets = decisions, snapshot
}
criterion_main!(engine);
