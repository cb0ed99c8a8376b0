//! The HTTP listener: health, metrics, and the API that `mailbell send` follows a mail with.
//!
//! Owns what HTTP looks like. Must not decide anything: it shows what spool and health say.

mod assets;
pub mod entries;
mod pages;
mod reader;
mod shell;
mod words;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Team, TransportKind};
use crate::observe::{Health, Ledger};
use crate::rules::Rulebook;
use crate::smtp::stats::DoorStats;
use crate::spool::{Ending, Filter, MailId, Spool, StageFilter};

/// What the pages show.
pub struct Shown {
    pub health: Arc<Health>,
    pub metrics: Registry,
    /// Shown in `metrics`, and read from the spool for each scrape.
    pub ledger: Ledger,
    pub spool: Arc<dyn Spool>,
    pub door: Arc<DoorStats>,
    pub rulebook: Arc<Rulebook>,
    pub teams: Vec<TeamWays>,
    /// Asked of everything but `/healthz` and `/readyz` when it is set.
    pub password: Option<SecretString>,
}

/// A team's name and its ways out.
#[derive(Debug)]
pub struct TeamWays {
    pub name: String,
    pub transports: Vec<TransportKind>,
}

impl TeamWays {
    pub fn of(team: &Team) -> TeamWays {
        TeamWays {
            name: team.name.clone(),
            transports: team.transports.clone(),
        }
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Serves until the token is cancelled, then lets running requests end for a second.
pub async fn serve(
    listener: TcpListener,
    shown: Arc<Shown>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let served = axum::serve(listener, router(shown))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let grace = async {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        ended = served => ended,
        () = grace => Ok(()),
    }
}

fn router(shown: Arc<Shown>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/mails/{id}", get(mail))
        .merge(pages::router())
        .layer(middleware::from_fn_with_state(shown.clone(), guard));
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .merge(assets::router())
        .merge(pages::open_router())
        .merge(guarded)
        .fallback(pages::not_found)
        .with_state(shown)
}

/// HTTP Basic with any user name; the password is compared in constant time.
async fn guard(State(shown): State<Arc<Shown>>, request: Request, next: Next) -> Response {
    if is_allowed(&shown, request.headers()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"mailbell\"")];
    (
        StatusCode::UNAUTHORIZED,
        challenge,
        "a password is needed\n",
    )
        .into_response()
}

fn is_allowed(shown: &Shown, headers: &HeaderMap) -> bool {
    let Some(password) = &shown.password else {
        return true;
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|encoded| BASE64.decode(encoded.trim()).ok())
        .and_then(|pair| {
            let at = pair.iter().position(|byte| *byte == b':')?;
            pair.get(at + 1..).map(<[u8]>::to_vec)
        })
        .unwrap_or_default();
    given.ct_eq(password.expose_secret().as_bytes()).into()
}

/// Without the password only which components have a problem: the texts may name mails and repeat
/// what others said.
async fn ready(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let entries = shown.health.entries();
    let mut warnings = listed(&entries.warnings);
    let dead = Filter {
        stage: Some(StageFilter::Ending(Ending::DeadLetter)),
        ..Filter::default()
    };
    match shown.spool.list(dead, 1).await {
        Ok(found) => warnings.extend(found.first().map(|newest| {
            json!({
                "component": "dead letters",
                "problem": format!("there are mails that nobody was told of, the newest {}: {}", newest.mail, newest.reason),
            })
        })),
        Err(error) => warnings.push(json!({ "component": "spool", "problem": error.to_string() })),
    }
    let mut problems = listed(&entries.problems);
    if !is_allowed(&shown, &headers) {
        for entry in problems.iter_mut().chain(&mut warnings) {
            entry["problem"] = Value::Null;
        }
    }
    let status = if problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "ready": problems.is_empty(), "problems": problems, "warnings": warnings })),
    )
}

fn listed(entries: &BTreeMap<String, String>) -> Vec<Value> {
    entries
        .iter()
        .map(|(component, problem)| json!({ "component": component, "problem": problem }))
        .collect()
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    // Numbers of another time would look as if nothing happened: none are shown instead.
    let totals = shown.spool.ledger().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the ledger could not be read for /metrics");
        BTreeMap::new()
    });
    shown.ledger.show(totals);
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shown.metrics) {
        Ok(()) => {
            let form = [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )];
            (form, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// One mail: where each of its deliveries is, and every attempt with its answer.
async fn mail(State(shown): State<Arc<Shown>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<MailId>() else {
        return problem(StatusCode::BAD_REQUEST, "that is not a mail's id");
    };
    match shown.spool.show(id).await {
        Ok(Some(mail)) => Json(entries::mail(&mail)).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no mail has that id"),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
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
