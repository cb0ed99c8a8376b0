//! Mails that reached nobody, until somebody retries or drops them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::given::Parameters;
use super::{Refusal, rows};
use crate::spool::{Ending, Filter, Found, MailId, Query, Stage, StageFilter};
use crate::web::Shown;
use crate::web::reader::Reader;
use crate::web::shell::{self, Place};
use crate::web::words::{dead, mails};

/// Dead letters on a page.
const PAGE: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    before: String,
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    reader: Reader,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    let query = Query {
        filter: Filter {
            stage: Some(StageFilter::Undropped),
            before: asked.before.parse::<MailId>().ok(),
            ..Filter::default()
        },
        limit: PAGE,
        ..Query::default()
    };
    let found = shown
        .spool
        .search(query)
        .await
        .map_err(|error| Refusal::Spool(reader.clone(), error))?;
    let title = reader.say(dead::TITLE);
    let content = html! {
        h1 { (title) }
        p.muted { (reader.say(dead::WHAT)) }
        div #dead data-live[asked.before.is_empty()] {
            @if found.mails.is_empty() {
                div.card { p { (reader.say(dead::NONE)) } }
            } @else {
                div.actions {
                    form method="post" action="/dead-letters/retry" {
                        button.primary { (reader.say(dead::RETRY_ALL)) }
                    }
                }
                ol.rows { @for mail in &found.mails { li { (letter(&reader, mail)) } } }
            }
            @if let Some(next) = found.next {
                div.pages { a.button rel="next" href={ "/dead-letters?before=" (next) } { (reader.say(mails::OLDER)) } }
            }
        }
    };
    Ok(shell::page(&reader, Place::DeadLetters, title, &content))
}

fn letter(reader: &Reader, mail: &Found) -> Markup {
    let reasons = mail
        .deliveries
        .iter()
        .filter(|delivery| delivery.summary.stage == Stage::Settled(Ending::DeadLetter))
        .map(|delivery| &delivery.summary.reason);
    html! {
        (rows::line(reader, mail))
        div.reasons {
            @for reason in reasons { p { (shell::english(reason)) } }
        }
        div.actions.above {
            form method="post" action={ "/mails/" (mail.mail) "/retry" } {
                input type="hidden" name="back" value="/dead-letters";
                button { (reader.say(dead::RETRY)) }
            }
            a.button href={ "/api/v1/mails/" (mail.mail) "/original" } download { (reader.say(dead::EXPORT)) }
            a.button href={ "/mails/" (mail.mail) "?ask=drop#drop" } { (reader.say(dead::DROP)) }
        }
    }
}
