//! Rule files as typed to a [`RuleSet`], with every problem of every file at its place.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use indexmap::IndexMap;
use regex::Regex;
use toml::Spanned;

use super::field::{Field, S4_LINES, Take};
use super::matcher::{Condition, Gates, Matcher, Subject};
use super::part::Part;
use super::pattern::{self, Defines};
use super::template::Template;
use super::written::{self, EventName, OnUnmatched, Patterns, RuleFile, Text, Want};
use super::{label, selftest};
use crate::alert::{Event, Scenario, TEXT_NAMES, TITLE_NAMES};
use crate::diagnostic::{Diagnostic, SourceText, suggestion};
use crate::document::Document;

/// All rule files in force, compiled. Immutable: a reload makes another one.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) sources: Vec<Source>,
}

/// One rule file.
#[derive(Debug)]
pub(super) struct Source {
    pub file: SourceText,
    pub name: Text,
    pub on_unmatched: OnUnmatched,
    pub customer_text_after: Vec<Regex>,
    pub gates: Gates,
    pub fields: Vec<Field>,
    /// Normal forms of all labels.
    pub labels: HashSet<String>,
    pub rules: Vec<Rule>,
    pub alert: AlertTemplates,
    pub tests: Vec<Test>,
}

#[derive(Debug)]
pub(super) struct Rule {
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
    pub split: Option<Regex>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct AlertTemplates {
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
pub(super) struct Test {
    pub name: Text,
    pub mail: selftest::TestMail,
    pub want: Vec<Want>,
}

/// What a template may name besides the file's own fields.
pub(super) const BUILT_IN: [&str; 14] = [
    "source",
    "rule",
    "event",
    "subject",
    "from",
    "text",
    "own_text",
    "customer_text",
    "description",
    "attachments",
    "reverse_path",
    "forward_path",
    "forwarded_by",
    "original_from",
];

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
        for file in files {
            let Some(source) = compile_file(file, read_mail, &mut problems) else {
                continue;
            };
            let same = |other: &&Source| other.name.get_ref() == source.name.get_ref();
            if let Some(other) = sources.iter().find(same) {
                let message = format!(
                    "source `{}` is already described by {}",
                    source.name.get_ref(),
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
            return Ok(RuleSet { sources });
        }
        problems.sort_by_key(|problem| (problem.source.path.clone(), problem.position()));
        Err(problems)
    }

    /// The names of all sources, in the order of the files.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources
            .iter()
            .map(|source| source.name.get_ref().as_str())
    }

    /// What each file holds, in the order of the files.
    pub fn summary(&self) -> Vec<Summary> {
        self.sources
            .iter()
            .map(|source| Summary {
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
pub struct Summary {
    pub name: String,
    pub fields: usize,
    pub rules: usize,
    pub tests: usize,
}

fn compile_file(
    file: &SourceText,
    read_mail: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
    problems: &mut Vec<Diagnostic>,
) -> Option<Source> {
    let document = match Document::parse(file) {
        Ok(document) => document,
        Err(found) => {
            problems.extend(found);
            return None;
        }
    };
    let (written, found) = document.read::<RuleFile>();
    // An entry that was taken out must not be reported a second time as missing.
    let complete = found.is_empty();
    problems.extend(found);
    let mut compiler = Compiler {
        file,
        problems,
        defines: Defines::new(),
        names: HashSet::new(),
        complete,
    };
    Some(compiler.source(written?, read_mail))
}

struct Compiler<'a> {
    file: &'a SourceText,
    problems: &'a mut Vec<Diagnostic>,
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
        let after = self.patterns(
            &written.source.customer_text_after,
            "source.customer_text_after",
        );
        let alert = self.alert(&written.alert, "alert", &AlertTemplates::default());
        let rules = self.rules(&written.rule, &alert);
        Source {
            file: self.file.clone(),
            name: written.source.name,
            on_unmatched: written.source.on_unmatched,
            customer_text_after: after,
            gates: Gates(gates),
            fields,
            labels,
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
            let piece = pattern::piece(self.file, piece, &self.defines);
            let piece = piece.unwrap_or_else(|problem| {
                let key = format!("define.{}", name.get_ref());
                self.problems.push(problem.key(key));
                // Its users are not to blame.
                String::new()
            });
            self.defines.insert(name.get_ref().clone(), piece);
        }
    }

    fn regex(&mut self, text: &Text, key: &str) -> Option<Regex> {
        match pattern::compile(self.file, text, &self.defines) {
            Ok(regex) => Some(regex),
            Err(problem) => {
                self.problems.push(problem.key(key));
                None
            }
        }
    }

    fn patterns(&mut self, patterns: &Patterns, key: &str) -> Vec<Regex> {
        patterns
            .0
            .iter()
            .filter_map(|text| self.regex(text, key))
            .collect()
    }

    fn fields(&mut self, written: &IndexMap<Text, written::Field>) -> Vec<Field> {
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
                let lower = |text: &String| super::collapse(text).to_lowercase();
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
    fn groups(&mut self, field: &str, regex: &Regex, text: &Text, key: &str) {
        let groups = regex.captures_len() - 1;
        let named: Vec<&str> = regex.capture_names().flatten().collect();
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

    fn gate(&mut self, written: &written::Matcher) -> Matcher {
        if let Some((name, _)) = written.field.first() {
            let message = "a gate decides before fields are taken";
            self.problem(name, "source.match.field", message).hint =
                Some("use `match.field` in a [[rule]]".to_owned());
        }
        if let Some(text) = written.heading.0.first() {
            let message = "`heading` is known only once the fields are taken";
            self.problem(text, "source.match.heading", message).hint =
                Some("use `subject` in a gate".to_owned());
        }
        self.matcher(written, "source.match")
    }

    fn matcher(&mut self, written: &written::Matcher, key: &str) -> Matcher {
        let parts: [(Part, &Patterns); 12] = [
            (Part::ReversePath, &written.reverse_path),
            (Part::ForwardPath, &written.forward_path),
            (Part::From, &written.from),
            (Part::Subject, &written.subject),
            (Part::Heading, &written.heading),
            (Part::Text, &written.text),
            (Part::OwnText, &written.own_text),
            (Part::CustomerText, &written.customer_text),
            (Part::Html, &written.html),
            (Part::Attachments, &written.attachments),
            (Part::OriginalFrom, &written.original.from),
            (Part::OriginalSubject, &written.original.subject),
        ];
        let headers = written
            .header
            .iter()
            .map(|(name, patterns)| (Part::Header(name.get_ref().to_lowercase()), patterns));
        let parts = parts
            .into_iter()
            .filter(|(_, patterns)| !patterns.0.is_empty())
            .chain(headers);
        let mut conditions: Vec<Condition> = Vec::new();
        for (part, patterns) in parts {
            conditions.push(Condition {
                regexes: self.patterns(patterns, &format!("{key}.{part}")),
                subject: Subject::Part(part),
            });
        }
        for (name, patterns) in &written.field {
            let key = format!("{key}.field.{}", name.get_ref());
            self.field_name(name, &key);
            conditions.push(Condition {
                regexes: self.patterns(patterns, &key),
                subject: Subject::Field(name.get_ref().clone()),
            });
        }
        Matcher { conditions }
    }

    fn field_name(&mut self, name: &Text, key: &str) {
        if self.complete && !self.names.contains(name.get_ref()) {
            let hint = self.meant(name.get_ref(), &[]);
            let message = format!("no field `{}` is defined", name.get_ref());
            self.problem(name, key, message).hint = Some(hint);
        }
    }

    fn meant(&self, name: &str, others: &[&str]) -> String {
        let known = self.names.iter().map(String::as_str);
        match suggestion(name, known.chain(others.iter().copied())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("define it as [fields.{name}]"),
        }
    }

    fn rules(&mut self, written: &[written::Rule], alert: &AlertTemplates) -> Vec<Rule> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut rules = Vec::new();
        for rule in written {
            let name = rule.name.get_ref().as_str();
            if let Some(at) = first.insert(name, rule.name.span().start) {
                let (line, _) = self.file.position(at);
                let message = format!("line {line} has a rule `{name}` already");
                self.problem(&rule.name, "rule.name", message).hint =
                    Some("ledger and metrics name rules: give each its own".to_owned());
            }
            rules.push(self.rule(rule, alert));
        }
        rules
    }

    fn rule(&mut self, written: &written::Rule, alert: &AlertTemplates) -> Rule {
        let key = format!("rule.{}", written.name.get_ref());
        let event = Event::from(*written.event.get_ref());
        if written.escalate && event != Event::Update {
            let message = format!("`escalate` is for updates, and this rule says `{event}`");
            self.problem(&written.name, &key, message);
        }
        if let Some(hold) = written.hold.as_ref().filter(|_| event != Event::New) {
            let message = format!("`hold` is for new tickets, and this rule says `{event}`");
            self.problem(hold, &key, message);
        }
        let matches = written.matches.0.iter();
        Rule {
            name: written.name.clone(),
            event,
            matches: matches
                .map(|matcher| self.matcher(matcher, &format!("{key}.match")))
                .collect(),
            unless: self.matcher(&written.unless, &format!("{key}.unless")),
            alert: self.alert(&written.alert, &format!("{key}.alert"), alert),
            escalate: written.escalate,
            hold: written
                .hold
                .as_ref()
                .and_then(|hold| self.duration(hold, &key)),
            split: written
                .split
                .as_ref()
                .and_then(|regex| self.regex(regex, &format!("{key}.split"))),
        }
    }

    fn duration(&mut self, text: &Text, key: &str) -> Option<Duration> {
        let parsed = text.get_ref().parse::<jiff::SignedDuration>().ok();
        let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
        if duration.is_none() {
            self.problem(text, &format!("{key}.hold"), "this is no duration")
                .hint = Some("write `60s`, `5m` or `1h`".to_owned());
        }
        duration
    }

    /// The templates of `base` with those of `written` in their place.
    fn alert(
        &mut self,
        written: &written::Alert,
        key: &str,
        base: &AlertTemplates,
    ) -> AlertTemplates {
        let mut one = |text: &Option<Text>, name: &str, base: &Option<Template>| {
            let text = text.as_ref();
            let template = text.and_then(|text| self.template(text, &format!("{key}.{name}")));
            template.or_else(|| base.clone())
        };
        let mut alert = AlertTemplates {
            external_id: one(&written.external_id, "external_id", &base.external_id),
            title: one(&written.title, "title", &base.title),
            message: one(&written.message, "message", &base.message),
            service: one(&written.service, "service", &base.service),
            location: one(&written.location, "location", &base.location),
            scenario: one(&written.scenario, "scenario", &base.scenario),
            source_system: one(&written.source_system, "source_system", &base.source_system),
            filtering: written.filtering.or(base.filtering),
            parameters: base.parameters.clone(),
        };
        if let Some(text) = &written.scenario {
            self.scenario(text, alert.scenario.as_ref(), key);
        }
        for (name, text) in &written.parameters {
            let key = format!("{key}.parameters");
            self.parameter_name(name, &key);
            let key = format!("{key}.{}", name.get_ref());
            if let Some(template) = self.template(text, &key) {
                alert.parameters.insert(name.get_ref().clone(), template);
            }
        }
        alert
    }

    fn template(&mut self, text: &Text, key: &str) -> Option<Template> {
        let (template, places) = match Template::parse(text.get_ref()) {
            Ok(parsed) => parsed,
            Err((range, message)) => {
                let span = pattern::raw_span(self.file, text.span(), range);
                let problem = Diagnostic::at(self.file, span, message).key(key);
                self.problems.push(problem);
                return None;
            }
        };
        for (range, name) in places {
            let known = self.names.contains(&name) || BUILT_IN.contains(&name.as_str());
            if self.complete && !known {
                let span = pattern::raw_span(self.file, text.span(), range);
                let message =
                    format!("`{{{name}}}` is used here, but no field `{name}` is defined");
                let problem = Diagnostic::at(self.file, span, message).key(key);
                self.problems
                    .push(problem.hint(self.meant(&name, &BUILT_IN)));
            }
        }
        Some(template)
    }

    fn scenario(&mut self, text: &Text, template: Option<&Template>, key: &str) {
        let fixed = template.is_some_and(|template| template.placeholders().next().is_none());
        if fixed && Scenario::parse(text.get_ref()).is_none() {
            let names = Scenario::ALL.map(Scenario::as_str);
            let hint = match suggestion(text.get_ref(), names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("SIGNL4 knows {}", names.join(", ")),
            };
            let message = format!("SIGNL4 has no alerting scenario `{}`", text.get_ref());
            self.problem(text, &format!("{key}.scenario"), message).hint = Some(hint);
        }
    }

    fn parameter_name(&mut self, name: &Text, key: &str) {
        let text = name.get_ref();
        let is = |other: &&str| other.eq_ignore_ascii_case(text);
        let hint = if TITLE_NAMES.iter().any(|other| is(&other)) {
            "SIGNL4 reads a parameter of this name as the title: use alert.title, or another name"
        } else if TEXT_NAMES.iter().any(|other| is(&other)) {
            "SIGNL4 reads a parameter of this name as the text: use alert.message, or another name"
        } else if text.to_lowercase().starts_with("x-s4-") {
            "SIGNL4's own parameters have keys of their own: external_id, service, location, scenario, filtering, source_system"
        } else {
            return;
        };
        let message = format!("`{text}` cannot be the name of a tile");
        self.problem(name, key, message).hint = Some(hint.to_owned());
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

impl From<EventName> for Event {
    fn from(name: EventName) -> Event {
        match name {
            EventName::New => Event::New,
            EventName::Acknowledged => Event::Acknowledged,
            EventName::Resolved => Event::Resolved,
            EventName::Update => Event::Update,
            EventName::Ignore => Event::Ignore,
        }
    }
}
