//! `bootstorm operation …`, and waiting for operations.

use std::io::IsTerminal as _;

use bootstorm_api::native::{Event, EventQuery, Operation as Row, OperationQuery, Page};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::client::{Client, ClientError, segment};
use super::output::{self, Format, Rows};

/// Commands about operations.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// List operations, newest first
    #[command(after_help = "Example:\n  bootstorm operation list --machine n017")]
    List {
        /// Only of this machine
        #[arg(long)]
        machine: Option<String>,
        /// Rows at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one operation
    #[command(after_help = "Example:\n  bootstorm operation show 01JDGQ3V8Z0000000000000000")]
    Show {
        /// Its id
        id: String,
    },
    /// Follow an operation to its end; exit status 1 if it fails
    #[command(after_help = "Example:\n  bootstorm operation watch 01JDGQ3V8Z0000000000000000")]
    Watch {
        /// Its id
        id: String,
    },
    /// Cancel an operation in progress
    #[command(after_help = "Example:\n  bootstorm operation cancel 01JDGQ3V8Z0000000000000000")]
    Cancel {
        /// Its id
        id: String,
    },
}

impl Rows for Row {
    const COLUMNS: &'static [&'static str] = &["id", "kind", "machine", "status", "stage", "created"];
    fn cells(&self) -> Vec<String> {
        let machine = self.machine_name.clone().or_else(|| self.machine.clone()).unwrap_or_default();
        let created = output::moment(self.created_unix_ms);
        vec![self.id.clone(), self.kind.clone(), machine, self.status.clone(), self.stage.clone(), created]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Operation) -> Result<(), ClientError> {
    match command {
        Operation::List { machine, limit } => {
            let query = OperationQuery { machine, limit: Some(limit), cursor: None };
            let page: Page<Row> = client.get("/operations", &query).await?;
            output::list(format, &page.items);
        }
        Operation::Show { id } => {
            let operation: Row = client.get(&format!("/operations/{}", segment(&id)), &()).await?;
            output::one(format, &operation);
            if let (Format::Table, Some(failure)) = (format, &operation.failure) {
                println!("failed at {}: {} ({})", failure.stage, failure.evidence, failure.code);
                println!("try: {}", failure.suggestion);
            }
        }
        Operation::Watch { id } => {
            let ended = wait(client, &id).await?;
            output::one(format, &ended);
            outcome(&ended)?;
        }
        Operation::Cancel { id } => {
            let operation: Row = client.post(&format!("/operations/{}/cancel", segment(&id)), &()).await?;
            output::one(format, &operation);
        }
    }
    Ok(())
}

/// Waits until an operation has ended, with progress on a terminal.
pub(super) async fn wait(client: &Client, id: &str) -> Result<Row, ClientError> {
    let path = format!("/operations/{}", segment(id));
    let bar = progress_bar();
    let mut after = latest_event(client).await?;
    let outcome = loop {
        let operation: Row = client.get(&path, &()).await?;
        show(&bar, &operation);
        if operation.status != "running" {
            break operation;
        }
        // Events are what moves an operation; an empty page after the wait refreshes the progress.
        let wait_seconds = if operation.bytes.is_some() { 1 } else { 5 };
        let machine = operation.machine.clone();
        let query = EventQuery { after: Some(after), limit: Some(100), wait_seconds: Some(wait_seconds), machine };
        let page: Page<Event> = client.get("/events", &query).await?;
        after = page.items.last().map_or(after, |event| event.id);
    };
    bar.finish_and_clear();
    Ok(outcome)
}

/// Fails with the operation's own words if it did not end well.
pub(super) fn outcome(operation: &Row) -> Result<(), ClientError> {
    let name = operation.machine_name.as_deref().or(operation.machine.as_deref()).unwrap_or(&operation.id);
    operation.warnings.iter().for_each(|warning| eprintln!("{name}: warning: {warning}"));
    match (&operation.failure, operation.status.as_str()) {
        (Some(failure), _) => Err(ClientError::Outcome(format!(
            "{name}: {} failed at {}: {} ({}); {}",
            operation.kind, failure.stage, failure.evidence, failure.code, failure.suggestion
        ))),
        (None, "done") => Ok(()),
        (None, status) => Err(ClientError::Outcome(format!("{name}: {} was {status}", operation.kind))),
    }
}

/// Number of the newest event, so that only later ones are waited for.
pub(super) async fn latest_event(client: &Client) -> Result<i64, ClientError> {
    let query = EventQuery { after: Some(i64::MAX), limit: Some(1), wait_seconds: None, machine: None };
    let page: Page<Event> = client.get("/events", &query).await?;
    Ok(page.next.and_then(|next| next.parse().ok()).unwrap_or(0))
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

fn show(bar: &ProgressBar, operation: &Row) {
    let name = operation.machine_name.clone().unwrap_or_default();
    bar.set_message(format!("{} {name}: {}", operation.kind, operation.stage));
    if let (Some(bytes), Some(total)) = (operation.bytes, operation.bytes_total) {
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_length(total);
        bar.set_position(bytes);
    }
    bar.tick();
}
