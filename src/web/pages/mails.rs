//! Every mail, newest first: search, filter, pages with addresses that can be shared.

use std::sync::Arc;

use axum::extract::{Query as Parameters, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{Refusal, rows};
use crate::alert::Event;
use crate::spool::{Ending, Filter, MailId, Page, Query, StageFilter};
use crate::web::Shown;
use crate::web::reader::Reader;
use crate::web::shell::{self, Place};
use crate::web::words::{self, Text, mails};

/// Mails on a page.
const PAGE: usize = 50;

/// The form as it was sent; empty means any.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Asked {
    #[serde(skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    team: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    event: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    before: String,
}

impl Asked {
    fn query(&self) -> Query {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Query {
            filter: Filter {
                stage: StageFilter::parse(&self.outcome).ok(),
                team: given(&self.team),
                source: given(&self.source),
                external_id: None,
                before: self.before.parse::<MailId>().ok(),
            },
            event: given(&self.event),
            text: given(&self.q),
            limit: PAGE,
        }
    }

    fn is_filtered(&self) -> bool {
        let all = [
            &self.q,
            &self.source,
            &self.team,
            &self.outcome,
            &self.event,
        ];
        all.iter().any(|text| !text.trim().is_empty())
    }

    /// The address of a page of this search.
    fn address(&self, before: Option<MailId>) -> String {
        let asked = Asked {
            before: before.map(|mail| mail.to_string()).unwrap_or_default(),
            ..self.clone()
        };
        match serde_urlencoded::to_string(&asked) {
            Ok(query) if !query.is_empty() => format!("/mails?{query}"),
            _ => "/mails".to_owned(),
        }
    }
}

pub async fn page(
    State(shown): State<Arc<Shown>>,
    reader: Reader,
    Parameters(asked): Parameters<Asked>,
) -> Result<Response, Refusal> {
    let found = shown
        .spool
        .search(asked.query())
        .await
        .map_err(|error| Refusal::Spool(reader.clone(), error))?;
    let content = html! {
        h1 { (reader.say(mails::TITLE)) }
        (form(&shown, &reader, &asked))
        // An older page does not change under the reader.
        div #mails data-live[asked.before.is_empty()] { (results(&reader, &asked, &found)) }
    };
    let title = reader.say(mails::TITLE);
    Ok(shell::page(&reader, Place::Mails, title, &content))
}

fn results(reader: &Reader, asked: &Asked, found: &Page) -> Markup {
    html! {
        @if found.mails.is_empty() {
            div.card { p {
                @if asked.is_filtered() { (reader.say(mails::NONE)) } @else { (reader.say(mails::NONE_YET)) }
            } }
        } @else {
            (rows::list(reader, &found.mails))
        }
        @if found.is_cut_off { p.muted { (reader.say(mails::CUT)) } }
        div.pages {
            @if !asked.before.is_empty() { a.button href=(asked.address(None)) { (reader.say(mails::NEWEST)) } }
            @if let Some(next) = found.next {
                a.button rel="next" href=(asked.address(Some(next))) { (reader.say(mails::OLDER)) }
            }
        }
    }
}

fn form(shown: &Shown, reader: &Reader, asked: &Asked) -> Markup {
    let rules = shown.rulebook.current();
    let sources = rules
        .sources()
        .map(|name| (name.to_owned(), name.to_owned()));
    let teams = shown
        .teams
        .iter()
        .map(|team| (team.name.clone(), team.name.clone()));
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
                label for="q" { (reader.say(mails::WORDS)) }
                input #q type="search" name="q" value=(asked.q) autocomplete="off" maxlength="200";
            }
            (choice(reader, "source", mails::SOURCE, &asked.source, sources))
            (choice(reader, "team", mails::TEAM, &asked.team, teams))
            (choice(reader, "event", mails::EVENT, &asked.event, events))
            (choice(reader, "outcome", mails::OUTCOME, &asked.outcome, stages))
            button.primary { (reader.say(mails::SEARCH)) }
            @if asked.is_filtered() { a href="/mails" { (reader.say(mails::CLEAR)) } }
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
    chosen: &str,
    options: impl IntoIterator<Item = (String, String)>,
) -> Markup {
    html! {
        div {
            label for=(name) { (reader.say(label)) }
            select id=(name) name=(name) {
                option value="" { (reader.say(mails::ANY)) }
                @for (value, shown) in options {
                    option value=(value) selected[value == chosen] { (shown) }
                }
            }
        }
    }
}
