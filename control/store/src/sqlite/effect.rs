//! The queue of effects: in order for each machine, at least once.
//!
//! A row is *queued* (due at `due`), *started* (taken by `worker`, free again at `due`) or *failed* (given up: it holds back what
//! follows, until a newer step of the machine clears it away). What is done is deleted. A started effect that a newer step has
//! superseded holds back the newer ones until its worker is back or its lease has ended, so that no two act on a machine at once.

use super::row;
use crate::error::Result;
use crate::types::{EffectId, QueuedEffect};
use bootstorm_model::{Effect, Timestamp};
use bootstorm_snapshot::{Generation, MachineId, OperationId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// Effects that may be taken: `$1` now, `$2` how many.
pub(super) const DUE: &str = "SELECT e.id, e.machine, e.operation, e.effect, e.generation, e.queued, e.tries FROM effect e \
    WHERE e.state <> 'failed' AND e.due <= $1 \
    AND NOT EXISTS (SELECT 1 FROM effect b WHERE b.machine = e.machine AND b.id < e.id) \
    ORDER BY e.due, e.id LIMIT $2";

/// Stores the effects of a step, and clears away what it supersedes. `ended` is the operation that ends with it.
pub(super) async fn queue(
    connection: &mut SqliteConnection,
    machine: MachineId,
    effects: &[Effect],
    (ended, current): (Option<OperationId>, Option<OperationId>),
    generation: Generation,
    now: Timestamp,
) -> Result<()> {
    let name = machine.to_string();
    let clear = "DELETE FROM effect WHERE machine = $1 AND (state = 'failed' OR (state = 'queued' AND survives = 0))";
    sqlx::query(clear).bind(&name).execute(&mut *connection).await?;
    let supersede = "UPDATE effect SET superseded = 1 WHERE machine = $1 AND state = 'started' AND survives = 0";
    sqlx::query(supersede).bind(&name).execute(&mut *connection).await?;
    let insert = "INSERT INTO effect (machine, operation, effect, generation, queued, state, survives, due) \
        VALUES ($1, $2, $3, $4, $5, 'queued', $6, $5)";
    for effect in effects {
        let operation = match effect {
            Effect::RevokeAttempt => ended.or(current),
            Effect::PublishSnapshot
            | Effect::PushSecrets
            | Effect::PowerOn { .. }
            | Effect::PowerOff
            | Effect::PowerCycle { .. } => current,
        };
        sqlx::query(insert)
            .bind(&name)
            .bind(operation.map(|id| id.to_string()))
            .bind(row::to_json("effect.effect", effect)?)
            .bind(row::signed(generation.0))
            .bind(now.0)
            .bind(i64::from(effect.survives_newer_step()))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    worker: &str,
    now: Timestamp,
    lease_end: Timestamp,
    limit: u32,
) -> Result<Vec<QueuedEffect>> {
    let lost = "DELETE FROM effect WHERE state <> 'failed' AND superseded = 1 AND due <= $1";
    sqlx::query(lost).bind(now.0).execute(&mut *connection).await?;
    let rows = sqlx::query(DUE).bind(now.0).bind(row::limit(limit)).fetch_all(&mut *connection).await?;
    let claimed = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
    for effect in &claimed {
        sqlx::query("UPDATE effect SET state = 'started', worker = $2, due = $3, tries = tries + 1 WHERE id = $1")
            .bind(effect.id.0)
            .bind(worker)
            .bind(lease_end.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(claimed)
}

fn read(row: &SqliteRow) -> Result<QueuedEffect> {
    let operation = row.try_get::<Option<&str>, _>(2)?;
    let tries = row::unsigned("effect.tries", row.try_get(6)?)?;
    Ok(QueuedEffect {
        id: EffectId(row.try_get(0)?),
        machine: row::parse("effect.machine", row.try_get::<&str, _>(1)?)?,
        operation: operation.map(|text| row::parse("effect.operation", text)).transpose()?,
        effect: row::from_json("effect.effect", row.try_get::<&str, _>(3)?)?,
        generation: Generation(row::unsigned("effect.generation", row.try_get(4)?)?),
        queued: Timestamp(row.try_get(5)?),
        tries: u32::try_from(tries).unwrap_or(u32::MAX).saturating_add(1),
    })
}

pub(super) async fn done(connection: &mut SqliteConnection, id: EffectId, worker: &str) -> Result<bool> {
    let text = "DELETE FROM effect WHERE id = $1 AND worker = $2 AND state = 'started' RETURNING superseded";
    let superseded: Option<i64> = sqlx::query_scalar(text).bind(id.0).bind(worker).fetch_optional(connection).await?;
    Ok(superseded == Some(0))
}

pub(super) async fn failed(
    connection: &mut SqliteConnection,
    id: EffectId,
    worker: &str,
    error: &str,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool> {
    let superseded = "DELETE FROM effect WHERE id = $1 AND worker = $2 AND state = 'started' AND superseded = 1";
    if sqlx::query(superseded).bind(id.0).bind(worker).execute(&mut *connection).await?.rows_affected() > 0 {
        return Ok(false);
    }
    let text = "UPDATE effect SET state = $3, error = $4, due = $5, worker = NULL \
        WHERE id = $1 AND worker = $2 AND state = 'started'";
    let done = sqlx::query(text)
        .bind(id.0)
        .bind(worker)
        .bind(if retry_at.is_some() { "queued" } else { "failed" })
        .bind(row::cut(error))
        .bind(retry_at.unwrap_or(now).0)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn release(connection: &mut SqliteConnection, worker: &str, now: Timestamp) -> Result<()> {
    let text = "UPDATE effect SET due = $2 WHERE worker = $1 AND state = 'started' AND due > $2";
    sqlx::query(text).bind(worker).bind(now.0).execute(connection).await?;
    Ok(())
}

pub(super) async fn next_due(connection: &mut SqliteConnection) -> Result<Option<Timestamp>> {
    let text = "SELECT e.due FROM effect e WHERE e.state <> 'failed' \
        AND NOT EXISTS (SELECT 1 FROM effect b WHERE b.machine = e.machine AND b.id < e.id) ORDER BY e.due LIMIT 1";
    let due: Option<i64> = sqlx::query_scalar(text).fetch_optional(connection).await?;
    Ok(due.map(Timestamp))
}
