//! What lies on a rack's disk or comes from a source of images.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use bootstorm_content::{Access, Disk, IndexedManifest, Store, decode_chunk};
use bootstorm_snapshot::{ChunkName, Encoding, Manifest};
use rustix::fs::MemfdFlags;

const INDEX: &str = "packs/0000000000000001.index";
const PACK: &str = "packs/0000000000000001.pack";
/// Octets of an index's header and of one entry; `bootstorm_content` says what is in them.
const BLOCK_BYTES: usize = 64;

/// A manifest: the bytes that are read are the only form, and its chunks add up.
pub fn manifest_parse(data: &[u8]) {
    let Ok(manifest) = Manifest::decode(data) else { return };
    assert_eq!(manifest.encode(), data);
    let total = manifest.stored_bytes();
    let chunks = manifest.entries().len();
    let indexed = IndexedManifest::new(manifest);
    let whole: u64 = indexed.chunks(0..total).map(|(_, entry)| u64::from(entry.stored_bytes)).sum();
    assert_eq!(whole, total);
    for range in [0..1, total / 2..total, total..total + 1, u64::MAX - 1..u64::MAX] {
        assert!(indexed.chunks(range).count() <= chunks);
    }
}

/// A chunk's stored bytes behind the raw length that is claimed (u32, little-endian): exactly that many come out, or none.
pub fn chunk_decode(data: &[u8]) {
    let Some((claimed, stored)) = data.split_first_chunk::<4>() else { return };
    let claimed = u32::from_le_bytes(*claimed);
    for encoding in [Encoding::Zstd, Encoding::Plain] {
        if let Ok(raw) = decode_chunk(encoding, stored, claimed) {
            assert_eq!(raw.len(), claimed as usize);
        }
    }
}

/// A store whose one pack has this index (its length first, u16, little-endian) and these octets: it opens, gives nothing wrong,
/// and what is put again is there, also for the next opening.
pub fn content_process(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (index, pack) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let disk = MemoryDisk::default();
    disk.write(INDEX, index);
    disk.write(PACK, pack);
    let store = Store::open_on(Box::new(disk.clone())).expect("a store opens whatever lies there");
    let names: Vec<ChunkName> = index
        .chunks_exact(BLOCK_BYTES)
        .skip(1)
        .filter_map(|block| block.first_chunk::<32>().copied())
        .map(ChunkName)
        .collect();
    assert!(store.stats().chunks <= names.len() as u64);
    let mut held = vec![(ChunkName::of(b"put again"), b"put again".to_vec())];
    for name in names {
        if let Ok(bytes) = store.read_chunk(&name) {
            assert_eq!(ChunkName::of(&bytes), name);
            held.push((name, bytes));
        }
    }
    let mut writer = store.writer();
    for (name, bytes) in &held {
        writer.put(*name, bytes).expect("right bytes are taken");
    }
    writer.commit().expect("a sound disk");
    drop(writer);
    drop(store);
    let store = Store::open_on(Box::new(disk)).expect("a store that was written opens");
    for (name, bytes) in &held {
        assert_eq!(store.read_chunk(name).expect("what was put is there"), *bytes);
    }
}

/// Input for [`content_process`]: the files of a store that holds these chunks.
pub fn seal_content(chunks: &[&[u8]]) -> Vec<u8> {
    let disk = MemoryDisk::default();
    let store = Store::open_on(Box::new(disk.clone())).expect("an empty store");
    let mut writer = store.writer();
    for chunk in chunks {
        writer.put(ChunkName::of(chunk), chunk).expect("right bytes");
    }
    writer.commit().expect("a sound disk");
    let (index, pack) = (disk.read(INDEX), disk.read(PACK));
    let length = u16::try_from(index.len()).expect("a short index");
    [length.to_le_bytes().as_slice(), &index, &pack].concat()
}

/// A qcow2 file on its way through the importer.
#[cfg(feature = "importer")]
pub fn qcow2_process(data: &[u8]) {
    use bootstorm_controld::importer::{ImportOptions, run_importer};
    let options = ImportOptions { raw_bytes_max: 4 << 20, ..ImportOptions::image() };
    let file = anonymous(data);
    if let Ok(summary) = run_importer(&options, reopen(&file, Access::Read).expect("a memory file"), io::sink()) {
        let _ = summary;
    }
}

/// A file in memory.
fn anonymous(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a memory file");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("written to memory");
    file
}

/// The same file with an offset of its own.
fn reopen(file: &File, access: Access) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match access {
        Access::Read => File::open(path),
        Access::Append => OpenOptions::new().append(true).open(path),
    }
}

/// A disk in memory, which does not fail.
#[derive(Clone, Default)]
struct MemoryDisk(std::sync::Arc<Mutex<HashMap<String, File>>>);

impl MemoryDisk {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        self.files().insert(name.to_owned(), anonymous(bytes));
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = self.open(name, Access::Read).expect("a file");
        io::Read::read_to_end(&mut file, &mut bytes).expect("read from memory");
        bytes
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<File> {
        self.write(name, &[]);
        self.open(name, Access::Append)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<File> {
        reopen(self.files().get(name).ok_or(io::ErrorKind::NotFound)?, access)
    }

    fn append(&self, _name: &str, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, _name: &str, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _name: &str, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn make_directory(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{directory}/");
        Ok(self.files().keys().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }
}
