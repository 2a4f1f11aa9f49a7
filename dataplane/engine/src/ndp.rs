//! Answers to IPv6 router solicitations: no router, one prefix, so that iPXE stops waiting for an advertisement (16 s).

use std::net::Ipv6Addr;
use std::time::Duration;

use bootstorm_proto::ndp::{
    ADVERTISEMENT_BYTES_MAX, ALL_NODES, Prefix, Received, RouterAdvertisement, RouterSolicitation,
};
use bootstorm_snapshot::record::Subnet;

use crate::engine::{Engine, Output};
use crate::time::Time;

/// Where an advertisement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvertiseTo {
    /// To every node of the link.
    AllNodes,
    /// To the one who asked.
    Node(Ipv6Addr),
}

impl AdvertiseTo {
    /// The address itself; link-local ones need the interface as their scope.
    pub fn address(self) -> Ipv6Addr {
        match self {
            AdvertiseTo::AllNodes => ALL_NODES,
            AdvertiseTo::Node(address) => address,
        }
    }
}

/// Advertisements of one interface in a second at most: more askers than that are answered by those to all nodes.
pub(crate) const ADVERTISEMENTS_PER_SECOND_MAX: u32 = 100;
const PREFIX_SECONDS: u32 = 3600;

impl Engine {
    /// Takes a router solicitation that came to the raw socket of an interface. The kernel has checked its checksum; so
    /// it writes that of our answer, and chooses the answer's source.
    pub fn handle_solicitation(&mut self, now: Time, interface: u32, received: &Received<'_>) {
        let solicitation = match RouterSolicitation::parse(received) {
            Ok(solicitation) => solicitation,
            Err(reason) => return self.counters.add("ndp_dropped", reason.name()),
        };
        let Some(config) = self.interface(interface) else { return self.counters.add("ndp_dropped", "interface") };
        let Some(subnet) = self.index.subnet_of(config.address) else {
            return self.counters.add("ndp_dropped", "no_subnet");
        };
        let prefix = Prefix {
            address: subnet.ipv6_prefix.unwrap_or_else(|| unique_local_prefix(subnet)),
            length_bits: 64,
            autonomous: true,
            on_link: true,
            valid_seconds: PREFIX_SECONDS,
            preferred_seconds: PREFIX_SECONDS,
        };
        let advertisement = RouterAdvertisement::without_router(Ipv6Addr::UNSPECIFIED, config.mac.0, prefix);
        let to = match solicitation.answer_to() {
            ALL_NODES => AdvertiseTo::AllNodes,
            node => AdvertiseTo::Node(node),
        };
        if !self.may_advertise(now.monotonic, interface) {
            return self.counters.add("ndp_dropped", "rate");
        }
        let mut bytes = vec![0; ADVERTISEMENT_BYTES_MAX];
        let Some(length) = advertisement.write(to.address(), &mut bytes) else { return };
        bytes.truncate(length);
        self.counters.add("ndp", "advertised");
        self.emit(Output::Advertise { interface, to, bytes });
    }

    fn may_advertise(&mut self, now: Duration, interface: u32) -> bool {
        let (second, count) = self.advertised.entry(interface).or_default();
        if *second != now.as_secs() {
            (*second, *count) = (now.as_secs(), 0);
        }
        *count += 1;
        *count <= ADVERTISEMENTS_PER_SECOND_MAX
    }
}

/// A prefix of RFC 4193 made of the subnet's record: stable, the same on every rack, without meaning elsewhere.
fn unique_local_prefix(subnet: &Subnet) -> Ipv6Addr {
    let digest = blake3::hash(format!("bootstorm subnet {} {}", subnet.id, subnet.cidr).as_bytes());
    let [a, b, c, d, e, f, g, ..] = *digest.as_bytes();
    Ipv6Addr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0])
}
