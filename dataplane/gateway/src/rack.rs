//! The stream to the rack role: read, answered, and replaced when the supervisor passes another.

use std::sync::Arc;

use bootstorm_api::limits::WISHES_IN_FLIGHT_MAX;
use bootstorm_api::link::ToControl;
use bootstorm_api::local::{ToGateway, Wish};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::hub::{Hub, Status};
use crate::{fetcher, limits, stream};

/// Serves streams one after another until the channel closes.
pub(crate) async fn run_streams(hub: Arc<Hub>, mut streams: mpsc::Receiver<std::os::unix::net::UnixStream>) {
    while let Some(stream) = streams.recv().await {
        let served = async {
            stream.set_nonblocking(true).map_err(Error::Link)?;
            serve(&hub, tokio::net::UnixStream::from_std(stream).map_err(Error::Link)?).await
        };
        match served.await {
            Ok(()) => tracing::info!("stream to the rack ended"),
            Err(error) => tracing::warn!(%error, "stream to the rack failed"),
        }
        hub.rack_gone();
    }
}

async fn serve(hub: &Arc<Hub>, stream: tokio::net::UnixStream) -> Result<(), Error> {
    let (mut reader, mut writer) = stream.into_split();
    let mut queue = hub.rack.open(limits::RACK_QUEUE_FRAMES);
    // The rack may have lost what control believes it has: let the link start anew from its own word.
    hub.status.send_replace(None);
    hub.resynchronise.send_modify(|count| *count += 1);
    let write = tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            writer.write_all(&frame).await?;
        }
        Ok::<(), std::io::Error>(())
    });
    let outcome = read(hub, &mut reader).await;
    hub.rack.close();
    write.abort();
    outcome
}

async fn read(hub: &Arc<Hub>, reader: &mut tokio::net::unix::OwnedReadHalf) -> Result<(), Error> {
    // What it still fetches when the stream ends is of no use to anybody, and ends with it.
    let mut fetching = JoinSet::new();
    while let Some((message, _)) = stream::read::<ToGateway>(reader).await? {
        match message {
            ToGateway::Answer { number, answer } => hub.answered(number, answer),
            ToGateway::Status { generation, missing } => {
                hub.status.send_replace(Some(Status { generation, missing: missing.clone() }));
                hub.tell_control(&ToControl::Status { generation, missing });
            }
            // Dropped while control is away: the rack keeps numbered ones and sends them again.
            ToGateway::Observations { observations } => hub.tell_control(&ToControl::Observations { observations }),
            ToGateway::Wish { wish } if hub.origins.is_empty() => ask_control(hub, wish, None).await?,
            ToGateway::Wish { wish } => {
                while fetching.try_join_next().is_some() {}
                if fetching.len() >= WISHES_IN_FLIGHT_MAX {
                    fetcher::refuse(&hub.rack, wish, "too many wishes are in flight".to_owned()).await?;
                } else {
                    fetching.spawn(fetch(hub.clone(), wish));
                }
            }
        }
    }
    Ok(())
}

/// From origins, else from control, which has everything.
async fn fetch(hub: Arc<Hub>, wish: Wish) {
    let done = match hub.origins.fetch(wish).await {
        Ok(bytes) => fetcher::deliver(&hub.rack, wish, &bytes).await,
        Err(reason) => ask_control(&hub, wish, Some(reason)).await,
    };
    // The stream is gone, and with it whoever wished.
    let _ = done;
}

async fn ask_control(hub: &Hub, wish: Wish, before: Option<String>) -> Result<(), Error> {
    if hub.control.is_open() {
        hub.tell_control(&ToControl::Wish { wish });
        return Ok(());
    }
    let told = [before.as_deref(), Some("control is away")];
    fetcher::refuse(&hub.rack, wish, told.into_iter().flatten().collect::<Vec<_>>().join("; ")).await
}
