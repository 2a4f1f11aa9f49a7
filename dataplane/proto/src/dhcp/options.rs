//! Option codes, message types and processor architectures, each a table with its source.

/// Codes of the options that this crate reads or writes. Plain numbers, since option 55 and extra options carry any number.
pub mod code {
    /// Pad (RFC 2132 §3.1).
    pub const PAD: u8 = 0;
    /// Subnet mask (RFC 2132 §3.3).
    pub const SUBNET_MASK: u8 = 1;
    /// Routers (RFC 2132 §3.5).
    pub const ROUTERS: u8 = 3;
    /// Domain name servers (RFC 2132 §3.8).
    pub const DOMAIN_NAME_SERVERS: u8 = 6;
    /// Host name (RFC 2132 §3.14).
    pub const HOST_NAME: u8 = 12;
    /// Domain name (RFC 2132 §3.17).
    pub const DOMAIN_NAME: u8 = 15;
    /// Interface MTU (RFC 2132 §5.1).
    pub const INTERFACE_MTU: u8 = 26;
    /// Broadcast address (RFC 2132 §5.3).
    pub const BROADCAST_ADDRESS: u8 = 28;
    /// NTP servers (RFC 2132 §8.3).
    pub const NTP_SERVERS: u8 = 42;
    /// Vendor-specific information; PXE sub-options here (RFC 2132 §8.4, PXE 2.1 §2.2).
    pub const VENDOR_SPECIFIC: u8 = 43;
    /// Requested IP address (RFC 2132 §9.1).
    pub const REQUESTED_IP: u8 = 50;
    /// Lease time (RFC 2132 §9.2).
    pub const LEASE_SECONDS: u8 = 51;
    /// Option overload (RFC 2132 §9.3).
    pub const OVERLOAD: u8 = 52;
    /// DHCP message type (RFC 2132 §9.6).
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier (RFC 2132 §9.7).
    pub const SERVER_IDENTIFIER: u8 = 54;
    /// Parameter request list (RFC 2132 §9.8).
    pub const PARAMETER_REQUEST_LIST: u8 = 55;
    /// Message, text of a Nak (RFC 2132 §9.9).
    pub const MESSAGE: u8 = 56;
    /// Maximum DHCP message size (RFC 2132 §9.10).
    pub const MESSAGE_BYTES_MAX: u8 = 57;
    /// Renewal time T1 (RFC 2132 §9.11).
    pub const RENEWAL_SECONDS: u8 = 58;
    /// Rebinding time T2 (RFC 2132 §9.12).
    pub const REBINDING_SECONDS: u8 = 59;
    /// Vendor class identifier (RFC 2132 §9.13).
    pub const VENDOR_CLASS: u8 = 60;
    /// Client identifier (RFC 2132 §9.14).
    pub const CLIENT_IDENTIFIER: u8 = 61;
    /// TFTP server name (RFC 2132 §9.4).
    pub const TFTP_SERVER_NAME: u8 = 66;
    /// Boot file name (RFC 2132 §9.5).
    pub const BOOT_FILE: u8 = 67;
    /// User class (RFC 3004).
    pub const USER_CLASS: u8 = 77;
    /// Relay agent information (RFC 3046).
    pub const RELAY_AGENT_INFORMATION: u8 = 82;
    /// Client system architecture (RFC 4578 §2.1).
    pub const ARCHITECTURE: u8 = 93;
    /// Client network interface identifier (RFC 4578 §2.2).
    pub const NETWORK_INTERFACE: u8 = 94;
    /// Client machine identifier (RFC 4578 §2.3).
    pub const MACHINE_IDENTIFIER: u8 = 97;
    /// Etherboot's encapsulated options (iPXE, `dhcp-options.rst`).
    pub const IPXE: u8 = 175;
    /// PXELINUX configuration file (RFC 5071 §4).
    pub const PXELINUX_CONFIG_FILE: u8 = 209;
    /// PXELINUX path prefix (RFC 5071 §5).
    pub const PXELINUX_PATH_PREFIX: u8 = 210;
    /// End (RFC 2132 §3.2).
    pub const END: u8 = 255;
}

/// DHCP message type, option 53 (RFC 2132 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Client looks for servers.
    Discover = 1,
    /// Server proposes an address.
    Offer = 2,
    /// Client takes an offer, or confirms, renews or rebinds a lease.
    Request = 3,
    /// Client found the address in use.
    Decline = 4,
    /// Server grants.
    Ack = 5,
    /// Server refuses.
    Nak = 6,
    /// Client gives an address back.
    Release = 7,
    /// Client has an address and asks for the rest.
    Inform = 8,
}

impl MessageType {
    /// The type of a code; `None` for those of other protocols (lease query, force renew).
    pub fn from_code(code: u8) -> Option<MessageType> {
        Some(match code {
            1 => MessageType::Discover,
            2 => MessageType::Offer,
            3 => MessageType::Request,
            4 => MessageType::Decline,
            5 => MessageType::Ack,
            6 => MessageType::Nak,
            7 => MessageType::Release,
            8 => MessageType::Inform,
            _ => return None,
        })
    }

    /// The octet on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether clients send it (the others are servers').
    pub fn is_from_client(self) -> bool {
        match self {
            MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform => true,
            MessageType::Offer | MessageType::Ack | MessageType::Nak => false,
        }
    }

    /// Lower-case name for logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            MessageType::Discover => "discover",
            MessageType::Offer => "offer",
            MessageType::Request => "request",
            MessageType::Decline => "decline",
            MessageType::Ack => "ack",
            MessageType::Nak => "nak",
            MessageType::Release => "release",
            MessageType::Inform => "inform",
        }
    }
}

/// What a machine's processor is, as far as its firmware says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// Not said, or a number that the table does not know.
    Unknown,
    /// A PC under BIOS: 32 or 64 bits is not told.
    X86Bios,
    /// 32-bit x86 under UEFI.
    I386,
    /// 64-bit x86 under UEFI.
    Amd64,
    /// EFI byte code; by long habit 64-bit x86 firmware sends it too.
    EfiByteCode,
    /// 32-bit Arm.
    Arm32,
    /// 64-bit Arm.
    Arm64,
    /// PowerPC.
    Ppc64,
    /// IBM Z.
    S390x,
    /// 32-bit RISC-V.
    Riscv32,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit LoongArch.
    Loongarch64,
}

impl Architecture {
    /// Name as Debian has it where there is one; stable.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Unknown => "unknown",
            Architecture::X86Bios => "x86-bios",
            Architecture::I386 => "i386",
            Architecture::Amd64 => "amd64",
            Architecture::EfiByteCode => "efi-byte-code",
            Architecture::Arm32 => "armhf",
            Architecture::Arm64 => "arm64",
            Architecture::Ppc64 => "ppc64el",
            Architecture::S390x => "s390x",
            Architecture::Riscv32 => "riscv32",
            Architecture::Riscv64 => "riscv64",
            Architecture::Loongarch64 => "loong64",
        }
    }
}

/// How firmware of an architecture number loads its first file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// PC BIOS with a PXE ROM.
    Bios,
    /// UEFI by TFTP.
    Uefi,
    /// UEFI by HTTP.
    UefiHttp,
    /// PC BIOS by HTTP.
    BiosHttp,
    /// Open Firmware or OPAL.
    OpenFirmware,
    /// IBM Z.
    S390,
    /// U-Boot.
    UBoot,
}

/// One row of the table of processor architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchitectureRow {
    /// The number in option 93.
    pub number: u16,
    /// The processor.
    pub architecture: Architecture,
    /// How it boots.
    pub platform: Platform,
    /// IANA's words, shortened.
    pub note: &'static str,
}

const fn row(number: u16, architecture: Architecture, platform: Platform, note: &'static str) -> ArchitectureRow {
    ArchitectureRow { number, architecture, platform, note }
}

/// Option 93 numbers in ascending order. Source: IANA "Processor Architecture Types" (RFC 5970 §3.3) with RFC 4578 §2.1.
///
/// RFC 4578 printed 7 as EFI BC and 9 as x86-64; erratum 4625 swaps them, and firmware in the field sends either for x64.
pub const ARCHITECTURES: &[ArchitectureRow] = &[
    row(0x00, Architecture::X86Bios, Platform::Bios, "x86 BIOS"),
    row(0x06, Architecture::I386, Platform::Uefi, "x86 UEFI"),
    row(0x07, Architecture::Amd64, Platform::Uefi, "x64 UEFI"),
    row(0x09, Architecture::EfiByteCode, Platform::Uefi, "EBC, used for x64 too"),
    row(0x0a, Architecture::Arm32, Platform::Uefi, "ARM 32-bit UEFI"),
    row(0x0b, Architecture::Arm64, Platform::Uefi, "ARM 64-bit UEFI"),
    row(0x0c, Architecture::Ppc64, Platform::OpenFirmware, "PowerPC Open Firmware"),
    row(0x0d, Architecture::Ppc64, Platform::OpenFirmware, "PowerPC ePAPR"),
    row(0x0e, Architecture::Ppc64, Platform::OpenFirmware, "POWER OPAL v3"),
    row(0x0f, Architecture::I386, Platform::UefiHttp, "x86 UEFI boot from HTTP"),
    row(0x10, Architecture::Amd64, Platform::UefiHttp, "x64 UEFI boot from HTTP"),
    row(0x11, Architecture::EfiByteCode, Platform::UefiHttp, "EBC boot from HTTP"),
    row(0x12, Architecture::Arm32, Platform::UefiHttp, "ARM 32-bit UEFI boot from HTTP"),
    row(0x13, Architecture::Arm64, Platform::UefiHttp, "ARM 64-bit UEFI boot from HTTP"),
    row(0x14, Architecture::X86Bios, Platform::BiosHttp, "PC BIOS boot from HTTP"),
    row(0x15, Architecture::Arm32, Platform::UBoot, "ARM 32-bit U-Boot"),
    row(0x16, Architecture::Arm64, Platform::UBoot, "ARM 64-bit U-Boot"),
    row(0x17, Architecture::Arm32, Platform::UBoot, "ARM 32-bit U-Boot boot from HTTP"),
    row(0x18, Architecture::Arm64, Platform::UBoot, "ARM 64-bit U-Boot boot from HTTP"),
    row(0x19, Architecture::Riscv32, Platform::Uefi, "RISC-V 32-bit UEFI"),
    row(0x1a, Architecture::Riscv32, Platform::UefiHttp, "RISC-V 32-bit UEFI boot from HTTP"),
    row(0x1b, Architecture::Riscv64, Platform::Uefi, "RISC-V 64-bit UEFI"),
    row(0x1c, Architecture::Riscv64, Platform::UefiHttp, "RISC-V 64-bit UEFI boot from HTTP"),
    row(0x1f, Architecture::S390x, Platform::S390, "s390 Basic"),
    row(0x20, Architecture::S390x, Platform::S390, "s390 Extended"),
    row(0x27, Architecture::Loongarch64, Platform::Uefi, "LoongArch 64-bit UEFI"),
    row(0x28, Architecture::Loongarch64, Platform::UefiHttp, "LoongArch 64-bit UEFI boot from HTTP"),
];

/// The row of a number, `None` if it is not in [`ARCHITECTURES`].
pub fn architecture(number: u16) -> Option<&'static ArchitectureRow> {
    let at = ARCHITECTURES.binary_search_by_key(&number, |row| row.number).ok()?;
    ARCHITECTURES.get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_sorted_and_found() {
        assert!(ARCHITECTURES.windows(2).all(|pair| pair[0].number < pair[1].number));
        for row in ARCHITECTURES {
            assert_eq!(architecture(row.number), Some(row));
        }
        assert_eq!(architecture(0x1234), None);
    }

    #[test]
    fn message_types_round_trip() {
        for code in 0..=255 {
            if let Some(kind) = MessageType::from_code(code) {
                assert_eq!(kind.code(), code);
            }
        }
        assert_eq!(MessageType::from_code(9), None);
    }
}
