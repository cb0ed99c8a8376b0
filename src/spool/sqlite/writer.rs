//! The one thread that writes. Writes that wait at the same moment share one transaction, and so
//! one sync.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::file::open_present;
use super::files::Files;
use crate::limits::{GROUP_BYTES_MAX, GROUP_WRITES_MAX, WRITES_WAITING_MAX};
use crate::spool::SpoolError;

/// Whether a write has to be on the disk before its caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Synced,
    /// Survives the death of the process, not that of the machine. Made durable by the next
    /// synced write, as the log is written in order.
    Written,
}

/// What becomes of a write whose caller stops waiting before its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    Written,
    Skipped,
}

#[derive(Debug)]
pub(super) struct Writer {
    /// Taken only when dropped.
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Takes the connection, and keeps it until dropped.
    pub(super) fn start(files: Arc<Files>, connection: Connection) -> Result<Writer, SpoolError> {
        let (sender, receiver) = mpsc::channel(WRITES_WAITING_MAX);
        let thread = thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || {
                let store = Store {
                    files,
                    connection: Some(connection),
                    synced: true,
                };
                store.run(receiver);
            })
            .map_err(|error| SpoolError::Unavailable(error.to_string()))?;
        Ok(Writer {
            jobs: Some(sender),
            thread: Some(thread),
        })
    }

    /// Runs `work` inside a transaction that others may share. It may run twice: when a shared
    /// transaction fails, each write is tried alone, so that one bad write harms no other.
    ///
    /// `bytes` is about how much it writes. Once begun, the write is done even if the caller stops
    /// waiting; `abandoned` says what becomes of it before. `ended` is told how it ended before anybody
    /// else is, in the order in which the writes were done, and makes the caller's answer of it.
    pub(super) async fn write<T, U, F, E>(
        &self,
        durability: Durability,
        bytes: usize,
        abandoned: Abandoned,
        work: F,
        ended: E,
    ) -> Result<U, SpoolError>
    where
        T: Send + 'static,
        U: Send + 'static,
        F: FnMut(&Connection) -> Result<T, SpoolError> + Send + 'static,
        E: FnOnce(Result<T, SpoolError>) -> Result<U, SpoolError> + Send + 'static,
    {
        let gone = || SpoolError::Unavailable("the spool's writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Work {
            durability,
            bytes,
            abandoned,
            work,
            value: None,
            ended,
            reply,
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Returns when the thread has ended, which it does by itself only in a panic.
    pub(super) async fn ended(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.closed().await;
        }
    }
}

impl Drop for Writer {
    /// Waits for the writes that are queued, so that the file is closed when the lock is given back.
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

trait Job: Send {
    fn durability(&self) -> Durability;
    fn bytes(&self) -> usize;
    fn run(&mut self, connection: &Connection) -> Result<(), SpoolError>;
    fn answer(self: Box<Self>, committed: Result<(), SpoolError>);
}

struct Work<T, U, F, E> {
    durability: Durability,
    bytes: usize,
    abandoned: Abandoned,
    work: F,
    value: Option<T>,
    ended: E,
    reply: oneshot::Sender<Result<U, SpoolError>>,
}

impl<T, U, F, E> Job for Work<T, U, F, E>
where
    T: Send,
    U: Send,
    F: FnMut(&Connection) -> Result<T, SpoolError> + Send,
    E: FnOnce(Result<T, SpoolError>) -> Result<U, SpoolError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, connection: &Connection) -> Result<(), SpoolError> {
        if self.abandoned == Abandoned::Skipped && self.reply.is_closed() {
            self.value = None;
            return Ok(());
        }
        self.value = Some((self.work)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), SpoolError>) {
        let Work {
            work,
            value,
            ended,
            reply,
            ..
        } = *self;
        drop(work);
        let lost = || SpoolError::Unavailable("a write had no result".to_owned());
        let answer = ended(committed.and_then(|()| value.ok_or_else(lost)));
        // When nobody waits any more, what was written stays written.
        let _ = reply.send(answer);
    }
}

struct Store {
    files: Arc<Files>,
    /// `None` after an error that may have left the connection unusable.
    connection: Option<Connection>,
    /// Present setting of `PRAGMA synchronous`.
    synced: bool,
}

impl Store {
    fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP_WRITES_MAX
                && bytes < GROUP_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += job.bytes();
                group.push(job);
            }
            self.write_group(group);
        }
    }

    fn write_group(&mut self, mut group: Vec<Box<dyn Job>>) {
        match self.transaction(&mut group) {
            Err(_) if group.len() > 1 => {
                for mut job in group {
                    let result = self.transaction(std::slice::from_mut(&mut job));
                    job.answer(result);
                }
            }
            result => {
                for job in group {
                    job.answer(result.clone());
                }
            }
        }
    }

    fn transaction(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), SpoolError> {
        // A new file would forget what was promised in the old one. The connection is kept: files that
        // were moved away may come back.
        self.files.check()?;
        let synced = group
            .iter()
            .any(|job| job.durability() == Durability::Synced);
        let result = match self.connect(synced) {
            Ok(connection) => run_group(connection, group),
            Err(error) => Err(error),
        };
        if let Err(SpoolError::Unavailable(_)) = result {
            // Opened anew for the next group: the store comes back without a restart.
            self.connection = None;
            self.files.forget_beside();
        }
        result
    }

    fn connect(&mut self, synced: bool) -> Result<&Connection, SpoolError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.synced = true;
                let connection = open_present(self.files.path())?;
                self.files.note_beside()?;
                connection
            }
        };
        if self.synced != synced {
            connection.pragma_update(
                None,
                "synchronous",
                if synced { "FULL" } else { "NORMAL" },
            )?;
            self.synced = synced;
        }
        Ok(self.connection.insert(connection))
    }
}

/// The promise behind 250 (DESIGN.md invariant 1). With `synchronous=FULL`, COMMIT returns after
/// the log's frames, the last of them marked as a commit, are synced. Killed before: no mark, the
/// group never was, and no reply was sent. Killed after: the next open finds the mark. An error of
/// COMMIT itself rolls back, and the callers are told that nothing was stored; should the frames
/// have reached the disk nevertheless, the sender's next try is a duplicate with a known
/// Message-ID.
fn run_group(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), SpoolError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let result = group
        .iter_mut()
        .try_for_each(|job| job.run(connection))
        .and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if result.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    result
}
