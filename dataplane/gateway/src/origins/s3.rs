//! Requests to an S3-compatible store, signed with Signature Version 4 (Amazon S3 API, “Authenticating Requests:
//! Using the Authorization Header”). Only GET without a query is ever signed, so this is a page, where a client for S3 would bring its
//! own retries and timeouts beside ours; hashes and MACs are those of `ring`. A store answers 403 instead of 404 to whoever may not
//! list the bucket (Amazon S3 API, GetObject): grant it, else what is not there looks like a failure.

use std::fmt::Write as _;
use std::time::SystemTime;

use ring::{digest, hmac};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Names under which credentials are in the environment.
pub const ENVIRONMENT: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Keys of an account.
pub struct Credentials {
    /// Public part.
    pub access_key: String,
    /// Secret part.
    pub secret_key: Zeroizing<String>,
    /// Of temporary credentials.
    pub session_token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// Those of the environment, under Amazon's names; `None` without them: then requests are anonymous.
    pub fn from_environment() -> Option<Credentials> {
        let [access, secret, session] = ENVIRONMENT;
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Credentials {
            access_key: variable(access)?,
            secret_key: variable(secret)?.into(),
            session_token: variable(session).map(Zeroizing::new),
        })
    }
}

/// URL below which the keys of a bucket are: path style where the endpoint is named, as such stores have no names for buckets.
pub(super) fn base(bucket: &str, prefix: &str, endpoint: Option<&str>, region: &str) -> String {
    let mut base = match endpoint {
        Some(endpoint) => format!("{endpoint}/{bucket}"),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    };
    if !prefix.is_empty() {
        base.push('/');
        base.push_str(prefix);
    }
    base
}

/// Signs requests for one region.
pub(super) struct Signer {
    access_key: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    region: String,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The body is empty, and its hash part of what is signed.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl Signer {
    pub(super) fn new(credentials: &Credentials, region: &str) -> Signer {
        Signer {
            access_key: credentials.access_key.clone(),
            secret_key: credentials.secret_key.clone(),
            session_token: credentials.session_token.clone(),
            region: region.to_owned(),
        }
    }

    /// Headers that make a GET of this URL a signed one. Other headers may be added: they are not signed.
    pub(super) fn headers(&self, url: &reqwest::Url, now: SystemTime) -> Vec<(&'static str, String)> {
        let now = OffsetDateTime::from(now);
        let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        let mut signed =
            vec![("host", host(url)), ("x-amz-content-sha256", EMPTY_SHA256.to_owned()), ("x-amz-date", date.clone())];
        if let Some(token) = &self.session_token {
            signed.push(("x-amz-security-token", token.to_string()));
        }
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().fold(String::new(), |mut lines, (name, value)| {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{name}:{value}");
            lines
        });
        // Keys are of letters, digits and a few marks that need no escaping (`bootstorm_api::origin`).
        let canonical = format!("GET\n{}\n\n{lines}\n{names}\n{EMPTY_SHA256}", url.path());
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{hashed}");
        let signature = hex(mac(&self.key(&day), &text).as_ref());
        let credential = &self.access_key;
        let authorization =
            format!("{ALGORITHM} Credential={credential}/{scope},SignedHeaders={names},Signature={signature}");
        // The client writes `host` itself, from the same URL.
        let mut headers: Vec<_> = signed.into_iter().skip(1).collect();
        headers.push(("authorization", authorization));
        headers
    }

    /// The key of a day, a region and a service.
    fn key(&self, day: &str) -> hmac::Tag {
        let first = Zeroizing::new(format!("AWS4{}", self.secret_key.as_str()));
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes()), day.as_bytes());
        [self.region.as_str(), "s3", "aws4_request"].iter().fold(key, |key, part| mac(&key, part))
    }
}

fn mac(key: &hmac::Tag, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), text.as_bytes())
}

/// Host and port as the header has them: without the scheme's usual port.
fn host(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The keys of the examples in Amazon's description; 24 May 2013, 00:00:00 UTC.
    fn signer() -> (Signer, SystemTime) {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: String::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").into(),
            session_token: None,
        };
        (Signer::new(&credentials, "us-east-1"), SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600))
    }

    /// Worked out with Python's hmac by a script that gives Amazon's published signature for its own example (`GET /test.txt` with
    /// a range: f0e8bdb8…).
    #[test]
    fn a_request_is_signed_as_another_implementation_signs_it() {
        let (signer, now) = signer();
        let url = reqwest::Url::parse("https://examplebucket.s3.amazonaws.com/chunk/abc").unwrap();
        let headers = signer.headers(&url, now);
        assert_eq!(headers[1], ("x-amz-date", "20130524T000000Z".to_owned()));
        let (_, authorization) = headers.last().unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                        SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=8c535f253457aacdbee7bce9953e185226b80443e76c690c65e2955b266a6720";
        assert_eq!(authorization, expected);
    }

    #[test]
    fn a_session_s_token_is_signed_too() {
        let (mut signer, now) = signer();
        signer.session_token = Some(String::from("token").into());
        let url = reqwest::Url::parse("http://127.0.0.1:5000/bucket/chunk/abc").unwrap();
        let headers = signer.headers(&url, now);
        assert!(headers.contains(&("x-amz-security-token", "token".to_owned())));
        assert!(headers.last().unwrap().1.contains("x-amz-date;x-amz-security-token,"));
        assert_eq!(host(&url), "127.0.0.1:5000");
    }

    #[test]
    fn buckets_are_hosts_at_amazon_and_paths_elsewhere() {
        assert_eq!(base("images", "", None, "eu-1"), "https://images.s3.eu-1.amazonaws.com");
        assert_eq!(base("images", "a/b", Some("http://h:1"), "eu-1"), "http://h:1/images/a/b");
    }
}
