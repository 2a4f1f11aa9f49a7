//! The importer role: one process per image, a filter with no network and no files of its own.
//!
//! The source is a descriptor, chunks go out on a pipe. Formats are told by their first octets: raw, or qcow2 without
//! anything outside itself, and either may come as it is; raw also inside gzip, xz or zstd. qcow2 points back and
//! forth in its file, so its source must be a file (control spools an upload, size-limited and unlinked), and *qcow2
//! inside gzip, xz or zstd is refused*: its clusters can be compressed already, and unpacking it here would need a
//! temporary file of the image's size.
//!
//! Everything streams: one chunk, one decoder's window (at most 128 MiB) and the tables of the format are in memory,
//! and 40 octets for each chunk cut.
//!
//! The other side of the pipe is [`ingest`], in control's own process: the only writer of its content store. It
//! trusts no frame: lengths are bounded, each chunk is hashed before it is stored, sizes must add up, and no manifest
//! exists before the summary has come and the pipe has ended. What it does not do is decode: a raw hash that the
//! importer got wrong is found by the machine that writes the image.

mod frame;
pub mod limits;
mod qcow2;
mod source;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use bootstorm_content::{Cutting, Packer, Writer};
use bootstorm_snapshot::manifest::{Entry, Manifest, ManifestError};
use bootstorm_snapshot::{ChunkName, Encoding};
use serde::{Deserialize, Serialize};

pub use frame::{Failure, FrameError, Summary};
use frame::{Frame, at_end, read_frame, write_chunk, write_failure, write_summary};
use limits::{BUFFER_BYTES, MESSAGE_CHARACTERS_MAX, RAW_BYTES_MAX};
use qcow2::Qcow2;
pub use qcow2::Qcow2Error;
use source::Source;
pub use source::{Format, Reading, Wrapper};

/// What to do with one source: the importer's single argument, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOptions {
    /// How the chunks are stored.
    pub encoding: Encoding,
    /// Whether formats and compression are taken off.
    #[serde(default)]
    pub reading: Reading,
    /// Raw octets at most; never over [`limits::RAW_BYTES_MAX`].
    pub raw_bytes_max: u64,
    /// Raw octets exactly, where they were declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_bytes: Option<u64>,
}

impl ImportOptions {
    /// For a disk image.
    pub fn image() -> ImportOptions {
        ImportOptions {
            encoding: Encoding::Zstd,
            reading: Reading::Image,
            raw_bytes_max: RAW_BYTES_MAX,
            raw_bytes: None,
        }
    }

    /// For a kernel, initrd or loader.
    pub fn boot_file() -> ImportOptions {
        ImportOptions { encoding: Encoding::Plain, reading: Reading::Verbatim, ..ImportOptions::image() }
    }

    /// As the importer's argument.
    pub fn to_argument(&self) -> String {
        // Enums, numbers and nothing else: this always encodes.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the importer's argument; unknown fields are refused.
    pub fn from_argument(argument: &str) -> Result<ImportOptions, ImportError> {
        serde_json::from_str(argument).map_err(ImportError::Options)
    }
}

/// Why an import failed in the importer.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Ours: the argument is not [`ImportOptions`].
    #[error("importer's options are not valid")]
    Options(#[source] serde_json::Error),
    /// The operator's: a known format that is not supported.
    #[error(
        "image format `{format}` is not supported; convert it to raw or qcow2, e.g. with `qemu-img convert -O qcow2`"
    )]
    Format {
        /// Name of the format.
        format: &'static str,
    },
    /// The operator's: qcow2 inside compression.
    #[error("image is qcow2 inside `{wrapper:?}`; decompress it first (a qcow2 image can be compressed inside)")]
    WrappedQcow2 {
        /// The compression.
        wrapper: Wrapper,
    },
    /// Ours: qcow2 from a pipe.
    #[error("qcow2 image comes from a pipe; give it as a file")]
    NotSeekable,
    /// The operator's: nothing in it.
    #[error("image is empty; check where it came from")]
    Empty,
    /// The operator's: a qcow2 file that cannot be read.
    #[error(transparent)]
    Qcow2(#[from] Qcow2Error),
    /// The operator's: longer than allowed.
    #[error("image is over the limit of `{limit}` raw bytes; import a smaller one or raise the limit")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The operator's: another size than declared.
    #[error("image has `{actual}` raw bytes, but `{declared}` were declared; fetch it again")]
    Size {
        /// What was declared.
        declared: u64,
        /// What came, or at least so many.
        actual: u64,
    },
    /// The operator's: compressed data are damaged, cut short, followed by something else, or need too much memory.
    #[error(
        "image does not decompress as `{wrapper:?}`; fetch it again, and compress with a window of at most 128 MiB"
    )]
    Decode {
        /// The compression.
        wrapper: Wrapper,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The environment's: the source cannot be read.
    #[error("reading the image failed; try again")]
    Source(#[source] io::Error),
    /// The environment's: control has gone.
    #[error("writing the image's chunks failed; start the import again")]
    Output(#[source] io::Error),
    /// Ours or the environment's: cutting failed.
    #[error("cutting the image into chunks failed")]
    Content(#[from] bootstorm_content::Error),
}

impl ImportError {
    /// One stable word for [`Failure::code`].
    fn code(&self) -> &'static str {
        match self {
            ImportError::Options(_) => "option",
            ImportError::Format { .. } | ImportError::WrappedQcow2 { .. } | ImportError::NotSeekable => "format",
            ImportError::Qcow2(_) => "qcow2",
            ImportError::Empty | ImportError::TooLarge { .. } | ImportError::Size { .. } => "size",
            ImportError::Decode { .. } => "decode",
            ImportError::Source(_) => "read",
            ImportError::Output(_) => "write",
            ImportError::Content(_) => "content",
        }
    }
}

/// The importer: reads `source`, writes frames to `output`, the last of them a summary or a failure. The error is for
/// the process's log and exit status.
pub fn run_importer(options: &ImportOptions, source: File, output: impl Write) -> Result<Summary, ImportError> {
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let result = import(options, source, &mut output);
    let last = match &result {
        Ok(summary) => write_summary(&mut output, summary),
        Err(error) => {
            let mut message = error.to_string();
            if let Some(source) = std::error::Error::source(error) {
                message = format!("{message}: {source}");
            }
            write_failure(&mut output, &Failure { code: error.code().to_owned(), message: readable(&message) })
        }
    };
    last.and_then(|()| output.flush()).map_err(ImportError::Output).and(result)
}

fn import(options: &ImportOptions, file: File, output: &mut impl Write) -> Result<Summary, ImportError> {
    let limit = options.raw_bytes_max.min(RAW_BYTES_MAX);
    // What is taken as it is are kernels, initrds and loaders, whose versions have most of their content in common.
    let cutting = match options.reading {
        Reading::Image => Cutting::Fixed,
        Reading::Verbatim => Cutting::ContentDefined,
    };
    let packer = Packer::with_cutting(options.encoding, cutting)?;
    let mut cutter = Cutter { packer, output, limit, declared: options.raw_bytes };
    let (format, wrapper) = match source::open(file, options.reading)? {
        Source::Stream(stream, wrapper) => {
            cutter.copy(stream, wrapper)?;
            (Format::Raw, wrapper)
        }
        Source::Qcow2(file) => {
            let qcow2 = Qcow2::open(file, limit)?;
            cutter.check_size(qcow2.virtual_bytes(), Part::Whole)?;
            qcow2.read_all(&mut |octets| cutter.push(octets))?;
            (Format::Qcow2, Wrapper::None)
        }
    };
    let manifest = cutter.finish()?;
    let header = manifest.header().clone();
    Ok(Summary {
        encoding: header.encoding,
        raw: header.raw,
        raw_bytes: header.raw_bytes,
        chunks: header.chunks,
        method: header.method,
        format,
        wrapper,
    })
}

/// Whether a size is of all there is, or of what has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Beginning,
    Whole,
}

/// Cuts raw octets into frames, holding to the sizes.
struct Cutter<'a, W> {
    packer: Packer,
    output: &'a mut W,
    limit: u64,
    declared: Option<u64>,
}

impl<W: Write> Cutter<'_, W> {
    fn copy(&mut self, mut stream: Box<dyn Read>, wrapper: Wrapper) -> Result<(), ImportError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.push(buffer.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if wrapper == Wrapper::None => return Err(ImportError::Source(error)),
                Err(source) => return Err(ImportError::Decode { wrapper, source }),
            }
        }
    }

    fn push(&mut self, octets: &[u8]) -> Result<(), ImportError> {
        self.check_size(self.packer.raw_bytes() + octets.len() as u64, Part::Beginning)?;
        let output = &mut *self.output;
        self.packer.push(octets, &mut |cut: bootstorm_content::Cut<'_>| {
            write_chunk(output, cut.entry.raw_bytes, &cut.entry.name, cut.stored).map_err(ImportError::Output)
        })
    }

    fn check_size(&self, raw_bytes: u64, part: Part) -> Result<(), ImportError> {
        match self.declared {
            Some(declared) if raw_bytes > declared || (part == Part::Whole && raw_bytes != declared) => {
                Err(ImportError::Size { declared, actual: raw_bytes })
            }
            _ if raw_bytes > self.limit => Err(ImportError::TooLarge { limit: self.limit }),
            _ if raw_bytes == 0 && part == Part::Whole => Err(ImportError::Empty),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Manifest, ImportError> {
        self.check_size(self.packer.raw_bytes(), Part::Whole)?;
        let output = self.output;
        self.packer.finish(&mut |cut: bootstorm_content::Cut<'_>| {
            write_chunk(output, cut.entry.raw_bytes, &cut.entry.name, cut.stored).map_err(ImportError::Output)
        })
    }
}

/// What an import may bring into the content store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Encoding that was asked for.
    pub encoding: Encoding,
    /// Raw octets at most.
    pub raw_bytes_max: u64,
    /// Stored octets at most: the room that may be taken.
    pub stored_bytes_max: u64,
}

/// Why an import failed in control.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The importer said so.
    #[error("{message}")]
    Importer {
        /// [`Failure::code`].
        code: String,
        /// Its message, made readable and cut to length.
        message: String,
    },
    /// The importer died or sent what it must not.
    #[error("import failed: {0}; start it again")]
    Frame(#[from] FrameError),
    /// The summary is not that of the chunks that came.
    #[error("importer's summary is not of the chunks that it sent; start the import again")]
    Summary(#[source] ManifestError),
    /// The summary says another encoding than was asked for, or more came after it.
    #[error("importer broke its protocol: {0}; start the import again")]
    Protocol(&'static str),
    /// Over a limit.
    #[error("image is over the limit of `{limit}` {what} bytes; import a smaller one or raise the limit")]
    TooLarge {
        /// `raw` or `stored`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A chunk that is not what it is called, or a store that cannot take it.
    #[error("storing the image failed")]
    Content(#[from] bootstorm_content::Error),
}

/// Control's side: reads frames to the end, stores chunks as they come and the manifest last, and gives both. Blocks;
/// the pipe should have the deadline (the importer is killed when it takes too long). On an error chunks that came stay
/// until the next sweep and nothing names them.
pub fn ingest(
    input: impl Read,
    writer: &mut Writer,
    limits: &IngestLimits,
) -> Result<(Manifest, Summary), IngestError> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut taken = Taken { entries: Vec::new(), raw_bytes: 0, stored_bytes: 0 };
    let summary = loop {
        match read_frame(&mut input)? {
            Frame::Chunk { raw_bytes, name, stored } => {
                let stored_bytes = u32::try_from(stored.len()).unwrap_or(u32::MAX);
                taken.add(Entry { name, raw_bytes, stored_bytes }, limits)?;
                writer.put(name, &stored)?;
            }
            Frame::Hole { raw_bytes } => {
                taken.add(Entry { name: ChunkName([0; 32]), raw_bytes, stored_bytes: 0 }, limits)?;
            }
            Frame::Summary(summary) => break summary,
            Frame::Failure(Failure { code, message }) => {
                return Err(IngestError::Importer { code: readable(&code), message: readable(&message) });
            }
        }
    };
    if !at_end(&mut input)? {
        return Err(IngestError::Protocol("more came after the summary"));
    }
    if summary.encoding != limits.encoding {
        return Err(IngestError::Protocol("another encoding than was asked for"));
    }
    if summary.chunks != taken.entries.len() as u64 {
        return Err(IngestError::Protocol("another number of chunks than the summary says"));
    }
    let method = readable(&summary.method);
    let manifest = Manifest::new(summary.encoding, summary.raw, summary.raw_bytes, &method, taken.entries)
        .map_err(IngestError::Summary)?;
    writer.put_manifest(&manifest.encode())?;
    Ok((manifest, summary))
}

/// Entries and sums of what has come.
struct Taken {
    entries: Vec<Entry>,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Taken {
    fn add(&mut self, entry: Entry, limits: &IngestLimits) -> Result<(), IngestError> {
        self.raw_bytes = self.raw_bytes.saturating_add(u64::from(entry.raw_bytes));
        self.stored_bytes = self.stored_bytes.saturating_add(u64::from(entry.stored_bytes));
        let raw_bytes_max = limits.raw_bytes_max.min(RAW_BYTES_MAX);
        if self.raw_bytes > raw_bytes_max {
            return Err(IngestError::TooLarge { what: "raw", limit: raw_bytes_max });
        }
        if self.stored_bytes > limits.stored_bytes_max {
            return Err(IngestError::TooLarge { what: "stored", limit: limits.stored_bytes_max });
        }
        if self.entries.len() >= bootstorm_snapshot::limits::MANIFEST_CHUNKS_MAX {
            return Err(IngestError::Summary(ManifestError::Inconsistent("too many chunks")));
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// Text of another process for logs and people: no control characters, bounded.
fn readable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests;
