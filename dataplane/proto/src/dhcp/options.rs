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
    /// Captive portal (RFC 8910 §2.1); ONIE takes it for the URL of its installer.
    pub const DEFAULT_URL: u8 = 114;
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

/// What an option's data is, as far as its length and content are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One IPv4 address.
    Address,
    /// One or more IPv4 addresses.
    Addresses,
    /// One or more printable ASCII characters.
    Text,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// Domain names (RFC 1035 §3.1), without compression.
    Domains,
    /// Prefix length, significant octets, router; repeated (RFC 3442).
    Routes,
    /// One or more octets.
    Opaque,
}

/// Who says what an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// Whoever describes the site: for all, a VLAN, a subnet, a range, a tag, a machine.
    Operator,
    /// The same, but only those who ask for it are told (option 55).
    OperatorIfAsked,
    /// The server alone: it follows from the lease or the message.
    Server,
    /// Clients and relays; the server repeats it or only reads it.
    Client,
}

/// One row of the table of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionRow {
    /// The code.
    pub code: u8,
    /// Its name in documents and tools, as IANA has it, in lower case with hyphens.
    pub name: &'static str,
    /// Its data.
    pub form: Form,
    /// Who sets it.
    pub set_by: SetBy,
    /// Where it is defined.
    pub source: &'static str,
}

const fn option(code: u8, name: &'static str, form: Form, set_by: SetBy, source: &'static str) -> OptionRow {
    OptionRow { code, name, form, set_by, source }
}

/// The options with a name, in ascending order. Others are set by number, as octets.
#[rustfmt::skip]
pub const OPTIONS: &[OptionRow] = &[
    option(1, "subnet-mask", Form::Address, SetBy::Server, "RFC 2132 §3.3"),
    option(3, "router", Form::Addresses, SetBy::Operator, "RFC 2132 §3.5"),
    option(6, "domain-server", Form::Addresses, SetBy::Operator, "RFC 2132 §3.8"),
    option(12, "hostname", Form::Text, SetBy::Operator, "RFC 2132 §3.14"),
    option(15, "domain-name", Form::Text, SetBy::Operator, "RFC 2132 §3.17"),
    option(26, "mtu-interface", Form::U16, SetBy::Operator, "RFC 2132 §5.1"),
    option(28, "broadcast-address", Form::Address, SetBy::Operator, "RFC 2132 §5.3"),
    option(42, "ntp-servers", Form::Addresses, SetBy::Operator, "RFC 2132 §8.3"),
    option(43, "vendor-specific", Form::Opaque, SetBy::Operator, "RFC 2132 §8.4"),
    option(50, "address-request", Form::Address, SetBy::Client, "RFC 2132 §9.1"),
    option(51, "address-time", Form::U32, SetBy::Server, "RFC 2132 §9.2"),
    option(52, "overload", Form::Opaque, SetBy::Server, "RFC 2132 §9.3"),
    option(53, "dhcp-msg-type", Form::Opaque, SetBy::Server, "RFC 2132 §9.6"),
    option(54, "dhcp-server-id", Form::Address, SetBy::Server, "RFC 2132 §9.7"),
    option(55, "parameter-list", Form::Opaque, SetBy::Client, "RFC 2132 §9.8"),
    option(56, "dhcp-message", Form::Text, SetBy::Server, "RFC 2132 §9.9"),
    option(57, "dhcp-max-msg-size", Form::U16, SetBy::Client, "RFC 2132 §9.10"),
    option(58, "renewal-time", Form::U32, SetBy::Server, "RFC 2132 §9.11"),
    option(59, "rebinding-time", Form::U32, SetBy::Server, "RFC 2132 §9.12"),
    option(60, "class-id", Form::Opaque, SetBy::Operator, "RFC 2132 §9.13"),
    option(61, "client-id", Form::Opaque, SetBy::Client, "RFC 2132 §9.14"),
    option(66, "server-name", Form::Text, SetBy::Operator, "RFC 2132 §9.4"),
    option(67, "bootfile-name", Form::Text, SetBy::Operator, "RFC 2132 §9.5"),
    option(77, "user-class", Form::Opaque, SetBy::Client, "RFC 3004"),
    option(82, "relay-agent-information", Form::Opaque, SetBy::Client, "RFC 3046"),
    option(93, "client-system", Form::Opaque, SetBy::Client, "RFC 4578 §2.1"),
    option(94, "client-ndi", Form::Opaque, SetBy::Client, "RFC 4578 §2.2"),
    option(97, "uuid-guid", Form::Opaque, SetBy::Client, "RFC 4578 §2.3"),
    option(108, "ipv6-only-preferred", Form::U32, SetBy::OperatorIfAsked, "RFC 8925 §3.1"),
    option(114, "captive-portal", Form::Text, SetBy::Operator, "RFC 8910 §2.1; ONIE: default URL"),
    option(119, "domain-search", Form::Domains, SetBy::Operator, "RFC 3397"),
    option(121, "classless-static-route", Form::Routes, SetBy::Operator, "RFC 3442"),
    option(125, "vi-vendor-specific", Form::Opaque, SetBy::Operator, "RFC 3925 §4"),
    option(150, "tftp-server-address", Form::Addresses, SetBy::Operator, "RFC 5859 §2"),
    option(175, "etherboot", Form::Opaque, SetBy::Operator, "iPXE, dhcp-options"),
    option(208, "pxelinux-magic", Form::U32, SetBy::Operator, "RFC 5071 §2"),
    option(209, "configuration-file", Form::Text, SetBy::Operator, "RFC 5071 §4"),
    option(210, "path-prefix", Form::Text, SetBy::Operator, "RFC 5071 §5"),
    option(211, "reboot-time", Form::U32, SetBy::Operator, "RFC 5071 §6"),
];

/// The row of a code, `None` if it is not in [`OPTIONS`].
pub fn option_row(code: u8) -> Option<&'static OptionRow> {
    let at = OPTIONS.binary_search_by_key(&code, |row| row.code).ok()?;
    OPTIONS.get(at)
}

/// Whether an operator may set an option to these octets: its code is theirs to set, and the data is of its form. A code
/// without a row takes anything of 1 to [`crate::limits::DHCP_OPTION_JOINED_BYTES_MAX`] octets.
pub fn may_be_set(code: u8, data: &[u8]) -> bool {
    let fits = !data.is_empty() && data.len() <= crate::limits::DHCP_OPTION_JOINED_BYTES_MAX;
    fits && match option_row(code) {
        None => code != code::PAD && code != code::END,
        Some(row) => match row.set_by {
            SetBy::Operator | SetBy::OperatorIfAsked => row.form.holds(data),
            SetBy::Server | SetBy::Client => false,
        },
    }
}

impl Form {
    /// Whether octets are of this form.
    pub fn holds(self, data: &[u8]) -> bool {
        match self {
            Form::Address | Form::U32 => data.len() == 4,
            Form::Addresses => !data.is_empty() && data.len().is_multiple_of(4),
            Form::U16 => data.len() == 2,
            Form::Text => !data.is_empty() && data.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' '),
            Form::Opaque => !data.is_empty(),
            Form::Domains => !data.is_empty() && are_domains(data),
            Form::Routes => !data.is_empty() && are_routes(data),
        }
    }
}

fn are_domains(mut data: &[u8]) -> bool {
    let mut at_end = true;
    while let Some((length, rest)) = data.split_first() {
        let Some((_, rest)) = rest.split_at_checked(usize::from(*length)).filter(|_| *length < 64) else {
            return false;
        };
        (at_end, data) = (*length == 0, rest);
    }
    at_end
}

fn are_routes(mut data: &[u8]) -> bool {
    while let Some((bits, rest)) = data.split_first() {
        let octets = usize::from(bits.div_ceil(8)) + 4;
        let Some((_, rest)) = rest.split_at_checked(octets).filter(|_| *bits <= 32) else { return false };
        data = rest;
    }
    true
}

/// The encapsulated options of options 43, 82, 125's enterprises and 175: code, length, data. Stops at the first that runs past
/// the end, so that what follows a lie is not believed; pads and ends are codes as others.
pub fn sub_options(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (head, rest) = data.split_first_chunk::<2>()?;
        let [code, length] = *head;
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        data = rest;
        Some((code, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_and_their_forms_hold() {
        assert!(OPTIONS.windows(2).all(|pair| pair[0].code < pair[1].code));
        let table: &[(u8, &[u8], bool)] = &[
            (3, &[10, 0, 0, 1, 10, 0, 0, 2], true),
            (3, &[10, 0, 0, 1, 10], false),
            (3, &[], false),
            (26, &[5, 220], true),
            (26, &[5], false),
            (67, b"file name", true),
            (67, b"file\n", false),
            (119, b"\x04test\x00\x01a\x00", true),
            (119, b"\x04test", false),
            (119, b"\xc0\x00", false),
            (121, &[24, 10, 0, 1, 10, 0, 0, 9, 0, 10, 0, 0, 9], true),
            (121, &[33, 10, 0, 1, 10, 0, 0, 9], false),
            (121, &[24, 10, 0, 1, 10, 0, 0], false),
            (224, &[0; 1_024], true),
            (224, &[0; 1_025], false),
            (0, &[1], false),
            (255, &[1], false),
        ];
        for (code, data, good) in table {
            assert_eq!(may_be_set(*code, data), *good, "{code} {data:?}");
        }
        for code in [1, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 77, 82, 93, 94, 97] {
            assert!(!may_be_set(code, &[10, 0, 0, 1]), "{code} is not the operator's");
        }
    }

    #[test]
    fn sub_options_end_at_a_lie() {
        let read = |data: &'static [u8]| sub_options(data).collect::<Vec<_>>();
        assert_eq!(read(&[1, 2, 7, 8, 2, 0, 5, 1, 9]), [(1, &[7, 8][..]), (2, &[]), (5, &[9])]);
        assert_eq!(read(&[1, 1, 7, 2, 200, 8]), [(1, &[7][..])]);
        assert_eq!(read(&[1]), []);
    }

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
