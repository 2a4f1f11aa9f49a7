//! The changes of a commit, each inside its transaction.

use super::{address, effect, list, row, site};
use crate::error::{Error, Result};
use crate::types::{Change, MachineUpdate, NewMachine, NewOperation, Transition};
use bootstorm_model::operation::stage_word;
use bootstorm_model::{
    Flags, Interface, InventorySummary, Machine, NewLogEntry, Operation, OperationState, Outcome, Parameters, Span,
    State, Timestamp, limits,
};
use bootstorm_snapshot::{Generation, InterfaceId, Inventory, MachineId, OperationId, Stage};
use sqlx::sqlite::SqliteConnection;

/// Whether racks see anything of it.
pub(super) fn is_seen_by_racks(change: &Change) -> bool {
    match change {
        Change::CreateMachine(_)
        | Change::Transition(_)
        | Change::DeleteMachine { .. }
        | Change::Inventory { .. }
        | Change::FinishOperation { .. } => true,
        Change::UpdateMachine { update, .. } => {
            let MachineUpdate {
                hostname,
                pool: _,
                architecture,
                firmware,
                power: _,
                flags,
                hold_reason: _,
                interfaces,
                enrolment,
            } = update;
            hostname.is_some()
                || architecture.is_some()
                || firmware.is_some()
                || flags.is_some()
                || interfaces.is_some()
                || enrolment.is_some()
        }
        Change::StartOperation(_)
        | Change::Progress { .. }
        | Change::Span(_)
        | Change::Lease(_)
        | Change::LeaseEnded { .. }
        | Change::PutSecret { .. }
        | Change::Log(_) => false,
    }
}

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    change: Change,
    generation: Generation,
    now: Timestamp,
) -> Result<()> {
    match change {
        Change::CreateMachine(new) => create_machine(connection, new, now).await,
        Change::Transition(transition) => apply_transition(connection, transition, generation, now).await,
        Change::UpdateMachine { machine, version, update } => {
            update_machine(connection, machine, version, update, now).await
        }
        Change::DeleteMachine { machine, version } => delete_machine(connection, machine, version).await,
        Change::Inventory { machine, inventory } => put_inventory(connection, machine, &inventory, now).await,
        Change::StartOperation(new) => start_operation(connection, None, new, now).await.map(drop),
        Change::Progress { operation, stage, progress, restart } => {
            let mut operation = existing_operation(connection, operation).await?;
            let restarted = restart && operation.restart(stage, now);
            if operation.advance(stage, progress, now) || restarted {
                save_operation(connection, &operation).await?;
            }
            Ok(())
        }
        Change::FinishOperation { operation, outcome } => {
            if let Some(id) = finish_operation(connection, operation, outcome, now).await? {
                let mut machine = existing_machine(connection, id).await?;
                if machine.operation == Some(operation) {
                    machine.operation = None;
                    save_machine(connection, &mut machine, now).await?;
                }
            }
            Ok(())
        }
        Change::Span(span) => put_span(connection, &span).await,
        Change::Lease(lease) => address::put_leases(connection, &[lease]).await,
        Change::LeaseEnded { subnet, ip, mac } => address::end_lease(connection, subnet, ip, mac).await,
        Change::PutSecret { context, sealed } => site::put_secret(connection, &context, &sealed).await,
        Change::Log(entry) => put_log(connection, &entry).await,
    }
}

async fn create_machine(connection: &mut SqliteConnection, new: NewMachine, now: Timestamp) -> Result<()> {
    let NewMachine { id, hostname, pool, architecture, firmware, power, interfaces, enrolment } = new;
    let mut machine = Machine {
        id,
        hostname,
        state: State::New,
        flags: Flags::default(),
        hold_reason: None,
        version: 0,
        owner: None,
        pool,
        architecture,
        firmware,
        power,
        interfaces: Vec::new(),
        inventory: None,
        installed: None,
        operation: None,
        enrolment,
        created: now,
        updated: now,
    };
    // The row first: interfaces refer to it.
    let text = "INSERT INTO machine (id, hostname, status, pool, version, data) VALUES ($1, $2, $3, $4, 0, '')";
    sqlx::query(text)
        .bind(id.to_string())
        .bind(machine.hostname.to_string())
        .bind(i64::from(machine.state.status().code()))
        .bind(machine.pool.to_string())
        .execute(&mut *connection)
        .await
        .map_err(|error| {
            let columns: [row::Unique<'_>; 2] =
                [("machine.id", "machine id", &id), ("machine.hostname", "host name", &machine.hostname)];
            row::duplicate(error, &columns)
        })?;
    set_interfaces(connection, &mut machine, interfaces).await?;
    save_machine(connection, &mut machine, now).await
}

async fn apply_transition(
    connection: &mut SqliteConnection,
    transition: Transition,
    generation: Generation,
    now: Timestamp,
) -> Result<()> {
    let Transition { machine: id, version, step, owner, installed, finish, start } = transition;
    let mut machine = existing_machine(connection, id).await?;
    if machine.version != version || machine.state != step.from {
        return Err(Error::Conflict { what: "machine", id: id.to_string() });
    }
    let ended = if finish.is_some() { machine.operation.take() } else { None };
    if let (Some(ended), Some(outcome)) = (ended, finish) {
        finish_operation(connection, ended, outcome, now).await?;
    }
    if let Some(new) = start {
        if let Some(running) = machine.operation {
            return Err(Error::Conflict { what: "operation", id: running.to_string() });
        }
        machine.operation = Some(start_operation(connection, Some(id), new, now).await?);
    }
    machine.state = step.next;
    if let Some(owner) = owner {
        machine.owner = owner;
    }
    if let Some(installed) = installed {
        machine.installed = installed;
    }
    save_machine(connection, &mut machine, now).await?;
    effect::queue(connection, id, &step.effects, (ended, machine.operation), generation, now).await
}

async fn update_machine(
    connection: &mut SqliteConnection,
    id: MachineId,
    version: Option<i64>,
    update: MachineUpdate,
    now: Timestamp,
) -> Result<()> {
    let mut machine = existing_machine(connection, id).await?;
    if version.is_some_and(|version| version != machine.version) {
        return Err(Error::Conflict { what: "machine", id: id.to_string() });
    }
    let MachineUpdate { hostname, pool, architecture, firmware, power, flags, hold_reason, interfaces, enrolment } =
        update;
    machine.hostname = hostname.unwrap_or(machine.hostname);
    machine.pool = pool.unwrap_or(machine.pool);
    machine.architecture = architecture.or(machine.architecture);
    machine.firmware = firmware.or(machine.firmware);
    machine.power = power.unwrap_or(machine.power);
    machine.flags = flags.unwrap_or(machine.flags);
    machine.hold_reason = hold_reason.unwrap_or(machine.hold_reason);
    machine.enrolment = enrolment.or(machine.enrolment);
    if let Some(interfaces) = interfaces {
        set_interfaces(connection, &mut machine, interfaces).await?;
    }
    save_machine(connection, &mut machine, now).await
}

async fn delete_machine(connection: &mut SqliteConnection, id: MachineId, version: i64) -> Result<()> {
    let machine = existing_machine(connection, id).await?;
    if machine.version != version {
        return Err(Error::Conflict { what: "machine", id: id.to_string() });
    }
    if machine.operation.is_some() {
        return Err(Error::InUse { what: "machine", id: id.to_string(), by: "an operation" });
    }
    let secrets = "DELETE FROM secret WHERE context = $1";
    let power = crate::SecretContext::MachinePower(id).text();
    sqlx::query(secrets).bind(power).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM machine WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

async fn put_inventory(
    connection: &mut SqliteConnection,
    id: MachineId,
    inventory: &Inventory,
    now: Timestamp,
) -> Result<()> {
    let mut machine = existing_machine(connection, id).await?;
    let mut interfaces = machine.interfaces.clone();
    for found in inventory.interfaces.iter().filter(|found| found.mac.is_unicast()) {
        match interfaces.iter_mut().find(|known| known.mac == found.mac) {
            Some(known) => {
                known.name = found.name.clone();
                known.boot = found.boot;
            }
            None => interfaces.push(Interface {
                id: InterfaceId(0),
                mac: found.mac,
                name: found.name.clone(),
                boot: found.boot,
            }),
        }
    }
    set_interfaces(connection, &mut machine, interfaces).await?;
    machine.architecture = Some(inventory.architecture);
    machine.firmware = Some(inventory.firmware);
    machine.inventory = Some(InventorySummary::of(inventory));
    save_machine(connection, &mut machine, now).await?;
    let text = "INSERT INTO inventory (machine, at, data, system_uuid) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (machine) DO UPDATE SET at = excluded.at, data = excluded.data, system_uuid = excluded.system_uuid";
    sqlx::query(text)
        .bind(id.to_string())
        .bind(now.0)
        .bind(row::to_json("inventory.data", inventory)?)
        .bind(inventory.dmi.system_uuid.as_deref().map(str::to_ascii_lowercase))
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes these the machine's interfaces: known addresses keep their ids, others get new ones, the rest are removed. The machine's
/// row must exist; the caller saves it.
async fn set_interfaces(
    connection: &mut SqliteConnection,
    machine: &mut Machine,
    mut interfaces: Vec<Interface>,
) -> Result<()> {
    if interfaces.len() > limits::INTERFACES_MAX {
        return Err(Error::TooLarge { what: "interfaces of a machine", max: limits::INTERFACES_MAX });
    }
    for gone in machine.interfaces.iter().filter(|old| interfaces.iter().all(|new| new.mac != old.mac)) {
        sqlx::query("DELETE FROM interface WHERE id = $1").bind(gone.id.0).execute(&mut *connection).await?;
    }
    for interface in &mut interfaces {
        match machine.interfaces.iter().find(|old| old.mac == interface.mac) {
            Some(old) => interface.id = old.id,
            None => {
                let mac = interface.mac;
                let text = "INSERT INTO interface (machine, mac) VALUES ($1, $2) RETURNING id";
                let id = sqlx::query_scalar(text)
                    .bind(machine.id.to_string())
                    .bind(mac.to_string())
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(|error| row::duplicate(error, &[("interface.mac", "MAC address", &mac)]))?;
                interface.id = InterfaceId(id);
            }
        }
    }
    interfaces.sort_by_key(|interface| interface.id);
    machine.interfaces = interfaces;
    Ok(())
}

async fn existing_machine(connection: &mut SqliteConnection, id: MachineId) -> Result<Machine> {
    let machine = list::machine(connection, id).await?;
    machine.ok_or_else(|| Error::NotFound { what: "machine", id: id.to_string() })
}

/// The one place where what changes about a machine is written: as its next version.
async fn save_machine(connection: &mut SqliteConnection, machine: &mut Machine, now: Timestamp) -> Result<()> {
    machine.version += 1;
    machine.updated = now;
    let text = "UPDATE machine SET hostname = $2, status = $3, pool = $4, owner = $5, enrolment = $6, version = $7, \
        data = $8 WHERE id = $1";
    let enrolment = machine.enrolment.map(|id| id.to_string());
    let done = sqlx::query(text)
        .bind(machine.id.to_string())
        .bind(machine.hostname.to_string())
        .bind(i64::from(machine.state.status().code()))
        .bind(machine.pool.to_string())
        .bind(machine.owner.clone())
        .bind(enrolment.clone())
        .bind(machine.version)
        .bind(row::to_json("machine.data", machine)?)
        .execute(connection)
        .await
        .map_err(|error| {
            let enrolment = enrolment.unwrap_or_default();
            let columns: [row::Unique<'_>; 2] =
                [("machine.hostname", "host name", &machine.hostname), ("machine.enrolment", "enrolment", &enrolment)];
            row::duplicate(error, &columns)
        })?;
    row::changed(done.rows_affected(), "machine", machine.id)
}

async fn start_operation(
    connection: &mut SqliteConnection,
    machine: Option<MachineId>,
    new: NewOperation,
    now: Timestamp,
) -> Result<OperationId> {
    let NewOperation { id, attempt, parameters, requested_by, idempotency_key } = new;
    let mut operation = Operation {
        id,
        machine,
        attempt,
        parameters,
        state: OperationState::Running,
        stage: Stage::Queued,
        progress: None,
        deadline: None,
        failure: None,
        warnings: Vec::new(),
        requested_by,
        idempotency_key,
        created: now,
        updated: now,
        finished: None,
    };
    operation.deadline = Some(now.plus_seconds(operation.stage_seconds_max()));
    let text = "INSERT INTO operation (id, machine, kind, state, idempotency_key, image, data) \
        VALUES ($1, $2, $3, $4, $5, $6, '')";
    let key = operation.idempotency_key.clone();
    let image = match &operation.parameters {
        Parameters::Deploy(deploy) => Some(deploy.image.to_string()),
        Parameters::Commission
        | Parameters::Release { .. }
        | Parameters::Test
        | Parameters::EnterRescueMode
        | Parameters::ExitRescueMode
        | Parameters::ImageImport { .. } => None,
    };
    sqlx::query(text)
        .bind(id.to_string())
        .bind(machine.map(|id| id.to_string()))
        .bind(operation.parameters.kind().word())
        .bind(operation.state.word())
        .bind(key.clone())
        .bind(image)
        .execute(&mut *connection)
        .await
        .map_err(|error| {
            let key = key.unwrap_or_default();
            let columns: [row::Unique<'_>; 2] =
                [("operation.idempotency_key", "idempotency key", &key), ("operation.id", "operation id", &id)];
            row::duplicate(error, &columns)
        })?;
    save_operation(connection, &operation).await?;
    Ok(id)
}

/// Ends an operation if it runs, and forgets its secrets; returns the machine it was about.
async fn finish_operation(
    connection: &mut SqliteConnection,
    id: OperationId,
    outcome: Outcome,
    now: Timestamp,
) -> Result<Option<MachineId>> {
    let mut operation = existing_operation(connection, id).await?;
    if !operation.finish(outcome, now) {
        return Ok(None);
    }
    save_operation(connection, &operation).await?;
    let context = crate::SecretContext::OperationUserData(id).text();
    sqlx::query("DELETE FROM secret WHERE context = $1").bind(context).execute(connection).await?;
    Ok(operation.machine)
}

async fn existing_operation(connection: &mut SqliteConnection, id: OperationId) -> Result<Operation> {
    let operation = list::operation(connection, id).await?;
    operation.ok_or_else(|| Error::NotFound { what: "operation", id: id.to_string() })
}

/// The one place where what changes about an operation is written.
async fn save_operation(connection: &mut SqliteConnection, operation: &Operation) -> Result<()> {
    let done = sqlx::query("UPDATE operation SET state = $2, deadline = $3, data = $4 WHERE id = $1")
        .bind(operation.id.to_string())
        .bind(operation.state.word())
        .bind(operation.deadline.map(|deadline| deadline.0))
        .bind(row::to_json("operation.data", operation)?)
        .execute(connection)
        .await?;
    row::changed(done.rows_affected(), "operation", operation.id)
}

async fn put_span(connection: &mut SqliteConnection, span: &Span) -> Result<()> {
    let text =
        "INSERT INTO span (operation, attempt, stage, at, detail) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    let done = sqlx::query(text)
        .bind(span.operation.to_string())
        .bind(span.attempt.to_string())
        .bind(stage_word(span.stage))
        .bind(span.at.0)
        .bind(row::cut(&span.detail))
        .execute(connection)
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if row::is_foreign_key_violation(&error) => {
            Err(Error::NotFound { what: "operation", id: span.operation.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

async fn put_log(connection: &mut SqliteConnection, entry: &NewLogEntry) -> Result<()> {
    let mut entry = entry.clone();
    entry.text = row::cut(&entry.text).to_string();
    sqlx::query("INSERT INTO log (at, machine, operation, data) VALUES ($1, $2, $3, $4)")
        .bind(entry.at.0)
        .bind(entry.machine.map(|id| id.to_string()))
        .bind(entry.operation.map(|id| id.to_string()))
        .bind(row::to_json("log.data", &entry)?)
        .execute(connection)
        .await?;
    Ok(())
}
