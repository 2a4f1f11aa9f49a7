use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn host(text: &str, last: u8) -> Name {
    Name { name: name(text), sets: vec![RecordSet::a(60, [[10, 0, 0, last].into()])] }
}

fn zone(text: &str) -> Zone {
    Zone {
        name: name(text),
        primary: name(&format!("ns.{text}")),
        contact: name("hostmaster.other"),
        serial: 7,
        refresh_seconds: 1,
        retry_seconds: 2,
        expire_seconds: 3,
        negative_seconds: 4,
        ttl_seconds: 5,
    }
}

/// What is found of a name: its closest name, labels missing, apex and delegation.
fn found(names: &Names, text: &str) -> Option<(String, usize, Option<u8>, Option<u8>)> {
    let name = name(text);
    let labels = Labels::of(name.wire()).unwrap();
    let found = names.find(Query { wire: name.wire(), labels: labels.starts() })?;
    let node = found.node;
    Some((DnsName::from_wire(node.wire())?.to_string(), found.missing, node.zone_labels(), node.cut_labels()))
}

#[test]
fn names_above_a_name_are_there_as_long_as_it_is() {
    let mut names = Names::default();
    assert!(names.is_empty() && found(&names, "a.b").is_none());
    names.put_zone(&zone("z.test"));
    names.put(&host("a.b.c.z.test", 1));
    let at = |names: &Names, text: &str| found(names, text).map(|(closest, missing, ..)| (closest, missing)).unwrap();
    assert_eq!(at(&names, "b.c.z.test"), ("b.c.z.test".into(), 0));
    assert_eq!(at(&names, "x.y.c.z.test"), ("c.z.test".into(), 2));
    assert_eq!(at(&names, "1.2.3.4.5.6.7.8.9.b.c.z.test"), ("b.c.z.test".into(), 9));
    assert_eq!(at(&names, "other.example"), (".".into(), 2));
    names.remove(&name("a.b.c.z.test"));
    assert_eq!(at(&names, "a.b.c.z.test"), ("z.test".into(), 3));
    names.remove_zone(&name("z.test"));
    assert!(names.is_empty());
}

#[test]
fn names_know_their_zone_and_their_delegation() {
    let mut names = Names::default();
    names.put(&host("a.sub.z.test", 1));
    assert_eq!(found(&names, "a.sub.z.test").unwrap().2, None, "no zone yet");
    names.put_zone(&zone("z.test"));
    assert_eq!(found(&names, "a.sub.z.test").unwrap(), ("a.sub.z.test".into(), 0, Some(2), None));
    let delegation =
        |text: &str| Name { name: name(text), sets: vec![RecordSet::of_names(kind::NS, 1, [&name("ns.x")])] };
    names.put(&delegation("sub.z.test"));
    names.put(&delegation("a.sub.z.test"));
    assert_eq!(
        found(&names, "x.a.sub.z.test").unwrap(),
        ("a.sub.z.test".into(), 1, Some(2), Some(3)),
        "the highest one"
    );
    names.put(&delegation("z.test"));
    assert_eq!(found(&names, "b.z.test").unwrap().3, None, "an apex is no delegation");
    names.put_zone(&zone("sub.z.test"));
    assert_eq!(found(&names, "q.sub.z.test").unwrap(), ("sub.z.test".into(), 1, Some(3), None), "a zone of its own");
    names.remove_zone(&name("sub.z.test"));
    names.remove(&name("sub.z.test"));
    assert_eq!(found(&names, "a.sub.z.test").unwrap(), ("a.sub.z.test".into(), 0, Some(2), Some(4)));
}

#[test]
fn records_tell_what_of_their_names_is_the_owners() {
    let mut names = Names::default();
    names.put_zone(&zone("z.test"));
    let mut put = |owner: &str, target: &str| {
        let owner = name(owner);
        names.put(&Name { name: owner.clone(), sets: vec![RecordSet::of_names(kind::CNAME, 1, [&name(target)])] });
        names.get(owner.wire()).unwrap().set(kind::CNAME).unwrap().records().next().unwrap().shared
    };
    assert_eq!(put("a.b.z.test", "x.b.z.test"), [10, 0]);
    assert_eq!(put("a.b.z.test", "b.z.test"), [10, 0]);
    assert_eq!(put("a.b.z.test", "a.b.z.test"), [12, 0]);
    assert_eq!(put("a.b.z.test", "xb.z.test"), [8, 0], "a whole label or none of it");
    assert_eq!(put("a.b.z.test", "other"), [0, 0], "not for the root alone");
    assert_eq!(put("*.b.z.test", "*.b.z.test"), [10, 0]);
    let soa = names.get(name("z.test").wire()).unwrap().set(kind::SOA).unwrap().records().next().unwrap();
    assert_eq!((soa.shared, soa.ttl_seconds(), soa.data()), ([8, 0], 5, &zone("z.test").soa()[..]));
}

#[test]
fn wildcards_are_known_to_the_name_above_them() {
    let mut names = Names::default();
    names.put(&host("*.b.test", 1));
    let (wire, labels) = (name("x.b.test"), Labels::of(name("x.b.test").wire()).unwrap());
    let query = Query { wire: wire.wire(), labels: labels.starts() };
    assert!(names.get(name("b.test").wire()).unwrap().has_wildcard());
    assert_eq!(names.find_wildcard(query, 1).unwrap().wire(), name("*.b.test").wire());
    assert!(names.find_wildcard(query, 2).is_none());
    names.put(&host("c.b.test", 1));
    names.remove(&name("*.b.test"));
    assert!(!names.get(name("b.test").wire()).unwrap().has_wildcard());
}

#[test]
fn a_copy_stays_as_it_was_and_shares_nearly_everything() {
    let mut names = Names::default();
    (0..20_000_u32).for_each(|n| names.put(&host(&format!("n{n}.test"), n as u8)));
    let before = names.clone();
    names.put(&host("n7.test", 99));
    let pages = names.directory.iter().zip(before.directory.iter());
    let buckets = pages.flat_map(|(new, old)| new.iter().zip(old.iter()));
    assert_eq!(buckets.filter(|(new, old)| !Arc::ptr_eq(new, old)).count(), 1, "one name, one bucket");
    assert_ne!(names, before);
    names.put(&host("n7.test", 7));
    assert_eq!(names, before);
    assert!(names.directory.iter().flat_map(|page| page.iter()).all(|bucket| bucket.len() < 4_096));
}

#[test]
fn names_with_their_reverse_take_few_octets() {
    let mut names = Names::default();
    for n in 100_000..110_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        names.put(&Name {
            name: name(&format!("n{n}.bench.test")),
            sets: vec![RecordSet::a(60, [[10, a, b, c].into()])],
        });
        let target = name(&format!("n{n}.bench.test"));
        let reverse = DnsName::reverse([10, a, b, c].into());
        names.put(&Name { name: reverse, sets: vec![RecordSet::of_names(kind::PTR, 60, [&target])] });
    }
    let octets: usize = names.directory.iter().flat_map(|page| page.iter()).map(|bucket| bucket.len() + 40).sum();
    assert!(octets / 20_000 < 96, "{} octets a name", octets / 20_000);
}

/// A slow and obvious table: names with records, and what follows from them by looking at all.
#[derive(Default)]
struct Model {
    names: BTreeMap<DnsName, Vec<RecordSet>>,
    zones: BTreeMap<DnsName, Zone>,
}

impl Model {
    fn all(&self) -> impl Iterator<Item = &DnsName> {
        self.names.keys().chain(self.zones.keys())
    }

    fn above(name: &DnsName) -> Vec<DnsName> {
        let text = name.to_string();
        let mut rest = text.as_str();
        let mut above = vec![name.clone()];
        while let Some((_, after)) = rest.split_once('.').filter(|_| rest != ".") {
            above.push(after.parse().unwrap());
            rest = after;
        }
        above.push(DnsName::root());
        above
    }

    fn found(&self, text: &str) -> Option<(String, usize, Option<u8>, Option<u8>)> {
        let above = Model::above(&name(text));
        let there = |candidate: &DnsName| self.all().any(|name| name.is_in(candidate));
        let missing = above.iter().position(there)?;
        let labels = |name: &DnsName| Labels::of(name.wire()).unwrap().count;
        let apex = above[missing..].iter().find(|name| self.zones.contains_key(name));
        let is_cut = |name: &&DnsName| {
            let has_ns = self.names.get(name).is_some_and(|sets| sets.iter().any(|set| set.kind == kind::NS));
            has_ns && apex.is_some_and(|apex| name.is_in(apex) && *name != apex)
        };
        let cut = above[missing..].iter().rfind(is_cut);
        Some((above[missing].to_string(), missing, apex.map(labels), cut.map(labels)))
    }
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "\\*", "x{3}"], 1..5).prop_map(|labels| labels.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_looking_at_everything_finds(
        changes in proptest::collection::vec((text(), 0..6_u8), 1..60),
        asked in proptest::collection::vec(text(), 10),
    ) {
        let (mut names, mut model) = (Names::default(), Model::default());
        for (text, what) in &changes {
            let owner = name(text);
            match what {
                0 => {
                    names.remove(&owner);
                    model.names.remove(&owner);
                }
                1 => {
                    names.put_zone(&zone(text));
                    model.zones.insert(owner, zone(text));
                }
                2 => {
                    names.remove_zone(&owner);
                    model.zones.remove(&owner);
                }
                3 => {
                    let sets = vec![RecordSet::of_names(kind::NS, 1, [&name("ns.test")])];
                    names.put(&Name { name: owner.clone(), sets: sets.clone() });
                    model.names.insert(owner, sets);
                }
                _ => {
                    names.put(&host(text, *what));
                    model.names.insert(owner, host(text, *what).sets);
                }
            }
        }
        for text in changes.iter().map(|(text, _)| text).chain(&asked) {
            prop_assert_eq!(found(&names, text), model.found(text), "{}", text);
        }
        let mut listed: Vec<Name> = names.iter().collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let expected: Vec<Name> =
            model.names.iter().map(|(name, sets)| Name { name: name.clone(), sets: sets.clone() }).collect();
        prop_assert_eq!(listed, expected);
    }
}
