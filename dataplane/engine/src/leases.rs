//! Who has which address: leases, offers, quarantine. Says nothing about messages; `dhcp` does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::time::Duration;

use bootstorm_snapshot::record::Subnet;
use bootstorm_snapshot::{Architecture, Ipv4Range, Mac, SubnetId};
use serde::{Deserialize, Serialize};

use crate::limits;

/// A lease; stays in the table after its end until its address is needed, so that a client comes back to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The client.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// The subnet.
    pub subnet: SubnetId,
    /// When it ends, in seconds since 1970.
    pub until_unix_seconds: u64,
    /// Whether it was ended (expired or released).
    pub ended: bool,
    /// Architecture that the client's firmware said.
    pub architecture: Option<Architecture>,
    /// Relay circuit of an unknown machine, as a hash.
    pub circuit: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Offer {
    address: Ipv4Addr,
    until: Duration,
    circuit: Option<u64>,
}

/// Why no address was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// Every address of the dynamic ranges is taken.
    Exhausted,
    /// The table of offers or leases is full.
    TableFull,
    /// The relay circuit has all that unknown machines may have.
    Quota,
}

/// Who asks for an address, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub mac: Mac,
    /// Whether it is somebody's machine. What others may hold is bounded below what all may.
    pub known: bool,
    /// Relay circuit of a machine that nobody knows: its quota.
    pub circuit: Option<u64>,
    /// Address that the client would like.
    pub wish: Option<Ipv4Addr>,
}

/// A copy of all leases while it is made, a part at a time, in the order of their addresses.
#[derive(Debug)]
struct Copying {
    copied: Vec<Lease>,
    /// Addresses that were copied and have changed since.
    changed: BTreeSet<Ipv4Addr>,
}

/// A copy of all leases: put in their order, they give the table as it is.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub leases: Vec<Lease>,
    /// What has changed behind the copy's back: a lease as it is now, or none any more.
    pub changed: Vec<(Ipv4Addr, Option<Lease>)>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    copying: Option<Copying>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_client: BTreeMap<(SubnetId, Mac), Ipv4Addr>,
    ends: BTreeSet<(u64, Ipv4Addr)>,
    /// Ended leases whose address is not on offer, by their end: what is given out again first.
    ended: BTreeSet<(SubnetId, u64, Ipv4Addr)>,
    offers: BTreeMap<(SubnetId, Mac), Offer>,
    offered: BTreeMap<Ipv4Addr, Mac>,
    offer_ends: BTreeSet<(Duration, SubnetId, Mac)>,
    quarantine: BTreeMap<Ipv4Addr, u64>,
    /// Addresses that each relay circuit's unknown machines hold, and those that are offered to them.
    circuits: BTreeMap<u64, u32>,
    cursors: BTreeMap<SubnetId, Ipv4Addr>,
    /// Subnets without an address that nobody ever had, and until when no other is searched for.
    used_up_until: BTreeMap<SubnetId, Duration>,
}

impl Leases {
    /// The client's lease in a subnet, ended or not.
    pub(crate) fn of_client(&self, subnet: SubnetId, mac: Mac) -> Option<&Lease> {
        self.by_address.get(self.by_client.get(&(subnet, mac))?)
    }

    /// Who holds an address now.
    pub(crate) fn holder(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address).filter(|lease| !lease.ended)
    }

    /// The address offered to a client and not yet taken.
    pub(crate) fn offer_of(&self, subnet: SubnetId, mac: Mac) -> Option<Ipv4Addr> {
        self.offers.get(&(subnet, mac)).map(|offer| offer.address)
    }

    /// Leases that have not ended.
    pub(crate) fn active(&self) -> usize {
        self.ends.len()
    }

    /// Goes on with a copy of all leases, `count` of them; true when it has all. What changes meanwhile is kept apart.
    pub(crate) fn copy(&mut self, count: usize) -> bool {
        let all = self.by_address.len();
        let copying =
            self.copying.get_or_insert_with(|| Copying { copied: Vec::with_capacity(all), changed: BTreeSet::new() });
        let from = copying.copied.last().map_or(Bound::Unbounded, |last| Bound::Excluded(last.address));
        let before = copying.copied.len();
        copying.copied.extend(self.by_address.range((from, Bound::Unbounded)).map(|(_, lease)| *lease).take(count));
        copying.copied.len() - before < count
    }

    /// Ends a copy: what it lacks yet is copied now.
    pub(crate) fn take_copy(&mut self) -> Copied {
        self.copy(usize::MAX);
        let Some(Copying { copied, changed }) = self.copying.take() else { return Copied::default() };
        let changed = changed.into_iter().map(|address| (address, self.by_address.get(&address).copied()));
        Copied { leases: copied, changed: changed.collect() }
    }

    /// The lease of an address is another, or none, from here on.
    fn note_change(&mut self, address: Ipv4Addr) {
        if let Some(copying) = &mut self.copying
            && copying.copied.last().is_some_and(|last| address <= last.address)
        {
            copying.changed.insert(address);
        }
    }

    /// Addresses in quarantine with the second of their release.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = (Ipv4Addr, u64)> {
        self.quarantine.iter().map(|(address, until)| (*address, *until))
    }

    /// An address of the dynamic ranges for a client, which is then offered to it. `taken` says which addresses are
    /// never given out here (fixed ones, routers, our own).
    pub(crate) fn choose(
        &mut self,
        now: Duration,
        subnet: &Subnet,
        asker: Asker,
        taken: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<Ipv4Addr, NoAddress> {
        let client = (subnet.id, asker.mac);
        let free = |leases: &Leases, address: Ipv4Addr| {
            subnet.dynamic.iter().any(|range| range.contains(address))
                && subnet.cidr.contains(address)
                && !taken(address)
                && !leases.quarantine.contains_key(&address)
                && leases.offered.get(&address).is_none_or(|mac| *mac == asker.mac)
                && leases.holder(address).is_none_or(|lease| lease.mac == asker.mac)
        };
        let known = self.by_client.get(&client).copied().or_else(|| self.offer_of(subnet.id, asker.mac));
        if let Some(address) = known.filter(|address| free(self, *address)) {
            return self.offer(now, subnet.id, asker, address);
        }
        // An offer that is not free any more gives its part of the quota back.
        self.withdraw(subnet.id, asker.mac);
        if let Some(circuit) = asker.circuit
            && self.circuits.get(&circuit).is_some_and(|count| *count >= limits::UNKNOWN_LEASES_PER_CIRCUIT_MAX)
        {
            return Err(NoAddress::Quota);
        }
        let offers_max = if asker.known { limits::OFFERS_MAX } else { limits::OFFERS_UNKNOWN_MAX };
        if self.offers.len() >= offers_max {
            return Err(NoAddress::TableFull);
        }
        let wish = asker.wish.filter(|address| free(self, *address));
        let wish = wish.filter(|address| self.has_room() || self.by_address.contains_key(address));
        if let Some(address) = wish {
            return self.offer(now, subnet.id, asker, address);
        }
        let fresh =
            if self.has_room() { self.search(now, subnet, |leases, address| free(leases, address)) } else { None };
        if let Some(address) = fresh {
            self.cursors.insert(subnet.id, address);
            return self.offer(now, subnet.id, asker, address);
        }
        // Those that ended first come first: the others may yet be asked for by whoever had them.
        let ended =
            self.ended.range((subnet.id, 0, Ipv4Addr::UNSPECIFIED)..=(subnet.id, u64::MAX, Ipv4Addr::BROADCAST));
        let mut ended = ended.map(|(.., address)| *address).take(limits::ADDRESS_SEARCH_MAX);
        match ended.find(|address| free(self, *address)) {
            Some(address) => self.offer(now, subnet.id, asker, address),
            None if self.has_room() => Err(NoAddress::Exhausted),
            None => Err(NoAddress::TableFull),
        }
    }

    fn has_room(&self) -> bool {
        self.by_address.len() < limits::LEASES_MAX
    }

    /// The next address that nobody has had yet, after the one given out last. A search without success is the dearest
    /// thing that a Discover can cause, and is not repeated at once.
    fn search(&mut self, now: Duration, subnet: &Subnet, free: impl Fn(&Leases, Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        if self.used_up_until.get(&subnet.id).is_some_and(|until| now < *until) {
            return None;
        }
        let cursor = self.cursors.get(&subnet.id).copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let after = subnet.dynamic.iter().filter_map(|range| clip(*range, cursor));
        let mut candidates = after.chain(subnet.dynamic.iter().copied()).flat_map(addresses);
        let mut last = cursor;
        let found = candidates.by_ref().take(limits::ADDRESS_SEARCH_MAX).find(|address| {
            last = *address;
            !self.by_address.contains_key(address) && free(self, *address)
        });
        if found.is_none() {
            self.used_up_until.insert(subnet.id, now + limits::EXHAUSTED_PAUSE);
            // A range longer than one search is searched on from there.
            self.cursors.insert(subnet.id, last);
        }
        found
    }

    /// Keeps an address for a client for a short time.
    fn offer(
        &mut self,
        now: Duration,
        subnet: SubnetId,
        asker: Asker,
        address: Ipv4Addr,
    ) -> Result<Ipv4Addr, NoAddress> {
        let Asker { mac, circuit, .. } = asker;
        self.withdraw(subnet, mac);
        if self.offers.len() >= limits::OFFERS_MAX {
            return Err(NoAddress::TableFull);
        }
        let until = now + limits::OFFER_LIFE;
        if let Some(lease) = self.by_address.get(&address) {
            self.ended.remove(&(lease.subnet, lease.until_unix_seconds, address));
        }
        // Who has a lease already is counted by it.
        let circuit = circuit.filter(|_| self.holder(address).is_none());
        self.count(circuit);
        self.offers.insert((subnet, mac), Offer { address, until, circuit });
        self.offered.insert(address, mac);
        self.offer_ends.insert((until, subnet, mac));
        Ok(address)
    }

    /// Takes an offer back.
    pub(crate) fn withdraw(&mut self, subnet: SubnetId, mac: Mac) {
        if let Some(offer) = self.offers.remove(&(subnet, mac)) {
            self.offer_ends.remove(&(offer.until, subnet, mac));
            self.discount(offer.circuit);
            if self.offered.get(&offer.address) == Some(&mac) {
                self.offered.remove(&offer.address);
            }
            if let Some(lease) = self.by_address.get(&offer.address).filter(|lease| lease.ended) {
                self.ended.insert((lease.subnet, lease.until_unix_seconds, offer.address));
            }
        }
    }

    /// Puts a lease in its place. Gives what it displaces: the client's lease of another address in the subnet, and
    /// another client's lease of the address.
    pub(crate) fn put(&mut self, lease: Lease) -> Vec<Lease> {
        let client = (lease.subnet, lease.mac);
        self.withdraw(lease.subnet, lease.mac);
        let other_address = self.by_client.get(&client).copied().filter(|address| *address != lease.address);
        let displaced = [other_address, Some(lease.address)];
        let displaced = displaced.into_iter().flatten().filter_map(|address| self.remove(address)).collect::<Vec<_>>();
        let displaced = displaced.into_iter().filter(|old| (old.mac, old.address) != (lease.mac, lease.address));
        let displaced = displaced.collect();
        if lease.ended {
            self.ended.insert((lease.subnet, lease.until_unix_seconds, lease.address));
        } else {
            self.ends.insert((lease.until_unix_seconds, lease.address));
            self.count(lease.circuit);
        }
        self.by_client.insert(client, lease.address);
        self.by_address.insert(lease.address, lease);
        self.note_change(lease.address);
        displaced
    }

    /// Removes a lease.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.by_address.remove(&address)?;
        self.by_client.remove(&(lease.subnet, lease.mac));
        self.uncount(&lease);
        self.note_change(address);
        Some(lease)
    }

    fn uncount(&mut self, lease: &Lease) {
        if lease.ended {
            self.ended.remove(&(lease.subnet, lease.until_unix_seconds, lease.address));
            return;
        }
        self.ends.remove(&(lease.until_unix_seconds, lease.address));
        self.discount(lease.circuit);
    }

    fn count(&mut self, circuit: Option<u64>) {
        if let Some(circuit) = circuit {
            *self.circuits.entry(circuit).or_default() += 1;
        }
    }

    fn discount(&mut self, circuit: Option<u64>) {
        if let Some(circuit) = circuit
            && let Some(count) = self.circuits.get_mut(&circuit)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.circuits.remove(&circuit);
            }
        }
    }

    /// Ends a lease; it stays remembered. Gives it as it is then.
    pub(crate) fn end(&mut self, address: Ipv4Addr) -> Option<Lease> {
        let lease = *self.by_address.get(&address).filter(|lease| !lease.ended)?;
        self.uncount(&lease);
        let ended = Lease { ended: true, ..lease };
        self.by_address.insert(address, ended);
        self.note_change(address);
        self.ended.insert((ended.subnet, ended.until_unix_seconds, address));
        Some(ended)
    }

    /// Does not give an address out until then.
    pub(crate) fn quarantine(&mut self, address: Ipv4Addr, until_unix_seconds: u64) -> bool {
        if self.quarantine.len() >= limits::QUARANTINE_MAX {
            return false;
        }
        self.quarantine.insert(address, until_unix_seconds);
        true
    }

    /// Lets offers and quarantine end, and gives the addresses whose leases have.
    pub(crate) fn expire(&mut self, now: Duration, unix_seconds: u64) -> Vec<Ipv4Addr> {
        while let Some(&(until, subnet, mac)) = self.offer_ends.first()
            && until <= now
        {
            self.withdraw(subnet, mac);
        }
        self.quarantine.retain(|_, until| *until > unix_seconds);
        self.ends.iter().take_while(|(until, _)| *until <= unix_seconds).map(|(_, address)| *address).collect()
    }

    /// When the next offer ends, on the monotonic clock.
    pub(crate) fn next_offer_end(&self) -> Option<Duration> {
        self.offer_ends.first().map(|(until, ..)| *until)
    }

    /// When the next lease ends, in seconds since 1970.
    pub(crate) fn next_lease_end(&self) -> Option<u64> {
        self.ends.first().map(|(until, _)| *until)
    }
}

/// The part of a range behind an address.
fn clip(range: Ipv4Range, after: Ipv4Addr) -> Option<Ipv4Range> {
    let first = range.first.max(Ipv4Addr::from(u32::from(after).checked_add(1)?));
    (first <= range.last).then_some(Ipv4Range { first, last: range.last })
}

fn addresses(range: Ipv4Range) -> impl Iterator<Item = Ipv4Addr> {
    (u32::from(range.first)..=u32::from(range.last)).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::VlanId;

    fn subnet(first: u8, last: u8) -> Subnet {
        Subnet {
            id: SubnetId(1),
            vlan: VlanId(1),
            cidr: "10.0.0.0/24".parse().expect("net"),
            gateway: None,
            dns_servers: vec![],
            ntp_servers: vec![],
            domain: None,
            mtu: None,
            dhcp: true,
            dynamic: vec![Ipv4Range { first: Ipv4Addr::new(10, 0, 0, first), last: Ipv4Addr::new(10, 0, 0, last) }],
            ipv6_prefix: None,
        }
    }

    fn asker(n: u8, circuit: Option<u64>) -> Asker {
        Asker { mac: Mac([2, 0, 0, 0, 0, n]), known: circuit.is_none(), circuit, wish: None }
    }

    fn lease(n: u8, address: Ipv4Addr, circuit: Option<u64>) -> Lease {
        Lease {
            mac: Mac([2, 0, 0, 0, 0, n]),
            address,
            subnet: SubnetId(1),
            until_unix_seconds: 100,
            ended: false,
            architecture: None,
            circuit,
        }
    }

    #[test]
    fn a_range_is_given_out_once_and_comes_back_by_age() {
        let subnet = subnet(10, 12);
        let mut leases = Leases::default();
        let now = Duration::ZERO;
        let mut given = BTreeSet::new();
        for n in 1..=3 {
            let address = leases.choose(now, &subnet, asker(n, None), |_| false).expect("free");
            assert!(given.insert(address));
            leases.put(lease(n, address, None));
        }
        assert_eq!(leases.choose(now, &subnet, asker(4, None), |_| false), Err(NoAddress::Exhausted));
        assert_eq!(leases.expire(now, 100).len(), 3);
        leases.end(Ipv4Addr::new(10, 0, 0, 11));
        let later = now + limits::EXHAUSTED_PAUSE;
        assert_eq!(leases.choose(later, &subnet, asker(4, None), |_| false), Ok(Ipv4Addr::new(10, 0, 0, 11)));
        assert_eq!(leases.choose(later, &subnet, asker(2, None), |_| false), Err(NoAddress::Exhausted), "offered");
        leases.expire(later + limits::OFFER_LIFE, 0);
        let client = leases.choose(later + limits::OFFER_LIFE, &subnet, asker(2, None), |_| false);
        assert_eq!(client, Ok(Ipv4Addr::new(10, 0, 0, 11)), "a client comes back to its address");
    }

    #[test]
    fn t7_a_circuit_has_a_quota_and_offers_are_bounded() {
        let mut subnet = subnet(1, 254);
        subnet.cidr = "10.0.0.0/8".parse().expect("net");
        let mut leases = Leases::default();
        for n in 0..64u8 {
            let address = leases.choose(Duration::ZERO, &subnet, asker(n, Some(9)), |_| false).expect("free");
            leases.put(lease(n, address, Some(9)));
        }
        let refused = leases.choose(Duration::ZERO, &subnet, asker(64, Some(9)), |_| false);
        assert_eq!(refused, Err(NoAddress::Quota));
        assert!(leases.choose(Duration::ZERO, &subnet, asker(65, Some(8)), |_| false).is_ok());
        leases.end(Ipv4Addr::new(10, 0, 0, 1));
        assert!(leases.choose(Duration::ZERO, &subnet, asker(64, Some(9)), |_| false).is_ok());
    }

    #[test]
    fn the_lease_that_ended_first_is_given_out_first() {
        let subnet = subnet(10, 13);
        let mut leases = Leases::default();
        for n in 0..4u8 {
            let ends = [300, 100, 200, 400][usize::from(n)];
            leases.put(Lease { until_unix_seconds: ends, ..lease(n, Ipv4Addr::new(10, 0, 0, 10 + n), None) });
            leases.end(Ipv4Addr::new(10, 0, 0, 10 + n));
        }
        let mut given = Vec::new();
        for n in 10..13 {
            let address = leases.choose(Duration::ZERO, &subnet, asker(n, None), |_| false).expect("an ended one");
            given.push(address.octets()[3]);
        }
        assert_eq!(given, [11, 12, 10], "by their ends, an offered one not twice");
        leases.withdraw(SubnetId(1), asker(10, None).mac);
        let again = leases.choose(Duration::ZERO, &subnet, asker(20, None), |_| false);
        assert_eq!(again, Ok(Ipv4Addr::new(10, 0, 0, 11)), "an offer taken back is there again");
    }

    #[test]
    fn t7_offers_to_unknown_machines_leave_room_for_known_ones() {
        let mut subnet = subnet(1, 1);
        subnet.cidr = "10.0.0.0/8".parse().expect("net");
        subnet.dynamic = vec![Ipv4Range { first: Ipv4Addr::new(10, 1, 0, 0), last: Ipv4Addr::new(10, 2, 255, 255) }];
        let mut leases = Leases::default();
        let stranger = |n: u32| Asker {
            mac: Mac([2, 1, (n >> 16) as u8, (n >> 8) as u8, n as u8, 1]),
            known: false,
            circuit: None,
            wish: None,
        };
        let mut refused = 0;
        for n in 0..limits::OFFERS_MAX as u32 {
            refused += u32::from(leases.choose(Duration::ZERO, &subnet, stranger(n), |_| false).is_err());
        }
        assert_eq!(refused as usize, limits::OFFERS_MAX - limits::OFFERS_UNKNOWN_MAX);
        assert!(leases.choose(Duration::ZERO, &subnet, asker(1, None), |_| false).is_ok());
        assert!(leases.choose(Duration::ZERO, &subnet, stranger(0), |_| false).is_ok(), "its offer is renewed");
    }

    /// Leases come, go and move while they are copied: read again, the copy is the table.
    #[test]
    fn a_copy_in_parts_is_the_table_whatever_happens_meanwhile() {
        let address = |n: u32| Ipv4Addr::from(0x0a01_0000 + n);
        let lease = |client: u32, n: u32, until: u64| {
            let [_, a, b, c] = client.to_be_bytes();
            let (mac, subnet) = (Mac([2, 0, 0, a, b, c]), SubnetId(1));
            let (until_unix_seconds, ended, architecture, circuit) = (until, false, None, None);
            Lease { mac, address: address(n), subnet, until_unix_seconds, ended, architecture, circuit }
        };
        for seed in 0..200u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u32| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as u32 % below
            };
            let mut leases = Leases::default();
            (0..40).for_each(|_| drop(leases.put(lease(random(60), random(80), 100))));
            let mut is_whole = false;
            while !is_whole {
                is_whole = leases.copy(1 + random(7) as usize);
                for _ in 0..random(6) {
                    match random(4) {
                        0 => drop(leases.remove(address(random(80)))),
                        1 => drop(leases.end(address(random(80)))),
                        _ => drop(leases.put(lease(random(60), random(80), 200 + u64::from(random(9))))),
                    }
                }
            }
            let Copied { leases: copied, changed } = leases.take_copy();
            let mut again = Leases::default();
            copied.into_iter().for_each(|lease| drop(again.put(lease)));
            for (address, now) in changed {
                match now {
                    Some(lease) => drop(again.put(lease)),
                    None => drop(again.remove(address)),
                }
            }
            assert_eq!(again.by_address, leases.by_address, "seed {seed}");
            assert_eq!((again.by_client, again.ends, again.ended), (leases.by_client, leases.ends, leases.ended));
        }
    }

    #[test]
    fn t7_offers_count_for_a_circuit_s_quota_as_leases_do() {
        let mut subnet = subnet(1, 1);
        subnet.dynamic = vec![Ipv4Range { first: Ipv4Addr::new(10, 0, 0, 1), last: Ipv4Addr::new(10, 0, 0, 254) }];
        let mut leases = Leases::default();
        let behind = |n: u8, circuit: u64| Asker {
            mac: Mac([2, 2, 0, 0, circuit as u8, n]),
            known: false,
            circuit: Some(circuit),
            wish: None,
        };
        let max = limits::UNKNOWN_LEASES_PER_CIRCUIT_MAX as u8;
        for n in 0..max {
            assert!(leases.choose(Duration::ZERO, &subnet, behind(n, 1), |_| false).is_ok());
        }
        let (again, more) = (behind(0, 1), behind(max, 1));
        assert_eq!(leases.choose(Duration::ZERO, &subnet, more, |_| false), Err(NoAddress::Quota));
        assert!(leases.choose(Duration::ZERO, &subnet, again, |_| false).is_ok(), "its offer is the same");
        assert!(leases.choose(Duration::ZERO, &subnet, behind(0, 2), |_| false).is_ok(), "another port");
        leases.expire(limits::OFFER_LIFE, 0);
        assert!(leases.circuits.is_empty());
        assert!(leases.choose(limits::OFFER_LIFE, &subnet, more, |_| false).is_ok(), "the offers have ended");
    }

    #[test]
    fn quarantined_and_taken_addresses_are_passed_over() {
        let subnet = subnet(10, 12);
        let mut leases = Leases::default();
        assert!(leases.quarantine(Ipv4Addr::new(10, 0, 0, 10), 50));
        let taken = |address| address == Ipv4Addr::new(10, 0, 0, 11);
        assert_eq!(leases.choose(Duration::ZERO, &subnet, asker(1, None), taken), Ok(Ipv4Addr::new(10, 0, 0, 12)));
        leases.expire(Duration::ZERO, 50);
        assert_eq!(leases.choose(Duration::ZERO, &subnet, asker(2, None), taken), Ok(Ipv4Addr::new(10, 0, 0, 10)));
    }
}
