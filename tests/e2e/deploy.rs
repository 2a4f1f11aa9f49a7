//! The main job: a bare machine becomes a running server, is released and becomes one again. Driven by the command line,
//! as a user does it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bootstorm_api::native::{Image, Machine};
use bootstorm_tests::lab::guest::{Firmware, Hardware};
use bootstorm_tests::lab::site::{EnlistThen, PowerBy, Site, address_of};
use bootstorm_tests::lab::timeline::timeline;
use bootstorm_tests::lab::{Error, process, wait};

/// Runs `steps` on a furnished site where enlisted machines wait; when a step fails, the ends of all logs are shown.
fn on_a_site(name: &str, steps: impl FnOnce(&mut Site) -> Result<(), Error>) {
    on_a_site_with(EnlistThen::Wait, name, steps);
}

fn on_a_site_with(then: EnlistThen, name: &str, steps: impl FnOnce(&mut Site) -> Result<(), Error>) {
    let mut site = Site::new(name).unwrap();
    let result = site.up(then).and_then(|()| site.furnish()).and_then(|()| steps(&mut site));
    if let Err(error) = result {
        panic!("{error}\n{}", site.evidence());
    }
    assert!(site.finish(), "the server did not end when it was asked to");
}

/// Logs in and looks that it is the deployed system: its user, its grown root, its first boot and not another.
fn log_in(site: &mut Site, machine: &Machine) -> Result<(), Error> {
    let address = address_of(machine)?;
    let answer = site
        .login(address, "whoami; hostname; df --output=size -m / | tail -n 1; cat /proc/sys/kernel/random/boot_id")?;
    let lines: Vec<_> = answer.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["storm", machine.name.as_str()], "{answer}");
    let root_mib: u64 = lines[2].parse().unwrap();
    assert!(root_mib > 3000, "the root file system was grown to the disk: {root_mib} MiB");
    Ok(())
}

fn from_bare_to_running(site: &mut Site, hardware: &Hardware) -> Result<Machine, Error> {
    let name = &hardware.name;
    site.add_machine(hardware.clone())?;
    let enlisted = site.enlist(hardware, PowerBy::Webhook)?;
    assert_eq!(enlisted.state, "New");
    let ready = site.commission(name)?;
    let inventory = ready.inventory.as_ref().expect("commissioning reports the inventory");
    assert!(inventory.disks.iter().any(|disk| disk.bytes == hardware.disk_bytes), "{inventory:?}");
    site.allocate(name)?;
    assert_eq!(site.machine(name)?.state, "Allocated");
    let deployed = site.deploy(name, &[])?;
    print!("{}", timeline(&site.explain(name)?));
    log_in(site, &deployed)?;
    Ok(deployed)
}

#[test]
#[ignore = "needs guests: make test"]
fn an_unknown_machine_is_ready_after_one_boot() {
    on_a_site_with(EnlistThen::Commission, "one-boot", |site| {
        let hardware = Hardware::new("one1", Firmware::Bios, 5);
        site.add_machine(hardware.clone())?;
        let started = Instant::now();
        site.enlist(&hardware, PowerBy::Hand)?;
        site.wait_for_state("one1", "Ready")?;
        println!("ready {:.1} s after power-on", started.elapsed().as_secs_f64());
        let console = site.directory().join("one1/console.log");
        let shown = std::fs::read(&console).map_err(|source| Error::File { path: console, source })?;
        let boots = String::from_utf8_lossy(&shown).matches("up after").count();
        assert_eq!(boots, 1, "the agent starts once");
        Ok(())
    });
}

#[test]
#[ignore = "needs guests: make test"]
fn a_bios_machine_is_deployed_released_and_deployed_again() {
    on_a_site("bios", |site| {
        let hardware = Hardware::new("bios1", Firmware::Bios, 1);
        let first = from_bare_to_running(site, &hardware)?;
        // A guest's machine-id follows from its firmware's UUID; the instance is the operation that installed it.
        let boot = site.login(address_of(&first)?, "cat /var/lib/cloud/data/instance-id")?;

        site.release("bios1")?;
        site.allocate("bios1")?;
        let second = site.deploy("bios1", &[])?;
        log_in(site, &second)?;
        let again = site.login(address_of(&second)?, "cat /var/lib/cloud/data/instance-id")?;
        assert_ne!(again, boot, "a new system, not the old one");
        Ok(())
    });
}

#[test]
#[ignore = "needs guests: make test"]
fn a_uefi_machine_is_deployed_and_boots_its_disk_after_a_reboot() {
    on_a_site("uefi", |site| {
        let deployed = from_bare_to_running(site, &Hardware::new("uefi1", Firmware::Uefi, 2))?;
        let address = address_of(&deployed)?;
        let system = "cat /proc/sys/kernel/random/boot_id; cat /var/lib/cloud/data/instance-id";
        let before = site.login(address, system)?;
        // The connection ends with the system; what counts is that it comes back as the same one.
        let _connection_lost = site.key.run(&site.network, "storm", address, "sudo systemctl reboot");
        let deadline = site.accelerator.stretch(Duration::from_secs(60));
        let after = wait::until("the machine to come back from its disk", deadline, || {
            let answer = site.key.run(&site.network, "storm", address, system);
            Ok(answer.ok().filter(|answer| *answer != before))
        })?;
        assert_eq!(after.lines().last(), before.lines().last(), "the same system");
        assert_eq!(site.machine("uefi1")?.state, "Deployed");
        Ok(())
    });
}

/// A larger image than most, raw: every byte of it arrives, and nowhere on the way is it held as one file.
#[test]
#[ignore = "needs guests and an image of 2 GiB: tests/lab/e2e.sh deploy"]
fn an_image_of_two_gib_is_written_and_verified() {
    on_a_site("two-gib", |site| {
        let image = site.directory().join("big.raw");
        let mut enlarge = process::command(Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/enlarge-image.sh"));
        print!("{}", process::run(enlarge.arg(&site.assets.image).arg(&image).arg("2048"))?);
        let (imported, data) = (Arc::new(AtomicBool::new(false)), site.api().data().to_owned());
        let watch = std::thread::spawn({
            let imported = Arc::clone(&imported);
            move || largest_file_until(&data, &imported)
        });
        let started = Instant::now();
        site.api().run(&["image", "import", &image.display().to_string(), "--name", "big"])?;
        println!("imported in {:.1} s", started.elapsed().as_secs_f64());
        imported.store(true, Ordering::Release);
        let imported: Image = site.ask(&["image", "show", "big"])?;
        assert_eq!(imported.raw_bytes, 2 << 30);
        assert!(watch.join().expect("the watch")? < imported.raw_bytes / 2, "a file as large as the image");

        let hardware = Hardware::new("big1", Firmware::Bios, 4);
        site.add_machine(hardware.clone())?;
        site.enlist(&hardware, PowerBy::Webhook)?;
        site.commission("big1")?;
        site.allocate("big1")?;
        site.start_deploy_of("big", "big1", &[])?;
        let machine = site.wait_for_state("big1", "Deployed")?;
        print!("{}", timeline(&site.explain("big1")?));
        let sum = site.login(address_of(&machine)?, "sudo sha256sum --check /ballast.sha256")?;
        assert_eq!(sum.trim(), "/ballast: OK");
        Ok(())
    });
}

/// Octets of the largest file that was seen below `directory` until `done`.
fn largest_file_until(directory: &Path, done: &AtomicBool) -> Result<u64, Error> {
    let mut largest = 0;
    wait::until("the import", Duration::from_secs(600), || {
        largest = largest_file(directory).max(largest);
        Ok(done.load(Ordering::Acquire).then_some(()))
    })?;
    Ok(largest)
}

/// Octets of the largest file below `directory`. Files come and go meanwhile.
fn largest_file(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let data = entry.metadata().ok()?;
        Some(if data.is_dir() { largest_file(&entry.path()) } else { data.len() })
    });
    sizes.max().unwrap_or(0)
}

#[test]
#[ignore = "needs guests: make test"]
fn mistakes_are_refused_and_change_nothing() {
    on_a_site("mistakes", |site| {
        let hardware = Hardware::new("m1", Firmware::Bios, 3);
        site.describe(&hardware, PowerBy::Hand)?;
        let before = site.machine("m1")?;

        let missing = site.api().run(&["machine", "deploy", "m1", "--image", "no-such-image"]).unwrap_err().to_string();
        assert!(missing.contains("no-such-image") || missing.contains("New"), "{missing}");
        let twice = format!("kind: machine\nname: other\nmacs: [\"{}\"]\n", hardware.mac());
        let same = site
            .apply("twice.yaml", &format!("{twice}---\nkind: machine\nname: third\nmacs: [\"{}\"]\n", hardware.mac()));
        assert!(same.is_err(), "one address for two machines is refused");
        let unknown = site.api().run(&["machine", "show", "nobody"]).unwrap_err().to_string();
        assert!(unknown.contains("nobody"), "{unknown}");
        assert_eq!(site.machine("m1")?, before);
        Ok(())
    });
}
