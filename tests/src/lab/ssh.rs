//! Logging in to installed machines.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::network::Network;
use super::{Error, limits, process, wait};

/// A key pair made for one run.
#[derive(Debug)]
pub struct Key {
    private: PathBuf,
    /// The public half as one line of `authorized_keys`.
    pub public: String,
}

impl Key {
    /// Makes a key in `directory`.
    ///
    /// # Errors
    /// When ssh-keygen fails, which it says.
    pub fn new(directory: &Path) -> Result<Self, Error> {
        let private = directory.join("ssh-key");
        let mut keygen = process::command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&private);
        process::run(&mut keygen)?;
        let path = directory.join("ssh-key.pub");
        let public = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        Ok(Self { private, public: public.trim().to_owned() })
    }

    /// The private half's file.
    pub fn path(&self) -> &Path {
        &self.private
    }

    /// The words of an ssh command that log in with this key, for people to copy.
    pub fn command_line(&self, user: &str, address: IpAddr) -> Vec<String> {
        let mut words = vec!["ssh".to_owned(), "-i".to_owned(), self.private.display().to_string()];
        for option in OPTIONS {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words.push(format!("{user}@{address}"));
        words
    }

    /// Runs `command` on a machine as `user` and returns what it printed.
    ///
    /// # Errors
    /// When the login or the command fails.
    pub fn run(&self, network: &Network, user: &str, address: IpAddr, command: &str) -> Result<String, Error> {
        let words = self.command_line(user, address);
        let mut ssh = network.command("timeout");
        ssh.arg(limits::SSH_ATTEMPT.as_secs().to_string()).args(words).arg(command);
        process::run(&mut ssh)
    }

    /// Like [`Key::run`], trying again until `deadline`: for a machine that may still be starting.
    ///
    /// # Errors
    /// The last attempt's, after `deadline`.
    pub fn run_until(
        &self,
        network: &Network,
        (user, address): (&str, IpAddr),
        command: &str,
        deadline: Duration,
    ) -> Result<String, Error> {
        let mut last = None;
        let result = wait::until(&format!("a login as {user} at {address}"), deadline, || {
            match self.run(network, user, address, command) {
                Ok(answer) => Ok(Some(answer)),
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        });
        match (result, last) {
            (Err(Error::Timeout { .. }), Some(error)) => Err(error),
            (result, _) => result,
        }
    }
}

/// Machines are installed anew under old addresses: their host keys mean nothing here.
const OPTIONS: [&str; 6] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "BatchMode=yes",
    "ConnectTimeout=5",
    "IdentitiesOnly=yes",
];
