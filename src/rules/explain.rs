//! How a decision came about, step by step, for `mailbell explain`.

use std::fmt;

use super::Decision;
use super::spans::{self, Span, Taken};
use crate::message::{Envelope, Message};

/// One step; `depth` is how far it is indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub depth: usize,
    pub text: String,
}

/// The steps of one mail and where they led.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<Step>,
    /// Where the fields' values stand, as far as they stand in the mail.
    pub spans: Vec<Span>,
    pub decisions: Vec<Decision>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            for line in step.text.lines() {
                let indent = if line.is_empty() { 0 } else { step.depth * 2 };
                writeln!(f, "{:indent$}{line}", "")?;
            }
        }
        for decision in &self.decisions {
            writeln!(f)?;
            write_decision(f, decision)?;
        }
        Ok(())
    }
}

fn write_decision(f: &mut fmt::Formatter<'_>, decision: &Decision) -> fmt::Result {
    let id = decision.external_id.as_ref();
    write!(f, "decision: {}", decision.event)?;
    if let Some(id) = id {
        write!(f, " of {id}")?;
    }
    if decision.degraded {
        write!(f, ", degraded")?;
    }
    if decision.escalate {
        write!(f, ", pages again")?;
    }
    if let Some(hold) = decision.hold {
        write!(f, ", held for {} s", hold.as_secs())?;
    }
    writeln!(f, ": {}", decision.reason)?;
    for problem in &decision.problems {
        writeln!(f, "problem: {problem}")?;
    }
    match &decision.alert {
        None if decision.dead_letter => writeln!(f, "alert: none, it goes to the dead letters"),
        None => writeln!(f, "alert: none"),
        Some(alert) => {
            writeln!(f, "alert:")?;
            for (name, value) in alert.entries() {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let mut lines = text.lines();
                writeln!(f, "  {name}: {}", lines.next().unwrap_or_default())?;
                for line in lines {
                    let indent = if line.is_empty() { 0 } else { 4 };
                    writeln!(f, "{:indent$}{line}", "")?;
                }
            }
            Ok(())
        }
    }
}

/// Collects the steps where somebody asked for them; costs nothing where nobody did.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    trace: Option<Trace>,
    depth: usize,
    /// What was looked at last, until a field takes it.
    looked_at: Option<Taken>,
    taken: Vec<(String, Taken)>,
}

impl Recorder {
    pub fn recording() -> Recorder {
        Recorder {
            trace: Some(Trace::default()),
            ..Recorder::default()
        }
    }

    /// Whether everything is to be tried, also what cannot change the decision any more.
    pub fn is_recording(&self) -> bool {
        self.trace.is_some()
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.steps.push(Step {
                depth: self.depth,
                text: text(),
            });
        }
    }

    pub fn inside<T>(&mut self, steps: impl FnOnce(&mut Recorder) -> T) -> T {
        self.depth += 1;
        let result = steps(self);
        self.depth -= 1;
        result
    }

    /// A value was found, maybe in the mail itself.
    pub fn look_at(&mut self, taken: impl FnOnce() -> Taken) {
        if self.is_recording() {
            self.looked_at = Some(taken());
        }
    }

    /// The field has taken what was looked at last.
    pub fn take(&mut self, field: &str) {
        if let Some(taken) = self.looked_at.take() {
            self.taken.push((field.to_owned(), taken));
        }
    }

    pub fn finish(self, message: &Message, decisions: Vec<Decision>) -> Trace {
        Trace {
            decisions,
            spans: spans::locate(message, &self.taken),
            ..self.trace.unwrap_or_default()
        }
    }
}

/// A piece of a mail in quotes, short enough for a line.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut line = crate::message::squeeze(text).into_owned();
    if let Some((at, _)) = line.char_indices().nth(CHARS_MAX) {
        line.truncate(at);
        line.push('…');
    }
    format!("\"{line}\"")
}

/// What the rules see of a mail.
pub(super) fn describe(message: &Message, envelope: &Envelope, record: &mut Recorder) {
    record.say(|| {
        format!(
            "envelope: <{}> to <{}>",
            envelope.reverse_path, envelope.forward_path
        )
    });
    if let Some(forwarding) = &message.forwarding {
        record.say(|| format!("forwarded by: {}", forwarding.by));
    }
    record.say(|| format!("from: {}", message.from));
    record.say(|| format!("subject: {}", message.subject));
    record.say(|| "text:".to_owned());
    record.inside(|record| record.say(|| message.text.clone()));
    if !message.set_apart.is_empty() {
        record.say(|| "set apart (never looked at):".to_owned());
        record.inside(|record| record.say(|| message.set_apart.clone()));
    }
    for problem in &message.problems {
        record.say(|| format!("problem: {problem}"));
    }
}
