//! What all pages share: the frame around them, and the pieces they are made of.
//!
//! Owns how things look as markup. Must not ask the spool anything.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::clock::Time;
use crate::web::assets::{ICON, LIVE, STYLE};
use crate::web::entries;
use crate::web::reader::Reader;
use crate::web::words::{self, Language, Text, shell};

/// Nothing but what this server sends itself, and nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The places that every page links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Now,
    Mails,
    Tickets,
    DeadLetters,
    Rules,
    /// None of them.
    Elsewhere,
}

impl Place {
    const ALL: [Place; 5] = [
        Place::Now,
        Place::Mails,
        Place::Tickets,
        Place::DeadLetters,
        Place::Rules,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Place::Now | Place::Elsewhere => "/",
            Place::Mails => "/mails",
            Place::Tickets => "/tickets",
            Place::DeadLetters => "/dead-letters",
            Place::Rules => "/rules",
        }
    }

    fn name(self) -> Text {
        match self {
            Place::Now | Place::Elsewhere => shell::NOW,
            Place::Mails => shell::MAILS,
            Place::Tickets => shell::TICKETS,
            Place::DeadLetters => shell::DEAD_LETTERS,
            Place::Rules => words::rules::TITLE,
        }
    }
}

/// A whole page, with the headers that each has.
pub fn page(reader: &Reader, place: Place, title: &str, content: &Markup) -> Response {
    respond(StatusCode::OK, frame(reader, Some(place), title, content))
}

/// A page for those who may not see any other yet.
pub fn bare(reader: &Reader, status: StatusCode, title: &str, content: &Markup) -> Response {
    respond(status, frame(reader, None, title, content))
}

/// A page that says why there is none.
pub fn refusal(reader: &Reader, status: StatusCode, title: &str, why: &Markup) -> Response {
    let content = html! {
        div.card {
            h1 { (title) }
            p { (why) }
            p { a.button href="/" { (reader.say(shell::TO_NOW)) } }
        }
    };
    respond(
        status,
        frame(reader, Some(Place::Elsewhere), title, &content),
    )
}

fn respond(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, markup).into_response();
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not `no-referrer`: browsers would then send `Origin: null` with forms, which could not be
    // told from another site's.
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CACHE_CONTROL, "no-store");
    set(header::VARY, "accept-language, cookie");
    response
}

fn frame(reader: &Reader, place: Option<Place>, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(reader.language.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · mailbell" }
                link rel="icon" type="image/svg+xml" href=(ICON.url);
                link rel="stylesheet" href=(STYLE.url);
                script src=(LIVE.url) defer {}
            }
            body {
                a.skip href="#content" { (reader.say(shell::SKIP)) }
                header.top {
                    div {
                        a.brand href="/" { (BELL) "mailbell" }
                        @if let Some(place) = place {
                        nav aria-label=(reader.say(shell::PAGES)) {
                            ul {
                                @for one in Place::ALL {
                                    li {
                                        a href=(one.path()) aria-current=[(one == place).then_some("page")] {
                                            (reader.say(one.name()))
                                        }
                                    }
                                }
                            }
                        }
                        }
                    }
                }
                p.lost role="status" { span { (reader.say(shell::LOST)) } }
                main id="content" tabindex="-1" { (content) }
                footer.bottom {
                    div {
                        p { (reader.say(shell::TIMES)) }
                        @if reader.has_session {
                            form method="post" action="/logout" { button.plain { (reader.say(words::login::OUT)) } }
                        }
                        form method="post" action="/language" aria-label=(reader.say(shell::LANGUAGE)) {
                            input type="hidden" name="back" value=(reader.here);
                            @for language in Language::ALL {
                                button.plain name="language" value=(language.code()) lang=(language.code())
                                    aria-pressed=(language == reader.language) { (language.name()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

// --- pieces

/// How something is, in colour and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Tone::Plain => "plain-tone",
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }

    /// Of a stage or outcome.
    pub fn of_stage(stage: &str) -> Tone {
        match stage {
            "alerted" | "acknowledged" | "resolved" | "relayed" => Tone::Good,
            "dead-letter" => Tone::Bad,
            "suppressed" => Tone::Plain,
            _ => Tone::Warn,
        }
    }

    /// The shape that goes with the colour; it says nothing that words beside it do not.
    pub fn shape(self) -> PreEscaped<&'static str> {
        PreEscaped(match self {
            Tone::Plain => {
                r#"<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="2.4"/></svg>"#
            }
            Tone::Good => {
                r#"<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 8.5 6.3 13 14 4" fill="none" stroke="currentColor" stroke-width="2.8" stroke-linecap="round" stroke-linejoin="round"/></svg>"#
            }
            Tone::Warn => {
                r#"<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M8 1.2 15.4 14.6H.6Z" fill="currentColor"/></svg>"#
            }
            Tone::Bad => {
                r#"<svg viewBox="0 0 16 16" aria-hidden="true"><path d="m3 3 10 10M13 3 3 13" fill="none" stroke="currentColor" stroke-width="2.8" stroke-linecap="round"/></svg>"#
            }
        })
    }
}

const BELL: PreEscaped<&str> = PreEscaped(
    r#"<svg viewBox="0 0 24 24" aria-hidden="true" fill="currentColor"><path d="M12 2.5a6.5 6.5 0 0 0-6.5 6.5v5L3.4 17.6c-.4.7 0 1.4.8 1.4h15.6c.8 0 1.2-.7.8-1.4L18.5 14V9A6.5 6.5 0 0 0 12 2.5Z"/><path d="M9 20.3a3 3 0 0 0 6 0Z"/></svg>"#,
);

pub fn tone(tone: Tone, words: &str) -> Markup {
    html! { span.tone.(tone.class()) { (tone.shape()) (words) } }
}

/// A stage or outcome, by its word in the spool.
pub fn stage(reader: &Reader, word: &str) -> Markup {
    tone(Tone::of_stage(word), reader.say(words::stage(word)))
}

/// Words of rules, transports and stores, which are English.
pub fn english(text: &str) -> Markup {
    html! { span lang="en" { (text) } }
}

/// A text of ours with `commands` in it.
pub fn prose(text: &str) -> Markup {
    html! {
        @for (at, piece) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (piece) } } @else { (piece) }
        }
    }
}

/// In UTC; the script shows it in the reader's zone.
pub fn time(at: Time) -> Markup {
    let shown = Timestamp::from_millisecond(at.ms()).map_or_else(
        |_| at.ms().to_string(),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    html! { time datetime=(entries::time(at)) { (shown) } }
}

/// `3 min`: the largest unit that fits, which is as exact as anybody wants to know.
pub fn age(reader: &Reader, age: Duration) -> String {
    let seconds = age.as_secs();
    let (n, unit) = match seconds {
        0..60 => (seconds, Text("s", "s")),
        60..3600 => (seconds / 60, Text("min", "min")),
        3600..172_800 => (seconds / 3600, Text("h", "Std.")),
        _ => (seconds / 86_400, Text("days", "Tage")),
    };
    format!("{n} {}", reader.say(unit))
}

/// Milliseconds below a second, else seconds with one digit.
pub fn took(took: Duration) -> String {
    if took.as_secs() == 0 {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

/// Sixty bars, oldest first, with what they say in words.
pub fn chart(reader: &Reader, title: Text, minutes: &[u64]) -> Markup {
    let most = minutes.iter().copied().max().unwrap_or(0);
    let total: u64 = minutes.iter().sum();
    let words = reader.language.fill(words::now::CHART, &[&total, &most]);
    let bars = minutes.iter().enumerate().filter(|(_, count)| **count > 0);
    html! {
        h3 { (reader.say(title)) }
        svg.chart viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (minute, count) in bars {
                @let height = (count * 96 / most.max(1)).max(3);
                rect x=(minute * 10 + 1) width="8" y=(100 - height) height=(height) {}
            }
        }
        div.axis {
            span { (reader.say(words::now::AGO_60)) }
            span { (reader.say(words::now::AGO_0)) }
        }
        p.axis { (words) }
    }
}
