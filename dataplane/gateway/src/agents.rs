//! Agents' requests: TLS 1.3, HTTP/1.1, JSON (`bootstorm_api::agent`). Decisions are the rack's; what is checked here
//! is form, size, rate and the key that the session proved.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bootstorm_api::agent::{
    Accepted, Grant, PlanReply, PlanRequest, Problem, ReadyRequest, Redeem, ReportRequest, Secrets,
};
use bootstorm_api::local::{Answer, Refusal, Request};
use bootstorm_snapshot::{ClaimHash, CredentialHash, Subject, Task};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::hub::{Hub, NoAnswer};
use crate::identity::{AgentKey, Identity};
use crate::limits;

/// What every connection needs.
pub(crate) struct Agents {
    pub(crate) hub: Arc<Hub>,
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) rate: HandshakeRate,
}

/// Accepts connections on one listener until the task is dropped.
pub(crate) async fn run_listener(agents: Arc<Agents>, listener: TcpListener) {
    loop {
        let Ok(permit) = agents.connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                if !agents.rate.allow(Instant::now(), peer.ip()) {
                    tracing::debug!(%peer, reason = "handshake-rate", "connection dropped");
                    continue;
                }
                let agents = agents.clone();
                tokio::spawn(async move {
                    connection(agents, stream, peer).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or a peer that left: the next one may do, after others had a chance to close.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(agents: Arc<Agents>, stream: TcpStream, peer: SocketAddr) {
    let Some(identity) = agents.identity.borrow().clone() else {
        return; // not joined yet: nothing could be proved
    };
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(identity.tls.clone());
    let session = match tokio::time::timeout(limits::HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%peer, "handshake too slow"),
    };
    let key = session
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate: &CertificateDer<'_>| AgentKey::from_certificate(certificate));
    let key = match key.transpose() {
        Ok(key) => Arc::new(key),
        Err(error) => return tracing::debug!(%peer, %error, "client certificate without a usable key"),
    };
    let service = hyper::service::service_fn(move |request| {
        let (agents, key) = (agents.clone(), key.clone());
        async move { Ok::<_, std::convert::Infallible>(respond(&agents, peer.ip(), key.as_ref().as_ref(), request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(session), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

type Reply = Response<Full<Bytes>>;

async fn respond(agents: &Agents, peer: IpAddr, key: Option<&AgentKey>, request: hyper::Request<Incoming>) -> Reply {
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let outcome = match (&method, path.as_str()) {
        (&Method::POST, "/v1/redeem") => redeem(agents, peer, request).await,
        (&Method::POST, "/v1/plan") => plan(agents, peer, key, request).await,
        (&Method::POST, "/v1/report") => report(agents, peer, key, request).await,
        (&Method::GET, "/v1/secrets") => secrets(agents, peer, key).await,
        (&Method::POST, "/v1/ready") => ready(agents, peer, request).await,
        _ => Err(Failed::new(StatusCode::NOT_FOUND, "not-found", "no such request")),
    };
    let mut reply = outcome.unwrap_or_else(Failed::into_reply);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

async fn redeem(agents: &Agents, peer: IpAddr, request: hyper::Request<Incoming>) -> Result<Reply, Failed> {
    let body: Redeem = body(request).await?;
    let claim = parse_claim(&body.claim)
        .ok_or_else(|| Failed::new(StatusCode::BAD_REQUEST, "malformed", "`claim` must be 32 hexadecimal digits"))?;
    let key = AgentKey::from_csr(&body.csr_pem)
        .map_err(|e| Failed::new(StatusCode::BAD_REQUEST, "malformed", &format!("`csr_pem`: {e}")))?;
    let request = Request::Redeem { claim: ClaimHash::of(&claim), key: key.hash };
    match ask(agents, peer, request, Duration::ZERO).await? {
        Answer::Granted { subject, plan } => json(&grant(agents, &key, subject, *plan)?),
        other => Err(unexpected(&other)),
    }
}

async fn plan(
    agents: &Agents,
    peer: IpAddr,
    key: Option<&AgentKey>,
    request: hyper::Request<Incoming>,
) -> Result<Reply, Failed> {
    let key = proven(key)?;
    let body: PlanRequest = body(request).await?;
    let wait_seconds = body.wait_seconds.min(limits::PLAN_WAIT_SECONDS_MAX);
    let request = Request::Plan { key: key.hash, known: body.known, wait_seconds };
    match ask(agents, peer, request, Duration::from_secs(wait_seconds)).await? {
        Answer::Unchanged => json(&PlanReply::Unchanged),
        Answer::Granted { subject, plan } => json(&PlanReply::Changed(Box::new(grant(agents, key, subject, *plan)?))),
        other => Err(unexpected(&other)),
    }
}

async fn report(
    agents: &Agents,
    peer: IpAddr,
    key: Option<&AgentKey>,
    request: hyper::Request<Incoming>,
) -> Result<Reply, Failed> {
    let key = proven(key)?;
    let body: ReportRequest = body(request).await?;
    let request = Request::Report { key: key.hash, sequence: body.sequence, report: body.report };
    done(ask(agents, peer, request, Duration::ZERO).await?)
}

async fn secrets(agents: &Agents, peer: IpAddr, key: Option<&AgentKey>) -> Result<Reply, Failed> {
    let key = proven(key)?;
    // The rack says for whom the key speaks now; nothing the agent names counts.
    let request = Request::Plan { key: key.hash, known: None, wait_seconds: 0 };
    let (subject, plan) = match ask(agents, peer, request, Duration::ZERO).await? {
        Answer::Granted { subject, plan } => (subject, plan),
        other => return Err(unexpected(&other)),
    };
    let Subject::Attempt { operation, .. } = subject else { return json(&Secrets::default()) };
    match agents.hub.secrets.of(Instant::now(), operation) {
        Some(secrets) => json(&secrets),
        None if matches!(&plan.task, Task::Deploy(deploy) if !deploy.secrets) => json(&Secrets::default()),
        None => Err(Failed::new(
            StatusCode::CONFLICT,
            "secrets-missing",
            "this rack does not hold the operation's secrets; it gets them when control is back",
        )),
    }
}

async fn ready(agents: &Agents, peer: IpAddr, request: hyper::Request<Incoming>) -> Result<Reply, Failed> {
    let credential = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(|credential| CredentialHash::of(credential.as_bytes()))
        .ok_or_else(|| Failed::new(StatusCode::UNAUTHORIZED, "credential-missing", "no bearer credential"))?;
    let body: ReadyRequest = body(request).await?;
    done(ask(agents, peer, Request::Ready { credential, result: body.result }, Duration::ZERO).await?)
}

fn grant(agents: &Agents, key: &AgentKey, subject: Subject, plan: bootstorm_snapshot::Plan) -> Result<Grant, Failed> {
    let identity = agents.identity.borrow().clone();
    let certified = identity.as_ref().map(|identity| identity.certify(SystemTime::now(), key, &subject));
    match certified {
        Some(Ok(certificate_pem)) => Ok(Grant { certificate_pem, subject, plan }),
        Some(Err(error)) => {
            tracing::error!(%error, "cannot certify an agent's key");
            Err(Failed::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot-certify", "the key cannot be certified"))
        }
        None => Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "not-joined", "this rack has not joined a site yet")),
    }
}

async fn ask(agents: &Agents, peer: IpAddr, request: Request, hold: Duration) -> Result<Answer, Failed> {
    match agents.hub.ask(peer, request, hold).await {
        Ok(Answer::Refused { code, detail }) => Err(refused(code, &detail)),
        Ok(answer) => Ok(answer),
        Err(NoAnswer::Full) => Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests in flight")),
        Err(NoAnswer::Away) => Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "rack-away", "the rack role restarts")),
        Err(NoAnswer::Late) => {
            Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "rack-late", "the rack did not answer"))
        }
    }
}

fn refused(code: Refusal, detail: &str) -> Failed {
    let (status, name) = match code {
        Refusal::UnknownClaim => (StatusCode::FORBIDDEN, "unknown-claim"),
        Refusal::ClaimTaken => (StatusCode::FORBIDDEN, "claim-taken"),
        Refusal::UnknownKey => (StatusCode::UNAUTHORIZED, "unknown-key"),
        Refusal::TooManyAttempts => (StatusCode::FORBIDDEN, "too-many-attempts"),
        Refusal::OutOfOrder => (StatusCode::CONFLICT, "out-of-order"),
        Refusal::UnknownCredential => (StatusCode::UNAUTHORIZED, "unknown-credential"),
        Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        Refusal::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
    };
    Failed::new(status, name, detail)
}

fn done(answer: Answer) -> Result<Reply, Failed> {
    match answer {
        Answer::Done => json(&Accepted {}),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Failed {
    tracing::error!(?answer, "the rack's answer does not fit the request");
    Failed::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the rack's answer does not fit the request")
}

fn proven(key: Option<&AgentKey>) -> Result<&AgentKey, Failed> {
    key.ok_or_else(|| Failed::new(StatusCode::UNAUTHORIZED, "certificate-missing", "a client certificate is needed"))
}

fn parse_claim(text: &str) -> Option<[u8; 16]> {
    let value = (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)?;
    u128::from_str_radix(value, 16).ok().map(u128::to_be_bytes)
}

async fn body<T: DeserializeOwned>(request: hyper::Request<Incoming>) -> Result<T, Failed> {
    let limited = Limited::new(request.into_body(), limits::AGENT_MESSAGE_BYTES_MAX);
    let bytes = match tokio::time::timeout(limits::REQUEST_HEAD, limited.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(Failed::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "the message is too long"));
        }
        Ok(Err(_)) => return Err(Failed::new(StatusCode::BAD_REQUEST, "malformed", "the message broke off")),
        Err(_) => return Err(Failed::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the message took too long")),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Failed::new(StatusCode::BAD_REQUEST, "malformed", &format!("not the expected JSON: {error}")))
}

fn json<T: Serialize>(value: &T) -> Result<Reply, Failed> {
    Ok(reply(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default()))
}

fn reply(status: StatusCode, body: Vec<u8>) -> Reply {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error answer.
struct Failed {
    status: StatusCode,
    problem: Problem,
}

impl Failed {
    fn new(status: StatusCode, code: &str, message: &str) -> Failed {
        Failed { status, problem: Problem { code: code.into(), message: message.into() } }
    }

    fn into_reply(self) -> Reply {
        let mut response = reply(self.status, serde_json::to_vec(&self.problem).unwrap_or_default());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Handshakes counted in windows of a second, in all and per source (`threat-model.md` T9 and TLS row).
#[derive(Default)]
pub(crate) struct HandshakeRate {
    window: Mutex<Option<Window>>,
}

struct Window {
    began: Instant,
    total: u32,
    sources: HashMap<IpAddr, u32>,
}

impl HandshakeRate {
    /// Counts one handshake; `false` if it is one too many.
    fn allow(&self, now: Instant, source: IpAddr) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Window { began: now, total: 0, sources: HashMap::new() };
        let window = window.get_or_insert_with(fresh);
        if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
            *window = fresh();
        }
        // Bounded: no more sources are counted in a window than handshakes are allowed in it.
        if window.total >= limits::HANDSHAKES_PER_SECOND {
            return false;
        }
        let count = window.sources.entry(source).or_insert(0);
        if *count >= limits::HANDSHAKES_PER_SECOND_PER_SOURCE {
            return false;
        }
        *count += 1;
        window.total += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t9_handshakes_are_limited_per_source_and_in_all() {
        let (rate, start) = (HandshakeRate::default(), Instant::now());
        let one = IpAddr::from([10, 0, 0, 1]);
        let allowed = (0..100).filter(|_| rate.allow(start, one)).count();
        assert_eq!(allowed, limits::HANDSHAKES_PER_SECOND_PER_SOURCE as usize);
        let others = (0..5000u32).filter(|n| rate.allow(start, IpAddr::from((0x0b00_0000 + n).to_be_bytes()))).count();
        assert_eq!(others + allowed, limits::HANDSHAKES_PER_SECOND as usize);
        assert!(rate.allow(start + Duration::from_secs(1), one));
    }

    #[test]
    fn claims_are_32_hexadecimal_digits() {
        assert_eq!(parse_claim("000102030405060708090a0b0c0d0e0f").map(|c| c[15]), Some(15));
        for bad in ["", "0001", "+00102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0g"] {
            assert_eq!(parse_claim(bad), None, "{bad}");
        }
    }
}
