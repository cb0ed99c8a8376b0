//! Mails that a person sent on: as an attachment, or quoted below a block of header lines.
//!
//! A forward is told from a reply by its prefix and separator, and from a notification that
//! quotes somebody by what stands above: a notification labels its fields there.

use std::sync::LazyLock;

use regex::Regex;

use super::Mailbox;
use super::header;
use super::lines::{Line, label, squeeze};
use super::mime::{Content, Entity};
use super::subject::Prefix;

/// What is known of the mail that may be a forward.
#[derive(Debug, Clone, Copy)]
pub struct Outer<'a> {
    pub prefix: Prefix,
    /// It calls itself automatic; a person's mail does not.
    pub automated: bool,
    pub subject: &'a str,
    pub from: &'a str,
    /// It was found inside a forward itself.
    pub inner: bool,
}

/// A mail found inside the text of another one.
#[derive(Debug)]
pub struct Inline {
    pub note: Vec<Line>,
    /// Of its header block, with English names in lower case.
    pub fields: Vec<(String, String)>,
    pub from: Mailbox,
    pub subject: String,
    pub lines: Vec<Line>,
}

/// A block of header lines inside a text.
#[derive(Debug)]
pub struct Block {
    /// First line, the separator above it included.
    pub start: usize,
    /// First line behind it.
    pub end: usize,
    pub separator: Separator,
    pub fields: Vec<(&'static str, String)>,
    depth: u8,
    /// Stands in its own paragraph and has all four headers that mail programs write. Fields of
    /// a notification that are called alike do not.
    pub apart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    None,
    /// `-----Original Message-----`, or a ruled line: replies and forwards have it.
    Original,
    /// `Forwarded message`: only forwards have it.
    Forward,
}

/// Labelled lines above a quotation from which on it is a notification's own text.
const NOTIFICATION_LABELS_MIN: usize = 3;

/// A person's words above a forward are shorter than this.
const NOTE_CHARS_MAX: usize = 1500;

/// Lines that one wrapped header of a block may go on for.
const FOLDED_LINES_MAX: usize = 6;

/// The mails that `entity` forwards as attachments.
pub fn attached<'a>(entity: &'a Entity, text: &[Line], outer: Outer<'_>) -> Vec<&'a Entity> {
    if matches!(
        entity.kind.as_str(),
        "multipart/report" | "multipart/digest"
    ) {
        return Vec::new();
    }
    let mails: Vec<&Entity> = entity
        .walk()
        .into_iter()
        .filter_map(|part| match &part.content {
            Content::Message(inner) => Some(inner.as_ref()),
            _ => None,
        })
        .collect();
    let Some(first) = mails.first() else {
        return mails;
    };
    let subject = first.header("subject").unwrap_or_default();
    let forwards = match outer.prefix {
        _ if is_notification(text, outer, &subject) => false,
        Prefix::Forward => true,
        Prefix::Reply => false,
        Prefix::None => !outer.automated && numbers(outer.subject).all(|it| subject.contains(it)),
    };
    if forwards { mails } else { Vec::new() }
}

/// Whether what stands above a mail is a notification that carries it, and no person's note. Both may
/// have labelled lines; but a notification has a number in its subject which a customer's mail has not.
fn is_notification(note: &[Line], outer: Outer<'_>, inner_subject: &str) -> bool {
    let same_number = || {
        let mut numbers = numbers(outer.subject).peekable();
        numbers.peek().is_some() && numbers.all(|it| inner_subject.contains(it))
    };
    notification_labels(note) >= NOTIFICATION_LABELS_MIN
        && !(outer.prefix == Prefix::Forward && !outer.automated && same_number())
}

/// Digits of a subject that may be a ticket's number.
fn numbers(subject: &str) -> impl Iterator<Item = &str> {
    subject
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| number.len() >= 4)
}

/// The mail that is quoted in `lines` below their first block of header lines, if it was sent on by
/// a person.
pub fn inline(lines: &[Line], block: &Block, outer: Outer<'_>) -> Option<Inline> {
    let note = lines.get(..block.start)?;
    let field = |name: &str| {
        block
            .fields
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    };
    let subject = field("subject").unwrap_or_default();
    if is_notification(note, outer, &subject) {
        return None;
    }
    let below = lines.get(block.end..).unwrap_or_default();
    let from = header::mailbox(field("from").unwrap_or_default().as_bytes());
    let forwards = match (outer.prefix, block.separator) {
        (Prefix::Forward, _) | (_, Separator::Forward) => true,
        // Somebody sent a whole conversation on; what it is about stands at its end.
        (Prefix::Reply, _) => {
            outer.inner && notification_labels(note) == 0 && notification_labels(below) >= 2
        }
        (Prefix::None, _) => {
            let length: usize = note.iter().map(|line| line.text.len()).sum();
            !outer.automated
                && (block.apart || block.separator != Separator::None)
                && length < NOTE_CHARS_MAX
                && !from.address.eq_ignore_ascii_case(outer.from)
        }
    };
    if !forwards {
        return None;
    }
    Some(Inline {
        note: note.to_vec(),
        from,
        subject,
        lines: below
            .iter()
            .map(|line| unquote(line, block.depth))
            .collect(),
        fields: block
            .fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    })
}

fn unquote(line: &Line, depth: u8) -> Line {
    let depth = line.depth.saturating_sub(depth);
    Line {
        depth,
        cited: line.cited && depth > 0,
        ..line.clone()
    }
}

/// Labelled lines that are not contact data of a signature.
pub fn notification_labels(lines: &[Line]) -> usize {
    static CONTACT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?ix)^(?: tel | telefon | telephone | telefoon | phone | fon | mobil | mobile | mobiel | handy | fax | telefax | durchwahl | zentrale
              | e-?mail | mail | web | website | internet | office | direct | www | t | m | f | e | address | adresse | sitz | registered
              | geschäftsführer | managing \s directors? | vorstand | vorsitz\w* | aufsichtsrat | amtsgericht | registergericht | handelsregister
              | hrb | ust | vat | tva | btw | steuer(?: nummer | -?nr | -?id )? | iban | bic | kvk | siret | siren | rcs | capital )\b",
        )
        .expect("a literal pattern")
    });
    lines
        .iter()
        .filter_map(|line| label(&line.text))
        .filter(|(name, value)| !value.is_empty() && !CONTACT.is_match(name))
        .count()
}

/// The first block of header lines in a text.
pub fn header_block(lines: &[Line]) -> Option<Block> {
    (0..lines.len()).find_map(|at| block_at(lines, at))
}

fn block_at(lines: &[Line], at: usize) -> Option<Block> {
    let first = lines.get(at)?;
    let (key, _) = header_line(&first.text)?;
    let (start, separator) = separator_above(lines, at);
    if key == "other" {
        return None;
    }
    let mut fields: Vec<(&'static str, String)> = Vec::new();
    let mut end = at;
    let mut folded = 0;
    for (offset, line) in lines.iter().enumerate().skip(at) {
        match header_line(&line.text) {
            Some((key, _)) if key != "other" && fields.iter().any(|(known, _)| *known == key) => {
                break;
            }
            Some((key, value)) => {
                fields.push((key, value.to_owned()));
                folded = 0;
                end = offset + 1;
            }
            None if line.is_blank() => {
                if is_complete(&fields) {
                    break;
                }
            }
            // The mail's importance, and not the first field of what is below.
            None if end == offset
                && is_importance(&line.text)
                && lines.get(offset + 1).is_none_or(Line::is_blank) =>
            {
                end = offset + 1;
            }
            None => {
                folded += 1;
                let subject = fields.iter().any(|(key, _)| *key == "subject");
                let whole = subject && is_complete(&fields);
                if whole && !line.continued || folded > FOLDED_LINES_MAX {
                    break;
                }
                // It belongs to the block only if a further header comes below it.
                if whole {
                    end = offset + 1;
                }
                if let Some((_, value)) = fields.last_mut() {
                    *value = format!("{value} {}", line.text);
                }
            }
        }
    }
    if !is_complete(&fields) {
        return None;
    }
    let has = |name: &str| fields.iter().any(|(key, _)| *key == name);
    let blank = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_none_or(Line::is_blank);
    let four = ["from", "date", "to", "subject"].into_iter().all(has);
    let apart = four && blank(at.checked_sub(1)) && blank(Some(end));
    // Outlook, Gmail and Apple Mail begin with the sender; Thunderbird with the subject and GMX
    // with the date, which so many other things do.
    if key != "from" && !apart && separator == Separator::None {
        return None;
    }
    fields.retain(|(key, _)| *key != "other");
    Some(Block {
        apart,
        start,
        end,
        separator,
        fields,
        depth: first.depth,
    })
}

fn is_complete(fields: &[(&str, String)]) -> bool {
    let has = |name: &str| fields.iter().any(|(key, _)| *key == name);
    has("from") && (has("subject") && (has("date") || has("to")) || has("date") && has("to"))
}

/// A header line as mail programs translate it.
fn header_line(text: &str) -> Option<(&'static str, &str)> {
    let (name, value) = label(text)?;
    let key = match name.to_lowercase().as_str() {
        "from" | "von" | "van" | "de" | "da" | "mittente" | "från" | "fra" | "od" => "from",
        "sent" | "date" | "gesendet" | "gesendet am" | "datum" | "verzonden" | "verzonden op"
        | "envoyé" | "envoyé le" | "date d'envoi" | "skickat" | "enviado" | "enviado el"
        | "enviada em" | "fecha" | "data" | "inviato" | "sendt" | "dato" | "wysłano"
        | "odesláno" => "date",
        "to" | "an" | "aan" | "à" | "a" | "pour" | "para" | "till" | "til" | "do" | "komu" => "to",
        "cc" | "bcc" | "kopie" | "kopie an" | "copie" => "cc",
        "subject" | "betreff" | "onderwerp" | "objet" | "sujet" | "asunto" | "oggetto" | "ämne"
        | "assunto" | "emne" | "temat" | "předmět" => "subject",
        "reply-to" | "reply to" | "antwort an" | "antwoord aan" | "répondre à" | "importance"
        | "wichtigkeit" | "urgentie" | "sensitivity" | "vertraulichkeit" | "attachments"
        | "anlagen" | "bijlagen" | "pièces jointes" | "organization" | "organisation" => "other",
        _ => return None,
    };
    Some((key, value))
}

/// As Outlook names it in languages that call a ticket's priority the same.
fn is_importance(text: &str) -> bool {
    label(text).is_some_and(|(name, _)| {
        matches!(
            name.to_lowercase().as_str(),
            "priority"
                | "priorität"
                | "prioriteit"
                | "priorité"
                | "importancia"
                | "prioridad"
                | "importanza"
                | "prioridade"
                | "prioritet"
                | "priorytet"
                | "ważność"
                | "importância"
        )
    })
}

/// The separator above a block, and where it begins.
fn separator_above(lines: &[Line], at: usize) -> (usize, Separator) {
    let above = lines
        .iter()
        .enumerate()
        .take(at)
        .skip(at.saturating_sub(4))
        .rev()
        .find(|(_, line)| !line.is_blank());
    match above {
        Some((start, line)) => match separator(&line.text) {
            Some(kind) => (start, kind),
            None => (at, Separator::None),
        },
        None => (at, Separator::None),
    }
}

/// What kind of separator a line is, if it is one.
pub fn separator(text: &str) -> Option<Separator> {
    let ruled = text.len() >= 5 && text.chars().all(|c| matches!(c, '_' | '-' | '=' | '*'));
    if ruled {
        return Some(Separator::Original);
    }
    let words = squeeze(text.trim_matches(|c: char| !c.is_alphanumeric())).to_lowercase();
    let words = words.trim_start_matches("begin ");
    let is = |known: &[&str]| known.contains(&words);
    if is(&[
        "forwarded message",
        "forwarded mail",
        "weitergeleitete nachricht",
        "weitergeleitete e-mail",
        "anfang der weitergeleiteten nachricht",
        "doorgestuurd bericht",
        "message transféré",
        "message réexpédié",
        "début du message transféré",
        "début du message réexpédié",
        "mensaje reenviado",
        "messaggio inoltrato",
    ]) {
        return Some(Separator::Forward);
    }
    is(&[
        "original message",
        "original mail",
        "ursprüngliche nachricht",
        "originalnachricht",
        "original-nachricht",
        "oorspronkelijk bericht",
        "oorspronkelijke bericht",
        "message d'origine",
        "message d’origine",
        "message original",
        "reply message",
    ])
    .then_some(Separator::Original)
}
