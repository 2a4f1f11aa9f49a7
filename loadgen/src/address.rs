//! Leased addresses as our own, so that the kernel's sockets can be bound to them: a `local` route each, in this network
//! namespace, removed when their node vanishes and at the end. Done by `ip` (one process for a batch, arguments fixed, no
//! shell), on a thread of its own, so that the storm does not wait for it: ten thousand in batches took one second on a busy
//! machine of two cores, so that a netlink socket of our own would gain nothing that a storm can feel.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use bootstorm_driver::Waker;

use crate::limits::ADDRESS_BATCH_MAX;

/// A request of a node.
enum Request {
    /// Make it ours; the node is told.
    Add { node: u32, address: Ipv4Addr, bits: u8 },
    /// It is nobody's any more.
    Remove(Ipv4Addr),
}

/// The addresses of a run. Dropping it removes what it added.
pub struct Addresses {
    requests: Option<SyncSender<Request>>,
    results: Receiver<(u32, bool)>,
    thread: Option<JoinHandle<()>>,
}

impl Addresses {
    /// For this interface (a name the kernel has); `capacity` requests may be open at a time. The waker is used after
    /// each batch.
    pub fn new(interface: &str, capacity: usize, waker: Waker) -> Addresses {
        let (requests, incoming) = sync_channel::<Request>(capacity);
        let (outgoing, results) = sync_channel(capacity);
        let mut routes = Routes {
            interface: interface.to_owned(),
            subnets: BTreeSet::new(),
            ours: Vec::new(),
            addresses: HashSet::new(),
        };
        let thread = std::thread::spawn(move || {
            while let Ok(first) = incoming.recv() {
                let mut batch = vec![first];
                batch.extend(incoming.try_iter().take(ADDRESS_BATCH_MAX - 1));
                let is_usable = routes.change(&batch).is_ok();
                for request in &batch {
                    let Request::Add { node, .. } = request else { continue };
                    if outgoing.send((*node, is_usable)).is_err() {
                        break;
                    }
                }
                waker.wake();
            }
            routes.remove();
        });
        Addresses { requests: Some(requests), results, thread: Some(thread) }
    }

    /// Asks for an address of a subnet with so many bits. False if too many requests are open.
    pub fn request(&self, node: u32, address: Ipv4Addr, bits: u8) -> bool {
        self.send(Request::Add { node, address, bits })
    }

    /// Gives an address up. Where too many requests are open it stays ours until the end.
    pub fn release(&self, address: Ipv4Addr) {
        self.send(Request::Remove(address));
    }

    fn send(&self, request: Request) -> bool {
        let result = self.requests.as_ref().map(|requests| requests.try_send(request));
        !matches!(result, None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))))
    }

    /// The next request that is done: whose, and whether the address can be used.
    pub fn poll(&self) -> Option<(u32, bool)> {
        self.results.try_recv().ok()
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.requests = None;
        // The thread may be waiting for room for results; take them so that it comes to its end.
        while self.results.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What has been added to the routing tables.
struct Routes {
    interface: String,
    /// Subnets seen, ours or there before.
    subnets: BTreeSet<(Ipv4Addr, u8)>,
    /// Subnets that we added, as arguments of `ip route`, latest last.
    ours: Vec<String>,
    /// Addresses that we added.
    addresses: HashSet<Ipv4Addr>,
}

impl Routes {
    /// Does what the batch asks for, in its order.
    fn change(&mut self, batch: &[Request]) -> io::Result<()> {
        let mut lines = Vec::new();
        for request in batch {
            match *request {
                Request::Add { address, bits, .. } => {
                    let network = network(address, bits);
                    if bits < 32 && self.subnets.insert((network, bits)) && !Self::has_route(network, bits)? {
                        let subnet = format!("{network}/{bits} dev {} scope link", self.interface);
                        lines.push(format!("route add {subnet}"));
                        self.ours.push(subnet);
                    }
                    self.addresses.insert(address);
                    lines.push(format!("route replace {}", self.local(address)));
                }
                Request::Remove(address) => {
                    if self.addresses.remove(&address) {
                        lines.push(format!("route del {}", self.local(address)));
                    }
                }
            }
        }
        run(&lines)
    }

    fn local(&self, address: Ipv4Addr) -> String {
        format!("local {address}/32 dev {} table local", self.interface)
    }

    /// Whether the subnet is routed already, by the interface's own address or otherwise.
    fn has_route(network: Ipv4Addr, bits: u8) -> io::Result<bool> {
        let subnet = format!("{network}/{bits}");
        let output = Command::new("ip")
            .args(["-4", "route", "show", &subnet])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()?;
        Ok(!output.stdout.is_empty())
    }

    fn remove(&mut self) {
        let addresses = self.addresses.iter().map(|address| format!("route del {}", self.local(*address)));
        let subnets = self.ours.iter().rev().map(|subnet| format!("route del {subnet}"));
        let lines: Vec<String> = addresses.chain(subnets).collect();
        // Some may be gone with their interface: nothing is left to do about those.
        let _ = run(&lines);
    }
}

fn network(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

/// The link address of an interface.
pub fn link_address(interface: &str) -> io::Result<[u8; 6]> {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", interface]).stdin(Stdio::null()).output()?;
    parse_link_address(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| io::Error::other("has no Ethernet address"))
}

/// What follows `link/ether`.
fn parse_link_address(line: &str) -> Option<[u8; 6]> {
    let text = line.split_ascii_whitespace().skip_while(|word| *word != "link/ether").nth(1)?;
    let mut octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok());
    let mut address = [0; 6];
    for octet in &mut address {
        *octet = octets.next()??;
    }
    octets.next().is_none().then_some(address)
}

/// Runs the lines, all of them even if one fails; fails if one did.
fn run(lines: &[String]) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(["-4", "-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        for line in lines {
            writeln!(input, "{line}")?;
        }
    }
    if child.wait()?.success() { Ok(()) } else { Err(io::Error::other("ip failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cut_at_their_bits() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(network(address, 16), Ipv4Addr::new(10, 1, 0, 0));
        assert_eq!(network(address, 32), address);
        assert_eq!(network(address, 0), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn a_link_address_is_found_in_its_line() {
        let line = "2: s0@if3: <UP> mtu 1500 state UP \\    link/ether 02:fc:00:0a:ff:01 brd ff:ff:ff:ff:ff:ff";
        assert_eq!(parse_link_address(line), Some([2, 0xfc, 0, 0x0a, 0xff, 1]));
        for other in ["", "1: lo: link/loopback 00:00:00:00:00:00", "link/ether", "link/ether 02:00:00:00:00:00:00"] {
            assert_eq!(parse_link_address(other), None, "{other}");
        }
    }
}
