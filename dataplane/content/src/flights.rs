//! Single flight: however many ask for a missing chunk, it is fetched once.

use std::collections::HashMap;

use bootstorm_snapshot::ChunkName;

/// Answer of [`Flights::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// Nobody fetches it yet: fetch it, and call [`Flights::done`] whatever comes of it.
    Leader,
    /// It is on its way; the waiter comes out of [`Flights::done`].
    Follower,
    /// At a limit: tell the asker to come again. The waiter was not taken.
    Refused,
}

/// Who waits for which chunk. Pure: `W` is the waiter's own token (a connection, a request).
#[derive(Debug)]
pub struct Flights<W> {
    flights: HashMap<ChunkName, Vec<W>>,
    waiters: usize,
    flights_max: usize,
    waiters_max: usize,
}

impl<W> Flights<W> {
    /// No flights; at most `flights_max` chunks on their way and `waiters_max` waiters over all of them.
    pub fn new(flights_max: usize, waiters_max: usize) -> Flights<W> {
        Flights { flights: HashMap::new(), waiters: 0, flights_max, waiters_max }
    }

    /// Adds a waiter for a chunk. The leader is a waiter too.
    pub fn join(&mut self, chunk: ChunkName, waiter: W) -> Joined {
        if self.waiters >= self.waiters_max {
            return Joined::Refused;
        }
        let flights = self.flights.len();
        match self.flights.get_mut(&chunk) {
            Some(waiting) => {
                waiting.push(waiter);
                self.waiters += 1;
                Joined::Follower
            }
            None if flights >= self.flights_max => Joined::Refused,
            None => {
                self.flights.insert(chunk, vec![waiter]);
                self.waiters += 1;
                Joined::Leader
            }
        }
    }

    /// The flight has ended, well or not: its waiters in the order they came. Each looks into the store again.
    pub fn done(&mut self, chunk: &ChunkName) -> Vec<W> {
        let waiters = self.flights.remove(chunk).unwrap_or_default();
        self.waiters -= waiters.len();
        waiters
    }

    /// Drops waiters that are gone (a closed connection). Their flights go on: somebody leads them.
    pub fn retain(&mut self, mut keep: impl FnMut(&W) -> bool) {
        for waiting in self.flights.values_mut() {
            let before = waiting.len();
            waiting.retain(&mut keep);
            self.waiters -= before - waiting.len();
        }
    }

    /// Whether the chunk is on its way.
    pub fn is_in_flight(&self, chunk: &ChunkName) -> bool {
        self.flights.contains_key(chunk)
    }

    /// Chunks on their way.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether no chunk is on its way.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leader_and_all_waiters_come_back() {
        let (a, b) = (ChunkName::of(b"a"), ChunkName::of(b"b"));
        let mut flights = Flights::new(1, 1001);
        assert_eq!(flights.join(a, 0), Joined::Leader);
        for waiter in 1..1000 {
            assert_eq!(flights.join(a, waiter), Joined::Follower);
        }
        assert_eq!(flights.join(b, 7), Joined::Refused, "one flight at most");
        assert_eq!(flights.join(a, 1000), Joined::Follower);
        assert_eq!(flights.join(a, 1001), Joined::Refused, "waiters at most");
        flights.retain(|waiter| waiter % 2 == 0);
        assert_eq!(flights.done(&a), (0..=1000).step_by(2).collect::<Vec<_>>());
        assert_eq!(flights.done(&a), Vec::<i32>::new());
        assert_eq!(flights.join(b, 7), Joined::Leader);
        assert_eq!(flights.join(b, 8), Joined::Follower);
    }
}
