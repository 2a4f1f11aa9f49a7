//! All names of a view in one table that is small, cheap to copy, and found in by hash.
//!
//! ```text
//! Names ──▶ directory ──▶ page ──▶ bucket: count u16 | (tag u32, start u32) each | entries
//!           √n pages      √n buckets       a dozen names each
//! ```
//! Directory, pages and buckets are shared between copies; a change copies one bucket, one page and the directory, so that a
//! change of one name costs what one name costs, however many there are, and readers go on with the copy that they have.
//!
//! Besides the names with records there is an entry for every name above one (an empty non-terminal, RFC 4592 §2.2.2), up to
//! the root: if a name is there, all names above it are. So the closest encloser of a name that is not there is found by
//! bisection, and each entry knows the zone that it is in and the delegation that it is below.

mod entry;

use std::fmt;
use std::sync::Arc;

use crate::dns::{DnsName, Name, RecordSet, Zone, kind};
use entry::Entry;
pub use entry::{Node, Record, Set};

/// Where each label of a name begins, the first one first, the root's not among them.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    starts: [u8; LABELS_MAX],
    count: u8,
}

/// Labels of the longest name: 127 of one octet with their lengths, and the root's.
const LABELS_MAX: usize = 127;

impl Labels {
    /// Those of an uncompressed name; `None` if it is none.
    pub fn of(wire: &[u8]) -> Option<Labels> {
        let mut labels = Labels { starts: [0; LABELS_MAX], count: 0 };
        let mut at = 0_u8;
        loop {
            let length = *wire.get(usize::from(at))?;
            if length == 0 {
                return Some(labels);
            }
            *labels.starts.get_mut(usize::from(labels.count))? = at;
            labels.count += 1;
            at = at.checked_add(1)?.checked_add(length)?;
        }
    }

    /// The starts.
    pub fn starts(&self) -> &[u8] {
        self.starts.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// A name to be looked for: its octets in lower case, and where its labels begin. Both belong to whoever has read it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The name's octets, the root's 0 included.
    pub wire: &'a [u8],
    /// Offsets of its labels.
    pub labels: &'a [u8],
}

impl<'a> Query<'a> {
    /// The name without its first `skipped` labels.
    pub fn suffix(self, skipped: usize) -> &'a [u8] {
        match self.labels.get(skipped) {
            Some(start) => self.wire.get(usize::from(*start)..).unwrap_or_default(),
            None => ROOT,
        }
    }

    /// The hashes of the name and of the name above it, which the first is made of.
    fn hashes(self) -> (u64, u64) {
        let mut end = self.wire.len().saturating_sub(1);
        let (mut hash, mut above) = (ROOT_HASH, ROOT_HASH);
        for start in self.labels.iter().rev() {
            let start = usize::from(*start);
            above = hash;
            hash = step(hash, self.wire.get(start..end).unwrap_or_default());
            end = start;
        }
        (hash, above)
    }

    fn hash_of_suffix(self, skipped: usize) -> u64 {
        let labels = self.labels.get(skipped..).unwrap_or_default();
        let Some(start) = labels.first() else { return ROOT_HASH };
        // Its labels' offsets are those of the whole name.
        let whole = self.wire;
        let mut end = whole.len().saturating_sub(1);
        let mut hash = ROOT_HASH;
        for at in labels.iter().rev() {
            hash = step(hash, whole.get(usize::from(*at)..end).unwrap_or_default());
            end = usize::from(*at);
        }
        debug_assert_eq!(end, usize::from(*start));
        hash
    }
}

const ROOT: &[u8] = &[0];
const ROOT_HASH: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a label (with its length octet) in front of a name with this hash.
#[inline]
fn step(above: u64, label: &[u8]) -> u64 {
    let (words, rest) = label.as_chunks::<8>();
    let mut hash = above;
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = 0;
    for octet in rest {
        last = last << 8 | u64::from(*octet);
    }
    fold(hash ^ last ^ STEP)
}

#[inline]
fn fold(value: u64) -> u64 {
    let wide = u128::from(value) * u128::from(STEP);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// What was found of a name.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The name itself, or the closest one above it that is there (RFC 4592 §2.2.1).
    pub node: Node<'a>,
    /// Labels of the name that are not there; 0: it is there itself.
    pub missing: usize,
}

type Bucket = Arc<[u8]>;
type Page = Arc<Vec<Bucket>>;

/// The table.
#[derive(Clone)]
pub struct Names {
    directory: Arc<Vec<Page>>,
    /// log₂ of the buckets.
    bits: u32,
    /// Entries, those without records included.
    count: usize,
}

/// Entries of a bucket, on average, at which there come to be twice as many buckets.
const BUCKET_ENTRIES_MAX: usize = 12;

impl Default for Names {
    fn default() -> Names {
        Names { directory: directory(0, |_| Arc::new([])), bits: 0, count: 0 }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|name| (name.name, name.sets))).finish()
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Names) -> bool {
        let is_same = |node: Node<'_>| other.get(node.wire()).is_some_and(|others| others.records() == node.records());
        self.count == other.count && self.nodes().all(is_same)
    }
}

impl Eq for Names {}

impl Names {
    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The name, or what there is of it; `None` of an empty table.
    #[inline]
    pub fn find(&self, query: Query<'_>) -> Option<Found<'_>> {
        let (hash, above) = query.hashes();
        if let Some(node) = self.look(hash, query.wire) {
            return Some(Found { node, missing: 0 });
        }
        // By far the most names that are not there would stand directly below one that is.
        if let Some(node) = self.look(above, query.suffix(1)) {
            return Some(Found { node, missing: 1 });
        }
        // The greatest number known to be missing too many, the least known to be enough; at the root it is enough.
        let (mut few, mut enough) = (1, query.labels.len());
        let mut node = self.look(ROOT_HASH, ROOT)?;
        while few + 1 < enough {
            let middle = few.midpoint(enough);
            match self.look(query.hash_of_suffix(middle), query.suffix(middle)) {
                Some(found) => (node, enough) = (found, middle),
                None => few = middle,
            }
        }
        Some(Found { node, missing: enough })
    }

    /// The name without its first labels, if it is there.
    pub fn find_suffix(&self, query: Query<'_>, skipped: usize) -> Option<Node<'_>> {
        self.look(query.hash_of_suffix(skipped), query.suffix(skipped))
    }

    /// The wildcard below the name without its first labels.
    pub fn find_wildcard(&self, query: Query<'_>, skipped: usize) -> Option<Node<'_>> {
        let hash = step(query.hash_of_suffix(skipped), entry::WILDCARD);
        let tail = query.suffix(skipped);
        entry::find(self.bucket(hash), hash, |wire| wire.strip_prefix(entry::WILDCARD) == Some(tail))
    }

    /// The entry of a name, in octets of the wire.
    pub fn get(&self, wire: &[u8]) -> Option<Node<'_>> {
        let labels = Labels::of(wire)?;
        self.look(Query { wire, labels: labels.starts() }.hashes().0, wire)
    }

    /// All names with records other than an SOA, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Name> + '_ {
        let named = |node: Node<'_>| {
            let sets: Vec<RecordSet> = node.records().into_iter().filter(|set| set.kind != kind::SOA).collect();
            (!sets.is_empty()).then(|| Some(Name { name: DnsName::from_wire(node.wire())?, sets })).flatten()
        };
        self.nodes().filter_map(named)
    }

    /// Sets all records of a name but its SOA. Sets that cannot be served ([`RecordSet::is_good`]) are left out, and a second one of
    /// a type.
    pub fn put(&mut self, name: &Name) {
        let mut sets: Vec<&RecordSet> = name.sets.iter().filter(|set| set.is_good()).collect();
        sets.sort_by_key(|set| set.kind);
        sets.dedup_by_key(|set| set.kind);
        if sets.is_empty() {
            return self.remove(&name.name);
        }
        self.change(name.name.wire(), |entry, owner| {
            entry.keep(|kind| kind == kind::SOA);
            sets.iter().for_each(|set| entry.push(owner, set));
        });
    }

    /// Removes all records of a name but its SOA.
    pub fn remove(&mut self, name: &DnsName) {
        self.change(name.wire(), |entry, _| entry.keep(|kind| kind == kind::SOA));
    }

    /// Gives a name authority: it and what is below it are in the zone.
    pub fn put_zone(&mut self, zone: &Zone) {
        let set =
            RecordSet { kind: kind::SOA, ttl_seconds: zone.ttl_seconds, data: vec![crate::dhcp::Octets(zone.soa())] };
        self.change(zone.name.wire(), |entry, owner| {
            entry.keep(|kind| kind != kind::SOA);
            entry.push(owner, &set);
        });
    }

    /// Takes the authority away; records that are there stay.
    pub fn remove_zone(&mut self, name: &DnsName) {
        self.change(name.wire(), |entry, _| entry.keep(|kind| kind != kind::SOA));
    }

    #[inline]
    fn look(&self, hash: u64, name: &[u8]) -> Option<Node<'_>> {
        entry::find(self.bucket(hash), hash, |wire| wire == name)
    }

    /// Directory index and page index of a hash's bucket.
    fn place(&self, hash: u64) -> (usize, usize) {
        let number = hash.checked_shr(64 - self.bits).unwrap_or(0) as usize;
        let page_bits = self.bits / 2;
        (number >> page_bits, number & ((1 << page_bits) - 1))
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &[u8] {
        let (page, bucket) = self.place(hash);
        self.directory.get(page).and_then(|page| page.get(bucket)).map(|bucket| &bucket[..]).unwrap_or_default()
    }

    fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.directory.iter().flat_map(|page| page.iter()).flat_map(|bucket| entry::nodes(bucket))
    }

    /// Changes the entry of a name, which is made if it is not there, and removed if it has neither records nor names below it.
    fn change(&mut self, wire: &[u8], change: impl FnOnce(&mut Entry, &[u8])) {
        let Some(labels) = Labels::of(wire) else { return };
        let query = Query { wire, labels: labels.starts() };
        let hash = query.hashes().0;
        let before = self.look(hash, wire).map(Entry::of);
        let (mut entry, is_new) = match before {
            Some(entry) => (entry, false),
            None => (Entry::empty(wire), true),
        };
        let authority = |entry: &Entry| (entry.has(kind::SOA), entry.has(kind::NS));
        let had = authority(&entry);
        change(&mut entry, wire);
        let is_gone = entry.is_empty();
        match (is_new, is_gone) {
            (true, true) => return,
            (true, false) => self.link(query),
            (false, true) => {
                self.store(hash, wire, None);
                return self.unlink(query);
            }
            (false, false) => {}
        }
        entry.place(query.labels.len(), self.above(query));
        self.store(hash, wire, Some(&entry));
        if entry.children() > 0 && had != authority(&entry) {
            self.place_all();
        }
        self.resize();
    }

    /// The zone and the delegation of the name above.
    fn above(&self, query: Query<'_>) -> (Option<u8>, Option<u8>) {
        if query.labels.is_empty() {
            return (None, None);
        }
        self.find_suffix(query, 1).map_or((None, None), |node| (node.zone_labels(), node.cut_labels()))
    }

    /// A name has come: the names above it are made, as far as they are not there.
    fn link(&mut self, query: Query<'_>) {
        let missing =
            (1..=query.labels.len()).take_while(|skipped| self.find_suffix(query, *skipped).is_none()).count();
        // From above, so that each finds its zone.
        for skipped in (1..=(missing + 1).min(query.labels.len())).rev() {
            let name = query.suffix(skipped);
            let hash = query.hash_of_suffix(skipped);
            let found = self.look(hash, name).map(Entry::of);
            let mut entry = found.unwrap_or_else(|| Entry::empty(name));
            entry.add_child(query.suffix(skipped - 1));
            let labels = query.labels.get(skipped..).unwrap_or_default();
            if skipped <= missing {
                entry.place(labels.len(), self.above_suffix(query, skipped));
            }
            self.store(hash, name, Some(&entry));
        }
    }

    fn above_suffix(&self, query: Query<'_>, skipped: usize) -> (Option<u8>, Option<u8>) {
        if skipped >= query.labels.len() {
            return (None, None);
        }
        self.find_suffix(query, skipped + 1).map_or((None, None), |node| (node.zone_labels(), node.cut_labels()))
    }

    /// A name has gone: the names above it that were there only for it go too.
    fn unlink(&mut self, query: Query<'_>) {
        for skipped in 1..=query.labels.len() {
            let name = query.suffix(skipped);
            let hash = query.hash_of_suffix(skipped);
            let Some(mut entry) = self.look(hash, name).map(Entry::of) else { return };
            entry.remove_child(query.suffix(skipped - 1));
            if !entry.is_empty() {
                return self.store(hash, name, Some(&entry));
            }
            self.store(hash, name, None);
        }
    }

    /// Zones or delegations above other names have changed: rare, and the only thing that looks at all names.
    fn place_all(&mut self) {
        let mut names: Vec<Box<[u8]>> = self.nodes().map(|node| node.wire().into()).collect();
        names.sort_by_key(|wire| Labels::of(wire).map_or(0, |labels| labels.count));
        for wire in names {
            let Some(labels) = Labels::of(&wire) else { continue };
            let query = Query { wire: &wire, labels: labels.starts() };
            let hash = query.hashes().0;
            let Some(mut entry) = self.look(hash, &wire).map(Entry::of) else { continue };
            if entry.place(query.labels.len(), self.above(query)) {
                self.store(hash, &wire, Some(&entry));
            }
        }
    }

    /// Puts an entry in place of the one of its name, or removes that.
    fn store(&mut self, hash: u64, wire: &[u8], entry: Option<&Entry>) {
        let (page, bucket) = self.place(hash);
        let pages = Arc::make_mut(&mut self.directory);
        let Some(place) = pages.get_mut(page).and_then(|page| Arc::make_mut(page).get_mut(bucket)) else { return };
        let (next, difference) = entry::replace(place, hash, wire, entry);
        *place = next;
        self.count = self.count.saturating_add_signed(difference);
    }

    /// Keeps buckets short, and few.
    fn resize(&mut self) {
        let buckets = 1_usize << self.bits;
        let bits = match self.count {
            count if count > buckets * BUCKET_ENTRIES_MAX => self.bits + 1,
            count if self.bits > 0 && count * 8 < buckets * BUCKET_ENTRIES_MAX => self.bits - 1,
            _ => return,
        };
        let mut gathered: Vec<Vec<(u64, Entry)>> = vec![Vec::new(); 1 << bits];
        for node in self.nodes() {
            let Some(labels) = Labels::of(node.wire()) else { continue };
            let hash = Query { wire: node.wire(), labels: labels.starts() }.hashes().0;
            let number = hash.checked_shr(64 - bits).unwrap_or(0) as usize;
            if let Some(bucket) = gathered.get_mut(number) {
                bucket.push((hash, Entry::of(node)));
            }
        }
        self.bits = bits;
        self.directory =
            directory(bits, |number| entry::bucket(gathered.get(number).map(Vec::as_slice).unwrap_or_default()));
    }
}

fn directory(bits: u32, bucket: impl Fn(usize) -> Bucket) -> Arc<Vec<Page>> {
    let page_bits = bits / 2;
    let page = |page: usize| Arc::new((0..1 << page_bits).map(|at| bucket(page << page_bits | at)).collect());
    Arc::new((0..1 << (bits - page_bits)).map(page).collect())
}

#[cfg(test)]
mod tests;
