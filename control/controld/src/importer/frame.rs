//! Frames on the pipe from the importer to control.
//!
//! ```text
//! chunk    1 (1 octet)  raw length u32 LE  stored length u32 LE  name (32)  stored bytes
//! hole     2            raw length u32 LE
//! summary  3            length u32 LE  JSON of `Summary`; the last frame, and the end of the pipe after it
//! error    4            length u32 LE  JSON of `Failure`; likewise
//! ```
//! Reading checks every length against a limit before it takes memory for it.

use std::io::{self, Read, Write};

use bootstorm_snapshot::limits::{CHUNK_RAW_BYTES, CHUNK_STORED_BYTES_MAX};
use bootstorm_snapshot::{ChunkName, Encoding, ImageId};
use serde::{Deserialize, Serialize};

use super::limits::TEXT_FRAME_BYTES_MAX;
use super::source::{Format, Wrapper};

const CHUNK: u8 = 1;
const HOLE: u8 = 2;
const SUMMARY: u8 = 3;
const ERROR: u8 = 4;

/// What the importer says about the whole image when it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Encoding of every chunk.
    pub encoding: Encoding,
    /// BLAKE3 of the raw bytes: the image's id.
    pub raw: ImageId,
    /// Length of the raw bytes.
    pub raw_bytes: u64,
    /// Chunks, holes included.
    pub chunks: u64,
    /// How the image was cut and compressed.
    pub method: String,
    /// What the source was.
    pub format: Format,
    /// What it was wrapped in.
    pub wrapper: Wrapper,
}

/// Why an import failed, as one process tells the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// One word, stable: `format`, `qcow2`, `size`, `read`, `write`, `decode`, `option`, `content`.
    pub code: String,
    /// What, which value, what to do.
    pub message: String,
}

/// One frame as read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Chunk { raw_bytes: u32, name: ChunkName, stored: Vec<u8> },
    Hole { raw_bytes: u32 },
    Summary(Summary),
    Failure(Failure),
}

/// Why the pipe's octets are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The pipe ended without a summary: the importer died (memory, a signal).
    #[error("importer ended before its summary")]
    Ended,
    /// An octet that begins no frame.
    #[error("importer sent unknown frame `{0}`")]
    Kind(u8),
    /// A length that is zero or over its limit.
    #[error("importer sent a frame with length `{0}`, zero or over the limit")]
    Length(u32),
    /// Text that is not what it must be.
    #[error("importer sent a summary that is not one")]
    Text(#[source] serde_json::Error),
    /// The pipe could not be read.
    #[error("reading from the importer failed")]
    Read(#[source] io::Error),
}

pub(crate) fn write_chunk(out: &mut impl Write, raw_bytes: u32, name: &ChunkName, stored: &[u8]) -> io::Result<()> {
    if stored.is_empty() {
        out.write_all(&[HOLE])?;
        return out.write_all(&raw_bytes.to_le_bytes());
    }
    let stored_bytes = u32::try_from(stored.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.write_all(&[CHUNK])?;
    out.write_all(&raw_bytes.to_le_bytes())?;
    out.write_all(&stored_bytes.to_le_bytes())?;
    out.write_all(&name.0)?;
    out.write_all(stored)
}

pub(crate) fn write_summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    write_text(out, SUMMARY, summary)
}

pub(crate) fn write_failure(out: &mut impl Write, failure: &Failure) -> io::Result<()> {
    write_text(out, ERROR, failure)
}

fn write_text(out: &mut impl Write, kind: u8, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&text)
}

/// Reads one frame.
pub(crate) fn read_frame(input: &mut impl Read) -> Result<Frame, FrameError> {
    let [kind] = octets(input)?;
    match kind {
        CHUNK => {
            let raw_bytes = length(input, CHUNK_RAW_BYTES)?;
            let stored_bytes = length(input, CHUNK_STORED_BYTES_MAX)?;
            let name = ChunkName(octets(input)?);
            Ok(Frame::Chunk { raw_bytes, name, stored: body(input, stored_bytes)? })
        }
        HOLE => Ok(Frame::Hole { raw_bytes: length(input, CHUNK_RAW_BYTES)? }),
        SUMMARY => Ok(Frame::Summary(text(input)?)),
        ERROR => Ok(Frame::Failure(text(input)?)),
        other => Err(FrameError::Kind(other)),
    }
}

/// Whether the pipe has ended, as it must after a summary.
pub(crate) fn at_end(input: &mut impl Read) -> Result<bool, FrameError> {
    let mut octet = [0];
    match input.read_exact(&mut octet) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(FrameError::Read(error)),
    }
}

fn text<T: for<'de> Deserialize<'de>>(input: &mut impl Read) -> Result<T, FrameError> {
    let length = length(input, TEXT_FRAME_BYTES_MAX)?;
    serde_json::from_slice(&body(input, length)?).map_err(FrameError::Text)
}

fn length(input: &mut impl Read, max: u32) -> Result<u32, FrameError> {
    let length = u32::from_le_bytes(octets(input)?);
    if length == 0 || length > max { Err(FrameError::Length(length)) } else { Ok(length) }
}

fn body(input: &mut impl Read, length: u32) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| FrameError::Length(length))?];
    fill(input, &mut bytes)?;
    Ok(bytes)
}

fn octets<const N: usize>(input: &mut impl Read) -> Result<[u8; N], FrameError> {
    let mut octets = [0; N];
    fill(input, &mut octets)?;
    Ok(octets)
}

fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), FrameError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Ended,
        _ => FrameError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_every_cut_is_an_error() {
        let mut bytes = Vec::new();
        write_chunk(&mut bytes, 10, &ChunkName::of(b"stored"), b"stored").unwrap();
        write_chunk(&mut bytes, 11, &ChunkName([0; 32]), b"").unwrap();
        let failure = Failure { code: "qcow2".into(), message: "why".into() };
        write_failure(&mut bytes, &failure).unwrap();
        let mut input = bytes.as_slice();
        let chunk = Frame::Chunk { raw_bytes: 10, name: ChunkName::of(b"stored"), stored: b"stored".to_vec() };
        assert_eq!(read_frame(&mut input).unwrap(), chunk);
        assert_eq!(read_frame(&mut input).unwrap(), Frame::Hole { raw_bytes: 11 });
        assert_eq!(read_frame(&mut input).unwrap(), Frame::Failure(failure));
        assert!(at_end(&mut input).unwrap());
        for length in 0..bytes.len() {
            let mut input = &bytes[..length];
            let error = std::iter::from_fn(|| Some(read_frame(&mut input))).find_map(Result::err).unwrap();
            assert!(matches!(error, FrameError::Ended), "{length}: {error}");
        }
    }

    #[test]
    fn lengths_are_claims() {
        for frame in [
            [&[1u8][..], &0u32.to_le_bytes()].concat(),
            [&[1u8][..], &262_145u32.to_le_bytes()].concat(),
            [&[1u8][..], &5u32.to_le_bytes(), &u32::MAX.to_le_bytes()].concat(),
            [&[2u8][..], &u32::MAX.to_le_bytes()].concat(),
            [&[3u8][..], &8193u32.to_le_bytes()].concat(),
        ] {
            assert!(matches!(read_frame(&mut frame.as_slice()), Err(FrameError::Length(_))), "{frame:?}");
        }
        assert!(matches!(read_frame(&mut [9u8].as_slice()), Err(FrameError::Kind(9))));
        assert!(matches!(read_frame(&mut [4u8, 1, 0, 0, 0, b'{'].as_slice()), Err(FrameError::Text(_))));
    }
}
