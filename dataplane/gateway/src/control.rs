//! The link to control: joins, greets, relays; starts anew after every failure, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bootstorm_api::link::{ToControl, ToGateway};
use bootstorm_api::local::ToRack;
use bootstorm_api::role::{ControlAddress, GatewayConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use crate::error::Error;
use crate::hub::Hub;
use crate::identity::{Identity, Joined, RackKey};
use crate::limits;
use crate::stream;

/// Keeps the link up until the task is dropped; publishes the rack's identity as soon as there is one.
pub(crate) async fn run_link(
    hub: Arc<Hub>,
    config: GatewayConfig,
    key: RackKey,
    identity: watch::Sender<Option<Arc<Identity>>>,
) -> Error {
    let mut retry = limits::CONTROL_RETRY.0;
    loop {
        let started = Instant::now();
        match session(&hub, &config, &key, &identity).await {
            Ok(()) => tracing::info!("link to control ended"),
            Err(error @ (Error::File { .. } | Error::Unsupported(_))) => return error,
            Err(error) => tracing::warn!(%error, retry_ms = retry.as_millis(), "link to control failed"),
        }
        // The rack is told once that its wishes and observations go nowhere for now, not at every attempt.
        if hub.control.close() {
            let _ = hub.rack.try_send(&ToRack::Control { connected: false });
        }
        if started.elapsed() > limits::CONTROL_RETRY.1 {
            retry = limits::CONTROL_RETRY.0;
        }
        tokio::time::sleep(jittered(retry)).await;
        retry = (retry * 2).min(limits::CONTROL_RETRY.1);
    }
}

async fn session(
    hub: &Arc<Hub>,
    config: &GatewayConfig,
    key: &RackKey,
    identity: &watch::Sender<Option<Arc<Identity>>>,
) -> Result<(), Error> {
    let path = match &config.control {
        ControlAddress::Unix { path } => path,
        ControlAddress::Tls { url } => return Err(Error::Unsupported(url.clone())),
    };
    let (mut reader, mut writer) = UnixStream::connect(path).await.map_err(Error::Link)?.into_split();
    let current = identity.borrow().clone();
    let identity = match current {
        Some(current) if !current.renewal_due(SystemTime::now()) => current,
        _ => {
            let joined = join(&mut reader, &mut writer, config, key).await?;
            key.keep(&joined)?;
            let fresh = Arc::new(key.identity(&joined, &config.addresses)?);
            identity.send_replace(Some(fresh.clone()));
            fresh
        }
    };
    // The rack's own word on its generation decides what control sends first.
    let mut status = hub.status.subscribe();
    let mut resynchronise = hub.resynchronise.subscribe();
    let generation = {
        let known = status.wait_for(Option::is_some).await.map_err(|_| Error::Overrun)?;
        // While the status is borrowed no new stream can take its place, so only later ones count.
        resynchronise.mark_unchanged();
        known.as_ref().map(|s| s.generation).unwrap_or_default()
    };
    let mut queue = hub.control.open(limits::CONTROL_QUEUE_FRAMES);
    let hello = ToControl::Hello {
        rack: identity.rack,
        version: env!("CARGO_PKG_VERSION").into(),
        interfaces: config.interfaces.clone(),
        generation,
    };
    hub.control.send(&hello, &[]).await?;
    if let Some(status) = hub.status.borrow().clone() {
        hub.tell_control(&ToControl::Status { generation: status.generation, missing: status.missing });
    }
    hub.control.send(&ToControl::SecretsWanted, &[]).await?;
    hub.rack.send(&ToRack::Control { connected: true }, &[]).await?;
    tracing::info!(rack = %identity.rack, %generation, "link to control is up");

    let mut reading = tokio::spawn(relay(hub.clone(), reader));
    let writing = async {
        while let Some(frame) = queue.recv().await {
            writer.write_all(&frame).await.map_err(Error::Link)?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        read = &mut reading => read.unwrap_or(Ok(())),
        written = writing => written,
        _ = resynchronise.changed() => Err(Error::Resynchronise),
    };
    reading.abort();
    outcome
}

async fn join(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    config: &GatewayConfig,
    key: &RackKey,
) -> Result<Joined, Error> {
    let join = ToControl::Join {
        token: config.join_token.clone(),
        name: config.name.clone(),
        csr_pem: key.csr_pem(&config.name)?,
        addresses: config.addresses.clone(),
    };
    writer.write_all(&bootstorm_api::frame::encode(&join, &[])?).await.map_err(Error::Link)?;
    match stream::read::<ToGateway>(reader).await? {
        Some((ToGateway::Joined { rack, certificate_pem, ca_pem }, _)) => {
            tracing::info!(%rack, "joined");
            Ok(Joined { rack, certificate_pem, ca_pem })
        }
        Some((ToGateway::Refused { reason }, _)) => Err(Error::Refused { reason }),
        Some((other, _)) => Err(Error::OutOfTurn { got: kind(&other), expected: "joined" }),
        None => Err(Error::Link(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

async fn relay(hub: Arc<Hub>, mut reader: OwnedReadHalf) -> Result<(), Error> {
    while let Some((message, attachment)) = stream::read::<ToGateway>(&mut reader).await? {
        match message {
            ToGateway::Snapshot { generation, from, first, last } => {
                hub.rack.send(&ToRack::Snapshot { generation, from, first, last }, &attachment).await?;
            }
            ToGateway::Acknowledged { through } => hub.rack.send(&ToRack::Acknowledged { through }, &[]).await?,
            ToGateway::Fetched { wish, offset, bytes_total } => {
                hub.rack.send(&ToRack::Fetched { wish, offset, bytes_total }, &attachment).await?;
            }
            ToGateway::NotFetched { wish, reason } => {
                hub.rack.send(&ToRack::NotFetched { wish, reason }, &[]).await?;
            }
            ToGateway::Secrets { operation } => {
                if hub.secrets.hold(Instant::now(), operation, attachment) {
                    hub.control.send(&ToControl::SecretsHeld { operation }, &[]).await?;
                } else {
                    tracing::error!(%operation, "no room for secrets");
                }
            }
            ToGateway::ForgetSecrets { operation } => hub.secrets.forget(operation),
            ToGateway::Refused { reason } => return Err(Error::Refused { reason }),
            other @ ToGateway::Joined { .. } => {
                return Err(Error::OutOfTurn { got: kind(&other), expected: "a message of a joined rack" });
            }
        }
    }
    Ok(())
}

fn kind(message: &ToGateway) -> String {
    let name = serde_json::to_value(message).ok();
    name.and_then(|v| v.get("message").and_then(|m| m.as_str().map(str::to_string))).unwrap_or_default()
}

fn jittered(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without randomness the wait is merely the same for everybody.
    let _ = getrandom::fill(&mut byte);
    wait.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}
