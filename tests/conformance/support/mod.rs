//! A `bootstorm serve` process on loopback.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bootstorm_tests::lab::process::command;

/// How long a process may take to listen, or to answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A server; it is killed with this value.
pub struct Server {
    child: Child,
    pub http: SocketAddr,
    pub tftp: SocketAddr,
}

impl Server {
    /// Serves a directory on these ports, keeping its store in `data`; waits until it listens.
    pub fn start(directory: &Path, data: &Path, (http, tftp): (u16, u16)) -> Server {
        let (http, tftp) =
            (SocketAddr::from((Ipv4Addr::LOCALHOST, http)), SocketAddr::from((Ipv4Addr::LOCALHOST, tftp)));
        let mut serve = command(program());
        serve.arg("serve").arg(directory).arg("--data").arg(data).args(["--workers", "1", "--cache", "64M"]);
        serve.args(["--http", &http.to_string(), "--tftp", &tftp.to_string()]);
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("bootstorm starts");
        let mut server = Server { child, http, tftp };
        let begin = Instant::now();
        while TcpStream::connect(http).is_err() {
            assert!(server.child.try_wait().expect("a process").is_none(), "bootstorm has ended");
            assert!(begin.elapsed() < PATIENCE, "bootstorm does not listen");
            std::thread::sleep(POLL);
        }
        server
    }

    /// Ends it as power would: without a chance to do anything.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program: `BOOTSTORM_PROGRAM`, else the one that was built beside this test.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("BOOTSTORM_PROGRAM") {
        return named.into();
    }
    let own = std::env::current_exe().expect("a path");
    let built = own.ancestors().nth(2).expect("a build directory").join("bootstorm");
    assert!(built.is_file(), "{} is missing: cargo build --package bootstorm --bins", built.display());
    built
}

/// Two ports that were free a moment ago.
pub fn free_ports() -> (u16, u16) {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    (tcp.local_addr().expect("address").port(), udp.local_addr().expect("address").port())
}

/// Octets that differ everywhere, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        out.extend_from_slice(&random(&mut state).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// splitmix64.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Runs a client in a directory, for as long as anybody is patient; its output if it did not succeed.
pub fn run_client(directory: &Path, words: &[String]) -> Result<(), String> {
    let seconds = PATIENCE.as_secs().to_string();
    let mut client = Command::new("timeout");
    client.args(["--kill-after", "5", &seconds]).args(words).current_dir(directory).stdin(Stdio::null());
    let output = client.output().map_err(|error| format!("timeout: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&text)))
}
