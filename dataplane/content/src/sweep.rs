//! Winning back room: manifests that are long unused go first, then chunks that no manifest names.

use std::collections::{HashMap, HashSet};

use bootstorm_snapshot::{ChunkName, ManifestDigest};

use crate::error::at;
use crate::index::{Location, PackId};
use crate::limits::SWEEP_LIVE_PERCENT_MIN;
use crate::store::{Store, pack_path};
use crate::{Access, Error, Writer};

/// When to evict and how far, in octets of packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Nothing is evicted below this. 0 for a disk that takes nothing more: then all goes that no manifest names, also out of packs
    /// that are mostly named.
    pub high_bytes: u64,
    /// Once above, manifests go until the named chunks take no more than this.
    pub low_bytes: u64,
}

/// What a sweep or eviction did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Manifests removed, the longest unused first.
    pub manifests: Vec<ManifestDigest>,
    /// Chunks removed.
    pub chunks: u64,
    /// Octets of packs before and after.
    pub pack_bytes_before: u64,
    /// Octets of packs afterwards.
    pub pack_bytes_after: u64,
    /// Octets given back inside packs that stay, because there was no room to rewrite them.
    pub punched_bytes: u64,
}

impl Store {
    /// Removes chunks that no manifest names: packs without any are removed, packs mostly without are rewritten, or on a full
    /// disk get holes.
    /// Needs the store without writers ([`Error::WritersActive`]), since a writer's chunks have no manifest yet. A
    /// manifest that cannot be read stops the sweep ([`Error::ManifestCorrupt`]): put it again or remove it first.
    /// Blocks on the disk; readers go on meanwhile.
    pub fn sweep(&self) -> Result<Swept, Error> {
        let mut sweep = Sweep::begin(self)?;
        let named = self.references(&self.manifests())?;
        sweep.run(Need::Some, |name| named.contains_key(name))
    }

    /// If packs take more than the high mark: removes manifests, the longest unused first and none of `keep`, until
    /// what the others name is within the low mark; then sweeps. The conditions of [`Store::sweep`] hold.
    pub fn evict(&self, marks: Marks, keep: &HashSet<ManifestDigest>) -> Result<Swept, Error> {
        let before = self.stats().pack_bytes;
        if before <= marks.high_bytes {
            return Ok(Swept { pack_bytes_before: before, pack_bytes_after: before, ..Swept::default() });
        }
        let need = if marks.high_bytes == 0 { Need::All } else { Need::Some };
        let mut sweep = Sweep::begin(self)?;
        let ages = self.shared.manifests_by_age();
        let mut references = self.references(&ages)?;
        let mut live_bytes = 0u64;
        for name in references.keys() {
            live_bytes += self.locate(name).map_or(0, |location| u64::from(location.stored_bytes));
        }
        let mut removed = Vec::new();
        for digest in ages.into_iter().filter(|digest| !keep.contains(digest)) {
            if live_bytes <= marks.low_bytes {
                break;
            }
            for name in self.names(&digest)? {
                if let Some(count) = references.get_mut(&name) {
                    *count -= 1;
                    if *count == 0 {
                        references.remove(&name);
                        live_bytes -= self.locate(&name).map_or(0, |location| u64::from(location.stored_bytes));
                    }
                }
            }
            self.remove_manifest(&digest)?;
            removed.push(digest);
        }
        let mut swept = sweep.run(need, |name| references.contains_key(name))?;
        swept.manifests = removed;
        Ok(swept)
    }

    /// Distinct chunks of one manifest.
    fn names(&self, digest: &ManifestDigest) -> Result<HashSet<ChunkName>, Error> {
        let manifest = self.read_manifest(digest)?;
        let entries = manifest.manifest().entries().iter();
        Ok(entries.filter(|entry| !entry.is_hole()).map(|entry| entry.name).collect())
    }

    /// How many of the manifests name each chunk.
    fn references(&self, digests: &[ManifestDigest]) -> Result<HashMap<ChunkName, u32>, Error> {
        let mut references = HashMap::new();
        for digest in digests {
            for name in self.names(digest)? {
                *references.entry(name).or_insert(0) += 1;
            }
        }
        Ok(references)
    }
}

/// How much of what nobody names is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// What packs give that are mostly of such chunks.
    Some,
    /// All of it: the disk takes nothing more.
    All,
}

/// The store without writers but this one, for as long as this lives.
struct Sweep<'a> {
    store: &'a Store,
    writer: Option<Writer>,
}

impl<'a> Sweep<'a> {
    fn begin(store: &'a Store) -> Result<Sweep<'a>, Error> {
        store.shared.begin_sweep()?;
        Ok(Sweep { store, writer: Some(Writer::for_sweep(store.clone())) })
    }

    fn run(&mut self, need: Need, is_live: impl Fn(&ChunkName) -> bool) -> Result<Swept, Error> {
        let store = self.store;
        let mut swept = Swept { pack_bytes_before: store.stats().pack_bytes, ..Swept::default() };
        let mut chunks: HashMap<PackId, Vec<(ChunkName, Location)>> = HashMap::new();
        store.shared.index.each(|name, location| chunks.entry(location.pack).or_default().push((*name, *location)));
        let mut packs = Vec::new();
        for (pack, pack_bytes) in store.shared.pack_lengths() {
            let mut chunks = chunks.remove(&pack).unwrap_or_default();
            chunks.sort_unstable_by_key(|(_, location)| location.offset);
            let (live, dead): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|(name, _)| is_live(name));
            let live_bytes: u64 = live.iter().map(|(_, location)| u64::from(location.stored_bytes)).sum();
            let is_worth_moving = live_bytes * 100 < pack_bytes * SWEEP_LIVE_PERCENT_MIN || live_bytes == 0;
            if !is_worth_moving && (need == Need::Some || live_bytes == pack_bytes) {
                continue;
            }
            for (name, location) in dead {
                swept.chunks += u64::from(store.shared.index.remove(&name, location));
            }
            packs.push((live_bytes, pack, pack_bytes, live, is_worth_moving));
        }
        // Those that need no room, or little, give theirs to the others.
        packs.sort_unstable_by_key(|(live_bytes, pack, ..)| (*live_bytes, *pack));
        for (_, pack, pack_bytes, live, is_worth_moving) in packs {
            if is_worth_moving {
                match self.rewrite(&live) {
                    Ok(()) => {
                        store.shared.drop_pack(pack)?;
                        continue;
                    }
                    Err(Error::WriterStopped) => {}
                    Err(error) if error.is_disk_full() => {}
                    Err(error) => return Err(error),
                }
            }
            swept.punched_bytes += self.punch(pack, pack_bytes, &live)?;
        }
        swept.pack_bytes_after = store.stats().pack_bytes;
        Ok(swept)
    }

    /// Puts chunks into another pack. Only when all of them are durable there may their old pack go.
    fn rewrite(&mut self, live: &[(ChunkName, Location)]) -> Result<(), Error> {
        let Some(writer) = self.writer.as_mut() else { return Ok(()) };
        for (name, _) in live {
            // A chunk that is bad is quarantined by the reading, and is fetched again like any missing one.
            match self.store.read_chunk(name) {
                Ok(bytes) => writer.put_again(*name, &bytes)?,
                Err(Error::Corrupt { .. } | Error::ChunkMissing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        writer.commit()
    }

    /// Gives back what lies between the chunks that have stayed in a pack, where there is no room to put them elsewhere. Entries
    /// of what was there may come back with the next start: their octets are zeros then, and no chunk is served unhashed.
    fn punch(&self, pack: PackId, pack_bytes: u64, live: &[(ChunkName, Location)]) -> Result<u64, Error> {
        let (shared, name) = (&self.store.shared, pack_path(pack));
        let file = shared.disk.open(&name, Access::Append).map_err(at("open", &name))?;
        let stays = live.iter().filter(|(name, location)| self.store.locate(name) == Some(*location));
        let ends = stays.map(|(_, location)| (location.offset, u64::from(location.stored_bytes)));
        let (mut from, mut punched) = (0, 0);
        for (offset, bytes) in ends.chain([(pack_bytes, 0)]) {
            if offset > from {
                shared.disk.punch(&name, &file, from, offset - from).map_err(at("punch", &name))?;
                punched += offset - from;
            }
            from = offset + bytes;
        }
        Ok(punched)
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.writer = None;
        self.store.shared.end_sweep();
    }
}
