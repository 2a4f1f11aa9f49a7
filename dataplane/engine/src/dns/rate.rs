//! How much each source is sent in a second: forged questions must not make of a rack a weapon against whom they name (T8).
//!
//! A source on our subnets is one address, a stranger's is its /24 (/56 with IPv6), and each kind of answer is counted for itself. The
//! table has a fixed size; sources that fall on the same place share their counts, which nobody can bring about on purpose
//! without the secret.

use core::net::IpAddr;

use crate::{Index, Time, limits};

/// Answers a second for each source and kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// For one address on our subnets.
    pub client: u32,
    /// For the network of a stranger.
    pub stranger: u32,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// It is sent without its records.
    Slip,
    /// It is not sent.
    Drop,
}

/// Answers of one second to whoever falls on this place.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    second: u32,
    count: u32,
}

#[derive(Debug)]
pub(super) struct RateLimit {
    places: Box<[Place]>,
    key: u64,
    rates: Rates,
}

impl RateLimit {
    pub(super) fn new(secret: &[u8; 32], rates: Rates) -> RateLimit {
        // Not the key of the cookies itself, whose places tell something of it.
        let digest = blake3::keyed_hash(secret, b"places of rates");
        let key = digest.as_bytes().first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets));
        RateLimit { places: vec![Place::default(); limits::DNS_SOURCES_MAX].into(), key, rates }
    }

    /// Counts one more answer of a kind to a source.
    #[inline]
    pub(super) fn count(&mut self, index: &Index, now: Time, from: IpAddr, kind: u8) -> Verdict {
        let (source, limit) = match from {
            IpAddr::V4(address) if index.is_client(address) => (u64::from(u32::from(address)), self.rates.client),
            IpAddr::V4(address) => (1 << 32 | u64::from(u32::from(address) >> 8), self.rates.stranger),
            IpAddr::V6(address) => (1 << 56 | (u128::from(address) >> 72) as u64, self.rates.stranger),
        };
        let wide = u128::from(source ^ self.key) * u128::from(0x9e37_79b9_7f4a_7c15 ^ u64::from(kind) << 32);
        let mixed = (wide as u64 ^ (wide >> 64) as u64 ^ self.key).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
        let at = mixed as usize % limits::DNS_SOURCES_MAX;
        let Some(place) = self.places.get_mut(at) else { return Verdict::Drop };
        // Never 0, which a place begins with.
        let second = now.monotonic.as_secs() as u32 | 1 << 31;
        if place.second != second {
            *place = Place { second, count: 0 };
        }
        place.count = place.count.saturating_add(1);
        match place.count.checked_sub(limit) {
            None | Some(0) => Verdict::Send,
            Some(above) if above % limits::DNS_SLIP == 0 => Verdict::Slip,
            Some(_) => Verdict::Drop,
        }
    }
}
