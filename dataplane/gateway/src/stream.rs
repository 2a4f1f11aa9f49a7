//! Frames of [`bootstorm_api::frame`] over tokio streams.

use bootstorm_api::frame;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::Error;

/// Reads one whole frame; `None` at a clean end of the stream. Not cancellation-safe: a dropped call may have
/// consumed part of a frame, so each stream has one reader that runs to its end.
pub(crate) async fn read<M: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(M, Vec<u8>)>, Error> {
    let mut prefix = [0u8; frame::PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::Link(error)),
    }
    let (header, attachment) = frame::lengths(prefix)?;
    let mut body = vec![0u8; header + attachment];
    stream.read_exact(&mut body).await.map_err(Error::Link)?;
    Ok(Some(frame::decode_body(&body, header)?))
}
