//! The rack's key and certificates: what agents see, and what agents get.
//!
//! Control makes the rack's key an intermediate CA below the site's (30 days). With it the gateway signs its own
//! server certificate (names: the rack's addresses) and agents' certificates (client authentication, one machine
//! and attempt, ≤ 24 h). Files, all mode 0600, in the gateway's directory: `key.pem`, `rack.json`.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bootstorm_snapshot::{KeyHash, RackId, Subject};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits;

/// What control gave when the rack joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// The rack's id.
    pub rack: RackId,
    /// The rack's intermediate CA certificate, PEM.
    pub certificate_pem: String,
    /// The site's CA, PEM.
    pub ca_pem: String,
}

/// The gateway's key, before and after it has joined.
pub(crate) struct RackKey {
    directory: PathBuf,
    key: KeyPair,
}

impl RackKey {
    /// Loads the key, or makes one on the first start.
    pub(crate) fn load(directory: &Path) -> Result<RackKey, Error> {
        fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.into(), source })?;
        let path = directory.join("key.pem");
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                write_private(&path, key.serialize_pem().as_bytes())?;
                key
            }
            Err(source) => return Err(Error::File { path, source }),
        };
        Ok(RackKey { directory: directory.into(), key })
    }

    /// A signing request for the key, PEM.
    pub(crate) fn csr_pem(&self, name: &str) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// What was kept of the last join, if there was one.
    pub(crate) fn joined(&self) -> Result<Option<Joined>, Error> {
        let path = self.directory.join("rack.json");
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|e| Error::File { path, source: std::io::Error::new(std::io::ErrorKind::InvalidData, e) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Keeps what control gave.
    pub(crate) fn keep(&self, joined: &Joined) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(joined).unwrap_or_default();
        write_private(&self.directory.join("rack.json"), &json)
    }

    /// The identity that follows from the key and what control gave.
    pub(crate) fn identity(&self, joined: &Joined, addresses: &[Ipv4Addr]) -> Result<Identity, Error> {
        let key = KeyPair::from_pem(&self.key.serialize_pem())?;
        Identity::new(key, joined, addresses)
    }
}

/// A joined rack: signs for agents and for itself.
pub(crate) struct Identity {
    pub(crate) rack: RackId,
    issuer: Issuer<'static, KeyPair>,
    intermediate_pem: String,
    not_after: SystemTime,
    /// TLS for agents: this rack's certificate, client certificates optional and checked against the site's CA.
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

impl Identity {
    fn new(key: KeyPair, joined: &Joined, addresses: &[Ipv4Addr]) -> Result<Identity, Error> {
        let intermediate = CertificateDer::from_pem_slice(joined.certificate_pem.as_bytes()).map_err(pem_error)?;
        let ca = CertificateDer::from_pem_slice(joined.ca_pem.as_bytes()).map_err(pem_error)?;
        let issuer = Issuer::from_ca_cert_der(&intermediate, key)?;
        let not_after = certificate_end(&joined.certificate_pem)?;

        let server_key = KeyPair::generate()?;
        let mut params = leaf(&joined.rack.to_string(), ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = addresses.iter().map(|a| SanType::IpAddress(IpAddr::V4(*a))).collect();
        set_validity(&mut params, not_after, not_after);
        let server = params.signed_by(&server_key, &issuer)?;

        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::Certificate(e.to_string()))?;
        let private = PrivateKeyDer::try_from(server_key.serialize_der()).map_err(|e| Error::Certificate(e.into()))?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone(), intermediate], private)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let rack = joined.rack;
        Ok(Identity { rack, issuer, intermediate_pem: joined.certificate_pem.clone(), not_after, tls: Arc::new(tls) })
    }

    /// Whether the rack's own certificate must be renewed.
    pub(crate) fn renewal_due(&self, now: SystemTime) -> bool {
        self.not_after.duration_since(now).is_ok_and(|left| left < limits::CERTIFICATE_RENEW_BEFORE)
            || now >= self.not_after
    }

    /// A certificate of the agent's key for one subject, with the intermediate after it, PEM.
    pub(crate) fn certify(&self, now: SystemTime, key: &AgentKey, subject: &Subject) -> Result<String, Error> {
        let name = match subject {
            Subject::Attempt { machine, attempt, .. } => format!("machine {machine} attempt {attempt}"),
            Subject::Enrolment { enrolment, .. } => format!("enrolment {enrolment}"),
        };
        let mut params = leaf(&name, ExtendedKeyUsagePurpose::ClientAuth)?;
        let day = std::time::Duration::from_secs(limits::AGENT_CERTIFICATE_SECONDS);
        set_validity(&mut params, now + day, self.not_after);
        let certificate = params.signed_by(&key.public, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.intermediate_pem))
    }
}

/// An agent's public key.
pub(crate) struct AgentKey {
    public: SubjectPublicKeyInfo,
    /// BLAKE3 of the key's DER form.
    pub(crate) hash: KeyHash,
}

impl AgentKey {
    /// The key of a signing request, whose signature proves that the sender holds it.
    pub(crate) fn from_csr(pem: &str) -> Result<AgentKey, Error> {
        let request = CertificateSigningRequestParams::from_pem(pem)?;
        AgentKey::from_spki(&request.public_key.subject_public_key_info())
    }

    /// The key of the certificate that a TLS session proved.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Result<AgentKey, Error> {
        let entity = webpki::EndEntityCert::try_from(certificate).map_err(|e| Error::Certificate(e.to_string()))?;
        AgentKey::from_spki(&entity.subject_public_key_info())
    }

    fn from_spki(der: &[u8]) -> Result<AgentKey, Error> {
        Ok(AgentKey { public: SubjectPublicKeyInfo::from_der(der)?, hash: KeyHash::of(der) })
    }
}

fn leaf(name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams, Error> {
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(|e| Error::Certificate(format!("no randomness: {e}")))?;
    serial[0] &= 0x7f; // positive (RFC 5280 §4.1.2.2)
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, wanted_end: SystemTime, issuer_end: SystemTime) {
    params.not_before = (SystemTime::now() - limits::CLOCK_SKEW).into();
    params.not_after = wanted_end.min(issuer_end).into();
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn certificate_end(pem: &str) -> Result<SystemTime, Error> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| Error::Certificate(e.to_string()))?;
    let certificate = pem.parse_x509().map_err(|e| Error::Certificate(e.to_string()))?;
    Ok(SystemTime::from(certificate.validity().not_after.to_datetime()))
}

fn pem_error(error: rustls::pki_types::pem::Error) -> Error {
    Error::Certificate(format!("{error:?}"))
}

/// Writes a file that only this user may read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| Error::File { path: path.into(), source })
}
