//! What somebody has to be told about the store itself.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::{look, rows};
use crate::alert::ExternalId;
use crate::clock::Time;
use crate::deliver::schedule::URGENCIES;
use crate::limits::LATE_LOOKED_AT;
use crate::spool::plan::DROPPED;
use crate::spool::{DeadLettersOf, MailId, SpoolError, search};

pub(super) fn dead_letters(
    connection: &Connection,
    except_source: &str,
) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT n.team, n.count, n.ended, d.reason, m.id
         FROM (SELECT team, count(*) AS count, max(id) AS newest, max(settled_ms) AS ended
               FROM deliveries
               WHERE outcome = 'dead-letter' AND reason <> ?1 AND source IS NOT ?2
               GROUP BY team) AS n
         JOIN deliveries d ON d.id = n.newest JOIN mails m ON m.seq = d.id >> 20",
    )?;
    let found = statement.query_map([DROPPED, except_source], |row| {
        let letters = DeadLettersOf {
            count: row.get(1)?,
            newest: MailId(row.get(4)?),
            reason: row.get(3)?,
            ended: Time::from_ms(row.get(2)?),
        };
        Ok((row.get(0)?, letters))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn overdue(
    connection: &Connection,
    now: Time,
) -> Result<BTreeMap<String, Time>, SpoolError> {
    let mut overdue = BTreeMap::new();
    let mut due = connection.prepare_cached(
        "SELECT min(coalesce(json_extract(progress, '$[0].first_failed_ms'), not_before_ms))
         FROM (SELECT progress, not_before_ms FROM deliveries
               WHERE stage = 2 AND team = ?1 AND urgency = ?2
               ORDER BY not_before_ms LIMIT ?4)
         WHERE progress IS NOT NULL OR not_before_ms <= ?3",
    )?;
    for team in look::teams(connection)? {
        for urgency in 0..URGENCIES {
            let values = params![team, urgency, now.ms(), rows::count(LATE_LOOKED_AT)];
            let since = due.query_row(values, |row| row.get(0))?;
            note(&mut overdue, &team, since);
        }
    }
    let undecided = connection
        .prepare_cached(
            "SELECT d.team, m.received_ms FROM deliveries d JOIN mails m ON m.seq = d.id >> 20
             WHERE d.stage = 0 ORDER BY d.id LIMIT 1",
        )?
        .query_row((), |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    if let Some((team, since)) = undecided {
        note(&mut overdue, &team, Some(since));
    }
    Ok(overdue)
}

fn note(overdue: &mut BTreeMap<String, Time>, team: &str, since_ms: Option<i64>) {
    let Some(since) = since_ms.map(Time::from_ms) else {
        return;
    };
    let entry = overdue.entry(team.to_owned()).or_insert(since);
    *entry = since.min(*entry);
}

pub(super) fn open_with_prefix(
    connection: &Connection,
    prefix: &str,
) -> Result<BTreeSet<(String, ExternalId)>, SpoolError> {
    let mut open = BTreeSet::new();
    // By team, so that each is a range of an index; teams are few, and all are in the ledger.
    for sql in [
        "SELECT t.team, t.external_id FROM (SELECT DISTINCT team FROM ledger) l
         CROSS JOIN tickets t ON t.team = l.team
             AND t.external_id >= ?1 AND t.external_id < ?2
         WHERE t.state <> 'resolved'",
        "SELECT d.team, d.external_id FROM (SELECT DISTINCT team FROM ledger) l
         CROSS JOIN deliveries d ON d.team = l.team
             AND d.external_id >= ?1 AND d.external_id < ?2
             AND d.stage IN (2, 3) AND d.external_id IS NOT NULL
         WHERE d.status = 'new'",
    ] {
        let mut statement = connection.prepare_cached(sql)?;
        let found = statement.query_map([prefix, &search::beyond(prefix)], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        for one in found {
            let (team, external_id) = one?;
            open.extend(ExternalId::new(&external_id).map(|id| (team, id)));
        }
    }
    Ok(open)
}
