//! The firmware's boot entry for the installed system, written through efivarfs (UEFI 2.10 §3.1, §3.3, §10.3).
//!
//! The boot order becomes: the entry that this boot came by (the network, so that the site keeps control of every boot),
//! the installed system, then what was there before. With anything between the two, a machine that is told to boot from
//! its disk would first go through all other network entries of its firmware, with a time-out for each. `BootNext` chooses
//! the system for one start where it is started by a reboot.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::gpt;
use crate::limits;

/// Where efivarfs is mounted.
pub const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// Name of our entry in the firmware's menu; an entry with this name is ours and is used again.
const LABEL: &str = "Bootstorm";
/// GUID of the firmware's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, boot services, run time.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// Writes the entry for `\EFI\…` on a system partition and puts it into the boot order. Returns its number.
pub fn install(directory: &Path, partition: &gpt::Entry, path: &str) -> io::Result<u16> {
    let number = number_for_us(directory)?;
    write(directory, &format!("Boot{number:04X}"), &boot_option(LABEL, partition, path))?;
    let order = numbers(&read(directory, "BootOrder").unwrap_or_default());
    // Not every firmware says how it came here (§3.1.2), and an entry for one boot may be gone by now.
    let current = numbers(&read(directory, "BootCurrent").unwrap_or_default()).first().copied();
    let current = current.filter(|current| variable(directory, &format!("Boot{current:04X}")).exists());
    let wanted = reordered(&order, current, number);
    if wanted != order {
        let bytes: Vec<u8> = wanted.iter().flat_map(|number| number.to_le_bytes()).collect();
        write(directory, "BootOrder", &bytes)?;
    }
    Ok(number)
}

/// Chooses an entry for the next start only.
pub fn boot_next(directory: &Path, number: u16) -> io::Result<()> {
    write(directory, "BootNext", &number.to_le_bytes())
}

/// Our entry's number if there is one, else the lowest that is free.
fn number_for_us(directory: &Path) -> io::Result<u16> {
    let mut taken = Vec::new();
    for entry in std::fs::read_dir(directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = option_number(&name) else { continue };
        if label_of(&read(directory, &format!("Boot{number:04X}")).unwrap_or_default()).as_deref() == Some(LABEL) {
            return Ok(number);
        }
        taken.push(number);
    }
    let free = (0..=u16::MAX).find(|number| !taken.contains(number));
    free.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
}

/// `Boot00AF-8be4df61-…` → `0xaf`.
fn option_number(name: &str) -> Option<u16> {
    let (digits, guid) = name.strip_prefix("Boot")?.split_at_checked(4)?;
    let ours = guid.strip_prefix('-') == Some(GLOBAL) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    ours.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// Boot option numbers as `BootOrder` and `BootCurrent` hold them.
fn numbers(value: &[u8]) -> Vec<u16> {
    value.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The order with the entry of this boot first and ours behind it; ours last where nobody knows how this boot came.
fn reordered(order: &[u16], current: Option<u16>, ours: u16) -> Vec<u16> {
    let Some(current) = current.filter(|current| *current != ours) else {
        let appended = (!order.contains(&ours)).then_some(ours);
        return order.iter().copied().chain(appended).collect();
    };
    let rest = order.iter().copied().filter(|number| ![current, ours].contains(number));
    [current, ours].into_iter().chain(rest).collect()
}

/// An EFI_LOAD_OPTION (§3.1.3): active, label, and a device path of a GPT partition and a file on it.
fn boot_option(label: &str, partition: &gpt::Entry, path: &str) -> Vec<u8> {
    let mut nodes = Vec::new();
    // Hard drive node (§10.3.5.1): type 4, sub-type 1, 42 bytes; format 2 is GPT, signature type 2 a GUID.
    nodes.extend_from_slice(&[4, 1, 42, 0]);
    nodes.extend_from_slice(&partition.number.to_le_bytes());
    nodes.extend_from_slice(&partition.first.to_le_bytes());
    nodes.extend_from_slice(&(partition.last.saturating_sub(partition.first).saturating_add(1)).to_le_bytes());
    nodes.extend_from_slice(&partition.guid);
    nodes.extend_from_slice(&[2, 2]);
    // File path node (§10.3.5.4): type 4, sub-type 4, the path in UCS-2 with its end.
    let path = ucs2(path);
    nodes.extend_from_slice(&[4, 4]);
    nodes.extend_from_slice(&u16::try_from(path.len() + 4).unwrap_or(u16::MAX).to_le_bytes());
    nodes.extend_from_slice(&path);
    // End of the entire path.
    nodes.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    let mut option = 1u32.to_le_bytes().to_vec();
    option.extend_from_slice(&u16::try_from(nodes.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend_from_slice(&ucs2(label));
    option.extend_from_slice(&nodes);
    option
}

fn label_of(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).ok()
}

fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn variable(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}-{GLOBAL}"))
}

fn read(directory: &Path, name: &str) -> io::Result<Vec<u8>> {
    let bytes = crate::files::read(&variable(directory, name), limits::EFI_VARIABLE_BYTES_MAX)?;
    Ok(bytes.get(4..).unwrap_or_default().to_vec())
}

/// Sets a variable: attributes and value in one write, after the file's protection against removal is lifted.
fn write(directory: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let path = variable(directory, name);
    if let Ok(file) = std::fs::File::open(&path)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
    {
        // A variable that stays protected makes the write below fail, which says so.
        let _ = rustix::fs::ioctl_setflags(&file, flags - rustix::fs::IFlags::IMMUTABLE);
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    file.write_all(&[&ATTRIBUTES, value].concat())
}

#[cfg(test)]
mod tests {
    use super::super::mounted::tests::Scratch;
    use super::*;

    const PARTITION: gpt::Entry =
        gpt::Entry { number: 15, kind: gpt::EFI_SYSTEM, guid: [0xab; 16], first: 0x800, last: 0x27ff };

    #[test]
    fn the_option_is_laid_out_as_the_specification_says() {
        let option = boot_option("Go", &PARTITION, "\\A");
        let mut expected = vec![1, 0, 0, 0, 42 + 10 + 4, 0, b'G', 0, b'o', 0, 0, 0];
        expected.extend_from_slice(&[4, 1, 42, 0, 15, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0xab; 16]);
        expected.extend_from_slice(&[2, 2, 4, 4, 10, 0, b'\\', 0, b'A', 0, 0, 0, 0x7f, 0xff, 4, 0]);
        assert_eq!(option, expected);
        assert_eq!(label_of(&option).as_deref(), Some("Go"));
    }

    #[test]
    fn the_entry_of_this_boot_stays_first_and_ours_follows_it() {
        let scratch = Scratch::new("efi");
        let set = |name: &str, value: &[u8]| {
            std::fs::write(variable(&scratch.0, name), [&ATTRIBUTES, value].concat()).expect("variable");
        };
        set("Boot0000", &boot_option("Network", &PARTITION, "\\N"));
        set("Boot0002", &boot_option("Other", &PARTITION, "\\O"));
        set("BootOrder", &[2, 0, 0, 0]);
        set("BootCurrent", &[0, 0]);
        for _twice in 0..2 {
            assert_eq!(install(&scratch.0, &PARTITION, "\\EFI\\BOOT\\BOOTX64.EFI").expect("written"), 1);
            assert_eq!(read(&scratch.0, "BootOrder").expect("order"), [0, 0, 1, 0, 2, 0]);
        }
        boot_next(&scratch.0, 1).expect("written");
        assert_eq!(read(&scratch.0, "BootNext").expect("next"), [1, 0]);
    }

    #[test]
    fn orders_keep_every_entry_once() {
        assert_eq!(reordered(&[3, 4, 5], Some(4), 9), [4, 9, 3, 5]);
        assert_eq!(reordered(&[9, 4, 5], Some(4), 9), [4, 9, 5], "ours moves behind the network");
        assert_eq!(reordered(&[4, 5], Some(7), 9), [7, 9, 4, 5], "a boot by an entry outside the order");
        assert_eq!(reordered(&[4, 5], None, 9), [4, 5, 9], "nobody knows how this boot came");
        assert_eq!(reordered(&[4, 9, 5], Some(9), 9), [4, 9, 5], "by our own entry");
        assert_eq!(reordered(&[], None, 9), [9]);
    }

    #[test]
    fn an_entry_that_is_gone_is_not_put_into_the_order() {
        let scratch = Scratch::new("efi-gone");
        for (name, value) in [("BootOrder", [2, 0]), ("BootCurrent", [7, 0])] {
            std::fs::write(variable(&scratch.0, name), [&ATTRIBUTES[..], &value].concat()).expect("variable");
        }
        install(&scratch.0, &PARTITION, "\\EFI\\BOOT\\BOOTX64.EFI").expect("written");
        assert_eq!(read(&scratch.0, "BootOrder").expect("order"), [2, 0, 0, 0]);
    }
}
