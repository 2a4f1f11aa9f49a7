//! A mounted file system that is entered only below its root: no symbolic link of the image leads out of it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// Whether it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// A directory that is the root of all paths given to it. Unmounts itself when it was mounted by [`Root::mount`].
pub struct Root {
    directory: Option<OwnedFd>,
    mounted_at: Option<PathBuf>,
}

impl Root {
    /// Mounts a device at a directory, which is made.
    pub fn mount(node: &Path, kind: &str, at: &Path, purpose: Purpose) -> io::Result<Root> {
        std::fs::create_dir_all(at)?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let flags = if purpose == Purpose::Read { flags | MountFlags::RDONLY } else { flags };
        rustix::mount::mount(node, at, kind, flags, None)?;
        let mut root = Root { directory: None, mounted_at: Some(at.to_path_buf()) };
        root.directory = Some(open_directory(at)?);
        Ok(root)
    }

    /// A directory as it is, for the tests.
    #[cfg(test)]
    pub fn at(directory: &Path) -> io::Result<Root> {
        Ok(Root { directory: Some(open_directory(directory)?), mounted_at: None })
    }

    /// Opens a file for reading; symbolic links are followed as the installed system would.
    pub fn open(&self, path: &str) -> io::Result<File> {
        self.open_with(path, OFlags::RDONLY, Mode::empty()).map(File::from)
    }

    /// Whether a path leads to something.
    pub fn exists(&self, path: &str) -> bool {
        self.open_with(path, OFlags::PATH, Mode::empty()).is_ok()
    }

    /// The root directory itself, for requests to its file system.
    pub fn directory(&self) -> io::Result<File> {
        self.open(".")
    }

    /// Writes a file, made anew with `mode`, and the directories above it.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.remove(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut file = File::from(self.open_with(path, flags, Mode::from_raw_mode(mode))?);
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Makes a symbolic link, in place of what was there.
    pub fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let (parent, name) = self.remove(path)?;
        Ok(rustix::fs::symlinkat(target, &parent, name)?)
    }

    /// Makes room for a file: removes what is there and makes the directories above it. Returns the last of them, and
    /// the file's name in it.
    fn remove<'p>(&self, path: &'p str) -> io::Result<(OwnedFd, &'p str)> {
        self.make_directories(path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let parent = self.open_with(parent, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok((parent, name)),
            Err(error) => Err(error.into()),
        }
    }

    fn make_directories(&self, path: &str) -> io::Result<()> {
        let mut above = String::new();
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        for name in names.split_last().map(|(_, above)| above).unwrap_or_default() {
            let parent = if above.is_empty() { "." } else { above.as_str() };
            let parent = self.open_with(parent, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
            match rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(name);
        }
        Ok(())
    }

    fn open_with(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(self.descriptor()?, path, flags, mode, ResolveFlags::IN_ROOT)?)
    }

    fn descriptor(&self) -> io::Result<&OwnedFd> {
        self.directory.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Unmounts, after everything is on the disk.
    pub fn unmount(mut self) -> io::Result<()> {
        if let Some(directory) = self.directory.take() {
            rustix::fs::syncfs(&directory)?;
        }
        match self.mounted_at.take() {
            Some(at) => Ok(rustix::mount::unmount(&at, UnmountFlags::empty())?),
            None => Ok(()),
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.directory = None;
        if let Some(at) = self.mounted_at.take() {
            // Nothing can be done here about a file system that stays busy; a sync precedes every reboot.
            let _ = rustix::mount::unmount(&at, UnmountFlags::DETACH);
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// An empty directory as a root; removed when dropped.
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        /// A directory under a name made from `name`.
        pub fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("bootstorm-agent-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("directory");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_of_the_image_do_not_lead_out() {
        let scratch = Scratch::new("mounted");
        let outside = Scratch::new("mounted-outside");
        std::fs::create_dir_all(scratch.0.join("etc")).expect("directory");
        symlink(&outside.0, scratch.0.join("var")).expect("link");
        symlink("../../../../etc", scratch.0.join("usr")).expect("link");
        std::fs::write(outside.0.join("secret"), "x").expect("file");
        let root = Root::at(&scratch.0).expect("root");
        assert!(root.open("var/secret").is_err());
        assert!(root.write("var/lib/x", b"x", 0o600).is_err(), "an absolute link names a place in the image");
        root.write("usr/lib/x", b"y", 0o640).expect("a relative link stays inside");
        assert_eq!(std::fs::read(scratch.0.join("etc/lib/x")).expect("there"), b"y");
        let mode = std::fs::metadata(scratch.0.join("etc/lib/x")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(std::fs::read_dir(&outside.0).expect("directory").count() == 1);
    }

    #[test]
    fn files_and_links_are_made_anew() {
        let scratch = Scratch::new("mounted-anew");
        let root = Root::at(&scratch.0).expect("root");
        root.write("a/b/c", b"long content", 0o644).expect("write");
        root.write("a/b/c", b"short", 0o600).expect("write again");
        assert_eq!(std::fs::read(scratch.0.join("a/b/c")).expect("there"), b"short");
        root.link("a/d/l", "/a/b/c").expect("link");
        root.link("a/d/l", "../b/c").expect("link again");
        assert!(root.exists("a/d/l") && !root.exists("a/d/m"));
    }
}
