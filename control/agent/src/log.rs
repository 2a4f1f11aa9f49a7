//! Lines for people on the machine's console, by the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

static KERNEL_LOG: OnceLock<Option<File>> = OnceLock::new();

/// Opens the kernel's log; until then, and where it cannot be opened, lines go to standard error.
pub fn open_kernel_log() {
    // Written messages are limited to ten in five seconds otherwise; a kernel without the switch does without.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    KERNEL_LOG.get_or_init(|| OpenOptions::new().write(true).open("/dev/kmsg").ok());
}

/// Writes one line. Control characters are replaced, and the line is cut at 900 bytes (a record of the kernel's log).
pub fn line(text: &str) {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = clean.len().min(900);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean.truncate(end);
    let written = match KERNEL_LOG.get() {
        // Level 3 is shown on the console also where the command line says `quiet`.
        Some(Some(log)) => (&*log).write_all(format!("<3>bootstorm: {clean}\n").as_bytes()),
        _ => std::io::stderr().write_all(format!("bootstorm: {clean}\n").as_bytes()),
    };
    // There is nowhere left to say that the log cannot be written.
    drop(written);
}

/// Writes one line to the console: `log!("format {}", value)`.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(&format!($($argument)*)) };
}
