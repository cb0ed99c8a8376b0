//! Mails that come in, and those that have to be decided.

use rusqlite::{Connection, params};

use super::rows;
use crate::clock::Time;
use crate::limits::UNDECIDED_BYTES_MAX;
use crate::smtp::ReceivedMail;
use crate::spool::{Addressed, DeliveryId, MailId, SpoolError, Undecided, one_for_each_team};

pub(super) fn accept(
    connection: &Connection,
    mail: &ReceivedMail,
    now: Time,
) -> Result<MailId, SpoolError> {
    let id = MailId::at(now);
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
    for (number, recipient) in (0..).zip(one_for_each_team(&mail.recipients)) {
        connection
            .prepare_cached(
                "INSERT INTO deliveries (id, team, forward_path, stage, since_ms)
                 VALUES (?1, ?2, ?3, 0, ?4)",
            )?
            .execute(params![
                DeliveryId::new(seq, number).0,
                recipient.team,
                recipient.forward_path,
                now.ms()
            ])?;
        rows::count_in_ledger(connection, &recipient.team, "accepted", 1)?;
    }
    Ok(id)
}

pub(super) fn undecided(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<Undecided>, SpoolError> {
    let mut statement = connection.prepare_cached(
        "SELECT d.id, d.team, d.forward_path, m.id, m.received_ms, m.reverse_path, m.bytes
         FROM deliveries d JOIN mails m ON m.seq = d.id >> 20
         WHERE d.stage = 0 ORDER BY d.id",
    )?;
    let mut found = statement.query(())?;
    let mut mails: Vec<(i64, Undecided)> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let delivery = DeliveryId(row.get(0)?);
        let addressed = Addressed {
            delivery,
            team: row.get(1)?,
            forward_path: row.get(2)?,
        };
        if let Some((last, mail)) = mails.last_mut()
            && *last == delivery.seq()
        {
            mail.addressed.push(addressed);
            continue;
        }
        bytes += row.get::<_, usize>(6)?;
        if mails.len() == limit || (bytes > UNDECIDED_BYTES_MAX && !mails.is_empty()) {
            break;
        }
        let mail = Undecided {
            mail: MailId(row.get(3)?),
            received: Time::from_ms(row.get(4)?),
            reverse_path: row.get(5)?,
            addressed: vec![addressed],
            raw: Vec::new(),
        };
        mails.push((delivery.seq(), mail));
    }
    let with_body = |(seq, mail): (i64, Undecided)| {
        Ok(Undecided {
            raw: rows::body(connection, seq)?,
            ..mail
        })
    };
    mails.into_iter().map(with_body).collect()
}
