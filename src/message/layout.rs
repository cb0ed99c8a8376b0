//! The ways in which people and templates write a label and its value, brought to
//! `Label: value` on one line. Works on the lines of plain text and of HTML alike.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::lines::{Line, is_label, is_squeezed, label, squeeze};
use super::link;
use super::stacked;
use crate::limits::RENDERED_BYTES_MAX;

/// `*Priority:* High`, `**Priority**: High`: bold, as programs write it into plain text.
static STARRED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\*{1,2}([^*:]{1,40}?)\s*(?::\s*\*{1,2}|\*{1,2}\s*:)\s*(.*)$")
        .expect("a literal pattern")
});

/// Two columns without a colon between them.
static COLUMNS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(\S+(?: \S+){0,5})(?:\t+| {2,})\s*([^:\s].*)$").expect("a literal pattern")
});

/// A list's mark, an arrow or an emoji before a label.
static BULLET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:[-*•·–»›]|\p{So}|\p{Sm})\x{fe0f}?\s+").expect("a literal pattern")
});

/// Brings all lines to their finished form.
pub fn tidy(lines: &mut Vec<Line>) {
    bound(lines);
    for line in lines.iter_mut() {
        take_quote_marks(line);
    }
    columns(lines);
    leads(lines);
    for line in lines.iter_mut() {
        match one_label(&line.text) {
            Some(text) if text == line.text => line.lead = 0,
            Some(text) => (line.text, line.lead) = (text.into_owned(), 0),
            None => {}
        }
    }
    stacked::join(lines);
    for line in lines.iter_mut() {
        if let Cow::Owned(text) = link::unwrap_all(&line.text) {
            line.text = text;
        }
        if let Cow::Owned(text) = squeeze(&line.text) {
            line.text = text;
        }
        line.lead = line.lead.min(line.text.len());
    }
}

/// Drops what is beyond the bound; the line that crosses it is cut.
fn bound(lines: &mut Vec<Line>) {
    let mut left = RENDERED_BYTES_MAX;
    let mut kept = 0;
    for line in lines.iter_mut() {
        if left == 0 {
            break;
        }
        if line.text.len() > left {
            line.text.truncate(line.text.floor_char_boundary(left));
            line.lead = 0;
        }
        left = left.saturating_sub(line.text.len() + 1);
        kept += 1;
    }
    lines.truncate(kept);
}

/// `> > text` is text in two quotations.
fn take_quote_marks(line: &mut Line) {
    let mut rest = line.text.as_str();
    let mut depth = 0_u8;
    while let Some(inner) = rest.trim_start().strip_prefix('>') {
        rest = inner;
        depth = depth.saturating_add(1);
    }
    if depth > 0 {
        line.text = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        line.depth = line.depth.saturating_add(depth);
        line.cited = true;
        line.lead = 0;
    }
}

/// `Label   : value`, `- Label: value`, `Label ....: value`, `| Label | value |`.
pub(super) fn one_label(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim();
    if text.starts_with('*')
        && let Some(found) = STARRED.captures(text)
    {
        return Some(Cow::Owned(format!("{}: {}", &found[1], &found[2])));
    }
    if let Some(cells) = text
        .strip_prefix('|')
        .and_then(|text| text.strip_suffix('|'))
    {
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        if let [name, value] = cells.as_slice()
            && is_label(name.trim_end_matches(':'))
        {
            let name = name.trim_end_matches(':');
            return Some(Cow::Owned(format!("{name}: {value}")));
        }
        return None;
    }
    let bare = match text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => text,
        false => BULLET
            .find(text)
            .map_or(text, |mark| text.split_at(mark.end()).1),
    };
    let colon = memchr::memchr2_iter(b':', b'\xef', bare.as_bytes()).find(|&at| {
        bare.get(at..)
            .is_some_and(|text| text.starts_with([':', '\u{ff1a}']))
    })?;
    let (name, value) = bare.split_at(colon);
    let value = value.strip_prefix([':', '\u{ff1a}'])?;
    let padded = name.ends_with(|c: char| c.is_whitespace() || c == '.');
    let apart = value.is_empty() || value.starts_with(char::is_whitespace) || is_tight(name, value);
    let name = squeeze(name.trim_end_matches(|c: char| c.is_whitespace() || c == '.'));
    if !is_label(&name) || !(padded || apart) || value.starts_with("//") {
        return None;
    }
    let value = value.trim();
    let behind_name = bare.strip_prefix(&*name);
    let behind_colon = behind_name.and_then(|text| text.strip_prefix(':'));
    Some(match behind_colon {
        Some(text) if text.is_empty() || text.strip_prefix(' ') == Some(value) => {
            Cow::Borrowed(bare)
        }
        _ if value.is_empty() => Cow::Owned(format!("{name}:")),
        _ => Cow::Owned(format!("{name}: {value}")),
    })
}

/// `Priority:High`, with the blank forgotten; but not `https:`, `C:\\` or `10:17`.
fn is_tight(name: &str, value: &str) -> bool {
    let scheme = [
        "http", "https", "mailto", "tel", "ftp", "file", "cid", "urn",
    ];
    name.chars().count() >= 2
        && name.split(' ').count() <= 3
        && name.ends_with(|c: char| c.is_alphabetic() || matches!(c, '#' | ')'))
        && value.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '#' | '[' | '"' | '„'))
        && !scheme.contains(&name.to_lowercase().as_str())
}

/// Label and value in two columns, if at least two lines in a row are set like that.
fn columns(lines: &mut [Line]) {
    let split = |line: &Line| {
        if is_squeezed(&line.text) {
            return None;
        }
        let found = COLUMNS.captures(&line.text)?;
        let name = found[1].trim_end_matches(':');
        (!name.contains(':') && is_label(name) && !line.continued)
            .then(|| format!("{name}: {}", &found[2]))
    };
    let found: Vec<Option<String>> = lines.iter().map(split).collect();
    for (at, text) in found.iter().enumerate() {
        let neighbour =
            |at: Option<usize>| at.and_then(|at| found.get(at)).is_some_and(Option::is_some);
        if let (Some(text), Some(line)) = (text, lines.get_mut(at))
            && (neighbour(at.checked_sub(1)) || neighbour(at.checked_add(1)))
        {
            line.text.clone_from(text);
            line.lead = 0;
        }
    }
}

/// `<b>Label</b> value`: the bold beginning is a label when it has a colon, or when its
/// neighbours are labelled lines too.
fn leads(lines: &mut [Line]) {
    if lines.iter().all(|line| line.lead == 0) {
        return;
    }
    let found: Vec<Lead> = lines.iter().map(Lead::of).collect();
    for (at, lead) in found.iter().enumerate() {
        let (Lead::Candidate(text) | Lead::Sure(text)) = lead else {
            continue;
        };
        let beside = |offset: isize| at.checked_add_signed(offset).and_then(|at| found.get(at));
        let near = |sign: isize| match beside(sign) {
            // Paragraphs: the next one must be set in the very same way.
            Some(Lead::Blank) => matches!(beside(2 * sign), Some(Lead::Candidate(_))),
            Some(Lead::None) | None => false,
            Some(_) => true,
        };
        let sure = matches!(lead, Lead::Sure(_)) || near(-1) || near(1);
        if let Some(line) = lines.get_mut(at)
            && sure
        {
            line.text.clone_from(text);
            line.lead = 0;
        }
    }
}

enum Lead {
    Blank,
    None,
    /// A labelled line by itself.
    Labelled,
    Candidate(String),
    Sure(String),
}

impl Lead {
    fn of(line: &Line) -> Lead {
        if line.is_blank() {
            return Lead::Blank;
        }
        let plain = match label(&line.text) {
            Some((_, value)) if !value.is_empty() => Lead::Labelled,
            _ => Lead::None,
        };
        if line.lead == 0 || line.lead >= line.text.len() || line.continued {
            return plain;
        }
        let Some((name, value)) = line.text.split_at_checked(line.lead) else {
            return plain;
        };
        let (name, value) = (name.trim(), value.trim());
        let bare = name.trim_end_matches([':', ' ']);
        if !is_label(bare) || bare.contains(':') {
            return plain;
        }
        if name.ends_with(':') {
            return Lead::Sure(format!("{bare}: {value}"));
        }
        if let Some(value) = value.strip_prefix(':') {
            return Lead::Sure(format!("{bare}: {}", value.trim()));
        }
        if matches!(plain, Lead::Labelled)
            || value.starts_with(['.', ',', ';', ')', '(', '!', '?', '\'', '/'])
        {
            return plain;
        }
        Lead::Candidate(format!("{bare}: {value}"))
    }
}
