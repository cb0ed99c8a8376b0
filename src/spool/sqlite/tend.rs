//! What keeps the store in order: dead letters tried again or dropped, the proof of the ledger,
//! retention.

use std::collections::BTreeMap;

use rusqlite::{Connection, Params, Row, params};
use uuid::Uuid;

use super::known;
use super::rows::{self, delivery};
use super::write;
use crate::clock::Time;
use crate::spool::ledger::SUSPICIONS;
use crate::spool::plan::{self, DROPPED, Depth};
use crate::spool::{
    Audit, DeadLetters, DeliveryId, MailId, Pruned, Retried, SpoolError, TeamLedger, Totals,
};

/// Free pages that are not given back: they are used again soon (64 MiB).
const FREE_PAGES_KEPT: u64 = 8192;

/// Pages given back in one transaction: some milliseconds of the writer's time.
const SHRINK_PAGES: u64 = 512;

fn ids(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<Vec<DeliveryId>, SpoolError> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(values, |row| row.get(0).map(DeliveryId))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn seq_of_known(connection: &Connection, mail: MailId) -> Result<i64, SpoolError> {
    rows::seq_of(connection, mail)?
        .ok_or_else(|| SpoolError::Unknown(format!("there is no mail {mail}")))
}

pub(super) fn retry(
    connection: &Connection,
    which: DeadLetters,
    after: Option<DeliveryId>,
    limit: usize,
    now: Time,
) -> Result<Retried, SpoolError> {
    let after = after.map_or(0, |id| id.0);
    let dead = match which {
        DeadLetters::Of(mail) => {
            let (first, last) = DeliveryId::range_of_mail(seq_of_known(connection, mail)?);
            ids(
                connection,
                "SELECT id FROM deliveries WHERE id BETWEEN ?1 AND ?2 AND id > ?3
                 AND outcome = 'dead-letter' ORDER BY id LIMIT ?4",
                params![first, last, after, rows::count(limit)],
            )?
        }
        DeadLetters::All => ids(
            connection,
            "SELECT id FROM deliveries WHERE outcome = 'dead-letter' AND reason <> ?1 AND id > ?2
             ORDER BY id LIMIT ?3",
            params![DROPPED, after, rows::count(limit)],
        )?,
    };
    for id in &dead {
        let mut known = of_one(connection, *id, Depth::First)?;
        if let Some(delivery) = known.deliveries.get(id)
            && let (Some(status), Some(external_id)) = (delivery.status, &delivery.external_id)
        {
            let overtaken = known::overtaken(connection, delivery, status, external_id)?;
            known
                .overtaken
                .extend(overtaken.map(|reason| (*id, reason)));
        }
        let changes = plan::retry(known, std::slice::from_ref(id), now);
        write::write(connection, changes, now)?;
    }
    Ok(Retried::new(&dead, limit))
}

fn of_one(
    connection: &Connection,
    id: DeliveryId,
    depth: Depth,
) -> Result<plan::Known, SpoolError> {
    let found = rows::deliveries(connection, delivery!("d.id = ?1"), [id.0])?;
    known::of_moved(connection, found, depth)
}

pub(super) fn drop_mail(
    connection: &Connection,
    mail: MailId,
    now: Time,
) -> Result<usize, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(seq_of_known(connection, mail)?);
    let of_mail = ids(
        connection,
        "SELECT id FROM deliveries WHERE id BETWEEN ?1 AND ?2
         AND (outcome IS NOT 'dead-letter' OR reason <> ?3) ORDER BY id",
        params![first, last, DROPPED],
    )?;
    let mut deliveries = Vec::with_capacity(of_mail.len());
    for id in &of_mail {
        let found = rows::deliveries(connection, delivery!("d.id = ?1"), [id.0])?;
        deliveries.extend(found);
    }
    let known = known::of_moved(connection, deliveries, Depth::All)?;
    let (changes, dropped) = plan::drop_mail(known, &of_mail, now);
    write::write(connection, changes, now)?;
    Ok(dropped)
}

pub(super) fn totals(connection: &Connection) -> Result<BTreeMap<String, Totals>, SpoolError> {
    let mut teams = BTreeMap::new();
    // What is wrong with them is for `audit` to tell.
    read_totals(connection, &mut teams, &mut Vec::new())?;
    let totals = |(team, ledger): (String, TeamLedger)| (team, ledger.totals());
    Ok(teams.into_iter().map(totals).collect())
}

pub(super) fn audit(connection: &Connection) -> Result<Audit, SpoolError> {
    let mut teams: BTreeMap<String, TeamLedger> = BTreeMap::new();
    let mut problems = Vec::new();
    read_totals(connection, &mut teams, &mut problems)?;
    read_rows(connection, &mut teams, &mut problems)?;
    for (what, sql) in SUSPICIONS {
        let n: u64 = connection.query_row(sql, (), |row| row.get(0))?;
        if n > 0 {
            problems.push(format!("{n} {what}"));
        }
    }
    Ok(Audit::new(teams, problems))
}

fn read_totals(
    connection: &Connection,
    teams: &mut BTreeMap<String, TeamLedger>,
    problems: &mut Vec<String>,
) -> Result<(), SpoolError> {
    let mut statement = connection.prepare_cached("SELECT team, entry, total FROM ledger")?;
    let mut found = statement.query(())?;
    while let Some(row) = found.next()? {
        let (team, entry, total): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let ledger = teams.entry(team.clone()).or_default();
        ledger.read_total(&team, &entry, total, problems);
    }
    Ok(())
}

fn read_rows(
    connection: &Connection,
    teams: &mut BTreeMap<String, TeamLedger>,
    problems: &mut Vec<String>,
) -> Result<(), SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT team, stage = 4, outcome, count(*) FROM deliveries GROUP BY 1, 2, 3",
    )?;
    let mut found = statement.query(())?;
    while let Some(row) = found.next()? {
        let outcome: Option<String> = row.get(2)?;
        let ledger = teams.entry(row.get(0)?).or_default();
        ledger.read_rows(row.get(1)?, outcome.as_deref(), row.get(3)?, problems);
    }
    Ok(())
}

/// By their ids, which are indexed and sort by time: those that are younger are not looked at.
const OF_AGE: &str = "SELECT m.seq, m.id, NOT EXISTS (
        SELECT 1 FROM deliveries d
        WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575
        AND (d.stage <> 4 OR d.settled_ms >= ?1
             OR (d.outcome = 'dead-letter' AND d.reason <> ?5)))
    FROM mails m WHERE m.id > ?2 AND m.id < ?3 ORDER BY m.id LIMIT ?4";

const FORGET_TICKETS: &str = "DELETE FROM tickets WHERE (team, external_id) IN (
        SELECT team, external_id FROM tickets
        WHERE state = 'resolved' AND changed_ms < ?1 LIMIT ?2)";

pub(super) fn prune(
    connection: &Connection,
    before: Time,
    after: Option<MailId>,
    limit: usize,
) -> Result<Pruned, SpoolError> {
    let mut statement = connection.prepare_cached(OF_AGE)?;
    let values = params![
        before.ms(),
        after.map_or(Uuid::nil(), |mail| mail.0),
        MailId::first_at(before).0,
        rows::count(limit),
        DROPPED
    ];
    let read = |row: &Row<'_>| Ok((row.get(0)?, MailId(row.get(1)?), row.get(2)?));
    let looked_at = statement.query_map(values, read)?;
    let looked_at: Vec<(i64, MailId, bool)> = looked_at.collect::<Result<_, _>>()?;
    let mut removed = 0;
    for (seq, _, _) in looked_at.iter().filter(|(_, _, is_finished)| *is_finished) {
        remove(connection, *seq)?;
        removed += 1;
    }
    connection
        .prepare_cached(FORGET_TICKETS)?
        .execute(params![before.ms(), rows::count(limit)])?;
    let is_full = looked_at.len() == limit;
    let last = looked_at.last().map(|(_, mail, _)| *mail);
    Ok(Pruned {
        removed,
        next: last.filter(|_| is_full),
    })
}

fn remove(connection: &Connection, seq: i64) -> Result<(), SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(seq);
    connection
        .prepare_cached(
            "INSERT INTO ledger (team, entry, total)
             SELECT team, 'pruned', count(*) FROM deliveries WHERE id BETWEEN ?1 AND ?2 GROUP BY team
             ON CONFLICT DO UPDATE SET total = total + excluded.total",
        )?
        .execute([first, last])?;
    for sql in [
        "DELETE FROM attempts WHERE delivery BETWEEN ?1 AND ?2",
        "DELETE FROM decisions WHERE delivery BETWEEN ?1 AND ?2",
        "DELETE FROM deliveries WHERE id BETWEEN ?1 AND ?2",
    ] {
        connection.prepare_cached(sql)?.execute([first, last])?;
    }
    for sql in [
        "DELETE FROM pieces WHERE rest = (SELECT rest FROM bodies WHERE seq = ?1)",
        "DELETE FROM bodies WHERE seq = ?1",
        "DELETE FROM mails WHERE seq = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([seq])?;
    }
    Ok(())
}

fn pages(connection: &Connection, which: &str) -> Result<u64, SpoolError> {
    Ok(connection.pragma_query_value(None, which, |row| row.get(0))?)
}

pub(super) fn bytes(connection: &Connection) -> Result<u64, SpoolError> {
    let used =
        pages(connection, "page_count")?.saturating_sub(pages(connection, "freelist_count")?);
    Ok(used * pages(connection, "page_size")?)
}

pub(super) fn shrink(connection: &Connection) -> Result<bool, SpoolError> {
    if pages(connection, "freelist_count")? <= FREE_PAGES_KEPT {
        return Ok(false);
    }
    // Stepped to its end: each step moves one page.
    let mut statement =
        connection.prepare_cached(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
    let mut rows = statement.query(())?;
    while rows.next()?.is_some() {}
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::file::open_writer;
    use super::*;

    #[test]
    fn retention_looks_at_what_is_of_age_alone() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open_writer(&directory.path().join("spool.db")).unwrap();
        for sql in [OF_AGE, FORGET_TICKETS] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let mut statement = connection.prepare(&explain).unwrap();
            let steps = statement.raw_query().mapped(|row| row.get("detail"));
            let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
            let goes_by_index = |step: &String| !step.starts_with("SCAN");
            assert!(steps.iter().all(goes_by_index), "{steps:#?}");
        }
    }
}
