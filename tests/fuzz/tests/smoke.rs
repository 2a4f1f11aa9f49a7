//! Every target over its committed corpus and over a bounded number of mutations of it, the same in every run.

use std::path::Path;

/// Mutations of each corpus file. The number is for seconds, not for depth: depth is `cargo fuzz`'s.
const MUTATIONS_PER_FILE: u32 = 3_000;

/// xorshift64*: fixed seed, so that a failure names the same input again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.insert(at, random.next() as u8),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let from = random.below(other.len());
                let end = (from + random.below(32)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn p9_corpus_and_mutations() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in bootstorm_fuzz::TARGETS {
        let folder = corpus.join(name);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("no corpus in {}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "empty corpus in {}", folder.display());
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        let mut random = Random(0x0b00_7570_12a7_5eed);
        for seed in &seeds {
            target(seed);
            for _ in 0..MUTATIONS_PER_FILE {
                let other = &seeds[random.below(seeds.len())];
                let input = mutate(&mut random, seed, other);
                let outcome = std::panic::catch_unwind(|| target(&input));
                assert!(outcome.is_ok(), "{name} failed on {}", input.escape_ascii());
            }
        }
    }
}
