//! A TOML text to a typed value, with every problem found on the way, each at its place.
//!
//! Owns the recovery: an entry that does not fit is reported, taken out, and reading goes on,
//! so that an administrator sees all mistakes at once. Must not know what the keys mean.

pub mod quoted;

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

    /// What could be read, and every entry that could not. The value is missing only when
    /// nothing could be made of the document even without those entries.
    pub fn read<T: DeserializeOwned>(&self) -> (Option<T>, Vec<Diagnostic>) {
        let mut root = self.root.clone();
        let mut problems: Vec<Diagnostic> = Vec::new();
        let mut removed = HashSet::new();
        while problems.len() < limits::DIAGNOSTICS_MAX {
            let error = match T::deserialize(Deserializer::from(root.clone())) {
                Ok(value) => return (Some(value), problems),
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
            if !is_missing && !is_told {
                problems.push(problem);
            }
            let path = path_in(&root);
            if path.is_empty() || !remove(root.get_mut(), &path) {
                break;
            }
            removed.insert(key);
        }
        (None, problems)
    }
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
    let (message, hint) = in_plain_words(&message);
    Diagnostic {
        message,
        hint,
        ..diagnostic.key(key)
    }
}

/// serde's words ("unknown field `x`, expected one of `a`, `b`", serde::de::Error) in those of
/// somebody who edits a file, and what to do about it.
fn in_plain_words(message: &str) -> (String, Option<String>) {
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
        let hint = "a list stands in square brackets: [ \"one\", \"two\" ]";
        return (
            format!("a list is wanted, not {found}"),
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

fn remove(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((Step::Key(key), rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return table.remove(key.as_str()).is_some();
    }
    table
        .get_mut(key.as_str())
        .is_some_and(|value| remove_value(value.get_mut(), rest))
}

fn remove_value(value: &mut DeValue<'_>, path: &[Step]) -> bool {
    match (value, path.split_first()) {
        (DeValue::Table(table), Some((Step::Key(_), _))) => remove(table, path),
        (DeValue::Array(array), Some((Step::Index(index), rest))) if *index < array.len() => {
            if rest.is_empty() {
                *array = std::mem::replace(array, DeArray::new())
                    .into_iter()
                    .enumerate()
                    .filter_map(|(at, item)| (at != *index).then_some(item))
                    .collect();
                return true;
            }
            array
                .get_mut(*index)
                .is_some_and(|item| remove_value(item.get_mut(), rest))
        }
        _ => false,
    }
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
        let (value, problems) = Document::parse(&source).unwrap().read::<Root>();
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
        assert_eq!(value.unwrap().team.len(), 1);
    }

    #[test]
    fn what_was_taken_out_is_told_once() {
        let source = SourceText::new("x.toml", "[[team]]\nname = 1\n");
        let (_, problems) = Document::parse(&source).unwrap().read::<Root>();
        let found: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(found, ["team[0].name"]);
    }

    #[test]
    fn syntax_errors_come_all_at_once() {
        let source = SourceText::new("x.toml", "a = \nb = ]\n");
        assert!(Document::parse(&source).unwrap_err().len() >= 2);
    }
}
