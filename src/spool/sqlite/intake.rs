//! Mails that come in, and those that have to be decided.

use rusqlite::{Connection, params};
use uuid::{Timestamp, Uuid};

use super::rows::{self, STAGE_ACCEPTED};
use crate::clock::Time;
use crate::limits::UNDECIDED_BYTES_MAX;
use crate::smtp::{ReceivedMail, Recipient};
use crate::spool::{Addressed, DeliveryId, MailId, SpoolError, Undecided};

pub(super) fn accept(
    connection: &Connection,
    mail: &ReceivedMail,
    now: Time,
) -> Result<MailId, SpoolError> {
    let id = new_id(now);
    connection
        .prepare_cached(
            "INSERT INTO mails (id, received_ms, peer, helo, tls, user, reverse_path, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            id.0,
            now.ms(),
            mail.peer.to_string(),
            mail.helo,
            mail.tls,
            mail.user,
            mail.reverse_path,
            rows::count(mail.data.len()),
        ])?;
    let seq = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO bodies (seq, raw) VALUES (?1, ?2)")?
        .execute(params![seq, mail.data])?;
    for recipient in one_for_each_team(&mail.recipients) {
        connection
            .prepare_cached(
                "INSERT INTO deliveries (seq, team, forward_path, stage, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                seq,
                recipient.team,
                recipient.forward_path,
                STAGE_ACCEPTED,
                now.ms()
            ])?;
        rows::count_in_ledger(connection, &recipient.team, "accepted", 1)?;
    }
    Ok(id)
}

/// Milliseconds of the gateway's clock, then a counter and chance: ids sort by arrival.
fn new_id(now: Time) -> MailId {
    let ms = u64::try_from(now.ms()).unwrap_or(0);
    let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    let context = uuid::timestamp::context::ContextV7::new();
    MailId(Uuid::new_v7(Timestamp::from_unix(
        context,
        ms / 1000,
        nanos,
    )))
}

/// A mail to two addresses of one team is one delivery.
pub(crate) fn one_for_each_team(recipients: &[Recipient]) -> Vec<&Recipient> {
    let mut firsts: Vec<&Recipient> = Vec::new();
    for recipient in recipients {
        if !firsts.iter().any(|first| first.team == recipient.team) {
            firsts.push(recipient);
        }
    }
    firsts
}

pub(super) fn undecided(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<Undecided>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT d.seq, d.id, d.team, d.forward_path, m.id, m.received_ms, m.reverse_path, m.bytes
         FROM deliveries d JOIN mails m ON m.seq = d.seq
         WHERE d.stage = 0 ORDER BY d.seq, d.id",
    )?;
    let mut found = statement.query(())?;
    let mut mails: Vec<(i64, Undecided)> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        let addressed = Addressed {
            delivery: DeliveryId(row.get(1)?),
            team: row.get(2)?,
            forward_path: row.get(3)?,
        };
        if let Some((last, mail)) = mails.last_mut()
            && *last == seq
        {
            mail.addressed.push(addressed);
            continue;
        }
        bytes += row.get::<_, usize>(7)?;
        if mails.len() == limit || (bytes > UNDECIDED_BYTES_MAX && !mails.is_empty()) {
            break;
        }
        let mail = Undecided {
            mail: MailId(row.get(4)?),
            received: Time::from_ms(row.get(5)?),
            reverse_path: row.get(6)?,
            addressed: vec![addressed],
            raw: Vec::new(),
        };
        mails.push((seq, mail));
    }
    let with_body = |(seq, mail): (i64, Undecided)| {
        Ok(Undecided {
            raw: rows::body(connection, seq)?,
            ..mail
        })
    };
    mails.into_iter().map(with_body).collect()
}
