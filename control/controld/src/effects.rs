//! The effect runner: performs what transitions owe, at least once, each machine's in order, until done or superseded.
//!
//! An effect is claimed for a while, performed without any transaction being open, and then noted as done or due again. Whatever an
//! effect waits for (racks, a BMC) it waits for a bounded time and is then claimed anew, so that one that the machine has moved on
//! from disappears by itself. All effects may happen twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bootstorm_api::bmc::{Action, PowerState as Seen};
use bootstorm_api::link::ToGateway;
use bootstorm_model::lifecycle::{BootPurpose, Event};
use bootstorm_model::{
    Effect, Machine, Operation, OperationState, Outcome, Parameters, Power, PowerState, Severity, Span, State,
};
use bootstorm_snapshot::observation::Failure;
use bootstorm_snapshot::{Generation, Ipv4Net, OperationId, RackId, Stage};
use bootstorm_store::{Change, MachineUpdate, QueuedEffect, SecretContext};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::control::{Control, Move, log, now};
use crate::error::{Error, Result};
use crate::racks::{self, Live};
use crate::{limits, publish};

/// What tests do to effects.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Faults {
    /// Called before an effect is performed and after it was; an error stands for a crash or a failure there.
    #[expect(clippy::type_complexity, reason = "one test hook")]
    pub hook: std::sync::Mutex<Option<Box<dyn FnMut(&QueuedEffect, When) -> bool + Send>>>,
}

/// Where a fault strikes.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

#[cfg(test)]
impl Faults {
    fn strikes(&self, effect: &QueuedEffect, when: When) -> bool {
        let mut hook = self.hook.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hook.as_mut().is_some_and(|hook| hook(effect, when))
    }
}

/// How a performance ended.
enum Ended {
    Done,
    /// Not yet, or not this time: again after a pause.
    Again {
        after: Duration,
        why: String,
    },
    /// It will not work: the operation fails.
    Failed(Failure),
}

/// Performs effects until the task is dropped.
pub(crate) async fn run(control: Arc<Control>) {
    let slots = Arc::new(Semaphore::new(limits::EFFECTS_IN_FLIGHT_MAX));
    let mut changed = control.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        changed.borrow_and_update();
        let room = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
        let claimed = claim(&control, room).await.unwrap_or_else(|error| {
            tracing::error!(%error, "effects cannot be claimed");
            Vec::new()
        });
        for effect in claimed {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let control = control.clone();
            tasks.spawn(async move {
                let _slot = slot;
                if let Err(error) = handle(&control, &effect).await {
                    tracing::error!(%error, effect = effect.effect.word(), machine = %effect.machine, "the outcome of an effect cannot be noted");
                }
                control.touch();
            });
        }
        let wait = pause(&control).await;
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(wait) => {}
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

async fn claim(control: &Arc<Control>, room: u32) -> Result<Vec<QueuedEffect>> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let start = now();
    let lease_end = start.plus_seconds(limits::EFFECT_LEASE_SECONDS);
    Ok(control.store.claim_effects(&control.worker, start, lease_end, room).await?)
}

/// Until the next effect is due; at least a second, since one that is due may wait for one under way.
async fn pause(control: &Arc<Control>) -> Duration {
    let longest = Duration::from_secs(3600);
    match control.store.next_effect_due().await {
        Ok(None) => longest,
        Ok(Some(due)) => {
            let micros = u64::try_from(due.0.saturating_sub(now().0)).unwrap_or(0);
            Duration::from_micros(micros).clamp(Duration::from_secs(1), longest)
        }
        Err(_) => Duration::from_secs(1),
    }
}

async fn handle(control: &Arc<Control>, queued: &QueuedEffect) -> Result<()> {
    let word = queued.effect.word();
    tracing::debug!(effect = word, machine = %queued.machine, tries = queued.tries, "effect started");
    let ended = match attempt(control, queued).await {
        Ok(ended) => ended,
        Err(error) => Ended::Again { after: back_off(queued.tries), why: error.to_string() },
    };
    let (id, worker) = (queued.id, control.worker.as_str());
    match ended {
        Ended::Done => {
            metrics::counter!("bootstorm_effects_total", "effect" => word, "outcome" => "done").increment(1);
            control.store.effect_done(id, worker, now()).await?;
        }
        Ended::Again { after, why } => {
            metrics::counter!("bootstorm_effects_total", "effect" => word, "outcome" => "again").increment(1);
            tracing::debug!(effect = word, machine = %queued.machine, why, "effect is not done yet");
            let retry_at = bootstorm_model::Timestamp(now().0 + i64::try_from(after.as_micros()).unwrap_or(0));
            control.store.effect_failed(id, worker, &why, Some(retry_at), now()).await?;
        }
        Ended::Failed(failure) => {
            metrics::counter!("bootstorm_effects_total", "effect" => word, "outcome" => "failed").increment(1);
            tracing::warn!(effect = word, machine = %queued.machine, code = failure.code, evidence = failure.evidence, "effect failed");
            // First the machine moves (which supersedes the effect), then the effect is given up: a crash between repeats both.
            if let Some(operation) = queued.operation {
                control.fail(queued.machine, operation, Event::Failed, failure.clone()).await?;
            }
            control.store.effect_failed(id, worker, &failure.evidence, None, now()).await?;
        }
    }
    Ok(())
}

async fn attempt(control: &Arc<Control>, queued: &QueuedEffect) -> Result<Ended> {
    #[cfg(test)]
    if control.faults.strikes(queued, When::Before) {
        return Ok(Ended::Again { after: Duration::ZERO, why: "fault before".into() });
    }
    let ended = perform(control, queued).await?;
    #[cfg(test)]
    if control.faults.strikes(queued, When::After) {
        return Ok(Ended::Again { after: Duration::ZERO, why: "fault after".into() });
    }
    Ok(ended)
}

async fn perform(control: &Arc<Control>, queued: &QueuedEffect) -> Result<Ended> {
    let Some(machine) = control.store.machine(queued.machine).await? else { return Ok(Ended::Done) };
    let operation = match queued.operation {
        Some(id) => control.store.operation(id).await?,
        None => None,
    };
    match queued.effect {
        Effect::PublishSnapshot => publish(control, queued, &machine, operation.as_ref()).await,
        Effect::PushSecrets => push_secrets(control, queued, operation.as_ref()).await,
        Effect::RevokeAttempt => revoke(control, queued.operation).await,
        Effect::PowerOn { .. } => switch(control, queued, &machine, operation.as_ref(), Action::On).await,
        Effect::PowerCycle { .. } => switch(control, queued, &machine, operation.as_ref(), Action::Cycle).await,
        Effect::PowerOff => switch(control, queued, &machine, operation.as_ref(), Action::Off).await,
    }
}

fn back_off(tries: u32) -> Duration {
    let (first, longest) = limits::EFFECT_PAUSE;
    first.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(longest)
}

fn running(operation: Option<&Operation>) -> Option<&Operation> {
    operation.filter(|operation| operation.state == OperationState::Running)
}

/// Racks serve the generation, and have what the machine will ask for. Where no agent is to boot, nobody needs to wait for racks.
async fn publish(
    control: &Arc<Control>,
    queued: &QueuedEffect,
    machine: &Machine,
    operation: Option<&Operation>,
) -> Result<Ended> {
    control.publisher.refresh(&*control.store, control.authority.pem()).await?;
    let agent = matches!(
        machine.state.status().boot_purpose(),
        BootPurpose::Commission | BootPurpose::Deploy | BootPurpose::Erase | BootPurpose::Test | BootPurpose::Rescue
    );
    let Some(operation) = running(operation).filter(|_| agent) else { return Ok(Ended::Done) };
    let id = operation.id;
    let served = wait(control, |control| {
        let view = control.publisher.subscribe().borrow().view.clone();
        lacking(control, machine, queued.generation, &publish::files_needed(&view, id))
    });
    if let Some(why) = served.await {
        return Ok(Ended::Again { after: Duration::ZERO, why });
    }
    // A deployment is published when its secrets are where they belong, too.
    if !matches!(operation.parameters, Parameters::Deploy(_)) {
        reached(control, operation, Stage::Published, "").await?;
    }
    Ok(Ended::Done)
}

/// What the racks concerned still lack, in words; `None` if nothing.
fn lacking(
    control: &Control,
    machine: &Machine,
    generation: Generation,
    files: &[bootstorm_snapshot::ManifestDigest],
) -> Option<String> {
    let concerned = concerned(control, machine);
    if concerned.is_empty() {
        return Some("no rack is connected".to_string());
    }
    for (rack, live) in concerned {
        if live.generation < generation {
            return Some(format!("rack {rack} serves generation {}, {generation} is needed", live.generation));
        }
        let missing = files.iter().filter(|file| live.missing.contains(file)).count();
        if missing > 0 {
            return Some(format!("rack {rack} has yet to fetch {missing} files"));
        }
    }
    None
}

/// The connected racks that may have to answer a machine: those on a network that it has an address of, else all.
fn concerned(control: &Control, machine: &Machine) -> Vec<(RackId, Live)> {
    let all = control.racks.all();
    let view = control.publisher.subscribe().borrow().view.clone();
    let macs: HashSet<_> = machine.interfaces.iter().map(|interface| interface.mac).collect();
    let networks: Vec<Ipv4Net> = view
        .reservations
        .values()
        .filter(|reservation| macs.contains(&reservation.mac))
        .filter_map(|reservation| view.subnets.get(&reservation.subnet).map(|subnet| subnet.cidr))
        .collect();
    let serves = |live: &Live| {
        live.interfaces.iter().any(|interface| networks.iter().any(|network| network.contains(interface.address)))
    };
    let near: Vec<_> = all.iter().filter(|(_, live)| serves(live)).cloned().collect();
    if near.is_empty() { all } else { near }
}

/// Waits until `lacking` finds nothing, for a while; gives what is lacking still.
async fn wait(control: &Arc<Control>, lacking: impl Fn(&Control) -> Option<String>) -> Option<String> {
    let mut changed = control.racks.subscribe();
    let deadline = Instant::now() + Duration::from_secs(limits::RACK_WAIT_SECONDS);
    loop {
        changed.borrow_and_update();
        let why = lacking(control)?;
        if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            return Some(why);
        }
    }
}

async fn push_secrets(control: &Arc<Control>, queued: &QueuedEffect, operation: Option<&Operation>) -> Result<Ended> {
    let Some(operation) = running(operation) else { return Ok(Ended::Done) };
    let machine = control.machine(queued.machine).await?;
    let has_secrets = matches!(&operation.parameters, Parameters::Deploy(deploy) if deploy.user_data);
    if has_secrets {
        for (_, live) in concerned(control, &machine).iter().filter(|(_, live)| !live.held.contains(&operation.id)) {
            racks::push_secrets(control, live, operation.id).await?;
        }
        let held = wait(control, |control| {
            let concerned = concerned(control, &machine);
            let without = concerned.iter().find(|(_, live)| !live.held.contains(&operation.id));
            match without {
                Some((rack, _)) => Some(format!("rack {rack} does not hold the secrets yet")),
                None if concerned.is_empty() => Some("no rack is connected".to_string()),
                None => None,
            }
        });
        if let Some(why) = held.await {
            return Ok(Ended::Again { after: Duration::ZERO, why });
        }
    }
    reached(control, operation, Stage::Published, "").await?;
    Ok(Ended::Done)
}

/// Nobody keeps the secrets of an operation that is over. What racks know of its attempts goes with the snapshot.
async fn revoke(control: &Arc<Control>, operation: Option<OperationId>) -> Result<Ended> {
    let Some(id) = operation else { return Ok(Ended::Done) };
    let over = control.store.operation(id).await?.is_none_or(|operation| operation.state != OperationState::Running);
    if over {
        control.store.delete_secret(&SecretContext::OperationUserData(id)).await?;
    }
    for (rack, live) in control.racks.all() {
        if !live.tell(&ToGateway::ForgetSecrets { operation: id }, &[]) {
            return Ok(Ended::Again { after: limits::EFFECT_PAUSE.0, why: format!("rack {rack} is busy") });
        }
    }
    Ok(Ended::Done)
}

async fn reached(control: &Arc<Control>, operation: &Operation, stage: Stage, detail: &str) -> Result<()> {
    let span =
        Span { operation: operation.id, attempt: operation.attempt, stage, at: now(), detail: detail.to_string() };
    let progress = Change::Progress { operation: operation.id, stage, progress: None, restart: false };
    control.commit(vec![progress, Change::Span(span)]).await
}

async fn switch(
    control: &Arc<Control>,
    queued: &QueuedEffect,
    machine: &Machine,
    operation: Option<&Operation>,
    action: Action,
) -> Result<Ended> {
    let operation = running(operation);
    if machine.power.driver == "manual" {
        by_hand(control, queued, machine, operation, action).await?;
        return after(control, machine, action).await;
    }
    if action != Action::Off
        && let Some(operation) = operation
    {
        if taken_over(control, machine, operation).await? {
            return Ok(Ended::Done);
        }
        reached(control, operation, Stage::Power, &machine.power.driver).await?;
    }
    match command(control, machine, action).await {
        Ok(_) => after(control, machine, action).await,
        Err(error) if error.is_retryable() && queued.tries < limits::POWER_TRIES_MAX => {
            Ok(Ended::Again { after: back_off(queued.tries), why: error.to_string() })
        }
        Err(error) => {
            // A machine that nothing is under way on keeps its state; the log says that it would not be switched.
            if operation.is_none() {
                let text = format!("`{}` cannot be switched {}: {error}", machine.hostname, verb(action));
                control
                    .commit(vec![log(Severity::Error, "power-failed", Some(machine.id), None, "control", text)])
                    .await?;
            }
            Ok(Ended::Failed(Failure {
                stage: Stage::Power,
                code: "power-failed".to_string(),
                evidence: error.to_string(),
            }))
        }
    }
}

/// Whether the agent of a machine that is on has taken the operation over: one that waits after enlistment asks for its
/// plan all the time, and a power cycle would only throw its boot away.
async fn taken_over(control: &Arc<Control>, machine: &Machine, operation: &Operation) -> Result<bool> {
    let may_wait = matches!(operation.parameters, Parameters::Commission);
    if !may_wait || !matches!(command(control, machine, Action::Query).await, Ok(Seen::On)) {
        return Ok(false);
    }
    let mut changed = control.subscribe();
    let deadline = Instant::now() + limits::TAKE_OVER_WAIT;
    loop {
        changed.borrow_and_update();
        let now = control.store.operation(operation.id).await?;
        if now.is_none_or(|now| now.state != OperationState::Running || now.stage >= Stage::Agent) {
            return Ok(true);
        }
        if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            return Ok(false);
        }
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::On | Action::Cycle => "on",
        Action::Off => "off",
        Action::Query => "anywhere",
    }
}

/// Sends one command to the bmc role and notes the state that it reports.
pub(crate) async fn command(control: &Arc<Control>, machine: &Machine, action: Action) -> Result<Seen> {
    let context = SecretContext::MachinePower(machine.id);
    let sealed = control.store.secret(&context).await?.unwrap_or_default();
    let outcome = control.switch.perform(&machine.power.driver, context.text(), action, sealed).await;
    let state = match &outcome {
        Ok(Seen::On) => PowerState::On,
        Ok(Seen::Off) => PowerState::Off,
        Ok(Seen::Unknown) => PowerState::Unknown,
        Err(_) => PowerState::Error,
    };
    if machine.power.state != state {
        let power = Power { driver: machine.power.driver.clone(), state, checked: Some(now()) };
        let update = MachineUpdate { power: Some(power), ..MachineUpdate::default() };
        control.commit(vec![Change::UpdateMachine { machine: machine.id, version: None, update }]).await?;
    }
    outcome
}

async fn by_hand(
    control: &Arc<Control>,
    queued: &QueuedEffect,
    machine: &Machine,
    operation: Option<&Operation>,
    action: Action,
) -> Result<()> {
    // An agent whose plan is done switches its machine off by itself; only a release leaves that to a person.
    let wanted = match action {
        Action::On | Action::Cycle => Some("on (or restart it)"),
        Action::Off if machine.state == State::Releasing => Some("off"),
        Action::Off | Action::Query => None,
    };
    if let Some(wanted) = wanted.filter(|_| queued.tries <= 1) {
        let text = format!("switch `{}` {wanted} by hand: its power driver is `manual`", machine.hostname);
        let operation = operation.map(|operation| operation.id);
        control
            .commit(vec![log(Severity::Warning, "power-by-hand", Some(machine.id), operation, "control", text)])
            .await?;
    }
    Ok(())
}

/// What follows a machine that is off.
async fn after(control: &Arc<Control>, machine: &Machine, action: Action) -> Result<Ended> {
    if action == Action::Off {
        let released = control.change(machine.id, |machine| {
            let event = match machine.state {
                State::Releasing => Event::PoweredOff,
                State::ExitingRescueMode { .. } => Event::RescueExited,
                _ => return Ok(Vec::new()),
            };
            let Ok(step) = machine.decide(&event) else { return Ok(Vec::new()) };
            let mut movement = Move::new(machine, step);
            if machine.operation.is_some() {
                movement = movement.finish(Outcome::Done { warnings: Vec::new() });
            }
            if event == Event::PoweredOff {
                movement = movement.owner(None).installed(None);
            }
            let text = format!(
                "`{}` is {}",
                machine.hostname,
                if event == Event::PoweredOff { "ready again" } else { "back" }
            );
            let entry = log(Severity::Info, "machine-released", Some(machine.id), machine.operation, "control", text);
            Ok(vec![movement.change(), entry])
        });
        let machine = match released.await {
            Ok(machine) => machine,
            Err(Error::NotFound { .. }) => return Ok(Ended::Done),
            Err(error) => return Err(error),
        };
        if machine.state == State::Ready {
            crate::machines::give_back_addresses(control, machine.id).await?;
        }
    }
    Ok(Ended::Done)
}
