//! What became of leased deliveries.

use super::{Changes, Delivery, KeptTicket, Known, Planner, TicketId};
use crate::alert::Status;
use crate::clock::Time;
use crate::spool::{Settlement, SpoolError, Stage, Step, lifecycle, record};

/// A settlement of what is not being sent any more, or is being sent again, changes nothing: it was
/// settled before, and the answer to that was lost.
pub(crate) fn settle(
    known: Known,
    settlements: &[Settlement],
    now: Time,
) -> Result<Changes, SpoolError> {
    let mut planner = Planner::new(known, now);
    for settlement in settlements {
        let Some(delivery) = planner.known.deliveries.get(&settlement.delivery) else {
            continue;
        };
        if delivery.stage != Stage::Sending || delivery.leases != settlement.lease {
            continue;
        }
        let delivery = delivery.clone();
        let row = planner.row(&delivery);
        row.attempts.clone_from(&settlement.attempts);
        row.progress = record::write_progress(&settlement.progress)?;
        match &settlement.step {
            Step::End(ending, reason) => {
                if ending.left() {
                    planner.has_left(&delivery)?;
                }
                planner.end(&delivery, *ending, reason);
            }
            Step::Wait { until, maybe_paged } => {
                let row = planner.row(&delivery);
                row.stage = Stage::Waiting;
                row.not_before = Some(*until);
                row.maybe_paged = maybe_paged.then_some(true);
            }
        }
        // Settled twice in one batch: the second is a repeat.
        planner.known.deliveries.remove(&settlement.delivery);
    }
    Ok(planner.finish())
}

impl Planner {
    /// An alert has left: what SIGNL4 now knows of its ticket.
    fn has_left(&mut self, delivery: &Delivery) -> Result<(), SpoolError> {
        let (Some(ticket_id), Some(status)) = (delivery.ticket_id(), delivery.status) else {
            return Ok(());
        };
        let before = self.line(&ticket_id).kept.clone();
        let ticket = before.as_ref().map(|kept| kept.ticket);
        let opens =
            status == Status::New && ticket.is_none_or(|ticket| !ticket.is_open_and_paged());
        let storm = before.and_then(|kept| kept.storm);
        let kept = KeptTicket {
            ticket: lifecycle::after(ticket, status),
            // An alert of its own: the summary does not tell of it any more.
            storm: storm.clone().filter(|_| status != Status::New),
        };
        let opened = opens.then(|| (delivery.id, delivery.title.clone()));
        self.keep(&ticket_id, kept, opened);
        if let Some(storm) = storm.filter(|_| status == Status::New)
            && ticket.is_some_and(lifecycle::Ticket::is_open)
        {
            let summary = TicketId {
                external_id: storm.to_string(),
                ..ticket_id
            };
            self.one_less(delivery, &summary)?;
        }
        Ok(())
    }
}
