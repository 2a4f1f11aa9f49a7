//! One role in a process of its own: takes its configuration and descriptors from standard input and runs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use bootstorm_api::origin::Origin;
use bootstorm_api::role::{Descriptor, RoleConfig, ToRole};
use bootstorm_gateway::origins::{Credentials, Origins};
use clap::ValueEnum;

use crate::confine;
use crate::supervisor::descriptors;

/// Roles that are processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// DHCP, TFTP, HTTP
    Rack,
    /// Agents' TLS, link to control
    Gateway,
    /// API, lifecycle
    Control,
    /// Power
    Bmc,
    /// One image, from standard input to standard output
    Importer,
    /// Content from origins, for `serve`
    Fetcher,
}

/// Streams to the role at the other end of a pair that may wait to be taken.
const STREAMS_WAITING: usize = 4;

/// Threads of the fetcher: it waits for networks, and hashes.
const FETCHER_THREADS: usize = 2;

/// Runs a role, confined to what it needs before its first thread is started, until the supervisor closes its end of standard input; the importer until its source ends.
pub fn run(name: Name, options: Option<&str>) -> Result<(), String> {
    match name {
        Name::Importer => return importer(options),
        Name::Fetcher => return fetcher(options),
        Name::Rack | Name::Gateway | Name::Control | Name::Bmc => {}
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("standard input: {e}"))?;
    let supervisor = UnixStream::from(stdin);
    let (config, sockets) = match descriptors::receive(&supervisor) {
        Ok(Some((ToRole::Start { role, descriptors }, fds))) if descriptors.len() == fds.len() => {
            (*role, descriptors.into_iter().zip(fds).collect::<Vec<(Descriptor, OwnedFd)>>())
        }
        Ok(_) => return Err("a role is started by the supervisor; run `bootstorm up`".into()),
        Err(error) => return Err(format!("standard input: {error}; a role is started by `bootstorm up`")),
    };
    match (name, config) {
        (Name::Rack, RoleConfig::Rack(config)) => rack(config, sockets, supervisor),
        (Name::Gateway, RoleConfig::Gateway(config)) => {
            confine::gateway(&config)?;
            let listeners = sockets.into_iter().map(|(_, fd)| std::net::TcpListener::from(fd)).collect();
            tokio_role(supervisor, |streams, stop| async move {
                bootstorm_gateway::run(config, listeners, streams, stop).await.map_err(|e| e.to_string())
            })
        }
        (Name::Control, RoleConfig::Control(config)) => {
            confine::control(&config)?;
            tokio_role(supervisor, |streams, stop| async move {
                bootstorm_controld::run_control(config, streams, stop).await.map_err(|e| e.to_string())
            })
        }
        (Name::Bmc, RoleConfig::Bmc(config)) => {
            confine::bmc(&config)?;
            tokio_role(supervisor, |streams, stop| async move {
                bootstorm_controld::run_bmc(config, streams, stop).await.map_err(|e| e.to_string())
            })
        }
        (name, _) => Err(format!("the configuration passed is not for the role {name:?}")),
    }
}

/// A tokio role: streams from the supervisor, and a future that is ready when it is to stop.
fn tokio_role<F, W>(supervisor: UnixStream, work: F) -> Result<(), String>
where
    F: FnOnce(tokio::sync::mpsc::Receiver<UnixStream>, StopSignal) -> W,
    W: Future<Output = Result<(), String>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let (streams, receiver) = tokio::sync::mpsc::channel(STREAMS_WAITING);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    listen(supervisor, move |stream| streams.blocking_send(stream).is_ok(), move || drop(stop))?;
    runtime.block_on(work(receiver, StopSignal(stopped)))
}

/// Ready when the supervisor has closed its end.
pub struct StopSignal(tokio::sync::oneshot::Receiver<()>);

impl Future for StopSignal {
    type Output = ();
    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(context).map(drop)
    }
}

/// A thread that takes what the supervisor sends: streams for `peer`, and the end for `end`.
fn listen(
    supervisor: UnixStream,
    peer: impl Fn(UnixStream) -> bool + Send + 'static,
    end: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let thread = std::thread::Builder::new().name("supervisor".into());
    let work = move || {
        loop {
            match descriptors::receive(&supervisor) {
                Ok(Some((ToRole::Peer { .. }, fds))) => {
                    if !fds.into_iter().all(|fd| peer(UnixStream::from(fd))) {
                        break;
                    }
                }
                Ok(Some((ToRole::Start { .. }, _))) => tracing::warn!("a second start was ignored"),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the supervisor is gone");
                    break;
                }
            }
        }
        end();
    };
    thread.spawn(work).map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

/// The rack role: threads, no tokio.
fn rack(
    config: bootstorm_api::role::RackConfig,
    sockets: Vec<(Descriptor, OwnedFd)>,
    supervisor: UnixStream,
) -> Result<(), String> {
    let confined = bootstorm_rackd::confine(&config.data).map_err(|error| error.to_string())?;
    let (streams, receiver) = std::sync::mpsc::sync_channel(STREAMS_WAITING);
    let stop = bootstorm_rackd::Stop::new();
    let stopping = stop.clone();
    listen(supervisor, move |stream| streams.send(stream).is_ok(), move || stopping.trigger())?;
    bootstorm_rackd::run(config, sockets, receiver, confined, stop).map_err(|error| error.to_string())
}

/// The fetcher: a rack's wishes from standard input, until it ends.
fn fetcher(options: Option<&str>) -> Result<(), String> {
    let options = options.ok_or("the fetcher is started by `bootstorm serve`, which says from where")?;
    let origins: Vec<Origin> =
        serde_json::from_str(options).map_err(|error| format!("the fetcher's origins: {error}"))?;
    confine::fetcher(&origins)?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("standard input: {e}"))?;
    let credentials = Credentials::from_environment();
    let origins = Origins::new(origins, credentials.as_ref()).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(FETCHER_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(bootstorm_gateway::run_fetcher(origins, stdin.into())).map_err(|error| error.to_string())
}

/// The importer: a filter from standard input to standard output.
fn importer(options: Option<&str>) -> Result<(), String> {
    use bootstorm_controld::importer::{ImportOptions, run_importer};
    let options = options.ok_or("the importer is started by control, which says what to do")?;
    let options = ImportOptions::from_argument(options).map_err(|error| error.to_string())?;
    confine::importer()?;
    let source = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("standard input: {e}"))?;
    run_importer(&options, source.into(), std::io::stdout().lock()).map(drop).map_err(|error| error.to_string())
}
