//! `bootstorm event …`.

use bootstorm_api::native::{Event as Row, EventQuery, Page};
use clap::Subcommand;

use super::client::{Client, ClientError};
use super::operation::latest_event;
use super::output::{self, Format, Rows};

/// Commands about events.
#[derive(Debug, Subcommand)]
pub enum Event {
    /// List events, oldest first
    #[command(after_help = "Example:\n  bootstorm event list --machine n017 --limit 20")]
    List {
        /// Only of this machine
        #[arg(long)]
        machine: Option<String>,
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// Rows at most
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Print events as they happen, until interrupted
    #[command(after_help = "Example:\n  bootstorm event watch")]
    Watch {
        /// Only of this machine
        #[arg(long)]
        machine: Option<String>,
    },
}

impl Rows for Row {
    const COLUMNS: &'static [&'static str] = &["id", "time", "level", "machine", "code", "message"];
    fn cells(&self) -> Vec<String> {
        let machine = self.machine.clone().unwrap_or_default();
        let time = output::moment(self.unix_ms);
        vec![self.id.to_string(), time, self.level.clone(), machine, self.code.clone(), self.message.clone()]
    }
    fn name(&self) -> String {
        self.id.to_string()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Event) -> Result<(), ClientError> {
    match command {
        Event::List { machine, after, limit } => {
            let query = EventQuery { after: Some(after), limit: Some(limit), wait_seconds: None, machine };
            let page: Page<Row> = client.get("/events", &query).await?;
            output::list(format, &page.items);
            Ok(())
        }
        Event::Watch { machine } => watch(client, format, machine).await,
    }
}

/// Prints events from now on; ends only with an error.
pub(super) async fn watch(client: &Client, format: Format, machine: Option<String>) -> Result<(), ClientError> {
    let mut after = latest_event(client).await?;
    loop {
        let query =
            EventQuery { after: Some(after), limit: Some(1000), wait_seconds: Some(25), machine: machine.clone() };
        let page: Page<Row> = client.get("/events", &query).await?;
        for event in &page.items {
            after = after.max(event.id);
            match format {
                Format::Table => println!("{}", event.cells().join("  ")),
                Format::Name => println!("{}", event.name()),
                Format::Json | Format::Yaml => println!("{}", serde_json::to_string(event).unwrap_or_default()),
            }
        }
    }
}
