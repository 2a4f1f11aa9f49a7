//! Fuzz targets as plain functions over octets. `libfuzzer/` wraps them for `cargo fuzz`; `tests/smoke.rs` runs the committed
//! corpus and a bounded number of mutations on a stable toolchain.
//!
//! A target panics if a parser panics, or if what a parser accepted cannot be processed as its contract says. A crash that
//! was found becomes a file of the corpus in the same change as its fix (P10).

mod content;
mod dns;
mod http;
mod snapshot;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bootstorm_proto::dhcp::brief::Brief;
use bootstorm_proto::dhcp::client_kind::classify;
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::server::{Delivery, Destination, destination, intent};
use bootstorm_proto::dhcp::wire::{Answer, BootFile, LeaseTimes, ProxyDhcpWait, PxeDiscovery, Reply, Request};
use bootstorm_proto::dns::answer::Response;
use bootstorm_proto::eth::{Checksums, Icmpv6Frame, UdpFrame};
use bootstorm_proto::http::client::ResponseParser;
use bootstorm_proto::http::server::{Method, RequestParser, ResponseHead, Selection, Status, select};
use bootstorm_proto::ndp::{self, Received, RouterAdvertisement, RouterSolicitation};
use bootstorm_proto::tftp::server::{Output, Settings, Transfer};
use bootstorm_proto::tftp::wire::Packet;
use bootstorm_proto::{Monotonic, dhcp6, limits};

/// A target: its name, which is its corpus folder too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("dhcp_v4_parse", dhcp_v4_parse),
    ("dhcp_v4_process", dhcp_v4_process),
    ("dhcp_v6_answer_parse", dhcp_v6_answer_parse),
    ("dns_answer_parse", dns_answer_parse),
    ("dns_request_parse", dns::dns_request_parse),
    ("dns_process", dns::dns_process),
    ("tftp_parse", tftp_parse),
    ("tftp_process", tftp_process),
    ("http_request_parse", http_request_parse),
    ("http_response_parse", http_response_parse),
    ("ndp_parse", ndp_parse),
    ("http_process", http::http_process),
    ("manifest_parse", content::manifest_parse),
    ("chunk_decode", content::chunk_decode),
    ("content_process", content::content_process),
    ("snapshot_parse", snapshot::snapshot_parse),
    ("local_frame_parse", snapshot::local_frame_parse),
    #[cfg(feature = "importer")]
    ("qcow2_process", content::qcow2_process),
];

#[cfg(feature = "importer")]
pub use content::qcow2_process;
pub use content::{chunk_decode, content_process, manifest_parse, seal_content};
pub use dns::{dns_process, dns_request_parse};
pub use http::http_process;
pub use snapshot::{local_frame_parse, snapshot_parse};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

/// DHCPv4 messages of both directions.
pub fn dhcp_v4_parse(data: &[u8]) {
    let _ = Request::parse(data);
    if let (Ok(brief), Ok(answer)) = (Brief::parse(data), Answer::parse(data)) {
        assert_eq!((brief.transaction_id, brief.your_ip), (answer.transaction_id, answer.your_ip));
    }
    let _ = UdpFrame::parse(data, Checksums::SkipUdp);
}

/// A DHCPv4 request on its whole way: parsed, classified, answered with everything we can say, and read again.
pub fn dhcp_v4_process(data: &[u8]) {
    let Ok(request) = Request::parse(data) else { return };
    let client = classify(&request);
    let _ = (intent(&request, Delivery::Unicast), intent(&request, Delivery::Broadcast));
    let reply = Reply {
        your_ip: ADDRESS,
        next_server_ip: SERVER,
        lease: Some(LeaseTimes::new(600)),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        routers: &[SERVER],
        domain_name_servers: &[SERVER, ADDRESS],
        host_name: request.host_name.as_deref(),
        domain_name: Some("example.test"),
        mtu: Some(1_500),
        broadcast_address: Some(Ipv4Addr::new(10, 0, 0, 255)),
        ntp_servers: &[SERVER],
        boot_file: Some(BootFile { name: "http://10.0.0.1:5248/boot.ipxe", server_name: Some("10.0.0.1") }),
        vendor_class: client.vendor_class_echo(),
        pxe_discovery: PxeDiscovery::UseBootFile,
        proxy_dhcp_wait: if client.is_ipxe() { ProxyDhcpWait::Skip } else { ProxyDhcpWait::Unsaid },
        ..Reply::new(MessageType::Offer, SERVER)
    };
    let mut buffer = [0; limits::DHCP_MESSAGE_BYTES_MAX];
    let encoded = match reply.encode(&request, &mut buffer) {
        Ok(encoded) => encoded,
        // Only a client that sends two long options to be echoed, and takes no more than the default, has no room.
        Err(error) => {
            let echoed = request.machine_identifier.as_deref().map_or(0, <[u8]>::len)
                + request.relay_agent_information.as_deref().map_or(0, <[u8]>::len);
            assert!(echoed > 150, "{error} for {request:?}");
            return;
        }
    };
    assert!(encoded.bytes <= request.reply_bytes_max() && encoded.bytes >= limits::DHCP_REPLY_BYTES_MIN);
    let answer = Answer::parse(&buffer[..encoded.bytes]).expect("our own reply can be read");
    assert_eq!(answer.transaction_id, request.transaction_id);
    assert_eq!(answer.relay_agent_information, request.relay_agent_information);
    assert_eq!(answer.machine_identifier, request.machine_identifier);
    assert_eq!(answer.boot_file.as_deref(), Some("http://10.0.0.1:5248/boot.ipxe"));
    assert_eq!(answer.your_ip, ADDRESS);
    match destination(&request, MessageType::Offer, ADDRESS) {
        Destination::LinkUnicast { mac, .. } => assert_eq!(mac, request.client_hardware_address),
        Destination::Relay(relay) => assert_eq!(*relay.ip(), request.relay_agent_ip),
        Destination::Unicast(client) => assert_eq!(*client.ip(), request.client_ip),
        Destination::Broadcast => {}
    }
}

/// A DHCPv6 answer, and the request that a client makes of it, which fits.
pub fn dhcp_v6_answer_parse(data: &[u8]) {
    let Ok(answer) = dhcp6::wire::Answer::parse(data) else { return };
    let request = dhcp6::wire::ClientMessage {
        message_type: dhcp6::MessageType::Request,
        transaction_id: answer.transaction_id,
        client: dhcp6::wire::Duid::Uuid([9; 16]),
        server: Some(answer.server),
        elapsed_hundredths: 0,
        association_id: answer.lease.map_or(0, |lease| lease.association_id),
        address: answer.lease.map(|lease| lease.address),
        option_request: &[],
        architecture: None,
    };
    request.encode(&mut [0; 256]).expect("identifiers are bounded");
}

/// A DNS response; what it repeats of its question is its question.
pub fn dns_answer_parse(data: &[u8]) {
    if let Ok(response) = Response::parse(data) {
        assert!(response.is_about(response.question));
        assert!(response.question.len() <= limits::DNS_NAME_BYTES_MAX + 4);
    }
}

/// A TFTP packet.
pub fn tftp_parse(data: &[u8]) {
    if let Ok(Packet::ReadRequest(request)) = Packet::parse(data) {
        assert!(!request.name.is_empty() && request.name.len() <= limits::TFTP_NAME_BYTES_MAX);
        let mut buffer = [0; limits::TFTP_REQUEST_BYTES_MAX + 64];
        let length = request.encode(&mut buffer).expect("room for a request that was read");
        // A name that begins with two slashes loses another one on the way.
        if !request.name.starts_with('/') && length <= limits::TFTP_REQUEST_BYTES_MAX {
            assert_eq!(Packet::parse(&buffer[..length]), Ok(Packet::ReadRequest(request)));
        }
    }
}

/// A transfer: the first packet of `data` is its request, then each record (length, octets) comes from the peer, and a zero
/// length lets the timer run out.
pub fn tftp_process(data: &[u8]) {
    let peer = SocketAddr::new(IpAddr::V4(ADDRESS), 2_070);
    let request_end = data.len().min(limits::TFTP_REQUEST_BYTES_MAX);
    let (head, mut rest) = match data.iter().position(|byte| *byte == 0xff) {
        Some(at) => (&data[..at.min(request_end)], &data[at + 1..]),
        None => (&data[..request_end], &[][..]),
    };
    let Ok(Packet::ReadRequest(request)) = Packet::parse(head) else { return };
    let file_bytes = 100_000;
    let mut now = Monotonic::ZERO;
    let mut transfer = Transfer::new(now, peer, &request, file_bytes, &Settings::default());
    let mut unproven_bytes = 0;
    loop {
        while let Some(output) = transfer.poll_output() {
            let sent = match output {
                Output::Control(control) => control.as_bytes().len() as u64,
                Output::Blocks(window) => {
                    assert!(window.blocks >= 1 && window.blocks <= limits::TFTP_WINDOW_BLOCKS_MAX);
                    assert!(window.file_end <= file_bytes && window.file_start <= window.file_end);
                    assert_eq!(
                        window.datagrams().map(|(_, range)| range.end - range.start).sum::<u64>(),
                        window.bytes()
                    );
                    window.bytes() + 4 * u64::from(window.blocks)
                }
                Output::Finished(_) => {
                    assert_eq!(transfer.next_timeout(), None);
                    return;
                }
            };
            if !transfer.is_proven() {
                unproven_bytes += sent;
                assert!(unproven_bytes <= limits::TFTP_UNPROVEN_BYTES_MAX as u64);
            }
        }
        let Some((length, after)) = rest.split_first() else { return };
        let (packet, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        if packet.is_empty() {
            now = transfer.next_timeout().unwrap_or(now);
            transfer.handle_timeout(now);
        } else {
            now += Monotonic::from_millis(1);
            let _ = transfer.handle_datagram(now, peer, packet);
        }
    }
}

/// An HTTP request head, and what is selected and answered for it.
pub fn http_request_parse(data: &[u8]) {
    let whole = RequestParser::new().parse(data);
    // In two pieces it is the same.
    let mut parser = RequestParser::new();
    let first = parser.parse(&data[..data.len() / 2]);
    if let Ok(None) = first {
        assert_eq!(parser.parse(data), whole);
    }
    let Ok(Some((request, length))) = whole else { return };
    assert!(length <= data.len() && length <= limits::HTTP_HEAD_BYTES_MAX);
    assert!(!request.name.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(!request.name.chars().any(char::is_control) && request.name.len() <= limits::HTTP_NAME_BYTES_MAX);
    for bytes in [0, 1, 1_000] {
        let selection = select(&request, bytes, Some("tag"));
        let mut head = ResponseHead::new(Status::Ok, bytes, request.connection);
        if let Selection::Part(part) = selection {
            assert!(part.start < part.end && part.end <= bytes);
            head.part = Some((part, bytes));
        }
        head.write(&mut [0; limits::HTTP_RESPONSE_HEAD_BYTES]).expect("our own head fits");
    }
}

/// An HTTP response head and its body.
pub fn http_response_parse(data: &[u8]) {
    for method in [Method::Get, Method::Head] {
        if let Ok(Some((mut head, length))) = ResponseParser::new(method).parse(data) {
            let (body, rest) = head.body.take(&data[length..]);
            assert_eq!(body.len() + rest.len(), data.len() - length);
        }
    }
}

/// A frame with router discovery in it; what is read can be written and read again.
pub fn ndp_parse(data: &[u8]) {
    let Ok(frame) = Icmpv6Frame::parse(data) else { return };
    let received = Received {
        source: frame.source,
        destination: frame.destination,
        hop_limit: frame.hop_limit,
        message: frame.message,
    };
    let _ = RouterSolicitation::parse(&received).map(|solicitation| solicitation.answer_to());
    if let Ok(advertisement) = RouterAdvertisement::parse(&received) {
        let mut buffer = [0; limits::NDP_MESSAGE_BYTES_MAX];
        if let Some(length) = advertisement.write(ndp::ALL_NODES, &mut buffer) {
            let again =
                Received { destination: ndp::ALL_NODES, hop_limit: 255, message: &buffer[..length], ..received };
            let read = RouterAdvertisement::parse(&again).expect("our own advertisement can be read");
            assert_eq!(read.prefixes.len(), advertisement.prefixes.len());
        }
    }
}
