//! What racks have seen: applied once, in order, then acknowledged.
//!
//! Each numbered observation is turned into changes by looking at the store ([`Reader::changes`]); those of one batch are committed
//! together, cut where one needs to see the effect of another on the same machine. Unnumbered observations (progress) are applied
//! where that is possible and forgotten otherwise. An observation that cannot be applied is noted in the log and passed over, since a
//! rack can do nothing about it and what follows must not wait.

use std::collections::HashSet;
use std::sync::Arc;

use bootstorm_api::role::EnlistThen;
use bootstorm_model::lifecycle::{AfterCommissioning, Event, Start};
use bootstorm_model::{
    Address, AddressKind, Installed, Interface, Machine, Operation, Outcome, Parameters, Power, Severity, Span, State,
    Timestamp,
};
use bootstorm_snapshot::observation::{Failure, Progress};
use bootstorm_snapshot::{
    AttemptId, EnrolmentId, InterfaceId, Inventory, Mac, MachineId, Observation, Observed, OperationId, RackId, Stage,
    Subject,
};
use bootstorm_store::{Change, MachineUpdate, NewMachine, NewOperation};

use crate::control::{Control, Move, failure_changes, log};
use crate::error::{Error, Result};
use crate::limits;
use crate::seal::random;

/// The alarm for which a machine is held (`threat-model.md` T3): a claim was redeemed again with another key.
const HOLDING_ALARMS: &[&str] = &["claim-redeemed-twice"];

/// How far a link has come, which decides what a number out of turn means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It has just come up, and the rack serves no generation: its data may be new, and its numbers with it.
    Empty,
    /// It has just come up.
    New,
    /// Observations have come over it.
    Settled,
}

/// Applies a batch; gives the last number applied, if any was numbered.
pub(crate) async fn apply(
    control: &Arc<Control>,
    rack: RackId,
    batch: Vec<Observation>,
    link: Link,
) -> Result<Option<u64>> {
    let known = control.store.rack(rack).await?.ok_or_else(|| Error::Link("the rack is gone".into()))?;
    let reader = Reader { control, actor: format!("rack {}", known.name) };
    let mut applied = known.observation_sequence;
    let mut group: Vec<Observation> = Vec::new();
    let mut through = None;
    let mut touched = HashSet::new();
    for observation in batch {
        if observation.sequence == 0 {
            reader.passing(&observation).await;
            continue;
        }
        if through.is_none() && link == Link::Empty && observation.sequence == 1 && applied > 0 {
            control.store.resume_observations(rack, 0).await?;
            applied = 0;
        }
        through = Some(observation.sequence.max(through.unwrap_or(0)));
        if observation.sequence <= applied {
            continue;
        }
        let expected = group.last().map_or(applied, |last| last.sequence) + 1;
        if observation.sequence != expected {
            if link == Link::Settled || !group.is_empty() {
                return Err(Error::Link(format!("observation {} follows {}", observation.sequence, expected - 1)));
            }
            // What is in between was acknowledged by an earlier control whose database is not ours, or the rack lost it. It cannot
            // be had again, so it is said aloud.
            let text = format!("observations {expected} to {} of the rack are lost", observation.sequence - 1);
            control.commit(vec![log(Severity::Error, "observations-lost", None, None, &reader.actor, text)]).await?;
            control.store.resume_observations(rack, observation.sequence - 1).await?;
            applied = observation.sequence - 1;
        }
        let subject = touches(&observation.observed);
        if subject.is_some_and(|key| touched.contains(&key)) {
            applied = reader.commit(rack, std::mem::take(&mut group)).await?;
            touched.clear();
        }
        touched.extend(subject);
        group.push(observation);
    }
    if !group.is_empty() {
        reader.commit(rack, group).await?;
    }
    Ok(through)
}

/// Whose state an observation may depend on or change, beyond its boot trace.
fn touches(observed: &Observed) -> Option<Subject> {
    let anonymous = |mac: Mac| Subject::Enrolment { enrolment: EnrolmentId(uuid::Uuid::nil()), mac };
    match observed {
        Observed::Lease { .. }
        | Observed::LeaseEnded { .. }
        | Observed::Stage { .. }
        | Observed::UnknownMachine { .. } => None,
        Observed::Enlisted { mac, .. } => Some(anonymous(*mac)),
        Observed::Redeemed { subject, .. }
        | Observed::Inventory { subject, .. }
        | Observed::Finished { subject }
        | Observed::Written { subject }
        | Observed::Ready { subject, .. }
        | Observed::Failed { subject, .. } => Some(*subject),
        Observed::Alarm { subject, .. } => *subject,
    }
}

struct Reader<'a> {
    control: &'a Arc<Control>,
    actor: String,
}

impl Reader<'_> {
    /// Commits a group; one by one if it does not work out together.
    async fn commit(&self, rack: RackId, group: Vec<Observation>) -> Result<u64> {
        let last = group.last().map_or(0, |observation| observation.sequence);
        match self.attempt(rack, &group).await {
            Ok(()) => return Ok(last),
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => tracing::debug!(%error, "a group of observations is applied one by one"),
        }
        for observation in &group {
            let mut tries = 0;
            loop {
                match self.attempt(rack, std::slice::from_ref(observation)).await {
                    Ok(()) => break,
                    Err(Error::Store(bootstorm_store::Error::Conflict { .. }))
                        if tries < limits::CONFLICT_TRIES_MAX =>
                    {
                        tries += 1
                    }
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => {
                        self.pass_over(rack, observation, &error).await?;
                        break;
                    }
                }
            }
        }
        Ok(last)
    }

    async fn attempt(&self, rack: RackId, group: &[Observation]) -> Result<()> {
        let mut changes = Vec::new();
        for observation in group {
            metrics::counter!("bootstorm_observations_total", "kind" => kind(&observation.observed)).increment(1);
            changes.extend(self.changes(observation).await?);
        }
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
        let observed = bootstorm_store::Observed { rack, first: first.sequence, last: last.sequence };
        self.control.commit_observed(changes, Some(observed)).await.map(drop)
    }

    async fn pass_over(&self, rack: RackId, observation: &Observation, error: &Error) -> Result<()> {
        let text = format!(
            "observation {} ({}) cannot be applied: {error}",
            observation.sequence,
            kind(&observation.observed)
        );
        tracing::error!(%rack, text);
        let entry = log(Severity::Error, "observation-refused", None, None, &self.actor, text);
        let observed = bootstorm_store::Observed { rack, first: observation.sequence, last: observation.sequence };
        self.control.commit_observed(vec![entry], Some(observed)).await.map(drop)
    }

    /// Progress: worth showing, not worth keeping.
    async fn passing(&self, observation: &Observation) {
        let Observed::Stage { subject: Subject::Attempt { operation, .. }, stage, progress, .. } =
            &observation.observed
        else {
            return;
        };
        let change = Change::Progress { operation: *operation, stage: *stage, progress: *progress, restart: false };
        if let Err(error) = self.control.commit(vec![change]).await {
            tracing::debug!(%error, "progress is not noted");
        }
    }

    /// What an observation changes, given what the store holds now.
    async fn changes(&self, observation: &Observation) -> Result<Vec<Change>> {
        let at = timestamp(observation.unix_micros);
        match &observation.observed {
            Observed::Lease { mac, address, subnet, until_unix_seconds } => {
                let until = i64::try_from(*until_unix_seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
                Ok(vec![Change::Lease(Address {
                    ip: *address,
                    subnet: *subnet,
                    kind: AddressKind::Dhcp,
                    mac: Some(*mac),
                    // The store knows whose interface it is: in a storm, nothing is read for each lease.
                    machine: None,
                    until: until.map(Timestamp),
                    updated: at,
                })])
            }
            Observed::LeaseEnded { mac, address } => {
                Ok(vec![Change::LeaseEnded { subnet: None, ip: *address, mac: *mac }])
            }
            Observed::UnknownMachine { mac, .. } => {
                let text = format!("an unknown machine with the address `{mac}` asks to be booted");
                Ok(vec![log(Severity::Info, "machine-unknown", None, None, &self.actor, text)])
            }
            Observed::Stage { subject, stage, progress, detail } => {
                Ok(self.stage(subject, *stage, *progress, detail, at))
            }
            Observed::Redeemed { subject, .. } => self.redeemed(subject, at).await,
            Observed::Enlisted { enrolment, mac, inventory } => self.enlisted(*enrolment, *mac, inventory).await,
            Observed::Inventory { subject, inventory } => match subject {
                Subject::Attempt { machine, operation, .. }
                    if self.control.store.machine(*machine).await?.is_some() =>
                {
                    let mut changes = vec![Change::Inventory { machine: *machine, inventory: inventory.clone() }];
                    changes.push(progress(*operation, Stage::Inventory));
                    changes.extend(span(subject, Stage::Inventory, at, ""));
                    Ok(changes)
                }
                Subject::Attempt { .. } => Ok(Vec::new()),
                Subject::Enrolment { enrolment, mac } => self.enlisted(*enrolment, *mac, inventory).await,
            },
            Observed::Finished { subject } => self.finished(subject, at).await,
            Observed::Written { subject } => {
                let Some((machine, operation)) = self.current(subject).await? else {
                    return self.late(subject, "written");
                };
                let text = format!("the image is on the disk of `{}`; its first boot follows", machine.hostname);
                let mut changes = self.stage(subject, Stage::Written, None, "", at);
                changes.push(log(
                    Severity::Info,
                    "machine-written",
                    Some(machine.id),
                    Some(operation.id),
                    &self.actor,
                    text,
                ));
                Ok(changes)
            }
            Observed::Ready { subject, result } => self.ready(subject, &result.warnings, at).await,
            Observed::Failed { subject, failure } => self.failed(subject, failure, at).await,
            Observed::Alarm { code, subject, detail } => self.alarm(code, subject.as_ref(), detail).await,
        }
    }

    fn stage(
        &self,
        subject: &Subject,
        stage: Stage,
        progress: Option<Progress>,
        detail: &str,
        at: Timestamp,
    ) -> Vec<Change> {
        let Subject::Attempt { operation, .. } = subject else { return Vec::new() };
        let mut changes = vec![Change::Progress { operation: *operation, stage, progress, restart: false }];
        changes.extend(span(subject, stage, at, detail));
        changes
    }

    /// The machine and operation of a subject, if that operation is the machine's current one.
    async fn current(&self, subject: &Subject) -> Result<Option<(Machine, Operation)>> {
        let Subject::Attempt { machine, operation, .. } = subject else { return Ok(None) };
        let Some(machine) = self.control.store.machine(*machine).await? else { return Ok(None) };
        if machine.operation != Some(*operation) {
            return Ok(None);
        }
        Ok(self.control.store.operation(*operation).await?.map(|operation| (machine, operation)))
    }

    fn late(&self, subject: &Subject, what: &str) -> Result<Vec<Change>> {
        let Subject::Attempt { machine, operation, .. } = subject else { return Ok(Vec::new()) };
        let text = format!("`{what}` was reported for an operation that is over");
        Ok(vec![log(Severity::Warning, "report-late", Some(*machine), Some(*operation), &self.actor, text)])
    }

    async fn redeemed(&self, subject: &Subject, at: Timestamp) -> Result<Vec<Change>> {
        let Subject::Attempt { operation, attempt, .. } = subject else { return Ok(Vec::new()) };
        let Some((_, current)) = self.current(subject).await? else { return self.late(subject, "agent") };
        let spans = self.control.store.spans(*operation).await?;
        let seen = spans.iter().any(|span| span.attempt == *attempt && span.stage == Stage::Agent);
        // Another attempt's agent speaks: what its predecessor reached is ahead again.
        let restart = !seen && current.stage >= Stage::Agent;
        let mut changes =
            vec![Change::Progress { operation: *operation, stage: Stage::Agent, progress: None, restart }];
        changes.extend(span(subject, Stage::Agent, at, ""));
        Ok(changes)
    }

    async fn enlisted(&self, enrolment: EnrolmentId, mac: Mac, inventory: &Inventory) -> Result<Vec<Change>> {
        let found = self.identify(enrolment, mac, inventory).await?;
        let Some(machine) = found else { return self.enrol(enrolment, mac, inventory) };
        let mut changes = Vec::new();
        if machine.state == State::New && self.control.config.enlist_then == EnlistThen::Commission {
            changes.extend(self.commission_in_place(machine.id, machine.version, &machine)?);
        }
        if machine.enrolment != Some(enrolment) {
            let update = MachineUpdate { enrolment: Some(enrolment), ..MachineUpdate::default() };
            changes.push(Change::UpdateMachine { machine: machine.id, version: None, update });
            let text = format!("a machine that the rack did not know is `{}`", machine.hostname);
            changes.push(log(Severity::Info, "machine-reidentified", Some(machine.id), None, &self.actor, text));
        }
        changes.push(Change::Inventory { machine: machine.id, inventory: Box::new(inventory.clone()) });
        Ok(changes)
    }

    /// A machine that is known already: by the enrolment, by an interface, or by its system's UUID.
    async fn identify(&self, enrolment: EnrolmentId, mac: Mac, inventory: &Inventory) -> Result<Option<Machine>> {
        let store = &self.control.store;
        if let Some(machine) = store.machine_by_enrolment(enrolment).await? {
            return Ok(Some(machine));
        }
        for mac in std::iter::once(mac).chain(inventory.interfaces.iter().map(|interface| interface.mac)) {
            if let Some(machine) = store.machine_by_mac(mac).await? {
                return Ok(Some(machine));
            }
        }
        match inventory.dmi.system_uuid.as_deref().and_then(telling_uuid) {
            Some(uuid) => Ok(store.machine_by_system_uuid(&uuid).await?),
            None => Ok(None),
        }
    }

    fn enrol(&self, enrolment: EnrolmentId, mac: Mac, inventory: &Inventory) -> Result<Vec<Change>> {
        let id = MachineId::from_random(random()?);
        let hostname = format!("node-{id}").parse().map_err(|error| Error::invalid("host name", error))?;
        let mut interfaces = vec![Interface { id: InterfaceId(0), mac, name: "boot".into(), boot: true }];
        for found in inventory.interfaces.iter().filter(|found| found.mac.is_unicast()) {
            match interfaces.iter_mut().find(|known| known.mac == found.mac) {
                Some(known) => known.name.clone_from(&found.name),
                None => {
                    let name = found.name.clone();
                    interfaces.push(Interface { id: InterfaceId(0), mac: found.mac, name, boot: false });
                }
            }
        }
        let machine = NewMachine {
            id,
            hostname,
            pool: default_pool()?,
            architecture: Some(inventory.architecture),
            firmware: Some(inventory.firmware),
            power: Power::default(),
            interfaces,
            enrolment: Some(enrolment),
        };
        let text = format!("`{}` ({mac}) has been enlisted", machine.hostname);
        let mut changes = vec![Change::CreateMachine(machine.clone())];
        if self.control.config.enlist_then == EnlistThen::Commission {
            changes.extend(self.commission_in_place(id, 1, &as_created(&machine))?);
        }
        changes.push(Change::Inventory { machine: id, inventory: Box::new(inventory.clone()) });
        changes.push(log(Severity::Info, "machine-enlisted", Some(id), None, &self.actor, text));
        Ok(changes)
    }

    /// Commissioning by the agent that has just enlisted the machine.
    fn commission_in_place(&self, id: MachineId, version: i64, machine: &Machine) -> Result<Vec<Change>> {
        let Ok(step) = machine.decide(&Event::Commission { start: Start::InPlace }) else { return Ok(Vec::new()) };
        let operation = new_operation(Parameters::Commission, "control", None)?;
        let text = format!("`{}` is commissioned in the boot that enlisted it", machine.hostname);
        let entry = log(Severity::Info, "machine-commissioning", Some(id), Some(operation.id), "control", text);
        let machine = Machine { version, ..machine.clone() };
        Ok(vec![Move::new(&machine, step).start(operation).change(), entry])
    }

    async fn finished(&self, subject: &Subject, at: Timestamp) -> Result<Vec<Change>> {
        let Some((machine, operation)) = self.current(subject).await? else { return self.late(subject, "finished") };
        let (event, code, text) = match operation.parameters {
            Parameters::Commission => (
                Event::Commissioned { then: AfterCommissioning::Ready },
                "machine-commissioned",
                "has been commissioned",
            ),
            Parameters::Release { .. } => (Event::Erased, "machine-erased", "has been erased"),
            Parameters::Deploy(_)
            | Parameters::Test
            | Parameters::EnterRescueMode
            | Parameters::ExitRescueMode
            | Parameters::ImageImport { .. } => return Ok(Vec::new()),
        };
        let Ok(step) = machine.decide(&event) else { return self.late(subject, "finished") };
        let mut movement = Move::new(&machine, step);
        let mut changes = Vec::new();
        if event == Event::Erased {
            changes.extend(span(subject, Stage::Erase, at, ""));
        } else {
            movement = movement.finish(Outcome::Done { warnings: Vec::new() });
            changes.extend(span(subject, Stage::Ready, at, ""));
        }
        changes.push(movement.change());
        let text = format!("`{}` {text}", machine.hostname);
        changes.push(log(Severity::Info, code, Some(machine.id), Some(operation.id), &self.actor, text));
        Ok(changes)
    }

    async fn ready(&self, subject: &Subject, warnings: &[String], at: Timestamp) -> Result<Vec<Change>> {
        let Some((machine, operation)) = self.current(subject).await? else { return self.late(subject, "ready") };
        let (Ok(step), Parameters::Deploy(deploy)) = (machine.decide(&Event::SystemReady), &operation.parameters)
        else {
            return self.late(subject, "ready");
        };
        let installed =
            Installed { operation: operation.id, image: deploy.image, image_name: deploy.image_name.clone() };
        let outcome = Outcome::Done { warnings: warnings.to_vec() };
        let mut changes: Vec<Change> = span(subject, Stage::Ready, at, "").into_iter().collect();
        changes.push(Move::new(&machine, step).installed(Some(installed)).finish(outcome).change());
        let severity = if warnings.is_empty() { Severity::Info } else { Severity::Warning };
        let with = if warnings.is_empty() { String::new() } else { format!(" with {} warnings", warnings.len()) };
        let text = format!("`{}` is deployed with `{}`{with}", machine.hostname, deploy.image_name);
        changes.push(log(severity, "machine-deployed", Some(machine.id), Some(operation.id), &self.actor, text));
        Ok(changes)
    }

    async fn failed(&self, subject: &Subject, failure: &Failure, at: Timestamp) -> Result<Vec<Change>> {
        let Some((machine, operation)) = self.current(subject).await? else { return self.late(subject, "failed") };
        let detail = format!("failed: {}", failure.code);
        // A stage that was reached has its span; one that failed before gets it here.
        let mut changes: Vec<Change> = span(subject, failure.stage, at, &detail).into_iter().collect();
        changes.extend(failure_changes(&machine, operation.id, &Event::Failed, failure, &self.actor));
        Ok(changes)
    }

    async fn alarm(&self, code: &str, subject: Option<&Subject>, detail: &str) -> Result<Vec<Change>> {
        let (machine, operation) = match subject {
            Some(Subject::Attempt { machine, operation, .. }) => (Some(*machine), Some(*operation)),
            Some(Subject::Enrolment { enrolment, .. }) => {
                (self.control.store.machine_by_enrolment(*enrolment).await?.map(|machine| machine.id), None)
            }
            None => (None, None),
        };
        let mut changes = vec![log(Severity::Error, code, machine, operation, &self.actor, detail.to_string())];
        let holds = HOLDING_ALARMS.contains(&code);
        if let Some(id) = machine.filter(|_| holds)
            && let Some(machine) = self.control.store.machine(id).await?
        {
            let flags = bootstorm_model::Flags { held: true, ..machine.flags };
            let hold_reason = Some(Some(format!("{code}: {detail}")));
            let update = MachineUpdate { flags: Some(flags), hold_reason, ..MachineUpdate::default() };
            changes.push(Change::UpdateMachine { machine: id, version: None, update });
        }
        Ok(changes)
    }
}

/// An operation that begins now.
pub(crate) fn new_operation(parameters: Parameters, actor: &str, key: Option<String>) -> Result<NewOperation> {
    let milliseconds = crate::control::now().unix_milliseconds();
    Ok(NewOperation {
        id: OperationId::new(milliseconds, random()?),
        attempt: AttemptId::new(milliseconds, random()?),
        parameters,
        requested_by: actor.to_string(),
        idempotency_key: key,
    })
}

/// The pool of machines that nobody has put elsewhere.
pub(crate) fn default_pool() -> Result<bootstorm_model::Name> {
    "default".parse().map_err(|error| Error::invalid("pool", error))
}

/// A new machine as the store will hold it, to decide on.
fn as_created(machine: &NewMachine) -> Machine {
    Machine {
        id: machine.id,
        hostname: machine.hostname.clone(),
        state: State::New,
        flags: bootstorm_model::Flags::default(),
        hold_reason: None,
        version: 1,
        owner: None,
        pool: machine.pool.clone(),
        architecture: machine.architecture,
        firmware: machine.firmware,
        power: machine.power.clone(),
        interfaces: machine.interfaces.clone(),
        inventory: None,
        installed: None,
        operation: None,
        enrolment: machine.enrolment,
        created: Timestamp(0),
        updated: Timestamp(0),
    }
}

fn progress(operation: OperationId, stage: Stage) -> Change {
    Change::Progress { operation, stage, progress: None, restart: false }
}

fn span(subject: &Subject, stage: Stage, at: Timestamp, detail: &str) -> Option<Change> {
    let Subject::Attempt { operation, attempt, .. } = subject else { return None };
    let detail = detail.to_string();
    Some(Change::Span(Span { operation: *operation, attempt: *attempt, stage, at, detail }))
}

fn timestamp(unix_micros: u64) -> Timestamp {
    Timestamp(i64::try_from(unix_micros).unwrap_or(i64::MAX))
}

/// A system UUID in canonical form, unless it is one of those that many machines share.
fn telling_uuid(text: &str) -> Option<String> {
    /// Set by vendors that do not care, on thousands of boards.
    const SHARED: &[&str] = &["03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009"];
    let uuid = uuid::Uuid::parse_str(text).ok()?;
    let canonical = uuid.to_string();
    let telling = !uuid.is_nil() && !uuid.is_max() && !SHARED.contains(&canonical.as_str());
    telling.then_some(canonical)
}

/// A name for metrics: bounded.
fn kind(observed: &Observed) -> &'static str {
    match observed {
        Observed::Lease { .. } => "lease",
        Observed::LeaseEnded { .. } => "lease_ended",
        Observed::UnknownMachine { .. } => "unknown_machine",
        Observed::Stage { .. } => "stage",
        Observed::Redeemed { .. } => "redeemed",
        Observed::Enlisted { .. } => "enlisted",
        Observed::Inventory { .. } => "inventory",
        Observed::Finished { .. } => "finished",
        Observed::Written { .. } => "written",
        Observed::Ready { .. } => "ready",
        Observed::Failed { .. } => "failed",
        Observed::Alarm { .. } => "alarm",
    }
}

#[cfg(test)]
mod tests {
    use super::telling_uuid;

    #[test]
    fn uuids_that_many_share_tell_nothing() {
        assert_eq!(
            telling_uuid("4C4C4544-0042-3010-8052-B4C04F4E3132").as_deref(),
            Some("4c4c4544-0042-3010-8052-b4c04f4e3132")
        );
        for bad in
            ["", "x", "00000000-0000-0000-0000-000000000000", "03000200-0400-0500-0006-000700080009", "Not Settable"]
        {
            assert_eq!(telling_uuid(bad), None, "{bad}");
        }
    }
}
