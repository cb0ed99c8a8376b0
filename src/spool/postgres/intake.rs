//! Mails that come in, and those that have to be read.

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::{GenericClient, Pool, Transaction};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::group::Jobs;
use super::node::Node;
use super::rows::{self, query};
use super::transaction::{self, on_connection};
use crate::clock::Time;
use crate::limits::{POSTGRES_WORK_MAX, SMTP_PIECE_BYTES, UNDECIDED_BYTES_MAX};
use crate::smtp::{ReceivedMail, Rest, RestId};
use crate::spool::{Addressed, DeliveryId, MailId, SpoolError, ToDecide, Undecided};

/// One statement is one transaction: mails, their deliveries and the ledger, in one round trip.
pub(super) const ACCEPT: &str = "WITH m AS (
        INSERT INTO mails (id, received_ms, peer, helo, tls, username, reverse_path, bytes)
        SELECT x.id, x.received_ms, x.peer, x.helo, x.tls, x.username, x.reverse_path, x.bytes
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
            $7::text[], $15::bigint[])
        AS x (id, received_ms, peer, helo, tls, username, reverse_path, bytes)
        RETURNING seq, id),
    b AS (
        INSERT INTO bodies (seq, raw, rest)
        SELECT m.seq, x.raw, x.rest
        FROM unnest($1::uuid[], $8::bytea[], $16::uuid[]) AS x (id, raw, rest)
        JOIN m ON m.id = x.id),
    l AS (
        INSERT INTO ledger AS l (team, entry, node, total)
        SELECT x.team, 'accepted', $13, count(*)
        FROM unnest($11::text[]) AS x (team) GROUP BY x.team ORDER BY x.team
        ON CONFLICT (team, entry, node) DO UPDATE SET total = l.total + excluded.total),
    k AS (
        INSERT INTO kept AS k (node, bytes)
        SELECT $13, sum(x.bytes) FROM unnest($15::bigint[]) AS x (bytes)
        ON CONFLICT (node) DO UPDATE SET bytes = k.bytes + excluded.bytes)
    INSERT INTO deliveries (id, team, forward_path, stage, since_ms)
    SELECT (m.seq << 20) | x.number, x.team, x.forward_path, 0, x.since_ms
    FROM unnest($9::uuid[], $10::int[], $11::text[], $12::text[], $14::bigint[])
    AS x (id, number, team, forward_path, since_ms) JOIN m ON m.id = x.id";

pub(super) const KEEP: &str = "INSERT INTO pieces (rest, at, bytes) VALUES ($1, $2, $3)";

/// Made with the first piece.
const BEGIN_REST: &str = "INSERT INTO rests (rest, node) VALUES ($1, $2)";

const DISCARD: &str = "DELETE FROM rests r WHERE r.rest = $1
    AND NOT EXISTS (SELECT 1 FROM bodies b WHERE b.rest = r.rest)";

/// What nodes were receiving that are gone.
pub(super) const DISCARD_OF_OTHERS: &str = "DELETE FROM rests r
    WHERE NOT EXISTS (SELECT 1 FROM bodies b WHERE b.rest = r.rest)
    AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.node = r.node AND n.expires > now())";

/// The oldest that nobody reads; of one that has failed in reading them, too.
pub(super) const TAKE_UNREAD: &str = "WITH next AS (
        SELECT id FROM deliveries
        WHERE stage = 0 AND reading IS NULL AND (node IS NULL OR node = $1
            OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.node = deliveries.node AND n.expires > now()))
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
    taken AS (
        UPDATE deliveries d SET node = $1 FROM next WHERE d.id = next.id
        RETURNING d.id, d.team, d.forward_path)
    SELECT t.id, t.team, t.forward_path, m.id, m.received_ms, m.reverse_path, m.bytes
    FROM taken t JOIN mails m ON m.seq = t.id >> 20 ORDER BY t.id";

const HAND_BACK: &str = "UPDATE deliveries SET node = NULL
    WHERE stage = 0 AND reading IS NULL AND node = $1";

/// Read by nodes that are gone, or that were waiting for one that is.
pub(super) const IS_PLACEABLE: &str = "SELECT EXISTS (SELECT 1 FROM deliveries d
    WHERE d.stage = 0 AND d.reading IS NOT NULL AND d.id < coalesce(
        (SELECT min(u.id) FROM deliveries u WHERE u.stage = 0 AND u.reading IS NULL),
        9223372036854775807))";

pub(super) const BODIES: &str = "SELECT seq, raw FROM bodies WHERE seq = ANY($1)";

type Accepting = Jobs<(MailId, ReceivedMail, Time), MailId>;

/// Mails that wait together share one statement, and so one sync. When it is refused, each is tried
/// alone, so that one bad mail harms no other.
pub(super) async fn accept_groups(mut jobs: Accepting, pool: Pool, node: Arc<Node>) {
    while let Some(group) = jobs.next().await {
        let (mut mails, mut waiting) = (Vec::new(), Vec::new());
        for job in group {
            let (job, mail) = job.take();
            mails.push(mail);
            waiting.push(job);
        }
        let result = accept_group(&pool, &mails, &node).await;
        let is_alone = mails.len() == 1;
        for (mail, job) in mails.into_iter().zip(waiting) {
            let id = mail.0;
            let one = match &result {
                // Nor would it answer them one by one, each after its own wait.
                Err(SpoolError::Unavailable(_)) => result.clone(),
                Err(_) if !is_alone => accept_group(&pool, &[mail], &node).await,
                shared => shared.clone(),
            };
            job.answer(one.map(|()| id));
        }
        node.ring();
    }
}

async fn accept_group(
    pool: &Pool,
    mails: &[(MailId, ReceivedMail, Time)],
    node: &Node,
) -> Result<(), SpoolError> {
    on_connection!(pool, POSTGRES_WORK_MAX, |client| accept(
        client, mails, node.id
    ))
}

pub(super) async fn accept(
    client: &impl GenericClient,
    mails: &[(MailId, ReceivedMail, Time)],
    node: Uuid,
) -> Result<(), SpoolError> {
    let ids: Vec<Uuid> = mails.iter().map(|(id, ..)| id.0).collect();
    let received: Vec<i64> = mails.iter().map(|(_, _, now)| now.ms()).collect();
    let peers: Vec<String> = mails
        .iter()
        .map(|(_, mail, _)| mail.peer.to_string())
        .collect();
    let text = |read: fn(&ReceivedMail) -> &str| -> Vec<String> {
        mails
            .iter()
            .map(|(_, mail, _)| without_nul(read(mail)))
            .collect()
    };
    let helos = text(|mail| &mail.helo);
    let reverse_paths = text(|mail| &mail.reverse_path);
    let tls: Vec<Option<&str>> = mails
        .iter()
        .map(|(_, mail, _)| mail.tls.as_deref())
        .collect();
    let users: Vec<Option<&str>> = mails
        .iter()
        .map(|(_, mail, _)| mail.user.as_deref())
        .collect();
    let raws: Vec<&[u8]> = mails
        .iter()
        .map(|(_, mail, _)| mail.data.as_slice())
        .collect();
    let bytes: Vec<i64> = mails
        .iter()
        .map(|(_, mail, _)| i64::try_from(mail.bytes()).unwrap_or(i64::MAX))
        .collect();
    let rests: Vec<Option<Uuid>> = mails
        .iter()
        .map(|(_, mail, _)| mail.rest.map(|rest| rest.id.0))
        .collect();
    let mut of_mails: Vec<Uuid> = Vec::new();
    let mut numbers: Vec<i32> = Vec::new();
    let mut teams: Vec<&str> = Vec::new();
    let mut forward_paths: Vec<String> = Vec::new();
    let mut since: Vec<i64> = Vec::new();
    for (id, mail, now) in mails {
        for (number, recipient) in (0..).zip(mail.recipients.iter()) {
            of_mails.push(id.0);
            numbers.push(number);
            teams.push(&recipient.team);
            forward_paths.push(without_nul(&recipient.forward_path));
            since.push(now.ms());
        }
    }
    let statement = client.prepare_cached(ACCEPT).await?;
    client
        .execute(
            &statement,
            &[
                &ids,
                &received,
                &peers,
                &helos,
                &tls,
                &users,
                &reverse_paths,
                &raws,
                &of_mails,
                &numbers,
                &teams,
                &forward_paths,
                &node,
                &since,
                &bytes,
                &rests,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn keep(
    transaction: &Transaction<'_>,
    rest: Rest,
    piece: &[u8],
    node: Uuid,
) -> Result<(), SpoolError> {
    if rest.bytes == 0 {
        let values: &[&(dyn ToSql + Sync)] = &[&rest.id.0, &node];
        transaction.execute(BEGIN_REST, values).await?;
    }
    let at = i64::try_from(rest.bytes).unwrap_or(i64::MAX);
    let statement = transaction.prepare_cached(KEEP).await?;
    let values: &[&(dyn ToSql + Sync)] = &[&rest.id.0, &at, &piece];
    transaction.execute(&statement, values).await?;
    Ok(())
}

pub(super) async fn discard(transaction: &Transaction<'_>, rest: RestId) -> Result<(), SpoolError> {
    transaction.execute(DISCARD, &[&rest.0]).await?;
    Ok(())
}

/// PostgreSQL's text has no NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) async fn undecided(
    transaction: &Transaction<'_>,
    limit: usize,
    node: Uuid,
) -> Result<ToDecide, SpoolError> {
    let taken = query(transaction, TAKE_UNREAD, &[&node, &rows::count(limit)]).await?;
    let mut mails: Vec<(i64, Undecided)> = Vec::new();
    let mut bytes = 0;
    for row in &taken {
        let delivery = DeliveryId(row.try_get(0)?);
        let addressed = Addressed {
            delivery,
            team: row.try_get(1)?,
            forward_path: row.try_get(2)?,
        };
        if let Some((last, mail)) = mails.last_mut()
            && *last == delivery.seq()
        {
            mail.addressed.push(addressed);
            continue;
        }
        let mail_bytes = rows::size(row, 6)?;
        bytes += mail_bytes.min(SMTP_PIECE_BYTES as u64);
        if bytes > UNDECIDED_BYTES_MAX as u64 && !mails.is_empty() {
            break; // taken all the same, and read next
        }
        let mail = Undecided {
            mail: MailId(row.try_get(3)?),
            received: rows::time(row, 4)?,
            reverse_path: row.try_get(5)?,
            addressed: vec![addressed],
            raw: Vec::new(),
            bytes: mail_bytes,
        };
        mails.push((delivery.seq(), mail));
    }
    let seqs: Vec<i64> = mails.iter().map(|(seq, _)| *seq).collect();
    let found = query(transaction, BODIES, &[&seqs]).await?;
    let mut bodies: HashMap<i64, Vec<u8>> = HashMap::new();
    for row in &found {
        bodies.insert(row.try_get(0)?, row.try_get(1)?);
    }
    // Empty when it is gone, which `audit` tells: an empty mail alerts, an error would stop all others.
    let with_body = |(seq, mail): (i64, Undecided)| {
        Arc::new(Undecided {
            raw: bodies.remove(&seq).unwrap_or_default(),
            ..mail
        })
    };
    let mails: Vec<Arc<Undecided>> = mails.into_iter().map(with_body).collect();
    // Asked when there is nothing else to do: otherwise they take their place with what is read now.
    let are_others_read = mails.is_empty() && is_placeable(transaction).await?;
    Ok(ToDecide {
        mails,
        are_others_read,
    })
}

pub(super) async fn hand_back(transaction: &Transaction<'_>, node: Uuid) -> Result<(), SpoolError> {
    transaction.execute(HAND_BACK, &[&node]).await?;
    Ok(())
}

async fn is_placeable(transaction: &Transaction<'_>) -> Result<bool, SpoolError> {
    let found = query(transaction, IS_PLACEABLE, &[]).await?;
    Ok(found.first().is_some_and(|row| row.get(0)))
}
