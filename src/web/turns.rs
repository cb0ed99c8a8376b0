//! Whose turn it is to try a draft of a rule file, or to save one. Each takes a core for as long as its
//! tests do, and one whose tests do not come to an end keeps its turn.
//!
//! Owns that nobody waits for such a one for ever, and that no draft keeps others from saving.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::Problem;
use crate::limits::{DRAFTS_CONCURRENT_MAX, RULES_TURN_MAX};

/// Held until it is over.
pub type Turn = OwnedSemaphorePermit;

#[derive(Debug)]
pub struct Turns {
    trying: Arc<Semaphore>,
    saving: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            trying: Arc::new(Semaphore::new(DRAFTS_CONCURRENT_MAX)),
            saving: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Turns {
    /// # Errors
    /// 503 when those before do not come to an end.
    pub async fn to_try(&self) -> Result<Turn, Problem> {
        turn(&self.trying, "tried").await
    }

    /// # Errors
    /// As [`Turns::to_try`].
    pub async fn to_save(&self) -> Result<Turn, Problem> {
        turn(&self.saving, "saved").await
    }
}

async fn turn(turns: &Arc<Semaphore>, what: &str) -> Result<Turn, Problem> {
    let turn = timeout(RULES_TURN_MAX, Arc::clone(turns).acquire_owned()).await;
    if let Ok(Ok(turn)) = turn {
        return Ok(turn);
    }
    let detail = format!(
        "other rule files are being {what}, and their tests do not come to an end: try again later; a restart of the gateway ends them"
    );
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drafts_that_hang_are_not_waited_for_and_keep_nobody_from_saving() {
        let turns = Turns::default();
        let mut hanging = Vec::new();
        for _ in 0..DRAFTS_CONCURRENT_MAX {
            hanging.push(turns.to_try().await.unwrap());
        }
        let refused = turns.to_try().await.unwrap_err();
        assert_eq!(refused.status, 503);
        assert!(refused.detail.contains("being tried"), "{refused:?}");
        let saving = turns.to_save().await.unwrap();
        assert_eq!(turns.to_save().await.unwrap_err().status, 503);
        drop((hanging, saving));
        assert!(turns.to_try().await.is_ok() && turns.to_save().await.is_ok());
    }
}
