//! Rows and words of the tables, as every part of the store reads and writes them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::alert::Status;
use crate::clock::Time;
use crate::spool::lifecycle::{self, Ticket, TicketState};
use crate::spool::record::RecordError;
use crate::spool::{DeliveryId, Ending, MailId, Settled, SpoolError, Stage};

pub(super) const STAGE_ACCEPTED: i64 = 0;
pub(super) const STAGE_BEHIND: i64 = 1;
pub(super) const STAGE_WAITING: i64 = 2;
pub(super) const STAGE_SENDING: i64 = 3;
pub(super) const STAGE_SETTLED: i64 = 4;

impl From<RecordError> for SpoolError {
    fn from(error: RecordError) -> SpoolError {
        SpoolError::Refused(error.to_string())
    }
}

/// A count as SQLite stores it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn damaged(what: &str) -> SpoolError {
    SpoolError::Refused(format!("the store is damaged: {what}"))
}

pub(super) fn stage(code: i64, outcome: Option<&str>) -> Result<Stage, SpoolError> {
    Ok(match code {
        STAGE_ACCEPTED => Stage::Accepted,
        STAGE_BEHIND => Stage::Behind,
        STAGE_WAITING => Stage::Waiting,
        STAGE_SENDING => Stage::Sending,
        _ => Stage::Settled(
            outcome
                .and_then(Ending::parse)
                .ok_or_else(|| damaged("a settled delivery without an outcome"))?,
        ),
    })
}

pub(super) fn status(word: &str) -> Result<Status, SpoolError> {
    Status::parse(word).ok_or_else(|| damaged("a status that is none"))
}

pub(super) fn seq_of(connection: &Connection, mail: MailId) -> Result<Option<i64>, SpoolError> {
    Ok(connection
        .prepare_cached("SELECT seq FROM mails WHERE id = ?1")?
        .query_row([mail.0], |row| row.get(0))
        .optional()?)
}

/// Empty when it is gone, which `audit` tells: an empty mail alerts, an error would stop all others.
pub(super) fn body(connection: &Connection, seq: i64) -> Result<Vec<u8>, SpoolError> {
    Ok(connection
        .prepare_cached("SELECT raw FROM bodies WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?
        .unwrap_or_default())
}

pub(super) fn count_in_ledger(
    connection: &Connection,
    team: &str,
    entry: &str,
    n: i64,
) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "INSERT INTO ledger (team, entry, total) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET total = total + excluded.total",
        )?
        .execute(params![team, entry, n])?;
    Ok(())
}

/// What is needed of a delivery to move it on.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) id: DeliveryId,
    pub(super) seq: i64,
    pub(super) mail: MailId,
    pub(super) received: Time,
    pub(super) team: String,
    pub(super) part: u32,
    pub(super) stage: i64,
    pub(super) status: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) escalate: bool,
    pub(super) since: Time,
    pub(super) maybe_paged: bool,
}

const DELIVERY: &str = "SELECT d.id, d.seq, m.id, m.received_ms, d.team, d.part, d.stage,
    d.status, d.external_id, d.escalate, d.since_ms, d.maybe_paged
    FROM deliveries d JOIN mails m ON m.seq = d.seq WHERE d.id = ?1";

pub(super) fn delivery(connection: &Connection, id: DeliveryId) -> Result<Delivery, SpoolError> {
    let read = |row: &Row<'_>| {
        Ok(Delivery {
            id: DeliveryId(row.get(0)?),
            seq: row.get(1)?,
            mail: MailId(row.get(2)?),
            received: Time::from_ms(row.get(3)?),
            team: row.get(4)?,
            part: row.get(5)?,
            stage: row.get(6)?,
            status: row.get(7)?,
            external_id: row.get(8)?,
            escalate: row.get(9)?,
            since: Time::from_ms(row.get(10)?),
            maybe_paged: row.get(11)?,
        })
    };
    Ok(connection
        .prepare_cached(DELIVERY)?
        .query_row([id.0], read)?)
}

/// Ends a delivery: outcome, ledger, and the turn of the next of its ticket.
pub(super) fn end(
    connection: &Connection,
    delivery: &Delivery,
    ending: Ending,
    reason: &str,
    now: Time,
) -> Result<Settled, SpoolError> {
    connection
        .prepare_cached(
            "UPDATE deliveries SET stage = 4, outcome = ?2, reason = ?3, settled_ms = ?4
             WHERE id = ?1",
        )?
        .execute(params![delivery.id.0, ending.as_str(), reason, now.ms()])?;
    count_in_ledger(connection, &delivery.team, ending.as_str(), 1)?;
    if let Some(external_id) = &delivery.external_id {
        if delivery.maybe_paged && !ending.left() && delivery.status.as_deref() == Some("new") {
            let ticket = ticket(connection, &delivery.team, external_id)?;
            let doubtful = lifecycle::after_doubt(ticket);
            write_ticket(
                connection,
                (&delivery.team, external_id),
                doubtful,
                None,
                now,
            )?;
        }
        promote(connection, &delivery.team, external_id)?;
    }
    Ok(Settled {
        mail: delivery.mail,
        team: delivery.team.clone(),
        part: delivery.part,
        received: delivery.received,
        ending,
        reason: reason.to_owned(),
    })
}

/// Whether a delivery of the ticket has its turn.
pub(super) fn turn_of(
    connection: &Connection,
    team: &str,
    external_id: &str,
) -> Result<Option<DeliveryId>, SpoolError> {
    Ok(connection
        .prepare_cached(
            "SELECT id FROM deliveries WHERE team = ?1 AND external_id = ?2
             AND stage IN (2, 3) AND external_id IS NOT NULL",
        )?
        .query_row([team, external_id], |row| row.get(0).map(DeliveryId))
        .optional()?)
}

/// Why a delivery that a person retries is not to be sent any more: a later one of its ticket has
/// said the contrary. A mail that was received twice says nothing a second time.
pub(super) fn overtaken(
    connection: &Connection,
    delivery: &Delivery,
    status: Status,
    external_id: &str,
) -> Result<Option<&'static str>, SpoolError> {
    let (contrary, reason) = lifecycle::contrary(status);
    let found: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries
                 WHERE team = ?1 AND external_id = ?2 AND (seq, part) > (?3, ?4)
                 AND status = ?5 AND outcome IS NOT 'dead-letter'
                 AND (reason IS NULL OR reason NOT LIKE 'duplicate of %'))",
        )?
        .query_row(
            params![
                delivery.team,
                external_id,
                delivery.seq,
                delivery.part,
                contrary.as_str()
            ],
            |row| row.get(0),
        )?;
    Ok(found.then_some(reason))
}

/// The first of a ticket's deliveries that are behind gets its turn, if none has it.
pub(super) fn promote(
    connection: &Connection,
    team: &str,
    external_id: &str,
) -> Result<(), SpoolError> {
    if turn_of(connection, team, external_id)?.is_some() {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE deliveries SET stage = 2 WHERE id = (
                 SELECT id FROM deliveries WHERE team = ?1 AND external_id = ?2
                 AND stage = 1 AND external_id IS NOT NULL ORDER BY seq, part LIMIT 1)",
        )?
        .execute([team, external_id])?;
    Ok(())
}

pub(super) fn ticket(
    connection: &Connection,
    team: &str,
    external_id: &str,
) -> Result<Option<Ticket>, SpoolError> {
    let found = connection
        .prepare_cached("SELECT state, paged FROM tickets WHERE team = ?1 AND external_id = ?2")?
        .query_row([team, external_id], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((state, paged)) = found else {
        return Ok(None);
    };
    let state = TicketState::parse(&state).ok_or_else(|| damaged("a ticket's state"))?;
    Ok(Some(Ticket { state, paged }))
}

/// An alert has left: what SIGNL4 now knows of the ticket. `alert` is kept when it opens it.
pub(super) fn tell_ticket(
    connection: &Connection,
    (team, external_id): (&str, &str),
    status: Status,
    alert: Option<&str>,
    now: Time,
) -> Result<(), SpoolError> {
    let before = ticket(connection, team, external_id)?;
    let after = lifecycle::after(before, status);
    let opens = status == Status::New
        && before.is_none_or(|t| t.state == TicketState::Resolved || !t.paged);
    let alert = alert.filter(|_| opens);
    write_ticket(connection, (team, external_id), after, alert, now)
}

fn write_ticket(
    connection: &Connection,
    (team, external_id): (&str, &str),
    ticket: Ticket,
    alert: Option<&str>,
    now: Time,
) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "INSERT INTO tickets (team, external_id, state, paged, changed_ms, alert)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET state = excluded.state, paged = excluded.paged,
                 changed_ms = excluded.changed_ms, alert = coalesce(excluded.alert, alert)",
        )?
        .execute(params![
            team,
            external_id,
            ticket.state.as_str(),
            ticket.paged,
            now.ms(),
            alert
        ])?;
    Ok(())
}
