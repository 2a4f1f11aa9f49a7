//! What there is once a site: the generation, racks, images, boot environments, settings, tokens, secrets.

use super::row;
use crate::error::{Error, Result};
use crate::limits;
use crate::types::{Observed, SecretContext, Token, TokenScope};
use bootstorm_model::{BootEnvironment, Image, Name, Rack, Timestamp};
use bootstorm_snapshot::{Generation, ImageId, RackId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

pub(super) async fn generation(connection: &mut SqliteConnection) -> Result<Generation> {
    let text = "SELECT value FROM counter WHERE name = 'generation'";
    let value = sqlx::query_scalar(text).fetch_one(connection).await?;
    Ok(Generation(row::unsigned("counter.value", value)?))
}

/// Racks will see this transaction: it has a generation of its own.
pub(super) async fn bump_generation(connection: &mut SqliteConnection) -> Result<Generation> {
    let text = "UPDATE counter SET value = value + 1 WHERE name = 'generation' RETURNING value";
    let value = sqlx::query_scalar(text).fetch_one(connection).await?;
    Ok(Generation(row::unsigned("counter.value", value)?))
}

/// Whether observations are new.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// They are the next ones, and are now marked as applied.
    Now,
    /// All of them have been applied before.
    Before,
}

pub(super) async fn observe(connection: &mut SqliteConnection, observed: Observed, now: Timestamp) -> Result<Seen> {
    let rack = rack(connection, observed.rack).await?;
    let rack = rack.ok_or_else(|| Error::NotFound { what: "rack", id: observed.rack.to_string() })?;
    if observed.last <= rack.observation_sequence {
        return Ok(Seen::Before);
    }
    let expected = rack.observation_sequence.saturating_add(1);
    if observed.first != expected {
        return Err(Error::Gap { expected, received: observed.first });
    }
    sqlx::query("UPDATE rack SET observation_sequence = $2, seen = $3 WHERE id = $1")
        .bind(observed.rack.to_string())
        .bind(row::signed(observed.last))
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(Seen::Now)
}

pub(super) async fn put_rack(connection: &mut SqliteConnection, rack: &Rack) -> Result<()> {
    let text = "INSERT INTO rack (id, name, joined, seen, generation, observation_sequence, certificate) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) \
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, seen = excluded.seen, certificate = excluded.certificate";
    sqlx::query(text)
        .bind(rack.id.to_string())
        .bind(rack.name.to_string())
        .bind(rack.joined.0)
        .bind(rack.seen.0)
        .bind(row::signed(rack.generation.0))
        .bind(row::signed(rack.observation_sequence))
        .bind(&rack.certificate)
        .execute(connection)
        .await
        .map_err(|error| row::duplicate(error, &[("rack.name", "rack", &rack.name)]))?;
    Ok(())
}

pub(super) async fn resume_observations(connection: &mut SqliteConnection, id: RackId, last: u64) -> Result<()> {
    let text = "UPDATE rack SET observation_sequence = $2 WHERE id = $1";
    let done = sqlx::query(text).bind(id.to_string()).bind(row::signed(last)).execute(connection).await?;
    row::changed(done.rows_affected(), "rack", id)
}

pub(super) async fn racks(connection: &mut SqliteConnection) -> Result<Vec<Rack>> {
    let text = "SELECT id, name, joined, seen, generation, observation_sequence, certificate FROM rack ORDER BY name";
    sqlx::query(text).fetch_all(connection).await?.iter().map(read_rack).collect()
}

pub(super) async fn rack(connection: &mut SqliteConnection, id: RackId) -> Result<Option<Rack>> {
    let text = "SELECT id, name, joined, seen, generation, observation_sequence, certificate FROM rack WHERE id = $1";
    sqlx::query(text).bind(id.to_string()).fetch_optional(connection).await?.as_ref().map(read_rack).transpose()
}

fn read_rack(row: &SqliteRow) -> Result<Rack> {
    Ok(Rack {
        id: row::parse("rack.id", row.try_get::<&str, _>(0)?)?,
        name: row::parse("rack.name", row.try_get::<&str, _>(1)?)?,
        joined: Timestamp(row.try_get(2)?),
        seen: Timestamp(row.try_get(3)?),
        generation: Generation(row::unsigned("rack.generation", row.try_get(4)?)?),
        observation_sequence: row::unsigned("rack.observation_sequence", row.try_get(5)?)?,
        certificate: row.try_get(6)?,
    })
}

pub(super) async fn rack_seen(
    connection: &mut SqliteConnection,
    id: RackId,
    generation: Generation,
    now: Timestamp,
) -> Result<()> {
    let text = "UPDATE rack SET seen = $3, generation = CASE WHEN $2 = 0 OR $2 > generation THEN $2 ELSE generation END \
        WHERE id = $1";
    let query = sqlx::query(text).bind(id.to_string()).bind(row::signed(generation.0)).bind(now.0);
    row::changed(query.execute(connection).await?.rows_affected(), "rack", id)
}

pub(super) async fn put_image(connection: &mut SqliteConnection, image: &Image) -> Result<()> {
    let text = "INSERT INTO image (name, id, data) VALUES ($1, $2, $3) \
        ON CONFLICT (name) DO UPDATE SET data = excluded.data WHERE image.id = excluded.id";
    let done = sqlx::query(text)
        .bind(image.name.to_string())
        .bind(image.id.to_string())
        .bind(row::to_json("image.data", image)?)
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 0 {
        return Err(Error::Duplicate { what: "image", value: image.name.to_string() });
    }
    bump_generation(connection).await.map(drop)
}

pub(super) async fn images(connection: &mut SqliteConnection) -> Result<Vec<Image>> {
    row::all_json(sqlx::query("SELECT data FROM image ORDER BY name"), connection, "image.data").await
}

pub(super) async fn delete_image(connection: &mut SqliteConnection, name: &Name) -> Result<()> {
    let not_found = || Error::NotFound { what: "image", id: name.to_string() };
    let id: Option<String> = sqlx::query_scalar("DELETE FROM image WHERE name = $1 RETURNING id")
        .bind(name.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let id = id.ok_or_else(not_found)?;
    // Under another name the same bytes stay, and so may what installs them.
    let named: Option<i64> = sqlx::query_scalar("SELECT 1 FROM image WHERE id = $1 LIMIT 1")
        .bind(&id)
        .fetch_optional(&mut *connection)
        .await?;
    if named.is_none() && is_being_installed(connection, &id).await? {
        return Err(Error::InUse { what: "image", id: name.to_string(), by: "a running operation" });
    }
    bump_generation(connection).await.map(drop)
}

pub(super) async fn image_in_use(connection: &mut SqliteConnection, id: ImageId) -> Result<bool> {
    let id = id.to_string();
    let query = sqlx::query_scalar("SELECT 1 FROM image WHERE id = $1 LIMIT 1").bind(&id);
    let named: Option<i64> = query.fetch_optional(&mut *connection).await?;
    Ok(named.is_some() || is_being_installed(connection, &id).await?)
}

async fn is_being_installed(connection: &mut SqliteConnection, id: &str) -> Result<bool> {
    let text = "SELECT 1 FROM operation WHERE image = $1 AND state = 'running' LIMIT 1";
    let found: Option<i64> = sqlx::query_scalar(text).bind(id.to_string()).fetch_optional(connection).await?;
    Ok(found.is_some())
}

pub(super) async fn put_boot_environment(connection: &mut SqliteConnection, new: &BootEnvironment) -> Result<()> {
    let text = "INSERT INTO boot_environment (architecture, data) VALUES ($1, $2) \
        ON CONFLICT (architecture) DO UPDATE SET data = excluded.data";
    sqlx::query(text)
        .bind(new.environment.architecture.as_str())
        .bind(row::to_json("boot_environment.data", new)?)
        .execute(&mut *connection)
        .await?;
    bump_generation(connection).await.map(drop)
}

pub(super) async fn boot_environments(connection: &mut SqliteConnection) -> Result<Vec<BootEnvironment>> {
    let query = sqlx::query("SELECT data FROM boot_environment ORDER BY architecture");
    row::all_json(query, connection, "boot_environment.data").await
}

pub(super) async fn settings(connection: &mut SqliteConnection) -> Result<Vec<(String, String)>> {
    Ok(sqlx::query_as("SELECT key, value FROM setting ORDER BY key").fetch_all(connection).await?)
}

pub(super) async fn put_setting(connection: &mut SqliteConnection, key: &str, value: &str) -> Result<()> {
    if key.len().max(value.len()) > limits::TEXT_BYTES_MAX {
        return Err(Error::TooLarge { what: "bytes of a setting", max: limits::TEXT_BYTES_MAX });
    }
    let text = "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value \
        WHERE setting.value <> excluded.value";
    let query = sqlx::query(text).bind(key.to_string()).bind(value.to_string());
    if query.execute(&mut *connection).await?.rows_affected() > 0 {
        bump_generation(connection).await?;
    }
    Ok(())
}

pub(super) async fn create_token(connection: &mut SqliteConnection, token: &Token) -> Result<()> {
    let text = "INSERT INTO token (name, hash, scope, created, expires) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(text)
        .bind(token.name.clone())
        .bind(token.hash.to_vec())
        .bind(token.scope.word())
        .bind(token.created.0)
        .bind(token.expires.map(|expires| expires.0))
        .execute(connection)
        .await
        .map_err(|error| {
            // The value of a hash is nobody's business: its owner is named by the token's name.
            let columns: [row::Unique<'_>; 2] =
                [("token.name", "token", &token.name), ("token.hash", "token", &token.name)];
            row::duplicate(error, &columns)
        })?;
    Ok(())
}

pub(super) async fn token_by_hash(connection: &mut SqliteConnection, hash: &[u8; 32]) -> Result<Option<Token>> {
    let text = "SELECT name, hash, scope, created, expires FROM token WHERE hash = $1";
    sqlx::query(text).bind(hash.to_vec()).fetch_optional(connection).await?.as_ref().map(read_token).transpose()
}

pub(super) async fn tokens(connection: &mut SqliteConnection) -> Result<Vec<Token>> {
    let text = "SELECT name, hash, scope, created, expires FROM token ORDER BY name";
    sqlx::query(text).fetch_all(connection).await?.iter().map(read_token).collect()
}

pub(super) async fn take_token(
    connection: &mut SqliteConnection,
    hash: &[u8; 32],
    scope: TokenScope,
    now: Timestamp,
) -> Result<Option<Token>> {
    let text = "DELETE FROM token WHERE hash = $1 AND scope = $2 AND (expires IS NULL OR expires > $3) \
        RETURNING name, hash, scope, created, expires";
    let query = sqlx::query(text).bind(hash.to_vec()).bind(scope.word()).bind(now.0);
    query.fetch_optional(connection).await?.as_ref().map(read_token).transpose()
}

fn read_token(row: &SqliteRow) -> Result<Token> {
    let hash: Vec<u8> = row.try_get(1)?;
    let hash =
        hash.try_into().map_err(|_| Error::Corrupt { column: "token.hash", reason: "not 32 bytes".to_string() })?;
    let scope = match row.try_get::<&str, _>(2)? {
        "admin" => TokenScope::Admin,
        "read" => TokenScope::Read,
        "join" => TokenScope::Join,
        other => return Err(Error::Corrupt { column: "token.scope", reason: format!("`{other}` is no scope") }),
    };
    Ok(Token {
        name: row.try_get(0)?,
        hash,
        scope,
        created: Timestamp(row.try_get(3)?),
        expires: row.try_get::<Option<i64>, _>(4)?.map(Timestamp),
    })
}

pub(super) async fn put_secret(
    connection: &mut SqliteConnection,
    context: &SecretContext,
    sealed: &[u8],
) -> Result<()> {
    if sealed.len() > limits::SECRET_BYTES_MAX {
        return Err(Error::TooLarge { what: "bytes of a secret", max: limits::SECRET_BYTES_MAX });
    }
    let text = "INSERT INTO secret (context, sealed) VALUES ($1, $2) ON CONFLICT (context) DO UPDATE SET sealed = excluded.sealed";
    sqlx::query(text).bind(context.text()).bind(sealed.to_vec()).execute(connection).await?;
    Ok(())
}
