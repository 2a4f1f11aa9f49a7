//! All records of one generation, by kind; what control publishes from and what a rack builds its indexes from.

use std::collections::BTreeMap;

use crate::dhcp::{DhcpOptions, Identity, NamedReservation, ProxyDhcp, Scope};
use crate::dns::{DnsName, Zone};
use crate::ids::{EnrolmentId, Generation, MachineId, OperationId, SubnetId, VlanId};
use crate::names::Names;
use crate::net::{Architecture, Mac};
use crate::plan::Plan;
use crate::record::{Boot, Change, Enrolment, Environment, Key, Line, Record, Reservation, Site, Subnet};

/// The records in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The generation that is complete in this view.
    pub generation: Generation,
    /// Site-wide settings; absent before the first generation.
    pub site: Option<Site>,
    /// Subnets.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// Fixed addresses.
    pub reservations: BTreeMap<Mac, Reservation>,
    /// Boot answers.
    pub boots: BTreeMap<MachineId, Boot>,
    /// Plans.
    pub plans: BTreeMap<OperationId, Plan>,
    /// Boot environments.
    pub environments: BTreeMap<Architecture, Environment>,
    /// Enrolments that have become machines.
    pub enrolments: BTreeMap<EnrolmentId, Enrolment>,
    /// DHCP options, the widest scope first.
    pub dhcp_options: BTreeMap<Scope, DhcpOptions>,
    /// Addresses reserved by other names than MAC addresses.
    pub named_reservations: BTreeMap<Identity, NamedReservation>,
    /// VLANs with somebody else's DHCP server.
    pub proxy_dhcp: BTreeMap<VlanId, ProxyDhcp>,
    /// Zones of DNS. Their SOAs stand in `names` too: both are changed by [`View::put`] and [`View::remove`].
    pub zones: BTreeMap<DnsName, Zone>,
    /// DNS records by name, in the form in which they are found and sent.
    pub names: Names,
}

impl View {
    /// Applies one line. Generations must not go back; the caller checks that before.
    pub fn apply(&mut self, line: Line) {
        self.generation = self.generation.max(line.generation);
        match line.change {
            Change::Put(record) => self.put(*record),
            Change::Remove(key) => self.remove(&key),
            Change::Unknown => {}
        }
    }

    /// Puts a record under its key.
    pub fn put(&mut self, record: Record) {
        match record {
            Record::Site(value) => self.site = Some(value),
            Record::Subnet(value) => drop(self.subnets.insert(value.id, value)),
            Record::Reservation(value) => drop(self.reservations.insert(value.mac, value)),
            Record::Boot(value) => drop(self.boots.insert(value.machine, value)),
            Record::Plan(operation, value) => drop(self.plans.insert(operation, value)),
            Record::Environment(value) => drop(self.environments.insert(value.architecture, value)),
            Record::Enrolment(value) => drop(self.enrolments.insert(value.enrolment, value)),
            Record::DhcpOptions(value) => drop(self.dhcp_options.insert(value.scope.clone(), value)),
            Record::NamedReservation(value) => {
                drop(self.named_reservations.insert(value.identity.clone(), value));
            }
            Record::ProxyDhcp(value) => drop(self.proxy_dhcp.insert(value.vlan, value)),
            Record::Zone(value) => {
                self.names.put_zone(&value);
                self.zones.insert(value.name.clone(), value);
            }
            Record::Name(value) => self.names.put(&value),
        }
    }

    /// Removes the record under a key, if there is one.
    pub fn remove(&mut self, key: &Key) {
        match key {
            Key::Site => self.site = None,
            Key::Subnet(id) => drop(self.subnets.remove(id)),
            Key::Reservation(mac) => drop(self.reservations.remove(mac)),
            Key::Boot(machine) => drop(self.boots.remove(machine)),
            Key::Plan(operation) => drop(self.plans.remove(operation)),
            Key::Environment(architecture) => drop(self.environments.remove(architecture)),
            Key::Enrolment(enrolment) => drop(self.enrolments.remove(enrolment)),
            Key::DhcpOptions(scope) => drop(self.dhcp_options.remove(scope)),
            Key::NamedReservation(identity) => drop(self.named_reservations.remove(identity)),
            Key::ProxyDhcp(vlan) => drop(self.proxy_dhcp.remove(vlan)),
            Key::Zone(name) => {
                self.names.remove_zone(name);
                self.zones.remove(name);
            }
            Key::Name(name) => self.names.remove(name),
        }
    }

    /// Every record, in the order of kinds that a reader can use at once (site, networks, then machines).
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let site = self.site.iter().cloned().map(Record::Site);
        let subnets = self.subnets.values().cloned().map(Record::Subnet);
        let environments = self.environments.values().cloned().map(Record::Environment);
        let reservations = self.reservations.values().cloned().map(Record::Reservation);
        let plans = self.plans.iter().map(|(operation, plan)| Record::Plan(*operation, plan.clone()));
        let boots = self.boots.values().cloned().map(Record::Boot);
        let enrolments = self.enrolments.values().cloned().map(Record::Enrolment);
        let options = self.dhcp_options.values().cloned().map(Record::DhcpOptions);
        let named = self.named_reservations.values().cloned().map(Record::NamedReservation);
        let proxies = self.proxy_dhcp.values().copied().map(Record::ProxyDhcp);
        let zones = self.zones.values().cloned().map(Record::Zone);
        let networks = site.chain(subnets).chain(options).chain(named).chain(proxies).chain(zones);
        let names = self.names.iter().map(Record::Name);
        networks.chain(environments).chain(reservations).chain(plans).chain(boots).chain(enrolments).chain(names)
    }

    /// The whole view as lines of its generation: a base.
    pub fn base(&self) -> Vec<Line> {
        self.records()
            .map(|record| Line { generation: self.generation, change: Change::Put(Box::new(record)) })
            .collect()
    }

    /// The lines that turn `self` into `next`, all of `next`'s generation: a delta.
    pub fn delta(&self, next: &View) -> Vec<Line> {
        let mut before: BTreeMap<Key, Record> = self.records().map(|record| (record.key(), record)).collect();
        let mut changes = Vec::new();
        for record in next.records() {
            if before.remove(&record.key()).as_ref() != Some(&record) {
                changes.push(Change::Put(Box::new(record)));
            }
        }
        changes.extend(before.into_keys().map(Change::Remove));
        changes.into_iter().map(|change| Line { generation: next.generation, change }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::dhcp::{DhcpOption, Octets};
    use crate::dns::{Name, RecordSet};
    use crate::record::Answer;
    use proptest::prelude::*;

    fn boot(n: u8, hostname: &str) -> Record {
        let machine = MachineId::from_random([n; 8]);
        Record::Boot(Boot {
            machine,
            hostname: hostname.into(),
            macs: vec![],
            architecture: None,
            answer: Answer::Wait,
        })
    }

    fn subnet(n: u8) -> Record {
        Record::Subnet(Subnet {
            id: SubnetId(i64::from(n)),
            vlan: VlanId(1),
            cidr: format!("10.{n}.0.0/16").parse().expect("net"),
            gateway: None,
            dns_servers: vec![],
            ntp_servers: vec![],
            domain: None,
            mtu: None,
            dhcp: true,
            dynamic: vec![],
            ipv6_prefix: None,
        })
    }

    fn network(n: u8) -> Record {
        let octets = Octets(vec![n]);
        match n % 5 {
            0 => Record::DhcpOptions(DhcpOptions {
                scope: Scope::Subnet(SubnetId(i64::from(n))),
                machines: vec![],
                options: vec![DhcpOption { code: n, data: octets }],
            }),
            1 => Record::NamedReservation(NamedReservation {
                identity: Identity::Circuit(octets),
                subnet: SubnetId(1),
                address: [10, 0, 0, n].into(),
                hostname: None,
            }),
            2 => Record::ProxyDhcp(ProxyDhcp { vlan: VlanId(i64::from(n)) }),
            3 => Record::Zone(Zone {
                name: format!("z{}.test", n % 4).parse().expect("name"),
                primary: "ns.test".parse().expect("name"),
                contact: "root.test".parse().expect("name"),
                serial: u32::from(n),
                refresh_seconds: 1,
                retry_seconds: 2,
                expire_seconds: 3,
                negative_seconds: 4,
                ttl_seconds: 5,
            }),
            _ => Record::Name(Name {
                name: format!("n{n}.z{}.test", n % 4).parse().expect("name"),
                sets: vec![RecordSet::a(u32::from(n), [[10, 0, 0, n].into()])],
            }),
        }
    }

    fn view(generation: u64, items: &[(u8, bool)]) -> View {
        let mut view = View { generation: Generation(generation), ..View::default() };
        for (n, flag) in items {
            if *n > 200 {
                view.put(network(*n));
            }
            view.put(if *flag { subnet(n % 8) } else { boot(n % 8, if n % 3 == 0 { "a" } else { "b" }) });
        }
        view
    }

    proptest! {
        #[test]
        fn base_and_delta_rebuild_the_view(
            before in proptest::collection::vec(any::<(u8, bool)>(), 0..20),
            after in proptest::collection::vec(any::<(u8, bool)>(), 0..20),
        ) {
            let (before, after) = (view(1, &before), view(2, &after));
            let mut bytes = Vec::new();
            before.base().iter().chain(&before.delta(&after)).for_each(|line| codec::encode_line(line, &mut bytes));
            let mut rebuilt = View::default();
            for line in codec::decode_lines(&bytes).expect("own lines") {
                rebuilt.apply(line);
            }
            rebuilt.generation = after.generation; // an empty delta carries no generation
            prop_assert_eq!(rebuilt, after);
        }
    }
}
