//! The system calls that no safe wrapper offers. The only unsafe code of the agent.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

/// `_IO(0x12, 95)`: reread the partition table.
const BLKRRPART: libc::c_ulong = 0x125f;
/// `_IO(0x12, 119)`: discard a range.
const BLKDISCARD: libc::c_ulong = 0x1277;
/// `_IOW('f', 16, u64)`: grow a mounted ext4.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// `KEXEC_FILE_NO_INITRAMFS`.
const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel read a disk's partition table again. Fails with `EBUSY` while a partition is open or mounted.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call's duration; this request takes no argument.
    checked(unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as _, 0) })
}

/// Discards `length` bytes from `offset`, both multiples of the block size. Says nothing about what is read afterwards.
pub fn discard(disk: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: the request reads two u64 from the pointer, and `range` lives until the call returns.
    checked(unsafe { libc::ioctl(disk.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) })
}

/// Grows the mounted ext4 that `file` belongs to to `blocks` of its blocks.
pub fn resize_ext4(file: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the request reads one u64 from the pointer, which lives until the call returns.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, std::ptr::from_ref(&blocks)) })
}

/// Loads a kernel for `reboot(RB_KEXEC)`. The kernel checks signatures where lockdown asks for it.
pub fn load_kexec(kernel: &File, initrd: Option<&File>, command_line: &CStr) -> io::Result<()> {
    let (initrd_fd, flags) = match initrd {
        Some(file) => (file.as_raw_fd(), 0),
        None => (-1, KEXEC_FILE_NO_INITRAMFS),
    };
    let bytes = command_line.to_bytes_with_nul();
    // SAFETY: both descriptors are open for the call's duration, and the pointer and length name one live C string
    // with its NUL, which the kernel copies.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            libc::c_long::from(kernel.as_raw_fd()),
            libc::c_long::from(initrd_fd),
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel reap children by itself: PID 1 inherits every orphan and waits for none.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition of SIGCHLD, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Brings an interface up; with an address, sets it and its mask first.
pub fn set_interface(name: &str, address: Option<(Ipv4Addr, Ipv4Addr)>) -> io::Result<()> {
    let socket = control_socket()?;
    if let Some((address, mask)) = address {
        for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
            let mut frame = interface_request(name)?;
            frame.ifr_ifru.ifru_addr = socket_address(value);
            // SAFETY: the request reads one `ifreq`, whose name ends in NUL and whose address member is set.
            checked(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, std::ptr::from_ref(&frame)) })?;
        }
    }
    let mut frame = interface_request(name)?;
    // SAFETY: the request reads and writes one `ifreq`, whose name ends in NUL.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, std::ptr::from_mut(&mut frame)) })?;
    // SAFETY: SIOCGIFFLAGS has just set this member of the union.
    let flags = i32::from(unsafe { frame.ifr_ifru.ifru_flags }) | libc::IFF_UP;
    frame.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request reads one `ifreq`, whose name ends in NUL and whose flags member is set.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&frame)) })
}

/// Adds the default route by `gateway`.
pub fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let socket = control_socket()?;
    // SAFETY: `rtentry` is plain data (integers, addresses, one pointer) for which all zeros is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the request reads one `rtentry`; its device pointer is null, which means any device.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, std::ptr::from_ref(&route)) })
}

fn control_socket() -> io::Result<std::net::UdpSocket> {
    std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data for which all zeros is a valid value.
    let mut frame: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= frame.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (slot, byte) in frame.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    Ok(frame)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0 as libc::c_char; 14];
    for (slot, byte) in data.iter_mut().skip(2).zip(address.octets()) {
        *slot = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_where_sockaddr_in_has_it() {
        let address = socket_address(Ipv4Addr::new(10, 1, 2, 254));
        assert_eq!(address.sa_data[..7], [0, 0, 10, 1, 2, 254u8 as libc::c_char, 0]);
    }

    #[test]
    fn names_of_interfaces_are_bounded() {
        assert!(interface_request("").is_err());
        assert!(interface_request("a-name-of-16-byt").is_err());
        assert!(interface_request("eth0").is_ok());
    }
}
