//! Programs and configurations of the peers. Configurations are committed under `bench/peers`; words in capitals stand for
//! places of a run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bootstorm_tests::lab::Error;

/// A program that `bench/setup.sh` only unpacked, because it would run as a service or its package shuts another one out.
pub fn unpacked(path: &str) -> PathBuf {
    // Servers are started in directories of their own.
    std::path::absolute(Path::new(".lab/peers").join(path)).unwrap_or_else(|_| path.into())
}

/// Writes a configuration with its places put in.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str, places: &[(&str, &str)]) -> Result<(), Error> {
    let text = places.iter().fold(text.to_owned(), |text, (word, place)| text.replace(word, place));
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)
        // Workers that are nobody look into it as well.
        .and_then(|()| fs::set_permissions(directory, PermissionsExt::from_mode(0o755)))
        .and_then(|()| fs::write(path, text))
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

/// A directory in memory, for files that a tuned server would keep there; on disk where there is none.
///
/// # Errors
/// When it cannot be made.
pub fn memory_directory() -> Result<tempfile::TempDir, Error> {
    let root = Path::new("/dev/shm");
    let made = if root.is_dir() { tempfile::tempdir_in(root) } else { tempfile::tempdir() };
    made.map_err(|source| Error::File { path: root.to_owned(), source })
}

/// Program and arguments of Kea's DHCPv4 server, with its lock and PID files in `place`: it takes both places from the
/// environment only.
pub fn kea(place: &Path, configuration: &Path) -> (PathBuf, Vec<String>) {
    let place = place.display();
    let words = [
        format!("KEA_PIDFILE_DIR={place}"),
        format!("KEA_LOCKFILE_DIR={place}"),
        unpacked("usr/sbin/kea-dhcp4").display().to_string(),
        "-c".to_owned(),
        configuration.display().to_string(),
    ];
    (PathBuf::from("env"), words.to_vec())
}
