//! What people see of the store.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::clock::Time;
use crate::rules::Decision;
use crate::spool::lifecycle::TicketState;
use crate::spool::record::{self, stage_of};
use crate::spool::{
    Attempt, DeliveryId, KnownTicket, MailId, Piece, Shown, ShownDelivery, SpoolError, Stage,
    Summary, TicketCursor,
};

/// All columns of a [`Summary`], what is put in, and the conditions.
macro_rules! summary_sql {
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $crate::spool::search::summary_columns!(),
            $more,
            "FROM deliveries d JOIN mails m ON m.seq = d.id >> 20 ",
            $rest
        )
    };
}
pub(super) use summary_sql;

pub(super) fn summary(row: &Row<'_>) -> Result<Summary, SpoolError> {
    let outcome: Option<String> = row.get(14)?;
    let stage = stage_of(row.get(8)?, outcome.as_deref())?;
    let waits = stage == Stage::Waiting;
    Ok(Summary {
        delivery: DeliveryId(row.get(0)?),
        mail: MailId(row.get(1)?),
        received: Time::from_ms(row.get(2)?),
        reverse_path: row.get(3)?,
        forward_path: row.get(4)?,
        bytes: row.get(5)?,
        team: row.get(6)?,
        part: row.get(7)?,
        stage,
        source: row.get(9)?,
        rule: row.get(10)?,
        event: row.get(11)?,
        external_id: row.get(12)?,
        title: row.get(13)?,
        reason: row.get::<_, Option<String>>(15)?.unwrap_or_default(),
        not_before: waits.then_some(Time::from_ms(row.get(16)?)),
        settled: row.get::<_, Option<i64>>(17)?.map(Time::from_ms),
        attempts: row.get(18)?,
    })
}

pub(super) fn show(connection: &Connection, mail: MailId) -> Result<Option<Shown>, SpoolError> {
    let Some(seq) = rows::seq_of(connection, mail)? else {
        return Ok(None);
    };
    let deliveries = deliveries(connection, seq)?;
    let shown = connection
        .prepare_cached(
            "SELECT received_ms, peer, helo, tls, user, reverse_path, bytes,
                 (SELECT max(message_id) FROM deliveries
                  WHERE id BETWEEN seq << 20 AND (seq << 20) + 1048575)
             FROM mails WHERE seq = ?1",
        )?
        .query_row([seq], |row| {
            Ok(Shown {
                mail,
                received: Time::from_ms(row.get(0)?),
                peer: row.get::<_, String>(1)?.parse().ok(),
                helo: row.get(2)?,
                tls: row.get(3)?,
                user: row.get(4)?,
                reverse_path: row.get(5)?,
                bytes: row.get(6)?,
                message_id: row.get(7)?,
                deliveries,
            })
        })?;
    Ok(Some(shown))
}

fn deliveries(connection: &Connection, seq: i64) -> Result<Vec<ShownDelivery>, SpoolError> {
    let sql = summary_sql!(" ", "WHERE d.id BETWEEN ?1 AND ?2 ORDER BY d.team, d.part");
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(DeliveryId::range_of_mail(seq))?;
    let mut deliveries = Vec::new();
    while let Some(row) = found.next()? {
        let summary = summary(row)?;
        let decision = decision(connection, summary.delivery)?;
        deliveries.push(ShownDelivery {
            attempts: attempts(connection, summary.delivery)?,
            summary,
            decision,
        });
    }
    Ok(deliveries)
}

fn decision(connection: &Connection, delivery: DeliveryId) -> Result<Option<Decision>, SpoolError> {
    let json: Option<String> = connection
        .prepare_cached("SELECT decision FROM decisions WHERE delivery = ?1")?
        .query_row([delivery.0], |row| row.get(0))
        .optional()?;
    Ok(json.as_deref().map(record::read_decision).transpose()?)
}

fn attempts(connection: &Connection, delivery: DeliveryId) -> Result<Vec<Attempt>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT at_ms, took_ms, transport, result, answer FROM attempts
         WHERE delivery = ?1 ORDER BY number",
    )?;
    let attempts = statement.query_map([delivery.0], |row| {
        Ok(Attempt {
            at: Time::from_ms(row.get(0)?),
            took: std::time::Duration::from_millis(row.get(1)?),
            transport: row.get(2)?,
            result: row.get(3)?,
            answer: row.get(4)?,
        })
    })?;
    Ok(attempts.collect::<Result<_, _>>()?)
}

pub(super) fn piece(
    connection: &Connection,
    mail: MailId,
    at: u64,
) -> Result<Option<Piece>, SpoolError> {
    let sql = match at {
        0 => {
            "SELECT b.raw, m.bytes FROM mails m JOIN bodies b ON b.seq = m.seq
              WHERE m.id = ?1 AND ?2 = 0"
        }
        _ => {
            "SELECT p.bytes, m.bytes FROM mails m JOIN bodies b ON b.seq = m.seq
              JOIN pieces p ON p.rest = b.rest AND p.at = ?2 - length(b.raw)
              WHERE m.id = ?1"
        }
    };
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let piece = |row: &Row<'_>| {
        Ok(Piece {
            bytes: row.get(0)?,
            mail_bytes: row.get(1)?,
        })
    };
    Ok(connection
        .prepare_cached(sql)?
        .query_row(params![mail.0, at], piece)
        .optional()?)
}

pub(super) fn tickets(
    connection: &Connection,
    before: Option<&TicketCursor>,
    limit: usize,
) -> Result<Vec<KnownTicket>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT t.team, t.external_id, t.state, t.changed_ms, t.title, t.storm, t.opened_by, m.id,
             m.received_ms
         FROM tickets t LEFT JOIN mails m ON m.seq = t.opened_by >> 20
         WHERE t.state <> 'resolved' AND (t.changed_ms, t.team, t.external_id) < (?1, ?2, ?3)
         ORDER BY t.changed_ms DESC, t.team DESC, t.external_id DESC LIMIT ?4",
    )?;
    let (ms, team, external_id) = match before {
        Some(cursor) => (
            cursor.changed.ms(),
            cursor.team.as_str(),
            cursor.external_id.as_str(),
        ),
        None => (i64::MAX, "", ""),
    };
    let mut found = statement.query(params![ms, team, external_id, rows::count(limit)])?;
    let mut tickets = Vec::new();
    while let Some(row) = found.next()? {
        let opened_by: Option<i64> = row.get(6)?;
        let decision = opened_by.map(|id| decision(connection, DeliveryId(id)));
        let decision = decision.transpose()?.flatten();
        tickets.push(KnownTicket {
            team: row.get(0)?,
            external_id: row.get(1)?,
            state: TicketState::parse(&row.get::<_, String>(2)?).unwrap_or(TicketState::Open),
            changed: Time::from_ms(row.get(3)?),
            title: row.get(4)?,
            storm: row.get(5)?,
            opened_by: row.get::<_, Option<uuid::Uuid>>(7)?.map(MailId),
            opened: row.get::<_, Option<i64>>(8)?.map(Time::from_ms),
            alert: decision.and_then(|decision| decision.alert),
        });
    }
    Ok(tickets)
}

/// Hops from team to team in the index: a million waiting deliveries are not read.
pub(super) fn teams(connection: &Connection) -> Result<Vec<String>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE t (team) AS (
             SELECT min(team) FROM deliveries WHERE stage = 2
             UNION ALL
             SELECT (SELECT min(team) FROM deliveries WHERE stage = 2 AND team > t.team)
             FROM t WHERE t.team IS NOT NULL)
         SELECT team FROM t WHERE team IS NOT NULL",
    )?;
    let teams = statement.query_map((), |row| row.get(0))?;
    Ok(teams.collect::<Result<_, _>>()?)
}
