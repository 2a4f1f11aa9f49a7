//! What a node that verifies does with the bytes of its image: checks them as they come, with bounded memory, and gives
//! them to where the run wants them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bootstorm_snapshot::manifest::{Entry, Manifest};
use bootstorm_snapshot::{ChunkName, Encoding as ChunkEncoding, ImageId};

use crate::image::{Encoding, Source};
use crate::limits::{DECODE_WINDOW_LOG_MAX, SINK_MEMORY_BYTES_MAX};
use crate::reason::Reason;

/// Where the raw bytes of verified images go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SinkChoice {
    /// Nowhere.
    #[default]
    Null,
    /// Into memory, until the node has ended.
    Memory,
    /// Into a file for each node, in this directory.
    Files(PathBuf),
}

/// Where the raw bytes of one node's image go.
pub enum Sink {
    /// Nowhere.
    Null,
    /// Into memory.
    Memory(Vec<u8>),
    /// Into a file.
    File(BufWriter<File>),
}

impl Sink {
    /// Opens what was chosen; files are named after the node's MAC address.
    ///
    /// # Errors
    /// [`Reason::Sink`]: the file cannot be made.
    pub fn open(choice: &SinkChoice, mac: [u8; 6]) -> Result<Sink, Reason> {
        match choice {
            SinkChoice::Null => Ok(Sink::Null),
            SinkChoice::Memory => Ok(Sink::Memory(Vec::new())),
            SinkChoice::Files(directory) => {
                let file = File::create(path(directory, mac)).map_err(|error| Reason::Sink(error.kind()))?;
                Ok(Sink::File(BufWriter::with_capacity(1 << 20, file)))
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Null => Ok(()),
            Sink::Memory(held) if held.len() + bytes.len() > SINK_MEMORY_BYTES_MAX => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Sink::Memory(held) => {
                held.extend_from_slice(bytes);
                Ok(())
            }
            Sink::File(file) => file.write_all(bytes),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Sink::Null | Sink::Memory(_) => Ok(()),
            Sink::File(file) => file.flush(),
        }
    }
}

/// The file of a node.
fn path(directory: &Path, mac: [u8; 6]) -> PathBuf {
    directory.join(format!("{}.raw", mac.map(|byte| format!("{byte:02x}")).join("-")))
}

/// A check in progress.
pub enum Verifier {
    /// Of a stored stream, chunk by chunk.
    Chunks(Box<Chunks>),
    /// Of an image that is one file.
    Image(Image),
}

impl Verifier {
    /// Takes the next bytes, in order.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        match self {
            Verifier::Chunks(chunks) => chunks.handle_bytes(bytes),
            Verifier::Image(image) => image.handle_bytes(bytes),
        }
    }

    /// All bytes were given.
    ///
    /// # Errors
    /// What is wrong with the whole.
    pub fn finish(self) -> Result<(), Reason> {
        match self {
            Verifier::Chunks(chunks) => chunks.finish(),
            Verifier::Image(image) => image.finish(),
        }
    }
}

/// Checks a stored stream against its manifest: each chunk's name, in order. With a sink that keeps something also
/// decodes the chunks and checks the image's own hash.
pub struct Chunks {
    entries: std::vec::IntoIter<Entry>,
    current: Option<Entry>,
    bytes: Vec<u8>,
    encoding: ChunkEncoding,
    /// Hash of the raw bytes so far, what it is to be, and where they go.
    raw: Option<(blake3::Hasher, ImageId, Sink)>,
}

impl Chunks {
    /// At the stream's beginning.
    pub fn new(manifest: &Manifest, sink: Sink) -> Result<Chunks, Reason> {
        let raw = match sink {
            Sink::Null => None,
            sink @ (Sink::Memory(_) | Sink::File(_)) => Some((blake3::Hasher::new(), manifest.header().raw, sink)),
        };
        let mut chunks = Chunks {
            entries: manifest.entries().to_vec().into_iter(),
            current: None,
            bytes: Vec::new(),
            encoding: manifest.header().encoding,
            raw,
        };
        chunks.advance()?;
        Ok(chunks)
    }

    fn handle_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Reason> {
        while !bytes.is_empty() {
            let entry = self.current.ok_or(Reason::Content)?;
            let missing = entry.stored_bytes as usize - self.bytes.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.bytes.extend_from_slice(part);
            bytes = rest;
            if self.bytes.len() == entry.stored_bytes as usize {
                self.chunk(entry)?;
                self.bytes.clear();
                self.advance()?;
            }
        }
        Ok(())
    }

    /// A whole chunk is here.
    fn chunk(&mut self, entry: Entry) -> Result<(), Reason> {
        if ChunkName::of(&self.bytes) != entry.name {
            return Err(Reason::Content);
        }
        let Some((hasher, _, sink)) = &mut self.raw else { return Ok(()) };
        let decoded;
        let raw = match self.encoding {
            ChunkEncoding::Plain => &self.bytes,
            ChunkEncoding::Zstd => {
                decoded = zstd::bulk::decompress(&self.bytes, entry.raw_bytes as usize).map_err(|_| Reason::Decode)?;
                &decoded
            }
        };
        hasher.update(raw);
        sink.put(raw).map_err(|error| Reason::Sink(error.kind()))
    }

    /// Goes on to the next chunk that is stored; those that are not are zeros.
    fn advance(&mut self) -> Result<(), Reason> {
        self.current = None;
        for entry in self.entries.by_ref() {
            if !entry.is_hole() {
                self.current = Some(entry);
                break;
            }
            if let Some((hasher, _, sink)) = &mut self.raw {
                let zeros = vec![0; entry.raw_bytes as usize];
                hasher.update(&zeros);
                sink.put(&zeros).map_err(|error| Reason::Sink(error.kind()))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Reason> {
        if self.current.is_some() {
            return Err(Reason::Content);
        }
        let Some((hasher, expected, mut sink)) = self.raw else { return Ok(()) };
        if ImageId(*hasher.finalize().as_bytes()) != expected {
            return Err(Reason::Digest);
        }
        sink.finish().map_err(|error| Reason::Sink(error.kind()))
    }
}

/// Decodes an image and checks the BLAKE3 of its raw bytes.
pub struct Image {
    decoder: Decoder,
    digest: Option<[u8; 32]>,
}

enum Decoder {
    Raw(Box<Raw>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Raw>>),
    Gzip(Box<flate2::write::MultiGzDecoder<Raw>>),
}

/// Hashes the raw bytes and passes them on.
struct Raw {
    hasher: blake3::Hasher,
    sink: Sink,
    /// What the sink said; told apart from what the decoder finds.
    failed: Option<io::ErrorKind>,
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.sink.put(bytes).inspect_err(|error| self.failed = Some(error.kind()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Image {
    /// At the image's beginning.
    ///
    /// # Errors
    /// [`Reason::Decode`] if there is no memory for a decoder.
    pub fn new(source: &Source, sink: Sink) -> Result<Image, Reason> {
        let raw = Raw { hasher: blake3::Hasher::new(), sink, failed: None };
        let decoder = match source.encoding {
            Encoding::Raw => Decoder::Raw(Box::new(raw)),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(raw).map_err(|_| Reason::Decode)?;
                decoder.window_log_max(DECODE_WINDOW_LOG_MAX).map_err(|_| Reason::Decode)?;
                Decoder::Zstd(Box::new(decoder))
            }
            Encoding::Gzip => Decoder::Gzip(Box::new(flate2::write::MultiGzDecoder::new(raw))),
        };
        Ok(Image { decoder, digest: source.digest })
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let written = match &mut self.decoder {
            Decoder::Raw(raw) => raw.write_all(bytes),
            Decoder::Zstd(decoder) => decoder.write_all(bytes),
            Decoder::Gzip(decoder) => decoder.write_all(bytes),
        };
        let failed = match &self.decoder {
            Decoder::Raw(raw) => raw.failed,
            Decoder::Zstd(decoder) => decoder.get_ref().failed,
            Decoder::Gzip(decoder) => decoder.get_ref().failed,
        };
        written.map_err(|_| failed.map_or(Reason::Decode, Reason::Sink))
    }

    fn finish(self) -> Result<(), Reason> {
        let mut raw = match self.decoder {
            Decoder::Raw(raw) => *raw,
            Decoder::Zstd(mut decoder) => {
                decoder.flush().map_err(|_| Reason::Decode)?;
                decoder.into_inner()
            }
            Decoder::Gzip(decoder) => decoder.finish().map_err(|_| Reason::Decode)?,
        };
        if self.digest.is_some_and(|digest| raw.hasher.finalize() != digest) {
            return Err(Reason::Digest);
        }
        raw.sink.finish().map_err(|error| Reason::Sink(error.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two chunks with a hole between them: the manifest, and the stored stream.
    fn stored() -> (Manifest, Vec<u8>) {
        let raw: [&[u8]; 2] = [b"first chunk", b"second"];
        let stored = raw.map(|chunk| zstd::bulk::compress(chunk, 1).unwrap());
        let entry = |(raw, stored): (&&[u8], &Vec<u8>)| Entry {
            name: ChunkName::of(stored),
            raw_bytes: raw.len() as u32,
            stored_bytes: stored.len() as u32,
        };
        let mut entries: Vec<Entry> = raw.iter().zip(&stored).map(entry).collect();
        entries.insert(1, Entry { name: ChunkName([0; 32]), raw_bytes: 4, stored_bytes: 0 });
        let id = ImageId::of(b"first chunk\0\0\0\0second");
        (Manifest::new(ChunkEncoding::Zstd, id, 21, "test", entries).unwrap(), stored.concat())
    }

    #[test]
    fn a_changed_byte_in_a_chunk_is_found() {
        let (manifest, stream) = stored();
        for sink in [Sink::Null, Sink::Memory(Vec::new())] {
            let mut verifier = Verifier::Chunks(Box::new(Chunks::new(&manifest, sink).unwrap()));
            stream.chunks(4).for_each(|piece| verifier.handle_bytes(piece).unwrap());
            assert_eq!(verifier.handle_bytes(b"x"), Err(Reason::Content));
            assert_eq!(verifier.finish(), Ok(()));
        }
        let mut changed = stream.clone();
        changed[3] ^= 1;
        let mut verifier = Verifier::Chunks(Box::new(Chunks::new(&manifest, Sink::Null).unwrap()));
        assert_eq!(verifier.handle_bytes(&changed), Err(Reason::Content));
        let mut verifier = Verifier::Chunks(Box::new(Chunks::new(&manifest, Sink::Null).unwrap()));
        verifier.handle_bytes(&stream[..5]).unwrap();
        assert_eq!(verifier.finish(), Err(Reason::Content), "a stream that ends early");
    }

    fn verify(encoding: Encoding, digest: Option<[u8; 32]>, bytes: &[u8]) -> Result<(), Reason> {
        let url = crate::script::Url::parse("http://10.0.0.1/").unwrap();
        let mut image = Image::new(&Source { url, encoding, digest }, Sink::Null)?;
        for piece in bytes.chunks(1_000) {
            image.handle_bytes(piece)?;
        }
        image.finish()
    }

    #[test]
    fn images_are_decoded_and_their_hash_compared() {
        let raw: Vec<u8> = (0..100_000u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        let digest = Some(*blake3::hash(&raw).as_bytes());
        assert_eq!(verify(Encoding::Raw, digest, &raw), Ok(()));
        let halves = raw.split_at(150_000);
        let frames = [halves.0, halves.1].map(|half| zstd::bulk::compress(half, 1).unwrap()).concat();
        assert_eq!(verify(Encoding::Zstd, digest, &frames), Ok(()));
        let members = [halves.0, halves.1].map(|half| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(half).unwrap();
            encoder.finish().unwrap()
        });
        assert_eq!(verify(Encoding::Gzip, digest, &members.concat()), Ok(()));
        let mut flipped = raw.clone();
        flipped[77_777] ^= 1;
        assert_eq!(verify(Encoding::Raw, digest, &flipped), Err(Reason::Digest));
        assert_eq!(verify(Encoding::Raw, digest, &raw[1..]), Err(Reason::Digest));
        assert_eq!(verify(Encoding::Zstd, None, &raw), Err(Reason::Decode));
        assert_eq!(verify(Encoding::Gzip, None, &raw), Err(Reason::Decode));
        assert_eq!(verify(Encoding::Gzip, digest, &members.concat()[..members[0].len() + 20]), Err(Reason::Decode));
    }

    #[test]
    fn files_hold_the_raw_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let choice = SinkChoice::Files(directory.path().to_owned());
        let url = crate::script::Url::parse("http://10.0.0.1/").unwrap();
        let source = Source { url, encoding: Encoding::Zstd, digest: None };
        let mut image = Image::new(&source, Sink::open(&choice, [2, 0, 0, 0, 0, 1]).unwrap()).unwrap();
        image.handle_bytes(&zstd::bulk::compress(b"raw bytes", 1).unwrap()).unwrap();
        image.finish().unwrap();
        assert_eq!(std::fs::read(directory.path().join("02-00-00-00-00-01.raw")).unwrap(), b"raw bytes");
        let nowhere = SinkChoice::Files(directory.path().join("nowhere"));
        assert!(matches!(Sink::open(&nowhere, [0; 6]), Err(Reason::Sink(io::ErrorKind::NotFound))));
    }
}
