//! Mails that come in, and those that have to be decided.

use rusqlite::{Connection, params};

use super::rows;
use crate::clock::Time;
use crate::limits::{SMTP_PIECE_BYTES, UNDECIDED_BYTES_MAX};
use crate::smtp::{ReceivedMail, Rest, RestId};
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
            i64::try_from(mail.bytes()).unwrap_or(i64::MAX),
        ])?;
    let seq = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO bodies (seq, raw, rest) VALUES (?1, ?2, ?3)")?
        .execute(params![seq, mail.data, mail.rest.map(|rest| rest.id.0)])?;
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

pub(super) fn keep(connection: &Connection, rest: Rest, piece: &[u8]) -> Result<(), SpoolError> {
    let at = i64::try_from(rest.bytes).unwrap_or(i64::MAX);
    connection
        .prepare_cached("INSERT INTO pieces (rest, at, bytes) VALUES (?1, ?2, ?3)")?
        .execute(params![rest.id.0, at, piece])?;
    Ok(())
}

pub(super) fn discard(connection: &Connection, rest: RestId) -> Result<(), SpoolError> {
    connection
        .prepare_cached(
            "DELETE FROM pieces WHERE rest = ?1
             AND NOT EXISTS (SELECT 1 FROM bodies b WHERE b.rest = ?1)",
        )?
        .execute([rest.0])?;
    Ok(())
}

/// What was being received when the gateway died.
pub(super) fn discard_all(connection: &Connection) -> Result<(), SpoolError> {
    connection.execute(
        "DELETE FROM pieces WHERE rest NOT IN (SELECT rest FROM bodies WHERE rest IS NOT NULL)",
        (),
    )?;
    Ok(())
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
        let mail_bytes: u64 = row.get(6)?;
        bytes += mail_bytes.min(SMTP_PIECE_BYTES as u64);
        if mails.len() == limit || (bytes > UNDECIDED_BYTES_MAX as u64 && !mails.is_empty()) {
            break;
        }
        let mail = Undecided {
            mail: MailId(row.get(3)?),
            received: Time::from_ms(row.get(4)?),
            reverse_path: row.get(5)?,
            addressed: vec![addressed],
            raw: Vec::new(),
            bytes: mail_bytes,
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
