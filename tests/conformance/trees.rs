//! `loadgen` against other people's boot trees, served by other people's servers: Debian's installer for the network by dnsmasq,
//! what `grub-mknetdir` makes, PXELINUX out of its package, and shim with the signed GRUB and iPXE by Kea and nginx. Every
//! machine must come to the end of its image, and have asked for what the real loader asks for, in its order.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bootstorm_tests::lab::assets::{Assets, RunDirectory};
use bootstorm_tests::lab::network::{BRIDGE, Clients, Network};
use bootstorm_tests::lab::process::{self, Process};
use bootstorm_tests::lab::wait;

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Machines of a run.
const NODES: usize = 2;
/// Kernel and image of trees that have none.
const SMALL_BYTES: usize = 300_000;

/// A rack of foreign servers: its network, and what runs in it.
struct Rack {
    servers: Vec<Process>,
    network: Network,
    clients: Clients,
    loadgen: PathBuf,
    trees: PathBuf,
    place: PathBuf,
    files: PathBuf,
    directory: RunDirectory,
}

impl Rack {
    /// An empty one, with a folder for files that holds an image.
    fn new(name: &str) -> Rack {
        let assets = Assets::places().expect("places");
        let directory = assets.run_directory(&format!("trees-{name}")).expect("a directory");
        let place = directory.path().to_owned();
        let files = place.join("files");
        fs::create_dir_all(&files).expect("made");
        fs::write(files.join("disk.raw"), vec![7; SMALL_BYTES]).expect("written");
        let network = Network::new(&place).expect("a network");
        let clients = network.add_clients("clients").expect("clients");
        let trees = assets.lab.join("trees");
        assert!(trees.exists(), "{} is missing: tests/lab/trees.sh makes it", trees.display());
        Rack { servers: Vec::new(), network, clients, loadgen: assets.loadgen, trees, place, files, directory }
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.files.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// Takes a file of a package into the tree, under another name.
    fn take(&self, from: &str, name: &str) {
        let path = self.trees.join("root").join(from);
        self.file(name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }

    fn start(&mut self, name: &str, command: Command) {
        self.servers.push(Process::start(command, &self.place.join(name)).expect(name));
    }

    /// dnsmasq gives addresses, this boot file, and by TFTP the files under `root`.
    fn start_dnsmasq(&mut self, root: &Path, boot_file: &str) {
        let mut dnsmasq = self.network.command("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=",
            "--pid-file=",
            "--port=0",
        ]);
        dnsmasq.args(["--bind-interfaces", "--no-ping", "--dhcp-range=10.77.0.10,10.77.0.99,255.255.240.0,1h"]);
        dnsmasq.arg(format!("--interface={BRIDGE}")).arg(format!("--dhcp-boot={boot_file},,10.77.0.1"));
        // Shim finds its own folder by the field of the message, not by the option.
        dnsmasq.args(["--dhcp-no-override", "--enable-tftp"]).arg(format!("--tftp-root={}", root.display()));
        dnsmasq.arg(format!("--log-facility={}", self.place.join("tftp.log").display()));
        dnsmasq.arg(format!("--dhcp-leasefile={}", self.place.join("leases").display()));
        self.start("dnsmasq.log", dnsmasq);
        let log = self.place.join("tftp.log");
        let ready = || Ok(fs::read_to_string(&log).is_ok_and(|log| log.contains("TFTP root is")).then_some(()));
        wait::until("dnsmasq", PATIENCE, ready).expect("dnsmasq listens");
    }

    /// nginx serves the rack's own files on port 80.
    fn start_nginx(&mut self) {
        let text = format!(
            "daemon off;\nuser root;\npid {place}/nginx.pid;\nerror_log {place}/nginx-error.log;\nevents {{ }}\nhttp {{\n\
             access_log {place}/http.log;\ndefault_type application/octet-stream;\n{bodies}\
             server {{ listen 10.77.0.1:80; root {files}; }}\n}}\n",
            place = self.place.display(),
            files = self.files.display(),
            bodies =
                ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().fold(String::new(), |mut all, name| {
                    let _ = writeln!(all, "{name}_temp_path {}/{name};", self.place.display());
                    all
                }),
        );
        let configuration = self.place.join("nginx.conf");
        fs::write(&configuration, text).expect("written");
        let mut nginx = self.network.command(self.trees.join("run"));
        nginx.arg("nginx").arg("-p").arg(&self.place).arg("-c").arg(configuration);
        self.start("nginx.log", nginx);
        let pid = self.place.join("nginx.pid");
        wait::until("nginx", PATIENCE, || Ok(pid.exists().then_some(()))).expect("nginx listens");
    }

    /// Kea gives addresses and, by what a client says that it is, a URL.
    fn start_kea(&mut self) {
        let class = |name: &str, test: &str, file: &str| serde_json::json!({ "name": name, "test": test, "boot-file-name": format!("http://10.77.0.1/{file}") });
        let mut firmware = class("firmware", "substring(option[60].hex,0,10) == 'HTTPClient'", "EFI/shimx64.efi");
        firmware["option-data"] =
            serde_json::json!([{ "name": "vendor-class-identifier", "data": "HTTPClient", "always-send": true }]);
        let ipxe = class("ipxe", "option[77].hex == 'iPXE'", "boot.ipxe");
        let configuration = serde_json::json!({ "Dhcp4": {
            "interfaces-config": { "interfaces": [BRIDGE], "dhcp-socket-type": "raw" },
            "lease-database": { "type": "memfile", "persist": false },
            "valid-lifetime": 3600,
            "client-classes": [ipxe, firmware],
            "subnet4": [{ "id": 1, "subnet": "10.77.0.0/20", "pools": [{ "pool": "10.77.0.10 - 10.77.0.99" }] }],
            "loggers": [{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [{ "output": "stderr" }] }],
        } });
        let path = self.place.join("kea.json");
        fs::write(&path, configuration.to_string()).expect("written");
        let mut kea = self.network.command(self.trees.join("run"));
        kea.env("KEA_PIDFILE_DIR", &self.place).env("KEA_LOCKFILE_DIR", &self.place);
        kea.arg("kea-dhcp4").arg("-c").arg(path);
        self.start("kea.log", kea);
        let server = self.servers.last_mut().expect("started");
        server.wait_for("DHCP4_STARTED", PATIENCE).expect("Kea listens");
    }

    fn loadgen(&self, firmware: &str, more: &[&str]) -> Command {
        assert!(self.loadgen.exists(), "{} is missing: cargo build --package loadgen", self.loadgen.display());
        let mut loadgen = self.clients.command(&self.loadgen);
        let image = "http://10.77.0.1/disk.raw,encoding=raw";
        loadgen.args(["storm", "--interface", self.clients.interface(), "--nodes", &NODES.to_string()]);
        loadgen.args(["--firmware", firmware, "--deadline", "200s", "--image", image, "--image-whole"]).args(more);
        loadgen
    }

    /// The machines' MAC addresses, with dashes.
    fn macs(&self, firmware: &str) -> Vec<String> {
        let schedule = process::run(&mut self.loadgen(firmware, &["--print-schedule"])).expect("a schedule");
        schedule.lines().filter_map(|line| Some(line.split(' ').nth(1)?.replace(':', "-"))).collect()
    }

    /// Powers the machines on; all of them must come to their end.
    fn boot(&self, firmware: &str) {
        let json = self.place.join("report.json");
        let _stale = fs::remove_file(&json);
        let words = ["--ignore-checks", "--json", json.to_str().expect("text")];
        let played = process::run(&mut self.loadgen(firmware, &words));
        let report: serde_json::Value =
            fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        assert_eq!(report["done"], NODES, "{played:?}\n{}\n{}", report["failures"], self.directory.path().display());
    }

    /// What each machine asked for by TFTP, in its order, below `root`; names that are not there have `!` before them.
    fn asked(&self, root: &Path) -> Vec<Vec<String>> {
        let log = fs::read_to_string(self.place.join("tftp.log")).expect("a log");
        let root = format!("{}/", root.display());
        let mut machines: Vec<(String, Vec<String>)> = Vec::new();
        for line in log.lines() {
            let text = line.split_once("]: ").map_or(line, |(_, text)| text);
            let (mark, found) = match (text.strip_prefix("sent "), text.strip_prefix("file ")) {
                (Some(sent), _) => ("", sent.split_once(" to ")),
                (None, Some(missing)) => ("!", missing.split_once(" not found for ")),
                (None, None) => continue,
            };
            let Some((path, address)) = found else { continue };
            let name = format!("{mark}{}", path.strip_prefix(&root).unwrap_or(path));
            match machines.iter_mut().find(|(of, _)| of == address) {
                Some((_, names)) => names.push(name),
                None => machines.push((address.to_owned(), vec![name])),
            }
        }
        machines.into_iter().map(|(_, names)| names).collect()
    }

    /// What was asked for by HTTP.
    fn fetched(&self) -> Vec<String> {
        let log = fs::read_to_string(self.place.join("http.log")).expect("a log");
        log.lines().filter_map(|line| line.split(' ').nth(6).map(str::to_owned)).collect()
    }

    fn end(self) {
        drop(self.servers);
        self.directory.remove();
    }
}

/// Those that were there, and those that were not, each in their order. Between the two dnsmasq's log has none: a file is told
/// of when its last block is acknowledged, a refusal at once.
fn apart<S: AsRef<str>>(names: &[S]) -> [Vec<String>; 2] {
    let mut apart = [Vec::new(), Vec::new()];
    for name in names.iter().map(AsRef::as_ref) {
        apart[usize::from(name.starts_with('!'))].push(name.to_owned());
    }
    apart
}

/// What vesamenu.c32, and PXELINUX before it, asks for of the installer's menu: as a real one of Debian 12 asked the same
/// dnsmasq.
const INSTALLER_MENU: [&str; 21] = [
    "menu.cfg",
    "stdmenu.cfg",
    "!gtk.cfg",
    "txt.cfg",
    "stdmenu.cfg",
    "!adgtk.cfg",
    "adtxt.cfg",
    "rqtxt.cfg",
    "!adspkgtk.cfg",
    "!adspk.cfg",
    "drkmenu.cfg",
    "!drkgtk.cfg",
    "drk.cfg",
    "drkmenu.cfg",
    "!addrkgtk.cfg",
    "addrk.cfg",
    "rqdrk.cfg",
    "!x86drkme.cfg",
    "!x86menu.cfg",
    "!spkgtk.cfg",
    "!spk.cfg",
];

#[test]
#[ignore = "needs the built program and root: make test"]
fn the_installers_pxelinux_tree_is_followed_through_its_menu() {
    let mut rack = Rack::new("pxelinux");
    let root = rack.trees.join("installer");
    rack.start_dnsmasq(&root, "pxelinux.0");
    rack.start_nginx();
    rack.boot("bios");
    let screens = "debian-installer/amd64/boot-screens";
    let menu = INSTALLER_MENU.map(|name| match name.strip_prefix('!') {
        Some(missing) => format!("!{screens}/{missing}"),
        None => format!("{screens}/{name}"),
    });
    let libraries = ["libcom32.c32", "libutil.c32"];
    let libraries = libraries.iter().flat_map(|name| [format!("!{name}"), format!("{screens}/{name}")]);
    let mut expected = ["pxelinux.0", "ldlinux.c32", "pxelinux.cfg/default"].map(str::to_owned).to_vec();
    expected.extend(menu.clone());
    expected.push(format!("{screens}/vesamenu.c32"));
    expected.extend(libraries);
    expected.push("pxelinux.cfg/default".to_owned());
    expected.extend(menu);
    expected.push(format!("{screens}/splash.png"));
    expected.extend(["linux", "initrd.gz"].map(|name| format!("debian-installer/amd64/{name}")));
    let machines = rack.asked(&root);
    assert_eq!(machines.len(), NODES);
    for names in machines {
        // UUID, MAC address, eight to one digits of the address.
        let (searched, names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.starts_with("!pxelinux.cfg/"));
        assert_eq!(searched.len(), 10, "{searched:?}");
        assert_eq!(apart(&names), apart(&expected));
    }
    rack.end();
}

#[test]
#[ignore = "needs the built program and root: make test"]
fn the_installers_grub_tree_is_followed_from_shim_to_its_first_entry() {
    let mut rack = Rack::new("grub");
    let root = rack.trees.join("installer");
    rack.start_dnsmasq(&root, "debian-installer/amd64/bootnetx64.efi");
    rack.start_nginx();
    rack.boot("uefi");
    let expected = [
        "debian-installer/amd64/bootnetx64.efi",
        "!debian-installer/amd64/revocations_sku.efi",
        "!debian-installer/amd64/revocations_sbat.efi",
        "!debian-installer/amd64/shim_certificate_0.efi",
        "debian-installer/amd64/grubx64.efi",
        "debian-installer/amd64/grub/x86_64-efi/command.lst",
        "debian-installer/amd64/grub/x86_64-efi/fs.lst",
        "debian-installer/amd64/grub/x86_64-efi/crypto.lst",
        "debian-installer/amd64/grub/x86_64-efi/terminal.lst",
        "debian-installer/amd64/grub/grub.cfg",
        "!isolinux/splash.png",
        "splash.png",
        "debian-installer/amd64/linux",
        "debian-installer/amd64/initrd.gz",
    ];
    let machines = rack.asked(&root);
    assert_eq!(machines.len(), NODES);
    for mut names in machines {
        // The firmware asks for the size first and ends the transfer there; dnsmasq calls it sent when it is whole.
        names.dedup();
        assert_eq!(apart(&names), apart(&expected));
    }
    rack.end();
}

/// As distributions write theirs with grub-mkconfig, with what a site adds for its network.
const MKNETDIR_CONFIGURATION: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod vbe
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
   insmod part_gpt
   search --no-floppy --fs-uuid --set=root 0b9a3c1e-0000-4000-8000-000000000001
   font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
  load_video
  insmod gfxterm
fi
terminal_output gfxterm
if [ "${recordfail}" = 1 ] ; then
  set timeout=30
else
  set timeout_style=menu
  set timeout=5
fi
set kernels=none
for name in /no-kernel (http,10.77.0.1)/vmlinuz; do
  if [ -s $name ]; then kernels=$name; fi
done
export kernels
if search --no-floppy --set=root --file /vmlinuz; then
  set default="never"
fi
source $prefix/site.cfg
configfile $prefix/$own/grub.cfg
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple' {
  load_video
  savedefault
  set gfxpayload=keep
  insmod gzio
  if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
  echo 'Loading Linux ...'
  linux ${kernels} root=/dev/nfs ip=dhcp
  echo 'Loading initial ramdisk ...'
  initrd ($root)/initrd.img
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {
  menuentry 'recovery' { linux /never single }
}
"#;

/// A tree as `grub-mknetdir` makes it, with that configuration.
fn mknetdir(firmware: &str, platform: &str, core: &str) {
    let mut rack = Rack::new(platform);
    let root = rack.files.clone();
    let mut grub = process::command("grub-mknetdir");
    grub.arg(format!("--net-directory={}", root.display())).arg("--subdir=/boot/grub");
    grub.arg(format!("--directory=/usr/lib/grub/{platform}")).args(["--locales=", "--fonts=", "--themes="]);
    process::run(&mut grub).expect("grub-mknetdir");
    rack.file("vmlinuz", vec![1; SMALL_BYTES]);
    rack.file("initrd.img", vec![2; SMALL_BYTES]);
    rack.file("own.img", vec![3; SMALL_BYTES]);
    rack.file("boot/grub/grub.cfg", MKNETDIR_CONFIGURATION);
    rack.file(
        "boot/grub/site.cfg",
        "regexp --set=1:vendor '^(([0-9a-f]{2}:){3})' \"$net_default_mac\"\nif [ -n \"$vendor\" ]; then set own=none; fi\n",
    );
    // The first machine has a configuration of its own.
    let mac = rack.macs(firmware).remove(0);
    let own = format!("boot/grub/grub.cfg-01-{mac}");
    rack.file(&own, "set timeout=0\nmenuentry own {\n linux /own.img mac=$net_default_mac\n initrd /initrd.img\n}\n");
    rack.start_dnsmasq(&root, &format!("boot/grub/{platform}/{core}"));
    rack.start_nginx();
    rack.boot(firmware);
    let machines = rack.asked(&root);
    assert_eq!(machines.len(), NODES);
    let is_own = |names: &&Vec<String>| names.contains(&own);
    let (own_names, others) = (machines.iter().find(is_own), machines.iter().find(|names| !is_own(names)));
    let (own_names, others) = (own_names.expect("a machine of its own"), others.expect("another"));
    let folder = format!("boot/grub/{platform}");
    // Looked for, then read.
    assert_eq!(own_names.iter().filter(|name| **name == own).count(), 2);
    assert!(own_names.ends_with(&["own.img".to_owned(), "initrd.img".to_owned()]), "{own_names:?}");
    // Each with what it depends on, as a GRUB 2.06 that grub-mknetdir made asked the same dnsmasq for them.
    let modules: Vec<&str> = others.iter().filter_map(|name| name.strip_suffix(".mod")?.rsplit('/').next()).collect();
    let verifiers = (platform == "i386-pc").then_some("verifiers");
    let mut expected = vec!["normal", "extcmd"];
    expected.extend(verifiers);
    expected.extend(["crypto", "gettext", "terminal", "gzio", "gcry_crc"]);
    assert_eq!(modules[..expected.len()], expected);
    let places = ["test", "font", "video", "search", "search_fs_uuid", "search_fs_file", "search_label", "regexp"]
        .map(|module| modules.iter().position(|name| *name == module).expect(module));
    assert!(modules.contains(&"gfxterm") && modules.contains(&"configfile"), "{modules:?}");
    assert!(places.is_sorted(), "{modules:?}");
    let rest: Vec<&String> = others.iter().filter(|name| !name.ends_with(".mod")).collect();
    let searched = rest.iter().filter(|name| name.starts_with("!boot/grub/grub.cfg-")).count();
    assert_eq!(searched, 9, "{rest:?}");
    let lists = ["command", "fs", "crypto", "terminal"].map(|list| format!("{folder}/{list}.lst"));
    let mut expected = vec![format!("{folder}/{core}")];
    expected.extend(rest.iter().filter(|name| name.starts_with("!boot/grub/grub.cfg-")).map(|name| (*name).clone()));
    expected.extend(lists);
    expected.extend(
        [
            "boot/grub/grub.cfg",
            "!boot/grub/grubenv",
            "!no-kernel",
            "boot/grub/site.cfg",
            "!boot/grub/none/grub.cfg",
            "initrd.img",
        ]
        .map(str::to_owned),
    );
    let rest: Vec<String> = rest.into_iter().cloned().collect();
    assert_eq!(apart(&rest), apart(&expected));
    // Looked for, then loaded.
    assert_eq!(rack.fetched().iter().filter(|path| *path == "/vmlinuz").count(), 2);
    rack.end();
}

#[test]
#[ignore = "needs the built program and root: make test"]
fn a_tree_of_grub_mknetdir_is_followed_under_bios() {
    mknetdir("bios", "i386-pc", "core.0");
}

#[test]
#[ignore = "needs the built program and root: make test"]
fn a_tree_of_grub_mknetdir_is_followed_under_uefi() {
    mknetdir("uefi", "x86_64-efi", "core.efi");
}

#[test]
#[ignore = "needs the built program and root: make test"]
fn pxelinux_out_of_its_package_takes_each_machines_own_configuration() {
    let mut rack = Rack::new("lpxelinux");
    rack.take("usr/lib/PXELINUX/lpxelinux.0", "bios/lpxelinux.0");
    for module in ["ldlinux.c32", "menu.c32", "libcom32.c32", "libutil.c32"] {
        rack.take(&format!("usr/lib/syslinux/modules/bios/{module}"), &format!("bios/{module}"));
    }
    rack.file("vmlinuz", vec![1; SMALL_BYTES]);
    rack.file("bios/initrd.img", vec![2; SMALL_BYTES]);
    let label = "LABEL local\n MENU LABEL ^Local disk\n LOCALBOOT 0\nLABEL install\n MENU LABEL ^Install\n MENU DEFAULT\n \
                 KERNEL http://10.77.0.1/vmlinuz\n INITRD initrd.img\n APPEND quiet\n IPAPPEND 2\n";
    rack.file("bios/pxelinux.cfg/default", "DEFAULT menu.c32\nPROMPT 0\nTIMEOUT 50\nINCLUDE pxelinux.cfg/labels\n");
    rack.file("bios/pxelinux.cfg/labels", label);
    let mac = rack.macs("bios").remove(0);
    rack.file(&format!("bios/pxelinux.cfg/01-{mac}"), "DEFAULT ::vmlinuz initrd=::bios/initrd.img own=yes\n");
    let root = rack.files.clone();
    rack.start_dnsmasq(&root, "bios/lpxelinux.0");
    rack.start_nginx();
    rack.boot("bios");
    let own = format!("bios/pxelinux.cfg/01-{mac}");
    let machines = rack.asked(&root);
    let (own, others): (Vec<_>, Vec<_>) = machines.into_iter().partition(|names| names.contains(&own));
    assert_eq!((own.len(), others.len()), (1, NODES - 1));
    assert!(own[0].ends_with(&["vmlinuz".to_owned(), "bios/initrd.img".to_owned()]), "{:?}", own[0]);
    let menu = ["pxelinux.cfg/default", "pxelinux.cfg/labels", "menu.c32", "libcom32.c32", "libutil.c32"];
    let menu = menu.iter().chain(&menu[..2]).chain(&["initrd.img"]).map(|name| format!("bios/{name}"));
    assert!(others[0].ends_with(&menu.collect::<Vec<_>>()), "{:?}", others[0]);
    assert_eq!(rack.fetched().iter().filter(|path| *path == "/vmlinuz").count(), NODES - 1);
    rack.end();
}

#[test]
#[ignore = "needs the built program and root: make test"]
fn shim_the_signed_grub_and_ipxe_are_followed_over_http_from_kea_and_nginx() {
    let mut rack = Rack::new("kea-nginx");
    rack.take("usr/lib/shim/shimx64.efi.signed", "EFI/shimx64.efi");
    rack.take("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "EFI/grubx64.efi");
    rack.file("vmlinuz", vec![1; SMALL_BYTES]);
    rack.file("initrd.img", vec![2; SMALL_BYTES]);
    rack.file(
        "grub/grub.cfg",
        "set default=install\nset timeout=3\nsource $prefix/variables.cfg\n\
         if [ -s $prefix/grub.cfg-01-$net_default_mac ]; then configfile $prefix/grub.cfg-01-$net_default_mac; fi\n\
         menuentry Local { exit }\nmenuentry Install --id install {\n linuxefi ${base}/vmlinuz ip=dhcp\n\
         initrdefi ${base}/initrd.img\n}\n",
    );
    rack.file("grub/variables.cfg", "set base=(http,10.77.0.1)\n");
    rack.file(
        "boot.ipxe",
        "#!ipxe\nset base http://10.77.0.1\nmenu Machine ${net0/mac}\nitem --gap -- Systems\nitem local From the disk\n\
         item install Install\nchoose --default install --timeout 3000 target && goto ${target}\n:local\nexit\n:install\n\
         chain ${base}/machines/${net0/mac:hexhyp}.ipxe || goto common\n:common\nkernel ${base}/vmlinuz initrd=initrd.img\n\
         initrd ${base}/initrd.img\nboot\n",
    );
    rack.start_kea();
    rack.start_nginx();
    rack.boot("http");
    let firmware = rack.fetched();
    rack.boot("ipxe");
    let all = rack.fetched();
    let count = |names: &[String], name: &str| names.iter().filter(|path| *path == name).count();
    for name in ["/EFI/grubx64.efi", "/grub/grub.cfg", "/grub/variables.cfg", "/vmlinuz", "/initrd.img"] {
        // Firmware asks for the size first, and again when it is there.
        assert_eq!(count(&firmware, name), 2 * NODES, "{name}: {firmware:?}");
    }
    let ipxe = &all[firmware.len()..];
    for name in ["/boot.ipxe", "/vmlinuz", "/initrd.img", "/disk.raw"] {
        assert_eq!(count(ipxe, name), NODES, "{name}: {ipxe:?}");
    }
    assert_eq!(ipxe.iter().filter(|path| path.starts_with("/machines/")).count(), NODES, "{ipxe:?}");
    rack.end();
}
