//! The roles as processes: each is confined, in every thread, and does its work all the same.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test says that it does not.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

const BOOTSTORM: &str = env!("CARGO_BIN_EXE_bootstorm");

/// A process that is ended, and its children by it, when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> Running {
    let log = if std::env::var_os("BOOTSTORM_TEST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
    Running(Command::new(BOOTSTORM).args(arguments).stdout(Stdio::null()).stderr(log).spawn().expect("started"))
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("address")
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(POLL);
    }
}

/// Whether every thread of a process is without capabilities, may gain none, and has its calls filtered.
fn is_confined(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut count = 0;
    let all = tasks.into_iter().filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).all(|status| {
        count += 1;
        let is = |line: &str| status.lines().any(|known| known.split_whitespace().eq(line.split(' ')));
        is("CapEff: 0000000000000000") && is("CapPrm: 0000000000000000") && is("NoNewPrivs: 1") && is("Seccomp: 2")
    });
    all && count > 0
}

fn get(address: SocketAddr, target: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

#[test]
fn t20_serve_is_confined_with_either_driver() {
    let place = tempfile::tempdir().expect("directory");
    let (files, data) = (place.path().join("files"), place.path().join("data"));
    fs::create_dir(&files).expect("made");
    fs::write(files.join("a"), "an answer").expect("written");
    for driver in ["uring", "epoll"] {
        let address = free_address();
        let (at, files, data) = (address.to_string(), files.display().to_string(), data.display().to_string());
        let server = start(&["serve", &files, "--http", &at, "--data", &data, "--driver", driver]);
        until("an answer", || get(address, "/a").is_some_and(|reply| reply.ends_with("an answer")));
        assert!(is_confined(server.0.id()), "{driver}");
        let metrics = get(address, "/metrics").expect("metrics");
        assert!(metrics.contains("sandbox{part=\"seccomp\",enforced=\"full\"} 1"), "{metrics}");
    }
}

/// The roles of one process's children by the words they were started with.
fn roles(pid: u32) -> Vec<(String, u32)> {
    let children = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = children.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|line| line.split_whitespace().map(str::parse).collect::<Vec<_>>()).flatten().collect();
    let word = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
        (words.get(1)? == "role").then(|| Some((words.get(2)?.to_string(), pid)))?
    };
    children.into_iter().filter_map(word).collect()
}

#[test]
fn t20_every_role_of_up_is_confined_and_an_image_is_imported() {
    let place = tempfile::tempdir().expect("directory");
    let data = place.path().join("data");
    let image = place.path().join("image.raw");
    fs::write(&image, vec![7; 3 << 20]).expect("written");
    let api = free_address();
    let up = start(&["up", "--data", &data.display().to_string(), "--api-listen", &api.to_string()]);
    until("the API", || data.join("admin.token").exists() && TcpStream::connect(api).is_ok());
    until("four confined roles", || {
        let mut roles = roles(up.0.id());
        roles.sort();
        let names: Vec<&str> = roles.iter().map(|(name, _)| name.as_str()).collect();
        names == ["bmc", "control", "gateway", "rack"] && roles.iter().all(|(_, pid)| is_confined(*pid))
    });
    let imported = import(&data, api, &image);
    assert!(imported, "the importer does its work confined");
}

fn import(data: &Path, api: SocketAddr, image: &Path) -> bool {
    let mut command = Command::new(BOOTSTORM);
    command.args(["image", "import", &image.display().to_string(), "--data", &data.display().to_string()]);
    command.env("BOOTSTORM_URL", format!("http://{api}")).stdout(Stdio::null());
    command.status().expect("started").success()
}
