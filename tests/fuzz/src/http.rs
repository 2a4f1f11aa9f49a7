//! HTTP from a connection's octets to what a request is for.

use std::sync::LazyLock;

use bootstorm_engine::Index;
use bootstorm_engine::http::{Resource, route, tftp};
use bootstorm_proto::http::server::{Connection, RequestParser, ResponseHead, Selection, Status, select};
use bootstorm_proto::limits;
use bootstorm_snapshot::record::File;
use bootstorm_snapshot::{Encoding, ImageId, ManifestDigest};

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let file = |name: &str| File {
        name: name.into(),
        manifest: ManifestDigest::of(name.as_bytes()),
        raw: ImageId::of(name.as_bytes()),
        raw_bytes: 1_000,
        encoding: Encoding::Plain,
    };
    Index::of_files(vec![file("boot"), file("sub/kernel"), file("a b"), file("näme")])
});

/// A connection: the first octet is how many come at once, the others are what the peer sends. Requests are taken, routed and
/// answered until one closes the connection, as a shard does.
pub fn http_process(data: &[u8]) {
    let Some((step, mut octets)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    let mut parser = RequestParser::new();
    let mut end = 0;
    while end < octets.len() {
        end = (end + step).min(octets.len());
        let buffer = octets.get(..end).unwrap_or_default();
        let (request, length) = match parser.parse(buffer) {
            Ok(None) => continue,
            Ok(Some(parsed)) => parsed,
            Err(rejection) => {
                let head = ResponseHead::rejection(rejection);
                assert_eq!(head.connection, Connection::Close);
                head.write(&mut [0; limits::HTTP_RESPONSE_HEAD_BYTES]).expect("our own head fits");
                return;
            }
        };
        match route(&INDEX, &request) {
            // What is served has a name in the map, or is named by the digest of something in it.
            Resource::File { manifest, .. } => {
                assert!(INDEX.manifests().contains_key(&manifest));
                let file = INDEX.file(&request.name).is_some_and(|file| file.manifest == manifest);
                assert!(file || *request.name == format!("stream/{manifest}"));
            }
            Resource::Manifest(digest) => assert_eq!(*request.name, format!("manifest/{digest}")),
            Resource::Chunk(name) => assert_eq!(*request.name, format!("chunk/{name}")),
            Resource::Script { mac, .. } => assert!(mac.is_unicast()),
            Resource::Bytes(_) | Resource::Metrics | Resource::Health | Resource::NotFound | Resource::BadMac => {}
        }
        if let Resource::File { manifest, .. } = tftp(&INDEX, &request.name) {
            assert!(INDEX.manifests().contains_key(&manifest));
        }
        let mut head = ResponseHead::new(Status::Ok, 1_000, request.connection);
        if let Selection::Part(part) = select(&request, 1_000, Some("tag")) {
            assert!(part.start < part.end && part.end <= 1_000);
            head.part = Some((part, 1_000));
        }
        head.write(&mut [0; limits::HTTP_RESPONSE_HEAD_BYTES]).expect("our own head fits");
        if request.connection == Connection::Close || length != end {
            return;
        }
        octets = octets.get(length..).unwrap_or_default();
        parser = RequestParser::new();
        end = 0;
    }
}
