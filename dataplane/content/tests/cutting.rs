//! Chunks that content defines.

mod support;

use std::collections::HashSet;

use bootstorm_content::{Cut, Cutting, Error, Packer};
use bootstorm_snapshot::manifest::Manifest;
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};
use support::Random;

/// Cuts octets that come in pieces of one length; gives the manifest and the stored chunks.
fn cut(octets: &[u8], encoding: Encoding, piece: usize) -> (Manifest, Vec<Vec<u8>>) {
    let mut stored = Vec::new();
    let mut sink = |cut: Cut<'_>| -> Result<(), Error> {
        stored.push(cut.stored.to_vec());
        Ok(())
    };
    let mut packer = Packer::with_cutting(encoding, Cutting::ContentDefined).unwrap();
    for piece in octets.chunks(piece) {
        packer.push(piece, &mut sink).unwrap();
    }
    assert_eq!(packer.raw_bytes(), octets.len() as u64);
    let manifest = packer.finish(&mut sink).unwrap();
    (manifest, stored)
}

fn names(manifest: &Manifest) -> HashSet<ChunkName> {
    manifest.entries().iter().map(|entry| entry.name).collect()
}

#[test]
fn chunks_are_64_to_256_kib_and_say_how_they_were_cut() {
    let octets = Random(7).bytes(5_000_000);
    let (manifest, stored) = cut(&octets, Encoding::Plain, 100_000);
    assert_eq!(stored.concat(), octets);
    assert_eq!(manifest.header().raw, ImageId::of(&octets));
    assert_eq!(manifest.header().method, "fastcdc-v2020-65536-131072-262144 plain");
    let (last, others) = manifest.entries().split_last().unwrap();
    assert!(others.iter().all(|entry| (65_536..=262_144).contains(&entry.raw_bytes)), "{others:?}");
    assert!(last.raw_bytes <= 262_144);
    let lengths: HashSet<u32> = others.iter().map(|entry| entry.raw_bytes).collect();
    assert!(lengths.len() > others.len() / 2, "the content cuts, not the clock: {lengths:?}");
    // Where pieces end has no say.
    for piece in [1_000, 262_144, 5_000_000] {
        assert_eq!(cut(&octets, Encoding::Plain, piece).0, manifest);
    }
    let (manifest, _) = cut(&octets, Encoding::Zstd, 100_000);
    assert_eq!(manifest.header().method, "fastcdc-v2020-65536-131072-262144 zstd-3");
    assert_eq!(manifest.header().raw, ImageId::of(&octets));
}

#[test]
fn an_insertion_costs_the_chunks_around_it() {
    let octets = Random(8).bytes(6_000_000);
    let (before, _) = cut(&octets, Encoding::Plain, 1 << 20);
    let (front, back) = octets.split_at(2_000_000);
    let (after, _) = cut(&[front, b"something new", back].concat(), Encoding::Plain, 1 << 20);
    let fresh = names(&after).difference(&names(&before)).count();
    assert!((1..=4).contains(&fresh), "{fresh} of {} chunks are new", after.entries().len());
}

#[test]
fn short_and_even_files_end() {
    for octets in [vec![], vec![1], vec![0; 65_536], vec![0; 262_144], vec![0; 1_000_000]] {
        let (manifest, stored) = cut(&octets, Encoding::Plain, 1 << 16);
        assert_eq!(stored.concat(), octets);
        assert_eq!(manifest.header().raw_bytes, octets.len() as u64);
    }
}
