//! When to try again, on which transport, how urgently, and when to stop. Pure.

use std::time::Duration;

use crate::alert::{Alert, Scenario, Status};
use crate::clock::Time;
use crate::config::{Retry, TransportKind};

/// Urgency 0 is the most urgent; see [`urgency`].
pub const URGENCIES: u8 = 6;

/// Acknowledgements and closes, which leave after what pages people.
pub const FIRST_URGENCY_OF_OTHERS: u8 = 4;

/// What one delivery has been through on one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    pub transport: TransportKind,
    pub attempts: u32,
    pub first_failed: Time,
    pub last_failed: Time,
    /// The answer cannot change by asking again.
    pub rejected: bool,
}

/// What one delivery has been through; empty before the first failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub tries: Vec<Tries>,
}

impl Progress {
    pub fn of(&self, transport: TransportKind) -> Option<&Tries> {
        self.tries.iter().find(|t| t.transport == transport)
    }

    pub fn attempts(&self) -> u32 {
        self.tries
            .iter()
            .fold(0, |sum, tries| sum.saturating_add(tries.attempts))
    }

    /// Notes a failed attempt.
    pub fn failed(&mut self, transport: TransportKind, now: Time, rejected: bool) {
        if let Some(tries) = self.tries.iter_mut().find(|t| t.transport == transport) {
            tries.attempts = tries.attempts.saturating_add(1);
            tries.last_failed = now;
            tries.rejected |= rejected;
            return;
        }
        self.tries.push(Tries {
            transport,
            attempts: 1,
            first_failed: now,
            last_failed: now,
            rejected,
        });
    }

    fn rejected(&self, transport: TransportKind) -> bool {
        self.of(transport).is_some_and(|tries| tries.rejected)
    }
}

/// Exponential backoff with full jitter: a draw from nothing to `first * 2^(attempt - 1)`, which
/// is capped at `max`. A draw under half of `first` is raised to it, so that a lucky series is
/// not a hammer.
///
/// `attempt` counts from 1; `draw` is in `0.0..1.0`.
pub fn backoff(retry: &Retry, attempt: u32, draw: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let ceiling = retry
        .first
        .saturating_mul(1_u32 << doublings)
        .min(retry.max);
    ceiling
        .mul_f64(draw.clamp(0.0, 1.0))
        .max(retry.first.min(retry.max) / 2)
}

/// What a transport of the team is like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    pub transport: TransportKind,
    /// When the failures began that have shut it; `None` while it works.
    pub failing_since: Option<Time>,
    /// Since when the account's pace keeps it from being used.
    pub held_since: Option<Time>,
    /// It answers, but refuses everything: waiting does not help.
    pub refusing: bool,
    /// Nothing may be sent by it until a probe is due.
    pub shut: bool,
    /// It is shut, but a probe is due.
    pub probe_due: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Use(TransportKind),
    /// No transport is free for this delivery now.
    NotNow,
    /// No transport is left: each has rejected it, or there is none.
    Rejected,
    GiveUp,
}

/// Which transport carries a delivery now.
///
/// The first transport, until it has failed for `second_transport_after` (for this delivery or
/// for the whole team), was held back for as long, or rejects this delivery or everything; then the
/// second. While the second is used, single deliveries that have not tried the first still probe it.
pub fn choose(
    progress: &Progress,
    health: &[Health],
    since: Time,
    now: Time,
    retry: &Retry,
) -> Choice {
    let left: Vec<&Health> = health
        .iter()
        .filter(|transport| !progress.rejected(transport.transport))
        .collect();
    let Some((first, others)) = left.split_first() else {
        return Choice::Rejected;
    };
    let tried_all = left.iter().all(|transport| {
        // The probes of a transport that has failed for so long were tries for all.
        progress.of(transport.transport).is_some() || is_given_up(transport, now, retry)
    });
    if tried_all && now.since(since) >= retry.give_up {
        return Choice::GiveUp;
    }
    let second = others
        .first()
        .filter(|_| second_is_due(progress, first, now, retry));
    let is_probe = first.probe_due && progress.of(first.transport).is_none();
    match second {
        Some(second) if !is_probe => between(progress, first, second),
        _ => usable(first).map_or(Choice::NotNow, Choice::Use),
    }
}

/// It has not worked for as long as a delivery is kept.
pub fn is_given_up(transport: &Health, now: Time, retry: &Retry) -> bool {
    let failing_since = transport.failing_since;
    failing_since.is_some_and(|since| now.since(since) >= retry.give_up)
}

/// When the second transport may take over what the first fails to carry.
pub fn second_due_at(failing_since: Time, retry: &Retry) -> Time {
    failing_since.plus(retry.second_transport_after)
}

fn second_is_due(progress: &Progress, first: &Health, now: Time, retry: &Retry) -> bool {
    let own = progress.of(first.transport).map(|tries| tries.first_failed);
    first.refusing
        || [own, first.failing_since, first.held_since]
            .into_iter()
            .flatten()
            .any(|since| now >= second_due_at(since, retry))
}

/// Both may be used: the second, unless it has failed too; then the one that was not tried last.
fn between(progress: &Progress, first: &Health, second: &Health) -> Choice {
    let last = |health: &Health| progress.of(health.transport).map(|t| t.last_failed);
    let order = if last(second) > last(first) {
        [first, second]
    } else {
        [second, first]
    };
    order
        .into_iter()
        .find_map(usable)
        .map_or(Choice::NotNow, Choice::Use)
}

/// The transport, if something may be sent by it now.
pub fn usable(health: &Health) -> Option<TransportKind> {
    (!health.shut || health.probe_due).then_some(health.transport)
}

/// How soon an alert has to leave when not all can: new before acknowledged before resolved, and
/// among the new, an emergency first, then by what the ticket's priority says.
pub fn urgency(alert: &Alert, priority: Option<&str>) -> u8 {
    match alert.status {
        Status::New if alert.scenario == Some(Scenario::Emergency) => 0,
        Status::New => match priority.map(Weight::of) {
            Some(Weight::High) => 1,
            None | Some(Weight::Normal) => 2,
            Some(Weight::Low) => 3,
        },
        Status::Acknowledged => 4,
        Status::Resolved => 5,
    }
}

enum Weight {
    High,
    Normal,
    Low,
}

impl Weight {
    /// Priority names of the five systems in English, German and Dutch (FORMATS.md 2.2, 3, 6).
    /// A number alone says nothing: 1 is the highest in KIX 18 and the lowest in OTRS.
    fn of(priority: &str) -> Weight {
        const HIGH: [&str; 9] = [
            "critical",
            "kritisch",
            "kritiek",
            "very high",
            "sehr hoch",
            "urgent",
            "dringend",
            "emergency",
            "p1",
        ];
        const LOW: [&str; 6] = ["low", "niedrig", "gering", "laag", "p4", "p5"];
        let priority = priority.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| priority.contains(word));
        if has(&HIGH) {
            Weight::High
        } else if has(&LOW) {
            Weight::Low
        } else {
            Weight::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBHOOK: TransportKind = TransportKind::Webhook;
    const RELAY: TransportKind = TransportKind::Relay;

    fn retry() -> Retry {
        Retry {
            first: Duration::from_secs(1),
            max: Duration::from_secs(300),
            give_up: Duration::from_secs(72 * 3600),
            second_transport_after: Duration::from_secs(60),
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn well(transport: TransportKind) -> Health {
        Health {
            transport,
            failing_since: None,
            held_since: None,
            refusing: false,
            shut: false,
            probe_due: false,
        }
    }

    fn failing(transport: TransportKind, since: i64) -> Health {
        Health {
            failing_since: Some(at(since)),
            shut: true,
            ..well(transport)
        }
    }

    #[test]
    fn backoff_doubles_to_its_maximum_and_keeps_a_floor() {
        let seconds = |attempt, draw| backoff(&retry(), attempt, draw).as_secs_f64();
        let highest: Vec<f64> = (1..=12).map(|attempt| seconds(attempt, 1.0)).collect();
        assert_eq!(
            highest,
            [
                1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0
            ]
        );
        assert_eq!(seconds(9, 0.5), 128.0);
        assert_eq!(seconds(9, 0.0), 0.5);
        assert_eq!(seconds(u32::MAX, 1.0), 300.0);
    }

    #[test]
    fn the_first_transport_until_it_has_failed_for_long_enough() {
        let choose_at =
            |health: &[Health], now| choose(&Progress::default(), health, at(0), at(now), &retry());
        assert_eq!(
            choose_at(&[well(WEBHOOK), well(RELAY)], 0),
            Choice::Use(WEBHOOK)
        );
        let down = [failing(WEBHOOK, 100), well(RELAY)];
        assert_eq!(choose_at(&down, 159), Choice::NotNow);
        assert_eq!(choose_at(&down, 160), Choice::Use(RELAY));
        let probing = [
            Health {
                probe_due: true,
                ..failing(WEBHOOK, 100)
            },
            well(RELAY),
        ];
        assert_eq!(choose_at(&probing, 160), Choice::Use(WEBHOOK));
        let held = Health {
            held_since: Some(at(100)),
            shut: true,
            ..well(WEBHOOK)
        };
        assert_eq!(choose_at(&[held, well(RELAY)], 159), Choice::NotNow);
        assert_eq!(choose_at(&[held, well(RELAY)], 160), Choice::Use(RELAY));
        assert_eq!(choose_at(&[failing(WEBHOOK, 100)], 100_000), Choice::NotNow);
        assert_eq!(choose_at(&[], 0), Choice::Rejected);
    }

    #[test]
    fn a_rejected_delivery_goes_to_the_second_transport_at_once() {
        let mut progress = Progress::default();
        progress.failed(WEBHOOK, at(5), true);
        let both = [well(WEBHOOK), well(RELAY)];
        let chosen = choose(&progress, &both, at(0), at(5), &retry());
        assert_eq!(chosen, Choice::Use(RELAY));
        let only = [well(WEBHOOK)];
        assert_eq!(
            choose(&progress, &only, at(0), at(5), &retry()),
            Choice::Rejected
        );
    }

    #[test]
    fn who_has_tried_the_first_does_not_probe_it_when_the_second_is_due() {
        let mut progress = Progress::default();
        progress.failed(WEBHOOK, at(100), false);
        let probe_due = Health {
            probe_due: true,
            ..failing(WEBHOOK, 100)
        };
        let choose_at =
            |health: &[Health], now| choose(&progress, health, at(0), at(now), &retry());
        let both = [probe_due, well(RELAY)];
        assert_eq!(choose_at(&both, 159), Choice::Use(WEBHOOK));
        assert_eq!(choose_at(&both, 160), Choice::Use(RELAY));
        assert_eq!(choose_at(&[probe_due], 160), Choice::Use(WEBHOOK));
        // When the second is of no use, the probe is better than nothing.
        let both = [probe_due, failing(RELAY, 100)];
        assert_eq!(choose_at(&both, 160), Choice::Use(WEBHOOK));
    }

    #[test]
    fn when_both_fail_they_take_turns() {
        let mut progress = Progress::default();
        progress.failed(WEBHOOK, at(0), false);
        let both = [well(WEBHOOK), well(RELAY)];
        let choose_at =
            |progress: &Progress, now| choose(progress, &both, at(0), at(now), &retry());
        assert_eq!(choose_at(&progress, 30), Choice::Use(WEBHOOK));
        assert_eq!(choose_at(&progress, 60), Choice::Use(RELAY));
        progress.failed(RELAY, at(60), false);
        assert_eq!(choose_at(&progress, 70), Choice::Use(WEBHOOK));
        progress.failed(WEBHOOK, at(70), false);
        assert_eq!(choose_at(&progress, 80), Choice::Use(RELAY));
    }

    #[test]
    fn gives_up_only_after_every_transport_was_tried() {
        let end = retry().give_up.as_secs() as i64;
        let both = [well(WEBHOOK), well(RELAY)];
        let mut progress = Progress::default();
        progress.failed(WEBHOOK, at(0), false);
        let choose_at =
            |progress: &Progress, now| choose(progress, &both, at(0), at(now), &retry());
        assert_eq!(choose_at(&progress, end), Choice::Use(RELAY));
        progress.failed(RELAY, at(end), false);
        assert_eq!(choose_at(&progress, end), Choice::GiveUp);
    }

    #[test]
    fn gives_up_without_a_try_when_no_transport_has_worked_for_as_long() {
        let end = retry().give_up.as_secs() as i64;
        let both = [failing(WEBHOOK, 10), failing(RELAY, 20)];
        let choose_at =
            |since, now| choose(&Progress::default(), &both, at(since), at(now), &retry());
        assert_eq!(choose_at(0, end + 19), Choice::NotNow);
        assert_eq!(choose_at(0, end + 20), Choice::GiveUp);
        // One that came later has its own time.
        assert_eq!(choose_at(100, end + 99), Choice::NotNow);
    }

    #[test]
    fn urgency_order() {
        let alert = |status, scenario| Alert {
            title: String::new(),
            message: String::new(),
            status,
            external_id: None,
            source_system: None,
            service: None,
            location: None,
            scenario,
            filtering: None,
            parameters: Vec::new(),
        };
        let new = |priority| urgency(&alert(Status::New, None), priority);
        let order = [
            urgency(&alert(Status::New, Some(Scenario::Emergency)), Some("low")),
            new(Some("1 sehr hoch")),
            new(Some("3 normal")),
            new(Some("5 niedrig")),
            urgency(&alert(Status::Acknowledged, None), Some("critical")),
            urgency(&alert(Status::Resolved, None), Some("critical")),
        ];
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        assert_eq!(new(None), new(Some("1")));
    }
}
