//! Starting the installed system without its firmware: its kernel is loaded by the running one.

use std::ffi::CString;
use std::io;

use super::grub::{self, GrubError};
use super::mounted::Root;
use crate::{limits, sys};

/// Where distributions keep GRUB's configuration.
const CONFIGURATIONS: &[&str] = &["boot/grub/grub.cfg", "boot/grub2/grub.cfg"];

/// Why the installed system is started by a reboot instead.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The configuration is not there, or not for us to read.
    #[error(transparent)]
    Grub(#[from] GrubError),
    /// A file is missing, or the kernel refuses to load the other one.
    #[error("{0}: {1}")]
    Load(String, io::Error),
}

/// Loads the kernel that the installed system's GRUB would start.
pub fn load(root: &Root) -> Result<(), KernelError> {
    let failed = |what: &str| {
        let what = what.to_string();
        move |error: io::Error| KernelError::Load(what, error)
    };
    let path = CONFIGURATIONS.iter().find(|path| root.exists(path)).ok_or(GrubError::NoEntry)?;
    let file = root.open(path).map_err(failed(path))?;
    let bytes = crate::files::read_from(file, limits::GRUB_BYTES_MAX).map_err(failed(path))?;
    let entry = grub::first_entry(&String::from_utf8_lossy(&bytes))?;
    let kernel = root.open(&entry.kernel).map_err(failed(&entry.kernel))?;
    let initrd = entry.initrd.as_ref().map(|path| root.open(path).map_err(failed(path))).transpose()?;
    let arguments = CString::new(entry.arguments).map_err(|_| GrubError::NoEntry)?;
    sys::load_kexec(&kernel, initrd.as_ref(), &arguments).map_err(failed("kexec"))
}
