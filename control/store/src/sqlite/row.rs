//! Between rows and values, and between the database's errors and the store's.

use crate::error::{Error, Result};
use crate::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Row, Sqlite};
use std::fmt::Display;
use std::str::FromStr;

/// A statement with its values.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The JSON of a value of the model.
pub(super) fn to_json<T: Serialize>(column: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt { column, reason: error.to_string() })
}

/// The value of the model that a column's JSON stands for.
pub(super) fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt { column, reason: error.to_string() })
}

/// The value whose text form a column holds.
pub(super) fn parse<T: FromStr<Err: Display>>(column: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| Error::Corrupt { column, reason: error.to_string() })
}

/// The enum variant whose word a column holds.
pub(super) fn word<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_string()))
        .map_err(|error| Error::Corrupt { column, reason: error.to_string() })
}

/// A number that cannot be negative.
pub(super) fn unsigned(column: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::Corrupt { column, reason: format!("`{value}` is negative") })
}

/// A counter as the database holds it; none of ours gets near the end.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How many rows of a page are fetched.
pub(super) fn limit(items: u32) -> i64 {
    i64::from(items.min(limits::PAGE_ITEMS_MAX))
}

/// A text cut to what the store keeps, at a character.
pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(limits::TEXT_BYTES_MAX)).unwrap_or_default()
}

/// The rows of a statement, each read from its first column's JSON.
pub(super) async fn all_json<T: DeserializeOwned>(
    query: Statement<'_>,
    connection: &mut SqliteConnection,
    column: &'static str,
) -> Result<Vec<T>> {
    query.fetch_all(connection).await?.iter().map(|row| json_of(row, column)).collect()
}

/// The row of a statement, if there is one, read from its first column's JSON.
pub(super) async fn one_json<T: DeserializeOwned>(
    query: Statement<'_>,
    connection: &mut SqliteConnection,
    column: &'static str,
) -> Result<Option<T>> {
    query.fetch_optional(connection).await?.map(|row| json_of(&row, column)).transpose()
}

fn json_of<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T> {
    from_json(column, row.try_get::<&str, _>(0)?)
}

/// Deletes one row: not found if there is none, in use if another table's rows depend on it.
pub(super) async fn delete(
    query: Statement<'_>,
    connection: &mut SqliteConnection,
    what: &'static str,
    id: impl Display,
    by: &'static str,
) -> Result<()> {
    match query.execute(connection).await {
        Ok(done) if done.rows_affected() > 0 => Ok(()),
        Ok(_) => Err(Error::NotFound { what, id: id.to_string() }),
        Err(error) if is_foreign_key_violation(&error) => Err(Error::InUse { what, id: id.to_string(), by }),
        Err(error) => Err(error.into()),
    }
}

/// Not found, unless a row was changed.
pub(super) fn changed(rows: u64, what: &'static str, id: impl Display) -> Result<()> {
    if rows == 0 { Err(Error::NotFound { what, id: id.to_string() }) } else { Ok(()) }
}

/// A unique value, for the error if it is not: the column as `table.column`, what people call it, and the value.
pub(super) type Unique<'a> = (&'static str, &'static str, &'a dyn Display);

/// The error of an insert or update: a duplicate if one of the columns was the reason.
pub(super) fn duplicate(error: sqlx::Error, columns: &[Unique<'_>]) -> Error {
    let found = error.as_database_error().filter(|error| error.is_unique_violation()).and_then(|database| {
        // SQLite says `UNIQUE constraint failed: machine.hostname`.
        let message = database.message();
        let (_, failed) = message.rsplit_once(": ")?;
        let of = |(column, _, _): &&Unique<'_>| failed.split(", ").any(|name| name == *column);
        columns.iter().find(of)
    });
    match found {
        Some((_, what, value)) => Error::Duplicate { what, value: value.to_string() },
        None => Error::Database(error),
    }
}

/// A reference to something that is not there.
pub(super) fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
