//! The boot interface: the address that the boot loader was leased is taken over, without asking again.

use std::path::Path;
use std::time::{Duration, Instant};

use bootstorm_snapshot::{Ipv4Net, Mac};

use crate::command_line::CommandLine;
use crate::limits;
use crate::modules::Loader;
use crate::sys;

/// Why the machine has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No interface with the boot interface's address appeared in time.
    #[error("no interface has the address `{0}`: its driver may be missing in the boot environment")]
    NoInterface(Mac),
    /// The kernel refused.
    #[error("interface `{0}`: {1}")]
    Refused(String, std::io::Error),
}

/// Waits for the boot interface, looking for new devices meanwhile, and gives it its address and route. Returns its name.
pub fn start(command_line: &CommandLine, loader: &mut Loader) -> Result<String, NetworkError> {
    let deadline = Instant::now() + limits::INTERFACE_TIMEOUT;
    let name = loop {
        if let Some(name) = interface_of(Path::new("/sys/class/net"), command_line.mac) {
            break name;
        }
        if Instant::now() > deadline {
            return Err(NetworkError::NoInterface(command_line.mac));
        }
        std::thread::sleep(Duration::from_millis(100));
        loader.coldplug();
    };
    let mask = Ipv4Net::containing(command_line.address, command_line.prefix_bits)
        .map_or(std::net::Ipv4Addr::BROADCAST, |net| net.mask());
    let refused = |error| NetworkError::Refused(name.clone(), error);
    sys::set_interface(&name, Some((command_line.address, mask))).map_err(refused)?;
    if let Some(gateway) = command_line.gateway {
        sys::add_default_route(gateway).map_err(refused)?;
    }
    // The loopback interface is for the installed tools' sake only; without it the agent works as well.
    if let Err(error) = sys::set_interface("lo", None) {
        crate::log!("interface lo: {error}");
    }
    Ok(name)
}

fn interface_of(class: &Path, mac: Mac) -> Option<String> {
    let entries = std::fs::read_dir(class).ok()?;
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().find(|name| {
        let device = class.join(name);
        let address = std::fs::read_to_string(device.join("address")).unwrap_or_default();
        // A failover or VLAN interface carries the address of a real one, which has a device behind it.
        device.join("device").exists() && address.trim().parse() == Ok(mac)
    })
}
