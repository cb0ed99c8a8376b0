//! What happens, told once: a [`Happening`] is its log line and, for whoever counts, its metrics.
//!
//! Owns the words of the log. Must not decide anything.

mod collectors;
mod exposition;
pub mod health;
mod metrics;
mod traces;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Time, whole_ms};
use crate::config::TransportKind;
use crate::deliver::Outcome;
use crate::rules::Decision;
use crate::spool::{MailId, Settled, SpoolError};

pub use collectors::{StoreNumbers, StoreSeen, with_certificates, with_door, with_store};
pub use exposition::{CLASSIC, OPEN_METRICS, classic};
pub use health::{Entries, Health};
pub use metrics::Metrics;
pub use traces::{Exporter, Traces, traces};

/// One thing that has happened between the 250 reply and the outside.
#[derive(Debug, Clone, Copy)]
pub enum Happening<'a> {
    /// A mail is durable, and its 250 is about to be sent.
    MailAccepted {
        mail: MailId,
        peer: IpAddr,
        bytes: u64,
        /// Deliveries that it makes: one for each team.
        teams: usize,
        /// Until it was durable.
        took: Duration,
    },
    /// A mail could not be stored; its peer is told to come again.
    MailNotStored {
        reason: &'a SpoolError,
    },
    MailDecided {
        mail: MailId,
        team: &'a str,
        decision: &'a Decision,
    },
    /// Reading or deciding a mail panicked: a bug. The mail goes to the dead letters.
    ReadingPanicked {
        mail: MailId,
        message: &'a str,
    },
    /// Reading or deciding a mail does not come to an end: a bug. It goes to the dead letters.
    ReadingStuck {
        mail: MailId,
        after: Duration,
    },
    /// A transport was asked, and answered.
    Attempted {
        mail: MailId,
        team: &'a str,
        transport: TransportKind,
        outcome: &'a Outcome,
        took: Duration,
    },
    /// A delivery came to its one outcome.
    Settled {
        settled: &'a Settled,
        /// Since the mail was accepted.
        after: Duration,
    },
    CircuitOpened {
        team: &'a str,
        transport: TransportKind,
        reason: &'a str,
        /// It answers, but refuses.
        refuses: bool,
        at: Time,
        /// How long until it is probed.
        probe_in: Duration,
    },
    CircuitClosed {
        team: &'a str,
        transport: TransportKind,
    },
    /// The spool does not answer the pipeline; tried again after `pause`.
    SpoolFailing {
        doing: &'static str,
        reason: &'a SpoolError,
        pause: Duration,
    },
    SpoolRecovered {
        doing: &'static str,
    },
    /// The spool has failed at what is not tried again and need not be: nothing stays broken.
    SpoolFailedOnce {
        doing: &'static str,
        reason: &'a SpoolError,
    },
    /// The pipeline has stopped; `unfinished` deliveries were cut off and are sent again at start.
    Drained {
        unfinished: usize,
    },
}

/// Whoever wants to know.
pub trait Observer: Send + Sync + fmt::Debug {
    fn observe(&self, happening: &Happening<'_>);
}

/// Tells each of several.
#[derive(Debug)]
pub struct Observers(pub Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn observe(&self, happening: &Happening<'_>) {
        for observer in &self.0 {
            observer.observe(happening);
        }
    }
}

/// Writes each happening as one structured log line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Log;

impl Observer for Log {
    fn observe(&self, happening: &Happening<'_>) {
        match happening {
            Happening::MailAccepted {
                mail,
                peer,
                bytes,
                teams,
                ..
            } => tracing::info!(%mail, %peer, bytes, teams, "mail accepted"),
            Happening::MailNotStored { reason } => {
                tracing::error!(%reason, "mail could not be stored, its sender will try again");
            }
            Happening::MailDecided {
                mail,
                team,
                decision,
            } => tracing::info!(
                %mail,
                team,
                source = decision.source,
                rule = decision.rule,
                event = %decision.event,
                external_id = decision.external_id.as_ref().map(|id| id.as_str()),
                degraded = decision.degraded,
                reason = decision.reason,
                "mail decided"
            ),
            Happening::ReadingPanicked { mail, message } => {
                tracing::error!(%mail, panic = message, "reading the mail panicked, it goes to the dead letters");
            }
            Happening::ReadingStuck { mail, after } => {
                let after_ms = whole_ms(*after);
                tracing::error!(%mail, after_ms, "reading the mail does not end, it goes to the dead letters");
            }
            Happening::Attempted {
                mail,
                team,
                transport,
                outcome,
                took,
            } => log_attempt(*mail, team, *transport, outcome, *took),
            Happening::Settled { settled, after } => log_settled(settled, *after),
            Happening::CircuitOpened {
                team,
                transport,
                reason,
                probe_in,
                ..
            } => tracing::error!(
                team,
                transport = transport.as_str(),
                reason,
                probe_in_ms = whole_ms(*probe_in),
                "transport fails, it is only probed from now on"
            ),
            Happening::CircuitClosed { team, transport } => {
                tracing::info!(
                    team,
                    transport = transport.as_str(),
                    "transport works again"
                );
            }
            Happening::SpoolFailing {
                doing,
                reason,
                pause,
            } => tracing::error!(doing, %reason, pause_ms = whole_ms(*pause), "spool fails"),
            Happening::SpoolRecovered { doing } => tracing::info!(doing, "spool works again"),
            Happening::SpoolFailedOnce { doing, reason } => {
                tracing::warn!(doing, %reason, "spool failed, it is not tried again");
            }
            Happening::Drained { unfinished } => tracing::info!(unfinished, "pipeline stopped"),
        }
    }
}

fn log_settled(settled: &Settled, after: Duration) {
    let Settled {
        mail,
        team,
        part,
        ending,
        reason,
        ..
    } = settled;
    let after_ms = whole_ms(after);
    if *ending == crate::spool::Ending::DeadLetter {
        tracing::error!(%mail, team, part, outcome = %ending, reason, after_ms, "dead letter: nobody was told of this mail");
    } else {
        tracing::info!(%mail, team, part, outcome = %ending, reason, after_ms, "settled");
    }
}

fn log_attempt(
    mail: MailId,
    team: &str,
    transport: TransportKind,
    outcome: &Outcome,
    took: Duration,
) {
    let transport = transport.as_str();
    let (result, reason, answer) = (outcome.as_str(), outcome.reason(), outcome.detail());
    let took_ms = whole_ms(took);
    match outcome {
        // The line of its outcome says the same.
        Outcome::Delivered { .. } => {
            tracing::debug!(%mail, team, transport, result, answer, took_ms, "attempt");
        }
        Outcome::Deferred { .. } => {
            tracing::warn!(%mail, team, transport, result, reason, answer, took_ms, "attempt");
        }
        Outcome::Rejected { .. } => {
            tracing::error!(%mail, team, transport, result, reason, answer, took_ms, "attempt");
        }
    }
}
