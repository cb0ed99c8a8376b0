//! The database file: made durable, opened, kept to one gateway, brought to the present schema.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::search;
use crate::folder::folder_of;
use crate::spool::SpoolError;

/// Steps of the schema; `PRAGMA user_version` counts those taken.
const STEPS: [&str; 1] = [include_str!("schema_1.sql")];

/// How long a writer waits for another process that writes, such as `mailbell queue retry`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The WAL is copied into the database when it has so many pages (32 MiB): seldom enough that
/// pages written several times are copied once.
const CHECKPOINT_PAGES: u32 = 8192;

/// Opens for writing; makes the file, its directory and its tables when they are missing.
pub(super) fn open_writer(path: &Path) -> Result<Connection, SpoolError> {
    let is_new = fs::metadata(path).map_or(true, |file| file.len() == 0);
    let directory = folder_of(path);
    if is_new {
        make_directory(directory).map_err(|error| at(directory, &error))?;
        // SQLite gives its -wal and -shm the mode of the database.
        own_file(path).map_err(|error| at(path, &error))?;
    }
    let mut connection = connect(path)?;
    if is_new {
        // Twice the default: a ticket mail of 2 to 6 KiB then overflows into few pages.
        connection.pragma_update(None, "page_size", 8192)?;
        // So that room can be given back in small steps, which VACUUM cannot.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    write_ahead(&connection)?;
    migrate(&mut connection)?;
    if is_new {
        // A file whose name is not on the disk is lost with everything in it.
        sync_directory(directory).map_err(|error| at(directory, &error))?;
    }
    Ok(connection)
}

/// Opens for writing what a gateway has made, and writes nothing: neither a lock of another process
/// nor a full disk keeps anybody from looking.
pub(super) fn open_present(path: &Path) -> Result<Connection, SpoolError> {
    let connection = connect(path)?;
    write_ahead(&connection)?;
    let version = version(&connection)?;
    if version != STEPS.len() {
        return Err(SpoolError::Unavailable(format!(
            "the database has schema {version}, this mailbell knows {}: it is of another version than the gateway",
            STEPS.len()
        )));
    }
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, SpoolError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    keep_plans(&connection)?;
    search::teach(&connection)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn write_ahead(connection: &Connection) -> Result<(), SpoolError> {
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)?; // KiB
    Ok(())
}

/// Opens for reading beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, SpoolError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    keep_plans(&connection)?;
    search::teach(&connection)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A search goes through some mails; an index of all, made for one question, takes far longer.
    connection.pragma_update(None, "automatic_index", false)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Otherwise SQLite compiles a statement anew for each value that is compared with a column of a
/// partial index.
fn keep_plans(connection: &Connection) -> Result<(), SpoolError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// The right to be the one gateway on this file; given back when dropped, or when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Lock, SpoolError> {
        let directory = folder_of(path);
        make_directory(directory).map_err(|error| at(directory, &error))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let file = own_file(&lock_path).map_err(|error| at(&lock_path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(SpoolError::Unavailable(format!(
                "{} is in use by another mailbell",
                path.display()
            ))),
            Err(fs::TryLockError::Error(error)) => Err(at(&lock_path, &error)),
        }
    }
}

fn version(connection: &Connection) -> Result<usize, SpoolError> {
    Ok(connection.query_row("PRAGMA user_version", (), |row| row.get(0))?)
}

fn migrate(connection: &mut Connection) -> Result<(), SpoolError> {
    if version(connection)? == STEPS.len() {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version = version(&transaction)?;
    let Some(steps) = STEPS.get(version..) else {
        return Err(SpoolError::Unavailable(format!(
            "the database has schema {version}, this mailbell knows {} only: it was used by a later version",
            STEPS.len()
        )));
    };
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len())?;
    transaction.commit()?;
    Ok(())
}

/// Makes missing directories, each synced into the one above it.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = folder_of(directory);
    make_directory(above)?;
    match own_directory().create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(above),
    }
}

/// Readable by nobody else, whatever the umask: customers' mails are in it.
fn own_directory() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Opened, or made with the same care; a mode that an administrator gave is left alone.
fn own_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub(super) fn at(path: &Path, error: &io::Error) -> SpoolError {
    let text = format!("{}: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull {
        SpoolError::Full(text)
    } else {
        SpoolError::Unavailable(text)
    }
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> SpoolError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => SpoolError::Full(error.to_string()),
            // `None`: SQLite did its part, and what it answered is not what was expected.
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
            | None => SpoolError::Refused(error.to_string()),
            _ => SpoolError::Unavailable(error.to_string()),
        }
    }
}
