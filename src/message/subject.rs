//! What mail programs and gateways put before a subject.

use std::sync::LazyLock;

use regex::Regex;

use super::header;

// VS: is Danish and Norwegian for a forward. It is Finnish for an answer, too, but an answer that is
// looked at costs less than a forwarded ticket that is not.
static FORWARD: LazyLock<Regex> = LazyLock::new(|| {
    prefix("fwd?|wg|doorst|doorgestuurd|tr|enc|rv|vs|vb|vl|pd|weitergeleitet|transfert|videresendt")
});

static REPLY: LazyLock<Regex> =
    LazyLock::new(|| prefix("re?|aw|antw|antwort|antwoord|sv|res|r[ée]p|odp|betr"));

/// Behind `R:` it is the drive, and no Italian answer.
static DRIVE: LazyLock<Regex> = LazyLock::new(|| {
    mark(r"(?i)^R:\s*(?:drive|share|volume|disk|(?:netz)?laufwerk|(?:netwerk)?schijf)\b")
});

fn prefix(words: &str) -> Regex {
    let number = r"\[\d+\]|\(\d+\)|\^\d+|\*\d+";
    Regex::new(&format!(
        r"(?i)^\s*(?:{words})\s*(?:{number})?\s*[:\u{{ff1a}}]\s*"
    ))
    .expect("a literal pattern")
}

/// What gateways say of a mail.
const SAID: &str = r"(?:
      (?: e-?mail \s )? (?: ext | extern | externe? | externer | external | outside ) (?: [\s-]* (?: e-?mail | mail | sender | message | absender | afzender | nachricht ) )?
    | (?: possible | suspected | potential ) \s spam | spam \?? (?: \s* : \s* \#+ )? | caution | bulk | junk | \{?disarmed\}?
    | (?: not \s )? secure | signed (?: \s ok )? | digitally \s signed | signiert | encrypted | verschlüsselt | versleuteld
  )";

static MARK: LazyLock<Regex> = LazyLock::new(|| {
    mark(&format!(
        r"(?ix)^\s*
        (?: [\[({{<]+ \s* (?: caution | warning | warnung | achtung | let \s op )? [\s:!-]* {SAID} \s* [:!]* \s* [\])}}>]+
          | \*+ \s* {SAID} \s* \*+
          | \u{{26a0}} \u{{fe0f}}?
          | (?: ext | external | extern ) \s* (?: e-?mail )? \s* :
          | (?-i: EXT | EXTERN | EXTERNAL ) \s+ - \s )
        \s*[-:]?\s*"
    ))
});

/// As [`MARK`], behind a subject.
static MARK_BEHIND: LazyLock<Regex> = LazyLock::new(|| {
    mark(&format!(
        r"(?ix) \s* (?: [\[({{<]+ \s* {SAID} \s* [\])}}>]+ | \*+ \s* {SAID} \s* \*+ ) \s*$"
    ))
});

fn mark(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a literal pattern")
}

/// What the first prefix of a subject says of the mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prefix {
    #[default]
    None,
    Reply,
    Forward,
}

impl Prefix {
    pub fn as_str(self) -> &'static str {
        match self {
            Prefix::None => "",
            Prefix::Reply => "reply",
            Prefix::Forward => "forward",
        }
    }
}

/// The decoded subject, prefixes kept, of a mail whose beginning this is.
pub fn of_beginning(raw: &[u8]) -> Option<String> {
    let (fields, _) = header::split(raw);
    let field = fields.iter().find(|field| field.name == "subject")?;
    Some(field.text().trim().to_owned())
}

/// The subject without prefixes and marks, and the outermost prefix.
pub fn strip(subject: &str) -> (&str, Prefix) {
    stripped(subject, false)
}

/// As [`strip`], without the name that a mailing list puts before its subjects.
pub fn strip_of_list(subject: &str) -> (&str, Prefix) {
    stripped(subject, true)
}

fn stripped(subject: &str, is_of_list: bool) -> (&str, Prefix) {
    let mut rest = subject.trim();
    let mut outermost = Prefix::None;
    loop {
        if let Some((kind, behind)) = first(rest) {
            if outermost == Prefix::None {
                outermost = kind;
            }
            rest = behind;
        } else if let Some(behind) = behind_name(rest)
            && (is_of_list || first(behind).is_some_and(|(kind, _)| kind != Prefix::None))
        {
            rest = behind;
        } else {
            break;
        }
    }
    // What says no more than a mark says something by it.
    while rest.ends_with([']', ')', '}', '>', '*'])
        && let Some(found) = MARK_BEHIND.find(rest)
        && let Some(before) = rest.get(..found.start())
        && before.contains(char::is_alphanumeric)
    {
        rest = before;
    }
    (rest, outermost)
}

/// The prefix or mark that stands first, and what stands behind it.
fn first(subject: &str) -> Option<(Prefix, &str)> {
    let kinds = [
        (&FORWARD, Prefix::Forward),
        (&REPLY, Prefix::Reply),
        (&MARK, Prefix::None),
    ];
    kinds.into_iter().find_map(|(regex, kind)| {
        let found = regex.find(subject)?;
        if kind == Prefix::Reply && DRIVE.is_match(subject) {
            return None;
        }
        Some((kind, subject.get(found.end()..)?))
    })
}

/// What stands behind the name of a mailing list. The number of a ticket stands in such brackets, too.
fn behind_name(subject: &str) -> Option<&str> {
    let (name, behind) = subject.strip_prefix('[')?.split_once(']')?;
    let is_name = !name.contains(|c: char| c == '#' || c.is_ascii_digit());
    let behind = behind.trim_start();
    (is_name && behind.contains(char::is_alphanumeric)).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_marks() {
        use Prefix::{Forward, None, Reply};
        let cases = [
            ("Printer down", "Printer down", None),
            ("RE: Printer down", "Printer down", Reply),
            ("AW: WG: Printer down", "Printer down", Reply),
            ("FW: RE: [EXT] Printer down", "Printer down", Forward),
            ("[EXTERNAL] Fwd: Printer", "Printer", Forward),
            ("(Extern) WG: Printer", "Printer", Forward),
            ("[EXTERNAL EMAIL] RE[2]: Printer", "Printer", Reply),
            ("***SPAM*** Doorst: Printer", "Printer", Forward),
            ("TR : Printer", "Printer", Forward),
            ("Re: [#INC-123] Mail", "[#INC-123] Mail", Reply),
            (
                "Update: RE: Mail server down",
                "Update: RE: Mail server down",
                None,
            ),
            ("[T20240820.0055] Note", "[T20240820.0055] Note", None),
            ("Change: Update Exchange", "Change: Update Exchange", None),
            ("Reset: x", "Reset: x", None),
            ("External disk full", "External disk full", None),
            ("FW:", "", Forward),
            ("(Extern) AW: Printer", "Printer", Reply),
            ("EXTERNAL: RE: Printer", "Printer", Reply),
            ("**EXTERNAL** RE: Printer", "Printer", Reply),
            ("[EXT] [SPAM?] RE: Printer", "Printer", Reply),
            ("EXT - Printer", "Printer", None),
            ("Extern - Leitung tot", "Extern - Leitung tot", None),
            ("\u{26a0}\u{fe0f} WG: Printer", "Printer", Forward),
            ("[SPAM:####] {Disarmed} Printer", "Printer", None),
            (
                "[E-Mail extern] [Externer Absender] Printer",
                "Printer",
                None,
            ),
            ("VS: Printer", "Printer", Forward),
            ("R: Printer", "Printer", Reply),
            ("R: drive is full", "R: drive is full", None),
            ("RE: R: drive is full", "R: drive is full", Reply),
            ("AW[2]: Printer", "Printer", Reply),
            (
                "Printer [ID:0048216] [secure]",
                "Printer [ID:0048216]",
                None,
            ),
            ("[signed OK] Printer (External)", "Printer", None),
            ("Printer **External**", "Printer", None),
            ("Disk is [secure] again", "Disk is [secure] again", None),
            ("[it-duty] Printer", "[it-duty] Printer", None),
            ("[it-duty] Re: Printer", "Printer", Reply),
            (
                "[Ticket#4711] Re: Printer",
                "[Ticket#4711] Re: Printer",
                None,
            ),
        ];
        for (subject, want, prefix) in cases {
            assert_eq!(strip(subject), (want, prefix), "{subject}");
        }
        let cases = [
            ("[it-duty] Printer", "Printer", None),
            ("[it-duty] AW: Printer", "Printer", Reply),
            ("AW: [it-duty] Printer", "Printer", Reply),
            ("[Ticket#4711] Printer", "[Ticket#4711] Printer", None),
            ("[T20240820.0055] Note", "[T20240820.0055] Note", None),
            ("[it-duty]", "[it-duty]", None),
        ];
        for (subject, want, prefix) in cases {
            assert_eq!(strip_of_list(subject), (want, prefix), "{subject}");
        }
    }
}
