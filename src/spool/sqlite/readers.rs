//! The connections that read, and the one that sees when other processes have written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::file;
use super::files::Files;
use crate::limits::{LOOK_ELSEWHERE, SPOOL_READERS_MAX};
use crate::spool::SpoolError;

/// Idle connections for reading; more are opened when they are all in use.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    files: Arc<Files>,
    idle: Arc<Mutex<Vec<Connection>>>,
    watch: Arc<Mutex<Watch>>,
}

impl Readers {
    pub(super) fn new(files: Arc<Files>) -> Readers {
        Readers {
            files,
            idle: Arc::default(),
            watch: Arc::default(),
        }
    }

    pub(super) async fn changed_elsewhere(&self) {
        loop {
            tokio::time::sleep(LOOK_ELSEWHERE).await;
            let readers = self.clone();
            let look = tokio::task::spawn_blocking(move || {
                let mut watch = readers.watch.lock().unwrap_or_else(PoisonError::into_inner);
                watch.has_changed(&readers.files)
            });
            if look.await.unwrap_or(true) {
                return;
            }
        }
    }

    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, SpoolError> + Send + 'static,
    {
        let readers = self.clone();
        tokio::task::spawn_blocking(move || {
            readers.files.check()?;
            let idle = readers.lock().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => file::open_reader(readers.files.path())?,
            };
            let transaction = connection.unchecked_transaction()?;
            let result = work(&transaction)?;
            transaction.finish()?;
            // A connection that had an error is closed instead.
            let mut idle = readers.lock();
            if idle.len() < SPOOL_READERS_MAX {
                idle.push(connection);
            }
            Ok(result)
        })
        .await
        .map_err(|error| SpoolError::Unavailable(error.to_string()))?
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SQLite's own count of the changes that other connections have made, the writer's among them.
/// It means something on one and the same connection only.
#[derive(Debug, Default)]
struct Watch {
    connection: Option<Connection>,
    version: Option<i64>,
}

impl Watch {
    /// A store that cannot be asked may have changed, too.
    fn has_changed(&mut self, files: &Files) -> bool {
        let version = self.look(files).ok();
        let before = std::mem::replace(&mut self.version, version);
        version.is_none() || version != before
    }

    fn look(&mut self, files: &Files) -> Result<i64, SpoolError> {
        files.check()?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => file::open_reader(files.path())?,
        };
        let version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        self.connection = Some(connection);
        Ok(version)
    }
}
