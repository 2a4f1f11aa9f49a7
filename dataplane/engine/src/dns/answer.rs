//! From a question and the names to the records of its answer.

use bootstorm_proto::dns::reply::{DoesNotFit, NAME_OFFSET, Piece, Reply, Section};
use bootstorm_snapshot::Names;
use bootstorm_snapshot::dns::kind;
use bootstorm_snapshot::names::{Found, Labels, Node, Query, Record, Set};

use super::Kind;
use crate::limits;

/// A question for everything there is (RFC 1035 §3.2.3).
const ANY: u16 = 255;
/// Octets of a record in front of its data: pointer to its owner, type, class, lifetime, length.
const RECORD_HEAD_BYTES: usize = 12;

/// An answer being made.
pub(super) struct Answer<'n, 'q, 'r, 'b> {
    pub(super) names: &'n Names,
    /// What was asked for.
    pub(super) query: Query<'q>,
    pub(super) reply: &'r mut Reply<'b>,
}

impl Answer<'_, '_, '_, '_> {
    /// Writes the records.
    pub(super) fn resolve(mut self, kind: u16) -> Result<Kind, DoesNotFit> {
        let labels = self.query.labels.len();
        let Some(found) = self.names.find(self.query) else { return Ok(Kind::NotOurs) };
        let Some(zone) = found.node.zone_labels() else { return Ok(Kind::NotOurs) };
        let mut zone = usize::from(zone);
        // The keys of a delegation are with the zone above, as far as it is here (RFC 4035 §3.1.4.1).
        if kind == kind::DS && found.missing == 0 && zone == labels && labels > 0 {
            let above = self.names.find_suffix(self.query, 1);
            zone = above.and_then(|node| node.zone_labels()).map_or(zone, usize::from);
        }
        if let Some(cut) = found.node.cut_labels().map(usize::from)
            && !(kind == kind::DS && found.missing == 0 && cut == labels)
        {
            return self.refer(labels - cut.min(labels));
        }
        let apex = labels - zone.min(labels);
        let node = match found.missing {
            0 => found.node,
            missing => match wildcard(self.names, self.query, &found) {
                Some(node) => node,
                None => return self.deny((missing == apex).then_some(found.node), apex, Kind::NameError),
            },
        };
        let set = match kind {
            ANY => node.sets().min_by_key(|set| set.kind == kind::SOA),
            kind => node.set(kind),
        };
        if let Some(set) = set {
            for record in set.records() {
                self.write(Section::Answer, NAME_OFFSET, record)?;
            }
            return Ok(Kind::Answer);
        }
        match node.set(kind::CNAME) {
            Some(alias) => self.follow(alias, kind, apex),
            None => self.deny((apex == 0).then_some(node), apex, Kind::NoData),
        }
    }

    /// Follows an alias inside its zone, whose apex is the name asked for without `apex` labels.
    fn follow(&mut self, alias: Set<'_>, kind: u16, apex: usize) -> Result<Kind, DoesNotFit> {
        let zone = self.query.suffix(apex);
        let Some(mut record) = alias.records().next() else { return Ok(Kind::NoData) };
        let mut owner = self.write(Section::Answer, NAME_OFFSET, record)?;
        for _ in 1..limits::DNS_ALIASES_MAX {
            let target = record.data();
            let Some(labels) = Labels::of(target) else { break };
            let query = Query { wire: target, labels: labels.starts() };
            let Some(found) = self.names.find(query) else { break };
            let own_zone = found.node.zone_labels().and_then(|own| query.labels.len().checked_sub(usize::from(own)));
            if own_zone.is_none_or(|skipped| query.suffix(skipped) != zone) || found.node.cut_labels().is_some() {
                break;
            }
            let node = match found.missing {
                0 => found.node,
                _ => match wildcard(self.names, query, &found) {
                    Some(node) => node,
                    None => return self.deny(None, apex, Kind::NameError),
                },
            };
            if let Some(set) = node.set(kind) {
                for record in set.records() {
                    self.reply.record(Section::Answer, owner, record.tail)?;
                }
                break;
            }
            let next = node.set(kind::CNAME).and_then(|set| set.records().next());
            let Some(next) = next else {
                self.deny(None, apex, Kind::NoData)?;
                break;
            };
            let at = self.reply.len() + RECORD_HEAD_BYTES;
            self.reply.record(Section::Answer, owner, next.tail)?;
            owner = at as u16;
            record = next;
        }
        Ok(Kind::Answer)
    }

    /// Says that there is nothing: the SOA of the zone whose apex is the name asked for without `skipped` labels, to be kept for as
    /// long as the zone says of what is not there, or the SOA itself if that is shorter (RFC 2308 §3, §5).
    fn deny(&mut self, apex: Option<Node<'_>>, skipped: usize, kind: Kind) -> Result<Kind, DoesNotFit> {
        let apex = apex.or_else(|| self.names.find_suffix(self.query, skipped));
        let soa = apex.and_then(|node| node.set(kind::SOA)).and_then(|set| set.records().next());
        let Some(soa) = soa else { return Ok(kind) };
        let Some((head, _)) = soa.tail.split_first_chunk::<8>() else { return Ok(kind) };
        let least = soa.data().last_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
        let mut head = *head;
        if let Some(place) = head.get_mut(4..) {
            place.copy_from_slice(&least.min(soa.ttl_seconds()).to_be_bytes());
        }
        let pieces = self.pieces(&soa);
        self.reply.record_of(Section::Authority, self.owner(skipped), &head, &pieces)?;
        Ok(kind)
    }

    /// Names the servers of the delegation at the name asked for without `skipped` labels. Without the addresses of those that are
    /// below it nobody could ask them, so they must fit (RFC 9471 §3); others are looked up elsewhere.
    fn refer(&mut self, skipped: usize) -> Result<Kind, DoesNotFit> {
        let Some(servers) = self.names.find_suffix(self.query, skipped).and_then(|node| node.set(kind::NS)) else {
            return Ok(Kind::Referral);
        };
        let owner = self.owner(skipped);
        let first = self.reply.len();
        for record in servers.records() {
            self.write(Section::Authority, owner, record)?;
        }
        let mut at = first;
        for record in servers.records() {
            let target = at + RECORD_HEAD_BYTES;
            at += self.written_bytes(&record);
            // All of the delegation's name is the end of the server's.
            let is_below = usize::from(record.shared[0]) == self.query.suffix(skipped).len();
            let Some(node) = self.names.get(record.data()).filter(|_| is_below) else { continue };
            for set in [kind::A, kind::AAAA].into_iter().filter_map(|kind| node.set(kind)) {
                for glue in set.records() {
                    self.reply.record(Section::Additional, target as u16, glue.tail)?;
                }
            }
        }
        Ok(Kind::Referral)
    }

    /// Where the name asked for begins without its first labels.
    fn owner(&self, skipped: usize) -> u16 {
        let end = self.query.wire.len().saturating_sub(1);
        let start = self.query.labels.get(skipped).map_or(end, |start| usize::from(*start));
        NAME_OFFSET + start as u16
    }

    /// Writes a record whose owner is the end of the name asked for; gives where the first name in its data begins.
    #[inline]
    fn write(&mut self, section: Section, owner: u16, record: Record<'_>) -> Result<u16, DoesNotFit> {
        let at = self.reply.len() + RECORD_HEAD_BYTES;
        if record.shared == [0, 0] {
            self.reply.record(section, owner, record.tail)?;
            return Ok(at as u16);
        }
        let pieces = self.pieces(&record);
        self.reply.record_of(section, owner, record.tail.get(..8).unwrap_or_default(), &pieces)?;
        Ok(match record.pieces() {
            // All of it is a pointer: what it leads to is the name.
            [(&[], shared @ 1..), ..] => self.shared_at(shared),
            _ => at as u16,
        })
    }

    /// A record's data with pointers into the name asked for in place of what that has too.
    fn pieces<'p>(&self, record: &Record<'p>) -> [Piece<'p>; 6] {
        let [first, second, third] = record.pieces();
        let pointer = |shared| if shared == 0 { Piece::Octets(&[]) } else { Piece::Pointer(self.shared_at(shared)) };
        [
            Piece::Octets(first.0),
            pointer(first.1),
            Piece::Octets(second.0),
            pointer(second.1),
            Piece::Octets(third.0),
            pointer(third.1),
        ]
    }

    fn shared_at(&self, shared: u8) -> u16 {
        NAME_OFFSET + self.query.wire.len().saturating_sub(usize::from(shared)) as u16
    }

    /// Octets of a record as [`Answer::write`] writes it.
    fn written_bytes(&self, record: &Record<'_>) -> usize {
        let saved = record.shared.iter().map(|shared| usize::from(shared.saturating_sub(2))).sum::<usize>();
        2 + record.tail.len() - saved
    }
}

/// The wildcard that stands for a name of which only one above it is there (RFC 4592 §2.2.1).
#[inline]
fn wildcard<'n>(names: &'n Names, query: Query<'_>, found: &Found<'n>) -> Option<Node<'n>> {
    if !found.node.has_wildcard() {
        return None;
    }
    names.find_wildcard(query, found.missing)
}
