//! What the boot script says on the kernel's command line (`bootstorm_api::agent`).

use std::net::{Ipv4Addr, SocketAddr};

use bootstorm_snapshot::Mac;

use crate::limits;

/// The agent's part of the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The gateway, for TLS.
    pub rack: SocketAddr,
    /// The rack's plain HTTP.
    pub http: SocketAddr,
    /// The claim: 32 hexadecimal digits.
    pub claim: String,
    /// The interface the machine boots from.
    pub mac: Mac,
    /// Its leased address.
    pub address: Ipv4Addr,
    /// Length of its mask in bits.
    pub prefix_bits: u8,
    /// The router, if there is one.
    pub gateway: Option<Ipv4Addr>,
}

impl std::fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CommandLine { rack, http, claim: _, mac, address, prefix_bits, gateway } = self;
        write!(f, "rack {rack} http {http} mac {mac} address {address}/{prefix_bits} gateway {gateway:?} claim ***")
    }
}

/// Why a command line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// Longer than the limit.
    #[error("the kernel's command line is longer than {} bytes", limits::COMMAND_LINE_BYTES_MAX)]
    TooLong,
    /// A word that must be there is not.
    #[error("the kernel's command line lacks `bootstorm.{0}`")]
    Missing(&'static str),
    /// A word stands there twice with different values.
    #[error("the kernel's command line says `bootstorm.{0}` twice")]
    Twice(&'static str),
    /// A word's value is not what it must be.
    #[error("the kernel's command line has an unusable `bootstorm.{0}`")]
    Unusable(&'static str),
}

/// Reads the words that start with `bootstorm.`; all others belong to somebody else. A word that is repeated with the
/// same value counts once.
pub fn parse(text: &str) -> Result<CommandLine, CommandLineError> {
    if text.len() > limits::COMMAND_LINE_BYTES_MAX {
        return Err(CommandLineError::TooLong);
    }
    let gateway = optional(text, "gateway")?
        .map(|value| value.parse().map_err(|_| CommandLineError::Unusable("gateway")))
        .transpose()?;
    let (address, bits) = required(text, "ip")?.split_once('/').ok_or(CommandLineError::Unusable("ip"))?;
    let prefix_bits: u8 = bits.parse().map_err(|_| CommandLineError::Unusable("ip"))?;
    let claim = required(text, "claim")?;
    if claim.len() != 32 || !claim.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(CommandLineError::Unusable("claim"));
    }
    Ok(CommandLine {
        rack: required(text, "rack")?.parse().map_err(|_| CommandLineError::Unusable("rack"))?,
        http: required(text, "http")?.parse().map_err(|_| CommandLineError::Unusable("http"))?,
        claim: claim.to_string(),
        mac: required(text, "mac")?.parse().map_err(|_| CommandLineError::Unusable("mac"))?,
        address: address.parse().map_err(|_| CommandLineError::Unusable("ip"))?,
        prefix_bits: (1..=32).contains(&prefix_bits).then_some(prefix_bits).ok_or(CommandLineError::Unusable("ip"))?,
        gateway,
    })
}

fn required<'a>(text: &'a str, key: &'static str) -> Result<&'a str, CommandLineError> {
    optional(text, key)?.ok_or(CommandLineError::Missing(key))
}

fn optional<'a>(text: &'a str, key: &'static str) -> Result<Option<&'a str>, CommandLineError> {
    let mut found = None;
    for word in text.split_ascii_whitespace() {
        let value = word.strip_prefix("bootstorm.").and_then(|w| w.strip_prefix(key)).and_then(|w| w.strip_prefix('='));
        match (value, found) {
            (None, _) => {}
            (Some(value), Some(before)) if value != before => return Err(CommandLineError::Twice(key)),
            (Some(value), _) => found = Some(value),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "quiet console=ttyS0 bootstorm.rack=10.0.0.1:5249 bootstorm.http=10.0.0.1:5248 \
        bootstorm.claim=00112233445566778899aabbccddeeff bootstorm.mac=52:54:00:00:00:01 bootstorm.ip=10.0.0.9/24 \
        bootstorm.gateway=10.0.0.1 root=x";

    #[test]
    fn a_full_command_line() {
        let parsed = parse(GOOD).expect("good");
        assert_eq!(parsed.rack, "10.0.0.1:5249".parse().expect("address"));
        assert_eq!((parsed.address, parsed.prefix_bits), (Ipv4Addr::new(10, 0, 0, 9), 24));
        assert_eq!(parsed.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(!format!("{parsed:?}").contains("0011223344"));
    }

    #[test]
    fn what_is_missing_repeated_or_odd_is_named() {
        let without = GOOD.replace("bootstorm.mac=52:54:00:00:00:01", "");
        assert_eq!(parse(&without), Err(CommandLineError::Missing("mac")));
        assert_eq!(parse(&format!("{GOOD} bootstorm.mac=52:54:00:00:00:02")), Err(CommandLineError::Twice("mac")));
        assert!(parse(&format!("{GOOD} bootstorm.mac=52:54:00:00:00:01 bootstorm.later=1")).is_ok());
        for (from, to, key) in [
            ("/24", "/33", "ip"),
            ("/24", "/0", "ip"),
            ("0.9/24", "0.9", "ip"),
            ("eeff", "eef", "claim"),
            ("eeff", "EEFF", "claim"),
            (":5249", "", "rack"),
            ("bootstorm.gateway=10.0.0.1", "bootstorm.gateway=", "gateway"),
        ] {
            assert_eq!(parse(&GOOD.replace(from, to)), Err(CommandLineError::Unusable(key)), "{from} → {to}");
        }
        assert_eq!(parse(&"x".repeat(limits::COMMAND_LINE_BYTES_MAX + 1)), Err(CommandLineError::TooLong));
    }
}
