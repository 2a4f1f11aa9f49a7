//! What people and programs ask of machines: decided by the model, stored in one transaction, performed by the effect runner.

use std::sync::Arc;

use bootstorm_api::bmc::{Action, PowerState};
use bootstorm_api::native;
use bootstorm_model::lifecycle::{Event, Start};
use bootstorm_model::operation::DeployParameters;
use bootstorm_model::{
    AddressKind, Image, ImageState, Interface, Machine, Operation, OperationKind, OperationState, Outcome, Parameters,
    Power, Severity, State, Status,
};
use bootstorm_snapshot::plan::{self, DiskSelector, Erase};
use bootstorm_snapshot::{Architecture, InterfaceId, Mac, MachineId, OperationId, SubnetId};
use bootstorm_store::{Change, MachineFilter, MachineUpdate, NewMachine, Page, SecretContext};

use crate::control::{Control, Move, log, now};
use crate::error::{Error, Result};
use crate::observe::{default_pool, new_operation};
use crate::seal::random;
use crate::{effects, limits};

/// Who asks, and under which name of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// Name of the token.
    pub actor: String,
    /// `Idempotency-Key`, made unique per token.
    pub key: Option<String>,
}

impl Caller {
    /// The operation that this request already began, if it is a repetition.
    async fn repeated(&self, control: &Control, machine: MachineId, kind: OperationKind) -> Result<Option<Operation>> {
        let Some(key) = &self.key else { return Ok(None) };
        let found = control.store.operation_by_key(key).await?;
        if found
            .as_ref()
            .is_some_and(|operation| operation.machine != Some(machine) || operation.parameters.kind() != kind)
        {
            let message = "this `Idempotency-Key` was used for another request; take a new one".to_string();
            return Err(Error::Conflict { code: "idempotency-key-reused", message });
        }
        Ok(found)
    }
}

/// The machine of an id or host name.
pub(crate) async fn find(control: &Control, text: &str) -> Result<Machine> {
    if let Ok(id) = text.parse::<MachineId>()
        && let Some(machine) = control.store.machine(id).await?
    {
        return Ok(machine);
    }
    let named = match text.parse() {
        Ok(hostname) => control.store.machine_by_hostname(&hostname).await?,
        Err(_) => None,
    };
    named.ok_or_else(|| Error::NotFound { what: "machine", id: text.chars().take(64).collect() })
}

/// Reads a MAC address that one interface can have.
pub(crate) fn parse_mac(text: &str) -> Result<Mac> {
    let mac: Mac = text.parse().map_err(|error| Error::invalid("MAC address", error))?;
    if !mac.is_unicast() {
        return Err(Error::invalid("MAC address", format!("`{mac}` is not the address of one interface")));
    }
    Ok(mac)
}

fn parse_macs(texts: &[String]) -> Result<Vec<Mac>> {
    let mut macs = Vec::new();
    for text in texts {
        let mac = parse_mac(text)?;
        if macs.contains(&mac) {
            return Err(Error::invalid("MAC address", format!("`{mac}` is given twice")));
        }
        macs.push(mac);
    }
    if macs.is_empty() {
        return Err(Error::invalid("macs", "at least one MAC address is needed"));
    }
    Ok(macs)
}

fn parse_architecture(text: Option<&str>) -> Result<Option<Architecture>> {
    text.map(|text| text.parse().map_err(|error| Error::invalid("architecture", error))).transpose()
}

/// What setting a machine's power changes: its driver, and the sealed parameters.
fn power_changes(control: &Control, id: MachineId, power: &native::Power) -> Result<(Power, Change)> {
    bootstorm_power::check(&power.driver, &power.parameters).map_err(|error| Error::invalid("power", error))?;
    let context = SecretContext::MachinePower(id);
    let json =
        zeroize::Zeroizing::new(serde_json::to_vec(&power.parameters).map_err(|error| Error::invalid("power", error))?);
    let sealed = control.sealer.seal(&context.text(), &json)?;
    let model = Power { driver: power.driver.clone(), ..Power::default() };
    Ok((model, Change::PutSecret { context, sealed }))
}

/// The changes that make a new machine, and its id.
pub(crate) fn creation(
    control: &Control,
    request: &native::MachineCreate,
    actor: &str,
) -> Result<(MachineId, Vec<Change>)> {
    let id = MachineId::from_random(random()?);
    let name = request.name.clone().unwrap_or_else(|| format!("node-{id}"));
    let hostname = name.parse().map_err(|error| Error::invalid("name", error))?;
    let macs = parse_macs(&request.macs)?;
    let interfaces = macs.iter().enumerate().map(|(index, mac)| Interface {
        id: InterfaceId(0),
        mac: *mac,
        name: format!("eth{index}"),
        boot: index == 0,
    });
    let (power, secret) = match &request.power {
        Some(power) => power_changes(control, id, power).map(|(power, secret)| (power, Some(secret)))?,
        None => (Power::default(), None),
    };
    let machine = NewMachine {
        id,
        hostname,
        pool: default_pool()?,
        architecture: parse_architecture(request.architecture.as_deref())?,
        firmware: None,
        power,
        interfaces: interfaces.collect(),
        enrolment: None,
    };
    let text = format!("`{}` has been added", machine.hostname);
    let mut changes = vec![Change::CreateMachine(machine)];
    changes.extend(secret);
    changes.push(log(Severity::Info, "machine-added", Some(id), None, actor, text));
    Ok((id, changes))
}

/// Makes a machine.
pub(crate) async fn create(
    control: &Arc<Control>,
    request: &native::MachineCreate,
    caller: &Caller,
) -> Result<Machine> {
    let (id, changes) = creation(control, request, &caller.actor)?;
    control.commit(changes).await?;
    control.machine(id).await
}

/// Changes a machine's properties.
pub(crate) async fn update(
    control: &Arc<Control>,
    id: MachineId,
    request: &native::MachineUpdate,
    caller: &Caller,
) -> Result<Machine> {
    let hostname =
        request.name.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("name", error))?;
    let pool = request.pool.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("pool", error))?;
    let (power, secret) = match &request.power {
        Some(power) => power_changes(control, id, power).map(|(power, secret)| (Some(power), Some(secret)))?,
        None => (None, None),
    };
    control
        .change(id, |machine| {
            if machine.flags.locked {
                return Err(locked(machine));
            }
            let mut update = MachineUpdate {
                hostname: hostname.clone(),
                pool: pool.clone(),
                power: power.clone(),
                ..MachineUpdate::default()
            };
            if let Some(held) = request.held {
                update.flags = Some(bootstorm_model::Flags { held, ..machine.flags });
                update.hold_reason = Some(held.then(|| format!("held by {}", caller.actor)));
            }
            let text = format!("`{}` was changed", machine.hostname);
            let mut changes = vec![Change::UpdateMachine { machine: id, version: Some(machine.version), update }];
            changes.extend(secret.clone());
            changes.push(log(Severity::Info, "machine-changed", Some(id), None, &caller.actor, text));
            Ok(changes)
        })
        .await
}

fn locked(machine: &Machine) -> Error {
    Error::Conflict { code: "machine-locked", message: format!("`{}` is locked: unlock it first", machine.hostname) }
}

/// Forgets a machine.
pub(crate) async fn delete(control: &Arc<Control>, id: MachineId, caller: &Caller) -> Result<()> {
    let machine = control.machine(id).await?;
    if machine.flags.locked {
        return Err(locked(&machine));
    }
    let text = format!("`{}` has been deleted", machine.hostname);
    let entry = log(Severity::Info, "machine-deleted", Some(id), None, &caller.actor, text);
    control.commit(vec![Change::DeleteMachine { machine: id, version: machine.version }, entry]).await
}

/// Locks or unlocks.
pub(crate) async fn lock(control: &Arc<Control>, id: MachineId, lock: bool, caller: &Caller) -> Result<Machine> {
    control
        .change(id, |machine| {
            if machine.flags.locked == lock {
                return Ok(Vec::new());
            }
            if lock && !machine.state.may_lock() {
                let message = format!(
                    "only a deployed or deploying machine is locked; `{}` is {}",
                    machine.hostname,
                    machine.state.status().name()
                );
                return Err(Error::Conflict { code: "state", message });
            }
            let flags = bootstorm_model::Flags { locked: lock, ..machine.flags };
            let update = MachineUpdate { flags: Some(flags), ..MachineUpdate::default() };
            let (code, verb) = if lock { ("machine-locked", "locked") } else { ("machine-unlocked", "unlocked") };
            let text = format!("`{}` was {verb}", machine.hostname);
            let entry = log(Severity::Info, code, Some(id), None, &caller.actor, text);
            Ok(vec![Change::UpdateMachine { machine: id, version: Some(machine.version), update }, entry])
        })
        .await
}

/// A request that moves a machine at once, ending what is under way.
pub(crate) async fn request(
    control: &Arc<Control>,
    id: MachineId,
    event: Event,
    comment: Option<&str>,
    caller: &Caller,
) -> Result<Machine> {
    control
        .change(id, |machine| {
            let step = machine.decide(&event)?;
            let (operation, status) = (machine.operation, step.next.status());
            let mut movement = Move::new(machine, step).cancel(machine);
            if !status.is_owned() {
                movement = movement.owner(None);
            }
            let text = remark(format!("`{}` is now {}", machine.hostname, status.name()), comment);
            let code = format!("machine-{}", status.word().replace('_', "-"));
            Ok(vec![movement.change(), log(Severity::Info, &code, Some(id), operation, &caller.actor, text)])
        })
        .await
}

fn remark(text: String, comment: Option<&str>) -> String {
    match comment.filter(|comment| !comment.is_empty()) {
        Some(comment) => {
            let cut: String =
                comment.chars().filter(|c| !c.is_control()).take(limits::COMMENT_CHARACTERS_MAX).collect();
            format!("{text}: {cut}")
        }
        None => text,
    }
}

/// Begins a commissioning.
pub(crate) async fn commission(
    control: &Arc<Control>,
    id: MachineId,
    comment: Option<&str>,
    caller: &Caller,
) -> Result<Operation> {
    if let Some(operation) = caller.repeated(control, id, OperationKind::Commission).await? {
        return Ok(operation);
    }
    let operation = new_operation(Parameters::Commission, &caller.actor, caller.key.clone())?;
    let environments = control.store.boot_environments().await?;
    control
        .change(id, |machine| {
            need_environment(&environments, machine.architecture)?;
            let step = machine.decide(&Event::Commission { start: Start::PowerCycle })?;
            let text = remark(format!("`{}` is being commissioned", machine.hostname), comment);
            let entry = log(Severity::Info, "machine-commissioning", Some(id), Some(operation.id), &caller.actor, text);
            Ok(vec![Move::new(machine, step).start(operation.clone()).change(), entry])
        })
        .await?;
    operation_of(control, operation.id).await
}

fn need_environment(
    environments: &[bootstorm_model::BootEnvironment],
    architecture: Option<Architecture>,
) -> Result<()> {
    if environments.iter().any(|e| architecture.is_none_or(|known| known == e.environment.architecture)) {
        return Ok(());
    }
    let of = architecture.map(|architecture| format!(" for {architecture}")).unwrap_or_default();
    let message = format!(
        "there is no boot environment{of}: build and import one with `bootstorm bootenv build` and `bootenv import`"
    );
    Err(Error::Conflict { code: "no-boot-environment", message })
}

/// An operation by its id.
pub(crate) async fn operation_of(control: &Control, id: OperationId) -> Result<Operation> {
    control.store.operation(id).await?.ok_or_else(|| Error::NotFound { what: "operation", id: id.to_string() })
}

/// Gives a ready machine to the caller: the one named, or the first that fits.
pub(crate) async fn allocate(
    control: &Arc<Control>,
    request: &native::AllocateRequest,
    caller: &Caller,
) -> Result<Machine> {
    let architecture = parse_architecture(request.architecture.as_deref())?;
    let pool = request.pool.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("pool", error))?;
    let fits = |machine: &Machine| {
        let inventory = machine.inventory.as_ref();
        let cpu = request.cpu_count.is_none_or(|least| inventory.is_some_and(|found| found.cpu_threads >= least));
        let memory =
            request.memory_mib.is_none_or(|least| inventory.is_some_and(|found| found.memory_bytes >> 20 >= least));
        let pool = pool.as_ref().is_none_or(|pool| *pool == machine.pool);
        cpu && memory && pool && architecture.is_none_or(|wanted| machine.architecture == Some(wanted))
    };
    let comment = request.comment.as_deref();
    if let Some(name) = &request.machine {
        let machine = find(control, name).await?;
        if !fits(&machine) {
            let message = format!("`{}` does not have what is asked for", machine.hostname);
            return Err(Error::Conflict { code: "no-machine", message });
        }
        return take(control, machine.id, comment, caller).await;
    }
    let filter = MachineFilter { statuses: vec![Status::Ready], pool: pool.clone(), ..MachineFilter::default() };
    let mut page = Page::first(limits::PAGE_ROWS_DEFAULT);
    loop {
        let machines = control.store.machines(&filter, &page).await?;
        for machine in machines.iter().filter(|machine| fits(machine) && !machine.flags.held && !machine.flags.locked) {
            // One that somebody else took in between is passed over.
            match take(control, machine.id, comment, caller).await {
                Ok(machine) => return Ok(machine),
                Err(Error::Refused(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match machines.last() {
            Some(last) if machines.len() >= limits::PAGE_ROWS_DEFAULT as usize => {
                page.after = Some(last.hostname.clone())
            }
            _ => {
                let message = "no ready machine has what is asked for".to_string();
                return Err(Error::Conflict { code: "no-machine", message });
            }
        }
    }
}

async fn take(control: &Arc<Control>, id: MachineId, comment: Option<&str>, caller: &Caller) -> Result<Machine> {
    control
        .change(id, |machine| {
            let step = machine.decide(&Event::Allocate)?;
            let text = remark(format!("`{}` is allocated to {}", machine.hostname, caller.actor), comment);
            let entry = log(Severity::Info, "machine-allocated", Some(id), None, &caller.actor, text);
            Ok(vec![Move::new(machine, step).owner(Some(caller.actor.clone())).change(), entry])
        })
        .await
}

/// The image of a name or id that may be deployed.
pub(crate) async fn image(control: &Control, text: &str) -> Result<Image> {
    let missing = || Error::NotFound { what: "image", id: text.chars().take(128).collect() };
    let found = match text.strip_prefix("blake3:") {
        Some(digits) => {
            let id = digits.parse().map_err(|_| missing())?;
            control.store.images().await?.into_iter().find(|image| image.id == id)
        }
        None => control.store.image(&text.parse().map_err(|_| missing())?).await?,
    };
    let image = found.ok_or_else(missing)?;
    match image.state {
        ImageState::Ready => Ok(image),
        ImageState::Retired => {
            Err(Error::Conflict { code: "image-retired", message: format!("image `{}` is retired", image.name) })
        }
    }
}

/// Begins a deployment, of a ready machine (which is allocated with it) or an allocated one.
pub(crate) async fn deploy(
    control: &Arc<Control>,
    id: MachineId,
    request: &native::DeployRequest,
    caller: &Caller,
) -> Result<Operation> {
    if let Some(operation) = caller.repeated(control, id, OperationKind::Deploy).await? {
        return Ok(operation);
    }
    let machine = control.machine(id).await?;
    let image = image(control, &request.image).await?;
    let parameters = deploy_parameters(control, &machine, &image, request).await?;
    need_environment(&control.store.boot_environments().await?, machine.architecture)?;
    if let (Some(wanted), Some(has)) = (image.architecture, machine.architecture)
        && wanted != has
    {
        let message = format!("image `{}` is for {wanted}, `{}` is {has}", image.name, machine.hostname);
        return Err(Error::Conflict { code: "architecture", message });
    }
    // Refused before an address is given away.
    deploy_step(&machine)?;
    address(control, &machine).await?;
    let operation = new_operation(Parameters::Deploy(Box::new(parameters)), &caller.actor, caller.key.clone())?;
    let context = SecretContext::OperationUserData(operation.id);
    let sealed = request.user_data.as_ref().map(|data| control.sealer.seal(&context.text(), &data.0)).transpose()?;
    control
        .change(id, |machine| {
            let step = deploy_step(machine)?;
            let mut movement = Move::new(machine, step).start(operation.clone());
            if machine.owner.is_none() {
                movement = movement.owner(Some(caller.actor.clone()));
            }
            let text = remark(
                format!("`{}` is being deployed with `{}`", machine.hostname, image.name),
                request.comment.as_deref(),
            );
            let entry = log(Severity::Info, "machine-deploying", Some(id), Some(operation.id), &caller.actor, text);
            let secret = sealed.clone().map(|sealed| Change::PutSecret { context: context.clone(), sealed });
            Ok(secret.into_iter().chain([movement.change(), entry]).collect())
        })
        .await?;
    operation_of(control, operation.id).await
}

fn deploy_step(machine: &Machine) -> Result<bootstorm_model::Step> {
    if machine.state == State::Ready {
        bootstorm_model::lifecycle::permit(machine.flags, &Event::Deploy)?;
        return Ok(machine.decide(&Event::Allocate)?.then(&Event::Deploy)?);
    }
    Ok(machine.decide(&Event::Deploy)?)
}

async fn deploy_parameters(
    control: &Control,
    machine: &Machine,
    image: &Image,
    request: &native::DeployRequest,
) -> Result<DeployParameters> {
    if request.user_data.as_ref().is_some_and(|data| data.0.len() > bootstorm_api::limits::USER_DATA_BYTES_MAX) {
        let max = u64::try_from(bootstorm_api::limits::USER_DATA_BYTES_MAX).unwrap_or(u64::MAX);
        return Err(Error::TooLarge { what: "user-data", max });
    }
    if request.ssh_authorized_keys.len() > limits::SSH_KEYS_MAX {
        return Err(Error::invalid("ssh_authorized_keys", format!("at most {} keys", limits::SSH_KEYS_MAX)));
    }
    let bad_key = |key: &&String| {
        key.len() > limits::SSH_KEY_BYTES_MAX || key.trim().is_empty() || key.contains(char::is_control)
    };
    if request.ssh_authorized_keys.iter().find(bad_key).is_some() {
        return Err(Error::invalid("ssh_authorized_keys", "a key is one line, as in a public key file"));
    }
    let start = match request.start.as_deref() {
        None | Some("auto") => plan::Start::Auto,
        Some("kexec") => plan::Start::Kexec,
        Some("reboot") => plan::Start::Reboot,
        Some(_) => return Err(Error::invalid("start", "must be `auto`, `kexec` or `reboot`")),
    };
    let ready_seconds_max = request.ready_seconds_max.unwrap_or(limits::READY_SECONDS_DEFAULT);
    if ready_seconds_max == 0 || ready_seconds_max > limits::READY_SECONDS_MAX {
        return Err(Error::invalid("ready_seconds_max", format!("must be 1 to {}", limits::READY_SECONDS_MAX)));
    }
    Ok(DeployParameters {
        image: image.id,
        image_name: image.name.to_string(),
        disk: disk(control, machine, image, request.disk.as_deref()).await?,
        grow: true,
        start,
        ssh_authorized_keys: request.ssh_authorized_keys.clone(),
        user_data: request.user_data.is_some(),
        ready_seconds_max,
    })
}

/// The disk asked for, by serial number or name; checked against the inventory where there is one, so that a disk that is too small
/// is refused before anything is switched on.
async fn disk(control: &Control, machine: &Machine, image: &Image, wanted: Option<&str>) -> Result<DiskSelector> {
    let inventory = control.store.inventory(machine.id).await?;
    let disks = inventory.as_ref().map(|inventory| inventory.disks.as_slice()).unwrap_or_default();
    let usable = || disks.iter().filter(|disk| !disk.read_only && !disk.removable);
    let conflict = |code, message| Err(Error::Conflict { code, message });
    let Some(wanted) = wanted else {
        if inventory.is_some() && usable().all(|disk| disk.bytes < image.raw_bytes) {
            let largest = usable().map(|disk| disk.bytes).max().unwrap_or(0);
            let message = format!(
                "image `{}` needs {} bytes; the largest disk of `{}` has {largest}",
                image.name, image.raw_bytes, machine.hostname
            );
            return conflict("disk-too-small", message);
        }
        return Ok(DiskSelector::Smallest);
    };
    let by_serial = usable().find(|disk| disk.serial.as_deref() == Some(wanted));
    let found = by_serial.or_else(|| usable().find(|disk| disk.name == wanted));
    match found {
        Some(disk) if disk.bytes < image.raw_bytes => {
            let message = format!(
                "image `{}` needs {} bytes; disk `{}` has {}",
                image.name, image.raw_bytes, disk.name, disk.bytes
            );
            conflict("disk-too-small", message)
        }
        Some(_) if by_serial.is_some() => Ok(DiskSelector::Serial { serial: wanted.to_string() }),
        Some(_) => Ok(DiskSelector::Name { name: wanted.to_string() }),
        None if inventory.is_some() => {
            let names: Vec<_> = usable().map(|disk| disk.name.as_str()).collect();
            let message = format!(
                "`{}` has no writable disk of that name or serial number; it has {}",
                machine.hostname,
                names.join(", ")
            );
            conflict("no-disk", message)
        }
        None => Ok(DiskSelector::Name { name: wanted.to_string() }),
    }
}

/// Gives the boot interface a fixed address, if it has none and its network is known: the one of its last lease, else the only one
/// that racks serve. Elsewhere the installed system uses DHCP.
async fn address(control: &Arc<Control>, machine: &Machine) -> Result<()> {
    let Some(interface) = machine.boot_interface() else { return Ok(()) };
    let addresses = control.store.machine_addresses(machine.id).await?;
    let mine = || addresses.iter().filter(|address| address.mac == Some(interface.mac));
    if mine().any(|address| address.kind.is_reservation()) {
        return Ok(());
    }
    let leased = mine().filter(|address| address.kind == AddressKind::Dhcp).max_by_key(|address| address.updated);
    let subnet = match leased {
        Some(address) => Some(address.subnet),
        None => only_subnet(control).await?,
    };
    if let Some(subnet) = subnet {
        control.store.allocate_address(subnet, interface.mac, Some(machine.id), now()).await?;
        control.touch();
    }
    Ok(())
}

async fn only_subnet(control: &Control) -> Result<Option<SubnetId>> {
    let vlans = control.store.vlans().await?;
    let subnets = control.store.subnets().await?;
    let mut served = subnets.iter().filter(|subnet| vlans.iter().any(|vlan| vlan.id == subnet.vlan && vlan.dhcp_on));
    Ok(served.next().map(|subnet| subnet.id).filter(|_| served.next().is_none()))
}

/// Takes back the addresses that were chosen for a machine's last owner.
pub(crate) async fn give_back_addresses(control: &Arc<Control>, id: MachineId) -> Result<()> {
    for address in control.store.machine_addresses(id).await? {
        if address.kind == AddressKind::Auto {
            control.store.release_address(address.subnet, address.ip).await?;
        }
    }
    control.touch();
    Ok(())
}

/// Begins a release.
pub(crate) async fn release(
    control: &Arc<Control>,
    id: MachineId,
    request: &native::ReleaseRequest,
    caller: &Caller,
) -> Result<Operation> {
    if let Some(operation) = caller.repeated(control, id, OperationKind::Release).await? {
        return Ok(operation);
    }
    let erase = match request.erase.as_deref() {
        None | Some("none") => None,
        Some("quick") => Some(Erase::Quick),
        Some(_) => return Err(Error::invalid("erase", "must be `none` or `quick`")),
    };
    let operation = new_operation(Parameters::Release { erase }, &caller.actor, caller.key.clone())?;
    let environments = control.store.boot_environments().await?;
    control
        .change(id, |machine| {
            if erase.is_some() {
                need_environment(&environments, machine.architecture)?;
            }
            let step = machine.decide(&Event::Release { erase })?;
            let text = remark(format!("`{}` is being released", machine.hostname), request.comment.as_deref());
            let entry = log(Severity::Info, "machine-releasing", Some(id), Some(operation.id), &caller.actor, text);
            Ok(vec![Move::new(machine, step).cancel(machine).start(operation.clone()).change(), entry])
        })
        .await?;
    operation_of(control, operation.id).await
}

/// Stops an operation.
pub(crate) async fn cancel(control: &Arc<Control>, id: OperationId, caller: &Caller) -> Result<Operation> {
    let operation = operation_of(control, id).await?;
    if operation.state != OperationState::Running {
        let message = format!("the operation is over: {}", operation.state.word());
        return Err(Error::Conflict { code: "operation-over", message });
    }
    match operation.machine {
        Some(machine) => {
            let current = control.machine(machine).await?;
            if current.operation != Some(id) {
                let message = "the operation is not what its machine is doing any more".to_string();
                return Err(Error::Conflict { code: "operation-over", message });
            }
            request(control, machine, Event::Abort, None, caller).await?;
        }
        None => {
            control.imports.stop(id);
            let text = "the import was stopped".to_string();
            let entry = log(Severity::Info, "image-import-cancelled", None, Some(id), &caller.actor, text);
            control.commit(vec![Change::FinishOperation { operation: id, outcome: Outcome::Cancelled }, entry]).await?;
        }
    }
    operation_of(control, id).await
}

/// Switches a machine for a person, outside any operation.
pub(crate) async fn power(
    control: &Arc<Control>,
    id: MachineId,
    action: Action,
    caller: &Caller,
) -> Result<PowerState> {
    let machine = control.machine(id).await?;
    if machine.flags.locked && action != Action::Query {
        return Err(locked(&machine));
    }
    if machine.power.driver == "manual" {
        if action == Action::Query {
            return Ok(PowerState::Unknown);
        }
        let message =
            format!("the power driver of `{}` is `manual`: switch it by hand, or set another driver", machine.hostname);
        return Err(Error::Conflict { code: "power-manual", message });
    }
    let state = effects::command(control, &machine, action).await?;
    if action != Action::Query {
        let text = format!("`{}` was switched: {action:?}", machine.hostname).to_lowercase();
        control.commit(vec![log(Severity::Info, "machine-power", Some(id), None, &caller.actor, text)]).await?;
    }
    Ok(state)
}
