//! `[fields]`: what to take, from where, and which groups give which values.

use indexmap::IndexMap;
use toml::Spanned;

use super::Compiler;
use crate::diagnostic::{Diagnostic, suggestion};
use crate::message::squeeze;
use crate::rules::field::{Field, S4_LINES, Take};
use crate::rules::label;
use crate::rules::part::Part;
use crate::rules::pattern::Pattern;
use crate::rules::written::{self, Text};

impl Compiler<'_> {
    pub(super) fn fields(&mut self, written: &IndexMap<Text, written::Field>) -> Vec<Field> {
        self.names.extend(
            ["forwarded_by", "original_from"]
                .into_iter()
                .chain(S4_LINES.iter().map(|(_, name)| *name))
                .map(str::to_owned),
        );
        self.names
            .extend(written.keys().map(|name| name.get_ref().clone()));
        written
            .iter()
            .map(|(name, field)| {
                let key = format!("fields.{}", name.get_ref());
                if field.take.is_empty() && field.default.is_none() && self.complete {
                    self.problem(name, &key, "this field takes nothing").hint =
                        Some("add take = [{ label = [\"…\"] }]".to_owned());
                }
                let lower = |text: &String| squeeze(text).to_lowercase();
                Field {
                    name: name.get_ref().clone(),
                    required: field.required,
                    takes: field
                        .take
                        .iter()
                        .filter_map(|take| self.take(name.get_ref(), take, &format!("{key}.take")))
                        .collect(),
                    default: field.default.clone(),
                    map: field
                        .map
                        .iter()
                        .map(|(from, to)| (lower(from), to.clone()))
                        .collect(),
                    none: field.none.iter().map(lower).collect(),
                    never: field
                        .never
                        .as_ref()
                        .and_then(|text| self.regex(text, &format!("{key}.never"))),
                }
            })
            .collect()
    }

    fn take(&mut self, field: &str, take: &Spanned<written::Take>, key: &str) -> Option<Take> {
        let at = take.span();
        let written = take.get_ref();
        let mut refuse = |message: &str, hint: &str| {
            let problem = Diagnostic::at(self.file, at.clone(), message).key(key);
            self.problems.push(problem.hint(hint));
        };
        let has_label = !written.label.0.is_empty();
        if !has_label && written.regex.is_none() {
            refuse(
                "this try needs `label` or `regex`",
                "such as { label = [\"Priority\"] }",
            );
            return None;
        }
        if written.last && has_label {
            refuse(
                "`last` goes with `regex` alone",
                "a label counts where it stands first",
            );
        }
        if written.block && !has_label {
            refuse(
                "`block` goes with `label`",
                "a regex takes a block with `(?s)`",
            );
        }
        let default = if has_label { Part::OwnText } else { Part::Text };
        let part = match &written.part {
            None => default,
            Some(name) => self.part(name, key)?,
        };
        let regex = match &written.regex {
            None => None,
            Some(text) => {
                let regex = self.regex(text, key)?;
                self.groups(field, &regex, text, key);
                Some(regex)
            }
        };
        let also_in = match &written.also_in {
            None => None,
            Some(name) => Some(self.part(name, key)?),
        };
        let never = match &written.never {
            None => None,
            Some(text) => Some(self.regex(text, &format!("{key}.never"))?),
        };
        let labels = written.label.0.iter().map(|label| {
            let label = label.get_ref();
            (label.clone(), label::normal(label))
        });
        Some(Take {
            part,
            labels: labels.collect(),
            block: written.block,
            regex,
            last: written.last,
            also_in,
            never,
        })
    }

    fn part(&mut self, name: &Text, key: &str) -> Option<Part> {
        let part = Part::parse(name.get_ref());
        if part == Some(Part::Heading) {
            self.problem(
                name,
                key,
                "`heading` is known only once the fields are taken",
            )
            .hint = Some(
                "use it in `match` of a [[rule]]; a field can be taken from `subject`".to_owned(),
            );
        }
        if part.is_none() {
            let hint = match suggestion(name.get_ref(), Part::NAMES) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the parts are: {}<name>", Part::NAMES.join(", ")),
            };
            let message = format!("a mail has no part `{}`", name.get_ref());
            self.problem(name, &format!("{key}.in"), message).hint = Some(hint);
        }
        part
    }

    /// Exactly one group, or named ones.
    fn groups(&mut self, field: &str, regex: &Pattern, text: &Text, key: &str) {
        let groups = regex.groups().len();
        let named: Vec<&str> = regex
            .groups()
            .iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let (message, hint) = match groups {
            1 => return,
            0 => (
                "this regex has no group, so it takes nothing".to_owned(),
                "put round brackets around what is the value".to_owned(),
            ),
            _ if named.len() == groups => {
                self.names.extend(named.into_iter().map(str::to_owned));
                return;
            }
            _ => (
                format!("this regex has {groups} groups, but one value is wanted"),
                format!("write `(?:…)` for groups that take nothing, or name all: `(?<{field}>…)`"),
            ),
        };
        self.problem(text, key, message).hint = Some(hint);
    }
}
