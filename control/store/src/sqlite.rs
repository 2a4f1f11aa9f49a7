//! The store on SQLite: one file, one writer, a few readers.
//!
//! Invariants. Everything that writes goes through the writer pool, which has one connection, and begins with `BEGIN IMMEDIATE`, so
//! a transaction never finds its snapshot stale halfway. WAL with `synchronous = FULL`: a commit is on the disk when it returns.
//! Readers are separate connections that cannot write; a read of several statements is one deferred transaction, hence one
//! snapshot. Statements are portable (`$1`, `ON CONFLICT`, `RETURNING`, times as BIGINT); what is not (pragmas, `BEGIN IMMEDIATE`,
//! the text of constraint errors) stands in this file and in `row.rs`. Things are stored as the model's JSON beside the columns
//! that are searched or unique, and each kind has one function that writes it, so that the two cannot part.

mod address;
mod change;
mod effect;
mod list;
mod row;
mod site;

use crate::Store;
use crate::error::{Error, Result};
use crate::limits;
use crate::types::{
    Change, Committed, EffectId, LogFilter, MachineFilter, Observed, OperationFilter, Order, Page, QueuedEffect,
    SecretContext, SnapshotSource, Token, TokenScope,
};
use bootstorm_model::{
    Address, BootEnvironment, Fabric, Hostname, Image, IpRange, LogEntry, Machine, Name, Operation, Rack, Span, Subnet,
    Timestamp, Vlan,
};
use bootstorm_snapshot::{
    Architecture, EnrolmentId, EventId, FabricId, Generation, ImageId, Inventory, Mac, MachineId, OperationId, RackId,
    RangeId, SubnetId, VlanId,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// The least version of the library: WAL in earlier ones can lose a commit when a checkpoint races with a writer.
const LIBRARY_MIN: (u32, u32, u32) = (3, 51, 3);
const LIBRARY_MIN_TEXT: &str = "3.51.3";

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it if it is not there, and brings its schema up to date. The directory must exist and be
    /// on a local disk: WAL does not work over a network.
    ///
    /// # Errors
    /// [`Error::Database`] if the file cannot be opened or is no database; [`Error::Migration`] if a newer version wrote it;
    /// [`Error::Library`].
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(limits::WRITER_WAIT_SECONDS));
        let wait = Duration::from_secs(limits::WRITER_WAIT_SECONDS);
        let writer =
            SqlitePoolOptions::new().max_connections(1).acquire_timeout(wait).connect_with(options.clone()).await?;
        check_library(&writer).await?;
        sqlx::migrate!("./migrations").run(&writer).await.map_err(Error::Migration)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(limits::READERS_MAX)
            .acquire_timeout(wait)
            .connect_with(options.pragma("query_only", "ON"))
            .await?;
        Ok(Self { writer, readers })
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that may write.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// A transaction that reads one snapshot.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await?)
    }
}

async fn check_library(pool: &SqlitePool) -> Result<()> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(pool).await?;
    let mut parts = found.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    let version = (part(), part(), part());
    if version < LIBRARY_MIN {
        return Err(Error::Library { found, needed: LIBRARY_MIN_TEXT });
    }
    Ok(())
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn commit(&self, changes: Vec<Change>, observed: Option<Observed>, now: Timestamp) -> Result<Committed> {
        if changes.len() > limits::CHANGES_MAX {
            return Err(Error::TooLarge { what: "changes of one commit", max: limits::CHANGES_MAX });
        }
        let mut tx = self.write().await?;
        if let Some(observed) = observed
            && site::observe(&mut tx, observed, now).await? == site::Seen::Before
        {
            return Ok(Committed::Before);
        }
        let generation = match changes.iter().any(change::is_seen_by_racks) {
            true => site::bump_generation(&mut tx).await?,
            false => site::generation(&mut tx).await?,
        };
        let mut leases = Vec::new();
        for one in changes {
            match one {
                Change::Lease(lease) => leases.push(lease),
                other => {
                    address::put_leases(&mut tx, &std::mem::take(&mut leases)).await?;
                    change::apply(&mut tx, other, generation, now).await?;
                }
            }
        }
        address::put_leases(&mut tx, &leases).await?;
        tx.commit().await?;
        Ok(Committed::Now(generation))
    }

    async fn machine(&self, id: MachineId) -> Result<Option<Machine>> {
        list::machine(&mut *self.readers.acquire().await?, id).await
    }

    async fn machine_by_mac(&self, mac: Mac) -> Result<Option<Machine>> {
        list::machine_by_mac(&mut *self.readers.acquire().await?, mac).await
    }

    async fn machine_by_hostname(&self, hostname: &Hostname) -> Result<Option<Machine>> {
        list::machine_by_hostname(&mut *self.readers.acquire().await?, hostname).await
    }

    async fn machine_by_system_uuid(&self, uuid: &str) -> Result<Option<Machine>> {
        list::machine_by_system_uuid(&mut *self.readers.acquire().await?, uuid).await
    }

    async fn machine_by_enrolment(&self, enrolment: EnrolmentId) -> Result<Option<Machine>> {
        list::machine_by_enrolment(&mut *self.readers.acquire().await?, enrolment).await
    }

    async fn machines(&self, filter: &MachineFilter, page: &Page<Hostname>) -> Result<Vec<Machine>> {
        let mut query = list::machines(filter, page)?;
        row::all_json(query.build(), &mut *self.readers.acquire().await?, "machine.data").await
    }

    async fn machine_counts(&self) -> Result<Vec<(u8, u64)>> {
        list::machine_counts(&mut *self.readers.acquire().await?).await
    }

    async fn inventory(&self, machine: MachineId) -> Result<Option<Inventory>> {
        let query = sqlx::query("SELECT data FROM inventory WHERE machine = $1").bind(machine.to_string());
        row::one_json(query, &mut *self.readers.acquire().await?, "inventory.data").await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        list::operation(&mut *self.readers.acquire().await?, id).await
    }

    async fn operation_by_key(&self, key: &str) -> Result<Option<Operation>> {
        let query = sqlx::query("SELECT data FROM operation WHERE idempotency_key = $1").bind(key.to_string());
        row::one_json(query, &mut *self.readers.acquire().await?, "operation.data").await
    }

    async fn operations(&self, filter: &OperationFilter, page: &Page<OperationId>) -> Result<Vec<Operation>> {
        let mut query = list::operations(filter, page);
        row::all_json(query.build(), &mut *self.readers.acquire().await?, "operation.data").await
    }

    async fn next_operation_deadline(&self) -> Result<Option<Timestamp>> {
        list::next_operation_deadline(&mut *self.readers.acquire().await?).await
    }

    async fn overdue_operations(&self, now: Timestamp, limit: u32) -> Result<Vec<Operation>> {
        let query = sqlx::query(list::OVERDUE).bind(now.0).bind(row::limit(limit));
        row::all_json(query, &mut *self.readers.acquire().await?, "operation.data").await
    }

    async fn spans(&self, operation: OperationId) -> Result<Vec<Span>> {
        list::spans(&mut *self.readers.acquire().await?, operation).await
    }

    async fn claim_effects(
        &self,
        worker: &str,
        now: Timestamp,
        lease_end: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedEffect>> {
        let mut tx = self.write().await?;
        let claimed = effect::claim(&mut tx, worker, now, lease_end, limit).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn effect_done(&self, id: EffectId, worker: &str, _now: Timestamp) -> Result<bool> {
        let mut tx = self.write().await?;
        let done = effect::done(&mut tx, id, worker).await?;
        tx.commit().await?;
        Ok(done)
    }

    async fn effect_failed(
        &self,
        id: EffectId,
        worker: &str,
        error: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool> {
        let mut tx = self.write().await?;
        let failed = effect::failed(&mut tx, id, worker, error, retry_at, now).await?;
        tx.commit().await?;
        Ok(failed)
    }

    async fn release_effects(&self, worker: &str, now: Timestamp) -> Result<()> {
        let mut tx = self.write().await?;
        effect::release(&mut tx, worker, now).await?;
        Ok(tx.commit().await?)
    }

    async fn next_effect_due(&self) -> Result<Option<Timestamp>> {
        effect::next_due(&mut *self.readers.acquire().await?).await
    }

    async fn log(&self, filter: &LogFilter, order: Order, page: &Page<EventId>) -> Result<Vec<LogEntry>> {
        let mut query = list::log(filter, order, page);
        list::log_entries(query.build(), &mut *self.readers.acquire().await?).await
    }

    async fn create_fabric(&self, fabric: Fabric) -> Result<Fabric> {
        let mut tx = self.write().await?;
        let fabric = address::create_fabric(&mut tx, fabric).await?;
        tx.commit().await?;
        Ok(fabric)
    }

    async fn fabrics(&self) -> Result<Vec<Fabric>> {
        address::fabrics(&mut *self.readers.acquire().await?).await
    }

    async fn update_fabric(&self, fabric: &Fabric) -> Result<()> {
        let mut tx = self.write().await?;
        address::update_fabric(&mut tx, fabric).await?;
        Ok(tx.commit().await?)
    }

    async fn delete_fabric(&self, id: FabricId) -> Result<()> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM fabric WHERE id = $1").bind(id.0);
        row::delete(query, &mut tx, "fabric", id, "VLANs").await?;
        Ok(tx.commit().await?)
    }

    async fn create_vlan(&self, vlan: Vlan) -> Result<Vlan> {
        let mut tx = self.write().await?;
        let vlan = address::create_vlan(&mut tx, vlan).await?;
        tx.commit().await?;
        Ok(vlan)
    }

    async fn vlans(&self) -> Result<Vec<Vlan>> {
        address::vlans(&mut *self.readers.acquire().await?).await
    }

    async fn update_vlan(&self, vlan: &Vlan) -> Result<()> {
        let mut tx = self.write().await?;
        address::update_vlan(&mut tx, vlan).await?;
        Ok(tx.commit().await?)
    }

    async fn delete_vlan(&self, id: VlanId) -> Result<()> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM vlan WHERE id = $1").bind(id.0);
        row::delete(query, &mut tx, "VLAN", id, "subnets").await?;
        site::bump_generation(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn create_subnet(&self, subnet: Subnet) -> Result<Subnet> {
        let mut tx = self.write().await?;
        let subnet = address::create_subnet(&mut tx, subnet).await?;
        tx.commit().await?;
        Ok(subnet)
    }

    async fn subnets(&self) -> Result<Vec<Subnet>> {
        address::subnets(&mut *self.readers.acquire().await?).await
    }

    async fn update_subnet(&self, subnet: &Subnet) -> Result<()> {
        let mut tx = self.write().await?;
        address::update_subnet(&mut tx, subnet).await?;
        Ok(tx.commit().await?)
    }

    async fn delete_subnet(&self, id: SubnetId) -> Result<()> {
        let mut tx = self.write().await?;
        address::delete_subnet(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }

    async fn create_range(&self, range: IpRange) -> Result<IpRange> {
        let mut tx = self.write().await?;
        let range = address::create_range(&mut tx, range).await?;
        tx.commit().await?;
        Ok(range)
    }

    async fn ranges(&self, subnet: Option<SubnetId>) -> Result<Vec<IpRange>> {
        address::ranges(&mut *self.readers.acquire().await?, subnet).await
    }

    async fn delete_range(&self, id: RangeId) -> Result<()> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM ip_range WHERE id = $1").bind(id.0);
        row::delete(query, &mut tx, "range", id, "nothing").await?;
        site::bump_generation(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn addresses(&self, subnet: SubnetId, page: &Page<Ipv4Addr>) -> Result<Vec<Address>> {
        address::addresses(&mut *self.readers.acquire().await?, subnet, page).await
    }

    async fn machine_addresses(&self, machine: MachineId) -> Result<Vec<Address>> {
        address::machine_addresses(&mut *self.readers.acquire().await?, machine).await
    }

    async fn reserve_address(&self, address: Address) -> Result<()> {
        let mut tx = self.write().await?;
        address::reserve(&mut tx, &address).await?;
        Ok(tx.commit().await?)
    }

    async fn allocate_address(
        &self,
        subnet: SubnetId,
        mac: Mac,
        machine: Option<MachineId>,
        now: Timestamp,
    ) -> Result<Address> {
        let mut tx = self.write().await?;
        let address = address::allocate(&mut tx, subnet, mac, machine, now).await?;
        tx.commit().await?;
        Ok(address)
    }

    async fn release_address(&self, subnet: SubnetId, ip: Ipv4Addr) -> Result<bool> {
        let mut tx = self.write().await?;
        let released = address::release(&mut tx, subnet, ip).await?;
        tx.commit().await?;
        Ok(released)
    }

    async fn put_image(&self, image: &Image) -> Result<()> {
        let mut tx = self.write().await?;
        site::put_image(&mut tx, image).await?;
        Ok(tx.commit().await?)
    }

    async fn image(&self, name: &Name) -> Result<Option<Image>> {
        let query = sqlx::query("SELECT data FROM image WHERE name = $1").bind(name.to_string());
        row::one_json(query, &mut *self.readers.acquire().await?, "image.data").await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        site::images(&mut *self.readers.acquire().await?).await
    }

    async fn delete_image(&self, name: &Name) -> Result<()> {
        let mut tx = self.write().await?;
        site::delete_image(&mut tx, name).await?;
        Ok(tx.commit().await?)
    }

    async fn image_in_use(&self, id: ImageId) -> Result<bool> {
        let mut tx = self.read().await?;
        site::image_in_use(&mut tx, id).await
    }

    async fn put_boot_environment(&self, environment: &BootEnvironment) -> Result<()> {
        let mut tx = self.write().await?;
        site::put_boot_environment(&mut tx, environment).await?;
        Ok(tx.commit().await?)
    }

    async fn boot_environments(&self) -> Result<Vec<BootEnvironment>> {
        site::boot_environments(&mut *self.readers.acquire().await?).await
    }

    async fn delete_boot_environment(&self, architecture: Architecture) -> Result<bool> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM boot_environment WHERE architecture = $1").bind(architecture.as_str());
        let gone = query.execute(&mut *tx).await?.rows_affected() > 0;
        if gone {
            site::bump_generation(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(gone)
    }

    async fn put_rack(&self, rack: &Rack) -> Result<()> {
        let mut tx = self.write().await?;
        site::put_rack(&mut tx, rack).await?;
        Ok(tx.commit().await?)
    }

    async fn racks(&self) -> Result<Vec<Rack>> {
        site::racks(&mut *self.readers.acquire().await?).await
    }

    async fn rack(&self, id: RackId) -> Result<Option<Rack>> {
        site::rack(&mut *self.readers.acquire().await?, id).await
    }

    async fn rack_seen(&self, id: RackId, generation: Generation, now: Timestamp) -> Result<()> {
        let mut tx = self.write().await?;
        site::rack_seen(&mut tx, id, generation, now).await?;
        Ok(tx.commit().await?)
    }

    async fn resume_observations(&self, id: RackId, last: u64) -> Result<()> {
        let mut tx = self.write().await?;
        site::resume_observations(&mut tx, id, last).await?;
        Ok(tx.commit().await?)
    }

    async fn delete_rack(&self, id: RackId) -> Result<()> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM rack WHERE id = $1").bind(id.to_string());
        row::delete(query, &mut tx, "rack", id, "nothing").await?;
        Ok(tx.commit().await?)
    }

    async fn generation(&self) -> Result<Generation> {
        site::generation(&mut *self.readers.acquire().await?).await
    }

    async fn snapshot_source(&self) -> Result<SnapshotSource> {
        let mut tx = self.read().await?;
        let machines = sqlx::query("SELECT data FROM machine ORDER BY hostname");
        let operations = sqlx::query("SELECT data FROM operation WHERE state = 'running' ORDER BY id");
        Ok(SnapshotSource {
            generation: site::generation(&mut tx).await?,
            machines: row::all_json(machines, &mut tx, "machine.data").await?,
            operations: row::all_json(operations, &mut tx, "operation.data").await?,
            images: site::images(&mut tx).await?,
            vlans: address::vlans(&mut tx).await?,
            subnets: address::subnets(&mut tx).await?,
            ranges: address::ranges(&mut tx, None).await?,
            reservations: address::reservations(&mut tx).await?,
            environments: site::boot_environments(&mut tx).await?,
            settings: site::settings(&mut tx).await?,
        })
    }

    async fn setting(&self, key: &str) -> Result<Option<String>> {
        let query = sqlx::query_scalar("SELECT value FROM setting WHERE key = $1").bind(key.to_string());
        Ok(query.fetch_optional(&mut *self.readers.acquire().await?).await?)
    }

    async fn settings(&self) -> Result<Vec<(String, String)>> {
        site::settings(&mut *self.readers.acquire().await?).await
    }

    async fn put_setting(&self, key: &str, value: &str) -> Result<()> {
        let mut tx = self.write().await?;
        site::put_setting(&mut tx, key, value).await?;
        Ok(tx.commit().await?)
    }

    async fn create_token(&self, token: &Token) -> Result<()> {
        let mut tx = self.write().await?;
        site::create_token(&mut tx, token).await?;
        Ok(tx.commit().await?)
    }

    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>> {
        site::token_by_hash(&mut *self.readers.acquire().await?, hash).await
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        site::tokens(&mut *self.readers.acquire().await?).await
    }

    async fn delete_token(&self, name: &str) -> Result<bool> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM token WHERE name = $1").bind(name.to_string());
        let gone = query.execute(&mut *tx).await?.rows_affected() > 0;
        tx.commit().await?;
        Ok(gone)
    }

    async fn take_token(&self, hash: &[u8; 32], scope: TokenScope, now: Timestamp) -> Result<Option<Token>> {
        let mut tx = self.write().await?;
        let token = site::take_token(&mut tx, hash, scope, now).await?;
        tx.commit().await?;
        Ok(token)
    }

    async fn put_secret(&self, context: &SecretContext, sealed: &[u8]) -> Result<()> {
        let mut tx = self.write().await?;
        site::put_secret(&mut tx, context, sealed).await?;
        Ok(tx.commit().await?)
    }

    async fn secret(&self, context: &SecretContext) -> Result<Option<Vec<u8>>> {
        let query = sqlx::query_scalar("SELECT sealed FROM secret WHERE context = $1").bind(context.text());
        Ok(query.fetch_optional(&mut *self.readers.acquire().await?).await?)
    }

    async fn delete_secret(&self, context: &SecretContext) -> Result<bool> {
        let mut tx = self.write().await?;
        let query = sqlx::query("DELETE FROM secret WHERE context = $1").bind(context.text());
        let gone = query.execute(&mut *tx).await?.rows_affected() > 0;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod plans;
