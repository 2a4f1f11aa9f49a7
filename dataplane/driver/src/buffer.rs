//! Memory that goes to the kernel and comes back: page-aligned buffers for file reads, and pools of receive buffers.
//!
//! Ownership: a pool's buffer belongs to the kernel from [`Pool::provide`] until a completion names it, then to one
//! [`Received`], whose drop provides it again. A [`Buffer`] belongs to whoever holds it.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::types::BufRingEntry;

use crate::limits::BUFFER_ALIGN;

/// Zeroed, aligned memory on the heap with one owner.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory has one owner and no thread affinity; all access goes through `&` or `&mut` of that owner.
unsafe impl Send for Memory {}
// SAFETY: shared references only read (`Buffer`), or belong to a type that is itself not `Sync` (`Pool`).
unsafe impl Sync for Memory {}

impl Memory {
    fn zeroed(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes.max(BUFFER_ALIGN), BUFFER_ALIGN)
            .expect("buffer sizes are bounded by limits far below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Memory { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// An owned buffer for file reads, aligned so that direct I/O may use it. Its capacity never changes; its length says
/// how much of it was read.
pub struct Buffer {
    memory: Memory,
    capacity: usize,
    length: usize,
}

impl Buffer {
    /// An empty buffer that takes `capacity` bytes. Large ones cost no memory until they are filled.
    pub fn with_capacity(capacity: usize) -> Buffer {
        Buffer { memory: Memory::zeroed(capacity), capacity, length: 0 }
    }

    /// Bytes that a read may fill.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes it part of a send without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Where the kernel writes to.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.memory.start.as_ptr()
    }

    /// All of it, to be written.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        // SAFETY: `capacity <= layout.size()`, all of it initialised by `alloc_zeroed`, and `&mut self` is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.capacity) }
    }

    /// Sets the length to what a read has filled.
    pub(crate) fn set_length(&mut self, length: usize) {
        self.length = length.min(self.capacity);
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `length <= capacity <= layout.size()`, all of it initialised by `alloc_zeroed`; while an operation
        // writes into it the driver owns the value, so no reference exists.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.length, self.capacity)
    }
}

/// A group of equal receive buffers shared with the kernel, and the ring of entries by which they are provided to it.
pub(crate) struct Pool {
    /// The ring of `count` entries of 16 bytes, page-aligned.
    ring: Memory,
    buffers: Memory,
    count: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
    /// The oldest entry that was not lent, for a backend without a ring.
    head: Cell<u16>,
    /// Buffers that a `Received` holds.
    lent: Cell<u16>,
}

impl Pool {
    /// A pool with all buffers provided. `count` is a power of two.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> Rc<Pool> {
        let pool = Rc::new(Pool {
            ring: Memory::zeroed(usize::from(count) * size_of::<BufRingEntry>()),
            buffers: Memory::zeroed(usize::from(count) * buffer_bytes as usize),
            count,
            buffer_bytes,
            tail: Cell::new(0),
            head: Cell::new(0),
            lent: Cell::new(0),
        });
        (0..count).for_each(|index| pool.provide(index));
        pool
    }

    /// Address of the ring, for registration.
    pub(crate) fn ring_address(&self) -> u64 {
        self.ring.start.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of one buffer.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes as usize
    }

    /// Whether the kernel has at least one buffer left.
    pub(crate) fn has_free(&self) -> bool {
        self.lent.get() < self.count
    }

    /// The `length` bytes that a completion says are in buffer `index`. Called once per completion that names a buffer.
    pub(crate) fn take(self: &Rc<Pool>, index: u16, length: usize) -> Received {
        assert!(index < self.count, "the kernel names only buffers that were provided");
        self.lent.set(self.lent.get() + 1);
        Received { pool: Rc::clone(self), index, range: 0..length.min(self.buffer_bytes as usize) }
    }

    /// A buffer to be filled by the caller, who then takes it or provides it again: what the kernel does with a ring.
    pub(crate) fn lend(&self) -> Option<u16> {
        let head = self.head.get();
        if head == self.tail.get() {
            return None;
        }
        self.head.set(head.wrapping_add(1));
        let slot = usize::from(head & (self.count - 1));
        // SAFETY: `slot < count` entries fit in the ring's memory, which is aligned to a page and initialised.
        Some(unsafe { &*self.ring.start.as_ptr().cast::<BufRingEntry>().add(slot) }.bid())
    }

    /// Where buffer `index` begins.
    pub(crate) fn start(&self, index: u16) -> *mut u8 {
        assert!(index < self.count, "only buffers of the pool are lent");
        // SAFETY: `index < count`, so the offset lies inside the buffers' memory.
        unsafe { self.buffers.start.as_ptr().add(usize::from(index) * self.buffer_bytes as usize) }
    }

    /// Gives buffer `index` to the kernel.
    pub(crate) fn provide(&self, index: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        // SAFETY: `slot < count` entries fit in the ring's memory, which is aligned to a page. Each buffer is provided only
        // when nobody holds it, so at most `count` entries are outstanding and this slot has been consumed by the kernel.
        let entry = unsafe { &mut *self.ring.start.as_ptr().cast::<BufRingEntry>().add(slot) };
        entry.set_addr(self.buffers.start.as_ptr() as u64 + u64::from(index) * u64::from(self.buffer_bytes));
        entry.set_len(self.buffer_bytes);
        entry.set_bid(index);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: the tail lies in the reserved field of the first entry, within our memory and aligned; the kernel reads it
        // with acquire order, and only this thread (the pool is not `Send`) writes it.
        unsafe {
            let place = BufRingEntry::tail(self.ring.start.as_ptr().cast::<BufRingEntry>());
            AtomicU16::from_ptr(place.cast_mut()).store(tail, Ordering::Release);
        }
    }
}

/// Bytes that have come, in one of the driver's receive buffers. Dropping it gives the buffer back to the kernel, so keep
/// it only while handling the completion; copy what must stay. Hoarding starves all receivers of the driver's group.
pub struct Received {
    pool: Rc<Pool>,
    index: u16,
    range: Range<usize>,
}

impl Received {
    /// The same buffer, seen from `range` of what it shows now.
    pub(crate) fn narrowed(mut self, range: Range<usize>) -> Received {
        assert!(range.start <= range.end && range.end <= self.range.len(), "narrowing stays inside");
        self.range = self.range.start + range.start..self.range.start + range.end;
        self
    }
}

impl Deref for Received {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is ours from the completion until drop, so the kernel does not write to it; `index < count` and
        // `range` lies in the buffer, which was initialised by `alloc_zeroed`.
        unsafe {
            let start = self.pool.buffers.start.as_ptr().add(usize::from(self.index) * self.pool.buffer_bytes as usize);
            std::slice::from_raw_parts(start.add(self.range.start), self.range.len())
        }
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        self.pool.provide(self.index);
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_counts_what_is_lent() {
        let pool = Pool::new(2, 64);
        let first = pool.take(0, 10);
        let second = pool.take(1, 1_000);
        assert_eq!((first.len(), second.len()), (10, 64));
        assert!(!pool.has_free());
        drop(first);
        assert!(pool.has_free());
        assert_eq!(pool.tail.get(), 3);
        assert_eq!(second.narrowed(8..16).len(), 8);
    }

    #[test]
    fn a_buffer_is_aligned_and_starts_empty() {
        let mut buffer = Buffer::with_capacity(10_000);
        assert_eq!((buffer.start() as usize % BUFFER_ALIGN, buffer.len(), buffer.capacity()), (0, 0, 10_000));
        buffer.set_length(20_000);
        assert_eq!(buffer.into_bytes().len(), 10_000);
    }
}
