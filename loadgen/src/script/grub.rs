//! Follows GRUB's way over the network: the parts that shim and GRUB ask for, `grub.cfg`, further configurations, the
//! default entry of the menu, kernel and initial RAM disks (GRUB manual §5.7, §6, §16; the rest as seen from Debian 12's
//! GRUB 2.06 and shim 16.1 in guests, by the names that they asked dnsmasq for).
//!
//! A GRUB that loads its modules from the network (`grub-mknetdir`) fetches those that `command.lst` names for a command or
//! `insmod` names, and what they in turn say that they depend on.

mod commands;
mod module;
mod syntax;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use self::syntax::{Piece, Statement, Word};
use super::{ENDED, LOOPS, Location, Outcome, Step, Url, What};
use crate::limits::{
    MODULES_MAX, SCRIPT_DEPTH_MAX, SCRIPT_LINE_BYTES_MAX, SCRIPT_STEPS_MAX, SCRIPT_VARIABLES_MAX,
    SCRIPTS_WITHOUT_PAUSE_MAX,
};

/// What shim asks for before GRUB, and does without (shim 15.8 and later).
const SHIM_FILES: [&str; 3] = ["revocations_sku.efi", "revocations_sbat.efi", "shim_certificate_0.efi"];
/// What GRUB asks for before its configuration, and does without; before them `command.lst`.
const LISTS: [&str; 3] = ["fs.lst", "crypto.lst", "terminal.lst"];
/// Modules in the image that grub-mknetdir makes: of the network, and what they depend on.
const IN_IMAGE: [&str; 8] = ["boot", "bufio", "datetime", "efinet", "net", "priority_queue", "pxe", "tftp"];
/// What GRUB sets for configurations to ask for.
const FEATURES: [&str; 9] = [
    "feature_200_final",
    "feature_all_video_module",
    "feature_chainloader_bpb",
    "feature_default_font_path",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_nativedisk_cmd",
    "feature_ntldr",
    "feature_platform_search_hint",
];

/// A node's GRUB.
#[derive(Clone, Debug)]
pub struct Grub {
    variables: BTreeMap<String, String>,
    /// Those that a configuration of its own (`configfile`) sees, beside what GRUB itself sets.
    exported: BTreeSet<String>,
    functions: BTreeMap<String, Vec<Statement>>,
    /// Where GRUB itself came from.
    loader: Location,
    /// Where its modules are; `None` where all are built in, as in signed ones.
    modules: Option<String>,
    /// Modules by the command that needs them.
    commands: BTreeMap<String, String>,
    loaded: BTreeSet<String>,
    /// The configuration to begin with.
    configuration: Location,
    /// Whether files that `test -s` asked for are there.
    probed: BTreeMap<String, bool>,
    /// Still to be fetched before the script goes on.
    wanted: VecDeque<Wanted>,
    /// What the last fetch is for, until its outcome is told.
    pending: Option<Wanted>,
    /// Whether the configuration was asked for.
    has_begun: bool,
    frames: Vec<Frame>,
    status: Outcome,
    command_line: Option<String>,
    /// What failed last, for the report.
    failed_at: Option<String>,
    steps: u32,
    scripts: u32,
}

#[derive(Clone, Debug)]
struct Wanted {
    location: Location,
    role: Role,
}

/// What a file is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// A part of the loader that it does without.
    Part,
    /// A part of the loader that must be there.
    Loader,
    /// A module, of which it does without.
    Module(String),
    /// Which command is in which module.
    Commands,
    /// A configuration of this machine's own, if it is there.
    Candidate,
    /// Its outcome is the command's.
    Status,
    /// `test -s` on this name.
    Probe(String),
    Kernel,
    Initrd,
    /// A configuration, in the midst of the one at hand.
    Source,
    /// A configuration, with a menu and variables of its own.
    Configuration,
}

/// Statements being worked through.
#[derive(Clone, Debug)]
struct Frame {
    statements: VecDeque<Statement>,
    kind: Kind,
}

/// What happens at their end.
#[derive(Clone, Debug)]
enum Kind {
    /// Nothing.
    Block,
    /// The menu is shown, if there are entries; then the variables from before are back.
    Configuration { menu: Vec<Entry>, saved: BTreeMap<String, String> },
    /// What is loaded is started; if nothing is, the next of these has its turn.
    Entry { fallback: VecDeque<Entry> },
    /// The arguments from before are back.
    Function { arguments: Vec<Option<String>> },
    /// They are the condition of the first arm.
    Condition { body: Vec<Statement>, rest: VecDeque<(Vec<Statement>, Vec<Statement>)>, otherwise: Vec<Statement> },
    /// They are the condition, or one round.
    While { condition: Vec<Statement>, body: Vec<Statement>, until: bool, in_body: bool },
    /// They are one round; there is one more for each value.
    For { name: String, values: VecDeque<String>, body: Vec<Statement> },
}

#[derive(Clone, Debug)]
struct Entry {
    title: String,
    id: Option<String>,
    is_submenu: bool,
    body: Vec<Statement>,
}

/// Positional parameters that a function has by a name of one digit.
const ARGUMENTS: usize = 9;

impl Grub {
    /// GRUB as loaded from there; through shim if the file's name says so. `variables` are those that the network sets
    /// (`net_default_mac` and so on), `platform` such as `x86_64-efi`. `prefix` is the folder of its configuration, which is
    /// built into a real one; without it, what [`usual_prefix`] says.
    pub fn new(
        loader: Location,
        platform: &str,
        prefix: Option<&str>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Grub {
        let (device, path) = match &loader {
            Location::Http(url) => (format!("http,{}", url.server), url.target.clone()),
            Location::Tftp(server, name) => (format!("tftp,{server}"), name.clone()),
        };
        let prefix = prefix.map_or_else(|| usual_prefix(&path), str::to_owned);
        let mut variables: BTreeMap<String, String> = variables.into_iter().collect();
        let mac = variables.get("net_default_mac").map(|mac| mac.replace(':', "-")).unwrap_or_default();
        let address = variables.get("net_default_ip").and_then(|address| address.parse::<Ipv4Addr>().ok());
        let (cpu, firmware) = platform.split_once('-').unwrap_or((platform, ""));
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (name, value) in [
            ("grub_cpu", cpu.to_owned()),
            ("grub_platform", firmware.to_owned()),
            ("root", device.clone()),
            ("prefix", format!("({device}){prefix}")),
            ("cmdpath", format!("({device}){folder}")),
            ("menuentry_id_option", "--id".to_owned()),
        ] {
            variables.insert(name.to_owned(), value);
        }
        variables.extend(FEATURES.map(|name| (name.to_owned(), "y".to_owned())));

        let mut wanted = VecDeque::new();
        let mut want = |location, role| wanted.push_back(Wanted { location, role });
        let name = loader.file_name();
        if ["shim", "bootnet", "bootx64"].iter().any(|start| name.starts_with(start)) {
            SHIM_FILES.iter().for_each(|name| want(loader.beside(name), Role::Part));
            want(loader.beside("grubx64.efi"), Role::Loader);
        }
        let modules = name.starts_with("core.").then(|| format!("{prefix}/{platform}"));
        if let Some(folder) = &modules {
            // The first runs what follows, and loads the other by itself.
            for module in ["normal", "gzio"] {
                want(loader.absolute(&format!("{folder}/{module}.mod")), Role::Module(module.to_owned()));
            }
            // Debian's signed GRUB has a configuration built in that names this one; others look for the machine's own first,
            // where they came by TFTP.
            if matches!(loader, Location::Tftp(..)) {
                let hex = address.map(|address| format!("{:08X}", u32::from(address))).unwrap_or_default();
                let shorter = (1..=hex.len()).rev().filter_map(|length| hex.get(..length)).map(str::to_owned);
                std::iter::once(format!("01-{mac}"))
                    .chain(shorter)
                    .for_each(|suffix| want(loader.absolute(&format!("{prefix}/grub.cfg-{suffix}")), Role::Candidate));
            }
        }
        want(loader.absolute(&format!("{prefix}/{platform}/command.lst")), Role::Commands);
        LISTS.iter().for_each(|name| want(loader.absolute(&format!("{prefix}/{platform}/{name}")), Role::Part));
        let configuration = loader.absolute(&format!("{prefix}/grub.cfg"));
        let exported = variables.keys().cloned().collect();
        Grub {
            variables,
            exported,
            functions: BTreeMap::new(),
            loader,
            modules,
            commands: BTreeMap::new(),
            loaded: BTreeSet::new(),
            configuration,
            probed: BTreeMap::new(),
            wanted,
            pending: None,
            has_begun: false,
            frames: Vec::new(),
            status: Outcome::Success,
            command_line: None,
            failed_at: None,
            steps: 0,
            scripts: 0,
        }
    }

    /// Takes a configuration, or the list of commands.
    pub fn take(&mut self, text: &str) -> Result<(), String> {
        match self.pending.take().map(|wanted| wanted.role) {
            Some(Role::Commands) => {
                let pair = |line: &str| {
                    let (command, module) = line.trim_start_matches('*').split_once(':')?;
                    Some((command.trim().to_owned(), module.trim().to_owned()))
                };
                self.commands = text.lines().filter_map(pair).collect();
                Ok(())
            }
            Some(Role::Source) => {
                self.scripts += 1;
                self.enter(syntax::parse(text)?, Kind::Block)
            }
            Some(Role::Configuration) => {
                self.scripts += 1;
                self.open(syntax::parse(text)?)
            }
            other => Err(format!("a script came for {other:?}")),
        }
    }

    /// Takes a module if one was asked for; what it depends on is fetched before all else.
    pub fn take_module(&mut self, bytes: &[u8]) -> bool {
        let Some(Wanted { role: Role::Module(_), .. }) = &self.pending else { return false };
        self.pending = None;
        for name in module::dependencies(bytes).into_iter().rev() {
            if let Some(wanted) = self.module_named(&name).filter(|_| self.wanted.len() < MODULES_MAX) {
                self.wanted.push_front(wanted);
            }
        }
        true
    }

    fn enter(&mut self, statements: Vec<Statement>, kind: Kind) -> Result<(), String> {
        if self.frames.len() >= SCRIPT_DEPTH_MAX {
            return Err(LOOPS.to_owned());
        }
        self.frames.push(Frame { statements: statements.into(), kind });
        Ok(())
    }

    /// Enters a configuration or a submenu, which has a menu and variables of its own.
    fn open(&mut self, statements: Vec<Statement>) -> Result<(), String> {
        let mut saved = None;
        // One that has nothing left to do is not come back to, so that a configuration may go on with itself for ever.
        while let Some(frame) = self.frames.pop_if(|frame| frame.is_spent()) {
            if let Kind::Configuration { saved: before, .. } = frame.kind {
                saved = Some(before);
            }
        }
        let exported = &self.exported;
        let seen = self.variables.iter().filter(|(name, _)| exported.contains(*name));
        let seen = seen.map(|(name, value)| (name.clone(), value.clone())).collect();
        let before = std::mem::replace(&mut self.variables, seen);
        self.enter(statements, Kind::Configuration { menu: Vec::new(), saved: saved.unwrap_or(before) })
    }

    /// Tells how the step that `next` gave went.
    pub fn done(&mut self, outcome: Outcome) {
        let Some(Wanted { location, role }) = self.pending.take() else {
            self.status = outcome;
            return;
        };
        match (role, outcome) {
            // The first module is GRUB's own normal mode: nothing goes on without it.
            (Role::Module(name), Outcome::Failure) if name == "normal" => {
                self.has_begun = true;
                self.wanted.clear();
                self.failed_at = Some(location.file_name().to_owned());
            }
            (Role::Part | Role::Module(_) | Role::Commands, _)
            | (Role::Candidate, Outcome::Failure)
            | (Role::Loader, Outcome::Success) => {}
            (Role::Candidate, Outcome::Success) => {
                self.wanted.retain(|wanted| wanted.role != Role::Candidate);
                self.configuration = location;
            }
            (Role::Probe(name), _) => drop(self.probed.insert(name, outcome == Outcome::Success)),
            (Role::Status | Role::Kernel | Role::Initrd, Outcome::Success) | (Role::Status, Outcome::Failure) => {
                self.status = outcome;
            }
            // A configuration that is not there is no failure to GRUB 2.06: `$?` is 0. Where it was the first, nothing is left.
            (Role::Source | Role::Configuration, Outcome::Success) => {}
            (Role::Source | Role::Configuration, Outcome::Failure) => {
                self.failed_at = Some(location.file_name().to_owned());
            }
            (Role::Loader, Outcome::Failure) => {
                self.has_begun = true;
                self.wanted.clear();
                self.failed_at = Some(location.file_name().to_owned());
            }
            // Who waits for a machine wants to know that its initial RAM disk did not come, whatever GRUB starts without it.
            (Role::Kernel | Role::Initrd, Outcome::Failure) => {
                self.wanted.clear();
                self.command_line = None;
                self.status = outcome;
                self.failed_at = Some(location.file_name().to_owned());
            }
        }
    }

    /// Goes on to the next thing that needs the outside world.
    pub fn next(&mut self) -> Step {
        loop {
            self.steps += 1;
            if self.steps > SCRIPT_STEPS_MAX || self.scripts > SCRIPTS_WITHOUT_PAUSE_MAX {
                return Step::Failed(LOOPS.to_owned());
            }
            if self.wanted.is_empty() && !self.has_begun {
                self.has_begun = true;
                self.wanted.push_back(Wanted { location: self.configuration.clone(), role: Role::Configuration });
            }
            if let Some(wanted) = self.wanted.pop_front() {
                // Another may have needed it before.
                if let Role::Module(name) = &wanted.role
                    && !self.loaded.insert(name.clone())
                {
                    continue;
                }
                let what = match &wanted.role {
                    Role::Commands | Role::Source | Role::Configuration => What::Script,
                    Role::Kernel => What::Kernel,
                    Role::Initrd => What::Initrd,
                    Role::Module(_) => What::Library,
                    Role::Part | Role::Loader | Role::Candidate | Role::Status | Role::Probe(_) => What::Module,
                };
                let location = wanted.location.clone();
                self.pending = Some(wanted);
                return Step::Fetch(what, location);
            }
            let Some(frame) = self.frames.last_mut() else {
                return Step::Failed(match self.failed_at.take() {
                    Some(name) => format!("script failed at `{name}`"),
                    None => ENDED.to_owned(),
                });
            };
            let result = match frame.statements.pop_front() {
                Some(statement) => self.run(statement),
                None => self.leave(),
            };
            match result {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(why) => return Step::Failed(why),
            }
        }
    }

    /// The end of a frame's statements.
    fn leave(&mut self) -> Result<Option<Step>, String> {
        let Some(Frame { kind, .. }) = self.frames.pop() else { return Ok(None) };
        let holds = self.status == Outcome::Success;
        match kind {
            Kind::Block => {}
            Kind::Function { arguments } => self.restore(arguments),
            Kind::Configuration { menu, saved } if menu.is_empty() => self.variables = saved,
            Kind::Configuration { menu, .. } => self.choose(menu)?,
            Kind::Entry { .. } if self.command_line.is_some() => return Ok(self.boot()),
            Kind::Entry { mut fallback } => {
                if let Some(entry) = fallback.pop_front() {
                    self.open_entry(entry, fallback)?;
                }
            }
            Kind::Condition { body, .. } if holds => self.enter(body, Kind::Block)?,
            Kind::Condition { mut rest, otherwise, .. } => match rest.pop_front() {
                Some((condition, body)) => self.enter(condition, Kind::Condition { body, rest, otherwise })?,
                None => self.enter(otherwise, Kind::Block)?,
            },
            Kind::While { condition, body, until, in_body: false } => {
                if holds != until {
                    self.enter(body.clone(), Kind::While { condition, body, until, in_body: true })?;
                }
            }
            Kind::While { condition, body, until, in_body: true } => {
                self.enter(condition.clone(), Kind::While { condition, body, until, in_body: false })?;
            }
            Kind::For { name, mut values, body } => {
                if let Some(value) = values.pop_front() {
                    self.set(&name, &value)?;
                    self.enter(body.clone(), Kind::For { name, values, body })?;
                }
            }
        }
        Ok(None)
    }

    /// The menu is shown, nobody presses a key, and its default is taken. Nothing comes back from there.
    fn choose(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        self.frames.clear();
        let default = self.variables.get("default").cloned().unwrap_or_default();
        // Such as `1>2`: the third entry of the second, which is a submenu.
        let (chosen, inner) = default.split_once('>').unwrap_or((&default, ""));
        let find = |chosen: &str| {
            let named = |entry: &&Entry| entry.title == chosen || entry.id.as_deref() == Some(chosen);
            match chosen.parse::<usize>() {
                Ok(index) => entries.get(index).cloned(),
                Err(_) => entries.iter().find(named).cloned(),
            }
        };
        let is_number = chosen.parse::<usize>().is_ok();
        let Some(entry) = find(chosen).or_else(|| entries.first().filter(|_| !is_number).cloned()) else {
            return Err("menu has no such entry".to_owned());
        };
        let fallback = self.variables.get("fallback").map(String::as_str).unwrap_or_default();
        let fallback = fallback.split_whitespace().filter_map(find).collect();
        self.variables.insert("chosen".to_owned(), entry.title.clone());
        if entry.is_submenu {
            let inner = inner.to_owned();
            self.open(entry.body)?;
            self.variables.insert("default".to_owned(), inner);
            return Ok(());
        }
        self.open_entry(entry, fallback)
    }

    fn open_entry(&mut self, entry: Entry, fallback: VecDeque<Entry>) -> Result<(), String> {
        self.enter(entry.body, Kind::Entry { fallback })
    }

    fn run(&mut self, statement: Statement) -> Result<Option<Step>, String> {
        match statement {
            Statement::Command(words) => return self.command(words),
            Statement::Entry(words, body) => self.add_entry(&words, body)?,
            Statement::If(arms, otherwise) => {
                let mut rest = VecDeque::from(arms);
                if let Some((condition, body)) = rest.pop_front() {
                    self.enter(condition, Kind::Condition { body, rest, otherwise })?;
                }
            }
            Statement::While { condition, body, until } => {
                self.enter(condition.clone(), Kind::While { condition, body, until, in_body: false })?;
            }
            Statement::For(name, words, body) => {
                let values = self.words(&words)?.into();
                self.enter(Vec::new(), Kind::For { name, values, body })?;
            }
            Statement::Function(name, body) => {
                if self.functions.len() >= SCRIPT_VARIABLES_MAX {
                    return Err("too many functions".to_owned());
                }
                self.functions.insert(name, body);
            }
        }
        Ok(None)
    }

    fn add_entry(&mut self, words: &[Word], body: Vec<Statement>) -> Result<(), String> {
        let words = self.words(words)?;
        let mut id = None;
        let mut title = None;
        let mut rest = words.iter().skip(1);
        while let Some(word) = rest.next() {
            match word.as_str() {
                "--id" => id = rest.next().cloned(),
                "--class" | "--users" | "--hotkey" | "--source" => drop(rest.next()),
                option if option.starts_with("--") => {}
                _ if title.is_none() => title = Some(word.clone()),
                _ => {}
            }
        }
        let is_submenu = words.first().is_some_and(|word| word == "submenu");
        let entry = Entry { title: title.unwrap_or_default(), id, is_submenu, body };
        let menus = self.frames.iter_mut().rev().find_map(|frame| match &mut frame.kind {
            Kind::Configuration { menu, .. } => Some(menu),
            _ => None,
        });
        if let Some(menu) = menus {
            menu.push(entry);
        }
        Ok(())
    }

    fn command(&mut self, statement: Vec<Word>) -> Result<Option<Step>, String> {
        let words = self.words(&statement)?;
        let is_negated = words.first().is_some_and(|word| word == "!");
        let Some((name, arguments)) = words.get(usize::from(is_negated)..).and_then(<[String]>::split_first) else {
            return Ok(None);
        };
        if let Some(body) = self.functions.get(name).cloned() {
            self.call(body, arguments)?;
            return Ok(None);
        }
        // What is needed first is fetched; then the command has its turn again.
        if let Some(wanted) = self.module(name).or_else(|| self.probe(name, arguments)) {
            self.wanted.push_back(wanted);
            if let Some(frame) = self.frames.last_mut() {
                frame.statements.push_front(Statement::Command(statement));
            }
            return Ok(None);
        }
        self.status = Outcome::Success;
        let step = self.execute(name, arguments)?;
        if is_negated {
            if self.wanted.iter().any(|wanted| wanted.role == Role::Status) {
                return Err(format!("`!` before `{}` is not simulated", name.escape_debug()));
            }
            self.status = match self.status {
                Outcome::Success => Outcome::Failure,
                Outcome::Failure => Outcome::Success,
            };
        }
        Ok(step)
    }

    /// The module that this command is in, if it is still to be fetched.
    fn module(&self, command: &str) -> Option<Wanted> {
        self.module_named(self.commands.get(command)?)
    }

    fn module_named(&self, module: &str) -> Option<Wanted> {
        let folder = self.modules.as_ref()?;
        if self.loaded.len() >= MODULES_MAX || IN_IMAGE.contains(&module) || self.loaded.contains(module) {
            return None;
        }
        let location = self.loader.absolute(&format!("{folder}/{module}.mod"));
        Some(Wanted { location, role: Role::Module(module.to_owned()) })
    }

    /// A file whose existence a `test -s` depends on and that was not looked for yet. By `-e` and `-f` GRUB finds nothing on a
    /// network: it would have to list folders.
    fn probe(&self, command: &str, arguments: &[String]) -> Option<Wanted> {
        if !matches!(command, "[" | "test") {
            return None;
        }
        let asked = arguments.windows(2).filter(|pair| pair.first().is_some_and(|word| word == "-s"));
        let name = asked.filter_map(|pair| pair.get(1)).find(|name| !self.probed.contains_key(*name))?;
        let location = self.location(name).ok()?;
        Some(Wanted { location, role: Role::Probe(name.clone()) })
    }

    fn call(&mut self, body: Vec<Statement>, arguments: &[String]) -> Result<(), String> {
        let names = (1..=ARGUMENTS).map(|number| number.to_string()).chain(["#".to_owned()]);
        let before = names.map(|name| self.variables.get(&name).cloned()).collect();
        let count = arguments.len().to_string();
        let values = (0..ARGUMENTS).map(|index| arguments.get(index).cloned()).chain([Some(count)]).collect();
        self.restore(values);
        self.enter(body, Kind::Function { arguments: before })
    }

    /// Sets the positional parameters and their count.
    fn restore(&mut self, arguments: Vec<Option<String>>) {
        let names = (1..=ARGUMENTS).map(|number| number.to_string()).chain(["#".to_owned()]);
        for (name, value) in names.zip(arguments) {
            match value {
                Some(value) => drop(self.variables.insert(name, value)),
                None => drop(self.variables.remove(&name)),
            }
        }
    }

    /// `(http,ADDRESS[:PORT])/path`, `(tftp[,ADDRESS])/path`, `(pxe)/path`, or a path on `$root`, which is the loader's
    /// server unless set.
    fn location(&self, name: &str) -> Result<Location, String> {
        let told = || format!("file `{}` is not understood", name.escape_debug());
        let root = self.variables.get("root").map(String::as_str).unwrap_or_default();
        let (device, path) = match name.strip_prefix('(') {
            Some(rest) => rest.split_once(')').ok_or_else(told)?,
            None => (root.trim_start_matches('(').trim_end_matches(')'), name),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(told());
        }
        let (protocol, host) = device.split_once(',').unwrap_or((device, ""));
        let server = |port: u16| match host.parse::<SocketAddr>() {
            Ok(server) => Some(server),
            Err(_) => host.parse::<Ipv4Addr>().ok().map(|address| SocketAddr::new(address.into(), port)),
        };
        match (protocol, host) {
            ("", "") => Ok(self.loader.absolute(&path)),
            ("http", _) if !host.is_empty() => {
                Ok(Location::Http(Url { server: server(80).ok_or_else(told)?, target: path }))
            }
            ("tftp" | "pxe", _) if !host.is_empty() => match server(69).ok_or_else(told)? {
                SocketAddr::V4(server) => Ok(Location::Tftp(*server.ip(), path)),
                SocketAddr::V6(_) => Err(told()),
            },
            ("http" | "tftp" | "pxe", "") => Ok(self.loader.absolute(&path)),
            _ => Err(told()),
        }
    }

    /// The words with their variables replaced; unknown names are empty, as in GRUB.
    fn words(&self, words: &[Word]) -> Result<Vec<String>, String> {
        let mut out: Vec<String> = Vec::new();
        let status = if self.status == Outcome::Success { "0" } else { "1" };
        let value = |name: &str| match name {
            "?" => status,
            name => self.variables.get(name).map_or("", String::as_str),
        };
        for word in words {
            let mut text = String::new();
            let mut is_kept = word.is_empty();
            for piece in word {
                match piece {
                    Piece::Text(piece) => {
                        text.push_str(piece);
                        is_kept = true;
                    }
                    Piece::Variable { name, is_quoted: true } => {
                        text.push_str(value(name));
                        is_kept = true;
                    }
                    Piece::Variable { name, is_quoted: false } => {
                        // What stands between spaces in it becomes words of their own.
                        let mut parts = value(name).split_whitespace();
                        text.push_str(parts.next().unwrap_or_default());
                        for part in parts {
                            out.push(std::mem::replace(&mut text, part.to_owned()));
                        }
                    }
                }
            }
            if is_kept || !text.is_empty() {
                out.push(text);
            }
        }
        if out.iter().map(|word| word.len() + 1).sum::<usize>() > SCRIPT_LINE_BYTES_MAX {
            return Err("line is too long".to_owned());
        }
        Ok(out)
    }
}

impl Frame {
    /// Whether nothing happens any more when it is come back to.
    fn is_spent(&self) -> bool {
        let is_over = match &self.kind {
            Kind::Block | Kind::Function { .. } => true,
            Kind::Configuration { menu, .. } => menu.is_empty(),
            Kind::Entry { .. } | Kind::Condition { .. } | Kind::While { .. } | Kind::For { .. } => false,
        };
        is_over && self.statements.is_empty()
    }
}

/// The folder of the configuration of a GRUB that was loaded by this name: what is built into Debian's, signed for the network
/// (`/grub`) and for its installer, and what `grub-mknetdir` builds in.
fn usual_prefix(loader: &str) -> String {
    let path = loader.trim_start_matches('/');
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match folder.rsplit_once('/') {
        Some((above, _)) if name.starts_with("core.") => format!("/{above}"),
        _ if folder.starts_with("debian-installer/") => format!("/{folder}/grub"),
        Some(_) | None => "/grub".to_owned(),
    }
}
