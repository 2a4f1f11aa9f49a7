//! A rack's wishes, fulfilled from origins: beside control in the gateway, and alone for `bootstorm serve`.

use std::sync::Arc;

use bootstorm_api::limits::WISHES_IN_FLIGHT_MAX;
use bootstorm_api::local::{ToGateway, ToRack, Wish};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::hub::Outbound;
use crate::origins::Origins;
use crate::{limits, stream};

/// Serves the wishes that come by a stream from origins, until the stream ends. Other messages are for a gateway and are let go.
///
/// # Errors
/// [`Error::Link`] and [`Error::Frame`] when the stream breaks or holds no message.
pub async fn run_fetcher(origins: Origins, stream: std::os::unix::net::UnixStream) -> Result<(), Error> {
    stream.set_nonblocking(true).map_err(Error::Link)?;
    let (mut reader, mut writer) = tokio::net::UnixStream::from_std(stream).map_err(Error::Link)?.into_split();
    let (origins, rack) = (Arc::new(origins), Arc::new(Outbound::default()));
    let mut queue = rack.open(limits::RACK_QUEUE_FRAMES);
    let write = tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            writer.write_all(&frame).await?;
        }
        Ok::<(), std::io::Error>(())
    });
    let mut fetching = JoinSet::new();
    let outcome = loop {
        let wish = match stream::read::<ToGateway>(&mut reader).await {
            Ok(Some((ToGateway::Wish { wish }, _))) => wish,
            Ok(Some(_)) => continue,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        while fetching.try_join_next().is_some() {}
        if fetching.len() >= WISHES_IN_FLIGHT_MAX {
            refuse(&rack, wish, "too many wishes are in flight".to_owned()).await?;
            continue;
        }
        let (origins, rack) = (origins.clone(), rack.clone());
        fetching.spawn(async move {
            let done = match origins.fetch(wish).await {
                Ok(bytes) => deliver(&rack, wish, &bytes).await,
                Err(reason) => refuse(&rack, wish, reason).await,
            };
            // The stream is gone, and with it whoever wished.
            let _ = done;
        });
    };
    fetching.shutdown().await;
    write.abort();
    outcome
}

/// Hands to the rack what it wished for; a long manifest in several parts.
pub(crate) async fn deliver(rack: &Outbound, wish: Wish, bytes: &[u8]) -> Result<(), Error> {
    let bytes_total = bytes.len() as u64;
    let mut offset = 0;
    for part in bytes.chunks(limits::FETCHED_PART_BYTES) {
        rack.send(&ToRack::Fetched { wish, offset, bytes_total }, part).await?;
        offset += part.len() as u64;
    }
    Ok(())
}

/// Tells the rack that it cannot be had now.
pub(crate) async fn refuse(rack: &Outbound, wish: Wish, reason: String) -> Result<(), Error> {
    rack.send(&ToRack::NotFetched { wish, reason }, &[]).await
}
