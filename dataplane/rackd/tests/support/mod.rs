//! What the tests of bad input and faults share: a directory served on loopback, a rack without content, plain clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bootstorm_api::role::{Descriptor, RackConfig, RackDns, RackInterface};
use bootstorm_rackd::{Driver, Encoding, Error, ServeOptions, Source, Stop, confine, confine_serve, run, serve};
use bootstorm_snapshot::Mac;

/// How long anything that must happen may take before a test says that it does not.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A role on loopback that ends with this value.
pub struct Role {
    pub http: SocketAddr,
    pub tftp: SocketAddr,
    /// A rack's only.
    pub dns: Option<SocketAddr>,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
    /// A rack's way to its gateway.
    peers: Option<Sender<UnixStream>>,
}

impl Role {
    /// `bootstorm serve` of a directory, with one shard.
    pub fn serve(directory: &Path, store: &Path) -> Role {
        let (http, tftp, http_at, tftp_at) = sockets();
        let options = ServeOptions {
            source: Source::Directory { path: directory.to_path_buf(), encoding: Encoding::Plain },
            http: vec![http],
            tftp: vec![tftp],
            store: store.to_path_buf(),
            cache_bytes: None,
            driver: Driver::Auto,
        };
        let stop = Stop::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let confined = confine_serve(&options)?;
            serve(options, confined, stopped)
        });
        Role { http: http_at, tftp: tftp_at, dns: None, stop, thread: Some(thread), peers: None }
    }

    /// The rack role with one shard, the limits of production (but that of DNS for its own clients) and nothing to serve but its own health.
    pub fn rack(data: &Path) -> Role {
        Role::rack_by(data, Driver::Auto)
    }

    /// The same with this driver.
    pub fn rack_by(data: &Path, driver: Driver) -> Role {
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
        let dns_at = dns.local_addr().expect("address");
        let (http, tftp, http_at, tftp_at) = sockets();
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
            shards: 1,
            cache_bytes: None,
            driver,
            // A test asks as fast as it can; strangers have the limits of production.
            dns: RackDns { client_answers: u32::MAX, ..RackDns::default() },
        };
        let descriptors: Vec<(Descriptor, OwnedFd)> = vec![
            (Descriptor::Http { interface: 1, shard: 0 }, http.into()),
            (Descriptor::Tftp { interface: 1, shard: 0 }, tftp.into()),
            (Descriptor::Dns { interface: 1, shard: 0 }, dns.into()),
        ];
        let (peers, receiver) = channel();
        let stop = Stop::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let confined = confine(&config.data)?;
            run(config, descriptors, receiver, confined, stopped)
        });
        Role { http: http_at, tftp: tftp_at, dns: Some(dns_at), stop, thread: Some(thread), peers: Some(peers) }
    }

    /// Our end of a rack's new stream to its gateway.
    pub fn gateway(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        self.peers.as_ref().expect("a rack").send(theirs).expect("rack takes streams");
        ours
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        String::from_utf8(get(self.http, "/metrics").body).expect("text")
    }

    /// Waits until a line of `/metrics` has at least this value.
    pub fn until(&self, name: &str, value: u64) {
        let begin = Instant::now();
        while self.metric(name) < value {
            assert!(begin.elapsed() < PATIENCE, "{name} is not {value}:\n{}", self.metrics());
            std::thread::sleep(POLL);
        }
    }

    /// Waits until connections are taken: `serve` listens when all is imported.
    pub fn until_it_listens(&self) {
        let begin = Instant::now();
        while TcpStream::connect(self.http).is_err() {
            assert!(begin.elapsed() < PATIENCE, "nothing is served");
            std::thread::sleep(POLL);
        }
    }

    /// The value of one line of `/metrics`, 0 if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.stop.trigger();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic").expect("a clean end");
        }
    }
}

fn sockets() -> (TcpListener, UdpSocket, SocketAddr, SocketAddr) {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
    let tftp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    let (http_at, tftp_at) = (http.local_addr().expect("address"), tftp.local_addr().expect("address"));
    (http, tftp, http_at, tftp_at)
}

/// A response, read to its length or to the connection's end.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A connection from any address of loopback.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("bound");
    socket.connect(&to.into()).expect("connected");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

pub fn connect(to: SocketAddr) -> TcpStream {
    connect_from(Ipv4Addr::LOCALHOST, to)
}

/// One request on a connection of its own.
pub fn get(to: SocketAddr, target: &str) -> Reply {
    get_from(Ipv4Addr::LOCALHOST, to, target).expect("a response")
}

/// The same from any address of loopback; `None` if the connection ends without a response.
pub fn get_from(source: Ipv4Addr, to: SocketAddr, target: &str) -> Option<Reply> {
    exchange(source, to, format!("GET {target} HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends octets, ends our half and reads the first response; `None` if there is none. What follows the response is in its body.
pub fn exchange(source: Ipv4Addr, to: SocketAddr, octets: &[u8]) -> Option<Reply> {
    let mut stream = connect_from(source, to);
    // The other side may have closed before it has read all.
    let _ = stream.write_all(octets);
    let mut got = Vec::new();
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => got.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {} octets of an answer to {}", got.len(), octets.escape_ascii()),
        }
    }
    let end = got.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(got[..end].to_vec()).expect("text");
    Some(Reply { status: head[9..12].parse().expect("status"), head, body: got.split_off(end) })
}

/// splitmix64: the seed is in the test, so a failure comes again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn one_of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}
