//! The rack's own network: a namespace with a bridge for the machines and a link to the host.
//!
//! ```text
//! host namespace        rack's namespace
//!   bsN  ──── veth ────  host0          control's API, power server's clients
//!                        br0 10.77.0.1/20 ── tap0, tap1, …   the boot VLAN
//! ```
//! The namespace lives as long as one idle process of ours in it: nothing is left when we are killed.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{self, Process};
use super::{Error, wait};

/// The bridge in the namespace: the interface to boot machines on.
pub const BRIDGE: &str = "br0";
/// The rack's address on the bridge.
pub const RACK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The boot network, as a prefix: room for a storm of thousands.
pub const BOOT_NETWORK: &str = "10.77.0.0/20";

/// A namespace with a bridge. Dropping it removes both.
#[derive(Debug)]
pub struct Network {
    holder: Namespace,
    /// Host's end of the link.
    pub host_address: Ipv4Addr,
    /// The namespace's end of the link: where the API is reached from the host.
    pub inner_address: Ipv4Addr,
    state: PathBuf,
    taps: AtomicU32,
}

impl Network {
    /// Makes namespace, bridge and link. `state` is a directory for logs.
    ///
    /// # Errors
    /// [`Error::Environment`] with what to do where namespaces, bridges or taps are not to be had.
    pub fn new(state: &Path) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        check_privilege()?;

        let holder = Namespace::new(&state.join("namespace.log"))?;

        // 198.18.0.0/15 is set aside for test networks (RFC 2544 appendix C.2.2): four addresses for each of us.
        let slot = (std::process::id().wrapping_mul(7).wrapping_add(number) % 32_768) * 4;
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + slot;
        let network = Self {
            host_address: Ipv4Addr::from(base + 1),
            inner_address: Ipv4Addr::from(base + 2),
            state: state.to_owned(),
            taps: AtomicU32::new(0),
            holder,
        };
        let outer = format!("bs{}-{number}", std::process::id());
        let id = network.holder.id().to_string();
        let (host, inner) = (format!("{}/30", network.host_address), format!("{}/30", network.inner_address));
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", "host0", "netns", &id])?;
        ip(&["address", "add", &host, "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        network.ip(&["link", "set", "lo", "up"])?;
        network.ip(&["address", "add", &inner, "dev", "host0"])?;
        network.ip(&["link", "set", "host0", "up"])?;
        // The second pair gives the bridge a carrier before the first machine is on.
        network.ip(&["link", "add", "carrier0", "type", "veth", "peer", "name", "carrier1"])?;
        network.ip(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
        network.inside(|| fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/accept_dad"), "0")).ok();
        network.ip(&["address", "add", &format!("{RACK_ADDRESS}/20"), "dev", BRIDGE])?;
        network.ip(&["link", "set", "carrier1", "up"])?;
        network.ip(&["link", "set", "carrier0", "master", BRIDGE, "up"])?;
        network.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(network)
    }

    /// `program`, to run inside the namespace and to end with us.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.holder.command(program)
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the work's own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T, Error> {
        let path = self.holder.path();
        let enter = || {
            let namespace = File::open(&path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|source| Error::File { path, source })
    }

    /// Adds a tap device on the bridge for one machine and returns its name.
    ///
    /// # Errors
    /// When `ip` refuses, which it says.
    pub fn add_tap(&self) -> Result<String, Error> {
        let name = format!("tap{}", self.taps.fetch_add(1, Ordering::Relaxed));
        self.ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        self.ip(&["link", "set", &name, "master", BRIDGE, "up"])?;
        Ok(name)
    }

    /// Records everything on the bridge into `file` until the process is dropped. Nothing, with a word about it, in a
    /// user namespace: there tcpdump refuses because it cannot drop its privileges.
    ///
    /// # Errors
    /// When tcpdump does not start listening.
    pub fn capture(&self, file: &Path) -> Result<Option<Process>, Error> {
        if fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny") {
            eprintln!("no packets are captured: that needs real root");
            return Ok(None);
        }
        let mut tcpdump = self.command("tcpdump");
        // A whole DHCP message, and heads of everything else.
        tcpdump.args(["-i", BRIDGE, "-U", "-s", "600", "-Z", "root", "-w"]).arg(file);
        let mut tcpdump = Process::start(tcpdump, &self.state.join("tcpdump.log"))?;
        tcpdump.wait_for("listening on", Duration::from_secs(10))?;
        Ok(Some(tcpdump))
    }

    /// Words that, put before a command, run it in the namespace: for people to copy.
    pub fn shown_prefix(&self) -> String {
        format!("nsenter --net={}", self.holder.path().display())
    }

    /// Adds a namespace of its own with one interface on the bridge, without an address: for simulated machines.
    ///
    /// # Errors
    /// When `ip` refuses, which it says.
    pub fn add_clients(&self, name: &str) -> Result<Clients, Error> {
        let holder = Namespace::new(&self.state.join(format!("{name}.log")))?;
        let port = format!("port{}", self.taps.fetch_add(1, Ordering::Relaxed));
        let id = holder.id().to_string();
        self.ip(&["link", "add", &port, "type", "veth", "peer", "name", CLIENT_INTERFACE, "netns", &id])?;
        self.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        let clients = Clients { holder };
        for arguments in [["link", "set", "lo", "up"], ["link", "set", CLIENT_INTERFACE, "up"]] {
            process::run(clients.command("ip").args(arguments))?;
        }
        Ok(clients)
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), Error> {
        process::run(self.command("ip").args(arguments)).map(drop)
    }
}

/// Interface of a [`Clients`] namespace.
const CLIENT_INTERFACE: &str = "eth0";

/// A namespace of clients on the boot network. Dropping it removes it.
#[derive(Debug)]
pub struct Clients {
    holder: Namespace,
}

impl Clients {
    /// `program`, to run inside the namespace and to end with us.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.holder.command(program)
    }

    /// Its interface on the boot network.
    pub fn interface(&self) -> &'static str {
        CLIENT_INTERFACE
    }
}

/// An empty network namespace, kept by one idle process. Dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// Makes one; its process logs to `log`.
    ///
    /// # Errors
    /// [`Error::Environment`] where namespaces are not to be had.
    pub fn new(log: &Path) -> Result<Self, Error> {
        let mut holder = process::command("unshare");
        holder.args(["--net", "--", "sleep", "infinity"]);
        let mut namespace = Self { holder: Process::start(holder, log)? };
        let own = fs::read_link("/proc/self/ns/net").ok();
        let path = namespace.path();
        wait::until("a network namespace", Duration::from_secs(10), || {
            if let Some(status) = namespace.holder.ended() {
                let tail = process::tail(namespace.holder.log());
                return Err(Error::Environment(format!(
                    "no network namespace to be had ({status}: {tail}): run as root, or allow unprivileged user \
                     namespaces and run under tests/lab/as-root.sh"
                )));
            }
            Ok(fs::read_link(&path).ok().filter(|inner| Some(inner) != own.as_ref()))
        })?;
        Ok(namespace)
    }

    /// `program`, to run inside and to end with us. The process that starts becomes the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program.as_ref());
        command
    }

    /// The process that keeps it: what `ip link … netns ID` takes.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.id()))
    }
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    process::run(process::command("ip").args(arguments)).map(drop)
}

fn check_privilege() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Environment(
            "the lab needs network namespaces: run as root, or under tests/lab/as-root.sh".to_owned(),
        ));
    }
    File::options().read(true).write(true).open("/dev/net/tun").map(drop).map_err(|error| {
        Error::Environment(format!("/dev/net/tun cannot be opened ({error}): guests need tap devices"))
    })
}
