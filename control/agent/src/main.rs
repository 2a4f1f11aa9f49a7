//! The program that runs on a machine: PID 1 of the boot environment, and later, inside the installed system, the
//! sender of its ready signal.
//!
//! Decisions are pure functions over bytes and records (command line, module tables, partition table, layout, seed, boot
//! entry, `grub.cfg`); what touches the machine is thin around them, and unsafe code is in `sys` alone. Nothing that a
//! rack or a disk says is trusted: messages come over TLS checked against the site's CA, content is hashed before a byte
//! of it is written, and every length is bounded by `limits`. No process is started.

mod command_line;
mod deploy;
mod disk;
mod files;
mod init;
mod inventory;
mod lease;
mod limits;
mod log;
mod modules;
mod network;
mod ready;
mod retry;
mod session;
mod sys;
mod system;
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run()
    }
    match std::env::args().nth(1).as_deref() {
        Some("ready") => match ready::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                crate::log!("ready: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            crate::log!("this program is the init of Bootstorm's boot environment; usage elsewhere: agent ready");
            ExitCode::from(2)
        }
    }
}
