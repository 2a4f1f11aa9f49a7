//! Boot firmware and loaders, as they are, against `bootstorm serve`: EDK2 by TFTP and by HTTP, GRUB by both, iPXE by both. dnsmasq
//! gives addresses and names of files, nothing else. What they bring home says its SHA-256 on the guest's console.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootstorm_tests::lab::accelerator::Accelerator;
use bootstorm_tests::lab::assets::{Assets, RunDirectory};
use bootstorm_tests::lab::network::{BRIDGE, Network};
use bootstorm_tests::lab::process::{self, Process};
use bootstorm_tests::lab::{Error, wait};

mod support;

use support::noise;

/// From power-on to the last sum, where a kernel is not translated.
const BOOT: Duration = Duration::from_secs(40);
/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A rack with one server of ours, and dnsmasq for addresses.
struct Rack {
    servers: Vec<Process>,
    network: Network,
    accelerator: Accelerator,
    assets: Assets,
    files: PathBuf,
    place: PathBuf,
    directory: RunDirectory,
}

/// How a guest comes to its loader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// SeaBIOS and the network card's iPXE.
    Ipxe,
    /// OVMF's own PXE.
    Tftp,
    /// OVMF's own HTTP Boot.
    Http,
}

impl Rack {
    fn new(name: &str) -> Result<Rack, Error> {
        let assets = Assets::places()?;
        let accelerator = assets.accelerator()?;
        let directory = assets.run_directory(&format!("loaders-{name}"))?;
        let place = directory.path().to_owned();
        let files = place.join("files");
        fs::create_dir_all(&files).expect("made");
        let network = Network::new(&place)?;
        Ok(Rack { servers: Vec::new(), network, accelerator, assets, files, place, directory })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.files.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, bytes).expect("written");
        sha256(&path)
    }

    /// Starts both servers, when the files are there.
    fn start(&mut self) -> Result<(), Error> {
        // iPXE waits long for a router advertisement where there is none.
        process::run(self.network.command("ip").args(["address", "add", "fd00:77::1/64", "dev", BRIDGE]))?;
        let mut dnsmasq = self.network.command("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=",
            "--pid-file=",
            "--port=0",
        ]);
        dnsmasq.args(["--bind-interfaces", "--no-ping", "--log-facility=-"]);
        dnsmasq.arg(format!("--interface={BRIDGE}"));
        dnsmasq.args(["--dhcp-range=10.77.0.10,10.77.0.99,255.255.240.0,1h", "--dhcp-range=fd00:77::,ra-only"]);
        dnsmasq.arg(format!("--ra-param={BRIDGE},60,0"));
        dnsmasq.arg(format!("--dhcp-leasefile={}", self.place.join("leases").display()));
        dnsmasq.args(["--dhcp-userclass=set:ipxe,iPXE", "--dhcp-vendorclass=set:http,HTTPClient"]);
        dnsmasq.args(["--dhcp-boot=tag:ipxe,boot.ipxe,,10.77.0.1", "--dhcp-option-force=tag:ipxe,encap:175,176,1b"]);
        dnsmasq.args(["--dhcp-boot=tag:http,http://10.77.0.1/boot.efi", "--dhcp-option-force=tag:http,60,HTTPClient"]);
        dnsmasq.arg("--dhcp-boot=tag:!ipxe,tag:!http,boot.efi,,10.77.0.1");
        let mut dnsmasq = Process::start(dnsmasq, &self.place.join("dnsmasq.log"))?;
        dnsmasq.wait_for("DHCP, IP range", PATIENCE)?;
        self.servers.push(dnsmasq);
        assert!(self.assets.bootstorm.exists(), "{} is missing", self.assets.bootstorm.display());
        let mut serve = self.network.command(&self.assets.bootstorm);
        serve.arg("serve").arg(&self.files).arg("--data").arg(self.place.join("data"));
        serve.args(["--workers", "1", "--cache", "64M", "--http", "10.77.0.1:80", "--tftp", "10.77.0.1:69"]);
        let mut server = Process::start(serve, &self.place.join("bootstorm.log"))?;
        wait::until("bootstorm", PATIENCE, || {
            if let Some(status) = server.ended() {
                let log = server.log().to_owned();
                return Err(Error::Ended { tail: process::tail(&log), log, status });
            }
            let mut curl = self.network.command("curl");
            Ok(process::run(curl.args(["-sS", "-o", "/dev/null", "http://10.77.0.1/"])).ok().map(drop))
        })?;
        self.servers.push(server);
        Ok(())
    }

    /// Boots a guest until its console has shown all of these.
    fn boot(&self, name: &str, way: Way, expected: &[&str]) -> Result<(), Error> {
        let console = self.place.join(format!("{name}.console"));
        let tap = self.network.add_tap()?;
        let mut qemu = self.network.command("qemu-system-x86_64");
        qemu.args(["-name", name, "-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot", "-m", "512"]);
        qemu.args(self.accelerator.arguments());
        qemu.args(["-serial", &format!("file:{}", console.display())]);
        let mut card = format!("virtio-net-pci,netdev=n0,bootindex=1,mac=52:54:00:77:00:0{}", way as u8);
        if way != Way::Ipxe {
            // Without the card's own loader the firmware's is used.
            card += ",romfile=";
            let variables = self.place.join(format!("{name}.fd"));
            let template = Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd");
            fs::copy(template, &variables).map_err(|source| Error::File { path: template.to_owned(), source })?;
            qemu.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            qemu.args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
        }
        let (pxe4, http4) = match way {
            Way::Ipxe | Way::Tftp => ("y", "n"),
            Way::Http => ("n", "y"),
        };
        for (support, value) in
            [("IPv4PXESupport", pxe4), ("IPv4HTTPSupport", http4), ("IPv6PXESupport", "n"), ("IPv6HTTPSupport", "n")]
        {
            qemu.args(["-fw_cfg", &format!("name=opt/org.tianocore/{support},string={value}")]);
        }
        qemu.args(["-netdev", &format!("tap,id=n0,ifname={tap},script=no,downscript=no"), "-device", &card]);
        qemu.args(["-device", "virtio-rng-pci"]);
        let mut guest = Process::start(qemu, &self.place.join(format!("{name}.log")))?;
        wait::until(&format!("{expected:?} on {}", console.display()), self.accelerator.stretch(BOOT), || {
            let has_ended = guest.ended().is_some();
            let shown = fs::read(&console).unwrap_or_default();
            let shown = String::from_utf8_lossy(&shown);
            if expected.iter().all(|text| shown.contains(text)) {
                return Ok(Some(()));
            }
            if has_ended {
                return Err(Error::Environment(format!(
                    "{name} ended without {expected:?}:\n{}",
                    process::tail(&console)
                )));
            }
            Ok(None)
        })
    }

    fn end(self) {
        drop(self.servers);
        self.directory.remove();
    }
}

fn sha256(path: &Path) -> String {
    let line = process::run(process::command("sha256sum").arg("--binary").arg(path)).expect("a sum");
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// GRUB with all that it needs inside of it, some noise too; it says the sums of that, which the firmware has brought, and of
/// what it fetches itself.
fn grub(rack: &Rack, by_tftp: &str, by_http: &str) -> String {
    let inside = rack.place.join("inside");
    fs::write(&inside, noise(1_000_003, 11)).expect("written");
    let memdisk = rack.place.join("memdisk.tar");
    let mut tar = process::command("tar");
    tar.arg("--create").arg(format!("--file={}", memdisk.display())).arg("--directory").arg(&rack.place).arg("inside");
    process::run(&mut tar).expect("tar");
    let configuration = rack.place.join("early.cfg");
    let lines = format!(
        "serial --unit=0\nterminal_output serial\nsha256sum (memdisk)/inside\nsha256sum (tftp,10.77.0.1)/{by_tftp}\n\
         sha256sum (http,10.77.0.1)/{by_http}\nhalt\n"
    );
    fs::write(&configuration, lines).expect("written");
    let mut grub = process::command("grub-mkimage");
    grub.args(["--format=x86_64-efi", "--prefix=(memdisk)"]);
    grub.arg(format!("--output={}", rack.files.join("boot.efi").display()));
    grub.arg(format!("--config={}", configuration.display())).arg(format!("--memdisk={}", memdisk.display()));
    let modules = "memdisk tar net efinet tftp http hashsum gcry_sha256 serial terminal echo halt";
    process::run(grub.args(modules.split(' '))).expect("grub-mkimage");
    sha256(&inside)
}

#[test]
#[ignore = "needs guests and the built program: make test"]
fn edk2_and_grub_fetch_every_octet_by_tftp_and_http() {
    let mut rack = Rack::new("edk2").unwrap();
    let by_tftp = rack.file("boot/kernel", &noise(3_000_001, 12));
    let by_http = rack.file("boot/initrd", &noise(3_500_001, 13));
    let inside = grub(&rack, "boot/kernel", "boot/initrd");
    rack.start().unwrap();
    let expected = [inside.as_str(), &by_tftp, &by_http];
    let boot = |name, way| rack.boot(name, way, &expected);
    // QEMU ends with the thread that started it.
    std::thread::scope(|scope| {
        let tftp = scope.spawn(|| boot("tftp", Way::Tftp));
        boot("http", Way::Http).unwrap();
        tftp.join().unwrap().unwrap();
    });
    rack.end();
}

/// An archive in the format that the kernel takes as its first files (`newc`): name, mode and content of each.
fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, content) in files.iter().chain(&[("TRAILER!!!", 0, &[] as &[u8])]) {
        let numbers = [0, *mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        out.extend_from_slice(b"070701");
        numbers.iter().for_each(|number| out.extend_from_slice(format!("{number:08X}").as_bytes()));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// The files that `busybox sha256sum` consists of.
fn busybox() -> Vec<u8> {
    let (folder, program, link) = (0o040_755, 0o100_755, 0o120_777);
    // The libraries that it says, if it is not linked statically: `name => /path (address)` or `/path (address)`.
    let said = process::run(process::command("ldd").arg("/bin/busybox")).unwrap_or_default();
    let libraries: Vec<&str> =
        said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).collect();
    let paths = libraries.iter().copied().chain(["/bin/busybox"]);
    let contents: Vec<(String, Vec<u8>)> =
        paths.map(|path| (path[1..].to_owned(), fs::read(path).expect("a file"))).collect();
    let mut files: Vec<(&str, u32, &[u8])> = ["bin", "lib", "lib64", "lib/x86_64-linux-gnu", "usr", "usr/lib"]
        .map(|name| (name, folder, &[] as &[u8]))
        .to_vec();
    files.extend(contents.iter().map(|(name, content)| (name.as_str(), program, content.as_slice())));
    files.push(("bin/sha256sum", link, b"busybox"));
    archive(&files)
}

#[test]
#[ignore = "needs guests and the built program: make test"]
fn ipxe_fetches_every_octet_by_tftp_and_http() {
    let mut rack = Rack::new("ipxe").unwrap();
    let place = rack.place.clone();
    let plain = |name: &str, seed| {
        let bytes = noise(2_500_001, seed);
        fs::write(place.join(name), &bytes).expect("written");
        (sha256(&place.join(name)), archive(&[(name, 0o100_644, &bytes)]))
    };
    let ((first, by_http), (second, by_tftp)) = (plain("by-http", 21), plain("by-tftp", 22));
    rack.file("by-http.cpio", &by_http);
    rack.file("by-tftp.cpio", &by_tftp);
    rack.file("tools.cpio", &busybox());
    let kernel = rack.assets.lab.join("bootenv-cloud/vmlinuz");
    rack.file("vmlinuz", &fs::read(&kernel).unwrap_or_else(|error| panic!("{}: {error}", kernel.display())));
    // By TFTP; the next by HTTP.
    rack.file("boot.ipxe", b"#!ipxe\nchain http://10.77.0.1/next.ipxe?mac=${net0/mac:hexhyp}\n");
    rack.file(
        "next.ipxe",
        b"#!ipxe\nkernel http://10.77.0.1/vmlinuz console=ttyS0 quiet panic=-1 rdinit=/bin/sha256sum -- /by-http /by-tftp\n\
          initrd http://10.77.0.1/tools.cpio\ninitrd http://10.77.0.1/by-http.cpio\n\
          initrd tftp://10.77.0.1/by-tftp.cpio\nboot\n",
    );
    rack.start().unwrap();
    rack.boot("ipxe", Way::Ipxe, &[&format!("{first}  /by-http"), &format!("{second}  /by-tftp")]).unwrap();
    rack.end();
}
