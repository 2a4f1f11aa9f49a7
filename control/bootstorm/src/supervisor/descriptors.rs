//! Frames of [`bootstorm_api::role`] over a unix stream, with descriptors by SCM_RIGHTS (unix(7)).
//!
//! The descriptors of a message travel with its first byte. A receiver takes the prefix with room for descriptors and
//! then the body without, so descriptors can only arrive where they are expected.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bootstorm_api::frame;
use bootstorm_api::role::ToRole;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// Descriptors of one message: below the kernel's SCM_MAX_FD of 253.
pub const DESCRIPTORS_MAX: usize = 240;

/// Sends one message with its descriptors.
pub fn send(stream: &UnixStream, message: &ToRole, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let bytes = frame::encode(message, &[]).map_err(io::Error::other)?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let sent = rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Receives one message with its descriptors; `None` at the end of the stream.
pub fn receive(stream: &UnixStream) -> io::Result<Option<(ToRole, Vec<OwnedFd>)>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut prefix = [0u8; frame::PREFIX_BYTES];
    let received = rustix::net::recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut prefix)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut reader = stream;
    if let Some(rest) = prefix.get_mut(received.bytes..) {
        reader.read_exact(rest)?;
    }
    let (header, attachment) = frame::lengths(prefix).map_err(io::Error::other)?;
    let mut body = vec![0u8; header + attachment];
    reader.read_exact(&mut body)?;
    let (message, _) = frame::decode_body(&body, header).map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_api::role::RoleName;

    #[test]
    fn messages_and_descriptors_arrive_together_and_in_order() {
        let (here, there) = UnixStream::pair().expect("pair");
        let (left, right) = UnixStream::pair().expect("pair");
        send(&here, &ToRole::Peer { peer: RoleName::Rack }, &[left.as_fd()]).expect("send");
        send(&here, &ToRole::Peer { peer: RoleName::Bmc }, &[]).expect("send");
        drop((left, here));
        let (message, mut descriptors) = receive(&there).expect("receive").expect("a message");
        assert_eq!(message, ToRole::Peer { peer: RoleName::Rack });
        let mut passed = UnixStream::from(descriptors.pop().expect("one descriptor"));
        let mut right = right;
        passed.write_all(b"x").expect("write");
        let mut byte = [0u8; 1];
        right.read_exact(&mut byte).expect("read");
        let (message, descriptors) = receive(&there).expect("receive").expect("a message");
        assert_eq!((message, descriptors.len()), (ToRole::Peer { peer: RoleName::Bmc }, 0));
        assert!(receive(&there).expect("end").is_none());
    }
}
