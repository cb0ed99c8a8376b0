//! Decisions come in. Several nodes read mails at the same time; what they made of them takes its
//! place in the order of arrival, whoever has read it.
//!
//! A reading is stored at once. Under one lock for all nodes, those before which nothing is unread
//! are then decided. A mail that another node is still reading keeps those behind it waiting, until it
//! has been read or that node's time is over.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::known;
use super::rows::{self, delivery, query, read_delivery};
use super::write;
use crate::clock::Time;
use crate::limits::{PLACED_AT_ONCE, TICKETS_LOCKED_MAX};
use crate::spool::plan::{self, Known};
use crate::spool::record::{self, RecordError};
use crate::spool::{Decided, Deciding, Effects, Reading, SpoolError};

/// Held by the node that lets readings take their place.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('mailbell.place'), 0)";

pub(super) const STORE_READINGS: &str = "UPDATE deliveries d
    SET reading = x.reading, message_id = x.message_id
    FROM unnest($1::bigint[], $2::text[], $3::text[]) AS x (id, reading, message_id)
    WHERE d.id = x.id AND d.stage = 0 AND d.node = $4";

pub(super) const PLACEABLE: &str = delivery!(
    ", d.reading, d.message_id
     FROM deliveries d JOIN mails m ON m.seq = d.id >> 20
     WHERE d.stage = 0 AND d.reading IS NOT NULL AND d.id < coalesce(
         (SELECT min(u.id) FROM deliveries u WHERE u.stage = 0 AND u.reading IS NULL),
         9223372036854775807)
     ORDER BY d.id LIMIT $1 FOR UPDATE OF d"
);

/// Also whether there may be more that can be placed.
pub(super) async fn decide(
    transaction: &Transaction<'_>,
    deciding: &Deciding,
    node: Uuid,
    now: Time,
) -> Result<(Effects, bool), SpoolError> {
    let mut ids: Vec<i64> = Vec::new();
    let mut readings: Vec<String> = Vec::new();
    let mut message_ids: Vec<Option<&str>> = Vec::new();
    for one in deciding.decided.iter() {
        ids.push(one.delivery.0);
        readings.push(record::write_reading(&one.reading)?);
        message_ids.push(one.message_id.as_deref());
    }
    let most = rows::count(PLACED_AT_ONCE);
    // Sent in this order without waiting in between.
    let (_, _, found) = tokio::try_join!(
        biased;
        async { query(transaction, LOCK, &[]).await },
        async {
            let values: &[&(dyn ToSql + Sync)] = &[&ids, &readings, &message_ids, &node];
            query(transaction, STORE_READINGS, values).await
        },
        async { query(transaction, PLACEABLE, &[&most]).await },
    )?;
    let mut known = Known::default();
    let mut decided = Vec::with_capacity(found.len());
    let mut tickets = 0;
    for row in &found {
        let delivery = read_delivery(row)?;
        let reading: &str = row.try_get(18)?;
        let reading = record::read_reading(reading).unwrap_or_else(unreadable);
        if let Reading::Decisions(decisions) = &reading {
            tickets += decisions.len();
        }
        if tickets > TICKETS_LOCKED_MAX && !decided.is_empty() {
            break;
        }
        decided.push(Decided {
            delivery: delivery.id,
            message_id: row.try_get(19)?,
            reading,
        });
        known.deliveries.insert(delivery.id, delivery);
    }
    let has_more = decided.len() < found.len() || found.len() == PLACED_AT_ONCE;
    let storm = deciding.storm.as_ref();
    let known = known::of_decided(transaction, known, &decided, storm).await?;
    let may_start = (deciding.asks.as_slice(), deciding.budget);
    let changes = plan::decide(known, &decided, storm, may_start, now)?;
    let effects = write::write(transaction, changes, node, now).await?;
    Ok((effects, has_more))
}

/// Written by another version of the program: it concerns one mail, and must not stop the others.
fn unreadable(error: RecordError) -> Reading {
    Reading::DeadLetter(error.to_string())
}
