//! Address management: which addresses of a subnet may be given, and what is wrong with a subnet, a range or an address.
//!
//! Pure. [`Pool`] is a bitmap of one subnet, built from its ranges and addresses; [`Pool::allocate`] finds the next free address.
//! The `check_` functions say in words what does not work out. The database's unique constraint has the last word on who gets an
//! address; these functions decide which one is tried.

use crate::limits;
use crate::network::{IpRange, RangeKind, Subnet};
use bootstorm_snapshot::{Ipv4Net, Ipv4Range};
use std::net::Ipv4Addr;

/// What is wrong with addresses. `Display` is a sentence for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The subnet is too large to be managed.
    #[error("subnet `{cidr}` is too large: its prefix must have at least {min} bits")]
    SubnetTooLarge {
        /// The subnet.
        cidr: Ipv4Net,
        /// The shortest prefix.
        min: u8,
    },
    /// Two subnets of a fabric overlap.
    #[error("subnet `{cidr}` overlaps subnet `{other}` (`{name}`) of the same fabric")]
    SubnetOverlap {
        /// The new one.
        cidr: Ipv4Net,
        /// The old one.
        other: Ipv4Net,
        /// The old one's name.
        name: String,
    },
    /// The gateway is no host of the subnet.
    #[error("gateway `{gateway}` is not a host address of subnet `{cidr}`")]
    GatewayOutside {
        /// The gateway.
        gateway: Ipv4Addr,
        /// The subnet.
        cidr: Ipv4Net,
    },
    /// Too many servers.
    #[error("a subnet may have at most {max} {what}")]
    TooManyServers {
        /// Which servers.
        what: &'static str,
        /// How many it may have.
        max: usize,
    },
    /// The range ends before it begins.
    #[error("range `{first}`-`{last}` ends before it begins")]
    RangeBackwards {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last address.
        last: Ipv4Addr,
    },
    /// The range leaves the subnet.
    #[error("range `{first}`-`{last}` lies outside the host addresses of subnet `{cidr}`")]
    RangeOutside {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last address.
        last: Ipv4Addr,
        /// The subnet.
        cidr: Ipv4Net,
    },
    /// Two ranges overlap.
    #[error("range `{first}`-`{last}` overlaps {other} range `{other_first}`-`{other_last}`")]
    RangeOverlap {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last address.
        last: Ipv4Addr,
        /// The other one's kind.
        other: &'static str,
        /// The other one's first address.
        other_first: Ipv4Addr,
        /// The other one's last address.
        other_last: Ipv4Addr,
    },
    /// A dynamic range holds an address that is somebody's, or the gateway.
    #[error("dynamic range `{first}`-`{last}` holds `{ip}`, which is {taken}")]
    RangeTaken {
        /// Its first address.
        first: Ipv4Addr,
        /// Its last address.
        last: Ipv4Addr,
        /// The address.
        ip: Ipv4Addr,
        /// What it is.
        taken: &'static str,
    },
    /// Too many ranges.
    #[error("a subnet may have at most {max} ranges")]
    TooManyRanges {
        /// How many it may have.
        max: usize,
    },
    /// The address cannot be given.
    #[error("address `{ip}` of subnet `{cidr}` cannot be given: it is {reason}")]
    Unusable {
        /// The address.
        ip: Ipv4Addr,
        /// The subnet.
        cidr: Ipv4Net,
        /// Why.
        reason: &'static str,
    },
    /// No address is left.
    #[error("subnet `{cidr}` has no free address outside its ranges: give machines back, or make its ranges smaller")]
    Exhausted {
        /// The subnet.
        cidr: Ipv4Net,
    },
}

/// The addresses of one subnet: a bit each, set if it may not be given.
///
/// Network and broadcast address (of networks with more than two addresses), gateway, ranges and given addresses are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    cidr: Ipv4Net,
    words: Vec<u64>,
}

impl Pool {
    /// The bitmap of a subnet with these ranges and given addresses; those outside the subnet are ignored.
    ///
    /// # Errors
    /// [`IpamError::SubnetTooLarge`].
    pub fn new(
        subnet: &Subnet,
        ranges: impl IntoIterator<Item = Ipv4Range>,
        given: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Result<Self, IpamError> {
        let cidr = subnet.cidr;
        check_size(cidr)?;
        let words = usize::try_from(address_count(cidr).div_ceil(64)).unwrap_or(usize::MAX);
        let mut pool = Self { cidr, words: vec![0; words] };
        if let Some(edges) = edges(cidr) {
            edges.into_iter().for_each(|ip| pool.take(ip));
        }
        subnet.gateway.into_iter().chain(given).for_each(|ip| pool.take(ip));
        for range in ranges {
            pool.take_range(range);
        }
        Ok(pool)
    }

    /// Whether the address may be given; false outside the subnet.
    pub fn is_free(&self, ip: Ipv4Addr) -> bool {
        let Some((word, bit)) = self.place(ip) else { return false };
        self.words.get(word).is_some_and(|value| value & bit == 0)
    }

    /// Marks an address as given.
    pub fn take(&mut self, ip: Ipv4Addr) {
        if let Some((word, bit)) = self.place(ip)
            && let Some(value) = self.words.get_mut(word)
        {
            *value |= bit;
        }
    }

    /// Marks an address as free again.
    pub fn give_back(&mut self, ip: Ipv4Addr) {
        if let Some((word, bit)) = self.place(ip)
            && let Some(value) = self.words.get_mut(word)
        {
            *value &= !bit;
        }
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// [`IpamError::Exhausted`].
    pub fn allocate(&mut self) -> Result<Ipv4Addr, IpamError> {
        let count = address_count(self.cidr);
        let free = self.words.iter().zip(0u64..).find(|(word, _)| **word != u64::MAX);
        let offset = free.map(|(word, index)| index * 64 + u64::from(word.trailing_ones()));
        // The last word of a network smaller than 64 addresses has bits that stand for no address.
        let offset = offset.filter(|offset| *offset < count).ok_or(IpamError::Exhausted { cidr: self.cidr })?;
        let base = u64::from(u32::from(self.cidr.network()));
        let ip = Ipv4Addr::from(u32::try_from(base + offset).unwrap_or(u32::MAX));
        self.take(ip);
        Ok(ip)
    }

    /// How many addresses are free.
    pub fn free_count(&self) -> u64 {
        let taken: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        address_count(self.cidr) - taken
    }

    fn place(&self, ip: Ipv4Addr) -> Option<(usize, u64)> {
        let offset = u32::from(ip).checked_sub(u32::from(self.cidr.network())).filter(|_| self.cidr.contains(ip))?;
        Some((usize::try_from(offset / 64).ok()?, 1u64 << (offset % 64)))
    }

    fn take_range(&mut self, range: Ipv4Range) {
        let first = range.first.max(self.cidr.network());
        let last = range.last.min(self.cidr.broadcast());
        for ip in u32::from(first)..=u32::from(last) {
            self.take(Ipv4Addr::from(ip));
        }
    }
}

/// Checks a subnet against itself and the other subnets of its fabric (one of the same id is not another).
///
/// # Errors
/// The first thing that is wrong.
pub fn check_subnet<'a>(subnet: &Subnet, others: impl IntoIterator<Item = &'a Subnet>) -> Result<(), IpamError> {
    check_size(subnet.cidr)?;
    if let Some(gateway) = subnet.gateway.filter(|gateway| !is_host(subnet.cidr, *gateway)) {
        return Err(IpamError::GatewayOutside { gateway, cidr: subnet.cidr });
    }
    for (what, servers) in [("name servers", &subnet.dns_servers), ("time servers", &subnet.ntp_servers)] {
        if servers.len() > limits::SERVERS_MAX {
            return Err(IpamError::TooManyServers { what, max: limits::SERVERS_MAX });
        }
    }
    for other in others.into_iter().filter(|other| other.id != subnet.id) {
        if other.cidr.contains(subnet.cidr.network()) || subnet.cidr.contains(other.cidr.network()) {
            return Err(IpamError::SubnetOverlap {
                cidr: subnet.cidr,
                other: other.cidr,
                name: other.name.to_string(),
            });
        }
    }
    Ok(())
}

/// Checks a range against its subnet, the other ranges of it (one of the same id is not another) and its reserved addresses.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_range(
    subnet: &Subnet,
    range: &IpRange,
    others: &[IpRange],
    reserved: impl IntoIterator<Item = Ipv4Addr>,
) -> Result<(), IpamError> {
    let Ipv4Range { first, last } = range.range;
    if last < first {
        return Err(IpamError::RangeBackwards { first, last });
    }
    if !is_host(subnet.cidr, first) || !is_host(subnet.cidr, last) {
        return Err(IpamError::RangeOutside { first, last, cidr: subnet.cidr });
    }
    let others = || others.iter().filter(|other| other.id != range.id);
    if others().count() >= limits::RANGES_MAX {
        return Err(IpamError::TooManyRanges { max: limits::RANGES_MAX });
    }
    for other in others() {
        let Ipv4Range { first: other_first, last: other_last } = other.range;
        if first <= other_last && other_first <= last {
            return Err(IpamError::RangeOverlap { first, last, other: other.kind.word(), other_first, other_last });
        }
    }
    if range.kind == RangeKind::Dynamic {
        if let Some(ip) = subnet.gateway.filter(|gateway| range.range.contains(*gateway)) {
            return Err(IpamError::RangeTaken { first, last, ip, taken: "the gateway" });
        }
        if let Some(ip) = reserved.into_iter().find(|ip| range.range.contains(*ip)) {
            return Err(IpamError::RangeTaken { first, last, ip, taken: "given to a machine" });
        }
    }
    Ok(())
}

/// Checks an address that somebody chose: a host of the subnet, not the gateway, outside its dynamic ranges. Reserved ranges are
/// for such addresses.
///
/// # Errors
/// [`IpamError::Unusable`] with the reason.
pub fn check_address(subnet: &Subnet, ranges: &[IpRange], ip: Ipv4Addr) -> Result<(), IpamError> {
    let dynamic = || ranges.iter().any(|range| range.kind == RangeKind::Dynamic && range.range.contains(ip));
    let reason = if !subnet.cidr.contains(ip) {
        "outside the subnet"
    } else if !is_host(subnet.cidr, ip) {
        "the network's or the broadcast address"
    } else if subnet.gateway == Some(ip) {
        "the gateway"
    } else if dynamic() {
        "in a dynamic range, which racks lease from"
    } else {
        return Ok(());
    };
    Err(IpamError::Unusable { ip, cidr: subnet.cidr, reason })
}

fn check_size(cidr: Ipv4Net) -> Result<(), IpamError> {
    if cidr.prefix_bits() < limits::SUBNET_PREFIX_BITS_MIN {
        return Err(IpamError::SubnetTooLarge { cidr, min: limits::SUBNET_PREFIX_BITS_MIN });
    }
    Ok(())
}

/// Whether a host may have the address: both addresses of a /31 are hosts (RFC 3021 §2.1), as is the one of a /32.
fn is_host(cidr: Ipv4Net, ip: Ipv4Addr) -> bool {
    cidr.contains(ip) && edges(cidr).is_none_or(|edges| !edges.contains(&ip))
}

fn edges(cidr: Ipv4Net) -> Option<[Ipv4Addr; 2]> {
    (cidr.prefix_bits() < 31).then(|| [cidr.network(), cidr.broadcast()])
}

fn address_count(cidr: Ipv4Net) -> u64 {
    1u64 << (32 - u32::from(cidr.prefix_bits()))
}

#[cfg(test)]
mod tests;
