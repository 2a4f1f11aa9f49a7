//! Bootstorm: turns a room of bare machines into running systems. One binary: all roles, the supervisor that runs
//! them, and the command line that speaks to them.

mod cli;
mod config;
mod confine;
mod logging;
mod role;
mod serve;
mod supervisor;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Find, image and run bare machines, thousands at once.
#[derive(Debug, Parser)]
#[command(
    name = "bootstorm",
    version,
    after_help = "Examples:\n  \
bootstorm up --interface eth1\n  bootstorm bootenv import amd64.tar\n  bootstorm image import debian-12.qcow2\n  \
bootstorm machine list\n  bootstorm machine deploy n[001-064] --image debian-12 --wait\n  bootstorm machine explain n017"
)]
struct Arguments {
    #[command(flatten)]
    connection: cli::Connection,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = logging::LogFormat::Text, global = true)]
    log_format: logging::LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: control plane, rack, embedded database
    Up(up::Up),
    /// Run the control plane alone
    Control(up::Control),
    /// Run a rack alone, joined to a control plane
    Rack(up::Rack),
    /// Serve the files of a directory by HTTP and TFTP, without control plane or configuration
    Serve(serve::Serve),
    /// Lay out content for racks to fill from
    #[command(subcommand)]
    Origin(cli::origin::Origin),
    #[command(flatten)]
    Client(cli::Command),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  bootstorm completion bash")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run one role; for the supervisor only
    #[command(hide = true)]
    Role {
        /// The role
        name: role::Name,
        /// What the importer or the fetcher is to do, as JSON
        options: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One TLS provider for every client and server of this process; a second installation cannot happen here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let data = arguments.connection.data.clone();
    // What every role is told again: the form of its log.
    let passed = vec!["--log-format".to_string(), log_word(arguments.log_format)];
    let outcome: Result<(), String> = match arguments.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "bootstorm", &mut std::io::stdout());
            Ok(())
        }
        Command::Role { name, options } => {
            logging::start(arguments.log_format);
            role::run(name, options.as_deref())
        }
        Command::Serve(command) => {
            logging::start(arguments.log_format);
            serve::run(&data, &passed, command)
        }
        Command::Origin(command) => cli::origin::run(command),
        Command::Up(command) => {
            logging::start(arguments.log_format);
            block_on(async { up::up(&data, &passed, command).await.map_err(|e| e.to_string()) })
        }
        Command::Control(command) => {
            logging::start(arguments.log_format);
            block_on(async { up::control(&data, &passed, command).await.map_err(|e| e.to_string()) })
        }
        Command::Rack(command) => {
            logging::start(arguments.log_format);
            block_on(async { up::rack(&data, &passed, command).await.map_err(|e| e.to_string()) })
        }
        Command::Client(command) => {
            block_on(async { cli::run(&arguments.connection, command).await.map_err(|e| e.to_string()) })
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn log_word(format: logging::LogFormat) -> String {
    match format {
        logging::LogFormat::Text => "text".into(),
        logging::LogFormat::Json => "json".into(),
    }
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| format!("cannot start the runtime: {error}"))?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Every command that does something shows how, and each line it shows is one that the parser takes.
    #[test]
    fn every_command_has_examples_that_parse() {
        fn leaves(command: &clap::Command, path: &str, missing: &mut Vec<String>, lines: &mut Vec<String>) {
            let mut children = command.get_subcommands().filter(|child| !child.is_hide_set()).peekable();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  bootstorm ")).collect();
            if children.peek().is_none() && examples.is_empty() {
                missing.push(path.to_owned());
            }
            lines.extend(examples.into_iter().map(str::to_owned));
            for child in children {
                leaves(child, &format!("{path} {}", child.get_name()), missing, lines);
            }
        }
        let (mut missing, mut lines) = (Vec::new(), Vec::new());
        leaves(&Arguments::command(), "bootstorm", &mut missing, &mut lines);
        assert!(missing.is_empty(), "without an example: {missing:?}");
        for line in lines {
            // What follows two spaces is an explanation.
            let command = line.trim_start().split("  ").next().unwrap_or_default();
            let parsed = Arguments::try_parse_from(command.split(' '));
            parsed.unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }

    #[test]
    fn commands_of_the_contract_parse() {
        for line in [
            "bootstorm up --data d --interface br0",
            "bootstorm up --check --config x.toml",
            "bootstorm control --data A",
            "bootstorm rack --data B --control unix:/x --interface br0",
            "bootstorm serve dir --http 127.0.0.1:0 --tftp 127.0.0.1:0 --workers 2 --data s --encoding zstd",
            "bootstorm serve --origin http://h/x --origin dir:y --http 127.0.0.1:0",
            "bootstorm origin build d t --encoding zstd",
            "bootstorm machine list -o json",
            "bootstorm machine deploy n[001-064] --image debian-12 --wait",
            "bootstorm machine explain n1",
            "bootstorm image import FILE",
            "bootstorm apply -f site.yaml --dry-run",
            "bootstorm operation watch x",
            "bootstorm bootenv build --kernel-dir k --agent a --file f",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["bootstorm serve --http 127.0.0.1:0", "bootstorm serve dir --origin http://h --http 127.0.0.1:0"] {
            Arguments::try_parse_from(line.split(' ')).expect_err(line);
        }
        let usage = Arguments::try_parse_from(["bootstorm", "machine", "dance"]).expect_err("no such verb");
        assert_eq!(usage.exit_code(), 2);
    }
}
