//! Finished mails leave after their time, a few at once, so that acceptance never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Spool;
use crate::clock::Clock;
use crate::limits::{PRUNE_BATCH, PRUNE_EVERY, PRUNE_PAUSE};

/// Prunes for as long as it is polled. A failing store is asked again at the next round.
pub async fn keep(spool: Arc<dyn Spool>, retention: Duration, clock: Arc<dyn Clock>) {
    loop {
        let before = clock.now().minus(retention);
        let pause = match spool.prune(before, PRUNE_BATCH).await {
            Ok(removed) if removed == PRUNE_BATCH => PRUNE_PAUSE,
            Ok(_) => PRUNE_EVERY,
            Err(error) => {
                tracing::warn!(%error, "finished mails could not be pruned");
                PRUNE_EVERY
            }
        };
        sleep(pause).await;
    }
}
