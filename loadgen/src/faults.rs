//! What is wrong on purpose: datagrams that are lost or late, nodes that read slowly, links of bounded rate. All by the
//! run's seed. (Nodes that vanish are the business of `node`.)

use std::time::Duration;

use crate::limits::PACED_READ_BYTES;
use crate::schedule::{Sequence, Start};

/// What the run wants.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The part of all UDP datagrams that is lost, each way.
    pub loss: f64,
    /// How late each UDP datagram is, each way.
    pub delay: Duration,
    /// The part of the nodes that read slowly, and their rate in bytes a second.
    pub slow: Option<(f64, f64)>,
    /// Each node's link in bytes a second.
    pub link: Option<f64>,
    /// So many nodes after each other share a link of so many bytes a second.
    pub leaf: Option<(u32, f64)>,
}

/// Decides about datagrams.
#[derive(Debug)]
pub struct Weather {
    loss: f64,
    random: Sequence,
}

impl Weather {
    /// As the run wants it, from the seed.
    pub fn new(faults: &Faults, seed: u64) -> Weather {
        Weather { loss: faults.loss, random: Sequence::new(seed) }
    }

    /// Whether the next datagram is lost.
    pub fn loses(&mut self) -> bool {
        self.loss > 0.0 && self.random.fraction() < self.loss
    }
}

/// A link of bounded rate. Whoever wants to read reserves its time on it; so those that share one get their turns in order.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes_per_second: f64,
    /// Until then it is taken.
    free: Duration,
}

impl Bucket {
    fn new(bytes_per_second: f64) -> Bucket {
        Bucket { bytes_per_second, free: Duration::ZERO }
    }

    fn time(&self, bytes: u32) -> Duration {
        Duration::try_from_secs_f64(f64::from(bytes) / self.bytes_per_second).unwrap_or(Duration::MAX)
    }

    /// Takes time for so many bytes; gives its beginning.
    fn reserve(&mut self, now: Duration, bytes: u32) -> Duration {
        let begin = self.free.max(now);
        self.free = begin.saturating_add(self.time(bytes));
        begin
    }

    /// Fewer bytes came than were reserved.
    fn refund(&mut self, bytes: u32) {
        self.free = self.free.saturating_sub(self.time(bytes));
    }
}

/// All links of a run.
#[derive(Debug, Default)]
pub struct Links {
    /// The node's own, where it has one of bounded rate.
    nodes: Vec<Option<Bucket>>,
    leaves: Vec<Bucket>,
    nodes_per_leaf: u32,
}

impl Links {
    /// The links of these nodes. Empty, and without cost, if none is bounded.
    pub fn new(faults: &Faults, starts: &[Start]) -> Links {
        let own = |start: &Start| {
            let slow = faults.slow.filter(|(part, _)| Sequence::new(start.seed.rotate_left(16)).fraction() < *part);
            let rates = [slow.map(|(_, rate)| rate), faults.link];
            rates.into_iter().flatten().min_by(f64::total_cmp).map(Bucket::new)
        };
        let has_own = faults.slow.is_some() || faults.link.is_some();
        let (nodes_per_leaf, rate) = faults.leaf.unwrap_or((1, 0.0));
        let leaves = match faults.leaf {
            Some(_) => starts.len().div_ceil(nodes_per_leaf.max(1) as usize),
            None => 0,
        };
        Links {
            nodes: if has_own { starts.iter().map(own).collect() } else { Vec::new() },
            leaves: vec![Bucket::new(rate); leaves],
            nodes_per_leaf: nodes_per_leaf.max(1),
        }
    }

    fn of(&mut self, node: u32) -> impl Iterator<Item = &mut Bucket> {
        let own = self.nodes.get_mut(node as usize).and_then(Option::as_mut);
        own.into_iter().chain(self.leaves.get_mut((node / self.nodes_per_leaf) as usize))
    }

    /// A node wants to read at most so many bytes: how many it may, and from when on. `None` if nothing bounds it.
    pub fn reserve(&mut self, node: u32, now: Duration, bytes: u32) -> Option<(u32, Duration)> {
        let bytes = bytes.min(PACED_READ_BYTES);
        self.of(node).map(|bucket| bucket.reserve(now, bytes)).max().map(|begin| (bytes, begin))
    }

    /// It read fewer than it had reserved.
    pub fn refund(&mut self, node: u32, bytes: u32) {
        self.of(node).for_each(|bucket| bucket.refund(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Arrivals, FirmwareChoice, plan};

    #[test]
    fn losses_are_as_many_as_wanted_and_the_same_for_a_seed() {
        let faults = Faults { loss: 0.1, ..Faults::default() };
        let fates = |seed| {
            let mut weather = Weather::new(&faults, seed);
            (0..10_000).map(|_| weather.loses()).collect::<Vec<bool>>()
        };
        assert_eq!(fates(3), fates(3));
        assert_ne!(fates(3), fates(4));
        let lost = fates(3).iter().filter(|lost| **lost).count();
        assert!((800..1_200).contains(&lost), "{lost}");
        let mut fair = Weather::new(&Faults::default(), 3);
        assert!((0..1_000).all(|_| !fair.loses()));
    }

    #[test]
    fn a_leaf_is_shared_in_turns_and_unused_time_given_back() {
        let starts = plan(5, 1, Arrivals::AtOnce, FirmwareChoice::Mix);
        let rate = f64::from(PACED_READ_BYTES);
        let faults = Faults { leaf: Some((2, rate)), ..Faults::default() };
        let mut links = Links::new(&faults, &starts);
        let second = Duration::from_secs(1);
        assert_eq!(links.reserve(0, Duration::ZERO, u32::MAX), Some((PACED_READ_BYTES, Duration::ZERO)));
        assert_eq!(links.reserve(1, Duration::ZERO, u32::MAX), Some((PACED_READ_BYTES, second)));
        assert_eq!(links.reserve(2, Duration::ZERO, 1), Some((1, Duration::ZERO)), "another leaf");
        links.refund(1, PACED_READ_BYTES);
        assert_eq!(links.reserve(0, Duration::ZERO, 1), Some((1, second)));
        assert_eq!(Links::new(&Faults::default(), &starts).reserve(0, second, 9), None);
    }

    #[test]
    fn slow_nodes_are_a_part_of_all() {
        let starts = plan(1_000, 1, Arrivals::AtOnce, FirmwareChoice::Mix);
        let faults = Faults { slow: Some((0.25, 100.0)), link: None, ..Faults::default() };
        let links = Links::new(&faults, &starts);
        let slow = links.nodes.iter().flatten().count();
        assert!((200..300).contains(&slow), "{slow}");
        let both = Links::new(&Faults { link: Some(1e9), ..faults }, &starts);
        assert_eq!(both.nodes.iter().flatten().filter(|bucket| bucket.bytes_per_second == 100.0).count(), slow);
        assert_eq!(both.nodes.iter().flatten().count(), 1_000);
    }
}
