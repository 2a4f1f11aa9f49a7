//! The one place that speaks HTTP to addresses which somebody named (`threat-model.md` T11).
//!
//! Every hop (the URL given and each redirect) is checked: scheme `http` or `https`, no credentials in the URL, and after the look-up
//! of its name every address must be allowed; the connection is then made to exactly those addresses. Refused are loopback,
//! link-local, unspecified, multicast and reserved addresses and the addresses of this host, unless the exact origin is in
//! `fetch.allow`. Credentials go to the first origin only. Replies are bounded in bytes and time. No proxy, no cookies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub use reqwest::Url;

use crate::limits;

/// Scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Of a URL; `None` if it has no host.
    pub fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.to_ascii_lowercase();
        Some(Self { scheme: url.scheme().to_string(), host, port: url.port_or_known_default()? })
    }
}

impl std::str::FromStr for Origin {
    type Err = String;

    /// Reads `http://HOST[:PORT]`, without a path.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = parse_url(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must be scheme, host and port only".to_string());
        }
        Self::of(&url).ok_or_else(|| "has no host".to_string())
    }
}

/// Reads a URL that may be fetched. The error says what is wrong with it, without the text itself.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with `http://` or `https://`".to_string());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials; use `power_user` and `power_pass`".to_string());
    }
    if url.host().is_none() {
        return Err("has no host".to_string());
    }
    Ok(url)
}

/// How a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `POST` with an empty body.
    Post,
}

/// Whether the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyTls {
    /// It is.
    Yes,
    /// It is not: the operator said so.
    No,
}

/// One request.
pub struct Request<'a> {
    /// Method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Value of the header `Authorization`; secret.
    pub authorization: Option<&'a str>,
    /// Whether the server's certificate is checked.
    pub verify: VerifyTls,
}

/// Why a fetch failed. Texts hold no credentials and no URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Operator: the address may not be spoken to.
    #[error(
        "address {address} of host `{host}` may not be fetched from: it is {what}; an administrator may list the exact origin in `fetch.allow`"
    )]
    Forbidden {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
        /// What kind of address that is.
        what: &'static str,
    },
    /// Peer: redirected too often, or to what is no URL.
    #[error("the redirect cannot be followed: {0}")]
    Redirect(String),
    /// Environment: no such name, no connection, TLS failed.
    #[error("`{host}` cannot be reached: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// Peer: it took too long.
    #[error("`{host}` did not answer in {} s", limits::REQUEST_TIME_MAX.as_secs())]
    TooSlow {
        /// The host.
        host: String,
    },
    /// Peer: the reply is too long.
    #[error("the reply of `{host}` is longer than {} bytes", limits::REPLY_BYTES_MAX)]
    TooLong {
        /// The host.
        host: String,
    },
    /// Peer: not a success.
    #[error("`{host}` answered with status {status}: {excerpt}")]
    Status {
        /// The host.
        host: String,
        /// Status of the answer.
        status: u16,
        /// Start of the body, made harmless.
        excerpt: String,
    },
}

impl FetchError {
    /// Stable code, e.g. `webhook-status-500`.
    pub fn code(&self) -> String {
        match self {
            Self::Forbidden { .. } => "address-forbidden".to_string(),
            Self::Redirect(_) => "bad-redirect".to_string(),
            Self::Unreachable { .. } => "unreachable".to_string(),
            Self::TooSlow { .. } => "timed-out".to_string(),
            Self::TooLong { .. } => "reply-too-long".to_string(),
            Self::Status { status, .. } => format!("webhook-status-{status}"),
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooSlow { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Forbidden { .. } | Self::Redirect(_) | Self::TooLong { .. } => false,
        }
    }
}

/// Fetches under the site's rules. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fetcher {
    allowed: Arc<BTreeSet<Origin>>,
}

impl Fetcher {
    /// With the origins of `fetch.allow`.
    pub fn new(allowed: impl IntoIterator<Item = Origin>) -> Self {
        Self { allowed: Arc::new(allowed.into_iter().collect()) }
    }

    /// Sends a request and returns the body of a successful (2xx) answer.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, request: Request<'_>) -> Result<Vec<u8>, FetchError> {
        let host = request.url.host_str().unwrap_or_default().to_string();
        tokio::time::timeout(limits::REQUEST_TIME_MAX, self.follow(request))
            .await
            .unwrap_or(Err(FetchError::TooSlow { host }))
    }

    async fn follow(&self, mut request: Request<'_>) -> Result<Vec<u8>, FetchError> {
        let first = Origin::of(&request.url);
        for _ in 0..=limits::REDIRECTS_MAX {
            let reply = self.send(&request).await?;
            let status = reply.status();
            if !status.is_redirection() {
                return read(reply).await;
            }
            let location = reply.headers().get("location").and_then(|value| value.to_str().ok());
            let next = location.and_then(|text| request.url.join(text).ok());
            let next = next.ok_or_else(|| FetchError::Redirect("it names no URL".to_string()))?;
            parse_url(next.as_str()).map_err(|problem| FetchError::Redirect(format!("its URL {problem}")))?;
            // RFC 9110 §15.4: 307 and 308 keep the method; after the others a POST would have to become a GET, which is no command.
            if request.method == Method::Post && !matches!(status.as_u16(), 307 | 308) {
                return Err(FetchError::Redirect(format!("status {} does not keep a POST", status.as_u16())));
            }
            if Origin::of(&next) != first {
                request.authorization = None;
            }
            request.url = next;
        }
        Err(FetchError::Redirect(format!("more than {} in a row", limits::REDIRECTS_MAX)))
    }

    async fn send(&self, request: &Request<'_>) -> Result<reqwest::Response, FetchError> {
        let host = request.url.host_str().unwrap_or_default().to_string();
        let addresses = self.resolve(&request.url, &host).await?;
        let unreachable = |error: reqwest::Error| FetchError::Unreachable { host: host.clone(), reason: cause(&error) };
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .resolve_to_addrs(&host, &addresses)
            .tls_danger_accept_invalid_certs(request.verify == VerifyTls::No)
            .build()
            .map_err(unreachable)?;
        let mut builder = match request.method {
            Method::Get => client.get(request.url.clone()),
            Method::Post => client.post(request.url.clone()).header("content-length", "0"),
        };
        builder = builder
            .header("accept", "application/json")
            .header("user-agent", concat!("bootstorm/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = request.authorization {
            builder = builder.header("authorization", authorization);
        }
        builder.send().await.map_err(unreachable)
    }

    /// The addresses of a URL's host, each of them allowed.
    async fn resolve(&self, url: &Url, host: &str) -> Result<Vec<SocketAddr>, FetchError> {
        let unreachable = |reason: String| FetchError::Unreachable { host: host.to_string(), reason };
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await.map_err(|error| unreachable(error.to_string()))?;
        let addresses: Vec<SocketAddr> = found.collect();
        if addresses.is_empty() {
            return Err(unreachable("its name has no address".to_string()));
        }
        if Origin::of(url).is_some_and(|origin| self.allowed.contains(&origin)) {
            return Ok(addresses);
        }
        let own: Vec<IpAddr> = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|i| i.ip()).collect();
        for address in addresses.iter().map(SocketAddr::ip) {
            let what = forbidden(address).or_else(|| own.contains(&address).then_some("an address of this host"));
            if let Some(what) = what {
                return Err(FetchError::Forbidden { host: host.to_string(), address, what });
            }
        }
        Ok(addresses)
    }
}

/// Why nobody may make us speak to an address; `None` if they may.
pub fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => forbidden_v4(mapped),
            None => forbidden_v6(address),
        },
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = address.octets();
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if address.is_multicast() || address.is_broadcast() {
        Some("a multicast or broadcast address")
    } else if first == 0 || first >= 240 {
        Some("a reserved address")
    } else {
        None
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

async fn read(mut reply: reqwest::Response) -> Result<Vec<u8>, FetchError> {
    let host = reply.url().host_str().unwrap_or_default().to_string();
    let mut body = Vec::new();
    loop {
        match reply.chunk().await {
            Ok(Some(bytes)) if body.len() + bytes.len() > limits::REPLY_BYTES_MAX => {
                return Err(FetchError::TooLong { host });
            }
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => break,
            Err(error) => return Err(FetchError::Unreachable { host, reason: cause(&error) }),
        }
    }
    if reply.status().is_success() {
        return Ok(body);
    }
    Err(FetchError::Status { host, status: reply.status().as_u16(), excerpt: excerpt(&body) })
}

/// The innermost cause: the outer ones repeat the URL, which may hold a token.
fn cause(error: &reqwest::Error) -> String {
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut text = "the request failed".to_string();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    excerpt(text.as_bytes())
}

/// The start of a peer's text, escaped (P7).
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let cut = bytes.get(..limits::EVIDENCE_BYTES_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(cut).escape_debug().take(limits::EVIDENCE_BYTES_MAX).collect()
}
