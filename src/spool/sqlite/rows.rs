//! Rows and words of the tables, as every part of the store reads them.

use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::alert::Status;
use crate::clock::Time;
use crate::spool::plan::{Delivery, TicketId};
use crate::spool::record::{RecordError, stage_of};
use crate::spool::{DeliveryId, MailId, SpoolError};

/// A count as SQLite stores it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn status(word: Option<String>) -> Result<Option<Status>, SpoolError> {
    let parse = |word: String| Status::parse(&word).ok_or(RecordError::Word(word));
    Ok(word.map(parse).transpose()?)
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

/// All columns that a [`Delivery`] has, to be followed by the condition.
macro_rules! delivery {
    ($condition:literal) => {
        concat!(
            "SELECT d.id, m.id, m.received_ms, d.team, d.forward_path, d.part, d.stage, d.outcome,
             d.status, d.external_id, d.title, d.escalate, d.since_ms, d.not_before_ms,
             d.maybe_paged, d.attempts, d.is_summary, d.leases
             FROM deliveries d JOIN mails m ON m.seq = d.id >> 20 WHERE ",
            $condition
        )
    };
}
pub(super) use delivery;

pub(super) fn read_delivery(row: &Row<'_>) -> Result<Delivery, SpoolError> {
    let outcome: Option<String> = row.get(7)?;
    Ok(Delivery {
        id: DeliveryId(row.get(0)?),
        mail: MailId(row.get(1)?),
        received: Time::from_ms(row.get(2)?),
        team: row.get(3)?,
        forward_path: row.get(4)?,
        part: row.get(5)?,
        stage: stage_of(row.get(6)?, outcome.as_deref())?,
        status: status(row.get(8)?)?,
        external_id: row.get(9)?,
        title: row.get(10)?,
        escalate: row.get(11)?,
        since: Time::from_ms(row.get(12)?),
        not_before: Time::from_ms(row.get(13)?),
        maybe_paged: row.get(14)?,
        attempts: row.get(15)?,
        is_summary: row.get(16)?,
        leases: row.get(17)?,
    })
}

/// `sql` begins with [`delivery!`].
pub(super) fn deliveries(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<Vec<Delivery>, SpoolError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_delivery(row)?);
    }
    Ok(found)
}

/// The one of a ticket's deliveries that has the turn.
pub(super) fn turn_of(
    connection: &Connection,
    ticket: &TicketId,
) -> Result<Option<Delivery>, SpoolError> {
    let sql = delivery!(
        "d.team = ?1 AND d.external_id = ?2 AND d.stage IN (2, 3) AND d.external_id IS NOT NULL"
    );
    let found = deliveries(connection, sql, [&ticket.team, &ticket.external_id])?;
    Ok(found.into_iter().next())
}
