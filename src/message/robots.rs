//! Mails by machines that answer: out-of-office notes, delivery reports, receipts, invitations,
//! confirmations; and newsletters.
//!
//! A ticket system's notification also says `auto-generated` and `bulk` and comes from `<>`; none
//! of these is evidence here.

use std::sync::LazyLock;

use regex::Regex;

use super::Robot;
use super::forwarded::notification_labels;
use super::lines::Line;
use super::mime::{Content, Entity};
use super::subject::{self, Prefix};

/// Labelled lines by which a ticket system's notification is known.
const TICKET_LABELS_MIN: usize = 3;

static AUTO_REPLY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^(?:
          (?: automatic \s reply | auto-?reply | automatische \s (?: antwort | beantwortung ) | automatisch \s antwoord
            | réponse \s automatique | automatische \s abwesenheits\w* | abwesenheits(?: notiz | nachricht | assistent | meldung )
            | afwezigheids(?: bericht | assistent ) | message \s d['’]absence | vacation \s (?: reply | response ) )
            \s* (?: [:\u{ff1a}-] | $ | \s )
        | (?: out \s of \s (?: the \s )? office | abwesend | abwesenheit | afwezig | absence \s du \s bureau )
            (?: \s (?: auto-?reply | reply | notice | notification | message ) )? \s* (?: [:\u{ff1a}] | $ ) )",
    )
    .expect("a literal pattern")
});

static UNDELIVERED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^(?: undeliver(?: ed | able ) | delivery \s (?: status \s notification | has \s failed | failure | notification )
          | mail \s delivery \s (?: failed | failure | system ) | returned \s mail | failure \s notice | mail \s system \s error
          | message \s delivery \s failure | unzustellbar | nicht \s (?: zustellbar | zugestellt ) | nachricht \s unzustellbar | onbestelbaar | niet \s bezorgd
          | non \s remis | échec \s de \s (?: la \s )? remise | non-?delivery )",
    )
    .expect("a literal pattern")
});

static DELAYED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^(?: delivery \s (?: is \s )? delayed | delayed \s mail | delivery \s status \s notification \s \(delay\)
          | warning: .* (?: delayed | still \s being \s retried | could \s not \s send ) | zustellung \s verzögert | verzögert:
          | vertraagd | message \s delayed )",
    )
    .expect("a literal pattern")
});

static FORWARDING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)forwarding confirmation|^(?:please )?(?:confirm|verify) (?:your |the )?(?:e-?mail )?forwarding|forwarding address (?:confirmation|verification)|^(?:bitte )?(?:bestätigen sie )?(?:ihre |die )?weiterleitungsadresse|^bevestig (?:uw |je |het )?doorstuur|weiterleitungsbestätigung|bestätigung der (?:gmail-)?weiterleitung|doorstuurbevestiging|bevestiging (?:van|voor) doorstur|confirmation de (?:la )?(?:transfert|redirection)",
    )
    .expect("a literal pattern")
});

static LIST_CONFIRMATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^(?:confirm [0-9a-f]{8,}|(?:please )?confirm (?:your )?subscription|your confirmation is required to (?:join|leave)|(?:bitte )?bestätigen sie (?:bitte )?ihre (?:anmeldung|newsletter-?anmeldung)|bevestig (?:uw|je) (?:aanmelding|inschrijving)|confirmez votre (?:inscription|abonnement)|welcome to the .* mailing list)",
    )
    .expect("a literal pattern")
});

/// A number as desks write it into subjects; a year alone is none.
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)#\s?[a-z]{0,5}-?\d{2,}|\b[a-z]{1,5}-\d{2,}\b|\b[a-z]{0,5}\s?\d{5,}|\b[IMC] ?\d{4} \d{3,}|\bID:\s?\d+")
        .expect("a literal pattern")
});

/// Why the mail was written by a machine that answers, if it was.
pub fn recognise(entity: &Entity, subject: &str, lines: &[Line]) -> Option<Robot> {
    let parts = entity.walk();
    let header = |name: &str| entity.header(name).unwrap_or_default().to_lowercase();
    let (subject, prefix) = subject::strip(subject);
    report(&parts)
        .or_else(|| calendar(&parts))
        .or_else(|| daemon(&header("from"), subject, entity))
        .or_else(|| answer(&header, subject, prefix, lines))
        .or_else(|| confirmation(&header("from"), subject, lines))
        .or_else(|| newsletter(&header, subject, lines))
}

/// RFC 3464 and RFC 8098.
fn report(parts: &[&Entity]) -> Option<Robot> {
    let top = parts.first()?;
    let part = |kind: &str| parts.iter().find(|part| part.kind == kind);
    if part("message/disposition-notification").is_some() {
        return Some(Robot::ReadReceipt);
    }
    let kind = top
        .content_type
        .get("report-type")
        .unwrap_or_default()
        .to_lowercase();
    match part("message/delivery-status").or_else(|| part("message/global-delivery-status")) {
        Some(status) => Some(match &status.content {
            Content::Leaf(bytes) if only_delayed(bytes) => Robot::DelayNotice,
            _ => Robot::Bounce,
        }),
        None if top.kind == "multipart/report" => match kind.as_str() {
            "disposition-notification" => Some(Robot::ReadReceipt),
            "delivery-status" => Some(Robot::Bounce),
            _ => None,
        },
        None => None,
    }
}

fn only_delayed(status: &[u8]) -> bool {
    let status = String::from_utf8_lossy(status).to_lowercase();
    let mut actions = status
        .lines()
        .filter_map(|line| line.strip_prefix("action:"))
        .map(str::trim)
        .peekable();
    actions.peek().is_some() && actions.all(|action| action.starts_with("delayed"))
}

/// An invitation or an answer to one; a calendar file that is attached is just a file.
fn calendar(parts: &[&Entity]) -> Option<Robot> {
    parts
        .iter()
        .any(|part| part.kind == "text/calendar" && !part.is_attachment())
        .then_some(Robot::Calendar)
}

/// Reports of mail systems that know no RFC 3464.
fn daemon(from: &str, subject: &str, entity: &Entity) -> Option<Robot> {
    let by_daemon = [
        "mailer-daemon",
        "mail-daemon",
        "maildaemon",
        "postmaster@",
        "microsoftexchange",
        "mail delivery s",
    ]
    .iter()
    .any(|name| from.contains(name));
    if by_daemon && DELAYED.is_match(subject) {
        return Some(Robot::DelayNotice);
    }
    let failed = entity.raw_header("x-failed-recipients").is_some();
    (failed || by_daemon && UNDELIVERED.is_match(subject)).then_some(Robot::Bounce)
}

/// RFC 3834 5: `auto-replied` is an answer, `auto-generated` is not. A ticket that somebody's
/// answer has opened bears its subject too, but the notification of it has fields.
fn answer(
    header: &impl Fn(&str) -> String,
    subject: &str,
    prefix: Prefix,
    lines: &[Line],
) -> Option<Robot> {
    let marked = header("auto-submitted").starts_with("auto-replied")
        || header("precedence") == "auto_reply"
        || header("x-autoreply") == "yes"
        || [
            "x-autorespond",
            "x-autoresponder",
            "x-auto-reply-from",
            "x-mail-autoreply",
        ]
        .iter()
        .any(|name| !header(name).is_empty());
    let titled = prefix == Prefix::None
        && AUTO_REPLY.is_match(subject)
        && notification_labels(lines) < TICKET_LABELS_MIN;
    (marked || titled).then_some(Robot::AutoReply)
}

fn confirmation(from: &str, subject: &str, lines: &[Line]) -> Option<Robot> {
    if from.contains("forwarding-noreply@")
        || FORWARDING.is_match(subject) && notification_labels(lines) < TICKET_LABELS_MIN
    {
        return Some(Robot::ForwardingConfirmation);
    }
    LIST_CONFIRMATION
        .is_match(subject)
        .then_some(Robot::ListConfirmation)
}

/// Mail to many, without anything by which a ticket system would name a ticket. Some desks'
/// mailers add `List-Unsubscribe` to notifications as well.
fn newsletter(header: &impl Fn(&str) -> String, subject: &str, lines: &[Line]) -> Option<Robot> {
    let to_many = !header("list-unsubscribe").is_empty()
        || !header("list-id").is_empty()
            && matches!(header("precedence").as_str(), "bulk" | "list");
    let ticket = header("auto-submitted").starts_with("auto-generated")
        || !header("x-powered-by").is_empty()
        || NUMBERED.is_match(subject)
        || notification_labels(lines) >= TICKET_LABELS_MIN
        || lines.iter().any(|line| line.text.starts_with("X-S4-"));
    (to_many && !ticket).then_some(Robot::Newsletter)
}
