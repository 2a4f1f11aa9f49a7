//! What kind of boot client is this? Answered once, from options 60, 77, 93 and 175, into one value that all else uses.
//!
//! Rules in this order, the first that holds wins:
//!
//! | seen | firmware |
//! |---|---|
//! | 77 is `iPXE` (bare, as iPXE sends it, or as RFC 3004 string), or 175 is there | iPXE |
//! | 60 is `HTTPClient` or begins with `HTTPClient:` | UEFI (or BIOS) HTTP boot |
//! | 93 or 60 `Arch:NNNNN` is a U-Boot number, or 60 begins with `U-Boot` | U-Boot |
//! | 93 is a number of Open Firmware / IBM Z | these |
//! | 60 is `PXEClient` or begins with `PXEClient:` | PXE, by the platform of its architecture |
//! | no 60, no 93, no 61, but 55 asks for 67 and 93 | undeclared (SLOF and s390-ccw say nothing before their Request) |
//! | else | none: an operating system's own client |

use super::options::{self, Architecture, Platform, code};
use super::wire::Request;

/// Which program of the machine asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Firmware {
    /// No boot client: an operating system, an installer, udhcpc.
    None,
    /// A PXE ROM under BIOS.
    PxeBios,
    /// UEFI's PXE client.
    PxeUefi,
    /// UEFI's (or a BIOS') HTTP boot client: its boot file is a URL.
    HttpBoot,
    /// iPXE under BIOS: its boot file may be a URL of a script.
    IpxeBios,
    /// iPXE under UEFI.
    IpxeUefi,
    /// Open Firmware or OPAL on Power.
    OpenFirmware,
    /// The boot program of IBM Z.
    S390,
    /// U-Boot.
    UBoot,
    /// Asks for a boot file and for option 93, says neither class nor architecture yet: decide at its Request, or answer
    /// without a boot file, on which such firmware walks the PXELINUX names.
    Undeclared,
}

impl Firmware {
    /// Lower-case stable name for logs, counters and spans.
    pub fn name(self) -> &'static str {
        match self {
            Firmware::None => "none",
            Firmware::PxeBios => "pxe_bios",
            Firmware::PxeUefi => "pxe_uefi",
            Firmware::HttpBoot => "http_boot",
            Firmware::IpxeBios => "ipxe_bios",
            Firmware::IpxeUefi => "ipxe_uefi",
            Firmware::OpenFirmware => "open_firmware",
            Firmware::S390 => "s390",
            Firmware::UBoot => "u_boot",
            Firmware::Undeclared => "undeclared",
        }
    }
}

/// The one value that everything downstream of DHCP uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootClient {
    /// Which program asks.
    pub firmware: Firmware,
    /// The machine's processor, as far as it is said.
    pub architecture: Architecture,
}

impl BootClient {
    /// Option 60 that the firmware wants to see in an answer with a boot file (PXE 2.1 §2.2.1, UEFI 2.10 §24.7.1).
    pub fn vendor_class_echo(self) -> Option<&'static [u8]> {
        match self.firmware {
            Firmware::PxeBios | Firmware::PxeUefi => Some(b"PXEClient"),
            Firmware::HttpBoot => Some(b"HTTPClient"),
            // iPXE takes an answer of class PXEClient for one of a ProxyDHCP server's kind and looks further.
            Firmware::IpxeBios | Firmware::IpxeUefi => None,
            Firmware::OpenFirmware | Firmware::S390 | Firmware::UBoot | Firmware::Undeclared | Firmware::None => None,
        }
    }

    /// Whether it is iPXE, on whatever platform.
    pub fn is_ipxe(self) -> bool {
        matches!(self.firmware, Firmware::IpxeBios | Firmware::IpxeUefi)
    }

    /// Whether it is firmware that loads a boot file.
    pub fn is_boot_firmware(self) -> bool {
        self.firmware != Firmware::None
    }
}

/// Classifies a request; see the module's table.
pub fn classify(request: &Request) -> BootClient {
    let vendor_class = request.vendor_class.as_deref().unwrap_or_default();
    let row = first_known(&request.architectures).or_else(|| class_architecture(vendor_class));
    let architecture = row.map_or(Architecture::Unknown, |row| row.architecture);
    let platform = row.map(|row| row.platform);
    let firmware = if is_ipxe(request) {
        match platform {
            Some(Platform::Bios | Platform::BiosHttp) | None => Firmware::IpxeBios,
            Some(_) => Firmware::IpxeUefi,
        }
    } else if is_class(vendor_class, b"HTTPClient") {
        Firmware::HttpBoot
    } else if platform == Some(Platform::UBoot) || vendor_class.starts_with(b"U-Boot") {
        Firmware::UBoot
    } else if platform == Some(Platform::OpenFirmware) {
        Firmware::OpenFirmware
    } else if platform == Some(Platform::S390) {
        Firmware::S390
    } else if is_class(vendor_class, b"PXEClient") {
        match platform {
            // A ROM that says no architecture is of the time before option 93.
            Some(Platform::Bios | Platform::BiosHttp) | None => Firmware::PxeBios,
            Some(_) => Firmware::PxeUefi,
        }
    } else if is_undeclared(request) {
        Firmware::Undeclared
    } else {
        Firmware::None
    };
    BootClient { firmware, architecture }
}

fn first_known(numbers: &[u16]) -> Option<&'static options::ArchitectureRow> {
    numbers.iter().find_map(|number| options::architecture(*number))
}

/// The number in `PXEClient:Arch:00007:UNDI:003000`.
fn class_architecture(class: &[u8]) -> Option<&'static options::ArchitectureRow> {
    let text = core::str::from_utf8(class).ok()?;
    let mut fields = text.split(':').skip_while(|field| *field != "Arch");
    let number = fields.nth(1)?;
    let digits = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    options::architecture(digits.then(|| number.parse().ok())??)
}

fn is_class(class: &[u8], name: &[u8]) -> bool {
    class.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
}

fn is_ipxe(request: &Request) -> bool {
    let user_class = request.user_class.as_deref().unwrap_or_default();
    user_class == b"iPXE" || user_class_strings(user_class).any(|class| class == b"iPXE") || request.ipxe_options
}

/// The strings of RFC 3004 §4, each after its length octet; stops at one that lies.
fn user_class_strings(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (class, rest) = rest.split_at_checked(usize::from(*length))?;
        data = rest;
        Some(class)
    })
}

fn is_undeclared(request: &Request) -> bool {
    request.vendor_class.is_none()
        && request.architectures.is_empty()
        && request.client_identifier.is_none()
        && request.asks_for(code::BOOT_FILE)
        && request.asks_for(code::ARCHITECTURE)
}

#[cfg(test)]
mod tests {
    use super::super::options::MessageType;
    use super::super::wire::ClientMessage;
    use super::*;
    use core::net::Ipv4Addr;

    fn kind(options: &[(u8, &[u8])]) -> BootClient {
        let mut buffer = [0; 1_000];
        let length = ClientMessage {
            message_type: MessageType::Discover,
            transaction_id: 1,
            seconds: 0,
            broadcast: false,
            hops: 0,
            client_ip: Ipv4Addr::UNSPECIFIED,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            client_hardware_address: [2, 0, 0, 0, 0, 1],
            options,
        }
        .encode(&mut buffer)
        .unwrap();
        classify(&Request::parse(&buffer[..length]).unwrap())
    }

    #[test]
    fn every_row_of_the_fingerprint_table() {
        use Architecture as A;
        use Firmware as F;
        type Row<'a> = (&'a str, &'a [(u8, &'a [u8])], F, A);
        let table: &[Row<'_>] = &[
            (
                "iPXE BIOS ROM",
                &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0]), (77, b"iPXE")],
                F::IpxeBios,
                A::X86Bios,
            ),
            ("iPXE, RFC 3004 class", &[(93, &[0, 7]), (77, b"\x04iPXE")], F::IpxeUefi, A::Amd64),
            ("iPXE, only 175", &[(93, &[0, 11]), (175, &[])], F::IpxeUefi, A::Arm64),
            ("OVMF PXEv4", &[(60, b"PXEClient:Arch:00007:UNDI:003000"), (93, &[0, 7])], F::PxeUefi, A::Amd64),
            ("OVMF HTTPv4", &[(60, b"HTTPClient:Arch:00016:UNDI:003000"), (93, &[0, 16])], F::HttpBoot, A::Amd64),
            ("AAVMF PXEv4", &[(60, b"PXEClient:Arch:00011:UNDI:003000"), (93, &[0, 11])], F::PxeUefi, A::Arm64),
            (
                "iPXE arm64",
                &[(60, b"PXEClient:Arch:00011:UNDI:003010"), (93, &[0, 11]), (77, b"iPXE")],
                F::IpxeUefi,
                A::Arm64,
            ),
            ("SLOF Discover", &[(55, &[1, 3, 6, 66, 67, 93])], F::Undeclared, A::Unknown),
            ("SLOF Request", &[(55, &[1, 3, 6, 66, 67, 93, 209, 210]), (93, &[0, 12])], F::OpenFirmware, A::Ppc64),
            ("s390-ccw Request", &[(55, &[1, 3, 6, 66, 67, 93, 209, 210]), (93, &[0, 31])], F::S390, A::S390x),
            ("udhcpc", &[(60, b"udhcp 1.35.0"), (61, &[1, 2, 0, 0, 0, 0, 1])], F::None, A::Unknown),
            ("PXE without 93", &[(60, b"PXEClient:Arch:00000:UNDI:002001")], F::PxeBios, A::X86Bios),
            ("PXE without any", &[(60, b"PXEClient")], F::PxeBios, A::Unknown),
            ("not quite PXE", &[(60, b"PXEClientele")], F::None, A::Unknown),
            ("class text out of range", &[(60, b"PXEClient:Arch:99999:UNDI:002001")], F::PxeBios, A::Unknown),
            ("U-Boot", &[(60, b"U-Boot.armv8"), (93, &[0, 22])], F::UBoot, A::Arm64),
            ("first known of several", &[(60, b"PXEClient"), (93, &[0xff, 0, 0, 7])], F::PxeUefi, A::Amd64),
            ("lying user class", &[(77, b"\xffiPXE")], F::None, A::Unknown),
        ];
        for (name, options, firmware, architecture) in table {
            assert_eq!(kind(options), BootClient { firmware: *firmware, architecture: *architecture }, "{name}");
        }
    }
}
