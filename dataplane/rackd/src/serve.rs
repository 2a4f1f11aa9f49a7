//! `bootstorm serve`: the files of a directory, or of origins, without engine, control plane or configuration.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use arc_swap::ArcSwap;
use bootstorm_api::role::Driver;
use bootstorm_content::{Store, Writer};
use bootstorm_driver::socket;
use bootstorm_engine::Index;
use bootstorm_engine::dns::Rates;
use bootstorm_proto::limits::HTTP_NAME_BYTES_MAX;
use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, MANIFEST_CHUNKS_MAX};
use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::record;
use bootstorm_snapshot::{ChunkName, Encoding, ImageId, ManifestDigest};

use crate::clock::Clock;
use crate::confine::Confined;
use crate::core::{Shared, Sources};
use crate::fill::{Filler, Prefetch};
use crate::gateway::{Routes, run_streams};
use crate::mail::Fill;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::rack::Team;
use crate::room::Room;
use crate::shard::Sockets;
use crate::stop::Stop;
use crate::{Error, budget, limits, scrub};

const LEVEL: i32 = 3;

/// What to serve, and where.
#[derive(Debug)]
pub struct ServeOptions {
    /// What is served.
    pub source: Source,
    /// Sockets of HTTP, one per shard, bound; they begin to listen when all is imported.
    pub http: Vec<TcpListener>,
    /// Sockets for TFTP's first requests, one per shard.
    pub tftp: Vec<UdpSocket>,
    /// Directory of the content store; made if missing, with its parents. No other process may have it open.
    pub store: PathBuf,
    /// Octets of memory that chunks are kept in; `None` for a share of what is available.
    pub cache_bytes: Option<u64>,
    /// What does input and output.
    pub driver: Driver,
}

/// What is served.
#[derive(Debug)]
pub enum Source {
    /// The files of a directory by their names relative to it, as they were when the serving began.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Plain: files by their names. Zstd: their stored streams, which are zstd frames, by `NAME.zst`.
        encoding: Encoding,
    },
    /// Files that lie elsewhere; a chunk is fetched when it is first asked for.
    Origins {
        /// Which files: one line of JSON ([`record::File`]) each.
        list: Vec<u8>,
        /// The way to whoever fetches, as a gateway does ([`bootstorm_api::local`]).
        fetcher: UnixStream,
    },
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
    let (files, fetcher) = match options.source {
        Source::Directory { path, encoding } => {
            let files = import(&path, &store, encoding)?;
            tracing::info!(files = files.len(), directory = %path.display(), "files are imported");
            (files, None)
        }
        Source::Origins { list, fetcher } => (read_list(&list)?, Some(fetcher)),
    };
    let count = options.http.len().max(options.tftp.len());
    let mut sockets: Vec<Sockets> = (0..count).map(|_| Sockets::default()).collect();
    let option = Error::system("setting a socket's options");
    let mut listeners = Vec::new();
    for (listener, shard) in options.http.into_iter().zip(&mut sockets) {
        socket::set_stream_options(listener.as_fd()).map_err(&option)?;
        listeners.push(listener.try_clone().map_err(&option)?);
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
    if fetcher.is_none() {
        tidy(&store, &options.store, &files, &metrics);
    }
    let shared = Arc::new(Shared {
        index: ArcSwap::from_pointee(Index::of_files(files)),
        metrics: Arc::clone(&metrics),
        cache,
        connections: Sources::new(limits::SERVE_CONNECTIONS_PER_SOURCE_MAX),
        transfers: Sources::new(limits::SERVE_TRANSFERS_PER_SOURCE_MAX),
        clock: Clock::start(),
        has_engine: false,
        dns_secret: [0; 32],
        dns_rates: Rates { client: 0, stranger: 0 },
        block_bytes_max: bootstorm_proto::limits::TFTP_BLOCK_BYTES_MAX,
    });
    let mut team = Team::gather(sockets, options.driver, &stop)?;
    let fill = fetcher.map(|fetcher| start_filling(&mut team, &shared, &store, options.store, fetcher, &stop));
    let fill = fill.transpose()?;
    if stop.is_triggered() {
        // Asked to end before the manifests were here.
        drop(fill);
        return team.end();
    }
    for listener in &listeners {
        socket::listen(listener.as_fd()).map_err(&option)?;
    }
    drop(listeners);
    let (scrubbed, lost, until) = (store.clone(), fill.clone(), stop.clone());
    team.spawn("content-scrub", move || {
        // What was imported has just been hashed; a disk that serves a first storm is not to read beside it.
        if !until.wait(limits::SCRUB_PAUSE) {
            scrub::run(&scrubbed, &metrics, lost.as_ref(), &until);
        }
    })?;
    team.begin(shared, store, fill, None)?;
    while !stop.wait(limits::IDLE_DEADLINE) {}
    team.end()
}

/// Lets go of what earlier runs served, if the disk needs room.
fn tidy(store: &Store, directory: &Path, files: &[record::File], metrics: &Metrics) {
    let mut room = Room::new(directory.to_owned());
    if let Some(marks) = room.lacking(store, Instant::now()) {
        let keep: HashSet<ManifestDigest> = files.iter().map(|file| file.manifest).collect();
        room.evict(store, marks, &keep, metrics);
    }
}

/// Starts the threads that fill the store by a fetcher, and waits until all manifests are here: chunks come when they are asked for.
fn start_filling(
    team: &mut Team,
    shared: &Arc<Shared>,
    store: &Store,
    directory: PathBuf,
    fetcher: UnixStream,
    stop: &Stop,
) -> Result<SyncSender<Fill>, Error> {
    let outbox = Arc::new(Outbox::default());
    let (fill, queue) = sync_channel(limits::FILL_QUEUE_MAX);
    let index = shared.index.load_full();
    let lacking = i64::try_from(index.manifests().len()).unwrap_or(i64::MAX);
    shared.metrics.files_missing.set(lacking);
    // The queue has room for the first message.
    let _ = fill.send(Fill::Index(index));
    let filler = Filler::new(
        store.clone(),
        Arc::clone(&shared.cache),
        Room::new(directory),
        Arc::clone(&team.mailboxes),
        Arc::clone(&outbox),
        Arc::clone(&shared.metrics),
        Prefetch::Manifests,
    );
    team.spawn("content-fill", move || filler.run(queue))?;
    // There are no snapshots: nobody takes them.
    let (snapshots, _) = sync_channel(limits::SNAPSHOT_QUEUE_MAX);
    let routes = Routes { outbox, engine: team.mailbox(0)?.clone(), fill: fill.clone(), snapshots };
    let (peers, peer) = sync_channel(1);
    let _ = peers.send(fetcher);
    let until = stop.clone();
    team.spawn("origins", move || run_streams(&routes, &peer, &until))?;
    while shared.metrics.files_missing.get() > 0 && !stop.wait(limits::STREAM_POLL) {}
    tracing::info!(files = lacking, "manifests are here; chunks come when they are asked for");
    Ok(fill)
}

/// Reads a list of files that came from outside.
fn read_list(list: &[u8]) -> Result<Vec<record::File>, Error> {
    let refuse = |name: &str, why| Error::Import { name: name.escape_default().take(200).collect(), why };
    let mut files: Vec<record::File> = Vec::new();
    let mut names = HashSet::new();
    for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read = serde_json::from_slice::<record::File>(line);
        let file = read.map_err(|_| refuse(&String::from_utf8_lossy(line), "the line names no file"))?;
        if file.name.is_empty() || file.name.len() > HTTP_NAME_BYTES_MAX || file.name.chars().any(char::is_control) {
            return Err(refuse(&file.name, "its name is empty, too long or has control characters"));
        }
        if files.len() >= limits::SERVE_FILES_MAX {
            return Err(refuse(&file.name, "there are too many files"));
        }
        if !names.insert(file.name.clone()) {
            return Err(refuse(&file.name, "it is in the list twice"));
        }
        files.push(file);
    }
    Ok(files)
}

pub(crate) fn import(directory: &Path, store: &Store, encoding: Encoding) -> Result<Vec<record::File>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_from_outside_is_read_with_its_names_checked() {
        let file = |name: &str| record::File {
            name: name.into(),
            manifest: ManifestDigest::of(b"m"),
            raw: ImageId([0; 32]),
            raw_bytes: 1,
            encoding: Encoding::Plain,
        };
        let line = |name: &str| format!("{}\n", serde_json::to_string(&file(name)).expect("encodes"));
        let list = [line("a"), line("sub/b")].concat();
        assert_eq!(read_list(list.as_bytes()).expect("read"), [file("a"), file("sub/b")]);
        assert_eq!(read_list(b"").expect("an empty one"), []);
        let long = line(&"x".repeat(HTTP_NAME_BYTES_MAX + 1));
        for bad in [[line("a"), line("a")].concat(), line(""), line("a\nb"), long, "{}\n".into(), "<html>".into()] {
            assert!(matches!(read_list(bad.as_bytes()), Err(Error::Import { .. })), "{bad}");
        }
    }
}
