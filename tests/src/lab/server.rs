//! The `bootstorm` binary in the rack's namespace, and its command line as users have it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::assets::Assets;
use super::network::{BRIDGE, Network};
use super::process::{self, Process};
use super::{Error, wait};

/// A running server: `bootstorm up`, or `control` or `rack` alone. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    network: Arc<Network>,
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    url: Option<String>,
    process: Option<Process>,
}

impl Server {
    /// `bootstorm up` with its data in `data`, serving the bridge. Extra arguments follow.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn up(network: &Arc<Network>, assets: &Assets, data: &Path, extra: &[&str]) -> Result<Self, Error> {
        let mut arguments = vec!["up", "--data", path_text(data), "--interface", BRIDGE];
        arguments.extend(extra);
        Self::start(network, assets, data, &arguments)
    }

    /// Any of the binary's server commands. `data` is its data directory, where logs go next to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(network: &Arc<Network>, assets: &Assets, data: &Path, arguments: &[&str]) -> Result<Self, Error> {
        let mut server = Self {
            network: Arc::clone(network),
            binary: assets.bootstorm.clone(),
            data: data.to_owned(),
            log: data.with_extension("log"),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            url: None,
            process: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it after it was stopped or killed, with the same arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<(), Error> {
        let mut command = self.network.command(&self.binary);
        command.args(&self.arguments);
        self.process = Some(Process::start(command, &self.log)?);
        Ok(())
    }

    /// Waits until the API answers `bootstorm status`.
    ///
    /// # Errors
    /// [`Error::Ended`] if the server gives up, [`Error::Timeout`] after `deadline`.
    pub fn wait_until_ready(&mut self, deadline: Duration) -> Result<(), Error> {
        wait::until("`bootstorm status` to succeed", deadline, || {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(Error::Ended { log: self.log.clone(), status, tail: process::tail(&self.log) });
            }
            Ok(self.run(&["status"]).ok().map(drop))
        })
    }

    /// The process id of one role's process.
    pub fn role(&self, role: &str) -> Option<u32> {
        self.process.as_ref()?.descendant(&["role", role])
    }

    /// The supervisor's process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Ends one role's process by force, as a crash would.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn kill_role(&self, role: &str) -> Result<u32, Error> {
        let id = self.role(role).ok_or_else(|| Error::Environment(format!("no process of the role `{role}` runs")))?;
        process::signal(id, rustix::process::Signal::KILL);
        Ok(id)
    }

    /// Ends the supervisor and every role by force, as if the host had lost them.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            let roles = process::family(process.id());
            process.kill();
            for (id, _) in roles {
                process::signal(id, rustix::process::Signal::KILL);
            }
        }
    }

    /// Stops it as an administrator would; returns whether it ended in time.
    pub fn stop(&mut self) -> bool {
        self.process.take().is_none_or(|mut process| process.stop())
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where the command line finds the API; without it, the binary's own default.
    pub fn set_url(&mut self, url: String) {
        self.url = Some(url);
    }

    /// The command line's program, set up to find this server.
    pub fn command(&self) -> Command {
        let mut command = self.network.command(&self.binary);
        command.current_dir(self.data.parent().unwrap_or(Path::new("/")));
        command.env("BOOTSTORM_CA", self.data.join("ca.pem")).env("NO_COLOR", "1");
        if let Ok(token) = std::fs::read_to_string(self.data.join("admin.token")) {
            command.env("BOOTSTORM_TOKEN", token.trim());
        }
        if let Some(url) = &self.url {
            command.env("BOOTSTORM_URL", url);
        }
        command
    }

    /// Runs one command, such as `["machine", "commission", "b1", "--wait"]`, and returns its standard output.
    ///
    /// # Errors
    /// [`Error::Command`] with its message when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        process::run(self.command().args(arguments))
    }

    /// Runs one command with `-o json`.
    ///
    /// # Errors
    /// As [`Server::run`], or when the output is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        let mut with_format = arguments.to_vec();
        with_format.extend(["-o", "json"]);
        let answer = self.run(&with_format)?;
        serde_json::from_str(&answer).map_err(|error| Error::Answer {
            command: arguments.join(" "),
            missing: format!("JSON: {error}"),
            answer,
        })
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
