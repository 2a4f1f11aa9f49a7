use super::*;
use bootstorm_snapshot::{RangeId, SubnetId, VlanId};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn subnet(id: i64, cidr: &str, gateway: Option<&str>) -> Subnet {
    Subnet {
        id: SubnetId(id),
        vlan: VlanId(1),
        name: format!("subnet-{id}").parse().expect("a name"),
        cidr: cidr.parse().expect("a network"),
        gateway: gateway.map(ip),
        dns_servers: vec![],
        ntp_servers: vec![],
        domain: None,
        ipv6_prefix: None,
    }
}

fn range(id: i64, kind: RangeKind, first: &str, last: &str) -> IpRange {
    IpRange {
        id: RangeId(id),
        subnet: SubnetId(1),
        kind,
        range: Ipv4Range { first: ip(first), last: ip(last) },
        comment: String::new(),
    }
}

#[test]
fn addresses_come_in_order_around_edges_gateway_and_ranges() {
    let subnet = subnet(1, "10.0.0.0/29", Some("10.0.0.1"));
    let ranges = [Ipv4Range { first: ip("10.0.0.3"), last: ip("10.0.0.4") }];
    let mut pool = Pool::new(&subnet, ranges, [ip("10.0.0.5"), ip("192.0.2.1")]).expect("a pool");
    assert_eq!(pool.free_count(), 2);
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.2")));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.6")));
    assert_eq!(pool.allocate(), Err(IpamError::Exhausted { cidr: subnet.cidr }));
    pool.give_back(ip("10.0.0.2"));
    assert_eq!(pool.allocate(), Ok(ip("10.0.0.2")));
}

#[test]
fn point_to_point_networks_have_no_edges() {
    let mut pool = Pool::new(&subnet(1, "10.0.0.0/31", None), [], []).expect("a pool");
    assert_eq!([pool.allocate(), pool.allocate()], [Ok(ip("10.0.0.0")), Ok(ip("10.0.0.1"))]);
    assert!(pool.allocate().is_err());
    let mut last = Pool::new(&subnet(1, "255.255.255.255/32", None), [], []).expect("a pool");
    assert_eq!(last.allocate(), Ok(ip("255.255.255.255")));
}

#[test]
fn what_is_wrong_with_a_subnet_is_said() {
    let first = subnet(1, "10.0.0.0/24", Some("10.0.0.1"));
    assert_eq!(check_subnet(&first, [&first]), Ok(()));
    for (cidr, gateway, says) in [
        ("10.0.0.128/25", None, "subnet `10.0.0.128/25` overlaps subnet `10.0.0.0/24` (`subnet-1`) of the same fabric"),
        ("10.0.0.0/16", None, "overlaps"),
        ("10.1.0.0/24", Some("10.0.0.1"), "gateway `10.0.0.1` is not a host address of subnet `10.1.0.0/24`"),
        ("10.1.0.0/24", Some("10.1.0.0"), "gateway"),
        ("10.1.0.0/24", Some("10.1.0.255"), "gateway"),
        ("0.0.0.0/0", None, "too large"),
    ] {
        let error = check_subnet(&subnet(2, cidr, gateway), [&first]).expect_err(cidr);
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut many = subnet(3, "10.3.0.0/24", None);
    many.dns_servers = vec![ip("192.0.2.53"); limits::SERVERS_MAX + 1];
    assert!(matches!(check_subnet(&many, []), Err(IpamError::TooManyServers { .. })));
}

#[test]
fn what_is_wrong_with_a_range_is_said() {
    let subnet = subnet(1, "10.0.0.0/24", Some("10.0.0.1"));
    let others = [range(1, RangeKind::Reserved, "10.0.0.50", "10.0.0.59")];
    let given = [ip("10.0.0.80")];
    let check = |range: &IpRange| check_range(&subnet, range, &others, given);
    assert_eq!(check(&range(2, RangeKind::Dynamic, "10.0.0.60", "10.0.0.79")), Ok(()));
    assert_eq!(check(&range(1, RangeKind::Reserved, "10.0.0.50", "10.0.0.70")), Ok(()), "itself is not another");
    assert_eq!(
        check(&range(2, RangeKind::Reserved, "10.0.0.1", "10.0.0.49")),
        Ok(()),
        "reserved may hold what is given"
    );
    for (kind, first, last, says) in [
        (RangeKind::Dynamic, "10.0.0.20", "10.0.0.10", "ends before it begins"),
        (RangeKind::Dynamic, "10.0.0.20", "10.0.1.10", "outside"),
        (RangeKind::Dynamic, "10.0.0.0", "10.0.0.10", "outside"),
        (RangeKind::Dynamic, "10.0.0.200", "10.0.0.255", "outside"),
        (RangeKind::Dynamic, "10.0.0.59", "10.0.0.70", "overlaps reserved range `10.0.0.50`-`10.0.0.59`"),
        (RangeKind::Dynamic, "10.0.0.1", "10.0.0.10", "the gateway"),
        (RangeKind::Dynamic, "10.0.0.70", "10.0.0.90", "holds `10.0.0.80`"),
    ] {
        let error = check(&range(2, kind, first, last)).expect_err(first);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let subnet = subnet(1, "10.0.0.0/24", Some("10.0.0.1"));
    let ranges = [
        range(1, RangeKind::Dynamic, "10.0.0.100", "10.0.0.199"),
        range(2, RangeKind::Reserved, "10.0.0.2", "10.0.0.9"),
    ];
    assert_eq!(check_address(&subnet, &ranges, ip("10.0.0.5")), Ok(()), "that is what reserved ranges are for");
    for (address, says) in [
        ("10.0.1.1", "outside the subnet"),
        ("10.0.0.0", "the network's"),
        ("10.0.0.255", "broadcast"),
        ("10.0.0.1", "the gateway"),
        ("10.0.0.150", "dynamic range"),
    ] {
        let error = check_address(&subnet, &ranges, ip(address)).expect_err(address);
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// The slow, obvious version: a set of all addresses that may be given.
struct Model(BTreeSet<Ipv4Addr>);

impl Model {
    fn new(subnet: &Subnet, ranges: &[Ipv4Range], given: &[Ipv4Addr]) -> Self {
        let all = u32::from(subnet.cidr.network())..=u32::from(subnet.cidr.broadcast());
        let may = |ip: &Ipv4Addr| {
            let edge = subnet.cidr.prefix_bits() < 31 && [subnet.cidr.network(), subnet.cidr.broadcast()].contains(ip);
            !edge
                && subnet.gateway != Some(*ip)
                && !given.contains(ip)
                && !ranges.iter().any(|range| range.contains(*ip))
        };
        Self(all.map(Ipv4Addr::from).filter(may).collect())
    }
}

proptest! {
    #[test]
    fn the_bitmap_agrees_with_a_set(
        base in any::<u32>(),
        prefix in 22u8..=32,
        gateway in proptest::option::of(0u32..1200),
        ranges in proptest::collection::vec((0u32..1200, 0u32..200), 0..4),
        given in proptest::collection::vec(0u32..1200, 0..40),
        actions in proptest::collection::vec(proptest::option::of(0u32..1200), 0..60),
    ) {
        let cidr = Ipv4Net::containing(Ipv4Addr::from(base), prefix).expect("a network");
        let at = |offset: u32| Ipv4Addr::from(u32::from(cidr.network()).saturating_add(offset));
        let mut subnet = subnet(1, "10.0.0.0/24", None);
        subnet.cidr = cidr;
        subnet.gateway = gateway.map(at);
        let ranges: Vec<_> = ranges.iter().map(|(first, length)| Ipv4Range { first: at(*first), last: at(first + length) }).collect();
        let given: Vec<_> = given.into_iter().map(at).collect();
        let mut model = Model::new(&subnet, &ranges, &given);
        let mut pool = Pool::new(&subnet, ranges, given).expect("a pool");
        prop_assert_eq!(pool.free_count(), model.0.len() as u64);
        for action in actions {
            match action.map(at) {
                None => prop_assert_eq!(pool.allocate().ok(), model.0.pop_first()),
                Some(ip) => {
                    prop_assert_eq!(pool.is_free(ip), model.0.contains(&ip));
                    pool.take(ip);
                    model.0.remove(&ip);
                }
            }
        }
        prop_assert_eq!(pool.free_count(), model.0.len() as u64);
    }

    #[test]
    fn ranges_that_pass_the_check_never_share_an_address(
        ranges in proptest::collection::vec((1u32..255, 0u32..40), 1..12),
    ) {
        let subnet = subnet(1, "10.0.0.0/24", None);
        let mut accepted: Vec<IpRange> = Vec::new();
        for (id, (first, length)) in (1i64..).zip(ranges) {
            let at = |offset: u32| Ipv4Addr::from(u32::from(subnet.cidr.network()) + offset);
            let candidate = IpRange {
                id: RangeId(id),
                subnet: subnet.id,
                kind: RangeKind::Reserved,
                range: Ipv4Range { first: at(first), last: at(first + length) },
                comment: String::new(),
            };
            let inside = first + length < 255;
            let shares = accepted.iter().any(|other| (u32::from(candidate.range.first)..=u32::from(candidate.range.last))
                .any(|ip| other.range.contains(Ipv4Addr::from(ip))));
            let verdict = check_range(&subnet, &candidate, &accepted, []);
            prop_assert_eq!(verdict.is_ok(), inside && !shares, "{:?}", verdict);
            if verdict.is_ok() {
                accepted.push(candidate);
            }
        }
    }
}
