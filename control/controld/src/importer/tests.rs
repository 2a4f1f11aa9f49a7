//! Whole imports: source in, frames through, a store out; images made by QEMU (see `tests/vectors/qcow2/README.md`)
//! and by hand.

use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bootstorm_content::{Store, decode_chunk};
use bootstorm_snapshot::ImageId;

use super::*;

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bootstorm-importer-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self, bytes: &[u8]) -> File {
        let path = self.0.join("source");
        std::fs::write(&path, bytes).unwrap();
        File::open(path).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ingest_limits(options: &ImportOptions) -> IngestLimits {
    IngestLimits { encoding: options.encoding, raw_bytes_max: options.raw_bytes_max, stored_bytes_max: 1 << 30 }
}

/// Frames of a source, and what the importer returned.
fn frames(options: &ImportOptions, source: File) -> (Vec<u8>, Result<Summary, ImportError>) {
    let mut frames = Vec::new();
    let result = run_importer(options, source, &mut frames);
    (frames, result)
}

/// Imports and reads the raw bytes back from the store.
fn there_and_back(options: &ImportOptions, source: File) -> Result<(Vec<u8>, Summary, Manifest), IngestError> {
    let (frames, result) = frames(options, source);
    let directory = Directory::new();
    let store = Store::open(&directory.0).unwrap();
    let mut writer = store.writer();
    let (manifest, summary) = ingest(frames.as_slice(), &mut writer, &ingest_limits(options))?;
    assert_eq!(result.unwrap(), summary);
    assert_eq!(store.manifests(), [manifest.digest()]);
    let mut raw = Vec::new();
    for entry in manifest.entries() {
        let stored = if entry.is_hole() { Vec::new() } else { store.read_chunk(&entry.name).unwrap() };
        raw.extend(decode_chunk(options.encoding, &stored, entry.raw_bytes).unwrap());
    }
    assert_eq!(ImageId::of(&raw), summary.raw);
    Ok((raw, summary, manifest))
}

fn pattern(raw: &mut [u8], at: usize, length: usize) {
    for (i, octet) in raw.iter_mut().enumerate().skip(at).take(length) {
        *octet = (i * 31 + (i >> 8) * 7 + (i >> 16)) as u8;
    }
}

/// The disk inside the vectors.
fn disk() -> Vec<u8> {
    let mut raw = vec![0; 1 << 20];
    for (at, length) in [(0, 9000), (200 * 1024, 4096), (512 * 1024 + 100, 5000), ((1 << 20) - 512, 512)] {
        pattern(&mut raw, at, length);
    }
    raw
}

fn vector(name: &str) -> File {
    File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/qcow2").join(name)).unwrap()
}

fn failure(options: &ImportOptions, source: File) -> (String, String) {
    match there_and_back(options, source) {
        Err(IngestError::Importer { code, message }) => (code, message),
        other => panic!("{:?}", other.map(|(raw, summary, _)| (raw.len(), summary))),
    }
}

#[test]
fn images_made_by_qemu_come_out_as_they_went_in() {
    for name in ["v2", "v2-zlib", "v3", "v3-cluster-512", "v3-zlib", "v3-zstd"] {
        let (raw, summary, manifest) =
            there_and_back(&ImportOptions::image(), vector(&format!("{name}.qcow2"))).unwrap();
        assert!(raw == disk(), "{name}");
        assert_eq!((summary.format, summary.wrapper), (Format::Qcow2, Wrapper::None));
        assert_eq!(manifest.entries().iter().filter(|entry| entry.is_hole()).count(), 1, "{name}");
    }
    // The active state, not the snapshot's: the second block was written with zeros afterwards.
    let (raw, ..) = there_and_back(&ImportOptions::image(), vector("v3-snapshot-zero.qcow2")).unwrap();
    let mut wanted = disk();
    wanted[200 * 1024..204 * 1024].fill(0);
    assert!(raw == wanted);
}

#[test]
fn images_that_point_outside_or_cannot_be_read_are_refused_by_name() {
    for (name, says) in [
        ("refused-backing", "backing file"),
        ("refused-data-file", "external data file"),
        ("refused-encrypted", "encryption"),
        ("refused-extended-l2", "extended L2"),
    ] {
        let (code, message) = failure(&ImportOptions::image(), vector(&format!("{name}.qcow2")));
        assert_eq!(code, "qcow2");
        assert!(message.contains(says) && message.contains("qemu-img"), "{message}");
    }
}

#[test]
fn damaged_vectors_are_refused_or_read_in_bounds() {
    let mut random = 1u64;
    for name in ["v3.qcow2", "v3-zstd.qcow2", "v2-zlib.qcow2"] {
        let mut bytes = Vec::new();
        vector(name).read_to_end(&mut bytes).unwrap();
        let directory = Directory::new();
        for _ in 0..150 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut changed = bytes.clone();
            // Mostly in the header and tables, which come first.
            let at = (random >> 33) as usize % if random & 1 == 0 { 112 } else { bytes.len() };
            changed[at] ^= 1 << (random >> 20 & 7);
            let options = ImportOptions { raw_bytes_max: 4 << 20, ..ImportOptions::image() };
            let mut output = Vec::new();
            if let Ok(summary) = run_importer(&options, directory.file(&changed), &mut output) {
                assert!(summary.raw_bytes <= 4 << 20);
            }
        }
    }
}

#[test]
fn raw_and_every_wrapper_from_a_file_and_from_a_pipe() {
    let raw = disk();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&raw).unwrap();
        encoder.finish().unwrap()
    };
    let xz = {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&raw).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(raw.as_slice(), 3).unwrap();
    for (wrapper, bytes) in [(Wrapper::None, &raw), (Wrapper::Gzip, &gzip), (Wrapper::Xz, &xz), (Wrapper::Zstd, &zstd)]
    {
        let directory = Directory::new();
        let (back, summary, _) = there_and_back(&ImportOptions::image(), directory.file(bytes)).unwrap();
        assert!(back == raw, "{wrapper:?}");
        assert_eq!((summary.format, summary.wrapper), (Format::Raw, wrapper));

        let (reader, mut pipe) = io::pipe().unwrap();
        let sent = bytes.clone();
        let sender = std::thread::spawn(move || pipe.write_all(&sent));
        let (back, ..) =
            there_and_back(&ImportOptions::image(), File::from(std::os::fd::OwnedFd::from(reader))).unwrap();
        sender.join().unwrap().unwrap();
        assert!(back == raw, "{wrapper:?} by pipe");

        if wrapper != Wrapper::None {
            let cut = directory.file(&bytes[..bytes.len() - 9]);
            assert_eq!(failure(&ImportOptions::image(), cut).0, "decode", "{wrapper:?} cut short");
            let mut trailing = bytes.clone();
            trailing.extend_from_slice(b"something else");
            assert_eq!(failure(&ImportOptions::image(), directory.file(&trailing)).0, "decode", "{wrapper:?} trailing");
        }
        // A boot file is kept as it is, whatever it looks like.
        let (back, summary, manifest) = there_and_back(&ImportOptions::boot_file(), directory.file(bytes)).unwrap();
        assert!(back == *bytes);
        assert_eq!(summary.encoding, Encoding::Plain);
        assert_eq!(manifest.stored_bytes(), bytes.len() as u64);
    }
}

#[test]
fn formats_that_are_not_listed_are_refused() {
    let directory = Directory::new();
    let mut vdi = vec![0; 600];
    vdi[64..68].copy_from_slice(b"\x7f\x10\xda\xbe");
    let qcow2 = {
        let mut bytes = Vec::new();
        vector("v3.qcow2").read_to_end(&mut bytes).unwrap();
        bytes
    };
    for (bytes, says) in [
        (b"KDMV and more".to_vec(), "VMDK"),
        (b"vhdxfile".to_vec(), "VHDX"),
        (vdi, "VDI"),
        (b"<!DOCTYPE html><title>404".to_vec(), "HTML"),
        (zstd::encode_all(b"KDMV".as_slice(), 1).unwrap(), "VMDK"),
        (zstd::encode_all(zstd::encode_all(b"x".as_slice(), 1).unwrap().as_slice(), 1).unwrap(), "compressed twice"),
        (zstd::encode_all(qcow2.as_slice(), 1).unwrap(), "decompress it first"),
    ] {
        let (code, message) = failure(&ImportOptions::image(), directory.file(&bytes));
        assert!(code == "format" && message.contains(says), "{code} {message}");
    }
    let (reader, mut pipe) = io::pipe().unwrap();
    pipe.write_all(&qcow2[..2048]).unwrap();
    drop(pipe);
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    assert!(failure(&ImportOptions::image(), pipe).1.contains("as a file"));
    assert_eq!(failure(&ImportOptions::image(), directory.file(b"")).0, "size");
}

#[test]
fn sizes_are_held_to() {
    let directory = Directory::new();
    let raw = disk();
    let zeros = zstd::encode_all(io::repeat(0).take(64 << 20), 1).unwrap();
    let with = |max, exact| ImportOptions { raw_bytes_max: max, raw_bytes: exact, ..ImportOptions::image() };
    for (options, bytes, fine) in [
        (with(1 << 20, None), &raw, true),
        (with(1 << 20, Some(1 << 20)), &raw, true),
        (with((1 << 20) - 1, None), &raw, false),
        (with(1 << 30, Some((1 << 20) + 1)), &raw, false),
        (with(1 << 30, Some((1 << 20) - 1)), &raw, false),
        // A bomb stops at the limit.
        (with(1 << 22, None), &zeros, false),
    ] {
        let (frames, result) = frames(&options, directory.file(bytes));
        assert_eq!(result.is_ok(), fine, "{options:?}");
        assert!(frames.len() < 1 << 20);
    }
    for exact in [1, (1 << 20) + 1] {
        let (code, message) = failure(&with(1 << 30, Some(exact)), vector("v3.qcow2"));
        assert!(code == "size" && message.contains("declared"), "{message}");
    }
    assert_eq!(failure(&with(4096, None), vector("v3.qcow2")).0, "size");
}

#[test]
fn a_window_over_the_limit_is_refused() {
    let directory = Directory::new();
    // A frame header that asks for a window of 256 MiB (RFC 8878 §3.1.1.1.2: exponent 18).
    let mut bytes = b"\x28\xb5\x2f\xfd".to_vec();
    bytes.extend([0x00, 18 << 3, 0x01, 0x00, 0x00]);
    assert_eq!(failure(&ImportOptions::image(), directory.file(&bytes)).0, "decode");
    // The same frame with a window of 1 MiB is fine.
    bytes[5] = 10 << 3;
    assert_eq!(failure(&ImportOptions::image(), directory.file(&bytes)).0, "size");
}

#[test]
fn control_trusts_no_frame() {
    let directory = Directory::new();
    let (good, _) = frames(&ImportOptions::image(), directory.file(&disk()));
    let limits = ingest_limits(&ImportOptions::image());
    let store_directory = Directory::new();
    let store = Store::open(&store_directory.0).unwrap();
    let attempt = |frames: &[u8], limits: &IngestLimits| {
        let mut writer = store.writer();
        let result = ingest(frames, &mut writer, limits);
        (result, store.manifests().len())
    };
    // Cut anywhere: no manifest.
    for length in (0..good.len()).step_by(97).chain(good.len() - 20..good.len()) {
        let (result, manifests) = attempt(&good[..length], &limits);
        assert!(matches!(result, Err(IngestError::Frame(_))) && manifests == 0, "{length}");
    }
    // Changed in a chunk's bytes or name.
    for at in [12, 60] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        let (result, _) = attempt(&changed, &limits);
        assert!(matches!(result, Err(IngestError::Content(bootstorm_content::Error::Mismatch { .. }))), "{at}");
    }
    // A raw length that does not add up.
    let mut changed = good.clone();
    // 196608 instead of 262144.
    changed[3] = 3;
    assert!(matches!(attempt(&changed, &limits).0, Err(IngestError::Summary(_))));
    let mut more = good.clone();
    more.push(2);
    assert!(matches!(attempt(&more, &limits).0, Err(IngestError::Protocol(_))));
    for tight in [IngestLimits { raw_bytes_max: 1 << 19, ..limits }, IngestLimits { stored_bytes_max: 100, ..limits }] {
        assert!(matches!(attempt(&good, &tight).0, Err(IngestError::TooLarge { .. })));
    }
    let plain = IngestLimits { encoding: Encoding::Plain, ..limits };
    let (result, manifests) = attempt(&good, &plain);
    assert!(matches!(result, Err(IngestError::Protocol(_))) && manifests == 0);
    let (result, manifests) = attempt(&good, &limits);
    assert!(result.is_ok() && manifests == 1);
    // Text of the importer is made harmless.
    let mut hostile = Vec::new();
    let failure = Failure { code: "x\n".into(), message: "\u{1b}[31m".repeat(700) };
    write_failure(&mut hostile, &failure).unwrap();
    let Err(IngestError::Importer { code, message }) = attempt(&hostile, &limits).0 else { panic!() };
    assert_eq!(code, "x ");
    assert!(message.chars().count() <= 1024 && !message.contains('\u{1b}'));
}

#[test]
fn options_are_an_argument() {
    let options = ImportOptions { raw_bytes: Some(5), ..ImportOptions::boot_file() };
    assert_eq!(ImportOptions::from_argument(&options.to_argument()).unwrap(), options);
    let unknown = r#"{"encoding":"zstd","raw_bytes_max":5,"path":"/etc/passwd"}"#;
    assert!(matches!(ImportOptions::from_argument(unknown), Err(ImportError::Options(_))));
}

#[test]
fn a_long_sparse_image_takes_no_room() {
    let directory = Directory::new();
    let mut file = File::options().write(true).create(true).truncate(true).open(directory.0.join("source")).unwrap();
    file.seek(SeekFrom::Start((64 << 20) - 1)).unwrap();
    file.write_all(&[1]).unwrap();
    let (frames, result) = frames(&ImportOptions::image(), File::open(directory.0.join("source")).unwrap());
    assert_eq!(result.unwrap().raw_bytes, 64 << 20);
    assert!(frames.len() < 4096, "{}", frames.len());
}
