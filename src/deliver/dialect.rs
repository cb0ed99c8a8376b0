//! SIGNL4's mail dialect (FORMATS.md 1.5): an alert as a subject and `Key: Value` lines. Pure.
//!
//! One line for each entry. What a ticket says cannot start a line of its own, so it cannot forge
//! another key, such as a status.

use serde_json::Value;

use crate::alert::Alert;
use crate::limits::DIALECT_VALUE_BYTES_MAX;

/// An alert as a plain-text mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub subject: String,
    pub body: String,
}

pub fn write(alert: &Alert) -> Written {
    let mut body = String::new();
    for (name, value) in alert.entries() {
        if name == "Title" {
            continue;
        }
        let value = match value {
            Value::String(text) => one_line(&text),
            other => other.to_string(),
        };
        let name = one_line(name).replace(':', " ");
        if !value.is_empty() && !name.is_empty() {
            body.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    Written {
        subject: one_line(&alert.title),
        body,
    }
}

/// Lines joined by ` / `; other control characters become blanks.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(DIALECT_VALUE_BYTES_MAX));
    for piece in text
        .split(is_line_break)
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
    {
        if !line.is_empty() {
            line.push_str(" / ");
        }
        line.extend(piece.chars().map(|c| if c.is_control() { ' ' } else { c }));
        if line.len() > DIALECT_VALUE_BYTES_MAX {
            line.truncate(line.floor_char_boundary(DIALECT_VALUE_BYTES_MAX));
            line.push('…');
            break;
        }
    }
    line
}

/// Everything that a mail program may show, or a parser may take, as the end of a line.
fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::{ExternalId, Status};

    fn alert(title: &str, message: &str, parameter: (&str, &str)) -> Alert {
        Alert {
            title: title.to_owned(),
            message: message.to_owned(),
            status: Status::Resolved,
            external_id: ExternalId::new("KIX-1"),
            source_system: Some("KIX".to_owned()),
            service: None,
            location: None,
            scenario: None,
            filtering: Some(true),
            parameters: vec![(parameter.0.to_owned(), parameter.1.to_owned())],
        }
    }

    #[test]
    fn one_line_for_each_entry() {
        let written = write(&alert(
            "Disk\nfull",
            "a\r\n\r\nb: c\u{2028}d",
            ("Prio: x", "high\tnow"),
        ));
        assert_eq!(written.subject, "Disk / full");
        assert_eq!(
            written.body,
            "Message: a / b: c / d\r\nPrio  x: high now\r\nX-S4-ExternalID: KIX-1\r\nX-S4-Status: resolved\r\nX-S4-SourceSystem: KIX\r\nX-S4-Filtering: true\r\n"
        );
    }

    proptest! {
        #[test]
        fn no_value_starts_a_line(title in any::<String>(), message in any::<String>(), value in any::<String>()) {
            let written = write(&alert(&title, &message, ("Tile", &value)));
            prop_assert!(!written.subject.contains(is_line_break));
            let keys = ["Message", "Tile", "X-S4-ExternalID", "X-S4-Status", "X-S4-SourceSystem", "X-S4-Filtering"];
            let mut expected = keys.iter();
            for line in written.body.split_terminator("\r\n") {
                prop_assert!(!line.contains(is_line_break));
                let key = line.split(':').next().unwrap_or_default();
                prop_assert!(expected.any(|k| *k == key), "{line}");
            }
        }

        #[test]
        fn a_huge_message_is_cut_at_a_character(text in "[äö€😀]{1,40}") {
            let line = one_line(&text.repeat(2000));
            prop_assert!(line.len() <= DIALECT_VALUE_BYTES_MAX + '…'.len_utf8());
        }
    }
}
