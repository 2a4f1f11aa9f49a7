//! The store: what control knows, in the model's words, behind one trait.
//!
//! Contract. Every call is one transaction; none is open between calls. A change that depends on what was read names the version
//! it was made from and is refused ([`Error::Conflict`]) if that is no longer current, so no caller holds a lock. Unique
//! constraints of the database are the last word on names and addresses ([`Error::Duplicate`]). Whatever racks see moves the
//! [`Generation`]: a transaction that changes any of it gets a new one, and [`Store::snapshot_source`] reads all of it at once.
//! When a call returns, its change is durable.
//!
//! [`Store::commit`] is the call everything that moves machines goes through: a list of [`Change`]s, all or none, together with the
//! rack's observations they follow from, which makes observations applied once.

mod error;
pub mod limits;
mod sqlite;
mod types;

pub use error::{Error, Result};
pub use sqlite::SqliteStore;
pub use types::{
    Change, Committed, EffectId, LogFilter, MachineFilter, MachineUpdate, NewMachine, NewOperation, Observed,
    OperationFilter, Order, Page, QueuedEffect, SecretContext, SnapshotSource, Token, TokenScope, Transition,
};

use bootstorm_model::{
    Address, BootEnvironment, Fabric, Hostname, Image, IpRange, LogEntry, Machine, Name, Operation, Rack, Span, Subnet,
    Timestamp, Vlan,
};
use bootstorm_snapshot::{
    Architecture, EnrolmentId, EventId, FabricId, Generation, ImageId, Inventory, Mac, MachineId, OperationId, RackId,
    RangeId, SubnetId, VlanId,
};
use std::net::Ipv4Addr;

/// What control knows. `Arc<dyn Store>` is shared by handlers, reconcilers and the effect runner.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    // Changes of machines and operations.

    /// Applies changes in order, all or none, and numbers them with a new generation if racks see any of them.
    ///
    /// With `observed`, the changes follow from a rack's observations: if those have been applied before, nothing happens and
    /// [`Committed::Before`] is returned; if one is missing in between, [`Error::Gap`].
    ///
    /// # Errors
    /// [`Error::Conflict`] if a machine has changed since it was read (read again, decide again); [`Error::Duplicate`];
    /// [`Error::NotFound`].
    async fn commit(&self, changes: Vec<Change>, observed: Option<Observed>, now: Timestamp) -> Result<Committed>;

    // Machines.

    /// A machine by its id.
    async fn machine(&self, id: MachineId) -> Result<Option<Machine>>;
    /// The machine with an interface of that address.
    async fn machine_by_mac(&self, mac: Mac) -> Result<Option<Machine>>;
    /// The machine of that name.
    async fn machine_by_hostname(&self, hostname: &Hostname) -> Result<Option<Machine>>;
    /// The machine that an enrolment became.
    async fn machine_by_enrolment(&self, enrolment: EnrolmentId) -> Result<Option<Machine>>;
    /// A machine whose last inventory names that system UUID (canonical, lower case); the first by id if several do.
    async fn machine_by_system_uuid(&self, uuid: &str) -> Result<Option<Machine>>;
    /// Machines in the order of their host names.
    async fn machines(&self, filter: &MachineFilter, page: &Page<Hostname>) -> Result<Vec<Machine>>;
    /// How many machines there are in each status: (code, count), by code.
    async fn machine_counts(&self) -> Result<Vec<(u8, u64)>>;
    /// The last inventory of a machine.
    async fn inventory(&self, machine: MachineId) -> Result<Option<Inventory>>;

    // Operations.

    /// An operation by its id.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>>;
    /// The operation asked for under that key.
    async fn operation_by_key(&self, key: &str) -> Result<Option<Operation>>;
    /// Operations, the newest first.
    async fn operations(&self, filter: &OperationFilter, page: &Page<OperationId>) -> Result<Vec<Operation>>;
    /// Running operations whose deadline has passed, the longest overdue first.
    async fn overdue_operations(&self, now: Timestamp, limit: u32) -> Result<Vec<Operation>>;
    /// The earliest deadline of a running operation; `None` if none runs.
    async fn next_operation_deadline(&self) -> Result<Option<Timestamp>>;
    /// The boot trace of an operation, in order of time.
    async fn spans(&self, operation: OperationId) -> Result<Vec<Span>>;

    // Effects.

    /// Takes effects that are due for performing, marked as started by `worker` until `lease_end`; the first one not done of each
    /// machine only, so that a machine's effects happen in order. What is not finished by `lease_end` can be taken again.
    async fn claim_effects(
        &self,
        worker: &str,
        now: Timestamp,
        lease_end: Timestamp,
        limit: u32,
    ) -> Result<Vec<QueuedEffect>>;
    /// An effect is done. False if it was taken from this worker or superseded meanwhile, which is no error.
    async fn effect_done(&self, id: EffectId, worker: &str, now: Timestamp) -> Result<bool>;
    /// An effect failed: it is due again at `retry_at`, or, with `None`, given up. False as for [`Store::effect_done`].
    async fn effect_failed(
        &self,
        id: EffectId,
        worker: &str,
        error: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool>;
    /// Gives up every claim of `worker`: an earlier process of that name is gone, and what it had begun is due now.
    async fn release_effects(&self, worker: &str, now: Timestamp) -> Result<()>;
    /// When the next effect becomes due; `None` if nothing is queued.
    async fn next_effect_due(&self) -> Result<Option<Timestamp>>;

    // Events.

    /// Entries of the log.
    async fn log(&self, filter: &LogFilter, order: Order, page: &Page<EventId>) -> Result<Vec<LogEntry>>;

    // Networks.

    /// Stores a fabric with a new id.
    async fn create_fabric(&self, fabric: Fabric) -> Result<Fabric>;
    /// All fabrics, by id.
    async fn fabrics(&self) -> Result<Vec<Fabric>>;
    /// Changes a fabric.
    async fn update_fabric(&self, fabric: &Fabric) -> Result<()>;
    /// Deletes a fabric; [`Error::InUse`] while it has VLANs.
    async fn delete_fabric(&self, id: FabricId) -> Result<()>;
    /// Stores a VLAN with a new id.
    async fn create_vlan(&self, vlan: Vlan) -> Result<Vlan>;
    /// All VLANs, by id.
    async fn vlans(&self) -> Result<Vec<Vlan>>;
    /// Changes a VLAN.
    async fn update_vlan(&self, vlan: &Vlan) -> Result<()>;
    /// Deletes a VLAN; [`Error::InUse`] while it has subnets.
    async fn delete_vlan(&self, id: VlanId) -> Result<()>;
    /// Stores a subnet with a new id, if `ipam` finds nothing wrong with it.
    ///
    /// # Errors
    /// [`Error::Address`] if it overlaps another of its fabric, or its gateway lies outside.
    async fn create_subnet(&self, subnet: Subnet) -> Result<Subnet>;
    /// All subnets, by id.
    async fn subnets(&self) -> Result<Vec<Subnet>>;
    /// Changes a subnet; errors as for [`Store::create_subnet`], and [`Error::Address`] if what lies in it no longer would.
    async fn update_subnet(&self, subnet: &Subnet) -> Result<()>;
    /// Deletes a subnet with its ranges; [`Error::InUse`] while it has addresses that are not leases.
    async fn delete_subnet(&self, id: SubnetId) -> Result<()>;
    /// Stores a range with a new id; [`Error::Address`] if it lies outside its subnet or overlaps another.
    async fn create_range(&self, range: IpRange) -> Result<IpRange>;
    /// The ranges of a subnet, or all, by id.
    async fn ranges(&self, subnet: Option<SubnetId>) -> Result<Vec<IpRange>>;
    /// Deletes a range.
    async fn delete_range(&self, id: RangeId) -> Result<()>;
    /// The addresses of a subnet, in order.
    async fn addresses(&self, subnet: SubnetId, page: &Page<Ipv4Addr>) -> Result<Vec<Address>>;
    /// The addresses of a machine.
    async fn machine_addresses(&self, machine: MachineId) -> Result<Vec<Address>>;
    /// Gives the interface that address (a reserved address), or keeps it if it is the interface's already.
    ///
    /// # Errors
    /// [`Error::Address`] if it lies in a dynamic range or may not be used; [`Error::Duplicate`] if it is somebody else's.
    async fn reserve_address(&self, address: Address) -> Result<()>;
    /// Gives the interface the next free address of the subnet, or the one of kind auto or sticky that it has there already.
    ///
    /// # Errors
    /// [`Error::Address`] if none is free.
    async fn allocate_address(
        &self,
        subnet: SubnetId,
        mac: Mac,
        machine: Option<MachineId>,
        now: Timestamp,
    ) -> Result<Address>;
    /// Gives an address back. False if nobody had it.
    async fn release_address(&self, subnet: SubnetId, ip: Ipv4Addr) -> Result<bool>;

    // Images and boot environments.

    /// Stores an image; [`Error::Duplicate`] if the name is another's. The same image under the same name is no error.
    async fn put_image(&self, image: &Image) -> Result<()>;
    /// An image by its name.
    async fn image(&self, name: &Name) -> Result<Option<Image>>;
    /// Images by name.
    async fn images(&self) -> Result<Vec<Image>>;
    /// Deletes an image's record; [`Error::InUse`] while a running operation installs it.
    async fn delete_image(&self, name: &Name) -> Result<()>;
    /// Whether any image's name still stands for these bytes, or a running operation installs them.
    async fn image_in_use(&self, id: ImageId) -> Result<bool>;
    /// Puts a boot environment in force, in place of the one of its architecture.
    async fn put_boot_environment(&self, environment: &BootEnvironment) -> Result<()>;
    /// The boot environments in force.
    async fn boot_environments(&self) -> Result<Vec<BootEnvironment>>;
    /// Takes a boot environment out of force. False if there was none.
    async fn delete_boot_environment(&self, architecture: Architecture) -> Result<bool>;

    // Racks and the snapshot.

    /// A rack joins, or comes back under its id.
    async fn put_rack(&self, rack: &Rack) -> Result<()>;
    /// All racks, by name.
    async fn racks(&self) -> Result<Vec<Rack>>;
    /// A rack by its id.
    async fn rack(&self, id: RackId) -> Result<Option<Rack>>;
    /// A rack is there and serves that generation; its acknowledged generation never goes back but to 0 (it has lost its data).
    async fn rack_seen(&self, id: RackId, generation: Generation, now: Timestamp) -> Result<()>;
    /// A rack counts its observations on from `last`: what it had counted before is lost, or it starts over at 0.
    async fn resume_observations(&self, id: RackId, last: u64) -> Result<()>;
    /// A rack is gone for good.
    async fn delete_rack(&self, id: RackId) -> Result<()>;
    /// The current generation.
    async fn generation(&self) -> Result<Generation>;
    /// Everything a snapshot is made of, as of one generation.
    async fn snapshot_source(&self) -> Result<SnapshotSource>;

    // Settings, tokens, secrets.

    /// A setting.
    async fn setting(&self, key: &str) -> Result<Option<String>>;
    /// All settings, by key.
    async fn settings(&self) -> Result<Vec<(String, String)>>;
    /// Sets a setting. Racks may see it, so it moves the generation.
    async fn put_setting(&self, key: &str, value: &str) -> Result<()>;
    /// Stores a token's hash. [`Error::Duplicate`] for a name in use.
    async fn create_token(&self, token: &Token) -> Result<()>;
    /// The token with that hash, expired or not.
    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>>;
    /// Tokens by name; never their values, which nobody stores.
    async fn tokens(&self) -> Result<Vec<Token>>;
    /// Deletes a token. False if there was none.
    async fn delete_token(&self, name: &str) -> Result<bool>;
    /// Uses up a token good for one use: returns it, once, if it is of that scope and has not expired.
    async fn take_token(&self, hash: &[u8; 32], scope: TokenScope, now: Timestamp) -> Result<Option<Token>>;
    /// Stores a sealed secret. The store never sees what is in it; the context is what it was sealed for.
    async fn put_secret(&self, context: &SecretContext, sealed: &[u8]) -> Result<()>;
    /// A sealed secret.
    async fn secret(&self, context: &SecretContext) -> Result<Option<Vec<u8>>>;
    /// Forgets a secret. False if there was none.
    async fn delete_secret(&self, context: &SecretContext) -> Result<bool>;
}
