//! `bench SUITE`: prints `RATIO` and `ABSENT` lines and writes a record.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bootstorm_bench::client::{self, Bodies, Load};
use bootstorm_bench::pairs::Options;
use bootstorm_bench::{dhcp, dns, http, specification, store, storm, tftp};
use clap::{Parser, Subcommand};

/// Speed as ratios beside named peers.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  bench http\n  bench --quick http\n  bench http --case http-1k-keepalive-64\n\nNeeds root (control groups), and the peers that bench/setup.sh installs."
)]
struct Arguments {
    /// Shorter loads, smaller files: for a look, not for a claim
    #[arg(long, global = true, env = "QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// Directory of the records
    #[arg(long, global = true, default_value = "bench/results")]
    results: PathBuf,
    /// One case alone: prints its lines and writes no record
    #[arg(long, global = true, value_name = "NAME")]
    case: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// HTTP beside nginx, lighttpd and static-web-server
    Http,
    /// TFTP beside atftpd, rs-tftpd, dnsmasq and tftpd-hpa
    Tftp,
    /// The content store: cold readers, and chunks taken in beside zstd and b3sum
    Store,
    /// DHCP beside Kea and dnsmasq
    Dhcp,
    /// DNS beside NSD, Knot and BIND
    Dns,
    /// Whole nodes by the thousand beside the stacks that people use
    Storm {
        /// Turns of each stack in a storm of a thousand; 3 by default
        #[arg(long, value_name = "N")]
        rounds: Option<usize>,
        /// What boots the nodes, in loadgen's words
        #[arg(long, default_value = "uefi")]
        firmware: String,
        /// Let the peers have their turn in the storm of ten thousand too
        #[arg(long)]
        peers_too: bool,
        /// One stack alone in the one case, for a look: no ratio and no record
        #[arg(long, value_name = "NAME")]
        stack: Option<storm::stack::Kind>,
    },
    /// Write the ratios of all records into docs/SPECIFICATION.md
    Specification {
        /// The document
        #[arg(default_value = "docs/SPECIFICATION.md")]
        document: PathBuf,
    },
    /// Keep connections busy with one file; for the suites
    #[command(hide = true)]
    ClientHttp {
        /// The server
        address: SocketAddr,
        /// Path of the file
        path: String,
        /// What becomes of the bodies
        #[arg(long, value_enum)]
        bodies: Bodies,
        /// Connections
        #[arg(long)]
        connections: usize,
        /// For how long; each connection fetches the file once without
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Take a stored stream into a fresh content store; for the suites
    #[command(hide = true)]
    Ingest {
        /// The stream
        stream: PathBuf,
        /// Its manifest
        manifest: PathBuf,
        /// Where the store is made
        store: PathBuf,
    },
    /// Fetch a file so many times at once; for the suites
    #[command(hide = true)]
    ClientTftp {
        /// The server
        address: SocketAddr,
        /// Name of the file
        name: String,
        /// Transfers at once
        #[arg(long)]
        clients: u32,
        /// Blocks of a window
        #[arg(long)]
        window: u16,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let bench = std::env::current_exe()?;
    let bootstorm = bench.with_file_name("bootstorm");
    let options =
        Options { bootstorm, bench, results: arguments.results, quick: arguments.quick, case: arguments.case };
    match arguments.command {
        Command::Http => http::run(&options)?,
        Command::Tftp => tftp::run(&options)?,
        Command::Store => store::run(&options)?,
        Command::Ingest { stream, manifest, store } => store::ingest(&stream, &manifest, &store)?,
        Command::Specification { document } => {
            let is_new = specification::rewrite(&options.results, &document)?;
            println!("{}: {}", document.display(), if is_new { "rewritten" } else { "unchanged" });
        }
        Command::Dhcp => dhcp::run(&options)?,
        Command::Dns => dns::run(&options)?,
        Command::Storm { rounds, firmware, peers_too, stack } => {
            storm::run(&options, &storm::Settings { rounds, firmware, peers_too, stack })?;
        }
        Command::ClientHttp { address, path, bodies, connections, seconds } => {
            let duration = seconds.map(Duration::from_secs);
            let taken = client::run(&Load { address, path: &path, connections, duration, bodies })?;
            println!("{}", serde_json::to_string(&taken)?);
        }
        Command::ClientTftp { address, name, clients, window } => {
            let taken = tftp::fetch(address, &name, clients, window)?;
            println!("{}", serde_json::to_string(&taken)?);
        }
    }
    Ok(())
}
