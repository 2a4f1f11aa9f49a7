//! Manifest of an image or boot file: which chunks it is made of, in which order.
//!
//! A file is cut into chunks of its raw bytes; each is stored as one zstd frame or plainly, and named by the BLAKE3
//! of its stored bytes. All stored chunks in order are the **stored stream**: what travels and what a pack holds.
//! A chunk whose raw bytes are all zero is a *hole*: it has raw bytes but no stored ones.
//!
//! ```text
//! "BSMANIF1"                                    8 bytes
//! length of the header, u32 little-endian       4 bytes
//! header: JSON of `Header`
//! per chunk: name 32 bytes, raw bytes u32 LE, stored bytes u32 LE (0 = hole; the name is then all zero)
//! ```
//! The digest of a manifest is the BLAKE3 of exactly these bytes, so they have one form only.

use serde::{Deserialize, Serialize};

use crate::ids::{ChunkName, ImageId, ManifestDigest};
use crate::limits;

const MAGIC: &[u8; 8] = b"BSMANIF1";
const HEADER_BYTES_MAX: usize = 4096;
const ENTRY_BYTES: usize = 40;

/// How the chunks of one file are stored; goes by file, never by negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Every chunk is one zstd frame (images).
    Zstd,
    /// Chunks are stored as they are (kernels, initrds, loaders: what firmware fetches).
    Plain,
}

/// What a manifest says about the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Encoding of every chunk.
    pub encoding: Encoding,
    /// BLAKE3 of the raw bytes.
    pub raw: ImageId,
    /// Length of the raw bytes.
    pub raw_bytes: u64,
    /// Number of entries that follow.
    pub chunks: u64,
    /// How the file was cut and compressed, e.g. `fixed-262144 zstd-3`; recorded, not interpreted.
    pub method: String,
}

/// One chunk of the file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// BLAKE3 of the stored bytes; all zero for a hole.
    pub name: ChunkName,
    /// Length in the raw file.
    pub raw_bytes: u32,
    /// Length in the stored stream; 0 for a hole.
    pub stored_bytes: u32,
}

impl Entry {
    /// Whether the chunk is all zeros and absent from the stored stream.
    pub fn is_hole(&self) -> bool {
        self.stored_bytes == 0
    }
}

/// A manifest that was checked: sizes add up and bounds hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    header: Header,
    entries: Vec<Entry>,
    stored_bytes: u64,
}

/// Why bytes or entries are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Not the magic, or shorter than it says.
    Truncated,
    /// The header is not the JSON that it must be.
    Header(String),
    /// The entries contradict the header or the limits; the text says how.
    Inconsistent(&'static str),
}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ManifestError::Truncated => f.write_str("manifest is cut short or not a manifest"),
            ManifestError::Header(why) => write!(f, "manifest header: {why}"),
            ManifestError::Inconsistent(why) => write!(f, "manifest contradicts itself: {why}"),
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// A manifest of `entries` in order. Fails if lengths do not add up to `raw_bytes`, a chunk is empty or too long,
    /// or a plain chunk's two lengths differ.
    pub fn new(
        encoding: Encoding,
        raw: ImageId,
        raw_bytes: u64,
        method: &str,
        entries: Vec<Entry>,
    ) -> Result<Manifest, ManifestError> {
        let chunks = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let header = Header { encoding, raw, raw_bytes, chunks, method: method.to_string() };
        Manifest::checked(header, entries)
    }

    fn checked(header: Header, entries: Vec<Entry>) -> Result<Manifest, ManifestError> {
        if entries.len() > limits::MANIFEST_CHUNKS_MAX {
            return Err(ManifestError::Inconsistent("too many chunks"));
        }
        let (mut raw_bytes, mut stored_bytes) = (0u64, 0u64);
        for entry in &entries {
            if entry.raw_bytes == 0 || entry.raw_bytes > limits::CHUNK_RAW_BYTES {
                return Err(ManifestError::Inconsistent("a chunk's raw length is zero or too long"));
            }
            if entry.stored_bytes > limits::CHUNK_STORED_BYTES_MAX {
                return Err(ManifestError::Inconsistent("a chunk's stored length is too long"));
            }
            if entry.is_hole() != (entry.name.0 == [0; 32]) {
                return Err(ManifestError::Inconsistent("a hole has a name, or a chunk has none"));
            }
            if header.encoding == Encoding::Plain && (entry.is_hole() || entry.stored_bytes != entry.raw_bytes) {
                return Err(ManifestError::Inconsistent("a plain chunk's lengths differ"));
            }
            raw_bytes += u64::from(entry.raw_bytes);
            stored_bytes += u64::from(entry.stored_bytes);
        }
        if raw_bytes != header.raw_bytes || u64::try_from(entries.len()) != Ok(header.chunks) {
            return Err(ManifestError::Inconsistent("lengths do not add up"));
        }
        Ok(Manifest { header, entries, stored_bytes })
    }

    /// Reads the encoded form; every byte is accounted for and the encoding is the canonical one.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ManifestError::Truncated)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(ManifestError::Truncated)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| ManifestError::Truncated)?;
        if length > HEADER_BYTES_MAX {
            return Err(ManifestError::Inconsistent("header too long"));
        }
        let (header, body) = rest.split_at_checked(length).ok_or(ManifestError::Truncated)?;
        let header: Header = serde_json::from_slice(header).map_err(|e| ManifestError::Header(e.to_string()))?;
        if body.len() % ENTRY_BYTES != 0 {
            return Err(ManifestError::Truncated);
        }
        let mut entries = Vec::with_capacity(body.len() / ENTRY_BYTES);
        for entry in body.chunks_exact(ENTRY_BYTES) {
            let (name, lengths) = entry.split_first_chunk::<32>().ok_or(ManifestError::Truncated)?;
            let (raw, stored) = lengths.split_first_chunk::<4>().ok_or(ManifestError::Truncated)?;
            let stored: [u8; 4] = stored.try_into().map_err(|_| ManifestError::Truncated)?;
            entries.push(Entry {
                name: ChunkName(*name),
                raw_bytes: u32::from_le_bytes(*raw),
                stored_bytes: u32::from_le_bytes(stored),
            });
        }
        let manifest = Manifest::checked(header, entries)?;
        if manifest.encode() != bytes {
            return Err(ManifestError::Inconsistent("not in canonical form"));
        }
        Ok(manifest)
    }

    /// The canonical bytes, whose BLAKE3 is the manifest's digest.
    pub fn encode(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let mut out = Vec::with_capacity(12 + header.len() + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&header);
        for entry in &self.entries {
            out.extend_from_slice(&entry.name.0);
            out.extend_from_slice(&entry.raw_bytes.to_le_bytes());
            out.extend_from_slice(&entry.stored_bytes.to_le_bytes());
        }
        out
    }

    /// Digest of the canonical bytes.
    pub fn digest(&self) -> ManifestDigest {
        ManifestDigest::of(&self.encode())
    }

    /// What it says about the whole file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The chunks in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Length of the stored stream.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let entries = vec![
            Entry { name: ChunkName::of(b"a"), raw_bytes: 262_144, stored_bytes: 1000 },
            Entry { name: ChunkName([0; 32]), raw_bytes: 262_144, stored_bytes: 0 },
            Entry { name: ChunkName::of(b"b"), raw_bytes: 17, stored_bytes: 25 },
        ];
        Manifest::new(Encoding::Zstd, ImageId::of(b"raw"), 524_305, "fixed-262144 zstd-3", entries).expect("consistent")
    }

    #[test]
    fn round_trip_and_digest() {
        let manifest = sample();
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        assert_eq!(manifest.digest(), ManifestDigest::of(&bytes));
        assert_eq!(manifest.stored_bytes(), 1025);
    }

    #[test]
    fn every_truncation_and_bit_flip_is_refused_or_differs() {
        let manifest = sample();
        let bytes = manifest.encode();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "prefix of {end}");
        }
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert_ne!(Manifest::decode(&changed), Ok(manifest.clone()), "byte {i}");
        }
    }

    #[test]
    fn lengths_must_add_up() {
        let entry = Entry { name: ChunkName::of(b"a"), raw_bytes: 10, stored_bytes: 9 };
        assert!(Manifest::new(Encoding::Plain, ImageId::of(b""), 10, "", vec![entry]).is_err());
        assert!(Manifest::new(Encoding::Zstd, ImageId::of(b""), 11, "", vec![entry]).is_err());
        assert!(Manifest::new(Encoding::Zstd, ImageId::of(b""), 10, "", vec![entry]).is_ok());
    }
}
