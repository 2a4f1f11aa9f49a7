//! A disk that lives in memory, loses power and fails on demand; everything follows from one seed.
//!
//! # Fault model
//! - Octets appended or cut since a file's last sync are in doubt. After [`SimDisk::crash`] each 512-octet sector of
//!   them is there, or reads as zeros, or as noise, each for itself, so writes reach the medium in any order; the
//!   file's length is anything between the synced one and the latest.
//! - Names (create, rename, remove) since the last `sync_dir` come back as of a prefix of these operations: file
//!   systems keep metadata in order, but nobody promises how far they got.
//! - A sync that fails ([`Fault::Sync`]) keeps nothing of what was in doubt: the cache may call it clean, but it may
//!   never reach the medium. A failed append ([`Fault::NoSpace`]) has written a part.
//! - Synced octets do not change by themselves; [`SimDisk::flip`] is for media that rot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::Disk;

const SECTOR_BYTES: usize = 512;

/// Which operation is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next sync of a file or directory at or after the given operation fails with an I/O error.
    Sync,
    /// Appends fail for want of space from the given operation on, having written a part.
    NoSpace,
    /// Every operation fails from the given one on: the process is taken to have died there.
    All,
}

/// The simulated disk. Clones share one state, so a test keeps one to pull the plug with.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of [`SimDisk`].
#[derive(Debug, Clone, Copy)]
pub struct SimFile(usize);

#[derive(Debug, Clone, Default)]
struct Content {
    latest: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    /// The names as of the last directory sync, and after each operation since.
    names_in_doubt: Vec<BTreeMap<String, usize>>,
    random: Random,
    operations: u64,
    fault: Option<(Fault, u64)>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with(Vec::new(), BTreeMap::new(), Random(seed))
    }

    fn with(files: Vec<Content>, names: BTreeMap<String, usize>, random: Random) -> SimDisk {
        let state = State { files, names_in_doubt: vec![names.clone()], names, random, operations: 0, fault: None };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets `fault` happen at the operation with this number (see [`SimDisk::operations`]) or after it.
    pub fn fail_at(&self, fault: Fault, operation: u64) {
        self.lock().fault = Some((fault, operation));
    }

    /// Writes, syncs and changes of names so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// What the medium holds if the power goes now, as a new disk; this one is left as it is.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let state = self.lock();
        let mut random = Random(seed);
        let names = match state.names_in_doubt.get(random.below(state.names_in_doubt.len())) {
            Some(names) => names.clone(),
            None => state.names.clone(),
        };
        let files = state
            .files
            .iter()
            .map(|file| {
                let after = torn(file, &mut random);
                Content { latest: after.clone(), synced: after }
            })
            .collect();
        SimDisk::with(files, names, random)
    }

    /// Flips one bit of a file, where a medium went bad.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut state = self.lock();
        let id = state.names.get(name).copied();
        if let Some(file) = id.and_then(|id| state.files.get_mut(id)) {
            for copy in [&mut file.latest, &mut file.synced] {
                if let Some(octet) = copy.get_mut(bit / 8) {
                    *octet ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// A copy with a state of its own.
    pub fn fork(&self) -> SimDisk {
        let state = self.lock();
        SimDisk::with(state.files.clone(), state.names.clone(), state.random.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        match self.state.lock() {
            Ok(state) => state,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

/// The file after a crash: what was synced is safe as far as the latest state still has it; the rest is in doubt.
fn torn(file: &Content, random: &mut Random) -> Vec<u8> {
    let same = file.synced.iter().zip(&file.latest).take_while(|(synced, latest)| synced == latest).count();
    let (shorter, longer) =
        if file.synced.len() < file.latest.len() { (&file.synced, &file.latest) } else { (&file.latest, &file.synced) };
    let length = match random.below(3) {
        0 => shorter.len(),
        1 => longer.len(),
        _ => shorter.len() + random.below(longer.len() - shorter.len() + 1),
    };
    let mut after: Vec<u8> = longer.iter().copied().take(length).collect();
    let mut start = same;
    while start < after.len() {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(after.len());
        let choice = random.below(4);
        for (position, octet) in after.iter_mut().enumerate().take(end).skip(start) {
            let or_zero = |octet: Option<&u8>| octet.copied().unwrap_or(0);
            *octet = match choice {
                0 | 1 => or_zero(file.latest.get(position)),
                2 => or_zero(file.synced.get(position)),
                _ => random.octet(),
            };
        }
        start = end;
    }
    after
}

impl State {
    /// Counts an operation that changes the disk and says whether the fault strikes it.
    fn operate(&mut self, of: &[Fault]) -> bool {
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some((fault, at)) if now >= at && of.contains(&fault) => {
                if fault == Fault::Sync {
                    self.fault = None;
                }
                true
            }
            _ => false,
        }
    }

    fn rename_operation(&mut self) -> io::Result<()> {
        if self.operate(&[Fault::All]) { Err(broken()) } else { Ok(()) }
    }

    fn file(&mut self, file: SimFile) -> io::Result<&mut Content> {
        self.files.get_mut(file.0).ok_or_else(broken)
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn broken() -> io::Error {
    io::Error::other("simulated input/output error")
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&mut self, name: &str) -> io::Result<SimFile> {
        let mut state = self.lock();
        state.rename_operation()?;
        let id = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), id);
        let names = state.names.clone();
        state.names_in_doubt.push(names);
        Ok(SimFile(id))
    }

    fn open(&mut self, name: &str) -> io::Result<SimFile> {
        self.lock().named(name).map(SimFile)
    }

    fn append(&mut self, file: &mut SimFile, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.operate(&[Fault::All, Fault::NoSpace]) {
            let part = state.random.below(bytes.len() + 1);
            state.file(*file)?.latest.extend(bytes.iter().take(part));
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.file(*file)?.latest.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, file: &mut SimFile) -> io::Result<()> {
        let mut state = self.lock();
        if state.operate(&[Fault::All, Fault::Sync]) {
            return Err(broken());
        }
        let content = state.file(*file)?;
        content.synced = content.latest.clone();
        Ok(())
    }

    fn truncate(&mut self, file: &mut SimFile, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.operate(&[Fault::All]) {
            return Err(broken());
        }
        state.file(*file)?.latest.truncate(usize::try_from(bytes).map_err(|_| broken())?);
        Ok(())
    }

    fn read(&mut self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        let id = state.named(name)?;
        let content = state.file(SimFile(id))?.latest.clone();
        if content.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content) }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.rename_operation()?;
        let id = state.named(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        let names = state.names.clone();
        state.names_in_doubt.push(names);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.rename_operation()?;
        state.named(name)?;
        state.names.remove(name);
        let names = state.names.clone();
        state.names_in_doubt.push(names);
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.lock();
        if state.operate(&[Fault::All, Fault::Sync]) {
            return Err(broken());
        }
        state.names_in_doubt = vec![state.names.clone()];
        Ok(())
    }

    fn random_key(&mut self) -> io::Result<[u8; 32]> {
        let mut state = self.lock();
        Ok(std::array::from_fn(|_| state.random.octet()))
    }
}

/// A small generator (SplitMix64): the same seed gives the same faults on every machine.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, or 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % (limit.max(1) as u64)) as usize
    }

    fn octet(&mut self) -> u8 {
        (self.next_u64() >> 56) as u8
    }
}
