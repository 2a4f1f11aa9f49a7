//! Processes of the laboratory: each logs to a file and none outlives the thread that started it.
//!
//! Everything is started through `setpriv --pdeathsig KILL`, so that it ends with us even when we are killed. The
//! kernel sends that signal when the *thread* that forked ends: start processes from threads that live long enough.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Error, limits, wait};

/// `program`, to be killed when the calling thread ends.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// [`Error::Command`] with its standard error when it does not succeed.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let shown = show(command);
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Start { command: shown.clone(), source })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Command { command: shown, status: output.status, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a line for messages, without the words that only confine it.
fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let own = words.iter().rposition(|word| *word == "--").map_or(0, |index| index + 1);
    let own = if own < words.len() && matches!(words[0].to_str(), Some("setpriv" | "nsenter")) { own } else { 0 };
    words[own..].iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A running process. Dropping it ends it and its descendants.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, standard output and error appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, Error> {
        let shown = show(&command);
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) =
            open().and_then(|out| Ok((out, open()?))).map_err(|source| Error::File { path: log.to_owned(), source })?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(|source| Error::Start { command: shown, source })?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id, which is the program's own: what confines it replaces itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it as a power cut would: by force, at once, and waits for the end. Descendants are left alone.
    pub fn kill(&mut self) {
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Asks it to end, waits for [`limits::STOP_GRACE`], then ends it and whatever is left of its descendants by force.
    /// Returns whether it ended by itself.
    pub fn stop(&mut self) -> bool {
        let family = descendants(self.id());
        let asked = self.ended().is_none();
        if asked {
            signal(self.id(), Signal::TERM);
        }
        let started = Instant::now();
        let mut in_time = true;
        while self.ended().is_none() {
            if started.elapsed() > limits::STOP_GRACE {
                in_time = false;
                self.kill();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        for member in family {
            if identity(member.id).is_some_and(|now| now.started == member.started) {
                signal(member.id, Signal::KILL);
            }
        }
        in_time
    }

    /// The descendant whose command line holds `words` in a row, if there is one: how a role is found.
    pub fn descendant(&self, words: &[&str]) -> Option<u32> {
        let holds = |line: &[String]| line.windows(words.len()).any(|some| some == words);
        family(self.id()).into_iter().find(|(_, line)| holds(line)).map(|(id, _)| id)
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// [`Error::Ended`] if it ends before, [`Error::Timeout`] after `deadline`.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<(), Error> {
        let what = format!("`{text}` in {}", self.log.display());
        wait::until(&what, deadline, || {
            if fs::read_to_string(&self.log).unwrap_or_default().contains(text) {
                return Ok(Some(()));
            }
            match self.ended() {
                Some(status) => Err(Error::Ended { log: self.log.clone(), status, tail: tail(&self.log) }),
                None => Ok(None),
            }
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal to one process; one that is gone is no error.
pub fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// The end of a log, for messages. Control characters but newlines are dropped.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(limits::EVIDENCE_LINES);
    let clean = |line: &&str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    lines[from..].iter().map(clean).collect::<Vec<_>>().join("\n")
}

/// A process as the kernel tells it apart from a later one with the same id.
#[derive(Clone, Copy, Debug)]
struct Identity {
    id: u32,
    parent: u32,
    started: u64,
}

/// Reads `/proc/ID/stat`: parent is field 4, start time field 22; the name (field 2) may hold anything up to its `)`.
fn identity(id: u32) -> Option<Identity> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<_> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(Identity { id, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? })
}

fn descendants(root: u32) -> Vec<Identity> {
    let ids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<_> = ids.filter_map(identity).collect();
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for member in all.iter().filter(|member| member.parent == parent) {
            parents.push(member.id);
            found.push(*member);
        }
    }
    found
}

/// The most memory that a process ever held, KiB.
pub fn peak_memory_kib(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse().ok())
}

/// The processes below `root`, each with its command line's words.
pub fn family(root: u32) -> Vec<(u32, Vec<String>)> {
    let words = |id: u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
    };
    descendants(root).into_iter().map(|member| (member.id, words(member.id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_a_process_ends_its_children_too() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut shell = command("sh");
        shell.args(["-c", "trap '' TERM; sleep 600 & echo started; exec sleep 601"]);
        let mut process = Process::start(shell, &log).unwrap();
        process.wait_for("started", Duration::from_secs(10)).unwrap();
        let child = process.descendant(&["sleep", "600"]).expect("the shell's child");
        process.kill();
        assert!(process.ended().is_some());
        assert!(identity(child).is_some(), "killing one process leaves its children alone");
        signal(child, Signal::KILL);
    }

    #[test]
    fn a_command_that_fails_shows_itself_and_its_message() {
        let error = run(command("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains("sh -c"), "{error}");
    }
}
