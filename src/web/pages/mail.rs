//! One mail: what happened to it, what was read in it, why it was decided so, and the original.

use std::sync::Arc;

use axum::extract::{Path, Query as Parameters, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::reread::{Reread, Unread, reread};
use super::rows::sender;
use super::{Refusal, timeline};
use crate::rules::Decision;
use crate::spool::{Ending, MailId, Shown as Mail, ShownDelivery, Stage};
use crate::web::Shown;
use crate::web::reader::Reader;
use crate::web::shell::{self, Place, Tone};
use crate::web::words::{self, mail as words_, mails};

/// Of the original, that much is shown in the page; all of it can be downloaded.
const SOURCE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `drop`: the question is open.
    ask: String,
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    Path(id): Path<String>,
    Parameters(asked): Parameters<Asked>,
    reader: Reader,
) -> Result<Response, Refusal> {
    let mail = load(&shown, &reader, &id).await?;
    let fail = |error| Refusal::Spool(reader.clone(), error);
    let raw = shown.spool.raw(mail.mail).await.map_err(fail)?;
    let source = raw.as_deref().map(beginning);
    let reread = match raw {
        None => Err(Unread::Gone),
        Some(raw) => reread(&shown, &mail, raw).await,
    };
    let title = title(&reader, &mail, &reread);
    let content = html! {
        div.head #mail data-live {
            h1 { (title) }
            p {
                @for delivery in &mail.deliveries {
                    @if delivery.decision.as_ref().is_some_and(|decision| decision.degraded) {
                        (shell::tone(Tone::Warn, reader.say(mails::DEGRADED))) " "
                    }
                    (shell::stage(&reader, delivery.summary.stage.as_str())) " "
                }
            }
        }
        (actions(&reader, &mail, asked.ask == "drop"))
        div.split {
            div {
                (facts(&reader, &mail))
                div #deliveries data-live {
                    @for delivery in &mail.deliveries { (timeline::card(&reader, &mail, delivery)) }
                }
            }
            div {
                @for delivery in &mail.deliveries { (alert(&reader, &mail, delivery)) }
            }
        }
        @match &reread {
            Err(unread) => (problem(&reader, *unread)),
            Ok(reread) => {
                (text(&reader, reread))
                (trace(&reader, &mail, reread))
            }
        }
        @if let Some(source) = source { (original(&reader, &mail, &source)) }
    };
    Ok(shell::page(&reader, Place::Mails, &title, &content))
}

/// As it was accepted, to be saved: never shown as anything but text.
pub async fn source(
    State(shown): State<Arc<Shown>>,
    Path(id): Path<String>,
    reader: Reader,
) -> Result<Response, Refusal> {
    let id = id.parse().map_err(|_| Refusal::NotFound(reader.clone()))?;
    let raw = shown.spool.raw(id).await;
    match raw.map_err(|error| Refusal::Spool(reader.clone(), error))? {
        None => Err(Refusal::NotFound(reader)),
        Some(raw) => {
            let headers = [
                (header::CONTENT_TYPE, "message/rfc822".to_owned()),
                (
                    header::CONTENT_DISPOSITION,
                    format!("attachment; filename=\"{id}.eml\""),
                ),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            Ok((headers, raw).into_response())
        }
    }
}

/// A mail by the id in an address.
pub async fn load(shown: &Shown, reader: &Reader, id: &str) -> Result<Mail, Refusal> {
    let id: MailId = id.parse().map_err(|_| Refusal::NotFound(reader.clone()))?;
    let found = shown.spool.show(id).await;
    found
        .map_err(|error| Refusal::Spool(reader.clone(), error))?
        .ok_or_else(|| Refusal::NotFound(reader.clone()))
}

/// The title that was decided, else the subject.
pub fn title(reader: &Reader, mail: &Mail, reread: &Result<Reread, Unread>) -> String {
    let decided = mail
        .deliveries
        .iter()
        .find_map(|delivery| delivery.summary.title.clone());
    let subject = || {
        reread
            .as_ref()
            .ok()
            .map(|reread| reread.message.subject.clone())
    };
    decided
        .or_else(subject)
        .filter(|title| !title.trim().is_empty())
        .unwrap_or_else(|| reader.say(mails::NO_SUBJECT).to_owned())
}

fn beginning(raw: &[u8]) -> (String, bool) {
    let shown = raw.get(..SOURCE_BYTES_MAX).unwrap_or(raw);
    (
        String::from_utf8_lossy(shown).into_owned(),
        shown.len() < raw.len(),
    )
}

fn actions(reader: &Reader, mail: &Mail, is_asking: bool) -> Markup {
    let id = mail.mail;
    let is_dead =
        |delivery: &ShownDelivery| delivery.summary.stage == Stage::Settled(Ending::DeadLetter);
    let has_dead = mail.deliveries.iter().any(is_dead);
    let is_unfinished =
        |delivery: &ShownDelivery| !matches!(delivery.summary.stage, Stage::Settled(_));
    let can_drop = has_dead || mail.deliveries.iter().any(is_unfinished);
    html! {
        div.actions #actions data-live {
            @if has_dead {
                form method="post" action={ "/mails/" (id) "/retry" } { button.primary { (reader.say(words_::RETRY)) } }
            }
            a.button href={ "/mails/" (id) "/replay" } { (reader.say(words_::REPLAY)) }
            a.button href={ "/mails/" (id) "/test" } { (reader.say(words_::SAVE_TEST)) }
            a.button href={ "/mails/" (id) "/original" } download { (reader.say(words_::DOWNLOAD)) }
            @if can_drop {
                details #drop open[is_asking] {
                    summary.button.danger { (reader.say(words_::DROP)) }
                    form.ask method="post" action={ "/mails/" (id) "/drop" } {
                        p { (reader.say(words_::DROP_ASK)) }
                        button.danger { (reader.say(words_::DROP_DO)) }
                    }
                }
            }
        }
    }
}

fn facts(reader: &Reader, mail: &Mail) -> Markup {
    let mut to: Vec<&str> = mail
        .deliveries
        .iter()
        .map(|delivery| delivery.summary.forward_path.as_str())
        .collect();
    to.dedup();
    html! {
        section.card {
            dl.facts-list {
                dt { (reader.say(words_::RECEIVED)) }
                dd { (shell::time(mail.received)) }
                dt { (reader.say(words_::FROM)) }
                dd { (sender(&mail.reverse_path)) }
                dt { (reader.say(words_::TO)) }
                dd { (to.join(", ")) }
                dt { (reader.say(words_::SENT_BY)) }
                dd {
                    @if let Some(peer) = mail.peer { (peer) " " }
                    "(" (mail.helo) ")"
                    @if let Some(user) = &mail.user { ", " (user) }
                    ", "
                    @match &mail.tls { Some(tls) => (tls), None => (reader.say(words_::UNENCRYPTED)) }
                }
                dt { (reader.say(words_::SIZE)) }
                dd { (mail.bytes) " " (reader.say(words_::BYTES)) }
                dt { (reader.say(words_::ID)) }
                dd.mono { (mail.mail) }
            }
        }
    }
}

fn alert(reader: &Reader, mail: &Mail, delivery: &ShownDelivery) -> Markup {
    let alert = delivery
        .decision
        .as_ref()
        .and_then(|decision| decision.alert.as_ref());
    html! {
        section.card {
            h2 {
                (reader.say(words_::ALERT))
                @if mail.deliveries.len() > 1 { " · " (timeline::whose(reader, delivery)) }
            }
            @match alert {
                None => p.muted { (reader.say(words_::NO_ALERT)) },
                Some(alert) => (entries(&alert.payload())),
            }
        }
    }
}

/// The alert as SIGNL4 gets it.
pub fn entries(payload: &serde_json::Map<String, serde_json::Value>) -> Markup {
    html! {
        dl.facts-list {
            @for (name, value) in payload {
                dt { (name) }
                dd { pre { @match value.as_str() { Some(text) => (text), None => (value) } } }
            }
        }
    }
}

fn problem(reader: &Reader, unread: Unread) -> Markup {
    let words = match unread {
        Unread::Gone => words_::GONE,
        Unread::Panicked => words_::UNREADABLE,
        Unread::Busy => words_::BUSY,
    };
    html! { div.card { p { (reader.say(words)) } } }
}

fn text(reader: &Reader, reread: &Reread) -> Markup {
    let fields: Vec<_> = reread
        .decisions
        .iter()
        .flat_map(|decision| &decision.fields)
        .collect();
    let shown_apart = ["description"];
    html! {
        div.split {
            section.card aria-labelledby="text" {
                h2 #text { (reader.say(words_::TEXT)) }
                p { strong { (reread.message.subject) } }
                pre.mail-text { (reread.message.text) }
                @if !reread.message.set_apart.is_empty() {
                    details {
                        summary { (reader.say(words_::SET_APART)) }
                        pre.muted { (reread.message.set_apart) }
                    }
                }
            }
            section.card aria-labelledby="fields" {
                h2 #fields { (reader.say(words_::FIELDS)) }
                @if fields.is_empty() { p.muted { (reader.say(words_::NO_FIELDS)) } }
                dl.facts-list {
                    @for (name, value) in fields {
                        @if !shown_apart.contains(&name.as_str()) { dt { (name) } dd { (value) } }
                    }
                }
            }
        }
    }
}

fn trace(reader: &Reader, mail: &Mail, reread: &Reread) -> Markup {
    let then: Vec<&Decision> = mail
        .deliveries
        .iter()
        .filter_map(|delivery| delivery.decision.as_ref())
        .collect();
    let differs = !then.is_empty() && !then.iter().all(|one| reread.decisions.contains(one));
    html! {
        section.card aria-labelledby="trace" {
            h2 #trace { (reader.say(words_::TRACE)) }
            @for decision in &reread.decisions {
                p { strong { (reader.say(words::event(decision.event.as_str()))) } ": " (shell::english(&decision.reason)) }
                @for problem in &decision.problems {
                    p { (shell::tone(Tone::Warn, reader.say(words_::PROBLEM))) " " (shell::english(problem)) }
                }
            }
            p.muted { (reader.say(words_::TRACE_BY)) }
            @if differs { p { (shell::tone(Tone::Warn, reader.say(words_::TRACE_DIFFERS))) } }
            details open {
                summary { (reader.language.fill(words_::STEPS, &[&reread.steps.len()])) }
                ol.trace.scroll tabindex="0" lang="en" {
                    @for step in &reread.steps { li.{ "d" (step.depth.min(3)) } { (step.text) } }
                }
            }
        }
    }
}

fn original(reader: &Reader, mail: &Mail, (source, is_cut): &(String, bool)) -> Markup {
    html! {
        section.card aria-labelledby="original" {
            div.head {
                h2 #original { (reader.say(words_::ORIGINAL)) }
                a href={ "/mails/" (mail.mail) "/original" } download { (reader.say(words_::DOWNLOAD)) }
            }
            details {
                summary { (reader.say(words_::SHOW)) }
                @if *is_cut { p.muted { (reader.say(words_::CUT)) } }
                pre.scroll tabindex="0" { (source) }
            }
        }
    }
}
