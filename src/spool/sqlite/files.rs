//! Are the files at the store's path still those that were opened?
//!
//! SQLite goes on with files that were removed or replaced, and what it writes there is gone with the process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::at;
use crate::spool::SpoolError;

/// The files of a store that is open.
#[derive(Debug)]
pub(super) struct Files {
    database: Opened,
    /// The log and its index. Not known while the writer has no connection: SQLite removes both with the
    /// last one.
    beside: Mutex<Vec<Opened>>,
}

impl Files {
    /// Of a store that has just been opened for writing.
    pub(super) fn opened(path: &Path) -> Result<Files, SpoolError> {
        let files = Files {
            database: Opened::now(path.to_owned())?,
            beside: Mutex::default(),
        };
        files.note_beside()?;
        Ok(files)
    }

    pub(super) fn path(&self) -> &Path {
        &self.database.path
    }

    /// The writer has a connection again.
    pub(super) fn note_beside(&self) -> Result<(), SpoolError> {
        let path = self.path();
        // SQLite puts them beside the file, not beside a link to it.
        let path = fs::canonicalize(path).map_err(|error| at(path, &error))?;
        let beside = ["-wal", "-shm"].map(|end| {
            let mut name = path.clone().into_os_string();
            name.push(end);
            Opened::now(name.into())
        });
        *self.beside() = beside.into_iter().collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The writer has no connection any more.
    pub(super) fn forget_beside(&self) {
        self.beside().clear();
    }

    /// Without the log, what was written last is lost; without its index, another process would not see
    /// our locks.
    pub(super) fn check(&self) -> Result<(), SpoolError> {
        self.database.check()?;
        self.beside().iter().try_for_each(Opened::check)
    }

    fn beside(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    /// Device and number of the file: not two files have the same while both exist, and an open one does.
    identity: (u64, u64),
}

impl Opened {
    fn now(path: PathBuf) -> Result<Opened, SpoolError> {
        match identity(&path) {
            Ok(identity) => Ok(Opened { path, identity }),
            Err(error) => Err(at(&path, &error)),
        }
    }

    fn check(&self) -> Result<(), SpoolError> {
        let path = &self.path;
        let what = match identity(path) {
            Ok(identity) if identity == self.identity => return Ok(()),
            Ok(_) => "was replaced",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is gone",
            Err(error) => return Err(at(path, &error)),
        };
        let told = format!(
            "{} {what} while it was in use: put it back, or restart the gateway",
            path.display()
        );
        Err(SpoolError::Unavailable(told))
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
