//! What happens, counted, in Prometheus' form.
//!
//! Label values are words of this program and the configuration's team names; never what a peer
//! said, so their number is bounded.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::{Happening, Observer};

/// Seconds; a sync takes from some microseconds to what a failing disk needs.
const STORE_BUCKETS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// Seconds; from a webhook on this machine to a backlog after a day's outage.
const LATENCY_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    team: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    source: String,
    rule: String,
    event: &'static str,
    degraded: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    team: String,
    transport: &'static str,
    result: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabels {
    team: String,
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndingLabels {
    outcome: &'static str,
}

/// Of exemplars only: which mail it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailLabels {
    mail: String,
}

/// The counters behind `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    mails_accepted: Counter,
    mails_not_stored: Counter,
    mail_bytes: Counter,
    deliveries_accepted: Counter,
    decisions: Family<DecisionLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Family<TransportLabels, Histogram>,
    accept_seconds: Histogram,
    settled_seconds: Family<EndingLabels, HistogramWithExemplars<MailLabels>>,
    transport_failing: Family<TransportLabels, Gauge>,
    panics: Counter,
    stuck: Counter,
    spool_failures: Counter,
    reloads: Family<ReloadLabels, Counter>,
    canaries: Family<CanaryLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CanaryLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    result: &'static str,
}

impl Metrics {
    /// The counters, and the registry that prints them.
    pub fn new() -> (Arc<Metrics>, Registry) {
        let histogram = || Histogram::new(LATENCY_BUCKETS);
        let metrics = Metrics {
            mails_accepted: Counter::default(),
            mails_not_stored: Counter::default(),
            mail_bytes: Counter::default(),
            deliveries_accepted: Counter::default(),
            decisions: Family::default(),
            outcomes: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(histogram),
            accept_seconds: Histogram::new(STORE_BUCKETS),
            settled_seconds: Family::new_with_constructor(|| {
                HistogramWithExemplars::new(LATENCY_BUCKETS.into_iter())
            }),
            transport_failing: Family::default(),
            panics: Counter::default(),
            stuck: Counter::default(),
            spool_failures: Counter::default(),
            reloads: Family::default(),
            canaries: Family::default(),
        };
        let mut registry = Registry::with_prefix("mailbell");
        metrics.register(&mut registry);
        (Arc::new(metrics), registry)
    }

    fn register(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", build);
        registry.register(
            "mails_accepted",
            "Mails answered with 250, and alarms of the gateway itself",
            self.mails_accepted.clone(),
        );
        registry.register(
            "mails_not_stored",
            "Mails that the spool could not take; their senders try again",
            self.mails_not_stored.clone(),
        );
        registry.register_with_unit(
            "mail_accepted",
            "Size of accepted mails",
            Unit::Bytes,
            self.mail_bytes.clone(),
        );
        registry.register(
            "deliveries_accepted",
            "Deliveries that accepted mails made, one for each team",
            self.deliveries_accepted.clone(),
        );
        registry.register(
            "decisions",
            "Decisions by source, rule and event",
            self.decisions.clone(),
        );
        registry.register(
            "outcomes",
            "Ends of deliveries, by named outcome",
            self.outcomes.clone(),
        );
        registry.register(
            "attempts",
            "Attempts by transport and answer",
            self.attempts.clone(),
        );
        registry.register_with_unit(
            "attempt",
            "How long a transport took to answer",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        registry.register_with_unit(
            "accept",
            "From a mail's last byte until it is durable, its sync included",
            Unit::Seconds,
            self.accept_seconds.clone(),
        );
        registry.register_with_unit(
            "settled",
            "From the mail's acceptance to its outcome; `alerted` and the like: to the transport's answer",
            Unit::Seconds,
            self.settled_seconds.clone(),
        );
        registry.register(
            "transport_failing",
            "1 while a transport is only probed",
            self.transport_failing.clone(),
        );
        registry.register(
            "reading_panics",
            "Mails whose reading panicked: bugs",
            self.panics.clone(),
        );
        registry.register(
            "reading_stuck",
            "Mails whose reading was given up as it took too long: bugs",
            self.stuck.clone(),
        );
        registry.register(
            "spool_failures",
            "Times that the spool failed the pipeline",
            self.spool_failures.clone(),
        );
        registry.register(
            "reloads",
            "Reloads of rules and certificates",
            self.reloads.clone(),
        );
        registry.register(
            "canaries",
            "Mails of the gateway's own that arrived or failed",
            self.canaries.clone(),
        );
    }

    /// A canary has come to its end.
    pub fn canary(&self, well: bool) {
        let result = if well { "arrived" } else { "failed" };
        self.canaries.get_or_create(&CanaryLabels { result }).inc();
    }

    /// Rules or certificate were read again.
    pub fn reloaded(&self, what: &'static str, well: bool) {
        let result = if well { "taken" } else { "refused" };
        self.reloads
            .get_or_create(&ReloadLabels { what, result })
            .inc();
    }
}

impl Observer for Metrics {
    fn observe(&self, happening: &Happening<'_>) {
        match happening {
            Happening::MailAccepted {
                bytes, teams, took, ..
            } => {
                self.accept_seconds.observe(took.as_secs_f64());
                self.mails_accepted.inc();
                self.mail_bytes.inc_by(*bytes);
                self.deliveries_accepted.inc_by(*teams as u64);
            }
            Happening::MailNotStored { .. } => {
                self.mails_not_stored.inc();
            }
            Happening::MailDecided { decision, .. } => {
                let labels = DecisionLabels {
                    source: decision.source.clone().unwrap_or_default(),
                    rule: decision.rule.clone().unwrap_or_default(),
                    event: decision.event.as_str(),
                    degraded: if decision.degraded { "true" } else { "false" },
                };
                self.decisions.get_or_create(&labels).inc();
            }
            Happening::ReadingPanicked { .. } => {
                self.panics.inc();
            }
            Happening::ReadingStuck { .. } => {
                self.stuck.inc();
            }
            Happening::Attempted {
                team,
                transport,
                outcome,
                took,
                ..
            } => {
                let transport = transport.as_str();
                let team = (*team).to_owned();
                let labels = AttemptLabels {
                    team: team.clone(),
                    transport,
                    result: outcome.as_str(),
                    reason: outcome.reason(),
                };
                self.attempts.get_or_create(&labels).inc();
                let labels = TransportLabels { team, transport };
                self.attempt_seconds
                    .get_or_create(&labels)
                    .observe(took.as_secs_f64());
            }
            Happening::Settled { settled, after } => {
                let labels = OutcomeLabels {
                    team: settled.team.clone(),
                    outcome: settled.ending.as_str(),
                };
                self.outcomes.get_or_create(&labels).inc();
                let labels = EndingLabels {
                    outcome: settled.ending.as_str(),
                };
                let mail = settled.mail.to_string();
                self.settled_seconds.get_or_create(&labels).observe(
                    after.as_secs_f64(),
                    Some(MailLabels { mail }),
                    None,
                );
            }
            Happening::CircuitOpened {
                team, transport, ..
            } => self.set_failing(team, transport.as_str(), 1),
            Happening::CircuitClosed { team, transport } => {
                self.set_failing(team, transport.as_str(), 0)
            }
            Happening::SpoolFailing { .. } | Happening::SpoolFailedOnce { .. } => {
                self.spool_failures.inc();
            }
            Happening::SpoolRecovered { .. } | Happening::Drained { .. } => {}
        }
    }
}

impl Metrics {
    fn set_failing(&self, team: &str, transport: &'static str, failing: i64) {
        let team = team.to_owned();
        self.transport_failing
            .get_or_create(&TransportLabels { team, transport })
            .set(failing);
    }
}
