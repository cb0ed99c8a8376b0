//! Deliveries whose turn and time have come.

use std::collections::HashSet;
use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::known::{self, TRY_LOCK};
use super::rows::{self, delivery, query};
use super::write;
use crate::clock::{Time, whole_ms};
use crate::deliver::schedule::URGENCIES;
use crate::limits::{HURRIED_MAX, LEASE_COLLISION_PAUSE, LEASE_ROUNDS_MAX, TICKETS_LOCKED_MAX};
use crate::spool::plan::{self, Candidate, Depth, Slots, TicketId};
use crate::spool::{Ask, Budget, DeliveryId, Effects, SpoolError};

/// The due deliveries of each team, by urgency, that no other node is about to take.
pub(super) const DUE: &str = delivery!(
    ", d.urgency, c.decision, d.progress
     FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (team, slots, since_ms)
     CROSS JOIN generate_series(0, $4::int) AS u (urgency)
     CROSS JOIN LATERAL (
         SELECT * FROM deliveries w
         WHERE w.stage = 2 AND w.team = a.team AND w.urgency = u.urgency AND w.not_before_ms <= $5
             AND w.since_ms <= a.since_ms
         ORDER BY w.not_before_ms, w.id LIMIT a.slots FOR UPDATE SKIP LOCKED) AS d
     JOIN mails m ON m.seq = d.id >> 20
     LEFT JOIN decisions c ON c.delivery = d.id"
);

pub(super) const NEXT_DUE: &str = "SELECT min(d.not_before_ms)
    FROM unnest($1::text[]) AS a (team)
    CROSS JOIN generate_series(0, $2::int) AS u (urgency)
    CROSS JOIN LATERAL (
        SELECT w.not_before_ms FROM deliveries w
        WHERE w.stage = 2 AND w.team = a.team AND w.urgency = u.urgency AND w.not_before_ms > $3
        ORDER BY w.not_before_ms LIMIT 1) AS d";

pub(super) const HURRY: &str = "UPDATE deliveries SET not_before_ms = $3 WHERE id IN (
    SELECT d.id FROM generate_series(0, $4::int) AS u (urgency)
    CROSS JOIN LATERAL (
        SELECT w.id FROM deliveries w
        WHERE w.stage = 2 AND w.team = $1 AND w.urgency = u.urgency AND w.not_before_ms > $3
            AND w.progress IS NOT NULL
        ORDER BY w.not_before_ms LIMIT $2 FOR UPDATE SKIP LOCKED) AS d)";

/// What was being sent by a node that is gone may have arrived. It is sent again: the other side
/// folds it by idempotency key and external id.
pub(super) const TAKE_OVER: &str = "UPDATE deliveries d
    SET stage = 2, node = NULL, maybe_paged = true
    WHERE d.stage = 3 AND NOT EXISTS (
        SELECT 1 FROM nodes n WHERE n.node = d.node AND n.expires > now())";

fn last_urgency() -> i32 {
    i32::from(URGENCIES) - 1
}

pub(super) async fn reclaim(
    transaction: &Transaction<'_>,
    carried: &[(DeliveryId, u32)],
    node: Uuid,
) -> Result<usize, SpoolError> {
    let ids: Vec<i64> = carried.iter().map(|(id, _)| id.0).collect();
    let leases = carried.iter().map(|(_, lease)| i64::from(*lease));
    let leases: Vec<i64> = leases.collect();
    let sql = "UPDATE deliveries d SET stage = 2, node = NULL
        WHERE d.stage = 3 AND d.node = $1 AND NOT EXISTS (
            SELECT 1 FROM unnest($2::bigint[], $3::bigint[]) AS c (id, lease)
            WHERE c.id = d.id AND c.lease = d.leases)";
    let reclaimed = transaction.execute(sql, &[&node, &ids, &leases]).await?;
    Ok(usize::try_from(reclaimed).unwrap_or(usize::MAX))
}

pub(super) async fn lease(
    transaction: &Transaction<'_>,
    asks: &[Ask],
    budget: Budget,
    node: Uuid,
    now: Time,
) -> Result<Effects, SpoolError> {
    let mut slots = Slots::new(asks, budget);
    let mut effects = Effects::default();
    for round in 0.. {
        if round == LEASE_ROUNDS_MAX {
            // Long runs of repeats end in several leases, so that no transaction lasts long.
            effects.due = Some(now);
            return Ok(effects);
        }
        let (candidates, all_locked) = candidates(transaction, asks, &slots, now).await?;
        let deliveries = candidates.iter().map(|one| one.delivery.clone()).collect();
        let known = known::of_moved(transaction, deliveries, Depth::First).await?;
        let changes = plan::lease(known, candidates, &mut slots, now)?;
        let step = write::write(transaction, changes, node, now).await?;
        effects.leased.extend(step.leased);
        let has_ended_any = !step.settled.is_empty();
        effects.settled.extend(step.settled);
        if !all_locked {
            // Somebody is just changing some of the tickets, or they are many.
            effects.due = Some(now.plus(LEASE_COLLISION_PAUSE));
            return Ok(effects);
        }
        if !has_ended_any {
            break;
        }
    }
    let teams: Vec<&str> = asks
        .iter()
        .filter(|ask| slots.left(&ask.team) > 0)
        .map(|ask| ask.team.as_str())
        .collect();
    for row in query(transaction, NEXT_DUE, &[&teams, &last_urgency(), &now.ms()]).await? {
        effects.due = row.try_get::<_, Option<i64>>(0)?.map(Time::from_ms);
    }
    Ok(effects)
}

/// The most urgent, with the locks of their tickets; and whether all could be had.
async fn candidates(
    transaction: &Transaction<'_>,
    asks: &[Ask],
    slots: &Slots,
    now: Time,
) -> Result<(Vec<Candidate>, bool), SpoolError> {
    let teams: Vec<&str> = asks.iter().map(|ask| ask.team.as_str()).collect();
    let left: Vec<i64> = asks
        .iter()
        .map(|ask| rows::count(slots.left(&ask.team)))
        .collect();
    let since = |ask: &Ask| ask.since_before.map_or(i64::MAX, Time::ms);
    let since: Vec<i64> = asks.iter().map(since).collect();
    let values: &[&(dyn ToSql + Sync)] = &[&teams, &left, &since, &last_urgency(), &now.ms()];
    let found = query(transaction, DUE, values).await?;
    let mut candidates = Vec::with_capacity(found.len());
    for (delivery, (urgency, decision, progress)) in known::with_more(&found, |row| {
        Ok((
            row.try_get::<_, i16>(18)?,
            row.try_get(19)?,
            row.try_get(20)?,
        ))
    })? {
        candidates.push(Candidate {
            delivery,
            urgency: u8::try_from(urgency).unwrap_or(u8::MAX),
            decision,
            progress,
        });
    }
    let all = candidates.len();
    plan::most_urgent_first(&mut candidates);
    candidates.truncate(TICKETS_LOCKED_MAX);
    let tickets: Vec<TicketId> = plan::tickets(candidates.iter().map(|one| &one.delivery))
        .into_iter()
        .collect();
    let free = try_lock(transaction, &tickets).await?;
    candidates.retain(|one| one.delivery.ticket_id().is_none_or(|id| free.contains(&id)));
    let all_locked = candidates.len() == all;
    Ok((candidates, all_locked))
}

async fn try_lock(
    transaction: &Transaction<'_>,
    tickets: &[TicketId],
) -> Result<HashSet<TicketId>, SpoolError> {
    if tickets.is_empty() {
        return Ok(HashSet::new());
    }
    let (teams, ids) = rows::columns(tickets);
    let found = query(transaction, TRY_LOCK, &[&teams, &ids]).await?;
    let mut free = HashSet::new();
    for (row, ticket) in found.iter().zip(tickets) {
        if row.try_get(0)? {
            free.insert(ticket.clone());
        }
    }
    Ok(free)
}

pub(super) async fn hurry(
    transaction: &Transaction<'_>,
    team: &str,
    now: Time,
) -> Result<(), SpoolError> {
    let limit = rows::count(HURRIED_MAX);
    transaction
        .execute(HURRY, &[&team, &limit, &now.ms(), &last_urgency()])
        .await?;
    Ok(())
}

pub(super) async fn set_back(
    transaction: &Transaction<'_>,
    by: Duration,
    now: Time,
) -> Result<(), SpoolError> {
    let by = whole_ms(by);
    // One statement for each index that knows what waits.
    for waits in ["stage = 2", "stage = 1 AND external_id IS NOT NULL"] {
        let sql = format!(
            "UPDATE deliveries SET not_before_ms = greatest(not_before_ms - $1, $2)
             WHERE {waits} AND not_before_ms > $2"
        );
        transaction.execute(&sql, &[&by, &now.ms()]).await?;
    }
    Ok(())
}
