//! Finished mails leave after their time, or when they take too much room; a few at once, so that
//! acceptance never waits for it.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Spool, SpoolError};
use crate::clock::{Clock, Time};
use crate::config::Retention;
use crate::limits::{PRUNE_BATCH, PRUNE_EVERY, PRUNE_PAUSE};

/// Prunes for as long as it is polled. A failing store is asked again at the next round.
pub async fn keep(spool: Arc<dyn Spool>, retention: Retention, clock: Arc<dyn Clock>) {
    loop {
        if let Err(error) = round(&*spool, &retention, &*clock).await {
            tracing::warn!(%error, "finished mails could not be pruned");
        }
        // A short retention is meant so.
        sleep(PRUNE_EVERY.min(retention.age).max(PRUNE_PAUSE)).await;
    }
}

/// What is over its time, then the oldest until the rest has room, then the room itself.
async fn round(
    spool: &dyn Spool,
    retention: &Retention,
    clock: &dyn Clock,
) -> Result<(), SpoolError> {
    prune(spool, clock.now().minus(retention.age), None).await?;
    if let Some(bytes_max) = retention.bytes_max
        && spool.bytes().await? > bytes_max
    {
        prune(spool, clock.now(), Some(bytes_max)).await?;
        if spool.bytes().await? > bytes_max {
            tracing::warn!(
                bytes_max,
                "what is unfinished, and dead letters, take more than spool.size_max"
            );
        }
    }
    while spool.shrink().await? {
        sleep(PRUNE_PAUSE).await;
    }
    Ok(())
}

/// Removes what has ended before then; only until no more than so many bytes are left, if there is such
/// a bound.
async fn prune(
    spool: &dyn Spool,
    before: Time,
    until_bytes: Option<u64>,
) -> Result<(), SpoolError> {
    let mut after = None;
    loop {
        let pruned = spool.prune(before, after, PRUNE_BATCH).await?;
        if pruned.next.is_none() {
            return Ok(());
        }
        if let Some(bytes) = until_bytes
            && pruned.removed > 0
            && spool.bytes().await? <= bytes
        {
            return Ok(());
        }
        after = pruned.next;
        sleep(PRUNE_PAUSE).await;
    }
}
