//! Two network namespaces joined by one veth pair: the server's and the clients'.
//!
//! ```text
//! server's namespace                 clients' namespace
//!   veth0 10.96.0.1/12  ───────────  veth0 10.96.0.2/12
//! ```
//! The names are the same in each pair, as every namespace has its own; nothing of it is seen outside. What belongs to
//! the whole host (receive buffers, neighbour tables) is raised while a pair is there and put back when it is dropped.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use bootstorm_tests::lab::network::Namespace;
use bootstorm_tests::lab::process::{self, Process};
use bootstorm_tests::lab::{Error, neighbours, wait};

use crate::cgroup::Group;
use crate::{limits, memory};

/// The interface on either side.
pub const INTERFACE: &str = "veth0";
/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The clients' own address, for those that do not lease theirs.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);
/// The network, as a prefix.
pub const NETWORK: &str = "10.96.0.0/12";
/// First and last address to be leased: 126,975 of them.
pub const LEASED: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 96, 16, 0), Ipv4Addr::new(10, 97, 255, 254));

/// One end of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where servers run.
    Server,
    /// Where clients run.
    Client,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// On any processor.
    Free,
    /// On this one.
    Processor(usize),
}

/// The pair. Dropping it removes it; end what runs in it before.
#[derive(Debug)]
pub struct Link {
    server: Namespace,
    client: Namespace,
    _neighbours: neighbours::Raised,
    _buffers: Buffers,
}

impl Link {
    /// Makes both namespaces and joins them. `state` is a directory for logs.
    ///
    /// # Errors
    /// [`Error::Environment`] where namespaces or veth pairs are not to be had.
    pub fn new(state: &Path) -> Result<Self, Error> {
        let link = Self {
            server: Namespace::new(&state.join("server-namespace.log"))?,
            client: Namespace::new(&state.join("client-namespace.log"))?,
            _neighbours: neighbours::Raised::new(),
            _buffers: Buffers::raise(),
        };
        let [server, client] = [&link.server, &link.client].map(|namespace| namespace.id().to_string());
        let mut add = process::command("ip");
        add.args(["link", "add", INTERFACE, "netns", &server, "type", "veth"]);
        add.args(["peer", "name", INTERFACE, "netns", &client]);
        process::run(&mut add)?;
        for (side, address) in [(Side::Server, SERVER), (Side::Client, CLIENT)] {
            let address = format!("{address}/12");
            let commands: [&[&str]; 3] = [
                &["link", "set", "lo", "up"],
                &["address", "add", &address, "dev", INTERFACE],
                &["link", "set", INTERFACE, "up"],
            ];
            for arguments in commands {
                process::run(link.command(side, Path::new("ip")).args(arguments))?;
            }
            // What distributions have; a host may have chosen another for its own traffic.
            let choose = "echo cubic >/proc/sys/net/ipv4/tcp_congestion_control";
            process::run(link.command(side, Path::new("sh")).args(["-c", choose]))?;
        }
        Ok(link)
    }

    /// `program`, to run on one side and to end with us.
    pub fn command(&self, side: Side, program: &Path) -> Command {
        match side {
            Side::Server => self.server.command(program),
            Side::Client => self.client.command(program),
        }
    }

    /// `program`, to run on one side in a control group, with as many open files as it may have. The process that
    /// starts becomes the program.
    pub fn confined(&self, side: Side, group: &Group, pin: Pin, program: &Path) -> Command {
        let mut command = self.command(side, Path::new("sh"));
        let script = "echo $$ >\"$0\" && ulimit -n \"$(ulimit -Hn)\" && exec \"$@\"";
        command.args(["-c", script]).arg(group.processes());
        if let Pin::Processor(processor) = pin {
            command.args(["taskset", "-c", &processor.to_string()]);
        }
        command.arg(program);
        command
    }

    /// Octets that the sockets on the server's side hold: received and not read, sent and not acknowledged, and set aside.
    ///
    /// # Errors
    /// When `ss` does not tell.
    pub fn socket_bytes(&self) -> Result<u64, Error> {
        let mut ss = self.command(Side::Server, Path::new("ss"));
        ss.args(["--no-header", "--numeric", "--tcp", "--udp", "--all", "--memory"]);
        Ok(socket_bytes(&process::run(&mut ss)?))
    }
}

/// Servers that answer together on the server's side, in one control group. Dropping them ends them.
#[derive(Debug)]
pub struct Servers<'a> {
    // Dropped in this order: the group can go when its processes have ended.
    processes: Vec<Process>,
    group: Group,
    link: &'a Link,
    pin: Pin,
}

impl<'a> Servers<'a> {
    /// None yet.
    ///
    /// # Errors
    /// When there is no control group to be had.
    pub fn new(link: &'a Link, name: &str, pin: Pin) -> Result<Self, Error> {
        Ok(Self { processes: Vec::new(), group: Group::new(name)?, link, pin })
    }

    /// Starts one more, which logs to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, program: &Path, arguments: &[String], log: &Path) -> Result<(), Error> {
        let mut command = self.link.confined(Side::Server, &self.group, self.pin, program);
        command.args(arguments);
        self.processes.push(Process::start(command, log)?);
        Ok(())
    }

    /// Waits until something listens on all of `ports`.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log if one of the servers ends, [`Error::Timeout`].
    pub fn wait_for_ports(&mut self, ports: &[Port]) -> Result<(), Error> {
        wait::until(&format!("servers on {ports:?}"), limits::SERVER_START, || {
            self.check()?;
            Ok(self.are_bound(ports)?.then_some(()))
        })
    }

    /// Whether something listens on all of `ports`.
    ///
    /// # Errors
    /// When `ss` does not tell.
    pub fn are_bound(&self, ports: &[Port]) -> Result<bool, Error> {
        let mut ss = self.link.command(Side::Server, Path::new("ss"));
        let bound = process::run(ss.args(["--no-header", "--numeric", "--tcp", "--udp", "--listening"]))?;
        Ok(ports.iter().all(|port| is_bound(&bound, *port)))
    }

    /// Fails when one of them has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        for process in &mut self.processes {
            if let Some(status) = process.ended() {
                let log = process.log().to_owned();
                let tail = process::tail(&log);
                return Err(Error::Ended { log, status, tail });
            }
        }
        Ok(())
    }

    /// CPU seconds that all of them have used so far.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        self.group.cpu_seconds()
    }

    /// Octets of their processes' resident memory now, pages of files included.
    ///
    /// # Errors
    /// When the kernel does not tell the processes.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        Ok(memory::resident_bytes(&self.group.members()?))
    }

    /// Octets that their processes alone hold now, as [`memory`] counts them.
    ///
    /// # Errors
    /// When the kernel does not tell the processes.
    pub fn own_bytes(&self) -> Result<u64, Error> {
        Ok(memory::own_bytes(&self.group.members()?))
    }

    /// The one that was started first.
    pub fn first(&self) -> Option<&Process> {
        self.processes.first()
    }
}

/// A port that a server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Of UDP.
    Udp(u16),
    /// Of TCP.
    Tcp(u16),
}

/// Whether `ss --listening` shows the port: columns protocol, state, two queues, local address, …
fn is_bound(text: &str, port: Port) -> bool {
    let (protocol, port) = match port {
        Port::Udp(port) => ("udp", port),
        Port::Tcp(port) => ("tcp", port),
    };
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let local = (words.next() == Some(protocol)).then(|| words.nth(3)).flatten();
        local.and_then(|local| local.rsplit_once(':')).is_some_and(|(_, bound)| bound == port.to_string())
    })
}

/// Sum of what `ss --memory` says of each socket: `skmem:(r…,rb…,t…,tb…,f…,w…,o…,bl…,d…)`. `r`, `f`, `w` and `o` are
/// octets held for received data, in advance, for data to send and for options; `t` is part of `w`.
fn socket_bytes(text: &str) -> u64 {
    let fields = text.split("skmem:(").skip(1).filter_map(|rest| rest.split(')').next()).flat_map(|all| all.split(','));
    fields.filter_map(|field| field.strip_prefix(['r', 'f', 'w', 'o'])?.parse::<u64>().ok()).sum()
}

/// Limits of sockets' receive buffers, raised. Dropping it puts back what was there before.
#[derive(Debug)]
struct Buffers(Vec<(String, String)>);

impl Buffers {
    fn raise() -> Self {
        let wanted = limits::RECEIVE_BUFFER_BYTES.to_string();
        let mut before = Vec::new();
        for name in ["rmem_max", "rmem_default", "wmem_max", "netdev_max_backlog"] {
            let path = format!("/proc/sys/net/core/{name}");
            let wanted = if name == "netdev_max_backlog" { limits::BACKLOG_FRAMES } else { &wanted };
            let Ok(text) = fs::read_to_string(&path) else { continue };
            // Where it may not be raised, all the peers have the same less.
            if fs::write(&path, wanted).is_ok() {
                before.push((path, text));
            }
        }
        Self(before)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        for (path, text) in &self.0 {
            if let Err(error) = fs::write(path, text) {
                eprintln!("bench: {path} was {} and could not be put back: {error}", text.trim());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_memory_is_summed_without_limits_and_drops() {
        let text = "ESTAB 0 0 10.0.0.1:80 10.0.0.2:999\n\t skmem:(r10,rb131072,t4,tb87040,f20,w300,o4000,bl7,d9)\n\
                    UNCONN 0 0 *:67 *:*\n\t skmem:(r1,rb1,t0,tb1,f0,w0,o0,bl0,d0)\n";
        assert_eq!(socket_bytes(text), 4_331);
    }

    #[test]
    fn a_bound_port_is_seen_whatever_its_address() {
        let text = "udp UNCONN 0 0 0.0.0.0%veth0:67 0.0.0.0:*\ntcp LISTEN 0 511 [::]:80 [::]:*\n";
        assert!(is_bound(text, Port::Udp(67)) && is_bound(text, Port::Tcp(80)));
        assert!(!is_bound(text, Port::Tcp(67)) && !is_bound(text, Port::Udp(7)));
    }
}
