//! Plays thousands of whole machines against a boot server.
//!
//! Each simulated machine is `proto`'s client halves over `driver`: DHCP as frames of its own MAC address, the loader by
//! TFTP or HTTP, what the server offers followed as iPXE, GRUB or PXELINUX follow it, kernel and initial RAM disks fetched
//! and thrown away; then against a rack of ours the claim redeemed over TLS and the plan done as far as a machine without
//! disks can, or against any server an image fetched over HTTP.

mod address;
mod agent;
mod check;
mod command;
mod faults;
mod fetch;
mod firmware;
#[cfg(test)]
mod foreign;
mod generate;
mod image;
mod limits;
mod link;
mod node;
mod reason;
mod report;
#[cfg(test)]
mod responder;
mod schedule;
mod script;
mod storm;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::command::Arguments;

fn main() -> ExitCode {
    match command::run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("loadgen: {message}");
            ExitCode::from(2)
        }
    }
}
