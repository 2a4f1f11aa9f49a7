//! Entries of the table of names as octets, and buckets of them.
//!
//! ```text
//! entry   name bytes u8 | flags u8 | zone u8 | cut u8 | children u32 | name | sets to the entry's end
//! set     type u16 | records u16 | bytes u32 | records
//! record  shared u8, shared u8 | type 2, class 2, lifetime 4, length 2, data: as on the wire
//! ```
//! Integers are little-endian but those on the wire. `zone` and `cut` are numbers of labels: those of the apex that the name is in
//! or at, and those of the highest delegation that it is at or below; 255 is none. `shared` says how many octets at the end of
//! the first and of the second name in the data are the end of the owner's name too: what a pointer can stand for in an answer.

use std::sync::Arc;

use crate::dhcp::Octets;
use crate::dns::{RecordSet, kind, name_bytes};

/// The first label of a wildcard.
pub(super) const WILDCARD: &[u8] = b"\x01*";
const HAS_WILDCARD: u8 = 1;
const NONE: u8 = 255;
/// Octets in front of an entry's name.
const HEAD_BYTES: usize = 8;
/// Octets in front of a set's records.
const SET_HEAD_BYTES: usize = 8;
/// Octets of a record in front of its data: two numbers of shared octets, and the ten of the wire.
const RECORD_HEAD_BYTES: usize = 12;
/// Octets of a bucket for each of its entries.
const SLOT_BYTES: usize = 8;
/// Class “internet” (RFC 1035 §3.2.4).
const CLASS_IN: [u8; 2] = [0, 1];

/// An entry of the table, read where it is.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    head: &'a [u8; HEAD_BYTES],
    wire: &'a [u8],
    sets: &'a [u8],
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.wire.escape_ascii())
    }
}

impl<'a> Node<'a> {
    fn read(octets: &'a [u8]) -> Option<Node<'a>> {
        let (head, rest) = octets.split_first_chunk::<HEAD_BYTES>()?;
        let (wire, sets) = rest.split_at_checked(usize::from(head[0]))?;
        Some(Node { head, wire, sets })
    }

    /// The name's octets.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Labels of the apex of the zone that it is in; `None`: it is in no zone.
    #[inline]
    pub fn zone_labels(&self) -> Option<u8> {
        Some(self.head[2]).filter(|labels| *labels != NONE)
    }

    /// Labels of the highest delegation in its zone that it is at or below.
    #[inline]
    pub fn cut_labels(&self) -> Option<u8> {
        Some(self.head[3]).filter(|labels| *labels != NONE)
    }

    /// Whether there is a wildcard directly below it.
    #[inline]
    pub fn has_wildcard(&self) -> bool {
        self.head[1] & HAS_WILDCARD != 0
    }

    /// Its sets in the order of their types.
    #[inline]
    pub fn sets(&self) -> impl Iterator<Item = Set<'a>> + use<'a> {
        Sets(self.sets)
    }

    /// Its set of one type.
    #[inline]
    pub fn set(&self, kind: u16) -> Option<Set<'a>> {
        self.sets().find(|set| set.kind == kind)
    }

    /// Its sets as records of the snapshot, the SOA among them.
    pub(super) fn records(&self) -> Vec<RecordSet> {
        let whole = |set: Set<'a>| RecordSet {
            kind: set.kind,
            ttl_seconds: set.records().next().map_or(0, |record| record.ttl_seconds()),
            data: set.records().map(|record| Octets(record.data().to_vec())).collect(),
        };
        self.sets().map(whole).collect()
    }
}

struct Sets<'a>(&'a [u8]);

impl<'a> Iterator for Sets<'a> {
    type Item = Set<'a>;
    #[inline]
    fn next(&mut self) -> Option<Set<'a>> {
        let (head, rest) = self.0.split_first_chunk::<SET_HEAD_BYTES>()?;
        let [a, b, c, d, bytes @ ..] = *head;
        let (records, rest) = rest.split_at_checked(u32::from_le_bytes(bytes) as usize)?;
        self.0 = rest;
        Some(Set { kind: u16::from_le_bytes([a, b]), count: u16::from_le_bytes([c, d]), records })
    }
}

/// A set of records, read where it is.
#[derive(Clone, Copy)]
pub struct Set<'a> {
    /// The type's number.
    pub kind: u16,
    /// How many records it has.
    pub count: u16,
    records: &'a [u8],
}

impl<'a> Set<'a> {
    /// Its records.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        Records(self.records)
    }
}

struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;
    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let (head, _) = self.0.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        let [first, second, .., high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (record, rest) = self.0.split_at_checked(RECORD_HEAD_BYTES + length)?;
        self.0 = rest;
        Some(Record { shared: [first, second], tail: record.get(2..)? })
    }
}

/// A record without its owner, read where it is.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// How many octets at the end of the first and second name in the data are the end of the owner's name too; 0: none.
    pub shared: [u8; 2],
    /// Type, class, lifetime, length and data as on the wire, names in it uncompressed.
    pub tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// Its data.
    pub fn data(&self) -> &'a [u8] {
        self.tail.get(10..).unwrap_or_default()
    }

    /// Its data in pieces, each followed by so many octets that are the end of the owner's name and for which a pointer can stand:
    /// of most records one piece and none of these, of an SOA three.
    pub fn pieces(&self) -> [(&'a [u8], u8); 3] {
        let data = self.data();
        let [first, second] = self.shared;
        let own =
            |octets: &'a [u8], shared: u8| octets.get(..octets.len().saturating_sub(shared.into())).unwrap_or(octets);
        if !self.tail.starts_with(&kind::SOA.to_be_bytes()) {
            // The name is the last of the data.
            return [(own(data, first), first), (&[], 0), (&[], 0)];
        }
        let split =
            |octets: &'a [u8]| octets.split_at_checked(name_bytes(octets).unwrap_or(0)).unwrap_or((octets, &[]));
        let (primary, rest) = split(data);
        let (contact, numbers) = split(rest);
        [(own(primary, first), first), (own(contact, second), second), (numbers, 0)]
    }

    /// Seconds that it may be kept.
    pub fn ttl_seconds(&self) -> u32 {
        self.tail.get(4..8).and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_be_bytes)
    }
}

/// Octets of data in front of its first name that may be compressed, and how many names there are: the types of RFC 1035 only
/// (RFC 3597 §4).
pub(super) fn names_in(kind: u16) -> Option<(usize, usize)> {
    match kind {
        kind::NS | kind::CNAME | kind::PTR => Some((0, 1)),
        kind::MX => Some((2, 1)),
        kind::SOA => Some((0, 2)),
        _ => None,
    }
}

/// An entry to be changed.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    octets: Vec<u8>,
}

impl Entry {
    pub(super) fn empty(wire: &[u8]) -> Entry {
        let length = u8::try_from(wire.len()).unwrap_or(NONE);
        Entry { octets: [&[length, 0, NONE, NONE, 0, 0, 0, 0], wire].concat() }
    }

    pub(super) fn of(node: Node<'_>) -> Entry {
        Entry { octets: [&node.head[..], node.wire, node.sets].concat() }
    }

    fn node(&self) -> Option<Node<'_>> {
        Node::read(&self.octets)
    }

    pub(super) fn has(&self, kind: u16) -> bool {
        self.node().is_some_and(|node| node.set(kind).is_some())
    }

    pub(super) fn children(&self) -> u32 {
        self.octets.get(4..8).and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    /// Whether nothing needs it: it has neither records nor names below it.
    pub(super) fn is_empty(&self) -> bool {
        self.children() == 0 && self.node().is_none_or(|node| node.sets.is_empty())
    }

    /// A name directly below it has come.
    pub(super) fn add_child(&mut self, child: &[u8]) {
        self.set_children(self.children().saturating_add(1), child, HAS_WILDCARD);
    }

    /// A name directly below it has gone.
    pub(super) fn remove_child(&mut self, child: &[u8]) {
        self.set_children(self.children().saturating_sub(1), child, 0);
    }

    fn set_children(&mut self, children: u32, child: &[u8], flag: u8) {
        if let Some(place) = self.octets.get_mut(4..8) {
            place.copy_from_slice(&children.to_le_bytes());
        }
        if let Some(flags) = self.octets.get_mut(1).filter(|_| child.starts_with(WILDCARD)) {
            *flags = *flags & !HAS_WILDCARD | flag;
        }
    }

    /// Says which zone and delegation it is in, from those of the name above; whether that is news.
    pub(super) fn place(&mut self, labels: usize, (zone, cut): (Option<u8>, Option<u8>)) -> bool {
        let own = u8::try_from(labels).unwrap_or(NONE);
        let (zone, cut) = if self.has(kind::SOA) {
            (own, NONE)
        } else if zone.is_some() && cut.is_none() && self.has(kind::NS) {
            (zone.unwrap_or(NONE), own)
        } else {
            (zone.unwrap_or(NONE), cut.unwrap_or(NONE))
        };
        let Some(place) = self.octets.get_mut(2..4) else { return false };
        let is_news = place != [zone, cut];
        place.copy_from_slice(&[zone, cut]);
        is_news
    }

    /// Keeps the sets of some types only.
    pub(super) fn keep(&mut self, stays: impl Fn(u16) -> bool) {
        let Some(node) = self.node() else { return };
        let mut octets = [&node.head[..], node.wire].concat();
        node.sets()
            .filter(|set| stays(set.kind))
            .for_each(|set| push_set(&mut octets, set.kind, set.count, set.records));
        self.octets = octets;
    }

    /// Adds a set.
    pub(super) fn push(&mut self, owner: &[u8], set: &RecordSet) {
        let mut records = Vec::new();
        for data in &set.data {
            let Ok(length) = u16::try_from(data.0.len()) else { continue };
            records.extend_from_slice(&shared(owner, set.kind, &data.0));
            records.extend_from_slice(&set.kind.to_be_bytes());
            records.extend_from_slice(&CLASS_IN);
            records.extend_from_slice(&set.ttl_seconds.to_be_bytes());
            records.extend_from_slice(&length.to_be_bytes());
            records.extend_from_slice(&data.0);
        }
        push_set(&mut self.octets, set.kind, u16::try_from(set.data.len()).unwrap_or(u16::MAX), &records);
    }
}

fn push_set(octets: &mut Vec<u8>, kind: u16, count: u16, records: &[u8]) {
    octets.extend_from_slice(&kind.to_le_bytes());
    octets.extend_from_slice(&count.to_le_bytes());
    octets.extend_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes());
    octets.extend_from_slice(records);
}

/// How much of each name in the data is the end of the owner's name.
fn shared(owner: &[u8], kind: u16, data: &[u8]) -> [u8; 2] {
    let mut shared = [0; 2];
    let Some((skipped, names)) = names_in(kind) else { return shared };
    let mut rest = data.get(skipped..).unwrap_or_default();
    for place in shared.iter_mut().take(names) {
        let Some((name, after)) = name_bytes(rest).and_then(|length| rest.split_at_checked(length)) else { break };
        // A wildcard's first label is not in the answer, where the name asked for stands in its place.
        let owner = owner.strip_prefix(WILDCARD).unwrap_or(owner);
        *place = suffixes(name)
            .find(|end| end.len() > 1 && suffixes(owner).any(|own| own == *end))
            .map_or(0, |end| u8::try_from(end.len()).unwrap_or(0));
        rest = after;
    }
    shared
}

/// A name, then without its first label, and so on to the root.
fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |name| {
        let (length, after) = name.split_first()?;
        after.get(usize::from(*length)..).filter(|rest| *length > 0 && !rest.is_empty())
    })
}

/// The entry in a bucket with this hash whose name is the right one.
#[inline]
pub(super) fn find(bucket: &[u8], hash: u64, is_it: impl Fn(&[u8]) -> bool) -> Option<Node<'_>> {
    let (count, rest) = bucket.split_first_chunk::<2>()?;
    let slots = rest.get(..usize::from(u16::from_le_bytes(*count)) * SLOT_BYTES)?;
    let tag = (hash as u32).to_le_bytes();
    let (slots, _) = slots.as_chunks::<SLOT_BYTES>();
    for (at, [a, b, c, d, start @ ..]) in slots.iter().enumerate() {
        if [*a, *b, *c, *d] == tag {
            let node = Node::read(entry_of(bucket, slots, at, *start)?)?;
            if is_it(node.wire) {
                return Some(node);
            }
        }
    }
    None
}

/// The octets of an entry, which end where the next one begins.
#[inline]
fn entry_of<'a>(bucket: &'a [u8], slots: &[[u8; SLOT_BYTES]], at: usize, start: [u8; 4]) -> Option<&'a [u8]> {
    let end = slots.get(at + 1).map_or(bucket.len(), |[_, _, _, _, next @ ..]| u32::from_le_bytes(*next) as usize);
    bucket.get(u32::from_le_bytes(start) as usize..end)
}

/// All entries of a bucket.
pub(super) fn nodes(bucket: &[u8]) -> impl Iterator<Item = Node<'_>> {
    slots(bucket).filter_map(|(_, octets)| Node::read(octets))
}

/// Tags and entries.
fn slots(bucket: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let slots = bucket
        .split_first_chunk::<2>()
        .and_then(|(count, rest)| rest.get(..usize::from(u16::from_le_bytes(*count)) * SLOT_BYTES));
    let (slots, _) = slots.unwrap_or_default().as_chunks::<SLOT_BYTES>();
    slots.iter().enumerate().filter_map(move |(at, [a, b, c, d, start @ ..])| {
        Some((u32::from_le_bytes([*a, *b, *c, *d]), entry_of(bucket, slots, at, *start)?))
    })
}

/// The bucket with an entry in place of the one of its name, or without that; and by how much it has grown.
pub(super) fn replace(bucket: &[u8], hash: u64, wire: &[u8], entry: Option<&Entry>) -> (Arc<[u8]>, isize) {
    let is_it = |octets: &[u8]| Node::read(octets).is_some_and(|node| node.wire == wire);
    let others = slots(bucket).filter(|(_, octets)| !is_it(octets));
    let own = entry.map(|entry| (hash as u32, entry.octets.as_slice()));
    let all: Vec<(u32, &[u8])> = others.chain(own).collect();
    (build(&all), all.len() as isize - slots(bucket).count() as isize)
}

/// A bucket of these entries.
pub(super) fn bucket(entries: &[(u64, Entry)]) -> Arc<[u8]> {
    let all: Vec<(u32, &[u8])> = entries.iter().map(|(hash, entry)| (*hash as u32, entry.octets.as_slice())).collect();
    build(&all)
}

fn build(entries: &[(u32, &[u8])]) -> Arc<[u8]> {
    let head = 2 + entries.len() * SLOT_BYTES;
    let mut octets = Vec::with_capacity(head + entries.iter().map(|(_, entry)| entry.len()).sum::<usize>());
    octets.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(u16::MAX).to_le_bytes());
    let mut start = head;
    for (tag, entry) in entries {
        octets.extend_from_slice(&tag.to_le_bytes());
        octets.extend_from_slice(&u32::try_from(start).unwrap_or(u32::MAX).to_le_bytes());
        start += entry.len();
    }
    entries.iter().for_each(|(_, entry)| octets.extend_from_slice(entry));
    octets.into()
}
