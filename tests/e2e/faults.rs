//! Processes that are killed, and control that is away, while a machine is being deployed.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bootstorm_snapshot::Stage;
use bootstorm_tests::lab::guest::{Firmware, Hardware};
use bootstorm_tests::lab::network::RACK_ADDRESS;
use bootstorm_tests::lab::power::Action;
use bootstorm_tests::lab::site::{EnlistThen, PowerBy, Site, address_of};
use bootstorm_tests::lab::{Error, process, wait};

fn show_evidence(site: &Site, result: Result<(), Error>) {
    if let Err(error) = result {
        panic!("{error}\n{}", site.evidence());
    }
}

/// From the start to the moment when the image is being written.
fn until_the_image_is_written_to(site: &mut Site, hardware: &Hardware) -> Result<(), Error> {
    site.up(EnlistThen::Wait)?;
    site.furnish()?;
    site.add_machine(hardware.clone())?;
    site.enlist(hardware, PowerBy::Webhook)?;
    site.commission(&hardware.name)?;
    site.allocate(&hardware.name)?;
    site.start_deploy(&hardware.name, &[])?;
    site.wait_for_stage(&hardware.name, &["write"]).map(drop)
}

/// The trace of the last operation names the agent once: the machine was booted into imaging once.
fn imaged_once(site: &mut Site, name: &str) -> Result<(), Error> {
    let explanation = site.explain(name)?;
    let agents = explanation.trace.iter().filter(|span| span.stage == Stage::Agent).count();
    assert_eq!(agents, 1, "{:?}", explanation.trace);
    let operation = explanation.operation.expect("the deployment");
    assert_eq!(operation.status, "done", "{operation:?}");
    Ok(())
}

#[test]
#[ignore = "needs guests: make test"]
fn control_is_killed_while_a_machine_is_imaged_and_finishes_afterwards() {
    let mut site = Site::new("kill-control").unwrap();
    let hardware = Hardware::new("k1", Firmware::Bios, 1);
    let result = until_the_image_is_written_to(&mut site, &hardware).and_then(|()| {
        let before = site.api().kill_role("control")?;
        let machine = site.wait_for_state("k1", "Deployed")?;
        assert_ne!(site.api().role("control"), Some(before), "the supervisor started control again");
        imaged_once(&mut site, "k1")?;
        site.login(address_of(&machine)?, "true").map(drop)
    });
    show_evidence(&site, result);
    assert!(site.finish());
}

#[test]
#[ignore = "needs guests: make test"]
fn the_rack_is_killed_while_a_machine_is_imaged_and_remembers_everything() {
    let mut site = Site::new("kill-rack").unwrap();
    let hardware = Hardware::new("k2", Firmware::Uefi, 2);
    let result = until_the_image_is_written_to(&mut site, &hardware).and_then(|()| {
        let address = address_of(&site.machine("k2")?)?;
        site.api().kill_role("rack")?;
        let machine = site.wait_for_state("k2", "Deployed")?;
        imaged_once(&mut site, "k2")?;
        assert_eq!(address_of(&machine)?, address, "the lease outlived the rack's process");
        site.login(address, "true").map(drop)
    });
    show_evidence(&site, result);
    assert!(site.finish());
}

/// Control and rack as two commands. Control is killed when the operation is published; the machine is switched on by
/// hand after that, so that everything it gets comes from the rack alone.
fn control_is_away(name: &str, start: &str) {
    let mut site = Site::new(name).unwrap();
    let hardware = Hardware::new("away", Firmware::Bios, 1);
    let result = deploy_without_control(&mut site, &hardware, start);
    show_evidence(&site, result);
    site.finish();
}

/// Broadcast and multicast aside, the machine exchanged packets with the rack and with nobody else.
fn spoke_to_the_rack_only(packets: &Path, address: IpAddr) -> Result<(), Error> {
    let mut others = process::command("tcpdump");
    others.arg("-r").arg(packets).args(["-n", &format!("ip and host {address} and not host {RACK_ADDRESS}")]);
    others.arg("and not ip broadcast and not ip multicast");
    let others = process::run(&mut others)?;
    assert!(others.trim().is_empty(), "packets beside the rack's:\n{others}");
    Ok(())
}

fn deploy_without_control(site: &mut Site, hardware: &Hardware, start: &str) -> Result<(), Error> {
    let name = hardware.name.as_str();
    site.up_apart(EnlistThen::Commission)?;
    site.furnish()?;
    site.add_machine(hardware.clone())?;
    site.enlist(hardware, PowerBy::Hand)?;
    site.wait_for_state(name, "Ready")?;
    site.power.ask(name, Action::Off)?;
    site.allocate(name)?;
    site.start_deploy(name, &["--start", start])?;
    site.wait_for_stage(name, &["published", "power"])?;
    let address =
        wait::until("the machine's address", Duration::from_secs(30), || Ok(address_of(&site.machine(name)?).ok()))?;

    let packets = site.directory().join("packets.pcap");
    let capture = site.network.capture(&packets)?;
    site.api().kill();
    site.power.ask(name, Action::On)?;
    let deadline = site.accelerator.stretch(Duration::from_secs(90));
    site.key.run_until(&site.network, ("storm", address), "cloud-init status --wait >/dev/null; true", deadline)?;
    if let Some(capture) = capture {
        drop(capture);
        spoke_to_the_rack_only(&packets, address)?;
    }

    site.api().start_again()?;
    let deadline = site.accelerator.stretch(Duration::from_secs(20));
    site.api().wait_until_ready(deadline)?;
    site.wait_for_state(name, "Deployed")?;
    imaged_once(site, name)
}

#[test]
#[ignore = "needs guests: make test"]
fn a_machine_is_deployed_by_kexec_while_control_is_away() {
    control_is_away("away-kexec", "kexec");
}

#[test]
#[ignore = "needs guests: make test"]
fn a_machine_is_deployed_by_reboot_while_control_is_away() {
    control_is_away("away-reboot", "reboot");
}
