//! Writes the first files of corpora whose inputs nobody would type: `cargo test -p bootstorm-fuzz --test corpus -- --ignored`.

use std::net::Ipv4Addr;
use std::path::Path;

use bootstorm_api::frame;
use bootstorm_api::local::{Request, ToGateway, ToRack, Wish};
use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::record::{Answer, Boot, Environment, File, Record, Site, Unknown};
use bootstorm_snapshot::{
    Architecture, AttemptId, ChunkName, ClaimHash, Encoding, Generation, ImageId, KeyHash, Mac, ManifestDigest,
    OperationId, View, codec,
};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn file(name: &str) -> File {
    File {
        name: name.into(),
        manifest: ManifestDigest::of(name.as_bytes()),
        raw: ImageId::of(name.as_bytes()),
        raw_bytes: 1_000,
        encoding: Encoding::Plain,
    }
}

fn manifest(encoding: Encoding, lengths: &[(u32, u32)]) -> Vec<u8> {
    let entry = |(raw_bytes, stored_bytes): &(u32, u32)| {
        let name = ChunkName::of(&raw_bytes.to_le_bytes());
        let name = if *stored_bytes == 0 { ChunkName([0; 32]) } else { name };
        Entry { name, raw_bytes: *raw_bytes, stored_bytes: *stored_bytes }
    };
    let raw_bytes = lengths.iter().map(|(raw, _)| u64::from(*raw)).sum();
    let entries = lengths.iter().map(entry).collect();
    Manifest::new(encoding, ImageId::of(b"raw"), raw_bytes, "fixed-262144 zstd-3", entries).unwrap().encode()
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: rack\r\n{fields}\r\n");
    let script = "/boot.ipxe?mac=52:54:00:00:00:01";
    write("http_process", "two-requests", format!("\x20{}{}", get("/boot", ""), get(script, "")).as_bytes());
    let whole = format!("\x7f{}{}", get("/a%20b", ""), get("/sub/kernel", "Range: bytes=5-9\r\nIf-Range: \"tag\"\r\n"));
    write("http_process", "ranges", whole.as_bytes());
    let digest = ManifestDigest::of(b"boot");
    write("http_process", "digests", format!("\x7f{}", get(&format!("/stream/{digest}"), "")).as_bytes());
    write("http_process", "manifest", format!("\x7f{}", get(&format!("/manifest/{digest}"), "")).as_bytes());
    write("http_process", "chunk", format!("\x01{}", get(&format!("/chunk/{digest}"), "")).as_bytes());
    write("http_process", "grub", format!("\x40{}", get("/grub/grub.cfg-52:54:00:00:00:01", "")).as_bytes());
    write("http_process", "head-1.0", b"\x05HEAD /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");

    write("manifest_parse", "zstd", &manifest(Encoding::Zstd, &[(262_144, 1_000), (262_144, 0), (17, 25)]));
    write("manifest_parse", "plain", &manifest(Encoding::Plain, &[(262_144, 262_144), (5, 5)]));
    write("manifest_parse", "empty", &manifest(Encoding::Plain, &[]));

    let framed =
        |claimed: u32, raw: &[u8]| [claimed.to_le_bytes().as_slice(), &zstd::bulk::compress(raw, 3).unwrap()].concat();
    write("chunk_decode", "zeros", &framed(262_144, &[0; 262_144]));
    write("chunk_decode", "text", &framed(60, &b"all work and no play ".repeat(3)[..60]));
    write("chunk_decode", "claims-too-little", &framed(10, &[1; 500]));
    write("chunk_decode", "plain", b"\x05\0\0\0plain");

    write("content_process", "three", &bootstorm_fuzz::seal_content(&[b"one", &[7; 500], b"three"]));
    write("content_process", "one", &bootstorm_fuzz::seal_content(&[b"alone"]));
    write("content_process", "nothing", b"\0\0");

    let mut view = View { generation: Generation(3), ..View::default() };
    view.put(Record::Site(Site {
        ca_pem: "pem".into(),
        unknown: Unknown::Enlist,
        lease_seconds: 3600,
        boot_lease_seconds: 600,
    }));
    view.put(Record::Environment(Environment {
        architecture: Architecture::Amd64,
        version: "1".into(),
        kernel: file("kernel"),
        initrd: file("initrd"),
        command_line: vec!["quiet".into()],
        loaders: vec![file("snponly.efi")],
    }));
    view.put(Record::Boot(Boot {
        machine: "abc123".parse().unwrap(),
        hostname: "n001".into(),
        macs: vec![Mac([0x52, 0x54, 0, 0, 0, 1])],
        architecture: Some(Architecture::Amd64),
        answer: Answer::Agent { operation: OperationId::new(1, [1; 10]), attempt: AttemptId::new(1, [2; 10]) },
    }));
    let mut text = Vec::new();
    view.base().iter().for_each(|line| codec::encode_line(line, &mut text));
    write("snapshot_parse", "base", &text);
    let mut removed = Vec::new();
    let lines = view.delta(&View { generation: Generation(4), ..View::default() });
    lines.iter().for_each(|line| codec::encode_line(line, &mut removed));
    write("snapshot_parse", "removed", &removed);
    write("snapshot_parse", "unknown", b"{\"generation\":5,\"kind\":\"later\",\"key\":\"x\",\"value\":{}}\n");

    let wish = Wish::Chunk { name: ChunkName::of(b"bytes") };
    let redeem = Request::Redeem { claim: ClaimHash::of(b"claim"), key: KeyHash::of(b"key") };
    let to_rack = [
        frame::encode(&ToRack::Fetched { wish, offset: 0, bytes_total: 5 }, b"bytes").unwrap(),
        frame::encode(&ToRack::Acknowledged { through: 9 }, &[]).unwrap(),
        frame::encode(&ToRack::Request { number: 1, peer: Ipv4Addr::LOCALHOST.into(), request: redeem }, &[]).unwrap(),
    ];
    write("local_frame_parse", "to-rack", &to_rack.concat());
    let missing = vec![ManifestDigest::of(b"file")];
    let to_gateway = [
        frame::encode(&ToGateway::Status { generation: Generation(3), missing }, &[]).unwrap(),
        frame::encode(&ToGateway::Wish { wish }, &[]).unwrap(),
    ];
    write("local_frame_parse", "to-gateway", &to_gateway.concat());
}
