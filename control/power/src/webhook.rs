//! Power by HTTP requests to URLs of the operator's choice; parameters and their meaning are those of MAAS's `webhook` driver.
//!
//! | parameter | meaning |
//! |---|---|
//! | `power_on_uri`, `power_off_uri` | sent a `POST` with an empty body |
//! | `power_query_uri` | sent a `GET`; its body says the state |
//! | `power_on_regex` | body of a machine that is on; `status.*:.*running` by default |
//! | `power_off_regex` | body of a machine that is off; `status.*:.*stopped` by default |
//! | `power_user`, `power_pass` | basic authentication (RFC 7617), where both are set |
//! | `power_token` | bearer token (RFC 6750); wins over user and password |
//! | `power_verify_ssl` | `y` (default) or `n` |

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bootstorm_model::PowerState;
use regex::{Regex, RegexBuilder};
use zeroize::Zeroizing;

use crate::fetch::{self, Fetcher, Method, Request, Url, VerifyTls};
use crate::{Answer, Parameters, PowerDriver, PowerError, limits};

const ON_REGEX: &str = "status.*:.*running";
const OFF_REGEX: &str = "status.*:.*stopped";
const NAMES: &[&str] = &[
    "power_on_uri",
    "power_off_uri",
    "power_query_uri",
    "power_on_regex",
    "power_off_regex",
    "power_user",
    "power_pass",
    "power_token",
    "power_verify_ssl",
];

/// The driver for one machine.
pub struct Webhook {
    on_url: Url,
    off_url: Url,
    query_url: Url,
    on_regex: Regex,
    off_regex: Regex,
    authorization: Option<Zeroizing<String>>,
    verify: VerifyTls,
    fetcher: Fetcher,
}

impl Webhook {
    /// Checks the parameters. Fails on unknown, missing or unreadable ones.
    pub fn new(parameters: &Parameters, fetcher: Fetcher) -> Result<Self, PowerError> {
        if let Some(name) = parameters.keys().find(|name| !NAMES.contains(&name.as_str())) {
            let name = fetch::excerpt(name.as_bytes());
            return Err(PowerError::Parameter { name, problem: format!("is unknown; known are {}", NAMES.join(", ")) });
        }
        if let Some((name, _)) = parameters.iter().find(|(_, value)| value.len() > limits::PARAMETER_BYTES_MAX) {
            return Err(wrong(name, format!("is longer than {} bytes", limits::PARAMETER_BYTES_MAX)));
        }
        Ok(Self {
            on_url: url(parameters, "power_on_uri")?,
            off_url: url(parameters, "power_off_uri")?,
            query_url: url(parameters, "power_query_uri")?,
            on_regex: regex(parameters, "power_on_regex", ON_REGEX)?,
            off_regex: regex(parameters, "power_off_regex", OFF_REGEX)?,
            authorization: authorization(parameters),
            verify: verify(parameters)?,
            fetcher,
        })
    }

    async fn send(&self, method: Method, url: &Url) -> Result<Vec<u8>, PowerError> {
        let authorization = self.authorization.as_ref().map(|value| value.as_str());
        let request = Request { method, url: url.clone(), authorization, verify: self.verify };
        Ok(self.fetcher.fetch(request).await?)
    }
}

impl PowerDriver for Webhook {
    fn on(&self) -> Answer<'_, ()> {
        Box::pin(async { self.send(Method::Post, &self.on_url).await.map(drop) })
    }

    fn off(&self) -> Answer<'_, ()> {
        Box::pin(async { self.send(Method::Post, &self.off_url).await.map(drop) })
    }

    fn query(&self) -> Answer<'_, PowerState> {
        Box::pin(async {
            let body = self.send(Method::Get, &self.query_url).await?;
            let text = String::from_utf8_lossy(&body);
            if self.on_regex.is_match(&text) {
                Ok(PowerState::On)
            } else if self.off_regex.is_match(&text) {
                Ok(PowerState::Off)
            } else {
                Err(PowerError::Unclear(fetch::excerpt(&body)))
            }
        })
    }

    fn can_query(&self) -> bool {
        true
    }
}

fn wrong(name: &str, problem: String) -> PowerError {
    PowerError::Parameter { name: name.to_string(), problem }
}

fn url(parameters: &Parameters, name: &str) -> Result<Url, PowerError> {
    let text = parameters.get(name).ok_or_else(|| wrong(name, "is missing".to_string()))?;
    fetch::parse_url(text).map_err(|problem| wrong(name, problem))
}

fn regex(parameters: &Parameters, name: &str, default: &str) -> Result<Regex, PowerError> {
    let text = parameters.get(name).map_or(default, String::as_str);
    RegexBuilder::new(text)
        .size_limit(limits::REGEX_BYTES_MAX)
        .build()
        .map_err(|_| wrong(name, "is not a regular expression of the supported kind and size".to_string()))
}

fn authorization(parameters: &Parameters) -> Option<Zeroizing<String>> {
    if let Some(token) = parameters.get("power_token").filter(|token| !token.is_empty()) {
        return Some(Zeroizing::new(format!("Bearer {token}")));
    }
    let user = parameters.get("power_user").filter(|user| !user.is_empty())?;
    let pair = Zeroizing::new(format!("{user}:{}", parameters.get("power_pass")?));
    Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
}

fn verify(parameters: &Parameters) -> Result<VerifyTls, PowerError> {
    match parameters.get("power_verify_ssl").map(String::as_str) {
        None | Some("y" | "yes" | "true") => Ok(VerifyTls::Yes),
        Some("n" | "no" | "false") => Ok(VerifyTls::No),
        Some(_) => Err(wrong("power_verify_ssl", "must be `y` or `n`".to_string())),
    }
}
