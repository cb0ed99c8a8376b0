//! Rows and words of the tables, as every part of the store reads them.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::alert::Status;
use crate::clock::Time;
use crate::spool::plan::{Delivery, TicketId};
use crate::spool::record::{RecordError, stage_of};
use crate::spool::{DeliveryId, MailId, SpoolError};

/// All columns that a [`Delivery`] has, then what is put in.
macro_rules! delivery {
    ($more:literal) => {
        concat!(
            "SELECT d.id, m.id, m.received_ms, d.team, d.forward_path, d.part, d.stage, d.outcome,
             d.status, d.external_id, d.title, d.escalate, d.since_ms, d.not_before_ms,
             d.maybe_paged, d.attempts, d.is_summary, d.leases ",
            $more
        )
    };
}
pub(super) use delivery;

/// Runs one of the prepared statements, or one that is prepared now.
pub(super) async fn query(
    transaction: &Transaction<'_>,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, SpoolError> {
    let statement = transaction.prepare_cached(sql).await?;
    Ok(transaction.query(&statement, values).await?)
}

/// A count as PostgreSQL stores it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn read_delivery(row: &Row) -> Result<Delivery, SpoolError> {
    let outcome: Option<&str> = row.try_get(7)?;
    Ok(Delivery {
        id: DeliveryId(row.try_get(0)?),
        mail: MailId(row.try_get(1)?),
        received: time(row, 2)?,
        team: row.try_get(3)?,
        forward_path: row.try_get(4)?,
        part: number(row, 5)?,
        stage: stage_of(row.try_get(6)?, outcome)?,
        status: status(row.try_get(8)?)?,
        external_id: row.try_get(9)?,
        title: row.try_get(10)?,
        escalate: row.try_get(11)?,
        since: time(row, 12)?,
        not_before: time(row, 13)?,
        maybe_paged: row.try_get(14)?,
        attempts: number(row, 15)?,
        is_summary: row.try_get(16)?,
        leases: number(row, 17)?,
    })
}

pub(super) fn read_deliveries(rows: &[Row]) -> Result<Vec<Delivery>, SpoolError> {
    rows.iter().map(read_delivery).collect()
}

pub(super) fn status(word: Option<&str>) -> Result<Option<Status>, SpoolError> {
    let parse = |word: &str| Status::parse(word).ok_or_else(|| RecordError::Word(word.to_owned()));
    Ok(word.map(parse).transpose()?)
}

pub(super) fn time(row: &Row, column: usize) -> Result<Time, SpoolError> {
    Ok(Time::from_ms(row.try_get(column)?))
}

/// An `integer` that is never negative.
pub(super) fn number(row: &Row, column: usize) -> Result<u32, SpoolError> {
    Ok(u32::try_from(row.try_get::<_, i32>(column)?).unwrap_or(0))
}

/// A `bigint` that is never negative.
pub(super) fn size(row: &Row, column: usize) -> Result<u64, SpoolError> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(0))
}

/// Tickets as the two arrays that statements take.
pub(super) fn columns<'t>(
    tickets: impl IntoIterator<Item = &'t TicketId>,
) -> (Vec<&'t str>, Vec<&'t str>) {
    tickets
        .into_iter()
        .map(|ticket| (ticket.team.as_str(), ticket.external_id.as_str()))
        .unzip()
}
