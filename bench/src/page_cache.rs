//! The page cache as far as it concerns a directory's files: what of them it holds, and how to begin without.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bootstorm_tests::lab::{Error, process};

/// Drops a directory's files out of the page cache, and only those: other work on this machine keeps its own.
///
/// # Errors
/// When a file cannot be read or synced.
pub fn evict(directory: &Path) -> Result<(), Error> {
    let evicted = |path: &PathBuf| -> io::Result<()> {
        let file = File::open(path)?;
        // What is not yet on the disk cannot be dropped.
        file.sync_data()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    };
    files(directory)?
        .iter()
        .try_for_each(|path| evicted(path).map_err(|source| Error::File { path: path.clone(), source }))
}

/// Octets of a directory's files that the page cache holds.
///
/// # Errors
/// When `fincore` (util-linux) is missing or does not say.
pub fn resident_bytes(directory: &Path) -> Result<u64, Error> {
    let mut fincore = process::command("fincore");
    fincore.args(["--bytes", "--noheadings", "--output", "RES"]).args(files(directory)?);
    let answer = process::run(&mut fincore)?;
    let pages: Option<Vec<u64>> = answer.split_whitespace().map(|word| word.parse().ok()).collect();
    pages.map(|pages| pages.iter().sum()).ok_or_else(|| Error::Answer {
        command: "fincore".to_owned(),
        missing: "octets".to_owned(),
        answer,
    })
}

/// All regular files below it.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut look = || -> io::Result<()> {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if kind.is_file() {
                    found.push(entry.path());
                }
            }
            Ok(())
        };
        look().map_err(|source| Error::File { path: directory.clone(), source })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_resident_until_it_is_evicted() {
        // Beside this program, which is on a disk; /tmp may be memory.
        let program = std::env::current_exe().unwrap();
        let place = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let below = place.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("file"), vec![7; 1 << 20]).unwrap();
        evict(place.path()).unwrap();
        let before = resident_bytes(place.path()).unwrap();
        fs::read(below.join("file")).unwrap();
        assert_eq!((before, resident_bytes(place.path()).unwrap()), (0, 1 << 20));
    }
}
