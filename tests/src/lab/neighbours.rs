//! The kernel's neighbour-table limits: a storm of a thousand machines on one segment is more than their defaults hold.

use std::fs;
use std::path::PathBuf;

/// Limits wanted for a storm: when collection starts, when it is urgent, and the most entries there may be.
const WANTED: [u64; 3] = [8_192, 16_384, 32_768];

/// Raised limits. Dropping it puts back what was there before.
#[derive(Debug)]
pub struct Raised {
    before: Vec<(PathBuf, String)>,
    /// What could not be raised, in words for people.
    pub refused: Option<String>,
}

impl Raised {
    /// Raises the limits of both address families where they are lower. They belong to the host, not to a namespace, so
    /// that a refusal is no error: the storm may then be slower.
    pub fn new() -> Self {
        let mut raised = Self { before: Vec::new(), refused: None };
        for family in ["ipv4", "ipv6"] {
            // From the largest down: each must not be above the next.
            for (index, wanted) in WANTED.iter().enumerate().rev() {
                let path = PathBuf::from(format!("/proc/sys/net/{family}/neigh/default/gc_thresh{}", index + 1));
                let Ok(text) = fs::read_to_string(&path) else { continue };
                if text.trim().parse::<u64>().is_ok_and(|now| now >= *wanted) {
                    continue;
                }
                match fs::write(&path, wanted.to_string()) {
                    Ok(()) => raised.before.push((path, text)),
                    Err(error) => {
                        raised.refused = Some(format!("{} stays at {}: {error}", path.display(), text.trim()))
                    }
                }
            }
        }
        raised
    }
}

impl Default for Raised {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        for (path, text) in self.before.iter().rev() {
            if let Err(error) = fs::write(path, text) {
                eprintln!("{} was {} and could not be put back: {error}", path.display(), text.trim());
            }
        }
    }
}
