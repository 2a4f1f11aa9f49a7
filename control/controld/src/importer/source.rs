//! What a source is, told by its first octets and never by its name, and the decoders around it.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};

use serde::{Deserialize, Serialize};

use super::ImportError;
use super::limits::{BUFFER_BYTES, DECODER_BYTES_MAX, SNIFF_BYTES, ZSTD_WINDOW_LOG_MAX};

/// Format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's octets.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// Compression around a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrapper {
    /// None.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// How to read the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// A disk image: formats and compression are told by their signatures and taken off.
    #[default]
    Image,
    /// A file whose octets are kept as they are (kernels, initrds, loaders: an initrd is compressed and stays so).
    Verbatim,
}

/// Signatures at an offset, and what they say. RFC 1952 §2.3.1, RFC 8878 §3.1.1, xz file format §2.1.1.1, qcow2
/// specification; the refused ones after their own documents.
const SIGNATURES: &[(usize, &[u8], Signature)] = &[
    (0, b"\x1f\x8b", Signature::Wrapper(Wrapper::Gzip)),
    (0, b"\xfd7zXZ\0", Signature::Wrapper(Wrapper::Xz)),
    (0, b"\x28\xb5\x2f\xfd", Signature::Wrapper(Wrapper::Zstd)),
    (0, b"QFI\xfb", Signature::Qcow2),
    (0, b"KDMV", Signature::Refused("VMDK")),
    (0, b"COWD", Signature::Refused("VMDK")),
    (0, b"# Disk DescriptorFile", Signature::Refused("VMDK")),
    (0, b"vhdxfile", Signature::Refused("VHDX")),
    (0, b"conectix", Signature::Refused("VHD")),
    (64, b"\x7f\x10\xda\xbe", Signature::Refused("VDI")),
    (0, b"QED\0", Signature::Refused("QED")),
    (0, b"hsqs", Signature::Refused("squashfs")),
    (257, b"ustar", Signature::Refused("tar")),
    (0, b"BZh", Signature::Refused("bzip2")),
    (0, b"\x04\x22\x4d\x18", Signature::Refused("LZ4")),
    (0, b"PK\x03\x04", Signature::Refused("zip")),
    (0, b"7z\xbc\xaf\x27\x1c", Signature::Refused("7z")),
    (0, b"\x7fELF", Signature::Refused("ELF")),
    (0, b"<!DOCTYPE", Signature::Refused("HTML")),
    (0, b"<html", Signature::Refused("HTML")),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Wrapper(Wrapper),
    Qcow2,
    Refused(&'static str),
    None,
}

fn signature(head: &[u8]) -> Signature {
    let matches = |at: usize, octets: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(octets));
    SIGNATURES.iter().find(|(at, octets, _)| matches(*at, octets)).map_or(Signature::None, |(_, _, is)| *is)
}

/// A source that has been told apart.
pub(crate) enum Source {
    /// Octets of the disk, in order.
    Stream(Box<dyn Read>, Wrapper),
    /// A qcow2 file, at its start.
    Qcow2(File),
}

/// Looks at the source and puts the decoders around it.
pub(crate) fn open(mut file: File, reading: Reading) -> Result<Source, ImportError> {
    if reading == Reading::Verbatim {
        return Ok(Source::Stream(Box::new(file), Wrapper::None));
    }
    let head = read_head(&mut file).map_err(ImportError::Source)?;
    let wrapper = match signature(&head) {
        Signature::Refused(format) => return Err(ImportError::Format { format }),
        Signature::Qcow2 => {
            // Its tables point anywhere, so it needs a file; a pipe is refused rather than spooled here.
            file.rewind().map_err(|_| ImportError::NotSeekable)?;
            return Ok(Source::Qcow2(file));
        }
        Signature::None => return Ok(Source::Stream(Box::new(Cursor::new(head).chain(file)), Wrapper::None)),
        Signature::Wrapper(wrapper) => wrapper,
    };
    let mut decoder = unwrap(wrapper, Cursor::new(head).chain(file))?;
    let head = read_head(&mut decoder).map_err(|source| ImportError::Decode { wrapper, source })?;
    match signature(&head) {
        Signature::None => Ok(Source::Stream(Box::new(Cursor::new(head).chain(decoder)), wrapper)),
        Signature::Qcow2 => Err(ImportError::WrappedQcow2 { wrapper }),
        Signature::Wrapper(_) => Err(ImportError::Format { format: "compressed twice" }),
        Signature::Refused(format) => Err(ImportError::Format { format }),
    }
}

/// A decoder with bounded memory. Octets behind the compressed data that are none themselves are an error.
fn unwrap(wrapper: Wrapper, source: impl Read + 'static) -> Result<Box<dyn Read>, ImportError> {
    let source = BufReader::with_capacity(BUFFER_BYTES, source);
    let decode = |source| ImportError::Decode { wrapper, source };
    Ok(match wrapper {
        Wrapper::None => Box::new(source),
        Wrapper::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Wrapper::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(DECODER_BYTES_MAX, liblzma::stream::CONCATENATED)
                .map_err(|error| decode(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        Wrapper::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(decode)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(decode)?;
            Box::new(decoder)
        }
    })
}

/// The first octets, up to [`SNIFF_BYTES`]; fewer only if the source is shorter.
fn read_head(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    source.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}
