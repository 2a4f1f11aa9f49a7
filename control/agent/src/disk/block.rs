//! A disk that is read and written in whole blocks, past the page cache where the kernel allows it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FallocateFlags;

use crate::sys;

/// Alignment of buffers in memory for direct I/O; no device asks for more.
const ALIGNMENT: usize = 4096;

/// A buffer that direct I/O accepts: its start is aligned, its length as asked for.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// A buffer of `length` zero bytes.
    pub fn new(length: usize) -> Buffer {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Buffer { bytes, start, length }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// Whether the page cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Past the page cache; offsets, lengths and buffers are multiples of the block size.
    Direct,
    /// Through it; offsets and lengths are free.
    Cached,
}

/// An open disk. In the tests, a regular file.
pub struct Device {
    file: File,
    /// Length in bytes.
    pub bytes: u64,
    /// Logical block size in bytes.
    pub block_bytes: u32,
}

impl Device {
    /// Opens a disk for reading and writing.
    pub fn open(path: &Path, block_bytes: u32, access: Access) -> io::Result<Device> {
        let flags = match access {
            Access::Direct => libc::O_DIRECT,
            Access::Cached => 0,
        };
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        Ok(Device { file, bytes, block_bytes })
    }

    /// Reads all of `buffer` from `offset`.
    pub fn read_at(&self, buffer: &mut Buffer, offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes the first `length` bytes of `buffer` at `offset`.
    pub fn write_at(&self, buffer: &Buffer, length: usize, offset: u64) -> io::Result<()> {
        let bytes = buffer.get(..length).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes a range of whole blocks read as zeros, by the cheapest way that guarantees it: *write zeroes* that may free
    /// the blocks, else *write zeroes* with the kernel's fall-back to writing, else writing from here.
    pub fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        for flags in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            if rustix::fs::fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, length).is_ok() {
                return Ok(());
            }
        }
        self.write_zeros(offset, length)
    }

    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        const PIECE: u64 = 1 << 20;
        let buffer = Buffer::new(1 << 20);
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = offset;
        while at < end {
            let piece = PIECE.min(end - at);
            self.write_at(&buffer, usize::try_from(piece).unwrap_or(0), at)?;
            at += piece;
        }
        Ok(())
    }

    /// Tells the disk that a range is not needed; what is read there afterwards is open.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        sys::discard(&self.file, offset, length)
    }

    /// Waits until everything written is on the medium.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Lets the kernel read the partition table again, trying for a few seconds while something holds a partition open.
    pub fn reread_partitions(&self) -> io::Result<()> {
        let mut tries = 50;
        loop {
            match sys::reread_partitions(&self.file) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => return other,
            }
        }
    }
}

/// A partition as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table.
    pub number: u32,
    /// Its device node.
    pub node: PathBuf,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The partitions of the disk with a kernel name, in order of their numbers.
pub fn partitions(disk: &str) -> Vec<Partition> {
    let directory = Path::new("/sys/block").join(disk);
    let mut found: Vec<Partition> = std::fs::read_dir(&directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok()?.trim().parse::<u64>().ok();
            Some(Partition {
                number: u32::try_from(number("partition")?).ok()?,
                node: Path::new("/dev").join(name),
                start: number("start")?.checked_mul(512)?,
                bytes: number("size")?.checked_mul(512)?,
            })
        })
        .collect();
    found.sort_by_key(|partition| partition.number);
    found
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file that stands for a disk; removed when dropped.
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        /// A file of `bytes` bytes, each 0xaa, under a name made from `name`.
        pub fn new(name: &str, bytes: usize) -> Scratch {
            let path = std::env::temp_dir().join(format!("bootstorm-agent-{name}-{}", std::process::id()));
            std::fs::write(&path, vec![0xaa; bytes]).expect("scratch file");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn zeroed_ranges_read_as_zeros_and_nothing_else_changes() {
        let scratch = Scratch::new("zero", 64 << 10);
        let device = Device::open(&scratch.0, 512, Access::Cached).expect("open");
        device.zero(4096, 8192).expect("zero");
        device.write_zeros(32 << 10, 512).expect("zero");
        let bytes = std::fs::read(&scratch.0).expect("read");
        for (at, byte) in bytes.iter().enumerate() {
            let zero = (4096..12288).contains(&at) || (32768..33280).contains(&at);
            assert_eq!(*byte, if zero { 0 } else { 0xaa }, "byte {at}");
        }
        assert_eq!(bytes.len(), 64 << 10);
    }

    #[test]
    fn buffers_are_aligned() {
        for length in [1, 512, 4096, 262_144] {
            let buffer = Buffer::new(length);
            assert_eq!((buffer.as_ptr() as usize % ALIGNMENT, buffer.len()), (0, length));
        }
    }
}
