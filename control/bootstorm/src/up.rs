//! `bootstorm up`, `control` and `rack`: checks everything, opens sockets, and hands over to the supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bootstorm_api::role::{
    BmcConfig, ControlAddress, ControlConfig, GatewayConfig, RackConfig, RackInterface, RoleConfig, RoleName,
};
use clap::Args;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, ConfigError};
use crate::supervisor::interfaces::{self, InterfaceError};
use crate::supervisor::sockets::{self, SocketError};
use crate::supervisor::{self, Role, neighbours};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An interface cannot be served.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The data directory cannot be used.
    #[error("cannot use data directory `{}`: {source}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another instance has it.
    #[error("data directory `{}` is in use by another running Bootstorm", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The address of control is not understood.
    #[error("`{0}` is not an address of control; write unix:PATH or https://HOST:PORT")]
    ControlAddress(String),
    /// The key of sealed values cannot be made.
    #[error(transparent)]
    Control(#[from] bootstorm_controld::Error),
    /// A role cannot be started.
    #[error("cannot start a role: {0}")]
    Role(#[from] std::io::Error),
}

/// Everything on one machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bootstorm up                                  API only, on loopback\n  \
bootstorm up --interface eth1                 serve machines on eth1\n  bootstorm up --config site.toml --check       \
only check the configuration\n\nThe API's token is in DIR/admin.token, the site's CA in DIR/ca.pem.")]
pub struct Up {
    /// Interface to serve (DHCP, TFTP, HTTP, DNS); may be given several times
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// The control plane alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bootstorm control --data /var/lib/bootstorm")]
pub struct Control {
    #[command(flatten)]
    common: Common,
}

/// A rack alone, joined to a control plane.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  bootstorm rack --data /var/lib/bootstorm-rack --control unix:/var/lib/bootstorm/control/racks.sock --interface eth1"
)]
pub struct Rack {
    /// Where control is: unix:PATH on the same host
    #[arg(long, value_name = "ADDRESS")]
    control: String,
    /// One-use token to join with; not needed over a unix socket
    #[arg(long, env = "BOOTSTORM_JOIN_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// Interface to serve; may be given several times
    #[arg(long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file; `bootstorm.toml` in the data directory is used if it is there
    #[arg(long)]
    config: Option<PathBuf>,
    /// Check the configuration and stop
    #[arg(long)]
    check: bool,
    /// Address of the API, instead of the configuration's `api.listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// What happens to a machine after it has enlisted, instead of `enlist.then`
    #[arg(long, value_name = "wait|commission", value_parser = enlist_then)]
    enlist_then: Option<bootstorm_api::role::EnlistThen>,
    /// Origin that webhooks may reach besides public addresses, in addition to `fetch.allow`
    #[arg(long, value_name = "ORIGIN")]
    fetch_allow: Vec<String>,
}

fn enlist_then(text: &str) -> Result<bootstorm_api::role::EnlistThen, String> {
    use bootstorm_api::role::EnlistThen;
    match text {
        "wait" => Ok(EnlistThen::Wait),
        "commission" => Ok(EnlistThen::Commission),
        other => Err(format!("`{other}` is not one of wait, commission")),
    }
}

impl Common {
    fn read(&self, data: &Path) -> Result<Config, StartError> {
        let beside = data.join("bootstorm.toml");
        let path = self.config.clone().or_else(|| beside.exists().then_some(beside));
        let mut config = config::read(path.as_deref())?;
        if let Some(listen) = self.api_listen {
            config.api_listen = listen;
        }
        if let Some(then) = self.enlist_then {
            config.enlist_then = then;
        }
        config.fetch_allow.extend(self.fetch_allow.iter().cloned());
        Ok(config)
    }
}

/// Runs `bootstorm up`.
pub async fn up(data: &Path, arguments: &[String], command: Up) -> Result<(), StartError> {
    let mut config = command.common.read(data)?;
    if !command.interfaces.is_empty() {
        config.interfaces = command.interfaces;
    }
    let served = find(&config.interfaces)?;
    if command.common.check {
        return checked();
    }
    let _lock = prepare(data)?;
    bootstorm_controld::prepare(data)?;
    let socket = data.join("control").join("racks.sock");
    let mut roles = control_roles(data, &config);
    roles.extend(rack_roles(&data.join("rack"), &config, served, ControlAddress::Unix { path: socket }, None)?);
    run(data, &config, roles, arguments, true).await
}

/// Runs `bootstorm control`.
pub async fn control(data: &Path, arguments: &[String], command: Control) -> Result<(), StartError> {
    let config = command.common.read(data)?;
    if command.common.check {
        return checked();
    }
    let _lock = prepare(data)?;
    bootstorm_controld::prepare(data)?;
    run(data, &config, control_roles(data, &config), arguments, true).await
}

/// Runs `bootstorm rack`.
pub async fn rack(data: &Path, arguments: &[String], command: Rack) -> Result<(), StartError> {
    let mut config = command.common.read(data)?;
    if !command.interfaces.is_empty() {
        config.interfaces = command.interfaces;
    }
    let control = match command.control.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => ControlAddress::Unix { path: PathBuf::from(path) },
        _ => return Err(StartError::ControlAddress(command.control)),
    };
    let served = find(&config.interfaces)?;
    if command.common.check {
        return checked();
    }
    let _lock = prepare(data)?;
    let roles = rack_roles(&data.join("rack"), &config, served, control, command.join)?;
    run(data, &config, roles, arguments, false).await
}

fn checked() -> Result<(), StartError> {
    println!("the configuration is valid");
    Ok(())
}

fn find(names: &[String]) -> Result<Vec<RackInterface>, StartError> {
    Ok(names.iter().map(|name| interfaces::find(name)).collect::<Result<_, _>>()?)
}

/// Makes the data directory and takes it: one Bootstorm at a time.
fn prepare(data: &Path) -> Result<fs::File, StartError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let failed = |source: std::io::Error| StartError::Data { path: data.to_path_buf(), source };
    fs::create_dir_all(data).map_err(failed)?;
    let lock = fs::File::create(data.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse { path: data.to_path_buf() }),
        Err(error) => Err(failed(error.into())),
    }
}

fn control_roles(data: &Path, config: &Config) -> BTreeMap<RoleName, Role> {
    let control = ControlConfig {
        data: data.to_path_buf(),
        api_listen: config.api_listen,
        racks_socket: data.join("control").join("racks.sock"),
        enlist_then: config.enlist_then,
        fetch_allow: config.fetch_allow.clone(),
        upload_bytes_max: config.upload_bytes_max,
    };
    let bmc = BmcConfig { key_file: data.join("master.key"), fetch_allow: config.fetch_allow.clone() };
    BTreeMap::from([
        (RoleName::Control, Role { config: RoleConfig::Control(control), sockets: vec![] }),
        (RoleName::Bmc, Role { config: RoleConfig::Bmc(bmc), sockets: vec![] }),
    ])
}

fn rack_roles(
    data: &Path,
    config: &Config,
    interfaces: Vec<RackInterface>,
    control: ControlAddress,
    join_token: Option<String>,
) -> Result<BTreeMap<RoleName, Role>, StartError> {
    if !interfaces.is_empty() {
        neighbours::raise();
    }
    let processors = std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
    let shards = if config.shards == 0 { processors.min(256) } else { config.shards };
    let (mut rack_sockets, mut gateway_sockets) = (Vec::new(), Vec::new());
    for interface in &interfaces {
        rack_sockets.extend(sockets::rack(interface, config.ports, shards)?);
        gateway_sockets.push(sockets::gateway(interface, config.ports.agent)?);
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let gateway = GatewayConfig {
        data: data.join("gateway"),
        control,
        join_token,
        name,
        addresses: interfaces.iter().map(|i| i.address).collect(),
        interfaces: interfaces.clone(),
        origins: config.origins.clone(),
    };
    let rack = RackConfig {
        data: data.to_path_buf(),
        interfaces,
        http_port: config.ports.http,
        agent_port: config.ports.agent,
        shards,
        cache_bytes: config.cache_bytes,
        driver: config.driver,
        dns: config.dns,
    };
    Ok(BTreeMap::from([
        (RoleName::Rack, Role { config: RoleConfig::Rack(rack), sockets: rack_sockets }),
        (RoleName::Gateway, Role { config: RoleConfig::Gateway(gateway), sockets: gateway_sockets }),
    ]))
}

async fn run(
    data: &Path,
    config: &Config,
    roles: BTreeMap<RoleName, Role>,
    arguments: &[String],
    has_api: bool,
) -> Result<(), StartError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    if has_api {
        let (data, listen) = (data.to_path_buf(), config.api_listen);
        tokio::spawn(async move { announce(&data, listen).await });
    }
    supervisor::run(roles, arguments, stop).await?;
    Ok(())
}

/// Says where the API is, once it is: the token itself only on the first start.
async fn announce(data: &Path, listen: SocketAddr) {
    let token_file = data.join("admin.token");
    let first = !token_file.exists();
    let mut pause = std::time::Duration::from_millis(20);
    while tokio::net::TcpStream::connect(listen).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_secs(1));
    }
    let scheme = if listen.ip().is_loopback() { "http" } else { "https" };
    println!("Bootstorm is up: {scheme}://{listen} (API document: /openapi.json)");
    match fs::read_to_string(&token_file) {
        Ok(token) if first => println!("administrator's token (also in {}): {}", token_file.display(), token.trim()),
        _ => println!("administrator's token: in {}", token_file.display()),
    }
    if first && std::io::stdout().is_terminal() {
        println!("next: `bootstorm bootenv build --help`, `bootstorm status`");
    }
}
