//! Cookies (RFC 7873): who repeats ours has received it, so its address is not forged.
//!
//! They are laid out as RFC 9018 §4 says (version 1, three octets reserved, seconds of 1970, hash of 8) over the same inputs, but with
//! keyed BLAKE3 in place of SipHash: only the rack that has made a cookie takes it.

use core::net::IpAddr;

use bootstorm_proto::dns::reply::SERVER_COOKIE_BYTES;

use crate::limits;

/// The rack's secret.
#[derive(Clone)]
pub(super) struct Cookies {
    secret: [u8; 32],
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(***)")
    }
}

/// What a cookie says, and the one to send back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    /// It is ours, for this asker, and not too old.
    pub(super) is_proven: bool,
    /// The cookie of the answer.
    pub(super) server: [u8; SERVER_COOKIE_BYTES],
}

impl Cookies {
    pub(super) fn new(secret: [u8; 32]) -> Cookies {
        Cookies { secret }
    }

    /// Checks what an asker repeats as ours.
    pub(super) fn check(&self, unix_seconds: u64, from: IpAddr, client: &[u8; 8], server: &[u8]) -> Checked {
        // Its time has 32 bits, compared as serial numbers are (RFC 9018 §4.3).
        let now = unix_seconds as u32;
        if let Ok(repeated) = <[u8; SERVER_COOKIE_BYTES]>::try_from(server) {
            let [1, 0, 0, 0, a, b, c, d, ..] = repeated else { return self.fresh(now, from, client) };
            let made = u32::from_be_bytes([a, b, c, d]);
            let age = now.wrapping_sub(made);
            let is_in_time =
                age <= limits::DNS_COOKIE_SECONDS_MAX || age.wrapping_neg() <= limits::DNS_COOKIE_SECONDS_AHEAD;
            if is_in_time && self.make(made, from, client) == repeated {
                let is_fresh = age <= limits::DNS_COOKIE_SECONDS_FRESH;
                let server = if is_fresh { repeated } else { self.make(now, from, client) };
                return Checked { is_proven: true, server };
            }
        }
        self.fresh(now, from, client)
    }

    fn fresh(&self, now: u32, from: IpAddr, client: &[u8; 8]) -> Checked {
        Checked { is_proven: false, server: self.make(now, from, client) }
    }

    fn make(&self, seconds: u32, from: IpAddr, client: &[u8; 8]) -> [u8; SERVER_COOKIE_BYTES] {
        let mut cookie = [0; SERVER_COOKIE_BYTES];
        let (head, hash) = cookie.split_at_mut(8);
        let [a, b, c, d] = seconds.to_be_bytes();
        head.copy_from_slice(&[1, 0, 0, 0, a, b, c, d]);
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(client).update(head);
        match from {
            IpAddr::V4(address) => hasher.update(&address.octets()),
            IpAddr::V6(address) => hasher.update(&address.octets()),
        };
        hasher.finalize_xof().fill(hash);
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_cookie_proves_its_address_for_its_time() {
        let cookies = Cookies::new([7; 32]);
        let client = b"12345678";
        let first = cookies.check(10_000, HERE, client, &[]);
        assert!(!first.is_proven);
        let again = |now, from, client, server: &[u8]| cookies.check(now, from, client, server);
        assert_eq!(again(10_100, HERE, client, &first.server), Checked { is_proven: true, ..first });
        let later = again(12_000, HERE, client, &first.server);
        assert!(later.is_proven && later.server != first.server, "a new one in good time");
        assert!(!again(13_601, HERE, client, &first.server).is_proven, "too old");
        assert!(again(9_700, HERE, client, &first.server).is_proven);
        assert!(!again(9_699, HERE, client, &first.server).is_proven, "from the future");
        assert!(!again(10_100, THERE, client, &first.server).is_proven);
        assert!(!again(10_100, HERE, b"12345679", &first.server).is_proven);
        assert!(!again(10_100, HERE, client, &first.server[..8]).is_proven);
        assert!(!Cookies::new([8; 32]).check(10_100, HERE, client, &first.server).is_proven);
        for at in 0..SERVER_COOKIE_BYTES {
            let mut changed = first.server;
            changed[at] ^= 1;
            assert!(!again(10_000, HERE, client, &changed).is_proven, "octet {at}");
        }
    }
}
