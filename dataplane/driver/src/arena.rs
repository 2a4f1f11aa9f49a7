//! Memory for what is sent again and again: one mapping, cut into blocks of a huge page, each block into equal slots.
//!
//! Ownership: [`Arena::reserve`] gives a [`Slot`], which its holder alone may write. [`Slot::freeze`] makes it a [`Chunk`],
//! which nobody writes any more and which is cheap to clone; a send holds such a clone until its last completion. The slot is
//! free again when the last clone has gone, so memory that the kernel still reads is never given to anybody else, however
//! early its owner has forgotten it.
//!
//! Nothing is evicted here: the arena says which block was used least of late ([`Arena::next_idle_block`], a clock with a few
//! chances, so that what is streamed once does not drive out what is asked for always), and whoever knows what lies there lets go of it. Memory is touched when a block is first filled, not before.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::error::Error;
use crate::limits::{ARENA_BLOCK_BYTES, ARENA_BYTES_MIN, ARENA_MARKS_MAX, ARENA_SLOTS_PER_BLOCK, BUFFER_ALIGN};

/// What the memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages set aside by the operator (`vm.nr_hugepages`).
    Reserved,
    /// Ordinary memory that the kernel may join into huge pages.
    Transparent,
    /// Ordinary memory; this kernel joins none.
    Ordinary,
}

impl Pages {
    /// A word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Pages::Reserved => "reserved",
            Pages::Transparent => "transparent",
            Pages::Ordinary => "ordinary",
        }
    }
}

/// A block of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(u32);

impl BlockId {
    /// Its number, from 0 and below [`ArenaStats::blocks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an arena has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaStats {
    /// Blocks in all.
    pub blocks: usize,
    /// Blocks in which no slot is taken.
    pub blocks_free: usize,
    /// Slots taken.
    pub slots: usize,
    /// Bytes of the slots taken.
    pub slot_bytes: usize,
    /// What the memory is made of.
    pub pages: Pages,
}

/// The memory. Clones share it; it goes when the last clone, slot and chunk have gone.
#[derive(Clone)]
pub struct Arena(Arc<Shared>);

impl Arena {
    /// Maps memory for `bytes` (cut down to whole blocks): reserved huge pages if there are enough, else memory that may become
    /// huge pages, else ordinary memory.
    pub fn new(bytes: usize) -> Result<Arena, Error> {
        let blocks = bytes / ARENA_BLOCK_BYTES;
        if bytes < ARENA_BYTES_MIN || u32::try_from(blocks).is_err() {
            return Err(Error::Config { name: "arena", value: bytes as u64, allowed: "67108864 (64 MiB) or more" });
        }
        let mapping = Mapping::new(blocks * ARENA_BLOCK_BYTES)?;
        let state = State {
            blocks: (0..blocks).map(|_| Block { class: 0, vacant: Vec::new(), taken: 0 }).collect(),
            free: (0..blocks as u32).rev().collect(),
            open: ARENA_SLOTS_PER_BLOCK.map(|_| Vec::new()),
            hand: 0,
            slots: 0,
            slot_bytes: 0,
        };
        let used = (0..blocks).map(|_| AtomicU8::new(0)).collect();
        Ok(Arena(Arc::new(Shared { mapping, used, state: Mutex::new(state) })))
    }

    /// A slot for `length` bytes; `None` if there is no room, or `length` is 0 or more than [`Arena::slot_bytes_max`].
    pub fn reserve(&self, length: usize) -> Option<Slot> {
        let class = class_of(length)?;
        let mut state = self.0.state();
        let place = state.take(class)?;
        state.slots += 1;
        state.slot_bytes += slot_bytes(class);
        drop(state);
        self.0.used.get(place.block as usize)?.store(1, Ordering::Relaxed);
        Some(Slot { arena: Arc::clone(&self.0), place, length })
    }

    /// Length of the longest slot.
    pub fn slot_bytes_max() -> usize {
        slot_bytes(0)
    }

    /// The next block, in turn, that has slots taken and no marks of use left. Each look at a block takes one of its marks.
    /// `None` if a whole round found none: then all have lost one.
    pub fn next_idle_block(&self) -> Option<BlockId> {
        let mut state = self.0.state();
        for _ in 0..state.blocks.len() {
            let at = state.hand;
            state.hand = (at + 1) % state.blocks.len();
            let marks = self.0.used.get(at).map_or(0, |used| {
                let marks = used.load(Ordering::Relaxed);
                // A use that is counted in between is lost: it is a hint, not an account.
                used.store(marks.saturating_sub(1), Ordering::Relaxed);
                marks
            });
            if marks == 0 && state.blocks.get(at).is_some_and(|block| block.taken > 0) {
                return Some(BlockId(at as u32));
            }
        }
        None
    }

    /// What it has now.
    pub fn stats(&self) -> ArenaStats {
        let state = self.0.state();
        ArenaStats {
            blocks: state.blocks.len(),
            blocks_free: state.free.len(),
            slots: state.slots,
            slot_bytes: state.slot_bytes,
            pages: self.0.mapping.pages,
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// A slot that its holder may write: `length` bytes, of which nothing is known but that they are initialised.
pub struct Slot {
    arena: Arc<Shared>,
    place: Place,
    length: usize,
}

impl Slot {
    /// Ends the writing.
    pub fn freeze(self) -> Chunk {
        Chunk(Arc::new(self))
    }

    fn start(&self) -> *mut u8 {
        let offset =
            self.place.block as usize * ARENA_BLOCK_BYTES + self.place.slot as usize * slot_bytes(self.place.class);
        // SAFETY: block and slot are numbers that the arena gave out, so the offset lies inside its mapping.
        unsafe { self.arena.mapping.start.as_ptr().add(offset) }
    }
}

impl Deref for Slot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `length` is at most the slot's size, which lies inside the mapping; the memory is initialised (anonymous
        // memory is zero) and is lent to this slot alone until it is dropped. It is written only through `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.start(), self.length) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` means that nobody else has a reference into the slot.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.arena.state();
        state.slots -= 1;
        state.slot_bytes -= slot_bytes(self.place.class);
        state.give(self.place);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({} bytes in block {})", self.length, self.place.block)
    }
}

/// Bytes in an arena that nobody writes any more. A clone costs a counter, and keeps the slot from being used again.
#[derive(Clone, Debug)]
pub struct Chunk(Arc<Slot>);

impl Chunk {
    /// A part of it for a send, without a copy. The slot stays as it is until the part has been dropped.
    ///
    /// # Panics
    /// If the range goes beyond the chunk: an error of the caller.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Bytes {
        let bytes = Bytes::from_owner(self.clone());
        match (range.start_bound(), range.end_bound()) {
            (Bound::Included(0) | Bound::Unbounded, Bound::Unbounded) => bytes,
            _ => bytes.slice(range),
        }
    }

    /// Whether somebody else holds it too, such as a send on its way.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The block that it lies in.
    pub fn block(&self) -> BlockId {
        BlockId(self.0.place.block)
    }

    /// Says that it was used: its block gets a mark, of a few at most, and each is one more chance.
    pub fn touch(&self) {
        if let Some(used) = self.0.arena.used.get(self.block().index()) {
            let marks = used.load(Ordering::Relaxed);
            // Mostly it has all of them, and the line stays shared between processors.
            if marks < ARENA_MARKS_MAX {
                used.store(marks + 1, Ordering::Relaxed);
            }
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Shared {
    mapping: Mapping,
    /// For each block its marks of use.
    used: Box<[AtomicU8]>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which slots are taken. Held for a few instructions, when something comes in or has gone out for good.
struct State {
    blocks: Vec<Block>,
    /// Blocks without a taken slot, those never touched at the bottom in falling order.
    free: Vec<u32>,
    /// For each class blocks with a taken and a vacant slot.
    open: [Vec<u32>; ARENA_SLOTS_PER_BLOCK.len()],
    hand: usize,
    slots: usize,
    slot_bytes: usize,
}

struct Block {
    class: u8,
    vacant: Vec<u16>,
    taken: u16,
}

/// A slot's place.
#[derive(Clone, Copy)]
struct Place {
    block: u32,
    slot: u16,
    class: u8,
}

impl State {
    fn take(&mut self, class: u8) -> Option<Place> {
        let open = &mut self.open[usize::from(class)];
        let id = match open.last() {
            Some(id) => *id,
            None => {
                let id = self.free.pop()?;
                let block = &mut self.blocks[id as usize];
                block.class = class;
                block.vacant = (0..ARENA_SLOTS_PER_BLOCK[usize::from(class)]).rev().collect();
                open.push(id);
                id
            }
        };
        let block = &mut self.blocks[id as usize];
        let slot = block.vacant.pop()?;
        block.taken += 1;
        if block.vacant.is_empty() {
            open.pop();
        }
        Some(Place { block: id, slot, class })
    }

    fn give(&mut self, place: Place) {
        let block = &mut self.blocks[place.block as usize];
        let was_full = block.vacant.is_empty();
        block.vacant.push(place.slot);
        block.taken -= 1;
        let open = &mut self.open[usize::from(place.class)];
        if block.taken > 0 {
            if was_full {
                open.push(place.block);
            }
            return;
        }
        open.retain(|id| *id != place.block);
        block.vacant = Vec::new();
        self.free.push(place.block);
    }
}

/// The class with the smallest slots that take `length`: classes are in falling order of their slots.
fn class_of(length: usize) -> Option<u8> {
    let fits = ARENA_SLOTS_PER_BLOCK.iter().take_while(|slots| length <= bytes_per_slot(**slots)).count();
    // There are few classes.
    if length == 0 { None } else { fits.checked_sub(1).map(|class| class as u8) }
}

fn slot_bytes(class: u8) -> usize {
    bytes_per_slot(ARENA_SLOTS_PER_BLOCK[usize::from(class)])
}

/// Whole pages, so that every slot begins on one.
const fn bytes_per_slot(slots: u16) -> usize {
    ARENA_BLOCK_BYTES / slots as usize / BUFFER_ALIGN * BUFFER_ALIGN
}

/// Anonymous memory that begins on a huge page's boundary.
struct Mapping {
    start: NonNull<u8>,
    base: *mut std::ffi::c_void,
    base_bytes: usize,
    pages: Pages,
}

// SAFETY: the mapping has no thread affinity; all access goes through slots, each of which has one owner or is read only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Result<Mapping, Error> {
        if let Ok(base) = map(bytes, MapFlags::HUGETLB) {
            return Mapping::at(base, bytes, 0, Pages::Reserved);
        }
        let base_bytes = bytes + ARENA_BLOCK_BYTES;
        let base = map(base_bytes, MapFlags::NORESERVE).map_err(Error::io("mapping the arena"))?;
        let skip = (base as usize).next_multiple_of(ARENA_BLOCK_BYTES) - base as usize;
        let mut mapping = Mapping::at(base, base_bytes, skip, Pages::Transparent)?;
        // SAFETY: the range is our own mapping; the advice changes only what backs it.
        if unsafe { madvise(mapping.start.as_ptr().cast(), bytes, Advice::LinuxHugepage) }.is_err() {
            mapping.pages = Pages::Ordinary;
        }
        Ok(mapping)
    }

    fn at(base: *mut std::ffi::c_void, base_bytes: usize, skip: usize, pages: Pages) -> Result<Mapping, Error> {
        // SAFETY: `skip` is less than the mapping's length.
        let start = NonNull::new(unsafe { base.cast::<u8>().add(skip) });
        let start = start.ok_or_else(|| Error::io("mapping the arena")(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Mapping { start, base, base_bytes, pages })
    }
}

fn map(bytes: usize, flags: MapFlags) -> io::Result<*mut std::ffi::c_void> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches nothing that exists.
    Ok(unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE | flags) }?)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and its length are those of our mapping, and no slot is left: each holds the arena.
        let _ = unsafe { munmap(self.base, self.base_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> Arena {
        Arena::new(ARENA_BYTES_MIN).expect("memory")
    }

    #[test]
    fn every_length_has_the_smallest_slot_that_takes_it() {
        let sizes: Vec<usize> = ARENA_SLOTS_PER_BLOCK.iter().map(|slots| bytes_per_slot(*slots)).collect();
        assert!(sizes.is_sorted_by(|a, b| a > b) && sizes.contains(&(256 << 10)));
        for length in (1..=Arena::slot_bytes_max()).step_by(1_021).chain(sizes.clone()) {
            let chosen = slot_bytes(class_of(length).expect("a class"));
            assert!(sizes.iter().all(|size| *size < length || *size >= chosen) && chosen >= length, "{length}");
        }
        assert_eq!((class_of(0), class_of(Arena::slot_bytes_max() + 1)), (None, None));
    }

    #[test]
    fn slots_do_not_overlap_and_memory_is_bounded() {
        let arena = arena();
        let mut held = Vec::new();
        for (round, length) in [300, 5_000, 70_000, 256 << 10, 260 << 10].into_iter().cycle().enumerate() {
            let Some(mut slot) = arena.reserve(length) else { break };
            slot.fill(round as u8);
            held.push((round as u8, slot.freeze()));
        }
        assert!(held.iter().all(|(mark, chunk)| chunk.iter().all(|byte| byte == mark)));
        let stats = arena.stats();
        assert_eq!((stats.slots, stats.blocks_free), (held.len(), 0));
        assert!(stats.slot_bytes <= ARENA_BYTES_MIN && stats.blocks * ARENA_BLOCK_BYTES == ARENA_BYTES_MIN);
        held.clear();
        let stats = arena.stats();
        assert_eq!((stats.slots, stats.slot_bytes, stats.blocks_free), (0, 0, stats.blocks));
    }

    #[test]
    fn a_slot_is_not_given_again_while_a_part_of_it_is_held() {
        let arena = arena();
        let mut slot = arena.reserve(256 << 10).expect("room");
        slot.fill(7);
        let chunk = slot.freeze();
        assert!(!chunk.is_shared());
        let part = chunk.slice(1_000..2_000);
        assert!(chunk.is_shared());
        drop(chunk);
        // Everything else is taken and written over.
        let others: Vec<Chunk> = std::iter::from_fn(|| {
            let mut slot = arena.reserve(256 << 10)?;
            slot.fill(9);
            Some(slot.freeze())
        })
        .collect();
        assert_eq!(others.len(), ARENA_BYTES_MIN / (256 << 10) - 1);
        assert!(part.len() == 1_000 && part.iter().all(|byte| *byte == 7));
        drop(part);
        assert!(arena.reserve(256 << 10).is_some());
    }

    #[test]
    fn a_block_that_was_used_has_a_second_chance() {
        let arena = arena();
        let chunks: Vec<Chunk> = (0..3 * 8).map(|_| arena.reserve(256 << 10).expect("room").freeze()).collect();
        // All are new, and therefore used.
        assert_eq!(arena.next_idle_block(), None);
        chunks[8].touch();
        let idle: Vec<_> = (0..2).filter_map(|_| arena.next_idle_block()).collect();
        assert_eq!(idle, [chunks[0].block(), chunks[16].block()]);
        assert_eq!(arena.next_idle_block(), Some(chunks[0].block()), "in turn");
        drop(chunks);
        assert_eq!(arena.next_idle_block(), None, "nothing is there");
    }

    #[test]
    fn an_arena_too_small_is_refused() {
        assert!(matches!(Arena::new(ARENA_BYTES_MIN - 1), Err(Error::Config { name: "arena", .. })));
    }
}
