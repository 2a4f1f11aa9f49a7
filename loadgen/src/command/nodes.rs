//! Subcommands that play whole machines, from power-on to the end.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::report::{Files, Live, Run};
use crate::schedule::{Arrivals, FirmwareChoice};
use crate::storm::Storm;
use crate::{check, limits, node, schedule, storm};

/// What `--help` shows below; each is tested to parse.
pub const EXAMPLES: &str = "\
Examples:
  loadgen storm --interface veth0 --nodes 1000 --rate 50/s
      1,000 unknown machines, 50 powered on every second
  loadgen storm --interface veth0 --nodes 5000 --ramp 60s --seed 7 --json storm.json
      5,000 machines, ever faster for a minute; the same schedule each time
  loadgen storm --interface veth0 --nodes 10 --firmware uefi
      ten at once, all of them UEFI PXE

Run it as root in a network namespace whose interface faces the server. It exits with 0 only when every machine got to
its end; its last line is `storm: DONE/N`.";

/// What there is to be played.
#[derive(Subcommand)]
pub enum Scenario {
    /// Powers on many machines; each boots until its agent has done what its plan says.
    #[command(after_help = EXAMPLES)]
    Storm(StormArguments),
}

/// Arguments of `storm`.
#[derive(Args)]
pub struct StormArguments {
    /// Interface that faces the boot server.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// How many machines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::NODES_MAX)))]
    nodes: u32,
    /// Decides MAC addresses, kinds of firmware and times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Machines powered on a second, as `50` or `50/s`; without this and `--ramp`, all at once.
    #[arg(long, value_name = "R/s", conflicts_with = "ramp")]
    rate: Option<Rate>,
    /// Power on ever faster until all have started after this time, as `60` or `60s`.
    #[arg(long, value_name = "SECONDS")]
    ramp: Option<Seconds>,
    /// The rack's HTTP: `auto` follows DHCP and scripts, `ADDRESS:PORT` replaces what they say.
    #[arg(long, value_name = "auto|ADDRESS:PORT", default_value = "auto")]
    server_http: ServerHttp,
    /// What boots the machines.
    #[arg(long, value_enum, default_value = "mix")]
    firmware: FirmwareChoice,
    /// Time a machine has from power-on to its end, as `300` or `300s`.
    #[arg(long, value_name = "SECONDS", default_value = "300s")]
    deadline: Seconds,
    #[command(flatten)]
    files: Files,
    /// Start even if this host lacks something that a storm of this size needs.
    #[arg(long)]
    ignore_checks: bool,
}

/// Starts a second.
#[derive(Clone, Copy)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Rate, String> {
        let rate = text.strip_suffix("/s").unwrap_or(text).parse().ok();
        rate.filter(|rate: &f64| rate.is_finite() && *rate > 0.0).map(Rate).ok_or("expected such as `50/s`".to_owned())
    }
}

/// A time in seconds.
#[derive(Clone, Copy)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Seconds, String> {
        let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u32>().ok().filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Seconds(Duration::from_secs(seconds.into()))).ok_or("expected such as `60s`".to_owned())
    }
}

/// Where the rack's HTTP is.
#[derive(Clone, Copy)]
struct ServerHttp(Option<SocketAddr>);

impl FromStr for ServerHttp {
    type Err = String;
    fn from_str(text: &str) -> Result<ServerHttp, String> {
        if text == "auto" {
            return Ok(ServerHttp(None));
        }
        text.parse().map(|server| ServerHttp(Some(server))).map_err(|_| "expected `auto` or ADDRESS:PORT".to_owned())
    }
}

/// Plays the scenario and prints its report; whether all machines got to their end.
///
/// # Errors
/// What the host lacks, or why nothing could be played or written.
pub fn run(scenario: &Scenario) -> Result<bool, String> {
    let Scenario::Storm(arguments) = scenario;
    let lacks = check::lacks(arguments.nodes);
    if !lacks.is_empty() && !arguments.ignore_checks {
        return Err(lacks.join("\nloadgen: "));
    }
    let arrivals = match (arguments.rate, arguments.ramp) {
        (Some(Rate(rate)), _) => Arrivals::Rate(rate),
        (None, Some(Seconds(ramp))) => Arrivals::Ramp(ramp),
        (None, None) => Arrivals::AtOnce,
    };
    let storm = Storm {
        interface: arguments.interface.clone(),
        starts: schedule::plan(arguments.nodes, arguments.seed, arrivals, arguments.firmware),
        settings: node::Settings { server_http: arguments.server_http.0, deadline: arguments.deadline.0 },
    };
    let run = Run::new("storm", Some(arguments.nodes.into()), arguments.seed)
        .with("interface", Some(&arguments.interface))
        .with("rate", arguments.rate.map(|Rate(rate)| rate))
        .with("ramp", arguments.ramp.map(|Seconds(ramp)| ramp.as_secs()))
        .with("deadline", Some(arguments.deadline.0.as_secs()))
        .with("firmware", arguments.firmware.to_possible_value().map(|value| value.get_name().to_owned()));
    let report = storm::play(storm, run, &mut Live::new("storm")).map_err(|error| error.to_string())?;
    arguments.files.publish(&report).map_err(|error| error.to_string())?;
    Ok(report.is_complete())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_units() {
        assert!("0/s".parse::<Rate>().is_err() && "50/s".parse::<Rate>().is_ok());
        assert!("10x".parse::<Seconds>().is_err() && "10s".parse::<Seconds>().is_ok());
        assert!("x".parse::<ServerHttp>().is_err() && "10.0.0.1:80".parse::<ServerHttp>().is_ok());
    }
}
