//! Sockets made the way the driver likes them. The supervisor makes a rack's own; these are for the transfers that a role
//! opens itself, for load generators and for tests.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{limits, sys};

/// How a UDP socket is to be.
#[derive(Clone, Debug, Default)]
pub struct Udp<'a> {
    /// Share the port with other sockets of the group (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Receive only from, and send only by, this interface (`SO_BINDTODEVICE`).
    pub interface: Option<&'a str>,
    /// Allow sending to broadcast addresses.
    pub broadcast: bool,
    /// Receive buffer in bytes; `None` leaves the system's default.
    pub receive_buffer_bytes: Option<usize>,
    /// Talk only to this peer.
    pub connect: Option<SocketAddr>,
}

/// A bound UDP socket that reports interface and destination of each datagram, without receive coalescing (`UDP_GRO` off), so
/// that a datagram is a datagram.
pub fn udp(local: SocketAddr, options: &Udp<'_>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(options.reuse_port)?;
    socket.bind_device(options.interface.map(str::as_bytes))?;
    socket.set_broadcast(options.broadcast)?;
    if let Some(bytes) = options.receive_buffer_bytes {
        set_receive_buffer(socket.as_fd(), bytes)?;
    }
    report_packet_information(socket.as_fd(), local.is_ipv6())?;
    sys::set_integer(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 0)?;
    socket.bind(&local.into())?;
    if let Some(peer) = options.connect {
        socket.connect(&peer.into())?;
    }
    Ok(socket.into())
}

/// How a TCP listener is to be.
#[derive(Clone, Debug)]
pub struct Listener<'a> {
    /// Share the port with other listeners of the group (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Accept only what comes in by this interface (`SO_BINDTODEVICE`).
    pub interface: Option<&'a str>,
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
}

impl Default for Listener<'_> {
    fn default() -> Self {
        Listener { reuse_port: false, interface: None, backlog: 4_096 }
    }
}

/// A listening TCP socket. Accepted connections inherit [`set_stream_options`].
pub fn tcp_listener(local: SocketAddr, options: &Listener<'_>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    socket.bind_device(options.interface.map(str::as_bytes))?;
    set_stream_options(socket.as_fd())?;
    socket.bind(&local.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// What every TCP socket of the data plane has: `TCP_NODELAY` (we say ourselves when more follows), and `TCP_NOTSENT_LOWAT` of
/// 128 KiB, so that a slow reader holds little unsent memory. On a listener, its connections inherit both.
pub fn set_stream_options(fd: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(128 << 10)
}

/// Makes a bound TCP socket accept connections; with one that does so already only its backlog changes (listen(2)).
pub fn listen(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).listen(limits::LISTEN_BACKLOG)
}

/// A packet socket bound to one interface and one EtherType (host order; `0x0003` for all), which receives whole frames
/// from others (not our own). Needs CAP_NET_RAW.
pub fn packet(interface: u32, ethertype: u16, promiscuous: Promiscuous) -> io::Result<OwnedFd> {
    // Protocol 0 until the bind: nothing of other interfaces or protocols may slip in between.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    sys::set_integer(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    socket.bind(&sys::link_address(interface, ethertype))?;
    if promiscuous == Promiscuous::On {
        sys::set_promiscuous(socket.as_fd(), interface)?;
    }
    Ok(socket.into())
}

/// Whether a packet socket gets frames for other MAC addresses too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promiscuous {
    /// Only for the interface's own address, broadcast and joined groups.
    Off,
    /// For every address.
    On,
}

const PACKET_IGNORE_OUTGOING: i32 = 23;

/// A raw ICMPv6 socket on one interface, joined to the all-routers group, that receives only messages of `message_type` (133:
/// router solicitations) and sends with hop limit 255 (RFC 4861 §6.1.1). Needs CAP_NET_RAW.
pub fn icmp_v6(interface: &str, message_type: u8) -> io::Result<OwnedFd> {
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let index = interface_index(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    sys::pass_icmp_v6_only(socket.as_fd(), message_type)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_unicast_hops_v6(255)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    report_packet_information(socket.as_fd(), true)?;
    Ok(socket.into())
}

/// Has the kernel report interface and destination address with each datagram (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
pub fn report_packet_information(fd: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        sys::set_integer(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        sys::set_integer(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Lets the kernel join the datagrams of one burst (`UDP_GRO`): what is received is then several of equal size and a last one
/// that may be shorter, and who receives must know the size.
pub fn set_receive_coalescing(fd: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_integer(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Sets the receive buffer beyond the system's limit where we may (CAP_NET_ADMIN), else up to it. Returns the size in
/// force, which the kernel counts double.
pub fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(fd, bytes).is_err() {
        SockRef::from(&fd).set_recv_buffer_size(bytes)?;
    }
    SockRef::from(&fd).recv_buffer_size()
}

/// The index of an interface by its name.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let probe = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&probe, name)?)
}

/// The local address of an IP socket.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SockRef::from(&fd).local_addr()?.as_socket().ok_or_else(not_ip)
}

/// The peer's address of a connected IP socket.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SockRef::from(&fd).peer_addr()?.as_socket().ok_or_else(not_ip)
}

fn not_ip() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "not an IP socket")
}

/// The socket of a connect operation: bound to `from` if given, with the port left to the connect.
pub(crate) fn for_connect(
    to: SocketAddr,
    from: Option<SocketAddr>,
    receive_bytes: Option<usize>,
) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    set_stream_options(socket.as_fd())?;
    // Before the handshake, which tells the peer how large a window can become.
    if let Some(bytes) = receive_bytes {
        set_receive_buffer(socket.as_fd(), bytes)?;
    }
    if let Some(from) = from {
        if from.port() == 0 {
            // Else a bound port is taken per socket, and 28,000 connections from one address are the end.
            sys::set_integer(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        socket.bind(&from.into())?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_index_and_nonsense_has_none() {
        assert!(interface_index("lo").unwrap() > 0);
        assert!(interface_index("nonsense0").is_err());
    }

    #[test]
    fn a_listener_tells_its_port() {
        let listener = tcp_listener("127.0.0.1:0".parse().unwrap(), &Listener::default()).unwrap();
        assert_ne!(local_address(listener.as_fd()).unwrap().port(), 0);
    }
}
