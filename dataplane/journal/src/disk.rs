//! The disk as the journal sees it: a handful of blocking operations inside one directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

/// A directory of files, written by one thread. Names are plain file names, chosen by the journal alone.
///
/// What an implementation promises: after [`Disk::sync`] returned, the file's octets survive a crash; after
/// [`Disk::sync_dir`] returned, all names do. Before that, any part of an append may be there after a crash, in any
/// order. After an error nothing is promised about the file concerned.
pub trait Disk: Send + 'static {
    /// An open file.
    type File: Send;

    /// Makes the file, or empties it if it is there; appends go to its end.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Opens a file that exists; appends go to its end.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;
    /// Appends all octets. On an error some of them may have been written.
    fn append(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's octets and length durable (`fdatasync`).
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Cuts the file to `bytes`; durable after the next [`Disk::sync`].
    fn truncate(&mut self, file: &mut Self::File, bytes: u64) -> io::Result<()>;
    /// Reads a whole file; fails with [`io::ErrorKind::FileTooLarge`] if it is longer than `bytes_max`.
    fn read(&mut self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Renames a file, replacing the other if it is there; durable after [`Disk::sync_dir`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Names of all files, in no order.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// Makes the names durable.
    fn sync_dir(&mut self) -> io::Result<()>;
    /// Random octets for the key of a new journal.
    fn random_key(&mut self) -> io::Result<[u8; 32]>;
}

/// A real directory. Files are readable by their owner only; the directory is locked for as long as this value lives,
/// so two processes cannot write one journal.
#[derive(Debug)]
pub struct RealDisk {
    directory: OwnedFd,
}

impl RealDisk {
    /// Opens the directory, making it (but not its parents) if it is missing. Fails with
    /// [`io::ErrorKind::WouldBlock`] if another process holds it.
    pub fn open(directory: &Path) -> io::Result<RealDisk> {
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) => {
                // The new name must be as durable as what is going to be written below it.
                let parent = match directory.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                rustix::fs::fsync(open_directory(parent)?)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let fd = open_directory(directory)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(RealDisk { directory: fd })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(fd))
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Disk for RealDisk {
    type File = File;

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::WRONLY | OFlags::APPEND)
    }

    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&mut self, file: &mut File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn read(&mut self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let bytes = file.metadata()?.len();
        if bytes > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.take(bytes_max).read_to_end(&mut content)?;
        Ok(content)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, rustix::fs::AtFlags::empty())?)
    }

    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn random_key(&mut self) -> io::Result<[u8; 32]> {
        let mut key = [0u8; 32];
        let mut filled = 0;
        while let Some(rest) = key.get_mut(filled..)
            && !rest.is_empty()
        {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(key)
    }
}
