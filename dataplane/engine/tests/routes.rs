//! What paths and names stand for.

mod support;

use bootstorm_engine::Index;
use bootstorm_engine::http::{Resource, route, tftp};
use bootstorm_engine::script::Format;
use bootstorm_proto::http::server::RequestParser;
use bootstorm_snapshot::plan::After;
use bootstorm_snapshot::{ChunkName, ManifestDigest, Stage};
use support::*;

fn get(index: &Index, target: &str) -> Resource {
    let head = format!("GET {target} HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n");
    let mut parser = RequestParser::new();
    let (request, _) = parser.parse(head.as_bytes()).expect("a request").expect("whole");
    route(index, &request)
}

fn index() -> Index {
    let mut view = site();
    put_work(&mut view, 1, 10, deploy(), After::StartSystem);
    Index::new(view)
}

#[test]
fn every_path_of_the_contract() {
    let index = index();
    let image = ManifestDigest::of(b"image");
    let chunk = ChunkName::of(b"chunk");
    let (ipxe, grub) = (Format::Ipxe, Format::Grub);
    let kernel = file("amd64-kernel").manifest;
    let initrd = file("arm64-initrd").manifest;
    let table = [
        ("/boot.ipxe?mac=52-54-00-00-00-01".to_string(), Resource::Script { mac: mac(1), format: ipxe }),
        ("/boot.ipxe?mac=52:54:00:00:00:01".to_string(), Resource::Script { mac: mac(1), format: ipxe }),
        ("/boot.ipxe?mac=01-00-5e-00-00-01".to_string(), Resource::BadMac),
        ("/boot.ipxe".to_string(), Resource::BadMac),
        ("/grub/grub.cfg-52:54:00:00:00:01".to_string(), Resource::Script { mac: mac(1), format: grub }),
        ("/environment/amd64/kernel".to_string(), Resource::File { manifest: kernel, stage: None }),
        ("/environment/arm64/initrd".to_string(), Resource::File { manifest: initrd, stage: Some(Stage::Kernel) }),
        ("/environment/s390x/kernel".to_string(), Resource::NotFound),
        ("/ipxe.efi".to_string(), Resource::File { manifest: file("ipxe.efi").manifest, stage: Some(Stage::Loader) }),
        (format!("/manifest/{image}"), Resource::Manifest(image)),
        (format!("/stream/{image}"), Resource::File { manifest: image, stage: None }),
        (format!("/stream/{}", ManifestDigest::of(b"not named")), Resource::NotFound),
        (format!("/chunk/{chunk}"), Resource::Chunk(chunk)),
        (format!("/chunk/{}", chunk.to_string().to_uppercase()), Resource::NotFound),
        ("/metrics".to_string(), Resource::Metrics),
        ("/healthz".to_string(), Resource::Health),
        ("/etc/passwd".to_string(), Resource::NotFound),
        ("/".to_string(), Resource::NotFound),
    ];
    for (target, expected) in table {
        assert_eq!(get(&index, &target), expected, "{target}");
    }
    assert!(matches!(get(&index, "/ca.cpio"), Resource::Bytes(bytes) if bytes.starts_with(b"070701")));
    assert!(matches!(get(&index, "/grub/grub.cfg"), Resource::Bytes(_)));
}

#[test]
fn tftp_serves_boot_files_and_nothing_of_the_store() {
    let index = index();
    assert!(matches!(tftp(&index, "undionly.kpxe"), Resource::File { stage: Some(Stage::Loader), .. }));
    assert!(matches!(tftp(&index, "/snponly.efi"), Resource::File { .. }));
    assert!(matches!(tftp(&index, "grub/grub.cfg-52:54:00:00:00:01"), Resource::Script { format: Format::Grub, .. }));
    for name in ["", "boot.ipxe", "metrics", "../undionly.kpxe", "//undionly.kpxe"] {
        assert_eq!(tftp(&index, name), Resource::NotFound, "{name}");
    }
    assert_eq!(tftp(&index, &format!("chunk/{}", ChunkName::of(b"x"))), Resource::NotFound);
    assert_eq!(tftp(&index, &format!("manifest/{}", ManifestDigest::of(b"image"))), Resource::NotFound);
}
