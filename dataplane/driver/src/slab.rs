//! A bounded table whose keys go stale: a slot's generation grows each time it is emptied, so an old key finds nothing.

/// A slot and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// One integer: generation in the upper half, so that it is never small by accident.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Key {
        Key { index: (bits & 0xffff_ffff) as u32, generation: (bits >> 32) as u32 }
    }
}

/// The table. Grows on demand up to its capacity and then refuses.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: u32,
    length: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new(capacity: u32) -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new(), capacity, length: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length >= self.capacity
    }

    /// Puts a value into a free slot; gives it back when there is none.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.is_full() {
            return Err(value);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 1, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        self.length += 1;
        Ok(Key { index, generation: slot.generation })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?.value.as_mut()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        // The largest generation is left out: with it `to_bits` could meet the driver's own reserved values.
        slot.generation = if slot.generation >= u32::MAX - 1 { 1 } else { slot.generation + 1 };
        self.free.push(key.index);
        self.length -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.insert("a").unwrap();
        assert_eq!(slab.insert("b"), Err("b"));
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("c").unwrap();
        assert_ne!(first, second);
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&"c")));
        assert_eq!(slab.remove(first), None);
        assert_eq!(Key::from_bits(second.to_bits()), second);
    }
}
