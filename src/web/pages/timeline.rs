//! What happened to one delivery, in its order.

use maud::{Markup, html};

use crate::spool::{Attempt, Shown as Mail, ShownDelivery, Stage};
use crate::web::reader::Reader;
use crate::web::shell::{self, Tone};
use crate::web::words::{self, mail as words_};

pub fn card(reader: &Reader, mail: &Mail, delivery: &ShownDelivery) -> Markup {
    let summary = &delivery.summary;
    html! {
        section.card {
            h2 {
                (reader.say(words_::TIMELINE))
                @if mail.deliveries.len() > 1 { " · " (whose(reader, delivery)) }
            }
            ol.timeline {
                li.good { (shell::time(mail.received)) (reader.say(words_::ACCEPTED)) }
                (decided(reader, delivery))
                @for attempt in &delivery.attempts { (tried(reader, attempt)) }
                @match summary.stage {
                    Stage::Settled(ending) => {
                        li.(Tone::of_stage(ending.as_str()).class()) {
                            @if let Some(at) = summary.settled { (shell::time(at)) }
                            (reader.say(words_::ENDED)) " " strong { (reader.say(words::stage(ending.as_str()))) }
                            @if !summary.reason.is_empty() { ": " (shell::english(&summary.reason)) }
                        }
                    }
                    stage => {
                        li.warn {
                            strong { (reader.say(words::stage(stage.as_str()))) }
                            @if let Some(at) = summary.not_before { ". " (reader.say(words_::NEXT)) " " (shell::time(at)) }
                        }
                    }
                }
            }
        }
    }
}

/// Team, and which ticket of a digest.
pub fn whose(reader: &Reader, delivery: &ShownDelivery) -> String {
    let summary = &delivery.summary;
    let team = reader.language.fill(words_::FOR_TEAM, &[&summary.team]);
    if summary.part == 0 {
        return team;
    }
    let part = reader.language.fill(words_::PART, &[&(summary.part + 1)]);
    format!("{team}, {part}")
}

fn decided(reader: &Reader, delivery: &ShownDelivery) -> Markup {
    let summary = &delivery.summary;
    html! {
        @match &delivery.decision {
            None => @if summary.stage == Stage::Accepted { li.warn { (reader.say(words_::UNDECIDED)) } },
            Some(decision) => {
                li.(if decision.degraded { "warn" } else { "good" }) {
                    (reader.say(words_::DECIDED)) " "
                    strong { (reader.say(words::event(decision.event.as_str()))) }
                    @if let Some(id) = &decision.external_id { " " span.mono { (id) } }
                    ": " (shell::english(&decision.reason))
                    @for problem in &decision.problems { br; (reader.say(words_::PROBLEM)) ": " (shell::english(problem)) }
                }
            }
        }
    }
}

fn tried(reader: &Reader, attempt: &Attempt) -> Markup {
    let tone = match attempt.result.as_str() {
        "delivered" => Tone::Good,
        "deferred" => Tone::Warn,
        _ => Tone::Bad,
    };
    html! {
        li.(tone.class()) {
            (shell::time(attempt.at))
            (attempt.transport) ": "
            strong { (reader.say(words::attempt(&attempt.result))) }
            " (" (shell::took(attempt.took)) ")"
            @if !attempt.answer.is_empty() { br; span.mono.muted lang="en" { (attempt.answer) } }
        }
    }
}
