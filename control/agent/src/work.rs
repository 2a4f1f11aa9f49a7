//! Plans, one after the other, until the machine goes on to something else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bootstorm_api::agent::Report;
use bootstorm_api::limits::AGENT_HEARTBEAT_SECONDS;
use bootstorm_snapshot::Stage;
use bootstorm_snapshot::limits::TEXT_BYTES_MAX;
use bootstorm_snapshot::observation::Failure;
use bootstorm_snapshot::plan::{After, Erase, Task};

use crate::command_line::CommandLine;
use crate::disk::erase;
use crate::disk::fetch::Source;
use crate::init::Ending;
use crate::modules::Loader;
use crate::session::{CallError, Current, Session};
use crate::{deploy, inventory, limits};

/// What every task has at hand.
pub struct Context {
    /// What the boot script said.
    pub command_line: CommandLine,
    /// The site's CA, PEM.
    pub ca_pem: Vec<u8>,
    /// Drivers that may still have to be loaded.
    pub loader: Arc<Mutex<Loader>>,
    /// The rack's HTTP.
    pub source: Source,
    /// The session in force, for the heartbeat and the last words.
    pub current: Current,
}

/// Why a task has stopped.
#[derive(Debug)]
pub enum Stopped {
    /// The work cannot be done: reported, and the next plan awaited.
    Failed(Failure),
    /// The rack no longer listens to this agent.
    Dismissed(CallError),
}

impl From<CallError> for Stopped {
    fn from(error: CallError) -> Stopped {
        Stopped::Dismissed(error)
    }
}

/// A failure with its stage, code and evidence.
pub fn failed(stage: Stage, code: &str, evidence: impl std::fmt::Display) -> Stopped {
    Stopped::Failed(Failure { stage, code: code.to_string(), evidence: cut(evidence.to_string(), TEXT_BYTES_MAX) })
}

/// A text cut to at most `bytes_max` bytes, at a character.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Runs something that blocks beside the network's tasks; a panic in it goes on here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Performs plans until one of them, or the rack, says how the machine goes on.
pub async fn run_plans(context: &Context, first: Session) -> Ending {
    let mut session = Arc::new(first);
    loop {
        context.current.set(&session);
        let plan = &session.grant.plan;
        crate::log!("task {:?} for {:?}", task_name(&plan.task), session.grant.subject);
        match perform(context, &session).await {
            Ok(Some(ending)) => return ending,
            Ok(None) => {}
            Err(Stopped::Failed(failure)) => {
                crate::log!("failed: {} ({}): {}", failure.code, stage_name(failure.stage), failure.evidence);
                let told = session.report(Report::Failed { failure }).await;
                match (told, plan.after) {
                    (Ok(()), After::PowerOff) => return Ending::PowerOff,
                    (Ok(()), After::Wait | After::StartSystem) => {}
                    (Err(error), _) => crate::log!("failure not reported: {error}"),
                }
            }
            Err(Stopped::Dismissed(error)) => crate::log!("{error}"),
        }
        crate::log!("waiting for the next plan");
        session = match session.next().await {
            Ok(next) => Arc::new(next),
            Err(error) => {
                crate::log!("no further plan: {error}");
                tokio::time::sleep(limits::RESTART_PAUSE).await;
                return Ending::Restart { entry: None };
            }
        };
    }
}

/// Performs a session's plan; nothing is returned where the next plan is to be awaited.
async fn perform(context: &Context, session: &Session) -> Result<Option<Ending>, Stopped> {
    let plan = &session.grant.plan;
    match &plan.task {
        Task::Enlist => {
            report_inventory(context, session).await?;
            return Ok(None);
        }
        Task::Commission => report_inventory(context, session).await?,
        Task::Erase { method: Erase::Quick } => erase_disks(context, session).await?,
        Task::Deploy(wanted) => return deploy::deploy(context, session, plan, wanted).await.map(Some),
    }
    session.report(Report::Finished).await?;
    Ok(match plan.after {
        After::Wait => None,
        After::PowerOff => Some(Ending::PowerOff),
        After::StartSystem => Some(Ending::Restart { entry: None }),
    })
}

async fn report_inventory(context: &Context, session: &Session) -> Result<(), Stopped> {
    let mac = context.command_line.mac;
    let inventory = Box::new(blocking(move || inventory::read(mac)).await);
    Ok(session.report(Report::Inventory { inventory }).await?)
}

/// Erases every fixed disk; read-only and removable ones are named and left alone.
async fn erase_disks(context: &Context, session: &Session) -> Result<(), Stopped> {
    let mac = context.command_line.mac;
    let inventory = Box::new(blocking(move || inventory::read(mac)).await);
    let disks = inventory.disks.clone();
    session.report(Report::Inventory { inventory }).await?;
    session.report(Report::Stage { stage: Stage::Erase, progress: None, detail: String::new() }).await?;
    for disk in disks {
        if disk.read_only || disk.removable {
            crate::log!("{} is left alone: it is read-only or removable", disk.name);
            continue;
        }
        let name = disk.name.clone();
        let erased = blocking(move || erase::erase_quick(&disk)).await;
        let bytes = erased.map_err(|e| {
            let code = match &e {
                erase::EraseError::Disk(..) => "disk-failed",
                erase::EraseError::NotErased(..) => "erase-not-verified",
            };
            failed(Stage::Erase, code, e)
        })?;
        crate::log!("{name}: {bytes} bytes cleared and read back");
    }
    Ok(())
}

/// Sends a heartbeat every few seconds. Ends when the rack has refused this agent several times in a row: somebody else
/// speaks for the machine now, or nobody does.
pub async fn run_heartbeat(current: Current) {
    const REFUSALS_MAX: u32 = 3;
    let mut refusals = 0;
    let mut ticks = tokio::time::interval(Duration::from_secs(AGENT_HEARTBEAT_SECONDS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while refusals < REFUSALS_MAX {
        ticks.tick().await;
        let Some(session) = current.try_get() else { continue };
        match session.report_unnumbered(Report::Alive).await {
            Ok(()) => refusals = 0,
            Err(error) if error.is_dismissal() => refusals += 1,
            Err(error) => crate::log!("heartbeat: {error}"),
        }
    }
}

fn task_name(task: &Task) -> &'static str {
    match task {
        Task::Enlist => "enlist",
        Task::Commission => "commission",
        Task::Erase { method: Erase::Quick } => "erase quick",
        Task::Deploy(_) => "deploy",
    }
}

fn stage_name(stage: Stage) -> String {
    format!("{stage:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_cut_at_a_character() {
        let Stopped::Failed(failure) = failed(Stage::Write, "x", "ä".repeat(TEXT_BYTES_MAX)) else {
            panic!("a failure");
        };
        assert_eq!(failure.evidence.len(), TEXT_BYTES_MAX);
        assert_eq!(cut("äb".into(), 1), "");
    }
}
