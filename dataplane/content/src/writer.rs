//! Putting chunks and manifests.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bootstorm_snapshot::limits::CHUNK_STORED_BYTES_MAX;
use bootstorm_snapshot::manifest::Manifest;
use bootstorm_snapshot::{ChunkName, Encoding, ManifestDigest};

use crate::disk::Access;
use crate::error::{Error, at};
use crate::index::{ENTRY_BYTES, Location, PackId, emit_entry, emit_header};
use crate::limits::{PACK_BYTES_MAX, PACKS_MAX, PENDING_BYTES_MAX, PENDING_CHUNKS_MAX};
use crate::packer::Packer;
use crate::plan::IndexedManifest;
use crate::store::{MANIFESTS, PACKS, Store, index_path, manifest_path, pack_path};

/// Octets of a file read at once while it is packed.
const READ_BYTES: usize = 256 << 10;

/// Answer of [`Writer::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Taken; durable and to be found after [`Writer::commit`].
    Pending,
    /// Was there already, and is right.
    Present,
}

/// Puts chunks into one pack in the order they come. [`Writer::commit`] makes them durable and lets readers find them;
/// it also happens by itself when much is pending. Dropping a writer forgets what is pending. After a failed write the
/// writer is stopped, and readers find nothing of its last group: take another and put it again.
pub struct Writer {
    store: Store,
    pack: Option<OpenPack>,
    buffer: Vec<u8>,
    pending: Vec<(ChunkName, u32)>,
    pending_names: HashSet<ChunkName>,
    stopped: bool,
    /// Whether an earlier, short pack may be appended to.
    reuse: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("pending", &self.pending.len()).field("stopped", &self.stopped).finish()
    }
}

struct OpenPack {
    id: PackId,
    file: File,
    index: File,
    bytes: u64,
    /// Given to the store with the first commit.
    reader: Option<File>,
}

impl Writer {
    pub(crate) fn new(store: Store) -> Writer {
        Writer {
            store,
            pack: None,
            buffer: Vec::new(),
            pending: Vec::new(),
            pending_names: HashSet::new(),
            stopped: false,
            reuse: true,
        }
    }

    /// The writer of a sweep: it begins a new pack, since earlier ones may be about to go.
    pub(crate) fn for_sweep(store: Store) -> Writer {
        let mut writer = Writer::new(store);
        writer.reuse = false;
        writer
    }

    /// Takes a chunk if its bytes are those of its name. A chunk that is there is hashed first if that has not happened
    /// in this life, so putting it again heals a bad one.
    pub fn put(&mut self, name: ChunkName, bytes: &[u8]) -> Result<Put, Error> {
        if self.stopped {
            return Err(Error::WriterStopped);
        }
        let stored_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if stored_bytes == 0 || stored_bytes > CHUNK_STORED_BYTES_MAX {
            return Err(Error::ChunkSize { name, bytes: bytes.len() });
        }
        let actual = ChunkName::of(bytes);
        if actual != name {
            return Err(Error::Mismatch { name, actual });
        }
        if self.pending_names.contains(&name) {
            return Ok(Put::Pending);
        }
        match self.store.find(&name) {
            Some((_, true)) => return Ok(Put::Present),
            Some((_, false)) if self.store.verify(&name).is_ok() => return Ok(Put::Present),
            Some((_, false)) | None => {}
        }
        self.take(name, bytes, stored_bytes)?;
        Ok(Put::Pending)
    }

    /// Takes a chunk that was just hashed and is here, to give it another place.
    pub(crate) fn put_again(&mut self, name: ChunkName, bytes: &[u8]) -> Result<(), Error> {
        let stored_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.take(name, bytes, stored_bytes)
    }

    fn take(&mut self, name: ChunkName, bytes: &[u8], stored_bytes: u32) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        self.pending.push((name, stored_bytes));
        self.pending_names.insert(name);
        if self.buffer.len() >= PENDING_BYTES_MAX || self.pending.len() >= PENDING_CHUNKS_MAX {
            self.commit()?;
        }
        Ok(())
    }

    /// Makes all pending chunks durable: pack, sync, index, sync. Then readers find them, as verified.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::WriterStopped);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let result = self.write();
        self.stopped = result.is_err();
        self.buffer.clear();
        self.pending.clear();
        self.pending_names.clear();
        result
    }

    fn write(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.store.shared);
        let disk = shared.disk.as_ref();
        if let Some(full) = self.pack.take_if(|pack| pack.bytes >= PACK_BYTES_MAX) {
            shared.release_pack(full.id);
        }
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => self.open_pack()?,
        };
        let (pack_name, index_name) = (pack_path(pack.id), index_path(pack.id));
        let mut entries = Vec::with_capacity(self.pending.len() * ENTRY_BYTES);
        let mut placed = Vec::with_capacity(self.pending.len());
        let mut offset = pack.bytes;
        for (name, stored_bytes) in &self.pending {
            let location = Location { pack: pack.id, offset, stored_bytes: *stored_bytes };
            offset += u64::from(*stored_bytes);
            emit_entry(name, &location, &mut entries);
            placed.push((*name, location));
        }
        let written = (|| {
            if let Err(error) = disk.append(&pack_name, &pack.file, &self.buffer) {
                // No entry names these octets yet. Without this every attempt on a full disk would leave a part of them there.
                let _ = disk.truncate(&pack_name, &pack.file, pack.bytes);
                return Err(at("append to", &pack_name)(error));
            }
            disk.sync(&pack_name, &pack.file).map_err(at("sync", &pack_name))?;
            disk.append(&index_name, &pack.index, &entries).map_err(at("append to", &index_name))?;
            disk.sync(&index_name, &pack.index).map_err(at("sync", &index_name))?;
            if pack.reader.is_some() {
                disk.sync_directory(PACKS).map_err(at("sync directory", PACKS))?;
            }
            Ok(())
        })();
        if let Err(error) = written {
            // The pack stays held until the writer goes, so that nobody appends behind octets of unknown state.
            self.pack = Some(pack);
            return Err(error);
        }
        pack.bytes = offset;
        shared.set_pack(pack.id, pack.bytes, pack.reader.take());
        for (name, location) in placed {
            shared.index.insert(name, location, true);
        }
        self.pack = Some(pack);
        Ok(())
    }

    /// The newest pack if it has room and no writer, else a new one.
    fn open_pack(&self) -> Result<OpenPack, Error> {
        let shared = &self.store.shared;
        if self.reuse
            && let Some((id, bytes)) = shared.reusable_pack(PACK_BYTES_MAX / 2)
        {
            return self.reopen_pack(id, bytes).inspect_err(|_| shared.release_pack(id));
        }
        let packs = shared.pack_count();
        if packs >= PACKS_MAX {
            return Err(Error::TooManyPacks { packs });
        }
        let id = shared.new_pack();
        self.create_pack(id).inspect_err(|_| shared.release_pack(id))
    }

    fn create_pack(&self, id: PackId) -> Result<OpenPack, Error> {
        let disk = self.store.shared.disk.as_ref();
        let (pack_name, index_name) = (pack_path(id), index_path(id));
        let file = disk.create(&pack_name).map_err(at("create", &pack_name))?;
        let index = disk.create(&index_name).map_err(at("create", &index_name))?;
        disk.append(&index_name, &index, &emit_header(id)).map_err(at("append to", &index_name))?;
        let reader = disk.open(&pack_name, Access::Read).map_err(at("open", &pack_name))?;
        Ok(OpenPack { id, file, index, bytes: 0, reader: Some(reader) })
    }

    /// Opens an earlier pack to append. An index whose last entry is torn is cut to whole entries, so that the next
    /// ones stand where they are looked for. Octets of the pack without an entry are left: what they were is unknown,
    /// and a sweep wins them back.
    fn reopen_pack(&self, id: PackId, bytes: u64) -> Result<OpenPack, Error> {
        let disk = self.store.shared.disk.as_ref();
        let (pack_name, index_name) = (pack_path(id), index_path(id));
        let file = disk.open(&pack_name, Access::Append).map_err(at("open", &pack_name))?;
        let length = file.metadata().map_err(at("read length of", &pack_name))?.len();
        let index = disk.open(&index_name, Access::Append).map_err(at("open", &index_name))?;
        let index_bytes = index.metadata().map_err(at("read length of", &index_name))?.len();
        let torn = index_bytes % ENTRY_BYTES as u64;
        if torn != 0 {
            disk.truncate(&index_name, &index, index_bytes - torn).map_err(at("truncate", &index_name))?;
        }
        Ok(OpenPack { id, file, index, bytes: bytes.max(length), reader: None })
    }

    /// Stores a manifest (its canonical bytes), after committing what is pending. Its chunks need not be here: a rack
    /// has the manifest first and fetches on demand.
    pub fn put_manifest(&mut self, bytes: &[u8]) -> Result<ManifestDigest, Error> {
        let manifest = Manifest::decode(bytes).map_err(Error::ManifestInvalid)?;
        self.commit()?;
        let digest = ManifestDigest::of(bytes);
        let disk = self.store.shared.disk.as_ref();
        let path = manifest_path(&digest);
        let temporary = format!("{path}.tmp");
        let written = (|| -> io::Result<()> {
            let file = disk.create(&temporary)?;
            disk.append(&temporary, &file, bytes)?;
            disk.sync(&temporary, &file)?;
            disk.rename(&temporary, &path)?;
            disk.sync_directory(MANIFESTS)
        })();
        written.map_err(at("write", &path))?;
        self.store.shared.add_manifest(Arc::new(IndexedManifest::with_digest(manifest, digest)));
        Ok(digest)
    }

    /// Cuts a file into chunks, stores them and the manifest, and gives the manifest.
    pub fn pack(&mut self, mut source: impl Read, encoding: Encoding) -> Result<Manifest, Error> {
        let mut packer = Packer::new(encoding)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut sink = |cut: crate::Cut<'_>| -> Result<(), Error> {
            if !cut.entry.is_hole() {
                self.put(cut.entry.name, cut.stored)?;
            }
            Ok(())
        };
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Source(error)),
            };
            packer.push(buffer.get(..read).unwrap_or_default(), &mut sink)?;
        }
        let manifest = packer.finish(&mut sink)?;
        self.put_manifest(&manifest.encode())?;
        Ok(manifest)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            self.store.shared.release_pack(pack.id);
        }
        self.store.shared.release_writer();
    }
}
