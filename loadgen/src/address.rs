//! Leased addresses as our own, so that the kernel's sockets can be bound to them: a `local` route each, in this network
//! namespace, removed at the end. Done by `ip` (one process for a batch, arguments fixed, no shell), on a thread of its own,
//! so that the storm does not wait for it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use bootstorm_driver::Waker;

use crate::limits::ADDRESS_BATCH_MAX;

/// A request of a node.
struct Request {
    node: u32,
    address: Ipv4Addr,
    bits: u8,
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
        let mut routes = Routes { interface: interface.to_owned(), subnets: BTreeSet::new(), ours: Vec::new() };
        let thread = std::thread::spawn(move || {
            while let Ok(first) = incoming.recv() {
                let mut batch = vec![first];
                batch.extend(incoming.try_iter().take(ADDRESS_BATCH_MAX - 1));
                let is_usable = routes.add(&batch).is_ok();
                for request in &batch {
                    if outgoing.send((request.node, is_usable)).is_err() {
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
        let result = self.requests.as_ref().map(|requests| requests.try_send(Request { node, address, bits }));
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
    /// Lines for `ip route del`, latest last.
    ours: Vec<String>,
}

impl Routes {
    fn add(&mut self, batch: &[Request]) -> io::Result<()> {
        let mut lines = Vec::new();
        for request in batch {
            let network = network(request.address, request.bits);
            if request.bits < 32 && self.subnets.insert((network, request.bits)) {
                let subnet = format!("{network}/{} dev {}", request.bits, self.interface);
                if !Self::has_route(network, request.bits)? {
                    lines.push(format!("route add {subnet} scope link"));
                    self.ours.push(format!("route del {subnet} scope link"));
                }
            }
            let local = format!("local {}/32 dev {} table local", request.address, self.interface);
            lines.push(format!("route replace {local}"));
            self.ours.push(format!("route del {local}"));
        }
        run(&lines)
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
        self.ours.reverse();
        // Some may be gone with their interface: nothing is left to do about those.
        let _ = run(&self.ours);
    }
}

fn network(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
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
}
