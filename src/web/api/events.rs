//! What happens, as it happens: server-sent events for pages that are open.
//!
//! Owns the form and the bounds. Nothing is kept: who comes late, or is too slow, is told to read
//! everything again (`reload`), and so `Last-Event-ID` means nothing. Of several gateways on one store,
//! each tells what it does itself.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits::{EVENT_STREAMS_MAX, EVENTS_BEHIND_MAX, SESSION_LOOKED_AT};
use crate::observe::{Happening, Health, Observer};
use crate::web::Shown;
use crate::web::access::Session;
use crate::web::problem::Problem;

/// Tells everybody who listens.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Told>,
    streams: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
struct Told {
    kind: &'static str,
    data: Arc<str>,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            sender: channel(EVENTS_BEHIND_MAX).0,
            streams: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)),
        }
    }
}

impl Events {
    /// Something may be wrong with that component, or right again, that is no [`Happening`].
    pub fn status(&self, component: &str) {
        let data = json!({ "component": component }).to_string().into();
        // Nobody listens: nothing is lost.
        let _ = self.sender.send(Told {
            kind: "status",
            data,
        });
    }
}

impl Observer for Events {
    fn observe(&self, happening: &Happening<'_>) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        if let Some((kind, data)) = told(happening) {
            let data = data.to_string().into();
            // Nobody listens any more: nothing is lost.
            let _ = self.sender.send(Told { kind, data });
        }
    }
}

fn told(happening: &Happening<'_>) -> Option<(&'static str, Value)> {
    Some(match happening {
        Happening::MailAccepted {
            mail, peer, bytes, ..
        } => (
            "received",
            json!({ "mail": mail.to_string(), "peer": peer.to_string(), "bytes": bytes }),
        ),
        Happening::MailDecided {
            mail,
            team,
            decision,
        } => (
            "decided",
            json!({
                "mail": mail.to_string(),
                "team": team,
                "source": decision.source,
                "rule": decision.rule,
                "event": decision.event.as_str(),
                "external_id": decision.external_id.as_ref().map(|id| id.as_str()),
                "degraded": decision.degraded,
            }),
        ),
        Happening::Attempted {
            mail,
            team,
            transport,
            outcome,
            took,
        } => (
            "attempt",
            json!({
                "mail": mail.to_string(),
                "team": team,
                "transport": transport.as_str(),
                "result": outcome.as_str(),
                "answer": outcome.detail(),
                "took_ms": took.as_millis(),
            }),
        ),
        Happening::Settled { settled, .. } => (
            "outcome",
            json!({
                "mail": settled.mail.to_string(),
                "team": settled.team,
                "part": settled.part,
                "outcome": settled.ending.as_str(),
                "reason": settled.reason,
            }),
        ),
        Happening::CircuitOpened {
            team, transport, ..
        }
        | Happening::CircuitClosed { team, transport } => (
            "status",
            json!({ "component": Health::transport(*transport, team) }),
        ),
        Happening::MailNotStored { .. }
        | Happening::SpoolFailing { .. }
        | Happening::SpoolRecovered { .. } => ("status", json!({ "component": "spool" })),
        _ => return None,
    })
}

/// What happens: `received`, `decided`, `attempt`, `outcome` (each with the mail's id) and `status` (read
/// `/api/v1/status` again). The first event, and one after a browser was too slow, is `reload`: read
/// everything again; nothing is told a second time, and `Last-Event-ID` is not looked at. A comment every
/// 15 seconds keeps proxies from closing the stream. It ends with the session that it was asked for with.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/events", tag = "events",
    responses((status = 200, content_type = "text/event-stream", body = String))))]
pub(super) async fn follow(
    State(shown): State<Arc<Shown>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let events = &shown.events;
    let place = Arc::clone(&events.streams).try_acquire_owned();
    let place = place.map_err(|_| {
        let detail = format!("{EVENT_STREAMS_MAX} streams are open already");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let state = Following {
        receiver: events.sender.subscribe(),
        is_behind: true,
        session: shown.access.session(&headers),
        _place: place,
    };
    Ok(Sse::new(unfold(state, next)).keep_alive(KeepAlive::default()))
}

struct Following {
    receiver: Receiver<Told>,
    /// It has to read everything again.
    is_behind: bool,
    /// `None`: the password came with the request, or none is needed.
    session: Option<Session>,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// Whoever follows has logged out, or has to log in again.
    fn has_ended(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.is_open())
    }
}

async fn next(mut following: Following) -> Option<(Result<Event, Infallible>, Following)> {
    let told = match std::mem::take(&mut following.is_behind) {
        true => Err(RecvError::Lagged(0)),
        false => loop {
            match timeout(SESSION_LOOKED_AT, following.receiver.recv()).await {
                Ok(told) => break told,
                // Nothing happens: a session that has ended is noticed all the same.
                Err(_) if following.has_ended() => return None,
                Err(_) => {}
            }
        },
    };
    if following.has_ended() {
        return None;
    }
    let event = match told {
        Ok(told) => Event::default().event(told.kind).data(&told.data),
        Err(RecvError::Lagged(_)) => Event::default().event("reload").data("{}"),
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(event), following))
}
