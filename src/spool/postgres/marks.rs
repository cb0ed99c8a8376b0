//! When something was last seen or done, by whichever node.

use std::collections::BTreeMap;

use async_trait::async_trait;

use tokio_postgres::types::ToSql;

use super::Postgres;
use super::transaction::{self, on_connection};
use crate::clock::Time;
use crate::limits::POSTGRES_WORK_MAX;
use crate::spool::{Marks, SpoolError};

// Transactions of their own, and synced ones, as every connection begins.
const MARK: &str = "INSERT INTO marks (name, at_ms) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET at_ms = greatest(marks.at_ms, excluded.at_ms)";

const CLAIM: &str = "INSERT INTO marks (name, at_ms) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms WHERE marks.at_ms <= $3";

#[async_trait]
impl Marks for Postgres {
    async fn mark(&self, name: &str, at: Time) -> Result<(), SpoolError> {
        on_connection!(self.pool, POSTGRES_WORK_MAX, |client| async {
            client.execute(MARK, &[&name, &at.ms()]).await?;
            Ok(())
        })
    }

    async fn claim(&self, name: &str, at: Time, before: Time) -> Result<bool, SpoolError> {
        on_connection!(self.pool, POSTGRES_WORK_MAX, |client| async {
            let values: &[&(dyn ToSql + Sync)] = &[&name, &at.ms(), &before.ms()];
            Ok(client.execute(CLAIM, values).await? == 1)
        })
    }

    async fn marks(&self) -> Result<BTreeMap<String, Time>, SpoolError> {
        on_connection!(self.pool, POSTGRES_WORK_MAX, |client| async {
            let rows = client.query("SELECT name, at_ms FROM marks", &[]).await?;
            let mut marks = BTreeMap::new();
            for row in rows {
                marks.insert(row.try_get(0)?, Time::from_ms(row.try_get(1)?));
            }
            Ok(marks)
        })
    }
}
