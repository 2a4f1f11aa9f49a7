//! Laying out the files of a directory for others to fill from: what a web server, a bucket or a directory then holds
//! (`bootstorm_api::origin`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bootstorm_api::origin::FILES_NAME;
use bootstorm_content::Store;
use bootstorm_engine::Index;
use bootstorm_engine::http::{CHUNK_PREFIX, MANIFEST_PREFIX};
use bootstorm_snapshot::Encoding;

use crate::Error;
use crate::serve::import;

/// Cuts the files of a directory and writes chunks, manifests and their list below `target`, which is made if it is missing; returns
/// how many files there are. What is there by the right name is kept, as names are hashes; the list comes last and whole.
///
/// # Errors
/// As [`serve`](crate::serve) for what cannot be served, and what the disk refuses.
pub fn export(directory: &Path, target: &Path, encoding: Encoding) -> Result<usize, Error> {
    for below in [MANIFEST_PREFIX, CHUNK_PREFIX] {
        let path = target.join(below);
        fs::create_dir_all(&path).map_err(Error::file("making directory", &path))?;
    }
    // Chunks are cut and compressed once, by the same code that serves them.
    let work = target.join(".store");
    let store = Store::open(&work)?;
    let files = import(directory, &store, encoding)?;
    let mut written = BTreeSet::new();
    for file in &files {
        let manifest = store.manifest(&file.manifest)?;
        for entry in manifest.manifest().entries().iter().filter(|entry| !entry.is_hole()) {
            if written.insert(entry.name) {
                let path = target.join(format!("{CHUNK_PREFIX}{}", entry.name));
                if !path.exists() {
                    put(&path, &store.read_chunk(&entry.name)?)?;
                }
            }
        }
        put(&target.join(format!("{MANIFEST_PREFIX}{}", file.manifest)), &manifest.manifest().encode())?;
    }
    let count = files.len();
    put(&target.join(FILES_NAME), Index::of_files(files).listing())?;
    drop(store);
    fs::remove_dir_all(&work).map_err(Error::file("removing", &work))?;
    Ok(count)
}

/// Writes a file whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).map_err(Error::file("writing", &partial))?;
    fs::rename(&partial, path).map_err(Error::file("renaming", path))
}
