//! Socket options and addresses for which no safe wrapper exists. Each function is safe to call with any arguments.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

/// Sets an option whose value is a plain C struct or integer.
fn set_option<T: Copy>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives through the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an integer option.
pub(crate) fn set_integer(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(fd, level, name, &value)
}

/// Lets through only ICMPv6 messages of this type (RFC 3542 §3.2).
pub(crate) fn pass_icmp_v6_only(fd: BorrowedFd<'_>, message_type: u8) -> io::Result<()> {
    const ICMP6_FILTER: i32 = 1;
    let mut blocked = [u32::MAX; 8];
    blocked[usize::from(message_type >> 5)] &= !(1 << (message_type & 31));
    set_option(fd, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)
}

/// Receives frames for every MAC address while this packet socket is open, not only the interface's own.
pub(crate) fn set_promiscuous(fd: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: interface as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// A link-level address (`sockaddr_ll`): the interface to bind to or send from. `protocol` in host order; 0 for sending.
pub(crate) fn link_address(interface: u32, protocol: u16) -> SockAddr {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the closure writes a whole `sockaddr_ll`, which fits into the storage and needs no more than its alignment, and sets
    // the length to its size.
    let initialised = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    match initialised {
        Ok(((), address)) => address,
        Err(error) => unreachable!("the closure cannot fail: {error}"),
    }
}
