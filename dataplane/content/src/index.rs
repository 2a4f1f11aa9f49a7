//! Where each chunk lies: the map in memory and the octets of a pack's index file.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use bootstorm_snapshot::ChunkName;
use bootstorm_snapshot::limits::CHUNK_STORED_BYTES_MAX;

use crate::limits::INDEX_SHARDS;

pub(crate) const ENTRY_BYTES: usize = 64;
const BODY_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"BSPACKX1";

/// A pack of one store; higher is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub(crate) u64);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl PackId {
    /// The id whose index file has this name.
    pub(crate) fn of_index(name: &str) -> Option<PackId> {
        let id = PackId(u64::from_str_radix(name.strip_suffix(".index")?, 16).ok()?);
        (format!("{id}.index") == name).then_some(id)
    }
}

/// Place of a chunk's stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Which pack.
    pub pack: PackId,
    /// Octet in the pack.
    pub offset: u64,
    /// Length of the chunk.
    pub stored_bytes: u32,
}

impl Location {
    /// Octet after the chunk.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stored_bytes))
    }
}

pub(crate) fn emit_header(pack: PackId) -> [u8; ENTRY_BYTES] {
    let mut out = [0; ENTRY_BYTES];
    let (body, sum) = out.split_at_mut(BODY_BYTES);
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&pack.0.to_le_bytes());
    for (to, from) in body.iter_mut().zip(head) {
        *to = from;
    }
    blake3::Hasher::new().update(body).finalize_xof().fill(sum);
    out
}

pub(crate) fn emit_entry(name: &ChunkName, location: &Location, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&name.0);
    out.extend_from_slice(&location.offset.to_le_bytes());
    out.extend_from_slice(&location.stored_bytes.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let sum = checksum(location.pack, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum);
}

/// Entries of an index file that check, in order, and how many did not. None if the header is not this pack's.
pub(crate) fn parse_index(pack: PackId, pack_bytes: u64, bytes: &[u8]) -> Option<(Vec<(ChunkName, Location)>, usize)> {
    let mut blocks = bytes.chunks(ENTRY_BYTES);
    if blocks.next()? != emit_header(pack) {
        return None;
    }
    let mut entries = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    let mut bad = 0;
    for block in blocks {
        match parse_entry(pack, block) {
            Some((name, location)) if location.end() <= pack_bytes => entries.push((name, location)),
            _ => bad += 1,
        }
    }
    Some((entries, bad))
}

fn parse_entry(pack: PackId, block: &[u8]) -> Option<(ChunkName, Location)> {
    let (body, sum) = block.split_at_checked(BODY_BYTES)?;
    if checksum(pack, body) != *sum {
        return None;
    }
    let (name, rest) = body.split_first_chunk::<32>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (stored, _) = rest.split_first_chunk::<4>()?;
    let location = Location { pack, offset: u64::from_le_bytes(*offset), stored_bytes: u32::from_le_bytes(*stored) };
    (location.stored_bytes > 0 && location.stored_bytes <= CHUNK_STORED_BYTES_MAX)
        .then_some((ChunkName(*name), location))
}

fn checksum(pack: PackId, body: &[u8]) -> [u8; 16] {
    let mut sum = [0; 16];
    blake3::Hasher::new().update(&pack.0.to_le_bytes()).update(body).finalize_xof().fill(&mut sum);
    sum
}

struct Slot {
    location: Location,
    /// Hashed once in this life of the process.
    verified: AtomicBool,
}

/// The map from name to place, in shards. A lock is held for one look-up and never over I/O.
pub(crate) struct Index {
    shards: Vec<RwLock<HashMap<ChunkName, Slot>>>,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index { shards: (0..INDEX_SHARDS).map(|_| RwLock::new(HashMap::new())).collect() }
    }

    /// Shard of a name. A name is a hash, so its octets are even; the mask keeps the number below the shards' count.
    fn shard(&self, name: &ChunkName) -> &RwLock<HashMap<ChunkName, Slot>> {
        let [first, ..] = name.0;
        &self.shards[usize::from(first) & (INDEX_SHARDS - 1)]
    }

    pub(crate) fn find(&self, name: &ChunkName) -> Option<(Location, bool)> {
        let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(name).map(|slot| (slot.location, slot.verified.load(Ordering::Relaxed)))
    }

    pub(crate) fn insert(&self, name: ChunkName, location: Location, verified: bool) {
        let mut shard = self.shard(&name).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(name, Slot { location, verified: AtomicBool::new(verified) });
    }

    /// Sets the mark if the chunk still lies where it was hashed.
    pub(crate) fn set_verified(&self, name: &ChunkName, at: Location, verified: bool) {
        let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.get(name)
            && slot.location == at
        {
            slot.verified.store(verified, Ordering::Relaxed);
        }
    }

    /// Drops the entry if it still says this place. Whether it did.
    pub(crate) fn remove(&self, name: &ChunkName, at: Location) -> bool {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        let there = shard.get(name).is_some_and(|slot| slot.location == at);
        if there {
            shard.remove(name);
        }
        there
    }

    /// Chunks and their octets.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let mut totals = (0, 0);
        self.each(|_, location| {
            totals.0 += 1;
            totals.1 += u64::from(location.stored_bytes);
        });
        totals
    }

    /// Names in one shard; none beyond the last.
    pub(crate) fn names(&self, shard: usize) -> Vec<ChunkName> {
        let Some(shard) = self.shards.get(shard) else { return Vec::new() };
        shard.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(crate) fn each(&self, mut visit: impl FnMut(&ChunkName, &Location)) {
        for shard in &self.shards {
            for (name, slot) in shard.read().unwrap_or_else(PoisonError::into_inner).iter() {
                visit(name, &slot.location);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_for_themselves() {
        let pack = PackId(5);
        let mut bytes = emit_header(pack).to_vec();
        let chunks: Vec<(ChunkName, Location)> = (0..3u8)
            .map(|n| (ChunkName::of(&[n]), Location { pack, offset: u64::from(n) * 100, stored_bytes: 100 }))
            .collect();
        for (name, location) in &chunks {
            emit_entry(name, location, &mut bytes);
        }
        assert_eq!(parse_index(pack, 300, &bytes), Some((chunks.clone(), 0)));
        assert_eq!(parse_index(pack, 299, &bytes), Some((chunks[..2].to_vec(), 1)), "points behind the pack");
        assert_eq!(parse_index(PackId(6), 300, &bytes), None, "another pack's index");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let parsed = parse_index(pack, 300, &changed);
            match (bit / 8 / ENTRY_BYTES).checked_sub(1) {
                None => assert_eq!(parsed, None),
                Some(hit) => {
                    let left: Vec<_> = chunks.iter().enumerate().filter(|(i, _)| *i != hit).map(|(_, c)| *c).collect();
                    assert_eq!(parsed, Some((left, 1)), "bit {bit}");
                }
            }
        }
        for length in 0..bytes.len() {
            let (entries, _) = parse_index(pack, 300, &bytes[..length]).unwrap_or_default();
            assert_eq!(entries.len(), (length / ENTRY_BYTES).saturating_sub(1));
        }
    }
}
