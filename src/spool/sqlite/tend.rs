//! What keeps the store in order: dead letters tried again or dropped, the proof of the ledger,
//! retention.

use std::collections::BTreeMap;

use rusqlite::{Connection, Params, params};

use super::known::{self, Depth};
use super::rows::{self, delivery};
use super::write;
use crate::clock::Time;
use crate::spool::plan::{self, DROPPED};
use crate::spool::{
    Audit, DeadLetters, DeliveryId, MailId, Pruned, SpoolError, TeamLedger, Totals,
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
    now: Time,
) -> Result<usize, SpoolError> {
    let dead = match which {
        DeadLetters::Of(mail) => ids(
            connection,
            "SELECT id FROM deliveries WHERE id BETWEEN ?1 AND ?2 AND outcome = 'dead-letter'
             ORDER BY id",
            DeliveryId::range_of_mail(seq_of_known(connection, mail)?),
        )?,
        DeadLetters::All => ids(
            connection,
            "SELECT id FROM deliveries WHERE outcome = 'dead-letter' AND reason <> ?1 ORDER BY id",
            [DROPPED],
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
    Ok(dead.len())
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
    let suspicions = [
        (
            "mails without any delivery",
            "SELECT count(*) FROM mails m WHERE NOT EXISTS (
                 SELECT 1 FROM deliveries d WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575)",
        ),
        (
            "deliveries without their mail",
            "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM mails m WHERE m.seq = d.id >> 20)",
        ),
        (
            "mails without their bytes",
            "SELECT count(*) FROM mails m WHERE NOT EXISTS (SELECT 1 FROM bodies b WHERE b.seq = m.seq)",
        ),
        (
            "mails without all of their bytes",
            "SELECT count(*) FROM bodies b JOIN mails m ON m.seq = b.seq
             WHERE b.rest IS NOT NULL AND m.bytes <> length(b.raw)
                 + (SELECT coalesce(sum(length(p.bytes)), 0) FROM pieces p WHERE p.rest = b.rest)",
        ),
        (
            "deliveries without a reason for their outcome",
            "SELECT count(*) FROM deliveries WHERE stage = 4 AND coalesce(reason, '') = ''",
        ),
        (
            "deliveries behind a ticket that nothing is in front of",
            "SELECT count(*) FROM deliveries b WHERE b.stage = 1 AND NOT EXISTS (
                 SELECT 1 FROM deliveries t WHERE t.team = b.team AND t.external_id = b.external_id
                 AND t.stage IN (2, 3) AND t.external_id IS NOT NULL)",
        ),
    ];
    for (what, sql) in suspicions {
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

pub(super) fn prune(
    connection: &Connection,
    before: Time,
    after: i64,
    limit: usize,
) -> Result<Pruned, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT m.seq, NOT EXISTS (
             SELECT 1 FROM deliveries d
             WHERE d.id BETWEEN m.seq << 20 AND (m.seq << 20) + 1048575
             AND (d.stage <> 4 OR d.settled_ms >= ?1
                  OR (d.outcome = 'dead-letter' AND d.reason <> ?4)))
         FROM mails m WHERE m.seq > ?2 AND m.received_ms < ?1 ORDER BY m.seq LIMIT ?3",
    )?;
    let values = params![before.ms(), after, rows::count(limit), DROPPED];
    let looked_at = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let looked_at: Vec<(i64, bool)> = looked_at.collect::<Result<_, _>>()?;
    let mut removed = 0;
    for (seq, _) in looked_at.iter().filter(|(_, is_finished)| *is_finished) {
        remove(connection, *seq)?;
        removed += 1;
    }
    connection
        .prepare_cached(
            "DELETE FROM tickets WHERE (team, external_id) IN (
                 SELECT team, external_id FROM tickets
                 WHERE state = 'resolved' AND changed_ms < ?1 LIMIT ?2)",
        )?
        .execute(params![before.ms(), rows::count(limit)])?;
    let is_full = looked_at.len() == limit;
    let last = looked_at.last().map(|(seq, _)| *seq);
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
