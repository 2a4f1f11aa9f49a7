//! The store itself: opening, finding, reading, verifying.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use bootstorm_snapshot::manifest::Manifest;
use bootstorm_snapshot::{ChunkName, ManifestDigest};

use crate::disk::{Access, Disk, RealDisk};
use crate::error::{Error, at};
use crate::index::{Index, Location, PackId, parse_index};
use crate::limits::{
    INDEX_BYTES_MAX, INDEX_SHARDS, MANIFEST_BYTES_MAX, MANIFEST_CHUNKS_CACHED_MAX, MANIFESTS_CACHED_MAX,
};
use crate::plan::IndexedManifest;
use crate::writer::Writer;

pub(crate) const PACKS: &str = "packs";
pub(crate) const MANIFESTS: &str = "manifests";

/// Counts of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Chunks in the index.
    pub chunks: u64,
    /// Their stored octets.
    pub chunk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Octets that packs take on disk; the difference to `chunk_bytes` is what a sweep may win back.
    pub pack_bytes: u64,
    /// Manifests.
    pub manifests: u64,
    /// Chunks that were bad and dropped since the store was opened.
    pub quarantined: u64,
    /// Entries of index files that did not check when the store was opened.
    pub bad_entries: u64,
}

/// A content store. Clones share it; all methods may be called from any thread, and no lock is held over I/O on
/// chunks.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("stats", &self.stats()).finish()
    }
}

pub(crate) struct Shared {
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) index: Index,
    packs: RwLock<HashMap<PackId, Pack>>,
    manifests: Mutex<Manifests>,
    writers: Mutex<Writers>,
    sweep_done: Condvar,
    next_pack: AtomicU64,
    quarantined: AtomicU64,
    bad_entries: u64,
}

struct Pack {
    file: Arc<File>,
    bytes: u64,
}

/// Manifests that are on disk, when each was last asked for, and the parsed ones.
#[derive(Default)]
struct Manifests {
    last_used: HashMap<ManifestDigest, u64>,
    cached: HashMap<ManifestDigest, Arc<IndexedManifest>>,
    clock: u64,
}

/// Who may write: many writers, each with a pack of its own, or one sweep.
#[derive(Default)]
struct Writers {
    alive: usize,
    sweeping: bool,
    packs_in_use: HashSet<PackId>,
}

impl Store {
    /// Opens the store in a directory (made if missing, its parents not) and holds it against other processes.
    pub fn open(directory: &Path) -> Result<Store, Error> {
        let name = directory.display().to_string();
        let disk = RealDisk::open(directory).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::InUse { directory: name.clone() },
            _ => at("open directory", &name)(source),
        })?;
        Store::open_on(Box::new(disk))
    }

    /// Opens the store on a disk. Reads the packs' indexes; removes what a crash left half made. Nothing that is found
    /// counts as verified.
    pub fn open_on(disk: Box<dyn Disk>) -> Result<Store, Error> {
        for directory in [PACKS, MANIFESTS] {
            disk.make_directory(directory).map_err(at("make directory", directory))?;
        }
        disk.sync_directory(".").map_err(at("sync directory", "."))?;
        let index = Index::new();
        let mut packs = HashMap::new();
        let mut bad_entries = 0;
        let names = disk.list(PACKS).map_err(at("list", PACKS))?;
        let mut ids: Vec<PackId> = names.iter().filter_map(|name| PackId::of_index(name)).collect();
        ids.sort_unstable();
        for id in &ids {
            match read_pack(disk.as_ref(), *id)? {
                Some((pack, entries, bad)) => {
                    packs.insert(*id, pack);
                    bad_entries += bad as u64;
                    for (name, location) in entries {
                        index.insert(name, location, false);
                    }
                }
                None => remove_pack_files(disk.as_ref(), *id, &names)?,
            }
        }
        // A pack without an index holds nothing that was ever promised.
        for name in names.iter().filter(|name| {
            name.strip_suffix(".pack").is_none_or(|id| !names.contains(&format!("{id}.index")))
                && PackId::of_index(name).is_none()
        }) {
            let path = format!("{PACKS}/{name}");
            disk.remove(&path).map_err(at("remove", &path))?;
        }
        let manifests = read_manifest_names(disk.as_ref())?;
        let next_pack = ids.last().map_or(1, |last| last.0.saturating_add(1));
        let shared = Shared {
            disk,
            index,
            packs: RwLock::new(packs),
            manifests: Mutex::new(manifests),
            writers: Mutex::new(Writers::default()),
            sweep_done: Condvar::new(),
            next_pack: AtomicU64::new(next_pack),
            quarantined: AtomicU64::new(0),
            bad_entries,
        };
        Ok(Store { shared: Arc::new(shared) })
    }

    /// Where a chunk lies; None if it must be fetched.
    pub fn locate(&self, name: &ChunkName) -> Option<Location> {
        self.find(name).map(|(location, _)| location)
    }

    pub(crate) fn find(&self, name: &ChunkName) -> Option<(Location, bool)> {
        self.shared.index.find(name)
    }

    /// The file of a pack, for reading at a [`Location`]. None if a sweep has removed the pack in between: plan again.
    /// A file that was given stays readable for as long as it is held.
    pub fn pack_file(&self, pack: PackId) -> Option<Arc<File>> {
        self.shared.packs().get(&pack).map(|pack| Arc::clone(&pack.file))
    }

    /// Whether the chunk is here but has not been hashed in this life of the process.
    pub fn needs_verify(&self, name: &ChunkName) -> bool {
        self.find(name).is_some_and(|(_, verified)| !verified)
    }

    /// Says that the bytes at `location` were hashed by the caller and are right.
    pub fn mark_verified(&self, name: &ChunkName, location: Location) {
        self.shared.index.set_verified(name, location, true);
    }

    /// Somebody received bad bytes under this name: hash it again before it is served.
    pub fn distrust(&self, name: &ChunkName) {
        if let Some((location, _)) = self.find(name) {
            self.shared.index.set_verified(name, location, false);
        }
    }

    /// Reads and hashes the chunk and marks it; a bad one is quarantined ([`Error::Corrupt`]). Blocks on the disk.
    pub fn verify(&self, name: &ChunkName) -> Result<Location, Error> {
        self.read_verified(name).map(|(location, _)| location)
    }

    /// The chunk's stored bytes, hashed now: right, or an error. A bad chunk is quarantined ([`Error::Corrupt`]).
    /// Blocks on the disk.
    pub fn read_chunk(&self, name: &ChunkName) -> Result<Vec<u8>, Error> {
        self.read_verified(name).map(|(_, bytes)| bytes)
    }

    /// As [`Store::read_chunk`], into the caller's memory. Its length must be the chunk's: a manifest that says otherwise is
    /// [`Error::LengthClaim`].
    pub fn read_chunk_into(&self, name: &ChunkName, bytes: &mut [u8]) -> Result<Location, Error> {
        // A sweep may move the chunk between the look-up and the read: then it is looked up once more.
        for _ in 0..2 {
            let Some((location, _)) = self.find(name) else { break };
            if location.stored_bytes as usize != bytes.len() {
                let claimed = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                return Err(Error::LengthClaim { name: *name, claimed, actual: location.stored_bytes });
            }
            let Some(file) = self.pack_file(location.pack) else { continue };
            let read = file.read_exact_at(bytes, location.offset);
            if read.is_ok() && ChunkName::of(bytes) == *name {
                self.shared.index.set_verified(name, location, true);
                return Ok(location);
            }
            // Wrong, short and unreadable are one: these octets cannot be had here any more.
            self.quarantine(name, location);
            return Err(Error::Corrupt { name: *name });
        }
        Err(Error::ChunkMissing { name: *name })
    }

    fn read_verified(&self, name: &ChunkName) -> Result<(Location, Vec<u8>), Error> {
        let Some((location, _)) = self.find(name) else { return Err(Error::ChunkMissing { name: *name }) };
        // The length goes with the name: it does not change when a sweep moves the chunk.
        let mut bytes = vec![0; location.stored_bytes as usize];
        Ok((self.read_chunk_into(name, &mut bytes)?, bytes))
    }

    fn quarantine(&self, name: &ChunkName, location: Location) {
        if self.shared.index.remove(name, location) {
            self.shared.quarantined.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A manifest, verified against its digest when it is read and kept parsed. Blocks on the disk.
    pub fn manifest(&self, digest: &ManifestDigest) -> Result<Arc<IndexedManifest>, Error> {
        {
            let mut manifests = self.shared.manifests();
            if !manifests.last_used.contains_key(digest) {
                return Err(Error::ManifestMissing { digest: *digest });
            }
            manifests.touch(*digest);
            if let Some(cached) = manifests.cached.get(digest) {
                return Ok(Arc::clone(cached));
            }
        }
        let manifest = Arc::new(self.read_manifest(digest)?);
        self.shared.manifests().cache(Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Reads and checks a manifest without keeping it or counting it as used.
    pub(crate) fn read_manifest(&self, digest: &ManifestDigest) -> Result<IndexedManifest, Error> {
        let path = manifest_path(digest);
        let file = match self.shared.disk.open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::ManifestMissing { digest: *digest });
            }
            Err(error) => return Err(at("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(at("read", &path))?;
        let corrupt = || Error::ManifestCorrupt { digest: *digest };
        if ManifestDigest::of(&bytes) != *digest {
            return Err(corrupt());
        }
        let manifest = Manifest::decode(&bytes).map_err(|_| corrupt())?;
        Ok(IndexedManifest::with_digest(manifest, *digest))
    }

    /// Digests of all manifests, in no order.
    pub fn manifests(&self) -> Vec<ManifestDigest> {
        self.shared.manifests().last_used.keys().copied().collect()
    }

    /// Whether the manifest is here.
    pub fn has_manifest(&self, digest: &ManifestDigest) -> bool {
        self.shared.manifests().last_used.contains_key(digest)
    }

    /// Chunks of the manifest that must be fetched before it can be served whole, each once, in stream order.
    pub fn missing(&self, manifest: &IndexedManifest) -> Vec<ChunkName> {
        let mut seen = HashSet::new();
        let entries = manifest.manifest().entries().iter().filter(|entry| !entry.is_hole());
        entries.map(|entry| entry.name).filter(|name| self.locate(name).is_none() && seen.insert(*name)).collect()
    }

    /// Removes a manifest (none is no error). Its chunks stay until [`Store::sweep`].
    pub fn remove_manifest(&self, digest: &ManifestDigest) -> Result<(), Error> {
        self.shared.manifests().forget(digest);
        let path = manifest_path(digest);
        match self.shared.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at("remove", &path)(error)),
        }
        self.shared.disk.sync_directory(MANIFESTS).map_err(at("sync directory", MANIFESTS))
    }

    /// A writer with a pack of its own. Several may write at once; chunks of one writer lie in a row. Waits while a
    /// sweep runs.
    pub fn writer(&self) -> Writer {
        let mut writers = self.shared.writers();
        while writers.sweeping {
            writers = self.shared.sweep_done.wait(writers).unwrap_or_else(PoisonError::into_inner);
        }
        writers.alive += 1;
        Writer::new(self.clone())
    }

    /// Octets that packs take on disk.
    pub fn pack_bytes(&self) -> u64 {
        self.shared.packs().values().map(|pack| pack.bytes).sum()
    }

    /// Parts that [`Store::chunk_names`] comes in.
    pub const NAME_PARTS: usize = INDEX_SHARDS;

    /// Names of the chunks in one part of the index, in no order: for going over all of them without holding all names at once.
    pub fn chunk_names(&self, part: usize) -> Vec<ChunkName> {
        self.shared.index.names(part)
    }

    /// Counts; walks the whole index, so for metrics and not for a request.
    pub fn stats(&self) -> Stats {
        let (chunks, chunk_bytes) = self.shared.index.totals();
        let packs = self.shared.packs();
        Stats {
            chunks,
            chunk_bytes,
            packs: packs.len() as u64,
            pack_bytes: packs.values().map(|pack| pack.bytes).sum(),
            manifests: self.shared.manifests().last_used.len() as u64,
            quarantined: self.shared.quarantined.load(Ordering::Relaxed),
            bad_entries: self.shared.bad_entries,
        }
    }
}

impl Shared {
    fn packs(&self) -> std::sync::RwLockReadGuard<'_, HashMap<PackId, Pack>> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifests(&self) -> MutexGuard<'_, Manifests> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id for a new pack, held for its writer.
    pub(crate) fn new_pack(&self) -> PackId {
        let id = PackId(self.next_pack.fetch_add(1, Ordering::Relaxed));
        self.writers().packs_in_use.insert(id);
        id
    }

    /// The newest pack if it is shorter than `bytes` and nobody writes to it, held for its writer, with its length.
    pub(crate) fn reusable_pack(&self, bytes: u64) -> Option<(PackId, u64)> {
        let (id, length) = self.packs().iter().map(|(id, pack)| (*id, pack.bytes)).max()?;
        (length < bytes && self.writers().packs_in_use.insert(id)).then_some((id, length))
    }

    pub(crate) fn release_pack(&self, id: PackId) {
        self.writers().packs_in_use.remove(&id);
    }

    pub(crate) fn release_writer(&self) {
        self.writers().alive -= 1;
    }

    /// Keeps new writers waiting until [`Shared::end_sweep`], or says how many are at work.
    pub(crate) fn begin_sweep(&self) -> Result<(), Error> {
        let mut writers = self.writers();
        let alive = writers.alive + usize::from(writers.sweeping);
        if alive > 0 {
            return Err(Error::WritersActive { writers: alive });
        }
        writers.sweeping = true;
        writers.alive = 1;
        Ok(())
    }

    pub(crate) fn end_sweep(&self) {
        self.writers().sweeping = false;
        self.sweep_done.notify_all();
    }

    pub(crate) fn pack_count(&self) -> usize {
        self.packs().len()
    }

    pub(crate) fn pack_lengths(&self) -> Vec<(PackId, u64)> {
        let mut lengths: Vec<_> = self.packs().iter().map(|(id, pack)| (*id, pack.bytes)).collect();
        lengths.sort_unstable();
        lengths
    }

    /// A pack has grown to `bytes` on disk; with a file to read it by, if it is new.
    pub(crate) fn set_pack(&self, id: PackId, bytes: u64, reader: Option<File>) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        match packs.get_mut(&id) {
            Some(pack) => pack.bytes = bytes,
            None => {
                if let Some(file) = reader {
                    packs.insert(id, Pack { file: Arc::new(file), bytes });
                }
            }
        }
    }

    /// Forgets a pack and removes its files, the index first: then a crash in between leaves a pack without index.
    pub(crate) fn drop_pack(&self, id: PackId) -> Result<(), Error> {
        self.packs.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        for name in [index_path(id), pack_path(id)] {
            self.disk.remove(&name).map_err(at("remove", &name))?;
            self.disk.sync_directory(PACKS).map_err(at("sync directory", PACKS))?;
        }
        Ok(())
    }

    pub(crate) fn add_manifest(&self, manifest: Arc<IndexedManifest>) {
        let mut manifests = self.manifests();
        manifests.touch(manifest.digest());
        manifests.cache(manifest);
    }

    /// Digests, the longest unused first.
    pub(crate) fn manifests_by_age(&self) -> Vec<ManifestDigest> {
        let manifests = self.manifests();
        let mut ages: Vec<_> = manifests.last_used.iter().map(|(digest, used)| (*used, *digest)).collect();
        ages.sort_unstable();
        ages.into_iter().map(|(_, digest)| digest).collect()
    }
}

impl Manifests {
    fn touch(&mut self, digest: ManifestDigest) {
        self.clock += 1;
        self.last_used.insert(digest, self.clock);
    }

    fn forget(&mut self, digest: &ManifestDigest) {
        self.last_used.remove(digest);
        self.cached.remove(digest);
    }

    /// Keeps a parsed manifest, letting the longest unused go to stay within the limits.
    fn cache(&mut self, manifest: Arc<IndexedManifest>) {
        self.cached.insert(manifest.digest(), manifest);
        let chunks = |cached: &HashMap<_, Arc<IndexedManifest>>| -> usize {
            cached.values().map(|manifest| manifest.manifest().entries().len()).sum()
        };
        while self.cached.len() > MANIFESTS_CACHED_MAX || chunks(&self.cached) > MANIFEST_CHUNKS_CACHED_MAX {
            let oldest = self.cached.keys().min_by_key(|digest| self.last_used.get(*digest)).copied();
            let Some(oldest) = oldest else { return };
            self.cached.remove(&oldest);
        }
    }
}

type Entries = Vec<(ChunkName, Location)>;

/// Opens a pack and reads its index. None if the two are no pack: the header or the pack's file is missing, which a
/// crash leaves behind when a pack is made or removed.
fn read_pack(disk: &dyn Disk, id: PackId) -> Result<Option<(Pack, Entries, usize)>, Error> {
    let (pack_name, index_name) = (pack_path(id), index_path(id));
    let file = match disk.open(&pack_name, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("open", &pack_name)(error)),
    };
    let bytes = file.metadata().map_err(at("read length of", &pack_name))?.len();
    let mut index = Vec::new();
    let index_file = disk.open(&index_name, Access::Read).map_err(at("open", &index_name))?;
    index_file.take(INDEX_BYTES_MAX).read_to_end(&mut index).map_err(at("read", &index_name))?;
    Ok(parse_index(id, bytes, &index).map(|(entries, bad)| (Pack { file: Arc::new(file), bytes }, entries, bad)))
}

fn remove_pack_files(disk: &dyn Disk, id: PackId, names: &[String]) -> Result<(), Error> {
    for suffix in ["index", "pack"] {
        let name = format!("{id}.{suffix}");
        if names.contains(&name) {
            let path = format!("{PACKS}/{name}");
            disk.remove(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

fn read_manifest_names(disk: &dyn Disk) -> Result<Manifests, Error> {
    let mut manifests = Manifests::default();
    for name in disk.list(MANIFESTS).map_err(at("list", MANIFESTS))? {
        match name.parse::<ManifestDigest>() {
            Ok(digest) if digest.to_string() == name => {
                manifests.last_used.insert(digest, 0);
            }
            // A name that is no digest is a file that was being written.
            _ => {
                let path = format!("{MANIFESTS}/{name}");
                disk.remove(&path).map_err(at("remove", &path))?;
            }
        }
    }
    Ok(manifests)
}

pub(crate) fn pack_path(id: PackId) -> String {
    format!("{PACKS}/{id}.pack")
}

pub(crate) fn index_path(id: PackId) -> String {
    format!("{PACKS}/{id}.index")
}

pub(crate) fn manifest_path(digest: &ManifestDigest) -> String {
    format!("{MANIFESTS}/{digest}")
}
