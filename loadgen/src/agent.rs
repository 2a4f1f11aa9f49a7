//! The agent's side of the gateway's API: key, certificate request, TLS, messages, and a made-up inventory.

use std::sync::Arc;

use bootstorm_api::agent::{Redeem, ReportRequest};
use bootstorm_api::local::Report;
use bootstorm_snapshot::inventory::{Cpu, Disk, Dmi, Firmware as BootedBy, Interface};
use bootstorm_snapshot::{Architecture, Inventory, Mac};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde::Serialize;

use crate::reason::Reason;
use crate::schedule::Firmware;

/// What a node's agent learnt from its kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The gateway.
    pub rack: std::net::SocketAddr,
    /// The rack's plain HTTP.
    pub http: std::net::SocketAddr,
    /// The claim.
    pub claim: String,
}

impl CommandLine {
    /// Reads the words that matter; the last of each counts, as the agent has it.
    pub fn parse(text: &str) -> Option<CommandLine> {
        let find = |key: &str| text.split_whitespace().rev().find_map(|word| word.strip_prefix(key));
        Some(CommandLine {
            rack: find("bootstorm.rack=")?.parse().ok()?,
            http: find("bootstorm.http=")?.parse().ok()?,
            claim: find("bootstorm.claim=").filter(|claim| claim.len() == 32)?.to_owned(),
        })
    }
}

/// The site's CA out of a plain cpio archive: the PEM text is found as it stands.
pub fn authority(archive: &[u8]) -> Option<Vec<u8>> {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let position = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
    let archive = archive.get(position(archive, b"-----BEGIN CERTIFICATE-----")?..)?;
    let last = archive.windows(END.len()).rposition(|window| window == END)?;
    archive.get(..last + END.len()).map(<[u8]>::to_vec)
}

/// A key made for one boot, and what it may do so far.
pub struct Identity {
    key: rcgen::KeyPair,
    certificates: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// A new key.
    pub fn new() -> Result<Identity, Reason> {
        let key = rcgen::KeyPair::generate().map_err(|error| Reason::Tls(error.to_string()))?;
        Ok(Identity { key, certificates: Vec::new() })
    }

    /// The body of the redemption.
    pub fn redeem(&self, claim: &str) -> Result<Vec<u8>, Reason> {
        let request = rcgen::CertificateParams::default()
            .serialize_request(&self.key)
            .and_then(|request| request.pem())
            .map_err(|error| Reason::Tls(error.to_string()))?;
        json(&Redeem { claim: claim.to_owned(), csr_pem: request })
    }

    /// Takes the certificate that was granted.
    pub fn certify(&mut self, certificate_pem: &str) -> Result<(), Reason> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        self.certificates = certificates.ok().filter(|chain| !chain.is_empty()).ok_or(Reason::Answer)?;
        Ok(())
    }

    /// A TLS 1.3 session with the gateway, which must be certified by the site's CA; with our certificate if wished.
    pub fn connect(
        &self,
        authority_pem: &[u8],
        rack: std::net::IpAddr,
        is_certified: bool,
    ) -> Result<ClientConnection, Reason> {
        let tls = |error: rustls::Error| Reason::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem) {
            roots.add(certificate.map_err(|_| Reason::NoCa)?).map_err(tls)?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_root_certificates(roots);
        let config = if !is_certified {
            builder.with_no_client_auth()
        } else {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
            builder.with_client_auth_cert(self.certificates.clone(), key).map_err(tls)?
        };
        ClientConnection::new(Arc::new(config), ServerName::IpAddress(rack.into())).map_err(tls)
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// Type of a JSON body.
pub const JSON: &str = "application/json";
/// Type of a form's body.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// A POST of a body of this type, with a bearer's credential if there is one; `proto`'s requests have no bodies.
pub fn post(server: std::net::SocketAddr, path: &str, credential: Option<&str>, kind: &str, body: &[u8]) -> Vec<u8> {
    let bearer = credential.map(|credential| format!("Authorization: Bearer {credential}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {server}\r\n{bearer}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The body of a report.
pub fn report(sequence: u64, report: Report) -> Result<Vec<u8>, Reason> {
    json(&ReportRequest { sequence, report })
}

fn json(message: &impl Serialize) -> Result<Vec<u8>, Reason> {
    serde_json::to_vec(message).map_err(|_| Reason::Answer)
}

/// A plausible machine: the same for the same address.
pub fn inventory(mac: [u8; 6], firmware: Firmware) -> Inventory {
    let [_, _, a, b, c, d] = mac;
    let serial = format!("SIM{a:02X}{b:02X}{c:02X}{d:02X}");
    Inventory {
        architecture: Architecture::Amd64,
        firmware: match firmware {
            Firmware::Bios | Firmware::Ipxe => BootedBy::Bios,
            Firmware::Uefi | Firmware::Http => BootedBy::Uefi,
        },
        cpu: Cpu { model: "Simulated CPU".to_owned(), sockets: 2, cores: 32, threads: 64 },
        memory_bytes: 256 << 30,
        disks: vec![Disk {
            name: "nvme0n1".to_owned(),
            bytes: 960_197_124_096,
            block_bytes: 512,
            rotational: false,
            read_only: false,
            removable: false,
            model: Some("Simulated NVMe".to_owned()),
            serial: Some(format!("{serial}D")),
            wwn: None,
        }],
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mac: Mac(mac),
            link_up: true,
            speed_mbit: Some(25_000),
            driver: Some("sim".to_owned()),
            pci: Some("0000:01:00.0".to_owned()),
            boot: true,
        }],
        dmi: Dmi {
            system_uuid: Some(uuid_text(uuid(mac))),
            system_vendor: Some("Bootstorm".to_owned()),
            product_name: Some("Simulated machine".to_owned()),
            system_serial: Some(serial),
            ..Dmi::default()
        },
        pci: Vec::new(),
        agent_version: concat!("loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel: "simulated".to_owned(),
    }
}

/// The machine's UUID from its address (RFC 9562 version 8: custom).
pub fn uuid(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [b'b', b's', b'i', b'm', 0, 0, 0x80, 0, 0x80, 0, a, b, c, d, e, f]
}

fn uuid_text(uuid: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(uuid).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_gives_rack_and_claim_or_nothing() {
        let claim = "0123456789abcdef0123456789abcdef";
        let text = format!(
            "initrd=initrd quiet bootstorm.rack=10.0.0.1:5249 bootstorm.http=10.0.0.1:5248 bootstorm.claim={claim}"
        );
        let parsed = CommandLine::parse(&text).unwrap();
        assert_eq!((parsed.claim.as_str(), parsed.rack.port(), parsed.http.port()), (claim, 5249, 5248));
        assert_eq!(CommandLine::parse(&text.replace("0123", "")), None);
        assert_eq!(CommandLine::parse("quiet"), None);
    }

    #[test]
    fn the_authority_is_found_in_its_archive() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let archive = [b"070701 header etc/bootstorm/ca.pem\0\0", pem.as_bytes(), b"\0 070701 TRAILER!!!"].concat();
        let found = authority(&archive).unwrap();
        assert_eq!(found, pem.trim_end().as_bytes());
        assert!(Identity::new().unwrap().connect(&found, "10.0.0.1".parse().unwrap(), false).is_ok());
        assert_eq!(authority(b"nothing here"), None);
    }

    #[test]
    fn a_redemption_is_what_the_api_takes() {
        let body = Identity::new().unwrap().redeem("00").unwrap();
        let redeem: Redeem = serde_json::from_slice(&body).unwrap();
        assert!(redeem.csr_pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        let inventory = inventory([2, 0, 0, 0, 1, 2], Firmware::Uefi);
        let body = report(1, Report::Inventory { inventory: Box::new(inventory.clone()) }).unwrap();
        assert_eq!(
            serde_json::from_slice::<ReportRequest>(&body).unwrap().report,
            Report::Inventory { inventory: Box::new(inventory) }
        );
        assert!(body.len() < bootstorm_api::limits::AGENT_MESSAGE_BYTES_MAX);
    }
}
