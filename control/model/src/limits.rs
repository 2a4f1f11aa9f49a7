//! Every bound of the domain, with unit and reason.

/// Characters of a host name label (RFC 1123 §2.1).
pub const LABEL_CHARACTERS_MAX: usize = bootstorm_snapshot::limits::HOSTNAME_LABEL_MAX;
/// Characters of a domain name in text form (RFC 1035 §2.3.4: 255 octets on the wire, two less in text).
pub const DOMAIN_CHARACTERS_MAX: usize = 253;
/// Characters of the name of an image, pool, fabric or rack: fits a table column and a file name.
pub const NAME_CHARACTERS_MAX: usize = 128;
/// Interfaces of one machine; as many as its inventory may hold.
pub const INTERFACES_MAX: usize = bootstorm_snapshot::limits::INVENTORY_ITEMS_MAX;
/// Name servers or time servers of one subnet: DHCP options 6 and 42 hold 63 addresses, clients look at three.
pub const SERVERS_MAX: usize = 8;
/// Ranges of one subnet.
pub const RANGES_MAX: usize = 256;
/// Shortest prefix of a subnet, in bits: its bitmap is then 2 MiB.
pub const SUBNET_PREFIX_BITS_MIN: u8 = 8;
/// Highest 802.1Q VLAN number (4095 is reserved); 0 is the untagged VLAN.
pub const VID_MAX: u16 = 4094;
/// MTU in bytes: the least that IPv4 hosts must accept (RFC 791 §3.1), and the largest common jumbo frame.
pub const MTU_BYTES: std::ops::RangeInclusive<u16> = 576..=9216;
/// Attempts of one operation on one machine (`design.md` §5).
pub const ATTEMPTS_MAX: u32 = 3;

const _: () = assert!(LABEL_CHARACTERS_MAX < DOMAIN_CHARACTERS_MAX);
const _: () = assert!(ATTEMPTS_MAX > 0);
