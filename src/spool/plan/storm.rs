//! Tickets that a summary tells of.

use std::collections::BTreeSet;

use super::{Delivery, Further, KeptTicket, Known, Planner, TicketId};
use crate::alert::{ExternalId, Status};
use crate::config::Storm;
use crate::limits::SPLIT_TICKETS_MAX;
use crate::rules::Decision;
use crate::spool::lifecycle::{self, Sending, Ticket};
use crate::spool::storm::{self, Summary};
use crate::spool::{Ending, SpoolError, Stage};

/// Parts of a mail that this gateway has made itself count from here: beyond those of a digest.
const OWN_PARTS_FROM: u32 = 1000;

const _: () = assert!((OWN_PARTS_FROM as usize) > SPLIT_TICKETS_MAX);

/// The summaries that a store has to look at: those that tell of the tickets loaded so far, those
/// that gather, and those that may be about to leave. Their lines and members are loaded next.
pub(crate) fn storms_of(known: &Known) -> BTreeSet<TicketId> {
    let told = known.lines.iter().filter_map(|(ticket_id, line)| {
        let team = ticket_id.team.clone();
        let external_id = line.storm()?.to_string();
        Some(TicketId { team, external_id })
    });
    let gathering = known.storms.iter().filter_map(|((team, _), gathering)| {
        let (team, external_id) = (team.clone(), gathering.summary.as_ref()?);
        let external_id = external_id.external_id.to_string();
        Some(TicketId { team, external_id })
    });
    let leaving = known.deliveries.values().filter(|one| one.is_summary);
    let leaving = leaving.filter_map(Delivery::ticket_id);
    told.chain(gathering).chain(leaving).collect()
}

impl Planner {
    /// A new ticket in a storm ends here: the summary tells of it. False when there is no storm.
    pub(super) fn gathered(
        &mut self,
        delivery: &Delivery,
        ticket_id: &TicketId,
        decision: &Decision,
        sending: &Sending,
        storm: Option<&Storm>,
    ) -> Result<bool, SpoolError> {
        let (Some(storm), Some(source)) = (storm, &decision.source) else {
            return Ok(false);
        };
        // SIGNL4 may have an alert of its own for it already, which will have to be closed.
        let is_open = self.line(ticket_id).ticket().is_some_and(Ticket::is_open);
        if sending.status != Status::New || sending.escalate || is_open {
            return Ok(false);
        }
        let key = (delivery.team.clone(), source.clone());
        let now = self.now;
        let gathering = self.known.storms.entry(key.clone()).or_default();
        let storms = gathering.is_storm(now, storm);
        self.changes.storms.insert(key.clone(), gathering.clone());
        if !storms {
            return Ok(false);
        }
        let summary = match self.gathering_summary(&key) {
            Some(summary) => summary,
            None => self.begin_summary(delivery, &key, storm)?,
        };
        let reason = format!("storm: {} tells of it", summary.external_id);
        let kept = KeptTicket {
            ticket: lifecycle::after(None, Status::New),
            storm: Some(summary.external_id.clone()),
        };
        let opened = Some((delivery.id, delivery.title.clone()));
        self.keep(ticket_id, kept, opened);
        let summary_id = TicketId {
            team: delivery.team.clone(),
            external_id: summary.external_id.to_string(),
        };
        self.known.members.entry(summary_id).or_default().open += 1;
        self.end(delivery, Ending::Suppressed, &reason);
        Ok(true)
    }

    /// The summary that still takes tickets: one that has never been about to leave.
    fn gathering_summary(&mut self, key: &(String, String)) -> Option<Summary> {
        let summary = self.known.storms.get(key)?.summary.clone()?;
        let ticket_id = TicketId {
            team: key.0.clone(),
            external_id: summary.external_id.to_string(),
        };
        let turn = self.line(&ticket_id).turn.as_ref()?;
        let gathers = turn.id == summary.delivery
            && turn.stage == Stage::Waiting
            && turn.attempts == 0
            && !turn.maybe_paged;
        gathers.then_some(summary)
    }

    fn begin_summary(
        &mut self,
        delivery: &Delivery,
        key: &(String, String),
        storm: &Storm,
    ) -> Result<Summary, SpoolError> {
        let (_, source) = key;
        let number = self.next_number(delivery);
        let external_id = storm::external_id(source, delivery.mail);
        let decision = storm::summary(source, &external_id);
        let part = self.add_part(delivery, number, &decision, Further::Summary)?;
        let placed = self.wait(&part, Stage::Waiting, self.now.plus(storm.gather));
        if let Some(ticket_id) = part.ticket_id() {
            self.line(&ticket_id).turn = Some(placed);
        }
        let summary = Summary {
            delivery: part.id,
            external_id,
        };
        if let Some(gathering) = self.known.storms.get_mut(key) {
            gathering.summary = Some(summary.clone());
            self.changes.storms.insert(key.clone(), gathering.clone());
        }
        Ok(summary)
    }

    /// An `acknowledged` or `resolved` of a ticket that a summary tells of ends here: SIGNL4 has no
    /// alert of its own for it. With the last one closed, the summary is closed.
    pub(super) fn told_by_summary(
        &mut self,
        delivery: &Delivery,
        ticket_id: &TicketId,
        status: Status,
    ) -> Result<bool, SpoolError> {
        let line = self.line(ticket_id);
        let Some((ticket, storm)) = line.ticket().zip(line.storm().cloned()) else {
            return Ok(false);
        };
        if status == Status::New || !ticket.is_open() {
            return Ok(false);
        }
        let kept = KeptTicket {
            ticket: lifecycle::after(Some(ticket), status),
            storm: Some(storm.clone()),
        };
        self.keep(ticket_id, kept, None);
        let reason = format!("{}: storm: {storm} tells of it", status.as_str());
        self.end(delivery, Ending::Suppressed, &reason);
        if status == Status::Resolved {
            let summary = TicketId {
                external_id: storm.to_string(),
                ..ticket_id.clone()
            };
            self.one_less(delivery, &summary)?;
        }
        Ok(true)
    }

    /// The summary tells of one ticket less; with the last one it is closed, by way of the mail that
    /// closed that one.
    pub(super) fn one_less(
        &mut self,
        delivery: &Delivery,
        summary: &TicketId,
    ) -> Result<(), SpoolError> {
        let members = self.known.members.entry(summary.clone()).or_default();
        members.open = members.open.saturating_sub(1);
        if members.open > 0 {
            return Ok(());
        }
        let line = self.line(summary);
        let is_open = line.ticket().is_some_and(Ticket::is_open);
        let Some(external_id) = ExternalId::new(&summary.external_id) else {
            return Ok(());
        };
        if line.turn.is_none() && !is_open {
            return Ok(()); // nobody was told of it
        }
        let number = self.next_number(delivery);
        let close = storm::close(&external_id);
        let part = self.add_part(delivery, number, &close, Further::Summary)?;
        self.place_own(&part, &close)?;
        Ok(())
    }

    /// The number of a further part of the mail that no part of a digest has.
    fn next_number(&self, delivery: &Delivery) -> u32 {
        let last = self.known.last_of_mail.get(&delivery.mail);
        let last = last.copied().unwrap_or(delivery.id);
        OWN_PARTS_FROM + last.number()
    }
}
