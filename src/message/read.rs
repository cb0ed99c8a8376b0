//! The whole way from bytes to a [`Message`]: parts, text, forwards, history.

use super::body::{self, Body};
use super::forwarded::{self, Inline, Outer};
use super::header::{self, Field};
use super::lines::{self, Line};
use super::mime::Entity;
use super::quoted;
use super::robots;
use super::subject::{self, Prefix};
use super::{Forwarding, Message};
use crate::limits::{
    ATTACHED_MAILS_MAX, ATTACHED_TEXT_BYTES_MAX, ATTACHMENTS_MAX, FORWARDS_MAX, TEXT_BYTES_MAX,
};

/// Reads one mail, whatever its bytes are.
pub fn read(raw: &[u8]) -> Message {
    let mut opening = Opening::default();
    let entity = Entity::parse(raw, &mut opening.problems);
    if entity.fields.iter().all(Field::is_trace) {
        opening.problems.push("no header field at all".into());
    }
    let mut message = open(&entity, 0, &mut opening);
    if opening.left > 0 {
        opening.problems.push(format!(
            "too many mails are attached: {} of them are not read",
            opening.left
        ));
    }
    let mut problems = opening.problems;
    problems.sort();
    problems.dedup();
    message.problems = problems;
    message.others_left = opening.left;
    message
}

/// What has come of a mail so far, with all that is attached to it.
#[derive(Debug, Default)]
struct Opening {
    problems: Vec<String>,
    /// Mails attached beside another.
    others: usize,
    /// Of all texts.
    text_bytes: usize,
    /// Attached mails that are not read.
    left: usize,
}

impl Opening {
    fn has_room(&self) -> bool {
        self.others + 1 < ATTACHED_MAILS_MAX && self.text_bytes <= ATTACHED_TEXT_BYTES_MAX
    }
}

fn open(entity: &Entity, depth: usize, opening: &mut Opening) -> Message {
    let body = body::read(entity, &mut opening.problems);
    let message = envelope(entity, &body);
    let raw_subject = message.header("subject").unwrap_or_default().to_owned();
    // A person who forwards a robot's mail wants it seen: only the outermost mail is asked.
    let robot = match depth {
        0 => robots::recognise(entity, &message, &body.lines),
        _ => None,
    };
    if robot.is_none() && depth < FORWARDS_MAX {
        let outer = Outer {
            prefix: message.prefix,
            automated: is_automated(&message),
            subject: &raw_subject,
            from: &message.from.address,
            inner: false,
        };
        let attached = forwarded::attached(entity, &body.lines, outer);
        if let Some(mut inner) = open_attached(&attached, depth + 1, opening) {
            let forwarding = Forwarding {
                by: message.from,
                subject: raw_subject,
                note: text_of(&body.lines),
                answered: false,
            };
            let mut others = std::mem::take(&mut inner.others);
            for sent_on in others.iter_mut().chain([&mut inner]) {
                send_on(sent_on, &forwarding, &message.attachments);
            }
            inner.others = others;
            return inner;
        }
    }
    let mut message = message;
    message.robot = robot;
    let message = finish(message, body.lines, depth);
    opening.text_bytes += message.text.len() + message.set_apart.len();
    message
}

/// The first of these mails; beside it the others, and those inside them, as far as there is room.
fn open_attached(mails: &[&Entity], depth: usize, opening: &mut Opening) -> Option<Message> {
    let (first, others) = mails.split_first()?;
    let mut first = open(first, depth, opening);
    for other in others {
        if !opening.has_room() {
            opening.left += 1;
            continue;
        }
        opening.others += 1;
        let mut other = open(other, depth, opening);
        let inside = std::mem::take(&mut other.others);
        first.others.push(other);
        first.others.extend(inside);
    }
    Some(first)
}

/// Everything but the text.
fn envelope(entity: &Entity, body: &Body) -> Message {
    let from = entity
        .raw_header("from")
        .or_else(|| entity.raw_header("sender"));
    let headers = entity
        .fields
        .iter()
        .map(|field| (field.name.clone(), field.text()))
        .collect();
    let mut message = Message {
        headers,
        from: from
            .map(|field| header::mailbox(&field.raw))
            .unwrap_or_default(),
        attachments: body::attachments(entity, body),
        html: body.html.clone(),
        ..Message::default()
    };
    let subject = message.header("subject").unwrap_or_default();
    let (subject, prefix) = match message.header("list-id") {
        Some(_) => subject::strip_of_list(subject),
        None => subject::strip(subject),
    };
    (message.subject, message.prefix) = (subject.to_owned(), prefix);
    message.message_id = message
        .header("message-id")
        .map(|id| id.trim_matches(['<', '>', ' ']).to_owned())
        .filter(|id| !id.is_empty());
    message
}

/// Who sent a forwarded mail on, and what else was attached. In a chain of forwards, that is the last one.
fn send_on(message: &mut Message, outer: &Forwarding, attachments: &[String]) {
    message.attachments.extend_from_slice(attachments);
    message.attachments.truncate(ATTACHMENTS_MAX);
    let inner = message.forwarding.take();
    message.forwarding = Some(Forwarding {
        answered: inner.is_some_and(|inner| inner.answered),
        ..outer.clone()
    });
    message.robot = None;
}

/// Opens forwards inside the text, innermost last, and sets history apart.
fn finish(mut message: Message, mut lines: Vec<Line>, depth: usize) -> Message {
    let mut block = forwarded::header_block(&lines);
    for _ in depth..FORWARDS_MAX {
        if message.robot.is_some() {
            break;
        }
        let raw_subject = message.header("subject").unwrap_or_default().to_owned();
        let outer = Outer {
            prefix: message.prefix,
            automated: is_automated(&message),
            subject: &raw_subject,
            from: &message.from.address,
            inner: message.forwarding.is_some(),
        };
        let inner = block
            .as_ref()
            .and_then(|block| forwarded::inline(&lines, block, outer));
        let Some(inner) = inner else {
            break;
        };
        (message, lines) = enter(message, &raw_subject, inner);
        block = forwarded::header_block(&lines);
    }
    let split = quoted::split(lines, message.prefix, is_automated(&message), block);
    message.text = text_of(&split.text);
    message.set_apart = text_of(&split.apart);
    message
}

fn enter(outer: Message, raw_subject: &str, inner: Inline) -> (Message, Vec<Line>) {
    let mut forwarding = outer.forwarding.unwrap_or_else(|| Forwarding {
        by: outer.from.clone(),
        subject: raw_subject.to_owned(),
        note: text_of(&inner.note),
        answered: false,
    });
    forwarding.answered |= outer.prefix == Prefix::Reply;
    let inner_subject = match inner.subject.as_str() {
        "" => raw_subject,
        subject => subject,
    };
    let message = Message {
        subject: subject::strip(inner_subject).0.to_owned(),
        prefix: subject::strip(&inner.subject).1,
        headers: inner.fields,
        from: inner.from,
        forwarding: Some(forwarding),
        ..outer
    };
    (message, inner.lines)
}

/// What a mail of a person never says of itself.
fn is_automated(message: &Message) -> bool {
    let value = |name: &str| message.header(name).unwrap_or_default().to_lowercase();
    value("auto-submitted").starts_with("auto-")
        || matches!(value("precedence").as_str(), "bulk" | "list" | "junk")
        || message.header("x-powered-by").is_some()
}

fn text_of(lines: &[Line]) -> String {
    let mut text = lines::truncate(lines::join(lines), TEXT_BYTES_MAX);
    text.truncate(text.trim_end().len());
    text
}
