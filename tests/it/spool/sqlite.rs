//! What the embedded store promises besides.

use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{Spool, SpoolError};

use super::bench::{Bench, Home, Store, at};
use crate::scripted::{mail, new};

#[test]
fn a_second_gateway_on_the_same_file_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    let first = Sqlite::open_gateway(&path).unwrap();
    let Err(SpoolError::Unavailable(reason)) = Sqlite::open_gateway(&path) else {
        panic!("two gateways");
    };
    assert!(reason.contains("in use by another mailbell"), "{reason}");
    Sqlite::open_visitor(&path).unwrap();
    drop(first);
    Sqlite::open_gateway(&path).unwrap();
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    drop(Sqlite::open_gateway(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open_gateway(&path).unwrap_err();
    assert!(error.to_string().contains("later version"), "{error}");
}

#[tokio::test]
async fn who_looks_waits_for_no_lock_and_changes_no_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    let gateway = Sqlite::open_gateway(&path).unwrap();
    let busy = rusqlite::Connection::open(&path).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let visitor = Sqlite::open_visitor(&path).unwrap();
    assert!(visitor.audit().await.unwrap().balances());
    busy.execute_batch("ROLLBACK").unwrap();
    drop((visitor, gateway));
    for version in [0, 99] {
        busy.pragma_update(None, "user_version", version).unwrap();
        let error = Sqlite::open_visitor(&path).unwrap_err();
        assert!(error.to_string().contains("another version"), "{error}");
        let kept: i32 = busy
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(kept, version);
    }
}

#[tokio::test]
async fn nobody_else_may_read_the_spool() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(Store::Sqlite).await;
    bench.bring(&new("T"), 0).await;
    let Home::Folder(folder) = &bench.home else {
        unreachable!("SQLite is in a folder")
    };
    let data = folder.path().join("data");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut files = Vec::new();
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
        files.push(file.file_name().into_string().unwrap());
    }
    files.sort();
    let expected = ["spool.db", "spool.db-shm", "spool.db-wal", "spool.db.lock"];
    assert_eq!(files, expected);
}

/// An open file that was removed takes what is written to it, and is gone with the process.
#[tokio::test]
async fn nothing_is_promised_in_files_that_are_gone_or_were_replaced() {
    let bench = Bench::new(Store::Sqlite).await;
    let Home::Folder(folder) = &bench.home else {
        unreachable!("SQLite is in a folder")
    };
    let data = folder.path().join("data");
    let first = bench.accept(&new("T"), 0).await;
    let refused = async |wanted: &str| {
        let written = bench.spool.accept(mail("ops", &new("lost")), at(1)).await;
        let read = bench.spool.knows(first).await;
        for result in [written.map(|_| ()), read.map(|_| ())] {
            let Err(SpoolError::Unavailable(reason)) = result else {
                panic!("{result:?}, but a file {wanted}");
            };
            assert!(reason.contains(wanted), "{reason}");
        }
    };
    let files = ["spool.db", "spool.db-wal", "spool.db-shm"];
    for (number, file) in files.iter().enumerate() {
        let (path, away) = (data.join(file), data.join("away"));
        std::fs::rename(&path, &away).unwrap();
        refused(&format!("{file} is gone")).await;
        std::fs::copy(&away, &path).unwrap();
        refused(&format!("{file} was replaced")).await;
        // It is back: nothing was lost.
        std::fs::rename(&away, &path).unwrap();
        bench.accept(&new(&format!("T-{number}")), 2).await;
        assert!(bench.spool.knows(first).await.unwrap());
    }
    let audit = bench.spool.audit().await.unwrap();
    assert!(audit.balances());
    assert_eq!(audit.teams["ops"].accepted, 4);
}

/// A person's retry probes every transport that fails; what the gateway does itself must not.
#[tokio::test]
async fn what_the_gateway_writes_is_no_persons_doing() {
    let bench = Bench::new(Store::Sqlite).await;
    let changed = tokio::spawn({
        let spool = bench.spool.clone();
        async move { spool.changed_elsewhere().await }
    });
    let mut number = 0;
    while !changed.is_finished() {
        bench.bring(&new(&format!("T-{number}")), number).await;
        number += 1;
    }
    assert!(!changed.await.unwrap());
}
