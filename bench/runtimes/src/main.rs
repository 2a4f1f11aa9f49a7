//! One small sender of HTTP on three runtimes, and their comparison: decision 8.
//!
//! Each serves `GET /1k` (1 KiB, the connection kept) and any other path with [`BULK_BYTES`] in quanta of [`QUANTUM_BYTES`]. What
//! is parsed, sent and allocated is the same code; listeners have the same options; each has one thread.

mod compare;
mod on_driver;
mod on_tokio;
mod on_tokio_uring;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use bytes::Bytes;

/// Octets of a bulk response.
pub const BULK_BYTES: u64 = 256 << 20;
/// Octets of one send of it: the data plane's.
pub const QUANTUM_BYTES: usize = 256 << 10;
/// Octets of a request at most: wrk's are below 100.
pub const REQUEST_BYTES: usize = 2 << 10;

/// What is sent.
pub struct Content {
    small: Bytes,
    bulk_head: Bytes,
    quantum: Bytes,
}

/// What a request is answered with: one piece, and how many quanta after it.
pub struct Answer {
    pub head: Bytes,
    pub quanta: u64,
}

impl Content {
    fn new() -> Content {
        let head = |length: u64| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        let small = [head(1_024), vec![b'x'; 1_024]].concat();
        Content { small: small.into(), bulk_head: head(BULK_BYTES).into(), quantum: vec![b'y'; QUANTUM_BYTES].into() }
    }

    /// The answer to the request that the octets begin with, if it is whole. wrk asks for one thing at a time.
    pub fn answer(&self, request: &[u8]) -> Option<Answer> {
        if !request.ends_with(b"\r\n\r\n") {
            return None;
        }
        Some(if request.starts_with(b"GET /1k ") {
            Answer { head: self.small.clone(), quanta: 0 }
        } else {
            Answer { head: self.bulk_head.clone(), quanta: BULK_BYTES / QUANTUM_BYTES as u64 }
        })
    }

    /// One quantum.
    pub fn quantum(&self) -> Bytes {
        self.quantum.clone()
    }
}

/// A listener on any free port of loopback, with the data plane's options; its port is printed.
fn listener() -> std::io::Result<TcpListener> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let descriptor = bootstorm_driver::socket::tcp_listener(any, &bootstorm_driver::socket::Listener::default())?;
    let listener = TcpListener::from(descriptor);
    println!("{}", listener.local_addr()?.port());
    Ok(listener)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["driver"] => listener().map_err(Into::into).and_then(|listener| on_driver::serve(listener, &Content::new())),
        ["tokio-uring"] => {
            listener().and_then(|listener| on_tokio_uring::serve(listener, Content::new())).map_err(Into::into)
        }
        ["tokio"] => listener().and_then(|listener| on_tokio::serve(listener, Content::new())).map_err(Into::into),
        ["compare", pairs, seconds] => match (pairs.parse(), seconds.parse()) {
            (Ok(pairs), Ok(seconds)) => compare::compare(pairs, seconds),
            _ => Err("expected numbers of pairs and of seconds".into()),
        },
        _ => Err("usage: bootstorm-runtimes driver | tokio-uring | tokio | compare PAIRS SECONDS".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runtimes: {error}");
            ExitCode::FAILURE
        }
    }
}
