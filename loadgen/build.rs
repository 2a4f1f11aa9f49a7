//! Finds the committed records of the bench whose figures `loadgen plan` counts with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Suites that measure what a plan uses.
const SUITES: [&str; 3] = ["http", "tftp", "dhcp"];

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let results = manifest.join("../bench/results");
    println!("cargo::rerun-if-changed={}", results.display());
    let mut text = "&[\n".to_owned();
    for suite in SUITES {
        let path: &Path = &results.join(suite).with_extension("json");
        if path.exists() {
            // Formatting into a string does not fail.
            let _ = writeln!(text, "(\"bench/results/{suite}.json\", include_str!({path:?})),");
        }
    }
    fs::write(out.join("records.rs"), text + "]\n")
}
