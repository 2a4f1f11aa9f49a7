//! Follows PXELINUX: its own library, the search for a configuration, the default label, kernel and initial RAM disks
//! (Syslinux wiki, “PXELINUX” and “Config”; the order as seen from lpxelinux 6.04).

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::{ENDED, LOOPS, Location, Outcome, Step, Url, What};
use crate::limits::{SCRIPT_LINE_BYTES_MAX, SCRIPT_STEPS_MAX, SCRIPTS_WITHOUT_PAUSE_MAX};

/// Who asks: what configurations are searched by, and what SYSAPPEND puts onto command lines.
#[derive(Clone, Debug)]
pub struct Client {
    /// The machine's UUID as option 97 carries it: the octets as the firmware has them.
    pub uuid: [u8; 16],
    /// Its address.
    pub mac: [u8; 6],
    /// Its leased address.
    pub address: Ipv4Addr,
}

/// A node's PXELINUX.
#[derive(Clone, Debug)]
pub struct Pxelinux {
    client: Client,
    loader: Location,
    /// Configurations still to be tried.
    candidates: VecDeque<String>,
    state: State,
    lines: VecDeque<String>,
    labels: Vec<Label>,
    default: Option<String>,
    /// What stands before the first label.
    all: Label,
    wanted: VecDeque<(What, Location)>,
    command_line: String,
    failed_at: Option<String>,
    steps: u32,
    scripts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The library is asked for.
    Library,
    /// Configurations are tried.
    Searching,
    /// Lines are read; an included file may be on its way.
    Reading,
    /// Kernel and initial RAM disks are fetched.
    Loading,
    Failed,
}

#[derive(Clone, Debug, Default)]
struct Label {
    name: String,
    kernel: Option<String>,
    initrds: Vec<String>,
    append: Option<String>,
    sysappend: u32,
    boots_locally: bool,
    is_default: bool,
}

impl Pxelinux {
    /// PXELINUX as loaded from there.
    pub fn new(loader: Location, client: Client) -> Pxelinux {
        let uuid = uuid::Uuid::from_bytes(client.uuid);
        let mac = client.mac.map(|byte| format!("{byte:02x}")).join("-");
        let hex = format!("{:08X}", u32::from(client.address));
        let mut candidates = VecDeque::from([uuid.to_string(), format!("01-{mac}")]);
        candidates.extend((1..=hex.len()).rev().filter_map(|length| hex.get(..length)).map(str::to_owned));
        candidates.push_back("default".to_owned());
        Pxelinux {
            client,
            loader,
            candidates,
            state: State::Library,
            lines: VecDeque::new(),
            labels: Vec::new(),
            default: None,
            all: Label::default(),
            wanted: VecDeque::new(),
            command_line: String::new(),
            failed_at: None,
            steps: 0,
            scripts: 0,
        }
    }

    /// Takes a configuration, or one included by it.
    pub fn take(&mut self, text: &str) -> Result<(), String> {
        self.scripts += 1;
        self.state = State::Reading;
        for line in text.lines().rev() {
            self.lines.push_front(line.trim().to_owned());
        }
        Ok(())
    }

    /// Tells how the step that `next` gave went.
    pub fn done(&mut self, outcome: Outcome) {
        match (self.state, outcome) {
            (State::Library, Outcome::Success) => self.state = State::Searching,
            // An included file that is not there is passed over.
            (State::Searching | State::Reading | State::Loading | State::Failed, Outcome::Success)
            | (State::Searching | State::Reading, Outcome::Failure) => {}
            (State::Library | State::Loading | State::Failed, Outcome::Failure) => self.state = State::Failed,
        }
    }

    /// Goes on to the next thing that needs the outside world.
    pub fn next(&mut self) -> Step {
        loop {
            self.steps += 1;
            if self.steps > SCRIPT_STEPS_MAX || self.scripts > SCRIPTS_WITHOUT_PAUSE_MAX {
                return Step::Failed(LOOPS.to_owned());
            }
            match self.state {
                State::Library => return self.fetch(What::Module, self.loader.beside("ldlinux.c32")),
                State::Searching => {
                    let Some(name) = self.candidates.pop_front() else {
                        return Step::Failed("no configuration found".to_owned());
                    };
                    return self.fetch(What::Script, self.loader.beside(&format!("pxelinux.cfg/{name}")));
                }
                State::Reading => {
                    let result = match self.lines.pop_front() {
                        Some(line) => self.read(&line),
                        None => self.choose(),
                    };
                    match result {
                        Ok(None) => {}
                        Ok(Some(step)) => return step,
                        Err(why) => return Step::Failed(why),
                    }
                }
                State::Loading => {
                    return match self.wanted.pop_front() {
                        Some((what, location)) => self.fetch(what, location),
                        None => Step::Boot(std::mem::take(&mut self.command_line)),
                    };
                }
                State::Failed => {
                    let name = self.failed_at.take().unwrap_or_default();
                    return Step::Failed(format!("script failed at `{name}`"));
                }
            }
        }
    }

    fn fetch(&mut self, what: What, location: Location) -> Step {
        self.failed_at = Some(location.file_name().to_owned());
        Step::Fetch(what, location)
    }

    /// One line of a configuration; keywords in any case.
    fn read(&mut self, line: &str) -> Result<Option<Step>, String> {
        if line.len() > SCRIPT_LINE_BYTES_MAX {
            return Err("line is too long".to_owned());
        }
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (keyword, rest) = (keyword.to_ascii_lowercase(), rest.trim());
        if keyword == "include" {
            let name = rest.split_whitespace().next().unwrap_or_default();
            let location = self.location(name)?;
            return Ok(Some(self.fetch(What::Script, location)));
        }
        let label = self.labels.last_mut().unwrap_or(&mut self.all);
        match keyword.as_str() {
            "default" => self.default = Some(rest.to_owned()),
            "label" => {
                let Label { append, sysappend, .. } = self.all.clone();
                let name = rest.to_owned();
                self.labels.push(Label { name, append, sysappend, ..Label::default() });
            }
            "kernel" | "linux" => label.kernel = Some(rest.to_owned()),
            "initrd" => label.initrds = rest.split(',').map(str::to_owned).collect(),
            "append" => label.append = Some(rest.to_owned()).filter(|append| append != "-"),
            "ipappend" | "sysappend" => label.sysappend = number(rest),
            "localboot" => label.boots_locally = true,
            "menu" if rest.eq_ignore_ascii_case("default") => label.is_default = true,
            "com32" | "boot" | "bss" | "pxe" | "fdimage" | "comboot" | "config" => {
                return Err(format!("`{keyword}` is not simulated"));
            }
            // What people see and what keys do; nobody is there to see it or to press one.
            _ => {}
        }
        Ok(None)
    }

    /// All lines are read: takes the default label, or the kernel that the default names.
    fn choose(&mut self) -> Result<Option<Step>, String> {
        let default = self.default.take().unwrap_or_default();
        let (name, arguments) = default.split_once(char::is_whitespace).unwrap_or((&default, ""));
        let is_menu = name.ends_with(".c32");
        let named = self.labels.iter().find(|label| label.name == name);
        let marked = self.labels.iter().find(|label| label.is_default);
        let label = match named.or(marked).or(self.labels.first().filter(|_| is_menu || name.is_empty())) {
            Some(label) => label.clone(),
            None if name.is_empty() => return Err(ENDED.to_owned()),
            None => Label { kernel: Some(name.to_owned()), name: name.to_owned(), ..self.all.clone() },
        };
        if label.boots_locally {
            return Ok(Some(Step::LocalDisk));
        }
        let kernel = label.kernel.unwrap_or(label.name);
        if kernel.ends_with(".c32") || kernel.ends_with(".0") {
            return Err(format!("kernel `{}` is not simulated", kernel.escape_debug()));
        }
        let mut words = vec![format!("BOOT_IMAGE={kernel}")];
        let mut initrds = label.initrds;
        let append = label.append.unwrap_or_default();
        for word in append.split_whitespace().chain(arguments.split_whitespace()) {
            // Where no INITRD line stands, this word names the files; it stays on the line as well.
            if let Some(names) = word.strip_prefix("initrd=").filter(|_| initrds.is_empty()) {
                initrds = names.split(',').map(str::to_owned).collect();
            }
            words.push(word.to_owned());
        }
        words.extend(self.system_words(label.sysappend));
        self.command_line = words.join(" ");
        self.wanted.push_back((What::Kernel, self.location(&kernel)?));
        for name in initrds {
            self.wanted.push_back((What::Initrd, self.location(&name)?));
        }
        self.state = State::Loading;
        Ok(None)
    }

    /// What SYSAPPEND adds, by its bits: 1 the address (of which we know but our own and the server), 2 the interface, 4 the UUID.
    fn system_words(&self, bits: u32) -> Vec<String> {
        let server = match &self.loader {
            Location::Http(url) => url.server.ip().to_string(),
            Location::Tftp(server, _) => server.to_string(),
        };
        let mac = self.client.mac.map(|byte| format!("{byte:02x}")).join("-");
        let words = [
            format!("ip={}:{server}::", self.client.address),
            format!("BOOTIF=01-{mac}"),
            format!("SYSUUID={}", uuid::Uuid::from_bytes(self.client.uuid)),
        ];
        words.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, word)| word).collect()
    }

    /// `http://…`, `tftp://…`, `ADDRESS::name`, `::name` and `/name` from the server's root, else beside the loader.
    fn location(&self, name: &str) -> Result<Location, String> {
        let told = || format!("file `{}` is not understood", name.escape_debug());
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(told());
        }
        if name.starts_with("http://") {
            return Url::parse(name).map(Location::Http).ok_or_else(told);
        }
        if name.contains("://") {
            return Location::parse(name, None).ok_or_else(told);
        }
        match name.split_once("::") {
            Some(("", name)) => Ok(self.loader.absolute(name)),
            Some((server, name)) => Ok(Location::Tftp(server.parse().map_err(|_| told())?, name.to_owned())),
            None if name.starts_with('/') => Ok(self.loader.absolute(name)),
            None => Ok(self.loader.beside(name)),
        }
    }
}

/// A number as C writes it.
fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn pxelinux(loader: &str) -> Pxelinux {
        let uuid = *b"\x18\x28\x3f\x60\x65\x43\xc5\x4aabcdefgh";
        Pxelinux::new(at(loader), Client { uuid, mac: [2, 0, 0, 0, 0, 0xab], address: Ipv4Addr::new(10, 0, 0, 9) })
    }

    fn name(step: &Step) -> String {
        match step {
            Step::Fetch(_, Location::Http(url)) => url.target.clone(),
            Step::Fetch(_, Location::Tftp(server, name)) => format!("{server} {name}"),
            other => panic!("{other:?}"),
        }
    }

    /// One that has its library and this configuration.
    fn follow(configuration: &str) -> Pxelinux {
        let mut pxelinux = pxelinux("tftp://10.0.0.1/boot/lpxelinux.0");
        pxelinux.next();
        pxelinux.done(Outcome::Success);
        pxelinux.next();
        pxelinux.take(configuration).unwrap();
        pxelinux
    }

    #[test]
    fn configurations_are_searched_from_the_uuid_to_the_default() {
        let mut pxelinux = pxelinux("tftp://10.0.0.1/boot/pxelinux.0");
        assert_eq!(name(&pxelinux.next()), "10.0.0.1 boot/ldlinux.c32");
        pxelinux.done(Outcome::Success);
        let mut names = Vec::new();
        loop {
            match pxelinux.next() {
                Step::Failed(why) => break assert_eq!(why, "no configuration found"),
                step => names.push(name(&step)),
            }
            pxelinux.done(Outcome::Failure);
        }
        let names: Vec<&str> =
            names.iter().map(|name| name.strip_prefix("10.0.0.1 boot/pxelinux.cfg/").unwrap()).collect();
        let expected = [
            // The octets as they stand, not as Linux would print the machine's UUID.
            "18283f60-6543-c54a-6162-636465666768",
            "01-02-00-00-00-00-ab",
            "0A000009",
            "0A00000",
            "0A0000",
            "0A000",
            "0A00",
            "0A0",
            "0A",
            "0",
            "default",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_default_label_is_booted() {
        let mut pxelinux = follow(
            "# comment\nDEFAULT linux\nPROMPT 0\nTIMEOUT 50\nLABEL local\n  LOCALBOOT 0\nLABEL linux\n  MENU LABEL Linux\n\
             KERNEL http://10.0.0.2:8080/k\n  APPEND initrd=i,/j,10.0.0.3::l quiet\n  IPAPPEND 2\n",
        );
        assert_eq!(pxelinux.next(), Step::Fetch(What::Kernel, at("http://10.0.0.2:8080/k")));
        for expected in ["10.0.0.1 boot/i", "10.0.0.1 /j", "10.0.0.3 l"] {
            pxelinux.done(Outcome::Success);
            assert_eq!(name(&pxelinux.next()), expected);
        }
        pxelinux.done(Outcome::Success);
        let line = "BOOT_IMAGE=http://10.0.0.2:8080/k initrd=i,/j,10.0.0.3::l quiet BOOTIF=01-02-00-00-00-00-ab";
        assert_eq!(pxelinux.next(), Step::Boot(line.to_owned()));
    }

    #[test]
    fn included_files_stand_where_they_are_named() {
        let mut pxelinux = follow("default x\ninclude more.cfg\nlabel y\n kernel /y\n");
        assert_eq!(name(&pxelinux.next()), "10.0.0.1 boot/more.cfg");
        pxelinux.take("label x\nlinux /x\ninitrd /a,/b\nappend q\n").unwrap();
        assert_eq!(name(&pxelinux.next()), "10.0.0.1 /x");
        pxelinux.done(Outcome::Success);
        assert_eq!(
            (name(&pxelinux.next()), name(&pxelinux.next())),
            ("10.0.0.1 /a".to_owned(), "10.0.0.1 /b".to_owned())
        );
        assert_eq!(pxelinux.next(), Step::Boot("BOOT_IMAGE=/x q".to_owned()));
    }

    #[test]
    fn other_ends() {
        assert_eq!(follow("default a\nlabel a\nlocalboot -1\n").next(), Step::LocalDisk);
        assert_eq!(follow("").next(), Step::Failed(ENDED.to_owned()));
        assert_eq!(name(&follow("default vmlinuz a=b\n").next()), "10.0.0.1 boot/vmlinuz");
        let menu = "default menu.c32\nlabel a\nkernel /a\nlabel b\nmenu default\nkernel /b\n";
        assert_eq!(name(&follow(menu).next()), "10.0.0.1 /b");
        let mut looping = follow("include x\n");
        while let Step::Fetch(What::Script, _) = looping.next() {
            looping.take("include x\n").unwrap();
        }
        assert_eq!(looping.next(), Step::Failed(LOOPS.to_owned()));
        let mut missing = follow("default a\nlabel a\nkernel /k\n");
        missing.next();
        missing.done(Outcome::Failure);
        assert_eq!(missing.next(), Step::Failed("script failed at `k`".to_owned()));
    }
}
