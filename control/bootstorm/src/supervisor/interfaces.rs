//! The interfaces of this network namespace, by the names that an operator gives.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use bootstorm_api::role::RackInterface;
use nix::ifaddrs::getifaddrs;

/// Why an interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface.
    #[error("interface `{name}` does not exist; the host has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// It has no IPv4 address.
    #[error(
        "interface `{name}` has no IPv4 address; give it one (`ip address add 10.0.0.1/24 dev {name}`) and start again"
    )]
    NoAddress {
        /// Its name.
        name: String,
    },
    /// It is not Ethernet.
    #[error("interface `{name}` has no Ethernet address")]
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// The kernel's table of interfaces cannot be read.
    #[error("cannot read the interfaces of the host: {0}")]
    Read(#[from] std::io::Error),
}

/// MTU of Ethernet, where the kernel does not say.
const ETHERNET_MTU: u16 = 1500;

/// Looks an interface up; its first IPv4 address is the one served.
pub fn find(name: &str) -> Result<RackInterface, InterfaceError> {
    // The kernel's own list for this process: /sys may show another namespace.
    let all: Vec<_> = getifaddrs().map_err(std::io::Error::from)?.collect();
    let mine = || all.iter().filter(|entry| entry.interface_name == name);
    if mine().next().is_none() {
        let mut known: Vec<&str> = all.iter().map(|entry| entry.interface_name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(InterfaceError::Unknown { name: name.into(), known: known.join(" ") });
    }
    let link = mine().find_map(|entry| {
        let link = entry.address.as_ref()?.as_link_addr()?;
        Some((u32::try_from(link.ifindex()).ok()?, link.addr()?))
    });
    let (index, octets) = link.ok_or_else(|| InterfaceError::NotEthernet { name: name.into() })?;
    let (address, prefix_bits) = mine()
        .find_map(|entry| {
            let address = entry.address.as_ref()?.as_sockaddr_in()?.ip();
            let mask = entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
            Some((address, prefix_of(mask)))
        })
        .ok_or_else(|| InterfaceError::NoAddress { name: name.into() })?;
    Ok(RackInterface { name: name.into(), index, mac: octets.into(), address, prefix_bits, mtu: mtu_of(name, index) })
}

fn prefix_of(mask: Option<Ipv4Addr>) -> u8 {
    u8::try_from(mask.map_or(32, |mask| u32::from(mask).leading_ones())).unwrap_or(32)
}

fn mtu_of(name: &str, index: u32) -> u16 {
    // Only the kernel's own names come here, so this cannot leave the directory.
    let directory = Path::new("/sys/class/net").join(name);
    let number = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u32>().ok();
    match (number("ifindex"), number("mtu")) {
        (Some(shown), Some(mtu)) if shown == index => u16::try_from(mtu).unwrap_or(u16::MAX),
        _ => ETHERNET_MTU,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_path_is_not_an_interface() {
        for name in ["", "..", "../../etc", "no-such-interface"] {
            assert!(matches!(find(name), Err(InterfaceError::Unknown { .. })), "{name}");
        }
    }
}
