//! How many, how long, and the end of service.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailbell::limits;
use mailbell::smtp::session::CloseReason;
use mailbell::smtp::stats::TurnedAway;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, Gateway, PATIENCE};
use crate::dialogs::world::{SinkState, World, no_certificates};

#[tokio::test]
async fn connections_are_bounded_and_the_door_recovers() {
    let mut world = World::default();
    world.smtp.connections_max = 2;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut first = gateway.greeted().await;
    let mut second = gateway.greeted().await;
    let mut third = gateway.connect().await;
    third.expect("421 4.3.2").await;
    third.expect_end().await;
    // Those inside are served on.
    first.say("NOOP\r\n", "250").await;
    second.say("QUIT\r\n", "221").await;
    second.expect_end().await;
    // The place is free once the session's task has ended, a moment after its close.
    let let_in = async {
        loop {
            let mut again = gateway.connect().await;
            if again.line().await.starts_with("220") {
                break;
            }
        }
    };
    timeout(PATIENCE, let_in).await.unwrap();
    let stats = gateway.door.stats();
    assert!(stats.turned_away()[&TurnedAway::Full] >= 1);
    assert!(stats.connections_accepted.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    let mut world = World::default();
    world.smtp.connections_max_per_peer = 1;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut first = gateway.greeted().await;
    let mut second = gateway.connect().await;
    second.expect("421 4.7.0").await;
    second.expect_end().await;
    first.say("QUIT\r\n", "221").await;
    assert_eq!(gateway.door.stats().turned_away()[&TurnedAway::PeerFull], 1);
}

#[tokio::test]
async fn dripping_a_command_gains_no_time() {
    let mut world = World::default();
    world.set("idle_timeout", "300ms");
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    let (read, mut write) = tokio::io::split(client.0.get_mut());
    let drip = async {
        // Ends when the door has closed; a byte every 30 ms would reset a per-read timer.
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        loop {
            pace.tick().await;
            if write.write_all(b"N").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut reader = Client(BufReader::new(tokio::io::join(read, tokio::io::sink())));
    tokio::select! {
        line = reader.line() => assert!(line.starts_with("421 4.4.2"), "{line}"),
        () = drip => {}
    }
}

#[tokio::test]
async fn dripping_data_gains_no_time() {
    let mut world = World::default();
    world.set("idle_timeout", "5s");
    world.set("transaction_timeout", "400ms");
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    client.begin_data().await;
    let (read, mut write) = tokio::io::split(client.0.get_mut());
    let drip = async {
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        loop {
            pace.tick().await;
            if write.write_all(b"x\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut reader = Client(BufReader::new(tokio::io::join(read, tokio::io::sink())));
    tokio::select! {
        line = reader.line() => assert!(line.starts_with("421 4.4.2"), "{line}"),
        () = drip => {}
    }
    assert_eq!(gateway.sink.mails(), []);
}

#[tokio::test]
async fn the_end_of_service_waits_for_a_mail_in_the_middle() {
    let gateway = Gateway::start(&World::default(), no_certificates()).await;
    let mut idle = gateway.greeted().await;
    let mut busy = gateway.greeted().await;
    busy.begin_data().await;
    gateway.stop.cancel();
    idle.expect("421 4.3.2").await;
    idle.expect_end().await;
    busy.say("x\r\n.\r\n", "250 2.0.0 Ok: queued as mail-1")
        .await;
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    assert!(
        TcpStream::connect(("127.0.0.1", gateway.port))
            .await
            .is_err()
    );
    let (sink, stats) = (Arc::clone(&gateway.sink), gateway.door.stats());
    gateway.ended().await;
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(stats.closed()[&CloseReason::Shutdown], 2);
    assert_eq!(stats.connections_open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_end_of_service_does_not_wait_for_ever() {
    let drain = Duration::from_millis(200);
    let gateway = Gateway::draining(&World::default(), no_certificates(), drain).await;
    let mut busy = gateway.greeted().await;
    busy.begin_data().await;
    gateway.stop.cancel();
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    let sink = Arc::clone(&gateway.sink);
    gateway.ended().await;
    assert_eq!(sink.mails(), []);
}

#[tokio::test]
async fn the_name_in_ehlo_is_kept_to_its_bound() {
    let gateway = Gateway::start(&World::default(), no_certificates()).await;
    let mut client = gateway.connect().await;
    client.expect("220").await;
    let name = "a".repeat(limits::SMTP_HELO_BYTES_MAX + 50);
    client.say(&format!("EHLO {name}\r\n"), "250").await;
    client.begin_data().await;
    client.say("x\r\n.\r\n", "250").await;
    assert_eq!(
        gateway.sink.mails()[0].helo.len(),
        limits::SMTP_HELO_BYTES_MAX
    );
}

#[tokio::test]
async fn one_mail_of_the_largest_size_always_has_room() {
    let mut world = World::default();
    world.smtp.size_bytes_max = limits::SMTP_MEMORY_BYTES_MAX;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    let whole = limits::SMTP_MEMORY_BYTES_MAX;
    client
        .say(&format!("MAIL FROM:<> SIZE={whole}\r\n"), "250")
        .await;
    let more = whole + 1;
    client.say("RSET\r\n", "250").await;
    client
        .say(&format!("MAIL FROM:<> SIZE={more}\r\n"), "552 5.3.4")
        .await;
}

#[tokio::test]
async fn a_large_mail_goes_to_the_store_in_pieces_and_none_stays_of_what_is_refused() {
    let mut world = World::default();
    world.smtp.size_bytes_max = 1_000_000;
    let gateway = Gateway::start(&world, no_certificates()).await;
    let mut client = gateway.greeted().await;
    let line = "x".repeat(98) + "\r\n";
    let begin = "MAIL FROM:<a@b.example>\r\nRCPT TO:<ops@alerts.example>\r\n";
    let chunk = |bytes: usize| format!("BDAT {bytes}\r\n{}", line.repeat(bytes / line.len()));

    client.begin_data().await;
    client.send(&line.repeat(9_000)).await;
    client.say(".\r\n", "250 2.0.0 Ok").await;
    assert_eq!(gateway.sink.rests(), 0);
    let mails = gateway.sink.mails();
    assert!(mails[0].data.ends_with(line.repeat(9_000).as_bytes()));

    client.send(begin).await;
    client.expect("250").await;
    client.expect("250").await;
    client.say(&chunk(500_000), "250 2.0.0 500000").await;
    assert_eq!(gateway.sink.rests(), 1);
    assert!(gateway.door.memory_bytes_taken() < 300_000);
    client.say("RSET\r\n", "250").await;
    client.say("NOOP\r\n", "250").await;
    assert_eq!(gateway.sink.rests(), 0);

    client.send(begin).await;
    client.expect("250").await;
    client.expect("250").await;
    client.say(&chunk(500_000), "250 2.0.0 500000").await;
    client.say(&chunk(600_000), "552 5.3.4").await;
    client.say("NOOP\r\n", "250").await;
    assert_eq!(gateway.sink.rests(), 0);

    client.send(begin).await;
    client.expect("250").await;
    client.expect("250").await;
    client.say(&chunk(300_000), "250 2.0.0 300000").await;
    gateway.sink.set(SinkState::Full);
    client.say(&chunk(300_000), "452 4.3.1").await;
    client.say("NOOP\r\n", "250").await;
    assert_eq!(
        (gateway.sink.rests(), gateway.door.memory_bytes_taken()),
        (0, 0)
    );
    gateway.sink.set(SinkState::Ok);

    // Given up, and the next mail stored, in one read.
    client.send(begin).await;
    client.expect("250").await;
    client.expect("250").await;
    client.say(&chunk(300_000), "250 2.0.0 300000").await;
    let next = format!("RSET\r\n{begin}BDAT 2 LAST\r\nx\n");
    client.send(&next).await;
    for _ in 0..4 {
        client.expect("250").await;
    }
    client.say("NOOP\r\n", "250").await;
    assert_eq!((gateway.sink.rests(), gateway.sink.mails().len()), (0, 2));

    client.begin_data().await;
    client.send(&line.repeat(5_000)).await;
    drop(client);
    gateway.stop.cancel();
    let sink = Arc::clone(&gateway.sink);
    gateway.ended().await;
    assert_eq!((sink.rests(), sink.mails().len()), (0, 2));
}
