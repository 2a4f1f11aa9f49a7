//! Chunks in memory, shared by all shards: found by name, read once however many wait, let go in the order of last use.
//!
//! What is here was hashed when it came in, by [`Cache::load`] or by whoever calls [`Cache::keep`]. A chunk has one place at
//! most. A shard looks up and never waits: who does not find a chunk joins its flight and gets mail when it has ended.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use bootstorm_content::{Flights, Joined};
use bootstorm_driver::limits::{ARENA_BLOCK_BYTES, ARENA_MARKS_MAX};
use bootstorm_driver::{Arena, ArenaStats, BlockId, Chunk};
use bootstorm_snapshot::ChunkName;

use crate::limits;
use crate::mail::Waiter;

/// The cache of a role.
pub(crate) struct Cache {
    arena: Arena,
    capacity_bytes: u64,
    shards: Vec<RwLock<HashMap<ChunkName, Chunk, BuildHasherDefault<NameHasher>>>>,
    /// Names of the chunks in each block. Held while something comes in, and only by the threads that bring it.
    placed: Mutex<Vec<Vec<ChunkName>>>,
    flights: Mutex<Flights<Waiter>>,
    loaded: AtomicU64,
    loaded_bytes: AtomicU64,
    evicted: AtomicU64,
}

/// Counts since the start, and what there is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheStats {
    pub(crate) loaded: u64,
    pub(crate) loaded_bytes: u64,
    pub(crate) evicted: u64,
    pub(crate) arena: ArenaStats,
}

/// Why a chunk did not come in.
#[derive(Debug)]
pub(crate) enum NotLoaded<E> {
    /// All memory is held by sends on their way.
    NoRoom,
    /// The filling failed.
    Failed(E),
}

impl Cache {
    pub(crate) fn new(arena: Arena) -> Cache {
        let blocks = arena.stats().blocks;
        Cache {
            arena,
            capacity_bytes: (blocks * ARENA_BLOCK_BYTES) as u64,
            shards: (0..limits::CACHE_SHARDS).map(|_| RwLock::default()).collect(),
            placed: Mutex::new((0..blocks).map(|_| Vec::new()).collect()),
            flights: Mutex::new(Flights::new(limits::FLIGHTS_MAX, limits::FLIGHT_WAITERS_MAX)),
            loaded: AtomicU64::new(0),
            loaded_bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Octets of memory for chunks.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// The chunk, if it is here; that counts as use.
    pub(crate) fn find(&self, name: &ChunkName) -> Option<Chunk> {
        let chunk = self.shard(name).read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        chunk.touch();
        Some(chunk)
    }

    /// Brings a chunk of so many bytes in: `fill` writes and hashes all of them. Nothing is done if it is here already.
    /// May block, on the disk in `fill` and on others that bring something in; not for shards.
    pub(crate) fn load<E>(
        &self,
        name: &ChunkName,
        stored_bytes: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), NotLoaded<E>> {
        if self.find(name).is_some() {
            return Ok(());
        }
        let length = stored_bytes as usize;
        let slot = self.arena.reserve(length).or_else(|| {
            self.evict();
            self.arena.reserve(length)
        });
        let mut slot = slot.ok_or(NotLoaded::NoRoom)?;
        fill(&mut slot).map_err(NotLoaded::Failed)?;
        self.place(*name, slot.freeze());
        Ok(())
    }

    /// Takes bytes that were just hashed, if there is room without letting something go.
    pub(crate) fn keep(&self, name: &ChunkName, bytes: &[u8]) {
        if self.find(name).is_none()
            && let Some(mut slot) = self.arena.reserve(bytes.len())
        {
            slot.copy_from_slice(bytes);
            self.place(*name, slot.freeze());
        }
    }

    fn place(&self, name: ChunkName, chunk: Chunk) {
        let mut placed = self.placed();
        let mut shard = self.shard(&name).write().unwrap_or_else(PoisonError::into_inner);
        if shard.contains_key(&name) {
            return;
        }
        self.loaded.fetch_add(1, Ordering::Relaxed);
        self.loaded_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if let Some(names) = placed.get_mut(chunk.block().index()) {
            names.push(name);
        }
        shard.insert(name, chunk);
    }

    /// Lets chunks go until a share of the memory is free: the blocks that were not used for the longest time, except those
    /// that a send still reads, which would give nothing back.
    fn evict(&self) {
        let mut placed = self.placed();
        let blocks = self.arena.stats().blocks;
        let wanted = (blocks / limits::CACHE_EVICTED_SHARE).max(1);
        let mut emptied = 0;
        // As many rounds as a block has chances, and then each block once.
        let (mut rounds, mut looks) = (u32::from(ARENA_MARKS_MAX) + 1, blocks);
        while emptied < wanted && rounds > 0 && looks > 0 {
            match self.arena.next_idle_block() {
                Some(block) => {
                    looks -= 1;
                    emptied += usize::from(self.empty(&mut placed, block));
                }
                None => rounds -= 1,
            }
        }
    }

    /// Lets go of what lies in a block, if nobody reads it.
    fn empty(&self, placed: &mut [Vec<ChunkName>], block: BlockId) -> bool {
        let Some(names) = placed.get_mut(block.index()).filter(|names| !names.is_empty()) else { return false };
        let is_read = |name: &ChunkName| {
            let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
            shard.get(name).is_some_and(Chunk::is_shared)
        };
        if names.iter().any(is_read) {
            return false;
        }
        self.evicted.fetch_add(names.len() as u64, Ordering::Relaxed);
        for name in names.drain(..) {
            self.shard(&name).write().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        true
    }

    /// Waits for a chunk that was not found, together with everybody else who does. The leader has it loaded, and calls
    /// [`Cache::end_flight`] if it cannot.
    pub(crate) fn join(&self, name: ChunkName, waiter: Waiter) -> Joined {
        self.flights().join(name, waiter)
    }

    /// Who waited for a chunk that was loaded, or cannot be.
    pub(crate) fn end_flight(&self, name: &ChunkName) -> Vec<Waiter> {
        self.flights().done(name)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            loaded: self.loaded.load(Ordering::Relaxed),
            loaded_bytes: self.loaded_bytes.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            arena: self.arena.stats(),
        }
    }

    fn shard(&self, name: &ChunkName) -> &RwLock<HashMap<ChunkName, Chunk, BuildHasherDefault<NameHasher>>> {
        // A name is a hash; this octet is not among those that the maps use.
        let [.., last] = name.0;
        &self.shards[usize::from(last) % limits::CACHE_SHARDS]
    }

    fn placed(&self) -> MutexGuard<'_, Vec<Vec<ChunkName>>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, Flights<Waiter>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name is a hash already: eight of its octets are as good as all of them hashed once more. Nobody chooses names: they are
/// those of manifests that the snapshot names.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {
        // The length of the array, always the same.
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const CHUNK: u32 = 256 << 10;
    const ARENA: usize = 64 << 20;

    fn cache() -> Cache {
        Cache::new(Arena::new(ARENA).expect("memory"))
    }

    fn name(number: u32) -> ChunkName {
        ChunkName::of(&number.to_le_bytes())
    }

    /// Loads chunk `number`; whether it had to be filled.
    fn load(cache: &Cache, number: u32) -> Result<bool, NotLoaded<Infallible>> {
        let mut filled = false;
        cache.load(&name(number), CHUNK, |bytes| {
            bytes.fill(number as u8);
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            filled = true;
            Ok(())
        })?;
        Ok(filled)
    }

    /// Whether these are the octets of chunk `number`: its number, then its low octet throughout.
    fn is(bytes: &[u8], number: u32) -> bool {
        let (head, rest) = bytes.split_at(4);
        let same = |window: &[u8]| window.iter().all(|octet| *octet == number as u8);
        bytes.len() == CHUNK as usize
            && head == number.to_le_bytes()
            && rest.chunks(4_096).map(|page| &page[..8]).all(same)
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = cache();
        let room = ARENA as u32 / CHUNK;
        for number in 0..room * 4 {
            assert!(load(&cache, number).expect("room"));
            // The first one is asked for all the time.
            assert!(is(&cache.find(&name(0)).expect("stays"), 0), "after {number}");
            assert!(is(&cache.find(&name(number)).expect("just loaded"), number));
        }
        assert!(!load(&cache, 0).expect("here"), "not read again");
        let stats = cache.stats();
        assert!(stats.arena.slot_bytes <= ARENA && stats.evicted >= u64::from(room * 3 - 8));
        assert_eq!(stats.loaded - stats.evicted, stats.arena.slots as u64);
        assert!((0..room * 4).filter(|number| cache.find(&name(*number)).is_some()).count() <= room as usize);
    }

    #[test]
    fn what_is_being_sent_is_neither_evicted_nor_written_over() {
        let cache = cache();
        let room = ARENA as u32 / CHUNK;
        load(&cache, 0).expect("room");
        // A send on its way: parts, after the chunk itself was let go of.
        let sending = cache.find(&name(0)).expect("here").slice(..);
        for number in 1..room * 4 {
            load(&cache, number).expect("room");
            assert!(cache.find(&name(0)).is_some() && is(&sending, 0), "after {number}");
        }
        // Everything is being sent: there is no room, and nothing is taken from anybody.
        let held: Vec<_> = (0..room * 4).filter_map(|number| Some((number, cache.find(&name(number))?))).collect();
        assert!(matches!(
            (room * 4..room * 5).map(|number| load(&cache, number)).find(Result::is_err),
            Some(Err(NotLoaded::NoRoom))
        ));
        assert!(held.iter().all(|(number, chunk)| is(chunk, *number)));
        drop(held);
        load(&cache, room * 9).expect("room again");
    }

    #[test]
    fn a_chunk_that_cannot_be_filled_leaves_nothing_behind() {
        let cache = cache();
        assert!(matches!(cache.load(&name(1), CHUNK, |_| Err("bad")), Err(NotLoaded::Failed("bad"))));
        assert!(cache.find(&name(1)).is_none());
        assert_eq!(cache.stats().arena.slots, 0);
        cache.keep(&name(1), &[7; 100]);
        assert_eq!(*cache.find(&name(1)).expect("kept"), [7; 100]);
    }

    #[test]
    fn a_thousand_cold_readers_are_one_read() {
        let cache = cache();
        let waiter = |token| Waiter { shard: 0, token };
        let leaders = (0..1_000).filter(|token| cache.join(name(1), waiter(*token)) == Joined::Leader).count();
        assert_eq!(leaders, 1);
        assert!(load(&cache, 1).expect("room"));
        assert_eq!(cache.end_flight(&name(1)).len(), 1_000);
        assert_eq!((cache.stats().loaded, cache.end_flight(&name(1)).len()), (1, 0));
    }
}
