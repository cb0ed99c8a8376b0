//! Numbers that other rooms keep, read when somebody asks for the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Time;
use crate::smtp::stats::DoorStats;
use crate::smtp::tls::Certificates;
use crate::spool::{Glance, Totals};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    what: &'static str,
}

/// The store at one moment.
#[derive(Debug)]
pub struct StoreSeen {
    pub at: Time,
    pub glance: Glance,
    /// What it takes on the disk, or in the database.
    pub bytes: u64,
}

/// The store as it was last shown, its ledger by team. It outlives the process, unlike all other
/// numbers here.
#[derive(Debug, Clone, Default)]
pub struct StoreNumbers(Arc<Mutex<Option<StoreSeen>>>);

impl StoreNumbers {
    /// What the next scrape says: one moment of the store, so that it balances. `None`: the store
    /// does not answer, and numbers of another time would look as if nothing happened.
    pub fn show(&self, seen: Option<StoreSeen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// The registry with the store's numbers added, and where to show them before a scrape.
pub fn with_store(mut registry: Registry) -> (Registry, StoreNumbers) {
    let numbers = StoreNumbers::default();
    registry.register_collector(Box::new(numbers.clone()));
    (registry, numbers)
}

impl Collector for StoreNumbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = &*seen else {
            return Ok(());
        };
        encode_ledger(&mut encoder, &seen.glance)?;
        encode_stages(&mut encoder, &seen.glance)?;
        let mut overdue = encoder.encode_descriptor(
            "overdue",
            "By team, since when the oldest delivery that is due has not been sent",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for team in seen.glance.teams.keys() {
            let since = seen.glance.overdue.get(team);
            let age = since.map_or(0.0, |since| seen.at.since(*since).as_secs_f64());
            ConstGauge::new(age).encode(overdue.encode_family(&[("team", team.as_str())])?)?;
        }
        ConstGauge::new(number(seen.bytes)).encode(encoder.encode_descriptor(
            "spool_size",
            "What the store takes",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?)
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn encode_ledger(encoder: &mut DescriptorEncoder<'_>, glance: &Glance) -> fmt::Result {
    type Read = fn(&Totals) -> u64;
    let counters: [(&str, &str, Read); 2] = [
        (
            "ledger_accepted",
            "Mails accepted for the team since the spool was made",
            |totals| totals.accepted,
        ),
        (
            "ledger_split",
            "Further deliveries that digests were split into",
            |totals| totals.split,
        ),
    ];
    for (name, help, read) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (team, totals) in &glance.teams {
            let labels = [("team", team.as_str())];
            ConstCounter::new(read(totals)).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut outcomes = encoder.encode_descriptor(
        "ledger_outcomes",
        "Deliveries that have ended; a dead letter that is retried is taken back",
        None,
        MetricType::Counter,
    )?;
    for (team, totals) in &glance.teams {
        for (ending, total) in &totals.outcomes {
            let labels = [("team", team.as_str()), ("outcome", ending.as_str())];
            ConstCounter::new(*total).encode(outcomes.encode_family(&labels)?)?;
        }
    }
    let mut unfinished = encoder.encode_descriptor(
        "ledger_unfinished",
        "Deliveries that have not ended: accepted + split - outcomes",
        None,
        MetricType::Gauge,
    )?;
    for (team, totals) in &glance.teams {
        let labels = [("team", team.as_str())];
        let waiting = number(totals.unfinished());
        ConstGauge::new(waiting).encode(unfinished.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_stages(encoder: &mut DescriptorEncoder<'_>, glance: &Glance) -> fmt::Result {
    let mut stages = encoder.encode_descriptor(
        "deliveries",
        "Deliveries that have not ended, by stage; counted up to 10000",
        None,
        MetricType::Gauge,
    )?;
    let counts = [
        ("accepted", glance.accepted),
        ("behind", glance.behind),
        ("waiting", glance.waiting),
        ("sending", glance.sending),
    ];
    for (stage, count) in counts {
        ConstGauge::new(number(count)).encode(stages.encode_family(&[("stage", stage)])?)?;
    }
    let gauges = [
        (
            "dead_letters",
            "Dead letters that nobody has dropped or retried; counted up to 10000",
            glance.dead_letters,
        ),
        (
            "open_tickets",
            "Tickets whose alert is open; counted up to 10000",
            glance.open_tickets,
        ),
    ];
    for (name, help, count) in gauges {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(number(count)).encode(family)?;
    }
    Ok(())
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
        let mut closed = encoder.encode_descriptor(
            "sessions_closed",
            "SMTP sessions that were closed from here, by reason; not those whose peer just left",
            None,
            MetricType::Counter,
        )?;
        for (why, count) in stats.closed() {
            let labels = WhatLabels { what: why.as_str() };
            ConstCounter::new(count).encode(closed.encode_family(&labels)?)?;
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
