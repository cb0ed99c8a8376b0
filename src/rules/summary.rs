//! What a person reads on the phone where a mail brings no words of its own.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::mail::Mail;
use super::values::Values;
use crate::message::label;

/// The fields that say how bad it is and whose it is.
const TELLING: [&str; 3] = ["priority", "queue", "state"];

/// Nothing but links, as the buttons of a template read: `View ticket <https://…> | Close <https://…>`.
static BUTTONS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:[^<>\n]{0,40}<https?://[^\s<>]+>[\s|.·•-]*)+$").expect("a literal pattern")
});

/// The words of a button whose link was lost.
static BUTTON_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^\W* (?: (?: open | view | show | see | go \s to | click \s here (?: \s to \s (?: open | view | see ) )? )
              (?: \s (?: the | this | your ) )? (?: \s (?: full | ticket | incident ) )? \s (?: ticket | incident | request | change | case | details | portal )
            | (?: zum | zur ) \s (?: ticket | vorgang | meldung | anfrage | störung )
            | (?: ihre? \s )? (?: ticket | vorgang | meldung | anfrage | störung ) \s (?: öffnen | anzeigen | ansehen )
            | (?: naar | open | bekijk ) \s (?: (?: de | het | uw | deze | dit ) \s )? (?: ticket | melding | aanvraag | verzoek )
            | (?: de | het | uw )? \s? (?: ticket | melding | aanvraag ) \s (?: openen | bekijken ) )
          \b [^.:]{0,25} $",
    )
    .expect("a literal pattern")
});

/// `2 high · Service Desk::Monitoring · new`; where the mail has no such field, its first
/// sentence; else its title.
pub fn of(mail: &Mail<'_>, values: &Values) -> String {
    let telling: Vec<_> = TELLING
        .iter()
        .filter_map(|name| values.line(name))
        .collect();
    if !telling.is_empty() {
        return telling.join(" · ");
    }
    let said = mail.text.lines().find(|line| is_sentence(line));
    match said {
        Some(line) => line.trim().to_owned(),
        None => values
            .line("title")
            .map_or_else(|| mail.text.to_owned(), Cow::into_owned),
    }
}

/// The text without what stands elsewhere on the screen: buttons at its end, fields that have
/// tiles, the link.
pub fn without_repeats<'t>(text: &'t str, values: &Values) -> &'t str {
    let url = values.raw("url");
    let tiled = |value: &str| {
        values
            .names()
            .filter(|name| *name != "description")
            .any(|name| values.line(name).as_deref() == Some(value))
    };
    let mut rest = text.trim();
    while let Some((above, last)) = rest.rsplit_once('\n') {
        let repeats = label(last).is_some_and(|(_, value)| tiled(value));
        let shows_url =
            url.is_some_and(|url| last.contains(url) && (label(last).is_some() || last == url));
        if !repeats && !shows_url && !BUTTONS.is_match(last) && !BUTTON_WORDS.is_match(last) {
            break;
        }
        rest = above.trim_end();
    }
    rest
}

/// Words that are no field, no heading, no greeting and no button.
fn is_sentence(line: &str) -> bool {
    let words = line.split_whitespace().count();
    words >= 3
        && label(line).is_none()
        && !line.trim_end().ends_with([',', ':'])
        && !BUTTONS.is_match(line)
        && !BUTTON_WORDS.is_match(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_go() {
        let mut values = Values::default();
        values.set("url", "https://desk.example/ticket/1".to_owned());
        values.set("queue", "Network".to_owned());
        let cases = [
            (
                "It fails.\n\nOpen ticket <https://desk.example/ticket/1>",
                "It fails.",
            ),
            (
                "It fails.\nTicket URL: https://desk.example/ticket/1",
                "It fails.",
            ),
            ("It fails.\nView ticket", "It fails."),
            ("It fails.\nBekijk uw melding", "It fails."),
            (
                "It fails.\n\nTeam: Network\nLink",
                "It fails.\n\nTeam: Network\nLink",
            ),
            ("It fails.\n\nTeam: Network", "It fails."),
            ("It fails.\nHost: db1", "It fails.\nHost: db1"),
            (
                "It fails.\nSee https://wiki.example/page and call.",
                "It fails.\nSee https://wiki.example/page and call.",
            ),
            (
                "https://desk.example/ticket/1",
                "https://desk.example/ticket/1",
            ),
            ("", ""),
        ];
        for (text, want) in cases {
            assert_eq!(without_repeats(text, &values), want, "{text:?}");
        }
    }
}
