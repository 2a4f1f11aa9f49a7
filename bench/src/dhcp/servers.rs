//! The DHCP servers under measurement, each started anew for every load: all clients are new to it.

use std::path::{Path, PathBuf};

use bootstorm_tests::lab::{Error, process};

use super::clients::Client;
use crate::pairs::Options;
use crate::peers;
use crate::up::Up;
use crate::veth::{Link, Pin, Port, Servers};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The rack role of `bootstorm up`; leases are durable before they are acknowledged.
    Ours,
    /// Kea with one thread.
    Kea1,
    /// Kea with two threads and a deep queue. It has both processors.
    Kea2,
    /// dnsmasq.
    Dnsmasq,
}

/// The processor of every server but Kea with two threads. Under `bootstorm up` all roles share it.
const PROCESSOR: usize = 0;

impl Kind {
    /// As in the lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "bootstorm",
            Self::Kea1 => "kea-1",
            Self::Kea2 => "kea-2",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    fn pin(self) -> Pin {
        match self {
            Self::Kea2 => Pin::Free,
            Self::Ours | Self::Kea1 | Self::Dnsmasq => Pin::Processor(PROCESSOR),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub enum Server<'a> {
    /// Ours.
    Ours(Box<Up<'a>>),
    /// A peer.
    Peer(Servers<'a>),
}

/// What servers are started from.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The two namespaces.
    pub link: &'a Link,
    /// The run's options.
    pub options: &'a Options,
    /// The run's directory.
    pub place: &'a Path,
}

impl<'a> Ground<'a> {
    /// A data directory of ours with the link's network described, to be copied for each start.
    ///
    /// # Errors
    /// When our server does not come up or refuses it.
    pub fn prepare(&self) -> Result<(), Error> {
        let mut up = Up::start(self.link, &self.options.bootstorm, &self.place.join("prepared"), Kind::Ours.pin())?;
        up.describe_network()?;
        up.wait_until_whole()
    }

    /// A fresh copy of the prepared data directory.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn data(&self) -> Result<PathBuf, Error> {
        let data = self.place.join("data");
        process::run(process::command("rm").arg("-rf").arg(&data))?;
        process::run(
            process::command("cp").args(["-a", "--reflink=auto"]).arg(self.place.join("prepared")).arg(&data),
        )?;
        Ok(data)
    }

    /// Starts a server that has no lease yet, for these clients.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self, kind: Kind, client: Client) -> Result<Server<'a>, Error> {
        if kind == Kind::Ours {
            let data = self.data()?;
            return Ok(Server::Ours(Box::new(Up::start(self.link, &self.options.bootstorm, &data, kind.pin())?)));
        }
        let place = self.place.join(kind.word());
        process::run(process::command("rm").arg("-rf").arg(&place))?;
        let leases = place.join("leases").display().to_string();
        let (program, arguments) = match kind {
            Kind::Kea1 | Kind::Kea2 | Kind::Ours => {
                let threaded = if kind == Kind::Kea2 { "true" } else { "false" };
                let sockets = match client {
                    Client::Perfdhcp => "udp",
                    Client::Loadgen => "raw",
                };
                let configuration = place.join("kea.json");
                let text = include_str!("../../peers/kea-dhcp.json");
                peers::write(
                    &configuration,
                    text,
                    &[("LEASES", &leases), ("THREADED", threaded), ("SOCKETS", sockets)],
                )?;
                peers::kea(&place, &configuration)
            }
            Kind::Dnsmasq => {
                let configuration = place.join("dnsmasq.conf");
                peers::write(&configuration, include_str!("../../peers/dnsmasq-dhcp.conf"), &[("LEASES", &leases)])?;
                let configuration = format!("--conf-file={}", configuration.display());
                (PathBuf::from("dnsmasq"), vec!["--keep-in-foreground".to_owned(), configuration])
            }
        };
        let mut servers = Servers::new(self.link, kind.word(), kind.pin())?;
        servers.start(&program, &arguments, &self.place.join(format!("{}.log", kind.word())))?;
        servers.wait_for_ports(&[Port::Udp(67)])?;
        Ok(Server::Peer(servers))
    }
}

impl Server<'_> {
    /// CPU seconds: of the rack role alone for ours, which is what answers; of all processes for a peer.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        match self {
            Self::Ours(up) => up.rack_cpu_seconds(),
            Self::Peer(servers) => servers.cpu_seconds(),
        }
    }

    /// CPU seconds of everything that was started, the control plane's work on what it is told about leases included.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds_of_all(&self) -> Result<f64, Error> {
        match self {
            Self::Ours(up) => up.cpu_seconds(),
            Self::Peer(servers) => servers.cpu_seconds(),
        }
    }
}
