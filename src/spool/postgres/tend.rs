//! What keeps the store in order: dead letters tried again or dropped, the proof of the ledger,
//! retention.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::intake;
use super::known;
use super::look;
use super::rows;
use super::write;
use crate::clock::Time;
use crate::spool::ledger::SUSPICIONS;
use crate::spool::plan::{self, DROPPED, Depth};
use crate::spool::{
    Audit, DeadLetters, DeliveryId, MailId, Pruned, Retried, SpoolError, TeamLedger, Totals,
};

async fn ids(
    transaction: &Transaction<'_>,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<i64>, SpoolError> {
    let found = transaction.query(sql, values).await?;
    Ok(found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?)
}

async fn seq_of_known(transaction: &Transaction<'_>, mail: MailId) -> Result<i64, SpoolError> {
    let unknown = || SpoolError::Unknown(format!("there is no mail {mail}"));
    look::seq_of(transaction, mail).await?.ok_or_else(unknown)
}

pub(super) async fn retry(
    transaction: &Transaction<'_>,
    which: DeadLetters,
    after: Option<DeliveryId>,
    limit: usize,
    node: Uuid,
    now: Time,
) -> Result<Retried, SpoolError> {
    let (after, limit_of_sql) = (after.map_or(0, |id| id.0), rows::count(limit));
    let dead = match which {
        DeadLetters::Of(mail) => {
            let (first, last) = DeliveryId::range_of_mail(seq_of_known(transaction, mail).await?);
            let sql = "SELECT id FROM deliveries WHERE id BETWEEN $1 AND $2 AND id > $3
                AND outcome = 'dead-letter' ORDER BY id LIMIT $4";
            ids(transaction, sql, &[&first, &last, &after, &limit_of_sql]).await?
        }
        DeadLetters::All => {
            let sql = "SELECT id FROM deliveries
                WHERE outcome = 'dead-letter' AND reason <> $1 AND id > $2 ORDER BY id LIMIT $3";
            ids(transaction, sql, &[&DROPPED, &after, &limit_of_sql]).await?
        }
    };
    known::lock_tickets_of(transaction, &dead).await?;
    let dead: Vec<DeliveryId> = dead.into_iter().map(DeliveryId).collect();
    for id in dead.iter().copied() {
        let found = known::by_id(transaction, &[id.0]).await?;
        let mut known = known::of_moved(transaction, found, Depth::First).await?;
        if let Some(delivery) = known.deliveries.get(&id)
            && let (Some(status), Some(external_id)) = (delivery.status, &delivery.external_id)
        {
            let overtaken = known::overtaken(transaction, delivery, status, external_id).await?;
            known.overtaken.extend(overtaken.map(|reason| (id, reason)));
        }
        let changes = plan::retry(known, &[id], now);
        write::write(transaction, changes, node, now).await?;
    }
    Ok(Retried::new(&dead, limit))
}

pub(super) async fn drop_mail(
    transaction: &Transaction<'_>,
    mail: MailId,
    node: Uuid,
    now: Time,
) -> Result<usize, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(seq_of_known(transaction, mail).await?);
    let sql = "SELECT id FROM deliveries WHERE id BETWEEN $1 AND $2
         AND (outcome IS DISTINCT FROM 'dead-letter' OR reason <> $3) ORDER BY id";
    let of_mail = ids(transaction, sql, &[&first, &last, &DROPPED]).await?;
    known::lock_tickets_of(transaction, &of_mail).await?;
    let deliveries = known::by_id(transaction, &of_mail).await?;
    let known = known::of_moved(transaction, deliveries, Depth::All).await?;
    let of_mail: Vec<DeliveryId> = of_mail.into_iter().map(DeliveryId).collect();
    let (changes, dropped) = plan::drop_mail(known, &of_mail, now);
    write::write(transaction, changes, node, now).await?;
    Ok(dropped)
}

pub(super) async fn totals(
    transaction: &Transaction<'_>,
) -> Result<BTreeMap<String, Totals>, SpoolError> {
    let mut teams = BTreeMap::new();
    // What is wrong with them is for `audit` to tell.
    read_totals(transaction, &mut teams, &mut Vec::new()).await?;
    let totals = |(team, ledger): (String, TeamLedger)| (team, ledger.totals());
    Ok(teams.into_iter().map(totals).collect())
}

pub(super) async fn audit(transaction: &Transaction<'_>) -> Result<Audit, SpoolError> {
    let mut teams: BTreeMap<String, TeamLedger> = BTreeMap::new();
    let mut problems = Vec::new();
    read_totals(transaction, &mut teams, &mut problems).await?;
    read_rows(transaction, &mut teams, &mut problems).await?;
    for (what, sql) in SUSPICIONS {
        let n: i64 = transaction.query_one(sql, &[]).await?.try_get(0)?;
        if n > 0 {
            problems.push(format!("{n} {what}"));
        }
    }
    Ok(Audit::new(teams, problems))
}

async fn read_totals(
    transaction: &Transaction<'_>,
    teams: &mut BTreeMap<String, TeamLedger>,
    problems: &mut Vec<String>,
) -> Result<(), SpoolError> {
    let sql = "SELECT team, entry, sum(total)::bigint FROM ledger GROUP BY team, entry";
    for row in transaction.query(sql, &[]).await? {
        let (team, entry, total): (String, String, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        teams
            .entry(team.clone())
            .or_default()
            .read_total(&team, &entry, total, problems);
    }
    Ok(())
}

async fn read_rows(
    transaction: &Transaction<'_>,
    teams: &mut BTreeMap<String, TeamLedger>,
    problems: &mut Vec<String>,
) -> Result<(), SpoolError> {
    let sql = "SELECT team, stage = 4, outcome, count(*) FROM deliveries GROUP BY 1, 2, 3";
    for row in transaction.query(sql, &[]).await? {
        let team: String = row.try_get(0)?;
        let outcome: Option<&str> = row.try_get(2)?;
        let n = rows::size(&row, 3)?;
        let ledger = teams.entry(team).or_default();
        ledger.read_rows(row.try_get(1)?, outcome, n, problems);
    }
    Ok(())
}

/// By their ids, which are indexed and sort by time: those that are younger are not looked at.
const OF_AGE: &str = "SELECT m.seq, m.id, NOT EXISTS (
        SELECT 1 FROM deliveries d
        WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575
        AND (d.stage <> 4 OR d.settled_ms >= $1
             OR (d.outcome = 'dead-letter' AND d.reason <> $5)))
    FROM mails m WHERE m.id > $2 AND m.id < $3 ORDER BY m.id LIMIT $4";

const FORGET_TICKETS: &str = "DELETE FROM tickets WHERE (team, external_id) IN (
        SELECT team, external_id FROM tickets
        WHERE state = 'resolved' AND changed_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// What is pruned is counted first.
const COUNT: &str = "INSERT INTO ledger AS l (team, entry, node, total)
     SELECT d.team, 'pruned', $2, count(*) FROM unnest($1::bigint[]) AS s (seq)
     JOIN deliveries d ON d.id BETWEEN s.seq << 20 AND (s.seq << 20) + 1048575
     GROUP BY d.team ORDER BY d.team
     ON CONFLICT (team, entry, node) DO UPDATE SET total = l.total + excluded.total";

const REMOVE: [&str; 4] = [
    "DELETE FROM attempts a USING unnest($1::bigint[]) AS s (seq)
     WHERE a.delivery BETWEEN s.seq << 20 AND (s.seq << 20) + 1048575",
    "DELETE FROM decisions a USING unnest($1::bigint[]) AS s (seq)
     WHERE a.delivery BETWEEN s.seq << 20 AND (s.seq << 20) + 1048575",
    "DELETE FROM deliveries d USING unnest($1::bigint[]) AS s (seq)
     WHERE d.id BETWEEN s.seq << 20 AND (s.seq << 20) + 1048575",
    "WITH b AS (DELETE FROM bodies WHERE seq = ANY($1) RETURNING rest)
     DELETE FROM rests r USING b WHERE r.rest = b.rest",
];

/// Last of all: mails that come in wait for this row until the end of the transaction.
const REMOVE_MAILS: &str = "WITH gone AS (DELETE FROM mails WHERE seq = ANY($1) RETURNING bytes)
     INSERT INTO kept AS k (node, bytes) SELECT $2, -coalesce(sum(bytes), 0) FROM gone
     ON CONFLICT (node) DO UPDATE SET bytes = k.bytes + excluded.bytes";

pub(super) async fn prune(
    transaction: &Transaction<'_>,
    before: Time,
    after: Option<MailId>,
    limit: usize,
    node: Uuid,
) -> Result<Pruned, SpoolError> {
    if after.is_none() {
        transaction.execute(intake::DISCARD_OF_OTHERS, &[]).await?;
    }
    let found = transaction
        .query(
            OF_AGE,
            &[
                &before.ms(),
                &after.map_or(Uuid::nil(), |mail| mail.0),
                &MailId::first_at(before).0,
                &rows::count(limit),
                &DROPPED,
            ],
        )
        .await?;
    let mut finished: Vec<i64> = Vec::new();
    for row in &found {
        if row.try_get(2)? {
            finished.push(row.try_get(0)?);
        }
    }
    // Two nodes prune at the same time: each row is removed, and counted, by one of them.
    let lock = "SELECT seq FROM mails WHERE seq = ANY($1) ORDER BY seq FOR UPDATE SKIP LOCKED";
    let finished = ids(transaction, lock, &[&finished]).await?;
    transaction.execute(COUNT, &[&finished, &node]).await?;
    for sql in REMOVE {
        transaction.execute(sql, &[&finished]).await?;
    }
    transaction
        .execute(FORGET_TICKETS, &[&before.ms(), &rows::count(limit)])
        .await?;
    transaction
        .execute(REMOVE_MAILS, &[&finished, &node])
        .await?;
    let is_full = found.len() == limit;
    let last = found.last().map(|row| row.try_get(1)).transpose()?;
    Ok(Pruned {
        removed: finished.len(),
        next: last.filter(|_| is_full).map(MailId),
    })
}

pub(super) async fn bytes(transaction: &Transaction<'_>) -> Result<u64, SpoolError> {
    let sql = "SELECT coalesce(sum(bytes), 0)::bigint FROM kept";
    rows::size(&transaction.query_one(sql, &[]).await?, 0)
}
