//! Rule files, compiled: what a decision runs on.

use std::time::Duration;

use super::customer::Marks;
use super::field::Field;
use super::index::Index;
use super::matcher::{Gates, Matcher};
use super::pattern::Pattern;
use super::selftest::TestMail;
use super::template::Template;
use super::written::{OnUnmatched, Text, Want};
use crate::alert::Event;
use crate::diagnostic::SourceText;
use indexmap::IndexMap;

/// All rule files in force, compiled. Immutable: a reload makes another one.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) sources: Vec<Source>,
    pub(super) index: Index,
}

/// One rule file.
#[derive(Debug)]
pub struct Source {
    pub file: SourceText,
    pub name: Text,
    pub on_unmatched: OnUnmatched,
    pub marks: Marks,
    pub gates: Gates,
    pub fields: Vec<Field>,
    pub rules: Vec<Rule>,
    pub alert: AlertTemplates,
    pub tests: Vec<Test>,
}

#[derive(Debug)]
pub struct Rule {
    pub name: Text,
    pub event: Event,
    /// One of them must hold; with none, the rule always holds.
    pub matches: Vec<Matcher>,
    /// None of its conditions may hold.
    pub unless: Matcher,
    /// The file's templates with this rule's in place.
    pub alert: AlertTemplates,
    pub escalate: bool,
    pub hold: Option<Duration>,
    pub split: Option<Pattern>,
}

#[derive(Debug, Clone, Default)]
pub struct AlertTemplates {
    pub external_id: Option<Template>,
    pub title: Option<Template>,
    pub message: Option<Template>,
    pub service: Option<Template>,
    pub location: Option<Template>,
    pub scenario: Option<Template>,
    pub source_system: Option<Template>,
    pub filtering: Option<bool>,
    pub parameters: IndexMap<String, Template>,
}

#[derive(Debug)]
pub struct Test {
    pub name: Text,
    pub mail: TestMail,
    pub want: Vec<Want>,
}

impl RuleSet {
    /// The names of all sources, in the order of the files.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources
            .iter()
            .map(|source| source.name.get_ref().as_str())
    }

    /// What each file holds, in the order of the files.
    pub fn summary(&self) -> Vec<SourceCounts> {
        self.sources
            .iter()
            .map(|source| SourceCounts {
                name: source.name.get_ref().clone(),
                fields: source.fields.len(),
                rules: source.rules.len(),
                tests: source.tests.len(),
            })
            .collect()
    }
}

/// The numbers of one rule file, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCounts {
    pub name: String,
    pub fields: usize,
    pub rules: usize,
    pub tests: usize,
}
