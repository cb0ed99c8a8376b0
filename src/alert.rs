//! What leaves the gateway: an [`Alert`] for one ticket, and the [`Event`] that caused it.
//!
//! Owns SIGNL4's parameter names and their order in the payload. Must not know how a mail
//! looks, nor how an alert travels.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::limits::EXTERNAL_ID_BYTES_MAX;

/// What a ticket mail says has happened.
// DESIGN.md section 6
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A ticket came up: somebody is alerted.
    New,
    /// Somebody took the ticket.
    Acknowledged,
    /// The ticket is resolved, closed, complete or merged.
    Resolved,
    /// Anything else about a known ticket. Nobody is alerted.
    Update,
    /// Not about a ticket at all. Nobody is alerted.
    Ignore,
}

impl Event {
    /// All events, in the order in which a ticket meets them.
    pub const ALL: [Event; 5] = [
        Event::New,
        Event::Acknowledged,
        Event::Resolved,
        Event::Update,
        Event::Ignore,
    ];

    /// The word used in rule files, JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::New => "new",
            Event::Acknowledged => "acknowledged",
            Event::Resolved => "resolved",
            Event::Update => "update",
            Event::Ignore => "ignore",
        }
    }

    /// The inverse of [`Event::as_str`]; case-insensitive.
    pub fn parse(word: &str) -> Option<Event> {
        Event::ALL
            .into_iter()
            .find(|event| word.trim().eq_ignore_ascii_case(event.as_str()))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `X-S4-Status`. SIGNL4 discards an event with any other value, so no other can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    New,
    Acknowledged,
    Resolved,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::New => "new",
            Status::Acknowledged => "acknowledged",
            Status::Resolved => "resolved",
        }
    }

    /// The inverse of [`Status::as_str`]; case-insensitive, because senders write `Resolved`.
    pub fn parse(word: &str) -> Option<Status> {
        [Status::New, Status::Acknowledged, Status::Resolved]
            .into_iter()
            .find(|status| word.trim().eq_ignore_ascii_case(status.as_str()))
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

/// `X-S4-ExternalID`: the key by which SIGNL4 correlates the events of one ticket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalId(String);

impl ExternalId {
    /// White space is collapsed; `None` if nothing is left, or more than
    /// [`EXTERNAL_ID_BYTES_MAX`]: that is no ticket's number.
    pub fn new(text: &str) -> Option<ExternalId> {
        let collapsed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_sound = !collapsed.is_empty()
            && collapsed.len() <= EXTERNAL_ID_BYTES_MAX
            && !collapsed.contains('\0');
        is_sound.then_some(ExternalId(collapsed))
    }

    /// Of an alert that the gateway raises by itself.
    pub fn of(kind: &str, name: impl fmt::Display) -> ExternalId {
        let text = format!("{kind}-{name}");
        ExternalId(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `X-S4-AlertingScenario` (FORMATS.md 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// One acknowledgement is enough.
    SingleAck,
    /// As many acknowledgements as people on duty.
    MultiAck,
    /// Everybody, regardless of duty.
    Emergency,
}

impl Scenario {
    /// All scenarios, as SIGNL4 documents them.
    pub const ALL: [Scenario; 3] = [Scenario::SingleAck, Scenario::MultiAck, Scenario::Emergency];

    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::SingleAck => "single_ack",
            Scenario::MultiAck => "multi_ack",
            Scenario::Emergency => "emergency",
        }
    }

    pub fn parse(word: &str) -> Option<Scenario> {
        Scenario::ALL
            .into_iter()
            .find(|scenario| word.trim().eq_ignore_ascii_case(scenario.as_str()))
    }
}

/// Names that SIGNL4 itself reads as the alert's title (FORMATS.md 1.3).
/// A parameter of such a name would compete with [`Alert::title`].
pub const TITLE_NAMES: [&str; 6] = ["Title", "Subject", "Job", "Task", "Case", "Incident"];

/// Names that SIGNL4 itself reads as the alert's text, `Text` before `Message` (FORMATS.md 1.3).
pub const TEXT_NAMES: [&str; 6] = [
    "Text",
    "Message",
    "MessageText",
    "Description",
    "Body",
    "Content",
];

/// One event of one ticket, as SIGNL4 understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub title: String,
    pub message: String,
    pub status: Status,
    pub external_id: Option<ExternalId>,
    pub source_system: Option<String>,
    pub service: Option<String>,
    /// `latitude,longitude`.
    pub location: Option<String>,
    pub scenario: Option<Scenario>,
    pub filtering: Option<bool>,
    /// Tiles in the app, in this order. Never one of the names above.
    pub parameters: Vec<(String, String)>,
}

impl Alert {
    /// The payload's names and values in the order in which they are sent; the one place that
    /// knows SIGNL4's names, so that webhook, mail dialect and `test --json` cannot disagree.
    pub fn entries(&self) -> Vec<(&str, Value)> {
        let mut entries: Vec<(&str, Value)> = vec![
            ("Title", Value::from(self.title.as_str())),
            ("Message", Value::from(self.message.as_str())),
        ];
        entries.extend(
            self.parameters
                .iter()
                .map(|(name, value)| (name.as_str(), Value::from(value.as_str()))),
        );
        let text = |value: &Option<String>| value.as_deref().map(Value::from);
        let optional = [
            (
                "X-S4-ExternalID",
                self.external_id.as_ref().map(|id| Value::from(id.as_str())),
            ),
            ("X-S4-Status", Some(Value::from(self.status.as_str()))),
            ("X-S4-SourceSystem", text(&self.source_system)),
            ("X-S4-Service", text(&self.service)),
            ("X-S4-Location", text(&self.location)),
            (
                "X-S4-AlertingScenario",
                self.scenario.map(|s| Value::from(s.as_str())),
            ),
            ("X-S4-Filtering", self.filtering.map(Value::from)),
        ];
        entries.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        entries
    }

    /// The JSON body of `POST {signl4.url}{secret}`.
    pub fn payload(&self) -> Map<String, Value> {
        self.entries()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}
