//! Where content may be fetched besides control, and how it lies there.
//!
//! Every origin holds the same names below its root, which are also the paths of a rack's HTTP:
//!
//! | name | holds |
//! |---|---|
//! | `chunk/NAME` | the stored octets of a chunk |
//! | `manifest/DIGEST` | an encoded manifest |
//! | `manifest/files` | one JSON line (`bootstorm_snapshot::record::File`) for each file served by name; only `serve` asks for it |
//!
//! Content is named by its hash and checked by whoever takes it, so nothing here is trusted for being where it is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of the list of files.
pub const FILES_NAME: &str = "manifest/files";

/// Where content is. As text: `dir:PATH`, `http://HOST[:PORT][/PREFIX]` (another rack, a mirror, a web server; or https), or
/// `s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Origin {
    /// A directory on this host.
    Directory {
        /// Its path.
        path: PathBuf,
    },
    /// A web server.
    Http {
        /// Scheme, host, port and prefix, without a `/` at the end.
        base: String,
    },
    /// A bucket of an S3-compatible store. Credentials come from the environment (`AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`); without them requests are anonymous.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What keys begin with, without a `/` at either end; may be empty.
        prefix: String,
        /// URL of the store; Amazon's for the region if there is none.
        endpoint: Option<String>,
        /// Region that requests are signed for.
        region: String,
    },
}

/// Region that requests are signed for unless another is named; stores that are not Amazon's take any.
const REGION: &str = "us-east-1";
/// Longest text of an origin.
const ORIGIN_BYTES_MAX: usize = 1024;

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an origin: {problem}; write dir:PATH, http://HOST[:PORT][/PREFIX] or s3://BUCKET[/PREFIX]")]
pub struct OriginError {
    text: String,
    problem: &'static str,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Origin, OriginError> {
        let refuse = |problem| OriginError { text: text.escape_debug().take(ORIGIN_BYTES_MAX).collect(), problem };
        if text.len() > ORIGIN_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refuse("it is too long, or holds spaces or control characters"));
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return match path {
                "" => Err(refuse("it has no path")),
                path => Ok(Origin::Directory { path: path.into() }),
            };
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest).map_err(refuse);
        }
        base_url(text).map(|base| Origin::Http { base }).map_err(refuse)
    }
}

fn s3(rest: &str) -> Result<Origin, &'static str> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // S3's own rule for buckets, and keys that need no escaping.
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_plain) {
        return Err("a bucket's name has 3 to 63 letters, digits, dots and dashes");
    }
    let prefix = prefix.trim_matches('/');
    if !prefix.chars().all(|c| is_plain(c) || c == '/') {
        return Err("a prefix has letters, digits, dots, dashes, underscores and slashes only");
    }
    let (mut endpoint, mut region) = (None, REGION.to_owned());
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("endpoint", url)) => endpoint = Some(base_url(url)?),
            Some(("region", name)) if !name.is_empty() && name.chars().all(is_plain) => region = name.to_owned(),
            _ => return Err("after `?` come endpoint=URL and region=NAME only"),
        }
    }
    Ok(Origin::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint, region })
}

/// A URL to which names are appended.
fn base_url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("it begins with none of dir:, http://, https:// and s3://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.starts_with(':') {
        return Err("it has no host");
    }
    if authority.contains('@') {
        return Err("credentials do not belong into it");
    }
    if path.contains(['?', '#']) || authority.contains(['?', '#']) {
        return Err("it has a query");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Directory { path } => write!(f, "dir:{}", path.display()),
            Origin::Http { base } => f.write_str(base),
            Origin::S3 { bucket, prefix, endpoint, region } => {
                write!(f, "s3://{bucket}")?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                write!(f, "?region={region}")?;
                match endpoint {
                    Some(endpoint) => write!(f, "&endpoint={endpoint}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Origin, OriginError> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_they_are_written() {
        for text in [
            "dir:/srv/content",
            "dir:relative/too",
            "http://10.0.0.2:5248",
            "https://mirror.example/boot/storm",
            "http://[fd00::1]:5248/x",
            "s3://images?region=us-east-1",
            "s3://images/a/b?region=eu-1&endpoint=http://127.0.0.1:5000",
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(origin.to_string(), text);
            assert_eq!(serde_json::from_str::<Origin>(&serde_json::to_string(&origin).unwrap()).unwrap(), origin);
        }
        assert_eq!("http://h/x//".parse::<Origin>().unwrap().to_string(), "http://h/x");
        let s3 = "s3://images/a/?endpoint=https://s3.example/".parse::<Origin>().unwrap();
        let endpoint = Some("https://s3.example".to_owned());
        let (bucket, prefix) = ("images".to_owned(), "a".to_owned());
        assert_eq!(s3, Origin::S3 { bucket, prefix, endpoint, region: REGION.to_owned() });
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (text, problem) in [
            ("", "begins with none"),
            ("dir:", "no path"),
            ("/srv/content", "begins with none"),
            ("ftp://host", "begins with none"),
            ("http://", "no host"),
            ("http://:80/x", "no host"),
            ("http://user:word@host/", "credentials"),
            ("http://host/?x=1", "query"),
            ("http://host#x", "query"),
            ("http://ho st/", "spaces"),
            ("s3://ab", "3 to 63"),
            ("s3://bu$ket", "3 to 63"),
            ("s3://bucket/a%2f", "prefix"),
            ("s3://bucket?key=1", "only"),
            ("s3://bucket?endpoint=ftp://x", "begins with none"),
            ("s3://bucket?region=", "only"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!("h".repeat(2000).parse::<Origin>().is_err());
    }
}
