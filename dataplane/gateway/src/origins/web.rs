//! A web server as an origin: GET, and a range to go on where a transfer broke off.

use std::time::SystemTime;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, StatusCode};

use super::Failed;
use super::s3::Signer;
use crate::limits;

/// One web server with the prefix of its names.
pub(super) struct Web {
    client: Client,
    base: String,
    signer: Option<Signer>,
}

impl Web {
    pub(super) fn new(base: &str, signer: Option<Signer>) -> Result<Web, String> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits::ORIGIN_STALL)
            .read_timeout(limits::ORIGIN_STALL)
            .pool_max_idle_per_host(bootstorm_api::limits::WISHES_IN_FLIGHT_MAX)
            .user_agent(concat!("bootstorm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        reqwest::Url::parse(base).map_err(|error| format!("`{base}`: {error}"))?;
        Ok(Web { client, base: base.to_owned(), signer })
    }

    /// Fetches a name whole. Goes on from where a transfer broke off as long as each attempt brings something.
    pub(super) async fn fetch(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        let mut breaks = 0;
        loop {
            let before = bytes.len();
            match self.transfer(name, bytes_max, &mut bytes).await {
                Ok(()) => return Ok(bytes),
                Err(Failed::Broken(_)) if bytes.len() > before && breaks < limits::ORIGIN_RESUMES_MAX => breaks += 1,
                Err(failed) => return Err(failed),
            }
        }
    }

    /// One request for what is still lacking; what comes is appended.
    async fn transfer(&self, name: &str, bytes_max: usize, bytes: &mut Vec<u8>) -> Result<(), Failed> {
        let url = reqwest::Url::parse(&format!("{}/{name}", self.base)).map_err(|e| Failed::Broken(e.to_string()))?;
        let mut request = self.client.get(url.clone());
        if let Some(signer) = &self.signer {
            for (header, value) in signer.headers(&url, SystemTime::now()) {
                request = request.header(header, value);
            }
        }
        if !bytes.is_empty() {
            request = request.header(RANGE, format!("bytes={}-", bytes.len()));
        }
        let mut reply = request.send().await.map_err(broken)?;
        match reply.status() {
            StatusCode::OK => bytes.clear(),
            StatusCode::PARTIAL_CONTENT if !bytes.is_empty() => {
                // RFC 9110 §14.4: what was asked for, or it cannot be joined.
                let range = reply.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&format!("bytes {}-", bytes.len()))) {
                    return Err(Failed::Broken("it answers with another range than it was asked for".to_owned()));
                }
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Failed::Absent),
            status => return Err(Failed::Broken(format!("it answers with status {}", status.as_u16()))),
        }
        if reply.content_length().is_some_and(|length| length > (bytes_max - bytes.len().min(bytes_max)) as u64) {
            return Err(Failed::TooLong(bytes_max));
        }
        while let Some(part) = reply.chunk().await.map_err(broken)? {
            if bytes.len() + part.len() > bytes_max {
                return Err(Failed::TooLong(bytes_max));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(())
    }
}

/// The innermost cause: the outer ones repeat the URL.
fn broken(error: reqwest::Error) -> Failed {
    if error.is_timeout() {
        return Failed::Stalled;
    }
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    let mut text = "the request failed".to_owned();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    Failed::Broken(text.escape_debug().take(limits::ORIGIN_TEXT_MAX).collect())
}
