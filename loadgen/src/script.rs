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
    /// A part of the loader that says what else it needs: give it to [`Interpreter::take`].
    Library,
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

    /// Takes a script, or a library, that was asked for and has come.
    ///
    /// # Errors
    /// What makes it none.
    pub fn take(&mut self, from: Location, script: &[u8]) -> Result<(), String> {
        if let Interpreter::Grub(grub) = self
            && grub.take_module(script)
        {
            return Ok(());
        }
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

    /// Whatever a server sends, a loader comes to an end. Scripts that use all there is are changed in a few places, and every
    /// script that they fetch is changed again.
    #[test]
    fn scripts_with_wrong_octets_come_to_an_end() {
        const GRUB: &str = "set default=\"1>0\"\nset fallback='0'\nfunction f { for a in 1 $b; do x=$a; break; done; return 1; }\n\
             f one && two\nwhile [ \"$n\" != xxx -a 1 -lt 2 ]; do set n=x$n; if [ -s /p ]; then continue; fi; done\n\
             regexp --set=1:c '^([0-9a-f]*):' \"$net_default_mac\"\neval \"set d=$c\"\nsource /more.cfg\n\
             if ! search --file /x; then export d; configfile ($root)/own.cfg; elif true; then sleep 1; else boot; fi\n\
             menuentry A --id a { linux /k $d; initrd /i }\nsubmenu B { menuentry C { linux (http,10.0.0.1:80)/k } }\n";
        const PXELINUX: &str = "path a:b\ndefault vesamenu.c32\ntimeout 5\nontimeout x\nmenu background p.png\ninclude more\n\
             label x\n menu default\n text help\n  kernel\n endtext\n kernel ::k\n append initrd=i,10.0.0.1::j\n\
             menu begin\nlabel y\n config z\nmenu end\nlabel z\n localboot 0\n";
        const IPXE: &str = "#!ipxe\n:a\nset n:int8 1\ninc n\nmenu M\nitem --gap -- X\nitem k K\n\
             choose --default k t && goto ${t} || goto a\n:k\nkernel ${base}/k a=${net0/mac:hexhyp} ||\niseq ${n} 2 && sleep 1\n\
             initrd --name i http://10.0.0.1/i\nchain --autofree x || boot\n";
        let loader = at("tftp://10.0.0.1/boot/grub/i386-pc/core.0");
        let client = pxelinux::Client { uuid: [7; 16], mac: [2; 6], address: Ipv4Addr::new(10, 0, 0, 9) };
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut ends = std::collections::BTreeSet::new();
        for round in 0..600 {
            let (text, mut interpreter) = match round % 3 {
                0 => (GRUB, Interpreter::Grub(Box::new(Grub::new(loader.clone(), "i386-pc", None, [])))),
                1 => (PXELINUX, Interpreter::Pxelinux(Box::new(Pxelinux::new(loader.clone(), client.clone())))),
                _ => (IPXE, Interpreter::Ipxe(Box::new(Ipxe::new([])))),
            };
            let mut changed = || {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..random(4) {
                    let place = random(bytes.len());
                    let other = bytes.get(random(bytes.len())).copied().unwrap_or(b' ');
                    match random(3) {
                        0 => drop(bytes.remove(place)),
                        1 => bytes.insert(place, other),
                        _ => bytes[place] = b" \n{}$\"'\\;=#[]|&:!"[random(17)],
                    }
                }
                (bytes, if random(4) == 0 { Outcome::Failure } else { Outcome::Success })
            };
            if round % 3 == 2 && interpreter.take(loader.clone(), &changed().0).is_err() {
                continue;
            }
            // Each fetch takes one of the loader's own steps at least.
            let mut fetches = 0;
            let end = loop {
                fetches += 1;
                assert!(fetches <= crate::limits::SCRIPT_STEPS_MAX, "{text}");
                match (interpreter.next(), changed()) {
                    (Step::Fetch(What::Script, from), (bytes, Outcome::Success)) => {
                        if interpreter.take(from, &bytes).is_err() {
                            break "not taken".to_owned();
                        }
                    }
                    (Step::Fetch(..) | Step::Sleep(_), (_, outcome)) => interpreter.done(outcome),
                    (Step::Boot(_), _) => break "boot".to_owned(),
                    (Step::LocalDisk, _) => break "disk".to_owned(),
                    (Step::Failed(why), _) => break why.split('`').next().unwrap_or_default().to_owned(),
                }
            };
            ends.insert(end);
        }
        // All of it is reached, or the changes change too much.
        for end in ["boot", "not taken", "script failed at ", "command ", LOOPS] {
            assert!(ends.contains(end), "{end}: {ends:?}");
        }
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
