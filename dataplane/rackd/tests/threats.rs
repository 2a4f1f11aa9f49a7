//! The threat model's rows for HTTP and TFTP against a role on loopback: what is refused, what is never served, what a few
//! bad clients cannot take from the others.

#[allow(dead_code)] // Each test crate uses its part of it.
mod support;

use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{PATIENCE, Random, Role, connect, connect_from, exchange, get, get_from};

const SECRET: &[u8] = b"what must not be served";

/// A directory that is served beside a file that is not.
struct Site {
    role: Role,
    files: BTreeMap<&'static str, Vec<u8>>,
    _directory: tempfile::TempDir,
}

fn site() -> Site {
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path().join("files");
    std::fs::create_dir_all(root.join("sub")).expect("made");
    std::fs::write(directory.path().join("secret"), SECRET).expect("written");
    let files = BTreeMap::from([
        ("boot", b"first file".to_vec()),
        ("sub/kernel", vec![7; 100_000]),
        ("sub/näme", b"second file".to_vec()),
    ]);
    for (name, bytes) in &files {
        std::fs::write(root.join(name), bytes).expect("written");
    }
    let role = Role::serve(&root, &directory.path().join("store"));
    role.until_it_listens();
    Site { role, files, _directory: directory }
}

#[test]
fn http_framing_that_can_be_read_in_two_ways_is_refused_and_the_connection_ends() {
    let site = site();
    let fields = |text: &str| format!("GET /boot HTTP/1.1\r\n{text}\r\n");
    let host = |text: &str| fields(&format!("Host: rack\r\n{text}"));
    let table: Vec<(&str, String, u16)> = vec![
        ("bare LF after the request line", "GET /boot HTTP/1.1\nHost: rack\r\n\r\n".into(), 400),
        ("bare LF after a field", fields("Host: rack\n"), 400),
        ("bare LF instead of the empty line", "GET /boot HTTP/1.1\r\nHost: rack\r\n\n".into(), 400),
        ("bare CR in a value", host("A: b\rc\r\n"), 400),
        ("bare CR before the colon", host("A\r: b\r\n"), 400),
        ("CR CR LF", host("A: b\r\r\n"), 400),
        ("NUL in a value", host("A: b\0c\r\n"), 400),
        ("NUL in the target", "GET /bo\0ot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("ESC in a value", host("A: \u{1b}[31m\r\n"), 400),
        ("DEL in a value", host("A: \u{7f}\r\n"), 400),
        ("obs-fold", host("A: b\r\n c\r\n"), 400),
        ("obs-fold with a tab", host("A: b\r\n\tc\r\n"), 400),
        ("a space before the colon", host("Content-Length : 0\r\n"), 400),
        ("a tab before the colon", host("Transfer-Encoding\t: chunked\r\n"), 400),
        ("a space in a name", host("Content Length: 0\r\n"), 400),
        ("a field without a colon", host("Content-Length\r\n"), 400),
        ("a field without a name", host(": 0\r\n"), 400),
        ("a name that is no token", host("A(b): c\r\n"), 400),
        ("Content-Length +5", host("Content-Length: +5\r\n"), 400),
        ("Content-Length -0", host("Content-Length: -0\r\n"), 400),
        ("Content-Length 0x5", host("Content-Length: 0x5\r\n"), 400),
        ("Content-Length with spaces", host("Content-Length: 0 0\r\n"), 400),
        ("Content-Length empty", host("Content-Length:\r\n"), 400),
        ("Content-Length as a list", host("Content-Length: 0, 0\r\n"), 400),
        ("Content-Length beyond 64 bits", host("Content-Length: 99999999999999999999\r\n"), 400),
        ("two Content-Lengths", host("Content-Length: 0\r\nContent-Length: 5\r\n"), 400),
        ("two equal Content-Lengths", host("Content-Length: 0\r\ncontent-length: 0\r\n"), 400),
        ("a body", format!("{}hello", host("Content-Length: 5\r\n")), 400),
        ("Content-Length with Transfer-Encoding", host("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("Transfer-Encoding with Content-Length", host("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400),
        ("chunked", format!("{}0\r\n\r\n", host("Transfer-Encoding: chunked\r\n")), 400),
        ("chunk ends with LF", format!("{}1\na\n0\n\n", host("Transfer-Encoding: chunked\r\n")), 400),
        ("chunk size +1", format!("{}+1\r\na\r\n0\r\n\r\n", host("Transfer-Encoding: chunked\r\n")), 400),
        ("chunk size 0x1", format!("{}0x1\r\na\r\n0\r\n\r\n", host("Transfer-Encoding: chunked\r\n")), 400),
        ("chunk extension", format!("{}0;{}\r\n\r\n", host("Transfer-Encoding: chunked\r\n"), "x".repeat(65)), 400),
        ("an unknown coding", host("Transfer-Encoding: xchunked\r\n"), 400),
        ("identity", host("Transfer-Encoding: identity\r\n"), 400),
        ("a coding behind a vertical tab", host("Transfer-Encoding: \u{b}chunked\r\n"), 400),
        ("no Host", fields("A: b\r\n"), 400),
        ("two Hosts", host("Host: other\r\n"), 400),
        ("two equal Hosts", host("host: rack\r\n"), 400),
        ("an empty Host", fields("Host:\r\n"), 400),
        ("a Host with a path", fields("Host: rack/boot\r\n"), 400),
        ("a Host with a user", fields("Host: user@rack\r\n"), 400),
        ("a Host with an odd port", fields("Host: rack:80x\r\n"), 400),
        ("absolute form to another host", "GET http://other/boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("absolute form with a user", "GET http://rack@other/boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("absolute form of another scheme", "GET ftp://rack/boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("a target without a slash", "GET boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("a fragment", "GET /boot#x HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("asterisk form", "GET * HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("authority form", "CONNECT rack:80 HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 405),
        ("another method", "POST /boot HTTP/1.1\r\nHost: rack\r\nContent-Length: 0\r\n\r\n".into(), 405),
        ("two spaces", "GET  /boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("a tab in the request line", "GET\t/boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("no version", "GET /boot\r\nHost: rack\r\n\r\n".into(), 400),
        ("HTTP/2.0", "GET /boot HTTP/2.0\r\nHost: rack\r\n\r\n".into(), 505),
        ("HTTP/1.1 in small letters", "GET /boot http/1.1\r\nHost: rack\r\n\r\n".into(), 505),
        ("an empty line first", "\r\nGET /boot HTTP/1.1\r\nHost: rack\r\n\r\n".into(), 400),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("a TLS hello", "\u{16}\u{3}\u{1}\0".into(), 400),
        ("a line of 9 KiB", fields(&format!("A: {}\r\n", "x".repeat(9_000))), 431),
        ("65 fields", host(&"a: b\r\n".repeat(64)), 431),
        ("a head of 36 KiB", host(&format!("A: {}\r\n", "x".repeat(7_000)).repeat(5)), 431),
        ("two Ranges", host("Range: bytes=0-0\r\nRange: bytes=1-1\r\n"), 400),
        ("a Range backwards", host("Range: bytes=5-4\r\n"), 400),
        ("a Range of +0", host("Range: bytes=+0-4\r\n"), 400),
        ("pipelining", host("").repeat(2), 400),
    ];
    // Whatever follows is never taken for a request of its own.
    let smuggled = "GET /sub/kernel HTTP/1.1\r\nHost: rack\r\n\r\n";
    for (what, octets, status) in &table {
        for tail in ["", smuggled] {
            let reply = exchange(Ipv4Addr::LOCALHOST, site.role.http, format!("{octets}{tail}").as_bytes());
            let reply = reply.unwrap_or_else(|| panic!("no answer to {what}"));
            assert_eq!(reply.status, *status, "{what}: {}", reply.head);
            assert!(reply.head.contains("Connection: close\r\n"), "{what}: {}", reply.head);
            assert!(reply.body.is_empty(), "{what} was followed by {}", reply.body.escape_ascii());
        }
    }
    assert_eq!(get(site.role.http, "/boot").body, site.files["boot"]);
    let absolute = b"GET http://RACK/boot HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(Ipv4Addr::LOCALHOST, site.role.http, absolute).expect("answer").body, site.files["boot"]);
}

#[test]
fn http_octets_after_a_request_end_the_connection_after_its_response() {
    let site = site();
    let mut stream = connect(site.role.http);
    let request = b"GET /sub/kernel HTTP/1.1\r\nHost: rack\r\n\r\n";
    stream.write_all(request).expect("sent");
    // The first response is under way or out: either the second request is pipelined, or it is the next one.
    stream.write_all(request).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("an end");
    let heads = got.windows(12).filter(|window| *window == b"HTTP/1.1 200" || *window == b"HTTP/1.1 400").count();
    assert!((1..=2).contains(&heads), "{heads} responses to two requests");
}

#[test]
fn http_five_hundred_ranges_cost_one_refusal() {
    let site = site();
    let ranges: Vec<String> = (0..500).map(|n| format!("{n}-{n}")).collect();
    let ask = |fields: &str| {
        let head = format!("GET /sub/kernel HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n{fields}\r\n");
        exchange(Ipv4Addr::LOCALHOST, site.role.http, head.as_bytes()).expect("answer")
    };
    let listed = ask(&format!("Range: bytes={}\r\n", ranges.join(",")));
    assert_eq!((listed.status, listed.body.len()), (416, 0), "{}", listed.head);
    let repeated: String = ranges.iter().take(60).map(|range| format!("Range: bytes={range}\r\n")).collect();
    let repeated = ask(&repeated);
    assert_eq!((repeated.status, repeated.body.len()), (400, 0), "{}", repeated.head);
    let many: String = ranges.iter().map(|range| format!("Range: bytes={range}\r\n")).collect();
    let many = ask(&many);
    assert_eq!((many.status, many.body.len()), (431, 0), "{}", many.head);
    assert_eq!(ask("Range: bytes=100000-\r\n").status, 416);
    assert_eq!(ask("Range: bytes=5-5\r\n").body, [7]);
}

/// 2,000 names that somebody might think lead out of the map, the same in every run.
fn evil_names() -> Vec<Vec<u8>> {
    let mut random = Random(0x2000);
    let steps: [&[u8]; 24] = [
        b"..",
        b".",
        b"...",
        b"%2e%2e",
        b"%2E.",
        b".%2e",
        b"%252e%252e",
        b"%c0%ae%c0%ae",
        b"%e0%80%ae",
        b"\xc0\xae\xc0\xae",
        b"..%00",
        b"..%0d%0a",
        b"%uff0e%uff0e",
        "\u{ff0e}\u{ff0e}".as_bytes(),
        "\u{2024}\u{2024}".as_bytes(),
        b"..;",
        b"~",
        b"sub",
        b"sub/..",
        b"%73ub",
        b"*",
        b"file:",
        b"\\\\host",
        b"C:",
    ];
    let separators: [&[u8]; 12] = [
        b"/",
        b"//",
        b"\\",
        b"%2f",
        b"%2F",
        b"%5c",
        b"%252f",
        b"%c0%af",
        b"\xc0\xaf",
        "\u{2215}".as_bytes(),
        b"/./",
        b"%00/",
    ];
    let ends: [&[u8]; 20] = [
        b"secret",
        b"etc/passwd",
        b"proc/self/environ",
        b"store/packs/0000000000000001.pack",
        b"boot%00",
        b"boot\0.png",
        b"boot%20",
        b"boot.",
        b"BOOT",
        b"boot/",
        b"boot/.",
        b"boot%2f",
        b"sub/n\xc3\xa4me/",
        b"sub/na\xcc\x88me",
        b"boot~",
        b".bash_history",
        b"%",
        b"%g1",
        b"boot%0a",
        b"CON",
    ];
    let mut names = HashSet::new();
    while names.len() < 2_000 {
        let mut name = Vec::new();
        for _ in 0..random.below(6) {
            name.extend_from_slice(random.one_of(&steps));
            name.extend_from_slice(random.one_of(&separators));
        }
        match random.below(8) {
            0 => name.extend_from_slice(&[b'a'; 300]),
            1 => (0..random.below(12)).for_each(|_| name.push(random.next() as u8)),
            2 => name.extend(std::iter::repeat_n(b"../".as_slice(), 1 + random.below(100)).flatten()),
            _ => {}
        }
        name.extend_from_slice(random.one_of(&ends));
        names.insert(name);
    }
    let mut names: Vec<Vec<u8>> = names.into_iter().collect();
    names.sort_unstable();
    names
}

/// A reading of escapes that has nothing in common with the parser's.
fn decoded(target: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = target.get(at) {
        let digits = target.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(octet) if *byte == b'%' => (out.push(octet), at += 3).1,
            _ => (out.push(*byte), at += 1).1,
        }
    }
    out
}

#[test]
fn http_evil_names_get_nothing_outside_the_map() {
    let site = site();
    let mut served = 0;
    for name in evil_names() {
        let request = [b"GET /".as_slice(), &name, b" HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n"].concat();
        let reply = exchange(Ipv4Addr::LOCALHOST, site.role.http, &request);
        let reply = reply.unwrap_or_else(|| panic!("no answer to {}", name.escape_ascii()));
        if reply.status == 200 {
            let path = name.split(|byte| *byte == b'?').next().unwrap_or_default();
            let file = site.files.iter().find(|(key, _)| key.as_bytes() == decoded(path));
            assert!(file.is_some_and(|(_, bytes)| *bytes == reply.body), "{} was served", name.escape_ascii());
            served += 1;
        } else {
            assert!(matches!(reply.status, 400 | 404), "{}: {}", name.escape_ascii(), reply.head);
            assert!(reply.body.is_empty(), "{}", name.escape_ascii());
        }
    }
    assert!(served < 20, "{served} names were no evil ones");
}

/// A read request with options as pairs.
fn read_request(name: &[u8], options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = [b"\0\x01".as_slice(), name, b"\0octet\0"].concat();
    for (option, value) in options {
        packet.extend_from_slice(&[option.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    packet
}

#[test]
fn tftp_evil_names_get_nothing_outside_the_map() {
    let site = site();
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    let (evil, plain) = (bind(), bind());
    evil.set_nonblocking(true).expect("non-blocking");
    plain.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut buffer = [0; 2048];
    let mut refused = 0;
    for name in evil_names() {
        let key = name.strip_prefix(b"/").unwrap_or(&name);
        assert!(!site.files.keys().any(|file| file.as_bytes() == key), "{} is no evil name", name.escape_ascii());
        evil.send_to(&read_request(&name, &[]), site.role.tftp).expect("sent");
        // Requests are answered in their order: when this one is refused, the one before was answered or dropped.
        plain.send_to(&read_request(b"nothing by this name", &[]), site.role.tftp).expect("sent");
        plain.recv_from(&mut buffer).expect("a refusal in time");
        while let Ok((length, from)) = evil.recv_from(&mut buffer) {
            assert_eq!(from, site.role.tftp, "a transfer began at {}", name.escape_ascii());
            assert!(buffer.starts_with(b"\0\x05") && length <= 5 + 64, "more than an error at {}", name.escape_ascii());
            refused += 1;
        }
    }
    assert!(refused > 1_000, "{refused} refusals");
    assert_eq!(site.role.metric("bootstorm_rack_tftp_file_bytes_total"), 0);
    assert_eq!(site.role.metric("bootstorm_rack_tftp_transfers"), 0);
}

#[test]
fn tftp_writes_and_odd_packets_begin_nothing() {
    let site = site();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let odd: Vec<Vec<u8>> = vec![
        b"\0\x02boot\0octet\0".to_vec(),
        b"\0\x01boot".to_vec(),
        b"\0\x01boot\0octet".to_vec(),
        b"\0\x01boot\0mail\0".to_vec(),
        b"\0\x01\0octet\0".to_vec(),
        read_request(&[b'a'; 300], &[]),
        read_request(b"boot", &[("blksize", "512"), ("BLKSIZE", "1024")]),
        read_request(b"boot", &[("windowsize", "0")]),
        b"\0\x03\0\x01data".to_vec(),
        b"\0\x04\0\0".to_vec(),
        b"\0\x06blksize\x00512\0".to_vec(),
        b"\0\x09".to_vec(),
        b"\0".to_vec(),
        Vec::new(),
    ];
    for packet in &odd {
        socket.send_to(packet, site.role.tftp).expect("sent");
    }
    socket.send_to(&read_request(b"nothing by this name", &[]), site.role.tftp).expect("sent");
    let mut buffer = [0; 2048];
    loop {
        let (_, from) = socket.recv_from(&mut buffer).expect("a refusal in time");
        assert_eq!(from, site.role.tftp, "a transfer began");
        assert_eq!(buffer[..2], *b"\0\x05", "only errors are answered");
        if buffer[..4] == *b"\0\x05\0\x01" {
            break;
        }
    }
    assert_eq!(site.role.metric("bootstorm_rack_tftp_transfers"), 0);
}

#[test]
fn t8_tftp_sends_little_to_whoever_has_not_answered() {
    let site = site();
    let silent = "bootstorm_rack_drops_total{protocol=\"tftp\",reason=\"peer_silent\"}";
    let cases: [&[(&str, &str)]; 4] = [
        &[],
        &[("blksize", "1468"), ("windowsize", "64"), ("tsize", "0"), ("timeout", "1")],
        &[("windowsize", "64")],
        &[("blksize", "8")],
    ];
    let sockets: Vec<UdpSocket> = cases
        .iter()
        .map(|options| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
            socket.set_nonblocking(true).expect("non-blocking");
            // A forged request may come many times.
            for _ in 0..20 {
                socket.send_to(&read_request(b"sub/kernel", options), site.role.tftp).expect("sent");
            }
            socket
        })
        .collect();
    site.role.until(silent, cases.len() as u64);
    let mut buffer = [0; 2048];
    for (socket, options) in sockets.iter().zip(cases) {
        let mut got = Vec::new();
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            got.push(length);
        }
        assert!((1..=3).contains(&got.len()), "{options:?}: {got:?}");
        assert!(got.iter().sum::<usize>() <= 1_548, "{options:?}: {got:?}");
    }
}

/// Lets this process hold so many descriptors.
fn raise_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < count) {
        let maximum = now.maximum.map(|maximum| maximum.max(count));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
            .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }));
        let left = now.maximum.is_none_or(|maximum| maximum + 1_000 >= count);
        assert!(raised.is_ok() && left, "this test needs {count} descriptors: ulimit -Hn");
    }
}

#[test]
fn t9_ten_thousand_slow_headers_keep_no_honest_client_out() {
    const ATTACKERS: usize = 10_000;
    // Below the cap of one source, so that the cap alone is no help.
    const PER_SOURCE: usize = 200;
    raise_descriptors(20_500);
    let directory = tempfile::tempdir().expect("directory");
    let rack = Role::rack(directory.path());
    assert_eq!(get(rack.http, "/healthz").status, 200);
    let mut attackers = Vec::with_capacity(ATTACKERS);
    for n in 0..ATTACKERS {
        let source = Ipv4Addr::new(127, 9, 0, (n / PER_SOURCE) as u8 + 1);
        let mut stream = connect_from(source, rack.http);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: rack\r\nX-Slow: ");
        attackers.push(stream);
    }
    let mut served = 0;
    for honest in 1..=10 {
        // They go on, one octet each, while honest clients come.
        for stream in &mut attackers {
            let _ = stream.write_all(b"x");
        }
        let reply = get_from(Ipv4Addr::new(127, 10, 0, honest), rack.http, "/healthz");
        served += usize::from(reply.is_some_and(|reply| reply.status == 200));
    }
    assert_eq!(served, 10, "honest clients served of 10; {}", rack.metrics());
}

#[test]
fn t9_one_source_is_held_to_its_cap() {
    let directory = tempfile::tempdir().expect("directory");
    let rack = Role::rack(directory.path());
    let source = Ipv4Addr::new(127, 9, 1, 1);
    let held: Vec<TcpStream> = (0..400).map(|_| connect_from(source, rack.http)).collect();
    let refused = "bootstorm_rack_drops_total{protocol=\"http\",reason=\"source_connections\"}";
    rack.until(refused, 400 - 256);
    assert_eq!(rack.metric(refused), 400 - 256);
    drop(held);
}

#[test]
fn t9_slow_readers_take_nothing_from_the_others() {
    const CLIENTS: u64 = 20;
    const SLOW: u64 = 2;
    const BYTES_EACH: u64 = 24 << 20;
    const BLOCK: usize = 64 << 10;
    let directory = tempfile::tempdir().expect("directory");
    let files = directory.path().join("files");
    std::fs::create_dir_all(&files).expect("made");
    std::fs::write(files.join("image"), vec![9; 256 << 20]).expect("written");
    let role = Role::serve(&files, &directory.path().join("store"));
    role.until_it_listens();
    let begin = Instant::now();
    let counts: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let fast_bytes = || counts[SLOW as usize..].iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    let fast = CLIENTS - SLOW;
    let over = |bytes| bytes >= fast * BYTES_EACH;
    let at_the_end: Vec<u64> = std::thread::scope(|scope| {
        for (n, count) in (0u64..).zip(&counts) {
            let (fast_bytes, role) = (&fast_bytes, &role);
            scope.spawn(move || {
                let mut stream = connect(role.http);
                stream.write_all(b"GET /image HTTP/1.1\r\nHost: rack\r\n\r\n").expect("sent");
                let mut block = vec![0; BLOCK];
                while !over(fast_bytes()) {
                    // A slow one keeps to a twentieth of what the others have had on average.
                    if n < SLOW && count.load(Ordering::Relaxed) * 20 > fast_bytes() / fast {
                        std::thread::yield_now();
                        continue;
                    }
                    match stream.read(&mut block) {
                        Ok(0) => return,
                        Ok(length) => drop(count.fetch_add(length as u64, Ordering::Relaxed)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        while !over(fast_bytes()) {
            assert!(begin.elapsed() < PATIENCE, "nothing moves");
            std::thread::sleep(Duration::from_millis(1));
        }
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    });
    let share = at_the_end.iter().sum::<u64>() / CLIENTS;
    for bytes in &at_the_end[SLOW as usize..] {
        assert!(*bytes * 2 >= share, "half of {share} is more than {bytes}: {at_the_end:?}");
    }
}
