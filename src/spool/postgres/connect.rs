//! The way to the database: address, TLS, pool, schema.

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod,
};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::STATEMENTS;
use super::transaction::unanswered;
use crate::config;
use crate::limits::{
    POSTGRES_CONNECT_TIMEOUT, POSTGRES_CONNECTIONS, POSTGRES_KEEPALIVE_EVERY,
    POSTGRES_KEEPALIVE_IDLE, POSTGRES_KEEPALIVES, POSTGRES_WORK_MAX,
};
use crate::spool::SpoolError;
use crate::trust;

/// Steps of the schema; the table `mailbell_schema` counts those taken.
const STEPS: [&str; 1] = [include_str!("schema_1.sql")];
const VERSION: &str = "SELECT version FROM mailbell_schema";

/// Held while the schema is brought to the present state.
const MIGRATION_LOCK: i64 = 0x6d61_696c_6265_6c6c; // "mailbell"

/// For each connection. Every statement has an index to go by, and tables grow from nothing to
/// millions of rows faster than their statistics: a plan made for a small table must not scan a
/// large one. Commits are synced unless a transaction says otherwise. What nobody waits for any more
/// ([`POSTGRES_WORK_MAX`]) gives its locks back.
const SETTINGS: &str = "
    SET enable_seqscan = off; SET jit = off; SET statement_timeout = '20s';
    SET idle_in_transaction_session_timeout = '20s';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

pub(super) fn config(from: &config::Postgres) -> Result<tokio_postgres::Config, SpoolError> {
    // The error is not told: it may repeat the password.
    let mut config: tokio_postgres::Config = from
        .url
        .expose_secret()
        .parse()
        .map_err(|_| SpoolError::Unknown("spool.url is not a PostgreSQL address".to_owned()))?;
    config.application_name("mailbell");
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(POSTGRES_CONNECT_TIMEOUT);
    }
    find_the_dead(&mut config);
    Ok(config)
}

/// A server that has vanished is found out by the socket, unless the address says otherwise.
fn find_the_dead(config: &mut tokio_postgres::Config) {
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(POSTGRES_CONNECT_TIMEOUT);
    }
    if config.get_keepalives_idle() == tokio_postgres::Config::new().get_keepalives_idle() {
        config.keepalives_idle(POSTGRES_KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(POSTGRES_KEEPALIVE_EVERY);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(POSTGRES_KEEPALIVES);
    }
}

pub(super) fn tls(from: &config::Postgres) -> Result<MakeRustlsConnect, SpoolError> {
    let client = trust::client(from.ca_file.as_deref())
        .map_err(|error| SpoolError::Unknown(format!("spool.ca_file {error}")))?;
    Ok(MakeRustlsConnect::new(client))
}

/// Connections are made when they are needed.
pub(super) fn pool(from: &config::Postgres) -> Result<Pool, SpoolError> {
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(
        config(from)?,
        tls(from)?,
        ManagerConfig { recycling_method },
    );
    let prepare = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move {
            client
                .batch_execute(SETTINGS)
                .await
                .map_err(HookError::Backend)?;
            // All at once: statements are sent without waiting for each other, so that preparing one
            // of them must not change their order.
            for sql in STATEMENTS {
                client
                    .prepare_cached(sql)
                    .await
                    .map_err(HookError::Backend)?;
            }
            Ok(())
        })
    });
    Pool::builder(manager)
        .max_size(POSTGRES_CONNECTIONS)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .wait_timeout(Some(POSTGRES_CONNECT_TIMEOUT))
        .create_timeout(Some(POSTGRES_CONNECT_TIMEOUT))
        .recycle_timeout(Some(POSTGRES_CONNECT_TIMEOUT))
        .post_create(prepare)
        .build()
        .map_err(|error| SpoolError::Unknown(error.to_string()))
}

/// Brings the schema to the present state, on a connection of its own: the pool's expect it.
pub(super) async fn migrate(from: &config::Postgres) -> Result<(), SpoolError> {
    alone(from, async |client| migrate_on(client).await).await
}

/// Whether the schema is the present one.
pub(super) async fn check(from: &config::Postgres) -> Result<(), SpoolError> {
    let found = alone(from, async |client| {
        Ok(client.query_opt(VERSION, &[]).await)
    })
    .await?;
    let version: i32 = match found {
        Ok(row) => row.map_or(0, |row| row.get(0)),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => 0,
        Err(error) => return Err(error.into()),
    };
    if usize::try_from(version) == Ok(STEPS.len()) {
        return Ok(());
    }
    Err(SpoolError::Unavailable(match version {
        0 => "no gateway has used this database yet".to_owned(),
        _ => format!(
            "the database has schema {version}, this mailbell knows {}: it is of another version than the gateway",
            STEPS.len()
        ),
    }))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub version: String,
    /// What it says it has written is on the disk.
    pub is_synced: bool,
}

/// What the database says of itself; whether a gateway has used it does not matter.
///
/// # Errors
/// It does not answer.
pub async fn server(from: &config::Postgres) -> Result<Server, SpoolError> {
    let sql = "SELECT current_setting('server_version'), current_setting('fsync') = 'on'";
    let row = alone(from, async |client| Ok(client.query_one(sql, &[]).await?)).await?;
    Ok(Server {
        version: row.try_get(0)?,
        is_synced: row.try_get(1)?,
    })
}

pub(super) type Connection = tokio_postgres::Connection<
    tokio_postgres::Socket,
    <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream,
>;

/// One connection outside the pool. It lives for as long as the second is driven.
pub(super) async fn connect(
    from: &config::Postgres,
) -> Result<(tokio_postgres::Client, Connection), SpoolError> {
    let (config, tls) = (config(from)?, tls(from)?);
    let connecting = timeout(POSTGRES_WORK_MAX, config.connect(tls)).await;
    Ok(connecting.map_err(|_| unanswered())??)
}

/// One statement on a connection of its own, outside every transaction.
pub async fn execute(from: &config::Postgres, sql: &str) -> Result<(), SpoolError> {
    alone(from, async |client| Ok(client.batch_execute(sql).await?)).await
}

/// Some work on a connection of its own.
async fn alone<T>(
    from: &config::Postgres,
    work: impl AsyncFnOnce(&mut tokio_postgres::Client) -> Result<T, SpoolError>,
) -> Result<T, SpoolError> {
    let (mut client, connection) = connect(from).await?;
    let driver = tokio::spawn(connection);
    let result = work(&mut client).await;
    drop(client);
    let _ = driver.await;
    result
}

async fn migrate_on(client: &mut tokio_postgres::Client) -> Result<(), SpoolError> {
    let transaction = client.transaction().await?;
    let lock = "SELECT pg_advisory_xact_lock($1)";
    transaction.execute(lock, &[&MIGRATION_LOCK]).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS mailbell_schema (version integer NOT NULL);
             INSERT INTO mailbell_schema
                 SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM mailbell_schema)",
        )
        .await?;
    let row = transaction.query_one(VERSION, &[]).await?;
    let version: i32 = row.get(0);
    let Some(steps) = usize::try_from(version).ok().and_then(|at| STEPS.get(at..)) else {
        return Err(SpoolError::Unavailable(format!(
            "the database has schema {version}, this mailbell knows {} only: it was used by a later version",
            STEPS.len()
        )));
    };
    for step in steps {
        transaction.batch_execute(step).await?;
    }
    let present = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    let set = "UPDATE mailbell_schema SET version = $1";
    transaction.execute(set, &[&present]).await?;
    Ok(transaction.commit().await?)
}

impl From<tokio_postgres::Error> for SpoolError {
    fn from(error: tokio_postgres::Error) -> SpoolError {
        let text = text_of(&error);
        let class = error
            .code()
            .map(|code| (code, code.code().get(..2).unwrap_or_default()));
        match class {
            Some((code, _)) if *code == SqlState::DISK_FULL => SpoolError::Full(text),
            Some((code, _))
                if *code == SqlState::T_R_DEADLOCK_DETECTED
                    || *code == SqlState::T_R_SERIALIZATION_FAILURE =>
            {
                SpoolError::Collided(text)
            }
            // Data exceptions and violated constraints: this one record. 54: too large.
            Some((_, "22" | "23" | "54")) => SpoolError::Refused(text),
            _ => SpoolError::Unavailable(text),
        }
    }
}

impl From<PoolError> for SpoolError {
    fn from(error: PoolError) -> SpoolError {
        match error {
            PoolError::Backend(error) => error.into(),
            other => SpoolError::Unavailable(format!("no connection to PostgreSQL: {other}")),
        }
    }
}

/// The error with what the server said of it; never the address, which may hold a password.
fn text_of(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
