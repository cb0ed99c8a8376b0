//! Rule files as typed to a [`RuleSet`], with every problem of every file at its place.

mod alert;
mod conditions;
mod fields;
mod regexes;

use std::collections::HashSet;

use indexmap::IndexMap;
use toml::Spanned;

use self::regexes::{Defines, Known};
use super::customer::Marks;
use super::field::{Field, S4_LINES};
use super::index::Index;
use super::label;
use super::matcher::Gates;
use super::pattern::Pattern;
use super::ruleset::{AlertTemplates, RuleSet, Source, Test};
use super::selftest;
use super::shipped::is_shipped;
use super::written::{self, Patterns, RuleFile, Text};
use crate::diagnostic::{Diagnostic, SourceText, suggestion};
use crate::document::Document;

impl RuleSet {
    /// Compiles all files together, in the order given. `read_mail` gives the bytes of a test's
    /// `mail.file`: the first argument is the rule file's path, the second the path as written,
    /// which is relative to that file.
    pub fn compile(
        files: &[SourceText],
        read_mail: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
    ) -> Result<RuleSet, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut sources: Vec<Source> = Vec::new();
        let mut known = Known::default();
        for file in files {
            let Some(source) = compile_file(file, read_mail, &mut known, &mut problems) else {
                continue;
            };
            let name = source.name.get_ref();
            let same = |other: &&Source| other.name.get_ref() == name && !name.is_empty();
            if let Some(other) = sources.iter().find(same) {
                let message = format!(
                    "source `{name}` is already described by {}",
                    other.file.path
                );
                problems.push(
                    Diagnostic::at(file, source.name.span(), message)
                        .key("source.name")
                        .hint("one file, one source: merge the two or rename one"),
                );
            }
            sources.push(source);
        }
        if problems.is_empty() {
            let index = Index::of(&sources);
            return Ok(RuleSet { sources, index });
        }
        problems.sort_by_key(|problem| (problem.source.path.clone(), problem.position()));
        Err(problems)
    }
}

fn compile_file(
    file: &SourceText,
    read_mail: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
    known: &mut Known,
    problems: &mut Vec<Diagnostic>,
) -> Option<Source> {
    let document = match Document::parse(file) {
        Ok(document) => document,
        Err(found) => {
            problems.extend(found);
            return None;
        }
    };
    known.shipped = is_shipped(file);
    let read = document.read::<RuleFile>();
    problems.extend(read.problems);
    let mut compiler = Compiler {
        file,
        problems,
        known,
        defines: Defines::new(),
        names: HashSet::new(),
        // An entry that was taken out must not be reported a second time as missing.
        complete: read.is_whole,
    };
    Some(compiler.source(read.value?, read_mail))
}

struct Compiler<'a> {
    file: &'a SourceText,
    problems: &'a mut Vec<Diagnostic>,
    known: &'a mut Known,
    defines: Defines,
    /// Every field that a mail can have in this file.
    names: HashSet<String>,
    complete: bool,
}

impl Compiler<'_> {
    fn source(
        &mut self,
        written: RuleFile,
        read_mail: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
    ) -> Source {
        self.schema(written.schema.as_ref());
        self.define(&written.define);
        let fields = self.fields(&written.fields);
        let gates = written.source.gates.0.iter();
        let gates = gates.map(|gate| self.gate(gate)).collect::<Vec<_>>();
        if gates.is_empty() && self.complete {
            let name = &written.source.name;
            self.problem(
                name,
                "source.match",
                "without a gate no mail reaches this file",
            )
            .hint = Some("add [[source.match]] with, for example, subject = ['…']".to_owned());
        }
        let mut labels: HashSet<String> = fields.iter().flat_map(labels_of).collect();
        labels.extend(S4_LINES.iter().map(|(label, _)| (*label).to_owned()));
        let after = &written.source.customer_text_after;
        let headings = written.source.customer_headings.0.iter();
        let marks = Marks {
            after: self.patterns(after, "source.customer_text_after"),
            headings: headings
                .map(|heading| label::normal(heading.get_ref()))
                .collect(),
            labels,
        };
        let alert = self.alert(&written.alert, "alert", &AlertTemplates::default());
        let rules = self.rules(&written.rule, &alert);
        Source {
            file: self.file.clone(),
            name: written.source.name,
            on_unmatched: written.source.on_unmatched,
            marks,
            gates: Gates(gates),
            fields,
            rules,
            alert,
            tests: self.tests(written.test, read_mail),
        }
    }

    fn problem(&mut self, at: &Text, key: &str, message: impl Into<String>) -> &mut Diagnostic {
        let problem = Diagnostic::at(self.file, at.span(), message).key(key);
        self.problems.push(problem);
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn schema(&mut self, schema: Option<&Spanned<u32>>) {
        if let Some(schema) = schema.filter(|schema| *schema.get_ref() != 1) {
            let message = format!("this program reads schema 1, not {}", schema.get_ref());
            let problem = Diagnostic::at(self.file, schema.span(), message).key("schema");
            self.problems.push(problem);
        }
    }

    fn define(&mut self, written: &IndexMap<Text, Text>) {
        for (name, piece) in written {
            let piece = regexes::piece(self.file, piece, &self.defines, self.known);
            let piece = piece.unwrap_or_else(|problem| {
                let key = format!("define.{}", name.get_ref());
                self.problems.push(problem.key(key));
                // Its users are not to blame.
                String::new()
            });
            self.defines.insert(name.get_ref().clone(), piece);
        }
    }

    fn regex(&mut self, text: &Text, key: &str) -> Option<Pattern> {
        match regexes::compile(self.file, text, &self.defines, self.known) {
            Ok(regex) => Some(regex),
            Err(problem) => {
                self.problems.push(problem.key(key));
                None
            }
        }
    }

    fn patterns(&mut self, patterns: &Patterns, key: &str) -> Vec<Pattern> {
        patterns
            .0
            .iter()
            .filter_map(|text| self.regex(text, key))
            .collect()
    }

    fn meant(&self, name: &str, others: &[&str]) -> String {
        let known = self.names.iter().map(String::as_str);
        match suggestion(name, known.chain(others.iter().copied())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("define it as [fields.{name}]"),
        }
    }

    fn tests(
        &mut self,
        written: Vec<written::Test>,
        read_mail: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
    ) -> Vec<Test> {
        written
            .into_iter()
            .map(|test| {
                let path = self.file.path.clone();
                let read = |name: &str| read_mail(&path, name);
                Test {
                    mail: selftest::TestMail::new(test.mail, &read),
                    name: test.name,
                    want: test.want.0,
                }
            })
            .collect()
    }
}

fn labels_of(field: &Field) -> Vec<String> {
    let labels = field.takes.iter().flat_map(|take| &take.labels);
    labels.map(|(_, normal)| normal.clone()).collect()
}
