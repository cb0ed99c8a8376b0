//! *Now*: is it working? One look must do, at three in the morning too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::rows;
use crate::clock::{Clock, SystemClock, Time};
use crate::config::TransportKind;
use crate::limits::COUNT_MAX;
use crate::observe::Health;
use crate::spool::search::Count;
use crate::spool::{Found, Glance, Query, SpoolError};
use crate::web::Shown;
use crate::web::reader::Reader;
use crate::web::shell::{self, Place, Tone};
use crate::web::words::{Text, now};

/// Mails on this page.
const LATEST: usize = 8;
/// Of those, problems that are mails.
const PROBLEMS: usize = 5;

/// One part of the gateway, and how it is.
#[derive(Debug)]
struct Part {
    name: String,
    tone: Tone,
    /// What is wrong, in the words of whoever says so; `None` while nothing is.
    problem: Option<String>,
    /// What it is doing while nothing is wrong.
    doing: String,
    hint: Option<Text>,
}

pub async fn page(State(shown): State<Arc<Shown>>, reader: Reader) -> Response {
    let now = SystemClock.now();
    let parts = parts(&shown, &reader);
    let asked = ask(&shown, now).await;
    let title = reader.say(now::TITLE);
    let content = match asked {
        // The page that must always come: what is known without the store is shown.
        Err(error) => {
            let mut parts = parts;
            if let Some(store) = parts.get_mut(1) {
                store.tone = Tone::Bad;
                store.problem = Some(error.to_string());
                store.hint = Some(now::HINT_STORE);
            }
            html! {
                h1 { (title) }
                (verdict(&reader, Tone::Bad))
                div #now data-live { (problems(&reader, &parts, 0, &[])) (states(&reader, &parts)) }
            }
        }
        Ok((glance, latest, degraded)) => {
            let dead = glance.dead_letters;
            let worst = parts
                .iter()
                .map(|part| part.tone)
                .max()
                .unwrap_or(Tone::Good);
            let worst = if dead > 0 || !degraded.is_empty() {
                worst.max(Tone::Warn)
            } else {
                worst
            };
            html! {
                h1 { (title) }
                (verdict(&reader, worst))
                div #now data-live {
                    (figures(&reader, &glance, now))
                    div.split {
                        (problems(&reader, &parts, dead, &degraded))
                        (states(&reader, &parts))
                    }
                    (charts(&reader, &glance))
                    div.head {
                        h2 { (reader.say(now::LATEST)) }
                        a href="/mails" { (reader.say(now::ALL_MAILS)) }
                    }
                    (rows::list(&reader, &latest))
                }
            }
        }
    };
    shell::page(&reader, Place::Now, title, &content)
}

/// The store's figures, the latest mails, and those of them that were not understood.
async fn ask(shown: &Shown, now: Time) -> Result<(Glance, Vec<Found>, Vec<Found>), SpoolError> {
    let glance = shown.spool.glance(now).await?;
    let latest = Query {
        limit: LATEST,
        ..Query::default()
    };
    let latest = shown.spool.search(latest).await?.mails;
    let degraded = latest
        .iter()
        .filter(|mail| mail.deliveries.iter().any(|delivery| delivery.is_degraded))
        .take(PROBLEMS)
        .cloned()
        .collect();
    Ok((glance, latest, degraded))
}

/// Door, store and rules first, then every transport, then whatever else has something to say.
fn parts(shown: &Shown, reader: &Reader) -> Vec<Part> {
    let mut entries = shown.health.entries();
    let mut part = |name: String, keys: &dyn Fn(&str) -> bool, doing: String, hint: Text| {
        let take = |list: &mut BTreeMap<String, String>| {
            let mine: Vec<String> = list.keys().filter(|key| keys(key)).cloned().collect();
            let texts: Vec<String> = mine.iter().filter_map(|key| list.remove(key)).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        };
        let (problem, warning) = (take(&mut entries.problems), take(&mut entries.warnings));
        let tone = match (&problem, &warning) {
            (Some(_), _) => Tone::Bad,
            (None, Some(_)) => Tone::Warn,
            (None, None) => Tone::Good,
        };
        let problem = problem.or(warning);
        let hint = problem.is_some().then_some(hint);
        Part {
            name,
            tone,
            problem,
            doing,
            hint,
        }
    };
    let door = &shown.door;
    let doing = reader.language.fill(
        now::DOOR_DOING,
        &[
            &door.connections_open.load(Ordering::Relaxed),
            &door.mails_accepted.load(Ordering::Relaxed),
        ],
    );
    let certificate = |key: &str| key.starts_with("certificate");
    let mut parts = vec![
        part(
            reader.say(now::DOOR).to_owned(),
            &certificate,
            doing,
            now::HINT_CERTIFICATE,
        ),
        part(
            reader.say(now::STORE).to_owned(),
            &|key| key.starts_with("spool"),
            reader.say(now::STORING).to_owned(),
            now::HINT_STORE,
        ),
        part(
            reader.say(now::RULES).to_owned(),
            &|key| key == "rules",
            shown
                .rulebook
                .current()
                .sources()
                .collect::<Vec<_>>()
                .join(", "),
            now::HINT_RULES,
        ),
    ];
    for (team, kind) in &shown.transports {
        let name = match kind {
            TransportKind::Webhook => now::WEBHOOK_OF,
            TransportKind::Relay => now::RELAY_OF,
        };
        let key = Health::transport(*kind, team);
        parts.push(part(
            reader.language.fill(name, &[team]),
            &|component| component == key,
            reader.say(now::SENDING).to_owned(),
            now::HINT_TRANSPORT,
        ));
    }
    let others = [
        (entries.problems, Tone::Bad),
        (entries.warnings, Tone::Warn),
    ];
    parts.extend(others.into_iter().flat_map(|(list, tone)| {
        list.into_iter().map(move |(name, problem)| Part {
            name,
            tone,
            problem: Some(problem),
            doing: String::new(),
            hint: None,
        })
    }));
    parts
}

fn verdict(reader: &Reader, tone: Tone) -> Markup {
    let words = match tone {
        Tone::Bad => now::BROKEN,
        Tone::Warn => now::LOOK,
        Tone::Good | Tone::Plain => now::ALL_WELL,
    };
    html! {
        // Screen readers say it when it changes, so the element around it has to stay.
        div #verdict role="status" data-live {
            div.verdict.(tone.class()) { (tone.shape()) p { (reader.say(words)) } }
        }
    }
}

fn states(reader: &Reader, parts: &[Part]) -> Markup {
    html! {
        section.card aria-labelledby="parts" {
            h2 #parts { (reader.say(now::PARTS)) }
            ul.parts {
                @for part in parts {
                    @let words = match part.tone {
                        Tone::Bad => now::FAILS,
                        Tone::Warn => now::WARNS,
                        Tone::Good | Tone::Plain => now::WORKS,
                    };
                    li {
                        span.name { (part.name) }
                        span { (shell::tone(part.tone, reader.say(words))) }
                        @if part.problem.is_none() { span.more { (part.doing) } }
                    }
                }
            }
        }
    }
}

fn problems(reader: &Reader, parts: &[Part], dead: Count, degraded: &[Found]) -> Markup {
    let troubled = || {
        parts
            .iter()
            .filter_map(|part| Some((part, part.problem.as_ref()?)))
    };
    html! {
        section.card aria-labelledby="problems" {
            h2 #problems { (reader.say(now::PROBLEMS)) }
            @if dead == 0 && degraded.is_empty() && troubled().next().is_none() {
                p.muted { (reader.say(now::NO_PROBLEMS)) }
            }
            ul.problems {
                @for (part, problem) in troubled() {
                    li {
                        @let (first, more) = problem.split_once('\n').unwrap_or((problem, ""));
                        strong { (part.name) } ": " (shell::english(first))
                        @if !more.is_empty() { pre lang="en" { (more) } }
                        @if let Some(hint) = part.hint { p.muted { (shell::prose(reader.say(hint))) } }
                    }
                }
                @if dead > 0 {
                    li {
                        strong { (reader.language.count(dead, now::DEAD_ONE)) }
                        p { a href="/dead-letters" { (reader.say(now::DEAD_DO)) } }
                    }
                }
                @for mail in degraded {
                    li {
                        strong { (reader.say(now::DEGRADED)) } " "
                        a href={ "/mails/" (mail.mail) } { (rows::title(reader, mail)) }
                        p.muted { (reader.say(now::HINT_DEGRADED)) }
                    }
                }
            }
        }
    }
}

fn figures(reader: &Reader, glance: &Glance, now: Time) -> Markup {
    let backlog = [
        glance.accepted,
        glance.behind,
        glance.waiting,
        glance.sending,
    ];
    let oldest = glance.overdue.values().min().map(|since| now.since(*since));
    let oldest = oldest.filter(|age| *age >= Duration::from_secs(1));
    let dead = glance.dead_letters;
    html! {
        dl.figures {
            div { dt { (reader.say(now::BACKLOG)) } dd { a href="/mails?stage=unfinished" { (figure(backlog.iter().sum())) } } }
            div {
                dt { (reader.say(now::OLDEST)) }
                dd { @if let Some(age) = oldest { (shell::age(reader, age)) } @else { (reader.say(now::NOBODY_WAITS)) } }
            }
            div { dt { (reader.say(now::OPEN)) } dd { a href="/tickets" { (figure(glance.open_tickets)) } } }
            div.bad[dead > 0] { dt { (reader.say(now::DEAD)) } dd { a href="/dead-letters" { (figure(dead)) } } }
        }
    }
}

fn figure(count: Count) -> String {
    if count >= COUNT_MAX {
        format!("{COUNT_MAX}+")
    } else {
        count.to_string()
    }
}

fn charts(reader: &Reader, glance: &Glance) -> Markup {
    let mails: Vec<u64> = glance.minutes.iter().map(|minute| minute.mails).collect();
    let alerts: Vec<u64> = glance.minutes.iter().map(|minute| minute.alerts).collect();
    html! {
        div.split {
            section.card { (shell::chart(reader, now::MAILS_PER_MINUTE, &mails)) }
            section.card { (shell::chart(reader, now::ALERTS_PER_MINUTE, &alerts)) }
        }
    }
}
