//! Bits that flip on the disk: what is given is right, what is lost is fetched again.

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bootstorm_content::{Error, Store};
use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::{ChunkName, Encoding, ImageId, ManifestDigest};
use support::{Directory, Random, rounds};

/// Flips before everything is read again.
const FLIPS_PER_ROUND: usize = 100;

/// What content is fetched from.
struct Origin {
    chunks: HashMap<ChunkName, Vec<u8>>,
    manifests: HashMap<ManifestDigest, Vec<u8>>,
}

impl Origin {
    /// Three images whose chunks are short enough that every flip meets another one.
    fn new(random: &mut Random) -> Origin {
        let mut origin = Origin { chunks: HashMap::new(), manifests: HashMap::new() };
        for _ in 0..3 {
            let chunks: Vec<Vec<u8>> = (0..60)
                .map(|_| {
                    let length = 1 + random.below(1_500);
                    random.bytes(length)
                })
                .collect();
            let entry = |bytes: &Vec<u8>| {
                let length = bytes.len() as u32;
                Entry { name: ChunkName::of(bytes), raw_bytes: length, stored_bytes: length }
            };
            let total = chunks.iter().map(|bytes| bytes.len() as u64).sum();
            let entries = chunks.iter().map(entry).collect();
            let manifest = Manifest::new(Encoding::Plain, ImageId::of(b"any"), total, "test", entries).unwrap();
            origin.manifests.insert(manifest.digest(), manifest.encode());
            origin.chunks.extend(chunks.into_iter().map(|bytes| (ChunkName::of(&bytes), bytes)));
        }
        origin
    }

    /// Fetches what the store says it lacks, as a rack does. How many chunks and manifests that were.
    fn fill(&self, store: &Store) -> usize {
        let mut writer = store.writer();
        let mut fetched = 0;
        for (digest, bytes) in &self.manifests {
            match store.manifest(digest) {
                Ok(manifest) => assert_eq!(manifest.manifest().encode(), *bytes),
                Err(Error::ManifestMissing { .. } | Error::ManifestCorrupt { .. }) => {
                    store.remove_manifest(digest).unwrap();
                    writer.put_manifest(bytes).unwrap();
                    fetched += 1;
                }
                Err(error) => panic!("{error}"),
            }
            let manifest = store.manifest(digest).unwrap();
            for name in store.missing(&manifest) {
                writer.put(name, &self.chunks[&name]).unwrap();
                fetched += 1;
            }
        }
        writer.commit().unwrap();
        fetched
    }

    /// Reads all; how many chunks were found bad or are missing. A wrong octet is a failure.
    fn read_all(&self, store: &Store) -> usize {
        let mut lost = 0;
        for (name, bytes) in &self.chunks {
            match store.read_chunk(name) {
                Ok(read) => assert!(read == *bytes, "wrong octets under `{name}`"),
                Err(Error::Corrupt { .. } | Error::ChunkMissing { .. }) => {
                    assert_eq!(store.locate(name), None, "a bad chunk is not found again");
                    lost += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        lost
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let list = |name: &str| std::fs::read_dir(directory.join(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = list("packs").chain(list("manifests")).collect();
    files.sort();
    files
}

/// Flips one bit of a file that is open elsewhere as well; every octet of all files is as likely.
fn flip(files: &[(File, u64)], random: &mut Random) {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let mut at = random.next_u64() % total;
    for (file, length) in files {
        if at < *length {
            let mut octet = [0];
            file.read_exact_at(&mut octet, at).unwrap();
            octet[0] ^= 1 << random.below(8);
            return file.write_all_at(&octet, at).unwrap();
        }
        at -= length;
    }
}

#[test]
fn flipped_bits_give_no_wrong_octet_and_are_healed() {
    // 1,000,000 flips in the long form.
    let rounds = rounds(100, 10_000);
    let mut random = Random(0xf11b);
    let directory = Directory::new();
    let origin = Origin::new(&mut random);
    let mut store = Some(Store::open(&directory.0).unwrap());
    origin.fill(store.as_ref().unwrap());
    let (mut flips, mut lost, mut fetched) = (0, 0, 0);
    for round in 0..rounds {
        let open: Vec<(File, u64)> = files(&directory.0)
            .into_iter()
            .map(|path| {
                let file = File::options().read(true).write(true).open(path).unwrap();
                let length = file.metadata().unwrap().len();
                (file, length)
            })
            .filter(|(_, length)| *length > 0)
            .collect();
        for _ in 0..FLIPS_PER_ROUND {
            flip(&open, &mut random);
            flips += 1;
        }
        // Every other round another life begins on what is left; in between the flips happen below an open store.
        if round % 2 == 0 {
            drop(store.take());
        }
        let opened = match store.take() {
            Some(store) => store,
            None => Store::open(&directory.0).unwrap(),
        };
        lost += origin.read_all(&opened);
        fetched += origin.fill(&opened);
        assert_eq!(origin.read_all(&opened), 0, "round {round}: all is healed");
        // Octets of dropped chunks are won back, so that the store does not grow with each round.
        if round % 20 == 19 {
            // A manifest that is right in memory may be damaged on the disk: a sweep says so, and it is fetched again.
            while let Err(error) = opened.sweep() {
                let Error::ManifestCorrupt { digest } = error else { panic!("{error}") };
                opened.remove_manifest(&digest).unwrap();
                fetched += origin.fill(&opened);
            }
        }
        store = Some(opened);
    }
    println!("{flips} flips, {lost} chunks lost, {fetched} chunks and manifests fetched again");
    assert!(flips == rounds * FLIPS_PER_ROUND && lost > rounds && fetched >= lost);
}
