//! The snapshot: what racks are told, made from the store, one whole view per generation.
//!
//! [`view`] is pure. [`Publisher`] follows the store's generation and keeps the last few views, from which each rack's link makes the
//! delta that its rack needs; a rack that is slow or away costs nobody else anything.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bootstorm_model::lifecycle::BootPurpose;
use bootstorm_model::{
    Address, Domain, IpRange, Machine, Operation, OperationState, Parameters, RangeKind, State, Subnet, Vlan,
    operation::DeployParameters,
};
use bootstorm_snapshot::plan::{After, Deploy, Network, NetworkInterface, Plan, StaticAddress, Task};
use bootstorm_snapshot::record::{Answer, Boot, Enrolment, Reservation, Site, Unknown};
use bootstorm_snapshot::{
    Generation, ImageId, Mac, ManifestDigest, OperationId, Record, SubnetId, View, VlanId, record,
};
use bootstorm_store::SnapshotSource;
use tokio::sync::watch;

use crate::error::Result;
use crate::{dns, limits};

/// A generation as racks see it, with the ones before it.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The view in force.
    pub view: Arc<View>,
    /// Earlier views, the oldest first.
    earlier: VecDeque<Arc<View>>,
}

impl Published {
    /// The view of an earlier generation, if it is still kept.
    pub(crate) fn earlier(&self, generation: Generation) -> Option<&Arc<View>> {
        self.earlier.iter().find(|view| view.generation == generation)
    }

    fn followed_by(&self, view: View) -> Self {
        let mut earlier = self.earlier.clone();
        if self.view.generation != Generation(0) {
            earlier.push_back(self.view.clone());
        }
        while earlier.len() > limits::VIEWS_KEPT {
            earlier.pop_front();
        }
        Self { view: Arc::new(view), earlier }
    }
}

/// Follows the store.
pub(crate) struct Publisher {
    published: watch::Sender<Arc<Published>>,
}

impl Publisher {
    /// With nothing published yet.
    pub(crate) fn new() -> Self {
        Self { published: watch::Sender::new(Arc::new(Published::default())) }
    }

    /// What is published, now and from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// The generation that is published.
    pub(crate) fn generation(&self) -> Generation {
        self.published.borrow().view.generation
    }

    /// Publishes what the store holds if its generation is new.
    pub(crate) async fn refresh(&self, store: &dyn bootstorm_store::Store, ca_pem: &str) -> Result<()> {
        if store.generation().await? == self.generation() {
            return Ok(());
        }
        let source = store.snapshot_source().await?;
        let mut next = view(&source, ca_pem);
        let before = Arc::clone(&self.published.borrow().view);
        dns::publish(&source, &before, &mut next);
        metrics::gauge!("bootstorm_snapshot_generation").set(next.generation.0 as f64);
        self.published.send_modify(|published| *published = Arc::new(published.followed_by(next)));
        Ok(())
    }
}

/// Everything racks are told, from everything the store holds of it.
pub(crate) fn view(source: &SnapshotSource, ca_pem: &str) -> View {
    let index = Index::new(source);
    let mut view = View { generation: source.generation, ..View::default() };
    view.put(Record::Site(site(source, ca_pem)));
    for subnet in &source.subnets {
        view.put(Record::Subnet(index.subnet(subnet)));
    }
    for environment in &source.environments {
        view.put(Record::Environment(environment.environment.clone()));
    }
    let names: HashMap<_, _> = source.machines.iter().map(|machine| (machine.id, &machine.hostname)).collect();
    for address in &source.reservations {
        if let Some(mac) = address.mac {
            let hostname = address.machine.and_then(|machine| names.get(&machine)).map(|name| name.to_string());
            let (subnet, address, machine) = (address.subnet, address.ip, address.machine);
            view.put(Record::Reservation(Reservation { mac, subnet, address, hostname, machine }));
        }
    }
    for machine in &source.machines {
        let plan = index.plan(machine);
        let answer = answer(machine, plan.as_ref().map(|(operation, _)| *operation));
        if let (Answer::Agent { operation, .. }, Some((_, plan))) = (answer, plan) {
            view.put(Record::Plan(operation, plan));
        }
        view.put(Record::Boot(Boot {
            machine: machine.id,
            hostname: machine.hostname.to_string(),
            macs: machine.interfaces.iter().map(|interface| interface.mac).collect(),
            architecture: machine.architecture,
            answer,
        }));
        if let Some(enrolment) = machine.enrolment {
            view.put(Record::Enrolment(Enrolment { enrolment, machine: machine.id }));
        }
    }
    view
}

fn site(source: &SnapshotSource, ca_pem: &str) -> Site {
    let setting = |key: &str| source.settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let seconds = |key: &str, default: u32| setting(key).and_then(|value| value.parse().ok()).unwrap_or(default);
    Site {
        ca_pem: ca_pem.to_string(),
        unknown: if setting("enlist.unknown") == Some("ignore") { Unknown::Ignore } else { Unknown::Enlist },
        lease_seconds: seconds("dhcp.lease_seconds", limits::LEASE_SECONDS.0),
        boot_lease_seconds: seconds("dhcp.boot_lease_seconds", limits::LEASE_SECONDS.1),
    }
}

/// What a machine boots. A held machine gets no agent: nothing boots until a person has looked.
fn answer(machine: &Machine, running: Option<&Operation>) -> Answer {
    match machine.state.status().boot_purpose() {
        BootPurpose::LocalDisk => {
            Answer::Local { operation: machine.installed.as_ref().map(|installed| installed.operation) }
        }
        BootPurpose::Commission | BootPurpose::Deploy | BootPurpose::Erase if !machine.flags.held => match running {
            Some(operation) => Answer::Agent { operation: operation.id, attempt: operation.attempt },
            None => Answer::Wait,
        },
        BootPurpose::Commission
        | BootPurpose::Deploy
        | BootPurpose::Erase
        | BootPurpose::Enlist
        | BootPurpose::Test
        | BootPurpose::Rescue
        | BootPurpose::PowerOff => Answer::Wait,
    }
}

struct Index<'a> {
    source: &'a SnapshotSource,
    operations: HashMap<OperationId, &'a Operation>,
    subnets: HashMap<SubnetId, &'a Subnet>,
    vlans: HashMap<VlanId, &'a Vlan>,
    addresses: HashMap<Mac, &'a Address>,
    images: HashMap<ImageId, &'a bootstorm_model::Image>,
}

impl<'a> Index<'a> {
    fn new(source: &'a SnapshotSource) -> Self {
        Self {
            source,
            operations: source.operations.iter().map(|operation| (operation.id, operation)).collect(),
            subnets: source.subnets.iter().map(|subnet| (subnet.id, subnet)).collect(),
            vlans: source.vlans.iter().map(|vlan| (vlan.id, vlan)).collect(),
            addresses: source.reservations.iter().filter_map(|address| Some((address.mac?, address))).collect(),
            images: source.images.iter().map(|image| (image.id, image)).collect(),
        }
    }

    fn subnet(&self, subnet: &Subnet) -> record::Subnet {
        let vlan = self.vlans.get(&subnet.vlan);
        let dynamic = |range: &&IpRange| range.subnet == subnet.id && range.kind == RangeKind::Dynamic;
        record::Subnet {
            id: subnet.id,
            vlan: subnet.vlan,
            cidr: subnet.cidr,
            gateway: subnet.gateway,
            dns_servers: subnet.dns_servers.clone(),
            ntp_servers: subnet.ntp_servers.clone(),
            domain: subnet.domain.as_ref().map(Domain::to_string),
            mtu: vlan.map(|vlan| vlan.mtu).filter(|mtu| *mtu != 1500),
            dhcp: vlan.is_some_and(|vlan| vlan.dhcp_on),
            dynamic: self.source.ranges.iter().filter(dynamic).map(|range| range.range).collect(),
            ipv6_prefix: subnet.ipv6_prefix,
        }
    }

    /// The plan of a machine's running operation, if an agent has work in it.
    fn plan(&self, machine: &Machine) -> Option<(&'a Operation, Plan)> {
        let operation = *self.operations.get(&machine.operation?)?;
        if operation.state != OperationState::Running {
            return None;
        }
        let (task, after) = match (&operation.parameters, machine.state) {
            (Parameters::Commission, State::Commissioning { .. }) => (Task::Commission, After::PowerOff),
            (Parameters::Deploy(deploy), State::Deploying) => {
                (Task::Deploy(Box::new(self.deploy(machine, deploy)?)), After::StartSystem)
            }
            (Parameters::Release { .. }, State::DiskErasing { method }) => (Task::Erase { method }, After::PowerOff),
            _ => return None,
        };
        let (id, hostname) = (Some(operation.id), Some(machine.hostname.to_string()));
        Some((operation, Plan { operation: id, machine: Some(machine.id), hostname, task, after }))
    }

    fn deploy(&self, machine: &Machine, deploy: &DeployParameters) -> Option<Deploy> {
        let image = self.images.get(&deploy.image)?;
        Some(Deploy {
            image_name: deploy.image_name.clone(),
            image: deploy.image,
            manifest: image.manifest,
            raw_bytes: image.raw_bytes,
            encoding: image.encoding,
            disk: deploy.disk.clone(),
            grow: deploy.grow,
            start: deploy.start,
            network: self.network(machine),
            secrets: deploy.user_data,
            ssh_authorized_keys: deploy.ssh_authorized_keys.clone(),
            ready_seconds_max: deploy.ready_seconds_max,
        })
    }

    fn network(&self, machine: &Machine) -> Network {
        let Some(interface) = machine.boot_interface() else { return Network::default() };
        let address = self.addresses.get(&interface.mac);
        let subnet = address.and_then(|address| self.subnets.get(&address.subnet));
        let mtu =
            subnet.and_then(|subnet| self.vlans.get(&subnet.vlan)).map(|vlan| vlan.mtu).filter(|mtu| *mtu != 1500);
        let fixed = address.zip(subnet).map(|(address, subnet)| StaticAddress {
            address: address.ip,
            network: subnet.cidr,
            gateway: subnet.gateway,
        });
        Network {
            interfaces: vec![NetworkInterface { mac: interface.mac, address: fixed, mtu }],
            dns_servers: subnet
                .into_iter()
                .flat_map(|subnet| subnet.dns_servers.iter().copied().map(IpAddr::V4))
                .collect(),
            search: subnet.and_then(|subnet| subnet.domain.as_ref()).map(Domain::to_string).into_iter().collect(),
        }
    }
}

/// The files a rack must have before a machine that will run this operation's agent is switched on.
pub(crate) fn files_needed(view: &View, operation: OperationId) -> Vec<ManifestDigest> {
    let mut needed = Vec::new();
    let Some(plan) = view.plans.get(&operation) else { return needed };
    if let Task::Deploy(deploy) = &plan.task {
        needed.push(deploy.manifest);
    }
    let architecture = plan.machine.and_then(|machine| view.boots.get(&machine)).and_then(|boot| boot.architecture);
    for environment in view.environments.values().filter(|e| architecture.is_none_or(|known| known == e.architecture)) {
        needed.extend([environment.kernel.manifest, environment.initrd.manifest]);
        needed.extend(environment.loaders.iter().map(|loader| loader.manifest));
    }
    needed
}
