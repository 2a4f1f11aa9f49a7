//! A realistic image: what a system's files are like in the order of a disk, without needing one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;

use bootstorm_tests::lab::{Error, process};

/// Directories whose files fill it. Libraries, programs and documentation compress about as a root file system does.
const SOURCES: [&str; 4] = ["usr/bin", "usr/sbin", "usr/lib", "usr/share"];

/// An image that was written.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Its octets.
    pub raw_bytes: u64,
}

/// Writes an image of so many octets, or fewer where this machine has no more files: a `tar` of them, cut off.
///
/// # Errors
/// When `tar` does not start or the image cannot be written.
pub fn write(path: &Path, bytes: u64) -> Result<Image, Error> {
    let mut tar = process::command("tar");
    tar.args(["--create", "--sort=name", "--directory=/", "--file=-"]).args(SOURCES);
    tar.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = tar.spawn().map_err(|source| Error::Start { command: "tar".to_owned(), source })?;
    let copied = match child.stdout.take() {
        Some(stdout) => File::create(path).and_then(|mut file| io::copy(&mut stdout.take(bytes), &mut file)),
        None => Ok(0),
    };
    // It is ended by the closed pipe, or has ended.
    let _status = child.wait();
    let raw_bytes = copied.map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(Image { raw_bytes })
}
