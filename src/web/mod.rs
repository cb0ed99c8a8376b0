//! The HTTP listener: health, metrics, the API, and the dashboard.
//!
//! Owns what HTTP looks like. Must not decide anything: it shows what spool and health say.

pub mod access;
pub mod api;
mod assets;
pub mod entries;
mod listener;
mod pages;
pub mod problem;
mod reader;
pub mod reading;
mod shell;
pub mod turns;
mod words;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::api::events::Events;
use self::api::status::{self, Trouble};
use self::turns::Turns;
use crate::clock::{Clock, SystemClock};
use crate::config::TransportKind;
use crate::observe::{self, Health, StoreNumbers, StoreSeen};
use crate::pipeline::Pipeline;
use crate::rules::Rulebook;
use crate::smtp::stats::DoorStats;
use crate::spool::{Spool, SpoolError};

/// What the pages show, and what they may change.
pub struct Shown {
    pub hostname: String,
    pub health: Arc<Health>,
    pub metrics: Registry,
    /// Shown in `metrics`, and read from the spool for each scrape.
    pub store_numbers: StoreNumbers,
    pub spool: Arc<dyn Spool>,
    pub pipeline: Pipeline,
    pub rulebook: Arc<Rulebook>,
    pub door: Arc<DoorStats>,
    /// The ways out, by team.
    pub transports: Vec<(String, TransportKind)>,
    pub events: Arc<Events>,
    /// Asked of everything but `/healthz` and `/readyz`.
    pub access: Arc<Access>,
    /// `web.edit_rules`
    pub edit_rules: bool,
    /// Of those who try or change rule files.
    pub turns: Turns,
}

impl Shown {
    /// The files inside the program are nobody's to change.
    pub fn may_edit_rules(&self) -> bool {
        self.edit_rules && self.rulebook.is_on_disk()
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Serves until the token is cancelled, then lets running requests end for a moment.
pub async fn serve(listener: TcpListener, shown: Arc<Shown>, stop: CancellationToken) {
    listener::serve(listener, router(shown), stop).await;
}

fn router(shown: Arc<Shown>) -> Router {
    let api = api::router();
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .merge(api)
        .merge(pages::router())
        .layer(from_fn_with_state(shown.access.clone(), access::guard));
    let ours = guarded
        .merge(pages::open_router())
        .layer(from_fn_with_state(shown.access.clone(), access::expect_us));
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .merge(assets::router())
        .merge(ours)
        .fallback(pages::not_found)
        .with_state(shown)
}

/// Without the password only which components have a problem: the texts may name mails and repeat
/// what others said.
async fn ready(
    State(shown): State<Arc<Shown>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let entries = shown.health.entries();
    let warnings = status::warnings(&shown, &entries).await;
    let problems = status::listed(&entries.problems);
    let may_read = shown.access.is_allowed(&headers, peer.ip()).await;
    let told = |troubles: &[Trouble]| -> Vec<Value> {
        let told = |trouble: &Trouble| json!({ "component": trouble.component, "problem": may_read.then_some(&trouble.problem) });
        troubles.iter().map(told).collect()
    };
    let status = if problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({
            "ready": problems.is_empty(),
            "problems": told(&problems),
            "warnings": told(&warnings),
        })),
    )
}

async fn metrics(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    let seen = look_at_store(&shown).await;
    shown.store_numbers.show(seen);
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &shown.metrics) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    let is_open_metrics = accept.is_some_and(|it| it.contains("application/openmetrics-text"));
    if is_open_metrics {
        ([(header::CONTENT_TYPE, observe::OPEN_METRICS)], text).into_response()
    } else {
        let text = observe::classic(&text);
        ([(header::CONTENT_TYPE, observe::CLASSIC)], text).into_response()
    }
}

async fn look_at_store(shown: &Shown) -> Option<StoreSeen> {
    let at = SystemClock.now();
    let looking = async {
        let glance = shown.spool.glance(at).await?;
        let bytes = shown.spool.bytes().await?;
        Ok::<_, SpoolError>(StoreSeen { at, glance, bytes })
    };
    looking
        .await
        .inspect_err(|error| tracing::warn!(%error, "the store could not be read for /metrics"))
        .ok()
}

/// The URL under which a listener is reached from this machine.
pub fn url(listen: SocketAddr) -> String {
    format!("http://{}", reachable(listen))
}

/// The address under which a listener is reached from this machine: one that listens on all
/// addresses is on loopback too.
pub fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}
