//! What is given up is gone, and what is kept works. A sandbox is of the thread that enters it, so each test confines a thread of
//! its own.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use bootstorm_sandbox::{Calls, Enforced, Sandbox, Tcp};

/// Runs work on a thread that has entered the sandbox of a rack with this directory.
fn in_a_rack<T: Send>(directory: &Path, work: impl FnOnce() -> T + Send) -> T {
    confined(directory, Tcp::Refused, Calls::Rack, work)
}

fn confined<T: Send>(directory: &Path, tcp: Tcp, calls: Calls, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let sandbox = Sandbox { read: &[], write: &[directory], execute: &[], tcp, calls };
            let entered = sandbox.enter().expect("the sandbox is entered");
            // These tests are worth nothing on a kernel without one, and say so.
            assert_eq!((entered.landlock, entered.seccomp), (Enforced::Fully, Enforced::Fully));
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn denied<T: std::fmt::Debug>(outcome: std::io::Result<T>) {
    assert_eq!(outcome.expect_err("it is denied").kind(), ErrorKind::PermissionDenied);
}

#[test]
fn t20_a_rack_reaches_its_directory_and_no_other_file() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = other.path().join("secret");
    fs::write(&secret, "s").unwrap();
    let open = fs::File::open(&secret).unwrap();
    in_a_rack(own.path(), || {
        fs::create_dir(own.path().join("packs")).unwrap();
        fs::write(own.path().join("packs/1.new"), "x").unwrap();
        fs::rename(own.path().join("packs/1.new"), own.path().join("1.pack")).unwrap();
        assert_eq!(fs::read(own.path().join("1.pack")).unwrap(), b"x");
        fs::remove_file(own.path().join("1.pack")).unwrap();
        assert_eq!(std::io::read_to_string(&open).unwrap(), "s", "what was open stays open");
        denied(fs::read(&secret));
        denied(fs::write(other.path().join("new"), "x"));
        denied(fs::remove_file(&secret));
        denied(fs::rename(&secret, own.path().join("secret")));
        denied(fs::read("/etc/shadow"));
        denied(fs::read_dir("/"));
        std::os::unix::fs::symlink(&secret, own.path().join("link")).expect_err("no links");
    });
}

#[test]
fn t20_a_rack_uses_the_sockets_it_was_given_and_makes_none_of_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let at = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"x").unwrap();
    });
    in_a_rack(directory.path(), || {
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(std::io::read_to_string(stream).unwrap(), "x");
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        datagrams.connect(datagrams.local_addr().unwrap()).unwrap();
        datagrams.send(b"y").unwrap();
        denied(TcpStream::connect(at));
        denied(TcpListener::bind(elsewhere));
        denied(UnixStream::connect("/run/any"));
        denied(UnixStream::pair());
        denied(packet_socket());
    });
    client.join().unwrap();
}

/// A socket that hears every frame.
fn packet_socket() -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    Ok(socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop)?)
}

/// Seccomp leaves datagram sockets, so that what Landlock says about TCP is seen with a stream socket that was there before.
#[test]
fn t20_a_passed_stream_socket_cannot_be_connected() {
    use rustix::net::{AddressFamily, SocketType, connect, socket};
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    in_a_rack(directory.path(), || {
        assert_eq!(connect(stream.as_fd(), &at), Err(rustix::io::Errno::ACCESS));
    });
    connect(stream.as_fd(), &at).expect("outside it is allowed");
}

#[test]
fn t20_a_rack_executes_nothing_and_its_threads_are_confined_too() {
    let directory = tempfile::tempdir().unwrap();
    in_a_rack(directory.path(), || {
        denied(Command::new("/bin/true").status());
        let memory = |flags| rustix::fs::memfd_create("memory", flags).map_err(std::io::Error::from);
        memory(rustix::fs::MemfdFlags::NOEXEC_SEAL).expect("a file in memory that cannot be executed");
        denied(memory(rustix::fs::MemfdFlags::CLOEXEC));
        denied(rustix::thread::set_no_new_privs(false).map_err(std::io::Error::from));
        std::thread::scope(|scope| scope.spawn(|| denied(fs::read("/etc/shadow"))).join().unwrap());
    });
}

#[test]
fn t20_no_capability_and_no_new_one_are_left_to_any_role() {
    let directory = tempfile::tempdir().unwrap();
    for calls in [Calls::Rack, Calls::Ordinary, Calls::Filter] {
        let (told, tell) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                confined(directory.path(), Tcp::Allowed, calls, move || {
                    told.send(rustix::thread::gettid()).unwrap();
                    let _ = ended.recv();
                });
            });
            let thread = tell.recv().unwrap();
            let status = fs::read_to_string(format!("/proc/self/task/{}/status", thread.as_raw_pid())).unwrap();
            drop(end);
            for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(status.contains(&format!("{line}:\t0000000000000000\n")), "{calls:?}: {status}");
            }
            assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{calls:?}: {status}");
        });
    }
}

#[test]
fn t20_the_ring_is_the_rack_s_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ring = || io_uring::IoUring::new(1).err().map(|error| error.kind());
    assert_eq!(in_a_rack(directory.path(), ring), None);
    let denied = Some(ErrorKind::PermissionDenied);
    assert_eq!(confined(directory.path(), Tcp::Allowed, Calls::Ordinary, ring), denied);
    assert_eq!(confined(directory.path(), Tcp::Allowed, Calls::Filter, ring), denied);
}

#[test]
fn t20_an_ordinary_role_keeps_files_it_named_tcp_and_processes() {
    let own = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (usr, lib, null) = (Path::new("/usr"), Path::new("/lib"), Path::new("/dev/null"));
            let execute = [usr, lib, Path::new("/lib64"), Path::new("/bin"), Path::new("/etc/ld.so.cache")];
            let (tcp, calls) = (Tcp::Allowed, Calls::Ordinary);
            let sandbox = Sandbox { read: &[null], write: &[own.path()], execute: &execute, tcp, calls };
            sandbox.enter().unwrap();
            assert!(Command::new("/usr/bin/true").status().unwrap().success());
            TcpStream::connect(at).unwrap();
            denied(fs::read("/etc/shadow"));
            fs::copy("/usr/bin/true", own.path().join("true")).unwrap();
            denied(Command::new(own.path().join("true")).status());
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let sandbox = Sandbox {
        read: &[Path::new("/nowhere")],
        write: &[Path::new("/nowhere/at/all")],
        execute: &[],
        tcp: Tcp::Refused,
        calls: Calls::Rack,
    };
    let error = std::thread::scope(|scope| scope.spawn(|| sandbox.enter()).join().unwrap()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn a_role_may_open_as_many_files_as_its_process_was_allowed() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = tempfile::tempdir().unwrap();
    let hard = getrlimit(Resource::Nofile).maximum;
    // What a service is started with.
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: hard }).unwrap();
    assert_eq!(in_a_rack(own.path(), || getrlimit(Resource::Nofile).current), hard);
}
