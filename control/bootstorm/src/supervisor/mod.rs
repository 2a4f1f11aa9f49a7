//! The supervisor: opens sockets, starts the roles, passes them what they need, and starts them again after a crash.
//!
//! It holds no secret and parses nothing from a network. A role that ends while it should run is started again with a
//! growing wait; sockets stay open in between, so clients wait instead of being refused.

pub mod descriptors;
pub mod interfaces;
pub mod neighbours;
pub mod sockets;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bootstorm_api::role::{Descriptor, RoleConfig, RoleName, ToRole};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// First and longest wait before a role is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A role that ran for this long is taken to be healthy: its next restart is quick again.
const HEALTHY: Duration = Duration::from_secs(30);
/// Roles have this long to end by themselves before they are killed.
const STOP: Duration = Duration::from_secs(15);
/// Streams between roles: whenever one end is started anew both get a fresh one.
const PAIRS: [(RoleName, RoleName); 2] = [(RoleName::Rack, RoleName::Gateway), (RoleName::Control, RoleName::Bmc)];

/// What a role is started with.
pub struct Role {
    /// Its configuration.
    pub config: RoleConfig,
    /// Its sockets; they stay open here and are passed again after a crash.
    pub sockets: Vec<(Descriptor, OwnedFd)>,
}

struct Running {
    control: UnixStream,
    started: Instant,
    pid: Option<u32>,
}

struct Ended {
    name: RoleName,
    status: io::Result<ExitStatus>,
}

/// Runs the roles until `stop` is ready, then ends them in the reverse order of starting.
///
/// Fails only if a role cannot be started at all; a role that dies later is started again.
pub async fn run(
    roles: BTreeMap<RoleName, Role>,
    arguments: &[String],
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut supervisor = Supervisor { roles, arguments, running: BTreeMap::new(), children: JoinSet::new() };
    let names: Vec<RoleName> = supervisor.roles.keys().copied().collect();
    for name in &names {
        supervisor.start(*name)?;
    }
    let mut restarts: JoinSet<RoleName> = JoinSet::new();
    let mut waits: BTreeMap<RoleName, Duration> = BTreeMap::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(Ok(ended)) = supervisor.children.join_next() => {
                let ran = supervisor.running.remove(&ended.name).map(|r| r.started.elapsed()).unwrap_or_default();
                let wait = waits.entry(ended.name).or_insert(RESTART.0);
                if ran > HEALTHY {
                    *wait = RESTART.0;
                }
                let status = ended.status.map_or_else(|e| e.to_string(), |s| s.to_string());
                tracing::error!(role = ?ended.name, %status, ran_seconds = ran.as_secs(), restart_ms = wait.as_millis(), "role ended; starting it again");
                let (name, pause) = (ended.name, *wait);
                *wait = (*wait * 2).min(RESTART.1);
                restarts.spawn(async move { tokio::time::sleep(pause).await; name });
            }
            Some(Ok(name)) = restarts.join_next() => {
                if let Err(error) = supervisor.start(name) {
                    tracing::error!(role = ?name, %error, "cannot start the role; trying again");
                    let pause = RESTART.1;
                    restarts.spawn(async move { tokio::time::sleep(pause).await; name });
                }
            }
        }
    }
    supervisor.stop(&names).await;
    Ok(())
}

struct Supervisor<'a> {
    roles: BTreeMap<RoleName, Role>,
    arguments: &'a [String],
    running: BTreeMap<RoleName, Running>,
    children: JoinSet<Ended>,
}

impl Supervisor<'_> {
    fn start(&mut self, name: RoleName) -> io::Result<()> {
        let role = self.roles.get(&name).ok_or_else(|| io::Error::other("no such role"))?;
        let (here, there) = UnixStream::pair()?;
        // The path that was started, not what may have been put in its place since.
        let mut command = Command::new("/proc/self/exe");
        if name != RoleName::Gateway {
            // Only who fetches from buckets needs their keys (threat model, T20: the rack holds no secret).
            for variable in bootstorm_gateway::origins::ENVIRONMENT {
                command.env_remove(variable);
            }
        }
        if let RoleConfig::Control(control) = &role.config {
            // SQLite's temporary files, elsewhere by default, must be where the role may write.
            command.env("SQLITE_TMPDIR", control.data.join("control"));
        }
        let mut child = command
            .arg("role")
            .arg(word(name))
            .args(self.arguments)
            .stdin(Stdio::from(OwnedFd::from(there)))
            // A group of its own: Ctrl-C on a terminal is for the supervisor, which ends the roles in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let list = role.sockets.iter().map(|(what, _)| *what).collect();
        let fds: Vec<BorrowedFd<'_>> = role.sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        let message = ToRole::Start { role: Box::new(role.config.clone()), descriptors: list };
        descriptors::send(&here, &message, &fds)?;
        let pid = child.id();
        tracing::info!(role = ?name, pid, "role started");
        self.running.insert(name, Running { control: here, started: Instant::now(), pid });
        self.children.spawn(async move { Ended { name, status: wait(&mut child).await } });
        self.connect(name);
        Ok(())
    }

    /// Gives fresh streams to a role and to those it speaks with.
    fn connect(&self, name: RoleName) {
        for (left, right) in PAIRS.iter().filter(|(l, r)| *l == name || *r == name) {
            let (Some(l), Some(r)) = (self.running.get(left), self.running.get(right)) else { continue };
            let passed = UnixStream::pair().and_then(|(a, b)| {
                descriptors::send(&l.control, &ToRole::Peer { peer: *right }, &[a.as_fd()])?;
                descriptors::send(&r.control, &ToRole::Peer { peer: *left }, &[b.as_fd()])
            });
            if let Err(error) = passed {
                // The one that did not take it has ended; its next start brings fresh streams to both.
                tracing::warn!(?left, ?right, %error, "cannot connect two roles");
            }
        }
    }

    async fn stop(mut self, names: &[RoleName]) {
        for name in names.iter().rev() {
            // The end of its standard input tells a role to end.
            if let Some(running) = self.running.remove(name) {
                tracing::debug!(role = ?name, pid = running.pid, "stopping");
            }
        }
        let all = async { while self.children.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP, all).await.is_err() {
            tracing::warn!("roles did not end in time and are killed");
        }
    }
}

async fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    child.wait().await
}

/// The word by which a role is named on the command line.
pub fn word(name: RoleName) -> &'static str {
    match name {
        RoleName::Rack => "rack",
        RoleName::Gateway => "gateway",
        RoleName::Control => "control",
        RoleName::Bmc => "bmc",
    }
}
