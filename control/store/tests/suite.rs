//! One suite of tests over every implementation of the store: what the trait promises, tried from outside.
//!
//! A [`Site`] opens stores over one place of its own; a second implementation adds a `Site` and a line at the end.

use bootstorm_model::lifecycle::{AfterCommissioning, Effect, Event, Flags, Start, Status, transition};
use bootstorm_model::operation::DeployParameters;
use bootstorm_model::{
    Address, AddressKind, BootEnvironment, Fabric, Image, ImageState, Interface, IpRange, Machine, NewLogEntry,
    OperationState, Outcome, Parameters, Power, PowerState, Rack, RangeKind, Severity, Span, State, Step, Subnet,
    Timestamp, Vlan,
};
use bootstorm_snapshot::inventory::{Cpu, Disk, Dmi, Firmware, Interface as Nic, Inventory};
use bootstorm_snapshot::observation::Progress;
use bootstorm_snapshot::plan::DiskSelector;
use bootstorm_snapshot::record::{Environment, File};
use bootstorm_snapshot::{
    Architecture, AttemptId, Encoding, EnrolmentId, EventId, FabricId, Generation, ImageId, InterfaceId, Ipv4Range,
    Mac, MachineId, ManifestDigest, OperationId, RackId, RangeId, Stage, SubnetId, VlanId,
};
use bootstorm_store::{
    Change, Committed, Error, LogFilter, MachineFilter, MachineUpdate, NewMachine, NewOperation, Observed,
    OperationFilter, Order, Page, SecretContext, SqliteStore, Store, Token, TokenScope, Transition,
};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A place of its own for one test, gone when the test is.
trait Site {
    /// A place where nothing is stored yet.
    fn new() -> Self;
    /// A store over it; the second time, over what the first has stored.
    async fn open(&self) -> Arc<dyn Store>;
    /// Another site with what a machine that lost power just now would find; stores stay open.
    fn after_power_loss(&self) -> Self;
}

struct SqliteSite(PathBuf);

impl Site for SqliteSite {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bootstorm-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.join("db")).await.expect("a store"))
    }

    fn after_power_loss(&self) -> Self {
        let copy = Self::new();
        for name in ["db", "db-wal"] {
            std::fs::copy(self.0.join(name), copy.0.join(name)).expect("a file");
        }
        copy
    }
}

impl Drop for SqliteSite {
    fn drop(&mut self) {
        // Nothing depends on it: a directory that stays is one in the place for temporary ones.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: u32) -> Timestamp {
    Timestamp(0).plus_seconds(seconds)
}

fn machine_id(n: u8) -> MachineId {
    MachineId::from_random([n, 0, 0, 0, 0, 0, 0, 0])
}

fn operation_id(n: u8) -> OperationId {
    OperationId::new(u64::from(n), [n; 10])
}

fn attempt_id(n: u8) -> AttemptId {
    AttemptId::new(u64::from(n), [n; 10])
}

fn rack_id(n: u8) -> RackId {
    RackId::new(u64::from(n), [n; 10])
}

fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn new_machine(n: u8) -> NewMachine {
    NewMachine {
        id: machine_id(n),
        hostname: format!("n{n:03}").parse().expect("a name"),
        pool: "default".parse().expect("a name"),
        architecture: None,
        firmware: None,
        power: Power::default(),
        interfaces: vec![Interface { id: InterfaceId(0), mac: mac(n), name: "eth0".to_string(), boot: true }],
        enrolment: Some(EnrolmentId::new(u64::from(n), [n; 10])),
    }
}

fn new_operation(n: u8, parameters: Parameters) -> NewOperation {
    NewOperation {
        id: operation_id(n),
        attempt: attempt_id(n),
        parameters,
        requested_by: "admin".to_string(),
        idempotency_key: Some(format!("key-{n}")),
    }
}

fn log_entry(machine: Option<MachineId>, text: &str) -> NewLogEntry {
    NewLogEntry {
        at: at(1),
        severity: Severity::Info,
        code: "test".to_string(),
        machine,
        operation: None,
        actor: "suite".to_string(),
        text: text.to_string(),
    }
}

fn step(machine: &Machine, event: Event) -> Step {
    transition(&machine.state, &event).expect("a legal event")
}

fn moves(machine: &Machine, event: Event) -> Transition {
    Transition {
        machine: machine.id,
        version: machine.version,
        step: step(machine, event),
        owner: None,
        installed: None,
        finish: None,
        start: None,
    }
}

async fn create(store: &dyn Store, n: u8) -> Machine {
    store.commit(vec![Change::CreateMachine(new_machine(n))], None, at(1)).await.expect("created");
    machine(store, n).await
}

async fn machine(store: &dyn Store, n: u8) -> Machine {
    store.machine(machine_id(n)).await.expect("read").expect("there")
}

const COMMISSION: Event = Event::Commission { start: Start::PowerCycle };

/// A machine with operation `n` commissioning it.
async fn commissioning(store: &dyn Store, n: u8) -> Machine {
    let machine = create(store, n).await;
    let start = Some(new_operation(n, Parameters::Commission));
    let change = Change::Transition(Transition { start, ..moves(&machine, COMMISSION) });
    store.commit(vec![change], None, at(2)).await.expect("commissioned");
    self::machine(store, n).await
}

async fn network(store: &dyn Store) -> (Fabric, Vlan, Subnet) {
    let fabric = Fabric { id: FabricId(0), name: "fabric-0".parse().expect("a name") };
    let fabric = store.create_fabric(fabric).await.expect("a fabric");
    let vlan = Vlan {
        id: VlanId(0),
        fabric: fabric.id,
        vid: 0,
        name: "untagged".parse().expect("a name"),
        mtu: 1500,
        dhcp_on: true,
    };
    let vlan = store.create_vlan(vlan).await.expect("a VLAN");
    let subnet = store.create_subnet(subnet(vlan.id, "lab", "10.0.0.0/24")).await.expect("a subnet");
    (fabric, vlan, subnet)
}

fn subnet(vlan: VlanId, name: &str, cidr: &str) -> Subnet {
    let cidr: bootstorm_snapshot::Ipv4Net = cidr.parse().expect("a network");
    let gateway = Ipv4Addr::from(u32::from(cidr.network()) + 1);
    Subnet {
        id: SubnetId(0),
        vlan,
        name: name.parse().expect("a name"),
        cidr,
        gateway: Some(gateway),
        dns_servers: vec![gateway],
        ntp_servers: vec![],
        domain: None,
        ipv6_prefix: None,
    }
}

fn range(subnet: SubnetId, kind: RangeKind, first: &str, last: &str) -> IpRange {
    let range = Ipv4Range { first: ip(first), last: ip(last) };
    IpRange { id: RangeId(0), subnet, kind, range, comment: String::new() }
}

fn address(subnet: SubnetId, text: &str, kind: AddressKind, n: u8) -> Address {
    Address { ip: ip(text), subnet, kind, mac: Some(mac(n)), machine: None, until: None, updated: at(1) }
}

fn inventory(macs: &[Mac]) -> Inventory {
    let nic = |mac: &Mac| Nic {
        name: "enp1s0".to_string(),
        mac: *mac,
        link_up: true,
        speed_mbit: None,
        driver: None,
        pci: None,
        boot: false,
    };
    let disk = Disk {
        name: "vda".to_string(),
        bytes: 8 << 30,
        block_bytes: 512,
        rotational: false,
        read_only: false,
        removable: false,
        model: None,
        serial: None,
        wwn: None,
    };
    Inventory {
        architecture: Architecture::Amd64,
        firmware: Firmware::Uefi,
        cpu: Cpu { model: "cpu".to_string(), sockets: 1, cores: 2, threads: 4 },
        memory_bytes: 2 << 30,
        disks: vec![disk],
        interfaces: macs.iter().map(nic).collect(),
        dmi: Dmi::default(),
        pci: vec![],
        agent_version: "0".to_string(),
        kernel: "6".to_string(),
    }
}

fn image(name: &str, n: u8) -> Image {
    Image {
        name: name.parse().expect("a name"),
        id: ImageId([n; 32]),
        manifest: ManifestDigest([n; 32]),
        raw_bytes: 1 << 30,
        stored_bytes: 1 << 28,
        encoding: Encoding::Zstd,
        architecture: Some(Architecture::Amd64),
        state: ImageState::Ready,
        created: at(1),
    }
}

fn deploy(n: u8) -> Parameters {
    Parameters::Deploy(Box::new(DeployParameters {
        image: ImageId([n; 32]),
        image_name: "debian-12".to_string(),
        disk: DiskSelector::Smallest,
        grow: true,
        start: bootstorm_snapshot::plan::Start::Auto,
        ssh_authorized_keys: vec![],
        user_data: true,
        ready_seconds_max: 600,
    }))
}

async fn claim(store: &dyn Store, worker: &str, now: u32) -> Vec<bootstorm_store::QueuedEffect> {
    store.claim_effects(worker, at(now), at(now + 60), 100).await.expect("claimed")
}

// Machines.

async fn machines_are_found_by_every_name<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let created = create(&*store, 1).await;
    assert_eq!((created.state, created.version, created.created), (State::New, 1, at(1)));
    assert!(created.interfaces.iter().all(|interface| interface.id.0 > 0));
    let enrolment = created.enrolment.expect("an enrolment");
    for found in [
        store.machine_by_mac(mac(1)).await,
        store.machine_by_hostname(&created.hostname).await,
        store.machine_by_enrolment(enrolment).await,
    ] {
        assert_eq!(found.expect("read"), Some(created.clone()));
    }
    assert_eq!(store.machine(machine_id(2)).await.expect("read"), None);
    assert_eq!(store.machine_by_mac(mac(2)).await.expect("read"), None);
}

async fn what_must_be_unique_is_and_nothing_is_stored_otherwise<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    create(&*store, 1).await;
    let generation = store.generation().await.expect("read");
    for (field, what) in [(0, "machine id"), (1, "host name"), (2, "MAC address"), (3, "enrolment")] {
        let (mut new, old) = (new_machine(2), new_machine(1));
        match field {
            0 => new.id = old.id,
            1 => new.hostname = old.hostname,
            2 => new.interfaces[0].mac = mac(1),
            _ => new.enrolment = old.enrolment,
        }
        let changes = vec![Change::Log(log_entry(None, "first")), Change::CreateMachine(new)];
        match store.commit(changes, None, at(2)).await {
            Err(Error::Duplicate { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(store.generation().await.expect("read"), generation);
    assert_eq!(store.machines(&MachineFilter::default(), &Page::first(10)).await.expect("read").len(), 1);
    let log = store.log(&LogFilter::default(), Order::OldestFirst, &Page::first(10)).await.expect("read");
    assert_eq!(log, [], "the log entry before the failure was taken back");
}

async fn machines_change_and_go<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = create(&*store, 1).await;
    let secret = SecretContext::MachinePower(machine.id);
    store.put_secret(&secret, b"sealed").await.expect("stored");
    let flags = Flags { locked: false, held: true };
    let interfaces = vec![
        machine.interfaces[0].clone(),
        Interface { id: InterfaceId(0), mac: mac(9), name: "eth1".to_string(), boot: false },
    ];
    let update = MachineUpdate {
        hostname: Some("renamed".parse().expect("a name")),
        flags: Some(flags),
        hold_reason: Some(Some("claim redeemed twice".to_string())),
        interfaces: Some(interfaces),
        power: Some(Power { driver: "webhook".to_string(), state: PowerState::On, checked: Some(at(2)) }),
        ..MachineUpdate::default()
    };
    let change = |version| Change::UpdateMachine { machine: machine.id, version, update: update.clone() };
    let stale = store.commit(vec![change(Some(7))], None, at(2)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");
    store.commit(vec![change(Some(1))], None, at(2)).await.expect("changed");
    let changed = self::machine(&*store, 1).await;
    assert_eq!((changed.version, changed.flags, changed.hostname.as_str()), (2, flags, "renamed"));
    assert_eq!(changed.interfaces[0].id, machine.interfaces[0].id, "a known address keeps its id");
    assert_eq!(store.machine_by_mac(mac(9)).await.expect("read").map(|machine| machine.id), Some(machine.id));

    let only_power = MachineUpdate { power: Some(Power::default()), ..MachineUpdate::default() };
    let generation = store.generation().await.expect("read");
    let change = Change::UpdateMachine { machine: machine.id, version: None, update: only_power };
    store.commit(vec![change], None, at(3)).await.expect("changed");
    assert_eq!(store.generation().await.expect("read"), generation, "racks do not see who is switched on");

    let delete = |version| vec![Change::DeleteMachine { machine: machine.id, version }];
    assert!(matches!(store.commit(delete(2), None, at(4)).await, Err(Error::Conflict { .. })));
    store.commit(delete(3), None, at(4)).await.expect("deleted");
    assert_eq!(store.machine_by_mac(mac(9)).await.expect("read"), None);
    assert_eq!(store.secret(&secret).await.expect("read"), None);
    create(&*store, 1).await;
}

async fn lists_come_in_pages_and_by_filter<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let changes = (1..=25).map(|n| {
        let mut new = new_machine(n);
        if n > 20 {
            new.pool = "gpu".parse().expect("a name");
        }
        Change::CreateMachine(new)
    });
    store.commit(changes.collect(), None, at(1)).await.expect("created");
    commissioning(&*store, 26).await;
    let names = async |filter: MachineFilter, page: Page<_>| -> Vec<String> {
        let machines = store.machines(&filter, &page).await.expect("read");
        machines.into_iter().map(|machine| machine.hostname.to_string()).collect()
    };
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|name: &String| name.parse().expect("a name"));
        let page = names(MachineFilter::default(), Page { after, limit: 7 }).await;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(all, (1..=26).map(|n| format!("n{n:03}")).collect::<Vec<_>>());
    let filter = MachineFilter { pool: Some("gpu".parse().expect("a name")), ..MachineFilter::default() };
    assert_eq!(names(filter, Page::first(100)).await.len(), 5);
    let filter = MachineFilter { statuses: vec![Status::Commissioning, Status::Ready], ..MachineFilter::default() };
    assert_eq!(names(filter, Page::first(100)).await, ["n026"]);
    let filter = MachineFilter { hostname_glob: Some("n0?5".to_string()), ..MachineFilter::default() };
    assert_eq!(names(filter, Page::first(100)).await, ["n005", "n015", "n025"]);
    let hostnames = ["n003", "n001", "n099"].map(|name| name.parse().expect("a name")).to_vec();
    let filter = MachineFilter { hostnames, ..MachineFilter::default() };
    assert_eq!(names(filter, Page::first(100)).await, ["n001", "n003"]);
    assert_eq!(store.machine_counts().await.expect("read"), [(0, 25), (1, 1)]);
}

async fn an_inventory_adds_what_it_found<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = create(&*store, 1).await;
    let found = inventory(&[mac(1), mac(2)]);
    let change = Change::Inventory { machine: machine.id, inventory: Box::new(found.clone()) };
    store.commit(vec![change], None, at(2)).await.expect("stored");
    let after = self::machine(&*store, 1).await;
    assert_eq!(after.interfaces.iter().map(|interface| interface.mac).collect::<Vec<_>>(), [mac(1), mac(2)]);
    assert_eq!((after.architecture, after.firmware), (Some(Architecture::Amd64), Some(Firmware::Uefi)));
    assert_eq!(after.inventory.map(|summary| (summary.disks, summary.cpu_threads)), Some((1, 4)));
    assert_eq!(store.inventory(machine.id).await.expect("read"), Some(found));

    create(&*store, 3).await;
    let stolen = Change::Inventory { machine: machine.id, inventory: Box::new(inventory(&[mac(1), mac(3)])) };
    assert!(matches!(store.commit(vec![stolen], None, at(3)).await, Err(Error::Duplicate { what: "MAC address", .. })));
}

// Transitions, operations, effects.

async fn a_transition_stores_state_operation_effects_and_log_together<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = create(&*store, 1).await;
    let before = store.generation().await.expect("read");
    let start = Some(new_operation(1, Parameters::Commission));
    let change = Change::Transition(Transition { start, ..moves(&machine, COMMISSION) });
    let entry = Change::Log(log_entry(Some(machine.id), "commissioning"));
    let committed = store.commit(vec![change, entry], None, at(2)).await.expect("committed");
    let generation = Generation(before.0 + 1);
    assert_eq!(committed, Committed::Now(generation));
    let after = self::machine(&*store, 1).await;
    assert_eq!((after.state.status(), after.version), (Status::Commissioning, machine.version + 1));
    assert_eq!(after.operation, Some(operation_id(1)));
    let operation = store.operation(operation_id(1)).await.expect("read").expect("there");
    assert_eq!(
        (operation.state, operation.stage, operation.machine),
        (OperationState::Running, Stage::Queued, Some(machine.id))
    );
    assert!(operation.deadline.is_some());
    assert_eq!(store.operation_by_key("key-1").await.expect("read"), Some(operation));
    let effects = claim(&*store, "worker", 3).await;
    assert_eq!(effects.len(), 1, "only the first of a machine");
    assert_eq!((effects[0].effect, effects[0].generation, effects[0].tries), (Effect::PublishSnapshot, generation, 1));
    assert_eq!(effects[0].operation, Some(operation_id(1)));
    let filter = LogFilter { machine: Some(machine.id), operation: None };
    assert_eq!(store.log(&filter, Order::OldestFirst, &Page::first(10)).await.expect("read").len(), 1);
}

async fn a_failed_commit_stores_nothing<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = create(&*store, 1).await;
    create(&*store, 2).await;
    let good = || {
        let start = Some(new_operation(1, Parameters::Commission));
        Change::Transition(Transition { start, ..moves(&machine, COMMISSION) })
    };
    let unknown = OperationId::new(9, [9; 10]);
    let bad: [Change; 5] = [
        Change::CreateMachine(new_machine(2)),
        Change::FinishOperation { operation: unknown, outcome: Outcome::Cancelled },
        Change::Span(Span {
            operation: unknown,
            attempt: attempt_id(1),
            stage: Stage::Dhcp,
            at: at(1),
            detail: String::new(),
        }),
        Change::PutSecret { context: SecretContext::Site("x".to_string()), sealed: vec![0; 2 << 20] },
        Change::DeleteMachine { machine: machine_id(2), version: 99 },
    ];
    let generation = store.generation().await.expect("read");
    for bad in bad {
        let changes = vec![good(), Change::Log(log_entry(None, "x")), bad];
        store.commit(changes, None, at(3)).await.expect_err("refused");
        assert_eq!(self::machine(&*store, 1).await, machine);
        assert_eq!(store.operation(operation_id(1)).await.expect("read"), None);
        assert_eq!(claim(&*store, "worker", 4).await, []);
        assert_eq!(store.log(&LogFilter::default(), Order::OldestFirst, &Page::first(9)).await.expect("read"), []);
        assert_eq!(store.generation().await.expect("read"), generation);
    }
    store.commit(vec![good()], None, at(5)).await.expect("and alone it is good");
}

async fn of_two_that_decide_at_once_one_wins<S: Site>() {
    let site = S::new();
    let (first, second) = (site.open().await, site.open().await);
    let machine = create(&*first, 1).await;
    let mut tasks = Vec::new();
    for (n, store) in [first.clone(), second].into_iter().cycle().take(8).enumerate() {
        let start = Some(new_operation(n as u8 + 1, Parameters::Commission));
        let change = Change::Transition(Transition { start, ..moves(&machine, COMMISSION) });
        tasks.push(tokio::spawn(async move { store.commit(vec![change], None, at(2)).await }));
    }
    let (mut won, mut lost) = (0, 0);
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(Committed::Now(_)) => won += 1,
            Err(Error::Conflict { what: "machine", .. }) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((won, lost), (1, 7));
    let page = Page::first(10);
    assert_eq!(first.operations(&OperationFilter::default(), &page).await.expect("read").len(), 1);
}

async fn effects_happen_in_order_and_at_least_once<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    commissioning(&*store, 1).await;
    commissioning(&*store, 2).await;
    let first = claim(&*store, "a", 10).await;
    assert_eq!(first.iter().map(|effect| effect.machine).collect::<Vec<_>>(), [machine_id(1), machine_id(2)]);
    assert_eq!(claim(&*store, "b", 20).await, [], "both are taken");
    assert!(!store.effect_done(first[0].id, "b", at(20)).await.expect("answered"), "not by another worker");

    let again = claim(&*store, "b", 71).await;
    assert_eq!(
        again.iter().map(|effect| effect.tries).collect::<Vec<_>>(),
        [2, 2],
        "the worker was lost, its leases ended"
    );
    assert!(!store.effect_done(first[0].id, "a", at(72)).await.expect("answered"), "it has gone to b");
    assert!(store.effect_done(again[0].id, "b", at(72)).await.expect("answered"));
    assert!(store.effect_failed(again[1].id, "b", "unreachable", Some(at(100)), at(72)).await.expect("answered"));
    let next = claim(&*store, "a", 73).await;
    assert_eq!(next.len(), 1, "machine 2 waits for its retry");
    assert!(matches!(next[0].effect, Effect::PowerCycle { .. }));
    assert!(store.effect_done(next[0].id, "a", at(74)).await.expect("answered"));
    assert_eq!(store.next_effect_due().await.expect("read"), Some(at(100)));
    let retried = claim(&*store, "a", 100).await;
    assert_eq!((retried.len(), retried[0].tries), (1, 3));

    assert!(store.effect_failed(retried[0].id, "a", "given up", None, at(101)).await.expect("answered"));
    assert_eq!(
        claim(&*store, "a", 5000).await,
        [],
        "what is given up holds back what follows: no power before publication"
    );
    assert_eq!(store.next_effect_due().await.expect("read"), None);
}

async fn a_newer_step_supersedes_older_effects<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = commissioning(&*store, 1).await;
    let publish = claim(&*store, "a", 10).await.remove(0);
    let abort = Transition { finish: Some(Outcome::Cancelled), ..moves(&machine, Event::Abort) };
    store.commit(vec![Change::Transition(abort)], None, at(11)).await.expect("aborted");
    assert_eq!(claim(&*store, "b", 12).await, [], "not while the old one is under way");
    assert!(!store.effect_done(publish.id, "a", at(13)).await.expect("answered"), "it no longer matters");
    let mut performed = Vec::new();
    for now in 14..20 {
        for effect in claim(&*store, "b", now).await {
            performed.push((effect.effect, effect.operation));
            assert!(store.effect_done(effect.id, "b", at(now)).await.expect("answered"));
        }
    }
    let ended = Some(operation_id(1));
    assert_eq!(performed, [(Effect::RevokeAttempt, ended), (Effect::PublishSnapshot, None), (Effect::PowerOff, None)]);
    let operation = store.operation(operation_id(1)).await.expect("read").expect("there");
    assert_eq!((operation.state, operation.deadline), (OperationState::Cancelled, None));
    assert_eq!(self::machine(&*store, 1).await.operation, None);
}

async fn a_lost_workers_superseded_effect_gives_way_when_its_lease_ends<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = commissioning(&*store, 1).await;
    assert_eq!(claim(&*store, "lost", 10).await.len(), 1);
    let abort = Transition { finish: Some(Outcome::Cancelled), ..moves(&machine, Event::Abort) };
    store.commit(vec![Change::Transition(abort)], None, at(11)).await.expect("aborted");
    assert_eq!(store.next_effect_due().await.expect("read"), Some(at(70)));
    assert_eq!(claim(&*store, "b", 69).await, []);
    assert_eq!(claim(&*store, "b", 70).await.first().map(|effect| effect.effect), Some(Effect::RevokeAttempt));
}

async fn a_worker_that_starts_anew_goes_on_at_once<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    create(&*store, 1).await;
    let mut found = inventory(&[mac(1)]);
    found.dmi.system_uuid = Some("4C4C4544-0042-3010-8052-B4C04F4E3132".to_string());
    let change = Change::Inventory { machine: machine_id(1), inventory: Box::new(found) };
    store.commit(vec![change], None, at(1)).await.expect("stored");
    let by_uuid = store.machine_by_system_uuid("4c4c4544-0042-3010-8052-b4c04f4e3132").await.expect("a look");
    assert_eq!(by_uuid.map(|machine| machine.id), Some(machine_id(1)));
    assert_eq!(store.machine_by_system_uuid("00000000-0000-0000-0000-000000000001").await.expect("a look"), None);

    assert_eq!(store.next_operation_deadline().await.expect("a look"), None);
    commissioning(&*store, 2).await;
    assert!(store.next_operation_deadline().await.expect("a look").is_some());
    let claimed = claim(&*store, "a", 10).await;
    assert_eq!(claimed.len(), 1);
    assert!(claim(&*store, "a", 11).await.is_empty());
    store.release_effects("b", at(11)).await.expect("nothing to release");
    assert!(claim(&*store, "a", 11).await.is_empty());
    store.release_effects("a", at(11)).await.expect("released");
    assert_eq!(claim(&*store, "a", 11).await.first().map(|effect| (effect.id, effect.tries)), Some((claimed[0].id, 2)));
}

async fn operations_advance_finish_and_become_overdue<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = commissioning(&*store, 1).await;
    let id = operation_id(1);
    let progress = |stage, bytes, restart| Change::Progress {
        operation: id,
        stage,
        progress: Some(Progress { bytes, bytes_total: 10 }),
        restart,
    };
    let span = |attempt, stage, detail: &str| {
        Change::Span(Span { operation: id, attempt: attempt_id(attempt), stage, at: at(5), detail: detail.to_string() })
    };
    let changes = vec![
        progress(Stage::Kernel, 1, false),
        progress(Stage::Dhcp, 9, false),
        span(1, Stage::Dhcp, "10.0.0.9"),
        span(1, Stage::Dhcp, "again"),
        span(1, Stage::Kernel, ""),
    ];
    store.commit(changes, None, at(5)).await.expect("noted");
    let operation = store.operation(id).await.expect("read").expect("there");
    assert_eq!((operation.stage, operation.progress.map(|progress| progress.bytes)), (Stage::Kernel, Some(1)));
    let spans = store.spans(id).await.expect("read");
    assert_eq!(
        spans.iter().map(|span| (span.stage, span.detail.as_str())).collect::<Vec<_>>(),
        [(Stage::Dhcp, "10.0.0.9"), (Stage::Kernel, "")]
    );

    let deadline = operation.deadline.expect("a deadline");
    assert_eq!(store.overdue_operations(deadline, 10).await.expect("read"), []);
    let late = store.overdue_operations(Timestamp(deadline.0 + 1), 10).await.expect("read");
    let failure = late.first().and_then(|operation| operation.overdue(Timestamp(deadline.0 + 1))).expect("a failure");
    assert_eq!(failure.code, "no-agent");
    store.commit(vec![progress(Stage::Dhcp, 0, true)], None, at(9)).await.expect("noted");
    assert_eq!(store.operation(id).await.expect("read").map(|operation| operation.stage), Some(Stage::Dhcp));

    let failed = Transition { finish: Some(Outcome::Failed(failure.clone())), ..moves(&machine, Event::TimedOut) };
    store.commit(vec![Change::Transition(failed)], None, at(900)).await.expect("failed");
    let operation = store.operation(id).await.expect("read").expect("there");
    assert_eq!((operation.state, operation.failure), (OperationState::Failed, Some(failure)));
    assert_eq!(store.overdue_operations(Timestamp(i64::MAX), 10).await.expect("read"), []);
    store.commit(vec![progress(Stage::Ready, 10, false)], None, at(901)).await.expect("a late report is no error");
    assert_eq!(self::machine(&*store, 1).await.state, State::FailedCommissioning);
}

async fn an_idempotency_key_names_one_operation_and_a_machine_has_one_at_a_time<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let machine = commissioning(&*store, 1).await;
    let second = create(&*store, 2).await;
    let mut start = new_operation(2, Parameters::Commission);
    start.idempotency_key = Some("key-1".to_string());
    let change = Change::Transition(Transition { start: Some(start), ..moves(&second, COMMISSION) });
    let refused = store.commit(vec![change], None, at(3)).await;
    assert!(matches!(refused, Err(Error::Duplicate { what: "idempotency key", .. })), "{refused:?}");

    let then = AfterCommissioning::Ready;
    let start = Some(new_operation(3, Parameters::Test));
    let change = Change::Transition(Transition { start, ..moves(&machine, Event::Commissioned { then }) });
    assert!(matches!(store.commit(vec![change], None, at(3)).await, Err(Error::Conflict { what: "operation", .. })));

    let import = new_operation(4, Parameters::ImageImport { name: "debian-12".to_string() });
    store.commit(vec![Change::StartOperation(import)], None, at(3)).await.expect("an operation about no machine");
    let all = store.operations(&OperationFilter::default(), &Page::first(10)).await.expect("read");
    assert_eq!(all.iter().map(|operation| operation.id).collect::<Vec<_>>(), [operation_id(4), operation_id(1)]);
    let page = Page { after: Some(operation_id(4)), limit: 10 };
    let mine = OperationFilter { machine: Some(machine.id), state: Some(OperationState::Running) };
    assert_eq!(store.operations(&mine, &page).await.expect("read").len(), 1);
}

// Observations.

async fn observations_are_applied_once_and_none_is_skipped<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let rack = Rack {
        id: rack_id(1),
        name: "rack-1".parse().expect("a name"),
        joined: at(1),
        seen: at(1),
        generation: Generation(0),
        observation_sequence: 0,
        certificate: String::new(),
    };
    store.put_rack(&rack).await.expect("joined");
    let observed = |first, last| Some(Observed { rack: rack_id(1), first, last });
    let enlist = |n| vec![Change::CreateMachine(new_machine(n))];
    let applied = store.commit(enlist(1), observed(1, 3), at(2)).await.expect("applied");
    assert!(matches!(applied, Committed::Now(_)));
    for (first, last) in [(1, 3), (2, 2), (3, 3)] {
        assert_eq!(store.commit(enlist(1), observed(first, last), at(3)).await.expect("known"), Committed::Before);
    }
    for first in [5, 3] {
        let gap = store.commit(enlist(2), observed(first, 6), at(3)).await;
        assert!(matches!(gap, Err(Error::Gap { expected: 4, .. })), "{gap:?}");
    }
    // A batch that fails is not marked as applied.
    store.commit(enlist(1), observed(4, 4), at(3)).await.expect_err("a duplicate");
    assert_eq!(store.rack(rack_id(1)).await.expect("read").map(|rack| rack.observation_sequence), Some(3));
    store.commit(enlist(2), observed(4, 4), at(4)).await.expect("applied");

    // The rack comes back under its id: what was applied stays applied.
    store.put_rack(&Rack { seen: at(9), ..rack.clone() }).await.expect("joined again");
    assert_eq!(store.commit(vec![], observed(4, 4), at(5)).await.expect("known"), Committed::Before);
    let stranger = Observed { rack: rack_id(2), first: 1, last: 1 };
    assert!(matches!(store.commit(vec![], Some(stranger), at(5)).await, Err(Error::NotFound { what: "rack", .. })));

    store.rack_seen(rack_id(1), Generation(7), at(10)).await.expect("seen");
    store.rack_seen(rack_id(1), Generation(5), at(11)).await.expect("seen");
    assert_eq!(
        store.racks().await.expect("read").first().map(|rack| (rack.generation, rack.seen)),
        Some((Generation(7), at(11)))
    );
    store.rack_seen(rack_id(1), Generation(0), at(12)).await.expect("it lost its data");
    assert_eq!(store.rack(rack_id(1)).await.expect("read").map(|rack| rack.generation), Some(Generation(0)));
    store.delete_rack(rack_id(1)).await.expect("gone");
    assert_eq!(store.racks().await.expect("read"), []);
}

async fn leases_never_take_a_reservation<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let (_, _, subnet) = network(&*store).await;
    let lease = |text: &str, n| {
        Change::Lease(Address { until: Some(at(600)), ..address(subnet.id, text, AddressKind::Dhcp, n) })
    };
    store.reserve_address(address(subnet.id, "10.0.0.5", AddressKind::Static, 5)).await.expect("reserved");
    let generation = store.generation().await.expect("read");
    store
        .commit(vec![lease("10.0.0.5", 6), lease("10.0.0.9", 6), lease("10.0.0.9", 7)], None, at(2))
        .await
        .expect("noted");
    let kinds = async || -> Vec<(Ipv4Addr, AddressKind, Option<Mac>)> {
        let all = store.addresses(subnet.id, &Page::first(10)).await.expect("read");
        all.into_iter().map(|address| (address.ip, address.kind, address.mac)).collect()
    };
    let reserved = (ip("10.0.0.5"), AddressKind::Static, Some(mac(5)));
    assert_eq!(kinds().await, [reserved, (ip("10.0.0.9"), AddressKind::Dhcp, Some(mac(7)))]);
    let ended = |n| Change::LeaseEnded { subnet: None, ip: ip("10.0.0.9"), mac: mac(n) };
    store.commit(vec![ended(6)], None, at(3)).await.expect("noted");
    assert_eq!(kinds().await.len(), 2, "somebody else's lease has ended");
    let gone = Change::Lease(address(SubnetId(99), "192.0.2.1", AddressKind::Dhcp, 1));
    store.commit(vec![ended(7), gone], None, at(3)).await.expect("noted");
    assert_eq!(kinds().await, [reserved]);
    assert_eq!(store.generation().await.expect("read"), generation, "racks know their leases");
}

async fn a_lease_is_of_the_machine_that_has_its_interface<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let (_, _, subnet) = network(&*store).await;
    let machine = create(&*store, 1).await;
    let own = machine.interfaces.first().expect("an interface").mac;
    let lease = |text: &str, mac: Mac, machine| {
        let address = address(subnet.id, text, AddressKind::Dhcp, 0);
        Change::Lease(Address { mac: Some(mac), machine, until: Some(at(600)), ..address })
    };
    let leases = vec![
        lease("10.0.0.7", own, None),
        lease("10.0.0.8", mac(200), None),
        lease("10.0.0.9", mac(201), Some(machine.id)),
        lease("10.0.0.10", own, Some(machine_id(99))),
    ];
    store.commit(leases, None, at(2)).await.expect("noted");
    let all = store.addresses(subnet.id, &Page::first(10)).await.expect("read");
    let owners: Vec<_> = all.iter().map(|address| (address.ip, address.machine)).collect();
    let (named, nobodys) = (Some(machine.id), None);
    let [a, b, c, d] = ["10.0.0.7", "10.0.0.8", "10.0.0.9", "10.0.0.10"].map(ip);
    assert_eq!(owners, [(a, named), (b, nobodys), (c, named), (d, nobodys)]);
    assert!(all.iter().all(|address| address.until == Some(at(600)) && address.updated == at(1)), "{all:?}");
}

// Networks.

async fn networks_are_checked_when_they_are_stored<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let (fabric, vlan, lab) = network(&*store).await;
    let same_name = Fabric { id: FabricId(0), name: fabric.name.clone() };
    assert!(matches!(store.create_fabric(same_name).await, Err(Error::Duplicate { what: "fabric", .. })));
    let same_vid = Vlan { id: VlanId(0), ..vlan.clone() };
    assert!(matches!(store.create_vlan(same_vid).await, Err(Error::Duplicate { what: "VLAN", .. })));
    let lost = Vlan { id: VlanId(0), fabric: FabricId(99), ..vlan.clone() };
    assert!(matches!(store.create_vlan(lost).await, Err(Error::NotFound { what: "fabric", .. })));
    let overlap = store.create_subnet(subnet(vlan.id, "other", "10.0.0.128/25")).await;
    assert!(matches!(overlap, Err(Error::Address(_))), "{overlap:?}");
    let same = store.create_subnet(subnet(vlan.id, "lab", "10.1.0.0/24")).await;
    assert!(matches!(same, Err(Error::Duplicate { what: "subnet", .. })), "{same:?}");
    assert_eq!(store.subnets().await.expect("read"), std::slice::from_ref(&lab));

    let dynamic =
        store.create_range(range(lab.id, RangeKind::Dynamic, "10.0.0.100", "10.0.0.199")).await.expect("a range");
    let refused = store.create_range(range(lab.id, RangeKind::Reserved, "10.0.0.150", "10.0.0.160")).await;
    assert!(matches!(refused, Err(Error::Address(_))), "{refused:?}");
    let shrunk = Subnet { cidr: "10.0.0.0/25".parse().expect("a network"), ..lab.clone() };
    assert!(matches!(store.update_subnet(&shrunk).await, Err(Error::Address(_))), "its range would lie outside");
    store.delete_range(dynamic.id).await.expect("deleted");
    store.update_subnet(&shrunk).await.expect("now it may");

    for in_use in [store.delete_fabric(fabric.id).await, store.delete_vlan(vlan.id).await] {
        assert!(matches!(in_use, Err(Error::InUse { .. })), "{in_use:?}");
    }
    let renamed = Fabric { name: "main".parse().expect("a name"), ..fabric };
    store.update_fabric(&renamed).await.expect("renamed");
    assert_eq!(store.fabrics().await.expect("read"), std::slice::from_ref(&renamed));
    store.delete_subnet(lab.id).await.expect("deleted");
    store.delete_vlan(vlan.id).await.expect("deleted");
    store.delete_fabric(renamed.id).await.expect("deleted");
    assert!(matches!(store.delete_fabric(renamed.id).await, Err(Error::NotFound { .. })));
}

async fn addresses_are_given_once<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let (_, _, lab) = network(&*store).await;
    store.create_range(range(lab.id, RangeKind::Dynamic, "10.0.0.2", "10.0.0.99")).await.expect("a range");
    let machine = create(&*store, 1).await;
    let first = store.allocate_address(lab.id, mac(1), Some(machine.id), at(2)).await.expect("given");
    assert_eq!((first.ip, first.kind), (ip("10.0.0.100"), AddressKind::Auto));
    let again = store.allocate_address(lab.id, mac(1), Some(machine.id), at(3)).await.expect("given");
    assert_eq!(again, first, "it has one already");
    assert_eq!(store.allocate_address(lab.id, mac(2), None, at(3)).await.expect("given").ip, ip("10.0.0.101"));

    let reserve = async |text: &str, n| store.reserve_address(address(lab.id, text, AddressKind::Static, n)).await;
    assert!(matches!(reserve("10.0.0.100", 9).await, Err(Error::Duplicate { what: "address", .. })));
    for wrong in ["10.0.0.50", "10.0.0.1", "10.0.0.255", "10.9.0.1"] {
        assert!(matches!(reserve(wrong, 9).await, Err(Error::Address(_))), "{wrong}");
    }
    reserve("10.0.0.200", 9).await.expect("reserved");
    reserve("10.0.0.200", 9).await.expect("as it was");
    reserve("10.0.0.201", 9).await.expect("moved");
    let page = Page { after: Some(ip("10.0.0.101")), limit: 10 };
    let rest = store.addresses(lab.id, &page).await.expect("read");
    assert_eq!(rest.iter().map(|address| address.ip).collect::<Vec<_>>(), [ip("10.0.0.201")]);
    assert!(matches!(store.delete_subnet(lab.id).await, Err(Error::InUse { .. })));

    let delete = Change::DeleteMachine { machine: machine.id, version: machine.version };
    assert_eq!(store.machine_addresses(machine.id).await.expect("read"), std::slice::from_ref(&first));
    store.commit(vec![delete], None, at(4)).await.expect("deleted");
    assert_eq!(store.allocate_address(lab.id, mac(3), None, at(5)).await.expect("given").ip, first.ip, "given back");
    assert!(store.release_address(lab.id, first.ip).await.expect("released"));
    assert!(!store.release_address(lab.id, first.ip).await.expect("answered"));
}

// The site.

async fn a_snapshot_is_of_one_generation_and_every_visible_change_moves_it<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let mut last = store.generation().await.expect("read");
    let mut moved = async |what: &str| {
        let now = store.generation().await.expect("read");
        assert!(now > last, "{what}");
        last = now;
    };
    let (_, _, lab) = network(&*store).await;
    moved("networks").await;
    store.create_range(range(lab.id, RangeKind::Dynamic, "10.0.0.100", "10.0.0.199")).await.expect("a range");
    moved("a range").await;
    commissioning(&*store, 1).await;
    moved("a machine").await;
    store.reserve_address(address(lab.id, "10.0.0.5", AddressKind::Static, 1)).await.expect("reserved");
    moved("an address").await;
    store.put_image(&image("debian-12", 1)).await.expect("stored");
    moved("an image").await;
    store.put_setting("enlist.then", "commission").await.expect("set");
    moved("a setting").await;
    let environment = environment();
    store.put_boot_environment(&environment).await.expect("stored");
    moved("a boot environment").await;
    let source = store.snapshot_source().await.expect("read");
    assert_eq!(source.generation, store.generation().await.expect("read"));
    assert_eq!((source.machines.len(), source.operations.len(), source.images.len()), (1, 1, 1));
    assert_eq!(
        (source.vlans.len(), source.subnets.len(), source.ranges.len(), source.reservations.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(source.environments, [environment]);
    assert_eq!(source.settings, [("enlist.then".to_string(), "commission".to_string())]);
    assert!(store.delete_boot_environment(Architecture::Amd64).await.expect("deleted"));
    assert!(!store.delete_boot_environment(Architecture::Amd64).await.expect("answered"));
    moved("a boot environment gone").await;
}

fn environment() -> BootEnvironment {
    let file = |name: &str, n| File {
        name: name.to_string(),
        manifest: ManifestDigest([n; 32]),
        raw: ImageId([n; 32]),
        raw_bytes: 1,
        encoding: Encoding::Plain,
    };
    let environment = Environment {
        architecture: Architecture::Amd64,
        version: "1".to_string(),
        kernel: file("vmlinuz", 1),
        initrd: file("initrd", 2),
        command_line: vec!["quiet".to_string()],
        loaders: vec![file("ipxe.efi", 3)],
    };
    BootEnvironment { environment, created: at(1) }
}

async fn images_keep_their_bytes_while_something_needs_them<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let name = "debian-12".parse().expect("a name");
    store.put_image(&image("debian-12", 1)).await.expect("stored");
    store.put_image(&image("debian-12", 1)).await.expect("the same again");
    assert!(matches!(store.put_image(&image("debian-12", 2)).await, Err(Error::Duplicate { what: "image", .. })));
    assert_eq!(store.image(&name).await.expect("read"), Some(image("debian-12", 1)));

    let machine = create(&*store, 1).await;
    let operation = new_operation(1, deploy(1));
    let context = SecretContext::OperationUserData(operation.id);
    let secret = Change::PutSecret { context: context.clone(), sealed: b"sealed".to_vec() };
    let mut ready = moves(&machine, COMMISSION);
    ready.step.next = State::Deploying;
    ready.start = Some(operation);
    store.commit(vec![Change::Transition(ready), secret], None, at(2)).await.expect("deploying");
    assert_eq!(store.secret(&context).await.expect("read").as_deref(), Some(&b"sealed"[..]));
    assert!(matches!(store.delete_image(&name).await, Err(Error::InUse { .. })));
    assert!(store.image(&name).await.expect("read").is_some(), "nothing was deleted");

    let machine = self::machine(&*store, 1).await;
    let done = Transition { finish: Some(Outcome::Done { warnings: vec![] }), ..moves(&machine, Event::SystemReady) };
    store.commit(vec![Change::Transition(done)], None, at(3)).await.expect("deployed");
    assert_eq!(store.secret(&context).await.expect("read"), None, "an operation's secrets end with it");
    assert!(store.image_in_use(ImageId([1; 32])).await.expect("read"));
    store.delete_image(&name).await.expect("deleted");
    assert!(!store.image_in_use(ImageId([1; 32])).await.expect("read"));
    assert!(matches!(store.delete_image(&name).await, Err(Error::NotFound { .. })));
}

async fn tokens_settings_and_secrets<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let token = |name: &str, n, scope| Token {
        name: name.to_string(),
        hash: [n; 32],
        scope,
        created: at(1),
        expires: Some(at(100)),
    };
    let (admin, join) = (token("admin", 1, TokenScope::Admin), token("join-1", 2, TokenScope::Join));
    store.create_token(&admin).await.expect("made");
    store.create_token(&join).await.expect("made");
    let same = store.create_token(&token("admin", 3, TokenScope::Read)).await.expect_err("a name in use");
    assert_eq!(same.to_string(), "token `admin` is in use already");
    assert_eq!(store.token_by_hash(&[1; 32]).await.expect("read"), Some(admin.clone()));
    assert_eq!(store.take_token(&[1; 32], TokenScope::Join, at(2)).await.expect("answered"), None, "not of that scope");
    assert_eq!(store.take_token(&[2; 32], TokenScope::Join, at(100)).await.expect("answered"), None, "expired");
    assert_eq!(store.take_token(&[2; 32], TokenScope::Join, at(99)).await.expect("taken"), Some(join));
    assert_eq!(store.take_token(&[2; 32], TokenScope::Join, at(99)).await.expect("answered"), None, "once");
    assert_eq!(store.tokens().await.expect("read"), [admin]);
    assert!(store.delete_token("admin").await.expect("deleted"));
    assert!(!store.delete_token("admin").await.expect("answered"));

    assert_eq!(store.setting("a").await.expect("read"), None);
    store.put_setting("a", "1").await.expect("set");
    let generation = store.generation().await.expect("read");
    store.put_setting("a", "1").await.expect("set");
    assert_eq!(store.generation().await.expect("read"), generation, "as it was");
    store.put_setting("a", "2").await.expect("set");
    assert_eq!(store.setting("a").await.expect("read").as_deref(), Some("2"));
    assert!(matches!(store.put_setting("a", &"x".repeat(1 << 20)).await, Err(Error::TooLarge { .. })));

    let context = SecretContext::Site("ca-key".to_string());
    store.put_secret(&context, b"one").await.expect("stored");
    store.put_secret(&context, b"two").await.expect("stored");
    assert_eq!(store.secret(&context).await.expect("read").as_deref(), Some(&b"two"[..]));
    assert!(store.delete_secret(&context).await.expect("deleted"));
    assert_eq!(store.secret(&context).await.expect("read"), None);
}

async fn the_log_is_followed_and_looked_at<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let entries = (0..10u8).map(|n| Change::Log(log_entry((n % 2 == 0).then(|| machine_id(n)), &format!("entry {n}"))));
    store.commit(entries.collect(), None, at(1)).await.expect("noted");
    let texts = async |filter: LogFilter, order, page: Page<EventId>| -> Vec<(EventId, String)> {
        let log = store.log(&filter, order, &page).await.expect("read");
        log.into_iter().map(|entry| (entry.id, entry.entry.text)).collect()
    };
    let first = texts(LogFilter::default(), Order::OldestFirst, Page::first(4)).await;
    assert_eq!(first.first().map(|(_, text)| text.as_str()), Some("entry 0"));
    let after = first.last().map(|(id, _)| *id);
    let rest = texts(LogFilter::default(), Order::OldestFirst, Page { after, limit: 100 }).await;
    assert_eq!((first.len(), rest.len()), (4, 6));
    let newest = texts(LogFilter::default(), Order::NewestFirst, Page::first(1)).await;
    assert_eq!(newest.first().map(|(_, text)| text.as_str()), Some("entry 9"));
    let one = LogFilter { machine: Some(machine_id(4)), operation: None };
    assert_eq!(texts(one, Order::NewestFirst, Page::first(10)).await.len(), 1);
    store
        .commit(vec![Change::Log(log_entry(None, &"é".repeat(100_000)))], None, at(2))
        .await
        .expect("cut, not refused");
}

async fn what_was_committed_survives<S: Site>() {
    let site = S::new();
    let store = site.open().await;
    let before = commissioning(&*store, 1).await;
    let claimed = claim(&*store, "a", 3).await;
    let crashed = site.after_power_loss();
    let again = crashed.open().await;
    assert_eq!(machine(&*again, 1).await, before);
    assert_eq!(again.generation().await.expect("read"), store.generation().await.expect("read"));
    assert_eq!(claim(&*again, "b", 64).await.first().map(|effect| effect.id), claimed.first().map(|effect| effect.id));
    drop(store);
    assert_eq!(machine(&*site.open().await, 1).await, before);
}

macro_rules! suite {
    ($module:ident, $site:ty, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test::<$site>().await;
                }
            )*
        }
    };
}

macro_rules! every_test {
    ($module:ident, $site:ty) => {
        suite!(
            $module,
            $site,
            [
                machines_are_found_by_every_name,
                what_must_be_unique_is_and_nothing_is_stored_otherwise,
                machines_change_and_go,
                lists_come_in_pages_and_by_filter,
                an_inventory_adds_what_it_found,
                a_transition_stores_state_operation_effects_and_log_together,
                a_failed_commit_stores_nothing,
                of_two_that_decide_at_once_one_wins,
                effects_happen_in_order_and_at_least_once,
                a_newer_step_supersedes_older_effects,
                a_lost_workers_superseded_effect_gives_way_when_its_lease_ends,
                operations_advance_finish_and_become_overdue,
                a_worker_that_starts_anew_goes_on_at_once,
                an_idempotency_key_names_one_operation_and_a_machine_has_one_at_a_time,
                observations_are_applied_once_and_none_is_skipped,
                leases_never_take_a_reservation,
                a_lease_is_of_the_machine_that_has_its_interface,
                networks_are_checked_when_they_are_stored,
                addresses_are_given_once,
                a_snapshot_is_of_one_generation_and_every_visible_change_moves_it,
                images_keep_their_bytes_while_something_needs_them,
                tokens_settings_and_secrets,
                the_log_is_followed_and_looked_at,
                what_was_committed_survives,
            ]
        );
    };
}

every_test!(sqlite, crate::SqliteSite);
