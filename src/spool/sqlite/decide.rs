//! Decisions come in: a delivery ends at once, waits, or takes its place behind its ticket's others.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Delivery, STAGE_ACCEPTED, STAGE_BEHIND, STAGE_SENDING, STAGE_WAITING};
use crate::alert::Status;
use crate::clock::Time;
use crate::deliver::schedule::urgency;
use crate::limits::{BEHIND_MAX_FOR_CANCEL, DUPLICATE_WINDOW};
use crate::rules::Decision;
use crate::spool::lifecycle::{self, CLOSED_BEFORE_PAGED, Path, Sending, Unfinished};
use crate::spool::{Decided, DeliveryId, Ending, Reading, Settled, SpoolError, record};

const PART_GONE: &str = "the digest has no such part by the rules of today";

pub(super) fn decide(
    connection: &Connection,
    decided: &[Decided],
    now: Time,
) -> Result<Vec<Settled>, SpoolError> {
    let mut settled = Vec::new();
    for one in decided {
        let delivery = rows::delivery(connection, one.delivery)?;
        if delivery.stage != STAGE_ACCEPTED {
            continue; // dropped by a person meanwhile
        }
        if let Some(message_id) = &one.message_id {
            connection
                .prepare_cached("UPDATE mails SET message_id = ?2 WHERE seq = ?1")?
                .execute(params![delivery.seq, message_id])?;
        }
        match &one.reading {
            Reading::DeadLetter(reason) => {
                settled.push(bury(connection, &delivery, reason, now)?);
            }
            Reading::Decisions(decisions) if decisions.is_empty() => {
                settled.push(bury(connection, &delivery, "no decision was made", now)?);
            }
            Reading::Decisions(decisions) => {
                let message_id = one.message_id.as_deref();
                let parts = parts(connection, &delivery, decisions)?;
                if parts.is_empty() {
                    settled.push(bury(connection, &delivery, PART_GONE, now)?);
                }
                for (id, decision) in parts {
                    let delivery = with_decision(connection, id, decision)?;
                    settled.extend(place(connection, &delivery, decision, message_id, now)?);
                }
            }
        }
    }
    Ok(settled)
}

fn bury(
    connection: &Connection,
    delivery: &Delivery,
    reason: &str,
    now: Time,
) -> Result<Settled, SpoolError> {
    rows::end(connection, delivery, Ending::DeadLetter, reason, now)
}

/// Which decision is for which delivery. A digest that is decided for the first time gets rows for
/// its further parts; a part that a person retries is decided alone, as the others have their own
/// outcomes.
fn parts<'a>(
    connection: &Connection,
    whole: &Delivery,
    decisions: &'a [Decision],
) -> Result<Vec<(DeliveryId, &'a Decision)>, SpoolError> {
    if is_split(connection, whole)? {
        let own = own_part(whole, decisions);
        return Ok(own
            .map(|decision| (whole.id, decision))
            .into_iter()
            .collect());
    }
    let with_row = |(part, decision)| {
        let id = match part {
            0 => whole.id,
            part => add_part(connection, whole, part)?,
        };
        Ok((id, decision))
    };
    decisions.iter().enumerate().map(with_row).collect()
}

fn own_part<'a>(delivery: &Delivery, decisions: &'a [Decision]) -> Option<&'a Decision> {
    decisions.get(usize::try_from(delivery.part).ok()?)
}

/// Whether the mail has other deliveries for the same team.
fn is_split(connection: &Connection, delivery: &Delivery) -> Result<bool, SpoolError> {
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries
                 WHERE seq = ?1 AND team = ?2 AND part <> ?3)",
        )?
        .query_row(params![delivery.seq, delivery.team, delivery.part], |row| {
            row.get(0)
        })?)
}

/// The delivery with its decision written into it.
fn with_decision(
    connection: &Connection,
    id: DeliveryId,
    decision: &Decision,
) -> Result<Delivery, SpoolError> {
    let alert = decision.alert.as_ref();
    let priority = decision.fields.get("priority").map(String::as_str);
    // An alert's own id is the one that is sent: it decides which ticket's turn is waited for.
    let external_id = match alert {
        Some(alert) => alert.external_id.as_ref(),
        None => decision.external_id.as_ref(),
    };
    connection
        .prepare_cached(
            "UPDATE deliveries SET source = ?2, rule = ?3, event = ?4, status = ?5,
                 external_id = ?6, title = ?7, escalate = ?8, decision = ?9, urgency = ?10
             WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            decision.source,
            decision.rule,
            decision.event.as_str(),
            alert.map(|alert| alert.status.as_str()),
            external_id.map(|id| id.as_str()),
            alert.map(|alert| alert.title.as_str()),
            decision.escalate,
            record::write_decision(decision)?,
            alert.map_or(0, |alert| urgency(alert, priority)),
        ])?;
    rows::delivery(connection, id)
}

fn add_part(
    connection: &Connection,
    whole: &Delivery,
    part: usize,
) -> Result<DeliveryId, SpoolError> {
    connection
        .prepare_cached(
            "INSERT INTO deliveries (seq, team, part, forward_path, stage, since_ms)
             SELECT seq, team, ?2, forward_path, 0, since_ms FROM deliveries WHERE id = ?1",
        )?
        .execute(params![whole.id.0, rows::count(part)])?;
    let id = DeliveryId(connection.last_insert_rowid());
    rows::count_in_ledger(connection, &whole.team, "split", 1)?;
    Ok(id)
}

fn place(
    connection: &Connection,
    delivery: &Delivery,
    decision: &Decision,
    message_id: Option<&str>,
    now: Time,
) -> Result<Vec<Settled>, SpoolError> {
    let sending = match lifecycle::path(decision) {
        Path::End(ending, reason) => {
            return Ok(vec![rows::end(connection, delivery, ending, &reason, now)?]);
        }
        Path::Send(sending) => sending,
    };
    let suppressed = |reason: &str| {
        Ok(vec![rows::end(
            connection,
            delivery,
            Ending::Suppressed,
            reason,
            now,
        )?])
    };
    if let Some(first) = duplicate_of(connection, delivery, message_id)? {
        return suppressed(&format!("duplicate of {first}: the same Message-ID"));
    }
    let Some(external_id) = &sending.external_id else {
        enqueue(connection, delivery, &sending, STAGE_WAITING, now)?;
        return Ok(Vec::new());
    };
    let external_id = external_id.as_str();
    // Retried by a person, and decided again.
    if let Some(reason) = rows::overtaken(connection, delivery, sending.status, external_id)? {
        return suppressed(reason);
    }
    let ticket = rows::ticket(connection, &delivery.team, external_id)?;
    if rows::turn_of(connection, &delivery.team, external_id)?.is_none() {
        if let Err(repeat) = lifecycle::turn(ticket, sending.status, sending.escalate) {
            return suppressed(repeat.as_str());
        }
        enqueue(connection, delivery, &sending, STAGE_WAITING, now)?;
        return Ok(Vec::new());
    }
    if sending.status == Status::Resolved {
        let unfinished = unfinished(connection, &delivery.team, external_id)?;
        let states: Vec<Unfinished> = unfinished.iter().map(|(_, state)| *state).collect();
        if let Some(first) = lifecycle::cancelled(ticket, &states) {
            let cancelled = unfinished.iter().skip(first).map(|(id, _)| *id);
            return cancel(connection, cancelled.collect(), delivery, now);
        }
    }
    enqueue(connection, delivery, &sending, STAGE_BEHIND, now)?;
    Ok(Vec::new())
}

fn enqueue(
    connection: &Connection,
    delivery: &Delivery,
    sending: &Sending,
    stage: i64,
    now: Time,
) -> Result<(), SpoolError> {
    let not_before = sending
        .hold
        .map_or(now, |hold| delivery.received.plus(hold));
    connection
        .prepare_cached("UPDATE deliveries SET stage = ?2, not_before_ms = ?3 WHERE id = ?1")?
        .execute(params![delivery.id.0, stage, not_before.ms()])?;
    Ok(())
}

/// The deliveries of a ticket that have not ended, in their order.
fn unfinished(
    connection: &Connection,
    team: &str,
    external_id: &str,
) -> Result<Vec<(DeliveryId, Unfinished)>, SpoolError> {
    let mut found = Vec::new();
    for stages in ["stage IN (2, 3)", "stage = 1"] {
        let sql = format!(
            "SELECT id, status, stage, maybe_paged FROM deliveries
             WHERE team = ?1 AND external_id = ?2 AND {stages} AND external_id IS NOT NULL
             ORDER BY seq, part LIMIT ?3"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let limit = rows::count(BEHIND_MAX_FOR_CANCEL);
        let mut rows = statement.query(params![team, external_id, limit])?;
        while let Some(row) = rows.next()? {
            let sending = row.get::<_, i64>(2)? == STAGE_SENDING;
            let state = Unfinished {
                status: rows::status(&row.get::<_, String>(1)?)?,
                maybe_paged: sending || row.get(3)?,
            };
            found.push((DeliveryId(row.get(0)?), state));
        }
    }
    if found.len() > BEHIND_MAX_FOR_CANCEL {
        // More than is looked at: the close takes its turn behind them.
        found.clear();
    }
    Ok(found)
}

/// Ends the deliveries that a close makes pointless, the close among them.
fn cancel(
    connection: &Connection,
    cancelled: Vec<DeliveryId>,
    close: &Delivery,
    now: Time,
) -> Result<Vec<Settled>, SpoolError> {
    let mut settled = Vec::new();
    // The last first, so that none of them gets its turn in between.
    for id in cancelled.into_iter().rev() {
        let delivery = rows::delivery(connection, id)?;
        settled.push(rows::end(
            connection,
            &delivery,
            Ending::Suppressed,
            CLOSED_BEFORE_PAGED,
            now,
        )?);
    }
    settled.reverse();
    settled.push(rows::end(
        connection,
        close,
        Ending::Suppressed,
        CLOSED_BEFORE_PAGED,
        now,
    )?);
    Ok(settled)
}

/// The mail that this one repeats: same team, Message-ID, event, ticket and title. A dead letter
/// is not repeated, it is tried once more.
fn duplicate_of(
    connection: &Connection,
    delivery: &Delivery,
    message_id: Option<&str>,
) -> Result<Option<crate::spool::MailId>, SpoolError> {
    let Some(message_id) = message_id else {
        return Ok(None);
    };
    Ok(connection
        .prepare_cached(
            "SELECT m.id FROM mails m JOIN deliveries d ON d.seq = m.seq
             JOIN deliveries n ON n.id = ?2
             WHERE m.message_id = ?1 AND m.seq < n.seq AND m.received_ms >= ?3
               AND d.team = n.team AND d.stage > 0 AND d.event = n.event
               AND d.external_id IS n.external_id AND d.title IS n.title
               AND d.outcome IS NOT 'dead-letter'
             ORDER BY m.seq LIMIT 1",
        )?
        .query_row(
            params![
                message_id,
                delivery.id.0,
                delivery.received.minus(DUPLICATE_WINDOW).ms()
            ],
            |row| row.get(0).map(crate::spool::MailId),
        )
        .optional()?)
}
