//! The agent's side of `bootstorm_api::agent`: a key made in memory, a claim redeemed, reports in order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bootstorm_api::agent::{Accepted, Grant, PlanReply, PlanRequest, Problem, Redeem, Report, ReportRequest, Secrets};
use bootstorm_api::limits::PLAN_WAIT_SECONDS_MAX;
use reqwest::{Method, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Serialize, de::DeserializeOwned};

use crate::{limits, retry};

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Our own side: no randomness, a broken CA file. Nothing that trying again mends.
    #[error("{0}")]
    Local(String),
    /// No connection, or it broke: try again.
    #[error("the rack cannot be reached: {0}")]
    Unreachable(String),
    /// The rack asks for patience (408, 429, 5xx): try again.
    #[error("the rack asks for patience: {status} {code}: {message}", code = .problem.code, message = .problem.message)]
    Busy {
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// The rack says no.
    #[error("the rack refuses: {status} {code}: {message}", code = .problem.code, message = .problem.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// The answer is not what the contract says.
    #[error("the rack's answer cannot be read: {0}")]
    Malformed(String),
}

impl CallError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Unreachable(_) | CallError::Busy { .. } => true,
            CallError::Local(_) | CallError::Refused { .. } | CallError::Malformed(_) => false,
        }
    }

    /// Whether the rack says *not now* (409), as for secrets that are not there yet.
    pub fn is_not_now(&self) -> bool {
        matches!(self, CallError::Refused { status: 409, .. })
    }

    /// Whether the rack does not, or no longer, take this agent for the machine's (401, 403).
    pub fn is_dismissal(&self) -> bool {
        matches!(self, CallError::Refused { status: 401 | 403, .. })
    }
}

/// What every connection to the rack needs: where it is, whom to trust, who we are.
pub struct Identity {
    rack: SocketAddr,
    roots: Arc<RootCertStore>,
    key: rcgen::KeyPair,
}

impl Identity {
    /// Makes a fresh key (ECDSA P-256) and trusts the site's CA, given as PEM.
    pub fn new(rack: SocketAddr, ca_pem: &[u8]) -> Result<Identity, CallError> {
        let roots = Arc::new(roots(ca_pem)?);
        let key = rcgen::KeyPair::generate().map_err(|e| CallError::Local(format!("cannot make a key: {e}")))?;
        Ok(Identity { rack, roots, key })
    }

    /// The signing request for the key; its names are empty, since the rack ignores them.
    fn request_pem(&self) -> Result<String, CallError> {
        let local = |e: rcgen::Error| CallError::Local(format!("cannot make a signing request: {e}"));
        let parameters = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(local)?;
        parameters.serialize_request(&self.key).and_then(|request| request.pem()).map_err(local)
    }

    fn config(&self, certificate_pem: Option<&str>) -> Result<ClientConfig, CallError> {
        let builder = config_builder(&self.roots)?;
        let Some(pem) = certificate_pem else { return Ok(builder.with_no_client_auth()) };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| CallError::Malformed(format!("certificate: {e}")))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        builder.with_client_auth_cert(chain, key).map_err(|e| CallError::Malformed(format!("certificate: {e}")))
    }
}

fn roots(ca_pem: &[u8]) -> Result<RootCertStore, CallError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let local = |e: &dyn std::fmt::Display| CallError::Local(format!("the site's CA cannot be read: {e}"));
        roots.add(certificate.map_err(|e| local(&e))?).map_err(|e| local(&e))?;
    }
    if roots.is_empty() { Err(CallError::Local("the site's CA file holds no certificate".into())) } else { Ok(roots) }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn config_builder(roots: &Arc<RootCertStore>) -> Result<Builder, CallError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| CallError::Local(format!("TLS: {e}")))?;
    Ok(builder.with_root_certificates(Arc::clone(roots)))
}

/// A client that speaks HTTP/1.1 with these TLS settings, to addresses, without proxies or redirects.
fn client(config: ClientConfig) -> Result<reqwest::Client, CallError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .read_timeout(limits::READ_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(10))
        .build()
        .map_err(|e| CallError::Local(format!("HTTP client: {e}")))
}

/// A client of the site's CA without a certificate: for redeeming, for the ready signal, and for plain HTTP.
pub fn anonymous_client(ca_pem: &[u8]) -> Result<reqwest::Client, CallError> {
    client(config_builder(&Arc::new(roots(ca_pem)?))?.with_no_client_auth())
}

/// One grant in force: whom the agent speaks for, and the numbering of its reports.
pub struct Session {
    identity: Arc<Identity>,
    client: reqwest::Client,
    /// Whom it speaks for, and the plan.
    pub grant: Grant,
    sequence: AtomicU64,
}

impl Session {
    fn new(identity: Arc<Identity>, grant: Grant) -> Result<Session, CallError> {
        let client = client(identity.config(Some(&grant.certificate_pem))?)?;
        Ok(Session { identity, client, grant, sequence: AtomicU64::new(0) })
    }

    /// Redeems a claim, trying again while the rack cannot be reached; fails when the rack says no.
    pub async fn redeem(identity: Identity, claim: &str) -> Result<Session, CallError> {
        let identity = Arc::new(identity);
        let anonymous = client(identity.config(None)?)?;
        let body = Redeem { claim: claim.to_string(), csr_pem: identity.request_pem()? };
        let url = format!("https://{}/v1/redeem", identity.rack);
        let grant = persist("redeem", || post(&anonymous, &url, &body, Duration::ZERO)).await?;
        Session::new(identity, grant)
    }

    /// Sends a report and waits until it is durable, trying again while the rack cannot be reached.
    pub async fn report(&self, report: Report) -> Result<(), CallError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let body = ReportRequest { sequence, report };
        let url = self.url("report");
        persist("report", || post::<_, Accepted>(&self.client, &url, &body, Duration::ZERO)).await.map(drop)
    }

    /// Sends a numbered report once, without trying again.
    pub async fn report_once(&self, report: Report) -> Result<(), CallError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let body = ReportRequest { sequence, report };
        post::<_, Accepted>(&self.client, &self.url("report"), &body, Duration::ZERO).await.map(drop)
    }

    /// Sends, once, a report that may be lost: a heartbeat, or progress.
    pub async fn report_unnumbered(&self, report: Report) -> Result<(), CallError> {
        let body = ReportRequest { sequence: 0, report };
        post::<_, Accepted>(&self.client, &self.url("report"), &body, Duration::ZERO).await.map(drop)
    }

    /// Waits for another plan than this session's. Fails when the rack says no.
    pub async fn next(&self) -> Result<Session, CallError> {
        let body = PlanRequest { known: Some(self.grant.subject), wait_seconds: PLAN_WAIT_SECONDS_MAX };
        let hold = Duration::from_secs(PLAN_WAIT_SECONDS_MAX);
        let url = self.url("plan");
        loop {
            let started = tokio::time::Instant::now();
            match persist("plan", || post(&self.client, &url, &body, hold)).await? {
                PlanReply::Changed(grant) => return Session::new(Arc::clone(&self.identity), *grant),
                // A rack that does not hold the request must not be asked in a tight loop.
                PlanReply::Unchanged => tokio::time::sleep_until(started + Duration::from_secs(1)).await,
            }
        }
    }

    /// Fetches the operation's secrets; while they are not at the rack, says why and asks again.
    pub async fn secrets(&self) -> Result<Secrets, CallError> {
        let mut backoff = retry::Backoff::default();
        loop {
            let url = self.url("secrets");
            let fetched =
                persist("secrets", || exchange::<(), _>(&self.client, Method::GET, &url, None, Duration::ZERO)).await;
            match fetched {
                Err(error) if error.is_not_now() => {
                    crate::log!("waiting for secrets: {error}");
                    let waiting = Report::Stage {
                        stage: bootstorm_snapshot::Stage::Configure,
                        progress: None,
                        detail: format!("waiting for secrets: {error}"),
                    };
                    // It is for people; the loop goes on whether they see it or not.
                    let _ = self.report_unnumbered(waiting).await;
                    tokio::time::sleep(backoff.next(retry::random())).await;
                }
                other => return other,
            }
        }
    }

    /// The same session over connections of its own, for another runtime than the one that made it.
    pub fn again(&self) -> Result<Session, CallError> {
        let copy = Session::new(Arc::clone(&self.identity), self.grant.clone())?;
        copy.sequence.store(self.sequence.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(copy)
    }

    fn url(&self, name: &str) -> String {
        format!("https://{}/v1/{name}", self.identity.rack)
    }
}

/// The session in force, shared with the heartbeat and with the last words of a dying agent.
#[derive(Clone, Default)]
pub struct Current(Arc<Mutex<Option<Arc<Session>>>>);

impl Current {
    /// Puts another session in force.
    pub fn set(&self, session: &Arc<Session>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(session));
    }

    /// The session in force, unless there is none yet or it is just being set.
    pub fn try_get(&self) -> Option<Arc<Session>> {
        self.0.try_lock().ok().and_then(|session| session.clone())
    }
}

/// Says over a session, from a thread and runtime of its own, that the agent dies. Blocks at most as long as the limit says.
pub fn report_last_words(session: &Session, report: Report) {
    let Ok(session) = session.again() else { return };
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            let told = runtime.block_on(session.report(report));
            // Nobody waits any more when the time is over.
            let _ = done.send(told);
        }
    });
    let _ = finished.recv_timeout(limits::LAST_WORDS_TIMEOUT);
}

/// Repeats a call with growing pauses while it fails in a way that may pass.
pub async fn persist<T, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut backoff = retry::Backoff::default();
    loop {
        match call().await {
            Err(error) if error.is_retryable() => {
                let pause = backoff.next(retry::random());
                crate::log!("{what}: {error}; again in {:.1} s", pause.as_secs_f32());
                tokio::time::sleep(pause).await;
            }
            other => return other,
        }
    }
}

async fn post<B: Serialize, T: DeserializeOwned>(
    client: &reqwest::Client,
    url: &str,
    body: &B,
    hold: Duration,
) -> Result<T, CallError> {
    exchange(client, Method::POST, url, Some(body), hold).await
}

async fn exchange<B: Serialize, T: DeserializeOwned>(
    client: &reqwest::Client,
    method: Method,
    url: &str,
    body: Option<&B>,
    hold: Duration,
) -> Result<T, CallError> {
    let mut request = client.request(method, url).timeout(limits::ANSWER_TIMEOUT + hold);
    if let Some(body) = body {
        request = request.json(body);
    }
    read_answer(request).await
}

/// Sends a request and reads its answer as the contract says.
pub async fn read_answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, CallError> {
    let mut response = request.send().await.map_err(|e| CallError::Unreachable(reasons(&e)))?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| CallError::Unreachable(reasons(&e)))? {
        if bytes.len() + part.len() > limits::ANSWER_BYTES_MAX {
            return Err(CallError::Malformed(format!("longer than {} bytes", limits::ANSWER_BYTES_MAX)));
        }
        bytes.extend_from_slice(&part);
    }
    read_body(status, &bytes)
}

fn read_body<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, CallError> {
    if status == StatusCode::OK {
        return serde_json::from_slice(bytes).map_err(|e| CallError::Malformed(e.to_string()));
    }
    let problem = serde_json::from_slice(bytes).unwrap_or_else(|_| Problem {
        code: "unexplained".into(),
        message: String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned(),
    });
    let slow = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let patience = slow || status.is_server_error();
    let status = status.as_u16();
    Err(if patience { CallError::Busy { status, problem } } else { CallError::Refused { status, problem } })
}

/// An error with its causes, which reqwest keeps apart.
pub fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_makes_a_signing_request_and_a_config() {
        let ca_key = rcgen::KeyPair::generate().expect("key");
        let ca = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters").self_signed(&ca_key);
        let ca = ca.expect("certificate").pem();
        let identity = Identity::new("127.0.0.1:1".parse().expect("address"), ca.as_bytes()).expect("identity");
        assert!(identity.request_pem().expect("request").contains("BEGIN CERTIFICATE REQUEST"));
        assert!(identity.config(None).is_ok());
        assert!(anonymous_client(ca.as_bytes()).is_ok());
        assert!(Identity::new("127.0.0.1:1".parse().expect("address"), b"").is_err());
    }

    #[test]
    fn statuses_say_whether_to_try_again() {
        let body = br#"{"code":"busy","message":"later"}"#;
        let call = |status: u16| {
            read_body::<Accepted>(StatusCode::from_u16(status).expect("status"), body).expect_err("an error")
        };
        assert!(call(503).is_retryable() && call(429).is_retryable() && call(500).is_retryable());
        assert!(!call(400).is_retryable() && !call(409).is_retryable());
        assert!(call(409).is_not_now() && call(401).is_dismissal() && call(403).is_dismissal());
        assert!(read_body::<Accepted>(StatusCode::OK, b"{}").is_ok());
        assert!(matches!(read_body::<Accepted>(StatusCode::OK, b"x"), Err(CallError::Malformed(_))));
        assert!(matches!(read_body::<Accepted>(StatusCode::NOT_FOUND, b"\xff"), Err(CallError::Refused { .. })));
    }
}
