//! Sealing of secrets at rest (`threat-model.md` T17): AES-256-GCM under the site's master key, bound to where a value stands.
//!
//! ```text
//! version 1 (1 octet)  nonce (12)  ciphertext  tag (16)
//! ```
//! The associated data is the context's text (`machine/abc123/power`), so a value opens in its own place only. Nonces are random: the
//! key may seal 2³² values before a collision becomes thinkable, which is a thousand a second for fifty days; keys are replaced long
//! before by re-sealing.

use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;

/// Seals and opens under one key.
pub struct Sealer {
    key: LessSafeKey,
}

impl Sealer {
    /// The key in a file (mode 0600), which is made if it is missing.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(_) => Self::load(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Zeroizing::new(random::<KEY_BYTES>()?);
                files::write_private(path, &*key)?;
                Self::new(&*key)
            }
            Err(error) => Err(Error::file(path)(error)),
        }
    }

    /// The key in a file. Fails if there is none, or if others may read it.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = Zeroizing::new(files::read_private(path)?);
        Self::new(&bytes)
    }

    fn new(key: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::Unseal)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Seals a value for a context.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce = random::<NONCE_LEN>()?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| Error::Unseal)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens a value that was sealed for this context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(Error::Unseal)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Error::Unseal)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain =
            self.key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut body).map_err(|_| Error::Unseal)?;
        let bytes = plain.len();
        body.truncate(bytes);
        Ok(body)
    }
}

/// Random octets of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t17_a_sealed_value_opens_in_its_place_only_and_unchanged_only() {
        let sealer = Sealer::new(&[7; 32]).expect("key");
        let sealed = sealer.seal("machine/abc123/power", b"secret").expect("sealed");
        assert_eq!(sealer.open("machine/abc123/power", &sealed).expect("opened").as_slice(), b"secret");
        assert!(sealer.open("machine/abc124/power", &sealed).is_err());
        assert!(Sealer::new(&[8; 32]).expect("key").open("machine/abc123/power", &sealed).is_err());
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(sealer.open("machine/abc123/power", &changed).is_err(), "octet {i}");
            assert!(sealer.open("machine/abc123/power", &sealed[..i]).is_err(), "prefix {i}");
        }
    }
}
