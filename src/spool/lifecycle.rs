//! What the events of one ticket do to each other. Pure: every store calls these functions inside
//! its own transaction, so that SQLite and PostgreSQL cannot disagree.
//!
//! A ticket is known by team and external id. Its state says what SIGNL4 has been told, not what
//! the ticket system thinks: it changes when an alert has left, never before.
//!
//! An `acknowledged` or `resolved` of an unknown ticket is sent: the ticket may have been opened
//! before this store was made, or by somebody else with the same external id.

use std::time::Duration;

use crate::alert::{Event, ExternalId, Status};
use crate::rules::Decision;
use crate::spool::Ending;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketState {
    Open,
    Acknowledged,
    Resolved,
}

impl TicketState {
    pub fn as_str(self) -> &'static str {
        match self {
            TicketState::Open => "open",
            TicketState::Acknowledged => "acknowledged",
            TicketState::Resolved => "resolved",
        }
    }

    pub fn parse(word: &str) -> Option<TicketState> {
        [
            TicketState::Open,
            TicketState::Acknowledged,
            TicketState::Resolved,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }
}

/// What SIGNL4 has been told about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub state: TicketState,
    /// A `new` has been taken: people were paged. False when all we ever saw was the ticket being
    /// taken or closed, and when it is not known: then a `new` is sent, and so is a close.
    pub paged: bool,
}

impl Ticket {
    pub fn is_open(self) -> bool {
        self.state != TicketState::Resolved
    }

    /// A `new` of it would be a repeat.
    pub fn is_open_and_paged(self) -> bool {
        self.is_open() && self.paged
    }
}

/// Why an event is not sent, in the words of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    New,
    Acknowledged,
    AcknowledgedAfterResolved,
    Resolved,
}

impl Repeat {
    pub fn as_str(self) -> &'static str {
        match self {
            Repeat::New => "repeated new of an open ticket",
            Repeat::Acknowledged => "repeated acknowledged of an acknowledged ticket",
            Repeat::AcknowledgedAfterResolved => "acknowledged after resolved",
            Repeat::Resolved => "repeated resolved of a resolved ticket",
        }
    }
}

/// The reason given when a ticket is closed while its alert still waits.
pub const CLOSED_BEFORE_PAGED: &str = "closed before anyone was paged";

/// What a later event of the ticket must not have said, for an event that a person retries to be
/// sent still; and the reason given when it has. A `new` would be left open behind its own close,
/// an old `acknowledged` or `resolved` would silence the alert of today.
pub fn contrary(status: Status) -> (Status, &'static str) {
    match status {
        Status::New => (Status::Resolved, CLOSED_BEFORE_PAGED),
        Status::Acknowledged | Status::Resolved => {
            (Status::New, "retried after a later new of its ticket")
        }
    }
}

/// Where a decision leads before the ticket is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// It ends here.
    End(Ending, String),
    /// It has to be sent, unless the ticket says otherwise.
    Send(Sending),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub status: Status,
    pub external_id: Option<ExternalId>,
    /// Pages again although the ticket is open.
    pub escalate: bool,
    pub hold: Option<Duration>,
}

/// Whether a `new` pages although the ticket is open: a rule says so, or it was not understood, which is
/// never taken for a repeat (DESIGN.md invariant 3).
pub fn pages_anyway(decision: &Decision) -> bool {
    decision.escalate || decision.degraded
}

/// What a decision asks for, the ticket's state aside.
pub fn path(decision: &Decision) -> Path {
    if decision.dead_letter {
        return Path::End(Ending::DeadLetter, decision.reason.clone());
    }
    match decision.event {
        Event::Ignore => return Path::End(Ending::Suppressed, decision.reason.clone()),
        Event::Update if !decision.escalate => {
            let rule = decision.rule.as_deref().unwrap_or(&decision.reason);
            return Path::End(Ending::Suppressed, format!("update: {rule}"));
        }
        _ => {}
    }
    let Some(alert) = &decision.alert else {
        let reason = format!("event {} without an alert", decision.event);
        return Path::End(Ending::DeadLetter, reason);
    };
    if alert.status != Status::New && alert.external_id.is_none() {
        // FORMATS.md 1.3: SIGNL4 needs the id that opened the alert.
        let reason = format!(
            "{} without an external id: there is no alert to find",
            alert.status.as_str()
        );
        return Path::End(Ending::Suppressed, reason);
    }
    Path::Send(Sending {
        status: alert.status,
        external_id: alert.external_id.clone(),
        escalate: pages_anyway(decision),
        hold: decision.hold.filter(|_| alert.status == Status::New),
    })
}

/// May this event be sent, now that it is its turn?
pub fn turn(ticket: Option<Ticket>, status: Status, escalate: bool) -> Result<(), Repeat> {
    let Some(ticket) = ticket else { return Ok(()) };
    match (status, ticket.state) {
        (Status::New, TicketState::Resolved) => Ok(()),
        (Status::New, _) if escalate || !ticket.paged => Ok(()),
        (Status::New, _) => Err(Repeat::New),
        (Status::Acknowledged, TicketState::Open) => Ok(()),
        (Status::Acknowledged, TicketState::Acknowledged) => Err(Repeat::Acknowledged),
        (Status::Acknowledged, TicketState::Resolved) => Err(Repeat::AcknowledgedAfterResolved),
        (Status::Resolved, TicketState::Resolved) => Err(Repeat::Resolved),
        (Status::Resolved, _) => Ok(()),
    }
}

/// The ticket after an event has been delivered.
pub fn after(ticket: Option<Ticket>, status: Status) -> Ticket {
    let paged = ticket.is_some_and(|ticket| ticket.paged);
    match status {
        Status::New => Ticket {
            state: TicketState::Open,
            paged: true,
        },
        Status::Acknowledged => Ticket {
            state: TicketState::Acknowledged,
            paged,
        },
        Status::Resolved => Ticket {
            state: TicketState::Resolved,
            paged,
        },
    }
}

/// The ticket after a `new` has ended without being delivered, although an attempt may have
/// arrived: it may be open, so that a close must be sent, and nobody may have been paged, so that
/// another `new` must be, too.
pub fn after_doubt(ticket: Option<Ticket>) -> Ticket {
    ticket.filter(|ticket| ticket.is_open()).unwrap_or(Ticket {
        state: TicketState::Open,
        paged: false,
    })
}

/// A delivery of the same ticket that has not ended yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    pub status: Status,
    /// It is being sent, or an attempt's answer was lost: somebody may have been paged.
    pub maybe_paged: bool,
}

/// Which of the unfinished deliveries (in their order) a `resolved` cancels together with itself:
/// everything from a `new` on that would have opened the ticket, if nobody can have been paged by
/// it. `None`: the `resolved` takes its turn behind them, as when an `acknowledged` waits before
/// the `new`: then somebody else may have opened the ticket, and it has to be closed.
pub fn cancelled(ticket: Option<Ticket>, unfinished: &[Unfinished]) -> Option<usize> {
    if ticket.is_some_and(Ticket::is_open) {
        return None;
    }
    let first = unfinished
        .iter()
        .position(|delivery| delivery.status == Status::New)?;
    let before = first.checked_sub(1).and_then(|index| unfinished.get(index));
    if before.is_some_and(|delivery| delivery.status != Status::Resolved) {
        return None;
    }
    let rest = unfinished.get(first..)?;
    rest.iter()
        .all(|delivery| !delivery.maybe_paged)
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Ticket = Ticket {
        state: TicketState::Open,
        paged: true,
    };
    const TAKEN: Ticket = Ticket {
        state: TicketState::Acknowledged,
        paged: true,
    };
    const TAKEN_UNSEEN: Ticket = Ticket {
        state: TicketState::Acknowledged,
        paged: false,
    };
    const CLOSED: Ticket = Ticket {
        state: TicketState::Resolved,
        paged: true,
    };

    #[test]
    fn turn_table() {
        use Status::{Acknowledged, New, Resolved};
        let table = [
            (None, New, Ok(())),
            (None, Acknowledged, Ok(())),
            (None, Resolved, Ok(())),
            (Some(OPEN), New, Err(Repeat::New)),
            (Some(OPEN), Acknowledged, Ok(())),
            (Some(OPEN), Resolved, Ok(())),
            (Some(TAKEN), New, Err(Repeat::New)),
            (Some(TAKEN), Acknowledged, Err(Repeat::Acknowledged)),
            (Some(TAKEN), Resolved, Ok(())),
            (Some(TAKEN_UNSEEN), New, Ok(())),
            (Some(TAKEN_UNSEEN), Resolved, Ok(())),
            (Some(CLOSED), New, Ok(())),
            (
                Some(CLOSED),
                Acknowledged,
                Err(Repeat::AcknowledgedAfterResolved),
            ),
            (Some(CLOSED), Resolved, Err(Repeat::Resolved)),
        ];
        for (ticket, status, expected) in table {
            assert_eq!(
                turn(ticket, status, false),
                expected,
                "{ticket:?} {status:?}"
            );
        }
    }

    #[test]
    fn an_escalation_pages_again_while_the_ticket_is_open() {
        assert_eq!(turn(Some(OPEN), Status::New, true), Ok(()));
        assert_eq!(turn(Some(TAKEN), Status::New, true), Ok(()));
        assert_eq!(after(Some(TAKEN), Status::New), OPEN);
    }

    #[test]
    fn in_doubt_both_the_next_new_and_the_next_close_are_sent() {
        for ticket in [None, Some(CLOSED)] {
            let doubtful = Some(after_doubt(ticket));
            for status in [Status::New, Status::Acknowledged, Status::Resolved] {
                assert_eq!(
                    turn(doubtful, status, false),
                    Ok(()),
                    "{ticket:?} {status:?}"
                );
            }
        }
        assert_eq!(after_doubt(Some(TAKEN)), TAKEN);
    }

    #[test]
    fn after_keeps_whether_people_were_paged() {
        assert_eq!(after(None, Status::Acknowledged), TAKEN_UNSEEN);
        assert_eq!(after(Some(OPEN), Status::Acknowledged), TAKEN);
        assert_eq!(after(Some(TAKEN), Status::Resolved), CLOSED);
        assert_eq!(after(Some(CLOSED), Status::New), OPEN);
    }

    #[test]
    fn cancelled_table() {
        let waits = |status| Unfinished {
            status,
            maybe_paged: false,
        };
        let left = |status| Unfinished {
            status,
            maybe_paged: true,
        };
        use Status::{Acknowledged, New, Resolved};
        let table: [(Option<Ticket>, &[Unfinished], Option<usize>); 10] = [
            (None, &[waits(New)], Some(0)),
            (Some(CLOSED), &[waits(New)], Some(0)),
            (None, &[waits(New), waits(Acknowledged)], Some(0)),
            (None, &[waits(Resolved), waits(New)], Some(1)),
            (None, &[waits(Acknowledged), waits(New)], None),
            (None, &[left(New)], None),
            (None, &[left(New), waits(New)], None),
            (Some(OPEN), &[waits(New)], None),
            (None, &[waits(Acknowledged)], None),
            (None, &[], None),
        ];
        for (ticket, unfinished, expected) in table {
            assert_eq!(
                cancelled(ticket, unfinished),
                expected,
                "{ticket:?} {unfinished:?}"
            );
        }
    }
}
