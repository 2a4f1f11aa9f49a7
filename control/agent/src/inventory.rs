//! What the machine is made of, as sysfs and procfs say it. Facts only, every list and text bounded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bootstorm_snapshot::inventory::{Cpu, Disk, Dmi, Firmware, Interface, Inventory, PciDevice};
use bootstorm_snapshot::limits::INVENTORY_ITEMS_MAX;
use bootstorm_snapshot::{Architecture, Mac};

use crate::limits;

/// Kernel names of block devices that can hold no system: memory, loops, optical, floppy, and what is made of others.
const NOT_DISKS: &[&str] = &["loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd", "mtdblock", "drbd", "bcache"];

/// Reads the inventory of the running machine; `boot` is the interface it was booted through.
pub fn read(boot: Mac) -> Inventory {
    read_under(Path::new("/"), boot)
}

/// Reads the inventory from `sys` and `proc` below `root`.
fn read_under(root: &Path, boot: Mac) -> Inventory {
    let processors = std::fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let memory = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let inventory = Inventory {
        architecture: architecture(),
        firmware: firmware(root),
        cpu: cpu(&processors),
        memory_bytes: memory_bytes(&memory),
        disks: disks(&root.join("sys/block")),
        interfaces: interfaces(&root.join("sys/class/net"), boot),
        dmi: dmi(&root.join("sys/class/dmi/id")),
        pci: pci(&root.join("sys/bus/pci/devices")),
        agent_version: env!("CARGO_PKG_VERSION").to_string(),
        kernel: text(&root.join("proc/sys/kernel/osrelease")).unwrap_or_default(),
    };
    shortened(inventory)
}

/// Halves the longest list until the inventory fits its report.
fn shortened(mut inventory: Inventory) -> Inventory {
    loop {
        let bytes = serde_json::to_vec(&inventory).map_or(0, |json| json.len());
        if bytes <= limits::INVENTORY_JSON_BYTES_MAX {
            return inventory;
        }
        let longest = inventory.pci.len().max(inventory.disks.len()).max(inventory.interfaces.len());
        inventory.pci.truncate(longest / 2);
        inventory.disks.truncate(longest / 2);
        inventory.interfaces.truncate(longest / 2);
    }
}

fn architecture() -> Architecture {
    std::env::consts::ARCH.parse().unwrap_or(match std::env::consts::ARCH {
        "powerpc64" => Architecture::Ppc64el,
        _ => Architecture::Amd64,
    })
}

fn firmware(root: &Path) -> Firmware {
    let efi = root.join("sys/firmware/efi");
    if !efi.exists() {
        return Firmware::Bios;
    }
    let variable = efi.join("efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    // Four bytes of attributes, then the value (UEFI 2.10 §3.3).
    match std::fs::read(variable).unwrap_or_default().get(4) {
        Some(1) => Firmware::UefiSecure,
        _ => Firmware::Uefi,
    }
}

fn cpu(cpuinfo: &str) -> Cpu {
    let mut cpu = Cpu::default();
    let (mut packages, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let mut package = 0u32;
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match (key.trim(), value.trim()) {
            ("processor", _) => cpu.threads = cpu.threads.saturating_add(1),
            ("model name", name) if cpu.model.is_empty() => cpu.model = clean(name).unwrap_or_default(),
            ("physical id", id) => {
                package = id.parse().unwrap_or(0);
                packages.insert(package);
            }
            ("core id", id) => {
                cores.insert((package, id.parse::<u32>().unwrap_or(0)));
            }
            _ => {}
        }
    }
    cpu.sockets = u32::try_from(packages.len()).unwrap_or(u32::MAX).max(1);
    cpu.cores = match cores.len() {
        // Architectures without these lines have one thread to a core.
        0 => cpu.threads,
        count => u32::try_from(count).unwrap_or(u32::MAX),
    };
    cpu
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|l| l.split_ascii_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

fn disks(block: &Path) -> Vec<Disk> {
    entries(block)
        .into_iter()
        .filter_map(|(name, device)| {
            let hidden = number(&device.join("hidden")) == Some(1);
            let bytes = number(&device.join("size"))?.saturating_mul(512);
            if bytes == 0 || hidden || NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) {
                return None;
            }
            let serial = [device.join("device/serial"), device.join("serial")].iter().find_map(|p| text(p));
            Some(Disk {
                bytes,
                block_bytes: number(&device.join("queue/logical_block_size"))
                    .and_then(|n| n.try_into().ok())
                    .unwrap_or(512),
                rotational: number(&device.join("queue/rotational")) == Some(1),
                read_only: number(&device.join("ro")) == Some(1),
                removable: number(&device.join("removable")) == Some(1),
                model: text(&device.join("device/model")),
                serial: serial.or_else(|| serial_page(&device.join("device/vpd_pg80"))),
                wwn: [device.join("wwid"), device.join("device/wwid")].iter().find_map(|p| text(p)),
                name,
            })
        })
        .take(INVENTORY_ITEMS_MAX)
        .collect()
}

/// The unit serial number page of a SCSI device: four bytes of header, the last two of them the length (SPC-4 §7.8.15).
fn serial_page(path: &Path) -> Option<String> {
    let page = crate::files::read(path, 4096).ok()?;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    clean(&String::from_utf8_lossy(page.get(4..4 + length)?))
}

fn interfaces(class: &Path, boot: Mac) -> Vec<Interface> {
    entries(class)
        .into_iter()
        .filter_map(|(name, device)| {
            let mac: Mac = text(&device.join("address"))?.parse().ok()?;
            // Type 1 is Ethernet; what has no device behind it is not physical.
            if !device.join("device").exists() || number(&device.join("type")) != Some(1) || !mac.is_unicast() {
                return None;
            }
            Some(Interface {
                name,
                mac,
                link_up: number(&device.join("carrier")) == Some(1),
                speed_mbit: number(&device.join("speed"))
                    .and_then(|n| u32::try_from(n).ok())
                    .filter(|n| *n < 10_000_000),
                driver: driver(&device.join("device")),
                pci: pci_address(&device.join("device")),
                boot: mac == boot,
            })
        })
        .take(INVENTORY_ITEMS_MAX)
        .collect()
}

fn dmi(id: &Path) -> Dmi {
    let value = |name: &str| text(&id.join(name));
    Dmi {
        system_uuid: value("product_uuid").map(|uuid| uuid.to_lowercase()),
        system_vendor: value("sys_vendor"),
        product_name: value("product_name"),
        system_serial: value("product_serial"),
        board_serial: value("board_serial"),
        chassis_asset_tag: value("chassis_asset_tag"),
        bios_vendor: value("bios_vendor"),
        bios_version: value("bios_version"),
        bios_date: value("bios_date"),
    }
}

fn pci(devices: &Path) -> Vec<PciDevice> {
    entries(devices)
        .into_iter()
        .filter_map(|(address, device)| {
            let hex = |name: &str| Some(text(&device.join(name))?.strip_prefix("0x")?.to_string());
            Some(PciDevice {
                vendor: hex("vendor")?,
                device: hex("device")?,
                class: hex("class")?,
                driver: driver(&device),
                address,
            })
        })
        .take(INVENTORY_ITEMS_MAX)
        .collect()
}

fn driver(device: &Path) -> Option<String> {
    std::fs::read_link(device.join("driver")).ok().and_then(|link| last_name(&link))
}

/// Address of the PCI function that a device is or belongs to (a virtio interface lies below its function).
fn pci_address(device: &Path) -> Option<String> {
    let path = std::fs::canonicalize(device).ok()?;
    let names = path.components().rev().filter_map(|part| part.as_os_str().to_str());
    names.into_iter().find(|name| is_pci_address(name)).map(str::to_string)
}

/// `0000:00:02.0`.
fn is_pci_address(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.') && name.contains('.')
}

fn last_name(path: &Path) -> Option<String> {
    path.file_name().and_then(|name| clean(&name.to_string_lossy()))
}

/// The entries of a directory of sysfs in order of their names.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let read = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> =
        read.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    found.sort();
    found
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn text(path: &Path) -> Option<String> {
    crate::files::read_text(path, 4096).ok().and_then(|text| clean(&text))
}

/// Without control characters and outer blanks, cut to the limit; nothing if nothing is left.
fn clean(text: &str) -> Option<String> {
    let printable: String = text.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').collect();
    let mut text = printable.trim();
    while text.len() > limits::INVENTORY_TEXT_BYTES_MAX {
        let last = text.char_indices().next_back().map_or(0, |(at, _)| at);
        text = text.get(..last).unwrap_or_default();
    }
    (!text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(path, text).expect("file");
    }

    #[test]
    fn a_small_machine() {
        let root = std::env::temp_dir().join(format!("bootstorm-agent-inventory-{}", std::process::id()));
        for (file, text) in [
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: QEMU CPU\nphysical id\t: 0\ncore id\t: 0\n\nprocessor\t: 1\nphysical id : 1\ncore id : 0\n",
            ),
            ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-test\n"),
            ("sys/block/vda/size", "2048\n"),
            ("sys/block/vda/ro", "0\n"),
            ("sys/block/vda/serial", "disk-1\n"),
            ("sys/block/vda/queue/logical_block_size", "4096\n"),
            ("sys/block/loop0/size", "99\n"),
            ("sys/block/sdb/size", "0\n"),
            ("sys/class/net/eth0/address", "52:54:00:00:00:01\n"),
            ("sys/class/net/eth0/type", "1\n"),
            ("sys/class/net/eth0/carrier", "1\n"),
            ("sys/class/net/eth0/speed", "-1\n"),
            ("sys/class/net/eth0/device/x", ""),
            ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("sys/class/net/lo/type", "772\n"),
            ("sys/class/dmi/id/product_uuid", "603F2818-4365-4ac5-0000-000000000000\n"),
            ("sys/class/dmi/id/sys_vendor", " Q\u{7}EMU \n"),
            ("sys/bus/pci/devices/0000:00:02.0/vendor", "0x1af4\n"),
            ("sys/bus/pci/devices/0000:00:02.0/device", "0x1000\n"),
            ("sys/bus/pci/devices/0000:00:02.0/class", "0x020000\n"),
        ] {
            put(&root, file, text);
        }
        let inventory = read_under(&root, Mac([0x52, 0x54, 0, 0, 0, 1]));
        std::fs::remove_dir_all(&root).expect("remove");
        assert_eq!(inventory.cpu, Cpu { model: "QEMU CPU".into(), sockets: 2, cores: 2, threads: 2 });
        assert_eq!((inventory.memory_bytes, inventory.firmware), (1_024_000, Firmware::Bios));
        assert_eq!(inventory.disks.len(), 1);
        assert_eq!((inventory.disks[0].bytes, inventory.disks[0].block_bytes), (1 << 20, 4096));
        assert_eq!(inventory.disks[0].serial.as_deref(), Some("disk-1"));
        assert_eq!(inventory.interfaces.len(), 1);
        assert!(inventory.interfaces[0].boot && inventory.interfaces[0].link_up);
        assert_eq!(inventory.interfaces[0].speed_mbit, None);
        assert_eq!(inventory.dmi.system_vendor.as_deref(), Some("QEMU"));
        assert_eq!(inventory.pci[0].class, "020000");
        assert_eq!(inventory.kernel, "6.1.0-test");
    }

    #[test]
    fn an_inventory_always_fits_its_report() {
        let mut inventory = read_under(Path::new("/nonexistent"), Mac([2, 0, 0, 0, 0, 1]));
        let device = PciDevice {
            address: "x".repeat(128),
            vendor: "x".repeat(128),
            device: "x".repeat(128),
            class: "x".repeat(128),
            driver: Some("x".repeat(128)),
        };
        inventory.pci = vec![device; INVENTORY_ITEMS_MAX];
        let bytes = serde_json::to_vec(&shortened(inventory)).expect("json").len();
        assert!(bytes <= limits::INVENTORY_JSON_BYTES_MAX);
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(clean(&"ä".repeat(100)).map(|t| t.len()), Some(128));
        assert_eq!(clean(" \n"), None);
    }
}
