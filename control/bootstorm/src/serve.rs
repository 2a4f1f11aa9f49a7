//! `bootstorm serve`: the files of a directory, or of origins, by HTTP and TFTP, nothing else.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bootstorm_api::origin::Origin;
use bootstorm_gateway::origins::{Credentials, Origins};
use bootstorm_rackd::Source;
use clap::{Args, ValueEnum};

use crate::config;
use crate::supervisor::sockets;

/// Serves the files of a directory, or of origins, by their names.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  bootstorm serve tftpboot --http 127.0.0.1:8080 --tftp 127.0.0.1:6969\n\nThe sockets are \
open when every file is imported. Under `--encoding zstd` a file is served as NAME.zst, its stored stream.\n\nExample:\n  \
bootstorm serve --origin http://10.0.0.2:8080 --origin s3://images/storm --http 127.0.0.1:8080\n\nAn origin is another \
`serve`, or what `bootstorm origin build` has laid out: dir:PATH, http://HOST[:PORT][/PREFIX] or \
s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME] (keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY). The first that \
has something gives it; what is asked for is fetched once, checked and kept."
)]
pub struct Serve {
    /// The directory
    #[arg(required_unless_present = "origins", conflicts_with = "origins")]
    directory: Option<PathBuf>,
    /// Where the files are instead; may be given several times, in the order of preference
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<Origin>,
    /// Address of HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddrV4>,
    /// Address of TFTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    tftp: Option<SocketAddrV4>,
    /// Threads; one for each processor by default
    #[arg(long)]
    workers: Option<u16>,
    /// How files of the directory are stored and sent
    #[arg(long, value_enum, default_value_t = Encoding::Plain)]
    encoding: Encoding,
    /// Memory for what is served, e.g. 512M or 8G; a quarter of what is available by default
    #[arg(long, value_name = "SIZE", value_parser = cache_size)]
    cache: Option<u64>,
    /// What does input and output
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    driver: Driver,
}

/// What does input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring, and epoll where there is none
    Auto,
    /// io_uring
    Uring,
    /// epoll
    Epoll,
}

/// How files are stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// As they are
    Plain,
    /// One zstd frame a chunk
    Zstd,
}

impl From<Encoding> for bootstorm_rackd::Encoding {
    fn from(encoding: Encoding) -> bootstorm_rackd::Encoding {
        match encoding {
            Encoding::Plain => bootstorm_rackd::Encoding::Plain,
            Encoding::Zstd => bootstorm_rackd::Encoding::Zstd,
        }
    }
}

fn cache_size(text: &str) -> Result<u64, String> {
    config::parse_size(text).ok_or_else(|| config::SIZE_RULE.to_owned())
}

/// Runs until interrupted. The store is a directory of its own below the data directory.
/// `arguments` are those that every role is told again.
pub fn run(data: &Path, arguments: &[String], command: Serve) -> Result<(), String> {
    let processors = std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
    let workers = command.workers.unwrap_or(processors).max(1);
    if command.http.is_none() && command.tftp.is_none() {
        return Err("nothing to serve on: give --http ADDRESS:PORT, --tftp ADDRESS:PORT or both".into());
    }
    let source = match command.directory {
        Some(path) => Source::Directory { path, encoding: command.encoding.into() },
        None => {
            let list = list_of_files(&command.origins)?;
            Source::Origins { list, fetcher: start_fetcher(&command.origins, arguments)? }
        }
    };
    let options = bootstorm_rackd::ServeOptions {
        source,
        http: open(command.http, workers, sockets::listener)?,
        tftp: open(command.tftp, workers, sockets::datagram)?,
        store: data.join("serve"),
        cache_bytes: command.cache,
        driver: match command.driver {
            Driver::Auto => bootstorm_rackd::Driver::Auto,
            Driver::Uring => bootstorm_rackd::Driver::Uring,
            Driver::Epoll => bootstorm_rackd::Driver::Epoll,
        },
    };
    let stop = bootstorm_rackd::Stop::new();
    let stop_on_signal = signals(stop.clone())?;
    // Whatever thread is started from here on is confined too.
    let confined = bootstorm_rackd::confine_serve(&options).map_err(|error| error.to_string())?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(stop_on_signal)
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    bootstorm_rackd::serve(options, confined, stop).map_err(|error| error.to_string())
}

/// What the first origin that answers has. Asked before this process confines itself.
fn list_of_files(origins: &[Origin]) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let credentials = Credentials::from_environment();
    let origins = Origins::new(origins.to_vec(), credentials.as_ref()).map_err(|error| error.to_string())?;
    runtime.block_on(origins.files()).map_err(|told| format!("no origin gives its list of files: {told}"))
}

/// A process of its own that fetches: what serves may open no connection, and has no credentials to use. It ends when the
/// stream to it does.
fn start_fetcher(origins: &[Origin], arguments: &[String]) -> Result<UnixStream, String> {
    let failed = |error: std::io::Error| format!("cannot start the fetching process: {error}");
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // Nothing in it is secret: credentials come by the environment.
    let options = serde_json::to_string(origins).map_err(|error| error.to_string())?;
    std::process::Command::new("/proc/self/exe")
        .args(["role", "fetcher", &options])
        .args(arguments)
        .stdin(OwnedFd::from(theirs))
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(failed)?;
    Ok(ours)
}

/// One socket for each worker, all of one SO_REUSEPORT group.
fn open<T>(
    address: Option<SocketAddrV4>,
    workers: u16,
    socket: impl Fn(SocketAddrV4) -> std::io::Result<T>,
) -> Result<Vec<T>, String> {
    let Some(address) = address else { return Ok(vec![]) };
    let all: std::io::Result<Vec<T>> = (0..workers).map(|_| socket(address)).collect();
    all.map_err(|error| format!("cannot open {address}: {error}"))
}

/// Takes signals from now on; what is returned waits for one and asks for the end.
fn signals(stop: bootstorm_rackd::Stop) -> Result<impl FnOnce() + Send, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let (mut interrupt, mut terminate) = {
        let _in_runtime = runtime.enter();
        let failed = |error: std::io::Error| format!("cannot take signals: {error}");
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    Ok(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.trigger();
    })
}
