//! What a person wants: dead letters tried again, mails dropped.

use super::{Changes, Delivery, Known, Planner};
use crate::clock::Time;
use crate::spool::{DeliveryId, Ending, Stage};

/// Retention removes dead letters with this reason alone, and nobody is told of them again.
pub(crate) const DROPPED: &str = "dropped by a person";

/// Dead letters, in their order, wait again or are decided again; what a later mail of its ticket has
/// overtaken ends as suppressed instead.
pub(crate) fn retry(known: Known, dead: &[DeliveryId], now: Time) -> Changes {
    let mut planner = Planner::new(known, now);
    for id in dead {
        let Some(delivery) = planner.known.deliveries.get(id).cloned() else {
            continue;
        };
        if delivery.stage != Stage::Settled(Ending::DeadLetter) {
            continue;
        }
        planner.count(&delivery.team, Ending::DeadLetter.as_str(), -1);
        match planner.known.overtaken.get(id).copied() {
            Some(reason) => {
                // Its attempts are over: what came later ended any doubt about them.
                let maybe_paged = false;
                let delivery = Delivery {
                    maybe_paged,
                    ..delivery
                };
                planner.end(&delivery, Ending::Suppressed, reason);
            }
            None => planner.revive(&delivery),
        }
    }
    planner.finish()
}

/// Ends what is unfinished of a mail, and marks its dead letters. Not what a transport has at this
/// moment: it may be paging somebody. Nor a summary that waits: it tells of other mails' tickets, too.
/// Returns how many as well.
pub(crate) fn drop_mail(known: Known, ids: &[DeliveryId], now: Time) -> (Changes, usize) {
    let mut planner = Planner::new(known, now);
    let mut dropped = 0;
    // The last first, so that none of them gets its turn in between.
    for id in ids.iter().rev() {
        let Some(delivery) = planner.known.deliveries.get(id).cloned() else {
            continue;
        };
        match delivery.stage {
            Stage::Sending | Stage::Settled(_)
                if delivery.stage != Stage::Settled(Ending::DeadLetter) =>
            {
                continue;
            }
            Stage::Settled(_) => DROPPED.clone_into(&mut planner.row(&delivery).reason),
            _ if delivery.is_summary => continue,
            _ => planner.end(&delivery, Ending::DeadLetter, DROPPED),
        }
        dropped += 1;
    }
    (planner.finish(), dropped)
}

impl Planner {
    /// One with an alert is sent as decided; one without is decided again, by the rules of today.
    fn revive(&mut self, delivery: &Delivery) {
        let now = self.now;
        let ticket_id = delivery.ticket_id();
        let has_turn = ticket_id
            .as_ref()
            .is_some_and(|ticket_id| self.line(ticket_id).turn.is_some());
        let stage = match delivery.status {
            None => Stage::Accepted,
            Some(_) if has_turn => Stage::Behind,
            Some(_) => Stage::Waiting,
        };
        let placed = self.wait(delivery, stage, now);
        // Always later than acceptance: that is how a retried one is known.
        self.row(delivery).since =
            Some(now.max(delivery.received.plus(std::time::Duration::from_millis(1))));
        if let Some(ticket_id) = ticket_id
            && stage == Stage::Waiting
        {
            self.line(&ticket_id).turn = Some(placed);
        }
    }
}
