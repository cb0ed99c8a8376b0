//! Stops hammering a transport that fails, and probes it. Pure; one for each team and transport.

use std::time::Duration;

use crate::clock::Time;
use crate::config::Retry;
use crate::deliver::Rejection;
use crate::deliver::schedule::backoff;
use crate::limits::{FAILURES_UNTIL_SHUT, REFUSED_PROBE_INTERVAL, REJECTIONS_UNTIL_SHUT};
use crate::spool::MailId;

#[derive(Debug, Clone, Default)]
pub struct Circuit {
    /// Failed attempts in a row.
    failures: u32,
    /// Rejections in a row that concern any mail.
    rejections: u32,
    /// Mails that were rejected in a row and may be at fault themselves, with the time of it. While
    /// the circuit is closed, old ones do not count.
    rejected_mails: Vec<(MailId, Time)>,
    /// Outlasts an answer to a question without a delivery: that one proves little.
    failing_since: Option<Time>,
    /// Set while the circuit is open.
    probe_at: Option<Time>,
    probing: bool,
    /// How far the last attempt that failed came.
    reached: Reached,
    /// It was told that the circuit has opened, and not that it has closed.
    is_told: bool,
    /// The last answer was a success. SIGNL4 counts erroneous requests, so only transports that
    /// are known to work may go on when that count is nearly used up.
    proven: bool,
    /// A delivery has succeeded since the start.
    has_worked: bool,
}

/// How far an attempt came that failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reached {
    /// The other side was not asked.
    #[default]
    Nobody,
    /// It was asked, and did not answer.
    Silence,
    Answer,
}

/// An attempt that failed in a way that may pass.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// As [`Circuit::started`] said.
    pub is_probe: bool,
    pub reached: Reached,
    /// What the other side asked for.
    pub retry_after: Option<Duration>,
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
    Opened {
        probe_at: Time,
    },
    /// It may work: what was postponed need not wait longer.
    Hopeful,
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

    /// When the failures began that have opened it; `None` while it is closed, where one failure
    /// says nothing of the next delivery.
    pub fn failing_since(&self) -> Option<Time> {
        self.probe_at.and(self.failing_since)
    }

    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// It answers, but refuses: waiting does not help, so the second transport takes over at once.
    pub fn is_refusing(&self) -> bool {
        self.probe_at.is_some() && self.refusals() >= REJECTIONS_UNTIL_SHUT
    }

    /// Whether to ask it without a delivery shows anything: not of one that has answered, since only
    /// a delivery can show that it takes one again.
    pub fn is_to_be_asked(&self, now: Time) -> bool {
        self.gate(now) == Gate::Probe && self.reached != Reached::Answer
    }

    pub fn probe_at(&self) -> Option<Time> {
        self.probe_at.filter(|_| !self.probing)
    }

    /// The clock was set back by so much: what was noted by it stays as far from now as it was.
    pub fn set_back(&mut self, by: Duration) {
        for time in [&mut self.failing_since, &mut self.probe_at] {
            *time = time.map(|at| at.minus(by));
        }
        for (_, at) in &mut self.rejected_mails {
            *at = at.minus(by);
        }
    }

    /// A delivery is about to be sent. Returns whether it is the probe of an open circuit: what was
    /// begun before it opened and fails later says no more than what opened it.
    pub fn started(&mut self) -> bool {
        self.probing = self.probe_at.is_some();
        self.probing
    }

    /// One delivery may try at once.
    pub fn probe_now(&mut self, now: Time) {
        self.probe_at = self.probe_at.map(|at| at.min(now));
    }

    pub fn delivered(&mut self) -> Change {
        let before = std::mem::replace(
            self,
            Circuit {
                proven: true,
                has_worked: true,
                ..Circuit::default()
            },
        );
        if before.is_told {
            Change::Closed
        } else if before.has_worked && before.probe_at.is_none() {
            Change::None
        } else {
            Change::Hopeful
        }
    }

    /// The other side answers again, asked without a delivery: one delivery may try at once. That is
    /// the end of the trouble only if there was nobody to answer; one that keeps silent about
    /// deliveries may answer everything else.
    pub fn answers(&mut self, now: Time) -> Change {
        self.probing = false;
        self.probe_now(now);
        let was_away = self.reached == Reached::Nobody;
        self.reached = Reached::Answer;
        if self.is_told && was_away {
            self.is_told = false;
            return Change::Closed;
        }
        Change::Hopeful
    }

    /// Asked without a delivery, it does not answer well.
    pub fn does_not_answer(&mut self, now: Time, retry: &Retry, draw: f64) -> Change {
        let failure = Failure {
            is_probe: true,
            reached: self.reached,
            retry_after: None,
        };
        self.deferred(failure, now, retry, draw)
    }

    pub fn deferred(&mut self, failure: Failure, now: Time, retry: &Retry, draw: f64) -> Change {
        let asked_for = failure.retry_after.unwrap_or_default();
        if self.probe_at.is_some() && !failure.is_probe {
            self.probe_at = self
                .probe_at
                .max(failure.retry_after.map(|wait| now.plus(wait)));
            return Change::None;
        }
        self.failed(failure.reached, failure.is_probe);
        self.failing_since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_UNTIL_SHUT && failure.retry_after.is_none() {
            return Change::None;
        }
        let wait = backoff(retry, self.failures, draw).max(asked_for);
        self.open(now.plus(wait))
    }

    /// The endpoint answered, but refused. One body may be at fault, so a few are let through;
    /// after that, a probe at an interval that stays under SIGNL4's limit of erroneous requests.
    pub fn rejected(
        &mut self,
        mail: MailId,
        reason: Rejection,
        is_probe: bool,
        now: Time,
    ) -> Change {
        self.failed(Reached::Answer, is_probe);
        if reason.may_be_the_mails() {
            let is_open = self.probe_at.is_some();
            // Whoever sends one mail again and again learns nothing about the others.
            self.rejected_mails.retain(|(other, at)| {
                *other != mail && (is_open || now.since(*at) < REFUSED_PROBE_INTERVAL)
            });
            self.rejected_mails.truncate(REJECTIONS_UNTIL_SHUT as usize);
            self.rejected_mails.push((mail, now));
        } else {
            self.rejections = self.rejections.saturating_add(1);
        }
        if self.refusals() < REJECTIONS_UNTIL_SHUT {
            return Change::None;
        }
        self.failing_since.get_or_insert(now);
        self.open(now.plus(REFUSED_PROBE_INTERVAL))
    }

    fn refusals(&self) -> u32 {
        let mails = u32::try_from(self.rejected_mails.len()).unwrap_or(u32::MAX);
        self.rejections.saturating_add(mails)
    }

    fn failed(&mut self, reached: Reached, is_probe: bool) {
        self.proven = false;
        self.probing &= !is_probe;
        self.reached = reached;
    }

    fn open(&mut self, probe_at: Time) -> Change {
        self.probe_at = Some(self.probe_at.map_or(probe_at, |at| at.max(probe_at)));
        if std::mem::replace(&mut self.is_told, true) {
            Change::None
        } else {
            Change::Opened { probe_at }
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

    const ANSWER: Reached = Reached::Answer;

    fn mail(number: u8) -> MailId {
        format!("0190163d-8694-739b-aea5-966c26f8ad{number:02x}")
            .parse()
            .unwrap()
    }

    impl Circuit {
        /// One attempt, begun and ended now.
        fn fails(&mut self, now: Time, reached: Reached) -> Change {
            let is_probe = self.started();
            self.ends(is_probe, now, reached)
        }

        fn ends(&mut self, is_probe: bool, now: Time, reached: Reached) -> Change {
            let failure = Failure {
                is_probe,
                reached,
                retry_after: None,
            };
            self.deferred(failure, now, &retry(), 1.0)
        }

        fn open_by(reached: Reached) -> Circuit {
            let mut circuit = Circuit::default();
            while circuit.gate(at(0)) == Gate::Free {
                circuit.fails(at(0), reached);
            }
            circuit
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_probes_once_and_closes_on_success() {
        let mut circuit = Circuit::default();
        for _ in 1..FAILURES_UNTIL_SHUT {
            assert_eq!(circuit.fails(at(0), ANSWER), Change::None);
            assert_eq!(circuit.gate(at(0)), Gate::Free);
            assert_eq!(circuit.failing_since(), None, "it goes on being used");
        }
        let Change::Opened { probe_at } = circuit.fails(at(1), ANSWER) else {
            panic!("still closed")
        };
        assert_eq!(circuit.failing_since(), Some(at(0)));
        assert_eq!(circuit.gate(at(1)), Gate::Shut(Some(probe_at)));
        assert_eq!(circuit.gate(probe_at), Gate::Probe);
        circuit.started();
        assert_eq!(circuit.gate(probe_at), Gate::Shut(None));
        assert_eq!(circuit.fails(probe_at, ANSWER), Change::None);
        assert!(matches!(circuit.gate(probe_at), Gate::Shut(Some(later)) if later > probe_at));
        assert_eq!(circuit.delivered(), Change::Closed);
        assert_eq!(circuit.gate(probe_at), Gate::Free);
        assert_eq!(circuit.failing_since(), None);
    }

    #[test]
    fn one_success_starts_the_count_again() {
        let mut circuit = Circuit::default();
        for second in 0..100 {
            circuit.fails(at(second), ANSWER);
            circuit.delivered();
        }
        assert_eq!(circuit.gate(at(100)), Gate::Free);
    }

    #[test]
    fn what_waits_need_not_wait_after_the_first_success() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.delivered(), Change::Hopeful);
        assert_eq!(circuit.delivered(), Change::None);
    }

    #[test]
    fn what_the_other_side_asks_for_is_honoured_at_once() {
        let mut circuit = Circuit::default();
        let hour = Duration::from_secs(3600);
        let failure = Failure {
            is_probe: circuit.started(),
            reached: ANSWER,
            retry_after: Some(hour),
        };
        circuit.deferred(failure, at(0), &retry(), 0.0);
        assert_eq!(circuit.gate(at(3599)), Gate::Shut(Some(at(3600))));
        // Also when it comes with what was under way.
        circuit.deferred(failure, at(1), &retry(), 0.0);
        assert_eq!(circuit.gate(at(3600)), Gate::Shut(Some(at(3601))));
    }

    #[test]
    fn what_was_under_way_when_it_opened_neither_puts_off_the_probe_nor_ends_it() {
        let mut circuit = Circuit::default();
        let under_way: Vec<bool> = (0..32).map(|_| circuit.started()).collect();
        let mut probes = Vec::new();
        for is_probe in under_way {
            circuit.ends(is_probe, at(0), ANSWER);
            probes.push(circuit.probe_at());
        }
        let opened = probes.iter().position(Option::is_some).unwrap();
        assert!(
            probes[opened..].iter().all(|at| *at == probes[opened]),
            "{probes:?}"
        );
        let probe_at = probes[opened].unwrap();
        assert!(circuit.started());
        circuit.ends(false, probe_at, Reached::Silence);
        assert_eq!(circuit.gate(probe_at), Gate::Shut(None), "one at a time");
        circuit.ends(true, probe_at, ANSWER);
        assert!(matches!(circuit.gate(probe_at), Gate::Shut(Some(_))));
    }

    #[test]
    fn a_person_who_wants_it_tried_does_not_wait() {
        let mut circuit = Circuit::open_by(ANSWER);
        circuit.probe_now(at(0));
        assert_eq!(circuit.gate(at(0)), Gate::Probe);
        circuit.started();
        circuit.probe_now(at(1));
        assert_eq!(circuit.gate(at(1)), Gate::Shut(None), "one at a time");
        let mut closed = Circuit::default();
        closed.probe_now(at(0));
        assert_eq!(closed.gate(at(0)), Gate::Free);
    }

    #[test]
    fn who_has_answered_is_not_asked_without_a_delivery() {
        for (reached, is_asked) in [
            (Reached::Nobody, true),
            (Reached::Silence, true),
            (Reached::Answer, false),
        ] {
            let mut circuit = Circuit::open_by(reached);
            assert!(!circuit.is_to_be_asked(at(0)), "{reached:?}");
            assert_eq!(circuit.is_to_be_asked(at(300)), is_asked, "{reached:?}");
            // One that answers is not asked again: only a delivery can show more.
            circuit.answers(at(300));
            assert!(!circuit.is_to_be_asked(at(300)), "{reached:?}");
        }
    }

    #[test]
    fn an_answer_without_a_delivery_lets_one_try_and_its_failure_counts_from_the_beginning() {
        let mut circuit = Circuit::open_by(Reached::Silence);
        circuit.started();
        assert_eq!(circuit.answers(at(300)), Change::Hopeful);
        assert_eq!(circuit.gate(at(300)), Gate::Probe);
        circuit.started();
        assert_eq!(circuit.gate(at(300)), Gate::Shut(None));
        assert_eq!(circuit.fails(at(310), Reached::Silence), Change::None);
        assert_eq!(circuit.failing_since(), Some(at(0)));
        assert!(matches!(circuit.gate(at(310)), Gate::Shut(Some(_))));
        assert_eq!(circuit.delivered(), Change::Closed);
    }

    #[test]
    fn who_could_not_be_reached_and_answers_is_well_until_a_delivery_fails() {
        let mut circuit = Circuit::open_by(Reached::Nobody);
        circuit.started();
        assert_eq!(circuit.does_not_answer(at(20), &retry(), 1.0), Change::None);
        circuit.started();
        assert_eq!(circuit.answers(at(300)), Change::Closed);
        assert_eq!(circuit.gate(at(300)), Gate::Probe, "one first");
        let mut works = circuit.clone();
        assert_eq!(works.delivered(), Change::Hopeful);
        assert_eq!(works.gate(at(300)), Gate::Free);
        circuit.started();
        let change = circuit.fails(at(301), ANSWER);
        assert!(matches!(change, Change::Opened { .. }), "{change:?}");
        assert_eq!(circuit.failing_since(), Some(at(0)));
    }

    #[test]
    fn a_refusing_endpoint_is_asked_less_than_ten_times_a_minute() {
        for reason in [Rejection::Body, Rejection::Secret] {
            let mut circuit = Circuit::default();
            let mut asked = 0;
            for second in 0..60 {
                while matches!(circuit.gate(at(second)), Gate::Free | Gate::Probe) {
                    let is_probe = circuit.started();
                    circuit.rejected(mail(asked), reason, is_probe, at(second));
                    asked += 1;
                }
            }
            assert!(asked < 10, "{asked}");
        }
    }

    #[test]
    fn refused_bodies_tell_of_the_endpoint_only_if_they_are_many_in_a_short_time() {
        let refused = |reason, seconds: i64, mails: u8| {
            let mut circuit = Circuit::default();
            for number in 0..8 {
                let now = at(i64::from(number) * seconds);
                let is_probe = circuit.started();
                circuit.rejected(mail(number % mails), reason, is_probe, now);
            }
            circuit.is_refusing()
        };
        assert!(refused(Rejection::Body, 1, 8));
        assert!(!refused(Rejection::Body, 20, 8), "far apart");
        assert!(!refused(Rejection::Body, 1, 2), "the same two");
        assert!(refused(Rejection::Secret, 3600, 1), "the wrong secret");
    }
}
