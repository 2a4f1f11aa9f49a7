//! Framing of every stream link: a JSON header and an optional attachment of bytes.
//!
//! ```text
//! u32 LE  length of the header in bytes
//! u32 LE  length of the attachment in bytes (0: none)
//! header  JSON of the link's message type
//! attachment
//! ```
//! Both lengths are checked against [`crate::limits`] before anything is allocated. Pure: [`Decoder`] is fed bytes
//! by whoever reads the stream.

use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

/// Bytes before the header.
pub const PREFIX_BYTES: usize = 8;

/// Why a frame is refused; the stream cannot be resynchronised and must be closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length is above its limit.
    #[error("frame of {header} + {attachment} bytes is above the limit")]
    TooLong {
        /// Stated length of the header.
        header: usize,
        /// Stated length of the attachment.
        attachment: usize,
    },
    /// The header is not a message of this link.
    #[error("frame header is not a message of this link: {0}")]
    Header(#[from] serde_json::Error),
}

/// Lengths from a frame's first [`PREFIX_BYTES`] bytes: (header, attachment).
pub fn lengths(prefix: [u8; PREFIX_BYTES]) -> Result<(usize, usize), FrameError> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let header = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let attachment = usize::try_from(u32::from_le_bytes([e, f, g, h])).unwrap_or(usize::MAX);
    if header > limits::FRAME_HEADER_BYTES_MAX || attachment > limits::FRAME_BLOB_BYTES_MAX {
        return Err(FrameError::TooLong { header, attachment });
    }
    Ok((header, attachment))
}

/// The bytes of one frame. Fails if the message or attachment is above its limit.
pub fn encode<M: Serialize>(message: &M, attachment: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header = serde_json::to_vec(message)?;
    let too_long = || FrameError::TooLong { header: header.len(), attachment: attachment.len() };
    if header.len() > limits::FRAME_HEADER_BYTES_MAX || attachment.len() > limits::FRAME_BLOB_BYTES_MAX {
        return Err(too_long());
    }
    let header_bytes = u32::try_from(header.len()).map_err(|_| too_long())?;
    let attachment_bytes = u32::try_from(attachment.len()).map_err(|_| too_long())?;
    let mut out = Vec::with_capacity(PREFIX_BYTES + header.len() + attachment.len());
    out.extend_from_slice(&header_bytes.to_le_bytes());
    out.extend_from_slice(&attachment_bytes.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(attachment);
    Ok(out)
}

/// Reads one frame's body, whose lengths [`lengths`] gave.
pub fn decode_body<M: DeserializeOwned>(body: &[u8], header_bytes: usize) -> Result<(M, Vec<u8>), FrameError> {
    let (header, attachment) = body
        .split_at_checked(header_bytes)
        .ok_or(FrameError::TooLong { header: header_bytes, attachment: body.len() })?;
    Ok((serde_json::from_slice(header)?, attachment.to_vec()))
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes as they come from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one. After an error the stream must be closed.
    pub fn poll_frame<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Vec<u8>)>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let (header, attachment) = lengths(*prefix)?;
        let end = PREFIX_BYTES + header + attachment;
        let Some(body) = self.buffer.get(PREFIX_BYTES..end) else { return Ok(None) };
        let frame = decode_body(body, header)?;
        self.buffer.drain(..end);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = encode(&"one", b"").expect("frame");
        bytes.extend(encode(&"two", b"attached").expect("frame"));
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(frame) = decoder.poll_frame::<String>().expect("own frames") {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, [("one".to_string(), vec![]), ("two".to_string(), b"attached".to_vec())]);
        }
    }

    #[test]
    fn lengths_are_claims() {
        assert!(lengths([0xff; 8]).is_err());
        let mut decoder = Decoder::default();
        decoder.feed(&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'x']);
        assert!(decoder.poll_frame::<String>().is_err());
    }
}
