//! `make demo`: bare machines become running servers while you watch, then a thousand simulated ones boot at once.
//!
//! Runs `bootstorm up` in a network of its own with QEMU machines in front of it, drives it by the command line alone and
//! leaves nothing behind. Without a terminal it ends by itself; on one it stays until Ctrl-C.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use bootstorm_tests::lab::guest::{Firmware, Hardware};
use bootstorm_tests::lab::neighbours::Raised;
use bootstorm_tests::lab::site::{EnlistThen, IMAGE, PowerBy, Site, USER, address_of};
use bootstorm_tests::lab::timeline::timeline;
use bootstorm_tests::lab::{Error, process, wait};

/// Simulated machines of the storm.
const STORM_NODES: u32 = 1000;
/// How many of them are powered on every second.
const STORM_RATE: &str = "50/s";

fn main() -> ExitCode {
    if let Err(error) = watch_for_signals() {
        eprintln!("demo: signals cannot be watched: {error}");
        return ExitCode::FAILURE;
    }
    let started = Instant::now();
    match demo(started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => {
            eprintln!("demo: interrupted, everything is stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C and a request to end make every wait end, after which everything is dropped in order.
fn watch_for_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                wait::interrupt();
            }
        });
    })?;
    Ok(())
}

fn demo(started: Instant) -> Result<(), Error> {
    let step = |text: &str| println!("\n[{:6.1} s] {text}", started.elapsed().as_secs_f64());
    let neighbours = Raised::new();
    if let Some(refused) = &neighbours.refused {
        println!("neighbour table: {refused}");
    }

    let mut site = Site::new("demo")?;
    step(&format!("starting `bootstorm up` in a network of its own (machines run under {:?})", site.accelerator));
    let result = run(&mut site, &step);
    if let Err(error) = result {
        if !matches!(error, Error::Interrupted) {
            eprintln!("{}", site.evidence());
        }
        return Err(error);
    }
    step("done");
    if std::io::stdout().is_terminal() {
        println!("Everything stays up until you press Ctrl-C.");
        while !wait::is_interrupted() {
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
    if !site.finish() {
        eprintln!("demo: the server did not end by itself and was killed");
    }
    drop(neighbours);
    Ok(())
}

fn run(site: &mut Site, step: &impl Fn(&str)) -> Result<(), Error> {
    site.up(EnlistThen::Wait)?;
    step("importing the boot environment and the Debian 12 image");
    site.furnish()?;

    let machines = [Hardware::new("bios1", Firmware::Bios, 1), Hardware::new("uefi1", Firmware::Uefi, 2)];
    for hardware in &machines {
        site.add_machine(hardware.clone())?;
    }
    step("switching on two bare machines that the server has never heard of");
    for hardware in &machines {
        let machine = site.enlist(hardware, PowerBy::Webhook)?;
        println!("  {} ({}) is enlisted as {}", hardware.name, hardware.mac(), machine.id);
    }
    step("commissioning");
    for hardware in &machines {
        site.api().run(&["machine", "commission", &hardware.name])?;
    }
    for hardware in &machines {
        let machine = site.wait_for_state(&hardware.name, "Ready")?;
        if let Some(found) = &machine.inventory {
            println!(
                "  {} is ready: {} disk(s), {} interface(s)",
                machine.name,
                found.disks.len(),
                found.interfaces.len()
            );
        }
    }
    step(&format!("allocating, and deploying {IMAGE}"));
    for hardware in &machines {
        site.allocate(&hardware.name)?;
        site.start_deploy(&hardware.name, &[])?;
    }
    for hardware in &machines {
        let machine = site.wait_for_state(&hardware.name, "Deployed")?;
        let address = address_of(&machine)?;
        let answer =
            site.login(address, "echo \"$(whoami)@$(hostname), $(uname -r), up $(cut -d. -f1 /proc/uptime) s\"")?;
        println!("  ssh: {}", answer.trim());
        println!("{} deployed", hardware.name);
        print!("{}", timeline(&site.explain(&hardware.name)?));
    }

    step(&format!("a storm: {STORM_NODES} simulated machines boot at once from the same server"));
    storm(site)?;
    print_memory(site);
    print_how_to(site)
}

/// Runs loadgen in a network namespace of its own on the boot network, its progress shown as it comes.
fn storm(site: &mut Site) -> Result<(), Error> {
    let nodes = STORM_NODES.to_string();
    let clients = site.network.add_clients("clients")?;
    let mut loadgen = clients.command(&site.assets.loadgen);
    loadgen.args(["storm", "--nodes", &nodes, "--rate", STORM_RATE, "--interface", clients.interface()]);
    loadgen.stdin(Stdio::null()).stdout(Stdio::piped());
    let failed = |source| Error::Start { command: "loadgen".to_owned(), source };
    let mut child = loadgen.spawn().map_err(failed)?;
    let mut whole = false;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            whole |= line.contains(&format!("storm: {nodes}/{nodes}"));
            println!("{line}");
            if wait::is_interrupted() {
                let _ended = child.kill();
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    if wait::is_interrupted() {
        return Err(Error::Interrupted);
    }
    if !status.success() || !whole {
        let message = "not every simulated machine came through".to_owned();
        return Err(Error::Command { command: "loadgen storm".to_owned(), status, message });
    }
    Ok(())
}

/// The most memory that each role's process held.
fn print_memory(site: &mut Site) {
    let Some(supervisor) = site.api().id() else { return };
    println!("\npeak memory of the server's processes:");
    let show = |role: &str, id: u32| {
        if let Some(kib) = process::peak_memory_kib(id) {
            println!("    {role:<12} {:6.1} MiB", f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0);
        }
    };
    show("supervisor", supervisor);
    for (id, words) in process::family(supervisor) {
        if let Some(role) = words.iter().skip_while(|word| *word != "role").nth(1) {
            show(role, id);
        }
    }
}

fn print_how_to(site: &mut Site) -> Result<(), Error> {
    let url = site.api_url();
    let data = site.api().data().display().to_string();
    let binary = site.assets.bootstorm.display().to_string();
    let machine = site.machine("bios1")?;
    let login = site.key.command_line(USER, address_of(&machine)?).join(" ");
    let inside = site.network.shown_prefix();
    println!(
        "\nThe API's document:\n    curl --cacert {data}/ca.pem {url}/openapi.json\n\
         \nThe same by hand, in a shell with\n    export BOOTSTORM_URL={url} BOOTSTORM_CA={data}/ca.pem \
         BOOTSTORM_TOKEN=$(cat {data}/admin.token)\n\
         \n    {binary} machine list\n    {binary} machine explain bios1\n    {binary} machine release bios1\n    \
         {binary} machine allocate bios1\n    {binary} machine deploy bios1 --image {IMAGE} --wait\n\
         \nThe machines are on the rack's network; to log in:\n    {inside} {login}"
    );
    Ok(())
}
