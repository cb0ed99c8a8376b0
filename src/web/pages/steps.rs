//! What a person does to mails: retry, drop, replay, save as a test. Forms post here and are led to
//! where the result is seen; whether another site's page sent them has been looked at before.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::given::{Form, Path};
use super::{Refusal, mail};
use crate::clock::{Clock, SystemClock};
use crate::spool::{DeadLetters, MailId, SpoolError};
use crate::web::Shown;
use crate::web::api::replay::{OfTeam, again, as_test};
use crate::web::problem::Problem;
use crate::web::reader::{Reader, local_path};
use crate::web::shell::{self, Place, Tone};
use crate::web::words::{self, steps};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Posted {
    /// Where to go afterwards; the mail when there is nothing.
    back: String,
}

pub async fn retry(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
    Form(posted): Form<Posted>,
) -> Result<Response, Refusal> {
    let id = parse(&reader, &id)?;
    let changed = shown
        .spool
        .retry(DeadLetters::Of(id), SystemClock.now())
        .await;
    changed.map_err(|error| Refusal::Spool(reader.clone(), error))?;
    shown.pipeline.try_now();
    Ok(to(&posted, id))
}

pub async fn retry_all(
    State(shown): State<Arc<Shown>>,
    reader: Reader,
) -> Result<Response, Refusal> {
    let changed = shown.spool.retry(DeadLetters::All, SystemClock.now()).await;
    changed.map_err(|error: SpoolError| Refusal::Spool(reader.clone(), error))?;
    shown.pipeline.try_now();
    Ok(Redirect::to(Place::DeadLetters.path()).into_response())
}

pub async fn discard(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
    Form(posted): Form<Posted>,
) -> Result<Response, Refusal> {
    let id = parse(&reader, &id)?;
    let changed = shown.spool.drop_mail(id, SystemClock.now()).await;
    changed.map_err(|error| Refusal::Spool(reader.clone(), error))?;
    shown.pipeline.wake();
    Ok(to(&posted, id))
}

/// What today's rules would decide, beside what was decided; nothing is changed.
pub async fn rehearse(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
) -> Result<Response, Refusal> {
    let id = parse(&reader, &id)?;
    let replay = again(&shown, id, false).await.map_err(refused(&reader))?;
    let title = reader.say(steps::REPLAY);
    let same = replay.teams.iter().all(|team| team.same);
    let content = html! {
        p { a href={ "/mails/" (id) } { (reader.say(steps::BACK)) } }
        h1 { (title) }
        p {
            @if same { (shell::tone(Tone::Good, reader.say(steps::SAME))) }
            @else { (shell::tone(Tone::Warn, reader.say(steps::DIFFERS))) }
        }
        @for team in &replay.teams { (comparison(&reader, team)) }
        form.card method="post" action={ "/mails/" (id) "/replay" } {
            h2 { (reader.say(steps::REPLAY_DO)) }
            p { (reader.say(steps::REPLAY_ASK)) }
            button.primary { (reader.say(steps::REPLAY_DO)) }
        }
    };
    Ok(shell::page(&reader, Place::Mails, title, &content))
}

/// Really: the mail is accepted again, under a new id.
pub async fn replay(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
) -> Result<Response, Refusal> {
    let id = parse(&reader, &id)?;
    let replay = again(&shown, id, true).await.map_err(refused(&reader))?;
    let sent_as = replay.sent_as.unwrap_or_else(|| id.to_string());
    Ok(Redirect::to(&format!("/mails/{sent_as}")).into_response())
}

/// The mail as a test of its rule file; written when the gateway may.
pub async fn save_test(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
) -> Result<Response, Refusal> {
    let id = parse(&reader, &id)?;
    let test = as_test(&shown, id).await.map_err(refused(&reader))?;
    let title = reader.say(steps::TEST);
    let (tone, said) = match test.saved {
        true => (Tone::Good, steps::TEST_SAVED),
        false => (Tone::Plain, steps::TEST_COPY),
    };
    let content = html! {
        p { a href={ "/mails/" (id) } { (reader.say(steps::BACK)) } }
        h1 { (title) }
        p role="status" { (shell::tone(tone, &test.source)) " " (reader.language.fill(said, &[&test.mail_file])) }
        div.card {
            label for="toml" { (reader.language.fill(steps::TEST_OF, &[&test.source])) }
            textarea #toml readonly rows="18" spellcheck="false" { (test.toml) }
            @if !test.saved {
                div.actions {
                    a.button href={ "/api/v1/mails/" (id) "/original" } download { (reader.say(words::mail::DOWNLOAD)) }
                }
            }
        }
    };
    Ok(shell::page(&reader, Place::Mails, title, &content))
}

/// Asked before a rule file is written.
pub async fn ask_test(
    State(shown): State<Arc<Shown>>,
    Path(id): Path,
    reader: Reader,
) -> Result<Response, Refusal> {
    if !shown.may_edit_rules() {
        return save_test(State(shown), Path(id), reader).await;
    }
    let found = mail::load(&shown, &reader, &id).await?;
    let title = reader.say(steps::TEST);
    let content = html! {
        p { a href={ "/mails/" (found.mail) } { (reader.say(steps::BACK)) } }
        h1 { (title) }
        form.card method="post" action={ "/mails/" (found.mail) "/test" } {
            p { (reader.say(steps::TEST_ASK)) }
            button.primary { (reader.say(steps::TEST)) }
        }
    };
    Ok(shell::page(&reader, Place::Mails, title, &content))
}

fn comparison(reader: &Reader, team: &OfTeam) -> Markup {
    let mut rows = rows(&team.before, &team.now);
    // What has changed is seen first.
    rows.sort_by_key(|(_, then, now)| then == now);
    html! {
        section.card {
            h2 { (reader.language.fill(words::mail::FOR_TEAM, &[&team.team])) }
            table.compare {
                thead {
                    tr {
                        th scope="col" { (reader.say(steps::WHAT)) }
                        th scope="col" { (reader.say(steps::THEN)) }
                        th scope="col" { (reader.say(steps::TODAY)) }
                    }
                }
                tbody {
                    @for (name, then, now) in rows {
                        tr.changed[then != now] {
                            th scope="row" { (name) @if then != now { span.hidden { " " (reader.say(steps::CHANGED)) } } }
                            td data-label=(reader.say(steps::THEN)) { (then) }
                            td data-label=(reader.say(steps::TODAY)) { (now) }
                        }
                    }
                }
            }
        }
    }
}

/// What the two have, line by line: event, rule, fields, alert; of digests, ticket by ticket.
fn rows(then: &[Value], now: &[Value]) -> Vec<(String, String, String)> {
    let none = Value::Null;
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for at in 0..then.len().max(now.len()) {
        let (then, now) = (then.get(at).unwrap_or(&none), now.get(at).unwrap_or(&none));
        for key in [
            "event",
            "source",
            "rule",
            "reason",
            "external_id",
            "degraded",
        ] {
            rows.push((key.to_owned(), said(then.get(key)), said(now.get(key))));
        }
        for part in ["fields", "alert"] {
            let object = |of: &Value| {
                of.get(part)
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default()
            };
            let (then, now) = (object(then), object(now));
            let new = now.keys().filter(|name| !then.contains_key(*name));
            let names: Vec<String> = then.keys().chain(new).cloned().collect();
            rows.extend(names.into_iter().map(|name| {
                let (then, now) = (said(then.get(&name)), said(now.get(&name)));
                (format!("{part}.{name}"), then, now)
            }));
        }
    }
    rows
}

fn said(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn parse(reader: &Reader, id: &str) -> Result<MailId, Refusal> {
    id.parse().map_err(|_| Refusal::NotFound(reader.clone()))
}

fn refused(reader: &Reader) -> impl FnOnce(Problem) -> Refusal {
    let reader = reader.clone();
    move |problem| Refusal::Problem(reader, problem)
}

fn to(posted: &Posted, id: MailId) -> Response {
    match posted.back.as_str() {
        "" => Redirect::to(&format!("/mails/{id}")).into_response(),
        back => Redirect::to(local_path(back)).into_response(),
    }
}
