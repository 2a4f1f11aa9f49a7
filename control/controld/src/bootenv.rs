//! Boot environments: a kernel, an initial RAM disk with the agent and its drivers, and boot loaders, in one tar.
//!
//! ```text
//! metadata.json         Metadata; first in the archive
//! kernel                as the distribution signed it
//! initrd                an uncompressed cpio archive: /init is the agent, every module is compressed by itself
//! loaders/NAME          what firmware fetches: undionly.kpxe, snponly.efi, ipxe.efi
//! ```
//! The modules are compressed singly and the archive is not, because then only what a machine loads is unpacked. They are
//! never changed, which would break their signatures.

pub mod cpio;
pub mod modules;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bootstorm_snapshot::Architecture;
use serde::{Deserialize, Serialize};

use cpio::Cpio;
pub use modules::ModuleSet;
use modules::{Dependencies, packed_name, trim_aliases};

/// Bytes of an initial RAM disk: what a boot storm sends to every machine.
pub const INITRD_BYTES_MAX: u64 = 40 << 20;
/// Bytes of a kernel; the largest of distributions are near 35 MiB.
pub const KERNEL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a boot loader; GRUB with all its modules is near 2 MiB.
pub const LOADER_BYTES_MAX: u64 = 8 << 20;
/// Boot loaders of one environment.
pub const LOADERS_MAX: usize = 16;
/// Bytes of `metadata.json`.
pub const METADATA_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the agent.
const AGENT_BYTES_MAX: u64 = 32 << 20;
/// Bytes of `modules.dep` or `modules.alias`.
const TABLE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one unpacked module.
const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Level at which modules are compressed: the last that is still quick.
const ZSTD_LEVEL: i32 = 12;
/// Version of the format.
const FORMAT: u32 = 1;

/// Words for the kernel's command line, where the builder names none: both consoles, no chatter, and no machine that
/// stands still for ever after a kernel panic.
pub const COMMAND_LINE: &[&str] = &["quiet", "panic=30", "console=tty0", "console=ttyS0,115200n8"];

/// What `metadata.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Version of the format: 1.
    pub format: u32,
    /// Architecture of kernel and agent.
    pub architecture: Architecture,
    /// Version shown to people.
    pub version: String,
    /// Release of the kernel, as `uname -r` says.
    pub kernel_release: String,
    /// Words put on the kernel's command line before the rack's own.
    pub command_line: Vec<String>,
    /// Every other file of the archive, in its order.
    pub files: Vec<FileInfo>,
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInfo {
    /// Name in the archive.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3, 64 hexadecimal digits.
    pub blake3: String,
}

/// A boot environment that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEnvironmentFiles {
    /// What it says about itself.
    pub metadata: Metadata,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The initial RAM disk.
    pub initrd: Vec<u8>,
    /// Boot loaders: name without directory, and bytes.
    pub loaders: Vec<(String, Vec<u8>)>,
}

/// What a boot environment is built from.
#[derive(Debug, Clone)]
pub struct Input {
    /// Directory with `vmlinuz`, `modules/lib/modules/RELEASE/…` and `loaders/…`.
    pub kernel_dir: PathBuf,
    /// The agent: a static binary of the same architecture.
    pub agent: PathBuf,
    /// Architecture.
    pub architecture: Architecture,
    /// Version shown to people; the kernel's release where absent.
    pub version: Option<String>,
    /// Which drivers are taken.
    pub modules: ModuleSet,
    /// Words for the kernel's command line, usually [`COMMAND_LINE`].
    pub command_line: Vec<String>,
}

/// Why a boot environment cannot be built or read.
#[derive(Debug, thiserror::Error)]
pub enum BootEnvironmentError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// A file of the input is not what it must be; the text says how.
    #[error("{0}: {1}")]
    Input(PathBuf, String),
    /// The initial RAM disk is too large for a boot storm: take fewer modules.
    #[error("the initial RAM disk has {0} bytes, more than {INITRD_BYTES_MAX}")]
    InitrdTooLarge(u64),
    /// The archive is damaged, or not a boot environment.
    #[error("not a boot environment: {0}")]
    Archive(String),
}

use BootEnvironmentError as Error;

/// Builds a boot environment into a new file, which appears whole or not at all.
pub fn build(input: &Input, file: &Path) -> Result<Metadata, Error> {
    let files = assemble(input)?;
    let beside = file.with_extension("partial");
    let io = |error| Error::Io(beside.clone(), error);
    let mut out = File::create(&beside).map_err(io)?;
    let written = write(&files, &mut out).and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&beside, file));
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
        return Err(io(error));
    }
    Ok(files.metadata)
}

/// Reads the input into a boot environment in memory.
fn assemble(input: &Input) -> Result<BootEnvironmentFiles, Error> {
    let kernel = read_file(&input.kernel_dir.join("vmlinuz"), KERNEL_BYTES_MAX)?;
    let agent = read_file(&input.agent, AGENT_BYTES_MAX)?;
    check_agent(&agent, input.architecture).map_err(|why| Error::Input(input.agent.clone(), why))?;
    let (kernel_release, directory) = release(&input.kernel_dir.join("modules/lib/modules"))?;
    let initrd = initrd(&agent, &kernel_release, &directory, input.modules)?;
    let length = u64::try_from(initrd.len()).unwrap_or(u64::MAX);
    if length > INITRD_BYTES_MAX {
        return Err(Error::InitrdTooLarge(length));
    }
    let loaders = loaders(&input.kernel_dir.join("loaders"))?;
    let named = [("kernel".to_string(), &kernel), ("initrd".to_string(), &initrd)].into_iter();
    let named = named.chain(loaders.iter().map(|(name, bytes)| (format!("loaders/{name}"), bytes)));
    let metadata = Metadata {
        format: FORMAT,
        architecture: input.architecture,
        version: input.version.clone().unwrap_or_else(|| kernel_release.clone()),
        kernel_release,
        command_line: input.command_line.clone(),
        files: named.map(|(name, bytes)| info(name, bytes)).collect(),
    };
    Ok(BootEnvironmentFiles { metadata, kernel, initrd, loaders })
}

fn info(name: String, bytes: &[u8]) -> FileInfo {
    let blake3 = blake3::hash(bytes).to_hex().to_string();
    FileInfo { name, bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX), blake3 }
}

/// The one kernel release below a directory of modules.
fn release(modules: &Path) -> Result<(String, PathBuf), Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(modules).map_err(|e| Error::Io(modules.into(), e))? {
        let entry = entry.map_err(|e| Error::Io(modules.into(), e))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    match found.pop() {
        Some((name, path)) if found.is_empty() && !name.starts_with('.') && name.chars().all(plain) => Ok((name, path)),
        _ => Err(Error::Input(modules.into(), "must hold exactly one kernel release".into())),
    }
}

/// The initial RAM disk: the agent, the drivers, their tables, and the directories that the agent mounts on.
fn initrd(agent: &[u8], release: &str, directory: &Path, set: ModuleSet) -> Result<Vec<u8>, Error> {
    let table = |name: &str| {
        let path = directory.join(name);
        let bytes = read_file(&path, TABLE_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| Error::Input(path, "is not UTF-8".into()))
    };
    let dependencies = Dependencies::parse(&table("modules.dep")?)
        .map_err(|line| Error::Input(directory.join("modules.dep"), format!("odd line `{line}`")))?;
    let chosen = dependencies.select(set);
    let mut archive = Cpio::default();
    for path in ["dev", "etc", "etc/bootstorm", "proc", "run", "sys", "tmp"] {
        archive.directory(path);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("init", 0o755, agent);
    let base = format!("lib/modules/{release}");
    let mut made = BTreeSet::new();
    make_directories(&mut archive, &mut made, &format!("{base}/modules.dep"));
    archive.file(&format!("{base}/modules.dep"), 0o644, dependencies.render(&chosen).as_bytes());
    let aliases = trim_aliases(&table("modules.alias")?, &chosen);
    archive.file(&format!("{base}/modules.alias"), 0o644, aliases.as_bytes());
    for file in &chosen {
        let path = directory.join(file);
        let packed = pack_module(&path)?;
        let name = format!("{base}/{}", packed_name(file));
        make_directories(&mut archive, &mut made, &name);
        archive.file(&name, 0o644, &packed);
    }
    Ok(archive.finish())
}

/// Adds the directories above a path that are not in the archive yet.
fn make_directories(archive: &mut Cpio, made: &mut BTreeSet<String>, path: &str) {
    for (at, _) in path.match_indices('/') {
        if let Some(above) = path.get(..at).filter(|above| !made.contains(*above)) {
            archive.directory(above);
            made.insert(above.to_string());
        }
    }
}

/// A module as one zstd frame that states its raw length.
fn pack_module(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |error| Error::Io(path.into(), error);
    let stored = read_file(path, MODULE_BYTES_MAX)?;
    let raw = match path.extension().and_then(|end| end.to_str()) {
        Some("ko") => stored,
        Some("xz") => read_bounded(liblzma::read::XzDecoder::new(stored.as_slice()), MODULE_BYTES_MAX).map_err(io)?,
        Some("gz") => read_bounded(flate2::read::GzDecoder::new(stored.as_slice()), MODULE_BYTES_MAX).map_err(io)?,
        Some("zst") => {
            let decoder = zstd::stream::read::Decoder::new(stored.as_slice()).map_err(io)?;
            read_bounded(decoder, MODULE_BYTES_MAX).map_err(io)?
        }
        _ => return Err(Error::Input(path.into(), "is not a module by its name".into())),
    };
    zstd::bulk::compress(&raw, ZSTD_LEVEL).map_err(io)
}

fn loaders(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let io = |error| Error::Io(directory.into(), error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if names.is_empty() || names.len() > LOADERS_MAX {
        return Err(Error::Input(directory.into(), format!("must hold 1 to {LOADERS_MAX} boot loaders")));
    }
    let loader = |name: String| {
        if !is_loader_name(&name) {
            return Err(Error::Input(directory.join(name), "has an odd name for a boot loader".into()));
        }
        let bytes = read_file(&directory.join(&name), LOADER_BYTES_MAX)?;
        Ok((name, bytes))
    };
    names.into_iter().map(loader).collect()
}

/// Letters, digits, `.`, `_` and `-`, at most 64, not hidden.
fn is_loader_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// Whether the agent is an executable for this architecture that needs no interpreter (ELF gABI, chapters 4 and 5).
fn check_agent(agent: &[u8], architecture: Architecture) -> Result<(), String> {
    const INTERPRETER: u32 = 3;
    let machine: u16 = match architecture {
        Architecture::Amd64 => 62,
        Architecture::Arm64 => 183,
        Architecture::Ppc64el => 21,
        Architecture::S390x => 22,
    };
    let big = architecture == Architecture::S390x;
    let half = |at: usize| {
        let bytes = agent.get(at..).and_then(|rest| rest.first_chunk::<2>());
        bytes.map(|b| if big { u16::from_be_bytes(*b) } else { u16::from_le_bytes(*b) })
    };
    if agent.get(..5) != Some(b"\x7fELF\x02") || half(18) != Some(machine) {
        return Err(format!("is not a 64-bit ELF program for {architecture}"));
    }
    let word = |at: usize| {
        let bytes = agent.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|b| if big { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) })
    };
    // The table follows the header in every program; its offset's low word is enough within the length limit.
    let offset = word(if big { 36 } else { 32 }).and_then(|o| usize::try_from(o).ok());
    let (Some(offset), Some(size), Some(count)) = (offset, half(54), half(56)) else {
        return Err("is cut short".into());
    };
    let segment = |n: u16| offset.checked_add(usize::from(size) * usize::from(n)).and_then(word);
    if (0..count).any(|n| segment(n) == Some(INTERPRETER)) {
        return Err("is not static: build it with `-C target-feature=+crt-static`".into());
    }
    Ok(())
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let io = |error| Error::Io(path.into(), error);
    read_bounded(File::open(path).map_err(io)?, bytes_max).map_err(io)
}

fn read_bounded(from: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= bytes_max) {
        Ok(bytes)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {bytes_max} bytes")))
    }
}

/// Writes the archive: the same files give the same bytes.
fn write(files: &BootEnvironmentFiles, out: &mut impl Write) -> io::Result<()> {
    let metadata = serde_json::to_vec_pretty(&files.metadata)?;
    let mut archive = tar::Builder::new(out);
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        archive.append(&header, bytes)
    };
    append("metadata.json", &metadata)?;
    append("kernel", &files.kernel)?;
    append("initrd", &files.initrd)?;
    for (name, bytes) in &files.loaders {
        append(&format!("loaders/{name}"), bytes)?;
    }
    archive.finish()
}

/// Reads a boot environment. Strict: only the expected names, each once and as a plain file, `metadata.json` first, all
/// within their limits, and every file as `metadata.json` says.
pub fn read(from: impl Read) -> Result<BootEnvironmentFiles, Error> {
    let bad = |why: &dyn std::fmt::Display| Error::Archive(why.to_string());
    let mut archive = tar::Archive::new(from);
    let mut metadata: Option<Metadata> = None;
    let (mut kernel, mut initrd, mut loaders) = (None, None, Vec::new());
    let mut seen = 0;
    // Raw entries: extensions that would change names or sizes appear as entries of their own kind, and are refused.
    for entry in archive.entries().map_err(|e| bad(&e))?.raw(true) {
        let entry = entry.map_err(|e| bad(&e))?;
        let name = std::str::from_utf8(&entry.path_bytes()).map_err(|e| bad(&e))?.to_string();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(Error::Archive(format!("`{}` is not a plain file", name.escape_default())));
        }
        let Some(metadata) = &metadata else {
            if name != "metadata.json" {
                return Err(bad(&"`metadata.json` is not its first file"));
            }
            let bytes = read_bounded(entry, METADATA_BYTES_MAX).map_err(|e| bad(&e))?;
            metadata = Some(check_metadata(serde_json::from_slice(&bytes).map_err(|e| bad(&e))?)?);
            continue;
        };
        let told = metadata.files.get(seen).filter(|file| file.name == name);
        let told = told.ok_or_else(|| Error::Archive(format!("`{}` is not expected here", name.escape_default())))?;
        let bytes = read_bounded(entry, told.bytes).map_err(|e| bad(&e))?;
        if info(name.clone(), &bytes) != *told {
            return Err(Error::Archive(format!("`{name}` is damaged")));
        }
        match name.strip_prefix("loaders/") {
            Some(loader) => loaders.push((loader.to_string(), bytes)),
            None if name == "kernel" => kernel = Some(bytes),
            None => initrd = Some(bytes),
        }
        seen += 1;
    }
    match (metadata, kernel, initrd) {
        (Some(metadata), Some(kernel), Some(initrd)) if seen == metadata.files.len() => {
            Ok(BootEnvironmentFiles { metadata, kernel, initrd, loaders })
        }
        _ => Err(bad(&"it is cut short")),
    }
}

/// Holds metadata against the format: names, order, limits.
fn check_metadata(metadata: Metadata) -> Result<Metadata, Error> {
    let bad = |why: String| Err(Error::Archive(why));
    if metadata.format != FORMAT {
        return bad(format!("its format is {}, not {FORMAT}", metadata.format));
    }
    let word = |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic()) && word.len() <= 256;
    if metadata.command_line.len() > 64 || !metadata.command_line.iter().all(word) {
        return bad("its command line has odd words".into());
    }
    let text = |text: &str| (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    if !text(&metadata.version) || !text(&metadata.kernel_release) {
        return bad("its version or kernel release is odd".into());
    }
    let mut names = BTreeSet::new();
    for (index, file) in metadata.files.iter().enumerate() {
        let limit = match (index, file.name.as_str()) {
            (0, "kernel") => KERNEL_BYTES_MAX,
            (1, "initrd") => INITRD_BYTES_MAX,
            (2.., name) if name.strip_prefix("loaders/").is_some_and(is_loader_name) => LOADER_BYTES_MAX,
            (_, name) => return bad(format!("`{}` is not expected", name.escape_default())),
        };
        if file.bytes > limit || !names.insert(&file.name) {
            return bad(format!("`{}` is too long or named twice", file.name));
        }
    }
    if !(3..=2 + LOADERS_MAX).contains(&metadata.files.len()) {
        return bad(format!("it has {} files", metadata.files.len()));
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program header without interpreter, long enough to be read.
    fn agent(interpreter: bool) -> Vec<u8> {
        let mut elf = vec![0u8; 256];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        elf[64 + 56] = if interpreter { 3 } else { 1 };
        elf
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let scratch =
                Scratch(std::env::temp_dir().join(format!("bootstorm-bootenv-{name}-{}", std::process::id())));
            let release = "modules/lib/modules/6.1.0-test";
            let dep = "kernel/drivers/virtio/a.ko: kernel/lib/b.ko.xz\nkernel/lib/b.ko.xz:\nkernel/sound/c.ko:\n";
            scratch.put("vmlinuz", b"kernel");
            scratch.put("agent", &agent(false));
            scratch.put(&format!("{release}/modules.dep"), dep.as_bytes());
            scratch.put(&format!("{release}/modules.alias"), b"alias virtio:a a\nalias x c\n");
            scratch.put(&format!("{release}/kernel/drivers/virtio/a.ko"), &[7; 5000]);
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
            xz.write_all(&[8; 5000]).expect("xz");
            scratch.put(&format!("{release}/kernel/lib/b.ko.xz"), &xz.finish().expect("xz"));
            scratch.put("loaders/snponly.efi", b"loader");
            scratch
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
            std::fs::write(path, bytes).expect("file");
        }

        fn input(&self) -> Input {
            Input {
                kernel_dir: self.0.clone(),
                agent: self.0.join("agent"),
                architecture: Architecture::Amd64,
                version: None,
                modules: ModuleSet::Server,
                command_line: COMMAND_LINE.iter().map(|word| word.to_string()).collect(),
            }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn what_is_built_reads_back() {
        let scratch = Scratch::new("build");
        let file = scratch.0.join("out.tar");
        let metadata = build(&scratch.input(), &file).expect("built");
        let first = std::fs::read(&file).expect("there");
        let files = read(first.as_slice()).expect("reads back");
        assert_eq!(files.metadata, metadata);
        assert_eq!((metadata.version.as_str(), files.kernel.as_slice()), ("6.1.0-test", b"kernel".as_slice()));
        assert_eq!(files.loaders, [("snponly.efi".to_string(), b"loader".to_vec())]);
        let dep = b"kernel/drivers/virtio/a.ko.zst: kernel/lib/b.ko.zst\nkernel/lib/b.ko.zst:\n";
        assert!(contains(&files.initrd, dep) && contains(&files.initrd, b"alias virtio:a a\n"));
        assert!(!contains(&files.initrd, b"alias x c"));
        assert!(contains(&files.initrd, &zstd::bulk::compress(&[8; 5000], ZSTD_LEVEL).expect("zstd")));
        build(&scratch.input(), &file).expect("built again");
        assert_eq!(std::fs::read(&file).expect("there"), first, "the same input gives the same bytes");
    }

    #[test]
    fn an_agent_that_cannot_be_init_is_refused() {
        let scratch = Scratch::new("agent");
        scratch.put("agent", &agent(true));
        let error = assemble(&scratch.input()).expect_err("not static").to_string();
        assert!(error.contains("not static"), "{error}");
        scratch.put("agent", b"#!/bin/sh\n");
        assert!(assemble(&scratch.input()).is_err());
        scratch.put("agent", &agent(false));
        let arm = Input { architecture: Architecture::Arm64, ..scratch.input() };
        assert!(assemble(&arm).is_err());
    }

    fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_entry_type(*kind);
            header.set_cksum();
            archive.append(&header, *bytes).expect("in memory");
        }
        archive.into_inner().expect("in memory")
    }

    #[test]
    fn t10_only_the_expected_archive_is_read() {
        use tar::EntryType::{Regular, Symlink};
        let files = |names: &[&str]| names.iter().map(|name| info(name.to_string(), b"x")).collect::<Vec<_>>();
        let metadata = |files| Metadata {
            format: 1,
            architecture: Architecture::Amd64,
            version: "1".into(),
            kernel_release: "6.1".into(),
            command_line: vec![],
            files,
        };
        let json = |files| serde_json::to_vec(&metadata(files)).expect("json");
        let good = json(files(&["kernel", "initrd", "loaders/a.efi"]));
        let usual = |last: &'static str, kind| {
            tar_of(&[
                ("metadata.json", Regular, &good),
                ("kernel", Regular, b"x"),
                ("initrd", Regular, b"x"),
                (last, kind, b"x"),
            ])
        };
        assert!(read(usual("loaders/a.efi", Regular).as_slice()).is_ok());
        for (name, kind) in [
            ("loaders/a.efi", Symlink),
            ("loaders/b.efi", Regular),
            ("../a.efi", Regular),
            ("/loaders/a.efi", Regular),
            ("loaders/../a.efi", Regular),
            ("kernel", Regular),
        ] {
            assert!(read(usual(name, kind).as_slice()).is_err(), "{name}");
        }
        for names in [
            &["kernel", "initrd"][..],
            &["initrd", "kernel", "loaders/a"],
            &["kernel", "initrd", "loaders/../a"],
            &["kernel", "initrd", "loaders/.a"],
            &["kernel", "initrd", "loaders/a", "loaders/a"],
            &["kernel", "initrd", "/etc/passwd"],
        ] {
            assert!(check_metadata(metadata(files(names))).is_err(), "{names:?}");
        }
        let damaged = tar_of(&[("metadata.json", Regular, &good), ("kernel", Regular, b"y")]);
        assert!(read(damaged.as_slice()).is_err());
        assert!(read(tar_of(&[("kernel", Regular, b"x")]).as_slice()).is_err());
        let whole = usual("loaders/a.efi", Regular);
        for end in (0..whole.len()).step_by(97) {
            let end = end.min(3584);
            assert!(read(&whole[..end]).is_err(), "prefix of {end}");
        }
    }
}
