//! A whole node against a scripted world.

use bootstorm_proto::dhcp::client::Profile;
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_proto::dhcp::wire::{BootFile, LeaseTimes, ProxyDhcpWait, Reply, Request as Asked};

use super::*;
use crate::schedule::Firmware;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A node with an iPXE ROM, and the time.
struct Play {
    node: Node,
    now: Duration,
}

impl Play {
    fn new() -> Play {
        Play::with(Firmware::Ipxe, Settings::default())
    }

    fn with(firmware: Firmware, settings: Settings) -> Play {
        let start = Start { due: Duration::ZERO, mac: [2, 0, 0, 0, 0, 1], firmware, seed: 1 };
        let mut node = Node::new(1, start, Rc::new(settings));
        node.start(Duration::ZERO);
        Play { node, now: Duration::ZERO }
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    /// Lets time pass up to the node's next timer.
    fn pass(&mut self) -> Vec<Action> {
        self.now = self.node.next_timeout().expect("the node waits for something");
        self.node.handle_timeout(self.now);
        self.actions()
    }

    /// Leases an address with this boot file; gives what the node does then.
    fn lease(&mut self, boot_file: Option<&str>) -> Vec<Action> {
        for message_type in [MessageType::Offer, MessageType::Ack] {
            let mut sent = self.actions();
            if sent.is_empty() {
                // Firmware that waits for further offers.
                sent = self.pass();
            }
            let [Action::SendDhcp(message)] = sent.as_slice() else { panic!("{sent:?}") };
            let reply = Reply {
                your_ip: Ipv4Addr::new(10, 0, 0, 9),
                lease: Some(LeaseTimes::new(600)),
                subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                boot_file: boot_file.map(|name| BootFile { name, server_name: None }),
                proxy_dhcp_wait: ProxyDhcpWait::Skip,
                ..Reply::new(message_type, SERVER)
            };
            let mut buffer = [0; 1_500];
            let length = reply.encode(&Asked::parse(message).unwrap(), &mut buffer).unwrap().bytes;
            self.node.handle_dhcp(self.now, &buffer[..length]);
        }
        assert_eq!(self.actions(), [Action::UseAddress(Ipv4Addr::new(10, 0, 0, 9), 24)]);
        self.node.handle_address(self.now, true);
        let mut actions = self.actions();
        assert_eq!(actions.remove(0), Action::Announce(Ipv4Addr::new(10, 0, 0, 9)));
        actions
    }

    /// Answers a request on a connection that now stands.
    fn answer(&mut self, response: &[u8]) -> Vec<Action> {
        self.node.handle_connected(self.now);
        let sent = self.actions();
        assert!(matches!(sent.as_slice(), [Action::Send(_), Action::Receive]), "{sent:?}");
        self.node.handle_bytes(self.now, response);
        self.actions()
    }

    fn failure(&mut self) -> Reason {
        match self.node.take_ended().expect("the node has ended").ending {
            Ending::Failed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn without_a_server_the_node_asks_as_its_firmware_does_and_gives_up() {
    let mut play = Play::new();
    let mut sent = play.actions().len();
    while play.node.next_timeout().is_some() {
        sent += play.pass().len();
    }
    assert_eq!(sent, Profile::IPXE_BIOS.retry_seconds.len());
    assert_eq!(play.failure(), Reason::Dhcp(dhcp::Failure::NoOffer));
}

#[test]
fn a_lease_without_boot_file_or_address_is_told() {
    let mut play = Play::new();
    play.lease(None);
    assert_eq!(play.failure(), Reason::NoBootFile);
    let mut play = Play::new();
    play.lease(Some("ftp://10.0.0.1/x"));
    assert_eq!(play.failure(), Reason::Url);
}

#[test]
fn a_refused_connection_is_tried_again_after_a_pause_and_not_for_ever() {
    let mut play = Play::new();
    let mut actions = play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
    let mut connects = 0;
    while let Some(Action::Connect(from, to)) = actions.pop() {
        assert_eq!((from, to.port()), (Ipv4Addr::new(10, 0, 0, 9), 5248));
        connects += 1;
        play.node.handle_broken(play.now, ErrorKind::ConnectionRefused);
        assert_eq!(play.actions(), [Action::Close]);
        if play.node.next_timeout().is_none() {
            break;
        }
        let before = play.now;
        actions = play.pass();
        assert_eq!(play.now - before, CONNECT_PAUSE);
    }
    assert_eq!(connects, CONNECTS_MAX + 1);
    assert_eq!(play.failure(), Reason::Connection(ErrorKind::ConnectionRefused));
}

#[test]
fn errors_of_the_server_are_told_by_status_and_busy_ones_waited_for() {
    let mut play = Play::new();
    play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
    let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(play.answer(busy), [Action::Close]);
    assert!(matches!(play.pass().as_slice(), [Action::Connect(..)]));
    assert_eq!(play.now, Duration::from_secs(9));
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(play.answer(missing), [Action::Close]);
    assert_eq!(play.failure(), Reason::Status(404));
}

#[test]
fn a_script_that_leads_nowhere_or_a_silent_server_ends_the_boot() {
    let response = |script: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{script}", script.len());
    let mut play = Play::new();
    play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
    play.answer(response("#!ipxe\nsanboot --no-describe --drive 0x80 || exit\n").as_bytes());
    assert_eq!(play.failure(), Reason::LocalDisk);
    let mut play = Play::new();
    play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
    let kernel = "#!ipxe\nkernel /kernel quiet\nboot\n";
    assert!(matches!(play.answer(response(kernel).as_bytes()).as_slice(), [Action::Send(_), Action::Receive]));
    play.node.handle_bytes(play.now, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(play.actions(), [Action::Discard(5)]);
    play.node.handle_discarded(play.now, 5);
    assert_eq!(play.actions(), [Action::Close]);
    assert_eq!(play.failure(), Reason::NoClaim);
    let mut play = Play::new();
    play.lease(Some("http://10.0.0.1:5248/boot.ipxe"));
    play.node.handle_connected(Duration::ZERO);
    while play.node.next_timeout().is_some() {
        play.pass();
    }
    assert_eq!(play.failure(), Reason::Silent);
}

#[test]
fn firmware_and_loaders_give_up_by_their_own_timers() {
    let silent = Reason::Silent;
    let tftp = Reason::Tftp(bootstorm_proto::tftp::client::Outcome::ServerSilent);
    for (firmware, file, seconds, reason) in [
        (Firmware::Http, "http://10.0.0.1/x.efi", 5.0, silent.clone()),
        (Firmware::Ipxe, "http://10.0.0.1/x.ipxe", 15.75, silent),
        (Firmware::Uefi, "tftp://10.0.0.1/x.efi", 24.0, tftp.clone()),
        (Firmware::Ipxe, "tftp://10.0.0.1/x.ipxe", 15.75, tftp),
    ] {
        let mut play = Play::with(firmware, Settings { patience: Patience::AsFirmware, ..Settings::default() });
        play.lease(Some(file));
        let before = play.now;
        while play.node.next_timeout().is_some() {
            play.pass();
        }
        assert_eq!((play.now - before).as_secs_f64(), seconds, "{file}");
        assert_eq!(play.failure(), reason, "{file}");
    }
}

#[test]
fn an_image_that_breaks_off_is_gone_on_with_where_it_did() {
    let raw = [b'a'; 10];
    let text = format!("http://10.0.0.2/disk,blake3={}", blake3::hash(&raw).to_hex());
    let settings = Settings { image: Some(text.parse().unwrap()), verify_every: 1, ..Settings::default() };
    let mut play = Play::with(Firmware::Ipxe, settings);
    play.lease(Some("http://10.0.0.1/boot.ipxe"));
    let script = "#!ipxe\nkernel /kernel\nboot\n";
    let response = |script: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{script}", script.len());
    play.answer(response(script).as_bytes());
    play.node.handle_bytes(play.now, response("").as_bytes());
    assert!(matches!(play.actions().as_slice(), [Action::Close, Action::Connect(..)]), "another server");
    let part = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\naaa";
    assert_eq!(play.answer(part), [Action::Receive]);
    play.node.handle_broken(play.now, ErrorKind::ConnectionReset);
    assert_eq!(play.actions(), [Action::Close]);
    assert!(matches!(play.pass().as_slice(), [Action::Connect(..)]));
    play.node.handle_connected(play.now);
    let sent = play.actions();
    let [Action::Send(request), Action::Receive] = sent.as_slice() else { panic!("{sent:?}") };
    assert!(String::from_utf8_lossy(request).contains("Range: bytes=3-9\r\n"));
    let rest = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-9/10\r\nContent-Length: 7\r\n\r\naaaaaaa";
    play.node.handle_bytes(play.now, rest);
    assert_eq!(play.node.take_ended().map(|ended| ended.ending), Some(Ending::Done));
}
