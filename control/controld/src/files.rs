//! Files of the data directory: written whole by rename, readable by their owner only where they hold secrets.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::error::{Error, Result};

/// Makes a directory and those above it, mode 0700.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file(path))
}

/// Writes a file of mode 0600, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o600)
}

/// Writes a file that everybody may read, whole or not at all.
pub(crate) fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(Error::file(path))
}

/// Reads a file that must be readable by its owner only.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(Error::file(path))?;
    if metadata.mode() & 0o077 != 0 {
        let source = std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            "others may read this secret; set its mode to 0600",
        );
        return Err(Error::File { path: path.into(), source });
    }
    fs::read(path).map_err(Error::file(path))
}
