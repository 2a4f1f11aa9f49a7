//! `bootstorm machine …`.

use std::path::PathBuf;
use std::sync::Arc;

use bootstorm_api::agent::base64_text::Base64;
use bootstorm_api::bmc::Action;
use bootstorm_api::native::{
    AllocateRequest, Comment, CommissionRequest, DeployRequest, Explanation, Machine as Row, MachineQuery,
    MachineUpdate, Operation, Page, Power, PowerAnswer, PowerRequest, ReleaseRequest,
};
use clap::{Args, Subcommand, ValueEnum};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Client, ClientError, segment};
use super::nodeset;
use super::operation;
use super::output::{self, Format, Rows};

/// Machines that one command works on at a time.
const WIDTH: usize = 32;

/// Commands about machines. `NODES` is a host list: `n1`, `n1,n2`, `n[001-064]`, or ids.
#[derive(Debug, Subcommand)]
pub enum Machine {
    /// List machines
    #[command(after_help = "Example:\n  bootstorm machine list --state Ready -o name")]
    List {
        /// Only in this state, e.g. Ready, Deployed, "Failed deployment"
        #[arg(long)]
        state: Option<String>,
        /// Only with this name; `*` stands for anything
        #[arg(long)]
        name: Option<String>,
    },
    /// Show one machine with all that is known of it
    #[command(after_help = "Example:\n  bootstorm machine show n017 -o yaml")]
    Show {
        /// Name or id
        machine: String,
    },
    /// Find out what machines are made of, and make them ready
    #[command(after_help = "Example:\n  bootstorm machine commission n[001-064] --wait")]
    Commission(OnNodes),
    /// Take a ready machine
    #[command(
        after_help = "Example:\n  bootstorm machine allocate --architecture amd64 --cpu-count 16 --memory-mib 65536"
    )]
    Allocate {
        /// This one (name or id); any that fits without it
        machine: Option<String>,
        /// Architecture it must have
        #[arg(long)]
        architecture: Option<String>,
        /// Least number of logical processors
        #[arg(long)]
        cpu_count: Option<u32>,
        /// Least memory in MiB
        #[arg(long)]
        memory_mib: Option<u64>,
        /// Resource pool
        #[arg(long)]
        pool: Option<String>,
    },
    /// Write an image on machines and start it
    #[command(
        after_help = "Example:\n  bootstorm machine deploy n[001-064] --image debian-12 --user-data user-data.yaml --wait"
    )]
    Deploy {
        #[command(flatten)]
        on: OnNodes,
        /// Image by name
        #[arg(long)]
        image: String,
        /// File with cloud-init user-data
        #[arg(long)]
        user_data: Option<PathBuf>,
        /// File with SSH public keys for the image's default user
        #[arg(long)]
        ssh_keys: Option<PathBuf>,
        /// Disk by serial number or kernel name; the smallest that fits by default
        #[arg(long)]
        disk: Option<String>,
        /// How the new system is started
        #[arg(long, value_enum, default_value_t = Start::Auto)]
        start: Start,
        /// Seconds from written until ready
        #[arg(long)]
        ready_seconds_max: Option<u32>,
    },
    /// Give machines back
    #[command(after_help = "Example:\n  bootstorm machine release n[001-064] --erase quick --wait")]
    Release {
        #[command(flatten)]
        on: OnNodes,
        /// Make the disks unreadable first
        #[arg(long, value_enum, default_value_t = Erase::None)]
        erase: Erase,
    },
    /// Abort what machines are doing
    #[command(after_help = "Example:\n  bootstorm machine abort n017")]
    Abort(Nodes),
    /// Refuse every action on machines until they are unlocked
    #[command(after_help = "Example:\n  bootstorm machine lock n[001-004]")]
    Lock(Nodes),
    /// Allow actions again
    #[command(after_help = "Example:\n  bootstorm machine unlock n[001-004]")]
    Unlock(Nodes),
    /// Take machines out of service
    #[command(after_help = "Example:\n  bootstorm machine mark-broken n017")]
    MarkBroken(Nodes),
    /// Put machines into service again
    #[command(after_help = "Example:\n  bootstorm machine mark-fixed n017")]
    MarkFixed(Nodes),
    /// Switch machines on or off, or ask whether they are on
    #[command(after_help = "Example:\n  bootstorm machine power query n[001-064]")]
    Power {
        /// What to do
        #[arg(value_enum)]
        action: PowerAction,
        /// Host list
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Change name, pool or power control of a machine
    #[command(after_help = "Example:\n  bootstorm machine set n1 --power-driver webhook --power-parameter \
power_on_uri=http://10.0.0.9/n1/on --power-parameter power_off_uri=http://10.0.0.9/n1/off --power-parameter \
power_query_uri=http://10.0.0.9/n1/status")]
    Set {
        /// Name or id
        machine: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// New resource pool
        #[arg(long)]
        pool: Option<String>,
        /// Power driver: manual or webhook
        #[arg(long)]
        power_driver: Option<String>,
        /// Parameter of the power driver, KEY=VALUE
        #[arg(long, requires = "power_driver", value_parser = key_value)]
        power_parameter: Vec<(String, String)>,
        /// Clear the hold that an alarm put on it
        #[arg(long)]
        clear_hold: bool,
    },
    /// Say what a machine is doing, or why it does not
    #[command(after_help = "Example:\n  bootstorm machine explain n017")]
    Explain {
        /// Name or id
        machine: String,
    },
    /// Print events about a machine as they happen, until interrupted
    #[command(after_help = "Example:\n  bootstorm machine watch n017")]
    Watch {
        /// Name or id
        machine: String,
    },
    /// Forget machines
    #[command(after_help = "Example:\n  bootstorm machine delete n017")]
    Delete(Nodes),
}

/// Machines to act on, with the choice to wait.
#[derive(Debug, Args)]
pub struct OnNodes {
    /// Host list
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Wait until the operations have ended; exit status 1 if any fails
    #[arg(long)]
    wait: bool,
}

/// Machines to act on.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Host list
    #[arg(required = true)]
    nodes: Vec<String>,
}

/// How a new system is started.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Start {
    /// kexec where it works, else reboot
    Auto,
    /// kexec
    Kexec,
    /// Reboot through the firmware
    Reboot,
}

/// How disks are erased.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Erase {
    /// Not at all
    None,
    /// Signatures and tables
    Quick,
}

/// Power commands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PowerAction {
    /// Switch on
    On,
    /// Switch off
    Off,
    /// Off, then on
    Cycle,
    /// Ask
    Query,
}

impl Rows for Row {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "state", "power", "architecture", "address", "mac", "image"];
    fn cells(&self) -> Vec<String> {
        let boot = self.interfaces.iter().find(|i| i.boot).or(self.interfaces.first());
        let mut state = self.state.clone();
        if self.held.is_some() {
            state.push_str(" (held)");
        }
        if self.locked {
            state.push_str(" (locked)");
        }
        vec![
            self.id.clone(),
            self.name.clone(),
            state,
            self.power_state.clone(),
            self.architecture.clone().unwrap_or_default(),
            boot.map(|i| i.addresses.join(" ")).unwrap_or_default(),
            boot.map(|i| i.mac.clone()).unwrap_or_default(),
            self.image.clone().unwrap_or_default(),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Machine) -> Result<(), ClientError> {
    match command {
        Machine::List { state, name } => {
            output::list(format, &all(client, state, name).await?);
            Ok(())
        }
        Machine::Show { machine } => {
            let row: Row = client.get(&path(&machine, ""), &()).await?;
            match format {
                Format::Table => output::value(Format::Yaml, &row),
                other => output::one(other, &row),
            }
            Ok(())
        }
        Machine::Commission(on) => start(client, format, &on, "/commission", &CommissionRequest::default()).await,
        Machine::Allocate { machine, architecture, cpu_count, memory_mib, pool } => {
            let request = AllocateRequest { machine, architecture, cpu_count, memory_mib, pool, comment: None };
            let row: Row = client.post("/machines/allocate", &request).await?;
            output::one(format, &row);
            Ok(())
        }
        Machine::Deploy { on, image, user_data, ssh_keys, disk, start: how, ready_seconds_max } => {
            let user_data = user_data.as_deref().map(read).transpose()?.map(Base64);
            let keys = ssh_keys.as_deref().map(read).transpose()?.unwrap_or_default();
            let keys = String::from_utf8_lossy(&keys);
            let keys = keys.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
            let request = DeployRequest {
                image,
                user_data,
                ssh_authorized_keys: keys.map(str::to_string).collect(),
                disk,
                start: Some(word(how)),
                ready_seconds_max,
                comment: None,
            };
            start(client, format, &on, "/deploy", &request).await
        }
        Machine::Release { on, erase } => {
            let request = ReleaseRequest { erase: Some(word(erase)), comment: None };
            start(client, format, &on, "/release", &request).await
        }
        Machine::Abort(nodes) => act(client, format, &nodes, "/abort").await,
        Machine::Lock(nodes) => act(client, format, &nodes, "/lock").await,
        Machine::Unlock(nodes) => act(client, format, &nodes, "/unlock").await,
        Machine::MarkBroken(nodes) => act(client, format, &nodes, "/mark-broken").await,
        Machine::MarkFixed(nodes) => act(client, format, &nodes, "/mark-fixed").await,
        Machine::Power { action, nodes } => power(client, action, &nodes).await,
        Machine::Set { machine, name, pool, power_driver, power_parameter, clear_hold } => {
            let power = power_driver.map(|driver| Power { driver, parameters: power_parameter.into_iter().collect() });
            let request = MachineUpdate { name, pool, power, held: clear_hold.then_some(false) };
            let row: Row = client.patch(&path(&machine, ""), &request).await?;
            output::one(format, &row);
            Ok(())
        }
        Machine::Explain { machine } => explain(client, format, &machine).await,
        Machine::Watch { machine } => super::event::watch(client, format, Some(machine)).await,
        Machine::Delete(nodes) => {
            each(client, &nodes.nodes, |client, node| async move { client.delete(&path(&node, "")).await.map(drop) })
                .await
                .map(drop)
        }
    }
}

fn path(machine: &str, action: &str) -> String {
    format!("/machines/{}{action}", segment(machine))
}

fn word<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_string(), value.to_string()))
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(file).map_err(|error| ClientError::File { path: file.to_path_buf(), why: error.to_string() })
}

async fn all(client: &Client, state: Option<String>, name: Option<String>) -> Result<Vec<Row>, ClientError> {
    let mut query = MachineQuery { state, name, limit: Some(bootstorm_api::limits::PAGE_ROWS_MAX), cursor: None };
    let mut rows = Vec::new();
    loop {
        let page: Page<Row> = client.get("/machines", &query).await?;
        rows.extend(page.items);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(rows),
        }
    }
}

/// Runs `work` on every machine of a host list, a bounded number at a time; answers in the order of the list. Fails
/// after all have been tried, with one line for each that failed.
async fn each<T, F, Fut>(client: &Client, nodes: &[String], work: F) -> Result<Vec<T>, ClientError>
where
    T: Send + 'static,
    F: Fn(Client, String) -> Fut,
    Fut: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let mut names = Vec::new();
    for expression in nodes {
        names.extend(nodeset::expand(expression).map_err(|error| ClientError::Input(error.to_string()))?);
    }
    let permits = Arc::new(Semaphore::new(WIDTH));
    let mut tasks = JoinSet::new();
    for (index, name) in names.iter().enumerate() {
        let (permits, task) = (permits.clone(), work(client.clone(), name.clone()));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (index, task.await)
        });
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((index, Ok(value))) => done.push((index, value)),
            Ok((index, Err(error))) => {
                let name = names.get(index).map(String::as_str).unwrap_or_default();
                let text = error.to_string();
                failed.push(if text.starts_with(name) { text } else { format!("{name}: {text}") });
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    if !failed.is_empty() {
        return Err(ClientError::Outcome(failed.join("\n")));
    }
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}

async fn start<B: serde::Serialize>(
    client: &Client,
    format: Format,
    on: &OnNodes,
    action: &'static str,
    request: &B,
) -> Result<(), ClientError> {
    let body = serde_json::to_value(request).map_err(|e| ClientError::Answer(e.to_string()))?;
    let wait = on.wait;
    let operations = each(client, &on.nodes, |client, node| {
        let body = body.clone();
        async move {
            let started: Operation = client.post(&path(&node, action), &body).await?;
            if !wait {
                return Ok(started);
            }
            let ended = operation::wait(&client, &started.id).await?;
            operation::outcome(&ended)?;
            Ok(ended)
        }
    })
    .await?;
    output::list(format, &operations);
    Ok(())
}

async fn act(client: &Client, format: Format, nodes: &Nodes, action: &'static str) -> Result<(), ClientError> {
    let rows: Vec<Row> = each(client, &nodes.nodes, |client, node| async move {
        client.post(&path(&node, action), &Comment::default()).await
    })
    .await?;
    output::list(format, &rows);
    Ok(())
}

async fn power(client: &Client, action: PowerAction, nodes: &[String]) -> Result<(), ClientError> {
    let action = match action {
        PowerAction::On => Action::On,
        PowerAction::Off => Action::Off,
        PowerAction::Cycle => Action::Cycle,
        PowerAction::Query => Action::Query,
    };
    let answers: Vec<(String, PowerAnswer)> = each(client, nodes, |client, node| async move {
        let answer = client.post(&path(&node, "/power"), &PowerRequest { action }).await?;
        Ok((node, answer))
    })
    .await?;
    for (node, answer) in answers {
        println!(
            "{node}: {}",
            serde_json::to_value(answer.state).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default()
        );
    }
    Ok(())
}

async fn explain(client: &Client, format: Format, machine: &str) -> Result<(), ClientError> {
    let explanation: Explanation = client.get(&path(machine, "/explain"), &()).await?;
    if format != Format::Table {
        output::value(format, &explanation);
        return Ok(());
    }
    println!("{}: {}", explanation.machine.name, explanation.summary);
    if let Some(operation) = &explanation.operation {
        println!("{} {} ({}), stage {}", operation.kind, operation.id, operation.status, operation.stage);
        if let Some(failure) = &operation.failure {
            println!("failed at {}: {}", failure.stage, failure.code);
            println!("evidence: {}", failure.evidence);
            println!("try: {}", failure.suggestion);
        }
        operation.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    }
    if !explanation.trace.is_empty() {
        println!("boot trace:");
        for span in &explanation.trace {
            let stage = serde_json::to_value(span.stage).ok().and_then(|v| v.as_str().map(str::to_string));
            let seconds =
                std::time::Duration::from_millis(u64::try_from(span.since_start_ms).unwrap_or(0)).as_secs_f64();
            println!("  {seconds:8.2} s  {:<10} {}", stage.unwrap_or_default(), span.detail);
        }
    }
    if !explanation.events.is_empty() {
        println!("events, newest first:");
        for event in &explanation.events {
            println!("  {}  {:<7} {}  {}", output::moment(event.unix_ms), event.level, event.code, event.message);
        }
    }
    Ok(())
}
