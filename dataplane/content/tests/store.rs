//! The store as its users see it, and under faults: what it gives is right or it says why not.

mod support;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bootstorm_content::{Error, IndexedManifest, Marks, Packer, Put, Segment, Store, Writer, decode_chunk, runs};
use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};
use support::{Directory, Fault, FaultyDisk, Random, rounds};

fn put(writer: &mut Writer, bytes: &[u8]) -> ChunkName {
    let name = ChunkName::of(bytes);
    writer.put(name, bytes).unwrap();
    name
}

/// A raw file with holes, repeats, text and noise.
fn raw(seed: u64, chunks: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut raw = Vec::new();
    for _ in 0..chunks {
        match random.below(4) {
            0 => raw.resize(raw.len() + 262_144, 0),
            1 => raw.extend(b"all work and no play ".iter().cycle().take(262_144)),
            2 => raw.extend(std::iter::repeat_n(random.below(3) as u8 + 1, 262_144)),
            _ => raw.extend(random.bytes(262_144)),
        }
    }
    raw.extend(random.bytes(1000));
    raw
}

/// A manifest over these chunks, for tests that do not care what the raw bytes are.
fn manifest_of(chunks: &[Vec<u8>]) -> Manifest {
    let entry = |bytes: &Vec<u8>| {
        let length = bytes.len() as u32;
        Entry { name: ChunkName::of(bytes), raw_bytes: length, stored_bytes: length }
    };
    let total = chunks.iter().map(|bytes| bytes.len() as u64).sum();
    Manifest::new(Encoding::Plain, ImageId::of(b"any"), total, "test", chunks.iter().map(entry).collect()).unwrap()
}

fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory.join("packs")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(suffix));
    files.sort();
    files
}

#[test]
fn a_file_comes_back_whole_and_its_chunks_lie_in_a_row() {
    for encoding in [Encoding::Zstd, Encoding::Plain] {
        let directory = Directory::new();
        let raw = raw(1, 12);
        let digest = {
            let store = Store::open(&directory.0).unwrap();
            let manifest = store.writer().pack(raw.as_slice(), encoding).unwrap();
            assert_eq!(manifest.header().raw, ImageId::of(&raw));
            assert_eq!(manifest.header().raw_bytes, raw.len() as u64);
            manifest.digest()
        };
        // Another life: nothing counts as verified until it was hashed.
        let store = Store::open(&directory.0).unwrap();
        let manifest = store.manifest(&digest).unwrap();
        let all = 0..manifest.manifest().stored_bytes();
        let segments = store.plan_range(&manifest, all.clone()).unwrap();
        assert_eq!(runs(&segments), (vec![], 0));
        for segment in &segments {
            let Segment::Stored { name, verified: false, .. } = segment else { panic!("{segment:?}") };
            assert!(store.needs_verify(name) || store.locate(name) == Some(store.verify(name).unwrap()));
            store.verify(name).unwrap();
            assert!(!store.needs_verify(name));
        }
        let mut back = Vec::new();
        for entry in manifest.manifest().entries() {
            let stored = if entry.is_hole() { Vec::new() } else { store.read_chunk(&entry.name).unwrap() };
            back.extend(decode_chunk(encoding, &stored, entry.raw_bytes).unwrap());
        }
        assert!(back == raw);
        let segments = store.plan_range(&manifest, all).unwrap();
        let (rows, covered) = runs(&segments);
        assert_eq!(covered, segments.len());
        // Only a repeated chunk breaks the row.
        let distinct: HashSet<_> = manifest.chunks(0..u64::MAX).map(|(_, entry)| entry.name).collect();
        assert!(rows.len() <= 1 + 2 * (segments.len() - distinct.len()), "{} rows", rows.len());
    }
}

#[test]
fn every_range_gives_the_octets_of_the_stored_stream() {
    let directory = Directory::new();
    let store = Store::open(&directory.0).unwrap();
    let mut writer = store.writer();
    let manifest = IndexedManifest::new(writer.pack(raw(2, 6).as_slice(), Encoding::Zstd).unwrap());
    // The slow, obvious stream.
    let mut stream = Vec::new();
    for entry in manifest.manifest().entries().iter().filter(|entry| !entry.is_hole()) {
        stream.extend(store.read_chunk(&entry.name).unwrap());
    }
    assert_eq!(stream.len() as u64, manifest.manifest().stored_bytes());
    let mut random = Random(3);
    let edges: Vec<u64> = manifest.chunks(0..u64::MAX).map(|(start, _)| start).collect();
    for _ in 0..300 {
        let mut point = || match random.below(3) {
            0 => edges[random.below(edges.len())] + random.below(2) as u64,
            _ => random.below(stream.len() + 1) as u64,
        };
        let (a, b) = (point(), point());
        let range = a.min(b)..a.max(b);
        let segments = store.plan_range(&manifest, range.clone()).unwrap();
        let mut octets = Vec::new();
        for segment in &segments {
            let Segment::Stored { location, skip, bytes, verified: true, .. } = segment else { panic!() };
            assert!(*bytes > 0);
            let mut part = vec![0; *bytes as usize];
            let file = store.pack_file(location.pack).unwrap();
            file.read_exact_at(&mut part, location.offset + u64::from(*skip)).unwrap();
            octets.extend(part);
        }
        assert!(octets == stream[range.start as usize..range.end as usize], "{range:?}");
        let (rows, covered) = runs(&segments);
        assert_eq!(covered, segments.len());
        assert_eq!(rows.iter().map(|run| run.bytes).sum::<u64>(), range.end - range.start);
    }
    let end = stream.len() as u64;
    assert!(matches!(store.plan_range(&manifest, 0..end + 1), Err(Error::OutOfRange { .. })));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = 2..1;
    assert!(matches!(store.plan_range(&manifest, reversed), Err(Error::OutOfRange { .. })));
}

#[test]
fn what_is_missing_is_said_and_wrong_bytes_stay_out() {
    let directory = Directory::new();
    let store = Store::open(&directory.0).unwrap();
    let chunks = vec![b"first".to_vec(), b"second".to_vec(), b"first".to_vec()];
    let manifest = manifest_of(&chunks);
    let mut writer = store.writer();
    let digest = writer.put_manifest(&manifest.encode()).unwrap();
    let manifest = store.manifest(&digest).unwrap();
    assert_eq!(store.missing(&manifest), [ChunkName::of(b"first"), ChunkName::of(b"second")]);
    let error = writer.put(ChunkName::of(b"first"), b"f1rst").unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }) && error.is_retryable());
    assert!(matches!(writer.put(ChunkName::of(b""), b""), Err(Error::ChunkSize { .. })));
    assert!(matches!(writer.put(ChunkName::of(b""), &[0; 300_000]), Err(Error::ChunkSize { .. })));
    assert_eq!(writer.put(ChunkName::of(b"second"), b"second").unwrap(), Put::Pending);
    assert_eq!(store.locate(&ChunkName::of(b"second")), None, "not before it is durable");
    writer.commit().unwrap();
    assert_eq!(writer.put(ChunkName::of(b"second"), b"second").unwrap(), Put::Present);
    let segments = store.plan_range(&manifest, 3..13).unwrap();
    let missing = |skip, bytes| Segment::Missing { name: ChunkName::of(b"first"), stored_bytes: 5, skip, bytes };
    assert_eq!(segments.first(), Some(&missing(3, 2)));
    assert_eq!(segments.last(), Some(&missing(0, 2)));
    assert!(matches!(segments.get(1), Some(Segment::Stored { skip: 0, bytes: 6, .. })));
    assert!(matches!(store.read_chunk(&ChunkName::of(b"first")), Err(Error::ChunkMissing { .. })));
    assert!(matches!(writer.put_manifest(b"BSMANIF1"), Err(Error::ManifestInvalid(_))));

    let mut lying = manifest.manifest().entries().to_vec();
    lying[1].stored_bytes = 7;
    lying[1].raw_bytes = 7;
    let lying = Manifest::new(Encoding::Plain, ImageId::of(b"any"), 17, "test", lying).unwrap();
    assert!(matches!(store.plan_range(&IndexedManifest::new(lying), 0..17), Err(Error::LengthClaim { .. })));
}

#[test]
fn flipped_bits_are_never_served_and_fetching_again_heals() {
    let directory = Directory::new();
    let mut random = Random(4);
    let chunks: Vec<Vec<u8>> = (0..40)
        .map(|_| {
            let n = 20 + random.below(3000);
            random.bytes(n)
        })
        .collect();
    {
        let store = Store::open(&directory.0).unwrap();
        let mut writer = store.writer();
        for chunk in &chunks {
            put(&mut writer, chunk);
        }
        writer.commit().unwrap();
    }
    let mut corrupt = 0;
    for round in 0..60 {
        // Rot in pack or index.
        let suffix = if round % 3 == 0 { ".index" } else { ".pack" };
        let file = files(&directory.0, suffix).remove(0);
        let mut bytes = std::fs::read(&file).unwrap();
        // An index's header is its first 64 octets: without it the pack is gone, which is tested below.
        let first = if suffix == ".index" { 64 } else { 0 };
        let at = first + random.below(bytes.len() - first);
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&file, &bytes).unwrap();
        let store = Store::open(&directory.0).unwrap();
        let mut lost = 0;
        for chunk in &chunks {
            match store.read_chunk(&ChunkName::of(chunk)) {
                Ok(bytes) => assert!(bytes == *chunk),
                Err(Error::Corrupt { name }) => {
                    corrupt += 1;
                    lost += 1;
                    assert_eq!(store.locate(&name), None, "quarantined");
                }
                Err(Error::ChunkMissing { .. }) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost <= 1, "one bit costs one chunk, not {lost}");
        let mut writer = store.writer();
        for chunk in &chunks {
            put(&mut writer, chunk);
        }
        writer.commit().unwrap();
        for chunk in &chunks {
            assert!(store.read_chunk(&ChunkName::of(chunk)).unwrap() == *chunk);
        }
    }
    assert!(corrupt > 20);
    let index = files(&directory.0, ".index").remove(0);
    std::fs::write(index, b"nothing like a header").unwrap();
    let store = Store::open(&directory.0).unwrap();
    assert_eq!(store.stats().chunks, 0);
    assert_eq!(files(&directory.0, "").len(), 0);
}

#[test]
fn putting_again_heals_a_chunk_of_an_earlier_life() {
    let directory = Directory::new();
    put_all(&Store::open(&directory.0).unwrap(), &[b"good bytes".to_vec()]).unwrap();
    let pack = files(&directory.0, ".pack").remove(0);
    std::fs::write(&pack, b"bad bytes!").unwrap();
    let store = Store::open(&directory.0).unwrap();
    let name = ChunkName::of(b"good bytes");
    assert!(store.needs_verify(&name));
    put_all(&store, &[b"good bytes".to_vec()]).unwrap();
    assert_eq!(store.read_chunk(&name).unwrap(), b"good bytes");
    assert_eq!(store.stats().quarantined, 1);
    store.distrust(&name);
    assert!(store.needs_verify(&name));
    // The later entry counts also in the next life.
    drop(store);
    assert_eq!(Store::open(&directory.0).unwrap().read_chunk(&name).unwrap(), b"good bytes");
}

#[test]
fn a_damaged_manifest_is_refused_and_replaced() {
    let directory = Directory::new();
    let bytes = manifest_of(&[b"x".to_vec()]).encode();
    let digest = {
        let store = Store::open(&directory.0).unwrap();
        store.writer().put_manifest(&bytes).unwrap()
    };
    let path = directory.0.join("manifests").join(digest.to_string());
    let mut bad = bytes.clone();
    bad[60] ^= 1;
    std::fs::write(&path, bad).unwrap();
    std::fs::write(directory.0.join("manifests/half.tmp"), b"half").unwrap();
    let store = Store::open(&directory.0).unwrap();
    assert!(matches!(store.manifest(&digest), Err(Error::ManifestCorrupt { .. })));
    assert!(matches!(store.sweep(), Err(Error::ManifestCorrupt { .. })), "a sweep must not guess");
    store.writer().put_manifest(&bytes).unwrap();
    assert_eq!(store.manifest(&digest).unwrap().digest(), digest);
    assert_eq!(std::fs::read_dir(directory.0.join("manifests")).unwrap().count(), 1);
    store.remove_manifest(&digest).unwrap();
    store.remove_manifest(&digest).unwrap();
    assert!(matches!(store.manifest(&digest), Err(Error::ManifestMissing { .. })));
}

fn put_all(store: &Store, chunks: &[Vec<u8>]) -> Result<(), Error> {
    let mut writer = store.writer();
    for chunk in chunks {
        writer.put(ChunkName::of(chunk), chunk)?;
    }
    writer.commit()
}

#[test]
fn a_sweep_keeps_what_is_named_and_gives_back_the_rest() {
    let directory = Directory::new();
    let store = Store::open(&directory.0).unwrap();
    let mut random = Random(5);
    let mut images = Vec::new();
    for _ in 0..4 {
        let mut chunks: Vec<Vec<u8>> = (0..10).map(|_| random.bytes(5000)).collect();
        chunks.push(b"in every image".to_vec());
        put_all(&store, &chunks).unwrap();
        images.push((store.writer().put_manifest(&manifest_of(&chunks).encode()).unwrap(), chunks));
    }
    let writer = store.writer();
    assert!(matches!(store.sweep(), Err(Error::WritersActive { writers: 1 })));
    drop(writer);
    assert_eq!(store.sweep().unwrap().chunks, 0);
    // The second was used last, the first is pinned: the third and fourth go.
    store.manifest(&images[1].0).unwrap();
    let held =
        store.locate(&ChunkName::of(&images[0].1[0])).and_then(|location| store.pack_file(location.pack)).unwrap();
    let keep = HashSet::from([images[0].0]);
    assert_eq!(store.evict(Marks { high_bytes: 300_000, low_bytes: 0 }, &keep).unwrap().manifests, []);
    let swept = store.evict(Marks { high_bytes: 150_000, low_bytes: 101_000 }, &keep).unwrap();
    assert_eq!(swept.manifests, [images[2].0, images[3].0]);
    assert_eq!(store.evict(Marks { high_bytes: 90_000, low_bytes: 60_000 }, &keep).unwrap().manifests, [images[1].0]);
    assert!(store.stats().pack_bytes <= 50_014, "{:?}", store.stats());
    let mut octets = [0; 16];
    held.read_exact_at(&mut octets, 0).unwrap();
    let check = |store: &Store| {
        for chunk in &images[0].1 {
            assert_eq!(store.read_chunk(&ChunkName::of(chunk)).unwrap(), *chunk);
        }
        assert!(store.locate(&ChunkName::of(&images[1].1[0])).is_none());
        assert_eq!(store.manifests(), [images[0].0]);
    };
    check(&store);
    drop(store);
    check(&Store::open(&directory.0).unwrap());
}

#[test]
fn writers_write_at_once_each_in_a_row() {
    let directory = Directory::new();
    let store = Store::open(&directory.0).unwrap();
    std::thread::scope(|scope| {
        for seed in 10..14 {
            let store = &store;
            scope.spawn(move || {
                let manifest = store.writer().pack(raw(seed, 3).as_slice(), Encoding::Plain).unwrap();
                let manifest = store.manifest(&manifest.digest()).unwrap();
                assert_eq!(store.missing(&manifest), []);
            });
        }
    });
    assert_eq!(store.manifests().len(), 4);
    assert!(matches!(Store::open(&directory.0), Err(Error::InUse { .. })));
}

/// A life of a store on a disk with faults: what was committed is a promise.
fn live(disk: &FaultyDisk, random: &mut Random, promised: &mut HashMap<ChunkName, Vec<u8>>) -> Result<(), Error> {
    let store = Store::open_on(Box::new(disk.clone()))?;
    for _ in 0..4 {
        let mut writer = store.writer();
        for _ in 0..3 {
            let group: Vec<Vec<u8>> = (0..1 + random.below(5))
                .map(|_| {
                    let n = 1 + random.below(2000);
                    random.bytes(n)
                })
                .collect();
            for bytes in &group {
                writer.put(ChunkName::of(bytes), bytes)?;
            }
            let digest = writer.put_manifest(&manifest_of(&group).encode())?;
            promised.extend(group.into_iter().map(|bytes| (ChunkName::of(&bytes), bytes)));
            assert!(store.has_manifest(&digest));
        }
        drop(writer);
        if random.below(3) == 0 {
            assert_eq!(store.sweep()?.chunks, 0);
        }
    }
    Ok(())
}

#[test]
fn every_crash_image_keeps_what_was_committed_and_shows_nothing_wrong() {
    let mut images = 0;
    // 10,000 images in the long form.
    let lives = rounds(100, 2_000);
    for seed in 0..lives as u64 {
        let (directory, mut random) = (Directory::new(), Random(seed));
        let disk = FaultyDisk::new(&directory.0);
        let mut promised = HashMap::new();
        match random.below(3) {
            0 => disk.fail_at(Fault::Sync, random.below(60) as u64),
            1 => disk.fail_at(Fault::NoSpace, random.below(60) as u64),
            _ => {}
        }
        let lived = live(&disk, &mut random, &mut promised);
        assert!(lived.is_ok() || matches!(lived, Err(Error::Disk { .. })), "{lived:?}");
        for _ in 0..5 {
            images += 1;
            let after = Directory::new();
            let crash_seed = random.next_u64();
            disk.crash(crash_seed, &after.0);
            let store = Store::open(&after.0).unwrap();
            for (name, bytes) in &promised {
                let read = store.read_chunk(name);
                assert!(read.as_ref().is_ok_and(|read| read == bytes), "seed {seed} crash {crash_seed}: {read:?}");
            }
            for digest in store.manifests() {
                let manifest = store.manifest(&digest).unwrap();
                for name in store.missing(&manifest) {
                    assert!(!promised.contains_key(&name));
                }
                // Whatever is shown beyond the promise is right as well: its data were synced before its entry.
                for entry in manifest.manifest().entries() {
                    if store.locate(&entry.name).is_some() {
                        store.verify(&entry.name).unwrap();
                    }
                }
            }
            // And it can be written again.
            put_all(&store, &[b"after the crash".to_vec()]).unwrap();
            drop(store);
            let store = Store::open(&after.0).unwrap();
            assert_eq!(store.read_chunk(&ChunkName::of(b"after the crash")).unwrap(), b"after the crash");
        }
    }
    println!("{images} crash images");
    assert_eq!(images, lives * 5);
}

#[test]
fn a_writer_stops_after_any_failed_write_and_the_next_one_goes_on() {
    for fault in [Fault::Sync, Fault::NoSpace] {
        for after in 0..6 {
            let directory = Directory::new();
            let disk = FaultyDisk::new(&directory.0);
            let store = Store::open_on(Box::new(disk.clone())).unwrap();
            put_all(&store, &[b"before".to_vec()]).unwrap();
            disk.fail_at(fault, disk.operations() + after);
            let mut writer = store.writer();
            put(&mut writer, b"during");
            if writer.commit().is_err() {
                assert!(matches!(writer.commit(), Err(Error::WriterStopped)));
                assert!(matches!(writer.put(ChunkName::of(b"x"), b"x"), Err(Error::WriterStopped)));
                assert_eq!(store.locate(&ChunkName::of(b"during")), None);
            }
            drop(writer);
            assert_eq!(store.read_chunk(&ChunkName::of(b"before")).unwrap(), b"before");
            disk.fail_at(fault, u64::MAX);
            put_all(&store, &[b"during".to_vec(), b"afterwards".to_vec()]).unwrap();
            for bytes in [b"before".as_slice(), b"during", b"afterwards"] {
                assert_eq!(store.read_chunk(&ChunkName::of(bytes)).unwrap(), bytes);
            }
        }
    }
}

#[test]
fn decoding_gives_the_length_asked_for_or_an_error() {
    let mut packer = Packer::new(Encoding::Zstd).unwrap();
    let mut stored = Vec::new();
    let mut sink = |cut: bootstorm_content::Cut<'_>| -> Result<(), Error> {
        stored.push((cut.entry, cut.stored.to_vec()));
        Ok(())
    };
    packer.push(&[7; 1000], &mut sink).unwrap();
    assert_eq!(packer.raw_bytes(), 1000);
    packer.finish(&mut sink).unwrap();
    let (entry, bytes) = stored.remove(0);
    assert_eq!(decode_chunk(Encoding::Zstd, &bytes, entry.raw_bytes).unwrap(), [7; 1000]);
    for claimed in [0, 999, 1001, 262_145, u32::MAX] {
        assert!(matches!(decode_chunk(Encoding::Zstd, &bytes, claimed), Err(Error::Undecodable { .. })), "{claimed}");
    }
    for length in 1..bytes.len() {
        assert!(decode_chunk(Encoding::Zstd, &bytes[..length], 1000).is_err());
    }
    assert_eq!(decode_chunk(Encoding::Zstd, &[], 5).unwrap(), [0; 5]);
}
