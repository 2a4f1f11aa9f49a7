//! From the model to what the API shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bootstorm_api::{bmc, native};
use bootstorm_model::operation::{stage_word, suggested_fix};
use bootstorm_model::{
    Image, LogEntry, Machine, Operation, OperationState, Parameters, PowerState, RangeKind, Status, ipam,
};
use bootstorm_snapshot::MachineId;
use bootstorm_store::{LogFilter, OperationFilter, Order, Page};

use crate::control::Control;
use crate::error::Result;

/// Events shown in an explanation.
const EVENTS: u32 = 20;

/// A machine; with its inventory when one machine is asked for.
pub(crate) async fn machine(control: &Control, machine: &Machine, with_inventory: bool) -> Result<native::Machine> {
    let addresses = control.store.machine_addresses(machine.id).await?;
    let inventory = if with_inventory { control.store.inventory(machine.id).await? } else { None };
    let image = match machine.operation {
        Some(operation) => control.store.operation(operation).await?.and_then(|operation| match operation.parameters {
            Parameters::Deploy(deploy) => Some(deploy.image_name),
            _ => None,
        }),
        None => None,
    };
    let boot = machine.boot_interface().map(|interface| interface.mac);
    let interfaces = machine.interfaces.iter().map(|interface| native::MachineInterface {
        id: interface.id.0,
        name: interface.name.clone(),
        mac: interface.mac.to_string(),
        addresses: addresses.iter().filter(|a| a.mac == Some(interface.mac)).map(|a| a.ip.to_string()).collect(),
        boot: boot == Some(interface.mac),
    });
    Ok(native::Machine {
        id: machine.id.to_string(),
        name: machine.hostname.to_string(),
        state: machine.state.status().name().to_string(),
        architecture: machine.architecture.map(|architecture| architecture.to_string()),
        owner: machine.owner.clone(),
        pool: machine.pool.to_string(),
        locked: machine.flags.locked,
        held: machine.flags.held.then(|| machine.hold_reason.clone().unwrap_or_else(|| "held".to_string())),
        power_driver: machine.power.driver.clone(),
        power_state: match machine.power.state {
            PowerState::On => "on",
            PowerState::Off => "off",
            PowerState::Unknown | PowerState::Error => "unknown",
        }
        .to_string(),
        interfaces: interfaces.collect(),
        inventory,
        image: image.or_else(|| machine.installed.as_ref().map(|installed| installed.image_name.clone())),
        operation: machine.operation.map(|operation| operation.to_string()),
        created_unix_ms: machine.created.0 / 1000,
        updated_unix_ms: machine.updated.0 / 1000,
    })
}

/// An operation.
pub(crate) fn operation(operation: &Operation, machine_name: Option<String>) -> native::Operation {
    let failure = operation.failure.as_ref().map(|failure| native::Failure {
        stage: stage_word(failure.stage).to_string(),
        code: failure.code.clone(),
        evidence: failure.evidence.clone(),
        suggestion: suggested_fix(&failure.code)
            .unwrap_or("see the evidence, and `bootstorm machine explain`")
            .to_string(),
    });
    let result = match (&operation.parameters, operation.state) {
        (Parameters::ImageImport { name }, OperationState::Done) => Some(name.clone()),
        _ => None,
    };
    native::Operation {
        id: operation.id.to_string(),
        kind: operation.parameters.kind().word().replace('_', "-"),
        machine: operation.machine.map(|machine| machine.to_string()),
        machine_name,
        status: operation.state.word().to_string(),
        stage: stage_word(operation.stage).to_string(),
        bytes: operation.progress.map(|progress| progress.bytes),
        bytes_total: operation.progress.map(|progress| progress.bytes_total),
        deadline_unix_ms: operation.deadline.map(|deadline| deadline.0 / 1000),
        failure,
        warnings: operation.warnings.clone(),
        result,
        created_unix_ms: operation.created.0 / 1000,
        ended_unix_ms: operation.finished.map(|finished| finished.0 / 1000),
    }
}

/// An operation with its machine's name.
pub(crate) async fn named(control: &Control, found: &Operation) -> Result<native::Operation> {
    Ok(operation(found, name_of(control, found.machine).await?))
}

/// Operations with their machines' names, each looked up once.
pub(crate) async fn all_named(control: &Control, operations: &[Operation]) -> Result<Vec<native::Operation>> {
    let mut names: HashMap<MachineId, Option<String>> = HashMap::new();
    let mut shown = Vec::with_capacity(operations.len());
    for found in operations {
        let name = match found.machine {
            Some(id) => match names.get(&id) {
                Some(name) => name.clone(),
                None => {
                    let name = name_of(control, Some(id)).await?;
                    names.insert(id, name.clone());
                    name
                }
            },
            None => None,
        };
        shown.push(operation(found, name));
    }
    Ok(shown)
}

async fn name_of(control: &Control, machine: Option<MachineId>) -> Result<Option<String>> {
    let Some(id) = machine else { return Ok(None) };
    Ok(control.store.machine(id).await?.map(|machine| machine.hostname.to_string()))
}

/// An entry of the log.
pub(crate) fn event(entry: &LogEntry) -> native::Event {
    native::Event {
        id: entry.id.0,
        unix_ms: entry.entry.at.0 / 1000,
        level: entry.entry.severity.word().to_string(),
        code: entry.entry.code.clone(),
        machine: entry.entry.machine.map(|machine| machine.to_string()),
        operation: entry.entry.operation.map(|operation| operation.to_string()),
        message: entry.entry.text.clone(),
    }
}

/// An image.
pub(crate) fn image(image: &Image) -> native::Image {
    native::Image {
        id: format!("blake3:{}", image.id),
        name: image.name.to_string(),
        architecture: image.architecture.map_or_else(|| "any".to_string(), |architecture| architecture.to_string()),
        raw_bytes: image.raw_bytes,
        stored_bytes: image.stored_bytes,
        manifest: image.manifest.to_string(),
        created_unix_ms: image.created.0 / 1000,
    }
}

/// A boot environment.
pub(crate) fn boot_environment(found: &bootstorm_model::BootEnvironment) -> native::BootEnvironment {
    let environment = &found.environment;
    // The kernel's own name is its release, where its builder gave one.
    native::BootEnvironment {
        architecture: environment.architecture.to_string(),
        version: environment.version.clone(),
        kernel: environment.kernel.name.clone(),
        initrd_bytes: environment.initrd.raw_bytes,
        loaders: environment.loaders.iter().map(|loader| loader.name.clone()).collect(),
    }
}

/// The racks, connected or not.
pub(crate) async fn racks(control: &Control) -> Result<Vec<native::Rack>> {
    let shown = control.store.racks().await?.into_iter().map(|rack| {
        let live = control.racks.one(rack.id);
        native::Rack {
            id: rack.id.to_string(),
            name: rack.name.to_string(),
            connected: live.is_some(),
            generation: live.as_ref().map_or(rack.generation, |live| live.generation).0,
            missing_files: live.as_ref().map_or(0, |live| u64::try_from(live.missing.len()).unwrap_or(u64::MAX)),
            interfaces: live
                .iter()
                .flat_map(|live| &live.interfaces)
                .map(|i| format!("{} {}/{}", i.name, i.address, i.prefix_bits))
                .collect(),
            version: live.map(|live| live.version).unwrap_or_default(),
        }
    });
    Ok(shown.collect())
}

/// The whole system.
pub(crate) async fn status(control: &Arc<Control>) -> Result<native::Status> {
    let counts = control.store.machine_counts().await?;
    let machines: BTreeMap<String, u64> = counts
        .into_iter()
        .filter_map(|(code, count)| Some((Status::from_code(code)?.name().to_string(), count)))
        .collect();
    let racks = racks(control).await?;
    let environments = control.store.boot_environments().await?;
    let images = control.store.images().await?;
    let running = OperationFilter { machine: None, state: Some(OperationState::Running) };
    let operations = control.store.operations(&running, &Page::first(bootstorm_store::limits::PAGE_ITEMS_MAX)).await?;
    let mut notices = Vec::new();
    if environments.is_empty() {
        notices.push(
            "there is no boot environment yet: `bootstorm bootenv build`, then `bootstorm bootenv import FILE`"
                .to_string(),
        );
    }
    if !racks.iter().any(|rack| rack.connected) {
        notices.push("no rack is connected: nothing answers machines that boot".to_string());
    } else if racks.iter().filter(|rack| rack.connected).all(|rack| rack.interfaces.is_empty()) {
        notices.push("no rack serves an interface: start with `--interface NAME`".to_string());
    }
    if images.is_empty() {
        notices.push("there is no image yet: `bootstorm image import FILE`".to_string());
    }
    Ok(native::Status {
        version: env!("CARGO_PKG_VERSION").to_string(),
        generation: control.publisher.generation().0,
        machines,
        operations: u64::try_from(operations.len()).unwrap_or(u64::MAX),
        racks,
        boot_environments: environments.iter().map(boot_environment).collect(),
        images: u64::try_from(images.len()).unwrap_or(u64::MAX),
        notices,
    })
}

/// What a machine is doing, or why it does not.
pub(crate) async fn explanation(control: &Control, found: &Machine) -> Result<native::Explanation> {
    let filter = OperationFilter { machine: Some(found.id), state: None };
    let last = control.store.operations(&filter, &Page::first(1)).await?.into_iter().next();
    let trace = match &last {
        Some(operation) => {
            let spans = control.store.spans(operation.id).await?;
            let shown = spans.iter().map(|span| native::Span {
                attempt: Some(span.attempt.to_string()),
                stage: span.stage,
                reached_unix_us: span.at.0,
                since_start_ms: (span.at.0 - operation.created.0) / 1000,
                detail: span.detail.clone(),
            });
            shown.collect()
        }
        None => Vec::new(),
    };
    let log = LogFilter { machine: Some(found.id), operation: None };
    let events = control.store.log(&log, Order::NewestFirst, &Page::first(EVENTS)).await?;
    let operation = match &last {
        Some(operation) => Some(named(control, operation).await?),
        None => None,
    };
    Ok(native::Explanation {
        summary: summary(found, last.as_ref(), operation.as_ref()),
        machine: machine(control, found, true).await?,
        operation,
        trace,
        events: events.iter().map(event).collect(),
    })
}

fn summary(machine: &Machine, last: Option<&Operation>, shown: Option<&native::Operation>) -> String {
    let name = &machine.hostname;
    let state = machine.state.status().name();
    if machine.flags.held {
        let why = machine.hold_reason.as_deref().unwrap_or("no reason given");
        return format!("{name} is held ({why}): look at it, then lift the hold; its state is {state}.");
    }
    match (last, shown.and_then(|operation| operation.failure.as_ref())) {
        (Some(operation), _) if machine.operation == Some(operation.id) => {
            let kind = operation.parameters.kind().word();
            let progress = match operation.progress {
                Some(progress) if progress.bytes_total > 0 => {
                    format!(" ({} %)", progress.bytes.saturating_mul(100) / progress.bytes_total)
                }
                _ => String::new(),
            };
            format!("{name} is {state}: `{kind}` has reached `{}`{progress}.", stage_word(operation.stage))
        }
        (Some(_), Some(failure)) => {
            format!(
                "{name} is {state}: it failed after `{}` with `{}`: {} Try: {}.",
                failure.stage, failure.code, failure.evidence, failure.suggestion
            )
        }
        _ => format!("{name} is {state}; nothing is under way."),
    }
}

/// All subnets, with how full they are.
pub(crate) async fn subnets(control: &Control) -> Result<Vec<native::Subnet>> {
    let source = control.store.snapshot_source().await?;
    let mut shown = Vec::new();
    for subnet in &source.subnets {
        let ranges = source.ranges.iter().filter(|range| range.subnet == subnet.id);
        let dynamic: u64 =
            ranges.clone().filter(|range| range.kind == RangeKind::Dynamic).map(|range| range.range.count()).sum();
        let pool =
            ipam::Pool::new(subnet, ranges.map(|range| range.range), []).map_err(bootstorm_store::Error::from)?;
        let mut page = Page::first(bootstorm_store::limits::PAGE_ITEMS_MAX);
        let mut used = 0;
        loop {
            let addresses = control.store.addresses(subnet.id, &page).await?;
            used += u64::try_from(addresses.len()).unwrap_or(0);
            match addresses.last() {
                Some(last) if addresses.len() >= bootstorm_store::limits::PAGE_ITEMS_MAX as usize => {
                    page.after = Some(last.ip)
                }
                _ => break,
            }
        }
        shown.push(native::Subnet {
            id: subnet.id.0,
            vlan: subnet.vlan.0,
            cidr: subnet.cidr.to_string(),
            gateway: subnet.gateway,
            dns_servers: subnet.dns_servers.clone(),
            used,
            capacity: pool.free_count() + dynamic,
        });
    }
    Ok(shown)
}

/// A power state of the bmc role, for the API.
pub(crate) fn power(state: bmc::PowerState) -> native::PowerAnswer {
    native::PowerAnswer { state }
}
