//! Open tickets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::limits::API_PAGE_MAX;
use crate::spool::{KnownTicket, TicketCursor};
use crate::web::Shown;
use crate::web::entries::time;
use crate::web::problem::{Params, Problem};

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(test, into_params(parameter_in = Query))]
pub struct Asked {
    /// `next` of the page before.
    pub before: Option<String>,
    /// Tickets on the page. Default 50.
    #[cfg_attr(test, param(minimum = 1, maximum = 200))]
    pub limit: Option<usize>,
}

/// Tickets that SIGNL4 has been told of and that are not resolved, the last changed first.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Tickets {
    pub tickets: Vec<Ticket>,
    /// The value of `before` for those that changed earlier.
    pub next: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Ticket {
    pub team: String,
    pub external_id: String,
    /// As first sent; `None` when no `new` was ever sent.
    pub title: Option<String>,
    /// `open` or `acknowledged`: the last event that was sent.
    pub state: &'static str,
    /// When the mail that opened it was received, while it is kept.
    pub opened: Option<String>,
    pub changed: String,
    /// The id of that mail.
    pub opened_by: Option<String>,
    /// The external id of the summary alert that tells of it.
    pub storm: Option<String>,
}

/// Tickets that are open.
#[cfg_attr(test, utoipa::path(get, path = "/api/v1/tickets", tag = "tickets", params(Asked), responses((status = 200, body = Tickets))))]
pub(super) async fn list(
    State(shown): State<Arc<Shown>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Tickets>, Problem> {
    Ok(Json(open(&shown, &asked).await?))
}

pub async fn open(shown: &Shown, asked: &Asked) -> Result<Tickets, Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let limit = asked.limit.unwrap_or(50);
    if !(1..=API_PAGE_MAX).contains(&limit) {
        return Err(bad("limit is not from 1 to 200"));
    }
    let before = match asked.before.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(read_cursor(text).ok_or_else(|| bad("before is no page's `next`"))?),
        None => None,
    };
    let mut found = shown.spool.tickets(before, limit + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    Ok(Tickets {
        next: found.last().filter(|_| has_more).map(write_cursor),
        tickets: found.into_iter().map(ticket).collect(),
    })
}

fn ticket(known: KnownTicket) -> Ticket {
    Ticket {
        team: known.team,
        external_id: known.external_id,
        title: known.title,
        state: known.state.as_str(),
        opened: known.opened.map(time),
        changed: time(known.changed),
        opened_by: known.opened_by.map(|mail| mail.to_string()),
        storm: known.storm,
    }
}

fn write_cursor(last: &KnownTicket) -> String {
    let parts = (last.changed.ms(), &last.team, &last.external_id);
    URL_SAFE_NO_PAD.encode(serde_json::json!(parts).to_string())
}

fn read_cursor(text: &str) -> Option<TicketCursor> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (ms, team, external_id): (i64, String, String) = serde_json::from_slice(&json).ok()?;
    // PostgreSQL's text has no NUL.
    let is_plain = !team.contains('\0') && !external_id.contains('\0');
    is_plain.then_some(TicketCursor {
        changed: Time::from_ms(ms),
        team,
        external_id,
    })
}
