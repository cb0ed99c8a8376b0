//! Overrides from the environment: `MAILBELL__SMTP__LISTEN=127.0.0.1:25` is `smtp.listen`,
//! `MAILBELL__TEAM__0__NAME` the first team's name.
//!
//! A value is JSON where it reads as JSON, else a text. Their problems are reported against the
//! variable's name; its value is never shown, because it may be a secret.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::written::Written;
use crate::diagnostic::{Diagnostic, SourceText};
use crate::document::Document;

pub const PREFIX: &str = "MAILBELL__";

/// The variables that override something. Their names make up a text of one line each, whose
/// offsets begin behind the configuration file's, so that a place tells file from variable.
#[derive(Debug)]
pub(super) struct Overrides {
    names: SourceText,
    /// Where the file's own text ends.
    base: usize,
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    path: Vec<String>,
    span: Range<usize>,
    /// The value as TOML, in the ways in which it may be meant, the likeliest first.
    readings: Vec<String>,
}

impl Overrides {
    pub(super) fn new(environment: &[(String, String)], file: &SourceText) -> Overrides {
        let base = file.text.len() + 1;
        let mut names = String::new();
        let mut variables = Vec::new();
        let mut sorted: Vec<_> = environment
            .iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(PREFIX)?.to_lowercase();
                let path: Vec<String> = path.split("__").map(str::to_owned).collect();
                Some((name, path, value))
            })
            .collect();
        // A table before what is in it, the second of a list before the tenth.
        sorted.sort_by_key(|(_, path, _)| {
            let step = |step: &String| step.parse::<usize>().map_err(|_| step.clone());
            path.iter().map(step).collect::<Vec<_>>()
        });
        for (name, path, value) in sorted {
            let start = base + names.len();
            names.push_str(name);
            names.push('\n');
            variables.push(Variable {
                path,
                span: start..start + name.len(),
                readings: readings(value),
            });
        }
        Overrides {
            names: SourceText::new("environment", names),
            base,
            variables,
        }
    }

    /// The document with every variable in its place, and what is wrong with those that have none.
    pub(super) fn apply<'a>(&'a self, document: &mut Document<'a>) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for variable in &self.variables {
            let mut no_place = None;
            let candidates: Vec<Document<'a>> = variable
                .readings
                .iter()
                .filter_map(|reading| {
                    let mut value = DeValue::parse(reading).ok()?;
                    relabel(&mut value, &variable.span);
                    let mut candidate = document.clone();
                    let root = candidate.root.get_mut();
                    match set(root, &variable.path, value, &variable.span) {
                        Ok(()) => Some(candidate),
                        Err(reason) => {
                            no_place = Some(reason);
                            None
                        }
                    }
                })
                .collect();
            if let Some(reason) = no_place {
                let key = variable.path.join(".");
                let span = variable.span.clone();
                problems.push(Diagnostic::at(&self.names, span, reason).key(key));
            }
            // Where none fits, the first reading's problem is the one that is told.
            let fitting = candidates
                .iter()
                .position(|candidate| !is_refused(candidate, variable));
            if let Some(chosen) = candidates.into_iter().nth(fitting.unwrap_or(0)) {
                *document = chosen;
            }
        }
        problems
    }

    /// A problem whose place is behind the file's text is one with a variable.
    pub(super) fn relocate(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Some(span) = diagnostic
            .span
            .clone()
            .filter(|span| span.start >= self.base)
        {
            diagnostic.source = self.names.clone();
            diagnostic.span = Some(span.start - self.base..span.end - self.base);
        }
        diagnostic
    }
}

/// JSON first; then the text itself, for a secret of digits only; then a list of texts, for a
/// bare address where a list is wanted.
fn readings(value: &str) -> Vec<String> {
    let json = serde_json::from_str::<serde_json::Value>(value)
        .ok()
        .and_then(|json| toml::Value::try_from(json).ok());
    let list = value
        .split(',')
        .map(|item| toml::Value::from(item.trim()))
        .collect();
    json.into_iter()
        .chain([toml::Value::from(value), toml::Value::Array(list)])
        .map(|value| value.to_string())
        .collect()
}

fn is_refused(document: &Document<'_>, variable: &Variable) -> bool {
    let problems = document.read::<Written>().problems;
    problems
        .iter()
        .filter_map(|problem| problem.span.as_ref())
        .any(|span| *span == variable.span)
}

/// Gives a value and all inside it the variable's place.
fn relabel(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) {
    match value.get_mut() {
        DeValue::Array(array) => array.iter_mut().for_each(|item| relabel(item, span)),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, item)| relabel(item, span)),
        _ => {}
    }
    let inner = std::mem::replace(value.get_mut(), DeValue::Boolean(false));
    *value = Spanned::new(span.clone(), inner);
}

/// An error says why there is no such place.
fn set<'a>(
    table: &mut DeTable<'a>,
    path: &'a [String],
    value: Spanned<DeValue<'a>>,
    span: &Range<usize>,
) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    let Some(next) = rest.first() else {
        table.insert(Spanned::new(span.clone(), key.as_str().into()), value);
        return Ok(());
    };
    if !table.contains_key(key.as_str()) {
        let empty = match next.parse::<usize>() {
            Ok(_) => DeValue::Array(DeArray::new()),
            Err(_) => DeValue::Table(DeTable::new()),
        };
        table.insert(
            Spanned::new(span.clone(), key.as_str().into()),
            Spanned::new(span.clone(), empty),
        );
    }
    match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => set(inner, rest, value, span),
        Some(DeValue::Array(array)) => set_item(array, key, rest, value, span),
        _ => Err(format!("`{key}` is one value, there is no `{next}` in it")),
    }
}

/// Sets inside the list `key`; an index one behind the end adds a table.
fn set_item<'a>(
    array: &mut DeArray<'a>,
    key: &str,
    path: &'a [String],
    value: Spanned<DeValue<'a>>,
    span: &Range<usize>,
) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(());
    };
    let Ok(index) = step.parse::<usize>() else {
        return Err(format!(
            "`{key}` is a list: its entries are numbered from 0"
        ));
    };
    if index == array.len() {
        array.push(Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    let length = array.len();
    let Some(item) = array.get_mut(index) else {
        return Err(format!(
            "`{key}` ends before number {length}: its entries are numbered without a gap"
        ));
    };
    match (item.get_mut(), rest.first()) {
        (_, None) => *item = value,
        (DeValue::Table(inner), Some(_)) => return set(inner, rest, value, span),
        (_, Some(next)) => {
            return Err(format!(
                "entry {index} is one value, there is no `{next}` in it"
            ));
        }
    }
    Ok(())
}
