//! Bounds in time that are no configuration: the clock is moved, nobody waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailbell::limits;
use mailbell::smtp::{AcceptError, MailSink, ReceivedMail, Rest, RestId};
use tokio::sync::Notify;

use super::{Gateway, pass};
use crate::dialogs::world::{Pair, World, no_certificates};

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

/// A store that never comes back.
#[derive(Debug, Default)]
struct Stuck {
    asked: Notify,
}

#[async_trait::async_trait]
impl MailSink for Stuck {
    async fn accept(&self, _: ReceivedMail) -> Result<String, AcceptError> {
        self.asked.notify_one();
        std::future::pending().await
    }

    async fn keep(&self, _: Rest, _: Vec<u8>) -> Result<Rest, AcceptError> {
        std::future::pending().await
    }

    async fn discard(&self, _: RestId) {}
}

#[tokio::test]
async fn a_store_that_hangs_has_its_time() {
    let stuck = Arc::new(Stuck::default());
    let gateway = Gateway::storing(&World::default(), no_certificates(), stuck.clone()).await;
    let mut client = gateway.greeted().await;
    client.begin_data().await;
    client.send("x\r\n.\r\n").await;
    stuck.asked.notified().await;
    let stats = gateway.door.stats();
    pass(limits::SMTP_STORE_TIMEOUT, || {
        stats.refused().contains_key(&(451, "4.3.0"))
    })
    .await;
    // The session goes on behind the refusal.
    client.expect("451 4.3.0").await;
    client.say("NOOP\r\n", "250").await;
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
