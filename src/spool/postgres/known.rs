//! Locks tickets, and loads what the plan has to know of them.
//!
//! Whoever changes deliveries of a ticket holds the ticket's advisory lock until the end of the
//! transaction: then nobody else does at the same time, on this node or another.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;

use super::rows::{self, delivery, query, read_deliveries, read_delivery};
use crate::alert::{ExternalId, Status};
use crate::clock::Time;
use crate::config::Storm;
use crate::limits::{BEHIND_MAX_FOR_CANCEL, DUPLICATE_WINDOW, STORM_LISTED_MAX};
use crate::spool::lifecycle::{self, Ticket, TicketState};
use crate::spool::plan::{
    self, DUPLICATE_OF, Delivery, Depth, KeptTicket, Known, Line, Namesake, TicketId,
};
use crate::spool::record::{self, RecordError};
use crate::spool::storm::{Gathering, Member, Members, Summary};
use crate::spool::{Decided, DeliveryId, MailId, Reading, SpoolError};

/// In the order of the locks' numbers, whoever takes them: no two can wait for each other.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(k) FROM (
    SELECT DISTINCT hashtextextended(team || chr(31) || external_id, 0) AS k
    FROM unnest($1::text[], $2::text[]) AS t (team, external_id) ORDER BY k) AS locks";

/// Which of them could be locked at once.
pub(super) const TRY_LOCK: &str = "SELECT
    pg_try_advisory_xact_lock(hashtextextended(team || chr(31) || external_id, 0))
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (team, external_id, place) ORDER BY place";

pub(super) const KEPT: &str = "SELECT t.team, t.external_id, t.state, t.paged, t.storm
    FROM unnest($1::text[], $2::text[]) AS k (team, external_id)
    JOIN tickets t ON t.team = k.team AND t.external_id = k.external_id";

pub(super) const TURNS: &str = delivery!(
    "FROM unnest($1::text[], $2::text[]) AS k (team, external_id)
     JOIN deliveries d ON d.team = k.team AND d.external_id = k.external_id
         AND d.stage IN (2, 3) AND d.external_id IS NOT NULL
     JOIN mails m ON m.seq = d.id >> 20"
);

pub(super) const BEHIND: &str = delivery!(
    "FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (team, external_id, most)
     CROSS JOIN LATERAL (
         SELECT * FROM deliveries b WHERE b.team = k.team AND b.external_id = k.external_id
         AND b.stage = 1 AND b.external_id IS NOT NULL ORDER BY b.id LIMIT k.most) AS d
     JOIN mails m ON m.seq = d.id >> 20 ORDER BY d.id"
);

/// Not to be changed by anybody until the end of the transaction.
pub(super) const BY_ID: &str = delivery!(
    "FROM deliveries d JOIN mails m ON m.seq = d.id >> 20 WHERE d.id = ANY($1)
     ORDER BY d.id FOR UPDATE OF d"
);

pub(super) const NAMESAKES: &str = "SELECT d.id, m.id, d.team, d.event, d.external_id, d.title,
    coalesce(d.outcome = 'dead-letter' OR d.reason LIKE $3::text || '%', false), d.message_id
    FROM deliveries d JOIN mails m ON m.seq = d.id >> 20
    WHERE d.message_id = ANY($1) AND d.stage > 0 AND m.received_ms >= $2 ORDER BY d.id";

pub(super) const LAST: &str = "SELECT s.seq,
    (SELECT max(d.id) FROM deliveries d WHERE d.id BETWEEN s.seq << 20 AND (s.seq << 20) + 1048575)
    FROM unnest($1::bigint[]) AS s (seq)";

pub(super) const IS_SPLIT: &str = "SELECT EXISTS (SELECT 1 FROM deliveries
    WHERE id BETWEEN $1 AND $2 AND team = $3 AND part <> $4)";

pub(super) const OVERTAKEN: &str = "SELECT EXISTS (SELECT 1 FROM deliveries
    WHERE external_id = $1 AND team = $2 AND id > $3
    AND status = $4 AND outcome IS DISTINCT FROM 'dead-letter'
    AND (reason IS NULL OR reason NOT LIKE $5::text || '%'))";

/// The first of each, and how many there are: a storm may have thousands.
pub(super) const MEMBERS: &str = "SELECT k.team, k.external_id, t.external_id, t.title, c.open
    FROM unnest($1::text[], $2::text[]) AS k (team, external_id)
    CROSS JOIN LATERAL (
        SELECT count(*) AS open FROM tickets t
        WHERE t.team = k.team AND t.storm = k.external_id AND t.state <> 'resolved') AS c
    CROSS JOIN LATERAL (
        SELECT t.external_id, t.title, t.changed_ms FROM tickets t
        WHERE t.team = k.team AND t.storm = k.external_id AND t.state <> 'resolved'
        ORDER BY t.changed_ms, t.external_id LIMIT $3) AS t
    ORDER BY t.changed_ms, t.external_id";

pub(super) const STORMS: &str = "SELECT s.team, s.source, s.recent, s.delivery, s.summary
    FROM unnest($1::text[], $2::text[]) AS k (team, source)
    JOIN storms s ON s.team = k.team AND s.source = k.source";

pub(super) const DOUBT: &str = "SELECT doubt_before_ms FROM memory";

pub(super) const TICKETS_OF: &str = "SELECT DISTINCT team, external_id FROM deliveries
    WHERE id = ANY($1) AND external_id IS NOT NULL";

/// Waits until nobody else changes these tickets.
pub(super) async fn lock(
    transaction: &Transaction<'_>,
    tickets: &BTreeSet<TicketId>,
) -> Result<(), SpoolError> {
    if tickets.is_empty() {
        return Ok(());
    }
    let (teams, ids) = rows::columns(tickets);
    query(transaction, LOCK, &[&teams, &ids]).await?;
    Ok(())
}

/// The same for the tickets of stored deliveries.
pub(super) async fn lock_tickets_of(
    transaction: &Transaction<'_>,
    deliveries: &[i64],
) -> Result<(), SpoolError> {
    let found = query(transaction, TICKETS_OF, &[&deliveries]).await?;
    let mut tickets = BTreeSet::new();
    for row in &found {
        tickets.insert(TicketId {
            team: row.try_get(0)?,
            external_id: row.try_get(1)?,
        });
    }
    lock(transaction, &tickets).await
}

/// The deliveries with the lines of their tickets, which are locked.
pub(super) async fn of_moved(
    transaction: &Transaction<'_>,
    deliveries: Vec<Delivery>,
    depth: Depth,
) -> Result<Known, SpoolError> {
    let mut known = Known {
        deliveries: deliveries.into_iter().map(|one| (one.id, one)).collect(),
        ..Known::default()
    };
    let tickets = plan::tickets(known.deliveries.values());
    let tickets = tickets.into_iter().map(|ticket| (ticket, depth)).collect();
    load_lines(transaction, &mut known, &tickets).await?;
    with_storms(transaction, &mut known).await?;
    Ok(known)
}

/// What a batch of decisions has to know; `known` has the deliveries. Locks their tickets.
pub(super) async fn of_decided(
    transaction: &Transaction<'_>,
    mut known: Known,
    decided: &[Decided],
    storm: Option<&Storm>,
) -> Result<Known, SpoolError> {
    let team_of = |one: &Decided| known.deliveries.get(&one.delivery).map(|d| d.team.clone());
    let tickets = plan::tickets_of(decided, team_of);
    lock(transaction, &tickets.keys().cloned().collect()).await?;
    load_lines(transaction, &mut known, &tickets).await?;
    namesakes(transaction, &mut known, decided).await?;
    for row in query(transaction, DOUBT, &[]).await? {
        known.doubt_before = rows::time(&row, 0)?;
    }
    if storm.is_some() {
        gatherings(transaction, &mut known, decided).await?;
    }
    let digests = decided
        .iter()
        .filter(|one| storm.is_some() || one.is_of_several());
    let digests: Vec<DeliveryId> = digests.map(|one| one.delivery).collect();
    last_of_mails(transaction, &mut known, digests).await?;
    for delivery in plan::retried_parts(&known, decided) {
        if is_split(transaction, &delivery).await? {
            known.split.insert(delivery.id);
        }
    }
    for (delivery, status, external_id) in plan::retried(&known, decided) {
        if let Some(reason) = overtaken(transaction, &delivery, status, &external_id).await? {
            known.overtaken.insert(delivery.id, reason);
        }
    }
    with_storms(transaction, &mut known).await?;
    Ok(known)
}

async fn with_storms(transaction: &Transaction<'_>, known: &mut Known) -> Result<(), SpoolError> {
    let summaries = plan::storms_of(known);
    if summaries.is_empty() {
        return Ok(());
    }
    lock(transaction, &summaries).await?;
    members(transaction, known, &summaries).await?;
    let lines = summaries.into_iter().map(|ticket| (ticket, Depth::All));
    load_lines(transaction, known, &lines.collect()).await?;
    let all: Vec<DeliveryId> = known.deliveries.keys().copied().collect();
    last_of_mails(transaction, known, all).await
}

async fn load_lines(
    transaction: &Transaction<'_>,
    known: &mut Known,
    tickets: &BTreeMap<TicketId, Depth>,
) -> Result<(), SpoolError> {
    if tickets.is_empty() {
        return Ok(());
    }
    let (teams, ids) = rows::columns(tickets.keys());
    let mosts: Vec<i64> = tickets.values().map(|d| rows::count(d.limit())).collect();
    let (kept, turns, behind) = tokio::try_join!(
        async { query(transaction, KEPT, &[&teams, &ids]).await },
        async { query(transaction, TURNS, &[&teams, &ids]).await },
        async { query(transaction, BEHIND, &[&teams, &ids, &mosts]).await },
    )?;
    for ticket in tickets.keys() {
        known.lines.insert(ticket.clone(), Line::default());
    }
    for row in &kept {
        let ticket = TicketId {
            team: row.try_get(0)?,
            external_id: row.try_get(1)?,
        };
        let state: &str = row.try_get(2)?;
        let state = TicketState::parse(state).ok_or_else(|| RecordError::Word(state.to_owned()))?;
        let storm: Option<&str> = row.try_get(4)?;
        let paged = row.try_get(3)?;
        known.lines.entry(ticket).or_default().kept = Some(KeptTicket {
            ticket: Ticket { state, paged },
            storm: storm.and_then(ExternalId::new),
        });
    }
    for turn in read_deliveries(&turns)? {
        if let Some(ticket) = turn.ticket_id() {
            known.lines.entry(ticket).or_default().turn = Some(turn);
        }
    }
    for one in read_deliveries(&behind)? {
        if let Some(ticket) = one.ticket_id() {
            let line = known.lines.entry(ticket).or_default();
            line.behind.push(one);
            line.is_long = line.behind.len() > BEHIND_MAX_FOR_CANCEL;
        }
    }
    Ok(())
}

/// Those that are there, in the order of their ids; locked until the end of the transaction.
pub(super) async fn by_id(
    transaction: &Transaction<'_>,
    ids: &[i64],
) -> Result<Vec<Delivery>, SpoolError> {
    read_deliveries(&query(transaction, BY_ID, &[&ids]).await?)
}

async fn namesakes(
    transaction: &Transaction<'_>,
    known: &mut Known,
    decided: &[Decided],
) -> Result<(), SpoolError> {
    let message_ids: BTreeSet<&str> = decided
        .iter()
        .filter_map(|one| one.message_id.as_deref())
        .collect();
    let message_ids: Vec<&str> = message_ids.into_iter().collect();
    let oldest = known.deliveries.values().map(|one| one.received).min();
    let since = oldest.unwrap_or(Time::from_ms(0)).minus(DUPLICATE_WINDOW);
    let found = query(
        transaction,
        NAMESAKES,
        &[&message_ids, &since.ms(), &DUPLICATE_OF],
    )
    .await?;
    for row in &found {
        let one = Namesake {
            id: DeliveryId(row.try_get(0)?),
            mail: MailId(row.try_get(1)?),
            team: row.try_get(2)?,
            event: row.try_get(3)?,
            external_id: row.try_get(4)?,
            title: row.try_get(5)?,
            says_nothing: row.try_get(6)?,
        };
        let message_id: String = row.try_get(7)?;
        known.namesakes.entry(message_id).or_default().push(one);
    }
    Ok(())
}

async fn last_of_mails(
    transaction: &Transaction<'_>,
    known: &mut Known,
    ids: Vec<DeliveryId>,
) -> Result<(), SpoolError> {
    if ids.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = ids.iter().map(|id| id.seq()).collect();
    let found = query(transaction, LAST, &[&seqs]).await?;
    for (row, id) in found.iter().zip(&ids) {
        let last: Option<i64> = row.try_get(1)?;
        if let Some((last, delivery)) = last.zip(known.deliveries.get(id)) {
            known.last_of_mail.insert(delivery.mail, DeliveryId(last));
        }
    }
    Ok(())
}

/// Whether the mail has other deliveries for the same team.
async fn is_split(transaction: &Transaction<'_>, delivery: &Delivery) -> Result<bool, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(delivery.id.seq());
    let part = i32::try_from(delivery.part).unwrap_or(i32::MAX);
    let row = transaction
        .query_one(IS_SPLIT, &[&first, &last, &delivery.team, &part])
        .await?;
    Ok(row.try_get(0)?)
}

/// Why a delivery that a person retries is not to be sent any more: a later one of its ticket has
/// said the contrary. A mail that was received twice says nothing a second time.
pub(super) async fn overtaken(
    transaction: &Transaction<'_>,
    delivery: &Delivery,
    status: Status,
    external_id: &str,
) -> Result<Option<&'static str>, SpoolError> {
    let (contrary, reason) = lifecycle::contrary(status);
    let row = transaction
        .query_one(
            OVERTAKEN,
            &[
                &external_id,
                &delivery.team,
                &delivery.id.0,
                &contrary.as_str(),
                &DUPLICATE_OF,
            ],
        )
        .await?;
    Ok(row.try_get::<_, bool>(0)?.then_some(reason))
}

async fn members(
    transaction: &Transaction<'_>,
    known: &mut Known,
    summaries: &BTreeSet<TicketId>,
) -> Result<(), SpoolError> {
    for summary in summaries {
        known.members.insert(summary.clone(), Members::default());
    }
    let (teams, ids) = rows::columns(summaries);
    let listed = rows::count(STORM_LISTED_MAX);
    let found = query(transaction, MEMBERS, &[&teams, &ids, &listed]).await?;
    for row in &found {
        let summary = TicketId {
            team: row.try_get(0)?,
            external_id: row.try_get(1)?,
        };
        let members = known.members.entry(summary).or_default();
        members.open = rows::size(row, 4)?;
        members.first.push(Member {
            external_id: row.try_get(2)?,
            title: row.try_get(3)?,
        });
    }
    Ok(())
}

async fn gatherings(
    transaction: &Transaction<'_>,
    known: &mut Known,
    decided: &[Decided],
) -> Result<(), SpoolError> {
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for one in decided {
        let Some(delivery) = known.deliveries.get(&one.delivery) else {
            continue;
        };
        if let Reading::Decisions(decisions) = &one.reading {
            let sources = decisions.iter().filter_map(|one| one.source.as_deref());
            keys.extend(sources.map(|source| (delivery.team.as_str(), source)));
        }
    }
    let (teams, sources): (Vec<&str>, Vec<&str>) = keys.into_iter().unzip();
    let found = query(transaction, STORMS, &[&teams, &sources]).await?;
    for row in &found {
        let summary: Option<&str> = row.try_get(4)?;
        let delivery: Option<i64> = row.try_get(3)?;
        let summary = delivery.zip(summary.and_then(ExternalId::new));
        let gathering = Gathering {
            recent: record::read_times(row.try_get(2)?)?,
            summary: summary.map(|(delivery, external_id)| Summary {
                delivery: DeliveryId(delivery),
                external_id,
            }),
        };
        known
            .storms
            .insert((row.try_get(0)?, row.try_get(1)?), gathering);
    }
    Ok(())
}

/// Those of a query that begins with [`delivery!`], with what follows its columns.
pub(super) fn with_more<T>(
    found: &[tokio_postgres::Row],
    more: impl Fn(&tokio_postgres::Row) -> Result<T, SpoolError>,
) -> Result<Vec<(Delivery, T)>, SpoolError> {
    let both = |row| Ok((read_delivery(row)?, more(row)?));
    found.iter().map(both).collect()
}
