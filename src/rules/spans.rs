//! Where in a mail the values of fields stand.
//!
//! A value is taken from a piece of the mail's text or subject, so its place is that of the piece in
//! memory; what was put together otherwise has none.

use std::ops::Range;

use crate::message::Message;

/// A place that a field's value was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub field: String,
    /// `text` or `subject`.
    pub part: &'static str,
    /// Bytes.
    pub range: Range<usize>,
}

/// A value, and the piece of the mail at which it begins, or behind whose label it stands.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    address: usize,
    /// Of the label in front of the value; 0 when it is the value's own piece.
    skip: usize,
    value: String,
}

impl Taken {
    pub fn piece(piece: &str) -> Taken {
        Taken {
            address: piece.as_ptr() as usize,
            skip: 0,
            value: piece.to_owned(),
        }
    }

    pub fn behind(label: &str, value: &str) -> Taken {
        Taken {
            address: label.as_ptr() as usize,
            skip: label.len(),
            value: value.to_owned(),
        }
    }
}

pub(super) fn locate(message: &Message, taken: &[(String, Taken)]) -> Vec<Span> {
    let parts = [("text", &message.text), ("subject", &message.subject)];
    let place = |field: &String, taken: &Taken| {
        parts.iter().find_map(|(part, text)| {
            let start = taken.address.checked_sub(text.as_ptr() as usize)?;
            let rest = text.get(start + taken.skip..)?;
            let found = value_in(rest, &taken.value)?;
            let from = start + taken.skip;
            Some(Span {
                field: field.clone(),
                part,
                range: from + found.start..from + found.end,
            })
        })
    };
    taken
        .iter()
        .filter_map(|(field, taken)| place(field, taken))
        .collect()
}

/// Where `value` stands in `text`, whatever white space stands between its words: at the beginning or
/// behind the marks that part a label from its value.
fn value_in(text: &str, value: &str) -> Option<Range<usize>> {
    let marks = |c: char| c.is_whitespace() || matches!(c, ':' | '\u{ff1a}' | '|' | '*' | '•');
    let first = value.trim_start().chars().next()?;
    let start = match text.trim_start().starts_with(first) {
        true => text.len() - text.trim_start().len(),
        false => text.len() - text.trim_start_matches(marks).len(),
    };
    let mut wanted = value.chars().filter(|c| !c.is_whitespace());
    let mut next = wanted.next();
    let mut end = start;
    for (at, c) in text.get(start..)?.char_indices() {
        let Some(want) = next else { break };
        if c.is_whitespace() {
            continue;
        }
        if c != want {
            return None;
        }
        end = start + at + c.len_utf8();
        next = wanted.next();
    }
    next.is_none().then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_behind_its_label_and_over_lines() {
        let cases = [
            (": High\nrest", "High", Some(2..6)),
            (":\n  one\n  two\nrest", "one\ntwo", Some(4..13)),
            ("High", "High", Some(0..4)),
            ("\t: x", "x", Some(3..4)),
            (": Low", "High", None),
            ("", "High", None),
            ("x", "", None),
        ];
        for (text, value, want) in cases {
            assert_eq!(value_in(text, value), want, "{text:?} {value:?}");
        }
    }

    #[test]
    fn what_is_not_a_piece_of_the_mail_has_no_place() {
        let message = Message {
            text: "Number: 17".to_owned(),
            subject: "ticket 17".to_owned(),
            ..Message::default()
        };
        let text = message.text.get(8..).unwrap();
        let label = message.text.get(..6).unwrap();
        let subject = message.subject.get(7..).unwrap();
        let elsewhere = "17".to_owned();
        let taken = [
            ("text".to_owned(), Taken::piece(text)),
            ("label".to_owned(), Taken::behind(label, "17")),
            ("subject".to_owned(), Taken::piece(subject)),
            ("none".to_owned(), Taken::piece(&elsewhere)),
        ];
        let found: Vec<(String, &str, Range<usize>)> = locate(&message, &taken)
            .into_iter()
            .map(|span| (span.field, span.part, span.range))
            .collect();
        assert_eq!(
            found,
            [
                ("text".to_owned(), "text", 8..10),
                ("label".to_owned(), "text", 8..10),
                ("subject".to_owned(), "subject", 7..9),
            ]
        );
    }
}
