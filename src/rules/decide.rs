//! A mail to its decisions: which source, which fields, which rule, which alert.
//!
//! 1. An answering robot's mail is ignored, by its name.
//! 2. Of the sources whose gates hold, the one with the strongest evidence takes the mail: the
//!    sum over the parts that its gates name ([`Part::evidence`](super::part::Part::evidence)),
//!    the subject without the ticket's title. On a tie, one that finds its required fields and a
//!    rule; then the first by file name.
//! 3. The first rule that holds gives the event. An `X-S4-Status` line of the ticket system's own
//!    text goes before it, unless the rule says `ignore`.
//! 4. An end, or a taking, that somebody answered before it was forwarded is `new`: a person wants it
//!    looked at.
//! 5. What was not understood alerts with its raw subject (or goes to the dead letters, where the
//!    file says so): no source, no rule, a required field or the external id missing.
//!
//! Of several mails that somebody marked and forwarded together, each has a decision of its own.

use super::Decision;
use super::explain::{self, Recorder, Trace, quoted};
use super::field;
use super::mail::{Mail, heading};
use super::render::{self, Rendering};
use super::ruleset::{Rule, RuleSet, Source};
use super::values::Values;
use super::written::OnUnmatched;
use crate::alert::{Event, Status};
use crate::limits::SPLIT_TICKETS_MAX;
use crate::message::{Envelope, Message};

impl RuleSet {
    /// One decision; several where a rule splits a digest, or several mails were sent on together.
    /// Never empty.
    pub fn decide(&self, message: &Message, envelope: &Envelope) -> Vec<Decision> {
        self.walk(message, envelope, &mut Recorder::default())
    }

    /// The same decisions with all the steps that led to them.
    pub fn explain(&self, message: &Message, envelope: &Envelope) -> Trace {
        let mut record = Recorder::recording();
        let decisions = self.walk(message, envelope, &mut record);
        record.finish(message, decisions)
    }

    fn walk(&self, message: &Message, envelope: &Envelope, record: &mut Recorder) -> Vec<Decision> {
        let mut decisions = self.walk_one(message, envelope, record);
        let own = decisions.len();
        let mut others = message.others.iter();
        while decisions.len() < SPLIT_TICKETS_MAX
            && let Some(other) = others.next()
        {
            record.say(|| "attached beside it".to_owned());
            decisions.extend(record.inside(|record| self.walk_one(other, envelope, record)));
        }
        hush_unknown(&mut decisions, own);
        let left = others.len() + message.others_left;
        if left > 0 {
            let reason = format!("{left} more mails were sent on with it than are read");
            decisions.push(Decision::unknown(message, reason));
        }
        decisions
    }

    fn walk_one(
        &self,
        message: &Message,
        envelope: &Envelope,
        record: &mut Recorder,
    ) -> Vec<Decision> {
        explain::describe(message, envelope, record);
        if let Some(robot) = message.robot {
            record.say(|| format!("robot: {}", robot.as_str()));
            return vec![Decision {
                reason: robot.as_str().to_owned(),
                ..Decision::of(message, Event::Ignore)
            }];
        }
        match self.claim(&Mail::new(message, envelope), record) {
            Some((source, mail)) => source.decide(&mail, record),
            None => {
                let reason = "no rule file recognises this mail".to_owned();
                record.say(|| reason.clone());
                vec![Decision::unknown(message, reason)]
            }
        }
    }
}

impl Decision {
    /// Fail open: it alerts with its raw subject.
    fn unknown(message: &Message, reason: String) -> Decision {
        Decision {
            degraded: true,
            alert: Some(render::degraded(message, &message.text, None, &reason)),
            reason,
            ..Decision::of(message, Event::New)
        }
    }

    /// Nothing decided but the event.
    pub(super) fn of(message: &Message, event: Event) -> Decision {
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
    fn decide(&self, mail: &Mail<'_>, record: &mut Recorder) -> Vec<Decision> {
        if !mail.customer_text().is_empty() {
            record.say(|| format!("customer's text from {}", quoted(mail.customer_text())));
        }
        let values = field::extract(&self.fields, &self.marks, mail, record);
        record.say(|| {
            let title = values.line("title");
            format!("heading: {}", heading(mail.subject, title.as_deref()))
        });
        let rule = self.rule(mail, &values, record);
        if let Some((rule, split)) = rule.and_then(|rule| Some((rule, rule.split.as_ref()?))) {
            let tickets = self.split(rule, split, mail, record);
            if !tickets.is_empty() {
                return tickets;
            }
        }
        vec![self.conclude(mail, &values, rule)]
    }

    pub(super) fn rule(
        &self,
        mail: &Mail<'_>,
        values: &Values,
        record: &mut Recorder,
    ) -> Option<&Rule> {
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

    pub(super) fn missing(&self, values: &Values) -> Option<&str> {
        self.fields
            .iter()
            .find(|field| field.required && values.raw(&field.name).is_none())
            .map(|field| field.name.as_str())
    }

    /// The decision for one ticket.
    pub(super) fn conclude(
        &self,
        mail: &Mail<'_>,
        values: &Values,
        rule: Option<&Rule>,
    ) -> Decision {
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
        let forwarding = mail.message.forwarding.as_ref();
        let is_answered = forwarding.is_some_and(|forwarding| forwarding.answered);
        let (event, reason) = match event {
            Event::Acknowledged | Event::Resolved if is_answered => (
                Event::New,
                format!("{reason}, but somebody has answered that before it was forwarded"),
            ),
            event => (event, reason),
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

    fn rendering<'a, 'm>(
        &'a self,
        mail: &'a Mail<'m>,
        values: &'a Values,
        rule: Option<&'a Rule>,
        event: Event,
    ) -> Rendering<'a, 'm> {
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
    pub(super) fn not_understood(
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
}

impl Rule {
    fn holds(&self, mail: &Mail<'_>, values: &Values, record: &mut Recorder) -> bool {
        let mut held = self.matches.is_empty();
        let evidence = values.evidence_for(self.event);
        for matcher in &self.matches {
            held |= matcher.all(mail, &evidence, record);
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

/// An attached mail that no rule file recognises alerts, unless a ticket that it was sent on with pages.
/// Each keeps its place, as parts are retried by their number.
fn hush_unknown(decisions: &mut [Decision], own: usize) {
    let is_known = |decision: &Decision| decision.source.is_some();
    let pages = |decision: &Decision| {
        let alert = decision.alert.as_ref();
        alert.is_some_and(|alert| alert.status == Status::New)
    };
    if !decisions.iter().any(|one| is_known(one) && pages(one)) {
        return;
    }
    let attached = decisions.iter_mut().skip(own);
    for decision in attached.filter(|one| !is_known(one)) {
        decision.event = Event::Ignore;
        decision.degraded = false;
        decision.alert = None;
        decision.reason = "no rule file recognises it, and a ticket beside it alerts".to_owned();
    }
}

/// What the mail's own X-S4-Status line says.
fn stated_status(values: &Values, problems: &mut Vec<String>) -> Option<Status> {
    let word = values.line("s4_status")?;
    let status = Status::parse(&word);
    if status.is_none() {
        problems.push(format!(
            "X-S4-Status is `{word}`; SIGNL4 knows new, acknowledged and resolved"
        ));
    }
    status
}
