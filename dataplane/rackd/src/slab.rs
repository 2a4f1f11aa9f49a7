//! A table whose keys go stale when their entry goes.

/// Entries by slot and generation.
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    limit: usize,
}

/// Which entry: the generation makes a key of an earlier entry in the same slot find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Generations wrap at 24 bits, the room that a token has for them.
pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

impl<T> Slab<T> {
    pub(crate) fn new(limit: usize) -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new(), limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// A key for the entry, or the entry back if the table is full.
    pub(crate) fn insert(&mut self, entry: T) -> Result<Key, T> {
        if let Some(slot) = self.free.pop() {
            let Some(place) = self.entries.get_mut(slot as usize) else { return Err(entry) };
            place.1 = Some(entry);
            return Ok(Key { slot, generation: place.0 });
        }
        let Some(slot) = u32::try_from(self.entries.len()).ok().filter(|slot| (*slot as usize) < self.limit) else {
            return Err(entry);
        };
        self.entries.push((0, Some(entry)));
        Ok(Key { slot, generation: 0 })
    }

    pub(crate) fn find(&mut self, key: Key) -> Option<&mut T> {
        let (generation, entry) = self.entries.get_mut(key.slot as usize)?;
        entry.as_mut().filter(|_| *generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(key.slot as usize)?;
        let taken = entry.take_if(|_| *generation == key.generation)?;
        *generation = generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.slot);
        Some(taken)
    }

    /// Keys of all entries.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let entries = self.entries.iter().zip(0u32..);
        entries
            .filter(|((_, entry), _)| entry.is_some())
            .map(|((generation, _), slot)| Key { slot, generation: *generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_earlier_entry_finds_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.insert("a").expect("room");
        assert_eq!(slab.insert("b"), Err("b"));
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("c").expect("room");
        assert_eq!((slab.find(first).is_none(), slab.remove(first), slab.len()), (true, None, 1));
        assert_eq!((slab.find(second).copied(), slab.keys()), (Some("c"), vec![second]));
    }
}
