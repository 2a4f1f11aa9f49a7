//! Octets in a memory file that nobody can write any more, for what is sent to many as it is.
//!
//! A send passes the kernel references to the file's pages instead of a copy of them. A socket may hold such a reference long after the
//! send has completed (until the peer has acknowledged, on loopback until it has read), so the pages must never change: the
//! file is sealed, and its memory is given back to the kernel, which reuses it when the last reference has gone. Memory that is
//! used again by us, as an arena's is, must not be sent like that.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Octets that do not change. A clone costs a counter; each one made holds a descriptor until its last clone has gone.
#[derive(Clone, Debug)]
pub struct Sealed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: OwnedFd,
    length: usize,
}

impl Sealed {
    /// A copy of these octets, at least one.
    ///
    /// # Errors
    /// When the process has no descriptor left, or the system no memory; before Linux 6.3; [`io::ErrorKind::InvalidInput`] for none.
    pub fn new(octets: &[u8]) -> io::Result<Sealed> {
        if octets.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut file = File::from(memfd_create(c"sealed", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)?);
        file.write_all(octets)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Sealed(Arc::new(Inner { file: file.into(), length: octets.len() })))
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.length
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.0.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_what_is_sealed() {
        let sealed = Sealed::new(b"octets").expect("a memory file");
        let writable = File::from(sealed.file().try_clone().expect("a descriptor"));
        let refused = |outcome: io::Result<()>| outcome.expect_err("sealed").kind();
        assert_eq!(refused((&writable).write_all(b"x")), io::ErrorKind::PermissionDenied);
        assert_eq!(refused(writable.set_len(3)), io::ErrorKind::PermissionDenied);
        assert_eq!(sealed.len(), 6);
        assert!(Sealed::new(b"").is_err());
    }
}
