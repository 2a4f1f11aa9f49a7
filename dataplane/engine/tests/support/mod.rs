//! A small site and a rack whose journal commits when the test says so.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bootstorm_engine::{Config, Engine, Entropy, Index, Interface, Output, Time};
use bootstorm_snapshot::plan::{After, Deploy, DiskSelector, Erase, Network, Plan, Start, Task};
use bootstorm_snapshot::record::{
    Answer, Boot, Enrolment, Environment, File, Record, Reservation, Site, Subnet, Unknown,
};
use bootstorm_snapshot::{
    Architecture, AttemptId, Encoding, EnrolmentId, Generation, ImageId, Ipv4Range, Mac, MachineId, ManifestDigest,
    OperationId, SubnetId, View, VlanId,
};

pub const INTERFACE: u32 = 2;
pub const RACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const HTTP_PORT: u16 = 5248;
pub const UNIX_SECONDS: u64 = 1_800_000_000;

pub fn config() -> Config {
    let interface = Interface { index: INTERFACE, mac: Mac([2, 0, 0, 0, 0, 1]), address: RACK, prefix_bits: 16 };
    Config { interfaces: vec![interface], http_port: HTTP_PORT, agent_port: 5249 }
}

pub fn at(milliseconds: u64) -> Time {
    Time { monotonic: Duration::from_millis(milliseconds), unix_micros: UNIX_SECONDS * 1_000_000 + milliseconds * 1000 }
}

pub fn mac(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    Mac([0x52, 0x54, 0, 0, high, low])
}

pub fn machine(n: u16) -> MachineId {
    MachineId::from_random((u64::from(n) * 7919).to_le_bytes())
}

pub fn operation(n: u64) -> OperationId {
    OperationId::new(n, [7; 10])
}

pub fn attempt(n: u64) -> AttemptId {
    AttemptId::new(n, [8; 10])
}

pub fn entropy(n: u64) -> Entropy {
    let digest = blake3::hash(&n.to_le_bytes());
    let mut entropy = Entropy { claim: [0; 16], id: [0; 10] };
    entropy.claim.copy_from_slice(&digest.as_bytes()[..16]);
    entropy.id.copy_from_slice(&digest.as_bytes()[16..26]);
    entropy
}

pub fn file(name: &str) -> File {
    let manifest = ManifestDigest::of(name.as_bytes());
    File { name: name.into(), manifest, raw: ImageId::of(name.as_bytes()), raw_bytes: 1000, encoding: Encoding::Plain }
}

/// A site with one subnet, an environment for amd64 and arm64, and no machines.
pub fn site() -> View {
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
        cidr: "10.0.0.0/16".parse().expect("net"),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 254)),
        dns_servers: vec![Ipv4Addr::new(10, 0, 0, 253)],
        ntp_servers: vec![],
        domain: Some("example.test".into()),
        mtu: None,
        dhcp: true,
        dynamic: vec![Ipv4Range { first: Ipv4Addr::new(10, 0, 9, 0), last: Ipv4Addr::new(10, 0, 9, 255) }],
        ipv6_prefix: None,
    }));
    for (architecture, loaders) in [
        (Architecture::Amd64, &["undionly.kpxe", "snponly.efi", "ipxe.efi"][..]),
        (Architecture::Arm64, &["ipxe-arm64.efi"][..]),
    ] {
        view.put(Record::Environment(Environment {
            architecture,
            version: "1".into(),
            kernel: file(&format!("{architecture}-kernel")),
            initrd: file(&format!("{architecture}-initrd")),
            command_line: vec!["console=ttyS0".into()],
            loaders: loaders.iter().map(|name| file(name)).collect(),
        }));
    }
    view
}

/// Puts machine `n` with its reservation 10.0.1.n and an answer.
pub fn put_machine(view: &mut View, n: u16, answer: Answer) {
    let [high, low] = n.to_be_bytes();
    view.put(Record::Boot(Boot {
        machine: machine(n),
        hostname: format!("n{n:03}"),
        macs: vec![mac(n)],
        architecture: None,
        answer,
    }));
    view.put(Record::Reservation(Reservation {
        mac: mac(n),
        subnet: SubnetId(1),
        address: Ipv4Addr::new(10, 0, high + 1, low),
        hostname: Some(format!("n{n:03}")),
        machine: Some(machine(n)),
    }));
}

/// The answer "the agent, for operation `op`", and its plan.
pub fn put_work(view: &mut View, n: u16, op: u64, task: Task, after: After) {
    put_machine(view, n, Answer::Agent { operation: operation(op), attempt: attempt(op) });
    let plan = Plan {
        operation: Some(operation(op)),
        machine: Some(machine(n)),
        hostname: Some(format!("n{n:03}")),
        task,
        after,
    };
    view.put(Record::Plan(operation(op), plan));
}

pub fn put_enrolment(view: &mut View, enrolment: EnrolmentId, n: u16) {
    view.put(Record::Enrolment(Enrolment { enrolment, machine: machine(n) }));
}

pub fn erase() -> Task {
    Task::Erase { method: Erase::Quick }
}

pub fn deploy() -> Task {
    Task::Deploy(Box::new(Deploy {
        image_name: "debian".into(),
        image: ImageId::of(b"image"),
        manifest: ManifestDigest::of(b"image"),
        raw_bytes: 1 << 20,
        encoding: Encoding::Zstd,
        disk: DiskSelector::Smallest,
        grow: true,
        start: Start::Auto,
        network: Network::default(),
        secrets: false,
        ssh_authorized_keys: vec![],
        ready_seconds_max: 600,
    }))
}

/// An engine whose journal is a list of payloads.
pub struct Rack {
    pub engine: Engine,
    /// Everything written, with sequences; durable up to `durable`.
    pub journal: Vec<(u64, Vec<u8>)>,
    pub durable: u64,
    /// Whether each batch is durable at once.
    pub prompt: bool,
    pub view: View,
    entropies: u64,
}

impl Rack {
    pub fn new(view: View) -> Rack {
        let index = Arc::new(Index::new(view.clone()));
        let engine = Engine::new(config(), index, 0);
        Rack { engine, journal: vec![], durable: 0, prompt: true, view, entropies: 0 }
    }

    pub fn entropy(&mut self) -> Entropy {
        self.entropies += 1;
        entropy(self.entropies)
    }

    /// All outputs that come, journal batches taken care of.
    pub fn drain(&mut self) -> Vec<Output> {
        let mut outputs = vec![];
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Commit { records, last_sequence } => {
                    let first = last_sequence + 1 - records.len() as u64;
                    assert_eq!(first, self.journal.last().map_or(0, |(last, _)| *last) + 1, "sequences have no gap");
                    self.journal.extend((first..).zip(records));
                    if self.prompt {
                        self.commit();
                    }
                }
                output => outputs.push(output),
            }
        }
        outputs
    }

    /// Everything written becomes durable.
    pub fn commit(&mut self) {
        self.durable = self.journal.last().map_or(0, |(last, _)| *last);
        self.engine.handle_committed(self.durable);
    }

    /// The rack dies and starts again from what is durable.
    pub fn restart(&mut self, now: Time) {
        self.journal.retain(|(sequence, _)| *sequence <= self.durable);
        let records = self.journal.iter().map(|(sequence, payload)| (*sequence, payload.as_slice()));
        let index = Arc::new(Index::new(self.view.clone()));
        self.engine = Engine::recover(now, config(), index, self.durable, records).expect("own records");
    }

    /// Control publishes a changed view.
    pub fn publish(&mut self, now: Time, change: impl FnOnce(&mut View)) -> Vec<Output> {
        change(&mut self.view);
        self.view.generation = Generation(self.view.generation.0 + 1);
        self.engine.handle_index(now, Arc::new(Index::new(self.view.clone())));
        self.drain()
    }
}
