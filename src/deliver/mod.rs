//! An alert to the outside: the transport port, and what each transport says to "try again?".
//!
//! Owns how an alert travels and when ([`schedule`], [`circuit`], [`pace`]: pure). Must not know
//! what a mail looks like, nor how the spool stores it.

pub mod circuit;
pub mod dialect;
pub mod pace;
pub mod redact;
pub mod relay;
pub mod schedule;
pub mod signl4;
pub mod trail;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::alert::{Alert, ExternalId};
use crate::config::TransportKind;
use crate::deliver::circuit::Reached;
use crate::spool::{Leased, MailId};

/// One delivery as a transport sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch<'a> {
    pub mail: MailId,
    /// The same for each attempt of one delivery, so that a repeat can be known as one. ASCII.
    pub idempotency_key: String,
    /// Has an external id, always: see [`as_sent`].
    pub alert: Cow<'a, Alert>,
    /// The mail as it was accepted; only for transports that ask for it.
    pub original: Option<Vec<u8>>,
}

impl<'a> Dispatch<'a> {
    pub fn new(leased: &'a Leased, original: Option<Vec<u8>>) -> Dispatch<'a> {
        Dispatch {
            mail: leased.mail,
            idempotency_key: format!("{}.{}", leased.mail, leased.delivery),
            alert: as_sent(&leased.alert, leased.mail, leased.part),
            original,
        }
    }
}

/// An alert as it leaves: one without an external id gets one made of the mail's id, so that a repeat
/// after a lost answer is folded into the alert that it repeats.
pub fn as_sent(alert: &Alert, mail: MailId, part: u32) -> Cow<'_, Alert> {
    let mut alert = Cow::Borrowed(alert);
    if alert.external_id.is_none() {
        let part = match part {
            0 => String::new(),
            part => format!("-{part}"),
        };
        alert.to_mut().external_id = ExternalId::new(&format!("mailbell-{mail}{part}"));
    }
    alert
}

/// A transport's verdict on one attempt. Texts never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered {
        /// What the other side said: an event id, a queue id.
        detail: String,
        /// The other side takes no more for so long.
        exhausted_for: Option<Duration>,
    },
    /// May work later.
    Deferred {
        reason: Deferral,
        detail: String,
        /// What the other side asked for; not above [`crate::limits::RETRY_AFTER_MAX`].
        retry_after: Option<Duration>,
    },
    /// Asking again would be answered the same.
    Rejected { reason: Rejection, detail: String },
}

impl Outcome {
    pub fn deferred(reason: Deferral, detail: impl Into<String>) -> Outcome {
        Outcome::Deferred {
            reason,
            detail: detail.into(),
            retry_after: None,
        }
    }

    pub fn rejected(reason: Rejection, detail: impl Into<String>) -> Outcome {
        Outcome::Rejected {
            reason,
            detail: detail.into(),
        }
    }

    /// `delivered`, `deferred` or `rejected`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Deferred { .. } => "deferred",
            Outcome::Rejected { .. } => "rejected",
        }
    }

    /// The metric label: one of few words.
    pub fn reason(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "",
            Outcome::Deferred { reason, .. } => reason.as_str(),
            Outcome::Rejected { reason, .. } => reason.as_str(),
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            Outcome::Delivered { detail, .. }
            | Outcome::Deferred { detail, .. }
            | Outcome::Rejected { detail, .. } => detail,
        }
    }
}

/// Why an attempt may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deferral {
    /// Name not resolved, connection refused, connect timeout.
    Connect,
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer.
    ConnectionLost,
    RateLimited,
    /// HTTP 408, 425.
    NotReady,
    /// HTTP 5xx.
    ServerError,
    /// SMTP 4yz.
    RelayBusy,
    /// What the transport needs of this gateway is not there at the moment.
    Spool,
}

impl Deferral {
    pub fn as_str(self) -> &'static str {
        match self {
            Deferral::Connect => "connect",
            Deferral::Tls => "tls",
            Deferral::Timeout => "timeout",
            Deferral::ConnectionLost => "connection-lost",
            Deferral::RateLimited => "rate-limited",
            Deferral::NotReady => "not-ready",
            Deferral::ServerError => "server-error",
            Deferral::RelayBusy => "relay-busy",
            Deferral::Spool => "spool",
        }
    }

    /// How far the attempt came.
    pub fn reached(self) -> Reached {
        match self {
            Deferral::Connect | Deferral::Tls | Deferral::Spool => Reached::Nobody,
            Deferral::Timeout | Deferral::ConnectionLost => Reached::Silence,
            Deferral::RateLimited
            | Deferral::NotReady
            | Deferral::ServerError
            | Deferral::RelayBusy => Reached::Answer,
        }
    }

    /// The other side may have taken the alert although it did not say so.
    pub fn may_have_arrived(self) -> bool {
        matches!(
            self,
            Deferral::Timeout | Deferral::ConnectionLost | Deferral::ServerError
        )
    }
}

/// Why an attempt is not repeated on the same transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// HTTP 400, 413, 415, 422: this body.
    Body,
    /// HTTP 401, 403, 404: the team's secret or the URL.
    Secret,
    /// HTTP 405: the URL is not a webhook.
    Method,
    /// HTTP 3xx: a secret must not follow to another place.
    Redirect,
    /// Any other answer.
    Unexpected,
    /// SMTP 5yz.
    Relay,
    /// The mail cannot be written as this transport needs it.
    Unwritable,
}

impl Rejection {
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::Body => "body",
            Rejection::Secret => "secret",
            Rejection::Method => "method",
            Rejection::Redirect => "redirect",
            Rejection::Unexpected => "unexpected",
            Rejection::Relay => "relay",
            Rejection::Unwritable => "unwritable",
        }
    }

    /// Another mail may be taken.
    pub fn may_be_the_mails(self) -> bool {
        matches!(self, Rejection::Body | Rejection::Unwritable)
    }
}

/// One way out for one team.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    fn kind(&self) -> TransportKind;

    /// Counts against SIGNL4's limits (FORMATS.md 1.2).
    fn is_paced(&self) -> bool;

    /// Needs [`Dispatch::original`].
    fn wants_original(&self) -> bool {
        false
    }

    /// Bounded in time. Never fails otherwise than by its verdict.
    async fn deliver(&self, dispatch: &Dispatch<'_>) -> Outcome;

    /// Whether the other side answers at all, asked without an alert: for a transport that has failed,
    /// while nothing waits for it. Bounded in time.
    async fn answers(&self) -> bool;
}
