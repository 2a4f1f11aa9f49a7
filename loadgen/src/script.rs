//! Boot scripts, followed as the loader that reads them does: iPXE's, GRUB's configuration and PXELINUX's.
//!
//! Sans-I/O: [`Interpreter::next`] says what is to be done; how it went goes back in with [`Interpreter::done`], a fetched
//! script with [`Interpreter::take`]. What a loader can do and this cannot is a failure with the command's name, never
//! silently passed over.

mod grub;
mod ipxe;
pub mod pxelinux;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

pub use grub::Grub;
pub use ipxe::Ipxe;
pub use pxelinux::Pxelinux;

use crate::limits::SCRIPT_BYTES_MAX;

/// What a script fails with that never comes to an end.
pub const LOOPS: &str = "script loops";
/// What a script fails with that ends without having started anything.
pub const ENDED: &str = "script ended";

/// An `http` URL whose host is an address, since machines at this point have no resolver of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Address and port.
    pub server: SocketAddr,
    /// Path and query, from the slash on.
    pub target: String,
}

impl Url {
    /// Reads `http://ADDRESS[:PORT]/PATH`.
    pub fn parse(text: &str) -> Option<Url> {
        let rest = text.strip_prefix("http://")?;
        let (host, target) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let server = match host.parse::<SocketAddr>() {
            Ok(server) => server,
            Err(_) => SocketAddr::V4(SocketAddrV4::new(host.parse::<Ipv4Addr>().ok()?, 80)),
        };
        is_clean(target).then(|| Url { server, target: target.to_owned() })
    }
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// On a web server.
    Http(Url),
    /// On a TFTP server, by this name.
    Tftp(Ipv4Addr, String),
}

impl Location {
    /// Reads `http://…`, `tftp://ADDRESS/NAME`, or, with a base, `/PATH` and names relative to the base's folder.
    pub fn parse(text: &str, base: Option<&Location>) -> Option<Location> {
        if text.starts_with("http://") {
            return Url::parse(text).map(Location::Http);
        }
        if let Some(rest) = text.strip_prefix("tftp://") {
            let (host, name) = rest.split_once('/')?;
            return Some(Location::Tftp(host.parse().ok()?, name.to_owned())).filter(|_| is_clean(name));
        }
        if text.contains("://") || text.is_empty() || !is_clean(text) {
            return None;
        }
        match base? {
            Location::Http(url) => {
                let target = if text.starts_with('/') { text.to_owned() } else { folder(&url.target, "/") + text };
                Some(Location::Http(Url { server: url.server, target }))
            }
            Location::Tftp(server, name) => {
                // As iPXE has it: a leading slash is not part of the name.
                let name = text.strip_prefix('/').map_or_else(|| folder(name, "") + text, str::to_owned);
                Some(Location::Tftp(*server, name))
            }
        }
    }

    /// A file by its absolute path on the same server, by the same protocol. TFTP's names keep the slash.
    pub fn absolute(&self, path: &str) -> Location {
        match self {
            Location::Http(url) => Location::Http(Url { server: url.server, target: path.to_owned() }),
            Location::Tftp(server, _) => Location::Tftp(*server, path.to_owned()),
        }
    }

    /// A file in the same folder. TFTP's names keep their beginning as it is.
    pub fn beside(&self, name: &str) -> Location {
        match self {
            Location::Http(url) => Location::Http(Url { server: url.server, target: folder(&url.target, "/") + name }),
            Location::Tftp(server, path) => Location::Tftp(*server, folder(path, "") + name),
        }
    }

    /// The last part of its path.
    pub fn file_name(&self) -> &str {
        let path = match self {
            Location::Http(url) => url.target.split('?').next().unwrap_or_default(),
            Location::Tftp(_, name) => name,
        };
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// All up to the last slash of the path, or what stands for no folder.
fn folder(path: &str, none: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or(none).to_owned()
}

/// Whether it can stand in a request as it is.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a script wants fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A further script: give it to [`Interpreter::take`].
    Script,
    /// A part of the loader, whose content says nothing to us.
    Module,
    /// The kernel.
    Kernel,
    /// One more initial RAM disk.
    Initrd,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch this.
    Fetch(What, Location),
    /// Wait, then go on.
    Sleep(Duration),
    /// Kernel and initial RAM disks are loaded: start with this command line.
    Boot(String),
    /// The script hands over to the local disk.
    LocalDisk,
    /// The script ended, or failed with nothing to fall back to; the text says at what.
    Failed(String),
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// Not; the script may have an alternative.
    Failure,
}

/// The loader that a node runs.
#[derive(Clone, Debug)]
pub enum Interpreter {
    /// iPXE.
    Ipxe(Box<Ipxe>),
    /// GRUB.
    Grub(Box<Grub>),
    /// PXELINUX.
    Pxelinux(Box<Pxelinux>),
}

impl Interpreter {
    /// Goes on to the next thing that needs the outside world.
    pub fn next(&mut self) -> Step {
        match self {
            Interpreter::Ipxe(ipxe) => ipxe.next(),
            Interpreter::Grub(grub) => grub.next(),
            Interpreter::Pxelinux(pxelinux) => pxelinux.next(),
        }
    }

    /// Tells how the step that [`next`](Interpreter::next) gave went.
    pub fn done(&mut self, outcome: Outcome) {
        match self {
            Interpreter::Ipxe(ipxe) => ipxe.done(outcome),
            Interpreter::Grub(grub) => grub.done(outcome),
            Interpreter::Pxelinux(pxelinux) => pxelinux.done(outcome),
        }
    }

    /// Takes a script that was asked for and has come.
    ///
    /// # Errors
    /// What makes it none.
    pub fn take(&mut self, from: Location, script: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(script).map_err(|_| "script is not text".to_owned())?;
        if script.len() > SCRIPT_BYTES_MAX {
            return Err("script is too long".to_owned());
        }
        match self {
            Interpreter::Ipxe(ipxe) => ipxe.take(from, text),
            Interpreter::Grub(grub) => grub.take(text),
            Interpreter::Pxelinux(pxelinux) => pxelinux.take(from, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn at(text: &str) -> Location {
        Location::parse(text, None).unwrap()
    }

    #[test]
    fn urls_have_addresses_and_clean_targets() {
        assert_eq!(Url::parse("http://10.0.0.1").unwrap().target, "/");
        assert_eq!(Url::parse("http://10.0.0.1/a").unwrap().server.port(), 80);
        assert_eq!(Url::parse("http://name/x"), None);
        assert_eq!(Url::parse("http://10.0.0.1/a b"), None);
        assert_eq!(Location::parse("x", None), None);
        assert_eq!(Location::parse("ftp://10.0.0.1/x", Some(&at("tftp://10.0.0.1/x"))), None);
    }

    #[test]
    fn names_are_relative_to_where_the_script_came_from() {
        let http = at("http://10.0.0.1/a/b.ipxe?mac=1/2");
        assert_eq!(Location::parse("c", Some(&http)), Some(at("http://10.0.0.1/a/c")));
        assert_eq!(Location::parse("/c", Some(&http)), Some(at("http://10.0.0.1/c")));
        let tftp = at("tftp://10.0.0.1/a/b");
        assert_eq!(
            Location::parse("c", Some(&tftp)),
            Some(Location::Tftp(Ipv4Addr::new(10, 0, 0, 1), "a/c".to_owned()))
        );
        assert_eq!(Location::parse("/c", Some(&tftp)), Some(at("tftp://10.0.0.1/c")));
        assert_eq!(tftp.absolute("/grub/x"), Location::Tftp(Ipv4Addr::new(10, 0, 0, 1), "/grub/x".to_owned()));
        assert_eq!((http.file_name(), tftp.beside("c").file_name()), ("b.ipxe", "c"));
        assert_eq!(at("tftp://10.0.0.1/b").beside("c"), at("tftp://10.0.0.1/c"));
    }
}
