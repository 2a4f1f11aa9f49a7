//! The same journal on a real directory.

use bootstorm_journal::{Error, Journal, OnDamage};
use std::path::PathBuf;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("bootstorm-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn survives_reopening_truncation_and_compaction() {
    let directory = Directory::new("reopen");
    {
        let (mut journal, recovered) = Journal::open_directory(&directory.0, OnDamage::Refuse).unwrap();
        assert!(recovered.is_empty());
        journal.append(&[b"one", b"two"]).unwrap();
        journal.commit().unwrap();
        assert!(matches!(Journal::open_directory(&directory.0, OnDamage::Refuse), Err(Error::InUse { .. })));
    }
    let name = std::fs::read_dir(&directory.0).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&name).unwrap();
    let whole = bytes.len() as u64;
    bytes.extend_from_slice(&[0xab; 77]);
    std::fs::write(&name, &bytes).unwrap();
    std::fs::write(directory.0.join("segment.tmp"), b"left by a crash").unwrap();
    {
        let (mut journal, recovered) = Journal::open_directory(&directory.0, OnDamage::Refuse).unwrap();
        assert_eq!(recovered.torn_bytes, 77);
        assert_eq!(recovered.len(), 2);
        assert_eq!(std::fs::metadata(&name).unwrap().len(), whole);
        journal.compact(&[b"both"]).unwrap();
        journal.append(&[b"three"]).unwrap();
        journal.commit().unwrap();
    }
    let (_, recovered) = Journal::open_directory(&directory.0, OnDamage::Refuse).unwrap();
    let payloads: Vec<&[u8]> = recovered.records().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [b"both".as_slice(), b"three".as_slice()]);
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 1);
}
