//! The host's interfaces, by the names that an operator gives.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use bootstorm_api::role::RackInterface;

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

/// Looks an interface up; its first IPv4 address is the one served.
pub fn find(name: &str) -> Result<RackInterface, InterfaceError> {
    let addresses = if_addrs::get_if_addrs()?;
    let directory = Path::new("/sys/class/net").join(name);
    // A name from outside reaches a path only if the kernel lists an interface of that very name.
    let known = list()?;
    if !known.iter().any(|k| k == name) {
        return Err(InterfaceError::Unknown { name: name.into(), known: known.join(" ") });
    }
    let read = |file: &str| fs::read_to_string(directory.join(file)).map(|text| text.trim().to_string());
    let mac = read("address")?;
    let mac = mac.parse().map_err(|_| InterfaceError::NotEthernet { name: name.into() })?;
    let number = |text: String| text.parse::<u32>().unwrap_or_default();
    let (address, prefix_bits) = addresses
        .iter()
        .filter(|interface| interface.name == name)
        .find_map(|interface| match (&interface.addr, interface.ip()) {
            (if_addrs::IfAddr::V4(v4), IpAddr::V4(ip)) => Some((ip, v4.prefixlen)),
            _ => None,
        })
        .ok_or_else(|| InterfaceError::NoAddress { name: name.into() })?;
    let mtu = u16::try_from(number(read("mtu")?)).unwrap_or(u16::MAX);
    Ok(RackInterface { name: name.into(), index: number(read("ifindex")?), mac, address, prefix_bits, mtu })
}

fn list() -> Result<Vec<String>, std::io::Error> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")?
        .filter_map(|entry| entry.ok().and_then(|e| e.file_name().into_string().ok()))
        .collect();
    names.sort();
    Ok(names)
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
