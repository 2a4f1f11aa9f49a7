//! Small files, read with a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file of at most `bytes_max` bytes; a longer one is an error.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_from(File::open(path)?, bytes_max)
}

/// Reads an open file of at most `bytes_max` bytes; a longer one is an error.
pub fn read_from(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Reads a text file of at most `bytes_max` bytes; bytes that are not UTF-8 are replaced.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read(path, bytes_max)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_longer_than_the_bound_is_an_error() {
        let path = std::env::temp_dir().join(format!("bootstorm-agent-files-{}", std::process::id()));
        std::fs::write(&path, b"12345").expect("write");
        assert_eq!(read(&path, 5).expect("fits"), b"12345");
        assert!(read(&path, 4).is_err());
        std::fs::remove_file(&path).expect("remove");
    }
}
