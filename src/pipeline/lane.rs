//! One team's transports with their circuits, and how much is under way by them. No I/O: time is
//! handed in.

use std::sync::Arc;

use super::lanes::Transports;
use crate::clock::Time;
use crate::config::{Retry, TransportKind};
use crate::deliver::Transport;
use crate::deliver::circuit::{Circuit, Gate};
use crate::deliver::schedule::{self, Choice, Health, Progress};
use crate::limits::{IN_FLIGHT_PER_TEAM, LEFT_TO_OTHERS_FOR, UNPROVEN_IN_FLIGHT};

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) ways: Vec<Way>,
    pub(super) in_flight: usize,
    /// All that was due when the spool was last asked has been leased.
    pub(super) idle: bool,
    /// Of a team that is not configured here: when another gateway was last known to have it, or may have.
    pub(super) known_elsewhere: Option<Time>,
    /// When this gateway last said to others that it has the team.
    pub(super) others_told: Option<Time>,
}

/// Since when the account's pace holds transports back; `None` while it does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holds {
    pub(super) paced: Option<Time>,
    /// Those whose next request may be an erroneous one.
    pub(super) unproven: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Way {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) circuit: Circuit,
}

impl Lane {
    pub(super) fn new(transports: Transports) -> Lane {
        let ways = transports
            .into_iter()
            .map(|transport| Way {
                transport,
                circuit: Circuit::default(),
            })
            .collect();
        Lane {
            ways,
            ..Lane::default()
        }
    }

    pub(super) fn way(&mut self, kind: TransportKind) -> Option<&mut Way> {
        self.ways
            .iter_mut()
            .find(|way| way.transport.kind() == kind)
    }

    pub(super) fn health(&self, now: Time, holds: Holds) -> Vec<Health> {
        self.ways.iter().map(|way| way.health(now, holds)).collect()
    }

    /// Another gateway sees to it that its deliveries end.
    pub(super) fn is_left_to_others(&self, now: Time) -> bool {
        let known = self.known_elsewhere;
        known.is_some_and(|at| now.since(at) < LEFT_TO_OTHERS_FOR)
    }

    pub(super) fn free(&self) -> usize {
        IN_FLIGHT_PER_TEAM.saturating_sub(self.in_flight)
    }

    /// Nothing can be sent, and has not been for so long that what is old enough ends.
    pub(super) fn is_given_up(&self, now: Time, holds: Holds, retry: &Retry) -> bool {
        let health = self.health(now, holds);
        health
            .iter()
            .all(|way| schedule::is_given_up(way, now, retry))
    }

    /// How many may start, and whether by a transport that is paced.
    pub(super) fn capacity(&self, now: Time, holds: Holds, retry: &Retry) -> (usize, bool) {
        let mut health = self.health(now, holds);
        let (mut slots, mut paced) = self.slots(&health, now, retry);
        if let Some(probed) = health.iter_mut().find(|h| h.probe_due) {
            // Those that cannot be the probe, or come too late for it, may have another way.
            (probed.shut, probed.probe_due) = (true, false);
            let (others, are_paced) = self.slots(&health, now, retry);
            slots = slots.max(others);
            paced |= are_paced;
        }
        (slots, paced)
    }

    pub(super) fn slots(&self, health: &[Health], now: Time, retry: &Retry) -> (usize, bool) {
        let free = self.free();
        // A delivery that has been through nothing yet stands for all.
        match schedule::choose(&Progress::default(), health, now, now, retry) {
            Choice::NotNow => (0, false),
            Choice::Use(kind) => {
                let way = self.ways.iter().find(|way| way.transport.kind() == kind);
                let probes = health.iter().any(|h| h.transport == kind && h.probe_due);
                let slots = if probes {
                    free.min(1)
                } else if way.is_some_and(Way::is_unproven) {
                    // All that is under way may come back as erroneous.
                    free.min(UNPROVEN_IN_FLIGHT.saturating_sub(self.in_flight))
                } else {
                    free
                };
                (slots, way.is_some_and(|way| way.transport.is_paced()))
            }
            // Not to be sent, but to be ended.
            Choice::Rejected | Choice::GiveUp => (free, false),
        }
    }

    pub(super) fn wake_times(&self, holds: Holds, retry: &Retry) -> impl Iterator<Item = Time> {
        let probes = self.ways.iter().filter_map(|way| way.circuit.probe_at());
        let first = self.ways.first().filter(|_| self.ways.len() > 1);
        let second = first
            .map(|way| [way.circuit.failing_since(), way.held_since(holds)])
            .into_iter()
            .flatten()
            .flatten()
            .map(|since| schedule::second_due_at(since, retry));
        probes.chain(second)
    }

    /// When the second transport takes over a delivery that it has not tried yet, if it can be used.
    pub(super) fn second_due_at(
        &self,
        progress: &Progress,
        now: Time,
        holds: Holds,
        retry: &Retry,
    ) -> Option<Time> {
        let [first, second, ..] = self.ways.as_slice() else {
            return None;
        };
        let is_usable = schedule::usable(&second.health(now, holds)).is_some();
        if progress.of(second.transport.kind()).is_some() || !is_usable {
            return None;
        }
        let own = progress.of(first.transport.kind()).map(|t| t.first_failed);
        let lane = first.circuit.failing_since();
        let failing_since = own.into_iter().chain(lane).min()?;
        Some(schedule::second_due_at(failing_since, retry))
    }
}

impl Way {
    pub(super) fn health(&self, now: Time, holds: Holds) -> Health {
        let gate = self.circuit.gate(now);
        let held_since = self.held_since(holds);
        Health {
            transport: self.transport.kind(),
            failing_since: self.circuit.failing_since(),
            held_since,
            refusing: self.circuit.is_refusing(),
            shut: held_since.is_some() || gate != Gate::Free,
            probe_due: held_since.is_none() && gate == Gate::Probe,
        }
    }

    pub(super) fn held_since(&self, holds: Holds) -> Option<Time> {
        let paced = holds.paced.filter(|_| self.transport.is_paced());
        let unproven = holds.unproven.filter(|_| self.is_unproven());
        paced.into_iter().chain(unproven).min()
    }

    /// A webhook that has not just worked: its secret may be wrong, its next request erroneous.
    pub(super) fn is_unproven(&self) -> bool {
        self.transport.kind() == TransportKind::Webhook && !self.circuit.is_proven()
    }
}
