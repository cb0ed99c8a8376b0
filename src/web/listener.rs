//! HTTP connections: so many at a time, and none that keeps its place without asking anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Extension};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::{ACCEPT_BACKOFF, HTTP_CONNECTIONS_MAX, HTTP_DRAIN, HTTP_HEADER_TIMEOUT};

/// Serves until the token is cancelled, then lets running requests end for [`HTTP_DRAIN`].
pub(super) async fn serve(listener: TcpListener, pages: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let running = GracefulShutdown::new();
    // Cut off when dropped, so that nothing of the gateway outlives it.
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADER_TIMEOUT);
    loop {
        // Further ones wait in the system's queue.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let pages = pages.clone().layer(Extension(ConnectInfo(peer)));
        let service = TowerToHyperService::new(pages);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = running.watch(connection);
        connections.spawn(async move {
            // A browser may break off whenever it likes.
            let _ = connection.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(HTTP_DRAIN, running.shutdown()).await;
}
