//! One mail: what happened to it, what was read in it, why it was decided so, and the original.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::given::{Parameters, Path};
use super::marked::marked;
use super::rows::sender;
use super::{Refusal, timeline};
use crate::deliver::as_sent;
use crate::rules::explain::Step;
use crate::spool::plan::DROPPED;
use crate::spool::{Ending, MailId, Piece, Shown as Mail, ShownDelivery, Stage};
use crate::web::Shown;
use crate::web::access::percent_encoded;
use crate::web::reader::Reader;
use crate::web::reading::{self, Reading};
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
    Path(id): Path,
    Parameters(asked): Parameters<Asked>,
    reader: Reader,
) -> Result<Response, Refusal> {
    let mail = load(&shown, &reader, &id).await?;
    let fail = |error| Refusal::Spool(reader.clone(), error);
    let piece = shown.spool.piece(mail.mail, 0).await.map_err(fail)?;
    let source = piece.as_ref().map(beginning);
    let reading = reading::of_mail(&shown, mail.mail).await;
    let title = title(&reader, &mail, reading.as_ref().ok());
    let content = html! {
        div.head #mail data-live data-mail=(mail.mail) {
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
        @match &reading {
            Err(problem) => div.card { p { (shell::english(&problem.detail)) } },
            Ok(reading) => {
                (text(&reader, reading))
                (trace(&reader, &mail, reading))
            }
        }
        @if let Some(source) = source { (original(&reader, &mail, &source)) }
    };
    Ok(shell::page(&reader, Place::Mails, &title, &content))
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
pub fn title(reader: &Reader, mail: &Mail, reading: Option<&Reading>) -> String {
    let decided = mail
        .deliveries
        .iter()
        .find_map(|delivery| delivery.summary.title.clone());
    let subject = || reading.map(|reading| reading.subject.clone());
    decided
        .or_else(subject)
        .filter(|title| !title.trim().is_empty())
        .unwrap_or_else(|| reader.say(mails::NO_SUBJECT).to_owned())
}

fn beginning(piece: &Piece) -> (String, bool) {
    let shown = piece.bytes.get(..SOURCE_BYTES_MAX).unwrap_or(&piece.bytes);
    (
        String::from_utf8_lossy(shown).into_owned(),
        (shown.len() as u64) < piece.mail_bytes,
    )
}

fn actions(reader: &Reader, mail: &Mail, is_asking: bool) -> Markup {
    let id = mail.mail;
    let is_dead =
        |delivery: &ShownDelivery| delivery.summary.stage == Stage::Settled(Ending::DeadLetter);
    let has_dead = mail.deliveries.iter().any(is_dead);
    let is_unfinished =
        |delivery: &ShownDelivery| !matches!(delivery.summary.stage, Stage::Settled(_));
    let is_undropped =
        |delivery: &ShownDelivery| is_dead(delivery) && delivery.summary.reason != DROPPED;
    let can_drop = |one: &ShownDelivery| is_undropped(one) || is_unfinished(one);
    let can_drop = mail.deliveries.iter().any(can_drop);
    html! {
        div.actions #actions data-live {
            @if has_dead {
                form method="post" action={ "/mails/" (id) "/retry" } { button.primary { (reader.say(words_::RETRY)) } }
            }
            a.button href={ "/mails/" (id) "/replay" } { (reader.say(words_::REPLAY)) }
            @if let Some(source) = mail.deliveries.iter().find_map(|one| one.summary.source.as_deref()) {
                a.button href={ "/rules/" (percent_encoded(source)) "?mail=" (id) } { (reader.say(words_::CHANGE_RULES)) }
                a.button href={ "/mails/" (id) "/test" } { (reader.say(words_::SAVE_TEST)) }
            }
            a.button href={ "/api/v1/mails/" (id) "/original" } download { (reader.say(words_::DOWNLOAD)) }
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
    let summary = &delivery.summary;
    let decision = delivery.decision.as_ref();
    let alert = decision.and_then(|decision| decision.alert.as_ref());
    let alert = alert.map(|alert| as_sent(alert, summary.mail, summary.part));
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
pub fn entries(payload: &Map<String, Value>) -> Markup {
    html! {
        dl.facts-list {
            @for (name, value) in payload {
                dt { (name) }
                dd { pre { @match value.as_str() { Some(text) => (text), None => (value) } } }
            }
        }
    }
}

fn text(reader: &Reader, reading: &Reading) -> Markup {
    let fields: Vec<(&String, &Value)> = reading
        .decisions
        .iter()
        .filter_map(|decision| decision.get("fields")?.as_object())
        .flatten()
        .collect();
    html! {
        div.split {
            section.card aria-labelledby="text" {
                h2 #text { (reader.say(words_::TEXT)) }
                p { strong { (marked(&reading.subject, "subject", &reading.spans)) } }
                pre.mail-text { (marked(&reading.text, "text", &reading.spans)) }
                @if !reading.set_apart.is_empty() {
                    details {
                        summary { (reader.say(words_::SET_APART)) }
                        pre.muted { (reading.set_apart) }
                    }
                }
            }
            section.card aria-labelledby="fields" {
                h2 #fields { (reader.say(words_::FIELDS)) }
                @if fields.is_empty() { p.muted { (reader.say(words_::NO_FIELDS)) } }
                @else {
                    dl.facts-list {
                        @for (name, value) in fields { dt { (name) } dd { (value.as_str().unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}

fn trace(reader: &Reader, mail: &Mail, reading: &Reading) -> Markup {
    let then: Vec<Value> = mail
        .deliveries
        .iter()
        .filter_map(|delivery| Some(delivery.decision.as_ref()?.to_json()))
        .collect();
    let differs = !then.is_empty() && !then.iter().all(|one| reading.decisions.contains(one));
    let said = |decision: &Value, key: &str| {
        let text = decision.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    html! {
        section.card #why aria-labelledby="trace" {
            h2 #trace { (reader.say(words_::TRACE)) }
            @for decision in &reading.decisions {
                p {
                    strong { (reader.say(words::event(&said(decision, "event")))) } ": "
                    (shell::english(&said(decision, "reason")))
                }
            }
            p.muted { (reader.say(words_::TRACE_BY)) }
            @if differs { p { (shell::tone(Tone::Warn, reader.say(words_::TRACE_DIFFERS))) } }
            (steps(&reading.steps))
        }
    }
}

/// Each step with what it consists of, folded unless it decided; without the text, which stands above.
fn steps(steps: &[Step]) -> Markup {
    let groups = steps.chunk_by(|_, next| is_inside(next));
    let shown = groups
        .filter_map(|group| group.split_first())
        .filter(|(head, _)| {
            let is_shown_above = ["text:", "set apart", "subject: ", "from: "];
            !is_shown_above
                .iter()
                .any(|begin| head.text.starts_with(begin))
        });
    html! {
        ol.trace lang="en" {
            @for (head, inside) in shown {
                @let verdict = inside.iter().rfind(|step| step.depth == 0).map_or("", |step| step.text.trim());
                @let decides = verdict.starts_with("holds") || verdict.starts_with("claims");
                li {
                    @if inside.iter().all(|step| step.depth == 0) { (head.text) (after(verdict)) }
                    @else {
                        details open[decides] {
                            summary {
                                span.chosen[decides] { (head.text) (after(verdict)) }
                                @if let Some(taken) = taken(inside) { " " span.mono.muted { (taken) } }
                            }
                            ul.trace {
                                @for step in inside.iter().filter(|step| step.depth > 0) {
                                    li.{ "d" (step.depth.min(3)) } { (step.text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a rule came to is on the level of the rule, but indented.
fn is_inside(step: &Step) -> bool {
    step.depth > 0 || step.text.starts_with(' ')
}

fn after(verdict: &str) -> String {
    if verdict.is_empty() {
        String::new()
    } else {
        format!(": {verdict}")
    }
}

/// The value that a field got.
fn taken(inside: &[Step]) -> Option<&str> {
    let hit = |step: &Step| step.text.trim_start().starts_with('+');
    let first = inside.iter().find(|step| hit(step))?;
    first.text.rsplit_once(" gives ").map(|(_, value)| value)
}

fn original(reader: &Reader, mail: &Mail, (source, is_cut): &(String, bool)) -> Markup {
    html! {
        section.card aria-labelledby="original" {
            div.head {
                h2 #original { (reader.say(words_::ORIGINAL)) }
                a href={ "/api/v1/mails/" (mail.mail) "/original" } download { (reader.say(words_::DOWNLOAD)) }
            }
            details {
                summary { (reader.say(words_::SHOW)) }
                @if *is_cut { p.muted { (reader.say(words_::CUT)) } }
                pre.scroll tabindex="0" { (source) }
            }
        }
    }
}
