//! This gateway among those that share the database: it keeps its row from expiring, takes over from
//! those whose row has expired, and hears when another has changed something.
//!
//! A process that dies loses its connections at once, and with the one on which it listens a lock
//! that it holds for as long as it lives: the others see that within two beats, and need not wait for its
//! row to expire.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deadpool_postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;
use uuid::Uuid;

use super::transaction::{self, on_connection};
use super::{connect, lease};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::limits::{
    NODE_EXPIRES, NODE_HEARTBEAT, POSTGRES_BEAT_MAX, POSTGRES_CONNECT_TIMEOUT,
    POSTGRES_PAUSE_FIRST, POSTGRES_PAUSE_MAX, POSTGRES_WORK_MAX, RING_PAUSE,
};
use crate::spool::SpoolError;

const CHANNEL: &str = "mailbell";

/// Who says that something has changed, when it is no node.
pub(super) const PERSON: Uuid = Uuid::nil();

/// Held by each node on the connection on which it listens.
const LIVE: &str = "SELECT pg_advisory_lock(hashtextextended($1::uuid::text, 1))";

/// The server holds the lock of a node that has vanished no longer than a node holds on to a server that
/// has; its own defaults are two hours.
const FOUND_DEAD: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3;
    SET tcp_keepalives_count = 3";

/// Those whose row has not expired, and whether their lock is free. It is given back at once.
const LOOK_AT_OTHERS: &str = "SELECT o.node, CASE
        WHEN pg_try_advisory_lock(o.key) THEN pg_advisory_unlock(o.key) ELSE false END
    FROM (SELECT node, hashtextextended(node::text, 1) AS key FROM nodes
          WHERE expires > now() AND node <> $1) AS o";

/// A node whose lock is free so many times in a row is gone: one that has only lost its connection
/// has made another meanwhile.
const MISSED_BEATS: u32 = 2;

/// One node, as its tasks share it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: Uuid,
    hostname: String,
    /// Those whose row has not expired, this one among them.
    living: AtomicUsize,
    /// Another node, or a person, has changed something.
    pub(super) changed: Notify,
    /// It was a person.
    pub(super) by_person: AtomicBool,
    /// This node has changed what concerns others.
    bell: Notify,
    /// Whether its lock is held, and others are heard.
    listens: watch::Sender<bool>,
    /// The connection on which it listens may lead nowhere.
    lost: Notify,
    /// Nodes whose lock was free, and how many times in a row.
    missed: Mutex<HashMap<Uuid, u32>>,
}

impl Node {
    pub(super) fn new(hostname: &str) -> Node {
        Node {
            id: Uuid::now_v7(),
            hostname: hostname.to_owned(),
            living: AtomicUsize::new(1),
            changed: Notify::new(),
            by_person: AtomicBool::new(false),
            bell: Notify::new(),
            listens: watch::Sender::new(false),
            lost: Notify::new(),
            missed: Mutex::default(),
        }
    }

    pub(super) fn living(&self) -> usize {
        self.living.load(Ordering::Relaxed).max(1)
    }

    /// Lets the other nodes look, if there are any.
    pub(super) fn ring(&self) {
        if self.living() > 1 {
            self.bell.notify_one();
        }
    }

    /// Keeps the row of this node, and takes over from those that are gone. The database's clock
    /// decides about both.
    pub(super) async fn beat(&self, pool: &Pool) -> Result<(), SpoolError> {
        let (taken, living) = on_connection!(pool, POSTGRES_BEAT_MAX, |client| async {
            let transaction = client.transaction().await?;
            let counted = self.beat_in(&transaction).await?;
            transaction.commit().await?;
            Ok(counted)
        })?;
        self.living
            .store(usize::try_from(living).unwrap_or(1), Ordering::Relaxed);
        if taken > 0 {
            tracing::warn!(deliveries = taken, "took over from a node that is gone");
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Returns how many deliveries were taken over, and how many nodes live.
    async fn beat_in(
        &self,
        transaction: &deadpool_postgres::Transaction<'_>,
    ) -> Result<(u64, i64), SpoolError> {
        let seconds = NODE_EXPIRES.as_secs_f64();
        transaction
            .execute(
                "INSERT INTO nodes (node, hostname, expires)
                 VALUES ($1, $2, now() + make_interval(secs => $3))
                 ON CONFLICT (node) DO UPDATE SET expires = excluded.expires",
                &[&self.id, &self.hostname, &seconds],
            )
            .await?;
        self.remember_restarts(transaction).await?;
        self.end_the_dead(transaction).await?;
        let taken = transaction.execute(lease::TAKE_OVER, &[]).await?;
        transaction
            .execute(
                "DELETE FROM nodes WHERE expires < now() - interval '1 day'",
                &[],
            )
            .await?;
        let row = transaction
            .query_one("SELECT count(*) FROM nodes WHERE expires > now()", &[])
            .await?;
        Ok((taken, row.try_get(0)?))
    }

    /// Lets the rows expire of those that are gone.
    async fn end_the_dead(
        &self,
        transaction: &deadpool_postgres::Transaction<'_>,
    ) -> Result<(), SpoolError> {
        let found = transaction.query(LOOK_AT_OTHERS, &[&self.id]).await?;
        let mut free: HashMap<Uuid, bool> = HashMap::new();
        for row in &found {
            free.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let dead: Vec<Uuid> = {
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            missed.retain(|node, _| free.get(node) == Some(&true));
            for (node, _) in free.iter().filter(|(_, is_free)| **is_free) {
                *missed.entry(*node).or_default() += 1;
            }
            let dead = missed.iter().filter(|(_, beats)| **beats >= MISSED_BEATS);
            dead.map(|(node, _)| *node).collect()
        };
        let sql = "UPDATE nodes SET expires = now() WHERE node = ANY($1)";
        transaction.execute(sql, &[&dead]).await?;
        Ok(())
    }

    /// A database that was started anew may have lost what was not synced, such as that something
    /// is being sent.
    async fn remember_restarts(
        &self,
        transaction: &deadpool_postgres::Transaction<'_>,
    ) -> Result<(), SpoolError> {
        let now = SystemClock.now().ms();
        transaction
            .execute(
                "INSERT INTO memory (server_started, doubt_before_ms)
                 VALUES (pg_postmaster_start_time(), 0)
                 ON CONFLICT (one) DO UPDATE
                 SET server_started = excluded.server_started, doubt_before_ms = $1
                 WHERE memory.server_started <> excluded.server_started",
                &[&now],
            )
            .await?;
        Ok(())
    }

    /// Beats for as long as it is polled.
    pub(super) async fn live(self: Arc<Self>, pool: Pool) {
        let mut is_failing = false;
        loop {
            sleep(NODE_HEARTBEAT).await;
            match self.beat(&pool).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        tracing::error!(%error, "this node's heartbeat does not reach PostgreSQL");
                    }
                    is_failing = true;
                    // It goes the same way to the database, and would be silent for longer.
                    self.lost.notify_one();
                }
            }
        }
    }

    /// Tells the others of changes, a few times a second at most, for as long as it is polled:
    /// PostgreSQL lets transactions that notify commit one after the other.
    pub(super) async fn ring_others(self: Arc<Self>, pool: Pool) {
        loop {
            self.bell.notified().await;
            // Who does not hear it looks by itself a little later.
            if let Err(error) = notify(&pool, self.id).await {
                tracing::debug!(%error, "the other nodes were not notified");
            }
            sleep(RING_PAUSE).await;
        }
    }

    /// Hears the others, for as long as it is polled.
    pub(super) async fn listen(self: Arc<Self>, from: config::Postgres) {
        let mut pause = POSTGRES_PAUSE_FIRST;
        loop {
            if let Ok((client, connection)) = connect::connect(&from).await {
                pause = POSTGRES_PAUSE_FIRST;
                self.hear(&client, connection).await;
                self.listens.send_replace(false);
            }
            // What was said meanwhile was not heard.
            self.changed.notify_one();
            sleep(pause).await;
            pause = (pause * 2).min(POSTGRES_PAUSE_MAX);
        }
    }

    /// Returns once it listens. Before that its row must not be seen: it would be taken for dead.
    pub(super) async fn until_it_listens(&self) -> Result<(), SpoolError> {
        let mut listens = self.listens.subscribe();
        let listening = listens.wait_for(|listens| *listens);
        match timeout(POSTGRES_CONNECT_TIMEOUT, listening).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(SpoolError::Unavailable(
                "PostgreSQL cannot be listened to".to_owned(),
            )),
        }
    }

    /// Until the connection ends, or is given up.
    async fn hear(&self, client: &tokio_postgres::Client, mut connection: connect::Connection) {
        let sql = format!("LISTEN {CHANNEL}");
        let listening = async {
            client.batch_execute(FOUND_DEAD).await?;
            client.query(LIVE, &[&self.id]).await?;
            client.batch_execute(&sql).await
        };
        tokio::pin!(listening);
        let mut is_listening = false;
        let (own, person) = (self.id.to_string(), PERSON.to_string());
        loop {
            tokio::select! {
                result = &mut listening, if !is_listening => match result {
                    Ok(()) => {
                        is_listening = true;
                        self.listens.send_replace(true);
                        self.changed.notify_one();
                    }
                    Err(_) => return,
                },
                message = poll_fn(|context| connection.poll_message(context)) => match message {
                    Some(Ok(AsyncMessage::Notification(heard))) if heard.payload() != own => {
                        if heard.payload() == person {
                            self.by_person.store(true, Ordering::Relaxed);
                        }
                        self.changed.notify_one();
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
                () = self.lost.notified() => return,
            }
        }
    }

    /// What this node has leased can be taken over at once.
    pub(super) async fn leave(&self, pool: &Pool) -> Result<(), SpoolError> {
        on_connection!(pool, POSTGRES_WORK_MAX, |client| async {
            let transaction = client.transaction().await?;
            transaction
                .execute("DELETE FROM nodes WHERE node = $1", &[&self.id])
                .await?;
            transaction.execute(lease::TAKE_OVER, &[]).await?;
            Ok::<_, SpoolError>(transaction.commit().await?)
        })?;
        notify(pool, self.id).await
    }
}

pub(super) async fn notify(pool: &Pool, node: Uuid) -> Result<(), SpoolError> {
    on_connection!(pool, POSTGRES_WORK_MAX, |client| async {
        client
            .execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &node.to_string()])
            .await?;
        Ok(())
    })
}
