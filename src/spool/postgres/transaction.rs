//! Work on a connection of the pool: bounded in time, and tried again when another was in its way.
//!
//! A host that vanishes says nothing, and neither does its socket for a long time. Whoever waits for an
//! answer waits here.

use std::time::Duration;

use deadpool_postgres::{Object, Pool, Transaction};

use crate::limits::{COLLISIONS_MAX, POSTGRES_WORK_MAX};
use crate::spool::SpoolError;

/// Whether a transaction has to be on the disk before its caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    Synced,
    /// Made durable by the next synced one, as the log is written in order.
    Written,
    /// Changes nothing; sees one state of the store.
    Read,
    /// The same, and looks at every row: takes the time that it takes.
    ReadAll,
}

impl Commit {
    fn settings(self) -> Option<&'static str> {
        match self {
            Commit::Synced => None,
            Commit::Written => Some("SET LOCAL synchronous_commit = off"),
            Commit::Read => Some("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            Commit::ReadAll => Some(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET LOCAL enable_seqscan = on; SET LOCAL statement_timeout = 0",
            ),
        }
    }

    pub(super) fn max(self) -> Duration {
        match self {
            Commit::Synced | Commit::Written | Commit::Read => POSTGRES_WORK_MAX,
            Commit::ReadAll => Duration::MAX,
        }
    }
}

pub(super) async fn begin(
    client: &mut Object,
    commit: Commit,
) -> Result<Transaction<'_>, SpoolError> {
    let transaction = client.transaction().await?;
    if let Some(settings) = commit.settings() {
        transaction.batch_execute(settings).await?;
    }
    Ok(transaction)
}

/// Whether the same is tried again.
pub(super) fn may_be_repeated<T>(result: &Result<T, SpoolError>, collisions: &mut u32) -> bool {
    let is_repeated =
        matches!(result, Err(SpoolError::Collided(_))) && *collisions < COLLISIONS_MAX;
    *collisions += u32::from(is_repeated);
    is_repeated
}

pub(super) fn unanswered() -> SpoolError {
    SpoolError::Unavailable("PostgreSQL has not answered in time".to_owned())
}

/// A connection that has not answered is not used again, and neither are those that lie idle beside
/// it: made before, they go the same way, and each would cost its own wait.
pub(super) fn give_up(pool: &Pool, client: Object) -> SpoolError {
    drop(Object::take(client));
    pool.retain(|_, _| false);
    unanswered()
}

/// Work on one connection that has so long for it.
macro_rules! on_connection {
    ($pool:expr, $max:expr, |$client:ident| $work:expr) => {
        match $pool.get().await {
            Ok(mut object) => {
                let $client = &mut object;
                match tokio::time::timeout($max, $work).await {
                    Ok(result) => result,
                    Err(_) => Err(transaction::give_up(&$pool, object)),
                }
            }
            Err(error) => Err(SpoolError::from(error)),
        }
    };
}
pub(super) use on_connection;

/// One transaction; tried again when another was in its way.
macro_rules! transact {
    ($pool:expr, $commit:expr, |$transaction:ident| $work:expr) => {{
        let mut collisions = 0;
        loop {
            let result = on_connection!($pool, $commit.max(), |client| async {
                let $transaction = transaction::begin(client, $commit).await?;
                let value = $work.await?;
                $transaction.commit().await?;
                Ok(value)
            });
            if !transaction::may_be_repeated(&result, &mut collisions) {
                break result;
            }
        }
    }};
}
pub(super) use transact;
