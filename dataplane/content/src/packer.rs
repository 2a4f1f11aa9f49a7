//! Cutting a raw stream into chunks: fixed 256 KiB, holes left out, each chunk one zstd frame or plain.

use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, MANIFEST_CHUNKS_MAX};
use bootstorm_snapshot::manifest::{Entry, Manifest, ManifestError};
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};

use crate::Error;

const LEVEL: i32 = 3;

/// One chunk as it was cut. A hole has no stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The manifest's entry.
    pub entry: Entry,
    /// Stored bytes; empty for a hole.
    pub stored: &'a [u8],
}

/// Turns raw bytes, pushed in pieces of any size, into chunks and a manifest. Holds one chunk and the entries
/// (40 octets each).
pub struct Packer {
    encoding: Encoding,
    hasher: blake3::Hasher,
    raw_bytes: u64,
    chunk: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
    entries: Vec<Entry>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("encoding", &self.encoding).field("raw_bytes", &self.raw_bytes).finish()
    }
}

impl Packer {
    /// A packer; fails if the compressor cannot be made (no memory).
    pub fn new(encoding: Encoding) -> Result<Packer, Error> {
        Ok(Packer {
            encoding,
            hasher: blake3::Hasher::new(),
            raw_bytes: 0,
            chunk: Vec::with_capacity(CHUNK_RAW_BYTES as usize),
            compressor: zstd::bulk::Compressor::new(LEVEL).map_err(Error::Source)?,
            entries: Vec::new(),
        })
    }

    /// Takes more raw bytes; `sink` is given each chunk that is full, in order.
    pub fn push<E: From<Error>>(
        &mut self,
        mut raw: &[u8],
        sink: &mut impl FnMut(Cut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !raw.is_empty() {
            let room = CHUNK_RAW_BYTES as usize - self.chunk.len();
            let (now, later) = raw.split_at(room.min(raw.len()));
            self.chunk.extend_from_slice(now);
            raw = later;
            if self.chunk.len() == CHUNK_RAW_BYTES as usize {
                self.cut(sink)?;
            }
        }
        Ok(())
    }

    /// Cuts the last, short chunk and gives the manifest.
    pub fn finish<E: From<Error>>(mut self, sink: &mut impl FnMut(Cut<'_>) -> Result<(), E>) -> Result<Manifest, E> {
        if !self.chunk.is_empty() {
            self.cut(sink)?;
        }
        let raw = ImageId(*self.hasher.finalize().as_bytes());
        Manifest::new(self.encoding, raw, self.raw_bytes, method(self.encoding), self.entries)
            .map_err(|error| Error::ManifestInvalid(error).into())
    }

    /// Raw bytes taken so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes + self.chunk.len() as u64
    }

    fn cut<E: From<Error>>(&mut self, sink: &mut impl FnMut(Cut<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.entries.len() >= MANIFEST_CHUNKS_MAX {
            return Err(Error::ManifestInvalid(ManifestError::Inconsistent("too many chunks")).into());
        }
        self.hasher.update(&self.chunk);
        // The chunk's buffer is CHUNK_RAW_BYTES long at most, which is 32 bits.
        let raw_bytes = self.chunk.len() as u32;
        self.raw_bytes += u64::from(raw_bytes);
        let compressed;
        let stored: &[u8] = match self.encoding {
            Encoding::Plain => &self.chunk,
            Encoding::Zstd if is_zero(&self.chunk) => &[],
            Encoding::Zstd => {
                compressed = self.compressor.compress(&self.chunk).map_err(Error::Source)?;
                &compressed
            }
        };
        let name = if stored.is_empty() { ChunkName([0; 32]) } else { ChunkName::of(stored) };
        let entry = Entry { name, raw_bytes, stored_bytes: stored.len() as u32 };
        self.entries.push(entry);
        sink(Cut { entry, stored })?;
        self.chunk.clear();
        Ok(())
    }
}

/// How files are cut and compressed here, for a manifest's header.
pub(crate) fn method(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Zstd => "fixed-262144 zstd-3",
        Encoding::Plain => "fixed-262144 plain",
    }
}

/// Whether all octets are zero; word by word, since every chunk of every image comes through here.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|octet| *octet == 0)
}

/// The raw bytes of a chunk that was verified: exactly `raw_bytes`, never more memory than that.
pub fn decode_chunk(encoding: Encoding, stored: &[u8], raw_bytes: u32) -> Result<Vec<u8>, Error> {
    let undecodable = || Error::Undecodable { raw_bytes };
    if raw_bytes > CHUNK_RAW_BYTES {
        return Err(undecodable());
    }
    let raw = match encoding {
        Encoding::Plain => stored.to_vec(),
        Encoding::Zstd if stored.is_empty() => vec![0; raw_bytes as usize],
        Encoding::Zstd => zstd::bulk::decompress(stored, raw_bytes as usize).map_err(|_| undecodable())?,
    };
    if raw.len() == raw_bytes as usize { Ok(raw) } else { Err(undecodable()) }
}
