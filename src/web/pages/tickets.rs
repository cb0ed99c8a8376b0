//! Tickets that SIGNL4 has been told of and that are not resolved.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::html;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::given::Parameters;
use crate::clock::{Clock, SystemClock, Time};
use crate::spool::lifecycle::TicketState;
use crate::spool::{KnownTicket, TicketCursor};
use crate::web::Shown;
use crate::web::reader::Reader;
use crate::web::shell::{self, Place, Tone};
use crate::web::words::tickets;

/// Tickets on a page.
const PAGE: usize = 50;

/// The last ticket of the page before; none is the first page.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Asked {
    changed: Option<i64>,
    team: String,
    id: String,
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    reader: Reader,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    let is_first = asked.changed.is_none();
    // PostgreSQL's text has no NUL.
    if asked.team.contains('\0') || asked.id.contains('\0') {
        return Err(Refusal::NotFound(reader));
    }
    let before = asked.changed.map(|ms| TicketCursor {
        changed: Time::from_ms(ms),
        team: asked.team,
        external_id: asked.id,
    });
    let open = shown
        .spool
        .tickets(before, PAGE)
        .await
        .map_err(|error| Refusal::Spool(reader.clone(), error))?;
    let next = open
        .last()
        .filter(|_| open.len() == PAGE)
        .map(address_after);
    let now = SystemClock.now();
    let title = reader.say(tickets::TITLE);
    let content = html! {
        h1 { (title) }
        div #tickets data-live[is_first] {
            @if open.is_empty() { div.card { p { (reader.say(tickets::NONE)) } } }
            @else {
                ol.rows { @for ticket in &open { li { (line(&reader, ticket, now)) } } }
            }
            div.pages {
                @if !is_first { a.button href="/tickets" { (reader.say(tickets::NEWEST)) } }
                @if let Some(next) = next { a.button rel="next" href=(next) { (reader.say(tickets::OLDER)) } }
            }
        }
    };
    Ok(shell::page(&reader, Place::Tickets, title, &content))
}

fn line(reader: &Reader, ticket: &KnownTicket, now: Time) -> maud::Markup {
    let title = ticket.title.as_deref().unwrap_or(&ticket.external_id);
    let (tone, state) = match ticket.state {
        TicketState::Acknowledged => (Tone::Good, tickets::ACKNOWLEDGED),
        _ => (Tone::Warn, tickets::OPEN),
    };
    html! {
        @match ticket.opened_by {
            Some(mail) => a.title href={ "/mails/" (mail) } { (title) },
            None => span.title { (title) },
        }
        div.facts {
            span.mono { (ticket.external_id) }
            span { (reader.say(tickets::TEAM)) " " (ticket.team) }
            @if let Some(storm) = &ticket.storm {
                span { (reader.say(tickets::IN_SUMMARY)) " " span.mono { (storm) } }
            }
            a.above href={ "/mails?" (mails_of(&ticket.external_id)) } { (reader.say(tickets::ITS_MAILS)) }
        }
        div.side {
            (shell::tone(tone, reader.say(state)))
            span.muted {
                @if let Some(opened) = ticket.opened {
                    (reader.say(tickets::SINCE)) " " (shell::age(reader, now.since(opened))) " · "
                }
                (reader.say(tickets::CHANGED)) " " (shell::time(ticket.changed))
            }
        }
    }
}

fn address_after(ticket: &KnownTicket) -> String {
    let asked = Asked {
        changed: Some(ticket.changed.ms()),
        team: ticket.team.clone(),
        id: ticket.external_id.clone(),
    };
    format!(
        "/tickets?{}",
        serde_urlencoded::to_string(&asked).unwrap_or_default()
    )
}

/// The search for a ticket's mails. Words are bounded, an external id is found as it is.
fn mails_of(external_id: &str) -> String {
    serde_urlencoded::to_string([("external_id", external_id)]).unwrap_or_default()
}
