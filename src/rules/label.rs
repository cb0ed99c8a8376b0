//! `Label: value` lines of a rendered text.
//!
//! A label begins its line; case, blanks, hyphens and underscores in it do not matter, nor do
//! bullets and asterisks around it. The value is the rest of the line and the lines below it
//! that begin with two blanks (the form in which a mail's text continues a value). An empty
//! value stays empty: the next line is not taken for it.

use std::collections::HashSet;

use super::block;

/// Bytes of a label behind a column mark.
const LABEL_BYTES_MAX: usize = 100;

/// One label line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// In the form of [`normal`].
    pub label: String,
    /// The label as the mail spells it.
    pub spelled: &'a str,
    /// What stands on the line, trimmed.
    pub value: &'a str,
    /// The rule file has that label.
    known: bool,
    /// The rule file has that label, or what stands in it behind a word for "new".
    pub is_field: bool,
    /// The index of the line in the text.
    line: usize,
    /// Labelled lines with no other text between them have the same number.
    pub block: usize,
    /// Those with no empty line between them, either.
    pub paragraph: usize,
}

/// Where an entry stands; as in [`Entry`].
#[derive(Clone, Copy)]
struct Place {
    line: usize,
    block: usize,
    paragraph: usize,
}

/// Words of an unknown label between the fields of a template; a sentence has more.
const LABEL_WORDS_MAX: usize = 3;

/// What a table of changes puts before the label of a value that holds from now on.
const NEW: [&str; 8] = [
    "new", "neu", "neue", "neuer", "neues", "nieuw", "nieuwe", "current",
];

/// A text's label lines, found once and asked often.
#[derive(Debug, Clone, Default)]
pub struct Labels<'a> {
    lines: Vec<&'a str>,
    entries: Vec<Entry<'a>>,
    /// Some label begins with a word for "new".
    has_new: bool,
}

impl<'a> Labels<'a> {
    /// `known` are the normal forms of all labels of the rule file: they end another's value
    /// on the same line, and a block.
    pub fn new(text: &'a str, known: &HashSet<String>) -> Labels<'a> {
        let lines: Vec<&str> = text.lines().collect();
        let mut entries = Vec::new();
        let (mut block, mut paragraph) = (0, 0);
        for (index, line) in lines.iter().enumerate() {
            if line.is_empty() {
                paragraph += 1;
                continue;
            }
            if is_continued(line) {
                continue;
            }
            let before = entries.len();
            let place = Place {
                line: index,
                block,
                paragraph,
            };
            read_line(line, place, known, &mut entries);
            let found = entries.get(before..).unwrap_or_default();
            if !found.iter().any(Entry::goes_on) {
                block += 1;
                paragraph += 1;
            }
        }
        let is_new = |entry: &Entry<'_>| NEW.iter().any(|word| entry.label.starts_with(word));
        Labels {
            lines,
            has_new: entries.iter().any(is_new),
            entries,
        }
    }

    /// Without the lines that are not the notification's own; see [`block`].
    pub fn own(mut self, subject: &str, answer: bool) -> Labels<'a> {
        self.entries = block::own(self.entries, subject, answer);
        self
    }

    /// The value behind `label` (in normal form) where it first stands; `Some("")` where that is
    /// empty. If it stands nowhere, the one behind `New label`.
    pub fn value(&self, label: &str) -> Option<(&Entry<'a>, String)> {
        let is_new = |entry: &&Entry<'_>| {
            entry.label.len() > label.len()
                && entry
                    .label
                    .strip_suffix(label)
                    .is_some_and(|before| NEW.contains(&before))
        };
        let plain = self.entries.iter().find(|entry| entry.label == label);
        let new = || self.entries.iter().find(is_new);
        let entry = plain.or_else(|| self.has_new.then(new).flatten())?;
        let mut value = entry.value.to_owned();
        if self.is_last_of_its_line(entry) {
            for line in self.below(entry).take_while(|line| is_continued(line)) {
                push_line(&mut value, line);
            }
        }
        Some((entry, value))
    }

    /// As [`Labels::value`], but on to the next known label or the end of the text.
    pub fn block(&self, label: &str) -> Option<(&Entry<'a>, String)> {
        let entry = self.entries.iter().find(|entry| entry.label == label)?;
        let mut value = entry.value.to_owned();
        let end = self
            .entries
            .iter()
            .filter(|other| other.line > entry.line && other.known)
            .map(|other| other.line)
            .min()
            .unwrap_or(self.lines.len());
        for line in self.below(entry).take(end - entry.line - 1) {
            push_line(&mut value, line);
        }
        let length = value.trim_end().len();
        value.truncate(length);
        Some((entry, value))
    }

    fn below(&self, entry: &Entry<'_>) -> impl Iterator<Item = &'a str> {
        self.lines.iter().skip(entry.line + 1).copied()
    }

    fn is_last_of_its_line(&self, entry: &Entry<'_>) -> bool {
        let same_line = |other: &&Entry<'_>| other.line == entry.line;
        self.entries.iter().rfind(same_line) == Some(entry)
    }
}

/// The form in which labels are compared: lower case, without blanks, hyphens, underscores,
/// dots and asterisks.
pub fn normal(label: &str) -> String {
    let mut normal = String::with_capacity(label.len());
    for c in label.chars() {
        match c {
            '-' | '_' | '.' | '*' | '\u{2011}' => {}
            c if c.is_whitespace() => {}
            c if c.is_ascii() => normal.push(c.to_ascii_lowercase()),
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

impl<'a> Entry<'a> {
    fn new(
        label: String,
        spelled: &'a str,
        value: &'a str,
        known: &HashSet<String>,
        place: Place,
    ) -> Entry<'a> {
        let is_known = known.contains(&label);
        let is_field = is_known || is_known_behind_new(&label, known);
        Entry {
            label,
            spelled,
            value,
            known: is_known,
            is_field,
            line: place.line,
            block: place.block,
            paragraph: place.paragraph,
        }
    }

    /// Whether its line goes on with a block of fields.
    fn goes_on(&self) -> bool {
        let is_short = || self.spelled.split(' ').count() <= LABEL_WORDS_MAX;
        self.is_field || !self.value.is_empty() && is_short()
    }
}

/// Whether a known label stands behind a word for "new".
fn is_known_behind_new(label: &str, known: &HashSet<String>) -> bool {
    NEW.iter()
        .filter_map(|word| label.strip_prefix(word))
        .any(|rest| known.contains(rest))
}

fn is_continued(line: &str) -> bool {
    line.starts_with("  ")
}

fn push_line(value: &mut String, line: &str) {
    if !value.is_empty() {
        value.push('\n');
    }
    value.push_str(line.trim());
}

fn read_line<'a>(
    line: &'a str,
    place: Place,
    known: &HashSet<String>,
    entries: &mut Vec<Entry<'a>>,
) {
    let mut rest = line;
    loop {
        rest = without_bullet(rest);
        let Some((spelled, after)) = rest.split_once([':', '\u{ff1a}', '\t']) else {
            // A heading: its text stands below it.
            let label = normal(rest);
            if known.contains(&label) {
                entries.push(Entry::new(label, rest.trim(), "", known, place));
            }
            return;
        };
        // `Label :<tab>value` and `Label<tab>: value` have both.
        let after = after.trim_start_matches([':', '\t', ' ']);
        let next = next_label(after, known);
        let value = match next {
            Some(at) => after.split_at(at).0,
            None => after,
        };
        let value = value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '|' | '*' | '•'));
        let label = label_of(spelled, known);
        entries.push(Entry::new(label, spelled.trim(), value, known, place));
        match next {
            Some(at) => rest = after.split_at(at).1,
            None => return,
        }
    }
}

/// A label in two languages, `Titel / Title` or `Priorität (Priority)`, is the first of them, if the rule file
/// has both.
fn label_of(spelled: &str, known: &HashSet<String>) -> String {
    let whole = normal(spelled);
    if spelled.len() > LABEL_BYTES_MAX || !spelled.contains(['/', '(']) || known.contains(&whole) {
        return whole;
    }
    let mut names = spelled
        .split(['/', '(', ')'])
        .map(normal)
        .filter(|name| !name.is_empty())
        .peekable();
    let first = names.peek().cloned();
    match names.all(|name| known.contains(&name) || is_known_behind_new(&name, known)) {
        true => first.unwrap_or(whole),
        false => whole,
    }
}

/// Where, behind a column mark, another known label begins on the same line.
fn next_label(value: &str, known: &HashSet<String>) -> Option<usize> {
    value
        .match_indices(['|', '\t', '•'])
        .map(|(at, mark)| at + mark.len())
        .find(|at| {
            let rest = value.split_at(*at).1;
            // No label is longer; without the bound, a line of marks would take time squared.
            let end = rest.ceil_char_boundary(LABEL_BYTES_MAX.min(rest.len()));
            let label = rest.split_at(end).0.split_once(':');
            label.is_some_and(|(label, _)| known.contains(&normal(label)))
        })
}

fn without_bullet(line: &str) -> &str {
    let trimmed = line.trim_start();
    trimmed
        .trim_start_matches(['*', '•', '·', '|', '‣', '▪', '–'])
        .strip_prefix("- ")
        .unwrap_or_else(|| trimmed.trim_start_matches(['*', '•', '·', '|', '‣', '▪', '–']))
        .trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(labels: &[&str]) -> HashSet<String> {
        labels.iter().map(|label| normal(label)).collect()
    }

    #[test]
    fn values() {
        let known = known(&["Priority", "Status", "Ticket ID"]);
        let cases = [
            ("Priority: High", "Priority", Some("High")),
            ("PRIORITY : High", "Priority", Some("High")),
            ("Priority\tHigh", "Priority", Some("High")),
            ("*Priority:* High", "Priority", Some("High")),
            ("- Priority: High", "Priority", Some("High")),
            ("| Priority | x", "Priority", None),
            ("Priority:\nStatus: New", "Priority", Some("")),
            ("Ticket-ID: 7", "Ticket ID", Some("7")),
            ("Priority: High | Status: New", "Status", Some("New")),
            ("Priority: High | Status: New", "Priority", Some("High")),
            ("Priority: a | b", "Priority", Some("a | b")),
            ("Titel: Laufwerk D: voll", "Titel", Some("Laufwerk D: voll")),
            ("Größe: 5", "GRÖSSE", None),
            ("GRÖßE: 5", "größe", Some("5")),
            ("Solution: one\n  two\nthree", "solution", Some("one\ntwo")),
            ("a Priority: High", "Priority", None),
            ("  Priority: High", "Priority", None),
            ("Status / Priority: High", "Status", Some("High")),
            ("Priority (Status): High", "Priority", Some("High")),
            ("Port/Status: closed", "Status", None),
        ];
        for (text, label, want) in cases {
            let labels = Labels::new(text, &known);
            let value = labels.value(&normal(label)).map(|(_, value)| value);
            assert_eq!(value.as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn a_monitors_paragraph_is_not_the_tickets_own() {
        let known = known(&["Number", "Priority", "Status"]);
        let monitor = "Host: sw-03\nPort: 12\nStatus: Closed";
        let cases = [
            (format!("Number: 12345\n\n{monitor}"), None),
            (
                format!("Number: 12345\nPriority: 1\n{monitor}"),
                Some("Closed"),
            ),
            (format!("{monitor}\nNumber: 12345"), Some("Closed")),
            (format!("Status: New\n\n{monitor}"), Some("New")),
            (
                "Number: 12345\n\nImpact: high\nCategory: LAN\nStatus: Closed".into(),
                Some("Closed"),
            ),
            (
                format!("{monitor}\nX-S4-Status: new\nX-S4-Service: a"),
                None,
            ),
        ];
        for (text, want) in &cases {
            let labels = Labels::new(text, &known).own("Ticket 12345", false);
            let value = labels.value("status").map(|(_, value)| value);
            assert_eq!(value.as_deref(), *want, "{text:?}");
            let s4 = labels.value("xs4status").is_some();
            assert_eq!(s4, text.contains("X-S4-Status"));
        }
    }

    #[test]
    fn a_line_of_marks_takes_linear_time() {
        let text = format!("a: {}", "|".repeat(2_000_000));
        assert_eq!(Labels::new(&text, &known(&["b"])).entries.len(), 1);
    }

    #[test]
    fn blocks_end_at_a_known_label() {
        let known = known(&["Description", "Status"]);
        let text = "Description:\none\nHost: db1\n\ntwo\nStatus: New\nthree";
        let labels = Labels::new(text, &known);
        let (_, value) = labels.block("description").unwrap();
        assert_eq!(value, "one\nHost: db1\n\ntwo");
    }
}
