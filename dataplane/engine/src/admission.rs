//! When a machine may begin to fetch its image (`design.md` §8): one measured budget an interface, transfers under way first,
//! new ones told their place and their time, shares fair between pools.
//!
//! The simplest policy that works. The rate an interface carries is measured, not configured; divided by the least rate at
//! which a transfer makes sense it gives the transfers that may be under way at a time. Whoever is one too many gets a place
//! in the queue of its pool; queues take turns, so that a pool of a thousand does not keep a pool of three waiting. A place is kept
//! while its owner comes back about when it was told to, and is lost a while after: then it begins at the end again.
//!
//! Pure: time is an argument and never goes back. Memory is bounded by [`limits::ADMISSIONS_MAX`] a queue and a table; an ask costs
//! one look over those before.
//!
//! Not yet asked by anybody: it is for the HTTP of `rackd` to put a stream's first range here and to answer 503 with `Retry-After`,
//! for the agent to wait as it is told, and for the snapshot to say which pool a machine is of.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::limits;

/// A pool whose shares are fair to others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool(pub u32);

/// What whoever asks is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Begin, or go on.
    Go,
    /// Ask again.
    Wait {
        /// How many are before it, itself included: 1 is next.
        place: u32,
        /// When to ask again: about when its turn is, at least [`limits::ADMISSION_WAIT_MIN`] and at most
        /// [`limits::ADMISSION_WAIT_MAX`] away.
        after: Duration,
    },
}

/// Figures for metrics and for the observation of the room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Octets a second that the interface was seen to carry lately.
    pub bytes_per_second: u64,
    /// Transfers under way.
    pub under_way: u32,
    /// Transfers that may be under way at a time.
    pub transfers_max: u32,
    /// Machines that wait.
    pub waiting: u32,
}

#[derive(Debug)]
struct Transfer {
    bytes_left: u64,
    last_seen: Duration,
}

#[derive(Debug)]
struct Waiting {
    who: IpAddr,
    bytes: u64,
    /// Its place is lost then.
    until: Duration,
}

/// The budget of one interface.
#[derive(Debug, Default)]
pub struct Admission {
    under_way: BTreeMap<IpAddr, Transfer>,
    queues: BTreeMap<Pool, VecDeque<Waiting>>,
    /// The pool that was let in last: the next one in order is first now.
    turn: Option<Pool>,
    rate: Rate,
}

/// What is carried, measured between two looks at a counter: the most of late, forgotten by half each while.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Duration, u64)>,
    bytes_per_second: u64,
    decayed: Duration,
}

impl Rate {
    fn measure(&mut self, now: Duration, bytes_total: u64) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, bytes_total));
            return;
        };
        let passed = now.saturating_sub(then);
        if passed < limits::ADMISSION_MEASURE {
            return;
        }
        let bytes = u128::from(bytes_total.saturating_sub(before)) * 1_000_000 / passed.as_micros().max(1);
        // An interface that idles is not a slow one: what it carried when it was asked to counts for a while.
        while now.saturating_sub(self.decayed) >= limits::ADMISSION_HALF_LIFE {
            self.decayed += limits::ADMISSION_HALF_LIFE;
            self.bytes_per_second /= 2;
            if self.bytes_per_second == 0 {
                self.decayed = now;
            }
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes >= self.bytes_per_second {
            (self.bytes_per_second, self.decayed) = (bytes, now);
        }
        self.last = Some((now, bytes_total));
    }
}

impl Admission {
    /// Takes the interface's counter of octets sent; as often as one likes.
    pub fn measure(&mut self, now: Duration, bytes_total: u64) {
        self.rate.measure(now, bytes_total);
    }

    /// A machine asks for `bytes` more of its image, at the beginning or in the course of it.
    pub fn ask(&mut self, now: Duration, who: IpAddr, pool: Pool, bytes: u64) -> Decision {
        self.forget(now);
        if let Some(transfer) = self.under_way.get_mut(&who) {
            // Never interrupted for somebody new.
            *transfer = Transfer { bytes_left: bytes, last_seen: now };
            return Decision::Go;
        }
        self.keep_place(now, who, pool, bytes);
        let free = self.transfers_max().saturating_sub(self.under_way.len() as u32);
        // Without a place it is behind everybody.
        let (before, bytes_before) = self.before(who, pool).unwrap_or((self.room().waiting, 0));
        if before < free {
            self.let_in(now, who, pool, bytes);
            return Decision::Go;
        }
        Decision::Wait { place: before - free + 1, after: self.turn_after(bytes_before) }
    }

    /// A transfer has sent something, or one of its requests ended; it stays under way while it goes on.
    pub fn progress(&mut self, now: Duration, who: IpAddr, bytes: u64) {
        if let Some(transfer) = self.under_way.get_mut(&who) {
            transfer.bytes_left = transfer.bytes_left.saturating_sub(bytes);
            transfer.last_seen = now;
        }
    }

    /// A transfer is over, well or not.
    pub fn end(&mut self, who: IpAddr) {
        self.under_way.remove(&who);
    }

    /// Figures of now.
    pub fn room(&self) -> Room {
        Room {
            bytes_per_second: self.rate.bytes_per_second,
            under_way: self.under_way.len() as u32,
            transfers_max: self.transfers_max(),
            waiting: self.queues.values().map(|queue| queue.len() as u32).sum(),
        }
    }

    /// At least a few, so that a rate can be measured at all.
    fn transfers_max(&self) -> u32 {
        let carried = self.rate.bytes_per_second / limits::TRANSFER_BYTES_PER_SECOND_MIN;
        u32::try_from(carried).unwrap_or(u32::MAX).clamp(limits::TRANSFERS_MIN, limits::ADMISSIONS_MAX as u32)
    }

    /// Drops who does not go on, and places whose owners do not come back.
    fn forget(&mut self, now: Duration) {
        self.under_way.retain(|_, transfer| now.saturating_sub(transfer.last_seen) < limits::TRANSFER_SILENCE);
        for queue in self.queues.values_mut() {
            queue.retain(|waiting| waiting.until > now);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }

    fn keep_place(&mut self, now: Duration, who: IpAddr, pool: Pool, bytes: u64) {
        // One place a machine, whatever pool it was in before.
        for (known, queue) in &mut self.queues {
            if *known != pool {
                queue.retain(|waiting| waiting.who != who);
            }
        }
        let until = now + limits::ADMISSION_WAIT_MAX + limits::PLACE_GRACE;
        let queue = self.queues.entry(pool).or_default();
        let has_room = queue.len() < limits::ADMISSIONS_MAX;
        match queue.iter_mut().find(|waiting| waiting.who == who) {
            Some(waiting) => (waiting.bytes, waiting.until) = (bytes, until),
            None if has_room => queue.push_back(Waiting { who, bytes, until }),
            // Told to come again, without a place.
            None => {}
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }

    /// How many machines have their turn before one that waits, and what they are to get. Pools take turns, one machine of each,
    /// beginning after the pool that was let in last.
    fn before(&self, who: IpAddr, pool: Pool) -> Option<(u32, u64)> {
        let row = self.queues.get(&pool)?.iter().position(|waiting| waiting.who == who)?;
        // Pools as they come in a row: those after the last turn, then from the first.
        let in_row = |pool: Pool| (self.turn.is_some_and(|turn| pool <= turn), pool);
        let (mut count, mut bytes) = (0, 0u64);
        for (other, queue) in &self.queues {
            let rows = row + usize::from(in_row(*other) < in_row(pool));
            for waiting in queue.iter().take(rows) {
                count += 1;
                bytes = bytes.saturating_add(waiting.bytes);
            }
        }
        Some((count, bytes))
    }

    fn let_in(&mut self, now: Duration, who: IpAddr, pool: Pool, bytes: u64) {
        if let Some(queue) = self.queues.get_mut(&pool) {
            queue.retain(|waiting| waiting.who != who);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turn = Some(pool);
        self.under_way.insert(who, Transfer { bytes_left: bytes, last_seen: now });
    }

    /// When a turn comes: when a transfer under way and those before have been sent at the measured rate.
    fn turn_after(&self, bytes_before: u64) -> Duration {
        // The first of those under way ends before all of them do.
        let left = self.under_way.values().map(|transfer| transfer.bytes_left).fold(0, u64::saturating_add);
        let own = left / (self.under_way.len() as u64).max(1);
        let rate = self.rate.bytes_per_second.max(limits::TRANSFER_BYTES_PER_SECOND_MIN);
        let seconds = own.saturating_add(bytes_before) / rate;
        Duration::from_secs(seconds).clamp(limits::ADMISSION_WAIT_MIN, limits::ADMISSION_WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    /// One that was seen to carry so much a second.
    fn carrying(bytes_per_second: u64) -> (Admission, Duration) {
        let mut admission = Admission::default();
        admission.measure(Duration::ZERO, 0);
        admission.measure(Duration::from_secs(1), bytes_per_second);
        (admission, Duration::from_secs(1))
    }

    #[test]
    fn what_is_under_way_goes_on_and_the_others_get_places() {
        let (mut admission, now) = carrying(limits::TRANSFER_BYTES_PER_SECOND_MIN * 10);
        let slots = admission.room().transfers_max;
        assert_eq!(slots, 10);
        for number in 0..slots {
            assert_eq!(admission.ask(now, machine(number), Pool(0), 900 * MIB), Decision::Go);
        }
        for extra in 0..5 {
            let told = admission.ask(now, machine(100 + extra), Pool(0), 900 * MIB);
            assert!(matches!(told, Decision::Wait { place, .. } if place == extra + 1), "{told:?}");
        }
        assert_eq!(admission.ask(now, machine(3), Pool(0), 100 * MIB), Decision::Go, "its next range");
        admission.end(machine(3));
        let told = admission.ask(now, machine(104), Pool(0), 900 * MIB);
        assert!(matches!(told, Decision::Wait { place: 4, .. }), "not before its turn: {told:?}");
        assert_eq!(admission.ask(now, machine(100), Pool(0), 900 * MIB), Decision::Go);
        assert_eq!((admission.room().under_way, admission.room().waiting), (10, 4));
    }

    #[test]
    fn pools_take_turns_however_many_they_are() {
        let (mut admission, now) = carrying(0);
        let slots = admission.room().transfers_max;
        for number in 0..slots {
            admission.ask(now, machine(number), Pool(1), MIB);
        }
        for number in 0..100 {
            admission.ask(now, machine(1000 + number), Pool(1), MIB);
        }
        let told = admission.ask(now, machine(2000), Pool(2), MIB);
        assert!(matches!(told, Decision::Wait { place: 1 | 2, .. }), "{told:?}");
        admission.end(machine(0));
        assert_eq!(admission.ask(now, machine(2000), Pool(2), MIB), Decision::Go, "pool 1 was let in last");
        admission.end(machine(1));
        assert_eq!(admission.ask(now, machine(1000), Pool(1), MIB), Decision::Go);
    }

    #[test]
    fn a_place_is_lost_by_staying_away_and_a_slot_by_silence() {
        let (mut admission, mut now) = carrying(0);
        for number in 0..admission.room().transfers_max {
            admission.ask(now, machine(number), Pool(0), MIB);
        }
        assert!(matches!(admission.ask(now, machine(50), Pool(0), MIB), Decision::Wait { place: 1, .. }));
        now += limits::ADMISSION_WAIT_MAX + limits::PLACE_GRACE;
        for number in 0..admission.room().transfers_max {
            admission.progress(now, machine(number), 1);
        }
        assert!(matches!(admission.ask(now, machine(51), Pool(0), MIB), Decision::Wait { place: 1, .. }));
        now += limits::TRANSFER_SILENCE;
        assert_eq!(admission.ask(now, machine(51), Pool(0), MIB), Decision::Go);
    }

    #[test]
    fn the_rate_is_the_most_of_late() {
        let (mut admission, now) = carrying(1000 * MIB);
        admission.measure(now + Duration::from_secs(10), 1000 * MIB);
        assert_eq!(admission.room().bytes_per_second, 1000 * MIB, "idling is not slowness");
        admission.measure(now + limits::ADMISSION_HALF_LIFE, 1000 * MIB);
        assert_eq!(admission.room().bytes_per_second, 500 * MIB);
        admission.measure(now + limits::ADMISSION_HALF_LIFE + Duration::from_secs(1), 3000 * MIB);
        assert_eq!(admission.room().bytes_per_second, 2000 * MIB);
    }

    /// Many machines of many pools, each doing as it is told, on an interface that carries what it carries: all are served, never
    /// more than the limit at a time, none under way is refused, and no pool waits for another's last.
    #[test]
    fn simulated_storms_serve_everybody_within_the_limit() {
        const MACHINES: usize = 120;
        for seed in 1..10u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let rate = limits::TRANSFER_BYTES_PER_SECOND_MIN * (1 + random(40));
            let (mut admission, mut now) = carrying(rate);
            let image = MIB * (1 + random(60));
            let pools: Vec<Pool> = (0..MACHINES).map(|_| Pool(random(3) as u32)).collect();
            // When each asks next, and what it still lacks once it was let in.
            let mut asks: Vec<Option<Duration>> =
                (0..MACHINES).map(|_| Some(now + Duration::from_millis(random(5000)))).collect();
            let mut lacking: BTreeMap<usize, u64> = BTreeMap::new();
            let (mut done, mut sent) = (0, rate);
            let step = Duration::from_millis(500);
            for turn in 0.. {
                assert!(turn < 1_000_000, "seed {seed}: {done} of {MACHINES} served");
                now += step;
                for number in 0..MACHINES {
                    if asks[number].is_none_or(|at| at > now) {
                        continue;
                    }
                    match admission.ask(now, machine(number as u32), pools[number], image) {
                        Decision::Go => {
                            asks[number] = None;
                            lacking.insert(number, image);
                        }
                        Decision::Wait { place, after } => {
                            assert!(
                                place >= 1
                                    && after >= limits::ADMISSION_WAIT_MIN
                                    && after <= limits::ADMISSION_WAIT_MAX
                            );
                            asks[number] = Some(now + after);
                        }
                    }
                }
                let room = admission.room();
                assert!(lacking.len() as u32 <= room.transfers_max.max(room.under_way), "seed {seed}: {room:?}");
                let share = rate / 2 / (lacking.len() as u64).max(1);
                let mut over = Vec::new();
                for (number, left) in &mut lacking {
                    let bytes = share.min(*left);
                    (*left, sent) = (*left - bytes, sent + bytes);
                    admission.progress(now, machine(*number as u32), bytes);
                    if *left == 0 {
                        over.push(*number);
                    } else {
                        assert_eq!(admission.ask(now, machine(*number as u32), pools[*number], *left), Decision::Go);
                    }
                }
                for number in over {
                    lacking.remove(&number);
                    admission.end(machine(number as u32));
                    done += 1;
                }
                admission.measure(now, sent);
                if done == MACHINES {
                    break;
                }
            }
            assert_eq!((admission.room().under_way, admission.room().waiting), (0, 0), "seed {seed}");
        }
    }
}
