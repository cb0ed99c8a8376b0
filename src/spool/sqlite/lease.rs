//! Deliveries whose turn and time have come.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Delivery};
use crate::alert::Alert;
use crate::clock::Time;
use crate::deliver::schedule::{Progress, URGENCIES};
use crate::limits::{HURRIED_MAX, LEASE_ROUNDS_MAX};
use crate::spool::{
    Ask, Budget, DeliveryId, Ending, Lease, Leased, Settled, SpoolError, lifecycle, record,
};

/// Acknowledgements and closes, as [`crate::deliver::schedule::urgency`] ranks them.
const FIRST_URGENCY_OF_OTHERS: u8 = 4;

/// What was being sent when the gateway died may have arrived. It is sent again: the other side
/// folds it by idempotency key and external id.
pub(super) fn recover(connection: &Connection) -> Result<(), SpoolError> {
    connection.execute(
        "UPDATE deliveries SET stage = 2, maybe_paged = 1 WHERE stage = 3",
        (),
    )?;
    Ok(())
}

pub(super) fn lease(
    connection: &Connection,
    asks: &[Ask],
    mut budget: Budget,
    now: Time,
) -> Result<Lease, SpoolError> {
    let mut asks = asks.to_vec();
    let mut lease = Lease {
        deliveries: Vec::new(),
        settled: Vec::new(),
        next_due: None,
    };
    for round in 0.. {
        let due = due(connection, &asks, &mut budget, now)?;
        if due.is_empty() {
            break;
        }
        if round == LEASE_ROUNDS_MAX {
            // Long runs of repeats end in several leases, so that no transaction lasts long.
            lease.next_due = Some(now);
            return Ok(lease);
        }
        for candidate in due {
            match take(connection, candidate.id, now)? {
                Taken::Ended(settled) => {
                    lease.settled.push(settled);
                    budget.give_back(&asks, &candidate);
                }
                Taken::Leased(leased) => {
                    if let Some(ask) = asks.get_mut(candidate.ask) {
                        ask.slots = ask.slots.saturating_sub(1);
                    }
                    lease.deliveries.push(*leased);
                }
            }
        }
    }
    lease.next_due = next_due(connection, &asks, now)?;
    Ok(lease)
}

struct Candidate {
    urgency: u8,
    not_before: i64,
    id: DeliveryId,
    /// Index of its team's ask.
    ask: usize,
}

/// The due deliveries of all teams within slots and budget, most urgent first.
fn due(
    connection: &Connection,
    asks: &[Ask],
    budget: &mut Budget,
    now: Time,
) -> Result<Vec<Candidate>, SpoolError> {
    let mut all: Vec<Candidate> = Vec::new();
    for (index, ask) in asks.iter().enumerate() {
        due_of_team(connection, ask, index, now, &mut all)?;
    }
    all.sort_by_key(|candidate| (candidate.urgency, candidate.not_before, candidate.id));
    all.retain(|candidate| budget.spend(asks, candidate));
    Ok(all)
}

fn due_of_team(
    connection: &Connection,
    ask: &Ask,
    index: usize,
    now: Time,
    all: &mut Vec<Candidate>,
) -> Result<(), SpoolError> {
    let mut slots = ask.slots;
    let mut statement = connection.prepare_cached(
        "SELECT id, not_before_ms FROM deliveries
         WHERE stage = 2 AND team = ?1 AND urgency = ?2 AND not_before_ms <= ?3
           AND since_ms <= ?5
         ORDER BY not_before_ms, seq, part LIMIT ?4",
    )?;
    let since_before = ask.since_before.map_or(i64::MAX, Time::ms);
    for urgency in 0..URGENCIES {
        if slots == 0 {
            break;
        }
        let mut rows = statement.query(params![
            ask.team,
            urgency,
            now.ms(),
            rows::count(slots),
            since_before
        ])?;
        while let Some(row) = rows.next()? {
            slots = slots.saturating_sub(1);
            all.push(Candidate {
                urgency,
                not_before: row.get(1)?,
                id: DeliveryId(row.get(0)?),
                ask: index,
            });
        }
    }
    Ok(())
}

impl Candidate {
    fn is_other(&self) -> bool {
        self.urgency >= FIRST_URGENCY_OF_OTHERS
    }

    fn is_paced(&self, asks: &[Ask]) -> bool {
        asks.get(self.ask).is_some_and(|ask| ask.paced)
    }
}

impl Budget {
    fn spend(&mut self, asks: &[Ask], candidate: &Candidate) -> bool {
        if !candidate.is_paced(asks) {
            return true;
        }
        if self.new == 0 || (candidate.is_other() && self.other == 0) {
            return false;
        }
        self.new -= 1;
        self.other = self.other.saturating_sub(usize::from(candidate.is_other()));
        true
    }

    /// It was not sent after all.
    fn give_back(&mut self, asks: &[Ask], candidate: &Candidate) {
        if candidate.is_paced(asks) {
            self.new = self.new.saturating_add(1);
            self.other = self.other.saturating_add(usize::from(candidate.is_other()));
        }
    }
}

enum Taken {
    Ended(Settled),
    Leased(Box<Leased>),
}

fn take(connection: &Connection, id: DeliveryId, now: Time) -> Result<Taken, SpoolError> {
    let delivery = rows::delivery(connection, id)?;
    let bury = |reason: &str| {
        let settled = rows::end(connection, &delivery, Ending::DeadLetter, reason, now)?;
        Ok(Taken::Ended(settled))
    };
    // A record that cannot be read concerns one mail, and must not stop the others.
    let (alert, progress) = match stored(connection, id) {
        Ok(Some(stored)) => stored,
        Ok(None) => return bury("no alert is stored for it"),
        Err(SpoolError::Unknown(reason)) => return bury(&reason),
        Err(error) => return Err(error),
    };
    if let Some(external_id) = &delivery.external_id {
        let ticket = rows::ticket(connection, &delivery.team, external_id)?;
        if let Err(repeat) = lifecycle::turn(ticket, alert.status, delivery.escalate) {
            let reason = repeat.as_str();
            let settled = rows::end(connection, &delivery, Ending::Suppressed, reason, now)?;
            return Ok(Taken::Ended(settled));
        }
    }
    connection
        .prepare_cached("UPDATE deliveries SET stage = 3 WHERE id = ?1")?
        .execute([id.0])?;
    Ok(Taken::Leased(Box::new(leased(delivery, alert, progress))))
}

fn leased(delivery: Delivery, alert: Alert, progress: Progress) -> Leased {
    Leased {
        delivery: delivery.id,
        mail: delivery.mail,
        team: delivery.team,
        part: delivery.part,
        received: delivery.received,
        since: delivery.since,
        alert,
        progress,
    }
}

/// [`SpoolError::Unknown`] when the record cannot be understood.
fn stored(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<(Alert, Progress)>, SpoolError> {
    let (decision, progress) = connection
        .prepare_cached("SELECT decision, progress FROM deliveries WHERE id = ?1")?
        .query_row([id.0], |row| {
            Ok((
                row.get::<_, Option<String>>(0)?,
                row.get::<_, Option<String>>(1)?,
            ))
        })?;
    let unreadable = |error: record::RecordError| SpoolError::Unknown(error.to_string());
    let Some(decision) = decision else {
        return Ok(None);
    };
    let alert = record::read_decision(&decision).map_err(unreadable)?.alert;
    let progress = record::read_progress(progress.as_deref()).map_err(unreadable)?;
    Ok(alert.map(|alert| (alert, progress)))
}

/// When the first delivery is due of teams that could take more.
fn next_due(connection: &Connection, asks: &[Ask], now: Time) -> Result<Option<Time>, SpoolError> {
    let mut earliest = None;
    let mut statement = connection.prepare_cached(
        "SELECT not_before_ms FROM deliveries
         WHERE stage = 2 AND team = ?1 AND urgency = ?2 AND not_before_ms > ?3
         ORDER BY not_before_ms LIMIT 1",
    )?;
    for ask in asks.iter().filter(|ask| ask.slots > 0) {
        for urgency in 0..URGENCIES {
            let next = statement
                .query_row(params![ask.team, urgency, now.ms()], |row| row.get(0))
                .optional()?;
            if let Some(ms) = next
                && earliest.is_none_or(|at| ms < at)
            {
                earliest = Some(ms);
            }
        }
    }
    Ok(earliest.map(Time::from_ms))
}

pub(super) fn hurry(connection: &Connection, team: &str, now: Time) -> Result<(), SpoolError> {
    for urgency in 0..URGENCIES {
        connection
            .prepare_cached(
                "UPDATE deliveries SET not_before_ms = ?3 WHERE id IN (
                     SELECT id FROM deliveries
                     WHERE stage = 2 AND team = ?1 AND urgency = ?2 AND not_before_ms > ?3
                       AND progress IS NOT NULL
                     ORDER BY not_before_ms LIMIT ?4)",
            )?
            .execute(params![team, urgency, now.ms(), rows::count(HURRIED_MAX)])?;
    }
    Ok(())
}
