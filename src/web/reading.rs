//! A mail as rules read it, for people: the text, the values with their places in it, the steps that
//! led to a decision.
//!
//! Owns that a reading is bounded in time, and that a panic in it concerns nobody else.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::Shown;
use super::problem::Problem;
use crate::alarms::own;
use crate::limits::READING_MAX;
use crate::message::{self, Envelope};
use crate::pipeline::large;
use crate::rules::explain::Step;
use crate::rules::{Decision, RuleSet};
use crate::spool::{self, MailId};

/// How rules read a mail.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Reading {
    /// Of a forwarded mail, those of the ticket system's mail.
    pub from: String,
    pub subject: String,
    /// What the rules look at.
    pub text: String,
    /// Quoted history, signature and footer, which they do not look at.
    pub set_apart: String,
    pub attachments: Vec<String>,
    /// Who sent it on.
    pub forwarded_by: Option<String>,
    /// Where the fields' values stand.
    pub spans: Vec<Span>,
    /// Gate by gate, field by field, rule by rule.
    pub trace: String,
    /// The same, step by step, for pages.
    #[serde(skip)]
    pub steps: Vec<Step>,
    /// The objects of `test --json`, one for each ticket that the mail is about.
    #[cfg_attr(test, schema(value_type = Vec<Object>))]
    pub decisions: Vec<Value>,
}

/// A place that a field's value was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Span {
    pub field: String,
    /// `text` or `subject`.
    pub part: &'static str,
    /// In characters from 0.
    pub start: usize,
    /// Behind the last one.
    pub end: usize,
}

/// The mail by today's rules, as its first team got it.
pub async fn of_mail(shown: &Shown, id: MailId) -> Result<Reading, Problem> {
    let stored = Stored::load(shown, id).await?;
    let envelope = stored.envelope();
    read(shown.rulebook.current(), stored.to_read, Some(envelope)).await
}

/// A mail with what the store knows of it.
#[derive(Debug)]
pub struct Stored {
    pub mail: spool::Shown,
    /// Of a large mail, what reading looks at.
    pub to_read: Vec<u8>,
}

impl Stored {
    pub async fn load(shown: &Shown, id: MailId) -> Result<Stored, Problem> {
        let mail = shown.spool.show(id).await?.ok_or_else(Problem::no_mail)?;
        let beginning = shown.spool.piece(id, 0).await?;
        let beginning = beginning.ok_or_else(Problem::no_mail)?.bytes;
        let to_read = large::to_read(&*shown.spool, id, beginning, mail.bytes).await?;
        Ok(Stored { mail, to_read })
    }

    /// With the forward-path of the first team.
    pub fn envelope(&self) -> Envelope {
        let first = self.mail.deliveries.first();
        Envelope {
            reverse_path: self.mail.reverse_path.clone(),
            forward_path: first
                .map(|one| one.summary.forward_path.clone())
                .unwrap_or_default(),
        }
    }
}

/// By other rules than those in force, too. Without an envelope: as the mail itself says that it came.
pub async fn read(
    rules: Arc<RuleSet>,
    raw: Vec<u8>,
    envelope: Option<Envelope>,
) -> Result<Reading, Problem> {
    bounded(move || {
        let message = message::read(&raw);
        let envelope = envelope.unwrap_or_else(|| message.likely_envelope());
        let trace = own::explain(&rules, &raw, &message, &envelope);
        let spans = trace.spans.iter().filter_map(|span| {
            let text = match span.part {
                "subject" => &message.subject,
                _ => &message.text,
            };
            let chars = |end: usize| Some(text.get(..end)?.chars().count());
            Some(Span {
                field: span.field.clone(),
                part: span.part,
                start: chars(span.range.start)?,
                end: chars(span.range.end)?,
            })
        });
        Reading {
            from: message.from.to_string(),
            spans: spans.collect(),
            forwarded_by: message.forwarding.as_ref().map(|one| one.by.to_string()),
            trace: trace.to_string(),
            decisions: trace.decisions.iter().map(Decision::to_json).collect(),
            steps: trace.steps,
            subject: message.subject,
            text: message.text,
            set_apart: message.set_apart,
            attachments: message.attachments,
        }
    })
    .await
}

/// What today's rules decide, for each envelope.
pub async fn decide(
    rules: Arc<RuleSet>,
    raw: Vec<u8>,
    envelopes: Vec<Envelope>,
) -> Result<Vec<Vec<Decision>>, Problem> {
    bounded(move || own::decide(&rules, &raw, &envelopes)).await
}

/// On a thread of its own.
///
/// # Errors
/// 500 when it panics or does not end in time; its thread then ends by itself.
pub async fn bounded<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    match timeout(READING_MAX, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(Problem::panicked("reading it")),
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "reading it does not end: a bug",
        )),
    }
}
