//! What the shared store promises besides.

use std::sync::Arc;

use futures_util::FutureExt;
use mailbell::limits::TICKETS_LOCKED_MAX;
use mailbell::spool::postgres::{self, Postgres};
use mailbell::spool::{Filter, Spool};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::NoTls;

use super::bench::{Bench, Home, PLENTY, Store, at};
use crate::database::Database;
use crate::scripted::{mail, new, poison};

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

/// The database has room for so many locks, which all of its transactions share.
#[tokio::test]
async fn however_many_tickets_wait_a_transaction_locks_some_of_them() {
    let bench = Bench::new(Store::Postgres).await;
    for digest in 0..11 {
        let tickets = (0..100).map(|index| new(&format!("{digest}-{index}")));
        bench.accept(&tickets.collect(), 0).await;
    }
    bench.decide(0).await;
    let mut leased = Vec::new();
    for ms in [1, 60_000] {
        let effects = bench.lease_for(&[("ops", 5_000)], PLENTY, ms).await;
        assert!(effects.leased.len() <= TICKETS_LOCKED_MAX);
        let is_all = effects.leased.len() < TICKETS_LOCKED_MAX;
        assert_eq!(effects.due.is_some(), !is_all, "the rest is due");
        leased.push(effects.leased.len());
    }
    assert_eq!(leased, [TICKETS_LOCKED_MAX, 1100 - TICKETS_LOCKED_MAX]);
    bench.assert_balanced().await;
}

#[tokio::test]
async fn a_database_that_no_gateway_has_used_answers_and_has_no_spool() {
    let database = Database::create().await;
    let server = postgres::server(&database.config()).await.unwrap();
    assert!(!server.version.is_empty());
    let visitor = Postgres::open_visitor(&database.config()).await;
    let reason = visitor.unwrap_err().to_string();
    assert!(reason.contains("no gateway has used"), "{reason}");
}

#[tokio::test]
async fn what_a_node_has_taken_to_read_another_gets_when_it_is_handed_back() {
    let bench = Bench::new(Store::Postgres).await;
    let Home::Database(database) = &bench.home else {
        unreachable!("PostgreSQL is a database")
    };
    let other = Postgres::open_gateway(&database.config(), "another").await;
    let other = other.unwrap();
    bench.accept(&new("A"), 0).await;
    let of = async |spool: &dyn Spool| spool.undecided(9).await.unwrap().mails.len();
    assert_eq!(of(&*bench.spool).await, 1);
    assert_eq!(of(&other).await, 0);
    bench.spool.hand_back().await.unwrap();
    assert_eq!(of(&other).await, 1);
    assert_eq!(of(&*bench.spool).await, 0);
}

#[tokio::test]
async fn a_reading_that_is_refused_stops_no_node_whoever_has_read_it() {
    let mut bench = Bench::new(Store::Postgres).await;
    bench.home.refuse_poison().await;
    let reader = Arc::clone(&bench.spool);
    let placer = bench.home.open().await;
    placer.accept(mail("ops", &new("A")), at(1)).await.unwrap();
    assert_eq!(placer.undecided(9).await.unwrap().mails.len(), 1);
    bench.accept(&poison("P"), 2).await;
    bench.accept(&new("B"), 3).await;
    // Read by one node, these wait for what the other has not read.
    bench.decide(4).await;
    assert_eq!(bench.outcomes().await, ["accepted: "; 3]);
    bench.spool = placer;
    let settled = bench.decide(5).await;
    let reasons: Vec<&str> = settled.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("refused_by_the_test"), "{reasons:?}");
    assert_eq!(bench.deliver_all(6).await, ["new A", "new B"]);
    bench.spool = reader;
    bench.bring(&new("C"), 7).await;
    assert_eq!(bench.deliver_all(8).await, ["new C"]);
    bench.assert_balanced().await;
}

/// Such as when the node that has read it ends before it takes its place.
#[tokio::test]
async fn what_is_read_and_has_no_place_is_overdue() {
    let bench = Bench::new(Store::Postgres).await;
    bench.accept(&new("A"), 1).await;
    bench.accept(&new("B"), 2).await;
    let Home::Database(database) = &bench.home else {
        unreachable!("PostgreSQL is a database")
    };
    let overdue = async || bench.spool.overdue(at(100_000)).await.unwrap()["ops"];
    let read = "UPDATE deliveries SET reading = '{}' WHERE id = (SELECT min(id) FROM deliveries)";
    database.execute(read).await;
    assert_eq!(overdue().await, at(1));
    database
        .execute("UPDATE deliveries SET reading = '{}'")
        .await;
    assert_eq!(overdue().await, at(1));
}
