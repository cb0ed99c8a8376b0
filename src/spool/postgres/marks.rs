//! When something was last seen or done, by whichever node.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Postgres;
use crate::clock::Time;
use crate::spool::{Marks, SpoolError};

// A transaction of its own, and a synced one, as every connection begins.
const MARK: &str = "INSERT INTO marks (name, at_ms) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET at_ms = greatest(marks.at_ms, excluded.at_ms)";

#[async_trait]
impl Marks for Postgres {
    async fn mark(&self, name: &str, at: Time) -> Result<(), SpoolError> {
        let client = self.pool.get().await?;
        client.execute(MARK, &[&name, &at.ms()]).await?;
        Ok(())
    }

    async fn marks(&self) -> Result<BTreeMap<String, Time>, SpoolError> {
        let client = self.pool.get().await?;
        let rows = client.query("SELECT name, at_ms FROM marks", &[]).await?;
        let mut marks = BTreeMap::new();
        for row in rows {
            marks.insert(row.try_get(0)?, Time::from_ms(row.try_get(1)?));
        }
        Ok(marks)
    }
}
