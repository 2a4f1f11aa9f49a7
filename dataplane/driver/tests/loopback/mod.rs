//! Every operation of the driver, over loopback; run for each backend.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bootstorm_driver::limits::{AHEAD_PER_TURN_MAX, COMPLETIONS_PER_TURN_MAX};
use bootstorm_driver::socket::{self, Listener, Promiscuous, Udp};
use bootstorm_driver::*;
use bytes::Bytes;

/// A turn that takes longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

fn small() -> Config {
    Config {
        in_flight_max: 64,
        datagram_buffers: 8,
        stream_buffers: 8,
        connections_max: 64,
        sockets_max: 8,
        files_max: 2,
        choice: super::CHOICE,
        ..Config::default()
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Waits for completions until `found` has picked what it wants.
fn until<T>(driver: &mut Driver, mut found: impl FnMut(Completion) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut completions = Vec::new();
    loop {
        driver.wait(Some(deadline), &mut completions).unwrap();
        for completion in completions.drain(..) {
            if let Some(value) = found(completion) {
                return value;
            }
        }
        assert!(Instant::now() < deadline, "nothing came within {PATIENCE:?}");
    }
}

/// The last completion of the operation with this token; others are dropped.
fn last(driver: &mut Driver, token: Token) -> Event {
    until(driver, |completion| (completion.token == token && completion.is_last).then_some(completion.event))
}

fn submit(driver: &mut Driver, token: Token, operation: Operation) -> OperationId {
    driver.submit(token, operation).unwrap_or_else(|refused| panic!("{:?}", refused))
}

/// A connection of the driver's with a blocking peer.
fn connected(driver: &mut Driver) -> (ConnectionId, TcpStream) {
    let listener = std::net::TcpListener::bind(loopback()).unwrap();
    submit(driver, 900, Operation::Connect { to: listener.local_addr().unwrap(), from: None });
    // The backlog answers; operations reach the kernel with the next turn at the latest.
    let connection = match last(driver, 900) {
        Event::Connected(connection) => connection,
        other => panic!("{other:?}"),
    };
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (connection, peer)
}

#[test]
fn datagrams_come_with_sender_interface_and_destination_and_go_with_a_source() {
    let mut driver = Driver::new(&small()).unwrap();
    let wildcards = ["0.0.0.0:0", "[::]:0"].map(|wildcard| wildcard.parse::<SocketAddr>().unwrap());
    for (wildcard, is_ahead) in wildcards.into_iter().flat_map(|wildcard| [(wildcard, false), (wildcard, true)]) {
        let Ok(bound) = socket::udp(wildcard, &Udp::default()) else { continue };
        let port = socket::local_address(bound.as_fd()).unwrap().port();
        let host = if wildcard.is_ipv4() { "127.0.0.2" } else { "::1" }.parse().unwrap();
        let Ok(client) = UdpSocket::bind(SocketAddr::new(host, 0)) else { continue };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let socket = driver.add_socket(bound).unwrap();
        let receive =
            if is_ahead { Operation::ReceiveAhead { socket } } else { Operation::ReceiveDatagrams { socket } };
        submit(&mut driver, 1, receive);
        for round in 0..20u8 {
            client.send_to(&[round; 300], SocketAddr::new(host, port)).unwrap();
            let (peer, interface, to) = until(&mut driver, |completion| match completion.event {
                Event::Datagram(datagram) => {
                    assert_eq!(&*datagram.bytes, [round; 300]);
                    assert!(!datagram.is_truncated && !completion.is_last);
                    Some((datagram.peer, datagram.interface, datagram.destination))
                }
                _ => None,
            });
            assert_eq!(peer, Peer::Address(client.local_addr().unwrap()));
            assert_eq!((interface, to), (socket::interface_index("lo").unwrap(), Some(host)));
            let send = SendDatagram {
                socket,
                to: Destination::Address(client.local_addr().unwrap()),
                source: to,
                interface: Some(interface),
                parts: [Bytes::from_static(b"head"), Bytes::from_static(b"body")].into(),
                segment_bytes: None,
            };
            submit(&mut driver, 2, Operation::SendDatagram(send));
            assert!(matches!(last(&mut driver, 2), Event::Sent(8)));
            let mut answer = [0; 16];
            let (length, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], from.ip()), (&b"headbody"[..], host));
        }
        driver.remove_socket(socket);
        assert!(matches!(last(&mut driver, 1), Event::Cancelled));
    }
}

/// However many sockets are busy: the one that is ahead gives what it has first, and a bounded part of a turn.
#[test]
fn what_comes_ahead_waits_behind_nobody() {
    const BUSY: u64 = 64;
    let config = Config { in_flight_max: 128, sockets_max: 128, datagram_buffers: 1_024, ..small() };
    let mut driver = Driver::new(&config).unwrap();
    let client = UdpSocket::bind(loopback()).unwrap();
    let mut open = |token, ahead: bool| {
        let bound = socket::udp(loopback(), &Udp { receive_buffer_bytes: Some(4 << 20), ..Udp::default() }).unwrap();
        let to = socket::local_address(bound.as_fd()).unwrap();
        let socket = driver.add_socket(bound).unwrap();
        let receive = if ahead { Operation::ReceiveAhead { socket } } else { Operation::ReceiveDatagrams { socket } };
        (submit(&mut driver, token, receive), socket, to)
    };
    let busy: Vec<_> = (0..BUSY).map(|token| open(token + 100, false)).collect();
    let (operation, socket, ahead) = open(1, true);
    driver.wait(Some(Instant::now()), &mut Vec::new()).unwrap();
    for round in 0..4u8 {
        busy.iter().for_each(|(.., to)| assert_eq!(client.send_to(&[round], to).unwrap(), 1));
    }
    let sent: Vec<u16> = (0..300).collect();
    sent.iter().for_each(|number| assert_eq!(client.send_to(&number.to_be_bytes(), ahead).unwrap(), 2));
    let mut seen = Vec::new();
    for most in [AHEAD_PER_TURN_MAX, sent.len() - AHEAD_PER_TURN_MAX] {
        let mut completions = Vec::new();
        driver.wait(Some(Instant::now()), &mut completions).unwrap();
        assert!(completions.len() <= COMPLETIONS_PER_TURN_MAX);
        let first = completions.into_iter().take_while(|completion| completion.token == 1);
        let numbers = first.map(|completion| match completion.event {
            Event::Datagram(datagram) => u16::from_be_bytes([datagram.bytes[0], datagram.bytes[1]]),
            other => panic!("{other:?}"),
        });
        let before = seen.len();
        seen.extend(numbers);
        assert_eq!(seen.len() - before, most);
    }
    assert_eq!(seen, sent);
    driver.cancel(operation);
    assert!(matches!(last(&mut driver, 1), Event::Cancelled));
    // Removed with its operation not yet looked at, it still ends.
    submit(&mut driver, 2, Operation::ReceiveAhead { socket });
    driver.remove_socket(socket);
    assert!(matches!(last(&mut driver, 2), Event::Cancelled));
}

#[test]
fn a_connected_socket_echoes_datagrams_of_one_piece() {
    let mut driver = Driver::new(&small()).unwrap();
    let client = UdpSocket::bind(loopback()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = Udp { connect: Some(client.local_addr().unwrap()), ..Udp::default() };
    let bound = socket::udp(loopback(), &options).unwrap();
    client.connect(socket::local_address(bound.as_fd()).unwrap()).unwrap();
    let socket = driver.add_socket(bound).unwrap();
    submit(&mut driver, 1, Operation::ReceiveConnected { socket });
    for round in 0..20u8 {
        client.send(&[round; 300]).unwrap();
        let bytes = until(&mut driver, |completion| match completion.event {
            Event::Datagram(datagram) => {
                assert!(datagram.peer == Peer::Unknown && !datagram.is_truncated && !completion.is_last);
                Some(datagram.bytes.to_vec())
            }
            _ => None,
        });
        let to = Destination::Connected;
        let parts = bytes.into();
        let send = SendDatagram { socket, to, source: None, interface: None, parts, segment_bytes: None };
        submit(&mut driver, 2, Operation::SendDatagram(send));
        assert!(matches!(last(&mut driver, 2), Event::Sent(300)));
        let mut answer = [0; 400];
        assert_eq!(client.recv(&mut answer).unwrap(), 300);
        assert_eq!(answer[..300], [round; 300]);
    }
    client.send(&[7; 5_000]).unwrap();
    until(&mut driver, |completion| match completion.event {
        Event::Datagram(datagram) => {
            assert!(datagram.is_truncated);
            Some(())
        }
        _ => None,
    });
    driver.remove_socket(socket);
    assert!(matches!(last(&mut driver, 1), Event::Cancelled));
}

#[test]
fn a_window_of_segments_arrives_as_datagrams() {
    let mut driver = Driver::new(&small()).unwrap();
    let client = UdpSocket::bind(loopback()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = Udp { connect: Some(client.local_addr().unwrap()), ..Udp::default() };
    let socket = driver.add_socket(socket::udp(loopback(), &options).unwrap()).unwrap();
    let file = Bytes::from((0..5_000u32).map(|index| index as u8).collect::<Vec<_>>());
    // As TFTP does it: a header and a slice of the file for each block; the last block is shorter.
    let parts = (0..5usize)
        .flat_map(|block| {
            let slice = file.slice(block * 1_000..file.len().min(block * 1_000 + 1_000 - 200 * (block / 4)));
            [Bytes::from(vec![0, 3, 0, block as u8]), slice]
        })
        .collect::<Vec<_>>();
    let send = SendDatagram {
        socket,
        to: Destination::Connected,
        source: None,
        interface: None,
        parts: parts.into(),
        segment_bytes: NonZeroU16::new(1_004),
    };
    submit(&mut driver, 1, Operation::SendDatagram(send));
    assert!(matches!(last(&mut driver, 1), Event::Sent(4_820)));
    let mut datagram = [0; 2_000];
    for block in 0..5 {
        let length = client.recv(&mut datagram).unwrap();
        assert_eq!((length, &datagram[..4]), (if block == 4 { 804 } else { 1_004 }, &[0, 3, 0, block][..]));
        assert_eq!(&datagram[4..length], &file[usize::from(block) * 1_000..][..length - 4]);
    }
}

#[test]
fn a_datagram_longer_than_the_buffers_is_marked() {
    let mut driver = Driver::new(&Config { datagram_bytes_max: 100, ..small() }).unwrap();
    let bound = socket::udp(loopback(), &Udp::default()).unwrap();
    let to = socket::local_address(bound.as_fd()).unwrap();
    let socket = driver.add_socket(bound).unwrap();
    submit(&mut driver, 1, Operation::ReceiveDatagrams { socket });
    UdpSocket::bind(loopback()).unwrap().send_to(&[7; 3_000], to).unwrap();
    until(&mut driver, |completion| match completion.event {
        Event::Datagram(datagram) => {
            assert!(datagram.is_truncated && datagram.bytes.len() >= 100);
            Some(())
        }
        _ => None,
    });
}

/// Receivers rest when the caller holds all buffers, and go on by themselves: nothing is lost that the socket could hold.
#[test]
fn receiving_goes_on_after_all_buffers_were_taken() {
    let mut driver = Driver::new(&Config { datagram_buffers: 4, ..small() }).unwrap();
    let bound = socket::udp(loopback(), &Udp::default()).unwrap();
    let to = socket::local_address(bound.as_fd()).unwrap();
    let socket = driver.add_socket(bound).unwrap();
    submit(&mut driver, 1, Operation::ReceiveDatagrams { socket });
    let client = UdpSocket::bind(loopback()).unwrap();
    for index in 0..20u8 {
        client.send_to(&[index], to).unwrap();
    }
    let mut held = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let bytes = until(&mut driver, |completion| match completion.event {
            Event::Datagram(datagram) => {
                seen.push(datagram.bytes[0]);
                held.push(datagram.bytes);
                (held.len() == 4 || seen.len() == 20).then(|| std::mem::take(&mut held))
            }
            other => panic!("{other:?}"),
        });
        // All four are ours: a look finds no more until they go back.
        let mut completions = Vec::new();
        driver.wait(Some(Instant::now()), &mut completions).unwrap();
        assert!(completions.is_empty() || seen.len() == 20, "{completions:?}");
        drop(bytes);
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert!(driver.counters().buffers_exhausted > 0);
    let operation = submit(&mut driver, 2, Operation::ReceiveDatagrams { socket });
    driver.cancel(operation);
    assert!(matches!(last(&mut driver, 2), Event::Cancelled));
}

#[test]
fn a_stream_echoes_in_order_with_more_and_vectors() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    submit(&mut driver, 1, Operation::Receive { connection, repeat: Repeat::Continuous });
    peer.write_all(&[5; 50_000]).unwrap();
    let mut total = 0;
    until(&mut driver, |completion| match completion.event {
        Event::Bytes(bytes) => {
            assert!(bytes.iter().all(|byte| *byte == 5));
            total += bytes.len();
            (total == 50_000).then_some(())
        }
        other => panic!("{other:?}"),
    });
    let head = Operation::Send { connection, parts: Parts::from(&b"header "[..]), more: More::Follows };
    submit(&mut driver, 2, head);
    assert!(matches!(last(&mut driver, 2), Event::Sent(7)));
    let body: Vec<Bytes> = (0..200).map(|index| Bytes::from(vec![index as u8; 20_000])).collect();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    submit(&mut driver, 3, Operation::Send { connection, parts: body.clone().into(), more: More::Done });
    assert!(matches!(last(&mut driver, 3), Event::Sent(4_000_000)));
    driver.shutdown_write(connection).unwrap();
    let all = reader.join().unwrap().unwrap();
    assert_eq!(&all[..7], b"header ");
    assert!(all[7..] == body.concat());
    // The peer has closed: the armed receive ends.
    assert!(matches!(last(&mut driver, 1), Event::EndOfStream));
    driver.close(connection);
    assert_eq!((driver.connections(), driver.in_flight()), (0, 0));
}

#[test]
fn sealed_octets_arrive_whole_however_slowly_the_peer_reads() {
    let mut driver = Driver::new(&small()).unwrap();
    let octets: Vec<u8> = (0..8_000_003u32).map(|number| (number * 7 / 5) as u8).collect();
    let sealed = Sealed::new(&octets).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    for round in 0..3 {
        submit(&mut driver, 1, Operation::SendSealed { connection, sealed: sealed.clone() });
        let mut got = vec![0; octets.len()];
        let reader = std::thread::spawn(move || {
            peer.read_exact(&mut got).unwrap();
            (peer, got)
        });
        assert!(matches!(last(&mut driver, 1), Event::Sent(8_000_003)), "round {round}");
        let got;
        (peer, got) = reader.join().unwrap();
        assert!(got == octets, "round {round}");
    }
    // One that nobody reads can be cancelled, and one to a peer that has gone fails.
    let operation = submit(&mut driver, 2, Operation::SendSealed { connection, sealed: sealed.clone() });
    driver.cancel(operation);
    assert!(matches!(last(&mut driver, 2), Event::Cancelled));
    drop(peer);
    let failed = (0..100).any(|_| {
        submit(&mut driver, 3, Operation::SendSealed { connection, sealed: sealed.clone() });
        matches!(last(&mut driver, 3), Event::Failed(_))
    });
    assert!(failed && driver.in_flight() == 0);
}

#[test]
fn once_means_once_and_discard_counts() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    peer.write_all(&[1; 100]).unwrap();
    submit(&mut driver, 1, Operation::Receive { connection, repeat: Repeat::Once });
    assert!(matches!(last(&mut driver, 1), Event::Bytes(bytes) if bytes.len() == 100));
    peer.write_all(&[1; 100_000]).unwrap();
    let mut left = 100_000;
    while left > 0 {
        submit(&mut driver, 2, Operation::Discard { connection, length_max: 1 << 20 });
        match last(&mut driver, 2) {
            Event::Discarded(length) => left -= length,
            other => panic!("{other:?}"),
        }
    }
    drop(peer);
    submit(&mut driver, 3, Operation::Discard { connection, length_max: 1 });
    assert!(matches!(last(&mut driver, 3), Event::EndOfStream));
}

/// Closing with an armed receive must not leave the connection open in the kernel: the peer sees the end.
#[test]
fn close_ends_an_armed_receive_and_the_peer_sees_it() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    submit(&mut driver, 1, Operation::Receive { connection, repeat: Repeat::Continuous });
    driver.wait(Some(Instant::now()), &mut Vec::new()).unwrap();
    driver.close(connection);
    assert!(matches!(last(&mut driver, 1), Event::EndOfStream | Event::Cancelled));
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    let stale = driver.submit(2, Operation::Receive { connection, repeat: Repeat::Once }).unwrap_err();
    assert_eq!(stale.reason, Refusal::Closed);
}

#[test]
fn a_send_to_a_peer_that_does_not_read_can_be_cancelled() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, peer) = connected(&mut driver);
    let parts = Parts::from(vec![0; 64 << 20]);
    let operation = submit(&mut driver, 1, Operation::Send { connection, parts, more: More::Done });
    driver.wait(Some(Instant::now() + Duration::from_millis(20)), &mut Vec::new()).unwrap();
    assert_eq!(driver.in_flight(), 1);
    driver.cancel(operation);
    assert!(matches!(last(&mut driver, 1), Event::Cancelled));
    drop(peer);
}

#[test]
fn a_refused_connection_fails_with_the_kernels_reason() {
    let mut driver = Driver::new(&small()).unwrap();
    let closed = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    submit(&mut driver, 1, Operation::Connect { to: closed, from: Some(loopback()) });
    match last(&mut driver, 1) {
        Event::Failed(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
    let foreign = Some(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0)));
    let refused = driver.submit(2, Operation::Connect { to: closed, from: foreign }).unwrap_err();
    assert_eq!(refused.reason, Refusal::NoSocket(io::ErrorKind::AddrNotAvailable));
}

/// A thousand short connections through a driver that holds sixteen at a time: all are served, accepting rests in between.
#[test]
fn a_thousand_connections_churn_through_sixteen_places() {
    let mut driver = Driver::new(&Config { connections_max: 16, in_flight_max: 256, ..small() }).unwrap();
    let bound = socket::tcp_listener(loopback(), &Listener::default()).unwrap();
    let to = socket::local_address(bound.as_fd()).unwrap();
    let listener = driver.add_listener(bound).unwrap();
    let accepting = submit(&mut driver, 0, Operation::Accept { listener });
    let clients = std::thread::spawn(move || {
        for _ in 0..20 {
            let mut batch: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(to).unwrap()).collect();
            for client in &mut batch {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.write_all(b"ping").unwrap();
            }
            for client in &mut batch {
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"ping");
            }
        }
    });
    let mut served = 0;
    let mut next = 1;
    let mut by_token: HashMap<Token, ConnectionId> = HashMap::new();
    let mut pending: Vec<(Token, Operation)> = Vec::new();
    let mut completions = Vec::new();
    while served < 1_000 {
        let deadline = Instant::now() + PATIENCE;
        driver.wait(Some(deadline), &mut completions).unwrap();
        assert!(Instant::now() < deadline, "stuck after {served}: {:?}", driver.counters());
        assert!(driver.connections() <= 16);
        for completion in completions.drain(..) {
            let token = completion.token;
            match completion.event {
                Event::Accepted(connection) => {
                    assert!(driver.peer_address(connection).is_ok());
                    by_token.insert(next, connection);
                    pending.push((next, Operation::Receive { connection, repeat: Repeat::Once }));
                    next += 1;
                }
                Event::Bytes(bytes) => {
                    let parts = bytes.to_vec().into();
                    pending.push((token, Operation::Send { connection: by_token[&token], parts, more: More::Done }));
                }
                Event::Sent(4) => {
                    driver.close(by_token.remove(&token).unwrap());
                    served += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        for (token, operation) in pending.drain(..) {
            submit(&mut driver, token, operation);
        }
    }
    clients.join().unwrap();
    assert!(driver.counters().accept_paused > 0);
    driver.cancel(accepting);
    assert!(matches!(last(&mut driver, 0), Event::Cancelled));
    assert_eq!((driver.connections(), driver.in_flight()), (0, 0));
}

/// The table fills, which stops accepting; all connections are closed before the kernel has told that it stopped. A
/// driver that then waited for fewer connections than none would never accept again.
#[test]
fn accepting_goes_on_when_all_is_closed_before_it_has_stopped() {
    let mut driver = Driver::new(&Config { connections_max: 2, ..small() }).unwrap();
    let bound = socket::tcp_listener(loopback(), &Listener::default()).unwrap();
    let to = socket::local_address(bound.as_fd()).unwrap();
    let listener = driver.add_listener(bound).unwrap();
    submit(&mut driver, 1, Operation::Accept { listener });
    for _ in 0..20 {
        let _clients = [TcpStream::connect(to).unwrap(), TcpStream::connect(to).unwrap()];
        let mut open = Vec::new();
        until(&mut driver, |completion| match completion.event {
            Event::Accepted(connection) => {
                open.push(connection);
                (open.len() == 2).then_some(())
            }
            other => panic!("{other:?}"),
        });
        open.into_iter().for_each(|connection| driver.close(connection));
    }
    driver.remove_listener(listener);
    assert!(matches!(last(&mut driver, 1), Event::Cancelled));
}

#[test]
fn files_are_read_at_offsets_into_aligned_buffers() {
    let mut driver = Driver::new(&small()).unwrap();
    let path = std::env::temp_dir().join(format!("driver-read-{}", std::process::id()));
    std::fs::write(&path, (0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
    let file = driver.add_file(std::fs::File::open(&path).unwrap().into()).unwrap();
    std::fs::remove_file(&path).unwrap();
    for (offset, expected) in [(0, 65_536), (40_000, 65_536), (399_000, 1_000), (500_000, 0)] {
        submit(&mut driver, 1, Operation::Read { file, offset, buffer: Buffer::with_capacity(65_536) });
        match last(&mut driver, 1) {
            Event::Read(buffer) => {
                assert_eq!(buffer.len(), expected);
                let first = (offset as u32 / 4).to_le_bytes();
                assert!(expected == 0 || buffer[..4] == first);
            }
            other => panic!("{other:?}"),
        }
    }
    driver.remove_file(file);
    let buffer = Buffer::with_capacity(16);
    let stale = driver.submit(2, Operation::Read { file, offset: 0, buffer }).unwrap_err();
    assert!(stale.reason == Refusal::Closed && matches!(stale.operation, Operation::Read { .. }));
}

#[test]
fn a_full_queue_is_told_apart_and_gives_the_operation_back() {
    let mut driver = Driver::new(&Config { in_flight_max: 2, ..small() }).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    submit(&mut driver, 1, Operation::Receive { connection, repeat: Repeat::Once });
    let (other, _other_peer) = connected(&mut driver);
    submit(&mut driver, 2, Operation::Receive { connection: other, repeat: Repeat::Once });
    let operation = Operation::Send { connection, parts: b"x".to_vec().into(), more: More::Done };
    let refused = driver.submit(3, operation).unwrap_err();
    assert_eq!((refused.reason, driver.counters().queue_full), (Refusal::QueueFull, 1));
    peer.write_all(b"room").unwrap();
    assert!(matches!(last(&mut driver, 1), Event::Bytes(_)));
    submit(&mut driver, 3, refused.operation);
    assert!(matches!(last(&mut driver, 3), Event::Sent(1)));
}

#[test]
fn operations_beyond_their_limits_are_refused() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, _peer) = connected(&mut driver);
    let socket = driver.add_socket(socket::udp(loopback(), &Udp::default()).unwrap()).unwrap();
    let datagram = |parts: Parts, segment_bytes| {
        let to = Destination::Address(loopback());
        Operation::SendDatagram(SendDatagram { socket, to, source: None, interface: None, parts, segment_bytes })
    };
    let bad = [
        Operation::Send { connection, parts: Vec::<Bytes>::new().into(), more: More::Done },
        Operation::Send { connection, parts: vec![Bytes::from_static(b"x"); 1_000].into(), more: More::Done },
        Operation::Discard { connection, length_max: 0 },
        datagram(vec![0; 65_536].into(), None),
        datagram(vec![0; 1_000].into(), NonZeroU16::new(10)),
        Operation::Connect { to: loopback(), from: Some("[::1]:0".parse().unwrap()) },
    ];
    for operation in bad {
        assert_eq!(driver.submit(1, operation).unwrap_err().reason, Refusal::OutOfRange);
    }
    let full = Driver::new(&Config { sockets_max: 0, ..small() })
        .unwrap()
        .add_socket(socket::udp(loopback(), &Udp::default()).unwrap());
    assert!(matches!(full, Err(Error::TableFull { what: "sockets", limit: 0 })));
    assert!(matches!(Driver::new(&Config { stream_buffers: 3, ..small() }).err(), Some(Error::Config { .. })));
}

#[test]
fn a_waker_ends_a_wait_from_another_thread_again_and_again() {
    let mut driver = Driver::new(&small()).unwrap();
    let waker = driver.waker();
    let (go, told) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while told.recv().is_ok() {
            waker.clone().wake();
            waker.wake();
        }
    });
    for _ in 0..50 {
        go.send(()).unwrap();
        until(&mut driver, |completion| {
            assert_eq!(completion.token, WAKER_TOKEN);
            matches!(completion.event, Event::Woken).then_some(())
        });
    }
    drop(go);
    thread.join().unwrap();
    let late = driver.waker();
    drop(driver);
    late.wake();
}

#[test]
fn wait_returns_at_its_deadline_without_completions() {
    let mut driver = Driver::new(&small()).unwrap();
    let start = Instant::now();
    let mut completions = Vec::new();
    driver.wait(Some(start + Duration::from_millis(30)), &mut completions).unwrap();
    assert!(completions.is_empty() && start.elapsed() >= Duration::from_millis(30));
    driver.wait(Some(start), &mut completions).unwrap();
    assert!(completions.is_empty());
}

/// Dropping with everything in flight gives all memory back before it returns, and bytes kept outlive the driver.
#[test]
fn drop_cancels_and_drains() {
    let mut driver = Driver::new(&small()).unwrap();
    let (connection, mut peer) = connected(&mut driver);
    peer.write_all(b"kept").unwrap();
    submit(&mut driver, 1, Operation::Receive { connection, repeat: Repeat::Once });
    let kept = match last(&mut driver, 1) {
        Event::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    let socket = driver.add_socket(socket::udp(loopback(), &Udp::default()).unwrap()).unwrap();
    let listener = driver.add_listener(socket::tcp_listener(loopback(), &Listener::default()).unwrap()).unwrap();
    submit(&mut driver, 2, Operation::ReceiveDatagrams { socket });
    submit(&mut driver, 3, Operation::Accept { listener });
    submit(&mut driver, 4, Operation::Receive { connection, repeat: Repeat::Continuous });
    let parts = Parts::from(vec![1; 64 << 20]);
    submit(&mut driver, 5, Operation::Send { connection, parts, more: More::Done });
    driver.wait(Some(Instant::now()), &mut Vec::new()).unwrap();
    let start = Instant::now();
    drop(driver);
    assert!(start.elapsed() < Duration::from_secs(1), "drained at once, not by giving up");
    assert_eq!(&*kept, b"kept");
}

/// Needs CAP_NET_RAW; without it there is nothing to test.
#[test]
fn frames_go_out_and_come_in_by_a_packet_socket() {
    const EXPERIMENTAL: u16 = 0x88b5;
    let interface = socket::interface_index("lo").unwrap();
    let packet = match socket::packet(interface, EXPERIMENTAL, Promiscuous::On) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
        made => made.unwrap(),
    };
    let mut driver = Driver::new(&small()).unwrap();
    let socket = driver.add_socket(packet).unwrap();
    submit(&mut driver, 1, Operation::ReceiveDatagrams { socket });
    let frame = [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 0, 2], &EXPERIMENTAL.to_be_bytes(), &[9; 60]].concat();
    let to = Destination::Link { interface };
    let parts = frame.clone().into();
    let send = SendDatagram { socket, to, source: None, interface: None, parts, segment_bytes: None };
    submit(&mut driver, 2, Operation::SendDatagram(send));
    until(&mut driver, |completion| match completion.event {
        Event::Datagram(datagram) => {
            assert_eq!(&*datagram.bytes, frame);
            assert_eq!(datagram.peer, Peer::Link { mac: [2, 0, 0, 0, 0, 2], protocol: EXPERIMENTAL });
            assert_eq!(datagram.interface, interface);
            Some(())
        }
        _ => None,
    });
}
