//! Which disk is written.

use bootstorm_snapshot::inventory::Disk;
use bootstorm_snapshot::plan::DiskSelector;

/// Why no disk can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No disk fits the selector; one may still appear.
    #[error("no disk {wanted}; the machine has {present}")]
    NotFound {
        /// What was looked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The disk, or every disk, is smaller than the image.
    #[error("the image needs {needed} bytes; the machine has {present}")]
    TooSmall {
        /// Length of the image.
        needed: u64,
        /// What there is.
        present: String,
    },
    /// The disk cannot be written.
    #[error("disk {0} is read-only")]
    ReadOnly(String),
}

impl SelectError {
    /// Stable code of the failure.
    pub fn code(&self) -> &'static str {
        match self {
            SelectError::NotFound { .. } => "disk-not-found",
            SelectError::TooSmall { .. } => "disk-too-small",
            SelectError::ReadOnly(_) => "disk-read-only",
        }
    }
}

/// The disk of `disks` that `selector` means, for an image of `image_bytes`.
pub fn select<'a>(disks: &'a [Disk], selector: &DiskSelector, image_bytes: u64) -> Result<&'a Disk, SelectError> {
    let present = || describe(disks);
    let named = |found: Option<&'a Disk>, wanted: String| {
        let disk = found.ok_or_else(|| SelectError::NotFound { wanted, present: present() })?;
        if disk.read_only {
            return Err(SelectError::ReadOnly(disk.name.clone()));
        }
        Ok(disk)
    };
    let disk = match selector {
        DiskSelector::Serial { serial } => {
            named(disks.iter().find(|d| d.serial.as_deref() == Some(serial)), format!("with serial `{serial}`"))?
        }
        DiskSelector::Name { name } => named(disks.iter().find(|d| d.name == *name), format!("named `{name}`"))?,
        DiskSelector::Smallest => {
            let usable = || disks.iter().filter(|d| !d.read_only && !d.removable);
            let fitting = usable().filter(|d| d.bytes >= image_bytes);
            match fitting.min_by(|a, b| (a.bytes, &a.name).cmp(&(b.bytes, &b.name))) {
                Some(disk) => disk,
                None if usable().next().is_some() => {
                    return Err(SelectError::TooSmall { needed: image_bytes, present: present() });
                }
                None => {
                    let wanted = "that is writable and fixed".to_string();
                    return Err(SelectError::NotFound { wanted, present: present() });
                }
            }
        }
    };
    if disk.bytes < image_bytes {
        return Err(SelectError::TooSmall { needed: image_bytes, present: present() });
    }
    Ok(disk)
}

fn describe(disks: &[Disk]) -> String {
    let texts: Vec<String> = disks.iter().take(16).map(|d| format!("{} of {} bytes", d.name, d.bytes)).collect();
    if texts.is_empty() { "no disk".into() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, bytes: u64) -> Disk {
        Disk {
            name: name.into(),
            bytes,
            block_bytes: 512,
            rotational: false,
            read_only: false,
            removable: false,
            model: None,
            serial: Some(format!("serial-{name}")),
            wwn: None,
        }
    }

    #[test]
    fn the_smallest_that_fits_by_name_where_equal() {
        let mut disks = [disk("sdb", 100), disk("sda", 100), disk("sdc", 50), disk("sdd", 70)];
        disks[3].removable = true;
        let pick = |bytes| select(&disks, &DiskSelector::Smallest, bytes).map(|d| d.name.as_str());
        assert_eq!(pick(40), Ok("sdc"));
        assert_eq!(pick(60), Ok("sda"));
        let error = pick(101).expect_err("too small");
        assert_eq!(error.code(), "disk-too-small");
        assert!(error.to_string().contains("101") && error.to_string().contains("sdb of 100 bytes"));
    }

    #[test]
    fn a_named_disk_is_that_disk_or_none() {
        let mut disks = [disk("sda", 100), disk("sdb", 10)];
        disks[0].read_only = true;
        let name = |n: &str| DiskSelector::Name { name: n.into() };
        assert_eq!(select(&disks, &name("sdb"), 10).map(|d| d.bytes), Ok(10));
        assert_eq!(select(&disks, &name("sdb"), 11).map_err(|e| e.code()).err(), Some("disk-too-small"));
        assert_eq!(select(&disks, &name("sda"), 1).map_err(|e| e.code()).err(), Some("disk-read-only"));
        assert_eq!(select(&disks, &name("sdz"), 1).map_err(|e| e.code()).err(), Some("disk-not-found"));
        let serial = DiskSelector::Serial { serial: "serial-sdb".into() };
        assert_eq!(select(&disks, &serial, 1).map(|d| d.name.as_str()), Ok("sdb"));
        assert_eq!(select(&[], &DiskSelector::Smallest, 1).map_err(|e| e.code()).err(), Some("disk-not-found"));
    }
}
