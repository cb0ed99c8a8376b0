//! Deliveries whose turn and time have come.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::intake;
use super::known;
use super::rows::{self, delivery};
use super::write;
use crate::clock::{Time, whole_ms};
use crate::deliver::schedule::URGENCIES;
use crate::limits::{HURRIED_MAX, LEASE_ROUNDS_MAX};
use crate::spool::plan::{self, Candidate, Depth, Slots};
use crate::spool::{Ask, Budget, DeliveryId, Effects, SpoolError};

/// What was being sent when the gateway died may have arrived. It is sent again: the other side
/// folds it by idempotency key and external id. When the machine died, it may even have been
/// forgotten that something was being sent, as that is not synced.
pub(super) fn recover(connection: &Connection, now: Time) -> Result<(), SpoolError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute(
        "UPDATE deliveries SET stage = 2, maybe_paged = 1 WHERE stage = 3",
        (),
    )?;
    connection.execute(
        "UPDATE memory SET doubt_before_ms = ?1 WHERE is_closed = 0",
        [now.ms()],
    )?;
    connection.execute("UPDATE memory SET is_closed = 0", ())?;
    intake::discard_all(connection)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// The gateway stops in good order.
pub(super) fn close(connection: &Connection) -> Result<(), SpoolError> {
    connection.execute("UPDATE memory SET is_closed = 1", ())?;
    Ok(())
}

pub(super) fn reclaim(
    connection: &Connection,
    carried: &[(DeliveryId, u32)],
) -> Result<usize, SpoolError> {
    let mut statement =
        connection.prepare_cached("SELECT id, leases FROM deliveries WHERE stage = 3")?;
    let sending = statement.query_map((), |row| Ok((DeliveryId(row.get(0)?), row.get(1)?)))?;
    let sending: Vec<(DeliveryId, u32)> = sending.collect::<Result<_, _>>()?;
    let mut reclaimed = 0;
    for (id, _) in sending.iter().filter(|lease| !carried.contains(lease)) {
        reclaimed += connection
            .prepare_cached("UPDATE deliveries SET stage = 2 WHERE id = ?1")?
            .execute([id.0])?;
    }
    Ok(reclaimed)
}

pub(super) fn lease(
    connection: &Connection,
    asks: &[Ask],
    budget: Budget,
    now: Time,
) -> Result<Effects, SpoolError> {
    let mut slots = Slots::new(asks, budget);
    let mut effects = Effects::default();
    for round in 0.. {
        if round == LEASE_ROUNDS_MAX {
            // Long runs of repeats end in several leases, so that no transaction lasts long.
            effects.due = Some(now);
            return Ok(effects);
        }
        let candidates = candidates(connection, asks, &slots, now)?;
        let deliveries = candidates.iter().map(|one| one.delivery.clone());
        let known = known::of_moved(connection, deliveries, Depth::First)?;
        let changes = plan::lease(known, candidates, &mut slots, now)?;
        let step = write::write(connection, changes, now)?;
        effects.leased.extend(step.leased);
        let has_ended_any = !step.settled.is_empty();
        effects.settled.extend(step.settled);
        if !has_ended_any {
            break;
        }
    }
    effects.due = next_due(connection, asks, &slots, now)?;
    Ok(effects)
}

/// The due deliveries of each team, most urgent first, as many as it has slots.
fn candidates(
    connection: &Connection,
    asks: &[Ask],
    slots: &Slots,
    now: Time,
) -> Result<Vec<Candidate>, SpoolError> {
    let mut found = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT id FROM deliveries
         WHERE stage = 2 AND team = ?1 AND urgency = ?2 AND not_before_ms <= ?3
           AND since_ms <= ?5
         ORDER BY not_before_ms, id LIMIT ?4",
    )?;
    for ask in asks {
        let since_before = ask.since_before.map_or(i64::MAX, Time::ms);
        let mut left = slots.left(&ask.team);
        for urgency in 0..URGENCIES {
            if left == 0 {
                break;
            }
            let values = params![ask.team, urgency, now.ms(), rows::count(left), since_before];
            let ids = statement.query_map(values, |row| row.get(0))?;
            for id in ids.collect::<Result<Vec<i64>, _>>()? {
                left = left.saturating_sub(1);
                found.extend(candidate(connection, id, urgency)?);
            }
        }
    }
    Ok(found)
}

fn candidate(
    connection: &Connection,
    id: i64,
    urgency: u8,
) -> Result<Option<Candidate>, SpoolError> {
    let found = rows::deliveries(connection, delivery!("d.id = ?1"), [id])?;
    let Some(delivery) = found.into_iter().next() else {
        return Ok(None);
    };
    let (progress, decision) = connection
        .prepare_cached(
            "SELECT d.progress, c.decision FROM deliveries d
             LEFT JOIN decisions c ON c.delivery = d.id WHERE d.id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Some(Candidate {
        delivery,
        urgency,
        decision,
        progress,
    }))
}

/// When the first delivery is due of teams that could take more.
fn next_due(
    connection: &Connection,
    asks: &[Ask],
    slots: &Slots,
    now: Time,
) -> Result<Option<Time>, SpoolError> {
    let mut earliest = None;
    let mut statement = connection.prepare_cached(
        "SELECT not_before_ms FROM deliveries
         WHERE stage = 2 AND team = ?1 AND urgency = ?2 AND not_before_ms > ?3
         ORDER BY not_before_ms LIMIT 1",
    )?;
    for ask in asks.iter().filter(|ask| slots.left(&ask.team) > 0) {
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

pub(super) fn set_back(connection: &Connection, by: Duration, now: Time) -> Result<(), SpoolError> {
    // One statement for each index that knows what waits.
    for waits in ["stage = 2", "stage = 1 AND external_id IS NOT NULL"] {
        connection.execute(
            &format!(
                "UPDATE deliveries SET not_before_ms = max(not_before_ms - ?1, ?2)
                 WHERE {waits} AND not_before_ms > ?2"
            ),
            params![whole_ms(by), now.ms()],
        )?;
    }
    Ok(())
}
