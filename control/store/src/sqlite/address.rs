//! Fabrics, VLANs, subnets, ranges and addresses.

use super::{row, site};
use crate::error::{Error, Result};
use crate::types::Page;
use bootstorm_model::ipam::{self, Pool};
use bootstorm_model::{Address, AddressKind, Fabric, IpRange, Subnet, Timestamp, Vlan};
use bootstorm_snapshot::{FabricId, Mac, MachineId, RangeId, SubnetId, VlanId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::net::Ipv4Addr;

pub(super) async fn create_fabric(connection: &mut SqliteConnection, mut fabric: Fabric) -> Result<Fabric> {
    let query = sqlx::query_scalar("INSERT INTO fabric (name) VALUES ($1) RETURNING id").bind(fabric.name.to_string());
    let id = query.fetch_one(connection).await;
    fabric.id = FabricId(id.map_err(|error| row::duplicate(error, &[("fabric.name", "fabric", &fabric.name)]))?);
    Ok(fabric)
}

pub(super) async fn fabrics(connection: &mut SqliteConnection) -> Result<Vec<Fabric>> {
    let rows = sqlx::query("SELECT id, name FROM fabric ORDER BY id").fetch_all(connection).await?;
    let read = |row: &SqliteRow| {
        Ok(Fabric { id: FabricId(row.try_get(0)?), name: row::parse("fabric.name", row.try_get::<&str, _>(1)?)? })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn update_fabric(connection: &mut SqliteConnection, fabric: &Fabric) -> Result<()> {
    let query =
        sqlx::query("UPDATE fabric SET name = $2 WHERE id = $1").bind(fabric.id.0).bind(fabric.name.to_string());
    let done = query.execute(connection).await;
    let done = done.map_err(|error| row::duplicate(error, &[("fabric.name", "fabric", &fabric.name)]))?;
    row::changed(done.rows_affected(), "fabric", fabric.id)
}

pub(super) async fn create_vlan(connection: &mut SqliteConnection, mut vlan: Vlan) -> Result<Vlan> {
    let text = "INSERT INTO vlan (fabric, vid, data) VALUES ($1, $2, '') RETURNING id";
    let query = sqlx::query_scalar(text).bind(vlan.fabric.0).bind(i64::from(vlan.vid));
    let id = query.fetch_one(&mut *connection).await.map_err(|error| vlan_error(error, &vlan))?;
    vlan.id = VlanId(id);
    update_vlan(connection, &vlan).await?;
    Ok(vlan)
}

pub(super) async fn vlans(connection: &mut SqliteConnection) -> Result<Vec<Vlan>> {
    row::all_json(sqlx::query("SELECT data FROM vlan ORDER BY id"), connection, "vlan.data").await
}

pub(super) async fn update_vlan(connection: &mut SqliteConnection, vlan: &Vlan) -> Result<()> {
    let done = sqlx::query("UPDATE vlan SET fabric = $2, vid = $3, data = $4 WHERE id = $1")
        .bind(vlan.id.0)
        .bind(vlan.fabric.0)
        .bind(i64::from(vlan.vid))
        .bind(row::to_json("vlan.data", vlan)?)
        .execute(&mut *connection)
        .await
        .map_err(|error| vlan_error(error, vlan))?;
    row::changed(done.rows_affected(), "VLAN", vlan.id)?;
    site::bump_generation(connection).await.map(drop)
}

fn vlan_error(error: sqlx::Error, vlan: &Vlan) -> Error {
    if row::is_foreign_key_violation(&error) {
        return Error::NotFound { what: "fabric", id: vlan.fabric.to_string() };
    }
    row::duplicate(error, &[("vlan.vid", "VLAN", &vlan.vid)])
}

pub(super) async fn create_subnet(connection: &mut SqliteConnection, mut subnet: Subnet) -> Result<Subnet> {
    let text = "INSERT INTO subnet (vlan, name, data) VALUES ($1, $2, '') RETURNING id";
    let query = sqlx::query_scalar(text).bind(subnet.vlan.0).bind(subnet.name.to_string());
    let id = query.fetch_one(&mut *connection).await.map_err(|error| subnet_error(error, &subnet))?;
    subnet.id = SubnetId(id);
    save_subnet(connection, &subnet).await?;
    Ok(subnet)
}

pub(super) async fn update_subnet(connection: &mut SqliteConnection, subnet: &Subnet) -> Result<()> {
    let ranges = ranges(connection, Some(subnet.id)).await?;
    let given = given(connection, subnet.id, Given::Reserved).await?;
    for range in &ranges {
        ipam::check_range(subnet, range, &ranges, given.iter().copied())?;
    }
    for ip in given {
        ipam::check_address(subnet, &[], ip)?;
    }
    save_subnet(connection, subnet).await
}

/// The one place where a subnet is written: checked against the others of its fabric.
async fn save_subnet(connection: &mut SqliteConnection, subnet: &Subnet) -> Result<()> {
    let text = "SELECT data FROM subnet WHERE id <> $1 AND vlan IN \
        (SELECT id FROM vlan WHERE fabric = (SELECT fabric FROM vlan WHERE id = $2))";
    let query = sqlx::query(text).bind(subnet.id.0).bind(subnet.vlan.0);
    let others: Vec<Subnet> = row::all_json(query, &mut *connection, "subnet.data").await?;
    ipam::check_subnet(subnet, &others)?;
    let done = sqlx::query("UPDATE subnet SET vlan = $2, name = $3, data = $4 WHERE id = $1")
        .bind(subnet.id.0)
        .bind(subnet.vlan.0)
        .bind(subnet.name.to_string())
        .bind(row::to_json("subnet.data", subnet)?)
        .execute(&mut *connection)
        .await
        .map_err(|error| subnet_error(error, subnet))?;
    row::changed(done.rows_affected(), "subnet", subnet.id)?;
    site::bump_generation(connection).await.map(drop)
}

fn subnet_error(error: sqlx::Error, subnet: &Subnet) -> Error {
    if row::is_foreign_key_violation(&error) {
        return Error::NotFound { what: "VLAN", id: subnet.vlan.to_string() };
    }
    row::duplicate(error, &[("subnet.name", "subnet", &subnet.name)])
}

pub(super) async fn subnets(connection: &mut SqliteConnection) -> Result<Vec<Subnet>> {
    row::all_json(sqlx::query("SELECT data FROM subnet ORDER BY id"), connection, "subnet.data").await
}

async fn existing_subnet(connection: &mut SqliteConnection, id: SubnetId) -> Result<Subnet> {
    let query = sqlx::query("SELECT data FROM subnet WHERE id = $1").bind(id.0);
    let subnet = row::one_json(query, connection, "subnet.data").await?;
    subnet.ok_or_else(|| Error::NotFound { what: "subnet", id: id.to_string() })
}

pub(super) async fn delete_subnet(connection: &mut SqliteConnection, id: SubnetId) -> Result<()> {
    if !given(connection, id, Given::Reserved).await?.is_empty() {
        return Err(Error::InUse { what: "subnet", id: id.to_string(), by: "addresses" });
    }
    let query = sqlx::query("DELETE FROM subnet WHERE id = $1").bind(id.0);
    row::delete(query, connection, "subnet", id, "addresses").await?;
    site::bump_generation(connection).await.map(drop)
}

pub(super) async fn create_range(connection: &mut SqliteConnection, mut range: IpRange) -> Result<IpRange> {
    let subnet = existing_subnet(connection, range.subnet).await?;
    range.id = RangeId(0);
    let others = ranges(connection, Some(range.subnet)).await?;
    let reserved = given(connection, range.subnet, Given::Reserved).await?;
    ipam::check_range(&subnet, &range, &others, reserved)?;
    let insert = "INSERT INTO ip_range (subnet, data) VALUES ($1, '') RETURNING id";
    range.id = RangeId(sqlx::query_scalar(insert).bind(range.subnet.0).fetch_one(&mut *connection).await?);
    sqlx::query("UPDATE ip_range SET data = $2 WHERE id = $1")
        .bind(range.id.0)
        .bind(row::to_json("ip_range.data", &range)?)
        .execute(&mut *connection)
        .await?;
    site::bump_generation(connection).await?;
    Ok(range)
}

pub(super) async fn ranges(connection: &mut SqliteConnection, subnet: Option<SubnetId>) -> Result<Vec<IpRange>> {
    let query = match subnet {
        Some(subnet) => sqlx::query("SELECT data FROM ip_range WHERE subnet = $1 ORDER BY id").bind(subnet.0),
        None => sqlx::query("SELECT data FROM ip_range ORDER BY id"),
    };
    row::all_json(query, connection, "ip_range.data").await
}

/// A page of a subnet's addresses: `$1` subnet, `$2` after, `$3` how many.
pub(super) const IN_SUBNET: &str = "SELECT subnet, ip, kind, mac, machine, until, updated FROM address WHERE subnet = $1 AND ip > $2 ORDER BY ip LIMIT $3";

pub(super) async fn addresses(
    connection: &mut SqliteConnection,
    subnet: SubnetId,
    page: &Page<Ipv4Addr>,
) -> Result<Vec<Address>> {
    let after = page.after.map_or(-1, |ip| i64::from(u32::from(ip)));
    let query = sqlx::query(IN_SUBNET).bind(subnet.0).bind(after).bind(row::limit(page.limit));
    query.fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn machine_addresses(connection: &mut SqliteConnection, machine: MachineId) -> Result<Vec<Address>> {
    let text =
        "SELECT subnet, ip, kind, mac, machine, until, updated FROM address WHERE machine = $1 ORDER BY subnet, ip";
    sqlx::query(text).bind(machine.to_string()).fetch_all(connection).await?.iter().map(read).collect()
}

pub(super) async fn reservations(connection: &mut SqliteConnection) -> Result<Vec<Address>> {
    let text = "SELECT subnet, ip, kind, mac, machine, until, updated FROM address \
        WHERE kind IN ('auto', 'sticky', 'static') AND mac IS NOT NULL ORDER BY subnet, ip";
    sqlx::query(text).fetch_all(connection).await?.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<Address> {
    let number: i64 = row.try_get(1)?;
    let ip = u32::try_from(number)
        .map_err(|_| Error::Corrupt { column: "address.ip", reason: format!("`{number}` is no address") })?;
    let text = |index: usize| row.try_get::<Option<&str>, _>(index);
    Ok(Address {
        subnet: SubnetId(row.try_get(0)?),
        ip: Ipv4Addr::from(ip),
        kind: row::word("address.kind", row.try_get::<&str, _>(2)?)?,
        mac: text(3)?.map(|text| row::parse("address.mac", text)).transpose()?,
        machine: text(4)?.map(|text| row::parse("address.machine", text)).transpose()?,
        until: row.try_get::<Option<i64>, _>(5)?.map(Timestamp),
        updated: Timestamp(row.try_get(6)?),
    })
}

/// Which addresses of a subnet.
#[derive(Clone, Copy)]
enum Given {
    /// Those kept for somebody.
    Reserved,
    /// Those that somebody has or was seen with.
    Any,
}

async fn given(connection: &mut SqliteConnection, subnet: SubnetId, which: Given) -> Result<Vec<Ipv4Addr>> {
    let text = match which {
        Given::Reserved => "SELECT ip FROM address WHERE subnet = $1 AND kind IN ('auto', 'sticky', 'static')",
        Given::Any => "SELECT ip FROM address WHERE subnet = $1",
    };
    let numbers: Vec<i64> = sqlx::query_scalar(text).bind(subnet.0).fetch_all(connection).await?;
    Ok(numbers.into_iter().filter_map(|number| u32::try_from(number).ok()).map(Ipv4Addr::from).collect())
}

pub(super) async fn reserve(connection: &mut SqliteConnection, address: &Address) -> Result<()> {
    let subnet = existing_subnet(connection, address.subnet).await?;
    let ranges = ranges(connection, Some(address.subnet)).await?;
    ipam::check_address(&subnet, &ranges, address.ip)?;
    if let Some(mac) = address.mac {
        // An interface has one reserved address in a subnet: this one takes the place of an earlier one.
        let text = "DELETE FROM address WHERE subnet = $1 AND mac = $2";
        sqlx::query(text).bind(address.subnet.0).bind(mac.to_string()).execute(&mut *connection).await?;
    }
    // What was only seen there gives way.
    let seen = "DELETE FROM address WHERE subnet = $1 AND ip = $2 AND kind = 'discovered'";
    sqlx::query(seen).bind(address.subnet.0).bind(number(address.ip)).execute(&mut *connection).await?;
    insert(connection, address).await
}

pub(super) async fn allocate(
    connection: &mut SqliteConnection,
    subnet: SubnetId,
    mac: Mac,
    machine: Option<MachineId>,
    now: Timestamp,
) -> Result<Address> {
    let existing = "SELECT subnet, ip, kind, mac, machine, until, updated FROM address \
        WHERE mac = $1 AND subnet = $2 AND kind IN ('auto', 'sticky', 'static')";
    let row = sqlx::query(existing).bind(mac.to_string()).bind(subnet.0).fetch_optional(&mut *connection).await?;
    if let Some(row) = row {
        return read(&row);
    }
    let record = existing_subnet(connection, subnet).await?;
    let ranges = ranges(connection, Some(subnet)).await?;
    let taken = given(connection, subnet, Given::Any).await?;
    let ip = Pool::new(&record, ranges.iter().map(|range| range.range), taken)?.allocate()?;
    let address = Address { ip, subnet, kind: AddressKind::Auto, mac: Some(mac), machine, until: None, updated: now };
    insert(connection, &address).await?;
    Ok(address)
}

async fn insert(connection: &mut SqliteConnection, address: &Address) -> Result<()> {
    let text =
        "INSERT INTO address (subnet, ip, kind, mac, machine, until, updated) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let done = bind(sqlx::query(text), address).execute(&mut *connection).await;
    done.map_err(|error| {
        if row::is_foreign_key_violation(&error) {
            let id = address.machine.map(|id| id.to_string()).unwrap_or_default();
            return Error::NotFound { what: "machine", id };
        }
        let mac = address.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let columns: [row::Unique<'_>; 2] =
            [("address.ip", "address", &address.ip), ("address.mac", "reserved address of interface", &mac)];
        row::duplicate(error, &columns)
    })?;
    site::bump_generation(connection).await.map(drop)
}

pub(super) async fn release(connection: &mut SqliteConnection, subnet: SubnetId, ip: Ipv4Addr) -> Result<bool> {
    let query = sqlx::query("DELETE FROM address WHERE subnet = $1 AND ip = $2").bind(subnet.0).bind(number(ip));
    let gone = query.execute(&mut *connection).await?.rows_affected() > 0;
    if gone {
        site::bump_generation(connection).await?;
    }
    Ok(gone)
}

/// Notes leases in their order, in one statement: a storm brings thousands a second. Each goes over an older lease or a
/// sighting, never over a reservation. One in a subnet that is gone is forgotten; one that names no machine is of the machine
/// that has its interface, and one of a machine that is gone is nobody's.
pub(super) async fn put_leases(connection: &mut SqliteConnection, leases: &[Address]) -> Result<()> {
    if leases.is_empty() {
        return Ok(());
    }
    let row = |lease: &Address| {
        let (mac, machine) = (lease.mac.map(|mac| mac.to_string()), lease.machine.map(|id| id.to_string()));
        (lease.subnet.0, number(lease.ip), mac, machine, lease.until.map(|until| until.0), lease.updated.0)
    };
    let rows = row::to_json("address", &leases.iter().map(row).collect::<Vec<_>>())?;
    let text = "INSERT INTO address (subnet, ip, kind, mac, machine, until, updated) \
        SELECT value ->> 0, value ->> 1, 'dhcp', value ->> 2, \
        CASE WHEN value ->> 3 IS NULL THEN (SELECT machine FROM interface WHERE mac = value ->> 2) \
        ELSE (SELECT id FROM machine WHERE id = value ->> 3) END, \
        value ->> 4, value ->> 5 FROM json_each($1) WHERE EXISTS (SELECT 1 FROM subnet WHERE id = value ->> 0) \
        ON CONFLICT (subnet, ip) DO UPDATE SET kind = excluded.kind, mac = excluded.mac, machine = excluded.machine, \
        until = excluded.until, updated = excluded.updated WHERE address.kind IN ('dhcp', 'discovered')";
    sqlx::query(text).bind(rows).execute(connection).await?;
    Ok(())
}

pub(super) async fn end_lease(
    connection: &mut SqliteConnection,
    subnet: Option<SubnetId>,
    ip: Ipv4Addr,
    mac: Mac,
) -> Result<()> {
    let text = "DELETE FROM address WHERE subnet IN (SELECT id FROM subnet WHERE $1 IS NULL OR id = $1) \
        AND ip = $2 AND mac = $3 AND kind = 'dhcp'";
    let query = sqlx::query(text).bind(subnet.map(|id| id.0)).bind(number(ip)).bind(mac.to_string());
    query.execute(connection).await?;
    Ok(())
}

fn number(ip: Ipv4Addr) -> i64 {
    i64::from(u32::from(ip))
}

fn bind<'q>(query: row::Statement<'q>, address: &Address) -> row::Statement<'q> {
    query
        .bind(address.subnet.0)
        .bind(number(address.ip))
        .bind(address.kind.word())
        .bind(address.mac.map(|mac| mac.to_string()))
        .bind(address.machine.map(|id| id.to_string()))
        .bind(address.until.map(|until| until.0))
        .bind(address.updated.0)
}
