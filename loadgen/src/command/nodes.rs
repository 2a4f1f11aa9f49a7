//! Subcommands that play whole machines, from power-on to the end.

pub mod units;

use std::io::Write;
use std::rc::Rc;

use clap::{Args, Subcommand, ValueEnum};

use self::units::{ByteRate, Leaf, Milliseconds, Part, Rate, Seconds, ServerHttp, SinkArgument, Slow, UrlArgument};
use crate::faults::Faults;
use crate::firmware::Patience;
use crate::image::Source;
use crate::node::{Bodies, LoaderChoice, Settings};
use crate::report::{Files, Live, Report, Run};
use crate::schedule::{Arrivals, FirmwareChoice, Start};
use crate::storm::{Course, Storm};
use crate::{check, limits, schedule, storm};

/// What `--help` shows below; each is tested to parse.
pub const EXAMPLES: &str = "\
Examples:
  loadgen storm --interface veth0 --nodes 1000 --rate 50/s
      1,000 unknown machines, 50 powered on every second
  loadgen storm --interface veth0 --nodes 5000 --ramp 60s --seed 7 --json storm.json
      5,000 machines, ever faster for a minute; the same schedule each time
  loadgen avalanche --interface veth0 --nodes 10 --firmware uefi
      ten at once, all of them UEFI PXE, that give up when such firmware does
  loadgen storm --interface veth0 --nodes 100 --image http://10.0.0.1/disk.zst,encoding=zstd
      against any boot server: after the kernel an image over HTTP, decoded by one in 50
  loadgen soak --interface veth0 --nodes 50 --duration 600s
      50 machines that boot again and again for ten minutes
  loadgen redeploy --interface veth0 --nodes 200
      200 machines that boot, and then all at once again; the second time is measured
  loadgen run storm.toml
      what a file says, such as `scenario = \"storm\"`, `nodes = 1000`, `rate = \"50/s\"`

Run it as root in a network namespace whose interface faces the server. It exits with 0 only when every machine got to
its end; its last line is such as `storm: DONE/N`.";

/// What there is to be played.
#[derive(Subcommand)]
pub enum Scenario {
    /// Powers on many machines; each boots until its agent has done what its plan says.
    #[command(after_help = EXAMPLES)]
    Storm(Scheduled),
    /// Powers machines on ever faster.
    Ramp(Ramp),
    /// As a storm, with machines that give up when their firmware and loaders do.
    Avalanche(Scheduled),
    /// Lets machines boot again and again for a time; each boot counts.
    Soak(Soak),
    /// Lets all machines boot, and then all at once again; the second time is measured.
    Redeploy(Scheduled),
}

/// Arguments of scenarios whose machines start by a schedule.
#[derive(Args)]
pub struct Scheduled {
    #[command(flatten)]
    machines: Machines,
    /// Machines powered on a second, as `50` or `50/s`; without this and `--ramp`, all at once.
    #[arg(long, value_name = "R/s", conflicts_with = "ramp")]
    rate: Option<Rate>,
    /// Power on ever faster until all have started after this time, as `60` or `60s`.
    #[arg(long, value_name = "SECONDS")]
    ramp: Option<Seconds>,
}

/// Arguments of `ramp`.
#[derive(Args)]
pub struct Ramp {
    #[command(flatten)]
    machines: Machines,
    /// Time after which all have started.
    #[arg(long, value_name = "SECONDS", default_value = "60s")]
    over: Seconds,
}

/// Arguments of `soak`.
#[derive(Args)]
pub struct Soak {
    #[command(flatten)]
    machines: Machines,
    /// Machines first powered on a second; without this all at once.
    #[arg(long, value_name = "R/s")]
    rate: Option<Rate>,
    /// Time after which no machine boots anew; those that are on come to their end.
    #[arg(long, value_name = "SECONDS")]
    duration: Seconds,
}

/// Arguments of every scenario.
#[derive(Args)]
struct Machines {
    /// Interface that faces the boot server.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// How many machines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::NODES_MAX)))]
    nodes: u32,
    /// Decides MAC addresses, kinds of firmware and times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The rack's HTTP: `auto` follows DHCP and scripts, `ADDRESS:PORT` replaces what they say.
    #[arg(long, value_name = "auto|ADDRESS:PORT", default_value = "auto")]
    server_http: ServerHttp,
    /// What boots the machines.
    #[arg(long, value_enum, default_value = "mix")]
    firmware: FirmwareChoice,
    /// What the machines take their loader for; `auto` goes by its file name.
    #[arg(long, value_enum, default_value = "auto")]
    loader: LoaderChoice,
    /// The folder of GRUB's configuration, as built into the GRUB that is served; without this `/grub`, or what the loader's
    /// name says of it (Debian's installer, grub-mknetdir).
    #[arg(long, value_name = "PATH")]
    grub_prefix: Option<String>,
    /// Time a machine has from power-on to its end, as `300` or `300s`.
    #[arg(long, value_name = "SECONDS", default_value = "300s")]
    deadline: Seconds,
    /// After kernel and initial RAM disks fetch this image by HTTP instead of redeeming a claim.
    #[arg(long, value_name = "URL[,encoding=raw|zstd|gzip][,blake3=HEX]")]
    image: Option<Source>,
    /// Ask for the image with one request instead of ranges.
    #[arg(long, requires = "image")]
    image_whole: bool,
    /// Fetch this after the image; `{mac}` stands for the machine's MAC address.
    #[arg(long, value_name = "URL", requires = "image")]
    metadata: Option<UrlArgument>,
    /// Post to this at the end; `{mac}` stands for the machine's MAC address.
    #[arg(long, value_name = "URL", requires = "image")]
    phone_home: Option<UrlArgument>,
    /// One machine in so many decodes and verifies its image; the others only count its bytes.
    #[arg(long, value_name = "N", default_value_t = limits::VERIFY_EVERY, value_parser = clap::value_parser!(u32).range(1..))]
    verify_every: u32,
    /// What becomes of bodies that nobody looks at: thrown away in the kernel, or copied into memory first.
    #[arg(long, value_enum, default_value = "trunc")]
    bodies: Bodies,
    /// Where the raw bytes of verified images go.
    #[arg(long, value_name = "null|memory|files:DIR", default_value = "null")]
    sink: SinkArgument,
    /// Lose this part of all UDP datagrams, each way, as `1%`.
    #[arg(long, value_name = "PART")]
    loss: Option<Part>,
    /// Deliver UDP datagrams so much later, each way, as `20ms`.
    #[arg(long, value_name = "MILLISECONDS")]
    delay: Option<Milliseconds>,
    /// Let this part of the machines read slowly, as `5%:2MB`.
    #[arg(long, value_name = "PART:RATE")]
    slow: Option<Slow>,
    /// Let this part of the machines vanish in the midst of their boot; they count apart.
    #[arg(long, value_name = "PART")]
    die: Option<Part>,
    /// Bound what each machine reads by TCP, as `1Gbit`.
    #[arg(long, value_name = "RATE")]
    link: Option<ByteRate>,
    /// Bound what so many machines together read by TCP, as `48:10Gbit`.
    #[arg(long, value_name = "N:RATE")]
    leaf: Option<Leaf>,
    /// Print when each machine starts, and what it is, and do nothing else.
    #[arg(long)]
    print_schedule: bool,
    #[command(flatten)]
    files: Files,
    /// Start even if this host lacks something that a run of this size needs.
    #[arg(long)]
    ignore_checks: bool,
}

/// What a scenario comes down to.
struct Plan<'a> {
    name: &'static str,
    machines: &'a Machines,
    arrivals: Arrivals,
    course: Course,
    patience: Patience,
    /// Arguments of the scenario's own, for the report.
    arguments: Vec<(&'static str, String)>,
}

impl Scenario {
    fn plan(&self) -> Plan<'_> {
        match self {
            Scenario::Storm(scheduled) => scheduled.plan("storm", Course::Once, Patience::Patient),
            Scenario::Avalanche(scheduled) => scheduled.plan("avalanche", Course::Once, Patience::AsFirmware),
            Scenario::Redeploy(scheduled) => scheduled.plan("redeploy", Course::Twice, Patience::Patient),
            Scenario::Ramp(ramp) => Plan {
                name: "ramp",
                machines: &ramp.machines,
                arrivals: Arrivals::Ramp(ramp.over.0),
                course: Course::Once,
                patience: Patience::Patient,
                arguments: vec![("over", ramp.over.0.as_secs().to_string())],
            },
            Scenario::Soak(soak) => Plan {
                name: "soak",
                machines: &soak.machines,
                arrivals: soak.rate.map_or(Arrivals::AtOnce, |Rate(rate)| Arrivals::Rate(rate)),
                course: Course::Again(soak.duration.0),
                patience: Patience::Patient,
                arguments: vec![("duration", soak.duration.0.as_secs().to_string())],
            },
        }
    }
}

impl Scheduled {
    fn plan(&self, name: &'static str, course: Course, patience: Patience) -> Plan<'_> {
        let (arrivals, argument) = match (self.rate, self.ramp) {
            (Some(Rate(rate)), _) => (Arrivals::Rate(rate), Some(("rate", rate.to_string()))),
            (None, Some(Seconds(ramp))) => (Arrivals::Ramp(ramp), Some(("ramp", ramp.as_secs().to_string()))),
            (None, None) => (Arrivals::AtOnce, None),
        };
        Plan { name, machines: &self.machines, arrivals, course, patience, arguments: argument.into_iter().collect() }
    }
}

impl Machines {
    fn settings(&self, patience: Patience) -> Settings {
        Settings {
            server_http: self.server_http.0,
            deadline: self.deadline.0,
            verify_every: self.verify_every,
            image: self.image.clone(),
            image_whole: self.image_whole,
            metadata: self.metadata.clone().map(|url| url.0),
            phone_home: self.phone_home.clone().map(|url| url.0),
            bodies: self.bodies,
            sink: self.sink.0.clone(),
            loader: self.loader,
            grub_prefix: self.grub_prefix.clone(),
            patience,
            die: self.die.map_or(0.0, |part| part.0),
        }
    }

    fn faults(&self) -> Faults {
        Faults {
            loss: self.loss.map_or(0.0, |part| part.0),
            delay: self.delay.map(|delay| delay.0).unwrap_or_default(),
            slow: self.slow.map(|Slow(part, rate)| (part, rate)),
            link: self.link.map(|rate| rate.0),
            leaf: self.leaf.map(|Leaf(nodes, rate)| (nodes, rate)),
        }
    }
}

/// Plays the scenario and prints its report; whether all machines got to their end.
///
/// # Errors
/// What the host lacks, or why nothing could be played or written.
pub fn run(scenario: &Scenario) -> Result<bool, String> {
    let plan = scenario.plan();
    let machines = plan.machines;
    let starts = schedule::plan(machines.nodes, machines.seed, plan.arrivals, machines.firmware);
    if machines.print_schedule {
        return print(&starts).map(|()| true).map_err(|error| format!("writing the schedule: {error}"));
    }
    let lacks = check::lacks(machines.nodes);
    if !lacks.is_empty() && !machines.ignore_checks {
        return Err(lacks.join("\nloadgen: "));
    }
    let expected = match plan.course {
        Course::Once | Course::Twice => Some(machines.nodes.into()),
        Course::Again(_) => None,
    };
    let value = |choice: Option<clap::builder::PossibleValue>| choice.map(|choice| choice.get_name().to_owned());
    let run = Run::new(plan.name, expected, machines.seed)
        .with("interface", Some(&machines.interface))
        .with("nodes", Some(machines.nodes))
        .with("deadline", Some(machines.deadline.0.as_secs()))
        .with("firmware", value(machines.firmware.to_possible_value()))
        .with("bodies", value(machines.bodies.to_possible_value()))
        .with("verify-every", Some(machines.verify_every))
        .with("loss", machines.loss.map(|part| part.0))
        .with("delay-ms", machines.delay.map(|delay| delay.0.as_millis()))
        .with("slow", machines.slow.map(|Slow(part, rate)| format!("{part}:{rate}")))
        .with("die", machines.die.map(|part| part.0))
        .with("link", machines.link.map(|rate| rate.0))
        .with("leaf", machines.leaf.map(|Leaf(nodes, rate)| format!("{nodes}:{rate}")))
        .with("image", machines.image.as_ref().map(|source| format!("{}{}", source.url.server, source.url.target)));
    let run = plan.arguments.into_iter().fold(run, |run, (name, value)| run.with(name, Some(value)));
    let storm = Storm {
        interface: machines.interface.clone(),
        starts,
        settings: Rc::new(machines.settings(plan.patience)),
        course: plan.course,
        faults: machines.faults(),
        seed: machines.seed,
    };
    let report = storm::play(storm, run, &mut Live::new(plan.name)).map_err(|error| error.to_string())?;
    machines.files.publish(&report).map_err(|error| error.to_string())?;
    Ok(is_complete(&report))
}

/// Whether every node got to its end, but for those that were to die.
fn is_complete(report: &Report) -> bool {
    let ended = report.done + report.died.values().sum::<u64>();
    report.failed == 0 && report.run.expected.is_none_or(|expected| expected == ended)
}

/// Seconds after the beginning, MAC address, firmware and the machine's own seed, a line each.
fn schedule_text(starts: &[Start]) -> String {
    let line = |start: &Start| {
        let Start { due, mac, firmware, seed } = start;
        format!("{:.6} {} {firmware:?} {seed:016x}\n", due.as_secs_f64(), bootstorm_snapshot::Mac(*mac))
    };
    starts.iter().map(line).collect()
}

fn print(starts: &[Start]) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(schedule_text(starts).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        scenario: Scenario,
    }

    fn parse(line: &str) -> Result<Scenario, clap::Error> {
        let matches = Line::command().try_get_matches_from(format!("loadgen {line}").split_whitespace())?;
        Ok(Line::from_arg_matches(&matches)?.scenario)
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let schedule = |line: &str| {
            let scenario = parse(line).unwrap();
            let plan = scenario.plan();
            let machines = plan.machines;
            schedule_text(&schedule::plan(machines.nodes, machines.seed, plan.arrivals, machines.firmware))
        };
        let line = "storm --interface x --nodes 300 --rate 20/s --seed 9 --print-schedule";
        assert_eq!(schedule(line), schedule(line));
        assert_eq!(schedule(line).lines().count(), 300);
        assert_ne!(schedule(line), schedule(&line.replace("seed 9", "seed 8")));
    }

    #[test]
    fn scenarios_are_what_they_say() {
        let plan = |line: &str| {
            let scenario = parse(line).unwrap();
            let Plan { name, arrivals, course, patience, .. } = scenario.plan();
            (name, arrivals, course, patience)
        };
        let common = "--interface x --nodes 2";
        let second = Duration::from_secs(1);
        let (patient, hasty) = (Patience::Patient, Patience::AsFirmware);
        for (line, expected) in [
            ("storm", ("storm", Arrivals::AtOnce, Course::Once, patient)),
            ("storm --ramp 1s", ("storm", Arrivals::Ramp(second), Course::Once, patient)),
            ("ramp --over 1s", ("ramp", Arrivals::Ramp(second), Course::Once, patient)),
            ("avalanche --rate 5", ("avalanche", Arrivals::Rate(5.0), Course::Once, hasty)),
            ("soak --duration 1s", ("soak", Arrivals::AtOnce, Course::Again(second), patient)),
            ("redeploy", ("redeploy", Arrivals::AtOnce, Course::Twice, patient)),
        ] {
            assert_eq!(plan(&format!("{line} {common}")), expected);
        }
        assert!(parse("storm --interface x --nodes 0").is_err());
        assert!(parse(&format!("storm {common} --metadata http://10.0.0.1/x")).is_err(), "without an image");
    }
}
