//! Stops hammering a transport that fails, and probes it. Pure; one for each team and transport.

use std::time::Duration;

use crate::clock::Time;
use crate::config::Retry;
use crate::deliver::schedule::backoff;
use crate::limits::{FAILURES_UNTIL_SHUT, REFUSED_PROBE_INTERVAL, REJECTIONS_UNTIL_SHUT};

#[derive(Debug, Clone, Default)]
pub struct Circuit {
    /// Failed attempts in a row.
    failures: u32,
    /// Rejections in a row: answers that asking again does not change.
    rejections: u32,
    failing_since: Option<Time>,
    /// Set while the circuit is open.
    probe_at: Option<Time>,
    probing: bool,
    /// The last answer was a success. SIGNL4 counts erroneous requests, so only transports that
    /// are known to work may go on when that count is nearly used up.
    proven: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Free,
    /// One delivery may try.
    Probe,
    /// Nothing, until then; `None` while a probe is under way.
    Shut(Option<Time>),
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Opened { probe_at: Time },
    Closed,
}

impl Circuit {
    pub fn gate(&self, now: Time) -> Gate {
        match self.probe_at {
            None => Gate::Free,
            Some(_) if self.probing => Gate::Shut(None),
            Some(at) if now >= at => Gate::Probe,
            Some(at) => Gate::Shut(Some(at)),
        }
    }

    pub fn failing_since(&self) -> Option<Time> {
        self.failing_since
    }

    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// It answers, but refuses: waiting does not help, so the second transport takes over at once.
    pub fn is_refusing(&self) -> bool {
        self.probe_at.is_some() && self.rejections >= REJECTIONS_UNTIL_SHUT
    }

    pub fn probe_at(&self) -> Option<Time> {
        self.probe_at.filter(|_| !self.probing)
    }

    /// The clock was set back by so much: what was noted by it stays as far from now as it was.
    pub fn set_back(&mut self, by: Duration) {
        for time in [&mut self.failing_since, &mut self.probe_at] {
            *time = time.map(|at| at.minus(by));
        }
    }

    /// A delivery is about to be sent; takes the probe when the circuit is open.
    pub fn started(&mut self) {
        self.probing = self.probe_at.is_some();
    }

    pub fn delivered(&mut self) -> Change {
        let was_open = self.probe_at.is_some();
        *self = Circuit {
            proven: true,
            ..Circuit::default()
        };
        if was_open {
            Change::Closed
        } else {
            Change::None
        }
    }

    /// The other side answers again, asked without a delivery.
    pub fn answers(&mut self) -> Change {
        let change = self.delivered();
        self.proven = false;
        change
    }

    /// `retry_after` is what the other side asked for.
    pub fn deferred(
        &mut self,
        now: Time,
        retry_after: Option<Duration>,
        retry: &Retry,
        draw: f64,
    ) -> Change {
        self.failed(now);
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_UNTIL_SHUT && retry_after.is_none() {
            return Change::None;
        }
        let wait = backoff(retry, self.failures, draw).max(retry_after.unwrap_or_default());
        self.open(now.plus(wait))
    }

    /// The endpoint answered, but refused. One body may be at fault, so a few are let through;
    /// after that, a probe at an interval that stays under SIGNL4's limit of erroneous requests.
    pub fn rejected(&mut self, now: Time) -> Change {
        self.failed(now);
        self.rejections = self.rejections.saturating_add(1);
        if self.rejections < REJECTIONS_UNTIL_SHUT {
            return Change::None;
        }
        self.open(now.plus(REFUSED_PROBE_INTERVAL))
    }

    fn failed(&mut self, now: Time) {
        self.proven = false;
        self.probing = false;
        self.failing_since.get_or_insert(now);
    }

    fn open(&mut self, probe_at: Time) -> Change {
        let opened = self.probe_at.is_none();
        self.probe_at = Some(self.probe_at.map_or(probe_at, |at| at.max(probe_at)));
        if opened {
            Change::Opened { probe_at }
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry() -> Retry {
        Retry {
            first: Duration::from_secs(1),
            max: Duration::from_secs(300),
            give_up: Duration::from_secs(3600),
            second_transport_after: Duration::from_secs(60),
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn opens_after_failures_in_a_row_probes_once_and_closes_on_success() {
        let mut circuit = Circuit::default();
        for _ in 1..FAILURES_UNTIL_SHUT {
            assert_eq!(circuit.deferred(at(0), None, &retry(), 1.0), Change::None);
            assert_eq!(circuit.gate(at(0)), Gate::Free);
        }
        let Change::Opened { probe_at } = circuit.deferred(at(1), None, &retry(), 1.0) else {
            panic!("still closed")
        };
        assert_eq!(circuit.failing_since(), Some(at(0)));
        assert_eq!(circuit.gate(at(1)), Gate::Shut(Some(probe_at)));
        assert_eq!(circuit.gate(probe_at), Gate::Probe);
        circuit.started();
        assert_eq!(circuit.gate(probe_at), Gate::Shut(None));
        assert_eq!(
            circuit.deferred(probe_at, None, &retry(), 1.0),
            Change::None
        );
        assert!(matches!(circuit.gate(probe_at), Gate::Shut(Some(later)) if later > probe_at));
        assert_eq!(circuit.delivered(), Change::Closed);
        assert_eq!(circuit.gate(probe_at), Gate::Free);
        assert_eq!(circuit.failing_since(), None);
    }

    #[test]
    fn one_success_starts_the_count_again() {
        let mut circuit = Circuit::default();
        for second in 0..100 {
            circuit.deferred(at(second), None, &retry(), 1.0);
            circuit.delivered();
        }
        assert_eq!(circuit.gate(at(100)), Gate::Free);
    }

    #[test]
    fn what_the_other_side_asks_for_is_honoured_at_once() {
        let mut circuit = Circuit::default();
        let hour = Duration::from_secs(3600);
        circuit.deferred(at(0), Some(hour), &retry(), 0.0);
        assert_eq!(circuit.gate(at(3599)), Gate::Shut(Some(at(3600))));
    }

    #[test]
    fn a_refusing_endpoint_is_asked_less_than_ten_times_a_minute() {
        let mut circuit = Circuit::default();
        let mut asked = 0;
        for second in 0..60 {
            while matches!(circuit.gate(at(second)), Gate::Free | Gate::Probe) {
                circuit.started();
                circuit.rejected(at(second));
                asked += 1;
            }
        }
        assert!(asked < 10, "{asked}");
    }
}
