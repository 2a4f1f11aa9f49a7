//! What GRUB's commands do (GRUB manual §16), and what `test` finds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Grub, Kind, Role, Wanted, syntax};
use crate::limits::{PATTERN_BYTES_MAX, SCRIPT_VARIABLES_MAX, SLEEP_MAX};
use crate::script::{Outcome, Step};

impl Grub {
    /// Leaves the innermost loop, or the function; nothing happens outside of one.
    fn unwind(&mut self, is_end: fn(&Kind) -> bool) -> Option<Kind> {
        self.frames.iter().rposition(|frame| is_end(&frame.kind)).and_then(|at| {
            self.frames.truncate(at + 1);
            self.frames.pop().map(|frame| frame.kind)
        })
    }

    pub(super) fn execute(&mut self, name: &str, arguments: &[String]) -> Result<Option<Step>, String> {
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

    pub(super) fn boot(&mut self) -> Option<Step> {
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

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
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
