//! A [`Message`](crate::message::Message) to a [`Decision`]: which ticket, which event, which alert.
//!
//! Owns the rule files. Pure but for the rulebook, which loads and watches them. Must not know
//! how a mail arrived nor how an alert leaves.

use std::time::Duration;

use indexmap::IndexMap;

use crate::alert::{Alert, Event, ExternalId};

/// What is to happen because of one mail (or, where a rule splits a digest, one part of it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rule file that took the mail; `None` when no gate held.
    pub source: Option<String>,
    /// The rule that decided; `None` when none did.
    pub rule: Option<String>,
    pub event: Event,
    /// The mail alerts although it was not understood (fail open): no rule or a required field missing.
    pub degraded: bool,
    /// Why this event: a rule, a robot's name, what was missing.
    pub reason: String,
    /// The key of the ticket; `None` when the mail names none.
    pub external_id: Option<ExternalId>,
    /// Values verbatim from the mail, white space collapsed, in the order of the rule file.
    pub fields: IndexMap<String, String>,
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
