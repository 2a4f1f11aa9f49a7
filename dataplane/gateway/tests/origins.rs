//! Origins that are honest, slow, broken and false, and what a rack's wish gets from them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bootstorm_api::local::{ToGateway, ToRack, Wish};
use bootstorm_api::{frame, limits};
use bootstorm_gateway::origins::{Credentials, Origins};
use bootstorm_gateway::run_fetcher;
use bootstorm_snapshot::{ChunkName, ManifestDigest};

/// What a server of the test does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Sends half and then nothing, with the connection open.
    Stalls,
    /// Sends half and closes, each time.
    Breaks,
    /// Sends something of the right length.
    Lies,
    /// Has nothing.
    Empty,
    /// Redirects to a place that nobody named.
    Redirects,
    /// Announces more than anything of the kind has.
    Floods,
}

/// A web server with these files; counts requests and the octets of bodies that left it.
struct Server {
    at: SocketAddr,
    requests: Arc<AtomicUsize>,
    body_bytes: Arc<AtomicUsize>,
}

impl Server {
    fn start(manner: Manner, files: &HashMap<String, Vec<u8>>) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let at = listener.local_addr().expect("address");
        let (requests, body_bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (files, counters) = (Arc::new(files.clone()), (requests.clone(), body_bytes.clone()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, counters) = (files.clone(), counters.clone());
                std::thread::spawn(move || while answer(&stream, manner, &files, &counters).is_some() {});
            }
        });
        Server { at, requests, body_bytes }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.at)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers one request; `None` when the connection is over.
fn answer(
    mut stream: &TcpStream,
    manner: Manner,
    files: &HashMap<String, Vec<u8>>,
    (requests, body_bytes): &(Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let path = head.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let file = files.get(&path).filter(|_| manner != Manner::Empty);
    let Some(file) = file else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let (start, status) = match range {
        Some(start) => {
            (start, format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", file.len() - 1, file.len()))
        }
        None => (0usize, "200 OK".to_owned()),
    };
    let mut body = file[start..].to_vec();
    let (mut length, mut sent) = (body.len(), body.len());
    match manner {
        Manner::Honest | Manner::Empty => {}
        Manner::Stalls | Manner::Breaks => sent = body.len().div_ceil(2),
        Manner::Lies => body.iter_mut().for_each(|byte| *byte ^= 1),
        Manner::Floods => length = 1 << 40,
        Manner::Redirects => {
            let away = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(away).ok();
        }
    }
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").as_bytes()).ok()?;
    stream.write_all(&body[..sent]).ok()?;
    body_bytes.fetch_add(sent, Ordering::SeqCst);
    match manner {
        // Until the other side has had enough.
        Manner::Stalls => drop(stream.read(&mut [0])),
        Manner::Breaks if sent < body.len() => {}
        Manner::Floods => {}
        _ => return Some(()),
    }
    stream.shutdown(std::net::Shutdown::Both).ok()?;
    None
}

struct Content {
    files: HashMap<String, Vec<u8>>,
    chunks: Vec<(Wish, Vec<u8>)>,
    manifest: (Wish, Vec<u8>),
}

fn content() -> Content {
    let noise = |seed: u8, length: usize| {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    };
    let chunks: Vec<Vec<u8>> = (0..8).map(|seed| noise(seed, 200_000 + usize::from(seed))).collect();
    // Not a real manifest: whoever fetches looks at its hash only. Longer than a frame.
    let manifest = noise(99, limits::FRAME_BLOB_BYTES_MAX * 2 + 17);
    let mut files: HashMap<String, Vec<u8>> =
        chunks.iter().map(|bytes| (format!("chunk/{}", ChunkName::of(bytes)), bytes.clone())).collect();
    let digest = ManifestDigest::of(&manifest);
    files.insert(format!("manifest/{digest}"), manifest.clone());
    files.insert("manifest/files".to_owned(), b"{}\n".to_vec());
    let wish = |bytes: &[u8]| Wish::Chunk { name: ChunkName::of(bytes) };
    let chunks = chunks.into_iter().map(|bytes| (wish(&bytes), bytes)).collect();
    Content { files, chunks, manifest: (Wish::Manifest { digest }, manifest) }
}

fn origins(list: &[String], credentials: Option<&Credentials>) -> Origins {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parsed = list.iter().map(|text| text.parse().expect("an origin")).collect();
    Origins::new(parsed, credentials).expect("prepared")
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

#[test]
fn an_honest_origin_gives_chunks_manifests_and_the_list() {
    let content = content();
    let server = Server::start(Manner::Honest, &content.files);
    let origins = origins(&[server.origin()], None);
    run(async {
        for (wish, bytes) in content.chunks.iter().chain([&content.manifest]) {
            assert!(origins.fetch(*wish).await.as_ref() == Ok(bytes));
        }
        assert_eq!(origins.files().await, Ok(b"{}\n".to_vec()));
        let told = origins.fetch(Wish::Chunk { name: ChunkName::of(b"unknown") }).await.unwrap_err();
        assert!(told.contains("not there"), "{told}");
        // Absence is no fault: it is asked again at once.
        assert!(origins.fetch(content.chunks[0].0).await.is_ok());
    });
}

/// T5: a mirror that tampers or stalls is left for another, within the same wish.
#[test]
fn t5_an_origin_that_stalls_lies_floods_or_sends_elsewhere_is_left_for_another() {
    let content = content();
    for manner in [Manner::Lies, Manner::Stalls, Manner::Floods, Manner::Redirects, Manner::Empty] {
        let (bad, good) = (Server::start(manner, &content.files), Server::start(Manner::Honest, &content.files));
        let origins = origins(&[bad.origin(), good.origin()], None);
        let begun = Instant::now();
        run(async {
            for (wish, bytes) in &content.chunks {
                assert!(origins.fetch(*wish).await.as_ref() == Ok(bytes), "{manner:?}");
            }
        });
        assert_eq!(good.requests(), content.chunks.len(), "{manner:?}");
        if manner == Manner::Empty {
            assert_eq!(bad.requests(), content.chunks.len(), "what merely lacks something is asked for the next thing");
        } else {
            // Left alone while it rests; what is fetched meanwhile does not wait for it.
            let rests = 1 + begun.elapsed().as_secs() as usize;
            assert!(bad.requests() <= rests, "{manner:?}: {} requests", bad.requests());
        }
    }
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let content = content();
    let server = Server::start(Manner::Breaks, &content.files);
    let origins = origins(&[server.origin()], None);
    let (wish, bytes) = &content.chunks[0];
    // Each attempt brings half of what is lacking, so eight resumptions are not enough for 200,000 octets …
    let told = run(origins.fetch(*wish)).unwrap_err();
    assert!(!told.is_empty());
    let sent = server.body_bytes.load(Ordering::SeqCst);
    assert!(server.requests() > 5 && sent < bytes.len(), "{sent} octets in {} requests", server.requests());
    // … but for a short one they are.
    let short = vec![7; 100];
    let files = HashMap::from([(format!("chunk/{}", ChunkName::of(&short)), short.clone())]);
    let server = Server::start(Manner::Breaks, &files);
    let origins = self::origins(&[server.origin()], None);
    assert_eq!(run(origins.fetch(Wish::Chunk { name: ChunkName::of(&short) })), Ok(short.clone()));
    assert_eq!(server.body_bytes.load(Ordering::SeqCst), short.len(), "no octet twice");
}

#[test]
fn a_directory_is_an_origin_too() {
    let content = content();
    let place = tempfile::tempdir().expect("directory");
    write_all(place.path(), &content.files);
    let origins = origins(&[format!("dir:{}", place.path().display())], None);
    run(async {
        for (wish, bytes) in content.chunks.iter().chain([&content.manifest]) {
            assert!(origins.fetch(*wish).await.as_ref() == Ok(bytes));
        }
        let (wish, bytes) = &content.chunks[3];
        let path = place.path().join(format!("chunk/{}", ChunkName::of(bytes)));
        std::fs::write(path, b"rotten").expect("written");
        assert!(origins.fetch(*wish).await.unwrap_err().contains("does not match"));
    });
}

fn write_all(root: &Path, files: &HashMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
}

/// moto (PyPI) is the store; `make setup` installs it.
#[test]
fn a_bucket_is_an_origin_too() {
    let content = content();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("address").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.lab/moto/bin/moto_server");
    let mut moto = std::process::Command::new(if Path::new(own).exists() { own } else { "moto_server" });
    moto.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    moto.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _moto = Ended(moto.spawn().expect("moto_server runs; `make setup` installs it"));
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "moto does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let credentials =
        Credentials { access_key: "testing".into(), secret_key: String::from("testing").into(), session_token: None };
    let origins = origins(&[format!("s3://images/of/racks?endpoint={endpoint}")], Some(&credentials));
    run(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let put = async |path: String, body: Vec<u8>| {
            let reply = client.put(format!("{endpoint}/{path}")).body(body).send().await.expect("sent");
            assert!(reply.status().is_success(), "{path}: {}", reply.status());
        };
        put("images".to_owned(), Vec::new()).await;
        for (name, bytes) in &content.files {
            put(format!("images/of/racks/{name}"), bytes.clone()).await;
        }
        for (wish, bytes) in content.chunks.iter().chain([&content.manifest]) {
            assert!(origins.fetch(*wish).await.as_ref() == Ok(bytes));
        }
        let told = origins.fetch(Wish::Chunk { name: ChunkName::of(b"unknown") }).await.unwrap_err();
        assert!(told.contains("not there"), "{told}");
    });
}

struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn wishes_come_true_over_the_rack_s_stream() {
    let content = content();
    let server = Server::start(Manner::Honest, &content.files);
    let origins = origins(&[server.origin()], None);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    let fetcher = std::thread::spawn(move || run(run_fetcher(origins, theirs)));
    let (mut writer, mut reader) = (&ours, &ours);
    let unknown = Wish::Chunk { name: ChunkName::of(b"unknown") };
    for wish in content.chunks.iter().map(|(wish, _)| *wish).chain([content.manifest.0, unknown]) {
        writer.write_all(&frame::encode(&ToGateway::Wish { wish }, &[]).expect("frame")).expect("written");
    }
    let mut got: HashMap<Wish, Vec<u8>> = HashMap::new();
    let mut missing = None;
    let whole = |got: &HashMap<Wish, Vec<u8>>| {
        content.chunks.iter().chain([&content.manifest]).all(|(wish, bytes)| got.get(wish) == Some(bytes))
    };
    while !(whole(&got) && missing.is_some()) {
        let mut prefix = [0; frame::PREFIX_BYTES];
        reader.read_exact(&mut prefix).expect("prefix");
        let (header, attachment) = frame::lengths(prefix).expect("lengths");
        let mut body = vec![0; header + attachment];
        reader.read_exact(&mut body).expect("body");
        match frame::decode_body::<ToRack>(&body, header).expect("message") {
            (ToRack::Fetched { wish, offset, .. }, bytes) => {
                let known = got.entry(wish).or_default();
                assert_eq!(known.len() as u64, offset, "parts come in order");
                known.extend(bytes);
            }
            (ToRack::NotFetched { wish, .. }, _) => missing = Some(wish),
            (other, _) => panic!("{other:?}"),
        }
    }
    assert_eq!(missing, Some(unknown));
    drop(ours);
    fetcher.join().expect("no panic").expect("a clean end");
}
