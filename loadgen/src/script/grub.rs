//! Follows GRUB's way over the network: the parts that shim and GRUB ask for, `grub.cfg`, further configurations, the
//! default entry of the menu, kernel and initial RAM disks (GRUB manual §5.7, §6, §16; the rest as seen from Debian 12's
//! GRUB 2.06 and shim 16.1 in guests, by the names that they asked dnsmasq for).
//!
//! A GRUB that loads its modules from the network (`grub-mknetdir`) fetches those that `command.lst` names for a command or
//! `insmod` names, and what they in turn say that they depend on.

mod module;
mod syntax;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use self::syntax::{Piece, Statement, Word};
use super::{ENDED, LOOPS, Location, Outcome, Step, Url, What};
use crate::limits::{
    MODULES_MAX, SCRIPT_DEPTH_MAX, SCRIPT_LINE_BYTES_MAX, SCRIPT_STEPS_MAX, SCRIPT_VARIABLES_MAX,
    SCRIPTS_WITHOUT_PAUSE_MAX, SLEEP_MAX,
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
/// Octets that a pattern of a configuration may become.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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

    /// Leaves the innermost loop, or the function; nothing happens outside of one.
    fn unwind(&mut self, is_end: fn(&Kind) -> bool) -> Option<Kind> {
        self.frames.iter().rposition(|frame| is_end(&frame.kind)).and_then(|at| {
            self.frames.truncate(at + 1);
            self.frames.pop().map(|frame| frame.kind)
        })
    }

    fn execute(&mut self, name: &str, arguments: &[String]) -> Result<Option<Step>, String> {
        let plain: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
        let first = plain.first().copied();
        let is_loop = |kind: &Kind| matches!(kind, Kind::While { .. } | Kind::For { .. });
        match name {
            "set" => self.assign(first.unwrap_or_default())?,
            assignment if assignment.split_once('=').is_some_and(|(key, _)| is_name(key)) => self.assign(assignment)?,
            "unset" => drop(first.map(|key| self.variables.remove(key))),
            "export" => {
                for name in &plain {
                    self.assign(name)?;
                    let name = name.split_once('=').map_or(*name, |(name, _)| name);
                    if self.exported.len() < SCRIPT_VARIABLES_MAX {
                        self.exported.insert(name.to_owned());
                    }
                }
            }
            "linux" | "linuxefi" | "linux16" | "kernel" => {
                let location = self.location(first.unwrap_or_default())?;
                self.command_line = Some(arguments.get(1..).unwrap_or_default().join(" "));
                self.wanted.push_back(Wanted { location, role: Role::Kernel });
            }
            "initrd" | "initrdefi" | "initrd16" => {
                // As GRUB: nothing to load them for.
                if self.command_line.is_none() {
                    self.status = Outcome::Failure;
                    return Ok(None);
                }
                for name in &plain {
                    let name = name
                        .strip_prefix("newc:")
                        .and_then(|rest| rest.split_once(':'))
                        .map_or(*name, |(_, path)| path);
                    let location = self.location(name)?;
                    self.wanted.push_back(Wanted { location, role: Role::Initrd });
                }
            }
            "configfile" | "source" | "." | "normal" => {
                let role = if matches!(name, "source" | ".") { Role::Source } else { Role::Configuration };
                let location = first.map_or(Ok(self.configuration.clone()), |name| self.location(name))?;
                self.wanted.push_back(Wanted { location, role });
            }
            "insmod" => {
                let module = first.unwrap_or_default();
                let wanted = if module.contains('/') { None } else { self.module_named(module) };
                self.wanted.extend(wanted);
            }
            // A font by its name is taken from inside GRUB's image; pictures and other fonts are read.
            "loadfont" | "background_image" => {
                if let Some(name) = first.filter(|name| name.contains('/')) {
                    let location = self.location(name)?;
                    self.wanted.push_back(Wanted { location, role: Role::Status });
                }
            }
            "sleep" => {
                let seconds = plain.last().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
                self.scripts = 0;
                return Ok(Some(Step::Sleep(Duration::from_secs(seconds).min(SLEEP_MAX))));
            }
            "boot" => match self.boot() {
                Some(step) => return Ok(Some(step)),
                None => self.status = Outcome::Failure,
            },
            "chainloader" if first.is_some_and(|file| self.is_on_disk(file)) => return Ok(Some(Step::LocalDisk)),
            "exit" => return Ok(Some(Step::LocalDisk)),
            "[" | "test" => {
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let words = match (name, words.as_slice()) {
                    ("[", [inner @ .., "]"]) => inner,
                    (_, all) => all,
                };
                let holds = test(words, &self.probed)?;
                self.status = if holds { Outcome::Success } else { Outcome::Failure };
            }
            "regexp" => self.regexp(arguments)?,
            // They look at disks, of which this machine's are empty; `$root` stays what it is.
            "search" | "search.file" | "search.fs_label" | "search.fs_uuid" | "load_env" | "false" => {
                self.status = Outcome::Failure;
            }
            "eval" => self.enter(syntax::parse(&arguments.join(" "))?, Kind::Block)?,
            "return" => {
                let code = first.unwrap_or("0");
                if let Some(Kind::Function { arguments }) = self.unwind(|kind| matches!(kind, Kind::Function { .. })) {
                    self.restore(arguments);
                }
                self.status = if code == "0" { Outcome::Success } else { Outcome::Failure };
            }
            "break" => drop(self.unwind(is_loop)),
            "continue" => {
                if let Some(kind) = self.unwind(is_loop) {
                    self.enter(Vec::new(), kind)?;
                }
            }
            "halt" | "reboot" => return Err(format!("script ended in `{name}`")),
            // What people see and hear, what only disks have, and what the network has already.
            "echo" | "true" | "terminal_output" | "terminal_input" | "terminal" | "serial" | "clear" | "play"
            | "save_env" | "net_bootp" | "net_dhcp" | "net_ls_addr" | "rmmod" | "videoinfo" | "gfxmode"
            | "setparams" | "acpi" | "fwsetup" | "drivemap" | "keymap" | "password" | "password_pbkdf2" => {}
            other => return Err(format!("command `{}` is not simulated", other.escape_debug())),
        }
        Ok(None)
    }

    fn boot(&mut self) -> Option<Step> {
        self.command_line.take().map(Step::Boot)
    }

    /// Whether a file to be started is on a disk: named by blocks or by a disk, or by a path where `$root` is one.
    fn is_on_disk(&self, file: &str) -> bool {
        let root = self.variables.get("root").map(String::as_str).unwrap_or_default();
        let device = file.strip_prefix('(').and_then(|rest| rest.split(')').next()).unwrap_or(root);
        let is_network =
            ["tftp", "http", "pxe"].iter().any(|protocol| device.trim_start_matches('(').starts_with(protocol));
        file.starts_with('+') || !is_network
    }

    fn assign(&mut self, assignment: &str) -> Result<(), String> {
        match assignment.split_once('=') {
            Some((name, value)) => self.set(name, value),
            None => Ok(()),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if !self.variables.contains_key(name) && self.variables.len() >= SCRIPT_VARIABLES_MAX {
            return Err("too many variables".to_owned());
        }
        self.variables.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// `regexp [--set [NUMBER:]NAME]… PATTERN TEXT`: POSIX's extended patterns, of which alternatives are tried in their order instead of
    /// the longest being taken.
    fn regexp(&mut self, arguments: &[String]) -> Result<(), String> {
        let mut names = Vec::new();
        let mut plain = Vec::new();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let of_option = match word.strip_prefix("--set=") {
                Some(name) => Some(name),
                None if word == "--set" || word == "-s" => rest.next().map(String::as_str),
                None => None,
            };
            match of_option {
                Some(name) => names
                    .push(name.split_once(':').map_or((1, name), |(number, name)| (number.parse().unwrap_or(1), name))),
                None => plain.push(word.as_str()),
            }
        }
        let [pattern, text] = plain.as_slice() else { return Err("`regexp` without a pattern and a text".to_owned()) };
        let Ok(pattern) = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build() else {
            return Err(format!("pattern `{}` is not understood", pattern.escape_debug()));
        };
        let Some(found) = pattern.captures(text) else {
            self.status = Outcome::Failure;
            return Ok(());
        };
        let values = names.into_iter().filter_map(|(number, name)| Some((name, found.get(number)?.as_str())));
        values.into_iter().try_for_each(|(name, value)| self.set(name, value))
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

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `test` on texts, numbers and what was found out of files.
fn test(words: &[&str], probed: &BTreeMap<String, bool>) -> Result<bool, String> {
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    // Of the two `-o` binds less.
    for (operator, ends) in [("-o", true), ("-a", false)] {
        if let Some(at) = words.iter().position(|word| *word == operator).filter(|at| (1..words.len() - 1).contains(at))
        {
            let (one, other) = (words.get(..at).unwrap_or_default(), words.get(at + 1..).unwrap_or_default());
            return if test(one, probed)? == ends { Ok(ends) } else { test(other, probed) };
        }
    }
    Ok(match words {
        [] => false,
        // An empty unquoted variable leaves an operator without its word.
        ["-z"] => true,
        ["-n"] => false,
        [word] => !word.is_empty(),
        ["!", rest @ ..] => !test(rest, probed)?,
        ["-n", word] => !word.is_empty(),
        ["-z", word] => word.is_empty(),
        ["-s", name] => probed.get(*name).copied().unwrap_or(false),
        ["-d" | "-e" | "-f", _] => false,
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        ["=" | "==", _] | [_, "=" | "=="] => false,
        ["!=", _] | [_, "!="] => true,
        [one, "<", other] => one < other,
        [one, ">", other] => one > other,
        [one, "-eq", other] => number(one) == number(other),
        [one, "-ne", other] => number(one) != number(other),
        [one, "-lt", other] => number(one) < number(other),
        [one, "-le", other] => number(one) <= number(other),
        [one, "-gt", other] => number(one) > number(other),
        [one, "-ge", other] => number(one) >= number(other),
        other => return Err(format!("condition `{}` is not simulated", other.join(" ").escape_debug())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn grub(loader: &str) -> Grub {
        let mac = ("net_default_mac".to_owned(), "02:00:00:00:00:01".to_owned());
        Grub::new(at(loader), "x86_64-efi", None, [mac, ("net_default_ip".to_owned(), "10.0.0.10".to_owned())])
    }

    /// The names fetched until the configuration is asked for, all lists absent.
    fn begin(grub: &mut Grub) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            match grub.next() {
                Step::Fetch(What::Script, location) => {
                    names.push(name(&location));
                    if !location.file_name().ends_with(".lst") {
                        return names;
                    }
                }
                Step::Fetch(What::Module, location) => names.push(name(&location)),
                other => panic!("{other:?}"),
            }
            let is_grub = names.last().is_some_and(|name| name.contains("grubx64"));
            grub.done(if is_grub { Outcome::Success } else { Outcome::Failure });
        }
    }

    fn name(location: &Location) -> String {
        match location {
            Location::Http(url) => url.target.clone(),
            Location::Tftp(_, name) => name.clone(),
        }
    }

    fn follow(configuration: &str) -> Grub {
        let mut grub = grub("tftp://10.0.0.1/grubx64.efi");
        begin(&mut grub);
        grub.take(configuration).unwrap();
        grub
    }

    #[test]
    fn shim_and_grub_ask_for_their_parts_first() {
        let expected = [
            "boot/revocations_sku.efi",
            "boot/revocations_sbat.efi",
            "boot/shim_certificate_0.efi",
            "boot/grubx64.efi",
            "/grub/x86_64-efi/command.lst",
            "/grub/x86_64-efi/fs.lst",
            "/grub/x86_64-efi/crypto.lst",
            "/grub/x86_64-efi/terminal.lst",
            "/grub/grub.cfg",
        ];
        assert_eq!(begin(&mut grub("tftp://10.0.0.1/boot/shimx64.efi")), expected);
        assert_eq!(begin(&mut grub("http://10.0.0.1/grubx64.efi")), expected[4..]);
    }

    #[test]
    fn a_shim_without_grub_fails() {
        let mut grub = grub("tftp://10.0.0.1/shimx64.efi");
        for _ in 0..4 {
            assert!(matches!(grub.next(), Step::Fetch(What::Module, _)));
            grub.done(Outcome::Failure);
        }
        assert_eq!(grub.next(), Step::Failed("script failed at `grubx64.efi`".to_owned()));
    }

    #[test]
    fn the_default_entry_of_the_menu_is_booted() {
        let mut grub = follow(
            "set default=\"second\"\nset timeout=5\nset args='a=1 b=2'\n\
             menuentry 'First' { linux /one }\n\
             menuentry 'Second' --class x --id second {\n  echo loading\n  linuxefi (http,10.0.0.2:8080)/k mac=$net_default_mac $args\n\
             initrdefi (tftp,10.0.0.3)/i (http,10.0.0.2)/j\n}\n",
        );
        assert_eq!(grub.next(), Step::Fetch(What::Kernel, at("http://10.0.0.2:8080/k")));
        grub.done(Outcome::Success);
        let tftp = Location::Tftp(Ipv4Addr::new(10, 0, 0, 3), "/i".to_owned());
        assert_eq!(grub.next(), Step::Fetch(What::Initrd, tftp));
        grub.done(Outcome::Success);
        assert_eq!(grub.next(), Step::Fetch(What::Initrd, at("http://10.0.0.2/j")));
        grub.done(Outcome::Success);
        assert_eq!(grub.next(), Step::Boot("mac=02:00:00:00:00:01 a=1 b=2".to_owned()));
    }

    #[test]
    fn further_configurations_are_read_and_submenus_opened() {
        let mut grub = follow("source /vars.cfg\nconfigfile /grub/grub.cfg-$net_default_mac\n");
        assert!(matches!(grub.next(), Step::Fetch(What::Script, location) if location.file_name() == "vars.cfg"));
        grub.take("set default='1>0'\nexport default\n").unwrap();
        let own = "grub.cfg-02:00:00:00:00:01";
        assert!(matches!(grub.next(), Step::Fetch(What::Script, location) if location.file_name() == own));
        grub.take("menuentry a { exit }\nsubmenu b { menuentry c { linux /k x }\n }\n").unwrap();
        assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if location.file_name() == "k"));
        grub.done(Outcome::Success);
        assert_eq!(grub.next(), Step::Boot("x".to_owned()));
    }

    /// What a GRUB 2.06 made by grub-mknetdir asked dnsmasq for, and what it printed: loadgen's first GRUB stopped at `regexp`,
    /// took `search` and `-e` for true and asked for no configuration of the machine's own.
    #[test]
    fn a_grub_with_modules_on_the_network_looks_for_its_machines_configuration() {
        let mut grub = grub("tftp://10.0.0.1/boot/grub/x86_64-efi/core.efi");
        let folder = "/boot/grub/x86_64-efi";
        let own = ["01-02-00-00-00-00-01", "0A00000A", "0A00000", "0A0000", "0A000", "0A00", "0A0", "0A", "0"];
        let mut expected = ["normal", "gzio"].map(|module| format!("{folder}/{module}.mod")).to_vec();
        expected.extend(own.map(|suffix| format!("/boot/grub/grub.cfg-{suffix}")));
        expected.extend(["command", "fs", "crypto", "terminal"].map(|list| format!("{folder}/{list}.lst")));
        expected.push("/boot/grub/grub.cfg".to_owned());
        let mut names = Vec::new();
        loop {
            let Step::Fetch(what, location) = grub.next() else { panic!("{names:?}") };
            names.push(name(&location));
            match (what, location.file_name()) {
                (_, "command.lst") => grub.take("*[: test\n*echo: echo\n*linux: linux\n").unwrap(),
                (What::Script, _) => break,
                (_, "normal.mod") => assert!(grub.take_module(b"no module")),
                _ => grub.done(Outcome::Failure),
            }
        }
        assert_eq!(names, expected);
        grub.take("echo a\necho b\ninsmod part_gpt\nif [ -s /k ]; then linux /k; boot; fi\n").unwrap();
        let fetched = ["echo.mod", "part_gpt.mod", "test.mod"].map(|name| format!("{folder}/{name}"));
        let fetched = fetched.into_iter().chain(["/k".to_owned(), format!("{folder}/linux.mod"), "/k".to_owned()]);
        for expected in fetched {
            assert!(matches!(grub.next(), Step::Fetch(_, location) if name(&location) == expected), "{expected}");
            match expected.ends_with(".mod") {
                true => assert!(grub.take_module(b"no module")),
                false => grub.done(Outcome::Success),
            }
        }
        assert_eq!(grub.next(), Step::Boot(String::new()));
    }

    #[test]
    fn a_configuration_of_the_machines_own_comes_first() {
        let mut grub = grub("tftp://10.0.0.1/boot/grub/i386-pc/core.0");
        let mut names = Vec::new();
        loop {
            let Step::Fetch(what, location) = grub.next() else { panic!("{names:?}") };
            let name = location.file_name().to_owned();
            let is_there = name == "grub.cfg-0A0000";
            names.push(name);
            if grub.take_module(b"no module") {
                continue;
            }
            if what == What::Script && is_there {
                break;
            }
            grub.done(if is_there { Outcome::Success } else { Outcome::Failure });
        }
        let last = names.iter().rev().take(6).rev().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(last, ["grub.cfg-0A0000", "command.lst", "fs.lst", "crypto.lst", "terminal.lst", "grub.cfg-0A0000"]);
    }

    #[test]
    fn where_a_configuration_is_goes_by_the_loaders_name() {
        let first = |loader: &str| begin(&mut grub(loader)).pop();
        let installer = "tftp://10.0.0.1/debian-installer/amd64/bootnetx64.efi";
        assert_eq!(first(installer).as_deref(), Some("/debian-installer/amd64/grub/grub.cfg"));
        assert_eq!(first("tftp://10.0.0.1/boot/grubx64.efi").as_deref(), Some("/grub/grub.cfg"));
        let mut named = Grub::new(at("tftp://10.0.0.1/grubx64.efi"), "x86_64-efi", Some("/efi/debian"), []);
        assert_eq!(begin(&mut named).pop().as_deref(), Some("/efi/debian/grub.cfg"));
    }

    /// Each as GRUB 2.06 did it in a guest.
    #[test]
    fn configurations_of_distributions_are_followed() {
        let mut grub = follow(
            "if [ x$feature_default_font_path = xy ] ; then\n font=unicode\nelse\n font=$prefix/font.pf2\nfi\n\
             if loadfont $font ; then\n set gfx=yes\nfi\n\
             if background_image /isolinux/splash.png; then set picture=1\n\
             elif background_image /splash.png; then set picture=2; fi\n\
             if [ -e /vmlinuz -o -f $prefix/grub.cfg ]; then set sees=yes; else set sees=no; fi\n\
             if search --no-floppy --file --set=root /vmlinuz; then set found=yes; else set found=no; fi\n\
             if ! [ x = y ]; then set not=works; fi\n\
             regexp --set=1:a --set 2:b '^([0-9a-f]*)\\:([0-9a-f]*)' \"$net_default_mac\"\n\
             if regexp ^zz abc; then set c=matches; else set c=differs; fi\n\
             function f {\n set in=\"$1 $#\"\n return 3\n set in=not\n}\nf one\nset code=$?\n\
             for x in p q r; do if [ $x = r ]; then break; fi; set all=$all$x; done\n\
             while [ \"$n\" != xxx ]; do set n=x$n; done\n\
             configfile $prefix/none.cfg\nset after=$?\n\
             set plain=1\nset seen=1\nexport seen\nexport gfx picture sees found not a b c in code all n after\n\
             configfile ($root)/last.cfg\n",
        );
        let mut fetched = Vec::new();
        loop {
            match grub.next() {
                Step::Fetch(What::Script, location) if location.file_name() == "last.cfg" => break,
                Step::Fetch(_, location) => fetched.push(name(&location)),
                other => panic!("{other:?}"),
            }
            grub.done(if fetched.ends_with(&["/splash.png".to_owned()]) { Outcome::Success } else { Outcome::Failure });
        }
        assert_eq!(fetched, ["/isolinux/splash.png", "/splash.png", "/grub/none.cfg"]);
        let line = "linux /k plain=$plain $seen $gfx $picture $sees $found $not $a:$b $c $in $code $all $n $after\n";
        grub.take(&format!("menuentry a {{\n{line}}}\n")).unwrap();
        assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/k"));
        grub.done(Outcome::Success);
        let line = "plain= 1 yes 2 no no works 02:00 differs one 1 1 pq xxx 0";
        assert_eq!(grub.next(), Step::Boot(line.to_owned()));
    }

    #[test]
    fn an_entry_that_loads_nothing_gives_way_to_its_fallback() {
        let mut grub = follow(
            "set default=a\nset fallback=\"b\"\nif true; then\n menuentry A --id a { linux /gone; initrd /i }\n\
             menuentry B --id b { linux /k }\nfi\n",
        );
        assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/gone"));
        grub.done(Outcome::Failure);
        assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/k"));
        grub.done(Outcome::Success);
        assert_eq!(grub.next(), Step::Boot(String::new()));
    }

    #[test]
    fn conditions_decide_and_failures_are_told() {
        let local = "if [ \"$grub_platform\" = pc ]; then\n  set root=(hd0)\n  chainloader +1\n  boot\nfi\nexit\n";
        assert_eq!(follow(local).next(), Step::LocalDisk);
        let both = "if [ $grub_platform = efi -a 1 -lt 2 ]; then exit; fi\n";
        assert_eq!(follow(both).next(), Step::LocalDisk);
        assert!(
            matches!(follow("if [ a b c d ]; then exit; fi\n").next(), Step::Failed(why) if why.contains("simulated"))
        );
        assert!(matches!(follow("chainloader /x.efi\n").next(), Step::Failed(why) if why.contains("`chainloader`")));
        let mut missing = follow("linux /k\ninitrd /i\nboot\n");
        assert!(matches!(missing.next(), Step::Fetch(What::Kernel, _)));
        missing.done(Outcome::Failure);
        assert_eq!(missing.next(), Step::Failed("script failed at `k`".to_owned()));
        assert_eq!(follow("set timeout=0\n").next(), Step::Failed(ENDED.to_owned()));
        assert_eq!(follow("cat /x\n").next(), Step::Failed("command `cat` is not simulated".to_owned()));
    }

    #[test]
    fn a_configuration_that_waits_may_go_on_with_itself_and_one_that_does_not_loops() {
        let mut waiting = follow("sleep 10\nconfigfile /grub/grub.cfg\n");
        for _ in 0..200 {
            assert_eq!(waiting.next(), Step::Sleep(Duration::from_secs(10)));
            waiting.done(Outcome::Success);
            assert!(matches!(waiting.next(), Step::Fetch(What::Script, _)));
            waiting.take("sleep 10\nconfigfile /grub/grub.cfg\n").unwrap();
        }
        let mut looping = follow("configfile /grub/grub.cfg\n");
        let mut fetches = 0;
        while matches!(looping.next(), Step::Fetch(What::Script, _)) {
            looping.take("configfile /grub/grub.cfg\n").unwrap();
            fetches += 1;
        }
        assert_eq!(fetches, SCRIPTS_WITHOUT_PAUSE_MAX);
        assert_eq!(looping.next(), Step::Failed(LOOPS.to_owned()));
    }
}
