//! The stacks of servers that a storm is played against.

use std::fs;
use std::path::Path;

use bootstorm_tests::lab::Error;
use serde::Serialize;

use super::files::Files;
use crate::pairs::Options;
use crate::peers::{self, unpacked};
use crate::up::Up;
use crate::veth::{Link, Pin, Port, SERVER, Servers};

/// Which stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `bootstorm up`.
    Ours,
    /// dnsmasq for DHCP and TFTP, nginx with our stored stream.
    Dnsmasq,
    /// Kea, tftpd-hpa, nginx with our stored stream.
    Kea,
    /// Kea, tftpd-hpa, nginx with the image as gzip.
    Usual,
}

impl Kind {
    /// All, ours first.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Dnsmasq, Self::Kea, Self::Usual];

    /// As in table and record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "bootstorm",
            Self::Dnsmasq => "dnsmasq+nginx",
            Self::Kea => "kea+tftpd-hpa+nginx",
            Self::Usual => "usual-way",
        }
    }
}

/// A running stack. Dropping it ends it.
#[derive(Debug)]
pub enum Stack<'a> {
    /// Ours.
    Ours(Box<Up<'a>>),
    /// A peer.
    Peer(Servers<'a>, tempfile::TempDir),
}

impl<'a> Stack<'a> {
    /// Starts one, with what it writes in `place`, which must be new. No server is bound to a processor.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(kind: Kind, link: &'a Link, options: &Options, files: &Files, place: &Path) -> Result<Self, Error> {
        fs::create_dir_all(place).map_err(|source| Error::File { path: place.to_owned(), source })?;
        if kind == Kind::Ours {
            return Ok(Self::Ours(Box::new(files.serve(link, options, &place.join("data"))?)));
        }
        let memory = peers::memory_directory()?;
        let leases = memory.path().join("leases").display().to_string();
        let (http, tftp) = (files.http.display().to_string(), files.tftp.display().to_string());
        let mut servers = Servers::new(link, kind.word(), Pin::Free)?;
        match kind {
            Kind::Dnsmasq => {
                let configuration = place.join("dnsmasq.conf");
                let places = [("LEASES", leases.as_str()), ("FILES", &tftp)];
                peers::write(&configuration, include_str!("../../peers/dnsmasq-storm.conf"), &places)?;
                let arguments = ["--keep-in-foreground".to_owned(), format!("--conf-file={}", configuration.display())];
                servers.start(Path::new("dnsmasq"), &arguments, &place.join("dnsmasq.log"))?;
            }
            Kind::Kea | Kind::Usual | Kind::Ours => {
                let configuration = place.join("kea.json");
                peers::write(&configuration, include_str!("../../peers/kea-storm.json"), &[("LEASES", &leases)])?;
                let (program, arguments) = peers::kea(memory.path(), &configuration);
                servers.start(&program, &arguments, &place.join("kea.log"))?;
                let address = format!("{SERVER}:69");
                let words = ["--listen", "--foreground", "--user", "root", "--address", &address, "--secure", &tftp];
                let arguments = words.map(str::to_owned);
                servers.start(&unpacked("usr/sbin/in.tftpd"), &arguments, &place.join("tftpd.log"))?;
            }
        }
        let configuration = place.join("nginx.conf");
        let places = [("PLACE", place.to_str().unwrap_or_default()), ("FILES", &http)];
        peers::write(&configuration, include_str!("../../peers/nginx-storm.conf"), &places)?;
        let arguments = ["-c", &configuration.display().to_string(), "-p", &place.display().to_string()];
        servers.start(Path::new("nginx"), &arguments.map(str::to_owned), &place.join("nginx.log"))?;
        servers.wait_for_ports(&[Port::Udp(67), Port::Udp(69), Port::Tcp(80)])?;
        Ok(Self::Peer(servers, memory))
    }

    /// What nodes are told about the image: `--image` of the load generator.
    pub fn image(&self, kind: Kind, files: &Files) -> String {
        let blake3 = &files.image;
        match kind {
            Kind::Ours => format!("{},encoding=zstd,blake3={blake3}", files.stream_url()),
            Kind::Dnsmasq | Kind::Kea => format!("http://{SERVER}/image.zst,encoding=zstd,blake3={blake3}"),
            Kind::Usual => format!("http://{SERVER}/image.gz,encoding=gzip,blake3={blake3}"),
        }
    }

    /// CPU seconds of all its processes.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        match self {
            Self::Ours(up) => up.cpu_seconds(),
            Self::Peer(servers, _) => servers.cpu_seconds(),
        }
    }

    /// Octets that its processes alone hold now.
    ///
    /// # Errors
    /// When the kernel does not tell the processes.
    pub fn own_bytes(&self) -> Result<u64, Error> {
        match self {
            Self::Ours(up) => up.own_bytes(),
            Self::Peer(servers, _) => servers.own_bytes(),
        }
    }

    /// Fails when one of its servers has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        match self {
            Self::Ours(up) => up.servers().check(),
            Self::Peer(servers, _) => servers.check(),
        }
    }
}
