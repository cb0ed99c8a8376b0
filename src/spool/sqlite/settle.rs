//! What became of leased deliveries.

use rusqlite::{Connection, params};

use super::rows::{self, Delivery, STAGE_SENDING};
use crate::alert::Status;
use crate::clock::Time;
use crate::spool::{Attempt, DeliveryId, Settled, Settlement, SpoolError, Step, record};

pub(super) fn settle(
    connection: &Connection,
    settlements: &[Settlement],
    now: Time,
) -> Result<Vec<Settled>, SpoolError> {
    let mut settled = Vec::new();
    for settlement in settlements {
        let delivery = rows::delivery(connection, settlement.delivery)?;
        if delivery.stage != STAGE_SENDING {
            continue; // settled before: the answer to that was lost
        }
        note(connection, settlement)?;
        match &settlement.step {
            Step::End(ending, reason) => {
                if ending.left() {
                    tell_ticket(connection, &delivery, now)?;
                }
                settled.push(rows::end(connection, &delivery, *ending, reason, now)?);
            }
            Step::Wait { until, maybe_paged } => {
                wait(connection, delivery.id, *until, *maybe_paged)?;
            }
        }
    }
    Ok(settled)
}

fn note(connection: &Connection, settlement: &Settlement) -> Result<(), SpoolError> {
    for attempt in &settlement.attempts {
        note_attempt(connection, settlement.delivery, attempt)?;
    }
    if let Some(progress) = record::write_progress(&settlement.progress)? {
        connection
            .prepare_cached("UPDATE deliveries SET progress = ?2 WHERE id = ?1")?
            .execute(params![settlement.delivery.0, progress])?;
    }
    Ok(())
}

fn note_attempt(
    connection: &Connection,
    delivery: DeliveryId,
    attempt: &Attempt,
) -> Result<(), SpoolError> {
    let took_ms = i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO attempts (delivery, at_ms, took_ms, transport, result, answer)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            delivery.0,
            attempt.at.ms(),
            took_ms,
            attempt.transport,
            attempt.result,
            attempt.answer
        ])?;
    Ok(())
}

fn wait(
    connection: &Connection,
    id: DeliveryId,
    until: Time,
    maybe_paged: bool,
) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET stage = 2, not_before_ms = ?2,
                 maybe_paged = maybe_paged OR ?3 WHERE id = ?1",
        )?
        .execute(params![id.0, until.ms(), maybe_paged])?;
    Ok(())
}

fn tell_ticket(connection: &Connection, delivery: &Delivery, now: Time) -> Result<(), SpoolError> {
    let (Some(external_id), Some(status)) = (&delivery.external_id, &delivery.status) else {
        return Ok(());
    };
    let status = rows::status(status)?;
    let alert = match status {
        Status::New => alert_of(connection, delivery.id)?,
        Status::Acknowledged | Status::Resolved => None,
    };
    let ticket = (delivery.team.as_str(), external_id.as_str());
    rows::tell_ticket(connection, ticket, status, alert.as_deref(), now)
}

fn alert_of(connection: &Connection, id: DeliveryId) -> Result<Option<String>, SpoolError> {
    let decision: String = connection
        .prepare_cached("SELECT decision FROM deliveries WHERE id = ?1")?
        .query_row([id.0], |row| row.get(0))?;
    let alert = record::read_decision(&decision)?.alert;
    Ok(alert.as_ref().map(record::write_alert).transpose()?)
}
