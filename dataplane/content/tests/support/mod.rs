//! Directories of their own, and a disk that fails and loses power.
//!
//! Fault model: octets appended since a file's last sync are in doubt, each 512-octet sector for itself (there, zero,
//! or noise), and the length is anything between; names made, renamed or removed since their directory's last sync
//! come back as of a prefix of these operations. Reads are of the live files, so a store sees its own writes.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bootstorm_content::{Access, Disk, RealDisk};

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bootstorm-content-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How often a test repeats itself: the long form when `BOOTSTORM_LONG_TESTS` is set.
pub fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("BOOTSTORM_LONG_TESTS").is_some() { long } else { short }
}

pub struct Random(pub u64);

impl Random {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit.max(1) as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next_u64() as u8).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Sync,
    NoSpace,
}

type Names = BTreeMap<String, usize>;

#[derive(Default)]
struct State {
    /// Synced octets of each file ever made; the latest ones are in the real file.
    synced: Vec<Vec<u8>>,
    latest: Vec<Vec<u8>>,
    names: Names,
    /// For each directory its names as of the last sync, then after each operation.
    in_doubt: BTreeMap<String, Vec<Names>>,
    operations: u64,
    fault: Option<(Fault, u64)>,
}

impl State {
    fn names_in(&self, directory: &str) -> Names {
        let inside = |name: &str| name.split_once('/').is_some_and(|(first, _)| first == directory);
        self.names.iter().filter(|(name, _)| inside(name)).map(|(name, id)| (name.clone(), *id)).collect()
    }
}

#[derive(Clone)]
pub struct FaultyDisk {
    real: Arc<RealDisk>,
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    pub fn new(directory: &Path) -> FaultyDisk {
        let real = Arc::new(RealDisk::open(directory).unwrap());
        FaultyDisk { real, state: Arc::default() }
    }

    pub fn fail_at(&self, fault: Fault, operation: u64) {
        self.state.lock().unwrap().fault = Some((fault, operation));
    }

    pub fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    /// Writes what the medium holds after a power cut into another directory.
    pub fn crash(&self, seed: u64, into: &Path) {
        let state = self.state.lock().unwrap();
        let mut random = Random(seed);
        for directory in ["packs", "manifests"] {
            std::fs::create_dir_all(into.join(directory)).unwrap();
        }
        // Each directory comes back as of a moment of its own.
        let names: Vec<&Names> = state.in_doubt.values().map(|names| &names[random.below(names.len())]).collect();
        for (name, id) in names.into_iter().flatten() {
            let (synced, latest) = (&state.synced[*id], &state.latest[*id]);
            let length = match random.below(3) {
                0 => synced.len(),
                1 => latest.len(),
                _ => synced.len() + random.below(latest.len() - synced.len() + 1),
            };
            let mut bytes = latest[..length].to_vec();
            let mut start = synced.len();
            while start < length {
                let end = ((start / 512 + 1) * 512).min(length);
                match random.below(4) {
                    0 => bytes[start..end].fill(0),
                    1 => bytes[start..end].copy_from_slice(&random.bytes(end - start)),
                    _ => {}
                }
                start = end;
            }
            std::fs::write(into.join(name), bytes).unwrap();
        }
    }

    fn operate(&self, fault: Fault) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let now = state.operations;
        state.operations += 1;
        match state.fault {
            Some((kind, at)) if kind == fault && now >= at => Err(match kind {
                Fault::Sync => {
                    state.fault = None;
                    io::Error::other("simulated failed sync")
                }
                Fault::NoSpace => io::ErrorKind::StorageFull.into(),
            }),
            _ => Ok(()),
        }
    }

    fn named(&self, name: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        let directory = name.split_once('/').unwrap().0;
        let names = state.names_in(directory);
        state.in_doubt.entry(directory.to_owned()).or_insert_with(|| vec![Names::new()]).push(names);
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str) -> io::Result<File> {
        self.operate(Fault::NoSpace)?;
        let file = self.real.create(name)?;
        self.named(name, |state| {
            state.names.insert(name.to_owned(), state.latest.len());
            state.latest.push(Vec::new());
            state.synced.push(Vec::new());
        });
        Ok(file)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<File> {
        self.real.open(name, access)
    }

    fn append(&self, name: &str, file: &File, bytes: &[u8]) -> io::Result<()> {
        let failed = self.operate(Fault::NoSpace);
        let written = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        self.real.append(name, file, written)?;
        let mut state = self.state.lock().unwrap();
        let id = state.names[name];
        state.latest[id].extend_from_slice(written);
        failed
    }

    fn sync(&self, name: &str, _file: &File) -> io::Result<()> {
        self.operate(Fault::Sync)?;
        let mut state = self.state.lock().unwrap();
        let id = state.names[name];
        state.synced[id] = state.latest[id].clone();
        Ok(())
    }

    fn truncate(&self, name: &str, file: &File, bytes: u64) -> io::Result<()> {
        self.real.truncate(name, file, bytes)?;
        let mut state = self.state.lock().unwrap();
        let id = state.names[name];
        state.latest[id].truncate(bytes as usize);
        state.synced[id].truncate(bytes as usize);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)?;
        self.named(to, |state| {
            let id = state.names.remove(from).unwrap();
            state.names.insert(to.to_owned(), id);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)?;
        self.named(name, |state| {
            state.names.remove(name);
        });
        Ok(())
    }

    fn make_directory(&self, name: &str) -> io::Result<()> {
        self.real.make_directory(name)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.real.list(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.operate(Fault::Sync)?;
        let mut state = self.state.lock().unwrap();
        let names = state.names_in(directory);
        state.in_doubt.insert(directory.to_owned(), vec![names]);
        Ok(())
    }
}
