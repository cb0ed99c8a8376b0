//! Which parts of a mail are its text, and which are its attachments.

use std::collections::HashSet;

use memchr::memmem;

use super::charset;
use super::html;
use super::lines::{Line, label, truncate};
use super::mime::{Content, Entity};
use super::text::{self, Wrapping};
use crate::limits::{ATTACHMENTS_MAX, BODY_BYTES_MAX};

/// The text of a mail, and the HTML code it was rendered from, if it was.
#[derive(Debug, Default)]
pub struct Body {
    pub lines: Vec<Line>,
    pub html: Option<String>,
}

/// Reads the text of `entity`; forwarded mails and attachments are not part of it.
pub fn read(entity: &Entity, problems: &mut Vec<String>) -> Body {
    let body = read_part(entity, true, problems);
    if !body.lines.is_empty() {
        return body;
    }
    // Some senders give even the text itself a file name.
    entity
        .walk()
        .into_iter()
        .find(|part| matches!(part.content, Content::Leaf(_)) && part.is_body_text())
        .map(|part| leaf(part, problems))
        .unwrap_or(body)
}

fn read_part(entity: &Entity, outermost: bool, problems: &mut Vec<String>) -> Body {
    let parts = match &entity.content {
        Content::Message(_) => return Body::default(),
        Content::Leaf(_) if !entity.is_body_text() => return Body::default(),
        Content::Leaf(_) if !outermost && entity.file_name().is_some() => return Body::default(),
        Content::Leaf(_) => return leaf(entity, problems),
        Content::Parts(parts) => parts,
    };
    let mut bodies = parts.iter().map(|part| read_part(part, false, problems));
    match entity.kind.as_str() {
        "multipart/alternative" => bodies.fold(Body::default(), better),
        // RFC 2387, RFC 1847 and RFC 3462: the first part is the one to be shown.
        "multipart/related" | "multipart/signed" | "multipart/report" => bodies
            .find(|body| !body.lines.is_empty())
            .unwrap_or_default(),
        _ => bodies.fold(Body::default(), |mut whole, next| {
            if !whole.lines.is_empty() && !next.lines.is_empty() {
                whole.lines.push(Line::default());
            }
            whole.lines.extend(next.lines);
            whole.html = whole.html.or(next.html);
            whole
        }),
    }
}

fn leaf(entity: &Entity, problems: &mut Vec<String>) -> Body {
    let Content::Leaf(bytes) = &entity.content else {
        return Body::default();
    };
    if bytes.len() > BODY_BYTES_MAX {
        problems.push("a very long text is read only in its beginning".into());
    }
    let bytes = bytes.get(..BODY_BYTES_MAX).unwrap_or(bytes);
    let label = entity.content_type.get("charset").map(str::to_owned);
    let label = label.or_else(|| meta_charset(bytes).filter(|_| entity.kind.contains("html")));
    let label = label.as_deref();
    let decoded = charset::decode(bytes, label);
    if decoded.guessed {
        problems.push(match label {
            Some(label) => format!(
                "the text is not in the charset it names, `{}`",
                truncate(label.to_owned(), 40)
            ),
            None => "8-bit text without a charset".to_owned(),
        });
    }
    let text = decoded.text;
    if is_html(entity, &text) {
        return Body {
            lines: html::render(&text),
            html: Some(text),
        };
    }
    let wrapping = Wrapping {
        flowed: entity
            .content_type
            .get("format")
            .is_some_and(|value| value.eq_ignore_ascii_case("flowed")),
        delete_space: entity
            .content_type
            .get("delsp")
            .is_some_and(|value| value.eq_ignore_ascii_case("yes")),
    };
    Body {
        lines: text::render(&text, wrapping),
        html: None,
    }
}

/// What the page says of itself, when its part says nothing.
fn meta_charset(bytes: &[u8]) -> Option<String> {
    let beginning = bytes.get(..1024).unwrap_or(bytes).to_ascii_lowercase();
    let at = memchr::memmem::find(&beginning, b"charset=")?;
    let label: String = beginning
        .iter()
        .skip(at + 8)
        .map(|&byte| byte as char)
        .skip_while(|c| matches!(c, '"' | '\'' | ' '))
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.'))
        .collect();
    (!label.is_empty()).then_some(label)
}

/// Programs mix the two up: HTML without a tag is plain text, and text may be a whole page.
fn is_html(entity: &Entity, text: &str) -> bool {
    if entity.kind.contains("html") {
        let mut after = text.split('<').skip(1);
        return after.any(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!' || c == '/')
        });
    }
    let beginning: String = text.trim_start().chars().take(14).collect();
    let beginning = beginning.to_ascii_lowercase();
    beginning.starts_with("<html") || beginning.starts_with("<!doctype html")
}

/// The richer of two renderings of one text. HTML usually is: its values are not wrapped. But
/// some senders write only a picture or a stub into it, and some lay it out beyond reading.
fn better(kept: Body, next: Body) -> Body {
    let (html, plain) = match (kept.html.is_some(), next.html.is_some()) {
        (false, true) => (next, kept),
        (true, false) => (kept, next),
        _ if weigh(&next.lines).0 > weigh(&kept.lines).0 => return next,
        _ => return kept,
    };
    let (html_letters, html_labels) = weigh(&html.lines);
    let (plain_letters, plain_labels) = weigh(&plain.lines);
    let poorer =
        html_letters * 2 < plain_letters || plain_labels >= 2 && html_labels * 2 < plain_labels;
    if poorer {
        Body {
            html: html.html,
            ..plain
        }
    } else {
        html
    }
}

/// Letters and digits outside of links, and labelled lines.
fn weigh(lines: &[Line]) -> (usize, usize) {
    let mut letters = 0;
    let mut labels = 0;
    let links = memmem::Finder::new("://");
    for line in lines {
        letters += match links.find(line.text.as_bytes()).is_some() {
            true => line
                .text
                .split(' ')
                .filter(|word| !word.contains("://"))
                .map(letters_in)
                .sum(),
            false => letters_in(&line.text),
        };
        labels += usize::from(matches!(label(&line.text), Some((_, value)) if !value.is_empty()));
    }
    (letters, labels)
}

fn letters_in(text: &str) -> usize {
    match text.is_ascii() {
        true => text.bytes().filter(u8::is_ascii_alphanumeric).count(),
        false => text.chars().filter(|c| c.is_alphanumeric()).count(),
    }
}

/// The names of the files that a person would call attached, in their order.
pub fn attachments(entity: &Entity, body: &Body) -> Vec<String> {
    let parts = entity.walk();
    let shown: HashSet<&str> = body.html.as_deref().map(content_ids).unwrap_or_default();
    let related: HashSet<*const Entity> = parts
        .iter()
        .filter(|part| part.kind == "multipart/related")
        .filter_map(|part| match &part.content {
            Content::Parts(parts) => Some(parts.iter().map(std::ptr::from_ref)),
            _ => None,
        })
        .flatten()
        .collect();
    parts
        .into_iter()
        .filter(|part| matches!(part.content, Content::Leaf(_)))
        .filter(|part| !is_machinery(part))
        .filter(|part| {
            let id = part
                .raw_header("content-id")
                .map(|field| String::from_utf8_lossy(&field.raw).into_owned());
            let id = id.as_deref().map(|id| id.trim_matches(['<', '>', ' ']));
            let shown_inside = id.is_some_and(|id| shown.contains(id))
                || related.contains(&std::ptr::from_ref(*part))
                    && id.is_some()
                    && !part.is_attachment();
            !shown_inside
        })
        .filter_map(Entity::file_name)
        .take(ATTACHMENTS_MAX)
        .collect()
}

/// Signatures, delivery data and invitations are not files that anybody attached; a calendar file may
/// be one.
fn is_machinery(part: &Entity) -> bool {
    let calendar = matches!(part.kind.as_str(), "text/calendar" | "application/ics");
    calendar && !part.is_attachment()
        || matches!(
            part.kind.as_str(),
            "application/pgp-signature"
                | "application/pkcs7-signature"
                | "application/x-pkcs7-signature"
                | "message/delivery-status"
                | "message/disposition-notification"
                | "text/rfc822-headers"
        )
}

/// What the code shows by `cid:` (RFC 2392).
fn content_ids(html: &str) -> HashSet<&str> {
    html.split("cid:")
        .skip(1)
        .filter_map(|rest| rest.split(['"', '\'', ')', ' ', '>', '&']).next())
        .collect()
}
