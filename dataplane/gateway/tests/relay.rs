//! The gateway between a scripted control and a scripted rack, with agents over real TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use bootstorm_api::agent::{Grant, PlanReply, PlanRequest, Redeem, Secrets, base64_text::Base64};
use bootstorm_api::link::{self, ToControl};
use bootstorm_api::local::{Answer, Refusal, Request, ToGateway, ToRack, Wish};
use bootstorm_api::role::{ControlAddress, GatewayConfig};
use bootstorm_api::{agent, frame};
use bootstorm_snapshot::plan::{After, Task};
use bootstorm_snapshot::{ChunkName, Generation, KeyHash, MachineId, OperationId, Plan, RackId, Subject};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Serialize, de::DeserializeOwned};

fn send<M: Serialize>(stream: &UnixStream, message: &M, attachment: &[u8]) {
    let mut stream = stream;
    stream.write_all(&frame::encode(message, attachment).expect("frame")).expect("write");
}

fn receive<M: DeserializeOwned>(stream: &UnixStream) -> (M, Vec<u8>) {
    let mut stream = stream;
    let mut prefix = [0u8; frame::PREFIX_BYTES];
    stream.read_exact(&mut prefix).expect("prefix");
    let (header, attachment) = frame::lengths(prefix).expect("lengths");
    let mut body = vec![0u8; header + attachment];
    stream.read_exact(&mut body).expect("body");
    frame::decode_body(&body, header).expect("message")
}

/// A site's CA, as control has it.
struct Site {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Site {
    fn new() -> Site {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("self-signed");
        let pem = certificate.pem();
        Site { issuer: Issuer::from_ca_cert_der(certificate.der(), key).expect("issuer"), pem }
    }

    fn intermediate(&self, csr_pem: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).expect("csr");
        request.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        request.signed_by(&self.issuer).expect("signed").pem()
    }
}

struct Fixture {
    directory: PathBuf,
    site: Site,
    control: UnixStream,
    rack: UnixStream,
    address: SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
    _streams: tokio::sync::mpsc::Sender<UnixStream>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A joined gateway whose rack serves generation 3.
fn fixture(name: &str) -> Fixture {
    let directory = std::env::temp_dir().join(format!("bootstorm-gateway-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("directory");
    let socket = directory.join("racks.sock");
    let racks = UnixListener::bind(&socket).expect("socket");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
    let address = listener.local_addr().expect("address");
    let (rack, theirs) = UnixStream::pair().expect("pair");
    let (streams, receiver) = tokio::sync::mpsc::channel(2);
    streams.try_send(theirs).expect("room");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let config = GatewayConfig {
        data: directory.join("gateway"),
        control: ControlAddress::Unix { path: socket },
        join_token: None,
        name: "rack-1".into(),
        addresses: vec![Ipv4Addr::LOCALHOST],
        interfaces: vec![],
        origins: vec![],
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime.block_on(async {
            let stop = async { drop(stopped.await) };
            bootstorm_gateway::run(config, vec![listener], receiver, stop).await.expect("runs until stopped");
        });
    });

    send(&rack, &ToGateway::Status { generation: Generation(3), missing: vec![] }, &[]);
    let site = Site::new();
    let rack_id = RackId::new(1, [7; 10]);
    // The rack's first stream makes the gateway start its link anew, so the first connection may end at any point.
    let control = loop {
        let (control, _) = racks.accept().expect("link");
        if greet(&control, &site, rack_id).is_some() {
            break control;
        }
    };
    Fixture { directory, site, control, rack, address, _stop: stop, _streams: streams }
}

fn greet(control: &UnixStream, site: &Site, rack: RackId) -> Option<()> {
    loop {
        let mut stream = control;
        let mut prefix = [0u8; frame::PREFIX_BYTES];
        stream.read_exact(&mut prefix).ok()?;
        let (header, attachment) = frame::lengths(prefix).expect("lengths");
        let mut body = vec![0u8; header + attachment];
        stream.read_exact(&mut body).ok()?;
        match frame::decode_body(&body, header).expect("message").0 {
            ToControl::Join { csr_pem, name, .. } => {
                assert_eq!(name, "rack-1");
                let certificate_pem = site.intermediate(&csr_pem);
                let joined = link::ToGateway::Joined { rack, certificate_pem, ca_pem: site.pem.clone() };
                let bytes = frame::encode(&joined, &[]).expect("frame");
                stream.write_all(&bytes).ok()?;
            }
            ToControl::Hello { rack: said, generation, .. } => {
                assert_eq!((said, generation), (rack, Generation(3)));
            }
            ToControl::SecretsWanted => return Some(()),
            _ => {}
        }
    }
}

/// One request of an agent; the connection is its own.
fn http(fixture: &Fixture, identity: Option<(&str, &KeyPair)>, head: &str, body: &str) -> (u16, String) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fixture.site.pem.as_bytes()).expect("pem")).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((pem, key)) => {
            let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("chain");
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
            builder.with_client_auth_cert(chain, key).expect("identity")
        }
    };
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("session");
    let mut socket = TcpStream::connect(fixture.address).expect("connect");
    let mut tls = rustls::Stream::new(&mut session, &mut socket);
    write!(tls, "{head}\r\nhost: rack\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("write");
    let mut reader = BufReader::new(tls);
    let mut status = String::new();
    reader.read_line(&mut status).expect("status");
    let mut rest = String::new();
    // The peer may close without close_notify after its whole answer.
    let _ = reader.read_to_string(&mut rest);
    let status = status.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, rest.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
}

fn request(rack: &UnixStream) -> (u64, Request) {
    loop {
        if let ToRack::Request { number, request, .. } = receive::<ToRack>(rack).0 {
            return (number, request);
        }
    }
}

fn plan(operation: OperationId, machine: MachineId) -> Plan {
    Plan {
        operation: Some(operation),
        machine: Some(machine),
        hostname: Some("n1".into()),
        task: Task::Commission,
        after: After::PowerOff,
    }
}

#[test]
fn an_agent_redeems_asks_for_its_plan_and_its_secrets() {
    let fixture = fixture("redeem");
    let (operation, machine) = (OperationId::new(5, [5; 10]), "abc123".parse().expect("id"));
    let subject = Subject::Attempt { machine, operation, attempt: bootstorm_snapshot::AttemptId::new(6, [6; 10]) };
    let rack = fixture.rack.try_clone().expect("clone");
    let script = std::thread::spawn(move || {
        let (number, redeem) = request(&rack);
        let Request::Redeem { key, .. } = redeem else { panic!("{redeem:?}") };
        let granted = Answer::Granted { subject, plan: Box::new(plan(operation, machine)) };
        send(&rack, &ToGateway::Answer { number, answer: granted.clone() }, &[]);
        for _ in 0..3 {
            let (number, asked) = request(&rack);
            let Request::Plan { key: same, .. } = asked else { panic!("{asked:?}") };
            assert_eq!(same, key, "the key that TLS proved");
            send(&rack, &ToGateway::Answer { number, answer: granted.clone() }, &[]);
        }
        key
    });

    let key = KeyPair::generate().expect("key");
    let csr_pem = CertificateParams::default().serialize_request(&key).expect("csr").pem().expect("pem");
    let redeem = serde_json::to_string(&Redeem { claim: "00".repeat(16), csr_pem }).expect("json");
    let (status, body) = http(&fixture, None, "POST /v1/redeem HTTP/1.1", &redeem);
    assert_eq!(status, 200, "{body}");
    let grant: Grant = serde_json::from_str(&body).expect("grant");
    assert_eq!(grant.subject, subject);

    let identity = Some((grant.certificate_pem.as_str(), &key));
    let ask = serde_json::to_string(&PlanRequest { known: None, wait_seconds: 0 }).expect("json");
    let (status, body) = http(&fixture, identity, "POST /v1/plan HTTP/1.1", &ask);
    assert_eq!(status, 200, "{body}");
    assert!(matches!(serde_json::from_str(&body).expect("reply"), PlanReply::Changed(_)));

    // Secrets are refused until control has pushed them, and then given to this operation's agent only.
    let (status, body) = http(&fixture, identity, "GET /v1/secrets HTTP/1.1", "");
    assert!(status == 409 && body.contains("secrets-missing"), "{status} {body}");
    let secrets = Secrets { user_data: Some(Base64(b"#cloud-config".to_vec())), vendor_data: None };
    let json = serde_json::to_vec(&secrets).expect("json");
    send(&fixture.control, &link::ToGateway::Secrets { operation }, &json);
    while !matches!(receive::<ToControl>(&fixture.control).0, ToControl::SecretsHeld { operation: held } if held == operation)
    {
    }
    let (status, body) = http(&fixture, identity, "GET /v1/secrets HTTP/1.1", "");
    assert_eq!((status, serde_json::from_str::<Secrets>(&body).ok()), (200, Some(secrets)));
    let seen = script.join().expect("the rack's script");
    assert_ne!(seen, KeyHash([0; 32]));
}

#[test]
fn t1_requests_without_a_proven_key_or_with_bad_form_never_reach_the_rack() {
    let fixture = fixture("forms");
    let cases = [
        ("POST /v1/plan HTTP/1.1", r#"{"known":null,"wait_seconds":0}"#, 401),
        ("POST /v1/report HTTP/1.1", r#"{"sequence":1,"report":{"report":"alive"}}"#, 401),
        ("GET /v1/secrets HTTP/1.1", "", 401),
        ("POST /v1/ready HTTP/1.1", "{}", 401),
        ("POST /v1/redeem HTTP/1.1", "{", 400),
        ("POST /v1/redeem HTTP/1.1", r#"{"claim":"zz","csr_pem":""}"#, 400),
        ("POST /v1/redeem HTTP/1.1", r#"{"claim":"00000000000000000000000000000000","csr_pem":"x"}"#, 400),
        ("GET /v1/elsewhere HTTP/1.1", "", 404),
    ];
    for (head, body, expected) in cases {
        let (status, answer) = http(&fixture, None, head, body);
        assert_eq!(status, expected, "{head} {body}: {answer}");
        assert!(serde_json::from_str::<agent::Problem>(&answer).is_ok(), "{answer}");
    }
    let long = format!(r#"{{"claim":"{}"}}"#, "0".repeat(300 << 10));
    assert_eq!(http(&fixture, None, "POST /v1/redeem HTTP/1.1", &long).0, 413);
    // A foreign certificate does not even finish the handshake.
    fixture.rack.set_nonblocking(true).expect("nonblocking");
    let mut seen = Vec::new();
    let mut rack = &fixture.rack;
    let _ = rack.read_to_end(&mut seen);
    assert!(!String::from_utf8_lossy(&seen).contains("\"request\""), "the rack was asked");
}

#[test]
fn a_refusal_of_the_rack_becomes_its_status() {
    let fixture = fixture("refusal");
    let rack = fixture.rack.try_clone().expect("clone");
    let script = std::thread::spawn(move || {
        for code in [Refusal::UnknownClaim, Refusal::ClaimTaken, Refusal::Stopped] {
            let (number, _) = request(&rack);
            send(&rack, &ToGateway::Answer { number, answer: Answer::Refused { code, detail: "no".into() } }, &[]);
        }
    });
    let key = KeyPair::generate().expect("key");
    let csr_pem = CertificateParams::default().serialize_request(&key).expect("csr").pem().expect("pem");
    let redeem = serde_json::to_string(&Redeem { claim: "00".repeat(16), csr_pem }).expect("json");
    for expected in [403, 403, 503] {
        assert_eq!(http(&fixture, None, "POST /v1/redeem HTTP/1.1", &redeem).0, expected);
    }
    script.join().expect("script");
}

#[test]
fn frames_pass_between_control_and_rack_unchanged() {
    let fixture = fixture("relay");
    let wish = Wish::Chunk { name: ChunkName::of(b"chunk") };
    send(&fixture.rack, &ToGateway::Wish { wish }, &[]);
    while receive::<ToControl>(&fixture.control).0 != (ToControl::Wish { wish }) {}
    send(&fixture.control, &link::ToGateway::Fetched { wish, offset: 0, bytes_total: 5 }, b"chunk");
    let snapshot =
        link::ToGateway::Snapshot { generation: Generation(4), from: Some(Generation(3)), first: true, last: true };
    send(&fixture.control, &snapshot, b"zstd");
    let mut passed = Vec::new();
    while passed.len() < 2 {
        match receive::<ToRack>(&fixture.rack) {
            (ToRack::Control { .. }, _) => {}
            other => passed.push(other),
        }
    }
    let fetched = ToRack::Fetched { wish, offset: 0, bytes_total: 5 };
    let part = ToRack::Snapshot { generation: Generation(4), from: Some(Generation(3)), first: true, last: true };
    assert_eq!(passed, [(fetched, b"chunk".to_vec()), (part, b"zstd".to_vec())]);
}
