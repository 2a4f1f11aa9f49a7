//! A tiny boot server for the test of a whole storm: DHCP, TFTP, HTTP and the gateway's API, blocking threads on one
//! address, in a network namespace that the test makes for itself. Machines whose address ends in an odd byte are deployed, the
//! others enlisted.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bootstorm_api::agent::{self as api, Accepted, Grant, Redeem, ReportRequest};
use bootstorm_api::local::Report;
use bootstorm_proto::dhcp::client_kind::{Firmware, classify};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::wire::{BootFile, LeaseTimes, Reply, Request};
use bootstorm_proto::tftp::server::{Output, Settings, Transfer};
use bootstorm_proto::tftp::wire::{CONTROL_BYTES_MAX, ErrorCode, Packet, encode_error};
use bootstorm_snapshot::manifest::Entry;
use bootstorm_snapshot::plan::{After, Deploy, DiskSelector, Network, Start};
use bootstorm_snapshot::{ChunkName, Encoding, EnrolmentId, ImageId, Mac, Manifest, Plan, Subject, Task};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::{node, report, schedule, storm};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NODES: u32 = 24;
const KERNEL_BYTES: usize = 3_000_000;
const LOADER_BYTES: usize = 100_000;

struct Rack {
    http: SocketAddr,
    agents: SocketAddr,
    authority: String,
    issuer: Issuer<'static, KeyPair>,
    tls: Arc<ServerConfig>,
    manifest: Manifest,
    stream: Vec<u8>,
    /// Paths asked for, with how often; the reports of agents under their kind.
    seen: Mutex<HashMap<String, u32>>,
}

impl Rack {
    fn saw(&self, what: &str) -> u32 {
        let mut seen = self.seen.lock().unwrap();
        let count = seen.entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn count(&self, what: &str) -> u32 {
        self.seen.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

/// Starts all servers on the address of `interface`.
fn serve(interface: &str) -> Arc<Rack> {
    let http = TcpListener::bind((SERVER, 0)).unwrap();
    let agents = TcpListener::bind((SERVER, 0)).unwrap();
    let (authority, issuer, tls) = certificates();
    let (manifest, stream) = image();
    let rack = Arc::new(Rack {
        http: http.local_addr().unwrap(),
        agents: agents.local_addr().unwrap(),
        authority,
        issuer,
        tls,
        manifest,
        stream,
        seen: Mutex::default(),
    });
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.bind_device(Some(interface.as_bytes())).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 67)).into()).unwrap();
    let dhcp = Arc::clone(&rack);
    std::thread::spawn(move || serve_dhcp(&dhcp, &socket.into()));
    let loader = |name: &str| (name == "loader.efi").then(|| vec![7; LOADER_BYTES]);
    std::thread::spawn(move || serve_tftp(&UdpSocket::bind((SERVER, 69)).unwrap(), &loader));
    accept(Arc::clone(&rack), http, serve_http);
    accept(Arc::clone(&rack), agents, |rack, stream| {
        let session = ServerConnection::new(Arc::clone(&rack.tls)).unwrap();
        serve_http(rack, StreamOwned::new(session, stream));
    });
    rack
}

fn accept(rack: Arc<Rack>, listener: TcpListener, serve: fn(&Rack, TcpStream)) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (rack, stream) = (Arc::clone(&rack), stream.unwrap());
            std::thread::spawn(move || serve(&rack, stream));
        }
    });
}

fn certificates() -> (String, Issuer<'static, KeyPair>, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![SERVER.to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (authority.pem(), issuer, Arc::new(tls))
}

/// Two ranges and a bit of plain chunks.
fn image() -> (Manifest, Vec<u8>) {
    let stream: Vec<u8> = (0..34_000_000u32).map(|index| (index / 7) as u8).collect();
    let entry = |chunk: &[u8]| Entry {
        name: ChunkName::of(chunk),
        raw_bytes: chunk.len() as u32,
        stored_bytes: chunk.len() as u32,
    };
    let entries = stream.chunks(256 << 10).map(entry).collect();
    let raw = ImageId::of(&stream);
    (Manifest::new(Encoding::Plain, raw, stream.len() as u64, "test", entries).unwrap(), stream)
}

fn serve_dhcp(rack: &Rack, socket: &UdpSocket) {
    let mut bytes = [0; 1_500];
    while let Ok(length) = socket.recv(&mut bytes) {
        let request = Request::parse(&bytes[..length]).unwrap();
        let kind = classify(&request);
        let [.., high, low] = request.client_hardware_address;
        let answer = match request.message_type {
            MessageType::Discover => MessageType::Offer,
            MessageType::Request => MessageType::Ack,
            other => panic!("{other:?}"),
        };
        let mac = Mac(request.client_hardware_address).to_string().replace(':', "-");
        let (http, script) = (rack.http, format!("http://{}/boot.ipxe?mac={mac}", rack.http));
        let loader = format!("http://{http}/loader.efi");
        let name = match kind.firmware {
            Firmware::IpxeBios | Firmware::IpxeUefi => script.as_str(),
            Firmware::HttpBoot => loader.as_str(),
            Firmware::PxeBios | Firmware::PxeUefi => "loader.efi",
            other => panic!("{other:?}"),
        };
        let reply = Reply {
            your_ip: Ipv4Addr::new(10, 9, 1 + high, low),
            next_server_ip: SERVER,
            lease: Some(LeaseTimes::new(600)),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 0, 0)),
            boot_file: Some(BootFile { name, server_name: None }),
            vendor_class: kind.vendor_class_echo(),
            proxy_dhcp_wait: bootstorm_proto::dhcp::wire::ProxyDhcpWait::Skip,
            ..Reply::new(answer, SERVER)
        };
        let mut buffer = [0; 1_500];
        let encoded = reply.encode(&request, &mut buffer).unwrap();
        socket.send_to(&buffer[..encoded.bytes], (Ipv4Addr::BROADCAST, 68)).unwrap();
    }
}

/// Serves files by TFTP; names that are none are refused.
pub fn serve_tftp(socket: &UdpSocket, files: &dyn Fn(&str) -> Option<Vec<u8>>) {
    let address = socket.local_addr().unwrap().ip();
    let mut bytes = [0; 1_500];
    while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(&bytes[..length]) else { continue };
        let Some(file) = files(request.name) else {
            let mut refusal = [0; CONTROL_BYTES_MAX];
            let length = encode_error(ErrorCode::FileNotFound, &mut refusal).unwrap();
            socket.send_to(&refusal[..length], peer).unwrap();
            continue;
        };
        let origin = Instant::now();
        let mut transfer = Transfer::new(Duration::ZERO, peer, &request, file.len() as u64, &Settings::default());
        std::thread::spawn(move || {
            let own = UdpSocket::bind((address, 0)).unwrap();
            own.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut bytes = [0; 1_500];
            loop {
                while let Some(output) = transfer.poll_output() {
                    match output {
                        Output::Control(control) => drop(own.send_to(control.as_bytes(), peer)),
                        Output::Blocks(window) => window.datagrams().for_each(|(header, range)| {
                            let block = &file[range.start as usize..range.end as usize];
                            own.send_to(&[&header, block].concat(), peer).unwrap();
                        }),
                        Output::Finished(_) => return,
                    }
                }
                match own.recv_from(&mut bytes) {
                    Ok((length, from)) => drop(transfer.handle_datagram(origin.elapsed(), from, &bytes[..length])),
                    Err(_) => transfer.handle_timeout(origin.elapsed()),
                }
            }
        });
    }
}

/// Serves requests of one connection until it ends.
fn serve_http<S: Read + Write>(rack: &Rack, mut stream: S) {
    let mut bytes = Vec::new();
    loop {
        let head_end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !read_more(&mut stream, &mut bytes) {
                return;
            }
        };
        let head = String::from_utf8(bytes.drain(..head_end).collect()).unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let body_bytes: usize = field("Content-Length:").map_or(0, |length| length.parse().unwrap());
        while bytes.len() < body_bytes {
            assert!(read_more(&mut stream, &mut bytes), "a body that ends early");
        }
        let body: Vec<u8> = bytes.drain(..body_bytes).collect();
        let mut words = head.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let count = rack.saw(&format!("{method} {}", target.split('?').next().unwrap()));
        let (status, extra, answer) = if target.starts_with("/environment") && count == 1 {
            // One machine is told to come again.
            ("503 Busy", "Retry-After: 1\r\n".to_owned(), Vec::new())
        } else if let Some(range) = field("Range: bytes=") {
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let extra = format!("Content-Range: bytes {first}-{last}/{}\r\n", rack.stream.len());
            ("206 Partial", extra, rack.stream[first..=last].to_vec())
        } else {
            ("200 OK", String::new(), content(rack, target, &body))
        };
        let head = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n", answer.len());
        let answer = if method == "HEAD" { Vec::new() } else { answer };
        if stream.write_all(&[head.as_bytes(), &answer].concat()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

pub fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> bool {
    let mut more = [0; 4_096];
    let length = stream.read(&mut more).unwrap_or(0);
    bytes.extend_from_slice(&more[..length]);
    length > 0
}

fn content(rack: &Rack, target: &str, body: &[u8]) -> Vec<u8> {
    match target.split('?').next().unwrap() {
        "/loader.efi" => vec![7; LOADER_BYTES],
        "/boot.ipxe" => script(rack, target.split_once("mac=").unwrap().1).into_bytes(),
        "/environment/amd64/kernel" | "/environment/amd64/initrd" => vec![0; KERNEL_BYTES],
        "/ca.cpio" => format!("070701etc/bootstorm/ca.pem\0{}\0070701TRAILER!!!\0", rack.authority).into_bytes(),
        "/v1/redeem" => serde_json::to_vec(&grant(rack, &serde_json::from_slice(body).unwrap())).unwrap(),
        "/v1/report" => {
            let request: ReportRequest = serde_json::from_slice(body).unwrap();
            assert_eq!(request.sequence, 1);
            rack.saw(match request.report {
                Report::Inventory { .. } => "inventory",
                Report::Written { .. } => "written",
                other => panic!("{other:?}"),
            });
            serde_json::to_vec(&Accepted {}).unwrap()
        }
        "/v1/ready" => serde_json::to_vec(&Accepted {}).unwrap(),
        path if path.starts_with(api::MANIFEST_PATH) => rack.manifest.encode(),
        path => panic!("`{path}`"),
    }
}

/// As the engine writes it; the claim tells the gateway which machine it is.
fn script(rack: &Rack, mac: &str) -> String {
    let (http, agents) = (rack.http, rack.agents);
    let claim = format!("{:0>32}", mac.replace('-', ""));
    format!(
        "#!ipxe\necho Bootstorm: hello\n\
         kernel --name kernel http://{http}/environment/amd64/kernel initrd=initrd initrd=ca.cpio \
         bootstorm.rack={agents} bootstorm.http={http} bootstorm.claim={claim} || goto again\n\
         initrd --name initrd http://{http}/environment/amd64/initrd || goto again\n\
         initrd --name ca.cpio http://{http}/ca.cpio || goto again\n\
         boot || goto again\n:again\nimgfree\n:wait\nsleep 10\nchain --replace http://{http}/boot.ipxe?mac={mac} || goto wait\n"
    )
}

fn grant(rack: &Rack, redeem: &Redeem) -> Grant {
    let last = u8::from_str_radix(&redeem.claim[30..], 16).unwrap();
    let request = CertificateSigningRequestParams::from_pem(&redeem.csr_pem).unwrap();
    let certificate = request.signed_by(&rack.issuer).unwrap();
    let task = if last.is_multiple_of(2) {
        Task::Enlist
    } else {
        Task::Deploy(Box::new(Deploy {
            image_name: "test".to_owned(),
            image: rack.manifest.header().raw,
            manifest: rack.manifest.digest(),
            raw_bytes: rack.stream.len() as u64,
            encoding: Encoding::Plain,
            disk: DiskSelector::Smallest,
            grow: true,
            start: Start::Auto,
            network: Network::default(),
            secrets: false,
            ssh_authorized_keys: Vec::new(),
            ready_seconds_max: 600,
        }))
    };
    let enrolment = EnrolmentId::new(0, [last; 10]);
    Grant {
        certificate_pem: certificate.pem(),
        subject: Subject::Enrolment { enrolment, mac: Mac([2, 0, 0, 0, 0, last]) },
        plan: Plan { operation: None, machine: None, hostname: None, task, after: After::Wait },
    }
}

/// The whole storm, from DHCP to the last report, every kind of firmware and two plans.
///
/// Runs this test program again inside a new user and network namespace for the server, and from there once more inside
/// one for the machines; where the host forbids those there is nothing to test.
#[test]
fn a_storm_of_enlistments_and_deployments_is_played_to_its_end() {
    if let Some(out) = run_in_namespace("responder::inside_the_servers_namespace") {
        assert!(out.contains("storm: 24/24"), "{out}");
    }
}

/// Runs an ignored test of this program in a new user and network namespace; what it printed. `None` where the host
/// forbids such namespaces.
pub fn run_in_namespace(test: &str) -> Option<String> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]);
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let output = again(unshare(), test).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    Some(out.into_owned())
}

/// This program, with only this ignored test, started by `starter`.
fn again(mut starter: Command, test: &str) -> Command {
    starter.arg(std::env::current_exe().unwrap()).args(["--ignored", "--exact", test, "--nocapture"]);
    starter
}

fn ip(lines: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "{lines}");
}

#[test]
#[ignore = "run by the test above, in a namespace of its own"]
fn inside_the_servers_namespace() {
    let rack = play_beside("responder::inside_the_machines_namespace", || serve("rack0"));
    let half = NODES / 2;
    assert_eq!((rack.count("inventory"), rack.count("written"), rack.count("POST /v1/ready")), (half, half, half));
    assert_eq!(rack.count("POST /v1/redeem"), NODES);
}

/// Makes a link with a namespace for the machines at its other end, starts a server on `rack0`, and runs the test there.
pub fn play_beside<S>(test: &str, serve: impl FnOnce() -> S) -> S {
    ip("link add storm0 type veth peer name rack0\naddr add 10.9.0.1/16 dev rack0\nlink set rack0 up\n");
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    let mut machines = again(unshare, test);
    let mut machines = machines.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(machines.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)));
    ip(&format!("link set storm0 netns {}\n", machines.id()));
    let server = serve();
    machines.stdin.take().unwrap().write_all(b"go\n").unwrap();
    lines.for_each(|line| println!("{}", line.unwrap()));
    assert!(machines.wait().unwrap().success());
    server
}

/// In the machines' namespace: waits for the link.
pub fn wait_for_link() {
    println!("{READY}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    ip("link set storm0 up\n");
}

const READY: &str = "the machines' namespace is there";

#[test]
#[ignore = "run by the test above, in a namespace of its own"]
fn inside_the_machines_namespace() {
    wait_for_link();
    let rate = schedule::Arrivals::Rate(40.0);
    let storm = storm::Storm {
        interface: "storm0".to_owned(),
        starts: schedule::plan(NODES, 3, rate, schedule::FirmwareChoice::Mix),
        settings: Rc::new(node::Settings { deadline: Duration::from_secs(60), ..node::Settings::default() }),
        course: storm::Course::Once,
        faults: crate::faults::Faults::default(),
        seed: 3,
    };
    let run = report::Run::new("storm", Some(NODES.into()), 3);
    let report = storm::play(storm, run, &mut report::Live::hidden()).unwrap();
    println!("{}", report.table());
    assert!(report.is_complete(), "{:?}", report.failures);
    let show = |table| Command::new("ip").args(["-4", "route", "show", "table", table]).output().unwrap().stdout;
    assert_eq!((show("local"), show("main")), (Vec::new(), Vec::new()), "routes are left");
}
