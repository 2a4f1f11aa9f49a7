//! What one chunk and one range of the content store cost.

use std::hint::black_box;

use bootstorm_content::{IndexedManifest, Store, decode_chunk};
use bootstorm_snapshot::limits::CHUNK_RAW_BYTES;
use bootstorm_snapshot::{ChunkName, Encoding};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Chunks of the file whose ranges are looked up: a 64 MiB image.
const CHUNKS: usize = 256;
/// Level that the importer uses.
const LEVEL: i32 = 3;

/// Octets that compress about as programs do: words that come again, and noise between them.
fn octets(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut octets = Vec::with_capacity(length + 16);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes()[..4]);
        octets.extend_from_slice(&[b"\x48\x8b\x45\xf8", b"\xe8\0\0\0", b"\x0f\x1f\x40\0"][state as usize % 3][..]);
    }
    octets.truncate(length);
    octets
}

fn chunk(c: &mut Criterion) {
    let raw = octets(CHUNK_RAW_BYTES as usize);
    let stored = zstd::bulk::compress(&raw, LEVEL).expect("memory enough");
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    group.bench_function("blake3_raw_256k", |b| b.iter(|| blake3::hash(black_box(&raw))));
    group.bench_function("blake3_stored_of_256k", |b| b.iter(|| ChunkName::of(black_box(&stored))));
    group.bench_function("zstd_compress_256k", |b| {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("memory enough");
        b.iter(|| compressor.compress(black_box(&raw)).expect("memory enough"));
    });
    group.bench_function("zstd_decode_256k", |b| {
        b.iter(|| decode_chunk(Encoding::Zstd, black_box(&stored), CHUNK_RAW_BYTES).expect("a whole frame"));
    });
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&directory.path().join("content")).expect("a store");
    let raw = octets(CHUNKS * CHUNK_RAW_BYTES as usize);
    let manifest = store.writer().pack(raw.as_slice(), Encoding::Plain).expect("packed");
    let names: Vec<ChunkName> = manifest.entries().iter().map(|entry| entry.name).collect();
    let manifest = IndexedManifest::new(manifest);
    let mut at = 0;
    c.bench_function("content/locate_chunk", |b| {
        b.iter(|| {
            at = (at + 1) % names.len();
            store.locate(black_box(&names[at])).expect("it is there")
        });
    });
    let quantum = u64::from(CHUNK_RAW_BYTES);
    for (name, length) in [("content/plan_range_256k", quantum), ("content/plan_range_4m", 16 * quantum)] {
        let mut start = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                start = (start + 1_000_003) % (raw.len() as u64 - length);
                store.plan_range(&manifest, black_box(start..start + length)).expect("inside")
            });
        });
    }
}

criterion_group!(content, chunk, lookup);
criterion_main!(content);
