//! P9: every vector of `tests/vectors`, every truncation and every single-octet change of each, and all inputs of up to two
//! octets, go through their parsers. Nothing may panic, and the vectors themselves must be read as their kind says.

use core::net::Ipv4Addr;

use bootstorm_proto::dhcp::brief::Brief;
use bootstorm_proto::dhcp::client_kind::{BootClient, Firmware, classify};
use bootstorm_proto::dhcp::options::{Architecture, MessageType};
use bootstorm_proto::dhcp::server::{Delivery, Intent, intent};
use bootstorm_proto::dhcp::wire::{Answer, Reply, Request};
use bootstorm_proto::dns::answer::Response;
use bootstorm_proto::eth::{Checksums, Icmpv6Frame, UdpFrame};
use bootstorm_proto::http::client::ResponseParser;
use bootstorm_proto::http::server::{Method, RequestParser, select};
use bootstorm_proto::ndp::{Received, RouterAdvertisement, RouterSolicitation};
use bootstorm_proto::tftp::wire::Packet;
use bootstorm_proto::{dhcp6, limits, tftp};

const DHCP4: &str = include_str!("../../../tests/vectors/dhcp4.hex");
const DHCP6: &str = include_str!("../../../tests/vectors/dhcp6.hex");
const DNS: &str = include_str!("../../../tests/vectors/dns.hex");
const TFTP: &str = include_str!("../../../tests/vectors/tftp.hex");
const HTTP: &str = include_str!("../../../tests/vectors/http.hex");
const NDP: &str = include_str!("../../../tests/vectors/ndp.hex");

struct Vector {
    name: &'static str,
    kind: &'static str,
    bytes: Vec<u8>,
    /// Octets in long runs of zeros: header filler, where a few values stand for all.
    filler: Vec<bool>,
}

fn vectors(file: &'static str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            vectors.push(Vector { name, kind: "", bytes: Vec::new(), filler: Vec::new() });
            continue;
        }
        let vector = vectors.last_mut().expect("a vector begins with its name");
        if let Some(kind) = line.strip_prefix("kind = ") {
            vector.kind = kind;
        } else if let Some(source) = line.strip_prefix("source = ") {
            assert!(!source.is_empty(), "{} has no provenance", vector.name);
        } else if let Some(count) = line.strip_prefix("00*") {
            let count: usize = count.parse().unwrap();
            vector.bytes.extend(std::iter::repeat_n(0, count));
            vector.filler.extend(std::iter::repeat_n(true, count));
        } else {
            for pair in line.as_bytes().chunks(2) {
                vector.bytes.push(u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
                vector.filler.push(false);
            }
        }
    }
    assert!(!vectors.is_empty());
    vectors
}

/// Calls `see` with every truncation and every single-octet change of a vector.
fn damaged(vector: &Vector, mut see: impl FnMut(&[u8])) {
    for end in 0..vector.bytes.len() {
        see(&vector.bytes[..end]);
    }
    let mut bytes = vector.bytes.clone();
    for at in 0..bytes.len() {
        let right = bytes[at];
        let values: &[u8] = if vector.filler[at] { &[1, 12, 52, 53, 127, 128, 254, 255] } else { &ALL_OCTETS };
        for value in values.iter().filter(|value| **value != right) {
            bytes[at] = *value;
            see(&bytes);
        }
        bytes[at] = right;
    }
}

const ALL_OCTETS: [u8; 256] = {
    let mut octets = [0; 256];
    let mut at = 0;
    while at < 256 {
        octets[at] = at as u8;
        at += 1;
    }
    octets
};

fn short_inputs(mut see: impl FnMut(&[u8])) {
    see(&[]);
    for first in 0..=255 {
        see(&[first]);
        for second in 0..=255 {
            see(&[first, second]);
        }
    }
}

/// Whatever is accepted can be answered, within the client's size, and the answer can be read.
fn dhcp(bytes: &[u8]) -> Option<Request> {
    // Both readings of an answer agree wherever both accept it, but for options that stand in overloaded fields.
    if let (Ok(brief), Ok(answer)) = (Brief::parse(bytes), Answer::parse(bytes)) {
        assert_eq!((brief.transaction_id, brief.your_ip), (answer.transaction_id, answer.your_ip));
    }
    let request = Request::parse(bytes).ok()?;
    let _ = classify(&request);
    let _ = intent(&request, Delivery::Broadcast);
    let mut buffer = [0; limits::DHCP_MESSAGE_BYTES_MAX];
    let reply = Reply::new(MessageType::Nak, Ipv4Addr::new(10, 0, 0, 1));
    let encoded = reply.encode(&request, &mut buffer).unwrap();
    assert!(encoded.bytes <= request.reply_bytes_max());
    let answer = Answer::parse(&buffer[..encoded.bytes]).unwrap();
    assert_eq!(answer.relay_agent_information, request.relay_agent_information);
    assert_eq!(answer.machine_identifier, request.machine_identifier);
    Some(request)
}

fn http(bytes: &[u8]) {
    if let Ok(Some((request, length))) = RequestParser::new().parse(bytes) {
        assert!(length <= bytes.len());
        assert!(!request.name.split('/').any(|segment| segment == ".."));
        let _ = select(&request, 1_000, Some("tag"));
    }
    let _ = ResponseParser::new(Method::Get).parse(bytes);
}

fn ndp(bytes: &[u8]) -> Option<(bool, bool)> {
    let _ = UdpFrame::parse(bytes, Checksums::Verify);
    let frame = Icmpv6Frame::parse(bytes).ok()?;
    let received = Received {
        source: frame.source,
        destination: frame.destination,
        hop_limit: frame.hop_limit,
        message: frame.message,
    };
    Some((RouterSolicitation::parse(&received).is_ok(), RouterAdvertisement::parse(&received).is_ok()))
}

#[test]
fn dhcp_vectors_are_read_and_classified() {
    use Architecture as A;
    use Firmware as F;
    let expected = |name: &str| match name {
        "ipxe-bios-discover" | "ipxe-bios-request" => (F::IpxeBios, A::X86Bios),
        "ovmf-pxe4-discover" | "ovmf-pxe4-request" => (F::PxeUefi, A::Amd64),
        "ovmf-http4-discover" => (F::HttpBoot, A::Amd64),
        "ipxe-efi-discover" => (F::IpxeUefi, A::Amd64),
        "aavmf-pxe4-discover" => (F::PxeUefi, A::Arm64),
        "slof-discover" => (F::Undeclared, A::Unknown),
        "slof-request" => (F::OpenFirmware, A::Ppc64),
        "s390-ccw-request" => (F::S390, A::S390x),
        "relayed-discover" => (F::PxeBios, A::X86Bios),
        "split-discover" => (F::PxeBios, A::Unknown),
        _ => (F::None, A::Unknown),
    };
    for vector in vectors(DHCP4) {
        if vector.kind == "reply" {
            Answer::parse(&vector.bytes).unwrap_or_else(|reason| panic!("{}: {reason}", vector.name));
            continue;
        }
        let request = Request::parse(&vector.bytes).unwrap_or_else(|reason| panic!("{}: {reason}", vector.name));
        let (firmware, architecture) = expected(vector.name);
        assert_eq!(classify(&request), BootClient { firmware, architecture }, "{}", vector.name);
        let intent = intent(&request, Delivery::Unicast).unwrap_or_else(|reason| panic!("{}: {reason}", vector.name));
        match vector.name {
            "renewing-request" => assert!(matches!(intent, Intent::Renew { .. })),
            "overloaded-discover" => assert_eq!(request.host_name.as_deref(), Some("abc")),
            "relayed-discover" => assert_eq!(request.relay_agent_information.as_deref(), Some(&b"\x01\x03dn0"[..])),
            _ => {}
        }
    }
}

#[test]
fn p9_dhcp_damaged_vectors() {
    for vector in vectors(DHCP4) {
        damaged(&vector, |bytes| drop(dhcp(bytes)));
    }
    short_inputs(|bytes| assert_eq!(dhcp(bytes), None));
}

#[test]
fn p9_tftp_damaged_vectors() {
    for vector in vectors(TFTP) {
        let parsed = Packet::parse(&vector.bytes);
        match vector.kind {
            "refused" => assert_eq!(parsed, Err(tftp::DropReason::WriteRequest), "{}", vector.name),
            "request" => assert!(matches!(parsed, Ok(Packet::ReadRequest(_))), "{}", vector.name),
            _ => assert!(parsed.is_ok(), "{}", vector.name),
        }
        damaged(&vector, |bytes| {
            let _ = Packet::parse(bytes);
        });
    }
    short_inputs(|bytes| {
        let _ = Packet::parse(bytes);
    });
}

#[test]
fn p9_dhcp6_damaged_vectors() {
    let parse = |bytes: &[u8]| {
        let answer = dhcp6::wire::Answer::parse(bytes).ok()?;
        assert!(answer.client.len() <= limits::DUID_BYTES_MAX && answer.server.len() <= limits::DUID_BYTES_MAX);
        Some(answer.transaction_id)
    };
    for vector in vectors(DHCP6) {
        assert_eq!(parse(&vector.bytes).is_some(), vector.kind == "answer", "{}", vector.name);
        damaged(&vector, |bytes| {
            let _ = parse(bytes);
        });
    }
    short_inputs(|bytes| assert_eq!(parse(bytes), None));
}

#[test]
fn p9_dns_damaged_vectors() {
    let parse = |bytes: &[u8]| {
        let response = Response::parse(bytes).ok()?;
        assert!(response.is_about(response.question) && response.question.len() < bytes.len());
        Some(response.id)
    };
    for vector in vectors(DNS) {
        assert_eq!(parse(&vector.bytes).is_some(), vector.kind == "answer", "{}", vector.name);
        damaged(&vector, |bytes| {
            let _ = parse(bytes);
        });
    }
    short_inputs(|bytes| assert_eq!(parse(bytes), None));
}

#[test]
fn p9_http_damaged_vectors() {
    for vector in vectors(HTTP) {
        let read = match vector.kind {
            "request" => RequestParser::new().parse(&vector.bytes).map(|found| found.is_some()).unwrap_or(false),
            _ => ResponseParser::new(Method::Get).parse(&vector.bytes).map(|found| found.is_some()).unwrap_or(false),
        };
        assert!(read, "{}", vector.name);
        damaged(&vector, http);
    }
    short_inputs(http);
}

#[test]
fn p9_ndp_damaged_vectors() {
    for vector in vectors(NDP) {
        let expected = vector.kind == "solicitation";
        assert_eq!(ndp(&vector.bytes), Some((expected, !expected)), "{}", vector.name);
        damaged(&vector, |bytes| {
            let _ = ndp(bytes);
        });
    }
    short_inputs(|bytes| assert_eq!(ndp(bytes), None));
}
