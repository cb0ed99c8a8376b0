//! Every mail, newest first: search, filter, pages with addresses that can be shared.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::{Refusal, rows};
use crate::alert::Event;
use crate::spool::{Ending, MailId, Page};
use crate::web::Shown;
use crate::web::api::mails::Asked;
use crate::web::problem::{Params, Problem};
use crate::web::reader::Reader;
use crate::web::shell::{self, Place};
use crate::web::words::{self, Text, mails};

/// The address of a page of this search.
fn address(asked: &Asked, before: Option<MailId>) -> String {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let asked = Asked {
        text: given(&asked.text),
        team: given(&asked.team),
        source: given(&asked.source),
        stage: given(&asked.stage),
        event: given(&asked.event),
        external_id: given(&asked.external_id),
        before: before.map(|mail| mail.to_string()),
        limit: asked.limit,
    };
    match serde_urlencoded::to_string(&asked) {
        Ok(query) if !query.is_empty() => format!("/mails?{query}"),
        _ => "/mails".to_owned(),
    }
}

fn is_filtered(asked: &Asked) -> bool {
    address(asked, None) != "/mails"
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    reader: Reader,
    asked: Result<Params<Asked>, Problem>,
) -> Result<Response, Refusal> {
    let refuse = |problem| Refusal::Problem(reader.clone(), problem);
    let Params(asked) = asked.map_err(refuse)?;
    // Forms send empty fields, too; addresses that people share are without.
    let short = address(&asked, asked.before.as_ref().and_then(|id| id.parse().ok()));
    if short.len() < reader.here.len() {
        return Ok(Redirect::to(&short).into_response());
    }
    let query = asked.query().map_err(refuse)?;
    let found = shown.spool.search(query).await;
    let found = found.map_err(|error| Refusal::Spool(reader.clone(), error))?;
    let content = html! {
        h1 { (reader.say(mails::TITLE)) }
        (form(&shown, &reader, &asked))
        // An older page does not change under the reader.
        div #mails data-live[asked.before.is_none()] { (results(&reader, &asked, &found)) }
    };
    let title = reader.say(mails::TITLE);
    Ok(shell::page(&reader, Place::Mails, title, &content))
}

fn results(reader: &Reader, asked: &Asked, found: &Page) -> Markup {
    html! {
        @if found.mails.is_empty() && is_filtered(asked) {
            div.card { p { (reader.say(mails::NONE)) } }
        } @else {
            (rows::list(reader, &found.mails))
        }
        @if found.is_cut_off { p.muted { (reader.say(mails::CUT)) } }
        div.pages {
            @if asked.before.is_some() { a.button href=(address(asked, None)) { (reader.say(mails::NEWEST)) } }
            @if let Some(next) = found.next {
                a.button rel="next" href=(address(asked, Some(next))) { (reader.say(mails::OLDER)) }
            }
        }
    }
}

fn form(shown: &Shown, reader: &Reader, asked: &Asked) -> Markup {
    let rules = shown.rulebook.current();
    let sources = rules
        .sources()
        .map(|name| (name.to_owned(), name.to_owned()));
    let mut teams: Vec<_> = shown
        .transports
        .iter()
        .map(|(team, _)| (team.clone(), team.clone()))
        .collect();
    teams.dedup();
    let stages = [(
        "unfinished".to_owned(),
        reader.say(mails::UNFINISHED).to_owned(),
    )]
    .into_iter()
    .chain(Ending::ALL.map(|ending| named(reader, ending.as_str(), words::stage)));
    let events = Event::ALL.map(|event| named(reader, event.as_str(), words::event));
    html! {
        form.card.filter method="get" action="/mails" role="search" {
            div {
                label for="text" { (reader.say(mails::WORDS)) }
                input #text type="search" name="text" value=[&asked.text] autocomplete="off" maxlength="200";
            }
            (choice(reader, "source", mails::SOURCE, asked.source.as_deref(), sources))
            (choice(reader, "team", mails::TEAM, asked.team.as_deref(), teams))
            (choice(reader, "event", mails::EVENT, asked.event.as_deref(), events))
            (choice(reader, "stage", mails::OUTCOME, asked.stage.as_deref(), stages))
            button.primary { (reader.say(mails::SEARCH)) }
            @if is_filtered(asked) { a href="/mails" { (reader.say(mails::CLEAR)) } }
        }
    }
}

fn named(reader: &Reader, word: &str, text: fn(&str) -> Text) -> (String, String) {
    (word.to_owned(), reader.say(text(word)).to_owned())
}

fn choice(
    reader: &Reader,
    name: &str,
    label: Text,
    chosen: Option<&str>,
    options: impl IntoIterator<Item = (String, String)>,
) -> Markup {
    html! {
        div {
            label for=(name) { (reader.say(label)) }
            select id=(name) name=(name) {
                option value="" { (reader.say(mails::ANY)) }
                @for (value, shown) in options {
                    option value=(value) selected[chosen == Some(value.as_str())] { (shown) }
                }
            }
        }
    }
}
