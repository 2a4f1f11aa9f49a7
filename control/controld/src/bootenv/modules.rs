//! Which kernel modules a boot environment carries.

use std::collections::{BTreeMap, BTreeSet};

/// Which hardware a boot environment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModuleSet {
    /// Network cards, disks and controllers of real servers, with what virtual machines show.
    #[default]
    Server,
    /// Virtual machines only: the smallest and quickest.
    Guest,
}

/// Directories that are taken with everything below them.
const SERVER_TREES: &[&str] = &[
    "kernel/arch/x86/crypto/",
    "kernel/arch/arm64/crypto/",
    "kernel/crypto/",
    "kernel/drivers/ata/",
    "kernel/drivers/block/",
    "kernel/drivers/char/hw_random/",
    "kernel/drivers/char/ipmi/",
    "kernel/drivers/char/tpm/",
    "kernel/drivers/edac/",
    "kernel/drivers/firmware/",
    "kernel/drivers/hid/",
    "kernel/drivers/hv/",
    "kernel/drivers/hwmon/",
    "kernel/drivers/i2c/",
    "kernel/drivers/infiniband/",
    "kernel/drivers/md/",
    "kernel/drivers/message/",
    "kernel/drivers/mmc/",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/hyperv/",
    "kernel/drivers/net/mdio/",
    "kernel/drivers/net/pcs/",
    "kernel/drivers/net/phy/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/vmxnet3/",
    "kernel/drivers/nvdimm/",
    "kernel/drivers/nvme/",
    "kernel/drivers/pci/",
    "kernel/drivers/scsi/",
    "kernel/drivers/usb/host/",
    "kernel/drivers/usb/storage/",
    "kernel/drivers/virtio/",
    "kernel/drivers/watchdog/",
    "kernel/drivers/xen/",
    "kernel/fs/btrfs/",
    "kernel/fs/efivarfs/",
    "kernel/fs/ext4/",
    "kernel/fs/fat/",
    "kernel/fs/isofs/",
    "kernel/fs/nls/",
    "kernel/fs/overlayfs/",
    "kernel/fs/squashfs/",
    "kernel/fs/xfs/",
    "kernel/net/8021q/",
];

/// Modules that are taken by name: those whose directory holds much that no server has.
const SERVER_NAMES: &[&str] =
    &["virtio_net", "net_failover", "failover", "xen_netfront", "usbcore", "xhci_pci", "ptp_kvm"];

/// What virtual machines show (virtio, NVMe, AHCI, the usual emulated cards) and the file systems of images.
const GUEST_NAMES: &[&str] = &[
    "ahci",
    "ata_piix",
    "btrfs",
    "crc32c_generic",
    "crc32c_intel",
    "e1000",
    "e1000e",
    "efivarfs",
    "ext4",
    "igb",
    "mptspi",
    "netvsc",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "nvme",
    "qemu_fw_cfg",
    "r8169",
    "sd_mod",
    "storvsc",
    "hv_netvsc",
    "hv_storvsc",
    "hv_vmbus",
    "vfat",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_pci",
    "virtio_rng",
    "virtio_scsi",
    "vmw_pvscsi",
    "vmxnet3",
    "xen_blkfront",
    "xen_netfront",
    "xfs",
    "xhci_pci",
];

/// The modules of a kernel: file → files it needs, as `modules.dep` says, nearest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dependencies(BTreeMap<String, Vec<String>>);

impl Dependencies {
    /// Reads `modules.dep`. Fails with the line that is not `FILE: FILE…` of plain paths inside the directory.
    pub fn parse(text: &str) -> Result<Dependencies, String> {
        let mut modules = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (file, needs) = line.split_once(':').ok_or_else(|| line.to_string())?;
            let needs: Vec<String> = needs.split_ascii_whitespace().map(str::to_string).collect();
            if !std::iter::once(file).chain(needs.iter().map(String::as_str)).all(is_module_path) {
                return Err(line.to_string());
            }
            modules.insert(file.to_string(), needs);
        }
        Ok(Dependencies(modules))
    }

    /// The files of a set, with everything they need.
    pub fn select(&self, set: ModuleSet) -> BTreeSet<String> {
        let wanted = |file: &&String| match set {
            ModuleSet::Server => {
                SERVER_TREES.iter().any(|tree| file.starts_with(tree)) || SERVER_NAMES.contains(&name_of(file).as_str())
            }
            ModuleSet::Guest => GUEST_NAMES.contains(&name_of(file).as_str()),
        };
        let mut chosen: BTreeSet<String> = self.0.keys().filter(wanted).cloned().collect();
        let mut waiting: Vec<String> = chosen.iter().cloned().collect();
        while let Some(file) = waiting.pop() {
            for need in self.0.get(&file).into_iter().flatten() {
                if chosen.insert(need.clone()) {
                    waiting.push(need.clone());
                }
            }
        }
        chosen
    }

    /// `modules.dep` of the chosen files under their new names.
    pub fn render(&self, chosen: &BTreeSet<String>) -> String {
        let mut text = String::new();
        for (file, needs) in self.0.iter().filter(|(file, _)| chosen.contains(*file)) {
            text.push_str(&packed_name(file));
            text.push(':');
            for need in needs {
                text.push(' ');
                text.push_str(&packed_name(need));
            }
            text.push('\n');
        }
        text
    }
}

/// `modules.alias` without the modules that were not chosen.
pub fn trim_aliases(text: &str, chosen: &BTreeSet<String>) -> String {
    let names: BTreeSet<String> = chosen.iter().map(|file| name_of(file)).collect();
    let kept = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("alias") && words.nth(1).is_some_and(|module| names.contains(&module.replace('-', "_")))
    };
    text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

/// Name of a module's file in the boot environment: `a/b.ko`, `a/b.ko.xz` → `a/b.ko.zst`.
pub fn packed_name(file: &str) -> String {
    let plain = [".xz", ".zst", ".gz"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file);
    format!("{plain}.zst")
}

/// `kernel/drivers/net/virtio-net.ko.xz` → `virtio_net`.
fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split_once(".ko").map_or(base, |(stem, _)| stem).replace('-', "_")
}

/// Whether a path stays in its directory and names a module.
fn is_module_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.contains(".ko") && path.split('/').all(plain) && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n\
        kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
        kernel/net/core/failover.ko:\n\
        kernel/drivers/net/wireless/wifi.ko.xz: kernel/net/mac.ko\n\
        kernel/net/mac.ko:\n\
        kernel/drivers/scsi/sd_mod.ko.xz: kernel/lib/crc.ko\n\
        kernel/lib/crc.ko:\n";

    #[test]
    fn a_set_is_closed_and_nothing_else_is_in_it() {
        let all = Dependencies::parse(DEP).expect("good");
        let server = all.select(ModuleSet::Server);
        let expected = [
            "kernel/drivers/net/net_failover.ko",
            "kernel/drivers/net/virtio_net.ko",
            "kernel/drivers/scsi/sd_mod.ko.xz",
            "kernel/lib/crc.ko",
            "kernel/net/core/failover.ko",
        ];
        assert_eq!(server.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        let text = all.render(&server);
        assert!(text.contains("kernel/drivers/scsi/sd_mod.ko.zst: kernel/lib/crc.ko.zst\n"), "{text}");
        assert!(!text.contains("wifi"));
        assert_eq!(all.select(ModuleSet::Guest).len(), 5);
    }

    #[test]
    fn aliases_follow_the_modules() {
        let chosen = BTreeSet::from(["a/virtio-net.ko".to_string()]);
        let text = "# x\nalias virtio:d1 virtio_net\nalias pci:x other\nalias short\n";
        assert_eq!(trim_aliases(text, &chosen), "alias virtio:d1 virtio_net\n");
    }

    #[test]
    fn t10_paths_that_leave_the_directory_are_refused() {
        for bad in ["../x.ko:", "/x.ko:", "a/../../x.ko: ", "a.ko: ../b.ko", "a//b.ko:", "nonsense", "a.txt:"] {
            assert!(Dependencies::parse(bad).is_err(), "{bad}");
        }
    }
}
