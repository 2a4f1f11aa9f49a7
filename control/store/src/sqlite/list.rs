//! Looking things up, and lists in pages. A list goes on after a key, never by counting, and has an index for its order.

use super::row;
use crate::error::{Error, Result};
use crate::limits;
use crate::types::{LogFilter, MachineFilter, OperationFilter, Order, Page};
use bootstorm_model::{Hostname, LogEntry, Machine, Operation, Span, Timestamp};
use bootstorm_snapshot::{EnrolmentId, EventId, Mac, MachineId, OperationId};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row, Sqlite};

/// Running operations past their deadline: `$1` now, `$2` how many.
pub(super) const OVERDUE: &str =
    "SELECT data FROM operation WHERE deadline IS NOT NULL AND deadline < $1 ORDER BY deadline LIMIT $2";

pub(super) async fn machine(connection: &mut SqliteConnection, id: MachineId) -> Result<Option<Machine>> {
    let query = sqlx::query("SELECT data FROM machine WHERE id = $1").bind(id.to_string());
    row::one_json(query, connection, "machine.data").await
}

pub(super) async fn machine_by_mac(connection: &mut SqliteConnection, mac: Mac) -> Result<Option<Machine>> {
    let text =
        "SELECT machine.data FROM interface JOIN machine ON machine.id = interface.machine WHERE interface.mac = $1";
    row::one_json(sqlx::query(text).bind(mac.to_string()), connection, "machine.data").await
}

pub(super) async fn machine_by_hostname(connection: &mut SqliteConnection, name: &Hostname) -> Result<Option<Machine>> {
    let query = sqlx::query("SELECT data FROM machine WHERE hostname = $1").bind(name.to_string());
    row::one_json(query, connection, "machine.data").await
}

pub(super) async fn machine_by_enrolment(
    connection: &mut SqliteConnection,
    enrolment: EnrolmentId,
) -> Result<Option<Machine>> {
    let query = sqlx::query("SELECT data FROM machine WHERE enrolment = $1").bind(enrolment.to_string());
    row::one_json(query, connection, "machine.data").await
}

pub(super) const BY_SYSTEM_UUID: &str = "SELECT m.data FROM inventory i JOIN machine m ON m.id = i.machine \
    WHERE i.system_uuid = $1 ORDER BY i.machine LIMIT 1";

pub(super) async fn machine_by_system_uuid(connection: &mut SqliteConnection, uuid: &str) -> Result<Option<Machine>> {
    row::one_json(sqlx::query(BY_SYSTEM_UUID).bind(uuid), connection, "machine.data").await
}

pub(super) async fn next_operation_deadline(connection: &mut SqliteConnection) -> Result<Option<Timestamp>> {
    let text = "SELECT deadline FROM operation WHERE deadline IS NOT NULL ORDER BY deadline LIMIT 1";
    let deadline: Option<i64> = sqlx::query_scalar(text).fetch_optional(connection).await?;
    Ok(deadline.map(Timestamp))
}

pub(super) async fn machine_counts(connection: &mut SqliteConnection) -> Result<Vec<(u8, u64)>> {
    let query = sqlx::query_as::<_, (i64, i64)>("SELECT status, COUNT(*) FROM machine GROUP BY status ORDER BY status");
    let rows = query.fetch_all(connection).await?;
    let read = |(status, count): (i64, i64)| {
        let status = u8::try_from(status)
            .map_err(|_| Error::Corrupt { column: "machine.status", reason: format!("`{status}` is no status") })?;
        Ok((status, row::unsigned("machine", count)?))
    };
    rows.into_iter().map(read).collect()
}

/// The statement of a page of machines.
pub(super) fn machines(filter: &MachineFilter, page: &Page<Hostname>) -> Result<QueryBuilder<Sqlite>> {
    let max = limits::PAGE_ITEMS_MAX as usize;
    if filter.hostnames.len() > max {
        return Err(Error::TooLarge { what: "host names of a filter", max });
    }
    let mut query = QueryBuilder::new("SELECT data FROM machine WHERE hostname > ");
    query.push_bind(page.after.as_ref().map_or_else(String::new, ToString::to_string));
    if !filter.statuses.is_empty() {
        query.push(" AND status IN (");
        let mut list = query.separated(", ");
        for status in &filter.statuses {
            list.push_bind(i64::from(status.code()));
        }
        query.push(")");
    }
    if let Some(pool) = &filter.pool {
        query.push(" AND pool = ").push_bind(pool.to_string());
    }
    if let Some(owner) = &filter.owner {
        query.push(" AND owner = ").push_bind(owner.clone());
    }
    if !filter.hostnames.is_empty() {
        query.push(" AND hostname IN (");
        let mut list = query.separated(", ");
        for hostname in &filter.hostnames {
            list.push_bind(hostname.to_string());
        }
        query.push(")");
    }
    if let Some(glob) = &filter.hostname_glob {
        query.push(" AND hostname LIKE ").push_bind(like_of(glob)).push(" ESCAPE '\\'");
    }
    query.push(" ORDER BY hostname LIMIT ").push_bind(row::limit(page.limit));
    Ok(query)
}

/// The LIKE pattern of a glob: `*` is any characters, `?` one, nothing else means anything.
fn like_of(glob: &str) -> String {
    let mut pattern = String::with_capacity(glob.len());
    for character in glob.chars() {
        match character {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            other => pattern.push(other),
        }
    }
    pattern
}

pub(super) async fn operation(connection: &mut SqliteConnection, id: OperationId) -> Result<Option<Operation>> {
    let query = sqlx::query("SELECT data FROM operation WHERE id = $1").bind(id.to_string());
    row::one_json(query, connection, "operation.data").await
}

/// The statement of a page of operations. Ids are UUIDv7, so that the newest has the largest.
pub(super) fn operations(filter: &OperationFilter, page: &Page<OperationId>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT data FROM operation WHERE id < ");
    // `g` is larger than any hexadecimal digit.
    query.push_bind(page.after.map_or_else(|| "g".to_string(), |id| id.to_string()));
    if let Some(machine) = filter.machine {
        query.push(" AND machine = ").push_bind(machine.to_string());
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.word());
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(row::limit(page.limit));
    query
}

pub(super) async fn spans(connection: &mut SqliteConnection, operation: OperationId) -> Result<Vec<Span>> {
    let text = "SELECT attempt, stage, at, detail FROM span WHERE operation = $1 ORDER BY at, attempt, stage";
    let rows = sqlx::query(text).bind(operation.to_string()).fetch_all(connection).await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Span {
            operation,
            attempt: row::parse("span.attempt", row.try_get::<&str, _>(0)?)?,
            stage: row::word("span.stage", row.try_get::<&str, _>(1)?)?,
            at: Timestamp(row.try_get(2)?),
            detail: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect()
}

/// The statement of a page of the log.
pub(super) fn log(filter: &LogFilter, order: Order, page: &Page<EventId>) -> QueryBuilder<Sqlite> {
    let (compare, direction, start) = match order {
        Order::OldestFirst => ("id > ", "", 0),
        Order::NewestFirst => ("id < ", " DESC", i64::MAX),
    };
    let mut query = QueryBuilder::new("SELECT id, data FROM log WHERE ");
    query.push(compare).push_bind(page.after.map_or(start, |id| id.0));
    if let Some(machine) = filter.machine {
        query.push(" AND machine = ").push_bind(machine.to_string());
    }
    if let Some(operation) = filter.operation {
        query.push(" AND operation = ").push_bind(operation.to_string());
    }
    query.push(" ORDER BY id").push(direction).push(" LIMIT ").push_bind(row::limit(page.limit));
    query
}

pub(super) async fn log_entries(query: row::Statement<'_>, connection: &mut SqliteConnection) -> Result<Vec<LogEntry>> {
    let rows = query.fetch_all(connection).await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Ok(LogEntry { id: EventId(row.try_get(0)?), entry: row::from_json("log.data", row.try_get::<&str, _>(1)?)? })
    };
    rows.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_glob_has_two_signs_and_no_others() {
        assert_eq!(super::like_of("n0?-*"), "n0_-%");
        assert_eq!(super::like_of("100%_\\"), "100\\%\\_\\\\");
    }
}
