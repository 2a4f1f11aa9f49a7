//! `bootstorm up` on the server's side of a link.

use std::fs;
use std::path::{Path, PathBuf};

use bootstorm_tests::lab::{Error, process, wait};
use serde_json::Value;

use crate::cgroup::Group;
use crate::veth::{INTERFACE, LEASED, Link, NETWORK, Pin, Port, SERVER, Servers, Side};
use crate::{limits, memory};

/// Port of the rack's HTTP.
pub const HTTP_PORT: u16 = 5248;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Up<'a> {
    // Dropped in this order: the rack's group can go when its process has ended.
    servers: Servers<'a>,
    rack: Group,
    rack_id: u32,
    binary: PathBuf,
    data: PathBuf,
    link: &'a Link,
}

impl<'a> Up<'a> {
    /// Starts it with its data in `data`, and waits until the rack serves all it is to serve. What an unknown machine
    /// does after it has enlisted is to be commissioned, in the same boot.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(link: &'a Link, binary: &Path, data: &Path, pin: Pin) -> Result<Self, Error> {
        let mut servers = Servers::new(link, "bootstorm", pin)?;
        let path = data.display().to_string();
        let arguments = ["up", "--data", &path, "--interface", INTERFACE].map(str::to_owned);
        servers.start(binary, &arguments, &data.with_extension("log"))?;
        servers.wait_for_ports(&[Port::Udp(67), Port::Udp(69), Port::Tcp(HTTP_PORT), Port::Tcp(5240)])?;
        let rack = Group::new("rack")?;
        let rack_id = wait::until("the rack's process", limits::SERVER_START, || {
            servers.check()?;
            Ok(servers.first().and_then(|process| process.descendant(&["role", "rack"])))
        })?;
        fs::write(rack.processes(), rack_id.to_string())
            .map_err(|source| Error::File { path: rack.processes(), source })?;
        let mut up = Self { servers, rack, rack_id, binary: binary.to_owned(), data: data.to_owned(), link };
        up.wait_until_whole()?;
        Ok(up)
    }

    /// Waits until the rack is connected and lacks no file.
    ///
    /// # Errors
    /// [`Error::Ended`] if the server ends, [`Error::Timeout`].
    pub fn wait_until_whole(&mut self) -> Result<(), Error> {
        wait::until("a rack that holds everything it serves", limits::SERVER_START, || {
            self.servers.check()?;
            // The API comes a moment after the sockets.
            let Ok(status) = self.json(&["status"]) else { return Ok(None) };
            let racks = status["racks"].as_array().map(Vec::as_slice).unwrap_or_default();
            let whole = |rack: &Value| rack["connected"] == true && rack["missing_files"] == 0;
            Ok((!racks.is_empty() && racks.iter().all(whole)).then_some(()))
        })
    }

    /// Describes the network of the link: one subnet, nearly all of it to be leased.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn describe_network(&self) -> Result<(), Error> {
        let (first, last) = LEASED;
        self.apply(&format!(
            "kind: fabric\nname: rack\n---\nkind: vlan\nfabric: rack\nvid: 0\n---\nkind: subnet\ncidr: {NETWORK}\nfabric: rack\n\
             gateway: {SERVER}\n---\nkind: range\nsubnet: {NETWORK}\ntype: dynamic\nfirst: {first}\nlast: {last}\n"
        ))
    }

    /// Applies documents.
    ///
    /// # Errors
    /// When the server refuses them.
    pub fn apply(&self, documents: &str) -> Result<(), Error> {
        let path = self.data.with_extension("yaml");
        fs::write(&path, documents).map_err(|source| Error::File { path: path.clone(), source })?;
        self.run(&["apply", "-f", &path.display().to_string()]).map(drop)
    }

    /// Runs one command of the command line and returns what it prints.
    ///
    /// # Errors
    /// [`Error::Command`] with its message when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.link.command(Side::Server, &self.binary);
        command.args(arguments).env("NO_COLOR", "1").env("BOOTSTORM_URL", "http://127.0.0.1:5240");
        if let Ok(token) = fs::read_to_string(self.data.join("admin.token")) {
            command.env("BOOTSTORM_TOKEN", token.trim());
        }
        process::run(&mut command)
    }

    /// Runs one command with `-o json`.
    ///
    /// # Errors
    /// As [`Up::run`], or when the output is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        let answer = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&answer).map_err(|error| Error::Answer {
            command: arguments.join(" "),
            missing: format!("JSON: {error}"),
            answer,
        })
    }

    /// All its roles.
    pub fn servers(&mut self) -> &mut Servers<'a> {
        &mut self.servers
    }

    /// Process id of the rack role.
    pub fn rack_id(&self) -> u32 {
        self.rack_id
    }

    /// CPU seconds of the rack role: what answers machines.
    ///
    /// # Errors
    /// When the kernel does not say, or the role has been started anew and is not the one that was to be measured.
    pub fn rack_cpu_seconds(&self) -> Result<f64, Error> {
        let now = self.servers.first().and_then(|process| process.descendant(&["role", "rack"]));
        if now != Some(self.rack_id) {
            return Err(Error::Environment("the rack role has ended under load".to_owned()));
        }
        self.rack.cpu_seconds()
    }

    /// CPU seconds of all roles.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        Ok(self.rack.cpu_seconds()? + self.servers.cpu_seconds()?)
    }

    /// Octets that all roles alone hold now.
    ///
    /// # Errors
    /// When the kernel does not tell the processes.
    pub fn own_bytes(&self) -> Result<u64, Error> {
        Ok(self.servers.own_bytes()? + memory::own_bytes(&self.rack.members()?))
    }
}
