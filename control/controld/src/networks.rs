//! Networks: `apply` of documents, and the networks that racks turn out to serve.
//!
//! [`Draft`] is a copy of everything that documents can change. Each document is applied to it, with all checks of `ipam`, and yields
//! what it changes; a dry run ends there. Then the changes are made one after the other. Only control writes networks, and one
//! `apply` at a time, so after the draft nothing but a failing database can stop it half-way, and then applying again completes it.

use std::collections::HashMap;
use std::sync::Arc;

use bootstorm_api::native::{self, ApplyAnswer, ApplyRequest, Document, MachineCreate};
use bootstorm_api::role::RackInterface;
use bootstorm_model::{
    Address, AddressKind, Domain, Fabric, IpRange, Machine, Name, RangeKind, Severity, Subnet, Vlan, ipam,
    limits as model_limits,
};
use bootstorm_snapshot::{FabricId, Ipv4Net, Ipv4Range, Mac, MachineId, RangeId, SubnetId, VlanId};

use crate::control::{Control, log, now};
use crate::error::{Error, Result};
use crate::limits;
use crate::machines::{self, Caller};

/// Comment of ranges that nobody chose; a document's range takes their place.
const AUTOMATIC: &str = "chosen automatically";
/// Networks longer than this have no room for a range of their own.
const RANGE_PREFIX_BITS_MAX: u8 = 29;

/// What is to be done; ids below zero stand for things that an earlier action creates.
#[derive(Debug, Clone)]
enum Action {
    CreateFabric(Fabric),
    CreateVlan(Vlan),
    UpdateVlan(Vlan),
    CreateSubnet(Subnet),
    UpdateSubnet(Subnet),
    CreateRange(IpRange),
    DeleteRange(RangeId),
    CreateMachine {
        request: Box<MachineCreate>,
        address: Option<(SubnetId, std::net::Ipv4Addr, Mac)>,
    },
    UpdateMachine {
        machine: MachineId,
        update: Box<native::MachineUpdate>,
        interfaces: Option<Vec<bootstorm_model::Interface>>,
    },
    /// A rack's own address that is its network's gateway needs no reservation, and may have none.
    Release {
        subnet: SubnetId,
        ip: std::net::Ipv4Addr,
    },
    Reserve {
        machine: MachineId,
        subnet: SubnetId,
        ip: std::net::Ipv4Addr,
        mac: Mac,
    },
}

struct Draft {
    fabrics: Vec<Fabric>,
    vlans: Vec<Vlan>,
    subnets: Vec<Subnet>,
    ranges: Vec<IpRange>,
    /// Fixed addresses, those of this request included.
    fixed: Vec<(SubnetId, std::net::Ipv4Addr, Option<Mac>)>,
    /// Names and MAC addresses of the machines that this request describes, those already known of each included.
    described: Vec<(Option<String>, Vec<Mac>)>,
    next: i64,
    actions: Vec<Action>,
}

/// Applies documents, or says what that would change.
pub(crate) async fn apply(control: &Arc<Control>, request: &ApplyRequest, caller: &Caller) -> Result<ApplyAnswer> {
    if request.documents.len() > limits::DOCUMENTS_MAX {
        return Err(Error::invalid("documents", format!("at most {} at a time", limits::DOCUMENTS_MAX)));
    }
    let _one = control.networks.lock().await;
    let mut draft = Draft::load(control).await?;
    let mut changes: Vec<(usize, native::Change)> = Vec::new();
    // Networks before what stands in them, whatever the order of the documents.
    let mut order: Vec<(usize, &Document)> = request.documents.iter().enumerate().collect();
    order.sort_by_key(|(_, document)| rank(document));
    for (index, document) in order {
        let change = draft.take(control, document).await.map_err(|error| in_document(index, error))?;
        changes.push((index, change));
    }
    if !request.dry_run {
        perform(control, draft.actions, caller).await?;
        control.touch();
        let changed = changes.iter().filter(|(_, change)| change.outcome != "unchanged").count();
        if changed > 0 {
            let text = format!("{changed} of {} documents changed something", changes.len());
            control.commit(vec![log(Severity::Info, "applied", None, None, &caller.actor, text)]).await?;
        }
    }
    changes.sort_by_key(|(index, _)| *index);
    Ok(ApplyAnswer { changes: changes.into_iter().map(|(_, change)| change).collect() })
}

fn rank(document: &Document) -> u8 {
    match document {
        Document::Fabric { .. } => 0,
        Document::Vlan { .. } => 1,
        Document::Subnet { .. } => 2,
        Document::Range { .. } => 3,
        Document::Machine { .. } => 4,
    }
}

fn in_document(index: usize, error: Error) -> Error {
    match error {
        Error::Store(error) if error.is_retryable() => Error::Store(error),
        other => Error::invalid(format!("document {}", index + 1), other),
    }
}

fn outcome(created: bool, what: String, fields: Vec<String>) -> native::Change {
    let outcome = match (created, fields.is_empty()) {
        (true, _) => "created",
        (false, false) => "changed",
        (false, true) => "unchanged",
    };
    native::Change { outcome: outcome.to_string(), what, fields }
}

fn field<T: PartialEq + std::fmt::Debug>(fields: &mut Vec<String>, name: &str, old: &mut T, new: T) {
    if *old != new {
        fields.push(format!("{name}: {old:?} → {new:?}"));
        *old = new;
    }
}

impl Draft {
    async fn load(control: &Control) -> Result<Self> {
        let store = &control.store;
        let source = store.snapshot_source().await?;
        let mut fixed: Vec<_> =
            source.reservations.iter().map(|address| (address.subnet, address.ip, address.mac)).collect();
        // Racks' own addresses are kept for them, and no part of the snapshot.
        for (_, live) in control.racks.all() {
            for ip in live.interfaces.iter().map(|interface| interface.address) {
                let subnet =
                    source.subnets.iter().find(|subnet| subnet.cidr.contains(ip) && subnet.gateway != Some(ip));
                fixed.extend(subnet.map(|subnet| (subnet.id, ip, None)));
            }
        }
        Ok(Self {
            fabrics: store.fabrics().await?,
            vlans: source.vlans,
            subnets: source.subnets,
            ranges: source.ranges,
            fixed,
            described: Vec::new(),
            next: 0,
            actions: Vec::new(),
        })
    }

    fn new_id(&mut self) -> i64 {
        self.next -= 1;
        self.next
    }

    async fn take(&mut self, control: &Control, document: &Document) -> Result<native::Change> {
        match document {
            Document::Fabric { name } => self.fabric(name),
            Document::Vlan { fabric, vid, name, mtu, dhcp } => self.vlan(fabric, *vid, name.as_deref(), *mtu, *dhcp),
            Document::Subnet { cidr, fabric, vid, gateway, dns_servers, ntp_servers, domain } => {
                let cidr: Ipv4Net = cidr.parse().map_err(|error| Error::invalid("cidr", error))?;
                let domain =
                    domain.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("domain", error))?;
                let wanted = (*gateway, dns_servers.clone(), ntp_servers.clone(), domain);
                self.subnet(cidr, fabric, *vid, wanted)
            }
            Document::Range { subnet, range_type, first, last } => {
                let kind = match range_type.as_str() {
                    "dynamic" => RangeKind::Dynamic,
                    "reserved" => RangeKind::Reserved,
                    _ => return Err(Error::invalid("type", "must be `dynamic` or `reserved`")),
                };
                self.range(subnet, kind, Ipv4Range { first: *first, last: *last })
            }
            Document::Machine { name, macs, architecture, power, address } => {
                let request = MachineCreate {
                    name: name.clone(),
                    macs: macs.clone(),
                    architecture: architecture.clone(),
                    power: power.clone(),
                };
                self.machine(control, request, *address).await
            }
        }
    }

    fn fabric(&mut self, name: &str) -> Result<native::Change> {
        let name: Name = name.parse().map_err(|error| Error::invalid("name", error))?;
        let what = format!("fabric {name}");
        if self.fabrics.iter().any(|fabric| fabric.name == name) {
            return Ok(outcome(false, what, Vec::new()));
        }
        let fabric = Fabric { id: FabricId(self.new_id()), name };
        self.fabrics.push(fabric.clone());
        self.actions.push(Action::CreateFabric(fabric));
        Ok(outcome(true, what, Vec::new()))
    }

    fn fabric_id(&self, name: &str) -> Result<FabricId> {
        let found = self.fabrics.iter().find(|fabric| fabric.name.as_str() == name);
        found
            .map(|fabric| fabric.id)
            .ok_or_else(|| Error::NotFound { what: "fabric", id: name.chars().take(64).collect() })
    }

    fn vlan(
        &mut self,
        fabric: &str,
        vid: u16,
        name: Option<&str>,
        mtu: Option<u16>,
        dhcp: Option<bool>,
    ) -> Result<native::Change> {
        let fabric_id = self.fabric_id(fabric)?;
        if vid > model_limits::VID_MAX {
            return Err(Error::invalid("vid", format!("must be 0 to {}", model_limits::VID_MAX)));
        }
        if mtu.is_some_and(|mtu| !model_limits::MTU_BYTES.contains(&mtu)) {
            let (least, most) = (model_limits::MTU_BYTES.start(), model_limits::MTU_BYTES.end());
            return Err(Error::invalid("mtu", format!("must be {least} to {most}")));
        }
        let name: Option<Name> = name.map(str::parse).transpose().map_err(|error| Error::invalid("name", error))?;
        let what = format!("vlan {fabric}/{vid}");
        if let Some(vlan) = self.vlans.iter_mut().find(|vlan| vlan.fabric == fabric_id && vlan.vid == vid) {
            let mut fields = Vec::new();
            if let Some(name) = name {
                field(&mut fields, "name", &mut vlan.name, name);
            }
            if let Some(mtu) = mtu {
                field(&mut fields, "mtu", &mut vlan.mtu, mtu);
            }
            if let Some(dhcp) = dhcp {
                field(&mut fields, "dhcp", &mut vlan.dhcp_on, dhcp);
            }
            if !fields.is_empty() {
                self.actions.push(Action::UpdateVlan(vlan.clone()));
            }
            return Ok(outcome(false, what, fields));
        }
        self.new_vlan(fabric_id, vid, name, mtu, dhcp)?;
        Ok(outcome(true, what, Vec::new()))
    }

    fn new_vlan(
        &mut self,
        fabric: FabricId,
        vid: u16,
        name: Option<Name>,
        mtu: Option<u16>,
        dhcp: Option<bool>,
    ) -> Result<VlanId> {
        let made_up = if vid == 0 { "untagged".to_string() } else { format!("vlan-{vid}") };
        let name = match name {
            Some(name) => name,
            None => made_up.parse().map_err(|error| Error::invalid("name", error))?,
        };
        let id = VlanId(self.new_id());
        let vlan = Vlan { id, fabric, vid, name, mtu: mtu.unwrap_or(1500), dhcp_on: dhcp.unwrap_or(true) };
        self.vlans.push(vlan.clone());
        self.actions.push(Action::CreateVlan(vlan));
        Ok(id)
    }

    fn subnet(
        &mut self,
        cidr: Ipv4Net,
        fabric: &str,
        vid: u16,
        (gateway, dns_servers, ntp_servers, domain): (
            Option<std::net::Ipv4Addr>,
            Vec<std::net::Ipv4Addr>,
            Vec<std::net::Ipv4Addr>,
            Option<Domain>,
        ),
    ) -> Result<native::Change> {
        let fabric_id = self.fabric_id(fabric)?;
        let vlan = match self.vlans.iter().find(|vlan| vlan.fabric == fabric_id && vlan.vid == vid) {
            Some(vlan) => vlan.id,
            None if vid == 0 => self.new_vlan(fabric_id, 0, None, None, None)?,
            None => return Err(Error::NotFound { what: "VLAN", id: format!("{fabric}/{vid}") }),
        };
        let what = format!("subnet {cidr}");
        // A network that was adopted from a rack's interface is the one that is now described, wherever it was put.
        let is_it = |subnet: &Subnet| self.is_in(subnet, fabric_id) || self.is_adopted(subnet);
        let found = self.subnets.iter().position(|subnet| subnet.cidr == cidr && is_it(subnet));
        let old = match found {
            Some(index) => self.subnets.remove(index),
            None => {
                let name = cidr.to_string().replace('/', "-").parse().map_err(|error| Error::invalid("name", error))?;
                let id = SubnetId(self.new_id());
                let (dns_servers, ntp_servers) = (dns_servers.clone(), ntp_servers.clone());
                Subnet {
                    id,
                    vlan,
                    name,
                    cidr,
                    gateway,
                    dns_servers,
                    ntp_servers,
                    domain: domain.clone(),
                    ipv6_prefix: None,
                }
            }
        };
        let mut subnet = old;
        let mut fields = Vec::new();
        if subnet.vlan != vlan {
            fields.push(format!("vlan: → {fabric}/{vid}"));
            subnet.vlan = vlan;
        }
        field(&mut fields, "gateway", &mut subnet.gateway, gateway);
        field(&mut fields, "dns_servers", &mut subnet.dns_servers, dns_servers);
        field(&mut fields, "ntp_servers", &mut subnet.ntp_servers, ntp_servers);
        field(&mut fields, "domain", &mut subnet.domain, domain);
        let others = self.subnets.iter().filter(|other| self.is_in(other, fabric_id));
        ipam::check_subnet(&subnet, others).map_err(bootstorm_store::Error::from)?;
        if found.is_none() && self.subnets.iter().any(|other| other.name == subnet.name) {
            subnet.name = format!("{}-{fabric}", subnet.name).parse().map_err(|error| Error::invalid("name", error))?;
        }
        if let Some(ip) = subnet.gateway
            && let Some(index) = self.fixed.iter().position(|fixed| *fixed == (subnet.id, ip, None))
        {
            self.fixed.remove(index);
            self.actions.push(Action::Release { subnet: subnet.id, ip });
        }
        match found {
            None => self.actions.push(Action::CreateSubnet(subnet.clone())),
            Some(_) if !fields.is_empty() => self.actions.push(Action::UpdateSubnet(subnet.clone())),
            Some(_) => {}
        }
        self.subnets.push(subnet);
        Ok(outcome(found.is_none(), what, fields))
    }

    fn is_in(&self, subnet: &Subnet, fabric: FabricId) -> bool {
        self.vlans.iter().any(|vlan| vlan.id == subnet.vlan && vlan.fabric == fabric)
    }

    fn is_adopted(&self, subnet: &Subnet) -> bool {
        self.ranges.iter().any(|range| range.subnet == subnet.id && range.comment == AUTOMATIC)
    }

    fn range(&mut self, subnet: &str, kind: RangeKind, range: Ipv4Range) -> Result<native::Change> {
        let cidr: Ipv4Net = subnet.parse().map_err(|error| Error::invalid("subnet", error))?;
        let subnet = self.subnets.iter().find(|subnet| subnet.cidr == cidr);
        let subnet = subnet.ok_or_else(|| Error::NotFound { what: "subnet", id: cidr.to_string() })?.clone();
        let what = format!("range {}-{}", range.first, range.last);
        if self.ranges.iter().any(|old| old.subnet == subnet.id && old.kind == kind && old.range == range) {
            return Ok(outcome(false, what, Vec::new()));
        }
        let automatic = |old: &IpRange| old.subnet == subnet.id && old.comment == AUTOMATIC;
        for old in self.ranges.iter().filter(|old| automatic(old)) {
            self.actions.push(Action::DeleteRange(old.id));
        }
        self.ranges.retain(|old| !automatic(old));
        self.new_range(&subnet, kind, range, "")?;
        Ok(outcome(true, what, Vec::new()))
    }

    fn new_range(&mut self, subnet: &Subnet, kind: RangeKind, range: Ipv4Range, comment: &str) -> Result<()> {
        let new = IpRange { id: RangeId(self.new_id()), subnet: subnet.id, kind, range, comment: comment.to_string() };
        let others: Vec<IpRange> = self.ranges.iter().filter(|old| old.subnet == subnet.id).cloned().collect();
        let fixed = self.fixed.iter().filter(|(of, _, _)| *of == subnet.id).map(|(_, ip, _)| *ip);
        ipam::check_range(subnet, &new, &others, fixed).map_err(bootstorm_store::Error::from)?;
        self.ranges.push(new.clone());
        self.actions.push(Action::CreateRange(new));
        Ok(())
    }

    async fn machine(
        &mut self,
        control: &Control,
        request: MachineCreate,
        address: Option<std::net::Ipv4Addr>,
    ) -> Result<native::Change> {
        let macs = request.macs.iter().map(|text| machines::parse_mac(text)).collect::<Result<Vec<_>>>()?;
        let Some(first) = macs.first().copied() else {
            return Err(Error::invalid("macs", "at least one MAC address is needed"));
        };
        if let Some(power) = &request.power {
            bootstorm_power::check(&power.driver, &power.parameters).map_err(|error| Error::invalid("power", error))?;
        }
        let known = self.known(control, request.name.as_deref(), &macs).await?;
        let what = format!("machine {}", request.name.clone().unwrap_or_else(|| first.to_string()));
        let mut own = macs.clone();
        own.extend(known.iter().flat_map(|machine| &machine.interfaces).map(|interface| interface.mac));
        let twice = |(name, others): &(Option<String>, Vec<Mac>)| {
            (name.is_some() && *name == request.name) || others.iter().any(|mac| own.contains(mac))
        };
        if self.described.iter().any(twice) {
            return Err(Error::Conflict {
                code: "duplicate",
                message: format!("{what} or one of its MAC addresses is given twice"),
            });
        }
        self.described.push((request.name.clone(), own));
        let Some(machine) = known else {
            // The same checks as when it is made, so that a dry run says no as well.
            machines::creation(control, &request, "")?;
            let fixed = address.map(|ip| self.fix(ip, first).map(|subnet| (subnet, ip, first))).transpose()?;
            self.actions.push(Action::CreateMachine { request: Box::new(request), address: fixed });
            return Ok(outcome(true, what, Vec::new()));
        };
        let mut fields = Vec::new();
        let mut update = native::MachineUpdate::default();
        if let Some(name) = request.name.filter(|name| name.to_ascii_lowercase() != machine.hostname.as_str()) {
            fields.push(format!("name: {:?} → {name:?}", machine.hostname.as_str()));
            update.name = Some(name);
        }
        if let Some(power) = request.power
            && !same_power(control, &machine, &power).await?
        {
            fields.push(format!("power: {} → {} (parameters are not shown)", machine.power.driver, power.driver));
            update.power = Some(power);
        }
        let missing: Vec<Mac> =
            macs.iter().copied().filter(|mac| machine.interfaces.iter().all(|known| known.mac != *mac)).collect();
        let mut interfaces = None;
        if !missing.is_empty() {
            let mut all = machine.interfaces.clone();
            for mac in &missing {
                let name = format!("eth{}", all.len());
                all.push(bootstorm_model::Interface {
                    id: bootstorm_snapshot::InterfaceId(0),
                    mac: *mac,
                    name,
                    boot: false,
                });
            }
            fields.push(format!("macs: + {}", missing.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ")));
            interfaces = Some(all);
        }
        if !fields.is_empty() {
            self.actions.push(Action::UpdateMachine { machine: machine.id, update: Box::new(update), interfaces });
        }
        if let Some(ip) = address
            && !self.fixed.iter().any(|(_, old, mac)| *old == ip && *mac == Some(first))
        {
            let subnet = self.fix(ip, first)?;
            fields.push(format!("address: → {ip}"));
            self.actions.push(Action::Reserve { machine: machine.id, subnet, ip, mac: first });
        }
        Ok(outcome(false, what, fields))
    }

    /// The machine of that name, or of any of those addresses; they must not be different ones.
    async fn known(&self, control: &Control, name: Option<&str>, macs: &[Mac]) -> Result<Option<Machine>> {
        let mut found: Option<Machine> = None;
        for mac in macs {
            if let Some(machine) = control.store.machine_by_mac(*mac).await? {
                if found.as_ref().is_some_and(|other| other.id != machine.id) {
                    let message = format!("MAC address `{mac}` belongs to another machine, `{}`", machine.hostname);
                    return Err(Error::Conflict { code: "duplicate", message });
                }
                found = Some(machine);
            }
        }
        if let Some(Ok(hostname)) = name.map(str::parse)
            && let Some(machine) = control.store.machine_by_hostname(&hostname).await?
        {
            if found.as_ref().is_some_and(|other| other.id != machine.id) {
                let message = format!("host name `{hostname}` belongs to a machine with other MAC addresses");
                return Err(Error::Conflict { code: "duplicate", message });
            }
            found = Some(machine);
        }
        Ok(found)
    }

    fn fix(&mut self, ip: std::net::Ipv4Addr, mac: Mac) -> Result<SubnetId> {
        let subnet = self.subnets.iter().find(|subnet| subnet.cidr.contains(ip));
        let subnet = subnet.ok_or_else(|| Error::invalid("address", format!("`{ip}` lies in no subnet")))?;
        let ranges: Vec<IpRange> = self.ranges.iter().filter(|range| range.subnet == subnet.id).cloned().collect();
        ipam::check_address(subnet, &ranges, ip).map_err(bootstorm_store::Error::from)?;
        if self.fixed.iter().any(|(_, old, of)| *old == ip && *of != Some(mac)) {
            return Err(Error::Conflict { code: "duplicate", message: format!("address `{ip}` is in use already") });
        }
        let id = subnet.id;
        self.fixed.push((id, ip, Some(mac)));
        Ok(id)
    }
}

/// Whether a machine is switched in that way already.
async fn same_power(control: &Control, machine: &Machine, power: &native::Power) -> Result<bool> {
    let context = bootstorm_store::SecretContext::MachinePower(machine.id);
    let Some(sealed) = control.store.secret(&context).await? else {
        return Ok(machine.power.driver == power.driver && power.parameters.is_empty());
    };
    let plain = control.sealer.open(&context.text(), &sealed)?;
    let old: std::collections::BTreeMap<String, String> = serde_json::from_slice(&plain).unwrap_or_default();
    Ok(machine.power.driver == power.driver && old == power.parameters)
}

async fn perform(control: &Arc<Control>, actions: Vec<Action>, caller: &Caller) -> Result<()> {
    let store = &control.store;
    let mut real: HashMap<i64, i64> = HashMap::new();
    let id_of = |real: &HashMap<i64, i64>, id: i64| real.get(&id).copied().unwrap_or(id);
    for action in actions {
        match action {
            Action::CreateFabric(fabric) => {
                let draft = fabric.id.0;
                real.insert(draft, store.create_fabric(fabric).await?.id.0);
            }
            Action::CreateVlan(mut vlan) => {
                let draft = vlan.id.0;
                vlan.fabric = FabricId(id_of(&real, vlan.fabric.0));
                real.insert(draft, store.create_vlan(vlan).await?.id.0);
            }
            Action::UpdateVlan(mut vlan) => {
                vlan.id = VlanId(id_of(&real, vlan.id.0));
                store.update_vlan(&vlan).await?;
            }
            Action::CreateSubnet(mut subnet) => {
                let draft = subnet.id.0;
                subnet.vlan = VlanId(id_of(&real, subnet.vlan.0));
                real.insert(draft, store.create_subnet(subnet).await?.id.0);
            }
            Action::UpdateSubnet(mut subnet) => {
                (subnet.id, subnet.vlan) = (SubnetId(id_of(&real, subnet.id.0)), VlanId(id_of(&real, subnet.vlan.0)));
                store.update_subnet(&subnet).await?;
            }
            Action::CreateRange(mut range) => {
                range.subnet = SubnetId(id_of(&real, range.subnet.0));
                store.create_range(range).await?;
            }
            Action::DeleteRange(id) => store.delete_range(id).await?,
            Action::CreateMachine { request, address } => {
                let machine = machines::create(control, &request, caller).await?;
                if let Some((subnet, ip, mac)) = address {
                    reserve(control, machine.id, SubnetId(id_of(&real, subnet.0)), ip, mac).await?;
                }
            }
            Action::UpdateMachine { machine, update, interfaces } => {
                if *update != native::MachineUpdate::default() {
                    machines::update(control, machine, &update, caller).await?;
                }
                if interfaces.is_some() {
                    let update =
                        bootstorm_store::MachineUpdate { interfaces, ..bootstorm_store::MachineUpdate::default() };
                    let change = bootstorm_store::Change::UpdateMachine { machine, version: None, update };
                    control.commit(vec![change]).await?;
                }
            }
            Action::Release { subnet, ip } => drop_address(control, SubnetId(id_of(&real, subnet.0)), ip).await?,
            Action::Reserve { machine, subnet, ip, mac } => {
                reserve(control, machine, SubnetId(id_of(&real, subnet.0)), ip, mac).await?;
            }
        }
    }
    Ok(())
}

async fn drop_address(control: &Arc<Control>, subnet: SubnetId, ip: std::net::Ipv4Addr) -> Result<()> {
    control.store.release_address(subnet, ip).await?;
    Ok(())
}

async fn reserve(
    control: &Arc<Control>,
    machine: MachineId,
    subnet: SubnetId,
    ip: std::net::Ipv4Addr,
    mac: Mac,
) -> Result<()> {
    for old in control.store.machine_addresses(machine).await? {
        if old.mac == Some(mac) && old.kind.is_reservation() && old.ip != ip {
            control.store.release_address(old.subnet, old.ip).await?;
        }
    }
    let (mac, machine, updated) = (Some(mac), Some(machine), now());
    let address = Address { ip, subnet, kind: AddressKind::Static, mac, machine, until: None, updated };
    Ok(control.store.reserve_address(address).await?)
}

/// Takes note of the networks that a rack serves: one that nobody has described yet gets a fabric, a VLAN, a subnet and, in its upper
/// half, a dynamic range, so that a machine boots there without any configuration. The rack's own address is kept for it.
pub(crate) async fn adopt(control: &Arc<Control>, interfaces: &[RackInterface]) -> Result<()> {
    let _one = control.networks.lock().await;
    for interface in interfaces {
        let Some(cidr) = Ipv4Net::containing(interface.address, interface.prefix_bits) else { continue };
        let mut draft = Draft::load(control).await?;
        let known = draft.subnets.iter().any(|subnet| subnet.cidr.contains(interface.address));
        if !known {
            match draft.invent(cidr, interface) {
                Ok(()) => {
                    perform(control, draft.actions, &Caller { actor: "control".into(), key: None }).await?;
                    let text = format!("network {cidr} of interface `{}` is served from now on", interface.name);
                    control.commit(vec![log(Severity::Info, "network-adopted", None, None, "control", text)]).await?;
                }
                Err(error) => tracing::warn!(%cidr, %error, "a rack's network cannot be adopted"),
            }
        }
        keep(control, interface).await?;
    }
    Ok(())
}

impl Draft {
    fn invent(&mut self, cidr: Ipv4Net, interface: &RackInterface) -> Result<()> {
        let taken = |draft: &Draft, name: &str| {
            let fabric = draft.fabrics.iter().find(|fabric| fabric.name.as_str() == name);
            fabric.is_some_and(|fabric| draft.vlans.iter().any(|vlan| vlan.fabric == fabric.id))
        };
        let mut number = 0;
        while taken(self, &format!("fabric-{number}")) {
            number += 1;
        }
        let fabric = format!("fabric-{number}");
        self.fabric(&fabric)?;
        let mtu = model_limits::MTU_BYTES.contains(&interface.mtu).then_some(interface.mtu);
        self.vlan(&fabric, 0, None, mtu, Some(true))?;
        self.subnet(cidr, &fabric, 0, (None, Vec::new(), Vec::new(), None))?;
        let subnet = self.subnets.last().cloned();
        if let (Some(subnet), Some(range)) = (subnet, upper_half(cidr, interface.address)) {
            self.new_range(&subnet, RangeKind::Dynamic, range, AUTOMATIC)?;
        }
        Ok(())
    }
}

/// The upper half of a network's host addresses, or the part of it on the longer side of the rack's own address.
fn upper_half(cidr: Ipv4Net, own: std::net::Ipv4Addr) -> Option<Ipv4Range> {
    if cidr.prefix_bits() > RANGE_PREFIX_BITS_MAX {
        return None;
    }
    let (network, broadcast, own) = (u32::from(cidr.network()), u32::from(cidr.broadcast()), u32::from(own));
    let (first, last) = (network + (broadcast - network) / 2 + 1, broadcast - 1);
    let (first, last) = match own {
        _ if own < first || own > last => (first, last),
        _ if own - first > last - own => (first, own - 1),
        _ => (own + 1, last),
    };
    (first <= last).then(|| Ipv4Range { first: first.into(), last: last.into() })
}

/// Nobody else gets a rack's own address.
async fn keep(control: &Arc<Control>, interface: &RackInterface) -> Result<()> {
    let subnets = control.store.subnets().await?;
    let Some(subnet) = subnets.iter().find(|subnet| subnet.cidr.contains(interface.address)) else { return Ok(()) };
    if subnet.gateway == Some(interface.address) {
        return Ok(());
    }
    let (ip, subnet, kind) = (interface.address, subnet.id, AddressKind::Static);
    let address = Address { ip, subnet, kind, mac: None, machine: None, until: None, updated: now() };
    match control.store.reserve_address(address).await {
        Ok(()) | Err(bootstorm_store::Error::Duplicate { .. }) => Ok(()),
        Err(bootstorm_store::Error::Address(error)) => {
            tracing::warn!(%error, "the address of a rack cannot be kept for it");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::upper_half;

    #[test]
    fn the_range_of_an_adopted_network_is_its_upper_half_without_the_rack() {
        let half = |cidr: &str, own: &str| {
            let range = upper_half(cidr.parse().expect("network"), own.parse().expect("address"));
            range.map(|range| (range.first.to_string(), range.last.to_string()))
        };
        let expect = |first: &str, last: &str| Some((first.to_string(), last.to_string()));
        assert_eq!(half("10.0.0.0/24", "10.0.0.1"), expect("10.0.0.128", "10.0.0.254"));
        assert_eq!(half("10.0.0.0/24", "10.0.0.254"), expect("10.0.0.128", "10.0.0.253"));
        assert_eq!(half("10.0.0.0/24", "10.0.0.130"), expect("10.0.0.131", "10.0.0.254"));
        assert_eq!(half("10.0.0.0/30", "10.0.0.1"), None);
    }
}
