//! Gates and the conditions of rules, compiled.

use std::fmt;

use super::explain::{Recorder, quoted};
use super::mail::Mail;
use super::part::Part;
use super::pattern::Pattern;
use super::values::Values;

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Part(Part),
    /// An extracted field.
    Field(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Part(part) => part.fmt(f),
            Subject::Field(name) => write!(f, "field.{name}"),
        }
    }
}

/// One key of a matcher: holds when any of its regexes matches.
#[derive(Debug, Clone)]
pub struct Condition {
    pub subject: Subject,
    pub regexes: Vec<Pattern>,
}

/// Conditions of which every one must hold. Without any it holds for every mail.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    pub conditions: Vec<Condition>,
}

impl Matcher {
    /// As a whole; see [`Matcher::all`].
    pub fn always_holds(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether every condition holds.
    pub fn all(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> bool {
        let mut held = true;
        for condition in &self.conditions {
            held &= condition.holds(mail, values, record);
            if !held && !record.is_recording() {
                break;
            }
        }
        held
    }

    /// Whether one condition holds.
    pub fn any(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> bool {
        let mut held = false;
        for condition in &self.conditions {
            held |= condition.holds(mail, values, record);
            if held && !record.is_recording() {
                break;
            }
        }
        held
    }

    /// The matchers that hold exactly where this one does, as a text to compare.
    pub fn fingerprint(&self) -> String {
        let mut parts: Vec<String> = self
            .conditions
            .iter()
            .map(|condition| {
                let regexes: Vec<&str> = condition
                    .regexes
                    .iter()
                    .map(|regex| regex.as_str())
                    .collect();
                format!("{} {regexes:?}", condition.subject)
            })
            .collect();
        parts.sort();
        parts.join("\n")
    }
}

impl Condition {
    fn holds(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> bool {
        let haystacks = match &self.subject {
            Subject::Part(Part::Heading) => values.heading(mail.subject),
            Subject::Part(part) => mail.part(part),
            Subject::Field(name) => values.haystacks(name),
        };
        let is_hit = |regex: &&Pattern| haystacks.iter().any(|text| regex.is_in(text));
        let hit = self.regexes.iter().find(is_hit);
        record.say(|| match hit {
            Some(regex) => {
                // Where it matches costs more to know than that it does.
                let found = haystacks.iter().find_map(|text| regex.find_in(text));
                let found = quoted(found.map_or("", |found| found.as_str()));
                format!("+ {} matches {regex} at {found}", self.subject)
            }
            None => format!("- {} matches none of {}", self.subject, self.written()),
        });
        hit.is_some()
    }

    fn written(&self) -> String {
        let regexes: Vec<String> = self.regexes.iter().map(ToString::to_string).collect();
        regexes.join("  ")
    }
}

/// The gates of one source: one of them must hold.
#[derive(Debug, Clone, Default)]
pub struct Gates(pub Vec<Matcher>);

impl Gates {
    /// `None` when no gate holds; else how strong the evidence is: each part named by a gate
    /// that holds counts once ([`Part::evidence`]).
    pub fn evidence(&self, mail: &Mail<'_>, record: &mut Recorder) -> Option<u32> {
        let none = Values::default();
        let mut parts: Vec<&Part> = Vec::new();
        let mut held = false;
        for (index, gate) in self.0.iter().enumerate() {
            record.say(|| format!("gate {}", index + 1));
            if record.inside(|record| gate.all(mail, &none, record)) {
                held = true;
                for condition in &gate.conditions {
                    if let Subject::Part(part) = &condition.subject
                        && !parts.contains(&part)
                    {
                        parts.push(part);
                    }
                }
            }
        }
        held.then(|| parts.iter().map(|part| part.evidence()).sum())
    }
}
