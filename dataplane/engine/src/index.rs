//! What is looked up, built once per generation from the snapshot's view and then shared by all shards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bootstorm_proto::dhcp::options::may_be_set;
use bootstorm_snapshot::dhcp::{Identity, NamedReservation, Scope};
use bootstorm_snapshot::record::{Boot, Environment, File, Reservation, Subnet};
use bootstorm_snapshot::{Architecture, Encoding, Mac, MachineId, ManifestDigest, Names, SubnetId, Task, View, VlanId};
use bytes::Bytes;

use crate::{cpio, limits};

/// Indexes over one generation. Immutable; a new generation is a new index.
#[derive(Debug, Default)]
pub struct Index {
    view: View,
    machines: BTreeMap<Mac, MachineId>,
    reserved: BTreeSet<Ipv4Addr>,
    networks: BTreeMap<VlanId, Vec<SubnetId>>,
    /// Options that an operator may set, by scope.
    options: BTreeMap<Scope, Vec<(u8, Vec<u8>)>>,
    /// Scopes of the tags of each machine, by name.
    tags: BTreeMap<MachineId, Vec<Scope>>,
    files: BTreeMap<String, File>,
    manifests: BTreeMap<ManifestDigest, Named>,
    ca_initrd: Bytes,
    listing: Bytes,
    /// Addresses of the subnets, as ranges that do not touch, in their order.
    clients: Vec<(u32, u32)>,
}

/// A manifest that the generation names, and how much it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// Part of a boot environment: nothing boots without it.
    Environment,
    /// An image of a plan.
    Image,
}

impl Index {
    /// Builds the indexes of a view.
    pub fn new(view: View) -> Index {
        let mut machines: BTreeMap<Mac, MachineId> = BTreeMap::new();
        for boot in view.boots.values() {
            machines.extend(boot.macs.iter().map(|mac| (*mac, boot.machine)));
        }
        for reservation in view.reservations.values() {
            if let Some(machine) = reservation.machine
                && view.boots.contains_key(&machine)
            {
                machines.entry(reservation.mac).or_insert(machine);
            }
        }
        let mut files = BTreeMap::new();
        let mut manifests = BTreeMap::new();
        for environment in view.environments.values() {
            for (name, file) in environment_files(environment) {
                manifests.insert(file.manifest, Named::Environment);
                // Two environments may bring a loader of one name; the first architecture's is served under it.
                files.entry(name).or_insert_with(|| file.clone());
            }
        }
        for plan in view.plans.values() {
            if let Task::Deploy(deploy) = &plan.task {
                manifests.entry(deploy.manifest).or_insert(Named::Image);
            }
        }
        let ca = view.site.as_ref().map(|site| site.ca_pem.as_bytes()).unwrap_or_default();
        let ca_initrd = match ca.len() {
            1..=limits::CA_PEM_BYTES_MAX => Bytes::from(cpio::archive("etc/bootstorm/ca.pem", ca)),
            _ => Bytes::new(),
        };
        let named = view.named_reservations.values().map(|reservation| reservation.address);
        let reserved = view.reservations.values().map(|reservation| reservation.address).chain(named).collect();
        let mut options = BTreeMap::new();
        let mut tags: BTreeMap<MachineId, Vec<Scope>> = BTreeMap::new();
        for set in view.dhcp_options.values() {
            // Control has checked them; one that a rack of this version does not take is left out rather than sent.
            let good = set.options.iter().filter(|one| one.data.0.is_empty() || may_be_set(one.code, &one.data.0));
            options.insert(set.scope.clone(), good.map(|one| (one.code, one.data.0.clone())).collect());
            for machine in &set.machines {
                tags.entry(*machine).or_default().push(set.scope.clone());
            }
        }
        let mut networks: BTreeMap<VlanId, Vec<SubnetId>> = BTreeMap::new();
        for subnet in view.subnets.values().filter(|subnet| subnet.dhcp) {
            networks.entry(subnet.vlan).or_default().push(subnet.id);
        }
        let clients = ranges(view.subnets.values());
        let listing = Bytes::new();
        Index { view, machines, reserved, networks, options, tags, files, manifests, ca_initrd, listing, clients }
    }

    /// An index of files only, without machines or networks: for `bootstorm serve`.
    pub fn of_files(files: Vec<File>) -> Index {
        let manifests = files.iter().map(|file| (file.manifest, Named::Environment)).collect();
        let mut listing = Vec::new();
        for file in &files {
            // A name, numbers and hashes: this always encodes.
            listing.extend(serde_json::to_vec(file).unwrap_or_default());
            listing.push(b'\n');
        }
        let listing = listing.into();
        let files = files.into_iter().map(|file| (file.name.clone(), file)).collect();
        Index { files, manifests, listing, ..Index::default() }
    }

    /// The view it was built from.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The names that racks answer for over DNS.
    pub fn names(&self) -> &Names {
        &self.view.names
    }

    /// Whether an address is on one of our subnets.
    pub fn is_client(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let after = self.clients.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).and_then(|at| self.clients.get(at)).is_some_and(|(_, last)| address <= *last)
    }

    /// The machine that an interface belongs to.
    pub fn machine(&self, mac: Mac) -> Option<MachineId> {
        self.machines.get(&mac).copied()
    }

    /// The boot record of a machine.
    pub fn boot(&self, machine: MachineId) -> Option<&Boot> {
        self.view.boots.get(&machine)
    }

    /// The fixed address of an interface in a subnet.
    pub fn reservation(&self, mac: Mac, subnet: SubnetId) -> Option<&Reservation> {
        self.view.reservations.get(&mac).filter(|reservation| reservation.subnet == subnet)
    }

    /// Whether an interface is a machine's, or has a fixed address anywhere.
    pub fn is_known(&self, mac: Mac) -> bool {
        self.machines.contains_key(&mac) || self.view.reservations.contains_key(&mac)
    }

    /// Whether an address is some interface's fixed one.
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.reserved.contains(&address)
    }

    /// The subnet that an address lies in, if racks answer DHCP there; the narrowest one if several do.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        let holds = self.view.subnets.values().filter(|subnet| subnet.dhcp && subnet.cidr.contains(address));
        holds.max_by_key(|subnet| subnet.cidr.prefix_bits())
    }

    /// The address kept for a client by another name than its MAC address.
    pub fn named_reservation(&self, identity: &Identity) -> Option<&NamedReservation> {
        self.view.named_reservations.get(identity)
    }

    /// Whether any address is kept by another name than a MAC address.
    pub fn has_named_reservations(&self) -> bool {
        !self.view.named_reservations.is_empty()
    }

    /// The subnet that an address lies in where somebody else's server gives the addresses and racks say what to boot.
    pub fn proxied_subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        let proxied = |subnet: &&Subnet| !subnet.dhcp && self.view.proxy_dhcp.contains_key(&subnet.vlan);
        let mut subnets = self.view.subnets.values().filter(proxied);
        subnets.find(|subnet| subnet.cidr.contains(address))
    }

    /// The options set for a client of a subnet, each code once, as the narrowest scope has it; without octets where that takes
    /// the option away.
    pub fn options(&self, subnet: &Subnet, address: Ipv4Addr, machine: Option<MachineId>) -> Vec<(u8, &[u8])> {
        if self.options.is_empty() {
            return Vec::new();
        }
        let range = subnet.dynamic.iter().find(|range| range.contains(address));
        let tags = machine.and_then(|machine| self.tags.get(&machine));
        let scopes = [Some(Scope::Site), Some(Scope::Vlan(subnet.vlan)), Some(Scope::Subnet(subnet.id))]
            .into_iter()
            .chain([range.map(|range| Scope::Range(range.first))])
            .chain(tags.into_iter().flatten().cloned().map(Some))
            .chain([machine.map(Scope::Machine)]);
        let mut merged = BTreeMap::new();
        for scope in scopes.flatten() {
            let set = self.options.get(&scope).into_iter().flatten();
            merged.extend(set.map(|(code, data)| (*code, data.as_slice())));
        }
        merged.into_iter().collect()
    }

    /// The subnets that share a link with one, itself first: those of its VLAN on which racks answer DHCP.
    pub fn network<'a>(&'a self, link: &'a Subnet) -> Vec<&'a Subnet> {
        let others = self.networks.get(&link.vlan).into_iter().flatten().filter(|id| **id != link.id);
        [link].into_iter().chain(others.filter_map(|id| self.view.subnets.get(id))).collect()
    }

    /// The boot environment of an architecture.
    pub fn environment(&self, architecture: Architecture) -> Option<&Environment> {
        self.view.environments.get(&architecture)
    }

    /// A file by its opaque name, without a leading `/`.
    pub fn file(&self, name: &str) -> Option<&File> {
        self.files.get(name)
    }

    /// Manifests that this generation names, and what for.
    pub fn manifests(&self) -> &BTreeMap<ManifestDigest, Named> {
        &self.manifests
    }

    /// The files of [`Index::of_files`], one line of JSON each; empty for a site's rack, whose files are the snapshot's business.
    pub fn listing(&self) -> &Bytes {
        &self.listing
    }

    /// The site's CA as an uncompressed cpio archive; empty if there is none.
    pub fn ca_initrd(&self) -> &Bytes {
        &self.ca_initrd
    }
}

/// The addresses of subnets, which may lie in one another.
fn ranges<'a>(subnets: impl Iterator<Item = &'a Subnet>) -> Vec<(u32, u32)> {
    let mut all: Vec<(u32, u32)> =
        subnets.map(|subnet| (subnet.cidr.network().into(), subnet.cidr.broadcast().into())).collect();
    all.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match joined.last_mut().filter(|before| first <= before.1) {
            Some(before) => before.1 = before.1.max(last),
            None => joined.push((first, last)),
        }
    }
    joined
}

/// Files of an environment by the names under which machines fetch them. Kernel and initrd by their paths; loaders by
/// their own names. Only plain files are what firmware can read.
fn environment_files(environment: &Environment) -> impl Iterator<Item = (String, &File)> {
    let path = |what: &str| format!("environment/{}/{what}", environment.architecture);
    let fixed = [(path("kernel"), &environment.kernel), (path("initrd"), &environment.initrd)];
    let loaders = environment.loaders.iter().map(|file| (file.name.clone(), file));
    fixed.into_iter().chain(loaders).filter(|(_, file)| file.encoding == Encoding::Plain)
}
