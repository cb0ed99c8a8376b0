//! Writes what the plan changes: a few statements, whatever the size of the batch.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::rows::{self, query};
use crate::clock::{Time, whole_ms};
use crate::spool::plan::{Changes, NewPart, Row, TicketRow, Verdict};
use crate::spool::record::{self, stage_code};
use crate::spool::{Attempt, DeliveryId, Effects, SpoolError, Stage};

pub(super) const INSERT_PARTS: &str = "INSERT INTO deliveries
    (id, team, part, forward_path, stage, since_ms, is_summary)
    SELECT x.id, x.team, x.part, x.forward_path, 0, x.since_ms, x.is_summary
    FROM unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::bool[])
    AS x (id, team, part, forward_path, since_ms, is_summary)";

pub(super) const DECIDED: &str = "UPDATE deliveries d SET message_id = x.message_id,
    source = x.source, rule = x.rule, event = x.event, status = x.status,
    external_id = x.external_id, title = x.title, escalate = x.escalate, urgency = x.urgency,
    stage = x.stage, not_before_ms = coalesce(x.not_before_ms, d.not_before_ms),
    outcome = x.outcome, reason = x.reason, settled_ms = x.settled_ms, reading = NULL,
    node = CASE WHEN x.stage = 3 THEN $16::uuid END, leases = x.leases
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::bool[], $10::smallint[], $11::smallint[], $12::bigint[],
        $13::text[], $14::text[], $15::bigint[], $17::int[])
    AS x (id, message_id, source, rule, event, status, external_id, title, escalate, urgency,
        stage, not_before_ms, outcome, reason, settled_ms, leases)
    WHERE d.id = x.id";

pub(super) const MOVED: &str = "UPDATE deliveries d SET stage = x.stage, outcome = x.outcome,
    reason = x.reason, settled_ms = x.settled_ms,
    not_before_ms = coalesce(x.not_before_ms, d.not_before_ms),
    maybe_paged = coalesce(x.maybe_paged, d.maybe_paged), attempts = d.attempts + x.attempts,
    progress = CASE WHEN x.since_ms IS NULL THEN coalesce(x.progress, d.progress) END,
    since_ms = coalesce(x.since_ms, d.since_ms), reading = NULL,
    node = CASE WHEN x.stage = 3 THEN $11::uuid END, leases = x.leases
    FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
        $7::bool[], $8::int[], $9::text[], $10::bigint[], $12::int[])
    AS x (id, stage, outcome, reason, settled_ms, not_before_ms, maybe_paged, attempts, progress,
        since_ms, leases)
    WHERE d.id = x.id";

pub(super) const DECISIONS: &str = "INSERT INTO decisions (delivery, decision)
    SELECT * FROM unnest($1::bigint[], $2::text[])
    ON CONFLICT (delivery) DO UPDATE SET decision = excluded.decision";

pub(super) const ATTEMPTS: &str = "INSERT INTO attempts
    (delivery, number, at_ms, took_ms, transport, result, answer)
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::text[],
        $6::text[], $7::text[])";

pub(super) const TICKETS: &str = "INSERT INTO tickets AS t
    (team, external_id, state, paged, changed_ms, opened_by, title, storm)
    SELECT x.team, x.external_id, x.state, x.paged, $8, x.opened_by, x.title, x.storm
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::bigint[], $6::text[], $7::text[])
    AS x (team, external_id, state, paged, opened_by, title, storm)
    ON CONFLICT (team, external_id) DO UPDATE SET state = excluded.state, paged = excluded.paged,
        changed_ms = excluded.changed_ms, storm = excluded.storm,
        title = CASE WHEN excluded.opened_by IS NULL THEN t.title ELSE excluded.title END,
        opened_by = coalesce(excluded.opened_by, t.opened_by)";

pub(super) const GATHERINGS: &str = "INSERT INTO storms (team, source, recent, delivery, summary)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
    ON CONFLICT (team, source) DO UPDATE SET recent = excluded.recent,
        delivery = excluded.delivery, summary = excluded.summary";

pub(super) const LEDGER: &str = "INSERT INTO ledger AS l (team, entry, node, total)
    SELECT x.team, x.entry, $4, x.total FROM unnest($1::text[], $2::text[], $3::bigint[])
    AS x (team, entry, total) ORDER BY x.team, x.entry
    ON CONFLICT (team, entry, node) DO UPDATE SET total = l.total + excluded.total";

pub(super) async fn write(
    transaction: &Transaction<'_>,
    changes: Changes,
    node: Uuid,
    now: Time,
) -> Result<Effects, SpoolError> {
    insert_parts(transaction, &changes).await?;
    // What gives up a turn is written before what takes it: the index of turns holds one a ticket.
    let (giving, taking): (Vec<&Row>, Vec<&Row>) = changes
        .rows
        .values()
        .partition(|row| !matches!(row.stage, Stage::Waiting | Stage::Sending));
    // Sent in this order without waiting in between.
    tokio::try_join!(
        biased;
        write_decided(transaction, &giving, node, now),
        write_moved(transaction, &giving, node, now),
        write_decided(transaction, &taking, node, now),
        write_moved(transaction, &taking, node, now),
        write_decisions(transaction, &changes),
        write_attempts(transaction, &changes),
        write_tickets(transaction, &changes, now),
        write_gatherings(transaction, &changes),
        count_in_ledger(transaction, &changes, node),
    )?;
    Ok(changes.effects)
}

async fn insert_parts(transaction: &Transaction<'_>, changes: &Changes) -> Result<(), SpoolError> {
    let parts: Vec<(&Row, &NewPart)> = changes
        .rows
        .values()
        .filter_map(|row| Some((row, row.new_part.as_ref()?)))
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = parts.iter().map(|(row, _)| row.id.0).collect();
    let teams: Vec<&str> = parts.iter().map(|(_, part)| part.team.as_str()).collect();
    let numbers: Vec<i32> = parts.iter().map(|(_, part)| integer(part.part)).collect();
    let paths: Vec<&str> = parts
        .iter()
        .map(|(_, part)| part.forward_path.as_str())
        .collect();
    let since: Vec<i64> = parts.iter().map(|(_, part)| part.since.ms()).collect();
    let summaries: Vec<bool> = parts.iter().map(|(_, part)| part.is_summary).collect();
    let values: &[&(dyn ToSql + Sync)] = &[&ids, &teams, &numbers, &paths, &since, &summaries];
    query(transaction, INSERT_PARTS, values).await?;
    Ok(())
}

fn integer(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Outcome, reason and end of each row, all there or none.
#[derive(Default)]
struct Ends<'r> {
    outcomes: Vec<Option<&'static str>>,
    reasons: Vec<Option<&'r str>>,
    settled: Vec<Option<i64>>,
}

impl<'r> Ends<'r> {
    fn of(rows: impl IntoIterator<Item = &'r Row>, now: Time) -> Ends<'r> {
        let mut ends = Ends::default();
        for row in rows {
            let ending = match row.stage {
                Stage::Settled(ending) => Some(ending),
                _ => None,
            };
            ends.outcomes.push(ending.map(|ending| ending.as_str()));
            ends.reasons.push(ending.map(|_| row.reason.as_str()));
            ends.settled.push(ending.map(|_| now.ms()));
        }
        ends
    }
}

async fn write_decided(
    transaction: &Transaction<'_>,
    rows: &[&Row],
    node: Uuid,
    now: Time,
) -> Result<(), SpoolError> {
    let rows: Vec<(&Row, &Verdict)> = rows
        .iter()
        .filter_map(|row| Some((*row, row.verdict.as_ref()?)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let of_row =
        |read: fn(&Row) -> i64| -> Vec<i64> { rows.iter().map(|(row, _)| read(row)).collect() };
    let text = |read: fn(&Verdict) -> Option<&str>| -> Vec<Option<&str>> {
        rows.iter().map(|(_, verdict)| read(verdict)).collect()
    };
    let ids = of_row(|row| row.id.0);
    let message_ids = text(|verdict| verdict.message_id.as_deref());
    let sources = text(|verdict| verdict.source.as_deref());
    let names = text(|verdict| verdict.rule.as_deref());
    let events = text(|verdict| verdict.event);
    let statuses = text(|verdict| verdict.status.map(|status| status.as_str()));
    let external_ids = text(|verdict| verdict.external_id.as_deref());
    let titles = text(|verdict| verdict.title.as_deref());
    let escalate: Vec<bool> = rows.iter().map(|(_, verdict)| verdict.escalate).collect();
    let urgency = rows.iter().map(|(_, verdict)| i16::from(verdict.urgency));
    let urgency: Vec<i16> = urgency.collect();
    let stages: Vec<i16> = rows.iter().map(|(row, _)| stage_code(row.stage)).collect();
    let not_before = rows.iter().map(|(row, _)| row.not_before.map(Time::ms));
    let not_before: Vec<Option<i64>> = not_before.collect();
    let leases: Vec<i32> = rows.iter().map(|(row, _)| integer(row.leases)).collect();
    let ends = Ends::of(rows.iter().map(|(row, _)| *row), now);
    let values: &[&(dyn ToSql + Sync)] = &[
        &ids,
        &message_ids,
        &sources,
        &names,
        &events,
        &statuses,
        &external_ids,
        &titles,
        &escalate,
        &urgency,
        &stages,
        &not_before,
        &ends.outcomes,
        &ends.reasons,
        &ends.settled,
        &node,
        &leases,
    ];
    query(transaction, DECIDED, values).await?;
    Ok(())
}

async fn write_moved(
    transaction: &Transaction<'_>,
    rows: &[&Row],
    node: Uuid,
    now: Time,
) -> Result<(), SpoolError> {
    let rows: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| row.verdict.is_none())
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.id.0).collect();
    let stages: Vec<i16> = rows.iter().map(|row| stage_code(row.stage)).collect();
    let not_before: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.not_before.map(Time::ms))
        .collect();
    let maybe_paged: Vec<Option<bool>> = rows.iter().map(|row| row.maybe_paged).collect();
    let attempts = rows
        .iter()
        .map(|row| i32::try_from(row.attempts.len()).unwrap_or(i32::MAX));
    let attempts: Vec<i32> = attempts.collect();
    let progress: Vec<Option<&str>> = rows.iter().map(|row| row.progress.as_deref()).collect();
    let since: Vec<Option<i64>> = rows.iter().map(|row| row.since.map(Time::ms)).collect();
    let leases: Vec<i32> = rows.iter().map(|row| integer(row.leases)).collect();
    let ends = Ends::of(rows.iter().copied(), now);
    let values: &[&(dyn ToSql + Sync)] = &[
        &ids,
        &stages,
        &ends.outcomes,
        &ends.reasons,
        &ends.settled,
        &not_before,
        &maybe_paged,
        &attempts,
        &progress,
        &since,
        &node,
        &leases,
    ];
    query(transaction, MOVED, values).await?;
    Ok(())
}

async fn write_decisions(
    transaction: &Transaction<'_>,
    changes: &Changes,
) -> Result<(), SpoolError> {
    let (ids, decisions): (Vec<i64>, Vec<&str>) = changes
        .rows
        .values()
        .filter_map(|row| Some((row.id.0, row.verdict.as_ref()?.decision.as_deref()?)))
        .unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let values: &[&(dyn ToSql + Sync)] = &[&ids, &decisions];
    query(transaction, DECISIONS, values).await?;
    Ok(())
}

async fn write_attempts(
    transaction: &Transaction<'_>,
    changes: &Changes,
) -> Result<(), SpoolError> {
    let numbered = |row: &Row| -> Vec<(DeliveryId, u32, Attempt)> {
        let attempts = (row.first_attempt..).zip(row.attempts.iter().cloned());
        attempts
            .map(|(number, attempt)| (row.id, number, attempt))
            .collect()
    };
    let all: Vec<(DeliveryId, u32, Attempt)> = changes.rows.values().flat_map(numbered).collect();
    if all.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = all.iter().map(|(id, _, _)| id.0).collect();
    let numbers: Vec<i32> = all.iter().map(|(_, number, _)| integer(*number)).collect();
    let at: Vec<i64> = all.iter().map(|(_, _, attempt)| attempt.at.ms()).collect();
    let took: Vec<i64> = all.iter().map(|(_, _, a)| whole_ms(a.took)).collect();
    let transports: Vec<&str> = all.iter().map(|(_, _, a)| a.transport.as_str()).collect();
    let results: Vec<&str> = all.iter().map(|(_, _, a)| a.result.as_str()).collect();
    let answers: Vec<&str> = all.iter().map(|(_, _, a)| a.answer.as_str()).collect();
    let values: &[&(dyn ToSql + Sync)] =
        &[&ids, &numbers, &at, &took, &transports, &results, &answers];
    query(transaction, ATTEMPTS, values).await?;
    Ok(())
}

async fn write_tickets(
    transaction: &Transaction<'_>,
    changes: &Changes,
    now: Time,
) -> Result<(), SpoolError> {
    if changes.tickets.is_empty() {
        return Ok(());
    }
    let (teams, ids) = rows::columns(changes.tickets.keys());
    let values: Vec<&TicketRow> = changes.tickets.values().collect();
    let states: Vec<&str> = values
        .iter()
        .map(|row| row.kept.ticket.state.as_str())
        .collect();
    let paged: Vec<bool> = values.iter().map(|row| row.kept.ticket.paged).collect();
    let opened = |row: &&TicketRow| row.opened.as_ref().map(|(delivery, _)| delivery.0);
    let opened: Vec<Option<i64>> = values.iter().map(opened).collect();
    let title = |row: &&TicketRow| row.opened.as_ref().and_then(|(_, title)| title.clone());
    let titles: Vec<Option<String>> = values.iter().map(title).collect();
    let storm = |row: &&TicketRow| row.kept.storm.as_ref().map(|storm| storm.to_string());
    let storms: Vec<Option<String>> = values.iter().map(storm).collect();
    let values: &[&(dyn ToSql + Sync)] = &[
        &teams,
        &ids,
        &states,
        &paged,
        &opened,
        &titles,
        &storms,
        &now.ms(),
    ];
    query(transaction, TICKETS, values).await?;
    Ok(())
}

async fn write_gatherings(
    transaction: &Transaction<'_>,
    changes: &Changes,
) -> Result<(), SpoolError> {
    if changes.storms.is_empty() {
        return Ok(());
    }
    let mut teams: Vec<&str> = Vec::new();
    let mut sources: Vec<&str> = Vec::new();
    let mut recent: Vec<String> = Vec::new();
    let mut deliveries: Vec<Option<i64>> = Vec::new();
    let mut summaries: Vec<Option<&str>> = Vec::new();
    for ((team, source), gathering) in &changes.storms {
        let summary = gathering.summary.as_ref();
        teams.push(team);
        sources.push(source);
        recent.push(record::write_times(&gathering.recent));
        deliveries.push(summary.map(|summary| summary.delivery.0));
        summaries.push(summary.map(|summary| summary.external_id.as_str()));
    }
    let values: &[&(dyn ToSql + Sync)] = &[&teams, &sources, &recent, &deliveries, &summaries];
    query(transaction, GATHERINGS, values).await?;
    Ok(())
}

async fn count_in_ledger(
    transaction: &Transaction<'_>,
    changes: &Changes,
    node: Uuid,
) -> Result<(), SpoolError> {
    if changes.ledger.is_empty() {
        return Ok(());
    }
    let mut teams: Vec<&str> = Vec::new();
    let mut entries: Vec<&str> = Vec::new();
    let mut totals: Vec<i64> = Vec::new();
    for ((team, entry), total) in &changes.ledger {
        teams.push(team);
        entries.push(entry);
        totals.push(*total);
    }
    let values: &[&(dyn ToSql + Sync)] = &[&teams, &entries, &totals, &node];
    query(transaction, LEDGER, values).await?;
    Ok(())
}
