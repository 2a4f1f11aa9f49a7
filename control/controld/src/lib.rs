//! The control, bmc and importer roles.
//!
//! | module | what |
//! |---|---|
//! | [`run_control`] | the control role: API, lifecycle, snapshot, racks' link |
//! | [`run_bmc`] | the bmc role: power commands |
//! | [`importer`] | the importer role, and control's side of its pipe |
//! | `control` | what the parts of the control role share |
//! | `http` | the API server |
//! | `machines`, `networks`, `images`, `environments` | what people and programs ask for |
//! | `observe` | what racks have seen |
//! | `effects`, `sweep` | what transitions owe, and deadlines |
//! | `publish`, `racks` | the snapshot, and the racks' link |
//! | `switch` | control's end of the stream to the bmc role |
//! | `seal`, `ca`, `files` | secrets at rest, the site's CA, the data directory |
//!
//! The shape of the control role: handlers and observations decide by `bootstorm_model` and commit state and effects in one
//! transaction; the effect runner performs effects; the publisher follows the store's generation; every rack's link follows the
//! publisher. None holds a transaction open while it waits for anybody. All of it may stop at any moment and be started anew.

mod bmc;
pub mod bootenv;
mod ca;
mod control;
mod dns;
mod effects;
mod environments;
mod error;
mod files;
mod frames;
mod http;
mod images;
pub mod importer;
pub mod limits;
mod machines;
mod networks;
mod observe;
mod publish;
mod racks;
mod seal;
mod show;
mod sweep;
mod switch;

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bootstorm_api::role::ControlConfig;
use bootstorm_store::{SecretContext, SqliteStore, Store, Token, TokenScope};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

pub use bmc::run_bmc;
pub use error::{Error, Result};
pub use images::Importer;
pub use seal::Sealer;

use crate::ca::Authority;
use crate::control::{Control, Parts, now};

/// Name of the token that the first start makes.
const ADMINISTRATOR: &str = "admin";
/// Where the CA's sealed key is kept.
const CA_KEY: &str = "ca-key";
/// Setting under which the CA's certificate is kept; racks see it.
const CA_CERTIFICATE: &str = "ca.certificate";

/// What a caller may choose beside the configuration; the default is for the program itself.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// How the importer role is run.
    pub importer: Importer,
    /// Time after the start in which nothing is declared overdue.
    pub grace: Duration,
}

impl Default for ControlOptions {
    fn default() -> Self {
        let importer = ["/proc/self/exe", "role", "importer"].map(OsString::from).to_vec();
        Self { importer: Importer::Process(importer), grace: Duration::from_secs(limits::START_GRACE_SECONDS) }
    }
}

/// Runs the control role until `stop`.
///
/// `bmc_streams` brings a stream to the bmc role at the start and whenever that role was started anew.
///
/// # Errors
/// What keeps the role from starting: a directory, the database, an address. Later failures are logged and mended.
pub async fn run_control(
    config: ControlConfig,
    bmc_streams: mpsc::Receiver<UnixStream>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    run_control_with(config, ControlOptions::default(), bmc_streams, stop).await
}

/// [`run_control`] with other options.
///
/// # Errors
/// As [`run_control`].
pub async fn run_control_with(
    config: ControlConfig,
    options: ControlOptions,
    bmc_streams: mpsc::Receiver<UnixStream>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let running = Running::start(config, options, bmc_streams).await?;
    let served = http::serve(running.control.clone(), running.listener, stop).await;
    drop(running.tasks);
    running.store.close().await;
    served
}

/// Makes what other roles must find when they start, which is the key of sealed values: the bmc role is confined to that file, so
/// it must be there before.
///
/// # Errors
/// [`Error::File`] if it can be neither read nor made.
pub fn prepare(data: &Path) -> Result<()> {
    Sealer::load_or_create(&data.join("master.key")).map(drop)
}

/// A control role that has been started, with its API not yet served.
struct Running {
    control: Arc<Control>,
    store: Arc<SqliteStore>,
    listener: std::net::TcpListener,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(
        config: ControlConfig,
        options: ControlOptions,
        bmc_streams: mpsc::Receiver<UnixStream>,
    ) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        metrics_handle();
        files::make_directory(&config.data.join("control"))?;
        let sealer = Sealer::load_or_create(&config.data.join("master.key"))?;
        let database = config.data.join("control").join("db");
        let store = Arc::new(SqliteStore::open(&database).await?);
        let content_directory = config.data.join("control").join("content");
        let content = tokio::task::spawn_blocking(move || bootstorm_content::Store::open(&content_directory));
        let content = content.await.map_err(|_| Error::Task)??;
        let authority = authority(&*store, &sealer, &config.data).await?;
        administrator(&*store, &config.data).await?;
        let (switch, relay) = switch::Switch::new(bmc_streams);
        let racks_socket = racks::bind(&config.racks_socket)?;
        let listener = http::bind(config.api_listen)?;
        let parts =
            Parts { config, store: store.clone(), content, sealer, authority, switch, importer: options.importer };
        let control = Arc::new(Control::new(parts));
        // An earlier process of this name is gone; what it had begun is due now.
        store.release_effects(&control.worker, now()).await?;
        images::end_orphans(&control).await?;
        control.publisher.refresh(&*control.store, control.authority.pem()).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(relay.run());
        tasks.spawn(racks::run(control.clone(), racks_socket));
        tasks.spawn(publish_changes(control.clone()));
        tasks.spawn(effects::run(control.clone()));
        tasks.spawn(sweep::run(control.clone(), options.grace));
        tracing::info!(api = %listener.local_addr().map_err(Error::Stream)?, "control is up");
        Ok(Self { control, store, listener, tasks })
    }
}

/// Publishes every change; changes that come while one is being published are published together.
async fn publish_changes(control: Arc<Control>) {
    let mut changed = control.subscribe();
    loop {
        changed.borrow_and_update();
        if let Err(error) = control.publisher.refresh(&*control.store, control.authority.pem()).await {
            tracing::error!(%error, "the snapshot cannot be published");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// The site's CA; made on the first start. Its key is sealed in the database, its certificate is also `DIR/ca.pem`.
async fn authority(store: &dyn Store, sealer: &Sealer, data: &Path) -> Result<Authority> {
    let context = SecretContext::Site(CA_KEY.to_string());
    let authority = match (store.secret(&context).await?, store.setting(CA_CERTIFICATE).await?) {
        (Some(sealed), Some(pem)) => {
            let key = sealer.open(&context.text(), &sealed)?;
            let key = std::str::from_utf8(&key).map_err(|_| Error::Unseal)?;
            Authority::load(&pem, key)?
        }
        _ => {
            let (authority, key) = Authority::create()?;
            store.put_secret(&context, &sealer.seal(&context.text(), key.as_bytes())?).await?;
            store.put_setting(CA_CERTIFICATE, authority.pem()).await?;
            authority
        }
    };
    files::write_public(&data.join("ca.pem"), authority.pem().as_bytes())?;
    Ok(authority)
}

/// The administrator's token: made on the first start, in `DIR/admin.token`; the database has its hash only.
async fn administrator(store: &dyn Store, data: &Path) -> Result<()> {
    if store.tokens().await?.iter().any(|token| token.name == ADMINISTRATOR) {
        return Ok(());
    }
    let value = Zeroizing::new(URL_SAFE_NO_PAD.encode(*Zeroizing::new(seal::random::<32>()?)));
    // The file first: a token that nobody can read is of no use, one that nobody accepts is made anew.
    files::write_private(&data.join("admin.token"), format!("{}\n", *value).as_bytes())?;
    let hash = *blake3::hash(value.as_bytes()).as_bytes();
    let token =
        Token { name: ADMINISTRATOR.to_string(), hash, scope: TokenScope::Admin, created: now(), expires: None };
    Ok(store.create_token(&token).await?)
}

/// The process's metrics; installed on the first call.
fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // Another recorder of this process keeps its place; ours then shows nothing.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

#[cfg(test)]
mod tests;
