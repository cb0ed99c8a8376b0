//! Mails by machines that answer: out-of-office notes, delivery reports, receipts, invitations,
//! confirmations; and newsletters.
//!
//! A ticket system's notification also says `auto-generated` and `bulk` and comes from `<>`; none
//! of these is evidence here.

use std::sync::LazyLock;

use regex::Regex;

use super::forwarded::notification_labels;
use super::lines::Line;
use super::mime::{Content, Entity};
use super::subject::Prefix;
use super::{Message, Robot};

/// Labelled lines by which a ticket system's notification is known.
const TICKET_LABELS_MIN: usize = 3;

static AUTO_REPLY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^(?:
          (?: automatic \s reply | auto-?reply | automatische \s (?: antwort | beantwortung ) | automatisch \s antwoord
            | réponse \s automatique | automatische \s abwesenheits\w* | abwesenheits(?: notiz | nachricht | assistent | meldung )
            | afwezigheids(?: bericht | assistent ) | message \s d['’]absence | vacation \s (?: reply | response )
            | (?: respuesta | risposta | resposta ) \s autom[aá]tica | odpowiedź \s automatyczna | autosvar | automatisk[at]? \s svar
            | automaattinen \s vastaus | automatická \s odpověď | otomatik \s yanıt | автоматический \s ответ | автоответ
            | 自动答复 | 自动回复 | 自動回覆 | 自動応答 )
            \s* (?: [:\u{ff1a}-] | $ | \s )
        | auto \s* : .* (?: out \s of \s (?: the \s )? office | außer \s haus | abwesend | afwezig )
        | (?: out \s of \s (?: the \s )? office | abwesend | abwesenheit | afwezig | absence \s du \s bureau )
            (?: \s (?: auto-?reply | reply | notice | notification | message ) )? \s* (?: [:\u{ff1a}] | $ ) )",
    )
    .expect("a literal pattern")
});

/// Of these, the ones that nobody writes but a mail program. "Absent: the technician" is a sentence.
static AUTO_REPLY_PHRASE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^(?: auto | respuesta | risposta | resposta | odpowiedź | otomatik | авто | 自 | réponse \s automatique | abwesenheits | afwezigheids | message \s d | vacation
          | out \s of \s (?: the \s )? office )",
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
    Regex::new(r"(?i)#\s?[a-z]{0,5}-?\d{2,}|\b[a-z]{1,5}-\d{2,}\b|\b[a-z]{0,5}\s?\d{5,}|\b(?-i:[A-Z]{1,3})[ -]?\d{4}[ -]?\d{3,5}\b|\bID:\s?\d+")
        .expect("a literal pattern")
});

/// What is no number of a ticket: Gmail's code in front, Mailman's behind "confirm".
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^(?:\(#\d+\)|confirm [0-9a-f]{8,})").expect("a literal pattern")
});

/// A link to a ticket.
static TICKET_LINK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)https?://[^\s<>]*(?:/tickets?(?:/|\?(?:[^\s<>]*&)?id=)\d|[?&;]ticketid=\d|/tas/secure/)",
    )
    .expect("a literal pattern")
});

/// What mail programs without RFC 8098 write of a mail that was read: first line, and what follows.
static READ: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    [
        r"(?i)^(?:your message|ihre nachricht|uw bericht|votre message)\b",
        r"(?i)\bwas read on\b|\bwurde (?:am|um) [^\n]*gelesen\b|\bis gelezen op\b|\ba été lu\b",
    ]
    .map(|pattern| Regex::new(pattern).expect("a literal pattern"))
});

/// Words of an alarm. What looks like mail to many, or like a report, is then no reason for silence.
static ALARM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)\b(?: incidents? | critical | crit | alerts? | alarme? | down | outage | emergency | urgent | warning | firing | is \s offline | unavailable | failed | sev-?\d | p[12]
          | degraded | unreachable | errors? | exceeded | threshold | failure \s rate | problem | fehler\w* | überschritten | overschreden | injoignable | panne | störung\w* | ausfall\w* | kritisch\w* | notfall | dringend | nicht \s erreichbar
          | storing\w* | uitval | kritiek | dringend | onbereikbaar )\b",
    )
    .expect("a literal pattern")
});

/// What a report says of a mail that did not arrive.
static DELIVERY_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix) (?: could \s not | cannot | couldn['’]t | wasn['’]t | was \s not | not \s be | has \s not \s been | konnte | kon ) [^.]{0,60} (?: deliver | zugestellt | zustell | bezorgd | afgeleverd )
          | undeliver | unzustellbar | recipient | empfänger | ontvanger | delivery \s (?: has \s failed | failed | to ) | mailbox | retry | \b [245]\.\d\.\d\b | \b 5[0-9]{2} \s [-\w]",
    )
    .expect("a literal pattern")
});

/// A mailer of campaigns, or the words of the list it writes to.
static CAMPAIGN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\b(?:unsubscribe|newsletters?|view (?:this email )?in (?:your )?browser|manage (?:your )?preferences|abmelden|abbestellen|im browser (?:ansehen|anzeigen)|uitschrijven|afmelden voor|désabonner|désinscrire)\b",
    )
    .expect("a literal pattern")
});

/// Why the mail was written by a machine that answers, if it was.
pub fn recognise(entity: &Entity, message: &Message, lines: &[Line]) -> Option<Robot> {
    let header = |name: &str| message.header(name).unwrap_or_default().to_lowercase();
    let (subject, prefix) = (message.subject.as_str(), message.prefix);
    if is_ticket_system(&header) {
        return is_marked(&header).then_some(Robot::AutoReply);
    }
    report(entity)
        .or_else(|| receipt(subject, lines))
        .or_else(|| calendar(entity, subject, lines))
        .or_else(|| daemon(&header, subject, lines, entity))
        .or_else(|| answer(&header, subject, prefix, lines))
        .or_else(|| confirmation(&header("from"), subject, lines))
        .or_else(|| newsletter(&header, subject, lines))
}

/// A header that only ticket systems write.
fn is_ticket_system(header: &impl Fn(&str) -> String) -> bool {
    ["kix", "otrs", "znuny"].iter().any(|name| {
        header("x-powered-by").starts_with(name) || header("x-mailer").starts_with(name)
    })
}

/// RFC 3464 and RFC 8098: the mail itself is the report. A report that is attached is just a file.
fn report(top: &Entity) -> Option<Robot> {
    if top.kind == "message/disposition-notification" {
        return Some(Robot::ReadReceipt);
    }
    if top.kind != "multipart/report" {
        return None;
    }
    let part = |kind: &str| top.parts().iter().find(|part| part.kind == kind);
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
        None => match kind.as_str() {
            "disposition-notification" => Some(Robot::ReadReceipt),
            "delivery-status" => Some(Robot::Bounce),
            _ => None,
        },
    }
}

/// A receipt in words.
fn receipt(subject: &str, lines: &[Line]) -> Option<Robot> {
    let [begins, says] = &*READ;
    let (word, _) = subject.split_once(':')?;
    let named = ["read", "gelesen", "gelezen", "lu"]
        .iter()
        .any(|known| word.trim_end().eq_ignore_ascii_case(known));
    let first = || lines.iter().find(|line| !line.is_blank());
    (named
        && first().is_some_and(|line| begins.is_match(&line.text))
        && lines.iter().any(|line| says.is_match(&line.text)))
    .then_some(Robot::ReadReceipt)
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

/// An invitation or an answer to one: the mail itself, or another form of its text. A calendar file
/// beside the text is just a file, and a ticket may bring the appointment of its technician.
fn calendar(top: &Entity, subject: &str, lines: &[Line]) -> Option<Robot> {
    let is_form = |part: &Entity| {
        part.kind == "text/calendar" && !part.is_attachment() && part.file_name().is_none()
    };
    let asks = matches!(
        top.content_type
            .get("method")
            .unwrap_or_default()
            .to_lowercase()
            .as_str(),
        "request" | "reply" | "cancel" | "counter" | "publish"
    );
    let alone = top.kind == "text/calendar" && (asks || is_form(top));
    let mut alternatives = top
        .walk()
        .into_iter()
        .filter(|part| part.kind == "multipart/alternative");
    let invites = alone || alternatives.any(|part| part.parts().iter().any(is_form));
    let by_desk = || NUMBERED.is_match(subject) && notification_labels(lines) >= TICKET_LABELS_MIN;
    (invites && !by_desk()).then_some(Robot::Calendar)
}

/// Reports of mail systems that know no RFC 3464. A postmaster also gets alarms about mail systems.
fn daemon(
    header: &impl Fn(&str) -> String,
    subject: &str,
    lines: &[Line],
    entity: &Entity,
) -> Option<Robot> {
    let from = header("from");
    let named = |names: &[&str]| names.iter().any(|name| from.contains(name));
    let by_daemon = named(&[
        "mailer-daemon",
        "mail-daemon",
        "maildaemon",
        "microsoftexchange",
        "mail delivery s",
    ]) || from.contains("postmaster@")
        && (header("return-path") == "<>"
            || entity.raw_header("x-ms-exchange-message-is-ndr").is_some());
    let says = || lines.iter().any(|line| DELIVERY_WORDS.is_match(&line.text));
    if by_daemon && DELAYED.is_match(subject) && says() {
        return Some(Robot::DelayNotice);
    }
    let failed = entity.raw_header("x-failed-recipients").is_some();
    (failed || by_daemon && UNDELIVERED.is_match(subject) && says()).then_some(Robot::Bounce)
}

/// RFC 3834 5: `auto-replied` is an answer, `auto-generated` is not. A ticket that somebody's
/// answer has opened bears its subject too, but the notification of it has fields.
fn answer(
    header: &impl Fn(&str) -> String,
    subject: &str,
    prefix: Prefix,
    lines: &[Line],
) -> Option<Robot> {
    // The title of a ticket may be such a phrase.
    let by_desk = || header("auto-submitted") == "auto-generated" && NUMBERED.is_match(subject);
    let by_phrase = || AUTO_REPLY_PHRASE.is_match(subject) && !by_desk();
    let titled = prefix == Prefix::None
        && AUTO_REPLY.is_match(subject)
        && (is_answer(header) || by_phrase())
        && notification_labels(lines) < TICKET_LABELS_MIN;
    let by_exchange = prefix == Prefix::None && is_answer_of_exchange(header);
    (is_marked(header) || titled || by_exchange).then_some(Robot::AutoReply)
}

fn is_marked(header: &impl Fn(&str) -> String) -> bool {
    header("auto-submitted").starts_with("auto-replied")
        || header("precedence") == "auto_reply"
        || header("x-autoreply") == "yes"
        || [
            "x-autorespond",
            "x-autoresponder",
            "x-auto-reply-from",
            "x-mail-autoreply",
        ]
        .iter()
        .any(|name| !header(name).is_empty())
}

/// It answers a mail. Other headers of automatic mail are in a ticket system's notifications too.
fn is_answer(header: &impl Fn(&str) -> String) -> bool {
    [
        "in-reply-to",
        "x-ms-exchange-inbox-rules-loop",
        "x-ms-exchange-generated-message-source",
    ]
    .iter()
    .any(|name| !header(name).is_empty())
}

/// Exchange answers for the mailbox itself, in any language. What a rule of the mailbox forwards has a
/// prefix, and what it redirects another sender.
fn is_answer_of_exchange(header: &impl Fn(&str) -> String) -> bool {
    let mailbox = header("x-ms-exchange-inbox-rules-loop");
    !mailbox.is_empty() && !header("in-reply-to").is_empty() && header("from").contains(&mailbox)
}

fn confirmation(from: &str, subject: &str, lines: &[Line]) -> Option<Robot> {
    // A person who asks for a forwarding sends neither a link nor a code.
    let by_robot = || {
        from.contains("reply@")
            || lines.iter().any(|line| {
                line.text.contains("://")
                    || line.text.bytes().filter(u8::is_ascii_digit).count() > 5
            })
    };
    // The title of a ticket may be such a phrase.
    let by_desk = || {
        NUMBERED.is_match(&CODE.replace(subject, ""))
            || notification_labels(lines) >= TICKET_LABELS_MIN
    };
    if from.contains("forwarding-noreply@")
        || FORWARDING.is_match(subject) && by_robot() && !by_desk()
    {
        return Some(Robot::ForwardingConfirmation);
    }
    (LIST_CONFIRMATION.is_match(subject) && !by_desk()).then_some(Robot::ListConfirmation)
}

/// Mail to many that says so itself, without anything by which a ticket system would name a ticket
/// or a monitor an alarm. Desks and monitors have `List-Unsubscribe` in their notifications too:
/// that header alone is no evidence. To a mailing list people write, and monitors: the footer of one is
/// no evidence either.
fn newsletter(header: &impl Fn(&str) -> String, subject: &str, lines: &[Line]) -> Option<Robot> {
    let has = |name: &str| !header(name).is_empty();
    if !(has("list-unsubscribe") || has("list-id")) {
        return None;
    }
    let precedence = header("precedence");
    let bulk = matches!(precedence.as_str(), "bulk" | "junk");
    let discusses = precedence == "list" || header("list-post").contains("mailto:");
    let campaign = || {
        [
            "x-campaign",
            "x-campaign-id",
            "x-campaignid",
            "x-mailer-lid",
        ]
        .into_iter()
        .any(has)
            || CAMPAIGN.is_match(subject)
            || !discusses && lines.iter().any(|line| CAMPAIGN.is_match(&line.text))
    };
    let monitor = header("auto-submitted").starts_with("auto-generated")
        || has("x-powered-by")
        || ALARM.is_match(subject)
        || NUMBERED.is_match(subject)
        || notification_labels(lines) >= TICKET_LABELS_MIN
        || lines
            .iter()
            .any(|line| line.text.starts_with("X-S4-") || TICKET_LINK.is_match(&line.text));
    (!monitor && (bulk || campaign())).then_some(Robot::Newsletter)
}
