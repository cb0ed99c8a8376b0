//! Answers to the questions of people that may touch many mails.

use std::collections::BTreeMap;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::{look, rows, tend, trouble};
use crate::clock::Time;
use crate::limits::{COUNT_MAX, SEARCH_MAX};
use crate::message::subject;
use crate::spool::plan::DROPPED;
use crate::spool::search::{self, Conditions, Dialect, HOLDS, MINUTE_MS, SUMMARY_COLUMNS, Value};
use crate::spool::{
    DeliveryId, Filter, Found, FoundDelivery, Glance, MailId, Page, Query, SpoolError, Summary,
};

impl From<Value> for SqlValue {
    fn from(value: Value) -> SqlValue {
        match value {
            Value::Text(text) => SqlValue::Text(text),
            Value::Integer(number) => SqlValue::Integer(number),
            Value::Mail(mail) => SqlValue::Blob(mail.0.as_bytes().to_vec()),
        }
    }
}

/// Lets a connection answer [`search()`].
pub(super) fn teach(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(HOLDS, 2, flags, |context| {
        let text = |at| context.get_raw(at).as_str_or_null();
        let (text, wanted) = (text(0)?, text(1)?.unwrap_or_default());
        Ok(text.is_some_and(|text| text.to_lowercase().contains(wanted)))
    })
}

fn values(conditions: Conditions) -> rusqlite::ParamsFromIter<impl Iterator<Item = SqlValue>> {
    params_from_iter(conditions.values.into_iter().map(SqlValue::from))
}

/// The number above all older mails; of a mail that is not kept any more, too.
fn before(connection: &Connection, mail: Option<MailId>) -> Result<i64, SpoolError> {
    let Some(mail) = mail else {
        return Ok(i64::MAX >> 20);
    };
    let seq = connection
        .prepare_cached(
            "SELECT seq + (id <> ?1) FROM mails WHERE id <= ?1 ORDER BY id DESC LIMIT 1",
        )?
        .query_row([mail.0], |row| row.get(0))
        .optional()?;
    Ok(seq.unwrap_or(0))
}

/// The oldest mail that a scan looks at, when there are older ones.
fn floor(connection: &Connection, before: i64) -> Result<Option<(i64, MailId)>, SpoolError> {
    let floor = connection
        .prepare_cached(
            "SELECT seq, id FROM mails WHERE seq < ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![before, rows::count(SEARCH_MAX) - 1], |row| {
            Ok((row.get(0)?, MailId(row.get(1)?)))
        })
        .optional()?;
    Ok(floor)
}

pub(super) fn search(connection: &Connection, query: &Query) -> Result<Page, SpoolError> {
    let teams = tend::totals(connection)?;
    let before = before(connection, query.filter.before)?;
    let mut page = Page::default();
    for mut way in search::ways(query, &teams, Dialect::Sqlite) {
        let floor = match way.is_scan {
            true => floor(connection, before)?,
            false => None,
        };
        let from = floor.map_or(0, |(seq, _)| seq);
        let sql = search::mails_sql(&mut way, before, from, query.limit);
        let found = mails(connection, &sql, way.conditions)?;
        page = search::page(found, query.limit, floor.map(|(_, mail)| mail));
        if !page.mails.is_empty() {
            break;
        }
    }
    Ok(page)
}

fn mails(
    connection: &Connection,
    sql: &str,
    conditions: Conditions,
) -> Result<Vec<Found>, SpoolError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(values(conditions))?;
    let mut mails = Vec::new();
    while let Some(row) = found.next()? {
        let beginning: Option<Vec<u8>> = row.get(5)?;
        mails.push(Found {
            mail: MailId(row.get(1)?),
            received: Time::from_ms(row.get(2)?),
            reverse_path: row.get(3)?,
            bytes: row.get(4)?,
            subject: beginning.as_deref().and_then(subject::of_beginning),
            deliveries: deliveries(connection, row.get(0)?)?,
        });
    }
    Ok(mails)
}

fn deliveries(connection: &Connection, seq: i64) -> Result<Vec<FoundDelivery>, SpoolError> {
    let sql = look::summary_sql!(
        ", coalesce((SELECT json_extract(c.decision, '$.degraded') FROM decisions c
                     WHERE c.delivery = d.id), 0) ",
        "WHERE d.id BETWEEN ?1 AND ?2 ORDER BY d.team, d.part"
    );
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(DeliveryId::range_of_mail(seq))?;
    let mut deliveries = Vec::new();
    while let Some(row) = found.next()? {
        deliveries.push(FoundDelivery {
            summary: look::summary(row)?,
            is_degraded: row.get(SUMMARY_COLUMNS)?,
        });
    }
    Ok(deliveries)
}

pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Summary>, SpoolError> {
    let mut conditions = Conditions::new(Dialect::Sqlite);
    conditions.filter(filter);
    let first = search::first_delivery(before(connection, filter.before)?);
    conditions.compare("d.id", "<", Value::Integer(first));
    let limit = conditions.value(Value::Integer(rows::count(limit)));
    let sql = format!(
        "{} WHERE {} ORDER BY d.id DESC LIMIT {limit}",
        look::summary_sql!(" ", ""),
        conditions.sql()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(values(conditions))?;
    let mut summaries = Vec::new();
    while let Some(row) = found.next()? {
        summaries.push(look::summary(row)?);
    }
    Ok(summaries)
}

pub(super) fn glance(connection: &Connection, now: Time) -> Result<Glance, SpoolError> {
    let of_deliveries =
        |condition: &str| count(connection, &format!("deliveries WHERE {condition}"));
    let (minutes, is_cut_off) = minutes(connection, now)?;
    Ok(Glance {
        teams: tend::totals(connection)?,
        accepted: of_deliveries("stage = 0")?,
        behind: of_deliveries("stage = 1 AND external_id IS NOT NULL")?,
        waiting: of_deliveries("stage = 2")?,
        sending: of_deliveries("stage = 3")?,
        dead_letters: of_deliveries(&format!(
            "outcome = 'dead-letter' AND reason <> '{DROPPED}'"
        ))?,
        open_tickets: count(connection, "tickets WHERE state <> 'resolved'")?,
        overdue: trouble::overdue(connection, now)?,
        minutes,
        is_cut_off,
    })
}

fn count(connection: &Connection, from: &str) -> Result<u64, SpoolError> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {from} LIMIT {COUNT_MAX})");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row((), |row| row.get(0))?)
}

fn minutes(connection: &Connection, now: Time) -> Result<(Vec<search::Minute>, bool), SpoolError> {
    let bounds = search::bounds(now);
    // Ids of one millisecond are in no order.
    let mut first = connection.prepare_cached(
        "SELECT min(seq) FROM (SELECT seq FROM mails WHERE id >= ?1 ORDER BY id LIMIT 16)",
    )?;
    let firsts = bounds
        .iter()
        .map(|bound| first.query_row([MailId::first_at(*bound).0], |row| row.get(0)))
        .collect::<Result<Vec<Option<i64>>, _>>()?;
    let end: i64 = connection
        .prepare_cached("SELECT coalesce(max(seq), 0) + 1 FROM mails")?
        .query_row((), |row| row.get(0))?;
    let from_ms = bounds.first().map_or(0, |bound| bound.ms());
    let floor = floor(connection, end)?;
    let oldest = search::first_delivery(floor.map_or(0, |(seq, _)| seq));
    let mut statement = connection.prepare_cached(
        "SELECT (settled_ms - ?1) / ?2, count(*) FROM deliveries
         WHERE id >= ?3 AND settled_ms >= ?1
             AND outcome IN ('alerted', 'acknowledged', 'resolved', 'relayed')
         GROUP BY 1",
    )?;
    let alerts = statement
        .query_map([from_ms, MINUTE_MS, oldest], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<BTreeMap<i64, u64>, _>>()?;
    // Older mails than the last hour's may have been looked at, and all of the last hour's were.
    let is_cut_off = floor.is_some_and(|(_, mail)| mail >= MailId::first_at(bounds_start(&bounds)));
    Ok((search::minutes(&firsts, end, alerts), is_cut_off))
}

fn bounds_start(bounds: &[Time]) -> Time {
    bounds.first().copied().unwrap_or(Time::from_ms(0))
}
