//! Plain text to lines: format=flowed (RFC 3676) and hard wraps undone, indented values joined
//! to their labels.

use std::borrow::Cow;

use super::layout;
use super::lines::{Line, fold, label};
use crate::limits::RENDERED_BYTES_MAX;

/// How a part says its text is wrapped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wrapping {
    /// `format=flowed`
    pub flowed: bool,
    /// `delsp=yes`: the blank before a soft break is not part of the text.
    pub delete_space: bool,
}

/// Reads decoded text into finished lines.
pub fn render(text: &str, wrapping: Wrapping) -> Vec<Line> {
    let text = without_bare_returns(text);
    let text = fold(&text);
    let (text, _) = text.split_at(text.floor_char_boundary(RENDERED_BYTES_MAX));
    let raw: Vec<Cow<'_, str>> = match wrapping.flowed {
        true => unflow(text, wrapping.delete_space),
        false => unwrap(text.lines().map(str::trim_end).collect()),
    };
    let mut lines = indented(&raw);
    layout::tidy(&mut lines);
    lines
}

/// A carriage return that stands alone ends a line as well. Those before a line feed are dropped
/// with the other control characters.
fn without_bare_returns(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let bare = |at| bytes.get(at + 1) != Some(&b'\n');
    match memchr::memchr_iter(b'\r', bytes).any(bare) {
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(text),
    }
}

/// RFC 3676 4.2: a line that ends in a blank goes on in the next one of the same quote depth.
fn unflow(text: &str, delete_space: bool) -> Vec<Cow<'_, str>> {
    let mut out: Vec<Cow<'_, str>> = Vec::new();
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let depth = line.bytes().take_while(|&byte| byte == b'>').count();
        let content = line.get(depth..).unwrap_or_default();
        let content = content.strip_prefix(' ').unwrap_or(content);
        let signature = content == "-- ";
        let soft = content.ends_with(' ') && !signature;
        let kept = if soft && delete_space {
            content.strip_suffix(' ').unwrap_or(content)
        } else {
            content
        };
        match out.last_mut() {
            Some(last) if open == Some(depth) && !signature => last.to_mut().push_str(kept),
            _ => out.push(match depth {
                0 => Cow::Borrowed(kept),
                depth => Cow::Owned(format!("{} {kept}", ">".repeat(depth))),
            }),
        }
        open = soft.then_some(depth);
    }
    for line in &mut out {
        match line {
            Cow::Borrowed(text) => *text = text.trim_end(),
            Cow::Owned(text) => text.truncate(text.trim_end().len()),
        }
    }
    out
}

/// Joins lines that were broken at a fixed column. The column is what the longest line shows;
/// a line is broken there only if the next word would not have fitted.
fn unwrap(lines: Vec<&str>) -> Vec<Cow<'_, str>> {
    let lengths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    let Some(column) = lengths
        .iter()
        .copied()
        .filter(|length| (66..=80).contains(length))
        .max()
    else {
        return lines.into_iter().map(Cow::Borrowed).collect();
    };
    let mut out: Vec<Cow<'_, str>> = Vec::new();
    let mut previous = 0;
    for (line, length) in lines.into_iter().zip(lengths) {
        let word = line
            .split(' ')
            .next()
            .map_or(0, |word| word.chars().count());
        let full = (60..=80).contains(&previous) && previous + 1 + word > column;
        match out.last_mut() {
            Some(last) if full && goes_on(last, line) => {
                let last = last.to_mut();
                last.push(' ');
                last.push_str(line);
            }
            _ => out.push(Cow::Borrowed(line)),
        }
        previous = length;
    }
    out
}

fn goes_on(line: &str, next: &str) -> bool {
    let first = next.chars().next();
    let begins_anew = match first {
        None => true,
        Some(c) => c.is_whitespace() || ">|-*•·–=_#<[".contains(c),
    };
    let numbered = next.split(' ').next().is_some_and(|word| {
        word.len() <= 4
            && word.ends_with(['.', ')'])
            && word.starts_with(|c: char| c.is_ascii_digit())
    });
    let ended =
        line.ends_with(['.', '!', '?', ':', ';', '>']) && !first.is_some_and(char::is_lowercase);
    let last_word = line.rsplit(' ').next().unwrap_or_default();
    let ruled = line.chars().all(|c| !c.is_alphanumeric());
    !(begins_anew
        || numbered
        || ended
        || ruled
        || line.starts_with('>')
        || last_word.contains("://")
        || next.contains("://") && !next.contains(' ')
        || next.starts_with("http")
        || label(next).is_some()
        || next.contains('\t')
        || next.contains("   "))
}

/// Indented lines under a label belong to its value; indented blocks elsewhere are just indented.
fn indented(raw: &[Cow<'_, str>]) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::with_capacity(raw.len());
    let mut group: Vec<Line> = Vec::new();
    let mut above = Above::default();
    for line in raw {
        let content = line.trim();
        let is_indented = line.starts_with([' ', '\t']);
        if is_indented && !content.is_empty() {
            group.push(Line::new(content));
            continue;
        }
        above.place(&mut group, &mut out);
        above.see(content);
        out.push(Line::new(content));
    }
    above.place(&mut group, &mut out);
    out
}

/// What stands above an indented group.
#[derive(Default)]
struct Above {
    /// The last line in the first column is a label, with or without a value.
    label: bool,
    /// It has no value beside it.
    empty: bool,
    /// Labelled values in the first column so far. Where the fields stand there, an indented
    /// block of `Key: value` lines is somebody's text and not more fields.
    fields: usize,
}

impl Above {
    fn see(&mut self, content: &str) {
        if content.is_empty() {
            return;
        }
        let found = layout::one_label(content);
        self.label = found.is_some();
        self.empty = found.as_deref().is_some_and(|text| text.ends_with(':'));
        self.fields += usize::from(self.label && !self.empty);
    }

    fn place(&mut self, group: &mut Vec<Line>, out: &mut Vec<Line>) {
        if group.is_empty() {
            return;
        }
        let labelled = group
            .iter()
            .filter(|line| layout::one_label(&line.text).is_some())
            .count();
        let fields = self.fields == 0 && labelled >= 2 && labelled * 2 > group.len();
        let continued = self.label && !fields;
        if let ([only], Some(last)) = (group.as_slice(), out.last_mut())
            && continued
            && self.empty
            && !last.is_blank()
        {
            // The value stands alone on the line below its label.
            last.text = format!("{} {}", last.text, only.text);
            group.clear();
            self.fields += 1;
            self.empty = false;
            return;
        }
        for mut line in group.drain(..) {
            line.continued = continued;
            out.push(line);
        }
    }
}
