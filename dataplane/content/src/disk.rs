//! The disk as the content store writes it. Reading is by `pread` on the files that [`Disk::open`] gives, so that the
//! driver reads the same descriptors.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading at any offset.
    Read,
    /// Appending at the end.
    Append,
}

/// One directory with two levels. Names are relative paths that the store alone makes (`packs/….pack`).
///
/// After [`Disk::sync`] the file's octets survive a crash, after [`Disk::sync_directory`] the names in it; before that
/// any part may be there. After an error nothing is promised about the file concerned.
pub trait Disk: Send + Sync + 'static {
    /// Makes a file for appending, emptying it if it is there.
    fn create(&self, name: &str) -> io::Result<File>;
    /// Opens a file that exists.
    fn open(&self, name: &str, access: Access) -> io::Result<File>;
    /// Appends all octets to `file`, which was opened under `name`.
    fn append(&self, name: &str, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Makes octets and length of `file` durable.
    fn sync(&self, name: &str, file: &File) -> io::Result<()>;
    /// Cuts `file` to a length.
    fn truncate(&self, name: &str, file: &File, bytes: u64) -> io::Result<()>;
    /// Gives back the room that octets of `file` take, which read as zeros afterwards; the length stays. Not every file system can.
    fn punch(&self, name: &str, file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        let _ = (name, file, offset, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Renames, replacing.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes a directory below the root; no error if it is there.
    fn make_directory(&self, name: &str) -> io::Result<()>;
    /// Names of the files in a directory below the root, in no order.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Makes a directory's names durable; `.` is the root.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
}

/// A real directory, locked against other processes while this value lives; files are their owner's only.
#[derive(Debug)]
pub struct RealDisk {
    root: OwnedFd,
}

impl RealDisk {
    /// Opens the directory, making it (but not its parents) if it is missing. Fails with
    /// [`io::ErrorKind::WouldBlock`] if another process holds it.
    pub fn open(directory: &Path) -> io::Result<RealDisk> {
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive)?;
        Ok(RealDisk { root })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(&self.root, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn directory(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.root, name, flags, Mode::empty())?)
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<File> {
        match access {
            Access::Read => self.open_file(name, OFlags::RDONLY),
            Access::Append => self.open_file(name, OFlags::WRONLY | OFlags::APPEND),
        }
    }

    fn append(&self, _name: &str, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, _name: &str, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, _name: &str, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn punch(&self, _name: &str, file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(file, flags, offset, bytes)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, name, rustix::fs::AtFlags::empty())?)
    }

    fn make_directory(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.root, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.directory(directory)?)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.directory(directory)?)?)
    }
}
