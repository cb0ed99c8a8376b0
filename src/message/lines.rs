//! Lines of rendered text, and the folding of characters that look like blanks or like nothing.

use std::borrow::Cow;

/// One line while a mail is being read; see the module above for the form of the finished text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// No line break, no outer blanks, runs of blanks collapsed (kept in preformatted text).
    pub text: String,
    /// Belongs to the value above it; written with two blanks before it.
    pub continued: bool,
    /// Quoting around the line: `>` marks or `<blockquote>`s.
    pub depth: u8,
    /// The quoting is a mail program's (`>`, `type=cite`, `gmail_quote`), not a layout's.
    pub cited: bool,
    /// Bytes at the beginning of `text` that are set in bold.
    pub lead: usize,
}

impl Line {
    pub fn new(text: impl Into<String>) -> Line {
        Line {
            text: text.into(),
            ..Line::default()
        }
    }

    pub fn is_blank(&self) -> bool {
        self.text.is_empty()
    }
}

/// Label and value of a `Label: value` line. A label is a few words that begin with a letter;
/// a time (`10:17`), a URL or a sentence is none.
pub fn label(text: &str) -> Option<(&str, &str)> {
    let colon = memchr::memchr(b':', text.as_bytes())?;
    let (label, rest) = (text.get(..colon)?, text.get(colon + 1..)?);
    let label = label.trim_end();
    let value = match rest.chars().next() {
        None => "",
        Some(c) if c.is_whitespace() => rest.trim_start(),
        Some(_) => return None,
    };
    is_label(label).then_some((label, value))
}

/// Whether `text` could name a field.
pub fn is_label(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '#') {
        return false;
    }
    let (mut length, mut words, mut last) = (0, 1, b' ');
    for byte in text.bytes() {
        let never = matches!(
            byte,
            b'<' | b'>' | b'"' | b'!' | b'?' | b',' | b';' | b'|' | b'@' | b'\t'
        );
        // The first bytes of characters in UTF-8.
        length += usize::from(!(0x80..0xc0).contains(&byte));
        words += usize::from(byte == b' ');
        if never || length > 40 || words > 6 || byte == b' ' && last == b'.' {
            return false;
        }
        last = byte;
    }
    last != b'.'
}

/// Joins lines into the finished form: no line of blanks only, never two empty lines in a row,
/// none at the ends, two blanks before a continued line.
pub fn join(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut empty = true;
    for line in lines {
        if line.is_blank() {
            if !empty {
                out.push('\n');
                empty = true;
            }
            continue;
        }
        if line.continued && !out.is_empty() {
            out.push_str("  ");
        }
        out.push_str(&line.text);
        out.push('\n');
        empty = false;
    }
    out.truncate(out.trim_end().len());
    out
}

/// Folds what looks like a blank or a hyphen into one, and drops what looks like nothing. Tabs and line
/// breaks stay.
pub fn fold(text: &str) -> Cow<'_, str> {
    // The bytes beyond ASCII with which those characters begin in UTF-8.
    let stays = |byte: u8| match byte {
        b' '..=b'~' | b'\n' | b'\t' => true,
        0xc2 | 0xcd | 0xd8 | 0xe1..=0xe3 | 0xef => false,
        byte => byte >= 0x80,
    };
    // Without a way out of the loop, it is many bytes at a time.
    if text.bytes().fold(true, |all, byte| all & stays(byte)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.bytes().position(|byte| !stays(byte));
        let (run, other) = rest.split_at(run.unwrap_or(rest.len()));
        out.push_str(run);
        let mut other = other.chars();
        other.next().into_iter().for_each(|c| fold_one(c, &mut out));
        rest = other.as_str();
    }
    Cow::Owned(out)
}

fn fold_one(c: char, out: &mut String) {
    match c {
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            out.push(' ');
        }
        // Hyphens of a typesetter, such as editors put into a ticket's number.
        '\u{2010}' | '\u{2011}' => out.push('-'),
        '\u{2028}' | '\u{2029}' | '\u{85}' => out.push('\n'),
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{200c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => {}
        // The joiner inside an emoji is part of it.
        '\u{200d}' if !out.ends_with(|last: char| last >= '\u{2190}') => {}
        '\n' | '\t' => out.push(c),
        c if c.is_control() => {}
        c => out.push(c),
    }
}

/// Runs of white space become one blank, the ends are trimmed.
pub fn squeeze(text: &str) -> Cow<'_, str> {
    if is_squeezed(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    // Most lines are squeezed as they are.
    for line in text.split('\n').map(str::trim) {
        if is_squeezed(line) {
            append(&mut out, line);
        } else {
            line.split_whitespace()
                .for_each(|word| append(&mut out, word));
        }
    }
    Cow::Owned(out)
}

/// Behind a blank, if there is anything.
fn append(out: &mut String, words: &str) {
    if !out.is_empty() && !words.is_empty() {
        out.push(' ');
    }
    out.push_str(words);
}

/// May say no although it is, to texts with control characters or beyond ASCII.
pub fn is_squeezed(text: &str) -> bool {
    let bytes = text.as_bytes();
    // White space beyond ASCII begins with these bytes in UTF-8. Without a branch, it is many bytes at
    // a time.
    let single = |byte: u8| {
        (byte >= b' ') & (byte != 0x7f) & (byte != 0xc2) & !(0xe1..=0xe3).contains(&byte)
    };
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    !text.starts_with(' ')
        && !text.ends_with(' ')
        && bytes.iter().fold(true, |all, &byte| all & single(byte))
        && pairs.fold(true, |all, (&one, &next)| {
            all & ((one != b' ') | (next != b' '))
        })
}

/// At most `bytes` bytes, cut between characters.
pub fn truncate(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let cases = [
            ("Priority: High", Some(("Priority", "High"))),
            ("Priority:", Some(("Priority", ""))),
            (
                "Titel: Störung: Kühlung",
                Some(("Titel", "Störung: Kühlung")),
            ),
            ("X-S4-Status: new", Some(("X-S4-Status", "new"))),
            ("Ticket #: 4", Some(("Ticket #", "4"))),
            ("10:17 Uhr", None),
            ("https://a.example", None),
            ("05.08.2024 09:02 Käthe:", None),
            ("Please note that all of the following holds: x", None),
        ];
        for (text, want) in cases {
            assert_eq!(label(text), want, "{text}");
        }
    }

    #[test]
    fn folding() {
        assert_eq!(fold("a\u{a0}b\u{202f}c\u{200b}d\u{ad}e\u{feff}"), "a b cde");
        assert_eq!(fold("👨\u{200d}👩"), "👨\u{200d}👩");
        assert_eq!(fold("a\u{200d}b\rc\0"), "abc");
    }
}
