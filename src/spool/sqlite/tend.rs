//! What keeps the store in order: dead letters tried again or dropped, the proof of the ledger,
//! retention.

use std::collections::BTreeMap;

use rusqlite::{Connection, Params, params};

use super::rows::{self, Delivery, STAGE_ACCEPTED, STAGE_BEHIND, STAGE_SETTLED, STAGE_WAITING};
use crate::clock::Time;
use crate::spool::{
    Audit, DeadLetters, DeliveryId, Ending, MailId, SpoolError, TeamLedger, Totals,
};

/// The index of what retention may remove knows this reason, too.
const DROPPED: &str = "dropped by a person";

fn ids(connection: &Connection, sql: &str, values: impl Params) -> Result<Vec<i64>, SpoolError> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(values, |row| row.get(0))?;
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
            "SELECT id FROM deliveries WHERE seq = ?1 AND outcome = 'dead-letter' ORDER BY part",
            [seq_of_known(connection, mail)?],
        )?,
        DeadLetters::All => ids(
            connection,
            "SELECT id FROM deliveries WHERE outcome = 'dead-letter' ORDER BY seq, part",
            (),
        )?,
    };
    for &id in &dead {
        let delivery = rows::delivery(connection, DeliveryId(id))?;
        rows::count_in_ledger(connection, &delivery.team, Ending::DeadLetter.as_str(), -1)?;
        if let Some(reason) = overtaken(connection, &delivery)? {
            // Its attempts are over: what came later ended any doubt about them.
            let delivery = Delivery {
                maybe_paged: false,
                ..delivery
            };
            rows::end(connection, &delivery, Ending::Suppressed, reason, now)?;
        } else {
            revive(connection, &delivery, now)?;
        }
    }
    Ok(dead.len())
}

/// One with an alert is sent as decided; one without is decided again, by the rules of today.
fn revive(connection: &Connection, delivery: &Delivery, now: Time) -> Result<(), SpoolError> {
    let stage = match (&delivery.status, &delivery.external_id) {
        (None, _) => STAGE_ACCEPTED,
        (Some(_), None) => STAGE_WAITING,
        (Some(_), Some(external_id)) => {
            if rows::turn_of(connection, &delivery.team, external_id)?.is_some() {
                STAGE_BEHIND
            } else {
                STAGE_WAITING
            }
        }
    };
    connection
        .prepare_cached(
            "UPDATE deliveries SET stage = ?2, outcome = NULL, reason = NULL, settled_ms = NULL,
                 progress = NULL, not_before_ms = ?3, since_ms = ?3 WHERE id = ?1",
        )?
        .execute(params![delivery.id.0, stage, now.ms()])?;
    Ok(())
}

fn overtaken(
    connection: &Connection,
    delivery: &Delivery,
) -> Result<Option<&'static str>, SpoolError> {
    let (Some(status), Some(external_id)) = (&delivery.status, &delivery.external_id) else {
        return Ok(None);
    };
    rows::overtaken(connection, delivery, rows::status(status)?, external_id)
}

pub(super) fn drop_mail(
    connection: &Connection,
    mail: MailId,
    now: Time,
) -> Result<usize, SpoolError> {
    let seq = seq_of_known(connection, mail)?;
    // Not what a transport has at this moment: it may be paging somebody.
    let dropped = ids(
        connection,
        "SELECT id FROM deliveries WHERE seq = ?1
         AND (stage < 3 OR outcome = 'dead-letter') ORDER BY part DESC",
        [seq],
    )?;
    for &id in &dropped {
        let delivery = rows::delivery(connection, DeliveryId(id))?;
        if delivery.stage == STAGE_SETTLED {
            connection
                .prepare_cached("UPDATE deliveries SET reason = ?2 WHERE id = ?1")?
                .execute(params![id, DROPPED])?;
        } else {
            rows::end(connection, &delivery, Ending::DeadLetter, DROPPED, now)?;
        }
    }
    Ok(dropped.len())
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
            "SELECT count(*) FROM mails m WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.seq = m.seq)",
        ),
        (
            "deliveries without their mail",
            "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM mails m WHERE m.seq = d.seq)",
        ),
        (
            "mails without their bytes",
            "SELECT count(*) FROM mails m WHERE NOT EXISTS (SELECT 1 FROM bodies b WHERE b.seq = m.seq)",
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
        let Ok(total) = u64::try_from(total) else {
            problems.push(format!("team {team}: {entry} is counted as {total}"));
            continue;
        };
        let ledger = teams.entry(team).or_default();
        match (entry.as_str(), Ending::parse(&entry)) {
            ("accepted", _) => ledger.accepted = total,
            ("split", _) => ledger.split = total,
            ("pruned", _) => ledger.pruned = total,
            (_, Some(ending)) => {
                ledger.outcomes.insert(ending, total);
            }
            (_, None) => problems.push(format!("the ledger has an unknown entry {entry}")),
        }
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
        let (team, settled, n): (String, bool, u64) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let outcome: Option<String> = row.get(2)?;
        let ledger = teams.entry(team).or_default();
        match (settled, outcome.as_deref().and_then(Ending::parse)) {
            (false, None) => ledger.unfinished += n,
            (true, Some(ending)) => {
                ledger.settled_rows.insert(ending, n);
            }
            (settled, _) => problems.push(format!(
                "{n} deliveries have the outcome {outcome:?} while settled is {settled}"
            )),
        }
    }
    Ok(())
}

pub(super) fn prune(
    connection: &Connection,
    before: Time,
    limit: usize,
) -> Result<usize, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT d.seq FROM deliveries d
         WHERE d.stage = 4 AND (d.outcome <> 'dead-letter' OR d.reason = 'dropped by a person')
         AND d.settled_ms < ?1 AND NOT EXISTS (
             SELECT 1 FROM deliveries o WHERE o.seq = d.seq
             AND (o.stage <> 4 OR o.settled_ms >= ?1
                  OR (o.outcome = 'dead-letter' AND o.reason <> 'dropped by a person')))
         LIMIT ?2",
    )?;
    let found = statement.query_map(params![before.ms(), rows::count(limit)], |row| row.get(0))?;
    let finished: Vec<i64> = found.collect::<Result<_, _>>()?;
    for &seq in &finished {
        remove(connection, seq)?;
    }
    connection
        .prepare_cached(
            "DELETE FROM tickets WHERE (team, external_id) IN (
                 SELECT team, external_id FROM tickets
                 WHERE state = 'resolved' AND changed_ms < ?1 LIMIT ?2)",
        )?
        .execute(params![before.ms(), rows::count(limit)])?;
    Ok(finished.len())
}

fn remove(connection: &Connection, seq: i64) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "INSERT INTO ledger (team, entry, total)
             SELECT team, 'pruned', count(*) FROM deliveries WHERE seq = ?1 GROUP BY team
             ON CONFLICT DO UPDATE SET total = total + excluded.total",
        )?
        .execute([seq])?;
    for sql in [
        "DELETE FROM attempts WHERE delivery IN (SELECT id FROM deliveries WHERE seq = ?1)",
        "DELETE FROM deliveries WHERE seq = ?1",
        "DELETE FROM bodies WHERE seq = ?1",
        "DELETE FROM mails WHERE seq = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([seq])?;
    }
    Ok(())
}
