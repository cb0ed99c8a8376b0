//! Finished mails leave after their time, a few at once, so that acceptance never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Spool;
use crate::clock::Clock;
use crate::limits::{PRUNE_BATCH, PRUNE_EVERY, PRUNE_PAUSE};

/// Prunes for as long as it is polled. A failing store is asked again at the next round.
pub async fn keep(spool: Arc<dyn Spool>, retention: Duration, clock: Arc<dyn Clock>) {
    let mut after = None;
    loop {
        let before = clock.now().minus(retention);
        after = match spool.prune(before, after.unwrap_or(0), PRUNE_BATCH).await {
            Ok(pruned) => pruned.next,
            Err(error) => {
                tracing::warn!(%error, "finished mails could not be pruned");
                None
            }
        };
        sleep(if after.is_some() {
            PRUNE_PAUSE
        } else {
            PRUNE_EVERY
        })
        .await;
    }
}
