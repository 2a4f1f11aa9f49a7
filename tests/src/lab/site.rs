//! A whole site of one rack: network, power controller, server and bare machines, and the way that a user takes each
//! machine. The end-to-end tests and the demo are written in these steps.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bootstorm_api::native::{Explanation, Image, Machine, Operation, Status};
use serde::de::DeserializeOwned;

use super::accelerator::Accelerator;
use super::assets::{Assets, RunDirectory};
use super::guest::{Guest, Hardware};
use super::network::{BOOT_NETWORK, Network, RACK_ADDRESS};
use super::power::{Action, PowerServer, SharedGuest};
use super::server::Server;
use super::{Error, process, ssh, wait};

/// Name that the Debian image is imported under.
pub const IMAGE: &str = "debian-12";
/// The user that user-data creates.
pub const USER: &str = "storm";
/// Port of the API.
pub const API_PORT: u16 = 5240;

/// How long the steps may take on real hardware or under KVM; [`Accelerator::stretch`] adapts them.
mod deadline {
    use std::time::Duration;

    pub const START: Duration = Duration::from_secs(20);
    pub const IMPORT: Duration = Duration::from_secs(180);
    pub const ENLIST: Duration = Duration::from_secs(45);
    pub const OPERATION: Duration = Duration::from_secs(180);
    pub const LOGIN: Duration = Duration::from_secs(20);
}

/// How a machine is switched on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerBy {
    /// By the server, through the power controller.
    Webhook,
    /// By hand.
    Hand,
}

/// What happens to a machine after enlistment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnlistThen {
    /// It waits for a person.
    Wait,
    /// It is commissioned in the same boot.
    Commission,
}

/// A site, from which everything is torn down when it is dropped: machines first, then servers, then the network.
#[derive(Debug)]
pub struct Site {
    /// The power controller; holds the machines.
    pub power: PowerServer,
    /// The servers: one under `up`, control and rack alone otherwise. The first has the API.
    pub servers: Vec<Server>,
    /// The key of the machines' user.
    pub key: ssh::Key,
    /// What is installed and run.
    pub assets: Assets,
    /// What executes the machines.
    pub accelerator: Accelerator,
    /// The rack's network.
    pub network: Arc<Network>,
    directory: RunDirectory,
}

impl Site {
    /// Network and power controller; no server yet.
    ///
    /// # Errors
    /// When something is missing, which it says.
    pub fn new(name: &str) -> Result<Self, Error> {
        let assets = Assets::find()?;
        let accelerator = assets.accelerator()?;
        let directory = assets.run_directory(name)?;
        let network = Arc::new(Network::new(directory.path())?);
        let power = PowerServer::start(network.host_address, Some("switch".to_owned()))?;
        let key = ssh::Key::new(directory.path())?;
        Ok(Self { power, servers: Vec::new(), key, assets, accelerator, network, directory })
    }

    /// Starts `bootstorm up`, with the API on the link to the host, and waits until it answers.
    ///
    /// # Errors
    /// When the server does not come up.
    pub fn up(&mut self, then: EnlistThen) -> Result<(), Error> {
        let data = self.directory.path().join("data");
        self.configure(&data, then)?;
        let mut server = Server::up(&self.network, &self.assets, &data, &[])?;
        server.set_url(self.api_url());
        self.servers.push(server);
        let deadline = self.accelerator.stretch(deadline::START);
        self.api().wait_until_ready(deadline)
    }

    /// Starts `bootstorm control` and `bootstorm rack` as two commands joined by a unix socket.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn up_apart(&mut self, then: EnlistThen) -> Result<(), Error> {
        let (control, rack) = (self.directory.path().join("control"), self.directory.path().join("rack"));
        self.configure(&control, then)?;
        fs::create_dir_all(&rack).map_err(|source| Error::File { path: rack.clone(), source })?;
        let link = format!("unix:{}", control.join("control/racks.sock").display());
        let text = |path: &Path| path.display().to_string();
        let arguments = ["control", "--data", &text(&control)];
        let mut server = Server::start(&self.network, &self.assets, &control, &arguments)?;
        server.set_url(self.api_url());
        self.servers.push(server);
        let deadline = self.accelerator.stretch(deadline::START);
        self.api().wait_until_ready(deadline)?;
        self.servers.push(Server::start(
            &self.network,
            &self.assets,
            &rack,
            &["rack", "--data", &text(&rack), "--control", &link, "--interface", super::network::BRIDGE],
        )?);
        Ok(())
    }

    fn configure(&self, data: &Path, then: EnlistThen) -> Result<(), Error> {
        let then = match then {
            EnlistThen::Wait => "wait",
            EnlistThen::Commission => "commission",
        };
        let origin = self.power.url("", "");
        let origin = origin.trim_end_matches('/');
        let text = format!(
            "[api]\nlisten = \"{}:{API_PORT}\"\n\n[enlist]\nthen = \"{then}\"\n\n[fetch]\nallow = [\"{origin}\"]\n",
            self.network.inner_address
        );
        let path = data.join("bootstorm.toml");
        fs::create_dir_all(data).and_then(|()| fs::write(&path, text)).map_err(|source| Error::File { path, source })
    }

    /// The server with the API.
    ///
    /// # Panics
    /// When no server was started: a mistake of the caller.
    pub fn api(&mut self) -> &mut Server {
        self.servers.first_mut().expect("a server was started")
    }

    /// Where the host reaches the API.
    pub fn api_url(&self) -> String {
        format!("https://{}:{API_PORT}", self.network.inner_address)
    }

    /// Runs one command of the command line and reads its JSON.
    ///
    /// # Errors
    /// When it fails or answers something else.
    pub fn ask<T: DeserializeOwned>(&mut self, arguments: &[&str]) -> Result<T, Error> {
        let answer = self.api().json(arguments)?;
        serde_json::from_value(answer.clone()).map_err(|error| Error::Answer {
            command: arguments.join(" "),
            missing: error.to_string(),
            answer: answer.to_string(),
        })
    }

    /// Describes the boot network, imports boot environment and image, and waits until the rack holds what it serves.
    ///
    /// # Errors
    /// When one of it is refused or takes too long.
    pub fn furnish(&mut self) -> Result<(), Error> {
        let documents = format!(
            "kind: fabric\nname: rack\n---\nkind: vlan\nfabric: rack\nvid: 0\n---\nkind: subnet\ncidr: {BOOT_NETWORK}\nfabric: rack\ngateway: {RACK_ADDRESS}\n\
             ---\nkind: range\nsubnet: {BOOT_NETWORK}\ntype: dynamic\nfirst: 10.77.4.0\nlast: 10.77.13.255\n"
        );
        self.apply("site.yaml", &documents)?;
        let assets = self.assets.clone();
        self.api().run(&["bootenv", "import", &assets.bootenv.display().to_string()])?;
        self.api().run(&["image", "import", &assets.image.display().to_string(), "--name", IMAGE])?;
        let deadline = self.accelerator.stretch(deadline::IMPORT);
        wait::until("the image to be listed", deadline, || {
            let images: Vec<Image> = self.ask(&["image", "list"])?;
            Ok(images.iter().any(|image| image.name == IMAGE).then_some(()))
        })?;
        wait::until("a rack that holds everything it serves", deadline, || {
            let status: Status = self.ask(&["status"])?;
            let whole = |rack: &bootstorm_api::native::Rack| rack.connected && rack.missing_files == 0;
            Ok((!status.racks.is_empty() && status.racks.iter().all(whole)).then_some(()))
        })
    }

    /// Applies documents, through a file as a person would.
    ///
    /// # Errors
    /// When the server refuses them.
    pub fn apply(&mut self, name: &str, documents: &str) -> Result<(), Error> {
        let path = self.directory.path().join(name);
        fs::write(&path, documents).map_err(|source| Error::File { path: path.clone(), source })?;
        self.api().run(&["apply", "-f", &path.display().to_string()]).map(drop)
    }

    /// Adds a bare machine, switched off and unknown to the server.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn add_machine(&mut self, hardware: Hardware) -> Result<SharedGuest, Error> {
        let guest = Guest::new(hardware, Arc::clone(&self.network), self.accelerator, self.directory.path())?;
        Ok(self.power.add(guest))
    }

    /// Switches an unknown machine on by hand, waits until it is enlisted, and gives it its name and power control.
    ///
    /// # Errors
    /// When it is not enlisted in time.
    pub fn enlist(&mut self, hardware: &Hardware, power: PowerBy) -> Result<Machine, Error> {
        self.power.ask(&hardware.name, Action::On)?;
        let mac = hardware.mac();
        let what = format!("{} to be enlisted", hardware.name);
        wait::until(&what, self.accelerator.stretch(deadline::ENLIST), || {
            let machines: Vec<Machine> = self.ask(&["machine", "list"])?;
            // Lists carry no inventory; a machine that enlisted itself has told its architecture.
            Ok(machines.into_iter().find(|machine| machine.architecture.is_some() && has(machine, &mac)))
        })?;
        self.describe(hardware, power)?;
        self.machine(&hardware.name)
    }

    /// Gives the server a machine's name and power parameters.
    ///
    /// # Errors
    /// When the server refuses them.
    pub fn describe(&mut self, hardware: &Hardware, power: PowerBy) -> Result<(), Error> {
        let name = &hardware.name;
        let mut document =
            format!("kind: machine\nname: {name}\nmacs: [\"{}\"]\narchitecture: amd64\n", hardware.mac());
        match power {
            PowerBy::Hand => document.push_str("power: {driver: manual}\n"),
            PowerBy::Webhook => {
                document.push_str("power:\n  driver: webhook\n  parameters:\n");
                for (parameter, action) in
                    [("power_on_uri", "on"), ("power_off_uri", "off"), ("power_query_uri", "status")]
                {
                    document.push_str(&format!("    {parameter}: \"{}\"\n", self.power.url(name, action)));
                }
                if let Some(token) = self.power.token() {
                    document.push_str(&format!("    power_token: \"{token}\"\n"));
                }
            }
        }
        self.apply(&format!("{name}.yaml"), &document)
    }

    /// The machine as the server knows it.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn machine(&mut self, name: &str) -> Result<Machine, Error> {
        self.ask(&["machine", "show", name])
    }

    /// What the server says about the machine's last operation.
    ///
    /// # Errors
    /// When there is no machine of the name.
    pub fn explain(&mut self, name: &str) -> Result<Explanation, Error> {
        self.ask(&["machine", "explain", name])
    }

    /// The machine's last operation.
    ///
    /// # Errors
    /// When there is none.
    pub fn operation(&mut self, name: &str) -> Result<Operation, Error> {
        let explanation = self.explain(name)?;
        explanation.operation.ok_or_else(|| Error::Answer {
            command: format!("machine explain {name}"),
            missing: "an operation".to_owned(),
            answer: explanation.summary,
        })
    }

    /// Waits until the machine is in a state, by its name. A failure state ends the wait.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Answer`] with the explanation when the machine's operation failed.
    pub fn wait_for_state(&mut self, name: &str, state: &str) -> Result<Machine, Error> {
        let what = format!("{name} to be {state}");
        wait::until(&what, self.accelerator.stretch(deadline::OPERATION), || {
            // The API may be away for a moment when a test ended it.
            let Ok(machine) = self.machine(name) else { return Ok(None) };
            if machine.state == state {
                return Ok(Some(machine));
            }
            if machine.state.starts_with("Failed") || machine.state == "Broken" {
                let explanation = self.api().run(&["machine", "explain", name])?;
                return Err(Error::Answer { command: what.clone(), missing: machine.state, answer: explanation });
            }
            Ok(None)
        })
    }

    /// Commissions an enlisted machine and waits until it is ready.
    ///
    /// # Errors
    /// When it fails or takes too long; the command says which.
    pub fn commission(&mut self, name: &str) -> Result<Machine, Error> {
        self.api().run(&["machine", "commission", name])?;
        self.wait_for_state(name, "Ready")
    }

    /// Takes a ready machine for the administrator.
    ///
    /// # Errors
    /// When it is not ready.
    pub fn allocate(&mut self, name: &str) -> Result<(), Error> {
        self.api().run(&["machine", "allocate", name]).map(drop)
    }

    /// Starts a deployment of [`IMAGE`] with user-data that makes [`USER`]. Extra arguments follow.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn start_deploy(&mut self, name: &str, extra: &[&str]) -> Result<(), Error> {
        self.start_deploy_of(IMAGE, name, extra)
    }

    /// Starts a deployment of another image.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn start_deploy_of(&mut self, image: &str, name: &str, extra: &[&str]) -> Result<(), Error> {
        let path = self.directory.path().join("user-data");
        fs::write(&path, self.user_data()).map_err(|source| Error::File { path: path.clone(), source })?;
        let path = path.display().to_string();
        let mut arguments = vec!["machine", "deploy", name, "--image", image, "--user-data", &path];
        arguments.extend(extra);
        self.api().run(&arguments).map(drop)
    }

    /// Deploys and waits until the system is ready.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub fn deploy(&mut self, name: &str, extra: &[&str]) -> Result<Machine, Error> {
        self.start_deploy(name, extra)?;
        self.wait_for_state(name, "Deployed")
    }

    /// Waits until the machine's operation has reached one of `stages`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Answer`] when the operation is over.
    pub fn wait_for_stage(&mut self, name: &str, stages: &[&str]) -> Result<Operation, Error> {
        let what = format!("{name} to reach {}", stages.join(" or "));
        wait::until(&what, self.accelerator.stretch(deadline::OPERATION), || {
            let operation = self.operation(name)?;
            if stages.contains(&operation.stage.as_str()) {
                return Ok(Some(operation));
            }
            match operation.status.as_str() {
                "running" => Ok(None),
                status => Err(Error::Answer {
                    command: what.clone(),
                    missing: format!("a running operation, it is {status}"),
                    answer: format!("{:?}", operation.failure),
                }),
            }
        })
    }

    /// Releases a deployed machine and waits until it is ready again.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub fn release(&mut self, name: &str) -> Result<Machine, Error> {
        self.api().run(&["machine", "release", name])?;
        self.wait_for_state(name, "Ready")
    }

    /// Logs in to a deployed machine as [`USER`], runs `command` and returns what it printed.
    ///
    /// # Errors
    /// When nobody can log in.
    pub fn login(&mut self, address: IpAddr, command: &str) -> Result<String, Error> {
        let deadline = self.accelerator.stretch(deadline::LOGIN);
        self.key.run_until(&self.network, (USER, address), command, deadline)
    }

    /// cloud-config that makes [`USER`] with the site's key. Only one kind of host key: the others take seconds.
    pub fn user_data(&self) -> String {
        format!(
            "#cloud-config\nssh_genkeytypes: [ed25519]\nusers:\n  - name: {USER}\n    shell: /bin/bash\n    \
             sudo: ALL=(ALL) NOPASSWD:ALL\n    ssh_authorized_keys:\n      - {}\n",
            self.key.public
        )
    }

    /// The run's own directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What to read when a step failed: the ends of every log.
    pub fn evidence(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str(&format!("--- {}\n{}\n", server.log().display(), process::tail(server.log())));
        }
        for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let console = entry.path().join("console.log");
            if console.exists() {
                text.push_str(&format!("--- {}\n{}\n", console.display(), process::tail(&console)));
            }
        }
        text
    }

    /// Ends a good run: stops everything and removes its directory. Returns whether every server ended by itself.
    pub fn finish(self) -> bool {
        let Self { power, mut servers, directory, network, .. } = self;
        drop(power);
        let mut in_time = true;
        for server in servers.iter_mut().rev() {
            in_time &= server.stop();
        }
        drop((servers, network));
        directory.remove();
        in_time
    }
}

/// The address of a machine's boot interface.
///
/// # Errors
/// [`Error::Answer`] when the server names none.
pub fn address_of(machine: &Machine) -> Result<IpAddr, Error> {
    let addresses = machine.interfaces.iter().flat_map(|interface| &interface.addresses);
    addresses.filter_map(|address| address.split('/').next()?.parse().ok()).next().ok_or_else(|| Error::Answer {
        command: format!("machine show {}", machine.name),
        missing: "an address".to_owned(),
        answer: format!("{:?}", machine.interfaces),
    })
}

fn has(machine: &Machine, mac: &str) -> bool {
    machine.interfaces.iter().any(|interface| interface.mac.eq_ignore_ascii_case(mac))
}
