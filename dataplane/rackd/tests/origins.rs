//! `serve` over files that lie elsewhere: what is asked for is fetched once, checked, kept.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bootstorm_api::frame::{self, PREFIX_BYTES};
use bootstorm_api::local::{ToGateway, ToRack, Wish};
use bootstorm_content::Packer;
use bootstorm_rackd::{Driver, Encoding, Error, ServeOptions, Source, Stop, confine_serve, serve};
use bootstorm_snapshot::record::File;

const PATIENCE: Duration = Duration::from_secs(60);

/// Octets that do not compress and differ everywhere.
fn noise(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

/// What an origin holds, and the list of its one file.
fn pack(name: &str, bytes: &[u8]) -> (HashMap<Wish, Vec<u8>>, Vec<u8>) {
    let mut content = HashMap::new();
    let mut sink = |cut: bootstorm_content::Cut<'_>| -> Result<(), bootstorm_content::Error> {
        content.insert(Wish::Chunk { name: cut.entry.name }, cut.stored.to_vec());
        Ok(())
    };
    let mut packer = Packer::new(Encoding::Plain).expect("packer");
    packer.push(bytes, &mut sink).expect("cut");
    let manifest = packer.finish(&mut sink).expect("manifest");
    content.insert(Wish::Manifest { digest: manifest.digest() }, manifest.encode());
    let header = manifest.header();
    let file = File {
        name: name.into(),
        manifest: manifest.digest(),
        raw: header.raw,
        raw_bytes: header.raw_bytes,
        encoding: Encoding::Plain,
    };
    (content, serde_json::to_vec(&file).expect("encodes"))
}

/// How wishes are answered, one after the other.
type Answer = dyn Fn(Wish, usize) -> Option<Vec<u8>> + Send;

/// A server and the log of what it wished for.
struct Serving {
    http: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
    wished: Arc<Mutex<Vec<Wish>>>,
}

impl Serving {
    /// `answer` gets a wish and how often it was wished for before; what it does not answer cannot be had.
    fn start(store: &Path, list: &[u8], driver: Driver, answer: Box<Answer>) -> Serving {
        let serving = Serving::begin(store, list, driver, answer);
        // Answered when all manifests are here.
        assert_eq!(serving.get("healthz").0, 200);
        serving
    }

    fn begin(store: &Path, list: &[u8], driver: Driver, answer: Box<Answer>) -> Serving {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let at = http.local_addr().expect("address");
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let wished = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&wished);
        std::thread::spawn(move || fetch(&ours, &log, &*answer));
        let source = Source::Origins { list: list.to_vec(), fetcher: theirs };
        let store = store.to_path_buf();
        let options = ServeOptions { source, http: vec![http], tftp: vec![], store, cache_bytes: None, driver };
        let stop = Stop::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let confined = confine_serve(&options)?;
            serve(options, confined, stopped)
        });
        Serving { http: at, stop, thread: Some(thread), wished }
    }

    fn ask(&self, name: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        write!(stream, "GET /{name} HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    }

    fn get(&self, name: &str) -> (u16, Vec<u8>) {
        reply(self.ask(name))
    }

    /// Value of a line of `/metrics`; 0 if it is not there.
    fn metric(&self, line: &str) -> u64 {
        let text = String::from_utf8(self.get("metrics").1).expect("text");
        text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }

    fn wished(&self) -> Vec<Wish> {
        self.wished.lock().expect("no panic").clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.trigger();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic").expect("a clean end");
        }
    }
}

fn fetch(mut stream: &UnixStream, log: &Mutex<Vec<Wish>>, answer: &Answer) {
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        if stream.read_exact(&mut prefix).is_err() {
            return;
        }
        let (header, attachment) = frame::lengths(prefix).expect("lengths");
        let mut body = vec![0; header + attachment];
        stream.read_exact(&mut body).expect("whole");
        let ToGateway::Wish { wish } = frame::decode_body(&body, header).expect("a message").0 else { continue };
        let before = {
            let mut log = log.lock().expect("no panic");
            log.push(wish);
            log.iter().filter(|known| **known == wish).count() - 1
        };
        let (message, bytes) = match answer(wish, before) {
            Some(bytes) => (ToRack::Fetched { wish, offset: 0, bytes_total: bytes.len() as u64 }, bytes),
            None => (ToRack::NotFetched { wish, reason: "not there".into() }, vec![]),
        };
        if stream.write_all(&frame::encode(&message, &bytes).expect("frame")).is_err() {
            return;
        }
    }
}

fn reply(mut stream: TcpStream) -> (u16, Vec<u8>) {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("read");
    let end = got.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let status = std::str::from_utf8(&got[9..12]).expect("text").parse().expect("status");
    (status, got.split_off(end))
}

fn allow_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).expect("as many descriptors");
}

#[test]
fn a_thousand_cold_readers_cost_one_fetch_of_each_chunk_and_no_read_of_the_disk() {
    const READERS: usize = 1000;
    allow_descriptors(4096);
    // One chunk, and longer than what is answered in one piece: a thousand of them fit the kernel's buffers.
    let bytes = noise(70_000);
    let (content, list) = pack("image", &bytes);
    for driver in [Driver::Uring, Driver::Epoll] {
        let place = tempfile::tempdir().expect("directory");
        let held = content.clone();
        let answer = Box::new(move |wish, _| held.get(&wish).cloned());
        let serving = Serving::start(&place.path().join("store"), &list, driver, answer);
        assert_eq!(serving.wished().len(), 1, "only the manifest is fetched before somebody asks");
        let readers: Vec<TcpStream> = (0..READERS).map(|_| serving.ask("image")).collect();
        for reader in readers {
            let (status, body) = reply(reader);
            assert!(status == 200 && body == bytes, "{driver:?}: {status}, {} octets", body.len());
        }
        let wished = serving.wished();
        assert_eq!(wished.len(), content.len(), "each once: {wished:?}");
        assert_eq!(serving.metric("bootstorm_rack_fetched_bytes_total{what=\"chunks\"}"), bytes.len() as u64);
        assert_eq!(
            serving.metric("bootstorm_rack_cache_events_total{what=\"loaded\"}"),
            1,
            "as it came, not read again"
        );
        assert_eq!(
            serving.get("manifest/files").1,
            [list.clone(), b"\n".to_vec()].concat(),
            "others may fill from here"
        );
    }
}

#[test]
fn t5_what_is_not_as_named_is_never_served_and_fetched_again() {
    let bytes = noise(500_000);
    let (content, list) = pack("image", &bytes);
    let place = tempfile::tempdir().expect("directory");
    let answer = move |wish, before: usize| {
        let mut bytes = content.get(&wish).cloned()?;
        match before {
            // A manifest that lies only costs time.
            0 => bytes[100] ^= 1,
            1 => return None,
            _ => {}
        }
        Some(bytes)
    };
    let serving = Serving::start(&place.path().join("store"), &list, Driver::Auto, Box::new(answer));
    let mut refused = 0;
    loop {
        let (status, body) = serving.get("image");
        assert!(bytes.starts_with(&body), "no wrong octet");
        if status == 200 && body == bytes {
            break;
        }
        refused += 1;
        assert!(refused < 20, "it comes at last");
    }
    assert!(refused >= 2, "a lie and an absence for each chunk were told as such");
    assert!(serving.metric("bootstorm_rack_fetched_bytes_total{what=\"refused\"}") > 0);
    assert!(serving.metric("bootstorm_rack_wishes_total{outcome=\"mismatch\"}") >= 2);
}

#[test]
fn what_was_fetched_is_served_when_the_origin_is_away() {
    let bytes = noise(300_000);
    let (content, list) = pack("image", &bytes);
    let place = tempfile::tempdir().expect("directory");
    let store = place.path().join("store");
    let whole = Serving::start(&store, &list, Driver::Auto, Box::new(move |wish, _| content.get(&wish).cloned()));
    assert_eq!(whole.get("image"), (200, bytes.clone()));
    drop(whole);
    let alone = Serving::start(&store, &list, Driver::Auto, Box::new(|_, _| None));
    assert_eq!(alone.get("image"), (200, bytes));
    assert_eq!(alone.wished(), []);
}

#[test]
fn it_ends_when_it_is_told_to_while_manifests_are_waited_for() {
    let (_, list) = pack("image", &noise(10));
    let place = tempfile::tempdir().expect("directory");
    let serving = Serving::begin(&place.path().join("store"), &list, Driver::Auto, Box::new(|_, _| None));
    while serving.wished().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(serving);
}
