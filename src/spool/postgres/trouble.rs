//! What somebody has to be told about the store itself.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;

use super::rows;
use crate::alert::ExternalId;
use crate::clock::Time;
use crate::deliver::schedule::URGENCIES;
use crate::limits::LATE_LOOKED_AT;
use crate::spool::plan::DROPPED;
use crate::spool::{DeadLettersOf, MailId, SpoolError, search};

pub(super) async fn dead_letters(
    transaction: &Transaction<'_>,
    except_source: &str,
) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError> {
    let sql = "SELECT n.team, n.count, m.id, d.reason, n.ended
        FROM (SELECT team, count(*), max(id) AS newest, max(settled_ms) AS ended FROM deliveries
              WHERE outcome = 'dead-letter' AND reason <> $1 AND source IS DISTINCT FROM $2
              GROUP BY team) AS n
        JOIN deliveries d ON d.id = n.newest JOIN mails m ON m.seq = d.id >> 20";
    let mut of_teams = BTreeMap::new();
    for row in transaction.query(sql, &[&DROPPED, &except_source]).await? {
        let letters = DeadLettersOf {
            count: rows::size(&row, 1)?,
            newest: MailId(row.try_get(2)?),
            reason: row.try_get(3)?,
            ended: Time::from_ms(row.try_get(4)?),
        };
        of_teams.insert(row.try_get(0)?, letters);
    }
    Ok(of_teams)
}

pub(super) async fn overdue(
    transaction: &Transaction<'_>,
    now: Time,
) -> Result<BTreeMap<String, Time>, SpoolError> {
    let sql = "SELECT l.team, min(coalesce(
            (d.progress::json -> 0 ->> 'first_failed_ms')::bigint, d.not_before_ms))
        FROM (SELECT DISTINCT team FROM ledger) AS l
        CROSS JOIN generate_series(0, $1::int) AS u (urgency)
        CROSS JOIN LATERAL (
            SELECT w.progress, w.not_before_ms FROM deliveries w
            WHERE w.stage = 2 AND w.team = l.team AND w.urgency = u.urgency
            ORDER BY w.not_before_ms LIMIT $3) AS d
        WHERE d.progress IS NOT NULL OR d.not_before_ms <= $2
        GROUP BY l.team";
    // Read or not; each half has an index.
    let undecided = "SELECT d.team, m.received_ms FROM deliveries d
        JOIN mails m ON m.seq = d.id >> 20
        WHERE d.id = least(
            (SELECT min(id) FROM deliveries WHERE stage = 0 AND reading IS NULL),
            (SELECT min(id) FROM deliveries WHERE stage = 0 AND reading IS NOT NULL))";
    let last_urgency = i32::from(URGENCIES) - 1;
    let looked_at = rows::count(LATE_LOOKED_AT);
    let due = transaction
        .query(sql, &[&last_urgency, &now.ms(), &looked_at])
        .await?;
    let undecided = transaction.query(undecided, &[]).await?;
    let mut overdue: BTreeMap<String, Time> = BTreeMap::new();
    for row in due.iter().chain(&undecided) {
        let since = rows::time(row, 1)?;
        let entry = overdue.entry(row.try_get(0)?).or_insert(since);
        *entry = since.min(*entry);
    }
    Ok(overdue)
}

pub(super) async fn open_with_prefix(
    transaction: &Transaction<'_>,
    prefix: &str,
) -> Result<BTreeSet<(String, ExternalId)>, SpoolError> {
    // By team, so that each is a range of an index; teams are few, and all are in the ledger.
    let sql = "WITH l AS (SELECT DISTINCT team FROM ledger)
        SELECT t.team, t.external_id FROM l JOIN tickets t ON t.team = l.team
            AND t.external_id >= $1 AND t.external_id < $2
        WHERE t.state <> 'resolved'
        UNION
        SELECT d.team, d.external_id FROM l JOIN deliveries d ON d.team = l.team
            AND d.external_id >= $1 AND d.external_id < $2
            AND d.stage IN (2, 3) AND d.external_id IS NOT NULL
        WHERE d.status = 'new'";
    let mut open = BTreeSet::new();
    for row in transaction
        .query(sql, &[&prefix, &search::beyond(prefix)])
        .await?
    {
        let team: String = row.try_get(0)?;
        open.extend(ExternalId::new(row.try_get(1)?).map(|id| (team, id)));
    }
    Ok(open)
}
