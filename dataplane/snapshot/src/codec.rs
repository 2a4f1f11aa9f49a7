//! JSON lines: one line a record, `\n` after each. Compression (zstd) is applied by the file and by the link.
//!
//! ```text
//! {"generation":7,"kind":"subnet","key":"3","value":{…}}
//! {"generation":7,"kind":"boot","key":"abc123","value":null}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::ids::Generation;
use crate::limits;
use crate::record::{Change, Key, Line, Record};

/// Why a line is refused. The stream is then resynchronised, never guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// Longer than [`limits::LINE_BYTES_MAX`].
    TooLong,
    /// Not JSON of the right shape; the text says where.
    Malformed(String),
    /// The value does not belong under its key.
    KeyMismatch(String),
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CodecError::TooLong => write!(f, "line longer than {} bytes", limits::LINE_BYTES_MAX),
            CodecError::Malformed(why) => write!(f, "malformed line: {why}"),
            CodecError::KeyMismatch(key) => write!(f, "value does not belong under key `{key}`"),
        }
    }
}

impl std::error::Error for CodecError {}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    generation: Generation,
    kind: std::borrow::Cow<'a, str>,
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// Appends the line of `line` and a line feed to `out`.
pub fn encode_line(line: &Line, out: &mut Vec<u8>) {
    let (key, value) = match &line.change {
        Change::Put(record) => (record.key(), record_value(record)),
        Change::Remove(key) => (key.clone(), Value::Null),
        Change::Unknown => return,
    };
    let (kind, key) = key_parts(&key);
    let value = serde_json::json!({ "generation": line.generation, "kind": kind, "key": key, "value": value });
    out.extend_from_slice(value.to_string().as_bytes());
    out.push(b'\n');
}

/// Reads one line (without its line feed).
pub fn decode_line(bytes: &[u8]) -> Result<Line, CodecError> {
    if bytes.len() > limits::LINE_BYTES_MAX {
        return Err(CodecError::TooLong);
    }
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    let Some(key) = parse_key(&wire.kind, &wire.key)? else {
        return Ok(Line { generation: wire.generation, change: Change::Unknown });
    };
    let change = match wire.value.map(RawValue::get) {
        None => Change::Remove(key),
        Some(json) => {
            let record = parse_record(&key, json)?;
            if record.key() != key {
                return Err(CodecError::KeyMismatch(wire.key.into_owned()));
            }
            Change::Put(Box::new(record))
        }
    };
    Ok(Line { generation: wire.generation, change })
}

/// Reads all lines of a decompressed frame.
pub fn decode_lines(bytes: &[u8]) -> Result<Vec<Line>, CodecError> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(decode_line).collect()
}

fn malformed(error: serde_json::Error) -> CodecError {
    CodecError::Malformed(error.to_string())
}

fn record_value(record: &Record) -> Value {
    let value = match record {
        Record::Site(value) => serde_json::to_value(value),
        Record::Subnet(value) => serde_json::to_value(value),
        Record::Reservation(value) => serde_json::to_value(value),
        Record::Boot(value) => serde_json::to_value(value),
        Record::Plan(_, value) => serde_json::to_value(value),
        Record::Environment(value) => serde_json::to_value(value),
        Record::Enrolment(value) => serde_json::to_value(value),
        Record::DhcpOptions(value) => serde_json::to_value(value),
        Record::NamedReservation(value) => serde_json::to_value(value),
        Record::ProxyDhcp(value) => serde_json::to_value(value),
        Record::Zone(value) => serde_json::to_value(value),
        Record::Name(value) => serde_json::to_value(value),
    };
    // Every record is a struct of serialisable fields with string keys, so this cannot fail.
    value.unwrap_or(Value::Null)
}

fn key_parts(key: &Key) -> (&'static str, String) {
    match key {
        Key::Site => ("site", String::new()),
        Key::Subnet(id) => ("subnet", id.to_string()),
        Key::Reservation(mac) => ("reservation", mac.to_string()),
        Key::Boot(machine) => ("boot", machine.to_string()),
        Key::Plan(operation) => ("plan", operation.to_string()),
        Key::Environment(architecture) => ("environment", architecture.to_string()),
        Key::Enrolment(enrolment) => ("enrolment", enrolment.to_string()),
        Key::DhcpOptions(scope) => ("dhcp_options", scope.to_string()),
        Key::NamedReservation(identity) => ("named_reservation", identity.to_string()),
        Key::ProxyDhcp(vlan) => ("proxy_dhcp", vlan.to_string()),
        Key::Zone(name) => ("dns_zone", name.to_string()),
        Key::Name(name) => ("dns_name", name.to_string()),
    }
}

fn parse_key(kind: &str, key: &str) -> Result<Option<Key>, CodecError> {
    let bad = |error: crate::ids::ParseIdError| CodecError::Malformed(format!("key of kind `{kind}`: {error}"));
    Ok(Some(match kind {
        "site" => Key::Site,
        "subnet" => Key::Subnet(key.parse().map_err(bad)?),
        "reservation" => Key::Reservation(key.parse().map_err(bad)?),
        "boot" => Key::Boot(key.parse().map_err(bad)?),
        "plan" => Key::Plan(key.parse().map_err(bad)?),
        "environment" => Key::Environment(key.parse().map_err(bad)?),
        "enrolment" => Key::Enrolment(key.parse().map_err(bad)?),
        "dhcp_options" => Key::DhcpOptions(key.parse().map_err(bad)?),
        "named_reservation" => Key::NamedReservation(key.parse().map_err(bad)?),
        "proxy_dhcp" => Key::ProxyDhcp(key.parse().map_err(bad)?),
        "dns_zone" => Key::Zone(key.parse().map_err(bad)?),
        "dns_name" => Key::Name(key.parse().map_err(bad)?),
        _ => return Ok(None),
    }))
}

fn parse_record(key: &Key, json: &str) -> Result<Record, CodecError> {
    Ok(match key {
        Key::Site => Record::Site(serde_json::from_str(json).map_err(malformed)?),
        Key::Subnet(_) => Record::Subnet(serde_json::from_str(json).map_err(malformed)?),
        Key::Reservation(_) => Record::Reservation(serde_json::from_str(json).map_err(malformed)?),
        Key::Boot(_) => Record::Boot(serde_json::from_str(json).map_err(malformed)?),
        Key::Plan(operation) => Record::Plan(*operation, serde_json::from_str(json).map_err(malformed)?),
        Key::Environment(_) => Record::Environment(serde_json::from_str(json).map_err(malformed)?),
        Key::Enrolment(_) => Record::Enrolment(serde_json::from_str(json).map_err(malformed)?),
        Key::DhcpOptions(_) => Record::DhcpOptions(serde_json::from_str(json).map_err(malformed)?),
        Key::NamedReservation(_) => Record::NamedReservation(serde_json::from_str(json).map_err(malformed)?),
        Key::ProxyDhcp(_) => Record::ProxyDhcp(serde_json::from_str(json).map_err(malformed)?),
        Key::Zone(_) => Record::Zone(serde_json::from_str(json).map_err(malformed)?),
        Key::Name(_) => Record::Name(serde_json::from_str(json).map_err(malformed)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AttemptId, MachineId, OperationId, SubnetId, VlanId};
    use crate::record::{Answer, Boot, Subnet};

    fn lines() -> Vec<Line> {
        let machine: MachineId = "abc123".parse().expect("id");
        let operation = OperationId::new(1, [1; 10]);
        let attempt = AttemptId::new(1, [2; 10]);
        let boot = Boot {
            machine,
            hostname: "n001".into(),
            macs: vec!["52:54:00:00:00:01".parse().expect("mac")],
            architecture: None,
            answer: Answer::Agent { operation, attempt },
        };
        let subnet = Subnet {
            id: SubnetId(3),
            vlan: VlanId(1),
            cidr: "10.0.0.0/24".parse().expect("net"),
            gateway: None,
            dns_servers: vec![],
            ntp_servers: vec![],
            domain: None,
            mtu: None,
            dhcp: true,
            dynamic: vec![],
            ipv6_prefix: None,
        };
        let changes = [
            Change::Put(Box::new(Record::Boot(boot))),
            Change::Put(Box::new(Record::Subnet(subnet))),
            Change::Remove(Key::Plan(operation)),
        ];
        changes.into_iter().map(|change| Line { generation: Generation(7), change }).collect()
    }

    #[test]
    fn round_trip() {
        let lines = lines();
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| encode_line(line, &mut bytes));
        assert_eq!(decode_lines(&bytes), Ok(lines));
    }

    #[test]
    fn unknown_kinds_and_fields_are_ignored() {
        let line = decode_line(br#"{"generation":1,"kind":"zone","key":"x","value":{"a":1}}"#).expect("ignored");
        assert_eq!(line.change, Change::Unknown);
        let json = r#"{"generation":1,"kind":"enrolment","key":"00000000-0000-0000-0000-000000000000","more":true,
            "value":{"enrolment":"00000000-0000-0000-0000-000000000000","machine":"abc123","more":1}}"#;
        assert!(matches!(decode_line(json.as_bytes()).map(|l| l.change), Ok(Change::Put(_))));
    }

    #[test]
    fn a_value_under_a_foreign_key_is_refused() {
        let mut bytes = Vec::new();
        encode_line(&lines()[1], &mut bytes);
        let foreign = String::from_utf8_lossy(&bytes).replace(r#""key":"3""#, r#""key":"4""#);
        assert!(matches!(decode_line(foreign.trim_end().as_bytes()), Err(CodecError::KeyMismatch(_))));
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut bytes = Vec::new();
        encode_line(&lines()[0], &mut bytes);
        let line = bytes.trim_ascii_end();
        for end in 0..line.len() {
            assert!(decode_line(&line[..end]).is_err(), "prefix of {end}");
        }
    }
}
