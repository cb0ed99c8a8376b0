//! Which labelled lines of a text are the notification's own.
//!
//! A customer's sentence may hold a line like `Status: Closed`, above or below the fields of the
//! ticket system. What tells them apart: a template sets its fields in one block, and that block
//! repeats the number or the title that stand in the mail's subject. A block that contradicts it
//! is somebody else's, and none of its lines count.

use std::collections::{HashMap, HashSet};

use super::label::Entry;

/// Letters and digits that a value needs to be recognised in the subject.
const ANCHOR_CHARS_MIN: usize = 4;

/// Known labels that make a block of fields by their number alone.
const OWN_LABELS_MIN: usize = 3;

/// Keeps the entries that count. `fields` tells which entries have a label of the rule file. Of
/// an answer, whose text is a person's, only blocks that repeat the subject count, and X-S4-*
/// lines, which nobody writes by chance.
pub fn own<'a>(
    entries: Vec<Entry<'a>>,
    fields: impl Fn(&Entry<'a>) -> bool,
    subject: &str,
    answer: bool,
) -> Vec<Entry<'a>> {
    let subject = without_blanks(subject);
    let mut anchored: HashSet<usize> = HashSet::new();
    let mut known: HashMap<usize, HashSet<&str>> = HashMap::new();
    for entry in entries
        .iter()
        .filter(|entry| !entry.value.is_empty() && fields(entry))
    {
        known
            .entry(entry.block)
            .or_default()
            .insert(entry.label.as_str());
        if !anchored.contains(&entry.block) && is_repeated(entry.value, &subject) {
            anchored.insert(entry.block);
        }
    }
    if anchored.is_empty() && !answer {
        anchored.extend(by_number(&known));
    }
    if anchored.is_empty() && !answer {
        return entries;
    }
    let foreign = contradicting(&entries, &anchored, &fields);
    let counts = |entry: &Entry<'_>| match answer {
        true => anchored.contains(&entry.block) || entry.label.starts_with("xs4"),
        false => !foreign.contains(&entry.block),
    };
    let counting: Vec<bool> = entries.iter().map(counts).collect();
    let mut counting = counting.into_iter();
    let mut entries = entries;
    entries.retain(|_| counting.next().unwrap_or(true));
    entries
}

/// Where the first block is a line or two, another one that has many fields.
fn by_number(known: &HashMap<usize, HashSet<&str>>) -> Option<usize> {
    let first = known.iter().min_by_key(|(block, _)| **block)?.1.len();
    let (block, labels) = known.iter().max_by_key(|(block, labels)| {
        // On a tie the upper one.
        (labels.len(), usize::MAX - **block)
    })?;
    let enough = first < OWN_LABELS_MIN && labels.len() >= OWN_LABELS_MIN.max(2 * first);
    enough.then_some(*block)
}

/// The blocks that give another value for a label of an anchored one.
fn contradicting<'a>(
    entries: &[Entry<'a>],
    anchored: &HashSet<usize>,
    fields: &impl Fn(&Entry<'a>) -> bool,
) -> HashSet<usize> {
    let own = |entry: &&Entry<'_>| anchored.contains(&entry.block);
    let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
    for entry in entries.iter().filter(own) {
        let seen = values.entry(entry.label.as_str()).or_default();
        seen.insert(entry.value);
    }
    entries
        .iter()
        .filter(|entry| !own(entry) && !entry.value.is_empty() && fields(entry))
        .filter(|entry| {
            let own = values.get(entry.label.as_str());
            own.is_some_and(|own| !own.contains(entry.value))
        })
        .map(|entry| entry.block)
        .collect()
}

/// A number or several words; one common word stands in a subject by chance.
fn is_repeated(value: &str, subject: &str) -> bool {
    let words = value.split(" <http").next().unwrap_or_default();
    let telling = words.contains(|c: char| c.is_ascii_digit()) || words.trim().contains(' ');
    let bare = without_blanks(words);
    let bare = bare.trim_matches(|c: char| matches!(c, '[' | ']' | '(' | ')' | '#'));
    let long = bare.chars().nth(ANCHOR_CHARS_MIN - 1).is_some();
    telling && long && bare.len() <= subject.len() && subject.contains(bare)
}

fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
