//! The content store: what a thousand cold readers cost the disk and the origin, and what it costs to take chunks in
//! compared with decoding them to hash what they hold.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bootstorm_content::{Cut, Packer, Put, Store};
use bootstorm_snapshot::Encoding;
use bootstorm_snapshot::manifest::Manifest;
use bootstorm_tests::lab::{Error, process};

use crate::case::{Goal, Measure, Sample};
use crate::cgroup::Group;
use crate::client::Taken;
use crate::origin::Origin;
use crate::pairs::{Options, interleaved};
use crate::server::{Server, accepts, confined, free_address};
use crate::suite::{Failed, Suite};
use crate::{image, limits, page_cache};

const SERVER_PROCESSOR: usize = 0;
const CLIENT_PROCESSOR: usize = 1;

const COLD: &str = "store-cold-1000-readers";
const VERIFY: &str = "store-ingest-verify";
const PEER: &str = "zstd-then-b3sum";
/// Memory as a directory: neither side is to pay for a disk.
const MEMORY: &str = "/dev/shm";

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a program does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let each = limits::STORE_CASE * u32::try_from(options.rounds()).unwrap_or(u32::MAX);
    let mut suite = Suite::begin("store", options, &[(COLD, each), (VERIFY, each)])?;
    let outcome = run_cases(&mut suite, options);
    suite.end(outcome)
}

fn run_cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    suite.version_of(&options.bootstorm, &["--version"]);
    if suite.takes(COLD) {
        cold(suite, options)?;
    }
    if suite.takes(VERIFY) {
        verify(suite, options)?;
    }
    Ok(())
}

/// In every round a fresh server whose content lies on the disk only, and readers who all begin at once.
fn cold(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let (files, data) = (place.path().join("files"), place.path().join("data"));
    let image = files.join("image");
    let bytes = if options.quick { limits::COLD_BYTES_QUICK } else { limits::COLD_BYTES };
    fs::create_dir_all(&files)
        .and_then(|()| io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut File::create(&image)?))
        .map_err(|source| Error::File { path: image.clone(), source })?;
    let comparisons = interleaved(COLD, "ours", &[], options.rounds(), |_, _| {
        let address = free_address()?;
        let words = [
            "serve",
            &files.display().to_string(),
            "--http",
            &address.to_string(),
            "--workers",
            "1",
            "--data",
            &data.display().to_string(),
        ]
        .map(str::to_owned);
        let log = place.path().join("bootstorm.log");
        let server =
            Server::start("bootstorm", (&options.bootstorm, &words), SERVER_PROCESSOR, address, &log, accepts)?;
        page_cache::evict(&files)?;
        page_cache::evict(&data)?;
        let before = server.disk_read_bytes()?;
        let sample = read_all(options, &server, "/image", bytes)?;
        let read = server.disk_read_bytes()? - before;
        if read == 0 {
            return Err(Error::Environment("nothing was read from the disk: the content was not cold".to_owned()));
        }
        Ok(sample.with(Measure::DiskBytes, read as f64 / bytes as f64))
    })?;
    for comparison in comparisons {
        suite.measured(comparison, &[(Measure::DiskBytes, Goal::AtMost(1.02))])?;
    }
    filled(suite, options, &files, bytes)
}

/// The same with content that lies at an origin only: in every round an empty store, and readers who all begin at once. What the
/// list and the manifest take is fetched before the readers begin, and noted.
fn filled(suite: &mut Suite<'_>, options: &Options, files: &Path, bytes: u64) -> Result<(), Error> {
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let laid_out = place.path().join("origin");
    process::run(Command::new(&options.bootstorm).args(["origin", "build"]).args([files, &laid_out]))?;
    let mut before_readers = 0;
    let comparisons = interleaved(COLD, "ours", &[], options.rounds(), |_, _| {
        let origin = Origin::start(&laid_out)?;
        let (url, address) = (format!("http://{}", origin.address), free_address()?);
        let failed = |source| Error::File { path: place.path().to_owned(), source };
        let data = tempfile::tempdir_in(place.path()).map_err(failed)?;
        let (at, store) = (address.to_string(), data.path().display().to_string());
        let words = ["serve", "--origin", &url, "--http", &at, "--workers", "1", "--data", &store].map(str::to_owned);
        let log = place.path().join("bootstorm.log");
        let server =
            Server::start("bootstorm", (&options.bootstorm, &words), SERVER_PROCESSOR, address, &log, accepts)?;
        before_readers = origin.body_bytes();
        let sample = read_all(options, &server, "/image", bytes)?;
        let fetched = origin.body_bytes() - before_readers;
        if fetched == 0 {
            return Err(Error::Environment("nothing was fetched: the content was not cold".to_owned()));
        }
        Ok(sample.with(Measure::OriginBytes, fetched as f64 / bytes as f64))
    })?;
    suite.note("origin_bytes_before_readers", before_readers);
    for comparison in comparisons {
        suite.measured(comparison, &[(Measure::OriginBytes, Goal::AtMost(1.00))])?;
    }
    Ok(())
}

/// Lets a thousand connections fetch the whole file once, all beginning at the same time.
fn read_all(options: &Options, server: &Server, path: &str, bytes: u64) -> Result<Sample, Error> {
    let group = Group::new("client")?;
    let mut client = confined(&group, CLIENT_PROCESSOR, &options.bench);
    client.args(["client-http", &server.address.to_string(), path, "--bodies", "trunc", "--connections"]);
    client.arg(limits::COLD_READERS.to_string());
    let before = server.cpu_seconds()?;
    let taken = Taken::by(&mut client)?;
    if taken.least_bytes != bytes {
        let answer = format!("{} octets of {bytes}", taken.least_bytes);
        return Err(Error::Answer { command: format!("GET {path}"), missing: "the whole file".to_owned(), answer });
    }
    Ok(Sample {
        units: taken.bytes as f64,
        seconds: taken.seconds,
        server_cpu_seconds: server.cpu_seconds()? - before,
        client_cpu_seconds: group.cpu_seconds()?,
        ..Sample::default()
    })
}

/// Both sides get the same stored stream from the page cache. Ours takes its chunks into a content store in memory, each
/// checked against its name; the peer decodes the stream and hashes what comes out, and keeps nothing.
fn verify(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    suite.version_of(Path::new("zstd"), &["--version"]);
    suite.version_of(Path::new("b3sum"), &["--version"]);
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let (raw, stream, manifest) =
        (place.path().join("image"), place.path().join("image.zst"), place.path().join("manifest"));
    let image = image::write(&raw, if options.quick { limits::IMAGE_BYTES_QUICK } else { limits::IMAGE_BYTES })?;
    let stored_bytes = pack(&raw, &stream, &manifest)?;
    suite.note("image_raw_bytes", image.raw_bytes);
    suite.note("image_stored_bytes", stored_bytes);
    let comparisons = interleaved(VERIFY, "ours", &[(PEER, PEER)], options.rounds(), |side, _| {
        let group = Group::new("verify")?;
        let started = Instant::now();
        if side == PEER {
            let mut shell = confined(&group, SERVER_PROCESSOR, Path::new("sh"));
            shell.args(["-c", "zstd --decompress --stdout --quiet \"$0\" | b3sum --num-threads 1"]).arg(&stream);
            process::run(&mut shell)?;
        } else {
            let directory =
                tempfile::tempdir_in(MEMORY).map_err(|source| Error::File { path: MEMORY.into(), source })?;
            let mut ours = confined(&group, SERVER_PROCESSOR, &options.bench);
            ours.arg("ingest").args([&stream, &manifest]).arg(directory.path().join("content"));
            process::run(&mut ours)?;
        }
        Ok(Sample {
            units: stored_bytes as f64,
            seconds: started.elapsed().as_secs_f64(),
            server_cpu_seconds: group.cpu_seconds()?,
            ..Sample::default()
        })
    })?;
    for comparison in comparisons {
        suite.measured(comparison, &[(Measure::Cpu, Goal::AtMost(0.17))])?;
    }
    Ok(())
}

/// Writes the stored stream and the manifest of a raw image; returns the stream's octets.
fn pack(raw: &Path, stream: &Path, manifest: &Path) -> Result<u64, Error> {
    let failed = |source| Error::File { path: raw.to_owned(), source };
    let content = |error: bootstorm_content::Error| failed(io::Error::other(error));
    let mut source = File::open(raw).map_err(failed)?;
    let mut target = io::BufWriter::new(File::create(stream).map_err(failed)?);
    let mut packer = Packer::new(Encoding::Zstd).map_err(content)?;
    let mut sink =
        |cut: Cut<'_>| io::Write::write_all(&mut target, cut.stored).map_err(bootstorm_content::Error::Source);
    let mut buffer = vec![0; limits::READ_BYTES];
    loop {
        let read = source.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        packer.push(&buffer[..read], &mut sink).map_err(content)?;
    }
    let made = packer.finish(&mut sink).map_err(content)?;
    io::Write::flush(&mut target).and_then(|()| fs::write(manifest, made.encode())).map_err(failed)?;
    Ok(made.stored_bytes())
}

/// Takes the chunks of a stored stream into a fresh content store, as a rack does with what it fetched; each is checked
/// against its name before anything else.
///
/// # Errors
/// When a file cannot be read, or a chunk is not what the manifest says.
pub fn ingest(stream: &Path, manifest: &Path, store: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: stream.to_owned(), source };
    let content = |error: bootstorm_content::Error| failed(io::Error::other(error));
    let manifest = fs::read(manifest).map_err(failed)?;
    let manifest = Manifest::decode(&manifest).map_err(|error| failed(io::Error::other(error)))?;
    let mut stream = File::open(stream).map_err(failed)?;
    let store = Store::open(store).map_err(content)?;
    let mut writer = store.writer();
    let mut chunk = Vec::new();
    for entry in manifest.entries().iter().filter(|entry| !entry.is_hole()) {
        chunk.resize(entry.stored_bytes as usize, 0);
        stream.read_exact(&mut chunk).map_err(failed)?;
        match writer.put(entry.name, &chunk).map_err(content)? {
            Put::Pending | Put::Present => {}
        }
    }
    writer.commit().map_err(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_taken_in_as_it_was_packed_and_a_flipped_bit_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let raw: Vec<u8> = (0..1_000_000u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        fs::write(at("raw"), &raw).unwrap();
        let stored_bytes = pack(&at("raw"), &at("stream"), &at("manifest")).unwrap();
        assert_eq!(stored_bytes, fs::metadata(at("stream")).unwrap().len());
        ingest(&at("stream"), &at("manifest"), &at("good")).unwrap();

        let mut stream = fs::read(at("stream")).unwrap();
        let middle = stream.len() / 2;
        stream[middle] ^= 1;
        fs::write(at("stream"), stream).unwrap();
        assert!(ingest(&at("stream"), &at("manifest"), &at("bad")).is_err());
    }
}
