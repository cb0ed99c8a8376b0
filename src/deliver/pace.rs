//! Keeps the sender under SIGNL4's documented limits (FORMATS.md 1.2), so that it is never
//! blocked: going over a limit blocks receiving for as long as the window that was exceeded. Pure.
//!
//! SIGNL4 does not say whether its windows slide. Counting a sliding window keeps under both.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Time;
use crate::config;

/// SIGNL4 takes 10 erroneous requests a minute; this many are risked.
const ERRONEOUS_MAX: u32 = 8;
const ERRONEOUS_WINDOW: Duration = Duration::from_secs(60);

/// A window is counted in this many pieces: a count is given back this much of a window late.
const PIECES: u32 = 30;

/// Of each window, this share is kept for new alerts: closes must not use up what pages people.
const RESERVED_FOR_NEW_PERCENT: u32 = 20;

const fn window(requests: u32, seconds: u64) -> (u32, Duration) {
    (requests, Duration::from_secs(seconds))
}

const COMMERCIAL: [(u32, Duration); 4] = [
    window(150, 15),
    window(600, 60),
    window(36_000, 3600),
    window(864_000, 86_400),
];

const FREE: [(u32, Duration); 4] = [
    window(10, 15),
    window(240, 60),
    window(1_200, 3600),
    window(4_800, 86_400),
];

/// One account's requests.
#[derive(Debug)]
pub struct Pace {
    windows: Vec<Window>,
    erroneous: Option<Window>,
    blocked_until: Option<Time>,
    /// Since when no request may start.
    held_since: Option<Time>,
    /// Since when none may start that may be an erroneous one.
    risk_held_since: Option<Time>,
    /// Gateways that send for the account.
    nodes: u32,
}

impl Pace {
    pub fn new(pace: config::Pace) -> Pace {
        let limits: &[(u32, Duration)] = match pace {
            config::Pace::Commercial => &COMMERCIAL,
            config::Pace::Free => &FREE,
            config::Pace::Off => &[],
        };
        Pace {
            windows: limits.iter().map(|&limit| Window::new(limit)).collect(),
            erroneous: (pace != config::Pace::Off)
                .then(|| Window::new((ERRONEOUS_MAX, ERRONEOUS_WINDOW))),
            blocked_until: None,
            held_since: None,
            risk_held_since: None,
            nodes: 1,
        }
    }

    /// So many gateways share the account: each keeps to its part.
    pub fn share(&mut self, nodes: usize) {
        self.nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
    }

    /// How many requests may start now. `for_new`: they page people, so they may use all of it.
    pub fn free(&mut self, now: Time, for_new: bool) -> usize {
        if self.blocked(now) {
            return 0;
        }
        let nodes = self.nodes;
        self.windows
            .iter_mut()
            .map(|window| {
                let reserved = if for_new { 0 } else { window.reserved(nodes) };
                window.free(now, nodes).saturating_sub(reserved) as usize
            })
            .min()
            .unwrap_or(usize::MAX)
    }

    /// Whether a transport that has not just worked may try: its request may be an erroneous one.
    pub fn may_err(&mut self, now: Time) -> bool {
        self.erroneous
            .as_mut()
            .is_none_or(|window| window.free(now, self.nodes) > 0)
    }

    /// Since when no request may start, and since when only those of transports that have just worked.
    pub fn held_since(&mut self, now: Time) -> (Option<Time>, Option<Time>) {
        let is_held = self.free(now, true) == 0;
        let is_risk_held = !self.may_err(now);
        for (is, since) in [
            (is_held, &mut self.held_since),
            (is_risk_held, &mut self.risk_held_since),
        ] {
            *since = is.then(|| since.unwrap_or(now));
        }
        (self.held_since, self.risk_held_since)
    }

    /// When more may start; `None` if every kind of request may start now.
    pub fn free_at(&mut self, now: Time) -> Option<Time> {
        let blocked = self.blocked_until.filter(|until| *until > now);
        let windows = self.windows.iter_mut().chain(&mut self.erroneous);
        let times = windows.filter_map(|window| window.free_at(now, self.nodes));
        times.chain(blocked).min()
    }

    /// The clock was set back by so much: what was noted by it stays as far from now as it was.
    pub fn set_back(&mut self, by: Duration) {
        for time in [
            &mut self.blocked_until,
            &mut self.held_since,
            &mut self.risk_held_since,
        ] {
            *time = time.map(|at| at.minus(by));
        }
        let windows = self.windows.iter_mut().chain(&mut self.erroneous);
        for (began, _) in windows.flat_map(|window| &mut window.pieces) {
            *began = began.minus(by);
        }
    }

    pub fn started(&mut self, now: Time) {
        for window in &mut self.windows {
            window.count(now);
        }
    }

    /// A request was answered as erroneous.
    pub fn erred(&mut self, now: Time) {
        if let Some(window) = &mut self.erroneous {
            window.count(now);
        }
    }

    /// A request was refused as one too many. Without a time of its own, the block lasts at least
    /// as long as the shortest window.
    pub fn refused(&mut self, now: Time, retry_after: Option<Duration>) {
        let shortest = self.windows.iter().map(|window| window.length).min();
        if let Some(wait) = retry_after.or(shortest) {
            self.block(now.plus(wait));
        }
    }

    /// SIGNL4 said when it takes requests again.
    pub fn block(&mut self, until: Time) {
        self.blocked_until = Some(self.blocked_until.map_or(until, |at| at.max(until)));
    }

    fn blocked(&self, now: Time) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }
}

#[derive(Debug)]
struct Window {
    most: u32,
    length: Duration,
    /// When a piece began, and how many were counted in it.
    pieces: VecDeque<(Time, u32)>,
    counted: u32,
}

impl Window {
    fn new((most, length): (u32, Duration)) -> Window {
        Window {
            most,
            length,
            pieces: VecDeque::new(),
            counted: 0,
        }
    }

    fn count(&mut self, now: Time) {
        self.counted += 1;
        match self.pieces.back_mut() {
            Some((began, count)) if now.since(*began) < self.length / PIECES => *count += 1,
            _ => self.pieces.push_back((now, 1)),
        }
    }

    /// Of this node's part.
    fn free(&mut self, now: Time, nodes: u32) -> u32 {
        while let Some(&(began, count)) = self.pieces.front()
            && now >= self.end_of(began)
        {
            self.counted -= count;
            self.pieces.pop_front();
        }
        self.part(nodes).saturating_sub(self.counted)
    }

    /// At least one: many nodes may ask for a little more than the whole, but none is silent.
    fn part(&self, nodes: u32) -> u32 {
        (self.most / nodes).max(1)
    }

    fn reserved(&self, nodes: u32) -> u32 {
        self.part(nodes) * RESERVED_FOR_NEW_PERCENT / 100
    }

    fn free_at(&mut self, now: Time, nodes: u32) -> Option<Time> {
        if self.free(now, nodes) > self.reserved(nodes) {
            return None;
        }
        self.pieces.front().map(|&(began, _)| self.end_of(began))
    }

    /// When all that was counted in the piece has left the window.
    fn end_of(&self, began: Time) -> Time {
        began.plus(self.length + self.length / PIECES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the pace allows, and checks each documented window by brute force.
    #[test]
    fn never_more_than_documented_in_any_window() {
        for (pace, limits) in [
            (config::Pace::Free, FREE),
            (config::Pace::Commercial, COMMERCIAL),
        ] {
            let mut paced = Pace::new(pace);
            let mut sent: Vec<i64> = Vec::new();
            for tick in 0..40_000 {
                let now = Time::from_ms(tick * 100);
                if paced.free(now, true) > 0 {
                    paced.started(now);
                    sent.push(now.ms());
                }
            }
            for (most, length) in &limits[..3] {
                let length = length.as_millis() as i64;
                for (index, first) in sent.iter().enumerate() {
                    let within = sent[index..].partition_point(|at| at - first <= length);
                    assert!(within <= *most as usize, "{pace:?} {most} {within}");
                }
            }
            assert!(sent.len() > 500, "{pace:?} hardly sends: {}", sent.len());
        }
    }

    #[test]
    fn closes_leave_room_for_new_alerts() {
        let mut pace = Pace::new(config::Pace::Free);
        let now = Time::from_seconds(0);
        while pace.free(now, false) > 0 {
            pace.started(now);
        }
        assert_eq!(pace.free(now, true), 2);
        assert!(pace.free_at(now).is_some());
    }

    #[test]
    fn a_full_window_and_a_block_say_when_they_end() {
        let mut pace = Pace::new(config::Pace::Free);
        let now = Time::from_seconds(100);
        for _ in 0..10 {
            pace.started(now);
        }
        let free_at = pace.free_at(now).unwrap();
        assert_eq!(free_at, Time::from_ms(115_500));
        assert_eq!(pace.free(free_at, true), 10);
        pace.block(Time::from_seconds(200));
        assert_eq!(pace.free(Time::from_seconds(199), true), 0);
        assert!(pace.free(Time::from_seconds(200), true) > 0);
    }

    #[test]
    fn unproven_transports_wait_when_errors_are_nearly_used_up() {
        let mut pace = Pace::new(config::Pace::Commercial);
        let now = Time::from_seconds(0);
        for _ in 0..ERRONEOUS_MAX {
            assert!(pace.may_err(now));
            pace.erred(now);
        }
        assert!(!pace.may_err(now));
        assert!(pace.free(now, true) > 0);
        assert!(pace.may_err(Time::from_seconds(62)));
    }

    #[test]
    fn it_is_known_since_when_nothing_may_start() {
        let mut pace = Pace::new(config::Pace::Free);
        let at = Time::from_seconds;
        assert_eq!(pace.held_since(at(100)), (None, None));
        pace.block(at(200));
        for second in [110, 199] {
            assert_eq!(pace.held_since(at(second)), (Some(at(110)), None));
        }
        assert_eq!(pace.held_since(at(200)), (None, None));
        for _ in 0..ERRONEOUS_MAX {
            pace.erred(at(201));
        }
        assert_eq!(pace.held_since(at(202)), (None, Some(at(202))));
        pace.set_back(Duration::from_secs(100));
        assert_eq!(pace.held_since(at(103)), (None, Some(at(102))));
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_nothing_and_gives_nothing_away() {
        let mut pace = Pace::new(config::Pace::Free);
        let now = Time::from_seconds(10_000);
        for _ in 0..10 {
            pace.started(now);
        }
        pace.block(now.plus(Duration::from_secs(60)));
        pace.set_back(Duration::from_secs(9_000));
        let now = Time::from_seconds(1_000);
        assert_eq!(pace.free(now, true), 0);
        assert_eq!(pace.free(now.plus(Duration::from_secs(59)), true), 0);
        assert_eq!(pace.free(now.plus(Duration::from_secs(60)), true), 10);
    }

    #[test]
    fn two_nodes_send_half_of_it_each() {
        let mut pace = Pace::new(config::Pace::Free);
        let now = Time::from_seconds(0);
        for _ in 0..3 {
            pace.started(now);
        }
        pace.share(2);
        assert_eq!(pace.free(now, true), 2);
        pace.share(1);
        assert_eq!(pace.free(now, true), 7);
    }

    #[test]
    fn none_of_many_nodes_is_silent() {
        for plan in [config::Pace::Free, config::Pace::Commercial] {
            let mut pace = Pace::new(plan);
            let now = Time::from_seconds(0);
            pace.share(100);
            assert_eq!(pace.free(now, true), 1);
            assert!(pace.may_err(now));
        }
    }

    #[test]
    fn off_means_off() {
        let mut pace = Pace::new(config::Pace::Off);
        let now = Time::from_seconds(0);
        for _ in 0..100 {
            pace.started(now);
            pace.erred(now);
        }
        assert_eq!(pace.free(now, false), usize::MAX);
        assert!(pace.may_err(now));
    }
}
