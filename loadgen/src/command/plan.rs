//! `loadgen plan`: what a rack for so many machines would need, from measured costs, with what is assumed said.

mod costs;
mod model;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;

use costs::{Basis, Costs};
use model::{Answer, Question};

/// What `--help` shows below; each is tested to parse.
pub const EXAMPLES: &str = "\
Examples:
  loadgen plan --nodes 5000 --image 3GiB --nic 100G
      cores, memory and time of one rack for 5,000 machines
  loadgen plan --nodes 5000 --image 3GiB --nic 25G --racks 8 --cores 16 --cost bench/results/http.json
      eight racks of 16 cores, with the costs of a record of your own

It plays nothing: it multiplies costs that were measured on other machines, and says which were not measured at all.";

/// Version of the JSON's shape.
const SCHEMA: u32 = 1;

/// Arguments of `plan`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArguments {
    /// Machines that boot at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    nodes: u64,
    /// The image as it stands on a disk, such as `3GiB`.
    #[arg(long, value_name = "SIZE")]
    image: Size,
    /// Network of a rack, such as `100G` bits a second.
    #[arg(long, value_name = "RATE")]
    nic: BitRate,
    /// How many times smaller the image is as it is stored and sent.
    #[arg(long, value_name = "FACTOR", default_value = "2.7")]
    compression: Positive,
    /// Racks that share the machines.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    racks: u64,
    /// The loader, by TFTP.
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    loader: Size,
    /// Kernel and initial RAM disks, by HTTP.
    #[arg(long, value_name = "SIZE", default_value = "24MiB")]
    boot: Size,
    /// Processors of a rack; without this, as many as fill its network.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    cores: Option<u64>,
    /// Memory of a rack; without this, as much as holds all content.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// What a rack's disk reads in a second.
    #[arg(long, value_name = "SIZE", default_value = "3GB")]
    disk: Size,
    /// Network of a machine.
    #[arg(long, value_name = "RATE", default_value = "10G")]
    node_nic: BitRate,
    /// What a machine's disk writes in a second.
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    node_disk: Size,
    /// What a machine takes by itself between firmware and agent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    node_fixed: Positive,
    /// Round trip between machine and rack, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value = "0.2")]
    round_trip: Positive,
    /// A record of bench/results/, to be used in place of built-in costs; may be given again.
    #[arg(long, value_name = "FILE")]
    cost: Vec<PathBuf>,
    /// Write question, answer, costs and assumptions as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Octets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size(f64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Size, String> {
        const UNITS: [(&str, f64); 9] = [
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("TiB", 1_099_511_627_776.0),
            ("kB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("TB", 1e12),
            ("B", 1.0),
        ];
        scaled(text, &UNITS).map(Size).ok_or("expected such as `3GiB` or `200MB`".to_owned())
    }
}

/// Bits a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct BitRate(f64);

impl FromStr for BitRate {
    type Err = String;
    fn from_str(text: &str) -> Result<BitRate, String> {
        let units = [("T", 1e12), ("G", 1e9), ("M", 1e6)];
        scaled(text, &units).map(BitRate).ok_or("expected such as `100G` (bits a second)".to_owned())
    }
}

/// A number above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Positive(f64);

impl FromStr for Positive {
    type Err = String;
    fn from_str(text: &str) -> Result<Positive, String> {
        scaled(text, &[("", 1.0)]).map(Positive).ok_or("expected a number above zero".to_owned())
    }
}

/// A positive number before one of the units.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let value = number.parse::<f64>().ok()? * factor;
    (value.is_finite() && value > 0.0).then_some(value)
}

/// All that a plan says.
#[derive(Serialize)]
struct Plan {
    schema: u32,
    version: &'static str,
    question: Question,
    answer: Answer,
    costs: Costs,
    assumptions: &'static [&'static str],
}

/// What the arithmetic takes for granted; nothing of it was measured.
const ASSUMPTIONS: [&str; 9] = [
    "all machines are powered on at once, and each takes the whole image: nothing comes from neighbours or is on the disk already",
    "costs grow evenly with machines, bytes and cores; they were measured on two cores at most",
    "costs over loopback stand for costs over a real network, which has drivers and interrupts of its own; \
     no real network was measured",
    "the network carries TCP at an MTU of 1,500 without loss, up to 94 % of its bits",
    "every machine boots by PXE: two DHCP exchanges, the loader by TFTP block by block (window 1), then iPXE",
    "content is read from the disk once and then stays in memory, as far as the memory given holds it",
    "compression is what `--compression` says; 2.74 was measured on one Debian root file system (zstd 3, chunks of 256 KiB)",
    "a machine receives and writes at the same time; its disk and network are what `--node-disk` and `--node-nic` say",
    "firmware's self-test, switch ports that block at first, and the installed system's own boot are not part of the time",
];

/// Prints the plan.
///
/// # Errors
/// When a record of costs cannot be used, or the plan not be written.
pub fn run(arguments: &PlanArguments) -> Result<bool, String> {
    let mut costs = Costs::default();
    arguments.cost.iter().try_for_each(|path| costs.learn(path))?;
    let question = Question {
        nodes: arguments.nodes,
        racks: arguments.racks,
        image_bytes: arguments.image.0,
        compression: arguments.compression.0,
        loader_bytes: arguments.loader.0,
        boot_bytes: arguments.boot.0,
        nic_bits_per_second: arguments.nic.0,
        cores: arguments.cores,
        disk_bytes_per_second: arguments.disk.0,
        memory_bytes: arguments.memory.map(|Size(bytes)| bytes),
        node_nic_bits_per_second: arguments.node_nic.0,
        node_disk_bytes_per_second: arguments.node_disk.0,
        round_trip_seconds: arguments.round_trip.0 / 1e3,
        node_fixed_seconds: arguments.node_fixed.0,
    };
    let answer = model::answer(&question, &costs);
    let version = env!("CARGO_PKG_VERSION");
    let plan = Plan { schema: SCHEMA, version, question, answer, costs, assumptions: &ASSUMPTIONS };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&plan).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("writing `{}`: {error}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(plan.table().as_bytes()).map_err(|error| format!("writing the plan: {error}"))?;
    Ok(true)
}

impl Plan {
    fn table(&self) -> String {
        let Answer { nodes, cores, cores_for_nic, neighbours, limit, resources, .. } = &self.answer;
        let answer = &self.answer;
        let mut text = String::new();
        let mut row = |what: &str, value: String| add_row(&mut text, what, &value);
        row("racks, machines of each", format!("{}, {nodes}", self.question.racks));
        row("sent by a rack", bytes(answer.payload_bytes));
        row("fetched from the origin by all racks", bytes(answer.origin_bytes));
        row("server CPU of a rack", seconds(answer.cpu_seconds));
        row(
            "  of that DHCP, TFTP",
            format!("{}, {}", seconds(answer.dhcp_cpu_seconds), seconds(answer.tftp_cpu_seconds)),
        );
        row("cores that keep up with the network", cores_for_nic.to_string());
        row("cores counted on", cores.to_string());
        row("memory: content", bytes(answer.content_bytes));
        row("memory: all, with every machine connected", bytes(answer.memory_bytes));
        row("read from the disk", bytes(answer.disk_bytes));
        row("least gc_thresh3, if on the rack's own networks", neighbours.to_string());
        for resource in resources {
            row(&format!("time of: {}", resource.name), seconds(resource.seconds));
        }
        row("time of: one machine by itself", seconds(answer.node_seconds));
        row("  of that its loader by TFTP", seconds(answer.node_loader_seconds));
        row("estimate: power-on to the last machine written", seconds(answer.makespan_seconds));
        row("limited by", (*limit).to_owned());
        text.push_str("\nCosts:\n");
        for cost in self.costs.all() {
            let basis = match cost.basis {
                Basis::Measured => "measured",
                Basis::Assumed => "NOT MEASURED",
            };
            let _ = writeln!(text, "  {}: {:.3e} {}, {basis}: {}", cost.what, cost.value, cost.unit, cost.source);
        }
        text.push_str("\nExtrapolated, not measured; it takes for granted that\n");
        self.assumptions.iter().for_each(|assumption| text += &format!("- {assumption}\n"));
        text
    }
}

fn add_row(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "{what:<50}{value:>16}");
}

fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.0} s") }
}

fn bytes(value: f64) -> String {
    const GIBIBYTE: f64 = 1_073_741_824.0;
    match value {
        ..GIBIBYTE => format!("{:.0} MiB", value / 1_048_576.0),
        _ => format!("{:.1} GiB", value / GIBIBYTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_need_their_unit() {
        assert_eq!("3GiB".parse(), Ok(Size(3_221_225_472.0)));
        assert_eq!("1.5MB".parse(), Ok(Size(1.5e6)));
        assert_eq!("100G".parse(), Ok(BitRate(100e9)));
        for text in ["3", "-1GiB", "0B", "GiB", "infB", "1e999B"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert!(
            "100".parse::<BitRate>().is_err() && "0".parse::<Positive>().is_err() && "x".parse::<Positive>().is_err()
        );
    }
}
