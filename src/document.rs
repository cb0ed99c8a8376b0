//! A TOML text to a typed value, with every problem found on the way, each at its place.
//!
//! Owns the recovery: an entry that does not fit is reported, taken out, and reading goes on,
//! so that an administrator sees all mistakes at once. Must not know what the keys mean.

pub mod quoted;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use crate::diagnostic::{Diagnostic, SourceText, suggestion};
use crate::limits;

/// A TOML text whose syntax is right.
#[derive(Debug, Clone)]
pub struct Document<'a> {
    pub source: &'a SourceText,
    pub root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Where the value of `section.key` stands, if there is one and it is neither a list nor in one.
    pub fn value(&self, key: &str) -> Option<Range<usize>> {
        let mut table = self.root.get_ref();
        let mut steps = key.split('.').peekable();
        while let Some(step) = steps.next() {
            let value = table.get(step)?;
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::Array(_) => return None,
                _ => return steps.peek().is_none().then(|| value.span()),
            }
        }
        None
    }

    /// Every syntax error of the text, or the document.
    pub fn parse(source: &'a SourceText) -> Result<Document<'a>, Vec<Diagnostic>> {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            return Err(errors
                .iter()
                .take(limits::DIAGNOSTICS_MAX)
                .map(|error| from_error(source, error, String::new()))
                .collect());
        }
        Ok(Document { source, root })
    }

    /// What could be read, and every entry that could not.
    pub fn read<T: DeserializeOwned>(&self) -> Read<T> {
        let mut root = self.root.clone();
        let mut problems: Vec<Diagnostic> = Vec::new();
        let (mut removed, mut filled) = (HashSet::new(), HashSet::new());
        while problems.len() < limits::DIAGNOSTICS_MAX {
            let error = match T::deserialize(Deserializer::from(root.clone())) {
                Ok(value) => {
                    return Read {
                        value: Some(value),
                        problems,
                        is_whole: removed.is_empty(),
                    };
                }
                Err(error) => error,
            };
            let path_in = |root: &Spanned<DeTable<'_>>| {
                error
                    .span()
                    .and_then(|span| locate(root.get_ref(), &span))
                    .unwrap_or_default()
            };
            // Entries taken out of a list have moved the later ones: the name comes from the whole.
            let key = dotted(&path_in(&self.root));
            let problem = from_error(self.source, &error, key.clone());
            // Of what was taken out, others come that are none: it is missing, or what it stood in is
            // as unknown as it was.
            let is_missing =
                missing(&error).is_some_and(|name| removed.contains(&format!("{key}.{name}")));
            let is_told = problems
                .last()
                .is_some_and(|last| last.span == problem.span && last.message == problem.message);
            let path = path_in(&root);
            // What stands in a file is never so narrow.
            let is_narrow = error.span().is_some_and(|span| span.is_empty());
            let is_ours = is_narrow && filled.contains(&dotted(&path));
            if !is_missing && !is_told && !is_ours {
                problems.push(problem);
            }
            // An empty text in the place of what is missing lets the rest be read, where a text is wanted.
            if let Some(name) = missing(&error) {
                let at = error.span().map_or(0, |span| span.start);
                let way = [path.as_slice(), &[Step::Key(name.to_owned())]].concat();
                if filled.insert(dotted(&way)) && fill(root.get_mut(), &path, name, at) {
                    continue;
                }
            }
            if path.is_empty() || !remove(root.get_mut(), &path) {
                break;
            }
            removed.insert(key);
        }
        Read {
            value: None,
            problems,
            is_whole: false,
        }
    }
}

/// What was made of a document.
#[derive(Debug)]
pub struct Read<T> {
    /// Missing only when nothing could be made of it even without the entries that do not fit. With
    /// problems it is good for nothing but to find more of them.
    pub value: Option<T>,
    pub problems: Vec<Diagnostic>,
    /// Nothing was left out of the value.
    pub is_whole: bool,
}

/// The key that serde misses.
fn missing(error: &toml::de::Error) -> Option<&str> {
    let name = error.message().trim().strip_prefix("missing field `")?;
    name.strip_suffix('`')
}

/// One step from a table or an array to what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// `team[1].addresses`
pub fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn from_error(source: &SourceText, error: &toml::de::Error, key: String) -> Diagnostic {
    let message = error.message().trim().replace('\n', ", ");
    let diagnostic = match error.span() {
        Some(span) => Diagnostic::at(source, span, ""),
        None => Diagnostic::of_file(source, ""),
    };
    let (message, hint) = in_plain_words(&message, &key);
    Diagnostic {
        message,
        hint,
        ..diagnostic.key(key)
    }
}

/// serde's words ("unknown field `x`, expected one of `a`, `b`", serde::de::Error) in those of
/// somebody who edits a file, and what to do about it.
fn in_plain_words(message: &str, key: &str) -> (String, Option<String>) {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let closest = |what: &str| {
        let (unknown, known) = names.split_first()?;
        Some(match suggestion(unknown, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the {what} here are: {}", known.join(", ")),
        })
    };
    let unknown = names.first().copied().unwrap_or_default();
    if message.starts_with("unknown field") {
        return (format!("unknown key `{unknown}`"), closest("keys"));
    }
    if message.starts_with("unknown variant") {
        return (
            format!("`{unknown}` is not one of the values"),
            closest("values"),
        );
    }
    if message.ends_with("expected a nonzero usize") {
        return ("a whole number above zero is wanted".to_owned(), None);
    }
    if message == "invalid socket address syntax" {
        let hint = "write address and port, such as \"127.0.0.1:2525\" or \"[::1]:2525\"";
        return ("not a socket address".to_owned(), Some(hint.to_owned()));
    }
    if let Some(found) = message.strip_suffix(", expected a sequence") {
        let found = found.trim_start_matches("invalid type: ");
        let hint = match found {
            "map" => format!("there may be several: write [[{key}]], in double brackets"),
            _ => "a list stands in square brackets: [ \"one\", \"two\" ]".to_owned(),
        };
        let found = found.replace("map", "one section");
        return (format!("a list is wanted, not {found}"), Some(hint));
    }
    if let Some((found, _)) = message.split_once(", expected struct ") {
        let found = found.trim_start_matches("invalid type: ");
        let hint = "one stands in braces: { key = \"value\" }, or in lines of its own below its name in brackets";
        return (
            format!("keys and values are wanted, not {found}"),
            Some(hint.to_owned()),
        );
    }
    (message.replace("missing field", "missing key"), None)
}

/// The way to the smallest entry that covers `wanted`. A `[table]`'s span is its header only,
/// so every entry is looked at, not only those inside a covering one.
fn locate(table: &DeTable<'_>, wanted: &Range<usize>) -> Option<Vec<Step>> {
    let mut best: Option<(usize, Vec<Step>)> = None;
    walk_table(table, &mut Vec::new(), &mut |path, span| {
        let covers = span.start <= wanted.start && wanted.end <= span.end;
        let length = span.end - span.start;
        // On a tie the deeper entry wins: it is the one that can be taken out alone.
        if covers
            && best
                .as_ref()
                .is_none_or(|(shortest, _)| length <= *shortest)
        {
            best = Some((length, path.to_vec()));
        }
    });
    best.map(|(_, path)| path)
}

fn walk_table(
    table: &DeTable<'_>,
    path: &mut Vec<Step>,
    visit: &mut impl FnMut(&[Step], Range<usize>),
) {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        visit(path, key.span());
        walk_value(value, path, visit);
        path.pop();
    }
}

fn walk_value(
    value: &Spanned<DeValue<'_>>,
    path: &mut Vec<Step>,
    visit: &mut impl FnMut(&[Step], Range<usize>),
) {
    visit(path, value.span());
    match value.get_ref() {
        DeValue::Table(table) => walk_table(table, path, visit),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                path.push(Step::Index(index));
                walk_value(item, path, visit);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Puts an empty text into the table at `path`, so narrow that no other entry is mistaken for it.
fn fill(root: &mut DeTable<'_>, path: &[Step], name: &str, at: usize) -> bool {
    let Some(table) = table_at(root, path) else {
        return false;
    };
    let key = Spanned::new(at..at, Cow::Owned(name.to_owned()));
    let text = Spanned::new(at..at, DeValue::String(Cow::Borrowed("")));
    table.insert(key, text).is_none()
}

fn remove(root: &mut DeTable<'_>, path: &[Step]) -> bool {
    match path.split_last() {
        None => false,
        Some((Step::Key(key), path)) => {
            table_at(root, path).is_some_and(|table| table.remove(key.as_str()).is_some())
        }
        Some((Step::Index(index), path)) => match value_at(root, path) {
            Some(DeValue::Array(array)) if *index < array.len() => {
                *array = std::mem::replace(array, DeArray::new())
                    .into_iter()
                    .enumerate()
                    .filter_map(|(at, item)| (at != *index).then_some(item))
                    .collect();
                true
            }
            _ => false,
        },
    }
}

/// The document's own table where the path is empty.
fn table_at<'t, 'a>(root: &'t mut DeTable<'a>, path: &[Step]) -> Option<&'t mut DeTable<'a>> {
    if path.is_empty() {
        return Some(root);
    }
    match value_at(root, path)? {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn value_at<'t, 'a>(root: &'t mut DeTable<'a>, path: &[Step]) -> Option<&'t mut DeValue<'a>> {
    let (Step::Key(first), rest) = path.split_first()? else {
        return None;
    };
    let mut value = root.get_mut(first.as_str())?.get_mut();
    for step in rest {
        let inner = match (value, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str())?,
            (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index)?,
            _ => return None,
        };
        value = inner.get_mut();
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Root {
        listen: Option<Vec<String>>,
        size: Option<u32>,
        #[serde(default)]
        team: Vec<Team>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Team {
        name: String,
        addresses: Option<Vec<String>>,
    }

    #[test]
    fn every_problem_is_found_at_its_place() {
        let source = SourceText::new(
            "x.toml",
            "lisen = ['a']\nsize = 'big'\n[[team]]\nname = 'a'\nadresses = []\n[[team]]\naddresses = [1, 'b']\n",
        );
        let Read {
            value, problems, ..
        } = Document::parse(&source).unwrap().read::<Root>();
        let found: Vec<_> = problems
            .iter()
            .map(|p| (p.position(), p.key.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ((1, 1), "lisen"),
                ((2, 8), "size"),
                ((5, 1), "team[0].adresses"),
                ((7, 14), "team[1].addresses[0]"),
                ((6, 1), "team[1]"),
            ]
        );
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `listen`?"));
        assert_eq!(value.unwrap().team.len(), 2);
    }

    #[test]
    fn what_is_missing_hides_nothing_beside_it() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct File {
            source: Named,
            team: Vec<Numbered>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Named {
            name: Spanned<String>,
            size: Option<u32>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Numbered {
            name: String,
            number: u32,
            size: Option<u32>,
        }
        let text = "[source]\nsize = 'big'\n[[team]]\nsize = 1\n[[team]]\nnumber = 'x'\nsise = 1\n";
        let source = SourceText::new("x.toml", text);
        let read = Document::parse(&source).unwrap().read::<File>();
        let mut found: Vec<_> = read.problems.iter().collect();
        found.sort_by_key(|problem| problem.position());
        let found = found
            .iter()
            .map(|p| (p.position().0, p.key.as_str(), p.message.as_str()));
        let string = "invalid type: string \"big\", expected u32";
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                (1, "source", "missing key `name`"),
                (2, "source.size", string),
                (3, "team[0]", "missing key `name`"),
                (3, "team[0]", "missing key `number`"),
                (5, "team[1]", "missing key `name`"),
                (
                    6,
                    "team[1].number",
                    "invalid type: string \"x\", expected u32"
                ),
                (7, "team[1].sise", "unknown key `sise`"),
            ]
        );
        assert_eq!(read.value.unwrap().source.name.get_ref(), "");
        assert!(!read.is_whole);
        let source = SourceText::new("x.toml", "team = []\n[source]\n");
        let read = Document::parse(&source).unwrap().read::<File>();
        assert_eq!((read.problems.len(), read.is_whole), (1, true));
    }

    #[test]
    fn what_was_taken_out_is_told_once() {
        let source = SourceText::new("x.toml", "[[team]]\nname = 1\n");
        let problems = Document::parse(&source).unwrap().read::<Root>().problems;
        let found: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(found, ["team[0].name"]);
    }

    #[test]
    fn syntax_errors_come_all_at_once() {
        let source = SourceText::new("x.toml", "a = \nb = ]\n");
        assert!(Document::parse(&source).unwrap_err().len() >= 2);
    }
}
