//! A [`Message`](crate::message::Message) to a [`Decision`]: which ticket, which event, which alert.
//!
//! Owns the rule files. Pure but for the rulebook, which loads and watches them, and their editing. Must not know
//! how a mail arrived nor how an alert leaves.
//!
//! A rule file goes through `written` (as typed) and `compile` (all problems, each at its place)
//! to a [`RuleSet`]. A mail goes through `claim` (which source takes it), `field` (what is taken
//! from its parts), `matcher` (which rule holds), `decide`, and `render` (the alert); `digest`
//! does so for each ticket of one mail. `selftest` and `lint` judge a set, [`explain`] shows how
//! a decision came about, [`editing`] changes a file while the others stay.

mod block;
mod claim;
mod compile;
mod customer;
mod decide;
mod digest;
pub mod editing;
mod everyday;
pub mod explain;
mod field;
mod haystack;
mod index;
mod label;
mod lint;
mod mail;
mod matcher;
mod part;
mod pattern;
mod render;
pub mod rulebook;
mod ruleset;
mod selftest;
mod shipped;
pub mod spans;
mod summary;
mod survey;
mod template;
mod values;
mod written;

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

pub use self::explain::Trace;
pub use self::rulebook::Rulebook;
pub use self::ruleset::RuleSet;
pub use self::selftest::SelfTest;
pub use self::shipped::EMBEDDED;
use crate::alert::{Alert, Event, ExternalId};

/// What is to happen because of one mail (or, where a rule splits a digest, one part of it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rule file that took the mail; `None` when no gate held.
    pub source: Option<String>,
    /// The rule that held; `None` when none did.
    pub rule: Option<String>,
    pub event: Event,
    /// The mail alerts although it was not understood (fail open): no rule or a required field missing.
    pub degraded: bool,
    /// Why this event: a rule, a robot's name, what was missing.
    pub reason: String,
    /// The key of the ticket; `None` when the mail names none.
    pub external_id: Option<ExternalId>,
    /// Values from the mail, white space collapsed, in the order of the rule file.
    pub fields: IndexMap<String, String>,
    /// Decoded names of the mail's attachments.
    pub attachments: Vec<String>,
    /// `None` for events that never leave: `update` without `escalate`, and `ignore`.
    pub alert: Option<Alert>,
    /// The rule file asks for the dead letters instead of an alert (`on_unmatched`).
    pub dead_letter: bool,
    /// An update that pages again.
    pub escalate: bool,
    /// Wait this long before paging; a close within that time cancels both.
    pub hold: Option<Duration>,
    /// What was wrong with mail or rules, in words for an administrator.
    pub problems: Vec<String>,
}

impl Decision {
    /// The object of `test --json` (DESIGN.md section 4), in its order of keys, without `file`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("source".to_owned(), json!(self.source));
        object.insert("rule".to_owned(), json!(self.rule));
        object.insert("event".to_owned(), json!(self.event.as_str()));
        object.insert("degraded".to_owned(), json!(self.degraded));
        object.insert("reason".to_owned(), json!(self.reason));
        let external_id = self.external_id.as_ref().map(ExternalId::as_str);
        object.insert("external_id".to_owned(), json!(external_id));
        object.insert("fields".to_owned(), json!(self.fields));
        object.insert("attachments".to_owned(), json!(self.attachments));
        if let Some(by) = self.fields.get("forwarded_by") {
            object.insert("forwarded_by".to_owned(), json!(by));
        }
        let alert = self.alert.as_ref().map(Alert::payload);
        object.insert("alert".to_owned(), json!(alert));
        object.insert("problems".to_owned(), json!(self.problems));
        Value::Object(object)
    }
}

/// The JSON Schema of a rule file, for editors; written by the test in `written`.
pub const SCHEMA: &str = include_str!("../../rules/schema.json");
