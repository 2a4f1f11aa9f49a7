//! The API server: routes, authentication, limits, idempotency, errors, metrics and logs.
//!
//! | module | what |
//! |---|---|
//! | [`routes`] | the handlers, with their OpenAPI descriptions |
//! | [`guard`] | what happens to every request before and after its handler |
//! | [`problem`] | the one table from errors to status codes |
//! | [`extract`] | bodies and queries, read strictly |

pub(crate) mod extract;
pub(crate) mod guard;
pub(crate) mod problem;
pub(crate) mod routes;

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::limits;

/// The whole service.
pub(crate) fn router(control: Arc<Control>) -> Router {
    let (router, _) = routes::routes();
    let remembered = Arc::new(guard::Remembered::default());
    let shared = guard::Shared { control: control.clone(), remembered };
    router
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), guard::idempotency))
        .layer(axum::middleware::from_fn_with_state(shared, guard::authenticate))
        .layer(axum::middleware::from_fn(guard::observe))
        .with_state(control)
}

/// Binds the API's address.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(Error::file(address.to_string()))?;
    listener.set_nonblocking(true).map_err(Error::Stream)?;
    Ok(listener)
}

/// Serves until `stop`: plain HTTP on loopback, TLS with a certificate of the site's CA elsewhere.
pub(crate) async fn serve(control: Arc<Control>, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
    let address = listener.local_addr().map_err(Error::Stream)?;
    let service = router(control.clone()).into_make_service();
    let handle = Handle::new();
    let stopping = handle.clone();
    let header = Duration::from_secs(limits::HEADER_SECONDS_MAX);
    let serving = async {
        if address.ip().is_loopback() {
            let mut server = axum_server::from_tcp(listener)?.handle(handle);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(header);
            server.serve(service).await
        } else {
            let tls = tls(&control, address.ip()).map_err(std::io::Error::other)?;
            let mut server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls))?.handle(handle);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(header);
            server.serve(service).await
        }
    };
    tokio::pin!(serving, stop);
    tokio::select! {
        served = &mut serving => return served.map_err(Error::Stream),
        () = &mut stop => stopping.graceful_shutdown(Some(Duration::from_secs(limits::STOP_SECONDS_MAX))),
    }
    serving.await.map_err(Error::Stream)
}

fn tls(control: &Control, address: IpAddr) -> Result<Arc<rustls::ServerConfig>> {
    let mut names = vec![IpAddr::from([127, 0, 0, 1])];
    if address.is_unspecified() {
        names.extend(if_addrs::get_if_addrs().map_err(Error::Stream)?.into_iter().map(|interface| interface.ip()));
    } else {
        names.push(address);
    }
    let (certificate, key) = control.authority.certify_api(&names)?;
    let certificate = rustls_pki_types::CertificateDer::from(certificate);
    let key = rustls_pki_types::PrivateKeyDer::try_from(key).map_err(|error| Error::Certificate(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::Certificate(error.to_string()))?.with_no_client_auth();
    let mut config =
        config.with_single_cert(vec![certificate], key).map_err(|error| Error::Certificate(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
