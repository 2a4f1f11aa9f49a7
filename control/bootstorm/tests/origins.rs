//! `serve` that fills from a directory, and another that fills from it by HTTP.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BOOTSTORM: &str = env!("CARGO_BIN_EXE_bootstorm");
const PATIENCE: Duration = Duration::from_secs(60);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn serve(arguments: &[&str]) -> (Running, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let mut command = Command::new(BOOTSTORM);
    command.arg("serve").args(arguments).args(["--http", &address.to_string(), "--cache", "64M"]);
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started"));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nothing is served");
        std::thread::sleep(Duration::from_millis(10));
    }
    (running, address)
}

fn get(address: SocketAddr, name: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("read");
    assert!(
        reply.starts_with(b"HTTP/1.1 200 "),
        "{}",
        reply.escape_ascii().to_string().chars().take(200).collect::<String>()
    );
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    reply.split_off(end)
}

#[test]
fn files_go_from_a_directory_through_one_rack_to_another() {
    let place = tempfile::tempdir().expect("directory");
    let path = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir_all(place.path().join("files/sub")).expect("made");
    let image: Vec<u8> = (0..700_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.path().join("files/sub/image"), &image).expect("written");
    fs::write(place.path().join("files/small"), "small").expect("written");
    let built = Command::new(BOOTSTORM).args(["origin", "build", &path("files"), &path("out")]).output().expect("runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::remove_dir_all(place.path().join("files")).expect("removed");

    let (directory, first_data) = (format!("dir:{}", path("out")), path("first"));
    let (_first, first) = serve(&["--origin", &directory, "--data", &first_data]);
    let (away, origin, second_data) = ("http://127.0.0.1:9".to_owned(), format!("http://{first}"), path("second"));
    let arguments = ["--origin", &away, "--origin", &origin, "--data", &second_data];
    let (second, second_at) = serve(&arguments);
    // A rack gives others what it has; it fetches for machines, not for whoever names a chunk.
    for address in [first, second_at] {
        assert!(get(address, "sub/image") == image);
        assert_eq!(get(address, "small"), b"small");
    }
    let metrics = String::from_utf8(get(second_at, "metrics")).expect("text");
    let bytes = image.len() + 5;
    let line = format!("bootstorm_rack_fetched_bytes_total{{what=\"chunks\"}} {bytes}");
    assert!(metrics.lines().any(|known| known == line), "{metrics}");
    // Its process is confined, and so is the one that fetches.
    let children = format!("/proc/{0}/task/{0}/children", second.0.id());
    let children = fs::read_to_string(children).expect("children");
    let processes: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(processes.len(), 1, "{children}");
    let status = fs::read_to_string(format!("/proc/{}/status", processes[0])).expect("status");
    assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{status}");
}
