//! The store that the configuration names.

use std::sync::Arc;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Spool, SpoolError};
use crate::config::Store;

/// For `serve`. `hostname` names this node where several share the store. Needs the process's
/// rustls provider installed.
///
/// # Errors
/// The store does not open: a file that another gateway has, a database that does not answer.
pub async fn open_gateway(store: &Store, hostname: &str) -> Result<Arc<dyn Spool>, SpoolError> {
    Ok(match store {
        Store::Sqlite(path) => Arc::new(Sqlite::open_gateway(path)?),
        Store::Postgres(config) => Arc::new(Postgres::open_gateway(config, hostname).await?),
    })
}

/// For commands that look at a gateway's store or change single entries, gateway running or not.
///
/// # Errors
/// There is no store, or it does not answer.
pub async fn open_visitor(store: &Store) -> Result<Arc<dyn Spool>, SpoolError> {
    Ok(match store {
        Store::Sqlite(path) => Arc::new(Sqlite::open_visitor(path)?),
        Store::Postgres(config) => Arc::new(Postgres::open_visitor(config).await?),
    })
}
