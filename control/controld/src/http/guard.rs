//! What happens to every request: an id and a log line, authentication, and repeated mutations answered once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bootstorm_model::Timestamp;
use bootstorm_store::{Token, TokenScope};
use tokio::time::Instant;

use crate::control::{Control, now};
use crate::error::{Error, Result};
use crate::http::extract;
use crate::limits;
use crate::machines::Caller;

/// What the guards share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub control: Arc<Control>,
    pub remembered: Arc<Remembered>,
}

/// Paths that anybody may read.
const OPEN: &[&str] = &["/healthz", "/metrics", "/openapi.json"];
/// Paths whose bodies are streamed, so that they cannot be compared.
const UPLOADS: &[&str] = &["/api/v1/images", "/api/v1/boot-environments"];

/// Gives each request an id, measures it and writes its log line. Tokens and queries are not logged.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let id = crate::seal::random::<8>().map(u64::from_le_bytes).unwrap_or_default();
    let id = format!("{id:016x}");
    let method = method_word(request.method());
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_string(), |path| path.as_str().to_string());
    let started = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let seconds = started.elapsed().as_secs_f64();
    let labels = [("method", method.to_string()), ("route", route.clone()), ("status", status.to_string())];
    metrics::counter!("bootstorm_api_requests_total", &labels).increment(1);
    metrics::histogram!("bootstorm_api_seconds", "route" => route.clone()).record(seconds);
    let milliseconds = (seconds * 1000.0).round();
    if method == "GET" && status < 400 {
        // Scripts and pages poll: what changes or fails must stay findable.
        tracing::debug!(request = id, method, route, status, milliseconds, "request");
    } else {
        tracing::info!(request = id, method, route, status, milliseconds, "request");
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A name for metrics: bounded.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Lets a request through if its token is good for it, and notes whose it is. Everything that is not listed needs a token.
pub(crate) async fn authenticate(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) && matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    // A body cannot be shared between threads, so only what is needed is borrowed while the database is asked.
    let (headers, method) = (request.headers().clone(), request.method().clone());
    match admit(&shared.control, &headers, &method).await {
        Ok(actor) => {
            request.extensions_mut().insert(Caller { actor, key: None });
            next.run(request).await
        }
        Err(error) => {
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

async fn admit(control: &Control, headers: &HeaderMap, method: &Method) -> Result<String> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Error::Unauthenticated)?;
    let token = known(control, token.trim(), now()).await?;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match token.scope {
        TokenScope::Admin => Ok(token.name),
        TokenScope::Read if reads => Ok(token.name),
        TokenScope::Read => Err(Error::Forbidden),
        TokenScope::Join => Err(Error::Unauthenticated),
    }
}

/// The token of a value. Only hashes are stored and looked up; the comparison that decides takes the same time for all of them.
async fn known(control: &Control, value: &str, now: Timestamp) -> Result<Token> {
    let hash = blake3::hash(value.as_bytes());
    let token = control.store.token_by_hash(hash.as_bytes()).await?.ok_or(Error::Unauthenticated)?;
    let same = blake3::Hash::from_bytes(token.hash) == hash;
    let alive = token.expires.is_none_or(|expires| now < expires);
    if same && alive { Ok(token) } else { Err(Error::Unauthenticated) }
}

/// Answers to mutations with an `Idempotency-Key`, in memory. Operations are found again after a restart too, by the key in the store.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    answers: HashMap<[u8; 32], Answer>,
    order: VecDeque<[u8; 32]>,
}

#[derive(Clone)]
struct Answer {
    /// Method, path, query and body.
    request: [u8; 32],
    at: Instant,
    /// Absent while the first request is under way.
    response: Option<(StatusCode, bytes::Bytes)>,
}

/// Gives a repeated mutation the answer of the first one.
pub(crate) async fn idempotency(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match with_key(&shared, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn with_key(shared: &Shared, mut request: Request, next: Next) -> Result<Response> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(next.run(request).await) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= limits::KEY_CHARACTERS_MAX);
    let key = key.ok_or_else(|| {
        Error::invalid("Idempotency-Key", format!("1 to {} visible ASCII characters", limits::KEY_CHARACTERS_MAX))
    })?;
    let Some(caller) = request.extensions().get::<Caller>().cloned() else { return Err(Error::Unauthenticated) };
    let name = *blake3::hash(format!("{}\n{key}", caller.actor).as_bytes()).as_bytes();
    let key = format!("{}:{key}", caller.actor);
    request.extensions_mut().insert(Caller { key: Some(key), ..caller });

    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{} {}\n", request.method(), request.uri()).as_bytes());
    if !UPLOADS.contains(&request.uri().path()) {
        let (parts, body) = request.into_parts();
        let bytes = extract::bounded(body).await?;
        hasher.update(&bytes);
        request = Request::from_parts(parts, Body::from(bytes));
    }
    let fingerprint = *hasher.finalize().as_bytes();
    if let Some(response) = shared.remembered.begin(name, fingerprint)? {
        return Ok(response);
    }
    // Whatever ends this request early makes room for a repetition.
    let pending = Pending { remembered: &shared.remembered, name, kept: false };
    let response = next.run(request).await;
    pending.end(response).await
}

struct Pending<'a> {
    remembered: &'a Remembered,
    name: [u8; 32],
    kept: bool,
}

impl Pending<'_> {
    async fn end(mut self, response: Response) -> Result<Response> {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, limits::REMEMBERED_BYTES_MAX).await;
        let bytes =
            bytes.map_err(|_| Error::TooLarge { what: "an answer", max: limits::REMEMBERED_BYTES_MAX as u64 })?;
        // An error changed nothing, so a repetition is a new try.
        if parts.status.is_success() {
            self.remembered.keep(self.name, parts.status, bytes.clone());
            self.kept = true;
        }
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.remembered.forget(self.name);
        }
    }
}

impl Remembered {
    fn begin(&self, name: [u8; 32], request: [u8; 32]) -> Result<Option<Response>> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh =
            |answer: &Answer| answer.response.is_none() || answer.at.elapsed().as_secs() < limits::REMEMBERED_SECONDS;
        if let Some(answer) = memory.answers.get(&name).filter(|answer| fresh(answer)).cloned() {
            if answer.request != request {
                let message = "this `Idempotency-Key` was used for another request; take a new one".to_string();
                return Err(Error::Conflict { code: "idempotency-key-reused", message });
            }
            let Some((status, bytes)) = answer.response else {
                let message = "the first request with this `Idempotency-Key` is under way; ask again".to_string();
                return Err(Error::Conflict { code: "request-under-way", message });
            };
            let json = HeaderValue::from_static("application/json");
            return Ok(Some((status, [(header::CONTENT_TYPE, json)], bytes).into_response()));
        }
        memory.answers.insert(name, Answer { request, at: Instant::now(), response: None });
        memory.order.push_back(name);
        while memory.order.len() > limits::REMEMBERED_ANSWERS_MAX {
            if let Some(oldest) = memory.order.pop_front() {
                memory.answers.remove(&oldest);
            }
        }
        Ok(None)
    }

    fn keep(&self, name: [u8; 32], status: StatusCode, bytes: bytes::Bytes) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = memory.answers.get_mut(&name) {
            answer.response = Some((status, bytes));
        }
    }

    fn forget(&self, name: [u8; 32]) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.answers.remove(&name);
        memory.order.retain(|other| *other != name);
    }
}
