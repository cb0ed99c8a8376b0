//! Decisions come in: a delivery ends at once, waits, is sent at once, or takes its place behind its
//! ticket's others.

use std::collections::BTreeMap;

use super::lease::Slots;
use super::{Changes, Delivery, Depth, Further, Known, Namesake, Planner, TicketId, Verdict};
use crate::alert::{Alert, Status};
use crate::clock::Time;
use crate::config::Storm;
use crate::deliver::schedule::Progress;
use crate::limits::BEHIND_MAX_FOR_CANCEL;
use crate::rules::Decision;
use crate::spool::lifecycle::{self, CLOSED_BEFORE_PAGED, Path, Sending, Unfinished};
use crate::spool::{Ask, Budget, Decided, Ending, Leased, MailId, Reading, SpoolError, Stage};

/// How the reason begins of what says a second time what another mail has said: it has overtaken nothing.
pub(crate) const DUPLICATE_OF: &str = "duplicate of ";

const PART_GONE: &str = "the mail has no such part by the rules of today";

/// What a batch of decisions changes, in the order in which the mails arrived. What may be sent at
/// once is leased within `asks` and `budget`.
pub(crate) fn decide(
    known: Known,
    decided: &[Decided],
    storm: Option<&Storm>,
    (asks, budget): (&[Ask], Budget),
    now: Time,
) -> Result<Changes, SpoolError> {
    let mut planner = Planner::new(known, now);
    let mut fresh = Vec::new();
    for one in decided {
        let Some(delivery) = planner.known.deliveries.get(&one.delivery) else {
            continue; // removed meanwhile
        };
        if delivery.stage != Stage::Accepted {
            continue; // dropped by a person meanwhile
        }
        let delivery = delivery.clone();
        let message_id = one.message_id.as_deref();
        let bury = |planner: &mut Planner, reason: &str| {
            planner.row(&delivery).verdict = Some(Verdict::unread(message_id));
            planner.end(&delivery, Ending::DeadLetter, reason);
        };
        let decisions = match &one.reading {
            Reading::DeadLetter(reason) => {
                bury(&mut planner, reason);
                continue;
            }
            Reading::Decisions(decisions) if decisions.is_empty() => {
                bury(&mut planner, "no decision was made");
                continue;
            }
            Reading::Decisions(decisions) => decisions,
        };
        let parts = planner.parts(&delivery, decisions);
        if parts.is_empty() {
            bury(&mut planner, PART_GONE);
        }
        for (part, decision) in parts {
            let placed = if part == delivery.part {
                planner.with_verdict(delivery.clone(), decision, message_id)?
            } else {
                planner.add_part(&delivery, part, decision, Further::Part { message_id })?
            };
            if planner.place(&placed, decision, message_id, storm)? {
                fresh.push((placed, decision));
            }
        }
    }
    planner.lease_fresh(&fresh, asks, budget);
    Ok(planner.finish())
}

/// The tickets that decisions are about, and how much of what is behind each a store has to load.
pub(crate) fn tickets_of(
    decided: &[Decided],
    team_of: impl Fn(&Decided) -> Option<String>,
) -> BTreeMap<TicketId, Depth> {
    let mut tickets = BTreeMap::new();
    for one in decided {
        let Reading::Decisions(decisions) = &one.reading else {
            continue;
        };
        let Some(team) = team_of(one) else { continue };
        for decision in decisions {
            let Path::Send(sending) = lifecycle::path(decision) else {
                continue;
            };
            let Some(external_id) = sending.external_id else {
                continue;
            };
            let ticket_id = TicketId {
                team: team.clone(),
                external_id: external_id.to_string(),
            };
            let needed = match sending.status {
                Status::Resolved => Depth::All,
                Status::New | Status::Acknowledged => Depth::First,
            };
            let depth = tickets.entry(ticket_id).or_insert(needed);
            *depth = needed.max(*depth);
        }
    }
    tickets
}

/// Retried deliveries of mails about several tickets: each may be one part among others.
pub(crate) fn retried_parts(known: &Known, decided: &[Decided]) -> Vec<Delivery> {
    let several = decided.iter().filter(|one| one.is_of_several());
    let deliveries = several.filter_map(|one| known.deliveries.get(&one.delivery));
    deliveries.filter(|it| it.is_retried()).cloned().collect()
}

/// The decisions about retried deliveries that are to be sent: what came later may have overtaken
/// them.
pub(crate) fn retried(known: &Known, decided: &[Decided]) -> Vec<(Delivery, Status, String)> {
    let mut found = Vec::new();
    for one in decided {
        let Some(delivery) = known.deliveries.get(&one.delivery) else {
            continue;
        };
        let Reading::Decisions(decisions) = &one.reading else {
            continue;
        };
        if !delivery.is_retried() {
            continue;
        }
        let own = decisions.get(delivery.part as usize);
        if let Some(Path::Send(sending)) = own.map(lifecycle::path)
            && let Some(external_id) = sending.external_id
        {
            found.push((delivery.clone(), sending.status, external_id.to_string()));
        }
    }
    found
}

impl Verdict {
    /// Of a mail that could not be decided.
    fn unread(message_id: Option<&str>) -> Verdict {
        Verdict {
            message_id: message_id.map(str::to_owned),
            source: None,
            rule: None,
            event: None,
            status: None,
            external_id: None,
            title: None,
            escalate: false,
            urgency: 0,
            decision: None,
        }
    }
}

impl Planner {
    /// Which decision is for which part. A digest that is decided for the first time gets further
    /// parts; a part that a person retries is decided alone, as the others have their own outcomes.
    fn parts<'d>(&self, whole: &Delivery, decisions: &'d [Decision]) -> Vec<(u32, &'d Decision)> {
        let numbered = (0_u32..).zip(decisions);
        if self.known.split.contains(&whole.id) || whole.part > 0 {
            return numbered.filter(|(part, _)| *part == whole.part).collect();
        }
        numbered.collect()
    }

    /// Returns whether it waits to be sent.
    fn place(
        &mut self,
        delivery: &Delivery,
        decision: &Decision,
        message_id: Option<&str>,
        storm: Option<&Storm>,
    ) -> Result<bool, SpoolError> {
        let sending = match lifecycle::path(decision) {
            Path::End(ending, reason) => {
                self.end(delivery, ending, &reason);
                return Ok(false);
            }
            Path::Send(sending) => sending,
        };
        if let Some(first) = self.duplicate_of(delivery, decision, message_id) {
            let reason = format!("{DUPLICATE_OF}{first}: the same Message-ID");
            self.end(delivery, Ending::Suppressed, &reason);
            return Ok(false);
        }
        let Some(ticket_id) = delivery.ticket_id() else {
            self.enqueue(delivery, &sending, Stage::Waiting);
            return Ok(true);
        };
        if let Some(reason) = self.known.overtaken.get(&delivery.id).copied() {
            self.end(delivery, Ending::Suppressed, reason);
            return Ok(false);
        }
        let line = self.line(&ticket_id);
        let ticket = line.ticket();
        if line.turn.is_none() {
            if let Err(repeat) = lifecycle::turn(ticket, sending.status, sending.escalate) {
                self.end(delivery, Ending::Suppressed, repeat.as_str());
                return Ok(false);
            }
            let is_told = self.told_by_summary(delivery, &ticket_id, sending.status)?;
            if is_told || self.gathered(delivery, &ticket_id, decision, &sending, storm)? {
                return Ok(false);
            }
            let placed = self.enqueue(delivery, &sending, Stage::Waiting);
            self.line(&ticket_id).turn = Some(placed);
            return Ok(true);
        }
        if sending.status == Status::Resolved && self.cancel(delivery, &ticket_id) {
            return Ok(false);
        }
        let placed = self.enqueue(delivery, &sending, Stage::Behind);
        self.line(&ticket_id).behind.push(placed);
        Ok(false)
    }

    /// A delivery that this gateway makes by itself takes its place.
    pub(super) fn place_own(
        &mut self,
        delivery: &Delivery,
        decision: &Decision,
    ) -> Result<bool, SpoolError> {
        self.place(delivery, decision, None, None)
    }

    pub(super) fn enqueue(
        &mut self,
        delivery: &Delivery,
        sending: &Sending,
        stage: Stage,
    ) -> Delivery {
        let now = self.now;
        let not_before = sending
            .hold
            .map_or(now, |hold| delivery.received.plus(hold));
        self.wait(delivery, stage, not_before)
    }

    pub(super) fn wait(&mut self, delivery: &Delivery, stage: Stage, not_before: Time) -> Delivery {
        let row = self.row(delivery);
        row.stage = stage;
        row.not_before = Some(not_before);
        Delivery {
            stage,
            not_before,
            ..delivery.clone()
        }
    }

    /// Ends the deliveries that a close makes pointless, the close among them.
    fn cancel(&mut self, close: &Delivery, ticket_id: &TicketId) -> bool {
        let doubt_before = self.known.doubt_before;
        let line = self.line(ticket_id);
        if line.is_long || line.behind.len() >= BEHIND_MAX_FOR_CANCEL {
            return false; // More than is looked at: the close takes its turn behind them.
        }
        let unfinished: Vec<Delivery> = line.turn.iter().chain(&line.behind).cloned().collect();
        let state = |delivery: &Delivery| {
            Some(Unfinished {
                status: delivery.status?,
                maybe_paged: delivery.maybe_paged
                    || delivery.stage == Stage::Sending
                    || delivery.received < doubt_before,
            })
        };
        let states: Vec<Unfinished> = unfinished.iter().filter_map(state).collect();
        let Some(first) = lifecycle::cancelled(line.ticket(), &states) else {
            return false;
        };
        // All at once, so that none of them gets its turn in between.
        line.behind.truncate(first.saturating_sub(1));
        if first == 0 {
            line.turn = None;
            line.behind.clear();
        }
        for delivery in unfinished.iter().skip(first).chain([close]) {
            self.end(delivery, Ending::Suppressed, CLOSED_BEFORE_PAGED);
        }
        true
    }

    /// The mail that this one repeats: same team, Message-ID, event, ticket and title.
    fn duplicate_of(
        &mut self,
        delivery: &Delivery,
        decision: &Decision,
        message_id: Option<&str>,
    ) -> Option<MailId> {
        let namesakes = self.known.namesakes.entry(message_id?.to_owned());
        let namesakes = namesakes.or_default();
        let event = Some(decision.event.as_str().to_owned());
        let same = |one: &&Namesake| {
            one.id.seq() < delivery.id.seq()
                && one.team == delivery.team
                && one.event == event
                && one.external_id == delivery.external_id
                && one.title == delivery.title
                && !one.says_nothing
        };
        let first = namesakes.iter().find(same).map(|one| one.mail);
        namesakes.push(Namesake {
            id: delivery.id,
            mail: delivery.mail,
            team: delivery.team.clone(),
            event,
            external_id: delivery.external_id.clone(),
            title: delivery.title.clone(),
            says_nothing: first.is_some(),
        });
        first
    }

    /// Of those that have just been placed and still wait, what may be sent at once is.
    fn lease_fresh(&mut self, fresh: &[(Delivery, &Decision)], asks: &[Ask], budget: Budget) {
        let mut slots = Slots::new(asks, budget);
        let ready = fresh.iter().filter_map(|(delivery, decision)| {
            let row = self.changes.rows.get(&delivery.id)?;
            let is_due = row.not_before.is_none_or(|at| at <= self.now);
            let urgency = row.verdict.as_ref().map(|verdict| verdict.urgency);
            (row.stage == Stage::Waiting && is_due).then_some((urgency, delivery, decision))
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by_key(|(urgency, delivery, _)| (*urgency, delivery.id));
        for (urgency, delivery, decision) in ready {
            let Some(alert) = decision.alert.clone() else {
                continue;
            };
            if !slots.take(&delivery.team, urgency.unwrap_or_default()) {
                continue;
            }
            self.send(delivery, alert, Progress::default());
        }
    }

    pub(super) fn send(&mut self, delivery: &Delivery, alert: Alert, progress: Progress) {
        let leased = Leased {
            delivery: delivery.id,
            lease: delivery.leases + 1,
            mail: delivery.mail,
            team: delivery.team.clone(),
            part: delivery.part,
            received: delivery.received,
            since: delivery.since,
            alert,
            progress,
        };
        let row = self.row(delivery);
        row.stage = Stage::Sending;
        row.leases = leased.lease;
        if let Some(ticket_id) = delivery.ticket_id()
            && let Some(turn) = &mut self.line(&ticket_id).turn
        {
            turn.stage = Stage::Sending;
        }
        self.changes.effects.leased.push(leased);
    }
}
