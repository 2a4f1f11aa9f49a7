//! The client of the native API: where the server is, the token, and one error for whatever goes wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bootstorm_api::native::Problem;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

/// Why a command failed: exit status 1, and this on standard error.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No token anywhere.
    #[error("no token: `{}` cannot be read ({source}); give --data DIR of the server, or set BOOTSTORM_TOKEN", path.display())]
    NoToken {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it is not there.
        source: std::io::Error,
    },
    /// The site's CA is needed and missing, or unusable.
    #[error("cannot use the site's CA `{}`: {why}; give --data DIR of the server, or set BOOTSTORM_CA", path.display())]
    Ca {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The server cannot be reached, or broke off.
    #[error("cannot reach `{url}`: {why}; is the server running, and is BOOTSTORM_URL right?")]
    Unreachable {
        /// The URL asked for.
        url: String,
        /// Why.
        why: String,
    },
    /// The server refused.
    #[error("{message} ({status}, {code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The answer is not what this version understands.
    #[error("the server's answer is not understood: {0}; are client and server of the same version?")]
    Answer(String),
    /// A file given on the command line cannot be read.
    #[error("cannot read `{}`: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A document or argument is wrong; said in full by the text.
    #[error("{0}")]
    Input(String),
    /// What was waited for did not come about.
    #[error("{0}")]
    Outcome(String),
}

/// How to reach the server; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// A client for `url`; token and CA from the environment or the server's data directory.
    pub fn new(url: &str, data: &Path) -> Result<Client, ClientError> {
        let token_path = data.join("admin.token");
        let token = match std::env::var("BOOTSTORM_TOKEN") {
            Ok(token) => token,
            Err(_) => std::fs::read_to_string(&token_path)
                .map_err(|source| ClientError::NoToken { path: token_path, source })?,
        };
        let mut builder = reqwest::Client::builder().connect_timeout(std::time::Duration::from_secs(10)).no_proxy();
        if url.starts_with("https://") {
            let path = std::env::var_os("BOOTSTORM_CA").map_or_else(|| data.join("ca.pem"), PathBuf::from);
            builder = builder.tls_backend_preconfigured(tls(&path)?);
        }
        let http = builder.build().map_err(|e| ClientError::Answer(e.to_string()))?;
        let base = format!("{}/api/v1", url.trim_end_matches('/'));
        Ok(Client { http, base, token: token.trim().to_string() })
    }

    /// `GET path` with a query.
    pub async fn get<A: DeserializeOwned, Q: Serialize>(&self, path: &str, query: &Q) -> Result<A, ClientError> {
        let query = query_text(query)?;
        self.answer(self.request(Method::GET, &format!("{path}{query}"))).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<A: DeserializeOwned, B: Serialize>(&self, path: &str, body: &B) -> Result<A, ClientError> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    /// `PATCH path` with a JSON body.
    pub async fn patch<A: DeserializeOwned, B: Serialize>(&self, path: &str, body: &B) -> Result<A, ClientError> {
        self.answer(self.request(Method::PATCH, path).json(body)).await
    }

    /// `POST path` with bytes as they are read; the length is sent ahead.
    pub async fn upload<A: DeserializeOwned, Q: Serialize>(
        &self,
        path: &str,
        query: &Q,
        bytes: u64,
        body: reqwest::Body,
    ) -> Result<A, ClientError> {
        let query = query_text(query)?;
        let request = self.request(Method::POST, &format!("{path}{query}"));
        self.answer(
            request.header("content-type", "application/octet-stream").header("content-length", bytes).body(body),
        )
        .await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    async fn answer<A: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<A, ClientError> {
        let body = self.send(request).await?;
        serde_json::from_slice(&body).map_err(|e| ClientError::Answer(e.to_string()))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: error.url().map(ToString::to_string).unwrap_or_else(|| self.base.clone()),
            why: root_cause(&error),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => {
                ClientError::Refused { status: status.as_u16(), code: problem.code, message: problem.message }
            }
            Err(_) => ClientError::Refused {
                status: status.as_u16(),
                code: "no-reason".into(),
                message: status.canonical_reason().unwrap_or("refused").to_string(),
            },
        })
    }
}

/// One segment of a path, with everything escaped that is not plainly safe (RFC 3986 §2.3).
pub fn segment(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn query_text<Q: Serialize>(query: &Q) -> Result<String, ClientError> {
    let value = serde_json::to_value(query).map_err(|e| ClientError::Answer(e.to_string()))?;
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(format!("{key}={}", segment(text))),
            other => Some(format!("{key}={}", segment(&other.to_string()))),
        })
        .collect();
    Ok(if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}

fn tls(path: &Path) -> Result<rustls::ClientConfig, ClientError> {
    use rustls::pki_types::pem::PemObject as _;
    let ca = |why: String| ClientError::Ca { path: path.to_path_buf(), why };
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(path).map_err(|e| ca(format!("{e:?}")))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).map_err(|e| ca(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ca(e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_a_name_cannot_leave_its_path_segment() {
        assert_eq!(segment("../x?y#z%"), "..%2Fx%3Fy%23z%25");
        assert_eq!(segment("n001"), "n001");
    }

    #[test]
    fn absent_query_fields_are_left_out() {
        let query =
            bootstorm_api::native::MachineQuery { state: Some("Failed deployment".into()), ..Default::default() };
        assert_eq!(query_text(&query).ok().as_deref(), Some("?state=Failed%20deployment"));
    }
}
