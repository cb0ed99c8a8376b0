//! Loads what the plan has to know of deliveries and tickets.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, delivery};
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

/// What a batch of decisions has to know.
pub(super) fn of_decided(
    connection: &Connection,
    decided: &[Decided],
    storm: Option<&Storm>,
) -> Result<Known, SpoolError> {
    let mut known = of_deliveries(connection, decided.iter().map(|one| one.delivery))?;
    let team_of = |one: &Decided| known.deliveries.get(&one.delivery).map(|d| d.team.clone());
    let tickets = plan::tickets_of(decided, team_of);
    known.doubt_before = connection
        .prepare_cached("SELECT doubt_before_ms FROM memory")?
        .query_row((), |row| row.get(0).map(Time::from_ms))?;
    for (ticket, depth) in tickets {
        load_line(connection, &mut known, ticket, depth)?;
    }
    for one in decided {
        namesakes(connection, &mut known, one)?;
        let Some(delivery) = known.deliveries.get(&one.delivery) else {
            continue;
        };
        if storm.is_some() {
            gatherings(connection, &mut known.storms, &delivery.team, &one.reading)?;
        }
        if one.is_of_several() || storm.is_some() {
            let last = last_of_mail(connection, delivery.id)?;
            known.last_of_mail.insert(delivery.mail, last);
        }
    }
    for delivery in plan::retried_parts(&known, decided) {
        if is_split(connection, &delivery)? {
            known.split.insert(delivery.id);
        }
    }
    for (delivery, status, external_id) in plan::retried(&known, decided) {
        if let Some(reason) = overtaken(connection, &delivery, status, &external_id)? {
            known.overtaken.insert(delivery.id, reason);
        }
    }
    with_storms(connection, &mut known)?;
    Ok(known)
}

pub(super) fn of_deliveries(
    connection: &Connection,
    ids: impl IntoIterator<Item = DeliveryId>,
) -> Result<Known, SpoolError> {
    let mut known = Known::default();
    for id in ids {
        let found = rows::deliveries(connection, delivery!("d.id = ?1"), [id.0])?;
        known
            .deliveries
            .extend(found.into_iter().map(|one| (one.id, one)));
    }
    Ok(known)
}

/// The deliveries with the lines of their tickets, and the storms that those belong to.
pub(super) fn of_moved(
    connection: &Connection,
    deliveries: impl IntoIterator<Item = Delivery>,
    depth: Depth,
) -> Result<Known, SpoolError> {
    let mut known = Known {
        deliveries: deliveries.into_iter().map(|one| (one.id, one)).collect(),
        ..Known::default()
    };
    for ticket in plan::tickets(known.deliveries.values()) {
        load_line(connection, &mut known, ticket, depth)?;
    }
    with_storms(connection, &mut known)?;
    Ok(known)
}

fn with_storms(connection: &Connection, known: &mut Known) -> Result<(), SpoolError> {
    let summaries = plan::storms_of(known);
    if summaries.is_empty() {
        return Ok(());
    }
    for summary in summaries {
        let members = members(connection, &summary)?;
        known.members.insert(summary.clone(), members);
        load_line(connection, known, summary, Depth::All)?;
    }
    for delivery in known.deliveries.values() {
        let last = last_of_mail(connection, delivery.id)?;
        known.last_of_mail.insert(delivery.mail, last);
    }
    Ok(())
}

fn load_line(
    connection: &Connection,
    known: &mut Known,
    ticket: TicketId,
    depth: Depth,
) -> Result<(), SpoolError> {
    let turn = rows::turn_of(connection, &ticket)?;
    let mut line = Line {
        kept: kept(connection, &ticket)?,
        ..Line::default()
    };
    // Nothing is behind without somebody in front.
    if turn.is_some() {
        let sql = delivery!(
            "d.team = ?1 AND d.external_id = ?2 AND d.stage = 1 AND d.external_id IS NOT NULL
             ORDER BY d.id LIMIT ?3"
        );
        let values = params![ticket.team, ticket.external_id, rows::count(depth.limit())];
        line.behind = rows::deliveries(connection, sql, values)?;
        line.is_long = line.behind.len() > BEHIND_MAX_FOR_CANCEL;
    }
    line.turn = turn;
    known.lines.insert(ticket, line);
    Ok(())
}

fn kept(connection: &Connection, ticket: &TicketId) -> Result<Option<KeptTicket>, SpoolError> {
    let found = connection
        .prepare_cached(
            "SELECT state, paged, storm FROM tickets WHERE team = ?1 AND external_id = ?2",
        )?
        .query_row([&ticket.team, &ticket.external_id], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        })
        .optional()?;
    let Some((state, paged, storm)) = found else {
        return Ok(None);
    };
    let state = TicketState::parse(&state).ok_or(RecordError::Word(state))?;
    Ok(Some(KeptTicket {
        ticket: Ticket { state, paged },
        storm: storm.as_deref().and_then(ExternalId::new),
    }))
}

fn namesakes(
    connection: &Connection,
    known: &mut Known,
    decided: &Decided,
) -> Result<(), SpoolError> {
    let (Some(message_id), Some(delivery)) =
        (&decided.message_id, known.deliveries.get(&decided.delivery))
    else {
        return Ok(());
    };
    if known.namesakes.contains_key(message_id) {
        return Ok(());
    }
    let since = delivery.received.minus(DUPLICATE_WINDOW).ms();
    let mut statement = connection.prepare_cached(
        "SELECT d.id, m.id, d.team, d.event, d.external_id, d.title,
             d.outcome IS 'dead-letter' OR coalesce(d.reason LIKE ?3 || '%', false)
         FROM deliveries d JOIN mails m ON m.seq = d.id >> 20
         WHERE d.message_id = ?1 AND m.received_ms >= ?2 ORDER BY d.id",
    )?;
    let found = statement.query_map(params![message_id, since, DUPLICATE_OF], |row| {
        Ok(Namesake {
            id: DeliveryId(row.get(0)?),
            mail: MailId(row.get(1)?),
            team: row.get(2)?,
            event: row.get(3)?,
            external_id: row.get(4)?,
            title: row.get(5)?,
            says_nothing: row.get(6)?,
        })
    })?;
    let found = found.collect::<Result<_, _>>()?;
    known.namesakes.insert(message_id.clone(), found);
    Ok(())
}

fn last_of_mail(connection: &Connection, id: DeliveryId) -> Result<DeliveryId, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(id.seq());
    let found = connection
        .prepare_cached("SELECT max(id) FROM deliveries WHERE id BETWEEN ?1 AND ?2")?
        .query_row([first, last], |row| row.get::<_, Option<i64>>(0))?;
    Ok(found.map_or(id, DeliveryId))
}

/// Whether the mail has other deliveries for the same team.
fn is_split(connection: &Connection, delivery: &Delivery) -> Result<bool, SpoolError> {
    let (first, last) = DeliveryId::range_of_mail(delivery.id.seq());
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries
                 WHERE id BETWEEN ?1 AND ?2 AND team = ?3 AND part <> ?4)",
        )?
        .query_row(params![first, last, delivery.team, delivery.part], |row| {
            row.get(0)
        })?)
}

/// Why a delivery that a person retries is not to be sent any more: a later one of its ticket has
/// said the contrary. A mail that was received twice says nothing a second time.
pub(super) fn overtaken(
    connection: &Connection,
    delivery: &Delivery,
    status: Status,
    external_id: &str,
) -> Result<Option<&'static str>, SpoolError> {
    let (contrary, reason) = lifecycle::contrary(status);
    let found: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries
                 WHERE external_id = ?1 AND team = ?2 AND id > ?3
                 AND status = ?4 AND outcome IS NOT 'dead-letter'
                 AND (reason IS NULL OR reason NOT LIKE ?5 || '%'))",
        )?
        .query_row(
            params![
                external_id,
                delivery.team,
                delivery.id.0,
                contrary.as_str(),
                DUPLICATE_OF
            ],
            |row| row.get(0),
        )?;
    Ok(found.then_some(reason))
}

fn members(connection: &Connection, summary: &TicketId) -> Result<Members, SpoolError> {
    let values = [&summary.team, &summary.external_id];
    let open: u64 = connection
        .prepare_cached(
            "SELECT count(*) FROM tickets WHERE team = ?1 AND storm = ?2 AND state <> 'resolved'",
        )?
        .query_row(values, |row| row.get(0))?;
    let mut statement = connection.prepare_cached(
        "SELECT external_id, title FROM tickets WHERE team = ?1 AND storm = ?2
         AND state <> 'resolved' ORDER BY changed_ms, external_id LIMIT ?3",
    )?;
    let values = params![
        summary.team,
        summary.external_id,
        rows::count(STORM_LISTED_MAX)
    ];
    let first = statement.query_map(values, |row| {
        Ok(Member {
            external_id: row.get(0)?,
            title: row.get(1)?,
        })
    })?;
    let first = first.collect::<Result<_, _>>()?;
    Ok(Members { open, first })
}

fn gatherings(
    connection: &Connection,
    storms: &mut std::collections::HashMap<(String, String), Gathering>,
    team: &str,
    reading: &Reading,
) -> Result<(), SpoolError> {
    let Reading::Decisions(decisions) = reading else {
        return Ok(());
    };
    for source in decisions.iter().filter_map(|one| one.source.as_ref()) {
        let key = (team.to_owned(), source.clone());
        if storms.contains_key(&key) {
            continue;
        }
        let found = connection
            .prepare_cached(
                "SELECT recent, delivery, summary FROM storms WHERE team = ?1 AND source = ?2",
            )?
            .query_row([&key.0, &key.1], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, Option<i64>>(1)?,
                    row.get::<_, Option<String>>(2)?,
                ))
            })
            .optional()?;
        let Some((recent, delivery, summary)) = found else {
            continue;
        };
        let summary = delivery.zip(summary.as_deref().and_then(ExternalId::new));
        let gathering = Gathering {
            recent: record::read_times(&recent)?,
            summary: summary.map(|(delivery, external_id)| Summary {
                delivery: DeliveryId(delivery),
                external_id,
            }),
        };
        storms.insert(key, gathering);
    }
    Ok(())
}
