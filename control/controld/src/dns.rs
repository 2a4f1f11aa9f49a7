//! Zones and names for the racks to answer for, made from networks, machines and their addresses.
//!
//! Every domain of a subnet is a zone. A machine has its host name in the domain of the subnet of the interface that it boots by; its other
//! interfaces are `INTERFACE.HOST.DOMAIN`. Each address has a PTR record in the reverse zone of its octets, with all the names that it
//! has. The serial of a zone is the generation in which the zone last changed: it rises through every crash, since generations do,
//! and stays where nothing of the zone has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use bootstorm_model::{Hostname, Subnet};
use bootstorm_snapshot::dns::{DnsName, Name, RecordSet, Zone, kind};
use bootstorm_snapshot::{Record, View};
use bootstorm_store::SnapshotSource;

use crate::limits;

/// Names of a zone by owner: addresses, and names that addresses have.
type Names = BTreeMap<DnsName, RecordSet>;

/// Adds zones and names to `next`. `before` is the view that it will follow.
pub(crate) fn publish(source: &SnapshotSource, before: &View, next: &mut View) {
    let subnets: HashMap<_, _> = source.subnets.iter().map(|subnet| (subnet.id, subnet)).collect();
    let machines: HashMap<_, _> = source.machines.iter().map(|machine| (machine.id, machine)).collect();
    let mut hosts: BTreeMap<DnsName, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for address in &source.reservations {
        let Some(machine) = address.machine.and_then(|machine| machines.get(&machine)) else { continue };
        let Some(domain) = subnets.get(&address.subnet).and_then(|subnet| domain(subnet)) else { continue };
        let Some(interface) = machine.interfaces.iter().find(|interface| address.mac == Some(interface.mac)) else {
            continue;
        };
        let host = domain.child(machine.hostname.as_str());
        let is_boot = machine.boot_interface().is_some_and(|boot| boot.mac == interface.mac);
        let name = match interface.name.parse::<Hostname>() {
            _ if is_boot => host,
            Ok(label) => host.and_then(|host| host.child(label.as_str())),
            // A name such as `bond0.100` is no label.
            Err(_) => None,
        };
        if let Some(name) = name {
            hosts.entry(name).or_default().insert(address.ip);
        }
    }
    let mut names: Names = BTreeMap::new();
    let mut reverse: BTreeMap<DnsName, BTreeSet<DnsName>> = BTreeMap::new();
    for (host, addresses) in hosts {
        for address in &addresses {
            reverse.entry(DnsName::reverse(*address)).or_default().insert(host.clone());
        }
        names.insert(host, RecordSet::a(limits::DNS_TTL_SECONDS, addresses));
    }
    for (owner, targets) in reverse {
        names.insert(owner, RecordSet::of_names(kind::PTR, limits::DNS_TTL_SECONDS, &targets));
    }
    let zones = zones(source);
    let mut serials = changed(before, &zones, &names);
    for (apex, servers) in &zones {
        let Some(primary) = primary(apex, &zones) else { continue };
        let serial = serials.remove(apex).unwrap_or(next.generation.0 as u32);
        next.put(Record::Zone(zone(apex, &primary, serial)));
        next.put(Record::Name(Name { name: apex.clone(), sets: vec![server_set(&primary)] }));
        if let Some(set) = address_set(servers) {
            next.put(Record::Name(Name { name: primary, sets: vec![set] }));
        }
    }
    for (name, set) in names {
        next.put(Record::Name(Name { name, sets: vec![set] }));
    }
}

fn domain(subnet: &Subnet) -> Option<DnsName> {
    subnet.domain.as_ref().and_then(|domain| domain.as_str().parse().ok())
}

/// The zones that there are, each with the addresses of the name servers that clients of its subnets are given.
fn zones(source: &SnapshotSource) -> BTreeMap<DnsName, BTreeSet<Ipv4Addr>> {
    let mut zones: BTreeMap<DnsName, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for subnet in &source.subnets {
        let Some(domain) = domain(subnet) else { continue };
        zones.entry(domain).or_default().extend(&subnet.dns_servers);
        for apex in reverse_zones(subnet) {
            zones.entry(apex).or_default();
        }
    }
    zones
}

/// The reverse zones of a subnet: the fewest that lie on octets, and at most the last octet is left to names in them. A network longer
/// than 24 bits is in the zone of its 256 addresses.
fn reverse_zones(subnet: &Subnet) -> Vec<DnsName> {
    let octets = usize::from(subnet.cidr.prefix_bits()).div_ceil(8).clamp(1, 3);
    let step = 1_u32 << (32 - 8 * octets);
    let (first, last) = (u32::from(subnet.cidr.network()) / step, u32::from(subnet.cidr.broadcast()) / step);
    let apex = |number: u32| {
        let [a, b, c, _] = (number * step).to_be_bytes();
        let text: Vec<String> = [a, b, c].iter().take(octets).rev().map(u8::to_string).collect();
        format!("{}.in-addr.arpa", text.join(".")).parse().ok()
    };
    (first..=last).filter_map(apex).collect()
}

/// The primary server's name: in the zone itself, or for a reverse zone in the first domain.
fn primary(apex: &DnsName, zones: &BTreeMap<DnsName, BTreeSet<Ipv4Addr>>) -> Option<DnsName> {
    let is_reverse = |name: &DnsName| "in-addr.arpa".parse().is_ok_and(|arpa| name.is_in(&arpa));
    let home = if is_reverse(apex) { zones.keys().find(|name| !is_reverse(name))? } else { apex };
    home.child("ns")
}

fn zone(apex: &DnsName, primary: &DnsName, serial: u32) -> Zone {
    Zone {
        name: apex.clone(),
        primary: primary.clone(),
        contact: apex.child("hostmaster").unwrap_or_else(|| apex.clone()),
        serial,
        refresh_seconds: limits::DNS_REFRESH_SECONDS,
        retry_seconds: limits::DNS_RETRY_SECONDS,
        expire_seconds: limits::DNS_EXPIRE_SECONDS,
        negative_seconds: limits::DNS_NEGATIVE_SECONDS,
        ttl_seconds: limits::DNS_TTL_SECONDS,
    }
}

fn server_set(primary: &DnsName) -> RecordSet {
    RecordSet::of_names(kind::NS, limits::DNS_TTL_SECONDS, [primary])
}

fn address_set(servers: &BTreeSet<Ipv4Addr>) -> Option<RecordSet> {
    (!servers.is_empty()).then(|| RecordSet::a(limits::DNS_TTL_SECONDS, servers.iter().copied()))
}

/// The serials of the zones that are as they were.
fn changed(before: &View, zones: &BTreeMap<DnsName, BTreeSet<Ipv4Addr>>, names: &Names) -> BTreeMap<DnsName, u32> {
    let mut now: BTreeMap<&DnsName, BTreeMap<DnsName, Vec<RecordSet>>> = BTreeMap::new();
    for (apex, servers) in zones {
        now.entry(apex).or_default();
        let Some(primary) = primary(apex, zones) else { continue };
        now.entry(apex).or_default().insert(apex.clone(), vec![server_set(&primary)]);
        if let (Some(set), Some(home)) = (address_set(servers), zone_of(&primary, zones)) {
            now.entry(home).or_default().insert(primary, vec![set]);
        }
    }
    for (name, set) in names {
        if let Some(apex) = zone_of(name, zones) {
            now.entry(apex).or_default().insert(name.clone(), vec![set.clone()]);
        }
    }
    let mut then: BTreeMap<&DnsName, BTreeMap<DnsName, Vec<RecordSet>>> = BTreeMap::new();
    for name in before.names.iter() {
        if let Some(apex) = zone_of(&name.name, zones) {
            then.entry(apex).or_default().insert(name.name, name.sets);
        }
    }
    let same = |(apex, zone): (&DnsName, &Zone)| {
        let primary = primary(apex, zones)?;
        let is_same = now.get(apex) == then.get(apex) && *zone == self::zone(apex, &primary, zone.serial);
        is_same.then(|| (apex.clone(), zone.serial))
    };
    before.zones.iter().filter_map(same).collect()
}

/// The zone that a name is in: the closest one above it, or at it.
fn zone_of<'a>(name: &DnsName, zones: &'a BTreeMap<DnsName, BTreeSet<Ipv4Addr>>) -> Option<&'a DnsName> {
    let mut rest = name.wire();
    loop {
        let suffix = DnsName::from_wire(rest)?;
        if let Some((apex, _)) = zones.get_key_value(&suffix) {
            return Some(apex);
        }
        let (length, after) = rest.split_first()?;
        rest = after.get(usize::from(*length)..).filter(|_| *length > 0)?;
    }
}
