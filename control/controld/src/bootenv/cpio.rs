//! A writer of cpio archives in the format `newc`, as the kernel unpacks them (Linux: `initramfs buffer format`).
//!
//! The same input gives the same bytes: times are zero and inodes are counted.

/// Permissions and kind of a directory that everybody may enter.
const DIRECTORY: u32 = 0o040_755;
/// Kind of a regular file.
const FILE: u32 = 0o100_000;
/// Permissions and kind of a character device that only root may use.
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    /// Adds a directory; its parents must stand before it.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file with permissions `mode`.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, FILE | (mode & 0o7777), (0, 0), content);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// Header: magic, then thirteen fields of eight hexadecimal digits: inode, mode, uid, gid, links, time, length, device
    /// of the file system (2), device of the node (2), length of the name with its NUL, checksum (unused). Name and content
    /// are each filled up to a multiple of four.
    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        for field in [self.inode, mode, 0, 0, 1, 0, length, 0, 0, major, minor, name_length, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Cpio::default();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        archive.file("init", 0o755, b"hello");
        let bytes = archive.finish();
        let (mut at, mut seen) = (0, Vec::new());
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "entry at {at}");
            let field = |n: usize| {
                let digits = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).expect("digits");
                usize::from_str_radix(digits, 16).expect("hexadecimal")
            };
            let (mode, length, name_length) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_length - 1]).expect("name");
            let content = (at + 110 + name_length).next_multiple_of(4);
            seen.push((name.to_string(), mode, bytes[content..content + length].to_vec(), (field(9), field(10))));
            at = (content + length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
        }
        assert_eq!(at, bytes.len());
        assert_eq!(seen[0], ("dev".into(), 0o040_755, vec![], (0, 0)));
        assert_eq!(seen[1], ("dev/console".into(), 0o020_600, vec![], (5, 1)));
        assert_eq!(seen[2], ("init".into(), 0o100_755, b"hello".to_vec(), (0, 0)));
    }
}
