//! The part of a URL's grammar (RFC 3986) that a load is given by: `http://HOST[:PORT][/PATH[?QUERY]]`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A URL, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Where to connect.
    pub server: SocketAddr,
    /// `Host`: as it was given.
    pub host: String,
    /// Path and query, beginning with `/`.
    pub target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| format!("`{text}` does not begin with http://"))?;
        let (host, target) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if host.contains(['@', '?', '#']) || target.contains('#') || target.bytes().any(|byte| byte <= b' ') {
            return Err(format!("`{}` is no URL of the form http://HOST[:PORT]/PATH", text.escape_debug()));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let place = if has_port { host.to_owned() } else { format!("{host}:80") };
        let found = place.to_socket_addrs().map_err(|error| format!("host of `{text}`: {error}"))?.next();
        let server = found.ok_or_else(|| format!("host of `{text}` has no address"))?;
        Ok(Url { server, host: host.to_owned(), target: target.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url: Url = "http://192.0.2.7:5248/files/a?x=1".parse().unwrap();
        assert_eq!((url.server, url.host.as_str()), ("192.0.2.7:5248".parse().unwrap(), "192.0.2.7:5248"));
        assert_eq!(url.target, "/files/a?x=1");
        let url: Url = "http://[::1]".parse().unwrap();
        assert_eq!((url.server, url.target.as_str()), ("[::1]:80".parse().unwrap(), "/"));
        for odd in ["https://192.0.2.7/", "192.0.2.7/", "http://a@192.0.2.7/", "http://192.0.2.7/a b", "http://"] {
            assert!(odd.parse::<Url>().is_err(), "{odd}");
        }
    }
}
