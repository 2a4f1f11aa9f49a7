//! What is left in the installed system so that it can say that it is ready: this program, a unit, the site's CA, and a
//! credential that is good for this one message. All of it removes itself when the message is acknowledged.

use std::io;
use std::net::SocketAddr;

use bootstorm_snapshot::CredentialHash;
use serde::{Deserialize, Serialize};

use super::mounted::Root;

/// Directory of the program and its settings.
pub const DIRECTORY: &str = "usr/lib/bootstorm";
/// The unit.
pub const UNIT: &str = "etc/systemd/system/bootstorm-ready.service";
/// The link that enables the unit.
pub const UNIT_LINK: &str = "etc/systemd/system/cloud-init.target.wants/bootstorm-ready.service";
/// Name of the settings file in [`DIRECTORY`].
pub const SETTINGS: &str = "ready.json";
/// Name of the CA file in [`DIRECTORY`].
pub const CA: &str = "ca.pem";

/// The unit's text. `cloud-final` is cloud-init's last stage; it starts after `multi-user.target`, hence the link from
/// cloud-init's own target, where no ordering cycle arises.
const UNIT_TEXT: &str = "[Unit]
Description=Tell Bootstorm that this system is ready
After=cloud-final.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/lib/bootstorm/agent ready
TimeoutStartSec=infinity

[Install]
WantedBy=cloud-init.target
";

/// Settings of the ready signal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The gateway.
    pub rack: SocketAddr,
    /// The credential, for the header.
    pub credential: String,
}

/// A fresh credential, 32 random bytes written as 64 hexadecimal digits, and the hash that the rack journals, which is
/// over the text as it travels.
pub fn credential() -> io::Result<(String, CredentialHash)> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = CredentialHash::of(text.as_bytes());
    Ok((text, hash))
}

/// Puts everything into the installed system. `agent` is this program's own file.
pub fn install(root: &Root, settings: &Settings, ca_pem: &[u8], agent: &[u8]) -> io::Result<()> {
    root.write(&format!("{DIRECTORY}/agent"), agent, 0o755)?;
    root.write(&format!("{DIRECTORY}/{CA}"), ca_pem, 0o644)?;
    let settings = serde_json::to_vec(settings).map_err(io::Error::other)?;
    root.write(&format!("{DIRECTORY}/{SETTINGS}"), &settings, 0o600)?;
    root.write(UNIT, UNIT_TEXT.as_bytes(), 0o644)?;
    root.link(UNIT_LINK, &format!("/{UNIT}"))
}

#[cfg(test)]
mod tests {
    use super::super::mounted::tests::Scratch;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn everything_is_where_the_unit_says() {
        let scratch = Scratch::new("ready-unit");
        let (credential, hash) = credential().expect("random");
        assert_eq!(credential.len(), 64);
        assert_eq!(hash, CredentialHash::of(credential.as_bytes()));
        let settings = Settings { rack: "10.0.0.1:5249".parse().expect("address"), credential };
        install(&Root::at(&scratch.0).expect("root"), &settings, b"ca", b"program").expect("installed");
        let mode = |path: &str| std::fs::metadata(scratch.0.join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode("usr/lib/bootstorm/agent"), 0o755);
        assert_eq!(mode("usr/lib/bootstorm/ready.json"), 0o600);
        let link = std::fs::read_link(scratch.0.join(UNIT_LINK)).expect("link");
        assert_eq!(link.to_str(), Some("/etc/systemd/system/bootstorm-ready.service"));
        assert!(UNIT_TEXT.contains(&format!("/{DIRECTORY}/agent ready")));
    }
}
