//! One line of a list of mails, the same wherever mails are listed.

use maud::{Markup, html};

use crate::spool::{Found, FoundDelivery};
use crate::web::reader::Reader;
use crate::web::shell::{self, Tone};
use crate::web::words::{self, mails};

/// At most so many deliveries of a mail are shown in its line; its page shows all.
const DELIVERIES_MAX: usize = 4;

pub fn list(reader: &Reader, found: &[Found]) -> Markup {
    html! {
        @if found.is_empty() {
            div.card { p { (shell::prose(reader.say(mails::NONE_YET))) } }
        } @else {
            ol.rows { @for mail in found { li { (line(reader, mail)) } } }
        }
    }
}

/// What the line says, without the `li` around it.
pub fn line(reader: &Reader, found: &Found) -> Markup {
    let first = found.deliveries.first();
    let known = |of: fn(&FoundDelivery) -> Option<&String>| first.and_then(of);
    let is_of_several_teams = found
        .deliveries
        .iter()
        .any(|delivery| first.is_some_and(|first| first.summary.team != delivery.summary.team));
    html! {
        a.title href={ "/mails/" (found.mail) } { (title(reader, found)) }
        div.facts {
            @if let Some(source) = known(|delivery| delivery.summary.source.as_ref()) {
                span { (source) }
            }
            @if let Some(id) = known(|delivery| delivery.summary.external_id.as_ref()) {
                span.mono { (id) }
            }
            @if let Some(event) = known(|delivery| delivery.summary.event.as_ref()) {
                span { (reader.say(words::event(event))) }
            }
            span { (reader.say(mails::FROM)) " " (sender(&found.reverse_path)) }
        }
        div.side {
            @for delivery in found.deliveries.iter().take(DELIVERIES_MAX) {
                span {
                    @if delivery.is_degraded {
                        (shell::tone(Tone::Warn, reader.say(mails::DEGRADED))) " "
                    }
                    @if is_of_several_teams { span.muted { (delivery.summary.team) " " } }
                    (shell::stage(reader, delivery.summary.stage.as_str()))
                }
            }
            (shell::time(found.received))
        }
    }
}

/// What the alert is called; before there is one, the subject.
pub fn title<'a>(reader: &Reader, found: &'a Found) -> &'a str {
    let first = found.deliveries.first();
    first
        .and_then(|delivery| delivery.summary.title.as_deref())
        .or(found.subject.as_deref())
        .unwrap_or(reader.say(mails::NO_SUBJECT))
}

/// A reverse-path as people write it; the null one is `<>`.
pub fn sender(reverse_path: &str) -> &str {
    if reverse_path.is_empty() {
        "<>"
    } else {
        reverse_path
    }
}
