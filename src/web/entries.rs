//! The spool's entries in the form of the API, which `queue --json` prints as well.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Time;
use crate::deliver::as_sent;
use crate::rules::Decision;
use crate::spool::{self, Found, Shown, ShownDelivery, Stage, Summary};

/// All about one mail.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Mail {
    pub id: String,
    /// RFC 3339 in UTC, as all times.
    pub received: String,
    /// The address of the client that sent it.
    pub peer: Option<String>,
    pub helo: String,
    /// Protocol and cipher suite, if the session was encrypted.
    pub tls: Option<String>,
    /// Who had authenticated.
    pub user: Option<String>,
    /// MAIL FROM; empty for the null reverse-path.
    pub reverse_path: String,
    pub bytes: u64,
    pub message_id: Option<String>,
    pub deliveries: Vec<Delivery>,
    /// What happened to it, in order.
    pub timeline: Vec<Moment>,
}

/// One thing that happened to a mail.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Moment {
    pub at: String,
    /// `received`, `attempt` or `settled`.
    pub what: &'static str,
    /// `None` for what concerns all of its teams.
    pub team: Option<String>,
    /// The transport and its result, or the outcome.
    pub result: String,
    /// What the other side said, or the outcome's reason.
    pub detail: String,
}

/// One delivery: where it is, every attempt, and under `decision` the object of `test --json`
/// with the alert as it leaves.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Delivery {
    #[serde(flatten)]
    pub entry: Entry,
    pub answers: Vec<Attempt>,
    /// What the rules made of it; `None` while it is not decided. `alert` is what is sent.
    #[cfg_attr(test, schema(value_type = Option<Object>))]
    pub decision: Option<Value>,
}

/// A delivery in a list.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Entry {
    /// The mail's.
    pub id: String,
    pub received: String,
    pub team: String,
    /// Counts the tickets of a digest from 0.
    pub part: u32,
    /// `accepted`, `behind`, `waiting`, `sending`, or the outcome.
    pub stage: &'static str,
    pub finished: bool,
    /// Why it ended as it did; empty while it has not.
    pub reason: String,
    /// The rule file that took it.
    pub source: Option<String>,
    pub rule: Option<String>,
    pub event: Option<String>,
    pub external_id: Option<String>,
    pub title: Option<String>,
    pub reverse_path: String,
    pub forward_path: String,
    pub bytes: u64,
    /// How many there were.
    pub attempts: u32,
    /// When it is tried next.
    pub not_before: Option<String>,
    pub settled: Option<String>,
}

/// One try of one transport.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Attempt {
    pub at: String,
    pub took_ms: u64,
    /// `webhook` or `relay`.
    pub transport: String,
    /// `delivered`, `deferred` or `rejected`.
    pub result: String,
    /// What the other side said.
    pub answer: String,
}

/// One mail of a page.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Line {
    pub id: String,
    pub received: String,
    pub reverse_path: String,
    pub bytes: u64,
    pub subject: Option<String>,
    pub deliveries: Vec<LineDelivery>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LineDelivery {
    #[serde(flatten)]
    pub entry: Entry,
    /// It was not understood, and alerted with its raw subject.
    pub degraded: bool,
}

/// Mails, newest first.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Page {
    pub mails: Vec<Line>,
    /// The value of `before` for older ones.
    pub next: Option<String>,
    /// Not all older mails were looked at; `next` goes on behind them.
    pub cut_off: bool,
}

pub fn page(page: &spool::Page) -> Page {
    Page {
        mails: page.mails.iter().map(line).collect(),
        next: page.next.map(|mail| mail.to_string()),
        cut_off: page.is_cut_off,
    }
}

fn line(found: &Found) -> Line {
    let delivery = |one: &spool::FoundDelivery| LineDelivery {
        entry: summary(&one.summary),
        degraded: one.is_degraded,
    };
    Line {
        id: found.mail.to_string(),
        received: time(found.received),
        reverse_path: found.reverse_path.clone(),
        bytes: found.bytes,
        subject: found.subject.clone(),
        deliveries: found.deliveries.iter().map(delivery).collect(),
    }
}

pub fn mail(shown: &Shown) -> Mail {
    Mail {
        id: shown.mail.to_string(),
        received: time(shown.received),
        peer: shown.peer.map(|peer| peer.to_string()),
        helo: shown.helo.clone(),
        tls: shown.tls.clone(),
        user: shown.user.clone(),
        reverse_path: shown.reverse_path.clone(),
        bytes: shown.bytes,
        message_id: shown.message_id.clone(),
        deliveries: shown.deliveries.iter().map(delivery).collect(),
        timeline: timeline(shown),
    }
}

fn timeline(shown: &Shown) -> Vec<Moment> {
    let peer = shown.peer.map(|peer| peer.to_string()).unwrap_or_default();
    let received = Moment {
        at: time(shown.received),
        what: "received",
        team: None,
        result: "accepted".to_owned(),
        detail: format!("from {peer} ({})", shown.helo),
    };
    let mut moments = vec![(shown.received, received)];
    for delivery in &shown.deliveries {
        let team = Some(delivery.summary.team.clone());
        for attempt in &delivery.attempts {
            let moment = Moment {
                at: time(attempt.at),
                what: "attempt",
                team: team.clone(),
                result: format!("{} {}", attempt.transport, attempt.result),
                detail: attempt.answer.clone(),
            };
            moments.push((attempt.at, moment));
        }
        if let Some(at) = delivery.summary.settled {
            let moment = Moment {
                at: time(at),
                what: "settled",
                team,
                result: delivery.summary.stage.as_str().to_owned(),
                detail: delivery.summary.reason.clone(),
            };
            moments.push((at, moment));
        }
    }
    moments.sort_by_key(|(at, _)| *at);
    moments.into_iter().map(|(_, moment)| moment).collect()
}

pub fn delivery(shown: &ShownDelivery) -> Delivery {
    Delivery {
        entry: summary(&shown.summary),
        answers: shown.attempts.iter().map(attempt).collect(),
        decision: shown
            .decision
            .as_ref()
            .map(|one| decision(one, &shown.summary)),
    }
}

fn decision(decision: &Decision, summary: &Summary) -> Value {
    let mut decision = decision.clone();
    let alert = decision.alert.as_ref();
    let alert = alert.map(|alert| as_sent(alert, summary.mail, summary.part).into_owned());
    decision.alert = alert;
    decision.to_json()
}

pub fn summary(summary: &Summary) -> Entry {
    Entry {
        id: summary.mail.to_string(),
        received: time(summary.received),
        team: summary.team.clone(),
        part: summary.part,
        stage: summary.stage.as_str(),
        finished: matches!(summary.stage, Stage::Settled(_)),
        reason: summary.reason.clone(),
        source: summary.source.clone(),
        rule: summary.rule.clone(),
        event: summary.event.clone(),
        external_id: summary.external_id.clone(),
        title: summary.title.clone(),
        reverse_path: summary.reverse_path.clone(),
        forward_path: summary.forward_path.clone(),
        bytes: summary.bytes,
        attempts: summary.attempts,
        not_before: summary.not_before.map(time),
        settled: summary.settled.map(time),
    }
}

fn attempt(attempt: &spool::Attempt) -> Attempt {
    Attempt {
        at: time(attempt.at),
        took_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
        transport: attempt.transport.clone(),
        result: attempt.result.clone(),
        answer: attempt.answer.clone(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(time: Time) -> String {
    Timestamp::from_millisecond(time.ms())
        .map_or_else(|_| time.ms().to_string(), |stamp| format!("{stamp:.3}"))
}
