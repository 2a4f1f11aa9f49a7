//! GRUB's modules, as far as they say which others they depend on: relocatable ELF files of 32 or 64 bits, little-endian, with a
//! section `.moddeps` of names that each end in a zero (GRUB's `kern/dl.c`, `grub_dl_resolve_dependencies`).

use crate::limits::MODULES_MAX;

/// Offsets and sizes in the header and in the table of sections, by the width of an address.
struct Layout {
    /// Octets of addresses and offsets.
    width: usize,
    /// In the header: where the table of sections is, octets of an entry, how many there are, which holds the names.
    table: usize,
    entry_bytes: usize,
    count: usize,
    names: usize,
    /// In an entry: where the section's content is, and its length.
    offset: usize,
    size: usize,
}

const ELF32: Layout = Layout { width: 4, table: 32, entry_bytes: 46, count: 48, names: 50, offset: 16, size: 20 };
const ELF64: Layout = Layout { width: 8, table: 40, entry_bytes: 58, count: 60, names: 62, offset: 24, size: 32 };

/// The modules that this one names, in order; none of a file that is no module.
pub fn dependencies(module: &[u8]) -> Vec<String> {
    let names = section(module, b".moddeps").unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    names.filter(is_name).map(str::to_owned).take(MODULES_MAX).collect()
}

/// The content of the section of this name.
fn section<'a>(module: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    // ELF specification, "ELF Identification": magic, class, data encoding.
    let layout = match module.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, 1] => ELF32,
        [0x7f, b'E', b'L', b'F', 2, 1] => ELF64,
        _ => return None,
    };
    let number = |at: usize, width: usize| {
        let bytes = module.get(at..at.checked_add(width)?)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (table, entry_bytes) = (number(layout.table, layout.width)?, number(layout.entry_bytes, 2)?);
    let entry = |index: usize| table.checked_add(index.checked_mul(entry_bytes)?);
    let content = |at: usize| {
        let offset = number(at.checked_add(layout.offset)?, layout.width)?;
        let size = number(at.checked_add(layout.size)?, layout.width)?;
        module.get(offset..offset.checked_add(size)?)
    };
    let names = content(entry(number(layout.names, 2)?)?)?;
    (0..number(layout.count, 2)?).find_map(|index| {
        let at = entry(index)?;
        let name = names.get(number(at, 4)?..)?.split(|byte| *byte == 0).next()?;
        if name == wanted { content(at) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with its header, the names of its sections, its dependencies and the table of sections.
    fn module(layout: &Layout, class: u8) -> Vec<u8> {
        let names = b"\0.shstrtab\0.moddeps\0";
        let dependencies = b"extcmd\0crypto\0../x\0\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        let (names_at, dependencies_at) = (bytes.len(), bytes.len() + names.len());
        bytes.extend_from_slice(names);
        bytes.extend_from_slice(dependencies);
        let table = bytes.len();
        let entry_bytes = layout.size + layout.width;
        for (name, at, length) in [(0, 0, 0), (1, names_at, names.len()), (11, dependencies_at, dependencies.len())] {
            let mut entry = vec![0; entry_bytes];
            entry[0] = name;
            entry[layout.offset..layout.offset + 2].copy_from_slice(&(at as u16).to_le_bytes());
            entry[layout.size..layout.size + 2].copy_from_slice(&(length as u16).to_le_bytes());
            bytes.extend_from_slice(&entry);
        }
        bytes[layout.table..layout.table + 2].copy_from_slice(&(table as u16).to_le_bytes());
        bytes[layout.entry_bytes] = entry_bytes as u8;
        bytes[layout.count] = 3;
        bytes[layout.names] = 1;
        bytes
    }

    #[test]
    fn modules_of_both_widths_name_what_they_depend_on() {
        for (layout, class) in [(&ELF32, 1), (&ELF64, 2)] {
            let module = module(layout, class);
            assert_eq!(dependencies(&module), ["extcmd", "crypto"]);
            // Cut or changed anywhere, it is no module or names something else, and nothing worse.
            for at in 0..module.len() {
                dependencies(&module[..at]);
                for value in [0, 0x7f, 0xff] {
                    let mut changed = module.clone();
                    changed[at] = value;
                    dependencies(&changed);
                }
            }
        }
        assert!(dependencies(b"#!ipxe\n").is_empty());
    }
}
