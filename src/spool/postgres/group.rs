//! Work of the same kind that waits at the same moment goes to the database together.

use tokio::sync::{mpsc, oneshot};

use crate::limits::{GROUP_BYTES_MAX, GROUP_WRITES_MAX, WRITES_WAITING_MAX};
use crate::spool::SpoolError;

/// One piece of work.
#[derive(Debug)]
pub(super) struct Job<W, T> {
    work: W,
    bytes: usize,
    waiting: Waiting<T>,
}

/// Who waits for a result.
#[derive(Debug)]
pub(super) struct Waiting<T>(oneshot::Sender<Result<T, SpoolError>>);

impl<W, T> Job<W, T> {
    pub(super) fn take(self) -> (Waiting<T>, W) {
        (self.waiting, self.work)
    }
}

impl<T> Waiting<T> {
    /// When nobody waits any more, what was written stays written.
    pub(super) fn answer(self, result: Result<T, SpoolError>) {
        let _ = self.0.send(result);
    }
}

#[derive(Debug)]
pub(super) struct Group<W, T> {
    jobs: mpsc::Sender<Job<W, T>>,
}

#[derive(Debug)]
pub(super) struct Jobs<W, T>(mpsc::Receiver<Job<W, T>>);

/// Where work is put, and where it is taken out in groups.
pub(super) fn group<W, T>() -> (Group<W, T>, Jobs<W, T>) {
    let (jobs, receiver) = mpsc::channel(WRITES_WAITING_MAX);
    (Group { jobs }, Jobs(receiver))
}

impl<W, T> Group<W, T> {
    /// `bytes` is about how much it writes. Once taken, it is done even if the caller stops waiting;
    /// before, it is not.
    pub(super) async fn run(&self, work: W, bytes: usize) -> Result<T, SpoolError> {
        let gone = || SpoolError::Unavailable("the spool is closed".to_owned());
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting(reply);
        let job = Job {
            work,
            bytes,
            waiting,
        };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl<W, T> Jobs<W, T> {
    /// All that somebody waits for, within bounds; waits for the first. `None` when nobody can put work
    /// any more.
    pub(super) async fn next(&mut self) -> Option<Vec<Job<W, T>>> {
        loop {
            let mut jobs = self.all().await?;
            jobs.retain(|job| !job.waiting.0.is_closed());
            if !jobs.is_empty() {
                return Some(jobs);
            }
        }
    }

    async fn all(&mut self) -> Option<Vec<Job<W, T>>> {
        let first = self.0.recv().await?;
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while jobs.len() < GROUP_WRITES_MAX
            && bytes < GROUP_BYTES_MAX
            && let Ok(job) = self.0.try_recv()
        {
            bytes += job.bytes;
            jobs.push(job);
        }
        Some(jobs)
    }
}
