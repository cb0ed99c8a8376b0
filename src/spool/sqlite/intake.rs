//! Mails that come in, and those that have to be decided.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::fresh::Found;
use super::rows;
use crate::clock::Time;
use crate::limits::{SMTP_PIECE_BYTES, UNDECIDED_BYTES_MAX};
use crate::smtp::{ReceivedMail, Rest, RestId};
use crate::spool::{Addressed, DeliveryId, MailId, SpoolError, Undecided};

/// What a mail is called in the file.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) mail: MailId,
    pub(super) seq: i64,
    addressed: Vec<Addressed>,
}

impl Accepted {
    pub(super) fn undecided(self, mail: ReceivedMail, received: Time) -> Undecided {
        Undecided {
            mail: self.mail,
            received,
            bytes: mail.bytes(),
            reverse_path: mail.reverse_path,
            addressed: self.addressed,
            raw: mail.data,
        }
    }
}

pub(super) fn accept(
    connection: &Connection,
    mail: &ReceivedMail,
    now: Time,
) -> Result<Accepted, SpoolError> {
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
    let mut addressed = Vec::new();
    for (number, recipient) in (0..).zip(mail.recipients.iter()) {
        let delivery = DeliveryId::new(seq, number);
        connection
            .prepare_cached(
                "INSERT INTO deliveries (id, team, forward_path, stage, since_ms)
                 VALUES (?1, ?2, ?3, 0, ?4)",
            )?
            .execute(params![
                delivery.0,
                recipient.team,
                recipient.forward_path,
                now.ms()
            ])?;
        rows::count_in_ledger(connection, &recipient.team, "accepted", 1)?;
        addressed.push(Addressed {
            delivery,
            team: recipient.team.clone(),
            forward_path: recipient.forward_path.clone(),
        });
    }
    Ok(Accepted {
        mail: id,
        seq,
        addressed,
    })
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

/// The oldest mails with undecided deliveries but `except`.
pub(super) fn undecided(
    connection: &Connection,
    except: &BTreeSet<DeliveryId>,
    limit: usize,
) -> Result<Found, SpoolError> {
    let mut found = Found::default();
    let mut bytes = 0;
    let mut ids =
        connection.prepare_cached("SELECT id FROM deliveries WHERE stage = 0 ORDER BY id")?;
    let mut ids = ids.query(())?;
    while let Some(row) = ids.next()? {
        let delivery = DeliveryId(row.get(0)?);
        let seq = delivery.seq();
        if except.contains(&delivery) {
            continue;
        }
        let mail = match found.mails.last_mut() {
            Some((last, mail)) if *last == seq => mail,
            _ => {
                let mail = without_body(connection, seq)?;
                bytes += SMTP_PIECE_BYTES.min(usize::try_from(mail.bytes).unwrap_or(usize::MAX));
                let is_enough = found.mails.len() == limit || bytes > UNDECIDED_BYTES_MAX;
                if is_enough && !found.mails.is_empty() {
                    found.has_more = true;
                    break;
                }
                let raw = rows::body(connection, seq)?;
                &mut found.mails.push_mut((seq, Undecided { raw, ..mail })).1
            }
        };
        mail.addressed.push(addressed(connection, delivery)?);
    }
    Ok(found)
}

fn without_body(connection: &Connection, seq: i64) -> Result<Undecided, SpoolError> {
    Ok(connection
        .prepare_cached("SELECT id, received_ms, reverse_path, bytes FROM mails WHERE seq = ?1")?
        .query_row([seq], |row| {
            Ok(Undecided {
                mail: MailId(row.get(0)?),
                received: Time::from_ms(row.get(1)?),
                reverse_path: row.get(2)?,
                addressed: Vec::new(),
                raw: Vec::new(),
                bytes: row.get(3)?,
            })
        })?)
}

fn addressed(connection: &Connection, delivery: DeliveryId) -> Result<Addressed, SpoolError> {
    Ok(connection
        .prepare_cached("SELECT team, forward_path FROM deliveries WHERE id = ?1")?
        .query_row([delivery.0], |row| {
            Ok(Addressed {
                delivery,
                team: row.get(0)?,
                forward_path: row.get(1)?,
            })
        })?)
}
