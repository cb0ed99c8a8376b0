//! What mail programs and gateways put before a subject.

use std::sync::LazyLock;

use regex::Regex;

use super::header;

static FORWARD: LazyLock<Regex> =
    LazyLock::new(|| prefix("fwd?|wg|doorst|doorgestuurd|tr|enc|rv|weitergeleitet|transfert"));

static REPLY: LazyLock<Regex> =
    LazyLock::new(|| prefix("re|aw|antw|antwort|sv|vs|res|r[ée]p|odp|betr"));

fn prefix(words: &str) -> Regex {
    let number = r"\[\d+\]|\(\d+\)|\^\d+|\*\d+";
    Regex::new(&format!(
        r"(?i)^\s*(?:{words})\s*(?:{number})?\s*[:\u{{ff1a}}]\s*"
    ))
    .expect("a literal pattern")
}

static MARK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)^\s*
        (?: [\[({<]+ \s* (?: caution | warning | warnung | achtung | let \s op )? [\s:!-]*
              (?: ext | extern | externe? | external | outside | spam\?? | (?: possible | suspected | potential ) \s spam
                | caution | bulk | junk )
              (?: [\s-]* (?: e-?mail | mail | sender | message | absender | afzender | nachricht ) )? \s* [:!]* \s* [\])}>]+
          | \*{2,} \s* (?: spam | suspected \s spam | external | extern ) \s* \*{2,}
          | (?: external | extern ) \s* (?: e-?mail )? \s* : )
        \s*[-:]?\s*",
    )
    .expect("a literal pattern")
});

/// What the first prefix of a subject says of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    None,
    Reply,
    Forward,
}

/// The decoded subject, prefixes kept, of a mail whose beginning this is.
pub fn of_beginning(raw: &[u8]) -> Option<String> {
    let (fields, _) = header::split(raw);
    let field = fields.iter().find(|field| field.name == "subject")?;
    Some(field.text().trim().to_owned())
}

/// The subject without prefixes and marks, and the outermost prefix.
pub fn strip(subject: &str) -> (&str, Prefix) {
    let mut rest = subject.trim();
    let mut outermost = Prefix::None;
    loop {
        let (found, kind) = if let Some(found) = FORWARD.find(rest) {
            (found, Prefix::Forward)
        } else if let Some(found) = REPLY.find(rest) {
            (found, Prefix::Reply)
        } else if let Some(found) = MARK.find(rest) {
            (found, Prefix::None)
        } else {
            return (rest, outermost);
        };
        if outermost == Prefix::None {
            outermost = kind;
        }
        rest = rest.get(found.end()..).unwrap_or_default();
    }
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
        ];
        for (subject, want, prefix) in cases {
            assert_eq!(strip(subject), (want, prefix), "{subject}");
        }
    }
}
