//! A mail that the gateway sends to its own door now and then, and follows to its end: what lets it
//! through would have let a ticket through, up to the transport.
//!
//! Any node that decides it knows it by its forward-path, lets reading and rules run, and pages nobody.

use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::SOURCE;
use super::watch::Faults;
use crate::alert::Event;
use crate::limits::{CANARY_LOOK_AGAIN, CANARY_MAX};
use crate::observe::{Health, Metrics};
use crate::own_door::OwnDoor;
use crate::rules::Decision;
use crate::spool::{Ending, MailId, Spool, Stage};

/// RFC 2606 2: `.invalid` is never a domain, so no configured address is this one.
pub const FORWARD_PATH: &str = "canary@mailbell.invalid";

/// In the ledger it has a line of its own, so that no team's figures count it, and a mail that names a
/// team's address beside this one still reaches that team.
pub const TEAM: &str = "mailbell-canary";

/// Its outcome in the ledger.
const NAME: &str = "canary";

/// What the canary is made of.
#[derive(Debug)]
pub struct Parts {
    pub every: Duration,
    pub hostname: String,
    pub door: OwnDoor,
    pub spool: Arc<dyn Spool>,
    pub health: Arc<Health>,
    pub faults: Arc<Faults>,
    pub metrics: Arc<Metrics>,
}

/// Sends for as long as it is polled.
pub async fn keep(parts: Parts) {
    let mut times = interval(parts.every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        times.tick().await;
        let wrong = fly(&parts).await.err();
        parts.metrics.canary(wrong.is_none());
        if wrong != told {
            match &wrong {
                Some(reason) => tracing::error!(reason, "the canary did not arrive"),
                None => tracing::info!("the canary arrives again"),
            }
            told.clone_from(&wrong);
        }
        parts.health.report(NAME, wrong.clone());
        parts.faults.canary(wrong);
    }
}

/// Once from the door to the outcome.
async fn fly(parts: &Parts) -> Result<(), String> {
    let sent = timeout(CANARY_MAX, send(parts)).await;
    let mail = sent.map_err(|_| "the door does not answer".to_owned())??;
    let ended = timeout(CANARY_MAX, follow(&*parts.spool, mail)).await;
    ended.map_err(|_| format!("{mail} has no outcome after {} s", CANARY_MAX.as_secs()))?
}

/// As any sender would.
async fn send(parts: &Parts) -> Result<MailId, String> {
    let door = |error: &dyn std::fmt::Display| format!("the door: {error}");
    let to = FORWARD_PATH.parse().map_err(|error| door(&error))?;
    let envelope = Envelope::new(None, vec![to]).map_err(|error| door(&error))?;
    let mail = mail(&parts.hostname);
    let reply = parts
        .door
        .submit(&parts.hostname, &envelope, mail.as_bytes());
    let reply = reply.await.map_err(|error| door(&format!("{error:#}")))?;
    reply.id().map(MailId).ok_or_else(|| door(&reply.text()))
}

fn mail(hostname: &str) -> String {
    format!(
        "From: mailbell <mailbell@{hostname}>\r\nTo: {FORWARD_PATH}\r\nSubject: mailbell canary\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         The gateway looks whether mails get through. Nobody is paged.\r\n"
    )
}

async fn follow(spool: &dyn Spool, mail: MailId) -> Result<(), String> {
    loop {
        let shown = spool.show(mail).await;
        let shown = shown.map_err(|error| format!("the store: {error}"))?;
        let shown = shown.ok_or_else(|| format!("the store: {mail} is not there"))?;
        if let Some(delivery) = shown.deliveries.first()
            && let Stage::Settled(ending) = delivery.summary.stage
        {
            let reason = delivery.summary.reason.as_str();
            return match ending == Ending::Suppressed && reason == NAME {
                true => Ok(()),
                false => Err(format!("{mail} became {ending}: {reason}")),
            };
        }
        sleep(CANARY_LOOK_AGAIN).await;
    }
}

/// Instead of what the rules have decided of it. What they do not know must become an alert: it fails if
/// it did not.
pub fn decision(of_rules: &[Decision]) -> Decision {
    let alerts = of_rules.iter().any(|decision| decision.alert.is_some());
    Decision {
        source: Some(SOURCE.to_owned()),
        rule: Some(NAME.to_owned()),
        event: Event::Ignore,
        degraded: false,
        reason: match alerts {
            true => NAME.to_owned(),
            false => format!("{NAME}: the rules make no alert of an unknown mail"),
        },
        external_id: None,
        fields: Default::default(),
        attachments: Vec::new(),
        alert: None,
        dead_letter: false,
        escalate: false,
        hold: None,
        problems: Vec::new(),
    }
}
