//! `kill -9` of a server in the middle of transfers, again and again: clients go on by range, and no octet is wrong.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{PATIENCE, Server, free_ports, noise, random};

const CLIENTS: usize = 4;
const FILE_BYTES: usize = 8 << 20;
/// Octets that all clients together get from one life of the server, at most.
const LIFE_BYTES_MAX: u64 = 6 << 20;

/// Fetches the rest of the file from octet `from`; how many octets came before the connection ended. Every octet is compared as
/// it comes.
fn fetch_rest(server: SocketAddr, file: &[u8], from: usize, bytes: &AtomicU64) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /image HTTP/1.1\r\nHost: rack\r\nConnection: close\r\nRange: bytes={from}-\r\n\r\n")?;
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut octet)? == 0 {
            return Ok(0);
        }
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 503") {
        return Ok(0);
    }
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
    assert!(head.starts_with("HTTP/1.1 206") && head.contains(&range), "{head}");
    let mut buffer = vec![0; 64 << 10];
    let mut came = 0;
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(came),
            Ok(length) => length,
        };
        let expected = file.get(from + came..from + came + length);
        assert!(expected == Some(&buffer[..length]), "wrong octets after {}", from + came);
        came += length;
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn killed_servers_cost_clients_a_range_and_no_octet() {
    let kills = if std::env::var_os("BOOTSTORM_LONG_TESTS").is_some() { 1_000u32 } else { 50 };
    let directory = tempfile::tempdir().expect("directory");
    let (files, data) = (directory.path().join("files"), directory.path().join("data"));
    std::fs::create_dir_all(&files).expect("made");
    let file = noise(FILE_BYTES, 9);
    std::fs::write(files.join("image"), &file).expect("written");
    let ports = free_ports();
    let mut server = Server::start(&files, &data, ports);
    let address = server.http;
    let (bytes, whole, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // The last server lives until all clients are done.
    let _server = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut at = 0;
                // The last file is fetched to its end.
                let begin = Instant::now();
                while at > 0 || !over.load(Ordering::Relaxed) {
                    assert!(begin.elapsed() < PATIENCE * kills, "this client gets no end");
                    match fetch_rest(address, &file, at, &bytes) {
                        Ok(came) => at += came,
                        // Nobody listens at the moment.
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                    if at == file.len() {
                        whole.fetch_add(1, Ordering::Relaxed);
                        at = 0;
                    }
                }
            });
        }
        let mut seed = 0x9111;
        for _ in 0..kills {
            let until = bytes.load(Ordering::Relaxed) + random(&mut seed) % LIFE_BYTES_MAX;
            let begin = Instant::now();
            while bytes.load(Ordering::Relaxed) < until {
                // Clients that go on for ever would keep the failure from being seen.
                let moves = begin.elapsed() < PATIENCE;
                over.store(!moves, Ordering::Relaxed);
                assert!(moves, "nothing is transferred");
                std::thread::yield_now();
            }
            server.kill();
            server = Server::start(&files, &data, ports);
        }
        over.store(true, Ordering::Relaxed);
        server
    });
    let (bytes, whole) = (bytes.load(Ordering::Relaxed), whole.load(Ordering::Relaxed));
    println!("{kills} kills, {bytes} octets compared, {whole} files whole");
    assert!(whole >= CLIENTS as u64);
}
