//! An origin that counts: a web server over a directory, whose figures come from neither side of the comparison.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bootstorm_tests::lab::Error;

/// A running origin. Its threads end with the process.
#[derive(Debug)]
pub struct Origin {
    /// Where it answers.
    pub address: SocketAddr,
    body_bytes: Arc<AtomicU64>,
}

impl Origin {
    /// Serves the files below a directory by their names.
    ///
    /// # Errors
    /// When loopback has no port.
    pub fn start(root: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: "127.0.0.1".into(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (root, body_bytes) = (root.to_owned(), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&body_bytes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, counted) = (root.clone(), Arc::clone(&counted));
                std::thread::spawn(move || serve(&stream, &root, &counted));
            }
        });
        Ok(Self { address, body_bytes })
    }

    /// Octets of bodies that have left it.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::SeqCst)
    }
}

/// Answers requests until the other side ends; errors end the connection, as nobody is told of them here.
fn serve(stream: &TcpStream, root: &Path, counted: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let name = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok().filter(|length| *length > 0)?;
            if header == "\r\n" {
                break;
            }
        }
        let body = file(root, &name);
        let status = if body.is_ok() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        writer.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        counted.fetch_add(body.len() as u64, Ordering::SeqCst);
    }
}

/// A file below the root, by a name without anything that leaves it.
fn file(root: &Path, name: &str) -> io::Result<Vec<u8>> {
    let name = PathBuf::from(name);
    let is_plain = name.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if is_plain { fs::read(root.join(name)) } else { Err(io::ErrorKind::NotFound.into()) }
}
