//! What it costs to read and to write one message of each protocol.

use std::hint::black_box;
use std::net::Ipv4Addr;

use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::wire::{BootFile, ClientMessage, LeaseTimes, Reply, Request};
use bootstorm_proto::http::server::RequestParser;
use bootstorm_proto::tftp::wire::{Options, Packet, ReadRequest};
use criterion::{Criterion, criterion_group, criterion_main};
use dhcproto::{Decodable, Encodable};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const RACK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// What iPXE's and UEFI firmware's Discover have in them.
fn discover() -> Vec<u8> {
    let options: [(u8, &[u8]); 6] = [
        (55, &[1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97]),
        (57, &[5, 192]),
        (97, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        (94, &[1, 3, 16]),
        (93, &[0, 7]),
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
    ];
    let mut buffer = [0; 1400];
    let length = ClientMessage {
        message_type: MessageType::Discover,
        transaction_id: 7,
        seconds: 0,
        broadcast: false,
        hops: 0,
        client_ip: Ipv4Addr::UNSPECIFIED,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        client_hardware_address: MAC,
        options: &options,
    }
    .encode(&mut buffer)
    .expect("the buffer holds a Discover");
    buffer[..length].to_vec()
}

fn dhcp(c: &mut Criterion) {
    let discover = discover();
    c.bench_function("dhcp/parse_discover", |b| b.iter(|| Request::parse(black_box(&discover)).expect("valid")));
    // The same octets into the other codec's owned message, and through its borrowed walk, which checks less: decision 5.
    c.bench_function("dhcp/parse_discover_dhcproto", |b| {
        b.iter(|| dhcproto::v4::Message::decode(&mut dhcproto::Decoder::new(black_box(&discover))).expect("valid"));
    });
    c.bench_function("dhcp/walk_discover_dhcproto", |b| {
        b.iter(|| {
            let message = dhcproto::v4::borrowed::Message::new(black_box(&discover)).expect("valid");
            message.opts().map(|option| black_box(option.data()).len()).sum::<usize>()
        });
    });
    let request = Request::parse(&discover).expect("valid");
    let gateways = [Ipv4Addr::new(10, 0, 0, 254)];
    let reply = Reply {
        your_ip: Ipv4Addr::new(10, 0, 1, 1),
        next_server_ip: RACK,
        lease: Some(LeaseTimes::new(600)),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 0, 0)),
        routers: &gateways,
        domain_name_servers: &gateways,
        host_name: Some("n001"),
        domain_name: Some("example.test"),
        boot_file: Some(BootFile { server_name: Some("10.0.0.1"), name: "snponly.efi" }),
        vendor_class: Some(b"PXEClient"),
        ..Reply::new(MessageType::Offer, RACK)
    };
    let mut buffer = [0; 1500];
    c.bench_function("dhcp/encode_offer", |b| {
        b.iter(|| black_box(&reply).encode(&request, &mut buffer).expect("fits"));
    });
    // The same reply by the other codec, without a limit and an order of the client's: from a message that is there, and from
    // one that is made for it, as each reply has its own values.
    let length = reply.encode(&request, &mut buffer).expect("fits").bytes;
    let other = dhcproto::v4::Message::decode(&mut dhcproto::Decoder::new(&buffer[..length])).expect("valid");
    let mut out = Vec::with_capacity(buffer.len());
    c.bench_function("dhcp/encode_offer_dhcproto", |b| {
        b.iter(|| {
            out.clear();
            black_box(&other).encode(&mut dhcproto::Encoder::new(&mut out)).expect("valid");
        });
    });
    c.bench_function("dhcp/make_and_encode_offer_dhcproto", |b| {
        b.iter(|| {
            out.clear();
            black_box(&other).clone().encode(&mut dhcproto::Encoder::new(&mut out)).expect("valid");
        });
    });
}

fn http(c: &mut Criterion) {
    let wrk = b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n".as_slice();
    let curl = b"GET /files/debian-12.zst HTTP/1.1\r\nHost: 10.0.0.1:5248\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
Range: bytes=262144-524287\r\nIf-Range: \"abc\"\r\n\r\n"
        .as_slice();
    for (name, bytes) in [("http/parse_request", wrk), ("http/parse_range_request", curl)] {
        c.bench_function(name, |b| {
            b.iter(|| {
                let mut parser = RequestParser::new();
                parser.parse(black_box(bytes)).expect("valid").map(|(_, length)| length).expect("whole")
            });
        });
    }
}

fn tftp(c: &mut Criterion) {
    let options = Options { block_bytes: Some(1468), window_blocks: Some(64), ..Options::default() };
    let mut buffer = [0; 512];
    let length = ReadRequest { name: "amd64/snponly.efi", options }.encode(&mut buffer).expect("fits");
    let request = &buffer[..length];
    c.bench_function("tftp/parse_read_request", |b| b.iter(|| Packet::parse(black_box(request)).expect("valid")));
    let ack = [0, 4, 1, 2];
    c.bench_function("tftp/parse_ack", |b| b.iter(|| Packet::parse(black_box(&ack)).expect("valid")));
}

criterion_group!(codecs, dhcp, http, tftp);
criterion_main!(codecs);
