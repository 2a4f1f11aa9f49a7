//! Requests that wait until the journal has room: whose turn comes first, and how many may wait.
//!
//! A storm asks for more leases at a time than one sync makes durable. What is too much waits here and is answered within the
//! client's own patience, rather than dropped and sent again seconds later. Known machines come first, then those whose agent is
//! on its way, then those in enrolment, then everybody else; among equals who was offered an address comes before who asks for
//! one. A client has one place: what it sends again takes that of what it has sent before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bootstorm_proto::dhcp::server::Delivery;
use bootstorm_snapshot::Mac;

use crate::limits;

/// Whose request it is, the most important first (`design.md` §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// A machine of the snapshot, or an interface with a fixed address.
    Known,
    /// One in enrolment that has been given a claim, or whose agent speaks.
    Redeeming,
    /// One in enrolment.
    Enrolled,
    /// Anybody else: anybody can invent it.
    Unknown,
}

impl Rank {
    /// Records not yet durable at which requests of this rank wait.
    pub(crate) fn uncommitted_records_max(self) -> u64 {
        match self {
            Rank::Known => limits::UNCOMMITTED_RECORDS_MAX,
            Rank::Redeeming => limits::UNCOMMITTED_RECORDS_REDEEMING_MAX,
            Rank::Enrolled => limits::UNCOMMITTED_RECORDS_ENROLLED_MAX,
            Rank::Unknown => limits::UNCOMMITTED_RECORDS_UNKNOWN_MAX,
        }
    }
}

/// Which half of an exchange it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Half {
    /// Everything but a Discover: the client holds an address or an offer.
    Second,
    /// A Discover.
    First,
}

/// A datagram as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub interface: u32,
    pub from: IpAddr,
    pub delivery: Delivery,
    pub bytes: Vec<u8>,
}

type Place = (Rank, Half, u64);

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    places: BTreeMap<Place, (Mac, Duration, Datagram)>,
    clients: BTreeMap<Mac, Place>,
    bytes: usize,
    last: u64,
}

impl Waiting {
    /// The rank that has its turn next.
    pub(crate) fn first(&self) -> Option<Rank> {
        self.places.first_key_value().map(|((rank, ..), _)| *rank)
    }

    /// Whether one of this rank, or of one before it, waits.
    pub(crate) fn is_behind(&self, rank: Rank) -> bool {
        self.first().is_some_and(|first| first <= rank)
    }

    /// Adds a request of a client; when there is no room, the last of a lower rank goes. False if it was not taken, or something
    /// else had to go.
    pub(crate) fn add(&mut self, now: Duration, (rank, half): (Rank, Half), mac: Mac, datagram: Datagram) -> bool {
        let before = self.clients.remove(&mac);
        let before = before.and_then(|place| self.remove(place).map(|_| place));
        let number = before.filter(|(.., kept, _)| *kept == half).map(|(.., number)| number);
        let number = number.unwrap_or_else(|| {
            self.last += 1;
            self.last
        });
        let mut lost = false;
        while self.places.len() >= limits::WAITING_MAX || self.bytes + datagram.bytes.len() > limits::WAITING_BYTES_MAX
        {
            let Some(last) = self.places.last_key_value().map(|(place, _)| *place).filter(|place| place.0 > rank)
            else {
                return false;
            };
            self.remove(last);
            lost = true;
        }
        self.bytes += datagram.bytes.len();
        self.clients.insert(mac, (rank, half, number));
        self.places.insert((rank, half, number), (mac, now, datagram));
        !lost
    }

    /// Takes the request whose turn it is, and says since when it has waited.
    pub(crate) fn take(&mut self) -> Option<(Duration, Datagram)> {
        let place = *self.places.first_key_value()?.0;
        self.remove(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn remove(&mut self, place: Place) -> Option<(Duration, Datagram)> {
        let (mac, since, datagram) = self.places.remove(&place)?;
        self.clients.remove(&mac);
        self.bytes -= datagram.bytes.len();
        Some((since, datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    fn datagram(n: u8) -> Datagram {
        Datagram { interface: 1, from: [0, 0, 0, 0].into(), delivery: Delivery::Broadcast, bytes: vec![n; 300] }
    }

    fn order(waiting: &mut Waiting) -> Vec<u8> {
        std::iter::from_fn(|| waiting.take()).map(|(_, datagram)| datagram.bytes[0]).collect()
    }

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn ranks_come_in_their_order_and_who_has_an_offer_before_who_asks_for_one() {
        let mut waiting = Waiting::default();
        let ranks = [Rank::Unknown, Rank::Enrolled, Rank::Redeeming, Rank::Known];
        for (n, rank) in (0u8..).zip(ranks) {
            assert!(waiting.add(ZERO, (rank, Half::First), mac(n.into()), datagram(n)));
            assert!(waiting.add(ZERO, (rank, Half::Second), mac(u32::from(n) + 10), datagram(n + 10)));
        }
        assert!(waiting.is_behind(Rank::Known) && waiting.first() == Some(Rank::Known));
        assert_eq!(order(&mut waiting), [13, 3, 12, 2, 11, 1, 10, 0]);
        assert_eq!((waiting.bytes, waiting.clients.len(), waiting.is_behind(Rank::Unknown)), (0, 0, false));
    }

    #[test]
    fn what_is_sent_again_keeps_its_place_and_there_is_one_for_each_client() {
        let mut waiting = Waiting::default();
        for n in 0..3 {
            waiting.add(ZERO, (Rank::Unknown, Half::First), mac(n.into()), datagram(n));
        }
        assert!(waiting.add(ZERO, (Rank::Unknown, Half::First), mac(0), datagram(9)));
        assert!(waiting.add(ZERO, (Rank::Unknown, Half::Second), mac(1), datagram(8)));
        assert_eq!(waiting.len(), 3);
        assert_eq!(order(&mut waiting), [8, 9, 2]);
    }

    #[test]
    fn a_full_house_takes_who_is_known_for_who_is_not() {
        let mut waiting = Waiting::default();
        for n in 0..limits::WAITING_MAX as u32 {
            assert!(waiting.add(ZERO, (Rank::Unknown, Half::First), mac(n), datagram(0)));
        }
        assert!(!waiting.add(ZERO, (Rank::Unknown, Half::First), mac(u32::MAX), datagram(1)), "it is full");
        assert!(!waiting.add(ZERO, (Rank::Known, Half::First), mac(u32::MAX), datagram(2)), "somebody had to go");
        assert_eq!((waiting.len(), waiting.first()), (limits::WAITING_MAX, Some(Rank::Known)));
        assert!(waiting.bytes <= limits::WAITING_BYTES_MAX);
    }
}
