//! Follows GRUB's way over the network: the parts that shim and GRUB ask for, `grub.cfg`, further configurations, the
//! default entry of the menu, kernel and initial RAM disks (GRUB manual §5.7, §6, §16).

mod syntax;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use self::syntax::{Piece, Statement, Word};
use super::{ENDED, LOOPS, Location, Outcome, Step, Url, What};
use crate::limits::{
    SCRIPT_DEPTH_MAX, SCRIPT_LINE_BYTES_MAX, SCRIPT_STEPS_MAX, SCRIPT_VARIABLES_MAX, SCRIPTS_WITHOUT_PAUSE_MAX,
    SLEEP_MAX,
};

/// What shim asks for before GRUB, and does without (shim 15.8 and later).
const SHIM_FILES: [&str; 3] = ["revocations_sku.efi", "revocations_sbat.efi", "shim_certificate_0.efi"];
/// What GRUB asks for before its configuration, and does without.
const LISTS: [&str; 4] = ["command.lst", "fs.lst", "crypto.lst", "terminal.lst"];

/// A node's GRUB.
#[derive(Clone, Debug)]
pub struct Grub {
    variables: BTreeMap<String, String>,
    /// Where GRUB itself came from.
    loader: Location,
    /// Still to be fetched before the script goes on; whether it must be there.
    wanted: VecDeque<(What, Location, bool)>,
    /// What the last fetch was, until its outcome is told.
    pending: Option<(What, bool)>,
    frames: Vec<Frame>,
    /// A `source` or `configfile` whose text is on its way.
    reading: Option<Reading>,
    status: Outcome,
    command_line: Option<String>,
    /// What failed last, for the report.
    failed_at: Option<String>,
    steps: u32,
    scripts: u32,
}

/// How a configuration is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// In the midst of the one at hand.
    Source,
    /// With a menu of its own.
    Configuration,
}

/// Statements being worked through.
#[derive(Clone, Debug)]
struct Frame {
    statements: VecDeque<Statement>,
    /// With a menu of its own, whose entries are gathered here.
    menu: Option<Vec<Entry>>,
    /// Whether what it loads is started at its end, as with a menu's entry.
    boots: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    title: String,
    id: Option<String>,
    is_submenu: bool,
    body: Vec<Statement>,
}

impl Grub {
    /// GRUB as loaded from there; through shim if the file's name says so. `variables` are those that the network sets
    /// (`net_default_mac` and so on), `platform` such as `x86_64-efi`.
    pub fn new(loader: Location, platform: &str, variables: impl IntoIterator<Item = (String, String)>) -> Grub {
        let mut wanted = VecDeque::new();
        if loader.file_name().starts_with("shim") {
            wanted.extend(SHIM_FILES.map(|name| (What::Module, loader.beside(name), false)));
            wanted.push_back((What::Module, loader.beside("grubx64.efi"), true));
        }
        wanted.extend(LISTS.map(|name| (What::Module, loader.absolute(&format!("/grub/{platform}/{name}")), false)));
        wanted.push_back((What::Script, loader.absolute("/grub/grub.cfg"), true));
        let mut variables: BTreeMap<String, String> = variables.into_iter().collect();
        let (cpu, firmware) = platform.split_once('-').unwrap_or((platform, ""));
        variables.insert("grub_cpu".to_owned(), cpu.to_owned());
        variables.insert("grub_platform".to_owned(), firmware.to_owned());
        variables.insert("prefix".to_owned(), "/grub".to_owned());
        Grub {
            variables,
            loader,
            wanted,
            pending: None,
            frames: Vec::new(),
            reading: Some(Reading::Configuration),
            status: Outcome::Success,
            command_line: None,
            failed_at: None,
            steps: 0,
            scripts: 0,
        }
    }

    /// Takes a configuration.
    pub fn take(&mut self, text: &str) -> Result<(), String> {
        self.scripts += 1;
        self.pending = None;
        let statements = syntax::parse(text)?;
        match self.reading.take() {
            Some(Reading::Configuration) | None => self.enter(statements, Some(Vec::new()), false),
            Some(Reading::Source) => self.enter(statements, None, false),
        }
    }

    fn enter(&mut self, statements: Vec<Statement>, menu: Option<Vec<Entry>>, boots: bool) -> Result<(), String> {
        // One that has nothing left to do is not come back to, so that a configuration may go on with itself for ever.
        while self.frames.last().is_some_and(Frame::is_spent) {
            self.frames.pop();
        }
        if self.frames.len() >= SCRIPT_DEPTH_MAX {
            return Err(LOOPS.to_owned());
        }
        self.frames.push(Frame { statements: statements.into(), menu, boots });
        Ok(())
    }

    /// Tells how the step that `next` gave went.
    pub fn done(&mut self, outcome: Outcome) {
        if let Some((what, is_needed)) = self.pending.take() {
            if outcome == Outcome::Failure && is_needed {
                self.wanted.clear();
                self.reading = None;
                self.status = outcome;
                if what == What::Kernel {
                    self.command_line = None;
                }
            }
        } else {
            self.status = outcome;
        }
    }

    /// Goes on to the next thing that needs the outside world.
    pub fn next(&mut self) -> Step {
        loop {
            self.steps += 1;
            if self.steps > SCRIPT_STEPS_MAX || self.scripts > SCRIPTS_WITHOUT_PAUSE_MAX {
                return Step::Failed(LOOPS.to_owned());
            }
            if let Some((what, location, is_needed)) = self.wanted.pop_front() {
                if is_needed {
                    self.failed_at = Some(location.file_name().to_owned());
                }
                self.pending = Some((what, is_needed));
                return Step::Fetch(what, location);
            }
            let Some(frame) = self.frames.last_mut() else {
                return Step::Failed(match (self.status, self.failed_at.take()) {
                    (Outcome::Failure, Some(name)) => format!("script failed at `{name}`"),
                    (Outcome::Success | Outcome::Failure, _) => ENDED.to_owned(),
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

    /// The end of a block, an entry or a configuration.
    fn leave(&mut self) -> Result<Option<Step>, String> {
        let Some(frame) = self.frames.pop() else { return Ok(None) };
        if frame.boots && self.command_line.is_some() {
            return Ok(self.boot());
        }
        let Some(entries) = frame.menu.filter(|entries| !entries.is_empty()) else { return Ok(None) };
        let default = self.variables.get("default").cloned().unwrap_or_default();
        // Such as `1>2`: the third entry of the second, which is a submenu.
        let (chosen, inner) = default.split_once('>').unwrap_or((&default, ""));
        let named = |entry: &Entry| entry.title == chosen || entry.id.as_deref() == Some(chosen);
        let index = match chosen.parse::<usize>() {
            Ok(index) => index,
            Err(_) => entries.iter().position(named).unwrap_or(0),
        };
        let Some(entry) = entries.into_iter().nth(index) else { return Err("menu has no such entry".to_owned()) };
        self.variables.insert("chosen".to_owned(), entry.title);
        if entry.is_submenu {
            let inner = inner.to_owned();
            self.variables.insert("default".to_owned(), inner);
            self.enter(entry.body, Some(Vec::new()), false)?;
        } else {
            self.enter(entry.body, None, true)?;
        }
        Ok(None)
    }

    fn run(&mut self, statement: Statement) -> Result<Option<Step>, String> {
        match statement {
            Statement::Command(words) => self.command(&words),
            Statement::Entry(words, body) => {
                let words = self.words(&words)?;
                let mut id = None;
                let mut title = None;
                let mut rest = words.iter().skip(1);
                while let Some(word) = rest.next() {
                    match word.as_str() {
                        "--id" | "$menuentry_id_option" => id = rest.next().cloned(),
                        "--class" | "--users" | "--hotkey" | "--source" => drop(rest.next()),
                        option if option.starts_with("--") => {}
                        _ if title.is_none() => title = Some(word.clone()),
                        _ => {}
                    }
                }
                let is_submenu = words.first().is_some_and(|word| word == "submenu");
                let entry = Entry { title: title.unwrap_or_default(), id, is_submenu, body };
                if let Some(menu) = self.frames.iter_mut().rev().find_map(|frame| frame.menu.as_mut()) {
                    menu.push(entry);
                }
                Ok(None)
            }
            Statement::If(arms, otherwise) => {
                for (condition, body) in arms {
                    if self.holds(&condition)? {
                        self.enter(body, None, false)?;
                        return Ok(None);
                    }
                }
                self.enter(otherwise, None, false)?;
                Ok(None)
            }
        }
    }

    /// Whether a condition holds. Those that would have to look at files are not simulated.
    fn holds(&mut self, condition: &[Statement]) -> Result<bool, String> {
        for statement in condition {
            let Statement::Command(words) = statement else { return Err("condition is not simulated".to_owned()) };
            let words = self.words(words)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let holds = match words.as_slice() {
                ["true"] => true,
                ["false"] => false,
                ["[", test @ .., "]"] | ["test", test @ ..] => self::test(test)?,
                other => return Err(format!("condition `{}` is not simulated", other.join(" ").escape_debug())),
            };
            self.status = if holds { Outcome::Success } else { Outcome::Failure };
        }
        Ok(self.status == Outcome::Success)
    }

    fn command(&mut self, words: &[Word]) -> Result<Option<Step>, String> {
        let words = self.words(words)?;
        let Some((name, arguments)) = words.split_first() else { return Ok(None) };
        let plain: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
        let first = plain.first().copied();
        match name.as_str() {
            "set" => self.set(first.unwrap_or_default())?,
            assignment if assignment.split_once('=').is_some_and(|(key, _)| is_name(key)) => self.set(assignment)?,
            "unset" => drop(first.map(|key| self.variables.remove(key))),
            "linux" | "linuxefi" | "linux16" | "kernel" => {
                let location = self.location(first.unwrap_or_default())?;
                self.command_line = Some(arguments.get(1..).unwrap_or_default().join(" "));
                self.wanted.push_back((What::Kernel, location, true));
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
                    self.wanted.push_back((What::Initrd, location, true));
                }
            }
            "configfile" | "source" | "." | "normal" => {
                let is_source = matches!(name.as_str(), "source" | ".");
                self.reading = Some(if is_source { Reading::Source } else { Reading::Configuration });
                let location = self.location(first.unwrap_or("/grub/grub.cfg"))?;
                self.wanted.push_back((What::Script, location, true));
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
            "chainloader" | "exit" => return Ok(Some(Step::LocalDisk)),
            "false" => self.status = Outcome::Failure,
            "halt" | "reboot" => return Err(format!("script ended in `{name}`")),
            "echo" | "true" | "insmod" | "export" | "load_video" | "terminal_output" | "terminal_input"
            | "terminal" | "serial" | "loadfont" | "clear" | "play" | "background_image" | "recordfail"
            | "savedefault" | "return" | "load_env" | "save_env" | "net_bootp" | "net_dhcp" | "regexp" | "search"
            | "[" | "test" => {}
            other => return Err(format!("command `{}` is not simulated", other.escape_debug())),
        }
        Ok(None)
    }

    fn boot(&mut self) -> Option<Step> {
        self.command_line.take().map(Step::Boot)
    }

    fn set(&mut self, assignment: &str) -> Result<(), String> {
        let Some((key, value)) = assignment.split_once('=') else { return Ok(()) };
        if !self.variables.contains_key(key) && self.variables.len() >= SCRIPT_VARIABLES_MAX {
            return Err("too many variables".to_owned());
        }
        self.variables.insert(key.to_owned(), value.to_owned());
        self.status = Outcome::Success;
        Ok(())
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
                        text.push_str(self.variables.get(name).map_or("", String::as_str));
                        is_kept = true;
                    }
                    Piece::Variable { name, is_quoted: false } => {
                        // What stands between spaces in it becomes words of their own.
                        let mut parts = self.variables.get(name).map_or("", String::as_str).split_whitespace();
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
        self.statements.is_empty() && !self.boots && self.menu.as_ref().is_none_or(Vec::is_empty)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `test` on texts and numbers.
fn test(words: &[&str]) -> Result<bool, String> {
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    Ok(match words {
        [] => false,
        // An empty unquoted variable leaves an operator without its word.
        ["-z"] => true,
        ["-n"] => false,
        [word] => !word.is_empty(),
        ["!", rest @ ..] => !test(rest)?,
        ["-n", word] => !word.is_empty(),
        ["-z", word] => word.is_empty(),
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        ["=" | "==", _] | [_, "=" | "=="] => false,
        ["!=", _] | [_, "!="] => true,
        [one, "-eq", other] => number(one) == number(other),
        [one, "-ne", other] => number(one) != number(other),
        other => return Err(format!("condition `{}` is not simulated", other.join(" ").escape_debug())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn grub(loader: &str) -> Grub {
        let mac = ("net_default_mac".to_owned(), "02:00:00:00:00:01".to_owned());
        Grub::new(at(loader), "x86_64-efi", [mac])
    }

    /// The names fetched until the configuration is asked for, all lists absent.
    fn begin(grub: &mut Grub) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            match grub.next() {
                Step::Fetch(What::Script, location) => {
                    names.push(name(&location));
                    return names;
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
        grub.take("set default='1>0'\n").unwrap();
        let own = "grub.cfg-02:00:00:00:00:01";
        assert!(matches!(grub.next(), Step::Fetch(What::Script, location) if location.file_name() == own));
        grub.take("menuentry a { exit }\nsubmenu b { menuentry c { linux /k x }\n }\n").unwrap();
        assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if location.file_name() == "k"));
        grub.done(Outcome::Success);
        assert_eq!(grub.next(), Step::Boot("x".to_owned()));
    }

    #[test]
    fn conditions_decide_and_failures_are_told() {
        let local = "if [ \"$grub_platform\" = pc ]; then\n  set root=(hd0)\n  chainloader +1\n  boot\nfi\nexit\n";
        assert_eq!(follow(local).next(), Step::LocalDisk);
        let mut chosen = follow("if [ $grub_platform = efi -a x ]; then boot; fi\n");
        assert!(matches!(chosen.next(), Step::Failed(why) if why.contains("is not simulated")));
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
