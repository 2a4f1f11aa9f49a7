//! `bootstorm serve DIR`: the files of a directory, without engine, control plane or configuration.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bootstorm_api::role::Driver;
use bootstorm_content::{Store, Writer};
use bootstorm_driver::socket;
use bootstorm_engine::Index;
use bootstorm_proto::limits::HTTP_NAME_BYTES_MAX;
use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, MANIFEST_CHUNKS_MAX};
use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::record;
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};

use crate::clock::Clock;
use crate::confine::Confined;
use crate::core::{Shared, Sources};
use crate::metrics::Metrics;
use crate::rack::Team;
use crate::shard::Sockets;
use crate::stop::Stop;
use crate::{Error, budget, limits};

const LEVEL: i32 = 3;

/// What to serve, and where.
#[derive(Debug)]
pub struct ServeOptions {
    /// The directory. Its files are served by their names relative to it, as they were when the serving began.
    pub directory: PathBuf,
    /// Sockets of HTTP, one per shard, bound; they begin to listen when all is imported.
    pub http: Vec<TcpListener>,
    /// Sockets for TFTP's first requests, one per shard.
    pub tftp: Vec<UdpSocket>,
    /// Directory of the content store; made if missing, with its parents. No other process may have it open.
    pub store: PathBuf,
    /// Plain: files by their names. Zstd: their stored streams, which are zstd frames, by `NAME.zst`.
    pub encoding: Encoding,
    /// Octets of memory that chunks are kept in; `None` for a share of what is available.
    pub cache_bytes: Option<u64>,
    /// What does input and output.
    pub driver: Driver,
}

/// Imports the files of a directory and serves them until `stop` is triggered. Nothing is answered before all is imported.
///
/// `confined` shows that the caller's thread is ([`confine_serve`](crate::confine_serve)).
///
/// Symbolic links are followed to files inside the directory; those that leave it, or lead to directories, are refused.
///
/// # Errors
/// [`Error::Import`] for what cannot be served, and what the environment refuses.
pub fn serve(options: ServeOptions, confined: Confined, stop: Stop) -> Result<(), Error> {
    let parent = options.store.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::file("making directory", parent))?;
    let store = Store::open(&options.store)?;
    let files = import(&options.directory, &store, options.encoding)?;
    tracing::info!(files = files.len(), directory = %options.directory.display(), "files are imported");
    let count = options.http.len().max(options.tftp.len());
    let mut sockets: Vec<Sockets> = (0..count).map(|_| Sockets::default()).collect();
    let option = Error::system("setting a socket's options");
    for (listener, shard) in options.http.into_iter().zip(&mut sockets) {
        socket::set_stream_options(listener.as_fd()).map_err(&option)?;
        socket::listen(listener.as_fd()).map_err(&option)?;
        shard.http.push(listener.into());
    }
    for (udp, shard) in options.tftp.into_iter().zip(&mut sockets) {
        let is_ipv6 = udp.local_addr().map_err(&option)?.is_ipv6();
        socket::report_packet_information(udp.as_fd(), is_ipv6).map_err(&option)?;
        shard.tftp.push(udp.into());
    }
    let cache = Arc::new(budget::make_cache(options.cache_bytes)?);
    let metrics = Arc::new(Metrics::new(store.clone(), Arc::clone(&cache)));
    metrics.confined(confined);
    let shared = Arc::new(Shared {
        index: ArcSwap::from_pointee(Index::of_files(files)),
        metrics,
        cache,
        connections: Sources::new(limits::SERVE_CONNECTIONS_PER_SOURCE_MAX),
        transfers: Sources::new(limits::SERVE_TRANSFERS_PER_SOURCE_MAX),
        clock: Clock::start(),
        has_engine: false,
        block_bytes_max: bootstorm_proto::limits::TFTP_BLOCK_BYTES_MAX,
    });
    let mut team = Team::gather(sockets, options.driver, &stop)?;
    team.begin(shared, store, None, None)?;
    while !stop.wait(limits::IDLE_DEADLINE) {}
    team.end()
}

fn import(directory: &Path, store: &Store, encoding: Encoding) -> Result<Vec<record::File>, Error> {
    let root = fs::canonicalize(directory).map_err(Error::file("opening", directory))?;
    let mut found = BTreeMap::new();
    find(&root, &root, "", 0, &mut found)?;
    let mut writer = store.writer();
    let mut files = Vec::new();
    for (name, path) in found {
        let source = File::open(&path).map_err(Error::file("opening", &path))?;
        let (name, manifest) = match encoding {
            Encoding::Plain => (name, writer.pack(source, Encoding::Plain)?),
            Encoding::Zstd => (format!("{name}.zst"), pack_whole(&mut writer, source, &name, &path)?),
        };
        let header = manifest.header();
        files.push(record::File {
            name,
            manifest: manifest.digest(),
            raw: header.raw,
            raw_bytes: header.raw_bytes,
            encoding,
        });
    }
    Ok(files)
}

/// Gathers regular files by their names relative to the root.
fn find(
    root: &Path,
    directory: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let refuse = |name: &str, why| Error::Import { name: name.escape_default().to_string(), why };
    if depth > limits::SERVE_DEPTH_MAX {
        return Err(refuse(prefix, "directories are too deep"));
    }
    for entry in fs::read_dir(directory).map_err(Error::file("listing", directory))? {
        let entry = entry.map_err(Error::file("listing", directory))?;
        let path = entry.path();
        let own = entry.file_name();
        let Some(own) = own.to_str() else { return Err(refuse(&own.to_string_lossy(), "its name is not UTF-8")) };
        let name = format!("{prefix}{own}");
        let kind = entry.file_type().map_err(Error::file("looking at", &path))?;
        if kind.is_dir() {
            find(root, &path, &format!("{name}/"), depth + 1, found)?;
            continue;
        }
        let target = fs::canonicalize(&path).map_err(Error::file("following", &path))?;
        if !target.starts_with(root) {
            return Err(refuse(&name, "the link leaves the directory"));
        }
        if !fs::metadata(&target).map_err(Error::file("looking at", &target))?.is_file() {
            return Err(refuse(&name, "it is neither a file nor a link to one"));
        }
        if name.len() > HTTP_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(refuse(&name, "its name is too long or has control characters"));
        }
        if found.len() >= limits::SERVE_FILES_MAX {
            return Err(refuse(&name, "there are too many files"));
        }
        found.insert(name, target);
    }
    Ok(())
}

/// Packs a file as zstd frames without leaving holes out: the stored stream alone decodes to the file.
fn pack_whole(writer: &mut Writer, mut source: File, name: &str, path: &Path) -> Result<Manifest, Error> {
    let import = |why| Error::Import { name: name.escape_default().to_string(), why };
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(Error::system("making a compressor"))?;
    let mut hasher = blake3::Hasher::new();
    let (mut entries, mut raw_bytes) = (Vec::new(), 0u64);
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        read_chunk(&mut source, &mut chunk).map_err(Error::file("reading", path))?;
        let Some(length) = u32::try_from(chunk.len()).ok().filter(|length| *length > 0) else { break };
        if entries.len() >= MANIFEST_CHUNKS_MAX {
            return Err(import("it is too long"));
        }
        hasher.update(&chunk);
        let stored = compressor.compress(&chunk).map_err(Error::file("compressing", path))?;
        let stored_name = ChunkName::of(&stored);
        writer.put(stored_name, &stored)?;
        let stored_bytes = u32::try_from(stored.len()).map_err(|_| import("a chunk is too long"))?;
        entries.push(Entry { name: stored_name, raw_bytes: length, stored_bytes });
        raw_bytes += u64::from(length);
    }
    let raw = ImageId(*hasher.finalize().as_bytes());
    let manifest = Manifest::new(Encoding::Zstd, raw, raw_bytes, "fixed-262144 zstd-3 whole", entries)
        .map_err(|error| Error::Content(bootstorm_content::Error::ManifestInvalid(error)))?;
    writer.put_manifest(&manifest.encode())?;
    Ok(manifest)
}

fn read_chunk(source: &mut File, chunk: &mut Vec<u8>) -> io::Result<()> {
    source.take(u64::from(CHUNK_RAW_BYTES)).read_to_end(chunk).map(drop)
}
