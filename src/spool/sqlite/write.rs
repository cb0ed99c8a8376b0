//! Writes what the plan changes.

use rusqlite::{Connection, params};

use super::rows;
use crate::clock::{Time, whole_ms};
use crate::spool::plan::{Changes, NewPart, Row, TicketId, TicketRow, Verdict};
use crate::spool::record::{self, stage_code};
use crate::spool::storm::Gathering;
use crate::spool::{Attempt, DeliveryId, Effects, SpoolError, Stage};

pub(super) fn write(
    connection: &Connection,
    changes: Changes,
    now: Time,
) -> Result<Effects, SpoolError> {
    // What gives up a turn is written before what takes it: the index of turns holds one a ticket.
    let (giving, taking): (Vec<&Row>, Vec<&Row>) = changes
        .rows
        .values()
        .partition(|row| !matches!(row.stage, Stage::Waiting | Stage::Sending));
    for row in giving.into_iter().chain(taking) {
        write_row(connection, row, now)?;
    }
    for (ticket, row) in &changes.tickets {
        write_ticket(connection, ticket, row, now)?;
    }
    for ((team, source), gathering) in &changes.storms {
        write_gathering(connection, team, source, gathering)?;
    }
    for ((team, entry), n) in &changes.ledger {
        rows::count_in_ledger(connection, team, entry, *n)?;
    }
    Ok(changes.effects)
}

fn write_row(connection: &Connection, row: &Row, now: Time) -> Result<(), SpoolError> {
    if let Some(part) = &row.new_part {
        insert_part(connection, row.id, part)?;
    }
    match &row.verdict {
        Some(verdict) => write_decided(connection, row, verdict, now)?,
        None => write_moved(connection, row, now)?,
    }
    for (number, attempt) in (row.first_attempt..).zip(&row.attempts) {
        insert_attempt(connection, row.id, number, attempt)?;
    }
    Ok(())
}

fn insert_part(connection: &Connection, id: DeliveryId, part: &NewPart) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "INSERT INTO deliveries (id, team, part, forward_path, stage, since_ms, is_summary)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)",
        )?
        .execute(params![
            id.0,
            part.team,
            part.part,
            part.forward_path,
            part.since.ms(),
            part.is_summary
        ])?;
    Ok(())
}

/// Outcome, reason and end of a row, all there or none.
fn end_of(row: &Row, now: Time) -> (Option<&'static str>, Option<&str>, Option<i64>) {
    match row.stage {
        Stage::Settled(ending) => (Some(ending.as_str()), Some(&row.reason), Some(now.ms())),
        _ => (None, None, None),
    }
}

fn write_decided(
    connection: &Connection,
    row: &Row,
    verdict: &Verdict,
    now: Time,
) -> Result<(), SpoolError> {
    let (outcome, reason, settled_ms) = end_of(row, now);
    connection
        .prepare_cached(
            "UPDATE deliveries SET message_id = ?2, source = ?3, rule = ?4, event = ?5, status = ?6,
                 external_id = ?7, title = ?8, escalate = ?9, urgency = ?10, stage = ?11,
                 not_before_ms = coalesce(?12, not_before_ms), outcome = ?13, reason = ?14,
                 settled_ms = ?15, leases = ?16
             WHERE id = ?1",
        )?
        .execute(params![
            row.id.0,
            verdict.message_id,
            verdict.source,
            verdict.rule,
            verdict.event,
            verdict.status.map(|status| status.as_str()),
            verdict.external_id,
            verdict.title,
            verdict.escalate,
            verdict.urgency,
            stage_code(row.stage),
            row.not_before.map(Time::ms),
            outcome,
            reason,
            settled_ms,
            row.leases
        ])?;
    if let Some(decision) = &verdict.decision {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO decisions (delivery, decision) VALUES (?1, ?2)",
            )?
            .execute(params![row.id.0, decision])?;
    }
    Ok(())
}

fn write_moved(connection: &Connection, row: &Row, now: Time) -> Result<(), SpoolError> {
    let (outcome, reason, settled_ms) = end_of(row, now);
    connection
        .prepare_cached(
            "UPDATE deliveries SET stage = ?2, outcome = ?3, reason = ?4, settled_ms = ?5,
                 not_before_ms = coalesce(?6, not_before_ms),
                 maybe_paged = coalesce(?7, maybe_paged), attempts = attempts + ?8,
                 progress = CASE WHEN ?10 IS NULL THEN coalesce(?9, progress) END,
                 since_ms = coalesce(?10, since_ms), leases = ?11
             WHERE id = ?1",
        )?
        .execute(params![
            row.id.0,
            stage_code(row.stage),
            outcome,
            reason,
            settled_ms,
            row.not_before.map(Time::ms),
            row.maybe_paged,
            rows::count(row.attempts.len()),
            row.progress,
            row.since.map(Time::ms),
            row.leases
        ])?;
    Ok(())
}

fn insert_attempt(
    connection: &Connection,
    delivery: DeliveryId,
    number: u32,
    attempt: &Attempt,
) -> Result<(), SpoolError> {
    let took_ms = whole_ms(attempt.took);
    connection
        .prepare_cached(
            "INSERT INTO attempts (delivery, number, at_ms, took_ms, transport, result, answer)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            delivery.0,
            number,
            attempt.at.ms(),
            took_ms,
            attempt.transport,
            attempt.result,
            attempt.answer
        ])?;
    Ok(())
}

fn write_ticket(
    connection: &Connection,
    ticket: &TicketId,
    row: &TicketRow,
    now: Time,
) -> Result<(), SpoolError> {
    let (opened_by, title) = match &row.opened {
        Some((delivery, title)) => (Some(delivery.0), title.as_deref()),
        None => (None, None),
    };
    connection
        .prepare_cached(
            "INSERT INTO tickets (team, external_id, state, paged, changed_ms, opened_by, title, storm)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET state = excluded.state, paged = excluded.paged,
                 changed_ms = excluded.changed_ms, storm = excluded.storm,
                 title = CASE WHEN excluded.opened_by IS NULL THEN title ELSE excluded.title END,
                 opened_by = coalesce(excluded.opened_by, opened_by)",
        )?
        .execute(params![
            ticket.team,
            ticket.external_id,
            row.kept.ticket.state.as_str(),
            row.kept.ticket.paged,
            now.ms(),
            opened_by,
            title,
            row.kept.storm.as_ref().map(|storm| storm.as_str())
        ])?;
    Ok(())
}

fn write_gathering(
    connection: &Connection,
    team: &str,
    source: &str,
    gathering: &Gathering,
) -> Result<(), SpoolError> {
    let summary = gathering.summary.as_ref();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO storms (team, source, recent, delivery, summary)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            team,
            source,
            record::write_times(&gathering.recent),
            summary.map(|summary| summary.delivery.0),
            summary.map(|summary| summary.external_id.as_str())
        ])?;
    Ok(())
}
