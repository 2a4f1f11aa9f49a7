//! What a path or name stands for: pure look-ups in the indexes, the same on every shard.

use bootstorm_proto::http::server::Request;
use bootstorm_snapshot::record::File;
use bootstorm_snapshot::{ChunkName, Encoding, Mac, ManifestDigest, Stage};

use crate::index::Index;
use crate::script::{self, Format};

/// Prefix of manifests; the paths are those of `api::agent`, without their leading `/`.
pub const MANIFEST_PREFIX: &str = "manifest/";
/// Name of the list of files, for others that fill from here.
pub const FILES_NAME: &str = "manifest/files";
/// Prefix of stored streams.
pub const STREAM_PREFIX: &str = "stream/";
/// Prefix of chunks.
pub const CHUNK_PREFIX: &str = "chunk/";
/// Name of the CA's archive.
pub const CA_INITRD_NAME: &str = "ca.cpio";
/// Name of iPXE's first script.
pub const SCRIPT_NAME: &str = "boot.ipxe";

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Octets at hand.
    Bytes(bytes::Bytes),
    /// A script, which shard 0 makes.
    Script {
        /// The machine's interface.
        mac: Mac,
        /// Which loader asks.
        format: Format,
    },
    /// A file: the stored stream of its manifest.
    File {
        /// Its manifest.
        manifest: ManifestDigest,
        /// The stage of a boot that fetching it shows, if any.
        stage: Option<Stage>,
    },
    /// The octets of a manifest.
    Manifest(ManifestDigest),
    /// The stored octets of a chunk.
    Chunk(ChunkName),
    /// Metrics as text.
    Metrics,
    /// Whether this role serves.
    Health,
    /// Nothing by that name.
    NotFound,
    /// A script without a proper `mac`.
    BadMac,
}

/// What an HTTP request is for.
pub fn route(index: &Index, request: &Request<'_>) -> Resource {
    match request.name.as_ref() {
        SCRIPT_NAME => match request.parameter("mac").map(str::parse::<Mac>) {
            Some(Ok(mac)) if mac.is_unicast() => Resource::Script { mac, format: Format::Ipxe },
            _ => Resource::BadMac,
        },
        "metrics" => Resource::Metrics,
        "healthz" => Resource::Health,
        name => named(index, name),
    }
}

/// What a TFTP name is for: boot files and scripts only, nothing of the content store.
pub fn tftp(index: &Index, name: &str) -> Resource {
    let name = name.strip_prefix('/').unwrap_or(name);
    match named(index, name) {
        Resource::Bytes(_) if name == FILES_NAME => Resource::NotFound,
        Resource::Manifest(_) | Resource::Chunk(_) => Resource::NotFound,
        resource => resource,
    }
}

fn named(index: &Index, name: &str) -> Resource {
    if name == FILES_NAME && !index.listing().is_empty() {
        return Resource::Bytes(index.listing().clone());
    }
    if let Some(digest) = name.strip_prefix(MANIFEST_PREFIX) {
        return parsed(digest)
            .filter(|digest| index.manifests().contains_key(digest))
            .map_or(Resource::NotFound, Resource::Manifest);
    }
    if let Some(digest) = name.strip_prefix(STREAM_PREFIX) {
        let named = parsed(digest).filter(|digest| index.manifests().contains_key(digest));
        return named.map_or(Resource::NotFound, |manifest| Resource::File { manifest, stage: None });
    }
    if let Some(chunk) = name.strip_prefix(CHUNK_PREFIX) {
        return parsed(chunk).map_or(Resource::NotFound, Resource::Chunk);
    }
    if let Some(file) = index.file(name) {
        return Resource::File { manifest: file.manifest, stage: stage_of(name, file) };
    }
    if name == CA_INITRD_NAME && !index.ca_initrd().is_empty() {
        return Resource::Bytes(index.ca_initrd().clone());
    }
    if name == script::GRUB_FIRST_NAME {
        return Resource::Bytes(bytes::Bytes::from_static(script::GRUB_FIRST.as_bytes()));
    }
    match script::grub_mac(name) {
        Some(mac) if mac.is_unicast() => Resource::Script { mac, format: Format::Grub },
        _ => Resource::NotFound,
    }
}

/// A digest in its one spelling.
fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn stage_of(name: &str, file: &File) -> Option<Stage> {
    match name.strip_prefix("environment/").and_then(|rest| rest.split_once('/')) {
        Some((_, "kernel")) => None,
        // The initrd comes after the kernel: with it both are there.
        Some((_, "initrd")) => Some(Stage::Kernel),
        _ => (file.encoding == Encoding::Plain).then_some(Stage::Loader),
    }
}
