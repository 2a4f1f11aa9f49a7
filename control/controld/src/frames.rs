//! Frames of [`bootstorm_api::frame`] over tokio streams.

use bootstorm_api::frame;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{Error, Result};

/// Reads one frame; `None` at a clean end of the stream. Not cancellation-safe: a stream has one reader that runs to its end.
pub(crate) async fn read<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<(M, Vec<u8>)>> {
    let mut prefix = [0u8; frame::PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::Stream(error)),
    }
    let (header, attachment) = frame::lengths(prefix)?;
    let mut body = vec![0u8; header + attachment];
    stream.read_exact(&mut body).await.map_err(Error::Stream)?;
    Ok(Some(frame::decode_body(&body, header)?))
}

/// Writes one frame.
pub(crate) async fn write<M: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &M,
    attachment: &[u8],
) -> Result<()> {
    stream.write_all(&frame::encode(message, attachment)?).await.map_err(Error::Stream)
}
