//! Bounds in time that are no configuration: the clock is moved, nobody waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailbell::clock::SystemClock;
use mailbell::deliver::pace::Pace;
use mailbell::observe::Metrics;
use mailbell::pipeline::threads::Threads;
use mailbell::pipeline::{Parts, Pipeline};
use mailbell::smtp::{AcceptError, MailSink, ReceivedMail, Rest, RestId};
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{Filter, Spool};
use mailbell::{config, limits};
use tokio::sync::Notify;

use super::{Gateway, pass};
use crate::dialogs::world::{Pair, World, no_certificates};
use crate::scripted::Scripted;

#[tokio::test]
async fn half_a_handshake_has_its_time() {
    let pair = Pair::new();
    let mut world = World::default();
    world.set("implicit_tls", "yes");
    let gateway = Gateway::start(&world, pair.load()).await;
    let _silent = gateway.connect().await;
    let stats = gateway.door.stats();
    pass(limits::TLS_HANDSHAKE_TIMEOUT, || {
        stats.handshakes_failed.load(Ordering::Relaxed) == 1
    })
    .await;
}

/// A pipeline, and when it is asked to store something.
struct Asked {
    pipeline: Pipeline,
    asked: Notify,
}

#[async_trait::async_trait]
impl MailSink for Asked {
    async fn accept(&self, mail: ReceivedMail) -> Result<String, AcceptError> {
        self.asked.notify_one();
        self.pipeline.accept(mail).await
    }

    async fn keep(&self, rest: Rest, piece: Vec<u8>) -> Result<Rest, AcceptError> {
        self.pipeline.keep(rest, piece).await
    }

    async fn discard(&self, rest: RestId) {
        self.pipeline.discard(rest).await;
    }
}

#[tokio::test]
async fn a_store_that_hangs_has_its_time_and_does_not_store_what_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spool.db");
    let spool: Arc<dyn Spool> = Arc::new(Sqlite::open_gateway(&file).unwrap());
    let (metrics, registry) = Metrics::new();
    let parts = Parts {
        spool: Arc::clone(&spool),
        decider: Arc::new(Scripted),
        reading: Threads::shared(),
        teams: BTreeMap::new(),
        pace: Pace::new(config::Pace::Off),
        retry: config::Retry {
            first: Duration::from_secs(1),
            max: Duration::from_secs(1),
            give_up: Duration::from_secs(1),
            second_transport_after: Duration::from_secs(1),
        },
        storm: None,
        clock: Arc::new(SystemClock),
        observer: metrics,
    };
    let asked = Arc::new(Asked {
        pipeline: Pipeline::new(parts),
        asked: Notify::new(),
    });
    let gateway = Gateway::storing(&World::default(), no_certificates(), asked.clone()).await;
    let mut client = gateway.greeted().await;
    // Another process writes, and does not come to an end.
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stats = gateway.door.stats();
    client.begin_data().await;
    client.send("x\r\n.\r\n").await;
    asked.asked.notified().await;
    pass(limits::SMTP_STORE_TIMEOUT, || {
        stats.refused().contains_key(&(451, "4.3.0"))
    })
    .await;
    client.expect("451 4.3.0").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("mailbell_mails_not_stored_total 1"), "{text}");
    other.execute_batch("ROLLBACK").unwrap();
    // The session goes on behind the refusal.
    client.begin_data().await;
    client.send("x\r\n.\r\n").await;
    client.expect("250").await;
    let stored = spool.list(Filter::default(), 10).await.unwrap();
    assert_eq!(stored.len(), 1, "{stored:#?}");
}

/// Also when one is given up and the next begun in one packet.
#[tokio::test]
async fn each_transaction_has_a_time_of_its_own() {
    let whole = Duration::from_secs(20);
    let mut world = World::default();
    world.smtp.transaction_timeout = whole;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    client.say("MAIL FROM:<>\r\n", "250").await;
    for _ in 0..3 {
        tokio::time::pause();
        tokio::time::advance(whole * 3 / 4).await;
        tokio::time::resume();
        client.send("RSET\r\nMAIL FROM:<>\r\n").await;
        client.expect("250 2.0.0").await;
        client.expect("250 2.1.0").await;
    }
    tokio::time::pause();
    tokio::time::advance(whole).await;
    tokio::time::resume();
    client.expect("421 4.4.2").await;
}

#[tokio::test]
async fn a_peer_that_does_not_close_is_closed() {
    let gateway = Gateway::start(&World::default(), no_certificates()).await;
    let mut client = gateway.connect().await;
    client.expect("220").await;
    client.say("GET / HTTP/1.1\r\n", "421").await;
    let stats = gateway.door.stats();
    pass(limits::SMTP_LINGER, || {
        stats.connections_open.load(Ordering::Relaxed) == 0
    })
    .await;
}
