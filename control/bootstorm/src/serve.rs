//! `bootstorm serve DIR`: files by HTTP and TFTP, nothing else.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::config;
use crate::supervisor::sockets;

/// Serves the files of a directory by their names.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  bootstorm serve tftpboot --http 127.0.0.1:8080 --tftp 127.0.0.1:6969\n\nThe sockets are \
open when every file is imported. Under `--encoding zstd` a file is served as NAME.zst, its stored stream."
)]
pub struct Serve {
    /// The directory
    directory: PathBuf,
    /// Address of HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddrV4>,
    /// Address of TFTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    tftp: Option<SocketAddrV4>,
    /// Threads; one for each processor by default
    #[arg(long)]
    workers: Option<u16>,
    /// How files are stored and sent
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

fn cache_size(text: &str) -> Result<u64, String> {
    config::parse_size(text).ok_or_else(|| config::SIZE_RULE.to_owned())
}

/// Runs until interrupted. The store is a directory of its own below the data directory.
pub fn run(data: &Path, command: &Serve) -> Result<(), String> {
    let processors = std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
    let workers = command.workers.unwrap_or(processors).max(1);
    if command.http.is_none() && command.tftp.is_none() {
        return Err("nothing to serve on: give --http ADDRESS:PORT, --tftp ADDRESS:PORT or both".into());
    }
    let options = bootstorm_rackd::ServeOptions {
        directory: command.directory.clone(),
        http: open(command.http, workers, sockets::listener)?,
        tftp: open(command.tftp, workers, sockets::datagram)?,
        store: data.join("serve"),
        encoding: match command.encoding {
            Encoding::Plain => bootstorm_rackd::Encoding::Plain,
            Encoding::Zstd => bootstorm_rackd::Encoding::Zstd,
        },
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
