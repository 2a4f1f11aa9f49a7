//! Cutting a raw stream into chunks: of fixed 256 KiB or where the content says, each one zstd frame or plain, holes left out.

use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, MANIFEST_CHUNKS_MAX};
use bootstorm_snapshot::manifest::{Entry, Manifest, ManifestError};
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};
use fastcdc::v2020::FastCDC;

use crate::Error;
use crate::limits::{CONTENT_CHUNK_BYTES_AVERAGE, CONTENT_CHUNK_BYTES_MIN};

const LEVEL: i32 = 3;

/// Where chunks end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutting {
    /// After every 256 KiB: disk images, in which content does not move by octets and holes are aligned.
    Fixed,
    /// Where the content says, after 64 to 256 KiB: archives and initrds, so that what is inserted into a new version costs the
    /// chunks around it and no others.
    ContentDefined,
}

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
    cutting: Cutting,
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
    /// A packer with chunks of fixed length; fails if the compressor cannot be made (no memory).
    pub fn new(encoding: Encoding) -> Result<Packer, Error> {
        Packer::with_cutting(encoding, Cutting::Fixed)
    }

    /// A packer that cuts as it is told; fails as [`Packer::new`] does.
    pub fn with_cutting(encoding: Encoding, cutting: Cutting) -> Result<Packer, Error> {
        Ok(Packer {
            encoding,
            cutting,
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

    /// Cuts what is left and gives the manifest.
    pub fn finish<E: From<Error>>(mut self, sink: &mut impl FnMut(Cut<'_>) -> Result<(), E>) -> Result<Manifest, E> {
        while !self.chunk.is_empty() {
            self.cut(sink)?;
        }
        let raw = ImageId(*self.hasher.finalize().as_bytes());
        let method = method(self.encoding, self.cutting);
        Manifest::new(self.encoding, raw, self.raw_bytes, method, self.entries)
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
        let end = match self.cutting {
            Cutting::Fixed => self.chunk.len(),
            Cutting::ContentDefined => content_end(&self.chunk),
        };
        let (chunk, _) = self.chunk.split_at(end);
        self.hasher.update(chunk);
        // The chunk's buffer is CHUNK_RAW_BYTES long at most, which is 32 bits.
        let raw_bytes = end as u32;
        self.raw_bytes += u64::from(raw_bytes);
        let compressed;
        let stored: &[u8] = match self.encoding {
            Encoding::Plain => chunk,
            Encoding::Zstd if is_zero(chunk) => &[],
            Encoding::Zstd => {
                compressed = self.compressor.compress(chunk).map_err(Error::Source)?;
                &compressed
            }
        };
        let name = if stored.is_empty() { ChunkName([0; 32]) } else { ChunkName::of(stored) };
        let entry = Entry { name, raw_bytes, stored_bytes: stored.len() as u32 };
        self.entries.push(entry);
        sink(Cut { entry, stored })?;
        self.chunk.drain(..end);
        Ok(())
    }
}

/// Length of the first chunk of `octets`, which are all that is left or as long as a chunk may be. FastCDC as its 2020 version with
/// its default masks; the boundary depends on the octets of the chunk alone.
fn content_end(octets: &[u8]) -> usize {
    let (least, average) = (CONTENT_CHUNK_BYTES_MIN as usize, CONTENT_CHUNK_BYTES_AVERAGE as usize);
    let chunker = FastCDC::new(octets, least, average, CHUNK_RAW_BYTES as usize);
    let (_, end) = chunker.cut(0, octets.len());
    // A chunk of no octets would never end the cutting; the chunker gives none for octets that are there.
    if end == 0 { octets.len() } else { end.min(octets.len()) }
}

/// How files are cut and compressed here, for a manifest's header: algorithm and parameters.
fn method(encoding: Encoding, cutting: Cutting) -> &'static str {
    match (cutting, encoding) {
        (Cutting::Fixed, Encoding::Zstd) => "fixed-262144 zstd-3",
        (Cutting::Fixed, Encoding::Plain) => "fixed-262144 plain",
        (Cutting::ContentDefined, Encoding::Zstd) => "fastcdc-v2020-65536-131072-262144 zstd-3",
        (Cutting::ContentDefined, Encoding::Plain) => "fastcdc-v2020-65536-131072-262144 plain",
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
