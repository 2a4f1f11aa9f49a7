//! The laboratory itself: bare machines, switched on through the power controller, reach the network.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bootstorm_tests::lab::accelerator::Accelerator;
use bootstorm_tests::lab::assets::Assets;
use bootstorm_tests::lab::guest::{Firmware, Guest, Hardware};
use bootstorm_tests::lab::network::Network;
use bootstorm_tests::lab::power::{Action, PowerServer};
use bootstorm_tests::lab::{Error, wait};

/// Switches a bare machine on and waits for its DHCPDISCOVER on the bridge.
fn reaches_the_network(firmware: Firmware) -> Result<(), Error> {
    let assets = Assets::places()?;
    let accelerator = assets.accelerator()?;
    let directory = assets.run_directory(&format!("machine-{}", firmware.word()))?;
    let network = Arc::new(Network::new(directory.path())?);
    let power = PowerServer::start(network.host_address, Some("switch".to_owned()))?;
    let server = network.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)))?;
    server.set_nonblocking(true).unwrap();

    let hardware = Hardware::new("bare", firmware, 1);
    power.add(Guest::new(hardware.clone(), Arc::clone(&network), accelerator, directory.path())?);
    assert!(power.ask("bare", Action::Status)?.contains("stopped"));
    assert!(power.ask("bare", Action::On)?.contains("running"));

    // RFC 2131 §2: the client's address is at octet 28, the cookie at 236.
    let hardware_address = [0x52, 0x54, 0, 0x77, 0, hardware.number];
    wait::until("a DHCPDISCOVER", accelerator.stretch(Duration::from_secs(20)), || {
        let mut message = [0; 1500];
        let received = server.recv(&mut message).unwrap_or(0);
        let of_the_machine = message[28..].starts_with(&hardware_address);
        Ok((received > 240 && of_the_machine && message[236..240] == [0x63, 0x82, 0x53, 0x63]).then_some(()))
    })?;

    assert!(power.ask("bare", Action::Off)?.contains("stopped"));
    assert!(power.ask("bare", Action::Status)?.contains(r#""power_state":"off""#));
    drop(power);
    directory.remove();
    Ok(())
}

#[test]
#[ignore = "needs guests: make test"]
fn a_bare_bios_machine_asks_for_an_address() {
    reaches_the_network(Firmware::Bios).unwrap();
}

#[test]
#[ignore = "needs guests: make test"]
fn a_bare_uefi_machine_asks_for_an_address() {
    reaches_the_network(Firmware::Uefi).unwrap();
}

/// The rack's namespace is a place of its own: the host reaches its link address and nothing else of it.
#[test]
#[ignore = "needs guests: make test"]
fn the_host_reaches_the_namespace_over_the_link() {
    let assets = Assets::places().unwrap();
    let directory = assets.run_directory("network").unwrap();
    let network = Network::new(directory.path()).unwrap();
    let inner = network.inner_address;
    let listener = network.inside(move || std::net::TcpListener::bind((inner, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect_timeout(&(inner, port).into(), Duration::from_secs(5)).unwrap();
    let tap = network.add_tap().unwrap();
    assert!(!std::path::Path::new("/sys/class/net").join(tap).exists());
    drop(network);
    directory.remove();
}

/// The verdict comes from a kernel's own words, so it must be there whichever way it falls.
#[test]
#[ignore = "needs guests: make test"]
fn an_accelerator_is_chosen_by_booting_a_kernel() {
    let assets = Assets::places().unwrap();
    let verdict = assets.accelerator().unwrap();
    assert!(matches!(verdict, Accelerator::Kvm | Accelerator::Tcg));
    assert_eq!(assets.accelerator().unwrap(), verdict);
}
