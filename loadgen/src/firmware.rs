//! How long boot firmware and loaders wait, how often they ask again, and when they give up. DHCP's timers stand with
//! `proto`'s profiles; here are those of TFTP and HTTP.
//!
//! | who | TFTP: block, window; waits | HTTP | source |
//! |---|---|---|---|
//! | EDK2's PXE | 1468, 4; 6 sends 4 s apart | – | `PxeBcImpl.h` (`PXEBC_MTFTP_TIMEOUT`, `PXEBC_MTFTP_RETRIES`) |
//! | EDK2's HTTP Boot | – | 5 s for a connection, 5 s without a byte, one try | `HttpBootDxe.h` (`HTTP_BOOT_RESPONSE_TIMEOUT`), `HttpDriver.h` |
//! | PXE ROM under BIOS | 1456, 1; as EDK2's | – | constructed: no such ROM is to be had as a program |
//! | iPXE | 1432, 1; ¼ s doubled up to 8 s | SYNs at ¼ s doubled up to 8 s; a connection that stands is waited for without end | `retry.h` (`DEFAULT_MIN_TIMEOUT`, `DEFAULT_MAX_TIMEOUT`), `tcp.c` |
//! | GRUB | 1024, 1; 40 sends, 400 ms apart and each wait 20 ms longer | the same 40 waits | `net.h` (`GRUB_NET_TRIES`, `GRUB_NET_INTERVAL`, `GRUB_NET_INTERVAL_ADDITION`) |
//! | PXELINUX | 1408, 1; waits of its table in ticks of 1/18.2 s | as iPXE (*assumed*) | `core/fs/pxe/tftp.c` (`TimeoutTable`) |
//!
//! A patient node (every scenario but `avalanche`) instead waits 4 s six times by TFTP, and by HTTP connects anew a few times,
//! so that what is measured is the server and not who gave up first.

use std::time::Duration;

use crate::limits::{CONNECTS_MAX, SILENCE_MAX};
use crate::schedule::Firmware;

/// Who fetches something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The firmware itself.
    Firmware(Firmware),
    /// iPXE.
    Ipxe,
    /// GRUB.
    Grub,
    /// PXELINUX.
    Pxelinux,
    /// What runs after the kernel.
    System,
}

/// When a node gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// Late, whatever fetches.
    #[default]
    Patient,
    /// When its firmware or loader does.
    AsFirmware,
}

/// How somebody reads by TFTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tftp {
    /// `blksize` (RFC 2348).
    pub block_bytes: u16,
    /// `windowsize` (RFC 7440), where it is asked for.
    pub window_blocks: Option<u16>,
    /// How long each send is waited for; after the last it gives up.
    pub waits: &'static [Duration],
}

/// How somebody reads by HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    /// How long a connection may take to stand.
    pub connect: Duration,
    /// How long nothing may come on it; `None`: as long as the machine's deadline allows.
    pub silence: Option<Duration>,
    /// How often it connects anew.
    pub connects_max: u32,
    /// Whether it comes again when told to (503 with `Retry-After`).
    pub comes_again: bool,
    /// `User-Agent`.
    pub agent: &'static str,
}

const PATIENT_WAITS: &[Duration] = &[Duration::from_secs(4); 6];
const EDK2_WAITS: &[Duration] = &[Duration::from_secs(4); 6];
const IPXE_WAITS: &[Duration] = &[
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
const GRUB_WAITS: &[Duration] = &{
    let mut waits = [Duration::ZERO; 40];
    let mut index = 0;
    while index < waits.len() {
        waits[index] = Duration::from_millis(400 + 20 * index as u64);
        index += 1;
    }
    waits
};
/// In ticks of 1/18.2 s.
const PXELINUX_TICKS: [u64; 31] = [
    2, 2, 3, 3, 4, 5, 6, 7, 9, 10, 12, 15, 18, 21, 26, 31, 37, 44, 53, 64, 77, 92, 110, 132, 159, 191, 229, 255, 255,
    255, 255,
];
const PXELINUX_WAITS: &[Duration] = &{
    let mut waits = [Duration::ZERO; PXELINUX_TICKS.len()];
    let mut index = 0;
    while index < waits.len() {
        waits[index] = Duration::from_micros(PXELINUX_TICKS[index] * 10_000_000 / 182);
        index += 1;
    }
    waits
};

/// All waits one after the other.
const fn sum(waits: &[Duration]) -> Duration {
    let mut all = Duration::ZERO;
    let mut index = 0;
    while index < waits.len() {
        all = all.saturating_add(waits[index]);
        index += 1;
    }
    all
}

/// How this one reads by TFTP.
pub fn tftp(speaker: Speaker, patience: Patience) -> Tftp {
    let (block_bytes, window_blocks, waits) = match speaker {
        Speaker::Firmware(Firmware::Uefi | Firmware::Http) => (1_468, Some(4), EDK2_WAITS),
        Speaker::Firmware(Firmware::Bios) | Speaker::System => (1_456, None, EDK2_WAITS),
        Speaker::Firmware(Firmware::Ipxe) | Speaker::Ipxe => (1_432, None, IPXE_WAITS),
        Speaker::Grub => (1_024, None, GRUB_WAITS),
        Speaker::Pxelinux => (1_408, None, PXELINUX_WAITS),
    };
    let waits = match patience {
        Patience::Patient => PATIENT_WAITS,
        Patience::AsFirmware => waits,
    };
    Tftp { block_bytes, window_blocks, waits }
}

/// How this one reads by HTTP.
pub fn http(speaker: Speaker, patience: Patience) -> Http {
    let agent = match speaker {
        Speaker::Firmware(Firmware::Bios | Firmware::Uefi | Firmware::Http) => "UefiHttpBoot/1.0",
        Speaker::Firmware(Firmware::Ipxe) | Speaker::Ipxe => "iPXE/1.21 (loadgen)",
        Speaker::Grub => "GRUB (loadgen)",
        Speaker::Pxelinux => "Syslinux (loadgen)",
        Speaker::System => "loadgen",
    };
    let patient =
        Http { connect: SILENCE_MAX, silence: Some(SILENCE_MAX), connects_max: CONNECTS_MAX, comes_again: true, agent };
    match (patience, speaker) {
        // An agent is as patient as we like; firmware is not.
        (Patience::Patient, _) | (Patience::AsFirmware, Speaker::System) => patient,
        (Patience::AsFirmware, Speaker::Firmware(Firmware::Bios | Firmware::Uefi | Firmware::Http)) => {
            let wait = Duration::from_secs(5);
            Http { connect: wait, silence: Some(wait), connects_max: 0, comes_again: false, agent }
        }
        (Patience::AsFirmware, Speaker::Firmware(Firmware::Ipxe) | Speaker::Ipxe) => {
            Http { connect: sum(IPXE_WAITS), silence: None, connects_max: 0, comes_again: true, agent }
        }
        (Patience::AsFirmware, Speaker::Pxelinux) => {
            Http { connect: sum(IPXE_WAITS), silence: None, connects_max: 0, comes_again: false, agent }
        }
        (Patience::AsFirmware, Speaker::Grub) => {
            let wait = sum(GRUB_WAITS);
            Http { connect: wait, silence: Some(wait), connects_max: 0, comes_again: false, agent }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_it_says() {
        let edk2 = tftp(Speaker::Firmware(Firmware::Uefi), Patience::AsFirmware);
        assert_eq!((edk2.block_bytes, edk2.window_blocks, sum(edk2.waits)), (1_468, Some(4), Duration::from_secs(24)));
        assert_eq!(sum(tftp(Speaker::Ipxe, Patience::AsFirmware).waits), Duration::from_millis(15_750));
        assert_eq!(sum(tftp(Speaker::Grub, Patience::AsFirmware).waits), Duration::from_millis(31_600));
        let pxelinux = sum(tftp(Speaker::Pxelinux, Patience::AsFirmware).waits);
        assert_eq!(pxelinux.as_secs(), 130);
        assert_eq!(http(Speaker::Firmware(Firmware::Http), Patience::AsFirmware).silence, Some(Duration::from_secs(5)));
        assert_eq!(http(Speaker::Ipxe, Patience::AsFirmware).silence, None);
        assert_eq!(http(Speaker::System, Patience::AsFirmware).connects_max, CONNECTS_MAX);
    }
}
