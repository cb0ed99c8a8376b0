//! Which labelled lines of a text are the notification's own.
//!
//! A customer's sentence may hold a line like `Status: Closed`, above or below the fields of the
//! ticket system. What tells them apart: a template sets its fields in one block, and that block
//! repeats the number or the title that stand in the mail's subject. A block that contradicts it
//! is somebody else's, and none of its lines count. Nor do those of a paragraph that a monitor wrote: its
//! `Status: Closed` is that of a port.

use std::collections::{HashMap, HashSet};

use super::label::Entry;

/// Letters and digits that a value needs to be recognised in the subject.
const ANCHOR_CHARS_MIN: usize = 4;

/// Known labels that make a block of fields by their number alone.
const OWN_LABELS_MIN: usize = 3;

/// Lines of a paragraph that may be a monitor's, and the labels in it that make it one.
const MONITOR_LINES_MIN: usize = 3;
const MONITOR_LABELS_MIN: usize = 2;

/// Labels by which monitors say what they watch, in the form of entries.
const MONITOR_LABELS: [&str; 39] = [
    "host",
    "hostname",
    "server",
    "device",
    "devicename",
    "node",
    "instance",
    "computer",
    "machine",
    "ip",
    "ipaddress",
    "port",
    "interface",
    "monitor",
    "check",
    "sensor",
    "probe",
    "trigger",
    "alertname",
    "metric",
    "value",
    "currentvalue",
    "threshold",
    "severity",
    "output",
    "since",
    "duration",
    "lastcheck",
    "eventid",
    "gerät",
    "rechner",
    "schnittstelle",
    "wert",
    "schwellwert",
    "seit",
    "apparaat",
    "waarde",
    "sinds",
    "service",
];

/// Labelled lines with no other text between them.
#[derive(Default)]
struct Block<'a> {
    /// The labels of the rule file in it.
    labels: Vec<&'a str>,
    /// It repeats the subject, or is taken for one that does.
    anchored: bool,
    /// It contradicts an anchored one.
    foreign: bool,
}

/// Keeps the entries that count. Of an answer, whose text is a person's, only blocks that repeat
/// the subject count, and X-S4-* lines, which nobody writes by chance.
pub fn own<'a>(mut entries: Vec<Entry<'a>>, subject: &str, answer: bool) -> Vec<Entry<'a>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let subject = without_blanks(subject);
    let monitors = of_monitors(&entries, &subject);
    entries.retain(|entry| !monitors.contains(&entry.paragraph) || is_s4(entry));
    for entry in &entries {
        blocks.resize_with(blocks.len().max(entry.block + 1), Block::default);
        let Some(block) = blocks.last_mut().filter(|_| counts(entry)) else {
            continue;
        };
        if !block.labels.contains(&entry.label.as_str()) {
            block.labels.push(&entry.label);
        }
        block.anchored = block.anchored || is_repeated(entry.value, &subject);
    }
    let mut any = blocks.iter().any(|block| block.anchored);
    if !any
        && !answer
        && let Some(block) = by_number(&mut blocks)
    {
        block.anchored = true;
        any = true;
    }
    if !any && !answer {
        return entries;
    }
    find_foreign(&entries, &mut blocks);
    let kept: Vec<bool> = entries
        .iter()
        .map(|entry| {
            let block = blocks.get(entry.block);
            match answer {
                true => block.is_some_and(|block| block.anchored) || is_s4(entry),
                false => block.is_none_or(|block| !block.foreign),
            }
        })
        .collect();
    let mut kept = kept.into_iter();
    entries.retain(|_| kept.next().unwrap_or(true));
    entries
}

/// Paragraphs in which at most half of the labels are the rule file's, none of these repeats the
/// subject, and several others are a monitor's.
fn of_monitors(entries: &[Entry<'_>], subject: &str) -> HashSet<usize> {
    let paragraphs = entries.chunk_by(|one, next| one.paragraph == next.paragraph);
    let watches = |entry: &&Entry<'_>| MONITOR_LABELS.contains(&entry.label.as_str());
    let is_own = |entry: &&Entry<'_>| entry.is_field && !watches(entry);
    let is_monitors = |lines: &&[Entry<'_>]| {
        lines.len() >= MONITOR_LINES_MIN
            && lines.iter().filter(watches).count() >= MONITOR_LABELS_MIN
            && lines.iter().filter(is_own).count() * 2 <= lines.len()
            && !lines
                .iter()
                .any(|entry| is_own(&entry) && is_repeated(entry.value, subject))
    };
    paragraphs
        .filter(is_monitors)
        .filter_map(|lines| lines.first())
        .map(|entry| entry.paragraph)
        .collect()
}

/// An X-S4-* line.
fn is_s4(entry: &Entry<'_>) -> bool {
    entry.label.starts_with("xs4")
}

/// Whether it tells anything about its block.
fn counts(entry: &Entry<'_>) -> bool {
    entry.is_field && !entry.value.is_empty()
}

/// Where the first block is a line or two, another one that has many fields.
fn by_number<'b, 'a>(blocks: &'b mut [Block<'a>]) -> Option<&'b mut Block<'a>> {
    let known = || blocks.iter().filter(|block| !block.labels.is_empty());
    let first = known().next()?.labels.len();
    let most = known().map(|block| block.labels.len()).max()?;
    let enough = first < OWN_LABELS_MIN && most >= OWN_LABELS_MIN.max(2 * first);
    let mut blocks = blocks.iter_mut();
    // On a tie the upper one.
    blocks.find(|block| enough && block.labels.len() == most)
}

/// The blocks that give another value for a label of an anchored one.
fn find_foreign(entries: &[Entry<'_>], blocks: &mut [Block<'_>]) {
    let is_own = |blocks: &[Block<'_>], entry: &Entry<'_>| {
        let block = blocks.get(entry.block);
        block.is_some_and(|block| block.anchored)
    };
    let others: Vec<&Entry<'_>> = entries
        .iter()
        .filter(|entry| counts(entry) && !is_own(blocks, entry))
        .collect();
    if others.is_empty() {
        return;
    }
    let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
    for entry in entries.iter().filter(|entry| is_own(blocks, entry)) {
        let seen = values.entry(entry.label.as_str()).or_default();
        seen.insert(entry.value);
    }
    for entry in others {
        let own = values.get(entry.label.as_str());
        let contradicts = own.is_some_and(|own| !own.contains(entry.value));
        if let Some(block) = blocks.get_mut(entry.block).filter(|_| contradicts) {
            block.foreign = true;
        }
    }
}

/// A number or several words; one common word stands in a subject by chance.
fn is_repeated(value: &str, subject: &str) -> bool {
    let words = value.split(" <http").next().unwrap_or_default();
    if !words.contains(|c: char| c.is_ascii_digit()) && !words.trim().contains(' ') {
        return false;
    }
    let bare = without_blanks(words);
    let bare = bare.trim_matches(|c: char| matches!(c, '[' | ']' | '(' | ')' | '#'));
    let long = bare.chars().nth(ANCHOR_CHARS_MIN - 1).is_some();
    long && bare.len() <= subject.len() && subject.contains(bare)
}

fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
