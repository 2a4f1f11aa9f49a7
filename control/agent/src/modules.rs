//! Kernel modules without any tool: `modules.dep`, `modules.alias`, and what sysfs says about the devices present.
//!
//! Loading is repeated until a round loads nothing, because one driver makes the devices of the next appear. A module
//! that cannot be loaded is left out: the hardware it was for may not even be there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::limits;

/// Modules that no device asks for, in the order they are tried.
const ALWAYS: &[&str] = &[
    "crc32c_generic",
    "crc32c_intel",
    "efivarfs",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "nls_utf8",
];

/// The two tables of a kernel's modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Name of a module → its file, and the files it needs, nearest first.
    modules: BTreeMap<String, Entry>,
    /// Patterns of device names, and the module for each, in the table's order.
    aliases: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    file: String,
    needs: Vec<String>,
}

impl Tables {
    /// Reads the texts of `modules.dep` and `modules.alias`; lines of another shape are left out.
    pub fn parse(dependencies: &str, aliases: &str) -> Tables {
        let mut tables = Tables::default();
        for line in dependencies.lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_ascii_whitespace().map(str::to_string).collect();
                tables.modules.insert(name_of(file), Entry { file: file.to_string(), needs });
            }
        }
        for line in aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                tables.aliases.push((pattern.to_string(), canonical(module)));
            }
        }
        tables
    }

    /// The modules whose patterns match a device's name.
    pub fn for_device(&self, modalias: &str) -> Vec<&str> {
        let matching = |(pattern, _): &&(String, String)| matches(pattern.as_bytes(), modalias.as_bytes());
        self.aliases.iter().filter(matching).map(|(_, module)| module.as_str()).collect()
    }

    /// Files to load for a module, in order; empty if there is no such module (it may be built in).
    pub fn files(&self, module: &str) -> Vec<&str> {
        let Some(entry) = self.modules.get(&canonical(module)) else { return Vec::new() };
        entry.needs.iter().rev().map(String::as_str).chain([entry.file.as_str()]).collect()
    }
}

/// The modules of the running kernel, and which were tried.
pub struct Loader {
    directory: PathBuf,
    tables: Tables,
    tried: BTreeSet<String>,
}

impl Loader {
    /// Reads the tables under `/lib/modules/RELEASE`; a kernel without modules has none.
    pub fn open(release: &str) -> Loader {
        let directory = Path::new("/lib/modules").join(release);
        let read = |name: &str| crate::files::read_text(&directory.join(name), limits::MODULE_TABLE_BYTES_MAX);
        let tables =
            Tables::parse(&read("modules.dep").unwrap_or_default(), &read("modules.alias").unwrap_or_default());
        Loader { directory, tables, tried: BTreeSet::new() }
    }

    /// Loads what no device names: checksums, file systems, firmware variables. Returns how many were loaded.
    pub fn load_always(&mut self) -> usize {
        ALWAYS.iter().map(|module| self.load(module)).sum()
    }

    /// Loads drivers for the devices present until a round loads nothing. Returns how many were loaded.
    pub fn coldplug(&mut self) -> usize {
        let mut total = 0;
        for _ in 0..limits::COLDPLUG_ROUNDS_MAX {
            let mut loaded = 0;
            for device in device_names(Path::new("/sys/devices")) {
                let modules: Vec<String> = self.tables.for_device(&device).into_iter().map(str::to_string).collect();
                loaded += modules.iter().map(|module| self.load(module)).sum::<usize>();
            }
            total += loaded;
            if loaded == 0 {
                break;
            }
        }
        total
    }

    fn load(&mut self, module: &str) -> usize {
        let files: Vec<String> = self.tables.files(module).into_iter().map(str::to_string).collect();
        let mut loaded = 0;
        for file in files {
            if !self.tried.insert(file.clone()) {
                continue;
            }
            match insert(&self.directory.join(&file)) {
                Ok(()) => loaded += 1,
                // Loaded already, or its hardware is not there: neither is worth a line.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENODEV)) => {}
                Err(error) => crate::log!("module {file}: {error}"),
            }
        }
        loaded
    }
}

fn insert(path: &Path) -> io::Result<()> {
    if path.extension().is_some_and(|e| e == "zst") {
        let packed = std::fs::read(path)?;
        let image = zstd::bulk::decompress(&packed, packed_length(&packed)?)?;
        return Ok(rustix::system::init_module(&image, c"")?);
    }
    Ok(rustix::system::finit_module(std::fs::File::open(path)?, c"", 0)?)
}

/// Raw length as the frame's header says, within the limit; a frame without one is taken to need the limit.
fn packed_length(packed: &[u8]) -> io::Result<usize> {
    let said = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let bytes = said.and_then(|b| usize::try_from(b).ok()).unwrap_or(limits::MODULE_BYTES_MAX);
    if bytes > limits::MODULE_BYTES_MAX { Err(io::Error::from(io::ErrorKind::InvalidData)) } else { Ok(bytes) }
}

/// All distinct device names (`modalias` files) below a directory of sysfs; symbolic links are not followed.
fn device_names(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut waiting = vec![root.to_path_buf()];
    let mut visited = 0;
    while let Some(directory) = waiting.pop() {
        visited += 1;
        if visited > limits::SYSFS_DIRECTORIES_MAX {
            break;
        }
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    if !text.trim().is_empty() {
                        names.insert(text.trim().to_string());
                    }
                }
                _ => {}
            }
        }
    }
    names
}

/// `kernel/drivers/net/virtio-net.ko.zst` → `virtio_net`.
fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    canonical(base.split_once(".ko").map_or(base, |(stem, _)| stem))
}

/// The kernel's spelling: dashes and underscores are the same.
fn canonical(module: &str) -> String {
    module.replace('-', "_")
}

/// Shell pattern (`*`, `?`, `[abc]`, `[a-z]`) against a whole text, without recursion: time is at most the product of the
/// two lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => Some(1),
            (Some(b'['), Some(byte)) => class(pattern.get(p..).unwrap_or_default(), *byte),
            (Some(want), Some(byte)) if want == byte => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((after, from))) if from < text.len() => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Length of the bracket expression at the start of `pattern` if it holds `byte`.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|b| *b == b']')?;
    let inside = pattern.get(1..end)?;
    let mut i = 0;
    while let Some(low) = inside.get(i) {
        let high = match (inside.get(i + 1), inside.get(i + 2)) {
            (Some(b'-'), Some(high)) => {
                i += 2;
                high
            }
            _ => low,
        };
        if (*low..=*high).contains(&byte) {
            return Some(end + 1);
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko.zst: kernel/drivers/net/net_failover.ko.zst kernel/net/core/failover.ko.zst\n\
        kernel/drivers/net/net_failover.ko.zst: kernel/net/core/failover.ko.zst\n\
        kernel/net/core/failover.ko.zst:\nnonsense\n";
    const ALIAS: &str = "# a comment\nalias virtio:d00000001v* virtio_net\nalias pci:v00008086d*sv*sd*bc01sc06i01* ahci\n\
        alias usb:v045Ep00[9A]Bd*dc*[0-3]x x-pad\nshort\n";

    #[test]
    fn dependencies_are_loaded_before_what_needs_them() {
        let tables = Tables::parse(DEP, ALIAS);
        let files = tables.files("virtio-net");
        assert_eq!(
            files,
            [
                "kernel/net/core/failover.ko.zst",
                "kernel/drivers/net/net_failover.ko.zst",
                "kernel/drivers/net/virtio_net.ko.zst"
            ]
        );
        assert!(tables.files("built_in").is_empty());
    }

    #[test]
    fn devices_find_their_modules() {
        let tables = Tables::parse(DEP, ALIAS);
        assert_eq!(tables.for_device("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(tables.for_device("pci:v00008086d00002922sv0sd0bc01sc06i01"), ["ahci"]);
        assert_eq!(tables.for_device("usb:v045Ep00ABd1dc92x"), ["x_pad"]);
        assert!(tables.for_device("usb:v045Ep00BBd1dc92x").is_empty());
        assert!(tables.for_device("virtio:d00000002v00001AF4").is_empty());
    }

    #[test]
    fn patterns_match_as_a_slow_obvious_matcher_does() {
        fn slow(p: &[u8], t: &[u8]) -> bool {
            match (p, t) {
                ([], []) => true,
                ([b'*', rest @ ..], _) => (0..=t.len()).any(|i| slow(rest, &t[i..])),
                ([b'?', p @ ..], [_, t @ ..]) => slow(p, t),
                ([a, p @ ..], [b, t @ ..]) if a == b => slow(p, t),
                _ => false,
            }
        }
        let letters = [b'a', b'b', b'*', b'?'];
        let word = |mut n: usize, base: usize| {
            let mut out = Vec::new();
            while n > 0 {
                out.push(letters[n % base]);
                n /= base;
            }
            out
        };
        for p in 0..600 {
            for t in 0..60 {
                let (pattern, text) = (word(p, 4), word(t, 2));
                assert_eq!(matches(&pattern, &text), slow(&pattern, &text), "{pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn patterns_that_are_broken_match_nothing() {
        assert!(!matches(b"[ab", b"a"));
        assert!(!matches(b"[]", b"a"));
    }
}
