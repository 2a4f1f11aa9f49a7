//! The command line of people and scripts: `bootstorm NOUN VERB`. Exit status 0 done, 1 failed, 2 usage.

mod apply;
mod bootenv;
pub mod client;
mod event;
mod image;
mod machine;
mod nodeset;
mod operation;
pub mod origin;
pub mod output;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use client::{Client, ClientError};
use output::Format;

/// Where the server is and how answers are printed.
#[derive(Debug, Args)]
pub struct Connection {
    /// URL of the server.
    #[arg(long, env = "BOOTSTORM_URL", default_value = "http://127.0.0.1:5240", global = true)]
    url: String,
    /// Data directory of the server: its `admin.token` and `ca.pem` are used unless BOOTSTORM_TOKEN and BOOTSTORM_CA are set.
    #[arg(long, default_value = "./bootstorm-data", global = true)]
    pub data: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    output: Format,
}

/// Commands that speak to a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the whole system is doing and what it lacks
    #[command(after_help = "Example:\n  bootstorm status")]
    Status,
    /// Machines: list, show, commission, allocate, deploy, release, power, explain, watch, delete
    #[command(subcommand)]
    Machine(machine::Machine),
    /// Images: import, list, show, delete
    #[command(subcommand)]
    Image(image::Image),
    /// Boot environments: build, import, list
    #[command(subcommand)]
    Bootenv(bootenv::Bootenv),
    /// Make fabrics, VLANs, subnets, ranges and machines as a file says
    Apply(apply::Apply),
    /// Events: list, watch
    #[command(subcommand)]
    Event(event::Event),
    /// Operations: list, show, watch, cancel
    #[command(subcommand)]
    Operation(operation::Operation),
}

/// Runs one command.
pub async fn run(connection: &Connection, command: Command) -> Result<(), ClientError> {
    if let Command::Bootenv(bootenv::Bootenv::Build(build)) = command {
        return bootenv::build(build); // needs no server
    }
    let client = Client::new(&connection.url, &connection.data)?;
    let format = connection.output;
    match command {
        Command::Status => status::run(&client, format).await,
        Command::Machine(command) => machine::run(&client, format, command).await,
        Command::Image(command) => image::run(&client, format, command).await,
        Command::Bootenv(command) => bootenv::run(&client, format, command).await,
        Command::Apply(command) => apply::run(&client, format, command).await,
        Command::Event(command) => event::run(&client, format, command).await,
        Command::Operation(command) => operation::run(&client, format, command).await,
    }
}
