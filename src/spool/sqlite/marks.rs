//! When something was last seen or done.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::params;

use super::Sqlite;
use super::writer::Durability;
use crate::clock::Time;
use crate::spool::{Marks, SpoolError};

#[async_trait]
impl Marks for Sqlite {
    async fn mark(&self, name: &str, at: Time) -> Result<(), SpoolError> {
        let name = name.to_owned();
        self.write(Durability::Synced, 0, move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO marks (name, at_ms) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
                )?
                .execute(params![name, at.ms()])?;
            Ok(())
        })
        .await
    }

    async fn claim(&self, name: &str, at: Time, before: Time) -> Result<bool, SpoolError> {
        let name = name.to_owned();
        self.write(Durability::Synced, 0, move |connection| {
            let changed = connection
                .prepare_cached(
                    "INSERT INTO marks (name, at_ms) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms WHERE at_ms <= ?3",
                )?
                .execute(params![name, at.ms(), before.ms()])?;
            Ok(changed == 1)
        })
        .await
    }

    async fn marks(&self) -> Result<BTreeMap<String, Time>, SpoolError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT name, at_ms FROM marks")?;
            let marks =
                statement.query_map((), |row| Ok((row.get(0)?, Time::from_ms(row.get(1)?))))?;
            Ok(marks.collect::<Result<_, _>>()?)
        })
        .await
    }
}
