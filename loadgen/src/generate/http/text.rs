//! Requests as octets, and the two loads that are more than one URL: metadata and the native API.

use std::rc::Rc;

use bootstorm_proto::http::client::RequestHead;
use bootstorm_proto::http::server::{Connection, Method};
use serde::Deserialize;

use super::url::Url;
use super::{Follow, Request};

/// A GET without a body; `headers` are whole lines without their ends.
///
/// # Errors
/// When the target or a header has an octet that would break the head.
pub fn get(url: &Url, target: &str, headers: &[String], connection: Connection) -> Result<Vec<u8>, String> {
    let user_agent = Some("loadgen");
    let head = RequestHead { method: Method::Get, target, host: &url.host, range: None, user_agent, connection };
    let mut octets = vec![0; bootstorm_proto::limits::HTTP_HEAD_BYTES_MAX];
    let length = head.write(&mut octets).ok_or_else(|| format!("`{}` cannot be asked for", target.escape_debug()))?;
    // The empty line that ends the head comes after the headers.
    octets.truncate(length - 2);
    for header in headers {
        octets.extend_from_slice(header.as_bytes());
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b"\r\n");
    Ok(octets)
}

/// A POST of this JSON.
fn post(url: &Url, target: &str, headers: &[String], json: &str) -> Result<Vec<u8>, String> {
    let mut all = vec!["Content-Type: application/json".to_owned(), format!("Content-Length: {}", json.len())];
    all.extend_from_slice(headers);
    let mut octets = get(url, target, &all, Connection::KeepAlive)?;
    octets.splice(..3, *b"POST");
    octets.extend_from_slice(json.as_bytes());
    Ok(octets)
}

/// The lines of a header file: `NAME: VALUE` each, such as a credential; they are sent and never shown.
///
/// # Errors
/// When a line is no header; the line itself is not told.
pub fn headers(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).enumerate();
    lines
        .map(|(number, line)| {
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let is_header = line.split_once(':').is_some_and(|(name, _)| is_name(name));
            if is_header && !line.chars().any(char::is_control) {
                Ok(line.to_owned())
            } else {
                Err(format!("line {} of the header file is not of the form `NAME: VALUE`", number + 1))
            }
        })
        .collect()
}

/// Whose way of serving metadata is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// cloud-init's NoCloud: meta-data, user-data, vendor-data, network-config below the URL.
    Nocloud,
    /// EC2: `latest/meta-data` and its items, `latest/user-data`.
    Ec2,
    /// MAAS: `2012-03-01/meta-data` and its items, `user-data`.
    Maas,
}

/// Names of what is timed of metadata.
pub const METADATA_STAGES: &[&str] = &["connect", "meta-data", "item", "user-data", "vendor-data", "network-config"];

/// What a machine's first boot asks for, below a URL.
///
/// # Errors
/// As [`get`].
pub fn metadata(url: &Url, style: Style, headers: &[String]) -> Result<Vec<Request>, String> {
    let paths: &[(&str, usize)] = match style {
        Style::Nocloud => &[("meta-data", 1), ("user-data", 3), ("vendor-data", 4), ("network-config", 5)],
        Style::Ec2 => &[
            ("latest/meta-data/", 1),
            ("latest/meta-data/instance-id", 2),
            ("latest/meta-data/local-hostname", 2),
            ("latest/user-data", 3),
        ],
        Style::Maas => &[
            ("2012-03-01/meta-data/", 1),
            ("2012-03-01/meta-data/instance-id", 2),
            ("2012-03-01/meta-data/local-hostname", 2),
            ("2012-03-01/user-data", 3),
        ],
    };
    let base = url.target.trim_end_matches('/');
    let request = |(path, stage): &(&str, usize)| {
        let octets = get(url, &format!("{base}/{path}"), headers, Connection::KeepAlive)?;
        Ok(Request { octets, stage: *stage, weight: 1, follow: None })
    };
    paths.iter().map(request).collect()
}

/// Names of what is timed of the native API; a call is named as its stage is.
pub const API_STAGES: &[&str] =
    &["connect", "status", "machines", "images", "subnets", "events", "operations", "racks", "allocate", "release"];
const ALLOCATE: usize = 8;
const RELEASE: usize = 9;
/// What is asked when nothing is said: what people and dashboards look at, and a little change.
pub const API_CALLS: &str = "machines=8,status=4,events=2,operations=2,allocate=1";

/// The calls of a list `NAME=WEIGHT,…` on Bootstorm's native API, with a token.
///
/// # Errors
/// A call that is not known, or a weight that is no number.
pub fn api(url: &Url, token: &str, calls: &str) -> Result<Vec<Request>, String> {
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err("the token file does not hold one token".to_owned());
    }
    let headers = Rc::new(vec![format!("Authorization: Bearer {token}")]);
    let request = |call: &str| {
        let (name, weight) = call.split_once('=').unwrap_or((call, "1"));
        let weight = weight.parse().map_err(|_| format!("weight of `{}` is no number", call.escape_debug()))?;
        let known = API_STAGES[1..=ALLOCATE].iter().position(|known| *known == name).map(|place| place + 1);
        let Some(stage) = known else {
            let calls = API_STAGES[1..=ALLOCATE].join(", ");
            return Err(format!("call `{}` is not known: use {calls}", name.escape_debug()));
        };
        if stage != ALLOCATE {
            let octets = get(url, &format!("/api/v1/{name}"), &headers, Connection::KeepAlive)?;
            return Ok(Request { octets, stage, weight, follow: None });
        }
        let octets = post(url, "/api/v1/machines/allocate", &headers, r#"{"comment":"loadgen"}"#)?;
        let (url, headers) = (url.clone(), Rc::clone(&headers));
        let make = move |body: &[u8]| {
            let Allocated { id } = serde_json::from_slice(body).ok()?;
            // An id of another form would be a path of the server's choice.
            let is_id = id.len() == 6 && id.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit());
            let target = format!("/api/v1/machines/{id}/release");
            is_id.then(|| post(&url, &target, &headers, r#"{"erase":"none","comment":"loadgen"}"#).ok()).flatten()
        };
        Ok(Request { octets, stage, weight, follow: Some(Follow { make: Rc::new(make), stage: RELEASE }) })
    };
    calls.split(',').map(request).collect()
}

/// What is read of an allocation's answer.
#[derive(Deserialize)]
struct Allocated {
    id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        "http://127.0.0.1:5240/base/".parse().unwrap()
    }

    #[test]
    fn calls_carry_the_token_and_an_allocation_is_released() {
        let requests = api(&url(), "secret\n", "machines=3,allocate").unwrap();
        assert_eq!(
            requests.iter().map(|request| (request.stage, request.weight)).collect::<Vec<_>>(),
            [(2, 3), (8, 1)]
        );
        let text = String::from_utf8(requests[0].octets.clone()).unwrap();
        assert!(text.starts_with("GET /api/v1/machines HTTP/1.1\r\nHost: 127.0.0.1:5240\r\n"), "{text}");
        assert!(text.ends_with("Authorization: Bearer secret\r\n\r\n"), "{text}");
        let follow = requests[1].follow.as_ref().unwrap();
        let release = String::from_utf8((follow.make)(br#"{"id":"ab12cd","name":"n1"}"#).unwrap()).unwrap();
        assert!(release.starts_with("POST /api/v1/machines/ab12cd/release HTTP/1.1\r\n"), "{release}");
        let (head, body) = release.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{release}");
        for body in [&br#"{"id":"../../x"}"#[..], b"{}", b"x"] {
            assert!((follow.make)(body).is_none());
        }
        assert!(api(&url(), "secret", "nonsense").is_err() && api(&url(), "a b", "status").is_err());
        assert!(api(&url(), "secret", API_CALLS).is_ok());
    }

    #[test]
    fn metadata_is_asked_for_below_the_url_with_its_headers() {
        let lines = headers("Authorization: Bearer x\n\nX-Other: y\n").unwrap();
        assert_eq!(lines.len(), 2);
        let requests = metadata(&url(), Style::Nocloud, &lines).unwrap();
        let text = String::from_utf8(requests[0].octets.clone()).unwrap();
        assert!(text.starts_with("GET /base/meta-data HTTP/1.1\r\n") && text.contains("\r\nX-Other: y\r\n\r\n"));
        assert!(requests.iter().all(|request| request.stage < METADATA_STAGES.len()));
        let refused = headers("secret").unwrap_err();
        assert!(!refused.contains("secret"));
    }
}
