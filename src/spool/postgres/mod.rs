//! The store of several nodes: one PostgreSQL database that any number of gateways share.
//!
//! What a node reads or sends is marked as its own in the database. A node that does not renew its own
//! row in time is gone, and the others take over what it had. Whoever changes deliveries of a ticket
//! holds that ticket's lock, so order and once hold across nodes.

mod connect;
mod decide;
mod group;
mod intake;
mod known;
mod lease;
mod look;
mod marks;
mod node;
mod rows;
mod search;
mod settle;
mod tend;
mod transaction;
mod trouble;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

pub use self::connect::{Server, execute, server};
use self::group::{Group, group};
use self::node::{Node, PERSON};
use self::transaction::{Commit, on_connection, transact};
use crate::alert::ExternalId;
use crate::clock::Time;
use crate::config;
use crate::limits::{LOOK_AGAIN_ELSEWHERE, PLACED_AT_ONCE};
use crate::smtp::{ReceivedMail, Rest, RestId};
use crate::spool::{
    Ask, Audit, Budget, DeadLetters, DeadLettersOf, Deciding, DeliveryId, Effects, Filter, Glance,
    KnownTicket, MailId, Page, Piece, Pruned, Query, Retried, Settlement, Shown, Spool, SpoolError,
    Summary, TicketCursor, ToDecide, Totals,
};

/// Prepared on each connection before it is used.
const STATEMENTS: [&str; 30] = [
    decide::LOCK,
    decide::PLACEABLE,
    decide::STORE_READINGS,
    intake::ACCEPT,
    intake::BODIES,
    intake::IS_PLACEABLE,
    intake::KEEP,
    intake::TAKE_UNREAD,
    known::BEHIND,
    known::BY_ID,
    known::DOUBT,
    known::KEPT,
    known::LAST,
    known::LOCK,
    known::NAMESAKES,
    known::TICKETS_OF,
    known::TRY_LOCK,
    known::TURNS,
    lease::DUE,
    lease::NEXT_DUE,
    look::PIECE,
    settle::MINE,
    write::ATTEMPTS,
    write::DECIDED,
    write::DECISIONS,
    write::GATHERINGS,
    write::INSERT_PARTS,
    write::LEDGER,
    write::MOVED,
    write::TICKETS,
];

/// The store in a database.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
    node: Arc<Node>,
    accepts: Group<(MailId, ReceivedMail, Time), MailId>,
    /// End with it, and not before.
    tasks: Mutex<JoinSet<()>>,
}

impl Postgres {
    /// For `serve`: this process becomes one of the nodes. Brings the schema to the present state.
    /// Needs the process's rustls provider installed.
    ///
    /// # Errors
    /// The database does not answer, or has been used by a later version.
    pub async fn open_gateway(
        config: &config::Postgres,
        hostname: &str,
    ) -> Result<Postgres, SpoolError> {
        connect::migrate(config).await?;
        let node = Arc::new(Node::new(hostname));
        let pool = connect::pool(config)?;
        let mut opened = Postgres::open(pool.clone(), Arc::clone(&node));
        let tasks = opened.tasks.get_mut();
        tasks.spawn(Arc::clone(&node).listen(config.clone()));
        node.until_it_listens().await?;
        node.beat(&pool).await?;
        tasks.spawn(Arc::clone(&node).live(pool.clone()));
        tasks.spawn(node.ring_others(pool));
        Ok(opened)
    }

    /// For commands that look at the spool or change single entries. Never makes tables.
    ///
    /// # Errors
    /// The database does not answer, or no gateway of this version uses it.
    pub async fn open_visitor(config: &config::Postgres) -> Result<Postgres, SpoolError> {
        connect::check(config).await?;
        let pool = connect::pool(config)?;
        Ok(Postgres::open(pool, Arc::new(Node::new("visitor"))))
    }

    fn open(pool: Pool, node: Arc<Node>) -> Postgres {
        let (accepts, accepting) = group();
        let mut tasks = JoinSet::new();
        tasks.spawn(intake::accept_groups(
            accepting,
            pool.clone(),
            Arc::clone(&node),
        ));
        Postgres {
            pool,
            node,
            accepts,
            tasks: Mutex::new(tasks),
        }
    }

    fn me(&self) -> Uuid {
        self.node.id
    }

    /// One of those that were to be placed together is refused, and may be another node's: each is
    /// placed alone, until that one is found.
    async fn decide_one_by_one(
        &self,
        deciding: &Deciding,
        now: Time,
    ) -> Result<decide::Step, SpoolError> {
        let me = self.me();
        let mut deciding = deciding.clone();
        // What they make ready to be sent is leased as any other.
        deciding.asks.clear();
        let mut step = transact!(self.pool, Commit::Written, |transaction| {
            decide::store_each(&transaction, &deciding.decided, me)
        })?;
        for _ in 0..PLACED_AT_ONCE {
            if step.has_buried || !step.has_more {
                break;
            }
            let next = transact!(self.pool, Commit::Written, |transaction| {
                decide::place_first(&transaction, &deciding, me, now)
            })?;
            step.effects.add(next.effects);
            (step.has_more, step.has_buried) = (next.has_more, next.has_buried);
        }
        Ok(step)
    }
}

#[async_trait]
impl Spool for Postgres {
    async fn accept(&self, mail: ReceivedMail, now: Time) -> Result<MailId, SpoolError> {
        let bytes = mail.data.len();
        self.accepts.run((MailId::at(now), mail, now), bytes).await
    }

    async fn replace(
        &self,
        old: MailId,
        new: ReceivedMail,
        now: Time,
    ) -> Result<MailId, SpoolError> {
        let me = self.me();
        let id = MailId::at(now);
        let mails = [(id, new, now)];
        transact!(self.pool, Commit::Synced, |transaction| async {
            tend::drop_mail(&transaction, old, me, now).await?;
            intake::accept(&transaction, &mails, me).await
        })?;
        self.node.ring();
        Ok(id)
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<(), SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            intake::keep(&transaction, rest, &piece, me)
        })
    }

    async fn discard(&self, rest: RestId) -> Result<(), SpoolError> {
        transact!(self.pool, Commit::Written, |transaction| {
            intake::discard(&transaction, rest)
        })
    }

    async fn undecided(&self, limit: usize) -> Result<ToDecide, SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            intake::undecided(&transaction, limit, me)
        })
    }

    async fn hand_back(&self) -> Result<(), SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            intake::hand_back(&transaction, me)
        })?;
        self.node.ring();
        Ok(())
    }

    async fn decide(&self, deciding: Deciding, now: Time) -> Result<Effects, SpoolError> {
        let mut deciding = deciding;
        let mut effects = Effects::default();
        loop {
            let me = self.me();
            let step = transact!(self.pool, Commit::Written, |transaction| {
                decide::together(&transaction, &deciding, me, now)
            });
            let step = match step {
                Err(SpoolError::Refused(_)) => self.decide_one_by_one(&deciding, now).await?,
                step => step?,
            };
            effects.add(step.effects);
            if !step.has_more {
                break;
            }
            // More are ready. What they make ready to be sent is leased as any other.
            deciding.decided = Arc::default();
            deciding.asks.clear();
        }
        if effects.due.is_some() {
            self.node.ring();
        }
        Ok(effects)
    }

    async fn lease(
        &self,
        asks: Vec<Ask>,
        budget: Budget,
        now: Time,
    ) -> Result<Effects, SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            lease::lease(&transaction, &asks, budget, me, now)
        })
    }

    async fn reclaim(&self, carried: Vec<(DeliveryId, u32)>) -> Result<usize, SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            lease::reclaim(&transaction, &carried, me)
        })
    }

    async fn settle(&self, settlements: Vec<Settlement>, now: Time) -> Result<Effects, SpoolError> {
        let me = self.me();
        let effects = transact!(self.pool, Commit::Synced, |transaction| {
            settle::settle(&transaction, &settlements, me, now)
        })?;
        if effects.due.is_some() {
            self.node.ring();
        }
        Ok(effects)
    }

    async fn hurry(&self, team: &str, now: Time) -> Result<(), SpoolError> {
        transact!(self.pool, Commit::Written, |transaction| {
            lease::hurry(&transaction, team, now)
        })?;
        self.node.ring();
        Ok(())
    }

    async fn set_back(&self, by: Duration, now: Time) -> Result<(), SpoolError> {
        transact!(self.pool, Commit::Written, |transaction| {
            lease::set_back(&transaction, by, now)
        })
    }

    async fn teams(&self) -> Result<Vec<String>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| look::teams(
            &transaction
        ))
    }

    async fn changed_elsewhere(&self) -> bool {
        tokio::select! {
            () = self.node.changed.notified() => {}
            () = sleep(LOOK_AGAIN_ELSEWHERE) => {}
        }
        self.node.by_person.swap(false, Ordering::Relaxed)
    }

    fn nodes(&self) -> usize {
        self.node.living()
    }

    async fn broken(&self) -> String {
        match self.tasks.lock().await.join_next().await {
            Some(Err(error)) => format!("a task of the spool: {error}"),
            Some(Ok(())) | None => "a task of the spool has ended".to_owned(),
        }
    }

    async fn close(&self) -> Result<(), SpoolError> {
        self.node.leave(&self.pool).await
    }

    async fn knows(&self, mail: MailId) -> Result<bool, SpoolError> {
        let seq = transact!(self.pool, Commit::Read, |transaction| {
            look::seq_of(&transaction, mail)
        })?;
        Ok(seq.is_some())
    }

    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<Summary>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| {
            search::list(&transaction, &filter, limit)
        })
    }

    async fn search(&self, query: Query) -> Result<Page, SpoolError> {
        transact!(self.pool, Commit::Read, |t| search::search(&t, &query))
    }

    async fn glance(&self, now: Time) -> Result<Glance, SpoolError> {
        transact!(self.pool, Commit::Read, |t| search::glance(&t, now))
    }

    async fn show(&self, mail: MailId) -> Result<Option<Shown>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| look::show(
            &transaction,
            mail
        ))
    }

    async fn piece(&self, mail: MailId, at: u64) -> Result<Option<Piece>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| {
            look::piece(&transaction, mail, at)
        })
    }

    async fn tickets(
        &self,
        before: Option<TicketCursor>,
        limit: usize,
    ) -> Result<Vec<KnownTicket>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| {
            look::tickets(&transaction, before.as_ref(), limit)
        })
    }

    async fn retry_some(
        &self,
        which: DeadLetters,
        after: Option<DeliveryId>,
        limit: usize,
        now: Time,
    ) -> Result<Retried, SpoolError> {
        let me = self.me();
        let retried = transact!(self.pool, Commit::Synced, |transaction| {
            tend::retry(&transaction, which, after, limit, me, now)
        })?;
        node::notify(&self.pool, PERSON).await?;
        Ok(retried)
    }

    async fn drop_mail(&self, mail: MailId, now: Time) -> Result<usize, SpoolError> {
        let me = self.me();
        let dropped = transact!(self.pool, Commit::Synced, |transaction| {
            tend::drop_mail(&transaction, mail, me, now)
        })?;
        node::notify(&self.pool, PERSON).await?;
        Ok(dropped)
    }

    async fn dead_letters(
        &self,
        except_source: &str,
    ) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| {
            trouble::dead_letters(&transaction, except_source)
        })
    }

    async fn overdue(&self, now: Time) -> Result<BTreeMap<String, Time>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| trouble::overdue(
            &transaction,
            now
        ))
    }

    async fn open_with_prefix(
        &self,
        prefix: &str,
    ) -> Result<BTreeSet<(String, ExternalId)>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| {
            trouble::open_with_prefix(&transaction, prefix)
        })
    }

    async fn ledger(&self) -> Result<BTreeMap<String, Totals>, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| tend::totals(
            &transaction
        ))
    }

    async fn audit(&self) -> Result<Audit, SpoolError> {
        transact!(self.pool, Commit::ReadAll, |transaction| tend::audit(
            &transaction
        ))
    }

    async fn prune(
        &self,
        before: Time,
        after: Option<MailId>,
        limit: usize,
    ) -> Result<Pruned, SpoolError> {
        let me = self.me();
        transact!(self.pool, Commit::Written, |transaction| {
            tend::prune(&transaction, before, after, limit, me)
        })
    }

    async fn bytes(&self) -> Result<u64, SpoolError> {
        transact!(self.pool, Commit::Read, |transaction| tend::bytes(
            &transaction
        ))
    }

    /// PostgreSQL's own vacuum makes room.
    async fn shrink(&self) -> Result<bool, SpoolError> {
        Ok(false)
    }
}
