//! What all parts of the control role share, and the few ways in which they change the store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bootstorm_api::role::ControlConfig;
use bootstorm_model::lifecycle::{Event, Step};
use bootstorm_model::{Machine, NewLogEntry, Outcome, Severity, Timestamp};
use bootstorm_snapshot::observation::Failure;
use bootstorm_snapshot::{MachineId, OperationId, RackId};
use bootstorm_store::{Change, Committed, NewOperation, Observed, Store, Transition};
use tokio::sync::watch;

use crate::ca::Authority;
use crate::error::{Error, Result};
use crate::images::Importer;
use crate::limits;
use crate::publish::Publisher;
use crate::racks::Racks;
use crate::seal::Sealer;
use crate::switch::Switch;

/// The control role's shared parts.
pub(crate) struct Control {
    pub config: ControlConfig,
    pub store: Arc<dyn Store>,
    pub content: bootstorm_content::Store,
    pub sealer: Sealer,
    pub authority: Authority,
    pub publisher: Publisher,
    pub racks: Racks,
    pub switch: Switch,
    /// How the importer role is run.
    pub importer: Importer,
    /// One after the other: documents of `apply` are checked against each other before any takes effect.
    pub networks: tokio::sync::Mutex<()>,
    /// Image imports that can be stopped.
    pub imports: crate::images::Imports,
    /// Name under which this process claims effects.
    pub worker: String,
    #[cfg(test)]
    pub faults: crate::effects::Faults,
    changed: watch::Sender<u64>,
}

/// The parts that a [`Control`] is made of.
pub(crate) struct Parts {
    pub config: ControlConfig,
    pub store: Arc<dyn Store>,
    pub content: bootstorm_content::Store,
    pub sealer: Sealer,
    pub authority: Authority,
    pub switch: Switch,
    pub importer: Importer,
}

impl Control {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, store, content, sealer, authority, switch, importer } = parts;
        Self {
            config,
            store,
            content,
            sealer,
            authority,
            publisher: Publisher::new(),
            racks: Racks::new(),
            switch,
            importer,
            networks: tokio::sync::Mutex::default(),
            imports: crate::images::Imports::default(),
            worker: "control".to_string(),
            #[cfg(test)]
            faults: crate::effects::Faults::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Says that the store has changed: snapshot, effects, deadlines and waiting requests look again.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Changes whenever the store may have.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Commits changes.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.commit_observed(changes, None).await.map(drop)
    }

    /// Commits changes that follow from a rack's observations.
    pub(crate) async fn commit_observed(&self, changes: Vec<Change>, observed: Option<Observed>) -> Result<Committed> {
        let committed = self.store.commit(changes, observed, now()).await?;
        self.touch();
        Ok(committed)
    }

    /// A machine by its id.
    pub(crate) async fn machine(&self, id: MachineId) -> Result<Machine> {
        let machine = self.store.machine(id).await?;
        machine.ok_or_else(|| Error::NotFound { what: "machine", id: id.to_string() })
    }

    /// Reads a machine, lets `decide` say what is to change, and commits that; reads and decides again if the machine has changed in
    /// between. An empty list changes nothing. Gives the machine as it is then.
    pub(crate) async fn change<F>(&self, id: MachineId, decide: F) -> Result<Machine>
    where
        F: Fn(&Machine) -> Result<Vec<Change>>,
    {
        let mut tries = 0;
        loop {
            let machine = self.machine(id).await?;
            let changes = decide(&machine)?;
            if changes.is_empty() {
                return Ok(machine);
            }
            match self.commit(changes).await {
                Ok(()) => return self.machine(id).await,
                Err(Error::Store(bootstorm_store::Error::Conflict { .. })) if tries < limits::CONFLICT_TRIES_MAX => {
                    tries += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a machine's operation with a failure; nothing happens if it is over already.
    pub(crate) async fn fail(
        &self,
        id: MachineId,
        operation: OperationId,
        event: Event,
        failure: Failure,
    ) -> Result<()> {
        let failed = self.change(id, |machine| Ok(failure_changes(machine, operation, &event, &failure, "control")));
        failed.await.map(drop)
    }

    /// Notes something about a rack in the log; a log that cannot be written is only a warning here.
    pub(crate) async fn note_rack(&self, rack: RackId, code: &str, what: &str) {
        let known = self.store.rack(rack).await.ok().flatten();
        let name = known.map_or_else(|| rack.to_string(), |rack| rack.name.to_string());
        let entry = log(Severity::Info, code, None, None, &format!("rack {name}"), format!("rack `{name}` {what}"));
        if let Err(error) = self.commit(vec![entry]).await {
            tracing::warn!(%error, %rack, "the log cannot be written");
        }
    }
}

/// What a failure of a machine's operation changes; nothing if the operation is not the machine's any more.
pub(crate) fn failure_changes(
    machine: &Machine,
    operation: OperationId,
    event: &Event,
    failure: &Failure,
    actor: &str,
) -> Vec<Change> {
    if machine.operation != Some(operation) {
        return Vec::new();
    }
    let outcome = Outcome::Failed(failure.clone());
    let code = "machine-failed";
    let text = format!("`{}` failed ({}): {}", machine.hostname, failure.code, failure.evidence);
    let entry = log(Severity::Error, code, Some(machine.id), Some(operation), actor, text);
    match machine.decide(event) {
        Ok(step) => vec![Move::new(machine, step).finish(outcome).change(), entry],
        // The state has no failure to go to (a release that only switches off has); the operation ends all the same.
        Err(_) => vec![Change::FinishOperation { operation, outcome }, entry],
    }
}

/// A transition that is being put together.
pub(crate) struct Move(Transition);

impl Move {
    pub(crate) fn new(machine: &Machine, step: Step) -> Self {
        Self(Transition {
            machine: machine.id,
            version: machine.version,
            step,
            owner: None,
            installed: None,
            finish: None,
            start: None,
        })
    }

    pub(crate) fn owner(mut self, owner: Option<String>) -> Self {
        self.0.owner = Some(owner);
        self
    }

    pub(crate) fn installed(mut self, installed: Option<bootstorm_model::Installed>) -> Self {
        self.0.installed = Some(installed);
        self
    }

    pub(crate) fn finish(mut self, outcome: Outcome) -> Self {
        self.0.finish = Some(outcome);
        self
    }

    /// Ends whatever operation the machine has.
    pub(crate) fn cancel(mut self, machine: &Machine) -> Self {
        if machine.operation.is_some() {
            self.0.finish = Some(Outcome::Cancelled);
        }
        self
    }

    pub(crate) fn start(mut self, operation: NewOperation) -> Self {
        self.0.start = Some(operation);
        self
    }

    pub(crate) fn change(self) -> Change {
        Change::Transition(self.0)
    }
}

/// An entry of the log, as a change.
pub(crate) fn log(
    severity: Severity,
    code: &str,
    machine: Option<MachineId>,
    operation: Option<OperationId>,
    actor: &str,
    text: String,
) -> Change {
    Change::Log(NewLogEntry {
        at: now(),
        severity,
        code: code.to_string(),
        machine,
        operation,
        actor: actor.to_string(),
        text,
    })
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
