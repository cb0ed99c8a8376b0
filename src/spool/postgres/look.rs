//! What people see of the store.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows;
use crate::clock::Time;
use crate::rules::Decision;
use crate::spool::lifecycle::TicketState;
use crate::spool::record::{self, stage_of};
use crate::spool::{
    Attempt, DeliveryId, KnownTicket, MailId, Piece, Shown, ShownDelivery, SpoolError, Stage,
    Summary, TicketCursor,
};

/// All columns of a [`Summary`], what is put in, and where from.
macro_rules! summary_sql {
    ($more:literal, $from:literal) => {
        concat!(
            "SELECT ",
            $crate::spool::search::summary_columns!(),
            $more,
            "FROM ",
            $from
        )
    };
}
pub(super) use summary_sql;

pub(super) fn summary(row: &Row) -> Result<Summary, SpoolError> {
    let outcome: Option<&str> = row.try_get(14)?;
    let stage = stage_of(row.try_get(8)?, outcome)?;
    let waits = stage == Stage::Waiting;
    Ok(Summary {
        delivery: DeliveryId(row.try_get(0)?),
        mail: MailId(row.try_get(1)?),
        received: rows::time(row, 2)?,
        reverse_path: row.try_get(3)?,
        forward_path: row.try_get(4)?,
        bytes: rows::size(row, 5)?,
        team: row.try_get(6)?,
        part: rows::number(row, 7)?,
        stage,
        source: row.try_get(9)?,
        rule: row.try_get(10)?,
        event: row.try_get(11)?,
        external_id: row.try_get(12)?,
        title: row.try_get(13)?,
        reason: row.try_get::<_, Option<String>>(15)?.unwrap_or_default(),
        not_before: waits.then_some(rows::time(row, 16)?),
        settled: row.try_get::<_, Option<i64>>(17)?.map(Time::from_ms),
        attempts: rows::number(row, 18)?,
    })
}

pub(super) async fn seq_of(
    transaction: &Transaction<'_>,
    mail: MailId,
) -> Result<Option<i64>, SpoolError> {
    let sql = "SELECT seq FROM mails WHERE id = $1";
    let found = transaction.query_opt(sql, &[&mail.0]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn show(
    transaction: &Transaction<'_>,
    mail: MailId,
) -> Result<Option<Shown>, SpoolError> {
    let Some(seq) = seq_of(transaction, mail).await? else {
        return Ok(None);
    };
    let deliveries = deliveries(transaction, seq).await?;
    let row = transaction
        .query_one(
            "SELECT received_ms, peer, helo, tls, username, reverse_path, bytes,
                 (SELECT max(message_id) FROM deliveries
                  WHERE id BETWEEN seq << 20 AND (seq << 20) + 1048575)
             FROM mails WHERE seq = $1",
            &[&seq],
        )
        .await?;
    Ok(Some(Shown {
        mail,
        received: rows::time(&row, 0)?,
        peer: row.try_get::<_, &str>(1)?.parse().ok(),
        helo: row.try_get(2)?,
        tls: row.try_get(3)?,
        user: row.try_get(4)?,
        reverse_path: row.try_get(5)?,
        bytes: rows::size(&row, 6)?,
        message_id: row.try_get(7)?,
        deliveries,
    }))
}

async fn deliveries(
    transaction: &Transaction<'_>,
    seq: i64,
) -> Result<Vec<ShownDelivery>, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(seq);
    let sql = summary_sql!(
        " ",
        "deliveries d JOIN mails m ON m.seq = d.id >> 20
         WHERE d.id BETWEEN $1 AND $2 ORDER BY d.team, d.part"
    );
    let mut deliveries = Vec::new();
    for row in transaction.query(sql, &[&first, &last]).await? {
        let summary = summary(&row)?;
        deliveries.push(ShownDelivery {
            decision: decision(transaction, summary.delivery).await?,
            attempts: attempts(transaction, summary.delivery).await?,
            summary,
        });
    }
    Ok(deliveries)
}

async fn decision(
    transaction: &Transaction<'_>,
    delivery: DeliveryId,
) -> Result<Option<Decision>, SpoolError> {
    let sql = "SELECT decision FROM decisions WHERE delivery = $1";
    let Some(row) = transaction.query_opt(sql, &[&delivery.0]).await? else {
        return Ok(None);
    };
    Ok(Some(record::read_decision(row.try_get(0)?)?))
}

async fn attempts(
    transaction: &Transaction<'_>,
    delivery: DeliveryId,
) -> Result<Vec<Attempt>, SpoolError> {
    let sql = "SELECT at_ms, took_ms, transport, result, answer FROM attempts
        WHERE delivery = $1 ORDER BY number";
    let read = |row: &Row| {
        Ok(Attempt {
            at: rows::time(row, 0)?,
            took: std::time::Duration::from_millis(rows::size(row, 1)?),
            transport: row.try_get(2)?,
            result: row.try_get(3)?,
            answer: row.try_get(4)?,
        })
    };
    let found = transaction.query(sql, &[&delivery.0]).await?;
    found.iter().map(read).collect()
}

pub(super) const PIECE: &str = "SELECT p.bytes, m.bytes FROM mails m JOIN bodies b ON b.seq = m.seq
    JOIN pieces p ON p.rest = b.rest AND p.at = $2::bigint - length(b.raw)
    WHERE m.id = $1";

pub(super) async fn piece(
    transaction: &Transaction<'_>,
    mail: MailId,
    at: u64,
) -> Result<Option<Piece>, SpoolError> {
    let found = if at == 0 {
        let sql =
            "SELECT b.raw, m.bytes FROM mails m JOIN bodies b ON b.seq = m.seq WHERE m.id = $1";
        transaction.query_opt(sql, &[&mail.0]).await?
    } else {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let statement = transaction.prepare_cached(PIECE).await?;
        transaction.query_opt(&statement, &[&mail.0, &at]).await?
    };
    let Some(row) = found else {
        return Ok(None);
    };
    Ok(Some(Piece {
        bytes: row.try_get(0)?,
        mail_bytes: rows::size(&row, 1)?,
    }))
}

pub(super) async fn tickets(
    transaction: &Transaction<'_>,
    before: Option<&TicketCursor>,
    limit: usize,
) -> Result<Vec<KnownTicket>, SpoolError> {
    let sql = "SELECT t.team, t.external_id, t.state, t.changed_ms, t.title, t.storm, m.id,
            m.received_ms, c.decision
        FROM tickets t LEFT JOIN mails m ON m.seq = t.opened_by >> 20
            LEFT JOIN decisions c ON c.delivery = t.opened_by
        WHERE t.state <> 'resolved' AND t.changed_ms <= $1
            AND (t.changed_ms, t.team, t.external_id) < ($1, $2, $3)
        ORDER BY t.changed_ms DESC, t.team DESC, t.external_id DESC LIMIT $4";
    let (ms, team, external_id) = match before {
        Some(cursor) => (
            cursor.changed.ms(),
            cursor.team.as_str(),
            cursor.external_id.as_str(),
        ),
        None => (i64::MAX, "", ""),
    };
    let values: &[&(dyn ToSql + Sync)] = &[&ms, &team, &external_id, &rows::count(limit)];
    let mut tickets = Vec::new();
    for row in transaction.query(sql, values).await? {
        let decision: Option<&str> = row.try_get(8)?;
        let decision = decision.map(record::read_decision).transpose()?;
        tickets.push(KnownTicket {
            team: row.try_get(0)?,
            external_id: row.try_get(1)?,
            state: TicketState::parse(row.try_get(2)?).unwrap_or(TicketState::Open),
            changed: rows::time(&row, 3)?,
            title: row.try_get(4)?,
            storm: row.try_get(5)?,
            opened_by: row.try_get::<_, Option<Uuid>>(6)?.map(MailId),
            opened: row.try_get::<_, Option<i64>>(7)?.map(Time::from_ms),
            alert: decision.and_then(|decision| decision.alert),
        });
    }
    Ok(tickets)
}

/// Hops from team to team in the index: a million waiting deliveries are not read.
pub(super) async fn teams(transaction: &Transaction<'_>) -> Result<Vec<String>, SpoolError> {
    let sql = "WITH RECURSIVE t (team) AS (
            (SELECT team FROM deliveries WHERE stage = 2 ORDER BY team LIMIT 1)
            UNION ALL
            SELECT (SELECT d.team FROM deliveries d WHERE d.stage = 2 AND d.team > t.team
                    ORDER BY d.team LIMIT 1)
            FROM t WHERE t.team IS NOT NULL)
        SELECT team FROM t WHERE team IS NOT NULL";
    let found = transaction.query(sql, &[]).await?;
    Ok(found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}
