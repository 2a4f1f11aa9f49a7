//! TFTP beside atftpd, rs-tftpd, dnsmasq and tftpd-hpa: so many clients at once, each with one whole file.
//!
//! The servers have processor 0, the client processor 1. Files are read whole, because a transfer that is abandoned goes
//! on costing the server. A unit of work is one octet of a file that arrived.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bootstorm_proto::tftp::client::{Client, Outcome, Output};
use bootstorm_proto::tftp::wire::{Options as Wanted, ReadRequest};
use bootstorm_tests::lab::Error;

use crate::case::{Absent, Goal, Measure, Sample};
use crate::cgroup::Group;
use crate::client::Taken;
use crate::limits;
use crate::pairs::{Options, Time, interleaved};
use crate::server::{Server, confined, free_address};
use crate::suite::{Failed, Suite};

const SERVER_PROCESSOR: usize = 0;
const CLIENT_PROCESSOR: usize = 1;
/// dnsmasq has no option for TFTP's port; this address is for it alone.
const DNSMASQ: ([u8; 4], u16) = ([127, 0, 0, 69], 69);
/// A file of a few octets, to see that a server answers.
const PROBE: &str = "probe";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Atftpd,
    RsTftpd,
    Dnsmasq,
    TftpdHpa,
}

struct Case {
    name: &'static str,
    peer: Peer,
    goal: Goal,
    /// Name and octets of the file.
    file: (&'static str, u64),
    clients: u32,
    window_blocks: u16,
}

const MIB: u64 = 1 << 20;

const CASES: [Case; 6] = [
    w64("tftp-w64-1", 1, ("128m", 128 * MIB)),
    w64("tftp-w64-100", 100, ("2m", 2 * MIB)),
    w64("tftp-w64-1000", 1000, ("256k", MIB / 4)),
    Case {
        name: "tftp-w16-200x1m",
        peer: Peer::RsTftpd,
        goal: Goal::AtMost(0.35),
        file: ("1m", MIB),
        clients: 200,
        window_blocks: 16,
    },
    w1(Peer::Dnsmasq, 0.80),
    w1(Peer::TftpdHpa, 0.30),
];

const fn w64(name: &'static str, clients: u32, file: (&'static str, u64)) -> Case {
    Case { name, peer: Peer::Atftpd, goal: Goal::AtMost(0.22), file, clients, window_blocks: 64 }
}

const fn w1(peer: Peer, goal: f64) -> Case {
    let file = ("1m", MIB);
    Case { name: "tftp-w1-200x1m", peer, goal: Goal::AtMost(goal), file, clients: 200, window_blocks: 1 }
}

/// Our sender's bursts into a device that drops them, with and without copying, need a send without a copy.
const ABSENT: [Absent; 1] = [Absent { case: "tftp-sink-zerocopy", reason: "the-driver-has-no-zero-copy-send-yet" }];

impl Peer {
    fn word(self) -> &'static str {
        match self {
            Self::Atftpd => "atftpd-w64",
            Self::RsTftpd => "rs-tftpd-w16",
            Self::Dnsmasq => "dnsmasq",
            Self::TftpdHpa => "tftpd-hpa",
        }
    }

    /// In the foreground, and with room for as many clients as there are.
    fn start(self, place: &Path, files: &Path) -> Result<Server, Error> {
        let address = match self {
            Self::Dnsmasq => SocketAddr::from(DNSMASQ),
            Self::Atftpd | Self::RsTftpd | Self::TftpdHpa => free_address()?,
        };
        let (ip, port, files) = (address.ip(), address.port(), files.display());
        let (program, line) = match self {
            Self::Atftpd => (
                unpacked("usr/sbin/atftpd"),
                format!(
                    "--daemon --no-fork --user root --group root --maxthread 4000 --bind-address {ip} --port {port} {files}"
                ),
            ),
            Self::RsTftpd => (
                unpacked("bin/tftpd"),
                format!("--quiet --read-only --ip-address {ip} --port {port} --directory {files}"),
            ),
            Self::Dnsmasq => (
                PathBuf::from("dnsmasq"),
                format!(
                    "--keep-in-foreground --conf-file=/dev/null --port=0 --enable-tftp --tftp-root={files} --tftp-max=4000 \
                     --bind-interfaces --listen-address={ip} --user=root --pid-file="
                ),
            ),
            Self::TftpdHpa => (
                unpacked("usr/sbin/in.tftpd"),
                format!("--listen --foreground --user root --address {address} --secure {files}"),
            ),
        };
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let log = place.join(format!("{}.log", self.word()));
        Server::start(self.word(), (&program, &arguments), SERVER_PROCESSOR, address, &log, answers)
    }
}

/// A program that `bench/setup.sh` only unpacked, because its package shuts another one out, or built.
fn unpacked(path: &str) -> PathBuf {
    Path::new(".lab/peers").join(path)
}

/// Runs the suite, prints its lines as they come and writes its record.
///
/// # Errors
/// When a server or client does not do its work; nothing is recorded then.
pub fn run(options: &Options) -> Result<(), Failed> {
    let each = limits::TFTP_CASE * u32::try_from(options.rounds()).unwrap_or(u32::MAX);
    let cases = CASES.iter().map(|case| (case.name, each));
    let plan: Vec<_> = cases.chain(ABSENT.iter().map(|absent| (absent.case, Duration::ZERO))).collect();
    let mut suite = Suite::begin("tftp", options, &plan)?;
    let outcome = run_cases(&mut suite, options);
    suite.end(outcome)
}

fn run_cases(suite: &mut Suite<'_>, options: &Options) -> Result<(), Error> {
    let place = tempfile::tempdir().map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
    let place = place.path();
    let files = place.join("files");
    write_files(&files)?;
    suite.version_of(&options.bootstorm, &["--version"]);
    suite.version_of(&unpacked("usr/sbin/atftpd"), &["--version"]);
    suite.version_of(&unpacked("usr/sbin/in.tftpd"), &["--version"]);
    suite.version_of(&unpacked("bin/tftpd"), &["--version"]);
    suite.version_of(Path::new("dnsmasq"), &["--version"]);

    let ours = ours(options, place, &files)?;
    for case in &CASES {
        if !suite.takes(case.name) {
            continue;
        }
        if case.peer == Peer::RsTftpd && !unpacked("bin/tftpd").exists() {
            suite.absent(case.name, "rs-tftpd-cannot-be-built-here");
            continue;
        }
        let peer = case.peer.start(place, &files)?;
        let load = |server: &Server, time| {
            let clients = match time {
                Time::Warm => 1,
                Time::Measured if options.quick => case.clients.div_ceil(4),
                Time::Measured => case.clients,
            };
            load(options, case, server, clients)
        };
        for comparison in interleaved(case.name, &ours, &[(case.peer.word(), &peer)], options.rounds(), load)? {
            suite.measured(comparison, &[(Measure::ServerCpu, case.goal)])?;
        }
    }
    for absent in ABSENT {
        if suite.takes(absent.case) {
            suite.absent(absent.case, absent.reason);
        }
    }
    Ok(())
}

fn ours(options: &Options, place: &Path, files: &Path) -> Result<Server, Error> {
    let address = free_address()?;
    let words = ["serve", &files.display().to_string(), "--tftp", &address.to_string(), "--workers", "1", "--data"];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.push(place.join("store").display().to_string());
    let log = place.join("bootstorm.log");
    Server::start("bootstorm", (&options.bootstorm, &arguments), SERVER_PROCESSOR, address, &log, answers)
}

fn write_files(directory: &Path) -> Result<(), Error> {
    let write = || {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(PROBE), "here")?;
        let random = File::open("/dev/urandom")?;
        for (name, bytes) in CASES.map(|case| case.file) {
            let path = directory.join(name);
            if !path.exists() {
                io::copy(&mut (&random).take(bytes), &mut File::create(path)?)?;
            }
        }
        Ok(())
    };
    write().map_err(|source| Error::File { path: directory.to_owned(), source })
}

/// Whether the probe's file comes, within a moment.
fn answers(server: SocketAddr) -> bool {
    let probe = || -> io::Result<bool> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.set_read_timeout(Some(limits::PROBE))?;
        let begin = Instant::now();
        let request = ReadRequest { name: PROBE, options: Wanted::default() };
        let mut client = Client::new(begin.elapsed(), server, &request, limits::PROBE);
        let mut buffer = [0; 1024];
        loop {
            while let Some(output) = client.poll_output() {
                match output {
                    Output::Send { to, bytes } => drop(socket.send_to(bytes, to)?),
                    Output::Finished(outcome) => return Ok(matches!(outcome, Outcome::Complete { .. })),
                }
            }
            let (length, from) = socket.recv_from(&mut buffer)?;
            let _octets = client.handle_datagram(begin.elapsed(), from, &buffer[..length]);
        }
    };
    probe().unwrap_or(false)
}

fn load(options: &Options, case: &Case, server: &Server, clients: u32) -> Result<Sample, Error> {
    let group = Group::new("client")?;
    let before = server.cpu_seconds()?;
    let mut client = confined(&group, CLIENT_PROCESSOR, &options.bench);
    client.args(["client-tftp", &server.address.to_string(), case.file.0]);
    client.args(["--clients", &clients.to_string(), "--window", &case.window_blocks.to_string()]);
    let taken = Taken::by(&mut client)?;
    Ok(Sample {
        units: taken.bytes as f64,
        seconds: taken.seconds,
        server_cpu_seconds: server.cpu_seconds()? - before,
        client_cpu_seconds: group.cpu_seconds()?,
        ..Sample::default()
    })
}

/// Fetches `name` so many times at once, and throws the octets away.
///
/// # Errors
/// When one of the transfers does not arrive whole.
pub fn fetch(server: SocketAddr, name: &str, clients: u32, window_blocks: u16) -> io::Result<Taken> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let begin = Instant::now();
        let mut transfers = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let name = name.to_owned();
            transfers.spawn(async move { transfer(begin, server, &name, window_blocks).await });
        }
        let mut each = Vec::new();
        while let Some(done) = transfers.join_next().await {
            each.push(done.map_err(io::Error::other)??);
        }
        Ok(Taken::of(each, begin.elapsed().as_secs_f64()))
    })
}

async fn transfer(begin: Instant, server: SocketAddr, name: &str, window_blocks: u16) -> io::Result<u64> {
    let socket = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await?;
    let options = Wanted {
        block_bytes: Some(limits::TFTP_BLOCK_BYTES),
        window_blocks: (window_blocks > 1).then_some(window_blocks),
        ..Wanted::default()
    };
    let mut client = Client::new(begin.elapsed(), server, &ReadRequest { name, options }, Duration::from_secs(1));
    let mut buffer = vec![0; usize::from(limits::TFTP_BLOCK_BYTES) + 4];
    loop {
        while let Some(output) = client.poll_output() {
            match output {
                Output::Send { to, bytes } => drop(socket.send_to(bytes, to).await?),
                Output::Finished(Outcome::Complete { file_bytes, .. }) => return Ok(file_bytes),
                Output::Finished(outcome) => return Err(io::Error::other(format!("{name}: {outcome:?}"))),
            }
        }
        let due = client.next_timeout().ok_or_else(|| io::Error::other("a transfer without an end"))?;
        match tokio::time::timeout_at((begin + due).into(), socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (length, from) = received?;
                let _discarded = client.handle_datagram(begin.elapsed(), from, &buffer[..length]);
            }
            Err(_elapsed) => client.handle_timeout(begin.elapsed()),
        }
    }
}
