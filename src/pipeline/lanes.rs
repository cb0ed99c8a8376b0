//! One `lane` for each team, and the pace of SIGNL4's account, which all lanes share. No I/O:
//! time and chance are handed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Holds, Lane};
use crate::clock::Time;
use crate::config::{Retry, TransportKind};
use crate::deliver::circuit::{Change, Failure};
use crate::deliver::pace::Pace;
use crate::deliver::schedule::{self, Choice, Progress};
use crate::deliver::{Deferral, Outcome, Transport};
use crate::limits::{CLOCK_STEP_MIN, LEFT_TO_OTHERS_FOR, LOOK_AGAIN};
use crate::spool::{Ask, Budget, Effects, MailId};

/// A team's ways out, first and second.
pub type Transports = Vec<Arc<dyn Transport>>;

/// What a leased delivery is to do now.
#[derive(Debug)]
pub enum Order {
    Send {
        transport: Arc<dyn Transport>,
        /// Its circuit is open.
        is_probe: bool,
    },
    /// No transport is free: back to the spool until then.
    Wait(Time),
    /// The reason, for the dead letters.
    Bury(String),
}

#[derive(Debug)]
pub struct Lanes {
    lanes: BTreeMap<String, Lane>,
    pace: Pace,
    retry: Retry,
    /// When the first of what waits in the spool is due, as far as it is known.
    next_due: Option<Time>,
    /// How far the clock was when it was last looked at.
    latest: Time,
    /// How often something was found to be due, and how often when it was last asked.
    stirred: u64,
    stirred_when_asked: u64,
    /// Gateways that share the store.
    nodes: usize,
}

impl Lanes {
    pub fn new(teams: BTreeMap<String, Transports>, pace: Pace, retry: Retry) -> Lanes {
        let lanes = teams
            .into_iter()
            .map(|(team, transports)| (team, Lane::new(transports)))
            .collect();
        Lanes {
            lanes,
            pace,
            retry,
            next_due: None,
            latest: Time::from_ms(0),
            stirred: 0,
            stirred_when_asked: 0,
            nodes: 1,
        }
    }

    /// How far the clock has been set back since it was last asked how many may start.
    pub fn clock_set_back(&self, now: Time) -> Option<Duration> {
        let by = self.latest.since(now);
        (by >= CLOCK_STEP_MIN).then_some(by)
    }

    /// The clock was at this already, in another run.
    pub fn clock_was_at(&mut self, then: Time) {
        self.latest = self.latest.max(then);
    }

    /// The clock was set back by so much, for the lanes and in the spool.
    pub fn set_back(&mut self, by: Duration) {
        self.pace.set_back(by);
        for lane in self.lanes.values_mut() {
            for way in &mut lane.ways {
                way.circuit.set_back(by);
            }
        }
        self.stir();
    }

    pub fn has_ways_out(&self, team: &str) -> bool {
        let lane = self.lanes.get(team);
        lane.is_some_and(|lane| !lane.ways.is_empty())
    }

    /// Whether the other gateways have to hear again that this one has the team, as they are told now.
    pub fn tell_others_of(&mut self, team: &str, now: Time) -> bool {
        let Some(lane) = self.lanes.get_mut(team).filter(|_| self.nodes > 1) else {
            return false;
        };
        let is_due = lane
            .others_told
            .is_none_or(|at| now.since(at) >= LOOK_AGAIN);
        if is_due {
            lane.others_told = Some(now);
        }
        is_due
    }

    /// A team that has mails but is not configured any more gets a lane without a way out, so that
    /// its mails end as dead letters instead of waiting for ever. Not while another gateway says that it
    /// has the team, and with others beside this one after a while only: they may be about to say so.
    pub fn add_unknown(&mut self, team: &str, known_elsewhere: Option<Time>, now: Time) {
        let is_alone = self.nodes == 1;
        let lane = self.lanes.entry(team.to_owned()).or_insert_with(|| Lane {
            known_elsewhere: (!is_alone).then_some(now),
            ..Lane::default()
        });
        lane.known_elsewhere = lane.known_elsewhere.max(known_elsewhere);
    }

    /// How many deliveries of which team may start now, of teams that may have some in the spool.
    pub fn asks(&mut self, now: Time) -> (Vec<Ask>, Budget) {
        self.latest = now;
        if self.next_due.is_some_and(|due| due <= now) {
            self.stir();
        }
        self.stirred_when_asked = self.stirred;
        self.asks_of(now, false)
    }

    /// How many may start by decisions that are about to be stored: of teams that have nothing due in
    /// the spool, which would have to go first.
    pub fn asks_for_fresh(&mut self, now: Time) -> (Vec<Ask>, Budget) {
        let (mut asks, budget) = self.asks_of(now, true);
        asks.retain(|ask| ask.since_before.is_none());
        (asks, budget)
    }

    fn asks_of(&mut self, now: Time, idle: bool) -> (Vec<Ask>, Budget) {
        let budget = Budget {
            new: self.pace.free(now, true),
            other: self.pace.free(now, false),
        };
        let holds = self.holds(now);
        let asks = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.idle == idle && !lane.is_left_to_others(now))
            .map(|(team, lane)| {
                let (slots, paced) = lane.capacity(now, holds, &self.retry);
                // Only those that are so old, to be ended.
                let ended_after = if lane.ways.is_empty() && self.nodes > 1 {
                    Some(LEFT_TO_OTHERS_FOR)
                } else if slots == 0 && lane.is_given_up(now, holds, &self.retry) {
                    Some(self.retry.give_up)
                } else {
                    None
                };
                Ask {
                    team: team.clone(),
                    slots: ended_after.map_or(slots, |_| lane.free()),
                    paced,
                    since_before: ended_after.map(|age| now.minus(age)),
                }
            })
            .filter(|ask| ask.slots > 0 && (!ask.paced || budget.new > 0))
            .collect();
        (asks, budget)
    }

    fn holds(&mut self, now: Time) -> Holds {
        let (paced, unproven) = self.pace.held_since(now);
        Holds { paced, unproven }
    }

    /// The spool has been asked: who got less than asked for has nothing due any more.
    pub fn looked(&mut self, asks: &[Ask], budget: Budget, effects: &Effects) {
        let leased = effects.leased.len();
        // What came to be due in between, the answer may not know.
        let is_all = self.stirred == self.stirred_when_asked;
        for ask in asks {
            let got = effects.leased.iter().filter(|one| one.team == ask.team);
            let within_budget = !ask.paced || leased < budget.new.min(budget.other);
            let has_less = got.count() < ask.slots && within_budget && ask.since_before.is_none();
            if let Some(lane) = self.lanes.get_mut(&ask.team) {
                lane.idle = has_less && is_all;
            }
        }
        if is_all {
            self.next_due = None;
        }
        self.due_at(effects.due);
    }

    /// So many gateways share SIGNL4's limits.
    pub fn share(&mut self, nodes: usize) {
        self.pace.share(nodes);
        self.nodes = nodes;
    }

    /// A person wants to see whether it works now.
    pub fn probe_now(&mut self, now: Time) {
        let ways = self.lanes.values_mut().flat_map(|lane| &mut lane.ways);
        ways.for_each(|way| way.circuit.probe_now(now));
        self.stir();
    }

    /// Something waits in the spool that is due then.
    pub fn due_at(&mut self, due: Option<Time>) {
        self.stirred += u64::from(due.is_some());
        self.next_due = self.next_due.into_iter().chain(due).min();
    }

    /// Any team may have something due.
    pub fn stir(&mut self) {
        self.stirred += 1;
        self.next_due = None;
        for lane in self.lanes.values_mut() {
            lane.idle = false;
        }
    }

    /// When the answer of [`Lanes::asks`] changes by itself.
    pub fn wake_at(&mut self, now: Time) -> Option<Time> {
        let pace = self.pace.free_at(now);
        let holds = self.holds(now);
        let retry = &self.retry;
        let lanes = self.lanes.values();
        let lanes = lanes.flat_map(|lane| lane.wake_times(holds, retry));
        let due = self.next_due;
        lanes.chain(pace).filter(|at| *at > now).chain(due).min()
    }

    /// A delivery was leased.
    pub fn leased(&mut self, team: &str) {
        if let Some(lane) = self.lanes.get_mut(team) {
            lane.in_flight += 1;
        }
    }

    /// It went back to the spool, or ended. Returns whether others may be waiting for its place.
    pub fn returned(&mut self, team: &str) -> bool {
        let Some(lane) = self.lanes.get_mut(team) else {
            return false;
        };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        !lane.idle
    }

    /// Which transport carries a leased delivery now; counts it as started.
    pub fn order(&mut self, team: &str, progress: &Progress, since: Time, now: Time) -> Order {
        let holds = self.holds(now);
        let Some(lane) = self.lanes.get_mut(team).filter(|l| !l.ways.is_empty()) else {
            return Order::Bury(format!("team {team} has no transport in the configuration"));
        };
        let health = lane.health(now, holds);
        match schedule::choose(progress, &health, since, now, &self.retry) {
            Choice::Use(kind) => {
                let Some(way) = lane.way(kind) else {
                    return Order::Bury(format!("team {team} has no {}", kind.as_str()));
                };
                let is_probe = way.circuit.started();
                let transport = Arc::clone(&way.transport);
                if transport.is_paced() {
                    self.pace.started(now);
                }
                Order::Send {
                    transport,
                    is_probe,
                }
            }
            Choice::NotNow => {
                let wake = lane.wake_times(holds, &self.retry);
                let wake = wake.chain(self.pace.free_at(now));
                let wake = wake.filter(|at| *at > now).min();
                Order::Wait(wake.unwrap_or_else(|| now.plus(self.retry.first)))
            }
            Choice::Rejected => Order::Bury("rejected".to_owned()),
            Choice::GiveUp => {
                let tried = now.since(since);
                Order::Bury(match tried.as_secs() {
                    seconds @ 0..600 => format!("given up after {seconds} s"),
                    _ => format!("given up after {:.1} h", tried.as_secs_f64() / 3600.0),
                })
            }
        }
    }

    /// What a transport said to a team's mail; `draw` is in `0.0..1.0`.
    pub fn answered(
        &mut self,
        (team, mail): (&str, MailId),
        (kind, is_probe): (TransportKind, bool),
        outcome: &Outcome,
        now: Time,
        draw: f64,
    ) -> Change {
        let Some(way) = self.lanes.get_mut(team).and_then(|lane| lane.way(kind)) else {
            return Change::None;
        };
        let paced = way.transport.is_paced();
        match outcome {
            Outcome::Delivered { exhausted_for, .. } => {
                if let Some(wait) = exhausted_for.filter(|_| paced) {
                    self.pace.block(now.plus(wait));
                }
                way.circuit.delivered()
            }
            Outcome::Deferred {
                retry_after,
                reason,
                ..
            } => {
                if paced && *reason == Deferral::RateLimited {
                    // One account: what is refused to one team is refused to all.
                    self.pace.refused(now, *retry_after);
                }
                let failure = Failure {
                    is_probe,
                    reached: reason.reached(),
                    retry_after: *retry_after,
                };
                way.circuit.deferred(failure, now, &self.retry, draw)
            }
            Outcome::Rejected { reason, .. } => {
                if paced && kind == TransportKind::Webhook {
                    self.pace.erred(now);
                }
                way.circuit.rejected(mail, *reason, is_probe, now)
            }
        }
    }

    /// Transports that are due to be probed while nothing waits for them; counts each as started.
    pub fn idle_probes(&mut self, now: Time) -> Vec<(String, Arc<dyn Transport>)> {
        let mut probes = Vec::new();
        for (team, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.idle) {
            for way in &mut lane.ways {
                if way.circuit.is_to_be_asked(now) {
                    way.circuit.started();
                    probes.push((team.clone(), Arc::clone(&way.transport)));
                }
            }
        }
        probes
    }

    /// What such a probe has shown; `draw` is in `0.0..1.0`.
    pub fn probed(
        &mut self,
        team: &str,
        kind: TransportKind,
        answers: bool,
        now: Time,
        draw: f64,
    ) -> Change {
        let Some(way) = self.lanes.get_mut(team).and_then(|lane| lane.way(kind)) else {
            return Change::None;
        };
        match answers {
            true => way.circuit.answers(now),
            false => way.circuit.does_not_answer(now, &self.retry, draw),
        }
    }

    /// When a delivery whose attempt was deferred is tried again.
    pub fn again_at(
        &mut self,
        team: &str,
        progress: &Progress,
        retry_after: Option<Duration>,
        now: Time,
        draw: f64,
    ) -> Time {
        let backoff = schedule::backoff(&self.retry, progress.attempts(), draw);
        let own = now.plus(backoff.max(retry_after.unwrap_or_default()));
        let holds = self.holds(now);
        let lane = self.lanes.get(team);
        let second = lane.and_then(|lane| lane.second_due_at(progress, now, holds, &self.retry));
        second.map_or(own, |second| own.min(second.max(now)))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::config;
    use crate::deliver::{Dispatch, Rejection};
    use crate::limits::{IN_FLIGHT_PER_TEAM, UNPROVEN_IN_FLIGHT};

    const WEBHOOK: TransportKind = TransportKind::Webhook;
    const RELAY: TransportKind = TransportKind::Relay;

    /// Lanes only hand it out.
    #[derive(Debug)]
    struct Named(TransportKind);

    #[async_trait]
    impl Transport for Named {
        fn kind(&self) -> TransportKind {
            self.0
        }

        fn is_paced(&self) -> bool {
            self.0 == WEBHOOK
        }

        async fn deliver(&self, _: &Dispatch<'_>) -> Outcome {
            unreachable!()
        }

        async fn answers(&self) -> bool {
            unreachable!()
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn lanes(teams: &[&str]) -> Lanes {
        let ways = || -> Transports { vec![Arc::new(Named(WEBHOOK)), Arc::new(Named(RELAY))] };
        let teams = teams.iter().map(|team| ((*team).to_owned(), ways()));
        let retry = Retry {
            first: Duration::from_secs(1),
            max: Duration::from_secs(300),
            give_up: Duration::from_secs(72 * 3600),
            second_transport_after: Duration::from_secs(60),
        };
        Lanes::new(teams.collect(), Pace::new(config::Pace::Commercial), retry)
    }

    impl Lanes {
        fn used(&mut self, progress: &Progress, now: i64) -> Option<TransportKind> {
            match self.order("ops", progress, at(now), at(now)) {
                Order::Send { transport, .. } => Some(transport.kind()),
                Order::Wait(_) => None,
                Order::Bury(reason) => panic!("{reason}"),
            }
        }

        fn slots(&mut self, team: &str, now: i64) -> usize {
            let (asks, _) = self.asks(at(now));
            let ask = asks.iter().find(|ask| ask.team == team);
            ask.map_or(0, |ask| ask.slots)
        }

        fn webhook_says(&mut self, outcome: &Outcome, now: i64) -> Change {
            self.says(WEBHOOK, outcome, now)
        }

        fn says(&mut self, way: TransportKind, outcome: &Outcome, now: i64) -> Change {
            let mail = "0190163d-8694-739b-aea5-966c26f8ad90".parse().unwrap();
            self.answered(("ops", mail), (way, false), outcome, at(now), 1.0)
        }
    }

    #[test]
    fn one_failure_says_nothing_of_the_next_delivery() {
        let refused = Outcome::rejected(Rejection::Body, "400");
        let silent = Outcome::deferred(Deferral::Timeout, "");
        for outcome in [refused, silent] {
            let mut lanes = lanes(&["ops"]);
            assert_eq!(lanes.webhook_says(&outcome, 0), Change::None);
            let fresh = Progress::default();
            assert_eq!(lanes.used(&fresh, 600), Some(WEBHOOK), "{outcome:?}");
            // It has its own time, and so it does not wait longer than that.
            let mut tried = Progress::default();
            tried.failed(WEBHOOK, at(0), false);
            assert_eq!(lanes.used(&tried, 60), Some(RELAY), "{outcome:?}");
            assert_eq!(lanes.again_at("ops", &tried, None, at(59), 1.0), at(60));
        }
    }

    #[test]
    fn a_second_transport_that_is_down_hurries_nothing() {
        let mut lanes = lanes(&["ops"]);
        let away = Outcome::deferred(Deferral::ConnectionLost, "");
        while lanes.says(RELAY, &away, 61) == Change::None {}
        let mut tried = Progress::default();
        for _ in 0..5 {
            tried.failed(WEBHOOK, at(0), false);
        }
        assert_eq!(lanes.used(&tried, 61), Some(WEBHOOK));
        assert_eq!(
            lanes.again_at("ops", &tried, None, at(61), 1.0),
            at(61 + 16)
        );
    }

    #[test]
    fn a_team_that_another_gateway_may_know_is_left_to_it_for_a_while() {
        let mut lanes = lanes(&[]);
        lanes.add_unknown("gone", None, at(0));
        lanes.share(2);
        lanes.add_unknown("later", None, at(1000));
        let asked = |lanes: &mut Lanes, now| {
            let (asks, _) = lanes.asks(at(now));
            let ask = |ask: Ask| (ask.team, ask.since_before);
            asks.into_iter().map(ask).collect::<BTreeMap<_, _>>()
        };
        let before = |now| Some(at(now).minus(LEFT_TO_OTHERS_FOR));
        let only_gone = [("gone".to_owned(), before(1599))];
        assert_eq!(asked(&mut lanes, 1599), only_gone.into());
        assert_eq!(asked(&mut lanes, 1600)["later"], before(1600));
        // Whoever has it says so, for as long as something waits.
        lanes.add_unknown("later", Some(at(1590)), at(1600));
        lanes.share(1);
        let only_gone = [("gone".to_owned(), None)];
        assert_eq!(asked(&mut lanes, 2189), only_gone.into());
        assert!(asked(&mut lanes, 2190).contains_key("later"));
    }

    #[test]
    fn the_others_hear_now_and_then_which_team_a_gateway_has() {
        let mut lanes = lanes(&["ops"]);
        assert!(!lanes.tell_others_of("ops", at(0)), "there are none");
        lanes.share(2);
        assert!(lanes.tell_others_of("ops", at(0)));
        assert!(!lanes.tell_others_of("ops", at(29)));
        assert!(lanes.tell_others_of("ops", at(30)));
    }

    #[test]
    fn what_comes_to_be_due_while_the_spool_is_asked_is_not_forgotten() {
        let mut lanes = lanes(&["ops"]);
        let nothing = Effects::default();
        let (asks, budget) = lanes.asks(at(0));
        lanes.looked(&asks, budget, &nothing);
        assert_eq!(lanes.slots("ops", 1), 0, "nothing is due");
        lanes.stir();
        let (asks, budget) = lanes.asks(at(1));
        lanes.due_at(Some(at(5)));
        lanes.looked(&asks, budget, &nothing);
        assert_eq!(lanes.wake_at(at(1)), Some(at(5)));
        let (asks, budget) = lanes.asks(at(2));
        lanes.stir();
        lanes.looked(&asks, budget, &nothing);
        assert!(lanes.slots("ops", 3) > 0);
    }

    #[test]
    fn what_the_pace_holds_back_goes_by_the_second_transport() {
        let mut lanes = lanes(&["ops", "night"]);
        let limited = Outcome::Deferred {
            reason: Deferral::RateLimited,
            detail: String::new(),
            retry_after: Some(Duration::from_secs(3600)),
        };
        lanes.webhook_says(&limited, 0);
        for (now, slots) in [(0, 0), (59, 0), (60, IN_FLIGHT_PER_TEAM)] {
            assert_eq!(lanes.slots("ops", now), slots, "{now}");
            assert_eq!(lanes.slots("night", now), slots, "{now}");
        }
        assert_eq!(lanes.wake_at(at(1)), Some(at(60)));
        assert_eq!(lanes.used(&Progress::default(), 60), Some(RELAY));
        assert_eq!(lanes.slots("night", 3600), UNPROVEN_IN_FLIGHT);
    }

    #[test]
    fn while_one_delivery_probes_the_others_go_by_the_second_transport() {
        let mut lanes = lanes(&["ops"]);
        let away = Outcome::deferred(Deferral::Connect, "");
        for _ in 0..3 {
            lanes.webhook_says(&away, 0);
        }
        let probe_at = 4;
        assert_eq!(lanes.slots("ops", probe_at), 1, "the second is not due");
        assert_eq!(lanes.slots("ops", 60), IN_FLIGHT_PER_TEAM);
        let (mut tried, fresh) = (Progress::default(), Progress::default());
        tried.failed(WEBHOOK, at(0), false);
        assert_eq!(lanes.used(&tried, 60), Some(RELAY));
        assert_eq!(lanes.used(&fresh, 60), Some(WEBHOOK));
        assert_eq!(lanes.used(&fresh, 60), Some(RELAY));
    }
}
