//! The handlers: conversion, one call, conversion. What they mean is in `machines`, `networks`, `images` and `show`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bootstorm_api::native::{
    AllocateRequest, ApplyAnswer, ApplyRequest, BootEnvironment, Comment, CommissionRequest, DeployRequest, Event,
    EventQuery, Explanation, Fabric, Image, ImageQuery, Machine, MachineCreate, MachineQuery, MachineUpdate, Operation,
    OperationQuery, Page, PowerAnswer, PowerRequest, Problem, Rack, Range, ReleaseRequest, Status, Subnet, Vlan,
};
use bootstorm_model::{Hostname, Name, lifecycle};
use bootstorm_snapshot::{EventId, OperationId};
use bootstorm_store::{LogFilter, MachineFilter, OperationFilter, Order, Page as Rows};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Query, rows};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::machines::Caller;
use crate::{environments, images, limits, machines, networks, show};

type Shared = State<Arc<Control>>;
type Answer<T> = Result<JsonAnswer<T>>;

/// What stands in the document beside the paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "Bootstorm", description = "The native API of Bootstorm's control plane.", license(name = "Apache-2.0")),
    modifiers(&Token),
    security(("token" = []))
)]
struct Document;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The routes and their document.
pub(crate) fn routes() -> (axum::Router<Arc<Control>>, utoipa::openapi::OpenApi) {
    let native = OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(list_machines, create_machine))
        .routes(routes!(allocate))
        .routes(routes!(show_machine, update_machine, delete_machine))
        .routes(routes!(commission))
        .routes(routes!(deploy))
        .routes(routes!(release))
        .routes(routes!(abort))
        .routes(routes!(lock))
        .routes(routes!(unlock))
        .routes(routes!(mark_broken))
        .routes(routes!(mark_fixed))
        .routes(routes!(power))
        .routes(routes!(explain))
        .routes(routes!(list_operations))
        .routes(routes!(show_operation))
        .routes(routes!(cancel_operation))
        .routes(routes!(list_events))
        .routes(routes!(list_images, import_image))
        .routes(routes!(show_image, delete_image))
        .routes(routes!(list_boot_environments, import_boot_environment))
        .routes(routes!(list_fabrics))
        .routes(routes!(list_vlans))
        .routes(routes!(list_subnets))
        .routes(routes!(list_ranges))
        .routes(routes!(apply))
        .routes(routes!(list_racks));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", native).split_for_parts();
    let router = router
        .route("/healthz", axum::routing::get(healthz))
        .route("/metrics", axum::routing::get(metrics_text))
        .route("/openapi.json", axum::routing::get(openapi));
    (router, document)
}

async fn healthz(State(control): Shared) -> Result<&'static str> {
    control.store.generation().await?;
    Ok("ok\n")
}

async fn metrics_text() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, crate::metrics_handle().render()).into_response()
}

async fn openapi() -> Response {
    let (_, document) = routes();
    JsonAnswer(document).into_response()
}

#[utoipa::path(get, path = "/status", tag = "site", responses((status = 200, body = Status), (status = "default", body = Problem)))]
/// What the whole system is doing
async fn status(State(control): Shared) -> Answer<Status> {
    Ok(JsonAnswer(show::status(&control).await?))
}

#[utoipa::path(get, path = "/machines", tag = "machines", params(MachineQuery),
    responses((status = 200, body = Page<Machine>), (status = "default", body = Problem)))]
/// Machines by name
async fn list_machines(State(control): Shared, Query(query): Query<MachineQuery>) -> Answer<Page<Machine>> {
    let limit = rows(query.limit)?;
    let mut filter = MachineFilter::default();
    if let Some(state) = &query.state {
        let found = lifecycle::Status::ALL
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(state) || status.word() == state);
        filter.statuses.push(found.ok_or_else(|| Error::invalid("state", "no such state"))?);
    }
    if let Some(name) = query.name {
        match name.parse::<Hostname>() {
            Ok(hostname) => filter.hostnames.push(hostname),
            Err(_) if name.len() <= 256 => filter.hostname_glob = Some(name.to_ascii_lowercase()),
            Err(error) => return Err(Error::invalid("name", error)),
        }
    }
    let after = query.cursor.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("cursor", error))?;
    let machines = control.store.machines(&filter, &Rows { after, limit }).await?;
    let next = full(&machines, limit).map(|last| last.hostname.to_string());
    let mut items = Vec::with_capacity(machines.len());
    for machine in &machines {
        items.push(show::machine(&control, machine, false).await?);
    }
    Ok(JsonAnswer(Page { items, next }))
}

/// The last row of a full page: where the next one begins.
fn full<T>(rows: &[T], limit: u32) -> Option<&T> {
    rows.last().filter(|_| u32::try_from(rows.len()).is_ok_and(|count| count >= limit))
}

fn whole<T>(items: Vec<T>) -> JsonAnswer<Page<T>> {
    JsonAnswer(Page { items, next: None })
}

#[utoipa::path(post, path = "/machines", tag = "machines", request_body = MachineCreate,
    responses((status = 201, body = Machine), (status = "default", body = Problem)))]
/// Add a machine
async fn create_machine(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Json(request): Json<MachineCreate>,
) -> Result<(StatusCode, JsonAnswer<Machine>)> {
    let machine = machines::create(&control, &request, &caller).await?;
    Ok((StatusCode::CREATED, JsonAnswer(show::machine(&control, &machine, true).await?)))
}

#[utoipa::path(get, path = "/machines/{machine}", tag = "machines", params(("machine" = String, Path, description = "Id or host name")),
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// One machine, with its inventory
async fn show_machine(State(control): Shared, Path(machine): Path<String>) -> Answer<Machine> {
    let machine = machines::find(&control, &machine).await?;
    Ok(JsonAnswer(show::machine(&control, &machine, true).await?))
}

#[utoipa::path(patch, path = "/machines/{machine}", tag = "machines", params(("machine" = String, Path)), request_body = MachineUpdate,
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Change a machine
async fn update_machine(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(request): Json<MachineUpdate>,
) -> Answer<Machine> {
    let machine = machines::find(&control, &machine).await?;
    let machine = machines::update(&control, machine.id, &request, &caller).await?;
    Ok(JsonAnswer(show::machine(&control, &machine, true).await?))
}

#[utoipa::path(delete, path = "/machines/{machine}", tag = "machines", params(("machine" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
/// Forget a machine
async fn delete_machine(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
) -> Result<StatusCode> {
    let machine = machines::find(&control, &machine).await?;
    machines::delete(&control, machine.id, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn accepted(
    control: &Control,
    operation: &bootstorm_model::Operation,
) -> Result<(StatusCode, JsonAnswer<Operation>)> {
    Ok((StatusCode::ACCEPTED, JsonAnswer(show::named(control, operation).await?)))
}

#[utoipa::path(post, path = "/machines/{machine}/commission", tag = "machines", params(("machine" = String, Path)),
    request_body = CommissionRequest, responses((status = 202, body = Operation), (status = "default", body = Problem)))]
/// Take a machine's inventory
async fn commission(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(request): Json<CommissionRequest>,
) -> Result<(StatusCode, JsonAnswer<Operation>)> {
    let machine = machines::find(&control, &machine).await?;
    let operation = machines::commission(&control, machine.id, request.comment.as_deref(), &caller).await?;
    accepted(&control, &operation).await
}

#[utoipa::path(post, path = "/machines/allocate", tag = "machines", request_body = AllocateRequest,
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Be given a ready machine
async fn allocate(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Json(request): Json<AllocateRequest>,
) -> Answer<Machine> {
    let machine = machines::allocate(&control, &request, &caller).await?;
    Ok(JsonAnswer(show::machine(&control, &machine, true).await?))
}

#[utoipa::path(post, path = "/machines/{machine}/deploy", tag = "machines", params(("machine" = String, Path)),
    request_body = DeployRequest, responses((status = 202, body = Operation), (status = "default", body = Problem)))]
/// Install an image
async fn deploy(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(request): Json<DeployRequest>,
) -> Result<(StatusCode, JsonAnswer<Operation>)> {
    let machine = machines::find(&control, &machine).await?;
    let operation = machines::deploy(&control, machine.id, &request, &caller).await?;
    accepted(&control, &operation).await
}

#[utoipa::path(post, path = "/machines/{machine}/release", tag = "machines", params(("machine" = String, Path)),
    request_body = ReleaseRequest, responses((status = 202, body = Operation), (status = "default", body = Problem)))]
/// Give a machine back
async fn release(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(request): Json<ReleaseRequest>,
) -> Result<(StatusCode, JsonAnswer<Operation>)> {
    let machine = machines::find(&control, &machine).await?;
    let operation = machines::release(&control, machine.id, &request, &caller).await?;
    accepted(&control, &operation).await
}

async fn requested(
    control: &Arc<Control>,
    machine: &str,
    event: lifecycle::Event,
    comment: &Comment,
    caller: &Caller,
) -> Answer<Machine> {
    let machine = machines::find(control, machine).await?;
    let machine = machines::request(control, machine.id, event, comment.comment.as_deref(), caller).await?;
    Ok(JsonAnswer(show::machine(control, &machine, true).await?))
}

#[utoipa::path(post, path = "/machines/{machine}/abort", tag = "machines", params(("machine" = String, Path)), request_body = Comment,
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Stop what is under way
async fn abort(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(comment): Json<Comment>,
) -> Answer<Machine> {
    requested(&control, &machine, lifecycle::Event::Abort, &comment, &caller).await
}

#[utoipa::path(post, path = "/machines/{machine}/mark-broken", tag = "machines", params(("machine" = String, Path)),
    request_body = Comment, responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Say that a machine does not work
async fn mark_broken(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(comment): Json<Comment>,
) -> Answer<Machine> {
    requested(&control, &machine, lifecycle::Event::MarkBroken, &comment, &caller).await
}

#[utoipa::path(post, path = "/machines/{machine}/mark-fixed", tag = "machines", params(("machine" = String, Path)),
    request_body = Comment, responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Say that a machine works again
async fn mark_fixed(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(comment): Json<Comment>,
) -> Answer<Machine> {
    requested(&control, &machine, lifecycle::Event::MarkFixed, &comment, &caller).await
}

async fn set_lock(control: &Arc<Control>, machine: &str, lock: bool, caller: &Caller) -> Answer<Machine> {
    let machine = machines::find(control, machine).await?;
    let machine = machines::lock(control, machine.id, lock, caller).await?;
    Ok(JsonAnswer(show::machine(control, &machine, true).await?))
}

#[utoipa::path(post, path = "/machines/{machine}/lock", tag = "machines", params(("machine" = String, Path)), request_body = Comment,
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Refuse every action until the machine is unlocked
async fn lock(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(Comment { .. }): Json<Comment>,
) -> Answer<Machine> {
    set_lock(&control, &machine, true, &caller).await
}

#[utoipa::path(post, path = "/machines/{machine}/unlock", tag = "machines", params(("machine" = String, Path)), request_body = Comment,
    responses((status = 200, body = Machine), (status = "default", body = Problem)))]
/// Allow actions again
async fn unlock(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(Comment { .. }): Json<Comment>,
) -> Answer<Machine> {
    set_lock(&control, &machine, false, &caller).await
}

#[utoipa::path(post, path = "/machines/{machine}/power", tag = "machines", params(("machine" = String, Path)),
    request_body = PowerRequest, responses((status = 200, body = PowerAnswer), (status = "default", body = Problem)))]
/// Switch a machine, or ask whether it is on
async fn power(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(machine): Path<String>,
    Json(request): Json<PowerRequest>,
) -> Answer<PowerAnswer> {
    let machine = machines::find(&control, &machine).await?;
    let state = machines::power(&control, machine.id, request.action, &caller).await?;
    Ok(JsonAnswer(show::power(state)))
}

#[utoipa::path(get, path = "/machines/{machine}/explain", tag = "machines", params(("machine" = String, Path)),
    responses((status = 200, body = Explanation), (status = "default", body = Problem)))]
/// What a machine is doing, or why it does not
async fn explain(State(control): Shared, Path(machine): Path<String>) -> Answer<Explanation> {
    let machine = machines::find(&control, &machine).await?;
    Ok(JsonAnswer(show::explanation(&control, &machine).await?))
}

#[utoipa::path(get, path = "/operations", tag = "operations", params(OperationQuery),
    responses((status = 200, body = Page<Operation>), (status = "default", body = Problem)))]
/// Operations, the newest first
async fn list_operations(State(control): Shared, Query(query): Query<OperationQuery>) -> Answer<Page<Operation>> {
    let limit = rows(query.limit)?;
    let machine = match &query.machine {
        Some(machine) => Some(machines::find(&control, machine).await?.id),
        None => None,
    };
    let after = query.cursor.as_deref().map(str::parse).transpose().map_err(|error| Error::invalid("cursor", error))?;
    let filter = OperationFilter { machine, state: None };
    let operations = control.store.operations(&filter, &Rows { after, limit }).await?;
    let next = full(&operations, limit).map(|last| last.id.to_string());
    Ok(JsonAnswer(Page { items: show::all_named(&control, &operations).await?, next }))
}

fn operation_id(text: &str) -> Result<OperationId> {
    text.parse().map_err(|_| Error::NotFound { what: "operation", id: text.chars().take(64).collect() })
}

#[utoipa::path(get, path = "/operations/{operation}", tag = "operations", params(("operation" = String, Path)),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
/// One operation
async fn show_operation(State(control): Shared, Path(operation): Path<String>) -> Answer<Operation> {
    let operation = machines::operation_of(&control, operation_id(&operation)?).await?;
    Ok(JsonAnswer(show::named(&control, &operation).await?))
}

#[utoipa::path(post, path = "/operations/{operation}/cancel", tag = "operations", params(("operation" = String, Path)),
    request_body = Comment, responses((status = 200, body = Operation), (status = "default", body = Problem)))]
/// Stop an operation
async fn cancel_operation(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(operation): Path<String>,
    Json(Comment { .. }): Json<Comment>,
) -> Answer<Operation> {
    let operation = machines::cancel(&control, operation_id(&operation)?, &caller).await?;
    Ok(JsonAnswer(show::named(&control, &operation).await?))
}

#[utoipa::path(get, path = "/events", tag = "events", params(EventQuery),
    responses((status = 200, body = Page<Event>), (status = "default", body = Problem)))]
/// What happened, the oldest first; with `wait_seconds` the answer waits for the next event
async fn list_events(State(control): Shared, Query(query): Query<EventQuery>) -> Answer<Page<Event>> {
    let limit = rows(query.limit)?;
    let wait = query.wait_seconds.unwrap_or(0);
    if wait > limits::EVENT_WAIT_SECONDS_MAX {
        return Err(Error::invalid("wait_seconds", format!("at most {}", limits::EVENT_WAIT_SECONDS_MAX)));
    }
    let machine = match &query.machine {
        Some(machine) => Some(machines::find(&control, machine).await?.id),
        None => None,
    };
    let filter = LogFilter { machine, operation: None };
    let page = Rows { after: query.after.map(EventId), limit };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    let mut changed = control.subscribe();
    let entries = loop {
        changed.borrow_and_update();
        let entries = control.store.log(&filter, Order::OldestFirst, &page).await?;
        if !entries.is_empty() || tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            break entries;
        }
    };
    // A follower needs the place to go on from even on the last page.
    let next = entries.last().map(|entry| entry.id.to_string());
    Ok(JsonAnswer(Page { items: entries.iter().map(show::event).collect(), next }))
}

#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = Page<Image>), (status = "default", body = Problem)))]
/// Images by name
async fn list_images(State(control): Shared) -> Answer<Page<Image>> {
    Ok(whole(control.store.images().await?.iter().map(show::image).collect()))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[utoipa::path(post, path = "/images", tag = "images", params(ImageQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "raw or qcow2; raw also inside gzip, xz or zstd"),
    responses((status = 202, body = Operation), (status = "default", body = Problem)))]
/// Import an image
async fn import_image(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ImageQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, JsonAnswer<Operation>)> {
    let name: Name = query.name.parse().map_err(|error| Error::invalid("name", error))?;
    let architecture = query.architecture.as_deref().unwrap_or("amd64");
    let architecture = architecture.parse().map_err(|error| Error::invalid("architecture", error))?;
    let wanted = images::Wanted { name, architecture, bytes_total: length(&headers) };
    let operation = images::import(&control, wanted, body, &caller).await?;
    accepted(&control, &operation).await
}

#[utoipa::path(get, path = "/images/{image}", tag = "images", params(("image" = String, Path)),
    responses((status = 200, body = Image), (status = "default", body = Problem)))]
/// One image
async fn show_image(State(control): Shared, Path(image): Path<String>) -> Answer<Image> {
    Ok(JsonAnswer(show::image(&machines::image(&control, &image).await?)))
}

#[utoipa::path(delete, path = "/images/{image}", tag = "images", params(("image" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
/// Forget an image; what runs is not touched
async fn delete_image(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Path(image): Path<String>,
) -> Result<StatusCode> {
    let name = image.parse().map_err(|_| Error::NotFound { what: "image", id: image.chars().take(128).collect() })?;
    images::delete(&control, &name, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/boot-environments", tag = "images",
    responses((status = 200, body = Page<BootEnvironment>), (status = "default", body = Problem)))]
/// Boot environments by architecture
async fn list_boot_environments(State(control): Shared) -> Answer<Page<BootEnvironment>> {
    Ok(whole(control.store.boot_environments().await?.iter().map(show::boot_environment).collect()))
}

#[utoipa::path(post, path = "/boot-environments", tag = "images",
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "made by `bootstorm bootenv build`"),
    responses((status = 201, body = BootEnvironment), (status = "default", body = Problem)))]
/// Import a boot environment
async fn import_boot_environment(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, JsonAnswer<BootEnvironment>)> {
    let environment = environments::import(&control, length(&headers), body, &caller).await?;
    Ok((StatusCode::CREATED, JsonAnswer(show::boot_environment(&environment))))
}

#[utoipa::path(get, path = "/fabrics", tag = "networks", responses((status = 200, body = Page<Fabric>), (status = "default", body = Problem)))]
/// Fabrics
async fn list_fabrics(State(control): Shared) -> Answer<Page<Fabric>> {
    let fabrics = control.store.fabrics().await?;
    Ok(whole(fabrics.into_iter().map(|fabric| Fabric { id: fabric.id.0, name: fabric.name.to_string() }).collect()))
}

#[utoipa::path(get, path = "/vlans", tag = "networks", responses((status = 200, body = Page<Vlan>), (status = "default", body = Problem)))]
/// VLANs
async fn list_vlans(State(control): Shared) -> Answer<Page<Vlan>> {
    let fabrics = control.store.fabrics().await?;
    let shown = control.store.vlans().await?.into_iter().map(|vlan| {
        let fabric = fabrics.iter().find(|fabric| fabric.id == vlan.fabric).map(|fabric| fabric.name.to_string());
        Vlan {
            id: vlan.id.0,
            fabric: fabric.unwrap_or_default(),
            vid: vlan.vid,
            name: vlan.name.to_string(),
            mtu: vlan.mtu,
            dhcp: vlan.dhcp_on,
        }
    });
    Ok(whole(shown.collect()))
}

#[utoipa::path(get, path = "/subnets", tag = "networks", responses((status = 200, body = Page<Subnet>), (status = "default", body = Problem)))]
/// Subnets, with how full they are
async fn list_subnets(State(control): Shared) -> Answer<Page<Subnet>> {
    Ok(whole(show::subnets(&control).await?))
}

#[utoipa::path(get, path = "/ranges", tag = "networks", responses((status = 200, body = Page<Range>), (status = "default", body = Problem)))]
/// Ranges of addresses
async fn list_ranges(State(control): Shared) -> Answer<Page<Range>> {
    let subnets = control.store.subnets().await?;
    let shown = control.store.ranges(None).await?.into_iter().map(|range| {
        let subnet = subnets.iter().find(|subnet| subnet.id == range.subnet).map(|subnet| subnet.cidr.to_string());
        Range {
            id: range.id.0,
            subnet: subnet.unwrap_or_default(),
            kind: range.kind.word().to_string(),
            first: range.range.first,
            last: range.range.last,
        }
    });
    Ok(whole(shown.collect()))
}

#[utoipa::path(post, path = "/apply", tag = "networks", request_body = ApplyRequest,
    responses((status = 200, body = ApplyAnswer), (status = "default", body = Problem)))]
/// Make the site as these documents say
async fn apply(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    Json(request): Json<ApplyRequest>,
) -> Answer<ApplyAnswer> {
    Ok(JsonAnswer(networks::apply(&control, &request, &caller).await?))
}

#[utoipa::path(get, path = "/racks", tag = "site", responses((status = 200, body = Page<Rack>), (status = "default", body = Problem)))]
/// Racks
async fn list_racks(State(control): Shared) -> Answer<Page<Rack>> {
    Ok(whole(show::racks(&control).await?))
}
