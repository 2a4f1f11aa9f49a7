//! The gateway role: ends agents' TLS, certifies their keys after the rack's yes, holds attempts' secrets in memory,
//! and links the rack to control. It decides nothing and writes nothing but its own key and certificate.
//!
//! ```text
//! agents ──TLS──▶ agents.rs ──ask──▶ hub.rs ◀──frames──▶ rack.rs ──unix stream──▶ rack role
//!                                       ▲
//!                                       ├──frames──▶ control.rs ──unix socket──▶ control
//!                                       └──wishes──▶ origins.rs ──files, HTTP, S3──▶ origins
//! ```

mod agents;
mod control;
mod error;
mod fetcher;
mod hub;
mod identity;
pub mod limits;
pub mod origins;
mod rack;
mod secrets;
mod stream;

use std::future::Future;
use std::sync::Arc;

use bootstorm_api::role::GatewayConfig;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub use error::Error;
pub use fetcher::run_fetcher;

/// Runs the role until `stop` is ready or something that no retry can mend happens.
///
/// `listeners` accept agents' TLS; `streams` brings the stream to the rack role, and another whenever that role was
/// started anew. Starts and serves agents (with the certificate of the last join) while control is away.
pub async fn run(
    config: GatewayConfig,
    listeners: Vec<std::net::TcpListener>,
    streams: mpsc::Receiver<std::os::unix::net::UnixStream>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let key = identity::RackKey::load(&config.data)?;
    let kept = key.joined()?.map(|joined| key.identity(&joined, &config.addresses)).transpose()?;
    let (identity, identity_seen) = watch::channel(kept.map(Arc::new));
    let credentials = origins::Credentials::from_environment();
    let origins = origins::Origins::new(config.origins.clone(), credentials.as_ref())?;
    let hub = Arc::new(hub::Hub::new(origins));
    let agents = Arc::new(agents::Agents {
        hub: hub.clone(),
        identity: identity_seen,
        connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
        rate: agents::HandshakeRate::default(),
    });

    let mut tasks = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
        let registered = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
        let listener = registered.map_err(|source| Error::File { path: address.into(), source })?;
        tasks.spawn(agents::run_listener(agents.clone(), listener));
    }
    tasks.spawn(rack::run_streams(hub.clone(), streams));
    let outcome = tokio::select! {
        error = control::run_link(hub, config, key, identity) => Err(error),
        () = stop => Ok(()),
    };
    tasks.shutdown().await;
    outcome
}
