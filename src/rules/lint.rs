//! What is allowed, but hardly meant: reported by `check`, no reason to refuse a rule file.

use std::collections::HashSet;
use std::path::Path;

use super::matcher::Matcher;
use super::ruleset::{Rule, RuleSet, Source};
use super::template::Template;
use crate::alert::Event;
use crate::diagnostic::Diagnostic;

impl RuleSet {
    /// Every such finding in every file.
    pub fn lint(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for source in &self.sources {
            found.extend(file_name(source));
            found.extend(required(source));
            found.extend(open_gate(source));
            found.extend(external_id(source));
            found.extend(shared_id(source));
            unreachable(source, &mut found);
            self.untested(source, &mut found);
        }
        found
    }

    fn untested(&self, source: &Source, found: &mut Vec<Diagnostic>) {
        let mut hit: HashSet<String> = HashSet::new();
        for test in &source.tests {
            if let Ok(decisions) = self.run(source, test) {
                let own = decisions
                    .into_iter()
                    .filter(|decision| decision.source.as_ref() == Some(source.name.get_ref()));
                hit.extend(own.filter_map(|decision| decision.rule));
            }
        }
        for rule in source
            .rules
            .iter()
            .filter(|rule| !hit.contains(rule.name.get_ref()))
        {
            found.push(at(source, rule, "no test hits this rule").hint(format!(
                "add [[test]] with a mail of that kind and want = {{ rule = \"{}\" }}",
                rule.name.get_ref()
            )));
        }
    }
}

fn at(source: &Source, rule: &Rule, message: impl Into<String>) -> Diagnostic {
    Diagnostic::at(&source.file, rule.name.span(), message)
        .key(format!("rule.{}", rule.name.get_ref()))
}

fn file_name(source: &Source) -> Option<Diagnostic> {
    let stem = Path::new(&*source.file.path).file_stem()?.to_str()?;
    (stem != source.name.get_ref()).then(|| {
        let message = format!(
            "the file is called `{stem}`, the source `{}`",
            source.name.get_ref()
        );
        Diagnostic::at(&source.file, source.name.span(), message)
            .key("source.name")
            .hint("give both one name, so that the file of an alert is found at once")
    })
}

fn required(source: &Source) -> Option<Diagnostic> {
    let none = !source.fields.iter().any(|field| field.required);
    none.then(|| {
        Diagnostic::at(
            &source.file,
            source.name.span(),
            "no field of this source is required",
        )
        .key("fields")
        .hint("set required = true on the ticket's number, so that a mail without it is noticed")
    })
}

fn external_id(source: &Source) -> Option<Diagnostic> {
    let closes = |rule: &Rule| matches!(rule.event, Event::Acknowledged | Event::Resolved);
    let rule = source
        .rules
        .iter()
        .find(|rule| closes(rule) && rule.alert.external_id.is_none())?;
    let message = format!(
        "this rule says `{}`, but no external id is made",
        rule.event
    );
    Some(at(source, rule, message).hint("add external_id = \"…-{ticket_number}\" under [alert]"))
}

fn open_gate(source: &Source) -> Option<Diagnostic> {
    source.gates.0.iter().any(Matcher::always_holds).then(|| {
        let message = "a [[source.match]] without a condition takes every mail";
        Diagnostic::at(&source.file, source.name.span(), message)
            .key("source.match")
            .hint("name what only this sender's mail has: header, from, subject")
    })
}

fn shared_id(source: &Source) -> Option<Diagnostic> {
    let is_shared = |rule: &&Rule| {
        let id = rule.alert.external_id.as_ref();
        id.is_some_and(Template::is_fixed)
    };
    let rule = source.rules.iter().find(is_shared)?;
    let message = "all mails of this rule are one ticket: its external id names no field";
    Some(at(source, rule, message).hint("write external_id = \"…-{ticket_number}\" under [alert]"))
}

/// Rules behind one that always holds, or behind one with the same conditions.
fn unreachable(source: &Source, found: &mut Vec<Diagnostic>) {
    let fingerprint = |rule: &Rule| {
        let mut matches: Vec<String> = rule.matches.iter().map(|m| m.fingerprint()).collect();
        matches.sort();
        (matches, rule.unless.fingerprint())
    };
    for (index, rule) in source.rules.iter().enumerate() {
        let earlier = source.rules.iter().take(index);
        let always = |other: &&Rule| {
            let holds = other.matches.iter().any(Matcher::always_holds);
            (other.matches.is_empty() || holds) && other.unless.conditions.is_empty()
        };
        let message = if let Some(other) = earlier.clone().find(always) {
            format!(
                "never reached: `{}` above it always holds",
                other.name.get_ref()
            )
        } else if let Some(other) = earlier
            .clone()
            .find(|other| fingerprint(other) == fingerprint(rule))
        {
            format!(
                "never reached: `{}` above it has the same conditions",
                other.name.get_ref()
            )
        } else {
            continue;
        };
        found.push(
            at(source, rule, message)
                .hint("the first rule that holds decides: move it up, or narrow the one above"),
        );
    }
}
