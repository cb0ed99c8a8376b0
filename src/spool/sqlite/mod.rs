//! The embedded store: one SQLite file in WAL mode, one thread that writes, a few connections
//! that read.
//!
//! One gateway at a time (a lock beside the file); other processes may look, and may retry or drop
//! dead letters.

mod decide;
mod file;
mod files;
mod fresh;
mod intake;
mod known;
mod lease;
mod look;
mod marks;
mod readers;
mod rows;
mod search;
mod settle;
mod tend;
mod trouble;
mod write;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::time::sleep;

use crate::alert::ExternalId;
use crate::clock::{Clock, SystemClock, Time};
use crate::limits::RETRY_PAUSE;
use crate::smtp::{ReceivedMail, Rest, RestId};
use crate::spool::{
    Ask, Audit, Budget, DeadLetters, DeadLettersOf, Decided, Deciding, DeliveryId, Effects, Filter,
    Glance, KnownTicket, MailId, Page, Piece, Pruned, Query, Retried, Settlement, Shown, Spool,
    SpoolError, Summary, TicketCursor, ToDecide, Totals,
};
use files::Files;
use fresh::Fresh;
use readers::Readers;
use writer::{Abandoned, Durability, Writer};

/// The store in one file.
#[derive(Debug)]
pub struct Sqlite {
    // Dropped before the lock: the file is closed when another gateway may take it.
    access: Access,
    fresh: Arc<Fresh>,
    /// Only a gateway has it.
    lock: Option<file::Lock>,
}

#[derive(Debug)]
enum Access {
    Threads {
        writer: Writer,
        readers: Readers,
    },
    /// Everything on the caller's thread, one after the other.
    Inline(Mutex<Connection>),
}

impl Sqlite {
    /// For `serve`. What was being sent when the last gateway died waits again.
    ///
    /// # Errors
    /// [`SpoolError::Unavailable`] when another gateway has the file.
    pub fn open_gateway(path: &Path) -> Result<Sqlite, SpoolError> {
        let lock = file::Lock::take(path)?;
        let connection = file::open_writer(path)?;
        lease::recover(&connection, SystemClock.now())?;
        Sqlite::start(path, connection, Some(lock))
    }

    /// For commands that look at a gateway's spool or change single entries, gateway running or
    /// not. Never makes a file, and writes nothing until it is told to.
    ///
    /// # Errors
    /// There is no file, or one of another version: a gateway brings it to the present state.
    pub fn open_visitor(path: &Path) -> Result<Sqlite, SpoolError> {
        if !path.exists() {
            return Err(SpoolError::Unknown(format!(
                "there is no spool at {}",
                path.display()
            )));
        }
        Sqlite::start(path, file::open_present(path)?, None)
    }

    /// For simulations with a paused clock: all work is done on the caller's thread, so that a seed
    /// repeats a run, and nothing is synced.
    pub fn open_simulated(path: &Path, now: Time) -> Result<Sqlite, SpoolError> {
        let connection = file::open_writer(path)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        lease::recover(&connection, now)?;
        Ok(Sqlite {
            access: Access::Inline(Mutex::new(connection)),
            fresh: Arc::default(),
            lock: None,
        })
    }

    fn start(
        path: &Path,
        connection: Connection,
        lock: Option<file::Lock>,
    ) -> Result<Sqlite, SpoolError> {
        let files = Arc::new(Files::opened(path)?);
        Ok(Sqlite {
            access: Access::Threads {
                writer: Writer::start(Arc::clone(&files), connection)?,
                readers: Readers::new(files),
            },
            fresh: Arc::default(),
            lock,
        })
    }

    async fn write<T, F>(
        &self,
        durability: Durability,
        bytes: usize,
        work: F,
    ) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, SpoolError> + Send + 'static,
    {
        self.write_and(durability, bytes, Abandoned::Written, work, |answer| answer)
            .await
    }

    /// As [`Writer::write`].
    async fn write_and<T, U, F, E>(
        &self,
        durability: Durability,
        bytes: usize,
        abandoned: Abandoned,
        mut work: F,
        ended: E,
    ) -> Result<U, SpoolError>
    where
        T: Send + 'static,
        U: Send + 'static,
        F: FnMut(&Connection) -> Result<T, SpoolError> + Send + 'static,
        E: FnOnce(Result<T, SpoolError>) -> Result<U, SpoolError> + Send + 'static,
    {
        match &self.access {
            Access::Threads { writer, .. } => {
                writer
                    .write(durability, bytes, abandoned, work, ended)
                    .await
            }
            Access::Inline(connection) => {
                let result = inline(connection, |connection| work(connection));
                drop(work);
                ended(result)
            }
        }
    }

    /// Accepts a mail, in the place of an old one if there is one.
    async fn take(
        &self,
        old: Option<MailId>,
        mail: ReceivedMail,
        now: Time,
    ) -> Result<MailId, SpoolError> {
        let bytes = mail.data.len();
        let mail = Arc::new(mail);
        let (written, fresh) = (Arc::clone(&mail), Arc::clone(&self.fresh));
        let work = move |connection: &Connection| {
            if let Some(old) = old {
                tend::drop_mail(connection, old, now)?;
            }
            intake::accept(connection, &written, now)
        };
        let ended = move |result: Result<intake::Accepted, SpoolError>| {
            let accepted = result.inspect_err(|_| fresh.doubt())?;
            let id = accepted.mail;
            let seq = accepted.seq;
            fresh.accepted(seq, accepted.undecided(Arc::unwrap_or_clone(mail), now));
            Ok(id)
        };
        // A mail that its sender was told to send again.
        let abandoned = Abandoned::Skipped;
        self.write_and(Durability::Synced, bytes, abandoned, work, ended)
            .await
    }

    /// `work` sees one state of the store.
    async fn read<T, F>(&self, work: F) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, SpoolError> + Send + 'static,
    {
        match &self.access {
            Access::Threads { readers, .. } => readers.read(work).await,
            Access::Inline(connection) => inline(connection, work),
        }
    }
}

fn inline<T>(
    connection: &Mutex<Connection>,
    work: impl FnOnce(&Connection) -> Result<T, SpoolError>,
) -> Result<T, SpoolError> {
    let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
    let transaction = connection.transaction()?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

impl Sqlite {
    async fn decide_together(&self, deciding: Deciding, now: Time) -> Result<Effects, SpoolError> {
        let (fresh, decided) = (Arc::clone(&self.fresh), Arc::clone(&deciding.decided));
        let work = move |connection: &Connection| decide::decide(connection, &deciding, now);
        let ended = move |result: Result<Effects, SpoolError>| {
            let effects = result?;
            fresh.decided(decided.iter().map(|one| one.delivery));
            Ok(effects)
        };
        self.write_and(Durability::Written, 0, Abandoned::Written, work, ended)
            .await
    }

    /// One of them is refused: each is decided alone, in their order.
    async fn decide_one_by_one(
        &self,
        deciding: Deciding,
        now: Time,
    ) -> Result<Effects, SpoolError> {
        // What they make ready to be sent is leased as any other.
        let alone = |one: Decided| Deciding {
            decided: [one].into(),
            asks: Vec::new(),
            ..deciding.clone()
        };
        let mut effects = Effects::default();
        for one in deciding.decided.iter() {
            let step = match self.decide_together(alone(one.clone()), now).await {
                Err(SpoolError::Refused(reason)) => {
                    let dead = alone(one.buried(&reason));
                    self.decide_together(dead, now).await?
                }
                step => step?,
            };
            effects.add(step);
        }
        Ok(effects)
    }
}

#[async_trait]
impl Spool for Sqlite {
    async fn accept(&self, mail: ReceivedMail, now: Time) -> Result<MailId, SpoolError> {
        self.take(None, mail, now).await
    }

    async fn replace(
        &self,
        old: MailId,
        new: ReceivedMail,
        now: Time,
    ) -> Result<MailId, SpoolError> {
        self.take(Some(old), new, now).await
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<(), SpoolError> {
        self.write(Durability::Written, piece.len(), move |connection| {
            intake::keep(connection, rest, &piece)
        })
        .await
    }

    async fn discard(&self, rest: RestId) -> Result<(), SpoolError> {
        self.write(Durability::Written, 0, move |connection| {
            intake::discard(connection, rest)
        })
        .await
    }

    async fn undecided(&self, limit: usize) -> Result<ToDecide, SpoolError> {
        let mails = match self.fresh.oldest(limit) {
            Ok(mails) => mails,
            Err(rest) => {
                let (rest, found) = self
                    .read(move |connection| {
                        let found = intake::undecided(connection, &rest.except, limit)?;
                        Ok((rest, found))
                    })
                    .await?;
                self.fresh.complete(&rest, found, limit)
            }
        };
        Ok(ToDecide {
            mails,
            are_others_read: false,
        })
    }

    async fn decide(&self, deciding: Deciding, now: Time) -> Result<Effects, SpoolError> {
        match self.decide_together(deciding.clone(), now).await {
            Err(SpoolError::Refused(_)) => self.decide_one_by_one(deciding, now).await,
            result => result,
        }
    }

    async fn lease(
        &self,
        asks: Vec<Ask>,
        budget: Budget,
        now: Time,
    ) -> Result<Effects, SpoolError> {
        self.write(Durability::Written, 0, move |connection| {
            lease::lease(connection, &asks, budget, now)
        })
        .await
    }

    async fn reclaim(&self, carried: Vec<(DeliveryId, u32)>) -> Result<usize, SpoolError> {
        self.write(Durability::Written, 0, move |connection| {
            lease::reclaim(connection, &carried)
        })
        .await
    }

    async fn settle(&self, settlements: Vec<Settlement>, now: Time) -> Result<Effects, SpoolError> {
        self.write(Durability::Synced, 0, move |connection| {
            settle::settle(connection, &settlements, now)
        })
        .await
    }

    async fn hurry(&self, team: &str, now: Time) -> Result<(), SpoolError> {
        let team = team.to_owned();
        self.write(Durability::Written, 0, move |connection| {
            lease::hurry(connection, &team, now)
        })
        .await
    }

    async fn set_back(&self, by: Duration, now: Time) -> Result<(), SpoolError> {
        self.write(Durability::Written, 0, move |connection| {
            lease::set_back(connection, by, now)
        })
        .await
    }

    async fn teams(&self) -> Result<Vec<String>, SpoolError> {
        self.read(look::teams).await
    }

    async fn changed_elsewhere(&self) -> bool {
        match &self.access {
            Access::Threads { readers, .. } => readers.changed_elsewhere().await,
            Access::Inline(_) => std::future::pending().await,
        }
        self.fresh.doubt();
        // The writer's own commits are seen, too: who it was is not known.
        false
    }

    async fn broken(&self) -> String {
        match &self.access {
            Access::Threads { writer, .. } => writer.ended().await,
            Access::Inline(_) => std::future::pending().await,
        }
        "the thread that writes the spool has ended".to_owned()
    }

    async fn close(&self) -> Result<(), SpoolError> {
        self.write(Durability::Synced, 0, lease::close).await
    }

    async fn knows(&self, mail: MailId) -> Result<bool, SpoolError> {
        self.read(move |connection| Ok(rows::seq_of(connection, mail)?.is_some()))
            .await
    }

    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<Summary>, SpoolError> {
        self.read(move |connection| search::list(connection, &filter, limit))
            .await
    }

    async fn search(&self, query: Query) -> Result<Page, SpoolError> {
        self.read(move |connection| search::search(connection, &query))
            .await
    }

    async fn glance(&self, now: Time) -> Result<Glance, SpoolError> {
        self.read(move |connection| search::glance(connection, now))
            .await
    }

    async fn show(&self, mail: MailId) -> Result<Option<Shown>, SpoolError> {
        self.read(move |connection| look::show(connection, mail))
            .await
    }

    async fn piece(&self, mail: MailId, at: u64) -> Result<Option<Piece>, SpoolError> {
        self.read(move |connection| look::piece(connection, mail, at))
            .await
    }

    async fn tickets(
        &self,
        before: Option<TicketCursor>,
        limit: usize,
    ) -> Result<Vec<KnownTicket>, SpoolError> {
        self.read(move |connection| look::tickets(connection, before.as_ref(), limit))
            .await
    }

    async fn retry_some(
        &self,
        which: DeadLetters,
        after: Option<DeliveryId>,
        limit: usize,
        now: Time,
    ) -> Result<Retried, SpoolError> {
        if after.is_some() && self.lock.is_none() {
            sleep(RETRY_PAUSE).await;
        }
        let fresh = Arc::clone(&self.fresh);
        let work = move |connection: &Connection| tend::retry(connection, which, after, limit, now);
        let ended = move |result| {
            fresh.doubt();
            result
        };
        self.write_and(Durability::Synced, 0, Abandoned::Written, work, ended)
            .await
    }

    async fn drop_mail(&self, mail: MailId, now: Time) -> Result<usize, SpoolError> {
        self.write(Durability::Synced, 0, move |connection| {
            tend::drop_mail(connection, mail, now)
        })
        .await
    }

    async fn dead_letters(
        &self,
        except_source: &str,
    ) -> Result<BTreeMap<String, DeadLettersOf>, SpoolError> {
        let except = except_source.to_owned();
        self.read(move |connection| trouble::dead_letters(connection, &except))
            .await
    }

    async fn overdue(&self, now: Time) -> Result<BTreeMap<String, Time>, SpoolError> {
        self.read(move |connection| trouble::overdue(connection, now))
            .await
    }

    async fn open_with_prefix(
        &self,
        prefix: &str,
    ) -> Result<BTreeSet<(String, ExternalId)>, SpoolError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| trouble::open_with_prefix(connection, &prefix))
            .await
    }

    async fn ledger(&self) -> Result<BTreeMap<String, Totals>, SpoolError> {
        self.read(tend::totals).await
    }

    async fn audit(&self) -> Result<Audit, SpoolError> {
        self.read(tend::audit).await
    }

    async fn prune(
        &self,
        before: Time,
        after: Option<MailId>,
        limit: usize,
    ) -> Result<Pruned, SpoolError> {
        self.write(Durability::Written, 0, move |connection| {
            tend::prune(connection, before, after, limit)
        })
        .await
    }

    async fn bytes(&self) -> Result<u64, SpoolError> {
        self.read(tend::bytes).await
    }

    async fn shrink(&self) -> Result<bool, SpoolError> {
        self.write(Durability::Written, 0, tend::shrink).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::AcceptError;

    fn mail(bytes: usize) -> ReceivedMail {
        ReceivedMail::of(vec![b'x'; bytes])
    }

    /// SQLite reports its own bound on the file as it reports a full disk.
    async fn limit_pages(spool: &Sqlite, pages: u32) {
        let limit = move |connection: &Connection| {
            Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
        };
        spool.write(Durability::Written, 0, limit).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_what_does_not_fit_and_recovers_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Sqlite::open_gateway(&directory.path().join("spool.db")).unwrap();
        let now = Time::from_ms(1);
        let first = spool.accept(mail(100), now).await.unwrap();
        limit_pages(&spool, 60).await;
        let error = spool.accept(mail(1 << 20), now).await.unwrap_err();
        assert_eq!(AcceptError::from(error), AcceptError::Full);
        // A small one that shares a group with a big one is not harmed by it.
        let (big, small) =
            tokio::join!(spool.accept(mail(1 << 20), now), spool.accept(mail(9), now));
        assert!(big.is_err());
        assert!(small.is_ok(), "{small:?}");
        limit_pages(&spool, 1 << 30).await;
        spool.accept(mail(1 << 20), now).await.unwrap();
        assert!(spool.knows(first).await.unwrap());
        let audit = spool.audit().await.unwrap();
        assert!(audit.balances());
        assert_eq!(audit.teams["ops"].accepted, 3);
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_known_to_have_ended() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Sqlite::open_gateway(&directory.path().join("spool.db")).unwrap();
        let panics = |_: &Connection| -> Result<(), SpoolError> { panic!("on purpose") };
        let (broken, written) =
            tokio::join!(spool.broken(), spool.write(Durability::Written, 0, panics));
        assert!(broken.contains("has ended"), "{broken}");
        written.unwrap_err();
    }

    #[tokio::test]
    async fn writes_that_wait_share_a_transaction_and_none_is_mixed_up() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Sqlite::open_gateway(&directory.path().join("spool.db")).unwrap());
        let accepts = (0..300).map(|size| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move { (size, spool.accept(mail(size), Time::from_ms(1)).await) })
        });
        for accept in accepts.collect::<Vec<_>>() {
            let (size, id) = accept.await.unwrap();
            let raw = spool.raw(id.unwrap()).await.unwrap().unwrap();
            assert_eq!(raw.len(), size);
        }
    }
}
