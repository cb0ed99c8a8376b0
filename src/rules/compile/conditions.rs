//! Gates and rules: what must hold, and what then follows.

use std::collections::HashMap;
use std::time::Duration;

use super::Compiler;
use crate::alert::Event;
use crate::rules::matcher::{Condition, Matcher, Subject};
use crate::rules::part::Part;
use crate::rules::ruleset::{AlertTemplates, Rule};
use crate::rules::written::{self, Patterns, Text};

impl Compiler<'_> {
    pub(super) fn gate(&mut self, written: &written::Matcher) -> Matcher {
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
        let parts: [(Part, &Patterns); 13] = [
            (Part::ReversePath, &written.reverse_path),
            (Part::ForwardPath, &written.forward_path),
            (Part::From, &written.from),
            (Part::Subject, &written.subject),
            (Part::Prefix, &written.prefix),
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

    pub(super) fn rules(&mut self, written: &[written::Rule], alert: &AlertTemplates) -> Vec<Rule> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut rules = Vec::new();
        for rule in written {
            let name = rule.name.get_ref().as_str();
            if let Some(at) = first.insert(name, rule.name.span().start)
                && !name.is_empty()
            {
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
        let key = match written.name.get_ref().as_str() {
            "" => "rule".to_owned(), // it has been told that it is missing
            name => format!("rule.{name}"),
        };
        let event = *written.event.get_ref();
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
}
