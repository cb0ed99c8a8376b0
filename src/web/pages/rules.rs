//! The rules playground: a rule file, a mail, and what the one makes of the other.
//!
//! Works by a form alone; the script asks with the same form while somebody types.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use super::given::{Form, Parameters, Path};
use super::mail::entries;
use super::marked::marked;
use crate::spool::{Found, Query};
use crate::web::access::percent_encoded;
use crate::web::api::rules::{Draft, Edited, RuleFile, Tried, in_force, put_in_force, tried};
use crate::web::api::status::sources;
use crate::web::problem::{Place as Wrong, Problem};
use crate::web::reader::Reader;
use crate::web::reading::Reading;
use crate::web::shell::{self, Place, Tone};
use crate::web::words::{self, Text, mail as mails, rules as says};
use crate::web::{Shown, assets};

/// The mails to pick from.
const MAILS: usize = 30;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    mail: String,
    /// The file has just been saved.
    saved: bool,
}

/// The form. Its buttons are `try`, `save` and `download`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bench {
    text: String,
    mail: String,
    raw: String,
    version: String,
    #[serde(rename = "do")]
    what: String,
}

pub async fn list(State(shown): State<Arc<Shown>>, reader: Reader) -> Response {
    let title = reader.say(says::TITLE);
    let content = html! {
        h1 { (title) }
        p.muted { (reader.say(says::WHAT)) }
        ul.rows {
            @for source in sources(&shown) {
                li {
                    a.title href={ "/rules/" (percent_encoded(&source.name)) } { (source.name) }
                    span.mono { (source.file) }
                    span.muted {
                        (reader.language.fill(says::HOLDS, &[&source.fields, &source.rules, &source.tests]))
                    }
                }
            }
        }
    };
    shell::page(&reader, Place::Rules, title, &content)
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    Path(source): Path,
    Parameters(asked): Parameters<Asked>,
    reader: Reader,
) -> Result<Response, Refusal> {
    let file = in_force(&shown, &source).map_err(|_| Refusal::NotFound(reader.clone()))?;
    let mails = recent(&shown, &reader).await?;
    let newest = || mails.first().map(|found| found.mail.to_string());
    let mail = Some(asked.mail).filter(|mail| !mail.is_empty());
    let bench = Bench {
        text: file.text.clone(),
        mail: mail.or_else(newest).unwrap_or_default(),
        version: file.version.clone(),
        ..Bench::default()
    };
    let note = asked.saved.then_some((Tone::Good, says::SAVED));
    let result = attempt(&shown, &source, &bench).await;
    Ok(show(&reader, &file, &bench, &mails, note, &result))
}

pub async fn submit(
    State(shown): State<Arc<Shown>>,
    Path(source): Path,
    reader: Reader,
    Form(mut bench): Form<Bench>,
) -> Result<Response, Refusal> {
    // Forms send CRLF.
    bench.text = bench.text.replace("\r\n", "\n");
    let file = in_force(&shown, &source).map_err(|_| Refusal::NotFound(reader.clone()))?;
    if bench.what == "download" {
        let name = file.file.rsplit(['/', '\\']).next().unwrap_or("rules.toml");
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_graphic() && *c != '"')
            .collect();
        let headers = [
            (header::CONTENT_TYPE, "application/toml".to_owned()),
            (
                header::CONTENT_DISPOSITION,
                format!("attachment; filename=\"{name}\""),
            ),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ];
        return Ok((headers, bench.text).into_response());
    }
    let mut note = None;
    let mut problem = None;
    if bench.what == "save" {
        let edited = Edited {
            text: bench.text.clone(),
            version: Some(bench.version.clone()),
        };
        match put_in_force(&shown, &source, edited).await {
            Ok(_) => {
                let (source, mail) = (percent_encoded(&source), percent_encoded(&bench.mail));
                let to = format!("/rules/{source}?saved=true&mail={mail}");
                return Ok(Redirect::to(&to).into_response());
            }
            Err(refused) => {
                note = Some((Tone::Bad, says::NOT_SAVED));
                problem = Some(refused);
            }
        }
    }
    let mails = recent(&shown, &reader).await?;
    let result = match problem {
        // What is wrong with the file is found once more by trying it.
        Some(problem) if problem.diagnostics.is_empty() => Err(problem),
        _ => attempt(&shown, &source, &bench).await,
    };
    Ok(show(&reader, &file, &bench, &mails, note, &result))
}

async fn recent(shown: &Shown, reader: &Reader) -> Result<Vec<Found>, Refusal> {
    let query = Query {
        limit: MAILS,
        ..Query::default()
    };
    let page = shown.spool.search(query).await;
    let page = page.map_err(|error| Refusal::Spool(reader.clone(), error))?;
    Ok(page.mails)
}

async fn attempt(shown: &Shown, source: &str, bench: &Bench) -> Result<Tried, Problem> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.trim().is_empty());
    let raw = given(&bench.raw);
    let draft = Draft {
        text: Some(bench.text.clone()),
        mail: given(&bench.mail).filter(|_| raw.is_none()),
        raw,
        ..Draft::default()
    };
    tried(shown, source, draft).await
}

fn show(
    reader: &Reader,
    file: &RuleFile,
    bench: &Bench,
    mails: &[Found],
    note: Option<(Tone, Text)>,
    result: &Result<Tried, Problem>,
) -> Response {
    let title = reader.language.fill(says::OF, &[&file.name]);
    let content = html! {
        div.head {
            h1 { (title) }
            p.mono.muted { (file.file) }
        }
        @if let Some((tone, text)) = note { p.card role="status" { (shell::tone(tone, reader.say(text))) } }
        form.playground method="post" action={ "/rules/" (percent_encoded(&file.name)) } data-playground {
            div.editor {
                (pick(reader, bench, mails))
                label for="text" { (reader.say(says::FILE)) }
                textarea.code #text name="text" rows="30" wrap="off" spellcheck="false"
                    autocapitalize="off" autocomplete="off" { "\n" (bench.text) }
                input type="hidden" name="version" value=(bench.version);
                div.actions {
                    button.primary name="do" value="try" { (reader.say(says::TRY)) }
                    button name="do" value="download" { (reader.say(says::DOWNLOAD)) }
                    @if file.editable {
                        button name="do" value="save" { (reader.say(says::SAVE)) }
                    }
                }
                @if !file.editable { p.muted { (reader.say(says::NO_SAVING)) } }
            }
            div.result #result aria-live="polite" { (outcome(reader, bench, result)) }
        }
        script src=(assets::PLAYGROUND.url) defer {}
    };
    shell::page(reader, Place::Rules, &title, &content)
}

fn pick(reader: &Reader, bench: &Bench, mails: &[Found]) -> Markup {
    let is_listed = |found: &Found| found.mail.to_string() == bench.mail;
    let is_other = !bench.mail.is_empty() && !mails.iter().any(is_listed);
    html! {
        label for="mail" { (reader.say(says::MAIL)) }
        select #mail name="mail" {
            option value="" selected[bench.mail.is_empty()] { (reader.say(says::NO_MAIL)) }
            @if is_other { option value=(bench.mail) selected { (bench.mail) } }
            @for found in mails {
                option value=(found.mail) selected[is_listed(found)] { (named(reader, found)) }
            }
        }
        details open[!bench.raw.is_empty()] {
            summary { (reader.say(says::PASTE)) }
            label for="raw" { (reader.say(says::RAW)) }
            textarea.code #raw name="raw" rows="8" spellcheck="false" { "\n" (bench.raw) }
        }
    }
}

fn named(reader: &Reader, found: &Found) -> String {
    let subject = found
        .subject
        .as_deref()
        .filter(|subject| !subject.is_empty());
    let subject = subject.unwrap_or(reader.say(words::mails::NO_SUBJECT));
    let source = found
        .deliveries
        .iter()
        .find_map(|one| one.summary.source.as_deref());
    match source {
        Some(source) => format!("{source}: {subject}"),
        None => subject.to_owned(),
    }
}

fn outcome(reader: &Reader, bench: &Bench, result: &Result<Tried, Problem>) -> Markup {
    match result {
        Err(problem) => html! {
            section.card {
                p { (shell::tone(Tone::Bad, reader.say(says::FAILED))) }
                p { (shell::english(&problem.detail)) }
            }
        },
        Ok(tried) => html! {
            (wrong(reader, &bench.text, &tried.diagnostics))
            @match &tried.reading {
                Some(read) => (reading(reader, read)),
                None if tried.diagnostics.is_empty() => p.card { (reader.say(says::PICK)) },
                None => {},
            }
        },
    }
}

/// Each problem under the line that it belongs to.
fn wrong(reader: &Reader, text: &str, problems: &[Wrong]) -> Markup {
    if problems.is_empty() {
        return html! { p.card { (shell::tone(Tone::Good, reader.say(says::NO_PROBLEM))) } };
    }
    html! {
        section.card aria-labelledby="problems" {
            h2 #problems { (shell::tone(Tone::Bad, reader.say(says::PROBLEMS))) }
            ol.problems {
                @for problem in problems {
                    li {
                        a href="#text" data-line=(problem.line) {
                            (reader.language.fill(says::LINE, &[&problem.line, &problem.column]))
                        }
                        pre.excerpt tabindex="0" aria-label=(reader.say(says::EXCERPT)) { (excerpt(text, problem)) }
                        p lang="en" {
                            @if !problem.key.is_empty() { code { (problem.key) } ": " }
                            (problem.message)
                        }
                        @if let Some(hint) = &problem.hint { p.muted lang="en" { (hint) } }
                    }
                }
            }
        }
    }
}

/// The line, with a mark under the place.
fn excerpt(text: &str, problem: &Wrong) -> String {
    let line = text
        .lines()
        .nth(problem.line.saturating_sub(1))
        .unwrap_or_default();
    let number = problem.line.to_string();
    let before: String = line
        .chars()
        .take(problem.column.saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let margin = " ".repeat(number.len());
    format!("{number} | {line}\n{margin} | {before}^")
}

fn reading(reader: &Reader, read: &Reading) -> Markup {
    html! {
        @for decision in &read.decisions { (decided(reader, decision)) }
        section.card aria-labelledby="read" {
            h2 #read { (reader.say(mails::TEXT)) }
            p { strong { (marked(&read.subject, "subject", &read.spans)) } }
            pre.mail-text.scroll tabindex="0" { (marked(&read.text, "text", &read.spans)) }
            @if !read.set_apart.is_empty() {
                details {
                    summary { (reader.say(mails::SET_APART)) }
                    pre.muted { (read.set_apart) }
                }
            }
        }
        section.card aria-labelledby="trace" {
            h2 #trace { (reader.say(mails::TRACE)) }
            details {
                summary { (reader.say(says::STEPS)) }
                pre.scroll tabindex="0" lang="en" { (read.trace) }
            }
        }
    }
}

fn decided(reader: &Reader, decision: &Value) -> Markup {
    let text = |key: &str| decision.get(key).and_then(Value::as_str);
    let event = text("event").unwrap_or_default();
    let is_degraded = decision.get("degraded") == Some(&Value::Bool(true));
    let tone = if is_degraded { Tone::Warn } else { Tone::Good };
    let fields = decision.get("fields").and_then(Value::as_object);
    html! {
        section.card {
            h2 {
                (shell::tone(tone, reader.say(words::event(event))))
                @if let Some(id) = text("external_id") { " " span.mono { (id) } }
            }
            p.muted { (shell::english(text("reason").unwrap_or_default())) }
            h3 { (reader.say(mails::ALERT)) }
            @match decision.get("alert").and_then(Value::as_object) {
                Some(alert) => (entries(alert)),
                None => p.muted { (reader.say(mails::NO_ALERT)) },
            }
            h3 { (reader.say(mails::FIELDS)) }
            @match fields.filter(|fields| !fields.is_empty()) {
                Some(fields) => (entries(fields)),
                None => p.muted { (reader.say(mails::NO_FIELDS)) },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_the_place() {
        let problem = Wrong {
            file: "x.toml".to_owned(),
            line: 2,
            column: 5,
            key: String::new(),
            message: String::new(),
            hint: None,
        };
        assert_eq!(
            excerpt("a\n\tü = '('\n", &problem),
            "2 | \tü = '('\n  | \t   ^"
        );
        assert_eq!(excerpt("", &problem), "2 | \n  | ^");
    }
}
