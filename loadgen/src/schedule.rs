//! When each node is powered on, what it is, and its MAC address: all from the seed.
//!
//! The load is open-loop: a node starts at its due time whatever the state of the others, so a slow server meets a growing
//! crowd, as a real one would.

use std::time::Duration;

use clap::ValueEnum;

/// A sequence of numbers from a seed (SplitMix64): the same everywhere and for ever, for schedules, not for secrets.
#[derive(Clone, Debug)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Sequence {
        Sequence(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in 0..1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How starts are spread over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// All at once.
    AtOnce,
    /// So many a second, each somewhere in its slot.
    Rate(f64),
    /// The rate grows evenly from zero until all have started after this time.
    Ramp(Duration),
}

/// What boots a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// A PXE ROM under BIOS: loader by TFTP, then iPXE.
    Bios,
    /// UEFI's PXE client: loader by TFTP, then iPXE.
    Uefi,
    /// An iPXE ROM: straight to the script.
    Ipxe,
    /// UEFI HTTP Boot: loader by HTTP, then iPXE.
    Http,
}

/// Which firmware the nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FirmwareChoice {
    /// 35 % BIOS, 35 % UEFI, 20 % iPXE ROM, 10 % UEFI HTTP Boot.
    Mix,
    /// All BIOS PXE.
    Bios,
    /// All UEFI PXE.
    Uefi,
    /// All iPXE ROMs.
    Ipxe,
    /// All UEFI HTTP Boot.
    Http,
}

/// One node's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// After the beginning of the run.
    pub due: Duration,
    /// Its MAC address: locally administered, from the seed, different for each node of a run.
    pub mac: [u8; 6],
    /// What boots it.
    pub firmware: Firmware,
    /// Seed of the node's own random choices (transaction ids, back-off).
    pub seed: u64,
}

/// The schedule of `nodes` nodes, in the order of their due times.
pub fn plan(nodes: u32, seed: u64, arrivals: Arrivals, choice: FirmwareChoice) -> Vec<Start> {
    let mut sequence = Sequence::new(seed);
    let run = sequence.next().to_be_bytes();
    (0..nodes)
        .map(|index| {
            let place = f64::from(index) + sequence.fraction();
            let due = match arrivals {
                Arrivals::AtOnce => Duration::ZERO,
                Arrivals::Rate(rate) => Duration::from_secs_f64(place / rate),
                Arrivals::Ramp(whole) => whole.mul_f64((place / f64::from(nodes)).sqrt()),
            };
            let [_, high, middle, low] = index.to_be_bytes();
            let mac = [0x02, run[0], run[1], high, middle, low];
            Start { due, mac, firmware: firmware(choice, sequence.fraction()), seed: sequence.next() }
        })
        .collect()
}

/// The machine's next boot: the same machine, with other random choices.
pub fn reboot(start: &Start) -> Start {
    Start { seed: Sequence::new(start.seed).next(), ..*start }
}

fn firmware(choice: FirmwareChoice, fraction: f64) -> Firmware {
    match choice {
        FirmwareChoice::Bios => Firmware::Bios,
        FirmwareChoice::Uefi => Firmware::Uefi,
        FirmwareChoice::Ipxe => Firmware::Ipxe,
        FirmwareChoice::Http => Firmware::Http,
        FirmwareChoice::Mix if fraction < 0.35 => Firmware::Bios,
        FirmwareChoice::Mix if fraction < 0.70 => Firmware::Uefi,
        FirmwareChoice::Mix if fraction < 0.90 => Firmware::Ipxe,
        FirmwareChoice::Mix => Firmware::Http,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_seed_decides_everything() {
        let one = plan(500, 7, Arrivals::Rate(100.0), FirmwareChoice::Mix);
        assert_eq!(one, plan(500, 7, Arrivals::Rate(100.0), FirmwareChoice::Mix));
        let other = plan(500, 8, Arrivals::Rate(100.0), FirmwareChoice::Mix);
        assert!(one.iter().zip(&other).all(|(one, other)| one.mac != other.mac && one.due != other.due));
    }

    #[test]
    fn a_machine_that_boots_again_is_the_same_but_for_its_choices() {
        let start = plan(1, 7, Arrivals::AtOnce, FirmwareChoice::Mix)[0];
        let again = reboot(&start);
        assert_eq!((again.mac, again.firmware), (start.mac, start.firmware));
        assert_ne!(again.seed, start.seed);
    }

    #[test]
    fn addresses_differ_and_are_local_unicast() {
        let starts = plan(5_000, 1, Arrivals::AtOnce, FirmwareChoice::Mix);
        assert_eq!(starts.iter().map(|start| start.mac).collect::<HashSet<_>>().len(), 5_000);
        assert!(starts.iter().all(|start| start.mac[0] & 3 == 2));
        let kinds: HashSet<_> = starts.iter().map(|start| start.firmware).collect();
        assert_eq!(kinds.len(), 4);
    }

    #[test]
    fn a_rate_fills_its_slots_and_a_ramp_starts_slowly() {
        let rate = plan(100, 3, Arrivals::Rate(50.0), FirmwareChoice::Bios);
        assert!(rate.is_sorted_by_key(|start| start.due));
        for (index, start) in rate.iter().enumerate() {
            let slot = Duration::from_millis(20 * index as u64);
            assert!(start.due >= slot && start.due < slot + Duration::from_millis(20));
        }
        let ramp = plan(100, 3, Arrivals::Ramp(Duration::from_secs(10)), FirmwareChoice::Bios);
        let early = ramp.iter().filter(|start| start.due < Duration::from_secs(5)).count();
        assert!(ramp.is_sorted_by_key(|start| start.due) && (20..=30).contains(&early), "{early}");
        assert!(ramp.iter().all(|start| start.due <= Duration::from_secs(10)));
    }
}
