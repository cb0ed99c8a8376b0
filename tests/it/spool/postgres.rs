//! What the shared store promises besides.

use futures_util::FutureExt;
use mailbell::spool::Filter;
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::NoTls;

use super::bench::{Bench, Home, Store, at};
use crate::scripted::{mail, new};

#[tokio::test]
async fn a_mail_that_nobody_waits_for_any_more_is_not_stored() {
    let bench = Bench::new(Store::Postgres).await;
    let Home::Database(database) = &bench.home else {
        unreachable!("PostgreSQL is a database")
    };
    let accept = |id: &str| {
        let (spool, mail) = (bench.spool.clone(), mail("ops", &new(id)));
        async move { spool.accept(mail, at(0)).await }
    };
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let hold = "BEGIN; LOCK TABLE mails IN EXCLUSIVE MODE";
    client.batch_execute(hold).await.unwrap();
    let first = tokio::spawn(accept("A"));
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'mails'::regclass";
    let deadline = Instant::now() + Duration::from_secs(10);
    while database.number(waiting).await == 0 {
        assert!(Instant::now() < deadline, "nothing is being stored");
        sleep(Duration::from_millis(10)).await;
    }
    // Behind the first, and given up.
    assert!(accept("B").now_or_never().is_none());
    client.batch_execute("ROLLBACK").await.unwrap();
    let first = first.await.unwrap().unwrap();
    let last = accept("C").await.unwrap();
    let list = bench.spool.list(Filter::default(), 9).await.unwrap();
    let stored: Vec<_> = list.into_iter().map(|one| one.mail).collect();
    assert_eq!(stored, [last, first]);
}
