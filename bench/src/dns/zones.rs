//! One zone of hosts with its reverse, and the questions that are put to it. All of it follows from the number of names.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bootstorm_snapshot::dns::{DnsName, Name, RecordSet, Zone, kind};
use bootstorm_snapshot::record::{Record, Subnet};
use bootstorm_snapshot::{Generation, SubnetId, View, VlanId};
use bootstorm_tests::lab::Error;

use crate::limits;
use crate::veth::NETWORK;

/// Writes `forward.zone` (`bench.test`) and `reverse.zone` (`10.in-addr.arpa`) with so many names, one address each.
///
/// # Errors
/// When they cannot be written.
pub fn write(directory: &Path, names: u32) -> Result<(), Error> {
    let head =
        "$TTL 3600\n@ IN SOA ns.bench.test. hostmaster.bench.test. 1 3600 600 86400 300\n@ IN NS ns.bench.test.\n";
    let mut forward = format!("{head}ns IN A 10.255.255.254\n");
    let mut reverse = head.to_owned();
    for number in 0..names {
        let [high, middle, low] = octets(number);
        // Writing to a string does not fail.
        let _ = writeln!(forward, "n{number} IN A 10.{high}.{middle}.{low}");
        let _ = writeln!(reverse, "{low}.{middle}.{high} IN PTR n{number}.bench.test.");
    }
    for (name, text) in [("forward.zone", forward), ("reverse.zone", reverse)] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    }
    Ok(())
}

/// Writes the same zones as a snapshot in `directory`, and the network that the questions come from.
///
/// # Errors
/// When it cannot be written.
pub fn write_snapshot(directory: &Path, names: u32) -> Result<(), Error> {
    let place = |error: &dyn std::fmt::Display| Error::Environment(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(|error| place(&error))?;
    let view = view(names).map_err(|error| place(&error))?;
    bootstorm_rackd::write_base(directory, view).map_err(|error| place(&error))
}

fn view(names: u32) -> Result<View, bootstorm_snapshot::ids::ParseIdError> {
    let mut view = View { generation: Generation(1), ..View::default() };
    view.put(Record::Subnet(Subnet {
        id: SubnetId(1),
        vlan: VlanId(1),
        cidr: NETWORK.parse()?,
        gateway: None,
        dns_servers: Vec::new(),
        ntp_servers: Vec::new(),
        domain: None,
        mtu: None,
        dhcp: false,
        dynamic: Vec::new(),
        ipv6_prefix: None,
    }));
    let primary: DnsName = "ns.bench.test".parse()?;
    for apex in ["bench.test", "10.in-addr.arpa"] {
        let name: DnsName = apex.parse()?;
        view.put(Record::Zone(Zone {
            name: name.clone(),
            primary: primary.clone(),
            contact: "hostmaster.bench.test".parse()?,
            serial: 1,
            refresh_seconds: 3600,
            retry_seconds: 600,
            expire_seconds: 86_400,
            negative_seconds: 300,
            ttl_seconds: TTL,
        }));
        view.put(Record::Name(Name { name, sets: vec![RecordSet::of_names(kind::NS, TTL, [&primary])] }));
    }
    let addresses = RecordSet::a(TTL, [[10, 255, 255, 254].into()]);
    view.put(Record::Name(Name { name: primary, sets: vec![addresses] }));
    for number in 0..names {
        let [high, middle, low] = octets(number);
        let (name, address): (DnsName, _) = (format!("n{number}.bench.test").parse()?, [10, high, middle, low].into());
        let reverse =
            Name { name: DnsName::reverse(address), sets: vec![RecordSet::of_names(kind::PTR, TTL, [&name])] };
        view.put(Record::Name(Name { name, sets: vec![RecordSet::a(TTL, [address])] }));
        view.put(Record::Name(reverse));
    }
    Ok(view)
}

const TTL: u32 = 3600;

/// The last three octets of a name's address.
fn octets(number: u32) -> [u8; 3] {
    let [_, high, middle, low] = number.to_be_bytes();
    [high, middle, low]
}

/// Questions as dnsperf reads them: half A, half PTR, and one in [`limits::DNS_MISS_EVERY`] for a name that is not there.
pub fn mix(names: u32, questions: u32) -> String {
    let mut random = Random(1);
    let mut text = String::new();
    for question in 0..questions {
        let number = random.below(names);
        let [high, middle, low] = octets(number);
        let _ = match question {
            _ if question % limits::DNS_MISS_EVERY == 0 => writeln!(text, "missing{number}.bench.test A"),
            _ if question % 2 == 0 => writeln!(text, "n{number}.bench.test A"),
            _ => writeln!(text, "{low}.{middle}.{high}.10.in-addr.arpa PTR"),
        };
    }
    text
}

/// Questions for names that are not there, each another.
pub fn flood(questions: u32) -> String {
    let mut random = Random(2);
    let mut text = String::new();
    for _question in 0..questions {
        let _ = writeln!(text, "x{:08x}{:08x}.bench.test A", random.next(), random.next());
    }
    text
}

/// A sequence that is the same in every run (Knuth's multiplier, TAOCP 3.3.4).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, bound: u32) -> u32 {
        let scaled = u64::from(self.next()) * u64::from(bound);
        (scaled >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_the_same_every_time_and_one_in_twenty_misses() {
        let text = mix(20_000, 10_000);
        assert_eq!(text, mix(20_000, 10_000));
        assert_eq!(text.lines().count(), 10_000);
        assert_eq!(text.lines().filter(|line| line.starts_with("missing")).count(), 500);
        let reverse = text.lines().filter(|line| line.ends_with("PTR")).count();
        assert!((4_900..=5_100).contains(&reverse), "{reverse}");
        assert!(flood(100).lines().all(|line| line.starts_with('x')));
    }

    #[test]
    fn each_name_has_an_address_and_back() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 300).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("forward.zone").contains("\nn299 IN A 10.0.1.43\n"));
        assert!(read("reverse.zone").contains("\n43.1.0 IN PTR n299.bench.test.\n"));
    }
}
