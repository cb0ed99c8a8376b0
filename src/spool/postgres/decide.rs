//! Decisions come in. Several nodes read mails at the same time; what they made of them takes its
//! place in the order of arrival, whoever has read it.
//!
//! A reading is stored at once. Under one lock for all nodes, those before which nothing is unread
//! are then decided. A mail that another node is still reading keeps those behind it waiting, until it
//! has been read or that node's time is over. What the store refuses is a dead letter in its place.

use std::slice;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::known;
use super::rows::{self, delivery, query, read_delivery};
use super::write;
use crate::clock::Time;
use crate::limits::{PLACED_AT_ONCE, TICKETS_LOCKED_MAX};
use crate::spool::plan::{self, Delivery, Known};
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

/// What one transaction has done.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) effects: Effects,
    /// There may be more that can be placed.
    pub(super) has_more: bool,
    /// One was refused, and is a dead letter instead.
    pub(super) has_buried: bool,
}

/// Stores readings, and places what can be placed, whoever has read it.
pub(super) async fn together(
    transaction: &Transaction<'_>,
    deciding: &Deciding,
    node: Uuid,
    now: Time,
) -> Result<Step, SpoolError> {
    // Sent in this order without waiting in between.
    let (_, (), (placeable, has_more)) = tokio::try_join!(
        biased;
        query(transaction, LOCK, &[]),
        store(transaction, &deciding.decided, node),
        placeable(transaction, PLACED_AT_ONCE),
    )?;
    Ok(Step {
        effects: place(transaction, placeable, deciding, node, now).await?,
        has_more,
        has_buried: false,
    })
}

/// Stores readings of which the store has refused some.
pub(super) async fn store_each(
    transaction: &Transaction<'_>,
    decided: &[Decided],
    node: Uuid,
) -> Result<Step, SpoolError> {
    let mut step = Step {
        has_more: true,
        ..Step::default()
    };
    for one in decided {
        let stored = store(transaction, slice::from_ref(one), node);
        if let Err(reason) = unless_refused(transaction, stored).await? {
            store(transaction, &[one.buried(&reason)], node).await?;
            step.has_buried = true;
        }
    }
    Ok(step)
}

/// Places the first that can be placed: as a dead letter when it is refused.
pub(super) async fn place_first(
    transaction: &Transaction<'_>,
    deciding: &Deciding,
    node: Uuid,
    now: Time,
) -> Result<Step, SpoolError> {
    query(transaction, LOCK, &[]).await?;
    let (first, _) = placeable(transaction, 1).await?;
    let Some((delivery, one)) = first.first().cloned() else {
        return Ok(Step::default());
    };
    let placed = place(transaction, first, deciding, node, now);
    let (effects, has_buried) = match unless_refused(transaction, placed).await? {
        Ok(effects) => (effects, false),
        Err(reason) => {
            let dead = vec![(delivery, one.buried(&reason))];
            (place(transaction, dead, deciding, node, now).await?, true)
        }
    };
    Ok(Step {
        effects,
        has_more: true,
        has_buried,
    })
}

/// What is refused leaves nothing behind, and the transaction goes on.
async fn unless_refused<T>(
    transaction: &Transaction<'_>,
    work: impl Future<Output = Result<T, SpoolError>>,
) -> Result<Result<T, String>, SpoolError> {
    transaction.batch_execute("SAVEPOINT before").await?;
    match work.await {
        Err(SpoolError::Refused(reason)) => {
            let back = "ROLLBACK TO SAVEPOINT before";
            transaction.batch_execute(back).await?;
            Ok(Err(reason))
        }
        result => result.map(Ok),
    }
}

async fn store(
    transaction: &Transaction<'_>,
    decided: &[Decided],
    node: Uuid,
) -> Result<(), SpoolError> {
    let mut ids: Vec<i64> = Vec::new();
    let mut readings: Vec<String> = Vec::new();
    let mut message_ids: Vec<Option<&str>> = Vec::new();
    for one in decided {
        ids.push(one.delivery.0);
        readings.push(record::write_reading(&one.reading)?);
        message_ids.push(one.message_id.as_deref());
    }
    let values: &[&(dyn ToSql + Sync)] = &[&ids, &readings, &message_ids, &node];
    query(transaction, STORE_READINGS, values).await?;
    Ok(())
}

/// Also whether there may be more of them. Whoever asks holds the lock.
async fn placeable(
    transaction: &Transaction<'_>,
    most: usize,
) -> Result<(Vec<(Delivery, Decided)>, bool), SpoolError> {
    let found = query(transaction, PLACEABLE, &[&rows::count(most)]).await?;
    let mut placeable = Vec::with_capacity(found.len());
    let mut tickets = 0;
    for row in &found {
        let delivery = read_delivery(row)?;
        let reading: &str = row.try_get(18)?;
        let reading = record::read_reading(reading).unwrap_or_else(unreadable);
        if let Reading::Decisions(decisions) = &reading {
            tickets += decisions.len();
        }
        if tickets > TICKETS_LOCKED_MAX && !placeable.is_empty() {
            break;
        }
        let decided = Decided {
            delivery: delivery.id,
            message_id: row.try_get(19)?,
            reading,
        };
        placeable.push((delivery, decided));
    }
    let has_more = placeable.len() < found.len() || found.len() == most;
    Ok((placeable, has_more))
}

async fn place(
    transaction: &Transaction<'_>,
    placeable: Vec<(Delivery, Decided)>,
    deciding: &Deciding,
    node: Uuid,
    now: Time,
) -> Result<Effects, SpoolError> {
    let mut known = Known::default();
    let mut decided = Vec::with_capacity(placeable.len());
    for (delivery, one) in placeable {
        known.deliveries.insert(delivery.id, delivery);
        decided.push(one);
    }
    let storm = deciding.storm.as_ref();
    let known = known::of_decided(transaction, known, &decided, storm).await?;
    let may_start = (deciding.asks.as_slice(), deciding.budget);
    let changes = plan::decide(known, &decided, storm, may_start, now)?;
    write::write(transaction, changes, node, now).await
}

/// Written by another version of the program: it concerns one mail, and must not stop the others.
fn unreadable(error: RecordError) -> Reading {
    Reading::DeadLetter(error.to_string())
}
