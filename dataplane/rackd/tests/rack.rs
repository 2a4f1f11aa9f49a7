//! A rack on loopback: real sockets, real files, a scripted gateway at the other end of a socket pair.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bootstorm_api::frame::{self, PREFIX_BYTES};
use bootstorm_api::local::{Answer, Report, Request, ToGateway, ToRack, Wish};
use bootstorm_api::role::{Descriptor, RackConfig, RackInterface};
use bootstorm_content::{Packer, Store};
use bootstorm_proto::tftp::client::{Client, Outcome, Output};
use bootstorm_proto::tftp::wire::{Options, ReadRequest};
use bootstorm_rackd::{Driver, Encoding, Error, ServeOptions, Source, Stop, confine, confine_serve, run, serve};
use bootstorm_snapshot::observation::ReadyResult;
use bootstorm_snapshot::plan::{After, Deploy, DiskSelector, Network, Start};
use bootstorm_snapshot::record::{Answer as BootAnswer, Boot, Environment, File, Record, Site, Unknown};
use bootstorm_snapshot::{
    Architecture, AttemptId, ChunkName, ClaimHash, CredentialHash, Generation, KeyHash, Mac, MachineId, Manifest,
    ManifestDigest, Observed, OperationId, Plan, Stage, Subject, Task, View, codec,
};

const PATIENCE: Duration = Duration::from_secs(10);
const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// Octets that do not compress and differ everywhere.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

/// What control has: manifests and chunks by name.
#[derive(Default, Clone)]
struct Origin {
    manifests: Vec<(ManifestDigest, Vec<u8>)>,
    chunks: Vec<(ChunkName, Vec<u8>)>,
}

impl Origin {
    fn add(&mut self, bytes: &[u8], encoding: Encoding) -> Manifest {
        let chunks = &mut self.chunks;
        let mut sink = |cut: bootstorm_content::Cut<'_>| -> Result<(), bootstorm_content::Error> {
            chunks.push((cut.entry.name, cut.stored.to_vec()));
            Ok(())
        };
        let mut packer = Packer::new(encoding).expect("packer");
        packer.push(bytes, &mut sink).expect("cut");
        let manifest = packer.finish(&mut sink).expect("manifest");
        self.manifests.push((manifest.digest(), manifest.encode()));
        manifest
    }

    fn get(&self, wish: Wish) -> Option<&Vec<u8>> {
        match wish {
            Wish::Chunk { name } => self.chunks.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes),
            Wish::Manifest { digest } => self.manifests.iter().find(|(known, _)| *known == digest).map(|(_, b)| b),
        }
    }
}

struct Site1 {
    origin: Origin,
    kernel: Vec<u8>,
    loader: Vec<u8>,
    image: Manifest,
    view: View,
    operation: OperationId,
    attempt: AttemptId,
    machine: MachineId,
}

fn site() -> Site1 {
    let mut origin = Origin::default();
    let (kernel, initrd, loader) = (noise(700_001, 1), noise(90_000, 2), noise(150_000, 3));
    let file = |origin: &mut Origin, name: &str, bytes: &[u8]| {
        let manifest = origin.add(bytes, Encoding::Plain);
        File {
            name: name.into(),
            manifest: manifest.digest(),
            raw: manifest.header().raw,
            raw_bytes: manifest.header().raw_bytes,
            encoding: Encoding::Plain,
        }
    };
    let environment = Environment {
        architecture: Architecture::Amd64,
        version: "1".into(),
        kernel: file(&mut origin, "kernel", &kernel),
        initrd: file(&mut origin, "initrd", &initrd),
        command_line: vec!["quiet".into()],
        loaders: vec![file(&mut origin, "snponly.efi", &loader)],
    };
    let image = origin.add(&[noise(600_000, 4), vec![0; 600_000]].concat(), Encoding::Zstd);
    let machine: MachineId = "abc123".parse().expect("id");
    let (operation, attempt) = (OperationId::new(1, [1; 10]), AttemptId::new(1, [2; 10]));
    let deploy = Deploy {
        image_name: "debian".into(),
        image: image.header().raw,
        manifest: image.digest(),
        raw_bytes: image.header().raw_bytes,
        encoding: Encoding::Zstd,
        disk: DiskSelector::Smallest,
        grow: false,
        start: Start::Auto,
        network: Network::default(),
        secrets: false,
        ssh_authorized_keys: vec![],
        ready_seconds_max: 600,
    };
    let plan = Plan {
        operation: Some(operation),
        machine: Some(machine),
        hostname: Some("n001".into()),
        task: Task::Deploy(Box::new(deploy)),
        after: After::StartSystem,
    };
    let mut view = View { generation: Generation(3), ..View::default() };
    view.put(Record::Site(Site {
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        unknown: Unknown::Enlist,
        lease_seconds: 3600,
        boot_lease_seconds: 600,
    }));
    view.put(Record::Environment(environment));
    view.put(Record::Plan(operation, plan));
    view.put(Record::Boot(Boot {
        machine,
        hostname: "n001".into(),
        macs: vec![MAC],
        architecture: Some(Architecture::Amd64),
        answer: BootAnswer::Agent { operation, attempt },
    }));
    Site1 { origin, kernel, loader, image, view, operation, attempt, machine }
}

/// A running rack and our end of its gateway's stream.
struct Rack {
    http: SocketAddr,
    tftp: SocketAddr,
    stop: Stop,
    peers: Sender<UnixStream>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Rack {
    fn start(data: &Path, shards: u16) -> Rack {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let tftp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
        let (http_at, tftp_at) = (http.local_addr().expect("address"), tftp.local_addr().expect("address"));
        let interface = RackInterface {
            name: "lo".into(),
            index: 1,
            mac: Mac([0; 6]),
            address: Ipv4Addr::LOCALHOST,
            prefix_bits: 8,
            mtu: 1500,
        };
        let config = RackConfig {
            data: data.to_path_buf(),
            interfaces: vec![interface],
            http_port: http_at.port(),
            agent_port: 5249,
            shards,
            cache_bytes: None,
            driver: Driver::Auto,
            dns: Default::default(),
        };
        let last = shards - 1;
        let descriptors: Vec<(Descriptor, OwnedFd)> = vec![
            (Descriptor::Http { interface: 1, shard: last }, http.into()),
            (Descriptor::Tftp { interface: 1, shard: last }, tftp.into()),
        ];
        let (peers, receiver) = channel();
        let stop = Stop::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let confined = confine(&config.data)?;
            run(config, descriptors, receiver, confined, stopped)
        });
        Rack { http: http_at, tftp: tftp_at, stop, peers, thread: Some(thread) }
    }

    fn gateway(&self) -> Gateway {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("timeout");
        self.peers.send(theirs).expect("rack takes streams");
        Gateway { stream: ours, origin: None, observed: vec![], wished: vec![] }
    }

    fn end(mut self) {
        self.stop.trigger();
        self.thread.take().expect("thread").join().expect("no panic").expect("clean end");
    }
}

/// A gateway that does as it is told.
struct Gateway {
    stream: UnixStream,
    /// Answers wishes from here, if there is one.
    origin: Option<Origin>,
    observed: Vec<(u64, Observed)>,
    wished: Vec<Wish>,
}

impl Gateway {
    fn send(&mut self, message: &ToRack, attachment: &[u8]) {
        self.stream.write_all(&frame::encode(message, attachment).expect("frame")).expect("sent");
    }

    fn read(&mut self) -> ToGateway {
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).expect("a frame in time");
        let (header, attachment) = frame::lengths(prefix).expect("lengths");
        let mut body = vec![0; header + attachment];
        self.stream.read_exact(&mut body).expect("whole");
        frame::decode_body(&body, header).expect("a message").0
    }

    /// Reads until `found`; wishes are answered, observations acknowledged.
    fn until<T>(&mut self, mut found: impl FnMut(&ToGateway) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.read();
            if let ToGateway::Wish { wish } = &message {
                self.wished.push(*wish);
                if let Some(bytes) = self.origin.as_ref().and_then(|origin| origin.get(*wish)).cloned() {
                    let bytes_total = bytes.len() as u64;
                    self.send(&ToRack::Fetched { wish: *wish, offset: 0, bytes_total }, &bytes);
                }
            }
            if let ToGateway::Observations { observations } = &message {
                self.observed.extend(observations.iter().map(|o| (o.sequence, o.observed.clone())));
                if let Some(through) = observations.last().map(|last| last.sequence).filter(|last| *last > 0) {
                    self.send(&ToRack::Acknowledged { through }, &[]);
                }
            }
            if let Some(value) = found(&message) {
                return value;
            }
            assert!(Instant::now() < deadline, "not in time; last was {message:?}");
        }
    }

    fn status(&mut self, wanted: Generation, whole: bool) -> Vec<ManifestDigest> {
        self.until(|message| match message {
            ToGateway::Status { generation, missing } if *generation == wanted && (!whole || missing.is_empty()) => {
                Some(missing.clone())
            }
            _ => None,
        })
    }

    fn snapshot(&mut self, view: &View, from: Option<&View>) {
        let mut text = Vec::new();
        let lines = from.map_or_else(|| view.base(), |from| from.delta(view));
        lines.iter().for_each(|line| codec::encode_line(line, &mut text));
        let message = ToRack::Snapshot {
            generation: view.generation,
            from: from.map(|view| view.generation),
            first: true,
            last: true,
        };
        self.send(&message, &zstd::bulk::compress(&text, 1).expect("compressed"));
    }

    fn ask(&mut self, number: u64, request: Request) -> Answer {
        self.send(&ToRack::Request { number, peer: Ipv4Addr::LOCALHOST.into(), request }, &[]);
        self.until(|message| match message {
            ToGateway::Answer { number: answered, answer } if *answered == number => Some(answer.clone()),
            _ => None,
        })
    }
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Reads one response; `has_body` is false for HEAD.
fn reply(stream: &mut TcpStream, has_body: bool) -> Reply {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("a response in time"), 1, "ended in the head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let status = head[9..12].parse().expect("status");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.filter(|_| has_body).map_or(0, |length| length.parse().expect("length"))];
    stream.read_exact(&mut body).expect("body");
    Reply { status, head, body }
}

fn get(stream: &mut TcpStream, target: &str, fields: &str) -> Reply {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: rack\r\n{fields}\r\n").expect("sent");
    reply(stream, true)
}

fn once(to: SocketAddr, target: &str) -> Reply {
    get(&mut connect(to), target, "Connection: close\r\n")
}

fn tftp(server: SocketAddr, name: &str, options: Options) -> (Vec<u8>, Outcome) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    let begin = Instant::now();
    let mut client = Client::new(begin.elapsed(), server, &ReadRequest { name, options }, Duration::from_secs(1));
    let (mut file, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        while let Some(output) = client.poll_output() {
            match output {
                Output::Send { to, bytes } => drop(socket.send_to(bytes, to).expect("sent")),
                Output::Finished(outcome) => return (file, outcome),
            }
        }
        let due = client.next_timeout().expect("not over").saturating_sub(begin.elapsed());
        socket.set_read_timeout(Some(due.max(Duration::from_millis(1)))).expect("timeout");
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                file.extend_from_slice(client.handle_datagram(begin.elapsed(), from, &buffer[..length]).unwrap_or(&[]));
            }
            Err(_) => client.handle_timeout(begin.elapsed()),
        }
    }
}

/// A rack that has the site, whole.
fn filled(data: &Path, shards: u16, site: &Site1) -> (Rack, Gateway) {
    let rack = Rack::start(data, shards);
    let mut gateway = rack.gateway();
    gateway.origin = Some(site.origin.clone());
    assert_eq!(gateway.read(), ToGateway::Status { generation: Generation(0), missing: vec![] });
    gateway.snapshot(&site.view, None);
    gateway.status(Generation(3), true);
    (rack, gateway)
}

#[test]
fn a_filled_rack_serves_files_streams_and_manifests() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let (rack, _gateway) = filled(directory.path(), 1, &site);
    let mut stream = connect(rack.http);
    let whole = get(&mut stream, "/environment/amd64/kernel", "");
    assert_eq!(whole.status, 200, "{}", whole.head);
    assert!(whole.body == site.kernel && whole.head.contains("Connection: keep-alive"));
    let part = get(&mut stream, "/environment/amd64/kernel", "Range: bytes=262100-524300\r\n");
    assert!(part.status == 206 && part.body == site.kernel[262_100..=524_300], "{}", part.head);
    write!(stream, "HEAD /environment/amd64/kernel HTTP/1.1\r\nHost: rack\r\n\r\n").expect("sent");
    let head = reply(&mut stream, false);
    assert!(head.status == 200 && head.head.contains("Content-Length: 700001\r\n"), "{}", head.head);
    assert_eq!(get(&mut stream, "/environment/amd64/kernel", "Range: bytes=700001-\r\n").status, 416);
    let digest = site.image.digest();
    let manifest = get(&mut stream, &format!("/manifest/{digest}"), "");
    assert_eq!(Manifest::decode(&manifest.body).as_ref(), Ok(&site.image));
    let image: Vec<u8> = site
        .image
        .entries()
        .iter()
        .filter(|entry| !entry.is_hole())
        .flat_map(|entry| site.origin.get(Wish::Chunk { name: entry.name }).expect("chunk").clone())
        .collect();
    let stored = get(&mut stream, &format!("/stream/{digest}"), "Range: bytes=1000-599999\r\n");
    assert!(stored.status == 206 && stored.body == image[1000..600_000]);
    let name = site.image.entries()[0].name;
    assert_eq!(ChunkName::of(&get(&mut stream, &format!("/chunk/{name}"), "").body), name);
    assert_eq!(get(&mut stream, "/ca.cpio", "").status, 200);
    assert_eq!(get(&mut stream, "/healthz", "").body, b"ok\n");
    let metrics = String::from_utf8(get(&mut stream, "/metrics", "").body).expect("text");
    assert!(metrics.contains("bootstorm_rack_snapshot_generation 3"), "{metrics}");
    assert_eq!(get(&mut stream, "/../etc/passwd", "").status, 400);
    assert_eq!(once(rack.http, "/nothing").status, 404);
    let mut stream = connect(rack.http);
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    assert_eq!(reply(&mut stream, true).status, 400, "pipelining");
    assert_eq!(stream.read(&mut [0; 16]).expect("ends"), 0);
    rack.end();
}

#[test]
fn tftp_brings_whole_files_in_windows() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let (rack, _gateway) = filled(directory.path(), 1, &site);
    let wide =
        Options { block_bytes: Some(1468), window_blocks: Some(64), transfer_bytes: Some(0), ..Options::default() };
    for options in [wide, Options::default()] {
        let (file, outcome) = tftp(rack.tftp, "snponly.efi", options);
        assert_eq!(outcome, Outcome::Complete { file_bytes: 150_000 });
        assert!(file == site.loader);
    }
    assert!(matches!(tftp(rack.tftp, "../snponly.efi", wide).1, Outcome::Refused(_)));
    rack.end();
}

/// Claim on the command line of a script.
fn claim(script: &[u8]) -> [u8; 16] {
    let text = String::from_utf8(script.to_vec()).expect("text");
    let at = text.find("bootstorm.claim=").unwrap_or_else(|| panic!("no claim in {text}")) + 16;
    let mut claim = [0; 16];
    for (byte, pair) in claim.iter_mut().zip(text.as_bytes()[at..at + 32].chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    }
    claim
}

#[test]
fn a_machine_goes_its_way_and_a_restart_without_control_keeps_everything() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    // Two shards, and all requests come to the one without the engine.
    let (rack, mut gateway) = filled(directory.path(), 2, &site);
    let script = format!("/boot.ipxe?mac={MAC}");
    let first = once(rack.http, &script);
    assert_eq!(first.status, 200);
    let claim = ClaimHash::of(&claim(&first.body));
    let (key, credential) = (KeyHash::of(b"key"), CredentialHash::of(b"credential"));
    let subject = Subject::Attempt { machine: site.machine, operation: site.operation, attempt: site.attempt };
    match gateway.ask(1, Request::Redeem { claim, key }) {
        Answer::Granted { subject: granted, .. } => assert_eq!(granted, subject),
        other => panic!("{other:?}"),
    }
    let report = |sequence, report| Request::Report { key, sequence, report };
    let detail = String::new();
    let writing = Report::Stage { stage: Stage::Write, progress: None, detail };
    assert_eq!(gateway.ask(2, report(1, writing)), Answer::Done);
    assert_eq!(gateway.ask(3, report(2, Report::Written { credential })), Answer::Done);
    rack.end();

    let rack = Rack::start(directory.path(), 1);
    // No gateway: the answer is from the journal, the file from the store.
    let local = String::from_utf8(once(rack.http, &script).body).expect("text");
    assert!(!local.contains("bootstorm.claim"), "{local}");
    assert!(once(rack.http, "/environment/amd64/kernel").body == site.kernel);
    let mut gateway = rack.gateway();
    gateway.status(Generation(3), true);
    let result = ReadyResult { warnings: vec![], datasource: None };
    assert_eq!(gateway.ask(1, Request::Ready { credential, result }), Answer::Done);
    gateway.until(|message| match message {
        ToGateway::Observations { observations } => {
            observations.iter().any(|o| matches!(o.observed, Observed::Ready { .. })).then_some(())
        }
        _ => None,
    });
    rack.end();
}

#[test]
fn a_delta_from_another_generation_is_answered_with_the_status() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let (rack, mut gateway) = filled(directory.path(), 1, &site);
    let strange = View { generation: Generation(7), ..View::default() };
    let next = View { generation: Generation(8), ..site.view.clone() };
    gateway.snapshot(&next, Some(&strange));
    assert_eq!(gateway.status(Generation(3), false), vec![]);
    gateway.snapshot(&next, Some(&site.view));
    assert_eq!(gateway.status(Generation(8), true), vec![]);
    rack.end();
}

#[test]
fn a_flipped_bit_is_never_served_and_the_chunk_is_fetched_again() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let (rack, _gateway) = filled(directory.path(), 1, &site);
    rack.end();
    let victim = site.origin.chunks[1].clone();
    let mut flipped = false;
    for pack in std::fs::read_dir(directory.path().join("content/packs")).expect("packs") {
        let path = pack.expect("pack").path();
        let mut bytes = std::fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(64).position(|window| window == &victim.1[..64]) {
            bytes[at + 7] ^= 1;
            std::fs::write(&path, bytes).expect("written");
            flipped = true;
        }
    }
    assert!(flipped);
    let rack = Rack::start(directory.path(), 1);
    let mut stream = connect(rack.http);
    // Without a gateway the first quantum goes out, and not one octet of the bad chunk.
    write!(stream, "GET /environment/amd64/kernel HTTP/1.1\r\nHost: rack\r\n\r\n").expect("sent");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("ends");
    let body = got.windows(4).position(|window| window == b"\r\n\r\n").expect("head") + 4;
    assert!(got.len() - body <= 262_144 && site.kernel.starts_with(&got[body..]));
    let part = get(&mut connect(rack.http), "/environment/amd64/kernel", "Range: bytes=262144-262200\r\n");
    assert_eq!(part.status, 503, "{}", part.head);
    let mut gateway = rack.gateway();
    gateway.origin = Some(site.origin.clone());
    gateway.status(Generation(3), true);
    assert!(gateway.wished.contains(&Wish::Chunk { name: victim.0 }));
    assert!(once(rack.http, "/environment/amd64/kernel").body == site.kernel);
    rack.end();
}

#[test]
fn a_request_waits_for_a_chunk_on_its_way() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let rack = Rack::start(directory.path(), 1);
    let mut gateway = rack.gateway();
    let mut lacking = site.origin.clone();
    let victim = lacking.chunks.remove(0);
    gateway.origin = Some(lacking);
    gateway.snapshot(&site.view, None);
    // Everything but the kernel's first chunk, whose wish stays open.
    gateway.until(|message| match message {
        ToGateway::Status { generation: Generation(3), missing } if missing.len() == 1 => Some(()),
        _ => None,
    });
    let mut stream = connect(rack.http);
    write!(stream, "GET /environment/amd64/kernel HTTP/1.1\r\nHost: rack\r\n\r\n").expect("sent");
    let wish = Wish::Chunk { name: victim.0 };
    assert_eq!(gateway.wished.iter().filter(|known| **known == wish).count(), 1);
    gateway.send(&ToRack::Fetched { wish, offset: 0, bytes_total: victim.1.len() as u64 }, &victim.1);
    assert!(reply(&mut stream, true).body == site.kernel);
    rack.end();
}

fn serving(
    directory: &Path,
    store: &Path,
    encoding: Encoding,
) -> (SocketAddr, SocketAddr, Stop, JoinHandle<Result<(), Error>>) {
    serving_by(directory, store, encoding, Driver::Auto)
}

fn serving_by(
    directory: &Path,
    store: &Path,
    encoding: Encoding,
    driver: Driver,
) -> (SocketAddr, SocketAddr, Stop, JoinHandle<Result<(), Error>>) {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
    let tftp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    let (http_at, tftp_at) = (http.local_addr().expect("address"), tftp.local_addr().expect("address"));
    let (source, store) = (Source::Directory { path: directory.to_path_buf(), encoding }, store.to_path_buf());
    let options = ServeOptions { source, http: vec![http], tftp: vec![tftp], store, cache_bytes: None, driver };
    let stop = Stop::new();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let confined = confine_serve(&options)?;
        serve(options, confined, stopped)
    });
    (http_at, tftp_at, stop, thread)
}

#[test]
fn serve_gives_the_files_of_a_directory_by_their_names() {
    let directory = tempfile::tempdir().expect("directory");
    let (files, store) = (directory.path().join("files"), directory.path().join("data/store"));
    std::fs::create_dir_all(files.join("sub")).expect("made");
    let big = [noise(300_000, 5), vec![0; 600_000]].concat();
    std::fs::write(files.join("sub/big file"), &big).expect("written");
    std::fs::write(files.join("empty"), b"").expect("written");
    std::os::unix::fs::symlink("sub/big file", files.join("alias")).expect("linked");
    let small = noise(1_000, 7);
    std::fs::write(files.join("small"), &small).expect("written");
    let middle = noise(50_000, 11);
    std::fs::write(files.join("middle"), &middle).expect("written");
    for driver in [Driver::Uring, Driver::Epoll] {
        let (http, udp, stop, thread) = serving_by(&files, &store, Encoding::Plain, driver);
        let mut stream = connect(http);
        for name in ["/sub/big%20file", "/alias"] {
            let whole = get(&mut stream, name, "");
            assert!(whole.status == 200 && whole.body == big, "{}", whole.head);
        }
        let empty = get(&mut stream, "/empty", "");
        assert!(empty.status == 200 && empty.body.is_empty());
        assert_eq!(get(&mut stream, "/boot.ipxe?mac=52:54:00:00:00:01", "").status, 404);
        // The same request again and again is answered from what was answered before, whatever the connection.
        for _ in 0..3 {
            let (kept, closed) = (get(&mut stream, "/small", ""), once(http, "/small"));
            assert!(kept.status == 200 && kept.body == small && kept.head.contains("keep-alive"), "{}", kept.head);
            assert!(closed.status == 200 && closed.body == small && closed.head.contains("close"), "{}", closed.head);
            assert!(kept.head.contains("Content-Length: 1000\r\n") && kept.head.contains("Date: "), "{}", kept.head);
            // Long enough to be sent by reference.
            let (kept, closed) = (get(&mut stream, "/middle", ""), once(http, "/middle"));
            assert!(kept.status == 200 && kept.body == middle, "{}", kept.head);
            assert!(closed.status == 200 && closed.body == middle, "{}", closed.head);
        }
        let part = get(&mut stream, "/small", "Range: bytes=10-19\r\n");
        assert!(part.status == 206 && part.body == small[10..20], "{}", part.head);
        let options = Options { block_bytes: Some(1_468), window_blocks: Some(16), ..Options::default() };
        for options in [options, Options::default()] {
            let (file, outcome) = tftp(udp, "alias", options);
            assert!(file == big, "{outcome:?}");
        }
        let metrics = String::from_utf8(once(http, "/metrics").body).expect("text");
        let name = if driver == Driver::Epoll { "epoll" } else { "ring" };
        assert!(metrics.contains(&format!("bootstorm_rack_shards{{driver=\"{name}\"}} 1")), "{metrics}");
        stop.trigger();
        thread.join().expect("no panic").expect("clean end");
    }

    let (http, _, stop, thread) = serving(&files, &store, Encoding::Zstd);
    let packed = once(http, "/alias.zst");
    assert_eq!(packed.status, 200);
    assert!(zstd::stream::decode_all(&packed.body[..]).expect("frames") == big);
    assert_eq!(once(http, "/alias").status, 404);
    stop.trigger();
    thread.join().expect("no panic").expect("clean end");

    std::os::unix::fs::symlink("/etc/hostname", files.join("outside")).expect("linked");
    let (_, _, _, thread) = serving(&files, &store, Encoding::Plain);
    assert!(matches!(thread.join().expect("no panic"), Err(Error::Import { .. } | Error::File { .. })));
    // The store was let go.
    drop(Store::open(&store).expect("free"));
}

/// Value of a line of `/metrics`.
fn metric(text: &str, line: &str) -> u64 {
    let value =
        text.lines().find_map(|known| known.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
    value.trim().parse().expect("a number")
}

#[test]
fn many_cold_readers_cost_one_read_of_each_chunk() {
    const READERS: usize = 200;
    let directory = tempfile::tempdir().expect("directory");
    let (files, store) = (directory.path().join("files"), directory.path().join("store"));
    std::fs::create_dir_all(&files).expect("made");
    let big = noise(900_000, 6);
    std::fs::write(files.join("big"), &big).expect("written");
    let (http, _, stop, thread) = serving(&files, &store, Encoding::Plain);
    let mut streams: Vec<TcpStream> = (0..READERS).map(|_| connect(http)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: rack\r\n\r\n").expect("sent");
    }
    for stream in &mut streams {
        assert!(reply(stream, true).body == big);
    }
    let metrics = String::from_utf8(once(http, "/metrics").body).expect("text");
    assert_eq!(metric(&metrics, "bootstorm_rack_cache_events_total{what=\"loaded\"}"), 4);
    assert_eq!(metric(&metrics, "bootstorm_rack_cache_events_total{what=\"loaded_bytes\"}"), 900_000);
    stop.trigger();
    thread.join().expect("no panic").expect("clean end");
}

#[test]
fn rot_is_found_before_anybody_asks() {
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    let (rack, _gateway) = filled(directory.path(), 1, &site);
    rack.end();
    let victim = site.origin.chunks[1].clone();
    for pack in std::fs::read_dir(directory.path().join("content/packs")).expect("packs") {
        let path = pack.expect("pack").path();
        let mut bytes = std::fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(64).position(|window| window == &victim.1[..64]) {
            bytes[at + 7] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
    }
    let rack = Rack::start(directory.path(), 1);
    let mut gateway = rack.gateway();
    gateway.origin = Some(site.origin.clone());
    // Nobody but the scrub reads, and it goes over everything when the rack starts.
    let wanted = Wish::Chunk { name: victim.0 };
    gateway.until(|message| matches!(message, ToGateway::Wish { wish } if *wish == wanted).then_some(()));
    gateway.status(Generation(3), true);
    let metrics = String::from_utf8(once(rack.http, "/metrics").body).expect("text");
    assert!(metrics.contains("bootstorm_rack_content_scrubbed_total{what=\"rotten\"} 1"), "{metrics}");
    rack.end();
}

/// Runs this test once more in a mount namespace of its own, where it may put a small disk below a rack; true in there.
fn with_mounts(test: &str) -> bool {
    const INSIDE: &str = "BOOTSTORM_TEST_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("a path");
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "--"]).arg(own).args(["--exact", test, "--nocapture"]);
    let output = unshare.env(INSIDE, "1").output().expect("unshare runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    false
}

fn mount(what: &[&str], at: &Path) {
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(what).arg(at).status().expect("mount runs").success(), "{what:?}");
}

/// A rack whose content is on a disk of this size.
fn rack_on(data: &Path, size: &str) -> Rack {
    let content = data.join("content");
    std::fs::create_dir_all(&content).expect("made");
    mount(&["-t", "tmpfs", "-o", size, "tmpfs"], &content);
    Rack::start(data, 1)
}

impl Gateway {
    /// Answers wishes until `over`.
    fn answer_until(&mut self, over: impl Fn() -> bool) {
        let begin = Instant::now();
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        while !over() {
            assert!(begin.elapsed() < PATIENCE * 3, "not in time");
            let mut prefix = [0; PREFIX_BYTES];
            // A frame is written whole: without its beginning there is nothing of it.
            if self.stream.read_exact(&mut prefix).is_err() {
                continue;
            }
            let (header, attachment) = frame::lengths(prefix).expect("lengths");
            let mut body = vec![0; header + attachment];
            self.stream.read_exact(&mut body).expect("whole");
            let message: ToGateway = frame::decode_body(&body, header).expect("a message").0;
            if let ToGateway::Wish { wish } = message
                && let Some(bytes) = self.origin.as_ref().and_then(|origin| origin.get(wish)).cloned()
            {
                self.send(&ToRack::Fetched { wish, offset: 0, bytes_total: bytes.len() as u64 }, &bytes);
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    }
}

#[test]
fn t22_a_full_disk_passes_content_on_and_says_so() {
    if !with_mounts("t22_a_full_disk_passes_content_on_and_says_so") {
        return;
    }
    let (directory, site) = (tempfile::tempdir().expect("directory"), site());
    // Manifests have room, the kernel's chunks have not.
    let rack = rack_on(directory.path(), "size=256k");
    let mut gateway = rack.gateway();
    gateway.origin = Some(site.origin.clone());
    gateway.snapshot(&site.view, None);
    let http = rack.http;
    let client = std::thread::spawn(move || {
        let begin = Instant::now();
        loop {
            let mut stream = connect(http);
            let fields = "Host: rack\r\nConnection: close\r\n";
            write!(stream, "GET /environment/amd64/kernel HTTP/1.1\r\n{fields}\r\n").expect("sent");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("ends");
            let body = got.windows(4).position(|window| window == b"\r\n\r\n").map(|at| got.split_off(at + 4));
            if let Some(body) = body.filter(|body| body.len() == 700_001) {
                return body;
            }
            assert!(begin.elapsed() < PATIENCE * 2, "a full disk keeps content from being passed on");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    gateway.answer_until(|| client.is_finished());
    assert!(client.join().expect("no panic") == site.kernel);
    let metrics = String::from_utf8(once(http, "/metrics").body).expect("text");
    assert!(metrics.contains("bootstorm_rack_content_full 1\n"), "{metrics}");
    assert!(metrics.contains("outcome=\"passed_on\""), "{metrics}");
    // With room again all is kept, and the alarm ends.
    mount(&["-o", "remount,size=64m"], &directory.path().join("content"));
    gateway.send(&ToRack::Control { connected: true }, &[]);
    gateway.status(Generation(3), true);
    let metrics = String::from_utf8(once(http, "/metrics").body).expect("text");
    assert!(metrics.contains("bootstorm_rack_content_full 0\n"), "{metrics}");
    rack.end();
}

#[test]
fn content_that_nothing_names_gives_way() {
    if !with_mounts("content_that_nothing_names_gives_way") {
        return;
    }
    let (directory, mut site) = (tempfile::tempdir().expect("directory"), site());
    // The first generation has room, and so has the second: but not both.
    let rack = rack_on(directory.path(), "size=2m");
    let mut gateway = rack.gateway();
    gateway.origin = Some(site.origin.clone());
    gateway.snapshot(&site.view, None);
    gateway.status(Generation(3), true);
    let kernel = noise(900_000, 9);
    let manifest = site.origin.add(&kernel, Encoding::Plain);
    let mut next = View { generation: Generation(4), ..View::default() };
    for record in site.view.records() {
        match record {
            Record::Environment(mut environment) => {
                environment.kernel.manifest = manifest.digest();
                environment.kernel.raw = manifest.header().raw;
                environment.kernel.raw_bytes = manifest.header().raw_bytes;
                next.put(Record::Environment(environment));
            }
            record @ Record::Site(_) => next.put(record),
            _ => {}
        }
    }
    gateway.origin = Some(site.origin.clone());
    gateway.snapshot(&next, Some(&site.view));
    gateway.status(Generation(4), true);
    assert!(once(rack.http, "/environment/amd64/kernel").body == kernel);
    let metrics = String::from_utf8(once(rack.http, "/metrics").body).expect("text");
    assert!(metrics.contains("bootstorm_rack_content_evicted_total{what=\"bytes\"}"), "{metrics}");
    rack.end();
}
