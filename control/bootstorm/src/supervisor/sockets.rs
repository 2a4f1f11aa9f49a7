//! Sockets of the rack and the gateway, opened once by the supervisor and passed to every incarnation of a role.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

use bootstorm_api::role::{Descriptor, RackInterface};
use socket2::{Domain, Protocol, Socket, Type};

/// Receive buffer of DHCP, TFTP and DNS sockets: a burst of 10,000 DISCOVERs of a kilobyte or so each.
const UDP_RECEIVE_BYTES: usize = 16 << 20;
/// Connections that may wait to be accepted on one listener.
const LISTEN_BACKLOG: i32 = 4096;

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {what} on interface `{interface}`: {source}{}", hint(source))]
pub struct SocketError {
    what: String,
    interface: String,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another server (dnsmasq, dhcpd, nginx, an older Bootstorm?) has the port",
        io::ErrorKind::PermissionDenied => "; start as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW",
        _ => "",
    }
}

/// A socket and what it is.
pub type Passed = (Descriptor, OwnedFd);

/// Ports of a rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// DHCP server port; 67 unless moved.
    pub dhcp: u16,
    /// TFTP port.
    pub tftp: u16,
    /// DNS port; 0: no DNS.
    pub dns: u16,
    /// HTTP port.
    pub http: u16,
    /// Agents' TLS port.
    pub agent: u16,
}

/// The rack role's sockets on one interface; HTTP, TFTP and DNS once per shard.
pub fn rack(interface: &RackInterface, ports: Ports, shards: u16) -> Result<Vec<Passed>, SocketError> {
    let index = interface.index;
    let on = |what: &str, result: io::Result<Socket>| result.map_err(|source| failed(what, interface, source));
    let mut passed: Vec<Passed> = vec![
        (Descriptor::Dhcp { interface: index }, on("DHCP (UDP 67)", dhcp(interface, ports.dhcp))?.into()),
        (Descriptor::Packet { interface: index }, on("a packet socket", packet(interface))?.into()),
    ];
    match icmp6(interface) {
        Ok(socket) => passed.push((Descriptor::Icmp6 { interface: index }, socket.into())),
        // A host without IPv6 has no router solicitations to answer.
        Err(error) => {
            tracing::warn!(interface = %interface.name, %error, "no ICMPv6: router solicitations stay unanswered")
        }
    }
    for shard in 0..shards {
        let tftp = on(&format!("TFTP (UDP {})", ports.tftp), udp(interface.address, ports.tftp))?;
        passed.push((Descriptor::Tftp { interface: index, shard }, tftp.into()));
        if ports.dns != 0 {
            let dns = on(&format!("DNS (UDP {})", ports.dns), udp(interface.address, ports.dns))?;
            passed.push((Descriptor::Dns { interface: index, shard }, dns.into()));
        }
        let http = on(&format!("HTTP (TCP {})", ports.http), tcp(interface.address, ports.http))?;
        passed.push((Descriptor::Http { interface: index, shard }, http.into()));
    }
    Ok(passed)
}

/// The gateway role's listener on one interface.
pub fn gateway(interface: &RackInterface, port: u16) -> Result<Passed, SocketError> {
    let socket =
        tcp(interface.address, port).map_err(|e| failed(&format!("agents' TLS (TCP {port})"), interface, e))?;
    Ok((Descriptor::AgentTls { interface: interface.index }, socket.into()))
}

/// A TCP socket for `bootstorm serve`, bound; it listens when there is something to serve.
pub fn listener(address: SocketAddrV4) -> io::Result<TcpListener> {
    bound_tcp(*address.ip(), address.port()).map(TcpListener::from)
}

/// A TFTP socket for `bootstorm serve`.
pub fn datagram(address: SocketAddrV4) -> io::Result<std::net::UdpSocket> {
    udp(*address.ip(), address.port()).map(std::net::UdpSocket::from)
}

fn failed(what: &str, interface: &RackInterface, source: io::Error) -> SocketError {
    SocketError { what: what.into(), interface: interface.name.clone(), source }
}

fn dhcp(interface: &RackInterface, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    // Broadcasts of this interface only; another interface has a socket of its own.
    socket.bind_device(Some(interface.name.as_bytes()))?;
    deepen(&socket);
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket)
}

fn packet(interface: &RackInterface) -> io::Result<Socket> {
    // Protocol 0: nothing is received before the rack asks for it; sending names its own protocol.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    Ok(socket)
}

fn icmp6(interface: &RackInterface) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    // Hop limit 255 both ways (RFC 4861 §6.1.1); all-routers is where solicitations go (§6.2.6).
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    socket.join_multicast_v6(&"ff02::2".parse().map_err(io::Error::other)?, interface.index)?;
    socket.set_multicast_if_v6(interface.index)?;
    Ok(socket)
}

fn udp(address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    deepen(&socket);
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket)
}

fn tcp(address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = bound_tcp(address, port)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
}

fn bound_tcp(address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket)
}

/// As deep a receive buffer as this process may have.
fn deepen(socket: &Socket) {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, UDP_RECEIVE_BYTES).is_err() {
        // Without CAP_NET_ADMIN the kernel gives what `net.core.rmem_max` allows.
        let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BYTES);
    }
}
