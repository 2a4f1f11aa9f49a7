//! Servers and clients under measurement: pinned to a processor, in a group of their own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use bootstorm_tests::lab::process::{self, Process};
use bootstorm_tests::lab::{Error, wait};

use crate::cgroup::Group;
use crate::{limits, memory};

/// A command on one processor, in a group.
pub fn confined(group: &Group, processor: usize, program: &Path) -> Command {
    let mut command = process::command("sh");
    command.args(["-c", "echo $$ >\"$0\" && exec taskset -c \"$@\""]);
    command.arg(group.processes()).arg(processor.to_string()).arg(program);
    command
}

/// A server that answers on an address. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    /// Name of the implementation, as in the lines.
    pub name: &'static str,
    /// Where it answers.
    pub address: SocketAddr,
    // Dropped in this order: the group can go when its processes have ended.
    process: Process,
    group: Group,
}

impl Server {
    /// Starts `program` with `arguments` on a processor and waits until it `answers` on its address.
    ///
    /// # Errors
    /// When it does not start, ends, or does not answer in time.
    pub fn start(
        name: &'static str,
        (program, arguments): (&Path, &[String]),
        processor: usize,
        address: SocketAddr,
        log: &Path,
        answers: impl Fn(SocketAddr) -> bool,
    ) -> Result<Self, Error> {
        let group = Group::new(name)?;
        let mut command = confined(&group, processor, program);
        command.args(arguments);
        let mut process = Process::start(command, log)?;
        wait::until(&format!("{name} to answer on {address}"), limits::SERVER_START, || {
            if let Some(status) = process.ended() {
                return Err(Error::Ended { log: log.to_owned(), status, tail: process::tail(log) });
            }
            Ok(answers(address).then_some(()))
        })?;
        Ok(Self { name, address, process, group })
    }

    /// CPU seconds used so far.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        self.group.cpu_seconds()
    }

    /// Octets that its processes alone hold, as [`memory::own_bytes`].
    ///
    /// # Errors
    /// When the kernel does not say which they are.
    pub fn own_bytes(&self) -> Result<u64, Error> {
        Ok(memory::own_bytes(&self.group.members()?))
    }

    /// Octets of its processes' resident memory.
    ///
    /// # Errors
    /// When the kernel does not say which they are.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        Ok(memory::resident_bytes(&self.group.members()?))
    }

    /// Octets that the kernel holds for its TCP sockets, as [`memory::socket_bytes`].
    ///
    /// # Errors
    /// When `ss` does not say.
    pub fn socket_bytes(&self) -> Result<u64, Error> {
        memory::socket_bytes(self.address.port())
    }

    /// Octets that its processes made the disk read so far (`read_bytes` of `/proc/ID/io`; what the page cache held is
    /// not in it).
    ///
    /// # Errors
    /// When the kernel does not say which they are.
    pub fn disk_read_bytes(&self) -> Result<u64, Error> {
        let read = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/io")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse::<u64>().ok())
        };
        Ok(self.group.members()?.into_iter().filter_map(read).sum())
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Whether connections are accepted.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// An address on loopback that nobody listens on at this moment.
///
/// # Errors
/// When loopback has none.
pub fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|source| Error::File { path: "127.0.0.1".into(), source })
}
