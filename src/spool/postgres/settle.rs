//! What became of leased deliveries.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::known;
use super::rows::{query, read_deliveries};
use super::write;
use crate::clock::Time;
use crate::spool::plan::{self, Depth};
use crate::spool::{Effects, Settlement, SpoolError};

/// Those of them that this node still has to send. If another has taken one over, what became of it
/// here is not what counts.
pub(super) const MINE: &str = "SELECT id FROM deliveries
    WHERE id = ANY($1) AND stage = 3 AND node = $2 ORDER BY id";

pub(super) async fn settle(
    transaction: &Transaction<'_>,
    settlements: &[Settlement],
    node: Uuid,
    now: Time,
) -> Result<Effects, SpoolError> {
    let ids: Vec<i64> = settlements.iter().map(|one| one.delivery.0).collect();
    known::lock_tickets_of(transaction, &ids).await?;
    let (found, mine) = tokio::try_join!(
        biased;
        async { query(transaction, known::BY_ID, &[&ids]).await },
        async { query(transaction, MINE, &[&ids, &node]).await },
    )?;
    let mut deliveries = read_deliveries(&found)?;
    let mine: Vec<i64> = mine
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    deliveries.retain(|delivery| mine.contains(&delivery.id.0));
    let known = known::of_moved(transaction, deliveries, Depth::First).await?;
    let changes = plan::settle(known, settlements, now)?;
    write::write(transaction, changes, node, now).await
}
