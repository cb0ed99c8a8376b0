//! What happens, counted, in Prometheus' form.
//!
//! Label values are words of this program and the configuration's team names; never what a peer
//! said, so their number is bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Happening, Observer};
use crate::smtp::stats::DoorStats;
use crate::smtp::tls::Certificates;

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
struct WhatLabels {
    what: &'static str,
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
    settled_seconds: Histogram,
    transport_failing: Family<TransportLabels, Gauge>,
    panics: Counter,
    spool_failures: Counter,
    reloads: Family<OutcomeLabelsOfReload, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabelsOfReload {
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
            settled_seconds: histogram(),
            transport_failing: Family::default(),
            panics: Counter::default(),
            spool_failures: Counter::default(),
            reloads: Family::default(),
        };
        let mut registry = Registry::with_prefix("mailbell");
        metrics.register(&mut registry);
        (Arc::new(metrics), registry)
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "mails_accepted",
            "Mails answered with 250",
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
            "settled",
            "From the mail's acceptance to its outcome",
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
            "spool_failures",
            "Times that the spool failed the pipeline",
            self.spool_failures.clone(),
        );
        registry.register(
            "reloads",
            "Reloads of rules and certificates",
            self.reloads.clone(),
        );
    }

    /// Rules or certificate were read again.
    pub fn reloaded(&self, what: &'static str, well: bool) {
        let result = if well { "taken" } else { "refused" };
        self.reloads
            .get_or_create(&OutcomeLabelsOfReload { what, result })
            .inc();
    }
}

impl Observer for Metrics {
    fn observe(&self, happening: &Happening<'_>) {
        match happening {
            Happening::MailAccepted { bytes, teams, .. } => {
                self.mails_accepted.inc();
                self.mail_bytes.inc_by(*bytes as u64);
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
                self.settled_seconds.observe(after.as_secs_f64());
            }
            Happening::CircuitOpened {
                team, transport, ..
            } => self.set_failing(team, transport.as_str(), 1),
            Happening::CircuitClosed { team, transport } => {
                self.set_failing(team, transport.as_str(), 0)
            }
            Happening::SpoolFailing { .. } => {
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

/// The registry with the door's numbers added.
pub fn with_door(mut registry: Registry, stats: Arc<DoorStats>) -> Registry {
    registry.register_collector(Box::new(Door(stats)));
    registry
}

/// The registry with the end of the certificate in force added.
pub fn with_certificates(mut registry: Registry, certificates: Arc<Certificates>) -> Registry {
    registry.register_collector(Box::new(CertificateEnd(certificates)));
    registry
}

#[derive(Debug)]
struct CertificateEnd(Arc<Certificates>);

impl Collector for CertificateEnd {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(end) = self.0.not_after() else {
            return Ok(());
        };
        ConstGauge::new(end.as_second()).encode(encoder.encode_descriptor(
            "tls_expiry_timestamp",
            "Unix time at which the certificate in force, or one of its chain, ends",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)
    }
}

/// The door counts for itself; its numbers are read when somebody asks.
#[derive(Debug)]
struct Door(Arc<DoorStats>);

impl Collector for Door {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let open = ConstGauge::new(read(&stats.connections_open) as i64);
        open.encode(encoder.encode_descriptor(
            "connections_open",
            "SMTP connections at this moment",
            None,
            MetricType::Gauge,
        )?)?;
        let counters = [
            (
                "connections_accepted",
                "SMTP connections taken",
                &stats.connections_accepted,
            ),
            (
                "connections_encrypted",
                "TLS handshakes that succeeded",
                &stats.connections_encrypted,
            ),
            (
                "handshakes_failed",
                "TLS handshakes that failed",
                &stats.handshakes_failed,
            ),
            (
                "accepts_failed",
                "Connections that the system could not hand over",
                &stats.accepts_failed,
            ),
            (
                "authentications_failed",
                "AUTH exchanges refused",
                &stats.authentications_failed,
            ),
        ];
        for (name, help, number) in counters {
            ConstCounter::new(read(number)).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        let mut turned_away = encoder.encode_descriptor(
            "connections_turned_away",
            "Connections refused at a bound",
            None,
            MetricType::Counter,
        )?;
        for (why, count) in stats.turned_away() {
            let labels = WhatLabels { what: why.as_str() };
            ConstCounter::new(count).encode(turned_away.encode_family(&labels)?)?;
        }
        let mut refused = encoder.encode_descriptor(
            "replies_refusing",
            "4xx and 5xx replies by enhanced code",
            None,
            MetricType::Counter,
        )?;
        for ((code, enhanced), count) in stats.refused() {
            let labels = [
                ("code", code.to_string()),
                ("enhanced", enhanced.to_owned()),
            ];
            ConstCounter::new(count).encode(refused.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
