//! A mail to its decisions: which source, which fields, which rule, which alert.
//!
//! 1. An answering robot's mail is ignored, by its name.
//! 2. Of the sources whose gates hold, the one with the strongest evidence takes the mail
//!    ([`Part::evidence`](super::part::Part::evidence)); on a tie, one that finds its required
//!    fields and a rule; then the first by file name.
//! 3. The first rule that holds gives the event. An `X-S4-Status` line of the ticket system's own
//!    text goes before it, unless the rule says `ignore`.
//! 4. What was not understood alerts with its raw subject (or goes to the dead letters, where the
//!    file says so): no source, no rule, a required field or the external id missing.

use regex::Regex;

use super::Decision;
use super::compile::{Rule, RuleSet, Source};
use super::explain::{Recorder, Trace, quoted};
use super::field::{self, Values};
use super::mail::Mail;
use super::render::{self, Rendering};
use super::written::OnUnmatched;
use crate::alert::{Event, Status};
use crate::limits;
use crate::message::{Envelope, Message};

impl RuleSet {
    /// One decision; several where a rule splits a digest. Never empty.
    pub fn decide(&self, message: &Message, envelope: &Envelope) -> Vec<Decision> {
        self.walk(message, envelope, &mut Recorder::default())
    }

    /// The same decisions with all the steps that led to them.
    pub fn explain(&self, message: &Message, envelope: &Envelope) -> Trace {
        let mut record = Recorder::recording();
        let decisions = self.walk(message, envelope, &mut record);
        record.finish(decisions)
    }

    fn walk(&self, message: &Message, envelope: &Envelope, record: &mut Recorder) -> Vec<Decision> {
        describe(message, envelope, record);
        if let Some(robot) = message.robot {
            record.say(|| format!("robot: {}", robot.as_str()));
            return vec![Decision {
                reason: robot.as_str().to_owned(),
                ..Decision::of(message, Event::Ignore)
            }];
        }
        match self.claim(message, envelope, record) {
            Some(source) => source.decide(message, envelope, record),
            None => {
                let reason = "no rule file recognises this mail".to_owned();
                record.say(|| reason.clone());
                vec![Decision {
                    degraded: true,
                    alert: Some(render::degraded(message, &message.text, None, &reason)),
                    reason,
                    ..Decision::of(message, Event::New)
                }]
            }
        }
    }

    fn claim(
        &self,
        message: &Message,
        envelope: &Envelope,
        record: &mut Recorder,
    ) -> Option<&Source> {
        let mut claims: Vec<(u32, &Source)> = Vec::new();
        for source in &self.sources {
            let mail = Mail::new(message, envelope, &source.customer_text_after);
            record.say(|| format!("source {}", source.name.get_ref()));
            let evidence = record.inside(|record| source.gates.evidence(&mail, record));
            if let Some(evidence) = evidence {
                record.say(|| format!("  claims the mail with evidence {evidence}"));
                claims.push((evidence, source));
            }
        }
        let strongest = claims.iter().map(|(evidence, _)| *evidence).max()?;
        claims.retain(|(evidence, _)| *evidence == strongest);
        let understands = |(_, source): &&(u32, &Source)| source.understands(message, envelope);
        let (_, source) = match claims.as_slice() {
            [one] => one,
            several => several
                .iter()
                .find(understands)
                .or_else(|| several.first())?,
        };
        record.say(|| format!("taken by {}", source.name.get_ref()));
        Some(source)
    }
}

impl Decision {
    /// Nothing decided but the event.
    fn of(message: &Message, event: Event) -> Decision {
        Decision {
            source: None,
            rule: None,
            event,
            degraded: false,
            reason: String::new(),
            external_id: None,
            fields: indexmap::IndexMap::new(),
            attachments: message.attachments.clone(),
            alert: None,
            dead_letter: false,
            escalate: false,
            hold: None,
            problems: message.problems.clone(),
        }
    }
}

impl Source {
    fn mail<'a>(&self, message: &'a Message, envelope: &'a Envelope) -> Mail<'a> {
        Mail::new(message, envelope, &self.customer_text_after)
    }

    fn understands(&self, message: &Message, envelope: &Envelope) -> bool {
        let quiet = &mut Recorder::default();
        let mail = self.mail(message, envelope);
        let values = field::extract(&self.fields, &self.labels, &mail, quiet);
        self.missing(&values).is_none() && self.rule(&mail, &values, quiet).is_some()
    }

    fn decide(
        &self,
        message: &Message,
        envelope: &Envelope,
        record: &mut Recorder,
    ) -> Vec<Decision> {
        let mail = self.mail(message, envelope);
        if !mail.customer_text.is_empty() {
            record.say(|| format!("customer's text from {}", quoted(mail.customer_text)));
        }
        let values = field::extract(&self.fields, &self.labels, &mail, record);
        let rule = self.rule(&mail, &values, record);
        if let Some((rule, split)) = rule.and_then(|rule| Some((rule, rule.split.as_ref()?))) {
            let tickets = self.split(rule, split, &mail, record);
            if !tickets.is_empty() {
                return tickets;
            }
        }
        vec![self.conclude(&mail, &values, rule)]
    }

    fn rule(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> Option<&Rule> {
        let mut decided = None;
        for rule in &self.rules {
            record.say(|| format!("rule {} ({})", rule.name.get_ref(), rule.event));
            let held = record.inside(|record| rule.holds(mail, values, record));
            record.say(|| match (held, decided.is_none()) {
                (true, true) => "  holds and decides".to_owned(),
                (true, false) => "  would hold, but an earlier one decides".to_owned(),
                (false, _) => "  does not hold".to_owned(),
            });
            if held && decided.is_none() {
                decided = Some(rule);
                if !record.is_recording() {
                    break;
                }
            }
        }
        decided
    }

    fn missing(&self, values: &Values) -> Option<&str> {
        self.fields
            .iter()
            .find(|field| field.required && values.raw(&field.name).is_none())
            .map(|field| field.name.as_str())
    }

    /// The decision for one ticket.
    fn conclude(&self, mail: &Mail<'_>, values: &Values, rule: Option<&Rule>) -> Decision {
        let name = self.name.get_ref();
        let mut decision = Decision {
            source: Some(name.clone()),
            rule: rule.map(|rule| rule.name.get_ref().clone()),
            fields: values.on_one_line(),
            ..Decision::of(mail.message, Event::New)
        };
        let stated = stated_status(values, &mut decision.problems);
        let (event, reason) = match (rule, stated) {
            (Some(rule), None) => (
                rule.event,
                format!("rule `{}` of {name}", rule.name.get_ref()),
            ),
            (Some(rule), Some(_)) if rule.event == Event::Ignore => (
                rule.event,
                format!("rule `{}` of {name}", rule.name.get_ref()),
            ),
            (_, Some(status)) => (
                Event::from(status),
                format!("X-S4-Status: {} in the mail", status.as_str()),
            ),
            (None, None) => {
                let reason = format!("no rule of {name} holds for this mail");
                return self.not_understood(decision, mail, values, rule, reason);
            }
        };
        decision.event = event;
        decision.reason = reason;
        if event == Event::Ignore {
            return decision;
        }
        if let Some(field) = self.missing(values) {
            let reason = format!("required field `{field}` is missing");
            return self.not_understood(decision, mail, values, rule, reason);
        }
        let rendering = self.rendering(mail, values, rule, event);
        decision.external_id = rendering.external_id();
        if decision.external_id.is_none() && self.needs_key(rule, event) {
            let reason = format!("no external id can be made for this {event} mail");
            return self.not_understood(decision, mail, values, rule, reason);
        }
        decision.escalate = event == Event::Update && rule.is_some_and(|rule| rule.escalate);
        decision.hold = rule
            .and_then(|rule| rule.hold)
            .filter(|_| event == Event::New);
        let status = match event {
            Event::New => Some(Status::New),
            Event::Acknowledged => Some(Status::Acknowledged),
            Event::Resolved => Some(Status::Resolved),
            Event::Update => decision.escalate.then_some(Status::New),
            Event::Ignore => None,
        };
        decision.alert = status.map(|status| rendering.alert(status, &mut decision.problems));
        decision
    }

    /// Without a key SIGNL4 cannot acknowledge or resolve anything; a new ticket needs one only
    /// where the file says how it is made.
    fn needs_key(&self, rule: Option<&Rule>, event: Event) -> bool {
        let templates = rule.map_or(&self.alert, |rule| &rule.alert);
        match event {
            Event::Acknowledged | Event::Resolved => true,
            Event::New => templates.external_id.is_some(),
            Event::Update | Event::Ignore => false,
        }
    }

    fn rendering<'a>(
        &'a self,
        mail: &'a Mail<'a>,
        values: &'a Values,
        rule: Option<&'a Rule>,
        event: Event,
    ) -> Rendering<'a> {
        Rendering {
            source: self.name.get_ref(),
            rule: rule.map(|rule| rule.name.get_ref().as_str()),
            event,
            templates: rule.map_or(&self.alert, |rule| &rule.alert),
            mail,
            values,
        }
    }

    /// Fail open: it alerts with its raw subject, unless the file wants it among the dead letters.
    fn not_understood(
        &self,
        decision: Decision,
        mail: &Mail<'_>,
        values: &Values,
        rule: Option<&Rule>,
        reason: String,
    ) -> Decision {
        let rendering = self.rendering(mail, values, rule, Event::New);
        let external_id = rendering.external_id();
        let dead_letter = self.on_unmatched == OnUnmatched::DeadLetter;
        let alert = (!dead_letter).then(|| {
            let mut alert =
                render::degraded(mail.message, mail.text, Some(self.name.get_ref()), &reason);
            alert.external_id = external_id.clone();
            alert
        });
        Decision {
            event: Event::New,
            degraded: true,
            external_id,
            alert,
            dead_letter,
            reason,
            ..decision
        }
    }

    /// One decision for each ticket of a digest; empty where `split` does not match.
    ///
    /// A ticket's text runs from one match to the next. What stands above the first match is a
    /// ticket of its own only if it has what a ticket needs: then `split` matches what separates
    /// tickets, and not what begins them.
    fn split(
        &self,
        rule: &Rule,
        split: &Regex,
        mail: &Mail<'_>,
        record: &mut Recorder,
    ) -> Vec<Decision> {
        let mut tickets = Vec::new();
        for (above, text) in pieces(mail.text, split) {
            if tickets.len() == limits::SPLIT_TICKETS_MAX {
                tickets.push(self.rest_of_digest(mail));
                break;
            }
            record.say(|| format!("ticket of the digest: {}", quoted(text)));
            let after = &self.customer_text_after;
            let piece = Mail::of_text(mail.message, mail.envelope, text, after);
            let values =
                record.inside(|record| field::extract(&self.fields, &self.labels, &piece, record));
            let decision = self.conclude(&piece, &values, Some(rule));
            if above && decision.external_id.is_none() {
                continue;
            }
            tickets.push(decision);
        }
        tickets
    }

    fn rest_of_digest(&self, mail: &Mail<'_>) -> Decision {
        let max = limits::SPLIT_TICKETS_MAX;
        let decision = Decision {
            source: Some(self.name.get_ref().clone()),
            ..Decision::of(mail.message, Event::New)
        };
        let reason = format!("this digest has more than {max} tickets");
        self.not_understood(decision, mail, &Values::default(), None, reason)
    }
}

impl Rule {
    fn holds(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> bool {
        let mut held = self.matches.is_empty();
        for matcher in &self.matches {
            held |= matcher.all(mail, values, record);
            if held && !record.is_recording() {
                break;
            }
        }
        if self.unless.conditions.is_empty() || (!held && !record.is_recording()) {
            return held;
        }
        record.say(|| "unless".to_owned());
        let excluded = record.inside(|record| self.unless.any(mail, values, record));
        held && !excluded
    }
}

impl From<Status> for Event {
    fn from(status: Status) -> Event {
        match status {
            Status::New => Event::New,
            Status::Acknowledged => Event::Acknowledged,
            Status::Resolved => Event::Resolved,
        }
    }
}

/// What the mail's own X-S4-Status line says.
fn stated_status(values: &Values, problems: &mut Vec<String>) -> Option<Status> {
    let word = values.deciding("s4_status")?;
    let status = Status::parse(&word);
    if status.is_none() {
        problems.push(format!(
            "X-S4-Status is `{word}`; SIGNL4 knows new, acknowledged and resolved"
        ));
    }
    status
}

/// What stands above the first match, marked, and from each match to the next; nothing blank.
fn pieces<'a>(text: &'a str, split: &Regex) -> Vec<(bool, &'a str)> {
    let begins: Vec<usize> = split.find_iter(text).map(|found| found.start()).collect();
    let Some(first) = begins.first() else {
        return Vec::new();
    };
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    let tickets = begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| (false, *begin..end));
    [(true, 0..*first)]
        .into_iter()
        .chain(tickets)
        .filter_map(|(above, range)| Some((above, text.get(range)?)))
        .filter(|(_, piece)| !piece.trim().is_empty())
        .collect()
}

fn describe(message: &Message, envelope: &Envelope, record: &mut Recorder) {
    record.say(|| {
        format!(
            "envelope: <{}> to <{}>",
            envelope.reverse_path, envelope.forward_path
        )
    });
    let name = |mailbox: &crate::message::Mailbox| match &mailbox.name {
        Some(name) => format!("{name} <{}>", mailbox.address),
        None => mailbox.address.clone(),
    };
    if let Some(forwarding) = &message.forwarding {
        record.say(|| format!("forwarded by: {}", name(&forwarding.by)));
    }
    record.say(|| format!("from: {}", name(&message.from)));
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
