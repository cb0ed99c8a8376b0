//! Deliveries whose turn and time have come.

use std::collections::HashMap;

use super::{Changes, Delivery, Known, Planner};
use crate::alert::Status;
use crate::clock::Time;
use crate::deliver::schedule::{FIRST_URGENCY_OF_OTHERS, Progress};
use crate::rules::Decision;
use crate::spool::lifecycle::{self, CLOSED_BEFORE_PAGED};
use crate::spool::{Ask, Budget, Ending, SpoolError, record, storm};

/// A delivery that is due, as a store has found it.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) delivery: Delivery,
    pub(crate) urgency: u8,
    /// JSON.
    pub(crate) decision: Option<String>,
    /// JSON.
    pub(crate) progress: Option<String>,
}

/// The order in which they leave.
pub(crate) fn most_urgent_first(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|one| (one.urgency, one.delivery.not_before, one.delivery.id));
}

/// Leases of the candidates, who are all of the teams asked for, what slots and budget allow, most
/// urgent first. When that ended any, a store has to look for candidates again, with the slots that
/// are left: others have got their turn.
pub(crate) fn lease(
    known: Known,
    mut candidates: Vec<Candidate>,
    slots: &mut Slots,
    now: Time,
) -> Result<Changes, SpoolError> {
    let mut planner = Planner::new(known, now);
    most_urgent_first(&mut candidates);
    for candidate in candidates {
        if !slots.take(&candidate.delivery.team, candidate.urgency) {
            continue;
        }
        let is_leased = planner.take(&candidate)?;
        if !is_leased {
            slots.give_back(&candidate.delivery.team, candidate.urgency);
        }
    }
    Ok(planner.finish())
}

/// How many deliveries may start.
#[derive(Debug)]
pub(crate) struct Slots {
    by_team: HashMap<String, (usize, bool)>,
    budget: Budget,
}

impl Slots {
    pub(crate) fn new(asks: &[Ask], budget: Budget) -> Slots {
        let slots = |ask: &Ask| (ask.team.clone(), (ask.slots, ask.paced));
        Slots {
            by_team: asks.iter().map(slots).collect(),
            budget,
        }
    }

    /// Of one team.
    pub(crate) fn left(&self, team: &str) -> usize {
        self.by_team.get(team).map_or(0, |(slots, _)| *slots)
    }

    pub(super) fn take(&mut self, team: &str, urgency: u8) -> bool {
        let Some((slots, paced)) = self.by_team.get_mut(team) else {
            return false;
        };
        let is_other = urgency >= FIRST_URGENCY_OF_OTHERS;
        let has_budget = !*paced || (self.budget.new > 0 && (!is_other || self.budget.other > 0));
        if *slots == 0 || !has_budget {
            return false;
        }
        *slots -= 1;
        if *paced {
            self.budget.new -= 1;
            self.budget.other = self.budget.other.saturating_sub(usize::from(is_other));
        }
        true
    }

    /// It was not sent after all.
    fn give_back(&mut self, team: &str, urgency: u8) {
        let Some((slots, paced)) = self.by_team.get_mut(team) else {
            return;
        };
        *slots += 1;
        if *paced {
            let is_other = urgency >= FIRST_URGENCY_OF_OTHERS;
            self.budget.new = self.budget.new.saturating_add(1);
            self.budget.other = self.budget.other.saturating_add(usize::from(is_other));
        }
    }
}

impl Planner {
    /// Returns whether it may be sent; if not, it has ended.
    fn take(&mut self, candidate: &Candidate) -> Result<bool, SpoolError> {
        let delivery = &candidate.delivery;
        // A record that cannot be read concerns one mail, and must not stop the others.
        let (decision, progress) = match stored(candidate) {
            Ok(stored) => stored,
            Err(reason) => {
                self.end(delivery, Ending::DeadLetter, &reason);
                return Ok(false);
            }
        };
        let Some(decision) = self.with_list(delivery, decision)? else {
            self.end(delivery, Ending::Suppressed, CLOSED_BEFORE_PAGED);
            return Ok(false);
        };
        let Some(alert) = decision.alert else {
            self.end(delivery, Ending::DeadLetter, "no alert is stored for it");
            return Ok(false);
        };
        if let Some(ticket_id) = delivery.ticket_id() {
            let ticket = self.line(&ticket_id).ticket();
            if let Err(repeat) = lifecycle::turn(ticket, alert.status, delivery.escalate) {
                self.end(delivery, Ending::Suppressed, repeat.as_str());
                return Ok(false);
            }
            if self.told_by_summary(delivery, &ticket_id, alert.status)? {
                return Ok(false);
            }
        }
        self.send(delivery, alert, progress);
        Ok(true)
    }

    /// A summary that leaves lists its tickets, and gathers no more. `None` when all are closed.
    fn with_list(
        &mut self,
        delivery: &Delivery,
        decision: Decision,
    ) -> Result<Option<Decision>, SpoolError> {
        let is_summary = delivery.is_summary && delivery.status == Some(Status::New);
        let Some(ticket_id) = delivery.ticket_id().filter(|_| is_summary) else {
            return Ok(Some(decision));
        };
        let members = self.known.members.entry(ticket_id).or_default();
        if members.open == 0 {
            return Ok(None);
        }
        let decision = storm::listing(decision, members);
        self.with_verdict(delivery.clone(), &decision, None)?;
        Ok(Some(decision))
    }
}

fn stored(candidate: &Candidate) -> Result<(Decision, Progress), String> {
    let decision = candidate.decision.as_deref();
    let decision = decision.ok_or("no decision is stored for it")?;
    let read = |error: record::RecordError| error.to_string();
    let decision = record::read_decision(decision).map_err(read)?;
    let progress = record::read_progress(candidate.progress.as_deref()).map_err(read)?;
    Ok((decision, progress))
}
