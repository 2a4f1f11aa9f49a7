//! Follows PXELINUX: its own library, the search for a configuration, its menu, the default label, kernel and initial RAM disks
//! (Syslinux wiki, “PXELINUX”, “Config” and “Menu”; the order of what is fetched as seen from pxelinux and vesamenu.c32 6.04 of
//! Debian 12 in a guest, by the names that they asked dnsmasq for).
//!
//! At a menu and at a prompt nobody is there: what a press of Enter chooses is chosen.

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

/// What menu.c32 and vesamenu.c32 are linked with.
const MENU_LIBRARIES: [&str; 2] = ["libcom32.c32", "libutil.c32"];

/// A node's PXELINUX.
#[derive(Clone, Debug)]
pub struct Pxelinux {
    client: Client,
    loader: Location,
    /// Configurations still to be tried.
    candidates: VecDeque<String>,
    state: State,
    lines: VecDeque<String>,
    /// Where the configuration at hand came from: a menu reads it again.
    configuration: Option<Location>,
    labels: Vec<Label>,
    default: Option<String>,
    on_timeout: Option<String>,
    has_timeout: bool,
    /// Folders that libraries are looked for in, `PATH`.
    folders: Vec<String>,
    /// Menus that stand inside each other at the line at hand.
    depth: usize,
    /// Whether free text is being passed over, up to `ENDTEXT`.
    is_text: bool,
    /// Whether the menu itself runs, which then has read the configuration.
    in_menu: bool,
    /// The picture behind the menu.
    picture: Option<String>,
    /// Libraries of the menu still to be found, with where they may still be.
    libraries: VecDeque<(String, VecDeque<Location>)>,
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
    /// The menu and its libraries are fetched.
    Menu,
    /// The menu's picture is; it does without.
    Picture,
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
    /// A configuration that it goes on with.
    config: Option<String>,
    /// What starts it, where that is none of what is simulated.
    other: Option<String>,
    /// How many menus it is inside of.
    depth: usize,
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
            configuration: None,
            labels: Vec::new(),
            default: None,
            on_timeout: None,
            has_timeout: false,
            folders: Vec::new(),
            depth: 0,
            is_text: false,
            in_menu: false,
            picture: None,
            libraries: VecDeque::new(),
            all: Label::default(),
            wanted: VecDeque::new(),
            command_line: String::new(),
            failed_at: None,
            steps: 0,
            scripts: 0,
        }
    }

    /// Takes a configuration, or one included by it.
    pub fn take(&mut self, from: Location, text: &str) -> Result<(), String> {
        self.scripts += 1;
        if self.state == State::Searching {
            self.configuration = Some(from);
        }
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
            (State::Menu, Outcome::Success) => drop(self.libraries.pop_front()),
            (State::Picture, _) => self.state = State::Reading,
            // An included file that is not there is passed over; a library may be elsewhere.
            (State::Searching | State::Reading | State::Loading | State::Failed, Outcome::Success)
            | (State::Searching | State::Reading | State::Menu, Outcome::Failure) => {}
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
                State::Menu => match self.library() {
                    Some(step) => return step,
                    None => continue,
                },
                State::Picture => {
                    let picture = self.picture.take().unwrap_or_default();
                    match self.location(&picture) {
                        Ok(location) => return self.fetch(What::Module, location),
                        Err(_) => self.state = State::Reading,
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

    /// The next library to be fetched; with the last, the menu reads the configuration again.
    fn library(&mut self) -> Option<Step> {
        let Some((name, places)) = self.libraries.front_mut() else {
            let Some(configuration) = self.configuration.clone() else {
                return Some(Step::Failed("menu without a configuration".to_owned()));
            };
            self.in_menu = true;
            self.begin();
            self.state = State::Reading;
            return Some(self.fetch(What::Script, configuration));
        };
        match places.pop_front() {
            Some(place) => Some(self.fetch(What::Module, place)),
            None => Some(Step::Failed(format!("script failed at `{}`", name.escape_debug()))),
        }
    }

    /// Forgets what a configuration said.
    fn begin(&mut self) {
        self.labels.clear();
        self.all = Label::default();
        self.default = None;
        self.on_timeout = None;
        self.has_timeout = false;
        self.depth = 0;
        self.is_text = false;
        self.picture = None;
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
        if self.is_text {
            self.is_text = keyword != "endtext";
            return Ok(None);
        }
        // `MENU INCLUDE` is read by the menu only.
        let included = match (keyword.as_str(), rest.split_once(char::is_whitespace)) {
            ("include", _) => Some(rest),
            ("menu", Some((word, file))) if word.eq_ignore_ascii_case("include") && self.in_menu => Some(file),
            _ => None,
        };
        if let Some(name) = included {
            let name = name.split_whitespace().next().unwrap_or_default();
            let location = self.location(name)?;
            return Ok(Some(self.fetch(What::Script, location)));
        }
        if keyword == "menu" {
            self.read_menu(rest);
            return Ok(None);
        }
        let label = self.labels.last_mut().unwrap_or(&mut self.all);
        match keyword.as_str() {
            "default" => self.default = Some(rest.to_owned()),
            "ontimeout" => self.on_timeout = Some(rest.to_owned()),
            "timeout" => self.has_timeout = number(rest) > 0,
            "path" => self.folders = rest.split(':').map(|folder| folder.trim_end_matches('/').to_owned()).collect(),
            "text" => self.is_text = rest.eq_ignore_ascii_case("help"),
            "label" => {
                let Label { append, sysappend, .. } = self.all.clone();
                let name = rest.to_owned();
                self.labels.push(Label { name, append, sysappend, depth: self.depth, ..Label::default() });
            }
            "kernel" | "linux" => label.kernel = Some(rest.to_owned()),
            "initrd" => label.initrds = rest.split(',').map(str::to_owned).collect(),
            "append" => label.append = Some(rest.to_owned()).filter(|append| append != "-"),
            "ipappend" | "sysappend" => label.sysappend = number(rest),
            "localboot" => label.boots_locally = true,
            "config" => label.config = rest.split_whitespace().next().map(str::to_owned),
            "com32" | "boot" | "bss" | "pxe" | "fdimage" | "comboot" => label.other = Some(keyword),
            // What people see and what keys do; nobody is there to see it or to press one.
            _ => {}
        }
        Ok(None)
    }

    /// A `MENU` line.
    fn read_menu(&mut self, rest: &str) {
        let (word, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match word.to_ascii_lowercase().as_str() {
            "begin" => self.depth += 1,
            "end" => self.depth = self.depth.saturating_sub(1),
            // A colour instead of a picture starts with `#`.
            "background" if self.depth == 0 && !value.starts_with('#') => self.picture = Some(value.trim().to_owned()),
            "default" => {
                if let Some(label) = self.labels.last_mut() {
                    label.is_default = true;
                }
            }
            _ => {}
        }
    }

    /// All lines are read: takes the default label, or the kernel that the default names. A menu is started, reads them
    /// again, and takes that of its first page which it marks, or the first.
    fn choose(&mut self) -> Result<Option<Step>, String> {
        let on_timeout = self.on_timeout.take().filter(|_| self.has_timeout);
        let default = on_timeout.or_else(|| self.default.take()).unwrap_or_default();
        let (name, arguments) = default.split_once(char::is_whitespace).unwrap_or((&default, ""));
        let named = self.labels.iter().find(|label| label.name == name);
        let of_page = || self.labels.iter().filter(|label| label.depth == 0);
        let marked = of_page().find(|label| label.is_default);
        let label = match (named, self.in_menu) {
            (Some(label), _) => label.clone(),
            (None, true) => marked.or(of_page().next()).cloned().ok_or(ENDED)?,
            (None, false) if name.is_empty() => return Err(ENDED.to_owned()),
            (None, false) => Label { kernel: Some(name.to_owned()), name: name.to_owned(), ..self.all.clone() },
        };
        if self.in_menu && self.picture.is_some() {
            // It is there before anything can be chosen; then all is as it was.
            self.default = Some(default.clone());
            self.state = State::Picture;
            return Ok(None);
        }
        if label.boots_locally {
            return Ok(Some(Step::LocalDisk));
        }
        if let Some(what) = label.other {
            return Err(format!("`{what}` is not simulated"));
        }
        if let Some(config) = label.config {
            let location = self.location(&config)?;
            self.begin();
            self.in_menu = false;
            self.configuration = Some(location.clone());
            return Ok(Some(self.fetch(What::Script, location)));
        }
        let kernel = label.kernel.unwrap_or(label.name);
        let file = kernel.rsplit('/').next().unwrap_or_default();
        if matches!(file, "menu.c32" | "vesamenu.c32") {
            if self.in_menu {
                return Err(format!("menu `{}` in a menu is not simulated", kernel.escape_debug()));
            }
            // A file named behind it is the menu's own configuration.
            let append = label.append.unwrap_or_default();
            if let Some(own) = arguments.split_whitespace().chain(append.split_whitespace()).next() {
                self.configuration = Some(self.location(own)?);
            }
            self.start_menu(&kernel)?;
            return Ok(None);
        }
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

    /// Asks for the menu, then for its libraries: beside the loader, then in the folders of `PATH`.
    fn start_menu(&mut self, file: &str) -> Result<(), String> {
        let mut libraries = VecDeque::from([(file.to_owned(), VecDeque::from([self.location(file)?]))]);
        for library in MENU_LIBRARIES {
            let mut places = VecDeque::from([self.loader.beside(library)]);
            for folder in &self.folders {
                places.push_back(self.location(&format!("{folder}/{library}"))?);
            }
            libraries.push_back((library.to_owned(), places));
        }
        self.libraries = libraries;
        self.state = State::Menu;
        Ok(())
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
        take(&mut pxelinux, configuration);
        pxelinux
    }

    fn take(pxelinux: &mut Pxelinux, text: &str) {
        pxelinux.take(at("tftp://10.0.0.1/boot/pxelinux.cfg/default"), text).unwrap();
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
        take(&mut pxelinux, "label x\nlinux /x\ninitrd /a,/b\nappend q\n");
        assert_eq!(name(&pxelinux.next()), "10.0.0.1 /x");
        pxelinux.done(Outcome::Success);
        assert_eq!(
            (name(&pxelinux.next()), name(&pxelinux.next())),
            ("10.0.0.1 /a".to_owned(), "10.0.0.1 /b".to_owned())
        );
        assert_eq!(pxelinux.next(), Step::Boot("BOOT_IMAGE=/x q".to_owned()));
    }

    /// The installer of Debian 12, as a real vesamenu.c32 read it: loadgen's first PXELINUX took the dark theme of a submenu,
    /// which is marked as that page's default, and stopped at a label that nobody chooses.
    #[test]
    fn a_menu_is_started_and_reads_the_configuration_itself() {
        let configuration = "path screens/\nprompt 0\ntimeout 0\nmenu background screens/splash.png\ninclude txt.cfg\n\
             menu begin dark\n menu title Dark\n label dark\n default dark\n menu default\n kernel /dark\nmenu end\n\
             label help\n text help\n   kernel of the matter\n endtext\n config prompt.cfg\ndefault screens/vesamenu.c32\n";
        let mut pxelinux = follow(configuration);
        let mut names = Vec::new();
        loop {
            let step = pxelinux.next();
            if let Step::Boot(line) = step {
                break assert_eq!(line, "BOOT_IMAGE=linux initrd=i --- quiet");
            }
            let name = name(&step).replace("10.0.0.1 boot/", "");
            names.push(name.clone());
            match name.as_str() {
                "pxelinux.cfg/default" => take(&mut pxelinux, configuration),
                "txt.cfg" => take(&mut pxelinux, "label install\nkernel linux\nappend initrd=i --- quiet\n"),
                "libcom32.c32" | "libutil.c32" => pxelinux.done(Outcome::Failure),
                _ => pxelinux.done(Outcome::Success),
            }
        }
        let expected = [
            "txt.cfg",
            "screens/vesamenu.c32",
            "libcom32.c32",
            "screens/libcom32.c32",
            "libutil.c32",
            "screens/libutil.c32",
            "pxelinux.cfg/default",
            "txt.cfg",
            "screens/splash.png",
            "linux",
            "i",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_menus_mark_a_timeout_and_a_further_configuration_are_heeded() {
        let menu = "default menu.c32\nlabel a\nkernel /a\nlabel b\nmenu default\nkernel /b\n";
        let mut marked = follow(menu);
        for library in ["boot/menu.c32", "boot/libcom32.c32", "boot/libutil.c32"] {
            assert_eq!(name(&marked.next()), format!("10.0.0.1 {library}"));
            marked.done(Outcome::Success);
        }
        assert_eq!(name(&marked.next()), "10.0.0.1 boot/pxelinux.cfg/default");
        take(&mut marked, menu);
        assert_eq!(name(&marked.next()), "10.0.0.1 /b");
        let timeout = "default a\nontimeout b\ntimeout 50\nlabel a\nkernel /a\nlabel b\nkernel /b\n";
        assert_eq!(name(&follow(timeout).next()), "10.0.0.1 /b");
        assert_eq!(name(&follow(&timeout.replace("50", "0")).next()), "10.0.0.1 /a");
        let mut further = follow("default a\nlabel a\nconfig /other.cfg\n");
        assert_eq!(name(&further.next()), "10.0.0.1 /other.cfg");
        take(&mut further, "default c\nlabel c\nlinux /c\n");
        assert_eq!(name(&further.next()), "10.0.0.1 /c");
        assert!(matches!(follow("default a\nlabel a\npxe x.0\n").next(), Step::Failed(why) if why.contains("`pxe`")));
        let mut gone = follow("default menu.c32\nlabel a\nkernel /a\n");
        while matches!(gone.next(), Step::Fetch(..)) {
            gone.done(Outcome::Failure);
        }
        assert_eq!(gone.next(), Step::Failed("script failed at `menu.c32`".to_owned()));
    }

    #[test]
    fn other_ends() {
        assert_eq!(follow("default a\nlabel a\nlocalboot -1\n").next(), Step::LocalDisk);
        assert_eq!(follow("").next(), Step::Failed(ENDED.to_owned()));
        assert_eq!(name(&follow("default vmlinuz a=b\n").next()), "10.0.0.1 boot/vmlinuz");
        let mut looping = follow("include x\n");
        while let Step::Fetch(What::Script, _) = looping.next() {
            take(&mut looping, "include x\n");
        }
        assert_eq!(looping.next(), Step::Failed(LOOPS.to_owned()));
        let mut missing = follow("default a\nlabel a\nkernel /k\n");
        missing.next();
        missing.done(Outcome::Failure);
        assert_eq!(missing.next(), Step::Failed("script failed at `k`".to_owned()));
    }
}
