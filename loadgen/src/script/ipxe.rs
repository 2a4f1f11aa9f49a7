//! Follows iPXE scripts the way iPXE does, as far as boot servers use it: variables, labels, `||` and `&&`, menus, of which
//! nobody chooses anything but what is proposed, and the commands that fetch, wait or start something.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ENDED, LOOPS, Location, Outcome, Step, What};
use crate::limits::{
    SCRIPT_LINE_BYTES_MAX, SCRIPT_STEPS_MAX, SCRIPT_VARIABLES_MAX, SCRIPTS_WITHOUT_PAUSE_MAX, SLEEP_MAX,
};

/// A node's iPXE: the script at hand, where it stands in it, and its settings.
#[derive(Clone, Debug)]
pub struct Ipxe {
    variables: BTreeMap<String, String>,
    lines: Vec<String>,
    line: usize,
    /// Commands of the current line still to be looked at, each with the condition before it.
    rest: Vec<(Condition, String)>,
    outcome: Outcome,
    base: Option<Location>,
    /// The first item of the menu at hand that can be chosen.
    first_item: Option<String>,
    command_line: String,
    has_kernel: bool,
    steps: u32,
    /// Scripts taken since the last pause.
    scripts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    OnSuccess,
    OnFailure,
}

/// What a command led to.
enum Ran {
    Step(Step),
    Outcome(Outcome),
    /// Go to another line.
    Jump(usize),
}

impl Ipxe {
    /// An interpreter whose settings are `variables` (such as `net0/mac`).
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Ipxe {
        Ipxe {
            variables: variables.into_iter().collect(),
            lines: Vec::new(),
            line: 0,
            rest: Vec::new(),
            outcome: Outcome::Success,
            base: None,
            first_item: None,
            command_line: String::new(),
            has_kernel: false,
            steps: 0,
            scripts: 0,
        }
    }

    /// Replaces the script at hand by what was fetched from there. Fails on what is no script.
    pub fn take(&mut self, from: Location, text: &str) -> Result<(), String> {
        if !text.starts_with("#!ipxe") {
            return Err("not an iPXE script".to_owned());
        }
        self.lines = joined_lines(text);
        self.line = 0;
        self.rest.clear();
        self.outcome = Outcome::Success;
        self.base = Some(from);
        self.scripts += 1;
        Ok(())
    }

    /// Tells how the step that [`next`](Ipxe::next) gave went.
    pub fn done(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Goes on to the next thing that needs the outside world.
    pub fn next(&mut self) -> Step {
        loop {
            self.steps += 1;
            if self.steps > SCRIPT_STEPS_MAX || self.scripts > SCRIPTS_WITHOUT_PAUSE_MAX {
                return Step::Failed(LOOPS.to_owned());
            }
            let Some((condition, command)) = (if self.rest.is_empty() { None } else { Some(self.rest.remove(0)) })
            else {
                if self.outcome == Outcome::Failure {
                    let line = self.lines.get(self.line.saturating_sub(1)).cloned().unwrap_or_default();
                    return Step::Failed(format!("script failed at `{line}`"));
                }
                let Some(line) = self.lines.get(self.line) else { return Step::Failed(ENDED.to_owned()) };
                self.rest = commands(line);
                self.line += 1;
                continue;
            };
            let applies = match condition {
                Condition::Always => true,
                Condition::OnSuccess => self.outcome == Outcome::Success,
                Condition::OnFailure => self.outcome == Outcome::Failure,
            };
            if !applies {
                continue;
            }
            match self.run(&command) {
                Ok(Ran::Step(step)) => return step,
                Ok(Ran::Outcome(outcome)) => self.outcome = outcome,
                Ok(Ran::Jump(line)) => {
                    self.line = line;
                    self.rest.clear();
                    self.outcome = Outcome::Success;
                }
                Err(why) => return Step::Failed(why),
            }
        }
    }

    fn run(&mut self, command: &str) -> Result<Ran, String> {
        let expanded = self.expand(command)?;
        let words: Vec<&str> = expanded.split_whitespace().collect();
        let Some((&name, arguments)) = words.split_first() else { return Ok(Ran::Outcome(Outcome::Success)) };
        let success = Ok(Ran::Outcome(Outcome::Success));
        let answer = |holds: bool| Ok(Ran::Outcome(if holds { Outcome::Success } else { Outcome::Failure }));
        let plain: Vec<&str> = without_options(arguments);
        match name {
            "echo" | "dhcp" | "ifopen" | "ifconf" | "ifstat" | "route" | "imgfree" | "prompt" | "console" | "cpuid"
            | "show" | "imgstat" | "autoboot-off" => success,
            "set" => {
                let [key, value @ ..] = plain.as_slice() else { return Err("`set` without a name".to_owned()) };
                self.assign((*key).to_owned(), value.join(" "))?;
                success
            }
            "menu" => {
                self.first_item = None;
                success
            }
            "item" => {
                // `item --gap` is a line that cannot be chosen; the label comes before the text.
                if !arguments.contains(&"--gap") && self.first_item.is_none() {
                    self.first_item = plain.first().map(|label| (*label).to_owned());
                }
                success
            }
            "choose" => {
                let default = arguments.windows(2).find(|pair| matches!(pair, ["--default" | "-d", _]));
                let default = default.and_then(|pair| pair.get(1)).map(|label| (*label).to_owned());
                let (Some(chosen), Some(setting)) = (default.or(self.first_item.take()), plain.last()) else {
                    return answer(false);
                };
                self.assign((*setting).to_owned(), chosen)?;
                success
            }
            "inc" => {
                let key = plain.first().copied().unwrap_or_default().to_owned();
                let by = plain.get(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(1);
                let value = self.variables.get(&key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
                self.assign(key, value.wrapping_add(by).to_string())?;
                success
            }
            "clear" => {
                plain.first().map(|key| self.variables.remove(*key));
                success
            }
            "isset" => answer(plain.first().is_some_and(|value| !value.is_empty())),
            "iseq" => answer(matches!(plain.as_slice(), [one, other] if one == other)),
            "goto" => {
                let label = plain.first().copied().unwrap_or_default();
                let target = self.lines.iter().position(|line| line.strip_prefix(':').map(str::trim) == Some(label));
                target.map(Ran::Jump).ok_or_else(|| format!("no label `{label}`"))
            }
            "chain" | "imgexec" => self.url(&plain).map(|url| Ran::Step(Step::Fetch(What::Script, url))),
            "kernel" | "imgselect" | "imgfetch-kernel" => {
                let url = self.url(&plain)?;
                self.command_line = plain.get(1..).unwrap_or_default().join(" ");
                self.has_kernel = true;
                Ok(Ran::Step(Step::Fetch(What::Kernel, url)))
            }
            "imgargs" => {
                self.command_line = plain.get(1..).unwrap_or_default().join(" ");
                success
            }
            "initrd" | "module" | "imgfetch" => self.url(&plain).map(|url| Ran::Step(Step::Fetch(What::Initrd, url))),
            "sleep" => {
                let seconds = plain.first().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
                self.scripts = 0;
                Ok(Ran::Step(Step::Sleep(Duration::from_secs(seconds).min(SLEEP_MAX))))
            }
            "boot" if self.has_kernel => Ok(Ran::Step(Step::Boot(self.command_line.clone()))),
            "boot" => answer(false),
            "exit" | "sanboot" => Ok(Ran::Step(Step::LocalDisk)),
            "reboot" | "poweroff" | "shell" => Err(format!("script ended in `{name}`")),
            label if label.starts_with(':') => success,
            comment if comment.starts_with('#') => success,
            other => Err(format!("command `{}` is not simulated", other.escape_debug())),
        }
    }

    fn assign(&mut self, key: String, value: String) -> Result<(), String> {
        if !self.variables.contains_key(&key) && self.variables.len() >= SCRIPT_VARIABLES_MAX {
            return Err("too many variables".to_owned());
        }
        self.variables.insert(key, value);
        Ok(())
    }

    fn url(&self, arguments: &[&str]) -> Result<Location, String> {
        let text = arguments.first().copied().unwrap_or_default();
        Location::parse(text, self.base.as_ref())
            .ok_or_else(|| format!("URL `{}` is not understood", text.escape_debug()))
    }

    /// Replaces `${name}` and `${name:format}`; unknown names are empty, as in iPXE.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else { return Err("`${` without `}`".to_owned()) };
            let (name, format) = name.split_once(':').unwrap_or((name, ""));
            let value = self.variables.get(name).map_or("", String::as_str);
            match format {
                "hexhyp" => out.push_str(&value.replace(':', "-")),
                "hexraw" => out.push_str(&value.replace(':', "")),
                "uristring" => value.bytes().for_each(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
                    _ => out.push_str(&format!("%{byte:02X}")),
                }),
                _ => out.push_str(value),
            }
            if out.len() > SCRIPT_LINE_BYTES_MAX {
                return Err("line is too long".to_owned());
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Lines without their ends; one that ends in a backslash goes on in the next.
fn joined_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        let line = line.trim();
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut().filter(|_| continues) {
            Some(last) => last.push_str(line),
            None => lines.push(line.to_owned()),
        }
        continues = goes_on;
    }
    lines
}

/// The commands of a line, each with its condition.
fn commands(line: &str) -> Vec<(Condition, String)> {
    let mut commands = Vec::new();
    let mut condition = Condition::Always;
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let next = match word {
            "||" => Condition::OnFailure,
            "&&" => Condition::OnSuccess,
            _ => {
                words.push(word);
                continue;
            }
        };
        commands.push((condition, words.join(" ")));
        words.clear();
        condition = next;
    }
    commands.push((condition, words.join(" ")));
    commands
}

/// Arguments without leading options. Those with a value of their own (`--name X`, `-n X`) are taken with it.
fn without_options<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut rest = arguments;
    while let Some((first, after)) = rest.split_first() {
        if !first.starts_with('-') || *first == "-" {
            break;
        }
        let has_value = matches!(
            *first,
            "--name" | "-n" | "--timeout" | "-t" | "--drive" | "-d" | "--default" | "--key" | "-k" | "--menu" | "-m"
        );
        rest = if has_value { after.get(1..).unwrap_or_default() } else { after };
    }
    rest.to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn follow(script: &str) -> Ipxe {
        let mac = ("net0/mac".to_owned(), "02:00:00:00:00:01".to_owned());
        let mut ipxe = Ipxe::new([mac, ("net0/ip".to_owned(), "10.0.0.9".to_owned())]);
        ipxe.take(at("http://10.0.0.1:5248/boot.ipxe?mac=x"), script).unwrap();
        ipxe
    }

    #[test]
    fn a_boot_script_is_followed_to_its_command_line() {
        let mut script = follow(
            "#!ipxe\n# hello\nset base http://10.0.0.1:5248/environment/amd64\necho booting ${net0/mac}\n\
             kernel ${base}/kernel initrd=initrd bootstorm.claim=00ff \\\n  bootstorm.mac=${net0/mac:hexhyp} ip=${net0/ip}\n\
             initrd --name initrd ${base}/initrd || goto failed\ninitrd /ca.cpio\nboot\n:failed\nsleep 3\ngoto failed\n",
        );
        assert_eq!(script.next(), Step::Fetch(What::Kernel, at("http://10.0.0.1:5248/environment/amd64/kernel")));
        script.done(Outcome::Success);
        assert_eq!(script.next(), Step::Fetch(What::Initrd, at("http://10.0.0.1:5248/environment/amd64/initrd")));
        script.done(Outcome::Success);
        assert_eq!(script.next(), Step::Fetch(What::Initrd, at("http://10.0.0.1:5248/ca.cpio")));
        script.done(Outcome::Success);
        let line = "initrd=initrd bootstorm.claim=00ff bootstorm.mac=02-00-00-00-00-01 ip=10.0.0.9";
        assert_eq!(script.next(), Step::Boot(line.to_owned()));
    }

    #[test]
    fn failures_go_to_their_alternative_or_end_the_script() {
        let mut script = follow("#!ipxe\nchain --autofree first || chain /second?a=${net0/mac:uristring}\n");
        assert_eq!(script.next(), Step::Fetch(What::Script, at("http://10.0.0.1:5248/first")));
        script.done(Outcome::Failure);
        assert_eq!(
            script.next(),
            Step::Fetch(What::Script, at("http://10.0.0.1:5248/second?a=02%3A00%3A00%3A00%3A00%3A01"))
        );
        script.done(Outcome::Failure);
        assert!(matches!(script.next(), Step::Failed(_)));
        let mut looping = follow("#!ipxe\n:again\nsleep 30\ngoto again\n");
        assert_eq!(looping.next(), Step::Sleep(Duration::from_secs(30)));
        looping.done(Outcome::Success);
        assert_eq!(looping.next(), Step::Sleep(Duration::from_secs(30)));
    }

    #[test]
    fn what_a_menu_proposes_is_chosen() {
        let menu = "#!ipxe\nset n 0\n:start\ninc n\nmenu Boot me\nitem --gap -- Systems\nitem --key d debian Debian\n\
             item shell Shell\nchoose --timeout 3000 target && goto ${target} || goto start\n:shell\nshell\n\
             :debian\nkernel /debian${n}\nboot\n";
        assert_eq!(follow(menu).next(), Step::Fetch(What::Kernel, at("http://10.0.0.1:5248/debian1")));
        let proposed = menu.replace("--timeout 3000", "--default shell --timeout 3000");
        assert_eq!(follow(&proposed).next(), Step::Failed("script ended in `shell`".to_owned()));
    }

    #[test]
    fn conditions_and_ends() {
        let mut script =
            follow("#!ipxe\niseq ${net0/ip} 10.0.0.9 && isset ${x} || sanboot --no-describe --drive 0x80\n");
        assert_eq!(script.next(), Step::LocalDisk);
        assert!(matches!(follow("#!ipxe\n:a\ngoto a\n").next(), Step::Failed(why) if why == LOOPS));
        let mut chains = follow("#!ipxe\nchain again\n");
        for _ in 1..SCRIPTS_WITHOUT_PAUSE_MAX {
            assert_eq!(chains.next(), Step::Fetch(What::Script, at("http://10.0.0.1:5248/again")));
            chains.take(at("http://10.0.0.1:5248/again"), "#!ipxe\nchain again\n").unwrap();
        }
        assert_eq!(chains.next(), Step::Fetch(What::Script, at("http://10.0.0.1:5248/again")));
        chains.take(at("http://10.0.0.1:5248/again"), "#!ipxe\nchain again\n").unwrap();
        assert_eq!(chains.next(), Step::Failed(LOOPS.to_owned()));
        assert!(matches!(follow("#!ipxe\nntp x\n").next(), Step::Failed(why) if why.contains("`ntp`")));
        assert!(matches!(follow("#!ipxe\nkernel ftp://x/y\n").next(), Step::Failed(why) if why.contains("URL")));
        assert!(matches!(follow("#!ipxe\n").next(), Step::Failed(why) if why.contains("ended")));
        assert!(Ipxe::new([]).take(at("http://10.0.0.1/x"), "MZ").is_err());
    }
}
