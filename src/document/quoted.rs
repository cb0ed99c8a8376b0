//! Where in the file a byte of a quoted string's value stands: escapes and line breaks make the two
//! differ. Pure.

use std::ops::Range;

use crate::diagnostic::SourceText;

/// Bytes of the file for bytes of the string that stands at `span` of it.
pub fn span_of(source: &SourceText, span: Range<usize>, value: Range<usize>) -> Range<usize> {
    let Some(raw) = source.text.get(span.clone()) else {
        return span;
    };
    let offsets = raw_offsets(raw);
    let at = |offset: usize| {
        let found = offsets.get(offset).copied();
        span.start + found.unwrap_or(raw.len().saturating_sub(1))
    };
    let start = at(value.start);
    // A caret needs something to stand under.
    start..at(value.end).max(start + 1).min(span.end.max(start + 1))
}

/// For each byte of a TOML string's value, where it begins in the string as written.
fn raw_offsets(raw: &str) -> Vec<usize> {
    let (quote, literal) = match raw {
        _ if raw.starts_with("'''") => (3, true),
        _ if raw.starts_with("\"\"\"") => (3, false),
        _ if raw.starts_with('\'') => (1, true),
        _ => (1, false),
    };
    let mut offsets = Vec::with_capacity(raw.len());
    let body_end = raw.len().saturating_sub(quote);
    let mut at = quote;
    if quote == 3 {
        at += raw.get(at..).map_or(0, |rest| match rest {
            _ if rest.starts_with("\r\n") => 2,
            _ if rest.starts_with('\n') => 1,
            _ => 0,
        });
    }
    while let Some(c) = raw.get(at..body_end).and_then(|rest| rest.chars().next()) {
        if c == '\\' && !literal {
            let (length, value_bytes) = escape(raw.get(at..body_end).unwrap_or_default());
            offsets.extend(std::iter::repeat_n(at, value_bytes));
            at += length;
        } else {
            offsets.extend(std::iter::repeat_n(at, c.len_utf8()));
            at += c.len_utf8();
        }
    }
    offsets.push(at);
    offsets
}

/// Bytes of an escape as written, and of what it stands for.
fn escape(text: &str) -> (usize, usize) {
    let hex = |digits: usize| {
        let code = text
            .get(2..2 + digits)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let bytes = code.and_then(char::from_u32).map_or(1, char::len_utf8);
        (2 + digits, bytes)
    };
    match text.chars().nth(1) {
        Some('u') => hex(4),
        Some('U') => hex(8),
        Some('x') => hex(2),
        Some(c) if c.is_whitespace() => {
            let rest = text.get(1..).unwrap_or_default();
            (1 + rest.len() - rest.trim_start().len(), 0)
        }
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_strings_as_written() {
        let cases = [
            (r"'ab'", vec![1, 2, 3]),
            (r#""a\tb""#, vec![1, 2, 4, 5]),
            (r#""\u00e9x""#, vec![1, 1, 7, 8]),
            ("'''\nab'''", vec![4, 5, 6]),
            (r#""\\d""#, vec![1, 3, 4]),
        ];
        for (raw, want) in cases {
            assert_eq!(raw_offsets(raw), want, "{raw}");
        }
    }
}
