//! A directory as an origin.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

use super::{Failed, Item};

/// Reads one file below the directory. Its name is made of a hash and constants, never of what a peer says.
pub(super) async fn fetch(root: PathBuf, item: Item) -> Result<Vec<u8>, Failed> {
    let read = tokio::task::spawn_blocking(move || {
        let file = File::open(root.join(item.name())).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failed::Absent,
            _ => Failed::Broken(error.to_string()),
        })?;
        let mut bytes = Vec::new();
        let bound = item.bytes_max() as u64;
        file.take(bound + 1).read_to_end(&mut bytes).map_err(|error| Failed::Broken(error.to_string()))?;
        if bytes.len() as u64 > bound { Err(Failed::TooLong(item.bytes_max())) } else { Ok(bytes) }
    });
    read.await.unwrap_or_else(|error| Err(Failed::Broken(error.to_string())))
}
