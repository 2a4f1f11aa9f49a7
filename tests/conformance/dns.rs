//! Other people's DNS clients against the rack role on loopback: dig, kdig, drill, and rules one by one through dnspython.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bootstorm_api::role::{Descriptor, Driver, RackConfig, RackDns, RackInterface};
use bootstorm_rackd::{Error, Stop, confine, run, write_base};
use bootstorm_snapshot::dhcp::Octets;
use bootstorm_snapshot::dns::{DnsName, Name, RecordSet, Zone, kind};
use bootstorm_snapshot::record::Record;
use bootstorm_snapshot::{Generation, Mac, View};

/// A rack that answers DNS on loopback and ends with this value.
struct Rack {
    dns: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), Error>>>,
    _peers: Sender<UnixStream>,
}

impl Rack {
    fn start(data: &Path) -> Rack {
        let snapshot = data.join("snapshot");
        std::fs::create_dir_all(&snapshot).expect("made");
        write_base(&snapshot, view()).expect("written");
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let dns_at = dns.local_addr().expect("address");
        let interface = RackInterface {
            name: "lo".into(),
            index: 1,
            mac: Mac([0; 6]),
            address: Ipv4Addr::LOCALHOST,
            prefix_bits: 8,
            mtu: 1500,
        };
        let config = RackConfig {
            data: data.to_path_buf(),
            interfaces: vec![interface],
            http_port: http.local_addr().expect("address").port(),
            agent_port: 5249,
            shards: 1,
            cache_bytes: None,
            driver: Driver::Auto,
            dns: RackDns { client_answers: u32::MAX, stranger_answers: u32::MAX },
        };
        let descriptors = vec![
            (Descriptor::Http { interface: 1, shard: 0 }, http.into()),
            (Descriptor::Dns { interface: 1, shard: 0 }, dns.into()),
        ];
        let (peers, receiver) = channel();
        let stop = Stop::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let confined = confine(&config.data)?;
            run(config, descriptors, receiver, confined, stopped)
        });
        Rack { dns: dns_at, stop, thread: Some(thread), _peers: peers }
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.stop.trigger();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("no panic").expect("a clean end");
        }
    }
}

/// One of everything that the rules speak of.
fn view() -> View {
    let name = |text: &str| text.parse::<DnsName>().expect("a name");
    let a = |last| RecordSet::a(60, [[10, 0, 0, last].into()]);
    let of = |kind, target: &str| RecordSet::of_names(kind, 60, [&name(target)]);
    let text = RecordSet {
        kind: kind::TXT,
        ttl_seconds: 60,
        data: (0..20).map(|n| Octets([&[99][..], &[b'a' + n; 99]].concat())).collect(),
    };
    let mut view = View { generation: Generation(1), ..View::default() };
    for apex in ["z.test", "10.in-addr.arpa"] {
        view.put(Record::Zone(Zone {
            name: name(apex),
            primary: name("ns.z.test"),
            contact: name("root.z.test"),
            serial: 1,
            refresh_seconds: 3_600,
            retry_seconds: 600,
            expire_seconds: 86_400,
            negative_seconds: 30,
            ttl_seconds: 60,
        }));
        view.put(Record::Name(Name { name: name(apex), sets: vec![of(kind::NS, "ns.z.test")] }));
    }
    for (owner, sets) in [
        ("ns.z.test", vec![a(53)]),
        ("n1.z.test", vec![a(1), RecordSet::aaaa(60, ["2001:db8::1".parse().expect("address")])]),
        ("a.b.c.z.test", vec![a(2)]),
        ("*.w.z.test", vec![a(3)]),
        ("own.w.z.test", vec![a(4)]),
        ("alias.z.test", vec![of(kind::CNAME, "n1.z.test")]),
        ("dangling.z.test", vec![of(kind::CNAME, "none.z.test")]),
        ("far.z.test", vec![of(kind::CNAME, "host.example")]),
        ("sub.z.test", vec![of(kind::NS, "ns.sub.z.test")]),
        ("ns.sub.z.test", vec![a(5)]),
        ("big.z.test", vec![text]),
        ("1.0.0.10.in-addr.arpa", vec![of(kind::PTR, "n1.z.test")]),
    ] {
        view.put(Record::Name(Name { name: name(owner), sets }));
    }
    view
}

/// What a client prints; it must succeed.
fn client(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new("timeout");
    command.arg("30").args(words.by_ref()).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "`{line}`: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
#[ignore = "needs clients: make test"]
fn dig_kdig_and_drill_read_the_answers() {
    let data = tempfile::tempdir().expect("directory");
    let rack = Rack::start(data.path());
    let port = rack.dns.port();
    let short = |tool: &str, name: &str, kind: &str| match tool {
        "drill" => {
            let text = client(&format!("drill -4 -p {port} @127.0.0.1 {name} {kind}"));
            let answers = text.lines().skip_while(|line| !line.contains("ANSWER SECTION"));
            let answers = answers.skip(1).take_while(|line| !line.is_empty());
            answers.filter_map(|line| line.split('\t').next_back()).map(|data| format!("{data}\n")).collect()
        }
        tool => client(&format!("{tool} +short +notcp -p {port} @127.0.0.1 {name} {kind}")),
    };
    for tool in ["dig", "kdig", "drill"] {
        for (name, kind, expected) in [
            ("n1.z.test", "A", "10.0.0.1\n"),
            ("N1.z.TEST", "AAAA", "2001:db8::1\n"),
            ("any.w.z.test", "A", "10.0.0.3\n"),
            ("alias.z.test", "A", "n1.z.test.\n10.0.0.1\n"),
            ("z.test", "NS", "ns.z.test.\n"),
            ("z.test", "SOA", "ns.z.test. root.z.test. 1 3600 600 86400 30\n"),
            ("1.0.0.10.in-addr.arpa", "PTR", "n1.z.test.\n"),
            ("b.c.z.test", "A", ""),
            ("none.z.test", "A", ""),
        ] {
            assert_eq!(short(tool, name, kind), expected, "{tool} {name} {kind}");
        }
    }
    let whole = |line: &str| client(&format!("dig +notcp -p {port} @127.0.0.1 {line}"));
    let referral = whole("x.sub.z.test A");
    assert!(
        referral.contains("AUTHORITY: 1, ADDITIONAL: 2") && referral.contains("ns.sub.z.test.\t\t60\tIN\tA\t10.0.0.5")
    );
    let cookie = whole("+cookie=0011223344556677 n1.z.test A");
    assert!(cookie.contains("COOKIE: 0011223344556677") && cookie.contains("(good)"), "{cookie}");
    assert!(whole("+ignore +noedns big.z.test TXT").contains("flags: qr aa tc rd"));
    assert!(whole("+ednsopt=100:abcd +edns=0 n1.z.test A").contains("status: NOERROR"));
    assert!(whole("-c CH version.bind TXT").contains("status: REFUSED"));
    assert!(whole("+opcode=NOTIFY z.test SOA").contains("status: NOTIMP"));
}

#[test]
#[ignore = "needs python3-dnspython: make test"]
fn dns_rules_hold_one_by_one() {
    let data = tempfile::tempdir().expect("directory");
    let rack = Rack::start(data.path());
    // The system's own, which has the package.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/rules_of_dns.py");
    client(&format!("/usr/bin/python3 {} 127.0.0.1 {}", script.display(), rack.dns.port()));
    // A rack that has been asked all this still answers.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    socket.send_to(b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x02n1\x01z\x04test\0\0\x01\0\x01", rack.dns).expect("sent");
    assert_eq!(socket.recv(&mut [0; 512]).expect("an answer"), 12 + 11 + 4 + 16);
}
