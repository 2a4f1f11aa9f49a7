//! The site's CA: ECDSA P-256, ten years, made on the first start; it signs racks (intermediates, 30 days) and the API's certificate.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bootstorm_snapshot::RackId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use zeroize::Zeroizing;

use crate::error::Result;
use crate::limits;
use crate::seal::random;

/// Clocks of racks and agents may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);
const DAY: u64 = 24 * 60 * 60;

/// The CA's certificate and key.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA, and its key as PEM, to be sealed.
    pub(crate) fn create() -> Result<(Self, Zeroizing<String>)> {
        let key = KeyPair::generate()?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let mut params = params("Bootstorm site CA", limits::SITE_CERTIFICATE_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok((Self { pem, issuer: Issuer::new(params, key) }, key_pem))
    }

    /// The CA of a certificate and its key.
    pub(crate) fn load(pem: &str, key_pem: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self { pem: pem.to_string(), issuer: Issuer::from_ca_cert_pem(pem, key)? })
    }

    /// Its certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes the key of a signing request an intermediate CA for one rack. Everything in the request but its key is ignored.
    pub(crate) fn certify_rack(&self, rack: RackId, csr_pem: &str) -> Result<rcgen::Certificate> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = params(&format!("Bootstorm rack {rack}"), limits::RACK_CERTIFICATE_DAYS)?;
        // Below a rack there are only leaves: its own server certificates and agents'.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&request.public_key, &self.issuer)?)
    }

    /// A certificate and key for the API's own TLS, DER.
    pub(crate) fn certify_api(&self, addresses: &[IpAddr]) -> Result<(Vec<u8>, Vec<u8>)> {
        let key = KeyPair::generate()?;
        let mut params = params("Bootstorm API", limits::API_CERTIFICATE_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }
}

fn params(name: &str, days: u64) -> Result<CertificateParams> {
    let mut serial = random::<16>()?;
    serial[0] &= 0x7f; // positive (RFC 5280 §4.1.2.2)
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + Duration::from_secs(days * DAY)).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_authority_signs_like_the_created_one() {
        let (created, key) = Authority::create().expect("made");
        let loaded = Authority::load(created.pem(), &key).expect("loaded");
        let rack_key = KeyPair::generate().expect("key");
        let csr = CertificateParams::default().serialize_request(&rack_key).expect("request").pem().expect("pem");
        let rack = RackId::new(1, [1; 10]);
        for authority in [&created, &loaded] {
            let certificate = authority.certify_rack(rack, &csr).expect("certified");
            assert!(
                Issuer::from_ca_cert_der(certificate.der(), KeyPair::from_pem(&rack_key.serialize_pem()).expect("key"))
                    .is_ok()
            );
        }
        assert!(created.certify_rack(rack, "nothing").is_err());
        assert!(created.certify_api(&["127.0.0.1".parse().expect("address")]).is_ok());
    }
}
