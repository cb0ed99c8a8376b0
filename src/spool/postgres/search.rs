//! Answers to the questions of people that may touch many mails.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{look, rows, tend, trouble};
use crate::clock::Time;
use crate::limits::{COUNT_MAX, SEARCH_MAX};
use crate::message::subject;
use crate::spool::plan::DROPPED;
use crate::spool::search::{self, Conditions, Dialect, MINUTE_MS, Minute, SUMMARY_COLUMNS, Value};
use crate::spool::{
    Filter, Found, FoundDelivery, Glance, MailId, Page, Query, SpoolError, Summary,
};

/// The values of placeholders, as the driver takes them.
struct Values(Vec<Box<dyn ToSql + Sync + Send>>);

impl Values {
    fn of(conditions: Conditions) -> Values {
        let boxed = |value: Value| -> Box<dyn ToSql + Sync + Send> {
            match value {
                Value::Text(text) => Box::new(text),
                Value::Integer(number) => Box::new(number),
                Value::Mail(mail) => Box::new(mail.0),
            }
        };
        Values(conditions.values.into_iter().map(boxed).collect())
    }

    fn all(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|value| &**value as _).collect()
    }
}

/// The number above all older mails; of a mail that is not kept any more, too.
async fn before(transaction: &Transaction<'_>, mail: Option<MailId>) -> Result<i64, SpoolError> {
    let Some(mail) = mail else {
        return Ok(i64::MAX >> 20);
    };
    let sql = "SELECT seq + CASE WHEN id = $1 THEN 0 ELSE 1 END FROM mails WHERE id <= $1
        ORDER BY id DESC LIMIT 1";
    let found = transaction.query_opt(sql, &[&mail.0]).await?;
    found.map_or(Ok(0), |row| Ok(row.try_get(0)?))
}

/// The oldest mail that a scan looks at, when there are older ones.
async fn floor(
    transaction: &Transaction<'_>,
    before: i64,
) -> Result<Option<(i64, MailId)>, SpoolError> {
    let sql = "SELECT seq, id FROM mails WHERE seq < $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
    let skipped = rows::count(SEARCH_MAX) - 1;
    let found = transaction.query_opt(sql, &[&before, &skipped]).await?;
    found
        .map(|row| Ok((row.try_get(0)?, MailId(row.try_get(1)?))))
        .transpose()
}

pub(super) async fn search(
    transaction: &Transaction<'_>,
    query: &Query,
) -> Result<Page, SpoolError> {
    let teams = tend::totals(transaction).await?;
    let before = before(transaction, query.filter.before).await?;
    let mut page = Page::default();
    for mut way in search::ways(query, &teams, Dialect::Postgres) {
        let floor = match way.is_scan {
            true => floor(transaction, before).await?,
            false => None,
        };
        let from = floor.map_or(0, |(seq, _)| seq);
        let sql = search::mails_sql(&mut way, before, from, query.limit);
        let found = mails(transaction, &sql, way.conditions).await?;
        page = search::page(found, query.limit, floor.map(|(_, mail)| mail));
        if !page.mails.is_empty() {
            break;
        }
    }
    Ok(page)
}

async fn mails(
    transaction: &Transaction<'_>,
    sql: &str,
    conditions: Conditions,
) -> Result<Vec<Found>, SpoolError> {
    let found = transaction
        .query(sql, &Values::of(conditions).all())
        .await?;
    let mut seqs: Vec<i64> = Vec::new();
    let mut mails: Vec<Found> = Vec::new();
    for row in &found {
        let beginning: Option<&[u8]> = row.try_get(5)?;
        seqs.push(row.try_get(0)?);
        mails.push(Found {
            mail: MailId(row.try_get(1)?),
            received: rows::time(row, 2)?,
            reverse_path: row.try_get(3)?,
            bytes: rows::size(row, 4)?,
            subject: beginning.and_then(subject::of_beginning),
            deliveries: Vec::new(),
        });
    }
    let mut deliveries = deliveries(transaction, &seqs).await?;
    for (seq, found) in seqs.iter().zip(&mut mails) {
        found.deliveries = deliveries.remove(seq).unwrap_or_default();
    }
    Ok(mails)
}

async fn deliveries(
    transaction: &Transaction<'_>,
    seqs: &[i64],
) -> Result<BTreeMap<i64, Vec<FoundDelivery>>, SpoolError> {
    let sql = look::summary_sql!(
        ", coalesce((SELECT (c.decision::json ->> 'degraded')::boolean FROM decisions c
                     WHERE c.delivery = d.id), false) ",
        "mails m JOIN deliveries d ON d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575
         WHERE m.seq = ANY($1) ORDER BY d.team, d.part"
    );
    let mut deliveries: BTreeMap<i64, Vec<FoundDelivery>> = BTreeMap::new();
    for row in transaction.query(sql, &[&seqs]).await? {
        let summary = look::summary(&row)?;
        let of_mail = deliveries.entry(summary.delivery.seq()).or_default();
        of_mail.push(FoundDelivery {
            summary,
            is_degraded: row.try_get(SUMMARY_COLUMNS)?,
        });
    }
    Ok(deliveries)
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Summary>, SpoolError> {
    let mut conditions = Conditions::new(Dialect::Postgres);
    conditions.filter(filter);
    let first = search::first_delivery(before(transaction, filter.before).await?);
    conditions.compare("d.id", "<", Value::Integer(first));
    let limit = conditions.value(Value::Integer(rows::count(limit)));
    let sql = format!(
        "{} WHERE {} ORDER BY d.id DESC LIMIT {limit}",
        look::summary_sql!(" ", "deliveries d JOIN mails m ON m.seq = d.id >> 20"),
        conditions.sql()
    );
    let found = transaction
        .query(&sql, &Values::of(conditions).all())
        .await?;
    found.iter().map(look::summary).collect()
}

pub(super) async fn glance(transaction: &Transaction<'_>, now: Time) -> Result<Glance, SpoolError> {
    // Partial indexes hold each of them; the two of stage 0 share none.
    let undecided = "(SELECT 1 FROM deliveries WHERE stage = 0 AND reading IS NULL
        UNION ALL SELECT 1 FROM deliveries WHERE stage = 0 AND reading IS NOT NULL) x";
    let dead = format!("deliveries WHERE outcome = 'dead-letter' AND reason <> '{DROPPED}'");
    let behind = "deliveries WHERE stage = 1 AND external_id IS NOT NULL";
    let (minutes, is_cut_off) = minutes(transaction, now).await?;
    Ok(Glance {
        teams: tend::totals(transaction).await?,
        accepted: count(transaction, undecided).await?,
        behind: count(transaction, behind).await?,
        waiting: count(transaction, "deliveries WHERE stage = 2").await?,
        sending: count(transaction, "deliveries WHERE stage = 3").await?,
        dead_letters: count(transaction, &dead).await?,
        open_tickets: count(transaction, "tickets WHERE state <> 'resolved'").await?,
        overdue: trouble::overdue(transaction, now).await?,
        minutes,
        is_cut_off,
    })
}

async fn count(transaction: &Transaction<'_>, from: &str) -> Result<u64, SpoolError> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {from} LIMIT {COUNT_MAX}) n");
    rows::size(&transaction.query_one(&sql, &[]).await?, 0)
}

async fn minutes(
    transaction: &Transaction<'_>,
    now: Time,
) -> Result<(Vec<Minute>, bool), SpoolError> {
    let bounds = search::bounds(now);
    let ids: Vec<Uuid> = bounds
        .iter()
        .map(|bound| MailId::first_at(*bound).0)
        .collect();
    // Ids of one millisecond are in no order.
    let sql = "SELECT (SELECT min(f.seq) FROM (
            SELECT m.seq FROM mails m WHERE m.id >= b.id ORDER BY m.id LIMIT 16) f)
        FROM unnest($1::uuid[]) WITH ORDINALITY AS b (id, n) ORDER BY b.n";
    let found = transaction.query(sql, &[&ids]).await?;
    let firsts = found
        .iter()
        .map(|row| Ok(row.try_get(0)?))
        .collect::<Result<Vec<Option<i64>>, SpoolError>>()?;
    let sql = "SELECT coalesce(max(seq), 0) + 1 FROM mails";
    let end: i64 = transaction.query_one(sql, &[]).await?.try_get(0)?;
    let floor = floor(transaction, end).await?;
    let from = bounds.first().copied().unwrap_or(now);
    let oldest = search::first_delivery(floor.map_or(0, |(seq, _)| seq));
    let sql = "SELECT (settled_ms - $1) / $2, count(*) FROM deliveries
        WHERE id >= $3 AND settled_ms >= $1
            AND outcome IN ('alerted', 'acknowledged', 'resolved', 'relayed')
        GROUP BY 1";
    let found = transaction
        .query(sql, &[&from.ms(), &MINUTE_MS, &oldest])
        .await?;
    let alerts = found
        .iter()
        .map(|row| Ok((row.try_get(0)?, rows::size(row, 1)?)))
        .collect::<Result<Vec<(i64, u64)>, SpoolError>>()?;
    let is_cut_off = floor.is_some_and(|(_, mail)| mail >= MailId::first_at(from));
    Ok((search::minutes(&firsts, end, alerts), is_cut_off))
}
